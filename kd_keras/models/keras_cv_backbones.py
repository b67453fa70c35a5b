"""keras-cv's backbones by their size, without its downloads.

keras-cv keeps even the settings of its networks online. For those below, which are their
publications', the network is built without asking for them; the others exist only together with
downloaded weights.
"""

import inspect
from typing import Any

from kd_keras.errors import InputError

_RESNET = {
    18: ("basic_block", (2, 2, 2, 2)),
    34: ("basic_block", (3, 4, 6, 3)),
    50: ("block", (3, 4, 6, 3)),
    101: ("block", (3, 4, 23, 3)),
    152: ("block", (3, 8, 36, 3)),
}
_DENSENET = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


def backbones() -> dict[str, Any]:
    """keras-cv's classes of networks of one size, by their names without ``Backbone``."""
    import keras_cv  # takes seconds: only who wants one of its networks waits for it

    return {
        attribute.removesuffix("Backbone").lower(): kind
        for attribute, kind in inspect.getmembers(keras_cv.models, inspect.isclass)
        # A class of one size makes its network in __new__; the general ones want settings.
        if attribute.endswith("Backbone") and "__new__" in vars(kind)
    }


def build_backbone(name: str, image: Any, weights: str | None, rescale: bool) -> Any:
    """Builds a backbone.

    Args:
        name: a key of ``backbones()``.
        image: the input tensor.
        weights: None for random ones, or ``"imagenet"`` to download.
        rescale: whether it divides pixels by 255 itself.

    Returns:
        The Functional model from ``image`` to the maps.

    Raises:
        InputError: there are no settings for random weights, or no weights to download.
    """
    kind = backbones()[name]
    options = {"include_rescaling": rescale, "input_tensor": image}
    if weights is None:
        settings = _settings().get(name)
        if settings is None:
            raise InputError(
                f"keras-cv keeps the settings of {name!r} online; give weights='imagenet' to "
                f"download them, or use one of: {', '.join(_settings())}"
            )
        general = kind.__mro__[1]
        return general(input_shape=tuple(image.shape[1:]), **settings, **options)
    presets = [preset for preset in kind.presets_with_weights if preset.endswith("_imagenet")]
    if not presets:
        raise InputError(f"keras-cv has no imagenet weights for {name!r}; leave weights=None")
    return kind.from_preset(presets[0], **options)


def _settings() -> dict[str, dict[str, Any]]:
    """The general classes' arguments for each network; lists, since keras-cv saves them so."""
    found: dict[str, dict[str, Any]] = {}
    for depth, (block, counts) in _RESNET.items():
        for version in ("", "v2"):
            found[f"resnet{depth}{version}"] = {
                "stackwise_filters": [64, 128, 256, 512],
                "stackwise_blocks": list(counts),
                "stackwise_strides": [1, 2, 2, 2],
                "block_type": block,
            }
    for depth, repeats in _DENSENET.items():
        found[f"densenet{depth}"] = {"stackwise_num_repeats": list(repeats)}
    return found
