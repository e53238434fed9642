"""The importance-weighted bound on log p(x): Burda et al. 2016 (arXiv:1509.00519), eq. 8.

L_K = E[log 1/K Σ p(x, z_k) / q(z_k|x)] with z_k ~ q(z|x). L_1 is the ELBO; L_K rises with K and
tends to log p(x). The k-th draw of an example depends only on the example's position and on k. So
the mesh, the batch size and the chunk change no draw, and K draws are the first K of any larger
number.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from pipeline import datasets, models
from pipeline.nn import losses, metrics
from pipeline.runtime import errors
from pipeline.training import batching, evaluation, step


def make(config: Any, mesh: Mesh, source: datasets.Source) -> Callable[..., Iterator]:
    """Returns the evaluation: state → (tag, value) pairs.

    Raises:
        InputError: the model has no Gaussian posterior, or a number is not positive.
    """
    section, example = config.importance_weighted, datasets.example_spec(config)
    for field in ("num_samples", "chunk"):
        errors.check_range(f"config.importance_weighted.{field}", section[field], 1)
    model = models.abstract(config, example)
    if not (hasattr(model, "posterior") and hasattr(model, "nll")):
        raise errors.InputError(
            f"'importance_weighted' needs a model with a Gaussian posterior, which "
            f"config.model.name={config.model.name!r} lacks: leave it out of the evaluations"
        )
    # The bounds for fewer samples come from the same draws, at no extra cost.
    counts = sample_counts(section.num_samples)
    terms = functools.partial(_terms, counts=counts, chunk=section.chunk)
    eval_step = evaluation.make_eval_step(config, example, mesh, terms=terms)
    num_dims, bin_width = math.prod(example["image"].shape), model.likelihood.bin_width

    # Sums and counts are added up first, so a short last batch has the right weight.
    def evaluate(state: step.TrainState) -> Iterator[tuple[str, Any]]:
        total, count = 0.0, 0.0
        for first, batch in batching.heldout_batches(source, config, mesh):
            summed, _, examples = eval_step(state, batch, jnp.uint32(first))
            total, count = total + summed, count + examples
        bounds = np.asarray(jax.device_get(total / count), np.float64)
        yield "heldout/iw_elbo", float(bounds[-1])
        if bin_width is not None:
            bits = metrics.bits_per_dim(bounds[-1], num_dims=num_dims, bin_width=bin_width)
            yield "heldout/iw_bits_per_dim", float(bits)
        rows = [f"| {k} | {bound:.3f} |" for k, bound in zip(counts, bounds, strict=True)]
        head = "| samples K | bound on log p(x), nats |\n|---:|---:|"
        yield "heldout/iw_convergence", "\n".join([head, *rows])

    return evaluate


def sample_counts(num_samples: int) -> tuple[int, ...]:
    """Returns 1, 2, 5, 10, 20, … below `num_samples`, and `num_samples` itself."""
    series = (digit * 10**power for power in range(len(str(num_samples))) for digit in (1, 2, 5))
    return (*(count for count in series if count < num_samples), num_samples)


def log_weights(
    model: Any, batch: dict[str, Array], keys: Array, *, num_samples: int, chunk: int
) -> Array:
    """Returns log p(x, z_k) − log q(z_k|x) in nats, [K, B], for K draws of each example.

    Args:
        model: has `posterior` and `nll`, see `pipeline.models.Model`.
        batch: of B examples.
        keys: [B], one PRNG key per example.
        num_samples: K.
        chunk: number of draws that are decoded at a time, which limits the memory.
    """
    mean, log_variance = model.posterior(batch)

    def of_draw(number):
        of_example = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
        z = losses.sample_normal(mean, log_variance, of_example)
        return losses.log_prior_ratio(z, mean, log_variance).sum(axis=-1) - model.nll(z, batch)

    return lax.map(of_draw, jnp.arange(num_samples, dtype=jnp.uint32), batch_size=chunk)


def _terms(
    model: Any,
    batch: dict[str, Array],
    *,
    keys: Array,
    step: Array,
    counts: tuple[int, ...],
    chunk: int,
) -> tuple[Array, dict]:
    """Returns each example's bounds in nats, [B, len(counts)], and no further sums."""
    del step
    weights = log_weights(model, batch, keys, num_samples=counts[-1], chunk=chunk)
    bounds = [jax.nn.logsumexp(weights[:k], axis=0) - math.log(k) for k in counts]
    return jnp.stack(bounds, axis=-1), {}
