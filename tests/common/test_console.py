from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import threading

import pytest

from electramed_jax.common import console


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_a_log_tells_how_far_how_fast_and_how_long_still(clock, capsys):
    with console.progress(1300, "files", "reading", "documents") as advance:
        for _ in range(30):
            clock.now += 1
            advance(2, 60_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reading: 20 of 1,300 files, 60,000 documents/s, 10 min 40 s left",
        "reading: 40 of 1,300 files, 60,000 documents/s, 10 min 30 s left",
        "reading: 60 of 1,300 files, 60,000 documents/s, 10 min 20 s left",
        "reading: 60 files, 1,800,000 documents in 30.0 s",
    ]


def test_what_an_interrupted_run_had_done_does_not_flatter_the_rate_for_long(clock, capsys):
    with console.progress(1000, "files", "reading") as advance:
        advance(800)  # found done
        for _ in range(100):
            clock.now += 1
            advance(1)
    shown = capsys.readouterr().err.splitlines()
    assert "80.8 files/s" not in shown[-2] and "1.0 files/s, 1 min 40 s left" in shown[-2]


def test_without_a_total_nothing_is_said_of_what_is_left(clock, capsys):
    with console.progress(None, "rows", "checking") as advance:
        clock.now += 20
        advance(10)
    assert capsys.readouterr().err.splitlines()[0] == "checking: 10 rows, 0.5 rows/s"


def test_a_terminal_shows_a_bar_with_the_same_figures(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    with console.progress(4, "files", "reading", "documents") as advance:
        clock.now += 2
        advance(1, 500)
    shown = capsys.readouterr().err
    assert "1/4" in shown and "250 documents/s, 6 s left" in shown


def test_a_log_of_a_transfer_tells_files_bytes_rate_and_the_time_left(capsys, monkeypatch):
    times = iter([0.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with console.transfer(3, 300_000_000, "downloading") as transfer:
        transfer.advance(100_000_000)
    line = "downloading: 0 of 3 files, 100.0 of 300.0 MB, 5.0 MB/s, 40 s left"
    assert capsys.readouterr().err.splitlines() == [line]


def test_the_total_of_a_transfer_is_mended_by_each_file_that_ends(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with console.transfer(2, 2_000_000, "downloading") as transfer:
        transfer.advance(1_500_000)
        transfer.file_done(expected_bytes=1_000_000, arrived_bytes=1_500_000)
    assert "1 of 2 files, 1.5 of 2.5 MB" in capsys.readouterr().err.splitlines()[-1]


def test_bytes_that_several_threads_count_are_all_counted():
    with console.transfer(1, 0, "downloading") as transfer:
        threads = [threading.Thread(target=lambda: [transfer.advance(1) for _ in range(5_000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert transfer.bytes_done == 20_000


def test_a_terminal_shows_a_bar_and_lines_above_it(monkeypatch):
    ours, theirs = pty.openpty()
    with io.TextIOWrapper(os.fdopen(theirs, "wb", buffering=0), write_through=True) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with console.transfer(2, 2_000_000, "downloading") as transfer:
            transfer.advance(1_000_000)
            console.say("a line between")
            transfer.file_done(1_000_000, 1_000_000)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal whose other side is closed
        while read := os.read(ours, 1 << 16):
            shown += read
    os.close(ours)
    shown = shown.decode()
    assert "1/2 files" in shown and "1.0/2.0 MB" in shown
    assert "a line between\r\n" in shown
