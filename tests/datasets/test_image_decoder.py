import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.datasets import _image_decoder

RGB = _image_decoder.Format(side=8, short_side=8, channels=3)
GREY = RGB._replace(channels=1)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def encoded(image, suffix="PNG", **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def grey(values):
    return Image.fromarray(np.full((8, 8), values))


@pytest.mark.parametrize("options", [{"suffix": "PNG"}, {"suffix": "WEBP", "lossless": True}])
def test_an_image_of_the_size_keeps_its_pixels(options):
    pixels = _image_decoder.decode(encoded(Image.fromarray(COLOURS), **options), RGB)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, COLOURS)


def test_a_jpeg_of_the_size_is_what_pillow_decodes():
    content = encoded(Image.fromarray(COLOURS), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(_image_decoder.decode(content, RGB), expected)


def test_one_channel_is_luma_and_a_grey_image_becomes_three():
    luma = Image.fromarray(COLOURS).convert("L")
    pixels = _image_decoder.decode(encoded(Image.fromarray(COLOURS)), GREY)
    np.testing.assert_array_equal(pixels[..., 0], luma)
    pixels = _image_decoder.decode(encoded(luma), RGB)
    np.testing.assert_array_equal(pixels, np.stack([luma] * 3, -1))


def test_transparent_pixels_are_white_whatever_colour_they_hide():
    image = Image.fromarray(np.dstack([COLOURS, np.full((8, 8), 255, np.uint8)]))
    image.putpixel((3, 2), (9, 9, 9, 0))
    image.putpixel((4, 2), (0, 0, 0, 127))
    pixels = _image_decoder.decode(encoded(image), RGB)
    np.testing.assert_array_equal(pixels[2, 3], [255] * 3)
    np.testing.assert_array_equal(pixels[2, 4], [128] * 3)
    np.testing.assert_array_equal(pixels[3:], COLOURS[3:])


def test_a_palette_is_resolved_with_its_transparent_colour():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    pixels = _image_decoder.decode(encoded(image), RGB)
    np.testing.assert_array_equal(pixels[0, :2], [[10, 20, 30], [40, 50, 60]])
    pixels = _image_decoder.decode(encoded(image, transparency=0), RGB)
    np.testing.assert_array_equal(pixels[0, :2], [[255] * 3, [40, 50, 60]])


@pytest.mark.parametrize("to", [RGB, GREY])
def test_sixteen_bits_keep_the_upper_eight(to):
    content = encoded(grey(np.uint16(0xABCD)))
    assert np.unique(_image_decoder.decode(content, to)).tolist() == [0xAB]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = Image.new("L", (8, 8), 255).convert(mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(_image_decoder.decode(content, RGB), np.full((8, 8, 3), 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_undone(orientation):
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(COLOURS)
    stored = image.transpose(inverse[orientation]) if orientation in inverse else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = _image_decoder.decode(encoded(stored, exif=exif), RGB)
    np.testing.assert_array_equal(pixels, COLOURS)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(400, 80), (80, 400), (81, 97)])
def test_the_short_side_is_scaled_and_the_centre_cut_out(suffix, width, height):
    # Red marks the central square that remains, blue the parts that are cut off.
    short = min(width, height)
    image = Image.new("RGB", (width, height), (0, 0, 255))
    left, top = (width - short) // 2, (height - short) // 2
    image.paste((255, 0, 0), (left, top, left + short, top + short))
    pixels = _image_decoder.decode(encoded(image, suffix), RGB)
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[2:-2, 2:-2, 0], 255, atol=40)
    np.testing.assert_allclose(pixels[2:-2, 2:-2, 2], 0, atol=40)


def test_a_larger_short_side_leaves_a_smaller_part_of_the_image():
    image = Image.new("RGB", (64, 64), (0, 0, 255))
    image.paste((255, 0, 0), (16, 16, 48, 48))
    to = _image_decoder.Format(side=8, short_side=16, channels=3)
    pixels = _image_decoder.decode(encoded(image), to)
    # The resize filter mixes in two pixels from beyond the cut.
    np.testing.assert_array_equal(pixels[2:-2, 2:-2], np.full((4, 4, 3), np.uint8([255, 0, 0])))


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 300), (300, 2)])
def test_tiny_and_narrow_images_are_enlarged(suffix, size):
    content = encoded(Image.new("RGB", size, "white"), suffix)
    np.testing.assert_array_equal(_image_decoder.decode(content, RGB), np.full((8, 8, 3), 255))


