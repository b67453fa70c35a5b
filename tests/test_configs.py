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
#: Half a minute and more each; what else they do, shorter tests show.
LONG = (
    *("cifar10_resnet56_to_resnet20", "cifar10_resnet164_to_resnet20"),
    *("cifar10_wrn40x10_to_wrn10x4", "digits_born_again", "digits_ensemble_conditional"),
    *("digits_fitnets", "fashion_mnist_convnets", "fashion_mnist_nin_to_lenet", "mnist_mlp"),
)
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def runs() -> list:
    """All configs but the quickstart, which tests of its own run."""
    marks = {name: [pytest.mark.slow] for name in LONG}
    names = [name for name in CONFIGS if name != "quickstart"]
    return [pytest.param(name, marks=marks.get(name, [])) for name in names]


@pytest.mark.parametrize("name", runs())
def test_config_runs_at_smoke_size(
    name: str, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    environment = dict(os.environ)
    if not name.startswith("digits"):  # which come with scikit-learn
        environment["TFDS_DATA_DIR"] = request.getfixturevalue("tfds_dir")
    command = [sys.executable, "-m", "kd_keras.train", f"--workdir={tmp_path}"]
    command.append(f"--config={ROOT}/configs/{name}.py:smoke")
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1500, check=False
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
