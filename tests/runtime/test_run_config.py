"""A config's meaning on different platforms."""

import json

import pytest

from configs import beta_vae, capacity_vae, default, vq_vae
from pipeline.nn import schedules
from pipeline.runtime import errors, run_config


@pytest.mark.parametrize(
    ("platform", "dtype"), [("cpu", "float32"), ("tpu", "bfloat16"), ("cuda", "bfloat16")]
)
def test_the_platform_chooses_the_dtype_of_a_new_run(tmp_path, platform, dtype):
    config = beta_vae.get_config()
    assert run_config.settled(config, platform, tmp_path).compute_dtype == dtype
    assert config.compute_dtype == "auto"


def test_a_run_keeps_its_dtype_on_another_platform(tmp_path):
    config = beta_vae.get_config()
    run_config.save(run_config.settled(config, "tpu"), tmp_path)
    resumed = run_config.settled(config, "cpu", tmp_path)
    assert resumed.compute_dtype == "bfloat16"
    assert run_config.check_against_run(resumed, tmp_path)
    config.compute_dtype = "float32"
    with pytest.raises(errors.InputError, match="compute_dtype is 'float32', was 'bfloat16'"):
        run_config.check_against_run(run_config.settled(config, "cpu", tmp_path), tmp_path)


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    config = beta_vae.get_config()
    config.compute_dtype = "float16"
    with pytest.raises(
        errors.InputError, match="'float16' is unknown: choose one of auto, bfloat16"
    ):
        run_config.settled(config, "cpu")


def first_start(folder, config, **changes):
    """Saves the config as the first start of a run does."""
    config.update_from_flattened_dict(changes)
    run_config.save(run_config.settled(config.lock(), "cpu", folder), folder)


def resumed(folder, config, **changes):
    """Returns the fields of the config that the next start of the run takes."""
    config.update_from_flattened_dict(changes)
    settled = run_config.settled(config.lock(), "cpu", folder)
    assert run_config.check_against_run(settled, folder)
    return run_config.flatten(settled)


LENGTHS = ("model.beta.steps", "optimizer.decay_steps", "optimizer.warmup_steps")


def test_schedules_end_with_the_run_that_they_began_in(tmp_path):
    first_start(tmp_path, beta_vae.get_config(), total_steps=200)
    prolonged = resumed(tmp_path, beta_vae.get_config(), total_steps=900)
    assert [prolonged[name] for name in LENGTHS] == [200, 200, 4]
    smoke = run_config.flatten(run_config.settled(beta_vae.get_config("smoke"), "cpu"))
    assert [smoke[name] for name in LENGTHS] == [60, 60, 1]


def test_the_main_jobs_lengths_are_those_that_were_measured():
    main = run_config.flatten(run_config.settled(beta_vae.get_config(), "cpu"))
    assert [main[name] for name in LENGTHS] == [5000, 5000, 100]


def test_a_smoke_test_ends_every_schedule():
    config = run_config.settled(capacity_vae.get_config("smoke"), "cpu")
    assert config.model.capacity.steps == config.total_steps


def test_a_run_of_explicit_lengths_resumes_by_the_same_command(tmp_path):
    explicit = {"model.beta.steps": 5000, "optimizer.decay_steps": 5000}
    explicit |= {"optimizer.warmup_steps": 100, "data.heldout_examples": 10_000}
    first_start(tmp_path, beta_vae.get_config("smoke"), **explicit)
    found = resumed(tmp_path, beta_vae.get_config("smoke"))
    assert {name: found[name] for name in explicit} == explicit


def test_other_lengths_than_the_runs_are_refused(tmp_path):
    first_start(tmp_path, beta_vae.get_config())
    with pytest.raises(errors.InputError, match=r"model\.beta\.steps is 300, was 5000"):
        resumed(tmp_path, beta_vae.get_config(), **{"model.beta.steps": 300})


@pytest.mark.parametrize(
    ("module", "field"),
    [
        (beta_vae, "optimizer.clip_norm"),
        (vq_vae, "model.quantizer.gradient"),
        (beta_vae, "model.channels"),
        (vq_vae, "model.remat"),
        (beta_vae, "compute_dtype"),
        (beta_vae, "data.heldout_examples"),
        (beta_vae, "traversals.axis"),
    ],
)
def test_a_field_that_an_older_version_lacks_has_its_old_meaning(tmp_path, module, field):
    first_start(tmp_path, module.get_config(), **{"data.heldout_examples": 10_000})
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    value = saved.pop(field)
    path.write_text(json.dumps(saved))
    assert resumed(tmp_path, module.get_config())[field] == value
    assert run_config.flatten(run_config.load(tmp_path))[field] == value


def test_a_config_of_ones_own_resumes_without_the_fields_that_the_variant_got(tmp_path):
    config = default.get_config()
    config.model.name, config.model.beta = "beta_vae", beta_vae.get_config().model.beta
    first_start(tmp_path, config)
    assert "model.channels" not in json.loads((tmp_path / "config.json").read_text())
    resumed(tmp_path, config)
    with pytest.raises(errors.InputError, match=r"config.model.channels is 64, was 128"):
        resumed(tmp_path, beta_vae.get_config(), **{"model.channels": 64})


def test_a_number_in_place_of_a_schedule_is_a_constant(tmp_path):
    config = beta_vae.get_config()
    with config.ignore_type():
        config.model.beta = 4.0
    first_start(tmp_path, config)
    loaded = run_config.load(tmp_path)
    assert loaded.model.beta == 4.0
    assert float(schedules.make(loaded.model.beta, field="model.beta")(7)) == 4.0
