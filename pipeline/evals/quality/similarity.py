"""How near two images are, pixel by pixel and by structure: one value for each pair.

All functions compare images [B, H, W, C] float32 in [0, 1] and return [B] float32. The mean over
images is left to the caller. SSIM is that of the library dm-pix, with the window of the paper.
"""

import dm_pix
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

MOST_DECIBELS = 100.0  # PSNR of an image and itself, which would be infinite
WINDOW, SIGMA = 11, 1.5  # pixels a side of SSIM's Gaussian window, and its σ: Wang et al. 2004
# Weights of the scales, from the finest: Wang et al. 2003, from their experiments.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = WINDOW * 2 ** (len(SCALES) - 1)  # pixels a side for all scales
# With so large a k1, the term of SSIM that compares the means is 1 in float32.
NO_MEANS = 1e6


def mae(a: Array, b: Array) -> Array:
    """Returns the absolute error, a mean over pixels and channels."""
    return dm_pix.mae(a, b)


def mse(a: Array, b: Array) -> Array:
    """Returns the squared error, a mean over pixels and channels."""
    return dm_pix.mse(a, b)


def psnr(a: Array, b: Array) -> Array:
    """Returns the peak signal-to-noise ratio −10·log10(mse) in decibels, at most 100."""
    return -10.0 * jnp.log10(jnp.maximum(mse(a, b), 10 ** (-MOST_DECIBELS / 10)))


def ssim(a: Array, b: Array) -> Array:
    """Returns the structural similarity, at most 1: Wang et al. 2004, eq. 13.

    Weighted by a Gaussian of 11 × 11 and σ = 1.5, with k1 = 0.01 and k2 = 0.03. Only whole windows
    count, and channels count alike. A side needs 11 pixels.
    """
    return dm_pix.ssim(a, b, filter_fn=_windowed)


def ms_ssim(a: Array, b: Array) -> Array:
    """Returns the structural similarity at five scales, 0 to 1: Wang et al. 2003, eq. 7.

    Each scale halves the last one by means of 2 × 2 pixels; an odd last row or column is left out.
    The means are compared only at the coarsest scale. A channel's negative factor counts as 0, and
    the value is the mean over channels. A side needs 176 pixels, 11 at the coarsest scale.
    """
    value = jnp.ones((len(a), a.shape[-1]))
    for scale, weight in enumerate(SCALES):
        last = scale == len(SCALES) - 1
        k1 = 0.01 if last else NO_MEANS
        by_position = dm_pix.ssim(a, b, k1=k1, filter_fn=_windowed, return_map=True)
        value *= jnp.maximum(by_position.mean(axis=(1, 2)), 0.0) ** weight
        a, b = _halved(a), _halved(b)
    return value.mean(axis=-1)


def _windowed(images: Array) -> Array:
    """Returns the Gaussian mean around each position whose window lies within the image.

    Matrix products take a tenth of the time of dm-pix's own convolutions on CPUs.
    """
    rows, columns = (_bands(side) for side in images.shape[1:3])
    images = jnp.einsum("hi,bijc->bhjc", rows, images, precision=lax.Precision.HIGHEST)
    return jnp.einsum("wj,bhjc->bhwc", columns, images, precision=lax.Precision.HIGHEST)


def _bands(side: int) -> np.ndarray:
    """Returns [side − 10, side]: row i has the weights of the window that begins at i."""
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    weights /= weights.sum()
    num = side - WINDOW + 1
    bands = np.zeros((num, side), np.float32)
    np.add.at(
        bands, (np.arange(num)[:, None], np.arange(num)[:, None] + np.arange(WINDOW)), weights
    )
    return bands


def _halved(images: Array) -> Array:
    window = (1, 2, 2, 1)
    return lax.reduce_window(images, 0.0, lax.add, window, window, "VALID") / 4.0
