"""All tests run on virtual CPU devices, and leave the user's cache folder alone."""

import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# What one test has compiled, another that starts the same program need not; workers inherit it.
COMPILED = "JAX_COMPILATION_CACHE_DIR"
OWNER = COMPILED not in os.environ
os.environ.setdefault(COMPILED, tempfile.mkdtemp(prefix="compiled-") if OWNER else "")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
# Level 1: tests mostly compile, and steps run as fast at three times less compilation.
OPTIMIZATION = "--xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=64 {OPTIMIZATION}"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pytest_unconfigure():
    if OWNER:
        shutil.rmtree(os.environ[COMPILED], ignore_errors=True)
