"""Pictures out of images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


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


def beside(texts: Sequence[str], picture: np.ndarray) -> np.ndarray:
    """Puts a margin to the left of a picture with a text for each of its equal rows.

    Args:
        texts: one a row; of characters in Latin-1.
        picture: [H, W, C] in [0, 1].

    Returns:
        [H, margin + W, C] float32 in [0, 1].
    """
    font, pad = ImageFont.load_default(), 3
    height, _, channels = picture.shape
    width = 2 * pad + max(int(font.getbbox(text)[2]) for text in texts)
    margin = Image.new("L", (width, height), "white")
    for index, text in enumerate(texts):
        _, top, _, bottom = font.getbbox(text)
        middle = height * (2 * index + 1) / (2 * len(texts))
        ImageDraw.Draw(margin).text((pad, middle - (top + bottom) / 2), text, fill=0, font=font)
    grey = np.asarray(margin, np.float32)[:, :, None] / 255.0
    return np.concatenate([np.repeat(grey, channels, axis=2), picture], axis=1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds [0, 1] to 0 … 255."""
    return np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
