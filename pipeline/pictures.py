"""Pictures out of images."""

import io
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


def gif(frames: np.ndarray, *, milliseconds: int = 120) -> bytes:
    """Encodes frames [T, H, W, 1 or 3] uint8 as a GIF that repeats for ever.

    Args:
        frames: in their order.
        milliseconds: for which each is shown; GIF counts in tens.
    """
    pixels = frames[..., 0] if frames.shape[-1] == 1 else frames
    first, *others = (Image.fromarray(frame) for frame in pixels)
    file = io.BytesIO()
    first.save(
        file, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0
    )
    return file.getvalue()


def png(picture: np.ndarray) -> bytes:
    """Encodes a picture [H, W, 1 or 3], uint8 or float in [0, 1] (else clipped, NaN as 0)."""
    pixels = picture if picture.dtype == np.uint8 else to_uint8(np.nan_to_num(picture))
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()
