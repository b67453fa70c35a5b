"""Makes the tables of docs/scale.md: sizes of a cache, errors of a loss from it, and ImageNet's.

    TF_USE_LEGACY_KERAS=1 python docs/scale.py --teachers=FOLDER [--data_dir=DIR]

It needs CIFAR-10 as TensorFlow Datasets prepares it (`TFDS_DATA_DIR` or --data_dir) and, in
--teachers, cifar10_resnet56.npz and cifar10_resnet44.npz; so `make tables` leaves it out. The text
between the tables is written by hand.
"""

import argparse
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

import kd_keras as kd
from kd_keras.taps import Outputs
from kd_keras.teachers import cache_plan
from kd_keras.teachers.record_layout import RecordLayout

PAGE = pathlib.Path(__file__).with_suffix(".md")
EXAMPLES, TEMPERATURES = 1000, (1.0, 4.0)
NORMALIZATION = kd.data.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FRAME, DISK_PAGE = 16, 4096  # bytes around a record of TFRecord; bytes that memory is mapped by
IMAGENET_EXAMPLES, IMAGENET_PIXELS = 1_281_167, 224 * 224 * 3
Table = list[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a teacher says of some examples, and what students say at two points of a training.

    Attributes:
        name: The heading.
        teacher: Logits, `(examples, classes)`.
        students: The logits of a student that begins and of one that ends.
    """

    name: str
    teacher: np.ndarray
    students: tuple[np.ndarray, np.ndarray]

    @property
    def classes(self) -> int:
        """How many."""
        return self.teacher.shape[-1]


def main() -> None:
    """Compute the tables and put them between their markers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", required=True)
    parser.add_argument("--data_dir", default=None)
    arguments = parser.parse_args()
    settings = [cifar("test", arguments), cifar("train", arguments), synthetic()]
    blocks = {
        "sizes": markdown(sizes()),
        "errors": "\n\n".join(error_section(setting) for setting in settings),
        "imagenet": markdown(imagenet_sizes()),
        "reading": markdown(imagenet_reading()),
    }
    text = PAGE.read_text()
    for name, block in blocks.items():
        text = replaced(text, name, block)
    PAGE.write_text(text)


def replaced(text: str, name: str, block: str) -> str:
    """The page with a block anew."""
    begin, end = f"<!-- {name}: made by docs/scale.py -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{PAGE} must hold {begin!r} and {end!r} once")
    return pattern.sub(lambda _: f"{begin}\n\n{block}\n\n{end}", text)


def layouts(classes: int) -> dict[str, RecordLayout]:
    """The ways to store the outputs for so many classes."""
    whole = {dtype: RecordLayout(classes, dtype) for dtype in ("float32", "float16")}
    top = [k for k in (10, 5, 3, 1) if k < classes]
    return whole | {f"top {k}, float16": RecordLayout(classes, "float16", k) for k in top}


def on_disk(layout: RecordLayout) -> int:
    """Bytes of an example in one view."""
    return layout.record.itemsize + FRAME


def sizes() -> Table:
    """Bytes by storage and number of classes."""
    many, few = layouts(1000), layouts(10)
    rows: Table = [("storage", "10 classes", "1,000 classes")]
    for name, layout in many.items():
        rows.append((name, str(on_disk(few[name])) if name in few else "", str(on_disk(layout))))
    return rows


def cifar(split: str, arguments: argparse.Namespace) -> Setting:
    """What ResNet-56 and, as a student at the end, ResNet-44 say of images of CIFAR-10."""
    data = kd.data.load("cifar10", data_dir=arguments.data_dir)
    x = NORMALIZATION.apply(np.asarray(getattr(data, split).images[:EXAMPLES]))
    logits = []
    for name in ("resnet56", "resnet44"):
        model = kd.models.build(name, classes=10, input_shape=(32, 32, 3), shortcut="A")
        kd.models.load_weights(model, pathlib.Path(arguments.teachers, f"cifar10_{name}.npz"))
        logits.append(model.predict(x, batch_size=100, verbose=0))
    teacher, student = logits
    name = f"10 classes: ResNet-56 on {EXAMPLES:,} {split} images of CIFAR-10"
    return Setting(name, teacher, (np.zeros_like(teacher), student))


