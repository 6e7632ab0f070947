from __future__ import annotations

import json

import pytest
from lxml import etree

from electramed_jax.data.readers.pubmed import notices, pubmed_text


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
        ("new medicine<sup>12</sup> and", "new medicine and"),
        ("we investigate<sup>12</sup>.", "we investigate."),
        ("these exons<sup>4,5</sup> are", "these exons are"),
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
        ("after nickel<sup>63</sup> decay", "after nickel63 decay"),
        ("sulphur<sup>34</sup>, then", "sulphur34, then"),
        ("loss of intron<sup>4</sup> of the gene", "loss of intron4 of the gene"),
        ("at codon<sup>61</sup> of NRAS", "at codon61 of NRAS"),
        ("less interleukin<sup>17</sup> was", "less interleukin17 was"),
        ("the receptor<sup>7</sup> is", "the receptor7 is"),
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
    ("xml", "wanted"),
    [
        ("<p>First part.</p><p>Second part.</p>", "First part. Second part."),
        ("one line.<br/>Another <b>line</b>", "one line. Another line"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b c"),
        ("<sec><title>Aim</title>To see.</sec>", "Aim To see."),
        ("&lt;p&gt;First part.&lt;/p&gt;&lt;p&gt;Second part.&lt;/p&gt;", "First part. Second part."),
        ("one line.&lt;br/&gt;Another&lt;BR&gt;line", "one line. Another line"),
        ("<italic>in</italic><italic>line</italic>", "inline"),
    ],
)
def test_block_tags_separate_words(xml, wanted):
    assert line(xml) == wanted


@pytest.mark.reference_data
def test_the_reported_cases_have_their_right_text(shared_data):
    path = shared_data / "cases" / "pubmed_text.jsonl"
    cases = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for case in cases:
        found = line(case["xml"]) if "xml" in case else notices.strip_notice(case["abstract"])
        assert found == case["want"]
    assert len(cases) >= 20
