"""Every framework does the same work: as many parameters, and from equal ones equal losses."""

import jax
import numpy as np
import pytest
from flax import nnx

from pipeline.mesh import sharding
from pipeline.performance import flops
from pipeline.performance.frameworks import matrix_product, naive_nnx, works
from pipeline.runtime import run_config
from pipeline.training import step
from tests.support import equal_works

STEPS = 3
BATCH_SIZE = 4  # few examples make quick steps; the networks stay complete


@pytest.fixture(params=sorted(set(works.WORKS) - {"code_prior"}))  # it has tests of its own
def work(request):
    work = works.WORKS[request.param]()
    return work._replace(config=run_config.changed(work.config, f"batch_size={BATCH_SIZE}"))


def our_loss(work, state, keys):
    """Returns the loss of the work's batch at step 0, before any update."""

    @jax.jit
    def loss(batch):
        model = equal_works.our_model(work, state)
        batch = model.augment(batch, keys=keys) if work.conditional else batch
        terms, _ = model.terms(batch, keys=keys, step=0)
        return model.objective(jax.tree.map(lambda t: t.mean(axis=0), terms), step=0)

    rows = {"mask": np.ones(BATCH_SIZE), "position": np.arange(BATCH_SIZE)}
    return loss(work.batch() | rows)


def num_elements(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_naive_nnx_has_our_parameters_and_our_loss(work):
    _, state = equal_works.first_state(work)
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
    keys, noise = equal_works.draws(work, state, 0)

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
    _, state = equal_works.first_state(work)
    theirs = artifex.make(work, nnx.Rngs(params=0, sample=0))
    params = nnx.state(theirs, nnx.Param)
    assert num_elements(params) == num_elements(state.params)
    _give(params, state.params)
    nnx.update(theirs, params)
    keys, (epsilon, _) = equal_works.draws(work, state, 0)
    monkeypatch.setattr(jax.random, "normal", lambda *args: epsilon)
    image = {"image": work.batch()["image"] / np.float32(255)}
    loss, _ = artifex.trainer(work).compute_loss(theirs, image, 0, "bce")
    monkeypatch.undo()
    ours = our_loss(work, state, keys)
    np.testing.assert_allclose(loss, ours, rtol=1e-5)


def _give(params, ours):
    """Copies our layers' parameters into another tree that has them in the same order."""
    flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(params)}
    for path, (kernel, bias) in zip(
        equal_works.layer_paths(flat), equal_works.layers_in_order(ours), strict=True
    ):
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

    mesh, state = equal_works.first_state(work)
    model = pytorch_models.make(work)
    num = sum(param.numel() for param in model.parameters())
    assert num == num_elements(state.params)
    equal_works.copy_into_pytorch(torch, work, jax.device_get(state), model)
    torch_step = pytorch.make_step(work, model)
    images = pytorch.tensors(work)
    images["image"] = images["image"].flip(2, 3)  # see `pytorch_models`
    batch = work.batch() | {"mask": np.ones(BATCH_SIZE, np.float32)}
    train_step = step.make_train_step(work.config, work.example, mesh)
    for number in range(STEPS):
        _, noise = equal_works.draws(work, state, number)
        state, metrics, _ = train_step(state, batch, np.zeros(1, np.float32))
        if noise is not None:
            epsilon, dropped = noise
            drop = None if dropped is None else torch.from_numpy(dropped)
            images["noise"] = torch.from_numpy(epsilon), drop
        loss = torch_step(images)
        np.testing.assert_allclose(loss.item(), float(metrics["loss"]), rtol=1e-4)
