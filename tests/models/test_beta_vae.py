"""β-VAE's equation, computed by hand; tests/training/test_step.py trains it."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import beta_vae, default
from pipeline import datasets, models
from pipeline.models import beta_vae as variant
from pipeline.runtime import errors

MEANS = variant.Terms(jnp.float32(100.0), jnp.float32(8.0), {})


def make_model(**changes):
    config = beta_vae.get_config("sprites,smoke")
    config.model.beta = default.schedule("linear", start=1.0, end=3.0, steps=10)
    config.update_from_flattened_dict(changes)
    graphdef, init = models.make(config, datasets.example_spec(config))
    return nnx.merge(graphdef, *init())


@pytest.mark.parametrize(("step", "beta"), [(0, 1.0), (5, 2.0), (10, 3.0), (99, 3.0)])
def test_the_objective_weighs_the_kl_by_beta_at_the_step(step, beta):
    model = make_model()
    assert float(model.objective(MEANS, step=jnp.int32(step))) == 100.0 + beta * 8.0
    logged = model.metrics(MEANS, {}, step=jnp.int32(step))
    assert float(logged["beta"]) == beta
    np.testing.assert_allclose(logged["beta_normalised"], beta * 10 / 4096, rtol=1e-6)


def test_the_bound_that_is_logged_has_no_beta():
    logged = make_model().metrics(MEANS, {}, step=jnp.int32(10))
    assert float(logged["elbo"]) == -108.0
    assert (float(logged["reconstruction_loss"]), float(logged["kl_loss"])) == (100.0, 8.0)


def test_a_beta_that_cannot_work_is_refused():
    for value in (-1.0, float("nan")):
        with pytest.raises(errors.InputError, match=r"config.model.beta.end=.* not negative"):
            make_model(**{"model.beta.end": value})
