import jax.numpy as jnp

from pipeline.training.logged import tracing


def test_a_touched_file_starts_one_trace_and_is_removed(tmp_path):
    notes = []
    traced = tracing.Tracing(tmp_path, wanted=False, active=True, note=notes.append)
    traced.look(1)
    (tmp_path / "profile").touch()
    traced.look(2)
    assert not (tmp_path / "profile").exists()
    for at in range(3, 3 + tracing.STEPS):
        assert not notes
        traced.after(at, jnp.ones(2) + 1)
    assert [text.split()[1] for text in notes] == [str(tracing.STEPS)]
    assert len(list(tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb"))) == 1


def test_a_longer_dispatch_is_traced_whole(tmp_path):
    notes = []
    traced = tracing.Tracing(tmp_path, wanted=True, active=True, note=notes.append)
    traced.look(10)
    traced.after(20, jnp.ones(2) + 1)
    assert notes and notes[0].startswith("traced 10 steps: ")


def test_other_processes_leave_the_file_alone(tmp_path):
    (tmp_path / "profile").touch()
    tracing.Tracing(tmp_path, wanted=True, active=False, note=print).look(1)
    assert (tmp_path / "profile").exists()


def test_a_start_that_asks_for_a_trace_has_one(tmp_path):
    notes = []
    traced = tracing.Tracing(tmp_path, wanted=True, active=True, note=notes.append)
    traced.look(1)
    traced.look(2)
    traced.close()
    traced.look(3)
    traced.close()
    assert len(notes) == 1
