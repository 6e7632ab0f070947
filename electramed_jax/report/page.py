"""HTML of the report, section by section. The page loads nothing from the network."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common import step_timer
from electramed_jax.common.page import style
from electramed_jax.common.page.markup import Markup
from electramed_jax.common.page.markup import definitions as _list
from electramed_jax.common.page.markup import table as _table
from electramed_jax.common.page.markup import text as _text
from electramed_jax.common.run_clock import STEP
from electramed_jax.config.pretrain import to_dict
from electramed_jax.pretrain.history import changed_during_run
from electramed_jax.pretrain.verdict import HEALTHY, TOO_SHORT
from electramed_jax.pretrain.workdir import changed_settings
from electramed_jax.report import curves, finetuning, reference_curves
from electramed_jax.report.panels import GIB
from electramed_jax.report.run import Run

# plotly.js sets styles, and makes pictures of a figure to download.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:"


def render_page(names: Sequence[str], sections: Iterable[str], figures: Mapping[str, Any]) -> str:
    """Returns the complete page about the runs with these names; `figures` are the values of its figures by key."""
    title = ", ".join(names)
    policy = "; ".join(filter(None, (POLICY, curves.script_policy(figures))))
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{_text(title)} · training report</title><style>{style.CSS}</style></head><body><main>",
            f"<h1>{_text(title)}</h1>",
            f'<p class="note">Training report of electramed_jax {__version__}, {now}.</p>',
            *sections,
            "</main>",
            curves.script_elements(figures),
            "</body></html>",
        ]
    )


def overview_section(runs: Sequence[Run]) -> str:
    """Returns a card per run with its progress, newest metrics and speed."""
    shape = "card" if len(runs) > 1 else "card wide"
    return f'<div class="grid">{"".join(_run_card(run, number, shape) for number, run in enumerate(runs))}</div>'


def alerts_section(runs: Sequence[Run]) -> str:
    """Returns a card with the verdict on each run, and one per kind of alert with its first step and the later ones."""
    cards = []
    for number, run in enumerate(runs):
        verdict = run.verdict
        shape = {HEALTHY: "card ok", TOO_SHORT: "card"}.get(verdict.kind, "card alert")
        sentences = "".join(f"<p>{_text(_sentence(sentence))}</p>" for sentence in verdict.sentences)
        cards.append(
            f'<div class="{shape}"><h3>{_dot(number, runs)}{_text(_sentence(verdict.title))}</h3>{sentences}</div>'
        )
        kinds = {alert.kind: [one for one in run.alerts if one.kind == alert.kind] for alert in run.alerts}
        for alert, *later in kinds.values():
            steps = ", ".join(f"{one.step:,}" for one in later)
            again = f'<p class="note">Again at step {steps}.</p>' if later else ""
            cards.append(
                f'<div class="card alert"><h3>{_dot(number, runs)}Step {alert.step:,}: {_text(alert.observation)}</h3>'
                f"<p>{_text(_sentence(alert.explanation))}</p><p><b>Try</b> {_text(alert.suggestion)}.</p>{again}</div>"
            )
    return section("Verdict and alerts", "".join(cards), grid=True)


def curves_section(title: str, note: str, figures: Iterable[str]) -> str:
    """Returns a section of figures, which are elements of `curves.figure_element`."""
    return section(title, "".join(figures), note, grid=True)


def learning_note(runs: Sequence[Run]) -> str:
    """Returns the caption of the learning curves."""
    references = [reference_curves.reference_for(run.config) for run in runs]
    sources = {reference.name: reference.source for reference in references if reference}
    note = "Thin: training, averaged between entries. Thick: validation, with the same masked tokens every time."
    note += " The steep start of a curve may be cut off."
    if not sources:
        return note
    bands = "; ".join(f"{name}: {source}" for name, source in sources.items())
    return f"{note} Green band: healthy runs after the same number of tokens ({bands})."


def speed_section(runs: Sequence[Run], figures: Iterable[str]) -> str:
    """Returns the curves of speed and memory, and tables of wall time, starts and restarts."""
    cards = "".join(figures)
    rows = [
        [run_label(run, number, runs), f"{start['step']:,}", start["time"].replace("T", " ")[:16], _devices(start)]
        for number, run in enumerate(runs)
        for start in run.history.starts
    ]
    table = _table(["run", "from step", "time (UTC)", "devices"], rows, numbers=(1,))
    card = f'<div class="card wide scroll" tabindex="0"><h3>Starts</h3>{table}</div>' if rows else ""
    note = (
        "Speed: without compilation, evaluation and saving. Memory: of the main process and of its fullest device. "
        "Dotted line: the run was resumed."
    )
    return section("Speed and memory", cards + _wall_time_card(runs) + card, note, grid=True)


def _wall_time_card(runs: Sequence[Run]) -> str:
    """Returns a table of the parts of each run's wall time; "" if no run recorded them."""
    rows = []
    for number, run in enumerate(runs):
        seconds = run.history.wall_time()
        wall = sum(seconds.values())
        for part, value in seconds.items():
            name = part.replace("_", " ")
            rows.append([run_label(run, number, runs), name, step_timer.format_duration(value), f"{value / wall:.1%}"])
        if seconds:
            rows.append([run_label(run, number, runs), "wall time", step_timer.format_duration(wall), "100.0%"])
    table = _table(["run", "part", "time", "share"], rows, numbers=(2, 3))
    return (
        f'<div class="card wide scroll" tabindex="0"><h3>Wall time by part (goodput: step)</h3>{table}</div>'
        if rows
        else ""
    )


