from typing import NamedTuple

import jax
import numpy as np
import pytest

from configs import beta_vae
from pipeline import datasets
from pipeline.mesh import sharding
from pipeline.runtime import errors
from pipeline.training import batching, resident
from tests.support.processes import train
from tests.support.runs import scalars

DEVICE = jax.devices()[:1]


def rows(process, processes, *, first_step=0, num=12):
    batches = batching.indices(
        100,
        seed=5,
        batch_size=16,
        first_step=first_step,
        process=process,
        processes=processes,
    )
    return [np.asarray(batches[i]) for i in range(num)]


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("first_step", [0, 3])
def test_batches_are_the_same_in_order_for_any_number_of_processes(processes, first_step):
    whole = rows(0, 1, num=20)
    shares = [rows(p, processes, first_step=first_step) for p in range(processes)]
    for step in range(12):
        together = np.concatenate([share[step] for share in shares])
        np.testing.assert_array_equal(together, whole[first_step + step])


def test_an_epoch_shows_every_example_once_and_the_next_in_another_order():
    stream = np.concatenate(rows(0, 1, num=13))
    first, second = stream[:100], stream[100:200]
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)


def test_seeds_share_the_order_of_examples_by_the_seed_of_the_data():
    config, mesh = beta_vae.get_config("smoke"), sharding.make_mesh({"data": 1}, devices=DEVICE)
    source = datasets.load(config).train

    def first(**seeds):
        config.update_from_flattened_dict({name.replace("_", "."): n for name, n in seeds.items()})
        return np.asarray(next(batching.ahead(source, config, mesh, first_step=0))["image"])

    shared = first(seed=3)
    assert not np.array_equal(first(seed=4), shared)
    np.testing.assert_array_equal(first(data_seed=3), shared)


def test_training_batches_are_uint8_over_all_devices():
    config = beta_vae.get_config("smoke")
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:4])
    batch = next(batching.ahead(datasets.load(config).train, config, mesh, first_step=7))
    assert batch["image"].dtype == np.uint8
    assert batch["image"].sharding == sharding.batch_sharded(mesh)
    for name, leaf in batching.abstract_batch(config, mesh).items():
        assert (batch[name].shape, batch[name].dtype) == (leaf.shape, leaf.dtype)


class Counting(NamedTuple):
    """A source that counts the examples that are read."""

    source: datasets.Source
    asked: list

    def __len__(self):
        return len(self.source)

    def read(self, indices):
        self.asked.append(len(indices))
        return self.source.read(indices)


def first_batches(num_devices, *, resident, num=8, threads=2, ahead=8):
    config = beta_vae.get_config("smoke")
    config.data.num_threads, config.data.prefetch_batches = threads, ahead
    config.batch_size, config.data.train_examples = 16, 50  # so that these go through two epochs
    config.data.binarize, config.data.resident = True, resident
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:num_devices])
    source = Counting(datasets.load(config).train, [])
    batches = batching.ahead(source, config, mesh, first_step=3)
    return [next(batches) for _ in range(num)], source.asked


@pytest.mark.parametrize("num_devices", [1, 4])
def test_resident_examples_come_in_the_same_order_and_are_read_once(num_devices):
    streamed, _ = first_batches(num_devices, resident=False)
    resident, asked = first_batches(num_devices, resident=True)
    assert asked == [1, 50]
    for one, other in zip(streamed, resident, strict=True):
        assert one.keys() == other.keys()
        for name, leaf in one.items():
            assert (leaf.dtype, leaf.sharding) == (other[name].dtype, other[name].sharding)
            np.testing.assert_array_equal(leaf, other[name])


@pytest.mark.parametrize(
    ("threads", "ahead", "at_once"), [(1, 3, 3), (2, 1, 1), (2, 7, 3), (3, 12, 4)]
)
def test_a_thread_reads_its_share_of_what_is_read_ahead_at_once(threads, ahead, at_once):
    found, asked = first_batches(2, resident=False, threads=threads, ahead=ahead)
    assert set(asked) == {16 * at_once}
    expected, _ = first_batches(2, resident=False, threads=1, ahead=1)
    for one, other in zip(expected, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_data_set_that_does_not_fit_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(resident.os, "sysconf", lambda name: 1 if "SIZE" in name else 800_000)
    with pytest.raises(errors.InputError, match=r"needs 0\.0 GB on each of 2 devices.*0\.0 GB"):
        first_batches(2, resident=True)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_large_batches_are_sent_by_themselves_and_are_the_same(num_devices, monkeypatch):
    config = beta_vae.get_config("smoke")
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:num_devices])
    source = datasets.load(config).train
    found = []
    for least in (batching.LARGE_BYTES, 0):
        monkeypatch.setattr(batching, "LARGE_BYTES", least)
        batches = batching.ahead(source, config, mesh, first_step=7)
        found.append([next(batches) for _ in range(5)])
    for small, large in zip(*found, strict=True):
        assert small.keys() == large.keys()
        for name in small:
            assert small[name].sharding == large[name].sharding
            np.testing.assert_array_equal(small[name], large[name])


LARGE = """
import sys
from pipeline.training import batching
batching.LARGE_BYTES = 0
from pipeline import train
sys.exit(train.main())
"""


def test_two_processes_learn_the_same_from_resident_examples_and_from_large_batches(tmp_path):
    few = ("--config.total_steps=12", "--config.log_every_steps=1", "--config.eval_every_steps=12")
    few += ("--config.data.train_examples=500", "--config.eval_examples=64")

    def points(name, *arguments, **options):
        workdir = tmp_path / name / "run"
        train(workdir, *few, *arguments, processes=2, devices=2, **options)
        return scalars(workdir)

    plain = points("plain")
    assert len(plain["train/loss"]) == 12
    assert points("resident", "--config.data.resident=True") == plain
    assert points("large", command=("-c", LARGE)) == plain


def test_the_last_heldout_batch_is_padded_and_masked():
    config = beta_vae.get_config("smoke")
    config.batch_size, config.eval_examples = 64, 100
    mesh = sharding.make_mesh({"data": -1}, devices=jax.devices()[:4])
    batches = list(batching.heldout_batches(datasets.load(config).heldout, config, mesh))
    assert [first for first, _ in batches] == [0, 64]
    assert [float(batch["mask"].sum()) for _, batch in batches] == [64.0, 36.0]


def test_binarised_pixels_are_255_from_128_on_and_the_source_stays_as_it_is():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)

    class Levels:
        def read(self, indices):
            return {"image": levels}

    config = beta_vae.get_config()
    config.data.binarize = True
    found = batching.read(Levels(), np.arange(4), config)["image"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found.ravel(), np.repeat([0, 255], 128))
    np.testing.assert_array_equal(levels.ravel(), np.arange(256))
