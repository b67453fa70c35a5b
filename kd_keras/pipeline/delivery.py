"""The stages that deliver: export, verify, benchmark."""

import dataclasses
from typing import Any

import numpy as np

import tflite_export
from kd_keras.compression import quantization
from kd_keras.pipeline import compressing, generations, networks, teaching
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import read_json, replacing, write_json
from kd_keras.teachers import Teacher

#: The models of a run in the order of the report.
MODELS = ("teacher", "student_alone", "student", "student_compressed")
#: Recipe of each exported file, and the Keras model that it is made from.
FILES = {"float32": "student", "int8": "student_compressed"}


def file_path(job: Job, recipe: str) -> Any:
    """Where the file of a recipe lies."""
    return job.workdir.path("export", f"student_{recipe}.tflite")


def export(job: Job) -> None:
    """Write the float32 and the int8 TFLite file.

    A student that was not trained for quantization is quantized now, by its calibration images.
    """
    for recipe, stage in FILES.items():
        convert(job, networks.load(job, stage), file_path(job, recipe), recipe)


def convert(job: Job, model: Any, path: Any, recipe: str) -> None:
    """Write one file of a model, in the place of one that is there."""
    options: dict[str, Any] = {}
    if recipe == "int8" and not quantization.is_quantized(model):
        options["representative"] = job.calibration_images()
    tflite_export.convert(model, path, recipe, **options, overwrite=True)


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
    """Measure both files on this host."""
    settings = job.config.benchmark
    figures = {}
    for recipe in FILES:
        measured = tflite_export.benchmark(
            file_path(job, recipe), threads=tuple(settings.threads), runs=settings.runs
        )
        figures[recipe] = dataclasses.asdict(measured)
    write_json(job.workdir.scratch("benchmark", "benchmark.json"), figures)


def verified(job: Job) -> dict[str, Any]:
    """What the "verify" stage found."""
    return read_json(job.workdir.path("verify", "verify.json"))


def benchmarked(job: Job) -> dict[str, Any]:
    """What the "benchmark" stage measured."""
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
