"""The command that compares frameworks: flags, processes and table. No test checks a time."""

import json
from pathlib import Path

import pytest

from pipeline.performance import timing
from pipeline.performance.frameworks import compare, forms, groups, works
from pipeline.runtime import errors


def parse(*arguments):
    return compare.parse(["benchmark_peers", *arguments])


def test_all_works_are_compared_unless_some_are_named():
    assert parse().works == tuple(works.WORKS)
    assert parse("--work=sonnet_vq_vae,conv_beta_vae").works == ("sonnet_vq_vae", "conv_beta_vae")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--work=vae", "--work=vae is unknown: choose of conv_beta_vae"),
        ("--rounds=0", "--rounds=0 must be at least 1"),
        ("--threads=0", "--threads=0 must be at least 1"),
        ("--processes=0", "--processes=0 must be at least 1"),
        ("conv_beta_vae", "is not a flag: write --work=NAME"),
        ("--round=3", "round"),
    ],
)
def test_a_mistake_is_one_line(flag, words):
    with pytest.raises(errors.InputError, match=words):
        parse(flag)


def test_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(compare, "CORES", 4)
    assert parse("--processes=4", "--threads=4").processes == 4
    with pytest.raises(errors.InputError, match="lends 4 cores, --threads=8; use --processes=4 or"):
        parse("--processes=5", "--threads=8")
    with pytest.raises(errors.InputError, match="--threads=2; use --processes=2 or fewer"):
        parse("--processes=4", "--threads=2")


def test_a_form_has_the_threads_of_all_others_and_what_its_process_had():
    environment = forms.environment(forms.Form("pytorch", preload="libx.so"), 3)
    assert {environment[name] for name in ("NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}
    assert environment["LD_PRELOAD"].startswith("libx.so")


def test_a_form_that_has_no_such_work_says_why(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(groups.Absent, match="is for VQ-VAEs"):
        groups.Group("conv_beta_vae", "lucidrains", (), environment={})


def test_a_process_that_fails_is_absent_with_its_last_words(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(groups.Absent, match=r"it ended with 1: KeyError: 'no_such_work'"):
        groups.Group("no_such_work", "ours", (), environment={})


def test_the_best_rival_stands_in_the_last_row():
    def figure(ratio):
        return {"ms": 1.0, "ratio": timing.Ratio(ratio, ratio, ratio), "version": "1"}

    figures = {"a": {forms.OURS: figure(1.0), "PyTorch": figure(2.0)}}
    figures["a"][compare.BEST] = figure(2.0)
    rows = compare.table(figures)
    assert [row[0] for row in rows[1:]] == ["PyTorch", compare.BEST]
    assert rows[1][2] == "2.000 (2.000 to 2.000)"
    json.dumps(figures)
