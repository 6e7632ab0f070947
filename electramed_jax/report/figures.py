"""Draws curves with matplotlib as PNG, for model cards. The figures of the report are in `curves.py`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.page import style
from electramed_jax.report import reference_curves
from electramed_jax.report.panels import Panel, Points
from electramed_jax.report.run import Run

SIZE = (4.4, 2.75)  # inches
PNG_DPI = 200
MAX_DRAWN = 1e100  # larger values overflow in the arithmetic of an axis
MAX_POINTS = 400  # of a curve; groups of points are averaged if there are more
FONTS = ["DejaVu Sans"]


def draw_curves(panel: Panel, runs: Sequence[Run]) -> Any:
    """Returns a figure of one metric: training thin, validation thick, reference values dashed."""
    figure, axes = _new(panel.title)
    by_tokens = len({run.tokens_per_step for run in runs}) > 1
    drawn: list[Points] = []
    for number, run in enumerate(runs):
        colour = style.light(style.run_colour(number))
        scale = run.tokens_per_step / 1e6 if by_tokens else 1
        for split in ("train", "validation"):
            points = _points(run, panel.metric, split)
            if not points:
                continue
            drawn.append(points)
            if split == "train":
                axes.plot(*_scale(downsample(points), scale), color=colour, linewidth=1, alpha=0.55)
            else:
                axes.plot(*_scale(points, scale), color=colour, linewidth=2, marker="o", markersize=2.5)
        if guide := panel.guide(run):
            drawn.append(guide.points)
            axes.plot(
                *_scale(guide.points, scale),
                color=style.light("muted") if len(runs) == 1 else colour,
                linewidth=1,
                linestyle=(0, (4, 3)),
                label=guide.label if number == 0 else None,
            )
        if panel.full_range:
            for start in run.history.starts[1:]:
                axes.axvline(start["step"] * scale, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
    limits = _y_limits(drawn, panel)
    _draw_bands(axes, panel.metric, runs, by_tokens)
    axes.set_xlabel("million tokens, padding included" if by_tokens else "step")
    longest = max((r.history.step * (r.tokens_per_step / 1e6 if by_tokens else 1) for r in runs), default=1)
    axes.set_xlim(0, max(longest, 1))
    if limits:
        axes.set_ylim(*limits)
    _legend(axes)
    return figure


def to_png(figure: Any) -> bytes:
    """Returns a figure as a PNG file."""
    buffer = io.BytesIO()
    with _settings():
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=style.light("card"))
    return buffer.getvalue()


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("curves on a model card need matplotlib; pip install 'electramed_jax[report]'") from error
    return matplotlib


def _settings() -> Any:
    """Returns the settings of matplotlib: fonts, and the light colours of the page."""
    ink, muted, grid = style.light("ink"), style.light("muted"), style.light("grid")
    return _matplotlib().rc_context(
        {
            "font.family": FONTS,
            "font.size": 9,
            "text.color": ink,
            "axes.edgecolor": grid,
            "axes.labelcolor": muted,
            "xtick.color": muted,
            "ytick.color": muted,
            "grid.color": grid,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def _new(title: str) -> tuple[Any, Any]:
    with _settings():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.grid(linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    return figure, axes


def _short(value: float) -> str:
    """Formats a tick label: `1.5M`, `20k`, `0.25`, `2e-04`."""
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}" if size >= 1e-3 or not size else f"{value:.1e}"


def _points(run: Run, metric: str, split: str) -> list[tuple[int, float]]:
    """Returns the points of a metric, without values that are not finite or cannot be drawn."""
    entries = run.history.split(split)
    return [(e["step"], e[metric]) for e in entries if metric in e and abs(e[metric]) < MAX_DRAWN]


def _scale(points: Points, scale: float) -> tuple[list[float], list[float]]:
    return [step * scale for step, _ in points], [value for _, value in points]


def downsample(points: Points) -> Points:
    """Returns at most `MAX_POINTS` points: means of consecutive ones."""
    if len(points) <= MAX_POINTS:
        return points
    groups = np.array_split(np.asarray(points, np.float64), MAX_POINTS)
    return [(group[-1, 0], group[:, 1].mean()) for group in groups]


def _y_limits(curves: Sequence[Points], panel: Panel) -> tuple[float, float] | None:
    """Returns the limits of the y axis; they may exclude the first tenth of the steps, where losses fall steeply."""
    values = list(panel.y_includes)
    for points in curves:
        first = 0 if panel.full_range else points[-1][0] / 10
        values += [value for step, value in points if step >= first]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return (0.0 if low == 0 and 0.0 in panel.y_includes else low - margin), high + margin


def _draw_bands(axes: Any, metric: str, runs: Sequence[Run], by_tokens: bool) -> None:
    """Draws the reference band of each model size among the runs."""
    drawn = set()
    for run in runs:
        reference = reference_curves.reference_for(run.config)
        if reference is None or reference.name in drawn or metric not in reference.bands:
            continue
        drawn.add(reference.name)
        per_step = 1e6 if by_tokens else run.tokens_per_step
        x, low, high = zip(
            *((s * reference.tokens_per_step / per_step, a, b) for s, a, b in reference.bands[metric]), strict=True
        )
        axes.fill_between(x, low, high, color=style.light("band"), linewidth=0, label=reference.name, zorder=0.5)


def _legend(axes: Any) -> None:
    _, labels = axes.get_legend_handles_labels()
    if labels:
        legend = axes.legend(fontsize=7.5, frameon=False, handlelength=1.6, borderpad=0.2, labelspacing=0.3)
        for text in legend.get_texts():
            text.set_color(style.light("muted"))
