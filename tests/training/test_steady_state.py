"""Every step after the first starts one program, compiles nothing, and copies nothing unasked."""

import collections
import re

import jax
import numpy as np
import pytest

from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.performance import bench
from pipeline.training import batching, step, verdicts
from tests.support import small_models


def steady(num_devices):
    """Returns a step, its batches and flags, and the results of the first step, which compiles."""
    config, mesh = small_models.make_config("beta"), small_models.mesh_of(num_devices)
    config.data.train_examples = 64  # so that these steps go through several epochs
    example = datasets.example_spec(config)
    state = step.create_state(config, example, mesh)
    train_step = step.make_train_step(config, example, mesh)
    batches = batching.ahead(datasets.load(config).train, config, mesh, first_step=0)
    flags = verdicts.StopFlags(mesh, bench.NEVER)
    return train_step, batches, flags, train_step(state, next(batches), flags())


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_step_compiles_nothing_sends_nothing_unasked_and_donates_its_state(num_devices, caplog):
    train_step, batches, flags, (state, metrics, word) = steady(num_devices)
    with jax.transfer_guard("disallow"), jax.log_compiles():
        for _ in range(4):
            given, before = state, word
            state, metrics, word = train_step(given, next(batches), flags())
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
            assert np.isfinite(jax.device_get(before)).all()
    assert "Compiling" not in caplog.text
    assert np.isfinite(jax.device_get(metrics["loss"]))


def test_a_step_is_one_dispatch(tmp_path):
    train_step, batches, flags, (state, _, word) = steady(2)
    with jax.profiler.trace(tmp_path):
        for _ in range(4):
            before = word
            state, _, word = train_step(state, next(batches), flags())
            jax.device_get(before)
        jax.block_until_ready(state)
    started = executions(tmp_path)
    assert started.pop("jit__apart", 0) <= 1  # by the threads that read ahead, for eight batches
    assert started == {"jit_local_step": 4}


def executions(folder):
    """Returns how often each program was started, read from a trace."""
    (path,) = folder.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    names = [event.name for plane in planes for line in plane.lines for event in line.events]
    # A device's part of a start has the device's number before the name.
    found = (re.match(r"[A-Za-z]\w*::Execute \((\w+)\)", name) for name in names)
    return collections.Counter(match[1] for match in found if match)


def test_the_guards_of_that_test_see_what_is_compiled_or_sent_unasked(caplog):
    mesh = small_models.mesh_of(2)
    add = jax.jit(lambda x: x + 1, out_shardings=sharding.replicated(mesh))
    with (
        pytest.raises(Exception, match="Disallowed host-to-device"),
        jax.transfer_guard("disallow"),
    ):
        add(np.zeros(2, np.float32))
    with jax.log_compiles():
        add(np.zeros(3, np.float32))
    assert "Compiling" in caplog.text
