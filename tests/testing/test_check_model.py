"""`check_model` passes what keeps the contract, and names what breaks it in one line."""

import subprocess
import sys

import numpy as np
import pytest

from configs import code_prior
from pipeline import testing
from pipeline.models import beta_vae
from pipeline.runtime import errors
from tests.support import broken_models, code_folders, small_models
from tests.support.processes import ROOT

LAYOUTS = (
    "losses are equal on 1 device with accumulation_steps=2",
    "losses are equal on 1 device with deterministic_shards=4",
    "losses are equal on 4 devices",
    "losses are equal on 4 devices with fsdp=2 and accumulation_steps=2",
    "bits are equal on 4 devices with deterministic_shards=4",
)


# Each trains in seven programs, so only one of each kind is here: with conditions, with statistics
# of its own, with means of products, and with a discriminator.
@pytest.mark.parametrize("variant", ["film", "vq", "dip", "factor"])
def test_models_of_this_repository_pass(variant):
    found = testing.check_model(small_models.make_config(variant))
    assert found.checked[-5:] == LAYOUTS
    assert not found.skipped


def test_a_prior_over_codes_passes(tmp_path):
    config = code_prior.get_config("smoke")
    config.data.path = str(code_folders.write(tmp_path / "codes", distortion=True))
    config.model.width, config.model.num_heads = 16, 2
    found = testing.check_model(config, devices=1)
    assert "`reconstruct`: the model has none" in found.skipped


def test_a_module_or_a_name_is_checked_with_its_smoke_config_and_one_device_is_no_secret():
    for model in (beta_vae, "beta_vae"):
        found = testing.check_model(model, devices=1, steps=2)
        assert found.skipped == (
            "several devices: devices=1, and this needs 2 or 4",
            "fsdp: devices=1, and this needs 2 or 4",
            "equal bits with deterministic_shards: devices=1, and this needs 2 or 4",
        )
        assert found.checked[-2:] == LAYOUTS[:2]


CASES = {
    "BatchStatistics": r"terms\.kl of an example changes with another example of its shard: by .* "
    r"of .*; define `shown` and `coupled`",
    "BatchNorm": r"terms\.reconstruction of an example changes with another .* define `shown`",
    "AllGather": r"the model uses axes of the mesh .*data.* define `shown` and `coupled`",
    "MeanInsteadOfTerms": r"terms\.kl is float32\[\] for 16 examples: return floats \[16, …\]",
    "SharesOfTheBatch": r"terms\.kl of an example differs in a batch of half the size: by",
    "WholeNumbers": r"terms\.kl is int32\[16\] for 16 examples: return floats",
    "SumsOfPadding": r"kl of `sums` .* padding: by .*; multiply by `mask`",
    "MeansAsSums": r"kl of `sums` is not the sum of both halves .* no means",
    "OneKey": r"terms\.reconstruction of an example changes with another example's key: by .* "
    r"`jax.vmap\(draw\)\(keys\)`",
    "DrawsOnTheHost": r"0\.terms\.kl differs between two traces of `terms`: by .*; draw with",
    "CountsInPython": r"0\.grad_norm differs between two programs of the same step: by .*; dra",
    "CallsTheHost": r"0\.grad_norm differs between two programs of the same step: by .*",
    "Counts": r"seen changes in `terms`, and the step drops that: by 16 of 0; return sums",
    "Unused": r"no gradient reaches unused: use it, remove it, or name it in `untrained`",
    "WeightDecay": r"`objective` reads width, and the step drops that gradient: return .* term",
    "Overflow": r"loss is (inf|nan) after 3 steps",
    "WholeMetric": r"metrics\['one'\] is int32\[\]: return a float",
    "Logits": r"`reconstruct` returns values of -.* … .*: return images in \[0, 1\]",
    "Flat": r"`sample` returns float32\[16, 4096\] for 16 examples: .*\[16, 64, 64, 1\]",
    "SharedSample": r"sample of an example changes with another example's key",
    "NoObjective": r"the model has no `objective`: define it",
    "CoupledPadding": r"0 of `coupled` changes with padding: by .*; multiply by `mask`",
    "ShownOfOthers": r"(terms\.reconstruction|shown\.z) of an example changes with another",
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_model_fails_in_one_line_that_says_what_to_do(name, monkeypatch):
    config = broken_models.config_of(getattr(broken_models, name), monkeypatch)
    with pytest.raises(testing.ModelError, match=f"^({CASES[name]})") as raised:
        testing.check_model(config)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["Sound", "Coupled"])
def test_the_models_that_the_broken_ones_break_pass(name, monkeypatch):
    config = broken_models.config_of(getattr(broken_models, name), monkeypatch)
    assert not testing.check_model(config, devices=2).skipped


def test_a_parameter_may_be_untrained_if_it_is_named(monkeypatch):
    config = broken_models.config_of(broken_models.Unused, monkeypatch)
    testing.check_model(config, devices=1, untrained=("unused",))
    with pytest.raises(errors.InputError, match="'unusd', which is no parameter: choose from dec"):
        testing.check_model(config, devices=1, untrained=("unusd",))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"devices": 3}, "devices=3 must be 1, 2 or 4"),
        ({"steps": 1}, "steps=1 must be at least 2"),
        ({"batch": {}}, "batch\\['image'\\] has nothing, and the data set's spec says uint8"),
        ({"batch": {"image": np.zeros((16, 8))}}, "batch\\['image'\\] has float64\\[16, 8\\], and"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options, line):
    with pytest.raises(errors.InputError, match=line):
        testing.check_model("beta_vae", **options)


def test_fields_that_a_model_needs_are_asked_for():
    with pytest.raises(errors.InputError, match=r"needs more fields .*: give check_model a config"):
        testing.check_model("tests.support.needy_model")


def test_missing_devices_are_an_error_and_importing_it_starts_nothing():
    script = (
        "import sys; from pipeline import testing; print('jax' in sys.modules)\n"
        "import os; os.environ['XLA_FLAGS'] = ''\n"
        "testing.check_model('beta_vae')"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n"
    assert "JAX has 1 CPU devices: set XLA_FLAGS=--xla_force_host_platform_device_count=4" in (
        found.stderr
    )
