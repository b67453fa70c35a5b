"""Discriminators by a short spec: what they are made of, and that each can be played against."""

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import assert_differ, convolutional, images, net, one_line, values

import kd_keras as kd
from kd_keras import discriminators
from kd_keras.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::kd_keras.callbacks.DiscriminatorWarning")

keras: Any = tf.keras


def weights_of(sizes: list[int], positions: int = 1) -> int:
    """Kernels and biases of layers of these sizes, each kernel over so many positions."""
    pairs = itertools.pairwise(sizes)
    return sum(positions * one * other + other for one, other in pairs)


class TestBuild:
    @pytest.mark.parametrize("spec", [s for s in discriminators.PUBLISHED if "conv" not in s])
    def test_fully_connected_weights(self, spec: str) -> None:
        built = discriminators.build(spec, (7,))
        assert built.count_params() == weights_of([7, *map(int, spec.split("-")), 1])
        assert built.output_shape == (None, 1)

    def test_convolutional_weights(self) -> None:
        built = discriminators.build("conv128-conv256", (8, 8, 3))
        assert built.count_params() == weights_of([3, 128, 256], positions=9) + weights_of([256, 1])

    def test_convolutions_halve_the_map_and_are_averaged_before_dense_layers(self) -> None:
        built = discriminators.build("conv4-conv5-6", (None, None, 3))
        kinds = [type(layer).__name__ for layer in built.layers]
        assert kinds[1:] == ["Conv2D", "Conv2D", "GlobalAveragePooling2D", "Dense", "Dense"]
        for size in (5, 8):  # any size, since the map is averaged
            x = np.ones((2, size, size, 3), "float32")
            assert built.layers[1](x).shape[1:3] == (-(-size // 2),) * 2
            assert built(x).shape == (2, 1)

    def test_the_ten_of_the_paper(self) -> None:
        assert len(set(discriminators.PUBLISHED)) == 10
        assert discriminators.PUBLISHED[0] == "128-256-128"

    def test_values(self) -> None:
        built = discriminators.build("6", (4,), outputs=5)
        kernel, bias, last, last_bias = values(built)
        x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        expected = np.maximum(x @ kernel + bias, 0) @ last + last_bias
        np.testing.assert_allclose(built(x), expected, atol=1e-5)

    def test_dropout_follows_every_hidden_layer(self) -> None:
        built = discriminators.build("6-6", (4,), dropout=0.3)
        rates = [layer.rate for layer in built.layers if hasattr(layer, "rate")]
        assert rates == [0.3, 0.3]
        kinds = [type(layer).__name__ for layer in built.layers]
        assert kinds[1:] == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]

    def test_float32_under_mixed_precision(self) -> None:
        keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            built = discriminators.build("conv4-3", (6, 6, 2), dropout=0.1)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        assert built(np.ones((1, 6, 6, 2), "float32")).dtype == tf.float32

    def test_by_units(self) -> None:
        assert kd.fully_connected(7).count_params() == weights_of([7, 128, 256, 128, 1])
        assert kd.fully_connected(7, units=(5,)).count_params() == weights_of([7, 5, 1])


@pytest.mark.parametrize("spec", discriminators.PUBLISHED)
def test_each_of_the_ten_trains(spec: str) -> None:
    layer = "maps" if spec.startswith("conv") else "features"
    model = kd.AdversarialDistiller(
        convolutional(3, seed=2),  # narrower than the teacher: maps are projected too
        convolutional(4),
        discriminator=spec,
        teacher_layer=layer,
        student_layer=layer,
    )
    assert model.discriminator.input_shape == ((None, 4, 4, 4) if layer == "maps" else (None, 4))
    parts = [model.discriminator, model.student, model.projection]
    before = [values(part) for part in parts]
    model.compile("sgd", discriminator_optimizer="sgd", run_eagerly=True)
    history = model.fit(images(16), batch_size=16, verbose=0).history
    assert np.isfinite([value for term in history.values() for value in term]).all()
    for part, old in zip(parts, before, strict=True):
        assert_differ(values(part), old)


class TestBadInput:
    @pytest.mark.parametrize(
        "spec", ["", "128-", "conv", "64-conv8", "128 -64", "0-5", "fc128", "128-256,128"]
    )
    def test_malformed(self, spec: str) -> None:
        with pytest.raises(InputError) as error:
            kd.AdversarialDistiller(net(4), discriminator=spec)
        one_line(error, repr(spec), "'128-256-128'", "'conv128-conv256-64'")

    @pytest.mark.parametrize("value", [128, ["128", "64"]])
    def test_neither_a_spec_nor_a_model(self, value: Any) -> None:
        with pytest.raises(InputError) as error:
            kd.AdversarialDistiller(net(4), discriminator=value)
        one_line(error, repr(value), "'128-256-128'")

    def test_a_discriminator_for_maps_on_vectors(self) -> None:
        with pytest.raises(InputError) as error:
            kd.AdversarialDistiller(net(4), net(4), discriminator="conv128-conv256")
        one_line(error, "'conv128-conv256'", "feature maps", "(4,)", "'128-256-128'")

    def test_an_own_discriminator_for_maps_on_vectors(self) -> None:
        maps = discriminators.build("conv4", (4, 4, 4))
        with pytest.raises(InputError) as error:
            kd.AdversarialDistiller(net(4), net(4), discriminator=maps)
        one_line(error, "(None, 4, 4, 4)", "'features'", "(None, 4)")

    def test_a_discriminator_for_vectors_on_maps(self) -> None:
        with pytest.raises(InputError) as error:
            discriminators.build("128", (4, 4, 8))
        one_line(error, "'128'", "vectors", "(4, 4, 8)", "'conv128-conv256'")
