import numpy as np
import pytest
import tensorflow as tf

from kd_keras.data.normalization import Normalization, from_data
from kd_keras.data.splits import Split
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)


def test_formula_in_numpy_and_tensorflow():
    normalization = Normalization([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    expected = (IMAGES / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]
    array = normalization.apply(IMAGES)
    tensor = normalization.apply(tf.constant(IMAGES))
    in_graph = tf.function(normalization.apply)(tf.constant(IMAGES, tf.float32))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(array, tensor)
    np.testing.assert_array_equal(array, in_graph)


def test_from_data_is_the_mean_and_std_of_the_pixels():
    normalization = from_data(Split(IMAGES, np.zeros(5, np.int64)))
    scaled = IMAGES.astype(np.float64) / 255
    np.testing.assert_allclose(normalization.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(normalization.std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_one_value_serves_all_channels():
    one, three = Normalization((0.5,), (0.25,)), Normalization((0.5,) * 3, (0.25,) * 3)
    np.testing.assert_array_equal(one.apply(IMAGES), three.apply(IMAGES))
    assert Normalization([0.5], [0.25]) == one


@pytest.mark.parametrize(
    ("mean", "std"),
    [((), ()), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((0.5,), (-1,)), ((float("nan"),), (1,))],
)
def test_unusable_values(mean, std):
    with pytest.raises(InputError, match="normalization"):
        Normalization(mean, std)


def test_wrong_channels_and_constant_data():
    with pytest.raises(InputError, match="has 2 channels, the images 3"):
        Normalization((0.5, 0.5), (1, 1)).apply(IMAGES)
    flat = Split(np.full((2, 4, 4, 1), 9, np.uint8), np.zeros(2, np.int64))
    with pytest.raises(InputError, match="channel 0 of the training images is constant"):
        from_data(flat)
