"""Which layer of the user's model an operator of a .tflite file computes."""

import re
from collections.abc import Sequence

from tflite_export.file_facts import Operator

#: Begins the scope that a layer's operations are traced in, where its name would not do.
MARK = "kept_in_float_"


def marked_layer(operator: Operator, names: Sequence[str]) -> str | None:
    """Returns which of the marked layers an operator computes, of fused ones the first."""
    tensors = [*operator.tensors, *operator.constants]
    parts = [re.findall(rf"{MARK}(\d+)", part) for name in tensors for part in name.split(";")]
    # Of nested models the inner layer, of fused layers the first: names are in the model's order.
    places = [int(marks[-1]) for marks in parts if marks]
    return names[min(places)] if places else None


def scoped_layer(operator: Operator) -> str:
    """Returns the layer that an operator computes, of fused ones the first, by its tensors."""
    named = (operator.constants if operator.last else ()) or operator.tensors
    path = re.sub(r"/ReadVariableOp\d*$", "", named[0].split(";")[-1]).split("/")
    name = path[-2] if len(path) > 1 else path[0]
    return name.removeprefix("quant_")
