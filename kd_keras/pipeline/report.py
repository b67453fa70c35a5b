"""The last stage: `report.json` for machines, `report.html` and a table for people."""

import importlib.metadata
from typing import Any

import numpy as np

import tflite_export
from kd_keras import data
from kd_keras.pipeline import class_errors, delivery, page, teaching
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import read_json, write_json

_PACKAGES = (
    *("kd-keras", "tensorflow", "tf_keras", "tensorflow-model-optimization"),
    *("ai-edge-litert", "keras-cv", "numpy"),
)
#: Folders in which trainings leave their histories, in the order of the run.
_TRAININGS = ("teacher", "student_alone", "student", "student_compressed")


def write(job: Job, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Write both reports and return the one for machines."""
    report, details = collect(job, records), _details(job)
    write_json(job.workdir.scratch("report.json"), report)
    page.write(report, details, job.workdir.scratch("report.html"))
    return report


def collect(job: Job, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What `report.json` holds; accuracies are fractions on the test set.

    Args:
        job: The run.
        records: What the work directory has recorded of each stage.
    """
    verified, benchmarked = delivery.verified(job), delivery.benchmarked(job)
    keys = ("accuracy", "parameters", "macs", "sparsity")
    names = job.dataset.class_names
    models = {
        name: {
            **{k: m[k] for k in keys},
            "class_accuracy": dict(zip(names, _of_classes(m), strict=True)),
        }
        for name, m in verified["models"].items()
    }
    files = {
        recipe: _file(job, recipe, verified["tflite"][recipe], benchmarked)
        | {k: models[stage][k] for k in ("parameters", "macs", "sparsity")}
        for recipe, stage in delivery.FILES.items()
    }
    dataset = job.dataset
    return {
        "config": {k: v for k, v in job.config.to_dict().items() if k != "search"},
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": benchmarked["facts"],
        "data": {
            "name": dataset.name,
            "train": len(dataset.train.labels),
            "transfer_set": len(job.views),
            "validation": len(dataset.validation.labels),
            "test": len(dataset.test.labels),
            "checksum": data.checksum(dataset),
        },
        "teacher": teaching.quality_of(job),
        "models": models,
        "tflite": files,
        **{key: verified[key] for key in ("generations",) if key in verified},
        "seconds": {name: record["seconds"] for name, record in records.items()},
        # Of all threads together: what a stage costs, also on a machine that does other work.
        "cpu_seconds": {name: record.get("cpu_seconds") for name, record in records.items()},
        "command": job.command,
        "created": job.started,
    }


def _of_classes(model: dict[str, Any]) -> list[float | None]:
    return class_errors.accuracy_of_classes(np.asarray(model["confusion"]))


def _file(job: Job, recipe: str, verified: dict, benchmarked: dict) -> dict[str, Any]:
    path = delivery.file_path(job, recipe)
    model = tflite_export.TFLiteModel(path)
    [file] = [each for each in benchmarked["models"] if each["name"] == path.stem]
    return {
        "path": str(path.relative_to(job.workdir.root)),
        **{key: file[key] for key in ("bytes", "gzip_bytes")},
        **{k: verified[k] for k in ("accuracy", "agreement", "largest_error_steps")},
        # As kd-benchmark writes them: one for each number of threads.
        "measurements": [m for m in benchmarked["measurements"] if m["model"] == path.stem],
        "input_dtype": str(model.input.dtype),
        "output_dtype": str(model.output.dtype),
    }


def _details(job: Job) -> dict[str, Any]:
    verified = delivery.verified(job)
    confusion = {name: model["confusion"] for name, model in verified["models"].items()}
    return {
        "class_names": list(job.dataset.class_names),
        "history": _histories(job),
        "confusion": {**confusion, "int8": verified["tflite"]["int8"]["confusion"]},
    }


def _histories(job: Job) -> dict[str, Any]:
    """The logs of each training, by its folder; of compression, by the technique."""
    found = {}
    for stage in _TRAININGS:
        for path in sorted(job.workdir.path(stage).rglob("history.json")):
            folder = path.parent.relative_to(job.workdir.root).as_posix()
            found[folder.removeprefix("student_compressed/")] = read_json(path)
    return found
