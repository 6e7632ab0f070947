from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections import Counter
from xml.etree import ElementTree

import pytest
from read_files import read_file

from electramed_jax.common.errors import UserError

ARTICLE = """<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"
 article-type="research-article" xml:lang="en">
<front><journal-meta><journal-title>Journal of Invention</journal-title></journal-meta><article-meta>
<article-id pub-id-type="pmid">99000001</article-id><article-id pub-id-type="pmc">9900001</article-id>
<article-id pub-id-type="doi">10.9999/ABC.1</article-id>
<title-group><article-title>Kinases in mice<xref ref-type="fn" rid="f1">*</xref></article-title></title-group>
<contrib-group><contrib><name><surname>Hidden</surname></name></contrib></contrib-group>
<pub-date pub-type="pmc-release"><year>2015</year></pub-date><pub-date pub-type="epub"><year>2014</year></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by-nc/4.0/"><license-p>Free.</license-p></license>
</permissions>{abstract}</article-meta></front>
<body>{body}</body>
<back><ref-list><title>References</title><ref><mixed-citation>A cited work.</mixed-citation></ref></ref-list></back>
{more}</article>
"""
ABSTRACT = "<abstract><p>An invented abstract.</p></abstract>"


def article(body: str = "<p>The body.</p>", abstract: str = ABSTRACT, more: str = "") -> str:
    return ARTICLE.format(body=body, abstract=abstract, more=more)


def read(tmp_path, xml: str, name: str = "a.nxml", **options):
    (tmp_path / name).write_text(xml)
    return read_file(tmp_path / name, **options)


def read_one(tmp_path, body: str = "<p>The body.</p>", abstract: str = ABSTRACT, **options):
    (document,), drops = read(tmp_path, article(body, abstract), **options)
    assert drops == {}
    return document


def paragraph(tmp_path, xml: str) -> str:
    return read_one(tmp_path, f"<p>{xml}</p>").sections[-1][1]


def test_an_article_becomes_a_document_with_its_identifiers_and_licence(tmp_path):
    document = read_one(tmp_path, "<sec><title>Results</title><p>They bind.</p></sec>")
    assert document.text == "Kinases in mice\nAn invented abstract.\nResults: They bind."
    assert (document.id, document.pmid, document.pmcid, document.doi) == (
        "PMC9900001",
        99_000_001,
        "PMC9900001",
        "10.9999/abc.1",
    )
    assert (document.license, document.year, document.language, document.source) == ("CC BY-NC 4.0", 2014, "eng", "pmc")
    assert (document.kind, document.abstract_sections) == ("full_text", 1)


def test_the_format_is_recognized_in_a_file_named_xml_and_in_a_set_of_articles(tmp_path):
    articles = article() + article().replace("9900001<", "9900002<")
    xml = f'<?xml version="1.0"?>\n<pmc-articleset>{articles}</pmc-articleset>'
    found, drops = read(tmp_path, xml, "a.xml")
    assert [document.id for document in found] == ["PMC9900001", "PMC9900002"] and drops == {}


def test_nested_sections_keep_the_heading_of_a_parent_without_text_of_its_own(tmp_path):
    body = (
        "<p>Before.</p><sec><title>Methods</title><sec><title>Cells</title><p>Grown.</p></sec>"
        "<sec><title>Mice</title><p>Fed.</p><p>Housed.</p></sec></sec>"
        "<sec><title>Results</title><p>One.</p><sec><title>More</title><p>Two.</p></sec></sec>"
    )
    sections = read_one(tmp_path, body, abstract="").sections
    assert sections == (
        (None, "Before."),
        ("Methods: Cells", "Grown."),
        ("Mice", "Fed.\nHoused."),
        ("Results", "One."),
        ("More", "Two."),
    )
    assert [label for label, _ in read_one(tmp_path, body, section_labels=False).sections] == [None] * 6


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ('shown before [<xref ref-type="bibr">1</xref>,<xref ref-type="bibr">2</xref>].', "shown before."),
        (
            'shown before [<xref ref-type="bibr">1</xref>-<xref ref-type="bibr">4</xref>] in mice',
            "shown before in mice",
        ),
        ('shown<sup><xref ref-type="bibr">3</xref>,<xref ref-type="bibr">4</xref></sup>. Then', "shown. Then"),
        ('shown <xref ref-type="bibr">(5)</xref>, then', "shown, then"),
        ('shown (<xref ref-type="bibr">Smith et al., 2010</xref>) so', "shown (Smith et al., 2010) so"),
        ('see <xref ref-type="fig">Figure 2A</xref> here', "see Figure 2A here"),
        ('a note<xref ref-type="fn">a</xref> here', "a note here"),
        ("10<sup>-3</sup> M of CO<sub>2</sub> and <sup>14</sup>C", "10^-3 M of CO2 and 14C"),
        ("<italic>in vivo</italic> <ext-link>http://a.b</ext-link>", "in vivo http://a.b"),
        ("first<break/>second", "first second"),
        ("a <named-content>named</named-content> one", "a named one"),
    ],
)
def test_inline_markup_and_citations(tmp_path, xml, wanted):
    assert paragraph(tmp_path, xml) == wanted


