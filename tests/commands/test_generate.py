import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import beta_vae, capacity_vae, conditional_vae, vq_vae
from pipeline import datasets, generate
from pipeline.display import pictures
from pipeline.nn import labels
from pipeline.runtime import run_config
from tests.support import commands, digit_classifier
from tests.support.processes import ROOT
from tests.support.runs import save_run, snapshot

MNIST = ROOT.parent / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def few_devices(monkeypatch):
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("digits"), conditional_vae.get_config("smoke"))


@pytest.fixture(scope="module")
def sprites_run(tmp_path_factory):
    config = conditional_vae.get_config("sprites,smoke")
    return save_run(tmp_path_factory.mktemp("sprites"), config)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("plain"), beta_vae.get_config("smoke"))


def refusal(capsys, monkeypatch, *arguments):
    return commands.refusal(generate.main, capsys, monkeypatch, *arguments)


def run(workdir, *arguments):
    """Returns the folder that was written, and the arrays in it."""
    folder = generate.run(generate.parse(["generate", f"--workdir={workdir}", *arguments]))
    with np.load(folder / "generated.npz") as file:
        return folder, dict(file)


def test_a_row_for_each_label_from_the_same_latents(digits_run, tmp_path):
    folder, arrays = run(digits_run, "--labels=3,1,7", "--num=5", f"--out={tmp_path / 'a'}")
    assert folder == tmp_path / "a"
    assert arrays["images"].shape == (15, 28, 28, 1)
    assert arrays["images"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["labels"], np.repeat([3, 1, 7], 5))
    assert arrays["seed"] == 0
    _, again = run(digits_run, "--labels=3,3", "--num=5", f"--out={tmp_path / 'b'}")
    np.testing.assert_array_equal(again["images"][:5], again["images"][5:])
    assert len(np.unique(arrays["images"], axis=0)) == 15


def test_the_picture_has_a_row_a_label_and_a_margin(digits_run, tmp_path):
    folder, arrays = run(digits_run, "--labels=all", "--num=40", f"--out={tmp_path}")
    with Image.open(folder / "generated.png") as file:
        assert file.mode == "L"
        picture = np.asarray(file)
    picture = picture[pictures.PAD : -pictures.PAD, : -pictures.PAD]
    margin = picture.shape[1] - 32 * 58 + 2  # a row shows at most 32 images
    assert picture.shape[0] == 10 * 58 - 2
    assert 5 < margin < 30
    for row in range(10):
        text = picture[58 * row : 58 * row + 56, :margin]
        assert (text[[0, 1, -2, -1]] == 255).all()  # each text is inside its row
        assert (text < 128).any()
        np.testing.assert_array_equal(
            picture[58 * row : 58 * row + 56, margin : margin + 56],
            arrays["images"][40 * row, ..., 0].repeat(2, 0).repeat(2, 1),
        )


def test_a_seed_gives_the_same_images_bitwise(digits_run, tmp_path):
    arguments = ("--labels=0,1", "--num=8", f"--out={tmp_path}")
    first = run(digits_run, *arguments, "--seed=5")[1]["images"]
    np.testing.assert_array_equal(run(digits_run, *arguments, "--seed=5")[1]["images"], first)
    assert (run(digits_run, *arguments, "--seed=6")[1]["images"] != first).any()


def test_the_best_checkpoint_unless_another_is_asked_for(digits_run, tmp_path):
    best = run(digits_run, "--num=2")
    assert best[0] == digits_run / "reports" / "1"
    latest = run(digits_run, "--num=2", "--step=latest")
    assert latest[0] == digits_run / "reports" / "2"
    assert (latest[1]["images"] != best[1]["images"]).any()
    numbered = run(digits_run, "--num=2", "--step=2", f"--out={tmp_path}")
    np.testing.assert_array_equal(numbered[1]["images"], latest[1]["images"])


