"""Data that changed between two starts are named and refused, unless they are accepted."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import beta_vae
from pipeline import datasets
from pipeline.runtime import errors, peers, run_config
from pipeline.training import fingerprint
from tests.support.commands import train
from tests.support.runs import snapshot


class Images:
    """Images [N, 4, 4, 1] with labels; counts the examples that were read."""

    def __init__(self, num=100, seed=0):
        rng = np.random.default_rng(seed)
        self.rows = {
            "image": rng.integers(0, 256, (num, 4, 4, 1)).astype(np.uint8),
            "label": np.arange(num, dtype=np.int32) % 3,
        }
        self.num_read = 0

    def __len__(self):
        return len(self.rows["image"])

    def read(self, indices):
        self.num_read += len(indices)
        return {name: rows[indices] for name, rows in self.rows.items()}


class Named(Images):
    """Images whose source describes itself."""

    classes = "cat, dog"

    def fingerprint(self):
        return {"examples": str(len(self)), "classes": self.classes, "pixels": "0123456789ab"}


def ready(train, heldout=None, *, accept=False):
    given = ConfigDict({"data": {"accept_changes": accept}})
    return SimpleNamespace(given=given, opened=datasets.Splits(train, heldout or Images(9)))


def start(train, workdir, *, accept=False, heldout=None):
    """Does what a start of a run does; returns its warnings."""
    said = []
    found = fingerprint.check(ready(train, heldout, accept=accept), workdir, peers.alone())
    fingerprint.save(found, workdir, warn=said.append)
    return said


def changed(name, at, value):
    images = Images()
    images.rows[name][at] = value
    return images


def test_equal_data_have_equal_fingerprints_and_few_examples_are_read():
    images = Images(100_000)
    found = datasets.fingerprint(images)
    assert found == datasets.fingerprint(Images(100_000)) and found["examples"] == "100000"
    assert images.num_read == datasets.SAMPLE
    assert datasets.fingerprint(Images(3))["examples"] == "3"


@pytest.mark.parametrize(
    ("train", "heldout", "words"),
    [
        (Images(101), None, "examples 101, were 100 (train)"),
        (changed("image", 0, 7), None, "other content (train)"),
        (changed("image", 99, 7), None, "other content (train)"),
        (changed("label", 0, 2), None, "other content (train)"),
        (Images(), Images(8), "examples 8, were 9 (heldout)"),
    ],
)
def test_what_changed_is_named_and_refused_unless_told_to_accept_it(
    tmp_path, train, heldout, words
):
    assert start(Images(), tmp_path) == start(Images(), tmp_path) == []
    before = (tmp_path / "data.json").read_bytes()
    with pytest.raises(errors.InputError, match="accept_changes=True") as raised:
        start(train, tmp_path, heldout=heldout)
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert (tmp_path / "data.json").read_bytes() == before
    (said,) = start(train, tmp_path, heldout=heldout, accept=True)
    assert words in said
    assert start(train, tmp_path, heldout=heldout) == []


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("cat, hound", "classes: new 'hound', gone 'dog'"),
        ("cat, dog, eel", "classes: new 'eel'"),
        ("dog, cat", "classes in another order"),
    ],
)
def test_a_source_that_describes_itself_is_asked(tmp_path, classes, words):
    start(Named(), tmp_path, heldout=Named())
    other = Named()
    other.classes = classes
    words = re.escape(f"{words} (train, heldout)")
    with pytest.raises(errors.InputError, match=words):
        start(other, tmp_path, heldout=other)
    assert other.num_read == 0


def test_a_run_without_the_file_gets_one_and_a_better_description_is_no_change(tmp_path):
    assert start(Images(), tmp_path) == []
    assert start(Named(), tmp_path) == []
    assert "train.classes" in json.loads((tmp_path / "data.json").read_text())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"a": 1}', b"[" * 100_000])
def test_a_damaged_file_is_set_aside_with_a_warning(tmp_path, content):
    start(Images(), tmp_path)
    (tmp_path / "data.json").write_bytes(content)
    (said,) = start(Images(), tmp_path)
    assert "damaged" in said
    assert (tmp_path / "damaged-data.json").read_bytes() == content
    assert start(Images(), tmp_path) == []


def test_other_commands_only_warn(tmp_path):
    splits = ready(Images()).opened
    assert fingerprint.changes(splits, tmp_path) == []
    start(Images(), tmp_path)
    assert fingerprint.changes(splits, tmp_path) == []
    (said,) = fingerprint.changes(splits._replace(train=Images(7)), tmp_path)
    assert "examples 7, were 100 (train)" in said


def test_a_subset_has_the_fingerprint_of_its_own_examples():
    half = datasets.Subset(Images(), np.arange(50))
    other = datasets.Subset(Images(), np.arange(50, 100))
    assert datasets.fingerprint(half) != datasets.fingerprint(other)
    assert datasets.fingerprint(half)["examples"] == "50"


@pytest.mark.parametrize("more", [(), ("--dry_run",)])
def test_the_command_refuses_changed_data_before_it_writes(tmp_path, more):
    workdir = tmp_path / "run"
    config = beta_vae.get_config("smoke")
    config.data.heldout_examples = 10_000
    run_config.save(run_config.settled(config, "cpu"), workdir)
    (workdir / "data.json").write_text('{"train.examples": "7"}')
    before = snapshot(workdir)
    out, err = train(workdir, *more, code=2)
    assert err.count("error: ") == 1 and err.startswith("error: the data are not those of the run")
    assert "examples 727280, were 7 (train)" in err and not out
    assert snapshot(workdir) == before


def test_a_run_from_before_fingerprints_is_refused_if_its_labels_were_others(tmp_path):
    for name in ("2", "10"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    config = beta_vae.get_config("image_folder,smoke")
    config.data.path, config.data.image_size = str(tmp_path / "images"), 8
    config.batch_size = 2
    workdir = tmp_path / "run"
    run_config.save(config, workdir)
    older = SimpleNamespace(given=config, opened=datasets.load(config))
    with pytest.raises(errors.InputError, match="natural order, and were in the order of texts"):
        fingerprint.check(older, workdir, peers.alone())
    config.data.accept_changes = True
    found = fingerprint.check(older, workdir, peers.alone())
    fingerprint.save(found, workdir, warn=print)
    config.data.accept_changes = False
    assert fingerprint.check(older, workdir, peers.alone()) == found


def test_each_damaged_file_stays(tmp_path):
    for content in ("one", "two", "three"):
        (tmp_path / "data.json").write_text(content)
        start(Images(), tmp_path)
    kept = {path.read_text() for path in tmp_path.glob("damaged-data.json*")}
    assert kept == {"one", "two", "three"}
