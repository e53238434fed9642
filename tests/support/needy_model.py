"""A model that reads a field of its own, for tests."""

from pipeline.nn import gaussian_vae


class Model(gaussian_vae.GaussianVAE):
    def __init__(self, config, example, *, rngs):
        self.own = config.model.own
        super().__init__(config, example, rngs=rngs)
