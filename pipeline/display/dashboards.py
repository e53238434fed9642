"""What TensorBoard's pages Text, HParams and Custom Scalars show of a run as a whole.

HParams takes its columns from the "experiment" of any one run, sorts those that are said to differ
before all others, and shows the first few. So every run says it of the same few, whichever variant
it is, and names its own fields after them. Without an experiment it would show the first fields of
the alphabet.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.display import event_records, figures, texts
from pipeline.runtime import run_config

# HParams shows these fields at once, under these names; it shows five.
COLUMNS = {
    "batch_size": "batch size",
    "model.beta.end": "β",
    "model.gamma": "γ",
    "model.name": "model",
    "optimizer.learning_rate": "learning rate",
}
METRICS = ("elbo", "loss", "distortion", "rate", "reconstruction_loss", "perplexity")
SPEED = ("ms_per_step", "data_wait_share")  # figures of the loop, which every run logs


def of_run(config: Any, names: Collection[str]) -> list[Any]:
    """Returns the summary values that describe a run: its config, its curves, its fields.

    Args:
        config: of the run.
        names: of the training metrics, without their prefix.
    """
    fields = run_config.hyperparameters(config)
    return [
        _config(config),
        _layout({*names, *SPEED}),
        _experiment(fields, config.checkpoint.best_metric),
        _session_start(fields),
    ]


def of_end() -> list[Any]:
    """Returns the summary value by which HParams shows the run as complete."""
    protos = _hparams()
    status = _api().Status.Value("STATUS_SUCCESS")
    end = protos.SessionEndInfo(status=status, end_time_secs=time.time())
    return [_session("session_end_info", protos.HParamsPluginData(session_end_info=end))]


def charts() -> dict[str, dict[str, list[str]]]:
    """Returns category → title → names of the curves, in the order of the table of figures."""
    found: dict[str, dict[str, list[str]]] = {}
    for figure in figures.BY_NAME.values():
        if figure.chart:
            category, _, title = figure.chart.partition(": ")
            found.setdefault(category, {}).setdefault(title, []).append(figure.name)
    return found


def _config(config: Any) -> Any:
    flat = sorted(run_config.flatten(config).items())
    rows = [f"| {field} | {texts.cell(value)} |" for field, value in flat]
    text = "\n".join(["| field | value |", "|---|---|", *rows])
    value = event_records.tensorboardx().summary.text("config", text).value[0]
    value.tag = "config"  # tensorboardX appends "/text_summary"
    return value


def _layout(names: set[str]) -> Any:
    protos = event_records.tensorboardx().proto.layout_pb2
    layout = protos.Layout()
    # A chart of nothing but another figure's curve would show it twice.
    own = {name for name in names if figures.of(name).same_as not in names}
    for title, category_charts in charts().items():
        shown = {name: curves for name, curves in category_charts.items() if own & set(curves)}
        if not shown:
            continue
        category = layout.category.add(title=title)
        for name, curves in shown.items():
            # The tag names all curves of the chart, also those that this run lacks. TensorBoard
            # merges the layouts of all runs, and shows equal charts once.
            tag = f"^(train|heldout)/({'|'.join(curves)})$"
            category.chart.add(title=name, multiline=protos.MultilineChartContent(tag=[tag]))
    return _value("custom_scalars__config__", "custom_scalars", [layout.SerializeToString()])


def _experiment(fields: Mapping[str, Any], best_metric: str) -> Any:
    """Returns the columns of HParams; it shows five figures at once, the best metric first."""
    protos = _api()
    experiment = protos.Experiment()
    for field in dict.fromkeys((*COLUMNS, *fields)):
        info = experiment.hparam_infos.add(name=field, display_name=COLUMNS.get(field, field))
        kind = {bool: "BOOL", str: "STRING"}.get(type(fields.get(field, 0.0)), "FLOAT64")
        info.type = protos.DataType.Value(f"DATA_TYPE_{kind}")
        # Field 7 is `differs`, which tensorboardX's protocol buffer lacks.
        info.MergeFromString(bytes([7 << 3, field in COLUMNS]))
    for name in dict.fromkeys((best_metric, *METRICS)):
        experiment.metric_infos.add(name={"tag": f"heldout/{name}"}, display_name=name)
    return _session("experiment", _hparams().HParamsPluginData(experiment=experiment))


def _session_start(fields: Mapping[str, Any]) -> Any:
    start = _hparams().SessionStartInfo(start_time_secs=time.time())
    for field, value in fields.items():
        if isinstance(value, bool):
            start.hparams[field].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[field].number_value = value
        else:
            start.hparams[field].string_value = value
    return _session("session_start_info", _hparams().HParamsPluginData(session_start_info=start))


def _session(name: str, content: Any) -> Any:
    return _value(f"_hparams_/{name}", "hparams", [], content=content.SerializeToString())


def _value(tag: str, plugin: str, strings: list[bytes], *, content: bytes = b"") -> Any:
    """Returns a summary value that holds a tensor, the form that newer plugins of TensorBoard read.

    Args:
        tag: of the value.
        plugin: name of the plugin that reads it.
        strings: contents of the tensor; an empty float tensor if there are none.
        content: data of the plugin.
    """
    protos = event_records.tensorboardx().proto
    kind = protos.types_pb2.DataType.Value("DT_STRING" if strings else "DT_FLOAT")
    value = protos.summary_pb2.Summary.Value(tag=tag)
    value.tensor.dtype = kind
    value.tensor.string_val.extend(strings)
    if not strings:
        value.tensor.tensor_shape.dim.add(size=0)
    value.metadata.plugin_data.plugin_name = plugin
    value.metadata.plugin_data.content = content
    return value


def _hparams() -> Any:
    event_records.tensorboardx()
    from tensorboardX.proto import plugin_hparams_pb2

    return plugin_hparams_pb2


def _api() -> Any:
    event_records.tensorboardx()
    from tensorboardX.proto import api_pb2

    return api_pb2
