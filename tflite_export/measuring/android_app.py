"""An Android device, with the app around `benchmark_model`: scheduled as what is in the foreground.

A program that adb starts may run on other cores and at other clocks than an app does. The app takes
the same flags and writes the same lines, to logcat; it writes no result file.
"""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.measuring import android, benchmark_binary
from tflite_export.measuring.adb import Adb
from tflite_export.measuring.result import Setting

_PACKAGE = "org.tensorflow.lite.benchmark"
_ACTIVITY = f"{_PACKAGE}/.BenchmarkModelActivity"
_DONE = "nference timings in us"
#: Starts the app and prints its log once the times are in it, or once the app has ended.
_SCRIPT = """\
logcat -c
am start -S -n {activity} --es args {arguments} || exit 1
n=0 seen=
while [ $n -lt {seconds} ]; do
logcat -d -s tflite | grep -q '{done}' && break
if pidof {package} > /dev/null; then seen=1; elif [ "$seen" ] || [ $n -ge 15 ]; then break; fi
n=$((n+1)); sleep 1
done
sleep 1
logcat -d -s tflite
am force-stop {package}"""


class AndroidApp(android.Android):
    """As `Android`, by the app, which is uninstalled at the end where it was not there before.

    Args:
        adb: the device.
        apk: path of the app, as its makers publish it beside `benchmark_model`.
        backends: as in `Android`.

    Raises:
        ExportError: the device does not answer, or there is no such file.
    """

    def __init__(self, adb: Adb, apk: str, backends: Sequence[str]):
        if not (apk.endswith(".apk") and Path(apk).is_file()):
            url = f"{benchmark_binary.URLS['arm64-v8a']}.apk"
            raise ExportError(f"apk {apk!r} is no .apk file; give the path of one, such as {url}")
        super().__init__(adb, apk, backends)
        self._apk, self._was_there = apk, True
        self._notes.append("Measured by the app, in the foreground.")

    def _install(self) -> None:
        self._sha256 = hashlib.sha256(Path(self._apk).read_bytes()).hexdigest()
        self.adb.shell(f"chmod 755 {self.folder}", "letting the app read the models")
        listed = self.adb.shell(f"pm list packages {_PACKAGE}", "looking for the app")
        self._was_there = f"package:{_PACKAGE}" in listed.output.split()
        self.adb.install(self._apk, "installing the app")

    def _execute(self, flags: Sequence[str], setting: Setting, task: str) -> str:
        seconds = android._MAX_SECONDS + android._MARGIN
        kept = [flag for flag in flags if not flag.startswith("--result_file_path")]
        script = _SCRIPT.format(
            activity=_ACTIVITY,
            arguments=shlex.quote(f'"{" ".join(kept)}"'),
            seconds=seconds,
            done=_DONE,
            package=_PACKAGE,
        )
        answer = self.adb.shell(script, task, seconds + 30)
        if answer.status or _DONE not in answer.output:
            lines = [line for line in answer.output.splitlines() if "error" in line.lower()]
            said = f": {lines[-1].strip()[:200]}" if lines else " without a word: out of memory?"
            raise ExportError(f"the benchmark app ended without a time{said} ({task})")
        return answer.output

    def _clean_up(self) -> str | None:
        left = super()._clean_up()
        if self._was_there or left:
            return left
        try:
            removed = self.adb.shell(f"pm uninstall {_PACKAGE}", "removing the app").status == 0
        except ExportError:
            removed = False
        return None if removed else f"remove the app: adb -s {self.adb.serial} uninstall {_PACKAGE}"
