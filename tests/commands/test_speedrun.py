"""`electramed speedrun`: one command from text to a record, which a second start only completes."""

from __future__ import annotations

import json
import pathlib

import pytest
import saved_run
from invented_corpus import conll

from electramed_jax import cli
from electramed_jax.commands import command_runner, speedrun

TINY = [
    "--config.model.hidden_size=16", "--config.model.num_heads=2", "--config.model.num_layers=1",
    "--config.model.intermediate_size=16", "--config.model.generator_hidden_size=8",
    "--config.model.generator_num_heads=1", "--config.model.generator_num_layers=1",
    "--config.model.generator_intermediate_size=8", "--config.model.embedding_size=8",
    "--config.batch_size=8", "--config.total_steps=4", "--config.optimizer.warmup_steps=1", "--config.eval_every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    saved_run.pack(folder)
    entities = folder / "eval" / "NCBI-disease"
    entities.mkdir(parents=True)
    for split, count in (("train", 24), ("dev", 12), ("test", 12)):
        (entities / f"{split}.txt").write_text(conll(count))
    return folder


@pytest.fixture
def one_evaluation(monkeypatch):
    one = speedrun.Evaluation("NCBI-disease", "finetune_ner", speedrun.MAIN, {"epochs": 1.0, "seeds": 1})
    monkeypatch.setattr(speedrun, "EVALUATIONS", {"NCBI-disease": one})
    monkeypatch.setattr(speedrun, "VOCABULARY", 90)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_run_ends_with_a_record_and_a_second_start_trains_nothing_again(
    corpus, one_evaluation, tmp_path, monkeypatch
):
    command = ["speedrun", f"--corpus={corpus}/text.jsonl", f"--eval={corpus}/eval", f"--workdir={tmp_path}", *TINY]
    assert cli.main(command) == 0
    record = json.loads((tmp_path / "speedrun.json").read_text())
    results = json.loads((tmp_path / "finetuned" / "NCBI-disease" / "results.json").read_text())
    assert record["mean"] == results["scores"]["test"]["f1"]["mean"] and record["steps"] == 4
    assert "| settings | --config.model.hidden_size=16" in (tmp_path / "speedrun.md").read_text()

    typed = []
    original = command_runner.run_command
    monkeypatch.setattr(command_runner, "run_command", lambda words: (typed.append(words[0]), original(words)))
    assert cli.main(command) == 0
    assert typed == ["pretrain", "finetune"], "both only read what they have written"
    again = json.loads((tmp_path / "speedrun.json").read_text())
    assert again["sha256"] == record["sha256"] and again["minutes"] > record["minutes"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_proxy_is_scored_on_dev_and_reads_no_test_set(corpus, one_evaluation, tmp_path):
    without_test = tmp_path / "eval" / "NCBI-disease"
    without_test.mkdir(parents=True)
    for split, name in (("train", "train"), ("dev", "devel")):
        (without_test / f"{name}.tsv").write_text((corpus / "eval" / "NCBI-disease" / f"{split}.txt").read_text())
    (without_test / "test.tsv").write_text("unreadable")
    command = [f"--corpus={corpus}/text.jsonl", f"--eval={tmp_path}/eval", f"--workdir={tmp_path}/run", *TINY]
    assert cli.main(["speedrun", "--proxy", *command]) == 0
    record = json.loads((tmp_path / "run" / "speedrun.json").read_text())
    results = json.loads((tmp_path / "run" / "finetuned" / "NCBI-disease" / "results.json").read_text())
    assert record["split"] == "dev" and record["mean"] == results["scores"]["dev"]["f1"]["mean"]
    assert "test" not in results["scores"]
    table = (tmp_path / "run" / "speedrun.md").read_text()
    assert "| NCBI-disease dev |" in table and "±" not in table, "one seed has no deviation"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_proxy_without_eval_has_validation_losses_alone(corpus, one_evaluation, tmp_path):
    command = ["speedrun", "--proxy", f"--corpus={corpus}/text.jsonl", f"--workdir={tmp_path}", *TINY]
    assert cli.main(command) == 0
    record = json.loads((tmp_path / "speedrun.json").read_text())
    assert record["mean"] is None and record["scores"] == {} and record["validation"]["loss"] > 0


def test_a_missing_corpus_is_found_before_anything_runs(tmp_path, capsys):
    (tmp_path / "eval" / "JNLPBA").mkdir(parents=True)
    words = ["speedrun", "--corpus=none.jsonl", f"--eval={tmp_path}/eval", f"--workdir={tmp_path}/run"]
    assert cli.main(words) == 2
    assert "no folder BC5CDR, NCBI-disease, ChemProt, DDI-2013" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_only_the_three_entity_corpora_count_in_the_mean():
    main = [name for name, one in speedrun.EVALUATIONS.items() if one.role == speedrun.MAIN]
    assert main == ["BC5CDR", "NCBI-disease", "JNLPBA"]
