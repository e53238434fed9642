"""InfoVAE (Zhao et al. 2017, arXiv:1706.02262) on sprites, as the MMD-VAE: α = 1, without the KL.

python -m pipeline.train --config=configs/info_vae.py --workdir=runs/info_vae

The WAE-MMD (Tolstikhin et al. 2018, arXiv:1711.01558) has the same equation:
--config.model.kernel=imq. If α is 1, nothing bounds the KL, so the ELBO may be low; an α below 1
keeps a part of it. Not measured yet.
"""

from ml_collections import ConfigDict

from configs import default, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000
    config.batch_size = 256  # the estimate of MMD² is better in larger batches
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "info_vae"
    config.model.alpha = 1.0  # α from 0 to 1: the KL weighs 1 − α
    config.model.lambda_mmd = 1000.0  # λ: MMD² weighs α + λ − 1
    config.model.kernel = "rbf"  # of MMD²: rbf, as in the paper; imq, as in WAEs
    scalable.add_to(config.model)
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
