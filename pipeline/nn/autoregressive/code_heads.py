"""Distributions over codes: a softmax over K codes, and two in turn if K is large.

Beyond `DIRECT` codes a code is a pair of digits (a, b). p(a) p(b | a) is exact, and its weights
grow with √K instead of K (as in Open-MAGVIT2, Luo et al. 2024, arXiv:2409.04410).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

DIRECT = 2**14  # codes up to which one softmax has them all
INITIAL = nnx.initializers.normal(0.02)  # of GPT-2, for tables and matrices


class Sampling(NamedTuple):
    """How a code is drawn from logits."""

    temperature: float = 1.0  # 0 takes the most probable code
    top_k: int = 0  # only the k most probable codes; 0: all
    top_p: float = 1.0  # only the most probable codes that together have this probability
    guidance: float = 1.0  # s of null + s·(conditional − null); 1: no guidance


class Scores(NamedTuple):
    """What a head says about the true codes."""

    nll: Array  # −log p(code), nats, the shape of the codes
    correct: Array  # 1 if the most probable code is the true one, else 0


class Digits(NamedTuple):
    """The numbers of the two digits of K codes: code = a·`second` + b."""

    first: int
    second: int


def digits(num_codes: int) -> Digits:
    """Returns how codes are cut; a K that one softmax has is a first digit alone."""
    if num_codes <= DIRECT:
        return Digits(num_codes, 1)
    second = 2 ** math.ceil(math.log2(num_codes) / 2)
    return Digits(-(-num_codes // second), second)


class Embedding(nnx.Module):
    """Vectors of codes, with a table for each of Q codes of a site: a sum over the digits."""

    def __init__(self, num_codes: int, dim: int, *, depth: int, rngs: nnx.Rngs):
        """Draws tables of Q·K rows, or of the digits' rows; `depth` is Q."""
        self.digits, self.depth = digits(num_codes), depth
        self.tables = nnx.List(
            nnx.Param(INITIAL(rngs.params(), (depth * rows, dim))) for rows in _used(self.digits)
        )

    def __call__(self, codes: Array, *, first: Any = 0) -> Array:
        """Returns [..., T, dim] float32 for codes [..., T]; `first` is the first one's place."""
        stage = (first + jnp.arange(codes.shape[-1])) % self.depth
        parts = _split(codes, self.digits)
        vectors = [
            table[...][stage * rows + part]
            for table, rows, part in zip(self.tables, self.digits, parts, strict=False)
        ]
        return functools.reduce(jnp.add, vectors)


class Head(nnx.Module):
    """p(code | features), for one code after another."""

    def __init__(self, num_codes: int, dim: int, *, dtype: Any, rngs: nnx.Rngs):
        """Builds a map from `dim` features to logits for each digit.

        Args:
            num_codes: K.
            dim: number of features.
            dtype: of the products; logits are float32.
            rngs: the stream `params`.
        """
        self.num_codes, self.digits = num_codes, digits(num_codes)
        linear = functools.partial(nnx.Linear, kernel_init=INITIAL, dtype=dtype, rngs=rngs)
        self.first = linear(dim, self.digits.first)
        if self.digits.second == 1:
            return
        self.given = nnx.Param(INITIAL(rngs.params(), (self.digits.first, dim)))
        self.hidden, self.second = linear(dim, dim), linear(dim, self.digits.second)

    def __call__(self, features: Array, codes: Array) -> Scores:
        """Scores the true codes [...], given the features [..., dim]."""
        first, second = _split(codes, self.digits)
        scores = _scores(self.first(features), first)
        if self.digits.second == 1:
            return scores
        # The most probable code is taken to be that of the most probable first digit.
        logits = self._second(features, first)
        then = _scores(logits, second)
        return Scores(scores.nll + then.nll, scores.correct * then.correct)

    def draw(self, keys: Array, features: Array, null: Array | None, sampling: Sampling) -> Array:
        """Draws a code for each key, int32 [B].

        Args:
            keys: [B].
            features: [B, dim].
            null: features without the condition, for guidance, or None.
            sampling: holds for each digit by itself.
        """
        both = [features] if null is None else [features, null]
        logits = _guided([self.first(one) for one in both], sampling)
        first = draw(keys, logits, sampling)
        if self.digits.second == 1:
            return first
        own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        logits = _guided([self._second(one, first) for one in both], sampling)
        return first * self.digits.second + draw(own, logits, sampling)

    def _second(self, features: Array, first: Array) -> Array:
        """Returns the logits of the second digit, −∞ for pairs that are no code."""
        logits = self.second(jax.nn.gelu(self.hidden(features) + self.given[...][first]))
        code = first[..., None] * self.digits.second + jnp.arange(self.digits.second)
        return jnp.where(code < self.num_codes, logits.astype(jnp.float32), -jnp.inf)


def draw(keys: Array, logits: Array, sampling: Sampling) -> Array:
    """Draws from softmax(logits / temperature) of the codes that top-k and top-p leave.

    Holtzman et al. 2020 (arXiv:1904.09751) for top-p. The most probable code always stays.

    Args:
        keys: [B].
        logits: [B, K].
        sampling: its guidance is not used here.

    Returns:
        Codes, int32 [B].
    """
    logits = logits.astype(jnp.float32)
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        num = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
        shares = jax.nn.softmax(jnp.where(jnp.arange(logits.shape[-1]) < num, ordered, -jnp.inf))
        # A code stays if the more probable ones have less than top_p together.
        stays = (jnp.cumsum(shares, axis=-1) - shares < sampling.top_p).sum(axis=-1)
        least = jnp.take_along_axis(ordered, jnp.clip(stays, 1, num)[:, None] - 1, axis=-1)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _used(cut: Digits) -> tuple[int, ...]:
    """Returns the numbers of the digits that a code has."""
    return (cut.first,) if cut.second == 1 else tuple(cut)


def _split(codes: Array, cut: Digits) -> tuple[Array, Array]:
    codes = codes.astype(jnp.int32)
    return (codes, jnp.zeros_like(codes)) if cut.second == 1 else jnp.divmod(codes, cut.second)


def _scores(logits: Array, codes: Array) -> Scores:
    # A comparison instead of a look-up: its gradient is no scatter, and it is fused with the sum.
    logits = logits.astype(jnp.float32)
    true = jnp.arange(logits.shape[-1]) == codes[..., None]
    nll = jax.nn.logsumexp(logits, axis=-1) - jnp.where(true, logits, 0.0).sum(axis=-1)
    return Scores(nll, (jnp.argmax(logits, axis=-1) == codes).astype(jnp.float32))


def _guided(logits: list[Array], sampling: Sampling) -> Array:
    """Returns null + s·(conditional − null); −∞ of both stays −∞."""
    if len(logits) == 1:
        return logits[0]
    given, null = (each.astype(jnp.float32) for each in logits)
    known = jnp.isfinite(given)
    return jnp.where(known, null + sampling.guidance * jnp.where(known, given - null, 0), given)
