"""JSON lines, BioC JSON and PubTator contain the same entities; the package `bioc` (PyPI) reads and validates the last two."""

from __future__ import annotations

import json

import bioc
import pytest
from bioc import biocjson, pubtator

from electramed_jax.data.readers.document import Document
from electramed_jax.finetune.ner import entity_formats
from electramed_jax.finetune.ner.entity_spans import EntitySpan

SECTIONS = (("AIM", "To treat\tmania 😀."), (None, "Lithium\nworks in β-thalassemia."))
STRUCTURED = Document("12345", 12345, "Lithium: a drug.", SECTIONS, 1999, "pubmed")
PLAIN = Document("note|1 x", None, "", ((None, "No fever,\nbut mania."),), None, "notes.txt")
TITLE_ALONE = Document("7", 7, "Mania.", (), None, "pubmed")
DOCUMENTS = (STRUCTURED, PLAIN, TITLE_ALONE)
NAMES = {"Lithium": "Drug", "mania": "Disease", "Mania": "Disease", "β-thalassemia": "Disease", "fever": "Disease"}


def marked():
    """Yields the documents with every occurrence of a name annotated."""
    for document in DOCUMENTS:
        parts = []
        for part in entity_formats.passages(document):
            places = sorted((part.text.find(name), name) for name in NAMES if name in part.text)
            found = [EntitySpan(part.start + at, part.start + at + len(name), NAMES[name], 0.75) for at, name in places]
            parts.append((part, found))
        yield document, parts


def written(form: str) -> str:
    return "".join(entity_formats.get_writer(form)(marked(), "a model"))


WANTED = {
    "12345": [("Lithium", "Drug"), ("mania", "Disease"), ("Lithium", "Drug"), ("β-thalassemia", "Disease")],
    "note": [("fever", "Disease"), ("mania", "Disease")],
    "7": [("Mania", "Disease")],
}


def key(identifier: str) -> str:
    return identifier.split("|")[0].split("_")[0]


def test_passages_are_at_their_start_in_the_document_text():
    for document in DOCUMENTS:
        for part in entity_formats.passages(document):
            assert document.text[part.start : part.start + len(part.text)] == part.text
    assert [part.type for part in entity_formats.passages(STRUCTURED)] == ["title", "abstract", "abstract"]


def test_json_lines_hold_text_and_offsets_of_characters():
    rows = [json.loads(line) for line in written("jsonl").splitlines()]
    assert [row["text"] for row in rows] == [document.text for document in DOCUMENTS]
    for row in rows:
        assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
        assert [(e["text"], e["type"]) for e in row["entities"]] == WANTED[key(row["id"])]
    assert rows[0]["pmid"] == 12345 and "pmid" not in rows[1]


def test_bioc_is_read_and_found_valid():
    collection = biocjson.loads(written("bioc"))
    bioc.validate(collection)
    assert len(collection.documents) == 3
    for document, ours in zip(collection.documents, DOCUMENTS, strict=True):
        found = [one for passage in document.passages for one in passage.annotations]
        assert [(one.text, one.infons["type"]) for one in found] == WANTED[key(document.id)]
        for one in found:
            place = one.total_span
            assert ours.text[place.offset : place.offset + place.length] == one.text
    assert collection.documents[0].passages[1].infons == {"type": "abstract", "section": "AIM"}


def test_pubtator_is_read_and_its_offsets_are_those_of_its_text():
    found = pubtator.loads(written("pubtator"))
    assert len(found) == 3
    for document in found:
        wanted = WANTED[key(document.pmid)]
        assert [(one.text, one.type) for one in document.annotations] == wanted
        text = f"{document.title}\n{document.abstract or ''}"
        assert [text[one.start : one.end] for one in document.annotations] == [name for name, _ in wanted]


def test_pubtator_loses_no_character_of_a_text_without_a_title():
    plain = pubtator.loads(written("pubtator"))[1]
    assert plain.pmid == "note_1_x" and plain.title == "" and plain.abstract == "No fever, but mania."


def test_no_document_is_a_collection_of_none():
    assert biocjson.loads("".join(entity_formats.get_writer("bioc")([], "m"))).documents == []


@pytest.mark.parametrize("form", entity_formats.FORMATS)
def test_a_mention_over_two_lines_stays_on_one(form):
    part = entity_formats.passages(PLAIN)[0]
    text = "".join(entity_formats.get_writer(form)([(PLAIN, [(part, [EntitySpan(3, 13, "Disease", 1.0)])])], "m"))
    assert PLAIN.text[3:13] == "fever,\nbut"
    assert ("fever, but" if form == "pubtator" else "fever,\\nbut") in text
