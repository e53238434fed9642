"""A config's meaning on different platforms."""

import pytest

from configs import beta_vae
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
