"""From the bytes of a PNG, JPEG or WebP file to pixels of one size, each odd kind on purpose."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 1  # raised when the same file would give other pixels
FORMATS = ("PNG", "JPEG", "WEBP")


class Format(NamedTuple):
    """What a picture becomes: `side`×`side` pixels, 1 or 3 channels.

    The short side is first scaled to `short_side`, then the centre is cut out. Where that is 0, the
    picture must have `side`×`side` pixels already.
    """

    side: int
    short_side: int
    channels: int


def decode(content: bytes, to: Format) -> np.ndarray:
    """Decodes a PNG, JPEG or WebP file.

    Turned upright as EXIF says; transparent pixels over white; 16 bits cut to the upper 8; CMYK and
    palettes to RGB, or all to luma (ITU-R 601) for one channel; colour profiles ignored; of an
    animation the first frame. Scaling is bicubic with antialiasing.

    Returns:
        [side, side, channels] uint8.

    Raises:
        Exception: whatever Pillow raises on a damaged file.
    """
    mode = "L" if to.channels == 1 else "RGB"
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{len(content)} bytes that are no PNG, JPEG or WebP") from None
    with opened:
        if not to.short_side and opened.size != (to.side, to.side):
            raise ValueError(f"{opened.size[0]}×{opened.size[1]} pixels, not {to.side}×{to.side}")
        if to.short_side:
            # JPEG decodes at 1/2, 1/4 or 1/8 for less; twice the size keeps the result the same
            # to the eye.
            opened.draft(mode, (2 * to.short_side, 2 * to.short_side))
        image = _flatten(ImageOps.exif_transpose(opened), mode)
    if to.short_side:
        short = min(image.size)
        cut = short * to.side / to.short_side
        left, top = ((length - cut) / 2 for length in image.size)
        image = image.resize(
            (to.side, to.side),
            Image.Resampling.BICUBIC,
            box=(left, top, left + cut, top + cut),
            reducing_gap=3.0,
        )
    return np.asarray(image).reshape(to.side, to.side, to.channels)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
