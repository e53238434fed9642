"""What a run keeps in its folder: a damaged config is restored, lost checkpoints are noticed."""

import json
import os

import pytest

from configs import beta_vae, vq_vae
from pipeline.runtime import errors, run_config
from pipeline.runtime.storage import places
from pipeline.runtime.workdir import contents, saved_config


@pytest.fixture
def config():
    return beta_vae.get_config("smoke")


@pytest.fixture
def workdir(tmp_path, config):
    run_config.save(config, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def with_another_digit(path):
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "no text": lambda path: path.write_bytes(b'{"seed": "\xff"}'),
    "brackets": lambda path: path.write_bytes(b"[" * 100_000),
    "another table": lambda path: path.write_bytes(b"[1]"),
    "nested": lambda path: path.write_bytes(b'{"seed": {"a": 1}}'),
    "ambiguous": lambda path: path.write_bytes(b'{"model": 1, "model.name": "x"}'),
    "names": lambda path: path.write_bytes(b'{"": 1, "..": 2}'),
    "folder": replaced_by_a_folder,
    "pipe": replaced_by_a_pipe,
    "dangling": replaced_by_a_dangling_link,
}


def one_line(text):
    assert len(text.strip().splitlines()) == 1, text
    return text


@pytest.mark.parametrize("damage", [*DAMAGES.values(), with_another_digit, os.remove])
def test_a_damaged_config_is_named_replaced_by_its_copy_and_set_aside(
    workdir, config, capsys, damage
):
    damage(workdir / "config.json")
    left = os.path.lexists(workdir / "config.json")
    assert run_config.check_against_run(config, workdir)
    assert run_config.flatten(run_config.load(workdir)) == run_config.flatten(config)
    said = one_line(capsys.readouterr().err)  # once for all that read it
    assert f"warning: {workdir / 'config.json'} is damaged or was edited" in said
    run_config.save(config, workdir)
    assert os.path.lexists(workdir / "damaged-config.json") == left
    assert json.loads((workdir / "config.json").read_text()) == run_config.flatten(config)
    damage(workdir / "config.json")
    run_config.save(config, workdir)
    assert os.path.lexists(workdir / "damaged-config.json-again") == left


def test_the_field_that_was_edited_is_named_and_the_edit_counts_without_the_copy(
    workdir, config, capsys
):
    with_another_digit(workdir / "config.json")
    assert run_config.load(workdir).seed == 0
    assert "config.seed is 1, was 0" in capsys.readouterr().err
    (workdir / ".config.json").unlink()
    assert run_config.load(workdir).seed == 1
    with pytest.raises(errors.InputError, match=r"config\.seed is 0, was 1"):
        run_config.check_against_run(config, workdir)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_config_that_is_damaged_with_its_copy_is_one_line_that_says_how_to_go_on(
    workdir, config, damage
):
    damage(workdir / "config.json")
    damage(workdir / ".config.json")
    before = sorted(workdir.iterdir())
    for read in (run_config.load, lambda folder: run_config.check_against_run(config, folder)):
        with pytest.raises(errors.InputError, match=r"copy its config\.json here") as refused:
            read(workdir)
        one_line(str(refused.value))
    assert sorted(workdir.iterdir()) == before


@pytest.mark.parametrize("damage", [*DAMAGES.values(), with_another_digit, os.remove])
def test_a_damaged_copy_changes_nothing_and_is_renewed(workdir, config, capsys, damage):
    damage(workdir / ".config.json")
    assert run_config.check_against_run(config, workdir)
    assert not capsys.readouterr().err
    run_config.save(config, workdir)
    (workdir / "config.json").unlink()
    assert run_config.check_against_run(config, workdir)


def test_a_config_of_ones_own_may_hold_any_value_of_json(tmp_path, config):
    config.unlock()
    config["my-fields"] = {"pairs": ((1, 2), (3.0, None)), "name": "ä.b"}
    run_config.save(config, tmp_path)
    for name in (".config.json", "config.json"):
        fields = saved_config.read(tmp_path)
        assert fields["my-fields.pairs"] == [[1, 2], [3.0, None]]
        (tmp_path / name).unlink()


def test_a_field_in_place_of_a_section_is_one_line(workdir):
    (workdir / ".config.json").unlink()
    (workdir / "config.json").write_text('{"model": 1}')
    with pytest.raises(errors.InputError, match=r"config\.json is damaged \('model' is no field\)"):
        run_config.load(workdir)


