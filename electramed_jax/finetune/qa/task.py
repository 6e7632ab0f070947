"""Questions answered with a span of a passage: SQuAD's task, and BioASQ's factoid questions over several passages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa import bioasq, nbest, splits, squad_metrics, windows
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.splits import BIOASQ, SQUAD, Split
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.qa.windows import Window, WindowConfig, WindowStats
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.task.task import DEV, SPAN_HEAD, TEST, TRAIN, Examples, Outputs

ENDINGS = ("json", "json.gz")
CLS, DROP = "cls", "drop"
PRIMARY = {SQUAD: "f1", BIOASQ: "mrr"}


class QaTask:
    """See `task.Task`.

    Scores by `measures`: "squad": exact match and F1 of each question-passage pair; "bioasq": the best answers over all
    passages of a question, by the official measures, over all questions ("mrr"), for each file ("mrr_7B1", ...), and
    the mean of those, which papers print as the score of a year ("mrr_mean_of_batches").
    """

    kind = "qa"
    head = SPAN_HEAD

    def __init__(
        self,
        paths: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer,
        *,
        windowing: WindowConfig = WindowConfig(),
        measures: str = SQUAD,
        gold: Sequence[str] = (),
        dev_fraction: float = 0.0,
        windows_without_answer: str = CLS,
        drop_mismatched: bool = False,
        null_threshold: float = 0.0,
        max_answer_length: int = nbest.MAX_PIECES,
    ):
        """Reads the files and makes the examples.

        Args:
          paths: of each split the files, in SQuAD's form or the BioASQ organisers'.
          gold: the organisers' golden files of the test batches; () where the test files hold the answers.
          dev_fraction: of the training questions, held out where there is no dev file.
          windows_without_answer: of answered questions: "cls" trains them to point at [CLS], which keeps them quiet
            when answers of several windows are compared; "drop" leaves them out of training.
          drop_mismatched: leave out questions whose answer is not at its offset, instead of raising.
          null_threshold: with impossible questions, none is answered where "no answer" scores this much higher.

        Raises:
          UserError: names file and question of what cannot be used.
        """
        self.max_length = windowing.max_seq_length
        self.primary = PRIMARY[measures]
        self._paths, self._gold, self._measures = dict(paths), list(gold), measures
        self._max_answer_pieces = max_answer_length
        self._splits = _splits(paths, gold, measures == BIOASQ, dev_fraction, drop_mismatched)
        self.splits = tuple(self._splits)
        # SQuAD 1.1 has no impossible questions, and every question is answered.
        known = [question for split in self._splits.values() for question in split.questions]
        self._null_threshold = null_threshold if any(question.impossible for question in known) else None
        self._windows: dict[str, list[Window]] = {}
        self._accounts: dict[str, WindowStats] = {}
        for name, split in self._splits.items():
            self._windows[name], self._accounts[name] = windows.windows(split.questions, tokenizer, windowing)
        if windows_without_answer == DROP:
            asked = self._splits[TRAIN].questions
            self._windows[TRAIN] = [w for w in self._windows[TRAIN] if w.holds_answer or asked[w.question].impossible]

    def examples(self, split: str) -> Examples:
        return Examples(
            [window.input_ids for window in self._windows[split]],
            [np.array([window.start, window.end], np.int32) for window in self._windows[split]],
        )

    def answers(self, split: str, outputs: Outputs) -> list[tuple[Question, Answers]]:
        """Each question-passage pair of dev or test, and what the model offers."""
        asked = self._splits[split].questions
        found = nbest.of_questions(asked, self._windows[split], outputs, self._max_answer_pieces)
        return list(zip(asked, found, strict=True))

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        if self._measures == SQUAD:
            return squad_metrics.scores(self._splits[split].questions, self._texts(split, outputs))
        merged = self._merged(split, outputs)
        gold, batches = self._splits[split].gold, self._splits[split].batches
        scores = bioasq.measures(gold, merged)
        if len(batches) > 1:
            of_batch = {
                name: bioasq.measures({number: gold[number] for number in ids}, merged) for name, ids in batches.items()
            }
            for measure in list(scores):
                scores[f"{measure}_mean_of_batches"] = np.mean([values[measure] for values in of_batch.values()]).item()
                scores |= {f"{measure}_{name}": values[measure] for name, values in of_batch.items()}
        return scores

    def predictions(self, split: str, outputs: Outputs) -> str:
        """JSON as the evaluation programs take it: {id: text} of SQuAD, {"questions": [...]} of BioASQ."""
        if self._measures == SQUAD:
            return json.dumps(self._texts(split, outputs), ensure_ascii=False, indent=1) + "\n"
        merged = self._merged(split, outputs)
        handed_in = {number: merged.get(number, []) for number in [*self._splits[split].gold, *merged]}
        return json.dumps(bioasq.submission(handed_in), ensure_ascii=False, indent=1) + "\n"

    def account(self) -> dict[str, Any]:
        return {
            "files": split_files.account(self._named_paths()),
            "sizes": {name: self._sizes(name) for name in self.splits},
            "measures": self._measures,
            "windows": {name: account.as_json() for name, account in self._accounts.items()},
        }

    def told(self) -> list[str]:
        lines = []
        for name, split in self._splits.items():
            sizes, account = self._sizes(name), self._accounts[name]
            source = _named(self._paths.get(name, ["held out of the training file"]))
            line = (
                f"{name}: {source}: {sizes['questions']:,} questions over {sizes['passages']:,} passages of "
                f"{sizes['mean_passage_characters']:,} characters on average, {account.windows:,} windows, "
                f"{account.windows_with_answer:,} with an answer"
            )
            notes = {
                "passages left out because dev or test ask their question, too": split.elsewhere,
                "questions left out because no answer is at its offset": split.mismatched,
                "questions cut to max_query_length": account.cut_questions,
                "answers in no whole window": len(account.lost),
                "gold questions without a passage": len(split.gold.keys() - set(split.ids())),
            }
            if self._measures == BIOASQ and name != TRAIN:
                line += f"; a passage has a gold answer for {split.attainable():,} of {len(split.gold):,} questions"
            lines.append("; ".join([line, *(f"{count:,} {what}" for what, count in notes.items() if count)]))
        return lines

    def trains_on(self, other: QaTask) -> list[str]:
        """Ids of questions that are trained on here and asked in dev or test of another task."""
        measured = [split for name, split in other._splits.items() if name != TRAIN]
        mine = self._splits[TRAIN]
        kept = set(splits.without(mine, measured, by_question=True).questions)
        return [question.id for question in mine.questions if question not in kept]

    def _texts(self, split: str, outputs: Outputs) -> dict[str, str]:
        """The answer to each question-passage pair, by its id."""
        return {q.id: answers.text(self._null_threshold) for q, answers in self.answers(split, outputs)}

    def _merged(self, split: str, outputs: Outputs) -> dict[str, list[str]]:
        """By question id, the best answers over all passages."""
        merged = bioasq.merge_all(self.answers(split, outputs))
        return {number: [text for text, _ in best] for number, best in merged.items()}

    def _sizes(self, name: str) -> dict[str, int]:
        split = self._splits[name]
        of_bioasq = self._measures == BIOASQ
        measured = {"gold": len(split.gold), "attainable": split.attainable()} if of_bioasq and name != TRAIN else {}
        return {
            "questions": len(split.ids()) if of_bioasq else len(split.questions),
            **measured,
            "passages": len(split.questions),
            "impossible": sum(question.impossible for question in split.questions),
            "mean_passage_characters": round(np.mean([len(question.context) for question in split.questions])),
            "examples": len(self._windows[name]),
            "left_out_asked_elsewhere": split.elsewhere,
            "left_out_mismatched": split.mismatched,
        }

    def _named_paths(self) -> dict[str, str]:
        """{"train": path}, and {"test 1": path, "test 2": path} where a split has several."""
        named = {}
        for name, listed in {**self._paths, "gold": self._gold}.items():
            for number, path in enumerate(listed, 1):
                named[name if len(listed) == 1 else f"{name} {number}"] = path
        return named


def _splits(
    paths: Mapping[str, Sequence[str]], gold: Sequence[str], by_question: bool, dev_fraction: float, drop: bool
) -> dict[str, Split]:
    found = {
        name: splits.read(listed, for_training=name == TRAIN, drop_mismatched=drop) for name, listed in paths.items()
    }
    if gold:
        if TEST not in found:
            raise UserError("gold answers but no test file; add --config.task.test=FILE, or leave config.qa.gold empty")
        found[TEST] = splits.with_gold(found[TEST], gold)
    for name, split in found.items():
        _check_labelled(name, paths[name], split, by_question, bool(gold))
    others = [split for name, split in found.items() if name != TRAIN]
    train = splits.without(found[TRAIN], others, by_question)
    if DEV not in found:
        if not dev_fraction:
            raise UserError(
                "no dev file, by which the best checkpoint is chosen; add --config.task.dev=FILE, or hold out a tenth "
                "of the training questions with --config.task.dev_fraction=0.1"
            )
        found[DEV] = splits.held_out(train, dev_fraction)
        elsewhere = train.elsewhere
        train = splits.without(train, [found[DEV]], by_question)
        train.elsewhere = elsewhere
    if not train.questions:
        raise UserError(f"{_named(paths[TRAIN])}: all its questions are asked in dev or test, too; give other files")
    found[TRAIN] = train
    return {name: found[name] for name in (TRAIN, DEV, TEST) if name in found}


def _check_labelled(name: str, listed: Sequence[str], split: Split, by_question: bool, gold_given: bool) -> None:
    """Raises UserError for the first question that can be neither trained on nor scored."""
    if name == TEST and gold_given:
        return
    if by_question and name != TRAIN:
        missing = [number for number, texts in split.gold.items() if not texts]
    else:
        missing = [question.id for question in split.questions if not question.is_labelled]
    if missing:
        next_step = (
            "give the golden files with --config.qa.gold=FILES" if name == TEST else "give a file that has the answers"
        )
        raise UserError(
            f"{_named(listed)}: question {missing[0]} has no answer ({len(missing)} have none); {next_step}"
        )


def _named(listed: Sequence[str]) -> str:
    return listed[0] if len(listed) == 1 else f"{len(listed)} files, {listed[0]} to {listed[-1]}"
