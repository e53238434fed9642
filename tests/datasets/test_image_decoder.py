import io

import numpy as np
import pytest
from PIL import Image

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
    "content", [b"", b"text", encoded(Image.new("RGB", (8, 8)), "GIF"), b"<svg></svg>"]
)
def test_other_files_are_refused(content):
    with pytest.raises(ValueError, match=f"{len(content)} bytes that are no PNG, JPEG or WebP"):
        _image_decoder.decode(content, RGB)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused(suffix):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), suffix)
    for kept in (20, 200, len(content) // 2, len(content) - 200):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            _image_decoder.decode(content[:kept], RGB)
