"""Several processes that train together on virtual devices, as the hosts of a pod would."""

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
    """One of them, and what it has said so far."""

    def __init__(self, popen: subprocess.Popen):
        self.popen, self.lines, self.out = popen, [], ""
        self._news: queue.Queue[str | None] = queue.Queue()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_out)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, *beginnings: str, seconds: float = 120) -> str:
        """The next line of standard error that begins so; fails where it does not come."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._news.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line {beginnings} within {seconds} s; said:\n{self.said}")
            if line.startswith(beginnings):
                return line

    def ended(self, seconds: float = 120) -> int:
        """Its exit code, once it has one and everything it said is here."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join()
        return code

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def _read_lines(self) -> None:
        for line in self.popen.stderr:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)

    def _read_out(self) -> None:
        self.out = self.popen.stdout.read()


@contextlib.contextmanager
def started(count: int, devices: int, *arguments: object, program: object = None) -> Iterator[list[Process]]:
    """`count` processes of one run with `devices` each; none is left when the block ends."""
    environment = {}
    if count > 1:
        environment = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    processes = []
    try:
        for number in range(count):
            mine = environment | ({"JAX_PROCESS_ID": str(number)} if count > 1 else {})
            popen = quick_run.start(*arguments, devices=devices, program=program, **mine)
            processes.append(Process(popen))
        yield processes
    finally:
        for process in processes:
            process.popen.kill()
            process.ended()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Record:
    """What `recorded_run.py` noted of one run."""

    rows: dict[int, list[str]]  # by step (from 1): a digest of every row of the global batch, in order
    read: dict[int, list[int]]  # by step: how many rows each process read for it


def record_of(folder: pathlib.Path) -> Record:
    """Brings together what the processes noted in `folder`; fails where they contradict one another."""
    rows, read = {}, {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines():
            noted = json.loads(line)
            read.setdefault(noted["step"], []).append(len(noted["rows"]))
            batch = rows.setdefault(noted["step"], {})
            for place, digest in noted["rows"].items():
                assert batch.setdefault(int(place), digest) == digest, f"two hosts differ in row {place} of {noted}"
    assert all(sorted(batch) == list(range(len(batch))) for batch in rows.values())
    return Record({step: [batch[i] for i in sorted(batch)] for step, batch in sorted(rows.items())}, read)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """The training loss by step; of every step, where `log_every` is 1."""
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if entry["split"] == "train"}
