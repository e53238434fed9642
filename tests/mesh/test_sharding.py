import re

import jax
import pytest

from pipeline.mesh import sharding
from pipeline.runtime import errors


@pytest.mark.parametrize(
    ("batch_size", "parts", "words"),
    [(10, 1, "not divisible by 4 devices × 1 accumulation steps = 4: use 8 or 12"),
     (8, 4, "= 16: use 16"), (0, 1, "batch_size=0 must be at least 1"),
     (8, 0, "accumulation_steps=0 must be at least 1")],
)  # fmt: skip
def test_a_batch_that_cannot_be_cut_evenly_names_the_repair(batch_size, parts, words):
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:4])
    with pytest.raises(errors.InputError, match=words):
        sharding.check_batch(batch_size, mesh=mesh, accumulation_steps=parts)


def test_a_mesh_that_does_not_fit_names_the_devices():
    with pytest.raises(errors.InputError, match=r"data=3, fsdp=1\) does not fit 4 devices"):
        sharding.make_mesh({"data": 3}, devices=jax.devices()[:4])


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"data": -1, "fsdp": 3}, "(data=-1, fsdp=3) does not fit 8 devices"),
        ({"data": -1, "fsdp": 0}, "(data=-1, fsdp=0) does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "(data=-1, fsdp=-1) does not fit 8 devices"),
        ({"data": 8, "fsdp": 2}, "choose a --config.mesh.fsdp that divides it"),
    ],
)
def test_a_mesh_that_does_not_fit_names_both_axes(shape, words):
    with pytest.raises(errors.InputError, match=re.escape(words)):
        sharding.make_mesh(shape, devices=jax.devices()[:8])
