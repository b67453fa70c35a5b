"""From a Keras model to a TFLite file that is proven and measured.

The package knows nothing of how the model was trained. A typical use::

    import tflite_export

    path = tflite_export.convert(model, "model.tflite", recipe="int8")
    proof = tflite_export.verify(path, model.predict(images), images, labels, floor=0.99)
    figures = tflite_export.benchmark(path)

Names are imported when they are first used: ``import tflite_export`` loads neither TensorFlow nor
NumPy, so that the command lines built on it start at once. No module is called like a function in
it: importing `tflite_export.convert`, say, would replace the function by the module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_export.auto import Examples
    from tflite_export.comparison import Verification
    from tflite_export.conversion import convert
    from tflite_export.cost import multiply_adds, parameters, sparsity
    from tflite_export.errors import ExportError
    from tflite_export.file_conversion import convert_file
    from tflite_export.interpreters import Interpreters
    from tflite_export.labels import read_labels
    from tflite_export.measuring.engine import Effort
    from tflite_export.measuring.host import benchmark
    from tflite_export.measuring.result import Result
    from tflite_export.metadata import Card
    from tflite_export.preprocessing import Preprocessing
    from tflite_export.recipes import RECIPES, Recipe
    from tflite_export.tflite_model import TensorFacts, TFLiteModel
    from tflite_export.verification import verify

__all__ = [
    "RECIPES",
    "Card",
    "Effort",
    "Examples",
    "ExportError",
    "Interpreters",
    "Preprocessing",
    "Recipe",
    "Result",
    "TFLiteModel",
    "TensorFacts",
    "Verification",
    "benchmark",
    "convert",
    "convert_file",
    "multiply_adds",
    "parameters",
    "read_labels",
    "sparsity",
    "verify",
]

_HOME = {
    "Card": "metadata",
    "Effort": "measuring.engine",
    "Examples": "auto",
    "ExportError": "errors",
    "Interpreters": "interpreters",
    "Preprocessing": "preprocessing",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "Result": "measuring.result",
    "TFLiteModel": "tflite_model",
    "TensorFacts": "tflite_model",
    "Verification": "comparison",
    "benchmark": "measuring.host",
    "convert": "conversion",
    "convert_file": "file_conversion",
    "multiply_adds": "cost",
    "parameters": "cost",
    "read_labels": "labels",
    "sparsity": "cost",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
