"""Every form equals XLA's plain one, and the modules equal Flax's except in speed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from pipeline.mesh import compiling
from pipeline.nn import convolutions, looped_convolutions

FUNCTIONS = {
    "down": (convolutions.conv, lax.conv_general_dilated),
    "up": (convolutions.conv_transpose, lax.conv_transpose),
}
MODULES = {
    "down": (convolutions.Conv, nnx.Conv),
    "up": (convolutions.ConvTranspose, nnx.ConvTranspose),
}


def forms(direction, stride):
    ours, xlas = FUNCTIONS[direction]
    layout = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return (
        functools.partial(ours, stride=stride),
        lambda x, k: xlas(x, k, strides, "SAME", dimension_numbers=layout),
    )


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def value_and_gradients(form, x, kernel):
    """Returns the output, and the gradients for a cotangent that is the same for every form."""
    y, pullback = jax.vjp(form, x, kernel)
    return y, *pullback(normal(2, *y.shape).astype(y.dtype))


def assert_close(actual, desired, tolerance):
    """Compares on the scale of the largest value, on which the rounding of sums depends."""
    for a, b in zip(actual, desired, strict=True):
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0.0, atol=tolerance * np.abs(b).max())


def assert_fast(text):
    """Checks that a compiled program has convolutions, and all of them in the order for loops."""
    assert set(re.findall(r"dim_labels=(\w+->\w+)", text)) == {"b01f_01io->b01f"}


@pytest.mark.parametrize(
    ("size", "channels"),
    [((2, 6, 10), (3, 6)), ((9, 6, 10), (6, 3)), ((2, 5, 8), (3, 6))],
    ids=["from few channels", "to few channels, more examples", "odd height"],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_values_and_gradients_are_those_of_xlas_form(
    direction, kernel_size, stride, channels, size
):
    x, kernel = normal(0, *size, channels[0]), normal(1, kernel_size, kernel_size, *channels)
    ours, xlas = (
        jax.jit(functools.partial(value_and_gradients, form))(x, kernel)
        for form in forms(direction, stride)
    )
    # A gradient of K adds up 2,160 products, in an order that depends on the processor.
    assert_close(ours, xlas, 2e-6)


@pytest.mark.parametrize(("kernel_size", "stride"), [(5, 2), (4, 3), (5, 3), (7, 4)])
@pytest.mark.parametrize("batch", [2, 8])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_strides_that_do_not_divide_the_kernel(direction, batch, kernel_size, stride):
    x, kernel = normal(0, batch, 12, 24, 5), normal(1, kernel_size, kernel_size, 5, 6)
    ours, xlas = (
        jax.jit(functools.partial(value_and_gradients, form))(x, kernel)
        for form in forms(direction, stride)
    )
    assert_close(ours, xlas, 4e-6)


@pytest.mark.parametrize("batch", [2, 31, 32, 35])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_kernel_gradients_of_quarters_add_up(direction, batch, monkeypatch):
    monkeypatch.setattr(convolutions, "LARGE", 0)
    x, kernel = normal(0, batch, 6, 10, 5), normal(1, 4, 4, 5, 6)
    ours, xlas = (jax.jit(functools.partial(value_and_gradients, f)) for f in forms(direction, 2))
    assert_close(ours(x, kernel), xlas(x, kernel), 4e-6)
    convolved = ours.lower(x, kernel).as_text("hlo").count(" convolution(")
    quarters = 4 if batch >= 32 else 1  # of at least 8 examples
    assert convolved == 2 + quarters  # besides the value and the input gradient


SHAPES = [
    # kernel, stride, height and width
    (3, 1, (5, 7)),
    (4, 2, (6, 10)),
    (3, 2, (5, 8)),
    (5, 3, (7, 10)),
]


def looped(form):
    """Returns the function that maps `value_and_gradients` over many x, as a program."""
    over = lambda xs, k: lax.map(lambda x: value_and_gradients(form, x, k), xs)  # noqa: E731
    return compiling.jit(over)


def assert_equal_to_one_by_one(program, form, xs, kernel, tolerance):
    one = jax.jit(functools.partial(value_and_gradients, form))
    exact = [one(x.astype(np.float32), kernel.astype(np.float32)) for x in xs]
    for actual, desired in zip(program(xs, kernel), zip(*exact, strict=True), strict=True):
        assert actual.dtype == xs.dtype
        assert_close(actual, desired, tolerance)


# Inside a loop XLA's CPU compiler takes convolutions in any other order of dimensions on a path
# that is up to 50 times as slow.
@pytest.mark.parametrize("batch", [4, 8])
@pytest.mark.parametrize(("kernel_size", "stride", "size"), SHAPES, ids=str)
@pytest.mark.parametrize("direction", ["down", "up"])
def test_in_a_loop_gradients_are_right_and_in_the_order_that_is_fast(
    direction, kernel_size, stride, size, batch
):
    xs, kernel = normal(0, 3, batch, *size, 6), normal(1, kernel_size, kernel_size, 6, 5)
    ours, xlas = forms(direction, stride)
    assert_fast(looped(ours).lower(xs, kernel).compile().as_text())
    assert_equal_to_one_by_one(looped(ours), xlas, xs, kernel, 1e-6)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_in_a_loop_bfloat16_is_rounded_float32(direction):
    xs, kernel = normal(0, 3, 4, 5, 8, 6), normal(1, 3, 3, 6, 5)
    xs, kernel = xs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    ours, xlas = forms(direction, 2)
    assert_equal_to_one_by_one(looped(ours), xlas, xs, kernel, 2.0**-7)


@pytest.mark.parametrize("size", [(1, 3), (2, 5), (3, 1)], ids=str)
def test_in_a_loop_an_unpadded_convolution_is_right_and_fast(size):
    xs, kernel = normal(0, 3, 4, 6, 7, 6), normal(1, *size, 6, 5)
    ours, xlas = looped_convolutions.valid, functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=looped_convolutions.ORDER,
    )  # fmt: skip
    assert_fast(looped(ours).lower(xs, kernel).compile().as_text())
    assert_equal_to_one_by_one(looped(ours), xlas, xs, kernel, 1e-6)
    with pytest.raises(AssertionError):
        assert_fast(looped(xlas).lower(xs, kernel).compile().as_text())


@pytest.mark.parametrize("direction", ["down", "up"])
def test_convolutions_on_cpus_are_xlas_own(direction):
    x, kernel = normal(0, 64, 16, 16, 32), normal(1, 4, 4, 32, 32)
    program = compiling.jit(functools.partial(value_and_gradients, forms(direction, 2)[0]))
    text = program.lower(x, kernel).compile().as_text()
    calls = [line for line in text.splitlines() if " convolution(" in line]
    assert calls and "ynn" not in text, calls


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_a_biass_gradient_is_the_float32_sum_rounded_once(dtype):
    y, bias = normal(0, 4, 16, 16, 5).astype(dtype), normal(1, 5).astype(dtype)
    actual = jax.jit(functools.partial(value_and_gradients, convolutions.add_bias))(y, bias)
    assert all(a.dtype == dtype for a in actual)
    cotangent = np.asarray(normal(2, *y.shape).astype(dtype), np.float32)
    exact = (y + bias, cotangent, cotangent.sum((0, 1, 2)))
    assert_close(actual, exact, float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("channels", [(1, 32), (32, 3), (32, 32)], ids=str)
@pytest.mark.parametrize("direction", ["down", "up"])
def test_bfloat16_is_rounded_float32(direction, channels):
    x, kernel = normal(0, 4, 16, 16, channels[0]), normal(1, 4, 4, *channels)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    ours, xlas = forms(direction, 2)
    actual = jax.jit(functools.partial(value_and_gradients, ours))(x, kernel)
    assert all(a.dtype == jnp.bfloat16 for a in actual)
    exact = jax.jit(functools.partial(value_and_gradients, xlas))(
        x.astype(jnp.float32), kernel.astype(jnp.float32)
    )
    assert_close(actual, exact, 2.0**-8)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_gradients_of_gradients_are_those_of_xlas_form(direction):
    x, kernel = normal(0, 2, 4, 4, 6), normal(1, 4, 4, 6, 5)

    def penalty(form, x, kernel):
        return jnp.sum(jax.grad(lambda x: jnp.sum(form(x, kernel) ** 3))(x) ** 2)

    ours, xlas = (
        jax.jit(jax.grad(functools.partial(penalty, form), (0, 1)))(x, kernel)
        for form in forms(direction, 2)
    )
    assert_close(ours, xlas, 1e-5)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_program_holds_only_its_platforms_form(direction, platform):
    form, xlas = forms(direction, 2)
    arguments = normal(0, 2, 8, 8, 6), normal(1, 4, 4, 6, 5)

    def dilated_convolutions(form):
        program = jax.jit(functools.partial(value_and_gradients, form)).trace(*arguments)
        text = program.lower(lowering_platforms=(platform,)).as_text()
        return text.count("lhs_dilate = [2, 2]")

    assert dilated_convolutions(xlas) > 0
    assert dilated_convolutions(form) == (0 if platform == "cpu" else dilated_convolutions(xlas))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("channels", [(3, 6), (6, 5)], ids=str)
@pytest.mark.parametrize("direction", ["down", "up"])
def test_gradients_over_eight_devices_are_those_of_one(direction, channels, check_vma):
    x, kernel = normal(0, 16, 8, 8, channels[0]), normal(1, 4, 4, *channels)
    form, _ = forms(direction, 2)
    gradient = jax.grad(lambda x, k: jnp.sum(form(x, k) ** 2), (0, 1))

    def local_gradient(x, kernel):
        dx, dk = gradient(x, kernel)
        # With check_vma, JAX has already summed the gradient of values that all devices share.
        return dx, dk if check_vma else lax.psum(dk, "data")

    mesh = jax.make_mesh(
        (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:8]
    )
    specs = {"in_specs": (P("data"), P()), "out_specs": (P("data"), P())}
    sharded = jax.jit(jax.shard_map(local_gradient, mesh=mesh, check_vma=check_vma, **specs))
    assert_close(sharded(x, kernel), jax.jit(gradient)(x, kernel), 1e-6)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_scan_differentiates(direction):
    x, kernel = normal(0, 3, 2, 4, 4, 6), normal(1, 4, 4, 6, 5)
    form, _ = forms(direction, 2)

    def loss(kernel, over):
        return jnp.sum(over(lambda x: jnp.sum(form(x, kernel) ** 2), x))

    scanned = jax.jit(jax.grad(lambda k: loss(k, lax.map)))(kernel)
    unrolled = jax.jit(jax.grad(lambda k: loss(k, lambda f, x: jnp.stack([f(a) for a in x]))))(
        kernel
    )
    assert_close([scanned], [unrolled], 1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (2, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_module_is_flaxs_module_with_its_parameters(direction, kernel_size, stride, dtype):
    ours, flaxs = MODULES[direction]
    ours = ours(3, 6, kernel_size=kernel_size, stride=stride, dtype=dtype, rngs=nnx.Rngs(0))
    flaxs = flaxs(3, 6, (kernel_size, kernel_size), (stride, stride), dtype=dtype, rngs=nnx.Rngs(0))
    for module in (ours, flaxs):
        module.bias[...] = jnp.asarray(normal(3, 6))
    parameters, flax_parameters = (
        dict(nnx.to_flat_state(nnx.state(m, nnx.Param))) for m in (ours, flaxs)
    )
    assert parameters.keys() == flax_parameters.keys() == {("kernel",), ("bias",)}
    for path, parameter in parameters.items():
        assert parameter.dtype == jnp.float32
        np.testing.assert_array_equal(parameter[...], flax_parameters[path][...])
    x = normal(0, 2, 8, 8, 3)
    y = ours(x)
    assert y.dtype == dtype
    assert_close([y], [flaxs(x)], 1e-6 if dtype == jnp.float32 else 2.0**-7)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_parameters_and_their_gradients_stay_float32_under_bfloat16(direction):
    module = MODULES[direction][0](3, 6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, parameters = nnx.split(module, nnx.Param)
    x = normal(0, 2, 8, 8, 3)
    gradients = jax.grad(lambda p: nnx.merge(graph, p)(x).astype(jnp.float32).sum())(
        nnx.as_pure(parameters)
    )
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(gradients))


def test_a_shape_is_known_without_computing():
    def model(x):
        small = convolutions.Conv(3, 32, rngs=nnx.Rngs(0))(x)
        return small, convolutions.ConvTranspose(32, 3, rngs=nnx.Rngs(0))(small)

    small, image = nnx.eval_shape(model, jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32))
    assert (small.shape, image.shape) == ((2, 32, 24, 32), (2, 64, 48, 3))
