"""All formats contain the same entities; readers of other projects read them: `bioc` (PyPI), `csv`, an HTML parser."""

from __future__ import annotations

import csv
import html.parser
import json
import pathlib

import bioc
import pytest
from bioc import biocjson, pubtator

from electramed_jax.data.readers.document import Document
from electramed_jax.finetune.ner import conll, standoff, tags
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.output import annotated_document, brat, entity_formats, view

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
        for part in annotated_document.passages(document):
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
        for part in annotated_document.passages(document):
            assert document.text[part.start : part.start + len(part.text)] == part.text
    assert [part.type for part in annotated_document.passages(STRUCTURED)] == ["title", "abstract", "abstract"]


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


@pytest.mark.parametrize("form", ["jsonl", "bioc", "pubtator"])
def test_a_mention_over_two_lines_stays_on_one(form):
    part = annotated_document.passages(PLAIN)[0]
    text = "".join(entity_formats.get_writer(form)([(PLAIN, [(part, [EntitySpan(3, 13, "Disease", 1.0)])])], "m"))
    assert PLAIN.text[3:13] == "fever,\nbut"
    assert ("fever, but" if form == "pubtator" else "fever,\\nbut") in text


def test_csv_has_a_row_for_each_entity_with_its_characters():
    rows = list(csv.DictReader(written("csv").splitlines(keepends=True)))
    texts = {document.id: document.text for document in DOCUMENTS}
    assert [(row["text"], row["type"]) for row in rows] == [pair for pairs in WANTED.values() for pair in pairs]
    assert all(texts[row["id"]][int(row["start"]) : int(row["end"])] == row["text"] for row in rows)
    assert [row["pmid"] for row in rows] == ["12345"] * 4 + [""] * 2 + ["7"]


def test_conll_has_the_words_with_their_characters_and_finetune_reads_it(tmp_path):
    path = tmp_path / "out.conll"
    path.write_text(written("conll"), encoding="utf-8")
    sentences = conll.read_sentences(str(path))
    assert len(sentences) == sum(len(annotated_document.passages(document)) for document in DOCUMENTS)
    found = [
        (" ".join(one.words[start:stop]), kind) for one in sentences for start, stop, kind in tags.decode(one.tags)
    ]
    spaced = {"β-thalassemia": "β - thalassemia"}
    assert found == [(spaced.get(name, name), kind) for pairs in WANTED.values() for name, kind in pairs]
    texts = iter(DOCUMENTS)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-DOCSTART-"):
            text = next(texts).text
        elif line:
            word, start, end, _ = line.split("\t")
            assert text[int(start) : int(end)] == word


def test_a_word_that_an_entity_covers_in_part_is_cut():
    part = annotated_document.passages(PLAIN)[0]
    inside = [
        EntitySpan(part.start + 4, part.start + 6, "A", 1.0),
        EntitySpan(part.start + 6, part.start + 8, "A", 1.0),
    ]
    lines = "".join(entity_formats.get_writer("conll")([(PLAIN, [(part, inside)])], "m")).splitlines()
    assert [line.split("\t")[::3] for line in lines[1:5]] == [["No", "O"], ["f", "O"], ["ev", "B-A"], ["er", "B-A"]]


def test_brat_has_a_text_and_annotations_for_each_document_and_finetune_reads_it(tmp_path):
    files = dict(brat.write_brat(marked()))
    assert set(files) == {f"{name}.{end}" for name in ("12345", "note_1_x", "7") for end in ("txt", "ann")}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert files["12345.txt"] == STRUCTURED.text
    found = [
        (" ".join(one.words[start:stop]), kind)
        for one in standoff.read_brat(str(tmp_path))
        for start, stop, kind in tags.decode(one.tags)
    ]
    assert sorted(kind for _, kind in found) == sorted(kind for pairs in WANTED.values() for _, kind in pairs)


def test_names_of_brat_files_are_unique_and_have_no_separator():
    documents = [Document(name, None, "", ((None, "a"),), None, "") for name in ("../a", ".._a", "..", "A/b", "a_B")]
    names = [name for name, _ in brat.write_brat((document, []) for document in documents)]
    assert len({name.lower() for name in names}) == 10
    assert all(pathlib.PurePath(name).name == name and not name.startswith(".") for name in names)


def test_an_entity_over_two_lines_is_two_fragments_in_brat():
    part = annotated_document.passages(PLAIN)[0]
    files = dict(brat.write_brat([(PLAIN, [(part, [EntitySpan(3, 13, "Disease", 1.0)])])]))
    assert files["note_1_x.ann"].splitlines()[0] == "T1\tDisease 3 9;10 13\tfever, but"


class _Marks(html.parser.HTMLParser):
    """The text of each mark with its type, and all tags."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.marks, self._in = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, _attributes):
        self.tags.add(tag)
        self._in.append(tag)
        if tag == "mark":
            self.marks.append(["", ""])

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if "mark" in self._in:
            self.marks[-1]["small" in self._in] += data


def test_the_page_marks_the_entities_and_escapes_everything():
    page = _Marks(written("html"))
    found = [(name, kind.split()[0]) for name, kind in page.marks]
    assert found == [pair for pairs in WANTED.values() for pair in pairs]
    text = "<script>x</script>"
    hostile = Document(text, None, text, ((text, text),), None, text)
    parts = [
        (part, [EntitySpan(part.start, part.start + 8, text, 1.0)]) for part in annotated_document.passages(hostile)
    ]
    assert _Marks("".join(entity_formats.get_writer("html")([(hostile, parts)], text))).tags == page.tags
    assert view.policy(view.CSS) in written("html").replace("&#x27;", "'")
