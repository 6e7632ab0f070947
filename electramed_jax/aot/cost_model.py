"""What a compiled train step costs on one chip: products, collectives, cycles by group.

Loop bodies count as often as they turn. Cycles are the compiler's estimates, instruction by instruction; a fusion's
are shared among the groups of what is fused in it, in proportion to the work. What carries no estimate is kept apart:
collectives with their bytes, hand-written kernels with the cost they declare and the length of their code, other
instructions with their bytes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from electramed_jax.aot import hlo

COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

# `jax.named_scope`s of the model and the step -> the group their cycles are told under; the innermost scope counts.
GROUP_OF_SCOPE = {
    "attention": "attention",
    "feed_forward": "feed-forward",
    "embedding": "embedding and sampling",
    "masking": "embedding and sampling",
    "generator_head": "embedding and sampling",
    "generator_loss": "embedding and sampling",
    "sampling": "embedding and sampling",
    "optimizer": "optimizer",
    "dropout_bits": "dropout random bits",
}
REST = "rest"
GROUPS = (*dict.fromkeys(GROUP_OF_SCOPE.values()), REST)

_SCOPE = re.compile(rf"\b({'|'.join(GROUP_OF_SCOPE)})\b")

# Instructions that move no data and compute nothing.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "broadcast", "iota", "partition-id",
    "replica-id", "after-all", "send", "recv", "opt-barrier", "add-dependency", "while", "conditional", "call",
}  # fmt: skip

# Products are done by the matrix units, 32 floating-point operations for each lane of the vector units' four
# 8 x 128 ones (v4, v5e, v5p; 128 on v6e). Weighs the parts of a fusion against each other, nothing else.
FLOPS_PER_LANE = 32


@dataclasses.dataclass
class Collective:
    """All collectives of one kind. Bytes are one chip's share: the larger of what goes in and what comes out."""

    count: int = 0
    bytes: int = 0
    exposed_link_bytes: float = 0.0  # each chip has to send, while nothing else runs
    hidden_link_bytes: float = 0.0  # ... while other instructions run


@dataclasses.dataclass
class Program:
    """Costs of one step on one chip."""

    flops: int = 0  # of matrix products, two a multiply-add, and what kernels declare
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    cycles: Counter[str] = dataclasses.field(default_factory=Counter)  # by group; the compiler's estimate
    unestimated_bytes: Counter[str] = dataclasses.field(default_factory=Counter)  # by group; see `_unestimated_bytes`
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)  # whose bodies were counted once


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A hand-written (Pallas) kernel, whose time the compiler does not estimate."""

    name: str
    group: str
    times: int
    bytes: int  # of its operands and results, a call
    flops: int | None  # a call; None where the kernel declares none
    cycles: int | None  # a call; None where the length of its code, or how often it turns, isn't known

    @property
    def own_name(self) -> str:
        return own_name(self.name)


def own_name(instruction: str) -> str:
    """A kernel's, of the instruction's name, which a number tells from its like: norm_forward.2."""
    return re.sub(r"(\.\d+)+$", "", instruction)


def read(text: str, schedules: Mapping[str, int] | None = None) -> Program:
    """Accounts for a compiled program.

    Args:
      text: the program printed (`jax.stages.Compiled.as_text()`).
      schedules: length of the machine code of each kernel, in cycles. It is of one turn of the kernel's grid where its
        body has no loops; how often that turns, the kernel says in its metadata, as "turns". Of kernels that are
        alike the compiler writes one.
    """
    module = hlo.parse(text)
    program, pieces = Program(), set()
    lengths = _code_lengths(module, schedules or {})
    for where, instruction, times, unknown in _executed(module, module.entry, 1):
        if unknown:
            program.unknown_loops.append(instruction.name)
        _add(program, module, where, instruction, times, pieces, lengths)
    return program


def _executed(
    module: hlo.Module, name: str, times: int
) -> Iterator[tuple[hlo.Computation, hlo.Instruction, int, bool]]:
    """Every instruction that is run by itself (not inside a fusion), how often, and whether it is a loop of
    unknown length."""
    computation = module.computations[name]
    for instruction in computation.values():
        turns = module.turns(computation, instruction) if instruction.opcode == "while" else 1
        yield computation, instruction, times, turns is None
        if instruction.opcode in ("while", "conditional", "call", "async-start"):
            for called in instruction.called.values():
                yield from _executed(module, called, times * (1 if turns is None else turns))


def _add(
    program: Program,
    module: hlo.Module,
    where: hlo.Computation,
    instruction: hlo.Instruction,
    times: int,
    pieces: set[tuple],
    lengths: Mapping[Any, int],
) -> None:
    for inner_where, inner in _with_fused(module, where, instruction):
        program.flops += times * product_flops(inner_where, inner)
        # A reduce-scatter that libtpu wrote as a fusion: an all-reduce, of which each device keeps a part.
        scatters = instruction.called.get("calls", "").startswith("all-reduce-scatter")
        kind = "reduce-scatter" if scatters and inner.opcode == "all-reduce" else _kind(inner.opcode)
        _add_collective(program, inner_where, inner, kind, times, pieces)
    opcode, cycles = instruction.opcode, instruction.estimated_cycles
    if opcode == "custom-call":
        if "tpu_custom_call" in instruction.attributes:
            program.kernels.append(kernel := _kernel(where, instruction, times, lengths))
            program.flops += times * (kernel.flops or 0)
    elif cycles is not None:
        for group, share in shares(module, where, instruction).items():
            program.cycles[group] += times * cycles * share
    elif opcode not in FREE and not opcode.endswith(("-start", "-done")) and _kind(opcode) is None:
        program.unestimated_bytes[group_of(instruction)] += times * _unestimated_bytes(where, instruction)


def _with_fused(
    module: hlo.Module, where: hlo.Computation, instruction: hlo.Instruction
) -> Iterator[tuple[hlo.Computation, hlo.Instruction]]:
    """The instruction, and where it is a fusion, all that is fused in it."""
    yield where, instruction
    if instruction.opcode == "fusion":
        inside = module.computations[instruction.called["calls"]]
        for inner in inside.values():
            yield from _with_fused(module, inside, inner)


# ---- groups ------------------------------------------------------------------------------------------


def group_of(instruction: hlo.Instruction, otherwise: str = REST) -> str:
    """The group of the innermost named scope the instruction was traced in."""
    scopes = _SCOPE.findall(instruction.op_name)
    return GROUP_OF_SCOPE[scopes[-1]] if scopes else otherwise


def shares(module: hlo.Module, where: hlo.Computation, instruction: hlo.Instruction) -> dict[str, float]:
    """How an instruction's cycles are shared among the groups: all to its own, unless it is a fusion of several."""
    own = group_of(instruction)
    work: Counter[str] = Counter()
    for inner_where, inner in _with_fused(module, where, instruction):
        if inner.opcode != "fusion":
            work[group_of(inner, own)] += _lanes(inner_where, inner)
    total = sum(work.values())
    return {group: lanes / total for group, lanes in work.items() if lanes} if total else {own: 1.0}


