"""Fixture of a very small file system. A test module imports it with `from small_disk import small_disk`."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of `size` bytes and returns its folder: `small_disk(size)`."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "small_disk"
    folder.mkdir()

    def mount(size: int) -> pathlib.Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", folder], stderr=subprocess.DEVNULL)


def fill(folder: pathlib.Path, *, leaving: int = 0) -> pathlib.Path:
    """Fills a file system up to `leaving` free bytes with one file; returns its path."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leaving)))
    return ballast
