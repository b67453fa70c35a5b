"""Runs a .tflite file for another process, which lives on when the file crashes the runtime.

`python -m tflite_export.inference_worker FILE THREADS` sends the facts of input and output, and
then answers each array of images, in numbers as the file stores them, with what the file gives.
"""

import os
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.messages import receive, send
from tflite_export.runner import Runner
from tflite_export.tflite_model import TensorFacts

#: Examples at once. More of them would fall out of the processor's caches.
BATCH = 16


def main(path: str, threads: str) -> None:
    """Answers until the input ends."""
    # What the runtime prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        _serve(path, int(threads), sys.stdin.buffer, answers)
    except ExportError as error:
        send(answers, {"error": str(error)})
    except MemoryError:
        send(answers, {"error": f"{path} needs more memory than there is"})
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        send(answers, {"error": f"{path} cannot be run: {reason}; export it again"})


def _serve(path: str, threads: int, requests: BinaryIO, answers: BinaryIO) -> None:
    runner = Runner(path, threads)
    if len(runner.outputs) != 1:
        raise ExportError(
            f"{path} has {len(runner.outputs)} outputs ({', '.join(runner.outputs)}); give a file "
            f"with one"
        )
    [(name, output)] = runner.outputs.items()
    send(answers, {"input": _described(runner.input), "output": _described(output)})
    is_tried = False
    while (request := receive(requests)) is not None:
        images = request[1]
        if not is_tried:  # on the first images that are there, bit by bit
            runner.is_resized = runner.gives_the_same_resized(images[:BATCH], exact=True)
            is_tried = True
        found = [
            runner.run_stored(images[place : place + BATCH], [name])[0]
            for place in range(0, len(images), BATCH)
        ]
        send(answers, {"resized": runner.is_resized}, np.concatenate(found))


def _described(facts: TensorFacts) -> dict[str, Any]:
    return {**asdict(facts), "dtype": facts.dtype.name}


if __name__ == "__main__":
    main(*sys.argv[1:])
