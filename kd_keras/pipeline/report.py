"""The last stage: `report.json` for machines, `report.html` and a table for people."""

import importlib.metadata
from typing import Any

import tflite_export
from kd_keras import data
from kd_keras.pipeline import delivery, page
from kd_keras.pipeline.run import Run
from kd_keras.pipeline.workdir import read_json, write_json

_PACKAGES = (
    *("kd-keras", "tensorflow", "tf_keras", "tensorflow-model-optimization"),
    *("ai-edge-litert", "keras-cv", "numpy"),
)
_HISTORIES = {
    "teacher": "teacher",
    "student_alone": "student_alone",
    "student": "student",
    "pruned": "student_compressed/pruned",
    "quantized": "student_compressed/quantized",
}


def write(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """Write both reports and return the one for machines."""
    report, details = collect(run, seconds), _details(run)
    write_json(run.workdir.scratch("report.json"), report)
    page.write(report, details, run.workdir.scratch("report.html"))
    return report


def collect(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """What `report.json` holds; accuracies are fractions on the test set."""
    verified, benchmarked = delivery.verified(run), delivery.benchmarked(run)
    keys = ("accuracy", "parameters", "macs", "sparsity")
    models = {name: {k: m[k] for k in keys} for name, m in verified["models"].items()}
    files = {
        recipe: _file(run, recipe, verified["tflite"][recipe], benchmarked[recipe])
        for recipe in delivery.FILES
    }
    dataset = run.dataset
    return {
        "config": run.config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": benchmarked["int8"]["machine"],
        "data": {
            "name": dataset.name,
            "train": len(dataset.train.labels),
            "validation": len(dataset.validation.labels),
            "test": len(dataset.test.labels),
            "checksum": data.checksum(dataset),
        },
        "models": models,
        "tflite": files,
        "seconds": seconds,
        "command": run.command,
        "created": run.started,
    }


def _file(run: Run, recipe: str, verified: dict, benchmarked: dict) -> dict[str, Any]:
    path = delivery.file_path(run, recipe)
    model = tflite_export.TFLiteModel(path)
    by_threads = {str(entry["threads"]): entry for entry in benchmarked["latency_us"]}
    return {
        "path": str(path.relative_to(run.workdir.root)),
        **{key: benchmarked[key] for key in ("bytes", "gzip_bytes", "peak_memory_bytes")},
        **{k: verified[k] for k in ("accuracy", "agreement", "largest_error_steps")},
        "latency_us": benchmarked["latency_us"][0],
        "latency_us_by_threads": by_threads,
        "input_dtype": str(model.input.dtype),
        "output_dtype": str(model.output.dtype),
    }


def _details(run: Run) -> dict[str, Any]:
    verified = delivery.verified(run)
    histories = {
        name: run.workdir.path(stage, "history.json") for name, stage in _HISTORIES.items()
    }
    confusion = {name: model["confusion"] for name, model in verified["models"].items()}
    return {
        "class_names": list(run.dataset.class_names),
        "history": {name: read_json(p) for name, p in histories.items() if p.exists()},
        "confusion": {**confusion, "int8": verified["tflite"]["int8"]["confusion"]},
    }
