"""A plot of how evenly a VQ-VAE uses its codes over held-out data."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals
from pipeline.display import plots
from pipeline.evals import heldout
from pipeline.training import step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → a plot of each code's use, the most used first.

    Raises:
        InputError: the model has no codes.
    """
    evals.check_model(config, "vectors", what="codes", evaluation="code_ranks")
    of_state = heldout.figures(config, mesh, source)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        figures = of_state(state)
        yield "heldout/code_ranks", lambda: picture(figures)

    return evaluate


def picture(figures: dict[str, np.ndarray]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: a plot of the codes' use, the most used first.

    Args:
        figures: held-out metrics; `code_usage` [K] is each code's use over that of uniform use.
    """
    use = np.sort(figures["code_usage"])[::-1]
    perplexity, used = float(figures["perplexity"]), int((use > 0).sum())
    figure = plots.figure(
        7.0, 4.0, title=f"{used:,} of {len(use):,} codes in use; perplexity {perplexity:.1f}"
    )
    axes = figure.add_subplot()
    least = 0.5 * use[use > 0].min()  # a logarithmic axis cannot show 0
    axes.stairs(use, np.arange(len(use) + 1) + 0.5, baseline=least, fill=True)
    axes.set_yscale("log")
    axes.set_ylim(bottom=least)
    axes.axhline(1.0, color="black", linewidth=1, linestyle="--", label="uniform use")
    axes.set_xlabel("code, the most used first")
    axes.set_ylabel("use over that of uniform use")
    axes.set_xlim(0.5, len(use) + 0.5)
    axes.legend()
    return plots.pixels(figure)
