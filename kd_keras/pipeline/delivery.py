"""The stages that deliver: export, verify, benchmark."""

import dataclasses
import hashlib
from typing import Any

import numpy as np

import tflite_export
from kd_keras.compression import quantization
from kd_keras.pipeline import compressing, device, generations, networks, teaching
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import read_json, replacing, write_json
from kd_keras.teachers import Teacher
from tflite_export.description import Known, describe
from tflite_export.ends import Ends
from tflite_export.representative import Representative

#: The models of a run in the order of the report.
MODELS = ("teacher", "student_alone", "student", "student_compressed")
#: Recipe of each exported file, and the Keras model that it is made from.
FILES = {"float32": "student", "int8": "student_compressed"}


def file_path(job: Job, recipe: str) -> Any:
    """Where the file of a recipe lies."""
    return job.workdir.path("export", f"student_{recipe}.tflite")


def export(job: Job) -> None:
    """Write the float32 and the int8 TFLite file, and beside each what it is and how to feed it.

    A student that was not trained for quantization is quantized now, by its calibration images.
    """
    for recipe, stage in FILES.items():
        path = file_path(job, recipe)
        images = convert(job, networks.load(job, stage), path, recipe)
        write_json(path.with_suffix(".json"), _description(job, path, recipe, stage, images))


def convert(job: Job, model: Any, path: Any, recipe: str) -> np.ndarray | None:
    """Write one file of a model, in the place of one that is there.

    Returns:
        The images that it was quantized with; None where it needed none.
    """
    images = None
    if recipe == "int8" and not quantization.is_quantized(model):
        images = job.calibration_images()
    tflite_export.convert(model, path, recipe, representative=images, overwrite=True)
    return images


def _description(
    job: Job, path: Any, recipe: str, stage: str, images: np.ndarray | None
) -> dict[str, Any]:
    """What `kd-export` would write beside a file. Only pictures have a preprocessing to tell."""
    preprocessing = None
    if job.input_shape[-1] in (1, 3):
        normalization = job.normalization
        preprocessing = tflite_export.Preprocessing(
            (0.0, 1.0), normalization.mean, normalization.std
        )
    data = None
    if images is not None:
        facts = {"images": len(images), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
        data = Representative("training images", images, {}, facts, preprocessing)
    known = Known(preprocessing, job.dataset.class_names, Ends(), tflite_export.Card())
    source = networks.file_path(job, stage)
    return describe(path, tflite_export.RECIPES[recipe], source, data, known)


def verify(job: Job) -> None:
    """Read the test set, once: every model's accuracy, and each file against its Keras model.

    Raises:
        ExportError: If the int8 file's agreement is below the config's floor.
    """
    test = job.dataset.test
    labels = np.asarray(test.labels)
    results: dict[str, Any] = {"models": {}, "tflite": {}}
    logits = {}
    steps = [f"student_compressed/{step.name}" for step in compressing.steps(job)]
    for folder in (*MODELS, *steps[:-1]):
        model = teaching.load(job) if folder == "teacher" else networks.load(job, folder)
        if isinstance(model, Teacher) and model.is_recorded:
            continue  # nothing is recorded of the test set
        logits[folder] = _test_logits(job, model, folder)
        results["models"][folder] = {
            "accuracy": float(np.mean(logits[folder].argmax(-1) == labels)),
            **_cost(model),
            "confusion": _confusion(labels, logits[folder], job.classes),
        }
    images = job.images(test)
    for recipe, stage in FILES.items():
        path = file_path(job, recipe)
        floor = job.config.verify.agreement
        proof = tflite_export.verify(path, logits[stage], images, labels, floor=floor)
        results["tflite"][recipe] = dataclasses.asdict(proof)
    if job.config.distillation.born_again:
        results["generations"] = generations.accuracies(job)
    write_json(job.workdir.scratch("verify", "verify.json"), results)


def benchmark(job: Job) -> None:
    """Measure both files on this host, in turn."""
    settings = job.config.benchmark
    measured = tflite_export.benchmark(
        [file_path(job, recipe) for recipe in FILES],
        threads=settings.threads,
        effort=device.effort(settings.runs),
    )
    write_json(job.workdir.scratch("benchmark", "benchmark.json"), measured.as_dictionary())


def verified(job: Job) -> dict[str, Any]:
    """What the "verify" stage found."""
    return read_json(job.workdir.path("verify", "verify.json"))


def benchmarked(job: Job) -> dict[str, Any]:
    """What the "benchmark" stage measured, a `tflite_export.Result`; models are called as files."""
    return read_json(job.workdir.path("benchmark", "benchmark.json"))


def _test_logits(job: Job, model: Any, folder: str) -> np.ndarray:
    """A model's logits on the test set, kept beside it: what made it anew clears its folder."""
    path = job.workdir.scratch(folder, "test_logits.npy")
    if not path.exists():
        with replacing(path) as temporary:
            np.save(temporary, job.logits(model, job.dataset.test))
    return np.load(path, allow_pickle=False)


def _cost(model: Any) -> dict[str, float | None]:
    """Parameters, multiply-adds and share of zeros; of an ensemble, of its members together.

    None where they cannot be counted, in a teacher that is no Keras model.
    """
    members = teaching.keras_models(model) if isinstance(model, Teacher) else [model]
    if members is None:
        return {"parameters": None, "macs": None, "sparsity": None}
    parameters = [tflite_export.parameters(member) for member in members]
    zeros = [tflite_export.sparsity(member) for member in members]
    return {
        "parameters": sum(parameters),
        "macs": sum(tflite_export.multiply_adds(member) for member in members),
        "sparsity": float(np.average(zeros, weights=parameters)),
    }


def _confusion(labels: np.ndarray, logits: np.ndarray, classes: int) -> list[list[int]]:
    """Counts of (true class, predicted class)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, logits.argmax(-1)), 1)
    return counts.tolist()
