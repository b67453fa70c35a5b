import os

import pytest
from nets import one_line

from kd_keras import models
from kd_keras.compression import batch_norm_folding, dead_channels, filter_pruning, low_rank
from kd_keras.errors import InputError

IS_KERAS_3 = os.environ.get("TF_USE_LEGACY_KERAS") != "1"


@pytest.mark.skipif(not IS_KERAS_3, reason="about Keras 3")
def test_keras_3_is_refused_in_one_line():
    student = models.build("convnet-4-4", classes=3, input_shape=(8, 8, 1))
    for use in (
        lambda: filter_pruning.apply(student, keep=0.5),
        lambda: filter_pruning.plan(student, keep=0.5),
        lambda: batch_norm_folding.apply(student),
        lambda: batch_norm_folding.unfolded(student),
        lambda: dead_channels.apply(student),
        lambda: low_rank.apply(student, error=0.5),
    ):
        with pytest.raises(InputError) as error:
            use()
        one_line(error, "set TF_USE_LEGACY_KERAS=1", "before")
