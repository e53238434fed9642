"""All tests run on virtual CPU devices, and leave the user's cache folder alone."""

import os

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# Level 1: tests mostly compile, and steps run as fast at three times less compilation.
OPTIMIZATION = "--xla_backend_optimization_level=1"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=64 {OPTIMIZATION}"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
