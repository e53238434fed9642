"""SimVQ: codes are one linear map of fixed vectors."""

import jax
import jax.numpy as jnp
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
)

MAP = np.random.default_rng(1).normal(size=(DIM, DIM)).astype(np.float32)


def mapped(**changes):
    quantizer = make(name="sim_vq", **changes)
    quantizer.basis[...] = jnp.asarray(MAP)
    return quantizer


def test_codes_and_losses_are_those_of_numpy():
    for chunk in (0, 4):
        quantizer = mapped(chunk=chunk)
        fixed = np.asarray(quantizer.coefficients[...])
        table = fixed.astype(np.float64) @ MAP
        quantized = quantizer(ENCODINGS)
        codes = nearest_by_numpy(ENCODINGS, table)
        np.testing.assert_array_equal(quantized.codes, codes)
        np.testing.assert_allclose(quantized.values, table[codes], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(quantizer.lookup(quantized.codes), quantized.values)
        distance = np.square(ENCODINGS - table[codes]).mean(axis=(1, 2, 3))
        for name in ("commitment", "codebook"):
            np.testing.assert_allclose(quantized.terms[name], distance, rtol=1e-5)
        means = jax.tree.map(jnp.mean, quantized.terms)
        np.testing.assert_allclose(quantizer.loss(means), 1.25 * distance.mean(), rtol=1e-5)


def test_the_codes_begin_as_normal_draws_of_variance_one_over_d():
    table = np.asarray(make(name="sim_vq", num_codes=4096).codes)
    np.testing.assert_allclose(table.std(axis=0), DIM**-0.5, rtol=0.05)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=0.02)


def test_only_the_map_learns_and_each_term_moves_its_own_side():
    graph, params, rest = nnx.split(mapped(), nnx.Param, ...)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(DIM, DIM)]

    def loss(params, encodings, name):
        quantized = nnx.merge(graph, params, rest)(encodings)
        return quantized.values.sum() if name == "values" else quantized.terms[name].sum()

    gradients = jax.grad(loss, argnums=(0, 1))
    quantizer = mapped()
    codes, fixed = np.asarray(quantizer(ENCODINGS).codes), np.asarray(quantizer.coefficients[...])
    chosen = fixed[codes].reshape(-1, DIM).astype(np.float64)
    difference = (chosen @ MAP - ENCODINGS.reshape(-1, DIM)) / (SIDE**2 * DIM)
    of_map, of_encodings = gradients(params, ENCODINGS, "codebook")
    np.testing.assert_allclose(of_map["basis"][...], 2 * chosen.T @ difference, rtol=1e-4)
    assert not np.any(of_encodings)
    of_map, of_encodings = gradients(params, ENCODINGS, "commitment")
    assert not np.any(of_map["basis"][...])
    np.testing.assert_allclose(of_encodings.reshape(-1, DIM), -2 * difference, rtol=1e-4, atol=1e-6)
    of_map, of_encodings = gradients(params, ENCODINGS, "values")
    assert not np.any(of_map["basis"][...])
    np.testing.assert_array_equal(of_encodings, np.ones_like(ENCODINGS))


def test_a_vector_of_one_code_moves_all_codes():
    quantizer = mapped()
    one = ENCODINGS[:1, :1, :1]
    before = np.asarray(quantizer.codes)
    graph, params, rest = nnx.split(quantizer, nnx.Param, ...)
    loss = lambda params: nnx.merge(graph, params, rest)(one).terms["codebook"].sum()  # noqa: E731
    gradient = jax.grad(loss)(params)
    moved = nnx.merge(graph, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), rest)
    assert np.all(np.any(np.asarray(moved.codes) != before, axis=1))


def test_use_is_counted_without_padding():
    quantizer = mapped()
    quantized = quantizer(ENCODINGS)
    mask = np.float32([1] * 5 + [0] * 3)
    counts = quantizer.statistics(quantized, EXAMPLES | {"mask": mask}, jnp.int32(0))["counts"]
    expected = np.bincount(np.asarray(quantized.codes)[:5].ravel(), minlength=NUM_CODES)
    np.testing.assert_array_equal(counts, expected)
