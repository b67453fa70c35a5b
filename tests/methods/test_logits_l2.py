"""`LogitsL2`: the standardisation of its targets."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import batch, net, one_line
from oracles import Arrays

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.methods.logits_l2 import target_std
from kd_keras.taps import Outputs


def logits(examples: int = 50) -> np.ndarray:
    spread = np.array([0.1, 1.0, 20.0])
    return 3.0 + spread * np.random.default_rng(0).normal(size=(examples, 3))


@pytest.mark.any_keras
def test_the_paper_s_targets_up_to_the_last_layer() -> None:
    """The paper's g meets targets of mean 0 and variance 1; ours gives `std * g + mean`."""
    z = logits()
    method = kd.LogitsL2(standardize=True, weight=0.3, name="mine").fitted_to(z)
    targets = (z - z.mean(axis=0)) / z.std(axis=0)
    np.testing.assert_allclose([targets.mean(), targets.std()], [0, 1], atol=1e-9)
    g = np.random.default_rng(1).normal(size=z.shape)
    ours = tf.constant(z.std(axis=0) * g + z.mean(axis=0), tf.float32)
    found = method(Outputs(tf.constant(z, tf.float32), {}), Outputs(ours, {}))
    np.testing.assert_allclose(found, oracles.logits_l2(Arrays(targets), Arrays(g)), rtol=1e-3)


@pytest.mark.any_keras
def test_fitting_gives_the_std_and_changes_nothing_else() -> None:
    method = kd.LogitsL2(standardize=True, weight=0.3, name="mine")
    fitted = method.fitted_to(logits())
    assert (method.fitted, method.std, fitted.fitted) == (False, None, True)
    np.testing.assert_allclose(fitted.std, logits().std(axis=0), rtol=1e-12)
    assert {**fitted.get_config(), "std": None} == method.get_config()
    assert fitted.fitted_to(2 * logits()).std == fitted.std
    assert kd.LogitsL2(std=fitted.std, weight=0.3, name="mine").get_config() == fitted.get_config()


def test_trains_when_fitted_and_is_refused_before() -> None:
    teacher, (x, _) = net(8), batch()
    method = kd.LogitsL2(standardize=True)
    with pytest.raises(InputError) as error:
        kd.Distiller(net(5), teacher, [method])
    one_line(error, "logits_l2", "has not seen", "target_std(")
    z = teacher.predict(x, verbose=0)
    model = kd.Distiller(net(5), teacher, [method.fitted_to(z)], label_weight=0)
    model.compile(tf.keras.optimizers.SGD(0.0), loss=None)
    found = model.fit(x, batch_size=16, verbose=0).history["logits_l2"]
    student = Arrays(model.predict(x, verbose=0))
    expected = oracles.logits_l2(Arrays(z), student, std=z.std(axis=0))
    np.testing.assert_allclose(found, [expected.mean()], rtol=1e-4)


@pytest.mark.any_keras
def test_bad_standard_deviations() -> None:
    constant = logits()
    constant[:, 1] = 2.0
    with pytest.raises(InputError) as error:
        target_std(constant)
    one_line(error, "std of class 1 is 0", "drop standardize")
    with pytest.raises(InputError) as error:
        kd.LogitsL2(std=[1.0, float("nan")])
    one_line(error, "std of class 1 is nan", "above 0")
    with pytest.raises(InputError) as error:
        target_std(constant[0])
    one_line(error, "(3,)", "(examples, classes)")
    outputs = Outputs(tf.zeros((2, 3)), {})
    with pytest.raises(InputError) as error:
        kd.LogitsL2(std=[1.0, 1.0]).check(outputs, outputs)
    one_line(error, "2 classes", "teacher has 3", "target_std(")
