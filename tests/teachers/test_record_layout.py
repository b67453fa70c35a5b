"""What is kept of a teacher's outputs, and how much of it is lost."""

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line

from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.record_layout import RecordLayout

pytestmark = pytest.mark.any_keras

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, (6, 8)).astype("float32")
LAYERS = {"b": RNG.normal(size=(6, 2, 3)).astype("float32"), "a": LOGITS[:, :4]}


def there_and_back(outputs: Outputs, dtype: str, top_k: int | None = None) -> Outputs:
    layout = RecordLayout.of(outputs, dtype, top_k)
    assert RecordLayout.from_json(layout.to_json()) == layout
    records = layout.encode(outputs)
    assert records.dtype.itemsize * len(records) == len(records.tobytes())
    fields = {name: tf.constant(records[name]) for name in records.dtype.names}
    decoded = layout.decode(fields, list(outputs.layers))
    specs = layout.specs(list(outputs.layers))
    pairs = [(decoded.logits, specs.logits)]
    pairs += [(decoded.layers[name], specs.layers[name]) for name in outputs.layers]
    assert all(spec.is_compatible_with(value) for value, spec in pairs)
    return decoded


def test_float32_is_exact() -> None:
    decoded = there_and_back(Outputs(LOGITS, LAYERS), "float32")
    np.testing.assert_array_equal(decoded.logits, LOGITS)
    for name, value in LAYERS.items():
        np.testing.assert_array_equal(decoded.layers[name], value)


def test_float16_errs_by_half_a_unit_in_its_last_place() -> None:
    decoded = there_and_back(Outputs(LOGITS, {}), "float16")
    error = np.abs(decoded.logits - LOGITS)
    assert error.max() > 0
    assert (error <= np.abs(LOGITS) * 2.0**-11).all()


@pytest.mark.parametrize(("k", "temperature"), [*itertools.product([1, 3, 7], [1.0, 4.0])])
def test_top_k_keeps_the_most_probable_and_spreads_the_rest(k: int, temperature: float) -> None:
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.empty_like(p)
    for row, probabilities in enumerate(p):
        kept = np.argsort(probabilities)[-k:]
        expected[row] = (1 - probabilities[kept].sum()) / (8 - k)
        expected[row, kept] = probabilities[kept]
    expected = expected ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    decoded = there_and_back(Outputs(LOGITS, {}), "float32", k)
    found = tf.exp(decoded.log_probabilities(temperature))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_teacher_that_is_certain_keeps_a_rest() -> None:
    """`1 - p` of the most probable class would be 0 in float32, and its logarithm not finite."""
    logits = np.array([[40.0, 0.0, 0.0, 0.0]], "float32")
    decoded = there_and_back(Outputs(logits, {}), "float16", 1)
    np.testing.assert_allclose(decoded.logits, [[0, -40, -40, -40]], atol=0.02)


@pytest.mark.parametrize("top_k", [None, 2])
def test_of_an_ensemble_each_member_is_kept(top_k: int | None) -> None:
    members = ((LOGITS, 0.25), (LOGITS[::-1].copy(), 0.75))
    mean = sum(weight * logits for logits, weight in members)
    decoded = there_and_back(Outputs(mean, {}, members), "float32", top_k)
    assert [weight for _, weight in decoded.members] == [0.25, 0.75]
    if top_k is None:
        np.testing.assert_array_equal(decoded.members[1][0], LOGITS[::-1])
        np.testing.assert_allclose(decoded.logits, mean, atol=1e-6)


def outputs(**kwargs: Any) -> Outputs:
    return Outputs(**{"logits": LOGITS, "layers": {}, **kwargs})


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: RecordLayout(8, "int8"), ("'int8'", "float32, float16")),
        (lambda: RecordLayout(8, top_k=8), ("top_k is 8", "from 1 to 7")),
        (lambda: RecordLayout(8, top_k=0), ("top_k is 0",)),
        (lambda: RecordLayout(8).require(["c"]), ("layer 'c'", "layers=('c', ...)")),
        (lambda: RecordLayout(8).encode(outputs(logits=LOGITS * np.nan)), ("not finite",)),
        (lambda: RecordLayout(8).encode(outputs(logits=LOGITS * 1e5)), ("float16", "float32")),
        (lambda: RecordLayout(8).encode(outputs(logits=LOGITS[:, :4])), ("(8,) to (4,)",)),
    ],
)
def test_bad_input(act: Any, words: tuple) -> None:
    with pytest.raises(InputError) as error:
        act()
    one_line(error, *words)
