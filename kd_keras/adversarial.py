"""Adversarial network compression (Belagiannis, Farshad, Galasso 2018)."""

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import taps
from kd_keras.distiller import Distiller, refusing
from kd_keras.errors import InputError
from kd_keras.methods.base import Method, at_least_zero
from kd_keras.methods.logits_l2 import LogitsL2
from kd_keras.serialization import deserialize, serializable, serialize
from kd_keras.taps import Outputs
from kd_keras.updates import (
    apply_update,
    build_optimizer,
    example_numbers,
    global_batch_size,
    replicas,
    scale_loss,
    weighted,
)

REGULARIZERS = (None, "l1", "l2", "adversarial")
_HYPERPARAMETERS = (
    *("teacher_layer", "student_layer", "regularizer", "regularizer_weight"),
    *("adversarial_weight", "dropout", "seed"),
)
_UNKNOWN_WIDTH = (
    "the width of the features is known only when these models run: give "
    "discriminator=kd.fully_connected(width), and for unequal widths a projection= from the "
    "student's to the teacher's"
)


def fully_connected(width: int, units: Sequence[int] = (128, 256, 128)) -> Any:
    """A discriminator of feature vectors: `(batch, width) -> (batch, 1)`, a logit.

    128-256-128 is the best of the ten that the paper compares.
    """
    hidden = [tf.keras.layers.Dense(n, activation="relu", dtype="float32") for n in units]
    score = tf.keras.layers.Dense(1, dtype="float32", name="score")
    return tf.keras.Sequential(
        [tf.keras.Input((width,), dtype="float32"), *hidden, score], name="discriminator"
    )


