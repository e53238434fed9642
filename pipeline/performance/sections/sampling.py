"""Sampling code after code: with the cache of earlier places, in turn with recomputation of all.

Each round draws the codes of 64 images on one device, without conditions. Nothing is decoded.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from pipeline import models
from pipeline.mesh import compiling
from pipeline.nn.autoregressive import code_sampling
from pipeline.performance import timing
from pipeline.performance.bench import Bench

IMAGES = 64


def measure(bench: Bench) -> dict[str, Any]:
    """Returns codes per second, and the time of recomputation over that with the cache.

    A network without a cache has only recomputation. {} for a model that doesn't draw codes.
    """
    config = bench.ready.config
    graphdef, init = models.make(config, bench.ready.example)
    model = nnx.merge(graphdef, *jax.eval_shape(init))
    if not hasattr(model, "sample_codes"):
        return {}
    forms = {"recomputed": code_sampling.recomputed}
    if hasattr(model.network, "cache"):
        forms["cached"] = code_sampling.cached
    # The time doesn't depend on the values of the parameters, so the first ones serve.
    given = *jax.jit(init)(), jax.random.split(jax.random.key(config.seed), IMAGES)
    draws = {name: _drawing(graphdef, form, given) for name, form in forms.items()}
    rounds = timing.in_turn(draws, rounds=bench.options.rounds)
    speed = {name: IMAGES * model.num_places / timing.median(each) for name, each in rounds.items()}
    figures: dict[str, Any] = {"by recomputation, codes/s": speed["recomputed"]}
    if "cached" not in speed:
        return figures
    return {
        "with the cache, codes/s": speed["cached"],
        **figures,
        "its time over that with the cache": timing.ratio(rounds, "recomputed", "cached"),
    }


def _drawing(graphdef: Any, form: Callable[..., jax.Array], given: Any) -> Callable[[], None]:
    """Returns a function that draws the codes of all images, and waits for them."""

    def draw(params: Any, stats: Any, keys: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params, stats).sample_codes(keys, draw=form)

    compiled = compiling.jit(draw)

    def run() -> None:
        jax.block_until_ready(compiled(*given))

    return run
