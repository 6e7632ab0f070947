"""Writes launch/tpu_slices.txt, the table of slices that the launchers read, from electramed_jax/aot/chips.py.

python tests/support/tpu_slices.py          # after a change of chips.py; a test compares
"""

from __future__ import annotations

import pathlib

from electramed_jax.aot import chips

TABLE = pathlib.Path(__file__).resolve().parents[2] / "launch" / "tpu_slices.txt"
CHIPS_PER_HOST = 4
HEADER = """\
# TPU slices, one a line; generated from electramed_jax/aot/chips.py by tests/support/tpu_slices.py. hosts: machines of
# four chips. placement: what a GKE node pool of several hosts takes. "-": the API does not have this generation.
"""
COLUMNS = (
    *("topology", "chips", "hosts", "accelerator_type", "runtime", "machine", "image_family", "gke_accelerator"),
    "placement",
)


def table() -> str:
    """Returns the text of the table, in aligned columns."""
    rows = [(f"# {COLUMNS[0]}", *COLUMNS[1:])]
    for chip in chips.CHIPS.values():
        for shape in chip.shapes:
            count = chips.chip_count(shape)
            per_host = min(count, CHIPS_PER_HOST)
            rows.append(
                (
                    *(f"{chip.name}:{shape}", str(count), str(count // per_host), chip.accelerator_type(shape)),
                    *(chip.runtime, chip.machine, chip.image_family, chip.gke_accelerator),
                    "policy" if chip.needs_placement_policy else "topology",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
