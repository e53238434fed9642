"""The notebook: it runs as it is, its pictures show the data, and its saved outputs fit it."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from configs import beta_vae
from pipeline import datasets
from tests.support import notebooks
from tests.support.processes import ROOT

TOUR = ROOT / "configs" / "tour.ipynb"
SAVED = nbformat.read(TOUR, as_version=4)
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernel")


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("cwd")


@pytest.fixture(scope="module")
def executed(cwd, folder):
    return notebooks.execute(TOUR, cwd=cwd, folder=folder)


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def kinds(cell):
    """Returns what the outputs are: names of streams, or types of data beside their text."""
    return [sorted(one.get("data", {one.get("name"): ""})) for one in cell.outputs]


def text(cell):
    return "".join(one.get("text", "") for one in cell.outputs)


def picture(cell):
    """Returns the only picture of a cell, [H, W, 3] uint8."""
    [found] = [one.data["image/png"] for one in cell.outputs if "image/png" in one.get("data", {})]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGB"))


def test_it_has_at_most_12_cells_and_short_code():
    assert len(SAVED.cells) <= 12
    nbformat.validate(SAVED)
    assert all(len(cell.source.splitlines()) <= 16 for cell in code_cells(SAVED).values())


def test_every_cell_runs_without_warnings_and_writes_nothing_beside_it(executed, cwd):
    for name, cell in code_cells(executed).items():
        assert kinds(cell) in ([["stdout"]], [["image/png", "text/plain"]]), name
    assert list(cwd.iterdir()) == []


def test_the_run_learns_and_the_model_has_its_shapes(executed):
    cells = code_cells(executed)
    figures = dict(re.findall(r"^  (\w+) +(\S+)", text(cells["train"]), re.MULTILINE))
    assert "Held-out figures at step 800" in text(cells["train"])
    # The mean image in place of each decoded one has a distortion of 572 nats.
    assert float(figures["distortion"]) < 200
    loss = float(figures["distortion"]) + 8 * float(figures["rate"])
    assert float(figures["loss"]) == pytest.approx(loss, abs=0.5)  # rounded to four digits
    assert text(cells["load"]).splitlines() == [
        "beta_vae at step 800",
        "images (256, 64, 64, 1) uint8",
        "decoded (256, 64, 64, 1) float32",
    ]


def strips(shown):
    """Returns the rows of images in a picture, [h, w] float in [0, 1] each, without labels."""
    grey = shown[..., 0] / 255
    dark = np.pad((grey < 0.6).mean(axis=1) > 0.5, 1).astype(int)
    edges = np.flatnonzero(np.diff(dark)).reshape(-1, 2)
    bands = [grey[top:bottom] for top, bottom in edges]
    # The black frame at the left and at the right is as high as the band.
    columns = [np.flatnonzero((band < 0.6).mean(axis=0) > 0.95)[[0, -1]] for band in bands]
    return [band[:, at[0] : at[1] + 1] for band, at in zip(bands, columns, strict=True)]


@pytest.mark.parametrize(("name", "rows"), [("reconstruct", 2), ("traverse", 4), ("sample", 3)])
def test_a_picture_is_grey_and_has_all_rows_with_shapes_in_them(executed, name, rows):
    shown = picture(code_cells(executed)[name])
    assert np.ptp(shown.astype(int), axis=-1).max() == 0
    assert max(shown.shape) <= 700
    found = strips(shown)
    assert len(found) == rows
    for strip in found:
        assert strip.shape[1] / strip.shape[0] == pytest.approx(9, rel=0.05)
        assert strip.max() > 0.95 and (strip < 0.1).mean() > 0.6


def test_the_picture_of_inputs_has_the_heldout_images_and_the_model_decodes_them(executed):
    heldout = datasets.load(beta_vae.get_config("smoke")).heldout.read(np.arange(9))["image"]
    framed = np.pad(heldout[..., 0], ((0, 0), (2, 2), (2, 2)))
    inputs, decoded = strips(picture(code_cells(executed)["reconstruct"]))
    for strip, least in ((inputs, 0.8), (decoded, 0.6)):
        size = strip.shape[::-1]
        true = np.asarray(Image.fromarray(np.hstack(framed)).resize(size)) > 150
        other = np.roll(true, strip.shape[1] // 9, axis=1)  # each image in its neighbour's place
        white = strip > 0.6  # grey frames are 0.5
        assert correlation(white, true) > least
        assert correlation(white, other) < 0.3


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_the_export_has_all_functions_and_its_program_ran(executed, folder):
    [export] = folder.glob("tour-*/export")
    lines = text(code_cells(executed)["export"]).split("\n")
    functions = [f"{name}.stablehlo" for name in ("decode", "encode", "reconstruct", "sample")]
    names = sorted(["README.md", "config.json", "params.safetensors", "use_me.py", *functions])
    assert sorted(path.name for path in export.iterdir()) == names
    image = (4, 64, 64, 1)
    shapes = " ".join(map(str, [(4, 4), (4, 4), image, image, image]))
    assert [line for line in lines if line] == [*names, shapes]


def test_the_saved_outputs_are_those_of_its_source(executed):
    new = code_cells(executed)
    for name, cell in code_cells(SAVED).items():
        assert kinds(cell) == kinds(new[name])
        assert NUMBER.sub("0", text(cell)).split() == NUMBER.sub("0", text(new[name])).split()
    counts = [cell.execution_count for cell in code_cells(SAVED).values()]
    assert counts == list(range(1, len(counts) + 1))


def test_the_saved_notebook_is_small_and_says_nothing_of_where_and_when_it_ran():
    assert TOUR.stat().st_size < 150_000
    assert all(cell.metadata == {} for cell in SAVED.cells)
    assert SAVED.metadata.language_info == {"name": "python"}
    for cell in SAVED.cells:
        said = cell.source + text(cell) if cell.cell_type == "code" else cell.source
        assert not re.search(r"(?<![\w./:…])/(?!/)\w+", said)
        assert not re.search(r"\d\d:\d\d|\d s\b|\d/s\b", said)
