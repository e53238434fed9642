"""Functions of an export as files of ONNX, by the converter jax2onnx (extra `onnx`).

Every file is run by onnxruntime and compared with JAX before it counts: the converter accepts some
programs that it translates wrongly.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax import lax

from pipeline.outputs.exporting import functions
from pipeline.runtime import errors

PACKAGES = ("jax2onnx", "onnxruntime")
OPSET = 21  # of onnx 1.16
NUM = 3  # examples that are compared
TOLERANCE = 1e-4  # of values in [0, 1] and of standard deviations; rounding is below 1e-5
OTHER_CODES = 0.01  # share of codes
LOGGERS = ("jax2onnx", "onnx_ir")


def check_installed() -> None:
    """Raises an InputError that says how to install the packages, if one is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.InputError(
            f"--onnx needs {' and '.join(missing)}: pip install 'vae-pipeline[onnx]', or make "
            "setup EXTRAS=onnx"
        )


def convert(
    model: Any, converted: Sequence[functions.Function]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Returns files by name of the function, and for the others why there is none.

    Args:
        model: the `trained.TrainedModel` whose arrays the files hold.
        converted: the functions.
    """
    arrays = functions.arrays(model, converted)
    files, refused = {}, {}
    for function in converted:
        try:
            files[function.name] = _converted(function, arrays)
        # The converter raises errors of many kinds, and all mean that it cannot.
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            refused[function.name] = text if len(text) < 160 else f"{text[:160]} …"
    return files, refused


def _converted(function: functions.Function, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the file of one function.

    Raises:
        Exception: it cannot be converted, or the file computes something else.
    """
    # A traced look-up needs arrays of JAX.
    held = {name: jax.numpy.asarray(values) for name, values in arrays.items()}

    def call(*rows: Any) -> Any:
        return function.call(held, *rows)

    given = [_rows(one) for one in function.inputs]
    wanted = jax.tree.leaves(jax.jit(call)(*given))
    specs = [
        jax.ShapeDtypeStruct(("n", *one.shape), np.dtype(one.dtype)) for one in function.inputs
    ]
    with _quiet(), mock.patch.object(lax, "platform_dependent", _on_cpu):
        import jax2onnx

        model = jax2onnx.to_onnx(
            call,
            specs,
            model_name=function.name,
            opset=OPSET,
            input_names=[one.name for one in function.inputs],
            output_names=[one.name for one in function.outputs],
        )
    content = model.SerializeToString()
    _compare(content, function, given, wanted)
    return content


def _compare(
    content: bytes, function: functions.Function, given: list[np.ndarray], wanted: list[Any]
) -> None:
    """Raises a ValueError if onnxruntime computes something else of the same arguments."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in function.inputs]
    found = session.run(None, dict(zip(names, given, strict=True)))
    for entry, one, other in zip(function.outputs, found, wanted, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"its {entry.name} would have the shape {list(one.shape)}")
        far, limit = np.abs(np.float64(one) - np.float64(other)).max(), TOLERANCE
        if one.dtype.kind == "i":  # rounding may decide between two near codes
            far, limit = np.mean(one != other), OTHER_CODES
        if not far <= limit:
            raise ValueError(f"its {entry.name} would be off by {far:.2g}")


def _rows(entry: functions.Entry) -> np.ndarray:
    """Returns arguments for `NUM` examples."""
    random, shape = np.random.default_rng(0), (NUM, *entry.shape)
    if entry.dtype == "float32":
        return random.random(shape, np.float32)
    return random.integers(0, 2, shape).astype(entry.dtype)


def _on_cpu(*given: Any, default: Callable[..., Any], **branches: Callable[..., Any]) -> Any:
    """Stands for `lax.platform_dependent`: its choice among platforms is no operator of ONNX.

    The forms for CPUs also need no transposed convolution, which the converter gets wrong.
    """
    return branches.get("cpu", default)(*given)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back warnings of the converter: of plugins that it skips, and of unknown types."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
