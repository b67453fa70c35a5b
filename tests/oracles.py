"""NumPy references written from the papers; they share no code with the library.

Everything is float64. A reference of a method takes two `Arrays` and the method's hyperparameters,
and gives one value an example.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Array = np.ndarray


@dataclasses.dataclass
class Arrays:
    """What one model gave: its logits, and the layers that were asked for."""

    logits: Array
    layers: Mapping[str, Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Oracle:
    """A method's reference and where to test it; a method may have several.

    Attributes:
        name: The method's.
        reference: `(teacher, student, **hyperparameters, **context) -> (batch,)`.
        settings: The hyperparameters to test.
        teacher_layers: Shapes without the batch of the layers that the method reads, by name.
        student_layers: The same of the student; None if they are the teacher's.
        context: What the reference must know beside the outputs: "labels", "step".
        zero_at_match: Whether the term is 0, its least, where the student equals the teacher.
        mixes: Why an example's value depends on the other examples, if it does.
        other_under_xla: Why XLA gives another value, if it does.
    """

    name: str
    reference: Callable[..., Array]
    settings: Sequence[Mapping[str, Any]] = ({},)
    teacher_layers: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    student_layers: Mapping[str, tuple[int, ...]] | None = None
    context: tuple[str, ...] = ()
    zero_at_match: bool = True
    mixes: str = ""
    other_under_xla: str = ""


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


def averaged_soft_targets(
    members: Sequence[tuple[Array, float]], student: Array, temperature: float
) -> Array:
    """Hinton et al. 2015: an ensemble teaches the arithmetic mean of its members' distributions."""
    mean = sum(weight * softmax(logits, temperature) for logits, weight in members)
    q_s = softmax(student, temperature)
    return temperature**2 * (mean * (np.log(mean) - np.log(q_s))).sum(axis=-1)


def logits_l2(
    teacher: Arrays, student: Arrays, standardize: bool = False, std: Sequence[float] | None = None
) -> Array:
    """Ba & Caruana 2014, equation 1: `1/2 * ||g(x) - z||_2^2`, of standardised logits or not."""
    scale = np.ones(teacher.logits.shape[-1]) if std is None else np.asarray(std)
    mean = teacher.logits.mean(axis=0)
    g, z = ((np.asarray(o.logits, np.float64) - mean) / scale for o in (student, teacher))
    return 0.5 * np.linalg.norm(g - z, axis=-1) ** 2


def logits_l1(teacher: Arrays, student: Arrays) -> Array:
    """Xu, Hsu, Huang 2018: `||z_s - z_t||_1`."""
    return np.linalg.norm(student.logits - teacher.logits, ord=1, axis=-1)


def blocks(values: Array, size: tuple[int, int], reduce: Callable) -> Array:
    """A map whose pixels are reduced from blocks of another's."""
    high, wide = values.shape[1] // size[0], values.shape[2] // size[1]
    rows = [
        [
            reduce(values[:, i * high : (i + 1) * high, j * wide : (j + 1) * wide], axis=(1, 2))
            for j in range(size[1])
        ]
        for i in range(size[0])
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def bilinear(values: Array, size: tuple[int, int]) -> Array:
    """A map between whose pixels, which lie at the centres of their squares, lines are drawn."""
    for axis, wanted in ((1, size[0]), (2, size[1])):
        there = values.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, there - 1)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        values = (1 - share) * values.take(low, axis) + share * values.take(high, axis)
    return values


def valid_convolution(values: Array, kernel: Array, bias: Array) -> Array:
    """A convolution without padding, a pixel of the result at a time."""
    high, wide = kernel.shape[:2]
    size = values.shape[1] - high + 1, values.shape[2] - wide + 1
    result = np.zeros((len(values), *size, kernel.shape[-1]))
    for i, j in np.ndindex(*size):
        window = values[:, i : i + high, j : j + wide]
        result[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel) + bias
    return result


