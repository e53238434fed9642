"""The command `evaluate`: it reports the training loop's own figures, on any machine."""

import base64
import dataclasses
import html.parser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import beta_vae, default, vq_vae
from pipeline import datasets, evals, evaluate, generate
from pipeline.display import terminal, texts
from pipeline.mesh import sharding
from pipeline.outputs import comparison, report_files, saved_reports
from pipeline.runtime import errors, registry, run_config
from pipeline.training import setup, step
from tests.support import runs
from tests.support.environment import OPTIMIZATION
from tests.support.processes import free_port

ROOT = Path(__file__).parents[2]
NUM = 90  # held-out examples of an evaluation: a batch of 64 and a part of one
EVALS = "--evals=heldout,latents,importance_weighted,reconstructions,disentanglement,image_quality"
DEVICES = tuple(jax.devices())


def nothing(config, mesh, source):
    """Makes an evaluation that yields nothing."""
    return lambda state: iter(())


def make_config(module=beta_vae, **changes):
    config = module.get_config("smoke")
    config.model.hidden, config.batch_size, config.eval_examples = (16,), 64, NUM
    config.importance_weighted.num_samples = 5
    config.image_quality.num_examples, config.image_quality.lpips = 40, ("alex",)
    config.disentanglement.num_examples, config.disentanglement.protocol = 230, "quick"
    config.disentanglement.metrics = ("mig", "mig_chen", "modularity", "irs")
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return runs.save_run(tmp_path_factory.mktemp("runs") / "a", make_config(), (1.0, 2.0))


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    use(1, monkeypatch)


def use(num, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(DEVICES[:num]))


def run(workdir, *arguments):
    page = evaluate.run(evaluate.parse(["evaluate", f"--workdir={workdir}", *map(str, arguments)]))
    return page, json.loads((page.parent / "metrics.json").read_text())


