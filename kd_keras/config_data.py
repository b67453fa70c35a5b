"""The images of a config for `kd-export` and `kd-verify`, which find this by an entry point."""

import numpy as np

from kd_keras import config_flag
from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import dataset
from tflite_export.config_source import Choose, LabelledImages
from tflite_export.errors import ExportError
from tflite_export.preprocessing import Preprocessing


def read(spec: str, split: str, choose: Choose | None = None) -> LabelledImages:
    """Read images of a config's data set, normalized as a training feeds them.

    No other images are decoded, but for all training images where the config leaves it to them what
    the mean and the standard deviation are.

    Args:
        spec: `FILE` or `FILE:ARGUMENT`, as `--config` takes it.
        split: "train", what the student sees of it, or "test".
        choose: See `tflite_export.config_source.read_config`.

    Raises:
        ExportError: If the config or its data cannot be read.
    """
    try:
        config = configs.complete(config_flag.load(spec))
        source = dataset.opened(config)

        def seen(labels: np.ndarray) -> np.ndarray:
            """Of what the student is trained on; a test split is whole."""
            rows = None
            if split == "train":
                rows = dataset.transfer_rows(config, labels, len(source.class_names))
            rows = np.arange(len(labels)) if rows is None else rows
            return rows if choose is None else rows[choose(labels[rows])]

        part = dataset.part(config, source, split, seen)
        normalization = dataset.normalization_of(
            config, lambda: dataset.part(config, source, "train")
        )
        return LabelledImages(
            data=source.name,
            split=split,
            images=normalization.apply(part.images),
            labels=part.labels,
            class_names=source.class_names,
            preprocessing=Preprocessing((0.0, 1.0), normalization.mean, normalization.std),
        )
    except InputError as error:
        raise ExportError(str(error)) from error
