"""Named entity recognition: one tag per word, predicted at its first word piece.

The model learns IOB2, whatever the tag scheme of the corpus. Predicted entities are scored twice: by the words of the
file ("f1", the measure of the literature), and by the characters of the text ("text_f1", the measure of what `predict`
returns for the sentences as text). See `words` for the words that the model is trained on.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import ARGMAX, CRF, FILE, PUNCTUATION, FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import corpus_files, entity_f1, tags, word_windows
from electramed_jax.finetune.ner import words as word_lib
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.ner.word_windows import WindowExample
from electramed_jax.finetune.ner.words import Span, TextWords
from electramed_jax.finetune.task import data_warnings, metrics, split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import IGNORE, TRAIN, CrfOutputs, Examples, Head, Outputs
from electramed_jax.hf.format.mapping import TOKEN

DETECT, ANY = "detect", "any"  # values of config.ner.scheme, in addition to `tags.SCHEMES`
# Scores that may choose the checkpoint, the default first; in addition "f1/TYPE" of each type.
PRIMARY = (
    "f1", "precision", "recall", "merged_f1", "merged_precision", "merged_recall", "text_f1", "text_precision",
    "text_recall", "strict_f1", "strict_precision", "strict_recall", "word_macro_f1",
)  # fmt: skip


class NerTask:
    """Named entities of a corpus; see `task.Task`."""

    kind = "ner"

    def __init__(
        self,
        paths: dict[str, str],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        scheme: str = DETECT,
        words: str = PUNCTUATION,
        decoder: str = ARGMAX,
        labels: Sequence[str] = (),
        dev_fraction: float = 0.0,
        primary: str = "",
        strict_labels: bool = False,
    ):
        """Reads the files and makes the examples.

        Args:
          paths: the file of each split.
          max_length: maximum word pieces of an example.
          scheme: the tag scheme that the files must have; "detect": the scheme found, "any": no check.
          words: words that get a tag in training and in the scores of the file; see `words`.
          decoder: how tags are chosen from logits: value of config.ner.decoder.
          labels: names of numeric tags, from 0.
          dev_fraction: fraction of the training sentences to hold out if there is no dev file.
          primary: score that chooses the checkpoint; "": the first of `PRIMARY`.
          strict_labels: raise if another split has a type that no training entity has; False: its entities count as
            missed.

        Raises:
          UserError: a line cannot be used; names file and line.
        """
        self.max_length, self.tokenizer, self.words = max_length, tokenizer, words
        self._paths, self._decoder = paths, decoder
        read = {split: corpus_files.read_sentences(path, labels) for split, path in paths.items()}
        self._schemes = {split: _checked_scheme(paths[split], read[split], scheme) for split in read}
        types = sorted({entity.type for sentence in read[TRAIN] for entity in tags.decode(sentence.tags)})
        if not types:
            raise UserError(f"{paths[TRAIN]}: no entity in the file; wanted tags other than O")
        if strict_labels:
            for split, path in paths.items():
                _check_types(path, read[split], types)
        self._types = types
        by_type = [f"f1/{kind}" for kind in types] if len(types) > 1 else []
        self.primary = metrics.choose_primary(primary, PRIMARY[0], [*PRIMARY, *by_type])
        self.head = Head(
            TOKEN,
            (tags.OUTSIDE, *(tags.join_tag(prefix, kind) for kind in types for prefix in "BI")),
            crf=decoder == CRF,
        )
        self._sentences = split_files.hold_out_dev(read, dev_fraction)
        self.splits = tuple(self._sentences)
        self._text_words = {
            split: word_lib.split_texts([sentence.text for sentence in self._sentences[split]], tokenizer)
            for split in self.splits
        }
        self._text_windows = {split: self._windows_of(self._text_words[split]) for split in self.splits}
        self._file_windows = {split: self._windows_of_file(split) for split in self.splits} if words == FILE else {}
        self._examples = {split: self._make_examples(split) for split in self.splits}

    @classmethod
    def from_config(cls, config: FinetuneConfig, encoder: InitEncoder) -> NerTask:
        """Builds the task with the vocabulary of an encoder."""
        chosen = {"train": config.task.train, "dev": config.task.dev, "test": config.task.test}
        return cls(
            split_files.find_split_files(config.task.data, chosen, corpus_files.ENDINGS),
            encoder.make_tokenizer(),
            max_length=config.task.max_seq_length,
            scheme=config.ner.scheme,
            words=config.ner.words,
            decoder=config.ner.decoder,
            labels=[name.strip() for name in config.ner.labels.split(",") if name.strip()],
            dev_fraction=config.task.dev_fraction,
            primary=config.task.primary,
            strict_labels=config.task.strict_labels,
        )

    def examples(self, split: str) -> Examples:
        """Returns one example per window of a sentence."""
        return self._examples[split]

    def tags(self, split: str, outputs: Outputs) -> list[list[str]]:
        """Returns the predicted tag of every word of the file, by sentence."""
        sentences = self._sentences[split]
        if self.words == FILE:
            windows, lengths = self._file_windows[split], [len(sentence.words) for sentence in sentences]
            return self._join_tags(windows, outputs[: len(windows)], lengths, _transitions(outputs))
        return [
            word_lib.tags_of_file_words(word_tags, text_words.offsets, sentence.offsets)
            for word_tags, text_words, sentence in zip(
                self._tags_of_text(split, outputs), self._text_words[split], sentences, strict=True
            )
        ]

    def spans(self, split: str, outputs: Outputs) -> list[list[Span]]:
        """Returns the entities that `predict` finds in the text of every sentence."""
        text_words = self._text_words[split]
        text_tags = self._tags_of_text(split, outputs)
        return [word_lib.tags_to_spans(*one) for one in zip(text_tags, (w.offsets for w in text_words), strict=True)]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes precision, recall and F1 of entities, by words of the file and (except of train) by characters."""
        sentences = self._sentences[split]
        gold_tags, predicted_tags = [sentence.tags for sentence in sentences], self.tags(split, outputs)
        scores = entity_f1.entity_scores(gold_tags, predicted_tags) | entity_f1.word_scores(gold_tags, predicted_tags)
        if split == TRAIN:
            return scores
        gold = [sentence.spans for sentence in sentences]
        return scores | entity_f1.text_scores(gold, self.spans(split, outputs))

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns a line per word: the word, its tag in the file and the predicted tag, both in IOB2."""
        lines = []
        for sentence, sentence_tags in zip(self._sentences[split], self.tags(split, outputs), strict=True):
            gold = tags.encode(tags.decode(sentence.tags), len(sentence.tags))
            predicted = tags.encode(tags.decode(sentence_tags), len(sentence_tags))
            lines += [f"{word}\t{a}\t{b}" for word, a, b in zip(sentence.words, gold, predicted, strict=True)]
            lines.append("")
        return "\n".join(lines)

    def records(self, split: str, outputs: Outputs) -> list[dict[str, Any]]:
        """Returns a record per sentence: its line, its words, and its entities by words start .. stop-1."""
        return [
            {
                "line": sentence.line,
                "words": list(sentence.words),
                "gold": [list(entity) for entity in tags.decode(sentence.tags)],
                "predicted": [list(entity) for entity in tags.decode(predicted)],
            }
            for sentence, predicted in zip(self._sentences[split], self.tags(split, outputs), strict=True)
        ]

    def prediction_warnings(self, split: str, outputs: Outputs) -> list[str]:
        """Returns a warning if no entity is predicted."""
        if any(tag != tags.OUTSIDE for sentence_tags in self.tags(split, outputs) for tag in sentence_tags):
            return []
        return [f"no entity is predicted in {split}"]

    def data_summary(self) -> dict[str, Any]:
        """Returns the content of data.json."""
        return {
            "files": self._files,
            "sizes": {split: self._sizes(split) for split in self.splits},
            "tag_schemes": {split: dataclasses.asdict(detected) for split, detected in self._schemes.items()},
            "labels": list(self.head.labels),
        }

    def summary_lines(self) -> list[str]:
        """Returns a line per split: file, sizes, tag scheme."""
        lines = []
        for split in self.splits:
            sizes, detected = self._sizes(split), self._schemes.get(split)
            source = self._paths.get(split, "held out of the training file")
            scheme = f", scheme {detected.scheme}" if detected else ""
            broken = f" ({detected.irregular} of the entities break it)" if detected and detected.irregular else ""
            windows = collections.Counter(window.sentence for window in self._text_windows[split])
            num_long = sum(count > 1 for count in windows.values())
            long = f"; {num_long} long sentences in windows" if num_long else ""
            num_split = sizes["split_entity_words"]
            split_words = f"; {num_split:,} words of entities have punctuation inside" if num_split else ""
            if num_untaggable := sizes["untaggable_entities"]:
                num_overlapping = sizes["overlapping_entities"]
                split_words += f"; {num_untaggable:,} entities that tags cannot give count as missed: "
                split_words += f"{num_overlapping:,} nested in a longer one or overlapping it, "
                split_words += f"{num_untaggable - num_overlapping:,} with an end inside a word"
            lines.append(
                f"{split}: {source}: {sizes['sentences']:,} sentences, {sizes['entities']:,} entities"
                f"{scheme}{broken}{long}{split_words}"
            )
        return lines

    def data_warnings(self) -> list[str]:
        """Returns what makes the scores of these files too high or meaningless; see `task.data_warnings`."""
        words = {split: [one.words for one in sentences] for split, sentences in self._sentences.items()}
        entities = {split: [tuple(tags.decode(s.tags)) for s in self._sentences[split]] for split in self.splits}
        warnings = data_warnings.warn_same_files(self._files)
        warnings += data_warnings.warn_shared_examples(words, entities, "sentences")
        for split in self.splits:
            kinds = [[entity.type] for of_sentence in entities[split] for entity in of_sentence]
            warnings += data_warnings.warn_unknown_labels(split, self._types, kinds, "entities")
            if not kinds or len(self._types) > 1:  # entities of the only type differ in their words
                warnings += data_warnings.warn_label_support(split, self._types, kinds, "entities")
        return warnings

    @functools.cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        return split_files.describe_files(self._paths)

    def _sizes(self, split: str) -> dict[str, int]:
        sentences = self._sentences[split]
        return {
            "sentences": len(sentences),
            "words": sum(len(sentence.words) for sentence in sentences),
            "entities": sum(len(sentence.spans) for sentence in sentences),
            "untaggable_entities": sum(sentence.num_untaggable for sentence in sentences),
            "overlapping_entities": sum(sentence.num_overlapping for sentence in sentences),
            "split_entity_words": sum(map(_count_split, sentences, self._text_words[split])),
            "examples": len(self._examples[split]),
        }

    def _tags_of_text(self, split: str, outputs: Outputs) -> list[list[str]]:
        """Returns the predicted tag of every word of the text, split at punctuation."""
        windows = self._text_windows[split]
        lengths = [len(text_words.pieces) for text_words in self._text_words[split]]
        return self._join_tags(windows, outputs[len(outputs) - len(windows) :], lengths, _transitions(outputs))

    def _join_tags(
        self,
        windows: Sequence[WindowExample],
        outputs: Outputs,
        lengths: Sequence[int],
        transitions: np.ndarray | None,
    ) -> list[list[str]]:
        decode = word_windows.make_decoder(self._decoder, self.head.labels, transitions)
        word_logits = word_windows.join_logits(windows, outputs, lengths)
        return [[self.head.labels[index] for index in decode(logits)] for logits in word_logits]

    def _windows_of(self, texts: Sequence[TextWords]) -> list[WindowExample]:
        return word_windows.make_examples([text.pieces for text in texts], self.max_length, self.tokenizer.special)

    def _windows_of_file(self, split: str) -> list[WindowExample]:
        """Returns the windows of the words of the file."""
        sentences = self._sentences[split]
        distinct = sorted({word for sentence in sentences for word in sentence.words})  # each is tokenized once
        encoded = zip(distinct, self.tokenizer.encode_batch(distinct), strict=True)
        # A word is [UNK] if the normalizer drops all its characters.
        pieces = {word: ids.tolist() or [self.tokenizer.special.unk] for word, ids in encoded}
        sentence_pieces = [[pieces[word] for word in sentence.words] for sentence in sentences]
        return word_windows.make_examples(sentence_pieces, self.max_length, self.tokenizer.special)

    def _make_examples(self, split: str) -> Examples:
        """Returns the windows for training, or for the logits that the scores need.

        With the words of the file, dev and test also have the windows of the text: the model sees other words there.
        """
        sentences, text_words = self._sentences[split], self._text_words[split]
        file_tags = [tags.encode(tags.decode(sentence.tags), len(sentence.tags)) for sentence in sentences]
        text_tags = [
            word_lib.spans_to_tags(sentence.spans, text.offsets)
            for sentence, text in zip(sentences, text_words, strict=True)
        ]
        text_windows = self._text_windows[split]
        if self.words == PUNCTUATION:
            return self._with_labels(text_windows, text_tags)
        file_windows = self._file_windows[split]
        of_file = self._with_labels(file_windows, file_tags)
        if split == TRAIN or _are_equal(file_windows, text_windows):
            return of_file
        of_text = self._with_labels(text_windows, text_tags)
        return Examples([*of_file.input_ids, *of_text.input_ids], [*of_file.labels, *of_text.labels])

    def _with_labels(self, windows: Sequence[WindowExample], word_tags: Sequence[Sequence[str]]) -> Examples:
        """Returns the windows with the label of each word at its first piece."""
        label_ids = {label: index for index, label in enumerate(self.head.labels)}
        # A type that no training entity has gets no label, and counts as missed in the scores.
        gold = [np.array([label_ids.get(tag, IGNORE) for tag in of_sentence], np.int32) for of_sentence in word_tags]
        labels = [np.full(len(window.input_ids), IGNORE, np.int32) for window in windows]
        for window, window_labels in zip(windows, labels, strict=True):
            window_labels[window.positions] = gold[window.sentence][window.first_word :][: len(window.positions)]
        return Examples([window.input_ids for window in windows], labels)


def _transitions(outputs: Outputs) -> np.ndarray | None:
    return outputs.transitions if isinstance(outputs, CrfOutputs) else None


def _count_split(sentence: Sentence, text: TextWords) -> int:
    """Returns the number of words of entities that are several words after the split at punctuation."""
    counts = np.diff(np.searchsorted(text.offsets[:, 0], sentence.offsets), axis=1)
    return sum(int(count) > 1 for tag, (count,) in zip(sentence.tags, counts, strict=True) if tag != tags.OUTSIDE)


def _are_equal(these: Sequence[WindowExample], those: Sequence[WindowExample]) -> bool:
    """Returns whether the windows have the same word pieces and the same words."""
    return len(these) == len(those) and all(
        np.array_equal(one.input_ids, other.input_ids) and np.array_equal(one.positions, other.positions)
        for one, other in zip(these, those, strict=True)
    )


def _checked_scheme(path: str, sentences: Sequence[Sentence], wanted: str) -> tags.DetectedScheme:
    """Returns the scheme of a file; raises UserError, naming the first offending line, if it is not the wanted one."""
    detected = tags.detect_scheme([sentence.tags for sentence in sentences])
    if wanted == ANY:
        return detected
    scheme = detected.scheme if wanted == DETECT else wanted
    irregular = tags.irregular_entities(scheme, [sentence.tags for sentence in sentences])
    checked = tags.DetectedScheme(scheme, detected.entities, len(irregular))
    if not tags.is_regular(checked):
        index, entity = irregular[0]
        sentence = sentences[index]
        split_files.reject_line(
            path,
            sentence.line_of(entity.start),
            f"{' '.join(sentence.tags[entity.start : entity.stop])} is not {scheme}; {len(irregular):,} of the "
            f"file's {detected.entities:,} entities are not; "
            + (
                "correct the tags, or use them as they are with --config.ner.scheme=any"
                if wanted == DETECT
                else f"it looks like {detected.scheme}: set --config.ner.scheme=detect"
            ),
        )
    return checked


def _check_types(path: str, sentences: Sequence[Sentence], types: Sequence[str]) -> None:
    for sentence in sentences:
        for entity in tags.decode(sentence.tags):
            if entity.type not in types:
                split_files.reject_line(
                    path,
                    sentence.line_of(entity.start),
                    f"unknown tag {sentence.tags[entity.start]!r}: no entity of the training file has this type "
                    f"(it has {', '.join(types)}); correct the tag, or count such entities as missed with "
                    "--config.task.strict_labels=False",
                )
