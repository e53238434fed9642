"""What a compiled program holds: its memory, operations, and what its devices exchange."""

import math
import re
from typing import Any, NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
         "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
COLLECTIVE = re.compile(rf"= (.*?) ({KINDS})(-start)?\(")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")


class Collective(NamedTuple):
    """One exchange between all devices."""

    kind: str
    dtype: str
    elements: int
    bytes: int  # of its result on one device
    in_loop: bool


class Memory(NamedTuple):
    """Bytes on one device; arguments that become results count once."""

    arguments: int
    results: int  # beyond the donated arguments
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of an HLO module's text, in its order."""
    lines = text.splitlines()
    looped = _looped(lines)
    found, computation = [], ""
    for line in lines:
        if match := COMPUTATION.match(line):
            computation = match[1]
        match = COLLECTIVE.search(line)
        if not match:
            continue
        shapes = SHAPE.findall(match[1])
        if match[3] and match[2] != "all-reduce":
            shapes = shapes[len(shapes) // 2 :]  # a start's value also holds its operands
        sizes = [math.prod(int(size) for size in dims.split(",") if size) for _, dims in shapes]
        total = sum(size * BYTES[kind] for size, (kind, _) in zip(sizes, shapes, strict=True))
        types = "+".join(sorted({kind for kind, _ in shapes}))
        found.append(Collective(match[2], types, sum(sizes), total, computation in looped))
    return found


def memory(compiled: Any) -> Memory:
    """Returns what the compiler says of one device's memory."""
    said = compiled.memory_analysis()
    return Memory(
        arguments=said.argument_size_in_bytes,
        results=max(0, said.output_size_in_bytes - said.alias_size_in_bytes),
        temporaries=said.temp_size_in_bytes,
        code=said.generated_code_size_in_bytes,
    )


def flops(compiled: Any) -> float:
    """Returns one device's operations a step; 0 where the compiler doesn't say."""
    return float((compiled.cost_analysis() or {}).get("flops", 0.0))


def bytes_moved(compiled: Any) -> float:
    """Returns the bytes that one device reads and writes in a step; 0 where it isn't known."""
    return float((compiled.cost_analysis() or {}).get("bytes accessed", 0.0))


def _looped(lines: list[str]) -> set[str]:
    """Returns the computations that a loop calls, directly or not."""
    calls: dict[str, set[str]] = {}
    roots, computation = set(), ""
    for line in lines:
        if match := COMPUTATION.match(line):
            computation = match[1]
        called = set(CALLED.findall(line))
        calls.setdefault(computation, set()).update(called)
        if re.search(r"\bwhile\(", line):
            roots |= called
    reached: set[str] = set()
    while roots:
        name = roots.pop()
        if name not in reached:
            reached.add(name)
            roots |= calls.get(name, set())
    return reached
