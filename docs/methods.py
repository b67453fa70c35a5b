"""Makes docs/methods.md from the code, and from the costs that benchmarks/methods.py has measured.

TF_USE_LEGACY_KERAS=1 python docs/methods.py
"""

import inspect
import json
import pathlib
import sys
from typing import Any

import tensorflow as tf

import kd_keras as kd
from kd_keras.errors import InputError

HERE = pathlib.Path(__file__).parent
COLUMNS = (
    *("in a config", "class", "source", "reads", "needs labels"),
    *("unequal widths", "extra parameters", "step"),
)
HEAD = """# The methods

Made by `docs/methods.py` from the code; do not edit. Every method is a term of the student's loss
and can be combined with the others; formulas and advice stand in the classes' docstrings.

- *unequal widths*: what happens where the student's layer is narrower than the teacher's.
- *extra parameters*: of what is trained beside the student, ResNet-56 teaching ResNet-20 on CIFAR.
- *step*: the time of a training step of that pair as a multiple of one with soft targets
  (`python benchmarks/methods.py`, two cores, median over rounds).

"""


def main() -> None:
    """Write the table."""
    costs = json.loads((HERE / "methods_cost.json").read_text())
    (HERE / "methods.md").write_text(document(costs))


def document(costs: dict[str, Any]) -> str:
    """The page."""
    rows = [row(name, costs) for name in (*kd.methods.names(), "adversarial", "conditional")]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return HEAD + table + "\n" + teacher_note(costs) + STAGES


def row(name: str, costs: dict[str, Any]) -> tuple[str, ...]:
    """One method's cells."""
    distiller = build(name)
    cls = type(distiller) if name in GAMES else type(distiller.methods[0])
    cost = f"{costs[name]['median']:.2f}" if name in costs else "not measured"
    return (
        f"`{name}`",
        f"`kd.{cls.__name__}`",
        source(cls),
        reads(distiller, name),
        "yes" if needs_labels(distiller, name) else "no",
        unequal(name),
        f"{extra_parameters(distiller):,}",
        cost,
    )


GAMES = {"adversarial": kd.AdversarialDistiller, "conditional": kd.ConditionalAdversarialDistiller}


def build(name: str, width: int = 1) -> Any:
    """A distiller with one method; a wider teacher for a `width` above 1."""
    teacher = network("resnet56") if width == 1 else network(f"wrn-10-{width}")
    student = network("resnet20")
    if name in GAMES:
        return GAMES[name](student, teacher)
    return kd.Distiller(student, teacher, [kd.methods.get(name)()], label_weight=0.0)


def network(name: str) -> Any:
    """A CIFAR network."""
    return kd.models.build(name, classes=10, input_shape=(32, 32, 3))


def source(cls: Any) -> str:
    """The first line of the file's docstring, which names the source."""
    first = (inspect.getdoc(inspect.getmodule(cls)) or "").splitlines()[0]
    inside = first[first.index("(") + 1 : first.rindex(")")] if "(" in first else first
    return inside.split(', "')[0]


def reads(distiller: Any, name: str) -> str:
    """What the term is computed from."""
    if name in GAMES:
        return "a layer or logits" if name == "adversarial" else "logits"
    method = distiller.methods[0]
    return "logits" if method.reads_logits else "layers"


def needs_labels(distiller: Any, name: str) -> bool:
    """Whether the term itself needs labels."""
    return name == "conditional" or any(method.needs_labels for method in distiller.methods)


def unequal(name: str) -> str:
    """What a teacher of four times the width does."""
    reads_layers = name == "adversarial" or (
        name not in GAMES and not kd.methods.get(name).reads_logits
    )
    if not reads_layers:
        return "do not matter"
    try:
        distiller = build(name, width=4)
    except InputError:
        return "refused"
    projected = extra_parameters(distiller) > 0
    return "projected" if projected else "do not matter"


def extra_parameters(distiller: Any) -> int:
    """Weights that are trained beside the student's."""
    own = {id(weight) for weight in distiller.student.trainable_weights}
    extra = [weight for weight in distiller.trainable_weights if id(weight) not in own]
    return sum(int(tf.size(weight)) for weight in extra)


def teacher_note(costs: dict[str, Any]) -> str:
    """What a teacher costs of which only a lower layer is read."""
    figure = costs["truncated_teacher"]["median"]
    return f"""
Layers of the teacher above the highest one that is read are not computed: a step of `hint` from the
first stage, with the student trained up to its first stage, takes {figure:.2f} of the time of the
same step when the teacher's logits are read too.
"""


STAGES = """
## In stages

FitNets and FSP train in two stages, in a config:

```python
config.distillation.stages = {
    "stage1": {
        "methods": {"hint": {"teacher_layer": "stage2", "student_layer": "stage2"}},
        "trainable": "stage2",
        "label_weight": 0.0,
        "epochs": 10,
    },
    "stage2": {
        "methods": {
            "soft_targets": {
                "temperature": 3.0,
                "weight": {"schedule": "linear", "start": 4 / 9, "end": 1 / 9},
            }
        },
        "label_weight": 1.0,
    },
}
```

The paper's lambda falls from 4 to 1; its term has no factor T^2, which `soft_targets` has: hence
the division by 9.

FSP has `"fsp": {}` in the first stage and, in the second, no methods and `"label_weight": 1.0`.
`kd.fit_stages(student, teacher, [kd.Stage(...), kd.Stage(...)], x, y)` does the same in your own
code.

## Teachers of several

`kd.Ensemble([one, two], mean="arithmetic")` teaches as one model does; `"one/stage2"` names a
member's layer. `kd.born_again(build_student, generations=3, ...)` trains a network under itself,
again and again.
"""


if __name__ == "__main__":
    sys.exit(main())
