"""TensorFlow's `benchmark_model` as a file: where it comes from, and what its ends mean."""

import contextlib
import urllib.error
import urllib.request
from pathlib import Path

from tflite_export.errors import ExportError

#: Where its makers put it, for each ABI that they build it for.
URLS = {
    abi: "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/"
    f"tools/nightly/latest/android_{name}_benchmark_model"
    for abi, name in (("arm64-v8a", "aarch64"), ("armeabi-v7a", "arm"))
}
_PATIENCE = 60  # seconds without a byte
_ENDS = {
    126: "cannot be run there; give the one for {abi}",
    127: "cannot be run there; give the one for {abi}",
    132: "met an instruction that the device does not have; give the one for {abi}",
    134: "aborted; the file is damaged or needs operators that it does not have",
    137: "was killed: the device ran out of memory; close apps or take a smaller model",
    139: "crashed; the file is damaged, or the delegate cannot run it",
}


def obtain(source: str | None, abi: str, folder: Path) -> Path:
    """Returns the path of the binary, fetched into `folder` where it is not a file already.

    Args:
        source: a path or a URL; None takes the documented URL for the ABI.
        abi: of the device, as Android calls it.
        folder: for what is fetched.

    Raises:
        ExportError: there is no such file, none is built for the ABI, or it cannot be fetched.
    """
    source = source or URLS.get(abi)
    if source is None:
        raise ExportError(
            f"no benchmark_model is built for {abi}; build one and give its path: "
            f"--benchmark_model=PATH"
        )
    if not source.startswith(("https://", "http://")):
        if not Path(source).is_file():
            raise ExportError(
                f"benchmark_model {source!r} is no file; give the path of the binary for {abi}, "
                f"or leave it out to fetch {URLS.get(abi, 'it')}"
            )
        return Path(source)
    target = folder / "benchmark_model"
    try:
        with contextlib.closing(urllib.request.urlopen(source, timeout=_PATIENCE)) as answer:
            target.write_bytes(answer.read())
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ExportError(
            f"benchmark_model cannot be fetched from {source} ({reason}); fetch it elsewhere and "
            f"give its path: --benchmark_model=PATH"
        ) from error
    return target


def meaning(status: int, output: str, abi: str) -> str:
    """What it means that the binary ended with `status`, a cure included."""
    if status in _ENDS:
        return f"benchmark_model {_ENDS[status].format(abi=abi)}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = ([line for line in lines if "ERROR" in line] or lines or ["no message"])[-1]
    return f"benchmark_model failed with status {status}: {last[:200]}"
