"""DIP-VAE-II (Kumar et al. 2018, arXiv:1711.00848) on sprites: the covariance of q(z) is near 1.

python -m pipeline.train --config=configs/dip_vae.py --workdir=runs/dip_vae

DIP-VAE-I: --config.model.covariance=means --config.model.lambda_d=100. Locatello et al. 2019
(arXiv:1811.12359) try λ_od of 1, 2, 5, 10, 20 and 50, with λ_d = 10·λ_od for I and λ_d = λ_od for
II. Not measured yet.
"""

from ml_collections import ConfigDict

from configs import default, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000
    config.batch_size = 256  # the estimate of the covariance is better in larger batches
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "dip_vae"
    config.model.covariance = "samples"  # of z ~ q(z), DIP-VAE-II; means: of q(z|x)'s means, I
    config.model.lambda_od = 10.0  # weight of the squared covariances of two latents
    config.model.lambda_d = 10.0  # weight of (variance − 1)² of each latent
    scalable.add_to(config.model)
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
