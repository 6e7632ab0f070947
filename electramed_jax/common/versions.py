"""Versions of the code of a run: packages, Python, and the git commit of this package."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess

import electramed_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")
GIT_SECONDS = 10  # timeout of a git command


def package_versions() -> dict[str, str]:
    """Returns the versions of `PACKAGES` and of Python; "" for a package that is not installed."""
    return {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()}


def code_commit() -> str:
    """Returns the git commit of this package's folder, with "+changes" if its files differ; "" outside of git."""
    root = pathlib.Path(electramed_jax.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
    )
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
