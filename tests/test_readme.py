"""What the README shows is run, as a user would paste it."""

import pathlib
import re

import pytest
from conftest import IS_TF_KERAS

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def test_examples_run_in_order(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(examples) >= 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples:
        if "kd_keras.compression" in example and not IS_TF_KERAS:
            continue  # tensorflow-model-optimization needs tf_keras
        exec(example, names)
    assert (tmp_path / "student.keras").exists()
    history = names["distiller"].history.history
    assert {"loss", "adversarial", "logits_l2"} <= set(history)


def test_configs_in_the_readme_exist() -> None:
    text = README.read_text()
    root = README.parent
    for name in re.findall(r"`(\w+\.py)`", text):
        assert list((root / "configs").rglob(name)), name
    for path in (root / "configs").glob("*.py"):
        assert f"`{path.name}`" in text
