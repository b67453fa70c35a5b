"""Code that feeds one .tflite file as it wants to be fed, in Python and in Kotlin."""

import math
from pathlib import Path

import jinja2
import numpy as np

from tflite_export.preprocessing import Preprocessing
from tflite_export.tflite_model import TensorFacts

#: How Kotlin reads a number of each format from a ByteBuffer.
_READ = {
    "float32": "stored.getFloat()",
    "int8": "stored.get().toFloat()",
    "uint8": "(stored.get().toInt() and 0xFF).toFloat()",
    "int16": "stored.getShort().toFloat()",
    "int32": "stored.getInt().toFloat()",
}
_WRITE = {"int8": ("put", "toByte"), "uint8": ("put", "toByte"), "int16": ("putShort", "toShort")}


def snippets(
    file: str,
    fed: TensorFacts,
    given: TensorFacts,
    preprocessing: Preprocessing,
    in_the_file: bool = False,
) -> dict[str, str]:
    """Writes code that makes a file's outputs from a picture.

    Args:
        file: name of the .tflite file.
        fed: its input, (1, height, width, channels).
        given: its output.
        preprocessing: fitted to the input.
        in_the_file: the file does it itself.

    Returns:
        The code by language, `python` and `kotlin`.
    """
    facts = {
        "file": file,
        "input": _short(fed),
        "output": _short(given),
        "height": fed.shape[1],
        "width": fed.shape[2],
        "channels": fed.shape[3],
        "order": preprocessing.channel_order,
        "mean": list(preprocessing.pixel_mean),
        "std": list(preprocessing.pixel_std),
        "in_the_file": in_the_file,
        "number": given.shape == (1,),
        "classes": len(given.shape) == 2,
        "input_bytes": math.prod(fed.shape) * fed.dtype.itemsize,
        "output_bytes": math.prod(given.shape) * given.dtype.itemsize,
        "output_count": math.prod(given.shape[1:]),
        "read": _real(given),
    }
    if fed.scale is not None:
        limits = np.iinfo(fed.dtype)
        facts |= {"least": int(limits.min), "most": int(limits.max)}
        facts["put"], facts["stored_as"] = _WRITE[fed.dtype.name]
    return {language: _template(language).render(facts) + "\n" for language in ("python", "kotlin")}


def _template(language: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined
    )
    return environment.get_template(f"feeding_{language}.j2")


def _short(facts: TensorFacts) -> dict[str, object]:
    scale = None if facts.scale is None else float(str(np.float32(facts.scale)))
    return {
        "name": facts.name,
        "dtype": facts.dtype.name,
        "scale": scale,
        "zero_point": facts.zero_point,
    }


def _real(facts: TensorFacts) -> str:
    read = _READ[facts.dtype.name]
    if facts.scale is None:
        return read
    return f"({read} - {facts.zero_point}) * {np.float32(facts.scale)!s}f"
