"""Programs that make batches on this process's devices alone.

Threads start them, in an order that differs from other processes': so no other process may have a
part in them. NumPy's arrays go to a program as they are, in two fifths of the CPU time of a
`device_put` of each batch (MNIST, two cores).
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
        function: makes a device's rows of each batch, trees of [rows, ...], from its share of the
            program's input and what is kept.
        mesh: the devices of all processes.
        kept: trees of arrays that every device keeps whole.

    Returns:
        a tree of NumPy's arrays [batches, rows, ...], the rows of this process → the batches, cut
        over the mesh.
    """
    alone = jax.process_count() == 1
    own = mesh if alone else sharding.make_mesh({"data": -1}, devices=mesh.local_devices)
    everywhere = sharding.replicated(own)
    rows_cut, cut = NamedSharding(own, P(None, own.axis_names)), sharding.batch_sharded(own)
    specs = (rows_cut.spec, *[P()] * len(kept))
    started = jax.jit(
        jax.shard_map(function, mesh=own, in_specs=specs, out_specs=cut.spec),
        in_shardings=(rows_cut, *[everywhere] * len(kept)),
        out_shardings=cut,  # also on one device, where JAX would drop it
    )
    kept = jax.device_put(kept, everywhere)
    cut_globally = sharding.batch_sharded(mesh)

    def assembled(part: jax.Array) -> jax.Array:
        shape = (part.shape[0] * jax.process_count(), *part.shape[1:])
        pieces = [shard.data for shard in part.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, cut_globally, pieces)

    def batches(rows: Any) -> Sequence[Any]:
        if alone:
            with jax.transfer_guard_host_to_device("allow"):  # it is meant
                return started(rows, *kept)
        # JAX lets no program cut NumPy's arrays where there are several processes.
        return jax.tree.map(assembled, started(jax.device_put(rows, rows_cut), *kept))

    return batches
