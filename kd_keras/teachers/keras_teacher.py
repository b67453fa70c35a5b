"""A Keras model as a teacher."""

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kd_keras import taps
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher

#: In a layer's configuration, what changes no output or depends on how the layer came about.
_NOT_PRINTED = (
    *("module", "registered_name", "shared_object_id", "trainable", "build_config"),
    *("compile_config", "batch_input_shape", "batch_shape", "build_input_shape"),
)
_INPUT_LAYER = "InputLayer"


def is_keras_model(model: Any) -> bool:
    """Whether something is a model or a layer of tf_keras or of Keras 3, whichever is in use."""
    return any(isinstance(model, keras.layers.Layer) for keras in _loaded())


class KerasTeacher(Teacher):
    """A Keras model, Functional, Sequential or subclassed, of tf_keras or of Keras 3.

    The model may be of the other Keras than the student, in the same process and on any number of
    replicas; of Keras 3 it needs the TensorFlow backend.

    In a training step, which is a graph, nothing above the highest layer that is read is computed:
    operations whose result nobody uses are not run.

    Args:
        model: The model; it is not changed.
        from_logits: Whether it gives logits; else it ends in softmax. None finds out, from the
            operation that makes the output.

    Attributes:
        from_logits: As given; of a model that finds it out, None until that is done.

    Raises:
        InputError: For a model of Keras 3 on another backend than TensorFlow.
    """

    def __init__(self, model: Any, *, from_logits: bool | None = True) -> None:
        _require_tensorflow(model)
        self.model = model
        self.from_logits = from_logits

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`."""
        self._find_out()
        output, heard = taps.forward(self.model, x, layers, training=False)
        if self.from_logits is None:  # the first batch has built the model
            self.from_logits = not taps.ends_in_softmax(output)
        return Outputs(taps.as_logits(output, self.from_logits, role="teacher"), heard)

    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """See `Teacher.specs`."""
        for path in layers:
            taps.find_layer(self.model, path, "teacher")
        if self.input_specs() is None:
            return None
        from_logits = self._find_out()
        return taps.trace(self.model, layers, from_logits=bool(from_logits), role="teacher")

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`."""
        return taps.input_specs(self.model)

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; of the layers, how they are connected, and the weights.

        Names do not count, so the same model built twice has the same fingerprint. Of a layer
        without `get_config`, its class' name stands for what it computes. The same network in the
        other Keras has another fingerprint.

        Raises:
            InputError: If the model has not been built.
        """
        if not self.model.built:
            raise InputError(
                f"the teacher {self.model.name!r} cannot be told from another before it is built: "
                "give it an Input, or call it on a batch"
            )
        from_logits = self._find_out()
        if from_logits is None:
            raise InputError(
                f"whether the teacher {self.model.name!r} gives logits is not known before it runs "
                "on a batch: pass from_logits= to KerasTeacher"
            )
        content = [from_logits, _described(self.model)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        for weight in self.model.get_weights():
            digest.update(f"{weight.shape} {weight.dtype}".encode() + weight.tobytes())
        return digest.hexdigest()

    def _find_out(self) -> bool | None:
        """Whether the model gives logits, if that is known or can be seen without a batch."""
        specs = self.input_specs()
        if self.from_logits is None and specs is not None:
            found: list[bool] = []

            def run(x: Any) -> None:
                output = self.model(x, training=False)
                found.append(tf.is_tensor(output) and taps.ends_in_softmax(output))

            tf.function(run, autograph=False).get_concrete_function(specs)
            self.from_logits = not found[0]
        return self.from_logits


def _loaded() -> list[Any]:
    """The Keras in use, and the other one if something has imported it: else it has no models."""
    return [tf.keras, *(sys.modules[name] for name in ("keras", "tf_keras") if name in sys.modules)]


def _require_tensorflow(model: Any) -> None:
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.layers.Layer):
        return
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise InputError(
            f"the teacher {model.name!r} is a Keras 3 model on the backend {backend!r}; only "
            "'tensorflow' runs in a training step: set KERAS_BACKEND=tensorflow, or give "
            "FunctionTeacher(model.predict)"
        )


def _described(model: Any) -> list:
    """What the layers compute, apart from their weights, in a form that JSON can hold."""
    layers = list(model._flatten_layers(recursive=True, include_self=True))
    # An InputLayer is there or not, depending on how a Sequential model was built.
    inputs = [layer for layer in layers if type(layer).__name__ == _INPUT_LAYER]
    layers = [layer for layer in layers if type(layer).__name__ != _INPUT_LAYER]
    # A layer is referred to by its place: automatic names count up with every model.
    places = {layer.name: f"layer {place}" for place, layer in enumerate(layers)}
    places |= {layer.name: f"input {place}" for place, layer in enumerate(inputs)}
    return [[type(layer).__name__, _anonymous(_config(layer), places)] for layer in layers]


def _config(layer: Any) -> Any:
    try:
        return layer.get_config()
    except NotImplementedError:  # of a subclassed layer
        return None


def _anonymous(config: Any, places: dict[str, str]) -> Any:
    """A configuration in which the place of a layer stands for its name."""
    if isinstance(config, dict):
        kept = {str(key): value for key, value in config.items() if key not in _NOT_PRINTED}
        return {key: _anonymous(value, places) for key, value in kept.items()}
    if isinstance(config, list | tuple):
        return [_anonymous(entry, places) for entry in config if not _is_input(entry)]
    if isinstance(config, str):
        return places.get(config, config)
    if config is None or isinstance(config, bool | int | float):
        return config
    return config.tolist() if hasattr(config, "tolist") else type(config).__name__


def _is_input(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("class_name") == _INPUT_LAYER
