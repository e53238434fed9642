"""The range of every number of a config.

A test demands a range for each number in configs/default.py. A new variant may check its own
numbers itself: without a range here they must only be finite.
"""

from typing import NamedTuple

MOST_STEPS = 2**31 - 1  # steps, sizes and counts are int32 on the devices
MOST_FLOAT = 3.4028234663852886e38  # of float32
MOST_SECONDS = 1e9  # 31 years; the system's timers end at some multiple of it
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
    "data.seed": Range("must not be negative; -1 is the run's seed", -1, MOST_SEED),
    **dict.fromkeys(("grace_seconds", "watchdog_seconds"), SECONDS),
    **dict.fromkeys(
        (
            *("total_steps", "log_every_steps", "look_every_steps", "steps_per_dispatch"),
            *("eval_every_steps", "batch_size", "accumulation_steps", "replicas"),
            *("checkpoint.every_steps", "checkpoint.keep_newest"),
            *("data.num_threads", "data.prefetch_batches", "data.image_size"),
            *(
                "model.hidden",
                "model.discriminator.hidden",
                "model.adversarial.channels",
                "model.adversarial.num_layers",
                "model.adversarial.r1_every_steps",
                "model.latent_dim",
                "model.embedding_dim",
                "model.channels",
            ),
            *("model.channel_multipliers", "model.blocks_per_level", "model.width"),
            "model.attention_resolutions",
            *("model.num_layers", "model.num_heads", "model.kernel_size"),
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
            "disentanglement.num_images",
            *("data.resize", "data.max_corrupt_files", "guard.max_rollbacks"),
            *("checkpoint.keep_best", "checkpoint.keep_every_steps", "model.sampling.top_k"),
            *("image_quality.num_examples", "model.num_examples"),
            *("model.adversarial.start_step", "model.adversarial.warmup_steps"),
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
        (
            *(f"model.{name}.{end}" for name in ("beta", "capacity") for end in ("start", "end")),
            *("model.sampling.temperature", "model.sampling.guidance"),
        ),
        SCHEDULED,
    ),
    **dict.fromkeys(("model.sigma", "optimizer.learning_rate"), POSITIVE),
    **dict.fromkeys(
        (
            *("model.alpha", "model.lambda_od", "model.lambda_d", "model.lambda_mmd"),
            "model.adversarial.regularization_weight",
        ),
        AMOUNT,
    ),
    "model.gamma": AMOUNT._replace(infinite="must not be negative"),
    **dict.fromkeys(
        ("model.label_dropout", "model.dropout", "optimizer.ema_decay"), SWITCHED_SHARE
    ),
    "model.sampling.top_p": Range("must lie in (0, 1]", 0, 1, above=True),
    **dict.fromkeys(("optimizer.b1", "optimizer.b2"), SHARE),
    **dict.fromkeys(
        (
            *("optimizer.weight_decay", "optimizer.clip_norm"),
            "optimizer.own_rates.discriminator",
            *("model.perceptual.weight", "model.adversarial.weight"),
        ),
        SWITCH,
    ),
    **dict.fromkeys(("optimizer.eps", "data.variance", "guard.leap_sigmas"), AMOUNT),
    "data.augment.min_area": Range("must lie in [0.01, 1]; 1 switches crops off", 0.01, 1),
    "data.augment.max_aspect": _at_least(1, MOST_FLOAT),
    "traversals.range": Range("must be above 0", 0, MOST_FLOAT, above=True),
}
