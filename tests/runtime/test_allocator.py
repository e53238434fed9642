"""A process keeps the memory that it frees."""

import subprocess
import sys

import pytest

from pipeline.runtime import allocator

glibc = pytest.mark.skipif(
    not hasattr(allocator.ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)

# The page faults of ten rounds that take blocks and free them; 64 MiB are 16,384 pages.
FAULTS = """
import resource, numpy as np
from pipeline.runtime import allocator
assert not {keep} or allocator.keep_freed()
def take():
    blocks = [np.ones({mib} * 2**17) for _ in range({num})]
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep, mib=64, num=1):
    program = FAULTS.format(keep=keep, mib=mib, num=num)
    environment = {"OMP_NUM_THREADS": "1", "NUMPY_MADVISE_HUGEPAGE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    return int(result.stdout)


@glibc
def test_what_was_freed_is_taken_again_without_page_faults():
    assert faults(keep=False) > 10_000
    assert faults(keep=True) < 1_000


@glibc
def test_more_than_two_gib_are_kept_too():
    assert faults(keep=True, mib=800, num=3) < 1_000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed() is False
