"""The main job: β-VAE (Higgins et al. 2017) on sprites; β rises linearly from 0 to 1.

python -m pipeline.train --config=configs/beta_vae.py --workdir=runs/beta_vae

Measured on two x86 cores (AMD EPYC), jax 0.10.2, cdd1c8b to a2585f1: 5,000 steps in 138 s; held-out
distortion 45.5, KL 26.5 nats. Reconstructions distinguish squares, ellipses and larger hearts. The
network is dense, like the paper's for dSprites. With the convolutions of Burgess et al.
(--config.model.network=conv), 4,000 steps of 64 images ended at 76 + 20 nats.
"""

from ml_collections import ConfigDict

from configs import default, image_terms, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 5000  # under five minutes on two cores
    config.batch_size = 128
    config.steps_per_dispatch = 25  # 0.4 s on two cores; the host works a fifth as much a step
    config.data.prefetch_batches = 64  # 34 MB; a batch costs less if more are read at once
    config.evals += ("latents", "traversals")
    config.model.name = "beta_vae"
    config.model.network = "dense"
    config.model.hidden = (512, 256)
    config.model.beta = default.schedule("linear", start=0.0, end=1.0, steps=0)
    scalable.add_to(config.model)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = -1  # a fiftieth of the run, 100 steps
    config.optimizer.decay_steps = 0  # the end of the run, as β's schedule
    image_terms.add(config)
    return default.apply(config, presets)
