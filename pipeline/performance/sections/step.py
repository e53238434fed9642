"""The bare step, on one batch that is on the devices already."""

import resource
from typing import Any

import jax
from jax.sharding import Mesh

from pipeline.performance import timing
from pipeline.performance.bench import Bench, compiled_step, stepper
from pipeline.performance.sections import machine


def measure(bench: Bench) -> dict[str, Any]:
    """Returns speed, memory, and shares of the device's limits.

    The roofline is the longer of two times: the step's operations at the rate of a large matrix
    product, and its bytes at the rate of a large copy. The compiler counts both.
    """
    compiled = compiled_step(bench)
    run, num = stepper(bench, compiled)
    if bench.options.profile:
        with jax.profiler.trace(bench.options.profile):
            run()
    rounds = timing.in_turn({"step": run}, rounds=bench.options.rounds)
    seconds = timing.median(rounds["step"]) / num
    figures: dict[str, Any] = {
        "images/s": bench.ready.config.batch_size / seconds,
        "ms a step": 1000 * seconds,
        "peak memory, MiB": _peak_memory(bench.ready.mesh) / 2**20,
    }
    # Some backends count neither operations nor bytes.
    costs = compiled.cost_analysis() or {}
    if flops := costs.get("flops", 0.0):
        peak = machine.peak(bench.ready.mesh.devices.flat[0], bench.ready.config.compute_dtype)
        moved = costs.get("bytes accessed", 0.0)
        figures |= {
            "GFLOP a step and device": flops / 1e9,
            "GB a step and device": moved / 1e9,
            "share of the matrix product's rate": flops / seconds / peak.flops,
            "share of the roofline": max(flops / peak.flops, moved / peak.bytes) / seconds,
        }
    return figures


def _peak_memory(mesh: Mesh) -> float:
    """Returns bytes: those of the fullest device if devices report them, else the process's."""
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    used = max(stat.get("peak_bytes_in_use", 0) for stat in stats)
    return used or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
