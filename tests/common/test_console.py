from __future__ import annotations

import contextlib
import io
import os
import pty
import sys
import threading

from electramed_jax.common import console


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
