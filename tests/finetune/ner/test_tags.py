"""Tag sequences are read as conlleval reads them, in every scheme."""

from __future__ import annotations

import random

import pytest
from invented_tags import random_tags
from seqeval.metrics.sequence_labeling import get_entities

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.ner.tags import Entity

# aspirin, kidney failure; two diseases side by side; nothing
IN_SCHEME = {
    "IOB2": ["B-C O O B-D I-D", "B-D B-D I-D", "O O"],
    "IOB1": ["I-C O O I-D I-D", "I-D B-D I-D", "O O"],
    "scibert": ["I-C O O B-D I-D", "I-D B-D I-D", "O O"],
    "BIOES": ["S-C O O B-D E-D", "S-D B-D E-D", "O O"],
    "BILOU": ["U-C O O B-D L-D", "U-D B-D L-D", "O O"],
}
MEANT = [[Entity(0, 1, "C"), Entity(3, 5, "D")], [Entity(0, 1, "D"), Entity(1, 3, "D")], []]


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "BIESLU"])
def test_entities_are_those_of_seqeval(prefixes):
    draw = random.Random(prefixes)
    for _ in range(5000):
        sentence = random_tags(draw, prefixes.replace("L", "").replace("U", ""), "XY")
        ours = [(kind, start, stop - 1) for start, stop, kind in tags.decode(sentence)]
        assert ours == get_entities(sentence), sentence


@pytest.mark.parametrize("scheme", tags.SCHEMES)
def test_every_scheme_encodes_the_same_entities_and_is_detected(scheme):
    sentences = [text.split() for text in IN_SCHEME[scheme]]
    assert [tags.decode(sentence) for sentence in sentences] == MEANT
    found = tags.detect_scheme(sentences)
    assert (found.scheme, found.entities, found.irregular) == (scheme, 4, 0)


def test_encoding_is_iob2_and_the_inverse_of_decoding():
    draw = random.Random(1)
    for _ in range(300):
        sentence = random_tags(draw, "BI", "XY")
        encoded = tags.encode(tags.decode(sentence), len(sentence))
        assert tags.decode(encoded) == tags.decode(sentence)
        assert tags.detect_scheme([encoded]).irregular == 0
        assert all(
            tag.startswith("B")
            for tag, before in zip(encoded, ["O", *encoded[:-1]], strict=True)
            if before == "O" != tag
        )


def test_tags_without_a_type_have_the_empty_one():
    assert tags.decode(["B", "I", "O", "B"]) == [Entity(0, 2, ""), Entity(3, 4, "")]
    assert tags.encode([Entity(0, 2, "")], 3) == ["B", "I", "O"]


def test_an_annotation_error_is_counted_and_does_not_change_the_scheme():
    found = tags.detect_scheme([["B-D", "I-D", "O", "B-D"]] * 100 + [["O", "I-D"]])
    assert (found.scheme, found.irregular) == ("IOB2", 1)
    assert tags.is_regular(found)
    assert not tags.is_regular(tags.detect_scheme([["E-D", "B-D", "S-D", "U-D"]] * 10))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, scheme",
    [
        ("BC5CDR/electramed/test.txt", "scibert"),
        ("BC5CDR/mtl2016/BC5CDR-IOB/test.tsv", "IOB2"),
        ("NCBI-disease/electramed/test.txt", "IOB2"),
        ("JNLPBA/electramed/test.txt", "IOB2"),
    ],
)
def test_the_schemes_of_the_corpora_are_detected(shared_data, file, scheme):
    lines = (shared_data / "eval" / "ner" / file).read_text(encoding="utf-8").split("\n")
    sentences, words = [], []
    for line in [*lines, ""]:
        if line.strip():
            words.append(line.split()[-1])
        elif words:
            sentences.append(words)
            words = []
    found = tags.detect_scheme(sentences)
    assert found.scheme == scheme and tags.is_regular(found), found
