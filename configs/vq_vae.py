"""VQ-VAE (van den Oord et al. 2017) on sprites; codes are moving averages, unused ones restart.

python -m pipeline.train --config=configs/vq_vae.py --workdir=runs/vq_vae

`loss`, `reconstruction_loss` and `vq_loss` are not in nats here: they are the squared error divided
by the data's variance. The best checkpoint is the one that reconstructs best.
"""

from ml_collections import ConfigDict

from configs import default, image_terms, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 2000  # expected to take a few minutes on two cores
    config.checkpoint.best_metric = "reconstruction_loss"
    config.data.variance = 0.0  # measured
    config.optimizer.learning_rate = 1e-3  # Keras' example

    config.evals += ("code_maps",)
    config.model.name = "vq_vae"
    config.model.network = "conv"  # dense, conv (Keras), residual (Sonnet), scalable (to 256×256)
    config.model.likelihood = "mse"  # mse (divided by the variance); bernoulli, gaussian (nats)
    config.model.latent_dim = 16  # D of a code, except for fsq, residual_fsq and lfq
    config.model.downsampling = 4  # f: f×f pixels share a vector; 4 for conv and residual
    config.model.channels = 128  # of the first level; this and all below: network=scalable
    config.model.channel_multipliers = (1, 2, 2)  # of each level, times `channels`
    config.model.blocks_per_level = 2  # residual blocks of each level
    scalable.add_memory_and_attention(config.model)

    quantizer = config.model.quantizer = ConfigDict()
    quantizer.name = "vq"  # vq, residual_vq, grouped_vq, fsq, residual_fsq, lfq, sim_vq
    quantizer.num_codes = 128  # K; for residual_vq and grouped_vq the size of each codebook
    quantizer.commitment = 0.25  # β of the paper
    quantizer.codebook = "ema"  # ema: moving averages; loss: gradients
    quantizer.decay = 0.99  # γ of the moving averages
    quantizer.epsilon = 1e-5  # of Laplace smoothing
    quantizer.init = "uniform"  # uniform: in ±√(3/D); data: encodings, `candidates` codes a step
    quantizer.restart_steps = 100  # a code that is unused for this many steps restarts; 0: never
    # A code restarts too if fewer vectors a step use it, on average; 0: off. At most half of the
    # mean use of all codes, batch_size·h·w/K. A quarter of it does not disturb a healthy codebook.
    quantizer.restart_usage = 0.0
    quantizer.candidates = 32  # codes that can restart in a step; 4·32·D more bytes to reduce
    quantizer.cosine = False  # scale codes and encodings to length 1
    quantizer.gradient = "straight_through"  # straight_through, rotation (Fifty et al. 2024)
    quantizer.chunk = 0  # codes whose distances are in memory at once; 0: all, fewer on GPUs
    quantizer.num_quantizers = 4  # Q, for residual_vq, residual_fsq; for grouped_vq a divisor of D
    quantizer.levels = (8, 5, 5, 5)  # for fsq; for residual_fsq of each stage: K = 1000
    quantizer.entropy_weight = 0.1  # w; only lfq reads this and the next three
    quantizer.diversity = 1.0  # γ, weight of the mean code's entropy, times w
    quantizer.temperature = 1.0  # τ of the soft choice
    quantizer.entropy_bits = 10  # dimensions of one joint distribution of codes
    image_terms.add(config)
    return default.apply(config, presets)
