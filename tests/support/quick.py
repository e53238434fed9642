"""`make test-quick`: the tests of the change at hand first, then cheap ones, until time is over.

The change is what differs from the last commit, or the last commit itself if nothing does. A test
belongs to it if it was changed, or if it imports a changed module.
"""

import re
import subprocess
import time
from pathlib import Path

import pytest

SECONDS = 80.0  # no test starts later; the last ones may end after that
# Files that start processes, whose tests take seconds each.
SLOW = re.compile(r"subprocess|support(\.| import )(commands|processes|chaos)|multiprocessing")


class Quick:
    """The plugin, for one process of pytest."""

    def __init__(self, root: Path):
        """Starts the clock."""
        self.root, self.began = root, time.monotonic()

    def pytest_collection_modifyitems(self, items):
        """Sorts the tests: of the change, of files without processes, others."""
        modules, files = changed(self.root)
        ranks = {path: rank(path, modules, files) for path in {item.path for item in items}}
        items.sort(key=lambda item: ranks[item.path])  # a stable order, the same in every process

    def pytest_runtest_setup(self, item):
        """Skips what is left when the time is over."""
        if time.monotonic() - self.began > SECONDS:
            pytest.skip(f"after {SECONDS:g} s; `make test` runs all tests")


def changed(root: Path) -> tuple[set[str], set[Path]]:
    """Returns the changed modules, such as "training.step", and all changed files."""

    def lines(*arguments):
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return found.stdout.splitlines() if found.returncode == 0 else []

    others = lines("ls-files", "--others", "--exclude-standard")
    names = {*lines("diff", "--name-only", "HEAD"), *others} or lines(
        "diff", "--name-only", "HEAD~1"
    )
    modules = {
        name.removeprefix("pipeline/").removesuffix(".py").replace("/", ".")
        for name in names
        if name.startswith(("pipeline/", "configs/")) and name.endswith(".py")
    }
    return modules, {root / name for name in names}


def rank(path: Path, modules: set[str], files: set[Path]) -> int:
    """Returns 0 for a test file of the change, 1 for one without processes, 2 for others."""
    text = path.read_text()
    if path in files or any(imports(text, module) for module in modules):
        return 0
    return 2 if SLOW.search(text) else 1


def imports(text: str, module: str) -> bool:
    """Says whether a test file imports `pipeline.<module>` or `configs.<module>`."""
    room, _, name = module.rpartition(".")
    package = f"pipeline.{room}" if room else "(?:pipeline|configs)"
    listed = re.findall(rf"^from {package} import (\([^)]*\)|[^(\n]*)", text, re.MULTILINE)
    return any(re.search(rf"\b{name}\b", names) for names in listed)
