"""No option without effect: what is not read is said by name, and what is read has an effect."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs import beta_vae, capacity_vae, conditional_vae, default, dip_vae, vq_vae
from pipeline import models
from pipeline.nn import quantizers
from pipeline.runtime import errors, reads, registry, run_config
from pipeline.training import cautions, optimizer, setup, step
from tests.support.small_models import EXAMPLE, batch_on, mesh_of

VQ = {"model.hidden": (4,), "model.quantizer.num_codes": 8, "model.latent_dim": 4}


def prepared(config, **changes):
    config.checkpoint.keep_best = 0
    config.update_from_flattened_dict(changes)
    return setup.prepare(config.lock(), devices=jax.devices()[:1], open_data=False)


def warned_fields(config, **changes):
    texts = setup.cautions(prepared(config, **changes))
    return {text.split("=")[0].removeprefix("config.") for text in texts if "no effect" in text}


@pytest.mark.parametrize(
    ("module", "changes", "unread"),
    [
        (beta_vae, {"model.sigma": 2.0}, {"model.sigma"}),
        (beta_vae, {"model.sigma": 2.0, "model.likelihood": "gaussian"}, set()),
        (beta_vae, {"model.network": "conv", "model.hidden": (9,)}, {"model.hidden"}),
        (beta_vae, {"model.network": "conv"}, set()),
        (beta_vae, {"model.beta.schedule": "constant", "model.beta.start": 0.5},
         {"model.beta.start"}),
        (beta_vae, {"optimizer.schedule": "constant", "optimizer.decay_steps": 9},
         {"optimizer.decay_steps"}),
        (beta_vae, {"data.variance": 0.5}, {"data.variance"}),
        (beta_vae, {"guard.max_rollbacks": 9}, {"guard.max_rollbacks"}),
        (beta_vae, {"guard.action": "off", "guard.leap_sigmas": 9.0}, {"guard.leap_sigmas"}),
        (beta_vae, {"data.resident": True, "data.num_threads": 5}, {"data.num_threads"}),
        (beta_vae, {"data.augment.max_aspect": 2.0}, {"data.augment.max_aspect"}),
        (beta_vae, {"data.name": "mnist", "data.augment.flip": True, "data.augment.min_area": 0.5,
                    "data.augment.max_aspect": 2.0}, set()),
        (beta_vae, {"code_maps.num": 3}, {"code_maps.num"}),
        (beta_vae, {"traversals.num": 3}, set()),
        (beta_vae, {"traversals.num": 3, "traversals.examples": (1,)}, {"traversals.num"}),
        (beta_vae, {"checkpoint.best_metric": "loss"}, {"checkpoint.best_metric"}),
        (vq_vae, {"model.channels": 9, "model.hidden": (9,)}, {"model.channels"}),
        (vq_vae, {"model.quantizer.levels": (3, 3), "model.quantizer.temperature": 2.0},
         {"model.quantizer.levels", "model.quantizer.temperature"}),
        (vq_vae, {"model.quantizer.name": "fsq", "model.quantizer.num_codes": 9,
                  "model.quantizer.commitment": 0.5, "model.latent_dim": 9},
         {"model.quantizer.num_codes", "model.quantizer.commitment", "model.latent_dim"}),
        (vq_vae, {"model.quantizer.name": "lfq", "model.quantizer.init": "data"},
         {"model.quantizer.init"}),
        (vq_vae, {"model.quantizer.name": "sim_vq", "model.quantizer.codebook": "loss",
                  "model.quantizer.restart_steps": 9, "model.quantizer.num_quantizers": 2},
         {"model.quantizer.codebook", "model.quantizer.restart_steps",
          "model.quantizer.num_quantizers"}),
        (vq_vae, {"model.quantizer.codebook": "loss", "model.quantizer.decay": 0.5},
         {"model.quantizer.decay"}),
        (vq_vae, {"model.quantizer.restart_steps": 0, "model.quantizer.candidates": 9},
         {"model.quantizer.candidates"}),
        (vq_vae, {"model.likelihood": "gaussian", "data.variance": 0.5}, {"data.variance"}),
    ],
)  # fmt: skip
def test_a_field_of_its_own_that_nothing_reads_is_named(module, changes, unread):
    assert warned_fields(module.get_config("smoke"), **changes) == unread


@pytest.mark.parametrize("name", sorted(path.stem for path in registry.CONFIGS.glob("*_vae*.py")))
@pytest.mark.parametrize("presets", ["", "smoke"])
def test_a_shipped_config_has_no_field_without_effect(name, presets):
    if registry.config(name).get_config(presets).data.name == "image_folder":
        pytest.skip("it needs files")
    assert not warned_fields(registry.config(name).get_config(presets))


def test_a_data_sets_fields_are_judged_when_it_is_open():
    config = beta_vae.get_config("smoke")
    ready = prepared(config, **{"data.image_size": 32, "data.heldout_examples": 5000})
    assert not [text for text in setup.cautions(ready) if "no effect" in text]
    (text,) = [text for text in setup.cautions(setup.with_data(ready)) if "no effect" in text]
    assert text == "config.data.image_size=32 has no effect with data.name='sprites'"


OUTSIDE = """
from pipeline.nn import gaussian_vae

