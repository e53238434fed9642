"""All metrics by the names of their files, their figures' names, and how they are computed."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pipeline.display import terminal
from pipeline.evals.scores import (
    beta_vae_score,
    dci,
    examples,
    explicitness,
    factor_vae_score,
    irs,
    mig,
    mig_chen,
    modularity,
    protocols,
    sap,
)
from pipeline.runtime import throttle
from pipeline.training import posteriors

METRICS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        mig,
        mig_chen,
        dci,
        sap,
        factor_vae_score,
        beta_vae_score,
        modularity,
        explicitness,
        irs,
    )
}
REPORT_SECONDS, LOG_SECONDS = 0.5, 10.0  # between two reports of a metric, on a bar or in a log


def figures(chosen: Mapping[str, ModuleType], protocol: str) -> list[str]:
    """Returns the names of the figures of metrics, in their order."""
    return [
        protocols.figure(name, field, protocol)
        for name, module in chosen.items()
        for field in module.Scores._fields
    ]


def renamed(older: Mapping[str, Any]) -> dict[str, Any]:
    """Returns figures of a version that had only the quick protocol, by their names of today."""
    plain, quick = (figures(METRICS, name) for name in (protocols.LOCATELLO, protocols.QUICK))
    new = dict(zip(plain, quick, strict=True))
    return {new.get(name, name): value for name, value in older.items()}


def compute(
    chosen: Mapping[str, ModuleType],
    sample: examples.Sample,
    encoded: posteriors.Encodings,
    *,
    excluded: list[int],
    seed: int,
) -> list[float]:
    """Returns the figures of metrics in their order, and shows progress.

    Args:
        chosen: some of `METRICS`.
        sample: what they are computed from.
        encoded: whose first posteriors are those of `sample.codes`.
        excluded: columns of the factors that Chen et al. leave out.
        seed: of draws and learners.
    """
    found: list[float] = []
    screen = terminal.Terminal()
    report = throttle.Throttle(REPORT_SECONDS if screen.live else LOG_SECONDS)
    with screen.progress(len(chosen), noun="metric") as progress:
        for done, (name, module) in enumerate(chosen.items()):
            progress.report(done, f"computing {name}")

            def told(share: float, done: int = done) -> None:
                if report.due():
                    progress.report(done, f"computing dci: {share:.0%} of the trees")

            if module is mig_chen:
                own = slice(len(sample.codes))
                posterior = (encoded.mean[own], encoded.log_variance[own])
                found += mig_chen.scores(*posterior, sample.factors, seed=seed, excluded=excluded)
            elif module is dci:
                found += dci.scores(sample, seed=seed, told=told)
            else:
                found += module.scores(sample, seed=seed)
        progress.report(len(chosen), "disentanglement is known")
    return found
