"""The VAE of Flax's examples on binarised MNIST: dense 784-500-20-500-784, β = 1.

python -m pipeline.train --config=configs/mnist_vae.py --workdir=runs/mnist --config.data.path=DIR

Measured on two x86 cores (AMD EPYC), jax 0.10.2: test −ELBO 87.5 nats after 10 epochs, 85.4 after
20 (cdd1c8b to a2585f1), in 73 s (9597a47). With --config.data.binarize=False it is 105.4 and 103.7
(ad052f2). Flax's example reports 103.60 and 101.83 (flax #1361). An epoch is 60,000 / 128 = 469
steps.
"""

from ml_collections import ConfigDict

from configs import default, image_terms, scalable


def get_config(presets: str = "") -> ConfigDict:
    """Returns the config; `presets` as in `configs.default`."""
    config = default.get_config()
    config.batch_size = 128
    config.total_steps = 20 * 469
    config.eval_every_steps = 10 * 469
    config.eval_examples = 0
    config.checkpoint.every_steps = 5 * 469  # every 8 s on two cores; a save takes 0.15 s
    config.steps_per_dispatch = 10  # 30 ms on two cores; the host works once, not ten times
    config.data.name = "mnist"
    config.data.binarize = True
    config.data.prefetch_batches = 64  # 6 MB; a batch costs less if more are read at once
    config.evals += ("latents", "traversals")
    config.model.name = "beta_vae"
    config.model.network = "dense"
    config.model.hidden = (500,)
    config.model.latent_dim = 20
    config.model.beta = default.schedule("constant", start=0.0, end=1.0, steps=0)
    scalable.add_to(config.model)
    image_terms.add(config)
    config.optimizer.learning_rate = 1e-3
    return default.apply(config, presets)
