"""Samples of more than 8 bits: which range they have, and their upper 8 bits.

A PNG or PPM of 16 bits fills its range by definition. A TIFF says how many bits a sample has. Some
programs write 10, 12 or 14 bits into 16 and say nothing. As such values would be nearly black, an
image of 16 bits without a value in the upper three quarters of its range is refused.
"""

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

TIFF_BITS, TIFF_MOST, TIFF_KIND = 258, 281, 339  # BitsPerSample, MaxSampleValue, SampleFormat
UNSIGNED = 1  # a SampleFormat
RARE = 14  # bits; of 16 bits some value should have more


class Depth(NamedTuple):
    """What a file says of its samples."""

    bits: int
    is_certain: bool = True  # whether the samples fill these bits
    is_unsigned: bool = True


def eight_bits(opened: Image.Image, content: bytes) -> Image.Image:
    """Loads an open image, and returns it with 8 bits a sample.

    Args:
        opened: not loaded yet.
        content: of its file.

    Raises:
        ValueError: the range of the samples isn't known; or as Pillow does on a damaged file.
    """
    depth = _depth(opened, content)
    opened.load()
    is_float = opened.mode.startswith("F")
    if is_float or not depth.is_unsigned:
        raise ValueError(
            f"{'floating-point' if is_float else 'signed'} samples, whose range is not known: save "
            "it with 8 or 16 bits without a sign"
        )
    if depth.bits > 16:
        raise ValueError(f"{depth.bits} bits a sample: save it with 8 or 16 bits")
    if opened.mode.startswith("I"):
        return _grey(opened, depth)
    if not depth.is_certain:
        # Pillow has kept the upper 8 of 16 bits of colours, and of grey with transparency.
        bands = opened.split()
        colours = bands[:-1] if opened.getbands()[-1] in "Aa" else bands
        _check_range((max(int(np.asarray(band).max()) for band in colours) << 8) + 255)
    return opened


def _grey(opened: Image.Image, depth: Depth) -> Image.Image:
    samples = np.asarray(opened).astype(np.int64)
    highest = int(samples.max())
    if highest >= 1 << depth.bits:
        raise ValueError(f"a sample of {highest}, although the file says {depth.bits} bits")
    if not depth.is_certain:
        _check_range(highest)
    grey = Image.fromarray((samples >> (depth.bits - 8)).astype(np.uint8))
    clear = opened.info.get("transparency")
    if isinstance(clear, int):  # a PNG may name one grey that is transparent
        grey.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
    return grey


def _check_range(highest: int) -> None:
    if 0 < highest < 1 << RARE:
        raise ValueError(
            f"16 bits a sample, and no value above {highest}: if it holds "
            f"{max(8, highest.bit_length())} bits or so, scale its values to 0 … 65535, or save "
            "it with 8 bits"
        )


def _depth(opened: Image.Image, content: bytes) -> Depth:
    if opened.format == "PNG":
        bits = content[24]  # IHDR is the first chunk
        return Depth(bits, is_certain=bits < 16)
    if opened.format == "TIFF":
        tags = opened.tag_v2  # type: ignore[attr-defined]
        bits, kind, most = (
            int(np.max(tags.get(tag, default)))
            for tag, default in ((TIFF_BITS, 1), (TIFF_KIND, UNSIGNED), (TIFF_MOST, 0))
        )
        if opened.mode.startswith("I") and 255 < most < 65535:
            return Depth(most.bit_length(), is_unsigned=kind == UNSIGNED)
        return Depth(bits, is_certain=bits != 16, is_unsigned=kind == UNSIGNED)
    if opened.format == "PPM":
        # Pillow scales the file's own range to 8 bits, or to 16 of grey.
        grey = 16 if opened.mode.startswith("I") else 8
        return Depth(16, is_certain=False) if _ppm_range(content) == 65535 else Depth(grey)
    return Depth(8)


def _ppm_range(content: bytes) -> int:
    """Returns the largest value that a PPM or PGM says that it may hold."""
    header = re.sub(rb"#[^\r\n]*", b" ", content[:4096]).split(maxsplit=4)
    return int(header[3]) if header[0] in (b"P2", b"P3", b"P5", b"P6") else 0
