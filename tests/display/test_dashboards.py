"""TensorBoard's pages about a whole run, tested through TensorBoard's own readers."""

import json
import re

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_file_loader, plugin_event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from configs import beta_vae, capacity_vae, vq_vae
from pipeline.display import dashboards, event_files, figures, tensorboard
from pipeline.runtime import run_config

BETA = ("loss", "kl_loss", "beta", "rate", "distortion", "elbo")


def start(folder, config, *, resume_step=None, names=BETA, ended=False):
    with tensorboard.Writer(folder, resume_step=resume_step) as writer:
        writer.write("train/loss", 1.0, (resume_step or 0) + 1)
        writer.about(dashboards.of_run(config, names))
        writer.about(dashboards.of_run(config, names))  # as after a rollback
        if ended:
            writer.about(dashboards.of_end())


def reader(folder):
    return plugin_event_accumulator.EventAccumulator(str(folder)).Reload()


def session_start(folder):
    tags = reader(folder).PluginTagToContent("hparams")
    content = tags[metadata.SESSION_START_INFO_TAG]
    return metadata.parse_session_start_info_plugin_data(content)


def layout(folder):
    (point,) = reader(folder).Tensors("custom_scalars__config__")
    return layout_pb2.Layout.FromString(point.tensor_proto.string_val[0])


def charts(folder):
    return {
        (category.title, chart.title): chart.multiline.tag[0]
        for category in layout(folder).category
        for chart in category.chart
    }


def test_hparams_has_every_field_that_decides_what_is_learned(tmp_path):
    config = beta_vae.get_config("smoke")
    start(tmp_path, config)
    found = session_start(tmp_path).hparams
    assert found["batch_size"].number_value == 128
    assert found["model.name"].string_value == "beta_vae"
    assert found["model.hidden"].string_value == "[64]"
    assert found["data.binarize"].WhichOneof("kind") == "bool_value"
    assert found["total_steps"].number_value == 60
    assert found["model.beta.end"].number_value == 1.0
    assert not {"log_every_steps", "evals", "data.num_threads", "mesh.data"} & set(found)


@pytest.mark.parametrize("variant", [beta_vae, capacity_vae, vq_vae])
def test_hparams_shows_the_fields_and_figures_first_that_a_reader_looks_for(tmp_path, variant):
    config = variant.get_config("smoke")
    start(tmp_path, config)
    content = reader(tmp_path).PluginTagToContent("hparams")[metadata.EXPERIMENT_TAG]
    found = metadata.parse_experiment_plugin_data(content)
    # TensorBoard sorts by these two, and shows five fields and five figures.
    infos = sorted(found.hparam_infos, key=lambda info: (not info.differs, info.name))
    assert {info.display_name for info in infos[:5]} == {
        "model", "β", "γ", "learning rate", "batch size"
    }  # fmt: skip
    assert {info.name for info in infos} >= set(session_start(tmp_path).hparams)
    shown = [info.name.tag for info in found.metric_infos[:5]]
    assert shown[0] == f"heldout/{config.checkpoint.best_metric}"
    assert {"heldout/elbo", "heldout/loss"} <= set(shown)


def test_a_run_has_ended_only_once_it_is_complete(tmp_path):
    config = beta_vae.get_config("smoke")
    start(tmp_path, config)
    assert metadata.SESSION_END_INFO_TAG not in reader(tmp_path).PluginTagToContent("hparams")
    start(tmp_path, config, resume_step=1, ended=True)
    content = reader(tmp_path).PluginTagToContent("hparams")[metadata.SESSION_END_INFO_TAG]
    assert metadata.parse_session_end_info_plugin_data(content).status == 1  # success
    start(tmp_path, config, resume_step=2)  # continues, with more steps
    assert metadata.SESSION_END_INFO_TAG not in reader(tmp_path).PluginTagToContent("hparams")


