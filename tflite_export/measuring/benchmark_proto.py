"""Reads the file that `benchmark_model --result_file_path` writes.

It is a `tflite.tools.benchmark.BenchmarkResult`; the messages are described here as TensorFlow's
`benchmark_result.proto` (proto2) has them, and read by protobuf itself.
"""

import math
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from tflite_export.errors import ExportError

_PACKAGE = "tflite.tools.benchmark"
_FLOAT = descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT
_INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
_INT32 = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
#: Message -> its fields, numbered from 1 in this order; of a message, the type is its name.
_MESSAGES: dict[str, tuple[tuple[str, int | str], ...]] = {
    "LatencyMetrics": (
        *(("avg_ms", _FLOAT), ("min_ms", _FLOAT), ("max_ms", _FLOAT), ("stddev_ms", _FLOAT)),
        *(("median_ms", _FLOAT), ("p5_ms", _FLOAT), ("p95_ms", _FLOAT), ("init_ms", _FLOAT)),
        *(("first_inference_ms", _FLOAT), ("average_warm_up_ms", _FLOAT)),
    ),
    "MemoryMetrics": (
        *(("init_footprint_kb", _INT64), ("overall_footprint_kb", _INT64)),
        ("peak_mem_mb", _FLOAT),
    ),
    "MiscMetrics": (
        *(("model_size_mb", _FLOAT), ("num_runs", _INT32), ("num_warmup_runs", _INT32)),
        ("model_throughput_in_mb_per_sec", _FLOAT),
    ),
    "BenchmarkResult": (
        ("name", _STRING),
        ("latency_metrics", "LatencyMetrics"),
        ("memory_metrics", "MemoryMetrics"),
        ("misc_metrics", "MiscMetrics"),
    ),
}
_FIGURES = {
    **{"avg_ms": "mean", "min_ms": "min", "max_ms": "max", "stddev_ms": "std"},
    **{"median_ms": "median", "p5_ms": "p5", "p95_ms": "p95"},
    **{"init_ms": "init", "first_inference_ms": "first"},
}


@cache
def result_class() -> Any:
    """Returns the class of the message `BenchmarkResult`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="benchmark_result.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            entry = described.field.add(name=field, number=number)
            entry.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if isinstance(kind, str):
                entry.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                entry.type_name = f".{_PACKAGE}.{kind}"
            else:
                entry.type = kind
    pool = descriptor_pool.DescriptorPool()  # of its own: TensorFlow may know these names, too
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.BenchmarkResult")
    )


def parse(content: bytes) -> tuple[dict[str, Any], int | None]:
    """Returns the figures that are told, named as in `Reading`, and the peak of memory in bytes.

    Raises:
        ExportError: it is no such file.
    """
    result = result_class()()
    try:
        result.ParseFromString(content)
    except message.DecodeError as error:
        raise ExportError(
            f"the result file of benchmark_model is damaged ({error}); run it again"
        ) from error
    figures: dict[str, Any] = {}
    for name, figure in _FIGURES.items():
        value = getattr(result.latency_metrics, name)
        if result.latency_metrics.HasField(name) and 0 <= value < math.inf:
            figures[figure] = value * 1000
    if result.misc_metrics.HasField("num_runs"):
        figures["runs"] = result.misc_metrics.num_runs
    peak = result.memory_metrics.peak_mem_mb
    return figures, round(peak * 2**20) if 0 < peak < math.inf else None
