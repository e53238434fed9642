"""The settings of XLA that all tests share, and the processes that they start. Imports no JAX."""

from importlib import metadata

# Tests mostly compile, and this halves the time of that, while steps run nearly as fast. jax 0.11
# knows only the first of the two options, and ends at one that it doesn't know.
OPTIMIZATION = "--xla_backend_optimization_level=1"
if metadata.version("jaxlib").startswith("0.10."):
    OPTIMIZATION += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(num_devices):
    """Returns the value of XLA_FLAGS for a process with so many virtual devices."""
    return f"--xla_force_host_platform_device_count={num_devices} {OPTIMIZATION}"
