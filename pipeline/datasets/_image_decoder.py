"""Decodes the bytes of an image file to pixels of one size.

Each unusual kind of file has a defined result, which `decode` lists.
"""

import contextlib
import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.datasets import _sample_depth

VERSION = 2  # raise it when the same file would decode to other pixels: packed copies depend on it
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
FORMAT_NAMES = "PNG, JPEG, WebP, BMP, GIF, TIFF or PPM"
PNG = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")  # the chunks that decide pixels
PNG_EXIF = b"eXIf"
ORIENTATION = 0x0112  # EXIF's tag
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Format(NamedTuple):
    """The format of a decoded picture: `side`×`side` pixels, or (height, width); 1 or 3 channels.

    The short side is scaled to `short_side`, and then the centre is cut out. If `short_side` is 0,
    the picture must already have these pixels. If the sides differ, the picture is scaled until it
    just covers them, whatever `short_side` is.
    """

    side: int | tuple[int, int]
    short_side: int
    channels: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        height, width = self.shape[:2]
        return width, height

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H, W, C]."""
        sides = (self.side, self.side) if isinstance(self.side, int) else self.side
        return *sides, self.channels


def decode(content: bytes, to: Format) -> np.ndarray:
    """Decodes a file of one of the FORMATS.

    - EXIF's orientation is applied if it can be read, and colour profiles are ignored.
    - Transparent pixels are put over white.
    - Of 10, 12, 14 or 16 bits the upper 8 are kept, see `_sample_depth`.
    - CMYK and palettes become RGB. For one channel every picture becomes luma (ITU-R 601).
    - Of an animation, and of several pages, only the first is used.
    - Scaling is bicubic with antialiasing. A picture whose short side has the size already is only
      cut, at whole pixels: if the margins cannot be equal, the left or upper one is smaller.

    Returns:
        [H, W, channels] uint8.

    Raises:
        Exception: Pillow raises many kinds of errors on a damaged file.
    """
    try:
        return _decoded(content, to)
    except Exception:
        # Texts, profiles and EXIF may be damaged or too large beside whole pixels.
        if bare := _bare(content):
            with contextlib.suppress(Exception):
                return _decoded(bare, to)
        raise


def _decoded(content: bytes, to: Format) -> np.ndarray:
    mode = "L" if to.channels == 1 else "RGB"
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(
            f"{len(content)} bytes that are no {FORMAT_NAMES}, or of a rare kind: save it as PNG"
        ) from None
    with opened:
        if not to.short_side and opened.size != to.size:
            sizes = ["×".join(map(str, size)) for size in (opened.size, to.size)]
            raise ValueError(f"{sizes[0]} pixels, not {sizes[1]}")
        if to.short_side:
            # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size. At no less than twice the wanted
            # size the result looks the same.
            least = 2 * max(to.short_side, *to.size)  # of both sides: the picture may be turned
            opened.draft(mode, (least, least))
        image = _flatten(_upright(_sample_depth.eight_bits(opened, content), opened), mode)
    if to.short_side:
        image = _centre(image, to)
    return np.asarray(image).reshape(to.shape)


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Returns the image turned as the file's EXIF says; damaged EXIF says nothing."""
    try:
        method = TURNED.get(opened.getexif().get(ORIENTATION, 1))
    except Exception:  # parsers of EXIF and XMP raise any error on damaged bytes
        method = None
    return image if method is None else image.transpose(method)


def _centre(image: Image.Image, to: Format) -> Image.Image:
    if not isinstance(to.side, int):
        return _covering(image, to.size)
    short = min(image.size)
    if short == to.short_side:
        x, y = ((length - to.side) // 2 for length in image.size)
        return image.crop((x, y, x + to.side, y + to.side))
    cut = short * to.side / to.short_side
    left, top = ((length - cut) / 2 for length in image.size)
    return image.resize(
        (to.side, to.side),
        Image.Resampling.BICUBIC,
        box=(left, top, left + cut, top + cut),
        reducing_gap=3.0,
    )


def _covering(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns the centre of an image, scaled until it just covers (width, height)."""
    # Whole numbers, so that an image of this size or shape is never scaled by a rounding error.
    (width, height), (w, h) = image.size, size
    cut = (height * w / h, height) if width * h >= height * w else (width, width * h / w)
    if cut == size:
        x, y = (width - w) // 2, (height - h) // 2
        return image.crop((x, y, x + w, y + h))
    left, top = (width - cut[0]) / 2, (height - cut[1]) / 2
    box = (left, top, left + cut[0], top + cut[1])
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _bare(content: bytes) -> bytes | None:
    """Returns a PNG with only the chunks that decide its pixels; None if they aren't whole."""
    if not content.startswith(PNG):
        return None
    kept, position = [PNG], len(PNG)
    while position + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, position)
        chunk = content[position : position + 12 + size]
        position += len(chunk)
        whole = len(chunk) == 12 + size
        whole = whole and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if chunk[4:8] in PNG_PIXELS and not whole:
            return None
        if chunk[4:8] in (*PNG_PIXELS, PNG_EXIF) and whole:
            kept.append(chunk)
    kept.append(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    return b"".join(kept)
