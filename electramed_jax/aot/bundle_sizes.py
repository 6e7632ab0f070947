"""How long the machine code of a program's parts is, from what libtpu writes down while it compiles.

A TPU's core starts one bundle of instructions a cycle, in an order that the compiler has fixed: the bundles of
straight-line code are its cycles, but for waits for memory. The compiled program's text has an estimate for each of
XLA's own fusions and none for a hand-written kernel; here are the kernels' bundles.
"""

from __future__ import annotations

import atexit
import pathlib
import re
import shutil
import tempfile

_LABEL = "final_hlo-static-per-bundle-utilization"
_FILE = re.compile(rf"\d+-(?P<name>.+)-\d+-{_LABEL}\.txt")


class Schedules:
    """A folder that libtpu writes to, of this process; gone when it ends."""

    def __init__(self) -> None:
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="electramed-schedules-"))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def flags(self) -> str:
        """For LIBTPU_INIT_ARGS."""
        return (
            f"--xla_jf_dump_to={self._folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex={_LABEL}"
        )

    def take(self) -> dict[str, int]:
        """Bundles by instruction of what was compiled since the last call."""
        found = {}
        for path in self._folder.iterdir():
            if named := _FILE.fullmatch(path.name):
                found[named["name"]] = _lines_after(path.read_text(), "== UTILIZATION:")
            path.unlink()
        return found


def _lines_after(text: str, heading: str) -> int:
    """Of a table with a line for every bundle."""
    return len(text.partition(heading)[2].split("\n")) - 2
