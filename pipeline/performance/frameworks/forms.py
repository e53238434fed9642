"""The forms that are compared: which framework, with which options, in which environment.

PyTorch runs plain, with images channels-last, compiled, and with both. Each of these runs with the
C library's allocator and with one that keeps freed pages. That is tcmalloc or jemalloc if one is
installed, else glibc's with the settings of `runtime.allocator`. The best form counts. In several
processes PyTorch only runs with the latter allocator, and with DistributedDataParallel (DDP).
"""

import ctypes.util
import os
from typing import NamedTuple

OURS = "this pipeline"
LIMIT = "matrix product of as many operations"


class Form(NamedTuple):
    """One way to run the steps of a work."""

    framework: str  # the name of a file beside this one
    options: tuple[str, ...] = ()
    preload: str = ""  # the path of a library for LD_PRELOAD; empty: none


def forms() -> dict[str, Form]:
    """Returns {name: form}, ours first."""
    allocator, path = allocator_library()
    found = {OURS: Form("ours"), "naive NNX": Form("naive_nnx")}
    for layout in ((), ("channels-last",)):
        for compiler in ((), ("compile",)):
            options = (*layout, *compiler)
            name = " ".join(["PyTorch", *options])
            found[name] = Form("pytorch", options)
            kept = options if path else (*options, "keep-freed")
            found[f"{name} {allocator}"] = Form("pytorch", kept, path)
    return found | {
        "artifex": Form("artifex"),
        "pythae": Form("pythae"),
        "lucidrains": Form("lucidrains"),
        LIMIT: Form("matrix_product"),
    }


def together() -> dict[str, Form]:
    """Returns {name: form} of those that run in several processes, ours first."""
    kept = {n: f for n, f in forms().items() if f.preload or "keep-freed" in f.options}
    return {OURS: forms()[OURS]} | {n.replace("PyTorch", "DDP"): f for n, f in kept.items()}


def allocator_library() -> tuple[str, str]:
    """Returns (name, path) of an allocator that keeps freed pages; glibc's has an empty path."""
    for name in ("tcmalloc_minimal", "tcmalloc", "jemalloc"):
        if path := ctypes.util.find_library(name):
            return name, path
    return "mallopt", ""


def environment(form: Form, threads: int) -> dict[str, str]:
    """Returns the variables of the form's process; they give every framework as many threads."""
    number = str(threads)
    preload = ":".join(filter(None, (form.preload, os.environ.get("LD_PRELOAD", ""))))
    return {
        "NPROC": number,  # JAX's
        "OMP_NUM_THREADS": number,  # PyTorch's
        "MKL_NUM_THREADS": number,
        "LD_PRELOAD": preload,
        # Else JAX takes most of a GPU's memory, and the other processes fail.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
