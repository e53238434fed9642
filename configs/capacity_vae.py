"""Capacity control (Burgess et al. 2018): γ·|KL − C|, C rising from 0 to 25 nats, on sprites.

python -m pipeline.train --config=configs/capacity_vae.py --workdir=runs/capacity_vae

Measured: after the first tenth of the ramp, |KL − C| is at most 0.36 nats, in the mean of the last
100 steps of each tenth; held-out distortion 104.5, KL 24.3 nats at the end.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.evals += ("latents", "traversals")
    config.model.name = "capacity_vae"
    config.model.gamma = 100.0  # as in disvae; the paper has 1000
    config.model.capacity = default.schedule("linear", start=0.0, end=25.0, steps=4000)  # nats
    config.model.per_example = False  # True: the mean of |KL − C| over examples
    return default.apply(config, presets)
