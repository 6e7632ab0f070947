"""A headless browser for pages: tabs that fail at errors and requests to other hosts, and a check of how a page looks.

Needs `apt install chromium`. Screenshots are written to $ELECTRAMED_ARTIFACTS, or to .ci/artifacts of the repository.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ARTIFACTS = pathlib.Path(os.environ.get("ELECTRAMED_ARTIFACTS", REPOSITORY / ".ci" / "artifacts"))
SIZES = [(1280, "light"), (400, "dark")]
LOCAL = ("http://127.0.0.1", "file:", "data:", "blob:")


@contextlib.contextmanager
def opened_browser() -> Iterator[Any]:
    """Yields chromium; skips the test if it is not installed."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs a browser: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def open_tab(browser: Any, width: int, scheme: str) -> Iterator[Any]:
    """Yields a tab; asserts that it logged no error and requested nothing from another host."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda sent: None if sent.url.startswith(LOCAL) else problems.append(sent.url))
    yield tab
    assert problems == []
    context.close()


def check_looks(tab: Any, name: str) -> None:
    """Asserts that nothing overflows the window and that axe-core finds no serious violation. Takes a screenshot."""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run().then(result => result.violations)")
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in serious]
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=ARTIFACTS / f"{name}-{tab.viewport_size['width']}.png", full_page=True)
