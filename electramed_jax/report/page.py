"""The page: sections of HTML around the figures. Nothing is fetched from anywhere when it is opened."""

from __future__ import annotations

import datetime
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common import step_timer
from electramed_jax.config.pretrain import to_dict
from electramed_jax.pretrain.workdir import changed_settings
from electramed_jax.report import reference_curves, style
from electramed_jax.report.run import Run

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Markup(str):
    """HTML already, where other strings are text."""


def whole(runs: Sequence[Run], sections: Iterable[str]) -> str:
    """The finished page."""
    names = ", ".join(run.name for run in runs)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{_text(names)} · training report</title><style>{style.CSS}</style></head><body><main>",
            f"<h1>{_text(names)}</h1>",
            f'<p class="note">Training report of electramed_jax {__version__}, {now}.</p>',
            *sections,
            "</main></body></html>",
        ]
    )


def overview(runs: Sequence[Run]) -> str:
    """A card a run: how far, how good, how fast."""
    shape = "card" if len(runs) > 1 else "card wide"
    return f'<div class="grid">{"".join(_run_card(run, number, shape) for number, run in enumerate(runs))}</div>'


def alerts(runs: Sequence[Run]) -> str:
    """A card a kind of alert of a run: when it was first raised, and when again."""
    cards = []
    for number, run in enumerate(runs):
        kinds = {alert.kind: [one for one in run.alerts if one.kind == alert.kind] for alert in run.alerts}
        for alert, *later in kinds.values():
            steps = ", ".join(f"{one.step:,}" for one in later)
            again = f'<p class="note">Again at step {steps}.</p>' if later else ""
            cards.append(
                f'<div class="card alert"><h3>{_dot(number, runs)}Step {alert.step:,}: {_text(alert.observation)}</h3>'
                f"<p>{_text(_sentence(alert.explanation))}</p><p><b>Try</b> {_text(alert.suggestion)}.</p>{again}</div>"
            )
    if not cards:
        cards = ['<div class="card calm">Nothing to report: no figure was off what a healthy run shows.</div>']
    return section("Sanity watch", "".join(cards), grid=True)


def curves(title: str, note: str, figures: Iterable[str]) -> str:
    cards = "".join(f'<figure class="card">{figure}</figure>' for figure in figures)
    return section(title, cards, note, grid=True)


def learning_note(runs: Sequence[Run]) -> str:
    found = {one.name: one.source for run in runs if (one := reference_curves.for_config(run.config))}
    bands = "; ".join(f"{name}: {source}" for name, source in found.items())
    said = "Thin: training, averaged between entries. Thick: validation, the same masked tokens every time."
    said += " The plunge of the first steps may be cut off."
    if not bands:
        return said
    return f"{said} Green band: where healthy runs were after as many tokens ({bands})."


def speed(runs: Sequence[Run], figures: Iterable[str]) -> str:
    cards = "".join(f'<figure class="card">{figure}</figure>' for figure in figures)
    rows = [
        [named(run, number, runs), f"{start['step']:,}", start["time"].replace("T", " ")[:16], _devices(start)]
        for number, run in enumerate(runs)
        for start in run.history.starts
    ]
    table = _table(["run", "from step", "at (UTC)", "on"], rows, numbers=(1,))
    card = f'<div class="card wide scroll"><h3>Starts</h3>{table}</div>' if rows else ""
    note = "Compilation, evaluation and saving are not in these figures. Dotted: the run went on after a stop."
    return section("Speed", cards + card, note, grid=True)


def data(runs: Sequence[Run], figure: str) -> str:
    """What each run was trained on."""
    cards = [f'<figure class="card">{figure}</figure>']
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
        seen = run.history.tokens() / max(1, manifest.splits["train"].tokens)
        files = f"{len(manifest.sources):,} source file{'' if len(manifest.sources) == 1 else 's'}"
        cards.append(
            f'<div class="card two scroll"><h3>{named(run, number, runs)}</h3>{table}'
            f'<p class="note">{files}, vocabulary of {manifest.vocab_size:,}, rows of {manifest.row_length}, '
            f"{'lower-cased' if manifest.lower_case else 'cased'}; {seen:.2f} epochs so far</p>"
            f"{_dropped(manifest.dropped)}</div>"
        )
    return section("Data", "".join(cards), grid=True)


def settings(runs: Sequence[Run]) -> str:
    """What differs between the runs, and every setting of each."""
    parts = []
    if len(runs) > 1:
        rows = []
        configs = [to_dict(run.config) for run in runs]
        names = sorted(
            {line.split(":")[0] for run in runs[1:] for line in changed_settings(runs[0].config, run.config)}
        )
        for name in names:
            rows.append([name, *(json.dumps(_at(config, name)) for config in configs)])
        head = ["setting", *(named(run, number, runs) for number, run in enumerate(runs))]
        table = _table(head, rows) if rows else "<p>The settings are the same.</p>"
        parts.append(f'<div class="card scroll"><h3>What differs</h3>{table}</div>')
    for number, run in enumerate(runs):
        text = _text(json.dumps(to_dict(run.config), indent=1, ensure_ascii=False))
        parts.append(
            f"<details><summary>{named(run, number, runs)}: every setting</summary><pre>{text}</pre></details>"
        )
    return section("Settings", "".join(parts))


