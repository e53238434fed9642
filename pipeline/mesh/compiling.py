"""How programs that contain networks are compiled.

On CPUs they use XLA's own convolutions instead of YNNPACK's, which are XLA's default. On two x86
cores most layers are slower with YNNPACK's: value and gradients take up to 4.6 times as long
(jax 0.10.2) and 2.7 times (0.11.2).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

# YNNPACK may take over only single matrix products, and so no convolutions.
OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}}


def jit(function: Callable, mesh: Mesh | None = None, **options: Any) -> Any:
    """Returns `jax.jit(function, **options)` with compiler options for the platform.

    JAX accepts such options only for the outermost program: do not call this inside a trace.

    Args:
        function: the function to compile.
        mesh: the devices on which it runs; None: JAX's default devices.
        options: of `jax.jit`.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return jax.jit(function, compiler_options=OPTIONS.get(platform), **options)
