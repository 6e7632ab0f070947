"""Datasets, checkpoints, workdirs and exports of commit 22010e1 open and resume with the same results.

The archive under tests/golden/ holds files that the commit wrote, and its results in expected.json;
tests/support/make_compatibility_fixture.py describes how it was made and holds the commands. Only the command line and
files are used here, with the names of settings that the commit had, so that code can move and settings can be renamed.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import quick
from make_compatibility_fixture import (
    ARCHIVE,
    EXPECTED,
    NER,
    NER_STOP,
    STOP_AFTER,
    XLA_FLAGS,
    Done,
    arithmetic_digest,
    checksums,
    commands_with_saved_settings,
    document_checksums,
    finetuning_results,
    json_of,
    lines_of,
    pending_sums,
    pretraining_results,
    reading_commands,
    run,
    unpack,
    versions,
)
from safetensors import numpy as safetensors

pytestmark = pytest.mark.slow  # each test needs a trained run

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5
FRACTION = re.compile(r"\d+\.\d+(e-?\d+)?")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The commands' results with the code of today, and those of the old commit.

    Attributes:
      folder: the unpacked archive, in which the commands have run.
      done: the commands with every setting on the command line.
      saved_folder: another copy.
      saved_done: the commands in that copy, with the settings that the old commit saved.
      expected: results of the old commit.
      exact: whether the results must be equal to the bit. Another version of the compiler, or a CPU of another kind, may
        add numbers up in another order. A few steps of float32 then differ by less than `TOLERANCE`.
    """

    folder: pathlib.Path
    done: dict[str, Done]
    saved_folder: pathlib.Path
    saved_done: dict[str, Done]
    expected: dict[str, Any]
    exact: bool

    def assert_expected(self, got: Any, name: str) -> None:
        """Raises AssertionError unless `got` is what the old commit had under `name` in expected.json.

        Objects may have further keys, such as scores that later versions compute.
        """
        wanted = self.expected[name]
        got = without_new_keys(got, wanted)
        if self.exact:
            assert got == wanted
        else:
            assert_close(got, wanted)


def has_same_compiler(expected: dict[str, Any]) -> bool:
    """Returns whether the compiler is that which wrote the archive."""
    now = versions()
    return all(now[name] == expected["written_by"][name] for name in ("jax", "jaxlib", "machine"))


