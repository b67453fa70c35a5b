"""What devices tell, what adb's failures mean, where the tool comes from: without any device."""

import http.server
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.errors import ExportError
from tflite_export.measuring import adb, benchmark_binary, phone

pytestmark = pytest.mark.any_keras
fuzzed = settings(deadline=None, database=None)
ANSWER = """\
ro.product.manufacturer=Google
ro.product.model=Pixel 8
ro.soc.manufacturer=
ro.build.version.release=14
governor=sched_pixel
frequency=0 1704000
governor=sched_pixel
frequency=4 2367000
governor=performance
frequency=8 2914000
frequency=9
"""
HEAT = """\
Current Battery Service state:
  level: 80
  temperature: 312
Thermal Status: 1
"""


def test_facts():
    told = phone.parse(ANSWER)
    assert told.facts == {
        **{"manufacturer": "Google", "model": "Pixel 8", "android": "14"},
        "governor": "performance, sched_pixel",
    }
    assert told.frequencies == {0: 1704000, 4: 2367000, 8: 2914000}
    assert told.big_cores == "110"  # cores 4 and 8
    assert phone.parse("frequency=0 5\nfrequency=1 5").big_cores is None
    assert phone.parse("").big_cores is None


@pytest.mark.parametrize(
    ("text", "battery", "status", "hot"),
    [
        (HEAT, 31.2, 1, False),
        (HEAT.replace("Status: 1", "Status: 2"), 31.2, 2, True),
        ("  temperature: 455", 45.5, None, True),
        ("  temperature: 301", 30.1, None, False),
        ("  temperature: 455\nThermal Status: 0", 45.5, 0, False),
        ("", None, None, False),
    ],
)
def test_heat(text, battery, status, hot):
    told = phone.parse_heat(text)
    assert (told.battery, told.status, told.too_hot) == (battery, status, hot)


@fuzzed
@given(st.text(), st.integers(0, len(ANSWER)))
def test_any_answer_is_read(noise, place):
    text = ANSWER[:place] + noise + ANSWER[place:] + HEAT[: place % len(HEAT)] + noise
    assert str(phone.parse_heat(text))
    assert phone.parse(text).big_cores != ""
    adb.parse(text)


LISTING = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
emulator-5554\tdevice
R5CT\tunauthorized
0123\tno permissions (user in plugdev group; are your udev rules wrong?); see [http://x]

"""


@pytest.mark.parametrize(
    ("serial", "reason"),
    [
        ("R5CT", "R5CT has not allowed this computer"),
        ("0123", "0123 may not be opened by this user"),
        ("9", "'9' is not attached; attached: emulator-5554, R5CT, 0123"),
        (None, "3 devices are attached; choose by --serial: emulator-5554, R5CT, 0123"),
    ],
)
def test_which_device(serial, reason, one_line):
    devices = adb.parse(LISTING)
    assert [device.serial for device in devices] == ["emulator-5554", "R5CT", "0123"]
    with pytest.raises(ExportError, match=reason) as caught:
        adb.choose(devices, serial)
    one_line(caught)
    assert adb.choose(devices[:1], None) == adb.choose(devices, "emulator-5554") == "emulator-5554"
    with pytest.raises(ExportError, match="is in state 'recovery'; start Android"):
        adb.choose([adb.Attached("1", "recovery")], None)
    with pytest.raises(ExportError, match="no Android device is attached"):
        adb.choose(adb.parse("List of devices attached\n\n"), None)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("error: device unauthorized.\nThis adb server's key is not set", "has not allowed"),
        ("error: device still authorizing", "has not allowed"),
        ("error: device offline", "is offline"),
        ("adb: error: failed to copy 'a' to 'b': remote No space left on device", "no room left"),
        ("adb: error: remote couldn't create file: Permission denied", "does not allow writing"),
        ("error: device 'R5CT' not found", "disconnected"),
        ("error: closed", "disconnected"),
        ("", "disconnected"),
    ],
)
def test_what_adbs_words_mean(output, reason):
    error = adb.Adb("adb", "R5CT").failure(output, "copying a to it")
    assert str(error).startswith("device R5CT ")
    assert reason in str(error)
    assert str(error).endswith("(copying a to it)")


def test_no_adb(one_line):
    with pytest.raises(ExportError, match="is not found; install") as caught:
        adb.find("/no/such/adb")
    one_line(caught)


def test_a_binary_given_by_its_path(tmp_path):
    tool = tmp_path / "tool"
    tool.write_bytes(b"x")
    assert benchmark_binary.obtain(str(tool), "arm64-v8a", tmp_path) == tool


def test_a_binary_that_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tool").write_bytes(b"\x7fELF")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "site"))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(benchmark_binary.URLS, "arm64-v8a", f"{url}/tool")
        monkeypatch.setenv("no_proxy", "*")
        fetched = benchmark_binary.obtain(None, "arm64-v8a", tmp_path)
        with pytest.raises(ExportError, match="cannot be fetched"):
            benchmark_binary.obtain(f"{url}/other", "arm64-v8a", tmp_path)
        server.shutdown()
    assert fetched.read_bytes() == b"\x7fELF"


@pytest.mark.parametrize(
    ("source", "abi", "reason"),
    [
        ("/no/such/tool", "arm64-v8a", "is no file; .* fetch https://.*android_aarch64_bench"),
        (None, "riscv64", "no benchmark_model is built for riscv64"),
        ("http://127.0.0.1:1/tool", "arm64-v8a", "cannot be fetched from http://127.0.0.1:1/tool"),
    ],
)
def test_no_binary(tmp_path, monkeypatch, one_line, source, abi, reason):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ExportError, match=reason) as caught:
        benchmark_binary.obtain(source, abi, tmp_path)
    one_line(caught)


@given(st.integers(-300, 300), st.text())
@fuzzed
def test_every_end_has_a_meaning(status, output):
    meaning = benchmark_binary.meaning(status, output, "arm64-v8a")
    assert meaning.startswith("benchmark_model ")
    assert "{abi}" not in meaning or "{abi}" in output
