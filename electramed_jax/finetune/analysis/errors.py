"""The errors of a fine-tuned model on a split: counts by kind, then the examples themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown
from electramed_jax.finetune.analysis.score_sums import Record

MISSED, SPURIOUS, WRONG_TYPE, WRONG_BORDER = ENTITY_ERRORS = ("missed", "spurious", "wrong type", "wrong border")
_QUESTION_SCORES = ("exact_match", "strict_accuracy", "f1")  # the first that a question has
_SHOWN = 300  # characters of a text

Entity = tuple[int, int, str]  # words start .. stop-1, type


def to_markdown(kind: str, records: Sequence[Record], title: str, limit: int) -> str:
    """Returns the counts of the errors and at most `limit` examples of each kind of error.

    Args:
      kind: value of config.task.kind.
    """
    found = list(list_errors(kind, records))
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for name, place, what in found:
        by_kind.setdefault(name, []).append((place, what))
    wrong = len({place for _, place, _ in found})
    lines = [f"# {markdown.escape(title)}", "", f"{wrong:,} of {len(records):,} examples have an error.", ""]
    counts = sorted(by_kind.items(), key=lambda entry: -len(entry[1]))
    lines.append(markdown.table(["error", "count"], [[name, len(errors)] for name, errors in counts]))
    for name, errors in counts:
        shown = f", the first {limit} of them" if len(errors) > limit else ""
        lines += ["", f"## {markdown.escape(name)} ({len(errors):,}{shown})", ""]
        lines += [f"- {markdown.escape(place)}: {markdown.escape(what)}" for place, what in errors[:limit]]
    return "\n".join(lines) + "\n"


def list_errors(kind: str, records: Iterable[Record]) -> Iterable[tuple[str, str, str]]:
    """Yields (kind of the error, place of the example, what was wanted and predicted)."""
    for record in records:
        place = f"line {record['line']}" if "line" in record else f"question {record['id']}"
        if kind == "ner":
            for name, what in _entity_errors(record):
                yield name, place, what
        elif kind == "qa":
            score = next(record[name] for name in _QUESTION_SCORES if name in record)
            if score < 100:
                predicted = record["predicted"]
                shown = predicted if isinstance(predicted, str) else "; ".join(predicted)
                wanted = "; ".join(record["gold"]) or "no answer"
                yield "wrong answer", place, f"{record['question']} Wanted {wanted}; got {shown or 'no answer'}"
        elif kind == "similarity":
            (wanted,), (got,) = record["gold"], record["predicted"]
            yield _size(abs(wanted - got)), place, f"wanted {wanted:g}, got {got:.2f}: {_texts(record)}"
        elif sorted(record["gold"]) != sorted(record["predicted"]):
            wanted, got = (", ".join(record[side]) or "no label" for side in ("gold", "predicted"))
            yield f"{wanted} predicted as {got}", place, _texts(record)


def _entity_errors(record: Record) -> Iterable[tuple[str, str]]:
    """Yields (kind, text) for each error of `pair_entities`."""
    for gold, predicted in pair_entities(record):
        if gold and predicted:
            got = f"got {predicted[2]} {' '.join(record['words'][predicted[0] : predicted[1]])!r}"
            yield WRONG_TYPE if predicted[:2] == gold[:2] else WRONG_BORDER, f"{_in_context(record, gold)}; {got}"
        elif gold:
            yield MISSED, _in_context(record, gold)
        elif predicted:
            yield SPURIOUS, _in_context(record, predicted)


def pair_entities(record: Record) -> Iterable[tuple[Entity | None, Entity | None]]:
    """Yields (gold, predicted) for each entity that is gold or predicted but not both.

    Two entities that share a word are one error: of the type, or of a border. One side of the others is None.
    """
    gold, predicted = ([_entity(one) for one in record[side]] for side in ("gold", "predicted"))
    spurious = [entity for entity in predicted if entity not in gold]
    for entity in (entity for entity in gold if entity not in predicted):
        partner = next((one for one in spurious if one[0] < entity[1] and entity[0] < one[1]), None)
        if partner is not None:
            spurious.remove(partner)
        yield entity, partner
    for entity in spurious:
        yield None, entity


def _entity(value: Sequence[Any]) -> Entity:
    start, stop, kind = value
    return start, stop, kind


def _in_context(record: Record, entity: Sequence[Any]) -> str:
    start, stop, kind = entity
    words = record["words"]
    before, after = words[max(0, start - 6) : start], words[stop : stop + 6]
    return f"{kind} {' '.join(words[start:stop])!r} in: {' '.join([*before, '[', *words[start:stop], ']', *after])}"


def _texts(record: Mapping[str, Any]) -> str:
    text = " / ".join(record[name] for name in ("text", "second") if name in record)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _size(distance: float) -> str:
    return f"off by {int(distance)} to {int(distance) + 1}"
