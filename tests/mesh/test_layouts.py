"""State that is sharded over the mesh: the same results, few collectives, 1/N of the memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline import datasets
from pipeline.display import event_files
from pipeline.mesh import flat_buffers, layouts, sharding
from pipeline.performance import hlo, planning, topologies
from pipeline.runtime import errors
from pipeline.training import evaluation, guard, step
from pipeline.training.saving import checkpoint
from tests.support import processes, small_models

EXAMPLE, IMAGES = small_models.EXAMPLE, small_models.IMAGES
# An update depends on other values only by the global norm, and by which values are matrices.
OPTIMIZER = {
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.1,
    "optimizer.clip_norm": 10.0,
    "optimizer.ema_decay": 0.9,
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 0,
}


def mesh_of(data, fsdp):
    return sharding.make_mesh({"data": data, "fsdp": fsdp}, devices=jax.devices()[: data * fsdp])


def state_on(mesh, config):
    """Returns the state of step 0, laid out like a restored one; one program makes them all."""
    state = step.create_state(config, EXAMPLE, mesh_of(1, 1))
    there = layouts.of_tree(step.abstract_state(config, EXAMPLE), mesh)
    there = jax.tree.map(lambda leaf: leaf.sharding, there)
    return layouts.from_tree(jax.device_put(state, there), mesh)


@functools.cache
def trained(variant, data, fsdp):
    """Returns the state after five steps, and the loss and the gradient's norm of each step."""
    config, mesh = small_models.make_config(variant, **OPTIMIZER), mesh_of(data, fsdp)
    state, seen = state_on(mesh, config), []
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    for _ in range(5):
        state, metrics, _ = train_step(state, batch, stop)
        seen.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return state, np.array(seen)


def assert_close(one, other):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


# test_check_model.py shows this of the others, with accumulation.
@pytest.mark.parametrize("variant", ["beta", "capacity", "concat", "tc", "info"])
def test_losses_and_parameters_are_those_of_replicated_state(variant):
    expected, curve = trained(variant, 8, 1)
    for data, fsdp in ((1, 8), (2, 4)) if variant == "beta" else ((2, 4),):
        state, seen = trained(variant, data, fsdp)
        np.testing.assert_allclose(seen, curve, rtol=1e-5)
        assert_close(layouts.to_tree(state), expected)


def test_a_model_of_ten_times_the_budget_has_its_state_cut_to_one_nth(monkeypatch):
    monkeypatch.setattr(datasets, "example_spec", lambda config: EXAMPLE)
    config = small_models.make_config("beta", **OPTIMIZER, batch_size=16)
    config.model.hidden = (1024, 1024)
    abstract = step.abstract_state(config, EXAMPLE)
    state_bytes, num_params = (
        sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (abstract, abstract.params)
    )
    state_bytes *= 4
    budget, arguments = state_bytes / 10, {}
    for num in (1, 2, 4, 8, 16):
        config.mesh.fsdp = num
        here = topologies.here(jax.devices()[:num])
        planned = planning.plan(planning.prepare(config, here, 16), here)
        assert planned["parameters"] == num_params
        arguments[num] = planned["memory"]["arguments"]
        assert arguments[num] == pytest.approx(state_bytes / num, rel=0.01)
        assert planned["memory"]["results"] < 1000  # the new state takes the place of the old
        if num > 1:
            found = [(each["kind"], each["elements"]) for each in planned["collectives"]]
            tile = flat_buffers.TILE
            piece = tile * -(-num_params // (tile * num))
            # The sums are: reconstruction, KL, stop, and the square of the norm.
            expected = [("all-gather", piece * num), ("all-reduce", 4), ("reduce-scatter", piece)]
            assert sorted(found) == expected
            assert {each["dtype"] for each in planned["collectives"]} == {"f32"}
    assert arguments[16] < budget < arguments[8]

    config.mesh.fsdp, mesh = 8, mesh_of(1, 8)
    state, losses = step.create_state(config, EXAMPLE, mesh), []
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert held == pytest.approx(state_bytes / 8, rel=0.01)
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES[:16])
    for _ in range(3):
        state, metrics, _ = train_step(state, batch, stop)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


