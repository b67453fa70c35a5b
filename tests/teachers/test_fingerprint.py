"""Fingerprints of Keras models and ensembles: equal for what computes the same."""

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import IS_TF_KERAS, ROOT
from nets import batch, net, one_line, with_weights

from kd_keras.errors import InputError
from kd_keras.teachers import Ensemble, KerasTeacher

layers = tf.keras.layers


def functional(activation: str = "relu", *, crossed: bool = False, outer: str | None = None) -> Any:
    """A nested model with two branches, whose names are Keras' own."""
    start = tf.keras.Input((4,))
    left, right = layers.Dense(5, activation), layers.Dense(5, "tanh")
    inner = tf.keras.Sequential(
        [tf.keras.Input((5,)), layers.Dense(5), layers.BatchNormalization()]
    )
    low = left(start)
    high = inner(right(low)) if crossed else inner(layers.Add()([low, right(start)]))
    if crossed:
        high = layers.Add()([high, low])
    return with_weights(tf.keras.Model(start, layers.Dense(3, outer)(high)), 1)


def sequential() -> Any:
    model = tf.keras.Sequential([layers.Dense(5, "tanh"), layers.Dropout(0.3), layers.Dense(3)])
    model(tf.zeros((1, 4)))
    return with_weights(model, 1)


class Subclassed(tf.keras.Model):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.low, self.high = layers.Dense(width, "relu"), layers.Dense(3)

    def call(self, x: Any, training: Any = None) -> Any:
        return self.high(self.low(x))


def subclassed() -> Any:
    model = Subclassed(5)
    model(tf.zeros((1, 4)))
    return with_weights(model, 1)


def fingerprint(model: Any, **settings: Any) -> str:
    return KerasTeacher(model, **settings).fingerprint()


@pytest.mark.parametrize("build", [functional, sequential, subclassed, lambda: net(5)])
def test_the_same_model_built_twice(build: Callable[[], Any]) -> None:
    own = fingerprint(build())
    assert set(own) <= set("0123456789abcdef")
    assert fingerprint(build()) == own
    model = build()
    model.trainable = False
    assert fingerprint(model) == own
    model.weights[0].assign(model.weights[0] + np.float32(1e-6))
    assert fingerprint(model) != own


@pytest.mark.slow
def test_saved_models_in_another_process(tmp_path: pathlib.Path) -> None:
    """That process does not import what these teachers do not need, as the other Keras."""
    expected, paths = [], []
    for name, build in {"a": functional, "b": sequential, "c": lambda: net(5, l2=0.1)}.items():
        for suffix in (".keras", ".h5"):
            model = build()
            expected.append(fingerprint(model))
            paths.append(str(tmp_path / f"{name}{suffix}"))
            model.save(paths[-1])
    code = (
        "import sys\nfrom kd_keras.teachers import as_teacher\n"
        "for path in sys.argv[1:]: print(as_teacher(path).fingerprint())\n"
        "print(*{'keras', 'tf_keras', 'ai_edge_litert'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True
    )
    *found, imported = done.stdout.splitlines()
    assert found == expected, done.stderr
    assert imported == ("tf_keras" if IS_TF_KERAS else "keras")


def test_what_computes_something_else() -> None:
    models = {
        "own": functional(),
        "activation": functional("tanh"),
        "connections": functional(crossed=True),
        "softmax": functional(outer="softmax"),
    }
    for model in models.values():
        model.set_weights([np.ones(weight.shape) for weight in model.get_weights()])
    found = {name: fingerprint(model, from_logits=None) for name, model in models.items()}
    assert len(set(found.values())) == len(found)
    softmax = models["softmax"]
    assert fingerprint(softmax, from_logits=False) == found["softmax"]
    assert fingerprint(softmax) != found["softmax"]


def test_what_cannot_be_told() -> None:
    with pytest.raises(InputError) as error:
        fingerprint(tf.keras.Sequential([layers.Dense(3)], name="early"))
    one_line(error, "'early'", "built")
    with pytest.raises(InputError) as error:
        fingerprint(subclassed(), from_logits=None)
    one_line(error, "pass from_logits=")
    teacher = KerasTeacher(subclassed(), from_logits=None)
    teacher.outputs(batch()[0])
    assert teacher.fingerprint() == fingerprint(subclassed())


def test_ensembles() -> None:
    def members() -> dict[str, Any]:
        return {"one": net(4), "two": net(5)}

    own = Ensemble(members()).fingerprint()
    assert Ensemble(members(), weights=[2, 2]).fingerprint() == own
    assert Ensemble(list(members().values())).fingerprint() == own
    for other in (
        Ensemble(members(), weights=[2, 1]),
        Ensemble(members(), mean="logits"),
        Ensemble({**members(), "two": net(5, seed=9)}),
    ):
        assert other.fingerprint() != own
