"""Tests of metrics.jsonl and TensorBoard: after interruptions the files read as those of an uninterrupted run."""

from __future__ import annotations

import errno
import json
import os
import struct

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_disk import fill, small_disk

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer

__all__ = ["small_disk"]  # a fixture


class Flaky(MemoryFileSystem):
    """`flaky://`: an object store; its next `failures` uploads fail."""

    protocol = "flaky"
    failures, uploads = 0, 0

    def _open(self, path, mode="rb", **options):
        if mode == "wb":
            Flaky.uploads += 1
            if Flaky.failures:
                Flaky.failures -= 1
                raise ConnectionError("503 Service Unavailable")
        return super()._open(path, mode, **options)


@pytest.fixture
def store(monkeypatch) -> str:
    """Returns the URL of an empty object store."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(Flaky, "store", {})
    monkeypatch.setattr(Flaky, "pseudo_dirs", [""])
    monkeypatch.setattr(Flaky, "uploads", 0)
    return "flaky://bucket/run"


def write_entries(workdir, steps, *, resumed_step=0) -> None:
    with metrics_writer.MetricsWriter(str(workdir), resumed_step=resumed_step) as log:
        for step in steps:
            log.write(step, "train", {"loss": step / 4})


def steps_in(workdir) -> list[int]:
    return [entry["step"] for entry in metrics_writer.read_metrics(str(workdir))]


def test_an_entry_is_a_line_of_json_with_its_step_and_split_first(tmp_path):
    write_entries(tmp_path, [1])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "split": "train", "loss": 0.25}\n'


def test_a_resumed_run_drops_the_entries_after_the_checkpoint(tmp_path):
    write_entries(tmp_path, [1, 2, 3, 4])
    write_entries(tmp_path, [3, 4, 5], resumed_step=2)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]


def test_an_entry_is_on_disk_as_soon_as_it_is_written(tmp_path):
    """A killed process loses no entry."""
    with metrics_writer.MetricsWriter(str(tmp_path), resumed_step=0) as log:
        log.write(1, "validation", {"loss": 1.0})
        assert steps_in(tmp_path) == [1]
        (events,) = (tmp_path / "tensorboard").iterdir()
        assert b"validation/loss" in events.read_bytes()


def test_a_truncated_last_line_is_left_out_and_then_replaced(tmp_path):
    write_entries(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "spl')
    assert steps_in(tmp_path) == [1, 2]
    write_entries(tmp_path, [3], resumed_step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


BAD_LINES = (
    b"[1, 2]",
    b'{"a": 1}',
    b'{"step": "2", "split": "train", "loss": 1.0}',
    b'{"step": 2, "split": "train", "loss": "low"}',
    b'{"step": 2, "split": "train", "loss": 1' + b"0" * 400 + b"}",
    b'{"step": NaN, "split": "train"}',
    b"NaN",
    b"garbage \xff\x00",
    b"[" * 5000,
    b"",
)


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_line_that_is_no_entry_is_skipped_with_one_warning_and_stays_in_the_file(tmp_path, capsys, bad):
    write_entries(tmp_path, [1, 2, 3, 4])
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], bad, *lines[1:]]) + b"\n")
    assert steps_in(tmp_path) == [1, 2, 3, 4] and steps_in(tmp_path) == [1, 2, 3, 4]
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"{path}: a line is not an entry") and "line 2" in warning
    write_entries(tmp_path, [4, 5], resumed_step=3)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5], "the history after the line is kept"
    assert path.read_bytes().splitlines()[:4] == [lines[0], bad, *lines[1:3]], "as it was"


def test_an_entry_may_hold_numbers_that_are_not_finite(tmp_path):
    """A run writes them before it stops because it has diverged."""
    with metrics_writer.MetricsWriter(str(tmp_path), resumed_step=0) as log:
        log.write(1, "train", {"loss": float("nan"), "gradient_norm": float("inf")})
    (entry,) = metrics_writer.read_metrics(str(tmp_path))
    assert entry["gradient_norm"] == float("inf")


def test_an_entry_is_found_by_step_and_split(tmp_path):
    write_entries(tmp_path, [5])
    assert metrics_writer.has_entry(str(tmp_path), 5, "train")
    assert not metrics_writer.has_entry(str(tmp_path), 5, "validation")
    assert not metrics_writer.has_entry(str(tmp_path), 6, "train")
    assert not metrics_writer.has_entry(str(tmp_path / "nowhere"), 5, "train")


def test_a_full_disk_is_an_error_at_once_and_leaves_complete_entries(small_disk):
    disk = small_disk(64 * 1024)
    with metrics_writer.MetricsWriter(str(disk), resumed_step=0) as log:
        log.write(1, "train", {"loss": 1.0})
        fill(disk)

        def write_until_full() -> None:
            for step in range(2, 10_000):
                log.write(step, "train", {"loss": 1.0})

        with pytest.raises(
            UserError, match=r"cannot be written \(No space left on device\); the checkpoints are complete"
        ):
            write_until_full()
    assert steps_in(disk) == list(range(1, len(steps_in(disk)) + 1))


# ---- storage that fails for a while, and storage that cannot append ------------------------------


def test_entries_that_a_disk_rejects_for_a_while_are_written_later_and_once(tmp_path, capsys):
    class Reluctant:
        """Writes three bytes, then fails twice, then writes everything."""

        def __init__(self, file):
            self.file, self.answers = file, [3, OSError(errno.EIO, os.strerror(errno.EIO)), OSError(errno.ESTALE, "x")]

        def write(self, data):
            answer = self.answers.pop(0) if self.answers else len(data)
            if isinstance(answer, OSError):
                raise answer
            return self.file.write(data[:answer])

        def close(self):
            self.file.close()

    with metrics_writer.MetricsWriter(str(tmp_path), resumed_step=0) as log:
        log.write(1, "train", {"loss": 1.0})
        log._outputs.lines._file = Reluctant(log._outputs.lines._file)
        for step in (2, 3, 4, 5):
            log.write(step, "train", {"loss": 1.0})
        assert steps_in(tmp_path) == [1, 2, 3, 4, 5]
    lines = capsys.readouterr().err.splitlines()
    path = tmp_path / "metrics.jsonl"
    assert lines == [
        f"{path}: cannot be written (Input/output error); the entries are kept and written with the next one",
        f"{path}: can be written again",
    ]


def test_an_object_store_receives_full_files_before_a_checkpoint_and_otherwise_once_a_minute(store):
    with metrics_writer.MetricsWriter(store, resumed_step=0) as log:
        before = Flaky.uploads
        for step in range(1, 101):
            log.write(step, "train", {"loss": 1.0})
        assert Flaky.uploads - before <= 1, "the first line"
        log.flush()
        assert steps_in(store) == list(range(1, 101))
        log.write(101, "validation", {"loss": 1.0})
    assert steps_in(store) == list(range(1, 102)), "and when the writer is closed"


def test_a_resumed_run_continues_the_file_in_the_object_store(store):
    write_entries(store, [1, 2, 3, 4])
    write_entries(store, [3, 4, 5], resumed_step=2)
    assert steps_in(store) == [1, 2, 3, 4, 5]


def test_tensorboard_finds_its_events_in_an_object_store(store):
    write_entries(store, [1, 2])
    from tensorboardX.proto.event_pb2 import Event

    (name,) = files.list_dir(f"{store}/tensorboard")
    assert "tfevents" in name, "the pattern that TensorBoard reads"
    data, offset, events = files.read_bytes(f"{store}/tensorboard/{name}"), 0, []
    while offset < len(data):
        (size,) = struct.unpack_from("<Q", data, offset)
        events.append(Event.FromString(data[offset + 12 : offset + 12 + size]))
        offset += size + 16
    assert events[0].file_version == "brain.Event:2"
    assert [(event.step, event.summary.value[0].tag) for event in events[2:]] == [(1, "train/loss"), (2, "train/loss")]


def test_the_next_upload_includes_the_entries_of_a_failed_one(store, monkeypatch, capsys):
    with metrics_writer.MetricsWriter(store, resumed_step=0) as log:
        log.write(1, "train", {"loss": 1.0})
        log.write(2, "train", {"loss": 1.0})
        monkeypatch.setattr(Flaky, "failures", 100)
        log.flush()
        monkeypatch.setattr(Flaky, "failures", 0)
        log.flush()
        assert steps_in(store) == [1, 2]
    output = capsys.readouterr().err
    assert "metrics.jsonl: cannot be written (503 Service Unavailable); the entries are kept" in output
    assert "metrics.jsonl: can be written again" in output


def test_storage_that_fails_for_half_an_hour_ends_the_run(store, monkeypatch):
    def run() -> None:
        with metrics_writer.MetricsWriter(store, resumed_step=0) as log:
            log.write(1, "train", {"loss": 1.0})
            log.write(2, "train", {"loss": 1.0})
            monkeypatch.setattr(Flaky, "failures", 10_000)
            log.flush()
            monkeypatch.setattr(metrics_writer, "MAX_FAILURE_SECONDS", -1.0)
            log.flush()

    with pytest.raises(UserError, match="cannot be written .*the checkpoints are complete"):
        run()
