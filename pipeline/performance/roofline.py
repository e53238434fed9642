"""How fast a compiled step could run on a topology: a range, computed and not run.

The best case is the roofline. Arithmetic, memory traffic and the exchange each run at the peak of
the chip, its memory and its links; the longest of the three hides the others. The worst case
assumes a third of the arithmetic's peak, half of the memory's and half of the links'. A slice may
lack wrap-around links, and a network may be shared. The worst case also adds a time for every
operation that is started and every hop of an exchange, and the exchange starts only after the
computation.
"""

import math
from typing import NamedTuple

from pipeline.performance import hlo, topologies

ASSUMED = (
    "at best the longest of arithmetic, memory and links at their peaks; at worst 1/3 of the "
    "arithmetic's, 1/2 of the others', 5 µs a GPU kernel, 1 µs a TPU operation and a hop, in turn"
)
START = {"cuda": 5e-6, "tpu": 1e-6}  # seconds to start one operation; assumed
HOP = 1e-6  # seconds from a device to its neighbour; assumed


class Range(NamedTuple):
    """A step's time in seconds, and its efficiency.

    Efficiency is one device's speed among all, divided by the speed of a single device, 0 to 1.
    """

    best: float
    worst: float
    least_efficiency: float  # the fastest computation waits for the slowest exchange
    most_efficiency: float  # the slowest computation overlaps the fastest exchange


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
        topology: the devices; if their speed is unknown, the range is all ones and means nothing.
        flops: multiplications and additions of one device, by dtype, as `flops.count` has them.
        moved: bytes that one device reads from and writes to its memory.
        operations: how many operations one device starts.
        collectives: what the devices exchange.
    """
    chip = topology.chip
    if not chip.bfloat16:
        return Range(1.0, 1.0, 1.0, 1.0)
    computing = sum(
        number / (chip.bfloat16 if dtype == "bfloat16" else chip.float32)
        for dtype, number in flops.items()
    )
    # One device by itself: arithmetic and memory traffic overlap in both cases.
    moving = moved / chip.bandwidth
    fastest = max(computing, moving, 1e-6)
    slowest = max(3 * computing, 2 * moving) + operations * START[chip.platform]
    # The exchange: over the links of a slice or host, and over the network between them.
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
    """Returns the bytes that a device sends inside its slice or host, and beyond it.

    A part is a slice of TPUs or a host of GPUs. The exchange goes in rings, inside a part first.
    After that each device exchanges only its share of the sum with other parts.
    """
    parts = [_sent(topology, each) for each in collectives]
    return sum(inside for inside, _ in parts), sum(beyond for _, beyond in parts)


def _sent(topology: topologies.Topology, each: hlo.Collective) -> tuple[float, float]:
    """Returns `sent` for one collective."""
    if each.kind.endswith(hlo.BETWEEN_SLICES):
        return 0.0, 2 * each.bytes * (topology.num_parts - 1) / topology.num_parts
    total = len(topology.devices)
    members = each.devices or total
    # A group may reach over several parts; `near` of its members then share one of them.
    reach = math.ceil((each.spread or total) / (total // topology.num_parts))
    parts = min(reach, members)
    near = members // parts
    # A reduce-scatter's result is one member's piece; an all-reduce passes the ring twice.
    whole = each.bytes * (members if each.kind == "reduce-scatter" else 1)
    passed = (2 if each.kind == "all-reduce" else 1) * whole
    return passed * (near - 1) / near, passed / near * (parts - 1) / parts


def _hops(topology: topologies.Topology) -> int:
    """Returns the hops of a sum there and back: along the axes of a torus, or in a tree of GPUs."""
    if topology.chip.platform == "tpu":
        axes = topology.name.partition(":")[2].split("x")
        return sum(int(axis) for axis in axes) + 2 * (topology.num_parts - 1)
    return 2 * math.ceil(math.log2(max(2, len(topology.devices))))
