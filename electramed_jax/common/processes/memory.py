"""Memory of this process and of its child processes, in bytes."""

from __future__ import annotations

import os
import resource
import sys

_PROC_STATM = "/proc/self/statm"  # Linux: total and resident pages of this process


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
