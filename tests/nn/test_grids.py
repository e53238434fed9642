"""Networks of grids: attention, memory, grids of latents, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals
from ml_collections import ConfigDict

from configs import beta_vae, default
from pipeline import models
from pipeline.nn.grids import autoencoder, layers
from pipeline.runtime import errors
from pipeline.training import evaluation, step
from tests.support import small_models

SCALABLE = {
    "model.network": "scalable",
    "model.downsampling": 2,
    "model.channels": 4,
    "model.channel_multipliers": (1, 2),
    "model.blocks_per_level": 1,
}
UNCONDITIONAL = ("beta", "capacity", "tc", "dip", "info", "factor")


def make_config(variant, **changes):
    return small_models.make_config(variant, **(SCALABLE | changes))


def example(*shape):
    return {"image": jax.ShapeDtypeStruct(shape, np.uint8)}


def model_of(config, shape):
    graphdef, init = models.make(config, example(*shape))
    return nnx.merge(graphdef, *init())


def shapes_of(config, shape=(8, 8, 1)):
    """Returns {path: shape} of the parameters that a checkpoint names."""
    found = jax.tree.leaves_with_path(step.abstract_state(config, example(*shape)).params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in found}


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_attention_is_that_of_numpy_over_the_places_of_each_example():
    build = layers.Builder(jnp.float32, nnx.Rngs(params=0))
    block, draw = layers.Attention(build, 6), np.random.default_rng(0)
    arrays = jax.tree.map(
        lambda x: draw.normal(size=x.shape).astype(np.float32), nnx.state(block, nnx.Param)
    )
    nnx.update(block, arrays)
    x = draw.normal(size=(2, 2, 3, 6)).astype(np.float32)
    found = jax.jit(block)(x)
    kernels = {n: np.float64(arrays[n]["kernel"][...])[0, 0] for n in ("inputs", "outputs")}
    biases = {n: np.float64(arrays[n]["bias"][...]) for n in ("inputs", "outputs")}
    for image, result in zip(np.float64(x), found, strict=True):
        groups = image.reshape(6, 2, 3)  # gcd(32, 6) = 2 groups of 3 channels
        centred = groups - groups.mean(axis=(0, 2), keepdims=True)
        normed = centred / np.sqrt(np.square(centred).mean(axis=(0, 2), keepdims=True) + 1e-6)
        norm = arrays["norm"]
        normed = normed.reshape(6, 6) * norm["scale"][...] + norm["bias"][...]
        q, k, v = np.split(normed @ kernels["inputs"] + biases["inputs"], 3, axis=-1)
        weights = np.exp(q @ k.T / np.sqrt(6))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
        expected = image.reshape(6, 6) + mixed @ kernels["outputs"] + biases["outputs"]
        np.testing.assert_allclose(result.reshape(6, 6), expected, rtol=1e-4, atol=1e-4)


def test_attention_follows_the_blocks_of_its_levels_and_has_a_middle():
    plain = shapes_of(make_config("vq"), (8, 12, 1))
    # The names of all earlier versions: a convolution, blocks, a convolution, and so on.
    encoder = {path.split("/")[2] for path in plain if path.startswith("encoder")}
    assert encoder == {"0", "1", "2", "3", "4", "6"}  # 5 is an activation
    assert plain["encoder/layers/1/layers/layers/2/kernel"] == (3, 3, 4, 4)
    assert plain["encoder/layers/2/kernel"] == (4, 4, 4, 8)
    attending = shapes_of(make_config("vq", **{"model.attention_resolutions": (4,)}), (8, 12, 1))
    heads = [path for path in attending if path.endswith("inputs/kernel")]
    # After the block of level 1 and in the middle, in both networks; level 0 has a side of 8.
    assert [attending[path] for path in heads] == [(1, 1, 8, 24)] * 4
    assert {path.split("/")[2] for path in heads if path.startswith("encoder")} == {"4", "6"}
    assert {path.split("/")[2] for path in heads if path.startswith("decoder")} == {"2", "5"}


def test_remat_changes_no_name_and_no_value_on_any_mesh_and_with_accumulation():
    # With this ε a step of Adam is nearly proportional to the gradient, so that both are compared.
    options = {"model.downsampling": 1, "model.channel_multipliers": (1,), "optimizer.eps": 1.0}
    config = make_config("beta", **options)
    again = make_config("beta", **options, **{"model.remat": True, "accumulation_steps": 2})
    assert shapes_of(config) == shapes_of(again)
    for one in (config, again):
        one.optimizer.warmup_steps, one.optimizer.learning_rate = 0, 0.1
    first = small_models.first_state(config, small_models.mesh_of(1), small_models.EXAMPLE)
    state, losses, _ = small_models.train(config, 1, num_steps=1)
    other, other_losses, _ = small_models.train(again, 2, num_steps=1)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    moves = [jax.tree.map(np.subtract, each.params, first.params) for each in (state, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *moves)
    assert max(np.abs(each).max() for each in jax.tree.leaves(moves[0])) > 1e-2


@pytest.mark.parametrize("remat", [False, True])
def test_with_remat_only_the_inputs_of_stages_wait_for_the_backward_pass(remat, capsys):
    section = {"network": "scalable", "downsampling": 1, "channels": 4, "blocks_per_level": 3}
    model = ConfigDict(section | {"channel_multipliers": (1,), "remat": remat})
    config = ConfigDict({"model": model, "compute_dtype": "float32"})
    encoder, _ = autoencoder.make(config, (16, 16, 1), 2, rngs=nnx.Rngs(params=0))
    graphdef, params = nnx.split(encoder)
    apply = lambda params, x: nnx.merge(graphdef, params)(x).sum()  # noqa: E731
    print_saved_residuals(apply, params, np.zeros((5, 16, 16, 1), np.float32))
    saved = [line for line in capsys.readouterr().out.splitlines() if "[5,16,16," in line]
    # Images, and what enters three blocks and the last convolution; else some of every layer.
    assert len(saved) == 1 + 4 if remat else len(saved) > 30


def test_a_grid_of_latents_is_a_row_with_all_means_first():
    config = make_config("beta", **{"model.latent_dim": 3})
    model, batch = model_of(config, (8, 12, 2)), images(2, 8, 12, 2)
    assert (model.latent_shape, model.latent_dim) == ((4, 6, 3), 72)
    mean, log_variance, moments, decoded, sample = jax.jit(
        lambda image, keys: (
            *model.posterior({"image": image}),
            model.encoder.grid(image / 255.0 - 0.5),
            model.decode(model.encode(image)[0]),
            model.sample(keys),
        )
    )(batch, jax.random.split(jax.random.key(0), 2))
    assert mean.shape == log_variance.shape == (2, 72) and moments.shape == (2, 4, 6, 6)
    of_place = lambda row: np.asarray(row).reshape(2, 4, 6, 3)  # noqa: E731
    np.testing.assert_allclose(of_place(mean), moments[..., :3], atol=1e-5)
    np.testing.assert_allclose(of_place(log_variance), moments[..., 3:], atol=1e-5)
    assert decoded.shape == sample.shape == (2, 8, 12, 2)


@pytest.mark.parametrize("variant", UNCONDITIONAL)
def test_every_gaussian_vae_without_conditions_has_grids(variant):
    config = make_config(variant, **{"model.latent_dim": 1})
    model = models.abstract(config, small_models.EXAMPLE)
    assert model.latent_dim == 64  # of 16×16 pixels
    assert model.decoder.latent_shape == (8, 8, 1)


@pytest.mark.parametrize(("variant", "channels"), [("vq", 1), ("beta", 2), ("beta", 3), ("vq", 4)])
def test_images_of_any_channels_and_sides_that_f_divides_come_back_in_their_shape(
    variant, channels
):
    options = {"model.downsampling": 4, "model.channel_multipliers": (1, 1, 2)}
    config = make_config(variant, **options, **{"model.attention_resolutions": (3, 6)})
    image = example(12, 20, channels)
    reconstruct = evaluation.make_method(config, image, "reconstruct")
    batch = {"image": jax.ShapeDtypeStruct((1, 12, 20, channels), np.uint8)}
    found = jax.eval_shape(reconstruct, step.abstract_state(config, image), batch)
    assert found.shape == (1, 12, 20, channels)


@pytest.mark.parametrize(
    ("variant", "changes", "words"),
    [
        (
            "beta",
            {"model.attention_resolutions": (8, 5)},
            r"attention_resolutions=\(8, 5\) must be .* which are 16, 8 for images 16×16",
        ),
        ("vq", {"model.attention_resolutions": (32,)}, "which are 16, 8 for images 16×16"),
        ("beta", {"model.downsampling": 4}, r"must be 2\^\(levels − 1\)"),
        ("beta", {"model.blocks_per_level": 0}, "blocks_per_level=0 must be at least 1"),
        ("beta", {"model.network": "residual"}, "choose one of conv, dense, locatello, scalable"),
    ],
)
def test_a_mistake_names_field_and_repair(variant, changes, words):
    with pytest.raises(errors.InputError, match=words):
        step.abstract_state(make_config(variant, **changes), small_models.EXAMPLE)


def test_conditions_have_no_way_into_a_grid():
    config = small_models.make_config("concat", **{"model.network": "scalable"})
    with pytest.raises(errors.InputError, match="'scalable' has no dense layers, which conditions"):
        step.abstract_state(config, small_models.EXAMPLE)


def test_a_config_without_the_fields_is_told_of_them_only_if_it_needs_them():
    config = default.get_config()
    config.model.name, config.model.beta = "beta_vae", beta_vae.get_config().model.beta
    assert step.abstract_state(config, small_models.EXAMPLE)
    config.model.network = "scalable"
    words = "'scalable' needs the fields downsampling, channels, blocks_per_level, channel_mult"
    with pytest.raises(errors.InputError, match=words):
        step.abstract_state(config, small_models.EXAMPLE)
