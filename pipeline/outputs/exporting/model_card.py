"""The model card of an export: README.md as Hugging Face shows it, made of what is known.

Nothing is claimed that nobody said: without --license the card says that the licence is unknown.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.display import figures, texts
from pipeline.outputs.exporting import provenance, usage_program

UNKNOWN = "unknown"  # one of the licences that Hugging Face knows


class Texts(NamedTuple):
    """What the card says besides config.json."""

    run: str  # its name
    variant: str  # what the model is, with its equation
    license: str
    figures: provenance.Figures
    training: str  # a command
    export: str  # a command
    notes: tuple[str, ...] = ()  # such as what the samples are not


def text(about: Mapping[str, Any], given: Texts) -> str:
    """Returns the card.

    Args:
        about: the content of config.json.
        given: what else the card says.
    """
    sections = [
        _front(about, given.license),
        [f"# {texts.inert(given.run)}: {about['model']} of {about['data']['name']}"],
        [texts.inert(given.variant)],
        _facts(about, given.license),
        ["## Use", "", *_use(about), *(f"- {texts.inert(note)}" for note in given.notes)],
        ["## Figures", "", given.figures.text, *_figures(given.figures.values)],
        ["## Training and export", "", "```sh", given.training, given.export, "```"],
        ["## Intended use and limits", "", *_limits(about)],
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _front(about: Mapping[str, Any], license: str) -> list[str]:
    tags = ["jax", "stablehlo", *(["onnx"] if about["onnx"] else []), "vae", about["model"]]
    return [
        "---",
        f"license: {json.dumps(license)}",
        "library_name: jax",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in tags),
        "---",
    ]


def _facts(about: Mapping[str, Any], license: str) -> list[str]:
    data, versions = about["data"], about["versions"]
    shown = texts.cell(data["name"])
    if "low" in data:
        sides = "×".join(map(str, about["example"]["image"]["shape"]))
        shown += f": images {sides}, {data['dtype']} of {data['low']:g} … {data['high']:g}"
    licence = "unknown: nobody has stated it yet" if license == UNKNOWN else texts.cell(license)
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [
        "| | |",
        "|---|---|",
        f"| data | {shown} |",
        f"| parameters | {about['num_parameters']:,} |",
        f"| training steps | {about['step']:,} |",
        f"| licence | {licence} |",
        f"| made with | {made} |",
    ]


def _use(about: Mapping[str, Any]) -> list[str]:
    oldest, platforms = about["oldest_jax"], ", ".join(about["platforms"])
    found = [
        "```sh",
        f'pip install "jax>={oldest}" flatbuffers',
        f"python {usage_program.NAME}  # calls every function; its source shows how",
        "```",
        "",
        "| function | takes, after the arrays | returns |",
        "|---|---|---|",
    ]
    for name, function in about["functions"].items():
        columns = (_entries(function[part]) for part in ("inputs", "outputs"))
        found.append(f"| `{name}` | {' | '.join(columns)} |")
    found += [
        "",
        f"- Each function is a file of StableHLO for {platforms}, and for any n ≥ 1.",
        f"- Its first argument is the dictionary of all arrays of `{about['params']}`, by name.",
        f"- JAX from {oldest} on reads the files, for at least 6 months after they were made.",
    ]
    if "images" in {one["name"] for f in about["functions"].values() for one in f["inputs"]}:
        low, high = about["data"]["low"], about["data"]["high"]
        found.append(f"- Images are scaled: pixel p of the data is (p − {low:g}) / {high - low:g}.")
    if "sample" in about["functions"]:
        found.append(
            f"- The keys that `{usage_program.NAME}` makes of a seed draw the images that "
            "`pipeline.load(run).sample(num, seed)` and `pipeline.generate --seed` draw."
        )
    for name, classes in about["data"]["classes"].items():
        found.append(f"- Classes of {texts.cell(name)}: {texts.cell(', '.join(classes))}.")
    if about["onnx"]:
        files = ", ".join(f"`{file}`" for file in about["onnx"].values())
        found.append(f"- ONNX: {files}, with the arrays inside; arguments have the same names.")
    return found


def _entries(entries: list[dict[str, Any]]) -> str:
    shown = []
    for one in entries:
        shape = ", ".join(map(str, one["shape"]))
        shown.append(f"`{one['name']}` {one['dtype']} ({shape}): {texts.cell(one['text'])}")
    return "<br>".join(shown)


def _figures(values: Mapping[str, float]) -> list[str]:
    if not values:
        return []
    rows = [
        f"| `{name}` | {texts.number(values[name])} | {texts.cell(figures.of(name).text)} |"
        for name in texts.ordered(values)
    ]
    return ["", "| figure | value | meaning |", "|---|---|---|", *rows]


def _limits(about: Mapping[str, Any]) -> list[str]:
    return [
        f"For research and teaching, on images like those of {texts.cell(about['data']['name'])}.",
        "Nobody examined it for bias or memorised examples: decide nothing about people with it.",
    ]
