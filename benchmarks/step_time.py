"""How much a distillation step costs beyond what must be done, and beside the peer.

    python benchmarks/step_time.py [--rounds=15] [--json=FILE]

Student ResNet-20, teacher ResNet-56, CIFAR shapes, batch 64. Each ratio comes from one process in
which the two sides take turns; it is the median over the rounds. The floor is a `tf.function` that
does only what must be done. The peer is `keras.distillation.Distiller` of Keras 3 with one feature
loss, in a Keras 3 process of its own, beside ours with the same loss.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 64
STEPS_A_TURN = 2
BOUNDS = {
    "distiller / floor": 1.05,
    "adversarial / floor": 1.10,
    "distiller / keras.distillation": 0.75,
    "import kd_keras / import tensorflow": 1.10,
    "load Distiller / load tf.keras.Model": 1.10,
    "kd-train --help (s)": 1.0,
}


def main() -> None:
    """Measure in child processes, one for each Keras, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--side", choices=("floor", "peer"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        measure = {"floor": against_floor, "peer": against_peer}[arguments.side]
        print(json.dumps(measure(arguments.rounds)))
        return
    figures = {
        **child("floor", arguments.rounds, legacy_keras="1"),
        **child("peer", arguments.rounds, legacy_keras="0"),
        **start_up(),
    }
    print(f"{'':38}{'measured':>10}{'at most':>10}   rounds: quartiles")
    for name, figure in figures.items():
        spread = " to ".join(f"{value:.3f}" for value in figure.get("quartiles", []))
        print(f"{name:38}{figure['median']:10.3f}{BOUNDS[name]:10.2f}   {spread}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


def child(side: str, rounds: int, *, legacy_keras: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, f"--side={side}", f"--rounds={rounds}"]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": legacy_keras}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def against_floor(rounds: int) -> dict[str, Any]:
    """Our distillers against hand-written steps that do the same."""
    import kd_keras as kd

    teacher, methods = network("resnet56"), [kd.SoftTargets(temperature=4.0, weight=0.9)]
    plain = kd.Distiller(network("resnet20"), teacher, methods, label_weight=0.1)
    adversarial = kd.AdversarialDistiller(network("resnet20"), teacher)
    ours = train_step(adversarial, discriminator_optimizer=sgd())
    return {
        "distiller / floor": ratio(train_step(plain), plain_floor(teacher), rounds),
        "adversarial / floor": ratio(ours, adversarial_floor(teacher), rounds),
    }


def against_peer(rounds: int) -> dict[str, Any]:
    """Our distiller against Keras 3's, each with the label loss and one feature loss."""
    import tensorflow as tf
    from keras import distillation

    import kd_keras as kd
    from kd_keras.methods.base import NO_CONTEXT, Method

    class FeatureL2(Method):
        """`mean (f_s - f_t)^2` of the features, which is the peer's "mse"."""

        teacher_layers = student_layers = ("features",)

        def __call__(self, teacher: Any, student: Any, context: Any = NO_CONTEXT) -> Any:
            difference = student.layers["features"] - teacher.layers["features"]
            return tf.reduce_mean(difference**2, axis=-1)

    teacher = network("resnet56")
    ours = kd.Distiller(network("resnet20"), teacher, [FeatureL2(weight=0.5)], label_weight=0.5)
    theirs = distillation.Distiller(
        teacher=teacher,
        student=network("resnet20"),
        distillation_losses=[
            distillation.FeatureDistillation(
                loss="mse", teacher_layer_name="features", student_layer_name="features"
            )
        ],
        distillation_loss_weights=[1.0],
        student_loss_weight=0.5,  # with 1.0 it would leave the feature loss out
    )
    return {"distiller / keras.distillation": ratio(train_step(ours), train_step(theirs), rounds)}


def start_up(times: int = 5) -> dict[str, Any]:
    """What a user waits for before anything begins, the best of several processes."""
    tensorflow = best_of(times, "-c", "import tensorflow")
    keras = best_of(times, "-c", "import tensorflow; tensorflow.keras.Model")
    ours = best_of(times, "-c", "import tensorflow, kd_keras; kd_keras.Distiller")
    plain = best_of(times, "-c", "import kd_keras")
    return {
        "import kd_keras / import tensorflow": {"median": plain / tensorflow},
        "load Distiller / load tf.keras.Model": {"median": ours / keras},
        "kd-train --help (s)": {"median": best_of(times, "-m", "kd_keras.train", "--help")},
    }


def best_of(times: int, *arguments: str) -> float:
    """Seconds of the fastest of several runs of Python."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def ratio(ours: Callable[[], Any], other: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """The time of ours over the other's, turn by turn."""
    for step in (ours, other, ours, other):
        step()
    ratios, milliseconds = [], []
    for round_ in range(rounds):
        turns = [ours, other] if round_ % 2 else [other, ours]
        seconds = {step: timed(step) for step in turns}
        ratios.append(seconds[ours] / seconds[other])
        milliseconds.append([1e3 * seconds[ours], 1e3 * seconds[other]])
    first, median, third = statistics.quantiles(ratios, n=4)
    return {"median": median, "quartiles": [first, third], "milliseconds": milliseconds}


def timed(step: Callable[[], Any]) -> float:
    """Seconds a step, over a few steps."""
    begun = time.perf_counter()
    for _ in range(STEPS_A_TURN):
        step()
    return (time.perf_counter() - begun) / STEPS_A_TURN


def network(name: str) -> Any:
    """A CIFAR network with random weights."""
    import kd_keras as kd

    return kd.models.build(name, classes=10, input_shape=(32, 32, 3))


def sgd() -> Any:
    """The same optimizer for all sides."""
    import tensorflow as tf

    return tf.keras.optimizers.SGD(0.01, momentum=0.9)


def batches() -> Any:
    """The same batch without end."""
    import tensorflow as tf

    images = tf.random.stateless_normal((BATCH, 32, 32, 3), seed=(0, 0))
    labels = tf.random.stateless_uniform((BATCH,), seed=(0, 1), maxval=10, dtype=tf.int32)
    return iter(tf.data.Dataset.from_tensors((images, labels)).repeat())


def label_loss() -> Any:
    """Crossentropy from logits."""
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train_step(model: Any, **compile_arguments: Any) -> Callable[[], Any]:
    """One step of a Keras model, as its `fit` takes it."""
    model.compile(optimizer=sgd(), loss=label_loss(), jit_compile=False, **compile_arguments)
    function, iterator = model.make_train_function(), batches()
    function = function or model.train_function  # Keras 3 keeps it
    return lambda: [value.numpy() for value in function(iterator).values()]


def plain_floor(teacher: Any) -> Callable[[], Any]:
    """Teacher forward, student forward and backward, and the update: nothing else."""
    import tensorflow as tf

    student, optimizer, cross_entropy = network("resnet20"), sgd(), label_loss()
    iterator = batches()

    @tf.function
    def step(iterator: Any) -> Any:
        x, y = next(iterator)
        targets = tf.nn.softmax(teacher(x, training=False) / 4.0)
        with tf.GradientTape() as tape:
            logits = student(x, training=True)
            soft = tf.nn.softmax_cross_entropy_with_logits(targets, logits / 4.0)
            loss = 0.1 * cross_entropy(y, logits) + 0.9 * 16.0 * tf.reduce_mean(soft)
        variables = student.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return lambda: step(iterator).numpy()


def adversarial_floor(teacher: Any) -> Callable[[], Any]:
    """The same with D's update and its terms in the student's loss."""
    import tensorflow as tf

    from kd_keras.discriminators import fully_connected

    student, optimizers = network("resnet20"), (sgd(), sgd())
    teacher, student = (tapped(model) for model in (teacher, student))
    discriminator, iterator = fully_connected(64), batches()
    log_sigmoid = tf.math.log_sigmoid

    @tf.function
    def step(iterator: Any) -> Any:
        x, _ = next(iterator)
        real, targets = teacher(x, training=False)
        with tf.GradientTape() as tape:
            fake, logits = student(x, training=True)
            adversary = tf.nn.dropout(fake, 0.5)
            with tf.GradientTape() as inner:
                scores = [discriminator(tf.stop_gradient(f)) for f in (real, fake, adversary)]
                gain = log_sigmoid(scores[0]) + log_sigmoid(-scores[1]) + log_sigmoid(scores[2])
                d_loss = -tf.reduce_mean(gain)
            d_variables = discriminator.trainable_variables
            d_gradients = inner.gradient(d_loss, d_variables)
            optimizers[1].apply_gradients(zip(d_gradients, d_variables, strict=True))
            fooling = log_sigmoid(-discriminator(fake)) - log_sigmoid(discriminator(adversary))
            data_loss = tf.reduce_sum((logits - targets) ** 2, axis=-1)
            loss = tf.reduce_mean(fooling) + tf.reduce_mean(data_loss)
        variables = student.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizers[0].apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return lambda: step(iterator).numpy()


def tapped(model: Any) -> Any:
    """The model with its features as a second output."""
    import tensorflow as tf

    return tf.keras.Model(model.inputs, [model.get_layer("features").output, *model.outputs])


if __name__ == "__main__":
    main()
