"""How much sooner a training step ends in bfloat16 than in float32, on a CPU that computes it.

    TF_USE_LEGACY_KERAS=1 python benchmarks/precision.py [--rounds=9]

A label-only step of the CIFAR ResNets at batch 64, as `fit` takes it; both take turns in one
process, and the ratio is the median over the rounds, with its quartiles. `taskset -c 0` before the
command measures one core.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from step_time import network, ratio, train_step

from kd_keras.pipeline import precision


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if against := precision.warning("bfloat16"):
        raise SystemExit(against)
    print("| network | bfloat16 is faster by | quartiles |\n|---|---:|---|")
    for name in ("resnet8", "resnet20", "resnet56"):
        slow, fast = (inside(kind, train_step(network(name))) for kind in precision.NAMES)
        found = ratio(slow, fast, arguments.rounds)
        low, high = found["quartiles"]
        print(f"| {name} | {found['median']:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def inside(kind: str, step: Callable[[], Any]) -> Callable[[], Any]:
    """The step in a precision."""

    def run() -> Any:
        with precision.computing_in(kind):
            return step()

    return run


if __name__ == "__main__":
    main()
