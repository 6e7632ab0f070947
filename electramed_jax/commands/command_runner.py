"""Runs commands one after the other in this process, as a shell would."""

from __future__ import annotations

from collections.abc import Sequence

from electramed_jax.common.console import say
from electramed_jax.common.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PREEMPTED, UserError


class PreemptedError(UserError):
    """A command was stopped by SIGTERM and has saved a checkpoint."""

    exit_code = EXIT_PREEMPTED


def run_command(words: Sequence[str]) -> None:
    """Prints and runs `electramed WORDS`.

    Raises:
      UserError: the command ended with another exit code than 0. `PreemptedError` if SIGTERM stopped it.
      KeyboardInterrupt: Ctrl-C stopped it.
    """
    from electramed_jax import cli  # runs a command as a shell does

    say("\n$ electramed " + " ".join(f'"{word}"' if "*" in word else word for word in words))
    code = cli.main(list(words))
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code == EXIT_PREEMPTED:
        raise PreemptedError(f"electramed {words[0]} was stopped; run the same command again to resume")
    if code != EXIT_DONE:
        raise UserError(f"electramed {words[0]} exited with {code}; see its message above")
