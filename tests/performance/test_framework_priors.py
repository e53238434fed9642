"""Every framework trains the same prior over codes: parameters, losses, and where it drops."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline import models
from pipeline.mesh import sharding
from pipeline.performance import flops
from pipeline.performance.frameworks import Unsuited, matrix_product, naive_nnx, pythae, works
from pipeline.runtime import run_config
from pipeline.training import step

STEPS = 3
BATCH_SIZE = 4  # few examples make quick steps; the networks stay complete
NO_TORCH = "PyTorch is not installed: pip install '.[bench]'"


def work_of(**changes):
    work = works.code_prior()
    changes = {"batch_size": BATCH_SIZE} | changes
    fields = ",".join(f"{name}={value}" for name, value in changes.items())
    return work._replace(config=run_config.changed(work.config, fields))


@pytest.fixture(scope="module")
def work():
    """The work without dropout, whose draws differ between frameworks."""
    return work_of(**{"model.dropout": 0.0})


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh({"data": 1}, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def state(work, mesh):
    """The first state; larger matrices tell codes apart, and vectors that aren't 0 or 1."""
    state = step.drawn_state(work.config, work.example, mesh)
    draw = np.random.default_rng(0)

    def changed(leaf):
        return 5 * leaf if leaf.ndim > 1 else leaf + 0.1 * draw.normal(size=leaf.shape)

    params = jax.tree.map(lambda leaf: jnp.float32(changed(leaf)), state.params)
    return dataclasses.replace(state, params=params)


@pytest.fixture(scope="module")
def batch(work):
    rows = {"mask": np.ones(BATCH_SIZE, np.float32)}
    return work.batch() | rows


def our_model(work, state):
    graph, _ = models.make(work.config, work.example)
    return nnx.merge(graph, state.params, state.stats, copy=True)


def dropped(work, state, batch, number):
    """Returns which examples lose their label in our step `number`, [B] bool."""
    key = jax.random.fold_in(jax.random.key(work.config.seed), number)
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(np.arange(BATCH_SIZE))
    return np.array(our_model(work, state).augment(batch, keys=keys)["dropped"])


@pytest.fixture(scope="module")
def losses(work, state, mesh, batch):
    """Our losses in some steps."""
    state, found = jax.tree.map(jnp.copy, state), []  # the step donates it
    train_step = step.make_train_step(work.config, work.example, mesh)
    for _ in range(STEPS):
        state, metrics, _ = train_step(state, batch, np.zeros(1, np.float32))
        found.append(float(metrics["loss"]))
    return found


def arrays(state):
    """Returns our parameters by path, and those of the blocks by the place of the block."""
    flat = nnx.to_flat_state(jax.device_get(state.params))
    return {"/".join(map(str, path)): np.array(leaf) for path, leaf in flat}


