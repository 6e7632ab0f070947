"""The import graph of the package, read from its source: which file, and which folder, imports which."""

from __future__ import annotations

import ast
import graphlib
import pathlib
from collections.abc import Mapping

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "electramed_jax"
NAME = PACKAGE.name
Graph = Mapping[str, set[str]]  # importer -> what it imports


def file_graph(package: pathlib.Path = PACKAGE) -> dict[str, set[str]]:
    """Returns {file: files it imports}, paths relative to the package.

    Imports inside functions count. `from electramed_jax.x import y` counts as an import of `x/y.py` if that is a module,
    otherwise of `x.py` or `x/__init__.py`. Re-exports in `__init__.py` are followed to the file that defines the name.
    """
    files = sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))
    trees = {file: ast.parse((package / file).read_text(encoding="utf-8")) for file in files}
    modules = {module_of(file): file for file in files}
    graph: dict[str, set[str]] = {}
    for file, tree in trees.items():
        found = {target for name in imported_names(tree, file) if (target := _resolve(name, modules, trees))}
        graph[file] = found - {file}
    return graph


def imported_names(tree: ast.AST, file: str = "") -> list[str]:
    """Returns the dotted names that a module imports anywhere in its text; `from a import b` gives "a.b"."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def module_of(file: str) -> str:
    """Returns "electramed_jax.model.layers" for "model/layers.py"."""
    return ".".join([NAME, *pathlib.PurePath(file).with_suffix("").parts]).removesuffix(".__init__")


def _resolve(name: str, modules: Mapping[str, str], trees: Mapping[str, ast.AST]) -> str | None:
    """Returns the file that defines a dotted name; None for names of other packages and for `electramed_jax` itself."""
    if name in modules and not modules[name].endswith("__init__.py"):
        return modules[name]
    module, _, attribute = name.rpartition(".")
    if module not in modules or module == NAME:
        return None
    file = modules[module]
    if file.endswith("__init__.py"):
        for exported in imported_names(trees[file], file):
            if exported.rpartition(".")[2] == attribute:
                return _resolve(exported, modules, trees)
    return file


def folder_graph(files: Graph) -> dict[str, set[str]]:
    """Returns {folder: folders it imports}; loose files of a folder are one node, `cli.py` is "cli"."""
    graph: dict[str, set[str]] = {}
    for file, imported in files.items():
        node = graph.setdefault(folder_of(file), set())
        node |= {folder_of(other) for other in imported} - {folder_of(file)}
    return graph


def folder_of(file: str) -> str:
    """Returns "model/ops" for "model/ops/remat.py", and "cli" for the loose "cli.py"."""
    path = pathlib.PurePath(file)
    return str(path.parent) if path.parent.name else path.stem


def order(graph: Graph) -> list[str]:
    """Returns the nodes, each after all that it imports.

    Raises:
      graphlib.CycleError: with the cycle as its second argument.
    """
    return list(graphlib.TopologicalSorter(graph).static_order())


def layers(graph: Graph) -> dict[str, int]:
    """Returns {node: layer}: 1 for a node that imports no other, else one more than the highest that it imports."""
    found: dict[str, int] = {}
    for node in order(graph):
        found[node] = 1 + max((found[other] for other in graph[node]), default=0)
    return found


def reachable(graph: Graph, start: str) -> set[str]:
    """Returns every node that `start` imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found
