"""What TensorBoard's pages Text, HParams and Custom Scalars show of a run as a whole.

There is no "experiment" summary: with it, HParams would show only the fields of one run. Without
it, HParams shows the fields and figures of all runs below the folder, also of different variants.
"""

import time
from collections.abc import Collection
from typing import Any

from pipeline.display import event_files, figures
from pipeline.runtime import run_config

SPEED = ("ms_per_step", "data_wait_share")  # figures of the loop, which every run logs


def of_run(config: Any, names: Collection[str]) -> list[Any]:
    """Returns the summary values that describe a run: its config, its curves, its fields.

    Args:
        config: of the run.
        names: of the training metrics, without their prefix.
    """
    return [_config(config), _layout({*names, *SPEED}), _session_start(config)]


def of_end() -> list[Any]:
    """Returns the summary value by which HParams shows the run as complete."""
    protos = _hparams()
    status = event_files.tensorboardx().proto.api_pb2.Status.Value("STATUS_SUCCESS")
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
    rows = [f"| {field} | {value} |" for field, value in sorted(run_config.flatten(config).items())]
    text = "\n".join(["| field | value |", "|---|---|", *rows])
    value = event_files.tensorboardx().summary.text("config", text).value[0]
    value.tag = "config"  # tensorboardX appends "/text_summary"
    return value


def _layout(names: set[str]) -> Any:
    protos = event_files.tensorboardx().proto.layout_pb2
    layout = protos.Layout()
    for title, category_charts in charts().items():
        shown = {name: curves for name, curves in category_charts.items() if names & set(curves)}
        if not shown:
            continue
        category = layout.category.add(title=title)
        for name, curves in shown.items():
            # The tag names all curves of the chart, also those that this run lacks. TensorBoard
            # merges the layouts of all runs, and shows equal charts once.
            tag = f"^(train|heldout)/({'|'.join(curves)})$"
            category.chart.add(title=name, multiline=protos.MultilineChartContent(tag=[tag]))
    return _value("custom_scalars__config__", "custom_scalars", [layout.SerializeToString()])


def _session_start(config: Any) -> Any:
    start = _hparams().SessionStartInfo(start_time_secs=time.time())
    for field, value in run_config.hyperparameters(config).items():
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
    protos = event_files.tensorboardx().proto
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
    event_files.tensorboardx()
    from tensorboardX.proto import plugin_hparams_pb2

    return plugin_hparams_pb2
