"""SSIM, PSNR and the Fréchet distance against scikit-image, NumPy and SciPy."""

import jax
import numpy as np
import pytest
from scipy import linalg, ndimage
from skimage import metrics

from pipeline.evals.quality import frechet, similarity
from tests.support.torch_references import pair

RANDOM = np.random.default_rng(0)
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def of_skimage(a, b):
    """Returns Wang et al.'s SSIM in float64."""
    return metrics.structural_similarity(
        *(image.astype(np.float64) for image in (a, b)),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=-1,
    )


@pytest.mark.parametrize("shape", [(64, 64, 1), (32, 32, 3), (11, 11, 1), (20, 50, 2)], ids=str)
def test_ssim_is_that_of_scikit_image(shape):
    clean, noisy = pair(shape)
    expected = [of_skimage(a, b) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(similarity.ssim(clean, noisy), expected, atol=2e-6)


def test_ssim_is_that_of_scikit_image_on_flat_areas_too():
    white = np.ones((1, 32, 40, 1), np.float32)
    edge = white * np.where(np.arange(40) < 15, 0.98, 1.0)[None, None, :, None].astype(np.float32)
    for other in (white, edge, 1 - white):
        expected = of_skimage(white[0], other[0])
        np.testing.assert_allclose(similarity.ssim(white, other), [expected], atol=2e-5)


@pytest.mark.parametrize("shape", [(64, 64, 1), (32, 48, 3)], ids=str)
def test_psnr_and_errors_are_those_of_scikit_image(shape):
    clean, noisy = pair(shape)
    for name, theirs, further in (
        ("mse", metrics.mean_squared_error, {}),
        ("psnr", metrics.peak_signal_noise_ratio, {"data_range": 1}),
        ("mae", lambda a, b: np.abs(a - b).mean(), {}),
    ):
        expected = [
            theirs(a.astype("f8"), b.astype("f8"), **further)
            for a, b in zip(clean, noisy, strict=True)
        ]
        np.testing.assert_allclose(getattr(similarity, name)(clean, noisy), expected, rtol=2e-6)


def test_an_image_and_itself_are_as_near_as_can_be():
    images = pair((176, 180, 3))[0]
    for name, value in (("mse", 0), ("mae", 0), ("psnr", 100), ("ssim", 1), ("ms_ssim", 1)):
        found = getattr(similarity, name)(images, images)
        np.testing.assert_allclose(found, [value, value], atol=1e-6, err_msg=name)


def ms_ssim_of(a, b):
    """Returns the MS-SSIM of one channel [H, W] in float64, by SciPy's filters."""
    value, (a, b) = 1.0, (a.astype(np.float64), b.astype(np.float64))

    def mean(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    for scale, weight in enumerate(WEIGHTS):
        mean_a, mean_b = mean(a), mean(b)
        variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
        by_position = (2 * (mean(a * b) - mean_a * mean_b) + 0.03**2) / (variances + 0.03**2)
        if scale == len(WEIGHTS) - 1:
            by_position *= (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        value *= max(by_position.mean(), 0.0) ** weight
        height, width = (side // 2 * 2 for side in a.shape)
        a, b = (
            image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
            for image in (a, b)
        )
    return value


@pytest.mark.parametrize("shape", [(176, 176, 1), (180, 203, 3)], ids=str)
def test_ms_ssim_is_that_of_numpy(shape):
    clean, noisy = pair(shape)
    expected = [
        np.mean([ms_ssim_of(a[..., c], b[..., c]) for c in range(shape[2])])
        for a, b in zip(clean, noisy, strict=True)
    ]
    assert 0.1 < min(expected) < max(expected) < 0.99
    np.testing.assert_allclose(jax.jit(similarity.ms_ssim)(clean, noisy), expected, atol=5e-6)


def test_ms_ssim_of_an_image_and_its_negative_is_0():
    clean = pair((176, 176, 1))[0]
    np.testing.assert_array_equal(similarity.ms_ssim(clean, 1 - clean), 0.0)


def mixed(num, dims, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, dims)) @ rng.normal(size=(dims, dims)) + rng.normal(size=dims)


def test_the_frechet_distance_is_that_of_scipys_root():
    a, b = mixed(500, 20), np.maximum(mixed(300, 20, seed=1), 0)
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(axis=0), np.cov(x.T)) for x in (a, b))
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    np.testing.assert_allclose(frechet.distance(frechet.of(a), frechet.of(b)), expected, rtol=1e-9)


def test_the_frechet_distance_holds_for_fewer_examples_than_features():
    a, b = mixed(12, 40), mixed(9, 40, seed=1)
    # tr (Σ₁Σ₂)^½ is the sum of the singular values of A₁A₂ᵀ, if Σ = AᵀA.
    halves = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    root = linalg.svdvals(halves[0] @ halves[1].T).sum()
    traces = sum((half**2).sum() for half in halves)
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + traces - 2 * root
    np.testing.assert_allclose(frechet.distance(frechet.of(a), frechet.of(b)), expected, rtol=1e-6)


def test_gaussians_apart_by_mean_and_scale_have_the_distance_in_closed_form():
    a = frechet.Moments(3, np.zeros(4), np.eye(4) * 2 * 4.0)
    b = frechet.Moments(5, np.ones(4), np.eye(4) * 4 * 9.0)
    np.testing.assert_allclose(frechet.distance(a, b), 4 + 4 * (3 - 2) ** 2, rtol=1e-12)
    assert frechet.distance(a, a) < 1e-12


@pytest.mark.parametrize("size", [1, 7, 1024, 3000])
def test_moments_are_numpys_and_their_bits_do_not_depend_on_the_batches(size):
    features = mixed(2500, 6).astype(np.float32) + 1000
    stream, whole = frechet.Stream(), frechet.Stream()
    for first in range(0, len(features), size):
        stream.add(features[first : first + size])
    whole.add(features)
    found = stream.moments
    assert found.num == 2500
    np.testing.assert_allclose(found.mean, features.astype("f8").mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.T.astype("f8")), rtol=1e-9)
    np.testing.assert_array_equal(found.mean, whole.moments.mean)
    np.testing.assert_array_equal(found.scatter, whole.moments.scatter)


def test_features_that_are_not_finite_have_no_distance():
    features = mixed(5, 3)
    known = frechet.of(features)
    features[2, 1] = np.nan
    for found in (known, frechet.of(features)):
        assert np.isnan(frechet.distance(found, frechet.of(features)))


def test_an_empty_set_adds_nothing():
    some = frechet.of(mixed(5, 3))
    for found in (frechet.merged(some, frechet.Moments()), frechet.merged(frechet.Moments(), some)):
        np.testing.assert_array_equal(found.scatter, some.scatter)
    assert frechet.Stream().moments.num == 0
