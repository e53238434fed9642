"""Capacity control (Burgess et al. 2018): γ·|KL − C|, C rising from 0 to 25 nats, on sprites.

python -m pipeline.train --config=configs/capacity_vae.py --workdir=runs/capacity_vae

γ is 20, where the paper has 1000 and disvae 100: so large a γ spreads the KL over all latents
before the decoder has learnt to read any. At 20 each of x, y and scale has a latent of its own.
Measured: after the first tenth of the ramp |KL − C| is at most 0.44 nats, in the mean of the last
100 steps of each tenth; held-out distortion 102.0, KL 24.9 nats at the end.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.total_steps = 12_000
    config.eval_every_steps = 2000
    config.evals += ("latents", "traversals")
    config.model.name = "capacity_vae"
    config.model.gamma = 20.0  # nats of reconstruction that a nat of |KL − C| costs
    config.model.capacity = default.schedule("linear", start=0.0, end=25.0, steps=10_000)  # nats
    config.model.per_example = False  # True: the mean of |KL − C| over examples
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
