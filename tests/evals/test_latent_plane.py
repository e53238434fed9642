"""Planes of latents show the means, their principal axes, or the latents of the highest KL."""

import numpy as np
import pytest

from configs import beta_vae, vq_vae
from pipeline import datasets
from pipeline.evals import latent_plane
from pipeline.training import posteriors
from tests.support.evaluations import refusal


def encoded(mean, **attributes):
    return posteriors.Encodings(mean, np.zeros_like(mean), attributes)


def test_two_latents_are_the_plane_themselves():
    mean = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    found = latent_plane.plane(encoded(mean), "pca")
    np.testing.assert_array_equal(found.points, mean)
    assert found.axes == ("mean of z0", "mean of z1")


def test_the_plane_of_many_is_that_of_the_principal_components():
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(500, 3)) * [3, 0.1, 2] + 5).astype(np.float32)
    found = latent_plane.plane(encoded(mean), "pca")
    covariance = np.cov(mean.T.astype(np.float64))
    lengths, directions = np.linalg.eigh(covariance)
    expected = (mean - mean.mean(axis=0)) @ directions[:, [2, 1]]
    expected *= np.sign((expected * found.points).sum(axis=0))
    np.testing.assert_allclose(found.points, expected, atol=1e-4)
    assert f"{lengths[2] / lengths.sum():.0%}" in found.axes[0]
    found = latent_plane.plane(encoded(mean), "kl")
    np.testing.assert_array_equal(found.points, mean[:, [0, 2]])
    assert found.axes == ("mean of z0", "mean of z2")


def test_each_factor_that_varies_has_a_panel_and_the_kl_stands_in_for_none():
    mean = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    example = {
        "factors": datasets.factors((1, 3, 40), ("color", "shape", "position_x")),
        "label": datasets.label(2),
    }
    factors = np.array([[0, i % 3, 7 * i] for i in range(6)], np.int32)
    given = encoded(mean, factors=factors, label=np.arange(6) % 2)
    found = latent_plane.colours(given, example)
    assert [(colour.name, colour.num_classes, colour.ordered) for colour in found] == [
        ("shape", 3, True), ("position x", 40, True), ("label", 2, False)
    ]  # fmt: skip
    np.testing.assert_array_equal(found[1].values, factors[:, 2])
    picture = latent_plane.picture(latent_plane.plane(given, "pca"), found)
    assert picture.ndim == 3 and picture.dtype == np.uint8
    (only,) = latent_plane.colours(encoded(mean), {})
    np.testing.assert_allclose(only.values, 0.5 * np.square(mean).sum(axis=1), rtol=1e-5)
    assert "nats" in only.name


def test_plots_leave_matplotlibs_global_state_alone():
    from matplotlib import pyplot

    mean = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    given = encoded(mean)
    latent_plane.picture(latent_plane.plane(given, "pca"), latent_plane.colours(given, {}))
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("module", "fields", "words"),
    [
        (vq_vae, {}, "'vq_vae' has no Gaussian posterior"),
        (beta_vae, {"model.latent_dim": 1}, "latent_dim=1 is a line"),
        (beta_vae, {"latent_plane.projection": "x"}, "choose one of kl, pca"),
    ],
)
def test_what_cannot_work_is_one_line(module, fields, words):
    config = module.get_config("sprites,smoke")
    assert words in refusal(latent_plane, config, **fields)


@pytest.mark.parametrize(("num", "dim"), [(1, 2), (1, 5), (2, 3)])
def test_a_plane_of_one_or_two_examples_is_drawn(num, dim):
    given = encoded(np.ones((num, dim), np.float32))
    for projection in latent_plane.PROJECTIONS:
        found = latent_plane.plane(given, projection)
        assert found.points.shape == (num, 2) and np.isfinite(found.points).all()
    assert latent_plane.picture(found, latent_plane.colours(given, {})).ndim == 3
