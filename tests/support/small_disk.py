"""A file system with hardly any room. `from small_disk import small_disk` makes it a fixture of a test module."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """Makes one of so many bytes: `small_disk(size)` -> its folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "small_disk"
    folder.mkdir()

    def mount(size: int) -> pathlib.Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"needs to mount a small file system: {made.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", folder], stderr=subprocess.DEVNULL)


def fill(folder: pathlib.Path, *, leaving: int = 0) -> pathlib.Path:
    """Writes a file into all the room but `leaving` bytes; returns its path."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leaving)))
    return ballast
