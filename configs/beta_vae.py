"""β-VAE (Higgins et al. 2017), β rising linearly from 0 to 1: the main job, on sprites.

python -m pipeline.train --config=configs/beta_vae.py --workdir=runs/beta_vae

Two x86 cores, 221 s: held-out distortion 75.7, KL 19.5 nats. β = 4 (--config.model.beta.end=4.0)
leaves 9.8 nats after as many steps, enough for place and size alone (distortion 112.2): it wants
the hundreds of thousands of steps of the papers.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.model.name = "beta_vae"
    config.model.beta = default.schedule("linear", start=0.0, end=1.0, steps=4000)
    config.total_steps = 4000  # under five minutes on two cores
    config.optimizer.learning_rate = 1e-3  # twice the paper's: the run is short
    return default.apply(config, presets)
