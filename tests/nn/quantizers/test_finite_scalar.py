"""FSQ, once and on residuals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.small_quantizers import ENCODINGS, EXAMPLES, SIDE, make

LEVELS = (8, 5, 2)


def test_fsq_rounds_to_every_level_and_counts_them_as_digits():
    quantizer = make(name="fsq", levels=(4, 3))
    assert quantizer.num_codes == 12
    z = np.float32([[-9.0, -9.0], [9.0, 9.0], [0.0, 0.0], [9.0, -9.0]])[:, None, None]
    quantized = quantizer(z)
    # Mentzer et al.: four levels are −1, −½, 0, ½ and three −1, 0, 1; the first digit counts ones.
    expected = [[-1, -1], [0.5, 1], [0, 0], [0.5, -1]]
    np.testing.assert_array_equal(quantized.values[:, 0, 0], np.float32(expected))
    np.testing.assert_array_equal(quantized.codes.ravel(), [0, 11, 6, 3])
    table = quantizer.lookup(jnp.arange(12))
    assert len(np.unique(table, axis=0)) == 12
    grid = np.linspace(-4, 4, 200, dtype=np.float32)
    both = np.stack(np.meshgrid(grid, grid), axis=-1)[None]
    assert len(np.unique(quantizer(both).codes)) == 12


def test_the_gradient_of_fsq_is_that_of_its_bound():
    quantizer = make(name="fsq", levels=(5,))
    gradient = jax.grad(lambda z: quantizer(z).values.sum())(jnp.full((1, 1, 1, 1), 0.3))
    np.testing.assert_allclose(gradient.item(), 0.999 * (1 - np.tanh(0.3) ** 2), rtol=1e-5)


def residuals_by_numpy(bounded, levels, depth):
    """Returns codes and their sum by the definition: round, subtract, scale up, again."""
    levels = np.array(levels)
    residual, codes, total = bounded.astype(np.float64), [], 0.0
    for i in range(depth):
        cell = np.floor(levels * (residual * 1.0 * levels**i + 1) / 2).clip(0, levels - 1)
        value = ((2 * cell + 1) / levels - 1) / levels**i
        residual, total = residual - value, total + value
        assert np.abs(residual).max() <= np.max(1 / levels ** (i + 1)) + 1e-6
        codes.append(sum(cell[..., d] * np.prod(levels[:d]) for d in range(len(levels))))
    return np.stack(codes, axis=-1), total


def test_stages_round_the_scaled_residual_of_those_before():
    quantizer = make(name="residual_fsq", levels=LEVELS, num_quantizers=3)
    assert (quantizer.num_codes, quantizer.shape) == (80, (3,))
    z = ENCODINGS[..., :3]
    quantized = quantizer(z)
    codes, total = residuals_by_numpy(np.asarray(jnp.tanh(z)), LEVELS, 3)
    np.testing.assert_array_equal(quantized.codes, codes)
    np.testing.assert_allclose(quantized.values, total, atol=1e-6)
    error = np.abs(quantized.values - np.tanh(z)).max(axis=(0, 1, 2))
    assert np.all(error <= 1 / np.array(LEVELS) ** 3 + 1e-6)
    assert np.all(error[:2] > 0.8 / np.array(LEVELS[:2]) ** 3)  # and no finer than it says
    np.testing.assert_array_equal(quantizer.lookup(quantized.codes), quantized.values)


def test_every_row_of_codes_has_a_sum_of_its_own_within_the_bound():
    quantizer = make(name="residual_fsq", levels=(4, 3), num_quantizers=2)
    rows = np.array(list(itertools.product(range(12), repeat=2)), np.int32)
    table = np.asarray(quantizer.lookup(rows))
    assert len(np.unique(table, axis=0)) == 144
    np.testing.assert_allclose(table.max(axis=0), [15 / 16, 8 / 9], rtol=1e-6)
    np.testing.assert_allclose(table.min(axis=0), [-15 / 16, -8 / 9], rtol=1e-6)
    # Every cell is reached, and its centre has the cell's codes again.
    centres = np.arctanh(table).reshape(1, 12, 12, 2)
    np.testing.assert_array_equal(quantizer(centres).codes.reshape(-1, 2), rows)
    far = np.float32([[-50, -50], [50, 50]])[:, None, None]
    np.testing.assert_array_equal(quantizer(far).codes[:, 0, 0], [[0, 0], [11, 11]])


def test_looking_codes_up_has_no_remainder_which_onnx_files_cannot_have():
    for name in ("fsq", "residual_fsq"):
        quantizer = make(name=name, levels=LEVELS, num_quantizers=3)
        program = jax.make_jaxpr(quantizer.lookup)(np.zeros((1, *quantizer.shape), np.int32))
        assert " div " in str(program) and " rem " not in str(program)


def test_neighbours_differ_at_the_finest_scale_and_without_a_number_a_code_is_valid():
    quantizer = make(name="residual_fsq", levels=(2,), num_quantizers=23)
    last = (2**23 - 1 - np.arange(64))[:, None] >> np.arange(23)[::-1] & 1
    values = np.asarray(quantizer.lookup(last.astype(np.int32)))[:, 0]
    np.testing.assert_array_equal(values, 1 - (2 * np.arange(64) + 1) / 2.0**23)
    codes = np.asarray(quantizer(np.full((1, 1, 1, 1), np.nan, np.float32)).codes)
    assert set(codes.ravel()) <= {0, 1}


def test_the_gradient_of_the_stages_is_that_of_one_tanh():
    quantizer = make(name="residual_fsq", levels=LEVELS, num_quantizers=3)
    z = ENCODINGS[..., :3]
    gradient = jax.grad(lambda z: quantizer(z).values.sum())(z)
    np.testing.assert_allclose(gradient, 1 - np.tanh(z) ** 2, rtol=1e-4, atol=1e-6)


def test_each_stage_counts_its_codes_without_padding():
    quantizer = make(name="residual_fsq", levels=LEVELS, num_quantizers=3)
    quantized = quantizer(ENCODINGS[..., :3])
    mask = np.float32([1] * 5 + [0] * 3)
    counts = quantizer.statistics(quantized, EXAMPLES | {"mask": mask}, jnp.int32(0))["counts"]
    for i in range(3):
        expected = np.bincount(np.asarray(quantized.codes)[:5, ..., i].ravel(), minlength=80)
        np.testing.assert_array_equal(counts[i], expected)
    assert counts.sum() == 3 * 5 * SIDE**2
