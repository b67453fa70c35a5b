"""The kinds of TFLite file that can be made, by name."""

from dataclasses import dataclass

from tflite_export.errors import ExportError


@dataclass(frozen=True)
class Recipe:
    """The number formats of one kind of file.

    Attributes:
        name: what a user writes.
        weights: format of the kernels in the file.
        activations: format of everything computed between input and output.
        io: format of the file's input and output.
    """

    name: str
    weights: str
    activations: str
    io: str


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", weights="float32", activations="float32", io="float32"),
        Recipe("int8", weights="int8", activations="int8", io="int8"),
    )
}


def get(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Raises:
        ExportError: there is none; the message lists the names.
    """
    if name not in RECIPES:
        raise ExportError(f"recipe {name!r} is unknown; choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]
