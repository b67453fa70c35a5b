"""Training in bfloat16: the computation changes, and nothing that a run keeps."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.pipeline import precision

NATIVE = not precision.warning("bfloat16")


def product(a: tf.Tensor, b: tf.Tensor) -> np.ndarray:
    return tf.function(tf.matmul)(a, b).numpy()


@pytest.mark.skipif(not NATIVE, reason="this CPU computes no bfloat16")
def test_products_are_in_bfloat16_for_as_long_as_the_context_lasts() -> None:
    a, b = (tf.random.stateless_normal((64, 64), (seed, 0)) for seed in (1, 2))
    exact = a.numpy().astype(np.float64) @ b.numpy().astype(np.float64)
    rounded = [tf.cast(tf.cast(x, tf.bfloat16), tf.float64).numpy() for x in (a, b)]

    before = product(a, b)
    with precision.computing_in("bfloat16"):
        inside = product(a, b)
    after = product(a, b)

    assert inside.dtype == np.float32
    np.testing.assert_allclose(before, exact, atol=1e-4)
    np.testing.assert_array_equal(after, before)
    # The product of the rounded factors, and its result rounded once more: 2^-9 of it.
    np.testing.assert_allclose(inside, rounded[0] @ rounded[1], rtol=2**-8, atol=1e-3)
    assert np.abs(inside - exact).max() > 1e-3


@pytest.mark.skipif(not NATIVE, reason="this CPU computes no bfloat16")
def test_a_training_repeats_itself_and_ends_near_that_in_float32() -> None:
    float32, first, second = map(trained, ("float32", "bfloat16", "bfloat16"))
    for one, again, exact in zip(first, second, float32, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, again)
        np.testing.assert_allclose(one, exact, atol=0.02)
    assert any((one != exact).any() for one, exact in zip(first, float32, strict=True))


def trained(kind: str) -> list[np.ndarray]:
    """Weights of a small convolutional net after some steps of SGD."""
    tf.keras.utils.set_random_seed(0)
    model = kd.models.build("convnet-8", classes=10, input_shape=(8, 8, 1))
    x = tf.random.stateless_normal((64, 8, 8, 1), (4, 0))
    y = tf.random.stateless_uniform((64,), (5, 0), maxval=10, dtype=tf.int32)
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with precision.computing_in(kind):
        model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
    return model.get_weights()


def test_float32_changes_nothing() -> None:
    a = tf.random.stateless_normal((32, 32), (3, 0))
    with precision.computing_in("float32"):
        inside = product(a, a)
    np.testing.assert_array_equal(inside, product(a, a))


def test_a_cpu_without_it_is_told(tmp_path: pathlib.Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("flags : sse2 avx2\n")
    assert "this CPU has no bfloat16" in precision.warning("bfloat16", str(listing))
    listing.write_text("flags : sse2 avx2 avx512_bf16\n")
    assert not precision.warning("bfloat16", str(listing))
    assert not precision.warning("float32", str(listing))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="'float16'; it must be one of: float32, bfloat16"):
        precision.check("float16")
