"""From a source of images to a `Dataset`: which examples go where, then each decoded once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kd_keras.data import storage
from kd_keras.data.selection import stratified
from kd_keras.data.splits import Dataset, Split
from kd_keras.errors import InputError

TEST_FRACTION = 0.2
TEST_SEED = 0  # a constant: whatever the run's seed, results are compared on the same test set


@dataclass(frozen=True)
class Source:
    """Labels that are known, and images that are decoded on demand.

    Attributes:
        name: of the data set.
        class_names: in the order of the labels.
        image_shape: height, width and channels that `read` gives.
        labels: int64 (n,) for "train" and, if the source has them, "validation" and "test".
        read: ``(split, rows) -> images``: the uint8 images of those rows, ascending, in order.
        notes: choices made, to be stated in a report.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: Mapping[str, np.ndarray]
    read: Callable[[str, np.ndarray], Iterable[np.ndarray]]
    notes: tuple[str, ...] = ()


def assemble(
    source: Source,
    *,
    validation: float,
    limit: int | None,
    seed: int,
    directory: str | os.PathLike | None = None,
) -> Dataset:
    """Divides a source's examples into three splits and decodes those that are needed.

    A test split that the source lacks is a fifth of "train", the same for every seed; a validation
    split it lacks is the given fraction of what is left. Both, and the limit, are stratified.

    Args:
        source: the labels and the reader.
        validation: the fraction of the training set that becomes the validation split.
        limit: at most so many examples in each split; None for all.
        seed: of the validation split and of the limit.
        directory: decode into files of this folder and not into memory.

    Returns:
        The data set; memory-mapped if a directory is given.

    Raises:
        InputError: if there are too few examples to divide, or the folder cannot be written.
    """
    plan = _plan(source, validation, limit, seed)
    folder = None if directory is None else Path(directory)
    if folder is not None:
        storage.begin(folder)
    images = {
        target: _allocate(folder, target, (len(rows), *source.image_shape))
        for target, (_, rows) in plan.items()
    }
    _decode(source, plan, images)
    splits = {
        target: Split(images[target], source.labels[origin][rows])
        for target, (origin, rows) in plan.items()
    }
    dataset = Dataset(source.name, source.class_names, notes=source.notes, **splits)
    return dataset if folder is None else storage.publish(dataset, folder)


def part(
    source: Source,
    split: str,
    choose: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    validation: float,
    limit: int | None,
    seed: int,
) -> Split:
    """Decodes examples of one split alone.

    Args:
        source: the labels and the reader.
        split: "train", "validation" or "test", as `assemble` makes it.
        choose: makes the places of the examples that are wanted of the labels of the split; all are
            without it.
        validation: see `assemble`, as the others.
        limit: likewise.
        seed: likewise.

    Raises:
        InputError: if there are too few examples to divide.
    """
    origin, rows = _plan(source, validation, limit, seed)[split]
    labels = source.labels[origin][rows]
    if choose is not None:
        places = choose(labels)
        rows, labels = rows[places], labels[places]
    images = np.empty((len(rows), *source.image_shape), np.uint8)
    _decode(source, {split: (origin, rows)}, {split: images})
    return Split(images, labels)


def _plan(
    source: Source, validation: float, limit: int | None, seed: int
) -> dict[str, tuple[str, np.ndarray]]:
    """For each split: the source's split that it comes from, and the rows."""
    plan = {name: (name, np.arange(len(labels))) for name, labels in source.labels.items()}
    for target, fraction, target_seed in (
        ("test", TEST_FRACTION, TEST_SEED),
        ("validation", validation, seed),
    ):
        if target in plan:
            continue
        rows = plan["train"][1]
        count = max(1, round(fraction * len(rows)))
        if count >= len(rows):
            raise InputError(
                f"{source.name!r} has {len(rows)} examples left to train on, of which {target} "
                f"takes {count}; give more examples or a smaller fraction"
            )
        taken = stratified(source.labels["train"][rows], count, target_seed)
        plan[target] = ("train", rows[taken])
        plan["train"] = ("train", np.delete(rows, taken))
    if limit is None:
        return plan
    return {
        target: (origin, rows[stratified(source.labels[origin][rows], limit, seed)])
        for target, (origin, rows) in plan.items()
    }


def _allocate(folder: Path | None, target: str, shape: tuple[int, ...]) -> np.ndarray:
    if folder is None:
        return np.empty(shape, np.uint8)
    return storage.create_images(folder, target, shape)


def _decode(
    source: Source, plan: dict[str, tuple[str, np.ndarray]], images: dict[str, np.ndarray]
) -> None:
    """Reads each of the source's splits once, however many of ours come from it."""
    total = sum(len(rows) for _, rows in plan.values())
    with tqdm(total=total, desc=source.name, unit="image", delay=2, disable=None) as bar:
        for origin in source.labels:
            targets = [target for target, (split, _) in plan.items() if split == origin]
            if not targets:
                continue
            rows = np.concatenate([plan[target][1] for target in targets])
            places = [(target, place) for target in targets for place in range(len(images[target]))]
            order = np.argsort(rows)
            wanted = zip(order, source.read(origin, rows[order]), strict=True)
            for index, image in wanted:
                target, place = places[index]
                images[target][place] = image
                bar.update()
