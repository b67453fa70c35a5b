"""Magnitude pruning: the smallest weights become zero, more and more of them while training.

Zhu and Gupta (2017), through tensorflow-model-optimization: from ``begin_step`` to ``end_step`` the
share of zeros in each kernel is ``s = target + (initial - target) * (1 - progress)^3``.

Example (``distiller`` is any ``tf.keras.Model`` that trains ``pruned`` in its ``fit``):

    pruned = pruning.apply(student, sparsity=0.5, begin_step=100, end_step=900)
    distiller.fit(train, callbacks=pruning.callbacks(pruned))
    student = pruning.finish(pruned)
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.errors import InputError


def apply(
    student: tf.keras.Model,
    *,
    sparsity: float,
    begin_step: int,
    end_step: int,
    initial_sparsity: float = 0.0,
    frequency: int = 100,
    training_steps: int | None = None,
    skip: Sequence[str] = (),
) -> tf.keras.Model:
    """Returns a copy of ``student`` whose convolution and dense kernels are pruned in training.

    Compile with a new optimizer: a training step is counted as the optimizer counts it, from 0.

    Args:
        student: a built Functional or Sequential model; it is not changed.
        sparsity: share of zeros in each kernel at the end, in [0, 1).
        begin_step: training step of the first pruning, at least 0.
        end_step: training step at which ``sparsity`` is reached, after ``begin_step``.
        initial_sparsity: share of zeros at ``begin_step``, from 0 to ``sparsity``.
        frequency: steps between two prunings. The last one always falls on ``end_step``; the first
            is up to ``frequency`` steps later than ``begin_step`` for that.
        training_steps: steps that the training will have, where known: checked against
            ``end_step``.
        skip: names of layers to leave as they are.

    Returns:
        The copy; its pruned layers are called ``prune_low_magnitude_`` and the user's name.

    Raises:
        InputError: a share or step is out of its range, the schedule is longer than the training,
            a name in ``skip`` is no layer, the model has no kernel to prune or is subclassed, or
            TensorFlow runs with Keras 3.
    """
    sparsity_library = toolkit.tfmot().sparsity.keras
    toolkit.require_graph(student)
    _check_shares(sparsity, initial_sparsity)
    _check_steps(begin_step, end_step, frequency, training_steps)
    chosen = _prunable_names(student, skip)
    every = min(frequency, end_step - begin_step)
    schedule = sparsity_library.PolynomialDecay(
        initial_sparsity=initial_sparsity,
        final_sparsity=sparsity,
        # tfmot prunes only at begin + k * frequency, so this makes the last one hit the end.
        begin_step=end_step - (end_step - begin_step) // every * every,
        end_step=end_step,
        frequency=every,
    )

    def wrapped(layer: Any) -> Any:
        copy = toolkit.copy_layer(layer)
        if layer.name not in chosen:
            return copy
        return sparsity_library.prune_low_magnitude(copy, pruning_schedule=schedule)

    return _rebuilt(student, wrapped)


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for the ``fit`` that trains ``model``, itself or within a distiller."""
    return [_CountSteps(_require_pruned(model))]


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the plain model: the user's layer names, no wrappers, the zeros in its kernels.

    Args:
        model: a model from ``apply``, trained to its ``end_step``.

    Raises:
        InputError: the model is not from ``apply``, or its schedule has not been completed.
    """
    wrappers = _require_pruned(model)
    step, end = int(wrappers[0].pruning_step.numpy()), wrappers[0].pruning_schedule.end_step
    if step < end:
        raise InputError(
            f"model {model.name!r} is not pruned to the end: it was trained to step {max(step, 0)} "
            f"of {end}; train it on (with pruning.callbacks), or apply with an earlier end_step"
        )
    _zero_masked_weights(wrappers)
    return _rebuilt(model, lambda layer: toolkit.copy_layer(getattr(layer, "layer", layer)))


class _CountSteps(tf.keras.callbacks.Callback):
    """Keeps the pruned layers' step equal to the optimizer's.

    A pruned layer counts its forward passes in training. That is the optimizer's step unless a
    step runs the student twice (a second, noisy pass) or training was resumed with a restored
    optimizer; so it is set right before the first step, and after each execution where it differs.
    """

    def __init__(self, wrappers: list[Any]) -> None:
        super().__init__()
        self._wrappers = wrappers

    def on_train_begin(self, logs: Any = None) -> None:
        self._count_as_the_optimizer()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._count_as_the_optimizer()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The optimizer's last update moved masked weights too; what is saved now must be sparse.
        _zero_masked_weights(self._wrappers)

    def _count_as_the_optimizer(self) -> None:
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            raise InputError(f"model {self.model.name!r} has no optimizer; compile it before fit")
        step = int(optimizer.iterations.numpy())
        if int(self._wrappers[0].pruning_step.numpy()) != step:
            for wrapper in self._wrappers:
                wrapper.pruning_step.assign(step)


def _rebuilt(model: tf.keras.Model, rebuild: Callable[[Any], Any]) -> tf.keras.Model:
    """Clones ``model`` with ``rebuild`` on each layer, and copies each layer's weights over."""
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=clone)
        pairs.append((layer, rebuild(layer)))
        return pairs[-1][1]

    result = tf.keras.models.clone_model(model, clone_function=clone)
    for old, new in pairs:
        new.set_weights(old.get_weights())
    return result


def _zero_masked_weights(wrappers: list[Any]) -> None:
    for wrapper in wrappers:
        for weight, mask, _ in wrapper.pruning_vars:
            weight.assign(weight * mask)


def _require_pruned(model: tf.keras.Model) -> list[Any]:
    wrappers = [layer for layer in toolkit.leaf_layers(model) if hasattr(layer, "pruning_vars")]
    if not wrappers:
        raise InputError(f"model {model.name!r} is not being pruned; give the one from apply")
    return wrappers


def _prunable_names(student: tf.keras.Model, skip: Sequence[str]) -> set[str]:
    layers = tf.keras.layers
    kinds = {
        *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv2DTranspose, layers.Conv3DTranspose),
        *(layers.SeparableConv1D, layers.SeparableConv2D),
    }
    found = {layer.name for layer in toolkit.leaf_layers(student) if type(layer) in kinds}
    for name in skip:
        if name not in {layer.name for layer in toolkit.leaf_layers(student)}:
            raise InputError(
                f"layer {name!r} in skip is not in model {student.name!r}; "
                f"it can prune: {', '.join(sorted(found))}"
            )
    if not found - set(skip):
        raise InputError(
            f"model {student.name!r} has no layer to prune; convolution and dense layers can be"
        )
    return found - set(skip)


def _check_shares(sparsity: float, initial_sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity!r} is not possible; give a share of zeros in [0, 1)")
    if not 0 <= initial_sparsity <= sparsity:
        raise InputError(
            f"initial_sparsity {initial_sparsity!r} is not possible; give a share from 0 to "
            f"sparsity, {sparsity!r}"
        )


def _check_steps(begin: int, end: int, frequency: int, training_steps: int | None) -> None:
    if begin < 0:
        raise InputError(f"begin_step {begin!r} is not possible; give a step of at least 0")
    if end <= begin:
        raise InputError(f"end_step {end!r} must come after begin_step, {begin!r}")
    if frequency < 1:
        raise InputError(f"frequency {frequency!r} is not possible; give at least 1 step")
    if training_steps is not None and end > training_steps:
        raise InputError(
            f"the pruning schedule ends at step {end}, the training at {training_steps}; "
            "give an earlier end_step or train longer"
        )
