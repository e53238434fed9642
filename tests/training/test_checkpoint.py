import dataclasses
import json
import math
import os
import shutil

import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline.mesh import sharding
from pipeline.runtime import errors
from pipeline.training import step
from pipeline.training.saving import checkpoint, checkpoint_folder, ranking, saved_arrays

EXAMPLE = {"image": jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}


def make_config():
    config = beta_vae.get_config("smoke")
    config.model.hidden = (8,)
    return config


def mesh_of(num_devices):
    return sharding.make_mesh({"data": -1}, devices=jax.devices()[:num_devices])


def at_step(state, at):
    return dataclasses.replace(state, step=jax.device_put(np.int32(at), state.step.sharding))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Returns a folder with checkpoints of steps 10, 20 and 30, and the state at step 20."""
    folder = tmp_path_factory.mktemp("good") / "checkpoints"
    config = make_config()
    config.checkpoint.keep_newest = 3
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint)
    state = step.create_state(config, EXAMPLE, mesh_of(2))
    for at in (10, 20, 30):
        state = at_step(jax.tree.map(lambda leaf: leaf + 1, state), at)
        if at == 20:
            middle = state
        checkpoints.save(at, state, {"elbo": -float(at)})
    checkpoints.close()
    return folder, middle


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good[0], tmp_path / "checkpoints")


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip_a_byte(folder):
    file = largest_file(folder)
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


def truncate(folder):
    file = largest_file(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_the_manifest(folder):
    for file in list(folder.rglob("manifest.ocdbt")):
        file.unlink()


def lose_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [flip_a_byte, truncate, lose_the_manifest, lose_everything]


def restore_newest(folder, num_devices=2):
    config = make_config()
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint)
    abstract = step.abstract_state(config, EXAMPLE)
    try:
        return checkpoints.restore_newest(abstract, mesh_of(num_devices)), checkpoints
    finally:
        checkpoints.wait()


# A failed read leaves tasks in Orbax's own event loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_for_the_one_before(folder, good, damage):
    damage(folder / "30")
    (at, state, damaged), checkpoints = restore_newest(folder, num_devices=4)
    assert at == 20
    assert list(damaged) == [30] and damaged[30]
    jax.tree.map(np.testing.assert_array_equal, state, good[1])
    assert (folder / "damaged-30").is_dir() and not (folder / "30").exists()
    # The step is saved again and restored, as if nothing had happened.
    checkpoints.save(30, at_step(state, 30), None)
    checkpoints.close()
    assert restore_newest(folder)[0][0] == 30


def test_a_step_damaged_twice_is_set_aside_twice(folder):
    flip_a_byte(folder / "30")
    for _ in range(2):
        restore_newest(folder)
        shutil.copytree(folder / "damaged-30", folder / "30")
    assert (folder / "damaged-30-again").is_dir()


def test_where_all_are_damaged_nothing_is_touched_and_all_are_named(folder):
    for at, damage in zip((10, 20, 30), DAMAGES, strict=False):
        damage(folder / str(at))
    with pytest.raises(OSError, match=r"every checkpoint in .* is damaged \(30: .*20: .*10: "):
        restore_newest(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]


def test_one_asked_for_by_its_step_is_refused_where_it_is_damaged(folder):
    config = make_config()
    flip_a_byte(folder / "20")
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, read_only=True)
    with pytest.raises(OSError, match="20 is damaged"):
        checkpoints.restore(20, step.abstract_state(config, EXAMPLE), mesh_of(1))
    assert (folder / "20").is_dir()


def test_digests_are_the_same_on_any_mesh_and_find_exchanged_values():
    values = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    exchanged = values.copy()
    exchanged[[0, 1]] = exchanged[[1, 0]]
    found = []
    for num_devices in (1, 2, 8):
        mesh = mesh_of(num_devices)
        for where in (sharding.replicated(mesh), sharding.batch_sharded(mesh)):
            found.append(int(saved_arrays.digests([jax.device_put(values, where)])[0]))
    assert len(set(found)) == 1
    assert int(saved_arrays.digests([exchanged])[0]) != found[0]
    weights = 2 * np.arange(values.size, dtype=np.uint64) + 1
    assert found[0] == int((values.view(np.uint32).ravel() * weights).sum() % 2**32)


def test_newest_best_and_every_mth_stay_and_nothing_piles_up(tmp_path):
    config = make_config()
    section = config.checkpoint
    section.keep_newest, section.keep_every_steps = 2, 30
    state = step.create_state(config, EXAMPLE, mesh_of(1))
    # Evaluations run at every second step, and 20 is the best. A restart in between keeps this.
    for steps in (range(10, 50, 10), range(50, 80, 10)):
        checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", section)
        for at in steps:
            checkpoints.save(at, state, {"elbo": -abs(at - 20.0)} if at % 20 == 0 else None)
        checkpoints.save(at + 1, state, None)  # a preemption
        checkpoints.close()
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", section)
    assert checkpoints.steps() == [20, 30, 60, 70, 71]
    assert checkpoints.best_step() == 20


def open_folder(folder, *, read_only=False, **fields):
    section = make_config().checkpoint
    for name, value in fields.items():
        setattr(section, name, value)
    return checkpoint.Checkpoints(folder, section, read_only=read_only)


@pytest.fixture(scope="module")
def state():
    return step.create_state(make_config(), EXAMPLE, mesh_of(1))


def fill(folder, state, scores, **fields):
    """Saves a checkpoint a step, with these ELBOs (None: not evaluated)."""
    checkpoints = open_folder(folder, **fields)
    for at, score in scores.items():
        checkpoints.save(at, at_step(state, at), None if score is None else {"elbo": score})
    checkpoints.close()
    return checkpoints


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


HURTS = {
    "flip": flip,
    "zero": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "delete": lambda path: path.unlink(),
}


def test_each_file_of_a_checkpoint_damaged_in_turn_is_found_or_harmless(tmp_path, state):
    whole = tmp_path / "whole"
    fill(whole, state, {10: 1.0, 20: 2.0})
    abstract = step.abstract_state(make_config(), EXAMPLE)
    files = sorted(path.relative_to(whole) for path in (whole / "20").rglob("*") if path.is_file())
    outcomes = {}
    for file in files:
        for name, hurt in HURTS.items():
            if name != "delete" and not (whole / file).stat().st_size:
                continue
            folder = shutil.copytree(whole, tmp_path / "hurt")
            hurt(folder / file)
            checkpoints = open_folder(folder)
            best = checkpoints.best_step()
            at, restored, damaged = checkpoints.restore_newest(abstract, mesh_of(1))
            if at == 20:
                jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 20))
                assert best == (10 if checkpoints.warnings else 20)
                outcome = "figures" if checkpoints.warnings else "harmless"
            else:
                jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 10))
                assert at == 10 and damaged[20] and (folder / "damaged-20").is_dir()
                outcome = "set aside"
            outcomes[str(file), name] = outcome
            checkpoints.close()
            shutil.rmtree(folder)
    assert {outcomes["20/metrics/metrics", name] for name in HURTS} == {"figures"}
    found = [file for (file, _), outcome in outcomes.items() if outcome == "set aside"]
    assert len(outcomes) > 50 and len(found) > 20


def break_json(path):
    path.write_text("[1, 2]")


def lose_the_best_metric(path):
    figures = json.loads(path.read_text())
    path.write_text(json.dumps({"loss": 1.0, **{k: v for k, v in figures.items() if k != "elbo"}}))


def forge(path):
    path.write_text(path.read_text().replace("2.0", "9.0"))


@pytest.mark.parametrize("hurt", [*HURTS.values(), break_json, lose_the_best_metric, forge])
def test_damaged_figures_are_set_aside_and_their_checkpoint_stays(tmp_path, state, hurt):
    fill(tmp_path / "c", state, {10: 1.0, 20: 2.0, 30: 0.0})
    hurt(tmp_path / "c" / "20" / "metrics" / "metrics")
    reader = open_folder(tmp_path / "c", read_only=True)
    assert reader.best_step() == 30  # 10 was removed: 20 was better
    assert len(reader.warnings) == 1 and "figures of checkpoint 20" in reader.warnings[0]
    checkpoints = fill(tmp_path / "c", state, {40: -1.0, 50: -2.0, 60: -3.0})
    assert checkpoints.steps() == [20, 30, 50, 60]
    again = open_folder(tmp_path / "c")
    assert again.best_step() == 30 and again.warnings
    at, _, damaged = again.restore_newest(step.abstract_state(make_config(), EXAMPLE), mesh_of(1))
    again.close()
    assert (at, damaged) == (60, {})


def test_figures_of_an_earlier_version_are_read_without_a_digest(tmp_path, state):
    fill(tmp_path / "c", state, {10: 1.0, 20: 2.0})
    path = tmp_path / "c" / "20" / "metrics" / "metrics"
    assert set(json.loads(path.read_text())) == {"elbo", "digest"}
    path.write_text('{"elbo": 0.5}')
    reader = open_folder(tmp_path / "c", read_only=True)
    assert (reader.best_step(), reader.warnings) == (10, [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_never_the_best_and_displaces_none(tmp_path, state, value):
    scores = {10: 1.0, 20: value, 30: value, 40: value}
    checkpoints = fill(tmp_path / "c", state, scores)
    assert checkpoints.steps() == [10, 30, 40]
    assert checkpoints.best_step() == 10
    assert open_folder(tmp_path / "c", read_only=True).best_step() == 10
    checkpoints = fill(tmp_path / "none", state, {10: value, 20: value}, best_mode="min")
    assert checkpoints.best_step() is None


def test_a_checkpoint_under_another_number_is_damaged(tmp_path, state):
    fill(tmp_path / "c", state, {10: 1.0, 20: 2.0})
    shutil.copytree(tmp_path / "c" / "20", tmp_path / "c" / "50")
    (at, _, damaged), checkpoints = restore_newest(tmp_path / "c")
    checkpoints.close()
    assert (at, damaged) == (20, {50: "it is a copy of step 20"})


def as_a_link(path, good):
    path.symlink_to(good)


def as_a_dangling_link(path, good):
    path.symlink_to(path.parent / "nothing")


def as_a_file(path, good):
    path.write_text("60")


def as_an_empty_folder(path, good):
    path.mkdir()


def as_a_link_to_itself(path, good):
    path.symlink_to(path)


JUNK = [as_a_link, as_a_dangling_link, as_a_file, as_an_empty_folder, as_a_link_to_itself]


@pytest.mark.parametrize("make", JUNK)
def test_what_is_no_checkpoint_is_set_aside_and_the_run_goes_on(tmp_path, state, make):
    folder = tmp_path / "c"
    fill(folder, state, {10: 1.0, 20: 2.0})
    make(folder / "60", folder / "20")
    reader = open_folder(folder, read_only=True)
    assert reader.best_step() == (60 if make is as_a_link else 20)
    (at, _, damaged), checkpoints = restore_newest(folder)
    assert at == 20 and list(damaged) == [60]
    assert os.path.lexists(folder / "damaged-60")
    for number in (40, 60, 80):
        checkpoints.save(number, at_step(state, number), {"elbo": 3.0})
    checkpoints.close()
    assert checkpoints.steps() == [60, 80]


@pytest.mark.parametrize("target", ["nothing", "elsewhere"])
def test_a_link_under_the_name_of_an_unfinished_save_stops_no_run(tmp_path, state, target):
    folder = tmp_path / "c"
    fill(folder, state, {10: 1.0})
    (tmp_path / "elsewhere").mkdir()
    link = folder / "20.orbax-checkpoint-tmp"
    link.symlink_to(tmp_path / target)
    assert fill(folder, state, {20: 2.0}).steps() == [10, 20]
    assert (tmp_path / "elsewhere").is_dir() and not link.is_symlink()
    assert (folder / f"damaged-{link.name}").is_symlink()


def test_a_checkpoint_that_lies_elsewhere_is_restored_and_never_removed(tmp_path, state):
    folder = tmp_path / "c"
    fill(folder, state, {10: 1.0, 20: 2.0})
    (folder / "20").rename(tmp_path / "elsewhere")
    (folder / "20").symlink_to(tmp_path / "elsewhere")
    (at, _, damaged), checkpoints = restore_newest(folder)
    assert (at, damaged) == (20, {})
    for number in (40, 60, 80):
        checkpoints.save(number, at_step(state, number), {"elbo": 3.0})
    checkpoints.close()
    assert checkpoints.steps() == [20, 60, 80]
    assert restore_newest(folder)[0][0] == 80


def test_damaged_checkpoints_do_not_displace_whole_ones(tmp_path, state):
    folder = tmp_path / "c"
    fill(folder, state, {10: None, 20: None, 30: None}, keep_newest=3)
    flip_a_byte(folder / "20")
    checkpoints = open_folder(folder, keep_newest=3)
    checkpoints.restore_newest(step.abstract_state(make_config(), EXAMPLE), mesh_of(1))
    checkpoints.save(40, at_step(state, 40), None)
    checkpoints.wait()
    assert checkpoints.steps() == [10, 20, 30, 40]  # 20 counts for nothing
    checkpoints.save(50, at_step(state, 50), None)
    checkpoints.close()
    assert checkpoints.steps() == [30, 40, 50]


def test_starts_that_save_once_each_do_not_pile_up(tmp_path, state):
    for at in range(10, 100, 10):
        fill(tmp_path / "c", state, {at: None}, keep_newest=3)
    assert len(open_folder(tmp_path / "c", read_only=True).steps()) <= 6


def test_another_model_or_other_data_are_no_damage(tmp_path, state):
    folder = tmp_path / "c"
    fill(folder, state, {10: 1.0, 20: 2.0})
    config = make_config()
    config.model.hidden = (9,)
    abstract = step.abstract_state(config, EXAMPLE)
    line = r"another model or other data: params/.* is \[9\], was \[8\].* and \d+ more"
    checkpoints = open_folder(folder)
    with pytest.raises(errors.InputError, match=line):
        checkpoints.restore_newest(abstract, mesh_of(1))
    with pytest.raises(errors.InputError, match=line):
        checkpoints.restore(10, abstract, mesh_of(1))
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]


NAMES = ["run[1]", "run*", "?", "{a,b}", "a%5B", "a b", "[!x]", "é", "#1", "a:b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(tmp_path, state, name):
    fill(tmp_path / "run1" / "c", state, {5: 1.0})  # what a pattern would find
    fill(tmp_path / name / "c", state, {10: 1.0, 20: 2.0})
    moved = tmp_path / "good[2]"
    (tmp_path / name).rename(moved)
    (at, restored, damaged), checkpoints = restore_newest(moved / "c")
    checkpoints.close()
    assert (at, damaged) == (20, {})
    jax.tree.map(np.testing.assert_array_equal, restored, at_step(state, 20))


@pytest.mark.parametrize("path", ["a\\b", "a\\", "gs:/b", "/gs/bucket", "\udcff"])
def test_a_folder_that_cannot_hold_checkpoints_is_refused(tmp_path, path):
    with pytest.raises(errors.InputError, match=r"cannot hold checkpoints: .*; choose another"):
        checkpoint_folder.check_path(tmp_path / path)


def test_a_best_metric_knows_its_direction_or_asks():
    section = make_config().checkpoint
    assert section.best_mode == "auto"
    known = {"elbo": "max", "loss": "min", "reconstruction_loss": "min", "bits_per_dim": "min"}
    for section.best_metric, mode in known.items():
        assert ranking.mode(section) == mode
    for section.best_metric in ("beta", "kl_loss", "my_own"):
        with pytest.raises(errors.InputError, match=r"best_mode='auto' .* choose max or min"):
            ranking.mode(section)
    section.best_mode = "min"
    assert ranking.mode(section) == "min"
