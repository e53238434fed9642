"""The benchmark's section on sampling: what it draws, and for which models."""

import types

import jax

from configs import beta_vae, code_prior
from pipeline import datasets
from pipeline.nn.autoregressive import code_sampling
from pipeline.performance.sections import sampling
from tests.support import code_folders

CACHED, RECOMPUTED = "with the cache, codes/s", "by recomputation, codes/s"
RATIO = "its time over that with the cache"


def bench_of(config):
    """Returns what the section reads of a prepared benchmark."""
    ready = types.SimpleNamespace(config=config, example=datasets.example_spec(config))
    return types.SimpleNamespace(ready=ready, options=types.SimpleNamespace(rounds=3))


def prior(folder, network):
    config = code_prior.get_config("smoke")
    config.data.path = str(code_folders.write(folder))
    config.model.network = network
    return bench_of(config)


def test_both_forms_draw_all_codes_of_all_images_in_each_round(tmp_path, monkeypatch):
    drawn = {}

    def counted(name):
        whole = getattr(code_sampling, name)

        def form(*parts, **given):
            codes = whole(*parts, **given)
            jax.debug.callback(lambda c: drawn.setdefault(name, []).append(c), codes)
            return codes

        monkeypatch.setattr(code_sampling, name, form)

    counted("cached")
    counted("recomputed")
    figures = sampling.measure(prior(tmp_path, "transformer"))
    assert list(figures) == [CACHED, RECOMPUTED, RATIO]
    jax.effects_barrier()
    assert {name: len(rounds) for name, rounds in drawn.items()} == {"cached": 4, "recomputed": 4}
    assert all(codes.shape == (64, 16) for rounds in drawn.values() for codes in rounds)
    # The same keys draw the same codes in both forms.
    assert (drawn["cached"][0] == drawn["recomputed"][0]).mean() > 0.99
    ratio = figures[RATIO]
    assert ratio.low <= ratio.median <= ratio.high


def test_a_network_without_a_cache_is_timed_by_recomputation_only(tmp_path):
    (figure,) = sampling.measure(prior(tmp_path, "pixel_cnn")).items()
    assert figure[0] == RECOMPUTED and figure[1] > 0


def test_a_model_that_draws_no_codes_has_no_such_section():
    assert sampling.measure(bench_of(beta_vae.get_config("smoke"))) == {}
