"""VQGAN (Esser et al. 2021, arXiv:2012.09841) on images of 64×64: 16×16 codes out of 1,024.

python -m pipeline.train --config=configs/vq_gan_64.py --workdir=runs/vq_gan --config.data.path=DIR

Sized for one small GPU; LPIPS needs `pip install 'vae-pipeline[perceptual]'`. The paper's weight of
the game is a ratio of gradients, here a number; its first term is the absolute error, here the
squared error over the variance. configs/README.md ("Sharp images") has a smaller run, on emoji,
which one core finishes in half an hour. Not measured at this size.
"""

from ml_collections import ConfigDict

from configs import default, vq_vae


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = vq_vae.get_config()
    config.batch_size = 64
    config.total_steps = 100_000
    config.eval_every_steps = 5000
    config.evals += ("image_quality",)
    config.image_quality.num_examples = 2048
    config.data.name = "image_folder"
    config.model.network = "scalable"
    config.model.channels = 64
    config.model.channel_multipliers = (1, 2, 2)
    config.model.latent_dim = 64
    config.model.quantizer.num_codes = 1024
    config.model.perceptual.weight = 1.0
    config.model.adversarial.weight = 0.01
    config.model.adversarial.start_step = 20_000  # the decoder first learns the colours
    config.model.adversarial.warmup_steps = 5000
    config.model.adversarial.num_layers = 2  # a judgement sees 34×34 pixels
    config.model.adversarial.regularization = "lecam"
    config.model.adversarial.regularization_weight = 0.1
    config.optimizer.learning_rate = 2e-4
    config.optimizer.b1, config.optimizer.b2 = 0.5, 0.9
    config.optimizer.ema_decay = 0.999  # of the pictures; the game itself makes steps restless
    config.optimizer.own_rates.discriminator = 1e-4  # at 2e-4 its judgements were restless
    config.checkpoint.best_metric = "perceptual_loss"
    return default.apply(config, presets)
