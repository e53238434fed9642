"""The 2048 features of the Fréchet inception distance (FID): Heusel et al. 2017 (arXiv:1706.08500).

The network is TensorFlow's Inception of 2015-12-05, as the package pytorch-fid has it: its average
pools leave padding out of the mean, and the last block takes a maximum instead of a mean. Weights
come from a file of the user, a safetensors file with the names of pytorch-fid's state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pipeline.nn import weights
from pipeline.runtime import errors

SIDE, NUM_FEATURES, EPSILON = 299, 2048, 1e-3  # pixels a side; of the output; of normalisations
MEAN, MAX, HALF = "mean of 3 × 3", "maximum of 3 × 3", "maximum of every second 3 × 3"
Weights = dict[str, tuple[Any, Any]]  # by layer: kernel [h, w, in, out] and bias [out]

# Branches of a block see the same input, and their outputs are joined. A branch is a chain of
# pools and layers. Layers keep the size, but those in SHRINK take only whole windows.
STEM = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", HALF),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", HALF),
)
A = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    (MEAN, "branch_pool"),
)
B = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), (HALF,))
C = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    tuple(f"branch7x7dbl_{k}" for k in range(1, 6)),
    (MEAN, "branch_pool"),
)
D = (
    ("branch3x3_1", "branch3x3_2"),
    ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
    (HALF,),
)
E = (
    ("branch1x1",),
    ("branch3x3_1", "branch3x3_2a"),
    ("branch3x3_1", "branch3x3_2b"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3b"),
    (MEAN, "branch_pool"),
)
LAST = (*E[:-1], (MAX, "branch_pool"))
BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), A),
    "Mixed_6a": B,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), C),
    "Mixed_7a": D,
    "Mixed_7b": E,
    "Mixed_7c": LAST,
}
SHRINK = {  # by their strides
    "Conv2d_1a_3x3": 2,
    **dict.fromkeys(("Conv2d_2a_3x3", "Conv2d_4a_3x3"), 1),
    **dict.fromkeys(("Mixed_6a.branch3x3", "Mixed_6a.branch3x3dbl_3"), 2),
    **dict.fromkeys(("Mixed_7a.branch3x3_2", "Mixed_7a.branch7x7x3_4"), 2),
}


def layers() -> tuple[str, ...]:
    """Returns the names of the 94 layers with weights."""
    stem = [name for name in STEM if name != HALF]
    inside = [
        f"{block}.{name}"
        for block, branches in BLOCKS.items()
        for branch in branches
        for name in branch
        if name not in (MEAN, MAX, HALF)
    ]
    return tuple(dict.fromkeys((*stem, *inside)))


def load(path: Path) -> Weights:
    """Returns the weights of a safetensors file with the names of pytorch-fid's state.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    arrays, _ = weights.read(path)
    return folded(arrays, source=path)


def folded(arrays: Mapping[str, np.ndarray], *, source: Any) -> Weights:
    """Returns the weights of pytorch-fid's arrays by name: normalisations become part of kernels.

    Args:
        arrays: by name; further ones, such as those of the classifier, have no effect.
        source: where they come from, for the error.

    Raises:
        InputError: an array is missing, or the shapes are not those of the network.
    """
    found: Weights = {}
    for name in layers():
        try:
            kernel = np.asarray(arrays[f"{name}.conv.weight"], np.float64)  # [out, in, h, w]
            bn = [arrays[f"{name}.bn.{part}"] for part in ("weight", "bias")]
            mean, variance = (arrays[f"{name}.bn.running_{part}"] for part in ("mean", "var"))
            scale = bn[0] / np.sqrt(np.asarray(variance, np.float64) + EPSILON)
            kernel = (kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0)
            bias = bn[1] - mean * scale
        except (KeyError, ValueError, IndexError) as error:
            raise errors.InputError(
                f"{source} {_WRONG} (layer {name}: {errors.reason(error)})"
            ) from None
        found[name] = (kernel.astype(np.float32), bias.astype(np.float32))
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
    try:
        shape = jax.eval_shape(features, found, image).shape
    except (ValueError, TypeError):
        shape = None
    if shape != (1, NUM_FEATURES):
        raise errors.InputError(f"{source} {_WRONG} (the shapes do not fit together)")
    return found


_WRONG = (
    "is not the state of pytorch-fid's Inception: save pt_inception-2015-12-05-6726825d.pth as "
    "safetensors, see pipeline/evals/README.md"
)


def features(weights: Weights, images: Array) -> Array:
    """Returns the features of images, [B, 2048] float32, means over positions.

    Args:
        weights: of `load`.
        images: [B, H, W, 1 or 3] float32 in [0, 1]; a grey channel stands for all three. They are
            resized to 299 × 299 bilinearly, without antialiasing, as in pytorch-fid.
    """
    x = jnp.broadcast_to(images, (*images.shape[:3], 3))
    x = jax.image.resize(x, (len(x), SIDE, SIDE, 3), "bilinear", antialias=False)
    x = _chain(weights, 2.0 * x - 1.0, "", STEM)
    for block, branches in BLOCKS.items():
        joined = [_chain(weights, x, f"{block}.", branch) for branch in branches]
        x = jnp.concatenate(joined, axis=-1)
    return x.mean(axis=(1, 2))


def _chain(weights: Weights, x: Array, prefix: str, names: tuple[str, ...]) -> Array:
    for name in names:
        x = POOLS[name](x) if name in POOLS else _layer(weights, x, f"{prefix}{name}")
    return x


def _layer(weights: Weights, x: Array, name: str) -> Array:
    kernel, bias = weights[name]
    stride = SHRINK.get(name, 1)
    x = lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (stride, stride),
        "VALID" if name in SHRINK else "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,  # TPUs and GPUs would round factors to fewer bits
    )
    return jax.nn.relu(x + bias)


def _maximum(x: Array, stride: int, padding: str) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean(x: Array) -> Array:
    """Returns the mean of each position and its neighbours, of as many as there are."""

    def summed(values):
        return lax.reduce_window(values, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return summed(x) / summed(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


POOLS = {
    MEAN: _mean,
    MAX: lambda x: _maximum(x, 1, "SAME"),
    HALF: lambda x: _maximum(x, 2, "VALID"),
}
