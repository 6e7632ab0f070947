"""Runs tasks in a pool of processes and yields their results in the order of the tasks."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError

_SUBMITTED_PER_WORKER = 4  # tasks submitted per process before the first of their results is taken


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[tuple], workers: int | None, description: str
) -> Iterator[Any]:
    """Yields `function(*task)` for each task in a pool of its own (see `ProcessPool.run`)."""
    with ProcessPool(workers) as pool:
        yield from pool.run(function, tasks, description)


class ProcessPool:
    """A pool of processes for one stage after another. The processes start with the first stage of several tasks.

    Args:
      workers: processes; 1 runs everything in this process, None is one per core.
    """

    def __init__(self, workers: int | None = None):
        self.workers = workers or os.cpu_count() or 1
        self._executor: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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

        Tasks are submitted as results are taken: at most `_SUBMITTED_PER_WORKER` per process are pending.

        Args:
          function: importable by name, since the processes are spawned.
          description: of the stage, for the progress line.
          unit: name of a task, in the plural.
          inside: name of the items in a task, in the plural.
          count: result -> number of items in its task.

        Raises:
          UserError: raised by a task, or a process was killed.
        """
        parallel = self.workers > 1 and len(tasks) > 1
        results = self._run_in_pool(function, tasks, description) if parallel else itertools.starmap(function, tasks)
        with console.progress(len(tasks), unit, description, inside) as advance:
            for result in results:
                yield result
                advance(1, count(result))

    def _run_in_pool(self, function: Callable[..., Any], tasks: Sequence[tuple], description: str) -> Iterator[Any]:
        if self._executor is None:
            self._executor = concurrent.futures.ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_init_worker,
                initargs=(console.level(),),
            )
        pending: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for task in tasks:
                pending.append(self._executor.submit(function, *task))
                if len(pending) == _SUBMITTED_PER_WORKER * self.workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{description}: a worker process was killed, most likely because memory ran out; "
                f"run the same command again with --workers {max(1, self.workers // 2)} (finished files are kept)"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def _init_worker(level: str) -> None:
    """Initializes a worker: one core, the parent's console level, Ctrl-C left to the parent, exit when it is gone."""
    console.set_level(level)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # An idle worker reads from a pipe and also holds its write end open, so it does not notice the parent's exit.
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
