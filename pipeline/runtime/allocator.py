"""How the process keeps memory: what a step has freed, the next step takes again.

glibc hands large freed blocks back to the kernel. A step on the CPU frees its temporaries and asks
for them anew, and each page that comes back is a fault and is cleared: a quarter of a step's time.
"""

import ctypes

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8


def keep_freed() -> bool:
    """Tells glibc to keep what is freed; must precede the first thread.

    One arena for all threads: a thread's own can't hold a block above 64 MiB, which then comes from
    the kernel whatever the settings are. One that a thread has got already stays in use.

    Returns:
        False where the C library is another one, which is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: 2**30,
        M_TRIM_THRESHOLD: -1,  # never; 2³¹ − 1 bytes are less than some steps free
        M_TOP_PAD: 64 * 2**20,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
