"""The user's mistakes, and the codes a process exits with."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 42  # saved; start me again


class UserError(ValueError):
    """Something the user can mend: the command line prints the message alone and exits 2.

    The message says what was wrong, what was got, what was wanted, and what to do next, in one line.
    """
