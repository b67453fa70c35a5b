"""`kd-benchmark`: what .tflite files cost on a device, from the command line.

    kd-benchmark --model=float.tflite,int8.tflite --device=host --threads=1,2 --output=host.json

Nothing is imported that is not needed, so that `--help` answers at once.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from tflite_export import command_line
from tflite_export.errors import ExportError
from tflite_export.measuring.engine import Device, Effort, measure
from tflite_export.measuring.result import Result, Setting, model_files

if TYPE_CHECKING:
    from tflite_export.representative import Representative

FLAGS = flags.FLAGS
_FLAGS_OF = {
    "android": ("gpu", "cores", "serial", "adb", "benchmark_model", "apk", "profile"),
    "arm64": ("images", "pixel_range", "mean", "std", "channel_order"),
}


def run() -> None:
    """Entry point of the console script."""
    command_line.run("kd-benchmark", _main, _parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    known = set(FLAGS)
    flags.DEFINE_list("model", None, "One or more .tflite files; the first is compared with.")
    flags.DEFINE_enum("device", "host", ["host", "android", "arm64"], "Where to run.")
    flags.DEFINE_list("threads", ["1"], "Numbers of threads, such as 1,2.")
    flags.DEFINE_enum("xnnpack", "on", ["on", "off", "both"], "With XNNPACK, without, or both.")
    flags.DEFINE_bool("gpu", False, "On the GPU as well. Android.")
    flags.DEFINE_list("cores", ["all"], "all, big or masks as taskset takes them: f0. Android.")
    flags.DEFINE_string("serial", None, "Of the device, where several are attached. Android.")
    flags.DEFINE_string("adb", None, "Path of adb, where it is not on PATH. Android.")
    flags.DEFINE_string(
        "benchmark_model", None, "Path or URL of the tool; by default, the documented URL. Android."
    )
    flags.DEFINE_bool("profile", False, "Times of single operators as well. Android.")
    flags.DEFINE_string(
        "apk", None, "Path of the tool as an app: measured in the foreground. Android."
    )
    flags.DEFINE_string(
        "images", None, "An .npy file, or a folder with one a class, to compare outputs on. arm64."
    )
    flags.DEFINE_string("pixel_range", None, "Of a folder, as in kd-export. arm64.")
    flags.DEFINE_list("mean", None, "Likewise.")
    flags.DEFINE_list("std", None, "Likewise.")
    flags.DEFINE_string("channel_order", None, "Likewise.")
    flags.DEFINE_integer("repeats", 5, "Fresh processes for each model and setting.")
    flags.DEFINE_integer("runs", 50, "Least number of readings in each.")
    flags.DEFINE_integer("warmup", 10, "Inferences before them.")
    flags.DEFINE_float("min_seconds", 0.5, "Least seconds of each repeat.")
    flags.DEFINE_integer("seed", 0, "Of the random inputs.")
    flags.DEFINE_list("accuracy", [], "Accuracy of each model, a fraction, for the report.")
    flags.DEFINE_string("output", None, "A .json file to write; a page, .html, goes beside it.")
    flags.DEFINE_bool("overwrite", False, "Replace files that are there.")
    flags.mark_flag_as_required("model")
    for name in set(FLAGS) - known:
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])  # --help shows these
    return FLAGS(argv)


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ExportError(f"unexpected argument {argv[1]!r}; use --model=FILE,FILE")
    targets = _targets()
    models = model_files(FLAGS.model, [_number("accuracy", v) for v in FLAGS.accuracy])
    threads = _threads(FLAGS.threads)
    names = ("repeats", "runs", "warmup", "min_seconds", "seed")
    effort = Effort(**{name: FLAGS[name].value for name in names})
    with _device() as device:
        settings = [
            Setting(backend, count, cores)
            for cores in device.cores
            for count in threads
            for backend in device.backends
        ]
        result = measure(device, models, settings, effort, profile=FLAGS.profile)
        # Before the device is left, which may fail: what was measured is kept.
        _show(result, targets)
    _refuse_other_outputs(result)


@contextmanager
def _device() -> Iterator[Device]:
    backends = {"on": ["xnnpack"], "off": ["builtin"], "both": ["xnnpack", "builtin"]}
    chosen = backends[FLAGS.xnnpack] + ["gpu"] * FLAGS.gpu
    cores = [_cores(value) for value in FLAGS.cores] or ["all"]
    _refuse_flags_of_other_devices()
    if FLAGS.device == "host":
        from tflite_export.measuring.host import Host

        yield Host(chosen)
        return
    if FLAGS.device == "arm64":
        from tflite_export.measuring.arm64 import Arm64

        yield Arm64(_examples(), FLAGS.seed)
        return
    from tflite_export.measuring import adb
    from tflite_export.measuring.android import Android
    from tflite_export.measuring.android_app import AndroidApp

    client = adb.find(FLAGS.adb)
    serial = adb.choose(adb.attached(client), FLAGS.serial or os.environ.get("ANDROID_SERIAL"))
    phone = adb.Adb(client, serial)
    if FLAGS.apk is None:
        device = Android(phone, FLAGS.benchmark_model, chosen, cores)
    else:
        if FLAGS.benchmark_model or cores != ["all"]:
            raise ExportError("--apk goes without --benchmark_model and --cores; leave them out")
        device = AndroidApp(phone, FLAGS.apk, chosen)
    with device:
        yield device


def _refuse_flags_of_other_devices() -> None:
    for device, names in _FLAGS_OF.items():
        for name in names:
            if FLAGS.device != device and FLAGS[name].present:
                raise ExportError(
                    f"--{name} is for {device}; add --device={device} or leave it out"
                )
    if FLAGS.device == "arm64" and FLAGS.xnnpack != "on":
        raise ExportError("arm64 runs files with XNNPACK, as phones do; leave --xnnpack out")


def _examples() -> "Representative | None":
    from tflite_export.preprocessing import parse
    from tflite_export.representative import load_representative

    preprocessing = parse(FLAGS.pixel_range, FLAGS.mean, FLAGS.std, FLAGS.channel_order)
    if FLAGS.images is None:
        return None
    return load_representative(Path(FLAGS.images), preprocessing, seed=FLAGS.seed)


def _cores(value: str) -> str:
    if not re.fullmatch("all|big|[0-9a-f]{1,16}", value):
        raise ExportError(f"cores {value!r} is none of all, big or a hexadecimal mask such as f0")
    return value


def _threads(values: list[str]) -> list[int]:
    if not values or not all(value.isdecimal() and int(value) >= 1 for value in values):
        raise ExportError(f"threads is {','.join(values)!r}; give whole numbers from 1, as in 1,2")
    return [*dict.fromkeys(map(int, values))]


def _number(flag: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ExportError(f"{flag} {value!r} is no number; separate numbers by commas") from None


def _targets() -> tuple[Path, ...]:
    from tflite_export.writing import refuse_existing

    if FLAGS.output is None:
        return ()
    path = Path(FLAGS.output)
    if path.suffix != ".json":
        raise ExportError(f"output {FLAGS.output!r} does not end in .json; name it so")
    refuse_existing((path, path.with_suffix(".html")), FLAGS.overwrite)
    return path, path.with_suffix(".html")


def _show(result: Result, targets: tuple[Path, ...]) -> None:
    from tflite_export.measuring import table

    print(table.text(result))
    if not targets:
        return
    logging.set_verbosity(logging.WARNING)  # matplotlib tells of its fonts
    from tflite_export.measuring.page import page
    from tflite_export.writing import replacing

    for target, content in zip(targets, (result.to_json, lambda: page(result)), strict=True):
        with replacing(target) as temporary:
            temporary.write_text(content(), encoding="utf-8")
    print(f"\nWritten: {targets[0]} and {targets[1].name}")


def _refuse_other_outputs(result: Result) -> None:
    for measured in result.measurements:
        steps = measured.agreement.largest_steps if measured.agreement else None
        if steps is not None and steps > 1:
            raise ExportError(
                f"outputs of {measured.model} on {result.device} are up to {steps} quantization "
                f"steps from this machine's; 1 is rounding"
            )


if __name__ == "__main__":
    run()
