"""Values as the protocol buffers of TensorBoard's summaries."""

from typing import Any

import numpy as np

from pipeline import event_files, pictures


def of(tag: str, value: Any) -> Any:
    """Returns the protocol buffer of a number, histogram, image, animation or text."""
    protos, summary = (
        event_files.tensorboardx().proto.summary_pb2,
        event_files.tensorboardx().summary,
    )
    if isinstance(value, str):
        return summary.text(tag, value).value[0]
    array = np.asarray(value)
    if array.ndim == 0:
        return protos.Summary.Value(simple_value=float(array))
    if array.ndim == 1:
        return summary.histogram(tag, array, bins=64).value[0]  # of equal width
    if array.ndim == 3:
        if array.dtype != np.uint8:
            # Rounded, where tensorboardX would truncate and so darken by half a level.
            array = pictures.to_uint8(np.nan_to_num(array.astype(np.float32)))
        return summary.image(tag, array, dataformats="HWC").value[0]
    if array.ndim == 4 and array.dtype == np.uint8:
        _, height, width, channels = array.shape
        image = protos.Summary.Image(height=height, width=width, colorspace=channels)
        image.encoded_image_string = pictures.gif(array)
        return protos.Summary.Value(image=image)
    raise ValueError(
        f"{tag!r} has shape {array.shape}, {array.dtype}: give [], [N], [H, W, C], or "
        "[T, H, W, C] of uint8"
    )
