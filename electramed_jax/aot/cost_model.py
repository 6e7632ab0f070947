"""Cost model of a compiled train step on one chip: matrix products, collectives, cycles by group.

The body of a loop counts once per iteration. Cycles are the compiler's estimates for each instruction. The cycles of a
fusion are divided among the groups of its instructions in proportion to their work. Three kinds of instructions have no
estimate and are listed separately: collectives with their bytes, hand-written kernels with their declared cost and code
length, and others with their bytes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from electramed_jax.aot import hlo

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

# `jax.named_scope` of the model and the step -> group of its cycles. The innermost scope counts.
GROUP_OF_SCOPE = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "embedding": "embedding and sampling",
    "masking": "embedding and sampling",
    "token_head": "embedding and sampling",
    "generator_loss": "embedding and sampling",
    "corrective_loss": "embedding and sampling",
    "sampling": "embedding and sampling",
    "optimizer": "optimizer",
    "dropout_bits": "dropout random bits",
}
REST = "rest"
GROUPS = (*dict.fromkeys(GROUP_OF_SCOPE.values()), REST)

_SCOPE = re.compile(rf"\b({'|'.join(GROUP_OF_SCOPE)})\b")

# Instructions that neither move data nor compute.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "broadcast", "iota", "partition-id",
    "replica-id", "after-all", "send", "recv", "opt-barrier", "add-dependency", "while", "conditional", "call",
}  # fmt: skip

# Operations of the matrix units per lane of the vector units, which have four times 8 x 128 lanes: 32 on v4, v5e and
# v5p, 128 on v6e. Used only to divide the cycles of a fusion among its parts.
FLOPS_PER_LANE = 32


@dataclasses.dataclass
class Collective:
    """Totals of all collectives of one kind, for one chip.

    Attributes:
      count: number of collectives in a step.
      bytes: the larger of input and output of each collective.
      exposed_link_bytes: bytes that the chip sends while no other instruction runs.
      hidden_link_bytes: bytes that it sends while other instructions run.
    """

    count: int = 0
    bytes: int = 0
    exposed_link_bytes: float = 0.0
    hidden_link_bytes: float = 0.0


@dataclasses.dataclass
class ProgramCost:
    """Costs of one step on one chip.

    Attributes:
      flops: operations of matrix products, 2 per multiply-add, and those declared by kernels.
      collectives: totals by kind.
      cycles: the compiler's estimates, by group.
      unestimated_bytes: bytes moved by instructions without an estimate, by group; see `_unestimated_bytes`.
      kernels: hand-written kernels.
      unknown_loops: loops with an unknown trip count; their bodies are counted once.
    """

    flops: int = 0
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    cycles: dict[str, float] = dataclasses.field(default_factory=dict)
    unestimated_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A hand-written (Pallas) kernel, for which the compiler has no time estimate.

    Attributes:
      name: of the instruction.
      group: of its cycles.
      times: calls in a step.
      bytes: of operands and results, per call.
      flops: per call; None if the kernel does not declare them.
      cycles: per call; None if its code length or number of grid steps is unknown.
    """

    name: str
    group: str
    times: int
    bytes: int
    flops: int | None
    cycles: int | None

    @property
    def base_name(self) -> str:
        """The name without the instruction's number."""
        return base_name(self.name)


def base_name(instruction: str) -> str:
    """Removes what makes an instruction's name unique: norm_forward.2 and norm_forward.48.x -> norm_forward."""
    return re.sub(r"(\.(\d+|x))+$", "", instruction)


def analyze(text: str, bundle_sizes: Mapping[str, int] | None = None) -> ProgramCost:
    """Computes the costs of a compiled cost.

    Args:
      text: from `jax.stages.Compiled.as_text()`.
      bundle_sizes: code length of each kernel, in cycles, by instruction; see `bundle_sizes.BundleSizes`. If the body
        of a kernel has no loops, this is the length of one grid step; the number of grid steps is in the kernel's
        metadata as "turns". The compiler dumps one of several identical kernels.
    """
    module = hlo.parse(text)
    cost = ProgramCost()
    parts: set[tuple] = set()
    lengths = _code_lengths(module, bundle_sizes or {})
    for computation, instruction, times, unknown in _executed(module, module.entry, 1):
        if unknown:
            cost.unknown_loops.append(instruction.name)
        _add(cost, module, computation, instruction, times, parts, lengths)
    return cost


def _executed(
    module: hlo.Module, name: str, times: int
) -> Iterator[tuple[hlo.Computation, hlo.Instruction, int, bool]]:
    """Yields every instruction outside fusions.

    Yields:
      Its computation, the instruction, how often it runs, and whether it is a loop with an unknown trip count.
    """
    computation = module.computations[name]
    for instruction in computation.values():
        trip_count = module.trip_count(computation, instruction) if instruction.opcode == "while" else 1
        yield computation, instruction, times, trip_count is None
        if instruction.opcode in ("while", "conditional", "call", "async-start"):
            for called in instruction.called.values():
                yield from _executed(module, called, times * (1 if trip_count is None else trip_count))


