"""All tests run on virtual CPU devices, and leave the user's cache folder alone."""

import os
import shutil
import tempfile
from importlib import metadata

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# What one test has compiled, another that starts the same program need not; workers inherit it.
COMPILED = "JAX_COMPILATION_CACHE_DIR"
OWNER = COMPILED not in os.environ
if OWNER:
    os.environ[COMPILED] = tempfile.mkdtemp(prefix="compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
# Tests mostly compile, which so takes half the time; and steps run nearly as fast. Of the two
# options jax 0.11 knows the first alone, and ends at one that it doesn't know.
OPTIMIZATION = "--xla_backend_optimization_level=1"
if metadata.version("jaxlib").startswith("0.10."):
    OPTIMIZATION += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=64 {OPTIMIZATION}"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pytest_unconfigure():
    if OWNER:
        shutil.rmtree(os.environ[COMPILED], ignore_errors=True)


# Trains nothing under a launcher: the first start is preempted, the second completes.
STAND_IN = """
import os, pathlib, sys
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
known = [a.partition("=")[2] for a in sys.argv if a.startswith(("--coord", "--num_p", "--process"))]
platform = os.environ["JAX_PLATFORMS"]
print(*known, platform, os.environ[{"cpu": "XLA_FLAGS", "cuda": "CUDA_VISIBLE_DEVICES"}[platform]])
index = known[2] if len(known) == 3 else "0"
mark = folder / f"started{index}"
started = mark.exists()
mark.touch()
sys.exit(0 if started else 75)
"""


@pytest.fixture
def stand_in(tmp_path):
    """A folder in which `python -m pipeline.train` is the stand-in."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "train.py").write_text(STAND_IN)
    return tmp_path
