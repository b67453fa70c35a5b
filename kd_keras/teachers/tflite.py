"""A TFLite file as a teacher."""

import concurrent.futures
import hashlib
import os
import queue
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.file_teacher import FileTeacher
from tflite_export.errors import ExportError
from tflite_export.runner import Runner


class TFLiteTeacher(FileTeacher):
    """A .tflite file that teaches.

    A batch is divided over several interpreters that run in threads of their own; the runtime
    releases Python's global lock. Real numbers go in and come out: the input of an int8 or uint8
    file is quantized and its outputs are dequantized. It runs on the CPU, outside of TensorFlow,
    and not under XLA.

    The file's input is resized to the batch. A file that refuses this, or would compute something
    else then, is run in pieces of its own batch size; which of the two is found out once.

    Args:
        path: Of the file.
        from_logits: See `FileTeacher`. Values of an int8 or uint8 file are multiples of its
            quantization step: with too many classes for their sums to say anything, as with 1,000,
            only the range that a quantized softmax has shows that they are probabilities.
        output: Name of the output that is the logits; by default the only one, or "logits". The
            others can be read as layers. Names are those of the signature "serving_default", else
            of the tensors; only outputs with the input's batch size count.
        interpreters: How many run at the same time.
        threads: Threads of each interpreter.

    Attributes:
        is_resized: Whether the input is resized to the batch.

    Raises:
        InputError: If there is no such file, it is damaged or no TFLite file, it has more than one
            input, or for a reason of `FileTeacher`.

    Example::

        teacher = TFLiteTeacher("mobilenet_int8.tflite", interpreters=4)
        distiller = kd.Distiller(student, teacher, methods=[kd.SoftTargets(temperature=4.0)])
    """

    supports_jit = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        from_logits: bool | None = None,
        output: str | None = None,
        interpreters: int = 2,
        threads: int = 1,
    ) -> None:
        if not isinstance(interpreters, int) or interpreters < 1:
            raise InputError(f"interpreters is {interpreters!r}; give a whole number from 1")
        try:
            runners = [Runner(path, threads) for _ in range(interpreters)]
            first = runners[0]
            self.is_resized = first.gives_the_same_resized(first.random_batch(), exact=False)
        except ExportError as error:
            raise InputError(f"the teacher {error}") from error
        for runner in runners:
            runner.is_resized = self.is_resized
        # Several replicas may ask at the same time: each takes interpreters as they get free.
        self._free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in runners:
            self._free.put(runner)
        self._pool = concurrent.futures.ThreadPoolExecutor(interpreters)
        self._interpreters = interpreters
        self._unit = 1 if self.is_resized else first.input.shape[0]
        dtype = tf.float32 if first.input.scale else tf.as_dtype(first.input.dtype)
        super().__init__(
            path,
            input_spec=tf.TensorSpec(first.input_shape, dtype),
            output_specs={
                name: tf.TensorSpec(shape, tf.float32)
                for name, shape in first.output_shapes.items()
            },
            steps={name: facts.scale or 0.0 for name, facts in first.outputs.items()},
            output=output,
            from_logits=from_logits,
        )

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; of the file's content, and what is read of it."""
        digest = hashlib.sha256(self.path.read_bytes())
        digest.update(f"{self.output} {self.from_logits}".encode())
        return digest.hexdigest()

    def _run(self, x: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
        def run(batch: np.ndarray) -> list[np.ndarray]:
            return self._infer(batch, names)

        # Stateless: what no loss reads is dropped from the graph.
        found = tf.numpy_function(run, [x], [tf.float32] * len(names), stateful=False)
        found = tf.nest.flatten(found)  # eagerly, one output comes without its list
        for name, value in zip(names, found, strict=True):
            value.set_shape([x.shape[0], *self._output_specs[name].shape[1:]])
        return dict(zip(names, found, strict=True))

    def _infer(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """The named outputs, computed in as many pieces as there are interpreters."""
        if not len(x):  # a replica's share of a short last batch
            shapes = [self._output_specs[name].shape[1:] for name in names]
            return [np.zeros((0, *(size or 0 for size in shape)), np.float32) for shape in shapes]
        units = np.arange(0, len(x), self._unit)
        parts = np.array_split(units, min(self._interpreters, len(units)))
        pieces = [x[part[0] : part[-1] + self._unit] for part in parts]
        found = list(self._pool.map(lambda piece: self._infer_piece(piece, names), pieces))
        return [np.concatenate(values) for values in zip(*found, strict=True)]

    def _infer_piece(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        runner = self._free.get()
        try:
            return runner.run(x, names)
        finally:
            self._free.put(runner)
