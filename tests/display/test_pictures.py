"""Pictures keep their pixels, texts are in their places, and animations play."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipeline.display import pictures


@pytest.mark.parametrize(("side", "factor"), [(28, 2), (32, 2), (8, 7), (64, 1), (128, 1)])
def test_pixels_are_repeated_until_an_image_is_readable(side, factor):
    images = np.random.default_rng(0).random((3, side, side + 1, 1), np.float32)
    found = pictures.enlarged(images)
    assert found.shape == (3, side * factor, (side + 1) * factor, 1)
    for i in range(factor):
        np.testing.assert_array_equal(found[:, i::factor, i::factor], images)


def test_a_frame_leaves_the_pixels_and_writes_beside_each_row_and_above_each_column():
    inside = np.random.default_rng(0).random((80, 180, 3), np.float32)
    found = pictures.framed(inside, rows=("one", "two"), columns=("a", "b", "c"), title="Title")
    height, width, _ = found.shape
    top, left = height - 80 - pictures.PAD, width - 180 - pictures.PAD
    np.testing.assert_array_equal(found[top : top + 80, left : left + 180], inside)
    for row in range(2):
        assert (found[top + 40 * row : top + 40 * (row + 1), :left] < 0.5).any()
    for column in range(3):
        part = found[top - pictures.FONT_SIZE - pictures.PAD : top]
        assert (part[:, left + 60 * column : left + 60 * (column + 1)] < 0.5).any()
    assert (found[: pictures.FONT_SIZE + pictures.PAD, : left + 40] < 0.5).any()
    assert (found[:, -pictures.PAD :] == 1).all()


def test_a_title_wider_than_the_picture_is_not_cut():
    found = pictures.framed(np.zeros((10, 10, 1), np.float32), title="a title of many words")
    assert found.shape[1] > 100
    assert (found[:, -pictures.PAD :] == 1).all()


def test_narrower_pictures_stand_on_white_when_stacked():
    found = pictures.stacked([np.zeros((2, 3, 1)), np.zeros((1, 5, 1))])
    expected = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(found[..., 0], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_plays_every_frame_for_ever(channels):
    frames = np.zeros((4, 6, 8, channels), np.uint8)
    for number in range(4):
        frames[number, :, number] = 255
    with Image.open(io.BytesIO(pictures.gif(frames, milliseconds=200))) as animation:
        assert animation.info["loop"] == 0
        found = []
        for frame in ImageSequence.Iterator(animation):
            assert frame.info["duration"] == 200
            found.append(np.asarray(frame.convert("RGB")))
    np.testing.assert_array_equal(found, np.broadcast_to(frames, (4, 6, 8, 3)))


def test_frames_come_back_as_they_were():
    frames = np.zeros((3, 8, 8, 1), np.uint8)
    for index in range(3):
        frames[index, :, index] = 255
    with Image.open(io.BytesIO(pictures.gif(frames))) as file:
        for index in range(3):
            file.seek(index)
            np.testing.assert_array_equal(np.asarray(file.convert("L")), frames[index, ..., 0])
        assert file.info["loop"] == 0


def test_frames_of_different_widths_become_alike_on_white():
    found = pictures.alike([np.zeros((2, 3, 1), np.uint8), np.zeros((2, 5, 1), np.uint8)])
    assert found.shape == (2, 2, 5, 1)
    np.testing.assert_array_equal(found[0, 0, :, 0], [0, 0, 0, 255, 255])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_images_of_any_number_of_channels_are_shown(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 2, channels)).astype(np.uint8)
    grid = pictures.grid(pictures.enlarged(images / np.float32(255)), columns=2)
    assert grid.shape[-1] == (1 if channels < 3 else 3)
    assert pictures.png(images[0]) and pictures.gif(images)
    np.testing.assert_array_equal(pictures.seen(images), images[..., : grid.shape[-1]])
    said = {1: "a", 2: "a. The first of 2 channels", 3: "a"}
    expected = said.get(channels, f"a. The first 3 of {channels} channels")
    assert pictures.caption("a", channels) == expected


def test_what_cannot_be_drawn_is_a_warning_of_one_line():
    heard = []
    assert pictures.attempted(lambda: 3, "a", heard.append) == 3
    assert pictures.attempted(lambda: 1 // 0, "heldout/samples", heard.append) is None
    assert pictures.attempted(lambda: [].index("a\nb"), "b", heard.append) is None
    assert heard[0] == (
        "heldout/samples could not be drawn and is left out "
        "(ZeroDivisionError: integer division or modulo by zero)"
    )
    assert "\n" not in heard[1]
