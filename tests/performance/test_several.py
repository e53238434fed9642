"""The works in several processes: they do our work together, and they end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from pipeline.performance import timing
from pipeline.performance.frameworks import forms, groups, places, several, works
from pipeline.training import step
from tests.support import equal_works
from tests.support.processes import ROOT

STEPS, PROCESSES = 4, 2
CHANGES = "batch_size=4"  # of both processes together
NO_TORCH = "PyTorch is not installed: pip install '.[bench]'"
LIMIT = 120  # seconds


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def ours():
    group = groups.Group(
        "dense_conditional_vae",
        "ours",
        (),
        environment=forms.environment(forms.Form("ours"), 1),
        changes=CHANGES,
        processes=PROCESSES,
    )
    yield group
    group.close()


def children(parent=None):
    """Returns the workers that the process, by default this one, has started."""
    parent = parent or os.getpid()
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(number) for number in found if lives(int(number))]


def lives(number):
    """Says whether the process is a worker that has not ended; one that has ended says nothing."""
    try:
        return groups.worker.__name__ in Path(f"/proc/{number}/cmdline").read_text()
    except OSError:
        return False


def test_our_processes_send_one_buffer(ours):
    ours.round()
    (sent,) = ours.all_reduces()
    work = works.make("dense_conditional_vae", CHANGES)
    state = step.abstract_state(work.config, work.example)
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert gradients < sent < gradients + 100  # a few sums travel with the gradients


def test_a_lost_process_ends_its_group_and_leaves_none(ours):
    os.kill(max(children()), signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(groups.Absent, match=r"process \d ended with"):
        ours.round()
    assert time.monotonic() - began < 30
    assert not children()


def test_a_process_that_does_not_answer_ends_its_group(monkeypatch, ours):
    monkeypatch.setattr(groups, "ROUND_SECONDS", 0.5)
    os.kill(max(children()), signal.SIGSTOP)
    with pytest.raises(groups.Absent, match=r"no answer within 0\.5 s"):
        ours.round()
    assert not children()


def test_a_process_ends_with_a_parent_that_is_killed():
    program = (
        "from pipeline.performance.frameworks import forms, groups, places\n"
        "environment = forms.environment(forms.Form('ours'), 1) | places.only_cpu()\n"
        f"group = groups.Group('dense_conditional_vae', 'ours', (), environment=environment, "
        f"changes='{CHANGES}')\n"
        "print('started', flush=True)\n"
        "input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout.readline() == b"started\n"
        (child,) = children(parent.pid)
        parent.kill()
    end = time.monotonic() + 30
    while lives(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_form_keeps_all_threads_busy_and_every_process_has_a_whole_batch():
    assert several.ways(2, 8) == {
        several.SEVERAL: (2, 4, 2),
        several.ONE: (1, 4, 1),
        several.WHOLE: (1, 8, 2),
    }


def test_a_process_has_its_own_rows_and_one_cpu_device():
    variables = places.environment(places.Place(1, 2, 1234))
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert variables["XLA_FLAGS"].endswith("device_count=1")
    place = places.here(variables)
    assert place == (1, 2, 1234)
    assert place.own(np.arange(6)).tolist() == [3, 4, 5]
    assert places.here({}).own(np.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_figures_compare_each_form_with_itself_and_with_ours():
    times = {several.SEVERAL: [0.4, 0.4], several.ONE: [0.3, 0.3], several.WHOLE: [0.2, 0.2]}
    seconds = {(forms.OURS, way): taken for way, taken in times.items()}
    seconds |= {("DDP", way): [2 * s for s in taken] for way, taken in times.items()}
    seconds["DDP", several.SEVERAL] = [1.2, 1.0]
    sent = {forms.OURS: (100,), "DDP": (40, 60)}
    found = several.figures(seconds, sent, images=8)
    mine, theirs = found[forms.OURS], found["DDP"]
    assert mine["images_per_second"] == pytest.approx(20)
    assert mine["efficiency"].median == pytest.approx(0.75)
    assert mine["cut"].median == pytest.approx(0.5)
    assert mine["added_ms"].median == pytest.approx(100)
    assert theirs["efficiency"] == pytest.approx(timing.Ratio(0.55, 0.525, 0.575))
    assert theirs["ratio"] == pytest.approx(timing.Ratio(2.75, 2.625, 2.875))
    assert theirs["gain"] == pytest.approx(timing.Ratio(1.375, 1.3125, 1.4375))
    assert theirs["added_ms"] == pytest.approx(timing.Ratio(500, 450, 550))
    assert (theirs["all_reduces"], theirs["bytes"]) == (2, 100)
    header, first, second = several.table(found)
    assert len(header) == len(first) == len(second)
    assert first[-2:] == ["–", "–"] and second[-2] == "2.750 (2.625 to 2.875)"
    json.dumps(found)
    unknown = several.table(several.figures(seconds, sent | {"DDP": ()}, images=8))
    assert unknown[2][5:7] == ["–", "–"] and unknown[2][:5] == second[:5]


def test_ddp_keeps_freed_pages_in_every_form():
    found = forms.together()
    assert next(iter(found)) == forms.OURS
    rivals = [form for name, form in found.items() if name != forms.OURS]
    assert len(rivals) == 4
    assert all(form.preload or "keep-freed" in form.options for form in rivals)


@pytest.mark.parametrize("name", sorted(set(works.WORKS) - {"code_prior"}))
def test_ddp_trains_as_ours(name, tmp_path):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from pipeline.performance.frameworks import pytorch_models

    work = works.make(name, CHANGES)
    mesh, state = equal_works.first_state(work, devices=PROCESSES)
    model = pytorch_models.make(work)
    equal_works.copy_into_pytorch(torch, work, jax.device_get(state), model)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    batch = work.batch() | {"mask": np.ones(work.config.batch_size, np.float32)}
    train_step = step.make_train_step(work.config, work.example, mesh)
    losses, noise = [], {"steps": STEPS}
    for number in range(STEPS):
        _, drawn = equal_works.draws(work, state, number)
        kinds = zip(("epsilon", "dropped"), drawn or (), strict=False)
        noise |= {f"{kind}{number}": array for kind, array in kinds if array is not None}
        state, metrics, _ = train_step(state, batch, np.zeros(mesh.size, np.float32))
        losses.append(float(metrics["loss"]))
    np.savez(tmp_path / "noise.npz", **noise)

    port = places.free_port()
    command = [sys.executable, "-m", "tests.support.ddp_losses", name, CHANGES, str(tmp_path)]
    started = [
        subprocess.Popen(
            command, env=os.environ | places.environment(places.Place(index, PROCESSES, port))
        )
        for index in range(PROCESSES)
    ]
    try:
        assert [process.wait(LIMIT) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
    theirs = np.mean([np.load(tmp_path / f"losses{i}.npy") for i in range(PROCESSES)], axis=0)
    np.testing.assert_allclose(theirs, losses, rtol=1e-4)


def test_ddp_sends_gradients_and_codes():
    pytest.importorskip("torch", reason=NO_TORCH)
    options = ("keep-freed",)
    group = groups.Group(
        "tutorial_vq_vae",
        "pytorch",
        options,
        environment=forms.environment(forms.Form("pytorch", options), 1),
        changes=CHANGES,
        processes=PROCESSES,
    )
    try:
        sent = group.all_reduces()
    finally:
        group.close()
    work = works.make("tutorial_vq_vae", CHANGES)
    params = step.abstract_state(work.config, work.example).params
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    codes = 4 * 128 * (1 + 16)  # a count and a vector for each code
    assert codes in sent and sum(sent) == gradients + codes
