"""results.json that is damaged is an error of one line; names of labels and files are only text in results.md."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib

import lxml.html
import markdown_it
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import results
from electramed_jax.finetune.task import result_files

HOSTILE = "<script>alert(1)</script> | [x](javascript:x) \x1b[2J"
MEAN = {"mean": 80.0, "standard_deviation": 1.0}
SCORES = {
    "seed": 0,
    "best_step": 10,
    "best_epoch": 1.0,
    "dev": {"f1": 80.0},
    "test": {"f1": 79.0},
    "history": [{"step": 10, "epoch": 1.0, "f1": 80.0}],
}
FILE = {"path": f"/data/{HOSTILE}.txt", "bytes": 3, "sha256": "ab" * 32}
RESULTS = {
    "task": "ner",
    "variant": HOSTILE,
    "published": [{"model": HOSTILE, "metric": "f1", "value": 90.0, "source": HOSTILE}],
    "data": {
        "files": {"train": FILE, "test": dict(FILE)},
        "sizes": {"train": {"words": 5}, "dev": {"words": 3}, "test": {"words": 4, HOSTILE: 1}},
    },
    "encoder": HOSTILE,
    "primary": "f1",
    "seeds": [0],
    "seeds_wanted": 1,
    "scores": {split: {"f1": MEAN, f"f1/{HOSTILE}": MEAN} for split in ("dev", "test")},
    "runs": [SCORES],
    "config": dataclasses.asdict(FinetuneConfig()),
    "code": "test",
}


def test_names_of_labels_files_and_encoders_are_only_text_in_results_md():
    text = results.to_markdown(RESULTS)
    shown = lxml.html.document_fromstring(markdown_it.MarkdownIt("commonmark").enable("table").render(text))
    allowed = {"html", "body", "h1", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert {element.tag for element in shown.iter()} <= allowed
    assert "\x1b" not in text and "<script>alert(1)</script>" in shown.text_content()
    for table in shown.iter("table"):
        assert len({len(row) for row in table.iter("tr")}) == 1, "each row has the cells of the header"


def write(path: pathlib.Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_results_are_read_back(tmp_path):
    assert result_files.read_results(write(tmp_path / "results.json", RESULTS)) == RESULTS


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda r: r.pop("runs"), "lacks 'runs'"),
        (lambda r: r.update(runs=[]), "holds no seed with dev scores"),
        (lambda r: r.update(seeds="0"), "seeds is '0'; wanted a list"),
        (lambda r: r["runs"][0].pop("test"), "test lacks the score 'f1'"),
        (lambda r: r["runs"][0].update(history=[]), "its history lacks epoch, f1, step"),
        (lambda r: r["scores"]["dev"].update(f1=80), "scores.dev.f1 is 80; wanted an object"),
        (lambda r: r["scores"]["dev"].pop("f1"), "dev lacks the score 'f1'"),
        (lambda r: r["data"]["sizes"].pop("test"), "data.sizes lacks 'test'"),
        (lambda r: r["data"]["files"]["test"].pop("sha256"), "data.files.test lacks 'sha256'"),
    ],
)
def test_damaged_results_are_named_by_file_and_key(tmp_path, edit, reason):
    value = copy.deepcopy(RESULTS)
    edit(value)
    with pytest.raises(
        UserError, match=rf"results\.json: .*{reason}.*; restore it, or run the same electramed finetune"
    ):
        result_files.read_results(write(tmp_path / "results.json", value))


def test_scores_of_a_seed_without_the_test_split_are_an_error(tmp_path):
    path = write(tmp_path / "scores.json", {name: value for name, value in SCORES.items() if name != "test"})
    assert result_files.read_scores(path, ["dev"], "f1")["best_step"] == 10
    with pytest.raises(UserError, match=r"scores\.json: lacks the scores of 'test'; restore it, or remove the folder"):
        result_files.read_scores(path, ["dev", "test"], "f1")
