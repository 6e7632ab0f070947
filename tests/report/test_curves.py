"""Curves of a report in a real browser: values, controls, downloads; no violation of axe-core; nothing is loaded."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import invented_history
import invented_metrics
import numpy as np
import pytest
from headless import SIZES, check_looks, open_tab, opened_browser

from electramed_jax import cli
from electramed_jax.config.pretrain import to_dict
from electramed_jax.data.dataset.manifest import Shard
from electramed_jax.model.flops import train_step_flops

pytestmark = pytest.mark.slow


def write_run(folder: pathlib.Path, **changed: float) -> str:
    """Writes a workdir without checkpoints: 3,000 steps, resumed at step 2,000."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(invented_history.CONFIG)))
    split = dataclasses.replace(invented_history.SPLIT, shards=(Shard("one", 1, "0" * 64),))
    manifest = dataclasses.replace(
        invented_history.MANIFEST,
        splits={"train": split, "validation": split},
        length_histogram={"128": 3, "512": 1},
        vocab_sha256="0" * 64,
    )
    (folder / "dataset.json").write_text(json.dumps(dataclasses.asdict(manifest)))
    invented_metrics.write(folder, fill_fraction=0.99, **changed)
    return str(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("runs")
    runs = [write_run(root / "first <b>"), write_run(root / "second", generator_accuracy=0.2)]
    assert cli.main(["report", *runs, f"--output={root}", "--rows=0"]) == 0
    return (root / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as browser:
        yield browser


@pytest.fixture(params=SIZES, ids=[f"{width}-{scheme}" for width, scheme in SIZES])
def tab(browser, request, report):
    with open_tab(browser, *request.param) as tab:
        tab.goto(report)
        yield tab


PLOT = "document.querySelector('[data-figure={}]')"


def drawn(tab, figure: str) -> list[dict]:
    """Returns the traces of a figure, as plotly.js has them."""
    return tab.evaluate(f"{PLOT.format(figure)}.data.map(({{name, x, y, mode}}) => ({{name, x, y, mode}}))")


def test_the_values_of_metrics_jsonl_are_drawn_on_each_axis(tab):
    train = [entry for entry in invented_metrics.entries() if entry["split"] == "train"]
    steps = [entry["step"] for entry in train]
    lines = [one for one in drawn(tab, "generator_loss") if one["name"].endswith(": train")]
    assert [one["name"] for one in lines] == ["first &lt;b>: train", "second: train"]
    assert lines[0]["x"] == steps
    np.testing.assert_allclose(lines[0]["y"], [entry["generator_loss"] for entry in train], rtol=1e-5)
    config = invented_history.CONFIG
    per_step = {
        "tokens": config.batch_size * config.data.max_seq_length / 1e6,
        "flops": train_step_flops(config),
        "hours": 0.5 / 3600,
    }
    for axis, factor in per_step.items():
        tab.select_option("select[name=x]", axis)
        (line, _) = (one for one in drawn(tab, "generator_loss") if one["name"].endswith(": train"))
        skipped = 1 if axis == "hours" else 0  # the first step was not timed
        np.testing.assert_allclose(line["x"], np.array(steps) * factor, rtol=1e-4, atol=skipped * 1e-3)


def test_smoothing_scales_and_runs_are_chosen_by_keyboard(tab):
    before = drawn(tab, "generator_loss")
    tab.focus("input[name=smooth]")
    for _ in range(10):
        tab.keyboard.press("ArrowRight")
    assert tab.inner_text("output") == "0.20"
    after = drawn(tab, "generator_loss")
    for old, new in zip(before, after, strict=True):
        assert (old["y"] != new["y"]) == old["name"].endswith(": train"), "validation is not smoothed"
    tab.focus("input[name=logy]")
    tab.keyboard.press("Space")
    assert tab.evaluate(f"{PLOT.format('generator_loss')}.layout.yaxis.type") == "log"
    tab.locator("input[name=run]").nth(1).focus()
    tab.keyboard.press("Space")
    assert len([one for one in drawn(tab, "generator_loss") if one["name"].endswith(": train")]) == 1
    assert len(drawn(tab, "document_lengths")) == 1


def test_the_value_under_the_pointer_is_shown_and_restarts_are_marked(tab):
    plot = tab.locator("[data-figure=generator_accuracy]")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_selector("[data-figure=generator_accuracy] .hoverlayer .legendtext, .hoverlayer .hovertext")
    assert "0.3" in plot.locator(".hoverlayer").text_content()
    assert (
        "restart"
        in tab.locator(
            "[data-figure=step_seconds] .shapelayer, [data-figure=step_seconds] .shape-label"
        ).all_text_contents()[-1]
    )


def test_a_figure_is_saved_as_svg_and_png(tab):
    for title, start in (("Download as SVG", b"<svg"), ("Download plot as a PNG", b"\x89PNG")):
        with tab.expect_download() as download:
            tab.locator(f"[data-figure=generator_loss] [data-title^='{title}']").dispatch_event("click")
        assert pathlib.Path(download.value.path()).read_bytes().startswith(start)


def test_it_looks_right_and_axe_finds_no_serious_violation(tab):
    check_looks(tab, "report")
