"""A causal transformer over the codes of an image (Radford et al. 2019; Esser et al. 2021).

Esser et al. is arXiv:2012.09841. Blocks are pre-norm. The condition is the first input, so the
output at a place sees the condition and the codes before that place.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import attention
from pipeline.nn.autoregressive import code_heads, dropout
from pipeline.runtime import errors

Cache = list[tuple[Array, Array]]  # keys and values of each block, [B, T, heads, dim] each


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, *, depth: int, dtype: Any, rngs: nnx.Rngs):
        """Builds the two parts; the weights that add to x shrink with the number of blocks."""
        small = nnx.initializers.normal(0.02 / math.sqrt(2 * depth))
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads = heads
        self.norms = nnx.List(nnx.LayerNorm(dim, **options) for _ in range(2))
        self.inputs = nnx.Linear(dim, 3 * dim, kernel_init=code_heads.INITIAL, **options)
        self.outputs = nnx.Linear(dim, dim, kernel_init=small, **options)
        self.widen = nnx.Linear(dim, 4 * dim, kernel_init=code_heads.INITIAL, **options)
        self.narrow = nnx.Linear(4 * dim, dim, kernel_init=small, **options)

    # Layers see matrices [B·T, dim]: XLA on CPUs copies [B, T, dim] for the gradients of kernels.
    def __call__(self, x: Array, places: int, drop: dropout.Drop) -> Array:
        """[B·T, dim] → [B·T, dim], with T `places`."""
        queries, keys, values = self._attended(x, places)
        causal = jnp.tri(places, dtype=bool)
        mixed = attention.attend(queries, keys, values, seen=causal)
        return self._rest(x, mixed, drop)

    def next(self, x: Array, cache: tuple[Array, Array], place: Array) -> tuple[Array, Any]:
        """Returns the output at one place, [B, dim], and the cache with this place's entry."""
        queries, *own = self._attended(x, 1)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
            for old, new in zip(cache, own, strict=True)
        )
        # The entries after this place are still zeros, and must have no weight.
        seen = (jnp.arange(keys.shape[1]) <= place)[None]
        mixed = attention.attend(queries, keys, values, seen=seen)
        return self._rest(x, mixed, dropout.none), (keys, values)

    def _attended(self, x: Array, places: int) -> list[Array]:
        """Returns queries, keys and values, [B, T, heads, dim / heads] each."""
        parts = jnp.split(self.inputs(self.norms[0](x)), 3, axis=-1)
        return [part.reshape(-1, places, self.heads, x.shape[-1] // self.heads) for part in parts]

    def _rest(self, x: Array, mixed: Array, drop: dropout.Drop) -> Array:
        x = x + drop(self.outputs(mixed.reshape(x.shape)))
        return x + drop(self.narrow(jax.nn.gelu(self.widen(self.norms[1](x)))))


class Transformer(nnx.Module):
    """Features of T places, each of which sees the condition and the codes before it."""

    def __init__(self, section: Any, shape: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
        """Builds `num_layers` blocks of `width` dimensions with `num_heads` heads.

        Args:
            section: the section `model`.
            shape: of the codes, whose number is T.
            dtype: of the products.
            rngs: the stream `params`.

        Raises:
            InputError: the heads do not divide the width.
        """
        dim, heads, depth = section.width, section.num_heads, section.num_layers
        if dim % heads:
            raise errors.InputError(
                f"config.model.width={dim} must be a multiple of num_heads={heads}"
            )
        self.dtype, self.num_places = dtype, math.prod(shape)
        self.head_dim = dim // heads
        self.positions = nnx.Param(code_heads.INITIAL(rngs.params(), (self.num_places, dim)))
        self.blocks = nnx.List(
            Block(dim, heads, depth=depth, dtype=dtype, rngs=rngs) for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(dim, dtype=dtype, rngs=rngs)

    def __call__(self, vectors: Array, condition: Array, drop: dropout.Drop) -> Array:
        """Returns features, [B, T, width].

        Args:
            vectors: of the codes, [B, T, width]; the last one is not used.
            condition: [B, width].
            drop: drops features in training.
        """
        inputs = jnp.concatenate([condition[:, None], vectors[:, :-1]], axis=1)
        embedded = (inputs + self.positions[...]).astype(self.dtype)
        x = drop(embedded.reshape(-1, embedded.shape[-1]))
        for block in self.blocks:
            x = block(x, self.num_places, drop)
        return self.norm(x).reshape(embedded.shape)

    def cache(self, num: int) -> Cache:
        """Returns an empty cache for `num` images."""
        shape = num, self.num_places, self.blocks[0].heads, self.head_dim
        return [(jnp.zeros(shape, self.dtype),) * 2 for _ in self.blocks]

    def next(self, before: Array, place: Array, cache: Cache) -> tuple[Array, Cache]:
        """Returns the features of one place, [B, width], and the cache with it.

        Args:
            before: the vector of the code before, [B, width]; at the first place the condition.
            place: scalar int32.
            cache: of the places before.
        """
        x = (before + self.positions[...][place]).astype(self.dtype)
        grown = []
        for block, entry in zip(self.blocks, cache, strict=True):
            x, entry = block.next(x, entry, place)
            grown.append(entry)
        return self.norm(x), grown
