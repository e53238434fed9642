"""Grids of conditions, maps of codes and planes of latents show what the model computes."""

import jax
import numpy as np
import pytest

from configs import beta_vae, conditional_vae, vq_vae
from pipeline import datasets
from pipeline.display import pictures
from pipeline.evals import code_maps, code_ranks, conditions_grid, latent_plane, reconstructions
from pipeline.mesh import sharding
from pipeline.nn import labels
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, posteriors, step


class Heldout:
    """Held-out examples with a label of three classes, or with an attribute."""

    def __init__(self, num=5, **entries):
        rng = np.random.default_rng(0)
        self.rows = {"image": rng.integers(0, 256, (num, 8, 8, 1)).astype(np.uint8)} | {
            name: np.resize(values, (num, *np.shape(values)[1:]))
            for name, values in entries.items()
        }

    def __len__(self):
        return len(self.rows["image"])

    def read(self, indices):
        return {name: rows[indices] for name, rows in self.rows.items()}


def conditional(monkeypatch, entry, name="label"):
    """Returns config and mesh of a small conditional model whose condition is that entry."""
    config = conditional_vae.get_config("smoke")
    config.model.hidden, config.model.latent_dim = (8,), 3
    config.model.conditions = (name,)
    example = {"image": jax.ShapeDtypeStruct((8, 8, 1), np.uint8), name: entry}
    monkeypatch.setattr(datasets, "example_spec", lambda _: example)
    return config, example, sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])


def drawn(monkeypatch, module, name, evaluate, state):
    given = []
    monkeypatch.setattr(module, name, lambda *arguments: given.append(arguments))
    for _, draw in evaluate(state):
        draw()
    return given[0]


def test_a_row_a_label_and_the_same_z_along_a_column(monkeypatch):
    config, example, mesh = conditional(monkeypatch, datasets.label(3))
    config.conditions_grid.columns = 4
    state = step.create_state(config, example, mesh)
    evaluate = conditions_grid.make(config, mesh, Heldout(label=np.arange(3, dtype=np.int32)))
    with monkeypatch.context() as patch:
        images, texts, names = drawn(patch, conditions_grid, "picture", evaluate, state)
    assert texts == ["0", "1", "2", "none"] and names == ("label",)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(np.arange(4))
    sample, classes = (
        evaluation.make_method(config, example, "sample"),
        np.arange(3, dtype=np.int32),
    )
    for column in range(4):
        expected = sample(state, keys[np.full(3, column)], {"label": classes})
        np.testing.assert_allclose(images[[column, 4 + column, 8 + column]], expected, atol=1e-6)
    np.testing.assert_allclose(images[12:], sample(state, keys), atol=1e-6)
    (picture,) = [draw() for _, draw in evaluate(state)]
    side, width = 56 + 2, 4 * (56 + 2) - 2
    grid = picture[-4 * side - pictures.PAD + 2 : -pictures.PAD, : -width - pictures.PAD]
    for row in range(4):
        assert (grid[side * row : side * row + 56] < 128).any()  # a text beside each row


@pytest.mark.parametrize(
    ("entry", "values", "texts"),
    [
        (jax.ShapeDtypeStruct((), np.float32), [0.1, 2.5, 0.1], ("0.1", "2.5")),
        (datasets.factors((3, 9), ("a", "b")), [[2, 8], [0, 3], [2, 8]], ("2,8", "0,3")),
        (datasets.label(3), [2, 2, 0], ("0", "1", "2")),
    ],
)
def test_rows_are_the_classes_or_the_conditions_of_heldout_examples(
    monkeypatch, entry, values, texts
):
    config, *_ = conditional(monkeypatch, entry, name="given")
    source = Heldout(given=np.array(values, entry.dtype))
    rows = labels.parse(
        conditions_grid.row_labels(config, source, {"given": entry}), {"given": entry}
    )
    assert rows.texts == texts
    if len(texts) == 2:
        np.testing.assert_array_equal(rows.entries["given"], source.rows["given"][:2])


