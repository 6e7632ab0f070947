"""Counts words that make sentences hard to understand, and finds docstrings that begin badly. Exits with 1 above a limit.

python tests/support/word_check.py [--list]

Code, comments, docstrings, messages and Markdown should use plain technical English: things do not say, ask, know or
stand; a value is a metric or a statistic, not a figure; a run resumes, it does not go on. The count is a hint, and some
uses are right, so the limits are not zero. The first line of a docstring says what a function returns or does.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMITS = {("electramed_jax",): 80, ("tests",): 75, ("launch", "configs", "README.md"): 10}
SKIPPED = {"word_check.py", "articles.py", "figures.py", "pictures.py"}  # this list; generated text; plots

# Words -> what to write instead.
WORDS = {
    "told tells telling untold": "report, log, pending",
    "say says said speaks speak": "print, contain, use",
    "ask asks asked": "request, query, call",
    "nobody somebody anybody": "no process, another run",
    "person persons": "user, reader",
    "whose": "name the owner",
    "suits suited suit": "supports, is supported",
    "born bears borne": "created, initialized",
    "mend mends mended": "fix, repair",
    "forgets forgot forgotten": "discard",
    "stands stand stood": "is, is stored, is written",
    "lies lie lain": "is stored, is",
    "beside": "next to, in addition to",
    "anew afresh": "again, from scratch",
    "wherever": "at any position",
    "lone": "single",
    "strange strangers": "unknown, invalid",
    "sought learnt": "searched, learned",
    "trouble patience": "failure, retry limit",
    "account accounts figures": "summary, statistics, metrics",
    "house doorstep guests": "package, entry point",
}
PATTERN = re.compile(r"\b(" + "|".join(word for words in WORDS for word in words.split()) + r")\b", re.IGNORECASE)
BAD_BEGINNING = re.compile(r"(Of|As|Those|The same|What)\b")


def texts(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, text): comments and strings of Python files, every line of others; `code` and {expressions} are left out."""
    with path.open("rb") as file:
        if path.suffix != ".py":
            lines = enumerate(file.read().decode().splitlines(), 1)
        else:
            kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
            found = [token for token in tokenize.tokenize(file.readline) if token.type in kinds]
            lines = ((token.start[0] + i, line) for token in found for i, line in enumerate(token.string.split("\n")))
        yield from ((number, re.sub(r"`[^`]+`|\{[^{}]*\}", " ", line)) for number, line in lines)


def bad_docstrings(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, first line) of docstrings that do not say what is returned or done."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            docstring = ast.get_docstring(node) or ""
            if BAD_BEGINNING.match(docstring):
                yield getattr(node, "lineno", 1), docstring.partition("\n")[0]


def files(name: str) -> list[pathlib.Path]:
    """Returns the checked files of a folder, or the file itself."""
    if (ROOT / name).is_file():
        return [ROOT / name]
    found = (path for path in (ROOT / name).rglob("*") if path.suffix in {".py", ".md", ".sh"})
    return sorted(path for path in found if path.name not in SKIPPED and "golden" not in path.parts)


def main() -> int:
    failed = False
    for names, limit in LIMITS.items():
        found = [
            (path, number, match[0])
            for name in names
            for path in files(name)
            for number, text in texts(path)
            for match in PATTERN.finditer(text)
        ]
        failed |= len(found) > limit
        print(f"{' '.join(names)}: {len(found)} words of {limit} at most")
        if "--list" in sys.argv or len(found) > limit:
            for path, number, word in found:
                instead = next(plain for words, plain in WORDS.items() if word.lower() in words.split())
                print(f"  {path.relative_to(ROOT)}:{number}: {word} -> {instead}")
    for path in files("electramed_jax"):
        if path.suffix == ".py":
            for number, line in bad_docstrings(path):
                failed = True
                print(
                    f"{path.relative_to(ROOT)}:{number}: docstring begins {line[:40]!r}; write what is returned or done"
                )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
