"""TensorBoard shows runs under their own names, and what matters first."""

import json
import subprocess
import sys
import urllib.parse

import pytest
from tensorboard.backend.event_processing import plugin_event_multiplexer
from werkzeug import test

from pipeline.display import board, tensorboard
from tests.support.processes import ROOT


def write_run(workdir, value=1.0):
    with tensorboard.Writer(workdir / "tensorboard", resume_step=None) as writer:
        writer.write("train/loss", value, 1)
    return workdir


def test_runs_have_the_names_of_their_folders(tmp_path):
    for name in ("beta_vae", "sweep/a", "sweep", "run[1]"):
        write_run(tmp_path / "runs" / name)
    assert sorted(name for name, _ in board.runs(tmp_path / "runs")) == [
        "beta_vae", "run[1]", "sweep", "sweep/a"
    ]  # fmt: skip
    alone = tmp_path / "runs" / "beta_vae"
    assert list(board.runs(alone)) == [("beta_vae", alone / "tensorboard")]


def shown(links):
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(links))
    return {name: set(tags["tensors"]) for name, tags in multiplexer.Reload().Runs().items()}


def test_tensorboard_reads_the_links_and_the_runs_stay_as_they_are(tmp_path):
    root, links = tmp_path / "runs", tmp_path / "links"
    write_run(root / "beta_vae")
    (root / "beta_vae" / "checkpoints" / "tensorboard").mkdir(parents=True)
    before = sorted(root.rglob("*"))
    for _ in range(2):
        board.link(root, links)
    assert sorted(root.rglob("*")) == before
    assert shown(links) == {"beta_vae": {"train/loss"}}
    # The links follow: a new run, a new start of one, and a run that is removed.
    write_run(root / "sweep" / "vq")
    write_run(root / "beta_vae")
    board.link(root, links)
    assert len(list((links / "beta_vae").iterdir())) == 2
    assert set(shown(links)) == {"beta_vae", "sweep/vq"}
    for path in (root / "sweep" / "vq" / "tensorboard").iterdir():
        path.unlink()
    board.link(root, links)
    assert set(shown(links)) == {"beta_vae"}


GAUSSIAN = ("loss", "elbo", "distortion", "rate", "reconstruction_loss", "active_share", "beta")
VQ = ("loss", "reconstruction_loss", "perplexity", "code_age")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (GAUSSIAN, ["train/loss", "heldout/elbo", "heldout/distortion", "heldout/rate",
                    "train/beta"]),
        (VQ, ["train/loss", "heldout/reconstruction_loss", "heldout/perplexity"]),
        ((), []),
    ],
)  # fmt: skip
def test_the_first_page_pins_what_matters_and_no_curve_twice(names, expected):
    tags = [f"{part}/{name}" for part in ("train", "heldout") for name in names]

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"TensorBoard"]

    listed = {"scalars": {"runTagInfo": {"a": tags, "b": tags[:1]}}}
    client = test.Client(board.with_pins(app, lambda: listed))
    answer = client.get("/")
    if expected:
        assert answer.status_code == 302
        query = urllib.parse.urlsplit(answer.headers["Location"]).query
        cards = json.loads(urllib.parse.parse_qs(query)["pinnedCards"][0])
        assert cards == [{"plugin": "scalars", "tag": tag} for tag in expected]
        assert client.get(answer.headers["Location"]).data == b"TensorBoard"
    else:
        assert answer.data == b"TensorBoard"
    assert client.get("/index.js").data == b"TensorBoard"


def test_a_folder_that_is_none_is_named(tmp_path):
    command = [sys.executable, "-m", "pipeline.display.board", str(tmp_path / "nothing")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'nothing'} is no folder")