def test_the_jpeg_decoder_s_reduction_is_close_to_none():
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((800, 800))
    content = encoded(smooth, "JPEG", quality=95)
    whole = np.asarray(smooth.resize((8, 8), Image.Resampling.BICUBIC), int)
    pixels = _image_decoder.decode(content, RGB).astype(int)
    assert np.abs(pixels - whole).max() <= 3


def test_an_image_of_another_size_is_refused_where_none_is_scaled():
    to = RGB._replace(short_side=0)
    np.testing.assert_array_equal(
        _image_decoder.decode(encoded(Image.fromarray(COLOURS)), to), COLOURS
    )
    with pytest.raises(ValueError, match="8×4 pixels, not 8×8"):
        _image_decoder.decode(encoded(Image.new("RGB", (8, 4))), to)


@pytest.mark.parametrize(
    "content", [b"", b"text", encoded(Image.new("RGB", (8, 8)), "PCX"), b"<svg></svg>"]
)
def test_other_files_are_refused(content):
    with pytest.raises(
        ValueError, match=f"{len(content)} bytes that are no PNG, JPEG, WebP, BMP, GIF"
    ):
        _image_decoder.decode(content, RGB)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused(suffix):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), suffix)
    for kept in (20, 200, len(content) // 2, len(content) - 200):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            _image_decoder.decode(content[:kept], RGB)


def tiff(bits, value, **tags):
    """Returns a grey TIFF of 8×8 samples of any number of bits, with further tags by number."""
    rows = 8 * int(f"{value:0{bits}b}" * 8, 2).to_bytes(bits, "big")
    fields = {256: 8, 257: 8, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: len(rows)}
    fields |= {int(name[1:]): number for name, number in tags.items()}
    content = b"II*\0" + struct.pack("<I", 8 + len(rows))
    content += rows if bits != 16 else 64 * struct.pack("<H", value)
    content += struct.pack("<H", len(fields))
    for tag, number in sorted(fields.items()):
        content += struct.pack("<HHII", tag, 4, 1, number)
    return content + bytes(4)


def pnm(kind, most, value):
    values = np.full(64 * (3 if kind == 6 else 1), value, ">u2" if most > 255 else "u1")
    return f"P{kind}\n# a comment 1 2\n8 8\n{most}\n".encode() + values.tobytes()


def chunk(kind, body, check=None):
    check = zlib.crc32(kind + body) if check is None else check
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(kind, bits, samples, extra=b"", after=b""):
    """Returns a PNG of 8×8 equal pixels; `kind` is the colour type."""
    header = struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0)
    row = b"\0" + 8 * np.array(samples, ">u2" if bits == 16 else "u1").tobytes()
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(8 * row)) + after
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize(("width", "height"), [(81, 8), (8, 9), (11, 8), (8, 8), (8, 256)])
def test_a_centre_crop_without_resizing_cuts_whole_pixels(suffix, width, height):
    colours = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    left, top = (width - 8) // 2, (height - 8) // 2
    pixels = _image_decoder.decode(encoded(Image.fromarray(colours), suffix), RGB)
    np.testing.assert_array_equal(pixels, colours[top : top + 8, left : left + 8])
    # The same for a part of the short side, if the image has that size.
    pixels = _image_decoder.decode(
        encoded(Image.fromarray(colours), suffix), _image_decoder.Format(4, 8, 3)
    )
    left, top = (width - 4) // 2, (height - 4) // 2
    np.testing.assert_array_equal(pixels, colours[top : top + 4, left : left + 4])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(12, 4095), 255),
        (tiff(12, 2048), 128),
        (tiff(12, 100), 6),  # dark, in a range that the file declares
        (tiff(16, 4095, t281=4095), 255),
        (tiff(16, 1023, t281=1023), 255),
        (tiff(16, 40000), 156),
        (tiff(16, 0), 0),
        (tiff(4, 15), 255),
        (tiff(1, 1), 255),
        (pnm(5, 1023, 1023), 255),
        (pnm(5, 4095, 100), 6),
        (pnm(6, 4095, 4095), 255),
        (pnm(5, 255, 7), 7),
        (pnm(5, 65535, 40000), 156),
        (png(0, 16, [40000]), 156),
        (png(2, 16, [40000, 40000, 40000]), 156),
        (png(6, 16, [40000, 40000, 40000, 65535]), 156),
        (png(4, 16, [40000, 65535]), 156),
        (png(0, 16, [40000], chunk(b"tRNS", struct.pack(">H", 40000))), 255),
    ],
)
def test_samples_of_more_bits_are_scaled_by_their_range(content, expected):
    assert np.unique(_image_decoder.decode(content, RGB)).tolist() == [expected]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(0, 16, [1023]), "no value above 1023: if it holds 10 bits or so, scale its values"),
        (png(0, 16, [4095]), "no value above 4095: if it holds 12 bits or so"),
        (png(0, 16, [16383]), "no value above 16383: if it holds 14 bits or so"),
        (png(2, 16, [4095, 0, 0]), "no value above 4095"),
        (png(6, 16, [4095, 0, 0, 65535]), "no value above 4095"),
        (png(4, 16, [255, 65535]), "no value above 255"),
        (tiff(16, 4095), "no value above 4095"),
        (pnm(5, 65535, 4095), "no value above 4095"),
        (pnm(6, 65535, 1000), "16 bits a sample, and no value above"),
        (tiff(16, 30000, t339=2), "signed samples, whose range is not known"),
        (encoded(grey(np.float32(0.5)), "TIFF"), "floating-point samples, whose range"),
        (encoded(grey(np.int32(70000)), "TIFF"), "signed samples"),
        (tiff(10, 1023), "of a rare kind: save it as PNG"),
    ],
)
def test_samples_whose_range_is_not_known_are_refused_with_the_repair(content, words):
    with pytest.raises(ValueError, match=words):
        _image_decoder.decode(content, RGB)


