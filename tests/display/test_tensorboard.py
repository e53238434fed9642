import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorboard_data_server
from PIL import Image
from tensorboard import context
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.data import grpc_provider

from pipeline.display import event_counts, event_files, event_records, figures, tensorboard

ROOT = Path(__file__).parents[2]
KEEP_ALL = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)


def reader(folder):
    return event_accumulator.EventAccumulator(str(folder), KEEP_ALL).Reload()


def points(accumulator, tag):
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def write_steps(writer, first, last, offset=0.0):
    for step in range(first, last + 1):
        writer.write("train/loss", step + offset, step)
        if step % 10 == 0:
            writer.write("heldout/elbo", -step - offset, step)
            writer.write("heldout/samples", np.full((2, 2, 3), step, np.uint8), step)
    writer.flush()


def run_python(code, *arguments, **variables):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
    )


def pixels(event):
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_importing_it_imports_neither_tensorboard_nor_heavy_packages(tmp_path):
    # A stand-in, so that the test also runs if torch is not installed.
    (tmp_path / "torch.py").write_text("")
    result = run_python(
        "import pipeline.display.tensorboard, sys\n"
        "heavy = {'tensorboard', 'matplotlib', 'torch', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy",
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )
    assert result.returncode == 0, result.stderr


def test_scalars_arrive_as_the_float32_that_was_given(tmp_path):
    values = [0.1, np.float32(1 / 3), np.array(1e-30, np.float32), 7, math.inf, math.nan]
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        for step, value in enumerate(values):
            writer.write("train/loss", value, step)
    expected = [(step, float(np.float32(value))) for step, value in enumerate(values)]
    np.testing.assert_array_equal(points(reader(tmp_path), "train/loss"), expected)
    np.testing.assert_array_equal(event_files.read_scalars(tmp_path)["train/loss"], expected)


def write_one_of_each(folder):
    with tensorboard.Writer(folder, resume_step=None) as writer:
        writer.write("train/kl_loss", 1.5, 1)
        writer.write("heldout/samples", np.zeros((4, 6, 3), np.uint8), 1)
        writer.write("heldout/codebook_usage", np.array([0.0, 0.5, 1.0]), 1)
        writer.write("config", "a **text**", 1)
    return {
        "train/kl_loss": ("train/kl loss", "scalars"),
        "heldout/samples": ("heldout/samples", "images"),
        "heldout/codebook_usage": ("heldout/codebook usage", "histograms"),
        "config": ("config", "text"),
    }


def test_write_picks_the_dashboard_by_the_value(tmp_path):
    expected = write_one_of_each(tmp_path)
    accumulator = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    for tag, (display_name, plugin) in expected.items():
        metadata = accumulator.SummaryMetadata(tag)
        assert metadata.plugin_data.plugin_name == plugin
        assert metadata.display_name == display_name
        assert metadata.summary_description == figures.of(tag).text
    assert accumulator.Tensors("config")[0].tensor_proto.string_val == [b"a **text**"]


