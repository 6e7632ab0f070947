"""Results of `electramed compile`: lines for the console and a dictionary for --json."""

from __future__ import annotations

from collections import Counter
from typing import Any

from electramed_jax.aot.chips import GIB
from electramed_jax.aot.compile import MAX_UNSHARDED_FRACTION, CompiledStep, TimeEstimate, Topology
from electramed_jax.aot.cost_model import Kernel, ProgramCost


def topology_line(topology: Topology, mesh: dict[str, int]) -> str:
    """Returns `v5e:4x4, 16 chips as data=16 fsdp=1 tensor=1`, or `tpu7x:2x2x1, 4 chips of 2 devices as ...`."""
    slices = f"{topology.num_slices} slices of " if topology.num_slices > 1 else ""
    axes = " ".join(f"{name}={size}" for name, size in mesh.items())
    per_chip = topology.chip.devices
    devices = f" of {per_chip} devices" if per_chip > 1 else ""
    return f"{slices}{topology.name}, {len(topology.devices) // per_chip} chips{devices} as {axes}"


def attempt_line(compiled: CompiledStep) -> str:
    """Returns one line about an attempt of `find_batch`."""
    return f"{compiled.rows_per_chip:g} rows per chip: {_memory(compiled)}"


def report_lines(compiled: CompiledStep, estimate: TimeEstimate | None) -> list[str]:
    """Returns the report; `estimate` is None if the step does not fit or was compiled quickly."""
    config, cost = compiled.config, compiled.cost
    batch = (
        f"batch {config.batch_size:,} ({compiled.rows_per_chip:g} rows per chip) of {config.data.max_seq_length} tokens"
    )
    lines = [
        f"{topology_line(compiled.topology, compiled.mesh)}: {batch}, compiled in {compiled.compile_seconds:.0f} s",
        f"memory       {_memory(compiled)}",
        f"parameters   {_unsharded(compiled)}",
    ]
    if cost is None:
        return lines
    lines.append(
        f"operations   {cost.flops / 1e12:.3f} T per chip and step, {cost.flops / compiled.model_flops:.2f} times the "
        f"model's {compiled.model_flops / 1e12:.3f} T (including recomputation by remat={config.model.remat})"
    )
    lines += [
        f"collectives  {kind}: {total.count:,} per step, {total.bytes / 1e6:,.1f} MB per chip"
        for kind, total in cost.collectives.items()
    ]
    lines += [
        f"warning: the trip count of the loop {loop} is unknown; its body is counted once"
        for loop in cost.unknown_loops
    ]
    return lines + (_time(cost, estimate) if estimate else [])


def to_json(compiled: CompiledStep, estimate: TimeEstimate | None) -> dict[str, Any]:
    """Returns the report for --json; bytes, operations and seconds are per device and step (a chip; tpu7x: a core)."""
    topology, cost = compiled.topology, compiled.cost
    result: dict[str, Any] = {
        "topology": topology.name,
        "num_slices": topology.num_slices,
        "chips": len(topology.devices) // topology.chip.devices,
        "devices": len(topology.devices),
        "mesh": compiled.mesh,
        "batch_size": compiled.config.batch_size,
        "rows_per_chip": compiled.rows_per_chip,
        "row_length": compiled.config.data.max_seq_length,
        "fits": compiled.fits,
        "peak_bytes": compiled.peak_bytes,
        "available_bytes": topology.chip.hbm_bytes,
        "needlessly_whole_fraction": compiled.unsharded_fraction,
        "compile_seconds": compiled.compile_seconds,
        "model_flops": compiled.model_flops,
    }
    if cost is not None:
        result |= {
            "program_flops": cost.flops,
            "collectives": {
                kind: {"count": total.count, "bytes": total.bytes} for kind, total in cost.collectives.items()
            },
            "unknown_loops": cost.unknown_loops,
        }
    if cost is not None and estimate is not None:
        result |= {
            "estimated_cycles": {group: round(cycles) for group, cycles in cost.cycles.items()},
            "estimated_seconds": estimate.seconds,
            "estimated_seconds_by_bandwidth": estimate.bandwidth_seconds,
            "estimated_step_seconds": estimate.step_seconds,
            "estimated_utilization": estimate.utilization,
        }
    return result


def _memory(compiled: CompiledStep) -> str:
    peak, available = compiled.peak_bytes / GIB, compiled.topology.chip.hbm_bytes / GIB
    if compiled.fits:
        return f"fits: peak of {peak:.2f} GiB per chip, {available:.2f} GiB available ({peak / available:.0%})"
    missing = peak - available
    return f"does not fit: needs {peak:.2f} GiB per chip, {available:.2f} GiB available, {missing:.2f} GiB too much"


def _unsharded(compiled: CompiledStep) -> str:
    if not compiled.unsharded:
        return "all are sharded as far as the mesh allows"
    by_size = sorted(compiled.unsharded, key=compiled.unsharded.__getitem__, reverse=True)
    names = ", ".join(by_size[:4]) + (", ..." if len(by_size) > 4 else "")
    line = f"{compiled.unsharded_fraction:.1%} of bytes are not sharded along an axis that could shard them ({names})"
    if compiled.unsharded_fraction <= MAX_UNSHARDED_FRACTION:
        return line
    return (
        f"error: {line}, more than {MAX_UNSHARDED_FRACTION:.0%}; choose mesh.fsdp and mesh.tensor that divide the "
        "model's sizes, or give the leaf's dimension an axis in training/sharding.py"
    )


def _time(cost: ProgramCost, estimate: TimeEstimate) -> list[str]:
    total = estimate.step_seconds
    lines = ["time, estimated by the compiler (nothing was run):"]
    for group, seconds in sorted(estimate.seconds.items(), key=lambda item: -item[1]):
        lines.append(f"  {group:<24} {seconds * 1e3:9.2f} ms  {seconds / total:6.1%}")
    lines.append(f"  {'step':<24} {total * 1e3:9.2f} ms  utilization {estimate.utilization:.1%} of the peak")
    lines.append(
        f"  {estimate.bandwidth_seconds * 1e3:.2f} ms of these are estimated from bandwidths: collectives from that of "
        "the links; gathers, scatters and sorts from that of the memory"
    )
    calls: Counter[tuple[str, str]] = Counter()
    for kernel in cost.kernels:
        calls[kernel.base_name, _cost_source(kernel)] += kernel.times
    lines += [
        f"  {name}, {times} times: a hand-written kernel, counted by {source}"
        for (name, source), times in calls.items()
    ]
    if any(kind.startswith("between slices") for kind in cost.collectives):
        lines.append("  transfers between slices are not included in any time")
    return lines


def _cost_source(kernel: Kernel) -> str:
    if kernel.cycles is not None:
        return f"its code, {kernel.cycles:,} cycles, or its bytes, whichever take longer"
    if kernel.flops is not None:
        return "its bytes and declared operations"
    return "its bytes alone: it declares no operations"
