import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.compression import pruning
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras


def convnet():
    tf.keras.utils.set_random_seed(1)
    return models.build("convnet-4-8", classes=3, input_shape=(8, 8, 1))


def kernels_of(model):
    return {name: np.array(model.get_layer(name).get_weights()[0]) for name in NAMES}


NAMES = ("conv1", "conv2", "logits")


def test_one_layer_at_a_time_loses_its_smallest_weights():
    student = convnet()
    original = kernels_of(student)
    before = [w.copy() for w in student.get_weights()]
    seen = []
    sparsities = (0.25, 0.9)

    def evaluate(model):
        seen.append(kernels_of(model))
        return len(seen)

    scores = pruning.sensitivity(student, evaluate, sparsities)
    assert scores == {
        "conv1": {0.25: 1.0, 0.9: 2.0},
        "conv2": {0.25: 3.0, 0.9: 4.0},
        "logits": {0.25: 5.0, 0.9: 6.0},
    }
    assert type(scores["conv1"][0.25]) is float
    for number, found in enumerate(seen):
        name, share = NAMES[number // 2], sparsities[number % 2]
        for other in set(NAMES) - {name}:
            np.testing.assert_array_equal(found[other], original[other])
        magnitudes = np.abs(original[name])
        left = np.flatnonzero(found[name])
        assert left.size == round(magnitudes.size * (1 - share))
        np.testing.assert_array_equal(found[name].ravel()[left], original[name].ravel()[left])
        rest = np.delete(magnitudes.ravel(), left)
        assert rest.max() <= magnitudes.ravel()[left].min()
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))


def test_skipped_layers_are_left_out():
    assert set(pruning.sensitivity(convnet(), lambda _: 0, skip=("conv1",))) == {"conv2", "logits"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsities": (0.5, 1.0)}, r"sparsity 1.0 is not possible; give a share of zeros in \[0"),
        ({"skip": ("conv9",)}, r"'conv9' in skip is not in model .* prune: conv1, conv2, logits$"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        pruning.sensitivity(convnet(), lambda _: 0, **options)
