"""results.md states what limits the scores, and the scores of each class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from invented_corpus import tiny_init_encoder

from electramed_jax.config.finetune import FinetuneConfig, TaskConfig
from electramed_jax.finetune import card_scores, make_task, results
from electramed_jax.finetune.task.task import DEV, TEST


@pytest.fixture
def gathered(tmp_path) -> results.Results:
    """Results of two seeds on a corpus with a shared text, an unknown label and a class without an example."""
    rows = {
        "train": [("the dose", "x"), ("patients", "y"), ("a", "z|w")],
        "dev": [("of", "x"), ("in", "y"), ("by", "z|w")],
        "test": [("the dose", "x"), ("by a", "new")],
    }
    for split, lines in rows.items():
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *("\t".join(line) for line in lines)]))
    config = FinetuneConfig(task=TaskConfig(kind="classification", data=str(tmp_path), primary="macro_f1"), seeds=2)
    task, encoder, _ = make_task.make_task(config, tiny_init_encoder())
    finished = []
    for seed in (0, 1):
        draw = np.random.default_rng(seed)
        scores = {split: task.score(split, [draw.normal(size=3) for _ in rows[split]]) for split in (DEV, TEST)}
        finished.append({"seed": seed, "best_epoch": 1.0, **scores})
    return results.gather_results(config, task, encoder, finished)


def test_the_limits_of_the_scores_are_in_both_files(gathered, tmp_path):
    results.write_results(str(tmp_path), gathered)
    written = json.loads((tmp_path / "results.json").read_text())["warnings"]
    assert written == [
        "1 of 2 test examples (50.00%) are in train too: scores of test may be too high",
        "1 of 2 test examples have a label that no training example has (new 1): they count as missed",
        "test has no examples of y, z|w: its scores mean nothing for them",
    ]
    table = (tmp_path / "results.md").read_text()
    assert "What limits these scores:" in table
    for warning in written:
        assert f"\n- {warning}\n" in table
    data, _, _ = results.card_data(gathered, gathered["runs"][0])
    assert data["limits of the scores"] == "; ".join(written)


def test_a_card_has_no_local_path_and_no_score_twice(gathered):
    """merged_f1 is the F1 without the types of entities: for readers of results.json."""
    run = gathered["runs"][0]
    changed = run | {"dev": run["dev"] | {"merged_f1": 1.0, "text_f1": 2.0}}
    config = gathered["config"] | {
        "qa": gathered["config"]["qa"] | {"pretrain_stage": {"train": "/home/me/squad.json"}}
    }
    files = {split: {"path": f"/home/me/{split}.tsv", "sha256": "0" * 64} for split in ("dev", "test")}
    changed_results = {
        "encoder": "/home/me/runs/small, step 3 of 4, then /home/me/squad.json for 2.00 epochs",
        "warnings": ["dev and test are the same file (/home/me/dev.tsv, /home/me/test.tsv): a/b"],
        "data": gathered["data"] | {"files": files},
        "config": config,
    }
    data, recipe, scores = results.card_data(gathered | changed_results, changed)
    assert recipe["encoder"] == "small, step 3 of 4, then squad.json for 2.00 epochs"
    assert data["limits of the scores"] == "dev and test are the same file (dev.tsv, test.tsv): a/b"
    assert "/home" not in card_scores.scores_table([gathered | changed_results])
    assert scores["dev text_f1"] == 2.0 and not [name for name in scores if "merged" in name]


def test_each_class_has_a_row_with_its_examples_and_scores(gathered):
    lines = results.to_markdown(gathered).split("\n")
    head = next(line for line in lines if line.startswith("| class |"))
    assert head == (
        "| class | dev examples | dev precision | dev recall | dev f1 "
        "| test examples | test precision | test recall | test f1 |"
    )
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[lines.index(head) + 2 :] if line}
    mean = gathered["scores"]["dev"]["f1/x"]
    assert f"| {mean['mean']:.2f} ± {mean['standard_deviation']:.2f} | 1 |" in rows["x"]
    assert rows["y"].endswith("| 0 |  |  |  |"), "no test example: no score"
    assert rows["new"].endswith("| 1 | 0.00 ± 0.00 | 0.00 ± 0.00 | 0.00 ± 0.00 |")
    assert "z\\|w" in rows
    assert not any(line.startswith("| f1/") for line in lines)


def test_the_label_that_means_no_relation_is_named(gathered):
    assert "means no relation" not in results.to_markdown(gathered)
    gathered["data"] |= {"negative": "DDI-false", "counted": ["DDI-advise", "DDI-effect"]}
    line = "Scored labels: DDI-advise, DDI-effect. Not scored, because it means no relation: DDI-false."
    assert line in results.to_markdown(gathered).split("\n")


def test_results_of_an_earlier_version_are_formatted(gathered):
    old = {name: value for name, value in gathered.items() if name != "warnings"}
    assert "What limits" not in results.to_markdown(old)
    assert "limits of the scores" not in results.card_data(old, old["runs"][0])[0]
