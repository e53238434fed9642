"""Multiplications and additions of a traced program: its matrix products and convolutions.

The traced program (a jaxpr) is counted, because compilers count differently and some not at all.
Values are numbered by the operation and the inputs that make them. So, as after compiling, a value
that is computed twice counts once, and a value that nothing reads does not count. If the code
depends on the platform, only the branch of that platform counts. A scan's body counts once per
iteration, the body of a while loop once. Element-wise work is left out, because memory bounds it.
"""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np

# Operations that only run another program, and the parameter that holds that program.
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
    """Returns {dtype of the operands: operations}; a multiply-add counts as two operations.

    Args:
        jaxpr: the program of a traced function (`jax.jit(f).trace(…).jaxpr`). Inside `shard_map`
            the shapes, and so the operations, are those of one device.
        platform: cpu, cuda or tpu.
    """
    return dict(_count(jaxpr, platform))


def _count(jaxpr: Any, platform: str) -> Counter:
    values, jaxpr = _Values(platform), getattr(jaxpr, "jaxpr", jaxpr)  # a closed jaxpr holds one
    waiting = values.call(jaxpr, [values.new() for _ in jaxpr.invars])
    total: Counter = Counter()
    seen = set()
    # From the results backwards: an operation that no result depends on is never reached.
    while waiting:
        number = waiting.pop()[0]
        if number not in seen:
            seen.add(number)
            waiting += values.inputs.get(number, [])
            total.update(values.work.get(number, {}))
    return total


class _Values:
    """The values of one program; a value is (number of its operation, index among its results)."""

    def __init__(self, platform: str) -> None:
        self.platform = platform
        self.numbers = itertools.count()
        self.known: dict[Any, int] = {}  # (name, inputs, parameters) → number of the operation
        self.inputs: dict[int, list] = {}  # number → the values that the operation reads
        self.work: dict[int, Counter] = {}  # number → what it costs, as `count` returns it

    def new(self) -> tuple[int, int]:
        """Returns a value that equals no other."""
        return next(self.numbers), 0

    def call(self, jaxpr: Any, arguments: list) -> list:
        """Returns the values of a program's results, given those of its arguments."""
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        variables = dict(zip(jaxpr.invars, arguments, strict=True))
        variables |= {variable: self.new() for variable in jaxpr.constvars}

        # Equal literals are one value, so that an operation on them is recognised when it recurs.
        def value(atom):
            return (f"{atom} {atom.aval}", 0) if hasattr(atom, "val") else variables[atom]

        for equation in jaxpr.eqns:
            results = self.results(equation, [value(atom) for atom in equation.invars])
            variables |= zip(equation.outvars, results, strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, arguments: list) -> list:
        """Returns the values of an operation's results, and notes what it reads and costs."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.call(params[CALLS[name]], arguments)
        if places := params.get("branches_platforms"):
            # The first argument is the platform's number, which chooses the branch at run time.
            fitting = [place is None or self.platform in place for place in places]
            return self.call(params["branches"][fitting.index(True)], arguments[1:])
        # An operation that holds programs, such as a loop, is always new: equal loops count twice.
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
    """Returns what an operation costs; `inner` has the costs of the programs that it runs."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return max(inner, key=Counter.total)
    times = params.get("length", 1) if name == "scan" else 1
    total = Counter({key: times * number for each in inner for key, number in each.items()})
    if name in COSTS:
        total[str(equation.invars[0].aval.dtype)] += COSTS[name](equation)
    return total


def _product(equation: Any) -> int:
    """Counts two operations for each element of the result and each contracted element."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(result) * math.prod(left[dim] for dim in contracted)


def _convolution(equation: Any) -> int:
    """Counts products with elements of the image, not with padding or dilation's zeros."""
    params, spec = equation.params, equation.params["dimension_numbers"]
    image, kernel = (variable.aval.shape for variable in equation.invars)
    result = equation.outvars[0].aval.shape
    # Along each axis: the pairs of an output position and a kernel element that meet the image.
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
