"""Memory of this process and of its child processes, in bytes, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PROC_STATM = "/proc/self/statm"  # Linux: total and resident pages of this process

# Parameters of glibc's mallopt (malloc.h) and their values: never return memory at the top of the heap, never use mmap
# for large blocks, one heap for all threads.
_MALLOC_OPTIONS = ((-1, 2**31 - 1), (-4, 0), (-8, 1))


def keep_freed_memory() -> None:
    """Makes this process reuse its freed memory instead of returning it to the kernel, where the C library is glibc.

    XLA allocates the buffers of a step on a CPU anew in every step. By default they are returned and mapped again page
    by page: 100,000 page faults in a step of 32 rows of 128 tokens of `pretrain_tiny`, 15 to 20 % of its processor
    time. Call it before the threads of jax allocate.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            for parameter, value in _MALLOC_OPTIONS:
                library.mallopt(parameter, value)


def resident_bytes() -> int:
    """Returns the resident memory of this process; on systems other than Linux the largest so far."""
    try:
        with open(_PROC_STATM, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak(resource.RUSAGE_SELF)


def peak_bytes() -> int:
    """Returns the highest peak memory of this process and of its child processes that have ended.

    A child's peak includes its memory before it began to work, so it is at least that of its parent at that time.
    """
    return max(_peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN))


def _peak(who: int) -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return unit * resource.getrusage(who).ru_maxrss
