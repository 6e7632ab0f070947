"""The import graph: no cycle between files or folders, `data` and `model` apart, heavy libraries loaded on demand."""

from __future__ import annotations

import graphlib
import pathlib
import subprocess
import sys

import import_graph
import pytest

FILES = import_graph.file_graph()
FOLDERS = import_graph.folder_graph(FILES)
MAX_MODULES = 12  # of a folder


@pytest.mark.parametrize("graph", [FILES, FOLDERS], ids=["files", "folders"])
def test_imports_have_no_cycle(graph):
    """Imports inside functions count too."""
    try:
        import_graph.order(graph)
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]), pytrace=False)


def test_the_parser_sees_imports():
    """So that the tests above and below compare something."""
    assert "model/losses.py" in FILES["pretrain/step.py"]
    assert "config/presets.py" in FILES["finetune/init_from.py"], "an import inside a function, or a re-export"
    assert {"pretrain", "finetune", "hf"} <= FOLDERS["commands"]
    assert len(FILES) > 200 and sum(map(len, FILES.values())) > 800


def test_a_cycle_is_found(tmp_path):
    """The cycle is inside one folder, through an import inside a function."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").write_text("")
    (tmp_path / "folder" / "a.py").write_text("from electramed_jax.folder import b\n")
    (tmp_path / "folder" / "b.py").write_text("def f():\n    from electramed_jax.folder.a import g\n")
    graph = import_graph.file_graph(tmp_path)
    with pytest.raises(graphlib.CycleError):
        import_graph.order(graph)
    assert import_graph.folder_graph(graph)["folder"] == set()


@pytest.mark.parametrize(("package", "other"), [("data", "model"), ("model", "data")])
def test_data_and_model_do_not_reach_each_other(package, other):
    """They meet at the manifest and at the batch."""
    for folder in FOLDERS:
        if folder.split("/")[0] == package:
            found = {name for name in import_graph.reachable(FOLDERS, folder) if name.split("/")[0] == other}
            assert not found, f"{folder} reaches {', '.join(sorted(found))}"


def test_a_folder_has_at_most_so_many_modules():
    """A newcomer reads a listing of this length at a glance. `commands/` has one file for each command."""
    for folder in sorted({path.parent for path in import_graph.PACKAGE.rglob("*.py")}):
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        if folder.name != "commands":
            assert len(modules) <= MAX_MODULES, f"{folder}: {', '.join(sorted(modules))}"


def test_tests_mirror_the_package():
    """Every folder of tests/ is one of the package, or one that is named here."""
    own = {"benchmarks", "golden", "launch", "support", "."}
    tests = pathlib.Path(__file__).resolve().parent
    folders = {str(path.parent.relative_to(tests)) for path in tests.rglob("*.py")} - own
    assert [folder for folder in sorted(folders) if not (import_graph.PACKAGE / folder).is_dir()] == []


def test_no_module_is_called_utils():
    vague = {"util", "utils", "helper", "helpers", "misc", "tools"}
    modules = import_graph.PACKAGE.rglob("*.py")
    assert [path for path in modules if path.stem in vague or path.parent.name in vague] == []


def loaded_after(statement: str) -> set[str]:
    """Returns the top-level modules that a fresh process has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_a_training_process_imports_neither_tensorflow_nor_torch():
    loaded = loaded_after("from electramed_jax.commands import pretrain\nfrom electramed_jax.pretrain import loop")
    assert {"jax", "orbax"} <= loaded
    assert loaded.isdisjoint({"tensorflow", "torch", "transformers", "tensorflow_datasets"})


def test_processes_that_only_read_text_do_not_load_jax():
    modules = "from electramed_jax.data.corpus import build\nfrom electramed_jax.data.packing import build\n"
    modules += "from electramed_jax.data.tokenizer import tokenizer, train_vocab"
    assert "jax" not in loaded_after(modules)
