from configs import beta_vae
from pipeline.runtime.processes import traits


def test_a_host_may_keep_its_data_elsewhere_and_nothing_else_may_differ():
    def facts(*arguments, **changes):
        config = beta_vae.get_config("smoke")
        config.update_from_flattened_dict(changes)
        return traits.of(["command", *arguments], config)

    first = facts("--workdir=/a", "--process_id", "0", "--config=x", "--config.seed=1")
    moved = {"data.path": "/mnt", "data.num_threads": 7, "compilation_cache": "/tmp/x"}
    assert first == facts("--process_id", "1", "--workdir", "/b", **moved)
    assert first["the number of devices"] >= 1 and "numpy" in first
    for changes in ({"seed": 1}, {"log_every_steps": 7}, {"data.resident": True}):
        assert first != facts(**changes)
    assert facts("--dry_run")["--dry_run"] == "" and "--dry_run" not in first


def test_code_is_told_apart_by_its_text_and_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "room").mkdir(parents=True)
        (tmp_path / name / "room" / "a.py").write_text("x = 1\n")
    first, second = traits.digest(tmp_path / "one"), traits.digest(tmp_path / "two")
    assert first == second
    (tmp_path / "two" / "room" / "a.py").write_text("x = 2\n")
    assert first != traits.digest(tmp_path / "two")
    (tmp_path / "one" / "room" / "a.py").rename(tmp_path / "one" / "room" / "b.py")
    assert first != traits.digest(tmp_path / "one")
