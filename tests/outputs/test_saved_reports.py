"""A report is read as what it may be: damaged, or a trap that names files outside its run."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from pipeline.display import pictures
from pipeline.outputs import saved_reports

WHOLE = {
    "step": 5, "examples": 8, "evaluations": ["heldout"], "left_out": {}, "files": {},
    "figures": {"elbo": -1.5, "loss": None}, "data": {"name": "sprites"},
}  # fmt: skip
PNG = pictures.png(np.zeros((4, 4, 1), np.uint8))
GIF = pictures.gif(np.zeros((2, 4, 4, 1), np.uint8))


@pytest.fixture
def run(tmp_path):
    """Returns the workdir of a run, which has an empty folder for a report."""
    (tmp_path / "run" / "reports" / "5").mkdir(parents=True)
    return tmp_path / "run"


def read(run, content):
    folder = run / "reports" / "5"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / "metrics.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return saved_reports.read(folder, run)


def test_a_whole_report_is_read_and_a_missing_one_is_none(run):
    assert saved_reports.read(run / "reports" / "5", run) is None
    assert read(run, WHOLE) == WHOLE


@pytest.mark.parametrize(
    "content",
    [
        "", "{", json.dumps(WHOLE)[:-30], "[]", "null", "7", '"text"', b"\xff\xfe{}", b"\0" * 100,
        "[" * 100_000, WHOLE | {"step": "5"}, WHOLE | {"step": True}, WHOLE | {"figures": []},
        WHOLE | {"figures": {"elbo": "high"}}, WHOLE | {"figures": {"elbo": True}},
        WHOLE | {"figures": {"elbo": [1]}}, WHOLE | {"files": None}, WHOLE | {"evaluations": [1]},
        WHOLE | {"format": "2"},
        WHOLE | {"left_out": []}, WHOLE | {"data": "sprites"}, WHOLE | {"examples": 2.5},
        {name: value for name, value in WHOLE.items() if name != "step"},
    ],
)  # fmt: skip
def test_damage_is_said_in_one_line(run, content):
    with pytest.raises(saved_reports.Damaged) as raised:
        read(run, content)
    assert str(raised.value) and "\n" not in str(raised.value)


def test_scores_of_an_older_report_have_the_names_of_their_protocol(run):
    old = WHOLE | {"evaluations": ["heldout", "disentanglement"]}
    old |= {"figures": {"elbo": -1.5, "mig": 0.3, "dci_completeness": 0.2}}
    found = read(run, old)
    assert found["figures"] == {"elbo": -1.5, "mig_quick": 0.3, "dci_quick_completeness": 0.2}
    assert found["evaluations"] == ["heldout"]  # so a comparison evaluates it again
    new = old | {"format": saved_reports.FORMAT}
    assert read(run, new) == new


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_figure_that_is_not_finite_is_unknown(run, text):
    content = json.dumps(WHOLE).replace("-1.5", text)
    assert read(run, content)["figures"] == {"elbo": None, "loss": None}


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png", "../../../secret.png", "{top}/secret.png", "sub/secret.png", "..", ".", "",
        "file:///etc/passwd", "http://127.0.0.1/a.png", "javascript:alert(1)", "..\\secret.png",
        "secret.png\0.png", "link.png", "loop.png", "folder.png", "text.png", "drawing.svg", 7,
        None, ["a.png"], {"a": "b"},
    ],
)  # fmt: skip
def test_only_pictures_of_the_run_itself_are_read(run, tmp_path, name):
    folder = run / "reports" / "5"
    for place in (tmp_path, run, run / "reports"):
        (place / "secret.png").write_bytes(PNG)
    (folder / "sub").mkdir()
    (folder / "sub" / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "text.png").write_text("<script>alert(1)</script>")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    if isinstance(name, str):
        name = name.format(top=tmp_path)
    assert saved_reports.picture(folder, name, run) is None
    assert read(run, WHOLE | {"files": {"samples": name}})["files"] == {}


def test_pictures_beside_the_figures_are_read(run):
    folder = run / "reports" / "5"
    (folder / "a.png").write_bytes(PNG)
    (folder / "b.gif").write_bytes(GIF)
    files = {"samples": "a.png", "traversals_animated": "b.gif", "gone": "c.png"}
    found = read(run, WHOLE | {"files": files})["files"]
    assert found == {"samples": "a.png", "traversals_animated": "b.gif"}
    assert saved_reports.picture(folder, "a.png", run) == PNG


def test_a_picture_that_would_fill_the_memory_is_left_out(run):
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG")
    (run / "reports" / "5" / "a.png").write_bytes(file.getvalue())
    assert saved_reports.picture(run / "reports" / "5", "a.png", run) is None


def test_a_report_that_is_a_link_out_of_the_run_or_no_file_is_damaged(run, tmp_path):
    path = run / "reports" / "5" / "metrics.json"
    (tmp_path / "metrics.json").write_text(json.dumps(WHOLE))
    path.symlink_to(tmp_path / "metrics.json")
    with pytest.raises(saved_reports.Damaged, match="no file of this run"):
        saved_reports.read(path.parent, run)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(saved_reports.Damaged, match="no file of this run"):
        saved_reports.read(path.parent, run)
