"""Decodes the bytes of a PNG, JPEG or WebP file to pixels of one size.

Each unusual kind of file has a defined result, which `decode` lists.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VERSION = 1  # raise it when the same file would decode to other pixels: packed copies depend on it
FORMATS = ("PNG", "JPEG", "WEBP")


class Format(NamedTuple):
    """The format of a decoded picture: `side`×`side` pixels, 1 or 3 channels.

    The short side is scaled to `short_side`, and then the centre is cut out. If `short_side` is 0,
    the picture must already have `side`×`side` pixels.
    """

    side: int
    short_side: int
    channels: int


def decode(content: bytes, to: Format) -> np.ndarray:
    """Decodes a PNG, JPEG or WebP file.

    - EXIF's orientation is applied, and colour profiles are ignored.
    - Transparent pixels are put over white. Of 16 bits the upper 8 are kept.
    - CMYK and palettes become RGB. For one channel every picture becomes luma (ITU-R 601).
    - Of an animation only the first frame is used.
    - Scaling is bicubic with antialiasing.

    Returns:
        [side, side, channels] uint8.

    Raises:
        Exception: Pillow raises many kinds of errors on a damaged file.
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
            # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size. At no less than twice the wanted
            # size the result looks the same.
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
