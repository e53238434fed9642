"""Schedules: pure functions of the checkpointed step, with explicit start, end and steps.

In a config, 0 steps mean the length of the run at its first start; `run_config.settled` puts that
number there. A plain number in place of the section is a constant.

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
        section: the section, for example `config.model.beta`; or a number, which is constant.
        field: its name in error messages, for example "model.beta".

    Raises:
        InputError: the shape is unknown; `steps` is below 1, which would make a ramp that silently
            does nothing; or a value is negative or not finite.
    """
    if isinstance(section, int | float):
        _check_value(f"config.{field}", section)
        return lambda step: constant(step, start=section, end=section, steps=0)
    if not hasattr(section, "schedule"):
        raise errors.InputError(
            f"config.{field}={section!r} must be a number, or have schedule, start, end and steps"
        )
    shape = registry.choose(SHAPES, section.schedule, field=f"{field}.schedule")
    _check_value(f"config.{field}.end", section.end)
    start, end, steps = section.end, section.end, 0
    if section.schedule != "constant":  # which reads no more than its end
        start, steps = section.start, section.steps
        _check_value(f"config.{field}.start", start)
        errors.check_range(
            f"config.{field}.steps",
            steps,
            1,
            hint=f" for a {section.schedule} schedule, or 0 for the length of the run; use "
            "schedule=constant for a value without a ramp",
        )
    return lambda step: shape(step, start=start, end=end, steps=steps)


def describe(section: Any, total_steps: int) -> str:
    """Returns a text about a section that `make` accepts: its values, and where it ends."""
    if isinstance(section, int | float):
        return f"constant at {section:g}"
    if section.schedule == "constant":
        return f"constant at {section.end:g}"
    text = f"{section.schedule} from {section.start:g} to {section.end:g}"
    if section.schedule == "cyclical":
        return f"{text} in cycles of {section.steps:,} steps"
    return f"{text}, ends at step {section.steps:,} of {total_steps:,}"


def _check_value(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise errors.InputError(f"{name}={value} must be finite and not negative")


def _progress(step: Array | int, steps: int) -> Array:
    return jnp.clip(jnp.asarray(step) / steps, 0.0, 1.0)