def data_section(runs: Sequence[Run], figure: str) -> str:
    """Returns the distribution of document lengths, and the dataset of each run."""
    cards = [figure]
    for number, run in enumerate(runs):
        manifest = run.manifest
        rows = [
            [
                name,
                f"{split.documents:,}",
                f"{split.rows:,}",
                f"{split.tokens:,}",
                f"{split.fill_fraction:.1%}",
                f"{split.unigram_cross_entropy:.3f}",
            ]
            for name, split in manifest.splits.items()
        ]
        head = ["split", "documents", "rows", "tokens", "fill", "unigram nats"]
        table = _table(head, rows, numbers=range(1, 6))
        epochs = run.history.tokens() / max(1, manifest.splits["train"].tokens)
        files = f"{len(manifest.sources):,} source file{'' if len(manifest.sources) == 1 else 's'}"
        case = "lower-cased" if manifest.lower_case else "cased"
        case += ", accents kept" * manifest.keep_accents
        cards.append(
            f'<div class="card two scroll" tabindex="0"><h3>{run_label(run, number, runs)}</h3>{table}'
            f'<p class="note">{files}, vocabulary of {manifest.vocab_size:,}, rows of {manifest.row_length} tokens, '
            f"{case}; {epochs:.2f} epochs so far</p>"
            f"{_dropped(manifest.dropped)}</div>"
        )
    return section("Data", "".join(cards), grid=True)


def settings_section(runs: Sequence[Run]) -> str:
    """Returns the settings that differ between the runs, those that changed during a run, and all of each run."""
    parts = []
    if len(runs) > 1:
        configs = [to_dict(run.config) for run in runs]
        names = sorted(
            {line.split(":")[0] for run in runs[1:] for line in changed_settings(runs[0].config, run.config)}
        )
        rows = [[name, *(json.dumps(_setting(config, name)) for config in configs)] for name in names]
        head = ["setting", *(run_label(run, number, runs) for number, run in enumerate(runs))]
        table = _table(head, rows) if rows else "<p>All settings are equal.</p>"
        parts.append(f'<div class="card scroll" tabindex="0"><h3>Differences</h3>{table}</div>')
    for number, run in enumerate(runs):
        if changed := changed_during_run(phases := run.history.phases()):
            rows = [[name, *map(json.dumps, values)] for name, values in changed.items()]
            table = _table(["setting", *map(str, phases)], rows)
            parts.append(
                f'<div class="card scroll" tabindex="0"><h3>{run_label(run, number, runs)}: changed during the run</h3>'
                f"{table}</div>"
            )
        text = _text(json.dumps(to_dict(run.config), indent=1, ensure_ascii=False))
        parts.append(
            f"<details><summary>{run_label(run, number, runs)}: all settings</summary><pre>{text}</pre></details>"
        )
    return section("Settings", "".join(parts))


def compile_section(runs: Sequence[Run]) -> str:
    """Returns the result of `electramed compile` for each run with a compile.json; "" if there is none."""
    cards = []
    for number, run in enumerate(runs):
        if run.compiled is None:
            continue
        result = run.compiled
        rows = {
            "topology": f"{result['topology']}, {result['chips']} chips",
            "rows per chip": f"{result['rows_per_chip']:g} of {result['row_length']} tokens",
            "fits": "yes" if result["fits"] else "no",
            "peak memory per chip": f"{result['peak_bytes'] / GIB:.3g} of {result['available_bytes'] / GIB:.2f} GiB",
        }
        if "estimated_step_seconds" in result:
            rows["step time, estimated by the compiler"] = f"{result['estimated_step_seconds'] * 1e3:.3g} ms"
        cards.append(f'<div class="card"><h3>{run_label(run, number, runs)}</h3>{_list(rows)}</div>')
    return section("Compiled ahead of time", "".join(cards), grid=True) if cards else ""


