"""Magnitude pruning: the smallest weights become zero, more and more of them while training.

Zhu and Gupta (2017), through tensorflow-model-optimization: from ``begin_step`` to ``end_step`` the
share of zeros in each kernel is ``s = target + (initial - target) * (1 - progress)^3``.

Example (``distiller`` is any ``tf.keras.Model`` that trains ``pruned`` in its ``fit``):

    pruned = pruning.apply(student, sparsity=0.5, begin_step=100, end_step=900)
    distiller.fit(train, callbacks=pruning.callbacks(pruned))
    student = pruning.finish(pruned)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import kernels, order, pruning_patterns, rebuilding, toolkit
from kd_keras.compression.sensitivity import sensitivity
from kd_keras.errors import InputError

__all__ = ["apply", "callbacks", "finish", "sensitivity"]

#: Of a channel behind BatchNorm: its deviation as a share of gamma, below which it counts as
#: constant. Maps span several gammas, so an int8 step is more than that.
_STILL = 0.01


def apply(
    student: tf.keras.Model,
    *,
    sparsity: float | None = None,
    begin_step: int = 0,
    end_step: int | None = None,
    initial_sparsity: float = 0.0,
    frequency: int = 100,
    schedule: str = "polynomial",
    per_layer: Mapping[str, float] | None = None,
    block_size: Sequence[int] = (1, 1),
    block_pooling: str = "avg",
    pattern: str | None = None,
    policy: str | None = None,
    training_steps: int | None = None,
    skip: Sequence[str] = (),
) -> tf.keras.Model:
    """Returns a copy of ``student`` whose convolution and dense kernels are pruned in training.

    Compile with a new optimizer: a training step is counted as the optimizer counts it, from 0.

    Args:
        student: a built Functional or Sequential model; it is not changed.
        sparsity: share of zeros in each kernel at the end, in [0, 1). Not with ``pattern``.
        begin_step: training step of the first pruning, at least 0.
        end_step: training step at which ``sparsity`` is reached, or under a constant schedule the
            last one at which weights are chosen; after ``begin_step``. Not with ``pattern``.
        initial_sparsity: share of zeros at ``begin_step``, from 0 to ``sparsity``.
        frequency: steps between two prunings. Under a polynomial schedule the last one always falls
            on ``end_step``; the first is up to ``frequency`` steps later than ``begin_step``.
        schedule: "polynomial", or "constant": ``sparsity`` from ``begin_step`` on.
        per_layer: ``sparsity`` of single layers by name; ``initial_sparsity`` is no more than it.
        block_size: sides of the blocks, along inputs and outputs, that a dense kernel is pruned in.
        block_pooling: a block's magnitude is the "avg" or "max" of its weights'.
        pattern: "2:4", two zeros in each four consecutive input channels, from the first training
            step on. Layers whose input channels are no multiple of 4 are left dense.
        policy: "xnnpack" prunes the 1x1 convolutions only, in models that XNNPACK then runs faster.
        training_steps: steps that the training will have, where known: checked against
            ``end_step``.
        skip: names of layers to leave as they are.

    Returns:
        The copy; its pruned layers are called ``prune_low_magnitude_`` and the user's name.

    Raises:
        InputError: a share or step is out of its range, the schedule is longer than the training,
            a name is no layer, a layer or the model does not fit the blocks, pattern or policy,
            the model has no kernel to prune, is clustered, quantization-aware or subclassed, or
            TensorFlow runs with Keras 3.
    """
    library = toolkit.tfmot().sparsity.keras
    toolkit.require_graph(student)
    order.require_before_pruning(student)
    options = pruning_patterns.wrapper_options(block_size, block_pooling, pattern)
    if pattern:
        _check_pattern(sparsity, end_step, per_layer)
        # tfmot makes this mask at the first training step, whatever the schedule.
        sparsity, begin_step, end_step, schedule = 0.5, 0, 1, "constant"
    if sparsity is None or end_step is None:
        raise InputError(
            "sparsity and end_step are missing; only with pattern='2:4' are none needed"
        )
    _check_shares(sparsity, initial_sparsity)
    _check_steps(begin_step, end_step, frequency, training_steps)
    if schedule not in ("polynomial", "constant"):
        raise InputError(f"schedule {schedule!r} is not known; give 'polynomial' or 'constant'")
    possible = pruning_patterns.possible_layers(student, pattern, policy)
    names = kernels.chosen(student, "prune", skip=skip, per_layer=per_layer, possible=possible)
    pruning_patterns.require_blocks_fit(student, names, block_size)
    targets = {name: (per_layer or {}).get(name, sparsity) for name in names}
    for target in targets.values():
        _check_shares(target, min(initial_sparsity, target))
    every = min(frequency, end_step - begin_step)

    def scheduled(target: float) -> Any:
        if schedule == "constant":
            # The first training step is 1: at 0 tfmot would miss it.
            return library.ConstantSparsity(target, max(begin_step, 1), end_step, frequency)
        return library.PolynomialDecay(
            initial_sparsity=min(initial_sparsity, target),
            final_sparsity=target,
            # tfmot prunes only at begin + k * frequency, so this makes the last one hit the end.
            begin_step=end_step - (end_step - begin_step) // every * every,
            end_step=end_step,
            frequency=every,
        )

    def wrapped(layer: Any) -> Any:
        copy = toolkit.copy_layer(layer)
        if layer.name not in targets:
            return copy
        target = scheduled(targets[layer.name])
        return library.prune_low_magnitude(copy, pruning_schedule=target, **options)

    return rebuilding.rebuilt(student, wrapped)


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for the ``fit`` that trains ``model``, itself or within a distiller."""
    return [_CountSteps(_require_pruned(model))]


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the plain model: the user's layer names, no wrappers, the zeros in its kernels.

    Channels that pruning has left without a varying input become constant: where BatchNorm's
    variance is so small that the channel's deviation is below 1 % of gamma, gamma becomes 0. Folded
    into the kernel, it would multiply what quantization adds to a constant input by up to
    ``1 / sqrt(epsilon)``.

    Args:
        model: a model from ``apply``, trained to its ``end_step``.

    Raises:
        InputError: the model is not from ``apply``, its schedule has not been completed, or its
            pattern was never made.
    """
    wrappers = _require_pruned(model)
    step, end = int(wrappers[0].pruning_step.numpy()), wrappers[0].pruning_schedule.end_step
    if step < end:
        raise InputError(
            f"model {model.name!r} is not pruned to the end: it was trained to step {max(step, 0)} "
            f"of {end}; train it on (with pruning.callbacks), or apply with an earlier end_step"
        )
    if any(la.sparsity_m_by_n and np.all(la.pruning_vars[0][1]) for la in wrappers):
        raise InputError(
            f"model {model.name!r} has no zeros: the pattern 2:4 is made at training step 1, which "
            "its optimizer had passed; compile with a new optimizer"
        )
    _zero_masked_weights(wrappers)
    finished = rebuilding.rebuilt(
        model, lambda layer: toolkit.copy_layer(layer.layer if _is_wrapper(layer) else layer)
    )
    _still_constant_channels(finished)
    return finished


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


def _zero_masked_weights(wrappers: list[Any]) -> None:
    for wrapper in wrappers:
        for weight, mask, _ in wrapper.pruning_vars:
            weight.assign(weight * mask)


def _still_constant_channels(model: tf.keras.Model) -> None:
    for norm in toolkit.leaf_layers(model):
        if isinstance(norm, tf.keras.layers.BatchNormalization) and norm.scale:
            variance = norm.moving_variance
            is_still = tf.sqrt(variance / (variance + norm.epsilon)) < _STILL
            norm.gamma.assign(tf.where(is_still, 0.0, norm.gamma))


def _is_wrapper(layer: Any) -> bool:
    return hasattr(layer, "pruning_vars")


def _require_pruned(model: tf.keras.Model) -> list[Any]:
    wrappers = [layer for layer in toolkit.leaf_layers(model) if _is_wrapper(layer)]
    if not wrappers:
        raise InputError(f"model {model.name!r} is not being pruned; give the one from apply")
    return wrappers


def _check_pattern(sparsity: Any, end_step: Any, per_layer: Any) -> None:
    if sparsity not in (None, 0.5) or end_step is not None or per_layer:
        raise InputError(
            "pattern '2:4' is a sparsity of 0.5 in all layers from the first step on; "
            "leave sparsity, end_step and per_layer out"
        )


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
