"""Backbones of Keras applications, ``keras-<name>``, and of keras-cv, ``keras-cv-<name>``.

Names are the libraries' own in small letters: ``keras-mobilenetv2`` is ``MobileNetV2`` of
``tf.keras.applications``, ``keras-cv-resnet18`` is ``ResNet18Backbone`` of ``keras_cv.models``.
What exists is found when it is asked for, and depends on the Keras in use: tf_keras has RegNet and
ResNet-RS, Keras 3 has not. Only the maps are theirs; the average pooling and the logits are ours.

Weights are random unless ``weights="imagenet"`` is given, which downloads them. keras-cv keeps even
the settings of its networks online: ResNet, ResNet v2 and DenseNet are built without, the others
exist with downloaded weights only. Networks with Python code in ``Lambda`` layers (CSPDarkNet) are
refused, since no file of them could be loaded.

Taps: ``stage1`` .. (see ``backbone_stages``: what all paths run through, the last layer of each map
size), ``features`` (the averaged maps), ``logits``. All other layers keep the library's names.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models import keras_cv_backbones
from kd_keras.models.backbone_stages import name_stages
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family

_KERAS = "keras-"
_KERAS_CV = "keras-cv-"


def build_application(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    rescale: bool = False,
) -> tf.keras.Model:
    """Builds e.g. ``keras-mobilenetv2`` or ``keras-cv-resnet18``.

    Args:
        name: the prefix of the library and its name of the network, in small letters.
        classes: number of classes.
        input_shape: ``(height, width, channels)``; each network has its own smallest size.
        weights: None for random ones, ``"imagenet"`` to download those of the library (three
            channels; ``logits`` stay random).
        rescale: let the network itself scale pixels of 0 to 255 as it needs them, where the
            library leaves the choice. EfficientNet of Keras applications always does.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the name is unknown, the image too small, the weights cannot be downloaded, or
            ``rescale`` is no choice there.
    """
    if weights not in (None, "imagenet"):
        raise InputError(
            f"weights {weights!r} are not possible for {name}; there are: None, imagenet"
        )
    image = image_input(input_shape)
    make = _keras_cv_backbone if name.startswith(_KERAS_CV) else _keras_backbone
    try:
        backbone = name_stages(make(name, image, weights, rescale))
    except InputError:
        raise
    except Exception as error:  # downloads and both libraries raise anything here
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{name} cannot be built for input_shape {input_shape} and weights {weights!r}; "
            f"give another size, or download the weights beforehand: {reason}"
        ) from error
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(backbone.outputs[0])
    return tf.keras.Model(backbone.inputs[0], class_logits(features, classes), name=name)


def available() -> tuple[str, ...]:
    """All names of this family under the Keras in use; imports keras-cv, which takes seconds."""
    return (
        *(f"{_KERAS}{name}" for name in _keras_applications()),
        *(f"{_KERAS_CV}{name}" for name in keras_cv_backbones.backbones()),
    )


def _keras_applications() -> dict[str, Callable[..., Any]]:
    functions = inspect.getmembers(tf.keras.applications, inspect.isfunction)
    return {attribute.lower(): function for attribute, function in functions}


def _keras_backbone(name: str, image: Any, weights: str | None, rescale: bool) -> Any:
    function = _chosen(name, _KERAS, _keras_applications())
    options = {}
    if "include_preprocessing" in inspect.signature(function).parameters:
        options["include_preprocessing"] = rescale
    elif rescale:
        raise InputError(f"{name} offers no rescale; scale the images in the data pipeline")
    return function(include_top=False, weights=weights, input_tensor=image, **options)


def _keras_cv_backbone(name: str, image: Any, weights: str | None, rescale: bool) -> Any:
    _chosen(name, _KERAS_CV, keras_cv_backbones.backbones())
    return keras_cv_backbones.build_backbone(name.removeprefix(_KERAS_CV), image, weights, rescale)


def _chosen(name: str, prefix: str, offered: dict[str, Any]) -> Any:
    wanted = name.removeprefix(prefix)
    if wanted not in offered:
        close = difflib.get_close_matches(wanted, offered, n=len(offered), cutoff=0.0)
        listed = ", ".join(prefix + other for other in close)
        raise InputError(f"network {name!r} does not exist; there are: {listed}")
    return offered[wanted]


FAMILY = Family(
    pattern=f"{_KERAS}[a-z0-9]+|{_KERAS_CV}[a-z0-9]+",
    examples=("keras-mobilenetv2", "keras-cv-resnet18"),
    build=build_application,
    input_shapes=((224, 224, 3),),
)
