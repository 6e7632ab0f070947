"""Ends a run if other processes of it ended, hang or lost their network: one line, and the exit code of a restart.

A collective that waits for a lost process never returns, so threads watch it. Every process writes a beat to the
key-value store of jax's coordination service, and reads the beats of the others:

  * a process without a beat for PEER_SECONDS is lost; if the store itself does not answer, process 0 is lost;
  * a process that fails writes its reason into its last beat;
  * a beat holds what the main thread waits for: a batch, a step, a save, an evaluation. Process 0 compares its duration
    with the limit, names the process that the others wait for, and all processes end with its line.

jax ends a process with a C++ stack trace when the connection to process 0 breaks. It offers a callback instead, but
cannot convert the callback's argument (jaxlib 0.10 to 0.12: std::bad_cast, which no code catches). The handler of
uncaught C++ exceptions is therefore replaced, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from electramed_jax.common.console import fail
from electramed_jax.common.errors import EXIT_PREEMPTED
from electramed_jax.common.processes.signals import SHOW_CURSOR

PEER_SECONDS = 40.0  # silence after which a process counts as lost; the promise is a minute until the end of all
BEAT_SECONDS = 2.0  # between two beats; longer with more than PROCESSES_AT_ONCE processes
PROCESSES_AT_ONCE = 64
END_GRACE_SECONDS = (
    5.0  # after the end of a process, in which the others may fail for the same reason, with a line of it
)
TICK_SECONDS = 0.25

MIN_HANG_SECONDS, HANG_STEPS = 300.0, 20.0  # the automatic limit: HANG_STEPS median steps, at least these seconds
FIRST_STEP_SECONDS = 3600.0  # smallest limit of a first step, which includes compilation, of evaluation and of a save
TIMED_STEPS = 101  # newest steps that the median is taken of

BEATS = "electramed/beats/"
PREEMPTION_NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # the key that jax's preemption service writes after a SIGTERM

# What the main thread does, in the order of a step: the others wait for the process with the least progress.
BATCH, STEP, OTHER, SAVE, EVALUATION = "batch", "step", "other", "save", "evaluation"
ORDER = (BATCH, STEP, OTHER, SAVE, EVALUATION)
LONG_WAITS = (SAVE, EVALUATION)  # their duration does not depend on that of a step; FIRST_STEP_SECONDS limits them

RESTART = "complete checkpoints are safe; start all processes again"


class Waiting(NamedTuple):
    """The wait of the main thread of a process.

    Attributes:
      kind: BATCH, STEP, OTHER, SAVE or EVALUATION; OTHER has no limit.
      step: number of the step.
      seconds: for how long.
      is_first: whether the step is the process's first, which includes compilation.
    """

    kind: str
    step: int
    seconds: float
    is_first: bool = False


class Beat(NamedTuple):
    """The record that a process writes about itself.

    Attributes:
      serial: increases with each beat.
      host: name of the host.
      waiting: what its main thread waits for.
      end: why the process is about to end; "" while it runs.
      verdict: the line with which the run ends; "" while it trains.
    """

    serial: int
    host: str
    waiting: Waiting
    end: str = ""
    verdict: str = ""

    def to_json(self) -> str:
        """Returns the value that is stored."""
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Beat:
        """Returns the beat that was stored."""
        serial, host, waiting, *rest = json.loads(text)
        return cls(serial, host, Waiting(*waiting), *rest)


class Watchdog:
    """Watches the main thread of this process and the other processes. One process alone watches itself.

    The threads run between `start` and `stop`. `exit_process` is called with the line that ends the run, from a thread.
    """

    def __init__(
        self,
        client: Any = None,
        number: int = 0,
        count: int = 1,
        address: str = "",
        *,
        exit_process: Callable[[str], Any] | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        """Creates the watchdog of process `number` of `count`.

        `client` and `address` are those of jax's coordination service, which runs in process 0.
        """
        self._address = address
        self._client, self._number, self._count, self._now = client, number, count, now
        self._exit_process = exit_process or self._exit
        self._beat_seconds = max(BEAT_SECONDS, BEAT_SECONDS * count / PROCESSES_AT_ONCE)
        self._host = socket.gethostname()
        self._main: tuple[str, int, float] = (OTHER, 0, now())
        self._step_seconds: deque[float] = deque(maxlen=TIMED_STEPS)  # without the first step
        self._is_compiled = False  # whether the first step, which includes compilation, is over
        self._hang_seconds: float | None = None  # None: no limit; 0: automatic
        self._grace_seconds = 0.0
        self._sigterm_time: float | None = None
        self._end, self._verdict = "", ""
        self._sent_count = 0
        self._beats: dict[int, Beat] = {}
        self._heard = dict.fromkeys(range(count), now())  # when the newest beat of each process arrived
        self._exchanged = now()
        self._first_end: float | None = None  # when the first reason of another process arrived
        self._lock, self._stopped, self._wake = threading.Lock(), threading.Event(), threading.Event()

    # ---- called by the main thread -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the threads."""
        self._stopped.clear()
        self._exchanged = self._now()
        self._heard = dict.fromkeys(range(self._count), self._exchanged)
        for loop in (self._watch, *([self._exchange_beats] if self._client is not None else [])):
            threading.Thread(target=loop, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Ends the threads; from here on nothing ends the process."""
        self._stopped.set()
        self._wake.set()

    @contextlib.contextmanager
    def limits(self, hang_seconds: float, grace_seconds: float) -> Iterator[None]:
        """Limits the time of each wait (see `waiting`) from here on; for a process alone, during the block.

        Args:
          hang_seconds: the limit; 0: HANG_STEPS median steps, and at least MIN_HANG_SECONDS.
          grace_seconds: shorter limit after SIGTERM.
        """
        self._hang_seconds, self._grace_seconds = hang_seconds, grace_seconds
        self._sigterm_time = None
        self._step_seconds.clear()
        self._is_compiled = False
        if self._client is None:
            self.start()
        try:
            yield
        finally:
            self._main = (OTHER, self._main[1], self._now())
            if self._client is None:
                self._hang_seconds = None
                self.stop()

    @contextlib.contextmanager
    def waiting(self, kind: str, step: int | None = None) -> Iterator[None]:
        """Notes what the main thread waits for: the loader (BATCH), the devices (STEP), a SAVE or an EVALUATION.

        Args:
          kind: what it waits for.
          step: number of the step; None: the last one.
        """
        step = self._main[1] if step is None else step
        began = self._now()
        self._main = (kind, step, began)
        try:
            yield
        finally:
            now = self._now()
            if kind == STEP:
                if self._is_compiled:
                    self._step_seconds.append(now - began)
                self._is_compiled = True
            self._main = (OTHER, step, now)

    def note_progress(self) -> None:
        """Restarts the time of the current wait: an evaluation has finished another batch."""
        kind, step, _ = self._main
        self._main = (kind, step, self._now())

    def note_sigterm(self) -> None:
        """Notes that this process received SIGTERM; jax's preemption service notes it for several processes."""
        self._sigterm_time = self._now()

    def end(self, reason: str) -> None:
        """Sends the other processes the reason why this one ends, and stops watching.

        Process 0 waits until the others have read it: the store ends with process 0.
        """
        with self._lock:
            self._end = reason
        self._wake.set()
        self._wait_until_sent(lambda beat: bool(beat.end or beat.verdict))
        self.stop()

    def find_lost(self) -> str:
        """Returns "process 1 (host) ended: REASON", or which process has become silent; waits for four beats at most.

        The last beat of a process that ended may have been read up to one beat after its end.
        """
        deadline = self._now() + 4 * self._beat_seconds
        while self._now() < deadline:
            if line := self._find_end():
                return line
            silent = [number for number, heard in self._heard.items() if self._now() - heard > 2.5 * self._beat_seconds]
            if names := " and ".join(self.name(number) for number in silent if number != self._number):
                return f"{names} ended or its machine died"
            time.sleep(TICK_SECONDS)
        return "another process ended or its machine died"

    def on_connection_lost(self, *_: Any) -> None:
        """Ends the process because the connection to process 0 broke; called by jax, from a thread."""
        if self._stopped.is_set() and not self._end:
            return
        if not self._end:
            lost = f"{self.name(0)} ended or its machine died: its connection broke"
            if self._number == 0 or _keeps_answering(self._address):
                lost = "jax reports a lost process, or failed itself"
            self._exchanged = -float("inf")  # nothing can be sent any more
            self._finish(self._find_end() or lost)
        time.sleep(PEER_SECONDS)  # the main thread, or the watching one, is about to end the process

    def name(self, number: int) -> str:
        """Returns "process 1 (host)"; without the host before the first beats."""
        beat = self._beats.get(number)
        host = self._host if number == self._number else beat.host if beat else ""
        if self._count == 1:
            return f"this process ({host})"
        return f"process {number}" + (f" ({host})" if host else "")

    # ---- threads -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        before = self._now()
        while not self._stopped.wait(TICK_SECONDS):
            now = self._now()
            if (pause := now - before) > PEER_SECONDS / 4:  # this process was suspended: it received no beats meanwhile
                self._heard = {number: heard + pause for number, heard in self._heard.items()}
                self._exchanged += pause
            before = now
            if not self._end and (line := self.judge()):
                self._finish(line)

    def _exchange_beats(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(Exception):  # jax's errors have no common type; silence is judged by `judge`
                self.exchange()
            self._wake.wait(self._beat_seconds if len(self._beats) == self._count else TICK_SECONDS)
            if self._end or self._verdict:
                time.sleep(TICK_SECONDS)

    def exchange(self) -> None:
        """Writes the beat of this process and reads those of all."""
        now = self._now()
        self._sent_count += 1
        beat = Beat(self._sent_count, self._host, self._own_waiting(), self._end, self._verdict)
        self._client.key_value_set(f"{BEATS}{self._number}", beat.to_json(), allow_overwrite=True)
        beats = dict(self._beats)  # replaced as a whole: the other threads iterate over it
        for key, value in self._client.key_value_dir_get(BEATS):
            number, beat = int(key.rpartition("/")[2]), Beat.from_json(value)
            if number not in beats or beats[number].serial != beat.serial:
                self._heard[number] = now
            if beat.end and number != self._number and self._first_end is None:
                self._first_end = now
            beats[number] = beat
        self._beats = beats
        if self._sigterm_time is None and self._number == 0 and self._was_preempted():
            self._sigterm_time = now
        self._exchanged = now

    def _was_preempted(self) -> bool:
        try:
            return bool(self._client.key_value_try_get(PREEMPTION_NOTICE))
        except Exception:  # noqa: BLE001 not found: jax's errors have no common type
            return False

    # ---- judgement -----------------------------------------------------------------------------------------------

    def judge(self) -> str:
        """Returns the line with which the run must end; "" if it continues."""
        now = self._now()
        if self._client is not None:
            for beat in self._beats.values():
                if beat.verdict:
                    return beat.verdict
            if self._first_end is not None and now - self._first_end > END_GRACE_SECONDS:
                return self._find_end()
            silent = "has not answered for {:.0f} s: it ended, hangs or lost its network"
            if now - self._exchanged > PEER_SECONDS:
                return f"{self.name(0)} {silent.format(now - self._exchanged)}"
            for number, heard in sorted(self._heard.items(), key=lambda item: item[1]):
                if now - heard > PEER_SECONDS and number != self._number:
                    return f"{self.name(number)} {silent.format(now - heard)}"
        return self._judge_hang() if self._number == 0 and self._hang_seconds is not None else ""

    def _judge_hang(self) -> str:
        """Returns the line about a step or a batch beyond its limit, which names the process that is waited for."""
        everyone = {
            number: beat.waiting._replace(seconds=beat.waiting.seconds + self._now() - self._heard[number])
            for number, beat in self._beats.items()
        } | {self._number: self._own_waiting()}
        limit = self._hang_seconds or max(MIN_HANG_SECONDS, HANG_STEPS * self._median_step())
        reason = "config.hang_seconds" if self._hang_seconds else f"the larger of {MIN_HANG_SECONDS:g} s and "
        reason += "" if self._hang_seconds else f"{HANG_STEPS:g} median steps; config.hang_seconds changes it"
        too_long = f"took longer than {limit:.0f} s ({reason})"
        since_sigterm = None if self._sigterm_time is None else self._now() - self._sigterm_time
        if since_sigterm is not None and since_sigterm > self._grace_seconds:
            limit = max(self._grace_seconds, 3 * self._median_step())
            too_long = f"did not end within {limit:g} s after SIGTERM"
        slow = [one for one in everyone.values() if one.kind != OTHER and one.seconds > _limit_of(one, limit)]
        if not slow:
            return ""
        one = max(slow, key=lambda waiting: waiting.seconds)
        if _limit_of(one, limit) > limit:
            too_long = f"took longer than {FIRST_STEP_SECONDS:.0f} s"
        return f"{one.kind} {one.step:,} {too_long}: {self._waited_for(everyone)}"

    def _waited_for(self, everyone: dict[int, Waiting]) -> str:
        progress = {number: (one.step, ORDER.index(one.kind)) for number, one in everyone.items()}
        least = min(progress.values())
        behind = [number for number, value in progress.items() if value == least]
        if len(behind) == self._count > 1 and ORDER[least[1]] in (STEP, *LONG_WAITS):
            return "all processes wait for it; a device or the network between them hangs"
        return " and ".join(f"{self.name(number)} {_describe(everyone[number])}" for number in behind)

    def _median_step(self) -> float:
        return statistics.median(self._step_seconds) if self._step_seconds else 0.0

    def _own_waiting(self) -> Waiting:
        kind, step, since = self._main
        return Waiting(kind, step, self._now() - since, kind == STEP and not self._is_compiled)

    def _find_end(self) -> str:
        for number, beat in self._beats.items():
            if beat.end and number != self._number:
                return f"{self.name(number)} ended: {beat.end}"
        return ""

    # ---- the end -------------------------------------------------------------------------------------------------

    def _finish(self, line: str) -> None:
        with self._lock:
            if self._end or self._verdict:
                return
            self._verdict = line
        self._wake.set()
        self._exit_process(line)

    def _exit(self, line: str) -> NoReturn:
        """Lets the others read the line, prints it last, and ends the process without waiting for anything else."""
        process = f"[process {self._number} of {self._count}] " if self._count > 1 else ""
        restart = RESTART if self._count > 1 else RESTART.replace("start all processes", "run the same command")
        self._wait_until_sent(lambda beat: bool(beat.end or beat.verdict))
        with contextlib.suppress(Exception):  # standard error may be closed
            if os.isatty(2):
                os.write(2, SHOW_CURSOR.encode())
            fail(f"{process}{line}; {restart}")
            sys.stdout.flush()
        os._exit(EXIT_PREEMPTED)

    def _wait_until_sent(self, is_read: Callable[[Beat], bool]) -> None:
        """Waits for the beat that holds the end; in process 0 until the others have read it, or are silent."""
        if self._client is None or self._stopped.is_set():
            return
        sent, deadline = self._sent_count, self._now() + END_GRACE_SECONDS + 5 * self._beat_seconds
        while self._now() < deadline and self._now() - self._exchanged < 5 * self._beat_seconds:
            others = [beat for number, beat in self._beats.items() if number != self._number and self._is_alive(number)]
            if self._sent_count > sent + 1 and (self._number != 0 or all(map(is_read, others))):
                return
            time.sleep(TICK_SECONDS / 5)

    def _is_alive(self, number: int) -> bool:
        return self._now() - self._heard[number] < 5 * self._beat_seconds


def _keeps_answering(address: str) -> bool:
    """Returns whether the address answers twice, one second apart: that of a process that just ended may do so once."""
    if not _answers(address):
        return False
    time.sleep(1.0)
    return _answers(address)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), BEAT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _describe(waiting: Waiting) -> str:
    doing = {
        BATCH: "has waited for its batch of step {step:,} for {seconds:.0f} s",
        STEP: "has waited for its devices in step {step:,} for {seconds:.0f} s",
        SAVE: "has waited for the save of step {step:,} for {seconds:.0f} s",
        EVALUATION: "has waited for its devices in the evaluation of step {step:,} for {seconds:.0f} s",
        OTHER: "has done something else for {seconds:.0f} s since step {step:,}",
    }
    return doing[waiting.kind].format(step=waiting.step, seconds=waiting.seconds)


def _limit_of(waiting: Waiting, limit: float) -> float:
    return max(limit, FIRST_STEP_SECONDS) if waiting.is_first or waiting.kind in LONG_WAITS else limit


_HANDLER_TYPE = ctypes.CFUNCTYPE(None)
_handlers: list[Any] = []  # keeps the handler alive


def set_terminate_handler(on_terminate: Callable[[], Any]) -> None:
    """Calls `on_terminate` before an uncaught C++ exception ends the process; does nothing without GNU's libstdc++."""
    try:
        set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE
    except (OSError, AttributeError):
        return

    def call() -> None:
        on_terminate()
        os.abort()

    _handlers.append(_HANDLER_TYPE(call))
    set_terminate.argtypes, set_terminate.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_terminate(ctypes.cast(_handlers[-1], ctypes.c_void_p))
