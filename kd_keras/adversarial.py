"""Adversarial network compression (Belagiannis, Farshad, Galasso 2018)."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import discriminators, taps
from kd_keras.errors import InputError
from kd_keras.game import GameDistiller, Samples
from kd_keras.methods.base import Method, at_least_zero
from kd_keras.methods.logits_l2 import LogitsL2
from kd_keras.noise import (
    dropout_behind,
    dropout_layers,
    dropped,
    statistics_kept,
    without_dropout,
)
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs

REGULARIZERS = (None, "l1", "l2", "adversarial")
NOISES = ("features", "network")


@serializable(package="kd_keras")
class AdversarialDistiller(GameDistiller):
    """A student whose features a discriminator D cannot tell from the teacher's.

    With real samples `f_t` (the teacher's features) and fake samples `f_s` (the student's),

        L_adv = E[log D(f_t)] + E[log(1 - D(f_s))]
        argmin_s max_D  L_adv + lambda * L_data + L_regul(D)

    A step runs the student once, updates D, then the student against the new D. The student's
    gradient never reaches D's weights, nor D's the student's. Labels are not needed; a
    `label_weight` above 0 lets them count.

    `L_regul` keeps D from winning. "adversarial" gives D a third batch, the adversary: the
    student's features under noise, labelled as the teacher's. D maximises `E[log D(adversary)]`
    with the rest, and the same samples update the student, which minimises `-E[log D(adversary)]`
    beside `E[log(1 - D(f_s))]`. "l1" and "l2" penalise D's weights.

    The noise `z` is dropout. With `noise="features"` it falls on the features that D reads, and
    costs nothing. With `noise="network"` it is the student's own dropout layers: the adversary
    comes from a second forward pass, in which they are active, and the first pass, which `L_data`
    and the fake samples read, is without them. BatchNorm uses the batch's statistics in both and
    keeps those of the first. A `noise_layer` gives a network without such layers one, in the
    second pass alone. `dropout=0.0` with "features" is the paper's "D with features" without
    dropout: adversarial samples without noise.

    `lambda` is a method's weight, so it can have a schedule and `L_data` be another: `lambda *
    L_data` is `LogitsL2(weight=2 * lambda)`, since `LogitsL2` has a 1/2.

    Logged beside the terms: `discriminator_loss` with D's penalty; `discriminator_accuracy`, the
    share of real and fake samples that D judged rightly; and D's mean probability of being real,
    for the teacher's samples (`discriminator_real`) and the student's (`discriminator_fake`). At
    the end of a game without adversarial samples all three are 1/2; with them D's probabilities
    are 2/3, since it is told that half of the student's samples are real. `fit` warns after an
    epoch in which D has won or lost; see `kd_keras.callbacks.DiscriminatorWatch`. Where the
    student's learning rate decays, let D's decay with it, or D wins the last epochs.

    Where we differ from the paper: feature maps are averaged over their positions before a
    discriminator that reads vectors, and a student of another width than the teacher's is
    projected linearly to it; the projection is trained with the student.

    Args:
        student: See `Distiller`.
        teacher: See `Distiller`.
        methods: `lambda * L_data` and what else the student should learn; by default the L_data
            of the paper with lambda 1, which is `[LogitsL2(weight=2.0)]`.
        label_weight: Factor of the label loss; 0 by default, as in the paper.
        discriminator: A spec such as "128-256-128" or "conv128-conv256", which reads feature maps,
            see `kd_keras.discriminators.build`; or a Keras model `(batch, width) -> (batch, 1)`
            that gives a logit, one with a 4-dimensional input reads maps. By default the best of
            the paper's table, 128-256-128.
        teacher_layer: The teacher's layer that D reads; None: its logits.
        student_layer: The student's layer that D reads; None: its logits.
        regularizer: "adversarial", "l1", "l2" or None.
        regularizer_weight: Factor of the "l1" and "l2" penalties.
        adversarial_weight: Factor of the adversarial terms in the student's loss, a number or a
            schedule; 0 is a training without D.
        dropout: Rate of the noise on features or behind `noise_layer`, in [0, 1). The dropout
            layers of a network have their own.
        noise: "features" or "network"; adversarial samples have it, and nothing else.
        noise_layer: With "network", a layer of the student after which a dropout layer seems to
            stand in the second pass; so a D that reads logits can have the noise on the features.
        update_ratio: Updates of D and of the student on each batch, whole numbers from 1. Each
            update of D sees fresh noise, each of the student's is a forward pass of its own.
        projection: A Keras model from the student's features to the teacher's width; made if the
            widths differ.
        seed: Of the noise on features.
        **kwargs: See `Distiller`.

    Raises:
        InputError: See `Distiller`; and if D's input does not fit the features, or
            `noise="network"` finds no dropout layer in the student and there is no `noise_layer`.

    Example:
        >>> import kd_keras as kd
        >>> def net(width):
        ...     inputs = tf.keras.Input((4,))
        ...     features = tf.keras.layers.Dense(width, "relu", name="features")(inputs)
        ...     return tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="logits")(features))
        >>> distiller = kd.AdversarialDistiller(net(4), net(32), discriminator="64-64")
        >>> distiller.compile(optimizer="adam", discriminator_optimizer="adam")
        >>> history = distiller.fit(tf.random.normal((32, 4)), verbose=0)
        >>> [name for name in sorted(history.history) if not name.startswith("discriminator")]
        ['adversarial', 'logits_l2', 'loss']
    """

    hyperparameters = (
        *("teacher_layer", "student_layer", "regularizer", "regularizer_weight"),
        *("dropout", "noise", "noise_layer"),
    )
    own_models = ("discriminator", "projection")

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        methods: Iterable[Method] | None = None,
        label_weight: Scheduled = 0.0,
        *,
        discriminator: Any = None,
        teacher_layer: str | None = "features",
        student_layer: str | None = "features",
        regularizer: str | None = "adversarial",
        regularizer_weight: float = 1e-4,
        adversarial_weight: Scheduled = 1.0,
        dropout: float = 0.5,
        noise: str = "features",
        noise_layer: str | None = None,
        update_ratio: Sequence[int] = (1, 1),
        projection: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            student,
            [LogitsL2(weight=2.0)] if methods is None else methods,
            label_weight,
            discriminator=discriminators.PUBLISHED[0] if discriminator is None else discriminator,
            adversarial_weight=adversarial_weight,
            update_ratio=update_ratio,
            seed=seed,
            **kwargs,
        )
        self.projection = projection
        self.teacher_layer, self.student_layer = teacher_layer, student_layer
        self.regularizer = regularizer
        self.regularizer_weight = at_least_zero("regularizer_weight", regularizer_weight)
        self.dropout, self.noise, self.noise_layer = dropout, noise, noise_layer
        self._check_hyperparameters()
        self.teacher = teacher

    def _check_hyperparameters(self) -> None:
        _require("regularizer", self.regularizer, REGULARIZERS)
        _require("noise", self.noise, NOISES)
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout!r}; it must be at least 0 and below 1")
        if self.noise == "network" and self.regularizer != "adversarial":
            raise InputError(
                f"noise='network' makes adversarial samples, but regularizer={self.regularizer!r} "
                "has none: use regularizer='adversarial'"
            )
        if self.noise_layer is not None:
            taps.find_layer(self.student, self.noise_layer, "student")
            if self.noise != "network":
                raise InputError(
                    f"noise_layer {self.noise_layer!r} is for a second forward pass of the "
                    f"student, but noise={self.noise!r} has none: use noise='network'"
                )
        elif self.noise == "network" and not dropout_layers(self.student):
            raise InputError(
                f"noise='network' needs dropout in the student, but {self.student.name!r} has no "
                "Dropout layer with a rate above 0: add one, name a noise_layer, or use "
                "noise='features'"
            )
        one_logit = self.discriminator is None or discriminators.outputs_of(self.discriminator) == 1
        if not one_logit:
            raise InputError(
                f"discriminator {self.discriminator.name!r} gives "
                f"{self.discriminator.output_shape}; it must give one logit an example, (batch, 1)"
            )

    def _student_variables(self) -> list:
        projection = self.projection.trainable_variables if self.projection else []
        return [*super()._student_variables(), *projection]

    def _regularization(self) -> tf.Tensor:
        own = self.projection.losses if self.projection else []
        return super()._regularization() + sum(own, tf.constant(0.0))

    def _teacher_layers(self) -> list[str]:
        own = [self.teacher_layer] if self.teacher_layer else []
        return [*super()._teacher_layers(), *own]

    def _student_layers(self) -> list[str]:
        own = [self.student_layer] if self.student_layer else []
        return [*super()._student_layers(), *own]

    def _student_outputs(self, x: Any) -> tuple[Outputs, tf.Tensor]:
        if self.noise == "features":
            return super()._student_outputs(x)
        with without_dropout(self.student):
            return super()._student_outputs(x)

    def _samples(self, x: Any, y: Any, teacher: Outputs, student: Outputs) -> Samples:
        fake = self._fake(student)
        return Samples(self._read(teacher, self.teacher_layer), fake, self._adversary(x, fake))

    def _fake(self, student: Outputs) -> tf.Tensor:
        fake = self._read(student, self.student_layer)
        return fake if self.projection is None else self.projection(fake)

    def _read(self, outputs: Outputs, layer: str | None) -> tf.Tensor:
        features = outputs.logits if layer is None else outputs.layers[layer]
        if features.shape.rank == 4 and not self._reads_maps():
            features = tf.reduce_mean(features, axis=(1, 2))
        return tf.cast(features, tf.float32)

    def _reads_maps(self) -> bool:
        if self.discriminator is None:
            return discriminators.reads_maps(self.discriminator_spec)
        return len(self.discriminator.input_shape) == 4

    def _adversary(self, x: Any, fake: tf.Tensor) -> tf.Tensor | None:
        """The student's samples under noise, if there are adversarial samples at all."""
        if self.regularizer != "adversarial":
            return None
        if self.noise == "network":
            with statistics_kept(self.student), self._noise_behind_layer():
                noisy, _ = super()._student_outputs(x)
            return self._fake(noisy)
        return dropped(fake, self.dropout, self._noise_seed())

    def _noise_behind_layer(self) -> Any:
        if self.noise_layer is None:
            return contextlib.nullcontext()
        layer = taps.find_layer(self.student, self.noise_layer, "student")
        return dropout_behind(layer, self.dropout, self._noise_seed())

    def _judge(self, samples: Samples) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`-L_adv`, with the adversary as a real sample."""
        real, fake = self._score(samples.real), self._score(samples.fake)
        values = self.form.discriminator(real, fake)
        if samples.adversary is not None:
            values -= tf.math.log_sigmoid(self._score(samples.adversary))
        return values, real, fake

    def _fool(self, samples: Samples) -> tf.Tensor:
        """`log(1 - D(f_s)) - log D(adversary)`; D of the teacher's has no gradient here."""
        values = self.form.student(self._score(samples.fake))
        if samples.adversary is not None:
            values -= tf.math.log_sigmoid(self._score(samples.adversary))
        return values

    def _score(self, features: tf.Tensor) -> tf.Tensor:
        """D's logit of each example, `(batch,)`: above 0 it takes the example for a teacher's."""
        return tf.reshape(self.discriminator(features, training=True), [-1])

    def _penalty(self) -> tf.Tensor:
        """The penalty on D's weights, with the regularization losses that D brings."""
        kernels = [w for w in self.discriminator.trainable_variables if len(w.shape) >= 2]
        penalty = super()._penalty()
        if self.regularizer == "l1":
            penalty += self.regularizer_weight * sum(tf.reduce_sum(tf.abs(w)) for w in kernels)
        if self.regularizer == "l2":
            penalty += self.regularizer_weight * sum(tf.reduce_sum(w**2) for w in kernels)
        return penalty

    def _check(self, teacher: Outputs, student: Outputs) -> None:
        super()._check(teacher, student)
        if not self._plays:
            return
        real = self._read_shape(teacher, self.teacher_layer)
        fake = self._read_shape(student, self.student_layer)
        self._make_missing(real, fake)
        if not real.is_compatible_with(self.discriminator.input_shape):
            raise InputError(
                f"the discriminator takes {self.discriminator.input_shape}, but layer "
                f"{self.teacher_layer!r} of the teacher gives {tuple(real)}: give it that input "
                "shape"
            )
        projected = fake if self.projection is None else self.projection.output_shape
        if not real.is_compatible_with(projected):
            raise InputError(
                f"D reads {tuple(real)} from the teacher but {tuple(projected)} from the student: "
                "name layers of equal size, or give a projection= that maps one to the other"
            )

    def _read_shape(self, outputs: Outputs, layer: str | None) -> tf.TensorShape:
        """The shape of what `_read` gives, also for specs."""
        shape = (outputs.logits if layer is None else outputs.layers[layer]).shape
        pooled = shape.rank == 4 and not self._reads_maps()
        return shape[:1] + shape[-1:] if pooled else shape

    def _make_missing(self, real: tf.TensorShape, fake: tf.TensorShape) -> None:
        widths = real[-1], fake[-1]
        is_projected = self.projection is not None or widths[0] == widths[1]
        if (self.discriminator is None or not is_projected) and None in widths:
            raise InputError(self._unknown_shape())
        if self.discriminator is None:
            self._build_discriminator(real[1:])
        if not is_projected and real[1:-1] == fake[1:-1]:
            self._build_projection(fake[1:], widths[0])

    def _build_projection(self, shape: tf.TensorShape, width: int) -> None:
        if tf.inside_function():
            raise InputError(self._unknown_shape())
        # On maps it acts on each position, as a 1x1 convolution.
        to_teacher = tf.keras.layers.Dense(width, use_bias=False, dtype="float32")
        with self.distribute_strategy.scope():
            self.projection = tf.keras.Sequential(
                [tf.keras.Input(tuple(shape), dtype="float32"), to_teacher], name="projection"
            )

    def _unknown_shape(self) -> str:
        return (
            "the width of the features is known only when these models run: give discriminator="
            "kd.fully_connected(width), and for unequal widths a projection= from the student's "
            "to the teacher's"
        )


def _require(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise InputError(
            f"{name} {value!r} does not exist; there are: {', '.join(map(repr, allowed))}"
        )
