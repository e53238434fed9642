import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.datasets import sprites
from pipeline.runtime import errors

FRAMES = Path(__file__).parents[3] / "shared" / "data" / "dsprites_reference_frames.npz"
NO_PATH = ConfigDict({"name": "sprites", "path": ""})


def sprite_frame(factors):
    """Returns x and y [64, 64] of pixel centres, in the frame of the upright sprite at scale 1."""
    _, _, scale, orientation, x, y = factors
    rows, columns = np.mgrid[:64, :64]
    angle = 2 * np.pi * orientation / 39
    offset = (columns - 15.5 - 32 * x / 31) + 1j * (rows - 15.5 - 32 * y / 31)
    place = offset * np.exp(1j * angle) / (0.5 + 0.1 * scale)
    return place.real, place.imag


def winding_numbers(x, y, corners):
    """Returns how often a polygon with corners [2, n] winds around each of the points."""
    spokes = (corners[0] + 1j * corners[1]) - (x + 1j * y)[..., None]
    turns = np.angle(np.roll(spokes, -1, axis=-1) / spokes).sum(-1)
    return np.rint(turns / (2 * np.pi))


@pytest.mark.skipif(not FRAMES.exists(), reason="the reference frames of dSprites are not at hand")
def test_sprites_cover_the_true_frames():
    with np.load(FRAMES, allow_pickle=False) as frames:
        images, factors = frames["imgs"].astype(bool), frames["latents_classes"]
    rendered = sprites.render(factors)[..., 0] > 0
    union = (rendered & images).sum((1, 2)) / (rendered | images).sum((1, 2))
    assert union.mean() >= 0.999
    assert union.min() >= 0.985
    assert (rendered == images).all((1, 2)).mean() >= 0.95


def test_the_order_is_that_of_the_factors_with_the_last_varying_fastest():
    source = sprites.Sprites()
    assert len(source) == 737_280
    first = source.read(np.arange(34))["factors"]
    np.testing.assert_array_equal(first[31], [0, 0, 0, 0, 0, 31])
    np.testing.assert_array_equal(first[33], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(
        source.read(np.array([737_279]))["factors"][0], [0, 2, 5, 39, 31, 31]
    )
    indices = np.random.default_rng(0).integers(0, len(source), 2000)
    expected = np.stack(np.unravel_index(indices, (1, 3, 6, 40, 32, 32)), 1)
    np.testing.assert_array_equal(source.read(indices)["factors"], expected)


def test_a_square_is_the_closed_form_to_the_pixel():
    rng = np.random.default_rng(1)
    factors = rng.integers(0, sprites.FACTOR_SIZES, (100, 6)) * [1, 0, 1, 1, 1, 1]
    for row, image in zip(factors, sprites.render(factors)[..., 0], strict=True):
        x, y = sprite_frame(row)
        inside = np.maximum(abs(x), abs(y)) <= sprites.SQUARE_HALF_SIDE
        np.testing.assert_array_equal(image, np.where(inside, 255, 0))


@pytest.mark.parametrize(("shape", "outline"), [(1, sprites.ellipse), (2, sprites.heart)])
def test_a_pixel_is_set_where_the_outline_winds_around_its_centre(shape, outline):
    factors = np.random.default_rng(2).integers(0, sprites.FACTOR_SIZES, (12, 6))
    factors[:, 1] = shape
    factors[0] = [0, shape, 5, 0, 0, 31]
    for row, image in zip(factors, sprites.render(factors)[..., 0], strict=True):
        inside = winding_numbers(*sprite_frame(row), outline()) != 0
        np.testing.assert_array_equal(image, np.where(inside, 255, 0))


def test_the_heart_is_symmetric_and_closed():
    x, y = sprites.heart()
    np.testing.assert_allclose(x[1:], -x[:0:-1], atol=1e-12)
    np.testing.assert_allclose(y[1:], y[:0:-1], atol=1e-12)
    assert (x[0], y[0]) == sprites.HEART_LOBE[0]


def test_images_match_their_specification_and_are_binary():
    example = sprites.Sprites().read(np.arange(0, 737_280, 9_999))
    for name, leaf in sprites.spec(NO_PATH).items():
        assert example[name].shape == (74, *leaf.shape)
        assert example[name].dtype == leaf.dtype
    assert set(np.unique(example["image"])) == {0, 255}


def test_an_empty_batch_is_empty():
    assert sprites.Sprites().read(np.arange(0))["image"].shape == (0, 64, 64, 1)


def test_an_example_does_not_depend_on_its_batch():
    source, indices = sprites.Sprites(), np.array([5, 300_000, 700_001])
    together = source.read(indices)["image"]
    for index, image in zip(indices, together, strict=True):
        np.testing.assert_array_equal(source.read(np.array([index]))["image"][0], image)


def test_threads_that_start_together_read_the_same_bytes():
    batches = np.random.default_rng(3).integers(0, 737_280, (32, 16))
    expected = [
        sprites.render(np.stack(np.unravel_index(b, (1, 3, 6, 40, 32, 32)), 1)) for b in batches
    ]
    spec = importlib.util.find_spec(sprites.__name__)
    fresh = importlib.util.module_from_spec(spec)  # which has computed no tables yet
    spec.loader.exec_module(fresh)
    source = fresh.Sprites()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda rows: source.read(rows)["image"], batches))
    for image, known in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, known)


def test_the_first_and_the_last_orientation_are_the_same_picture():
    factors = np.array([[0, shape, 4, 0, 7, 19] for shape in range(3)])
    turned = factors + np.array([0, 0, 0, 39, 0, 0])
    np.testing.assert_array_equal(sprites.render(factors), sprites.render(turned))


def test_the_last_position_is_the_first_moved_by_32_pixels():
    factors = np.array([[0, shape, 3, 11, 0, 0] for shape in range(3)])
    start = sprites.render(factors)
    right, down = (
        sprites.render(factors + np.array([0, 0, 0, 0, 31, 0])),
        sprites.render(factors + np.array([0, 0, 0, 0, 0, 31])),
    )
    np.testing.assert_array_equal(right, np.roll(start, 32, axis=2))
    np.testing.assert_array_equal(down, np.roll(start, 32, axis=1))


def test_the_centre_of_a_sprite_moves_with_its_position():
    factors = np.array([[0, 0, 3, 0, x, 31 - x] for x in range(32)])
    images = sprites.render(factors)[..., 0] > 0
    mean_x = (images.sum(1) * np.arange(64)).sum(1) / images.sum((1, 2))
    mean_y = (images.sum(2) * np.arange(64)).sum(1) / images.sum((1, 2))
    np.testing.assert_allclose(mean_x, np.linspace(15.5, 47.5, 32), atol=0.5)
    np.testing.assert_allclose(mean_y, np.linspace(47.5, 15.5, 32), atol=0.5)


def test_loading_gives_the_whole_set_without_a_split():
    parts = sprites.load(NO_PATH)
    assert set(parts) == {"all"}
    assert len(parts["all"]) == 737_280


def test_a_path_is_refused_in_one_line_because_nothing_would_be_read():
    with pytest.raises(errors.InputError, match=r"config\.data\.path='d'.*dsprites") as raised:
        sprites.load(ConfigDict({"name": "sprites", "path": "d"}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("index", [-1, 737_280])
def test_an_index_beyond_the_set_is_refused(index):
    with pytest.raises(ValueError, match="out of bounds"):
        sprites.Sprites().read(np.array([index]))
