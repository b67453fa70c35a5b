"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (test part), UCI, 1998.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kd_keras.data.source import Source


def source() -> Source:
    """The digits, with pixels 0..16 scaled to 0..255; 1,438 to train on and 359 to test on.

    Returns:
        The source; images are (8, 8, 1).
    """
    from sklearn.datasets import load_digits  # takes a second: only who wants digits waits for it

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]

    def read(split: str, rows: np.ndarray) -> Iterable[np.ndarray]:
        del split  # there is one
        return images[rows]

    return Source(
        name="digits",
        class_names=tuple(str(name) for name in bunch.target_names),
        image_shape=(8, 8, 1),
        labels={"train": bunch.target.astype(np.int64)},
        read=read,
    )
