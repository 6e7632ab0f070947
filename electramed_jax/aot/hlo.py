"""Reads the text of a compiled XLA program: computations, instructions, shapes, how often each loop turns.

A pure function of the text, which is XLA's own printed form of a scheduled module. Only what the accounting in
program.py asks for is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BITS = {"pred": 8, "token": 0} | {
    f"{kind}{bits}": bits
    for kind, sizes in {"s": (2, 4, 8, 16, 32, 64), "u": (2, 4, 8, 16, 32, 64), "bf": (16,), "f": (16, 32, 64)}.items()
    for bits in sizes
}  # a type that is not here (float8's, mostly) has its width in its name

_ARRAY = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<dims>[\d,<=]*)\](?:\{(?P<layout>[^{}]*)\})?")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[^\s=]+) = (?P<rest>.*)$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([^\s,)}]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool  # else in the core's own memory: memory space S(n) of its layout

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype) or int((re.findall(r"\d+", self.dtype) or [0])[0])
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = result opcode(operands), attributes`."""

    name: str
    opcode: str
    results: tuple[Array, ...]  # a tuple's members, nested ones too
    operands: tuple[str, ...]  # names, in the same computation
    literal: str  # what stands between the parentheses
    attributes: str

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Computations by the role they are called in: body, condition, calls, to_apply, branch0, ..."""
        found = {role: name for role, name in _CALLED.findall(self.attributes)}
        if branches := _BRANCHES.search(self.attributes):
            names = branches[1].replace("%", "").split(",")
            found |= {f"branch{number}": name.strip() for number, name in enumerate(names)}
        return found

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from: "jit(step)/jvp(attention)/dot_general", or nothing."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def estimated_cycles(self) -> int | None:
        """The compiler's own estimate, where it made one."""
        found = re.search(r'"estimated_cycles":"?(\d+)', self.attributes)
        return int(found[1]) if found else None

    @property
    def channel(self) -> str | None:
        """Pieces of one collective share it."""
        found = re.search(r"channel_id=(\d+)", self.attributes)
        return found[1] if found else None

    def attribute(self, name: str) -> str:
        """The value of `name=value` that holds no space, such as dim_labels; or nothing."""
        found = re.search(rf"(?:^|[\s,]){name}=([^\s,]+)", self.attributes)
        return found[1] if found else ""


class Computation(dict[str, Instruction]):
    """Instructions by name, in the order they run."""

    def operands(self, instruction: Instruction) -> list[tuple[Array, ...]]:
        """Results of the instruction's operands."""
        return [self[name].results for name in instruction.operands if name in self]


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations, and which of them is entered."""

    computations: dict[str, Computation]
    entry: str

    def turns(self, where: Computation, loop: Instruction) -> int | None:
        """How often a `while` runs its body; None where the text doesn't tell.

        Told by the compiler's known_trip_count, or by a condition `counter < constant` whose counter starts at a
        constant and grows by another: by 1 in what `jax.lax.scan` becomes, by more where the compiler unrolled it.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called[role]] for role in ("condition", "body"))
        bounds = [int(i.literal) for i in condition.values() if i.opcode == "constant" and i.literal.isdigit()]
        counters = [i for i in condition.values() if i.opcode == "get-tuple-element"]
        directions = re.findall(r"direction=(\w+)", " ".join(i.attributes for i in self._inside(condition)))
        if len(bounds) != 1 or len(counters) != 1 or directions != ["LT"]:
            return None
        counter = int(counters[0].attribute("index"))
        first, growth = _constant(where, _member(where, loop.operands[0], counter)), _growth(body, counter)
        if first is None or not growth:
            return None
        return max(0, math.ceil((bounds[0] - first) / growth))

    def _inside(self, computation: Computation) -> Iterator[Instruction]:
        """The instructions of a computation and of those it calls."""
        for instruction in computation.values():
            yield instruction
            for name in instruction.called.values():
                yield from self._inside(self.computations[name])


def _source(where: Computation, name: str | None) -> Instruction | None:
    """The instruction that makes a value, seen through copies; None for None and for what isn't in `where`."""
    instruction = where.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "copy-start", "copy-done"):
        instruction = where.get(instruction.operands[0])
    return instruction


def _member(where: Computation, name: str, index: int) -> str | None:
    """The name of one member of a tuple that is put together in `where`."""
    made = _source(where, name)
    return made.operands[index] if made is not None and made.opcode == "tuple" else None


def _constant(where: Computation, name: str | None) -> int | None:
    """The whole number that a name stands for."""
    made = _source(where, name)
    is_number = made is not None and made.opcode == "constant" and re.fullmatch(r"-?\d+", made.literal)
    return int(made.literal) if is_number else None


def _growth(body: Computation, index: int) -> int | None:
    """The constant that a loop's body adds to one member of its state."""
    added = _source(body, _member(body, next(reversed(body)), index))  # the last instruction is the result
    if added is None or added.opcode != "add":
        return None
    for counter, constant in (added.operands, added.operands[::-1]):
        made = _source(body, counter)
        if made is not None and made.opcode == "get-tuple-element" and made.attribute("index") == str(index):
            return _constant(body, constant)
    return None


def parse(text: str) -> Module:
    """The module printed in `text` (`jax.stages.Compiled.as_text()`)."""
    lines_of: dict[str, list[str]] = {}  # of a computation; an instruction with line breaks in it is one
    entry, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = lines_of[header["name"]] = []
            entry = header["name"] if header["entry"] else entry
        elif re.match(r"\}(,? execution_thread=.*)?$", line):
            current = None
        elif current is not None and (_INSTRUCTION.match(line) or not current):
            current.append(line)
        elif current is not None:
            current[-1] += line
    if not entry:
        raise ValueError("no ENTRY computation: not the text of a compiled program")
    return Module({name: _computation(lines) for name, lines in lines_of.items()}, entry)


def _computation(lines: list[str]) -> Computation:
    matches = [found for line in lines if (found := _INSTRUCTION.match(line))]
    return Computation({found["name"]: _instruction(found["name"], found["rest"]) for found in matches})


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _split_at(rest, _end_of_shape(rest))
    opcode, _, rest = rest.strip().partition("(")
    inside, rest = _split_at(rest, _closing(rest, depth=1))
    return Instruction(
        name=name,
        opcode=opcode,
        results=tuple(_array(found) for found in _ARRAY.finditer(shape)),
        operands=tuple(re.findall(r"%([^\s,()]+)", inside)),
        literal=inside.strip(),
        attributes=rest[1:].lstrip(", "),
    )


def _array(found: re.Match[str]) -> Array:
    dims = tuple(int(d.lstrip("<=")) for d in found["dims"].split(",") if d)
    return Array(found["dtype"], dims, in_hbm=not re.search(r"S\(\d+\)", found["layout"] or ""))


def _split_at(text: str, index: int) -> tuple[str, str]:
    return text[:index], text[index:]


def _end_of_shape(text: str) -> int:
    """A shape holds no space, but for a tuple's, which ends at its closing parenthesis."""
    return _closing(text[1:], depth=1) + 2 if text.startswith("(") else text.index(" ")


def _closing(text: str, depth: int) -> int:
    """The index of the parenthesis that closes `depth` open ones."""
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]', text):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
