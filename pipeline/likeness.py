"""How alike the latents of several runs are: unsupervised disentanglement ranking (UDR).

Duan et al. 2020 (arXiv:1905.12614); the equations are in `disentanglement.udr`. All runs encode the
same examples, the first run's held-out ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import comparison, data, encodings, models, run_config, saved_state, sharding
from pipeline.disentanglement import udr

NUM_EXAMPLES = 1000  # as in disentanglement_lib


def ranking(runs: Sequence[comparison.Run]) -> Mapping[str, list[float | None]]:
    """Returns `udr_lasso` and `udr_spearman` of every run; nothing where runs can't be compared.

    They can where all have a Gaussian posterior and are of data of one name and size.
    """
    configs = [run_config.load(run.workdir) for run in runs]
    examples = [data.example_spec(config) for config in configs]
    abstract = [
        models.abstract(config, example) for config, example in zip(configs, examples, strict=True)
    ]
    kinds = {
        (config.data.name, example["image"].shape)
        for config, example in zip(configs, examples, strict=True)
    }
    if len(kinds) > 1 or not all(hasattr(model, "posterior") for model in abstract):
        return {}
    source = data.load(configs[0]).heldout
    found = [_encoded(run, config, source) for run, config in zip(runs, configs, strict=True)]
    means, kls = [each.mean for each in found], [each.kl.mean(axis=0) for each in found]
    return {
        f"udr_{relation.__name__}": [float(s) for s in udr.scores(means, kls, relation=relation)]
        for relation in (udr.lasso, udr.spearman)
    }


def _encoded(run: comparison.Run, config: Any, source: data.Source) -> encodings.Encodings:
    mesh = sharding.make_mesh({"data": -1})
    config = config.copy_and_resolve_references().unlock()
    config.eval_batch_size = 64 * mesh.size
    example = data.example_spec(config)
    _, state = saved_state.restore(run.workdir, str(run.found["step"]), config, example, mesh)
    batches = data.heldout_batches(source, config, mesh, num=NUM_EXAMPLES)
    return encodings.make(config, mesh)(state, (batch for _, batch in batches))
