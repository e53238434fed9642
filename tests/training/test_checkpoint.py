import shutil

import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline.mesh import sharding
from pipeline.training import checkpoint, step

EXAMPLE = {"image": jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}


def make_config():
    config = beta_vae.get_config("smoke")
    config.model.hidden = (8,)
    return config


def mesh_of(num_devices):
    return sharding.make_mesh({"data": -1}, devices=jax.devices()[:num_devices])


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Returns a folder with checkpoints of steps 10, 20 and 30, and the state at step 20."""
    folder = tmp_path_factory.mktemp("good") / "checkpoints"
    config = make_config()
    config.checkpoint.keep_newest = 3
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint)
    state = step.create_state(config, EXAMPLE, mesh_of(2))
    for at in (10, 20, 30):
        state = jax.tree.map(lambda leaf: leaf + 1, state)
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
    checkpoints.save(30, state, None)
    checkpoints.close()
    assert restore_newest(folder)[0][0] == 30


def test_a_step_damaged_twice_is_set_aside_twice(folder):
    for _ in range(2):
        flip_a_byte(folder / "30")
        restore_newest(folder)
        shutil.copytree(folder / "20", folder / "30")
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
            found.append(int(checkpoint.digests([jax.device_put(values, where)])[0]))
    assert len(set(found)) == 1
    assert int(checkpoint.digests([exchanged])[0]) != found[0]
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
