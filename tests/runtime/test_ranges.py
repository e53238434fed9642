"""Every number of a config has a range, and a value outside it is one line."""

import importlib

import pytest

from configs import beta_vae, capacity_vae, default, dip_vae, vq_vae
from pipeline.runtime import config_file, errors, ranges, registry, run_config
from pipeline.training import setup
from tests.support.processes import ROOT

STEMS = {path.stem for path in (ROOT / "configs").glob("*.py")}
NAMES = sorted({"default"} | STEMS - set(config_file.HIDDEN))
CONFIGS = {name: importlib.import_module(f"configs.{name}").get_config() for name in NAMES}
FIELDS = {
    field: value
    for config in CONFIGS.values()
    for field, value in run_config.flatten(config).items()
}
NUMBERS = {
    field: value
    for field, value in FIELDS.items()
    if (isinstance(value, int | float) and not isinstance(value, bool))
    or (isinstance(value, list) and field not in ranges.NAMES)
}


def refusal(field, value, module=beta_vae):
    config = module.get_config()
    *sections, name = field.split(".")
    section = config
    for part in sections:
        section = section[part]
    with section.ignore_type():
        section[name] = value
    with pytest.raises(errors.InputError) as caught:
        setup.prepare(config.lock(), open_data=False)
    text = str(caught.value)
    assert text.startswith(f"config.{field}={value} must ")
    assert "\n" not in text
    return text


def test_every_number_that_configs_share_has_a_range_and_every_range_a_number():
    shared = run_config.flatten(default.get_config()).keys()
    assert shared & NUMBERS.keys() <= ranges.RANGES.keys() <= NUMBERS.keys()
    for config in CONFIGS.values():
        run_config.check(config)


@pytest.mark.parametrize("field", NUMBERS)
def test_no_number_may_be_infinite_nan_or_beyond_64_bits(field):
    for value in (float("nan"), float("inf"), -float("inf"), 2**63, 10**400, -(10**400)):
        given = [value] if isinstance(FIELDS[field], list) else value
        with pytest.raises(errors.InputError, match=f"^config.{field}=.* must [^\n]*$"):
            ranges.check({field: given})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400], ids=repr)
def test_a_number_of_a_module_from_outside_must_be_finite_too(value):
    with pytest.raises(errors.InputError, match=r"^config.model.mine=.* must be "):
        ranges.check({"model.mine": value})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("optimizer.b1", 1.0, "must lie in [0, 1)"),
        ("optimizer.b1", -3.0, "must lie in [0, 1)"),
        ("optimizer.b1", 1 - 1e-12, "must lie in [0, 1)"),
        ("optimizer.b2", float("nan"), "must lie in [0, 1)"),
        ("optimizer.eps", -1.0, "must not be negative"),
        ("optimizer.weight_decay", float("inf"), "must be finite"),
        ("optimizer.learning_rate", float("inf"), "must be positive"),
        ("data.variance", float("nan"), "must not be negative"),
        ("watchdog_seconds", float("nan"), "must not be negative"),
        ("grace_seconds", float("inf"), "must be finite, at most 1e+09"),
        ("seed", 2**63, "must be at most"),
        ("seed", 2**32, "it would repeat the run of the seed 0"),
        ("total_steps", 2**31, "must be at most 2147483647"),
        ("batch_size", 2**64, "must be at most 2147483647"),
        ("model.hidden", (64.5,), "must hold whole numbers"),
        ("model.hidden", ("a",), "must hold whole numbers"),
        ("model.hidden", (True,), "must hold whole numbers"),
        ("model.hidden", (0,), "must be at least 1"),
        ("evals", ("heldout", "heldout"), "must name each evaluation once"),
        ("evals", ("heldout", 3), "must hold names"),
    ],
)
def test_a_value_out_of_its_range_is_refused_before_anything_is_built(field, value, words):
    assert words in refusal(field, value)


@pytest.mark.parametrize(
    ("module", "field", "value"),
    [
        (capacity_vae, "model.gamma", float("inf")),
        (capacity_vae, "model.capacity.end", float("nan")),
        (dip_vae, "model.lambda_od", -1.0),
        (dip_vae, "model.lambda_d", float("nan")),
        (vq_vae, "model.quantizer.temperature", float("nan")),
        (vq_vae, "model.quantizer.levels", (8, 1)),
        (vq_vae, "model.channel_multipliers", (1, 2.5)),
        (vq_vae, "batch_size", 2**30),
    ],
)
def test_a_models_own_numbers_have_ranges(module, field, value):
    refusal(field, value, module)


def test_a_saved_run_of_a_larger_seed_is_still_resumed(tmp_path):
    config = beta_vae.get_config("smoke")
    config.seed = 2**32 + 7
    config.batch_size = 64
    run_config.save(config, tmp_path)
    ready = setup.prepare(config.lock(), workdir=tmp_path, open_data=False)
    assert ready.config.seed == 2**32 + 7


def test_a_saved_run_is_evaluated_whatever_only_its_training_read():
    config = beta_vae.get_config("smoke")
    config.seed, config.watchdog_seconds, config.total_steps = 2**62, float("inf"), 2**40
    config.evals += ("heldout",)
    run_config.check(config, evaluating=True)


def test_the_fields_that_hold_names_exist():
    assert set(ranges.NAMES) == {f for f, v in FIELDS.items() if isinstance(v, list)} - set(NUMBERS)
    assert set(FIELDS["evals"]) <= set(registry.names("evals"))
