"""Model variants: one file each, with its whole equation; `config.model.name` names the file.

This module holds the contract of such a file, and builds the model that a config names. A model
returns terms and sums for one shard of the batch and knows nothing of meshes. `training.step`
reduces them over all devices, once. A name with a dot, such as `my_package.my_model`, is a module
from outside this package; the README of this folder has an example.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from flax import nnx
from jax import Array

from pipeline.nn import streams
from pipeline.nn.metrics import Metrics
from pipeline.runtime import errors, reads, registry, run_config

Batch = dict[str, Array]


class Model(Protocol):
    """The contract of a file in this folder. Its methods see one shard of the batch.

    Some models define more:

    - A model with statistics of its own has `updated_stats(sums)`, which returns the new `stats`
      from the global sums.
    - A model that drops a part of its input in training has `augment(batch, *, keys)`. It returns
      the batch that training uses; evaluation does not call it.
    - A model with a Gaussian posterior has `posterior(batch)`, which returns its mean and
      log-variance, [B, D] each. It also has `nll(z, batch)`, which returns −log p(x|z) [B] in nats.
    - A model whose terms need other examples of the batch has `shown` and `coupled`:

      `shown(batch, *, keys, step)` returns what each example of a shard shows the others, a pytree
      of small float arrays [B, ...]. `terms` then gets it as the keyword `shown`.

      `coupled(shown, *, mask, step)` returns further terms, a NamedTuple of [N, ...], from what all
      N examples of the global batch show; `mask` [N] is 0 for padding, which must not count. It
      sees no shard. Gradients reach the parameters through `shown` of every example, and directly
      if `coupled` reads parameters.

      `objective` and `metrics` get the pair (means of the terms, means of the coupled terms).
    """

    def terms(self, batch: Batch, *, keys: Array, step: Array) -> tuple[Any, Any]:
        """Returns (terms, sums): a NamedTuple of [B, ...] arrays, and sums over these examples.

        The model applies `mask` to the sums; the caller applies it to the terms.

        Args:
            batch: `image` [B, H, W, C], uint8 of 0 … 255 or float32 in [0, 1], see
                `nn.networks.unit_interval`; `mask` [B], 0 if the example is padding; `position`
                [B] int32, the example's index in the global batch (in evaluation, in the data set);
                and the other entries of the data set.
            keys: [B], one PRNG key per example.
            step: int32 scalar.
        """

    def objective(self, means: Any, *, step: Array) -> Array:
        """Returns the scalar to minimise, from the terms' means over the global batch.

        Its gradient reaches the parameters only through `means`. It need not be linear.
        """

    def metrics(self, means: Any, sums: Any, *, step: Array) -> Metrics:
        """Returns the figures to log, from global means and sums, in training and evaluation.

        A scalar [] is logged as a curve, a vector [N] as a histogram.
        """

    def reconstruct(self, batch: Batch) -> Array:
        """Returns the reconstructions of a batch, [B, H, W, C] in [0, 1]."""

    def sample(self, keys: Array) -> Array:
        """Returns one image drawn from the model for each key, [B, H, W, C] in [0, 1]."""


def make(config: Any, example: Any) -> tuple[nnx.GraphDef, Callable[[], tuple[Any, Any]]]:
    """Returns the model's structure, and a function that draws its initial (params, stats).

    Raises:
        InputError: the config names an unknown model, or has a value that cannot work.
    """
    build = _builder(config, example)
    graphdef = nnx.split(nnx.eval_shape(build), nnx.Param, ...)[0]
    return graphdef, lambda: _drawn(build)


def initial(config: Any, example: Any) -> tuple[Any, Any]:
    """Returns the initial (params, stats), as the function that `make` returns; errors as there."""
    return _drawn(_builder(config, example))


def _builder(config: Any, example: Any) -> Callable[[], Any]:
    module = registry.load("models", config.model.name, field="model.name")
    config = settled(config)

    def build():
        key = jax.random.fold_in(jax.random.key(config.seed), streams.INITIALISATION)
        return module.Model(config, example, rngs=nnx.Rngs(params=key))

    return build


def _drawn(build: Callable[[], Any]) -> tuple[Any, Any]:
    _, *states = nnx.split(build(), nnx.Param, ...)
    params, stats = map(nnx.as_pure, states)
    return params, stats


def couples(config: Any) -> bool:
    """Returns whether the model that a config names has coupled terms.

    Raises:
        InputError: it has one of the methods `shown` and `coupled` without the other.
    """
    model = registry.load("models", config.model.name, field="model.name").Model
    missing = [name for name in ("shown", "coupled") if not hasattr(model, name)]
    if len(missing) == 1:
        raise errors.InputError(
            f"config.model.name={config.model.name!r} has no `{missing[0]}`, which coupled terms "
            "need: define both `shown` and `coupled`, or neither"
        )
    return not missing


def augmented(model: Any, batch: Batch, *, keys: Array) -> Batch:
    """Returns the batch that training uses."""
    return model.augment(batch, keys=keys) if hasattr(model, "augment") else batch


def updated_stats(model: Any, stats: Any, sums: Any) -> Any:
    """Returns the `stats` of the next step, from the global sums."""
    return model.updated_stats(sums) if hasattr(model, "updated_stats") else stats


def first_stats(config: Any, example: Any, stats: Any) -> Any:
    """Returns `stats` of step 0: as `init` drew them, or with what the model reads from files.

    A file in this folder may define `first_stats(config, example, stats)` for that. It is called
    outside of compiled programs, with arrays or their shapes, and may return NumPy arrays.
    """
    module = registry.load("models", config.model.name, field="model.name")
    own = getattr(module, "first_stats", None)
    return stats if own is None else own(config, example, stats)


def settled(config: Any) -> Any:
    """Returns the config, with float32 and ends of schedules if `setup` has not settled it.

    A query for the platform would start the backends, and `performance.planning` describes models
    for devices that this computer does not have.
    """
    return config if isinstance(config, reads.View) else run_config.settled(config, "cpu")


def abstract(config: Any, example: Any) -> Any:
    """Returns the model with abstract values, so that its methods and sizes can be inspected."""
    graphdef, init = make(config, example)
    return nnx.merge(graphdef, *jax.eval_shape(init))
