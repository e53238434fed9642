"""Devices that aren't there, to compile for: `v5e:16x16`, `4*v5e:16x16`, `h100:1x8x8`, `cpu:8`.

JAX's own topology descriptions stand for the devices, so the compiler is that of the real machine.
A description needs the package of its platform, and no device.
"""

import difflib
import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

from pipeline.performance import chips, gpu_targets
from pipeline.runtime import errors

# Slices that are sold, as chips along each axis of the torus. `chips` names the sources.
SOLD = {
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
           "8x16x16", "16x16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
            "8x16x16", "16x16x16", "16x16x24"),
    "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
              "8x16x16"),
}  # fmt: skip
# These kinds also sell any AxBxC of multiples of four, A ≤ B ≤ C, up to this many chips.
LARGEST = {"v4": 4096, "v5p": 6144, "tpu7x": 9216}
FORM = re.compile(r"(?:(\d{1,6})\*)?([a-z0-9]+):(\d{1,6}(?:x\d{1,6})*)", re.ASCII)
# Google's own names for slices, such as v5p-4096. On v4 and v5p they count cores, else chips.
ACCELERATOR = re.compile(r"(v4|v5p|v5e|v5litepod|v6e)-(\d+)")
CORES = {"v4": 2, "v5p": 2}
# {platform: (the package that has its compiler, the extra that installs it)}
EXTRAS = {"tpu": ("libtpu", "plan-tpu"), "cuda": ("jax_plugins.xla_cuda12", "plan-gpu")}


class Topology(NamedTuple):
    """Devices to compile for."""

    name: str
    chip: chips.Chip
    devices: list[Any]
    num_parts: int  # slices of TPUs or hosts of GPUs, which only the network connects


class Asked(NamedTuple):
    """The parts of a topology's name."""

    name: str
    kind: str
    shape: str
    num_slices: int  # N of `N*KIND:SHAPE`, which the compiler receives
    num_parts: int  # as in `Topology`


def parse(name: str) -> Asked:
    """Parses a topology's name, and uses no device.

    Raises:
        InputError: the name has another form, its kind is unknown, or its shape is not sold; the
            message names the nearest.
    """
    match = FORM.fullmatch(name)
    if not match:
        raise errors.InputError(
            f"--topology={name} has another form: write {_translated(name)}, "
            "4*v5e:16x16 (slices), h100:1x8x8 (slices × hosts × GPUs) or cpu:8"
        )
    slices, kind, shape = int(match[1] or 1), match[2], match[3]
    if kind not in chips.CHIPS:
        near = difflib.get_close_matches(kind, chips.CHIPS, n=2, cutoff=0.3)
        raise errors.InputError(
            f"--topology={name}: {kind!r} is unknown; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + f"Known are {', '.join(chips.CHIPS)}"
        )
    # TPUs come only in some shapes, and the compiler's own message for others names no repair.
    if kind in SOLD and not _is_sold(kind, shape):
        raise errors.InputError(
            f"--topology={name}: {kind} has no slice of {shape} chips; its neighbours are "
            f"{' and '.join(_neighbours(SOLD[kind], shape))}"
        )
    # Each platform has a number of axes, and only TPUs have slices.
    platform, axes = chips.CHIPS[kind].platform, shape.count("x") + 1
    if axes != {"cpu": 1, "cuda": 3}.get(platform, axes) or slices < 1:
        form = "cpu:N" if platform == "cpu" else f"{kind}:SLICESxHOSTSxGPUS"
        raise errors.InputError(f"--topology={name} has another form: write {form}")
    if not all(1 <= int(size) <= 4096 for size in shape.split("x")):
        raise errors.InputError(f"--topology={name}: its sizes must lie between 1 and 4096")
    if platform != "tpu" and slices > 1:
        raise errors.InputError(f"--topology={name}: N* counts slices, and only TPUs have them")
    parts = _num_chips(shape.rpartition("x")[0]) if platform == "cuda" else slices
    return Asked(name, kind, shape, slices, parts)


def prepare(asked: Asked) -> None:
    """Sets the environment variables that JAX reads when it is imported, so call it before.

    They keep JAX from searching for devices, because the planned ones are not here.

    Raises:
        InputError: the package with that platform's compiler is missing.
    """
    platform = chips.CHIPS[asked.kind].platform
    os.environ["JAX_PLATFORMS"] = "cpu"
    if platform == "cpu":
        count = f"--xla_force_host_platform_device_count={asked.shape}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}"
        return
    package, extra = EXTRAS[platform]
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise errors.InputError(
            f"--topology={asked.name} needs its compiler: pip install -e '.[{extra}]'"
        )
    # No TPU is here to answer libtpu's questions, and without these it logs that at length.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def load(asked: Asked) -> Topology:
    """Returns the devices; imports JAX, so call `prepare` before.

    Raises:
        InputError: the compiler does not know the topology.
    """
    import jax
    from jax.experimental import topologies

    chip = chips.CHIPS[asked.kind]
    if chip.platform == "cpu":
        return Topology(asked.name, chip, jax.devices()[: int(asked.shape)], 1)
    try:
        if chip.platform == "cuda":
            described = topologies.get_topology_desc(
                platform="cuda", target_config=gpu_targets.TARGETS[asked.kind], topology=asked.shape
            )
        else:
            options: dict[str, Any] = {}
            if asked.num_slices > 1:
                options["num_slices"] = asked.num_slices
            if asked.shape == "1x1":
                options["chips_per_host_bounds"] = (1, 1, 1)
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=f"{asked.kind}:{asked.shape}", **options
            )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split("\n")[0]
        raise errors.InputError(f"--topology={asked.name}: {reason}") from None
    return Topology(asked.name, chip, list(described.devices), asked.num_parts)


def here(devices: list[Any]) -> Topology:
    """Returns this run's devices, of unknown speed; their memory is infinite if unreported."""
    stats = devices[0].memory_stats() or {}
    memory = float(stats.get("bytes_limit", float("inf")))
    platform = {"gpu": "cuda"}.get(devices[0].platform, devices[0].platform)
    chip = chips.Chip(platform, memory, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Topology("these devices", chip, devices, 1)


def _neighbours(sold: tuple[str, ...], shape: str) -> list[str]:
    """Returns the next smaller and the next larger size, by the number of chips."""
    asked = _num_chips(shape)
    below = [text for text in sold if _num_chips(text) <= asked]
    above = [text for text in sold if _num_chips(text) > asked]
    return below[-1:] + above[:1]


def _num_chips(shape: str) -> int:
    return math.prod(int(axis) for axis in shape.split("x"))


def _is_sold(kind: str, shape: str) -> bool:
    if shape in SOLD[kind]:
        return True
    axes = [int(axis) for axis in shape.split("x")]
    cubes = len(axes) == 3 and axes == sorted(axes) and min(axes) and not any(a % 4 for a in axes)
    return bool(cubes) and math.prod(axes) <= LARGEST.get(kind, 0)


def _translated(name: str) -> str:
    """Returns the topology of a name like v5p-4096, or the general form if it has none."""
    if match := ACCELERATOR.fullmatch(name):
        kind = match[1].replace("v5litepod", "v5e")
        num_chips = int(match[2]) // CORES.get(kind, 1)
        for shape in SOLD[kind]:
            if _num_chips(shape) == num_chips:
                counted = "cores" if kind in CORES else "chips"
                return f"{kind}:{shape} (the name counts {counted})"
    return "KIND:SHAPE, such as v5e:16x16"
