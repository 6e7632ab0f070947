"""A report of one workdir or several: read, drawn, written."""

from __future__ import annotations

from collections.abc import Sequence

from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.report import examples, examples_html, figures, page, panels
from electramed_jax.report import run as run_lib
from electramed_jax.report.run import Run

PAGE = "report.html"


def write(workdirs: list[str], output: str, *, rows: int, data: str | None = None) -> dict[str, object]:
    """Writes OUTPUT/report.html, which needs no other file, and a PNG of each figure.

    Args:
      workdirs: of pre-training runs, finished or not, and of fine-tuning runs, whose scores are shown.
      rows: validation rows to try each newest checkpoint on; 0: none, and no checkpoint is opened.
      data: packed folder to take them from; None: what a run was trained on.

    Returns:
      The paths written, and the alerts by run.

    Raises:
      UserError: one is no training workdir, or matplotlib is not there.
    """
    scores = run_lib.read_scores([workdir for workdir in workdirs if run_lib.is_finetuned(workdir)])
    workdirs = [workdir for workdir in workdirs if not run_lib.is_finetuned(workdir)]
    if not workdirs:
        raise UserError("only workdirs of fine-tuning; name that of the pre-training run first, theirs after it")
    runs = run_lib.read_all(workdirs)
    drawn = {
        panel.metric: figures.curves(panel, runs) for panel in panels.with_data(panels.LEARNING + panels.SPEED, runs)
    }
    drawn["document_lengths"] = _lengths(runs)
    svgs = {name: figures.svg(figure) for name, figure in drawn.items()}
    speed = {panel.metric for panel in panels.SPEED}
    learning = [svgs[panel.metric] for panel in panels.LEARNING if panel.metric in svgs]
    sections = [
        page.overview(runs),
        page.alerts(runs),
        page.curves("Learning", page.learning_note(runs), learning),
        page.downstream(scores),
        _sentences(runs, rows, data) if rows else "",
        page.speed(runs, [svgs[name] for name in svgs if name in speed]),
        page.data(runs, svgs["document_lengths"]),
        page.compiled(runs),
        page.settings(runs),
    ]
    path = files.join(output, PAGE)
    for name, figure in drawn.items():
        with files.atomic_write(files.join(output, f"{name}.png")) as file:
            file.write(figures.png(figure))
    files.write_text(path, page.whole(runs, sections))
    return {
        "report": path,
        "figures": [files.join(output, f"{name}.png") for name in drawn],
        "alerts": {run.workdir: [alert.kind for alert in run.alerts] for run in runs},
    }


def _lengths(runs: Sequence[Run]):
    """Documents by tokens, as shares, so that datasets of different sizes can be compared."""
    bins = sorted({int(end) for run in runs for end in run.manifest.length_histogram})
    series = {}
    for run in runs:
        histogram = run.manifest.length_histogram
        total = sum(histogram.values()) or 1
        series[run.name] = [100 * histogram.get(str(end), 0) / total for end in bins]
    return figures.bars("Documents by length (%)", [_length(end) for end in bins], series, "tokens")


def _length(end: int) -> str:
    """`≤512`, `≤4k`: short, since a dozen stand side by side."""
    return f"≤{end // 1024}k" if end >= 1024 and end % 1024 == 0 else f"≤{end}"


def _sentences(runs: Sequence[Run], rows: int, data: str | None) -> str:
    cards = []
    for number, run in enumerate(runs):
        name = page.named(run, number, runs)
        try:
            step, found = examples.of_checkpoint(run.workdir, rows, data)
        except UserError as error:
            reason = f"{error} (--data=DIR takes its rows from another packed folder, --rows=0 does without)"
            warn(f"no sentences of {run.workdir}: {reason}")
            cards.append(page.missing(name, reason))
        else:
            cards.append(examples_html.of_run(name, step, found))
    return page.section(
        "Sentences", "".join(cards), "Rows of the validation split, masked as an evaluation masks them."
    )
