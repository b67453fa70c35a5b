"""Weight files: loaded whole or not at all, and written in a form that both Keras read.

A ``.npz`` holds one array a variable under ``layer/variable`` (``outer/inner/kernel`` where models
are nested), e.g. ``stage1_0_conv1/kernel``. In published files the layer part may be spelled with
slashes (``stage1/0/conv1/kernel``): slashes and underscores are the same there.
"""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models import registry

_MOST_LISTED = 5


def load_weights(
    model: tf.keras.Model, path: str | os.PathLike[str], *, aliases: Mapping[str, str] | None = None
) -> None:
    """Loads all weights of a built model from a file; on an error the model keeps those it had.

    Args:
        model: a built model.
        path: ``.npz`` (see the module), ``.weights.h5`` or ``.h5`` (written by the same Keras).
        aliases: for ``.npz``, layer names in the file -> layer names in the model. By default
            those of the network in ``kd_keras.models`` that the model is named after.

    Raises:
        InputError: the file is absent, cut off, foreign or does not fit; missing and unexpected
            names and unequal shapes are listed.
    """
    path = _existing(path)
    if not model.built:
        raise InputError(f"model {model.name!r} has no weights yet; call it on a batch first")
    if path.endswith(".npz"):
        known = registry.weight_aliases(model.name) if aliases is None else aliases
        _assign(model, _read_npz(path), known, path)
    elif path.endswith(".h5"):
        _load_h5(model, path)
    else:
        raise InputError(f"weights file {path!r} is of no known kind; give .npz, .weights.h5, .h5")


def save_weights_npz(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes all weights as ``.npz``, bit for bit, for ``load_weights`` under either Keras.

    Args:
        model: a built model.
        path: the file, ending in ``.npz``; replaced atomically if it is there.

    Raises:
        InputError: ``path`` does not end in ``.npz``, or the model is not built.
        OSError: the file cannot be written.
    """
    path = os.fspath(path)
    if not path.endswith(".npz"):
        raise InputError(f"weights file {path!r} must end in .npz")
    if not model.built:
        raise InputError(f"model {model.name!r} has no weights yet; call it on a batch first")
    arrays = {
        key: tf.convert_to_tensor(variable).numpy() for key, variable in _variables(model).items()
    }
    folder = os.path.dirname(path) or "."
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
        try:
            np.savez(file, **cast(Any, arrays))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _variables(model: tf.keras.Model) -> dict[str, Any]:
    """The model's variables by ``layer/variable``, shared ones once, in the layers' order."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for prefix, owner in _owners(model, ""):
        for variable in owner.weights:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            # tf_keras names a variable "conv1/kernel:0", Keras 3 "kernel".
            key = stem = prefix + variable.name.split(":")[0].rsplit("/", 1)[-1]
            repeat = 1
            while key in found:
                repeat += 1
                key = f"{stem}_{repeat}"
            found[key] = variable
    return found


def _owners(model: tf.keras.Model, prefix: str) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _owners(layer, f"{prefix}{layer.name}/")
        else:
            yield f"{prefix}{layer.name}/", layer
    yield prefix, model  # last: what is left are variables that a subclassed model owns itself


def _assign(
    model: tf.keras.Model, arrays: Mapping[str, np.ndarray], aliases: Mapping[str, str], path: str
) -> None:
    variables = _variables(model)
    by_plain_key = {_plain(key): key for key in variables}
    fitting: dict[str, np.ndarray] = {}
    unexpected, misshapen = [], []
    for key, array in arrays.items():
        layer, _, variable = key.rpartition("/")
        alias = _plain(f"{aliases.get(layer, layer)}/{variable}")
        target = key if key in variables else by_plain_key.get(alias)
        if target is None or target in fitting:
            unexpected.append(key)
            continue
        wanted = tuple(variables[target].shape)
        fitting[target] = _as_dense_kernel(array, wanted)
        if fitting[target].shape != wanted:
            misshapen.append(f"{key} is {array.shape} in the file and {wanted} in the model")
    missing = [key for key in variables if key not in fitting]
    _require_fit(model.name, path, missing, unexpected, misshapen)
    for key, array in fitting.items():
        variables[key].assign(array)


def _require_fit(
    name: str, path: str, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> None:
    lists = {
        "missing in the file": missing,
        "unexpected in the file": unexpected,
        "shapes differ": misshapen,
    }
    problems = "; ".join(f"{what}: {_listed(items)}" for what, items in lists.items() if items)
    if problems:
        raise InputError(f"weights file {path!r} does not fit model {name!r}; {problems}")


def _plain(key: str) -> str:
    layer, _, variable = key.rpartition("/")
    return f"{layer.replace('/', '_')}/{variable}"


def _as_dense_kernel(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A 1x1 convolution's kernel (1, 1, in, out) as a dense one's (in, out), where that fits."""
    if array.ndim == 4 and array.shape[:2] == (1, 1) and array.shape[2:] == shape:
        return array[0, 0]
    return array


def _read_npz(path: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise InputError(f"weights file {path!r} holds {key!r}, which is no array of numbers")
    return arrays


def _load_h5(model: tf.keras.Model, path: str) -> None:
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and both Keras raise anything here, on any foreign file
        model.set_weights(before)
        raise _unreadable(path, error, f" into model {model.name!r}") from error


def _existing(path: str | os.PathLike[str]) -> str:
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(f"weights file {path!r} does not exist; give an existing .npz or .h5 file")
    return path


def _unreadable(path: str, error: Exception, into: str = "") -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"weights file {path!r} cannot be loaded{into}, it is cut off or of another kind: {reason}"
    )


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _MOST_LISTED} more" if len(items) > _MOST_LISTED else ""
    return ", ".join(items[:_MOST_LISTED]) + more
