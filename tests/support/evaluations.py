"""Evaluations without a run: small held-out data, their pictures, and their error lines."""

import jax
import numpy as np
import pytest

from pipeline.mesh import sharding
from pipeline.runtime import errors


class Heldout:
    """Held-out examples with a label of three classes, or with an attribute."""

    def __init__(self, num=5, **entries):
        rng = np.random.default_rng(0)
        self.rows = {"image": rng.integers(0, 256, (num, 8, 8, 1)).astype(np.uint8)} | {
            name: np.resize(values, (num, *np.shape(values)[1:]))
            for name, values in entries.items()
        }

    def __len__(self):
        return len(self.rows["image"])

    def read(self, indices):
        return {name: rows[indices] for name, rows in self.rows.items()}


def drawn(monkeypatch, module, name, evaluate, state):
    given = []
    monkeypatch.setattr(module, name, lambda *arguments: given.append(arguments))
    for _, draw in evaluate(state):
        draw()
    return given[0]


def refusal(kind, config, **fields):
    """Returns the one error line of the evaluation `kind` for a config with these changes."""
    config.update_from_flattened_dict(fields)
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:1])
    with pytest.raises(errors.InputError) as raised:
        kind.make(config, mesh, Heldout())
    assert "\n" not in str(raised.value)
    return str(raised.value)
