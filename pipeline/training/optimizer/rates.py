"""The learning rate at a step: a warm-up, then constant or a cosine."""

import math
from typing import Any

import optax

from pipeline.runtime import errors, registry
from pipeline.training.optimizer import parts


def learning_rate(config: Any) -> optax.Schedule:
    """Returns the learning rate at a step: linear warm-up from 0, then constant or cosine to 0.

    A run's `decay_steps` stay as they were at its first start. So a resumed run can be prolonged
    without a change to the schedule that it followed.

    Args:
        config: the section `optimizer`.

    Raises:
        InputError: the schedule is unknown, or a rate or a length is out of its range.
    """
    if not (math.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise errors.InputError(
            f"config.optimizer.learning_rate={config.learning_rate} must be positive"
        )
    parts.check(config)
    errors.check_not_negative("config.optimizer.warmup_steps", config.warmup_steps)
    registry.check(config.schedule, ("constant", "cosine"), field="optimizer.schedule")
    after = optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        if config.decay_steps <= config.warmup_steps:
            raise errors.InputError(
                f"config.optimizer.decay_steps={config.decay_steps} must be above warmup_steps="
                f"{config.warmup_steps} for schedule='cosine': set the step at which the rate is 0"
            )
        after = optax.cosine_decay_schedule(
            config.learning_rate, config.decay_steps - config.warmup_steps
        )
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def describe(config: Any, total_steps: int) -> str:
    """Returns a text about the learning rate: its highest value, and where its changes end."""
    warmup = f"after a warm-up to step {config.warmup_steps:,}" if config.warmup_steps else ""
    own = "".join(f", {name}'s {rate:g}" for name, rate in parts.own_rates(config).items())
    if config.schedule == "constant":
        return f"constant at {config.learning_rate:g}{own} {warmup}".strip()
    text = f"{config.schedule} from {config.learning_rate:g}{own} {warmup}".strip()
    return f"{text} to 0, ends at step {config.decay_steps:,} of {total_steps:,}"
