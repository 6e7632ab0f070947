from __future__ import annotations

import json

import pytest
from read_files import read_file

EUROPE_PMC = {
    "id": "99000001",
    "source": "MED",
    "pmid": "99000001",
    "pmcid": "PMC9900001",
    "doi": "10.9999/A",
    "title": "Kinases in <i>mice</i>.",
    "pubYear": "2020",
    "language": "eng",
    "license": "cc by",
    "abstractText": "<h4>Background</h4>Kinases bind CO<sub>2</sub> &amp; more.<h4>Results </h4><p>They do.</p>",
}
SEMANTIC_SCHOLAR = {
    "paperId": "abc",
    "externalIds": {"PubMed": "99000001", "DOI": "10.9999/A", "PubMedCentral": "9900001", "CorpusId": 7},
    "title": "Kinases in mice.",
    "abstract": "Kinases bind.",
    "year": 2020,
}


@pytest.mark.parametrize(
    "content", [{"version": "6", "hitCount": 1, "resultList": {"result": [EUROPE_PMC]}}, [EUROPE_PMC], EUROPE_PMC]
)
def test_a_result_of_europe_pmc(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    (document,), drops = read_file(tmp_path / "a.json")
    assert drops == {} and document.title == "Kinases in mice."
    assert document.sections == (("Background", "Kinases bind CO2 & more."), ("Results", "They do."))
    assert (document.pmid, document.pmcid, document.doi, document.license, document.year, document.source) == (
        99_000_001,
        "PMC9900001",
        "10.9999/a",
        "CC BY",
        2020,
        "europe-pmc",
    )


@pytest.mark.parametrize(
    "content", [{"total": 1, "offset": 0, "data": [SEMANTIC_SCHOLAR]}, [SEMANTIC_SCHOLAR], SEMANTIC_SCHOLAR]
)
def test_a_result_of_semantic_scholar(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    (document,), drops = read_file(tmp_path / "a.json")
    assert drops == {} and document.text == "Kinases in mice.\nKinases bind."
    assert (document.pmid, document.pmcid, document.source) == (99_000_001, "PMC9900001", "semantic-scholar")


def test_lines_of_the_dataset_of_abstracts(tmp_path):
    line = {
        "corpusid": 7,
        "openaccessinfo": {"externalids": {"DOI": "10.9/x"}, "license": "CCBY"},
        "abstract": "A text.",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {"abstract": None}) + "\n")
    (document,), drops = read_file(tmp_path / "a.jsonl")
    assert (document.text, document.license, drops) == ("A text.", "CC BY", {"no_text": 1})
