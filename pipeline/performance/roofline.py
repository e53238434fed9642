"""How fast a compiled step could run on a topology: a range, computed and not run.

At best the roofline: the longest of arithmetic at the chip's peak, bytes at its memory's, and the
exchange at its links', the others hidden behind it. At worst a third of the peak, half of the
memory's speed, half of the links' (a slice without wrap-around links, a network that is shared), a
time for every operation that is started and every hop of an exchange, and all of it in turn.
"""

import math
from typing import NamedTuple

from pipeline.performance import hlo, topologies

ASSUMED = (
    "at best the longest of arithmetic, memory and links at their peaks; at worst 1/3 of the "
    "arithmetic's, 1/2 of the others', 5 µs a GPU kernel, 1 µs a TPU operation and a hop, in turn"
)
START = {"cuda": 5e-6, "tpu": 1e-6}  # s of each operation that a device starts; assumed
HOP = 1e-6  # s from a device to its neighbour; assumed


class Range(NamedTuple):
    """A step's time, s, and its efficiency: a device's speed over its speed alone, 0 to 1."""

    best: float
    worst: float
    least_efficiency: float  # the fastest device waits for the slowest exchange
    most_efficiency: float  # the slowest device hides the fastest exchange


def of(
    topology: topologies.Topology,
    *,
    flops: dict[str, float],
    moved: float,
    operations: int,
    collectives: list[hlo.Collective],
) -> Range:
    """Returns the range of one step.

    Args:
        topology: where it runs; of devices of unknown speed the range says nothing.
        flops: one device's multiplications and additions, by type.
        moved: bytes that it reads and writes.
        operations: how many it starts.
        collectives: what the devices exchange.
    """
    chip = topology.chip
    if not chip.bfloat16:
        return Range(1.0, 1.0, 1.0, 1.0)
    computing = sum(
        number / (chip.bfloat16 if dtype == "bfloat16" else chip.float32)
        for dtype, number in flops.items()
    )
    moving = moved / chip.bandwidth
    fastest = max(computing, moving, 1e-6)
    slowest = max(3 * computing, 2 * moving) + operations * START[chip.platform]
    inside, beyond = sent(topology, collectives)
    least = inside / chip.link + beyond / chip.network
    most = 2 * least + len(collectives) * _hops(topology) * HOP
    return Range(
        best=max(fastest, least),
        worst=slowest + most,
        least_efficiency=fastest / (fastest + most),
        most_efficiency=slowest / max(slowest, least),
    )


def sent(topology: topologies.Topology, collectives: list[hlo.Collective]) -> tuple[float, float]:
    """Returns what a device sends, bytes: inside its slice of TPUs or host of GPUs, and beyond.

    In rings, inside first: beyond, each device then exchanges its part of the sum.
    """
    parts = [_sent(topology, each) for each in collectives]
    return sum(inside for inside, _ in parts), sum(beyond for _, beyond in parts)


def _sent(topology: topologies.Topology, each: hlo.Collective) -> tuple[float, float]:
    if each.kind.endswith(hlo.BETWEEN_SLICES):
        return 0.0, 2 * each.bytes * (topology.num_parts - 1) / topology.num_parts
    total = len(topology.devices)
    members = each.devices or total
    reach = math.ceil((each.spread or total) / (total // topology.num_parts))
    parts = min(reach, members)  # slices or hosts that hold the group
    near = members // parts
    whole = each.bytes * (members if each.kind == "reduce-scatter" else 1)
    passed = (2 if each.kind == "all-reduce" else 1) * whole
    return passed * (near - 1) / near, passed / near * (parts - 1) / parts


def _hops(topology: topologies.Topology) -> int:
    """Returns how many neighbours a sum passes, there and back: on each axis; GPUs: in a tree."""
    if topology.chip.platform == "tpu":
        axes = topology.name.partition(":")[2].split("x")
        return sum(int(axis) for axis in axes) + 2 * (topology.num_parts - 1)
    return 2 * math.ceil(math.log2(max(2, len(topology.devices))))
