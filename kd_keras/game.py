"""What the adversarial distillers share: a second player, D, and both players' updates."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from kd_keras import discriminators, gan_forms, schedules
from kd_keras.callbacks import DiscriminatorWatch
from kd_keras.distiller import Distiller, refusing
from kd_keras.errors import InputError
from kd_keras.methods.base import Method, at_least_zero
from kd_keras.schedules import Scheduled
from kd_keras.serialization import deserialize, serialize
from kd_keras.taps import Outputs
from kd_keras.updates import (
    apply_update,
    build_optimizer,
    global_batch_size,
    make_step_counter,
    replicas,
    scale_loss,
    weighted,
)

_LOGGED = (
    *("adversarial", "discriminator_loss", "discriminator_accuracy"),
    *("discriminator_real", "discriminator_fake"),
)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What D reads of a batch.

    Attributes:
        real: The teacher's samples, `(batch, ...)`.
        fake: The student's.
        adversary: The student's under noise, which D is told to be the teacher's, or None.
        labels: The labels, if D reads them.
    """

    real: tf.Tensor
    fake: tf.Tensor
    adversary: tf.Tensor | None = None
    labels: tf.Tensor | None = None

    def fixed(self) -> "Samples":
        """The same, through which no gradient reaches the student."""
        adversary = None if self.adversary is None else tf.stop_gradient(self.adversary)
        return dataclasses.replace(self, fake=tf.stop_gradient(self.fake), adversary=adversary)


