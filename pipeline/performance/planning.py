"""Plans a step for a topology: compiles it ahead of time, and says what it needs there."""

import re
import time
from typing import Any

import jax
import numpy as np

from pipeline.mesh import layouts, sharding
from pipeline.performance import flops, hlo, roofline, topologies
from pipeline.runtime import errors
from pipeline.training import batching, dispatch, setup

# Makes the TPU compiler search less: the option's name in jax 0.10, and its name in 0.11.
QUICK = {"jax_exec_time_optimization_effort": -1.0, "jax_optimization_level": "O1"}
INDEX_BYTES = 4  # what a host sends for a resident example


def set_effort(effort: str, topology: topologies.Topology) -> None:
    """Makes the TPU compiler search less if `effort` is quick: 1/20 the time, same collectives."""
    if effort == "quick" and topology.chip.platform == "tpu":
        name = next(name for name in QUICK if hasattr(jax.config, name))
        jax.config.update(name, QUICK[name])


def sweep(text: str, config: Any, topology: topologies.Topology) -> list[int]:
    """Returns the global batch sizes to plan, in ascending order.

    Args:
        text: `batch=N,N,…` in examples per device; empty: only the config's own batch size.
        config: has the `batch_size` for an empty text.
        topology: its number of devices turns examples per device into a global batch.

    Raises:
        InputError: the text has another form.
    """
    if not text:
        return [config.batch_size]
    if not re.fullmatch(r"batch=\d+(,\d+)*", text):
        raise errors.InputError(f"--sweep={text} has another form: write batch=64,128,256")
    sizes = sorted({int(size) for size in text.partition("=")[2].split(",")})
    return [size * len(topology.devices) for size in sizes]


def prepare(config: Any, topology: topologies.Topology, batch_size: int) -> setup.Setup:
    """Returns the config with a global batch of `batch_size`, prepared for absent devices.

    Raises:
        InputError: a value in the config cannot work on so many devices.
    """
    config = config.copy_and_resolve_references().unlock()
    config.batch_size = batch_size
    return setup.prepare(config.lock(), devices=topology.devices, open_data=False)


def plan(ready: setup.Setup, topology: topologies.Topology) -> dict[str, Any]:
    """Compiles the training step, and returns its plan as values that JSON can hold.

    If the compiler itself runs out of memory for the step, the plan has only `fits` and `reason`.
    """
    # Tracing needs no compiler, so these facts also describe a step that doesn't fit.
    batch_size, num, mesh = ready.config.batch_size, ready.config.replicas, ready.mesh
    began = time.perf_counter()
    traced = trace(ready)
    about = {
        "topology": topology.name,
        "devices": mesh.size,
        "batch_size": batch_size,
        "replicas": num,
        "parameters": sum(x.size for x in jax.tree.leaves(ready.abstract.params)) // num,
    }
    # The TPU compiler refuses a program that is too large, and its message names the sizes.
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        return about | {"fits": False, "reason": reason}
    # Operations are counted before compiling, all else after it.
    used, text = hlo.memory(compiled), compiled.as_text()
    found = hlo.collectives(text)
    counted = flops.count(traced.jaxpr, topology.chip.platform)
    speed = roofline.of(
        topology,
        flops=counted,
        moved=hlo.bytes_moved(compiled),
        operations=hlo.operations(text),
        collectives=found,
    )
    # What each host must send to its devices, in bytes a second at either end of the range.
    example_bytes, held = batching.example_bytes(ready.config), {}
    resident = ready.config.data.resident
    if resident and ready.splits is not None:
        held = {"examples": len(ready.splits.train) * example_bytes}
    total = used.total + sum(held.values())
    input_bytes = INDEX_BYTES if resident else example_bytes
    hosts = len({device.process_index for device in topology.devices})
    inside, beyond = roofline.sent(topology, found)
    trained = batch_size * num  # every replica trains on the whole batch
    rates = {
        "images_per_second": [trained / speed.worst, trained / speed.best],
        "efficiency": [speed.least_efficiency, speed.most_efficiency],
        "input_bytes_per_second_and_host": [
            input_bytes * batch_size / seconds / hosts for seconds in (speed.worst, speed.best)
        ],
    }
    limit = topology.chip.memory
    known = f" of {limit / 1e9:.0f} GB" if np.isfinite(limit) else ""
    return about | {
        "fits": total <= limit,
        "reason": f"{total / 1e9:.1f} GB{known} a device",
        "share_of_memory": total / limit,
        "memory": used._asdict() | held | {"total": total},
        "uncounted_bytes_per_example": example_bytes if resident and not held else 0,
        "collectives": [each._asdict() for each in found],
        "sent_bytes": {"inside": inside, "beyond": beyond},
        "flops_per_example": sum(counted.values()) * mesh.size / trained,
        # Only chips whose peaks are known have a speed.
        **(rates if topology.chip.bfloat16 else dict.fromkeys(rates)),
        "compile_seconds": time.perf_counter() - began,
    }


