"""A run that is interrupted, killed, starved of disk or driven to infinity, and what is left of it.

All runs here are `electramed pretrain` on the same rows with dropout on, in this process or in one of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import resource
import shutil
import signal
import struct
import time

import jax
import numpy as np
import pod
import pytest
import quick_run
from small_disk import fill, small_disk

from electramed_jax import cli
from electramed_jax.common import step_timer, tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import preemption
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.model import flops
from electramed_jax.pretrain import history, loop
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.pretrain.checkpoint import checkpoint_manager, load_pretrained_state
from electramed_jax.pretrain.step import compute_metrics
from electramed_jax.training import sharding
from electramed_jax.training.step_metrics import StepMetrics

__all__ = ["small_disk"]  # a fixture

TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds"}
METRICS = set(
    (
        "loss generator_loss generator_accuracy sampled_accuracy discriminator_loss discriminator_accuracy "
        "discriminator_precision discriminator_recall replaced_fraction fill_fraction"
    ).split()
)
SUMS = dict.fromkeys(
    (
        "step_count loss_sum gradient_norm_sum learning_rate_sum generator_nll_sum generator_correct_sum "
        "sampled_correct_sum masked_count token_count slot_count"
    ).split(),
    1.0,
)


def step_metrics_of(config: Config, timer: step_timer.StepTimer, num_devices: int = 8) -> StepMetrics:
    return StepMetrics(
        timer,
        config.total_steps,
        functools.partial(compute_metrics, config=config),
        step_flops=flops.train_step_flops(config),
        num_devices=num_devices,
    )


STOP = 13  # between two entries, two saves and two evaluations


@pytest.fixture(scope="module")
def pretrain(packed, quick_compilation):
    """`electramed pretrain` into a workdir, in this process: returns its exit code."""

    def run(workdir: pathlib.Path, *options: str, **settings: object) -> int:
        return cli.main(["pretrain", *quick_run.settings(packed, **settings), f"--workdir={workdir}", *options])

    return run


@pytest.fixture(scope="module")
def whole(pretrain, tmp_path_factory) -> pathlib.Path:
    """The workdir of a run that nothing disturbed. Not to be written to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def stopped(pretrain, tmp_path_factory) -> pathlib.Path:
    """The workdir of a run asked to stop after step 13. To be copied."""
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
    """Lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """Every leaf of the last state, and every entry, to the bit."""
    expected = leaves(theirs)
    for name, leaf in leaves(ours).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    assert entries(ours) == entries(theirs)


# ---- interrupted and resumed ---------------------------------------------------------------------


def test_an_interrupted_run_is_bit_equal_to_an_undisturbed_one(pretrain, whole, half_done):
    assert saved_steps(half_done) == [5, 10, STOP]
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_stopping_after_a_step_that_is_done_trains_no_further(pretrain, half_done, capsys):
    assert pretrain(half_done, f"--stop_after={STOP}") == 0
    assert saved_steps(half_done)[-1] == STOP
    assert f"step {STOP} was reached before; nothing left to train" in capsys.readouterr().err


def test_a_checkpoint_in_passing_holds_the_state_of_its_step(stopped, whole):
    """The next step is given the memory of the state that is still being written."""
    for step in (5, 10):
        expected = leaves(whole, step)
        assert expected["step"] == step
        for name, leaf in leaves(stopped, step).items():
            np.testing.assert_array_equal(leaf, expected[name], err_msg=f"{name} at {step}")


@pytest.fixture(scope="module")
def battered(packed, quick_compilation, tmp_path_factory):
    """A run killed amid a save, started, told to end three times, started on storage that fails for a while:
    (workdir, exit codes, what was said)."""
    workdir = tmp_path_factory.mktemp("battered") / "run"
    arguments = ["pretrain", *quick_run.settings(packed), f"--workdir={workdir}", "--json"]

    def kill_amid_a_save(process: pod.Process) -> None:
        under_way = []
        while not under_way:
            assert process.popen.poll() is None, process.said
            tmp = [path.name.split(".")[0] for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")]
            under_way = [step for step in tmp if step != "5"]  # of the first one, nothing would be left
        process.popen.kill()
        process.lines.append(f"killed amid the save of {under_way[0]}\n")

    def tell_to_end(process: pod.Process) -> None:
        process.wait_for("step ")
        for _ in range(3):
            process.popen.send_signal(signal.SIGTERM)
            time.sleep(0.05)  # so that they arrive one by one, some of them amid the save

    def let_storage_fail(process: pod.Process) -> None:
        def largest_file(size: int) -> None:
            resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        largest_file(20_000)  # metrics fit, checkpoints do not
        process.wait_for("step 15 could not be saved", "step 20 could not be saved")
        largest_file(resource.RLIM_INFINITY)

    codes, said = [], []
    for disturb in (kill_amid_a_save, tell_to_end, let_storage_fail):
        with pod.started(1, 8, *arguments) as [process]:
            disturb(process)
            codes.append(process.ended())
            said.append(process.said + process.out)
    return workdir, codes, said


def test_a_run_killed_told_to_end_and_starved_of_storage_is_bit_equal_to_an_undisturbed_one(battered, whole):
    workdir, codes, said = battered
    assert codes == [-signal.SIGKILL, 42, 0], "\n".join(said)
    assert_same_run(workdir, whole)


def test_a_run_killed_amid_a_save_goes_on_from_the_one_before(battered):
    _, _, said = battered
    before = int(said[0].split("killed amid the save of ")[1]) - quick_run.SAVE_EVERY
    assert said[1].startswith(f"going on from step {before} ")


def test_a_terminated_run_has_saved_the_step_it_was_at_and_says_so(battered):
    _, _, said = battered
    saved = int(said[1].split("saved step ")[1].split()[0])
    assert f"going on from step {saved} " in said[2]
    assert json.loads(said[1].splitlines()[-1])["step"] == saved


def test_storage_that_fails_for_a_while_is_said_and_tried_again(battered):
    workdir, _, said = battered
    assert "could not be saved (File too large); the checkpoint before it is whole; trying again" in said[2]
    assert "storage works again: saved step 20\n" in said[2]
    assert not list(workdir.glob("checkpoints/*tmp*")), "nothing is left of what failed"


def test_an_evaluation_that_an_interruption_prevented_is_made_up_for(pretrain, half_done, whole, monkeypatch):
    """Told to end once it has saved its very last step, a run gives up the evaluation that is due."""
    last = quick_run.TOTAL_STEPS
    with monkeypatch.context() as patch:
        patch.setattr(preemption.Preemption, "reached", lambda self: saved_steps(half_done)[-1] == last)
        assert pretrain(half_done) == 42
    assert saved_steps(half_done)[-1] == last and entries(half_done)[-1]["split"] == "train"
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_a_finished_run_says_so_and_changes_nothing(pretrain, whole, capsys):
    before = entries(whole)
    assert pretrain(whole) == 0
    assert f"step {quick_run.TOTAL_STEPS} was reached before; nothing left to train" in capsys.readouterr().err
    assert entries(whole) == before
    assert saved_steps(whole) == [5, 10, 15, 20]


# ---- what is written -----------------------------------------------------------------------------


def test_every_entry_is_there_once_and_in_order(whole):
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
            timed = TIMINGS if line["step"] > 1 else set()  # nothing but compilation before
            assert names == METRICS | {"gradient_norm", "learning_rate"} | timed


def test_tensorboard_shows_what_the_lines_say(whole):
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
    told = {
        (line["step"], f"{line['split']}/{name}"): np.float32(value)
        for line in lines
        for name, value in line.items()
        if name not in ("step", "split")
    }
    assert shown == told


@pytest.mark.parametrize(("device", "known"), [("cpu", False), ("TPU v5 lite", True)])
def test_utilization_is_told_only_where_the_peak_is_known(run_config, monkeypatch, device, known):
    if known:
        monkeypatch.setitem(flops.PEAK_FLOPS, jax.devices()[0].device_kind, flops.PEAK_FLOPS[device])
    seconds = iter(range(100))
    report = step_metrics_of(run_config, step_timer.StepTimer(now=lambda: next(seconds)), num_devices=4)
    for step in (1, 2):
        report.add(step, SUMS)
    told = report.flush()
    assert told["step_seconds"] == 1.0
    if known:
        assert told["model_flops_utilization"] == pytest.approx(flops.train_step_flops(run_config) / (4 * 197e12))
    else:
        assert "model_flops_utilization" not in told


def test_the_newest_checkpoints_are_kept_and_every_so_many_steps_one_for_good(pretrain, half_done):
    assert pretrain(half_done, save_every=1, max_to_keep=2, keep_period=5) == 0
    assert saved_steps(half_done) == [5, 10, 15, 19, 20]


# ---- stopped by numbers --------------------------------------------------------------------------


def test_an_absurd_learning_rate_stops_the_run_with_the_last_checkpoint_still_good(pretrain, half_done, capsys):
    before = entries(half_done)
    assert pretrain(half_done, optimizer__learning_rate=1e30) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    # Step 14 moves the parameters; 15 is the first to feel it, and due to be saved.
    assert " at step 15; stopped" in said
    assert "config.optimizer.learning_rate" in said
    *kept, last = entries(half_done)
    assert saved_steps(half_done)[-1] == STOP and kept == before
    assert last["split"] == "train" and not np.isfinite(last["loss"])
    told = history.read(str(half_done)).alerts(history.read_manifest(str(half_done)))
    assert ("not_finite", last["step"]) in [(alert.kind, alert.step) for alert in told]
    for name, leaf in leaves(half_done).items():
        assert np.isfinite(leaf).all(), name


def test_parameters_that_are_not_finite_are_not_saved(pretrain, half_done, capsys):
    """The step that overflows them is itself in order: its loss and gradient were taken before."""
    assert pretrain(half_done, "--stop_after=14", optimizer__learning_rate=3e38) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not finite after step 14; stopped, the last checkpoint is from before it" in said
    assert saved_steps(half_done)[-1] == STOP


@pytest.mark.parametrize(
    ("poisoned", "said"), [("loss_sum", "loss is nan"), ("gradient_norm_sum", "gradient norm is nan")]
)
def test_the_first_step_that_is_not_finite_is_named_however_late_it_is_noticed(run_config, poisoned, said):
    report = step_metrics_of(run_config, step_timer.StepTimer())
    for step in range(1, 6):
        report.add(step, SUMS | {poisoned: float("nan") if step in (3, 4) else 1.0})
    for notice in (report.state_dict, lambda: report.flush()):
        with pytest.raises(UserError, match=f"{said} at step 3; stopped"):
            notice()


def test_a_checkpoint_that_had_diverged_when_it_was_saved_is_named(run_config):
    """Finite as its parameters are, the next loss is not, whatever the learning rate."""
    report = step_metrics_of(run_config, step_timer.StepTimer(step=13))
    with pytest.raises(UserError, match="at step 14; stopped.* it has diverged already: move checkpoints/13 away"):
        report.add(14, SUMS | {"loss_sum": float("inf")})


# ---- a workdir that is another's -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(model__hidden_size=32), "model.hidden_size: 16 -> 32"),
        (dict(model__tying="gradient_disentangled"), "model.tying: 'embeddings' -> 'gradient_disentangled'"),
        (dict(objective__kind="uniform"), "objective.kind: 'electra' -> 'uniform'"),
    ],
)
def test_a_workdir_of_another_model_is_refused(pretrain, half_done, capsys, changed, named):
    config = (half_done / "config.json").read_bytes()
    assert pretrain(half_done, **changed) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{half_done} holds another model ({named}); use a new --workdir" in said
    assert (half_done / "config.json").read_bytes() == config


def test_a_workdir_of_another_vocabulary_is_refused(pretrain, half_done, packed, tmp_path, capsys):
    """Of the same size: the shapes alone would fit."""
    other = shutil.copytree(packed, tmp_path / "other")
    tokens = (other / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*tokens[:-2], tokens[-1], tokens[-2]]) + "\n")
    manifest = files.read_json(other / "manifest.json")
    files.write_json(other / "manifest.json", manifest | {"vocab_sha256": files.sha256(other / "vocab.txt")})
    assert pretrain(half_done, data__directory=other) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{half_done} holds a model of another vocabulary than that of {other}" in said


def test_how_a_model_is_run_may_change_between_restarts(run_config):
    """Only what the parameters mean may not."""
    model = dataclasses.replace(run_config.model, remat="full", compute_dtype="bfloat16", dropout=0.0)
    free = dataclasses.replace(run_config, model=model, batch_size=16, total_steps=60, log_every=1)
    workdirs.check_same_model("run", run_config, free)


# ---- damaged and full disks ----------------------------------------------------------------------


def test_a_half_written_checkpoint_is_not_taken_for_whole(pretrain, half_done, whole):
    """As a killed process leaves it: under its temporary name, some files missing."""
    newest = half_done / "checkpoints" / str(STOP)
    torn = newest.rename(newest.with_name(f"{STOP}.orbax-checkpoint-tmp"))
    shutil.rmtree(torn / "state")
    assert leaves(half_done)["step"] == 10
    assert pretrain(half_done, f"--stop_after={STOP}") == 0
    assert saved_steps(half_done) == [5, 10, STOP] and not torn.exists()
    assert entries(half_done) == [entry for entry in entries(whole) if entry["step"] <= STOP]


def missing(newest: pathlib.Path) -> None:
    shutil.rmtree(newest / "state" / "d")


def cut_short(newest: pathlib.Path) -> None:
    clock = newest / "clock" / "metadata"
    clock.write_bytes(clock.read_bytes()[:40])


def another(newest: pathlib.Path) -> None:
    """Files that are whole in themselves, but of other numbers: what orbax cannot notice."""
    shutil.rmtree(newest / "state")
    shutil.copytree(newest.with_name("10") / "state", newest / "state")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(missing, "NOT_FOUND"), (cut_short, "Expecting"), (another, "its numbers are not those that were saved")],
)
def test_a_damaged_checkpoint_is_said_kept_aside_and_the_one_before_it_used(
    run_config, half_done, capsys, damage, reason
):
    newest = half_done / "checkpoints" / str(STOP)
    damage(newest)
    with checkpoint_manager(str(half_done), run_config) as saved:
        state, clock = saved.restore(sharding.make_mesh(MeshConfig()))
    assert state.step == clock["step"] == 10
    said = capsys.readouterr().err
    assert f"{newest}: cannot be read ({reason}" in said and f"{newest}: moved to {newest}.damaged\n" in said
    assert saved_steps(half_done) == [5, 10] and newest.with_name(f"{STOP}.damaged").is_dir()


def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_been(pretrain, half_done, whole):
    missing(half_done / "checkpoints" / str(STOP))
    assert leaves(half_done)["step"] == 10, "who only reads takes the one before, too"
    assert saved_steps(half_done) == [5, 10, STOP], "and changes nothing"
    assert pretrain(half_done) == 0
    assert_same_run(half_done, whole)


def test_where_no_checkpoint_can_be_read_none_is_touched(pretrain, half_done, capsys):
    for step in (5, 10, STOP):
        cut_short(half_done / "checkpoints" / str(step))
    assert pretrain(half_done) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{half_done}/checkpoints: none of 13, 10, 5 can be read" in said and "nothing was changed" in said
    assert saved_steps(half_done) == [5, 10, STOP]


def test_a_disk_that_fills_up_is_one_clear_line_and_the_earlier_checkpoint_stays_whole(
    pretrain, packed, stopped, small_disk
):
    size = sum(path.stat().st_size + 4096 for path in stopped.rglob("*"))
    disk = small_disk(2 * size)
    workdir = shutil.copytree(stopped, disk / "run")
    ballast = fill(disk, leaving=60_000)  # room for a few lines, not for a checkpoint
    with quick_run.start("pretrain", *quick_run.settings(packed), f"--workdir={workdir}") as process:
        said = process.stderr.read()
    assert process.returncode == 2, said
    lines = said.splitlines()
    assert lines[0] == f"going on from step {STOP} on 8 cpu device(s)"
    assert [line for line in lines[1:-1] if not line.startswith(("first step", "step "))] == []
    assert lines[-1].startswith(f"electramed pretrain: {workdir}: the checkpoint could not be written (No space left")
    assert saved_steps(workdir)[-1] == STOP
    expected = leaves(stopped)
    for name, leaf in leaves(workdir).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    ballast.unlink()
    assert pretrain(workdir, "--stop_after=14") == 0, "as the message promised"


def test_a_save_that_fails_says_that_the_one_before_is_whole(run_config, stopped, tmp_path, monkeypatch):
    """Where no small file system can be mounted, too."""
    workdir = str(shutil.copytree(stopped, tmp_path / "run"))

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device\nand more")

    with pytest.raises(UserError) as caught, checkpoint_manager(workdir, run_config) as saved:
        state, clock = saved.restore(sharding.make_mesh(MeshConfig()))
        monkeypatch.setattr(saved._manager, "save", full)
        saved.save(14, state, clock)
    assert "could not be written (No space left on device)" in str(caught.value)
    assert "the one before it is whole" in str(caught.value)
    assert saved_steps(pathlib.Path(workdir))[-1] == STOP


# ---- the dataset ---------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_run_in_parts_is_refused_before_there_is_a_workdir(pretrain, tmp_path, capsys):
    assert pretrain(tmp_path / "run", gradient_accumulation_steps=3) == 2
    assert "not divisible by gradient_accumulation_steps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_dataset_says_which_setting_is_missing(run_config):
    data = dataclasses.replace(run_config.data, directory="")
    with pytest.raises(UserError, match=r"no dataset; add --config\.data\.directory=DIR"):
        loop.resolve_with_dataset(dataclasses.replace(run_config, data=data))
