"""`--device=android`: the real adb client against a stand-in phone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tool_outputs
from stand_in_phone import StandInPhone

import tflite_export
from tflite_export.errors import ExportError
from tflite_export.measuring import benchmark_proto, table
from tflite_export.measuring.adb import Adb, Attached, attached, choose
from tflite_export.measuring.android import Android
from tflite_export.measuring.android_app import AndroidApp
from tflite_export.measuring.engine import Effort, measure
from tflite_export.measuring.result import Delegation, Setting, model_files

ADB = shutil.which("adb")
pytestmark = [
    pytest.mark.any_keras,
    pytest.mark.skipif(ADB is None, reason="adb is not on PATH (Debian: apt-get install adb)"),
]
PROPERTIES = """\
ro.product.manufacturer=Standin
ro.product.model=Phone 1
ro.soc.model=SX100
ro.build.version.release=14
ro.product.cpu.abi=arm64-v8a
"""
TOOL_TEXT = """\
INFO: Replacing 14 out of 16 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 \
partitions for subgraph 0.
INFO: Initialized session in 1.5ms.
INFO: count=5 first=90 curr=80 min=70 max=90 avg=80 std=1
INFO: count=50 first=@TIME@ curr=@TIME@ min=@TIME@ max=@TIME@ avg=@TIME@ std=0 p5=@TIME@ \
median=@TIME@ p95=@TIME@
INFO: Memory footprint delta from the start of the tool (MB): init=0.5 overall=1
"""
EFFORT = Effort(repeats=1, runs=5, min_seconds=0)
XNNPACK = Setting("xnnpack", 1)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def adb_server(tmp_path_factory):
    """A server of our own, with keys of our own."""
    with socket.create_server(("127.0.0.1", 0)) as free, pytest.MonkeyPatch.context() as patch:
        port = free.getsockname()[1]
        free.close()
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.delenv("ANDROID_SERIAL", raising=False)
        with pytest.MonkeyPatch.context() as home:
            home.setenv("HOME", str(tmp_path_factory.mktemp("adb")))
            started = attached(ADB)
        if started:
            pytest.skip("a real device is attached")
        yield
        subprocess.run([ADB, "kill-server"], check=True, capture_output=True)


@pytest.fixture
def make_phone(tmp_path):
    phones = []

    def make(state="device", **attributes):
        phone = StandInPhone(tmp_path / f"phone{len(phones)}", state)
        phones.append(phone)
        vars(phone).update(attributes)
        root = phone.root
        (root / "properties").write_text(PROPERTIES)
        (root / "TOOL.txt").write_text(TOOL_TEXT)
        phone.install("getprop", f'#!/bin/sh\ngrep "^$1=" {root}/properties | cut -d= -f2-\n')
        phone.install("taskset", f'#!/bin/sh\necho "$1" >> {root}/masks\nshift\nexec "$@"\n')
        phone.install("dumpsys", f"#!/bin/sh\ncat {root}/dumpsys_$1 2>/dev/null\n")
        (root / "dumpsys_battery").write_text("  level: 80\n  temperature: 301\n")
        (root / "dumpsys_thermalservice").write_text("Thermal Status: 0\n")
        for core, kilohertz in enumerate((1_800_000, 1_800_000, 2_400_000, 3_000_000)):
            folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_governor").write_text("schedutil\n")
            (folder / "cpuinfo_max_freq").write_text(f"{kilohertz}\n")
        # Not waited for: a device that is offline keeps adb waiting for 10 s.
        subprocess.Popen([ADB, "connect", phone.serial], stdout=subprocess.DEVNULL)
        until(lambda: Attached(phone.serial, state) in attached(ADB))
        return phone

    yield make
    for phone in phones:
        subprocess.run([ADB, "disconnect", phone.serial], capture_output=True, timeout=60)
        phone.close()


@pytest.fixture
def phone(make_phone):
    return make_phone()


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "benchmark_model"
    code = Path(__file__).with_name("stand_in_tool.py").read_text()
    path.write_text(f"#!{sys.executable} -SE\n{code}")
    return path


@pytest.fixture
def models(tmp_path):
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for place, path in enumerate(paths, 1):
        path.write_bytes(bytes(1000 * place))
    return model_files(paths)


@pytest.fixture
def android(phone, tool):
    """Returns a device to measure on; the phone's folder is empty when it is over."""

    def make(backends=("xnnpack",), **arguments):
        return Android(Adb(ADB, phone.serial), str(tool), backends, **arguments)

    return make


