"""The kinds of TFLite file that can be made, by name.

The names follow one grammar::

    NAME = KIND [ "_" IO "_io" ] [ "@float:" LAYER { "," LAYER } ]

`int8` is the usual one for a phone's CPU, `int8_uint8_io` the same with bytes in and out, and
`int8@float:stem,logits` leaves two layers in float32. What a kind is stands in `RECIPES`.
"""

from dataclasses import dataclass, replace

from tflite_export.errors import ExportError

#: Not a recipe, but the wish for the smallest that is good enough; see `auto.py`.
AUTO = "auto"
#: What a file can give, whichever of the first two its model ends in.
OUTPUT_FORMS = ("logits", "softmax", "argmax")
_FLOAT_LAYERS = "@float:"
#: Operators that litert-quantizer has no int4 for; they get int8 weights in int4 recipes.
_WITHOUT_INT4 = {"DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}


@dataclass(frozen=True)
class Recipe:
    """The number formats of one kind of file.

    Attributes:
        name: what a user writes.
        weights: format of the kernels in the file. Biases are float32 beside float activations,
            int32 beside int8 and int64 beside int16.
        activations: format of everything computed between input and output.
        io: format of the file's input and output.
        dequantized: the kernels are made float32 again before they are used.
        float_layers: layers that stay in float32, by name.
    """

    name: str
    weights: str
    activations: str
    io: str
    dequantized: bool = False
    float_layers: tuple[str, ...] = ()

    @property
    def needs_ranges(self) -> bool:
        """Whether activations are quantized, with ranges that must be known beforehand."""
        return self.activations != "float32"

    @property
    def quantizes(self) -> bool:
        """Whether the file differs from the one in float32."""
        return self.weights != "float32"

    def weights_of(self, operator: str) -> str:
        """Returns the format of the kernels of one operator, `CONV_2D` say."""
        return "int8" if self.weights == "int4" and operator in _WITHOUT_INT4 else self.weights


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("float32", weights="float32", activations="float32", io="float32"),
        # For a phone's GPU; half the size.
        Recipe("float16", "float16", activations="float32", io="float32", dequantized=True),
        # Activations are quantized while running, by what each image reaches.
        Recipe("dynamic_int8", weights="int8", activations="float32", io="float32"),
        # A small download, computed in float.
        Recipe("weight_int8", "int8", activations="float32", io="float32", dequantized=True),
        Recipe("weight_int4", "int4", activations="float32", io="float32", dequantized=True),
        Recipe("int8", weights="int8", activations="int8", io="int8"),
        Recipe("int8_uint8_io", weights="int8", activations="int8", io="uint8"),
        Recipe("int8_float_io", weights="int8", activations="int8", io="float32"),
        Recipe("int16x8", weights="int8", activations="int16", io="int16"),
        Recipe("int16x8_float_io", weights="int8", activations="int16", io="float32"),
    )
}


def get(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Example:
        >>> get("int8@float:logits").float_layers
        ('logits',)

    Raises:
        ExportError: there is none; the message lists the names.
    """
    kind, mark, listed = name.partition(_FLOAT_LAYERS)
    if kind not in RECIPES:
        raise ExportError(
            f"recipe {name!r} is unknown; choose one of: {', '.join(RECIPES)}; to keep layers in "
            f"float32: int8{_FLOAT_LAYERS}LAYER,LAYER"
        )
    if not mark:
        return RECIPES[kind]
    layers = tuple(layer.strip() for layer in listed.split(","))
    if not all(layers) or len(set(layers)) < len(layers):
        raise ExportError(
            f"recipe {name!r} names an empty layer or one twice; write int8{_FLOAT_LAYERS}a,b"
        )
    if kind == "float32":
        raise ExportError(f"recipe {name!r}: all layers are in float32; take recipe 'float32'")
    return replace(RECIPES[kind], name=name, float_layers=layers)
