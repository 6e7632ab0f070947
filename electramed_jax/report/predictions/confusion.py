"""Confusion matrix of a fine-tuned model: gold labels in rows, predictions in columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from electramed_jax.common.page.markup import Markup, text
from electramed_jax.finetune.analysis import errors
from electramed_jax.finetune.analysis.score_sums import Record

NO_ENTITY, OTHER_BORDER, NO_LABEL = "no entity", "other border", "no label"
_MAX_SHADE = 45  # percentage of the colour behind a cell with all examples of its row: text stays readable
_LAST = (OTHER_BORDER, NO_ENTITY, NO_LABEL)  # after the labels, in this order

Counts = Counter[tuple[str, str]]  # (gold, predicted)


def count_pairs(kind: str, records: Iterable[Record]) -> Counts:
    """Returns the number of examples of each pair of a gold and a predicted label; empty for tasks without labels.

    An entity counts once: as found, as an entity of another type that shares a word with it, as one of its type with
    another border, or as missed. Of several labels of a text, those that are right are paired with themselves.

    Args:
      kind: value of config.task.kind.
      records: of `Task.records`.
    """
    pairs: Counts = Counter()
    if kind in ("qa", "similarity"):
        return pairs
    for record in records:
        pairs.update(_entity_pairs(record) if kind == "ner" else _label_pairs(record["gold"], record["predicted"]))
    return pairs


def _entity_pairs(record: Record) -> Iterable[tuple[str, str]]:
    predicted = [tuple(entity) for entity in record["predicted"]]
    for entity in map(tuple, record["gold"]):
        if entity in predicted:
            yield entity[2], entity[2]
    for gold, found in errors.pair_entities(record):
        if gold and found and gold[2] == found[2]:
            yield gold[2], OTHER_BORDER
        else:
            yield (gold[2] if gold else NO_ENTITY), (found[2] if found else NO_ENTITY)


def _label_pairs(gold: Sequence[str], predicted: Sequence[str]) -> Iterable[tuple[str, str]]:
    missed = [label for label in gold if label not in predicted]
    spurious = [label for label in predicted if label not in gold]
    yield from ((label, label) for label in gold if label in predicted)
    if len(missed) == len(spurious) == 1:
        yield missed[0], spurious[0]
        return
    yield from ((label, NO_LABEL) for label in missed)
    yield from ((NO_LABEL, label) for label in spurious)
    if not gold and not predicted:
        yield NO_LABEL, NO_LABEL


def render(pairs: Counts, title: str) -> Markup:
    """Returns the matrix as a table; a darker cell has a larger share of its row. `title` is text."""
    rows, columns = (_ordered({pair[side] for pair in pairs}, pairs) for side in (0, 1))
    head = "".join(f'<th scope="col" class="n">{text(column)}</th>' for column in columns)
    body = "".join(_row(row, columns, pairs) for row in rows)
    return Markup(
        f'<div class="card two scroll" tabindex="0" role="region" aria-label="{text(title)}">'
        f'<table class="matrix"><caption>{text(title)}</caption>'
        f'<thead><tr><th scope="col">gold&nbsp;↓ predicted&nbsp;→</th>{head}<th scope="col" class="n">all</th></tr>'
        "</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: str, columns: Sequence[str], pairs: Counts) -> str:
    total = sum(pairs[row, column] for column in columns)
    cells = "".join(_cell(row, column, pairs[row, column], total) for column in columns)
    return f'<tr><th scope="row">{text(row)}</th>{cells}<td class="n">{total:,}</td></tr>'


def _cell(row: str, column: str, count: int, total: int) -> str:
    if not count:
        return '<td class="n"></td>'
    colour = "good" if row == column else "bad"
    shade = f"background:color-mix(in srgb,var(--{colour}) {_MAX_SHADE * count / total:.0f}%,transparent)"
    return f'<td class="n" style="{shade}" title="{count / total:.1%} of {text(row)}">{count:,}</td>'


def _ordered(labels: Iterable[str], pairs: Counts) -> list[str]:
    """Returns the most frequent gold labels first, and what is no label last."""
    frequency: Counter[str] = Counter()
    for (gold, _), count in pairs.items():
        frequency[gold] += count
    return sorted(labels, key=lambda label: (label in _LAST and 1 + _LAST.index(label), -frequency[label], label))
