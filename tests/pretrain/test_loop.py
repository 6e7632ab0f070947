"""Interrupted, preempted and killed runs are resumed bit-identically; metrics and checkpoints are written as documented.

All runs are `electramed pretrain` on the same rows with dropout, in this process or in a subprocess.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import resource
import shutil
import signal
import struct
import time

import numpy as np
import pod
import pytest
import quick_run
from small_disk import fill, small_disk

from electramed_jax import cli
from electramed_jax.common import tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import preemption
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.pretrain import history, loop
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.pretrain.checkpoint import checkpoint_manager, load_pretrained_state
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow  # each test needs a trained run

__all__ = ["small_disk"]  # a fixture

TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds"}
MEMORY = {"host_memory_bytes"}  # the CPU's devices report none
METRICS = set(
    (
        "loss generator_loss generator_accuracy sampled_accuracy discriminator_loss discriminator_accuracy "
        "discriminator_precision discriminator_recall replaced_fraction fill_fraction"
    ).split()
)
STOP = 13  # log, save and evaluation are due at other steps


@pytest.fixture(scope="module")
def pretrain(packed, quick_compilation):
    """Runs `electramed pretrain` in this process; returns its exit code."""

    def run(workdir: pathlib.Path, *options: str, **settings: object) -> int:
        return cli.main(["pretrain", *quick_run.settings(packed, **settings), f"--workdir={workdir}", *options])

    return run


@pytest.fixture(scope="module")
def whole(pretrain, tmp_path_factory) -> pathlib.Path:
    """The workdir of an uninterrupted run. Tests do not write to it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def stopped(pretrain, tmp_path_factory) -> pathlib.Path:
    """The workdir of a run that was stopped after step 13. Tests copy it before they write to it."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    assert pretrain(workdir, f"--stop_after={STOP}") == 0
    return workdir


@pytest.fixture
def half_done(stopped, tmp_path) -> pathlib.Path:
    return shutil.copytree(stopped, tmp_path / "half_done")


def saved_steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def leaves(workdir: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    state = load_pretrained_state(str(workdir), sharding.make_mesh(MeshConfig()), step)[1]
    return {name: np.asarray(leaf) for name, leaf in tree_rules.named_leaves(state).items()}


def entries(workdir: pathlib.Path) -> list[dict]:
    """Returns the lines of metrics.jsonl without timings and memory."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS | MEMORY} for line in lines]


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """Compares every leaf of the last state and every entry of metrics.jsonl, bit by bit."""
    expected = leaves(theirs)
    for name, leaf in leaves(ours).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    assert entries(ours) == entries(theirs)


# ---- interrupted and resumed ---------------------------------------------------------------------


def test_an_interrupted_run_is_bit_identical_to_an_uninterrupted_one(pretrain, whole, half_done):
    assert saved_steps(half_done) == [5, 10, STOP]
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_stopping_after_a_step_that_is_already_trained_does_nothing(pretrain, half_done, capsys):
    assert pretrain(half_done, f"--stop_after={STOP}") == 0
    assert saved_steps(half_done)[-1] == STOP
    assert f"step {STOP} is already trained; nothing to do" in capsys.readouterr().err


def test_an_asynchronous_save_holds_the_state_of_its_step(stopped, whole):
    """The next step is given the donated memory of the state that is being written."""
    for step in (5, 10):
        expected = leaves(whole, step)
        assert expected["step"] == step
        for name, leaf in leaves(stopped, step).items():
            np.testing.assert_array_equal(leaf, expected[name], err_msg=f"{name} at {step}")


