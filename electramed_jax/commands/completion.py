"""`electramed completion`: prints the script for completion in a shell."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = """Prints the script with which a shell completes commands, options, recipes and settings after the Tab key.

  electramed completion bash > ~/.electramed.bash        # and in ~/.bashrc: source ~/.electramed.bash
  electramed completion zsh > ~/.electramed.zsh          # and in ~/.zshrc, after compinit: source ~/.electramed.zsh
  electramed completion fish > ~/.config/fish/completions/electramed.fish"""
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def run(args: argparse.Namespace) -> dict[str, Any]:
    import argcomplete

    script = argcomplete.shellcode(["electramed"], shell=args.shell)
    if not args.json:
        sys.stdout.write(script)
    return {"shell": args.shell, "script": script}
