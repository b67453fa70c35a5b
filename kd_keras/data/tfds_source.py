"""Any image-classification set of TensorFlow Datasets."""

from __future__ import annotations

import difflib
import os
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_keras.data.image_size import fit
from kd_keras.data.source import Source
from kd_keras.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_RECORDS_AT_ONCE = 256  # encoded; photographs have some 100 kB each
_IMAGES_AHEAD = 64


def source(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: tuple[int, int] | None = None,
) -> Source:
    """Opens a set, preparing (downloading) it first if that has not been done.

    The set's own validation and test splits are used. One whose labels are not published, as
    ImageNet's test split, does not count; without a labelled test split the validation split is
    the test split, and `Source.notes` says so.

    Args:
        name: as TensorFlow Datasets knows it, for example ``"cifar10"`` or ``"mnist:3.0.1"``.
        data_dir: where prepared sets lie. Default: ``TFDS_DATA_DIR``, else
            ``~/tensorflow_datasets``.
        image_size: height and width of the images; the largest centred piece of that aspect ratio
            is resized. Needed where images differ in size.

    Returns:
        The source.

    Raises:
        InputError: if there is no such set, it cannot be prepared, it has no image and label, its
            images differ in size, or its files are damaged.
    """
    builder = _builder(name, data_dir)
    features = _image_and_label(name, builder)
    height, width, channels = features["image"].shape
    if image_size is None and None in (height, width):
        raise InputError(f"the images of {name!r} differ in size; give image_size, for example 224")
    _prepare(name, builder)
    if "train" not in builder.info.splits:
        raise InputError(
            f"{name!r} has no train split; it has: {', '.join(sorted(builder.info.splits))}"
        )
    labels, notes = _labels(name, builder)

    # Which of the builder's splits each of ours is: the test split may be its "validation".
    origin = {split: split for split in labels}
    if "test" not in labels and "validation" in labels:
        labels["test"], origin["test"] = labels.pop("validation"), "validation"
        notes += (f"The validation split of {name} is used as the test split.",)
    resize = image_size if image_size != (height, width) else None

    def read(split: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        return _images(name, builder, origin[split], len(labels[split]), rows, resize)

    return Source(
        name=name,
        class_names=tuple(features["label"].names),
        image_shape=(*(image_size or (height, width)), channels),
        labels=labels,
        read=read,
        notes=notes,
    )


def _unknown(name: str, tfds: Any) -> InputError:
    known = ["digits", "folder", *tfds.list_builders(with_community_datasets=False)]
    close = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=5)
    return InputError(
        f"data set {name!r} does not exist; "
        + (f"close matches: {', '.join(close)}; " if close else "")
        + "there are: digits, folder, and those of https://www.tensorflow.org/datasets/catalog"
    )


def _builder(name: str, data_dir: str | os.PathLike | None) -> Any:
    import tensorflow_datasets as tfds  # takes a second: only who wants a set of it waits for it

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise _unknown(name, tfds) from error
    except (ValueError, AssertionError, KeyError) as error:  # a version or configuration of it
        if name.split("/")[0].split(":")[0] not in tfds.list_builders():
            raise _unknown(name, tfds) from error
        raise InputError(f"data set {name!r} cannot be opened: {_first_line(error)}") from error


def _image_and_label(name: str, builder: Any) -> dict[str, Any]:
    features = builder.info.features
    entries = dict(features.items()) if hasattr(features, "items") else {}
    kinds = {key: type(feature).__name__ for key, feature in entries.items()}
    if kinds.get("image") != "Image" or kinds.get("label") != "ClassLabel":
        has = ", ".join(f"{key} ({kind})" for key, kind in kinds.items()) or "no named features"
        raise InputError(
            f"data set {name!r} is not for image classification; it needs the features image "
            f"(Image) and label (ClassLabel), and has: {has}"
        )
    if np.dtype(entries["image"].np_dtype) != np.uint8:
        raise InputError(
            f"the images of {name!r} are {entries['image'].np_dtype.__name__}; only uint8 is read"
        )
    return entries


