"""`electramed <command>`: the command's module is imported only when it is chosen, so that --help is instant."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from electramed_jax import __version__
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_INTERRUPTED, UserError
from electramed_jax.common.processes import signals

COMMANDS = {
    "quickstart": "the whole way in a few minutes on invented text: start here",
    "download": "PubMed's baseline and update files, verified and resumable",
    "prepare": "PubMed XML, JSONL or text -> cleaned documents, split train/validation/test",
    "vocab": "documents -> a WordPiece vocabulary",
    "pack": "documents + vocabulary -> TFRecord shards of full rows",
    "pretrain": "shards -> a trained generator and discriminator",
    "evaluate": "a checkpoint -> validation or test metrics",
    "report": "one page about a run, or several side by side: curves, alerts, speed, data, sentences",
    "doctor": "what is wrong with this machine for a run, and the command that mends it",
    "bench": "how fast this machine is at a step, the data, preparing and saving, with spread",
    "compile": "does a step fit on a TPU topology, and how fast, by the compiler; no TPU needed",
    "export": "a checkpoint -> Hugging Face folders",
    "import": "a Hugging Face folder -> a config file to train on from",
    "finetune": "an encoder + a corpus -> a model for entities, relations, ... and its scores",
    "predict": "texts, PubMed XML or questions -> entities, relations, classes or answers, by a fine-tuned model",
    "inspect": "look into a shard, a manifest, documents or a workdir",
}
MODULES = {"import": "import_"}  # `import` is a word of Python's


def program() -> NoReturn:
    """`electramed`, in a process of its own."""
    signals.handle_sigint()
    code = main()
    if code == EXIT_INTERRUPTED:
        signals.exit_now()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code: 0 done, 2 the user's mistake, 42 preempted and saved,
    75 another process of the run is gone."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        print(f"electramed {__version__}" if arguments[:1] == ["--version"] else _overview())
        return EXIT_DONE
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; there are {', '.join(COMMANDS)}")
        return _run(name, rest)
    except UserError as error:
        console.fail(f"electramed {name}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        console.fail(f"electramed {name}: interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    command, args = parse(name, arguments)
    with console.at_level(_level(args)):
        result = _told_where(command.run, args)
    is_worker = result.pop("is_worker", False)  # the main process, where there are several
    if args.json and not is_worker:
        print(json.dumps(result))
    return result.get("exit_code", EXIT_DONE)


def parse(name: str, arguments: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """A command's module, and its arguments with the settings of its config apart, as words.

    Raises:
      UserError: words it does not know, or too few.
    """
    command = importlib.import_module(f"electramed_jax.commands.{MODULES.get(name, name)}")
    parser = _Parser(
        prog=f"electramed {name}",
        description=command.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="end with one line of JSON, the result, on standard output",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quiet", action="store_true", help="say nothing but warnings, alerts and mistakes")
    amount.add_argument(
        "--verbose", action="store_true", help="say more: what the libraries log, and where a mistake was found"
    )
    command.add_arguments(parser)
    # Settings (--config.a.b=c) are not argparse's to know: the config itself names the unknown ones.
    args, settings = parser.parse_known_args(arguments)
    args.settings = [s for s in settings if s.startswith("--config")]
    if strangers := [s for s in settings if not s.startswith("--config")]:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if args.settings and not getattr(command, "TAKES_CONFIG", False):
        raise UserError(f"takes no {args.settings[0].split('=')[0]}; see electramed {name} --help")
    return command, args


def _level(args: argparse.Namespace) -> str:
    """What is asked for, or what holds already where a command is one of another's."""
    if args.verbose:
        import logging

        import absl.logging

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        absl.logging.set_verbosity(absl.logging.INFO)
        return console.VERBOSE
    return console.QUIET if args.quiet else console.level()


def _told_where(run: Callable[[argparse.Namespace], dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    try:
        return run(args)
    except UserError:
        console.detail(traceback.format_exc())
        raise


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other mistake of a user is said."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: electramed <command> [options]",
            "",
            *lines,
            "",
            "electramed <command> --help tells a command's options.",
        ]
    )


if __name__ == "__main__":
    program()
