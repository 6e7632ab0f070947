"""`electramed evaluate`, `errors`, `compare`, `sweep` and `blurb` with fine-tuned models."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pathlib
import shutil

import jax
import pytest
import quick
from invented_corpora import SOURCES
from invented_corpus import TOKENS, write_conll

from electramed_jax import cli
from electramed_jax.finetune.analysis import blurb, sweep
from electramed_jax.finetune.corpora import prepare
from electramed_jax.finetune.training import loop

pytestmark = pytest.mark.slow

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compiles without optimization, and once for all runs with the same spec and mesh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        for name in ("jit_train_step", "jit_predict_step"):
            patch.setattr(loop, name, functools.lru_cache(getattr(loop, name)))
        yield


def electramed(*arguments: str) -> tuple[int, dict]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = cli.main([*arguments, "--json"])
    return code, json.loads(output.getvalue() or "{}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    write_conll(folder / "corpus")
    return folder


def scratch(folder: pathlib.Path) -> list[str]:
    start = ["--config.init=scratch", "--config.init_size_from=tiny", f"--config.vocab={folder}/vocab.txt"]
    return [*start, "--config.task.max_seq_length=32", "--config.batch_size=8", "--config.epochs=2"]


@pytest.fixture(scope="module")
def swept(folder) -> dict:
    """The result of a sweep over two seeds, which share a compilation."""
    arguments = [f"--config={CONFIGS}/finetune_ner.py", f"--config.task.data={folder}/corpus", *scratch(folder)]
    arguments += ["--config.optimizer.learning_rate=0.002", "--grid=seed=0,1", f"--workdir={folder}/sweep"]
    code, result = electramed("sweep", *arguments)
    assert code == 0
    return result | {"arguments": arguments}


def test_a_sweep_compares_all_combinations_on_dev_and_leaves_test_alone(swept, folder):
    assert sorted(row["settings"]["seed"] for row in swept["rows"]) == ["0", "1"]
    means = [row["mean"] for row in swept["rows"]]
    assert means == sorted(means, reverse=True)
    text = (folder / "sweep/sweep.md").read_text()
    assert f"| {swept['rows'][0]['settings']['seed']} | {means[0]:.2f} |" in text
    assert not list((folder / "sweep").glob("*/seed-*/predictions-test.txt"))
    assert list((folder / "sweep/seed=0/seed-0").glob("predictions-dev.txt"))
    assert electramed("sweep", *swept["arguments"])[1]["rows"] == swept["rows"], "finished ones are not trained again"


def test_two_runs_are_compared_on_dev(swept):
    first, second = (row["workdir"] for row in swept["rows"])
    code, found = electramed("compare", first, second, "--split=dev", "--resamples=200")
    assert code == 0
    assert [found["first"], found["second"]] == pytest.approx([row["mean"] for row in swept["rows"]])
    assert found["examples"] == 12
    assert electramed("compare", first, second)[0] == 2, "test was not scored"


def test_a_model_is_scored_on_another_file_as_in_its_own_run(swept, folder, capsys):
    run = swept["rows"][0]
    arguments = ["evaluate", f"--workdir={run['workdir']}", f"--input={folder}/corpus/dev.txt"]
    code, found = electramed(*arguments, f"--output={folder}/scores")
    assert code == 0 and found["scores"]["f1"] == pytest.approx(run["mean"])
    seed = run["settings"]["seed"]
    of_run = pathlib.Path(run["workdir"]) / f"seed-{seed}" / "predictions-dev.txt"
    assert (folder / "scores/predictions.txt").read_text() == of_run.read_text()
    assert any("dev and test are the same file" in warning for warning in found["warnings"])
    assert electramed("evaluate", f"--workdir={run['workdir']}", "--step=3")[0] == 2
    assert "--step does not apply to" in capsys.readouterr().err


def test_a_model_whose_training_file_has_other_labels_is_not_scored(swept, folder, tmp_path, capsys):
    copy = shutil.copytree(swept["rows"][0]["workdir"], tmp_path / "run")
    other = write_conll(tmp_path / "corpus")
    (other / "train.txt").write_text((other / "train.txt").read_text().replace("Drug", "Chemical"))
    config = json.loads((copy / "config.json").read_text())
    config["task"]["data"] = str(other)
    (copy / "config.json").write_text(json.dumps(config))
    assert electramed("evaluate", f"--workdir={copy}", f"--input={folder}/corpus/test.txt")[0] == 2
    assert "its training file now has other labels" in capsys.readouterr().err


def test_errors_are_listed(swept, folder):
    run = swept["rows"][0]["workdir"]
    code, found = electramed("errors", f"--workdir={run}", f"--output={folder}/errors.md")
    assert code == 0 and found["examples"] == 12
    assert f"{found['wrong']} of 12 examples have an error" in (folder / "errors.md").read_text()


def test_a_grid_is_every_combination():
    assert sweep.parse_grid(["epochs=3,5", "optimizer.learning_rate=1e-4"]) == [
        {"epochs": "3", "optimizer.learning_rate": "1e-4"},
        {"epochs": "5", "optimizer.learning_rate": "1e-4"},
    ]
    assert cli.main(["sweep", "--grid=epochs", "--workdir=x", f"--config={CONFIGS}/finetune_ner.py"]) == 2


def test_blurb_runs_what_is_at_hand_and_names_the_rest(folder, capsys):
    source = folder / "source"
    source.mkdir()
    prepare.prepare("chemprot", str(SOURCES["chemprot"](source)), str(folder / "corpora/chemprot"), any_counts=True)
    arguments = [f"--data={folder}/corpora", f"--workdir={folder}/blurb", "--model=scratch", *scratch(folder)[1:]]
    code, table = electramed("blurb", *arguments, "--config.text.placeholders=whole")
    assert code == 0 and table["score"] is None
    assert [name for name in table["rows"] if name not in table["missing"]] == ["chemprot"]
    assert len(table["missing"]) == len(blurb.DATA_SETS) - 1
    assert "| chemprot | relations | f1 |" in (folder / "blurb/blurb.md").read_text()
    assert "Missing: bc5-chemical," in capsys.readouterr().err
