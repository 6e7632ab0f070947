from __future__ import annotations

import re

import pytest
from lxml import etree

from electramed_jax.data.readers.notation import mathml
from electramed_jax.data.readers.pubmed import pubmed_text

NAMESPACE = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'


def math(short: str, attributes: str = "") -> str:
    """Returns MathML for `short`, in which the tags lack the prefix and the first `m`: <sup>, <i>, <row>."""
    inside = re.sub(r"<(/?)(?!/)", r"<\1mml:m", short).replace("msemantics", "semantics").replace("mann", "ann")
    return f"<mml:math {NAMESPACE} {attributes}>{inside}</mml:math>"


@pytest.mark.parametrize(
    ("short", "wanted"),
    [
        ("<i>p</i>\n  <o>=</o>\n  <n>0.05</n>", "p=0.05"),
        ("<sup><i>R</i><n>2</n></sup><o>&gt;</o><n>0.9</n>", "R^2>0.9"),
        ("<sup><n>10</n><row><o>−</o><n>3</n></row></sup>", "10^(−3)"),
        ("<subsup><i>x</i><i>i</i><n>12</n></subsup>", "x_i^12"),
        ("<frac><i>a</i><row><i>b</i><o>+</o><i>c</i></row></frac>", "a/(b+c)"),
        ("<sup><frac><i>a</i><i>b</i></frac><n>2</n></sup>", "(a/b)^2"),
        ("<sup><row><o>(</o><i>a</i><o>+</o><i>b</i><o>)</o></row><n>2</n></sup>", "(a+b)^2"),
        ("<sup><row></row><n>2</n></sup>", "^2"),
        ("<sqrt><i>n</i></sqrt><o>·</o><root><n>8</n><n>3</n></root>", "√n·8^(1/3)"),
        ("<over><i>x</i><o>¯</o></over>", "x¯"),
        ("<underover><o>∑</o><row><i>i</i><o>=</o><n>1</n></row><i>n</i></underover>", "∑_(i=1)^n"),
        ("<sup><i>Na</i><o>+</o></sup>", "Na+"),
        ("<i>x</i><o>&#8290;</o><i>y</i>", "xy"),
        ("<i>log</i><i>n</i>", "log n"),
        ("<n>2</n><n>3</n>", "2 3"),
        ("<fenced><i>a</i><i>b</i></fenced>", "(a,b)"),
        ("<multiscripts><i>C</i><prescripts/><none/><n>14</n></multiscripts>", "14C"),
        ("<table><tr><td><n>1</n></td><td><n>0</n></td></tr></table>", "1 0"),
        ("<i>x</i><text> if </text><i>y</i>", "x if y"),
    ],
)
def test_a_formula_is_written_as_it_would_be_typed(short, wanted):
    assert mathml.to_text(etree.fromstring(math(short))) == wanted


def test_annotations_and_phantoms_are_left_out():
    tex = r'<annotation encoding="application/x-tex">\documentclass{minimal} $$x^2$$</annotation>'
    hidden = '<annotation-xml encoding="MathML-Presentation"><i>x</i></annotation-xml><phantom><i>y</i></phantom>'
    short = f"<semantics><row><sup><i>x</i><n>2</n></sup></row>{tex}{hidden}</semantics>"
    assert mathml.to_text(etree.fromstring(math(short))) == "x^2"


def test_an_empty_formula_is_replaced_by_its_alternative_text():
    assert mathml.to_text(etree.fromstring(math("", 'alttext="x  squared"'))) == "x squared"


def test_formulas_are_part_of_the_surrounding_text():
    xml = (
        f"<a>Since {math('<i>x</i><o>=</o><n>1</n>')}, <i>and</i>:<DispFormula>{math('<i>y</i>')}</DispFormula>so.</a>"
    )
    assert pubmed_text.element_text(etree.fromstring(xml)) == "Since x=1, and: y so."
    assert pubmed_text.element_text(etree.fromstring(f"<a>an empty{math('')}one</a>")) == "an empty one"
