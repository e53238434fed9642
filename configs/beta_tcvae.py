"""β-TCVAE (Chen et al. 2018, arXiv:1802.04942) on sprites: β = 6 on the total correlation.

python -m pipeline.train --config=configs/beta_tcvae.py --workdir=runs/beta_tcvae

α = γ = 1 and β = 6 are the paper's for dSprites. Not measured yet.
"""

from ml_collections import ConfigDict

from configs import default, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000
    config.batch_size = 256  # the estimate of q(z) is better in larger batches
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "beta_tcvae"
    config.model.alpha = 1.0  # weight of the mutual information of z and the example
    config.model.beta = default.schedule("constant", start=6.0, end=6.0, steps=0)  # of TC
    config.model.gamma = 1.0  # weight of the KL of each latent
    config.model.estimator = "weighted"  # of q(z), as in the paper; stratified: without bias
    config.model.num_examples = 0  # N of these estimators; 0: the number of training examples
    scalable.add_to(config.model)
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
