"""The forms that are compared: which framework, with which options, in which environment.

PyTorch is tried as it is, with images channels-last, and compiled, each with the C library's
allocator and with one that keeps what is freed: tcmalloc or jemalloc where they are installed, else
glibc's with the settings that ours has. The best of them counts.
"""

import ctypes.util
import os
from typing import NamedTuple

OURS = "this pipeline"
LIMIT = "matrix product of as many operations"


class Form(NamedTuple):
    """A way to take the steps of a work."""

    framework: str  # a file in frameworks/
    options: tuple[str, ...] = ()
    preload: str = ""  # a library, by LD_PRELOAD


def forms() -> dict[str, Form]:
    """Returns all forms by name, ours first."""
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


def allocator_library() -> tuple[str, str]:
    """Returns the name and the file of an allocator that keeps pages; glibc's has no file."""
    for name in ("tcmalloc_minimal", "tcmalloc", "jemalloc"):
        if path := ctypes.util.find_library(name):
            return name, path
    return "mallopt", ""


def environment(form: Form, threads: int) -> dict[str, str]:
    """Returns the variables of the form's process: as many threads in every framework."""
    number = str(threads)
    preload = ":".join(filter(None, (form.preload, os.environ.get("LD_PRELOAD", ""))))
    return {
        "NPROC": number,  # JAX's
        "OMP_NUM_THREADS": number,  # PyTorch's
        "MKL_NUM_THREADS": number,
        "LD_PRELOAD": preload,
        # On a GPU the frameworks share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