def test_figures_and_tables_in_a_paragraph_are_no_part_of_its_text(tmp_path):
    figure = (
        "<fig><label>Figure 1.</label><caption><title>Binding.</title><p>Of kinases.</p></caption><graphic/></fig>"
        "<table-wrap><label>Table 1</label><caption><p>Doses.</p></caption><table><tr><td>5</td></tr></table></table-wrap>"
    )
    body = f"<sec><title>Results</title><p>They bind.{figure} Strongly.</p></sec>"
    assert read_one(tmp_path, body).sections[1:] == (("Results", "They bind. Strongly."),)
    assert read_one(tmp_path, body, captions=True).sections[1:] == (
        ("Results", "They bind. Strongly."),
        ("Figure 1", "Binding. Of kinases."),
        ("Table 1", "Doses."),
    )


def test_formulas_are_text(tmp_path):
    math = "<mml:math><mml:mi>x</mml:mi><mml:mo>=</mml:mo><mml:mn>2</mml:mn></mml:math>"
    tex = "<tex-math>\\documentclass{minimal}\\begin{document}$$y^2$$\\end{document}</tex-math>"
    assert paragraph(tmp_path, f"So <inline-formula>{math}</inline-formula> holds") == "So x=2 holds"
    assert paragraph(tmp_path, f"So <inline-formula>{tex}</inline-formula> holds") == "So y^2 holds"
    both = f"<inline-formula><alternatives>{tex}{math}<graphic/></alternatives></inline-formula>"
    assert paragraph(tmp_path, f"So {both} holds") == "So x=2 holds"
    assert paragraph(tmp_path, f"So <disp-formula><label>1</label>{math}</disp-formula> holds") == "So\nx=2\nholds"


def test_lists_and_quotations_are_lines(tmp_path):
    body = "<p>Aims:<list><list-item><p>one</p></list-item><list-item><p>two</p></list-item></list></p>"
    assert read_one(tmp_path, body).sections[-1][1] == "Aims:\none\ntwo"
    body = (
        "<sec><title>Aims</title><list><list-item><p>one</p></list-item></list><disp-quote><p>q</p></disp-quote></sec>"
    )
    assert read_one(tmp_path, body).sections[-1] == ("Aims", "one\nq")


def test_a_structured_abstract_and_summaries_of_other_kinds(tmp_path):
    abstract = (
        '<abstract abstract-type="graphical"><p>A picture.</p></abstract>'
        "<abstract><sec><title>Background</title><p>Why.</p></sec><sec><title>Methods</title><p>How.</p></sec></abstract>"
        '<abstract abstract-type="executive-summary"><title>Digest</title><p>Plain words.</p></abstract>'
    )
    document = read_one(tmp_path, abstract=abstract)
    assert document.sections[:3] == (("Background", "Why."), ("Methods", "How."), ("Digest", "Plain words."))
    assert document.abstract_sections == 3


def test_translated_abstracts_are_documents_of_their_own_if_asked_for(tmp_path):
    abstract = ABSTRACT + '<trans-abstract xml:lang="fr"><p>Un résumé.</p></trans-abstract>'
    assert len(read(tmp_path, article(abstract=abstract))[0]) == 1
    (_, french), _ = read(tmp_path, article(abstract=abstract), other_abstracts="fre,ger")
    assert (french.id, french.language, french.text) == ("PMC9900001.fre", "fre", "Un résumé.")


def test_sub_articles_are_documents_of_their_own_if_asked_for(tmp_path):
    letter = (
        '<sub-article article-type="reply"><front-stub><article-id pub-id-type="doi">10.9999/abc.1.2</article-id>'
        "<title-group><article-title>Reply</article-title></title-group></front-stub>"
        "<body><p>We thank the referees.</p></body></sub-article>"
    )
    (document,), _ = read(tmp_path, article(more=letter))
    assert "thank" not in document.text
    (_, reply), _ = read(tmp_path, article(more=letter), sub_articles=True)
    assert (reply.id, reply.title, reply.license) == ("PMC9900001.sub1", "Reply", "CC BY-NC 4.0")


def test_a_malformed_article_of_a_set_affects_only_itself(tmp_path):
    xml = f"<pmc-articleset>{article()}{article('<p>p < 0.05 & q</p>')}{article()}</pmc-articleset>"
    found, drops = read(tmp_path, xml)
    assert len(found) == 2 and drops == {"malformed_xml": 1}
    with pytest.raises(UserError, match=r"a\.nxml, line \d+: record is not well-formed"):
        read(tmp_path, xml, strict=True)


