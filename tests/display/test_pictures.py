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
