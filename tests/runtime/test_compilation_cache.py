import jax
import pytest

from pipeline.runtime import cache, errors

NAMES = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_raise_persistent_cache_errors",
)


@pytest.fixture(autouse=True)
def settings():
    before = {name: jax.config.values[name] for name in NAMES}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_by_default_programs_are_kept_in_the_users_cache_by_processor(tmp_path):
    jax.config.update("jax_compilation_cache_dir", None)
    cache.enable_compilation_cache("auto")
    kept = jax.config.values["jax_compilation_cache_dir"]
    assert kept.startswith(f"{tmp_path / 'cache' / 'vae-pipeline' / 'compiled'}/")


def test_without_a_home_folder_programs_are_not_kept(monkeypatch):
    def missing():
        raise RuntimeError("no home folder")

    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(cache.Path, "home", missing)
    cache.enable_compilation_cache("auto")
    assert not jax.config.values["jax_enable_compilation_cache"]


def test_the_environments_folder_comes_before_the_users(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    cache.enable_compilation_cache("auto")
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)


def test_a_shared_folder_is_made_and_one_that_cannot_be_is_an_error(tmp_path):
    cache.enable_compilation_cache(str(tmp_path / "shared"))
    kept = jax.config.values["jax_compilation_cache_dir"]
    assert kept.startswith(f"{tmp_path / 'shared'}/") and (tmp_path / "shared").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(errors.InputError, match=r"compilation_cache=.*choose another folder"):
        cache.enable_compilation_cache(str(tmp_path / "file"))


def test_none_is_none():
    cache.enable_compilation_cache("")
    assert not jax.config.values["jax_enable_compilation_cache"]
