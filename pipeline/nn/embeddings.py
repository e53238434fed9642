"""Embeddings of conditions: an example's classes and attributes as one vector.

The vector is the sum of one embedding per column, computed as one product with a table. A product
of one-hot rows is fast on CPU. Its gradient is always summed in the same order, unlike that of a
look-up.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline import datasets
from pipeline.nn import streams
from pipeline.runtime import errors

# The batch entry, [B] bool, that marks the examples whose conditions are dropped.
DROPPED = "dropped"


class Embedding(nnx.Module):
    """Embeds the batch entries that `config.model.conditions` names, as [B, E] float32."""

    def __init__(self, config: Any, example: Any, *, rngs: nnx.Rngs):
        """Draws a table row for each class and attribute, and the null class, from N(0, 1).

        Args:
            config: the section `model`; reads `conditions`, `embedding_dim` and `label_dropout`.
            example: abstract example; class indices are a `datasets.Classes`, attributes float32.
            rngs: the stream `params`.

        Raises:
            InputError: a field is out of its range, or the data set does not have an entry.
        """
        _check(config, example)
        self.entries = tuple((name, example[name]) for name in config.conditions)
        self.dropout = config.label_dropout
        num_rows = sum(sum(_rows(entry)) for _, entry in self.entries)
        dim = config.embedding_dim
        self.table = nnx.Param(jax.random.normal(rngs.params(), (num_rows, dim)))
        # Only dropped examples train the null class, so without dropout there is none.
        self.null = nnx.Param(jax.random.normal(rngs.params(), (dim,))) if self.dropout else None

    def __call__(self, conditions: Mapping[str, Array] | None, *, num: int) -> Array:
        """Returns the embeddings, [num, E] float32.

        Args:
            conditions: a batch, or only its entries that are conditions, [num, ...] each. Examples
                marked in `dropped` get the null class. None means the null class for all.
            num: number of examples.

        Raises:
            InputError: there are no conditions, and no null class either.
        """
        if conditions is None:
            if self.null is None:
                raise errors.InputError(
                    "config.model.label_dropout=0 trains no null class: give the conditions"
                )
            return jnp.broadcast_to(self.null[...], (num, self.table.shape[1]))
        columns = [_columns(entry, conditions[name]) for name, entry in self.entries]
        embedded = jnp.concatenate(columns, axis=-1) @ self.table[...]
        if self.null is None or DROPPED not in conditions:
            return embedded
        return jnp.where(conditions[DROPPED][:, None], self.null[...], embedded)

    def drop(self, batch: dict[str, Array], *, keys: Array) -> dict[str, Array]:
        """Adds the entry `dropped`, [B] bool, true with probability `label_dropout`.

        Ho & Salimans 2022 (arXiv:2207.12598), algorithm 1. All conditions of an example are dropped
        together.
        """
        if not self.dropout:
            return batch
        own_keys = streams.within(keys, streams.CONDITIONS)
        coin = functools.partial(jax.random.bernoulli, p=self.dropout)
        return batch | {DROPPED: jax.vmap(coin)(own_keys)}

    def draw(self, keys: Array) -> dict[str, Array]:
        """Returns conditions drawn uniformly over the classes, one set for each key."""

        def draw_one(key):
            key, drawn = jax.random.fold_in(key, streams.CONDITIONS), {}
            for index, (name, entry) in enumerate(self.entries):
                sizes = jnp.asarray(entry.num_classes).reshape(entry.shape)
                own_key = jax.random.fold_in(key, index)
                drawn[name] = jax.random.randint(own_key, entry.shape, 0, sizes)
            return drawn

        return jax.vmap(draw_one)(keys)


def _check(config: Any, example: Any) -> None:
    known = [name for name, entry in example.items() if _is_condition(entry)]
    offered = f"it has {', '.join(known)}" if known else "it has none at all"
    if not config.conditions:
        raise errors.InputError(
            f"config.model.conditions is empty: name entries of the data set, {offered}"
        )
    for name in config.conditions:
        if name not in known:
            raise errors.InputError(
                f"config.model.conditions={tuple(config.conditions)}: the data set has no classes "
                f"or attributes {name!r}; {offered}"
            )
        if not (config.label_dropout or isinstance(example[name], datasets.Classes)):
            raise errors.InputError(
                f"config.model.label_dropout=0 with the attributes {name!r} leaves nothing to "
                "sample from: it must be above 0"
            )
    errors.check_range("config.model.embedding_dim", config.embedding_dim, 1)
    if not 0 <= config.label_dropout < 1:
        raise errors.InputError(
            f"config.model.label_dropout={config.label_dropout} must lie in [0, 1); 0 switches it "
            "off"
        )


def _is_condition(entry: Any) -> bool:
    return isinstance(entry, datasets.Classes) or (
        jnp.issubdtype(entry.dtype, jnp.floating) and len(entry.shape) <= 1
    )


def _rows(entry: Any) -> tuple[int, ...]:
    """Returns each column's number of rows in the table: its classes, or one for an attribute."""
    if isinstance(entry, datasets.Classes):
        return entry.num_classes
    return (1,) * (entry.shape[0] if entry.shape else 1)


def _columns(entry: Any, values: Array) -> Array:
    """Returns concatenated one-hot rows of classes, or unchanged attributes, [B, rows] float32."""
    columns = values.reshape(values.shape[0], -1)
    if not isinstance(entry, datasets.Classes):
        return columns.astype(jnp.float32)
    one_hots = [jax.nn.one_hot(columns[:, i], size) for i, size in enumerate(entry.num_classes)]
    return jnp.concatenate(one_hots, axis=-1)
