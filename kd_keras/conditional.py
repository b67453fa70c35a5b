"""Distillation with conditional adversarial networks (Xu, Hsu, Huang 2018)."""

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import gan_forms
from kd_keras.errors import InputError
from kd_keras.game import GameDistiller, Samples
from kd_keras.methods.base import Method, at_least_zero, require_equal_classes
from kd_keras.methods.logits_l1 import LogitsL1
from kd_keras.noise import uniform
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs

_SMALLEST_SLOPE = 1e-12  # the root of 0 has no gradient


@serializable(package="kd_keras")
class ConditionalAdversarialDistiller(GameDistiller):
    """A student whose logits a discriminator D that knows the classes takes for the teacher's.

    D reads logits `z` and gives C + 2 values: the logits of the C classes, then those of "real"
    (the teacher's) and "fake" (the student's). With the mean over the batch,

        L_A  = log P(Real | D(z_t)) + log P(Fake | D(z_s))                     (1)
        L_DS = log P(y | D(z_t)) + log P(y | D(z_s))                           (3)
        D maximises            1/2 (L_A + L_DS)                                (2)
        the student minimises  L_S + L_L1 + L_GAN,  L_GAN = 1/2 (L_A - L_DS)   (5)

    D is updated first, the student against the new D, on every batch. L_S is the label loss given
    to `compile`, L_L1 (equation 4) the method `LogitsL1`. `L_DS` needs labels, class indices or
    distributions over the classes. D sees logits only, so no layers need to agree.

    To use when labels are at hand and the student is much smaller than the teacher; the paper finds
    it better than soft targets there. Each of the three terms can be switched off, as in the
    paper's Table 2:

    | terms | `label_weight` | `methods` | `adversarial_weight` |
    |---|---|---|---|
    | L_S | 1 | `[]` | 0 |
    | L_GAN | 0 | `[]` | 1 |
    | L_S + L_GAN | 1 | `[]` | 1 |
    | L_S + L_L1 | 1 | `[LogitsL1()]` | 0 |
    | L_S + L_L1 + L_GAN (default) | 1 | `[LogitsL1()]` | 1 |

    `gan_form` chooses what stands for L_A, for the score `s`, D's "real" logit less its "fake" one:
    see `kd_keras.gan_forms`. With "wasserstein" D is a critic: `-gradient_penalty * (|ds/dz| -
    1)^2`, at a random point between the two models' logits (Gulrajani et al. 2017, equation 3), is
    added to D's L_A. We do not clip weights, which would weaken the class logits with the score.
    The logged `discriminator_real` and `discriminator_fake` are then mean scores, and its accuracy
    the share of examples whose teacher's logits score above the student's.

    Where we differ from the paper, or fill what it leaves open: the teacher's terms of `L_GAN` are
    left out of the student's loss, having no gradient there; D's hidden layers have 256 units.

    Args:
        student: See `Distiller`. The paper gives it dropout 0.3 as well.
        teacher: See `Distiller`.
        methods: L_L1 and what else the student should learn; by default `[LogitsL1()]`.
        label_weight: Factor of L_S.
        discriminator: A spec as in `kd_keras.discriminators.build`, of hidden layers; or a Keras
            model `(batch, C) -> (batch, C + 2)` that gives logits. By default an MLP of three
            layers, "256-256" and the outputs.
        discriminator_dropout: Rate of the dropout after the hidden layers that a spec describes.
        adversarial_weight: Factor of L_GAN, a number or a schedule; 0 is a training without D.
        gan_form: "saturating" (the paper's), "non_saturating", "least_squares" or "wasserstein".
        gradient_penalty: Factor of the penalty of "wasserstein".
        update_ratio: Updates of D and of the student on each batch, whole numbers from 1.
        seed: Of the points at which the gradient penalty is taken.
        **kwargs: See `Distiller`.

    Raises:
        InputError: See `Distiller`; and if the models have not the same classes, D has not C + 2
            outputs, or the data has no labels.

    Example:
        >>> import kd_keras as kd
        >>> def net(width):
        ...     layers = [tf.keras.layers.Dense(width, "relu"), tf.keras.layers.Dense(3)]
        ...     return tf.keras.Sequential([tf.keras.Input((4,)), *layers])
        >>> distiller = kd.ConditionalAdversarialDistiller(net(4), net(32))
        >>> loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> distiller.compile("adam", loss, discriminator_optimizer="adam")
        >>> data = tf.random.normal((32, 4)), tf.zeros((32,), tf.int32)
        >>> history = distiller.fit(*data, verbose=0)
        >>> [name for name in sorted(history.history) if not name.startswith("discriminator")]
        ['adversarial', 'label_loss', 'logits_l1', 'loss']
    """

    hyperparameters = ("discriminator_dropout", "gan_form", "gradient_penalty")

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        methods: Iterable[Method] | None = None,
        label_weight: Scheduled = 1.0,
        *,
        discriminator: Any = None,
        discriminator_dropout: float = 0.3,
        adversarial_weight: Scheduled = 1.0,
        gan_form: str = "saturating",
        gradient_penalty: float = 10.0,
        update_ratio: Sequence[int] = (1, 1),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            student,
            [LogitsL1()] if methods is None else methods,
            label_weight,
            discriminator="256-256" if discriminator is None else discriminator,
            adversarial_weight=adversarial_weight,
            update_ratio=update_ratio,
            seed=seed,
            **kwargs,
        )
        if not 0 <= discriminator_dropout < 1:
            raise InputError(
                f"discriminator_dropout is {discriminator_dropout!r}; it must be at least 0 and "
                "below 1"
            )
        self.discriminator_dropout = discriminator_dropout
        self.gan_form, self.form = gan_form, gan_forms.get(gan_form)
        self.gradient_penalty = at_least_zero("gradient_penalty", gradient_penalty)
        self.teacher = teacher

    def _samples(self, x: Any, y: Any, teacher: Outputs, student: Outputs) -> Samples:
        if y is None:
            raise InputError(
                "the adversarial term reads labels (L_DS), but the data has none: give labels, or "
                "adversarial_weight=0"
            )
        real, fake = (tf.cast(o.logits, tf.float32) for o in (teacher, student))
        return Samples(real, fake, labels=tf.convert_to_tensor(y))

    def _judge(self, samples: Samples) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`-1/2 (L_A + L_DS)`."""
        real_classes, real = self._opinion(samples.real)
        fake_classes, fake = self._opinion(samples.fake)
        values = self.form.discriminator(real, fake)
        if self.form.is_critic:
            values += self.gradient_penalty * self._steepness(samples)
        for classes in (real_classes, fake_classes):
            values += minus_log_likelihood(samples.labels, classes)
        return 0.5 * values, real, fake

    def _fool(self, samples: Samples) -> tf.Tensor:
        """`1/2 (L_A - L_DS)`, the student's part."""
        classes, score = self._opinion(samples.fake)
        return 0.5 * (self.form.student(score) + minus_log_likelihood(samples.labels, classes))

    def _opinion(self, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """D's class logits, `(batch, C)`, and its score, `(batch,)`: "real" less "fake"."""
        values = self.discriminator(logits, training=True)
        return values[:, :-2], values[:, -2] - values[:, -1]

    def _steepness(self, samples: Samples) -> tf.Tensor:
        """`(|ds/dz| - 1)^2` at a random point between each example's two logits."""
        share = uniform(samples.real, [1], self._noise_seed())
        between = share * samples.real + (1 - share) * samples.fake
        with tf.GradientTape() as tape:
            tape.watch(between)
            score = tf.reduce_sum(self._opinion(between)[1])
        slopes = tape.gradient(score, between)
        squares = tf.reduce_sum(slopes**2, axis=-1)
        return (tf.sqrt(squares + _SMALLEST_SLOPE) - 1) ** 2

    @property
    def needs_labels(self) -> bool:
        """Whether there is a game, whose L_DS reads labels, or a method that needs them."""
        return self._plays or super().needs_labels

    def _check(self, teacher: Outputs, student: Outputs) -> None:
        super()._check(teacher, student)
        if not self._plays:
            return
        require_equal_classes("the conditional discriminator", teacher, student)
        classes = teacher.logits.shape[-1]
        if self.discriminator is None:
            if classes is None:
                raise InputError(self._unknown_shape())
            self._build_discriminator((classes,), classes + 2, self.discriminator_dropout)
        shapes = self.discriminator.input_shape, self.discriminator.output_shape
        if classes is not None and shapes != ((None, classes), (None, classes + 2)):
            raise InputError(
                f"the discriminator maps {shapes[0]} to {shapes[1]}; for {classes} classes it must "
                f"map (None, {classes}) to (None, {classes + 2}): the class logits, real and fake"
            )

    def _unknown_shape(self) -> str:
        return (
            "the number of classes is known only when these models run: give discriminator="
            "kd.discriminators.build('256-256', (classes,), classes + 2, dropout=0.3)"
        )


def minus_log_likelihood(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """`-log P(y)` of each example, with `P = softmax(logits)`.

    Args:
        labels: Class indices `(batch,)` or `(batch, 1)`, or distributions `(batch, classes)`.
        logits: `(batch, classes)`, float32.

    Returns:
        `(batch,)`, float32.

    Raises:
        InputError: If the labels have another shape.
    """
    classes = logits.shape[-1]
    if labels.shape.rank == 2 and labels.shape[-1] == classes:
        labels = tf.cast(labels, logits.dtype)
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    if labels.shape.rank == 1 or (labels.shape.rank == 2 and labels.shape[-1] == 1):
        indices = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(indices, logits)
    raise InputError(
        f"labels have shape {labels.shape}; the adversarial term takes class indices (batch,) or "
        f"distributions (batch, {classes})"
    )
