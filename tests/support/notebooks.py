"""Executes a notebook in a fresh kernel of this interpreter.

`python -m tests.support.notebooks configs/tour.ipynb` writes the new outputs into the file, without
times and versions.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import matplotlib
import nbformat
from ipykernel import kernelspec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from matplotlib import font_manager
from nbclient import NotebookClient

from tests.support.environment import xla_flags
from tests.support.processes import ROOT

SECONDS = 300  # longest time of a cell


def execute(path, *, cwd, folder):
    """Returns a copy of the notebook with new outputs; an error in a cell is raised.

    Args:
        path: the notebook, which stays as it is.
        cwd: the folder that the kernel starts in.
        folder: for temporary files of the kernel and of the notebook.
    """
    found = nbformat.read(path, as_version=4)
    # Only this folder has kernels: one of the user's may belong to another interpreter.
    kernelspec.write_kernel_spec(folder / "kernels" / "python3")
    kernels = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    # The sockets are files: a port could be taken by another process.
    manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=kernels,
        transport="ipc",
        connection_file=str(folder / "kernel.json"),
    )
    client = NotebookClient(
        found,
        km=manager,
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,  # else the moments of flushing divide them
        resources={"metadata": {"path": str(cwd)}},
    )
    font_manager.findfont("sans")  # makes the list of fonts, which a kernel would warn of
    environment = os.environ | {
        "IPYTHONDIR": str(folder / "ipython"),
        "JAX_PLATFORMS": "cpu",
        "MPLCONFIGDIR": matplotlib.get_cachedir(),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XLA_FLAGS": xla_flags(1),
    }
    environment.pop("PYTEST_CURRENT_TEST", None)  # with it a kernel does not show stderr
    asyncio.run(client.async_execute(env=environment, cleanup_kc=True))
    found.metadata.language_info = {"name": "python"}  # without the version
    return found


def main():
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        found = execute(path, cwd=path.parent, folder=Path(folder))
    nbformat.write(found, path)


if __name__ == "__main__":
    main()
