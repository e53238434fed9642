"""Accelerators that a step can be planned for: memory, speed and links, each with its source.

Every figure describes one device as JAX counts devices, at its peak and without sparsity. The
sources are Cloud TPU's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)"
(cloud.google.com/tpu/docs, as of 2026), and NVIDIA's product pages of H100 and H200
(nvidia.com/en-us/data-center, as of May 2026). NVIDIA's A100 data sheet (2188504, May 2022) and its
user guides of DGX A100 (DU-09821, May 2020) and DGX H100/H200 add the rest. NVIDIA's figures were
read in quotations, not in the documents themselves. The sources leave two things open, so this
module assumes:

- GPUs work in boards of eight with NVSwitch, in hosts with one network card per GPU, as in a DGX;
- a v4 host reaches 25 GB/s on its network ("How to Scale Your Model", Austin et al. 2025, part 2).
"""

from typing import NamedTuple

GB = 1e9
GIB = 2.0**30
# JAX takes three quarters of a GPU's memory unless XLA_CLIENT_MEM_FRACTION sets another share
# ("GPU memory allocation", docs.jax.dev).
SHARE = 0.75


class Chip(NamedTuple):
    """One kind of device; every speed is per device and per second."""

    platform: str  # tpu, cuda, cpu
    memory: float  # bytes that a program may use
    bfloat16: float  # multiplications and additions of bfloat16 values
    float32: float  # the same for float32 values, at JAX's default precision
    bandwidth: float  # bytes read from or written to its own memory
    link: float  # bytes sent inside its slice or host, one way, over all its links together
    network: float  # bytes sent to other slices or hosts: its share of the host's network cards


# By default TPUs multiply float32 values in one bfloat16 pass, A100 and newer GPUs in TF32
# (`jax.lax.Precision`). The pages give a TPU's ICI bandwidth for both directions. Half of it, times
# the number of chips, is the all-reduce bandwidth that the pages of v5e and v6e give for a pod.
# A TPU's memory is what the compiler leaves to a program: libtpu 0.0.48 says so when a step doesn't
# fit. The pages say 32, 16, 95, 32 and 192 GiB per chip.
CHIPS = {
    # Half a chip, because each of its two cores is a device to the compiler. A chip has 275 TFLOP/s
    # and 1200 GB/s, a pod of 4096 chips 1.1 PB/s of all-reduce bandwidth, a host four chips.
    "v4": Chip("tpu", 15.25 * GIB, 137.5e12, 137.5e12, 600 * GB, 134 * GB, 3.125 * GB),
    # ICI 400 GB/s both ways; a pod of 256 chips shares 6.4 Tbit/s of network.
    "v5e": Chip("tpu", 15.75 * GIB, 197e12, 197e12, 819 * GB, 200 * GB, 3.125 * GB),
    # ICI 1200 GB/s both ways; 50 Gbit/s of network per chip. Its two cores are one device.
    "v5p": Chip("tpu", 95.73 * GIB, 459e12, 459e12, 2765 * GB, 600 * GB, 6.25 * GB),
    # ICI 800 GB/s both ways; 100 Gbit/s of network per chip.
    "v6e": Chip("tpu", 31.24 * GIB, 918e12, 918e12, 1638 * GB, 400 * GB, 12.5 * GB),
    # Half a chip, because each of its two cores is a device. A chip has 192 GiB, 2307 TFLOP/s,
    # 7380 GB/s, 1200 GB/s of ICI both ways, and 100 Gbit/s of network.
    "tpu7x": Chip("tpu", 94.74 * GIB, 1153.5e12, 1153.5e12, 3690 * GB, 300 * GB, 6.25 * GB),
    # NVLink 600 GB/s both ways; one 200 Gbit/s card per GPU.
    "a100": Chip("cuda", SHARE * 80 * GB, 312e12, 156e12, 2039 * GB, 300 * GB, 25 * GB),
    # With sparsity 1979 TFLOP/s, and 989 in TF32; without it half of each. NVLink 900 GB/s both
    # ways; one 400 Gbit/s card per GPU.
    "h100": Chip("cuda", SHARE * 80 * GB, 989.5e12, 494.5e12, 3350 * GB, 450 * GB, 50 * GB),
    "h200": Chip("cuda", SHARE * 141 * GB, 989.5e12, 494.5e12, 4800 * GB, 450 * GB, 50 * GB),
    # Virtual devices of one machine: plans for them check counts and bytes, never speed.
    "cpu": Chip("cpu", float("inf"), 0.0, 0.0, 0.0, 0.0, 0.0),
}
