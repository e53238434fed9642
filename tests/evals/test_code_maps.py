import jax
import numpy as np
import pytest

from configs import beta_vae, vq_vae
from pipeline import datasets
from pipeline.evals import code_maps
from pipeline.training import batching, evaluation
from tests.support.evaluations import drawn, refusal


def test_maps_show_the_vectors_of_the_codes_between_inputs_and_what_is_decoded(coded, monkeypatch):
    config, mesh, source, state, codes = coded
    evaluate = code_maps.make(config, mesh, source)
    inputs, seen, outputs = drawn(monkeypatch, code_maps, "picture", evaluate, state)
    batch = batching.first_images(source, config, 3)
    np.testing.assert_array_equal(inputs, batch["image"] / np.float32(255))
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


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 3), (7, 5, 2), (3, 2, 4), (9, 1, 2)])
def test_maps_fit_images_of_any_size_and_number_of_channels(shape):
    images = np.zeros((2, *shape), np.float32)
    for codes in ((1, 1), (2, 2), (3, 4)):
        found = code_maps.picture(images, np.ones((2, *codes, 5)), images)
        assert found.dtype == np.uint8 and found.shape[2] == 3


@pytest.mark.parametrize(
    ("module", "fields", "words"),
    [
        (beta_vae, {}, "'beta_vae' has no codes: take it out, or choose one of vq_vae"),
        (vq_vae, {"code_maps.num": 0}, "code_maps.num=0 must be at least 1"),
    ],
)
def test_what_cannot_work_is_one_line(module, fields, words):
    config = module.get_config("sprites,smoke")
    assert words in refusal(code_maps, config, **fields)
