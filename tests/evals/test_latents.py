"""The state of latents: known posteriors give known figures, and a collapse gives a warning."""

import types

import jax
import numpy as np
import pytest
from scipy import stats

from configs import capacity_vae, conditional_vae, default, vq_vae
from pipeline import datasets, models
from pipeline.evals import latents
from pipeline.mesh import sharding
from pipeline.models import capacity_vae as capacity_variant
from pipeline.runtime import errors
from pipeline.training import evaluation, posteriors, step


def of(mean, log_variance):
    mean = np.float32(mean)
    return latents.health(
        posteriors.Encodings(mean, np.broadcast_to(np.float32(log_variance), mean.shape), {})
    )


def test_a_collapsed_posterior_is_the_prior_everywhere():
    found = of(np.zeros((50, 3)), 0.0)
    np.testing.assert_array_equal(found.kl, 0.0)
    assert not found.active.any()
    np.testing.assert_array_equal(found.aggregate_mean, 0.0)
    np.testing.assert_array_equal(found.aggregate_deviation, 1.0)
    assert found.aggregate_kl == 0.0


@pytest.mark.parametrize("shape", [(7, 5), (4, 9)])
def test_more_latents_than_examples_have_the_figures_of_the_whole_covariance(shape):
    random = np.random.default_rng(0)
    mean, log_variance = random.normal(size=shape), random.normal(size=shape[1])
    found = of(mean, log_variance)
    covariance = np.cov(mean, rowvar=False, bias=True) + np.diag(np.exp(log_variance))
    centre = mean.mean(axis=0)
    twice = np.trace(covariance) + centre @ centre - shape[1] - np.log(np.linalg.det(covariance))
    np.testing.assert_allclose(found.aggregate_kl, 0.5 * twice, rtol=1e-5)
    np.testing.assert_allclose(found.aggregate_deviation, np.sqrt(np.diag(covariance)), rtol=1e-6)


def test_the_table_of_a_grid_of_latents_says_how_many_it_leaves_out():
    mean = np.random.default_rng(0).normal(size=(3, latents.ROWS + 2))
    *rows, last = latents.table(of(mean, 0.0)).splitlines()
    assert len(rows) == 2 + latents.ROWS + 1 and last == "Left out: 2 latents of a lower KL."


def test_two_points_by_hand():
    # Latent 0: means ±1, variance ¼; latent 1: mean 2, variance 1.
    found = of([[1.0, 2.0], [-1.0, 2.0]], np.log([0.25, 1.0]))
    kl = [0.5 * (1 + 0.25 - 1 - np.log(0.25)), 0.5 * 4]
    np.testing.assert_allclose(found.kl, kl, rtol=1e-6)
    np.testing.assert_allclose(found.mean_variance, [1.0, 0.0])
    np.testing.assert_array_equal(found.active, [True, False])
    np.testing.assert_allclose(found.aggregate_mean, [0.0, 2.0])
    np.testing.assert_allclose(found.aggregate_deviation, [np.sqrt(1.25), 1.0], rtol=1e-6)
    expected = 0.5 * (1.25 - 1 - np.log(1.25)) + 2.0
    assert found.aggregate_kl == pytest.approx(expected, rel=1e-6)


def test_a_unit_is_active_above_a_hundredth():
    spread = np.sqrt([0.0099, 0.0101])
    np.testing.assert_array_equal(of([spread, -spread], 0.0).active, [False, True])


def test_correlated_latents_are_no_draws_of_the_prior():
    z = stats.multivariate_normal([0, 0], [[0.9, 0.8], [0.8, 0.9]]).rvs(20_000, random_state=0)
    found = of(z, np.log(0.1))
    np.testing.assert_allclose(found.aggregate_deviation, 1.0, atol=0.02)
    assert found.aggregate_kl == pytest.approx(-0.5 * np.log(1 - 0.8**2), abs=0.02)
    assert of(z[:, :1], np.log(0.1)).aggregate_kl == pytest.approx(0.0, abs=1e-3)


