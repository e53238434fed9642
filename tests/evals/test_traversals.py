"""Traversals and interpolations show exactly what the model decodes, in the order of the KL."""

import jax
import numpy as np
import pytest

from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets
from pipeline.display import pictures
from pipeline.evals import interpolations, traversals
from pipeline.mesh import sharding
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, posteriors, step


def small(module, **fields):
    config = module.get_config("sprites,smoke")
    config.eval_examples = 70
    config.traversals.steps = 5
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in fields.items()})
    return config


class Made:
    """Returns an evaluation of a new model on that many devices."""

    def __init__(self, module, kind, *, devices=1, **fields):
        self.config = small(module, **fields)
        self.mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:devices])
        self.example = datasets.example_spec(self.config)
        self.source = datasets.load(self.config).heldout
        self.state = step.create_state(self.config, self.example, self.mesh)
        evaluate = kind.make(self.config, self.mesh, self.source)
        self.values = dict(evaluate(self.state))
        self.methods = {}

    def method(self, name, *arguments):
        if name not in self.methods:
            self.methods[name] = evaluation.make_method(self.config, self.example, name)
        return jax.device_get(self.methods[name](self.state, *arguments))

    def encoded(self):
        batches = batching.heldout_batches(self.source, self.config, self.mesh)
        return posteriors.encoder(self.config, self.mesh)(
            self.state, (batch for _, batch in batches)
        )


@pytest.fixture
def drawn(monkeypatch):
    """Collects the arguments of the functions that draw."""
    given = []
    monkeypatch.setattr(traversals, "picture", lambda found: given.append(found))
    return given


@pytest.mark.parametrize("module", [beta_vae, conditional_vae])
def test_each_image_is_decoded_from_the_example_with_one_latent_moved(module, drawn):
    made = Made(module, traversals, traversals__examples=(3, 69), traversals__range=2.0)
    made.values["heldout/traversals"]()
    (found,) = drawn
    encoded = made.encoded()
    np.testing.assert_array_equal(found.positions, [3, 69])
    np.testing.assert_array_equal(found.latents, np.argsort(-encoded.kl.mean(axis=0)))
    assert (np.diff(found.kl) <= 0).all()
    assert found.values == ("-2", "-1", "0", "1", "2")
    examples = batching.read(made.source, found.positions, made.config)
    np.testing.assert_array_equal(found.inputs, examples["image"] / np.float32(255))
    expected = np.empty_like(found.images)
    for s, l, t in np.ndindex(found.images.shape[:3]):  # noqa: E741
        z = encoded.mean[found.positions[s]].copy()
        z[found.latents[l]] = np.linspace(-2, 2, 5)[t]
        own = {name: array[s : s + 1] for name, array in examples.items()}
        conditions = (own,) if module is conditional_vae else ()
        expected[s, l, t] = made.method("decode", z[None], *conditions)[0]
    np.testing.assert_allclose(found.images, expected, atol=1e-5)
    if module is conditional_vae:  # the second example's own conditions, not the first's
        assert np.abs(found.decoded[0] - found.decoded[1]).max() > 1e-3


def test_moving_a_latent_leaves_all_others_bitwise():
    z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    values = np.array([[7, 8], [5, 6]], np.float32)
    found = traversals.moved(z, np.array([2, 0]), values)
    assert found.shape == (3, 2, 2, 4)
    np.testing.assert_array_equal(found[:, 0, :, 2], [[7, 8]] * 3)
    np.testing.assert_array_equal(found[:, 1, :, 0], [[5, 6]] * 3)
    np.testing.assert_array_equal(found[:, 0][:, :, [0, 1, 3]], z[:, None, [0, 1, 3]].repeat(2, 1))
    np.testing.assert_array_equal(found[:, 1][:, :, 1:], z[:, None, 1:].repeat(2, 1))


def test_the_values_may_be_quantiles_of_the_posterior(drawn):
    made = Made(beta_vae, traversals, traversals__axis="posterior", traversals__latents=3)
    made.values["heldout/traversals"]()
    (found,) = drawn
    assert found.values == ("1%", "26%", "50%", "74%", "99%")  # 25.5 and 74.5 round to even
    means = made.encoded().mean
    z = means[found.positions[0]].copy()
    z[found.latents[2]] = np.median(means[:, found.latents[2]])
    np.testing.assert_allclose(found.images[0, 2, 2], made.method("decode", z[None])[0], atol=1e-5)
    assert found.images.shape[1] == 3


def test_the_pictures_are_the_same_on_one_and_four_devices():
    one, four = (
        {tag: draw() for tag, draw in Made(beta_vae, traversals, devices=n).values.items()}
        for n in (1, 4)
    )
    for tag in ("heldout/traversals", "heldout/traversals_animated"):
        assert one[tag].dtype == np.uint8
        difference = np.abs(one[tag].astype(int) - four[tag])
        assert difference.max() <= 1  # one level of grey, for values between two levels
    frames = one["heldout/traversals_animated"]
    assert len(frames) == 8  # there and back
    np.testing.assert_array_equal(frames[1], frames[7])
    assert (frames[0] != frames[4]).any()


