"""The user's mistakes, and the codes a process exits with."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 42  # saved; start me again
EXIT_PEER_LOST = 75  # another process of the run is gone; start all of us again (sysexits.h: EX_TEMPFAIL)
EXIT_INTERRUPTED = 130  # Ctrl-C


class UserError(ValueError):
    """Something the user can mend: the command line prints the message alone and exits 2.

    The message says what was wrong, what was got, what was wanted, and what to do next, in one line.
    """

    exit_code = EXIT_USER_ERROR


class PeerLostError(UserError):
    """Another process of the same run has ended or its machine died: nothing to mend here, all start again."""

    exit_code = EXIT_PEER_LOST


def first_line(error: BaseException, max_chars: int = 200) -> str:
    """Returns the first line of an exception's text, cut after `max_chars`; the name of its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:max_chars] if lines else type(error).__name__
