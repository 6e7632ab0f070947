"""Entry point of `electramed <command>`. Imports the module of the chosen command only, so that --help is fast."""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from electramed_jax import __version__
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, first_line
from electramed_jax.common.processes import signals
from electramed_jax.common.processes.quiet_libraries import quiet_libraries

COMMANDS = {
    "quickstart": "run the whole pipeline on generated text in a few minutes: start here",
    "download": "fetch PubMed's baseline and update files, verified and resumable",
    "prepare": "PubMed XML, JSONL or text -> cleaned documents, split train/validation/test",
    "recipes": "list the recipes for --config=NAME with sizes and hours, or print one",
    "vocab": "documents -> a WordPiece vocabulary",
    "pack": "documents + vocabulary -> TFRecord shards of packed rows",
    "pretrain": "shards -> a trained generator and discriminator",
    "evaluate": "checkpoint -> validation or test metrics; fine-tuned model + file -> its scores",
    "report": "workdirs -> an HTML page: curves, alerts, speed, data, sample predictions",
    "doctor": "check this machine for a run; print the command that fixes each problem",
    "bench": "time a train step, the input pipeline, prepare or a checkpoint on this machine",
    "compile": "compile the train step for a TPU topology without a TPU: memory and estimated time",
    "export": "checkpoint -> Hugging Face folders",
    "import": "Hugging Face folder or TF1 checkpoint -> a config file that continues training from it",
    "corpora": "list corpora with a recipe, and prepare one from its authors' files",
    "finetune": "encoder + corpus -> a model for entities, relations, ... and its scores",
    "speedrun": "the best model in a fixed time: pre-train, fine-tune and record the scores",
    "sweep": "fine-tune with every combination of a grid of settings, and compare them on dev",
    "blurb": "fine-tune a model on BLURB's data sets at hand: one table with published scores",
    "compare": "two fine-tuning runs -> difference of their scores, interval and p-value",
    "errors": "fine-tuned model -> its errors, by kind",
    "predict": "fine-tuned model + texts, PubMed XML or questions -> entities, labels or answers",
    "score": "Electric model + texts -> their pseudo-log-likelihoods",
    "serve": "fine-tuned or pre-trained model -> a local page and JSON interface to try it",
    "inspect": "show the contents of a folder or file that these commands read or write",
    "completion": "print the script with which bash, zsh or fish complete commands, options and settings",
    "version": "print the versions of electramed and of the packages it runs on",
}
HELP_WORDS = ("-h", "--help", "--help-all")
MODULES = {"import": "import_"}  # `import` is a Python keyword


def program() -> NoReturn:
    """Runs `electramed` as a process and exits with its code: the console script of the package."""
    signals.handle_sigint()
    quiet_libraries()
    if "_ARGCOMPLETE" in os.environ:
        complete()
    try:
        code = main()
    except BrokenPipeError:  # the reader of the overview, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes standard output at exit
        code = EXIT_DONE
    if code == EXIT_INTERRUPTED:
        signals.exit_now()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: the words after `electramed`; None: those of the process.

    Returns:
      the exit code: 0 done, 2 user error, 3 finished but some inputs were unusable, 42 preempted and saved, or
      another process of the run was lost, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"]:  # of a command
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return EXIT_DONE
    if arguments[0] in ("-V", "--version"):
        print(f"electramed {__version__}")
        return EXIT_DONE
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}{_did_you_mean(name, COMMANDS)}; electramed help lists them")
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
    command, arguments = _import_command(name), join_settings(arguments)
    parser, kind = make_parser(name, command), _kind_of_settings(command)
    if kind and any(word in HELP_WORDS for word in arguments):
        from electramed_jax.config.settings_help import settings_help

        parser.epilog = settings_help(kind, arguments, all_settings="--help-all" in arguments)
    _check_options(parser, arguments, kind)
    # argparse does not know the settings (--config.a.b=c). The config reports the unknown ones.
    args, settings = parser.parse_known_args(arguments)
    args.settings = [s for s in settings if s.startswith("--config")]
    if unknown := [s for s in settings if not s.startswith("--config")]:
        hint = _suggest_config(unknown[0]) if kind else ""
        parser.error(f"unexpected argument {unknown[0]!r}{hint}")
    if args.settings and not kind:
        raise UserError(f"takes no {args.settings[0].split('=')[0]}; see electramed {name} --help")
    return command, args


def _import_command(name: str) -> ModuleType:
    return importlib.import_module(f"electramed_jax.commands.{MODULES.get(name, name)}")


