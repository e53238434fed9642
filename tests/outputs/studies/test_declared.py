"""What a study's file declares: its runs, its parts, and one line for every mistake."""

import pytest
from ml_collections import ConfigDict

from pipeline.outputs.studies import declared, fields
from pipeline.runtime import errors, run_config
from tests.support import studies

# ml_collections needs this to load a config's file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def read(tmp_path):
    def read(*overrides, replicas=1, **changes):
        path = studies.write(tmp_path, **changes)
        return declared.read(path, tmp_path / "out", overrides, replicas=replicas)

    return read


def test_a_run_is_a_method_with_a_seed_seed_by_seed(read, tmp_path):
    study = read()
    names = ["one/seed3", "two/seed3", "one/seed5", "two/seed5"]
    assert [run.name for run in study.runs] == names
    assert [run.workdir for run in study.runs] == [tmp_path / "out" / name for name in names]
    assert [run.config.seed for run in study.runs] == [3, 3, 5, 5]
    assert [run.config.model.name for run in study.runs[:2]] == ["beta_vae", "capacity_vae"]
    assert study.runs[0].config.model.beta.end == 4.0
    assert {run.config.batch_size for run in study.runs} == {32}
    assert study.runs[3].arguments[0] == "--config=configs/capacity_vae.py:smoke"
    assert study.runs[3].arguments[-1] == "--config.seed=5"


def test_an_argument_overrides_the_study(read):
    study = read("--config.batch_size=8")
    assert {run.config.batch_size for run in study.runs} == {8}
    assert study.command("one").endswith("--config.batch_size=32 --config.batch_size=8")


@pytest.mark.parametrize("of", [1, 2, 3, 4, 5])
def test_the_parts_cover_every_run_once(read, of):
    study = read()
    parts = [[study.runs.index(run) for (run,) in study.share(index, of)] for index in range(of)]
    assert parts == [list(range(4))[index::of] for index in range(of)]


def test_replicas_are_seeds_that_train_in_one_run_above_theirs(read, tmp_path):
    study = read(seeds=(3, 4, 5, 6), replicas=2)
    assert [[run.name for run in group] for group in study.share(1, 2)] == [
        ["two/seed3", "two/seed4"],
        ["two/seed5", "two/seed6"],
    ]
    assert study.share(0, 2)[1][0].workdir == tmp_path / "out" / "one" / "seeds5-6" / "seed5"
    whole = study.training(study.share(0, 2)[1])
    assert whole.workdir == tmp_path / "out" / "one" / "seeds5-6"
    assert whole.arguments[-2:] == ("--config.seed=5", "--config.replicas=2")
    assert (whole.config.seed, whole.config.replicas, whole.config.data.seed) == (5, 2, 5)
    # Each is the run that the replicas make of it.
    assert [
        (run.config.seed, run.config.replicas, run.config.data.seed) for run in study.runs[4:6]
    ] == [
        (5, 1, 5),
        (6, 1, 5),
    ]


def test_replicas_that_are_all_seeds_of_a_method_lie_where_its_runs_lie(read, tmp_path):
    study = read("--config.data.seed=9", seeds=(3, 4), replicas=2)
    assert [run.workdir for run in study.runs] == [tmp_path / "out" / r.name for r in study.runs]
    assert [run.name for run in study.runs] == ["one/seed3", "one/seed4", "two/seed3", "two/seed4"]
    assert {run.config.data.seed for run in study.runs} == {9}


def test_a_run_is_trained_at_its_last_step_and_evaluated_with_its_report(read):
    study = read()
    run = study.runs[0]
    assert (run.steps_done, run.is_trained, study.is_evaluated(run)) == (0, False, False)
    (run.workdir / "checkpoints" / "30").mkdir(parents=True)
    assert (run.steps_done, run.is_trained) == (30, False)
    (run.workdir / "checkpoints" / "60").mkdir()
    assert (run.is_trained, study.is_evaluated(run)) == (True, False)
    run.report.mkdir(parents=True)
    assert run.report == run.workdir / "reports" / "60"
    path = run.report / "metrics.json"
    for text, evaluated in [
        ("{", False),
        ('{"evaluations": ["latents"], "left_out": {}}', False),
        ('{"evaluations": ["latents", "heldout"], "left_out": {}}', True),
        ('{"evaluations": ["latents"], "left_out": {"heldout": "why"}}', True),
    ]:
        path.write_text(text)
        assert study.is_evaluated(run) == evaluated


