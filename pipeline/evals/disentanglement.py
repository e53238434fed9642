"""How well latents and factors match: the metrics of `pipeline.evals.scores`.

`config.disentanglement.protocol` says which images they see and how their learners are set. The
seed chooses the images, and the mesh encodes them once. Only process 0 runs the learners; it then
sends its figures to all processes.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, evals, models
from pipeline.display import plots, terminal
from pipeline.evals.scores import drawn, examples, metrics, mutual_information, protocols
from pipeline.mesh import agreement
from pipeline.runtime import errors, registry, throttle
from pipeline.training import batching, posteriors, step

SLOW = "minutes"
FEWEST_EXAMPLES = 200  # with fewer, the test would contain values that learners never saw
# Examples per device in a batch. It is not config.batch_size: rounding depends on the shapes that a
# device computes, and the last bit can decide a tree's split or a vote.
ROWS = 64
MOST_SECONDS = 4 * 3600.0  # for which the other processes wait for the first one's learners
MEETINGS = itertools.count()  # the same on all processes, because they evaluate in one order


def for_report(config: Any) -> Any:
    """Returns the config by which `pipeline.evaluate` evaluates: "auto" becomes locatello.

    Raises:
        InputError: "auto", and the protocol would take long with so many latents and factors.
    """
    if config.disentanglement.protocol != protocols.AUTO:
        return config
    example = datasets.example_spec(config)
    factors = example.get("factors")
    # A grid of latents has more of them than `config.model.latent_dim`.
    latents = getattr(models.abstract(config, example), "latent_dim", 0)
    takes = protocols.minutes(latents, factors.num_classes) if factors is not None else 0.0
    if takes > protocols.MOST_MINUTES:
        raise errors.InputError(
            f"config.disentanglement.protocol='auto' would take about {takes:.0f} minutes on two "
            f"cores, for {latents} latents: choose locatello to run it all the same, or quick"
        )
    config = config.copy_and_resolve_references()
    config.disentanglement.protocol = protocols.LOCATELLO
    return config


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → each metric's scalars, and a heat map of information.

    Raises:
        InputError: no factors, no Gaussian posterior, too few examples, or an unknown metric.
    """
    # Mistakes in the config are found here, before anything is compiled.
    settings = config.disentanglement
    registry.check(settings.protocol, protocols.NAMES, field="disentanglement.protocol")
    protocol = protocols.QUICK if settings.protocol == protocols.AUTO else settings.protocol
    factors = _check(config, protocol, len(source))
    chosen = {
        name: registry.choose(metrics.METRICS, name, field="disentanglement.metrics")
        for name in settings.metrics
    }
    names = metrics.figures(chosen, protocol)
    excluded = [k for k, name in enumerate(factors.names) if name in settings.chen_excludes]
    images = drawn.images(config, source, protocol)
    config = config.copy_and_resolve_references()
    config.batch_size, config.eval_batch_size = ROWS * mesh.size, 0
    encode = posteriors.encoder(config, mesh)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        with _progress(images) if protocol == protocols.LOCATELLO else contextlib.nullcontext():
            batches = batching.heldout_batches(images.chosen, config, mesh, num=0)
            encoded = encode(state, (batch for _, batch in batches))
        sample = drawn.sample(images, encoded)
        # A diverged model has no figures. All processes hold the same encodings, so they agree.
        known = bool(np.isfinite([encoded.mean, encoded.log_variance]).all())
        figures = np.full(len(names), np.nan, np.float32)
        if known and jax.process_index() == 0:
            found = metrics.compute(chosen, sample, encoded, excluded=excluded, seed=config.seed)
            figures = np.array(found, np.float32)
        if known and jax.process_count() > 1:
            agreement.wait_patiently(f"scores {next(MEETINGS)}", seconds=MOST_SECONDS)
        for name, value in zip(names, agreement.chosen_by_first(figures), strict=True):
            yield f"heldout/{name}", float(value)
        if known:
            yield "heldout/mutual_information", lambda: _picture(sample, factors.names)

    return evaluate


@contextlib.contextmanager
def _progress(images: drawn.Images) -> Iterator[None]:
    """Shows how many images were read, which takes most of the time until the metrics begin."""
    screen = terminal.Terminal(active=jax.process_index() == 0)
    report = throttle.Throttle(metrics.REPORT_SECONDS if screen.live else metrics.LOG_SECONDS)
    total, done = len(images.rows), 0
    with screen.progress(total, noun="image", transient=True) as progress:

        def heard(number: int) -> None:
            nonlocal done
            done = min(done + number * jax.process_count(), total)
            if report.due():
                progress.report(done, "encoding")

        images.source.heard = heard
        try:
            yield
        finally:
            images.source.heard = lambda number: None


def _check(config: Any, protocol: str, num_heldout: int) -> Any:
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
    if protocol == protocols.QUICK and min(num or num_heldout, num_heldout) < FEWEST_EXAMPLES:
        raise errors.InputError(
            f"config.disentanglement.num_examples={num} of {num_heldout} held-out examples: give "
            f"{FEWEST_EXAMPLES} at least (by config.data.heldout_examples too), or 0 for all"
        )
    return factors


def _picture(sample: examples.Sample, names: tuple[str, ...]) -> np.ndarray:
    """Returns the heat map of mutual information, [H, W, 3] uint8."""
    codes, factors = sample.codes, sample.factors
    entropy = mutual_information.entropies(factors)
    varying = np.flatnonzero(entropy)
    return plots.heat_map(
        mutual_information.between(codes, factors[:, varying]),
        rows=[f"z{d}" for d in range(codes.shape[1])],
        columns=[f"{names[k]}\nH = {entropy[k]:.2f}" for k in varying],
        title="Mutual information of latents and factors",
        unit="nats",
    )
