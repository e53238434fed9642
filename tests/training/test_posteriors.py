"""The encodings of a data set are exact for every batch size and mesh."""

import jax
import numpy as np
import pytest

from configs import beta_vae, conditional_vae
from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.training import batching, evaluation, posteriors, step


def encoded(module, num, *, devices, batch_size):
    config = module.get_config("sprites,smoke")
    config.batch_size = batch_size
    if module is conditional_vae:
        config.model.conditions = ("factors",)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])
    state = step.create_state(config, datasets.example_spec(config), mesh)
    source = datasets.load(config).heldout
    batches = batching.heldout_batches(source, config, mesh, num=num)
    result = posteriors.encoder(config, mesh)(state, (batch for _, batch in batches))
    return result, source, (config, state)


@pytest.mark.parametrize("module", [beta_vae, conditional_vae])
def test_encodings_are_those_of_the_examples_in_order_without_padding(module):
    result, source, (config, state) = encoded(module, 70, devices=4, batch_size=32)
    batch = batching.read(source, np.arange(70), config)
    posterior = evaluation.make_method(config, datasets.example_spec(config), "posterior")
    mean, log_variance = posterior(state, batch)
    np.testing.assert_allclose(result.mean, mean, atol=1e-5)
    np.testing.assert_allclose(result.log_variance, log_variance, atol=1e-5)
    np.testing.assert_array_equal(result.attributes["factors"], batch["factors"])
    assert "image" not in result.attributes and "mask" not in result.attributes


def test_encodings_do_not_depend_on_devices_and_batch_size():
    one, *_ = encoded(beta_vae, 50, devices=1, batch_size=16)
    four, *_ = encoded(beta_vae, 50, devices=4, batch_size=64)
    np.testing.assert_allclose(one.mean, four.mean, atol=1e-5)
    np.testing.assert_allclose(one.kl, four.kl, atol=1e-5)
