"""From `Views`, or what a recorded teacher was asked about, to what Keras' `fit` takes."""

from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.teachers import Teacher

_BATCH_SIZE = 32  # as in Keras


def streamed(teacher: Teacher, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `fit` with `Views`, or what was recorded, as a stream of batches."""
    x, y = arguments["x"], arguments["y"]
    if isinstance(arguments.get("validation_data"), Views):
        raise InputError(
            "validation_data is Views, which are for training: give arrays (x, y), or a data set"
        )
    is_array = isinstance(x, np.ndarray | list) or tf.is_tensor(x)
    if isinstance(x, Views):
        views = x
        if y is not None:
            raise InputError("y is given beside Views: put the labels into them, Views(x, y)")
    elif teacher.is_recorded and is_array:
        views = Views(x, y)
    else:
        return arguments
    if arguments.get("validation_split") or arguments.get("sample_weight") is not None:
        raise InputError(
            "validation_split and sample_weight cannot be used with Views or a recorded teacher: "
            "give validation_data, and arrays with sample_weight to a teacher that runs"
        )
    batch_size = min(arguments.pop("batch_size", None) or _BATCH_SIZE, len(views))
    batches = teacher.batches(
        views,
        batch_size=batch_size,
        epochs=arguments.get("epochs", 1),
        first_epoch=arguments.get("initial_epoch", 0),
        drop_remainder=False,
        shuffle=bool(arguments.pop("shuffle", True)),
    )
    steps = views.steps(batch_size, drop_remainder=False)
    # A stream over all epochs, of which Keras is told where one ends.
    stream = {"x": batches, "y": None, "shuffle": False}
    return {"steps_per_epoch": steps, **arguments, **stream}
