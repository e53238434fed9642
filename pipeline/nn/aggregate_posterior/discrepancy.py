"""Maximum mean discrepancy (MMD): how far samples of q(z) are from those of the prior, by a kernel.

MMD² = E k(z, z′) + E k(p, p′) − 2·E k(z, p) for independent draws z, z′ of q(z) and p, p′ of the
prior. The estimate is that without bias of Gretton et al. 2012 (JMLR 13), eq. 3: no sample meets
itself. So it is negative at times, and 0 on average if both are equal.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Kernel = Callable[[Array, int], Array]


def rbf(squares: Array, num_latents: int) -> Array:
    """Gaussian kernel exp(−r²/D²), as in the authors' code of Zhao et al. 2017 (arXiv:1706.02262).

    Args:
        squares: squared distances r², of any shape.
        num_latents: D.
    """
    return jnp.exp(-squares / num_latents**2)


def imq(squares: Array, num_latents: int) -> Array:
    """Inverse multiquadratics Σ_s c/(c + r²), c = 2·D·s, for seven scales s; arguments as above.

    Tolstikhin et al. 2018 (arXiv:1711.01558), section 4, for a prior of variance 1; the scales are
    those of the authors' code.
    """
    widths = [2 * num_latents * scale for scale in SCALES]
    return sum((width / (width + squares) for width in widths), start=jnp.zeros(()))


KERNELS: dict[str, Kernel] = {"rbf": rbf, "imq": imq}


def mmd(z: Array, prior: Array, mask: Array, kernel: Kernel) -> Array:
    """Returns each example's part of MMD², [B]; the mean over true examples is the estimate.

    A batch with one true example has no pairs, so only the last term is left.

    Args:
        z: [B, D], a sample of q(z|x) for each example.
        prior: [B, D], samples of the prior.
        mask: [B], 0 if the example is padding.
        kernel: one of `KERNELS`.
    """

    def similarity(one: Array, other: Array) -> Array:
        squares = jnp.square(one[:, None] - other).sum(axis=-1)  # [B, B]
        return kernel(squares, z.shape[1])

    count, others = mask.sum(), mask * (1 - jnp.eye(len(mask)))
    same = (others * (similarity(z, z) + similarity(prior, prior))).sum(axis=1)
    across = (mask * similarity(z, prior)).sum(axis=1)
    return same / jnp.maximum(count - 1, 1) - 2 * across / count
