"""JAX's devices, or one line that says why there are none."""

import os
from typing import Any

from pipeline.runtime import errors

# What the runtime says if the device, or another process, may be there later.
PASSING = ("ABORTED", "ALREADY_EXISTS", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE")


def devices() -> list[Any]:
    """Returns the devices of all processes, and starts JAX's backends if nothing has yet.

    Raises:
        InputError: the backend that JAX_PLATFORMS names cannot start here.
        OSError: a backend failed in a way that may pass, such as a device in use.
    """
    import jax

    try:
        return list(jax.devices())
    # A plugin that finds no device leaves JAX without a backend, which an assertion notices.
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()).removesuffix(
            " (set JAX_PLATFORMS='' to automatically choose an available backend)"
        )
        asked = getattr(jax.config, "jax_platforms", None) or os.environ.get("JAX_PLATFORMS", "")
        text = f"JAX_PLATFORMS={asked!r} starts no device here ({reason or 'none was found'})"
        if any(word in reason for word in PASSING):
            raise OSError(text) from error
        raise errors.InputError(
            f"{text}: see to the device and JAX's plugin for it, or choose another, such as "
            "JAX_PLATFORMS=cpu"
        ) from None
