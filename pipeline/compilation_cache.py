"""JAX's persistent compilation cache, on by default: a resumed run need not compile again.

The decision: on CPUs every kind of processor has a folder of its own, for compiled programs hold
its instructions, and homes are shared.
"""

import os
from pathlib import Path
from typing import Any

from pipeline import errors, user_cache

LEAST_SECONDS = 0.2  # of compiling: what takes less is compiled again


def enable(folder: str) -> None:
    """Turns the cache on, before anything is compiled.

    Args:
        folder: one that all processes share (only process 0 writes); "auto": as the environment
            (JAX_COMPILATION_CACHE_DIR) says, else in the user's cache folder; "": no cache.

    Raises:
        InputError: the folder can't be made.
    """
    import jax

    if not folder:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        if jax.config.values["jax_compilation_cache_dir"]:
            return
        place = user_cache.folder() / "compiled"
    else:
        place = Path(folder).expanduser().absolute()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.InputError(
                f"config.compilation_cache={folder} cannot be made ({error.strerror}): choose "
                "another folder, or '' for none"
            ) from None
    settings: dict[str, Any] = {
        "jax_compilation_cache_dir": str(place / _processor()),
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
        "jax_raise_persistent_cache_errors": False,  # a full disk costs time and no run
    }
    for name, value in settings.items():
        jax.config.update(name, value)


def _processor() -> str:
    """Returns a name for this machine's kind of processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    traits = sorted(
        {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    )
    return f"{os.uname().machine}-{user_cache.key(*traits)[:8]}"
