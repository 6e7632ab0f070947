"""List of the examples that a fine-tuned model got wrong, gold and predicted parts marked; errors.js filters it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from electramed_jax.common.page.markup import Markup, text
from electramed_jax.finetune.analysis import errors
from electramed_jax.finetune.analysis.score_sums import Record

MAX_SHOWN = 1000  # examples of a model on the page
FOUND, MISSED, SPURIOUS = "swap found", "swap missed", "swap false"  # classes of the style sheet
LEGEND = ((FOUND, "gold and predicted"), (MISSED, "gold, not predicted"), (SPURIOUS, "predicted, not gold"))


class WrongExample(NamedTuple):
    """An example with an error.

    Attributes:
      kinds: of its errors, as `electramed errors` names them.
      place: "line 3".
      body: its text, with marks.
    """

    kinds: tuple[str, ...]
    place: str
    body: Markup


def wrong_examples(kind: str, records: Iterable[Record]) -> list[WrongExample]:
    """Returns the examples with an error in the order of the file; numbers by their distance, the largest first."""
    if kind == "similarity":
        records = sorted(records, key=lambda record: -abs(record["gold"][0] - record["predicted"][0]))
    wrong = []
    for record in records:
        found = list(errors.list_errors(kind, [record]))
        if found:
            kinds = tuple(dict.fromkeys(name for name, _, _ in found))
            wrong.append(WrongExample(kinds, found[0][1], _body(kind, record)))
    return wrong


def _body(kind: str, record: Record) -> Markup:
    if kind == "ner":
        return _marked_words(record)
    if kind == "qa":
        predicted = record["predicted"]
        got = [predicted] if isinstance(predicted, str) else predicted
        return Markup(
            f"{text(record['question'])}<br>{_marked(record['gold'] or ['no answer'], [g for g in got if g])}"
        )
    shown = " / ".join(text(record[name]) for name in ("text", "second") if name in record)
    gold, predicted = ([_label(one) for one in record[side]] for side in ("gold", "predicted"))
    return Markup(f"{shown}<br>{_marked(gold, predicted)}")


def _label(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _marked(gold: Sequence[str], predicted: Sequence[str]) -> str:
    """Returns labels or answers, each with the mark of `LEGEND`."""
    marks = [(FOUND if one in predicted else MISSED, one) for one in gold]
    marks += [(SPURIOUS, one) for one in predicted if one not in gold]
    return " ".join(f'<span class="{name}">{text(one)}</span>' for name, one in marks) or "no label"


def _marked_words(record: Record) -> Markup:
    """Returns a sentence; each run of words that is gold, predicted or both is marked with its types."""
    gold, predicted = (_entity_of_words(record, side) for side in ("gold", "predicted"))
    parts = []
    runs = itertools.groupby(zip(record["words"], gold, predicted, strict=True), key=lambda word: word[1:])
    for (of_gold, of_predicted), run in runs:
        words = text(" ".join(word for word, _, _ in run))
        if of_gold is None and of_predicted is None:
            parts.append(words)
            continue
        types = [entity[2] for entity in (of_gold, of_predicted) if entity is not None]
        name = FOUND if len(types) == 2 and len(set(types)) == 1 else MISSED if of_gold else SPURIOUS
        shown = text(" → ".join(dict.fromkeys(types)))
        parts.append(f'<span class="{name}">{words}<small>{shown}</small></span>')
    return Markup(" ".join(parts))


def _entity_of_words(record: Record, side: str) -> list[tuple[int, int, str] | None]:
    """Returns the entity (start, stop, type) of each word, or None."""
    owners: list[tuple[int, int, str] | None] = [None] * len(record["words"])
    for start, stop, kind in record[side]:
        owners[start:stop] = [(start, stop, kind)] * (stop - start)
    return owners


def render(wrong: Sequence[WrongExample], total: int, title: str) -> Markup:
    """Returns the list with a search box and a choice of the kind of error.

    Args:
      wrong: from `wrong_examples`.
      total: number of examples, with and without errors.
      title: of the list, text.
    """
    counts = Counter(name for example in wrong for name in example.kinds)
    kinds = [name for name, _ in counts.most_common()]
    options = "".join(
        f'<option value="{number}">{text(name)} ({counts[name]:,})</option>' for number, name in enumerate(kinds)
    )
    shown = wrong[:MAX_SHOWN]
    note = f"{len(wrong):,} of {total:,} examples have an error"
    note += (
        f"; the first {MAX_SHOWN:,} of them are listed, electramed errors lists all." if len(wrong) > MAX_SHOWN else "."
    )
    legend = "".join(f'<span><span class="{name}">word</span> {meaning}</span>' for name, meaning in LEGEND)
    items = "".join(_item(example, kinds) for example in shown)
    return Markup(
        f'<div class="card wide" data-errors><h3>{text(title)}</h3><p class="note">{note}</p>'
        f'<div class="key">{legend}</div>'
        f'<form class="key controls" aria-label="Filter: {text(title)}">'
        '<label>find <input type="search" name="words" autocomplete="off"></label>'
        f'<label>kind <select name="kind"><option value="">all kinds</option>{options}</select></label>'
        f'<output aria-live="polite">{len(shown):,} shown</output></form>'
        f'<ol class="errors" tabindex="0" aria-label="{text(title)}">{items}</ol></div>'
    )


def _item(example: WrongExample, kinds: Sequence[str]) -> str:
    numbers = " ".join(str(kinds.index(name)) for name in example.kinds)
    place = text(f"{example.place}: {', '.join(example.kinds)}")
    return f'<li data-kinds="{numbers}"><div class="note">{place}</div><div>{example.body}</div></li>'
