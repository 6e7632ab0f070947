"""Output folders that a build can resume: a scratch folder keeps the request and the intermediate files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

FOLDER = ".work"
_REQUEST = "request.json"
# What to do about a damaged file of the scratch folder.
ADVICE = f"remove the folder {FOLDER} that holds it, and the output next to it, and run the same command again"


def open_build_dir(directory: str, request: dict[str, Any], is_output: Callable[[str], bool]) -> str:
    """Returns the scratch folder in `directory`, with the files that an interrupted run of the same request left there.

    Args:
      request: everything the output depends on, as JSON.
      is_output: whether a name in `directory` is one that this build would write.

    Raises:
      UserError: `directory` has such names, and not from an interrupted run.
    """
    work = files.join(directory, FOLDER)
    request_path = files.join(work, _REQUEST)
    outputs = [name for name in _names(directory) if is_output(name)]
    if files.exists(request_path):
        if files.read_json(request_path, advice=ADVICE) == request:
            console.say(f"{directory}: resuming an interrupted run")
            return work
        _remove_all(directory, outputs)
    elif outputs:
        raise UserError(
            f"{directory}: contains {outputs[0]}, which is not from an interrupted run; "
            "choose an empty folder, or remove it"
        )
    files.remove(work)
    files.make_dirs(work)
    files.write_json(request_path, request)
    return work


def close_build_dir(directory: str) -> None:
    """Removes the scratch folder and temporary files of killed runs, once the output is complete."""
    _remove_all(directory, [FOLDER, *filter(_is_temporary, _names(directory))])


def _names(directory: str) -> list[str]:
    return files.list_dir(directory) if files.is_dir(directory) else []


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(files.TEMPORARY_SUFFIX)


def _remove_all(directory: str, names: Iterable[str]) -> None:
    for name in names:
        files.remove(files.join(directory, name))
