"""Entry point of `electramed <command>`. Imports the module of the chosen command only, so that --help is fast."""

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
from electramed_jax.common.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, first_line
from electramed_jax.common.processes import signals

COMMANDS = {
    "quickstart": "run the whole pipeline on generated text in a few minutes: start here",
    "download": "fetch PubMed's baseline and update files, verified and resumable",
    "prepare": "PubMed XML, JSONL or text -> cleaned documents, split train/validation/test",
    "recipes": "list the recipes for --config=NAME with sizes and hours, or print one",
    "vocab": "documents -> a WordPiece vocabulary",
    "pack": "documents + vocabulary -> TFRecord shards of packed rows",
    "pretrain": "shards -> a trained generator and discriminator",
    "evaluate": "checkpoint -> validation or test metrics",
    "report": "workdirs -> an HTML page: curves, alerts, speed, data, sample predictions",
    "doctor": "check this machine for a run; print the command that fixes each problem",
    "bench": "time a train step, the input pipeline, prepare or a checkpoint on this machine",
    "compile": "compile the train step for a TPU topology without a TPU: memory and estimated time",
    "export": "checkpoint -> Hugging Face folders",
    "import": "Hugging Face folder or TF1 checkpoint -> a config file that continues training from it",
    "corpora": "list corpora with a recipe, and prepare one from its authors' files",
    "finetune": "encoder + corpus -> a model for entities, relations, ... and its scores",
    "predict": "fine-tuned model + texts, PubMed XML or questions -> entities, labels or answers",
    "inspect": "show the contents of a shard, a manifest, a documents folder or a workdir",
}
MODULES = {"import": "import_"}  # `import` is a Python keyword


def program() -> NoReturn:
    """Runs `electramed` as a process and exits with its code: the console script of the package."""
    signals.handle_sigint()
    code = main()
    if code == EXIT_INTERRUPTED:
        signals.exit_now()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: the words after `electramed`; None: those of the process.

    Returns:
      the exit code: 0 done, 2 user error, 3 finished but some inputs were unusable, 42 preempted and saved,
      75 another process of the run has ended, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "-V", "--version"):
        print(f"electramed {__version__}" if arguments[:1] in (["-V"], ["--version"]) else _overview())
        return EXIT_DONE
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}; wanted one of {', '.join(COMMANDS)}")
        return _run(name, rest)
    except UserError as error:
        console.fail(f"electramed {name}: {error}")
        return error.exit_code
    except OSError as error:  # from a library: `files` raises UserErrors
        console.fail(f"electramed {name}: {_describe_os_error(error)}")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        console.fail(f"electramed {name}: interrupted; run the same command again to resume")
        return EXIT_INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    command, args = parse(name, arguments)
    with console.at_level(_level(args)):
        result = _run_command(command.run, args)
    is_worker = result.pop("is_worker", False)  # of several processes only the main one prints JSON
    if args.json and not is_worker:
        print(json.dumps(result))
    return result.get("exit_code", EXIT_DONE)


def parse(name: str, arguments: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """Imports a command and parses its arguments.

    Returns:
      the module of the command, and the parsed arguments. `settings` of them holds the `--config...` words unparsed.

    Raises:
      UserError: an unknown argument or a missing one.
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
        help="print the result as one line of JSON, the last of standard output",
    )
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument("--quiet", action="store_true", help="print only warnings, alerts and errors")
    verbosity.add_argument(
        "--verbose", action="store_true", help="also print the logs of libraries and the traceback of an error"
    )
    command.add_arguments(parser)
    # argparse does not know the settings (--config.a.b=c). The config reports the unknown ones.
    args, settings = parser.parse_known_args(arguments)
    args.settings = [s for s in settings if s.startswith("--config")]
    if unknown := [s for s in settings if not s.startswith("--config")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.settings and not getattr(command, "TAKES_CONFIG", False):
        raise UserError(f"takes no {args.settings[0].split('=')[0]}; see electramed {name} --help")
    return command, args


def _level(args: argparse.Namespace) -> str:
    """Returns the console level of the flags. Without a flag: the current level, which quickstart passes on."""
    if args.verbose:
        import logging

        import absl.logging

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        absl.logging.set_verbosity(absl.logging.INFO)
        return console.VERBOSE
    return console.QUIET if args.quiet else console.level()


def _run_command(run: Callable[[argparse.Namespace], dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Returns `run(args)`. With --verbose, prints the traceback of an error that is shown in one line."""
    try:
        return run(args)
    except (UserError, OSError):
        console.detail(traceback.format_exc())
        raise


def _describe_os_error(error: OSError) -> str:
    """Returns the line for an error of the operating system: the file, what is wrong, what to do next."""
    from electramed_jax.common.storage import files

    path = next((str(name) for name in (error.filename, error.filename2) if name is not None), "")
    if isinstance(error, FileNotFoundError):
        reason = f"{error.strerror or first_line(error)}; check the path"
    elif isinstance(error, PermissionError):
        reason = "permission denied; check its owner and mode"
    else:
        reason = files.describe_os_error(error)
    return f"{path}: {reason}" if path else f"{reason} (--verbose shows where)"


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line as a UserError, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage and exiting."""
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
            "electramed <command> --help lists the options of a command.",
            "",
            "exit codes: 0 done; 2 the last line says what to change; 3 finished, but some inputs were unusable;",
            "42 preempted, a checkpoint was saved; 75 another process of the run has ended; 130 interrupted.",
            "After 42, 75 and 130 run the same command again.",
        ]
    )


if __name__ == "__main__":
    program()
