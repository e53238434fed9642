import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline import convolutions

PAIRS = {
    "down": (convolutions.Conv, nnx.Conv),
    "up": (convolutions.ConvTranspose, nnx.ConvTranspose),
}


@pytest.mark.parametrize("direction", PAIRS)
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 8), (8, 3), (8, 16)])
def test_values_and_gradients_equal_flax(direction, kernel, stride, inputs, outputs):
    ours, theirs = PAIRS[direction]
    one = ours(inputs, outputs, kernel_size=kernel, stride=stride, rngs=nnx.Rngs(0))
    other = theirs(
        inputs,
        outputs,
        (kernel, kernel),
        strides=(stride, stride),
        padding="SAME",
        rngs=nnx.Rngs(0),
    )
    graph_one, params = nnx.split(one)
    graph_other, expected_params = nnx.split(other)
    params, expected_params = nnx.as_pure(params), nnx.as_pure(expected_params)
    assert jax.tree.map(jnp.shape, dict(params)) == jax.tree.map(jnp.shape, dict(expected_params))
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, inputs))

    def value(graph):
        return lambda x, params: jnp.sum(jnp.sin(nnx.merge(graph, params)(x)))

    actual = jax.jit(jax.value_and_grad(value(graph_one), argnums=(0, 1)))(x, params)
    expected = jax.jit(jax.value_and_grad(value(graph_other), argnums=(0, 1)))(x, params)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)
