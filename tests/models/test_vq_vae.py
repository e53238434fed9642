import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import vq_vae as config_file
from pipeline import models
from pipeline.mesh import sharding
from pipeline.runtime import errors, registry
from pipeline.training import evaluation, step
from pipeline.training.pixels import variance
from tests.support import small_models

SMALL = {"model.network": "dense", "model.quantizer.num_codes": 16, "model.latent_dim": 8}


def make_config(**changes):
    return small_models.make_config("vq", **(SMALL | changes))


def quantizer(**changes):
    return {f"model.quantizer.{name}": value for name, value in changes.items()}


def model_of(config, state):
    graphdef, _ = models.make(config, small_models.EXAMPLE)
    return nnx.merge(graphdef, state.params, state.stats, copy=True)


QUANTIZERS = {
    "ema": quantizer(),
    "data": quantizer(init="data", restart_steps=2, candidates=4),
    "loss": quantizer(codebook="loss", restart_steps=2, candidates=4),
    "cosine": quantizer(codebook="loss", cosine=True, gradient="rotation", chunk=4),
    "residual_vq": quantizer(
        name="residual_vq", num_quantizers=2, decay=0.5, restart_usage=20.0, candidates=4
    ),
    "grouped_vq": quantizer(
        name="grouped_vq", num_quantizers=2, init="data", restart_steps=2, candidates=4
    ),
    "fsq": quantizer(name="fsq", levels=(5, 4)),
    "residual_fsq": quantizer(name="residual_fsq", levels=(5, 4), num_quantizers=2),
    "lfq": quantizer(name="lfq"),
    "sim_vq": quantizer(name="sim_vq"),
}
SEVERAL = ("residual_vq", "grouped_vq", "residual_fsq")


@pytest.mark.parametrize("name", ["data", "loss", "residual_vq", "grouped_vq", "lfq", "sim_vq"])
def test_codebook_and_figures_are_the_same_on_any_mesh_and_with_accumulation(name):
    config = make_config(**QUANTIZERS[name])
    reference, losses, metrics = small_models.train(config, 1, num_steps=4)
    for devices, parts in ((4, 1), (8, 2)) if name == "data" else ((8, 2),):
        config.accumulation_steps = parts
        state, other_losses, other_metrics = small_models.train(config, devices, num_steps=4)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        # A code that restarts and rarely wins again is a small difference of large sums.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()),
            (state.stats, other_metrics),
            (reference.stats, metrics),
        )
    if name == "residual_vq":  # only by their use, because no age reaches 100 steps
        assert metrics["code_restarts"] >= 8


@pytest.mark.parametrize("num_devices", [2, 8])
@pytest.mark.parametrize("candidates", [0, 4])
def test_one_all_reduce_of_parameters_counts_and_sums(num_devices, candidates):
    restarts = {"restart_steps": 100, "restart_usage": 0.5} if candidates else {"restart_steps": 0}
    changes = quantizer(candidates=candidates or 4, **restarts)
    num_params, found = small_models.all_reduces(make_config(**changes), num_devices)
    sums = 16 + 16 * 8 + candidates * 8 + 3  # K + K·D + R·D; reconstruction, commitment, stop
    assert found == [f"f32[{num_params + sums}]"]


