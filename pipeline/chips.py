"""Accelerators that a step can be planned for: memory, speed and links.

Figures are of one device as JAX counts them: bf16 without sparsity, decimal bytes. They are
recalled from Google's TPU pages (cloud.google.com/tpu/docs) and NVIDIA's data sheets of A100, H100
and H200 SXM, and not yet checked against them; networks between slices and hosts differ.
TODO: check every row, until then ranges of speed are rough.
"""

from typing import NamedTuple

GB = 1e9


class Chip(NamedTuple):
    """One kind of device; speeds a device and second."""

    platform: str  # tpu, cuda, cpu
    memory: float  # bytes that a program may use
    flops: float  # multiplications and additions in bf16
    bandwidth: float  # bytes of its memory
    link: float  # bytes to the other devices of its slice or host, one way
    network: float  # bytes between slices, of its share of the host's network
    devices_per_host: int


CHIPS = {
    # v4 has two cores a chip, which JAX may take for two devices; the table's is half a chip.
    "v4": Chip("tpu", 16 * GB, 137.5e12, 614 * GB, 75 * GB, 3.1 * GB, 8),
    "v5e": Chip("tpu", 16 * GB, 197e12, 819 * GB, 100 * GB, 3.1 * GB, 4),
    "v5p": Chip("tpu", 95 * GB, 459e12, 2765 * GB, 300 * GB, 6.2 * GB, 4),
    "v6e": Chip("tpu", 32 * GB, 918e12, 1640 * GB, 224 * GB, 6.2 * GB, 4),
    # Two dies a chip, each a device.
    "tpu7x": Chip("tpu", 96 * GB, 1154e12, 3690 * GB, 300 * GB, 6.2 * GB, 8),
    "a100": Chip("cuda", 80 * GB, 312e12, 2039 * GB, 300 * GB, 25 * GB, 8),
    "h100": Chip("cuda", 80 * GB, 989e12, 3352 * GB, 450 * GB, 50 * GB, 8),
    "h200": Chip("cuda", 141 * GB, 989e12, 4800 * GB, 450 * GB, 50 * GB, 8),
    # Virtual devices of one machine: they check counts and bytes, and say nothing about speed.
    "cpu": Chip("cpu", float("inf"), 0.0, 0.0, 0.0, 0.0, 1),
}
