"""The barriers of a save by several processes: one whose part has failed says so at once.

Orbax hands an error on only after the processes have met at its next barrier. The others wait at
an earlier one, for the part that has failed. So neither side would move, or say why, until Orbax's
own limit of 20 minutes.
"""

import sys
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp


def options(on_failure: Callable[[BaseException], object]) -> ocp.AsyncOptions:
    """Returns the options of saves whose errors do not wait for other processes.

    Args:
        on_failure: receives the error of this process, on a thread of the save. `check_for_errors`
            and `wait_until_finished` raise it, too.
    """
    if jax.process_count() == 1:
        return ocp.AsyncOptions()
    meet = ocp.multihost.get_barrier_sync_fn()

    def barrier(*, key: str, timeout_ms: int) -> None:
        # Orbax comes here from a `finally`, with the error under way.
        error = sys.exc_info()[1]
        if error is not None:
            on_failure(error)
            raise error
        meet(key=key, timeout_ms=timeout_ms)

    return ocp.AsyncOptions(barrier_sync_fn=barrier)
