"""Quantisers of 16 codes, 6 dimensions and 4×4 vectors, and encodings for them."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from configs import vq_vae
from pipeline.nn import quantizers

BATCH, SIDE, DIM, NUM_CODES = 8, 4, 6, 16
ENCODINGS = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, DIM)).astype(np.float32)
EXAMPLES = {"mask": np.ones(BATCH, np.float32), "position": np.arange(BATCH, dtype=np.int32)}


def make(**changes):
    config = vq_vae.get_config()
    config.batch_size = BATCH
    config.model.latent_dim = DIM
    quantizer = {"num_codes": NUM_CODES, "restart_steps": 0, "candidates": 4} | changes
    config.model.quantizer.update(quantizer)
    return quantizers.make(config, SIDE * SIDE, rngs=nnx.Rngs(params=0))


def update(quantizer, encodings=ENCODINGS, *, step=0, examples=EXAMPLES):
    sums = quantizer.statistics(quantizer(encodings), examples, jnp.int32(step))
    quantizer.update(sums)
    return sums


def nearest_by_numpy(encodings, codes):
    distances = np.square(encodings[..., None, :].astype(np.float64) - codes).sum(axis=-1)
    return distances.argmin(axis=-1)
