"""Dense layers that also see a condition, by name; `networks.autoencoder` takes them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import looped_convolutions, networks
from pipeline.runtime import errors, registry


class Concat(nnx.Module):
    """`networks.Dense` whose first layer sees the condition: [B, F], [B, E] → [B, widths[-1]]."""

    def __init__(
        self,
        num_inputs: int,
        widths: Sequence[int],
        *,
        condition_dim: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        """Builds layers for F + E inputs."""
        self.dense = networks.Dense(num_inputs + condition_dim, widths, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, condition: Array) -> Array:
        """Applies the layers to the concatenation of both, [B, F + E]."""
        first: Any = self.dense.layers[0]
        arrays = (x, condition, first.kernel[...], first.bias[...])
        x, condition, kernel, bias = (array.astype(first.dtype) for array in arrays)
        y = _joined_product(*looped_convolutions.varying_alike(x, condition, kernel))
        return self.dense.after_first(y + bias)


def _joined(x, condition, kernel):
    """[x, c]·K, whose gradients in x [B, F] and in c [B, E] are products of their own.

    In an encoder the condition needs a gradient and the pixels do not: the compiler drops theirs. K
    is one array all the way, because its pieces would be copied.
    """
    return jnp.concatenate([x, condition], axis=-1) @ kernel


def _gradients(saved, dy):
    x, condition, kernel = saved
    ours, theirs = jnp.split(kernel, [x.shape[-1]])
    return dy @ ours.T, dy @ theirs.T, jnp.concatenate([x, condition], axis=-1).T @ dy


_joined_product = jax.custom_vjp(_joined)
_joined_product.defvjp(lambda *arrays: (_joined(*arrays), arrays), _gradients)


class Film(nnx.Module):
    """`networks.Dense` whose condition scales and shifts the hidden layers, before the ReLU.

    FiLM, Perez et al. 2018 (arXiv:1709.07871), eq. 2. The scale 1 + Δγ(y) and the shift β(y) are
    linear in the condition. They start at 1 and 0, so the first step sees an unconditional network.
    """

    def __init__(
        self,
        num_inputs: int,
        widths: Sequence[int],
        *,
        condition_dim: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        """Builds the layers, and for each hidden layer the map from E to 2·width.

        Raises:
            InputError: there is no hidden layer.
        """
        if len(widths) < 2:
            raise errors.InputError(
                "config.model.conditioning='film' needs a hidden layer: give config.model.hidden "
                "one, or use conditioning=concat"
            )
        self.dense = networks.Dense(num_inputs, widths, dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.films = nnx.List(
            nnx.Linear(condition_dim, 2 * width, kernel_init=zeros, dtype=dtype, rngs=rngs)
            for width in widths[:-1]
        )

    def __call__(self, x: Array, condition: Array) -> Array:
        """Applies the layers: [B, F], [B, E] → [B, widths[-1]]."""
        *hidden, last = self.dense.layers
        for layer, film in zip(hidden, self.films, strict=True):
            scale, shift = jnp.split(film(condition), 2, axis=-1)
            x = jax.nn.relu((1 + scale) * layer(x) + shift)
        return last(x)


LAYERS = {"concat": Concat, "film": Film}


def dense_layers(config: Any) -> Callable[..., Concat | Film]:
    """Returns the replacement for `networks.Dense` in a conditional network.

    Args:
        config: the section `model`; reads `conditioning` and `embedding_dim`.

    Raises:
        InputError: the form of conditioning is unknown.
    """
    layers = registry.choose(LAYERS, config.conditioning, field="model.conditioning")
    return functools.partial(layers, condition_dim=config.embedding_dim)
