"""What decides the result of a command, apart from its data: flags, config, code, devices."""

import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime import backends, command_line, flags, run_config

# A host may keep its copy of the data elsewhere, and read it with more threads. Neither changes the
# examples: the data's own fingerprint is compared.
FIELDS_OF_HOSTS = (
    "data.path",
    "data.num_threads",
    "data.prefetch_batches",
    "compilation_cache",
    "grace_seconds",
    "watchdog_seconds",
)
FLAGS_OF_HOSTS = (*flags.Processes._fields, "workdir", "out", "json", "profile")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
JAX_OPTIONS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


def of(arguments: Sequence[str], config: Any = None) -> dict[str, Any]:
    """Returns the traits of this process by name.

    Args:
        arguments: `sys.argv`.
        config: of a run that trains; None for other commands, which read that of the run.

    Raises:
        InputError: the backend cannot start.
    """
    import jax

    found: dict[str, Any] = {f"--{name}": value for name, value in _given(arguments).items()}
    fields = {} if config is None else run_config.flatten(config)
    found |= {
        f"config.{field}": value for field, value in fields.items() if field not in FIELDS_OF_HOSTS
    }
    found["Python"] = ".".join(platform.python_version_tuple()[:2])
    found |= {package: _version(package) for package in PACKAGES}
    found["the code of pipeline"] = digest(Path(__file__).parents[2])
    outside = [fields.get("model.name", ""), fields.get("data.name", ""), *fields.get("evals", ())]
    found |= {f"the code of {name}": _code(name) for name in outside if "." in name}
    found |= {option.upper(): getattr(jax.config, option, None) for option in JAX_OPTIONS}
    backends.devices()
    devices = jax.local_devices()
    found["the number of devices"] = len(devices)
    found["the kind of devices"] = ", ".join(sorted({device.device_kind for device in devices}))
    return found


def _given(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the flags that decide a result; the config's fields are compared as values."""
    names = {text.lstrip("-").partition("=")[0] for text in arguments[1:] if text.startswith("-")}
    return {
        name: value
        for name, value in command_line.assigned(arguments[1:])
        if name in names - set(FLAGS_OF_HOSTS) and name.partition(".")[0] != "config"
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _code(module: str) -> str:
    """Returns the digest of a module from outside this package; "missing" if there is none."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    return "missing" if found is None or not found.origin else digest(Path(found.origin))


def digest(path: Path) -> str:
    """Returns 12 hexadecimal digits of the Python files in the folder, or of the file."""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        found.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:12]
