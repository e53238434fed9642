import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.mesh import sharding
from pipeline.training import evaluation, optimizer, step
from tests.support.small_models import (
    EXAMPLE,
    IMAGES,
    VARIANTS,
    all_reduces,
    batch_on,
    first_state,
    make_config,
    mesh_of,
    train,
)

NETWORKS = {
    "beta": ("dense", "conv", "locatello"),
    "capacity": ("dense",),  # its networks are beta's
    "concat": ("dense", "conv"),
    "film": ("dense",),  # it acts only on dense layers
    "vq": ("dense", "conv", "residual", "scalable"),
    "tc": ("dense",),  # its networks are beta's
    "dip": ("dense",),
    "info": ("dense",),
    "factor": ("dense",),
}
CHECKED = [("film", "dense"), ("vq", "dense"), ("dip", "dense"), ("factor", "dense")]
CASES = [(variant, network) for variant in VARIANTS for network in NETWORKS[variant]]
SMALL_CASES = [(name, "dense") for name in VARIANTS] + [("beta", "conv"), ("vq", "conv")]
# test_check_model.py shows this of others, and test_coupling.py of those with coupled terms.
ON_MESHES = ("beta", "capacity", "concat")


@pytest.mark.parametrize(
    ("variant", "network"),
    [*((name, "dense") for name in ON_MESHES), ("beta", "conv"), ("vq", "conv")],
)
def test_the_loss_curve_is_the_same_on_any_mesh_and_with_accumulation(variant, network):
    config = make_config(variant, **{"model.network": network})
    # The last bit can decide between two codes, and after that the curves differ.
    num_steps = 10 if variant == "vq" else 50
    reference = train(config, 1, num_steps=num_steps)[1]
    assert reference[-1] != reference[0]
    meshes = ((2, 1), (4, 1), (8, 1), (1, 4), (2, 4))
    for devices, parts in meshes if (variant, network) == ("beta", "dense") else ((4, 4),):
        config.accumulation_steps = parts
        losses = train(config, devices, num_steps=num_steps)[1]
        np.testing.assert_allclose(losses, reference, rtol=1e-5)


# Inside loops XLA's CPU compiler is fast only for this order of dimensions; see
# `nn/looped_convolutions`.
@pytest.mark.parametrize(
    ("variant", "network"),
    [("beta", "conv"), ("beta", "locatello"), ("vq", "residual"), ("vq", "scalable")],
)
def test_all_convolutions_of_a_loop_have_the_order_that_is_fast(variant, network):
    config = make_config(variant, **{"model.network": network, "accumulation_steps": 2})
    mesh, images = mesh_of(1), np.zeros((16, 32, 32, 1), np.uint8)
    example = {"image": jax.ShapeDtypeStruct(images.shape[1:], np.uint8)}
    arguments = step.abstract_state(config, example), *batch_on(mesh, images)
    text = step.make_train_step(config, example, mesh).lower(*arguments).compile().as_text()
    assert set(re.findall(r"dim_labels=(\w+->\w+)", text)) == {"b01f_01io->b01f"}


def test_the_first_state_is_the_same_on_any_mesh():
    config = make_config("vq")
    one, eight = (step.create_state(config, EXAMPLE, mesh_of(n)) for n in (1, 8))
    jax.tree.map(np.testing.assert_array_equal, one, eight)


@pytest.mark.parametrize("num_devices", [2, 8, 64])
def test_the_compiled_step_holds_one_all_reduce_of_parameters_and_sums(num_devices):
    num_params, found = all_reduces(make_config("beta"), num_devices)
    assert found == [f"f32[{num_params + 3}]"]  # reconstruction, KL, stop


@pytest.mark.parametrize("variant", ["beta", "capacity", "vq"])
def test_one_device_reduces_nothing(variant):
    assert all_reduces(make_config(variant), 1)[1] == []


@pytest.mark.parametrize("num_devices", [2, 8, 64])
def test_capacity_adds_one_scalar_before_the_backward_pass(num_devices):
    num_params, found = all_reduces(make_config("capacity"), num_devices)
    assert found == ["f32[]", f"f32[{num_params + 4}]"]


def test_dip_adds_its_moments_before_the_backward_pass():
    num_params, found = all_reduces(make_config("dip", **{"model.latent_dim": 3}), 8)
    assert found == ["f32[12]", f"f32[{num_params + 15}]"]  # reconstruction, KL, stop, moments


@pytest.mark.parametrize("variant", ["concat", "film"])
def test_conditions_add_no_collective(variant):
    num_params, found = all_reduces(make_config(variant), 8)
    assert found == [f"f32[{num_params + 3}]"]


