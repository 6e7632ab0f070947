from __future__ import annotations

import json

import bioc
import pytest
from bioc import biocjson, biocxml
from read_files import read_file

NAMES = ("abbr", "collection", "everything", "everything-sentence")


def passage(text: str, **infons: str) -> dict:
    return {"offset": 0, "infons": infons, "text": text, "sentences": [], "annotations": [], "relations": []}


ARTICLE = {
    "id": "9900001",
    "infons": {"license": "CC BY"},
    "passages": [
        passage(
            "A title",
            type="front",
            section_type="TITLE",
            **{
                "article-id_pmid": "99000001",
                "article-id_pmc": "9900001",
                "article-id_doi": "10.9999/A.1",
                "year": "2012",
            },
        ),
        passage("Abstract", type="abstract_title_1", section_type="ABSTRACT"),
        passage("An abstract.", type="abstract", section_type="ABSTRACT"),
        passage("Methods", type="title_1", section_type="METHODS"),
        passage("Cells were grown.", type="paragraph", section_type="METHODS"),
        passage("A figure.", type="fig_caption", section_type="FIG"),
        passage("A cited work", type="ref", section_type="REF"),
        passage("Thanks.", type="paragraph", section_type="ACK_FUND"),
    ],
    "annotations": [],
    "relations": [],
}


def collection(*documents: dict) -> dict:
    return {"source": "PMC", "date": "", "key": "", "infons": {}, "documents": list(documents)}


@pytest.mark.parametrize(
    "content",
    [collection(ARTICLE), [collection(ARTICLE)], ARTICLE, {"PubTator3": [ARTICLE]}],
    ids=["collection", "list of collections", "document", "PubTator3"],
)
def test_a_full_text_of_pubmed_central_becomes_a_document(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    (document,), drops = read_file(tmp_path / "a.json")
    assert document.title == "A title" and drops == {}
    assert document.sections == (("Abstract", "An abstract."), ("Methods", "Cells were grown."))
    assert (document.id, document.pmid, document.doi, document.license, document.year, document.kind) == (
        "PMC9900001",
        99_000_001,
        "10.9999/a.1",
        "CC BY",
        2012,
        "full_text",
    )
    assert document.abstract_sections == 1
    (document,), _ = read_file(tmp_path / "a.json", captions=True)
    assert document.sections[-1] == (None, "A figure.")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["xml", "json"])
def test_genuine_collections_have_the_texts_that_bioc_reads(shared_data, name, form):
    path = shared_data / "formats" / "bioc" / f"{name}.{form}"
    module = biocxml if form == "xml" else biocjson
    with open(path, encoding="utf-8") as file:
        wanted = [words for document in module.load(file).documents if (words := texts(document))]
    found, drops = read_file(path, strict=True)
    assert [document.text.split() for document in found] == wanted
    assert set(drops) <= {"no_text"}


def texts(document: bioc.BioCDocument) -> list[str]:
    """Returns the words of the passages, or of their sentences."""
    found = []
    for part in document.passages:
        found += (part.text or " ".join(sentence.text or "" for sentence in part.sentences)).split()
    return found


def test_a_damaged_document_of_a_collection_affects_only_itself(tmp_path):
    xml = "<collection><source>s</source>{}</collection>"
    one = "<document><id>1234</id><passage><text>Some text.</text></passage></document>"
    (tmp_path / "a.xml").write_text(xml.format(one + one.replace("Some", "<b>") + one))
    found, drops = read_file(tmp_path / "a.xml")
    assert [document.text for document in found] == ["Some text."] * 2 and drops == {"malformed_xml": 1}


def test_a_cut_collection_gives_the_documents_before_the_cut(tmp_path):
    text = json.dumps(collection(*[ARTICLE | {"id": str(number)} for number in range(9)]))
    (tmp_path / "a.json").write_text(text[: len(text) // 2])
    found, drops = read_file(tmp_path / "a.json")
    assert len(found) == 4 and drops == {"truncated_json": 1}
