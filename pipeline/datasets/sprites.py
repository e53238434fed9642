"""Sprites: dSprites' six factors and order, 737,280 images rendered here from closed forms.

Matthey et al. 2017 (dsprites-dataset). The shapes are not the published bitmaps but curves fitted
to them: square and ellipse agree to the pixel nearly everywhere, the heart (two discs over a wedge)
but for its rim.
"""

from typing import Any

import jax
import numpy as np

FACTOR_NAMES = ("color", "shape", "scale", "orientation", "position_x", "position_y")
FACTOR_SIZES = (1, 3, 6, 40, 32, 32)
SIDE = 64  # pixels

SQUARE_HALF_SIDE = 9.6  # pixels at scale 1, as all lengths below
ELLIPSE_AXES = (12.8, 7.2)
HEART_DISC = (4.709, -4.224, 4.978)  # |x| and y of the centres, radius
HEART_WEDGE = (8.255, 0.980, -1.545)  # y of the tip, width per height, y of the upper end


class Sprites:
    """All combinations of the factors, the last varying fastest."""

    def __len__(self) -> int:
        """Returns 737,280."""
        return int(np.prod(FACTOR_SIZES))

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 64, 64, 1] uint8 in {0, 255} and `factors` [n, 6] int32."""
        factors = np.stack(np.unravel_index(indices, FACTOR_SIZES), axis=-1).astype(np.int32)
        return {"image": render(factors), "factors": factors}


def spec(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((SIDE, SIDE, 1), np.uint8),
        "factors": jax.ShapeDtypeStruct((len(FACTOR_SIZES),), np.int32),
    }


def load(config: Any) -> dict[str, Sprites]:
    """Returns the whole set; no split is published."""
    del config
    return {"all": Sprites()}


def render(factors: np.ndarray) -> np.ndarray:
    """Renders sprites.

    Scale s is 0.5 … 1 in six steps, the orientation 0 … 2π in 40 (both ends included), and the
    centre goes from pixel 15.5 to 47.5 in 32 positions.

    Args:
        factors: [n, 6] class indices, in the order of `FACTOR_NAMES`.

    Returns:
        [n, 64, 64, 1] uint8, 0 or 255.
    """
    _, shape, scale, orientation, x, y = factors.T
    size = (0.5 + 0.1 * scale).astype(np.float32)
    angle = (-2.0 * np.pi * orientation / (FACTOR_SIZES[3] - 1)).astype(np.float32)
    pixels = np.arange(SIDE, dtype=np.float32)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    dx = pixels - _centre(x)[:, None]
    dy = pixels - _centre(y)[:, None]
    # Pixel centres in the frame of the upright sprite at scale 1, [n, 64, 64].
    u = (cos[:, None] * dx)[:, None, :] + (sin[:, None] * dy)[:, :, None]
    v = (cos[:, None] * dy)[:, :, None] - (sin[:, None] * dx)[:, None, :]
    image = np.empty(u.shape, bool)
    for kind, inside in enumerate((_square, _ellipse, _heart)):
        chosen = shape == kind
        image[chosen] = inside(u[chosen], v[chosen])
    return (image[..., None] * np.uint8(255)).astype(np.uint8)


def _centre(position: np.ndarray) -> np.ndarray:
    return (15.5 + 32.0 * position / 31.0).astype(np.float32)


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) <= SQUARE_HALF_SIDE


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / ELLIPSE_AXES[0]) ** 2 + (v / ELLIPSE_AXES[1]) ** 2 <= 1.0


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    centre_x, centre_y, radius = HEART_DISC
    tip, slope, top = HEART_WEDGE
    distance = abs(u)
    discs = (distance - centre_x) ** 2 + (v - centre_y) ** 2 <= radius**2
    return discs | ((distance <= slope * (tip - v)) & (v >= top))
