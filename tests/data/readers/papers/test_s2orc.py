from __future__ import annotations

import json

import pytest
from read_files import read_file

PARAGRAPHS = [
    {
        "section": "Introduction",
        "text": "Kinases bind [1, 2].",
        "cite_spans": [{"start": 13, "end": 19, "text": "[1, 2]"}],
    },
    {"section": "Introduction", "text": "So do receptors (Smith, 2010).", "cite_spans": [{"start": 17, "end": 28}]},
    {"section": "Results", "text": "They do.", "cite_spans": []},
]
ABSTRACT = [{"section": "Abstract", "text": "An abstract.", "cite_spans": []}]
FIGURES = {"FIGREF0": {"text": "A figure.", "type": "figure"}}
METADATA = {"title": "A title", "year": 2017, "pmc_id": "PMC9900001", "pubmed_id": "99000001", "doi": "10.9999/A"}
GENERATIONS = {
    "2019": {
        "paper_id": "7",
        "metadata": METADATA | {"abstract": "An abstract."},
        "grobid_parse": {"abstract": ABSTRACT, "body_text": PARAGRAPHS, "ref_entries": FIGURES},
        "latex_parse": None,
    },
    "2020": {"paper_id": "7", "abstract": ABSTRACT, "body_text": PARAGRAPHS, "bib_entries": {}, "ref_entries": FIGURES},
    "doc2json": {
        "paper_id": "7",
        "title": "A title",
        "year": "2017",
        "identifiers": {"doi": "10.9999/A", "pmid": "99000001", "pmcid": "PMC9900001"},
        "abstract": "An abstract.",
        "pdf_parse": {"abstract": [], "body_text": PARAGRAPHS, "ref_entries": FIGURES},
    },
    "CORD-19": {
        "paper_id": "7",
        "metadata": {"title": "A title"},
        "abstract": ABSTRACT,
        "body_text": PARAGRAPHS,
        "ref_entries": FIGURES,
        "back_matter": [],
    },
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_generation_becomes_the_same_text(tmp_path, generation):
    record = GENERATIONS[generation]
    (tmp_path / "a.json").write_text(json.dumps(record))
    (document,), drops = read_file(tmp_path / "a.json")
    assert drops == {} and document.title == ("" if generation == "2020" else "A title")
    assert document.sections == (
        (None, "An abstract."),
        ("Introduction", "Kinases bind.\nSo do receptors (Smith, 2010)."),
        ("Results", "They do."),
    )
    assert (document.id, document.kind, document.abstract_sections) == ("S2:7", "full_text", 1)
    if generation in ("2019", "doc2json"):
        assert (document.pmid, document.pmcid, document.doi, document.year) == (
            99_000_001,
            "PMC9900001",
            "10.9999/a",
            2017,
        )
    (document,), _ = read_file(tmp_path / "a.json", captions=True)
    assert document.sections[-1] == (None, "A figure.")


def test_a_text_with_annotations_is_cut_at_their_places(tmp_path):
    text = "A title An abstract. Results They do. Twice."
    places = {
        "title": [{"start": 0, "end": 7}],
        "abstract": [{"start": 8, "end": 20}],
        "sectionheader": [{"start": 21, "end": 28}],
        "paragraph": [
            {"start": 8, "end": 20},
            {"start": 29, "end": 37},
            {"start": 38, "end": 44},
            {"start": 40, "end": 99},
        ],
    }
    content = {"text": text, "annotations": {name: json.dumps(value) for name, value in places.items()}}
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"corpusid": 7, "externalids": {"pubmed": "99"}, "content": content}) + "\n"
    )
    (document,), drops = read_file(tmp_path / "a.jsonl")
    assert drops == {} and document.title == "A title" and document.pmid == 99
    assert document.sections == ((None, "An abstract."), ("Results", "They do.\nTwice."))


def test_genuine_articles_have_every_paragraph(shared_data):
    paths = sorted((shared_data / "formats" / "s2orc").iterdir())
    assert len(paths) == 8
    for path in paths:
        (document,), drops = read_file(path, strict=True)
        record = json.loads(path.read_text())
        parsed = record.get("grobid_parse") or record
        assert drops == {} and document.kind == "full_text", path.name
        wanted = sum(len(paragraph["text"].split()) for paragraph in parsed["body_text"])
        got = sum(len(text.split()) for _, text in document.sections[document.abstract_sections :])
        assert 0.95 * wanted < got <= wanted, path.name
    assert document.license == ""
