"""The model that a .tflite file is held against, of whatever kind its file is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.interpreters import Interpreters
from tflite_export.quiet import silenced_stderr

_BATCH = 128


class Reference:
    """A model file as a function from images to outputs; loaded when it is first called.

    Args:
        path: a `.keras` or `.h5` file of a whole model, the folder of a SavedModel, or a `.tflite`
            file.

    Raises:
        ExportError: there is no such file, or it is of another kind.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._run: Callable[[np.ndarray], Any] | None = None
        self._model: Any = None
        self._shape: tuple[int, ...] = ()
        if not self.path.exists():
            raise ExportError(f"reference {str(path)!r} does not exist")
        self._is_keras = self.path.is_file() and self.path.suffix in (".keras", ".h5", ".hdf5")
        self._is_tflite = self.path.is_file() and self.path.suffix == ".tflite"
        is_saved_model = (self.path / "saved_model.pb").is_file()
        if not (self._is_keras or self._is_tflite or is_saved_model):
            raise ExportError(
                f"reference {str(path)!r} is of no known kind; give a .keras, .h5 or .tflite file "
                f"or the folder of a SavedModel"
            )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the outputs, (n, classes), float32.

        Raises:
            ExportError: the model cannot be loaded or run, or takes other images.
        """
        if self._is_tflite:
            with Interpreters(self.path) as interpreters:
                return interpreters.predict(images)
        with silenced_stderr():
            run = self._loaded()
        if images.shape[1:] != self._shape:
            raise ExportError(
                f"images have shape {images.shape}; reference {str(self.path)!r} takes "
                f"({', '.join(map(str, ('n', *self._shape)))})"
            )
        batches = range(0, len(images), _BATCH)
        return np.concatenate([np.asarray(run(images[i : i + _BATCH])) for i in batches])

    def float_content(self, batch_size: int = 1) -> tuple[bytes, list[str] | None]:
        """Returns the model as a float32 .tflite file, and the layers its operators are marked by.

        Args:
            batch_size: of the file, unless the reference is one.

        Raises:
            ExportError: the model cannot be exported in float32.
        """
        if self._is_tflite:
            return self.path.read_bytes(), None
        from tflite_export.conversion import marked_content
        from tflite_export.recipes import RECIPES
        from tflite_export.saved_model import saved_model_content

        if not self._is_keras:
            made = saved_model_content(self.path, RECIPES["float32"], batch_size=batch_size)
            return made.data, None
        with silenced_stderr():
            self._loaded()
        return marked_content(self._model, batch_size)

    def _loaded(self) -> Callable[[np.ndarray], Any]:
        if self._run is None:
            self._run = self._load()
        return self._run

    def _load(self) -> Callable[[np.ndarray], Any]:
        # TensorFlow is imported only where it is needed.
        from tflite_export import keras_model
        from tflite_export.keras_file import load_keras_model
        from tflite_export.saved_model import SavedModelFunction

        if not self._is_keras:
            function = SavedModelFunction(self.path)
            self._shape = function.shape
            return function
        model = self._model = load_keras_model(self.path)
        inputs = keras_model.input_tensors(model)
        if len(inputs) != 1 or len(model.outputs) != 1:
            raise ExportError(
                f"reference {str(self.path)!r} has {len(inputs)} inputs and {len(model.outputs)} "
                f"outputs; give a model with one of each"
            )
        self._shape = tuple(inputs[0].shape)[1:]
        return lambda images: model.predict_on_batch(np.asarray(images, np.float32))
