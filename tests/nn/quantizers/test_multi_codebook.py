"""Several codebooks for one vector: of its residuals, or of its groups of dimensions."""

import jax
import numpy as np
from flax import nnx

from tests.support.small_quantizers import (
    DIM,
    ENCODINGS,
    EXAMPLES,
    NUM_CODES,
    SIDE,
    make,
    nearest_by_numpy,
    update,
)

GROUPS = [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_residual_codes_quantise_what_is_left():
    quantizer = make(name="residual_vq", num_quantizers=3)
    quantized = quantizer(ENCODINGS)
    residual, distance = ENCODINGS, 0.0
    for i, stage in enumerate(quantizer.stages):
        codebook = np.asarray(stage.codes)
        codes = nearest_by_numpy(residual, codebook)
        np.testing.assert_array_equal(quantized.codes[..., i], codes)
        residual = residual - codebook[codes]
        distance += np.square(residual).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(quantized.values, ENCODINGS - residual, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(quantized.terms["commitment"], distance, rtol=1e-5)
    sums = update(quantizer)
    assert sums["counts"].shape == (3, NUM_CODES)


def test_a_group_quantises_its_own_dimensions():
    quantizer = make(name="grouped_vq", num_quantizers=3, codebook="loss")
    assert (quantizer.num_codes, quantizer.shape) == (NUM_CODES, (3,))
    quantized = quantizer(ENCODINGS)
    values = np.empty_like(ENCODINGS)
    for i, group in enumerate(GROUPS):
        codebook = np.asarray(quantizer.stages[i].codes)
        assert codebook.shape == (NUM_CODES, 2)
        codes = nearest_by_numpy(ENCODINGS[..., group], codebook)
        np.testing.assert_array_equal(quantized.codes[..., i], codes)
        values[..., group] = codebook[codes]
    np.testing.assert_array_equal(quantized.values, values)
    np.testing.assert_array_equal(quantizer.lookup(quantized.codes), values)
    distance = np.square(ENCODINGS - values).mean(axis=(1, 2, 3))  # over all six dimensions
    for term in quantized.terms.values():
        np.testing.assert_allclose(term, distance, rtol=1e-5)
    means = jax.tree.map(np.mean, quantized.terms)
    np.testing.assert_allclose(quantizer.loss(means), 1.25 * distance.mean(), rtol=1e-5)


def test_one_group_is_the_plain_quantiser():
    one, plain = make(name="grouped_vq", num_quantizers=1), make(name="vq")
    for _ in range(2):
        np.testing.assert_array_equal(one(ENCODINGS).codes[..., 0], plain(ENCODINGS).codes)
        np.testing.assert_array_equal(one(ENCODINGS).values, plain(ENCODINGS).values)
        update(one), update(plain)


def test_averages_of_a_group_follow_its_dimensions_without_padding():
    quantizer = make(name="grouped_vq", num_quantizers=3, decay=0.0, epsilon=1e-9)
    codes = np.asarray(quantizer(ENCODINGS).codes)
    damaged = ENCODINGS.copy()
    damaged[5:] = 100.0
    mask = np.float32([1] * 5 + [0] * 3)
    counts = update(quantizer, damaged, examples=EXAMPLES | {"mask": mask})["counts"]
    assert counts.shape == (3, NUM_CODES)
    np.testing.assert_array_equal(counts.sum(axis=1), [5 * SIDE**2] * 3)
    for i, group in enumerate(GROUPS):
        for code in np.unique(codes[:5, ..., i]):
            mean = ENCODINGS[:5, ..., group][codes[:5, ..., i] == code].mean(axis=0)
            np.testing.assert_allclose(quantizer.stages[i].codes[code], mean, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_group_moves_only_its_codebook():
    graph, params, rest = nnx.split(
        make(name="grouped_vq", num_quantizers=3, codebook="loss"), nnx.Param, ...
    )

    def loss(params, encodings, group):
        # A gradient of one group's part of the terms and of the decoder's input.
        quantized = nnx.merge(graph, params, rest)(encodings)
        return quantized.terms["codebook"].sum(), quantized.values[..., group].sum()

    (codebook, decoder) = jax.jacrev(loss, argnums=(0, 1))(params, ENCODINGS, GROUPS[1])
    assert not np.any(codebook[1])  # the codebook's term does not move the encodings
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(decoder[0]))
    expected = np.zeros(DIM)
    expected[GROUPS[1]] = 1.0
    np.testing.assert_array_equal(decoder[1], np.broadcast_to(expected, ENCODINGS.shape))
    for i, group in enumerate(GROUPS):
        codes = np.asarray(make(name="grouped_vq", num_quantizers=3)(ENCODINGS).codes)[..., i]
        of_codes = np.zeros((NUM_CODES, 2))
        table = np.asarray(make(name="grouped_vq", num_quantizers=3).stages[i].codes)
        differences = table[codes] - ENCODINGS[..., group]
        np.add.at(of_codes, codes, 2 * differences / (SIDE**2 * DIM))
        found = codebook[0]["stages"][i]["codebook"][...]
        np.testing.assert_allclose(found, of_codes, rtol=1e-4, atol=1e-6)
