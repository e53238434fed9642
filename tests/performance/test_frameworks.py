"""Every framework does the same work: as many parameters, and from equal ones equal losses."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline import models
from pipeline.mesh import sharding
from pipeline.nn import losses
from pipeline.performance import flops
from pipeline.performance.frameworks import matrix_product, naive_nnx, works
from pipeline.runtime import run_config
from pipeline.training import step

STEPS = 3
BATCH_SIZE = 4  # few examples make quick steps; the networks stay complete


@pytest.fixture(params=sorted(set(works.WORKS) - {"code_prior"}))  # it has tests of its own
def work(request):
    work = works.WORKS[request.param]()
    return work._replace(config=run_config.changed(work.config, f"batch_size={BATCH_SIZE}"))


def first_state(work):
    mesh = sharding.make_mesh({"data": 1}, devices=jax.devices()[:1])
    return mesh, step.create_state(work.config, work.example, mesh)


def our_model(work, state):
    graph, _ = models.make(work.config, work.example)
    return nnx.merge(graph, state.params, state.stats, copy=True)


def draws(work, state, number):
    """Returns the draws of our step `number`: keys, and ε with which examples lose a label."""
    key = jax.random.fold_in(jax.random.key(work.config.seed), number)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(np.arange(BATCH_SIZE))
    if work.config.model.name == "vq_vae":
        return keys, None
    zeros = jnp.zeros((BATCH_SIZE, work.config.model.latent_dim))
    epsilon = np.array(losses.sample_normal(zeros, zeros, keys))
    if not work.conditional:
        return keys, (epsilon, None)
    dropped = our_model(work, state).augment(work.batch(), keys=keys)["dropped"]
    return keys, (epsilon, np.array(dropped))


def our_loss(work, state, keys):
    """Returns the loss of the work's batch at step 0, before any update."""

    @jax.jit
    def loss(batch):
        model = our_model(work, state)
        batch = model.augment(batch, keys=keys) if work.conditional else batch
        terms, _ = model.terms(batch, keys=keys, step=0)
        return model.objective(jax.tree.map(lambda t: t.mean(axis=0), terms), step=0)

    rows = {"mask": np.ones(BATCH_SIZE), "position": np.arange(BATCH_SIZE)}
    return loss(work.batch() | rows)


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


def num_elements(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_naive_nnx_has_our_parameters_and_our_loss(work):
    _, state = first_state(work)
    theirs = naive_nnx.make(work, nnx.Rngs(params=0, noise=0))
    params = nnx.state(theirs, nnx.Param)
    assert num_elements(params) == num_elements(state.params)
    _give(params, state.params)
    if work.conditional:
        table, null = (state.params["embedding"][name] for name in ("table", "null"))
        params["embedding"]["embedding"][...], params["null"][...] = table, null
    nnx.update(theirs, params)
    if "quantizer" in state.stats:
        theirs.codes[...] = state.stats["quantizer"]["codebook"]
    keys, noise = draws(work, state, 0)

    ours = our_loss(work, state, keys)
    given = {} if noise is None else {"noise": noise}
    np.testing.assert_allclose(theirs(**work.batch(), **given), ours, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what artifex imports
def test_artifex_has_our_parameters_and_our_loss(monkeypatch):
    reason = "artifex is not installed: pip install avitai-artifex, beside tfp-nightly"
    pytest.importorskip("artifex", reason=reason)
    from pipeline.performance.frameworks import artifex

    work = works.conv_beta_vae()
    work = work._replace(config=run_config.changed(work.config, f"batch_size={BATCH_SIZE}"))
    _, state = first_state(work)
    theirs = artifex.make(work, nnx.Rngs(params=0, sample=0))
    params = nnx.state(theirs, nnx.Param)
    assert num_elements(params) == num_elements(state.params)
    _give(params, state.params)
    nnx.update(theirs, params)
    keys, (epsilon, _) = draws(work, state, 0)
    monkeypatch.setattr(jax.random, "normal", lambda *args: epsilon)
    image = {"image": work.batch()["image"] / np.float32(255)}
    loss, _ = artifex.trainer(work).compute_loss(theirs, image, 0, "bce")
    monkeypatch.undo()
    ours = our_loss(work, state, keys)
    np.testing.assert_allclose(loss, ours, rtol=1e-5)


def _give(params, ours):
    """Copies our layers' parameters into another tree that has them in the same order."""
    flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(params)}
    for path, (kernel, bias) in zip(layer_paths(flat), layers_in_order(ours), strict=True):
        flat[f"{path}/kernel"][...], flat[f"{path}/bias"][...] = kernel, bias


def test_the_limit_has_the_operations_of_the_step(work):
    mesh = sharding.make_mesh({"data": 1}, devices=jax.devices()[:1])
    batch = work.batch() | {"mask": np.ones(work.config.batch_size, np.float32)}
    given = jax.eval_shape(lambda: (batch, np.zeros(mesh.size, np.float32)))
    train_step = step.make_train_step(work.config, work.example, mesh)
    traced = train_step.trace(step.abstract_state(work.config, work.example), *given)
    (counted,) = flops.count(traced.jaxpr, "cpu").values()
    # Besides the layers, distances to codes count, and padding in our forms and in the limit.
    assert 0.9 < counted / matrix_product.operations(work) < 1.25


def test_pytorch_trains_as_ours(work):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    from pipeline.performance.frameworks import pytorch, pytorch_models

    mesh, state = first_state(work)
    model = pytorch_models.make(work)
    num = sum(param.numel() for param in model.parameters())
    assert num == num_elements(state.params)
    _copy_into_pytorch(torch, work, jax.device_get(state), model)
    update = pytorch.make_update(work, model)
    images = pytorch.tensors(work)
    images["image"] = images["image"].flip(2, 3)  # see `pytorch_models`
    batch = work.batch() | {"mask": np.ones(BATCH_SIZE, np.float32)}
    train_step = step.make_train_step(work.config, work.example, mesh)
    for number in range(STEPS):
        _, noise = draws(work, state, number)
        state, metrics, _ = train_step(state, batch, np.zeros(1, np.float32))
        if noise is not None:
            epsilon, dropped = noise
            drop = None if dropped is None else torch.from_numpy(dropped)
            images["noise"] = torch.from_numpy(epsilon), drop
        loss = model(**images)
        np.testing.assert_allclose(loss.item(), float(metrics["loss"]), rtol=1e-4)
        loss.backward()
        update()


def _copy_into_pytorch(torch, work, state, model):
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
