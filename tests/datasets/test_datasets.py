import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.runtime import errors


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
