"""Draws codes one after another from a network that predicts each from those before it.

`cached` keeps what the network has computed for earlier places. `recomputed` runs the whole network
at each place, and serves networks without a cache. Both draw the same codes up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pipeline.nn.autoregressive import code_heads, dropout


def cached(
    network: Any,
    embedding: code_heads.Embedding,
    head: code_heads.Head,
    *,
    starts: Sequence[Array],
    keys: Array,
    num: int,
    sampling: code_heads.Sampling,
) -> Array:
    """Returns codes, [B, num] int32.

    Args:
        network: has `cache` and `next`, as a `transformer.Transformer`.
        embedding: of the codes.
        head: draws a code from features.
        starts: the condition [B, width]; for guidance also the null condition.
        keys: [B]; each code draws with one that its place is folded into.
        num: T, the number of codes.
        sampling: how a code is drawn.
    """

    def draw_next(carry, place):
        before, caches = carry
        outputs = [
            network.next(vector, place, cache) for vector, cache in zip(before, caches, strict=True)
        ]
        codes = _drawn(head, [features for features, _ in outputs], keys, place, sampling)
        vector = embedding(codes[:, None], first=place)[:, 0]
        return ([vector] * len(before), [cache for _, cache in outputs]), codes

    first = list(starts), [network.cache(keys.shape[0]) for _ in starts]
    return jax.lax.scan(draw_next, first, jnp.arange(num))[1].T


def recomputed(
    network: Any,
    embedding: code_heads.Embedding,
    head: code_heads.Head,
    *,
    starts: Sequence[Array],
    keys: Array,
    num: int,
    sampling: code_heads.Sampling,
) -> Array:
    """Returns codes, [B, num] int32, for any network; the arguments are those of `cached`."""

    def draw_next(codes, place):
        # Later codes are still zeros; nothing at this place depends on them.
        vectors = embedding(codes)
        outputs = [network(vectors, start, dropout.none)[:, place] for start in starts]
        drawn = _drawn(head, outputs, keys, place, sampling)
        return codes.at[:, place].set(drawn), None

    codes = jnp.zeros((keys.shape[0], num), jnp.int32)
    return jax.lax.scan(draw_next, codes, jnp.arange(num))[0]


def _drawn(
    head: code_heads.Head,
    features: list[Array],
    keys: Array,
    place: Array,
    sampling: code_heads.Sampling,
) -> Array:
    own = jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)
    return head.draw(own, features[0], features[1] if len(features) > 1 else None, sampling)
