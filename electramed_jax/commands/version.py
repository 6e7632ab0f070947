"""`electramed version`: prints the versions of electramed and of the packages it runs on."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = """Prints the versions of electramed, Python and the main packages, for a report of a problem.

  electramed version
  electramed version --json"""
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tokenizers",
    "numpy",
    "libtpu",
    "transformers",
    "torch",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none: this command has no options of its own."""


def run(args: argparse.Namespace) -> dict[str, Any]:
    import importlib.metadata
    import platform

    from electramed_jax import __version__

    versions = {"electramed": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if not args.json:
        sys.stdout.write("".join(f"{name} {version}\n" for name, version in versions.items()))
    return versions
