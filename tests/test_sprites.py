from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import sprites

FRAMES = Path(__file__).parents[2] / "shared" / "data" / "dsprites_reference_frames.npz"


@pytest.mark.skipif(not FRAMES.exists(), reason="the reference frames of dSprites are not at hand")
def test_sprites_cover_the_true_frames():
    with np.load(FRAMES, allow_pickle=False) as frames:
        images, factors = frames["imgs"].astype(bool), frames["latents_classes"]
    rendered = sprites.render(factors)[..., 0] > 0
    union = (rendered & images).sum((1, 2)) / (rendered | images).sum((1, 2))
    assert union.mean() >= 0.97
    assert union.min() >= 0.90


def test_the_order_is_that_of_the_factors_with_the_last_varying_fastest():
    source = sprites.Sprites()
    assert len(source) == 737_280
    first = source.read(np.arange(34))["factors"]
    np.testing.assert_array_equal(first[31], [0, 0, 0, 0, 0, 31])
    np.testing.assert_array_equal(first[33], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(
        source.read(np.array([737_279]))["factors"][0], [0, 2, 5, 39, 31, 31]
    )


def test_images_match_their_specification_and_are_binary():
    image = sprites.Sprites().read(np.arange(0, 737_280, 9_999))["image"]
    spec = sprites.spec(None)["image"]
    assert image.shape[1:] == spec.shape
    assert image.dtype == spec.dtype
    assert set(np.unique(image)) == {0, 255}


def test_an_example_does_not_depend_on_its_batch():
    source, indices = sprites.Sprites(), np.array([5, 300_000, 700_001])
    together = source.read(indices)["image"]
    for index, image in zip(indices, together, strict=True):
        np.testing.assert_array_equal(source.read(np.array([index]))["image"][0], image)


def test_the_centre_of_a_sprite_moves_with_its_position():
    factors = np.array([[0, 0, 3, 0, x, 31 - x] for x in range(32)])
    images = sprites.render(factors)[..., 0] > 0
    mean_x = (images.sum(1) * np.arange(64)).sum(1) / images.sum((1, 2))
    mean_y = (images.sum(2) * np.arange(64)).sum(1) / images.sum((1, 2))
    np.testing.assert_allclose(mean_x, np.linspace(15.5, 47.5, 32), atol=0.5)
    np.testing.assert_allclose(mean_y, np.linspace(47.5, 15.5, 32), atol=0.5)