def test_a_run_without_a_copy_is_read_and_gets_one(workdir, config, capsys):
    (workdir / ".config.json").unlink()  # as an older version left it
    assert run_config.check_against_run(config, workdir)
    run_config.save(config, workdir)
    assert not (workdir / "damaged-config.json").exists()
    assert saved_config.read(workdir) == run_config.flatten(config)
    assert not capsys.readouterr().err


def test_another_run_of_the_folder_is_still_refused(workdir):
    with pytest.raises(errors.InputError, match="holds another run"):
        run_config.check_against_run(vq_vae.get_config("smoke"), workdir)


@pytest.mark.parametrize(
    "name",
    ["..config.json.0123abcd.tmp", ".config.json.0123abcd.tmp", ".config.json.tmp", ".lease-3"],
)
def test_what_an_unsuccessful_start_left_does_not_make_a_folder_somebody_elses(
    tmp_path, config, name
):
    (tmp_path / name).touch()
    assert not run_config.check_against_run(config, tmp_path)
    (tmp_path / "notes.tmp").touch()
    with pytest.raises(errors.InputError, match="holds no run"):
        run_config.check_against_run(config, tmp_path)


def test_checkpoints_without_any_config_are_refused_with_the_repair(workdir, config):
    for name in ("config.json", ".config.json"):
        (workdir / name).unlink()
    (workdir / "checkpoints" / "60").mkdir()
    with pytest.raises(errors.InputError, match=r"no config\.json: .* copy its config\.json here"):
        run_config.check_against_run(config, workdir)


def test_a_run_that_lost_its_checkpoints_is_no_fresh_start(workdir, config):
    contents.note_saved(workdir, 60)
    with pytest.raises(errors.InputError, match="the checkpoints of step 60 are gone") as refused:
        run_config.check_against_run(config, workdir)
    assert f"remove {workdir}" in one_line(str(refused.value))
    (workdir / "checkpoints").rmdir()
    with pytest.raises(errors.InputError, match="the checkpoints of step 60 are gone"):
        run_config.check_against_run(config, workdir)
    (workdir / "checkpoints" / "40").mkdir(parents=True)  # only the newest are gone
    assert run_config.check_against_run(config, workdir)


def test_an_older_run_that_lost_its_checkpoints_is_no_fresh_start(workdir, config):
    (workdir / "tensorboard").mkdir()
    (workdir / "tensorboard" / "events.out.tfevents.1.host").touch()
    assert run_config.check_against_run(config, workdir)  # it was killed before its first save
    (workdir / "checkpoints").rmdir()
    with pytest.raises(errors.InputError, match="the checkpoints are gone"):
        run_config.check_against_run(config, workdir)


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"step": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_note_of_the_newest_step_is_ignored(workdir, config, note):
    (workdir / contents.SAVED).write_bytes(note)
    assert run_config.check_against_run(config, workdir)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_note_of_another_kind_neither_waits_nor_ends_a_run(workdir, config, make):
    make(workdir / contents.SAVED)
    contents.note_saved(workdir, 20)
    assert contents.saved(workdir) is None
    assert run_config.check_against_run(config, workdir)


def test_a_workdir_that_is_no_folder_is_refused(tmp_path, config):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(errors.InputError, match=f"{name} must be a folder"):
            run_config.check_against_run(config, tmp_path / name)


def test_a_save_without_its_marker_is_no_checkpoint_where_markers_count(tmp_path):
    for step in ("20", "40"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "checkpoints" / "20" / "commit_success.txt").touch()
    assert contents.committed(tmp_path) == [20, 40]
    assert contents.committed(tmp_path, marked=True) == [20]


def test_a_path_that_no_file_system_takes_is_a_mistake(tmp_path):
    with pytest.raises(errors.InputError, match="File name too long: give another path"):
        places.of(f"{tmp_path}/{'x' * 300}")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(errors.InputError, match="symbolic links"):
        places.of(f"{tmp_path}/loop/run")


def test_a_saved_config_whose_model_has_no_name_is_damaged(workdir, config):
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"model.name": ["beta_vae"]}))
    (workdir / saved_config.COPY).unlink()
    with pytest.raises(errors.InputError, match=r"config\.json is damaged \(model\.name="):
        run_config.check_against_run(config, workdir)