def _add(
    cost: ProgramCost,
    module: hlo.Module,
    computation: hlo.Computation,
    instruction: hlo.Instruction,
    times: int,
    parts: set[tuple],
    lengths: Mapping[Any, int],
) -> None:
    """Adds the costs of one instruction, which runs `times` times."""
    for inner_computation, inner in _with_fused(module, computation, instruction):
        cost.flops += times * product_flops(inner_computation, inner)
        # libtpu writes a reduce-scatter as a fusion: an all-reduce of which each device keeps a part.
        scatters = instruction.called.get("calls", "").startswith("all-reduce-scatter")
        kind = "reduce-scatter" if scatters and inner.opcode == "all-reduce" else _kind(inner.opcode)
        _add_collective(cost, inner_computation, inner, kind, times, parts)
    opcode, cycles = instruction.opcode, instruction.estimated_cycles
    if opcode == "custom-call":
        if "tpu_custom_call" in instruction.attributes:
            cost.kernels.append(kernel := _kernel(computation, instruction, times, lengths))
            cost.flops += times * (kernel.flops or 0)
    elif cycles is not None:
        for group, share in shares(module, computation, instruction).items():
            cost.cycles[group] = cost.cycles.get(group, 0.0) + times * cycles * share
    elif opcode not in FREE and not opcode.endswith(("-start", "-done")) and _kind(opcode) is None:
        cost.unestimated_bytes[group_of(instruction)] += times * _unestimated_bytes(computation, instruction)


def _with_fused(
    module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction
) -> Iterator[tuple[hlo.Computation, hlo.Instruction]]:
    """Yields the instruction and, if it is a fusion, the instructions in it, each with its computation."""
    yield computation, instruction
    if instruction.opcode == "fusion":
        fused = module.computations[instruction.called["calls"]]
        for inner in fused.values():
            yield from _with_fused(module, fused, inner)


# ---- groups ------------------------------------------------------------------------------------------


def group_of(instruction: hlo.Instruction, default: str = REST) -> str:
    """Returns the group of the innermost named scope of an instruction."""
    scopes = _SCOPE.findall(instruction.op_name)
    return GROUP_OF_SCOPE[scopes[-1]] if scopes else default


