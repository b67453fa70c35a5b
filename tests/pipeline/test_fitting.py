"""A training that is cut off ends with the weights of one that was not."""

import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.pipeline import fitting
from kd_keras.pipeline.workdir import Workdir

pytestmark = pytest.mark.tf_keras  # kd-train's Keras

EPOCHS, EXAMPLES, BATCH = 4, 64, 16


@pytest.fixture(scope="module", autouse=True)
def _generators() -> Any:
    tf.keras.backend.experimental.enable_tf_random_generator()
    yield
    tf.keras.backend.experimental.disable_tf_random_generator()


@pytest.fixture(scope="module")
def split() -> Any:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, 4, 4, 1), dtype=np.uint8)
    return kd.data.Split(images, generator.integers(0, 3, EXAMPLES))


def distiller(rate: float = 0.1) -> Any:
    """A student with dropout under an adversarial distiller: all that draws random numbers."""

    def net(width: int) -> Any:
        inputs = tf.keras.Input((4, 4, 1))
        hidden = tf.keras.layers.Flatten()(inputs)
        hidden = tf.keras.layers.Dense(width, "relu")(hidden)
        features = tf.keras.layers.Dropout(0.5, name="features")(hidden)
        return tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="logits")(features))

    tf.keras.utils.set_random_seed(1)
    model = kd.AdversarialDistiller(net(8), net(16), label_weight=1.0)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizers = (tf.keras.optimizers.SGD(rate, momentum=0.9), tf.keras.optimizers.Adam())
    model.compile(optimizer=optimizers[0], loss=loss, discriminator_optimizer=optimizers[1])
    return model


def train(model: Any, split: Any, folder: pathlib.Path, callbacks: tuple = ()) -> list:
    normalization = kd.data.Normalization((0.5,), (0.5,))

    def batches(first: int) -> Any:
        views = kd.data.Views(
            split.images,
            split.labels,
            seed=3,
            normalization=normalization,
            augmentation=kd.data.Augmentation({"shift": {"pixels": 1}}, classes=3),
        )
        return views.batches(batch_size=BATCH, epochs=EPOCHS, first_epoch=first)

    return fitting.fit(
        model,
        Workdir(folder),
        "student",
        batches=batches,
        steps_per_epoch=EXAMPLES // BATCH,
        validation=kd.data.evaluation(split, batch_size=BATCH, normalization=normalization),
        epochs=EPOCHS,
        seed=3,
        callbacks=callbacks,
    )


class PullThePlug(tf.keras.callbacks.Callback):
    """Ends the training in the middle of the third epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == (2, 1):
            raise KeyboardInterrupt


def test_cut_off_training_ends_alike(split: Any, tmp_path: pathlib.Path) -> None:
    whole = distiller()
    whole_history = train(whole, split, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(distiller(), split, tmp_path / "cut", (PullThePlug(),))
    resumed = distiller()
    history = train(resumed, split, tmp_path / "cut")
    assert [logs["epoch"] for logs in history] == list(range(EPOCHS))
    for logs, whole_logs in zip(history, whole_history, strict=True):
        assert logs == pytest.approx(whole_logs, rel=1e-6)
    for one, other in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_dropout_differs_between_epochs(split: Any, tmp_path: pathlib.Path) -> None:
    model = distiller(rate=0.0)  # the weights stay, so only the noise moves the loss
    history = train(model, split, tmp_path)
    losses = [round(logs["label_loss"], 6) for logs in history]
    assert len(set(losses)) == EPOCHS


def test_finished_training_is_not_repeated(split: Any, tmp_path: pathlib.Path) -> None:
    first = distiller()
    train(first, split, tmp_path)
    again = distiller()
    train(again, split, tmp_path, (PullThePlug(),))
    for one, other in zip(first.student.get_weights(), again.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_damaged_checkpoint_is_named(split: Any, tmp_path: pathlib.Path) -> None:
    train(distiller(), split, tmp_path)
    (data,) = (tmp_path / "student" / "checkpoint").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(InputError, match=r"damaged.*delete the folder") as error:
        train(distiller(), split, tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "student") in str(error.value)


@pytest.mark.slow
def test_diverging_training_keeps_the_last_good_checkpoint(
    split: Any, tmp_path: pathlib.Path
) -> None:
    class Diverge(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                variable = self.model.student.trainable_variables[-1]
                variable.assign(variable * np.nan)

    with pytest.raises(InputError, match="at step 1 of epoch 3"):
        train(distiller(), split, tmp_path, (Diverge(),))
    resumed = distiller()
    train(resumed, split, tmp_path)
    assert all(np.isfinite(weight).all() for weight in resumed.student.get_weights())


def test_scalars_of_every_term_are_written(split: Any, tmp_path: pathlib.Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(distiller(), split, tmp_path)
    events = EventAccumulator(str(tmp_path / "student" / "tensorboard" / "train"))
    events.Reload()
    terms = {"loss", "label_loss", "logits_l2", "adversarial", "discriminator_loss"}
    assert {f"epoch_{term}" for term in terms} <= set(events.Tags()["tensors"])
