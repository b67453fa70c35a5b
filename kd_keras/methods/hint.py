"""Hints (Romero et al. 2015, "FitNets: Hints for Thin Deep Nets")."""

from typing import Any

import tensorflow as tf

from kd_keras import maps, projections
from kd_keras.errors import InputError
from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs

_REGRESSORS = ("conv", "1x1", "dense", None)
_RESIZES = (None, "pool", "bilinear")


def hint(
    teacher_values: tf.Tensor, student_values: tf.Tensor, *, resize: str | None = None
) -> tf.Tensor:
    """`1/2 * ||u - v||^2` of each example, summed over all values of the layer (equation 3).

    Args:
        teacher_values: `u`, the hint, `(batch, ...)`.
        student_values: `v`, the regressor's output, of the same shape; maps may differ in height
            and width if they are resized.
        resize: None; "pool" averages the larger of the two maps down to the smaller; "bilinear"
            brings the student's to the teacher's size.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    teacher_values, student_values = (
        tf.cast(values, tf.float32) for values in (teacher_values, student_values)
    )
    if resize is not None:
        sizes = _sizes(teacher_values.shape, student_values.shape, resize, "the two maps")
        teacher_values = maps.average_pooled(teacher_values, sizes)
        if resize == "pool":
            student_values = maps.average_pooled(student_values, sizes)
        else:
            student_values = tf.image.resize(student_values, sizes)
    difference = tf.math.squared_difference(teacher_values, student_values)
    return 0.5 * tf.reduce_sum(difference, axis=list(range(1, difference.shape.rank)))


@serializable(package="kd_keras")
class Hint(Method):
    """A layer in the middle of the teacher as the target of a layer in the middle of the student.

    Made to start deep and thin students, which train badly from the top alone: a first stage on
    this term alone (`label_weight=0`) trains the student up to the guided layer, and a second
    trains it all on labels and soft targets whose weight falls. A hint also works
    beside other terms. A hint low in the nets leaves the student free; one near the top ties it.

    Between the guided layer and the hint lies a regressor, so that the two may differ in width. It
    is made by the distiller, trained with the student, kept in the distiller's files, and no part
    of the student:

    - "conv", the paper's: a convolution without padding whose kernel takes the student's map to the
      teacher's size, `k = student - teacher + 1` a side, which is 1x1 where the sizes are equal;
    - "1x1": the same for maps of equal size only, so that it stays small;
    - "dense": from all values to all values. Between maps it has very many weights, which is why
      the paper has the convolution;
    - None: none; the layers must then have the same shape.

    A vector counts as a map of one pixel: for it the first three are one dense layer. Where the
    models' shapes are not known before they run (subclassed models) no regressor can be made, and
    the layers must have the same shape.

    Maps may also be resized, after the regressor, so that they meet at one size: "pool" averages
    the larger one, student's or teacher's, down to the smaller, whose size must divide it (the
    mean, unlike the maximum, gives the same before a linear regressor as after it); "bilinear"
    brings the student's to the teacher's size, whatever it is.

    The paper gives the regressor the non-linearity of the hint (`activation="relu"` for a layer
    that ends in ReLU). The default is linear: it can reach any hint, and never dies.

    Args:
        teacher_layer: The hint, by its name in the teacher.
        student_layer: The guided layer, by its name in the student.
        regressor: "conv", "1x1", "dense" or None.
        resize: None, "pool" or "bilinear"; for maps.
        activation: Of the regressor: the name of a Keras activation, or None.
        seed: Of the regressor's first weights.
        weight: Factor of the term in the student's loss; a number or a schedule. The term grows
            with the size of the layer: begin with one over the number of its values.
        name: The term's name in the logs.

    Raises:
        InputError: For an unknown regressor, resize or activation.

    Example:
        >>> middle = Hint(teacher_layer="stage2", student_layer="stage2", resize="pool")
        >>> middle.student_layers, middle.regressor
        (('stage2',), 'conv')
    """

    hyperparameters = (
        *("teacher_layer", "student_layer"),
        *("regressor", "resize", "activation", "seed"),
    )
    reads_logits = False

    def __init__(
        self,
        *,
        teacher_layer: str = "features",
        student_layer: str = "features",
        regressor: str | None = "conv",
        resize: str | None = None,
        activation: str | None = None,
        seed: int = 0,
        weight: Scheduled = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.teacher_layer = teacher_layer
        self.student_layer = student_layer
        self.regressor = _one_of("regressor", regressor, _REGRESSORS)
        self.resize = _one_of("resize", resize, _RESIZES)
        self.activation = _activation(activation)
        self.seed = int(seed)
        if regressor == "dense" and resize is not None:
            raise InputError(
                f"resize is {resize!r}, but the regressor 'dense' reaches any size: leave resize "
                "out, or take the regressor '1x1'"
            )

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """See `Method.teacher_layers`."""
        return (self.teacher_layer,)

    @property
    def student_layers(self) -> tuple[str, ...]:
        """See `Method.student_layers`."""
        return (self.student_layer,)

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `hint`."""
        values = teacher.layers[self.teacher_layer], student.layers[self.student_layer]
        return hint(*values, resize=self.resize)

    def check(self, teacher: Outputs, student: Outputs) -> None:
        """See `Method.check`."""
        shapes = self._shapes(teacher, student)
        target, found = self._resized(*shapes)
        if target.is_compatible_with(found):
            return
        cure = (
            "give a regressor, such as regressor='1x1', or name layers of equal shape"
            if self.regressor is None
            else "no regressor lies between them, since it is made from shapes that are known "
            "before the models run: give both models as Functional or Sequential ones that begin "
            "with an Input, or name layers of equal shape"
        )
        raise InputError(f"{self._pair(shapes)}, which cannot be compared: {cure}")

    def projections(self, teacher: Outputs, student: Outputs) -> dict[str, Any]:
        """See `Method.projections`."""
        if self.regressor is None:
            return {}
        shapes = self._shapes(teacher, student)
        target, source = (shape.as_list()[1:] for shape in shapes)
        if None in target or None in source:
            raise InputError(
                f"{self._pair(shapes)}; a regressor needs sizes that are known: build both models "
                "for an Input of fixed height and width"
            )
        options: dict[str, Any] = {"activation": self.activation, "seed": self.seed}
        if self.regressor == "dense" or len(target) == 1:
            return {self.student_layer: projections.dense(source, target, **options)}
        kernel = self._kernel(*shapes)
        made = projections.convolution(source, target[-1], kernel, **options)
        return {self.student_layer: made}

    def _kernel(self, teacher: tf.TensorShape, student: tf.TensorShape) -> tuple[int, int]:
        """The kernel, height and width, that takes the student's map to the teacher's size."""
        resized = self._resized(teacher, student)
        sizes = [maps.size(shape, self._both) for shape in resized]
        kernel = sizes[1][0] - sizes[0][0] + 1, sizes[1][1] - sizes[0][1] + 1
        if self.regressor == "1x1" and kernel != (1, 1):
            raise InputError(
                f"{self._pair((teacher, student))}; the regressor '1x1' needs maps of equal size: "
                "give resize='pool' or resize='bilinear', or regressor='conv' for a larger student"
            )
        if min(kernel) < 1:
            raise InputError(
                f"{self._pair((teacher, student))}; the regressor 'conv' can make a map only "
                "smaller: give resize='pool' or resize='bilinear', or name other layers"
            )
        return kernel

    def _shapes(self, teacher: Outputs, student: Outputs) -> tuple[tf.TensorShape, tf.TensorShape]:
        shapes = (
            teacher.layers[self.teacher_layer].shape,
            student.layers[self.student_layer].shape,
        )
        if shapes[0].rank != shapes[1].rank:
            raise InputError(
                f"{self._pair(shapes)}: name two maps (batch, height, width, channels), or two "
                "vectors (batch, width)"
            )
        if self.resize is not None and shapes[0].rank != 4:
            raise InputError(
                f"{self._pair(shapes)}; resize={self.resize!r} is for maps (batch, height, width, "
                "channels): leave it out"
            )
        return shapes

    def _resized(
        self, teacher: tf.TensorShape, student: tf.TensorShape
    ) -> tuple[tf.TensorShape, tf.TensorShape]:
        """The shapes after resizing."""
        if self.resize is None:
            return teacher, student
        size = _sizes(teacher, student, self.resize, self._both)
        return tuple(tf.TensorShape([None, *size, shape[-1]]) for shape in (teacher, student))

    @property
    def _both(self) -> str:
        return (
            f"{self.name}: layer {self.teacher_layer!r} of the teacher and "
            f"{self.student_layer!r} of the student"
        )

    def _pair(self, shapes: Any) -> str:
        teacher, student = (tuple(shape.as_list()[1:]) for shape in shapes)
        return (
            f"{self.name}: layer {self.teacher_layer!r} of the teacher is {teacher}, "
            f"{self.student_layer!r} of the student {student}"
        )


def _sizes(
    teacher: tf.TensorShape, student: tf.TensorShape, resize: str, what: str
) -> tuple[int, int]:
    """The size at which the two maps meet."""
    if resize == "pool":
        return maps.common_size(teacher, student, what)
    return maps.size(teacher, what)


def _activation(name: str | None) -> str | None:
    if name is not None and not hasattr(tf.keras.activations, str(name)):
        raise InputError(
            f"activation is {name!r}; it must be the name of a Keras activation, such as 'relu', "
            "or None"
        )
    return name


def _one_of(name: str, value: Any, allowed: tuple) -> Any:
    if value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise InputError(f"{name} is {value!r}; it must be one of: {options}")
    return value
