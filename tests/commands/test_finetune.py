"""`electramed finetune`: starting points, resume, export and predictions of its models, user errors."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import re
import signal

import jax
import numpy as np
import pytest
import quick
import quick_run
import saved_run
from invented_corpus import write_conll

from electramed_jax import cli
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config import finetune as config_lib
from electramed_jax.finetune import load_model
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.ner import tags
from electramed_jax.hf.format import tying

pytestmark = pytest.mark.slow  # each test needs a trained run

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def flags(corpus, workdir, **settings: object) -> list[str]:
    settings = {"task.max_seq_length": 32, "batch_size": 8, "epochs": 2, "log_every": 2, "dropout": 0.1} | settings
    options = [f"--config.{name.replace('__', '.')}={value}" for name, value in settings.items()]
    return [f"--config={CONFIGS}/finetune_ner.py", f"--config.task.data={corpus}", f"--workdir={workdir}", *options]


def electramed(*arguments: str) -> tuple[int, dict]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = cli.main([*arguments, "--json"])
    return code, json.loads(output.getvalue() or "{}")


@pytest.fixture(scope="module")
def quick_compilation():
    """`jax.jit` compiles with few optimizations, as `quick.jit` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    return write_conll(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, quick_compilation):
    """(workdir of a pre-training run, its config, its parameters)."""
    packed = saved_run.pack(tmp_path_factory.mktemp("packed"))
    workdir = tmp_path_factory.mktemp("run")
    return workdir, *saved_run.save(packed, workdir, tying="gradient_disentangled")


