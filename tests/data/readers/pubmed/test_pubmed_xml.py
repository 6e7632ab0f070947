from __future__ import annotations

import gzip
import pathlib
import socket
from collections import Counter
from xml.etree import ElementTree

import pytest
from invented_pubmed import HEAD, TAIL, article, read, read_one

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, PubmedOptions, ReadErrors
from electramed_jax.data.readers.pubmed import pubmed_xml


def test_an_article_becomes_a_document(tmp_path):
    document = read_one(tmp_path)
    assert document == Document(
        id="PMID99000001",
        pmid=99_000_001,
        title="Invented title.",
        sections=((None, "Invented abstract."),),
        year=2001,
        source="pubmed",
    )


def test_an_article_with_neither_title_nor_abstract_is_counted(tmp_path):
    xml = HEAD + article(title="", abstract="") + article(pmid=99_000_002) + TAIL
    found, drops = read(tmp_path, xml)
    assert [document.pmid for document in found] == [99_000_002]
    assert drops == {"no_text": 1}
    assert read(tmp_path, xml, strict=True)[1] == {"no_text": 1}


def test_the_older_medline_format_is_read(tmp_path):
    citation = article().split("\n", 1)[1].split("<PubmedData>")[0]
    found, drops = read(tmp_path, f"<MedlineCitationSet>\n{citation}</MedlineCitationSet>")
    assert [document.id for document in found] == ["PMID99000001"]
    assert drops == {}


def test_a_file_may_contain_a_single_article_or_several_sets(tmp_path):
    assert len(read(tmp_path, article())[0]) == 1
    twice = HEAD + article() + TAIL + HEAD + article(pmid=99_000_002) + TAIL
    found, drops = read(tmp_path, twice)
    assert [document.pmid for document in found] == [99_000_001, 99_000_002]
    assert drops == {}


@pytest.mark.parametrize(
    "bad",
    [
        article(abstract="<AbstractText>p < 0.05 & q</AbstractText>"),
        article(abstract="<AbstractText>never closed"),
        article(title="&undefined;"),
        article().replace("</PubmedArticle>", ""),
    ],
)
def test_a_malformed_article_affects_only_itself(tmp_path, bad):
    xml = HEAD + article(pmid=99_000_002) + bad + article(pmid=99_000_003) + TAIL
    found, drops = read(tmp_path, xml)
    assert [document.pmid for document in found] == [99_000_002, 99_000_003]
    assert drops == {"malformed_xml": 1}
    line = (HEAD + article()).count("\n") + 1
    with pytest.raises(UserError, match=rf"a\.xml, line {line}: record"):
        read(tmp_path, xml, strict=True)


@pytest.mark.parametrize(
    "tail", ["", "<PubmedArticle><MedlineCitation>", "<!-- no end " + article(), "<DeleteCitation><PMID>1</PMID>"]
)
def test_a_truncated_file_gives_its_complete_articles_and_is_counted(tmp_path, tail):
    found, drops = read(tmp_path, HEAD + article() + tail)
    assert len(found) == 1
    assert drops == {"truncated_xml": 1}


