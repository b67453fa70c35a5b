"""The forms of a GAN's objective: what each player minimises, given D's scores.

A score `s` is what D makes of one sample; the higher, the more real (the teacher's). `s_t` are the
scores of the teacher's samples, `s_s` of the student's.

| form | D minimises | the student minimises |
|---|---|---|
| saturating | `-log o(s_t) - log(1 - o(s_s))` | `log(1 - o(s_s))` |
| non_saturating | the same | `-log o(s_s)` |
| least_squares | `1/2 (s_t - 1)^2 + 1/2 s_s^2` | `1/2 (s_s - 1)^2` |
| wasserstein | `s_s - s_t`, with a gradient penalty | `-s_s` |

with the logistic function `o`. Sources: Goodfellow et al. 2014 for the first two (sections 3), Mao
et al. 2016 (equation 9: targets 0 and 1), Arjovsky et al. 2017.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from kd_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class GanForm:
    """One form; all functions are per example, `(batch,) -> (batch,)`.

    Attributes:
        discriminator: What D minimises, from the scores of real and fake samples.
        student: What the student minimises, from the scores of its samples.
        opinion: D's probability that a sample is real, from its score; for Wasserstein, whose
            scores mean nothing alone, the score.
        is_critic: Whether scores can be compared with each other only.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    student: Callable[[tf.Tensor], tf.Tensor]
    opinion: Callable[[tf.Tensor], tf.Tensor]
    is_critic: bool = False

    def is_right(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """Whether D judged each sample rightly, from the scores, bool of any length.

        A critic is right where it puts the teacher's sample above the student's of the same input.
        """
        if self.is_critic:
            return real > fake
        return tf.concat([self.opinion(real) > 0.5, self.opinion(fake) < 0.5], axis=0)


def get(name: str) -> GanForm:
    """The form of that name.

    Raises:
        InputError: If there is none; the message lists those that exist.
    """
    if name not in FORMS:
        raise InputError(f"gan_form {name!r} does not exist; there are: {', '.join(FORMS)}")
    return FORMS[name]


def _crossentropy(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    return -tf.math.log_sigmoid(real) - tf.math.log_sigmoid(-fake)


def _log_fake(fake: tf.Tensor) -> tf.Tensor:
    return tf.math.log_sigmoid(-fake)


def _minus_log_real(fake: tf.Tensor) -> tf.Tensor:
    return -tf.math.log_sigmoid(fake)


def _squares(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    return 0.5 * (real - 1) ** 2 + 0.5 * fake**2


def _square(fake: tf.Tensor) -> tf.Tensor:
    return 0.5 * (fake - 1) ** 2


def _clipped(score: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(score, 0.0, 1.0)


def _distance(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    return fake - real


# Named functions, since autograph cannot tell lambdas of one statement apart.
FORMS = {
    "saturating": GanForm(_crossentropy, _log_fake, tf.math.sigmoid),
    "non_saturating": GanForm(_crossentropy, _minus_log_real, tf.math.sigmoid),
    "least_squares": GanForm(_squares, _square, _clipped),
    "wasserstein": GanForm(_distance, tf.negative, tf.identity, is_critic=True),
}
