"""Sprites: dSprites' six factors and order, 737,280 images rendered here, with nothing to download.

Matthey et al. 2017 (dsprites-dataset). Every shape is a polygon in a few constants fitted to frames
of the published set. A row of pixels meets its outline at two or four places; those are tabulated
once for all turned and scaled shapes, so that rendering is a look-up of rows.
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
SIDE = 64  # pixels

# Pixels at scale 1, x to the right and y down from the sprite's centre, orientation 0.
SQUARE_HALF_SIDE = 9.598
ELLIPSE_AXES = (12.78, 7.22)  # the published ellipse is best met by a polygon of 64 sides
# Control points (x, y) of the heart's right half: one cubic Bézier curve from the notch to the
# flank, one from there to the tip.
HEART_LOBE = ((0.0, -5.12), (1.92, -11.91), (9.59, -9.69), (9.59, -4.05))
HEART_FLANK = ((9.59, -4.05), (9.59, 1.62), (1.06, 5.10), (0.0, 9.74))

ROWS_ABOVE = 13  # of the row that holds the centre; no corner is further than 13.58 from it
NUM_ROWS = 28
MAX_CROSSINGS = 4  # of a row of pixels with an outline: the heart's two lobes


class Sprites:
    """All combinations of the factors, the last varying fastest."""

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
        "factors": datasets.factors(FACTOR_SIZES, FACTOR_NAMES),
    }


def load(config: Any) -> dict[str, Sprites]:
    """Returns the whole set; no split is published.

    Raises:
        InputError: a path is given, as if files were to be read.
    """
    if config.path:
        raise errors.InputError(
            f"config.data.path={config.path!r} has no use for sprites, which are rendered: leave "
            "it empty, or read the published files with --config.data.name=dsprites"
        )
    _tables()  # here, so that the threads that read find them made
    return {"all": Sprites()}


def render(factors: np.ndarray) -> np.ndarray:
    """Renders sprites.

    Scale s is 0.5 … 1 in six steps, the orientation 0 … 2π in 40 (both ends included, so the first
    and the last are the same picture), and the centre goes from pixel 15.5 to 47.5 in 32 positions.

    Args:
        factors: [n, 6] class indices, in the order of `FACTOR_NAMES`.

    Returns:
        [n, 64, 64, 1] uint8, 0 or 255.
    """
    _, shape, scale, orientation, x, y = factors.T
    crossings, steps = _tables()
    columns = crossings[shape, scale, orientation, y] + _centre(x).astype(np.float32)[:, None, None]
    columns = np.minimum(np.ceil(columns), SIDE).astype(np.intp)
    # A row changes between outside and inside at each column where it crosses the outline.
    first, second, third, fourth = np.moveaxis(columns, -1, 0)
    rows = steps.take(first, axis=0) ^ steps.take(second, axis=0)
    again = third < SIDE  # few do: those through both lobes of a heart
    rows[again] ^= steps.take(third[again], axis=0) ^ steps.take(fourth[again], axis=0)
    image = np.zeros((len(factors), SIDE, SIDE), np.uint8)
    image[np.arange(len(factors))[:, None], _rows(y)] = rows.view(np.uint8)
    return image[..., None]


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Returns what rendering looks up: where rows cross outlines, and rows that begin at a column.

    Returns:
        [shape, scale, orientation, position_y, 28 rows, 4] float32: ascending x from the centre,
        infinite where there are fewer crossings. 10 MB.
        [65, 8] uint64: 64 pixels in 8 words, of which those from column k on are 255.
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
    table[:, :, -1] = table[:, :, 0]  # exactly: sin(2π) isn't 0 in floating point
    table *= scale[:, None, None, None, None]
    pixels = np.arange(SIDE) >= np.arange(SIDE + 1)[:, None]
    return table.astype(np.float32), (pixels * np.uint8(255)).view(np.uint64)


def _crossings(x: np.ndarray, y: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Returns the x, [n, 4] ascending, where the polygon (x, y) meets each of the heights [n]."""
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
    # The left half mirrors it, from the tip back up to the notch; both are on the right already.
    left = np.concatenate([np.array(HEART_FLANK[-1:]).T, right[:, :0:-1]], 1) * [[-1.0], [1.0]]
    return np.concatenate([right, left], 1)