def compiled(runs: Sequence[Run]) -> str:
    """What `electramed compile` found, where it was kept."""
    cards = []
    for number, run in enumerate(runs):
        if run.compiled is None:
            continue
        found = run.compiled
        rows = {
            "topology": f"{found['topology']}, {found['chips']} chips",
            "rows a chip": f"{found['rows_per_chip']:g} of {found['row_length']} tokens",
            "fits": "yes" if found["fits"] else "no",
            "memory at the peak": f"{found['peak_bytes'] / 2**30:.3g} of {found['available_bytes'] / 2**30:.2f} GiB",
        }
        if "estimated_step_seconds" in found:
            rows["a step, as the compiler estimates"] = f"{found['estimated_step_seconds'] * 1e3:.3g} ms"
        cards.append(f'<div class="card"><h3>{named(run, number, runs)}</h3>{_list(rows)}</div>')
    return section("Compiled ahead of time", "".join(cards), grid=True) if cards else ""


def downstream(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores of fine-tuned models, of results.json by the name of the workdir; nothing where there are none."""
    if not scores:
        return ""
    rows = []
    for name, found in scores.items():
        of_split = {split: values.get(found["primary"]) for split, values in found["scores"].items()}
        published = [f"{one['model']} {one['value']:.2f} ({one['metric']})" for one in found["published"]]
        rows.append(
            [
                name,
                found["primary"],
                *(_score(of_split.get(split), len(found["seeds"])) for split in ("dev", "test")),
                f"{len(found['seeds'])} of {found['seeds_wanted']}",
                f"{found['task']}: {found['variant']}",
                found["encoder"],
                ", ".join(published) or "none known",
            ]
        )
    head = ["fine-tuned in", "score", "dev", "test", "seeds", "corpus", "from", "published on the same files"]
    note = "Mean and standard deviation over the seeds; test by the checkpoint that dev chose, measured once."
    return section("Downstream", f'<div class="card wide scroll">{_table(head, rows, numbers=(2, 3, 4))}</div>', note)


def _score(value: Mapping[str, float] | None, seeds: int) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.2f}" + (f" ± {value['standard_deviation']:.2f}" if seeds > 1 else "")


def missing(title: Markup, reason: str) -> str:
    """In the place of what could not be shown."""
    return f'<div class="card"><h3>{title}</h3><p class="note">{_text(reason)}</p></div>'


def _run_card(run: Run, number: int, shape: str) -> str:
    past, config = run.history, run.config
    done = past.step / config.total_steps
    rows = {
        "step": f"{past.step:,} of {config.total_steps:,}",
        "tokens seen": _count(past.tokens()),
        "time on steps": step_timer.format_duration(past.seconds()),
    }
    if hours := past.device_hours():
        rows["devices"] = ", ".join(f"{count} × {kind}" for kind, count in hours)
        used = sum(hours.values())
        rows["device hours"] = f"{used:,.0f}" if used >= 100 else f"{used:.2g}"
    for name, label, form in (
        ("loss", "loss", "{:.3f}"),
        ("generator_loss", "generator loss", "{:.3f}"),
        ("generator_accuracy", "generator accuracy", "{:.1%}"),
        ("discriminator_auc", "discriminator AUC", "{:.3f}"),
        ("discriminator_recall", "recall", "{:.1%}"),
        ("tokens_per_second", "tokens a second", "{:,.0f}"),
        ("eta_seconds", "left, at this speed", ""),
    ):
        value = run.last(name)
        if value is not None:
            rows[label] = form.format(value) if form else step_timer.format_duration(value)
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
    """`body` is HTML."""
    said = f'<p class="note">{_text(note)}</p>' if note else '<p class="note"></p>'
    return f"<section><h2>{_text(title)}</h2>{said}{f'<div class=grid>{body}</div>' if grid else body}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        made = (
            f"<{tag}{' class=n' if place in right else ''}>{_text(cell)}</{tag}>" for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(made)}</tr>"

    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def _list(rows: Mapping[str, str]) -> str:
    pairs = (f"<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>" for label, value in rows.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _dot(number: int, runs: Sequence[Run]) -> str:
    """Whose it is, where there are several."""
    if len(runs) == 1:
        return ""
    return f'<span class="dot" style="background:var(--{style.run_colour(number)})"></span>'


def named(run: Run, number: int, runs: Sequence[Run]) -> Markup:
    """A run's name, with its colour before it where there are several."""
    return Markup(f"<span>{_dot(number, runs)}{_text(run.name)}</span>")


def _devices(start: Mapping[str, Any]) -> str:
    processes = f", {start['processes']} processes" if start["processes"] > 1 else ""
    return f"{start['devices']} × {start['device_kind']}{processes}"


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _count(value: float) -> str:
    for unit, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text(value: str) -> str:
    return value if isinstance(value, Markup) else html.escape(str(value))