class GameDistiller(Distiller):
    """A student that plays against a discriminator D: the base of the adversarial distillers.

    On each batch D is updated first, with the student fixed, then the student against the new D.
    A subclass says what D reads (`_samples`), what D minimises (`_judge`) and what its term in the
    student's loss is (`_fool`).

    Args:
        student: See `Distiller`.
        methods: See `Distiller`.
        label_weight: See `Distiller`.
        discriminator: D: a spec as in `kd_keras.discriminators.build`, or a Keras model.
        adversarial_weight: Factor of the adversarial term, a number or a schedule; 0 is a training
            without D.
        update_ratio: Updates of D and of the student on each batch, whole numbers from 1. Each
            update of D sees fresh noise, each of the student's is a forward pass of its own.
        seed: Of the noise.
        **kwargs: See `Distiller`.

    Raises:
        InputError: See `Distiller`; and for a spec, a model or a ratio that cannot be used.
    """

    #: The names of hyperparameters, and of models, that a subclass adds to the config.
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    own_models: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(
        self,
        student: Any,
        methods: Iterable[Method],
        label_weight: Scheduled,
        *,
        discriminator: Any,
        adversarial_weight: Scheduled,
        update_ratio: Sequence[int],
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(student, None, methods, label_weight, **kwargs)
        for method in self.methods:
            if method.name in _LOGGED:
                raise InputError(
                    f"{method.name!r} is another term's name; give the method another name="
                )
        self.discriminator: Any = None
        self.discriminator_spec: Any = None
        if isinstance(discriminator, str):
            self.discriminator_spec = discriminators.check_spec(discriminator)
        else:
            discriminators.check_model(discriminator)
            self.discriminator = discriminator
        self.adversarial_weight = at_least_zero("adversarial_weight", adversarial_weight)
        self.update_ratio = _whole_numbers(update_ratio)
        self.seed = seed
        self.form = gan_forms.get("saturating")
        self.discriminator_optimizer: Any = None

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
            loss: The label loss, which counts if `label_weight` is above 0; else it may be None.
            metrics: Metrics of the student's output.
            discriminator_optimizer: D's optimizer.
            **kwargs: See `Distiller.compile`.

        Raises:
            InputError: See `Distiller.compile`; and if `label_weight` asks for a label loss.
        """
        if loss is None and max(schedules.extremes(self.label_weight)) > 0:
            raise InputError(
                f"label_weight is {self.label_weight} but there is no label loss: give "
                "compile(loss=...), or label_weight=0 to learn without labels"
            )
        super().compile(optimizer, loss, metrics, **kwargs)
        self.discriminator_optimizer = tf.keras.optimizers.get(discriminator_optimizer)
        with self.distribute_strategy.scope():
            make_step_counter(self.discriminator_optimizer)
        self._compile_arguments.value["discriminator_optimizer"] = self.discriminator_optimizer

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See `Distiller.fit`; a `DiscriminatorWatch` is added to the callbacks."""
        if self._plays and self.teacher is not None and self.discriminator is None:
            raise InputError(self._unknown_shape())
        return super().fit(x, y, *args, **kwargs)

    @refusing
    def train_step(self, data: Any) -> dict[str, Any]:
        """The updates of D, then the student's, from one batch."""
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        teacher = self._teacher_outputs(x)
        d_updates, student_updates = self.update_ratio
        for turn in range(student_updates):
            with tf.GradientTape() as tape:
                student, prediction = self._student_outputs(x)
                terms = self._terms(teacher, student, y, prediction)
                if self._plays:
                    samples = self._samples(x, y, teacher, student)
                    for update in range(d_updates if turn == 0 else 0):
                        if update > 0:
                            samples = self._samples(x, y, teacher, student)
                        self._update_discriminator(samples.fixed(), sample_weight)
                    terms["adversarial"] = self._weight_now(), self._fool(samples)
                loss = self._loss(terms, sample_weight)
                scaled = scale_loss(self.optimizer, loss)
            apply_update(self.optimizer, tape, scaled, self._student_variables())
        self._track_teacher(y, teacher)
        return self._results(x, y, prediction, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The student, D, the methods and the hyperparameters; not the teacher."""
        models = {name: getattr(self, name) for name in self.own_models}
        return {
            **super().get_config(),
            "adversarial_weight": schedules.config(self.adversarial_weight),
            "update_ratio": list(self.update_ratio),
            "seed": self.seed,
            **{name: getattr(self, name) for name in self.hyperparameters},
            "discriminator": self.discriminator_spec,
            **{name: serialize(model) for name, model in models.items() if model is not None},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Distiller":
        """A distiller without its teacher, from what `get_config` gave."""
        models = {name: config.get(name) for name in cls.own_models}
        own = {name: deserialize(m) for name, m in models.items() if isinstance(m, dict)}
        return super().from_config({**config, **own}, custom_objects)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` says, with room for the optimizers' saved state."""
        super().compile_from_config(config)
        if self.discriminator is not None:
            variables = self.discriminator.trainable_variables
            build_optimizer(self.discriminator_optimizer, variables)

    def _samples(self, x: Any, y: Any, teacher: Outputs, student: Outputs) -> Samples:
        """What D reads of a batch, with fresh noise."""
        raise NotImplementedError

    def _judge(self, samples: Samples) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What D minimises, and its scores of the real and of the fake samples, `(batch,)` each."""
        raise NotImplementedError

    def _fool(self, samples: Samples) -> tf.Tensor:
        """The student's adversarial term of each example, `(batch,)`, with D fixed."""
        raise NotImplementedError

    def _unknown_shape(self) -> str:
        """What to do if D cannot be made before the models have run."""
        raise NotImplementedError

    @property
    def _plays(self) -> bool:
        """Whether there is a game at all."""
        return max(schedules.extremes(self.adversarial_weight)) > 0

    def _weight_now(self) -> Any:
        step = tf.convert_to_tensor(self.optimizer.iterations)
        return schedules.at(self.adversarial_weight, step)

    def _learns_without_labels(self) -> bool:
        return self._plays or super()._learns_without_labels()

    def _callbacks(self, given: Any) -> Any:
        return _watched(given) if self._plays and not self.form.is_critic else given

    def _logged_names(self) -> list[str]:
        return [*super()._logged_names(), *(_LOGGED if self._plays else ())]

    def _update_discriminator(self, samples: Samples, sample_weight: Any) -> None:
        """One update of D, from samples that are fixed."""
        with tf.GradientTape() as tape:
            values, real, fake = self._judge(samples)
            values = weighted(values, sample_weight)
            penalty = self._penalty()
            loss = tf.reduce_sum(values) / global_batch_size(values) + penalty / replicas()
            scaled = scale_loss(self.discriminator_optimizer, loss)
        variables = self.discriminator.trainable_variables
        apply_update(self.discriminator_optimizer, tape, scaled, variables)
        logged = self._trackers.value
        logged["discriminator_loss"].update_state(values + penalty)
        logged["discriminator_accuracy"].update_state(self.form.is_right(real, fake))
        logged["discriminator_real"].update_state(self.form.opinion(real))
        logged["discriminator_fake"].update_state(self.form.opinion(fake))

    def _penalty(self) -> tf.Tensor:
        """The regularization losses that D brings."""
        return sum(self.discriminator.losses, tf.constant(0.0))

    def _noise_seed(self) -> tf.Tensor:
        """A seed of the noise for each draw, `(2,)`, the same after a training was resumed."""
        optimizers = self.optimizer, self.discriminator_optimizer
        mine, ds = (tf.cast(tf.convert_to_tensor(o.iterations), tf.int32) for o in optimizers)
        # Both counts together are new at every draw, whatever the ratio of the updates.
        return tf.stack([self.seed + mine - ds, ds])

    def _build_discriminator(self, shape: Any, outputs: int = 1, dropout: float = 0.0) -> None:
        """Make D from its spec, for samples of a known shape."""
        if tf.inside_function():
            raise InputError(self._unknown_shape())
        with self.distribute_strategy.scope():
            self.discriminator = discriminators.build(
                self.discriminator_spec, shape, outputs, dropout
            )


def _whole_numbers(ratio: Sequence[int]) -> tuple[int, int]:
    numbers = tuple(ratio) if isinstance(ratio, Sequence) else ()
    if len(numbers) != 2 or not all(type(n) is int and n >= 1 for n in numbers):
        raise InputError(
            f"update_ratio is {ratio!r}; it must be two whole numbers from 1, the updates of D and "
            "of the student on each batch, such as (1, 1)"
        )
    return numbers


def _watched(callbacks: Any) -> Any:
    """The callbacks that a user gave to `fit`, with a `DiscriminatorWatch` if there is none.

    A `CallbackList` is left as it is: with one, a user has taken over from Keras.
    """
    if isinstance(callbacks, tf.keras.callbacks.CallbackList):
        return callbacks
    given = [] if callbacks is None else tf.nest.flatten(callbacks)
    has_one = any(isinstance(callback, DiscriminatorWatch) for callback in given)
    return given if has_one else [*given, DiscriminatorWatch()]
