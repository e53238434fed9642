import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.datasets import sprites
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


def test_seeds_share_a_split_by_the_seed_of_the_data():
    config = beta_vae.get_config()
    config.seed = 3
    alone = datasets.load(config)
    config.seed, config.data.seed = 4, 3
    np.testing.assert_array_equal(datasets.load(config).train.indices, alone.train.indices)


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


def test_the_fingerprint_of_a_split_depends_on_what_is_chosen():
    config = beta_vae.get_config()
    one = datasets.load(config)
    prints = [datasets.fingerprint(one.train), datasets.fingerprint(one.heldout)]
    config.data.train_examples = 100
    config.batch_size = 50
    prints.append(datasets.fingerprint(datasets.load(config).train))
    config.seed, config.data.train_examples = 1, 0
    prints.append(datasets.fingerprint(datasets.load(config).train))
    assert len({found["split"] for found in prints}) == 4
    assert [found["examples"] for found in prints] == ["727280", "10000", "100", "727280"]
    config.seed = 0
    assert datasets.fingerprint(datasets.load(config).train) == prints[0]


class Numbers:
    """A source without a fingerprint of its own."""

    def __init__(self, num, first=0):
        self.num, self.first = num, first

    def __len__(self):
        return self.num

    def read(self, indices):
        return {
            "image": np.full((len(indices), 2, 2, 1), self.first + indices[:, None, None, None])
        }


def test_the_whole_of_a_data_set_has_all_splits(monkeypatch):
    config = beta_vae.get_config()
    assert len(datasets.whole(config)) == 737_280
    parts = [datasets.Subset(datasets.whole(config), np.arange(*ends)) for ends in ((5, 9), (0, 3))]
    published = dict(zip(("train", "heldout"), parts, strict=True))
    monkeypatch.setattr(sprites, "load", lambda section: published)
    found = datasets.whole(config)
    assert len(found) == 7
    rows = np.array([6, 0, 3, 4, 0])
    expected = sprites.Sprites().read(np.array([2, 5, 8, 0, 5]))
    for name, values in found.read(rows).items():
        np.testing.assert_array_equal(values, expected[name])


def test_some_examples_stand_for_a_source_that_has_no_fingerprint():
    found = datasets.fingerprint(Numbers(1000))
    assert found == datasets.fingerprint(Numbers(1000))
    assert found["examples"] == "1000"
    assert found != datasets.fingerprint(Numbers(1000, first=1))
    assert found != datasets.fingerprint(Numbers(999))
    assert datasets.fingerprint(Numbers(3)) != datasets.fingerprint(Numbers(3, first=1))
