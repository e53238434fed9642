"""VQ-VAE (van den Oord et al. 2017) on sprites: moving-average codes, unused ones restart.

python -m pipeline.train --config=configs/vq_vae.py --workdir=runs/vq_vae

`loss`, `reconstruction_loss` and `vq_loss` are not in nats here but squared error over the data's
variance. The best checkpoint is the one that reconstructs best.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 2000  # expected to take a few minutes on two cores
    config.checkpoint.best_metric = "reconstruction_loss"
    config.checkpoint.best_mode = "min"
    config.data.variance = 0.0  # measured
    config.optimizer.learning_rate = 1e-3  # Keras' example

    config.evals += ("code_maps",)
    config.model.name = "vq_vae"
    config.model.network = "conv"  # dense, conv (Keras), residual (Sonnet), scalable (to 256×256)
    config.model.likelihood = "mse"  # mse (over the data's variance), or bernoulli, gaussian (nats)
    config.model.latent_dim = 16  # D of a code, for vq and residual_vq
    config.model.downsampling = 4  # f, pixels a side that share a vector; 4 for conv and residual
    config.model.channels = 128  # of the first level, for network=scalable, and the next three too
    config.model.channel_multipliers = (1, 2, 2)  # channels of each level over the first's
    config.model.blocks_per_level = 2  # residual blocks

    quantizer = config.model.quantizer = ConfigDict()
    quantizer.name = "vq"  # vq, residual_vq, fsq, lfq
    quantizer.num_codes = 128  # K; for residual_vq of each codebook
    quantizer.commitment = 0.25  # β, the paper's
    quantizer.codebook = "ema"  # ema: moving averages; loss: gradients
    quantizer.decay = 0.99  # γ of the moving averages
    quantizer.epsilon = 1e-5  # of Laplace smoothing
    quantizer.init = "uniform"  # uniform: ±√(3/D); data: encodings, `candidates` codes a step
    quantizer.restart_steps = 100  # a code unused for so many steps restarts; 0: never
    # A code used by fewer vectors a step, averaged, restarts too; 0: off. At most half of what all
    # codes have on average, batch_size·h·w/K; a quarter leaves a healthy codebook alone.
    quantizer.restart_usage = 0.0
    quantizer.candidates = 32  # codes that can restart in a step: 4·32·D bytes more to reduce
    quantizer.cosine = False  # codes and encodings of length 1
    quantizer.gradient = "straight_through"  # straight_through, rotation (Fifty et al. 2024)
    quantizer.chunk = 0  # codes whose distances are in memory at a time; 0: all, fewer on GPUs
    quantizer.num_quantizers = 4  # Q, for residual_vq
    quantizer.levels = (8, 5, 5, 5)  # for fsq: K = 1000
    quantizer.entropy_weight = 0.1  # w, for lfq, and the next three too
    quantizer.diversity = 1.0  # γ, the weight of the mean code's entropy within w
    quantizer.temperature = 1.0  # τ of the soft choice
    quantizer.entropy_bits = 10  # dimensions whose joint probabilities are computed
    return default.apply(config, presets)
