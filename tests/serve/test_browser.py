"""The pages of predictions in a real browser, headless: type, press, read; no violation of axe-core."""

from __future__ import annotations

import pytest
from headless import SIZES, check_looks, open_tab, opened_browser
from try_page import CapitalService, running

from electramed_jax.data.readers.document import Document
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.output import annotated_document, entity_formats

pytestmark = pytest.mark.slow

TEXT = "Fever <b>and</b> Pain were treated with Aspirin & Lithium.\n" * 3


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as browser:
        yield browser


@pytest.fixture(params=SIZES, ids=[f"{width}-{scheme}" for width, scheme in SIZES])
def tab(browser, request):
    with open_tab(browser, *request.param) as tab:
        yield tab


def test_a_text_is_typed_submitted_by_keyboard_and_its_entities_are_shown(tab):
    with running(CapitalService()) as url:
        tab.goto(url)
        assert tab.evaluate("document.activeElement.id") == "text", "typing begins at once"
        tab.keyboard.insert_text(TEXT)
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("mark")
        assert tab.evaluate("getComputedStyle(document.querySelector('mark')).borderStyle") == "solid", (
            "the style applies"
        )
        assert tab.locator("mark").count() == 12 and tab.locator(".passage b").count() == 0
        assert tab.locator(".passage").inner_text().startswith("FeverName 0.88 <b>and</b> PainName 0.88 were")
        assert tab.input_value("textarea") == TEXT, "a submitted text is unchanged, also its last line break"
        check_looks(tab, "serve")


def test_the_static_page_of_predict_opens_from_disk(tab, tmp_path):
    document = Document("12", 12, "Fever.", ((None, TEXT.strip()),), None, "")
    parts = [
        (part, [EntitySpan(part.start, part.start + 5, "Disease", 0.9)])
        for part in annotated_document.passages(document)
    ]
    path = tmp_path / "page.html"
    path.write_text("".join(entity_formats.get_writer("html")([(document, parts)], "a model")), encoding="utf-8")
    tab.goto(path.as_uri())
    assert tab.locator("mark").all_inner_texts() == ["FeverDisease 0.90"] * 2
    check_looks(tab, "predict")
