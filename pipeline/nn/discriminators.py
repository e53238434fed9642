"""What discriminators share: their loss, their accuracy, and judging without learning."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax


def cross_entropy(of_true: Array, of_false: Array) -> Array:
    """Returns −½·(log D(x) + log(1 − D(x′))) of logits of any shape, in nats; at chance log 2."""
    return (jax.nn.softplus(-of_true) + jax.nn.softplus(of_false)) / 2


def accuracy(of_true: Array, of_false: Array) -> Array:
    """Returns the share of the two samples that is told right, float32, for logits of any shape."""
    return ((of_true > 0).astype(jnp.float32) + (of_false < 0)) / 2


def frozen(module: Any) -> Any:
    """Returns the module with parameters that get no gradient; its inputs still get theirs."""
    graphdef, state = nnx.split(module)
    return nnx.merge(graphdef, lax.stop_gradient(state))
