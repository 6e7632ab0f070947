"""Labels of records: the one that means no relation, and label sets that are written as binary values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from electramed_jax.common.errors import UserError

# Usual names of the label that means no relation, in lower case. DDI-2013 in BLUE's form has "DDI-false".
NEGATIVES = ("false", "ddi-false", "none", "no_relation", "no relation", "na", "neg", "negative")
_SHOWN = 20  # labels named in an error
_BINARY = re.compile(r"(.+)_([01])")


def find_negative(labels: Sequence[str], wanted: str, path: str) -> str:
    """Returns the label that means no relation.

    Args:
      labels: labels of the training file.
      wanted: its whole name; "": it is the only label among `NEGATIVES`.
      path: of the training file, for messages.

    Raises:
      UserError: no label has the wanted name, or none or several have a usual one; names the labels.
    """
    names = ", ".join(labels[:_SHOWN]) + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")
    advice = (
        "name the label that means no relation with --config.text.negative=LABEL; for a corpus without such a label "
        "use --config.task.kind=classification"
    )
    if wanted:
        if wanted not in labels:
            raise UserError(
                f"{path}: no label is called {wanted!r} (config.text.negative); its labels are {names}; {advice}"
            )
        return wanted
    usual = [label for label in labels if label.casefold() in NEGATIVES]
    if len(usual) != 1:
        found = f"each of {', '.join(usual)} could mean" if usual else "none has a usual name for"
        raise UserError(f"{path}: its labels are {names}; {found} no relation; {advice}")
    return usual[0]


def is_binary_form(label_sets: Iterable[Sequence[str]]) -> bool:
    """Returns whether label sets are written as binary values, "0_0,1_1,2_0", as BLUE's and BLURB's HoC is.

    Every label is then NAME_0 or NAME_1, and at least one name has both values.
    """
    matches = [_BINARY.fullmatch(label) for label in {label for labels in label_sets for label in labels}]
    names = {value: {match[1] for match in matches if match and match[2] == value} for value in "01"}
    return all(matches) and bool(names["0"] & names["1"])


def binary_names(label_sets: Iterable[Sequence[str]]) -> list[str]:
    """Returns the names of binary values, sorted: ["0", "1", "2"] for "0_0,1_1,2_0"."""
    return sorted({label.rpartition("_")[0] for labels in label_sets for label in labels})


def positive_names(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns the names with the value 1: ["1"] for "0_0,1_1,2_0".

    Args:
      labels: of one record.
      names: from `binary_names`.

    Raises:
      ValueError: the record does not have exactly one value of every name.
    """
    values = [label.rpartition("_") for label in labels]
    if sorted(name for name, _, _ in values) != list(names) or any(value not in ("0", "1") for _, _, value in values):
        raise ValueError(f"{', '.join(labels) or 'none'} is not one value of each of {', '.join(names)}")
    return [name for name, _, value in values if value == "1"]


def looks_like_label_sets(labels: Sequence[str]) -> bool:
    """Returns whether every label is a list of binary values, "0_0,1_1", which `multilabel` reads."""
    return all("," in label and all(_BINARY.fullmatch(part.strip()) for part in label.split(",")) for label in labels)