def kd_benchmark(*arguments):
    home = str(Path(tflite_export.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "tflite_export.kd_benchmark", "--device=android", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([home, *sys.path])},
    )


def test_from_the_command_line(phone, tool, models, tmp_path):
    output = tmp_path / "phone.json"
    process = kd_benchmark(
        f"--model={models[0].path},{models[1].path}",
        *(f"--benchmark_model={tool}", "--threads=2", "--cores=all,big", "--repeats=2"),
        *("--runs=7", "--warmup=3", "--min_seconds=0.25", f"--output={output}"),
    )
    printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    result = json.loads(output.read_text())
    assert result["device"] == "android"
    assert result["facts"] == {
        **{"serial": phone.serial, "manufacturer": "Standin", "model": "Phone 1", "soc": "SX100"},
        **{"android": "14", "abi": "arm64-v8a", "governor": "schedutil"},
        **{"battery_celsius": 30.1, "thermal_status": 0, "benchmark_model": str(tool)},
        "benchmark_model_sha256": model_files([tool])[0].sha256,
    }
    settings = [tuple(entry["setting"].values()) for entry in result["measurements"][::2]]
    assert settings == [("xnnpack", 2, "all"), ("xnnpack", 2, "c")]
    second = result["measurements"][1]
    assert second["latency_us"]["median"] == {"median": 2000, "low": 2000, "high": 2000}
    assert second["latency_us"]["p90"] is None
    assert second["latency_us"]["first"]["median"] == 90
    assert second["ratio"]["median"] == 2
    assert second["peak_memory_bytes"] == 2.5 * 2**20
    assert second["delegation"] == {"nodes": 14, "total": 16, "partitions": 2}
    calls = (phone.root / "calls").read_text().splitlines()
    assert len(calls) == 2 * 2 * 3  # models, settings, two repeats and one for the memory
    assert "--num_runs=7 --warmup_runs=3 --min_secs=0.25" in calls[0]
    assert [("report_peak" in call) for call in calls[:6]] == [False] * 4 + [True] * 2
    assert ["model0" in call for call in calls[:4]] == [True, False, True, False]
    assert set((phone.root / "masks").read_text().split()) == {"c"}
    assert "14 of 16" in printed
    assert "Battery 30.1 to 30.1 °C, thermal status at most 0." in result["notes"]
    assert "Phone 1" in output.with_suffix(".html").read_text()
    assert not any(phone.temporary.iterdir())


def test_the_result_file_is_pulled_and_read(phone, android, models):
    result = benchmark_proto.result_class()()
    result.latency_metrics.median_ms = 0.0125
    result.misc_metrics.num_runs = 77
    (phone.root / "result.pb").write_bytes(result.SerializeToString())
    with android() as device:
        reading, _ = device.read(models[0], XNNPACK, EFFORT)
    assert (reading.median, reading.runs, reading.mean) == (pytest.approx(12.5), 77, 1000)


def test_a_device_that_tells_no_exit_status(make_phone, tool, models):
    phone = make_phone(old_shell=True)
    with Android(Adb(ADB, phone.serial), str(tool), ["xnnpack"]) as device:
        result = measure(device, models[:1], [XNNPACK], EFFORT)
        assert result.measurements[0].over_repeats("median").median == 1000
        (phone.root / "status").write_text("3")
        with pytest.raises(ExportError, match="failed with status 3"):
            device.read(models[0], XNNPACK, EFFORT)


def test_profile(phone, android, models):
    (phone.root / "TOOL.txt").write_text(TOOL_TEXT + tool_outputs.PROFILE)
    with android() as device:
        result = measure(device, models[:1], [XNNPACK], EFFORT, profile=True)
        assert "a (xnnpack, 1 thread): CONV_2D 85 %, SOFTMAX 15 %." in table.text(result)
        assert result.measurements[0].profile[1].mean == 750
        assert "enable_op_profiling=true" in (phone.root / "calls").read_text().splitlines()[-1]
        (phone.root / "TOOL.txt").write_text(TOOL_TEXT)
        with pytest.raises(ExportError, match="printed no profile"):
            device.profile(models[0], XNNPACK)