@serializable(package="kd_keras")
class AdversarialDistiller(Distiller):
    """A student whose features a discriminator D cannot tell from the teacher's.

    With real samples `f_t` (the teacher's features) and fake samples `f_s` (the student's),

        L_adv = E[log D(f_t)] + E[log(1 - D(f_s))]
        argmin_s max_D  L_adv + lambda * L_data + L_regul(D)

    A step runs the student once, updates D, then the student against the new D. The student's
    gradient never reaches D's weights, nor D's the student's. Labels are not needed.

    `L_regul` keeps D from winning. "adversarial" gives D a third batch, the adversary: the
    student's features under dropout (the noise `z`), labelled as the teacher's. D maximises
    `E[log D(adversary)]` with the rest, and the same samples update the student, which minimises
    `-E[log D(adversary)]` beside `E[log(1 - D(f_s))]`. "l1" and "l2" penalise D's weights.

    Where we differ from the paper: feature maps are averaged over their positions before a
    discriminator that reads vectors, and a student of another width than the teacher's is
    projected linearly to it; the projection is trained with the student.

    Args:
        student: See `Distiller`.
        teacher: See `Distiller`.
        methods: `lambda * L_data` and what else the student should learn; by default the L_data
            of the paper with lambda 1, which is `[LogitsL2(weight=2.0)]`.
        label_weight: Factor of the label loss; 0 by default, as in the paper.
        discriminator: A Keras model `(batch, width) -> (batch, 1)` that gives a logit; by default
            `fully_connected(width)`. One with a 4-dimensional input reads the feature maps.
        teacher_layer: The teacher's layer that D reads; None: its logits.
        student_layer: The student's layer that D reads; None: its logits.
        regularizer: "adversarial", "l1", "l2" or None.
        regularizer_weight: Factor of the "l1" and "l2" penalties.
        adversarial_weight: Factor of the adversarial terms in the student's loss.
        dropout: Rate of the adversary's dropout, in [0, 1).
        projection: A Keras model from the student's features to the teacher's width; made if the
            widths differ.
        seed: Of the adversary's dropout.
        **kwargs: See `Distiller`.

    Raises:
        InputError: See `Distiller`; and if D's input does not fit the features.

    Example:
        >>> import kd_keras as kd
        >>> def net(width):
        ...     inputs = tf.keras.Input((4,))
        ...     features = tf.keras.layers.Dense(width, "relu", name="features")(inputs)
        ...     return tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="logits")(features))
        >>> distiller = kd.AdversarialDistiller(net(4), net(32))
        >>> distiller.compile(optimizer="adam", discriminator_optimizer="adam")
        >>> history = distiller.fit(tf.random.normal((32, 4)), verbose=0)
        >>> sorted(history.history)
        ['adversarial', 'discriminator_accuracy', 'discriminator_loss', 'logits_l2', 'loss']
    """

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        methods: Iterable[Method] | None = None,
        label_weight: float = 0.0,
        *,
        discriminator: Any = None,
        teacher_layer: str | None = "features",
        student_layer: str | None = "features",
        regularizer: str | None = "adversarial",
        regularizer_weight: float = 1e-4,
        adversarial_weight: float = 1.0,
        dropout: float = 0.5,
        projection: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        methods = [LogitsL2(weight=2.0)] if methods is None else methods
        super().__init__(student, None, methods, label_weight, **kwargs)
        if regularizer not in REGULARIZERS:
            allowed = ", ".join(map(repr, REGULARIZERS))
            raise InputError(f"regularizer {regularizer!r} does not exist; there are: {allowed}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout!r}; it must be at least 0 and below 1")
        if discriminator is not None:
            _require_discriminator(discriminator)
        self.discriminator = discriminator
        self.projection = projection
        self.teacher_layer, self.student_layer = teacher_layer, student_layer
        self.regularizer = regularizer
        self.regularizer_weight = at_least_zero("regularizer_weight", regularizer_weight)
        self.adversarial_weight = at_least_zero("adversarial_weight", adversarial_weight)
        self.dropout, self.seed = dropout, seed
        self.discriminator_optimizer: Any = None
        self.teacher = teacher

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        *,
        discriminator_optimizer: Any = "rmsprop",
        **kwargs: Any,
    ) -> None:
        """Configure the training.

        Args:
            optimizer: The student's optimizer.
            loss: The label loss, which counts if `label_weight` is above 0; may be None.
            metrics: Metrics of the student's output.
            discriminator_optimizer: D's optimizer.
            **kwargs: See `Distiller.compile`.
        """
        super().compile(optimizer, loss, metrics, **kwargs)
        self.discriminator_optimizer = tf.keras.optimizers.get(discriminator_optimizer)
        self._compile_arguments.value["discriminator_optimizer"] = discriminator_optimizer

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See `Distiller.fit`."""
        if self.teacher is not None and self.discriminator is None:
            raise InputError(_UNKNOWN_WIDTH)
        return super().fit(x, y, *args, **kwargs)

    @refusing
    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of D and one of the student, from one batch."""
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        teacher = self._teacher_outputs(x)
        with tf.GradientTape() as tape:
            student, prediction = self._student_outputs(x)
            terms = self._terms(teacher, student, y, prediction)
            real, fake = self._features(teacher, student)
            adversary = self._adversary(fake)
            self._update_discriminator(real, fake, adversary, sample_weight)
            terms["adversarial"] = self.adversarial_weight, self._fooling(fake, adversary)
            loss = self._loss(terms, sample_weight)
            scaled = scale_loss(self.optimizer, loss)
        apply_update(self.optimizer, tape, scaled, self._student_variables())
        self._track_teacher(y, teacher)
        return self._results(x, y, prediction, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The student, D, the methods and the hyperparameters; not the teacher."""
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in _HYPERPARAMETERS},
            "discriminator": self.discriminator and serialize(self.discriminator),
            "projection": self.projection and serialize(self.projection),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "AdversarialDistiller":
        """A distiller without its teacher, from what `get_config` gave."""
        models = {name: config[name] for name in ("discriminator", "projection") if config[name]}
        restored = {name: deserialize(model) for name, model in models.items()}
        return super().from_config({**config, **restored}, custom_objects)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` says, with room for the optimizers' saved state."""
        super().compile_from_config(config)
        if self.discriminator is not None:
            variables = self.discriminator.trainable_variables
            build_optimizer(self.discriminator_optimizer, variables)

    def _learns_without_labels(self) -> bool:
        return True

    def _logged_names(self) -> list[str]:
        own = ["adversarial", "discriminator_loss", "discriminator_accuracy"]
        return [*super()._logged_names(), *own]

    def _student_variables(self) -> list:
        projection = self.projection.trainable_variables if self.projection else []
        return [*super()._student_variables(), *projection]

    def _teacher_layers(self) -> list[str]:
        own = [self.teacher_layer] if self.teacher_layer else []
        return [*super()._teacher_layers(), *own]

    def _student_layers(self) -> list[str]:
        own = [self.student_layer] if self.student_layer else []
        return [*super()._student_layers(), *own]

    def _features(self, teacher: Outputs, student: Outputs) -> tuple[tf.Tensor, tf.Tensor]:
        """The real and the fake samples, as D reads them."""
        real = self._read(teacher, self.teacher_layer)
        fake = self._read(student, self.student_layer)
        return real, fake if self.projection is None else self.projection(fake)

    def _read(self, outputs: Outputs, layer: str | None) -> tf.Tensor:
        features = outputs.logits if layer is None else outputs.layers[layer]
        if features.shape.rank == 4 and not self._reads_maps():
            features = tf.reduce_mean(features, axis=(1, 2))
        return tf.cast(features, tf.float32)

    def _reads_maps(self) -> bool:
        return self.discriminator is not None and len(self.discriminator.input_shape) == 4

    def _adversary(self, fake: tf.Tensor) -> tf.Tensor | None:
        """The fake samples under dropout, if there are adversarial samples at all.

        The noise is drawn for the global batch, by the number of the update: so it does not depend
        on the number of replicas, and a resumed training draws what an uninterrupted one would.
        """
        if self.regularizer != "adversarial":
            return None
        first, examples = example_numbers(fake)
        step = tf.cast(tf.convert_to_tensor(self.discriminator_optimizer.iterations), tf.int32)
        shape = tf.concat([[examples], tf.shape(fake)[1:]], axis=0)
        noise = tf.random.stateless_uniform(shape, seed=tf.stack([self.seed, step]))
        kept = noise[first : first + tf.shape(fake)[0]] >= self.dropout
        return tf.where(kept, fake / (1 - self.dropout), 0.0)

    def _update_discriminator(
        self, real: tf.Tensor, fake: tf.Tensor, adversary: tf.Tensor | None, sample_weight: Any
    ) -> None:
        """Maximise L_adv + L_regul over D, with the student fixed."""
        fake = tf.stop_gradient(fake)
        with tf.GradientTape() as tape:
            real_score, fake_score = self._score(real), self._score(fake)
            values = -tf.math.log_sigmoid(real_score) - tf.math.log_sigmoid(-fake_score)
            if adversary is not None:
                values -= tf.math.log_sigmoid(self._score(tf.stop_gradient(adversary)))
            values = weighted(values, sample_weight)
            penalty = self._penalty()
            loss = tf.reduce_sum(values) / global_batch_size(values) + penalty / replicas()
            scaled = scale_loss(self.discriminator_optimizer, loss)
        variables = self.discriminator.trainable_variables
        apply_update(self.discriminator_optimizer, tape, scaled, variables)
        correct = tf.concat([real_score > 0, fake_score < 0], axis=0)
        self._trackers.value["discriminator_loss"].update_state(values + penalty)
        self._trackers.value["discriminator_accuracy"].update_state(correct)

    def _fooling(self, fake: tf.Tensor, adversary: tf.Tensor | None) -> tf.Tensor:
        """The student's adversarial terms of each example, with D fixed."""
        values = tf.math.log_sigmoid(-self._score(fake))
        if adversary is not None:
            values -= tf.math.log_sigmoid(self._score(adversary))
        return values

    def _score(self, features: tf.Tensor) -> tf.Tensor:
        """D's logit of each example, `(batch,)`: above 0 it takes the example for a teacher's."""
        return tf.reshape(self.discriminator(features, training=True), [-1])

    def _penalty(self) -> tf.Tensor:
        """The penalty on D's weights, with the regularization losses that D brings."""
        penalty = sum(self.discriminator.losses, tf.constant(0.0))
        kernels = [w for w in self.discriminator.trainable_variables if len(w.shape) >= 2]
        if self.regularizer == "l1":
            penalty += self.regularizer_weight * sum(tf.reduce_sum(tf.abs(w)) for w in kernels)
        if self.regularizer == "l2":
            penalty += self.regularizer_weight * sum(tf.reduce_sum(w**2) for w in kernels)
        return penalty

    def _regularization(self) -> tf.Tensor:
        own = self.projection.losses if self.projection else []
        return super()._regularization() + sum(own, tf.constant(0.0))

    def _check(self, teacher: Outputs, student: Outputs) -> None:
        super()._check(teacher, student)
        real = self._read_shape(teacher, self.teacher_layer)
        fake = self._read_shape(student, self.student_layer)
        if self.discriminator is None or (self.projection is None and real[-1] != fake[-1]):
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
        if tf.inside_function() or None in (real[-1], fake[-1]):
            raise InputError(_UNKNOWN_WIDTH)
        with self.distribute_strategy.scope():
            if self.discriminator is None:
                self.discriminator = fully_connected(real[-1])
            if self.projection is None and real.rank == 2 and real[-1] != fake[-1]:
                to_teacher = tf.keras.layers.Dense(real[-1], use_bias=False, dtype="float32")
                self.projection = tf.keras.Sequential(
                    [tf.keras.Input((fake[-1],), dtype="float32"), to_teacher], name="projection"
                )


def _require_discriminator(model: Any) -> None:
    """Refuse a model that does not give one logit an example."""
    if taps.input_specs(model) is None:
        raise InputError(
            f"discriminator {model.name!r} is not a built Functional or Sequential model: begin it "
            "with tf.keras.Input((width,))"
        )
    score = taps.trace(model, from_logits=True, role="discriminator").logits
    if score.shape.rank not in (1, 2) or (score.shape.rank == 2 and score.shape[-1] != 1):
        raise InputError(
            f"discriminator {model.name!r} gives {score.shape}; it must give one logit an example, "
            "(batch, 1)"
        )
