"""How an image is kept in a shard: its pixels, or the bytes of a JPEG or PNG.

A JPEG that needs no scaling keeps its own bytes, so that it decodes to the same pixels as ever.
Every other image becomes a JPEG of quality 95 without subsampled colours, or a PNG, which loses
nothing.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipeline.datasets import _image_decoder

QUALITY = 95
MOST_PIXELS = 2  # times those that are kept of it: a larger JPEG is cut and encoded again
PIXELS_UP_TO = 128  # pixels a side: what "auto" stores decoded


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Decodes oddities without a warning, and refuses images of too many pixels.

    Filters of warnings belong to the whole process, so this begins before its threads do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decoded(content: bytes | np.ndarray, to: _image_decoder.Format) -> np.ndarray:
    """Returns the pixels [H, W, C] uint8 of a file or of an array.

    Raises:
        Exception: Pillow raises many kinds of errors on a damaged file.
    """
    if isinstance(content, bytes):
        return _image_decoder.decode(content, to)
    return _image_decoder.fitted(content, to)


def encoded(content: bytes | np.ndarray, to: _image_decoder.Format, encoding: str) -> bytes:
    """Returns the bytes of a JPEG or PNG, which `decoded` turns into the pixels.

    Raises:
        Exception: the image cannot be decoded; Pillow raises many kinds of errors.
    """
    with warnings.catch_warnings(record=True) as oddities:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pixels = decoded(content, to)
    # An oddity would be warned of at every later reading.
    if encoding == "jpeg" and isinstance(content, bytes) and not oddities and _fits(content, to):
        return content
    image = Image.fromarray(pixels[..., 0] if to.channels == 1 else pixels)
    file = io.BytesIO()
    if encoding == "jpeg":
        image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _fits(content: bytes, to: _image_decoder.Format) -> bool:
    """Says whether a file is a JPEG that is only cut, and little of it."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        if image.format != "JPEG":
            return False
        if not isinstance(to.side, int):
            return image.size == to.size and not image.getexif()  # which could turn it
        few = width * height <= MOST_PIXELS * to.side * to.side
        return min(image.size) == to.short_side == to.side and few


def stored(shape: tuple[int, int, int]) -> _image_decoder.Format:
    """Returns the format in which `encoded` images of a shape [H, W, C] are decoded."""
    height, width, channels = shape
    side = height if height == width else (height, width)
    return _image_decoder.Format(side, min(height, width), channels)
