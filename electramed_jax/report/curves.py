"""Curves of a report that one explores: values under the pointer, zoom, axes, smoothing, runs on and off.

The values of all curves are JSON in the page. `curves.js` passes them to plotly.js with the choices of the controls.
The scripts are in the page, which loads nothing; its Content-Security-Policy allows these alone, by their hash. A page
without curves has no script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.page import style
from electramed_jax.common.page.markup import Markup, text
from electramed_jax.model.flops import train_step_flops
from electramed_jax.report import reference_curves
from electramed_jax.report.figures import MAX_DRAWN, downsample
from electramed_jax.report.panels import Panel, Points
from electramed_jax.report.run import Run

AXES = {
    "step": "step",
    "tokens": "million tokens, padding included",
    "hours": "hours of training steps",
    "flops": "floating-point operations of the model",
}
OWN_SCRIPTS = ("curves.js", "errors.js")
_DIGITS = 6  # significant ones of a value in the page


@functools.cache
def _scripts() -> tuple[str, ...]:
    """Returns plotly.js and the scripts of the page.

    Raises:
      UserError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("a report needs plotly; pip install 'electramed_jax[report]'") from error
    folder = importlib.resources.files("electramed_jax.report")
    return (get_plotlyjs().replace("\r\n", "\n"), *(folder.joinpath(name).read_text("utf-8") for name in OWN_SCRIPTS))


@functools.cache
def _script_digests() -> tuple[str, ...]:
    return tuple(base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in _scripts())


def script_policy(figures: Mapping[str, Any]) -> str:
    """Returns the directive of the Content-Security-Policy that allows the scripts by hash; "" without curves."""
    return "script-src " + " ".join(f"'sha256-{digest}'" for digest in _script_digests()) if figures else ""


def script_elements(figures: Mapping[str, Any]) -> Markup:
    """Returns the end of the page: the values of the curves as JSON, and the scripts; "" without curves."""
    if not figures:
        return Markup("")
    values = json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    scripts = "".join(f"<script>{one}</script>" for one in _scripts())
    return Markup(f'<script type="application/json" id="curve-values">{values}</script>{scripts}')


def controls(runs: Sequence[Run]) -> Markup:
    """Returns the form that changes all figures. Runs of different batch sizes are compared by tokens at first."""
    names = [run.name for run in runs]
    first = "tokens" if len({run.tokens_per_step for run in runs}) > 1 else "step"
    axes = "".join(
        f'<option value="{name}"{" selected" if name == first else ""}>{text(label)}</option>'
        for name, label in AXES.items()
    )
    boxes = "".join(
        f'<label><input type="checkbox" name="run" value="{number}" checked>'
        f'<span class="dot" style="background:var(--{style.run_colour(number)})"></span>{text(name)}</label>'
        for number, name in enumerate(names)
    )
    return Markup(
        '<form class="card key controls" id="curve-controls" aria-label="Settings of all curves">'
        f'<label>x axis <select name="x">{axes}</select></label>'
        '<label>from <input type="number" name="low" step="any"></label>'
        '<label>to <input type="number" name="high" step="any"></label>'
        '<label><input type="checkbox" name="logx"> logarithmic x</label>'
        '<label><input type="checkbox" name="logy"> logarithmic y</label>'
        '<label>smoothing of training <input type="range" name="smooth" min="0" max="0.98" step="0.02" value="0">'
        f"<output>0</output></label>{boxes if len(names) > 1 else ''}</form>"
    )


def figure_element(key: str, title: str, values: Mapping[str, Any]) -> Markup:
    """Returns the place of a figure, which the script fills, with buttons to save it and its values as a sentence."""
    buttons = "".join(
        f'<button type="button" data-save="{kind.lower()}" aria-label="Save {text(title)} as {kind}">{kind}</button>'
        for kind in ("PNG", "SVG")
    )
    return Markup(
        f'<figure class="card curve"><figcaption>{text(title)}<span class="save">{buttons}</span></figcaption>'
        f'<div class="plot" data-figure="{text(key)}" role="group" aria-label="{text(title)}"></div>'
        f'<p class="spoken">{text(describe(values))}</p></figure>'
    )


def describe(values: Mapping[str, Any]) -> str:
    """Returns the first and the last value of each curve, or the values of the bars, for a screen reader."""
    if "bars" in values:
        each = (
            f"{bar['name']}: "
            + ", ".join(f"{label} {y:.3g}" for label, y in zip(values["labels"], bar["y"], strict=True))
            for bar in values["bars"]
        )
    else:
        each = (
            f"{curve['name']}: {curve['y'][0]:.4g} at step {curve['x']['step'][0]:,.0f}, "
            f"{curve['y'][-1]:.4g} at step {curve['x']['step'][-1]:,.0f}"
            for curve in values["curves"]
            if curve["kind"] != "guide" and curve["y"]
        )
    return "; ".join(each) + "."


