"""Every config runs through every stage at its smoke size, on the real data where it lies."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.tf_keras

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "quickstart"])
def test_config_runs_at_smoke_size(name: str, tfds_dir: str, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "kd_keras.train", f"--workdir={tmp_path}"]
    command.append(f"--config={ROOT}/configs/{name}.py:smoke")
    environment = {**os.environ, "TFDS_DATA_DIR": tfds_dir}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert np.isfinite(report["models"]["student"]["accuracy"])
    assert report["tflite"]["int8"]["input_dtype"] == "int8"
    assert report["tflite"]["int8"]["agreement"] >= report["config"]["verify"]["agreement"]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_complete_and_has_its_papers(name: str) -> None:
    import runpy

    from kd_keras.pipeline import config as configs

    module = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    assert f"kd-train --config=configs/{name}.py" in module["__doc__"]
    assert "Time" in module["__doc__"]
    for size in ("full", "smoke"):
        configs.check(configs.complete(module["get_config"](size)))