@pytest.fixture(scope="module")
def battered(packed, quick_compilation, tmp_path_factory):
    """A run that is killed during a save, resumed, preempted with three signals, and resumed while writes fail.

    Returns (workdir, exit codes, console output of each process).
    """
    workdir = tmp_path_factory.mktemp("battered") / "run"
    arguments = ["pretrain", *quick_run.settings(packed), f"--workdir={workdir}", "--json"]

    def kill_during_a_save(process: pod.Process) -> None:
        unfinished = []
        while not unfinished:
            assert process.popen.poll() is None, process.stderr
            tmp = [path.name.split(".")[0] for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")]
            unfinished = [step for step in tmp if step != "5"]  # the first save has no earlier one to resume from
        process.popen.kill()
        process.lines.append(f"killed during the save of {unfinished[0]}\n")

    def preempt(process: pod.Process) -> None:
        process.wait_for("step ")
        for _ in range(3):
            process.popen.send_signal(signal.SIGTERM)
            time.sleep(0.05)  # so that the signals arrive one by one, some of them during the save

    def make_writes_fail(process: pod.Process) -> None:
        def limit_file_size(size: int) -> None:
            resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        limit_file_size(20_000)  # metrics fit, checkpoints do not
        process.wait_for("step 15 could not be saved", "step 20 could not be saved")
        limit_file_size(resource.RLIM_INFINITY)

    codes, outputs = [], []
    for disturb in (kill_during_a_save, preempt, make_writes_fail):
        with pod.start_processes(1, 8, *arguments) as [process]:
            disturb(process)
            codes.append(process.wait())
            outputs.append(process.stderr + process.stdout)
    return workdir, codes, outputs


def test_a_run_killed_preempted_and_without_storage_is_bit_identical_to_an_uninterrupted_one(battered, whole):
    workdir, codes, outputs = battered
    assert codes == [-signal.SIGKILL, 42, 0], "\n".join(outputs)
    assert_same_run(workdir, whole)


def test_a_run_killed_during_a_save_resumes_from_the_save_before(battered):
    workdir, _, outputs = battered
    before = int(outputs[0].split("killed during the save of ")[1]) - quick_run.SAVE_EVERY
    assert f"resuming from step {before} " in outputs[1]
    assert f"{workdir}: taking over the lock of process " in outputs[1]


def test_a_preempted_run_saves_its_last_step_and_reports_it(battered):
    _, _, outputs = battered
    saved = int(outputs[1].split("saved step ")[1].split()[0])
    assert f"resuming from step {saved} " in outputs[2]
    assert json.loads(outputs[1].splitlines()[-1])["step"] == saved


def test_a_failed_save_is_reported_and_retried(battered):
    workdir, _, outputs = battered
    assert "could not be saved (File too large); the checkpoint before it is whole; trying again" in outputs[2]
    assert "storage works again: saved step 20\n" in outputs[2]
    assert not list(workdir.glob("checkpoints/*tmp*")), "no temporary file of a failed save is left"


def test_an_evaluation_that_a_preemption_interrupted_is_done_on_resume(pretrain, half_done, whole, monkeypatch):
    """The run is preempted after it has saved its last step, before the evaluation of that step."""
    last = quick_run.TOTAL_STEPS
    with monkeypatch.context() as patch:
        patch.setattr(preemption.Preemption, "reached", lambda self: saved_steps(half_done)[-1] == last)
        assert pretrain(half_done) == 42
    assert saved_steps(half_done)[-1] == last and entries(half_done)[-1]["split"] == "train"
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_resuming_a_finished_run_changes_nothing(pretrain, whole, capsys):
    before = entries(whole)
    assert pretrain(whole) == 0
    assert f"step {quick_run.TOTAL_STEPS} is already trained; nothing to do" in capsys.readouterr().err
    assert entries(whole) == before
    assert saved_steps(whole) == [5, 10, 15, 20]


# ---- what is written -----------------------------------------------------------------------------


def test_every_entry_is_written_once_and_in_order(whole):
    kinds = [(entry["step"], entry["split"]) for entry in entries(whole)]
    train = [(step, "train") for step in (1, 4, 8, 12, 16, 20)]
    validation = [(step, "validation") for step in (10, 20)]
    assert kinds == sorted(train + validation)


def test_every_metric_has_its_public_name(whole):
    for line in map(json.loads, (whole / "metrics.jsonl").read_text().splitlines()):
        names = line.keys() - {"step", "split"}
        if line["split"] == "validation":
            assert names == METRICS | {"discriminator_auc"}
        else:
            timed = TIMINGS if line["step"] > 1 else set()  # step 1 includes compilation
            assert names == METRICS | {"gradient_norm", "learning_rate"} | timed | MEMORY


def test_tensorboard_holds_the_values_of_metrics_jsonl(whole):
    from tensorboardX.proto.event_pb2 import Event

    shown = {}
    for path in sorted((whole / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            shown |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    expected = {
        (line["step"], f"{line['split']}/{name}"): np.float32(value)
        for line in lines
        for name, value in line.items()
        if name not in ("step", "split")
    }
    assert shown == expected


def test_max_to_keep_and_keep_period_decide_which_checkpoints_stay(pretrain, half_done):
    assert pretrain(half_done, save_every=1, max_to_keep=2, keep_period=5) == 0
    assert saved_steps(half_done) == [5, 10, 15, 19, 20]


# ---- numbers that are not finite --------------------------------------------------------------------------


def test_a_diverged_run_stops_and_its_last_checkpoint_is_finite(pretrain, half_done, capsys):
    before = entries(half_done)
    assert pretrain(half_done, optimizer__learning_rate=1e30) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    # Step 14 updates the parameters; step 15 is the first with another loss, and a save is due at it.
    assert " at step 15; stopped" in message
    assert "config.optimizer.learning_rate" in message
    *kept, last = entries(half_done)
    assert saved_steps(half_done)[-1] == STOP and kept == before
    assert last["split"] == "train" and not np.isfinite(last["loss"])
    alerts = history.read_history(str(half_done)).alerts(history.read_manifest(str(half_done)))
    assert ("not_finite", last["step"]) in [(alert.kind, alert.step) for alert in alerts]
    for name, leaf in leaves(half_done).items():
        assert np.isfinite(leaf).all(), name


def test_parameters_that_are_not_finite_are_not_saved(pretrain, half_done, capsys):
    """The loss and gradient of the step that overflows them are finite: they are computed before the update."""
    assert pretrain(half_done, "--stop_after=14", optimizer__learning_rate=3e38) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "not finite after step 14; stopped, the last checkpoint is from before it" in message
    assert saved_steps(half_done)[-1] == STOP


# ---- a workdir of another model -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(model__hidden_size=32), "model.hidden_size: 16 -> 32"),
        (dict(model__tying="gradient_disentangled"), "model.tying: 'embeddings' -> 'gradient_disentangled'"),
        (dict(objective__kind="uniform"), "objective.kind: 'electra' -> 'uniform'"),
        (dict(objective__corrective_weight=0.5), "objective.corrective_weight: 0.0 -> 0.5"),
    ],
)
def test_a_workdir_of_another_model_is_rejected(pretrain, half_done, capsys, changed, named):
    config = (half_done / "config.json").read_bytes()
    assert pretrain(half_done, **changed) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert f"{half_done} holds another model ({named}); use a new --workdir" in message
    assert (half_done / "config.json").read_bytes() == config


def test_a_workdir_with_another_vocabulary_is_rejected(pretrain, half_done, packed, tmp_path, capsys):
    """The vocabularies have the same size, so that the shapes are equal."""
    other = shutil.copytree(packed, tmp_path / "other")
    tokens = (other / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*tokens[:-2], tokens[-1], tokens[-2]]) + "\n")
    manifest = files.read_json(other / "manifest.json")
    files.write_json(
        other / "manifest.json", manifest | {"vocab_sha256": files.sha256(other / "vocab.txt"), "digest": ""}
    )
    assert pretrain(half_done, data__directory=other) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert f"{half_done} holds a model with another vocabulary than {other}" in message


