"""Exit codes of the command line, and the errors that it prints as one line without a traceback."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USER_ERROR = 2
EXIT_UNUSABLE_INPUTS = 3  # finished, but some inputs were unusable; they were named
EXIT_PREEMPTED = 42  # preempted and saved, or another process was lost; start the same command again
EXIT_INTERRUPTED = 130  # Ctrl-C
MAX_MESSAGE = 1000  # characters of a message
_END_KEPT = 300  # characters of the end, which is what to do next


class UserError(ValueError):
    """An error that the user can fix: the command line prints its message alone and exits with `exit_code`.

    The message is one line: what is wrong, the value that was given, the values that are valid, and what to do next.
    """

    exit_code = EXIT_USER_ERROR

    def __init__(self, message: str = ""):
        """Creates the error. The middle of a message of more than `MAX_MESSAGE` characters is left out."""
        if len(message) > MAX_MESSAGE:  # it quotes a damaged file
            message = f"{message[: MAX_MESSAGE - _END_KEPT]} … {message[-_END_KEPT:]}"
        super().__init__(message)


class PeerLostError(UserError):
    """Another process of the same run ended or its machine died; all processes have to be started again."""

    exit_code = EXIT_PREEMPTED


def first_line(error: BaseException, max_chars: int = 200) -> str:
    """Returns the first line of an exception's text, cut after `max_chars`; the name of its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:max_chars] if lines else type(error).__name__
