"""A .tflite file as the objects of its published schema, and back."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils


def unpacked(content: bytes) -> schema.ModelT:
    """Returns everything in a sound file.

    Large constants may lie behind all else, where litert-quantizer puts them: the file then tells
    their places, which are others as soon as anything changes. So they are taken in.

    Args:
        content: of a file that the runtime loads.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: schema.ModelT) -> bytes:
    """Returns the content of a file."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
