"""The works of `frameworks` from equal parameters and with equal noise, here and in PyTorch."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pipeline import models
from pipeline.mesh import sharding
from pipeline.nn import losses
from pipeline.training import step


def first_state(work, *, devices=1):
    mesh = sharding.make_mesh({"data": devices}, devices=jax.devices()[:devices])
    return mesh, step.create_state(work.config, work.example, mesh)


def our_model(work, state):
    graph, _ = models.make(work.config, work.example)
    return nnx.merge(graph, state.params, state.stats, copy=True)


def draws(work, state, number):
    """Returns the draws of our step `number`: keys, and ε with which examples lose a label."""
    key = jax.random.fold_in(jax.random.key(work.config.seed), number)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(np.arange(work.config.batch_size))
    if work.config.model.name == "vq_vae":
        return keys, None
    zeros = jnp.zeros((work.config.batch_size, work.config.model.latent_dim))
    epsilon = np.array(losses.sample_normal(zeros, zeros, keys))
    if not work.conditional:
        return keys, (epsilon, None)
    dropped = our_model(work, state).augment(work.batch(), keys=keys)["dropped"]
    return keys, (epsilon, np.array(dropped))


def layer_paths(flat):
    """Returns the paths of all layers, from the image to the latents and back."""
    order = ("encoder/convs", "encoder", "decoder/dense", "decoder")

    def place(path):
        first = next(i for i, start in enumerate(order) if path.startswith(start))
        return first, [int(number) for number in re.findall(r"\d+", path)]

    return sorted((p.rpartition("/")[0] for p in flat if p.endswith("/kernel")), key=place)


def layers_in_order(params):
    """Returns (kernel, bias) of every layer of ours."""
    flat = {"/".join(map(str, path)): np.array(leaf) for path, leaf in nnx.to_flat_state(params)}
    return [(flat[f"{path}/kernel"], flat[f"{path}/bias"]) for path in layer_paths(flat)]


def copy_into_pytorch(torch, work, state, model):
    """Copies our parameters into PyTorch's model, mirrored and with the channels first."""
    flat = {math.prod(work.shape): work.shape}  # features that are an image, by their number
    flat |= {math.prod(s): s for kind, *s in work.decoder if kind == "grid"}

    def turned(rows):
        extra = work.config.model.get("embedding_dim", 0)
        shape = flat.get(len(rows)) or flat.get(len(rows) - extra)
        if shape is None:
            return rows
        image, rest = np.split(rows, [math.prod(shape)])
        image = np.moveaxis(image.reshape(*shape, *rows.shape[1:])[::-1, ::-1], 2, 0)
        return np.concatenate([image.reshape(-1, *rows.shape[1:]), rest])

    kinds = torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        for layer, (kernel, bias) in zip(layers, layers_in_order(state.params), strict=True):
            if isinstance(layer, torch.nn.Conv2d):
                kernel = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
            elif isinstance(layer, torch.nn.ConvTranspose2d):
                kernel = kernel.transpose(2, 3, 0, 1)
            else:
                kernel, bias = turned(turned(kernel).T), turned(bias)
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))
        if work.conditional:
            model.embedding.weight.copy_(torch.tensor(state.params["embedding"]["table"]))
            model.null.copy_(torch.tensor(state.params["embedding"]["null"]))
        if "quantizer" in state.stats:
            model.quantizer.codes.copy_(torch.tensor(state.stats["quantizer"]["codebook"]))
