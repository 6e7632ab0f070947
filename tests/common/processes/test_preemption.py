"""Being told to stop: heard from the first moment on, and said when the platform's patience is over."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from electramed_jax.common.processes import signals
from electramed_jax.common.processes.preemption import Preemption


@pytest.fixture(autouse=True)
def _sigterm_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def tell() -> None:
    """SIGTERM to the main thread alone: others of this process were not started by `electramed`."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def test_nobody_told_nobody_stops(capsys):
    with Preemption(30.0).listen() as preemption:
        assert not preemption.reached()
    assert capsys.readouterr().err == ""


def test_being_told_during_the_start_is_heard_once_somebody_listens():
    with signals.block_sigterm():
        tell()
        with Preemption(30.0).listen() as preemption:
            assert preemption.reached()


def test_being_told_again_changes_nothing_neither_then_nor_on_the_way_out():
    with Preemption(30.0).listen() as preemption:
        tell()
        tell()
        assert preemption.reached() and preemption.reached()
    tell()


def test_what_listened_before_listens_again():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with Preemption(30.0).listen():
        pass
    tell()
    assert heard == [signal.SIGTERM]


def test_a_grace_period_that_is_over_before_the_save_is_said(capfd):
    with Preemption(0.01).listen():
        tell()
        said, end = "", time.monotonic() + 20
        while said.count("\n") < 2:
            assert time.monotonic() < end, said
            time.sleep(0.001)
            said += capfd.readouterr().err
    first, second = said.splitlines()
    assert first == "received SIGTERM: saving a checkpoint, then stopping"
    assert "grace period of 0.01 s ended before the checkpoint was saved" in second
    assert "raise the grace period of the platform, and config.preemption_grace_seconds" in second
