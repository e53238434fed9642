"""Replicas become runs of their own, which every command takes."""

import json

import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline.outputs import saved_settings
from pipeline.performance.bench import NEVER
from pipeline.runtime import errors, peers, run_config
from pipeline.training import loop, run_folder, setup
from tests.support import runs

ALONE = {"stop": NEVER, "others": peers.alone()}


def train(workdir, **changes):
    """Trains in this process, which compiles on one device, and requires a complete run."""
    config = beta_vae.get_config("smoke")
    # The lengths of the longest run, so that the shorter ones begin as it does.
    config.model.beta.steps = config.optimizer.decay_steps = 5000
    config.optimizer.warmup_steps, config.model.hidden = 100, (16,)
    config.log_every_steps, config.eval_every_steps, config.eval_examples = 2, 4, 128
    config.evals, config.batch_size, config.data.seed = ("heldout",), 16, 3
    config.update_from_flattened_dict(changes)
    ready = setup.prepare(
        config.lock(), workdir=workdir, devices=jax.devices()[:1], open_data=False
    )
    with run_folder.held(workdir, ready, **ALONE) as folder:
        assert loop.run(ready, folder, **ALONE) == 0


# Five runs: nothing smaller shows that a seed goes on by itself from what all trained together.
def test_seeds_train_together_and_become_runs_like_those_alone(tmp_path, capfd):
    together, alone = tmp_path / "together", tmp_path / "alone"
    train(together, seed=3, replicas=2, total_steps=4)
    assert runs.committed(together / "seed4") == [4]  # whole runs, before the end
    train(together, seed=3, replicas=2, total_steps=8)
    assert runs.committed(together / "seed4") == [4, 8]

    train(alone, seed=4, total_steps=8)
    saved, own = (run_config.load(folder) for folder in (together / "seed4", alone))
    assert run_config.flatten(saved) == run_config.flatten(own)
    for name in ("data.json", "example.json"):
        one, other = (json.loads((run / name).read_text()) for run in (together / "seed4", alone))
        assert one == other
    left, right = runs.scalars(together / "seed4"), runs.scalars(alone)
    assert left.keys() == right.keys() and "heldout/elbo" in left
    for tag in left:
        assert [at for at, _ in left[tag]] == [at for at, _ in right[tag]]
        values = [[value for _, value in series[tag]] for series in (left, right)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4, err_msg=tag)

    with pytest.raises(errors.InputError, match="trains 2 seeds in one program: take the folder"):
        saved_settings.load(together)
    assert saved_settings.load(together / "seed4").seed == 4

    # A seed goes on by itself; from then on all cannot go on together.
    train(together / "seed4", seed=4, total_steps=10)
    assert runs.committed(together / "seed4")[-1] == 10
    with pytest.raises(errors.InputError, match="seed4 went on by itself, to step 10: go on there"):
        train(together, seed=3, replicas=2, total_steps=12)
