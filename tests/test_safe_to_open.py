"""Opening a file runs no code and writes nowhere else: no pickles; archives are read, never unpacked to disk."""

from __future__ import annotations

import ast
import pathlib

import pytest

# Modules that run code from a file.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Functions that write files under the names in an archive.
UNPACK = {"extract", "extractall", "unpack_archive"}
# Functions whose argument decides whether a file may run code: name -> (argument, safe value, value if it is left out).
GUARDED = {"load": {"np": ("allow_pickle", False, False), "torch": ("weights_only", True, None)}}


@pytest.fixture(scope="module")
def modules(repository) -> dict[pathlib.Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in (repository / "electramed_jax").rglob("*.py")}


def test_no_module_imports_a_format_that_runs_code(modules):
    imported = {
        (path.name, name.partition(".")[0])
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert len(imported) > 500, "the scan sees the imports"
    assert [pair for pair in imported if pair[1] in UNSAFE_MODULES] == []


def test_no_archive_is_unpacked_to_disk(modules):
    called = [
        (path.name, node.func.attr)
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert "extractfile" in {name for _, name in called}, "the scan sees the reader of archives"
    assert [pair for pair in called if pair[1] in UNPACK] == []


def test_arrays_and_weights_are_opened_without_pickle(modules):
    calls = [
        (path.name, node)
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GUARDED
    ]
    seen = set()
    for name, call in calls:
        guarded = GUARDED[call.func.attr].get(getattr(call.func.value, "id", ""))
        if guarded is None:
            continue
        argument, safe, default = guarded
        seen.add(argument)
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == argument}
        assert given.get(argument, default) is safe, f"{name}, line {call.lineno}: {argument}"
    assert seen == {"allow_pickle", "weights_only"}, "the scan sees the calls"
