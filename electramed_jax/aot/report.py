"""What `electramed compile` says: lines for a person, a dictionary for a program."""

from __future__ import annotations

from collections import Counter
from typing import Any

from electramed_jax.aot.chips import GIB
from electramed_jax.aot.compile import MAX_WHOLE_FRACTION, Compiled, Estimate, Topology
from electramed_jax.aot.cost_model import Kernel


def devices(where: Topology, mesh: dict[str, int]) -> str:
    """`v5e:4x4, 16 chips as data=16 fsdp=1 tensor=1`."""
    slices = f"{where.num_slices} slices of " if where.num_slices > 1 else ""
    axes = " ".join(f"{name}={size}" for name, size in mesh.items())
    return f"{slices}{where.name}, {len(where.devices)} chips as {axes}"


def attempt(compiled: Compiled) -> str:
    """One line about one of several compilations."""
    return f"{compiled.rows_per_chip:g} rows a chip: {_memory(compiled)}"


def lines(compiled: Compiled, estimate: Estimate | None) -> list[str]:
    """The whole report; `estimate` is of a step that fits and was not compiled quickly."""
    config = compiled.config
    batch = (
        f"batch {config.batch_size:,} ({compiled.rows_per_chip:g} rows a chip) of {config.data.max_seq_length} tokens"
    )
    said = [
        f"{devices(compiled.topology, compiled.mesh)}: {batch}, compiled in {compiled.seconds:.0f} s",
        f"memory       {_memory(compiled)}",
        f"parameters   {_whole(compiled)}",
    ]
    if compiled.program is None:
        return said
    said.append(
        f"operations   {compiled.program.flops / 1e12:.3f} T a chip and step, {_ratio(compiled):.2f} times the "
        f"model's {compiled.model_flops / 1e12:.3f} T (what remat={config.model.remat} computes again is in it)"
    )
    for kind, one in compiled.program.collectives.items():
        said.append(f"collectives  {kind}: {one.count:,} a step, {one.bytes / 1e6:,.1f} MB a chip")
    for loop in compiled.program.unknown_loops:
        said.append(f"warning: the loop {loop} turns an unknown number of times; counted once")
    return said + (_time(compiled, estimate) if estimate else [])


def as_json(compiled: Compiled, estimate: Estimate | None) -> dict[str, Any]:
    """The report's figures; bytes, operations and seconds are of one chip and one step."""
    where = compiled.topology
    result: dict[str, Any] = {
        "topology": where.name,
        "num_slices": where.num_slices,
        "chips": len(where.devices),
        "mesh": compiled.mesh,
        "batch_size": compiled.config.batch_size,
        "rows_per_chip": compiled.rows_per_chip,
        "row_length": compiled.config.data.max_seq_length,
        "fits": compiled.fits,
        "peak_bytes": compiled.needed_bytes,
        "available_bytes": where.chip.hbm_bytes,
        "needlessly_whole_fraction": compiled.whole_fraction,
        "compile_seconds": compiled.seconds,
        "model_flops": compiled.model_flops,
    }
    if compiled.program is not None:
        result |= {
            "program_flops": compiled.program.flops,
            "collectives": {
                kind: {"count": one.count, "bytes": one.bytes} for kind, one in compiled.program.collectives.items()
            },
            "unknown_loops": compiled.program.unknown_loops,
        }
    if estimate is not None:
        result |= {
            "estimated_cycles": {group: round(cycles) for group, cycles in compiled.program.cycles.items()},
            "estimated_seconds": estimate.seconds,
            "estimated_seconds_by_bandwidth": estimate.by_bandwidth,
            "estimated_step_seconds": estimate.step_seconds,
            "estimated_utilization": estimate.utilization,
        }
    return result


def _ratio(compiled: Compiled) -> float:
    return compiled.program.flops / compiled.model_flops


def _memory(compiled: Compiled) -> str:
    needed, available = compiled.needed_bytes / GIB, compiled.topology.chip.hbm_bytes / GIB
    if compiled.fits:
        return f"fits: {needed:.2f} GiB of the {available:.2f} GiB of a chip at the peak ({needed / available:.0%})"
    return (
        f"does not fit: needs {needed:.2f} GiB of the {available:.2f} GiB of a chip, {needed - available:.2f} too much"
    )


def _whole(compiled: Compiled) -> str:
    if not compiled.whole:
        return "none is whole on chips that could split it"
    by_size = sorted(compiled.whole, key=compiled.whole.__getitem__, reverse=True)
    names = ", ".join(by_size[:4]) + (", ..." if len(by_size) > 4 else "")
    said = f"{compiled.whole_fraction:.1%} of bytes are whole along an axis that could split them ({names})"
    if compiled.whole_fraction <= MAX_WHOLE_FRACTION:
        return said
    return (
        f"error: {said}, more than {MAX_WHOLE_FRACTION:.0%}; choose mesh.fsdp and mesh.tensor that divide the "
        "model's sizes, or give the leaf's dimension an axis in training/sharding.py"
    )


def _time(compiled: Compiled, estimate: Estimate) -> list[str]:
    total, contents = estimate.step_seconds, compiled.program
    said = ["time, as the compiler estimates it (nothing was run):"]
    for group, seconds in sorted(estimate.seconds.items(), key=lambda item: -item[1]):
        said.append(f"  {group:<24} {seconds * 1e3:9.2f} ms  {seconds / total:6.1%}")
    said.append(f"  {'step':<24} {total * 1e3:9.2f} ms  utilization {estimate.utilization:.1%} of the peak")
    said.append(
        f"  {estimate.by_bandwidth * 1e3:.2f} ms of these are not the compiler's: collectives at the links' bandwidth, "
        "gathers, scatters and sorts at the memory's"
    )
    alike: Counter[tuple[str, str]] = Counter()
    for kernel in contents.kernels:
        alike[kernel.own_name, _counted(kernel)] += kernel.times
    for (name, counted), times in alike.items():
        said.append(f"  {name}, {times} times: a hand-written kernel, counted by {counted}")
    if any(kind.startswith("between slices") for kind in contents.collectives):
        said.append("  exchange between slices is in no figure of time")
    return said


def _counted(kernel: Kernel) -> str:
    if kernel.cycles is not None:
        return f"its code, {kernel.cycles:,} cycles, or its bytes, whichever take longer"
    if kernel.flops is not None:
        return "its bytes and declared operations"
    return "its bytes alone: it declares no operations"
