"""Several teachers as one (Hansen & Salamon 1990; Hinton, Vinyals, Dean 2015)."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers import evaluation
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.conversion import to_teacher

MEANS = ("arithmetic", "geometric", "logits")


class Ensemble(Teacher):
    """Several teachers that teach as one.

    The distribution that a method such as `SoftTargets` gets at its temperature T is, with the
    logits `z_m` and the weights `w_m` of the members, which add up to 1,

        arithmetic:         sum_m w_m * softmax(z_m / T)
        geometric, logits:  prod_m softmax(z_m / T)^w_m, normalised  =  softmax(sum_m w_m * z_m / T)

    and a method that compares logits, such as `LogitsL2`, gets `sum_m w_m * z_m`, whichever the
    mean. Take the arithmetic mean unless there is a reason: a class that one member is sure of
    stays probable, where the geometric mean lets any member veto it. "geometric" and "logits" are
    two names of one thing, for the normalised geometric mean of softmax outputs is the softmax of
    the mean of logits, at every temperature; members that give probabilities are taken by their
    logarithm, which changes nothing of that.

    The members may differ in everything but their input and classes. Each runs once a step, and in
    a training step, which is a graph, only as far as it is read.

    Args:
        members: At least two of whatever `kd_keras.teachers.as_teacher` takes as one teacher. In a
            list, they go by their models' or files' names, and "_2", "_3" is added to a name that
            is taken; or a mapping by name.
        mean: "arithmetic", "geometric" or "logits".
        weights: Of each member, above 0, in the members' order or by name; they are divided by
            their sum. By default all are equal.
        from_logits: Whether Keras models give logits rather than probabilities; see
            `kd_keras.teachers.as_teacher`, and `KerasTeacher` for members of which that differs.

    Attributes:
        members: The members as `Teacher`s, by name. A member's layer is called "name/layer", as in
            `teacher_layer="resnet20/stage3"`.
        weights: Their weights by name, which add up to 1.

    Raises:
        InputError: For fewer than two members, an unknown mean, weights that do not fit, and a
            member whose outputs are recorded.

    Example:
        >>> import kd_keras as kd
        >>> def net(width):
        ...     layers = [tf.keras.layers.Dense(width, "relu"), tf.keras.layers.Dense(3)]
        ...     return tf.keras.Sequential([tf.keras.Input((4,)), *layers])
        >>> teacher = Ensemble({"wide": net(64), "narrow": net(8)}, weights=[3, 1])
        >>> teacher.weights
        {'wide': 0.75, 'narrow': 0.25}
        >>> distiller = kd.Distiller(net(4), teacher, methods=[kd.SoftTargets(temperature=2.0)])
        >>> teacher.predict(tf.zeros((5, 4))).shape
        (5, 3)

    Source: Hinton, Vinyals, Dean 2015, sections 1 and 5 (arithmetic or geometric mean); Ba &
    Caruana 2014, section 3 (mean of logits).
    """

    def __init__(
        self,
        members: Sequence[Any] | Mapping[str, Any],
        *,
        mean: str = "arithmetic",
        weights: Sequence[float] | Mapping[str, float] | None = None,
        from_logits: bool | None = True,
    ) -> None:
        if mean not in MEANS:
            raise InputError(f"mean {mean!r} does not exist; there are: {', '.join(MEANS)}")
        self.mean = mean
        self.members = {
            name: _teacher(name, member, from_logits) for name, member in _named(members).items()
        }
        self.weights = _normalised(weights, list(self.members))
        self.input_specs()

    @property
    def supports_jit(self) -> bool:  # type: ignore[override]
        """Whether XLA can compile all the members."""
        return all(member.supports_jit for member in self.members.values())

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`; a layer is called "member/layer"."""
        wanted = self._by_member(layers)
        return self._combined(
            {name: member.outputs(x, wanted[name]) for name, member in self.members.items()}
        )

    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """See `Teacher.specs`; None as long as a member does not know its own."""
        wanted = self._by_member(layers)
        found = {name: member.specs(wanted[name]) for name, member in self.members.items()}
        known = {name: specs for name, specs in found.items() if specs is not None}
        self._check(known)
        if len(known) < len(found):
            return None
        first = next(iter(known.values())).logits
        logits = tf.TensorSpec(first.shape, tf.float32)
        return Outputs(logits, _layers(known), self._members(known, lambda spec: logits))

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`; what all the members that know their input take.

        Raises:
            InputError: If no one batch fits them all.
        """
        known = {name: member.input_specs() for name, member in self.members.items()}
        known = {name: specs for name, specs in known.items() if specs is not None}
        if not known:
            return None
        (first, merged), *others = known.items()
        flat = tf.nest.flatten(merged)
        for name, specs in others:
            flat = _merged_inputs((first, flat), (name, tf.nest.flatten(specs)))
        return tf.nest.pack_sequence_as(merged, flat)

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; of the mean, and of the members with their weights."""
        members = [[one.fingerprint(), self.weights[name]] for name, one in self.members.items()]
        return hashlib.sha256(json.dumps([self.mean, members]).encode()).hexdigest()

    def predict(self, x: Any, *, batch_size: int = 128) -> np.ndarray:
        """The ensemble's log-probabilities at `T = 1`; see `evaluation.predict`."""
        return evaluation.predict(self, x, batch_size=batch_size)

    def accuracy(self, x: Any, y: Any = None, *, batch_size: int = 128) -> float:
        """The share of the examples that the ensemble gets right; see `evaluation.accuracy`."""
        return evaluation.accuracy(self, x, y, batch_size=batch_size)

    def _by_member(self, layers: Sequence[str]) -> dict[str, list[str]]:
        """The layers to read, without the member's name, by member."""
        wanted: dict[str, list[str]] = {name: [] for name in self.members}
        for path in layers:
            name, _, layer = path.partition("/")
            if name not in wanted or not layer:
                raise InputError(
                    f"layer {path!r} names no member of the ensemble; write 'member/layer' with "
                    f"one of the members: {', '.join(wanted)}"
                )
            wanted[name].append(layer)
        return wanted

    def _combined(self, found: dict[str, Outputs]) -> Outputs:
        self._check(found)
        logits = {name: tf.cast(outputs.logits, tf.float32) for name, outputs in found.items()}
        mean = tf.add_n([self.weights[name] * value for name, value in logits.items()])
        members = self._members(found, lambda value: tf.cast(value, tf.float32))
        return Outputs(mean, _layers(found), members)

    def _members(self, found: dict[str, Outputs], convert: Any) -> tuple:
        """What `Outputs.members` holds; members of a member are members, by their share."""
        if self.mean != "arithmetic":
            return ()
        return tuple(
            (convert(logits), self.weights[name] * share)
            for name, outputs in found.items()
            for logits, share in outputs.members or ((outputs.logits, 1.0),)
        )

    def _check(self, found: dict[str, Outputs]) -> None:
        """Refuse members whose outputs cannot be averaged; they may be tensors or specs."""
        shapes = {name: outputs.logits.shape for name, outputs in found.items()}
        if not all(one.is_compatible_with(two) for one, two in itertools.pairwise(shapes.values())):
            listed = ", ".join(f"{name!r} {shape[-1]}" for name, shape in shapes.items())
            raise InputError(
                f"the members of an ensemble need the same classes; they have: {listed}: change "
                "the last layer, or leave a member out"
            )
        averaged = [name for name, outputs in found.items() if outputs.members]
        if averaged and self.mean != "arithmetic":
            raise InputError(
                f"member {averaged[0]!r} is itself an arithmetic mean, which a {self.mean} mean "
                "cannot take in: give its members one by one, or mean='arithmetic'"
            )


def _named(members: Any) -> dict[str, Any]:
    """The members by their own name, made distinct, if they were given without names."""
    if not isinstance(members, Mapping | Sequence) or isinstance(members, str) or len(members) < 2:
        count = len(members) if isinstance(members, Mapping | Sequence) else 1
        raise InputError(
            f"an ensemble needs at least two members, not {count}: give more, or use the one alone"
        )
    if isinstance(members, Mapping):
        named = dict(members)
    else:
        named = {}
        for member in members:
            named[_distinct(_name(member), named)] = member
    wrong = [name for name in named if "/" in str(name) or not name]
    if wrong:
        raise InputError(
            f"a member is called {wrong[0]!r}; its name must be one without '/', which divides the "
            "member from its layer: give the members by name"
        )
    return named


def _name(member: Any) -> str:
    if isinstance(member, str | os.PathLike):
        return pathlib.Path(member).stem
    named = getattr(member, "model", member)  # of a KerasTeacher, its model
    return str(getattr(named, "name", "") or "member")


def _distinct(name: str, taken: Mapping[str, Any]) -> str:
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _teacher(name: str, member: Any, from_logits: bool | None) -> Teacher:
    teacher = to_teacher(member, from_logits=from_logits, what=f"member {name!r}")
    if teacher.is_recorded:
        raise InputError(
            f"member {name!r} is recorded, and the members of an ensemble are run: cache the "
            "ensemble as a whole"
        )
    return teacher


def _normalised(weights: Any, names: list[str]) -> dict[str, float]:
    """The weight of each member; they add up to 1."""
    if weights is None:
        weights = dict.fromkeys(names, 1.0)
    if not isinstance(weights, Mapping):
        given = list(weights)
        if len(given) != len(names):
            raise InputError(
                f"weights has {len(given)} values for {len(names)} members; give one for each of: "
                f"{', '.join(names)}"
            )
        weights = dict(zip(names, given, strict=True))
    if set(weights) != set(names):
        raise InputError(
            f"weights are for {', '.join(sorted(weights))}; give one for each of: "
            f"{', '.join(names)}"
        )
    for name in names:
        if not 0 < weights[name] < float("inf"):
            raise InputError(
                f"the weight of member {name!r} is {weights[name]!r}; it must be a number above 0: "
                "leave out a member that is not to count"
            )
    total = sum(weights.values())
    return {name: float(weights[name] / total) for name in names}


def _layers(found: dict[str, Outputs]) -> dict[str, Any]:
    return {
        f"{name}/{path}": value
        for name, outputs in found.items()
        for path, value in outputs.layers.items()
    }


def _merged_inputs(one: tuple[str, list], other: tuple[str, list]) -> list[tf.TensorSpec]:
    """The input specs, in a flat list, that fit two members, each given with its name."""
    (name, specs), (other_name, other_specs) = one, other
    try:
        return [
            tf.TensorSpec(a.shape.merge_with(b.shape), a.dtype)
            for a, b in zip(specs, other_specs, strict=True)
        ]
    except ValueError as error:
        shapes = [", ".join(str(spec.shape) for spec in side) for side in (specs, other_specs)]
        raise InputError(
            f"the members of an ensemble see the same batch, but the input of {name!r} is "
            f"{shapes[0]} and that of {other_name!r} {shapes[1]}: build both for one input shape"
        ) from error
