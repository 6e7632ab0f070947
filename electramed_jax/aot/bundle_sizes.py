"""Reads the machine-code length of hand-written kernels from the files that libtpu dumps while it compiles.

A TPU core issues one bundle of instructions per cycle, in an order fixed by the compiler: the number of bundles of
straight-line code is its number of cycles, without waits for memory. The text of the compiled program has a cycle
estimate for each of XLA's own fusions but none for a hand-written kernel; the bundle counts fill this gap.
"""

from __future__ import annotations

import atexit
import pathlib
import re
import shutil
import tempfile

_PASS = "final_hlo-static-per-bundle-utilization"
_FILE = re.compile(rf"\d+-(?P<name>.+)-\d+-{_PASS}\.txt")


class BundleSizes:
    """A temporary folder for libtpu's dumps, deleted at exit of the process."""

    def __init__(self) -> None:
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="electramed-bundles-"))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def flags(self) -> str:
        """The flags for LIBTPU_INIT_ARGS that make libtpu write the dumps."""
        return f"--xla_jf_dump_to={self._folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex={_PASS}"

    def collect(self) -> dict[str, int]:
        """Returns the number of bundles by instruction for everything compiled since the last call."""
        sizes = {}
        for path in self._folder.iterdir():
            if match := _FILE.fullmatch(path.name):
                sizes[match["name"]] = _count_table_rows(path.read_text(), "== UTILIZATION:")
            path.unlink()
        return sizes


def _count_table_rows(text: str, heading: str) -> int:
    """Returns the number of rows of the table after `heading`; it has one row per bundle."""
    return len(text.partition(heading)[2].split("\n")) - 2