def test_accumulation_puts_no_collective_into_its_loop_and_pieces_are_added_once():
    config = small_models.make_config("capacity", accumulation_steps=4, batch_size=32)
    mesh = mesh_of(2, 4)
    batch, stop = small_models.batch_on(mesh, IMAGES[:32])
    state = layouts.laid_out(step.abstract_state(config, EXAMPLE), mesh)
    lowered = step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    found = hlo.collectives(lowered.compile().as_text())
    assert not any(each.in_loop for each in found)
    # Besides pieces and sums, the scalar that capacity control needs before its gradients.
    kinds = sorted(each.kind for each in found)
    assert kinds == ["all-gather", *["all-reduce"] * 3, "reduce-scatter"]


def test_evaluation_and_methods_see_the_averaged_parameters_whole():
    config, seen = small_models.make_config("vq", **OPTIMIZER), []
    for data, fsdp in ((8, 1), (2, 4)):
        state, mesh = trained("vq", data, fsdp)[0], mesh_of(data, fsdp)
        batch, _ = small_models.batch_on(mesh, IMAGES)
        summed = evaluation.make_eval_step(config, EXAMPLE, mesh)(state, batch, jnp.uint32(0))
        figures = evaluation.make_summary(config, EXAMPLE)(state, summed)
        codes = evaluation.make_method(config, EXAMPLE, "encode")(state, IMAGES)
        images = evaluation.make_method(config, EXAMPLE, "decode")(state, codes)
        assert images.is_fully_replicated
        seen.append((figures, images))
    assert_close(*seen)


def test_values_that_are_not_finite_are_named_by_their_arrays():
    mesh = mesh_of(2, 4)
    state = layouts.to_tree(trained("beta", 2, 4)[0])
    layer = state.params["decoder"]["dense"]["layers"][0]
    layer["kernel"] = layer["kernel"].at[0, 0].set(jnp.nan)
    text = guard.bad_leaves(layouts.from_tree(state, mesh).params)
    assert text == "1 arrays of parameters are not finite: decoder.dense.layers.0.kernel"


def test_the_first_state_is_that_of_replicated_state_and_its_tree_is_cut():
    config = small_models.make_config("vq", **{"model.hidden": (512,)})
    one, many = (step.create_state(config, EXAMPLE, mesh_of(1, num)) for num in (1, 8))
    tree = layouts.to_tree(many)
    jax.tree.map(np.testing.assert_array_equal, one, tree)
    leaves = jax.tree.leaves((tree.params, tree.opt_state))
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    assert held < 0.2 * sum(leaf.nbytes for leaf in leaves)  # biases of odd lengths stay whole


def test_checkpoints_restore_bitwise_from_any_mesh_onto_any_other(tmp_path):
    config, state = small_models.make_config("vq", **OPTIMIZER), trained("vq", 2, 4)[0]
    expected = jax.device_get(layouts.to_tree(state))
    for number, mesh in enumerate((mesh_of(1, 1), mesh_of(1, 8), mesh_of(4, 2))):
        checkpoints = checkpoint.Checkpoints(tmp_path / str(number), config.checkpoint)
        checkpoints.save(int(state.step), state, None)
        checkpoints.wait()
        abstract = step.abstract_state(config, EXAMPLE)
        _, state, damaged = checkpoints.restore_newest(abstract, mesh)
        assert not damaged
        assert layouts.is_flat(state.params) == layouts.is_cut(mesh)
        jax.tree.map(np.testing.assert_array_equal, layouts.to_tree(state), expected)
        checkpoints.close()


def test_bits_that_no_mesh_changes_are_refused():
    with pytest.raises(errors.InputError, match=r"config\.mesh\.fsdp=8 don't go together"):
        sharding.check_batch(64, mesh=mesh_of(1, 8), accumulation_steps=1, deterministic_shards=8)


def test_a_run_goes_on_replicated_where_two_processes_had_cut_its_state(tmp_path):
    workdir = tmp_path / "b" / "run"
    often = ("--config.log_every_steps=5", "--config.eval_every_steps=20")
    cut = ("--config.total_steps=20", "--config.mesh.fsdp=4")
    pictures = "--config.evals=('samples','reconstructions')"  # besides the figures
    out = processes.train(workdir, *often, *cut, pictures, processes=2, devices=2)
    assert "mesh:        fsdp 4; batch" in out
    out = processes.train(workdir, *often, "--config.total_steps=30", devices=2)
    assert "20 of 30 done" in out
    losses = dict(event_files.read_scalars(workdir / "tensorboard")["train/loss"])
    assert list(losses) == [5, 10, 15, 20, 25, 30]
    assert losses[30] < losses[25] < losses[20]