def test_an_article_without_text_is_counted(tmp_path):
    assert read(tmp_path, article(body="", abstract="")) == ([], {"title_alone": 1})
    (document,), _ = read(tmp_path, article(body="", abstract=""), titles_alone=True)
    assert document.title == "Kinases in mice"


def test_an_entity_bomb_is_refused(tmp_path):
    bomb = '<!DOCTYPE article [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    assert read(tmp_path, bomb + article("<p>&b;</p>")) == ([], {"entity_declaration": 1})


def test_a_package_of_articles_is_read_without_its_pictures(tmp_path):
    with tarfile.open(tmp_path / "PMC9900001.tar.gz", "w:gz") as package:
        for name, data in (("PMC1/a.nxml", article().encode()), ("PMC1/a.jpg", b"\xff\xd8\0"), ("PMC1/a.pdf", b"%PDF")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
    counts: Counter = Counter()
    (document,), drops = read_file(tmp_path / "PMC9900001.tar.gz", counts=counts)
    assert (document.id, drops, dict(counts)) == ("PMC9900001", {}, {"jats": 1})


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]{2,}", text))


def only_files(section: ElementTree.Element) -> bool:
    """Returns whether a section has supplementary files and no paragraph of its own."""
    inside = [p for files in section.iter("supplementary-material") for p in files.iter("p")]
    return bool(inside) and len(inside) == len(list(section.iter("p")))


def left_out(root: ElementTree.Element) -> Counter[str]:
    """Returns the words of a body that are no running text: figures, tables, formulas in TeX, notes, references."""
    tags = {"fig", "fig-group", "table-wrap", "supplementary-material", "media", "tex-math", "fn", "label", "object-id"}
    tags |= {"graphic", "inline-graphic", "permissions"}
    found: Counter[str] = Counter()

    def visit(element: ElementTree.Element) -> None:
        for child in element:
            is_empty = child.tag == "sec" and not [p for p in child.iter("p") if "".join(p.itertext()).strip()]
            if child.tag in tags or is_empty or (child.tag == "sec" and only_files(child)):
                found.update(words(" ".join(child.itertext())))
            else:
                visit(child)

    visit(root)
    return found


@pytest.mark.slow
def test_no_word_of_the_running_text_of_genuine_articles_is_lost(shared_data):
    """Compares with another parser (expat), from the shape of the tree."""
    paths = sorted((shared_data / "formats" / "jats").iterdir())
    assert len(paths) == 16
    for path in paths:
        (document,), drops = read_file(path, strict=True)
        assert drops == {}
        root = ElementTree.fromstring(path.read_bytes())
        body = root.find("body")
        wanted = words(" ".join(body.itertext())) - left_out(body)
        got = words(document.text)
        missing = wanted - got
        # Words split by markup (<italic>a</italic>b) are joined in the text.
        joined = "".join(re.findall(r"[^\W\d_]+", document.text))
        assert [word for word in missing if word not in joined] == [], path.name
        assert sum(missing.values()) < 0.02 * sum(wanted.values()), (path.name, missing)
        titles = [" ".join(e.itertext()) for ref in root.iter("ref") for e in ref.iter("article-title")]
        assert not [title for title in titles if len(title) > 60 and title in document.text], path.name


def test_identifiers_licences_and_sections_of_genuine_articles(shared_data):
    found = {}
    for path in sorted((shared_data / "formats" / "jats").iterdir()):
        (found[path.name],), _ = read_file(path)
    assert {name: document.license for name, document in found.items()} == {
        "1471-2180-11-174.nxml": "CC BY 2.0",
        "1472-6831-8-11.nxml": "CC BY 2.0",
        "6605965a.nxml": "",
        "PMC5828200.nxml": "CC BY 3.0",
        "PMC6398430.nxml": "CC BY 4.0",
        "PMC7417471.nxml": "CC BY 4.0",
        "ehp-116-1694.nxml": "public domain",
        "elife00067.xml": "CC BY 3.0",
        "elife00825.xml": "CC BY 3.0",
        "elife02678.xml": "CC BY 3.0",
        "elife05816.xml": "CC BY 4.0",
        "elife10565.xml": "CC BY 4.0",
        "mds526.nxml": "CC BY-NC 3.0",
        "pntd.0002065.nxml": "CC BY",
        "pone.0000217.nxml": "CC BY",
        "pone.0046493.nxml": "CC BY",
    }
    article = found["PMC6398430.nxml"]
    assert (article.id, article.pmid, article.doi) == ("PMC6398430", 30_846_892, "10.1093/beheco/ary157")
    assert article.abstract_sections == 1, "the teaser beside the abstract is not read"
    assert found["elife00067.xml"].id == "doi:10.7554/elife.00067"


def test_a_compressed_article_is_read(tmp_path):
    (tmp_path / "a.nxml.gz").write_bytes(gzip.compress(article().encode()))
    assert len(read_file(tmp_path / "a.nxml.gz")[0]) == 1
