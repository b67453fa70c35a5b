"""Quantization-aware training to 8 bits, keeping zeros (PQAT), clusters (CQAT) or both (PCQAT).

Jacob et al. (2018), through tensorflow-model-optimization: rounding is simulated in the forward
pass, so that the weights adapt to it, and the int8 file then predicts as the model does.

Example (``distiller`` is any ``tf.keras.Model`` that trains ``quantized`` in its ``fit``):

    quantized = quantization.apply(student, calibration=images[:512])
    distiller.fit(train, callbacks=quantization.callbacks(quantized))
    quantization.save(quantization.finish(quantized), "student_int8.h5")
"""

import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import (
    activation_ranges,
    keeping,
    order,
    quantizable,
    rebuilding,
    toolkit,
)
from kd_keras.errors import InputError
from kd_keras.models import load_model


def apply(
    student: tf.keras.Model,
    *,
    calibration: np.ndarray,
    keep_zeros: bool = True,
    keep_clusters: bool = False,
    float_layers: Sequence[str] = (),
    configs: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> tf.keras.Model:
    """Returns a quantization-aware copy of ``student``, ready to predict and to train.

    All ranges are set: the kernels' from their values, the activations' from ``calibration``.

    Layers that tfmot rejects are left in float, with one warning that names them and the reasons;
    ``in_float`` lists them. That is the default since a model with one such layer still gains from
    the rest, and a list can be read; ``strict`` refuses such models instead.

    Args:
        student: a built Functional or Sequential float32 model; it is not changed.
        calibration: about 512 images, ``(n,) + input shape``, normalised as in training.
        keep_zeros: weights that are zero now stay zero in training. They are taken from
            ``student``; so to resume, apply to the same student and then restore.
        keep_clusters: kernels that ``clustering`` left stay clustered. Kernels of convolutions have
            a scale for each filter, so there each filter has at most the number of clusters.
        float_layers: names of layers to leave in float: that of the logits, say.
        configs: a ``tfmot.quantization.keras.QuantizeConfig`` for single layers, by name. Such a
            layer's zeros and clusters are not kept, and BatchNormalization after it is in float.
        strict: refuse models with layers that tfmot rejects.

    Returns:
        The copy; its layers are called ``quant_`` and the user's name. A ReLU layer directly after
        a convolution or dense layer is computed in that layer, see ``quantizable.fused_copy``.

    Raises:
        InputError: nothing is left to quantize, or a layer is rejected and ``strict`` (all are
            listed), a name is no layer, the model is clustered and ``keep_clusters`` is False or
            the other way round, is quantization-aware, subclassed or in mixed precision, the
            calibration images do not fit, or TensorFlow runs with Keras 3.
    """
    library = toolkit.tfmot().quantization.keras
    toolkit.require_graph(student)
    order.require_before_quantization(student, keep_clusters)
    images = _checked(calibration, student)
    configs = configs or {}
    quantizable.require_layers(student, {"float_layers": float_layers, "configs": configs})
    quantizable.require_rebuildable(student)
    for name, config in configs.items():
        if not isinstance(config, library.QuantizeConfig):
            raise InputError(
                f"configs[{name!r}] is {config!r}; give a tfmot.quantization.keras.QuantizeConfig"
            )
    fused = quantizable.fused_copy(student, {*float_layers, *configs})
    scheme = keeping.Scheme(keep_zeros, keep_clusters)
    left = quantizable.left_in_float(fused, (scheme,), float_layers, configs)
    rejected = {name: reason for name, reason in left.items() if name not in float_layers}
    if strict and rejected:
        _refuse(student, rejected)
    quantized = _quantized(fused, scheme, left, configs)
    for name in quantizable.overlooked(quantized):
        if name not in configs:
            rejected[name] = "before a ReLU layer with a limit; put BatchNormalization between"
    if rejected and strict:
        _refuse(student, rejected)
    if rejected:
        warnings.warn(
            f"model {student.name!r}: left in float are {_listed(rejected)}", stacklevel=2
        )
    activation_ranges.seed(quantized, images)
    return quantized


def is_quantized(model: tf.keras.Model) -> bool:
    """Whether ``model`` is quantization-aware."""
    return any(hasattr(layer, "quantize_config") for layer in toolkit.leaf_layers(model))


def in_float(model: tf.keras.Model) -> list[str]:
    """The user's names of the layers that ``model`` computes in float, in the model's order.

    Args:
        model: a model from ``apply``, ``finish`` or ``load``.

    Raises:
        InputError: ``model`` is not from them.
    """
    _require_quantized(model)
    return quantizable.in_float(model)


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for the ``fit`` that trains ``model``: needed only where clusters are kept."""
    _require_quantized(model)
    return [keeping.Settle(model)] if any(map(keeping.is_kept, model.layers)) else []


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the model to save and convert: a copy without what holds zeros and clusters.

    Args:
        model: a model from ``apply``.

    Returns:
        A quantization-aware model with equal outputs, the same zeros and the same clusters.

    Raises:
        InputError: ``model`` is not from ``apply``.
    """
    _require_quantized(model)
    keeping.settle(model)
    with _scope(model):
        # As tfmot's strip_clustering_cqat does, which changes the layers of the model it is given.
        return rebuilding.rebuilt(model, toolkit.copy_layer, keeping.lasting_weights)


def save(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a quantization-aware model as ``.h5``, the one file form that it survives.

    Args:
        model: a model from ``finish``.
        path: the file, ending in ``.h5``; replaced atomically if it is there.

    Raises:
        InputError: ``model`` is not quantization-aware, or ``path`` does not end in ``.h5``.
        OSError: the file cannot be written.
    """
    path = os.fspath(path)
    if not path.endswith(".h5"):
        raise InputError(f"quantized model file {path!r} must end in .h5")
    _require_quantized(model)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".", prefix=".saving-") as folder:
        written = os.path.join(folder, "model.h5")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are saving your model as an HDF5")
            model.save(written, include_optimizer=False)
        os.replace(written, path)


def load(path: str | os.PathLike[str]) -> tf.keras.Model:
    """Loads a model that ``save`` wrote, not compiled, to predict and to convert.

    Where ``configs`` were given, call it within a ``tf.keras.utils.custom_object_scope`` of them.

    Raises:
        InputError: the file is absent, cut off or of another kind, or TensorFlow runs with Keras 3.
    """
    with toolkit.tfmot().quantization.keras.quantize_scope():
        model = load_model(path)
    _require_quantized(model)
    return model


def _quantized(fused: Any, scheme: Any, left: Mapping[str, str], configs: Mapping[str, Any]) -> Any:
    library = toolkit.tfmot().quantization.keras

    def annotated(layer: Any) -> Any:
        if layer.name in left or isinstance(layer, tf.keras.layers.InputLayer):
            return layer
        return library.quantize_annotate_layer(layer, configs.get(layer.name))

    names = [layer.name for layer in fused.layers]
    if len(left) >= sum(not isinstance(la, tf.keras.layers.InputLayer) for la in fused.layers):
        raise InputError(
            f"model {fused.name!r} has no layer to quantize: left in float are {', '.join(names)}"
        )
    try:
        with _scope(fused, *configs.values()):
            marked = tf.keras.models.clone_model(fused, clone_function=annotated)
            return library.quantize_apply(marked, scheme)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model {fused.name!r} cannot be quantized: {reason}") from error


def _scope(model: tf.keras.Model, *configs: Any) -> Any:
    """Where tfmot's classes, the model's own layers and its own configurations can be rebuilt."""
    layers = [*toolkit.leaf_layers(model)]
    own = [*layers, *configs, *(getattr(layer, "quantize_config", None) for layer in layers)]
    kinds = {type(thing).__name__: type(thing) for thing in own if thing is not None}
    return toolkit.tfmot().quantization.keras.quantize_scope(kinds)


def _refuse(student: tf.keras.Model, rejected: Mapping[str, str]) -> None:
    raise InputError(
        f"model {student.name!r} cannot be quantized because of {_listed(rejected)}; "
        "replace these layers, or leave them in float with strict=False"
    )


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _require_quantized(model: tf.keras.Model) -> None:
    if not is_quantized(model):
        raise InputError(f"model {model.name!r} is not quantization-aware; give one from apply")


def _checked(calibration: Any, student: tf.keras.Model) -> np.ndarray:
    if len(student.inputs) != 1:
        raise InputError(
            f"model {student.name!r} has {len(student.inputs)} inputs; only models with one can be "
            "quantized here"
        )
    images = np.asarray(calibration)
    wanted = tuple(student.inputs[0].shape[1:])
    fits = len(images.shape) == len(wanted) + 1 and all(
        size in (None, given) for size, given in zip(wanted, images.shape[1:], strict=True)
    )
    if not fits or not len(images) or images.dtype.kind != "f":
        raise InputError(
            f"calibration of shape {images.shape} and type {images.dtype} does not fit model "
            f"{student.name!r}; give about 512 normalised float32 images of shape {wanted}"
        )
    if not np.isfinite(images).all():
        raise InputError("calibration has values that are not finite; check the normalisation")
    return images.astype("float32")
