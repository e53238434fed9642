"""The works in plain Flax NNX, as its tutorials write them: with its layers, optimizer and jit."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from pipeline.performance.frameworks import Run, naive_prior
from pipeline.performance.frameworks.works import NUM_CLASSES, Layer, Work
from pipeline.training.optimizer import average_params


class Residual(nnx.Module):
    """x + layers(x)."""

    def __init__(self, layers: tuple[Layer, ...], rngs: nnx.Rngs):
        """Builds the layers."""
        self.layers = sequential(layers, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] → [B, h, w, C]."""
        return x + self.layers(x)


def sequential(layers: tuple[Layer, ...], rngs: nnx.Rngs) -> nnx.Sequential:
    """Returns the network of the layers that `works` describes."""
    return nnx.Sequential(*[_layer(layer, rngs) for layer in layers])


def _layer(layer: Layer, rngs: nnx.Rngs) -> Any:
    match layer:
        case ("conv", c_in, c_out, k, s):
            return nnx.Conv(c_in, c_out, (k, k), (s, s), rngs=rngs)
        case ("up", c_in, c_out, k, s):
            return nnx.ConvTranspose(c_in, c_out, (k, k), (s, s), rngs=rngs)
        case ("linear", inputs, outputs):
            return nnx.Linear(inputs, outputs, rngs=rngs)
        case ("residual", layers):
            return Residual(layers, rngs)
        case ("grid", *shape):
            return lambda x: x.reshape(-1, *shape)
        case ("flatten",):
            return lambda x: x.reshape(len(x), -1)
        case ("relu",):
            return nnx.relu
    raise AssertionError(layer)


class VAE(nnx.Module):
    """β-VAE; for `conditional_vae` its encoder and its decoder also see a label."""

    def __init__(self, work: Work, rngs: nnx.Rngs):
        """Builds it."""
        self.encoder = sequential(work.encoder, rngs)
        self.decoder = sequential(work.decoder, rngs)
        self.section, self.rngs = work.config.model, rngs
        width = self.section.embedding_dim if work.conditional else 0
        self.embedding: Any = nnx.Embed(NUM_CLASSES, width, rngs=rngs) if width else None
        self.null: Any = nnx.Param(jax.random.normal(rngs.params(), (width,))) if width else None

    def noise(self, size: int) -> tuple[Array, Array]:
        """Returns the draws of a step: ε [B, D], and which examples lose their label [B] bool."""
        epsilon = jax.random.normal(self.rngs.noise(), (size, self.section.latent_dim))
        dropout = self.section.label_dropout if self.embedding else 0.0
        return epsilon, jax.random.bernoulli(self.rngs.noise(), dropout, (size,))

    def __call__(self, image: Array, label: Any = None, noise: Any = None) -> Array:
        """Returns −log p(x|z) + β·KL, nats, a mean over the batch of images [B, H, W, C] uint8."""
        x, size = image / 255, len(image)
        epsilon, drop = self.noise(size) if noise is None else noise
        inputs, condition = x, jnp.zeros((size, 0))
        if self.embedding is not None:
            condition = jnp.where(drop[:, None], self.null, self.embedding(label))
            inputs = jnp.concatenate([x.reshape(size, -1), condition], -1)
        mean, log_variance = jnp.split(self.encoder(inputs), 2, -1)
        log_variance = jnp.clip(log_variance, -20.0, 20.0)
        z = mean + jnp.exp(0.5 * log_variance) * epsilon
        logits = self.decoder(jnp.concatenate([z, condition], -1))
        nll = optax.sigmoid_binary_cross_entropy(logits, x).sum()
        kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum()
        return (nll + self.section.beta.end * kl) / size


