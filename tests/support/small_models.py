"""Small models of every variant, images that they learn in seconds, and their training steps."""

import re

import jax
import numpy as np

from configs import (
    beta_tcvae,
    beta_vae,
    capacity_vae,
    conditional_vae,
    dip_vae,
    factor_vae,
    info_vae,
    vq_vae,
)
from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.training import step

EXAMPLE = {"image": jax.ShapeDtypeStruct((16, 16, 1), np.uint8), "label": datasets.label(4)}
# Rectangles, because white noise has no structure and rounding would steer the training.
CORNERS = np.random.default_rng(0).integers(0, 8, (64, 2, 1, 1))
ROWS, COLUMNS = np.arange(16)[:, None], np.arange(16)[None]
INSIDE = (abs(ROWS - CORNERS[:, 0] - 4) < 4) & (abs(COLUMNS - CORNERS[:, 1] - 4) < 4)
IMAGES = (255 * INSIDE[..., None]).astype(np.uint8)
VARIANTS = {
    "beta": beta_vae,
    "capacity": capacity_vae,
    "concat": conditional_vae,
    "film": conditional_vae,
    "vq": vq_vae,
    "tc": beta_tcvae,
    "dip": dip_vae,
    "info": info_vae,
    "factor": factor_vae,
}


def make_config(variant, **changes):
    config = VARIANTS[variant].get_config("smoke")
    config.model.hidden = (32,)
    config.data.variance, config.steps_per_dispatch = 0.1, 1
    # The lengths of the main job, so that a few steps are the same in runs of any length.
    if variant == "beta":
        config.model.beta.steps = config.optimizer.decay_steps = 5000
        config.optimizer.warmup_steps = 100
    if variant == "capacity":
        config.model.capacity.steps = 10_000
    if variant == "film":
        config.model.conditioning = "film"
    if variant == "tc":
        config.model.num_examples = 64
    if variant == "factor":
        config.model.discriminator.hidden = (16, 16)
    if variant == "vq":
        config.model.channels = 8
        config.model.blocks_per_level = 1
    config.batch_size = 64
    config.update_from_flattened_dict(changes)
    return config


def mesh_of(num_devices):
    return sharding.make_mesh({"data": -1}, devices=jax.devices()[:num_devices])


def batch_on(mesh, images):
    label = np.arange(len(images), dtype=np.int32) % 4
    batch = {"image": images, "label": label, "mask": np.ones(len(images), np.float32)}
    stop = np.zeros(mesh.size, np.float32)
    return jax.device_put((batch, stop), sharding.batch_sharded(mesh))


def first_state(config, mesh, example=EXAMPLE):
    """Returns the state of step 0 on the mesh; the same program always makes it."""
    state = step.create_state(config, example, mesh_of(1))
    return jax.device_put(state, sharding.replicated(mesh))


def train(config, num_devices, *, num_steps, images=IMAGES):
    mesh = mesh_of(num_devices)
    state = first_state(config, mesh)
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = batch_on(mesh, images)
    losses = []
    for _ in range(num_steps):
        state, metrics, _ = train_step(state, batch, stop)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses), metrics


def all_reduces(config, num_devices):
    mesh = mesh_of(num_devices)
    config.batch_size = num_devices
    state = step.abstract_state(config, EXAMPLE)
    batch, stop = batch_on(mesh, np.zeros((num_devices, 16, 16, 1), np.uint8))
    lowered = step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    text = lowered.compile().as_text()
    assert not re.search(r" (all-gather|reduce-scatter|all-to-all|collective-permute)\(", text)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return num_params, re.findall(r"= (.+?)(?:\{0\})? all-reduce(?:-start)?\(", text)
