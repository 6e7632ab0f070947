"""Tests of preemption: SIGTERM from startup on, and the end of the grace period."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from electramed_jax.common.processes import signals
from electramed_jax.common.processes.preemption import Preemption


@pytest.fixture(autouse=True)
def _restore_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def send_sigterm() -> None:
    """Sends SIGTERM to the main thread, since the test process has other threads in which it is not blocked."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def test_without_sigterm_no_step_is_the_last(capsys):
    with Preemption(30.0).listen() as preemption:
        assert not preemption.reached()
    assert capsys.readouterr().err == ""


def test_sigterm_during_startup_is_delivered_once_a_handler_is_installed():
    with signals.block_sigterm():
        send_sigterm()
        with Preemption(30.0).listen() as preemption:
            assert preemption.reached()


def test_a_second_sigterm_has_no_effect_during_the_save_and_after_it():
    with Preemption(30.0).listen() as preemption:
        send_sigterm()
        send_sigterm()
        assert preemption.reached() and preemption.reached()
    send_sigterm()


def test_the_previous_handler_is_restored():
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    with Preemption(30.0).listen():
        pass
    send_sigterm()
    assert received == [signal.SIGTERM]


def test_the_end_of_the_grace_period_before_the_save_is_logged(capfd):
    with Preemption(0.01).listen():
        send_sigterm()
        output, end = "", time.monotonic() + 20
        while output.count("\n") < 2:
            assert time.monotonic() < end, output
            time.sleep(0.001)
            output += capfd.readouterr().err
    first, second = output.splitlines()
    assert first == "received SIGTERM: saving a checkpoint, then stopping"
    assert "grace period of 0.01 s ended before the checkpoint was saved" in second
    assert "raise the grace period of the platform, and config.preemption_grace_seconds" in second
