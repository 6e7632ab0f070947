"""Counts words that make sentences hard to understand, and finds docstrings that begin badly. Exits with 1 above a limit.

python tests/support/word_check.py [--list]

Code, comments, docstrings, messages and Markdown should use plain technical English, so that a stranger understands a
sentence at first reading. words.txt lists words that this project once used in a meaning of its own. The count is a hint,
and some uses are right, so the limits are not zero. The first line of a docstring states what a function returns or does.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMITS = {("electramed_jax",): 80, ("tests",): 75, ("launch", "configs", ".docs", "README.md"): 10}
SKIPPED = {"articles.py", "figures.py", "pictures.py"}  # generated text; plots


def read_words() -> dict[str, str]:
    """Returns {word or phrase: what to write instead} from words.txt."""
    lines = (pathlib.Path(__file__).with_name("words.txt")).read_text(encoding="utf-8").splitlines()
    pairs = [line.split(": ") for line in lines if not line.startswith("#")]
    return {word.replace("_", " "): instead for words, instead in pairs for word in words.split()}


WORDS = read_words()
PATTERN = re.compile(r"\b(" + "|".join(WORDS) + r")\b", re.IGNORECASE)
BAD_BEGINNING = re.compile(r"(Of|As|Those|The same|What)\b")


def texts(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, text) of comments and strings in Python files, and of every line in others.

    `code` and {expressions} are left out.
    """
    with path.open("rb") as file:
        if path.suffix != ".py":
            lines = enumerate(file.read().decode().splitlines(), 1)
        else:
            kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
            found = [token for token in tokenize.tokenize(file.readline) if token.type in kinds]
            lines = ((token.start[0] + i, line) for token in found for i, line in enumerate(token.string.split("\n")))
        yield from ((number, re.sub(r"`[^`]+`|\{[^{}]*\}", " ", line)) for number, line in lines)


def bad_docstrings(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, first line) of docstrings with a first line that names neither a result nor an action."""
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
                print(f"  {path.relative_to(ROOT)}:{number}: {word} -> {WORDS[word.lower()]}")
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