def panel_values(panel: Panel, runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the curves of one metric: training and validation of each run, reference lines and bands, restarts."""
    curves: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        for split in ("train", "validation"):
            points = [
                (entry["step"], entry[panel.metric] / panel.unit)
                for entry in run.history.split(split)
                if panel.metric in entry and abs(entry[panel.metric]) < MAX_DRAWN
            ]
            if points:
                drawn = downsample(points) if split == "train" else points
                name = f"{run.name}: {split}" if len(runs) > 1 else split
                curves.append({"run": number, "kind": split, "name": name} | _values(run, drawn))
        if guide := panel.guide(run):
            curves.append({"run": number, "kind": "guide", "name": guide.label} | _values(run, guide.points))
    return {
        "curves": curves,
        "bands": list(_bands(panel.metric, runs)),
        "restarts": [restart for number, run in enumerate(runs) for restart in _restarts(number, run)],
        "include": list(panel.y_includes),
        "full": panel.full_range,
    }


def line_values(series: Mapping[str, Points], xlabel: str) -> dict[str, Any]:
    """Returns a line for each series, in the colours of the runs, without values that cannot be drawn."""
    curves = []
    for number, (name, points) in enumerate(series.items()):
        drawn = [point for point in points if abs(point[1]) < MAX_DRAWN]
        x, y = [step for step, _ in drawn], [_short(value) for _, value in drawn]
        curves.append({"run": number, "kind": "validation", "name": name, "x": {"step": x}, "y": y})
    return {"curves": curves, "bands": [], "include": [], "full": False, "xlabel": xlabel, "named": True}


def bar_values(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], xlabel: str) -> dict[str, Any]:
    """Returns a bar for each label and series, in the colours of the runs."""
    bars = [
        {"run": number, "name": name, "y": [_short(value) for value in values]}
        for number, (name, values) in enumerate(series)
    ]
    return {"bars": bars, "labels": list(labels), "xlabel": xlabel}


def _restarts(number: int, run: Run) -> Iterable[dict[str, Any]]:
    """Yields the later starts of a run, with a label."""
    changed = {phase.first_step - 1 for phase in run.history.phases()[1:]}
    for start in run.history.starts[1:]:
        label = "settings changed" if start["step"] in changed else "restart"
        yield {"run": number, "x": _x_values(run, [start["step"]]), "label": label}


def _values(run: Run, points: Points) -> dict[str, Any]:
    return {"x": _x_values(run, [step for step, _ in points]), "y": [_short(value) for _, value in points]}


def _x_values(run: Run, steps: Sequence[float]) -> dict[str, list[float]]:
    """Returns the steps as values of each axis. Hours are of training steps, without evaluation and saving."""
    intervals = run.history.intervals()
    hours = np.cumsum([interval.seconds for interval in intervals]) / 3600 if intervals else np.zeros(1)
    ends = [interval.step for interval in intervals] or [0]
    flops = train_step_flops(run.config)
    return {
        "step": [_short(step) for step in steps],
        "tokens": [_short(step * run.tokens_per_step / 1e6) for step in steps],
        "hours": [_short(value) for value in np.interp(steps, [0, *ends], [0.0, *hours]).tolist()],
        "flops": [_short(step * flops) for step in steps],
    }


def _bands(metric: str, runs: Sequence[Run]) -> Iterable[dict[str, Any]]:
    """Yields the reference band of each model size among the runs, on the axes of its first run."""
    drawn = set()
    for number, run in enumerate(runs):
        reference = reference_curves.reference_for(run.config)
        if reference is None or reference.name in drawn or metric not in reference.bands:
            continue
        drawn.add(reference.name)
        band = reference.bands[metric]
        steps = [step * reference.tokens_per_step / run.tokens_per_step for step, _, _ in band]
        longest = max(run.history.step for run in runs)
        low, high = [value for _, value, _ in band], [value for _, _, value in band]
        kept = [step for step in steps if step <= longest] + [longest]
        yield {
            "run": number,
            "name": reference.name,
            "x": _x_values(run, kept),
            "low": [_short(value) for value in np.interp(kept, steps, low).tolist()],
            "high": [_short(value) for value in np.interp(kept, steps, high).tolist()],
        }


def _short(value: float) -> float:
    """Returns the value with `_DIGITS` significant digits, which the page can show."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else 0.0
