"""The operations of a traced program equal counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from pipeline.mesh import sharding
from pipeline.nn import convolutions
from pipeline.performance import flops

# A 4×4 kernel of stride 2 on 8×8 pixels, padded by one: along each axis the four places read
# 3 + 4 + 4 + 3 pixels.
TAPS = (3 + 4 + 4 + 3) ** 2
IMAGES, KERNEL = jnp.ones((5, 8, 8, 3)), jnp.ones((4, 4, 3, 7))
SMALL = jnp.ones((5, 4, 4, 7))


def count(function, *arguments, platform="cuda"):
    return flops.count(jax.jit(function).trace(*arguments).jaxpr, platform)


def conv(images, kernel):
    return convolutions.conv(images, kernel, stride=2)


def test_a_product_has_two_operations_for_each_pair():
    left, right = jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7), jnp.bfloat16)
    assert count(lambda a, b: a @ b, left, left.mT) == {"float32": 2 * 2 * 3 * 5 * 3}
    assert count(lambda a: a @ right, right.mT) == {"bfloat16": 2 * 2 * 7 * 5 * 7}


def test_a_convolution_counts_neither_its_padding_nor_the_zeros_of_its_dilation():
    each = 2 * 5 * TAPS * 3 * 7
    assert count(conv, IMAGES, KERNEL) == {"float32": each}
    up = lambda images, kernel: convolutions.conv_transpose(images, kernel, stride=2)  # noqa: E731
    assert count(up, SMALL, KERNEL.swapaxes(2, 3)) == {"float32": each}
    gradients = jax.grad(lambda *arguments: conv(*arguments).sum() ** 2, argnums=(0, 1))
    assert count(gradients, IMAGES, KERNEL) == {"float32": 3 * each}


def test_the_form_of_the_platform_counts():
    # On CPUs this is a matrix product of whole blocks of pixels, which padding fills: 4 × 4 places.
    assert count(conv, IMAGES, KERNEL, platform="cpu") == {"float32": 2 * 5 * 16 * 16 * 3 * 7}
    assert count(conv, IMAGES, KERNEL, platform="tpu") == count(conv, IMAGES, KERNEL)


def test_what_is_computed_twice_counts_once_and_what_nothing_reads_not_at_all():
    square = jnp.ones((4, 4))
    assert count(lambda a: (a @ a) + jax.nn.relu(a @ a), square) == {"float32": 2 * 4**3}
    assert count(lambda a: [a @ a, a @ a.T][0], square) == {"float32": 2 * 4**3}
    assert count(lambda a: a + 1, square) == {}


def test_a_scan_counts_every_step_and_a_condition_its_dearest_branch():
    square = jnp.ones((4, 4))
    looped = lambda a: lax.scan(lambda c, _: (c @ a, None), a, length=6)[0]  # noqa: E731
    assert count(looped, square) == {"float32": 6 * 2 * 4**3}
    chosen = lambda i, a: lax.cond(i > 0, lambda: a @ a @ a, lambda: a)  # noqa: E731
    assert count(chosen, 1, square) == {"float32": 2 * 2 * 4**3}


def test_inside_shard_map_the_operations_are_one_devices():
    mesh = sharding.make_mesh({"data": 2}, devices=jax.devices()[:2])
    spec = jax.sharding.PartitionSpec("data")
    half = jax.shard_map(lambda a: a @ a.T, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count(half, jnp.ones((8, 3))) == pytest.approx({"float32": 2 * 4 * 4 * 3})


def test_what_the_backward_pass_computes_again_counts_again():
    left, right = jnp.ones((3, 5)), jnp.ones((5, 7))
    product = lambda a, b: jnp.sin(a @ b).sum()  # noqa: E731
    counts = [
        count(jax.value_and_grad(function, argnums=(0, 1)), left, right)["float32"]
        for function in (product, jax.checkpoint(product))
    ]
    assert counts == [3 * 2 * 3 * 5 * 7, 4 * 2 * 3 * 5 * 7]
