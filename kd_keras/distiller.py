"""Train a student under a frozen teacher, with Keras' own `fit`."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from kd_keras import labels, schedules, taps
from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.labels import LabelLoss
from kd_keras.methods.base import Context, Method, at_least_zero, distinctly_named
from kd_keras.schedules import Scheduled
from kd_keras.serialization import deserialize, serializable, serialize
from kd_keras.streaming import streamed
from kd_keras.taps import Outputs
from kd_keras.teachers import Teacher, as_teacher
from kd_keras.teachers.base import refusal_in
from kd_keras.updates import (
    apply_update,
    build_optimizer,
    global_batch_size,
    make_step_counter,
    replicas,
    scale_loss,
    weighted,
)

#: A term of the loss: its weight, a number or a scalar, and its value for each example, `(batch,)`.
Term = tuple[Any, tf.Tensor]

_RESERVED_NAMES = (
    *("loss", "label_loss", "teacher_accuracy"),
    *("adversarial", "discriminator_loss", "discriminator_accuracy"),
)


class _Untracked:
    """Keeps a value out of its owner's variables, checkpoints and saved files."""

    def __init__(self, value: Any) -> None:
        self.value = value


def refusing(step: Callable) -> Callable:
    """Keep the InputError of a training step, which autograph wraps, for `fit` to raise."""

    @functools.wraps(step)
    def kept(self: Any, data: Any) -> Any:
        try:
            return step(self, data)
        except InputError as refusal:
            self._refusal.value = refusal
            raise

    return kept