class VQVAE(nnx.Module):
    """VQ-VAE whose codebook follows the encodings by moving averages."""

    def __init__(self, work: Work, rngs: nnx.Rngs):
        """Builds it."""
        self.encoder = sequential(work.encoder, rngs)
        self.decoder = sequential(work.decoder, rngs)
        self.section, self.variance = work.config.model.quantizer, work.config.data.variance
        shape = (self.section.num_codes, work.config.model.latent_dim)
        limit = math.sqrt(3.0 / shape[1])
        codes = jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit)
        self.codes, self.sums = nnx.Variable(codes), nnx.Variable(jnp.zeros(shape))
        self.counts, self.weight = nnx.Variable(jnp.zeros(shape[0])), nnx.Variable(jnp.zeros(()))

    def __call__(self, image: Array) -> Array:
        """Returns squared error / variance + β·‖z − e‖², means, of images [B, H, W, C] uint8."""
        x = image / 255
        z, codes = self.encoder(x - 0.5), self.codes[...]
        flat = z.reshape(-1, z.shape[-1])
        distances = (flat**2).sum(1, keepdims=True) - 2 * flat @ codes.T + (codes**2).sum(1)
        indices = distances.argmin(1)
        values = codes[indices].reshape(z.shape)
        self._update(jax.lax.stop_gradient(flat), jax.nn.one_hot(indices, len(codes)))
        commitment = ((z - values) ** 2).mean()
        error = ((self.decoder(z + jax.lax.stop_gradient(values - z)) + 0.5 - x) ** 2).mean()
        return error / self.variance + self.section.commitment * commitment

    def _update(self, flat: Array, chosen: Array) -> None:
        """Moves the codes; `flat` [N, D] are encodings, `chosen` [N, K] their codes, one-hot."""
        decay, epsilon = self.section.decay, self.section.epsilon
        self.weight[...] = decay * self.weight + (1 - decay)
        self.counts[...] = decay * self.counts + (1 - decay) * chosen.sum(0)
        self.sums[...] = decay * self.sums + (1 - decay) * chosen.T @ flat
        used = self.counts / self.weight
        smoothed = (used + epsilon) / (used.sum() + len(used) * epsilon) * used.sum()
        self.codes[...] = self.sums / self.weight / smoothed[:, None]


def make(work: Work, rngs: nnx.Rngs) -> Any:
    """Returns the work's model, which maps a batch to its loss."""
    if work.is_prior:
        return naive_prior.Prior(work, rngs)
    return (VQVAE if work.config.model.name == "vq_vae" else VAE)(work, rngs)


def start(work: Work, options: Sequence[str]) -> Run:
    """Returns the run; `options` is ignored."""
    del options

    def take_step(model: Any, optimizer: nnx.Optimizer, batch: dict[str, Array]) -> Array:
        loss, gradients = nnx.value_and_grad(lambda model: model(**batch))(model)
        optimizer.update(model, gradients)
        return loss

    model = make(work, nnx.Rngs(params=0, noise=1, dropout=2))
    return train(work, model, take_step, f"flax {flax.__version__}")


def train(work: Work, model: nnx.Module, take_step: Callable[..., Array], version: str) -> Run:
    """Returns the run of `take_step`, (model, optimizer, batch) → loss, compiled by `nnx.jit`."""
    optimizer = nnx.Optimizer(model, make_optimizer(work.config.optimizer), wrt=nnx.Param)
    step = functools.partial(nnx.jit(take_step), model, optimizer, jax.device_put(work.batch()))

    def steps(num: int) -> None:
        for _ in range(num):
            loss = step()
        jax.block_until_ready((loss, nnx.state(model)))

    return Run(steps, version, jax.default_backend())


def make_optimizer(section: Any) -> optax.GradientTransformation:
    """Returns optax's Adam or AdamW with what else the section `optimizer` asks for."""
    rates = {"b1": section.b1, "b2": section.b2, "eps": section.eps}
    parts = [optax.clip_by_global_norm(section.clip_norm)] if section.clip_norm else []
    if section.name == "adamw":
        matrices = functools.partial(jax.tree.map, lambda param: param.ndim > 1)
        decay = {"weight_decay": section.weight_decay, "mask": matrices}
        parts.append(optax.adamw(section.learning_rate, **rates, **decay))
    else:
        parts.append(optax.adam(section.learning_rate, **rates))
    if section.ema_decay:
        parts.append(average_params(section.ema_decay))
    return optax.chain(*parts)