@pytest.mark.parametrize("variant", ["beta", "concat", "film"])
def test_bfloat16_compute_reduces_in_float32(variant):
    num_params, found = all_reduces(make_config(variant, compute_dtype="bfloat16"), 8)
    assert found == [f"f32[{num_params + 3}]"]


@pytest.mark.parametrize(("variant", "network"), SMALL_CASES)
def test_each_variant_overfits_eight_examples(variant, network):
    config = make_config(
        variant, **{"model.network": network, "batch_size": 8, "optimizer.learning_rate": 3e-3}
    )
    config.model.likelihood = "gaussian"
    config.model.sigma = 0.1
    constant = 256 * np.log(0.1 * np.sqrt(2 * np.pi))
    _, _, metrics = train(config, 1, num_steps=600, images=IMAGES[:8])
    first = train(config, 1, num_steps=1, images=IMAGES[:8])[2]
    error = float(metrics["distortion"]) - constant
    assert error < 0.1 * (float(first["distortion"]) - constant)


# test_check_model.py shows this of those in CHECKED.
@pytest.mark.parametrize(("variant", "network"), [case for case in CASES if case not in CHECKED])
def test_gradients_reach_every_parameter(variant, network):
    config = make_config(variant, **{"model.network": network})
    if variant == "beta":
        config.model.likelihood, config.model.learn_sigma = "gaussian", True
    config.optimizer.learning_rate = 1e-2
    before = step.create_state(config, EXAMPLE, mesh_of(1))
    after = train(config, 1, num_steps=3)[0]
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before.params),
        jax.tree.leaves(after.params),
        strict=True,
    ):
        assert np.any(np.asarray(old) != np.asarray(new)), jax.tree_util.keystr(path)


def test_one_flag_of_one_device_stops_all():
    config = make_config("beta")
    mesh = mesh_of(4)
    batch, stop = batch_on(mesh, IMAGES)
    stop = stop.at[2].set(1.0)
    _, _, stopped = step.make_train_step(config, EXAMPLE, mesh)(
        first_state(config, mesh), batch, stop
    )
    assert stopped.tolist() == [1.0, 0.0]


def test_evaluation_is_exact_with_a_padded_last_batch():
    config = make_config("beta", batch_size=8)
    mesh = mesh_of(4)
    state = first_state(config, mesh)
    eval_step = evaluation.make_eval_step(config, EXAMPLE, mesh)
    summary = evaluation.make_summary(config, EXAMPLE)
    mask = np.ones(8, np.float32)
    mask[5:] = 0

    def evaluate(images, mask):
        batch = jax.device_put({"image": images, "mask": mask}, sharding.batch_sharded(mesh))
        return float(summary(state, eval_step(state, batch, jnp.uint32(0)))["elbo"])

    damaged = IMAGES[:8].copy()
    damaged[5:] = 255
    assert evaluate(IMAGES[:8], mask) == evaluate(damaged, mask)
    assert evaluate(IMAGES[:8], mask) != evaluate(IMAGES[:8], np.ones(8, np.float32))


def test_averaged_parameters_follow_the_recursion():
    config = ConfigDict(make_config("beta").optimizer.to_dict())
    config.ema_decay = 0.5
    transform = optimizer.make(config)
    params = {"w": jnp.ones(3)}
    state, expected = transform.init(params), np.ones(3)
    for _ in range(3):
        updates, state = transform.update({"w": jnp.ones(3)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        expected = 0.5 * expected + 0.5 * np.asarray(params["w"])
    np.testing.assert_allclose(optimizer.evaluation_params(params, state)["w"], expected, rtol=1e-6)


def test_evaluation_uses_averaged_parameters_throughout():
    config = make_config("beta", **{"optimizer.ema_decay": 0.9, "optimizer.learning_rate": 1e-2})
    config.model.likelihood, config.model.learn_sigma = "gaussian", True
    state = train(config, 1, num_steps=20)[0]
    averaged = optimizer.evaluation_params(state.params, state.opt_state)
    as_trained = dataclasses.replace(state, params=averaged)
    mesh = mesh_of(1)
    batch, _ = batch_on(mesh, IMAGES)
    summary = evaluation.make_summary(config, EXAMPLE)
    summed = evaluation.make_eval_step(config, EXAMPLE, mesh)(state, batch, jnp.uint32(0))
    assert float(summary(state, summed)["sigma"]) == float(summary(as_trained, summed)["sigma"])
    assert not np.array_equal(averaged["likelihood"]["log_sigma"],
                              state.params["likelihood"]["log_sigma"])  # fmt: skip
