"""Runs a .tflite file on a whole test set, in several processes."""

import concurrent.futures
import contextlib
import os
import queue
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from tqdm import tqdm

from tflite_export import child
from tflite_export.errors import ExportError
from tflite_export.machine import machine_facts
from tflite_export.messages import receive, send
from tflite_export.tflite_model import TensorFacts, check_images

_PIECE = 256  # images in one request


class Interpreters:
    """A .tflite file in several interpreters, each in a process of its own.

    For test sets of thousands of images, and for files from strangers: one that crashes the runtime
    ends its process and is told in one line. The outputs are those of `TFLiteModel.predict`, bit by
    bit and in the order of the images. Batches are run at once where the first of them gives every
    image what it has alone, and one after the other where it does not.

    Example::

        with Interpreters("student.tflite") as interpreters:
            logits = interpreters.predict(images)

    Attributes:
        path: of the file.
        input: facts of the only input.
        output: facts of the only output.
        is_resized: whether batches were run at once; None before the first.

    Args:
        path: of the file.
        threads: that one inference may use.
        workers: how many interpreters; by default as many as the cores hold.
        python: that runs them.

    Raises:
        ExportError: the file cannot be loaded, crashes the runtime, or has more than one input or
            output.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int = 1,
        workers: int | None = None,
        python: child.Python = child.HERE,
    ) -> None:
        for name, value in (("threads", threads), ("workers", workers)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ExportError(f"{name} is {value!r}; give a whole number from 1")
        self.path = Path(path)
        if not self.path.is_file():
            raise ExportError(f"{path} is no file; give a .tflite file that exists")
        self.is_resized: bool | None = None
        self._threads, self._python = threads, python
        self._wanted = workers or max(1, int(machine_facts()["cores"]) // threads)
        self._workers = [_Worker(self.path, threads, python)]
        self.input, self.output = self._workers[0].facts()

    def __enter__(self) -> "Interpreters":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of the processes that run."""
        return tuple(worker.process_id for worker in self._workers)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.close()

    def predict(self, images: np.ndarray, *, progress: bool = True) -> np.ndarray:
        """Runs the file on every image.

        Args:
            images: real numbers, (n, *input shape without batch), as the Keras model takes them.
            progress: show a bar where there are many images and a terminal.

        Returns:
            Real numbers, (n, *output shape without batch), float32.

        Raises:
            ExportError: images of another shape, NaN or infinity among them, or the file cannot be
                run.
        """
        images = np.asarray(images)
        check_images(self.path, self.input, images)
        starts = range(0, len(images), _PIECE)
        while len(self._workers) < min(self._wanted, len(starts)):
            self._workers.append(_Worker(self.path, self._threads, self._python))
        free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            free.put(worker)

        def run(start: int) -> np.ndarray:
            worker = free.get()
            try:
                return worker.run(self.input.quantize(images[start : start + _PIECE]))
            finally:
                free.put(worker)

        stored = np.empty((len(images), *self.output.shape[1:]), self.output.dtype)
        hidden = not (progress and len(images) >= 1000 and sys.stderr.isatty())
        bar = tqdm(total=len(images), desc=self.path.name, disable=hidden)
        with bar, concurrent.futures.ThreadPoolExecutor(len(self._workers)) as pool:
            for start, found in zip(starts, pool.map(run, starts), strict=True):
                stored[start : start + _PIECE] = found
                bar.update(len(found))
        self.is_resized = all(worker.is_resized for worker in self._workers if worker.has_run)
        return self.output.dequantize(stored)


class _Worker:
    """The process of one interpreter."""

    def __init__(self, path: Path, threads: int, python: child.Python) -> None:
        self._path = path
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
        self._process = process = subprocess.Popen(
            python.command("tflite_export.inference_worker", path, threads),
            env=python.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._requests, self._answers = (
            cast(BinaryIO, process.stdin),
            cast(BinaryIO, process.stdout),
        )
        self.process_id = self._process.pid
        self._facts: tuple[TensorFacts, TensorFacts] | None = None
        self.is_resized = self.has_run = False

    def facts(self) -> tuple[TensorFacts, TensorFacts]:
        """Input and output of the file."""
        if self._facts is None:
            told, _ = self._told()
            self._facts = _facts(told["input"]), _facts(told["output"])
        return self._facts

    def run(self, images: np.ndarray) -> np.ndarray:
        """What the file makes of images, in stored numbers."""
        self.facts()
        with contextlib.suppress(BrokenPipeError):  # what it said, or how it ended, is read below
            send(self._requests, {}, images)
        told, outputs = self._told()
        self.is_resized, self.has_run = told["resized"], True
        return outputs

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers, self._errors):
            with contextlib.suppress(BrokenPipeError):  # what was not sent is not missed
                pipe.close()

    def _told(self) -> tuple[dict[str, Any], np.ndarray]:
        told = receive(self._answers)
        if told is None:
            raise self._crashed()
        return told

    def _crashed(self) -> ExportError:
        ended = child.ending(self._process.wait())
        self._errors.seek(0)
        last = (self._errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        return ExportError(
            f"{self._path} crashed the runtime ({ended}{': ' if last else ''}{last[:200]}); it is "
            f"damaged or was made for another runtime: export it again"
        )


def _facts(told: dict[str, Any]) -> TensorFacts:
    return TensorFacts(**{**told, "shape": tuple(told["shape"]), "dtype": np.dtype(told["dtype"])})
