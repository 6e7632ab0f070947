"""Fault injection: kills and signals at any moment, damaged files, failing and full disks, lost processes.

Every run is an `electramed` command on generated articles, in its own processes, except for the tables `files` and
`disks`. Its result is compared bit by bit with an undisturbed run. Prints seven tables, or those named on the command
line:

    python tests/benchmarks/faults.py [kills] [signals] [damage] [files] [disks] [storage] [peers]

On two cores `files` takes some fifteen minutes and `disks` five (it mounts small file systems, which needs root), the
others together half an hour.

The environment variables KILLS=20 and CASES=300 set the number of kills and of damaged files, SEED=0 their choice.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np
import pod
import quick_run
import small_disk
import writing_commands

from electramed_jax import cli
from electramed_jax.common import tree_rules
from electramed_jax.common.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding

STEPS, SAVE_EVERY = 480, 40
SETTINGS = dict(total_steps=STEPS, save_every=SAVE_EVERY, log_every=8, eval_every=80, max_to_keep=1000)
TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds", "host_memory_bytes"}


def pretrain(dataset: pathlib.Path, workdir: pathlib.Path, **changed: object) -> list[str]:
    return ["pretrain", *quick_run.settings(dataset, **SETTINGS | changed), f"--workdir={workdir}"]


def steps_of(workdir: pathlib.Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) if folder.exists() else []


def state_of(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    state = load_pretrained_state(str(workdir), sharding.make_mesh(MeshConfig()), step)[1]
    return {name: np.asarray(leaf) for name, leaf in tree_rules.named_leaves(state).items()}


def same_state(workdir: pathlib.Path, undisturbed: pathlib.Path, step: int) -> bool:
    ours, theirs = state_of(workdir, step), state_of(undisturbed, step)
    return all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def entries(workdir: pathlib.Path) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def verdict(same: bool) -> str:
    return "bit-equal" if same else "DIFFERENT"


# ---- kills -----------------------------------------------------------------------------------------


def kills(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Kills one run repeatedly, every fourth time during a save, otherwise at a random moment."""
    count, draw = int(os.environ.get("KILLS", "20")), random.Random(int(os.environ.get("SEED", "0")))
    workdir = root / "killed"
    print(f"\n{count} kills\n{'kill':<6}{'moment':<40}{'newest whole':<14}{'resumed from':<14}checkpoint")
    rows, before = [], 0
    for number in range(1, count + 1):
        if before > STEPS - 2 * SAVE_EVERY:  # too few steps are left for another moment
            finish_killed_run(workdir, dataset, undisturbed)
            workdir, before = root / f"killed, from kill {number}", 0
        with pod.start_processes(1, 8, *pretrain(dataset, workdir)) as [process]:
            kill = kill_during_save if number % 4 == 0 else kill_at_random
            moment = kill(process, workdir, draw, time.time())
            assert process.wait() == -signal.SIGKILL, process.stderr
        resumed_from = word_after(process.stderr, "from step ") or "-"  # killed before it printed the step
        assert resumed_from in ("-", f"{before}"), (resumed_from, before)
        before = max(steps_of(workdir), default=0)
        same = verdict(same_state(workdir, undisturbed, before)) if before else "-"
        rows.append(f"{number:<6}{moment:<40}{before:<14}{resumed_from:<14}{same}")
        print(rows[-1], flush=True)
    finish_killed_run(workdir, dataset, undisturbed)


