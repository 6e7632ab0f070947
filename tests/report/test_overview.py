"""The card of a run shows its goodput, and the section of speed the parts of the wall time and the memory."""

from __future__ import annotations

import invented_history
import invented_metrics
from lxml import html

from electramed_jax.pretrain.history import History
from electramed_jax.pretrain.verdict import judge
from electramed_jax.report import page, panels
from electramed_jax.report.curves import panel_values
from electramed_jax.report.run import Run


def make_run() -> Run:
    """Returns a run with one start of 200 seconds, 150 of them in steps."""
    seconds = {"start_up": 10.0, "compilation": 30.0, "step": 150.0, "save": 10.0}
    start = {"step": 0, "time": "2026-01-02T03:04:05+00:00", "devices": 4, "device_kind": "TPU v4", "processes": 1}
    starts = [start | {"began": 1000.0, "splits": [{"step": 3000, "seconds": seconds}], "end": "finished"}]
    history = History(invented_history.CONFIG, invented_metrics.entries(), starts)
    manifest = invented_history.MANIFEST
    return Run("small", "runs/small", history, manifest, (), judge(history.entries, history.config, manifest, ()), None)


def text_of(markup: str) -> str:
    return " ".join(" ".join(html.fromstring(markup).itertext()).split())


def test_goodput_is_the_share_of_the_steps_in_the_wall_time():
    assert "goodput 75.0% of the wall time in steps" in text_of(page.overview_section([make_run()]))
    shown = text_of(page.speed_section([make_run()], []))
    assert "step 2 min 30 s 75.0%" in shown and "compilation 30 s 15.0%" in shown and "wall time 3 min 20 s" in shown


def test_memory_is_drawn_in_gib():
    run = make_run()
    drawn = {panel.metric: panel for panel in panels.panels_with_data(panels.SPEED, [run])}
    for metric, gib in (("host_memory_bytes", 3.0), ("device_memory_bytes", 1.0), ("device_memory_peak_bytes", 2.0)):
        (train,) = panel_values(drawn[metric], [run])["curves"]
        assert set(train["y"]) == {gib}
