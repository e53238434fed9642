"""Pictures made of images: grids, frames with texts, and animations.

Pixels are enlarged by whole factors and never smoothed, so a picture shows exactly what the model
made. Signals, which have one column of pixels, are drawn as curves.
"""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.display import curves

LONGEST = 512  # pixels of an image's long side, beyond which nothing is enlarged
READABLE = 56  # pixels of an image's short side, so that a person can read it among many
FONT_SIZE = 12  # pixels
PAD = 5  # pixels around a text


def grid(images: np.ndarray, *, columns: int, gap: int = 2) -> np.ndarray:
    """Puts images on grey, row by row.

    Args:
        images: [N, H, W, C] in [0, 1], with any number of channels; see `seen`.
        columns: number of images in a row.
        gap: number of pixels between images.

    Returns:
        [rows·(H + gap) − gap, columns·(W + gap) − gap, 1 or 3] float32 in [0, 1].
    """
    images = seen(images)
    num, height, width, channels = images.shape
    rows = -(-num // columns)
    shape = (rows * (height + gap), columns * (width + gap), channels)
    canvas = np.full(shape, 0.5, np.float32)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas[: shape[0] - gap, : shape[1] - gap]


def seen(images: np.ndarray) -> np.ndarray:
    """Returns images [..., 1 or 3] of images [..., C]: the first of two, or the first three."""
    return images[..., : 3 if images.shape[-1] > 2 else 1]


def caption(text: str, channels: int) -> str:
    """Returns a picture's title with what `seen` shows of so many channels, if that isn't all."""
    part = {1: "", 3: "", 2: "The first of 2 channels"}.get(channels)
    part = f"The first 3 of {channels} channels" if part is None else part
    return ". ".join(filter(None, (text, part)))


def enlarged(images: np.ndarray, *, side: int = READABLE) -> np.ndarray:
    """Repeats pixels of images [N, H, W, C] in [0, 1] so that the short side has `side` or more.

    An image's long side stays below `LONGEST` pixels, or as it is. Signals become curves.
    """
    if curves.fit(images):
        return curves.drawn(seen(images))
    short, long = sorted(images.shape[1:3])
    factor = max(1, min(-(-side // short), LONGEST // long))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def framed(
    picture: np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
) -> np.ndarray:
    """Puts a white frame with texts around a picture; texts use only characters of Latin-1.

    Args:
        picture: [H, W, C] in [0, 1].
        rows: a text for each row of the picture, to its left; rows are equally high.
        columns: a text of one or more lines for each column, above it; columns are equally wide.
        title: a text above everything.

    Returns:
        [top + H + margin, left + W + margin, C] float32 in [0, 1].
    """
    # The frame is as wide as its texts need.
    height, width, channels = picture.shape
    titled = _size(title)[1] + PAD if title else 0
    left = PAD + (max(_size(text)[0] for text in rows) + PAD if rows else 0)
    top = PAD + titled + (max(_size(text)[1] for text in columns) + PAD if columns else 0)
    wide = max(left + width, PAD + _size(title)[0]) + PAD
    frame = Image.new("L", (wide, top + height + PAD), "white")
    # Each text is centred on its row or column.
    draw, font = ImageDraw.Draw(frame), _font()
    draw.text((PAD, PAD), title, fill=0, font=font, anchor="la")
    for index, text in enumerate(rows):
        middle = top + height * (2 * index + 1) / (2 * len(rows))
        draw.text((left - PAD, middle), text, fill=0, font=font, anchor="rm", align="right")
    for index, text in enumerate(columns):
        middle = left + width * (2 * index + 1) / (2 * len(columns))
        draw.text((middle, top - PAD), text, fill=0, font=font, anchor="md", align="center")
    # The picture's pixels are copied last, so that they stay exactly as they are.
    grey = np.asarray(frame, np.float32)[:, :, None] / np.float32(255.0)
    canvas = np.repeat(grey, channels, axis=2)
    canvas[top : top + height, left : left + width] = picture
    return canvas


def alike(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures [H, W, C] uint8 as one array; white fills the right of narrower ones."""
    width = max(frame.shape[1] for frame in frames)
    return np.stack([
        np.pad(frame, ((0, 0), (0, width - frame.shape[1]), (0, 0)), constant_values=255)
        for frame in frames
    ])  # fmt: skip


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures [H, W, C] in [0, 1] below each other; white fills the side of narrow ones."""
    width = max(part.shape[1] for part in parts)
    padded = [
        np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=1.0)
        for part in parts
    ]
    return np.concatenate(padded)


def attempted(draw: Callable[[], Any], name: str, warn: Callable[[str], None]) -> Any:
    """Returns what `draw` makes, or None after a warning: no run may end because of a picture.

    Args:
        draw: computes nothing that other processes take part in.
        name: of what is drawn, for the warning.
        warn: is called with the warning, one line.
    """
    try:
        return draw()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warn(f"{name} could not be drawn and is left out ({reason[:200]})")
        return None


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds [0, 1] to 0 … 255."""
    return np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def gif(frames: np.ndarray, *, milliseconds: int = 120) -> bytes:
    """Encodes frames [T, H, W, C] uint8 as a GIF that repeats for ever.

    Args:
        frames: in the order in which they are shown.
        milliseconds: time for which each frame is shown; GIF counts in steps of 10.
    """
    frames = seen(frames)
    pixels = frames[..., 0] if frames.shape[-1] == 1 else frames
    first, *others = (Image.fromarray(frame) for frame in pixels)
    file = io.BytesIO()
    first.save(
        file, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0
    )
    return file.getvalue()


def png(picture: np.ndarray) -> bytes:
    """Encodes a picture [H, W, C], uint8 or float; floats are clipped to [0, 1], NaN is 0."""
    picture = seen(picture)
    pixels = picture if picture.dtype == np.uint8 else to_uint8(np.nan_to_num(picture))
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def _size(text: str) -> tuple[int, int]:
    """Returns the width and height of a text in pixels, with the descenders of its last line."""
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    box = draw.multiline_textbbox((0, 0), text, font=_font())
    lines = text.count("\n") + 1
    return int(box[2]) + 1, lines * (FONT_SIZE + 4)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
