"""Model variants: one file each, with its whole equation; `config.model.name` is its name.

A name with a dot is a module from outside this package, `my_package.my_model`; the README of this
folder has an example. Here is what each defines, and how the config's is built. A model says what
to add up, for one shard of the batch, and knows nothing of meshes; `training.step` adds it up once.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from flax import nnx
from jax import Array

from pipeline.nn import streams
from pipeline.nn.metrics import Metrics
from pipeline.runtime import registry, run_config

Batch = dict[str, Array]


class Model(Protocol):
    """What a file of this folder defines. It is written for one shard of the batch.

    A model with statistics of its own also has `updated_stats(sums)`, which returns the new `stats`
    from the global sums. One that is trained on less than it is given also has
    `augment(batch, *, keys)`, which returns the batch as training sees it: evaluation skips it.
    One with a Gaussian posterior also has `posterior(batch)`, which returns its mean and
    log-variance, [B, D] each, and `nll(z, batch)`, which returns −log p(x|z) [B] in nats.
    """

    def terms(self, batch: Batch, *, keys: Array, step: Array) -> tuple[Any, Any]:
        """Returns (terms, sums): a NamedTuple of [B, ...] arrays, and sums over these examples.

        Args:
            batch: `image` [B, H, W, C] uint8, `mask` [B] (0 where an example is padding; the sums,
                not the terms, must heed it), `position` [B] int32 in the global batch (or, in
                evaluation, in the data set), and what else the data set gives.
            keys: [B], one PRNG key an example.
            step: int32 scalar.
        """

    def objective(self, means: Any, *, step: Array) -> Array:
        """Returns the scalar to minimise, from the terms' means over the global batch.

        Its gradient reaches the parameters through `means` alone. It need not be linear.
        """

    def metrics(self, means: Any, sums: Any, *, step: Array) -> Metrics:
        """Returns what to log, from global means and sums, in training and evaluation.

        A scalar [] becomes a curve, a vector [N] a histogram.
        """

    def reconstruct(self, batch: Batch) -> Array:
        """Returns images in [0, 1], [B, H, W, C]."""

    def sample(self, keys: Array) -> Array:
        """Returns an image in [0, 1] drawn from the model for each key, [B, H, W, C]."""


def make(config: Any, example: Any) -> tuple[nnx.GraphDef, Callable[[], tuple[Any, Any]]]:
    """Returns the model's structure, and a function that draws its first (params, stats).

    Raises:
        InputError: the config names an unknown model, or one of its values can't work.
    """
    module = registry.load("models", config.model.name, field="model.name")
    # A config that is not settled gets float32. Asking for the platform would start the backends,
    # and a model is also described for devices that are not there.
    config = run_config.settled(config, "cpu")

    def build():
        key = jax.random.fold_in(jax.random.key(config.seed), streams.INITIALISATION)
        return module.Model(config, example, rngs=nnx.Rngs(params=key))

    def init():
        _, params, stats = nnx.split(build(), nnx.Param, ...)
        return nnx.as_pure(params), nnx.as_pure(stats)

    graphdef = nnx.split(nnx.eval_shape(build), nnx.Param, ...)[0]
    return graphdef, init


def abstract(config: Any, example: Any) -> Any:
    """Returns the model without values: its methods and sizes can be asked for."""
    graphdef, init = make(config, example)
    return nnx.merge(graphdef, *jax.eval_shape(init))