def shares(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> dict[str, float]:
    """Returns the fraction of an instruction's cycles for each group; a fusion may have several groups."""
    own = group_of(instruction)
    work: dict[str, float] = defaultdict(float)
    for inner_computation, inner in _with_fused(module, computation, instruction):
        if inner.opcode != "fusion":
            work[group_of(inner, own)] += _lanes(inner_computation, inner)
    total = sum(work.values())
    return {group: lanes / total for group, lanes in work.items() if lanes} if total else {own: 1.0}


def _lanes(computation: hlo.Computation, instruction: hlo.Instruction) -> float:
    """Returns the work of an instruction: elements computed or reduced, or scaled operations of a product."""
    if instruction.opcode in FREE:
        return 0
    if flops := product_flops(computation, instruction):
        return flops / FLOPS_PER_LANE
    reads = instruction.opcode in ("reduce", "reduce-window") and computation.operands(instruction)
    return sum(array.size for array in (reads[0] if reads else instruction.results))


# ---- products ----------------------------------------------------------------------------------------


def product_flops(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Returns the operations of a `dot` or a `convolution` (the TPU form of a dot); 0 for other instructions."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (shapes[0].dims for shapes in computation.operands(instruction)[:2])
    (result,) = instruction.results
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
        return 2 * result.size * math.prod(left[axis] for axis in contracted)
    return 2 * _multiply_adds(instruction, left, right, result.dims)


def _multiply_adds(
    instruction: hlo.Instruction, left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...]
) -> int:
    """Returns the multiply-adds of a convolution.

    They are batch · output features · input features of a group · pairs (output position, kernel position) that meet an
    element of the input. Pairs in padding or dilation do not count: batched dots become convolutions with mostly such
    pairs.
    """
    left_labels, right_labels, result_labels = re.split(r"_|->", instruction.attribute("dim_labels"))
    found = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    window = dict(re.findall(r"(\w+)=([\w\-]+)", found[1])) if found else {}
    pairs = 1
    for axis in range(sum(label.isdigit() for label in left_labels)):
        pairs *= _pairs(
            inputs=left[left_labels.index(str(axis))],
            outputs=result[result_labels.index(str(axis))],
            kernel=right[right_labels.index(str(axis))],
            stride=_window(window, "stride", axis, 1),
            low_padding=_window(window, "pad", axis, 0),
            input_dilation=_window(window, "lhs_dilate", axis, 1),
            kernel_dilation=_window(window, "rhs_dilate", axis, 1),
        )
    batch, features = left[left_labels.index("b")], right[right_labels.index("i")]
    return batch * result[result_labels.index("f")] * features * pairs


def _window(window: dict[str, str], name: str, axis: int, default: int) -> int:
    """Returns the number of one axis in `3x1x2`, or its low side in `0_2x1_1x0_0`."""
    return int(window[name].split("x")[axis].split("_")[0]) if name in window else default


def _pairs(
    *,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    low_padding: int,
    input_dilation: int,
    kernel_dilation: int,
) -> int:
    """Returns the pairs (output position, kernel position) along one axis that meet an element of the input."""
    dilated = (inputs - 1) * input_dilation + 1
    count = 0
    for tap in range(kernel):
        positions = (output * stride + tap * kernel_dilation - low_padding for output in range(outputs))
        count += sum(0 <= position < dilated and position % input_dilation == 0 for position in positions)
    return count


def _numbers(braces: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", braces)]


# ---- collectives -------------------------------------------------------------------------------------


def _kind(opcode: str) -> str | None:
    """Returns the collective that an opcode is or starts; None for other opcodes and for "-done"."""
    name = opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _add_collective(
    cost: ProgramCost,
    computation: hlo.Computation,
    instruction: hlo.Instruction,
    kind: str | None,
    times: int,
    parts: set[tuple],
) -> None:
    """Adds a collective once, even if it is split over several fusions: its parts have the same channel and result.

    Only parts of split collectives are matched: different collectives may have the same channel and result, because the
    compiler assigns new channels only to those that it created or split.
    """
    if between := re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes):
        if instruction.opcode == "send":
            _add_between_slices(cost, computation, instruction, times, between[1])
        return
    if kind is None:
        return
    if "async_collective_fusion_config" in instruction.attributes:
        part = (instruction.channel, *[(array.dtype, array.dims) for array in instruction.results])
        if part in parts:
            return
        parts.add(part)
    input_bytes = sum(array.bytes for shapes in computation.operands(instruction) for array in shapes)
    output_bytes = sum(array.bytes for array in instruction.results)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        output_bytes -= input_bytes  # its result includes the operands
    moved = max(input_bytes, output_bytes)
    total = cost.collectives.setdefault(kind, Collective())
    total.count += times
    total.bytes += times * moved
    link_bytes = times * moved * _sent_fraction(kind, group_size(instruction.attributes))
    if instruction.opcode.endswith("-start") or "async_collective_fusion_config" in instruction.attributes:
        total.hidden_link_bytes += link_bytes
    else:
        total.exposed_link_bytes += link_bytes


def _add_between_slices(
    cost: ProgramCost, computation: hlo.Computation, instruction: hlo.Instruction, times: int, kind: str
) -> None:
    """Adds a transfer between slices, which goes through the hosts: a chip sends its part and receives the sum."""
    total = cost.collectives.setdefault(f"between slices: {kind.lower().replace('_', '-')}", Collective())
    total.count += times
    total.bytes += times * sum(array.bytes for array in computation.operands(instruction)[0])


def _sent_fraction(kind: str, chips: int) -> float:
    """Returns the bytes that a chip sends with the best algorithm, as a fraction of the collective's bytes."""
    if kind in ("collective-permute", "collective-broadcast"):
        return 1.0
    return (2.0 if kind == "all-reduce" else 1.0) * (chips - 1) / chips


def group_size(attributes: str) -> int:
    """Returns the number of chips in one group of a collective; 2 for the pairs of a permute."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes):  # mesh axes by name
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):  # number of groups, chips per group
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(_numbers(found[1]))
    return 2


# ---- instructions without an estimate ----------------------------------------------------------------


def _code_lengths(module: hlo.Module, bundle_sizes: Mapping[str, int]) -> dict[Any, int]:
    """Returns the code length of kernels by instruction name, and the longest of identical kernels by `_signature`."""
    lengths: dict[Any, int] = dict(bundle_sizes)
    for computation in module.computations.values():
        for instruction in computation.values():
            if length := bundle_sizes.get(instruction.name):
                signature = _signature(computation, instruction)
                lengths[signature] = max(length, lengths.get(signature, 0))
    return lengths


def _signature(computation: hlo.Computation, instruction: hlo.Instruction) -> tuple[Any, ...]:
    """Returns the base name, dtypes and shapes of a kernel, which are the same for identical kernels."""
    arrays = (array for shapes in (*computation.operands(instruction), instruction.results) for array in shapes)
    return base_name(instruction.name), *((array.dtype, array.dims) for array in arrays)


def _kernel(
    computation: hlo.Computation, instruction: hlo.Instruction, times: int, lengths: Mapping[Any, int]
) -> Kernel:
    arrays = [array for shapes in computation.operands(instruction) for array in shapes] + list(instruction.results)
    declared = re.search(r'"cost_estimate":\{[^}]*?"flops":"?(\d+)', instruction.attributes)
    grid_steps = re.search(r'kernel_metadata=\{[^}]*?\\?"turns\\?":\s*\\?"(\d+)', instruction.attributes)
    length = lengths.get(instruction.name) or lengths.get(_signature(computation, instruction))
    return Kernel(
        name=instruction.name,
        group=group_of(instruction),
        times=times,
        bytes=sum(array.bytes for array in arrays),
        flops=int(declared[1]) if declared else None,
        cycles=int(grid_steps[1]) * length if grid_steps and length else None,
    )


def _unestimated_bytes(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Returns twice the bytes of the result (a read and a write); of an update in place, of the update alone."""
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sum(array.bytes for array in computation.operands(instruction)[1])
    return 2 * sum(array.bytes for array in instruction.results)
