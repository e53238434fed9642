import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.display import pictures
from pipeline.evals import reconstructions
from pipeline.mesh import sharding
from pipeline.training import batching, step


@pytest.mark.parametrize("num", [10, 20])
def test_reconstructions_stand_below_their_inputs_however_few_there_are(num):
    config = beta_vae.get_config("sprites,smoke")
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    source = datasets.Subset(datasets.load(config).heldout, np.arange(num))
    state = step.create_state(config, datasets.example_spec(config), mesh)
    evaluate = reconstructions.make(config, mesh, source)
    (picture,) = [draw() for _, draw in evaluate(state)]
    columns, rows = min(num, 8), 4 if num >= 16 else 2
    assert picture.shape[0] == rows * 66 - 2 + 2 * pictures.PAD
    left = picture.shape[1] - pictures.PAD - (columns * 66 - 2)
    image = batching.first_images(source, config, 1)["image"][0]
    found = picture[pictures.PAD : pictures.PAD + 64, left : left + 64]
    np.testing.assert_array_equal(found, image)
