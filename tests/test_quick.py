"""`make test-quick` begins with the tests of the change at hand."""

import subprocess
from pathlib import Path

from tests.support import quick

STEP = (
    "from pipeline.training import (\n    checkpoint,\n    step,\n)\nfrom pipeline import train\n"
)


def test_a_test_that_imports_a_changed_module_comes_first(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text(STEP)
    assert quick.rank(path, {"training.step"}, set()) == 0
    assert quick.rank(path, {"train"}, set()) == 0
    assert quick.rank(path, {"training.steps", "nn.step"}, set()) == 1
    assert quick.rank(path, set(), {path}) == 0


def test_a_test_that_starts_processes_comes_last(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text("import subprocess\n")
    assert quick.rank(path, {"training.step"}, set()) == 2


def test_the_change_is_what_git_does_not_have_or_else_the_last_commit(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    folder = tmp_path / "pipeline" / "nn"
    folder.mkdir(parents=True)
    for name in ("losses", "metrics"):
        (folder / f"{name}.py").write_text("")
        git("add", "-A")
        git("commit", "-qm", name)
    assert quick.changed(tmp_path)[0] == {"nn.metrics"}
    (folder / "vectors.py").write_text("")
    assert quick.changed(tmp_path) == ({"nn.vectors"}, {Path(folder / "vectors.py")})
