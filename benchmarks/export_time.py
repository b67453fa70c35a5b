"""How long `kd-export` and `kd-verify` take for a CIFAR-10 network and its whole test set.

    TF_USE_LEGACY_KERAS=1 python benchmarks/export_time.py [--write]
    TF_USE_LEGACY_KERAS=1 python benchmarks/export_time.py --model=student/model.keras

The two commands run as a user would run them, one after the other, and everything counts: starting
Python and TensorFlow, reading CIFAR-10 (prepared; TFDS_DATA_DIR says where), loading the model. The
int8 file is made by 500 training images and compared with the Keras model on 10,000 test images.

Without a model of your own, a ResNet-20 is trained for one epoch first, which does not count: of an
untrained one `kd-verify` would look for what is wrong. `--write` keeps the figures in
docs/results/export_time.json.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import numpy as np

from tflite_export.machine import machine_facts

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "cifar10_resnet56_to_resnet20.py"
RESULTS = ROOT / "docs" / "results" / "export_time.json"
GOAL = 60.0


def main() -> None:
    """Measure, print and, if asked, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a network trained on CIFAR-10, a Keras file")
    parser.add_argument("--train_images", type=int, help="of the one epoch; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = pathlib.Path(folder)
        model = pathlib.Path(arguments.model or trained(arguments.train_images, own))
        rounds = [commands(model, own) for _ in range(arguments.rounds)]
    figures = {
        "network": model.name,
        "trained": "given" if arguments.model else "one epoch",
        "facts": {**machine_facts(), "load": os.getloadavg()[0]},
        **{key: [one[key] for one in rounds] for key in ("seconds", "cpu_seconds")},
        "accuracy": rounds[-1]["accuracy"],
        "agreement": rounds[-1]["agreement"],
    }
    for name in ("export", "verify", "both"):
        wall, cpu = ([one[key][name] for one in rounds] for key in ("seconds", "cpu_seconds"))
        print(
            f"{name:8}{statistics.median(wall):7.1f} s ({min(wall):.1f} to {max(wall):.1f}), "
            f"of the processors {statistics.median(cpu):.1f} s"
        )
    found = f"accuracy {figures['accuracy']}, agreement {figures['agreement']}"
    print(f"goal: both in {GOAL:.0f} s; {found}")
    if arguments.write:
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


def trained(images: int | None, folder: pathlib.Path) -> pathlib.Path:
    """A ResNet-20 after an epoch of so many images."""
    import tensorflow as tf

    import kd_keras as kd
    from kd_keras import config_data

    model = kd.models.build("resnet20", classes=10, input_shape=(32, 32, 3))
    found = config_data.read(str(CONFIG), "train", lambda labels: np.arange(len(labels))[:images])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    model.fit(found.images, found.labels, batch_size=64, verbose=2)
    path = folder / "resnet20.keras"
    model.save(path)
    return path


def commands(model: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """Both commands once: their seconds, and what the second one found."""
    file, report = folder / "int8.tflite", folder / "verify.json"
    flags = {
        "export": [f"--model={model}", f"--representative={CONFIG}", f"--output={file}"],
        "verify": [
            *(f"--model={file}", f"--reference={model}", f"--images={CONFIG}", "--floor=0"),
            f"--output={report}",
        ],
    }
    modules = {"export": "tflite_export.export", "verify": "tflite_export.verify_command"}
    seconds, cpu = {}, {}
    for name, module in modules.items():
        wall_before, cpu_before = time.perf_counter(), _cpu_seconds()
        command = [sys.executable, "-m", module, *flags[name], "--overwrite"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds[name] = time.perf_counter() - wall_before
        cpu[name] = _cpu_seconds() - cpu_before
    found = json.loads(report.read_text())
    return {
        "seconds": {**seconds, "both": sum(seconds.values())},
        "cpu_seconds": {**cpu, "both": sum(cpu.values())},
        **{key: found[key] for key in ("accuracy", "agreement")},
    }


def _cpu_seconds() -> float:
    """Of all processes that were started from here and are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