def _lanes(where: hlo.Computation, instruction: hlo.Instruction) -> float:
    """Work of one instruction: elements it computes or reads, or a product's operations on the same scale."""
    if instruction.opcode in FREE:
        return 0
    if flops := product_flops(where, instruction):
        return flops / FLOPS_PER_LANE
    reads = instruction.opcode in ("reduce", "reduce-window") and where.operands(instruction)
    return sum(array.size for array in (reads[0] if reads else instruction.results))


# ---- products ----------------------------------------------------------------------------------------


def product_flops(where: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Floating-point operations of a `dot` or a `convolution`, which is what a TPU makes of a dot; else 0."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (shapes[0].dims for shapes in where.operands(instruction)[:2])
    (result,) = instruction.results
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
        return 2 * result.size * math.prod(left[axis] for axis in contracted)
    return 2 * _multiply_adds(instruction, left, right, result.dims)


def _multiply_adds(
    instruction: hlo.Instruction, left: tuple[int, ...], right: tuple[int, ...], result: tuple[int, ...]
) -> int:
    """Of a convolution: batch · output features · input features of a group · pairs (output place, kernel place)
    that fall on an element of the input, not on padding or in a gap.

    Padding and gaps matter: batched dots become convolutions that consist mostly of them.
    """
    of_left, of_right, of_result = re.split(r"_|->", instruction.attribute("dim_labels"))
    window = dict(
        re.findall(r"(\w+)=([\w\-]+)", re.search(r"window=\{([^}]*)\}", instruction.attributes + "window={}")[1])
    )
    pairs = 1
    for axis in range(sum(label.isdigit() for label in of_left)):
        pairs *= _pairs(
            inputs=left[of_left.index(str(axis))],
            outputs=result[of_result.index(str(axis))],
            kernel=right[of_right.index(str(axis))],
            stride=_window(window, "stride", axis, 1),
            low=_window(window, "pad", axis, 0),
            gaps=_window(window, "lhs_dilate", axis, 1),
            spread=_window(window, "rhs_dilate", axis, 1),
        )
    batch, features = left[of_left.index("b")], right[of_right.index("i")]
    return batch * result[of_result.index("f")] * features * pairs


def _window(window: dict[str, str], name: str, axis: int, default: int) -> int:
    """One axis's number in `3x1x2`, or the low side in `0_2x1_1x0_0`."""
    return int(window[name].split("x")[axis].split("_")[0]) if name in window else default


def _pairs(*, inputs: int, outputs: int, kernel: int, stride: int, low: int, gaps: int, spread: int) -> int:
    reach = (inputs - 1) * gaps + 1
    count = 0
    for tap in range(kernel):
        places = (place * stride + tap * spread - low for place in range(outputs))
        count += sum(0 <= place < reach and place % gaps == 0 for place in places)
    return count


def _numbers(braces: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", braces)]


# ---- collectives -------------------------------------------------------------------------------------


def _kind(opcode: str) -> str | None:
    """The collective that an opcode begins or is; None for any other, and for what only ends one."""
    name = opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _add_collective(
    program: Program,
    where: hlo.Computation,
    instruction: hlo.Instruction,
    kind: str | None,
    times: int,
    pieces: set[tuple],
) -> None:
    """Counts a collective once, though it may be spread over several fusions: pieces share their channel and result.

    (So may whole ones: the compiler numbers anew only what it made, or cut up, itself.)
    """
    if between := re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes):
        if instruction.opcode == "send":
            _add_between_slices(program, where, instruction, times, between[1])
        return
    if kind is None:
        return
    if "async_collective_fusion_config" in instruction.attributes:
        piece = (instruction.channel, *[(array.dtype, array.dims) for array in instruction.results])
        if piece in pieces:
            return
        pieces.add(piece)
    goes_in = sum(array.bytes for shapes in where.operands(instruction) for array in shapes)
    comes_out = sum(array.bytes for array in instruction.results)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        comes_out -= goes_in  # its result holds the operands, too
    moved = max(goes_in, comes_out)
    found = program.collectives.setdefault(kind, Collective())
    found.count += times
    found.bytes += times * moved
    link_bytes = times * moved * _sent(kind, group_size(instruction.attributes))
    if instruction.opcode.endswith("-start") or "async_collective_fusion_config" in instruction.attributes:
        found.hidden_link_bytes += link_bytes
    else:
        found.exposed_link_bytes += link_bytes


def _add_between_slices(
    program: Program, where: hlo.Computation, instruction: hlo.Instruction, times: int, kind: str
) -> None:
    """Slices exchange through their hosts: a chip sends its part and receives the sum."""
    found = program.collectives.setdefault(f"between slices: {kind.lower().replace('_', '-')}", Collective())
    found.count += times
    found.bytes += times * sum(array.bytes for array in where.operands(instruction)[0])


def _sent(kind: str, chips: int) -> float:
    """Bytes a chip has to send, as a part of the collective's bytes, by the best of algorithms."""
    if kind in ("collective-permute", "collective-broadcast"):
        return 1.0
    return (2.0 if kind == "all-reduce" else 1.0) * (chips - 1) / chips


def group_size(attributes: str) -> int:
    """Chips that take part in one collective; 2 for a permute's pairs."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes):  # axes by name
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):  # groups, chips of a group
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(_numbers(found[1]))
    return 2


# ---- what the compiler does not estimate ----------------------------------------------------------------


def _code_lengths(module: hlo.Module, schedules: Mapping[str, int]) -> dict[Any, int]:
    """Length of a kernel's code by its instruction's name, and, the longest of those alike, by `_likeness`."""
    lengths: dict[Any, int] = dict(schedules)
    for where in module.computations.values():
        for instruction in where.values():
            if length := schedules.get(instruction.name):
                alike = _likeness(where, instruction)
                lengths[alike] = max(length, lengths.get(alike, 0))
    return lengths


def _likeness(where: hlo.Computation, instruction: hlo.Instruction) -> tuple[Any, ...]:
    """The kernel's own name, without the number that makes it the instruction's, and its arrays."""
    arrays = (array for shapes in (*where.operands(instruction), instruction.results) for array in shapes)
    return own_name(instruction.name), *((array.dtype, array.dims) for array in arrays)


def _kernel(where: hlo.Computation, instruction: hlo.Instruction, times: int, lengths: Mapping[Any, int]) -> Kernel:
    arrays = [array for shapes in where.operands(instruction) for array in shapes] + list(instruction.results)
    declared = re.search(r'"cost_estimate":\{[^}]*?"flops":"?(\d+)', instruction.attributes)
    turns = re.search(r'kernel_metadata=\{[^}]*?\\?"turns\\?":\s*\\?"(\d+)', instruction.attributes)
    length = lengths.get(instruction.name) or lengths.get(_likeness(where, instruction))
    return Kernel(
        name=instruction.name,
        group=group_of(instruction),
        times=times,
        bytes=sum(array.bytes for array in arrays),
        flops=int(declared[1]) if declared else None,
        cycles=int(turns[1]) * length if turns and length else None,
    )


def _unestimated_bytes(where: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Its result, read and written; of an update in place, what is put in."""
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sum(array.bytes for array in where.operands(instruction)[1])
    return 2 * sum(array.bytes for array in instruction.results)
