from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from pipeline.runtime import errors
from pipeline.training import evaluation, guard, verdicts
from tests.support.processes import codes, start, train
from tests.support.runs import assert_equal_trees, committed, scalars, state

# The loss of one step is not finite, whatever the state is.
POISONED = """
import os
import jax.numpy as jnp
from pipeline.models import beta_vae
original = beta_vae.Model.terms
def terms(self, batch, *, keys, step):
    found, sums = original(self, batch, keys=keys, step=step)
    return found._replace(kl=found.kl * jnp.where(step == 24, jnp.nan, 1.0)), sums
beta_vae.Model.terms = terms
from pipeline import train
os._exit(train.main())
"""
COMMAND = ("-c", POISONED)
# The losses are finite, and a figure of the evaluation is not.
NAN_EVALUATION = """
import os
import numpy as np
from pipeline.evals import heldout
original = heldout.make
def make(config, mesh, source):
    evaluate = original(config, mesh, source)
    def poisoned(state):
        for tag, value in evaluate(state):
            yield tag, np.nan if tag == "heldout/elbo" else value
    return poisoned
heldout.make = make
from pipeline import train
os._exit(train.main())
"""
EVERY = ("--config.log_every_steps=1", "--config.checkpoint.every_steps=10")


def section(**changes):
    return ConfigDict({"action": "stop", "leap_sigmas": 0.0, "max_rollbacks": 3} | changes)


def judge_all(losses, config):
    trend, found = guard.first_trend(), []
    for loss in losses:
        trend, judgement = guard.judge(trend, jnp.float32(loss), jnp.float32(1.0), config)
        found.append(float(judgement))
    return np.array(trend), found


def test_the_trend_is_the_weighted_mean_and_deviation_of_good_steps():
    losses = np.random.default_rng(0).normal(50.0, 2.0, 300)
    trend, found = judge_all([*losses, np.nan, np.inf], section())
    assert found == [guard.GOOD] * 300 + [guard.NOT_FINITE] * 2
    weights = 0.99 ** np.arange(299, -1, -1)
    mean = np.average(losses, weights=weights)
    np.testing.assert_allclose(trend[1] / trend[0], mean, rtol=1e-5)
    np.testing.assert_allclose(
        trend[2] / trend[0], np.average(losses**2, weights=weights), rtol=1e-5
    )
    assert trend[3] == 300


def test_a_leap_is_judged_by_deviations_and_not_before_the_trend_is_known():
    noise = list(np.random.default_rng(0).normal(50.0, 2.0, 200))
    config = section(leap_sigmas=6.0)
    assert guard.LEAP not in judge_all([*noise[:50], 500.0], config)[1]
    found = judge_all([*noise, 70.0, 51.0, 30.0], config)[1]
    assert found[200:] == [guard.LEAP, guard.GOOD, guard.GOOD]
    assert guard.LEAP not in judge_all([*noise, 70.0], section())[1]


def test_a_gradient_that_is_not_finite_counts_too():
    _, found = guard.judge(guard.first_trend(), jnp.float32(1.0), jnp.float32(np.inf), section())
    assert float(found) == guard.NOT_FINITE


def test_the_first_bad_arrays_are_named():
    params = {"a": jnp.ones(3), "b": {"c": jnp.array([1.0, np.nan])}, "d": jnp.array(np.inf)}
    assert guard.bad_leaves(params) == "2 arrays of parameters are not finite: b.c, d"
    assert guard.bad_leaves({"a": jnp.ones(3)}) == "all parameters are finite"


@pytest.mark.parametrize(
    "change", [{"action": "pray"}, {"leap_sigmas": -1.0}, {"max_rollbacks": -1}]
)
def test_a_value_that_cannot_work_is_refused(change):
    with pytest.raises(errors.InputError, match=next(iter(change))):
        guard.check(section(**change))


def test_verdicts_are_read_at_steps_of_their_number_or_at_once():
    unread, nothing = verdicts.Verdicts(4), verdicts.Verdict(False, 0, guard.GOOD)
    for at in range(1, 4):
        unread.add(at, np.float32([at == 3, guard.NOT_FINITE if at == 2 else guard.GOOD]))
        assert unread.read(at, now=False) == nothing
    unread.add(4, np.float32([1, guard.LEAP]))
    assert unread.read(4, now=False) == verdicts.Verdict(True, 2, guard.NOT_FINITE)
    unread.add(5, np.float32([0, guard.GOOD]))
    assert unread.read(5, now=True) == verdicts.Verdict(True, 4, guard.LEAP)  # of step 4
    assert unread.read(5, now=True) == nothing
    unread.add(6, np.float32([1, guard.LEAP]))
    unread.forget()
    assert unread.read(8, now=True) == nothing


def test_a_read_is_due_once_for_each_multiple_however_many_steps_are_launched_at_once():
    unread, due = verdicts.Verdicts(4), []
    for at in (3, 5, 6, 8, 13):
        unread.add(at, np.float32([0, guard.GOOD]))
        due.append(unread.due(at))
        if due[-1]:
            unread.read(at, now=False)
    assert due == [False, True, False, True, True]