def test_a_truncated_gzip_gives_the_articles_before_the_cut(tmp_path):
    xml = HEAD + "".join(article(pmid=99_000_000 + n, title=str(n**9)) for n in range(900)) + TAIL
    path = tmp_path / "a.xml.gz"
    whole = gzip.compress(xml.encode())
    path.write_bytes(whole[: len(whole) // 2])
    drops: Counter = Counter()
    found = list(reader.read_documents(str(path), drops))
    assert 200 < len(found) < 700
    assert drops == {"truncated_gzip": 1}


def test_articles_are_found_with_any_chunk_size(tmp_path):
    hidden = f"<!-- {article(pmid=99_000_009)} -->\n"
    withdrawn = "<DeleteCitation><PMID>7</PMID></DeleteCitation>"
    records = (hidden, article(), hidden, article(pmid=99_000_002), article(pmid=99_000_003), withdrawn)
    xml = "".join((HEAD, *records, TAIL)).encode()
    for size in (1, 7, 64, 500):
        errors = ReadErrors("a.xml", Counter(), strict=True)
        chunks = (xml[at : at + size] for at in range(0, len(xml), size))
        deletions: list[int] = []
        found = list(pubmed_xml.parse(chunks, errors, PubmedOptions(), deletions))
        assert [document.pmid for document in found] == [99_000_001, 99_000_002, 99_000_003]
        assert deletions == [7]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE PubmedArticleSet [
<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
]>
<PubmedArticleSet>
"""
EXTERNAL = """<?xml version="1.0"?>
<!DOCTYPE PubmedArticleSet [<!ENTITY c SYSTEM "{target}">]>
<PubmedArticleSet>
"""


def test_an_entity_bomb_is_refused(tmp_path):
    found, drops = read(tmp_path, BOMB + article(title="&c;") + TAIL)
    assert (found, drops) == ([], {"entity_declaration": 1})
    with pytest.raises(UserError, match="declares entities"):
        read(tmp_path, BOMB + article(title="&c;") + TAIL, strict=True)


def test_an_external_entity_is_never_fetched(tmp_path, monkeypatch):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    monkeypatch.setattr(socket, "socket", None)
    xml = EXTERNAL.format(target=secret.as_uri()) + article(title="&c;") + TAIL
    assert read(tmp_path, xml) == ([], {"entity_declaration": 1})
    late = HEAD + article() + EXTERNAL.format(target=secret.as_uri()) + article(title="&c;") + TAIL
    found, drops = read(tmp_path, late)
    assert [document.title for document in found] == ["Invented title."]
    assert drops == {"malformed_xml": 1}


def test_bytes_that_are_not_utf8_are_replaced_and_the_article_is_kept(tmp_path):
    xml = (HEAD + article(title="caf@ au lait") + TAIL).encode().replace(b"@", b"\xe9")
    (document,), drops = read(tmp_path, xml)
    assert document.title == "caf\ufffd au lait"
    assert drops == {"repaired_utf8": 1}


def test_a_declared_encoding_is_used(tmp_path):
    xml = (HEAD.replace("UTF-8", "ISO-8859-1") + article(title="café") + TAIL).encode("latin-1")
    (document,), drops = read(tmp_path, xml)
    assert document.title == "café"
    assert drops == {}


def test_articles_in_comments_are_not_read(tmp_path):
    comment = f"<!-- {article(pmid=99_000_009)} -->"
    head = HEAD.replace("<PubmedArticleSet>", f"{comment}<PubmedArticleSet>")
    found, drops = read(tmp_path, head + comment + article() + comment + TAIL, strict=True)
    assert [document.pmid for document in found] == [99_000_001]
    assert drops == {}
    assert read(tmp_path, HEAD + comment + TAIL) == ([], {"not_pubmed_xml": 1})


def test_withdrawn_pmids_are_returned_and_are_not_documents(tmp_path):
    withdrawn = '<DeleteCitation>\n<PMID Version="1">17</PMID>\n<PMID>18</PMID>\n</DeleteCitation>\n'
    book = "<DeleteDocument><PMID>19</PMID><PMID>none</PMID></DeleteDocument>"
    deletions = [3]
    found, drops = read(tmp_path, HEAD + article() + withdrawn + book + TAIL, deletions=deletions)
    assert [document.pmid for document in found] == [99_000_001]
    assert (deletions, drops) == ([3, 17, 18, 19], {})
    assert read(tmp_path, HEAD + withdrawn + TAIL) == ([], {})


def test_html_entities_are_replaced_and_the_article_is_counted(tmp_path):
    xml = HEAD + article(title="&alpha;-fetoprotein &amp; p &LT; 5&nbsp;&mu;g, &#946;&#x3b3;.") + TAIL
    (document,), drops = read(tmp_path, xml)
    assert document.title == "α-fetoprotein & p < 5 μg, βγ."
    assert drops == {"repaired_entities": 1}
    with pytest.raises(UserError, match=r"a\.xml, line 4: HTML entities, which"):
        read(tmp_path, xml, strict=True)


def test_the_namespace_prefix_of_a_formula_may_be_declared_in_the_dtd(tmp_path):
    formula = "<mml:math><mml:mi>x</mml:mi><mml:mo>&lt;</mml:mo><mml:mn>2</mml:mn></mml:math>"
    (document,), drops = read(tmp_path, HEAD + article(title=f"Where {formula}.") + TAIL, strict=True)
    assert document.title == "Where x<2."
    assert drops == {}


@pytest.mark.parametrize("text", ["", "<html><body>503 try later</body></html>", "<PubmedArticleSet/>"])
def test_a_file_without_articles_is_counted(tmp_path, text):
    assert read(tmp_path, text) == ([], {"not_pubmed_xml": 1})


def count_with_expat(path: pathlib.Path) -> dict[str, object]:
    """Counts the records of a PubMed file with another parser (expat), from the shape of the tree."""
    counts = {"records": 0, "without abstract": 0, "without text": 0, "withdrawn": []}
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    root = ElementTree.fromstring(data)
    counts["withdrawn"] = [int(pmid.text) for gone in root.iter("DeleteCitation") for pmid in gone.iter("PMID")]
    records = [*root.iter("MedlineCitation"), *root.iter("BookDocument")]
    counts["records"] = len(records)
    for record in records:
        abstract = "".join(t for e in record.findall(".//Abstract/AbstractText") for t in e.itertext()).strip()
        titles = [*record.iter("ArticleTitle"), *record.iter("VernacularTitle"), *record.iter("BookTitle")]
        title = "".join("".join(e.itertext()) for e in titles).strip()
        counts["without abstract"] += bool(title and not abstract)
        counts["without text"] += not title and not abstract
    return counts


@pytest.mark.slow
def test_every_record_of_real_pubmed_files_is_read_or_dropped_with_a_reason(shared_data):
    paths = sorted((shared_data / "pubmed_xml").glob("*/*.xml*"))
    assert len(paths) > 150
    for path in paths:
        drops, deletions = Counter(), []
        found = list(reader.read_documents(str(path), drops, deletions=deletions))
        wanted = count_with_expat(path)
        assert {
            "records": len(found) + drops.total(),
            "without abstract": drops.pop("title_alone", 0),
            "without text": drops.pop("no_text", 0),
            "withdrawn": deletions,
        } == wanted, path
        assert not drops, path
        assert all(document.sections and document.source == "pubmed" for document in found), path
        with_titles = list(reader.read_documents(str(path), drops, pubmed_options=PubmedOptions(titles_alone=True)))
        assert len(with_titles) == wanted["records"] - wanted["without text"], path
