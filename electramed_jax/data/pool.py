"""One task per input file over a pool of processes; results in the order of the tasks."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError


def run(function: Callable[..., Any], tasks: Sequence[tuple], workers: int | None, description: str) -> Iterator[Any]:
    """Yields `function(*task)` for each task, in order, with progress on standard error.

    Args:
      function: importable by name, since the processes are spawned.
      workers: processes; 1 runs in this one, None takes one per core.

    Raises:
      UserError: raised by a task, or a process was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    with console.progress(len(tasks), "files", description) as advance:
        if workers <= 1:
            for task in tasks:
                yield function(*task)
                advance(1)
            return
        executor = concurrent.futures.ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_settle
        )
        try:
            futures = [executor.submit(function, *task) for task in tasks]
            for future in futures:
                yield future.result()
                advance(1)
        except BrokenProcessPool as error:
            raise UserError(
                f"{description}: a worker process was killed, most likely for memory; "
                f"run it again with --workers {max(1, workers // 2)} (finished files are kept)"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _settle() -> None:
    """Makes a worker take one core, leave Ctrl-C to the parent, and end when the parent is gone."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # An idle worker waits on a pipe whose other end it holds itself: it would wait for ever.
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
