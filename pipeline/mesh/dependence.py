"""What the results of a function depend on, read off its traced program without running it."""

from collections.abc import Callable
from typing import Any

import jax


def inputs_read(function: Callable, *args: Any) -> list[bool]:
    """Returns for each leaf of `args` whether the result of `function` can depend on it.

    Walks the traced program backwards from its results. It assumes that an operation reads all of
    its inputs, so False is certain and True is not.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    live = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    return [id(var) in live for var in jaxpr.invars]
