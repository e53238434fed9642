"""Multiplications and additions of a traced program: its matrix products and convolutions.

Counted in the traced program (a jaxpr): compilers differ in what they say, and some say nothing.
The decision: values are numbered by the operation and the inputs that make them, so that what is
computed twice counts once and what nothing reads not at all, as after compiling. Where the code
depends on the platform, the platform's form counts; a scan's body counts once a step, that of a
while loop once. Element-wise work is left out: memory bounds it.
"""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np

# Operations that do nothing but run another program, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "shard_map": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def count(jaxpr: Any, platform: str) -> dict[str, float]:
    """Returns the operations by the type of their operands; a multiplication and addition are two.

    Args:
        jaxpr: of a traced function (`jax.jit(f).trace(…).jaxpr`). Inside `shard_map` shapes, and so
            operations, are one device's.
        platform: cpu, cuda or tpu.
    """
    return dict(_count(jaxpr, platform))


def _count(jaxpr: Any, platform: str) -> Counter:
    values, jaxpr = _Values(platform), getattr(jaxpr, "jaxpr", jaxpr)  # of a closed one
    waiting = values.call(jaxpr, [values.new() for _ in jaxpr.invars])
    total: Counter = Counter()
    seen = set()
    while waiting:
        number = waiting.pop()[0]
        if number not in seen:
            seen.add(number)
            waiting += values.inputs.get(number, [])
            total.update(values.work.get(number, {}))
    return total


class _Values:
    """The values of one program: a value is its operation's number, and which result it is."""

    def __init__(self, platform: str) -> None:
        self.platform = platform
        self.numbers = itertools.count()
        self.known: dict[Any, int] = {}  # operation and inputs → its number
        self.inputs: dict[int, list] = {}
        self.work: dict[int, Counter] = {}

    def new(self) -> tuple[int, int]:
        """Returns a value unlike all others."""
        return next(self.numbers), 0

    def call(self, jaxpr: Any, arguments: list) -> list:
        """Returns the values of a program's results."""
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        variables = dict(zip(jaxpr.invars, arguments, strict=True))
        variables |= {variable: self.new() for variable in jaxpr.constvars}

        def value(atom):
            return (f"{atom} {atom.aval}", 0) if hasattr(atom, "val") else variables[atom]

        for equation in jaxpr.eqns:
            results = self.results(equation, [value(atom) for atom in equation.invars])
            variables |= zip(equation.outvars, results, strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, arguments: list) -> list:
        """Returns the values of an operation's results."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.call(params[CALLS[name]], arguments)
        if places := params.get("branches_platforms"):
            fitting = [place is None or self.platform in place for place in places]
            return self.call(params["branches"][fitting.index(True)], arguments[1:])
        programs = _programs(params)
        key = (name, *arguments, next(self.numbers) if programs else str(params))
        if key not in self.known:
            number = self.known[key] = next(self.numbers)
            self.inputs[number] = arguments
            self.work[number] = _work(equation, [_count(each, self.platform) for each in programs])
        return [(self.known[key], index) for index in range(len(equation.outvars))]


def _programs(params: dict[str, Any]) -> list:
    """Returns the programs among an operation's parameters."""
    values = ((each,) if not isinstance(each, tuple | list) else each for each in params.values())
    return [each for each in itertools.chain(*values) if hasattr(each, "eqns")]


def _work(equation: Any, inner: list[Counter]) -> Counter:
    """Returns what an operation costs, with the programs that it runs."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return max(inner, key=Counter.total)
    times = params.get("length", 1) if name == "scan" else 1
    total = Counter({key: times * number for each in inner for key, number in each.items()})
    if name in COSTS:
        total[str(equation.invars[0].aval.dtype)] += COSTS[name](equation)
    return total


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(result) * math.prod(left[dim] for dim in contracted)


def _convolution(equation: Any) -> int:
    """Counts products with elements of the image, not with padding nor dilation's zeros."""
    params, spec = equation.params, equation.params["dimension_numbers"]
    image, kernel = (variable.aval.shape for variable in equation.invars)
    result = equation.outvars[0].aval.shape
    pairs = 1
    for axis, stride in enumerate(params["window_strides"]):
        starts = stride * np.arange(result[spec.out_spec[2 + axis]]) - params["padding"][axis][0]
        offsets = params["rhs_dilation"][axis] * np.arange(kernel[spec.rhs_spec[2 + axis]])
        at, dilation = starts[:, None] + offsets, params["lhs_dilation"][axis]
        size = dilation * (image[spec.lhs_spec[2 + axis]] - 1) + 1
        pairs *= int(np.sum((at >= 0) & (at < size) & (at % dilation == 0)))
    batch = result[spec.out_spec[0]]
    return 2 * batch * kernel[spec.rhs_spec[0]] * kernel[spec.rhs_spec[1]] * pairs


COSTS = {"dot_general": _product, "conv_general_dilated": _convolution}
