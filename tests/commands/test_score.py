"""`electramed score`, and an Electric run from training to its exported folder."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

TEXTS = ["the protein binds the receptor", "receptor the binds protein the", "a", "cells " * 50]


@pytest.fixture(scope="module")
def pretrain(packed, quick_compilation):
    def run(workdir: pathlib.Path, *options: str, **settings: object) -> int:
        settings = {"objective__kind": "electric", "total_steps": 8, "save_every": 4, "eval_every": 8} | settings
        return cli.main(["pretrain", *quick_run.settings(packed, **settings), f"--workdir={workdir}", *options])

    return run


@pytest.fixture(scope="module")
def workdir(pretrain, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("electric") / "run"
    assert pretrain(folder) == 0
    return folder


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("exported")
    assert cli.main(["export", f"--workdir={workdir}", f"--output={folder}"]) == 0
    return folder


def scores(model: pathlib.Path, folder: pathlib.Path) -> list[dict]:
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    words = ["score", f"--model={model}", f"--input={folder}/texts.txt", f"--output={folder}/scores.jsonl"]
    assert cli.main(words) == 0
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def params_of(folder: pathlib.Path) -> dict[str, np.ndarray]:
    state = load_pretrained_state(str(folder), sharding.make_mesh(MeshConfig()))[1]
    return {name: np.asarray(leaf) for name, leaf in named_leaves(state).items()}


def test_a_resumed_run_is_bit_equal(pretrain, workdir, tmp_path):
    assert pretrain(tmp_path / "run", "--stop_after=4") == 0
    assert pretrain(tmp_path / "run") == 0
    expected = params_of(workdir)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "run"), expected)
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(0.1 < one["replaced_fraction"] < 0.25 for one in metrics if "replaced_fraction" in one)


def test_scores_are_the_sums_of_negative_energies_of_the_exported_model_in_torch(exported, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported / "discriminator")
    model = transformers.AutoModelForPreTraining.from_pretrained(exported / "discriminator").eval()
    got = scores(exported, tmp_path)
    assert [one["text"] for one in got] == TEXTS
    for one in got:
        pieces = tokenizer(one["text"], add_special_tokens=False)["input_ids"]
        expected = 0.0
        for start in range(0, len(pieces), quick_run.ROW_LENGTH - 2):  # each row is scored by itself
            row = pieces[start : start + quick_run.ROW_LENGTH - 2]
            ids = torch.tensor([[tokenizer.cls_token_id, *row, tokenizer.sep_token_id]])
            with torch.no_grad():
                expected -= float(model(ids).logits[0, 1:-1].sum())
        assert one["tokens"] == len(pieces)
        assert one["pseudo_log_likelihood"] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_workdir_has_the_scores_of_its_export(workdir, exported, tmp_path):
    of_export = scores(exported / "discriminator", tmp_path)
    for ours, theirs in zip(scores(workdir, tmp_path), of_export, strict=True):
        assert ours["pseudo_log_likelihood"] == pytest.approx(theirs["pseudo_log_likelihood"], rel=1e-4, abs=1e-4)


def test_the_card_and_config_say_that_the_logits_are_energies(exported):
    assert not (exported / "generator").exists(), "transformers has no class for two towers"
    card = (exported / "discriminator" / "README.md").read_text()
    assert "# electric" not in card and "noise-contrastive estimation" in card and "pseudo-log-likelihood" in card
    assert "| objective | electric |" in card
    assert json.loads((exported / "discriminator" / "config.json").read_text())["pretraining_objective"] == "electric"


def test_energies_are_not_shown_as_probabilities_of_replacement(exported, capsys):
    from electramed_jax.common.errors import UserError
    from electramed_jax.hf.pretrained import detect

    with pytest.raises(UserError, match="an Electric model gives each token an energy"):
        detect.predict_replaced(str(exported / "discriminator"), ["aspirin"])


def test_an_electra_model_has_no_likelihood(pretrain, tmp_path, capsys):
    assert pretrain(tmp_path / "run", objective__kind="electra") == 0
    assert cli.main(["score", f"--model={tmp_path}/run", "--text=aspirin"]) == 2
    assert "wanted one that was trained with config.objective.kind=electric" in capsys.readouterr().err


def test_the_report_shows_the_probability_that_a_token_is_noise(workdir, tmp_path):
    assert cli.main(["report", str(workdir), f"--output={tmp_path}/report", "--rows=2"]) == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model__tying": "all"}, "model.tying=all"),
        ({"objective__temperature": 2.0}, "objective.temperature=1"),
        ({"objective__corrective_weight": 1.0}, "objective.corrective_weight=1; set it to 0"),
    ],
)
def test_settings_that_contradict_electric_are_refused(pretrain, tmp_path, capsys, settings, named):
    assert pretrain(tmp_path / "run", **settings) == 2
    assert named in capsys.readouterr().err