def hint(
    teacher: Arrays,
    student: Arrays,
    teacher_layer: str = "features",
    student_layer: str = "features",
    resize: str | None = None,
    regressor: str | None = None,
) -> Array:
    """Romero et al. 2015, equation 3: `1/2 * ||u_h(x) - r(v_g(x))||^2`; `student` is after `r`."""
    u, v = teacher.layers[teacher_layer], student.layers[student_layer]
    if resize == "pool":
        size = min(u.shape[1], v.shape[1]), min(u.shape[2], v.shape[2])
        u, v = (blocks(values, size, np.mean) for values in (u, v))
    if resize == "bilinear":
        v = bilinear(v, u.shape[1:3])
    return np.array([0.5 * ((one - other) ** 2).sum() for one, other in zip(u, v, strict=True)])


def flow(first: Array, last: Array) -> Array:
    """Yim et al. 2017, equation 1: `G_ij = sum_{s,t} F1_{s,t,i} * F2_{s,t,j} / (h * w)`."""
    h, w = min(first.shape[1], last.shape[1]), min(first.shape[2], last.shape[2])
    first, last = (blocks(values, (h, w), np.max) for values in (first, last))
    result = np.zeros((len(first), first.shape[-1], last.shape[-1]))
    for s, t in np.ndindex(h, w):
        result += first[:, s, t, :, None] * last[:, s, t, None, :] / (h * w)
    return result


def fsp(
    teacher: Arrays,
    student: Arrays,
    teacher_pairs: Any = (("stage1", "stage2"), ("stage2", "stage3")),
    student_pairs: Any = None,
    section_weights: Any = None,
) -> Array:
    """Yim et al. 2017, equation 2: `sum_k lambda_k * ||G_k^T - G_k^S||_F^2`, of each example."""
    student_pairs = student_pairs or teacher_pairs
    section_weights = section_weights or [1.0] * len(teacher_pairs)
    total = np.zeros(len(teacher.logits))
    for share, t, s in zip(section_weights, teacher_pairs, student_pairs, strict=True):
        difference = flow(*(teacher.layers[n] for n in t)) - flow(*(student.layers[n] for n in s))
        total += share * np.linalg.norm(difference, axis=(1, 2)) ** 2
    return total


def confidence_weighted_labels(teacher: Arrays, student: Arrays, labels: Array) -> Array:
    """Furlanello et al. 2018, section 3: the weight is `max p_t` over its sum in the batch.

    Times the size of the batch, since the paper sums over it where we take the mean.
    """
    w = softmax(teacher.logits).max(axis=-1)
    targets = np.eye(student.logits.shape[-1])[labels] if np.ndim(labels) == 1 else labels
    return len(w) * w / w.sum() * -(targets * np.log(softmax(student.logits))).sum(axis=-1)


def permuted_soft_targets(teacher: Arrays, student: Arrays, seed: int = 0, step: int = 0) -> Array:
    """Furlanello et al. 2018, section 3: all but the teacher's largest probability permuted.

    The random numbers are TensorFlow's, whose order says which probability goes where.
    """
    keys = tf.random.stateless_uniform(teacher.logits.shape, [seed, step]).numpy()
    values = []
    for p, q, key in zip(softmax(teacher.logits), softmax(student.logits), keys, strict=True):
        others = [c for c in range(len(p)) if c != p.argmax()]
        permuted = p.copy()
        permuted[others] = p[sorted(others, key=lambda c, key=key: key[c])]
        values.append((permuted * np.log(permuted / q)).sum())
    return np.array(values)


_STAGES = {"stage1": (4, 4, 2), "stage2": (2, 2, 3), "stage3": (2, 2, 2)}
_LARGER = {"a": (8, 4, 2), "b": (4, 4, 3)}
_SMALLER = {"c": (2, 6, 2), "d": (2, 3, 3)}

