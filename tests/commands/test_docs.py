"""The pages and the notebook: everything that they name exists, and the README stays short."""

import importlib
import re
from pathlib import Path

import pytest

from configs import default
from pipeline.runtime import config_file, registry, run_config

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "launch", "pipeline", "tests")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
        *ROOT.glob("configs/*.ipynb"),
    )
)
ROOMS = sorted(path.parent.name for path in ROOT.glob("pipeline/*/__init__.py"))


def text_of(page):
    return (ROOT / page).read_text()


def code_of(page):
    """Returns the texts between backticks: fenced blocks, and spans outside of them."""
    parts = text_of(page).split("```")
    spans = [span for part in parts[::2] for span in re.findall(r"`([^`]+)`", part)]
    return [line for block in parts[1::2] for line in block.splitlines()] + spans


def anchors_of(path):
    """Returns GitHub's anchors of headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fields():
    """Returns the fields of all configs, as `--config.` names them; a schedule may be a number."""
    names = {path.stem for path in (ROOT / "configs").glob("*.py")} - set(config_file.HIDDEN)
    made = [importlib.import_module(f"configs.{name}").get_config() for name in names]
    flats = [run_config.flatten(config) for config in (default.get_config(), *made)]
    return {field for flat in flats for field in (*flat, *run_config.schedules(flat))}


def test_the_readme_has_at_most_150_lines_of_at_most_100_characters():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    inside = "|".join(ROOMS)
    for path in re.findall(rf"(?<![\w/.~-])((?:{'|'.join(FOLDERS)})/[\w./-]*)", text_of(page)):
        assert (ROOT / path.rstrip(".")).exists(), path
    for path in re.findall(rf"(?<![\w/.~-])((?:{inside})/\w+\.py)", text_of(page)):
        assert (ROOT / "pipeline" / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_config_field_that_a_page_sets_exists(page):
    known = fields()
    for field in re.findall(r"--config\.([a-z][\w.]*)", text_of(page)):
        assert field.rstrip(".") in known, field


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in code_of(page):
        for module in re.findall(r"python -m (pipeline[\w.]*)", code):
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), code
        if words := re.match(r"make((?: [^\s#]+)*)", code):
            named = [word for word in words[1].split() if re.fullmatch(r"[a-z-]+", word)]
            assert set(named[:1]) <= targets, code


def test_the_map_names_every_module_but_those_that_a_folder_lists():
    text = text_of("pipeline/README.md")
    for path in sorted((ROOT / "pipeline").glob("*/[a-z]*.py")):
        if path.parent.name not in registry.NEEDED:  # to add one of those, nothing is edited
            assert f"`{path.stem}`" in text, path