def without_new_keys(got: Any, wanted: Any) -> Any:
    """Returns `got` without the keys of objects that `wanted` does not have."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        return {name: without_new_keys(value, wanted[name]) for name, value in got.items() if name in wanted}
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        return [without_new_keys(*pair) for pair in zip(got, wanted, strict=True)]
    return got


def assert_close(got: Any, wanted: Any) -> None:
    """Compares JSON values: numbers with a tolerance, and everything else exactly.

    Checksums of parameters are not compared, nor are fractions inside of a text.
    """
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name in wanted.keys() - {"state checksums"}:
            assert_close(got[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for pair in zip(got, wanted, strict=True):
            assert_close(*pair)
    elif isinstance(wanted, float):
        assert got == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE)
    elif isinstance(wanted, str):
        assert FRACTION.sub("#", got) == FRACTION.sub("#", wanted)
    else:
        assert got == wanted


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Outcome:
    """Runs all commands once, in one process, in two folders that are not those of the old commit."""
    archive = REPOSITORY / "tests" / "golden" / ARCHIVE
    folders = [unpack(archive, tmp_path_factory.mktemp(name)) for name in ("given", "saved")]
    expected = json_of(folders[0] / EXPECTED)
    given, saved = reading_commands(folders[0], REPOSITORY), commands_with_saved_settings(folders[1])
    commands = given | {f"saved {name}": command for name, command in saved.items()}
    # Another compiler may not have the flags of the one that wrote the archive.
    has_same = has_same_compiler(expected)
    done = run(REPOSITORY, commands, xla_flags=XLA_FLAGS if has_same else quick.FLAGS)
    return Outcome(
        folders[0],
        {name: done[name] for name in given},
        folders[1],
        {name: done[f"saved {name}"] for name in saved},
        expected,
        exact=has_same and arithmetic_digest() == expected["written_by"]["arithmetic"],
    )


def test_the_archive_holds_runs_that_were_stopped_between_two_entries_of_the_log(tmp_path):
    folder = unpack(REPOSITORY / "tests" / "golden" / ARCHIVE, tmp_path)
    assert pending_sums(folder / "pretrain", STOP_AFTER)["step_count"] > 0
    assert pending_sums(folder / "ner" / f"seed-{NER['seed'] + 1}", NER_STOP)["step_count"] > 0
    assert not (folder / "ner" / f"seed-{NER['seed'] + 1}" / "scores.json").exists()
    assert (folder / "qa" / "results.json").exists()


def test_a_packed_dataset_and_a_documents_folder_are_inspected(outcome):
    for name in ("inspect packed", "inspect documents"):
        outcome.assert_expected(outcome.done[name].result(), name)


@pytest.mark.parametrize("workdir", ["pretrain", "ner"])
def test_a_workdir_is_inspected(outcome, workdir):
    assert outcome.done[f"inspect {workdir}"].result()["kind"] == "training"


def test_the_same_text_gives_the_same_documents(outcome):
    outcome.assert_expected(outcome.done["prepare"].result()["splits"], "prepare")
    outcome.assert_expected(document_checksums(outcome.folder / "documents_again"), "documents")


def test_a_documents_folder_gives_the_same_rows(outcome):
    outcome.assert_expected(outcome.done["pack"].result()["splits"], "pack")
    outcome.assert_expected(checksums(outcome.folder / "packed_again", "*.tfrecord-*"), "shards")


def test_a_pre_training_resumes_with_the_settings_it_was_started_with(outcome):
    assert outcome.done["pretrain"].result()["step"] == 10
    outcome.assert_expected(pretraining_results(outcome.folder / "pretrain"), "pretrain")


def test_a_pre_training_resumes_with_its_saved_settings(outcome):
    assert outcome.saved_done["pretrain"].result()["step"] == 10
    outcome.assert_expected(pretraining_results(outcome.saved_folder / "pretrain"), "pretrain")


def test_an_export_has_the_same_files(outcome):
    outcome.done["export"].result()
    got, wanted = checksums(outcome.folder / "export"), outcome.expected["export"]
    assert got.keys() == wanted.keys()
    for name in wanted:
        ours, theirs = (outcome.folder / folder / name for folder in ("export", "export_of_old_commit"))
        if name.endswith("model.safetensors") and not outcome.exact:
            ours, theirs = map(safetensors.load_file, (ours, theirs))
            assert ours.keys() == theirs.keys()
            for tensor in theirs:
                np.testing.assert_allclose(ours[tensor], theirs[tensor], TOLERANCE, TOLERANCE, err_msg=tensor)
        elif (
            name.endswith("tokenizer.json") and versions()["tokenizers"] != outcome.expected["written_by"]["tokenizers"]
        ):
            assert json_of(ours)["model"]["vocab"] == json_of(theirs)["model"]["vocab"]  # others add fields
        else:
            assert got[name] == wanted[name], name


def test_an_export_of_the_old_commit_is_imported(outcome):
    result = outcome.done["import"].result()
    assert result["networks"] == ["discriminator", "generator"] and result["unused_rows"] == 0


def test_a_fine_tuning_resumes_in_the_middle_of_a_seed(outcome):
    assert outcome.done["ner"].result()["seeds"] == [NER["seed"], NER["seed"] + 1]
    outcome.assert_expected(finetuning_results(outcome.folder / "ner"), "ner")


@pytest.mark.parametrize("settings", ["given", "saved"])
def test_a_finished_fine_tuning_is_recognized_as_such(outcome, settings):
    """The settings of the command line or the saved ones are compared with config.json, under whatever names."""
    folder, done = {
        "given": (outcome.folder, outcome.done),
        "saved": (outcome.saved_folder, outcome.saved_done),
    }[settings]
    done["qa"].result()
    outcome.assert_expected(finetuning_results(folder / "qa"), "qa")
    outcome.assert_expected(finetuning_results(folder / "qa" / "first"), "qa first stage")
    assert len(json.loads((folder / "qa" / "seed-0" / "starts.json").read_text())) == 1, "nothing was trained again"


@pytest.mark.parametrize("kind", ["entities", "answers"])
def test_a_fine_tuned_model_predicts_the_same(outcome, kind):
    outcome.done[f"predict {kind}"].result()
    outcome.assert_expected(lines_of(outcome.folder / f"{kind}.jsonl"), kind)