def test_the_table_has_the_highest_kl_first():
    rows = latents.table(of(np.outer([1, -1], [0.0, 2.0, 1.0]), 0.0)).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["1", "2", "0"]
    assert [row.split("|")[4].strip() for row in rows[2:]] == ["yes", "yes", "no"]


def evaluated(module, *, devices=1, batch=16):
    config = module.get_config("sprites,smoke")
    config.eval_examples, config.eval_batch_size = 70, batch
    if module is conditional_vae:
        config.model.conditions = ("factors",)
    assert "latents" in config.evals or module is vq_vae
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])
    state = step.create_state(config, datasets.example_spec(config), mesh)
    return dict(latents.make(config, mesh, datasets.load(config).heldout)(state))


@pytest.mark.parametrize("module", [capacity_vae, conditional_vae])
def test_the_figures_depend_on_no_mesh_and_no_batch(module):
    one, four = evaluated(module), evaluated(module, devices=4, batch=64)
    assert one.keys() == four.keys()
    for tag, value in one.items():
        if not isinstance(value, str):
            np.testing.assert_allclose(value, four[tag], rtol=1e-5, atol=1e-6)
    assert one["heldout/kl_per_latent"].shape == (10,)


def test_a_model_without_posterior_is_one_line():
    with pytest.raises(errors.InputError, match=r"'latents' needs .*'vq_vae' lacks: leave"):
        evaluated(vq_vae)


def test_a_collapse_is_warned_of_with_its_remedies():
    assert latents.warnings({"active_share": 0.5, "rate": 12.0}) == []
    (text,) = latents.warnings({"active_share": 0.05, "rate": 0.01})
    assert "only 5.0% of the latents are active, and the rate is 0.01 nats" in text
    for remedy in ("beta", "cyclical", "capacity_vae", "gamma", "latent_dim", "learning_rate"):
        assert remedy in text
    assert len(latents.warnings({"active_share": 0.0})) == 1
    assert len(latents.warnings({"active_share": 0.5, "rate": 0.01})) == 1
    assert latents.warnings({}) == []  # evaluated by other files


def test_a_rate_that_follows_a_low_target_is_no_collapse():
    figures = {"active_share": 0.0, "rate": 0.3, "current_capacity": 0.4}
    assert latents.warnings(figures) == []
    assert len(latents.warnings(figures | {"current_capacity": 10.0})) == 1


def test_the_loop_warns_from_the_second_evaluation_in_a_row():
    shares = iter([0.0, 0.0, 1.0, 0.0, 0.0])

    def make(config, mesh, source):
        return lambda state: [("heldout/active_share", next(shares))]

    module = types.ModuleType("of_one_share")
    module.make, module.warnings = make, latents.warnings
    splits = types.SimpleNamespace(heldout=None)
    config = capacity_vae.get_config("smoke")
    ready = types.SimpleNamespace(config=config, mesh=None, evaluations=(module,), opened=splits)
    evaluate, written = evaluation.Evaluations(ready), []
    writer = types.SimpleNamespace(write=lambda tag, value, at: written.append((tag, at)))
    told = []
    for at in range(5):
        before = len(told)
        evaluate(None, writer, at, warn=told.append)
        assert len(told) - before == (1 if at in (1, 4) else 0)
    assert [at for tag, at in written if tag == "heldout/warnings"] == [1, 4]


def test_capacity_reports_its_tracking_error():
    config = capacity_vae.get_config("smoke")
    config.model.capacity = default.schedule("constant", start=0.0, end=7.0, steps=0)
    model = models.abstract(config, datasets.example_spec(config))
    means = capacity_variant.Terms(np.float32(50), np.float32(4), np.float32(5))
    assert float(model.metrics(means, {}, step=np.int32(3))["capacity_error"]) == 3.0


def test_a_posterior_that_ignores_the_image_far_from_the_prior_has_diverged():
    (text,) = latents.warnings({"active_share": 0.0, "rate": 3.9e7})
    assert "far from the prior" in text and "learning_rate" in text
    assert "collapsed" not in text
    (text,) = latents.warnings({"active_share": 0.05, "rate": 12.0})
    assert "collapsed" in text