def test_runtime_settings_may_change_between_restarts(run_config):
    model = dataclasses.replace(run_config.model, remat="full", compute_dtype="bfloat16", dropout=0.0)
    free = dataclasses.replace(run_config, model=model, batch_size=16, total_steps=60, log_every=1)
    workdirs.check_same_model("run", run_config, free)


# ---- damaged and full disks ----------------------------------------------------------------------


def test_a_partially_written_checkpoint_is_ignored(pretrain, half_done, whole):
    """A killed process leaves it under its temporary name, with some files missing."""
    newest = half_done / "checkpoints" / str(STOP)
    torn = newest.rename(newest.with_name(f"{STOP}.orbax-checkpoint-tmp"))
    shutil.rmtree(torn / "state")
    assert leaves(half_done)["step"] == 10
    assert pretrain(half_done, f"--stop_after={STOP}") == 0
    assert saved_steps(half_done) == [5, 10, STOP] and not torn.exists()
    assert entries(half_done) == [entry for entry in entries(whole) if entry["step"] <= STOP]


def delete_files(newest: pathlib.Path) -> None:
    shutil.rmtree(newest / "state" / "d")


def truncate(newest: pathlib.Path) -> None:
    clock = newest / "clock" / "metadata"
    clock.write_bytes(clock.read_bytes()[:40])