def test_a_resumed_run_speaks_of_itself_once_and_by_its_newest_values(tmp_path):
    config = beta_vae.get_config("smoke")
    start(tmp_path, config, ended=True)
    running = reader(tmp_path)
    for resume_step in (1, 1, 2):
        config.total_steps += 100
        start(tmp_path, config, resume_step=resume_step, ended=True)
    assert session_start(tmp_path).hparams["total_steps"].number_value == 360
    tags = [
        value.tag
        for path in sorted(tmp_path.iterdir())
        for event in event_file_loader.EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    about = sorted(tag for tag in tags if tag.startswith(event_files.OF_RUN))
    assert about == [
        "_hparams_/experiment",
        "_hparams_/session_end_info",
        "_hparams_/session_start_info",
        "config",
        "custom_scalars__config__",
    ]
    (text,) = reader(tmp_path).Tensors("config")
    assert "| total_steps | 360 |" in text.tensor_proto.string_val[0].decode()
    # A TensorBoard that was started earlier also shows each step once.
    steps = [point.step for point in running.Reload().Tensors("config")]
    assert steps == sorted(set(steps))
    assert [point.step for point in running.Tensors("train/loss")] == [1, 2, 3]


def test_charts_put_together_what_belongs_together(tmp_path):
    start(tmp_path / "capacity", capacity_vae.get_config(), names=("kl_loss", "current_capacity"))
    found = charts(tmp_path / "capacity")
    kl = found["Objective", "KL beside its target C (nats)"]
    assert kl == "^(train|heldout)/(kl_loss|current_capacity)$"
    assert {title for _, title in found if "step" in title} == {
        "Time of a step (ms)", "Waiting for data (share of a step)"
    }  # fmt: skip
    start(tmp_path / "vq", vq_vae.get_config(), names=("perplexity", "codebook_usage", "vq_loss"))
    titles = [title for category, title in charts(tmp_path / "vq") if category == "Codebook"]
    assert titles[:2] == ["Perplexity (codes)", "Codes in use (share)"]


def test_charts_without_a_curve_are_left_out_and_equal_ones_are_equal_in_all_runs(tmp_path):
    start(tmp_path / "beta", beta_vae.get_config())
    start(tmp_path / "capacity", capacity_vae.get_config(), names=("kl_loss", "current_capacity"))
    beta, capacity = charts(tmp_path / "beta"), charts(tmp_path / "capacity")
    assert not [title for category, title in beta if category == "Codebook"]
    assert ("Objective", "β") in beta and ("Objective", "β") not in capacity
    for chart in beta.keys() & capacity.keys():
        assert beta[chart] == capacity[chart]


def test_every_variant_has_its_loss_first_and_no_curve_twice(tmp_path):
    start(tmp_path / "vq", vq_vae.get_config(), names=("loss", "reconstruction_loss", "vq_loss"))
    titles = [title for _, title in charts(tmp_path / "vq")]
    assert titles[:2] == ["Loss", "Reconstruction loss"]
    gaussian = (*BETA, "reconstruction_loss")
    start(tmp_path / "beta", beta_vae.get_config(), names=gaussian)
    found = charts(tmp_path / "beta")
    assert next(iter(found)) == ("Objective", "Loss")
    tags = [f"train/{name}" for name in gaussian]
    drawn = [tag for pattern in found.values() for tag in tags if re.match(pattern, tag)]
    assert sorted(drawn) == sorted({*tags} - {"train/kl_loss", "train/reconstruction_loss"})


def test_the_curves_of_a_chart_have_one_unit():
    for category in dashboards.charts().values():
        for title, curves in category.items():
            assert len({figures.of(name).unit for name in curves}) == 1, title


def test_the_config_is_a_table_of_all_fields(tmp_path):
    config = vq_vae.get_config("smoke")
    start(tmp_path, config)
    (text,) = reader(tmp_path).Tensors("config")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert lines[:2] == ["| field | value |", "|---|---|"]
    assert len(lines) == 2 + len(run_config.flatten(config))
    assert "| model.quantizer.name | vq |" in lines


@pytest.mark.parametrize("active", [True, False])
def test_what_a_function_draws_is_written_on_process_0_alone(tmp_path, active):
    calls = []

    def draw():
        calls.append(1)
        return np.zeros((2, 4, 6, 1), np.uint8)

    with tensorboard.Writer(tmp_path, resume_step=None, active=active) as writer:
        writer.about(dashboards.of_run(beta_vae.get_config(), BETA))
        writer.write("heldout/traversals_animated", draw, 1)
        with pytest.raises(AssertionError, match="written at step 1 after step 1"):
            writer.write("heldout/traversals_animated", draw, 1)
    assert len(calls) == active
    assert any(tmp_path.iterdir()) == active


def test_an_animation_is_a_gif_on_the_images_page(tmp_path):
    frames = np.zeros((3, 4, 6, 3), np.uint8)
    frames[1] = 255
    with tensorboard.Writer(tmp_path, resume_step=None) as writer:
        writer.write("heldout/traversals_animated", frames, 1)
    accumulator = reader(tmp_path)
    tag = "heldout/traversals_animated"
    assert accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "images"
    width, height, encoded = accumulator.Tensors(tag)[0].tensor_proto.string_val
    assert (width, height) == (b"6", b"4")
    assert encoded.startswith(b"GIF89a")


def test_float_frames_are_refused(tmp_path):
    with (
        tensorboard.Writer(tmp_path, resume_step=None) as writer,
        pytest.raises(ValueError, match=r"shape \(3, 4, 6, 1\), float64"),
    ):
        writer.write("heldout/traversals_animated", np.zeros((3, 4, 6, 1)), 1)


def test_hyperparameters_are_what_json_and_tensorboard_know():
    fields = run_config.hyperparameters(vq_vae.get_config())
    assert json.loads(json.dumps(fields)) == fields
