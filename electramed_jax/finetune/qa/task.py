"""Extractive question answering: SQuAD, and BioASQ's factoid questions over several passages."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa import bioasq, nbest, splits, squad_metrics, windows
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.splits import BIOASQ, BIOASQ_LIST, SQUAD, Split
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.qa.windows import Window, WindowConfig, WindowStats
from electramed_jax.finetune.task import data_warnings, metrics, split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, SPAN_HEAD, TEST, TRAIN, Examples, Outputs

ENDINGS = ("json", "json.gz")
CLS, DROP = "cls", "drop"
# Scores that may choose the checkpoint, the default first.
PRIMARY = {SQUAD: ("f1", "exact_match"), BIOASQ: ("mrr", "strict_accuracy", "lenient_accuracy"),
           BIOASQ_LIST: ("f1", "precision", "recall")}  # fmt: skip


class QaTask:
    """Questions with a span of a passage as the answer; see `task.Task`.

    Scores, by `measures`:
      "squad": exact match and F1 of each question-passage pair.
      "bioasq": the official measures of the best answers over all passages of a question: over all questions ("mrr"),
        for each file ("mrr_7B1", ...), and the mean over files, which papers report as the score of a year
        ("mrr_mean_of_batches").
      "bioasq_list": the same for list questions: mean precision, recall and F1 of their items.
    """

    kind = "qa"
    head = SPAN_HEAD

    def __init__(
        self,
        paths: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer,
        *,
        windowing: WindowConfig = windows.DEFAULT_WINDOWS,
        measures: str = SQUAD,
        gold: Sequence[str] = (),
        dev_fraction: float = 0.0,
        windows_without_answer: str = CLS,
        drop_mismatched: bool = False,
        null_threshold: float = 0.0,
        max_answer_length: int = nbest.MAX_ANSWER_LENGTH,
        list_threshold: float = 0.5,
        primary: str = "",
    ):
        """Reads the files and makes the examples.

        Args:
          paths: the files of each split, in SQuAD's or BioASQ's format.
          windowing: how passages are split into windows.
          measures: "squad", "bioasq" or "bioasq_list".
          gold: BioASQ's golden files of the test batches; () if the test files contain the answers.
          dev_fraction: fraction of the training questions to hold out if there is no dev file.
          windows_without_answer: training windows without the answer of an answered question. "cls": the label is
            [CLS], so that they score low when the answers of several windows are compared; "drop": not trained on.
          drop_mismatched: leave out questions with an answer that is not at its offset, instead of raising.
          null_threshold: if there are impossible questions: no answer is predicted if [CLS] scores this much above the
            best answer.
          max_answer_length: maximum word pieces of an answer.
          list_threshold: see `bioasq.choose_items`.
          primary: score that chooses the checkpoint; "": the first of `PRIMARY`.

        Raises:
          UserError: a question cannot be used; names file and question.
        """
        self.max_length, self.tokenizer, self._windowing = windowing.max_seq_length, tokenizer, windowing
        self.primary = metrics.choose_primary(primary, PRIMARY[measures][0], PRIMARY[measures])
        self._paths, self._gold, self._measures = dict(paths), list(gold), measures
        self._max_answer_length, self._list_threshold = max_answer_length, list_threshold
        self._kind = bioasq.LIST if measures == BIOASQ_LIST else bioasq.FACTOID
        self._splits = _splits(paths, gold, measures != SQUAD, dev_fraction, drop_mismatched, self._kind)
        self.splits = tuple(self._splits)
        # SQuAD 1.1 has no impossible questions, and every question is answered.
        has_impossible = any(question.impossible for split in self._splits.values() for question in split.questions)
        self._null_threshold = null_threshold if has_impossible else None
        self._windows: dict[str, list[Window]] = {}
        self._window_stats: dict[str, WindowStats] = {}
        for name, split in self._splits.items():
            self._windows[name], self._window_stats[name] = windows.make_windows(split.questions, tokenizer, windowing)
        if windows_without_answer == DROP:
            questions = self._splits[TRAIN].questions
            kept = [w for w in self._windows[TRAIN] if w.holds_answer or questions[w.question].impossible]
            self._windows[TRAIN] = kept

    @classmethod
    def from_config(cls, config: FinetuneConfig, encoder: InitEncoder) -> QaTask:
        """Builds the task with the vocabulary of an encoder."""
        chosen = {"train": config.task.train, "dev": config.task.dev, "test": config.task.test}
        paths = split_files.find_split_files(config.task.data, chosen, ENDINGS)
        return cls(
            {split: splits.expand_paths(listed) for split, listed in paths.items()},
            encoder.make_tokenizer(),
            windowing=WindowConfig(config.task.max_seq_length, config.qa.doc_stride, config.qa.max_query_length),
            measures=config.qa.measures,
            gold=splits.expand_paths(config.qa.gold),
            dev_fraction=config.task.dev_fraction,
            windows_without_answer=config.qa.windows_without_answer,
            drop_mismatched=config.qa.drop_mismatched,
            null_threshold=config.qa.null_threshold,
            max_answer_length=config.qa.max_answer_length,
            list_threshold=config.qa.list_threshold,
            primary=config.task.primary,
        )

    def examples(self, split: str) -> Examples:
        """Returns one example per window of a passage."""
        return Examples(
            [window.input_ids for window in self._windows[split]],
            [np.array([window.start, window.end], np.int32) for window in self._windows[split]],
        )

    def answers(self, split: str, outputs: Outputs) -> list[tuple[Question, Answers]]:
        """Returns each question-passage pair of a split with its candidate answers."""
        questions = self._splits[split].questions
        found = nbest.answer_questions(questions, self._windows[split], outputs, self._max_answer_length)
        return list(zip(questions, found, strict=True))

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes the scores of `measures`."""
        if self._measures == SQUAD:
            return squad_metrics.squad_scores(self._splits[split].questions, self._texts(split, outputs))
        merged = self._merged(split, outputs)
        gold, batches = self._splits[split].gold, self._splits[split].batches
        scores = self._scores_of(split, gold, merged)
        if len(batches) > 1:
            of_batch = {name: self._scores_of(split, ids, merged) for name, ids in batches.items()}
            for measure in list(scores):
                scores[f"{measure}_mean_of_batches"] = np.mean([values[measure] for values in of_batch.values()]).item()
                scores |= {f"{measure}_{name}": values[measure] for name, values in of_batch.items()}
        return scores

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns JSON for the official evaluation programs: {id: text} (SQuAD) or {"questions": [...]} (BioASQ)."""
        if self._measures == SQUAD:
            return json.dumps(self._texts(split, outputs), ensure_ascii=False, indent=1) + "\n"
        merged = self._merged(split, outputs)
        answers = {question_id: merged.get(question_id, []) for question_id in [*self._splits[split].gold, *merged]}
        return json.dumps(bioasq.to_submission(answers, self._kind), ensure_ascii=False, indent=1) + "\n"

    def records(self, split: str, outputs: Outputs) -> list[dict[str, Any]]:
        """Returns a record per question: "gold" and "predicted" answers, and the scores of the question."""
        if self._measures == SQUAD:
            texts = self._texts(split, outputs)
            return [
                {
                    "id": question.id,
                    "question": question.text,
                    "gold": [answer.text for answer in question.answers],
                    "predicted": texts[question.id],
                }
                | {name: squad_metrics.squad_scores([question], texts)[name] for name in PRIMARY[SQUAD]}
                for question in self._splits[split].questions
            ]
        merged, gold = self._merged(split, outputs), self._splits[split].gold
        questions = {bioasq.question_id(question.id): question.text for question in self._splits[split].questions}
        return [
            {"id": number, "question": questions.get(number, ""), "gold": sorted(texts)}
            | {"predicted": merged.get(number, [])}
            | self._scores_of(split, [number], merged)
            for number, texts in gold.items()
        ]

    def prediction_warnings(self, split: str, outputs: Outputs) -> list[str]:
        """Returns a warning if no question is answered."""
        if any(answers.text(self._null_threshold) for _, answers in self.answers(split, outputs)):
            return []
        return [f"no question of {split} is answered"]

    def data_summary(self) -> dict[str, Any]:
        """Returns the content of data.json."""
        return {
            "files": self._files,
            "sizes": {name: self._sizes(name) for name in self.splits},
            "measures": self._measures,
            "windows": {name: stats.to_json() for name, stats in self._window_stats.items()},
        }

    def summary_lines(self) -> list[str]:
        """Returns a line per split: files, sizes, and what was left out or truncated."""
        lines = []
        for name, split in self._splits.items():
            sizes, stats = self._sizes(name), self._window_stats[name]
            source = _named(self._paths.get(name, ["held out of the training file"]))
            line = (
                f"{name}: {source}: {sizes['questions']:,} questions over {sizes['passages']:,} passages of "
                f"{sizes['mean_passage_characters']:,} characters on average, {stats.windows:,} windows, "
                f"{stats.windows_with_answer:,} with an answer"
            )
            notes = {
                "passages left out because their question is in dev or test": split.asked_elsewhere,
                "questions left out because no answer is at its offset": split.mismatched,
                "questions truncated to max_query_length": stats.truncated_questions,
                "answers that fit in no window": len(stats.unanswerable),
                "gold questions without a passage": len(split.gold.keys() - set(split.ids())),
            }
            if self._measures != SQUAD and name != TRAIN:
                line += (
                    f"; a passage contains a gold answer for {split.attainable():,} of {len(split.gold):,} questions"
                )
            lines.append("; ".join([line, *(f"{count:,} {what}" for what, count in notes.items() if count)]))
        if self._windowing.stride < self._windowing.doc_stride:
            lines.append(
                f"windows of {self.max_length} word pieces start {self._windowing.stride} apart: beside a question "
                f"they have less room than config.qa.doc_stride={self._windowing.doc_stride}"
            )
        return lines

    def data_warnings(self) -> list[str]:
        """Returns what makes the scores of these files too high or meaningless; see `task.data_warnings`.

        Questions of dev and test are never trained on: they were left out of the training split.
        """
        warnings = data_warnings.warn_same_files(self._files)
        if asked := self._splits[TRAIN].asked_elsewhere:
            warnings.append(f"{asked:,} passages of train are left out because their question is in dev or test")
        evaluated = [name for name in self.splits if name != TRAIN]
        by_question = self._measures != SQUAD
        keys = {name: splits.question_keys(self._splits[name], by_question) for name in evaluated}
        warnings += data_warnings.warn_shared_examples(keys, {n: [None] * len(k) for n, k in keys.items()}, "questions")
        can_abstain = any(question.impossible for question in self._splits[TRAIN].questions)
        for name in evaluated:
            split = self._splits[name]
            impossible, total = sum(question.impossible for question in split.questions), len(split.questions)
            if impossible == total:
                warnings.append(f"no question of {name} has an answer: a model that never answers scores 100")
            elif impossible and not can_abstain:
                warnings.append(
                    f"{impossible:,} of {total:,} questions of {name} have no answer, but every question of train has: "
                    "a model does not learn when not to answer"
                )
            if by_question and not split.attainable():
                warnings.append(f"no passage of {name} contains a gold answer: its scores are 0 for any model")
        return warnings

    def train_questions_in_eval_of(self, other: QaTask) -> list[str]:
        """Returns the ids of this task's training questions that are in dev or test of another task."""
        evaluated = [split for name, split in other._splits.items() if name != TRAIN]
        train = self._splits[TRAIN]
        kept = set(splits.exclude_questions(train, evaluated, by_question=True).questions)
        return [question.id for question in train.questions if question not in kept]

    def _texts(self, split: str, outputs: Outputs) -> dict[str, str]:
        """Returns the answer to each question-passage pair, by its id."""
        return {q.id: answers.text(self._null_threshold) for q, answers in self.answers(split, outputs)}

    def _merged(self, split: str, outputs: Outputs) -> dict[str, list[str]]:
        """Returns the best answers over all passages, by question id."""
        answers = self.answers(split, outputs)
        if self._kind == bioasq.LIST:
            ranked = bioasq.merge_by_question(answers, bioasq.MAX_ITEMS)
            return {number: bioasq.choose_items(best, self._list_threshold) for number, best in ranked.items()}
        merged = bioasq.merge_by_question(answers)
        return {question_id: [text for text, _ in best] for question_id, best in merged.items()}

    def _scores_of(self, split: str, ids: Iterable[str], merged: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Returns the official scores of the questions with these ids."""
        of_split = self._splits[split]
        if self._kind == bioasq.LIST:
            return bioasq.list_scores({number: of_split.items.get(number, []) for number in ids}, merged)
        return bioasq.factoid_scores({number: of_split.gold[number] for number in ids}, merged)

    def _sizes(self, name: str) -> dict[str, int]:
        split = self._splits[name]
        is_bioasq = self._measures != SQUAD
        gold = {"gold": len(split.gold), "attainable": split.attainable()} if is_bioasq and name != TRAIN else {}
        return {
            "questions": len(split.ids()) if is_bioasq else len(split.questions),
            **gold,
            "passages": len(split.questions),
            "impossible": sum(question.impossible for question in split.questions),
            "mean_passage_characters": round(np.mean([len(question.context) for question in split.questions])),
            "examples": len(self._windows[name]),
            "left_out_asked_elsewhere": split.asked_elsewhere,
            "left_out_mismatched": split.mismatched,
        }

    @functools.cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        return split_files.describe_files(self._named_paths())

    def _named_paths(self) -> dict[str, str]:
        """Returns {"train": path}, or {"test 1": path, "test 2": path} for a split with several files."""
        named = {}
        for name, listed in {**self._paths, "gold": self._gold}.items():
            for number, path in enumerate(listed, 1):
                named[name if len(listed) == 1 else f"{name} {number}"] = path
        return named


def _splits(
    paths: Mapping[str, Sequence[str]],
    gold: Sequence[str],
    by_question: bool,
    dev_fraction: float,
    drop: bool,
    kind: str,
) -> dict[str, Split]:
    found = {
        name: splits.read_split(listed, for_training=name == TRAIN, drop_mismatched=drop, kind=kind)
        for name, listed in paths.items()
    }
    if gold:
        if TEST not in found:
            raise UserError("gold answers but no test file; add --config.task.test=FILE, or leave config.qa.gold empty")
        found[TEST] = splits.with_gold(found[TEST], gold, kind)
    for name, split in found.items():
        _check_labelled(name, paths[name], split, by_question, bool(gold))
    others = [split for name, split in found.items() if name != TRAIN]
    train = splits.exclude_questions(found[TRAIN], others, by_question)
    if DEV not in found:
        if not dev_fraction:
            raise UserError(
                "no dev file; the best checkpoint is chosen on dev: add --config.task.dev=FILE, or hold out a tenth "
                "of the training questions with --config.task.dev_fraction=0.1"
            )
        found[DEV] = splits.hold_out(train, dev_fraction)
        elsewhere = train.asked_elsewhere
        train = splits.exclude_questions(train, [found[DEV]], by_question)
        train.asked_elsewhere = elsewhere
    if not train.questions:
        raise UserError(f"{_named(paths[TRAIN])}: all its questions are in dev or test; use other files")
    found[TRAIN] = train
    return {name: found[name] for name in (TRAIN, DEV, TEST) if name in found}


def _check_labelled(name: str, listed: Sequence[str], split: Split, by_question: bool, gold_given: bool) -> None:
    """Raises UserError for the first question without the label that training or scoring needs."""
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