@pytest.fixture(scope="module")
def coded():
    """Returns config, mesh, data and state of a small VQ-VAE, and the codes of 70 examples."""
    config = vq_vae.get_config("sprites,smoke")
    config.model.network, config.model.hidden, config.model.latent_dim = "dense", (8,), 4
    config.eval_examples, config.code_maps.num, config.data.variance = 70, 3, 0.04
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    source, example = datasets.load(config).heldout, datasets.example_spec(config)
    state = step.create_state(config, example, mesh)
    image = batching.first_images(source, config, 70)["image"]
    codes = np.asarray(evaluation.make_method(config, example, "encode")(state, image))
    return config, mesh, source, state, codes


def test_maps_show_the_vectors_of_the_codes_between_inputs_and_what_is_decoded(coded, monkeypatch):
    config, mesh, source, state, codes = coded
    evaluate = code_maps.make(config, mesh, source)
    inputs, seen, outputs = drawn(monkeypatch, code_maps, "picture", evaluate, state)
    batch = batching.first_images(source, config, 3)
    np.testing.assert_array_equal(inputs, batch["image"])
    table = next(leaf for leaf in jax.tree.leaves(state.stats) if leaf.shape == (128, 4))
    np.testing.assert_array_equal(seen, np.asarray(table)[codes[:3]])
    example = datasets.example_spec(config)
    reconstructed = evaluation.make_method(config, example, "reconstruct")(state, batch)
    np.testing.assert_allclose(outputs, reconstructed, atol=1e-5)
    monkeypatch.undo()
    (picture,) = [draw() for _, draw in evaluate(state)]
    assert picture.shape[0] > 3 * 128 and picture.shape[2] == 3


def test_equal_codes_have_equal_colours_and_unlike_ones_unlike():
    vectors = np.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 2]])
    codes = np.random.default_rng(0).integers(0, 4, (2, 5, 5))
    found = code_maps.colours(vectors[codes])
    assert found.shape == (2, 5, 5, 3)
    assert found.min() >= 0 and found.max() <= 1
    by_code = [found[codes == code] for code in range(4)]
    for rows in by_code:
        np.testing.assert_allclose(rows, rows[:1].repeat(len(rows), 0), atol=1e-9)
    for one in range(4):
        for other in range(one):
            assert np.abs(by_code[one][0] - by_code[other][0]).max() > 0.2


def test_one_code_alone_has_a_colour_too():
    assert np.isfinite(code_maps.colours(np.ones((2, 3, 3, 2)))).all()


def test_ranks_are_the_use_over_all_heldout_examples(coded, monkeypatch):
    config, mesh, source, state, codes = coded
    evaluate = code_ranks.make(config, mesh, source)
    (figures,) = drawn(monkeypatch, code_ranks, "picture", evaluate, state)
    use = np.bincount(codes.ravel(), minlength=128) / codes.size * 128
    np.testing.assert_allclose(figures["code_usage"], use, atol=1e-5)
    monkeypatch.undo()
    picture = code_ranks.picture(figures)
    assert picture.dtype == np.uint8 and picture.shape == (400, 700, 3)


def encoded(mean, **attributes):
    return posteriors.Encodings(mean, np.zeros_like(mean), attributes)


def test_two_latents_are_the_plane_themselves():
    mean = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    found = latent_plane.plane(encoded(mean), "pca")
    np.testing.assert_array_equal(found.points, mean)
    assert found.axes == ("mean of z0", "mean of z1")


