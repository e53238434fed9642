"""A trained model that lies in a bucket."""

import numpy as np

import pipeline
from configs import beta_vae
from pipeline import datasets
from pipeline.training import example_file
from tests.support.runs import save_run


def test_a_model_in_a_bucket_is_the_same_as_in_a_folder(place, tmp_path):
    for workdir in (place, tmp_path):
        config = beta_vae.get_config("smoke")
        config.model.hidden = (4,)
        save_run(workdir, config)
        example_file.write(datasets.example_spec(config), workdir)
    far, near = pipeline.load(str(place), step="latest"), pipeline.load(tmp_path, step=2)
    assert far.step == near.step == 2
    assert str(place) in repr(far)
    np.testing.assert_array_equal(far.sample(3, seed=1), near.sample(3, seed=1))
