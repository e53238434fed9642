"""A tokenizer of 256×256 images for a pod: 16×16 codes of 16,384, after Esser et al. 2021.

python -m pipeline.train --config=configs/tokenizer_256.py --workdir=DIR --config.data.path=SHARDS

The networks of arXiv:2012.09841, table 7: five levels, attention at 16×16. configs/README.md has
its plan for two machines ("Large images"). Not run. Data are `prepared` shards of ImageNet or
OpenImages; LPIPS needs the extra `perceptual`.
"""

from ml_collections import ConfigDict

from configs import default, vq_gan_64


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = vq_gan_64.get_config()
    config.batch_size = 256
    config.total_steps = 400_000
    config.data.name = "prepared"
    config.data.image_size = 256
    config.model.channels = 128
    config.model.channel_multipliers = (1, 1, 2, 2, 4)
    config.model.downsampling = 16
    config.model.attention_resolutions = (16,)
    config.model.remat = True
    config.model.latent_dim = 256
    config.model.quantizer.num_codes = 16_384
    config.model.adversarial.start_step = 50_000
    config.model.adversarial.num_layers = 3
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 5000
    return default.apply(config, presets)
