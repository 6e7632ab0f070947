from __future__ import annotations

import pytest
from invented_pubmed import HEAD, TAIL, article, read, read_one

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers.document import ReadOptions, text_id


def abstract(*sections: str) -> str:
    return "".join(f"<AbstractText>{section}</AbstractText>" for section in sections)


def test_a_structured_abstract_keeps_its_labels_and_leaves_out_the_copyright(tmp_path):
    document = read_one(
        tmp_path,
        abstract='<AbstractText Label="BACKGROUND:" NlmCategory="OBJECTIVE">Why.</AbstractText>'
        '<AbstractText Label="UNLABELLED">What.</AbstractText>'
        '<AbstractText Label="RESULTS"></AbstractText>'
        "<CopyrightInformation>© Invention.</CopyrightInformation>",
    )
    assert document.sections == (("BACKGROUND", "Why."), (None, "What."))
    assert document.text == "Invented title.\nBACKGROUND: Why.\nWhat."


def test_truncation_marks_and_copyright_notices_are_removed(tmp_path):
    text = abstract(
        "It began. (ABSTRACT TRUNCATED AT 250 WORDS)", "It ended.(ABSTRACT TRUNCATED) © 2001 Invention Ltd."
    )
    assert read_one(tmp_path, abstract=text).sections == ((None, "It began."), (None, "It ended."))


def test_a_section_without_a_label_is_labelled_by_its_category(tmp_path):
    text = (
        '<AbstractText NlmCategory="METHODS">How.</AbstractText>'
        '<AbstractText Label="" NlmCategory="RESULTS">So.</AbstractText>'
        '<AbstractText NlmCategory="UNASSIGNED">Else.</AbstractText>'
    )
    assert read_one(tmp_path, abstract=text).sections == (("METHODS", "How."), ("RESULTS", "So."), (None, "Else."))


def test_labels_can_be_dropped(tmp_path):
    text = '<AbstractText Label="AIM">Why.</AbstractText><AbstractText NlmCategory="METHODS">How.</AbstractText>'
    (document,), _ = read(tmp_path, HEAD + article(abstract=text) + TAIL, section_labels=False)
    assert document.sections == ((None, "Why."), (None, "How."))


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("[A translated title].", "A translated title."),
        ("[A translated question?]", "A translated question?"),
        ("[A title (author's transl)].", "A title."),
        ("[<i>In vitro</i> [sic] work].", "In vitro [sic] work."),
        ("[3H]-labelled ligands.", "[3H]-labelled ligands."),
        ("[A] and [B]", "[A] and [B]"),
        ("[Not Available].", ""),
        ("[In Process Citation]", ""),
    ],
)
def test_the_brackets_of_a_translated_title_are_removed(tmp_path, title, wanted):
    assert read_one(tmp_path, title=title).title == wanted


def test_a_title_in_the_original_language_is_used_only_if_there_is_no_other(tmp_path):
    original = "<VernacularTitle>Ein Titel.</VernacularTitle>"
    assert read_one(tmp_path, title="[A title].", more=original).title == "A title."
    assert read_one(tmp_path, title="[Not Available].", more=original).title == "Ein Titel."
    assert read_one(tmp_path, title="", more=original).title == "Ein Titel."


@pytest.mark.parametrize(
    ("title", "text", "languages", "wanted"),
    [
        ("A title.", "Text.", ["eng"], "eng"),
        ("[A title].", "", ["ger"], "eng"),
        ("A title.", "Text.", ["ger"], "eng"),
        ("Ein Titel.", "", ["ger"], "ger"),
        ("Ein Titel.", "", ["ger", "ENG"], "eng"),
        ("Ein Titel.", "", ["und"], None),
        ("A title.", "Text.", [], None),
    ],
)
def test_the_language_is_that_of_the_text_and_not_of_the_article(tmp_path, title, text, languages, wanted):
    more = "".join(f"<Language>{language}</Language>" for language in languages)
    xml = HEAD + article(title=title, abstract=abstract(text), more=more) + TAIL
    (document,), _ = read(tmp_path, xml, titles_alone=True)
    assert document.language == wanted


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
    assert read_one(tmp_path, date=date).year == year


@pytest.mark.parametrize(
    ("version", "date", "wanted"),
    [
        (' Version="3"', "<Year>2019</Year><Month>02</Month><Day>7</Day>", (3, 20190207)),
        ("", "<Year>2019</Year><Month>12</Month><Day>31</Day>", (1, 20191231)),
        (' Version="x"', "<Year>2019</Year><Month>13</Month><Day>1</Day>", (1, None)),
        (' Version="2"', "<Year>2019</Year><Month>12</Month>", (2, None)),
    ],
)
def test_version_and_day_of_revision_are_read(tmp_path, version, date, wanted):
    document = read_one(tmp_path, version=version, revised=f"<DateRevised>{date}</DateRevised>")
    assert (document.version, document.revised) == wanted


def test_a_title_without_an_abstract_is_dropped_and_counted_unless_enabled(tmp_path):
    xml = HEAD + article(abstract="") + article(pmid=99_000_002) + TAIL
    found, drops = read(tmp_path, xml)
    assert ([document.pmid for document in found], drops) == ([99_000_002], {"title_alone": 1})
    assert read(tmp_path, xml, strict=True)[1] == {"title_alone": 1}
    found, drops = read(tmp_path, xml, titles_alone=True)
    assert (found[0].text, drops) == ("Invented title.", {})


