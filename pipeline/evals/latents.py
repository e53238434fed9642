"""Latent health: KL and activity of each latent, and the aggregate posterior against the prior.

Everything is computed from the posteriors' means and variances in closed form, without sampling. A
unit is active if the variance of its posterior mean over the data is above 0.01 (Burda et al. 2016,
arXiv:1509.00519, section 5.2).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from pipeline import datasets, models
from pipeline.display import texts
from pipeline.runtime import errors
from pipeline.training import batching, posteriors, step

ACTIVE = 0.01  # variance of the posterior mean, in units of the prior's
COLLAPSED = 0.1  # share of active units below which the posterior counts as collapsed
ROWS = 256  # of the table of latents; a grid may have thousands
FAR_RATE = 10.0  # nats; with a higher rate a posterior that ignores x is far from the prior
LOW_RATE = 0.1  # nats; with a lower rate z says almost nothing about x, active units or not


class Health(NamedTuple):
    """Figures of each latent over N examples, [D] float64, and of all latents together."""

    kl: np.ndarray  # KL(q(z_d|x) ‖ N(0, 1)) in nats, mean over examples
    mean_variance: np.ndarray  # variance of the posterior mean over examples
    aggregate_mean: np.ndarray  # mean of q(z_d) = 1/N Σ q(z_d|x)
    aggregate_deviation: np.ndarray  # standard deviation of q(z_d)
    aggregate_kl: float  # nats, see `health`

    @property
    def active(self) -> np.ndarray:
        """Which units are active, [D] bool."""
        return self.mean_variance > ACTIVE


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, value) pairs.

    Raises:
        InputError: the model has no Gaussian posterior.
    """
    if not hasattr(models.abstract(config, datasets.example_spec(config)), "posterior"):
        raise errors.InputError(
            f"'latents' needs a model with a Gaussian posterior, which "
            f"config.model.name={config.model.name!r} lacks: leave it out of the evaluations"
        )
    encode = posteriors.encoder(config, mesh)

    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        batches = (batch for _, batch in batching.heldout_batches(source, config, mesh))
        found = health(encode(state, batches))
        yield "heldout/active_units", float(found.active.sum())
        yield "heldout/active_share", float(found.active.mean())
        yield "heldout/aggregate_kl", found.aggregate_kl
        yield "heldout/kl_per_latent", found.kl
        yield "heldout/latents", table(found)

    return evaluate


def health(encoded: posteriors.Encodings) -> Health:
    """Returns the figures of N posteriors.

    `aggregate_kl` is KL(N(m, S) ‖ N(0, 1)) in nats, summed over latents. m and S are the mean and
    covariance of the aggregate posterior 1/N Σ q(z|x). It is 0 if these equal the prior's. It is a
    lower bound on the marginal KL of Hoffman & Johnson (2016), which is what draws from the prior
    miss.
    """
    means, variances = encoded.mean.astype(np.float64), np.exp(encoded.log_variance.astype(float))
    mean, within = means.mean(axis=0), variances.mean(axis=0)
    # S = diag(within) + AᵀA has D² entries, too many for a grid of latents. Its determinant is
    # Π within · |1 + B|, with the smaller of B = A'A'ᵀ [N, N] and A'ᵀA' [D, D], A' = A / √within.
    deviations = (means - mean) / np.sqrt(len(means))
    scaled = deviations / np.sqrt(within)
    gram = scaled @ scaled.T if len(means) < mean.size else scaled.T @ scaled
    log_determinant = np.log(within).sum() + np.linalg.slogdet(gram + np.eye(len(gram)))[1]
    diagonal = within + np.square(deviations).sum(axis=0)
    excess = diagonal.sum() + mean @ mean - mean.size - log_determinant
    return Health(
        kl=encoded.kl.mean(axis=0, dtype=np.float64),
        mean_variance=means.var(axis=0),
        aggregate_mean=mean,
        aggregate_deviation=np.sqrt(diagonal),
        aggregate_kl=float(0.5 * excess),
    )


def table(found: Health) -> str:
    """Returns a Markdown table of the latents, the highest KL first, at most `ROWS` of them."""
    rows = [
        f"| {i} | {found.kl[i]:.3f} | {found.mean_variance[i]:.3f} | "
        f"{'yes' if found.active[i] else 'no'} | {found.aggregate_mean[i]:+.3f} | "
        f"{found.aggregate_deviation[i]:.3f} |"
        for i in np.argsort(-found.kl, kind="stable")[:ROWS]
    ]
    head = (
        "| latent | KL, nats | variance of the mean | active | mean of q(z) | deviation of q(z) |"
    )
    left_out = len(found.kl) - len(rows)
    more = [f"\nLeft out: {texts.counted(left_out, 'latent')} of a lower KL."] if left_out else []
    return "\n".join([head, "|---:|---:|---:|:---:|---:|---:|", *rows, *more])


def warnings(figures: dict[str, float]) -> list[str]:
    """Returns a warning if the posterior has collapsed, with what helps against it.

    A rate that follows a target that is still low is no collapse: few units should be in use then.
    """
    share, rate = figures.get("active_share", 1.0), figures.get("rate")
    if share >= COLLAPSED and (rate is None or rate >= LOW_RATE):
        return []
    if rate is not None and rate >= figures.get("current_capacity", math.inf) / 2:
        return []
    if share == 0.0 and rate is not None and rate >= FAR_RATE:
        return [
            f"no latent is active, and the rate is {rate:.2g} nats: the posterior is far from the "
            "prior and does not depend on the image. Training has diverged: a lower "
            "config.optimizer.learning_rate helps"
        ]
    known = "" if rate is None else f", and the rate is {rate:.2g} nats"
    return [
        f"only {share:.1%} of the latents are active{known}: the posterior has collapsed onto the "
        "prior. With config.model: a lower beta, or one that rises from 0 (beta.schedule='linear' "
        "or 'cyclical'); name='capacity_vae', which holds the rate at a target, or there a higher "
        "gamma; a smaller latent_dim; a smaller sigma; or a lower config.optimizer.learning_rate"
    ]
