"""Named entities: a tag for each word, asked at its first word piece.

Whatever scheme a corpus is in, the model learns IOB2; what it answers is scored as entities, against those of the file.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import conll, entity_f1, tags
from electramed_jax.finetune.ner import word_windows as words
from electramed_jax.finetune.ner.conll import Sentence
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.task.task import IGNORE, TOKEN, TRAIN, Examples, Head, Outputs

ENDINGS = ("txt", "tsv", "conll", "iob", "bio")
DETECT, ANY = "detect", "any"  # beside `tags.SCHEMES`, values of config.ner.scheme


class NerTask:
    """See `task.Task`."""

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
          paths: of the splits.
          scheme: that the files have to be in; "detect" takes the one they are in, "any" whatever they hold.
          dev_fraction: of the training sentences, held out where there is no dev file.

        Raises:
          UserError: names file and line of what cannot be used.
        """
        self.max_length = max_length
        self._paths, self._tokenizer = paths, tokenizer
        read = {split: conll.read(path) for split, path in paths.items()}
        self._schemes = {split: _checked_scheme(paths[split], read[split], scheme) for split in read}
        types = sorted({entity.type for sentence in read[TRAIN] for entity in tags.decode(sentence.tags)})
        if not types:
            raise UserError(f"{paths[TRAIN]}: no entity in the whole file; wanted tags other than O")
        for split, path in paths.items():
            _check_types(path, read[split], types)
        self.head = Head(TOKEN, (tags.OUTSIDE, *(_tag(prefix, kind) for kind in types for prefix in "BI")))
        self._sentences = split_files.with_held_out(read, dev_fraction)
        self.splits = tuple(self._sentences)
        self._cut = dict.fromkeys(self.splits, 0)
        made = {split: self._make(split) for split in self.splits}
        self._examples = {split: examples for split, (examples, _) in made.items()}
        self._places = {split: places for split, (_, places) in made.items()}

    def examples(self, split: str) -> Examples:
        return self._examples[split]

    def tags(self, split: str, outputs: Outputs) -> list[list[str]]:
        """The model's tag of every word of every sentence."""
        lengths = [len(sentence.words) for sentence in self._sentences[split]]
        of_words = words.logits(self._places[split], outputs, lengths)
        return [[self.head.labels[best] for best in logits.argmax(axis=-1)] for logits in of_words]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        gold = [sentence.tags for sentence in self._sentences[split]]
        return entity_f1.entity_scores(gold, self.tags(split, outputs))

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Word, the file's tag and the model's, in columns; both in IOB2."""
        lines = []
        for sentence, found in zip(self._sentences[split], self.tags(split, outputs), strict=True):
            gold = tags.encode(tags.decode(sentence.tags), len(sentence.tags))
            guessed = tags.encode(tags.decode(found), len(found))
            lines += [f"{word}\t{a}\t{b}" for word, a, b in zip(sentence.words, gold, guessed, strict=True)] + [""]
        return "\n".join(lines)

    def account(self) -> dict[str, Any]:
        return {
            "files": split_files.account(self._paths),
            "sizes": {split: self._sizes(split) for split in self.splits},
            "tag_schemes": {split: dataclasses.asdict(found) for split, found in self._schemes.items()},
            "labels": list(self.head.labels),
        }

    def told(self) -> list[str]:
        lines = []
        for split in self.splits:
            sizes, found = self._sizes(split), self._schemes.get(split)
            source = self._paths.get(split, "held out of the training file")
            scheme = f", scheme {found.scheme}" if found else ""
            broken = f" ({found.irregular} of the entities break it)" if found and found.irregular else ""
            cut = f"; {self._cut[split]} long sentences in windows" if self._cut[split] else ""
            lines.append(
                f"{split}: {source}: {sizes['sentences']:,} sentences, {sizes['entities']:,} entities"
                f"{scheme}{broken}{cut}"
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

    def _make(self, split: str) -> tuple[Examples, list[words.Example]]:
        sentences = self._sentences[split]
        pieces = _Pieces(self._tokenizer, sentences)
        numbers = {label: number for number, label in enumerate(self.head.labels)}
        gold = [
            np.array([numbers[tag] for tag in tags.encode(tags.decode(sentence.tags), len(sentence.tags))], np.int32)
            for sentence in sentences
        ]
        of_sentences = [pieces(sentence.words) for sentence in sentences]
        made = words.examples(of_sentences, self.max_length, self._tokenizer.special)
        labels = [np.full(len(example.input_ids), IGNORE, np.int32) for example in made]
        for example, wanted in zip(made, labels, strict=True):
            wanted[example.asked] = gold[example.sentence][example.first :][: len(example.asked)]
        windows = collections.Counter(example.sentence for example in made)
        self._cut[split] = sum(count > 1 for count in windows.values())
        return Examples([example.input_ids for example in made], labels), made


class _Pieces:
    """The word pieces of words, each distinct one tokenised once; at least one piece a word."""

    def __init__(self, tokenizer: Tokenizer, sentences: Sequence[Sentence]):
        distinct = sorted({word for sentence in sentences for word in sentence.words})
        ids = tokenizer.encode_batch(distinct)
        # A word of nothing but characters that the normaliser drops is still a word: it is unknown.
        self._known = {
            word: found.tolist() or [tokenizer.special.unk] for word, found in zip(distinct, ids, strict=True)
        }

    def __call__(self, words: Sequence[str]) -> list[list[int]]:
        return [self._known[word] for word in words]


def _tag(prefix: str, kind: str) -> str:
    return f"{prefix}-{kind}" if kind else prefix


def _checked_scheme(path: str, sentences: Sequence[Sentence], wanted: str) -> tags.DetectedScheme:
    """The scheme of a file; raises UserError where it is not the one wanted, naming the first line that shows it."""
    found = tags.detect([sentence.tags for sentence in sentences])
    if wanted == ANY:
        return found
    scheme = found.scheme if wanted == DETECT else wanted
    against = tags.against(scheme, [sentence.tags for sentence in sentences])
    told = tags.DetectedScheme(scheme, found.entities, len(against))
    if not tags.is_regular(told):
        number, entity = against[0]
        sentence = sentences[number]
        split_files.reject(
            path,
            sentence.line + entity.start,
            f"{' '.join(sentence.tags[entity.start : entity.stop])} is not {scheme}, nor are {len(against):,} of the "
            f"file's {found.entities:,} entities; "
            + (
                "mend the tags, or take them as they are with --config.ner.scheme=any"
                if wanted == DETECT
                else f"it looks like {found.scheme}: set --config.ner.scheme=detect"
            ),
        )
    return told


def _check_types(path: str, sentences: Sequence[Sentence], types: Sequence[str]) -> None:
    for sentence in sentences:
        for entity in tags.decode(sentence.tags):
            if entity.type not in types:
                split_files.reject(
                    path,
                    sentence.line + entity.start,
                    f"unknown tag {sentence.tags[entity.start]!r}: no entity of the training file is of that type "
                    f"(it has {', '.join(types)}); mend the tag, or the training file",
                )
