"""Damage: every file of a finished run and of the cache is damaged in turn, and the run goes on.

python -m tests.support.damage

Each file is flipped, zeroed, cut, emptied and deleted, each in a copy of the run. Then the run is
prolonged, and must end in one of three ways: as an undamaged run, with the same state and points;
with a warning, and the same state; or refused in one line, so that nothing is lost. The command
counts these, prints each case that ends otherwise, and then exits with 1.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import forks
from tests.support.processes import ROOT

STEPS, MORE = 12, 16
HARMLESS, WARNED, REFUSED = "harmless", "named in a warning", "refused in one line"
KINDS = ("flip", "zero", "cut", "empty", "delete")


def arguments(folder, variant, steps):
    pictures = "conditions_grid" if variant == "conditional_vae" else "samples"
    return [
        f"--config={ROOT}/configs/{variant}.py:image_folder,smoke",
        f"--config.data.path={folder / 'images'}",
        *(
            "--config.data.image_size=8",
            "--config.data.heldout_examples=8",
            "--config.batch_size=8",
        ),
        *(() if variant == "vq_vae" else ("--config.model.hidden=(4,)",)),
        f"--config.evals={('heldout', pictures)}",
        *("--config.eval_every_steps=4", "--config.checkpoint.every_steps=4"),
        *("--config.log_every_steps=2", "--config.eval_examples=8", "--config.data.variance=0.1"),
        *(f"--config.total_steps={steps}", "--config.checkpoint.keep_newest=2"),
        f"--workdir={folder / 'run'}",
    ]


def make(folder):
    """Makes images of two classes in `folder`."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")


def damaged(kind, content, draw):
    """Returns the content of a damaged file, or None for no file."""
    place = draw.randrange(len(content)) if content else 0
    match kind:
        case "flip":
            flipped = bytes([content[place] ^ 1 << draw.randrange(8)]) if content else b"x"
            return content[:place] + flipped + content[place + 1 :]
        case "zero":
            return bytes(len(content))
        case "cut":
            return content[:place]
        case "empty":
            return b""
        case _:
            return None


def results(folder):
    """Writes the digests of the last state and all points of a run to `folder`; for a child."""
    import pickle

    import orbax.checkpoint as ocp

    from tests.support import runs

    run = folder / "run"
    at = max(runs.committed(run))
    digests = ocp.StandardCheckpointer().restore(run / "checkpoints" / str(at) / "default")[
        "digests"
    ]
    found = at, np.asarray(digests).tolist(), runs.scalars(run)
    (folder / "results").write_bytes(pickle.dumps(found))


def read_results(folder):
    import pickle

    (folder / "results").unlink(missing_ok=True)
    code = forks.wait(forks.start(lambda: results(folder)))
    assert code == 0, code
    return pickle.loads((folder / "results").read_bytes())


def said(ended, folder):
    """Returns the warnings of a command, without the folder's name."""
    text = (ended.out + ended.err).replace(str(folder), "")
    return {line.strip() for line in text.splitlines() if "warning: " in line}


def judged(ended, folder, reference, usual):
    """Returns how a case ended, or what is wrong with it after "WRONG: ".

    Args:
        ended: the `End` of the command.
        folder: of the case.
        reference: the results of an undamaged run.
        usual: the warnings of an undamaged run.
    """
    lines = [text for text in ended.err.splitlines() if text.strip()]
    warnings = said(ended, folder) - usual
    faults = [text for text in lines if not text.startswith("warning: ")]
    if "Traceback" in ended.err:
        return f"WRONG: a traceback: {lines[-1]}"
    if ended.code in (1, 2):
        return REFUSED if len(faults) == 1 else f"WRONG: not one line: {ended.err.strip()[-400:]!r}"
    if ended.code != 0:
        return f"WRONG: exit code {ended.code}: {ended.err[-300:]}"
    at, digests, points = read_results(folder)
    if (at, digests) != reference[:2]:
        return f"WRONG: another state at step {at} (warnings: {warnings})"
    if points != reference[2]:
        lost = {
            tag: sorted(set(series) - set(points.get(tag, [])))
            for tag, series in reference[2].items()
            if series != points.get(tag)
        }
        extra = any(set(series) - set(reference[2].get(tag, [])) for tag, series in points.items())
        if extra or not warnings:
            return f"WRONG: other points (lost {str(lost)[:200]}; warnings: {warnings})"
        return WARNED
    return WARNED if warnings else HARMLESS


def damage(parent, variant, seed, *, share=1.0, only="", log=print):
    """Damages every file of a run of the variant in turn; returns {how it ended: how often}.

    Args:
        parent: an empty folder.
        variant: name of a config.
        seed: of the places that are damaged.
        share: of the cases that are tried, drawn by the seed.
        only: a text that is in the names of the files.
        log: is called with each wrong case.
    """
    base = parent / "base"
    base.mkdir()
    make(base)
    ended = forks.command("train", arguments(base, variant, STEPS), base)
    assert ended.code == 0, ended
    whole = parent / "whole"
    shutil.copytree(base, whole)
    ended = forks.command("train", arguments(whole, variant, MORE), whole)
    assert ended.code == 0, ended
    reference, usual = read_results(whole), said(ended, whole)
    places = sorted(
        path.relative_to(base)
        for top in ("run", "cache")
        for path in (base / top).rglob("*")
        if path.is_file()
    )
    tally, draw = collections.Counter(), random.Random(f"{seed}-{variant}")
    for place in places:
        for kind in KINDS:
            if draw.random() >= share or only not in str(place):
                continue
            case = parent / "case"
            shutil.copytree(base, case)
            content = damaged(kind, (case / place).read_bytes(), draw)
            (case / place).unlink()
            if content is not None:
                (case / place).write_bytes(content)
            ended = forks.command("train", arguments(case, variant, MORE), case)
            how = judged(ended, case, reference, usual)
            if how.startswith("WRONG"):
                log(f"{variant}: {place}, {kind}: {how}")
            tally[how.split(":")[0]] += 1
            forks.remove(case)
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variants", nargs="+", default=["conditional_vae"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases")
    parser.add_argument("--only", default="", help="files with this text in their names")
    options = parser.parse_args()
    forks.import_everything()
    wrong = 0
    for variant in options.variants:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            tally = damage(
                Path(folder), variant, options.seed, share=options.share, only=options.only
            )
        print(f"{variant}: {sum(tally.values())} cases: {dict(tally)}", flush=True)
        wrong += tally["WRONG"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
