"""HTML of predictions: entities in their text, probabilities of labels, answers in their passage.

The served page and the files of `electramed predict --html` share it. A page loads nothing and runs no script: its
Content-Security-Policy allows the one style sheet in it, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common.page import style
from electramed_jax.common.page.markup import Markup, table, text
from electramed_jax.finetune.ner.entity_spans import EntitySpan

NUM_COLOURS = len(style.RUN_COLOURS)
_COLOURED = "".join(
    f".e{number}{{background:color-mix(in srgb,var(--{name}) 20%,var(--card));border-color:var(--{name})}}"
    for number, name in enumerate(style.RUN_COLOURS)
)
CSS = (
    style.CSS
    + """
.card{margin-top:14px}
.card h2{margin:0 0 8px}.card+.note{margin-top:14px}
.passage{white-space:pre-wrap;line-height:2;font-size:16px;margin:8px 0;unicode-bidi:isolate}
mark.e{color:var(--ink);border-radius:4px;padding:1px 4px;border-width:1.5px;border-style:solid;
 -webkit-box-decoration-break:clone;box-decoration-break:clone}
mark.e small{font-size:11px;margin-left:5px;white-space:nowrap}
.chip{display:inline-block;border-width:1.5px;border-style:solid;border-radius:4px;padding:0 6px}
meter{width:100%;min-width:80px;height:12px}
"""
    + _COLOURED
)


def policy(css: str) -> str:
    """Returns the Content-Security-Policy of a page with this style sheet alone."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'"


def page_start(title: str, css: str = CSS) -> Markup:
    """Returns the beginning of a page up to its heading."""
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(css)}">'
        f"<title>{text(title)}</title><style>{css}</style></head><body><main><h1>{text(title)}</h1>"
    )


def page_end() -> Markup:
    """Returns the end of a page."""
    return Markup(f'<p class="note">electramed_jax {__version__}</p></main></body></html>\n')


def card(title: str, body: Iterable[Markup]) -> Markup:
    """Returns a section with a heading; "" omits the heading."""
    heading = f"<h2>{text(title)}</h2>" if title else ""
    return Markup(f'<section class="card">{heading}{"".join(body)}</section>')


def note(content: str) -> Markup:
    """Returns a paragraph in small type."""
    return Markup(f'<p class="note">{text(content)}</p>')


def entities(passage: str, found: Sequence[EntitySpan], types: Sequence[str]) -> Markup:
    """Returns a text with its entities marked; `found` are sorted and do not overlap."""
    parts, place = [], 0
    for one in found:
        label = f"<small>{text(one.type)} {one.confidence:.2f}</small>"
        mention = text(passage[one.start : one.stop])
        parts.append(
            f'{text(passage[place : one.start])}<mark class="e {_colour(one.type, types)}">{mention}{label}</mark>'
        )
        place = one.stop
    return Markup(f'<div class="passage" dir="auto">{"".join(parts)}{text(passage[place:])}</div>')


def entity_legend(found: Iterable[EntitySpan], types: Sequence[str]) -> Markup:
    """Returns the types in their colours with the number of entities of each."""
    counts = dict.fromkeys(types, 0)
    for one in found:
        counts[one.type] = counts.get(one.type, 0) + 1
    chips = (
        f'<span><span class="chip {_colour(kind, types)}">{text(kind)}</span> {count:,}</span>'
        for kind, count in counts.items()
    )
    return Markup(f'<div class="key">{"".join(chips)}</div>')


def entity_table(passage: str, found: Sequence[EntitySpan]) -> Markup:
    """Returns a table of the entities with their characters; a sentence if there is none."""
    if not found:
        return note("No entity was found.")
    rows = [
        [passage[one.start : one.stop], one.type, f"{one.confidence:.3f}", f"{one.start:,}", f"{one.stop:,}"]
        for one in found
    ]
    head = ["entity", "type", "score", "start", "end"]
    return Markup(f'<div class="scroll" tabindex="0">{table(head, rows, numbers=(2, 3, 4))}</div>')


def labels(prediction: Mapping[str, Any]) -> Markup:
    """Returns the label, labels or score of a text, as `Predictor.labels` predicts them, with all probabilities."""
    if "score" in prediction:
        return Markup(f"<p>score <b>{float(prediction['score']):.4f}</b></p>")
    chosen = prediction.get("labels", [prediction.get("label")])
    title = ", ".join(map(str, chosen)) or "no label"
    ranked = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])
    rows = [
        [Markup(f"<b>{text(name)}</b>") if name in chosen else str(name), _meter(str(name), value), f"{value:.4f}"]
        for name, value in ranked
    ]
    cut = note("The text was too long: only a part of it was read.") if prediction.get("cut") else ""
    return Markup(f"<p><b>{text(title)}</b></p>{table(['label', 'probability', ''], rows, numbers=(2,))}{cut}")


def answers(context: str, answer: str, candidates: Sequence[Mapping[str, Any]]) -> Markup:
    """Returns the passage with its best answer marked, and a table of the candidates.

    Args:
      answer: the predicted answer; "": the passage does not contain one.
      candidates: {"text", "start", "end", "probability"} of each, best first.
    """
    marked = [EntitySpan(best["start"], best["end"], "answer", best["probability"]) for best in candidates[:1]]
    passage = entities(context, marked if answer else [], ("answer",))
    rows = [
        [
            one["text"],
            _meter(one["text"], one["probability"]),
            f"{one['probability']:.4f}",
            f"{one['start']:,}",
            f"{one['end']:,}",
        ]
        for one in candidates
    ]
    head = ["candidate", "probability", "", "start", "end"]
    title = Markup(f"<b>{text(answer)}</b>") if answer else "No answer in this passage."
    return Markup(
        f'<p>{title}</p>{passage}<div class="scroll" tabindex="0">{table(head, rows, numbers=(2, 3, 4))}</div>'
    )


def _meter(name: str, value: float) -> Markup:
    return Markup(f'<meter min="0" max="1" value="{value:.4f}" aria-label="{text(name)}">{value:.2f}</meter>')


def _colour(kind: str, types: Sequence[str]) -> str:
    return f"e{(types.index(kind) if kind in types else 0) % NUM_COLOURS}"
