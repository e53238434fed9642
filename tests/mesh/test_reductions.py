import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec as P

from pipeline.mesh import reductions, sharding
from pipeline.runtime import errors, run_config
from pipeline.training import evaluation, step
from tests.support import commands, runs, small_models
from tests.support.processes import free_port

EXAMPLE = small_models.EXAMPLE | {"image": jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}
IMAGES = small_models.IMAGES[:16, ::2, ::2]


def make_config(variant, network="dense", *, shards=8):
    changes = {"model.network": network, "batch_size": 16, "deterministic_shards": shards}
    config = small_models.make_config(variant, **changes)
    config.optimizer.ema_decay = 0.9
    if variant == "vq":
        config.model.quantizer.restart_steps = 2
        config.model.quantizer.candidates = 4
    return config


@functools.cache
def results(variant, network, num_devices, *, shards=8):
    """Returns all that a run depends on or logs, by path: states, metrics, held-out sums."""
    config, mesh = make_config(variant, network, shards=shards), small_models.mesh_of(num_devices)
    state = small_models.first_state(config, mesh, EXAMPLE)
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    logged = []
    for _ in range(10):
        state, metrics, _ = train_step(state, batch, stop)
        logged.append(metrics)
    heldout = evaluation.make_eval_step(config, EXAMPLE, mesh)(state, batch, jnp.uint32(0))
    leaves = jax.tree_util.tree_leaves_with_path((state, logged, heldout))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


# test_check_model.py and test_coupling.py show this of the other variants.
@pytest.mark.parametrize(
    ("variant", "network", "meshes"),
    [
        ("beta", "dense", (2, 8)),
        ("capacity", "dense", (8,)),
        ("vq", "dense", (8,)),
        ("beta", "conv", (8,)),
    ],
)
def test_bits_are_the_same_on_any_mesh(variant, network, meshes):
    one = {path: leaf.tobytes() for path, leaf in results(variant, network, 1).items()}
    for num_devices in meshes:
        other = results(variant, network, num_devices)
        assert other.keys() == one.keys()
        assert [path for path in one if other[path].tobytes() != one[path]] == []


def test_shards_and_the_all_reduce_agree_up_to_rounding():
    shards, whole = results("capacity", "dense", 1), results("capacity", "dense", 1, shards=0)
    losses = [path for path in whole if path.endswith("['loss']")]
    assert len(losses) == 10
    for path in losses:
        np.testing.assert_allclose(shards[path], whole[path], rtol=1e-5)


@pytest.mark.parametrize("shards", [8, 12])
def test_the_order_is_that_of_a_tournament(shards):
    rows = np.random.default_rng(0).normal(size=(shards, 7)).astype(np.float32)
    expected = list(rows)
    while len(expected) > 1:
        last = expected[len(expected) // 2 * 2 :]
        expected = [a + b for a, b in zip(expected[::2], expected[1::2], strict=False)] + last
    assert np.any(expected[0] != rows.sum(axis=0))  # the order matters here

    def local(rows, flags):
        summed = reductions.make(mesh, parts=1, shards=shards)
        return summed(lambda part: {"row": part[0]}, rows, flags.sum())

    for num_devices in (n for n in (1, 2, 3, 4, 6, 8, 12) if shards % n == 0):
        mesh = small_models.mesh_of(num_devices)
        both = P(mesh.axis_names)
        summed = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(both, both), out_specs=P()))
        total, flags = summed(rows, np.ones(num_devices, np.float32))
        np.testing.assert_array_equal(total["row"], expected[0])
        assert flags >= num_devices


def test_the_shards_travel_in_one_exchange_and_one_gathering():
    config, mesh = make_config("beta"), small_models.mesh_of(8)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    state = step.abstract_state(config, EXAMPLE)
    text = step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop).as_text()
    found = re.findall(r"stablehlo\.(all_\w+|reduce_scatter|collective_\w+)", text)
    assert found == ["all_to_all", "all_gather"]


def test_two_processes_two_devices_and_one_have_the_same_bits(tmp_path):
    port = free_port()
    arguments = [
        "--config.deterministic_shards=2", "--config.total_steps=10", "--config.log_every_steps=1",
        "--config.evals=('heldout',)",
    ]  # fmt: skip
    group = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    together = [
        commands.start(tmp_path / "processes", *arguments, *group, f"--process_id={process_id}")
        for process_id in range(2)
    ]
    for process in together:
        commands.finish(process)
    commands.train(tmp_path / "devices", *arguments, devices=2)
    commands.train(tmp_path / "one", *arguments, devices=1)
    one = runs.scalars(tmp_path / "one")
    assert len(one["train/loss"]) == 10
    assert "heldout/elbo" in one
    final = ocp.StandardCheckpointer().restore(tmp_path / "one" / "checkpoints" / "10" / "default")
    here = jax.tree.map(ocp.utils.to_shape_dtype_struct, final)
    for other in ("processes", "devices"):
        assert runs.scalars(tmp_path / other) == one
        folder = tmp_path / other / "checkpoints" / "10" / "default"
        restored = ocp.StandardCheckpointer().restore(folder, here)
        runs.assert_equal_trees(restored, final)


@pytest.mark.parametrize(
    ("shards", "batch_size", "parts", "threads", "words"),
    [
        (-4, 16, 1, "8", "deterministic_shards=-4 must not be negative"),
        (6, 24, 1, "8", "shards=6 is not divisible by 4 devices: use 4 or 8 or other devices"),
        (8, 20, 1, "8", "=20 is not divisible by config.deterministic_shards = 8: use 16 or 24"),
        (8, 16, 2, "8", "accumulation_steps=2 don't go together: .*; set accumulation_steps=1"),
        (8, 16, 1, None, "it is not set; set it to .*, 4 or more,"),
        (8, 16, 1, "3", "it is 3; .*4 or more, alike at every start"),
    ],
)  # fmt: skip
def test_shards_that_cannot_work_name_the_repair(
    shards, batch_size, parts, threads, words, monkeypatch
):
    monkeypatch.delenv("NPROC", raising=False)
    if threads:
        monkeypatch.setenv("NPROC", threads)
    mesh = small_models.mesh_of(4)
    with pytest.raises(errors.InputError, match=words) as raised:
        sharding.check_batch(
            batch_size, mesh=mesh, accumulation_steps=parts, deterministic_shards=shards
        )
    assert "\n" not in str(raised.value)


def test_as_many_threads_as_devices_suffice(monkeypatch):
    monkeypatch.setenv("NPROC", "4")
    sharding.check_batch(
        16, mesh=small_models.mesh_of(4), accumulation_steps=1, deterministic_shards=8
    )


def test_a_resumed_run_keeps_its_shards():
    saved = json.loads(json.dumps(run_config.flatten(make_config("beta", shards=4))))
    text = "config.deterministic_shards is 8, was 4"
    assert run_config.differences(saved, make_config("beta", shards=8)) == [text]
