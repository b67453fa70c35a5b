"""Which combination a search tries next, and which training is not worth its end: Optuna's part.

The records of the trials are the only memory. Optuna's studies are made of them anew each time, in
memory, so that a search that was killed has nothing to repair, and the next choice depends on the
seed and the records alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from kd_keras.pipeline import search_space
from kd_keras.pipeline.search_front import FINISHED, Limits, Trial, is_as_fast
from kd_keras.pipeline.search_space import Dimension

#: Trials at random before the sampler learns from them.
_RANDOM_TRIALS = 6
_ATTEMPTS = 50
#: Trials that a training is compared with, at least, and the share of its epochs that it has free.
_LEAST_PEERS = 2
_FREE_EPOCHS = 0.3


def suggest(
    space: tuple[Dimension, ...], trials: Sequence[Trial], limits: Limits, seed: int
) -> dict[str, str] | None:
    """The next combination, by the multi-objective TPE sampler; none is tried twice.

    Args:
        space: What is walked.
        trials: Those that are over.
        limits: A trial over them is told as infeasible.
        seed: Of the search; one seed and the same records give the same combination.

    Returns:
        A label for each key, or None if every combination was tried.
    """
    tried = [dict(trial.choices) for trial in trials]
    if len(tried) >= search_space.size(space):
        return None
    study = _study(space, trials, limits, seed)
    for _ in range(_ATTEMPTS):
        asked = study.ask()
        choices = {d.key: asked.suggest_categorical(d.key, list(d.choices)) for d in space}
        if choices not in tried:
            return choices
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return next(one for one in search_space.combinations(space) if one not in tried)


def is_hopeless(
    trial: Trial,
    training: str,
    accuracies: Mapping[int, float],
    epochs: int,
    peers: Sequence[Trial],
) -> bool:
    """Whether a training may be stopped: cheaper students were better at the same epoch.

    It is compared with the finished trials that are no larger and no slower, by Optuna's median
    rule: its best validation accuracy so far is below the median of theirs at this epoch. A small
    student is never compared with large ones, which would stop what the front needs.

    Args:
        trial: With the size and latency of its untrained student.
        training: Name of the training, which the peers' curves are found by.
        accuracies: Validation accuracy by epoch, from 0, until now.
        epochs: Of the whole training.
        peers: The trials that are over.
    """
    study = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=_LEAST_PEERS, n_warmup_steps=math.ceil(_FREE_EPOCHS * epochs)
        ),
    )
    for peer in peers:
        curve = peer.curves.get(training)
        if curve and peer.state == FINISHED and _costs_no_more(peer, trial):
            study.add_trial(
                optuna.trial.create_trial(
                    value=curve[-1], intermediate_values=dict(enumerate(curve))
                )
            )
    asked = study.ask()
    for epoch, accuracy in sorted(accuracies.items()):
        asked.report(accuracy, epoch)
    return asked.should_prune()


def _costs_no_more(one: Trial, other: Trial) -> bool:
    return (one.untrained_bytes or 0) <= (other.untrained_bytes or 0) and is_as_fast(one, other)


def _study(
    space: tuple[Dimension, ...], trials: Sequence[Trial], limits: Limits, seed: int
) -> optuna.Study:
    """A study that knows the trials; accuracy is to rise, bytes and latency are to fall."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    entropy = np.random.SeedSequence([seed, len(trials)])
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=_RANDOM_TRIALS, seed=int(entropy.generate_state(1)[0])
    )
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    for trial in trials:
        study.add_trial(_told(space, trial, limits))
    return study


def _told(space: tuple[Dimension, ...], trial: Trial, limits: Limits) -> Any:
    distributions: dict[str, Any] = {
        d.key: optuna.distributions.CategoricalDistribution(list(d.choices)) for d in space
    }
    # Of a trial that was not trained nothing is known but that it is infeasible.
    accuracy = float(trial.accuracy or 0.0)
    # Two digits: less of a measured latency's chance decides on what is tried next.
    latency = float(f"{trial.latency_us or 0.0:.2g}")
    return optuna.trial.create_trial(
        params=dict(trial.choices),
        distributions=distributions,
        values=[accuracy, float(trial.bytes or 0), latency],
        constraints=limits.excess(trial),
    )
