"""Augmentation: crops and flips against references, on any mesh, and only in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage, stats

from configs import beta_vae, code_prior
from pipeline.runtime import errors
from pipeline.training import evaluation, setup
from pipeline.training.pixels import augmentations
from tests.support import code_folders
from tests.support.small_models import EXAMPLE, IMAGES, batch_on, first_state, make_config, mesh_of
from tests.support.small_models import train as trained

ON = {"data.augment.flip": True, "data.augment.min_area": 0.5}


def keys_of(num):
    return jax.random.split(jax.random.key(0), num)


def section(**changes):
    return ConfigDict({"flip": False, "min_area": 1.0, "max_aspect": 4 / 3} | changes)


@pytest.mark.parametrize("box", [(0.25, 0.5, 0.5, 0.3), (0, 0, 1, 1), (0.61, 0.1, 0.3, 0.9)])
def test_a_crop_is_interpolated_as_scipy_does_it(box):
    image = np.random.default_rng(0).uniform(size=(7, 12, 5)).astype(np.float32)
    top, left, height, width = box
    rows = 7 * top + (np.arange(7) + 0.5) * height - 0.5  # centres of pixels
    columns = 12 * left + (np.arange(12) + 0.5) * width - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    expected = np.stack(
        [ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(5)],
        axis=-1,
    )
    found = augmentations.resized_crop(jnp.asarray(image), jnp.array(box, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_crops_have_the_distribution_of_inception():
    boxes = np.asarray(augmentations.crops(section(min_area=0.2), keys=keys_of(4000)), np.float64)
    top, left, height, width = boxes.T
    area, aspect = height * width, width / height
    assert boxes.min() >= 0 and max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    assert stats.kstest((area - 0.2) / 0.8, "uniform").pvalue > 0.01
    # Areas of up to 3/4 leave room for every aspect ratio, larger ones only for some.
    free = area <= 0.75
    logs = np.log(aspect) / np.log(4 / 3)
    assert stats.kstest((logs[free] + 1) / 2, "uniform").pvalue > 0.01
    assert np.abs(logs).max() <= 1 + 1e-5 and (np.abs(np.log(aspect)) <= -np.log(area) + 1e-5).all()
    for start, length in ((top, height), (left, width)):
        assert stats.kstest(start / (1 - length), "uniform").pvalue > 0.01
    square = np.asarray(augmentations.crops(section(min_area=0.2, max_aspect=1.0), keys=keys_of(9)))
    np.testing.assert_allclose(square[:, 2], square[:, 3], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_flip_mirrors_about_half_of_the_images_and_changes_nothing_else(dtype):
    image = np.arange(400 * 6).reshape(400, 2, 3, 1).astype(dtype)
    batch = {"image": jnp.asarray(image), "label": jnp.arange(400)}
    found = augmentations.augmented(section(flip=True), batch, keys=keys_of(400))
    assert found["image"].dtype == dtype and found["label"] is batch["label"]
    mirrored = (np.asarray(found["image"]) == image[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (np.asarray(found["image"]) == image).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all() and 160 <= mirrored.sum() <= 240


def test_a_crop_of_bytes_is_one_of_their_values_in_the_unit_interval():
    batch = {"image": jnp.asarray(IMAGES[:8])}
    changes = section(flip=True, min_area=0.3)
    found = augmentations.augmented(changes, batch, keys=keys_of(8))["image"]
    floats = {"image": jnp.asarray(IMAGES[:8] / np.float32(255))}
    np.testing.assert_array_equal(
        found, augmentations.augmented(changes, floats, keys=keys_of(8))["image"]
    )
    assert found.dtype == jnp.float32 and found.min() >= 0 and found.max() <= 1
    assert np.any(np.asarray(found) != IMAGES[:8] / 255, axis=(1, 2, 3)).all()
    other = augmentations.augmented(changes, batch, keys=keys_of(9)[1:])["image"]
    assert np.any(np.asarray(found) != other, axis=(1, 2, 3)).all()  # of the next step


def test_without_augmentation_the_step_gets_the_batch_itself():
    batch = {"image": jnp.asarray(IMAGES)}
    assert augmentations.augmented(section(), batch, keys=None) is batch


def test_losses_are_the_same_on_any_mesh_and_with_accumulation():
    config = make_config("beta", **ON)
    reference = trained(config, 1, num_steps=8)[1]
    assert np.all(reference != trained(make_config("beta"), 1, num_steps=8)[1])
    for devices, parts in ((2, 1), (4, 4)):
        config.accumulation_steps = parts
        losses = trained(config, devices, num_steps=8)[1]
        np.testing.assert_allclose(losses, reference, rtol=1e-5)


def test_an_evaluation_sees_whole_images():
    mesh = mesh_of(1)
    batch, _ = batch_on(mesh, IMAGES)
    found = []
    for changes in ({}, ON):
        config = make_config("beta", **changes)
        eval_step = evaluation.make_eval_step(config, EXAMPLE, mesh)
        found.append(eval_step(first_state(config, mesh), batch, jnp.uint32(0)))
    jax.tree.map(np.testing.assert_array_equal, *found)


def refused(config, **changes):
    config.checkpoint.keep_best = 0
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.InputError) as caught:
        setup.prepare(config.lock(), devices=jax.devices()[:1], open_data=False)
    return str(caught.value)


def test_data_that_augmentation_would_falsify_are_refused(tmp_path):
    text = refused(beta_vae.get_config("smoke"), **{"data.augment.flip": True})
    assert text.startswith("config.data.augment.flip=True: config.data.name='sprites' has factors")
    codes = {"data.path": str(code_folders.write(tmp_path / "codes")), "batch_size": 64}
    text = refused(code_prior.get_config("smoke"), **codes, **ON)
    assert text.startswith(
        "config.data.augment.min_area=0.5: config.data.name='codes' has no images"
    )
    binary = {"data.binarize": True, "data.augment.min_area": 0.5}
    text = refused(beta_vae.get_config("mnist,smoke"), **binary)
    assert text.startswith("config.data.augment.min_area=0.5: interpolation makes grey pixels")
    flips = {"data.augment.flip": True, "data.binarize": True}
    augmentations.check(make_config("beta", **flips), EXAMPLE)


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_area", 0.0), ("min_area", 1.1), ("min_area", float("nan")), ("max_aspect", 0.9)],
)
def test_numbers_out_of_range_are_refused(field, value):
    text = refused(beta_vae.get_config("mnist,smoke"), **{f"data.augment.{field}": value})
    assert text.startswith(f"config.data.augment.{field}={value} must ")
