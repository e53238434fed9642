import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.runtime import errors
from pipeline.training import batching


def test_the_split_is_disjoint_complete_and_fixed_by_the_seed():
    config = beta_vae.get_config()
    one, again = datasets.load(config), datasets.load(config)
    config.seed = 1
    other = datasets.load(config)
    np.testing.assert_array_equal(one.heldout.indices, again.heldout.indices)
    assert not np.array_equal(one.heldout.indices, other.heldout.indices)
    union = np.concatenate([one.train.indices, one.heldout.indices])
    np.testing.assert_array_equal(np.sort(union), np.arange(737_280))
    assert len(one.heldout) == 10_000


def test_the_last_heldout_batch_is_padded_and_masked():
    config = beta_vae.get_config("smoke")
    config.batch_size, config.eval_examples = 64, 100
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:4])
    batches = list(batching.heldout_batches(datasets.load(config).heldout, config, mesh))
    assert [first for first, _ in batches] == [0, 64]
    assert [float(batch["mask"].sum()) for _, batch in batches] == [64.0, 36.0]


def test_a_split_that_leaves_nothing_is_refused():
    config = beta_vae.get_config()
    config.data.heldout_examples = 737_280
    with pytest.raises(errors.InputError, match="heldout_examples=737280 must lie between"):
        datasets.load(config)


def test_the_first_training_examples_are_a_part_of_all():
    config = beta_vae.get_config()
    whole = datasets.load(config)
    config.batch_size, config.data.train_examples = 64, 100
    first = datasets.load(config)
    assert len(first.train) == 100
    for name, rows in first.train.read(np.arange(100)).items():
        np.testing.assert_array_equal(rows, whole.train.read(np.arange(100))[name])
    np.testing.assert_array_equal(first.heldout.indices, whole.heldout.indices)


@pytest.mark.parametrize("num", [-1, 727_281])
def test_more_training_examples_than_there_are_are_refused(num):
    config = beta_vae.get_config()
    config.data.train_examples = num
    with pytest.raises(errors.InputError, match=f"={num} must lie between 1 and 727280, or be 0"):
        datasets.load(config)


@pytest.mark.parametrize(
    ("batch_size", "parts", "words"),
    [(10, 1, "not divisible by 4 devices × 1 accumulation steps = 4: use 8 or 12"),
     (8, 4, "= 16: use 16"), (0, 1, "batch_size=0 must be at least 1"),
     (8, 0, "accumulation_steps=0 must be at least 1")],
)  # fmt: skip
def test_a_batch_that_cannot_be_cut_evenly_names_the_repair(batch_size, parts, words):
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:4])
    with pytest.raises(errors.InputError, match=words):
        sharding.check_batch(batch_size, mesh=mesh, accumulation_steps=parts)


def test_a_mesh_that_does_not_fit_names_the_devices():
    with pytest.raises(errors.InputError, match=r"data=3, fsdp=1\) does not fit 4 devices"):
        sharding.make_mesh({"data": 3}, devices=jax.devices()[:4])


def test_binarised_pixels_are_255_from_128_on_and_the_source_stays_as_it_is():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)

    class Levels:
        def read(self, indices):
            return {"image": levels}

    config = beta_vae.get_config()
    config.data.binarize = True
    found = batching.read(Levels(), np.arange(4), config)["image"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found.ravel(), np.repeat([0, 255], 128))
    np.testing.assert_array_equal(levels.ravel(), np.arange(256))
