"""FactorVAE (Kim & Mnih 2018, arXiv:1802.05983) on sprites: γ = 30 on the total correlation.

python -m pipeline.train --config=configs/factor_vae.py --workdir=runs/factor_vae

Locatello et al. 2019 (arXiv:1811.12359) try γ of 10, 20, 30, 40, 50 and 100. The discriminator, its
rate and its Adam are the paper's.
For two cores: --config.model.discriminator.hidden="(256,256,256)". Not measured yet.
"""

from ml_collections import ConfigDict

from configs import default, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000
    config.batch_size = 256  # its permutation stands for draws of independent latents
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "factor_vae"
    config.model.gamma = 30.0  # weight of the total correlation
    config.model.discriminator = ConfigDict()
    # widths of its layers, with leaky ReLU between them
    config.model.discriminator.hidden = (64, 64) if "smoke" in presets else (1000,) * 6
    scalable.add_to(config.model)
    config.optimizer.learning_rate = 1e-3
    # Adam's learning rates, b1 and b2 of parts of the model that do not share those above
    config.optimizer.own_rates = ConfigDict({"discriminator": 1e-4})
    config.optimizer.own_betas = ConfigDict({"discriminator": (0.5, 0.9)})
    return default.apply(config, presets)
