"""Chaos that is small enough for every run of the tests; `make chaos` does more."""

from tests.support import chaos


def test_a_run_that_is_hurt_at_random_ends_as_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tally = chaos.chaos(
        tmp_path, hits=3, steps=40, pause=0.05, seed=1, variants=("vq_vae",), most=3
    )
    assert sum(map(len, tally.values())) == 3
