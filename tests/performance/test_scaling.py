"""The table of how every variant scales: its lines, and their place in the file."""

import pytest

from pipeline.display import marked_pages
from pipeline.performance import scaling, topologies
from pipeline.runtime import errors

MARKS = ("<!-- scaling -->\n", "<!-- /scaling -->\n")
PLAN = {
    "topology": "v5e:16x16",
    "devices": 256,
    "fits": True,
    "reason": "0.1 GB of 16 GB a device",
    "memory": {"total": 105 * 2**20},
    "collectives": [{"kind": "all-reduce", "elements": 4_469_783, "dtype": "f32"}],
    "images_per_second": [256 * 1000.0, 256 * 9000.0],
    "efficiency": [0.594, 1.0],
}


def test_a_line_is_a_plan_a_chip():
    line = "| `beta_vae`, 128 | `v5e:16x16`, 256 | yes, 105 | all-reduce of 4,469,783 f32 "
    assert scaling.row("beta_vae", 128, PLAN) == line + "| 1,000 to 9,000 | 59 to 100 % |"
    full = scaling.row("beta_vae", 128, PLAN | {"fits": False, "reason": "20 GB of 16 GB"})
    assert full == "| `beta_vae`, 128 | `v5e:16x16`, 256 | no: 20 GB of 16 GB | – | – | – |"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    first, last = MARKS
    path.write_text(f"before\n{first}old\n{last}after\n")
    marked_pages.rewrite(path, scaling.PART, ["new", "lines"])
    assert path.read_text() == f"before\n{first}new\nlines\n{last}after\n"
    path.write_text("nothing\n")
    with pytest.raises(errors.InputError, match="has no lines <!-- scaling --> and"):
        marked_pages.rewrite(path, scaling.PART, ["new"])
    assert all(mark in scaling.README.read_text() for mark in MARKS)


def test_without_a_compiler_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.InputError, match=r"pip install -e '\.\[plan-tpu\]'"):
        scaling.table()