#: Every method of the library has its line here.
METHODS = (
    Oracle(
        "soft_targets", soft_targets, settings=[{"temperature": t} for t in (0.5, 1.0, 4.0, 20.0)]
    ),
    Oracle("logits_l1", logits_l1),
    Oracle(
        "logits_l2",
        logits_l2,
        settings=[{}, {"standardize": True, "std": (0.5, 2.0, 1.0, 4.0, 0.25)}],
    ),
    Oracle("hint", hint, teacher_layers={"features": (4,)}),
    Oracle(
        "hint",
        hint,
        settings=[{"teacher_layer": "u", "student_layer": "u", "regressor": None}],
        teacher_layers={"u": (3, 4, 2)},
    ),
    Oracle(
        "hint",
        hint,
        settings=[{"teacher_layer": "u", "student_layer": "v", "resize": "pool"}],
        teacher_layers={"u": (6, 4, 2)},
        student_layers={"v": (2, 2, 2)},
    ),
    Oracle(
        "hint",
        hint,
        settings=[
            {"teacher_layer": "u", "student_layer": "v", "resize": way}
            for way in ("pool", "bilinear")
        ],
        teacher_layers={"u": (2, 3, 2)},
        student_layers={"v": (6, 3, 2)},
    ),
    Oracle(
        "hint",
        hint,
        settings=[{"teacher_layer": "u", "student_layer": "v", "resize": "bilinear"}],
        teacher_layers={"u": (5, 6, 2)},
        student_layers={"v": (3, 4, 2)},
    ),
    Oracle("fsp", fsp, teacher_layers=_STAGES),
    Oracle(
        "fsp",
        fsp,
        settings=[
            {
                "teacher_pairs": (("a", "b"), ("b", "b")),
                "student_pairs": (("c", "d"), ("d", "d")),
                "section_weights": (0.5, 2.0),
            }
        ],
        teacher_layers=_LARGER,
        student_layers=_SMALLER,
    ),
    Oracle(
        "confidence_weighted_labels",
        confidence_weighted_labels,
        context=("labels",),
        zero_at_match=False,
        mixes="the weights are normalised over the batch",
    ),
    Oracle(
        "permuted_soft_targets",
        permuted_soft_targets,
        settings=[{}, {"seed": 7}],
        context=("step",),
        zero_at_match=False,
        mixes="the number of an example in the batch picks its permutation",
        other_under_xla="XLA has random numbers of its own",
    ),
)


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


def judgement(outputs: Array) -> tuple[Array, Array, Array]:
    """What D's C + 2 outputs say: class probabilities, P(Real), and the score behind P(Real).

    Xu et al. 2018, section 2: "a C + 2 dimensional vector with C Label predictions and a Real/Fake
    prediction". P(Real) is a softmax over the last two, whose log-odds are the score.
    """
    real, fake = softmax(outputs[:, -2:]).T
    return softmax(outputs[:, :-2]), real, np.log(real) - np.log(fake)


def plain_adversarial(form: str, real: tuple, fake: tuple) -> Array:
    """What D minimises in the place of `-L_A` (Xu et al. 2018, equation 1), from two judgements.

    Least squares: Mao et al. 2016, equation 9. Wasserstein: Arjovsky et al. 2017, equation 2.
    """
    if form == "least_squares":
        return ((real[2] - 1) ** 2 + fake[2] ** 2) / 2
    if form == "wasserstein":
        return fake[2] - real[2]
    return -(np.log(real[1]) + np.log(1 - fake[1]))


def plain_fooling(form: str, fake: tuple) -> Array:
    """The student's part of L_A that it minimises, or what stands for it in another form."""
    return {
        "saturating": np.log(1 - fake[1]),
        "non_saturating": -np.log(fake[1]),
        "least_squares": (fake[2] - 1) ** 2 / 2,
        "wasserstein": -fake[2],
    }[form]


def steepness(weights: Sequence[Array], z: Array) -> Array:
    """`(||ds/dz|| - 1)^2` of the score of a two-layer tanh discriminator, by the chain rule.

    Gulrajani et al. 2017, equation 3.
    """
    kernel, bias, last, _ = weights
    inner = 1 - np.tanh(z @ kernel + bias) ** 2
    slopes = (inner * (last[:, -2] - last[:, -1])) @ kernel.T
    return (np.sqrt((slopes**2).sum(axis=-1)) - 1) ** 2
