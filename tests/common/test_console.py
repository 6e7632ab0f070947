from __future__ import annotations

import sys

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
