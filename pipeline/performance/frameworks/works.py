"""The works that frameworks are compared in: a config, its network layer by layer, one batch.

A network is a tuple of layers in plain words, and every other framework builds its own from that
tuple. Tests check that it is the config's network: as many parameters, and the same losses.

    ("conv", C_in, C_out, k, s)   k×k convolution of stride s, SAME padding: [H, W] → [H/s, W/s]
    ("up", C_in, C_out, k, s)     its transpose: [H, W] → [s·H, s·W]
    ("linear", F_in, F_out)       ("flatten",)       ("grid", H, W, C), from a flat vector
    ("relu",)                     ("residual", layers), x + layers(x)

A prior over codes has only a decoder, a causal transformer. Its first input is the label's vector:

    ("embedding", K, F)           vectors of all codes but the last
    ("positions", T, F)           learned vectors that are added; then dropout
    ("block", F, N)               x + attention(norm(x)) of N heads, then x + mlp(norm(x))
    ("norm", F)                   layer normalisation
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from configs import beta_vae, conditional_vae, vq_vae, vq_vae_cifar10
from configs import code_prior as code_prior_config
from pipeline import datasets
from pipeline.runtime import errors, run_config

Layer = tuple[Any, ...]
RELU = ("relu",)
NUM_CLASSES = 10
NUM_CODES = 128  # of the VQ-VAE whose codes a prior learns
VARIANCE = 0.06  # of CIFAR-10's pixels, in [0, 1]


class Work(NamedTuple):
    """A training step that every framework computes alike, in float32 unless changed."""

    config: Any
    shape: tuple[int, ...]  # [H, W, C] of an image; [h, w] of its codes, for a prior
    encoder: tuple[Layer, ...]  # empty for a prior
    decoder: tuple[Layer, ...]

    @property
    def example(self) -> dict[str, Any]:
        """An abstract example, as `datasets.example_spec` returns it."""
        import jax

        found: dict[str, Any] = {"image": jax.ShapeDtypeStruct(self.shape, np.uint8)}
        if self.is_prior:
            # The step doesn't decode, so of the VQ-VAE only its config is needed.
            flat = run_config.flatten(_changed(vq_vae.get_config(), f"data.variance={VARIANCE}"))
            image = {"shape": [4 * side for side in self.shape] + [1], "dtype": "uint8"}
            decoder = json.dumps({"config": flat, "image": image})
            found = {"codes": datasets.Codes(self.shape, np.uint8, NUM_CODES, decoder)}
        return found | ({"label": datasets.label(NUM_CLASSES)} if self.conditional else {})

    @property
    def is_prior(self) -> bool:
        """Whether the model learns codes instead of images."""
        return self.config.model.name == "code_prior"

    @property
    def conditional(self) -> bool:
        """Whether the model needs labels."""
        return self.is_prior or self.config.model.name == "conditional_vae"

    def batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Returns random `image` [B, H, W, C] or `codes` [B, h, w] uint8, and `label` [B] int32."""
        random, size = np.random.default_rng(seed), self.config.batch_size
        name, num = ("codes", NUM_CODES) if self.is_prior else ("image", 256)
        values = random.integers(0, num, (size, *self.shape), np.uint8)
        labels = random.integers(0, NUM_CLASSES, size, np.int32)
        return {name: values} | ({"label": labels} if self.conditional else {})


def conv_beta_vae() -> Work:
    """β-VAE with the network of Burgess et al. 2018, 64×64×1, batch 64."""
    convs = [("conv", channels, 32, 4, 2) for channels in (1, 32, 32, 32)]
    ups = [("up", 32, channels, 4, 2) for channels in (32, 32, 32, 1)]
    config = _changed(
        beta_vae.get_config(),
        "model.network=conv",
        "batch_size=64",
        "model.beta.schedule=constant",
        "model.beta.end=4.0",
        "optimizer.schedule=constant",
        "optimizer.warmup_steps=0",
    )
    dense = (("linear", 512, 256), RELU, ("linear", 256, 256), RELU, ("linear", 256, 20))
    back = (("linear", 10, 256), RELU, ("linear", 256, 256), RELU, ("linear", 256, 512))
    encoder = (*_each(convs, then=RELU), ("flatten",), *dense)
    decoder = (*back, ("grid", 4, 4, 32), *_each(ups, before=RELU))
    return Work(config, (64, 64, 1), encoder, decoder)


