"""Settings of the Python interface: a recipe with changes, as on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electramed_jax.common import config_io


def to_flags(config: str, settings: Mapping[str, Any]) -> list[str]:
    """Returns `--config=NAME` and a flag for each setting, so that both interfaces check and report the same.

    Args:
      config: name of a recipe, or path of a config file.
      settings: values by dotted name, {"optimizer.learning_rate": 1e-4}, or nested dicts.
    """
    flags = [f"--config.{name}={value}" for name, value in config_io.flatten(settings).items()]
    return [f"--config={config}", *flags]