def replace_state(newest: pathlib.Path) -> None:
    """Puts intact files with other values in its place, which orbax cannot detect."""
    shutil.rmtree(newest / "state")
    shutil.copytree(newest.with_name("10") / "state", newest / "state")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (delete_files, "NOT_FOUND"),
        (truncate, "Expecting"),
        (replace_state, "its contents differ from those that were saved"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_renamed_and_the_one_before_it_used(
    run_config, half_done, capsys, damage, reason
):
    newest = half_done / "checkpoints" / str(STOP)
    damage(newest)
    with checkpoint_manager(str(half_done), run_config) as saved:
        state, clock = saved.restore(sharding.make_mesh(MeshConfig()))
    assert state.step == clock["step"] == 10
    console = capsys.readouterr().err
    assert f"{newest}: cannot be read ({reason}" in console and f"{newest}: moved to {newest}.damaged\n" in console
    assert saved_steps(half_done) == [5, 10] and newest.with_name(f"{STOP}.damaged").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda clock: [1, 2], "its item clock: its content is [1, 2]; wanted an object"),
        (lambda clock: {"step": STOP}, "its item clock: its content lacks 'train_seconds'"),
        (lambda clock: clock | {"step": "13"}, "its item clock: step is '13'; wanted a whole number"),
        (lambda clock: clock | {"step": 10}, "its item clock is that of step 10"),
        (lambda clock: clock | {"tokens": "many"}, "its item clock: tokens is 'many'"),
        (lambda clock: clock | {"pending_sums": {"loss_sum": 1.0}}, "its item clock lacks 'gradient_norm_sum'"),
        (lambda clock: clock | {"surprise": 1}, "its item clock: its content has the unknown key 'surprise'"),
    ],
)
def test_a_checkpoint_with_wrong_counters_is_like_one_with_damaged_arrays(
    run_config, half_done, capsys, change, reason
):
    """The JSON part of the checkpoint is readable, but not that of a run."""
    newest = half_done / "checkpoints" / str(STOP)
    clock = newest / "clock" / "metadata"
    clock.write_text(json.dumps(change(json.loads(clock.read_text()))))
    with checkpoint_manager(str(half_done), run_config) as saved:
        state, counters = saved.restore(sharding.make_mesh(MeshConfig()))
    assert state.step == counters["step"] == 10
    assert f"{newest}: cannot be read ({reason}" in capsys.readouterr().err
    assert saved_steps(half_done) == [5, 10] and newest.with_name(f"{STOP}.damaged").is_dir()


@pytest.mark.slow
def test_bad_lines_in_metrics_jsonl_do_not_block_a_resume_and_no_history_is_lost(pretrain, half_done, whole, capsys):
    path = half_done / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "[1, 2]", '{"a": 1}', *lines[1:]]) + "\n")
    assert pretrain(half_done) == 0
    assert capsys.readouterr().err.count("not an entry") == 1
    after = path.read_text().splitlines()
    assert after[1:3] == ["[1, 2]", '{"a": 1}']
    path.write_text("\n".join([after[0], *after[3:]]) + "\n")
    assert_same_run(half_done, whole)


