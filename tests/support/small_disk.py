"""A very small file system. A test module imports the fixture with `from small_disk import small_disk`."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest


class CannotMountError(Exception):
    """This machine does not let the process mount a file system."""


@contextlib.contextmanager
def mounted(folder: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
    """Mounts a file system of `size` bytes on an existing folder during the block."""
    run_mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], stderr=subprocess.DEVNULL)


def set_read_only(folder: pathlib.Path, read_only: bool = True) -> None:
    """Makes a mounted file system read-only, or writable again."""
    run_mount("-o", f"remount,{'ro' if read_only else 'rw'}", folder)


def run_mount(*arguments: object) -> None:
    if os.geteuid() != 0:
        raise CannotMountError("needs root, to mount a small file system")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise CannotMountError(f"needs to mount a small file system: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of `size` bytes and returns its folder: `small_disk(size)`."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    with contextlib.ExitStack() as stack:

        def mount(size: int) -> pathlib.Path:
            try:
                return stack.enter_context(mounted(folder, size))
            except CannotMountError as error:
                pytest.skip(str(error))

        yield mount


def fill(folder: pathlib.Path, *, leaving: int = 0) -> pathlib.Path:
    """Fills a file system up to `leaving` free bytes with one file; returns its path."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leaving)))
    return ballast
