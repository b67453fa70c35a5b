"""NumPy references written from the papers; they share no code with the library.

Everything is float64. A reference of a method takes two `Arrays` and the method's hyperparameters,
and gives one value an example.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


@dataclasses.dataclass
class Arrays:
    """What one model gave: its logits, and the layers that were asked for."""

    logits: Array
    layers: Mapping[str, Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Oracle:
    """A method's reference and where to test it.

    Attributes:
        reference: `(teacher, student, **hyperparameters) -> (batch,)`.
        settings: The hyperparameters to test.
        layers: Shapes without the batch of the layers that the method reads, by name.
        zero_at_match: Whether the term is 0, its least, where the student equals the teacher.
    """

    reference: Callable[..., Array]
    settings: Sequence[Mapping[str, Any]] = ({},)
    layers: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    zero_at_match: bool = True


def softmax(z: Array, temperature: float = 1.0) -> Array:
    """Hinton et al. 2015, equation 1: `q_i = exp(z_i/T) / sum_j exp(z_j/T)`."""
    z = np.asarray(z, np.float64) / temperature
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def soft_targets(teacher: Arrays, student: Arrays, temperature: float) -> Array:
    """Hinton et al. 2015, section 2: the cross-entropy of the softened outputs times `T^2`.

    Less the teacher's entropy, which has no gradient: 0 where the student matches.
    """
    q_t, q_s = softmax(teacher.logits, temperature), softmax(student.logits, temperature)
    cross_entropy = -(q_t * np.log(q_s)).sum(axis=-1)
    entropy = -(q_t * np.log(q_t)).sum(axis=-1)
    return temperature**2 * (cross_entropy - entropy)


def logits_l2(teacher: Arrays, student: Arrays) -> Array:
    """Ba & Caruana 2014, equation 1: `1/2 * ||g(x) - z||_2^2`."""
    difference = np.asarray(student.logits, np.float64) - np.asarray(teacher.logits, np.float64)
    return 0.5 * np.linalg.norm(difference, axis=-1) ** 2


#: Every method of the library has its line here, under its name.
METHODS = {
    "soft_targets": Oracle(
        soft_targets, settings=[{"temperature": t} for t in (0.5, 1.0, 4.0, 20.0)]
    ),
    "logits_l2": Oracle(logits_l2),
}


def cross_entropy(labels: Array, logits: Array) -> Array:
    """`-log softmax(z)_y` of each example."""
    return -np.log(softmax(logits)[np.arange(len(labels)), labels])


def probability_real(score: Array) -> Array:
    """D's probability that a sample is the teacher's, from its logit."""
    return 1 / (1 + np.exp(-np.asarray(score, np.float64)))


def discriminator_loss(real: Array, fake: Array, adversary: Array | None = None) -> Array:
    """What D minimises, from its probabilities: `-L_adv`, and the adversary labelled as real.

    Belagiannis et al. 2018: `L_adv = E[log D(f_t)] + E[log(1 - D(f_s))]`, maximised by D.
    """
    loss = -np.log(real) - np.log(1 - fake)
    return loss if adversary is None else loss - np.log(adversary)


def student_adversarial_loss(fake: Array, adversary: Array | None = None) -> Array:
    """What the student minimises: its part of `L_adv`, and the adversary labelled as real."""
    loss = np.log(1 - fake)
    return loss if adversary is None else loss - np.log(adversary)


def dense(weights: Sequence[Array], x: Array, activation: Callable = np.tanh) -> list[Array]:
    """The outputs of dense layers `[kernel, bias, ...]`, all but the last with an activation."""
    outputs = [np.asarray(x, np.float64)]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        outputs.append(outputs[-1] @ kernel + bias)
        if len(outputs) <= len(weights) // 2:
            outputs[-1] = activation(outputs[-1])
    return outputs[1:]


def gradient(loss: Callable[[list[Array]], float], weights: Sequence[Array]) -> list[Array]:
    """Central differences of a loss for each weight, in float64."""
    step = 1e-6
    weights = [np.array(w, np.float64) for w in weights]
    slopes = [np.zeros_like(w) for w in weights]
    for weight, slope in zip(weights, slopes, strict=True):
        for index in np.ndindex(weight.shape):
            middle = weight[index]
            weight[index] = middle + step
            above = loss(weights)
            weight[index] = middle - step
            slope[index] = (above - loss(weights)) / (2 * step)
            weight[index] = middle
    return slopes


def descend(loss: Callable[[list[Array]], float], weights: Sequence[Array], rate: float) -> list:
    """The weights after one step of plain gradient descent."""
    slopes = gradient(loss, weights)
    return [np.asarray(w, np.float64) - rate * s for w, s in zip(weights, slopes, strict=True)]