def test_gpu(phone, android, models):
    partly = "Replacing 9 out of 16 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 "
    (phone.root / "TOOL.txt").write_text(f"{TOOL_TEXT}{partly}partitions for subgraph 0.\n")
    with android(["gpu"]) as device:
        _, taken = device.read(models[0], Setting("gpu", 1), EFFORT)
        assert taken == Delegation(9, 16, 2)
        call = (phone.root / "calls").read_text()
        assert "--use_gpu=true" in call
        assert "--use_xnnpack" not in call  # what the GPU leaves is XNNPACK's, as in an app
        refused = "Though GPU delegate is explicitly applied, the model graph will not be executed"
        (phone.root / "TOOL.txt").write_text(f"{TOOL_TEXT}{refused} by the delegate.\n")
        with pytest.raises(ExportError, match="GPU took no operator"):
            device.read(models[0], Setting("gpu", 1), EFFORT)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("signal", "SIGKILL", "ran out of memory; close apps"),
        ("signal", "SIGSEGV", "crashed; the file is damaged"),
        ("status", "126", "give the one for arm64-v8a"),
        ("status", "1", "failed with status 1: ERROR: Benchmarking failed"),
        ("TOOL.txt", "\x00garbage \x1b count=", "printed no time"),
        (
            "TOOL.txt",
            f"{TOOL_TEXT}WARN: Unconsumed cmdline flags: --x=1",
            "does not know --x=1",
        ),
        ("dumpsys_thermalservice", "Thermal Status: 3", "is hot .thermal status 3, battery 30.1"),
        ("result.pb", "\x12\x7f", "result file of benchmark_model is damaged"),
    ],
)
def test_what_goes_wrong_there(phone, android, models, one_line, name, content, reason):
    (phone.root / name).write_text(content)
    if content == "1":
        (phone.root / "TOOL.txt").write_text("ERROR: Benchmarking failed.\nbye")
    with pytest.raises(ExportError, match=reason) as caught, android() as device:
        device.read(models[0], XNNPACK, EFFORT)
    one_line(caught)
    assert not any(phone.temporary.iterdir())


def test_a_full_device(phone, android, models, one_line):
    phone.room = 100
    with pytest.raises(ExportError, match=r"no room left .*copying .*benchmark_model") as caught:
        android().__enter__()
    one_line(caught)
    phone.room = 5000
    large = Path(models[0].path)
    large.write_bytes(bytes(10_000))
    with (
        pytest.raises(ExportError, match=r"no room left .*copying .*a\.tflite"),
        android() as device,
    ):
        device.read(models[0], XNNPACK, EFFORT)
    assert not any(phone.temporary.iterdir())


def test_a_device_that_disconnects_and_comes_back(phone, android, models, one_line):
    phone.break_at = "--graph"
    with pytest.raises(ExportError, match="disconnected") as caught, android() as device:
        device.read(models[0], XNNPACK, EFFORT)
    assert models[0].path in one_line(caught)
    assert not any(phone.temporary.iterdir())


def test_a_device_that_stays_away(phone, android, models, one_line, monkeypatch):
    monkeypatch.setattr(Adb, "wait", lambda self, seconds: False)
    phone.break_at, phone.gone = "--graph", True
    with pytest.raises(ExportError, match=r"disconnected.*rm -rf") as caught, android() as device:
        device.read(models[0], XNNPACK, EFFORT)
    one_line(caught)


def test_a_run_that_never_ends(phone, android, models, one_line, monkeypatch):
    monkeypatch.setattr("tflite_export.measuring.android._MARGIN", -149)
    (phone.root / "sleep").touch()
    with pytest.raises(ExportError, match="did not answer for 1 s") as caught, android() as device:
        device.read(models[0], XNNPACK, EFFORT)
    one_line(caught)
    assert not any(phone.temporary.iterdir())
    running = subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
    assert f"{phone.temporary}/" not in running


@pytest.fixture
def app(phone, tool):
    """Puts on the phone what an app needs there; returns the path of an APK."""
    folder = phone.root / "data/app/a/benchmark"
    folder.mkdir(parents=True)
    shutil.copy(tool, folder / "benchmark_model")
    (folder / "benchmark_model").chmod(0o755)
    root = phone.root
    phone.install(
        "pm",
        f"""#!/bin/sh
echo "$*" >> {root}/pm
case "$1" in
list) cat {root}/packages 2>/dev/null;;
install) cat {root}/refusal 2>/dev/null || echo Success;;
esac
exit 0
""",
    )
    phone.install(
        "am",
        f"""#!/bin/sh
echo "$*" >> {root}/am
[ "$1" = start ] || exit 0
for last; do :; done
words=${{last#\\"}}
{folder}/benchmark_model ${{words%\\"}} 2>&1 | sed "s/^/I tflite  : /" >> {root}/log
""",
    )
    phone.install(
        "logcat",
        f"""#!/bin/sh
if [ "$1" = -c ]; then : > {root}/log; touch {root}/alive; else cat {root}/log; fi
""",
    )
    phone.install("pidof", f"#!/bin/sh\nrm {root}/alive 2>/dev/null\n")
    (root / "TOOL.txt").write_text(
        TOOL_TEXT + "INFO: Inference timings in us: Init: 1, Inference (avg): 7\n"
    )
    return shutil.copy(tool, tool.with_suffix(".apk"))


