"""What the models of a folder were made of, so that a folder is not gone on with by mistake."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras import schedules
from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.workdir import Workdir, read_json, write_json
from kd_keras.teachers import as_teacher

_SAMPLE = 1000  # examples of which a change is seen


def adopt(workdir: Workdir, made_of: Mapping[str, Any]) -> None:
    """Write down what a training is made of, or refuse a folder that was made of something else.

    Args:
        workdir: The folder; its `settings.json` holds what is written down.
        made_of: The settings. Under "data" lie arrays or data sets, under "teacher" and "student"
            models; of these, a fingerprint is taken.

    Raises:
        InputError: Naming what differs.
    """
    found = dict(made_of)
    found["data"] = [_of_data(part) for part in made_of["data"]]
    found["teacher"] = _of_teacher(made_of["teacher"])
    found["student"] = [list(weight.shape) for weight in made_of["student"].weights]
    settings = json.loads(json.dumps(found, default=_plain))
    path = workdir.path("settings.json")
    if path.exists():
        keys = configs.differences(read_json(path), settings)
        if keys:
            raise InputError(
                f"{workdir.root} was made with other settings; these differ: {', '.join(keys)}: "
                "name another directory, or delete this one"
            )
    write_json(workdir.scratch("settings.json"), settings)


def of_stage(stage: Any) -> dict[str, Any]:
    """What a `Stage` says of a training, in values that JSON can hold or `adopt` can turn so."""
    arguments, distiller = stage.compile_arguments(), stage.distiller
    optimizer = tf.keras.optimizers.get(arguments.pop("optimizer"))
    return {
        "epochs": stage.epochs,
        "distiller": getattr(distiller, "func", distiller).__name__,
        "distiller_arguments": dict(getattr(distiller, "keywords", {})),
        "compile": arguments,
        "trainable": stage.trainable,
        "label_weight": schedules.config(schedules.get(stage.label_weight)),
        "methods": [{"method": _type(m), **m.get_config()} for m in stage.methods],
        "optimizer": _plain(optimizer),
    }


def _of_data(data: Any) -> Any:
    if data is None or isinstance(data, tf.data.Dataset):
        return str(getattr(data, "element_spec", None))
    if isinstance(data, Views):
        return [_of_data(data.x), _of_data(data.y), data.settings]
    array = np.asarray(data)
    return [list(array.shape), str(array.dtype), _checksum([array[:: len(array) // _SAMPLE or 1]])]


def _of_teacher(teacher: Any) -> Any:
    if teacher is None:
        return None
    found = as_teacher(teacher, from_logits=None)
    try:
        return found.fingerprint()
    except InputError:  # a function, or a model not built yet: nothing tells it from another
        return _type(found)


def _checksum(arrays: Any) -> int:
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
    return total


def _plain(value: Any) -> Any:
    """What JSON writes for a value that it does not know: the same in every process."""
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "get_config"):
        config = value.get_config()
        config.pop("name", None)  # Keras 3 counts it up: sgd, sgd_1, ...
        return {"class": _type(value), **config}
    return getattr(value, "__name__", _type(value))


def _type(value: Any) -> str:
    return type(value).__name__