def synthetic() -> Setting:
    """Logits drawn for 1,000 classes; see the text of the page."""
    generator = np.random.default_rng(0)
    teacher = generator.normal(0, 2, (EXAMPLES, 1000))
    own = generator.integers(0, 1000, EXAMPLES)
    teacher[np.arange(EXAMPLES), own] = generator.normal(10, 3, EXAMPLES)
    student = teacher + generator.normal(0, 1, teacher.shape)
    teacher, student = teacher.astype(np.float32), student.astype(np.float32)
    return Setting("1,000 classes: drawn logits", teacher, (np.zeros_like(teacher), student))


def error_section(setting: Setting) -> str:
    """The table of errors of one setting, under its heading."""
    ordered = -np.sort(-tf.nn.softmax(setting.teacher).numpy(), axis=-1)
    shares = [f"the {k} most probable {ordered[:, :k].sum(1).mean():.3f}" for k in (3, 5)]
    text = (
        f"### {setting.name}\n\nThe teacher gives its most probable class "
        f"{ordered[:, 0].mean():.3f} on average,\n{', '.join(shares)}.\n\n"
    )
    quantities = [f"{what}, T = {t:g}" for t in TEMPERATURES for what in ("loss", "gradient")]
    rows: Table = [("storage", *quantities)]
    for name, layout in layouts(setting.classes).items():
        cells = []
        for temperature in TEMPERATURES:
            pairs = [errors(setting.teacher, s, layout, temperature) for s in setting.students]
            cells += [" / ".join(map(percent, both)) for both in zip(*pairs, strict=True)]
        rows.append((name, *cells))
    return text + markdown(rows)


def errors(
    teacher: np.ndarray, student: np.ndarray, layout: RecordLayout, temperature: float
) -> tuple[float, float]:
    """How far soft targets and their gradient are from those of the live teacher, relatively.

    Of the loss, the mean distance of an example's over the mean loss; of the gradient on the
    student's logits, the root mean square of the difference over that of the gradient.
    """
    live = Outputs(tf.constant(teacher), {})
    records = layout.encode(Outputs(teacher, {}))
    fields = {name: tf.constant(records[name]) for name in records.dtype.names or ()}
    loss, gradient = soft_targets(live, student, temperature)
    found, found_gradient = soft_targets(layout.decode(fields, ()), student, temperature)
    of_gradient = np.sqrt(np.mean((found_gradient - gradient) ** 2) / np.mean(gradient**2))
    return float(np.mean(np.abs(found - loss)) / np.mean(loss)), float(of_gradient)


def soft_targets(teacher: Outputs, student: np.ndarray, temperature: float) -> Any:
    """The loss of each example, and its gradient on the student's logits."""
    logits = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = kd.SoftTargets(temperature=temperature)(teacher, Outputs(logits, {}))
    return loss.numpy(), tape.gradient(loss, logits).numpy()


def imagenet_sizes() -> Table:
    """Bytes and files of a view."""
    examples = IMAGENET_EXAMPLES
    a_shard = max(cache_plan._EXAMPLES_A_SHARD, -(-examples // cache_plan._MOST_SHARDS))
    columns = ("storage", "bytes an example", "a view", "four views", "files a view", "a file")
    rows: Table = [columns]
    for name, layout in imagenet_layouts().items():
        each = on_disk(layout)
        rows.append(
            (
                *(name, f"{layout.record.itemsize} + {FRAME}"),
                *(megabytes(each * examples), megabytes(4 * each * examples)),
                *(str(-(-examples // a_shard)), megabytes(each * a_shard)),
            )
        )
    return rows


def imagenet_reading() -> Table:
    """What an accelerator asks of the disk."""
    rows: Table = [("storage", "images/s", "records alone", "pages", "random reads")]
    for name, layout in imagenet_layouts().items():
        size = layout.record.itemsize
        pages = 1 + (size - 1) / DISK_PAGE
        for rate in (1000, 3000):
            records, pages_read = rate * size / 1e6, rate * pages * DISK_PAGE / 1e6
            cells = (f"{rate:,}", f"{records:.2f} MB/s", f"{pages_read:.1f} MB/s")
            rows.append((name, *cells, f"{rate * pages:,.0f} a second"))
    return rows


def imagenet_layouts() -> dict[str, RecordLayout]:
    """The storages of the estimate."""
    return {n: lay for n, lay in layouts(1000).items() if n in ("float16", "top 10, float16")}


def megabytes(count: int) -> str:
    """Bytes in decimal units."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def percent(share: float) -> str:
    """Two significant digits, in percent."""
    return "0" if share == 0 else f"{float(f'{100 * share:.2g}'):g} %"


def markdown(rows: Table) -> str:
    """A table, its first row the heading."""
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
