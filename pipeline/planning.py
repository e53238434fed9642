"""A step compiled ahead of time for a topology, and what that says about running it there.

The range of speeds: at best the roofline, the longer of operations at the chip's rate and bytes at
its memory's, with the collectives hidden behind them; at worst operations at a third of the rate,
bytes at a half, and the collectives after both. Neither was run.
"""

import re
import time
from typing import Any

import jax
import numpy as np

from pipeline import data, errors, layouts, program, sharding, step, topologies


def set_effort(effort: str, topology: topologies.Topology) -> None:
    """Lets the TPU compiler search less: a twentieth of the time, and the same collectives."""
    if effort == "quick" and topology.chip.platform == "tpu":
        jax.config.update("jax_exec_time_optimization_effort", -1.0)


def sweep(text: str, config: Any, topology: topologies.Topology) -> list[int]:
    """Returns the global batch sizes to plan, ascending; the config's own without a sweep.

    Raises:
        InputError: another form than batch=N,N,…, of examples a device.
    """
    if not text:
        return [config.batch_size]
    if not re.fullmatch(r"batch=\d+(,\d+)*", text):
        raise errors.InputError(f"--sweep={text} has another form: write batch=64,128,256")
    sizes = sorted({int(size) for size in text.partition("=")[2].split(",")})
    return [size * len(topology.devices) for size in sizes]


def plan(config: Any, topology: topologies.Topology, batch_size: int) -> dict[str, Any]:
    """Compiles the training step, and returns what there is to say, ready for JSON.

    Raises:
        InputError: something in the config can't work on so many devices.
    """
    config = config.copy_and_resolve_references().unlock()
    config.batch_size = batch_size
    if not config.data.variance:
        config.data.variance = 1.0  # a number in the program: its value changes no cost
    mesh = sharding.make_mesh(config.mesh, devices=topology.devices)
    data.check_batch(config, mesh)
    began = time.perf_counter()
    lowered = lower(config, mesh)
    about = {
        "topology": topology.name,
        "devices": mesh.size,
        "batch_size": batch_size,
        "parameters": sum(x.size for x in jax.tree.leaves(_state(config).params)),
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        return about | {"fits": False, "reason": reason, "share_of_memory": float("inf")}
    used = program.memory(compiled)
    found = program.collectives(compiled.as_text())
    share = used.total / topology.chip.memory
    image = data.example_spec(config)["image"]
    input_bytes = int(np.prod(image.shape)) * image.dtype.itemsize
    flops = program.flops(compiled) or _counted_here(config, mesh.size)
    best, worst = _seconds(topology, mesh.size, flops, program.bytes_moved(compiled), found)
    hosts = max(1, mesh.size // topology.chip.devices_per_host)
    return about | {
        "fits": share <= 1.0,
        "reason": f"{used.total / 1e9:.1f} GB of {topology.chip.memory / 1e9:.0f} GB a device",
        "share_of_memory": share,
        "memory": used._asdict() | {"total": used.total},
        "collectives": [each._asdict() for each in found],
        "flops_per_example": flops * mesh.size / batch_size,
        "images_per_second": [batch_size / worst, batch_size / best],
        "input_bytes_per_second_and_host": [
            input_bytes * batch_size / seconds / hosts for seconds in (worst, best)
        ],
        "compile_seconds": time.perf_counter() - began,
    }


def lower(config: Any, mesh: Any) -> Any:
    """Returns the training step of the config, lowered for the mesh's devices."""
    stop = jax.ShapeDtypeStruct((mesh.size,), np.float32, sharding=sharding.batch_sharded(mesh))
    train_step: Any = step.make_train_step(config, data.example_spec(config), mesh)
    state = layouts.laid_out(_state(config), mesh)
    return train_step.lower(state, data.abstract_batch(config, mesh), stop)


def rows(plan: dict[str, Any], topology: topologies.Topology) -> dict[str, str]:
    """Returns the plan as names and texts."""
    shown = {"devices": f"{plan['devices']:,}", "parameters": f"{plan['parameters']:,}"}
    if not plan["fits"]:
        return shown | {"fits": f"no: {plan['reason']}"}
    memory = plan["memory"]
    parts = ("arguments", "results", "temporaries", "code")
    split = ", ".join(f"{name} {memory[name] / 2**20:,.1f}" for name in parts)
    shown["memory a device"] = f"{memory['total'] / 2**20:,.1f} MiB: {split}"
    if np.isfinite(topology.chip.memory):
        shown["share of it"] = f"{100 * plan['share_of_memory']:.1f} %"
    for number, each in enumerate(plan["collectives"], 1):
        where = ", in a loop" if each["in_loop"] else ""
        size = f"{each['elements']:,} {each['dtype']}, {each['bytes']:,} bytes"
        shown[f"collective {number}"] = f"{each['kind']} of {size}{where}"
    shown["GFLOP an example"] = f"{plan['flops_per_example'] / 1e9:.4g}"
    if topology.chip.flops:
        low, high = plan["images_per_second"]
        shown["images/s, compiled, not run"] = f"{low:,.0f} to {high:,.0f}"
        low, high = (rate / 1e6 for rate in plan["input_bytes_per_second_and_host"])
        shown["input a host"] = f"{low:,.0f} to {high:,.0f} MB/s"
    shown["compiled in"] = f"{plan['compile_seconds']:.1f} s"
    return shown


def _counted_here(config: Any, num_devices: int) -> float:
    """Returns one device's operations a step, counted in this machine's form of it.

    For compilers that don't say.
    """
    config = config.copy_and_resolve_references()
    config.batch_size //= num_devices
    here = sharding.make_mesh({"data": 1}, devices=jax.local_devices(backend="cpu")[:1])
    return float((lower(config, here).cost_analysis() or {}).get("flops", 0.0))


def _state(config: Any) -> Any:
    return step.abstract_state(config, data.example_spec(config))


def _seconds(
    topology: topologies.Topology,
    num_devices: int,
    flops: float,
    moved: float,
    found: list[program.Collective],
) -> tuple[float, float]:
    """Returns a step's shortest and longest time, s."""
    chip, slices = topology.chip, topology.num_slices
    if not chip.flops:
        return 1.0, 1.0
    exchanged = sum(each.bytes for each in found)
    # A ring: each device sends (and receives) twice its share of all others' parts.
    inside = num_devices // slices
    within = 2 * exchanged * (inside - 1) / inside / chip.link
    # Between slices each device exchanges its part of the slice's sum.
    between = 2 * exchanged / inside * (slices - 1) / slices / chip.network
    computing, moving = flops / chip.flops, moved / chip.bandwidth
    best = max(computing, moving, within, between, 1e-6)
    return best, max(3 * computing, 2 * moving) + within + between
