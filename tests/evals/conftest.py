import jax
import numpy as np
import pytest

from configs import vq_vae
from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.training import batching, evaluation, step


@pytest.fixture(scope="package")
def coded():
    """Returns config, mesh, data and state of a small VQ-VAE, and the codes of 70 examples."""
    config = vq_vae.get_config("sprites,smoke")
    config.model.network, config.model.hidden, config.model.latent_dim = "dense", (8,), 4
    config.eval_examples, config.code_maps.num, config.data.variance = 70, 3, 0.04
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    source, example = datasets.load(config).heldout, datasets.example_spec(config)
    state = step.create_state(config, example, mesh)
    image = batching.first_images(source, config, 70)["image"]
    codes = np.asarray(evaluation.make_method(config, example, "encode")(state, image))
    return config, mesh, source, state, codes
