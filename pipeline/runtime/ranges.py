"""The range of every number of a config: what lies outside it is refused before anything is built.

The modules that own the fields check what depends on other values too. A test demands a range for
each number in configs/default.py. A new variant may check its own numbers itself: without a range
here they must only be finite.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline.runtime import errors

MOST_STEPS = 2**31 - 1  # steps, sizes and counts are int32 on the devices
MOST_FLOAT = 3.4028234663852886e38  # of float32
MOST_SECONDS = 1e9  # 31 years; the system's timers end at some multiple of it
# JAX and NumPy take a seed modulo 2³², so a larger one would repeat the run of a smaller one.
MOST_NEW_SEED = 2**32 - 1
MOST_SEED = 2**63 - 1  # saved runs may have such a seed, and still mean the same by it


class Range(NamedTuple):
    """The values that a number may have."""

    says: str  # of a value that is too small or NaN: the end of the error's line
    least: float | None = None  # None: the module that owns the field checks it
    most: float = MOST_STEPS
    above: bool = False  # whether `least` itself is excluded
    below_one: bool = False  # whether the value must lie below 1, also in float32
    infinite: str = ""  # what an infinity is told, if it is not `most`


def _at_least(least: int, most: float = MOST_STEPS) -> Range:
    return Range(f"must be at least {least}", least, most)


OWNED = Range("must be finite")
OWNED_FLOAT = OWNED._replace(most=MOST_FLOAT)
COUNT = Range("must not be negative", 0)
SECONDS = COUNT._replace(most=MOST_SECONDS)
AMOUNT = COUNT._replace(most=MOST_FLOAT)
POSITIVE = Range("must be positive", 0, MOST_FLOAT, above=True, infinite="must be positive")
SWITCH = AMOUNT._replace(says="must not be negative; 0 switches it off")
SHARE = Range("must lie in [0, 1)", 0, 1, below_one=True)
SWITCHED_SHARE = SHARE._replace(says="must lie in [0, 1); 0 switches it off")
SCHEDULED = AMOUNT._replace(
    says="must be finite and not negative", infinite="must be finite and not negative"
)

RANGES = {
    "seed": COUNT._replace(most=MOST_SEED),
    **dict.fromkeys(("grace_seconds", "watchdog_seconds"), SECONDS),
    **dict.fromkeys(
        (
            *("total_steps", "log_every_steps", "look_every_steps", "steps_per_dispatch"),
            *("eval_every_steps", "batch_size", "accumulation_steps"),
            *("checkpoint.every_steps", "checkpoint.keep_newest"),
            *("data.num_threads", "data.prefetch_batches", "data.image_size"),
            *("model.hidden", "model.latent_dim", "model.embedding_dim", "model.channels"),
            *("model.channel_multipliers", "model.blocks_per_level"),
            *("model.quantizer.num_codes", "model.quantizer.candidates"),
            *("model.quantizer.num_quantizers", "model.quantizer.entropy_bits"),
            *("importance_weighted.num_samples", "importance_weighted.chunk", "traversals.num"),
            *("interpolations.pairs", "conditions_grid.columns", "conditions_grid.rows"),
            *("code_maps.num", "image_quality.rows"),
        ),
        _at_least(1),
    ),
    **dict.fromkeys(("traversals.steps", "interpolations.steps"), _at_least(2)),
    **dict.fromkeys(
        (
            *("eval_examples", "eval_batch_size", "disentanglement.num_examples"),
            *("data.resize", "data.max_corrupt_files", "guard.max_rollbacks"),
            *("image_quality.num_examples", "checkpoint.keep_best", "checkpoint.keep_every_steps"),
        ),
        COUNT,
    ),
    "optimizer.warmup_steps": Range("must not be negative; -1 is a fiftieth of the run", -1),
    "deterministic_shards": SWITCH._replace(most=MOST_STEPS),
    "model.quantizer.levels": Range("must hold numbers from 2 on", 2),
    **dict.fromkeys(
        ("model.quantizer.restart_steps", "model.quantizer.chunk", "traversals.latents"),
        _at_least(0),
    ),
    **dict.fromkeys(
        (
            *("model.quantizer.restart_usage", "model.quantizer.commitment"),
            *("model.quantizer.entropy_weight", "model.quantizer.diversity"),
        ),
        _at_least(0, MOST_FLOAT),
    ),
    **dict.fromkeys(
        (
            *("mesh.data", "mesh.fsdp", "model.downsampling", "optimizer.decay_steps"),
            *("data.channels", "data.heldout_examples", "data.train_examples"),
            *("model.beta.steps", "model.capacity.steps", "traversals.examples"),
        ),
        OWNED,
    ),
    **dict.fromkeys(
        (
            *("data.low", "data.high", "model.quantizer.decay", "model.quantizer.epsilon"),
            "model.quantizer.temperature",
        ),
        OWNED_FLOAT,
    ),
    **dict.fromkeys(
        (f"model.{name}.{end}" for name in ("beta", "capacity") for end in ("start", "end")),
        SCHEDULED,
    ),
    "model.sigma": POSITIVE,
    "model.gamma": AMOUNT._replace(infinite="must not be negative"),
    "model.label_dropout": SWITCHED_SHARE,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.b1": SHARE,
    "optimizer.b2": SHARE,
    "optimizer.ema_decay": SWITCHED_SHARE,
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.clip_norm"), SWITCH),
    **dict.fromkeys(("optimizer.eps", "data.variance", "guard.leap_sigmas"), AMOUNT),
    "traversals.range": Range("must be above 0", 0, MOST_FLOAT, above=True),
}
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
