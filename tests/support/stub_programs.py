"""Stubs of the programs that launchers call: each records its arguments and then runs a given Python body.

`Programs(folder)` is a folder for PATH. `programs.add("kubectl", body)` adds a program with a body in Python; the body
reads its arguments from `words`, and a test reads them from `programs.calls("kubectl")`.
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
    """A folder of stub programs, and the log of their calls."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._log = folder / "calls.jsonl"
        self._log.touch()

    def add(self, name: str, body: str = "") -> None:
        """Adds or replaces a program with a body in Python."""
        program = self.folder / name
        program.write_text(PROGRAM.format(python=sys.executable, name=name, log=str(self._log), body=body))
        program.chmod(0o755)

    def calls(self, name: str | None = None) -> list[list[str]]:
        """Returns the arguments of each call of a program, oldest first; without `name`, of all, program name first."""
        calls = [json.loads(line) for line in self._log.read_text().splitlines()]
        return calls if name is None else [words for program, *words in calls if program == name]

    def environment(self, **settings: str) -> dict[str, str]:
        """Returns the environment of a launcher: the stubs first in PATH, and no variables but `settings`."""
        return {"PATH": f"{self.folder}:{SYSTEM_PATH}", "HOME": str(self.folder), **settings}

    def launch(self, script: str, *words: str, **settings: str) -> subprocess.CompletedProcess:
        """Runs `launch/SCRIPT` to its end."""
        command = [str(REPOSITORY / "launch" / script), *words]
        return subprocess.run(
            command, check=False, env=self.environment(**settings), capture_output=True, text=True, timeout=60
        )

    @contextlib.contextmanager
    def start(self, script: str, *words: str, **settings: str) -> Iterator[subprocess.Popen]:
        """Starts `launch/SCRIPT` with both outputs in one pipe; kills it after the block if it still runs."""
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
