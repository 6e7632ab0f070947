"""Stand-ins for the programs that launchers call: each writes down how it was called, and answers as told.

`Programs(folder)` is a PATH of its own; `programs.add("kubectl", "...")` puts a program there whose body is Python, with the
words it was called with in `words` and, from then on, in `programs.calls("kubectl")`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PROGRAM = """#!{python} -IS
import json, os, subprocess, sys, time
name, words = {name!r}, sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps([name, *words]) + "\\n")
{body}
"""


class Programs:
    """A folder of stand-ins, and what was asked of them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._log = folder / "calls.jsonl"
        self._log.touch()

    def add(self, name: str, body: str = "") -> None:
        program = self.folder / name
        program.write_text(PROGRAM.format(python=sys.executable, name=name, log=str(self._log), body=body))
        program.chmod(0o755)

    def calls(self, name: str | None = None) -> list[list[str]]:
        """The calls so far, oldest first; of one program without its name, else with it."""
        calls = [json.loads(line) for line in self._log.read_text().splitlines()]
        return calls if name is None else [words for program, *words in calls if program == name]

    def environment(self, **settings: str) -> dict[str, str]:
        """What a launcher sees: the stand-ins before the system's programs, and these settings alone."""
        return {"PATH": f"{self.folder}:{SYSTEM_PATH}", "HOME": str(self.folder), **settings}

    def launch(self, script: str, *words: str, **settings: str) -> subprocess.CompletedProcess:
        """Runs `launch/SCRIPT`."""
        command = [str(REPOSITORY / "launch" / script), *words]
        return subprocess.run(
            command, check=False, env=self.environment(**settings), capture_output=True, text=True, timeout=60
        )

    @contextlib.contextmanager
    def start(self, script: str, *words: str, **settings: str) -> Iterator[subprocess.Popen]:
        """`launch/SCRIPT` while it runs, its output in one pipe; killed where a test leaves it running."""
        command = [str(REPOSITORY / "launch" / script), *words]
        with subprocess.Popen(
            command,
            env=self.environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
