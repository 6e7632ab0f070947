"""One task per input file over a pool of processes; results in the order of the tasks."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError

_WAITING = 4  # tasks handed out per process before the first of their results is taken


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[tuple], workers: int | None, description: str
) -> Iterator[Any]:
    """Yields `function(*task)` for each task, one a file: `Pool.run` where there is one stage only."""
    with ProcessPool(workers) as pool:
        yield from pool.run(function, tasks, description)


def peak_bytes() -> int:
    """The most memory a process has held: this one, or any of its pools' that have ended.

    What a process held before it began to work counts too, so it is at least that of its parent.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class ProcessPool:
    """Processes that serve one stage after another; they are started when first there is work to share.

    Args:
      workers: processes; 1 runs everything in this one, None takes one per core.
    """

    def __init__(self, workers: int | None = None):
        self.workers = workers or os.cpu_count() or 1
        self._executor: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[tuple],
        description: str,
        *,
        unit: str = "files",
        inside: str = "",
        count: Callable[[Any], int] = lambda result: 0,
    ) -> Iterator[Any]:
        """Yields `function(*task)` for each task, in order, with progress on standard error.

        Tasks are handed out as results are taken: what waits is a few per process, however many there are.

        Args:
          function: importable by name, since the processes are spawned.
          unit: what a task is, in the plural.
          inside, count: what a task holds, in the plural, and how many of them one result tells of.

        Raises:
          UserError: raised by a task, or a process was killed.
        """
        shared = self.workers > 1 and len(tasks) > 1
        results = self._shared(function, tasks, description) if shared else itertools.starmap(function, tasks)
        with console.progress(len(tasks), unit, description, inside) as advance:
            for result in results:
                yield result
                advance(1, count(result))

    def _shared(self, function: Callable[..., Any], tasks: Sequence[tuple], description: str) -> Iterator[Any]:
        if self._executor is None:
            self._executor = concurrent.futures.ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_init_worker,
                initargs=(console.level(),),
            )
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for task in tasks:
                waiting.append(self._executor.submit(function, *task))
                if len(waiting) == _WAITING * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{description}: a worker process was killed, most likely for memory; "
                f"run it again with --workers {max(1, self.workers // 2)} (finished files are kept)"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _init_worker(level: str) -> None:
    """Makes a worker take one core, say as much as the parent, leave Ctrl-C to it, and end when it is gone."""
    console.set_level(level)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # An idle worker waits on a pipe whose other end it holds itself: it would wait for ever.
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
