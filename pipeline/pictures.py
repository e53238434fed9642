"""Pictures out of images."""

import numpy as np


def grid(images: np.ndarray, *, columns: int, gap: int = 2) -> np.ndarray:
    """Lays images out row by row on grey.

    Args:
        images: [N, H, W, C] in [0, 1].
        columns: images a row.
        gap: pixels between them.

    Returns:
        [rows·(H + gap) − gap, columns·(W + gap) − gap, C] float32 in [0, 1].
    """
    num, height, width, channels = images.shape
    rows = -(-num // columns)
    shape = (rows * (height + gap), columns * (width + gap), channels)
    canvas = np.full(shape, 0.5, np.float32)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas[: shape[0] - gap, : shape[1] - gap]
