"""The vector quantiser: nearest codes, their gradients, and a codebook that learns.

Van den Oord et al. 2017 (arXiv:1711.00937). The decoder only ever sees `lookup` of the codes. So
training and decoding see exactly the same bits, in float32 whatever the dtype of the networks.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from pipeline.nn import streams
from pipeline.nn.quantizers import vectors
from pipeline.nn.quantizers.quantized import Quantized
from pipeline.runtime import run_config

UNPLACED = -1  # the age of a code that still waits for its first vector from the data
SETTLED = 0.5  # weight (1 − γᵗ) from which a code's use counts: a young average covers few batches


class VectorQuantizer(nnx.Module):
    """K codes that follow the encodings by moving averages (`ema`) or by gradients (`loss`)."""

    def __init__(
        self, config: Any, dim: int, num_sites: int, *, stream: int = 0, rngs: nnx.Rngs
    ) -> None:
        """Draws the codes from U(−√(3/D), √(3/D)): variance 1/D in each dimension.

        Args:
            config: the whole config; reads `model.quantizer`, the data's seed and `batch_size`.
            dim: D.
            num_sites: h·w, the number of vectors per example.
            stream: differs between the quantisers of one model, so that their draws differ.
            rngs: the stream `params`.
        """
        section = config.model.quantizer
        self.num_codes, self.shape = section.num_codes, ()
        self.commitment, self.cosine, self.chunk = section.commitment, section.cosine, section.chunk
        self.gradient = vectors.GRADIENTS[section.gradient]
        self.seed, self.stream = run_config.data_seed(config), stream
        self.num_vectors, self.num_sites = config.batch_size * num_sites, num_sites
        # At most one candidate per code and per vector of a batch, and none if no code restarts.
        from_data = section.init == "data"
        self.restart_steps, self.restart_usage = section.restart_steps, section.restart_usage
        restarts = from_data or self.restart_steps or self.restart_usage
        wanted = section.candidates if restarts else 0
        self.num_candidates = min(wanted, self.num_codes, self.num_vectors)

        # With init="data" these codes serve the first step, before any candidate replaces them.
        limit = math.sqrt(3.0 / dim)
        codes = jax.random.uniform(rngs.params(), (self.num_codes, dim), jnp.float32, -limit, limit)
        codes = vectors.unit(codes) if self.cosine else codes
        self.age = nnx.Variable(jnp.full(self.num_codes, UNPLACED if from_data else 0, jnp.int32))
        self.restarts = nnx.Variable(jnp.int32(0))
        self.by_loss = section.codebook == "loss"
        if self.by_loss:
            self.codebook: Any = nnx.Param(codes)
            # Only the optimizer may change a parameter, so a restart moves the code's start.
            self.start, self.origin = nnx.Variable(codes), nnx.Variable(codes)
        else:
            self.decay, self.epsilon = section.decay, section.epsilon
            self.codebook = nnx.Variable(codes)
            self.counts = nnx.Variable(jnp.zeros(self.num_codes))
            self.sums = nnx.Variable(jnp.zeros_like(codes))
            self.weight = nnx.Variable(jnp.float32(0.0))  # 1 − γᵗ, for zero-debiasing

    def __call__(self, z: Array) -> Quantized:
        """Replaces each vector of z, [B, h, w, D], by its nearest code (the paper's eq. 1–2)."""
        z = vectors.unit(z) if self.cosine else z
        codes = vectors.nearest(z, self.codes, chunk=self.chunk)
        values = self.lookup(codes)
        # The last two terms of eq. 3: each stop_gradient holds one side, and the other moves to it.
        terms = {"commitment": vectors.example_mean(jnp.square(z - lax.stop_gradient(values)))}
        if self.by_loss:
            terms["codebook"] = vectors.example_mean(jnp.square(lax.stop_gradient(z) - values))
        return Quantized(self.gradient(z, lax.stop_gradient(values)), codes, terms, z)

    def lookup(self, codes: Array) -> Array:
        """Returns the vectors [..., D] float32 of codes [...]."""
        return self.codes[codes]

    def loss(self, means: dict[str, Array]) -> Array:
        """Returns ‖sg[z] − e‖² (only with `loss`) + β·‖z − sg[e]‖², mean over vectors and dims."""
        return means.get("codebook", 0.0) + self.commitment * means["commitment"]

    def statistics(self, quantized: Quantized, batch: dict[str, Array], step: Array) -> dict:
        """Returns sums over these examples, without padding.

        These are `counts` [K]; with moving averages `sums` [K, D] of each code's vectors; and, if
        codes restart, `candidates` [R, D], vectors of the global batch to restart from.
        """
        z, codes = quantized.inputs, quantized.codes
        sums = {"counts": vectors.count(codes, batch["mask"], self.num_codes)}
        masked = z * batch["mask"][:, None, None, None]
        if not self.by_loss:
            sums["sums"] = vectors.sum_by_code(masked, codes, self.num_codes, chunk=self.chunk)
        if self.num_candidates:
            sums["candidates"] = self._candidates(masked, batch["position"], step)
        return sums

    def update(self, sums: dict[str, Array]) -> None:
        """Moves the codebook by the global `statistics`."""
        if not self.by_loss:
            self._average(sums)
        age = jnp.where(sums["counts"] > 0, 0, self.age[...] + 1)
        self.age[...] = jnp.where(self.age[...] == UNPLACED, UNPLACED, age)
        if self.num_candidates:
            self._restart(sums["candidates"])

    def metrics(self, means: dict[str, Array]) -> dict[str, Array]:
        """Returns the figures to log in addition to the use of the codes."""
        return {
            "commitment_loss": means["commitment"],
            "code_age": jnp.maximum(self.age[...].max(), 0).astype(jnp.float32),
            "code_restarts": self.restarts[...].astype(jnp.float32),
        }

    @property
    def codes(self) -> Array:
        """The codebook, [K, D] float32."""
        if not self.by_loss:
            return self.codebook[...]
        codes = self.start[...] + (self.codebook[...] - self.origin[...])
        return vectors.unit(codes) if self.cosine else codes

    def _average(self, sums: dict[str, Array]) -> None:
        """Sets e = m̂/Ñ, from moving averages N of the counts and m of the sums (appendix A.1).

        As in Sonnet, both start at 0 and are debiased (N̂ = N/(1 − γᵗ)). Laplace smoothing,
        Ñ = (N̂ + ε)/(n + K·ε)·n with n = ΣN̂, is not stored. So a code that was never used moves to
        the origin at the first update; one that is no longer used moves there slowly.
        """
        mean = lambda old, new: self.decay * old[...] + (1.0 - self.decay) * new  # noqa: E731
        self.weight[...] = mean(self.weight, 1.0)
        self.counts[...] = mean(self.counts, sums["counts"])
        self.sums[...] = mean(self.sums, sums["sums"])
        counts, totals = (x[...] / self.weight[...] for x in (self.counts, self.sums))
        total = counts.sum()
        smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
        codes = totals / smoothed[:, None]
        self.codebook[...] = vectors.unit(codes) if self.cosine else codes

    def _candidates(self, z: Array, position: Array, step: Array) -> Array:
        """Returns R vectors of the global batch, [R, D]; zeros for those of other shards.

        A key that all devices share draws one vector from each of R equal parts of the batch.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), streams.RESTARTS)
        key = jax.random.fold_in(jax.random.fold_in(key, step), self.stream)
        stretch = self.num_vectors // self.num_candidates
        number = jax.random.randint(key, (self.num_candidates,), 0, stretch)
        number += stretch * jnp.arange(self.num_candidates)
        held = position[:, None] == number // self.num_sites
        vector = z.reshape(z.shape[0], -1, z.shape[-1])[:, number % self.num_sites]
        # A sum of one vector and zeros is exactly that vector, however the batch is divided.
        return jnp.where(held[..., None], vector, 0.0).sum(axis=0)

    def _restart(self, candidates: Array) -> None:
        """Replaces codes that are due by candidates, those unused for longest first.

        A code is due if it waits for its first vector, was unused for `restart_steps`, or has an
        average use below `restart_usage` (lucidrains' `threshold_ema_dead_code`).
        """
        last = jnp.iinfo(jnp.int32).max
        unused = jnp.where(self.age[...] == UNPLACED, last, self.age[...])
        due = unused >= (self.restart_steps or last)
        if self.restart_usage:
            seldom = self.counts[...] < self.restart_usage * self.weight[...]
            due |= seldom & (self.weight[...] >= SETTLED)
        # Of equally old codes `top_k` takes the first, so every device replaces the same ones.
        longest, index = lax.top_k(jnp.where(due, unused, -1), self.num_candidates)
        due = longest >= 0

        def put(variable, new):
            kept = variable[...][index]
            chosen = jnp.where(due.reshape(-1, *[1] * (kept.ndim - 1)), new, kept)
            variable[...] = variable[...].at[index].set(chosen)

        if self.by_loss:
            put(self.start, candidates)  # exactly, so that of two equal codes only one is used
            put(self.origin, self.codebook[...][index])
        else:
            # Code, count and sum change together. The averages continue from one vector per step or
            # twice `restart_usage`; half of that must decay before the code is due again.
            put(self.codebook, candidates)
            count = max(1.0, 2.0 * self.restart_usage) * self.weight[...]
            put(self.counts, count)
            put(self.sums, candidates * count)
        put(self.age, 0)
        self.restarts[...] += due.sum()