METHOD = ("configs/beta_vae.py:smoke",)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": ()}, "study.seeds is empty"),
        ({"seeds": (1, 1)}, r"study.seeds=\(1, 1\) must be different whole numbers"),
        ({"seeds": ("1",)}, "must be different whole numbers"),
        ({"seeds": (-1,)}, "method one: config.seed=-1"),
        ({"methods": {}}, "study.methods is empty"),
        ({"methods": METHOD}, "study.methods=.* must be a ConfigDict"),
        ({"methods": {"a/b": METHOD}}, "'a/b' is the name of a folder"),
        ({"methods": {"one": METHOD[0]}}, "study.methods.one=.* must be a tuple"),
        ({"methods": {"a": METHOD, "A": METHOD}}, "A and a are one folder"),
        ({"methods": {"a": METHOD, "b": METHOD}}, "a and b are the same: take one out"),
        ({"methods": {"a": (*METHOD, "beta=4")}}, "study.methods.a: 'beta=4' is no override"),
        ({"methods": {"a": (*METHOD, "--config.seed=1")}}, "study.seeds decides that"),
        ({"overrides": ("--config.replicas=2",)}, "in a study, --replicas decides that"),
        ({"replicas": 3}, r"--replicas=3 trains 3 seeds that follow .* study.seeds=\(3, 5\)"),
        ({"replicas": 2}, r"--replicas=2 .* study.seeds=\(3, 5\): choose another number"),
        ({"methods": {"a": ("configs/nothing.py",)}}, "method a: --config=configs/nothing.py"),
        ({"methods": {"a": (*METHOD, "--config.model.bta=4")}}, "method a: .*no such field"),
        ({"methods": {"a": (*METHOD, "--config.total_steps=0")}}, "method a: .*total_steps=0"),
        ({"overrides": ("--config.seed=2",)}, "study.overrides: --config.seed=2"),
        ({"overrides": ("--config.btch_size=2",)}, "method one: .*did you mean batch_size"),
        ({"evals": ("latent",)}, "evaluation 'latent' is unknown: did you mean latents"),
        ({"metrics": ("mgi",)}, "figure 'mgi' is unknown: did you mean mig"),
        ({"metrics": ()}, "study.metrics is empty"),
        ({"seed": (1,)}, "study field 'seed' is unknown: did you mean seeds"),
        ({"evals": None}, "lacks study.evals, a tuple of evaluations"),
    ],
)
def test_a_mistake_is_one_line(read, changes, line):
    with pytest.raises(errors.InputError, match=line) as raised:
        read(**changes)
    assert "\n" not in str(raised.value)


def test_a_seed_is_the_studys_own_on_the_command_line_too(read):
    with pytest.raises(
        errors.InputError, match=r"--config\.seed=7: in a study, study.seeds decides"
    ):
        read("--config.seed=7")


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def get_config():\n    pass\n")
    with pytest.raises(errors.InputError, match=r"defines no get_study\(\): see configs/studies"):
        declared.read(str(path), tmp_path)
    with pytest.raises(errors.InputError, match="no such file; ours are disentanglement"):
        declared.read("nothing", tmp_path)


@pytest.mark.parametrize("presets", ["", ":smoke", ":dsprites,smoke"])
def test_the_shipped_study_is_whole(tmp_path, presets):
    study = declared.read(f"disentanglement{presets}", tmp_path)
    assert len(study.runs) == len(study.methods) * len(study.seeds) == 3 * len(study.methods)
    assert set(fields.FIELDS) == {"methods", "overrides", "seeds", "evals", "metrics"}
    shared = ("batch_size", "total_steps", "optimizer.learning_rate", "model.network")
    flats = [run_config.flatten(run.config) for run in study.runs]
    if not presets:
        assert len({tuple(flat[field] for field in shared) for flat in flats}) == 1
    assert isinstance(study.runs[0].config, ConfigDict)
