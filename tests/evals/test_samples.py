"""Samples are drawn from the prior, and are labelled if a model has none."""

import numpy as np
import pytest

from configs import beta_vae, conditional_vae, vq_vae
from pipeline.evals import samples


@pytest.mark.parametrize("module", [beta_vae, conditional_vae])
def test_samples_of_a_prior_have_no_title(module):
    assert samples.title(module.get_config("smoke")) == ""


def test_random_codes_are_called_so_above_the_picture():
    above = samples.title(vq_vae.get_config("smoke"))
    assert above.startswith("Random codes, not a prior")
    images = np.zeros((16, 8, 8, 1), np.float32)
    plain, titled = samples.picture(images, ""), samples.picture(images, above)
    assert plain.shape == (2 * 58 - 2, 8 * 58 - 2, 1)
    assert titled.shape[0] > plain.shape[0]
