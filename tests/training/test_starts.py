"""history.jsonl: what each start of a run trained with, and the phases that led to a checkpoint."""

import json

import pytest

from electramed_jax.training import starts as starts_lib
from electramed_jax.training.starts import RunRecord, find_phases, read_starts


def start(step: int, **more: object) -> dict:
    return {"step": step, "time": "2026-01-02T03:04:05+00:00", "devices": 4, "device_kind": "TPU v4"} | more


def spans(starts: list[dict], step: int) -> list[tuple[int, int, object]]:
    return [(phase.first_step, phase.last_step, phase.settings) for phase in find_phases(starts, step)]


A, B, C = ({"optimizer": {"learning_rate": rate}, "seed": 0} for rate in (2e-4, 1e-4, 5e-5))


@pytest.mark.parametrize(
    ("starts", "step", "expected"),
    [
        ([start(0, settings=A)], 40, [(1, 40, A)]),
        ([start(0, settings=A), start(20, settings=A)], 40, [(1, 40, A)]),
        ([start(0, settings=A), start(20, settings=B)], 40, [(1, 20, A), (21, 40, B)]),
        # The checkpoint of step 20 knows nothing of the start after it.
        ([start(0, settings=A), start(20, settings=B)], 20, [(1, 20, A)]),
        # B trained from 20 to 35, was killed, and its steps were trained again with C.
        ([start(0, settings=A), start(20, settings=B), start(20, settings=C)], 40, [(1, 20, A), (21, 40, C)]),
        # The checkpoints of 20 and 30 were damaged: B and the end of A are not part of the model.
        ([start(0, settings=A), start(30, settings=B), start(10, settings=C)], 40, [(1, 10, A), (11, 40, C)]),
        ([start(0, settings=A), start(0, settings=B)], 40, [(1, 40, B)]),
        ([], 40, []),
        ([start(0)], 40, [(1, 40, None)]),
    ],
)
def test_a_step_counts_with_the_settings_of_the_last_start_that_trained_it(starts, step, expected):
    assert spans(starts, step) == expected


def test_settings_that_an_earlier_version_did_not_record_follow_from_the_recorded_changes():
    changed = {"optimizer.learning_rate": [2e-4, 1e-4]}
    assert spans([start(0), start(20, settings=B, changed=changed)], 40) == [(1, 20, A), (21, 40, B)]


def test_a_change_of_code_or_data_begins_a_phase():
    starts = [
        start(0, settings=A, version="0.1.0", commit="a" * 40, dataset={"train": "x"}),
        start(10, settings=A, version="0.1.0", commit="b" * 40 + "+changes", dataset={"train": "x"}),
        start(20, settings=A, version="0.1.0", commit="b" * 40 + "+changes", dataset={"train": "y"}),
    ]
    phases = find_phases(starts, 30)
    assert [phase.code for phase in phases] == [
        "electramed_jax 0.1.0 (aaaaaaaaaaaa)",
        "electramed_jax 0.1.0 (bbbbbbbbbbbb+)",
        "electramed_jax 0.1.0 (bbbbbbbbbbbb+)",
    ]
    assert [phase.train_rows for phase in phases] == ["x", "x", "y"]


def test_a_start_leaves_a_line_after_its_first_step_and_another_at_its_end(tmp_path):
    folder = str(tmp_path)
    with RunRecord(folder, 0, A, dataset={"train": "x"}):
        pass
    assert read_starts(folder) == [], "it trained nothing"
    with RunRecord(folder, 0, A, dataset={"train": "x"}) as record:
        record.record_step(1)
        assert [line["step"] for line in read_starts(folder)] == [0]
        record.record_step(2)

    def fail() -> None:
        with RunRecord(folder, 2, B, earlier_settings=A) as record:
            record.record_step(3)
            raise OSError("the disk is full\nmore")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    first, second = read_starts(folder)
    assert (first["end"], first["last_step"]) == ("finished", 2)
    assert (second["end"], second["last_step"]) == ("the disk is full", 3)
    assert second["changed"] == {"optimizer.learning_rate": [2e-4, 1e-4]} and first["changed"] == {}
    assert first["dataset"] == {"train": "x"} and first["settings"] == A
    assert first["hosts"] and first["command"].startswith("electramed") and first["packages"]["jax"]
    assert first["commit"] == starts_lib.code_commit()


def test_the_file_is_only_appended_to_and_bad_lines_are_skipped_with_one_warning_and_kept(tmp_path, capsys):
    path = tmp_path / "history.jsonl"
    bad = ["[1, 2]", '{"a": 1}', "[" * 100_000, '{"step": "x"}', "\udcff", '{"step": 7, "devices": 1', "NaN"]
    bad += [json.dumps(start(10**400)), json.dumps(start(1) | {"devices": 10**400}), json.dumps(start(-1))]
    bad += [json.dumps(start(1) | damage) for damage in ({"dataset": 0.5}, {"processes": "two"})]
    path.write_bytes("\n".join([json.dumps(start(0, settings=A)), *bad]).encode(errors="surrogateescape"))
    before = path.read_bytes()
    with RunRecord(str(tmp_path), 5, B) as record:
        record.record_step(6)
    assert path.read_bytes().startswith(before + b"\n"), "the line that was cut short is ended, not changed"
    assert [line["step"] for line in read_starts(str(tmp_path))] == [0, 5]
    (warning,) = capsys.readouterr().err.splitlines()
    assert f"{len(bad)} lines cannot be read and are skipped" in warning


def test_fields_that_later_lines_add_are_not_read_from_the_line_of_a_start(tmp_path):
    forged = {"end": 1, "last_step": "x", "splits": 5, "began": 1.0}
    (tmp_path / "history.jsonl").write_text(json.dumps(start(0) | forged) + "\n")
    starts = read_starts(str(tmp_path))
    assert starts == [start(0) | {"began": 1.0}]
    assert sum(starts_lib.split_wall_time(starts).values()) == 0


def test_starts_of_an_earlier_version_come_first(tmp_path):
    (tmp_path / "starts.json").write_text(json.dumps([start(0), start(10)]))
    with RunRecord(str(tmp_path), 20, B) as record:
        record.record_step(21)
    assert [line["step"] for line in read_starts(str(tmp_path))] == [0, 10, 20]
    assert json.loads((tmp_path / "starts.json").read_text()) == [start(0), start(10)]


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', ""])
def test_a_damaged_file_of_an_earlier_version_does_not_block(tmp_path, capsys, content):
    (tmp_path / "starts.json").write_text(content)
    assert read_starts(str(tmp_path)) == []
    assert "cannot be read" in capsys.readouterr().err


def test_the_history_grows_in_storage_that_cannot_append(folder_in):
    folder = folder_in("gs")
    for step in (0, 3):
        with RunRecord(folder, step, A) as record:
            record.record_step(step + 1)
    assert [(line["step"], line["last_step"]) for line in read_starts(folder)] == [(0, 1), (3, 4)]
