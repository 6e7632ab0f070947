"""The option --takeover of the commands that write into a folder which one process at a time owns."""

from __future__ import annotations

import argparse


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --takeover."""
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="take the folder over from a process on another host that has ended without a trace, without waiting for "
        "its lock to expire (default: wait)",
    )
