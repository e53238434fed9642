"""β-VAE at β = 4 (Higgins et al. 2017) on sprites, with latents that stand for factors.

python -m pipeline.train --config=configs/disentangled_vae.py --workdir=runs/disentangled

β falls from 60 to 4 over the first 8,000 steps. At 60 no more than two latents pay for themselves,
and they become x and y; scale follows when β is low enough. From 20, three set in at once, and
whether they became x, y and scale or a mixture of them was left to the last bits; at 4 throughout
the position is spread over three latents.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000  # a quarter of an hour on two cores
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "beta_vae"
    config.model.beta = default.schedule("linear", start=60.0, end=4.0, steps=8000)
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
