"""The program use_me.py of an export: it calls each function with jax, flatbuffers and numpy only.

It is written for the functions of the model at hand, so that a reader sees their arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

NUM = 4  # examples
NAME = "use_me.py"
HEAD = '''"""Calls the exported functions; needs: pip install "jax>={oldest_jax}" flatbuffers"""
import json
from pathlib import Path
import jax.export
import numpy as np
here = Path(__file__).parent
data = np.fromfile(here / "{params}", np.uint8)  # 8 bytes: N; N bytes of JSON; the arrays
start = 8 + int(data[:8].view("<u8")[0])
types = {{"BOOL": "?", "F32": "<f4", "I32": "<i4", "U32": "<u4"}}
params = {{n: data[start:][slice(*at["data_offsets"])].view(types[at["dtype"]]).reshape(at["shape"])
          for n, at in json.loads(data[8:start].tobytes()).items() if n != "__metadata__"}}
load = lambda name: jax.jit(jax.export.deserialize(bytearray((here / name).read_bytes())).call)
'''
KEYS = "jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange({}))"


def program(about: Mapping[str, Any]) -> str:
    """Returns the text of use_me.py, at most 20 lines.

    Args:
        about: the content of config.json.
    """
    functions = about["functions"]
    return HEAD.format(**about) + "\n".join([*_inputs(functions), *_calls(functions)]) + "\n"


def _inputs(functions: Mapping[str, Any]) -> list[str]:
    """Returns a line for each array that no function returns."""
    made = {one["name"] for one in functions.get("encode", {"outputs": []})["outputs"]}
    made |= {"z"} if "mean" in made else set()
    firsts = {one["inputs"][0]["name"]: one["inputs"][0] for one in functions.values()}
    lines = [_first(entry) for name, entry in firsts.items() if name not in made]
    labels = next(iter(functions.values()))["inputs"][1:]
    if labels:
        values = ", ".join(f"np.zeros({_shape(one)}, np.{one['dtype']})" for one in labels)
        lines.append(f"labels = [{values}]  # {', '.join(one['name'] for one in labels)}")
    return lines


def _first(entry: Mapping[str, Any]) -> str:
    name, shape = entry["name"], _shape(entry)
    if name == "keys":
        return f"keys = jax.random.key_data({KEYS.format(NUM)})"
    if name == "images":
        return f"images = np.random.default_rng(0).random({shape}, np.float32)  # {entry['text']}"
    return f"{name} = np.zeros({shape}, np.{entry['dtype']})  # {entry['text']}"


def _calls(functions: Mapping[str, Any]) -> Sequence[str]:
    """Returns a line for each function, and one that prints the shapes of all results."""
    lines: list[str] = []
    results: list[str] = []
    for name, function in functions.items():
        outputs = [one["name"] for one in function["outputs"]]
        targets = outputs if name == "encode" else [f"{name.removesuffix('e')}ed"]
        first, *labels = [one["name"] for one in function["inputs"]]
        given = ["params", "mean" if first == "z" and "encode" in functions else first]
        given += ["*labels"] if labels else []
        lines.append(f'{", ".join(targets)} = load("{function["file"]}")({", ".join(given)})')
        results += targets
    return [*lines, f"print(*[one.shape for one in ({', '.join(results)},)])"]


def _shape(entry: Mapping[str, Any]) -> str:
    """Returns the shape for `NUM` examples, as Python writes it."""
    return str((NUM, *entry["shape"][1:]))
