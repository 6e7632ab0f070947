"""Checks `predict` on real texts: offsets of entities, and recall at the borders of windows.

    python tests/benchmarks/entities_in_texts.py --model=runs/ncbi --texts=abstracts.jsonl --test=NCBI-disease/test.txt

Offsets: each text is predicted as it is and in variants that have the same words: with tabs, no-break spaces or line ends
of Windows for some of its spaces, with decomposed accents (where the text has any), and with emoji between words. In each
of them an entity's characters must be those of the raw text, begin and end at a word, and not leave out a combining mark;
and the entities of a variant must be those of the text, but for the emoji, which the model reads.

Borders: sentences of the test file are joined to passages of `--sentences` sentences, longer than a window. Recall of the
entities with a border between two windows within `NEAR` words, next to that of all others; for windows that share
a part of their words, and for windows end to end.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import unicodedata

import numpy as np

from electramed_jax.finetune.ner import conll, word_windows
from electramed_jax.finetune.ner import words as word_lib
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.predictor import Predictor

NEAR = 5  # words
MARKS = ("Mn", "Me")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True, help='JSON lines with "text"')
    parser.add_argument("--test", required=True, help="sentences with tags, in CoNLL's form")
    parser.add_argument("--sentences", type=int, default=20)
    args = parser.parse_args()
    predictor = Predictor.from_pretrained(args.model)
    lines = pathlib.Path(args.texts).read_text(encoding="utf-8").splitlines()
    check_offsets(predictor, [json.loads(line)["text"] for line in lines])
    measure_borders(predictor, args)


def variants(texts: list[str]) -> dict[str, list[str]]:
    def with_blanks(blank: str) -> list[str]:
        draw = random.Random(0)
        return ["".join(blank if c == " " and draw.random() < 0.3 else c for c in text) for text in texts]

    return {
        "as they are": texts,
        "tabs": with_blanks("\t"),
        "no-break spaces": with_blanks("\u00a0"),
        "line ends": with_blanks("\r\n"),
        "decomposed": [unicodedata.normalize("NFD", text) for text in texts],
        "emoji": with_blanks(" \U0001f469\u200d\U0001f52c "),
    }


def check_offsets(predictor: Predictor, texts: list[str]) -> None:
    wanted: list[list[str]] = []
    for name, own in variants(texts).items():
        found = predictor.entities(own)
        entities = [(text, one) for text, of_text in zip(own, found, strict=True) for one in of_text]
        cut = sum(
            text[one.start].isspace()
            or text[one.stop - 1].isspace()
            or unicodedata.category(text[one.start]) in MARKS
            or (one.stop < len(text) and unicodedata.category(text[one.stop]) in MARKS)
            for text, one in entities
        )
        plain = [[normalized(text[e.start : e.stop]) for e in of] for text, of in zip(own, found, strict=True)]
        wanted = wanted or plain
        other = sum(one != two for one, two in zip(plain, wanted, strict=True))
        print(
            f"{name:<16} {len(entities):,} entities; {cut} cut or with a blank; {other} of {len(own):,} texts have others"
        )


def normalized(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def measure_borders(predictor: Predictor, args: argparse.Namespace) -> None:
    sentences = conll.read_sentences(args.test)
    passages = [sentences[at : at + args.sentences] for at in range(0, len(sentences), args.sentences)]
    texts, gold = [], []
    for passage in passages:
        start, spans = 0, []
        for sentence in passage:
            spans += [one._replace(start=one.start + start, stop=one.stop + start) for one in sentence.spans]
            start += len(sentence.text) + 1
        texts.append(" ".join(sentence.text for sentence in passage))
        gold.append(spans)
    encoded = word_lib.split_texts(texts, predictor.model.tokenizer)
    room = predictor.model.postprocess.max_seq_length - 2
    alone = [one for sentence, of in zip(sentences, predictor.entities([s.text for s in sentences]), strict=True)
             for one in overlap(sentence, of)]  # fmt: skip
    print(f"sentences alone: recall {100 * np.mean(alone):.2f} of {len(alone)} entities")
    for part in (2, 4, 8, 16):
        word_windows.OVERLAP = part
        windows = [word_windows.cut_windows([len(p) for p in words.pieces], room) for words in encoded]
        firsts = [[window.first for window in of_text] for of_text in windows]
        report(
            f"windows that share 1/{part} ({sum(map(len, windows))})", predictor.entities(texts), gold, encoded, firsts
        )
    cuts = [end_to_end([len(p) for p in words.pieces], room) for words in encoded]
    pieces = [text[words.offsets[a, 0] : words.offsets[b - 1, 1]] for text, words, cut in zip(texts, encoded, cuts, strict=True)
              for a, b in zip(cut, [*cut[1:], len(words.pieces)], strict=True)]  # fmt: skip
    found_in_pieces = iter(predictor.entities(pieces))
    joined = []
    for words, cut in zip(encoded, cuts, strict=True):
        of_text = []
        for a in cut:
            shift = int(words.offsets[a, 0])
            of_text += [one._replace(start=one.start + shift, stop=one.stop + shift) for one in next(found_in_pieces)]
        joined.append(of_text)
    report(f"windows end to end ({sum(map(len, cuts))})", joined, gold, encoded, cuts)


def overlap(sentence: Sentence, found: list) -> list[bool]:
    predicted = {tuple(one[:3]) for one in found}
    return [tuple(one) in predicted for one in sentence.spans]


def end_to_end(lengths: list[int], room: int) -> list[int]:
    """Returns the first word of each window of at most `room` word pieces, without overlap."""
    starts, filled = [0], 0
    for word, length in enumerate(lengths):
        if filled + length > room:
            starts.append(word)
            filled = 0
        filled += length
    return starts


def report(name: str, found: list, gold: list, encoded: list, firsts: list[list[int]]) -> None:
    near, far = [], []
    for of_text, spans, words, starts in zip(found, gold, encoded, firsts, strict=True):
        predicted = {tuple(one[:3]) for one in of_text}
        for span in spans:
            begin = int(np.searchsorted(words.offsets[:, 1], span.start, "right"))
            end = int(np.searchsorted(words.offsets[:, 0], span.stop, "left"))
            distance = min((max(start - end, begin - start, 0) for start in starts[1:]), default=10**6)
            (near if distance <= NEAR else far).append(tuple(span) in predicted)
    print(
        f"{name}: recall {100 * np.mean(near):.2f} of {len(near)} entities within {NEAR} words of a border, "
        f"{100 * np.mean(far):.2f} of {len(far)} others, {100 * np.mean(near + far):.2f} in all"
    )


if __name__ == "__main__":
    main()
