"""The fields that a study's file declares, checked one by one before any run's config is built."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.display import figures
from pipeline.runtime import errors, registry

EXAMPLE = "configs/studies/disentanglement.py"
FIELDS = {
    "methods": "a ConfigDict of names, each with a tuple of a config and overrides",
    "overrides": "a tuple of overrides of all methods",
    "seeds": "a tuple of whole numbers",
    "evals": "a tuple of evaluations, which are files in pipeline/evals/",
    "metrics": "a tuple of the figures to compare",
}
NAME = re.compile(r"[A-Za-z0-9][\w+-]*")  # of a method, which is the name of a folder
SEED = "--config.seed"
OF_STUDIES = {SEED: "study.seeds", "--config.replicas": "--replicas"}  # what decides them instead


def check(given: str, declared: Any) -> None:
    """Raises an InputError if a field is unknown, missing, empty, or of the wrong type.

    Args:
        given: what --config names, for the errors.
        declared: the ConfigDict of the file.
    """
    for field in declared:
        _check_known(field, FIELDS, "study field")
    for field, holds in FIELDS.items():
        if field not in declared:
            raise errors.InputError(f"--config={given} lacks study.{field}, {holds}: see {EXAMPLE}")
        value = declared[field]
        right = hasattr(value, "items") if field == "methods" else isinstance(value, tuple | list)
        if not right:
            raise errors.InputError(f"--config={given}: study.{field}={value!r} must be {holds}")
        if not value and field != "overrides":
            raise errors.InputError(f"--config={given}: study.{field} is empty: it must be {holds}")
    _check_methods(declared.methods)
    check_overrides("study.overrides", declared.overrides)
    for seed in declared.seeds:
        if type(seed) is not int or list(declared.seeds).count(seed) > 1:
            raise errors.InputError(
                f"study.seeds={tuple(declared.seeds)} must be different whole numbers"
            )
    for name in declared.evals:
        if "." not in str(name):  # one with a dot lies outside this package
            _check_known(name, registry.names("evals"), "study.evals: evaluation")
    for name in declared.metrics:
        if not figures.of(str(name)).text:
            _check_known(name, figures.BY_NAME, "study.metrics: figure")


def check_overrides(where: str, texts: Iterable[Any]) -> None:
    """Raises an InputError if a text is no override, or overrides what the study decides."""
    for text in texts:
        if not isinstance(text, str) or not text.startswith("--config.") or "=" not in text:
            raise errors.InputError(f"{where}: {text!r} is no override: write --config.FIELD=VALUE")
        if instead := OF_STUDIES.get(text.partition("=")[0]):
            raise errors.InputError(f"{where}: {text}: in a study, {instead} decides that")


def check_replicas(replicas: int, seeds: Sequence[int]) -> None:
    """Raises an InputError if seeds do not come in groups whose members follow each other."""
    groups = [seeds[start : start + replicas] for start in range(0, len(seeds), replicas)]
    if any(tuple(group) != tuple(range(group[0], group[0] + replicas)) for group in groups):
        raise errors.InputError(
            f"--replicas={replicas} trains {replicas} seeds that follow each other, and "
            f"study.seeds={tuple(seeds)}: choose another number, or other seeds"
        )


def _check_methods(methods: Any) -> None:
    for name, texts in methods.items():
        if not NAME.fullmatch(name):
            raise errors.InputError(
                f"study.methods: {name!r} is the name of a folder: use letters, digits, _, + and -"
            )
        if not isinstance(texts, tuple | list) or not texts or not isinstance(texts[0], str):
            raise errors.InputError(
                f"study.methods.{name}={texts!r} must be a tuple of a config and overrides, such "
                "as ('configs/beta_vae.py', '--config.model.beta=4')"
            )
        check_overrides(f"study.methods.{name}", texts[1:])
    lower = [name.lower() for name in methods]
    if twice := [name for name in methods if lower.count(name.lower()) > 1]:
        raise errors.InputError(
            f"study.methods: {' and '.join(twice)} are one folder on some file systems: rename one"
        )


def _check_known(name: Any, known: Iterable[str], noun: str) -> None:
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3) or sorted(known)
        raise errors.InputError(f"{noun} {name!r} is unknown: did you mean {' or '.join(close)}?")
