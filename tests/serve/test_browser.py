"""The page in a real browser, headless: type, press, read; no violation of axe-core; 1280 and 400 pixels, light and dark.

Needs `apt install chromium`. Screenshots are written to $ELECTRAMED_SCREENSHOTS, if it is set.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from importlib import resources

import pytest
from try_page import CapitalService, running

from electramed_jax.data.readers.document import Document
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.output import annotated_document, entity_formats

pytestmark = pytest.mark.slow

TEXT = "Fever <b>and</b> Pain were treated with Aspirin & Lithium.\n" * 3
SIZES = [(1280, "light"), (400, "dark")]


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs a browser: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES, ids=[f"{width}-{scheme}" for width, scheme in SIZES])
def tab(browser, request):
    """Returns a tab; the test fails if it logged an error or requested anything from another host."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url))
    yield page
    assert problems == [] and not [url for url in requested if "127.0.0.1" not in url and url[:5] != "file:"]
    context.close()


def check_looks(tab, name: str) -> None:
    """Asserts that nothing overflows the window and that axe-core finds no serious violation."""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run().then(result => result.violations)")
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in serious]
    if folder := os.environ.get("ELECTRAMED_SCREENSHOTS"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        width = tab.viewport_size["width"]
        tab.screenshot(path=pathlib.Path(folder) / f"{name}-{width}.png", full_page=True)


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
