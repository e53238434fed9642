"""A stand-in for the training command that the launchers' tests start: it trains nothing."""

import pytest

# The stand-in: its first start is preempted, its second completes.
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
    """Returns a folder in which `python -m pipeline.train` runs the stand-in."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    (tmp_path / "pipeline" / "train.py").write_text(STAND_IN)
    return tmp_path
