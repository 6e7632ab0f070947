"""Writes the report of one or more workdirs: report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.report import curves, examples, examples_html, finetuning, page, panels
from electramed_jax.report import run as run_lib
from electramed_jax.report.predictions.cards import prediction_cards
from electramed_jax.report.run import Run

PAGE = "report.html"
PREDICTIONS_NOTE = """Of the seed with the best dev score, on dev: errors on test would tune a model to it. Cells of a
matrix are numbers of examples."""


def write_report(workdirs: list[str], output: str, *, rows: int, data: str | None = None) -> dict[str, Any]:
    """Writes OUTPUT/report.html, a self-contained page.

    Args:
      workdirs: pre-training runs, finished or not, and fine-tuning runs with their scores, or only the latter.
      output: folder to write to.
      rows: validation rows that the newest checkpoint of each run is applied to; 0 opens no checkpoint.
      data: packed folder of those rows; None: the dataset of the run.

    Returns:
      The path written, the keys of its figures, and the kinds of alerts by workdir.

    Raises:
      UserError: a folder is not a training workdir, or plotly is not installed.
    """
    named = run_lib.name_workdirs([workdir for workdir in workdirs if run_lib.is_finetuned(workdir)])
    scores = {name: run_lib.read_scores(workdir) for name, workdir in named.items()}
    workdirs = [workdir for workdir in workdirs if not run_lib.is_finetuned(workdir)]
    runs = run_lib.read_runs(workdirs) if workdirs else []
    dev_curves = finetuning.dev_curves(scores)
    figures = _pretraining_figures(runs) | dev_curves
    shown = {key: curves.figure_element(key, title, values) for key, (title, values) in figures.items()}
    predictions = [card for name, workdir in named.items() for card in _prediction_cards(name, workdir, scores[name])]
    finetuned = [
        page.downstream_section(scores),
        page.finetuning_section(scores, [shown[key] for key in dev_curves]),
        page.section("Predictions", "".join(predictions), PREDICTIONS_NOTE, grid=True) if predictions else "",
    ]
    sections = _pretraining_sections(runs, shown, finetuned, rows, data) if runs else finetuned
    path = files.join(output, PAGE)
    names = [run.name for run in runs] or list(scores)
    files.write_text(path, page.render_page(names, sections, {key: values for key, (_, values) in figures.items()}))
    return {
        "report": path,
        "figures": list(figures),
        "alerts": {run.workdir: [alert.kind for alert in run.alerts] for run in runs},
    }


def _pretraining_figures(runs: Sequence[Run]) -> dict[str, tuple[str, Any]]:
    """Returns (title, values) of the figures of pre-training runs by key; {} without a run."""
    if not runs:
        return {}
    figures = {
        panel.metric: (panel.title, curves.panel_values(panel, runs))
        for panel in panels.panels_with_data(panels.LEARNING + panels.SPEED, runs)
    }
    return figures | {"document_lengths": ("Documents by length (%)", _document_lengths(runs))}


def _pretraining_sections(
    runs: Sequence[Run], shown: Mapping[str, str], finetuned: Sequence[str], rows: int, data: str | None
) -> list[str]:
    """Returns the sections of a page about pre-training runs, with those of models fine-tuned from them."""
    speed = {panel.metric for panel in panels.SPEED}
    learning = [shown[panel.metric] for panel in panels.LEARNING if panel.metric in shown]
    return [
        page.overview_section(runs),
        page.alerts_section(runs),
        curves.controls(runs),
        page.curves_section("Learning", page.learning_note(runs), learning),
        *finetuned,
        _examples_section(runs, rows, data) if rows else "",
        page.speed_section(runs, [shown[name] for name in shown if name in speed]),
        page.data_section(runs, shown["document_lengths"]),
        page.compile_section(runs),
        page.settings_section(runs),
    ]


def _prediction_cards(name: str, workdir: str, results: Mapping[str, Any]) -> Sequence[str]:
    try:
        return prediction_cards(name, workdir, results)
    except UserError as error:
        warn(f"warning: the report has no predictions of {workdir}: {error}")
        return [page.missing_card(name, str(error))]


def _document_lengths(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the share of documents by length, which is comparable between datasets of different sizes."""
    bins = sorted({int(end) for run in runs for end in run.manifest.length_histogram})
    series = []
    for run in runs:
        histogram = run.manifest.length_histogram
        total = sum(histogram.values()) or 1
        series.append((run.name, [100 * histogram.get(str(end), 0) / total for end in bins]))
    return curves.bar_values([_bin_label(end) for end in bins], series, "tokens")


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