def test_the_app(phone, app, models):
    with AndroidApp(Adb(ADB, phone.serial), str(app), ["xnnpack"]) as device:
        result = measure(device, models[:1], [XNNPACK], EFFORT)
    assert result.measurements[0].over_repeats("median").median == 1000
    assert result.measurements[0].peak_memory_bytes == 2.5 * 2**20
    assert "Measured by the app, in the foreground." in result.notes
    assert "result_file_path" not in (phone.root / "calls").read_text()
    assert "-n org.tensorflow.lite.benchmark/.BenchmarkModelActivity --es args" in (
        (phone.root / "am").read_text()
    )
    installed = (phone.root / "pm").read_text().splitlines()
    assert "install" in installed[1]
    assert installed[-1] == "uninstall org.tensorflow.lite.benchmark"
    assert not any(phone.temporary.iterdir())


@pytest.mark.slow
def test_an_app_that_was_there_stays(phone, app, models):
    (phone.root / "packages").write_text("package:org.tensorflow.lite.benchmark\n")
    with AndroidApp(Adb(ADB, phone.serial), str(app), ["xnnpack"]) as device:
        device.read(models[0], XNNPACK, EFFORT)
    assert "uninstall" not in (phone.root / "pm").read_text()


@pytest.mark.slow
def test_an_app_that_fails(phone, app, models, one_line):
    (phone.root / "signal").write_text("SIGKILL")
    with (
        pytest.raises(ExportError, match="app ended without a time") as caught,
        AndroidApp(Adb(ADB, phone.serial), str(app), ["xnnpack"]) as device,
    ):
        device.read(models[0], XNNPACK, EFFORT)
    one_line(caught)
    (phone.root / "refusal").write_text("Failure [INSTALL_FAILED_NO_MATCHING_ABIS]\n")
    with pytest.raises(ExportError, match=r"refuses .*INSTALL_FAILED_NO_MATCHING_ABIS") as caught:
        AndroidApp(Adb(ADB, phone.serial), str(app), ["xnnpack"]).__enter__()
    one_line(caught)
    assert not any(phone.temporary.iterdir())
    with pytest.raises(ExportError, match=r"is no .apk file; .*_benchmark_model\.apk"):
        AndroidApp(Adb(ADB, phone.serial), "none.apk", ["xnnpack"])


def test_which_device(make_phone, one_line):
    first, second = make_phone(), make_phone()
    listed = attached(ADB)
    with pytest.raises(ExportError, match="2 devices are attached; choose by --serial") as caught:
        choose(listed, None)
    assert first.serial in one_line(caught)
    assert choose(listed, second.serial) == second.serial
    with pytest.raises(ExportError, match="'x' is not attached"):
        choose(listed, "x")


@pytest.mark.parametrize(
    ("state", "reason"),
    [("unauthorized", "has not allowed"), ("offline", "is offline")],
)
def test_a_device_that_is_not_ready(make_phone, tool, models, state, reason):
    phone = make_phone(state)
    process = kd_benchmark(f"--model={models[0].path}", f"--benchmark_model={tool}")
    errors = process.communicate()[1]
    assert process.returncode == 1
    assert errors.startswith(f"kd-benchmark: device {phone.serial} {reason}")
    assert len(errors.splitlines()) == 1
    with pytest.raises(ExportError, match=reason):  # adb's own words, were it to happen later
        Adb(ADB, phone.serial).shell("true", "trying")


def test_stopped_by_hand(phone, tool, models):
    (phone.root / "sleep").touch()
    process = kd_benchmark(f"--model={models[0].path}", f"--benchmark_model={tool}")
    until((phone.root / "calls").exists)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "kd-benchmark: stopped; nothing was written\n"
    assert process.returncode == 130
    assert not any(phone.temporary.iterdir())


def test_no_device(one_line):
    with pytest.raises(ExportError, match="no Android device is attached") as caught:
        choose(attached(ADB), None)
    one_line(caught)