LARGE = zlib.compress(bytes(2**21))


@pytest.mark.parametrize(
    ("extra", "after"),
    [
        (chunk(b"zTXt", b"key\0\0" + LARGE), b""),
        (chunk(b"iTXt", b"key\0\1\0\0\0" + LARGE), b""),
        (b"", chunk(b"zTXt", b"key\0\0" + LARGE)),
        (chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**26))), b""),
        (chunk(b"tEXt", b"key\0text", check=1), b""),
        (chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), b""),
        (chunk(b"eXIf", b"text"), b""),
        (chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff", check=1), b""),
        (b"", b"rubbish"),
    ],
)
def test_a_png_is_decoded_whatever_lies_beside_its_whole_pixels(extra, after):
    pixels = _image_decoder.decode(png(2, 8, [9, 8, 7], extra, after), RGB)
    np.testing.assert_array_equal(pixels, np.full((8, 8, 3), [9, 8, 7]))


@pytest.mark.parametrize("suffix", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0text",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xffrubbish",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\6\0\0",
    ],
)
@pytest.mark.filterwarnings("ignore:.*EXIF.*", "ignore:Tag data")
def test_a_picture_with_damaged_exif_is_decoded(suffix, exif):
    content = encoded(Image.new("RGB", (8, 8), "white"), suffix, exif=exif)
    np.testing.assert_array_equal(_image_decoder.decode(content, RGB), np.full((8, 8, 3), 255))


def test_a_png_without_whole_pixels_stays_refused():
    content = bytearray(png(2, 8, [9, 8, 7], chunk(b"zTXt", b"key\0\0" + LARGE)))
    content[content.index(b"IDAT") + 6] ^= 1
    with pytest.raises((OSError, ValueError, SyntaxError)):
        _image_decoder.decode(bytes(content), RGB)


@pytest.mark.parametrize("suffix", ["GIF", "BMP", "TIFF", "PPM", "DIB"])
def test_further_formats_are_read(suffix):
    pixels = _image_decoder.decode(encoded(Image.new("RGB", (8, 8), "red"), suffix), RGB)
    np.testing.assert_array_equal(pixels, np.full((8, 8, 3), [255, 0, 0]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(COLOURS), "TIFF", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(_image_decoder.decode(content, RGB), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((96, 32), (0, 0, 96, 32)),
        ((192, 64), (0, 0, 192, 64)),
        ((300, 64), (54, 0, 246, 64)),  # too wide: the left and the right are cut off
        ((192, 100), (0, 18, 192, 82)),  # too high
        ((48, 16), (0, 0, 48, 16)),
    ],
)
def test_an_oblong_picture_shows_the_centre_of_what_covers_it(size, box):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    to = _image_decoder.Format(side=(32, 96), short_side=32, channels=3)
    found = _image_decoder.decode(encoded(image, "PNG"), to)
    expected = image.resize((96, 32), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    assert found.shape == (32, 96, 3)
    np.testing.assert_array_equal(found, np.asarray(expected))
