"""Finds a filter whose weights are so large that they magnify int8's rounding."""

import statistics

from tflite_export.file_facts import read_facts
from tflite_export.layer_names import scoped_layer

_LOUD = 100.0  # times the layer's median filter


def loud_filter(content: bytes) -> str | None:
    """Names the filter that stands out most from its layer's, in one line; None where none does.

    A kernel with a scale for each filter tells how large the weights of each are. BatchNorm divides
    by the deviation of what a filter gives; if that hardly varies over the training images, the
    folded weights are large, and half a quantization step of their input becomes many.

    Args:
        content: of a sound .tflite file.
    """
    found = []
    for operator in read_facts(content).operators:
        scales = operator.weight_scales
        usual = statistics.median(scales) if len(scales) > 1 else 0.0
        if usual > 0 and max(scales) > _LOUD * usual:
            filter_number = scales.index(max(scales))
            found.append((max(scales) / usual, filter_number, scoped_layer(operator)))
    if not found:
        return None
    times, filter_number, layer = max(found)
    return (
        f"filter {filter_number} of layer {layer!r} has weights {times:,.0f} times as large as the "
        "layer's median filter and magnifies rounding, as where BatchNorm divides by next to "
        "nothing: remove the filter, train it on, or keep the layer in float"
    )
