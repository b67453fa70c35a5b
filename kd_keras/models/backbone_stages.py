"""Names the stages of a network that another library built."""

import math
from typing import Any

import tensorflow as tf


def name_stages(backbone: tf.keras.Model) -> tf.keras.Model:
    """A copy of ``backbone``, same weights, with its stages called ``stage1``, ``stage2``, ...

    A stage ends at the last layer of each map size, finest first, among the layers that all paths
    from the input to the output run through: so what is read there is all that later layers know.
    Maps of the image's own size are no stage, and padding layers end none. Networks without such
    layers (NASNet's cells read the two cells before them) get the last stage only.

    Args:
        backbone: Functional, with one image input of a fixed size and one output.

    Returns:
        The copy; every other layer keeps its name.
    """
    ends = {layer.name: f"stage{n}" for n, layer in enumerate(_stage_ends(backbone), start=1)}

    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        config["name"] = ends.get(layer.name, layer.name)
        return layer.__class__.from_config(config)

    copy = tf.keras.models.clone_model(backbone, clone_function=rebuild)
    copy.set_weights(backbone.get_weights())
    return copy


def _stage_ends(backbone: tf.keras.Model) -> list[Any]:
    side = backbone.inputs[0].shape[1]
    ends: dict[int, Any] = {}
    for layer in _passed_by_all_paths(backbone):
        shape = tuple(getattr(layer.output, "shape", ()))
        if len(shape) != 4 or isinstance(layer, tf.keras.layers.ZeroPadding2D):
            continue
        # Unpadded convolutions shrink maps too: 147 pixels of 299 are one halving.
        halvings = round(math.log2(side / shape[1])) if shape[1] else 0
        if halvings > 0:
            ends[halvings] = layer
    return [ends[halvings] for halvings in sorted(ends)]


def _passed_by_all_paths(model: tf.keras.Model) -> list[Any]:
    """The layers that no edge skips, in the order in which the model runs its layers."""
    place = {
        id(tensor): position
        for position, layer in enumerate(model.layers)
        for tensor in tf.nest.flatten(layer.output)
    }
    found = []
    furthest = 0  # the last place that a layer seen so far is read at
    readers: dict[int, int] = {}
    for position, layer in enumerate(model.layers):
        for tensor in tf.nest.flatten(layer.input):
            source = place.get(id(tensor), position)
            readers[source] = max(readers.get(source, source), position)
    for position, layer in enumerate(model.layers):
        if furthest <= position:
            found.append(layer)
        furthest = max(furthest, readers.get(position, position))
    return found
