"""A SavedModel as a teacher."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.file_teacher import FileTeacher

_GRAPH = "saved_model.pb"


class SavedModelTeacher(FileTeacher):
    """A SavedModel that teaches, whatever wrote it, in either Keras and on any number of replicas.

    A SavedModel is a program of TensorFlow operations, among which are some that read and write
    files: load one only from whom you trust. No Python code in it is run.

    What is read of it is a *signature*, a function of one input with named outputs. It is run
    whole, also if a loss reads a lower output only.

    Args:
        path: The folder with saved_model.pb.
        from_logits: See `FileTeacher`.
        signature: The name of the function.
        output: Name of the output that is the logits; by default the only one, or "logits". The
            others can be read as layers.

    Raises:
        InputError: If there is no such folder, it is damaged, it has no such signature, that has
            more than one input or a fixed batch, or for a reason of `FileTeacher`.

    Example:
        >>> import tempfile
        >>> class Program(tf.Module):
        ...     @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        ...     def serve(self, x):
        ...         return {"logits": x[:, :3] - x[:, 1:], "mean": tf.reduce_mean(x, axis=1)}
        >>> program, folder = Program(), tempfile.mkdtemp()
        >>> tf.saved_model.save(program, folder, signatures=program.serve)
        >>> teacher = SavedModelTeacher(folder)
        >>> teacher.from_logits, teacher.specs(["mean"]).layers["mean"].shape
        (True, TensorShape([None]))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        from_logits: bool | None = None,
        signature: str = "serving_default",
        output: str | None = None,
    ) -> None:
        path = pathlib.Path(path)
        self.signature = signature
        self._loaded = _loaded(path)  # which holds the variables of the signature
        self._function = _signature(path, self._loaded, signature)
        self._input, input_spec = _input(path, self._function)
        super().__init__(
            path,
            input_spec=input_spec,
            output_specs={
                name: tf.TensorSpec(spec.shape, spec.dtype)
                for name, spec in self._function.structured_outputs.items()
                if spec.shape.rank != 0
            },
            steps={},
            output=output,
            from_logits=from_logits,
        )

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; of the files, and what is read of them.

        Saving a model anew may change it: the files hold more than the function.
        """
        digest = hashlib.sha256(f"{self.signature} {self.output} {self.from_logits}".encode())
        for file in sorted(self.path.rglob("*")):
            place = file.relative_to(self.path).as_posix()
            if file.is_file() and (place == _GRAPH or place.startswith(("variables/", "assets/"))):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{place} {content}".encode())
        return digest.hexdigest()

    def _run(self, x: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
        found = self._function(**{self._input: x})
        return {name: found[name] for name in names}


def _loaded(path: pathlib.Path) -> Any:
    if not (path / _GRAPH).is_file():
        raise InputError(
            f"the teacher {str(path)!r} is no SavedModel: it has no {_GRAPH}; give the folder that "
            "tf.saved_model.save or model.export wrote"
        )
    try:
        # In a thread of its own, which is in no strategy's scope: what is loaded within one cannot
        # be called but by its replicas, not even to look at it.
        with concurrent.futures.ThreadPoolExecutor(1) as outside:
            return outside.submit(tf.saved_model.load, os.fspath(path)).result()
    except Exception as error:  # TensorFlow raises anything here, on any foreign file
        raise InputError(
            f"the teacher {str(path)!r} cannot be loaded, it is cut off or of another kind: "
            f"{_in_one_line(error)}"
        ) from error


def _signature(path: pathlib.Path, loaded: Any, name: str) -> Any:
    signatures = getattr(loaded, "signatures", {})
    if name not in signatures:
        raise InputError(
            f"the teacher {str(path)!r} has no signature {name!r}; it has: "
            f"{', '.join(signatures) or 'none, so save it with signatures='}"
        )
    return signatures[name]


def _input(path: pathlib.Path, function: Any) -> tuple[str, tf.TensorSpec]:
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise InputError(
            f"the teacher {str(path)!r} has {len(inputs)} inputs ({', '.join(inputs)}); only a "
            "signature with one can teach"
        )
    [(name, spec)] = inputs.items()
    if spec.shape.rank in (None, 0) or spec.shape[0] is not None or spec.dtype == tf.string:
        raise InputError(
            f"the teacher {str(path)!r} takes {spec.dtype.name} {spec.shape}; export it for "
            "numbers with a batch of any size, (None, ...)"
        )
    return name, tf.TensorSpec(spec.shape, spec.dtype)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