def test_the_newest_verdict_is_waited_for_first_so_that_the_host_wakes_up_once():
    asked = []

    class Row:
        def __init__(self, at):
            self.at = at

        def __array__(self, dtype=None, copy=None):
            asked.append(self.at)
            return np.float32([0, guard.LEAP if self.at == 2 else guard.GOOD])

    unread = verdicts.Verdicts(4)
    for at in (1, 2, 3):
        unread.add(at, Row(at))
    assert unread.read(3, now=True) == verdicts.Verdict(False, 2, guard.LEAP)
    assert asked == [3, 2, 1]


def test_a_stop_is_read_together_with_all_that_was_launched_after_it():
    unread = verdicts.Verdicts(2)
    unread.add(1, np.float32([1, guard.GOOD]))
    unread.add(2, np.float32([0, guard.NOT_FINITE]))
    assert unread.read(2, now=False) == verdicts.Verdict(True, 2, guard.NOT_FINITE)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    workdir = tmp_path / "run"
    # Step 25 is the last one, is bad and would be saved: the guard must judge it first.
    (process,) = start(workdir, "--config.total_steps=25", *EVERY, command=COMMAND)
    assert codes([process]) == [1]
    last = process.output.strip().splitlines()[-1]
    assert last.startswith("error: the loss of step 25 is not finite; ")
    assert "arrays of parameters are not finite: " in last
    assert committed(workdir) == [10, 20]


def evaluated(*values, params=1.0):
    """Runs an evaluation that yields these values, or raises one; returns the tags written."""

    def evaluate(state):
        for name, value in values:
            if isinstance(value, Exception):
                raise value
            yield f"heldout/{name}", value

    module = SimpleNamespace(__name__="one", make=lambda config, mesh, source: evaluate)
    ready = SimpleNamespace(
        config=ConfigDict({"model": {"name": "beta_vae"}}),
        mesh=None,
        opened=SimpleNamespace(heldout=None),
        evaluations=(module,),
    )
    written = []
    writer = SimpleNamespace(write=lambda tag, value, at: written.append(tag))
    state = SimpleNamespace(params={"kernel": jnp.full(3, params)})
    evaluation.Evaluations(ready)(state, writer, 7, warn=lambda text: None)
    return written


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([("elbo", float("nan"))], "heldout/elbo of step 7 is not finite"),
        ([("elbo", float("-inf"))], "heldout/elbo of step 7 is not finite"),
        ([("kl", np.array([1.0, np.nan]))], "heldout/kl of step 7 is not finite"),
        ([("image", np.full((2, 2, 1), np.nan, np.float32))], "heldout/image of step 7 is not"),
    ],
)
def test_an_evaluation_names_the_first_figure_that_is_not_finite(values, words):
    with pytest.raises(evaluation.NotFinite, match=words):
        evaluated(("rate", 1.0), *values, ("later", ValueError("never asked")))


def test_finite_figures_texts_and_pictures_are_written():
    pixels = np.zeros((2, 2, 1), np.uint8)
    values = {"a": 1.0, "b": np.ones(3), "c": pixels, "d": "text", "e": lambda: pixels}
    assert evaluated(*values.items()) == [f"heldout/{name}" for name in values]


def test_an_error_that_comes_from_a_bad_state_says_so_and_others_stay():
    refused = ("scores", ValueError("Input contains NaN."))
    with pytest.raises(evaluation.NotFinite, match=r"state of step 7 .*Input contains NaN"):
        evaluated(refused, params=np.nan)
    with pytest.raises(ValueError, match=r"^Input contains NaN\.$"):
        evaluated(refused)


@pytest.mark.parametrize(
    ("action", "code", "words", "saved"),
    [
        ("stop", 1, "; all parameters are finite", 10),
        ("rollback", 0, ": back to the state of step 10, continuing after step 20", 20),
        ("off", 0, ": the rest of this evaluation is left out", 20),
    ],
)
def test_a_figure_that_is_not_finite_goes_the_guards_way(tmp_path, action, code, words, saved):
    steps = ("--config.total_steps=20", "--config.eval_every_steps=20")
    guarded = f"--config.guard.action={action}"
    command = ("-c", NAN_EVALUATION)
    (process,) = start(tmp_path / "run", guarded, *steps, *EVERY, command=command)
    assert codes([process]) == [code]
    assert "Traceback" not in process.output
    assert f"heldout/elbo of step 20 is not finite{words}" in process.output
    assert committed(tmp_path / "run")[-1] == saved


def test_a_rollback_skips_the_window_and_a_restart_changes_no_bit(tmp_path):
    arguments = ("--config.guard.action=rollback", *EVERY)
    one, other = tmp_path / "one", tmp_path / "other"
    output = train(one, "--config.total_steps=40", *arguments, command=COMMAND)
    assert "the loss of step 25 is not finite: back to the state of step 20, continuing" in output
    assert output.count("back to the state of step") == 1
    points = scalars(one)["train/loss"]
    assert points[-1][0] == 40 and np.isfinite(points[-1][1])
    train(other, "--config.total_steps=30", *arguments, command=COMMAND)
    train(other, "--config.total_steps=40", *arguments, command=COMMAND)
    assert state(other, 40)["step"] == 40
    assert_equal_trees(state(other, 40), state(one, 40))
