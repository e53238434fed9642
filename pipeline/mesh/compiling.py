"""How programs with networks in them are compiled.

The one decision: on CPUs XLA's own convolutions run, not YNNPACK's, which XLA takes by default. On
two x86 cores most layers take longer with those, value and gradients up to 4.6 times (jax 0.10.2)
and 2.7 times (0.11.2).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

# What YNNPACK may take over: matrix products one by one, and so no convolutions.
OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}


def jit(function: Callable, mesh: Mesh | None = None, **options: Any) -> Any:
    """Returns `jax.jit(function, **options)` with compiler options of the platform.

    JAX takes such options of the outermost program alone: don't call this inside another's trace.

    Args:
        function: what is compiled.
        mesh: where it runs; None: on JAX's default devices.
        options: of `jax.jit`.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return jax.jit(function, compiler_options=OPTIONS.get(platform), **options)