def refusal(capsys, monkeypatch, *arguments):
    """Returns the one error line of a command that exits with code 2."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    assert evaluate.main() == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err


@pytest.fixture(scope="module")
def reported(workdir, tmp_path_factory):
    """Returns what the command writes for the best checkpoint, on one device."""
    out = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        use(1, patch)
        return run(workdir, EVALS, f"--out={out}")


def test_the_figures_are_those_of_the_loop_bitwise(workdir, reported):
    config = run_config.load(workdir)
    mesh = sharding.make_mesh({"data": -1})
    state = step.create_state(config, datasets.example_spec(config), mesh)
    params = jax.tree.map(lambda leaf: 2 * leaf, state.params)  # as `make_run` saved them
    state = dataclasses.replace(state, step=state.step + 2, params=params)
    expected = {}
    for name in (
        "heldout",
        "latents",
        "importance_weighted",
        "disentanglement",
    ):  # as `loop.run` makes and calls them
        module = registry.load("evals", name, field="evals")
        for tag, value in module.make(config, mesh, datasets.load(config).heldout)(state):
            expected[tag.removeprefix("heldout/")] = value
    found = reported[1]
    assert found["step"] == 2  # the best of the two
    floats = {name: value for name, value in expected.items() if isinstance(value, float)}
    assert floats == {name: found["figures"][name] for name in floats}
    assert len(floats) > 17
    assert found["distributions"]["kl_per_latent"] == expected["kl_per_latent"].tolist()
    assert found["texts"]["latents"] == expected["latents"]


@pytest.mark.parametrize(("devices", "batch_size"), [(4, 60), (1, 40)])
def test_neither_devices_nor_batches_change_the_figures(
    workdir, reported, tmp_path, monkeypatch, devices, batch_size
):
    use(devices, monkeypatch)
    _, found = run(workdir, EVALS, f"--batch_size={batch_size}", f"--out={tmp_path}")
    assert_same(found, reported[1])


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found.keys() - {"figures", "distributions", "texts"}:
        assert found[name] == expected[name], name
    for group in ("figures", "distributions"):
        assert found[group].keys() == expected[group].keys()
        for name, value in expected[group].items():
            np.testing.assert_allclose(found[group][name], value, rtol=1e-5, atol=1e-5)


def test_two_processes_write_what_one_writes(workdir, reported, tmp_path):
    port, outputs = free_port(), []
    environment = os.environ | {"XLA_FLAGS": OPTIMIZATION, "NPROC": "2"}
    arguments = [f"--workdir={workdir}", EVALS, f"--out={tmp_path}"]
    arguments += [f"--coordinator=127.0.0.1:{port}"]
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.evaluate", *arguments, "--num_processes=2",
             f"--process_id={i}"],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240) for process in together]
    assert [process.returncode for process in together] == [0, 0], outputs
    assert outputs[0][0].splitlines()[-1] == str(tmp_path / "index.html")
    assert not {"heldout", "index.html"} & set(outputs[1][0].split())
    assert_same(json.loads((tmp_path / "metrics.json").read_text()), reported[1])


def test_a_run_is_only_read_but_for_its_reports(workdir):
    before = runs.snapshot(workdir)
    page, _ = run(workdir, "--step=1", "--evals=samples")
    assert page == workdir / "reports" / "1" / "index.html"
    after = runs.snapshot(workdir)
    written = {path for path in after if "reports" in path.parts}
    names = {path.name for path in written}
    assert names == {"reports", "1", "index.html", "metrics.json", "samples.png"}
    assert {path: after[path] for path in after.keys() - written} == before


class Outline(html.parser.HTMLParser):
    """Collects the elements of a page that could load something, and its visible text."""

    def __init__(self, page):
        super().__init__()
        self.sources, self.tags, self.text = [], set(), ""
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [
            value for name, value in attributes if name in ("src", "href", "xlink:href")
        ]

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone(workdir, reported):
    page, found = reported
    outline = Outline(page)
    assert not outline.tags & {"script", "link", "iframe"}
    assert all(source.startswith(("data:image/", "#")) for source in outline.sources)
    shown = [base64.b64decode(s.partition(",")[2]) for s in outline.sources if s[0] == "d"]
    assert shown == [(page.parent / name).read_bytes() for name in found["files"].values()]
    assert "url(http" not in page.read_text()
    for words in (*found["figures"], "model.latent_dim", "reconstructions", "variance of the mean"):
        assert words in outline.text, words


def test_named_evaluations_alone_are_run(workdir, tmp_path, capsys):
    _, found = run(workdir, "--evals=latents, samples", f"--out={tmp_path}")
    assert found["evaluations"] == ["latents", "samples"]
    assert set(found["figures"]) == {"active_units", "active_share", "aggregate_kl"}
    out = capsys.readouterr().out
    assert "1/2 latents" in out
    assert "aggregate_kl" in out


def test_what_may_change_on_resuming_may_change_here(workdir, tmp_path, capsys, monkeypatch):
    flag = "--config.eval_examples=32"
    assert run(workdir, "--evals=heldout", flag, f"--out={tmp_path}")[1]["examples"] == 32
    line = refusal(capsys, monkeypatch, f"--workdir={workdir}", "--config.model.latent_dim=3")
    assert "an evaluation is of the run as it is: config.model.latent_dim is 3, was 10" in line


def test_evaluations_that_do_not_apply_are_left_out_and_named():
    config = make_config(vq_vae, **{"data.variance": 0.1})
    mesh, source = sharding.make_mesh({"data": -1}), datasets.load(config).heldout
    chosen = evals.choose("all", config, mesh, source)
    assert tuple(chosen.evaluations)[: len(config.evals)] == config.evals
    assert {"latents", "importance_weighted"} <= chosen.left_out.keys()
    assert chosen.left_out.keys() | chosen.evaluations.keys() == set(registry.names("evals"))
    assert "needs a model with a Gaussian posterior" in chosen.left_out["latents"]
    with pytest.raises(errors.InputError, match="needs a model with a Gaussian posterior"):
        evals.choose("heldout,latents", config, mesh, source)


def test_batches_keep_the_runs_size_if_the_devices_divide_it(workdir, monkeypatch):
    def sizes(shards, devices):
        config, notes = make_config(deterministic_shards=shards), []
        ready = setup.prepare_evaluation(config, devices=devices, note=notes.append)
        return ready.config.eval_batch_size, ready.config.deterministic_shards, len(notes)

    assert sizes(0, DEVICES[:4]) == (64, 0, 0)
    assert sizes(0, DEVICES[:3]) == (66, 0, 0)
    assert sizes(4, DEVICES[:3]) == (66, 0, 1)
    monkeypatch.setenv("NPROC", "4")
    assert sizes(4, DEVICES[:4]) == (64, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--evals=heldout,health"], "'health' is unknown: choose all or some of code_maps,"),
        (["--evals="], "'' is unknown"),
        (["--step=9"], "--step=9 is no checkpoint of this run"),
        (["--batch_size=-1"], "--batch_size=-1 must not be negative"),
        (["--batch_size=many"], "many"),
        (["--config.eval_exmples=3"], "no such field; did you mean eval_examples"),
        (["--config.seed"], "argument '--config.seed' has no value"),
        (["--config.seed=x"], "seed"),
        (["runs/a"], "argument 'runs/a' is not a flag: write --workdir=runs/a"),
        (["--compare"], "--compare needs two runs or more"),
        (["--process_id=1"], "--coordinator, --num_processes and --process_id go together"),
    ],
)
def test_a_mistake_is_one_line(workdir, capsys, monkeypatch, arguments, words):
    assert words in refusal(capsys, monkeypatch, f"--workdir={workdir}", *arguments)


def test_batches_that_cannot_be_cut_are_refused(workdir, capsys, monkeypatch):
    use(4, monkeypatch)
    line = refusal(capsys, monkeypatch, f"--workdir={workdir}", "--batch_size=6")
    assert "eval_batch_size=6 is not divisible by 4 devices" in line


def test_a_folder_without_a_run_or_a_checkpoint_is_refused(tmp_path, capsys, monkeypatch):
    assert "--workdir is needed" in refusal(capsys, monkeypatch)
    line = refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    assert "holds no run: there is no config.json in it" in line
    run_config.save(make_config(), tmp_path)
    assert "has no checkpoint yet" in refusal(capsys, monkeypatch, f"--workdir={tmp_path}")


def test_fields_that_are_newer_than_the_run_have_their_defaults(workdir, tmp_path):
    saved = json.loads((workdir / "config.json").read_text())
    older = {k: v for k, v in saved.items() if not k.startswith(("importance_w", "eval_batch"))}
    copy = tmp_path / "older"
    copy.mkdir()
    (copy / "config.json").write_text(json.dumps(older))
    (copy / "checkpoints").symlink_to(workdir / "checkpoints")
    _, found = run(copy, "--evals=samples")
    assert found["step"] == 2


def values_of_every_kind():
    random = np.random.default_rng(0)
    return [
        evals.Value("a", "elbo", -1234.5),
        evals.Value("a", "loss", float("nan")),
        evals.Value("a", "code_usage", np.float32([1.0, np.inf, 0.5])),
        evals.Value("a", "perplexity", np.float32(3)),
        evals.Value("b", "samples", random.random((6, 5, 3), np.float32)),
        evals.Value("b", "reconstructions", random.integers(0, 256, (6, 5, 1), np.uint8)),
        evals.Value("b", "code_age", random.integers(0, 256, (4, 6, 5, 3), np.uint8)),
        evals.Value("c", "latents", "| a |\n|---|\n| <b>1</b> & 2 |"),
    ]


def test_every_kind_of_value_is_written(workdir, tmp_path, reported):
    keys = ("run", "step", "choice", "seed", "examples", "model", "data", "evaluations", "left_out")
    about = {key: reported[1][key] for key in keys}
    found = report_files.write(
        tmp_path, workdir, default.get_config(), about, values_of_every_kind(), ["be <careful>"]
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    assert found["figures"] == {"elbo": -1234.5, "loss": None, "perplexity": 3.0}
    assert found["distributions"] == {"code_usage": [1.0, None, 0.5]}
    assert "nats" in found["units"]["elbo"]
    with Image.open(tmp_path / "samples.png") as file:
        assert (file.size, file.mode) == ((5, 6), "RGB")
    with Image.open(tmp_path / "reconstructions.png") as file:
        np.testing.assert_array_equal(file, values_of_every_kind()[5].content[..., 0])
    with Image.open(tmp_path / "code_age.gif") as file:
        assert file.n_frames == 4
    text = (tmp_path / "index.html").read_text()
    assert "<td>&lt;b&gt;1&lt;/b&gt; &amp; 2</td>" in text
    assert "be &lt;careful&gt;" in text
    assert "−1,234.5" in text
    assert not list(tmp_path.glob(".*"))  # no temporary file is left
    assert saved_reports.read(tmp_path) == found
    assert evals.covered("latents", found)
    assert not evals.covered("samples", found)
    assert not evals.covered("all", found)
    assert saved_reports.read(tmp_path / "nothing") is None


@pytest.mark.parametrize("process", [0, 1])
def test_what_is_drawn_is_drawn_by_process_0_alone(monkeypatch, process):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    drawn = []
    source = evals.Watched(np.arange(5))

    def draw(state):
        yield "heldout/elbo", -float(state)
        yield "heldout/samples", lambda: drawn.append(1) or np.zeros((2, 2, 1))

    chosen = evals.Chosen({"both": draw}, {}, source)
    values = evals.run(chosen, 3, examples=5, screen=terminal.Terminal(active=False))
    assert [value.name for value in values] == ["elbo", "samples"]
    assert evals.scalars(values) == {"elbo": -3.0}
    assert len(drawn) == (1 if process == 0 else 0)


def test_runs_are_compared_and_evaluated_where_they_were_not(workdir, tmp_path, capsys):
    other = runs.save_run(tmp_path / "b", make_config(**{"model.latent_dim": 4}), (1.0, 2.0))
    run(workdir, "--evals=latents")
    capsys.readouterr()
    arguments = ["evaluate", "--compare", workdir, other, f"--out={tmp_path}", "--evals=latents"]
    page = evaluate.run(evaluate.parse([*map(str, arguments)]))
    assert page == tmp_path / "compare.html"
    out = capsys.readouterr().out
    assert f"{other} at step 2" in out  # only that one was evaluated
    assert f"{workdir} at step 2" not in out
    assert [line.split() for line in out.splitlines() if "latent_dim" in line] == [
        ["model.latent_dim", "10", "4"]
    ]
    ranks = [line.split()[1:] for line in out.splitlines() if "udr_" in line]
    assert len(ranks) == 2
    assert all(0 <= float(value) <= 1 for row in ranks for value in row if value != "*")
    found = saved_reports.read(other / "reports" / "2")
    assert texts.number(found["figures"]["aggregate_kl"]) in out
    assert "model.latent_dim" in Outline(page).text
    assert (tmp_path / "b" / "reports" / "2" / "index.html").is_file()


def test_a_damaged_report_is_named_and_the_others_are_compared(workdir, tmp_path, capsys):
    other = runs.save_run(tmp_path / "b", make_config(), (1.0, 2.0))
    third = runs.save_run(tmp_path / "c", make_config(), (1.0, 2.0))
    for each in (workdir, other, third):
        run(each, "--evals=latents")
    (other / "reports" / "2" / "metrics.json").write_text('{"figures": {"elbo": "')
    (third / "reports" / "2" / "metrics.json").write_text("[]")
    shutil.rmtree(third / "checkpoints")
    (third / "checkpoints").mkdir()
    capsys.readouterr()
    arguments = ["--compare", workdir, other, third, f"--out={tmp_path}", "--evals=latents"]
    page = evaluate.run(evaluate.parse(["evaluate", *map(str, arguments)]))
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warned) == 2
    assert f"{other / 'reports' / '2' / 'metrics.json'} is damaged (" in warned[0]
    assert f"{third} is left out: --workdir={third} has no checkpoint yet" in warned[1]
    assert "2 runs side by side" in page.read_text()
    assert saved_reports.read(other / "reports" / "2")["figures"]  # it was evaluated again


def test_one_run_that_can_be_evaluated_is_no_comparison(workdir, tmp_path, capsys, monkeypatch):
    run_config.save(make_config(), tmp_path / "empty")
    arguments = ["--compare", str(workdir), f"{tmp_path}/empty", "--evals=latents"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    assert evaluate.main() == 2
    assert "--compare needs two runs or more that can be evaluated" in capsys.readouterr().err


def test_what_nobody_asked_for_is_not_said_to_be_left_out(workdir, tmp_path, monkeypatch, capsys):
    for name in ("importance_weighted", "interpolations", "latent_plane", "traversals"):
        monkeypatch.setattr(registry.load("evals", name, field="evals"), "make", nothing)
    page, found = run(workdir, f"--out={tmp_path}")
    out = capsys.readouterr().out
    assert "disentanglement" not in found["evaluations"]
    assert "code_maps" in found["left_out"]
    for text in (out, page.read_text()):
        assert "take it out" not in text and "left out" not in text
    about = [line for line in out.splitlines() if "disentanglement" in line]
    assert about == ["disentanglement takes minutes and is not run: --evals=all runs it too"]
    assert evals.covered("quick", found) and not evals.covered("all", found)


def test_evaluate_and_generate_write_different_files(workdir, tmp_path):
    run(workdir, "--evals=samples", f"--out={tmp_path}")
    before = (tmp_path / "samples.png").read_bytes()
    generate.run(
        generate.parse(["generate", f"--workdir={workdir}", "--num=2", f"--out={tmp_path}"])
    )
    assert (tmp_path / "samples.png").read_bytes() == before
    assert (tmp_path / "generated.png").is_file()


def test_a_comparison_knows_the_better_one_and_asks_for_figures_across_runs(tmp_path):
    def of(elbo, **config):
        found = {"step": 5, "examples": 8, "files": {}, "figures": {"elbo": elbo, "loss": -elbo}}
        return comparison.Run(tmp_path / f"r{elbo}", tmp_path, found, config)

    runs = [of(-2.0, seed=0, a=1), of(-1.0, seed=0, a=2), of(None or -3.0, seed=0)]
    found = comparison.compare(runs, across=[lambda runs: {"alike": [0.5] * len(runs)}])
    assert found.differing == {"a": [1, 2, "–"]}
    assert (found.best("elbo"), found.best("loss")) == (-1.0, 1.0)
    assert found.figures["alike"] == [0.5, 0.5, 0.5]
    comparison.write(tmp_path / "compare.html", found, terminal.Terminal(active=False))
    text = (tmp_path / "compare.html").read_text()
    assert text.count('class="value best"') == 2