def test_nothing_else_of_the_run_is_altered(tmp_path):
    workdir = save_run(tmp_path / "run", conditional_vae.get_config("smoke"), (1.0, 2.0, 3.0))
    partial = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"  # of a save that has not finished
    partial.mkdir()
    before = snapshot(workdir)
    run(workdir, "--labels=0")
    after = snapshot(workdir)
    written = {path for path in after if "reports" in path.parts}
    assert {path.name for path in written} == {"reports", "3", "generated.npz", "generated.png"}
    assert {path: after[path] for path in after.keys() - written} == before


def test_rows_of_several_columns(sprites_run):
    _, arrays = run(sprites_run, "--labels=0,1,2,3,4,5; 0,2,5,39,31,0", "--num=3")
    assert arrays["images"].shape == (6, 64, 64, 1)
    np.testing.assert_array_equal(
        arrays["labels"], [[0, 1, 2, 3, 4, 5]] * 3 + [[0, 2, 5, 39, 31, 0]] * 3
    )


@pytest.mark.parametrize("variant", [beta_vae, capacity_vae, conditional_vae, vq_vae])
def test_without_labels_every_variant_samples_its_prior(variant, tmp_path):
    workdir = save_run(tmp_path / "run", variant.get_config("sprites,smoke"), (None,))
    _, arrays = run(workdir, "--num=3", "--step=latest")
    assert arrays["images"].shape == (3, 64, 64, 1)
    assert "labels" not in arrays
    assert len(np.unique(arrays["images"], axis=0)) == 3


def test_classes_and_attributes_are_told_apart():

    conditions = {
        "pose": jax.ShapeDtypeStruct((2,), np.float32),
        "label": datasets.label(3),
    }
    rows = labels.parse("0.5,-1,2;1,1e-1,0", conditions)
    assert rows.texts == ("0.5,-1,2", "1,0.1,0")
    np.testing.assert_array_equal(rows.entries["pose"], np.float32([[0.5, -1], [1, 0.1]]))
    np.testing.assert_array_equal(rows.entries["label"], [2, 0])
    assert rows.entries["label"].dtype == np.int32
    assert rows.values.shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels=0,10"], "'10' is no class of label: allowed are 0 to 9"),
        (["--labels=-1"], "'-1' is no class of label: allowed are 0 to 9"),
        (["--labels=1.5"], "'1.5' is no class of label"),
        (["--labels=0,,1"], "'' is no class of label"),
        (["--labels=0,1;2"], "the row '0,1' has 2 values, and the run needs 1 column (label: 0"),
        (["--num=0"], "--num=0 must be at least 1"),
        (["--num=many"], "many"),
        (["--seed=-1"], "--seed=-1 must lie between 0 and"),
        (["--step=3"], "--step=3 is no checkpoint of this run: choose best, latest or one of 1, 2"),
        (["--steps=3"], "steps"),
        (["digits"], "argument 'digits' is not a flag"),
    ],
)
def test_a_mistake_is_one_line(digits_run, capsys, monkeypatch, arguments, words):
    assert words in refusal(capsys, monkeypatch, f"--workdir={digits_run}", *arguments)


def test_labels_for_a_model_without_conditions_are_refused(plain_run, capsys, monkeypatch):
    line = refusal(capsys, monkeypatch, f"--workdir={plain_run}", "--labels=0")
    assert "--labels=0: the run's model has no conditions" in line


def test_random_codes_are_called_so_and_the_way_to_samples_is_shown(tmp_path, capsys, monkeypatch):
    config = vq_vae.get_config("smoke")
    config.checkpoint.best_metric = "elbo"
    workdir = save_run(tmp_path / "a run", config)
    given = [f"--workdir={workdir}", "--num=1", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["generate", *given])
    assert generate.main() == 0
    random, prior, then, *paths = capsys.readouterr().out.splitlines()
    assert random == "Random codes, not a prior: codes of real images depend on each other"
    command = prior.partition(": python -m ")[2]
    assert command == f"pipeline.generate --workdir='{workdir}' --step=1 --codes=all"
    assert "--config=configs/code_prior.py" in then
    assert f"--config.data.path='{workdir / 'reports' / '1'}'" in then
    assert [Path(path).name for path in paths] == ["generated.png", "generated.npz"]


