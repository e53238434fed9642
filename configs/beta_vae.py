"""β-VAE (Higgins et al. 2017), β rising linearly from 0 to 4: the main job, on sprites.

python -m pipeline.train --config=configs/beta_vae.py --workdir=runs/beta_vae
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.model.name = "beta_vae"
    config.model.beta = default.schedule("linear", start=0.0, end=4.0, steps=1500)
    config.total_steps = 2000  # under five minutes on two cores
    config.optimizer.learning_rate = 1e-3  # twice the paper's: the run is short
    return default.apply(config, presets)
