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
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
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


AUTHORS = "<AuthorList><Author><LastName>{}</LastName></Author></AuthorList>"


def test_damage_in_elements_that_are_not_used_costs_no_record(tmp_path):
    bad = article(pmid=99_000_002).replace("</Article>", AUTHORS.format("A & B") + "</Article>")
    found, drops = read(tmp_path, HEAD + article() + bad + TAIL, strict=True)
    assert [document.pmid for document in found] == [99_000_001, 99_000_002] and drops == {}
    assert found[1].sections == found[0].sections


def test_tags_inside_cdata_are_text(tmp_path):
    text = "The tags <AuthorList> and </AuthorList> enclose a list."
    xml = HEAD + article(abstract=f"<AbstractText><![CDATA[{text}]]></AbstractText>") + TAIL
    (document,), drops = read(tmp_path, xml, strict=True)
    assert document.sections == ((None, text),) and drops == {}


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
        found = list(pubmed_xml.parse(chunks, errors, ReadOptions(), deletions))
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
    xml = (HEAD + article(title="\u03b1 caf@ au lait") + TAIL).encode().replace(b"@", b"\xe9")
    (document,), drops = read(tmp_path, xml)
    assert document.title == "\u03b1 caf\ufffd au lait"
    assert drops == {"repaired_utf8": 1}


def test_windows_1252_without_a_declaration_is_recognised(tmp_path):
    xml = (HEAD + article(title="café – crème") + TAIL).encode("windows-1252")
    (document,), drops = read(tmp_path, xml)
    assert document.title == "café – crème"
    assert drops == {"repaired_encoding": 1}


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("ISO-8859-1", "latin-1"),
        ("latin1", "windows-1252"),  # web pages and exports declare Latin-1 for Windows-1252
        ("Windows-1252", "windows-1252"),
        ("ISO-8859-15", "iso-8859-15"),
        ("UTF-16", "utf-16"),
        ("UTF-16LE", "utf-16-le"),
        ("macintosh", "mac-roman"),
    ],
)
def test_a_declared_encoding_is_used_and_its_documents_counted(tmp_path, declared, encoding):
    xml = (HEAD.replace("UTF-8", declared) + article(title="café ®") + TAIL).encode(encoding)
    (document,), drops = read(tmp_path, xml, strict=True)
    assert document.title == "café ®"
    assert drops == {"repaired_encoding": 1}


@pytest.mark.parametrize(
    "declared",
    ["idna", "punycode", "rot13", "hex", "utf-7", "unicode_escape", "undefined", "cp037", "none", "", "ü", "a&b"],
)
def test_an_odd_encoding_costs_no_record_and_is_counted(tmp_path, declared):
    xml = HEAD.replace("UTF-8", declared) + article(title="café") + article(pmid=99_000_002) + TAIL
    (document, _), drops = read(tmp_path, xml)
    assert document.title == "café"
    assert drops == {"repaired_encoding": 1}
    with pytest.raises(
        UserError, match=r"a\.xml, line 1: declares the encoding .* which is unknown; it is read as UTF-8"
    ):
        read(tmp_path, xml, strict=True)


@pytest.mark.parametrize("section", ["<![CDATA[{}]]>", "<!-- {} -->"])
@pytest.mark.parametrize("tags", ["</PubmedArticle>", "</MedlineCitation></PubmedArticle><PubmedArticle>"])
def test_cdata_and_comments_may_contain_the_tags_of_records(tmp_path, section, tags):
    inside = f"<AbstractText>Before {section.format(tags)} after.</AbstractText>"
    xml = HEAD + article(abstract=inside) + article(pmid=99_000_002) + TAIL
    found, drops = read(tmp_path, xml, strict=True)
    assert [document.pmid for document in found] == [99_000_001, 99_000_002]
    text = " ".join(f"Before {tags if 'CDATA' in section else ''} after.".split())
    assert found[0].sections == ((None, text),)
    assert drops == {}


def test_a_comment_without_an_end_costs_one_record(tmp_path):
    bad = article(abstract="<AbstractText>Not <!-- closed.</AbstractText>")
    found, drops = read(tmp_path, HEAD + bad + article(pmid=99_000_002) + TAIL)
    assert [document.pmid for document in found] == [99_000_002]
    assert drops == {"malformed_xml": 1}


@pytest.mark.parametrize(
    "abstract",
    [
        "<AbstractText><jats:p>Invented <xlink:a xlink:href='x'>abstract</xlink:a>.</jats:p></AbstractText>",
        "<AbstractText a:b='c'>Invented abstract.</AbstractText>",
        "<AbstractText><d:i xmlns:d='urn:d'>Invented</d:i> <d:i>abstract</d:i>.</AbstractText>",
    ],
)
def test_prefixes_that_are_not_declared_cost_no_record(tmp_path, abstract):
    assert read_one(tmp_path, abstract=abstract).sections == ((None, "Invented abstract."),)


def test_a_default_namespace_costs_no_record(tmp_path):
    xml = HEAD + article().replace("<PubmedArticle>", '<PubmedArticle xmlns="urn:x" xmlns:y="urn:y">') + TAIL
    (document,), drops = read(tmp_path, xml, strict=True)
    assert (document.title, drops) == ("Invented title.", {})


def test_control_characters_are_removed_and_the_article_is_counted(tmp_path):
    xml = HEAD + article(title="A\0B \x0bC&#0;D &#x1F;&#xD800;E&#10;&#x3b1;") + TAIL
    (document,), drops = read(tmp_path, xml)
    assert document.title == "AB CD E \u03b1"
    assert drops == {"repaired_characters": 1}


def test_a_record_over_the_limit_is_counted_and_the_others_are_used(tmp_path):
    long = article(abstract="<AbstractText>" + "word " * 2000 + "</AbstractText>")
    xml = (HEAD + article(pmid=99_000_002) + long + article(pmid=99_000_003) + TAIL).encode()
    for size in (100, 1000, len(xml)):
        errors = ReadErrors("a.xml", Counter(), strict=False, max_line_bytes=2000)
        chunks = (xml[at : at + size] for at in range(0, len(xml), size))
        found = list(pubmed_xml.parse(chunks, errors, ReadOptions(), []))
        if size < len(xml):  # a chunk that is in memory anyway is searched to its end
            assert [document.pmid for document in found] == [99_000_002, 99_000_003]
            assert errors.drops == {"long_record": 1}
        else:
            assert len(found) == 3


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


@pytest.mark.parametrize("text", ["", "<article><body>503 try later</body></article>", "<PubmedArticleSet/>"])
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
        with_titles = list(reader.read_documents(str(path), drops, options=ReadOptions(titles_alone=True)))
        assert len(with_titles) == wanted["records"] - wanted["without text"], path
