from __future__ import annotations

import pytest
from lxml import etree

from electramed_jax.data.readers.pubmed import pubmed_text


def line(xml: str) -> str:
    return pubmed_text.element_text(etree.fromstring(f"<AbstractText>{xml}</AbstractText>"))


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("CO<sub>2</sub> and H<sub>2</sub>O<sub>2</sub>", "CO2 and H2O2"),
        ("CD4<sup>+</sup> CD25<sup>-/-</sup> Ca<sup>2+</sup>", "CD4+ CD25-/- Ca2+"),
        ("<sup>18</sup>F, [<sup>3</sup>H], m<sup>2</sup>, kg<sup>-1</sup>", "18F, [3H], m2, kg-1"),
        ("the 3<sup>rd</sup> <u>of</u> <b>four</b>", "the 3rd of four"),
        ("A <b>bold <i>claim</i></b>,\n   spread out.", "A bold claim, spread out."),
        ("x<sub>i<sup>2</sup></sub>", "xi2"),
    ],
)
def test_inline_markup_is_removed_and_its_text_kept(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("10<sup>-3</sup>", "10^-3"),
        ("2.4×10<sup>6</sup> cells", "2.4×10^6 cells"),
        ("1<i>0</i><sup><b>−3</b></sup>", "10^−3"),
        ("SO<sub>4</sub><sup>2-</sup>", "SO4^2-"),
        ("2<sub>10</sub>", "2_10"),
        ("<sup>10</sup>6", "106"),
    ],
)
def test_a_numeric_script_is_separated_from_the_number_before_it(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("seen before<sup>1</sup>. Here", "seen before. Here"),
        ("seen before<sup>3,4</sup>, and", "seen before, and"),
        ("seen before<sup>6, 7,10–12</sup> and", "seen before and"),
        ("called 'odd'<sup>1</sup>.", "called 'odd'."),
        ("seen before <sup>1</sup> .", "seen before ."),
        ("seen before<sup>5</sup>", "seen before"),
    ],
)
def test_a_superscript_that_is_a_reference_is_removed(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("length × width<sup>2</sup>, mm<sup>3</sup>.", "length × width2, mm3."),
        ("phosphorylated at Ser<sup>473</sup>.", "phosphorylated at Ser473."),
        ("at serine<sup>63</sup> and sigma<sup>70</sup>.", "at serine63 and sigma70."),
        ("with <sup>13</sup> C-labelled", "with 13 C-labelled"),
        ("labelled carbon<sup>14</sup>.", "labelled carbon14."),
        ("mice<sup>high</sup>.", "micehigh."),
        ("delta<sup>9</sup>-THC", "delta9-THC"),
        ("seen below<sub>1</sub>.", "seen below1."),
    ],
)
def test_a_superscript_that_is_part_of_a_name_or_a_unit_is_kept(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("&lt;i&gt;In vitro&lt;/i&gt; p &lt; 0.05", "In vitro p < 0.05"),
        ("mm&lt;PRE&gt;3&lt;/PRE&gt;, 10&lt;sup&gt;6&lt;/sup&gt;", "mm3, 10^6"),
        ("&lt;b&gt;&lt;i&gt;both&lt;/i&gt;&lt;/b&gt;", "both"),
        ("a &lt;b and c&gt; d &lt;/x", "a <b and c> d </x"),
        ("p &amp;lt; 0.05 &amp;amp; &amp;#x3b1;&amp;mdash;5&amp;nbsp;mg", "p < 0.05 & α—5 mg"),
        ("AT&amp;T; R&amp;D &amp;notaname; &amp;notin;", "AT&T; R&D &notaname; ∉"),
    ],
)
def test_escaped_markup_and_entities_are_handled_like_unescaped_ones(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It worked.(ABSTRACT TRUNCATED AT 250 WORDS)", "It worked."),
        ("It worked. (ABSTRACT TRUNCATED AT 400 WORDS).", "It worked."),
        ("It worked. (ABSTRACT TRUNCATED)", "It worked."),
        ("It worked. ABSTRACT TRUNCATED AT 250 WORDS", "It worked."),
        ("The abstract truncated at 250 words.", "The abstract truncated at 250 words."),
        ("A TRUNCATED protein.", "A TRUNCATED protein."),
    ],
)
def test_a_truncation_mark_is_removed(text, wanted):
    assert pubmed_text.strip_truncation_mark(text) == wanted


@pytest.mark.parametrize(
    "notice",
    [
        "Copyright © 2019 Elsevier Ltd. All rights reserved.",
        "Copyright 1999 Academic Press.",
        "Copyright (c) 2003 Wiley-Liss, Inc.",
        "Crown Copyright © 2010. Published by Elsevier Ltd.",
        "© 2020 The Authors. Journal of Invention published by Wiley on behalf of Invention.",
        "©2017 AACR.",
        "(c)2001 by Le Jacq.",
        "(C) 1998 Academic Press",
        "Published by Elsevier B.V.",
        "This article is protected by copyright. All rights reserved.",
        "(PsycINFO Database Record (c) 2016 APA, all rights reserved).",
        "2010 Elsevier GmbH. All rights reserved.",
        "Cancer Res; 78(5); 1214-24. ©2018 AACR.",
        "Environ. Toxicol. Chem. 2013;32:1016-1026. © 2013 SETAC.",
    ],
)
def test_a_copyright_notice_at_the_end_is_removed(notice):
    assert pubmed_text.strip_copyright(f"We tried (n = 3). It worked in COS cells. {notice}") == (
        "We tried (n = 3). It worked in COS cells."
    )
    assert pubmed_text.strip_copyright(notice) == ""


@pytest.mark.parametrize(
    "text",
    [
        "The law of copyright in 2010 was studied.",
        "Aims: (a) to see, (b) to hear and (c) 2010 to report.",
        "The IL-2/gamma(c) interface. The PrP(C) protein.",
        "Data were analysed with SPSS © 2013.",
        "Guidelines published by Elsevier were followed.",
        "© 2019 Invention. " + "And then the abstract continued. " * 7,
        "We holding all rights reserved the right.",
    ],
)
def test_a_sentence_about_copyright_is_kept(text):
    assert pubmed_text.strip_copyright(text) == text