@serializable(package="kd_keras")
class Distiller(tf.keras.Model):
    """A student that learns from a teacher, and from labels if there are any.

    The loss of a step is, with the mean over the global batch (also under a distribution strategy),

        label_weight * loss(y, student(x)) + sum(method.weight * method) + student.losses

    where `student.losses` are the student's own regularization losses. `evaluate` and `predict`
    are the student's; the `val_loss` is its label loss with `student.losses`. The teacher runs in
    inference mode and is not changed in any way; it is not part of the distiller's weights or
    files.

    Args:
        student: The model to train. It gives logits; see `from_logits`.
        teacher: The model to learn from, or several that teach together; see
            `kd_keras.teachers.as_teacher`. May be set later, or anew after loading, as
            `distiller.teacher = model`.
        methods: The terms of the loss beside the label loss.
        label_weight: Factor of the label loss, at least 0; a number or a schedule.
        from_logits: False says that the models end in softmax: their logits are then the logarithm
            of their probabilities, clipped at 1e-7. True, the default, refuses such models, whose
            probabilities would be taken for logits in silence.
        teacher_from_logits: The same for the teacher alone, where it differs from the student.
        projections: Models from a student's layer to the shape of the teacher's, by
            "method name/layer"; what is missing is made as the methods ask. They are trained with
            the student, and are no part of it.
        **kwargs: `name` and `dtype`, as in `tf.keras.Model`.

    Raises:
        InputError: If a layer that a method reads is missing, or shapes do not fit.

    Example:
        >>> import kd_keras as kd
        >>> def net(width):
        ...     layers = [tf.keras.layers.Dense(width, "relu"), tf.keras.layers.Dense(3)]
        ...     return tf.keras.Sequential([tf.keras.Input((4,)), *layers])
        >>> distiller = kd.Distiller(net(4), net(32), methods=[kd.SoftTargets(temperature=2.0)])
        >>> distiller.compile(optimizer="adam", loss=None)  # without labels
        >>> history = distiller.fit(tf.random.normal((32, 4)), verbose=0)
        >>> sorted(history.history)
        ['loss', 'soft_targets']
    """

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        methods: Iterable[Method] = (),
        label_weight: Scheduled = 1.0,
        *,
        from_logits: bool = True,
        teacher_from_logits: bool | None = None,
        projections: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.student = student
        self.projections = projections or {}
        self._methods = _Untracked(distinctly_named(methods, _RESERVED_NAMES))
        self.label_weight = at_least_zero("label_weight", label_weight)
        self.from_logits = from_logits
        self.teacher_from_logits = (
            from_logits if teacher_from_logits is None else teacher_from_logits
        )
        self._label_loss: LabelLoss | None = None
        self._trackers = _Untracked({})
        self._compile_arguments = _Untracked({})
        self._refusal = _Untracked(None)
        self.built = bool(getattr(student, "built", False))
        self.teacher = teacher

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would track a teacher that is assigned, before the property can hide it.
        if name == "teacher":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        # Keras saves the models that it finds by walking dir(); the teacher is no part of a file.
        return [name for name in super().__dir__() if name != "teacher"]

    @property
    def teacher(self) -> Any:
        """What the student learns from, as it was given, or None."""
        return self._teacher.value

    @teacher.setter
    def teacher(self, teacher: Any) -> None:
        self._teacher = _Untracked(teacher)
        if teacher is not None:
            self._teaching = _Untracked(as_teacher(teacher, from_logits=self.teacher_from_logits))
            self.supports_jit = self._teaching.value.supports_jit
            self.train_function = None  # the traced step has the last teacher in it
            self._check_models()

    @property
    def needs_labels(self) -> bool:
        """Whether a term beside the label loss is computed from labels."""
        return any(method.needs_labels for method in self.methods)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The terms of the loss beside the label loss."""
        return self._methods.value

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The teacher's layers that are read, beside its logits."""
        return tuple(self._teacher_layers())

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        *,
        teacher_accuracy: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configure the training; the arguments are those of `tf.keras.Model.compile`.

        Args:
            optimizer: The student's optimizer.
            loss: The label loss; None trains without labels.
            metrics: Metrics of the student's output.
            teacher_accuracy: Whether to log the teacher's accuracy on the training batches.
            **kwargs: `weighted_metrics`, `run_eagerly`, `steps_per_execution`, `jit_compile`.

        Raises:
            InputError: If the loss and the student disagree on logits or probabilities, or there
                is nothing to learn from.
        """
        if loss is None and not self._learns_without_labels():
            raise InputError("nothing to learn from: give methods, or compile with a label loss")
        super().compile(optimizer=optimizer, metrics=metrics, **kwargs)
        with self.distribute_strategy.scope():
            make_step_counter(self.optimizer)
        self._label_loss = LabelLoss(loss, from_logits=self.from_logits) if loss else None
        arguments = {"optimizer": optimizer, "loss": loss, "metrics": metrics}
        arguments |= {"teacher_accuracy": teacher_accuracy, **kwargs}
        self._compile_arguments = _Untracked(arguments)
        names = ["loss", *self._logged_names()]
        if teacher_accuracy:
            names.append("teacher_accuracy")
        self._trackers = _Untracked({name: tf.keras.metrics.Mean(name=name) for name in names})

    @property
    def metrics(self) -> list:
        """The means of the loss and of each of its terms, then the user's metrics."""
        own = self._trackers.value
        return [*own.values(), *(m for m in super().metrics if m.name not in own)]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The student's output."""
        return self.student(inputs, training=training)

    def build(self, input_shape: Any) -> None:
        """Build the student."""
        if not self.student.built:
            self.student.build(input_shape)
        self.built = True

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train the student; the arguments are those of `tf.keras.Model.fit`.

        x may also be `kd_keras.data.Views`, with its labels. With a teacher whose outputs are
        recorded, arrays are taken as the views that were recorded.

        Raises:
            InputError: If there is no teacher or nothing to train, labels are out of range, or the
                data is not what the teacher was recorded on.
        """
        if self.teacher is None:
            raise InputError("the distiller has no teacher: set distiller.teacher = model")
        self._check_trainable()
        sparse = self._label_loss is not None and self._label_loss.sparse
        if sparse or self.needs_labels:
            given = x.y if isinstance(x, Views) else y
            labels.check_values(given, classes=taps.classes_of(self.student))
        signature = inspect.signature(tf.keras.Model.fit)
        arguments = dict(signature.bind(self, x, y, *args, **kwargs).arguments)
        del arguments["self"]
        arguments["callbacks"] = self._callbacks(arguments.get("callbacks"))
        if self.jit_compile and not self._teaching.value.supports_jit:
            raise InputError(
                "jit_compile=True cannot compile a step whose teacher runs outside of TensorFlow: "
                "compile with jit_compile=False"
            )
        self._refusal = _Untracked(None)
        try:
            return super().fit(**streamed(self._teaching.value, arguments))
        except Exception as error:
            refusal = self._refusal.value or refusal_in(error) or labels.refusal_in(error)
            if refusal is None:
                raise
            raise refusal from None

    @refusing
    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of the student from one batch."""
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        teacher = self._teacher_outputs(x)
        with tf.GradientTape() as tape:
            student, prediction = self._student_outputs(x)
            terms = self._terms(teacher, student, y, prediction)
            loss = self._loss(terms, sample_weight)
            scaled = scale_loss(self.optimizer, loss)
        apply_update(self.optimizer, tape, scaled, self._student_variables())
        self._track_teacher(y, teacher)
        return self._results(x, y, prediction, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate the student on one batch; the teacher is not run."""
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        if self.teacher is not None:
            x = self._teaching.value.student_inputs(x)
        prediction = self.student(x, training=False)
        values = tf.zeros(tf.shape(prediction)[:1])
        if self._label_loss is not None and y is not None:
            values = weighted(self._label_loss(y, prediction), sample_weight)
        self._trackers.value["loss"].update_state(values + self._regularization())
        results = self._results(x, y, prediction, sample_weight)
        metrics = {k: v for k, v in results.items() if k not in self._trackers.value}
        # Without a label loss, the student has none to report beside its metrics.
        return (
            metrics if self._label_loss is None and metrics else {"loss": results["loss"]} | metrics
        )

    def get_config(self) -> dict[str, Any]:
        """The student, the methods and the weights; not the teacher."""
        return {
            "name": self.name,
            "student": serialize(self.student),
            "methods": [serialize(method) for method in self.methods],
            "projections": {name: serialize(model) for name, model in self.projections.items()},
            "label_weight": schedules.config(self.label_weight),
            "from_logits": self.from_logits,
            "teacher_from_logits": self.teacher_from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Distiller":
        """A distiller without its teacher, from what `get_config` gave."""
        del custom_objects  # Keras has them in scope
        restored = {
            "student": deserialize(config["student"]),
            "methods": [deserialize(method) for method in config["methods"]],
            "projections": {k: deserialize(model) for k, model in config["projections"].items()},
        }
        return cls(**{**config, **restored})

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile`."""
        return serialize(self._compile_arguments.value)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` says, with room for the optimizer's saved state."""
        self.compile(**deserialize(config))
        build_optimizer(self.optimizer, self._student_variables())

    def _learns_without_labels(self) -> bool:
        return bool(self.methods)

    def _callbacks(self, given: Any) -> Any:
        """The callbacks of `fit`: those that a user gave, and this distiller's own."""
        return given

    def _logged_names(self) -> list[str]:
        names = [method.name for method in self.methods]
        return ["label_loss", *names] if self._label_loss is not None else names

    def _student_variables(self) -> list:
        """What the student's update trains."""
        own = [w for model in self.projections.values() for w in model.trainable_variables]
        return [*self.student.trainable_variables, *own]

    def _regularization(self) -> tf.Tensor:
        """The regularization losses of what the student's update trains."""
        models = [self.student, *self.projections.values()]
        losses = (tf.cast(loss, tf.float32) for model in models for loss in model.losses)
        return sum(losses, tf.constant(0.0))

    def _teacher_layers(self) -> list[str]:
        return [name for method in self.methods for name in method.teacher_layers]

    def _student_layers(self) -> list[str]:
        return [name for method in self.methods for name in method.student_layers]

    def _teacher_outputs(self, x: Any) -> Outputs:
        """The teacher's outputs on a batch, in inference mode and without gradient."""
        outputs = self._teaching.value.outputs(x, self._teacher_layers())
        return Outputs(
            tf.stop_gradient(outputs.logits),
            {path: tf.stop_gradient(value) for path, value in outputs.layers.items()},
            tuple((tf.stop_gradient(logits), weight) for logits, weight in outputs.members),
        )

    def _student_outputs(self, x: Any) -> tuple[Outputs, tf.Tensor]:
        """The student's outputs on a batch in training, and its output as the model gave it."""
        x = self._teaching.value.student_inputs(x)
        output, layers = taps.forward(self.student, x, self._student_layers(), training=True)
        logits = taps.as_logits(output, from_logits=self.from_logits, role="student")
        self.built = True
        return Outputs(logits, layers), output

    def _terms(
        self, teacher: Outputs, student: Outputs, y: Any, prediction: tf.Tensor
    ) -> dict[str, Term]:
        step = tf.convert_to_tensor(self.optimizer.iterations)
        terms: dict[str, Term] = {}
        if self._label_loss is not None:
            if y is not None:
                weight = schedules.at(self.label_weight, step)
                terms["label_loss"] = weight, self._label_loss(y, prediction)
            elif max(schedules.extremes(self.label_weight)) > 0:
                raise InputError(
                    f"label_weight is {self.label_weight} but the data has no labels: give labels, "
                    "or compile(loss=None)"
                )
        self._check(teacher.specs(), student.specs())
        context = Context(step, y)
        for method in self.methods:
            if method.needs_labels and y is None:
                raise InputError(f"{method.name} needs labels, but the data has none: give labels")
            value = method(teacher, self._projected(method, student), context)
            terms[method.name] = schedules.at(method.weight, step), value
        return terms

    def _projected(self, method: Method, student: Outputs) -> Outputs:
        """The student's outputs, or their specs, as a method sees them."""
        layers = dict(student.layers)
        for path in method.student_layers:
            model = self.projections.get(f"{method.name}/{path}")
            if model is not None and isinstance(layers[path], tf.TensorSpec):
                layers[path] = tf.TensorSpec(model.output_shape, tf.float32)
            elif model is not None:
                layers[path] = model(layers[path], training=True)
        return dataclasses.replace(student, layers=layers)

    def _loss(self, terms: dict[str, Term], sample_weight: Any) -> tf.Tensor:
        """This replica's share of the mean loss over the global batch; tracks each term."""
        if not terms:
            raise InputError("nothing to learn from: give methods, or data with labels")
        shares = []
        for name, (weight, values) in terms.items():
            values = weighted(values, sample_weight)
            self._trackers.value[name].update_state(values)
            # A constant 0 is left out, so that what only it depends on is not even computed.
            if tf.is_tensor(weight) or weight != 0:
                shares.append(weight * values)
        total = tf.add_n(shares) if shares else tf.zeros_like(values)
        regularization = self._regularization()
        self._trackers.value["loss"].update_state(total + regularization)
        return tf.reduce_sum(total) / global_batch_size(total) + regularization / replicas()

    def _track_teacher(self, y: Any, teacher: Outputs) -> None:
        tracker = self._trackers.value.get("teacher_accuracy")
        if tracker is None or y is None:
            return
        y = tf.convert_to_tensor(y)
        one_hot = y.shape.rank == 2 and y.shape[-1] != 1
        classes = tf.argmax(y, axis=-1) if one_hot else tf.reshape(tf.cast(y, tf.int64), [-1])
        tracker.update_state(tf.equal(classes, tf.argmax(teacher.log_probabilities(), axis=-1)))

    def _results(self, x: Any, y: Any, prediction: Any, sample_weight: Any) -> dict[str, Any]:
        if y is not None:
            return self.compute_metrics(x, y, prediction, sample_weight)
        return {name: tracker.result() for name, tracker in self._trackers.value.items()}

    def _check_models(self) -> None:
        """Refuse models that do not fit each other or the methods.

        Both are traced once, on no data. Models that are not built yet are checked when the first
        batch comes.
        """
        teacher: Teacher = self._teaching.value
        for path in self._student_layers():
            taps.find_layer(self.student, path, "student")
        teacher_specs = teacher.specs(self._teacher_layers())
        inputs = teacher.input_specs(), taps.input_specs(self.student)
        if teacher_specs is None or inputs[1] is None:
            return
        if inputs[0] is not None:
            taps.require_equal_inputs(*inputs)
        student_specs = taps.trace(
            self.student, self._student_layers(), from_logits=self.from_logits, role="student"
        )
        self._make_projections(teacher_specs, student_specs)
        self._check(teacher_specs, student_specs)

    def _make_projections(self, teacher: Outputs, student: Outputs) -> None:
        """Make the projections that the methods ask for and that are not there yet."""
        made = dict(self.projections)
        with self.distribute_strategy.scope():
            for method in self.methods:
                if not any(name.startswith(f"{method.name}/") for name in made):
                    own = method.projections(teacher, student)
                    made |= {f"{method.name}/{path}": model for path, model in own.items()}
        if len(made) > len(self.projections):
            self.projections = made

    def _check_trainable(self) -> None:
        if self.student.built and not self._student_variables():
            raise InputError(
                f"nothing to train: the student {self.student.name!r} has no trainable weights; "
                "set trainable = True on the layers to train"
            )

    def _check(self, teacher: Outputs, student: Outputs) -> None:
        """Refuse outputs, given by their specs, that do not fit."""
        for method in self.methods:
            method.check(teacher, self._projected(method, student))
