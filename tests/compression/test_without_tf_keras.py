import os
import pathlib

import numpy as np
import pytest

from kd_keras import compression, models
from kd_keras.compression import clustering, pruning, quantization
from kd_keras.errors import InputError

IS_KERAS_3 = os.environ.get("TF_USE_LEGACY_KERAS") != "1"


@pytest.mark.skipif(not IS_KERAS_3, reason="about Keras 3")
def test_keras_3_is_refused_in_one_line():
    student = models.build("convnet-4-4", classes=3, input_shape=(8, 8, 1))
    images = np.zeros((4, 8, 8, 1), "float32")
    for use in (
        lambda: pruning.apply(student, sparsity=0.5, begin_step=0, end_step=9),
        lambda: pruning.sensitivity(student, lambda _: 0),
        lambda: clustering.apply(student, clusters=4),
        lambda: quantization.apply(student, calibration=images),
        lambda: quantization.load("student.h5"),
    ):
        with pytest.raises(InputError, match=r"set TF_USE_LEGACY_KERAS=1 .* before") as error:
            use()
        assert "\n" not in str(error.value)
    assert os.environ.get("TF_USE_LEGACY_KERAS") != "1"  # tfmot's import would set it


def test_every_technique_is_exported():
    folder = pathlib.Path(compression.__file__).parent
    techniques = {
        path.stem
        for path in folder.glob("*.py")
        if "def apply(" in path.read_text() and "def finish(" in path.read_text()
    }
    assert techniques <= set(compression.__all__)
