"""Writes the report of one or more workdirs: report.html and a PNG of each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.report import examples, examples_html, figures, finetuning, page, panels
from electramed_jax.report import run as run_lib
from electramed_jax.report.run import Run

PAGE = "report.html"


def write_report(workdirs: list[str], output: str, *, rows: int, data: str | None = None) -> dict[str, Any]:
    """Writes OUTPUT/report.html, a self-contained page, and a PNG of each figure.

    Args:
      workdirs: pre-training runs, finished or not, and fine-tuning runs with their scores, or only the latter.
      output: folder to write to.
      rows: validation rows that the newest checkpoint of each run is applied to; 0 opens no checkpoint.
      data: packed folder of those rows; None: the dataset of the run.

    Returns:
      The paths written, and the kinds of alerts by workdir.

    Raises:
      UserError: a folder is not a training workdir, or matplotlib is not installed.
    """
    scores = run_lib.read_scores([workdir for workdir in workdirs if run_lib.is_finetuned(workdir)])
    workdirs = [workdir for workdir in workdirs if not run_lib.is_finetuned(workdir)]
    runs = run_lib.read_runs(workdirs) if workdirs else []
    dev_curves = finetuning.draw_dev_curves(scores)
    plots = _plot_pretraining(runs) | dev_curves
    svgs = {name: figures.to_svg(figure) for name, figure in plots.items()}
    finetuned = [page.downstream_section(scores), page.finetuning_section(scores, [svgs[name] for name in dev_curves])]
    sections = _pretraining_sections(runs, svgs, finetuned, rows, data) if runs else finetuned
    path = files.join(output, PAGE)
    for name, figure in plots.items():
        with files.atomic_write(files.join(output, f"{name}.png")) as file:
            file.write(figures.to_png(figure))
    files.write_text(path, page.render_page([*(run.name for run in runs), *(() if runs else scores)], sections))
    return {
        "report": path,
        "figures": [files.join(output, f"{name}.png") for name in plots],
        "alerts": {run.workdir: [alert.kind for alert in run.alerts] for run in runs},
    }


def _plot_pretraining(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the figures of pre-training runs by name; {} without a run."""
    if not runs:
        return {}
    plots = {
        panel.metric: figures.draw_curves(panel, runs)
        for panel in panels.panels_with_data(panels.LEARNING + panels.SPEED, runs)
    }
    return plots | {"document_lengths": _plot_document_lengths(runs)}


def _pretraining_sections(
    runs: Sequence[Run], svgs: Mapping[str, str], finetuned: Sequence[str], rows: int, data: str | None
) -> list[str]:
    """Returns the sections of a page about pre-training runs, with those of models fine-tuned from them."""
    speed = {panel.metric for panel in panels.SPEED}
    learning = [svgs[panel.metric] for panel in panels.LEARNING if panel.metric in svgs]
    return [
        page.overview_section(runs),
        page.alerts_section(runs),
        page.curves_section("Learning", page.learning_note(runs), learning),
        *finetuned,
        _examples_section(runs, rows, data) if rows else "",
        page.speed_section(runs, [svgs[name] for name in svgs if name in speed]),
        page.data_section(runs, svgs["document_lengths"]),
        page.compile_section(runs),
        page.settings_section(runs),
    ]


def _plot_document_lengths(runs: Sequence[Run]) -> Any:
    """Plots the share of documents by length, which is comparable between datasets of different sizes."""
    bins = sorted({int(end) for run in runs for end in run.manifest.length_histogram})
    series = {}
    for run in runs:
        histogram = run.manifest.length_histogram
        total = sum(histogram.values()) or 1
        series[run.name] = [100 * histogram.get(str(end), 0) / total for end in bins]
    return figures.draw_bars("Documents by length (%)", [_bin_label(end) for end in bins], series, "tokens")


def _bin_label(end: int) -> str:
    """Formats the upper limit of a bin: `≤512`, `≤4k`."""
    return f"≤{end // 1024}k" if end >= 1024 and end % 1024 == 0 else f"≤{end}"


def _examples_section(runs: Sequence[Run], rows: int, data: str | None) -> str:
    cards = []
    for number, run in enumerate(runs):
        name = page.run_label(run, number, runs)
        try:
            step, predicted = examples.predict_rows(run.workdir, rows, data)
        except UserError as error:
            reason = f"{error} (--data=DIR takes the rows from another packed folder, --rows=0 leaves them out)"
            warn(f"warning: the report has no example rows of {run.workdir}: {reason}")
            cards.append(page.missing_card(name, reason))
        else:
            cards.append(examples_html.render_run(name, step, predicted))
    return page.section("Examples", "".join(cards), "Validation rows with the masks of an evaluation.")