class Model(gaussian_vae.GaussianVAE):
    def __init__(self, config, example, *, rngs):
        self.depth = config.model.depth
        super().__init__(config, example, rngs=rngs)

    def objective(self, means, *, step):
        return means.reconstruction + self.depth * means.kl
"""


def test_the_fields_of_a_model_from_outside_are_judged_too(tmp_path, monkeypatch):
    (tmp_path / "outside_package").mkdir()
    (tmp_path / "outside_package" / "deep.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    config = default.get_config()
    config.model.name, config.model.network = "outside_package.deep", "dense"
    config.model.depth, config.model.width, config.total_step = 2.0, 3, 100
    assert warned_fields(config) == {"model.width", "total_step"}


def program(config):
    """Returns the texts of what draws the first state, computes the loss, and moves parameters."""
    graphdef, draw = models.make(config, EXAMPLE)
    images = np.zeros((config.batch_size, 16, 16, 1), np.uint8)
    batch = batch_on(mesh_of(1), images)[0] | {"position": np.arange(config.batch_size)}

    def loss(params, stats, keys, at):
        model = nnx.merge(graphdef, params, stats)
        batched = model.augment(batch, keys=keys) if hasattr(model, "augment") else batch
        terms, sums = model.terms(batched, keys=keys, step=at)
        means = jax.tree.map(lambda term: term.mean(axis=0), terms)
        moved = model.updated_stats(sums) if hasattr(model, "updated_stats") else ()
        return model.objective(means, step=at), moved

    keys = jax.random.split(jax.random.key(0), config.batch_size)
    transform = optimizer.make(config.optimizer)
    weights = {"w": jax.numpy.ones((2, 2)), "discriminator": jax.numpy.ones(2)}
    moved = jax.make_jaxpr(transform.update)(weights, transform.init(weights), weights)
    params, stats = jax.eval_shape(draw)
    lost = jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, stats, keys, jax.numpy.int32(3))
    return str(jax.make_jaxpr(draw)()), str(lost), str(moved)


SMALL = {"model.hidden": (4,), "model.latent_dim": 4, "batch_size": 4, "optimizer.name": "adamw"}
QUANTIZED = SMALL | {"data.variance": 0.1, "model.quantizer.num_quantizers": 2}
QUANTIZED |= {"model.quantizer.entropy_bits": 4}


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (beta_vae, SMALL | {"model.likelihood": "gaussian"}),
        (capacity_vae, SMALL),
        (dip_vae, SMALL),
        (conditional_vae, SMALL | {"model.conditions": ("label",)}),
        *((vq_vae, QUANTIZED | {"model.quantizer.name": name})
          for name in quantizers.NAMES),
        (vq_vae, QUANTIZED | {"model.quantizer.codebook": "loss"}),
    ],
)  # fmt: skip
def test_a_number_that_counts_as_read_has_an_effect(module, changes):
    config = module.get_config("smoke")
    config.update_from_flattened_dict(changes)
    config = run_config.settled(config.lock(), "cpu")
    seen, without = set(), []
    step.abstract_state(reads.View(config, seen), EXAMPLE)
    flat, before = run_config.flatten(config), program(config)
    sections = ("model.quantizer.",) if module is vq_vae else ("model.", "optimizer.")
    judged = [field for field in sorted(seen) if field.startswith(sections)]
    judged = [field for field in judged if not isinstance(flat[field], str)]
    assert judged
    for field in judged:
        value = flat[field]
        if isinstance(value, list):
            value = (*value, value[-1]) if value else (0.5, 0.5)
        elif isinstance(value, bool):
            value = not value
        else:
            value = 2 * value or (1 if isinstance(value, int) else 0.5)
        other = config.copy_and_resolve_references()
        with other.ignore_type():
            other.update_from_flattened_dict({field: value})
        try:
            if program(other) == before:
                without.append(field)
        except errors.InputError:
            continue  # a value that is refused has an effect, too
    assert not without


@pytest.mark.parametrize(("steps", "told"), [(100, True), (80, False), (30, False)])
def test_a_cycle_that_the_run_cuts_before_its_height_is_told(steps, told):
    config = beta_vae.get_config("smoke")
    config.total_steps, config.model.beta.end = 40, 2.0
    config.model.beta.schedule, config.model.beta.steps = "cyclical", steps
    found = [text for text in cautions.of_schedules(config) if "model.beta" in text]
    assert len(found) == told
    if told:
        assert "where the value is 1.6 and not 2" in found[0]
