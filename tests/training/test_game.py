"""Training with a discriminator: one all-reduce, the same numbers on any mesh, and resuming."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.mesh import layouts, sharding
from pipeline.nn import perceptual
from pipeline.testing import repeats, runs, subjects
from pipeline.training import step
from tests.support import small_models

PARTS = {"discriminator": 2e-3}
TWO_CUT = {"data": 1, "fsdp": 2}


def make_config(variant="vq", **changes):
    config = small_models.make_config(variant, batch_size=16)
    config.model.adversarial.update({"weight": 0.1, "channels": 8, "num_layers": 2})
    config.model.adversarial.update({"regularization": "lecam", "regularization_weight": 1e-3})
    with config.unlocked():
        config.optimizer.own_rates = ConfigDict(PARTS)
        config.optimizer.own_betas = ConfigDict({"discriminator": (0.5, 0.9)})
    config.update_from_flattened_dict(changes)
    return config


def trained(config, axes, *, num_steps=3):
    devices = jax.devices()[: axes["data"] * axes.get("fsdp", 1)]
    mesh = sharding.make_mesh(axes, devices=devices)
    state = step.create_state(config, small_models.EXAMPLE, mesh)
    train_step = step.make_train_step(config, small_models.EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, small_models.IMAGES[:16])
    logged = []
    for _ in range(num_steps):
        state, metrics, _ = train_step(state, batch, stop)
        logged.append({k: float(v) for k, v in metrics.items() if np.ndim(v) == 0})
    return jax.device_get(layouts.to_tree(state)), logged


@pytest.fixture(scope="module")
def alone():
    return trained(make_config(), {"data": 1})


@pytest.mark.parametrize(
    ("axes", "changes"),
    [
        ({"data": 4}, {}),
        ({"data": 1}, {"accumulation_steps": 2}),
        (TWO_CUT, {"accumulation_steps": 2}),
    ],
)
def test_the_losses_of_both_players_are_those_of_one_device(alone, axes, changes):
    _, logged = trained(make_config(**changes), axes)
    for one, other in zip(logged, alone[1], strict=True):
        for name in ("loss", "generator_loss", "discriminator_loss", "discriminator_penalty"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=name)
        for name in ("grad_norm", "grad_norm_discriminator", "grad_norm_others"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, err_msg=name)
        of_parts = one["grad_norm_discriminator"] ** 2 + one["grad_norm_others"] ** 2
        np.testing.assert_allclose(of_parts, one["grad_norm"] ** 2, rtol=1e-4)


def test_the_bits_do_not_depend_on_the_devices_with_shards():
    config = make_config(deterministic_shards=2)
    one, other = (trained(config, {"data": n}, num_steps=2)[0] for n in (1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("regularization", ["r1", "lecam"])
def test_a_game_that_is_resumed_has_the_bits_of_one_that_never_stopped(regularization):
    config = make_config(**{"model.adversarial.regularization": regularization})
    subject = subjects.make(config, devices=1, batch=None, steps=3)
    assert repeats.check(subject, runs.trained(subject, runs.Layout()))


@pytest.mark.parametrize("variant", ["vq", "beta"])
def test_one_all_reduce_serves_both_players(variant):
    num_params, sizes = small_models.all_reduces(make_config(variant), 4)
    assert len(sizes) == 1, sizes
    assert int(sizes[0].removeprefix("f32[").rstrip("]")) > num_params


@pytest.mark.skipif(not perceptual.is_installed(), reason="the extra perceptual is not installed")
def test_lpips_is_an_objective_whose_own_weights_stay():
    config = make_config(**{"model.perceptual.weight": 0.5})
    weights = jax.tree.leaves(perceptual.load("vgg"))
    (one, logged), (other, of_two) = (trained(config, axes) for axes in ({"data": 1}, TWO_CUT))
    for state in (one, other):
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.leaves(state.stats["image_terms"]["lpips"]),
            weights,
        )
    for mine, theirs in zip(logged, of_two, strict=True):
        assert mine["perceptual_loss"] > 0.01
        np.testing.assert_allclose(mine["perceptual_loss"], theirs["perceptual_loss"], rtol=1e-5)
        np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-5)
    assert logged[-1]["perceptual_loss"] < logged[0]["perceptual_loss"]
