"""The prior over codes in plain Flax NNX, as its tutorials write transformers."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from pipeline.performance.frameworks.works import NUM_CLASSES, Layer, Work


class Positions(nnx.Module):
    """Learned vectors that are added, and dropout."""

    def __init__(self, num: int, width: int, dropout: float, rngs: nnx.Rngs):
        """Builds the layers."""
        self.table = nnx.Embed(num, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[B, T, F] → [B, T, F]."""
        return self.dropout(x + self.table(jnp.arange(x.shape[1])))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float, rngs: nnx.Rngs):
        """Builds the layers."""
        self.norms = nnx.List(nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.dropouts = nnx.List(nnx.Dropout(dropout, rngs=rngs) for _ in range(2))

    def __call__(self, x: Array) -> Array:
        """[B, T, F] → [B, T, F]."""
        mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + self.dropouts[0](self.attention(self.norms[0](x), mask=mask))
        hidden = nnx.gelu(self.widen(self.norms[1](x)))
        return x + self.dropouts[1](self.narrow(hidden))


class Prior(nnx.Module):
    """A causal transformer over codes; the vector of the label is its first input."""

    def __init__(self, work: Work, rngs: nnx.Rngs):
        """Builds it."""
        section = work.config.model
        first, *rest = (_layer(layer, section.dropout, rngs) for layer in work.decoder)
        self.embedding, self.layers = first, nnx.Sequential(*rest)
        self.labels = nnx.Embed(NUM_CLASSES, section.width, rngs=rngs)
        self.null = nnx.Param(jax.random.normal(rngs.params(), (section.width,)))
        self.label_dropout, self.rngs = section.label_dropout, rngs

    def __call__(self, codes: Array, label: Array, noise: Array | None = None) -> Array:
        """Returns −log p, nats per code, a mean over the batch.

        Args:
            codes: [B, h, w] uint8.
            label: [B] int32.
            noise: which examples lose their label, [B] bool; None: drawn.
        """
        if noise is None:
            noise = jax.random.bernoulli(self.rngs.noise(), self.label_dropout, label.shape)
        condition = jnp.where(noise[:, None], self.null[...], self.labels(label))
        codes = codes.reshape(len(codes), -1).astype(jnp.int32)
        inputs = jnp.concatenate([condition[:, None], self.embedding(codes[:, :-1])], 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(self.layers(inputs), codes)
        return losses.mean()


def _layer(layer: Layer, dropout: float, rngs: nnx.Rngs) -> nnx.Module:
    match layer:
        case ("embedding", num, width):
            return nnx.Embed(num, width, rngs=rngs)
        case ("positions", num, width):
            return Positions(num, width, dropout, rngs)
        case ("block", width, heads):
            return Block(width, heads, dropout, rngs)
        case ("norm", width):
            return nnx.LayerNorm(width, rngs=rngs)
        case ("linear", inputs, outputs):
            return nnx.Linear(inputs, outputs, rngs=rngs)
    raise AssertionError(layer)
