"""Values as TensorBoard shows them: protocol buffers with a name and a description."""

from typing import Any

import numpy as np

from pipeline.display import event_records, figures, pictures, texts

# TensorBoard's plugin and data class (scalar 1, tensor 2, blob sequence 3) by field of a value.
PLUGINS = {
    "simple_value": ("scalars", 1),
    "image": ("images", 3),
    "histo": ("histograms", 2),
    "tensor": ("text", 2),
}


def value(tag: str, value: Any) -> Any:
    """Returns the protocol buffer of a number, histogram, image, animation or text.

    Raises:
        ValueError: an array of another shape.
    """
    library = event_records.tensorboardx()
    protos, summary = library.proto.summary_pb2, library.summary
    if isinstance(value, str):
        return summary.text(tag, texts.inert(value)).value[0]
    array = np.asarray(value)
    array = pictures.seen(array) if array.ndim >= 3 else array
    if array.ndim == 0:
        return protos.Summary.Value(simple_value=float(array))
    if array.ndim == 1:
        return summary.histogram(tag, array, bins=64).value[0]  # of equal width
    if array.ndim == 3:
        if array.dtype != np.uint8:
            # Rounded here: tensorboardX truncates, which darkens images by half a level.
            array = pictures.to_uint8(np.nan_to_num(array.astype(np.float32)))
        return summary.image(tag, array, dataformats="HWC").value[0]
    if array.ndim == 4 and array.dtype == np.uint8:
        _, height, width, channels = array.shape
        image = protos.Summary.Image(height=height, width=width, colorspace=channels)
        image.encoded_image_string = pictures.gif(array)
        return protos.Summary.Value(image=image)
    raise ValueError(
        f"{tag!r} has shape {array.shape}, {array.dtype}: pass [], [N], [H, W, C], or "
        "[T, H, W, C] of uint8"
    )


def described(value: Any, tag: str) -> Any:
    """Returns the value with its tag, name, description, plugin and class of data set."""
    value.tag = tag  # tensorboardX appends "/text_summary" to the tag of a text
    if text := figures.of(tag).text:  # without one, TensorBoard shows the tag itself
        value.metadata.display_name = tag.replace("_", " ")
        value.metadata.summary_description = text
    plugin, data_class = PLUGINS[value.WhichOneof("value")]
    if not value.metadata.plugin_data.plugin_name:
        value.metadata.plugin_data.plugin_name = plugin
    # Field 4 is data_class, which tensorboardX's protocol buffer lacks. Without it the fast loader,
    # TensorBoard's default, drops the name and the description.
    value.metadata.MergeFromString(bytes([4 << 3, data_class]))
    return value
