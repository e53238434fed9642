"""The range of every number of a config: what lies outside it is refused before anything is built.

`table` has the ranges. The modules that own the fields check what depends on other values too.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

from pipeline.runtime import errors
from pipeline.runtime.ranges.table import MOST_SEED, OWNED_FLOAT, RANGES, Range

# JAX and NumPy take a seed modulo 2³², so a larger one would repeat the run of a smaller one.
MOST_NEW_SEED = 2**32 - 1
# Tuples of names; those of the config that are not named here hold whole numbers.
NAMES: tuple[str, ...] = ("evals", "model.conditions", "image_quality.lpips")
NAMES += ("disentanglement.metrics", "disentanglement.chen_excludes")
# Fields that hold a whole number or a pair of them, so ml_collections cannot check their type.
PAIRS = ("data.image_size",)
# An evaluation of a saved run reads none of these, so it does not fail for them.
TRAINING = (
    *("optimizer.", "guard.", "checkpoint.", "grace_seconds", "watchdog_seconds", "total_steps"),
    *("log_every_steps", "look_every_steps", "steps_per_dispatch", "eval_every_steps"),
)


def check(flat: dict[str, Any]) -> None:
    """Raises an InputError if a number of a flat config is out of its range.

    A number without a range must be finite and have at most 64 bits.
    """
    for field, value in flat.items():
        given = tuple(value) if isinstance(value, list) else value
        if field in PAIRS:
            _check_pair(field, given)
        for number in _numbers(field, given):
            if text := _fault(number, RANGES.get(field, OWNED_FLOAT)):
                raise errors.InputError(f"config.{field}={given} {text}")


def check_new_seed(seed: int) -> None:
    """Raises an InputError if a new run's seed would fall together with a smaller one."""
    if seed > MOST_NEW_SEED:
        raise errors.InputError(
            f"config.seed={seed} must be at most {MOST_NEW_SEED}: it would repeat the run of the "
            f"seed {seed % 2**32}"
        )


def _check_pair(field: str, given: Any) -> None:
    sides = given if isinstance(given, tuple) else (given, given)
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise errors.InputError(
            f"config.{field}={given} must be a whole number, or two for height and width, such as "
            "64,96"
        )


def _numbers(field: str, given: Any) -> Iterator[float]:
    """Yields the numbers of a field.

    Raises:
        InputError: a tuple of the config holds something of another type.
    """
    if isinstance(given, tuple):
        if field in NAMES and not all(isinstance(one, str) for one in given):
            raise errors.InputError(f"config.{field}={given} must hold names, such as ('a', 'b')")
        if field in RANGES and not all(type(one) is int for one in given):
            raise errors.InputError(f"config.{field}={given} must hold whole numbers")
    for one in given if isinstance(given, tuple) else (given,):
        if isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def _fault(number: float, allowed: Range) -> str:
    """Returns what is wrong with a number, or ""."""
    if isinstance(number, float) and not math.isfinite(number):
        if number == math.inf and not allowed.below_one:
            return allowed.infinite or f"must be finite, at most {allowed.most:g}"
        return allowed.says
    least = allowed.least
    if least is not None and (number < least or (allowed.above and number == least)):
        return allowed.says
    if allowed.below_one and (number >= 1 or struct.unpack("f", struct.pack("f", number))[0] >= 1):
        return allowed.says
    # JAX takes no integer of more than 64 bits, also not in place of a float.
    most = min(allowed.most, MOST_SEED) if isinstance(number, int) else allowed.most
    if abs(number) <= most:
        return ""
    # Negative numbers have a limit too, in the fields whose owner knows the least.
    return f"must be at most {most}" if number > 0 else f"must be at least {-most}"
