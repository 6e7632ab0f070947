from __future__ import annotations

import gzip
import socket
from collections import Counter

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data import documents, pubmed

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle//EN" "https://dtd.invalid/p.dtd">
<PubmedArticleSet>
"""
TAIL = "</PubmedArticleSet>\n"


def article(
    pmid: int = 99_000_001,
    title: str = "Invented title.",
    abstract: str = "<AbstractText>Invented abstract.</AbstractText>",
    date: str = "<Year>2001</Year>",
) -> str:
    return f"""<PubmedArticle>
<MedlineCitation Status="MEDLINE"><PMID Version="1">{pmid}</PMID>
<Article><Journal><JournalIssue><PubDate>{date}</PubDate></JournalIssue></Journal>
<ArticleTitle>{title}</ArticleTitle><Abstract>{abstract}</Abstract></Article>
</MedlineCitation>
<PubmedData><ArticleIdList><ArticleId IdType="pubmed">1</ArticleId></ArticleIdList></PubmedData>
</PubmedArticle>
"""


def read(tmp_path, xml: str | bytes, strict: bool = False):
    path = tmp_path / "a.xml"
    path.write_bytes(xml.encode() if isinstance(xml, str) else xml)
    drops: Counter = Counter()
    return list(documents.read(str(path), drops, strict)), dict(drops)


def one(tmp_path, **parts) -> documents.Document:
    found, drops = read(tmp_path, HEAD + article(**parts) + TAIL)
    assert drops == {}
    return found[0]


def test_an_article_becomes_a_document(tmp_path):
    document = one(tmp_path)
    assert document == documents.Document(
        id="PMID99000001",
        pmid=99_000_001,
        title="Invented title.",
        sections=((None, "Invented abstract."),),
        year=2001,
        source="pubmed",
    )


def test_inline_markup_is_taken_off_and_its_text_kept(tmp_path):
    document = one(
        tmp_path,
        title="<i>In vitro</i> H<sub>2</sub>O and Ca<sup>2+</sup> &lt; 5",
        abstract="<AbstractText>A <b>bold <i>claim</i></b>,\n   spread<!-- not this --> out."
        "</AbstractText>",
    )
    assert document.title == "In vitro H2O and Ca2+ < 5"
    assert document.sections == ((None, "A bold claim, spread out."),)


def test_a_structured_abstract_keeps_its_labels_and_leaves_out_the_copyright(tmp_path):
    document = one(
        tmp_path,
        abstract='<AbstractText Label="BACKGROUND">Why.</AbstractText>'
        '<AbstractText Label="UNLABELLED">What.</AbstractText>'
        '<AbstractText Label="RESULTS"></AbstractText>'
        "<CopyrightInformation>© Nobody.</CopyrightInformation>",
    )
    assert document.sections == (("BACKGROUND", "Why."), (None, "What."))
    assert document.text == "Invented title.\nBACKGROUND: Why.\nWhat."


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("[A translated title].", "A translated title."),
        ("[A translated question?]", "A translated question?"),
        ("[3H]-labelled ligands.", "[3H]-labelled ligands."),
        ("[A] and [B]", "[A] and [B]"),
        ("[Not Available].", ""),
    ],
)
def test_the_brackets_of_a_translated_title_are_taken_off(tmp_path, title, wanted):
    assert one(tmp_path, title=title).title == wanted


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("<Year>1987</Year><Month>Jan</Month>", 1987),
        ("<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", 1998),
        ("<MedlineDate>Spring</MedlineDate>", None),
        ("", None),
    ],
)
def test_the_year_comes_from_either_form_of_date(tmp_path, date, year):
    assert one(tmp_path, date=date).year == year


def test_an_article_with_neither_title_nor_abstract_is_counted(tmp_path):
    xml = HEAD + article(title="", abstract="") + article(pmid=99_000_002) + TAIL
    found, drops = read(tmp_path, xml)
    assert [document.pmid for document in found] == [99_000_002]
    assert drops == {"no_text": 1}
    assert read(tmp_path, xml, strict=True)[1] == {"no_text": 1}


def test_the_older_medline_format_is_read_as_well(tmp_path):
    citation = article().split("\n", 1)[1].split("<PubmedData>")[0]
    found, drops = read(tmp_path, f"<MedlineCitationSet>\n{citation}</MedlineCitationSet>")
    assert [document.id for document in found] == ["PMID99000001"]
    assert drops == {}


def test_a_file_may_be_a_single_article_or_several_sets_one_after_the_other(tmp_path):
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
def test_a_malformed_article_costs_that_article_alone(tmp_path, bad):
    xml = HEAD + article(pmid=99_000_002) + bad + article(pmid=99_000_003) + TAIL
    found, drops = read(tmp_path, xml)
    assert [document.pmid for document in found] == [99_000_002, 99_000_003]
    assert drops == {"malformed_xml": 1}
    line = (HEAD + article()).count("\n") + 1
    with pytest.raises(UserError, match=rf"a\.xml, line {line}: article"):
        read(tmp_path, xml, strict=True)


@pytest.mark.parametrize("tail", ["", "<PubmedArticle><MedlineCitation>"])
def test_a_file_that_ends_early_gives_what_is_whole_and_says_so(tmp_path, tail):
    found, drops = read(tmp_path, HEAD + article() + tail)
    assert len(found) == 1
    assert drops == {"truncated_xml": 1}


def test_a_truncated_gzip_gives_the_articles_before_the_cut(tmp_path):
    xml = HEAD + "".join(article(pmid=99_000_000 + n, title=str(n**9)) for n in range(900)) + TAIL
    path = tmp_path / "a.xml.gz"
    whole = gzip.compress(xml.encode())
    path.write_bytes(whole[: len(whole) // 2])
    drops: Counter = Counter()
    found = list(documents.read(str(path), drops))
    assert 200 < len(found) < 700
    assert drops == {"truncated_gzip": 1}


def test_articles_are_found_wherever_the_chunks_of_the_file_end(tmp_path):
    xml = (HEAD + article() + article(pmid=99_000_002) + article(pmid=99_000_003) + TAIL).encode()
    for size in (1, 7, 64, 500):
        findings = documents.Findings("a.xml", Counter(), strict=True)
        chunks = (xml[at : at + size] for at in range(0, len(xml), size))
        found = list(pubmed.read(chunks, findings))
        assert [document.pmid for document in found] == [99_000_001, 99_000_002, 99_000_003]


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


def test_a_declared_encoding_is_followed(tmp_path):
    xml = (HEAD.replace("UTF-8", "ISO-8859-1") + article(title="café") + TAIL).encode("latin-1")
    (document,), drops = read(tmp_path, xml)
    assert document.title == "café"
    assert drops == {}


@pytest.mark.parametrize(
    "text", ["", "<html><body>503 try later</body></html>", "<PubmedArticleSet/>"]
)
def test_a_file_without_articles_is_counted(tmp_path, text):
    assert read(tmp_path, text) == ([], {"not_pubmed_xml": 1})


def test_a_book_is_counted_and_left_out(tmp_path):
    book = "<PubmedBookArticle><BookDocument/></PubmedBookArticle>"
    found, drops = read(tmp_path, HEAD + book + article() + TAIL)
    assert len(found) == 1
    assert drops == {"book_article": 1}


def test_genuine_pubmed_files_of_many_years_are_read_without_damage(shared_data):
    damage = Counter()
    found = []
    for path in sorted((shared_data / "pubmed_xml").glob("*/*.xml*")):
        found += documents.read(str(path), damage)
    assert len(found) > 1800
    assert set(damage) <= {"no_text", "book_article"}
    assert all(document.title or document.sections for document in found)
    assert not any("<" in document.title and "/>" in document.title for document in found)
