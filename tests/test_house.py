"""The house rules: rooms stay small, files stay short, and tests use only public names."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.runtime import registry
from tests.support.processes import ROOT

LONG = {  # files that are longer than 200 lines today; no other file may be
    "pipeline/nn/convolutions.py",
    "pipeline/runtime/run_config.py",
    "pipeline/training/saving/checkpoint.py",
}
# Names with an underscore that belong to Python's own library.
PUBLIC = {"_asdict", "_fields", "_replace", "_exit", "_Pickler"}
IMPORT = re.compile("^(import|from) ", re.MULTILINE)


def sources(*folders):
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return {str(path.relative_to(ROOT)): path.read_text() for path in found}


TESTS = sources("tests")
PACKAGES = sorted({Path(name).parent for name in sources("pipeline", "configs")})


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_package_is_small_and_says_what_it_is(package):
    assert len(list((ROOT / package).glob("*.py"))) <= 25
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


def test_no_further_file_is_longer_than_200_lines():
    files = sources("pipeline", "configs", "launch")
    assert {name for name, text in files.items() if len(text.splitlines()) > 200} <= LONG


def trees(text):
    """Yields the syntax trees of a file, and of the programs in its strings."""
    tree = ast.parse(text)
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and IMPORT.search(str(node.value)):
            try:
                yield ast.parse(node.value)
            except SyntaxError:
                continue


def imported(tree):
    """Yields the dotted names of imported modules, and of what is imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def private_names(tree):
    """Yields private names that are patched, or read or set on anything but `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name("self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                yield name
            case ast.Call(
                func=ast.Name("getattr" | "setattr") | ast.Attribute(attr="setattr" | "delattr"),
                args=[_, ast.Constant(str(name)), *_],
            ):
                yield name


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


@pytest.mark.parametrize("name", TESTS)
def test_a_test_uses_public_names_and_no_other_test(name):
    for tree in trees(TESTS[name]):
        assert not [found for found in private_names(tree) if is_private(found)]
        for module in imported(tree):
            first, *rest = module.split(".")
            if first == "tests":
                assert rest[0] == "support", module
            elif first == "pipeline":
                # Modules with an underscore are private to the room of data sets.
                own = rest[:1] == ["datasets"] and name.startswith("tests/datasets/")
                assert not any(map(is_private, rest[2:] if own else rest)), module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("module._name", ["_name"]),
        ("a.b._name = 1", ["_name"]),
        ("monkeypatch.setattr(module, '_name', 1)", ["_name"]),
        ("getattr(module, '_name')", ["_name"]),
        ("self._name, self.name, x._replace(a=1), os._exit(0), x.__class__", []),
        ("PROGRAM = '''\nimport module\nmodule._name\n'''", ["_name"]),
    ],
)
def test_a_private_name_is_seen_however_it_is_used(text, found):
    assert [
        name for tree in trees(text) for name in private_names(tree) if is_private(name)
    ] == found


@pytest.mark.parametrize("room", ["datasets", "evals", "models"])
def test_the_registry_lists_the_files_of_a_room_and_nothing_else(room):
    found = registry.names(room)
    assert found and not any(map(is_private, found))
    files = {path.stem for path in (ROOT / "pipeline" / room).glob("*.py")}
    assert set(found) == {name for name in files if not name.startswith("_")}


def test_a_variants_file_is_its_equation():
    files = sources("pipeline/models")
    long = {name: text for name, text in files.items() if len(text.splitlines()) > 70}
    assert not [name for name in long if not name.endswith("__init__.py")]