def _prepare(name: str, builder: Any) -> None:
    if builder.is_prepared():
        return
    try:
        _require_hosts(builder)
        builder.download_and_prepare()
    # Each set downloads in its own way and fails in its own way; the user gets one line for all.
    except Exception as error:
        folder = builder.data_path.parents[2 if builder.builder_config else 1]
        raise InputError(
            f"data set {name!r} is not prepared in data_dir {str(folder)!r} and preparing it "
            f"failed ({_first_line(error)}); on a machine with internet access run "
            f"`tfds build {name} --data_dir={folder}`, or give the data_dir that holds it"
        ) from error


def _require_hosts(builder: Any) -> None:
    """Looks up where a download would come from.

    Without this an offline machine waits for minutes: the downloader tries ten times, ever slower.

    Raises:
        OSError: if a host's name has no address.
    """
    if urllib.request.getproxies():
        return  # the proxy looks names up
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos}
    for host in sorted(filter(None, hosts)):
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise OSError(f"no connection to {host}: {error.strerror}") from error


def _labels(name: str, builder: Any) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The labels of every split that has them, in order, without decoding an image."""
    import tensorflow as tf

    labels: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    entry = {"label": tf.io.FixedLenFeature([], tf.int64)}
    for split in ("train", "validation", "test"):
        if split not in builder.info.splits:
            continue
        records = _records(builder, split)
        read = records.map(lambda batch: tf.io.parse_example(batch, entry)["label"])
        found = np.concatenate([np.empty(0, np.int64), *_checked(name, builder, read)])
        expected = builder.info.splits[split].num_examples
        if len(found) != expected:
            raise _damaged(name, builder, f"{split} has {len(found)} examples, not {expected}")
        if (found == -1).all():  # how TensorFlow Datasets writes "not published"
            notes += (f"The {split} split of {name} has no labels and is not used.",)
        else:
            labels[split] = found
    return labels, notes


def _images(
    name: str,
    builder: Any,
    split: str,
    examples: int,
    rows: np.ndarray,
    resize: tuple[int, int] | None,
) -> Iterator[np.ndarray]:
    """Yields the chosen images in order; the others are passed over without decoding."""
    import tensorflow as tf

    feature = builder.info.features["image"]
    entry = {"image": tf.io.FixedLenFeature([], tf.string)}
    chosen = np.zeros(-(-examples // _RECORDS_AT_ONCE) * _RECORDS_AT_ONCE, bool)
    chosen[rows] = True
    wanted = tf.constant(chosen.reshape(-1, _RECORDS_AT_ONCE))

    def choose(number: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(batch, wanted[number][: tf.size(batch)])

    def decode(record: tf.Tensor) -> tf.Tensor:
        image = feature.decode_example(tf.io.parse_single_example(record, entry)["image"])
        return image if resize is None else fit(image, resize)

    images = _records(builder, split).enumerate().map(choose).unbatch()
    images = images.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _checked(name, builder, images.prefetch(_IMAGES_AHEAD))


def _records(builder: Any, split: str) -> tf.data.Dataset:
    """Batches of serialized examples, file by file.

    `builder.as_dataset` parses records one at a time, which takes longer than decoding small images
    does; batches can be parsed, or passed over, at once.
    """
    import tensorflow as tf
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[builder.info.file_format]
    if not adapter.SUPPORTS_TF_DATA:
        raise InputError(
            f"data set {builder.name!r} in {str(builder.data_path)!r} has the file format "
            f"{builder.info.file_format.value}, which cannot be streamed; prepare it with "
            "`tfds build --file_format=tfrecord`"
        )
    files = [os.fspath(path) for path in builder.info.splits[split].filepaths]
    records = tf.data.Dataset.from_tensor_slices(files).flat_map(adapter.make_tf_data)
    return records.batch(_RECORDS_AT_ONCE).prefetch(tf.data.AUTOTUNE)


def _checked(name: str, builder: Any, values: tf.data.Dataset) -> Iterator[np.ndarray]:
    """Yields arrays; a damaged file becomes an error that names the folder."""
    import tensorflow as tf

    try:
        yield from values.as_numpy_iterator()
    except tf.errors.OpError as error:
        raise _damaged(name, builder, _first_line(error)) from error


def _damaged(name: str, builder: Any, reason: str) -> InputError:
    return InputError(
        f"the files of {name!r} in {str(builder.data_path)!r} cannot be read ({reason}); delete "
        "that folder and prepare the set again"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
