"""Parses the text of a compiled XLA program: computations, instructions, shapes, trip counts of loops.

The input is XLA's printed form of a scheduled module. Only what cost_model.py needs is kept.
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
}  # other types (mostly float8) have their width in their name

_ARRAY = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<dims>[\d,<=]*)\](?:\{(?P<layout>[^{}]*)\})?")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[^\s=]+) = (?P<rest>.*)$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([^\s,)}]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in the result of an instruction.

    Attributes:
      dtype: XLA's name of the type, such as "bf16".
      dims: its shape.
      in_hbm: False if the layout has a memory space S(n), which is the memory of the core.
    """

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        bits = BITS.get(self.dtype) or int((re.findall(r"\d+", self.dtype) or [0])[0])
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction, printed as `name = result opcode(operands), attributes`.

    Attributes:
      name: unique in the module.
      opcode: such as "dot" or "fusion".
      results: the arrays of the result, with those of nested tuples.
      operands: names of instructions in the same computation.
      literal: the text between the parentheses.
      attributes: the text after them.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """The called computations by role: body, condition, calls, to_apply, branch0, ..."""
        called: dict[str, str] = dict(_CALLED.findall(self.attributes))
        if branches := _BRANCHES.search(self.attributes):
            names = branches[1].replace("%", "").split(",")
            called |= {f"branch{number}": name.strip() for number, name in enumerate(names)}
        return called

    @property
    def op_name(self) -> str:
        """The path in the traced program, such as "jit(step)/jvp(attention)/dot_general"; "" if there is none."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def estimated_cycles(self) -> int | None:
        """The compiler's estimate; None if there is none."""
        found = re.search(r'"estimated_cycles":"?(\d+)', self.attributes)
        return int(found[1]) if found else None

    @property
    def channel(self) -> str | None:
        """The channel id, which the parts of one collective share; None if there is none."""
        found = re.search(r"channel_id=(\d+)", self.attributes)
        return found[1] if found else None

    def attribute(self, name: str) -> str:
        """Returns the value of `name=value` without spaces, such as dim_labels; "" if there is none."""
        found = re.search(rf"(?:^|[\s,]){name}=([^\s,]+)", self.attributes)
        return found[1] if found else ""


class Computation(dict[str, Instruction]):
    """Instructions by name, in execution order."""

    def operands(self, instruction: Instruction) -> list[tuple[Array, ...]]:
        """Returns the results of the operands of an instruction."""
        return [self[name].results for name in instruction.operands if name in self]


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
      computations: by name.
      entry: name of the entry computation.
    """

    computations: dict[str, Computation]
    entry: str

    def trip_count(self, parent: Computation, loop: Instruction) -> int | None:
        """Returns how often a `while` instruction runs its body; None if the text does not show it.

        The count is the compiler's known_trip_count, or follows from a condition `counter < constant` and a counter
        that starts at a constant and grows by a constant: by 1 in the loop of `jax.lax.scan`, by more if the compiler
        unrolled it.

        Args:
          parent: the computation that contains `loop`.
          loop: the `while` instruction.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called[role]] for role in ("condition", "body"))
        bounds = [int(i.literal) for i in condition.values() if i.opcode == "constant" and i.literal.isdigit()]
        counters = [i for i in condition.values() if i.opcode == "get-tuple-element"]
        directions = re.findall(r"direction=(\w+)", " ".join(i.attributes for i in self._nested(condition)))
        if len(bounds) != 1 or len(counters) != 1 or directions != ["LT"]:
            return None
        counter = int(counters[0].attribute("index"))
        first = _constant(parent, _tuple_member(parent, loop.operands[0], counter))
        increment = _increment(body, counter)
        if first is None or not increment:
            return None
        return max(0, math.ceil((bounds[0] - first) / increment))

    def _nested(self, computation: Computation) -> Iterator[Instruction]:
        """Yields the instructions of a computation and of those it calls."""
        for instruction in computation.values():
            yield instruction
            for name in instruction.called.values():
                yield from self._nested(self.computations[name])


def _producer(computation: Computation, name: str | None) -> Instruction | None:
    """Returns the instruction that computes a value, through copies; None if it is not in the computation."""
    instruction = None if name is None else computation.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "copy-start", "copy-done"):
        instruction = computation.get(instruction.operands[0])
    return instruction


def _tuple_member(computation: Computation, name: str, index: int) -> str | None:
    """Returns the name of a member of a tuple; None if the tuple is not built in the computation."""
    producer = _producer(computation, name)
    return producer.operands[index] if producer is not None and producer.opcode == "tuple" else None


def _constant(computation: Computation, name: str | None) -> int | None:
    """Returns the value of an integer constant; None if the instruction is another."""
    producer = _producer(computation, name)
    if producer is None or producer.opcode != "constant" or not re.fullmatch(r"-?\d+", producer.literal):
        return None
    return int(producer.literal)


def _increment(body: Computation, index: int) -> int | None:
    """Returns the constant that the body of a loop adds to one member of its state; None if it does something else."""
    added = _producer(body, _tuple_member(body, next(reversed(body)), index))  # the last instruction is the result
    if added is None or added.opcode != "add":
        return None
    for counter, constant in (added.operands, added.operands[::-1]):
        producer = _producer(body, counter)
        if (
            producer is not None
            and producer.opcode == "get-tuple-element"
            and producer.attribute("index") == str(index)
        ):
            return _constant(body, constant)
    return None


def parse(text: str) -> Module:
    """Parses the text of a compiled program, from `jax.stages.Compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """
    lines_of: dict[str, list[str]] = {}  # by computation; an instruction with line breaks is joined to one line
    entry = ""
    current: list[str] | None = None
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
    matches = [match for line in lines if (match := _INSTRUCTION.match(line))]
    return Computation({match["name"]: _instruction(match["name"], match["rest"]) for match in matches})


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _split_at(rest, _end_of_shape(rest))
    opcode, _, rest = rest.strip().partition("(")
    inside, rest = _split_at(rest, _closing(rest, depth=1))
    return Instruction(
        name=name,
        opcode=opcode,
        results=tuple(_array(match) for match in _ARRAY.finditer(shape)),
        operands=tuple(re.findall(r"%([^\s,()]+)", inside)),
        literal=inside.strip(),
        attributes=rest[1:].lstrip(", "),
    )


def _array(match: re.Match[str]) -> Array:
    dims = tuple(int(d.lstrip("<=")) for d in match["dims"].split(",") if d)
    return Array(match["dtype"], dims, in_hbm=not re.search(r"S\(\d+\)", match["layout"] or ""))


def _split_at(text: str, index: int) -> tuple[str, str]:
    return text[:index], text[index:]


def _end_of_shape(text: str) -> int:
    """Returns where the shape at the start of `text` ends: at a space, or after the parentheses of a tuple."""
    return _closing(text[1:], depth=1) + 2 if text.startswith("(") else text.index(" ")


def _closing(text: str, depth: int) -> int:
    """Returns the index of the parenthesis that closes the outermost of `depth` open ones; skips quoted strings."""
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]', text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
