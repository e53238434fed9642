"""Chaos that is small enough for every run of the tests; `make chaos` does more."""

from tests.support import chaos


def test_a_run_that_is_hurt_at_random_ends_as_one_that_is_not(tmp_path):
    tally = chaos.chaos(
        tmp_path, faults=2, steps=40, pause=0.05, seed=1, variants=("vq_vae",), most=2
    )
    assert sum(map(len, tally.values())) == 2
