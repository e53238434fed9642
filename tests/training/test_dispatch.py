"""Several steps in one dispatch equal the same steps one by one."""

import jax
import numpy as np
import pytest

from pipeline import datasets
from pipeline.performance.bench import NEVER
from pipeline.training import batching, dispatch, guard, step, verdicts
from tests.support import processes, runs, small_models

FEW = ("--config.total_steps=26", "--config.log_every_steps=10", "--config.look_every_steps=3")


def assert_near(one, other):
    """Checks equality up to last bits, which Adam's first steps multiply."""

    def near(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)

    jax.tree.map(near, one, other)


@pytest.mark.parametrize(
    ("variant", "network", "devices"),
    [("beta", "dense", 1), ("vq", "dense", 1), ("beta", "conv", 1), ("capacity", "dense", 2)],
)
def test_steps_have_the_same_bits_however_they_are_grouped(variant, network, devices):
    config, mesh = small_models.make_config(variant), small_models.mesh_of(devices)
    config.model.network = network
    config.steps_per_dispatch = 3
    example = datasets.example_spec(config)
    take_steps = dispatch.Dispatcher(config, example, mesh)
    source, stop = datasets.load(config).train, verdicts.StopFlags(mesh, NEVER)()

    def grouped(*sizes, take_steps=take_steps):
        ahead = batching.ahead(source, config, mesh, first_step=0)
        arrays = take_steps.arrays(step.create_state(config, example, mesh))
        said = []
        for size in sizes:
            batches = [next(ahead) for _ in range(size)]
            arrays, metrics, rows = take_steps(arrays, batches, stop)
            said += list(np.asarray(rows))[-size:]
        return jax.device_get((take_steps.state(arrays), metrics, np.stack(said)))

    together = grouped(3, 3)
    jax.tree.map(np.testing.assert_array_equal, grouped(1, 1, 1, 1, 1, 1), together)
    jax.tree.map(np.testing.assert_array_equal, grouped(2, 3, 1), together)

    config.steps_per_dispatch = 5
    others = dispatch.Dispatcher(config, example, mesh)
    jax.tree.map(np.testing.assert_array_equal, grouped(5, 1, take_steps=others), together)

    config.steps_per_dispatch = 1
    one_by_one = dispatch.Dispatcher(config, example, mesh)
    arrays = one_by_one.arrays(step.create_state(config, example, mesh))
    batches, words = batching.ahead(source, config, mesh, first_step=0), []
    for _, batch in zip(range(6), batches, strict=False):
        arrays, metrics, word = one_by_one(arrays, [batch], stop)
        words.append(np.asarray(word))
    assert_near(together[0], one_by_one.state(arrays))
    np.testing.assert_allclose(together[1]["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_array_equal(together[2], np.stack(words))


def test_a_bad_step_and_a_stop_request_are_found_in_a_dispatch_of_few_steps():
    config, mesh = small_models.make_config("beta"), small_models.mesh_of(1)
    config.steps_per_dispatch = 4
    example = datasets.example_spec(config)
    take_steps = dispatch.Dispatcher(config, example, mesh)
    unread = verdicts.Verdicts(1)
    arrays = take_steps.arrays(step.create_state(config, example, mesh))
    batches = batching.ahead(datasets.load(config).train, config, mesh, first_step=0)
    stop = verdicts.StopFlags(mesh, NEVER)()
    broken = next(batches)
    broken = broken | {"mask": broken["mask"] * np.nan}
    for at, given, flags in (
        (3, [next(batches)] * 3, stop),
        (5, [next(batches), broken], stop + 1),
    ):
        arrays, _, rows = take_steps(arrays, given, flags)
        unread.add(at, rows)
    assert unread.read(5, now=True) == verdicts.Verdict(True, 5, guard.NOT_FINITE)


@pytest.mark.parametrize(("variant", "devices"), [("beta", 1), ("vq", 2), ("capacity", 1)])
def test_a_step_on_the_state_s_arrays_has_the_bits_of_one_on_its_tree(variant, devices):
    config, mesh = small_models.make_config(variant), small_models.mesh_of(devices)
    example = datasets.example_spec(config)
    take_steps, state = dispatch.Dispatcher(config, example, mesh), None
    train_step = step.make_train_step(config, example, mesh)
    batches = batching.ahead(datasets.load(config).train, config, mesh, first_step=0)
    stop = verdicts.StopFlags(mesh, NEVER)()
    state, other = (step.create_state(config, example, mesh) for _ in range(2))
    arrays = take_steps.arrays(other)
    for _, batch in zip(range(3), batches, strict=False):
        state, *said = train_step(state, batch, stop)
        given = arrays
        arrays, *heard = take_steps(given, [batch], stop)
        assert all(array.is_deleted() for array in given)
        jax.tree.map(np.testing.assert_array_equal, heard, said)
    jax.tree.map(np.testing.assert_array_equal, take_steps.state(arrays), state)


def test_no_dispatch_goes_over_a_step_behind_which_the_host_has_work():
    config = small_models.make_config("beta")
    config.steps_per_dispatch, config.total_steps = 4, 26
    config.log_every_steps, config.eval_every_steps = 10, 10
    config.checkpoint.every_steps = 12
    take_steps = dispatch.Dispatcher(config, small_models.EXAMPLE, small_models.mesh_of(1))
    sizes, at = [], 0
    while at < config.total_steps:
        sizes.append(take_steps.num_steps(at))
        at += sizes[-1]
    assert sizes == [4, 4, 2, 2, 4, 4, 4, 2]
    assert at == 26


def test_a_dispatch_is_no_longer_than_the_steps_between_two_stops():
    config = small_models.make_config("beta")
    config.steps_per_dispatch, config.log_every_steps = 1000, 3
    config.eval_every_steps = config.checkpoint.every_steps = config.total_steps = 12
    mesh = small_models.mesh_of(1)
    example = datasets.example_spec(config)
    take_steps = dispatch.Dispatcher(config, example, mesh)
    arrays = take_steps.arrays(step.create_state(config, example, mesh))
    batches = batching.ahead(datasets.load(config).train, config, mesh, first_step=0)
    assert take_steps.num_steps(0) == 3
    stop = verdicts.StopFlags(mesh, NEVER)()
    _, _, rows = take_steps(arrays, [next(batches)] * 3, stop)
    assert rows.shape == (3, 2)


def test_a_run_stopped_anywhere_goes_on_with_another_number_of_steps_at_once(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    processes.train(straight, *FEW)
    processes.train(stopped, "--config.total_steps=13", *FEW[1:])
    said = processes.train(stopped, *FEW, "--config.steps_per_dispatch=5")
    assert "13 of 26 done" in said
    assert_near(runs.state(stopped, 26), runs.state(straight, 26))
    one, other = (dict(runs.scalars(run)["train/loss"]) for run in (straight, stopped))
    assert list(one) == [10, 20, 26] and list(other) == [10, 13, 20, 26]
    np.testing.assert_allclose([other[at] for at in one], list(one.values()), rtol=1e-5)