def test_the_picture_has_a_row_a_latent_and_a_column_a_value_with_labels():
    made = Made(beta_vae, traversals, traversals__examples=(0, 1, 2))
    found = made.values["heldout/traversals"]()
    block = found[: len(found) // 3]
    grid_height, grid_width = 10 * 66 - 2, 5 * 66 - 2
    top = len(block) - pictures.PAD - grid_height
    labels = block[top : top + grid_height, : block.shape[1] - grid_width - 2 * pictures.PAD]
    for row in range(10):
        assert (labels[66 * row : 66 * row + 64] < 128).any()
    assert (block[top - pictures.FONT_SIZE - pictures.PAD : top, -grid_width:] < 128).any()


@pytest.mark.parametrize("shape", [(64, 64, 1), (8, 8, 3), (1, 1, 2), (3, 5, 4)])
@pytest.mark.parametrize("num_latents", [1, 2, 3, 4, 17])
def test_any_number_of_latents_can_be_animated(num_latents, shape):
    found = traversals.Traversals(
        positions=np.array([0]),
        inputs=np.zeros((1, *shape), np.float32),
        decoded=np.zeros((1, *shape), np.float32),
        images=np.zeros((1, num_latents, 3, *shape), np.float32),
        latents=np.arange(num_latents),
        kl=np.ones(num_latents),
        axis="standard deviations of the prior",
        values=("-3.0", "0.0", "3.0"),
    )
    frames = traversals.animation(found)
    assert len(frames) == 4 and frames.dtype == np.uint8
    assert pictures.gif(frames) and pictures.png(traversals.picture(found))


@pytest.fixture
def drawn_interpolations(monkeypatch):
    given = []
    monkeypatch.setattr(interpolations, "picture", lambda *arguments: given.append(arguments))
    return given


def test_an_interpolation_starts_and_ends_at_the_reconstructions(drawn_interpolations):
    made = Made(beta_vae, interpolations, interpolations__pairs=2, interpolations__steps=3)
    made.values["heldout/interpolations"]()
    ((inputs, images, shares, _),) = drawn_interpolations
    np.testing.assert_array_equal(shares, [0, 0.5, 1])
    batch = {"image": inputs}
    reconstructions = made.method("reconstruct", batch).reshape(2, 2, 64, 64, 1)
    np.testing.assert_allclose(images[:, [0, 2]], reconstructions, atol=1e-5)
    middle = made.method("posterior", batch)[0].reshape(2, 2, -1).mean(axis=1)
    np.testing.assert_allclose(images[:, 1], made.method("decode", middle), atol=1e-5)


def test_a_conditional_model_interpolates_under_the_first_ones_conditions(drawn_interpolations):
    made = Made(conditional_vae, interpolations, interpolations__pairs=2, interpolations__steps=2)
    made.values["heldout/interpolations"]()
    ((inputs, images, _, title),) = drawn_interpolations
    order = np.random.RandomState(made.config.seed).permutation(len(made.source))[:4]
    examples = batching.read(made.source, order, made.config)
    np.testing.assert_array_equal(inputs, examples["image"] / np.float32(255))
    mean = made.method("posterior", examples)[0]
    first = {name: array[[0, 0, 2, 2]] for name, array in examples.items()}
    expected = made.method("decode", mean, first)
    np.testing.assert_allclose(images.reshape(expected.shape), expected, atol=1e-5)
    assert "given the first one's conditions" in title


@pytest.mark.parametrize(
    ("module", "kind", "fields", "words"),
    [
        (vq_vae, traversals, {}, "'vq_vae' has no Gaussian posterior: take it out, or choose one"),
        (vq_vae, interpolations, {}, "'interpolations', but config.model.name='vq_vae' has no"),
        (beta_vae, traversals, {"traversals__steps": 1}, "traversals.steps=1 must be at least 2"),
        (beta_vae, traversals, {"traversals__range": 0.0}, "traversals.range=0.0 must be above 0"),
        (beta_vae, traversals, {"traversals__axis": "x"}, "'x' is unknown: choose one of post"),
        (beta_vae, traversals, {"traversals__examples": (70,)}, "numbered 0 to 69"),
        (beta_vae, interpolations, {"interpolations__pairs": 0}, "pairs=0 must be at least 1"),
        (beta_vae, interpolations, {"interpolations__pairs": 9999}, "there are 10000"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_compiled(module, kind, fields, words):
    config = small(module, **fields)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    with pytest.raises(errors.InputError, match=words) as raised:
        kind.make(config, mesh, datasets.load(config).heldout)
    assert "\n" not in str(raised.value)
