"""Parts of a model with rates and betas of their own, such as a discriminator.

A model's config may add two sections to `config.optimizer`: `own_rates`, learning rates by the name
of a part, and `own_betas`, pairs of Adam's b1 and b2. A part is every module of that name, however
deep it lies in the model. Own rates follow the warm-up and the decay of `learning_rate`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from pipeline.mesh import flat_buffers, layouts
from pipeline.runtime import errors

OTHERS = "others"  # all parameters outside of these parts


def own_rates(config: Any) -> dict[str, float]:
    """Returns the rates of parts that have their own, which 0 does not mean.

    Args:
        config: the section `optimizer`, as in all functions of this module.
    """
    return {name: rate for name, rate in dict(config.get("own_rates", {})).items() if rate != 0}


def own_betas(config: Any) -> dict[str, tuple[float, float]]:
    """Returns b1 and b2 of parts that have their own, which () does not mean."""
    own = dict(config.get("own_betas", {}))
    return {name: tuple(pair) for name, pair in own.items() if len(pair)}


def names(config: Any) -> tuple[str, ...]:
    """Returns the parts that have something of their own."""
    return tuple(sorted({*own_rates(config), *own_betas(config)}))


def check(config: Any) -> None:
    """Raises an InputError if a number of a part is out of its range."""
    for name, own in own_rates(config).items():
        if not (math.isfinite(own) and own > 0):
            raise errors.InputError(
                f"config.optimizer.own_rates.{name}={own} must be positive, or 0 to leave it"
            )
    for name, pair in own_betas(config).items():
        if len(pair) != 2 or not all(isinstance(b, int | float) and 0 <= b < 1 for b in pair):
            raise errors.InputError(
                f"config.optimizer.own_betas.{name}={pair} must be two numbers in [0, 1), b1 and b2"
            )


def check_model(config: Any, params: Any) -> None:
    """Raises an InputError if a part is none of the model's."""
    modules = {key for path, _ in jax.tree.leaves_with_path(params) for key in _keys(path)}
    for section, own, none in (
        ("own_rates", own_rates(config), 0),
        ("own_betas", own_betas(config), ()),
    ):
        for name in sorted(own.keys() - modules):
            # Numbers are places in lists of layers.
            known = ", ".join(sorted(key for key in modules if not key.isdigit()))
            raise errors.InputError(
                f"config.optimizer.{section}.{name}={own[name]}: this model has no part of that "
                f"name, only {known}: set it to {none}"
            )


def scaled(config: Any) -> optax.GradientTransformation:
    """Multiplies the updates of each part by its own rate over that of the others.

    Adam's updates do not depend on the gradient's scale, so they are scaled after it.
    """
    factors = {name: own / config.learning_rate for name, own in own_rates(config).items()}

    def update(updates, params):
        del params
        return jax.tree.map(jnp.multiply, updates, by_part(updates, factors, 1.0))

    return optax.stateless(update)


def adam(config: Any) -> optax.GradientTransformation:
    """Scales as `optax.scale_by_adam` does and with its state, with `own_betas` of each part."""
    if not own_betas(config):
        return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    betas = {**own_betas(config), OTHERS: (config.b1, config.b2)}

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        debias = lambda b: 1 - jnp.float32(b) ** count  # noqa: E731
        # A power that is merged with the arrays' update may be rounded in another way there.
        debiasing = lax.optimization_barrier(jax.tree.map(debias, betas))

        def of(numbers, which):
            own = {name: pair[which] for name, pair in numbers.items()}
            return by_part(updates, own, own.pop(OTHERS))

        mean = lambda b, old, new: b * old + (1 - b) * new  # noqa: E731
        mu = jax.tree.map(mean, of(betas, 0), state.mu, updates)
        nu = jax.tree.map(mean, of(betas, 1), state.nu, jax.tree.map(jnp.square, updates))
        direction = lambda m, v, c, d: (m / c) / (jnp.sqrt(v / d) + config.eps)  # noqa: E731
        directions = jax.tree.map(direction, mu, nu, of(debiasing, 0), of(debiasing, 1))
        return directions, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def squares(config: Any) -> Callable[[Any], dict[str, Array]]:
    """Returns a function of gradients: the sums of their squares, whose roots are norms to log.

    It takes a tree, or a piece of a flat buffer. `grad_norm` is of all; with parts there are also
    `grad_norm_<part>` of each, and `grad_norm_others`.
    """
    own = names(config)

    def of(gradients):
        found = {"grad_norm": _dot(gradients, gradients)}
        for name in (*own, OTHERS) if own else ():
            inside = {other: float(other == name) for other in own}
            chosen = by_part(gradients, inside, float(name == OTHERS))
            # Not a product: of a gradient that is not finite, 0 times it is not finite either.
            masked = jax.tree.map(lambda g, c: jnp.where(c > 0, g, 0), gradients, chosen)
            found[f"grad_norm_{name}"] = _dot(masked, masked)
        return found

    return of


def by_part(tree: Any, own: dict[str, float], others: float) -> Any:
    """Returns for each array its part's number, as a tree of the same form.

    In place of a piece of a flat buffer, it returns one that has a number for each value.

    Args:
        tree: of arrays, or a piece of a flat buffer; call this inside `shard_map` then.
        own: the numbers of parts.
        others: that of all other arrays.
    """

    def numbers(tree):
        of = lambda path, leaf: next((own[k] for k in _keys(path) if k in own), others)  # noqa: E731
        return jax.tree.map_with_path(of, tree)

    if not layouts.is_flat(tree):
        return numbers(tree)
    return dataclasses.replace(tree, values=flat_buffers.of_leaves(tree, numbers))


def _dot(a: Any, b: Any) -> Array:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), jnp.float32(0.0))


def _keys(path: Any) -> list[str]:
    """Returns the names of what may be a part: an attribute of the model, and modules below it."""
    return [jax.tree_util.keystr((key,), simple=True) for key in path[: max(1, len(path) - 1)]]
