"""Tests of Ctrl-C in a terminal with a live display."""

from __future__ import annotations

import os
import pty
import signal
import sys

import pytest

from electramed_jax.common.processes import signals

HIDE_CURSOR = "\033[?25l"
PROGRAM = """
import atexit, os, signal, sys, time
from electramed_jax import cli
from electramed_jax.commands import inspect
from electramed_jax.common import console

def run(args):
    with console.progress(2, "files", "reading"):
        try:
            print("READY", flush=True)
            time.sleep(60)
        finally:
            if args.path == "slow-to-end":
                print("ENDING", flush=True)
                time.sleep(60)

inspect.run = run
atexit.register(os.kill, os.getpid(), signal.SIGSEGV)  # as XLA's threads do
sys.argv[1:] = ["inspect", sys.argv[1]]
cli.program()
"""


def press_ctrl_c(case: str, *after: str) -> tuple[int, str]:
    """Returns exit code and output of a command in a terminal; sends Ctrl-C when it has printed each of `after`."""
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, case])
    screen, pending = b"", [word.encode() for word in after]
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        screen += piece
        if not piece:
            break
        if pending and pending[0] in screen:
            os.write(terminal, b"\x03")
            pending.pop(0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), screen.decode()


def test_ctrl_c_ends_a_command_with_one_line_130_and_the_cursor_shown():
    code, screen = press_ctrl_c("x", "READY")
    assert code == 130
    assert screen.count("electramed inspect: interrupted; run the same command again to resume") == 1
    assert "Traceback" not in screen
    assert screen.rindex(signals.SHOW_CURSOR) > screen.rindex(HIDE_CURSOR)


def test_a_second_ctrl_c_ends_at_once_with_the_cursor_shown():
    code, screen = press_ctrl_c("slow-to-end", "READY", "ENDING")
    assert code == 130
    assert "interrupted again: exiting at once" in screen and "Traceback" not in screen
    assert screen.rindex(signals.SHOW_CURSOR) > screen.rindex(HIDE_CURSOR)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_ctrl_c_stays_ignored_under_nohup_and_in_the_background(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        signals.handle_sigint()
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)
