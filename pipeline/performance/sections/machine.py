"""The limits of the device, measured: one large matrix product, and one large copy."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pipeline.performance import timing
from pipeline.performance.bench import Bench

ROUNDS = 5


class Peak(NamedTuple):
    """Measured limits of one device."""

    flops: float  # floating-point operations per second in a square matrix product
    bytes: float  # bytes per second that a copy reads and writes, both counted


def measure(bench: Bench) -> dict[str, Any]:
    """Returns the name of the devices, and the limits of one of them."""
    device, dtype = bench.ready.mesh.devices.flat[0], bench.ready.config.compute_dtype
    limits = peak(device, dtype)
    return {
        "devices": f"{bench.ready.mesh.size} × {device.device_kind}",
        "jax": jax.__version__,
        f"matrix product of {dtype}, GFLOP/s a device": limits.flops / 1e9,
        "copy, GB/s a device": limits.bytes / 1e9,
    }


@functools.cache
def peak(device: jax.Device, dtype: str) -> Peak:
    """Measures both limits once per process; inputs are of `dtype`, sums float32.

    The fastest round counts, because a limit is what the device can do without other load.
    """
    on_cpu = device.platform == "cpu"
    size, length, repeats = (2048, 2**26, 1) if on_cpu else (8192, 2**29, 20)
    with jax.default_device(device):
        matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
        vector = jnp.zeros(length, jnp.float32)
    multiply = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
    copy = jax.jit(lambda a: a + 1.0)

    def run(function: Any, argument: jax.Array) -> None:
        for _ in range(repeats):
            result = function(argument)
        jax.block_until_ready(result)

    seconds = timing.in_turn(
        {"multiply": lambda: run(multiply, matrix), "copy": lambda: run(copy, vector)},
        rounds=ROUNDS,
    )
    return Peak(
        flops=repeats * 2.0 * size**3 / min(seconds["multiply"]),
        bytes=repeats * 2.0 * vector.nbytes / min(seconds["copy"]),
    )
