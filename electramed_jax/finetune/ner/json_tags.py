"""JSON files of entities: one object per sentence or text.

Tagged words, as Hugging Face's `datasets` and LinkBERT have them. Tags are names, or numbers that `config.ner.labels`
names.

    {"id": "0", "tokens": ["Selegiline", "-"], "ner_tags": ["B-Chemical", "O"]}

Texts with entities by character, as `electramed predict` writes them:

    {"id": "0", "text": "Selegiline-induced", "entities": [{"start": 0, "end": 10, "type": "Chemical"}]}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.ner.words import Span
from electramed_jax.finetune.task import json_rows, split_files

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels")


def read_sentences(path: str, labels: Sequence[str]) -> list[Sentence]:
    """Reads the sentences of a file; see `corpus_files.read_sentences`."""
    rows = json_rows.read_rows(path)
    if "entities" in rows[0][1]:
        return [_read_text(path, line, row) for line, row in rows]
    return _read_words(path, rows, labels)


def _read_text(path: str, line: int, row: json_rows.Row) -> Sentence:
    text, entities = row.get("text"), row.get("entities")
    if not isinstance(text, str) or not isinstance(entities, list):
        split_files.reject_line(path, line, f"an object with {', '.join(row)}; wanted a text and a list of entities")
    spans = []
    for entity in entities:
        values: list[Any] = [entity.get(name) for name in ("start", "end", "type")] if isinstance(entity, dict) else []
        if [type(value) for value in values] != [int, int, str] or not 0 <= values[0] < values[1] <= len(text):
            split_files.reject_line(
                path, line, f"the entity {json.dumps(entity)[:60]}; wanted start and end inside of the text, and a type"
            )
        spans.append(Span(*values))
    return Sentence.from_spans(text, spans, line)


def _read_words(path: str, rows: Sequence[tuple[int, json_rows.Row]], labels: Sequence[str]) -> list[Sentence]:
    sentences = []
    numbers: list[list[str]] = []
    for line, row in rows:
        words, word_tags = (next((row[name] for name in names if name in row), None) for names in (WORDS, TAGS))
        if not isinstance(words, list) or not isinstance(word_tags, list):
            split_files.reject_line(
                path, line, f"an object with {', '.join(row)}; wanted lists {WORDS[0]!r} and {TAGS[0]!r}"
            )
        if len(words) != len(word_tags):
            split_files.reject_line(path, line, f"{len(words)} words and {len(word_tags)} tags; wanted a tag per word")
        if not all(isinstance(word, str) and word.strip() for word in words):
            split_files.reject_line(path, line, "a word is empty or not a string; wanted words")
        numbers.append([str(tag) for tag in word_tags])
        sentences.append((line, tuple(word.strip() for word in words)))
    named = tags.name_numbers(numbers, labels, lambda why: split_files.reject_line(path, 1, why))
    for (line, _), word_tags in zip(sentences, named, strict=True):
        if unknown := [tag for tag in word_tags if not tags.TAG.fullmatch(tag)]:
            split_files.reject_line(path, line, f"unknown tag {unknown[0]!r}; {tags.WANTED}")
    return [
        Sentence(words, tuple(word_tags), line)
        for (line, words), word_tags in zip(sentences, named, strict=True)
        if words
    ]