def trace(ready: setup.Setup) -> Any:
    """Returns the single step of `dispatch`, traced for the mesh's devices from shapes only."""
    config, mesh = ready.config, ready.mesh
    stop = jax.ShapeDtypeStruct((mesh.size,), np.float32, sharding=sharding.batch_sharded(mesh))
    take_steps = dispatch.Dispatcher(config, ready.example, mesh)
    arrays = take_steps.arrays(layouts.laid_out(ready.abstract, mesh))
    return take_steps.trace(arrays, batching.abstract_batch(config, mesh), stop)


def rows(plan: dict[str, Any], topology: topologies.Topology) -> dict[str, str]:
    """Returns the plan as {name: text}, for the terminal."""
    shown = {"devices": f"{plan['devices']:,}", "parameters": f"{plan['parameters']:,}"}
    if plan["replicas"] > 1:
        counted = ", all of which count in images/s" if topology.chip.bfloat16 else ""
        shown["replicas"] = f"{plan['replicas']:,}{counted}"
    if not plan["fits"]:
        shown["fits"] = f"no: {plan['reason']}"
    if "memory" not in plan:
        return shown
    # Bytes on one device.
    memory = plan["memory"]
    parts = [part for part in memory if part != "total"]
    split = ", ".join(f"{name} {memory[name] / 2**20:,.1f}" for name in parts)
    shown["memory a device"] = f"{memory['total'] / 2**20:,.1f} MiB: {split}"
    if uncounted := plan["uncounted_bytes_per_example"]:
        shown["resident examples"] = f"not counted: {uncounted:,} bytes each, on every device"
    if np.isfinite(topology.chip.memory):
        shown["share of it"] = f"{100 * plan['share_of_memory']:.1f} %"
    # What the devices exchange in a step.
    for number, each in enumerate(plan["collectives"], 1):
        where = ", in a loop" if each["in_loop"] else ""
        size = f"{each['elements']:,} {each['dtype']}, {each['bytes']:,} bytes"
        shown[f"collective {number}"] = f"{each['kind']} of {size}{where}"
    if topology.num_parts > 1:
        what = "slices" if topology.chip.platform == "tpu" else "hosts"
        shown[f"sent between {what}"] = f"{plan['sent_bytes']['beyond']:,.0f} bytes a device"
    # Speeds exist only for chips whose peaks are known.
    shown["GFLOP an example"] = f"{plan['flops_per_example'] / 1e9:.4g}"
    if topology.chip.bfloat16:
        low, high = plan["images_per_second"]
        shown["images/s, compiled, not run"] = f"{low:,.0f} to {high:,.0f}"
        low, high = (100 * share for share in plan["efficiency"])
        shown["efficiency"] = f"{low:.0f} to {high:.0f} % of a single device"
        low, high = (rate / 1e6 for rate in plan["input_bytes_per_second_and_host"])
        shown["input a host"] = f"{low:,.0f} to {high:,.0f} MB/s"
    shown["compiled in"] = f"{plan['compile_seconds']:.1f} s"
    return shown
