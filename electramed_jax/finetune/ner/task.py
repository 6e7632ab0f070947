"""Named entity recognition: one tag per word, predicted at its first word piece.

The model learns IOB2, whatever the tag scheme of the corpus. Predicted entities are scored against those of the file.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import conll, entity_f1, tags, word_windows
from electramed_jax.finetune.ner.conll import Sentence
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import IGNORE, TRAIN, Examples, Head, Outputs
from electramed_jax.hf.format.mapping import TOKEN

ENDINGS = ("txt", "tsv", "conll", "iob", "bio")
DETECT, ANY = "detect", "any"  # values of config.ner.scheme, in addition to `tags.SCHEMES`


class NerTask:
    """Named entities of a corpus; see `task.Task`."""

    kind = "ner"
    primary = "f1"

    def __init__(
        self,
        paths: dict[str, str],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        scheme: str = DETECT,
        dev_fraction: float = 0.0,
    ):
        """Reads the files and makes the examples.

        Args:
          paths: the file of each split.
          max_length: maximum word pieces of an example.
          scheme: the tag scheme that the files must have; "detect": the scheme found, "any": no check.
          dev_fraction: fraction of the training sentences to hold out if there is no dev file.

        Raises:
          UserError: a line cannot be used; names file and line.
        """
        self.max_length, self.tokenizer = max_length, tokenizer
        self._paths = paths
        read = {split: conll.read_sentences(path) for split, path in paths.items()}
        self._schemes = {split: _checked_scheme(paths[split], read[split], scheme) for split in read}
        types = sorted({entity.type for sentence in read[TRAIN] for entity in tags.decode(sentence.tags)})
        if not types:
            raise UserError(f"{paths[TRAIN]}: no entity in the file; wanted tags other than O")
        for split, path in paths.items():
            _check_types(path, read[split], types)
        self.head = Head(TOKEN, (tags.OUTSIDE, *(_tag(prefix, kind) for kind in types for prefix in "BI")))
        self._sentences = split_files.hold_out_dev(read, dev_fraction)
        self.splits = tuple(self._sentences)
        self._windows = {split: self._make_windows(split) for split in self.splits}
        self._examples = {split: self._make_examples(split) for split in self.splits}

    @classmethod
    def from_config(cls, config: FinetuneConfig, encoder: InitEncoder) -> NerTask:
        """Builds the task with the vocabulary of an encoder."""
        chosen = {"train": config.task.train, "dev": config.task.dev, "test": config.task.test}
        return cls(
            split_files.find_split_files(config.task.data, chosen, ENDINGS),
            Tokenizer.from_tokens(encoder.tokens, encoder.lower_case),
            max_length=config.task.max_seq_length,
            scheme=config.ner.scheme,
            dev_fraction=config.task.dev_fraction,
        )

    def examples(self, split: str) -> Examples:
        """Returns one example per window of a sentence."""
        return self._examples[split]

    def tags(self, split: str, outputs: Outputs) -> list[list[str]]:
        """Returns the predicted tag of every word of every sentence."""
        lengths = [len(sentence.words) for sentence in self._sentences[split]]
        word_logits = word_windows.join_logits(self._windows[split], outputs, lengths)
        return [[self.head.labels[best] for best in logits.argmax(axis=-1)] for logits in word_logits]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes precision, recall and F1 of entities."""
        gold = [sentence.tags for sentence in self._sentences[split]]
        return entity_f1.entity_scores(gold, self.tags(split, outputs))

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns a line per word: the word, its tag in the file and the predicted tag, both in IOB2."""
        lines = []
        for sentence, sentence_tags in zip(self._sentences[split], self.tags(split, outputs), strict=True):
            gold = tags.encode(tags.decode(sentence.tags), len(sentence.tags))
            predicted = tags.encode(tags.decode(sentence_tags), len(sentence_tags))
            lines += [f"{word}\t{a}\t{b}" for word, a, b in zip(sentence.words, gold, predicted, strict=True)]
            lines.append("")
        return "\n".join(lines)

    def data_summary(self) -> dict[str, Any]:
        """Returns the content of data.json."""
        return {
            "files": split_files.describe_files(self._paths),
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
            windows = collections.Counter(window.sentence for window in self._windows[split])
            num_long = sum(count > 1 for count in windows.values())
            long = f"; {num_long} long sentences in windows" if num_long else ""
            lines.append(
                f"{split}: {source}: {sizes['sentences']:,} sentences, {sizes['entities']:,} entities"
                f"{scheme}{broken}{long}"
            )
        return lines

    def _sizes(self, split: str) -> dict[str, int]:
        sentences = self._sentences[split]
        return {
            "sentences": len(sentences),
            "words": sum(len(sentence.words) for sentence in sentences),
            "entities": sum(len(tags.decode(sentence.tags)) for sentence in sentences),
            "examples": len(self._examples[split]),
        }

    def _make_windows(self, split: str) -> list[word_windows.WindowExample]:
        sentences = self._sentences[split]
        distinct = sorted({word for sentence in sentences for word in sentence.words})  # each is tokenized once
        encoded = zip(distinct, self.tokenizer.encode_batch(distinct), strict=True)
        # A word is [UNK] if the normalizer drops all its characters.
        pieces = {word: ids.tolist() or [self.tokenizer.special.unk] for word, ids in encoded}
        sentence_pieces = [[pieces[word] for word in sentence.words] for sentence in sentences]
        return word_windows.make_examples(sentence_pieces, self.max_length, self.tokenizer.special)

    def _make_examples(self, split: str) -> Examples:
        windows = self._windows[split]
        label_ids = {label: index for index, label in enumerate(self.head.labels)}
        gold = [
            np.array([label_ids[tag] for tag in tags.encode(tags.decode(sentence.tags), len(sentence.tags))], np.int32)
            for sentence in self._sentences[split]
        ]
        labels = [np.full(len(window.input_ids), IGNORE, np.int32) for window in windows]
        for window, window_labels in zip(windows, labels, strict=True):
            window_labels[window.positions] = gold[window.sentence][window.first_word :][: len(window.positions)]
        return Examples([window.input_ids for window in windows], labels)


def _tag(prefix: str, kind: str) -> str:
    return f"{prefix}-{kind}" if kind else prefix


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
            sentence.line + entity.start,
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
                    sentence.line + entity.start,
                    f"unknown tag {sentence.tags[entity.start]!r}: no entity of the training file has this type "
                    f"(it has {', '.join(types)}); correct the tag, or the training file",
                )
