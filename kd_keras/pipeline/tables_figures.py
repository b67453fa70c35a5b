"""The figures of a table's rows, read from the reports of its runs, and their files' latency."""

import dataclasses
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from kd_keras.errors import InputError
from kd_keras.pipeline.tables import Results, Table
from kd_keras.pipeline.workdir import read_json
from tflite_export.measuring import engine
from tflite_export.measuring.host import Host
from tflite_export.measuring.result import Setting, model_files

#: Figures that `measure` adds to those of a report.
_MEASURED = ("latency_us", "latency_ratio", "latency_ratio_range")


def results(
    table: Table, rows: Sequence[str], seeds: Sequence[int], kept: Results
) -> dict[str, dict[int, dict]]:
    """The figures of the runs that are done, by row and seed; accuracies are on the test set.

    Args:
        table: The table.
        rows: Names of the rows that are wanted; beside them there are those that were kept.
        seeds: Likewise, the seeds.
        kept: Figures that were read from the table's record. Those of a report take their place,
            but for the latency of the same file.
    """
    found: dict[str, dict[int, dict]] = {}
    for name in table.rows:
        before = kept.get(name, {})
        if name not in rows and not before:
            continue
        found[name] = {}
        for seed in sorted({*seeds, *before}):
            result = _figures(table, name, seed)
            old = dict(before.get(seed, {}))
            if result is not None and result["created"] == old.get("created"):
                result |= {key: old[key] for key in _MEASURED if key in old}
            if result or old:
                found[name][seed] = result or old
    return found


def _figures(table: Table, name: str, seed: int) -> dict[str, Any] | None:
    """The figures of a row's run, if its folder has a report."""
    row = table.rows[name]
    report = table.report(row["run"], seed)
    if report is None:
        return None
    curve = {"validation_errors": _validation_errors(table, row, seed)}
    return _result(report, row) | (curve if table.shows_errors else {})


def _result(report: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    model = report["models"][row["model"]]
    by_class = model.get("class_accuracy", {})  # older reports have none
    result = {
        "accuracy": model["accuracy"],
        "error": 1 - model["accuracy"],
        "class_errors": {name: 1 - value for name, value in by_class.items() if value is not None},
        **{key: model[key] for key in ("parameters", "macs", "sparsity")},
        "epochs": _epochs(report["config"], row["model"]),
        "cpu_seconds": sum(report["cpu_seconds"][stage] or 0 for stage in _trained(report, row)),
        "created": report["created"],
    }
    if row["model"] == "teacher":
        return result
    file = report["tflite"][row["file"]]
    return {
        **result,
        **{key: file[key] for key in ("agreement", "bytes", "gzip_bytes")},
        "file_accuracy": file["accuracy"],
        "file_error": 1 - file["accuracy"],
    }


def _training_stage(config: dict[str, Any], model: str) -> str:
    """The stage that trains a row's model, before compression; its folder has the history."""
    if model == "teacher":
        return model
    keys = ("methods", "adversarial", "conditional", "stages", "born_again")
    return "student" if any(config["distillation"][key] for key in keys) else "student_alone"


def _trained(report: dict[str, Any], row: dict[str, Any]) -> list[str]:
    config = report["config"]
    trained = [_training_stage(config, row["model"])]
    if config["compression"] and row["model"] != "teacher":
        from_scratch = config["compression"][0].get("from_scratch")
        trained = [*([] if from_scratch else trained), "student_compressed"]
    return trained


def _epochs(config: dict[str, Any], model: str) -> int | None:
    """How many epochs the model was trained; None for a teacher that was given."""
    if model == "teacher":
        return None if config["teacher"]["path"] else config["teacher"]["epochs"]
    own = config["student"]["epochs"]
    settings = config["distillation"]
    stages = sum(stage["epochs"] or own for stage in settings["stages"].values())
    generations = settings["born_again"].get("generations", 3) if settings["born_again"] else 1
    scratch = bool(config["compression"]) and config["compression"][0].get("from_scratch")
    before = 0 if scratch else stages or own * generations
    return before + sum(step["epochs"] for step in config["compression"])


def _validation_errors(table: Table, row: dict[str, Any], seed: int) -> list[float]:
    """The error on the validation images after each epoch of a row's run that is done."""
    folder = table.folder(row["run"], seed)
    stage = _training_stage(read_json(folder / "report.json")["config"], row["model"])
    histories = map(read_json, sorted((folder / stage).rglob("history.json")))
    epochs = [epoch for history in histories for epoch in history]
    return [round(1 - epoch["val_accuracy"], 5) for epoch in epochs if "val_accuracy" in epoch]


def measure(
    table: Table, found: dict[str, dict[int, dict]], device: engine.Device | None = None
) -> None:
    """Add to each row's first result its file's latency, and its ratio to the first row's.

    All files take turns, so that what slows the machine down for a while meets them all.

    Raises:
        InputError: If a row's figures are kept, but its run is not in its folder.

    Args:
        table: The table.
        found: What `results` gave; it is changed.
        device: That runs the files; this host by default.
    """
    first = {name: min(by_seed) for name, by_seed in found.items() if by_seed}
    files = {name: _file(table, name, seed) for name, seed in first.items()}
    gone = [str(path) for path in files.values() if not path.exists()]
    if gone:
        raise InputError(
            f"latency needs the file of every row, and {gone[0]} is not there: give no --output, "
            "and the rows are run anew"
        )
    models = [
        dataclasses.replace(model, name=name)
        for name, model in zip(files, model_files(list(files.values())), strict=True)
    ]
    setting = Setting("xnnpack", threads=1)
    result = engine.measure(device or Host(), models, [setting], engine.Effort())
    for measured in result.measurements:
        row = found[measured.model][first[measured.model]]
        row["latency_us"] = statistics.median(r.median for r in measured.readings if r.median)
        ratio = measured.ratio
        row["latency_ratio"] = 1.0 if ratio is None else ratio.median
        row["latency_ratio_range"] = [1.0, 1.0] if ratio is None else [ratio.low, ratio.high]


def _file(table: Table, name: str, seed: int) -> pathlib.Path:
    row = table.rows[name]
    return table.folder(row["run"], seed) / "export" / f"student_{row['file']}.tflite"
