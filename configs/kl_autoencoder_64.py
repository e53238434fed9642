"""A KL autoencoder (Rombach et al. 2022, arXiv:2112.10752) on images of 64×64: 16×16×4 latents.

python -m pipeline.train --config=configs/kl_autoencoder_64.py --workdir=DIR --config.data.path=DIR

A β-VAE with a grid of latents and a small β, such as latent diffusion uses. All terms are nats an
image, so the weights of LPIPS and of the game are nats too: an LPIPS of 0.1 weighs as much as an
error of 3 % of the range in every pixel. Sized for one small GPU. Not measured at this size.
"""

from ml_collections import ConfigDict

from configs import beta_vae, default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = beta_vae.get_config()
    config.batch_size = 64
    config.total_steps = 100_000
    config.eval_every_steps = 5000
    config.evals = ("heldout", "reconstructions", "samples", "image_quality")
    config.image_quality.num_examples = 2048
    config.data.name = "image_folder"
    config.model.network = "scalable"
    config.model.channels = 64
    config.model.channel_multipliers = (1, 2, 2)
    config.model.downsampling = 4
    config.model.latent_dim = 4  # D of each of the 16×16 positions
    config.model.likelihood = "gaussian"
    config.model.sigma = 0.1
    config.model.beta = default.schedule("constant", start=0.0, end=0.01, steps=0)
    config.model.perceptual.weight = 5000.0
    config.model.adversarial.weight = 100.0
    config.model.adversarial.start_step = 20_000
    config.model.adversarial.warmup_steps = 5000
    config.model.adversarial.num_layers = 2
    config.model.adversarial.regularization = "lecam"
    config.model.adversarial.regularization_weight = 0.1
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1, config.optimizer.b2 = 0.5, 0.9
    config.optimizer.schedule = "constant"
    config.optimizer.ema_decay = 0.999
    config.optimizer.own_rates.discriminator = 1e-4  # as in vq_gan_64
    config.checkpoint.best_metric = "perceptual_loss"
    return default.apply(config, presets)
