"""Learning rates of parts of a model; test_step.py tests the averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline.mesh import flat_buffers, layouts, sharding
from pipeline.runtime import errors
from pipeline.training import optimizer, step
from tests.support import small_models

RATES = {"learning_rate": 0.4, "warmup_steps": 0}
PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "ab": jnp.ones((4, 2))}


def section(**changes):
    config = small_models.make_config("beta").optimizer
    with config.unlocked():
        config.update(RATES | {"decay_steps": 10, **changes})
    return config


def test_a_part_follows_its_own_rate_with_the_same_schedule():
    config = section(own_rates={"a": 0.1}, name="adamw", weight_decay=0.5)
    plain = section(name="adamw", weight_decay=0.5)
    gradients = jax.tree.map(lambda p: p * 3.0, PARAMS)
    transform, reference = optimizer.make(config), optimizer.make(plain)
    state, expected_state = transform.init(PARAMS), reference.init(PARAMS)
    for _ in range(3):
        updates, state = transform.update(gradients, state, PARAMS)
        expected, expected_state = reference.update(gradients, expected_state, PARAMS)
        np.testing.assert_array_equal(updates["ab"], expected["ab"])
        for name, array in updates["a"].items():
            np.testing.assert_allclose(array, expected["a"][name] / 4, rtol=1e-6)


def test_every_value_of_a_piece_has_the_factor_of_its_array():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2}, devices=jax.devices()[:2])

    def factors():
        piece = flat_buffers.own_piece(PARAMS, mesh)
        return optimizer.parts.by_part(piece, {"a": 0.25}, 1.0).values

    specs = jax.sharding.PartitionSpec("fsdp")
    found = jax.jit(jax.shard_map(factors, mesh=mesh, in_specs=(), out_specs=specs))()
    whole = flat_buffers.flatten(PARAMS, mesh)
    tree = flat_buffers.unflatten(flat_buffers.Flat(found, whole.form))
    expected = {"a": {"kernel": 0.25, "bias": 0.25}, "ab": 1.0}
    jax.tree.map(lambda leaf, value: np.testing.assert_array_equal(leaf, value), tree, expected)


def test_a_run_with_cut_state_follows_the_same_rates():
    config = small_models.make_config("beta", **{"optimizer.learning_rate": 1e-2})
    with config.unlocked():
        config.optimizer.own_rates = {"encoder": 1e-3}
    first = jax.device_get(step.create_state(config, small_models.EXAMPLE, mesh_of(1, 1)).params)
    ends = []
    for devices in ((8, 1), (2, 4)):
        mesh = mesh_of(*devices)
        state = step.create_state(config, small_models.EXAMPLE, mesh)
        train_step = step.make_train_step(config, small_models.EXAMPLE, mesh)
        batch, stop = small_models.batch_on(mesh, small_models.IMAGES)
        # The rate of step 0 is 0, and Adam's first updates are ±1.
        for _ in range(2):
            state, metrics, _ = train_step(state, batch, stop)
        ends.append(jax.device_get(layouts.to_tree(state).params))
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)
    moved = jax.tree.map(lambda end, start: np.abs(end - start).max(), ends[0], first)
    rate = float(metrics["learning_rate"])
    np.testing.assert_allclose(max(jax.tree.leaves(moved["decoder"])), rate, rtol=0.05)
    np.testing.assert_allclose(max(jax.tree.leaves(moved["encoder"])), rate / 10, rtol=0.05)


def mesh_of(data, fsdp):
    return sharding.make_mesh({"data": data, "fsdp": fsdp}, devices=jax.devices()[: data * fsdp])


def test_a_part_has_its_own_betas():
    rtol = 2e-5  # 1 − b2ᵗ loses digits in float32, and optax takes the power in another way
    config = section(own_betas={"a": (0.5, 0.9)})
    plain, other = section(), section(b1=0.5, b2=0.9)
    transforms = [optimizer.make(one) for one in (config, plain, other)]
    states = [one.init(PARAMS) for one in transforms]
    for turn in range(3):
        gradients = jax.tree.map(lambda p, k=turn: (2.0 - k) * p, PARAMS)
        updates = []
        for k, transform in enumerate(transforms):
            update, states[k] = transform.update(gradients, states[k], PARAMS)
            updates.append(update)
        np.testing.assert_allclose(updates[0]["ab"], updates[1]["ab"], rtol=rtol)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol),
            updates[0]["a"],
            updates[2]["a"],
        )
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_a_kind_of_array_is_no_part():
    config = small_models.make_config("beta")
    config.optimizer.own_rates = {"kernel": 1e-3}
    with pytest.raises(
        errors.InputError, match=r"own_rates.kernel=0.001: .* only dec.*: set it to 0"
    ):
        step.abstract_state(config, small_models.EXAMPLE)


@pytest.mark.parametrize("pair", [(0.5,), (0.5, 1.0), (-0.1, 0.9), ("a", 0.9)])
def test_betas_that_cannot_work_are_refused(pair):
    with pytest.raises(errors.InputError, match=r"own_betas\.a=.* must be two numbers in"):
        optimizer.make(section(own_betas={"a": pair}))


def test_the_banner_names_the_rates():
    config = section(own_rates={"a": 0.1}, schedule="constant")
    assert optimizer.describe(config, 10) == "constant at 0.4, a's 0.1"


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(errors.InputError, match=f"own_rates.a={rate} must be positive"):
        optimizer.make(section(own_rates={"a": rate}))


def test_a_rate_of_a_part_that_the_model_lacks_is_refused():
    config = small_models.make_config("beta")
    with config.unlocked():
        config.optimizer.own_rates = {"encodr": 1e-3}
    with pytest.raises(
        errors.InputError, match=r"own_rates.encodr=.*: this model has no part .* decoder"
    ):
        step.abstract_state(config, small_models.EXAMPLE)