def tutorial_vq_vae() -> Work:
    """VQ-VAE with the network of Keras' example, 64×64×3, batch 32, 128 codes of 16 numbers."""
    config = _changed(
        vq_vae.get_config(),
        "batch_size=32",
        f"data.variance={VARIANCE}",
        "model.quantizer.restart_steps=0",
    )
    convs = [("conv", 3, 32, 3, 2), ("conv", 32, 64, 3, 2)]
    ups = [("up", 16, 64, 3, 2), ("up", 64, 32, 3, 2)]
    encoder = (*_each(convs, then=RELU), ("conv", 64, 16, 1, 1))
    decoder = (*_each(ups, then=RELU), ("up", 32, 3, 3, 1))
    return Work(config, (64, 64, 3), encoder, decoder)


def sonnet_vq_vae() -> Work:
    """VQ-VAE with the network of Sonnet's example, 32×32×3, batch 32, 512 codes of 64 numbers."""
    config = _changed(vq_vae_cifar10.get_config(), f"data.variance={VARIANCE}")
    block = ("residual", (RELU, ("conv", 128, 32, 3, 1), RELU, ("conv", 32, 128, 1, 1)))
    convs = [("conv", 3, 64, 4, 2), ("conv", 64, 128, 4, 2), ("conv", 128, 128, 3, 1)]
    ups = [("up", 128, 64, 4, 2), ("up", 64, 3, 4, 2)]
    encoder = (*_each(convs, then=RELU), block, block, RELU, ("conv", 128, 64, 1, 1))
    decoder = (("conv", 64, 128, 3, 1), block, block, *_each(ups, before=RELU))
    return Work(config, (32, 32, 3), encoder, decoder)


def sonnet_vq_vae_256() -> Work:
    """`sonnet_vq_vae` on images of 256×256×3: 64 times as much work for each image."""
    return sonnet_vq_vae()._replace(shape=(256, 256, 3))


def dense_conditional_vae() -> Work:
    """Conditional VAE with one hidden layer of 500, 28×28×1, batch 128, ten classes."""
    config = _changed(conditional_vae.get_config(), "model.network=dense")
    pixels, condition = math.prod((28, 28, 1)), config.model.embedding_dim
    encoder = (("linear", pixels + condition, 500), RELU, ("linear", 500, 20))
    decoder = (("linear", 10 + condition, 500), RELU, ("linear", 500, pixels), ("grid", 28, 28, 1))
    return Work(config, (28, 28, 1), encoder, decoder)


def code_prior() -> Work:
    """Causal transformer over 7×7 codes of 128, four blocks of 128 features, batch 128."""
    config = _changed(
        code_prior_config.get_config(), "optimizer.schedule=constant", "optimizer.warmup_steps=0"
    )
    section, shape = config.model, (7, 7)
    width, block = section.width, ("block", section.width, section.num_heads)
    inputs = (("embedding", NUM_CODES, width), ("positions", math.prod(shape), width))
    outputs = (("norm", width), ("linear", width, NUM_CODES))
    return Work(config, shape, (), (*inputs, *[block] * section.num_layers, *outputs))


WORKS = {
    "conv_beta_vae": conv_beta_vae,
    "tutorial_vq_vae": tutorial_vq_vae,
    "sonnet_vq_vae": sonnet_vq_vae,
    "dense_conditional_vae": dense_conditional_vae,
    "code_prior": code_prior,
}


LARGE = "sonnet_vq_vae_256"  # takes seconds a step on CPUs, so it runs only if it is named


def check(name: str) -> None:
    """Raises an InputError if there is no work of that name."""
    if name not in (*WORKS, LARGE):
        raise errors.InputError(f"--work={name} is unknown: choose of {', '.join((*WORKS, LARGE))}")


def make(name: str, changes: str = "") -> Work:
    """Returns the work of that name, with changes FIELD=VALUE[,…] to its config."""
    work = sonnet_vq_vae_256() if name == LARGE else WORKS[name]()
    return work._replace(config=run_config.changed(work.config, changes)) if changes else work


def _each(
    layers: list[Layer], *, before: Layer | None = None, then: Layer | None = None
) -> list[Layer]:
    """Returns the layers, with another one before or after each of them."""
    return [part for layer in layers for part in (before, layer, then) if part]


def _changed(config: Any, *changes: str) -> Any:
    """Returns the config with the changes, in float32 whatever the platform."""
    return run_config.changed(config, ",".join(("compute_dtype=float32", *changes)))
