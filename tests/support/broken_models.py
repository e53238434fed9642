"""Models that each break one rule of the contract, for tests of `check_model`."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from pipeline.nn import gaussian_vae, losses
from tests.support import small_models


def config_of(model, monkeypatch):
    """Returns a small config whose model is the class, as a module would have it."""
    module = types.ModuleType("broken.model")
    module.Model = model
    monkeypatch.setitem(sys.modules, "broken.model", module)
    config = small_models.make_config("beta")
    config.model.name = "broken.model"
    return config


class Sound(gaussian_vae.GaussianVAE):
    """The model that the others break."""

    def objective(self, means, *, step):
        return means.reconstruction + means.kl


class BatchStatistics(Sound):
    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        mean = self.posterior(batch)[0]
        return own._replace(kl=own.kl + jnp.square(mean - mean.mean(axis=0)).sum(axis=-1)), sums


class BatchNorm(Sound):
    def __init__(self, config, example, *, rngs):
        super().__init__(config, example, rngs=rngs)
        self.norm = nnx.BatchNorm(self.latent_dim, rngs=rngs)

    def posterior(self, batch):
        mean, log_variance = super().posterior(batch)
        return self.norm(mean), log_variance

    def terms(self, batch, *, keys, step):
        mean, log_variance = self.posterior(batch)
        z = losses.sample_normal(mean, log_variance, keys)
        kl = losses.kl_to_standard_normal(mean, log_variance).sum(axis=-1)
        return gaussian_vae.Terms(self.nll(z, batch), kl), {}


class AllGather(Sound):
    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        everyone = lax.all_gather(own.kl, ("data",), tiled=True)
        return own._replace(kl=own.kl + everyone.mean()), sums


class MeanInsteadOfTerms(Sound):
    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        return own._replace(kl=own.kl.mean()), sums


class SharesOfTheBatch(Sound):
    """Divides by the number of rows, so no row depends on another."""

    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        return own._replace(kl=own.kl / len(own.kl)), sums


class WholeNumbers(Sound):
    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        return own._replace(kl=own.kl.astype(jnp.int32)), sums


class SumsOfPadding(Sound):
    def terms(self, batch, *, keys, step):
        own, _ = super().terms(batch, keys=keys, step=step)
        return own, {"kl": own.kl.sum()}


class MeansAsSums(Sound):
    def terms(self, batch, *, keys, step):
        own, _ = super().terms(batch, keys=keys, step=step)
        return own, {"kl": (batch["mask"] * own.kl).sum() / batch["mask"].sum()}


class OneKey(Sound):
    def terms(self, batch, *, keys, step):
        return super().terms(batch, keys=jax.random.split(keys[0], len(keys)), step=step)


class DrawsOnTheHost(Sound):
    def terms(self, batch, *, keys, step):
        own, sums = super().terms(batch, keys=keys, step=step)
        return own._replace(kl=own.kl * np.float32(np.random.default_rng().uniform())), sums


class CountsInPython(Sound):
    traces = 0

    def objective(self, means, *, step):
        CountsInPython.traces += 1
        return means.reconstruction + CountsInPython.traces * means.kl


class CallsTheHost(Sound):
    def objective(self, means, *, step):
        drawn = lambda: np.float32(np.random.default_rng().uniform())  # noqa: E731
        factor = jax.pure_callback(drawn, jax.ShapeDtypeStruct((), jnp.float32))
        return means.reconstruction + factor * means.kl


class Counts(Sound):
    def __init__(self, config, example, *, rngs):
        super().__init__(config, example, rngs=rngs)
        self.seen = nnx.Variable(jnp.zeros(()))

    def terms(self, batch, *, keys, step):
        self.seen[...] += batch["mask"].sum()
        return super().terms(batch, keys=keys, step=step)


class Unused(Sound):
    def __init__(self, config, example, *, rngs):
        super().__init__(config, example, rngs=rngs)
        self.unused = nnx.Param(jnp.ones(3))


class WeightDecay(Sound):
    def __init__(self, config, example, *, rngs):
        super().__init__(config, example, rngs=rngs)
        self.width = nnx.Param(jnp.ones(()))

    def objective(self, means, *, step):
        return means.reconstruction + means.kl + jnp.square(self.width[...])


class Overflow(Sound):
    def objective(self, means, *, step):
        return means.reconstruction + jnp.exp(means.kl + 1e3)


class WholeMetric(Sound):
    def metrics(self, means, sums, *, step):
        return {"one": jnp.int32(1)}


class Logits(Sound):
    def reconstruct(self, batch):
        return 3 * super().reconstruct(batch) - 1


class Flat(Sound):
    def sample(self, keys):
        return super().sample(keys).reshape(len(keys), -1)


class SharedSample(Sound):
    def sample(self, keys):
        image = super().sample(keys)
        return image - image.min(axis=0)


class NoObjective(gaussian_vae.GaussianVAE):
    pass


class Coupled(gaussian_vae.CoupledVAE):
    def coupled(self, shown, *, mask, step):
        center = (mask[:, None] * shown.z).sum(axis=0) / mask.sum()
        return (jnp.square(shown.z - center).sum(axis=-1),)

    def objective(self, means, *, step):
        return means[0].reconstruction + means[0].kl + means[1][0]

    def metrics(self, means, sums, *, step):
        return super().metrics(means[0], sums, step=step)


class CoupledPadding(Coupled):
    def coupled(self, shown, *, mask, step):
        return super().coupled(shown, mask=jnp.ones_like(mask), step=step)


class ShownOfOthers(Coupled):
    def shown(self, batch, *, keys, step):
        shown = super().shown(batch, keys=keys, step=step)
        return shown._replace(z=shown.z - shown.z.mean(axis=0))
