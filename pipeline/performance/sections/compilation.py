"""Tracing and compiling the step, with an empty compilation cache and with a filled one."""

import tempfile
import time
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from pipeline.performance.bench import Bench, compiled_step

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def measure(bench: Bench) -> dict[str, Any]:
    """Returns both times in seconds, each measured once: compiling has no steady state."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    seconds = []
    with tempfile.TemporaryDirectory(prefix="compiled-") as folder:
        try:
            # At 0 seconds every program is cached, also one that compiles quickly.
            for name, value in zip(NAMES, (folder, 0.0), strict=True):
                jax.config.update(name, value)
            for _ in range(2):
                compilation_cache.reset_cache()  # forgets what is in memory, but keeps the folder
                jax.clear_caches()
                began = time.perf_counter()
                compiled_step(bench)
                seconds.append(time.perf_counter() - began)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
    return {"cache empty, s": seconds[0], "cache filled, s": seconds[1]}
