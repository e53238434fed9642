"""Sprites: dSprites' six factors and order, 737,280 images rendered here, with nothing to download.

Matthey et al. 2017 (dsprites-dataset). Every shape is a polygon with a few constants, which were
fitted to images of the published set. A row of pixels crosses an outline at two or four places. A
table holds these places for all rotated and scaled shapes, so that rendering looks up rows.
"""

import functools
import math
from typing import Any

import jax
import numpy as np

from pipeline import datasets
from pipeline.runtime import errors

FACTOR_NAMES = ("color", "shape", "scale", "orientation", "position_x", "position_y")
FACTOR_SIZES = (1, 3, 6, 40, 32, 32)
CLASS_NAMES = {"color": ("white",), "shape": ("square", "ellipse", "heart")}
SIDE = 64  # pixels

# In pixels at scale 1 and orientation 0, from the sprite's centre: x to the right, y down.
SQUARE_HALF_SIDE = 9.598
ELLIPSE_AXES = (12.78, 7.22)  # a polygon of 64 sides matches the published ellipse best
# Control points (x, y) of the heart's right half: a cubic Bézier curve from the notch to the flank,
# and one from the flank to the tip.
HEART_LOBE = ((0.0, -5.12), (1.92, -11.91), (9.59, -9.69), (9.59, -4.05))
HEART_FLANK = ((9.59, -4.05), (9.59, 1.62), (1.06, 5.10), (0.0, 9.74))

ROWS_ABOVE = 13  # above the row of the centre; no corner is further than 13.58 pixels from it
NUM_ROWS = 28
MAX_CROSSINGS = 4  # of a row of pixels and an outline, in the heart's two lobes


class Sprites:
    """All combinations of the factors, in an order in which the last varies fastest."""

    def __len__(self) -> int:
        """Returns 737,280."""
        return math.prod(FACTOR_SIZES)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `image` [n, 64, 64, 1] uint8 in {0, 255} and `factors` [n, 6] int32."""
        factors = np.stack(np.unravel_index(indices, FACTOR_SIZES), axis=-1).astype(np.int32)
        return {"image": render(factors), "factors": factors}


def spec(config: Any) -> dict[str, Any]:
    """Returns one abstract example."""
    del config
    return {
        "image": jax.ShapeDtypeStruct((SIDE, SIDE, 1), np.uint8),
        "factors": datasets.factors(FACTOR_SIZES, FACTOR_NAMES, CLASS_NAMES),
    }


def load(config: Any) -> dict[str, Sprites]:
    """Returns the whole set; no splits are published.

    Raises:
        InputError: `config.path` is not empty, although there are no files to read.
    """
    if config.path:
        raise errors.InputError(
            f"config.data.path={config.path!r} has no use for sprites, which are rendered: leave "
            "it empty, or read the published files with --config.data.name=dsprites"
        )
    _tables()  # built before threads read, so that they do not all build it at the same time
    return {"all": Sprites()}


def render(factors: np.ndarray) -> np.ndarray:
    """Renders sprites.

    The scale takes 6 values from 0.5 to 1, and the centre 32 positions from pixel 15.5 to 47.5. The
    orientation takes 40 values from 0 to 2π, so the first and the last are the same picture.

    Args:
        factors: [n, 6] class indices, in the order of `FACTOR_NAMES`.

    Returns:
        [n, 64, 64, 1] uint8, 0 or 255.
    """
    _, shape, scale, orientation, x, y = factors.T
    crossings, steps = _tables()
    columns = crossings[shape, scale, orientation, y] + _centre(x).astype(np.float32)[:, None, None]
    columns = np.minimum(np.ceil(columns), SIDE).astype(np.intp)
    # A row changes between outside and inside at each column in which it crosses the outline.
    first, second, third, fourth = np.moveaxis(columns, -1, 0)
    rows = steps.take(first, axis=0) ^ steps.take(second, axis=0)
    again = third < SIDE  # only a few rows: those through both lobes of a heart
    rows[again] ^= steps.take(third[again], axis=0) ^ steps.take(fourth[again], axis=0)
    image = np.zeros((len(factors), SIDE, SIDE), np.uint8)
    image[np.arange(len(factors))[:, None], _rows(y)] = rows.view(np.uint8)
    return image[..., None]


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Returns the crossings of rows with outlines, and rows that begin at a column.

    Returns:
        [shape, scale, orientation, position_y, 28 rows, 4] float32: ascending x of the crossings,
        from the centre; infinite if there are fewer than 4. It takes 10 MB.
        [65, 8] uint64: row k is 64 pixels in 8 words; the pixels from column k on are 255.
    """
    _, num_shapes, num_scales, num_orientations, _, num_positions = FACTOR_SIZES
    position = np.arange(num_positions)
    scale = 0.5 + 0.1 * np.arange(num_scales)
    height = _rows(position) - _centre(position)[:, None]
    height = height / scale[:, None, None]
    table = np.empty((num_shapes, num_scales, num_orientations, *height.shape[1:], MAX_CROSSINGS))
    for shape, outline in enumerate((square(), ellipse(), heart())):
        for orientation in range(num_orientations - 1):
            angle = -2.0 * math.pi * orientation / (num_orientations - 1)
            turned = (outline[0] + 1j * outline[1]) * np.exp(1j * angle)
            found = _crossings(turned.real, turned.imag, height.ravel())
            table[shape, :, orientation] = found.reshape(*height.shape, MAX_CROSSINGS)
    table[:, :, -1] = table[:, :, 0]  # copied, because sin(2π) is not 0 in floating point
    table *= scale[:, None, None, None, None]
    pixels = np.arange(SIDE) >= np.arange(SIDE + 1)[:, None]
    return table.astype(np.float32), (pixels * np.uint8(255)).view(np.uint64)


