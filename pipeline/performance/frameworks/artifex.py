"""The β-VAE of artifex: its model and its trainer's step, with the work's network and `nnx.jit`."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from pipeline.performance.frameworks import Run, Unsuited, naive_nnx
from pipeline.performance.frameworks.works import Work


def make(work: Work, rngs: nnx.Rngs) -> Any:
    """Returns the model: images [B, H, W, C] in [0, 1] → {reconstruction, mean, log-variance}."""
    from artifex.generative_models.core.base import GenerativeModel
    from artifex.generative_models.models.vae import VAE

    class Network(VAE):
        def __init__(self) -> None:
            GenerativeModel.__init__(self, rngs=rngs)  # VAE's own would build other networks
            self.latent_dim = work.config.model.latent_dim
            self.encoder = naive_nnx.sequential(work.encoder, rngs)
            self.decoder = naive_nnx.sequential(work.decoder, rngs)

        def encode(self, x: Array) -> tuple[Array, Array]:
            mean, log_variance = jnp.split(self.encoder(x), 2, -1)
            return mean, log_variance

        def decode(self, z: Array) -> Array:
            return nnx.sigmoid(self.decoder(z))

    return Network()


def trainer(work: Work) -> Any:
    """Returns the trainer; its β is the work's from the first step, without annealing."""
    from artifex.generative_models.training.trainers import VAETrainer, VAETrainingConfig

    beta = work.config.model.beta.end
    return VAETrainer(VAETrainingConfig(kl_annealing="none", beta=beta))


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` is ignored.

    Raises:
        Unsuited: the work is not a β-VAE.
    """
    del options
    if work.config.model.name != "beta_vae":
        raise Unsuited("artifex's trainer is for β-VAEs")
    trained = trainer(work)

    def take_step(model: Any, optimizer: nnx.Optimizer, batch: dict[str, Array]) -> Array:
        images = {"image": batch["image"] / 255}
        return trained.train_step(model, optimizer, images, loss_type="bce")[0]

    model = make(work, nnx.Rngs(params=0, sample=1))
    return naive_nnx.train(work, model, take_step, metadata.version("avitai-artifex"))