def test_lfq_adds_one_reduction_of_the_mean_code_before_the_backward_pass():
    num_params, found = small_models.all_reduces(make_config(**QUANTIZERS["lfq"]), 8)
    terms = 1 + 2 + 16  # reconstruction; commitment and entropy; probabilities of 16 codes
    assert found == ["f32[16]", f"f32[{num_params + terms + 16 + 1}]"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ema", "cosine", "fsq", "lfq", "sim_vq", *SEVERAL])
def test_decoded_codes_are_the_reconstruction_of_training_bitwise(name, dtype):
    config = make_config(compute_dtype=dtype, **QUANTIZERS[name])
    state = step.create_state(config, small_models.EXAMPLE, small_models.mesh_of(1))
    images = small_models.IMAGES
    encode, decode, reconstruct = (
        evaluation.make_method(config, small_models.EXAMPLE, method)
        for method in ("encode", "decode", "reconstruct")
    )
    codes = encode(state, images)
    assert codes.dtype == jnp.int32
    assert codes.shape == (64, 4, 4) + ((2,) if name in SEVERAL else ())
    decoded = decode(state, codes)
    np.testing.assert_array_equal(decoded, reconstruct(state, {"image": images}))

    @jax.jit
    def trained(state, images):
        model = model_of(config, state)
        quantized = model.quantizer(model.encodings(images))
        return quantized.values, jnp.clip(model.outputs(quantized.values), 0.0, 1.0)

    values, outputs = trained(state, images)
    lookup = jax.jit(lambda state, codes: model_of(config, state).quantizer.lookup(codes))
    np.testing.assert_array_equal(values, lookup(state, codes))
    # From the same values, but a program that also quantises may fuse, and so round, otherwise:
    # without AVX-512 it does.
    np.testing.assert_allclose(outputs, decoded, rtol=0.0, atol=float(jnp.finfo(dtype).eps))
    sample = evaluation.make_method(config, small_models.EXAMPLE, "sample")
    drawn = np.asarray(sample(state, jax.random.split(jax.random.key(0), 3)))
    assert drawn.shape == (3, 16, 16, 1)
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_sim_vq_learns_its_map_and_keeps_the_vectors_that_the_seed_drew():
    config = make_config(**QUANTIZERS["sim_vq"])
    config.optimizer.name, config.optimizer.weight_decay = "adamw", 0.1
    first = step.create_state(config, small_models.EXAMPLE, small_models.mesh_of(1))
    state = small_models.train(config, 1, num_steps=3)[0]
    drawn = first.stats["quantizer"]["coefficients"]
    np.testing.assert_array_equal(state.stats["quantizer"]["coefficients"], drawn)
    assert np.all(state.params["quantizer"]["basis"] != np.eye(8))
    config.seed += 1
    other = step.create_state(config, small_models.EXAMPLE, small_models.mesh_of(1))
    assert np.all(other.stats["quantizer"]["coefficients"] != drawn)


def test_quantisation_uses_the_codebook_of_before_the_step():
    config = make_config(**quantizer(restart_steps=0))
    config.optimizer.learning_rate = 1e-12
    state, _, metrics = small_models.train(config, 1, num_steps=1)
    first = step.create_state(config, small_models.EXAMPLE, small_models.mesh_of(1))
    codes = evaluation.make_method(config, small_models.EXAMPLE, "encode")(
        first, small_models.IMAGES
    )
    used = np.isin(np.arange(16), codes)
    np.testing.assert_array_equal(np.asarray(metrics["code_usage"]) > 0, used)
    np.testing.assert_array_equal(np.any(state.stats["quantizer"]["sums"] != 0, axis=1), used)


def test_a_collapsed_model_uses_its_codes_again_with_restarts():
    config = make_config(**quantizer(restart_steps=5, candidates=8))
    config.optimizer.learning_rate = 3e-3
    mesh = small_models.mesh_of(4)
    state = small_models.first_state(config, mesh)
    state.stats["quantizer"]["codebook"] = jax.device_put(
        jnp.full((16, 8), 1e3).at[0].set(0.0), sharding.replicated(mesh)
    )
    train_step = step.make_train_step(config, small_models.EXAMPLE, mesh)
    batch, stop = small_models.batch_on(mesh, small_models.IMAGES)
    usage = []
    for _ in range(100):
        state, metrics, _ = train_step(state, batch, stop)
        usage.append(float(metrics["codebook_usage"]))
    assert usage[0] == 1 / 16
    assert np.mean(usage[-10:]) > 0.5


def test_usage_of_held_out_data_is_that_of_all_its_batches():
    config = make_config(batch_size=8)
    mesh = small_models.mesh_of(2)
    state = small_models.first_state(config, mesh)
    eval_step = evaluation.make_eval_step(config, small_models.EXAMPLE, mesh)
    summed = None
    for first in range(0, 64, 8):
        batch, _ = small_models.batch_on(mesh, small_models.IMAGES[first : first + 8])
        sums = eval_step(state, batch, jnp.uint32(first))
        summed = sums if summed is None else jax.tree.map(jnp.add, summed, sums)
    figures = evaluation.make_summary(config, small_models.EXAMPLE)(state, summed)
    codes = evaluation.make_method(config, small_models.EXAMPLE, "encode")(
        state, small_models.IMAGES
    )
    share = np.bincount(np.asarray(codes).ravel(), minlength=16) / codes.size
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    np.testing.assert_allclose(figures["perplexity"], np.exp(entropy), rtol=1e-5)
    np.testing.assert_allclose(figures["code_usage"], 16 * share, rtol=1e-5)


def test_nats_are_summed_over_the_grid_and_bounded_by_uniform_codes():
    config = make_config(**{"model.likelihood": "bernoulli"})
    metrics = small_models.train(config, 1, num_steps=1)[2]
    np.testing.assert_allclose(metrics["rate"], 16 * np.log(16), rtol=1e-6)
    np.testing.assert_allclose(
        metrics["vq_loss"], 0.25 * 16 * 8 * metrics["commitment_loss"], rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics["loss"], metrics["reconstruction_loss"] + metrics["vq_loss"], rtol=1e-6
    )


def test_the_error_is_measured_in_variances():
    config = make_config(**{"data.variance": 0.25})
    state = step.create_state(config, small_models.EXAMPLE, small_models.mesh_of(1))
    model = model_of(config, state)
    batch = {"image": small_models.IMAGES, "mask": np.ones(64), "position": np.arange(64)}
    terms, _ = model.terms(batch, keys=None, step=jnp.int32(0))
    means = model.outputs(model.quantizer.lookup(model.encode(small_models.IMAGES)))
    error = np.square(small_models.IMAGES / 255.0 - means).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(terms.reconstruction, error / 0.25, rtol=1e-5)


@pytest.mark.parametrize(("factor", "side"), [(4, 64), (8, 128), (16, 256)])
def test_the_scalable_network_has_the_grid_it_is_asked_for(factor, side):
    levels = factor.bit_length()
    config = make_config(
        **{
            "model.network": "scalable",
            "model.downsampling": factor,
            "model.channel_multipliers": (1, 1, 2, 2, 4)[:levels],
        }
    )
    example = {"image": jax.ShapeDtypeStruct((side, side, 3), np.uint8)}
    state = step.abstract_state(config, example)
    encode = evaluation.make_method(config, example, "encode")
    decode = evaluation.make_method(config, example, "decode")
    codes = jax.eval_shape(encode, state, jnp.zeros((2, side, side, 3), jnp.uint8))
    assert codes.shape == (2, side // factor, side // factor)
    assert jax.eval_shape(decode, state, codes).shape == (2, side, side, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.network": "locatello"}, "'locatello' is unknown: choose one of conv, dense"),
        ({"model.likelihood": "poisson"}, "choose one of bernoulli, gaussian, mse"),
        (
            {"model.network": "conv", "model.downsampling": 8},
            "downsampling=8 must be 4 for network=conv",
        ),
        (
            {"model.network": "dense", "model.downsampling": 5},
            "must divide the sides of images 16×16",
        ),
        (
            {"model.network": "scalable", "model.channel_multipliers": (1, 2)},
            r"but channel_multipliers=\(1, 2\) has 2 levels",
        ),
        ({"data.variance": -1.0}, "data.variance=-1.0 must not be negative"),
    ],
)
def test_a_mistake_names_field_and_repair(changes, words):
    with pytest.raises(errors.InputError, match=words):
        step.abstract_state(make_config(**changes), small_models.EXAMPLE)


def test_a_collapse_is_warned_of_with_its_remedies():
    module = registry.load("models", "vq_vae", field="model.name")
    assert module.warnings({"codebook_usage": 0.1}) == []
    [text] = module.warnings({"codebook_usage": 0.051})
    assert re.search(r"5\.1% of the codes.*restart_steps=100.*init='data'.*cosine=True", text)


class Pictures:
    """Grey pictures; the brightness of each is its index."""

    def __init__(self, num):
        self.num = num

    def __len__(self):
        return self.num

    def read(self, indices):
        shape = (len(indices), 64, 64, 1)
        return {"image": np.broadcast_to(indices[:, None, None, None], shape).astype(np.uint8)}


def test_the_variance_is_measured_exactly_and_the_given_config_stays(monkeypatch):
    config = config_file.get_config()
    measured = variance.measured(config, Pictures(200))
    np.testing.assert_allclose(measured.data.variance, (np.arange(200) / 255).var(), rtol=1e-14)
    assert config.data.variance == 0.0
    assert variance.measured(measured, Pictures(100)) is measured
    # There are more pixels than are read, so examples are drawn: always the same ones.
    monkeypatch.setattr(variance, "PIXELS", 100 * 64 * 64)
    first, second = (variance.measured(config, Pictures(200)).data.variance for _ in range(2))
    assert first == second != measured.data.variance
    np.testing.assert_allclose(first, measured.data.variance, rtol=0.2)
    with pytest.raises(errors.InputError, match="all pixels are equal"):
        variance.measured(config, Pictures(1))