@pytest.fixture(scope="module")
def finetuned(pretrained, corpus, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    code, result = electramed("finetune", *flags(corpus, workdir, init=pretrained[0], seeds=2))
    assert code == 0 and result["seeds"] == [0, 1] and result["workdir"] == str(workdir)
    assert 0 <= result["scores"]["test"]["f1"]["mean"] <= 100
    return workdir


def settings_of(*arguments: str):
    return config_lib.from_flags([a for a in arguments if a.startswith("--config")])


def test_a_run_starts_from_the_discriminator_of_a_workdir_or_of_its_export(pretrained, corpus, tmp_path):
    workdir, config, params = pretrained
    assert cli.main(["export", f"--workdir={workdir}", f"--output={tmp_path}/hf"]) == 0
    wanted = tying.split_networks(params, config.model.tying)["discriminator"]
    rows = config.model.vocab_size  # the rows after them are padding
    for folder in (workdir, tmp_path / "hf", tmp_path / "hf" / "discriminator"):
        start = load_init_encoder(settings_of(*flags(corpus, "w", init=folder, dropout=0.2)))
        got = {name.removeprefix("encoder/"): leaf for name, leaf in named_leaves(start.params).items()}
        assert got.keys() == {name for name in wanted if not name.startswith("head/")}
        for name, leaf in got.items():
            keep = rows if name == "embeddings/word" else len(leaf)
            np.testing.assert_allclose(leaf[:keep], wanted[name][:keep], rtol=1e-6, err_msg=name)
        assert (start.model.hidden_size, start.model.dropout, start.model.vocab_size) == (16, 0.2, rows)


def test_from_scratch_only_the_sizes_and_the_vocabulary_are_copied(pretrained, corpus):
    workdir, config, _ = pretrained
    start = load_init_encoder(settings_of(*flags(corpus, "w", init="scratch", init_size_from=workdir)))
    assert start.params == {} and start.model.hidden_size == 16 and len(start.tokens) == config.model.vocab_size
    preset = load_init_encoder(
        settings_of(*flags(corpus, "w", init="scratch", init_size_from="tiny", vocab=f"{workdir}/vocab.txt"))
    )
    assert preset.params == {} and preset.model.hidden_size == 128 and preset.tokens == start.tokens


def test_a_run_starts_from_a_fine_tuned_model(finetuned, corpus):
    start = load_init_encoder(settings_of(*flags(corpus, "w", init=finetuned)))
    trained = load_model.load_finetuned(str(finetuned))
    assert named_leaves(start.params).keys() == named_leaves(trained.params).keys()
    assert "head/logit/kernel" in named_leaves(start.params)
    scores = json.loads((finetuned / "results.json").read_text())
    best = max(scores["runs"], key=lambda run: run["dev"]["f1"])["seed"]
    assert trained.seed == best


def test_a_fine_tuned_model_is_exported_with_its_scores_on_the_card(finetuned, tmp_path):
    code, result = electramed("export", f"--workdir={finetuned}", f"--output={tmp_path}/hf", "--seed=1", "--name=Drugs")
    assert code == 0 and result == {"workdir": str(finetuned), "seed": 1, "output": f"{tmp_path}/hf"}
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["ElectraForTokenClassification"]
    assert config["id2label"]["1"] == "B-Disease"
    card = (tmp_path / "hf" / "README.md").read_text()
    run = json.loads((finetuned / "seed-1" / "scores.json").read_text())
    assert f"| test f1 | {run['test']['f1']:.4g} |" in card and "# Drugs" in card
    assert "SHA-256 of train" in card
    last = run["history"][-1]
    assert f"| {last['epoch']:.2f} | {last['step']:,} | {last['f1']:.2f} |" in card


def test_the_card_of_a_fine_tuned_model_contains_the_device_hours_of_all_seeds_and_the_energy(finetuned, tmp_path):
    code, _ = electramed("export", f"--workdir={finetuned}", f"--output={tmp_path}", "--watts=2000")
    assert code == 0
    seconds = 0.0
    for seed in (0, 1):
        before = 0
        for line in (finetuned / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if entry["split"] == "train":
                seconds += entry.get("step_seconds", 0.0) * (entry["step"] - before)
                before = entry["step"]
    devices = jax.device_count()
    card = (tmp_path / "README.md").read_text()
    assert f"| {devices} × cpu | " in card and "all 2 seeds" in card
    energy = float(re.search(r"Estimated energy: (\S+) kWh", card)[1])
    assert energy == pytest.approx(2 * seconds * devices / 3600, rel=0.1) and energy > 0


KILLED = """
import os
import signal
import sys

from electramed_jax import cli
from electramed_jax.training.checkpoint import CheckpointManager

save, saves = CheckpointManager.save, []

def save_and_die(self, step, *others, **settings):
    save(self, step, *others, **settings)
    saves.append(step)
    if len(saves) == 3:  # 1: best, 2: newest checkpoint, 3: best of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointManager.save = save_and_die
cli.main(sys.argv[1:])
"""


def test_a_killed_run_resumes_to_the_same_bits(pretrained, finetuned, corpus, tmp_path):
    """SIGKILL while a checkpoint is being written; then the same command again."""
    workdir = tmp_path / "run"
    arguments = ["finetune", *flags(corpus, workdir, init=pretrained[0], seeds=2)]
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    process = quick_run.start(*arguments, program=program)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (workdir / "seed-0" / "best").exists() and not (workdir / "seed-0" / "scores.json").exists()
    assert cli.main(arguments) == 0
    for seed in (0, 1):
        ours, theirs = (json.loads((run / f"seed-{seed}" / "scores.json").read_text()) for run in (workdir, finetuned))
        assert {k: v for k, v in ours.items() if k != "train_seconds"} == {
            k: v for k, v in theirs.items() if k != "train_seconds"
        }
        ours, theirs = (named_leaves(load_model.load_finetuned(str(run), seed).params) for run in (workdir, finetuned))
        for name, leaf in ours.items():
            np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "no encoder to start from; add --config.init=DIR"),
        ({"init": "nowhere"}, "nowhere: no such folder"),
        ({"init": "scratch"}, "add --config.init_size_from=DIR"),
        ({"init": "scratch", "init_size_from": "tiny"}, "add --config.vocab=vocab.txt"),
        (
            {"init": "x", "init_size_from": "tiny"},
            "config.init_size_from and config.vocab are only for config.init=scratch",
        ),
        ({"init": "x", "epochs": 0}, "config.epochs=0.0 is out of range; wanted a number above 0"),
        ({"init": "x", "task.kind": "chunks"}, "one of ner, relations, classification"),
        ({"init": "x", "learning_rate": 1}, "config.learning_rate: no such setting; did you mean"),
        ({"init": "x", "optimizer.layerwise_lr_decay_rule": "googles"}, "one of exact, google"),
    ],
)
def test_a_user_error_is_one_line(settings, message, capsys, tmp_path):
    assert cli.main(["finetune", *flags("nowhere", tmp_path / "run", **settings)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_rows_longer_than_the_positions_of_the_encoder_are_an_error(pretrained, corpus, tmp_path, capsys):
    arguments = flags(corpus, tmp_path / "run", init=pretrained[0], **{"task.max_seq_length": 64})
    assert cli.main(["finetune", *arguments]) == 2
    assert "max_seq_length=64: the encoder has 32 positions" in capsys.readouterr().err


def test_export_names_an_option_that_does_not_apply_to_the_model(finetuned, pretrained, tmp_path, capsys):
    assert cli.main(["export", f"--workdir={finetuned}", f"--output={tmp_path}", "--step=3"]) == 2
    assert cli.main(["export", f"--workdir={pretrained[0]}", f"--output={tmp_path}", "--seed=3"]) == 2
    assert cli.main(["export", f"--workdir={finetuned}", f"--output={tmp_path}", "--seed=7"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--step does not apply to" in lines[0] and "--seed does not apply to" in lines[1]
    assert "seed 7 is not finished; finished are 0, 1" in lines[2]


def test_a_workdir_and_its_export_both_predict_the_entities_that_were_scored(pretrained, tmp_path):
    """Compares the entities of predictions-test.txt with those predicted from raw text.

    Most words of the corpus are entities, so that few training steps suffice.
    """
    for split, number in {"train": 30, "dev": 8, "test": 12}.items():
        words = [
            "acute B-Disease\ngastritis I-Disease",
            "atenolol B-Drug",
            "the O",
            "nephritis B-Disease",
            "timolol B-Drug",
        ]
        sentences = [words[n % 5 :] + words[: n % 4] for n in range(number)]
        (tmp_path / f"{split}.txt").write_text("\n\n".join(map("\n".join, sentences)))
    workdir, exported = tmp_path / "run", tmp_path / "hf"
    assert electramed("finetune", *flags(tmp_path, workdir, init=pretrained[0]))[0] == 0
    assert cli.main(["export", f"--workdir={workdir}", f"--output={exported}"]) == 0
    lines = (workdir / "seed-0" / "predictions-test.txt").read_text().strip("\n").split("\n\n")
    sentences = [[line.split("\t") for line in sentence.split("\n")] for sentence in lines]
    texts = [" ".join(word for word, _, _ in sentence) for sentence in sentences]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    written = []
    for model in (workdir, exported):
        output = tmp_path / f"{model.name}.jsonl"
        arguments = [f"--model={model}", "--input", f"{tmp_path}/texts.txt", f"--output={output}"]
        code, result = electramed("predict", *arguments)
        assert code == 0 and (result["read"], result["kind"]) == (12, "ner")
        written.append(output.read_text())
    assert written[0] == written[1]
    found = 0
    for sentence, row in zip(sentences, map(json.loads, written[0].splitlines()), strict=True):
        entities = tags.decode([tag for _, _, tag in sentence])
        wanted = [(" ".join(w for w, _, _ in sentence[e.start : e.stop]), e.type) for e in entities]
        assert [(entity["text"], entity["type"]) for entity in row["entities"]] == wanted
        found += len(wanted)
    assert found == result["found"] > 0


def test_predicting_with_a_pre_trained_model_is_an_error(pretrained, capsys):
    assert cli.main(["predict", f"--model={pretrained[0]}", "--text=a"]) == 2
    error = capsys.readouterr().err
    assert "a workdir of pre-training; fine-tune it first" in error and error.count("\n") == 1