def num_elements(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_naive_nnx_trains_as_ours(work, state, batch, losses):
    theirs = naive_nnx.make(work, nnx.Rngs(params=0, noise=0, dropout=0))
    assert num_elements(nnx.state(theirs, nnx.Param)) == num_elements(state.params)
    ours = arrays(state)
    theirs.embedding.embedding[...] = ours["embedding/tables/0"]
    theirs.labels.embedding[...] = ours["prefix/embedding/table"]
    theirs.null[...] = ours["prefix/embedding/null"]
    positions, *blocks, norm, head = theirs.layers.layers
    positions.table.embedding[...] = ours["network/positions"]
    for number, block in enumerate(blocks):
        given = {
            path.removeprefix(f"network/blocks/{number}/"): array
            for path, array in ours.items()
            if path.startswith(f"network/blocks/{number}/")
        }
        attention = block.attention
        inputs = attention.query, attention.key, attention.value
        for place, layer in enumerate(inputs):
            kernel = np.split(given["inputs/kernel"], 3, axis=1)[place]
            bias = np.split(given["inputs/bias"], 3)[place]
            layer.kernel[...] = kernel.reshape(layer.kernel.shape)
            layer.bias[...] = bias.reshape(layer.bias.shape)
        attention.out.kernel[...] = given["outputs/kernel"].reshape(attention.out.kernel.shape)
        attention.out.bias[...] = given["outputs/bias"]
        for name in ("widen", "narrow", "norms/0", "norms/1"):
            _give(_part(block, name), given, name)
    _give(norm, ours, "network/norm")
    _give(head, ours, "head/first")

    optimizer = nnx.Optimizer(
        theirs, naive_nnx.make_optimizer(work.config.optimizer), wrt=nnx.Param
    )

    @nnx.jit
    def take_step(model, optimizer, noise):
        loss, gradients = nnx.value_and_grad(lambda model: model(**work.batch(), noise=noise))(
            model
        )
        optimizer.update(model, gradients)
        return loss

    for number, loss in enumerate(losses):
        noise = dropped(work, state, batch, number)
        np.testing.assert_allclose(take_step(theirs, optimizer, noise), loss, rtol=1e-4)


def _part(module, path):
    for name in path.split("/"):
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    return module


def _give(layer, ours, path):
    for name in ("kernel", "scale", "bias"):
        if f"{path}/{name}" in ours:
            getattr(layer, name)[...] = ours[f"{path}/{name}"]


def test_pytorch_trains_as_ours(work, state, batch, losses):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from pipeline.performance.frameworks import pytorch, pytorch_models

    theirs = pytorch_models.make(work)
    num = sum(param.numel() for param in theirs.parameters())
    assert num == num_elements(state.params)
    named = {
        "embedding.weight": "embedding/tables/0",
        "labels.weight": "prefix/embedding/table",
        "null": "prefix/embedding/null",
        "layers.0.table": "network/positions",
        "layers.5": "network/norm",
        "layers.6": "head/first",
    }
    ours, copied = arrays(state), set()
    with torch.no_grad():
        for name, param in theirs.named_parameters():
            place, _, kind = name.rpartition(".")
            path = named.get(name) or named.get(place)
            if path is None:  # a part of a block, whose names are ours
                number, rest = re.fullmatch(r"layers\.(\d)\.(.*)", place).groups()
                path = f"network/blocks/{int(number) - 1}/{rest.replace('.', '/')}"
            path = next(p for p in (path, *_paths(path, kind)) if p in ours)
            array = ours[path].T if path.endswith("/kernel") else ours[path]
            param.copy_(torch.from_numpy(array.copy()))
            copied.add(path)
    assert copied == set(ours)
    update, tensors = pytorch.make_update(work, theirs), pytorch.tensors(work)
    for number, expected in enumerate(losses):
        noise = torch.from_numpy(dropped(work, state, batch, number))
        loss = theirs(**tensors, noise=noise)
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)
        loss.backward()
        update()


def _paths(path, kind):
    kinds = ("kernel", "scale") if kind == "weight" else ("bias",)
    return [f"{path}/{name}" for name in kinds]


def test_features_are_dropped_at_as_many_places_everywhere(monkeypatch):
    work = work_of(**{"model.dropout": 0.5})
    shapes = {"ours": [], "naive": [], "torch": []}
    batch = work.batch()
    codes = batch["codes"].reshape(BATCH_SIZE, -1).astype(np.int32)

    def drop(x):
        shapes["ours"].append(x.shape)
        return x

    mesh = sharding.make_mesh({"data": 1}, devices=jax.devices()[:1])
    state = step.drawn_state(work.config, work.example, mesh)
    our_model(work, state).features(codes, batch, drop=drop)

    theirs = naive_nnx.make(work, nnx.Rngs(params=0, noise=0, dropout=0))
    whole = nnx.Dropout.__call__

    def called(self, x, **given):
        assert self.rate == 0.5
        shapes["naive"].append(x.shape)
        return whole(self, x, **given)

    monkeypatch.setattr(nnx.Dropout, "__call__", called)
    theirs(**batch)
    assert shapes["naive"] == 9 * [(BATCH_SIZE, 49, 128)]
    assert shapes["ours"] == 9 * [(BATCH_SIZE * 49, 128)]

    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from pipeline.performance.frameworks import pytorch, pytorch_models

    model = pytorch_models.make(work)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            assert layer.p == 0.5 and layer.training
            layer.register_forward_hook(lambda _, x, out: shapes["torch"].append(tuple(out.shape)))
    model(**pytorch.tensors(work))
    assert shapes["torch"] == shapes["naive"]


def test_the_limit_has_the_operations_of_the_step(work, mesh, batch):
    given = jax.eval_shape(lambda: (batch, np.zeros(mesh.size, np.float32)))
    train_step = step.make_train_step(work.config, work.example, mesh)
    traced = train_step.trace(step.abstract_state(work.config, work.example), *given)
    (counted,) = flops.count(traced.jaxpr, "cpu").values()
    # Besides the layers, the product with the table of labels counts.
    assert 1 <= counted / matrix_product.operations(work) < 1.02


def test_pythae_has_no_prior(work):
    with pytest.raises(Unsuited, match="pythae has no causal transformer"):
        pythae.start(work, ())
