"""A neural network out of single numbers, as teaching code writes it.

Every weight is a 0-d tensor and every product and sum is written out in plain Python loops over
lists; there is no array anywhere. Libraries made for arrays need microseconds for each of these
operations. The network tells the three species of iris apart by four measurements of the flower
(150 flowers, a file inside scikit-learn).

The same ``scores`` and ``loss_of`` run on tensors, to train, and on plain floats, to show what
recording the operations costs; and compiled, on plain floats too, which gives loss and gradient
without recording anything again.

    python examples/scalar_network.py
    python examples/scalar_network.py --plot loss.png
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Sequence

from _common import duration, parser, picture, progress, table
from sklearn.datasets import load_iris

import fastad as ad

HIDDEN = 8
RATE = 0.3


def read_data(seed: int = 1):
    """Return two lists of (measurements, species): to train on, and to test.

    The measurements are plain floats, standardized with what is known of the training part.
    """
    raw = load_iris()
    flowers = list(zip(raw.data.tolist(), raw.target.tolist(), strict=True))
    random.Random(seed).shuffle(flowers)
    train, test = flowers[:120], flowers[120:]
    columns = list(zip(*(measured for measured, _ in train), strict=True))
    means = [statistics.fmean(column) for column in columns]
    deviations = [statistics.pstdev(column) for column in columns]

    def standardized(part):
        return [
            ([(v - m) / s for v, m, s in zip(x, means, deviations, strict=True)], species)
            for x, species in part
        ]

    return standardized(train), standardized(test)


def new_layer(inputs: int, outputs: int, source: random.Random) -> list[list]:
    """Return one list per neuron: its weights, then its bias."""
    return [
        [ad.tensor(source.gauss(0, inputs**-0.5), requires_grad=True) for _ in range(inputs)]
        + [ad.tensor(0.0, requires_grad=True)]
        for _ in range(outputs)
    ]


def neuron(parameters, x):
    """Return the bias plus the weighted sum of the inputs."""
    total = parameters[-1]
    for weight, value in zip(parameters, x, strict=False):  # the bias has no input
        total = total + weight * value
    return total


def scores(network, x, functions):
    """Return one score per species; ``functions`` is ``ad`` for tensors, ``math`` for floats."""
    hidden, output = network
    activations = [functions.tanh(neuron(parameters, x)) for parameters in hidden]
    return [neuron(parameters, activations) for parameters in output]


def loss_of(network, flowers, functions):
    """Return the mean cross-entropy: how surprised the network is by the species it sees."""
    total = 0.0
    for x, species in flowers:
        s = scores(network, x, functions)
        partition = functions.exp(s[0])
        for other in s[1:]:
            partition = partition + functions.exp(other)
        total = total + functions.log(partition) - s[species]
    return total / len(flowers)


def operations(inputs: int, outputs: int, flowers: int) -> int:
    """Return how many operations ``loss_of`` performs: + - * / tanh exp log on single numbers.

    >>> operations(4, 3, 120)
    15361
    """
    hidden = HIDDEN * (2 * inputs + 1)  # a product and a sum per input, one tanh
    output = outputs * 2 * HIDDEN
    entropy = outputs + (outputs - 1) + 1 + 2  # exp, their sum, log, + and -
    return flowers * (hidden + output + entropy) + 1  # the division


def floats_of(network):
    """Return the network with plain floats for its tensors."""
    return [[[p.item() for p in parameters] for parameters in layer] for layer in network]


def accuracy(network, flowers) -> float:
    """Return the share of flowers whose species has the highest score."""
    right = 0
    for x, species in flowers:
        s = scores(network, x, math)
        right += s.index(max(s)) == species
    return right / len(flowers)


def train(network, flowers, steps: int):
    """Train by gradient descent; return the loss of every step and the seconds spent.

    The seconds are those of the loss, and of loss, backward and step together.
    """
    parameters = [p for layer in network for neuron_ in layer for p in neuron_]
    losses, recording, all_in = [], 0.0, 0.0
    for _ in progress(range(steps), "training"):
        began = time.perf_counter()
        loss = loss_of(network, flowers, ad)
        recorded = time.perf_counter()
        loss.backward()
        with ad.no_grad():
            for p in parameters:
                p -= RATE * p.grad
                p.grad = None
        recording += recorded - began
        all_in += time.perf_counter() - began
        losses.append(loss.item())
    return losses, recording, all_in


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print, draw; return 1 if the network learnt too little."""
    chosen = parser(__doc__).parse_args(arguments)
    steps = 30 if chosen.quick else 300
    learn, test = read_data()
    source = random.Random(0)
    network = [new_layer(4, HIDDEN, source), new_layer(HIDDEN, 3, source)]
    count = sum(len(parameters) for layer in network for parameters in layer)
    work = operations(4, 3, len(learn))
    print(f"{len(learn)} flowers to train on, {len(test)} to test on; {count} parameters")
    print(f"One loss is {work} operations on single numbers.\n")

    losses, recording, all_in = train(network, learn, steps)

    plain = floats_of(network)
    repeats = max(1, steps // 10)
    began = time.perf_counter()
    for _ in range(repeats):
        loss_of(plain, learn, math)
    on_floats = (time.perf_counter() - began) / repeats

    program = ad.compile(lambda network: loss_of(network, learn, ad)).value_and_grad
    program(plain)
    began = time.perf_counter()
    for _ in range(repeats):
        program(plain)
    replayed = (time.perf_counter() - began) / repeats

    shown = sorted({0, steps // 10, steps // 3, steps - 1})
    print(table(["step", "loss"], [[str(i), f"{losses[i]:.6f}"] for i in shown]))
    print(
        f"\nRight: {accuracy(plain, learn):.1%} in training, {accuracy(plain, test):.1%} in test\n"
    )
    rows = [
        [
            what,
            duration(seconds),
            f"{work / seconds / 1e6:.2f} million",
            f"{seconds / on_floats:.2f}",
        ]
        for what, seconds in [
            ("the loss on plain floats", on_floats),
            ("the loss on tensors, recorded", recording / steps),
            ("loss, backward and step", all_in / steps),
            ("loss and gradient by a program", replayed),
        ]
    ]
    print(table(["", "time", "operations per second", "times plain"], rows))

    if chosen.plot:
        with picture(chosen.plot, 1, 1, (6, 4)) as (axes,):
            axes.semilogy(losses)
            axes.set(xlabel="step", ylabel="mean cross-entropy")

    learnt = losses[-1] < 0.5 * losses[0] and accuracy(plain, test) >= 0.8
    print("\nThe network learnt." if learnt else "\nThe network learnt too little.")
    return 0 if learnt else 1


if __name__ == "__main__":
    sys.exit(main())
