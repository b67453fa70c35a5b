"""Runs a .tflite file on float images."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tqdm import tqdm

from tflite_export.errors import ExportError
from tflite_export.quiet import silenced_stderr

_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorFacts:
    """The input or the output of a file.

    Attributes:
        name: in the signature, or the tensor's own where the file has no signature.
        shape: with the batch, usually 1.
        dtype: NumPy type of the stored numbers.
        scale: size of a quantization step, None for a float tensor. `real = scale * (q - zero)`.
        zero_point: the stored number that means 0.0, None for a float tensor.
        index: of the tensor, as the interpreter counts.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float | None
    zero_point: int | None
    index: int

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Turns real numbers into stored ones: rounded half to even, clipped to the type's range.

        Args:
            values: float array of any shape.

        Returns:
            An array of the same shape and of type `dtype`.
        """
        if self.scale is None or self.zero_point is None:
            return np.asarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """Turns stored numbers into real ones, float32."""
        if self.scale is None or self.zero_point is None:
            return np.asarray(stored, np.float32)
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)


class TFLiteModel:
    """A .tflite file with one input and one output, ready to run.

    Example::

        model = TFLiteModel("student.tflite")
        logits = model.predict(images)

    Attributes:
        path: of the file.
        input: facts of the input.
        output: facts of the output.
        interpreter: the runtime, tensors allocated.

    Args:
        path: of the file.
        threads: that one inference may use.

    Raises:
        ExportError: there is no such file, it is damaged or no TFLite file, an operator in it is
            not built into TFLite, or it has more than one input or output.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self.path = Path(path)
        self.interpreter = load_interpreter(self.path, threads)
        inputs, outputs = signature_details(self.interpreter)
        if len(inputs) != 1 or len(outputs) != 1:
            raise ExportError(
                f"{self.path} has {len(inputs)} inputs and {len(outputs)} outputs "
                f"({', '.join([*inputs, *outputs])}); one of each is supported"
            )
        self.input = tensor_facts(*inputs.popitem())
        self.output = tensor_facts(*outputs.popitem())

    def predict(self, images: np.ndarray, *, progress: bool = True) -> np.ndarray:
        """Runs the file on every image, one batch after the other, as a phone would.

        `Interpreters.predict` gives the same for a whole test set, in several processes.

        Args:
            images: real numbers, (n, *input shape without batch), as the Keras model takes them.
            progress: show a bar where there are many images and a terminal.

        Returns:
            Real numbers, (n, *output shape without batch), float32.

        Raises:
            ExportError: images of another shape, NaN or infinity among them, or the file gives
                something else than a result for each image of its batch.
        """
        images = np.asarray(images)
        check_images(self.path, self.input, images)
        batch = self.input.shape[0]
        if self.output.shape[:1] != (batch,):
            raise ExportError(
                f"{self.path} takes {self.input.shape} and gives {self.output.shape}: it needs a "
                f"batch as the first dimension of both"
            )
        stored = np.empty((len(images), *self.output.shape[1:]), self.output.dtype)
        hidden = not (progress and len(images) >= 1000 and sys.stderr.isatty())
        for place in tqdm(range(0, len(images), batch), desc=self.path.name, disable=hidden):
            some = self.input.quantize(images[place : place + batch])
            stored[place : place + batch] = self._run(filled(some, batch))[: len(some)]
        return self.output.dequantize(stored)

    def _run(self, quantized: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(self.input.index, quantized)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output.index)


def filled(images: np.ndarray, batch: int) -> np.ndarray:
    """Returns images with the last repeated until there are whole batches."""
    if len(images) % batch == 0:
        return images
    return np.concatenate([images, np.repeat(images[-1:], -len(images) % batch, axis=0)])


def check_images(path: Path, wanted: TensorFacts, images: np.ndarray) -> None:
    """Holds images against a file's input.

    Raises:
        ExportError: another shape, no image, or NaN or infinity among the numbers.
    """
    if images.shape[1:] != wanted.shape[1:] or not len(images):
        shape = ("n", *wanted.shape[1:])
        raise ExportError(
            f"images have shape {images.shape}; {path} takes "
            f"({', '.join(map(str, shape))}) with n >= 1"
        )
    if not np.all(np.isfinite(images)):
        raise ExportError(f"images for {path} hold NaN or infinity; check their normalisation")


def load_interpreter(
    path: str | os.PathLike[str], threads: int = 1, *, xnnpack: bool = True
) -> Interpreter:
    """Opens a file and allocates its tensors.

    Args:
        path: of the file.
        threads: that one inference may use.
        xnnpack: with XNNPACK, or with the runtime's own kernels.

    Raises:
        ExportError: there is no such file, it is damaged or no TFLite file, or an operator in it
            is not built into TFLite.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ExportError(f"threads is {threads!r}; give a whole number from 1")
    if not Path(path).is_file():
        raise ExportError(f"{path} is no file; give a .tflite file that exists")
    types = OpResolverType
    kind = types.AUTO if xnnpack else types.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with silenced_stderr():
            interpreter = Interpreter(
                model_path=os.fspath(path), num_threads=threads, experimental_op_resolver_type=kind
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"{path} cannot be loaded: {reason[:200]}; it is damaged, no TFLite file or needs "
            f"operators that are not built in: export it again"
        ) from error
    return interpreter


def signature_details(interpreter: Interpreter) -> tuple[dict[str, dict], dict[str, dict]]:
    """Returns the details of inputs and outputs by name in the signature, else by tensor."""
    if _SIGNATURE in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(_SIGNATURE)
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    return (
        {detail["name"]: detail for detail in interpreter.get_input_details()},
        {detail["name"]: detail for detail in interpreter.get_output_details()},
    )


def tensor_facts(name: str, detail: dict[str, Any]) -> TensorFacts:
    """The facts of a tensor, from what the interpreter says of it."""
    scale, zero_point = detail["quantization"]
    quantized = np.issubdtype(detail["dtype"], np.integer) and scale != 0
    return TensorFacts(
        name=name,
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
        index=int(detail["index"]),
    )
