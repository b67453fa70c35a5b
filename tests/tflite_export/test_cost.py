import numpy as np
import pytest
import tensorflow as tf

import tflite_export

layers = tf.keras.layers


def model_of(*stack, shape=(8, 10, 4)):
    return tf.keras.Sequential([tf.keras.Input(shape), *stack])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: layers.Conv2D(6, 3, padding="same"), 8 * 10 * 6 * 3 * 3 * 4),
        (lambda: layers.Conv2D(6, 3), 6 * 8 * 6 * 3 * 3 * 4),
        (lambda: layers.Conv2D(6, (3, 5), strides=2, padding="same"), 4 * 5 * 6 * 3 * 5 * 4),
        (lambda: layers.Conv2D(6, 3, groups=2, padding="same"), 8 * 10 * 6 * 3 * 3 * 2),
        (lambda: layers.Conv2D(6, 3, dilation_rate=2), 4 * 6 * 6 * 3 * 3 * 4),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 8 * 8 * 3 * 3),
        (lambda: layers.SeparableConv2D(6, 3), 6 * 8 * (4 * 3 * 3 + 4 * 6)),
        (lambda: layers.Conv2DTranspose(6, 3, strides=2), 8 * 10 * 4 * 3 * 3 * 6),
        (lambda: layers.Dense(7), 8 * 10 * 4 * 7),
        (lambda: layers.BatchNormalization(), 0),
        (lambda: layers.MaxPooling2D(), 0),
    ],
)
def test_multiply_adds_of_one_layer(layer, expected):
    assert tflite_export.multiply_adds(model_of(layer())) == expected


def test_multiply_adds_of_attention():
    image = tf.keras.Input((5, 8))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=3)
    model = tf.keras.Model(image, attention(image, image))
    projections = 4 * 5 * 8 * 6
    products = 2 * 2 * 5 * 5 * 3
    assert tflite_export.multiply_adds(model) == projections + products


def test_nested_and_shared_layers_count_each_use():
    image = tf.keras.Input((8, 8, 2))
    block = model_of(layers.Conv2D(2, 1, use_bias=False), shape=(8, 8, 2))
    model = tf.keras.Model(image, layers.Dense(3)(layers.Flatten()(block(block(image)))))
    assert tflite_export.multiply_adds(model) == 2 * 8 * 8 * 2 * 2 + 128 * 3
    assert tflite_export.parameters(model) == 4 + 128 * 3 + 3


def test_two_inputs():
    a, b = tf.keras.Input((3,), name="a"), tf.keras.Input((4,), name="b")
    model = tf.keras.Model([a, b], layers.Add()([layers.Dense(2)(a), layers.Dense(2)(b)]))
    assert tflite_export.multiply_adds(model) == 14


def test_a_loop_is_refused(one_line):
    with pytest.raises(tflite_export.ExportError, match="cannot count") as caught:
        tflite_export.multiply_adds(model_of(layers.SimpleRNN(3), shape=(5, 2)))
    assert "unroll=True" in one_line(caught)


def test_a_model_without_shapes_is_refused(one_line):
    model = tf.keras.Sequential([layers.Dense(2)])
    for given in (model, model_of(layers.Conv2D(1, 1), shape=(None, None, 1))):
        with pytest.raises(tflite_export.ExportError) as caught:
            tflite_export.multiply_adds(given)
        one_line(caught)


def test_parameters_equal_keras_own_count(float_net):
    assert tflite_export.parameters(float_net) == float_net.count_params()


def test_parameters_leave_random_state_out():
    model = model_of(layers.RandomFlip(), layers.Dropout(0.5), layers.Dense(2))
    assert tflite_export.parameters(model) == 10


def test_sparsity_counts_zeros_of_kernels_only():
    model = model_of(layers.Dense(4, name="d"), layers.BatchNormalization(), shape=(5,))
    assert tflite_export.sparsity(model) == 0.0
    kernel = np.ones((5, 4), "float32")
    kernel[:, 0] = 0
    model.get_layer("d").set_weights([kernel, np.zeros(4, "float32")])
    assert tflite_export.sparsity(model) == 0.25
    assert tflite_export.sparsity(model_of(layers.ReLU())) == 0.0


@pytest.mark.tf_keras
def test_tfmot_wrappers_are_seen_through(float_net):
    import tensorflow_model_optimization as tfmot

    def copy():
        model = tf.keras.models.clone_model(float_net)
        model.set_weights(float_net.get_weights())
        return model

    annotated = tfmot.quantization.keras.quantize_annotate_model(copy())
    schemes = tfmot.experimental.combine
    wrapped = {
        "pruned": tfmot.sparsity.keras.prune_low_magnitude(copy()),
        "quantized": tfmot.quantization.keras.quantize_model(copy()),
        "pqat": tfmot.quantization.keras.quantize_apply(
            annotated, schemes.Default8BitPrunePreserveQuantizeScheme()
        ),
        "clustered": tfmot.clustering.keras.cluster_weights(
            copy(),
            number_of_clusters=4,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.LINEAR,
        ),
    }
    for name, model in wrapped.items():
        assert model.count_params() > float_net.count_params(), name
        assert tflite_export.parameters(model) == float_net.count_params(), name
        assert tflite_export.multiply_adds(model) == tflite_export.multiply_adds(float_net), name
        assert tflite_export.sparsity(model) == 0.0, name
