"""Terms over the whole batch: the same on any mesh and in any parts, with gradients through all."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline import models
from pipeline.mesh import layouts, sharding
from pipeline.nn.aggregate_posterior import densities
from pipeline.performance import hlo, planning, topologies
from pipeline.runtime import errors
from pipeline.training import evaluation, step
from tests.support import processes, runs, small_models, wae_mmd

EXAMPLE, IMAGES = small_models.EXAMPLE, small_models.IMAGES[:32]
MODELS = ("beta_tcvae", "info_vae", "factor_vae", "tests.support.wae_mmd")
# Names in `small_models`.
OF_OURS = {"beta_tcvae": "tc", "info_vae": "info", "factor_vae": "factor"}
# Arrays of latents.
SHOWN = {"beta_tcvae": 3, "info_vae": 4, "factor_vae": 4, "tests.support.wae_mmd": 2}
# devices, fsdp, accumulation, shards
LAYOUTS = [(2, 1, 1, 0), (8, 1, 1, 0), (1, 1, 4, 0), (2, 1, 4, 0), (4, 4, 1, 0), (4, 2, 4, 0),
           (1, 1, 1, 8), (8, 1, 1, 8)]  # fmt: skip
# One model passes through all of them; the others show that nothing is particular to it.
CASES = [(MODELS[0], layout) for layout in LAYOUTS]
CASES += [(name, (4, 2, 4, 0)) for name in MODELS[1:]]


def make_config(name, *, accumulation=1, shards=0, **changes):
    parts = {"accumulation_steps": accumulation, "deterministic_shards": shards, "batch_size": 32}
    config = small_models.make_config(OF_OURS.get(name, "tc"), **parts, **changes)
    config.model.name, config.model.latent_dim = name, 4
    return config


def mesh_of(devices, fsdp=1):
    return sharding.make_mesh({"data": -1, "fsdp": fsdp}, devices=jax.devices()[:devices])


def state_on(mesh, config):
    """Returns the state of step 0, which one program makes for all meshes."""
    state = step.create_state(config, EXAMPLE, mesh_of(1))
    there = layouts.of_tree(step.abstract_state(config, EXAMPLE), mesh)
    there = jax.tree.map(lambda leaf: leaf.sharding, there)
    return layouts.from_tree(jax.device_put(state, there), mesh)


@functools.cache
def trained(name, devices, fsdp, accumulation, shards, num_steps=5):
    """Returns the last state as a tree, and the metrics of all steps."""
    config, mesh = (
        make_config(name, accumulation=accumulation, shards=shards),
        mesh_of(devices, fsdp),
    )
    state, logged = state_on(mesh, config), []
    train_step = step.make_train_step(config, EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    for _ in range(num_steps):
        state, metrics, _ = train_step(state, batch, stop)
        logged.append(jax.device_get(metrics))
    return jax.device_get(layouts.to_tree(state)), logged


def whole_batch_gradient(name):
    """Returns the loss of step 0 and its gradient, of one plain function of the whole batch."""
    config = make_config(name)
    graphdef, init = models.make(config, EXAMPLE)
    params, stats = init()
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(jnp.arange(32))
    batch, at = {"image": jnp.asarray(IMAGES)}, jnp.int32(0)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        shown = model.shown(batch, keys=keys, step=at)
        own, _ = model.terms(batch, keys=keys, step=at, shown=shown)
        coupled = model.coupled(shown, mask=jnp.ones(32), step=at)
        means = jax.tree.map(lambda term: term.mean(axis=0), (own, coupled))
        return model.objective(means, step=at)

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize(
    ("name", "layout"), [*((name, (4, 2, 4, 0)) for name in MODELS), (MODELS[0], (2, 1, 1, 8))]
)
def test_the_gradient_is_that_of_the_whole_batch(name, layout):
    loss, gradient = whole_batch_gradient(name)
    state, (metrics,) = trained(name, *layout, num_steps=1)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    # Adam's first moment is 1 − b1 times the gradient after one step.
    moments = next(part.mu for part in state.opt_state if hasattr(part, "mu"))
    for (path, expected), moment in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(moments), strict=True
    ):
        scale = np.abs(expected).max()
        assert scale > 0, path
        share = 0.5 if "discriminator" in jax.tree_util.keystr(path) else 0.1
        np.testing.assert_allclose(moment / share, expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_curves_are_the_same_in_any_layout(name, layout):
    _, expected = trained(name, 1, 1, 1, 0)
    _, found = trained(name, *layout)
    assert expected[-1]["loss"] != expected[0]["loss"]
    for one, other in zip(expected, found, strict=True):
        for figure in ("loss", "grad_norm"):
            np.testing.assert_allclose(other[figure], one[figure], rtol=1e-5)


# test_check_model.py shows this of the others.
@pytest.mark.parametrize("name", [MODELS[0], "info_vae"])
def test_bits_are_the_same_with_deterministic_shards(name):
    one = trained(name, 1, 1, 1, 8)
    for devices in (2, 8) if name == MODELS[0] else (8,):
        runs.assert_equal_trees(trained(name, devices, 1, 1, 8), one)


def test_the_reference_would_notice_a_batch_that_is_cut():
    # Each shard for itself is another objective, so a lost gathering cannot pass above.
    config = make_config("tests.support.wae_mmd")
    model = models.abstract(config, EXAMPLE)
    rows = np.random.default_rng(0).normal(size=(2, 32, 4)).astype(np.float32)

    def mean(rows):
        shown = wae_mmd.Shown(*rows)
        model.log_width = nnx.Param(jnp.zeros(()))
        return float(model.coupled(shown, mask=jnp.ones(rows.shape[1]), step=0).mmd.mean())

    halves = (mean(rows[:, :16]) + mean(rows[:, 16:])) / 2
    assert abs(halves - mean(rows)) > 1e-4 * abs(mean(rows))


def evaluated(name, images, mask, *, devices, shards=0):
    config, mesh = make_config(name, shards=shards), mesh_of(devices)
    batch = {"image": images, "mask": np.float32(mask)}
    batch = jax.device_put(batch, sharding.batch_sharded(mesh))
    eval_step = evaluation.make_eval_step(config, EXAMPLE, mesh)
    state = state_on(mesh, config)
    summed = eval_step(state, batch, jnp.uint32(0))
    return jax.device_get(evaluation.make_summary(config, EXAMPLE)(state, summed))


@pytest.mark.parametrize("name", ["beta_tcvae", "factor_vae"])  # the second has a discriminator
def test_evaluation_leaves_padding_out_on_any_mesh(name):
    mask = np.arange(16) < 13
    damaged = np.where(mask[:, None, None, None], IMAGES[:16], 255).astype(np.uint8)
    expected = evaluated(name, IMAGES[:13], np.ones(13), devices=1)
    for devices in (1, 2, 8):
        found = evaluated(name, damaged, mask, devices=devices)
        for figure, value in expected.items():
            np.testing.assert_allclose(found[figure], value, rtol=1e-5, err_msg=figure)
    full = evaluated(name, damaged, np.ones(16), devices=1)
    assert abs(full["loss"] - expected["loss"]) > 1e-3 * abs(expected["loss"])


def test_evaluation_has_the_same_bits_with_deterministic_shards():
    mask = np.arange(16) < 13
    one, *others = (
        evaluated("beta_tcvae", IMAGES[:16], mask, devices=devices, shards=8)
        for devices in (1, 2, 8)
    )
    for other in others:
        assert {name: np.asarray(x).tobytes() for name, x in other.items()} == {
            name: np.asarray(x).tobytes() for name, x in one.items()
        }


@pytest.mark.parametrize(
    ("name", "fsdp", "accumulation"),
    [*((name, 1, 1) for name in MODELS), (MODELS[0], 1, 4), (MODELS[0], 8, 1)],
)
def test_the_plan_shows_one_more_all_gather_of_what_is_shown(name, fsdp, accumulation, monkeypatch):
    monkeypatch.setattr("pipeline.datasets.example_spec", lambda config: EXAMPLE)
    here = topologies.here(jax.devices()[:8])
    config = make_config(name, accumulation=accumulation, **{"mesh.fsdp": fsdp})
    planned = planning.plan(planning.prepare(config, here, 32), here)
    bare = planning.plan(planning.prepare(small_models.make_config("beta", **{
        "mesh.fsdp": fsdp, "accumulation_steps": accumulation}), here, 32), here)  # fmt: skip
    gathers = [[each for each in plan["collectives"] if each["kind"] == "all-gather"]
               for plan in (planned, bare)]  # fmt: skip
    assert len(gathers[0]) == len(gathers[1]) + 1
    elements = 32 * (SHOWN[name] * 4 + 1)  # of every example, and the mask
    (extra,) = [each for each in gathers[0] if each["elements"] == elements]
    assert extra["bytes"] == 4 * elements
    assert not extra["in_loop"]


def test_one_device_sends_nothing():
    config, mesh = make_config("beta_tcvae"), mesh_of(1)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    lowered = step.make_train_step(config, EXAMPLE, mesh).lower(state_on(mesh, config), batch, stop)
    assert not hlo.collectives(lowered.compile().as_text())


@pytest.mark.parametrize(("absent", "present"), [("shown", "coupled"), ("coupled", "shown")])
def test_one_of_the_two_methods_alone_is_refused(absent, present, monkeypatch):
    methods = {name: getattr(wae_mmd.Model, name) for name in ("terms", "objective", present)}
    model = type("Model", (), methods)
    monkeypatch.setattr(wae_mmd, "Model", model)
    with pytest.raises(errors.InputError, match=f"wae_mmd' has no `{absent}`, .* define both"):
        models.couples(make_config("tests.support.wae_mmd"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda shown: shown._replace(z=shown.z.astype(jnp.int32)),
            r"int32\[32, 4\] at \.shown\.z",
        ),
        (lambda shown: shown._replace(prior=shown.prior[0]), r"float32\[4\] at \.shown\.prior"),
    ],
)
def test_what_cannot_be_gathered_is_refused(change, words, monkeypatch):
    original = wae_mmd.Model.shown
    changed = lambda self, *args, **options: change(original(self, *args, **options))  # noqa: E731
    monkeypatch.setattr(wae_mmd.Model, "shown", changed)
    monkeypatch.setattr(wae_mmd.Model, "terms", lambda self, batch, **_: ({}, {}))
    config, mesh = make_config("tests.support.wae_mmd"), mesh_of(1)
    batch, stop = small_models.batch_on(mesh, IMAGES)
    state = step.abstract_state(config, EXAMPLE)
    with pytest.raises(errors.InputError, match=words) as raised:
        step.make_train_step(config, EXAMPLE, mesh).lower(state, batch, stop)
    assert not re.search("\n", str(raised.value))


@pytest.mark.parametrize("layout", [(1, 1, 1, 0), (4, 2, 1, 0), (2, 1, 1, 8)])
def test_pairs_in_chunks_change_nothing_but_memory(layout, monkeypatch):
    _, expected = trained("beta_tcvae", 1, 1, 1, 0)
    monkeypatch.setattr(densities, "PAIRS", 3 * 32)  # the last chunk has two rows
    _, found = trained.__wrapped__("beta_tcvae", *layout)
    for one, other in zip(expected, found, strict=True):
        for figure in ("loss", "grad_norm"):
            np.testing.assert_allclose(other[figure], one[figure], rtol=1e-5)


# Two starts of the command, because only real processes show what they exchange. Devices have the
# same bits with shards, as shown above; test_reductions.py shows that processes have them, too.
def test_two_processes_train_as_one_does(tmp_path):
    arguments = (
        *("--config.batch_size=16", "--config.total_steps=4", "--config.log_every_steps=1"),
        *("--config.eval_examples=32", "--config.model.hidden=(8,)"),
    )
    found = []
    for num in (1, 2):
        workdir = tmp_path / str(num)
        processes.train(workdir, *arguments, config="beta_tcvae.py:smoke", processes=num)
        points = runs.scalars(workdir)
        figures = ("train/loss", "train/total_correlation", "train/grad_norm", "heldout/loss")
        found.append({figure: points[figure] for figure in figures})
    one, two = found
    assert [step for step, _ in one["train/loss"]] == [1, 2, 3, 4]
    for figure in figures:
        np.testing.assert_allclose(two[figure], one[figure], rtol=1e-5, err_msg=figure)
