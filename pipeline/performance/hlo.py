"""What a compiled program contains: its memory, its operations, and its collectives.

The latter two are read from the text of the compiled module.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxlib import _jax

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
         "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
COLLECTIVE = re.compile(rf"= (.*?) ({KINDS})(-start)?\(")
# Between slices the hosts exchange: a TPU sends its part to them, and they combine all slices'.
HANDED = re.compile(r' = \((.*?)\) send\(.*_xla_megascale_transfer_type="(\w+)"')
BETWEEN_SLICES = "between slices"
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
OPERATION = re.compile(r" = .*? ([a-z][\w\-]*)\(")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")  # ['data'=8,'model'=2] {'data'}
# A device starts nothing for these.
NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


class Collective(NamedTuple):
    """One exchange between devices."""

    kind: str
    dtype: str
    elements: int
    bytes: int  # size of its result on one device
    in_loop: bool
    devices: int = 0  # how many the first group has; 0: all devices are one group
    spread: int = 0  # device numbers from the group's first to its last, inclusive; 0: all


class Memory(NamedTuple):
    """Bytes on one device; an argument whose buffer becomes a result counts once."""

    arguments: int
    results: int  # only those that reuse no donated argument
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All bytes together."""
        return sum(self)


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of an HLO module's text, in the order of the text."""
    computations, _ = _computations(text)
    looped = _looped(computations)
    found = []
    for name, lines in computations.items():
        for line in lines:
            if match := COLLECTIVE.search(line):
                found.append(_collective(match, line, in_loop=name in looped))
            elif match := HANDED.search(line):
                kind = f"{match[2].lower().replace('_', '-')} {BETWEEN_SLICES}"
                found.append(Collective(kind, *_sizes(SHAPE.findall(match[1])[:1]), name in looped))
    return found


def operations(text: str) -> int:
    """Returns how many operations a device starts in one run of an HLO module: on GPUs, kernels."""
    computations, entry = _computations(text)

    def started(name: str) -> int:
        total = 0
        for line in computations.get(name, []):
            match = OPERATION.search(line)
            if not match or match[1] in NAMES or match[1].endswith("-done"):
                continue
            # These start what they call; a fusion, which also calls, is one operation.
            if match[1] in ("while", "call", "conditional", "async-start"):
                trips = TRIPS.search(line)
                times = int(trips[1]) if trips else 1
                total += times * sum(map(started, CALLED.findall(line)))
            else:
                total += 1
        return total

    return started(entry)


def memory(compiled: Any) -> Memory:
    """Returns the memory of one device as the compiler reports it."""
    said = compiled.memory_analysis()
    return Memory(
        arguments=said.argument_size_in_bytes,
        results=max(0, said.output_size_in_bytes - said.alias_size_in_bytes),
        temporaries=said.temp_size_in_bytes,
        code=said.generated_code_size_in_bytes,
    )


def bytes_moved(compiled: Any) -> float:
    """Returns the bytes that one device reads and writes in a step; 0 if the compiler can't say."""
    said = compiled.cost_analysis()
    if not said:
        # A program for GPUs that aren't here has no analysis; XLA's analysis for CPUs reads it too.
        host = jax.local_devices(backend="cpu")[0].client
        said = _jax.hlo_module_cost_analysis(host, compiled.runtime_executable().hlo_modules()[0])
    return float(said.get("bytes accessed", 0.0))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns {computation: its lines}, and the name of the entry computation."""
    found: dict[str, list[str]] = {"": []}
    name = entry = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[2]
            found[name] = []
            entry = name if match[1] else entry
        else:
            found[name].append(line)
    return found, entry


def _collective(match: re.Match, line: str, *, in_loop: bool) -> Collective:
    """Returns the collective of one line."""
    shapes = SHAPE.findall(match[1])
    if match[3] and (match[2] != "all-reduce" or match[1].startswith("((")):
        shapes = shapes[len(shapes) // 2 :]  # an asynchronous start also returns its operands
    group = _first_group(line)
    spread = max(group) - min(group) + 1 if group else 0
    return Collective(match[2], *_sizes(shapes), in_loop, len(group), spread)


def _sizes(shapes: list[tuple[str, str]]) -> tuple[str, int, int]:
    """Returns the dtypes joined by +, the number of elements, and the bytes."""
    sizes = [math.prod(int(size) for size in dims.split(",") if size) for _, dims in shapes]
    total = sum(size * BYTES[kind] for size, (kind, _) in zip(sizes, shapes, strict=True))
    return "+".join(sorted({kind for kind, _ in shapes})), sum(sizes), total


def _first_group(line: str) -> list[int]:
    """Returns the devices of a collective's first group; empty if all devices are one group."""
    if match := LISTED.search(line):
        return [int(device) for device in match[1].split(",")]
    if match := COUNTED.search(line):  # a group is a row of the transposed grid of all devices
        grid = np.arange(int(match[1]) * int(match[2]))
        grid = grid.reshape([int(size) for size in match[3].split(",")])
        if match[4]:
            grid = grid.transpose([int(axis) for axis in match[4].split(",")])
        return grid.reshape(int(match[1]), int(match[2]))[0].tolist()
    if match := NAMED.search(line):  # a group varies along the axes in braces
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        summed = re.findall(r"'(\w+)'", match[2])
        first = tuple(slice(None) if axis in summed else 0 for axis in sizes)
        shape = [int(size) for size in sizes.values()]
        return np.arange(math.prod(shape)).reshape(shape)[first].ravel().tolist()
    return []


def _looped(computations: dict[str, list[str]]) -> set[str]:
    """Returns the computations that a loop calls, directly or through others."""
    calls = {name: {c for line in lines for c in CALLED.findall(line)}
             for name, lines in computations.items()}  # fmt: skip
    roots = {
        called
        for lines in computations.values()
        for line in lines
        if re.search(r"\bwhile\(", line)
        for called in CALLED.findall(line)
    }
    reached: set[str] = set()
    while roots:
        name = roots.pop()
        if name not in reached:
            reached.add(name)
            roots |= calls.get(name, set())
    return reached
