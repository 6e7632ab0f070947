"""Writes the generated parts of electramed_jax/README.md: the import layers and the list of files.

python tests/support/package_map.py          # after a change of the tree; a test compares
"""

from __future__ import annotations

import ast
import collections
import pathlib

import import_graph

README = import_graph.PACKAGE / "README.md"
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"
LINE = 110  # columns of the list of files


def summary(path: pathlib.Path) -> str:
    """Returns the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def layers() -> str:
    """Returns the folders by layer, highest first: a folder imports only from lines below its own."""
    graph = import_graph.folder_graph(import_graph.file_graph())
    by_layer: dict[int, list[str]] = collections.defaultdict(list)
    for folder, layer in import_graph.layers(graph).items():
        if any(path.name != "__init__.py" for path in (import_graph.PACKAGE / folder).glob("*.py")) or folder == "cli":
            by_layer[layer].append(folder)
    lines = [f"{layer:>2}   {'   '.join(sorted(by_layer[layer]))}" for layer in sorted(by_layer, reverse=True)]
    return "\n".join(["```text", *lines, "```"])


def folders() -> str:
    """Returns a table with each folder, its summary and its files."""
    rows = ["| folder | what is in it | files |", "|---|---|---|"]
    for init in sorted(import_graph.PACKAGE.rglob("__init__.py")):
        folder = init.parent
        files = sorted(path.stem for path in folder.glob("*.py") if path.name != "__init__.py")
        if folder != import_graph.PACKAGE and files:
            name = folder.relative_to(import_graph.PACKAGE)
            rows.append(f"| [`{name}/`]({name}) | {summary(init)} | {', '.join(files)} |")
    return "\n".join(rows)


def updated(text: str) -> str:
    """Returns the README with its generated parts written anew."""
    for name, part in (("layers", layers), ("folders", folders)):
        before, begin, rest = text.partition(BEGIN.format(name))
        _, end, after = rest.partition(END)
        assert begin and end, f"{README}: no part {BEGIN.format(name)} ... {END}"
        text = f"{before}{begin}\n{part()}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
