"""What follows from a config when its run starts, and what the start says of it."""

import jax
import numpy as np
import pytest

from configs import beta_vae, capacity_vae, conditional_vae, vq_vae
from pipeline import datasets
from pipeline.runtime import errors, run_config
from pipeline.training import banner, setup

OWN = """
import jax
import numpy as np

from pipeline import datasets


class Noise:
    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def read(self, indices):
        shape = (len(indices), 64, 64, 3)
        return {"image": np.random.default_rng(0).integers(0, 255, shape, np.uint8)}


def spec(section):
    return {"image": jax.ShapeDtypeStruct((64, 64, 3), np.uint8)}


def load(section):
    return {"all": Noise(section.number)}
"""


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    (tmp_path / "own_package_of_data").mkdir()
    (tmp_path / "own_package_of_data" / "noise.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)

    def prepared(module, number, workdir=None, **changes):
        config = module.get_config()
        config.data.name, config.data.number = "own_package_of_data.noise", number
        config.batch_size, config.checkpoint.keep_best = 1, 0
        config.update_from_flattened_dict(changes)
        return setup.prepare(config.lock(), workdir=workdir, devices=jax.devices()[:1])

    return prepared


@pytest.mark.parametrize(("number", "heldout"), [(2, 1), (9, 1), (321, 32), (737_280, 10_000)])
def test_a_tenth_is_held_out_if_the_config_leaves_it_open(own_data, number, heldout):
    ready = own_data(beta_vae, number)
    assert len(ready.opened.heldout) == heldout == ready.given.data.heldout_examples
    assert len(ready.opened.train) == number - heldout


def test_a_resumed_run_holds_out_what_it_held_out(own_data, tmp_path):
    run_config.save(own_data(beta_vae, 50, **{"data.heldout_examples": 7}).given, tmp_path)
    ready = own_data(beta_vae, 50, tmp_path)
    assert run_config.check_against_run(ready.given, tmp_path)
    assert len(ready.opened.heldout) == 7
    # It would hold out the same, even if there were more examples by now.
    assert len(own_data(beta_vae, 500, tmp_path / "new").opened.heldout) == 50


def test_one_example_cannot_be_split(own_data):
    with pytest.raises(errors.InputError, match="has 1 examples: it takes 2 or more"):
        own_data(beta_vae, 1)


def test_the_split_of_the_sprites_is_that_of_earlier_versions():
    config = beta_vae.get_config()
    left_open, given = (datasets.load(config) for config.data.heldout_examples in (0, 10_000))
    for one, other in zip(left_open, given, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)


def test_colour_images_are_told_of_a_likelihood_and_a_network_that_suit_them(own_data):
    bernoulli, dense = setup.cautions(own_data(beta_vae, 20))
    assert "--config.model.likelihood=gaussian" in bernoulli
    assert "12.9 million parameters" in dense and "--config.model.network=conv" in dense
    better = {"model.likelihood": "gaussian", "model.network": "conv"}
    assert not setup.cautions(own_data(beta_vae, 20, **better))
    assert not setup.cautions(own_data(vq_vae, 20, **{"data.variance": 0.1}))


def start(module, presets="smoke", **changes):
    config = module.get_config(presets)
    config.checkpoint.keep_best = 0
    config.update_from_flattened_dict(changes)
    ready = setup.prepare(config.lock(), devices=jax.devices()[:1])
    return ready, setup.cautions(ready)


def test_a_schedule_that_the_run_cuts_is_named_with_its_last_value():
    _, (text,) = start(beta_vae, **{"model.beta.steps": 240})
    assert "config.model.beta.steps=240" in text and "step 60, where the value is 0.25" in text
    _, (text,) = start(capacity_vae, **{"model.capacity.steps": 600})
    assert "where the value is 2.5 and not 25" in text
    _, texts = start(beta_vae, **{"optimizer.warmup_steps": 70, "optimizer.decay_steps": 71})
    assert ["warmup_steps=70" in texts[0], "decay_steps=71" in texts[1]] == [True, True]


def test_a_learning_rate_that_is_0_before_the_end_is_named():
    _, (text,) = start(beta_vae, **{"optimizer.decay_steps": 30})
    assert "decay_steps=30: the learning rate is 0 from there to the run's end at step 60" in text


@pytest.mark.parametrize("module", [beta_vae, capacity_vae, conditional_vae])
def test_the_smoke_test_finishes_its_schedules(module):
    presets = "sprites,smoke" if module is conditional_vae else "smoke"
    assert start(module, presets)[1] == []


def test_the_banner_says_where_each_schedule_ends_and_what_is_left(tmp_path):
    ready, _ = start(beta_vae, **{"model.beta.steps": 30})
    shown = banner.of_start(ready, tmp_path, [])["schedules"]
    assert shown == (
        "model.beta linear from 0 to 1, ends at step 30 of 60; learning rate cosine from 0.002 "
        "after a warm-up to step 1 to 0, ends at step 60 of 60"
    )
    assert "20 of 60 done" in banner.of_start(ready, tmp_path, [10, 20])["steps"]
    done = banner.of_start(ready, tmp_path, [80])["steps"]
    assert done == "80 done, more than the 60 asked for: nothing is left to train"
