"""Starts several processes that train together on virtual CPU devices, like the hosts of a TPU pod."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import quick_run

RECORDED_RUN = pathlib.Path(__file__).with_name("recorded_run.py")


class Process:
    """A started process and its output so far.

    Attributes:
      popen: the process.
      lines: lines of standard error.
      stdout: standard output, once the process has ended.
    """

    def __init__(self, popen: subprocess.Popen):
        self.popen, self.lines, self.stdout = popen, [], ""
        self._new_lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_stderr, self._read_stdout)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, *beginnings: str, seconds: float = 400) -> str:
        """Returns the next line of standard error that begins with one of `beginnings`; fails after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._new_lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line {beginnings} within {seconds} s; standard error:\n{self.stderr}")
            if line.startswith(beginnings):
                return line

    def wait(self, seconds: float = 400) -> int:
        """Waits for the end of the process and of its output; returns the exit code."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join()
        return code

    @property
    def stderr(self) -> str:
        """Standard error so far."""
        return "".join(self.lines)

    def _read_stderr(self) -> None:
        for line in self.popen.stderr:
            self.lines.append(line)
            self._new_lines.put(line)
        self._new_lines.put(None)

    def _read_stdout(self) -> None:
        self.stdout = self.popen.stdout.read()


@contextlib.contextmanager
def start_processes(count: int, devices: int, *arguments: object, program: object = None) -> Iterator[list[Process]]:
    """Starts `count` processes of one run with `devices` devices each; kills the remaining ones after the block.

    "{process}" in an argument is replaced by the number of the process.
    """
    environment = {}
    if count > 1:
        environment = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    processes = []
    try:
        for number in range(count):
            own = environment | ({"JAX_PROCESS_ID": str(number)} if count > 1 else {})
            words = [str(argument).replace("{process}", str(number)) for argument in arguments]
            popen = quick_run.start(*words, devices=devices, program=program, **own)
            processes.append(Process(popen))
        yield processes
    finally:
        for process in processes:
            process.popen.kill()
            process.wait()


def free_port() -> int:
    """Returns a TCP port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Record:
    """The batches of a run, written by `recorded_run.py`.

    Attributes:
      rows: {step: digests of the rows of the global batch, in order}; steps start at 1.
      read: {step: number of rows that each process read}.
    """

    rows: dict[int, list[str]]
    read: dict[int, list[int]]


def record_of(folder: pathlib.Path) -> Record:
    """Merges the files that the processes wrote into `folder`; fails if two of them differ in a row."""
    rows, read = {}, {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            read.setdefault(entry["step"], []).append(len(entry["rows"]))
            batch = rows.setdefault(entry["step"], {})
            for place, digest in entry["rows"].items():
                assert batch.setdefault(int(place), digest) == digest, f"two hosts differ in row {place} of {entry}"
    assert all(sorted(batch) == list(range(len(batch))) for batch in rows.values())
    return Record({step: [batch[i] for i in sorted(batch)] for step, batch in sorted(rows.items())}, read)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns {step: training loss} of the logged steps."""
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if entry["split"] == "train"}