def test_the_fast_loader_of_tensorboard_shows_the_descriptions(tmp_path):
    if tensorboard_data_server.server_binary() is None:
        pytest.skip("no fast loader for this platform")
    expected = write_one_of_each(tmp_path / "run")
    port_file = tmp_path / "port"
    command = [
        *(tensorboard_data_server.server_binary(), f"--logdir={tmp_path}", "--reload=1"),
        *("--port=0", f"--port-file={port_file}", "--die-after-stdin", "--samples-per-plugin="),
    ]
    deadline = time.monotonic() + 15
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        try:
            while not (port_file.exists() and port_file.read_text().endswith("\n")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            address = f"127.0.0.1:{int(port_file.read_text())}"
            with grpc.insecure_channel(address) as channel:
                stub = grpc_provider.data_provider_pb2_grpc.TensorBoardDataProviderStub(channel)
                provider = grpc_provider.GrpcDataProvider(address, stub)
                lists = {
                    "scalars": provider.list_scalars,
                    "images": provider.list_blob_sequences,
                    "histograms": provider.list_tensors,
                    "text": provider.list_tensors,
                }
                for tag, (display_name, plugin) in expected.items():
                    request = {"experiment_id": "", "plugin_name": plugin}
                    while not (runs := lists[plugin](context.RequestContext(), **request)):
                        assert time.monotonic() < deadline
                        time.sleep(0.01)
                    series = runs["run"][tag]
                    assert series.display_name == display_name
                    assert series.description == figures.of(tag).text
        finally:
            server.stdin.close()


def test_images_keep_every_grey_level_and_are_rounded_and_clipped_to_one(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    colours = np.concatenate([levels, levels[::-1], levels.transpose(1, 0, 2)], axis=-1)
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("heldout/samples", colours, 1)
        writer.write("heldout/samples", colours.astype(np.float32) / 255, 2)
        writer.write("heldout/samples", levels, 3)
        writer.write("heldout/samples", np.array([[[-0.5], [1.5], [np.nan], [0.7 / 255]]]), 4)
    first, second, grey, outside = reader(tmp_path).Images("heldout/samples")
    np.testing.assert_array_equal(pixels(first), colours)
    np.testing.assert_array_equal(pixels(second), colours)
    np.testing.assert_array_equal(pixels(grey), np.repeat(levels, 3, axis=-1))
    np.testing.assert_array_equal(pixels(outside)[0, :, 0], [0, 255, 0, 1])


def test_a_histogram_counts_every_value(tmp_path):
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("heldout/codebook_usage", values, 1)
    histogram = reader(tmp_path).Histograms("heldout/codebook_usage")[0].histogram_value
    assert sum(histogram.bucket) == histogram.num == 1000
    assert (histogram.min, histogram.max) == (values.min(), values.max())


def test_a_value_of_another_shape_is_refused_with_its_shape(tmp_path):
    with (
        tensorboard.Writer(tmp_path, resume_step=None) as writer,
        pytest.raises(ValueError, match=r"shape \(2, 2\)"),
    ):
        writer.write("train/loss", np.zeros((2, 2)), 1)


def test_a_figure_without_a_row_is_written_under_its_tag(tmp_path):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("train/surprise", 1.5, 1)
    accumulator = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    metadata = accumulator.SummaryMetadata("train/surprise")
    assert metadata.plugin_data.plugin_name == "scalars"
    assert (metadata.display_name, metadata.summary_description) == ("train/surprise", "")
    assert points(reader(tmp_path), "train/surprise") == [(1, 1.5)]


@pytest.mark.parametrize("step", [4, 5])
def test_a_step_written_twice_is_our_own_bug(tmp_path, step):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("train/loss", 1.0, 5)
        with pytest.raises(AssertionError, match=f"train/loss written at step {step}"):
            writer.write("train/loss", 2.0, step)


def test_a_process_other_than_the_first_touches_no_file(tmp_path):
    with tensorboard.Writer(tmp_path / "new", resume_step=3, active=False) as writer:
        writer.write("train/loss", 1.0, 4)
        writer.write("config", "text", 4)
        writer.write("heldout/samples", np.ones((2, 2, 3)), 4)
        writer.flush()
    assert not (tmp_path / "new").exists()


def test_a_flushed_point_is_readable_while_the_file_is_open(tmp_path):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("train/loss", 1.0, 1)
        writer.flush()
        assert event_files.read_scalars(tmp_path) == {"train/loss": [(1, 1.0)]}


def test_writing_after_close_fails_and_closing_twice_does_not(tmp_path):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.close()
        with pytest.raises(AssertionError, match="after close"):
            writer.write("train/loss", 1.0, 1)


def test_each_tag_has_each_step_once_after_a_crash_and_a_resume(tmp_path):
    crashed = tensorboard.Writer(tmp_path, resume_step=None)
    write_steps(crashed, 1, 30)
    running = reader(tmp_path)
    with tensorboard.Writer(tmp_path, resume_step=20) as writer:
        write_steps(writer, 21, 40, offset=0.5)
    crashed.close()
    loss = [(step, step + 0.5 * (step > 20)) for step in range(1, 41)]
    elbo = [(10, -10), (20, -20), (30, -30.5), (40, -40.5)]
    # Read from the raw files, by a new TensorBoard, and by one that was started before the crash.
    assert event_files.read_scalars(tmp_path) == {"train/loss": loss, "heldout/elbo": elbo}
    for accumulator in (reader(tmp_path), running.Reload()):
        assert points(accumulator, "train/loss") == loss
        assert points(accumulator, "heldout/elbo") == elbo
        images = accumulator.Images("heldout/samples")
        assert [event.step for event in images] == [10, 20, 30, 40]


def test_repeated_crashes_and_resumes_from_the_same_checkpoint_leave_no_double(tmp_path):
    for resume_step, last in ((None, 25), (20, 23), (20, 35), (30, 40)):
        with tensorboard.Writer(tmp_path, resume_step=resume_step) as writer:
            write_steps(writer, (resume_step or 0) + 1, last)
    expected = [(step, float(step)) for step in range(1, 41)]
    assert event_files.read_scalars(tmp_path)["train/loss"] == expected
    assert points(reader(tmp_path), "train/loss") == expected


def test_a_killed_process_leaves_what_it_flushed_and_the_next_start_goes_on(tmp_path):
    result = run_python(
        "import os, signal, sys\n"
        "from pipeline.display import event_files, tensorboard\n"
        "writer = tensorboard.Writer(sys.argv[1], resume_step=None)\n"
        "for step in range(1, 2001):\n"
        "    writer.write('train/loss', step, step)\n"
        "    if step == 1000:\n"
        "        writer.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(event_files.read_scalars(tmp_path)["train/loss"]) >= 1000
    with tensorboard.Writer(tmp_path, resume_step=1000) as writer:
        writer.write("train/loss", 1001.0, 1001)
    expected = [(step, float(step)) for step in range(1, 1002)]
    assert event_files.read_scalars(tmp_path)["train/loss"] == expected


def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record(tmp_path):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("train/loss", 1.0, 1)
        writer.write("train/loss", 2.0, 2)
        writer.flush()
        (path,) = tmp_path.iterdir()
        two = path.stat().st_size
        writer.write("train/loss", 3.0, 3)
    whole = path.read_bytes()
    for size in range(two, len(whole)):
        path.write_bytes(whole[:size])
        assert event_files.read_scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0)]
    with tensorboard.Writer(tmp_path, resume_step=2) as writer:
        writer.write("train/loss", 3.5, 3)
    assert path.read_bytes() == whole[:two]
    assert points(reader(tmp_path), "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.5)]


def write_points(folder, last):
    """Writes a file of the losses 1 to `last`; returns its path and where each record ends."""
    with tensorboard.Writer(folder, resume_step=None) as writer:
        (path,) = folder.iterdir()
        ends = [path.stat().st_size]
        for step in range(1, last + 1):
            writer.write("train/loss", float(step), step)
            writer.flush()
            ends.append(path.stat().st_size)
    return path, ends


def losses(folder, warn):
    found = event_files.read_scalars(folder, warn=warn)
    return [step for step, _ in found.get("train/loss", ())]


def test_what_is_whole_after_a_damaged_record_stays(tmp_path):
    path, ends = write_points(tmp_path, 5)
    whole = path.read_bytes()
    for position in range(ends[2], ends[3]):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        said = []
        assert losses(tmp_path, said.append) == [1, 2, 4, 5]
        assert len(said) == 1 and f"{path} is damaged: {ends[3] - ends[2]} bytes" in said[0]


def flip(content, start, end):
    return content[:start] + bytes([content[start] ^ 8]) + content[start + 1 :]


def zero(content, start, end):
    return content[:start] + bytes(end - start) + content[end:]


def lose(content, start, end):
    return content[: start + 5] + content[end - 5 :]


def add(content, start, end):
    return content[:start] + b"x" * 1000 + content[start:]


def add_no_event(content, start, end):
    record = io.BytesIO()
    data = b"\xff\xff\xff"  # no protocol buffer, but with the right checksums
    checksum = event_records.tensorboardx().record_writer.masked_crc32c
    head = len(data).to_bytes(8, "little")
    for piece in (head, checksum(head), data, checksum(data)):
        record.write(piece if isinstance(piece, bytes) else piece.to_bytes(4, "little"))
    return content[:start] + record.getvalue() + content[start:]


@pytest.mark.parametrize("damage", [flip, zero, lose, add, add_no_event])
def test_a_resume_cuts_only_the_damage_and_keeps_the_damaged_file(tmp_path, damage):
    path, ends = write_points(tmp_path, 5)
    whole = path.read_bytes()
    damaged = damage(whole, ends[2], ends[3])
    path.write_bytes(damaged)
    said = []
    with tensorboard.Writer(tmp_path, resume_step=4, warn=said.append) as writer:
        writer.write("train/loss", 5.5, 5)
    kept = [1, 2, 4] if damage in (flip, zero, lose) else [1, 2, 3, 4]
    assert [step for step, _ in points(reader(tmp_path), "train/loss")] == [*kept, 5]
    aside = tmp_path / path.name.replace("tfevents", "damaged")
    assert aside.read_bytes() == damaged
    assert len(said) == 1 and str(path) in said[0] and aside.name in said[0]
    said.clear()
    tensorboard.Writer(tmp_path, resume_step=5, warn=said.append).close()
    assert not said


def test_a_file_is_searched_for_whole_records_in_linear_time(tmp_path):
    path, ends = write_points(tmp_path, 2)
    whole = path.read_bytes()
    noise = np.random.default_rng(0).integers(256, size=2_000_000, dtype=np.uint8).tobytes()
    path.write_bytes(whole[: ends[1]] + bytes(2_000_000) + noise + whole[ends[1] :])
    began = time.process_time()
    assert losses(tmp_path, lambda text: None) == [1, 2]
    assert time.process_time() - began < 5


def test_what_cannot_be_an_event_file_stops_no_run(tmp_path, monkeypatch):
    write_points(tmp_path, 2)
    (tmp_path / "events.out.tfevents.5.folder").mkdir()
    (tmp_path / "events.out.tfevents.6.broken").symlink_to("nothing")
    (tmp_path / "events.out.tfevents.7.empty").touch()
    (tmp_path / "events.out.tfevents.8.text").write_text("a text that is no record")
    os.mkfifo(tmp_path / "events.out.tfevents.9.pipe")
    read = Path.read_bytes
    (tmp_path / "events.out.tfevents.10.closed").write_text("points")

    def denied(self):
        if self.name.endswith("closed"):
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    said = []
    with tensorboard.Writer(tmp_path, resume_step=2, warn=said.append) as writer:
        writer.write("train/loss", 3.0, 3)
    assert losses(tmp_path, lambda text: None) == [1, 2, 3]
    assert sorted(text.split(" ")[0][-6:] for text in said) == ["8.text", "closed"]
    assert (tmp_path / "events.out.tfevents.10.closed").is_file()


@pytest.mark.parametrize("remove", [os.remove, lambda path: shutil.rmtree(path.parent)])
def test_a_flush_whose_file_was_removed_is_an_oserror(tmp_path, remove):
    writer = tensorboard.Writer(tmp_path / "events", resume_step=None)
    writer.write("train/loss", 1.0, 1)
    remove(next((tmp_path / "events").iterdir()))
    with pytest.raises(OSError, match="was removed while this run wrote it"):
        writer.flush()
    with pytest.raises(OSError, match="was removed while this run wrote it"):
        writer.close()


def test_a_resume_that_dies_while_cleaning_is_repaired_by_the_next(tmp_path, monkeypatch):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        write_steps(writer, 1, 30)
    before = event_files.read_scalars(tmp_path)

    def fail(*_):
        raise OSError("killed here")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed here"):
        patch.setattr(os, "replace", fail)
        tensorboard.Writer(tmp_path, resume_step=20)
    assert event_files.read_scalars(tmp_path) == before
    assert points(reader(tmp_path), "train/loss") == before["train/loss"]
    tensorboard.Writer(tmp_path, resume_step=20).close()
    assert event_files.read_scalars(tmp_path)["train/loss"] == before["train/loss"][:20]
    assert not (tmp_path / "purge.tmp").exists()


def test_a_point_at_the_checkpoint_itself_stands_and_is_not_doubled(tmp_path):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("heldout/elbo", -1.0, 20)
    with tensorboard.Writer(tmp_path, resume_step=20) as writer:
        writer.write("heldout/elbo", -2.0, 20)
        writer.write("heldout/rate", 3.0, 20)
    assert event_files.read_scalars(tmp_path) == {
        "heldout/elbo": [(20, -1.0)],
        "heldout/rate": [(20, 3.0)],
    }


def test_a_start_from_the_beginning_removes_the_points_of_a_start_without_checkpoint(tmp_path):
    for last in (30, 5):
        with tensorboard.Writer(tmp_path, resume_step=None) as writer:
            write_steps(writer, 0, last)
    expected = [(step, float(step)) for step in range(6)]
    assert event_files.read_scalars(tmp_path)["train/loss"] == expected
    assert points(reader(tmp_path), "train/loss") == expected


def test_starts_within_a_second_or_on_a_slow_clock_get_later_names(tmp_path, monkeypatch):
    names = []
    for clock in (1_800_000_000.0, 1_800_000_000.5, 1_700_000_000.0):
        monkeypatch.setattr(event_files.time, "time", lambda clock=clock: clock)
        tensorboard.Writer(tmp_path, resume_step=0).close()
        names += [path.name for path in tmp_path.iterdir() if path.name not in names]
    assert len(names) == 3
    assert names == sorted(names)


def test_a_folder_that_cannot_be_written_is_an_oserror_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        tensorboard.Writer(tmp_path / "file" / "events", resume_step=None)


@pytest.mark.parametrize("call", ["flush", "close", "write"])
def test_a_full_disk_is_an_oserror_in_the_caller(tmp_path, call):
    # A limit on the size of files acts like a full disk.
    result = run_python(
        "import resource, sys\n"
        "from pipeline.display import event_files, tensorboard\n"
        "writer = tensorboard.Writer(sys.argv[1], resume_step=None)\n"
        "writer.write('train/loss', 1.0, 1)\n"
        "writer.flush()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try:\n"
        "    for step in range(2, 2000 if sys.argv[2] == 'write' else 10):\n"
        "        writer.write('train/loss', 1.0, step)\n"
        "    if sys.argv[2] != 'write':\n"
        "        getattr(writer, sys.argv[2])()\n"
        "except OSError as error:\n"
        "    sys.exit('surfaced: ' + str(error))\n",
        tmp_path,
        call,
    )
    assert "surfaced: [Errno 27]" in result.stderr


def emptied(path):
    path.write_bytes(b"")


def removed(path):
    path.unlink()


def cut_between_records(path):
    content = memoryview(path.read_bytes())
    *_, last = (record for _, record in event_records.read(content))
    path.write_bytes(content[: -len(last)])


@pytest.mark.parametrize("hurt", [emptied, removed, cut_between_records])
def test_points_that_are_missing_without_a_torn_record_are_told(tmp_path, hurt):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        for step in (1, 2, 3):
            writer.write("train/loss", 1.0, step)
        writer.promise(3)
        writer.write("train/loss", 1.0, 4)
    warnings = []
    with tensorboard.Writer(tmp_path, resume_step=3, warn=warnings.append) as writer:
        writer.promise(3)
    assert not warnings
    hurt(min(tmp_path.glob(event_files.NAMES)))
    tensorboard.Writer(tmp_path, resume_step=3, warn=warnings.append).close()
    lost = 1 if hurt is cut_between_records else 3
    assert warnings == [
        f"{lost} points up to step 3 are missing in {tmp_path}: event files were cut, emptied or "
        "removed"
    ]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"points": {"3": 9}, "digest": "0"}', b"[", b"7"]
)
def test_a_damaged_note_of_points_claims_nothing(tmp_path, content):
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("train/loss", 1.0, 3)
        writer.promise(3)
    (tmp_path / event_counts.NAME).write_bytes(content)
    warnings = []
    tensorboard.Writer(tmp_path, resume_step=3, warn=warnings.append).close()
    assert not warnings
