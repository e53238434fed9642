"""Several seeds in one program learn what each learns by itself."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from pipeline.models import beta_vae
from pipeline.runtime import errors
from pipeline.training import dispatch, guard, recovery, replicas, setup, step, verdicts
from tests.support import small_models
from tests.support.small_models import EXAMPLE, IMAGES, mesh_of


def several(variant, **changes):
    return small_models.make_config(variant, **{"seed": 5, "replicas": 2, **changes})


def test_a_single_run_stays_as_it_is():
    config = small_models.make_config("beta")
    assert replicas.alone(config) == [config]
    assert list(replicas.seeds(config)) == [0]


def test_each_replica_is_a_run_of_its_seed_on_the_same_data():
    alone = replicas.alone(several("beta"))
    assert [(one.seed, one.data.seed, one.replicas) for one in alone] == [(5, 5, 1), (6, 5, 1)]
    alone = replicas.alone(several("beta", **{"data.seed": 2}))
    assert [(one.seed, one.data.seed, one.replicas) for one in alone] == [(5, 2, 1), (6, 2, 1)]


@pytest.mark.parametrize(
    ("variant", "devices", "changes"),
    [
        ("beta", 1, {"optimizer.ema_decay": 0.9, "optimizer.clip_norm": 1.0}),
        ("beta", 1, {"model.network": "conv"}),
        ("film", 2, {"accumulation_steps": 2}),
        ("vq", 1, {"model.quantizer.restart_steps": 2}),
        ("tc", 2, {}),
    ],
)
def test_each_seed_learns_what_it_learns_alone(variant, devices, changes):
    config, mesh = several(variant, **changes), mesh_of(devices)
    first = small_models.first_state(config, mesh)
    found, losses = trained(config, mesh)
    for index, alone in enumerate(replicas.alone(config)):
        start = small_models.first_state(alone, mesh)
        jax.tree.map(np.testing.assert_array_equal, replicas.one(first, index), start)
        state, own = trained(alone, mesh)
        np.testing.assert_allclose(losses[:, index], own, rtol=1e-5)
        near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
        jax.tree.map(near, replicas.one(found, index), state)
    assert (losses[:, 0] != losses[:, 1]).all()


def trained(config, mesh, num_steps=8):
    state = small_models.first_state(config, mesh)
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    losses = []
    for _ in range(num_steps):
        state, metrics, _ = train_step(state, batch, stop)
        losses.append(np.asarray(metrics["loss"]))
    return state, np.stack(losses)


def test_all_seeds_travel_in_one_all_reduce():
    num_params, [alone] = small_models.all_reduces(small_models.make_config("beta"), 2)
    num_all, [together] = small_models.all_reduces(several("beta"), 2)
    assert num_all == 2 * num_params
    sizes = [re.match(r"f32\[([\d,]+)\]", text)[1].split(",") for text in (alone, together)]
    assert np.prod(np.array(sizes[1], int)) == 2 * np.prod(np.array(sizes[0], int))


def broken_second(config, mesh):
    """Returns a first state in which the second replica's parameters are not finite."""
    state = small_models.first_state(config, mesh)
    broken = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), state.params)
    return dataclasses.replace(state, params=broken)


def test_the_guard_names_the_seed_whose_loss_is_not_finite():
    config, mesh = several("beta"), mesh_of(1)
    state = broken_second(config, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    state, _, verdict = step.make_train_step(config, EXAMPLE, mesh)(state, batch, stop)
    np.testing.assert_array_equal(verdict, [0, guard.GOOD, guard.NOT_FINITE])

    unread = verdicts.Verdicts(1, 2)
    unread.add(1, verdict)
    found = unread.read(1, now=True)
    assert found == verdicts.Verdict(False, 1, guard.NOT_FINITE, replica=1)
    ready = setup.prepare(config, devices=mesh.devices.flat, open_data=False)
    with pytest.raises(FloatingPointError, match="the loss of the seed 6 of step 1 is not finite"):
        recovery.Recovery(ready, checkpoints=None, late=None).go_back(found, 1, state)


def test_several_steps_in_one_dispatch_judge_every_seed():
    config, mesh = several("beta", steps_per_dispatch=3), mesh_of(1)
    take_steps = dispatch.Dispatcher(config, EXAMPLE, mesh)
    arrays = take_steps.arrays(broken_second(config, mesh))
    batch, stop = small_models.batch_on(mesh, IMAGES)
    _, metrics, rows = take_steps(arrays, [batch, batch], stop)
    assert metrics["loss"].shape == (2,)
    np.testing.assert_array_equal(rows, [[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    unread = verdicts.Verdicts(1, 2)
    unread.add(2, rows)
    assert unread.read(2, now=True) == verdicts.Verdict(False, 1, guard.NOT_FINITE, replica=1)


def test_a_stop_request_reaches_the_verdict_of_all_seeds():
    config, mesh = several("beta"), mesh_of(2)
    state = small_models.first_state(config, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    _, _, verdict = step.make_train_step(config, EXAMPLE, mesh)(state, batch, stop + 1)
    assert verdict.shape == (3,) and verdict[0] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mesh.fsdp": 2}, "config.replicas=2 needs config.mesh.fsdp=1, not 2"),
        ({"guard.action": "rollback"}, "needs config.guard.action 'stop' or 'off', not 'rollback'"),
        ({"deterministic_shards": 4}, "config.replicas=2 needs config.deterministic_shards=0, not"),
        ({"seed": 2**32 - 1}, f"reach the seed {2**32}: it must be at most {2**32 - 1}"),
        ({"replicas": 0}, "config.replicas=0 must be at least 1"),
    ],
)
def test_what_replicas_cannot_do_is_refused_in_one_line(changes, said):
    devices = jax.devices()[: 2 if "mesh.fsdp" in changes else 1]
    with pytest.raises(errors.InputError, match=re.escape(said)) as caught:
        setup.prepare(several("beta", **changes), devices=devices, open_data=False)
    assert "\n" not in str(caught.value)


def test_a_model_that_reads_the_seed_by_itself_is_refused(monkeypatch):
    class Model(beta_vae.Model):
        def __init__(self, config, example, *, rngs):
            super().__init__(config, example, rngs=rngs)
            self.seed = config.seed

    monkeypatch.setattr(beta_vae, "Model", Model)
    with pytest.raises(errors.InputError, match=r"reads config\.seed, which all replicas would"):
        replicas.check_model(several("beta"), EXAMPLE)
