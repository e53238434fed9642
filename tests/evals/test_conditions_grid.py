import jax
import numpy as np
import pytest

from configs import beta_vae, conditional_vae
from pipeline import datasets
from pipeline.display import pictures
from pipeline.evals import conditions_grid
from pipeline.mesh import sharding
from pipeline.training import evaluation, step
from tests.support.evaluations import Heldout, drawn, refusal


def conditional(monkeypatch, entry, name="label"):
    """Returns config and mesh of a small conditional model whose condition is that entry."""
    config = conditional_vae.get_config("smoke")
    config.model.hidden, config.model.latent_dim = (8,), 3
    config.model.conditions = (name,)
    example = {"image": jax.ShapeDtypeStruct((8, 8, 1), np.uint8), name: entry}
    monkeypatch.setattr(datasets, "example_spec", lambda _: example)
    return config, example, sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])


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
        (datasets.label(3, ("1", "2", "cat")), [2, 2, 0], ("1", "2", "cat")),
        (datasets.factors((3, 2), ("a", "b"), {"b": ("x", "y")}), [[2, 1], [0, 0]], ("2,y", "0,x")),
    ],
)
def test_rows_are_the_classes_or_the_conditions_of_heldout_examples(
    monkeypatch, entry, values, texts
):
    config, *_ = conditional(monkeypatch, entry, name="given")
    source = Heldout(given=np.array(values, entry.dtype))
    rows = conditions_grid.rows(config, source, {"given": entry})
    assert rows.texts == texts
    if isinstance(entry, datasets.Classes) and not entry.shape:
        np.testing.assert_array_equal(rows.entries["given"], np.arange(3))
    elif len(texts) == 2:
        np.testing.assert_array_equal(rows.entries["given"], source.rows["given"][:2])


@pytest.mark.parametrize(
    ("module", "fields", "words"),
    [
        (beta_vae, {}, "'beta_vae' has no conditions: take it out"),
        (conditional_vae, {"conditions_grid.rows": 0}, "rows=0 must be at least"),
    ],
)
def test_what_cannot_work_is_one_line(module, fields, words):
    config = module.get_config("sprites,smoke")
    assert words in refusal(conditions_grid, config, **fields)
