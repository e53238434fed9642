"""The arrays of one checkpoint: their digests, how a process reads them, and how they differ."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from pipeline.mesh import layouts, sharding
from pipeline.training.saving import checkpoint_folder
from pipeline.training.step import TrainState

SHOWN = 3  # arrays that a line names


def load(folder: Path, step: int, abstract: TrainState, mesh: Mesh) -> tuple[Any, str]:
    """Returns what was saved at `step`, unchecked, or None and why it cannot be read.

    It exchanges nothing with other processes, which may be able to read the step.

    Args:
        folder: of the run's checkpoints.
        step: number of a checkpoint.
        abstract: shapes and types of the state.
        mesh: the devices on which it will lie.
    """
    num, whole = len(jax.tree.leaves(abstract)), sharding.replicated(mesh)
    target = {
        "state": layouts.of_tree(abstract, mesh),
        "digests": jax.ShapeDtypeStruct((num,), np.uint32, sharding=whole),
    }
    options = _alone()
    try:
        with ocp.Checkpointer(_handler(), multiprocessing_options=options) as reader:
            args = ocp.args.StandardRestore(target)
            return reader.restore(_path(folder, step), args=args), ""
    except Exception as error:  # whatever the error is, the step before may be whole
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def differences(folder: Path, step: int, abstract: TrainState) -> str:
    """Returns which arrays of a checkpoint are not those of `abstract`, or "".

    The list of arrays may be damaged; then nothing is known of them, and no difference either.
    """
    try:
        saved = _shapes(_handler().metadata(_path(folder, step))["state"])
    except Exception:  # Orbax raises errors of many types
        return ""
    wanted = _shapes(abstract)
    names = [name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name)]
    # The optimizer's arrays have the shapes of the parameters, which say more.
    names.sort(key=lambda name: ("opt_" in name, name))
    texts = [
        f"{name} is {wanted.get(name, 'absent')}, was {saved.get(name, 'absent')}"
        for name in names[:SHOWN]
    ]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{'; '.join(texts)}{more}"


def _path(folder: Path, step: int) -> Any:
    place = folder / str(step) / ocp.checkpoint_manager.DEFAULT_ITEM_NAME
    return checkpoint_folder.literal(place)


def _alone() -> Any:
    """Returns options by which each process reads by itself.

    A shared barrier would wait for a process whose read has failed.
    """
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"{process}"
    )


def _handler() -> Any:
    return ocp.StandardCheckpointHandler(multiprocessing_options=_alone())


def _shapes(tree: Any) -> dict[str, list[int]]:
    """Returns the shape of each array by its path, such as params/encoder/bias."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "shape")):
        parts = [
            str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path
        ]
        found["/".join(parts)] = list(leaf.shape)
    return found


@jax.jit
def digests(state: Any) -> jax.Array:
    """Returns a digest of each array, [leaves] uint32, exact and the same on any mesh.

    It is the sum modulo 2³² of the bits of all values, each multiplied by its own odd number. So
    it changes if one value changes, or if two values swap places.
    """

    def digest(leaf):
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32).ravel()
        weights = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
        return (bits * weights).sum(dtype=jnp.uint32)

    return jnp.stack([digest(leaf) for leaf in jax.tree.leaves(state)])
