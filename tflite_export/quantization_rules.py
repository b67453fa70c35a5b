"""Says a recipe in the words of litert-quantizer."""

import re
from collections.abc import Iterable

from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import (
    ComputePrecision,
    OpQuantizationConfig,
    QuantGranularity,
    TensorDataType,
    TensorQuantizationConfig,
    TFLOperationName,
)
from litert_quantizer.recipe_manager import RecipeManager

from tflite_export.file_facts import Operator
from tflite_export.recipes import Recipe

_ANY = TFLOperationName.ALL_SUPPORTED
_BORDERS = (TFLOperationName.INPUT, TFLOperationName.OUTPUT)
_BITS = {"int4": 4, "int8": 8, "int16": 16}
#: Operators that the library calls otherwise than the schema.
_OTHER_NAMES = {"TRANSPOSE_CONV": TFLOperationName.CONV_2D_TRANSPOSE}


def rules_of(recipe: Recipe, floats: Iterable[Operator] = ()) -> RecipeManager:
    """Returns the library's rules for a recipe; of several that apply the last one counts.

    Args:
        recipe: one that quantizes.
        floats: operators that stay as they are.
    """
    rules = RecipeManager()
    if recipe.needs_ranges:
        rules.add_static_config(".*", _ANY, _BITS[recipe.activations], _BITS[recipe.weights])
        _add_borders(rules, recipe)
    elif recipe.weights == "float16":
        rules.add_weight_only_config(".*", _ANY, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif recipe.dequantized:
        # The second rule passes over operators that it has no form for; those keep the first.
        rules.add_weight_only_config(".*", _ANY, 8)
        if recipe.weights == "int4":
            # It clips outliers, where steps are so few; see ARCHITECTURE.md.
            rules.add_weight_only_config(".+", _ANY, 4, algorithm_key=AlgorithmName.OCTAV)
    else:
        rules.add_dynamic_config(".*", _ANY, _BITS[recipe.weights])
    for operator in floats:
        _leave_out(rules, operator)
    return rules


def _add_borders(rules: RecipeManager, recipe: Recipe) -> None:
    if recipe.io == "float32":
        for border in _BORDERS:
            rules.add_quantization_config(".*", border, algorithm_key=AlgorithmName.NO_QUANTIZE)
    if recipe.io == "uint8":
        config = OpQuantizationConfig(
            activation_tensor_config=TensorQuantizationConfig(
                num_bits=8, symmetric=False, dtype=TensorDataType.UINT
            ),
            weight_tensor_config=TensorQuantizationConfig(
                num_bits=8, granularity=QuantGranularity.CHANNELWISE
            ),
            compute_precision=ComputePrecision.INTEGER,
        )
        for border in _BORDERS:
            rules.add_quantization_config(".*", border, config)


def _leave_out(rules: RecipeManager, operator: Operator) -> None:
    names = {known.value: known for known in TFLOperationName} | _OTHER_NAMES
    if operator.name in names:  # the library leaves all others as they are
        scope = f"^{re.escape(';'.join(operator.tensors))};$"
        rules.add_quantization_config(
            scope, names[operator.name], algorithm_key=AlgorithmName.NO_QUANTIZE
        )