def test_the_plane_of_many_is_that_of_the_principal_components():
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(500, 3)) * [3, 0.1, 2] + 5).astype(np.float32)
    found = latent_plane.plane(encoded(mean), "pca")
    covariance = np.cov(mean.T.astype(np.float64))
    lengths, directions = np.linalg.eigh(covariance)
    expected = (mean - mean.mean(axis=0)) @ directions[:, [2, 1]]
    expected *= np.sign((expected * found.points).sum(axis=0))
    np.testing.assert_allclose(found.points, expected, atol=1e-4)
    assert f"{lengths[2] / lengths.sum():.0%}" in found.axes[0]
    found = latent_plane.plane(encoded(mean), "kl")
    np.testing.assert_array_equal(found.points, mean[:, [0, 2]])
    assert found.axes == ("mean of z0", "mean of z2")


def test_each_factor_that_varies_has_a_panel_and_the_kl_stands_in_for_none():
    mean = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    example = {
        "factors": datasets.factors((1, 3, 40), ("color", "shape", "position_x")),
        "label": datasets.label(2),
    }
    factors = np.array([[0, i % 3, 7 * i] for i in range(6)], np.int32)
    given = encoded(mean, factors=factors, label=np.arange(6) % 2)
    found = latent_plane.colours(given, example)
    assert [(colour.name, colour.num_classes, colour.ordered) for colour in found] == [
        ("shape", 3, True), ("position x", 40, True), ("label", 2, False)
    ]  # fmt: skip
    np.testing.assert_array_equal(found[1].values, factors[:, 2])
    picture = latent_plane.picture(latent_plane.plane(given, "pca"), found)
    assert picture.ndim == 3 and picture.dtype == np.uint8
    (only,) = latent_plane.colours(encoded(mean), {})
    np.testing.assert_allclose(only.values, 0.5 * np.square(mean).sum(axis=1), rtol=1e-5)
    assert "nats" in only.name


def test_plots_leave_matplotlibs_global_state_alone():
    from matplotlib import pyplot

    mean = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    given = encoded(mean)
    latent_plane.picture(latent_plane.plane(given, "pca"), latent_plane.colours(given, {}))
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("module", "kind", "fields", "words"),
    [
        (beta_vae, code_maps, {}, "'beta_vae' has no codes: take it out, or choose one of vq_vae"),
        (beta_vae, code_ranks, {}, "'code_ranks', but config.model.name='beta_vae' has no codes"),
        (beta_vae, conditions_grid, {}, "'beta_vae' has no conditions: take it out"),
        (vq_vae, latent_plane, {}, "'vq_vae' has no Gaussian posterior"),
        (beta_vae, latent_plane, {"model.latent_dim": 1}, "latent_dim=1 is a line"),
        (beta_vae, latent_plane, {"latent_plane.projection": "x"}, "choose one of kl, pca"),
        (vq_vae, code_maps, {"code_maps.num": 0}, "code_maps.num=0 must be at least 1"),
        (conditional_vae, conditions_grid, {"conditions_grid.rows": 0}, "rows=0 must be at least"),
    ],
)
def test_what_cannot_work_is_one_line(module, kind, fields, words):
    config = module.get_config("sprites,smoke")
    config.update_from_flattened_dict(fields)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    with pytest.raises(errors.InputError, match=words) as raised:
        kind.make(config, mesh, Heldout())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("num", [10, 20])
def test_reconstructions_stand_below_their_inputs_however_few_there_are(num):
    config = beta_vae.get_config("sprites,smoke")
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    source = datasets.Subset(datasets.load(config).heldout, np.arange(num))
    state = step.create_state(config, datasets.example_spec(config), mesh)
    evaluate = reconstructions.make(config, mesh, source)
    (picture,) = [draw() for _, draw in evaluate(state)]
    columns, rows = min(num, 8), 4 if num >= 16 else 2
    assert picture.shape[0] == rows * 66 - 2 + 2 * pictures.PAD
    left = picture.shape[1] - pictures.PAD - (columns * 66 - 2)
    image = batching.first_images(source, config, 1)["image"][0]
    found = picture[pictures.PAD : pictures.PAD + 64, left : left + 64]
    np.testing.assert_array_equal(found, image)
