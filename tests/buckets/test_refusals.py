"""What cannot work with a bucket is told in one line, before anything is compiled."""

import pytest

from pipeline import evaluate, generate, plan, train
from tests.support.commands import refusal

CONFIG = "--config=configs/beta_vae.py:smoke"


@pytest.mark.parametrize("dry", ["--dry_run", "--nodry_run"])
def test_a_run_in_a_bucket_that_is_missing(store, capsys, monkeypatch, dry):
    told = refusal(train.main, capsys, monkeypatch, CONFIG, "--workdir=gs://no-bucket/run", dry)
    assert "there is no bucket 'no-bucket'" in told


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_refuses_this_user(place, proxy, capsys, monkeypatch, status):
    proxy.deny = status
    told = refusal(train.main, capsys, monkeypatch, CONFIG, f"--workdir={place}", "--dry_run")
    assert f"the store refuses {place}" in told
    assert "gcloud auth application-default login" in told


def test_a_bucket_that_can_only_be_read(store, place, proxy, capsys, monkeypatch):
    proxy.deny, proxy.denied = 403, ("POST", "PUT")
    told = refusal(train.main, capsys, monkeypatch, CONFIG, f"--workdir={place}")
    assert f"the store refuses {place}" in told
    assert store.names(place.name) == []


def test_checkpoints_cannot_lie_in_s3(capsys, monkeypatch):
    told = refusal(train.main, capsys, monkeypatch, CONFIG, "--workdir=s3://bucket/run")
    assert "Mount the bucket, give the folder as --workdir" in told
    assert "--config.checkpoint.atomicity=commit_file" in told


def test_a_place_without_a_run(place, capsys, monkeypatch):
    for main in (generate.main, evaluate.main):
        told = refusal(main, capsys, monkeypatch, f"--workdir={place}")
        assert f"--workdir={place} holds no run: there is no config.json in it" in told


def test_compiled_programs_in_a_bucket_that_is_missing(store, tmp_path, capsys, monkeypatch):
    told = refusal(
        train.main,
        capsys,
        monkeypatch,
        CONFIG,
        f"--workdir={tmp_path / 'run'}",
        "--config.compilation_cache=gs://no-bucket/compiled",
    )
    assert "there is no bucket 'no-bucket'" in told


@pytest.mark.parametrize(
    "flag", ["--workdir=gs:/bucket/run", "--workdir=gs://bucket", "--workdir=http://bucket/run"]
)
def test_names_that_are_no_places(flag, capsys, monkeypatch):
    assert flag in refusal(train.main, capsys, monkeypatch, CONFIG, flag)


@pytest.mark.parametrize("name", ["mnist", "dsprites", "cifar10", "image_folder", "arrays"])
def test_data_in_a_bucket_that_were_not_prepared(tmp_path, capsys, monkeypatch, name):
    config, path = f"--config=configs/beta_vae.py:{name}", "--config.data.path=gs://bucket/data"
    told = refusal(train.main, capsys, monkeypatch, config, path, f"--workdir={tmp_path / 'run'}")
    assert "config.data.path=gs://bucket/data: only data.name='prepared' reads buckets" in told


def test_figures_are_written_on_this_machine_only(tmp_path, capsys, monkeypatch):
    flags = (CONFIG, "--topology=cpu:2", "--json=gs://bucket/plan.json")
    assert "--json=gs://bucket/plan.json must lie on" in refusal(
        plan.main, capsys, monkeypatch, *flags
    )
