"""Programs that make batches on only this process's devices.

Reader threads launch these programs in an order that differs between processes, so they must
contain no collective. NumPy's arrays go to a program directly. That takes two fifths of the CPU
time of a `device_put` of each batch (MNIST, two cores).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pipeline.mesh import sharding


def program(
    function: Callable[..., Sequence[Any]], mesh: Mesh, *kept: Any
) -> Callable[[Any], Sequence[Any]]:
    """Returns `function` as a program that makes several global batches at a time.

    Args:
        function: makes a device's rows of each batch, trees of [rows, ...], from the device's share
            of the program's input and from `kept`.
        mesh: the devices of all processes.
        kept: trees of arrays that every device keeps whole.

    Returns:
        A function from a tree of NumPy's arrays [batches, rows, ...], the rows of this process, to
        the batches, cut over the mesh.
    """
    # A mesh of only this process's devices leaves nothing for other processes to join.
    alone = jax.process_count() == 1
    own = mesh if alone else sharding.make_mesh({"data": -1}, devices=mesh.local_devices)
    everywhere = sharding.replicated(own)
    rows_cut, cut = NamedSharding(own, P(None, own.axis_names)), sharding.batch_sharded(own)
    specs = (rows_cut.spec, *[P()] * len(kept))
    started = jax.jit(
        jax.shard_map(function, mesh=own, in_specs=specs, out_specs=cut.spec),
        in_shardings=(rows_cut, *[everywhere] * len(kept)),
        out_shardings=cut,  # said also for one device, for which JAX would drop it
    )
    kept = jax.device_put(kept, everywhere)
    cut_globally = sharding.batch_sharded(mesh)

    def assembled(part: jax.Array) -> jax.Array:
        shape = (part.shape[0] * jax.process_count(), *part.shape[1:])
        pieces = [shard.data for shard in part.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, cut_globally, pieces)

    def batches(rows: Any) -> Sequence[Any]:
        if alone:
            with jax.transfer_guard_host_to_device("allow"):  # this transfer is intended
                return started(rows, *kept)
        # With several processes, JAX lets no program cut NumPy's arrays.
        return jax.tree.map(assembled, started(jax.device_put(rows, rows_cut), *kept))

    return batches
