"""A trained model inside another one: its arrays are state that no gradient reaches.

They lie in the state's `stats`. So checkpoints hold them, and a run can be moved without the files
that its model began with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from pipeline.runtime import registry, run_config

# The modules of a VQ-VAE that turn codes into images: a learned σ belongs to the likelihood.
DECODING = ("decoder", "quantizer", "likelihood")


class Frozen(nnx.Variable):
    """An array that was a parameter of the trained model."""


def part(flat: Mapping[str, Any], example: Any, kept: Sequence[str]) -> Any:
    """Returns some modules of a run's model, with zeros in the place of their arrays.

    Args:
        flat: the run's config, from `run_config.flatten`.
        example: abstract example of the run's data set.
        kept: names of the modules that stay; the model's other modules are taken out.
    """
    config = run_config.settled(run_config.nested(dict(flat)), "cpu")
    variant = registry.load("models", config.model.name, field="model.name")
    # Abstract, because nothing of the values that a new model draws is used.
    model = nnx.eval_shape(lambda: variant.Model(config, example, rngs=nnx.Rngs(params=0)))
    for name, value in list(vars(model).items()):
        if isinstance(value, nnx.Module) and name not in kept:
            delattr(model, name)
    for _, node in list(nnx.iter_graph(model)):
        if not isinstance(node, nnx.Pytree):
            continue
        for name, value in list(vars(node).items()):
            if isinstance(value, nnx.Variable):
                kind = Frozen if isinstance(value, nnx.Param) else type(value)
                leaf = value.get_value()
                setattr(node, name, kind(jnp.zeros(leaf.shape, leaf.dtype)))
    return model


def arrays(saved: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    """Returns a saved model's arrays by their path in a model that holds it as `attribute`.

    Args:
        saved: by name, such as `params.decoder.layers.0.kernel`.
        attribute: of the model, which holds the `part`.
    """
    return {f"{attribute}.{name.partition('.')[2]}": array for name, array in saved.items()}