@pytest.mark.parametrize("flag", ["--temperature=0.9", "--top_k=5", "--top_p=0.9", "--guidance=2"])
def test_how_codes_are_drawn_is_refused_where_none_are(plain_run, capsys, monkeypatch, flag):
    line = refusal(capsys, monkeypatch, f"--workdir={plain_run}", flag)
    name, _, value = flag.partition("=")
    assert re.search(rf"{name}={float(value):g}(\.0)? is only for runs of code_prior", line)
    line = refusal(capsys, monkeypatch, f"--workdir={plain_run}", flag, "--latents=train")
    assert f"{name}=" in line and "is for images: leave it out with --latents=train" in line


def test_rows_must_fit_the_columns(sprites_run, capsys, monkeypatch):
    line = refusal(capsys, monkeypatch, f"--workdir={sprites_run}", "--labels=all")
    assert "--labels=all needs one column of classes, and the run has 6 columns" in line
    line = refusal(capsys, monkeypatch, f"--workdir={sprites_run}", "--labels=0,1,2")
    assert "the row '0,1,2' has 3 values, and the run needs 6 columns (factors: 0 to 0" in line


def test_a_folder_without_a_run_or_a_checkpoint_is_refused(tmp_path, capsys, monkeypatch):
    assert "--workdir is needed" in refusal(capsys, monkeypatch)
    line = refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    assert "holds no run: there is no config.json in it" in line
    (tmp_path / "config.json").write_text("[1")
    assert "is damaged" in refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    (tmp_path / "config.json").write_text("[]")
    assert "is damaged" in refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    run_config.save(conditional_vae.get_config("smoke"), tmp_path)
    assert "has no checkpoint yet" in refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    (tmp_path / "checkpoints").mkdir()
    assert "has no checkpoint yet" in refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    visible = [path.name for path in tmp_path.iterdir() if path.name[0] != "."]
    assert sorted(visible) == ["checkpoints", "config.json", "damaged-config.json"]


def test_a_run_that_was_not_evaluated_has_no_best_step(tmp_path, capsys, monkeypatch):
    save_run(tmp_path, conditional_vae.get_config("smoke"), (None,))
    line = refusal(capsys, monkeypatch, f"--workdir={tmp_path}")
    assert "--step=best: no checkpoint was evaluated yet; use --step=latest or one of 1" in line
    assert run(tmp_path, "--step=latest", "--num=1")[1]["images"].shape == (1, 28, 28, 1)


def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path, capsys, monkeypatch):
    save_run(tmp_path, conditional_vae.get_config("smoke"))
    files = (tmp_path / "checkpoints" / "1").rglob("ocdbt.process_0/d/*")
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    line = refusal(capsys, monkeypatch, f"--workdir={tmp_path}", "--step=1")
    assert f"checkpoint {tmp_path / 'checkpoints' / '1'} is damaged: " in line
    assert "choose another by --step, of 1, 2" in line


def command(name, *arguments):
    environment = os.environ | {"XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-m", f"pipeline.{name}", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not beside the checkout")
def test_a_classifier_recognises_the_digits_of_one_epoch(tmp_path):
    workdir = tmp_path / "run"
    command(
        "train", "--config=configs/conditional_vae.py", f"--config.data.path={MNIST}",
        f"--workdir={workdir}", "--config.total_steps=469",
        "--config.eval_examples=1024", "--config.evals=('heldout',)",
    )  # fmt: skip
    result = command("generate", f"--workdir={workdir}", "--labels=all", "--num=200")
    assert not result.stderr
    path = Path(result.stdout.splitlines()[1])
    assert path == workdir / "reports" / "469" / "generated.npz"
    classify, accuracy = digit_classifier.train(MNIST, num_steps=400)
    assert accuracy > 0.96
    with np.load(path) as samples:
        shares = digit_classifier.recognised(classify, samples["images"], samples["labels"])
    # The config's own run has six times as many steps, and reaches 0.989.
    assert shares.min() >= 0.9, shares
