"""Quantization-aware training to 8 bits, with or without the zeros of pruning kept (PQAT).

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
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import activation_ranges, quantizable, toolkit
from kd_keras.errors import InputError
from kd_keras.models import load_model


def apply(
    student: tf.keras.Model, *, calibration: np.ndarray, keep_zeros: bool = True
) -> tf.keras.Model:
    """Returns a quantization-aware copy of ``student``, ready to predict and to train.

    All ranges are set: the kernels' from their values, the activations' from ``calibration``.

    Args:
        student: a built Functional or Sequential float32 model; it is not changed.
        calibration: about 512 images, ``(n,) + input shape``, normalised as in training.
        keep_zeros: weights that are zero now stay zero in training. They are taken from
            ``student``; so to resume, apply to the same student and then restore.

    Returns:
        The copy; its layers are called ``quant_`` and the user's name. A ReLU layer directly after
        a convolution or dense layer is computed in that layer, see ``quantizable.fused_copy``.

    Raises:
        InputError: tfmot rejects a layer (all are listed), the model is subclassed or in mixed
            precision, the calibration images do not fit, or TensorFlow runs with Keras 3.
    """
    library = toolkit.tfmot()
    toolkit.require_graph(student)
    images = _checked(calibration, student)
    plain_scheme = library.quantization.keras.default_8bit.Default8BitQuantizeScheme()
    scheme = plain_scheme
    if keep_zeros:
        scheme = library.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    fused = quantizable.fused_copy(student)
    registries = (plain_scheme.get_quantize_registry(), scheme.get_quantize_registry())
    quantizable.require_quantizable(fused, registries)
    try:
        annotated = library.quantization.keras.quantize_annotate_model(fused)
        quantized = library.quantization.keras.quantize_apply(annotated, scheme)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"model {student.name!r} cannot be quantized: {reason}") from error
    quantizable.require_ranges(quantized)
    activation_ranges.seed(quantized, images)
    return quantized


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for the ``fit`` that trains ``model``: none are needed."""
    _require_quantized(model)
    return []


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the model to save and convert: a copy without what holds the zeros in training.

    Args:
        model: a model from ``apply``.

    Returns:
        A quantization-aware model with equal outputs and the same zeros.

    Raises:
        InputError: ``model`` is not from ``apply``.
    """
    _require_quantized(model)
    with toolkit.tfmot().quantization.keras.quantize_scope():
        return toolkit.copy_model(model)


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

    Raises:
        InputError: the file is absent, cut off or of another kind, or TensorFlow runs with Keras 3.
    """
    with toolkit.tfmot().quantization.keras.quantize_scope():
        model = load_model(path)
    _require_quantized(model)
    return model


def _require_quantized(model: tf.keras.Model) -> None:
    if not any(hasattr(layer, "quantize_config") for layer in model.layers):
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
