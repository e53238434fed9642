"""Paths in buckets: whole objects, conditional writes, listings, and plain errors."""

import threading

import pytest

from pipeline.runtime import errors, files
from pipeline.runtime.storage import faults, places, requests


@pytest.fixture(params=["place", "s3_place"])
def any_place(request):
    return request.getfixturevalue(request.param)


def test_what_is_written_is_read_and_listed(any_place):
    folder = any_place / "run"
    assert not folder.exists()
    assert files.names(folder) == []
    files.write(folder / "config.json", "{}")
    files.write(folder / "steps" / "10" / "a.txt", b"1")
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "config.json").stat().st_size == 2
    assert files.names(folder) == ["config.json", "steps"]
    assert [path.name for path in folder.glob("*.json")] == ["config.json"]
    assert folder.below() == [folder / "config.json", folder / "steps" / "10" / "a.txt"]
    assert (folder.is_dir(), folder.is_file()) == (True, False)
    assert (folder / "config.json").is_file()
    (folder / "config.json").unlink()
    (folder / "config.json").unlink(missing_ok=True)
    assert files.names(folder) == ["steps"]


def test_other_processes_are_seen_at_once(store, place):
    assert files.names(place) == []
    store.write(f"{place.name}/new", b"1")
    assert files.names(place) == ["new"]
    store.delete(f"{place.name}/new")
    assert not (place / "new").exists()


def test_a_missing_object_is_a_missing_file(any_place):
    with pytest.raises(FileNotFoundError):
        (any_place / "none").read_bytes()
    with pytest.raises(FileNotFoundError):
        (any_place / "none").rename(any_place / "other")


def test_one_of_several_creates_an_object(any_place):
    path, created = any_place / "lease", []

    def create(number):
        if files.create(path, b"%d" % number):
            created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert path.read_bytes() == b"%d" % created[0]


def test_an_object_is_replaced_only_in_the_version_that_was_read(any_place):
    path = any_place / "lease"
    files.write(path, b"one")
    content, version = requests.read_version(path)
    assert content == b"one"
    assert requests.replace(path, b"two", version)
    assert not requests.replace(path, b"three", version)
    assert path.read_bytes() == b"two"
    _, version = requests.read_version(path)
    path.unlink()
    assert not requests.replace(path, b"four", version)
    assert not path.exists()


def test_a_write_whose_answer_is_lost_counts(place, proxy):
    proxy.shares, proxy.most = {"lost answer": 1.0}, 1
    assert files.create(place / "a", b"mine")
    assert proxy.hurt["lost answer"] == 1
    assert not files.create(place / "a", b"other")
    _, version = requests.read_version(place / "a")
    proxy.most = 1
    assert requests.replace(place / "a", b"next", version)
    assert (place / "a").read_bytes() == b"next"


@pytest.mark.parametrize("fault", ["429", "503", "cut upload", "lost answer"])
def test_bad_moments_of_a_store_pass(place, proxy, fault):
    proxy.shares, proxy.most = {fault: 1.0}, 2
    files.write(place / "a", b"text" * 1000)
    assert proxy.hurt[fault] == 2
    assert (place / "a").read_bytes() == b"text" * 1000


def test_a_folder_is_moved_with_its_marker_last(place, monkeypatch):
    step = place / "10"
    for name in ("commit_success.txt", "a", "sub/b"):
        files.write(step / name, name)
    order = []
    path_type = type(step)
    copy, unlink = path_type.copy, path_type.unlink
    monkeypatch.setattr(path_type, "copy", lambda s, to: (order.append(s.name), copy(s, to))[1])
    monkeypatch.setattr(
        path_type, "unlink", lambda s, **o: (order.append(f"-{s.name}"), unlink(s, **o))[1]
    )
    aside = files.set_aside(step)
    assert aside == place / "damaged-10"
    marker = "commit_success.txt"
    assert (order[2], order[3]) == (marker, f"-{marker}")
    assert not step.exists()
    assert len(aside.below()) == 3


def test_a_refusal_names_the_login(place, proxy):
    proxy.deny = 403
    with pytest.raises(PermissionError, match="gcloud auth application-default login"):
        (place / "a").read_bytes()
    with pytest.raises(errors.InputError, match=r"the store refuses .*gcloud auth"):
        faults.check_writable(place)


def test_a_bucket_that_is_missing_is_named(store):
    with pytest.raises(errors.InputError, match="there is no bucket 'no-bucket'"):
        faults.check_writable(places.of("gs://no-bucket/run"))


def test_the_check_leaves_nothing(store, place):
    faults.check_writable(place)
    assert store.names(place.name) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gs:/bucket/run", "a bucket is written gs://bucket/name"),
        ("s3:bucket", "a bucket is written s3://bucket/name"),
        ("gs://bucket", "needs a name after the bucket"),
        ("gs://bucket/", "needs a name after the bucket"),
        ("gs:///run", "'' can be no bucket"),
        ("gs://Bucket!/run", "can be no bucket"),
        ("gs://bucket/a//b", "no empty part"),
        ("gs://bucket/../b", "no empty part"),
        ("gs://bucket/run#1", "#"),
        ("gs://bucket/run*", "#"),
        ("http://bucket/run", "must be a folder, or begin with gs://, s3://"),
        ("az://bucket/run", "must be a folder, or begin with gs://, s3://"),
    ],
)
def test_names_that_cannot_be_buckets_are_refused(text, told):
    with pytest.raises(errors.InputError) as refused:
        places.of(text, name="--out")
    assert told in str(refused.value)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_named(monkeypatch):
    def missing(scheme):
        raise ImportError("gcsfs")

    monkeypatch.setattr("pipeline.runtime.storage.bucket.connect", missing)
    with pytest.raises(errors.InputError, match=r"needs the package gcsfs: pip install .*\[gcs\]"):
        places.of("gs://bucket/run")
