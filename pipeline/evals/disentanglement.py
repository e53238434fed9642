"""How well latents and factors match: the metrics of `pipeline.evals.scores` on held-out data.

The seed chooses the examples, and the mesh encodes them once. Only process 0 runs the learners; it
then sends its figures to all processes.
"""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import plots, terminal
from pipeline.evals.scores import (
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    irs,
    mig,
    mig_chen,
    modularity,
    mutual_information,
    sap,
)
from pipeline.mesh import agreement
from pipeline.runtime import errors, registry
from pipeline.training import batching, posteriors, step

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
SLOW = "minutes"
FEWEST_EXAMPLES = 200  # with fewer, the test would contain values that learners never saw
# Examples per device in a batch. It is not config.batch_size: rounding depends on the shapes that a
# device computes, and the last bit can decide a tree's split or a vote.
ROWS = 64


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → each metric's scalars, and a heat map of information.

    Raises:
        InputError: no factors, no Gaussian posterior, too few examples, or an unknown metric.
    """
    # Mistakes in the config are found here, before anything is compiled.
    settings = config.disentanglement
    factors = _check(config, len(source))
    chosen = [
        registry.choose(METRICS, name, field="disentanglement.metrics") for name in settings.metrics
    ]
    names = [name for module in chosen for name in module.Scores._fields]
    excluded = [k for k, name in enumerate(factors.names) if name in settings.chen_excludes]
    # RandomState, not Generator: its stream is frozen (NEP 19), so figures stay comparable.
    order = np.random.RandomState(config.seed % 2**32).permutation(len(source))
    subset = datasets.Subset(source, order[: settings.num_examples or len(order)])
    config = config.copy_and_resolve_references()
    config.batch_size = ROWS * mesh.size
    encode = posteriors.encoder(config, mesh)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        batches = (batch for _, batch in batching.heldout_batches(subset, config, mesh, num=0))
        encoded = encode(state, batches)
        # A diverged model has no figures. All processes hold the same encodings, so they agree.
        known = bool(np.isfinite([encoded.mean, encoded.log_variance]).all())
        figures = np.full(len(names), np.nan, np.float32)
        if known and jax.process_index() == 0:
            figures = np.array(_scores(chosen, encoded, excluded, config.seed), np.float32)
        for name, value in zip(names, agreement.chosen_by_first(figures), strict=True):
            yield f"heldout/{name}", float(value)
        if known:
            yield "heldout/mutual_information", lambda: _picture(encoded, factors.names)

    return evaluate


def _check(config: Any, num_heldout: int) -> Any:
    """Returns the data set's entry of factors, or raises an InputError if no figure is possible."""
    factors = datasets.example_spec(config).get("factors")
    if factors is None or max(factors.num_classes) < 2:
        raise errors.InputError(
            f"config.evals has 'disentanglement', but config.data.name={config.data.name!r} has no "
            "factors: take it out, or choose sprites or dsprites"
        )
    what = "Gaussian posterior"
    evals.check_model(config, "posterior", what=what, evaluation="disentanglement")
    sized = {n for n, size in zip(factors.names, factors.num_classes, strict=True) if size > 1}
    if sized <= set(config.disentanglement.chen_excludes):
        raise errors.InputError(
            f"config.disentanglement.chen_excludes={tuple(config.disentanglement.chen_excludes)} "
            f"leaves no factor of {', '.join(factors.names)}: name fewer"
        )
    num = config.disentanglement.num_examples
    if min(num or num_heldout, num_heldout) < FEWEST_EXAMPLES:
        raise errors.InputError(
            f"config.disentanglement.num_examples={num} of {num_heldout} held-out examples: give "
            f"{FEWEST_EXAMPLES} at least (by config.data.heldout_examples too), or 0 for all"
        )
    return factors


def _scores(
    chosen: list[ModuleType], encoded: posteriors.Encodings, excluded: list[int], seed: int
) -> list[float]:
    """Returns the figures of all metrics in their order, and shows progress."""
    factors = encoded.attributes["factors"]
    figures: list[float] = []
    with terminal.Terminal().progress(len(chosen), noun="metric") as progress:
        for done, module in enumerate(chosen):
            progress.report(done, f"computing {module.__name__.rpartition('.')[2]}")
            if module is mig_chen:
                figures += mig_chen.scores(
                    encoded.mean, encoded.log_variance, factors, seed=seed, excluded=excluded
                )
            else:
                figures += module.scores(encoded.mean, factors, seed=seed)
        progress.report(len(chosen), "disentanglement is known")
    return figures


def _picture(encoded: posteriors.Encodings, names: tuple[str, ...]) -> np.ndarray:
    """Returns the heat map of mutual information, [H, W, 3] uint8."""
    factors = encoded.attributes["factors"]
    entropy = mutual_information.entropies(factors)
    varying = np.flatnonzero(entropy)
    return plots.heat_map(
        mutual_information.between(encoded.mean, factors[:, varying]),
        rows=[f"z{d}" for d in range(encoded.mean.shape[1])],
        columns=[f"{names[k]}\nH = {entropy[k]:.2f}" for k in varying],
        title="Mutual information of latents and factors",
        unit="nats",
    )