@pytest.mark.slow
def test_a_run_with_a_damaged_newest_checkpoint_is_bit_identical_to_an_uninterrupted_one(pretrain, half_done, whole):
    delete_files(half_done / "checkpoints" / str(STOP))
    assert leaves(half_done)["step"] == 10, "reading takes the checkpoint before"
    assert saved_steps(half_done) == [5, 10, STOP], "reading changes nothing"
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_if_no_checkpoint_can_be_read_none_is_changed(pretrain, half_done, capsys):
    for step in (5, 10, STOP):
        truncate(half_done / "checkpoints" / str(step))
    assert pretrain(half_done) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{half_done}/checkpoints: none of 13, 10, 5 can be read" in message and "nothing was changed" in message
    assert saved_steps(half_done) == [5, 10, STOP]


def test_a_run_whose_next_checkpoint_does_not_fit_stops_before_its_first_step(pretrain, stopped, small_disk, capsys):
    size = sum(path.stat().st_size + 4096 for path in stopped.rglob("*"))
    disk = small_disk(2 * size)
    workdir = shutil.copytree(stopped, disk / "run")
    fill(disk, leaving=60_000)
    before = (workdir / "history.jsonl").read_bytes()
    assert pretrain(workdir) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{workdir}: 0.1 MB free; a checkpoint needs 0.1 MB; free some space" in line
    assert (workdir / "history.jsonl").read_bytes() == before


def test_a_disk_that_fills_during_a_run_gives_one_error_line_and_leaves_the_earlier_checkpoint_intact(
    pretrain, packed, stopped, small_disk
):
    size = sum(path.stat().st_size + 4096 for path in stopped.rglob("*"))
    disk = small_disk(2 * size)
    workdir = shutil.copytree(stopped, disk / "run")
    with pod.start_processes(1, 8, "pretrain", *quick_run.settings(packed), f"--workdir={workdir}") as [process]:
        process.wait_for("resuming from step")
        ballast = fill(disk, leaving=60_000)  # room for a few lines, not for a checkpoint
        process.wait()
        console = process.stderr
    assert process.popen.returncode == 2, console
    lines = console.splitlines()
    assert lines[0] == f"resuming from step {STOP} on 8 cpu device(s)"
    assert [line for line in lines[1:-1] if not line.startswith(("first step", "step "))] == []
    assert lines[-1].startswith(f"electramed pretrain: {workdir}: the checkpoint could not be written (No space left")
    assert saved_steps(workdir)[-1] == STOP
    expected = leaves(stopped)
    for name, leaf in leaves(workdir).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    ballast.unlink()
    assert pretrain(workdir, "--stop_after=14") == 0, "the run resumes once there is space"


def test_the_error_of_a_failed_save_names_the_intact_checkpoint(run_config, stopped, tmp_path, monkeypatch):
    """Does not need a small file system, unlike the test above."""
    workdir = str(shutil.copytree(stopped, tmp_path / "run"))

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device\nand more")

    def save_on_a_full_disk():
        with checkpoint_manager(workdir, run_config) as checkpoints:
            state, counters = checkpoints.restore(sharding.make_mesh(MeshConfig()))
            monkeypatch.setattr(checkpoints._manager, "save", full)
            checkpoints.save(14, state, counters)

    with pytest.raises(UserError) as caught:
        save_on_a_full_disk()
    assert "could not be written (No space left on device)" in str(caught.value)
    assert "the one before it is whole" in str(caught.value)
    assert saved_steps(pathlib.Path(workdir))[-1] == STOP


# ---- the dataset ---------------------------------------------------------------------------------


def test_a_batch_that_does_not_divide_into_micro_batches_is_rejected_before_the_workdir_is_created(
    pretrain, tmp_path, capsys
):
    assert pretrain(tmp_path / "run", gradient_accumulation_steps=3) == 2
    assert "not divisible by gradient_accumulation_steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_error_of_a_run_without_a_dataset_names_the_missing_setting(run_config):
    data = dataclasses.replace(run_config.data, directory="")
    with pytest.raises(UserError, match=r"no dataset; add --config\.data\.directory=DIR"):
        loop.resolve_with_dataset(dataclasses.replace(run_config, data=data))
