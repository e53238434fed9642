"""A run whose steps or evaluations outlast the grace period says so, once."""

import pytest
from ml_collections import ConfigDict

from pipeline.training import lateness
from tests.support import processes


@pytest.fixture
def judge():
    """Returns a function that makes a `Lateness` and the list of what it says."""

    def made(grace=25.0, look=4, together=1):
        fields = {"grace_seconds": grace, "look_every_steps": look, "steps_per_dispatch": together}
        said = []
        return lateness.Lateness(ConfigDict(fields), said.append), said

    return made


def test_steps_count_that_pass_before_a_request_is_read(judge):
    late, said = judge()
    late.of_steps(2400.0)  # 10 steps of 2.4 s
    assert said == []
    late.of_steps(2600.0)
    late.of_steps(2600.0)
    (text,) = said
    assert "10 steps of 2.6 s each" in text and "config.grace_seconds=25" in text
    assert text.endswith("else lower config.look_every_steps=4")
    late, said = judge(together=20)
    late.of_steps(600.0)
    assert "48 steps of 0.6 s each" in said[0]
    assert said[0].endswith("config.look_every_steps=4 and config.steps_per_dispatch=20")
    late, said = judge(look=1)
    late.of_steps(9000.0)  # nothing can be lowered
    assert said[0].endswith("else save more often")


def test_a_slow_evaluation_is_named_with_its_step(judge):
    late, said = judge()
    late.of_evaluation(500, 24.0)
    assert said == []
    late.of_evaluation(1000, 41.3)
    late.of_evaluation(1500, 41.3)
    late.of_steps(9000.0)
    assert [("41 s at step 1000" in text, "pipeline.evaluate" in text) for text in said] == [
        (True, True), (False, False),
    ]  # fmt: skip


def test_a_run_is_told_of_both(tmp_path):
    short = ("--config.grace_seconds=0.001", "--config.total_steps=20")
    said = processes.train(tmp_path / "run", *short, "--config.steps_per_dispatch=1")
    assert said.count("a stop request may wait for 10 steps of") == 1
    assert said.count("a stop request may wait for an evaluation, which took") == 1


def test_without_a_grace_period_nothing_is_late(judge):
    late, said = judge(grace=0.0)
    late.of_steps(1e6)
    late.of_evaluation(1, 1e6)
    assert said == []
