"""The settings of XLA for all tests and the processes that they start. It imports no JAX."""

from importlib import metadata

# Tests spend most of their time compiling. These options halve it, and steps run nearly as fast.
# With level 0, sums in a fixed order lose their bits. jax 0.11 does not know the last option, and
# fails at one that it doesn't know.
OPTIMIZATION = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
if metadata.version("jaxlib").startswith("0.10."):
    OPTIMIZATION += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(num_devices):
    """Returns the value of XLA_FLAGS for a process with that many virtual devices."""
    return f"--xla_force_host_platform_device_count={num_devices} {OPTIMIZATION}"
