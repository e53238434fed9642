"""Schedules: pure functions of the checkpointed step, with explicit start, end and steps.

A schedule holds no state, so a run that resumes at step k continues with the value of step k.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from pipeline.runtime import errors, registry

Schedule = Callable[[Array | int], Array]


def constant(step: Array | int, *, start: float, end: float, steps: int) -> Array:
    """Returns `end` at every step, [] float32; ignores `start` and `steps`."""
    del step, start, steps
    return jnp.float32(end)


def linear(step: Array | int, *, start: float, end: float, steps: int) -> Array:
    """Goes linearly from `start` at step 0 to `end` at step `steps`, and stays there."""
    return start + (end - start) * _progress(step, steps)


def cosine(step: Array | int, *, start: float, end: float, steps: int) -> Array:
    """Goes from `start` to `end` along half a cosine over `steps` steps, and stays there."""
    return start + (end - start) * 0.5 * (1.0 - jnp.cos(math.pi * _progress(step, steps)))


def cyclical(step: Array | int, *, start: float, end: float, steps: int) -> Array:
    """Repeats cycles of `steps` steps: linear from `start` to `end` in the first half, then `end`.

    Fu et al. 2019 (arXiv:1903.10145), eq. 6–7 with R = ½. The number of cycles is the length of
    the run divided by `steps`.
    """
    return start + (end - start) * jnp.minimum(1.0, 2.0 * ((step % steps) / steps))


SHAPES = {"constant": constant, "linear": linear, "cosine": cosine, "cyclical": cyclical}


def make(section: Any, *, field: str) -> Schedule:
    """Returns the schedule of a config section with `schedule`, `start`, `end` and `steps`.

    Args:
        section: the section, for example `config.model.beta`.
        field: its name in error messages, for example "model.beta".

    Raises:
        InputError: the shape is unknown; `steps` is below 1, which would make a ramp that silently
            does nothing; or a value is negative or not finite.
    """
    shape = registry.choose(SHAPES, section.schedule, field=f"{field}.schedule")
    if section.schedule != "constant":
        errors.check_range(
            f"config.{field}.steps",
            section.steps,
            1,
            hint=f" for a {section.schedule} schedule; use schedule=constant for a value without a "
            "ramp",
        )
    for name in ("start", "end"):
        if not (math.isfinite(section[name]) and section[name] >= 0):
            raise errors.InputError(
                f"config.{field}.{name}={section[name]} must be finite and not negative"
            )
    start, end, steps = section.start, section.end, section.steps
    return lambda step: shape(step, start=start, end=end, steps=steps)


def _progress(step: Array | int, steps: int) -> Array:
    return jnp.clip(jnp.asarray(step) / steps, 0.0, 1.0)
