"""What precedes the first code of a sequence: the embedding of its conditions, or one vector."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.nn import embeddings
from pipeline.nn.autoregressive import code_heads
from pipeline.runtime import errors

Conditions = Mapping[str, Array] | None


class Prefix(nnx.Module):
    """A vector [width] for each example."""

    def __init__(self, section: Any, example: Any, *, rngs: nnx.Rngs):
        """Builds the embedding of `model.conditions`; without any, one learned vector.

        Args:
            section: the section `model`.
            example: abstract example.
            rngs: the stream `params`.

        Raises:
            InputError: the data have no such conditions, or guidance has nothing to guide with.
        """
        guidance = section.sampling.guidance
        self.embedding: embeddings.Embedding | None
        if section.conditions:
            if section.embedding_dim != section.width:
                raise errors.InputError(
                    f"config.model.embedding_dim={section.embedding_dim} must be config.model."
                    f"width={section.width}, as the condition is the first input: leave it out"
                )
            self.embedding = embeddings.Embedding(section, example, rngs=rngs)
        else:
            self.embedding = None
            self.vector = nnx.Param(code_heads.INITIAL(rngs.params(), (section.width,)))
        if guidance != 1 and (self.embedding is None or self.embedding.null is None):
            lacking = "label_dropout=0" if section.conditions else "conditions=()"
            raise errors.InputError(
                f"config.model.sampling.guidance={guidance} needs conditions and a null class, and "
                f"the model has config.model.{lacking}: set guidance to 1"
            )

    def __call__(self, conditions: Conditions, *, num: int) -> Array:
        """Returns the vectors, [num, width]; conditions of None are the null class."""
        if self.embedding is not None:
            return self.embedding(conditions, num=num)
        return jnp.broadcast_to(self.vector[...], (num, *self.vector.shape))

    def drop(self, batch: dict[str, Array], *, keys: Array) -> dict[str, Array]:
        """Marks the examples that get the null class in training."""
        return batch if self.embedding is None else self.embedding.drop(batch, keys=keys)

    def starts(self, keys: Array, conditions: Conditions, *, guidance: float) -> list[Array]:
        """Returns the vectors from which samples start, [B, width]; for guidance also the null's.

        Without conditions the null class is used. A model that has no null class draws the
        conditions uniformly over the classes.
        """
        num = keys.shape[0]
        if self.embedding is not None and conditions is None and self.embedding.null is None:
            conditions = self.embedding.draw(keys)
        found = [self(conditions, num=num)]
        if guidance != 1 and conditions is not None:
            found.append(self(None, num=num))
        return found
