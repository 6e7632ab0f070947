"""Curves of a report in a real browser: values, controls, downloads; no violation of axe-core; nothing is loaded."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import invented_finetuned
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
    finetuned = invented_finetuned.write(root / "ncbi")
    assert cli.main(["report", *runs, finetuned, f"--output={root}", "--rows=0"]) == 0
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


def test_a_range_of_the_x_axis_is_typed_and_applies_to_all_figures(tab):
    tab.fill("input[name=low]", "500")
    tab.fill("input[name=high]", "1500")
    for figure in ("loss", "step_seconds"):
        assert tab.evaluate(f"{PLOT.format(figure)}.layout.xaxis.range") == [500, 1500]
    tab.fill("input[name=low]", "")
    assert tab.evaluate(f"{PLOT.format('loss')}.layout.xaxis.range[1]") == 1500


def test_a_figure_is_saved_as_svg_and_png_by_keyboard_in_light_colours(tab):
    saved = {}
    for kind in ("SVG", "PNG"):
        tab.get_by_role("button", name=f"Save Generator loss (nats per masked token) as {kind}").focus()
        with tab.expect_download() as download:
            tab.keyboard.press("Enter")
        saved[kind] = pathlib.Path(download.value.path()).read_bytes()
    assert saved["PNG"].startswith(b"\x89PNG") and saved["SVG"].startswith(b"<svg")
    assert b"rgb(36, 99, 201)" in saved["SVG"], "the colour of the first run on a light page"
    dark = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    colour = "getComputedStyle(document.documentElement).getPropertyValue('--run0')"
    assert tab.evaluate(colour) == ("#6ea8ff" if dark else "#2463c9"), "the page keeps its own"


def test_errors_are_found_by_words_and_by_kind(tab):
    def shown() -> list[str]:
        return [item.split("\n")[0] for item in tab.locator(".errors li:visible").all_inner_texts()]

    assert shown() == ["line 14: wrong border, wrong type, missed, spurious", "line 27: missed"]
    tab.get_by_label("find").focus()
    tab.keyboard.type("chronic ATEN")
    assert len(shown()) == 1 and tab.locator("[data-errors] output").inner_text() == "1 shown"
    tab.fill("[type=search]", "")
    tab.locator("[data-errors] select").select_option(label="missed (2)")
    assert len(shown()) == 2
    tab.locator("[data-errors] select").select_option(label="wrong type (1)")
    assert shown() == ["line 14: wrong border, wrong type, missed, spurious"]


def test_a_screen_reader_reads_first_and_last_value_of_each_curve(tab):
    spoken = tab.locator("[data-figure=loss] + .spoken").text_content()
    assert "second: train: 45 at step 1, 20.01 at step 3,000" in spoken


def test_it_looks_right_and_axe_finds_no_serious_violation(tab):
    check_looks(tab, "report")