def _kind_of_settings(command: ModuleType) -> str:
    """Returns "pretrain" or "finetune" for a command that takes `--config`; "" for the others."""
    return getattr(command, "TAKES_CONFIG", "")


def make_parser(name: str, command: ModuleType) -> _Parser:
    """Returns the parser of a command, without the settings."""
    parser = _Parser(
        prog=f"electramed {name}",
        description=command.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if _kind_of_settings(command):
        parser.add_argument("--help-all", action="help", help="show this help message with all settings and exit")
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
    return parser


def join_settings(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `--config.name=value` in place of `--config.name value`."""
    joined: list[str] = []
    for word in arguments:
        if joined and _lacks_value(joined[-1]) and not word.startswith("--") and word not in HELP_WORDS:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _lacks_value(word: str) -> bool:
    return (word == "--config" or word.startswith("--config.")) and "=" not in word


def _check_options(parser: argparse.ArgumentParser, arguments: Sequence[str], kind: str) -> None:
    """Raises UserError for an unknown option, with the nearest option or setting; before a missing one is reported."""
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    for word in arguments:
        option = word.partition("=")[0]
        if option == "--":
            return
        if option.startswith("--") and not option.startswith("--config") and option not in known:
            parser.error(f"no option {option}{_suggest_option(option, known, kind)}")


def _suggest_option(option: str, known: Sequence[str], kind: str) -> str:
    """Returns " (did you mean --workdir?)": an option, or a setting with this last part of its name."""
    name = option.removeprefix("--").replace("-", "_")
    if near := difflib.get_close_matches(f"--{name}", known, 1, cutoff=0.75):
        return f" (did you mean {near[0]}?)"
    if not kind:
        return ""
    from electramed_jax.config.settings_help import list_names

    by_last_part: dict[str, str] = {}
    for setting in list_names(kind):
        by_last_part.setdefault(setting.split(".")[-1], setting)
    name = name.split(".")[-1]
    containing = sorted((last for last in by_last_part if name in last.split("_")), key=len)  # total_steps for --steps
    near = containing or difflib.get_close_matches(name, by_last_part, 1, cutoff=0.75)
    return f" (did you mean --config.{by_last_part[near[0]]}?)" if near else ""


def _suggest_config(word: str) -> str:
    """Returns a suggestion for a stray word that is the name of a recipe, or a setting without dashes."""
    from electramed_jax.config.recipes import list_recipes

    if word in list_recipes():
        return f" (did you mean --config={word}?)"
    return f" (did you mean --{word}?)" if word.startswith("config") else ""


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def complete() -> NoReturn:
    """Prints the completions of the command line that a shell requests, and exits; see `electramed completion`."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    parser = argparse.ArgumentParser(prog="electramed")
    parser.add_argument("-V", "--version", action="store_true")
    commands = parser.add_subparsers(parser_class=_Parser)
    for name, text in COMMANDS.items():
        if words[1:2] != [name]:
            commands.add_parser(name, help=text)
            continue
        command = _import_command(name)
        chosen = commands.add_parser(name, help=text, parents=[make_parser(name, command)], add_help=False)
        if kind := _kind_of_settings(command):
            _add_settings(chosen, kind)
    commands.add_parser("help", help="show the help of a command").add_argument("name", choices=list(COMMANDS))
    argcomplete.autocomplete(parser)
    sys.exit(EXIT_USER_ERROR)  # not reached: autocomplete exits


def _add_settings(parser: argparse.ArgumentParser, kind: str) -> None:
    """Adds `--config` with the names of the recipes, and an option for each setting, for completion."""
    from electramed_jax.config import recipes
    from electramed_jax.config.fields import list_groups
    from electramed_jax.config.settings_help import CLASSES

    names = [recipe.name for recipe in recipes.list_recipes().values() if recipe.command == kind]
    parser.add_argument("--config", choices=names)
    for group in list_groups(CLASSES[kind]):
        for one in group.settings:
            choices = one.constraint.choices if one.constraint else ()
            parser.add_argument(f"--config.{one.name}", help=one.help.replace("%", "%%"), choices=choices or None)


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
            "electramed help <command> lists the options of a command, and its settings.",
            "",
            "exit codes: 0 done; 2 the last line names the change; 3 finished, but some inputs were unusable;",
            "42 preempted and saved, or another process of the run was lost; 130 interrupted.",
            "After 42 and 130 run the same command again.",
        ]
    )


if __name__ == "__main__":
    program()
