from tests import chaos


def test_a_run_that_is_hurt_at_random_ends_as_one_that_is_not(tmp_path):
    tally = chaos.chaos(
        tmp_path, faults=3, steps=60, pause=0.05, seed=1, variants=("vq_vae",), most=3
    )
    assert sum(map(len, tally.values())) == 3