def _crossings(x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Returns the ascending x, [n, 4], at which the polygon (x, y) crosses each of n heights."""
    below = heights[:, None] > y
    line, edge = np.nonzero(below != np.roll(below, -1, axis=1))
    end = (edge + 1) % len(y)
    found = x[edge] + (heights[line] - y[edge]) * (x[end] - x[edge]) / (y[end] - y[edge])
    rank = np.arange(len(line)) - np.searchsorted(line, line)
    crossings = np.full((len(heights), MAX_CROSSINGS), np.inf)
    crossings[line, rank] = found[np.lexsort((found, line))]
    return crossings


def _centre(position: np.ndarray) -> np.ndarray:
    return 15.5 + 32.0 * position / 31.0


def _rows(position: np.ndarray) -> np.ndarray:
    """Returns the rows of the image, [n, 28], that a sprite at `position` [n] may touch."""
    first = np.floor(_centre(position)).astype(np.intp) - ROWS_ABOVE
    return first[:, None] + np.arange(NUM_ROWS)


def square() -> np.ndarray:
    """Returns the corners, [2, 4], at scale 1 and orientation 0, in pixels from the centre."""
    return SQUARE_HALF_SIDE * np.array([[-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])


def ellipse() -> np.ndarray:
    """Returns the corners, [2, 64], at scale 1 and orientation 0, in pixels from the centre."""
    angle = 2.0 * math.pi * np.arange(64) / 64
    return np.stack([ELLIPSE_AXES[0] * np.cos(angle), ELLIPSE_AXES[1] * np.sin(angle)])


def heart() -> np.ndarray:
    """Returns the corners, [2, 128], at scale 1 and orientation 0, in pixels from the centre."""
    t = np.arange(32) / 32
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    right = np.concatenate([np.array(HEART_LOBE).T @ weights, np.array(HEART_FLANK).T @ weights], 1)
    # The left half is the mirror image, from the tip back up to the notch. The right half already
    # has the notch; the tip is added here.
    left = np.concatenate([np.array(HEART_FLANK[-1:]).T, right[:, :0:-1]], 1) * [[-1.0], [1.0]]
    return np.concatenate([right, left], 1)