@pytest.mark.parametrize(
    "text",
    [
        "[This corrects the article DOI: 10.9999/invented.1.].",
        "[This retracts the article on p. 1 in vol. 2, PMID: 3.]",
        "Abstract available from the publisher.",
        "No abstract available.",
        "Copyright © 1999 Invented Press.",
    ],
)
def test_a_notice_in_place_of_an_abstract_is_not_an_abstract(tmp_path, text):
    assert read(tmp_path, HEAD + article(abstract=abstract(text)) + TAIL) == ([], {"title_alone": 1})


OTHERS = (
    '<OtherAbstract Type="Publisher" Language="ger"><AbstractText Label="ZIEL">Warum.</AbstractText>'
    "<CopyrightInformation>© Niemand.</CopyrightInformation></OtherAbstract>"
    '<OtherAbstract Type="plain-language-summary"><AbstractText>In short.</AbstractText></OtherAbstract>'
    '<OtherAbstract Type="plain-language-summary" Language="eng"><AbstractText>Shorter.</AbstractText></OtherAbstract>'
    '<OtherAbstract Type="Publisher" Language="spa"><AbstractText>Abstract available from the publisher.'
    "</AbstractText></OtherAbstract>"
)
FOREIGN = "<Language>ger</Language><VernacularTitle>Ein Titel.</VernacularTitle>"


def test_other_abstracts_are_read_only_in_the_requested_languages(tmp_path):
    xml = HEAD + article(title="[A title].", more=FOREIGN, other=OTHERS) + TAIL
    assert len(read(tmp_path, xml)[0]) == 1
    found, drops = read(tmp_path, xml, other_abstracts="ger,spa,eng")
    parts = [(document.id, document.source, document.language, document.text) for document in found]
    assert parts == [
        ("PMID99000001", "pubmed", "eng", "A title.\nInvented abstract."),
        ("PMID99000001.ger", "pubmed-other-abstract", "ger", "Ein Titel.\nZIEL: Warum."),
        ("PMID99000001.eng", "pubmed-other-abstract", "eng", "A title.\nIn short."),
        ("PMID99000001.eng2", "pubmed-other-abstract", "eng", "A title.\nShorter."),
    ]
    assert {document.pmid for document in found} == {99_000_001}
    assert drops == {}
    assert [document.language for document in read(tmp_path, xml, other_abstracts="spa")[0]] == ["eng"]


def test_an_abstract_in_a_third_language_does_not_get_the_title_in_the_original_language(tmp_path):
    other = '<OtherAbstract Language="rus"><AbstractText>Почему.</AbstractText></OtherAbstract>'
    xml = HEAD + article(title="[A title].", more=FOREIGN, other=other) + TAIL
    assert read(tmp_path, xml, other_abstracts="rus")[0][1].text == "Почему."


def test_an_other_abstract_is_read_if_the_article_has_no_abstract(tmp_path):
    xml = HEAD + article(abstract="", other=OTHERS) + TAIL
    found, drops = read(tmp_path, xml, other_abstracts="ger")
    assert [document.id for document in found] == ["PMID99000001.ger"]
    assert drops == {"title_alone": 1}


@pytest.mark.parametrize("codes", ["fr", "fre ger", "fre,", "FRE", "french"])
def test_languages_that_are_not_pubmed_codes_are_a_user_error(codes):
    with pytest.raises(UserError, match="three lower-case letters each"):
        ReadOptions(other_abstracts=codes)


def test_a_book_chapter_is_a_document(tmp_path):
    book = """<PubmedBookArticle><BookDocument><PMID Version="1">99000007</PMID>
<Book><BookTitle>Invented handbook</BookTitle><PubDate><Year>2004</Year></PubDate></Book>{}
<Language>eng</Language><Abstract><AbstractText>About H<sub>2</sub>O.</AbstractText></Abstract>
<Sections><Section><SectionTitle>Not this</SectionTitle></Section></Sections>{}</BookDocument>
<PubmedBookData><PublicationStatus>ppublish</PublicationStatus></PubmedBookData></PubmedBookArticle>"""
    chapter = book.format(
        "<ArticleTitle>A chapter</ArticleTitle>", "<ContributionDate><Year>2017</Year></ContributionDate>"
    )
    found, drops = read(tmp_path, HEAD + chapter + book.format("", "") + article() + TAIL)
    assert [(document.title, document.year) for document in found[:2]] == [
        ("A chapter", 2017),
        ("Invented handbook", 2004),
    ]
    assert found[0].id == "PMID99000007" and found[0].sections == ((None, "About H2O."),)
    assert len(found) == 3 and drops == {}
    empty = "<PubmedBookArticle><BookDocument/></PubmedBookArticle><PubmedBookArticle></PubmedBookArticle>"
    assert read(tmp_path, HEAD + empty + TAIL) == ([], {"no_text": 2})


def test_the_id_of_a_record_without_a_pmid_is_a_hash_of_its_text(tmp_path):
    found, _ = read(tmp_path, HEAD + article().replace(">99000001<", "><") + TAIL)
    assert found[0].id == text_id(found[0].text) and found[0].pmid is None
