"""Keeps freed memory in the process, so that the next step uses it again.

By default glibc returns large freed blocks to the kernel. Each step on the CPU frees its
temporaries and the next one allocates them again. The kernel must then clear every page on a page
fault, which takes a quarter of a step's time.
"""

import ctypes

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8


def keep_freed() -> bool:
    """Makes glibc keep freed memory; must be called before the first thread starts.

    All threads share one arena. A thread's own arena cannot hold a block above 64 MiB: such a block
    would come from the kernel whatever the settings are. An arena that a thread already has stays
    in use, so a later call would not reach it.

    Returns:
        True if all settings took effect. False if one did not, or if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: 2**30,
        M_TRIM_THRESHOLD: -1,  # never trim: some steps free more than the largest value, 2³¹ − 1
        M_TOP_PAD: 64 * 2**20,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
