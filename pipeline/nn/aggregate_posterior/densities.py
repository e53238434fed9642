"""Densities of the aggregate posterior q(z) = 1/N Σ_n q(z|n), estimated from one batch.

Chen et al. 2018 (arXiv:1802.04942), section 4.1 and appendix C. An estimator is a matrix of weights
W: q(z_i) ≈ Σ_j W_ij q(z_i|n_j), for z_i ~ q(z|n_i). The functions return log W, [B, B], and leave
padding out. A row of `stratified` adds up to 1; a row of `weighted` to 1/N, so it is no estimate of
q(z) that converges, but its gradient is one of log q(z)'s.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

PAIRS = 1024**2  # of examples, held at once


def weighted(mask: Array, num_examples: float) -> Array:
    """Minibatch-weighted sampling, eq. 5: W_ij = 1 / (N·M) for a batch of M examples."""
    weights = mask / (jnp.float32(num_examples) * mask.sum())
    return jnp.log(jnp.broadcast_to(weights, (len(mask), len(mask))))


def stratified(mask: Array, num_examples: float) -> Array:
    """Minibatch stratified sampling, appendix C.2, for a batch of M + 1 examples.

    W_ij is 1/N for the example itself, (N − M)/(N·M) for one other, and 1/M for all others. The one
    is the next example of the batch; after the last comes the first.
    """
    count, num_examples = mask.sum(), jnp.float32(num_examples)
    place = jnp.cumsum(mask) - 1  # among the true examples
    follows = place == jnp.mod(place + 1, count)[:, None]
    others = jnp.maximum(count - 1, 1)
    one = jnp.maximum(num_examples - others, 0) / (num_examples * others)
    weights = jnp.where(follows, one, 1 / others)
    weights = jnp.where(jnp.eye(len(mask), dtype=bool), 1 / num_examples, weights)
    return jnp.log(weights * mask)


ESTIMATORS = {"weighted": weighted, "stratified": stratified}


def log_normal(z: Array, mean: Array | float, log_variance: Array | float) -> Array:
    """Returns log N(z; mean, exp(log_variance)) per latent, in nats; the shapes broadcast."""
    squares = jnp.square(z - mean) * jnp.exp(-jnp.asarray(log_variance))
    return -0.5 * (squares + log_variance + math.log(2 * math.pi))


def log_densities(
    z: Array, mean: Array, log_variance: Array, log_weights: Array
) -> tuple[Array, Array]:
    """Returns estimates of log q(z), [B], and of log q(z_d) for each latent d, [B, D], in nats.

    Up to B = 1024 all pairs are computed at once, and above that in chunks of rows: the memory is
    that of 1024² pairs of D numbers each.

    Args:
        z: [B, D], one sample for each example.
        mean: [B, D], of q(z|n).
        log_variance: [B, D].
        log_weights: [B, B], from an estimator above.
    """
    of_rows = lambda z, log_weights: _of_rows(z, mean, log_variance, log_weights)  # noqa: E731
    if log_weights.size <= PAIRS:
        return of_rows(z, log_weights)

    # Recomputed in the backward pass: else it would keep what the rows together no longer hold.
    @jax.checkpoint
    def of_row(row):
        joint, each = of_rows(row[0][None], row[1][None])
        return joint[0], each[0]

    return lax.map(of_row, (z, log_weights), batch_size=max(1, PAIRS // len(mean)))


def _of_rows(z: Array, mean: Array, log_variance: Array, log_weights: Array) -> tuple[Array, Array]:
    of_pairs = log_normal(z[:, None], mean, log_variance)  # [R, B, D], log q(z_i,d | n_j)
    joint = jax.nn.logsumexp(log_weights + of_pairs.sum(axis=-1), axis=1)
    return joint, jax.nn.logsumexp(log_weights[..., None] + of_pairs, axis=1)
