"""Capacity control, computed by hand; tests/training/test_step.py trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import capacity_vae, default
from pipeline import datasets, models
from pipeline.models import capacity_vae as variant
from pipeline.runtime import errors

# The mean KL is 8 nats; the examples' distances from C have a mean of 7 nats.
MEANS = variant.Terms(jnp.float32(100.0), jnp.float32(8.0), jnp.float32(7.0))


def make_model(**changes):
    config = capacity_vae.get_config("sprites,smoke")
    config.model.gamma = 3.0
    config.model.capacity = default.schedule("linear", start=0.0, end=20.0, steps=10)
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


@pytest.mark.parametrize(("step", "capacity"), [(0, 0.0), (4, 8.0), (5, 10.0), (99, 20.0)])
def test_the_objective_weighs_the_distance_of_the_mean_kl_from_the_capacity(step, capacity):
    model, step = make_model(), jnp.int32(step)
    penalty = 3.0 * abs(8.0 - capacity)
    assert float(model.objective(MEANS, step=step)) == 100.0 + penalty
    logged = model.metrics(MEANS, {}, step=step)
    assert float(logged["current_capacity"]) == capacity
    assert float(logged["capacity_loss"]) == penalty
    assert float(logged["capacity_error"]) == abs(8.0 - capacity)
    assert float(logged["elbo"]) == -108.0


def test_per_example_weighs_the_mean_of_the_examples_distances():
    model = make_model(**{"model.per_example": True})
    assert float(model.objective(MEANS, step=jnp.int32(4))) == 100.0 + 3.0 * 7.0
    assert float(model.metrics(MEANS, {}, step=jnp.int32(4))["capacity_error"]) == 0.0


def test_the_gradient_of_the_kl_changes_its_sign_at_the_capacity():
    model = make_model()
    slope = jax.grad(lambda kl: model.objective(MEANS._replace(kl=kl), step=jnp.int32(4)))
    assert (float(slope(7.9)), float(slope(8.1))) == (-3.0, 3.0)


def test_each_examples_distance_is_that_of_its_own_kl():
    model = make_model()
    image = np.zeros((5, 64, 64, 1), np.uint8)
    image[range(5), range(5)] = 255
    keys = jax.random.split(jax.random.key(0), 5)
    terms, sums = model.terms({"image": image}, keys=keys, step=jnp.int32(5))
    np.testing.assert_array_equal(terms.deviation, jnp.abs(terms.kl - 10.0))
    assert sums == {}


@pytest.mark.parametrize("gamma", [-1.0, float("inf"), float("nan")])
def test_a_gamma_that_cannot_work_is_refused(gamma):
    with pytest.raises(errors.InputError, match=r"config.model.gamma=.* must not be negative"):
        make_model(**{"model.gamma": gamma})
