"""PyTorch in several processes: DistributedDataParallel over gloo, as its guides advise.

Gradients are views of the buckets that are sent, buckets have the default size, and the graph is
declared static, except to the compiler. Buffers are not broadcast: the only ones that change are a
quantiser's, and these are equal because its sums travel too.
"""

import datetime
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.performance.frameworks import places, pytorch_models

LIMIT = datetime.timedelta(seconds=60)  # for one exchange, and for the start


class CodeSums:
    """Adds a quantiser's sums over the processes while the backward pass runs."""

    def __init__(self, quantizer: pytorch_models.Quantizer):
        """Has the quantiser leave its codes as they are in `forward`."""
        quantizer.moves = False
        self._quantizer = quantizer
        self._travelling: Any = None

    def send(self) -> None:
        """Starts the exchange; call it after `forward`."""
        self._travelling = dist.all_reduce(self._quantizer.seen, async_op=True)

    def receive(self) -> None:
        """Waits for the sums of all processes, and moves the codes; call it after `backward`."""
        self._travelling.wait()
        self._quantizer.move(self._quantizer.seen)


def join(place: places.Place) -> None:
    """Joins the processes; each draws its own noise."""
    if place.processes > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=LIMIT)  # finds the others in the environment
        torch.manual_seed(place.process)


def together(model: nn.Module, *, static: bool) -> tuple[nn.Module, list[CodeSums]]:
    """Returns the model, equal on all processes from now on, and the sums to send in each step.

    `static` says that all steps have the same graph; the compiler cannot use that.
    """
    if not dist.is_initialized():
        return model, []
    quantizers = [m for m in model.modules() if isinstance(m, pytorch_models.Quantizer)]
    sums = [CodeSums(quantizer) for quantizer in quantizers]
    # Without broadcasts in each step, DDP makes only parameters equal at the start.
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)
    wrapped = DistributedDataParallel(
        model, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=static
    )
    return wrapped, sums


def all_reduces(steps: Any) -> tuple[int, ...]:
    """Returns the bytes of each all-reduce of one step, as PyTorch's profiler sees them."""
    only_cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=only_cpu, record_shapes=True) as seen:
        steps(1)
        if dist.is_initialized():
            dist.barrier()  # gloo's threads must not end their events after the profile has ended
    size = torch.float32.itemsize  # of all gradients and sums
    events = [event for event in seen.events() if event.name.endswith(":all_reduce")]
    return tuple(size * torch.Size(s).numel() for event in events for s in event.input_shapes)
