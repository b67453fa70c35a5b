"""TFLite metadata: what a file says of itself to tools and apps that know nothing of our `.json`.

Written by the published schema (metadata_schema.fbs, file identifier M001). Labels are a text file
in a zip archive that follows the model's bytes, where that schema wants them.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tflite_export.model_schema import packed, unpacked
from tflite_export.preprocessing import Preprocessing
from tflite_export.tflite_model import TFLiteModel

_ENTRY = b"TFLITE_METADATA"
_LABELS = "labels.txt"
#: Fields of the schema's tables in their order; those after the last that is used are left out.
_FIELDS = {
    "AssociatedFile": ("name", "description", "type"),
    "Content": ("content_properties_type", "content_properties"),
    "ImageProperties": ("color_space",),
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author", "license"),
        *("associated_files", "min_parser_version"),
    ),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "SubGraphMetadata": (
        *("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    ),
    "TensorMetadata": (
        *("name", "description", "dimension_names", "content", "process_units", "stats"),
        "associated_files",
    ),
}
_AXIS_LABELS, _VALUE_LABELS = 2, 3
_IMAGE, _NORMALIZATION = 2, 1  # of the unions ContentProperties and ProcessUnitOptions
_COLOURS = {"RGB": 1, "gray": 2}


@dataclass(frozen=True)
class Card:
    """Who made a model, and what others may do with it.

    Attributes:
        name: of the model.
        author: a person or an organisation.
        license: its name, such as Apache-2.0, or its text.
        version: of the model.
    """

    name: str | None = None
    author: str | None = None
    license: str | None = None
    version: str | None = None


def with_metadata(
    content: bytes,
    model: TFLiteModel,
    card: Card,
    preprocessing: Preprocessing | None,
    labels: Sequence[str] | None,
    in_the_file: bool = False,
) -> bytes:
    """Returns a file with metadata; signature and operators stay as they were.

    Args:
        content: of the file.
        model: the same, loaded.
        card: who made it.
        preprocessing: what it was trained with.
        labels: names of the classes.
        in_the_file: the file preprocesses pixels itself.
    """
    parsed = unpacked(content)
    entry, stored = schema.MetadataT(), schema.BufferT()
    entry.name = _ENTRY
    entry.buffer = len(parsed.buffers)
    stored.data = list(_packed(_model(model, card, preprocessing, labels, in_the_file)))
    parsed.buffers.append(stored)
    parsed.metadata = [old for old in parsed.metadata or () if old.name != _ENTRY] + [entry]
    made = packed(parsed)
    return made if labels is None else _followed_by(made, "\n".join(labels) + "\n")


def _model(
    model: TFLiteModel,
    card: Card,
    preprocessing: Preprocessing | None,
    labels: Sequence[str] | None,
    in_the_file: bool,
) -> "_Table":
    given: dict[str, Any] = {"name": model.output.name}
    if labels is not None:
        kind = _VALUE_LABELS if model.output.shape == (1,) else _AXIS_LABELS
        given["associated_files"] = [_Table("AssociatedFile", name=_LABELS, type=kind)]
    fed: dict[str, Any] = {"name": model.input.name}
    if preprocessing is not None:
        fed |= _picture(preprocessing.fitted(model.input.shape), in_the_file)
    graph = _Table(
        "SubGraphMetadata",
        input_tensor_metadata=[_Table("TensorMetadata", **fed)],
        output_tensor_metadata=[_Table("TensorMetadata", **given)],
    )
    return _Table(
        "ModelMetadata",
        name=card.name,
        version=card.version,
        author=card.author,
        license=card.license,
        subgraph_metadata=[graph],
        min_parser_version="1.0.0",
    )


def _picture(preprocessing: Preprocessing, in_the_file: bool) -> dict[str, Any]:
    mean, std = preprocessing.pixel_mean, preprocessing.pixel_std
    if in_the_file:
        mean, std = (0.0,), (1.0,)
    order = str(preprocessing.channel_order)
    colours = _Table("ImageProperties", color_space=_COLOURS.get(order, 0))
    normalized = _Table("NormalizationOptions", mean=mean, std=std)
    return {
        "description": f"{order}; (pixel - mean) / std of pixels from 0 to 255",
        "content": _Table("Content", content_properties_type=_IMAGE, content_properties=colours),
        "process_units": [_Table("ProcessUnit", options_type=_NORMALIZATION, options=normalized)],
    }


class _Table:
    """A table: text, numbers of one byte, tables, lists of tables and tuples of floats."""

    def __init__(self, kind: str, **values: Any):
        self.fields = _FIELDS[kind]
        self.values = {name: value for name, value in values.items() if value is not None}


def _packed(table: _Table) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, table), file_identifier=b"M001")
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, table: _Table) -> int:
    placed = {name: _place(builder, value) for name, value in table.values.items()}
    builder.StartObject(len(table.fields))
    for name, value in placed.items():
        put = builder.PrependUOffsetTRelativeSlot
        if isinstance(table.values[name], int):
            put = builder.PrependByteSlot
        put(table.fields.index(name), value, 0)
    return builder.EndObject()


def _place(builder: flatbuffers.Builder, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, _Table):
        return _write(builder, value)
    if isinstance(value, int):
        return value
    tables = isinstance(value, list)
    items = [_write(builder, each) for each in value] if tables else value
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        (builder.PrependUOffsetTRelative if tables else builder.PrependFloat32)(item)
    return builder.EndVector()


def _followed_by(content: bytes, text: str) -> bytes:
    whole = io.BytesIO(content)
    file = zipfile.ZipInfo(_LABELS)  # of 1980: the same labels give the same bytes
    file.create_system = 3  # and on every system
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(file, text.encode())
    return whole.getvalue()