def downstream_section(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table of fine-tuning scores; "" if there are none.

    Args:
      scores: contents of results.json, by the name of the workdir.
    """
    if not scores:
        return ""
    rows = []
    for name, results in scores.items():
        primary = {split: values.get(results["primary"]) for split, values in results["scores"].items()}
        published = [f"{one['model']} {one['value']:.2f} ({one['metric']})" for one in results["published"]]
        rows.append(
            [
                name,
                results["primary"],
                *(_score(primary.get(split), len(results["seeds"])) for split in ("dev", "test")),
                f"{len(results['seeds'])} of {results['seeds_wanted']}",
                f"{results['task']}: {results['variant']}",
                results["encoder"],
                ", ".join(published) or "none known",
                "; ".join(results.get("warnings", ())),
            ]
        )
    head = ["workdir", "metric", "dev", "test", "seeds", "corpus", "encoder", "published on the same files", "limits"]
    note = (
        "Mean and standard deviation over the seeds. The test score is that of the checkpoint with the best dev score."
    )
    return section(
        "Downstream", f'<div class="card wide scroll" tabindex="0">{_table(head, rows, numbers=(2, 3, 4))}</div>', note
    )


def finetuning_section(scores: Mapping[str, Mapping[str, Any]], figures: Iterable[str]) -> str:
    """Returns the dev curves of fine-tuning runs, and a table of the classes of each; "" if there is no run."""
    if not scores:
        return ""
    cards = list(figures)
    for name, results in scores.items():
        if rows := finetuning.class_rows(results):
            table = _table(["class", *finetuning.CLASS_MEASURES], rows, numbers=range(1, 4))
            cards.append(f'<div class="card scroll" tabindex="0"><h3>{_text(name)}</h3>{table}</div>')
    note = "Score on dev after each evaluation, a line for each seed. Classes: mean over the seeds on test, or on dev."
    return section("Fine-tuning", "".join(cards), note, grid=True)


def _score(value: Mapping[str, float] | None, seeds: int) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.2f}" + (f" ± {value['standard_deviation']:.2f}" if seeds > 1 else "")


def missing_card(title: str, reason: str) -> str:
    """Returns a card for content that could not be shown."""
    return f'<div class="card"><h3>{_text(title)}</h3><p class="note">{_text(reason)}</p></div>'


def _run_card(run: Run, number: int, shape: str) -> str:
    history, config = run.history, run.config
    done = history.step / config.total_steps
    rows = {
        "step": f"{history.step:,} of {config.total_steps:,}",
        "tokens seen": _count(history.tokens()),
        "time in steps": step_timer.format_duration(history.seconds()),
    }
    if hours := history.device_hours():
        rows["devices"] = ", ".join(f"{count} × {kind}" for kind, count in hours)
        used = sum(hours.values())
        rows["device hours"] = f"{used:,.0f}" if used >= 100 else f"{used:.2g}"
    if (seconds := history.wall_time()) and (wall := sum(seconds.values())):
        rows["goodput"] = f"{seconds[STEP] / wall:.1%} of the wall time in steps"
    for name, label, pattern in (
        ("loss", "loss", "{:.3f}"),
        ("generator_loss", "generator loss", "{:.3f}"),
        ("generator_accuracy", "generator accuracy", "{:.1%}"),
        ("discriminator_auc", "discriminator AUC", "{:.3f}"),
        ("discriminator_recall", "recall", "{:.1%}"),
        ("tokens_per_second", "tokens per second", "{:,.0f}"),
        ("eta_seconds", "remaining time", ""),
    ):
        value = run.latest(name)
        if value is not None:
            rows[label] = pattern.format(value) if pattern else step_timer.format_duration(value)
    colour = style.run_colour(number)
    return (
        f'<div class="{shape}"><h3><span class="dot" style="background:var(--{colour})"></span>{_text(run.name)}</h3>'
        f'<div class="bar"><i style="width:{done:.1%};background:var(--{colour})"></i></div>{_list(rows)}</div>'
    )


def _dropped(dropped: Mapping[str, int]) -> str:
    if not any(dropped.values()):
        return '<p class="note">No document was dropped.</p>'
    rows = [[reason, f"{count:,}"] for reason, count in sorted(dropped.items(), key=lambda pair: -pair[1])]
    return _table(["dropped because", "documents"], rows, numbers=(1,))


def section(title: str, body: str, note: str = "", *, grid: bool = False) -> str:
    """Returns a section with a title; `body` is HTML, `title` and `note` are text."""
    caption = f'<p class="note">{_text(note)}</p>' if note else '<p class="note"></p>'
    return f"<section><h2>{_text(title)}</h2>{caption}{f'<div class=grid>{body}</div>' if grid else body}</section>"


def _dot(number: int, runs: Sequence[Run]) -> str:
    """Returns a dot in the colour of the run; "" for a single run."""
    if len(runs) == 1:
        return ""
    return f'<span class="dot" style="background:var(--{style.run_colour(number)})"></span>'


def run_label(run: Run, number: int, runs: Sequence[Run]) -> Markup:
    """Returns the name of a run, with a dot in its colour if there are several runs."""
    return Markup(f"<span>{_dot(number, runs)}{_text(run.name)}</span>")


def _devices(start: Mapping[str, Any]) -> str:
    processes = f", {start['processes']} processes" if start.get("processes", 1) > 1 else ""
    return f"{start['devices']} × {start['device_kind']}{processes}"


def _setting(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _count(value: float) -> str:
    """Formats a number: `1.5 million`."""
    for unit, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
