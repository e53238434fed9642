"""Which process this is among those that step a work together, in the variables of `torchrun`."""

import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"


class Place(NamedTuple):
    """One process of several on this machine."""

    process: int
    processes: int
    port: int  # of process 0, at LOOPBACK

    def own(self, array: Any) -> Any:
        """Returns this process's rows of an array whose first dimension is the whole batch."""
        rows = len(array) // self.processes
        return array[self.process * rows : (self.process + 1) * rows]


def environment(place: Place) -> dict[str, str]:
    """Returns the variables that tell a process its place; several processes use only CPUs."""
    variables = {
        "RANK": str(place.process),
        "WORLD_SIZE": str(place.processes),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(place.port),
    }
    if place.processes == 1:
        return variables
    # gloo would look up this machine's name, which may have no address.
    if "lo" in (name for _, name in socket.if_nameindex()):
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    return variables | only_cpu()


def only_cpu() -> dict[str, str]:
    """Returns the variables that give a process one CPU device, whatever else the machine has."""
    one = "--xla_force_host_platform_device_count=1"
    return {
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {one}".strip(),
    }


def here(variables: Mapping[str, str] = os.environ) -> Place:
    """Returns the place that `environment` described; without it this process is the only one."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": 0}
    return Place(*(int(variables.get(name, default)) for name, default in names.items()))


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
