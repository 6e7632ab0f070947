"""Where a command writes text: standard output, or a file that appears when it is complete."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[Callable[[str], Any]]:
    """Yields a function that writes text to standard output (`path` None) or, atomically, to a file.

    A terminal gets escapes in place of the control characters of the texts.
    """
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files

    if path is None:
        try:
            is_terminal = sys.stdout.isatty()
            yield lambda piece: sys.stdout.write(console.printable(piece) if is_terminal else piece)
            sys.stdout.flush()
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes standard output at exit
            raise UserError("standard output was closed by its reader; add --output=FILE to keep it") from error
        return
    with files.atomic_write(path) as file:
        yield lambda piece: file.write(piece.encode("utf-8"))
