"""The same numbers however many processes, devices and mesh axes: 20 steps, every loss, every row.

Trains a two-layer pair of eight heads, dropout on, on eight virtual devices: as 1 process of 8, 2 of 4 and 4 of 2,
each with the devices split by data, by parameters (fsdp), by tensors, and by all three. Then one run that changes
from one to the other every five steps and ends on a single device. The first line of each table is what the others
are compared with.

    python tests/benchmarks/pod_equality.py [FOLDER]     some ten minutes on two cores
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import pod
import quick_run

MESHES = {
    "data": dict(mesh__data=8),
    "fsdp": dict(mesh__data=1, mesh__fsdp=8),
    "tensor": dict(mesh__data=1, mesh__tensor=8),
    "data 2, fsdp 2, tensor 2": dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2),
}
TOPOLOGIES = ((1, 8), (2, 4), (4, 2))
SIZES = dict(
    model__embedding_size=32,
    model__hidden_size=64,
    model__num_layers=2,
    model__num_heads=8,
    model__intermediate_size=128,
    model__generator_hidden_size=32,
    model__generator_num_layers=2,
    model__generator_num_heads=8,
    model__generator_intermediate_size=64,
    optimizer__learning_rate=1e-3,
    log_every=1,
    eval_every=20,
    save_every=20,
)
# (processes, devices of each, mesh, step to stop after)
CHANGES = ((1, 8, "data", 5), (2, 4, "fsdp", 10), (4, 2, "data 2, fsdp 2, tensor 2", 15), (1, 1, None, 20))


def train(folder: pathlib.Path, dataset: pathlib.Path, count: int, devices: int, mesh: str | None, stop: int) -> None:
    """Into `folder/run`, noting rows in `folder/rows`."""
    settings = quick_run.settings(dataset, **SIZES, **(MESHES[mesh] if mesh else {}))
    run = (folder / "rows", "pretrain", *settings, f"--workdir={folder / 'run'}", f"--stop_after={stop}")
    with pod.start_processes(count, devices, *run, program=pod.RECORDED_RUN) as processes:
        codes = [process.wait(900) for process in processes]
    assert not any(codes), "\n".join(process.stderr for process in processes)


def main(root: pathlib.Path) -> None:
    dataset, expected = quick_run.pack(root), None
    print(f"\n{'processes':<21}{'mesh':<26}{'rows':<12}{'read by each':<14}largest difference of a loss")
    for count, devices in TOPOLOGIES:
        for number, mesh in enumerate(MESHES):
            folder = root / f"{count}x{devices}-{number}"
            train(folder, dataset, count, devices, mesh, 20)
            expected = report(folder, expected, f"{count} × {devices}", mesh)
    folder = root / "changing"
    for count, devices, mesh, stop in CHANGES:
        train(folder, dataset, count, devices, mesh, stop)
    report(folder, expected, "1×8, 2×4, 4×2, 1×1", "changing")


def report(folder: pathlib.Path, expected: tuple | None, processes: str, mesh: str) -> tuple:
    """Prints a line; returns (losses, rows) to compare others with."""
    losses, record = pod.losses(folder / "run"), pod.record_of(folder / "rows")
    assert list(losses) == list(record.rows) == list(range(1, 21))
    expected = expected or (losses, record.rows)
    differences = {step: abs(losses[step] / expected[0][step] - 1) for step in losses}
    worst = max(differences, key=differences.get)
    same = "bit-equal" if record.rows == expected[1] else "DIFFERENT"
    read = "/".join(sorted({str(count) for counts in record.read.values() for count in counts}))
    loss = f"{differences[worst]:.1e} of {expected[0][worst]:.4f} at step {worst}; at step 20 {differences[20]:.1e}"
    print(f"{processes:<21}{mesh:<26}{same:<12}{read:<14}{loss}", flush=True)
    return expected


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, help="folder of the runs (default: a temporary one)")
    if folder := parser.parse_args().folder:
        main(folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(pathlib.Path(temporary))