def finish_killed_run(workdir: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    with pod.start_processes(1, 8, *pretrain(dataset, workdir)) as [process]:
        assert process.wait(600) == 0, process.stderr
    same = same_state(workdir, undisturbed, STEPS) and entries(workdir) == entries(undisturbed)
    print(f"then to the end, step {STEPS}: state and every entry of metrics.jsonl {verdict(same)}")


def step_being_saved(workdir: pathlib.Path, began: float) -> str | None:
    """Returns the step that is being saved, or None. Ignores unfinished saves of earlier processes."""
    for folder in workdir.glob("checkpoints/*.orbax-checkpoint-tmp*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime > began:
                return folder.name.split(".")[0]
    return None


def kill_during_save(process: pod.Process, workdir: pathlib.Path, draw: random.Random, began: float) -> str:
    process.wait_for("first step")
    for _ in range(draw.randrange(5)):
        process.wait_for("step ")
    while not step_being_saved(workdir, began):
        assert process.popen.poll() is None, process.stderr
    process.popen.kill()
    process.wait()
    return f"during the save of step {step_being_saved(workdir, began)}, wanted"


def kill_at_random(process: pod.Process, workdir: pathlib.Path, draw: random.Random, began: float) -> str:
    """Kills one in five before or near the first step, the others within a few metric entries after it."""
    if draw.random() < 0.2:
        seconds = draw.uniform(0, 8)
    else:
        for _ in range(draw.randrange(1, 10)):
            process.wait_for("step ", "first step")
        seconds = draw.uniform(0, 0.5)
    time.sleep(seconds)
    process.popen.kill()
    process.wait()
    if step := step_being_saved(workdir, began):
        return f"during the save of step {step}"
    lines = [
        line for line in process.lines if line.startswith(("step ", "first step", "starting", "resuming", "valid"))
    ]
    if not lines:
        return "before the first line"
    last = re.split("  |:|,| on ", lines[-1])[0].strip()
    return f"after “{last}”"


def word_after(output: str, prefix: str) -> str | None:
    return output.split(prefix)[1].split()[0].strip(",:") if prefix in output else None


# ---- signals ---------------------------------------------------------------------------------------

# The stage begins with this line of standard error. The numbers count lines with the same beginning.
STAGES = {
    "start-up, imports": None,
    "start-up, compilation": ("starting", 1),
    "first steps": ("first step", 1),
    "training": ("step ", 4),
    "near an evaluation": ("step 80/", 1),
    "after an evaluation": ("validation at step 80", 1),
    "near a save": ("step 120/", 1),
    "last save": (f"step {STEPS}/", 1),
}


def signals(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Sends SIGTERM, then in another run SIGINT, in each stage of a run, and runs it again to its end."""
    print(f"\nsignals in each stage\n{'signal':<9}{'stage':<24}{'seconds to the end':<20}{'exit':<6}at the end")
    for sent, wanted in ((signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)):
        for stage, line in STAGES.items():
            workdir = root / f"signalled-{sent.name}-{stage}"
            with pod.start_processes(1, 8, *pretrain(dataset, workdir)) as [process]:
                if line is None:
                    time.sleep(2)
                else:
                    for _ in range(line[1]):
                        process.wait_for(line[0])
                began = time.monotonic()
                process.popen.send_signal(sent)
                code = process.wait(300)
                seconds = time.monotonic() - began
            # A signal to a process that has trained its last step may come too late to change its exit code.
            assert code == wanted or (code == 0 and steps_of(workdir)[-1] == STEPS), process.stderr
            assert "Traceback" not in process.stderr, process.stderr
            with pod.start_processes(1, 8, *pretrain(dataset, workdir)) as [process]:
                assert process.wait(600) == 0, process.stderr
            same = same_state(workdir, undisturbed, STEPS) and entries(workdir) == entries(undisturbed)
            print(f"{sent.name:<9}{stage:<24}{seconds:<20.1f}{code:<6}{verdict(same)}", flush=True)


# ---- damage ----------------------------------------------------------------------------------------


def delete(path: pathlib.Path) -> None:
    path.unlink()


def cut_in_half(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: pathlib.Path) -> None:
    """Changes every byte of the middle third."""
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, 2 * len(data) // 3):
        data[place] ^= 0x55
    path.write_bytes(data)


def flip_a_bit(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Damages each file of the newest checkpoint in four ways.

    Either the damage is reported and the checkpoint before it is restored, or the state is bit-equal nevertheless
    (orbax does not read every file that it writes). It never differs.
    """
    from electramed_jax.pretrain import loop
    from electramed_jax.pretrain.checkpoint import checkpoint_manager
    from electramed_jax.pretrain.workdir import init_workdir, read_config

    print(
        f"\ndamage to the newest checkpoint\n{'how':<14}{'files':>6}{'reported, older used':>24}{'read, bit-equal':>17}"
    )
    newest, before = steps_of(undisturbed)[-1], steps_of(undisturbed)[-2]
    config = read_config(str(undisturbed))
    config, dataset = loop.resolve_with_dataset(config)
    mesh, expected = sharding.make_mesh(MeshConfig()), {s: state_of(undisturbed, s) for s in (newest, before)}
    names = [
        p.relative_to(undisturbed) for p in sorted((undisturbed / f"checkpoints/{newest}").rglob("*")) if p.is_file()
    ]
    for how in (delete, cut_in_half, garble, flip_a_bit):
        reported = intact = 0
        for name in names:
            workdir = root / "damaged"
            shutil.rmtree(workdir, ignore_errors=True)
            workdir.mkdir()
            for name_to_copy in ("config.json", "vocab.txt", "dataset.json"):
                shutil.copy(undisturbed / name_to_copy, workdir / name_to_copy)
            for step in (before, newest):
                shutil.copytree(undisturbed / f"checkpoints/{step}", workdir / f"checkpoints/{step}")
            how(workdir / name)
            init_workdir(str(workdir), config, dataset)
            with contextlib.redirect_stderr(io.StringIO()), checkpoint_manager(str(workdir), config) as saved:
                state, clock = saved.restore(mesh)
            step = clock["step"]
            for leaf_name, leaf in tree_rules.named_leaves(state).items():
                np.testing.assert_array_equal(np.asarray(leaf), expected[step][leaf_name], err_msg=f"{how} {name}")
            assert (step == newest) == (not (workdir / f"checkpoints/{newest}.damaged").exists())
            reported, intact = reported + (step == before), intact + (step == newest)
        print(f"{how.__name__.replace('_', ' '):<14}{len(names):>6}{reported:>24}{intact:>17}", flush=True)


# ---- files -----------------------------------------------------------------------------------------


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def replace_bytes(path: pathlib.Path) -> None:
    """Puts random bytes of the same number in the place of the content."""
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def files(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Damages one file of a half-trained workdir or of its dataset at a time, and resumes the run to its end.

    Either the run ends with exit code 2 and one line of error, or its final parameters are those of an undisturbed run.
    There are five kinds of damage. CASES of all pairs of file and kind are drawn; files that are not arrays of a
    checkpoint are damaged in all ways.
    """
    count, draw = int(os.environ.get("CASES", "300")), random.Random(int(os.environ.get("SEED", "0")))
    settings = dict(total_steps=24, save_every=8, log_every=4, eval_every=12)
    half, expected, packed = root / "half", root / "expected", root / "packed to damage"
    shutil.copytree(dataset, packed)
    quick_jit()
    for workdir, stop in ((half, 16), (expected, 24)):
        assert resume(packed, workdir, settings, f"--stop_after={stop}")[0] == 0
    wanted = state_of(expected, 24)
    originals = {"workdir": half, "dataset": packed}
    names = {
        folder: [path.relative_to(original) for path in sorted(original.rglob("*")) if path.is_file()]
        for folder, original in originals.items()
    }
    pairs = [(folder, how, name) for folder in originals for how in DAMAGES for name in names[folder]]
    always = [pair for pair in pairs if not {"checkpoints", "compiled"} & set(pair[2].parts)]
    others = [pair for pair in pairs if pair not in always]
    drawn = {*always, *draw.sample(others, min(len(others), max(0, count - len(always))))}
    print(
        f"\ndamage to one file at a time\n{'folder':<9}{'how':<15}{'cases':>6}{'exit 2, one line':>18}{'bit-equal':>11}"
    )
    failures = 0
    for folder in originals:
        for how in DAMAGES:
            chosen = [name for name in names[folder] if (folder, how, name) in drawn]
            refused = equal = 0
            for name in chosen:
                copies = {kind: root / f"copy of {kind}" for kind in originals}
                for kind, copy in copies.items():
                    shutil.rmtree(copy, ignore_errors=True)
                    shutil.copytree(originals[kind], copy)
                how(copies[folder] / name)
                code, lines = resume(copies["dataset"], copies["workdir"], settings)
                if code == 2 and sum(line.startswith("electramed pretrain: ") for line in lines) == 1:
                    refused += 1
                elif code == 0 and all(
                    np.array_equal(leaf, wanted[key]) for key, leaf in state_of(copies["workdir"], 24).items()
                ):
                    equal += 1
                else:
                    failures += 1
                    print(f"{folder}/{name}, {how.__name__}: exit {code}: {' '.join(lines[-1:])}", flush=True)
            print(
                f"{folder:<9}{how.__name__.replace('_', ' '):<15}{len(chosen):>6}{refused:>18}{equal:>11}", flush=True
            )
    print(f"{len(drawn)} cases of {len(pairs)}; neither refused nor bit-equal: {failures}")


DAMAGES = (delete, empty, cut_in_half, flip_a_bit, replace_bytes)


def quick_jit() -> None:
    """Compiles without optimizations from here on: each case compiles or loads a few programs."""
    import quick

    jax.jit = quick.jit


def resume(dataset: pathlib.Path, workdir: pathlib.Path, settings: dict, *options: str) -> tuple[int, list[str]]:
    """Runs `electramed pretrain` in this process; returns its exit code and the lines of standard error."""
    words = ["pretrain", *quick_run.settings(dataset, **settings), f"--workdir={workdir}", "--quiet", *options]
    return outcome(lambda: cli.main(words))


def outcome(command: Callable[[], int]) -> tuple[int, list[str]]:
    """Runs a command in this process; returns its exit code, 1 for an exception, and the lines of standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as console, contextlib.redirect_stdout(io.StringIO()):
        try:
            code = command()
        except Exception as error:  # noqa: BLE001 a traceback is what these tables look for
            return 1, [*console.getvalue().splitlines(), f"{type(error).__name__}: {error}"]
    return code, console.getvalue().splitlines()


# ---- disks -----------------------------------------------------------------------------------------

DISK_BYTES = 64 << 20
# What a command writes, without the files that hold times.
PRODUCTS = {
    "prepare": "documents/*/*.gz",
    "vocab": "vocab.txt",
    "pack": "rows/*tfrecord*",
    "pretrain": "run/checkpoints",
    "export": "hf/*/model.safetensors",
    "import": "continued.py",
    "report": "report/report.html",
    "predict": "entities.jsonl",
    "finetune": "tagger/seed_0/*/model.safetensors",
}
MAY_DIFFER = ("report",)  # the page shows when it was written


def disks(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Runs each command on a read-only disk and on one that becomes full at five moments; then again with space.

    A command that fails ends with exit code 2 and one line of error. The same command, run again with enough space,
    writes what an undisturbed one writes. `--overwrite` is added where the message of the second run names it.
    """
    print(f"\ndisks in each stage\n{'command':<10}{'disk':<30}{'exit':<6}{'run again':<12}products")
    quick_jit()
    inputs = root / "inputs"
    inputs.mkdir()
    writing_commands.write_inputs(inputs)
    failures = 0
    for command, pattern in PRODUCTS.items():
        for state, prepare_disk, free_disk in disk_states(command, inputs, root):
            folder = root / "disk"
            folder.mkdir(exist_ok=True)
            run = functools.partial(writing_commands.run, command, inputs, folder)
            with small_disk.mounted(folder, DISK_BYTES):
                prepare_disk(folder)
                code, lines = outcome(run)
                one_line = sum(line.startswith(f"electramed {command}: ") for line in lines) == 1
                free_disk(folder)
                again, lines_again = outcome(run)
                same = again == 0 and (command in MAY_DIFFER or products(folder, pattern) == reference(root, command))
            right = same and (code == 0 or (code == 2 and one_line))
            failures += not right
            print(f"{command:<10}{state:<30}{code:<6}{again:<12}{verdict(same)}", flush=True)
            if not right:
                print("\n".join(["first run:", *lines[-3:], "again:", *lines_again[-3:]]), flush=True)
    print(f"failures: {failures}")


def disk_states(command: str, inputs: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[str, Callable, Callable]]:
    """Yields (description, function that prepares the disk, function that repairs it)."""
    folder = root / "undisturbed products" / command
    folder.mkdir(parents=True)
    assert outcome(lambda: writing_commands.run(command, inputs, folder))[0] == 0
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield "read-only", small_disk.set_read_only, lambda disk: small_disk.set_read_only(disk, False)
    for share in (0, 0.2, 0.4, 0.6, 0.8):
        free = int(share * written)
        yield (
            f"full after {free:,} bytes",
            lambda disk, free=free: small_disk.fill(disk, leaving=free),
            lambda disk: (disk / "ballast").unlink(),
        )


def reference(root: pathlib.Path, command: str) -> dict[str, object]:
    return products(root / "undisturbed products" / command, PRODUCTS[command])


def products(folder: pathlib.Path, pattern: str) -> dict[str, object]:
    """Returns the content of the files that a command wrote, by name; of a run the last state."""
    if pattern == "run/checkpoints":
        state = state_of(folder / "run", steps_of(folder / "run")[-1])
        return {name: leaf.tobytes() for name, leaf in state.items()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}


# ---- storage ---------------------------------------------------------------------------------------


def storage(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Makes every save of all processes fail for ten seconds, by a limit on the size of files."""
    print(
        f"\nstorage that fails for ten seconds\n{'processes':<11}{'saves that failed':<19}{'exit codes':<12}at the end"
    )
    for count, devices in ((1, 8), (2, 4)):
        workdir = root / f"starved-{count}"
        with pod.start_processes(count, devices, *pretrain(dataset, workdir, save_every=8)) as processes:

            def largest_file(size: int) -> None:
                for process in processes:
                    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

            processes[0].wait_for("step 8/")
            largest_file(5_000)
            time.sleep(10)
            largest_file(resource.RLIM_INFINITY)
            codes = [process.wait(600) for process in processes]
        failed = processes[0].stderr.count("could not be saved")
        if count == 1:
            same = verdict(same_state(workdir, undisturbed, STEPS) and entries(workdir) == entries(undisturbed))
        else:
            ours, theirs = entries(workdir)[-1]["loss"], entries(undisturbed)[-1]["loss"]
            same = f"loss differs by {abs(ours / theirs - 1):.0e}"
        print(f"{count:<11}{failed:<19}{'/'.join(map(str, codes)):<12}{same}", flush=True)


# ---- peers -----------------------------------------------------------------------------------------


LAST_MESSAGES = (
    "another process ended or its machine died",  # ours, where a collective failed
    "This most likely indicates that another task died",  # jax's, where heartbeats failed
)


def peers(root: pathlib.Path, dataset: pathlib.Path, undisturbed: pathlib.Path) -> None:
    """Kills or suspends one of two processes; a suspended one behaves like a machine that lost its network."""
    print(
        f"\none of two processes vanishes\n{'which':<20}{'how':<14}{'the other ended after':<23}{'with':<7}its last message"
    )
    for which, how, number in (
        (1, "killed", signal.SIGKILL),
        (0, "killed", signal.SIGKILL),
        (1, "silent", signal.SIGSTOP),
        (0, "silent", signal.SIGSTOP),
    ):
        workdir = root / f"lost-{which}-{how}"
        with pod.start_processes(2, 4, *pretrain(dataset, workdir, total_steps=100_000)) as processes:
            processes[0].wait_for("step 8/")
            processes[which].popen.send_signal(number)
            began, other = time.monotonic(), processes[1 - which]
            code = other.wait(90)
            seconds = time.monotonic() - began
        words = [words for words in LAST_MESSAGES if words in other.stderr]
        role = "0 (coordinator)" if which == 0 else "1"
        print(f"{role:<20}{how:<14}{f'{seconds:.1f} s':<23}{code:<7}{words[0]}", flush=True)


TABLES: dict[str, Callable] = {
    "kills": kills,
    "signals": signals,
    "damage": damage,
    "files": files,
    "disks": disks,
    "storage": storage,
    "peers": peers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} (default: all)")
    names = parser.parse_args().tables or list(TABLES)
    if unknown := set(names) - set(TABLES):
        parser.error(f"unknown tables {', '.join(sorted(unknown))}; wanted some of {', '.join(TABLES)}")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; the runs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        dataset, undisturbed = quick_run.pack(root), root / "undisturbed"
        with pod.start_processes(1, 8, *pretrain(dataset, undisturbed)) as [process]:
            assert process.wait(600) == 0, process.stderr
        for name in names:
            TABLES[name](root, dataset, undisturbed)


if __name__ == "__main__":
    main()
