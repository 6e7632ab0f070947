from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import sys
import threading
from collections.abc import Callable

import pytest

from electramed_jax.common import console, progress_panel


class FakeClock:
    """A clock set by the test."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_a_log_shows_progress_rate_and_remaining_time(clock, capsys):
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


def test_work_done_before_the_start_does_not_count_in_the_rate_for_long(clock, capsys):
    with console.progress(1000, "files", "reading") as advance:
        advance(800)  # done by an earlier run
        for _ in range(100):
            clock.now += 1
            advance(1)
    shown = capsys.readouterr().err.splitlines()
    assert "80.8 files/s" not in shown[-2] and "1.0 files/s, 1 min 40 s left" in shown[-2]


def test_without_a_total_no_remaining_time_is_shown(clock, capsys):
    with console.progress(None, "rows", "checking") as advance:
        clock.now += 20
        advance(10)
    assert capsys.readouterr().err.splitlines()[0] == "checking: 10 rows, 0.5 rows/s"


def test_a_terminal_shows_a_bar_with_the_same_numbers(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    with console.progress(4, "files", "reading", "documents") as advance:
        clock.now += 2
        advance(1, 500)
    shown = capsys.readouterr().err
    assert "1/4" in shown and "250 documents/s, 6 s left" in shown


def test_a_log_of_a_transfer_shows_files_bytes_rate_and_remaining_time(capsys, monkeypatch):
    times = iter([0.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with console.transfer_progress(3, 300_000_000, "downloading") as transfer:
        transfer.advance(100_000_000)
    line = "downloading: 0 of 3 files, 100.0 of 300.0 MB, 5.0 MB/s, 40 s left"
    assert capsys.readouterr().err.splitlines() == [line]


def test_the_total_of_a_transfer_is_corrected_by_each_complete_file(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with console.transfer_progress(2, 2_000_000, "downloading") as transfer:
        transfer.advance(1_500_000)
        transfer.file_done(expected_bytes=1_000_000, arrived_bytes=1_500_000)
    assert "1 of 2 files, 1.5 of 2.5 MB" in capsys.readouterr().err.splitlines()[-1]


def test_bytes_that_several_threads_count_are_all_counted():
    with console.transfer_progress(1, 0, "downloading") as transfer:
        threads = [threading.Thread(target=lambda: [transfer.advance(1) for _ in range(5_000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert transfer.bytes_done == 20_000


@pytest.fixture
def render(monkeypatch) -> Callable[..., str]:
    """Returns the output of a function on a pseudo-terminal, with control sequences."""

    def call(function: Callable[[], None], columns: int = 120, **environment: str) -> str:
        ours, theirs = pty.openpty()
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        stream = os.fdopen(theirs, "wb", buffering=0)
        with (
            io.TextIOWrapper(stream, encoding="utf-8", write_through=True) as terminal,
            contextlib.redirect_stderr(terminal),
        ):
            function()
        shown = b""
        with contextlib.suppress(OSError):  # raised at the end of the output, when the other side is closed
            while read := os.read(ours, 1 << 16):
                shown += read
        os.close(ours)
        return shown.decode()

    monkeypatch.delenv("NO_COLOR", raising=False)
    return call


def test_a_terminal_shows_a_bar_and_lines_above_it(render):
    def work() -> None:
        with console.transfer_progress(2, 2_000_000, "downloading") as transfer:
            transfer.advance(1_000_000)
            console.say("a line between")
            transfer.file_done(1_000_000, 1_000_000)

    shown = render(work)
    assert "1/2 files" in shown and "1.0/2.0 MB" in shown
    assert "a line between\r\n" in shown


# ---- levels and colours --------------------------------------------------------------------------


def everything() -> None:
    console.detail("a detail")
    console.say("a message")
    console.warn("a warning")
    console.fail("an error")
    with console.progress(1, "files", "reading") as advance:
        advance(1)


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        (console.QUIET, ["a warning", "an error"]),
        (console.NORMAL, ["a message", "a warning", "an error", "reading: 1 files in 0.0 s"]),
        (console.VERBOSE, ["a detail", "a message", "a warning", "an error", "reading: 1 files in 0.0 s"]),
    ],
)
def test_warnings_and_errors_are_printed_at_every_level(level, wanted, clock, capsys):
    with console.at_level(level):
        everything()
    assert capsys.readouterr().err.splitlines() == wanted
    assert console.level() == console.NORMAL, "restored after the block"


def test_a_quiet_terminal_shows_no_bar(render):
    with console.at_level(console.QUIET):
        shown = render(everything)
    assert "reading" not in shown and "a warning" in shown


def test_a_terminal_that_cannot_draw_gets_lines(render):
    assert "reading: 1 files in" in render(everything, TERM="dumb")


COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|38;[0-9;]+)m")


def test_warnings_are_coloured_on_a_terminal_without_no_color_and_never_in_a_log(render, capsys):
    assert "\x1b[33ma warning\x1b[0m" in render(everything) and "\x1b[31man error" in render(everything)
    assert not COLOUR.search(render(everything, NO_COLOR="1"))
    everything()
    assert "\x1b" not in capsys.readouterr().err


# ---- a training run --------------------------------------------------------------------------------------------------


def train() -> None:
    with progress_panel.training_display("pretrain", 0, 300, ["loss", "discriminator_auc", "step_seconds"]) as live:
        for step in (1, 2, 3):
            live.set_step(step)
            metrics = {"loss": 40.0 / step, "step_seconds": 2.0, "tokens_per_second": 1234.0}
            live.log_metrics("train", step, metrics, f"step {step}  loss {40 / step}")
        with live.stage("validating"):
            console.say("between")
        live.log_metrics(
            "validation", 3, {"loss": 12.5, "discriminator_auc": 0.71234}, "validation at step 3: loss 12.5"
        )
        live.alert("alert at step 3: too bad")


def test_a_log_of_a_run_has_one_line_per_entry(capsys):
    train()
    lines = [f"step {step}  loss {40 / step}" for step in (1, 2, 3)]
    wanted = [*lines, "between", "validation at step 3: loss 12.5", "alert at step 3: too bad"]
    assert capsys.readouterr().err.splitlines() == wanted


def test_a_terminal_shows_the_newest_metrics_with_speed_and_remaining_time(render):
    shown = render(train)
    panel = shown[shown.rindex("pretrain") :]
    assert "3/300" in panel and "2.000 s/step   1,234 tokens/s   9 min 54 s left" in panel
    assert re.search(r"loss\S* +13.33 +12.5 +█▃▁", panel), "training, validation, the trend of the training"
    assert re.search(r"discriminator_auc +0.7123", panel)
    assert "1 alert so far" in panel


def test_validations_and_alerts_are_printed_above_the_panel_and_training_metrics_only_in_it(render):
    shown = render(train)
    assert "validation at step 3: loss 12.5\r\n" in shown and "alert at step 3: too bad" in shown
    assert "step 2  loss" not in shown
    with console.at_level(console.VERBOSE):
        assert "step 2  loss 20.0" in render(train)


def test_a_panel_on_a_narrow_terminal_leaves_trends_out_and_breaks_no_line(render):
    shown = render(train, columns=60)
    panel = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown[shown.rindex("pretrain") :])
    assert "█▃▁" not in panel and "13.33" in panel
    assert max(map(len, panel.splitlines())) <= 60


def test_a_run_that_ends_early_or_with_an_error_leaves_the_terminal_as_it_was(render):
    def fail() -> None:
        with contextlib.suppress(ValueError), progress_panel.training_display("pretrain", 0, 9, []):
            raise ValueError

    for work, stage in ((train, "stopped"), (fail, "compiling")):
        shown = render(work)
        assert stage in shown[shown.rindex("pretrain") :] and shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


# ---- text that is not ours -----------------------------------------------------------------------


@pytest.mark.parametrize("show", [console.say, console.warn, console.fail])
def test_control_characters_of_a_text_do_not_reach_the_terminal(show, capsys):
    """An article or a file name could clear the screen, change its colours, or write over an earlier line."""
    show("caf\u00e9 \x1b[2J\x1b]0;title\x07 \rover \x9b31m \x7f\x00 \u202eleft \ud800 \U0001f600")
    shown = capsys.readouterr().err
    assert shown == (
        r"caf\u00e9 \x1b[2J\x1b]0;title\x07 \rover \x9b31m \x7f\x00 \u202eleft \ud800 ".replace(r"\u00e9", "\u00e9")
        + "\U0001f600\n"
    )


def test_an_error_is_one_line_whatever_the_name_of_the_file_is(capsys):
    console.fail("electramed pack: a\nb.txt: no such file")
    assert capsys.readouterr().err == "electramed pack: a\\nb.txt: no such file\n"
