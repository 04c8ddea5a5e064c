"""Tell malignant from benign tumours: one model, trained in two ways.

The data are 569 biopsies with 30 measurements each (breast cancer Wisconsin, a file inside
scikit-learn). The model is logistic regression with an L2 penalty, trained

1. by gradient descent written out: compute the loss, ``loss.backward()``, step against ``.grad``;
2. by ``ad.scipy.minimize``, which is SciPy's L-BFGS-B with value and gradient from one run of a
   program: the loss is recorded once and replayed in C;

and compared with scikit-learn's own ``LogisticRegression``, which minimizes the same function.

    python examples/logistic_regression.py
    python examples/logistic_regression.py --plot losses.png
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from _common import duration, parser, picture, progress, table
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import fastad as ad

PENALTY = 0.01


def read_data(seed: int = 0):
    """Return measurements and labels (-1: malignant, +1: benign) to train on, and those to test.

    The measurements are standardized with the mean and the deviation of the training part, so that
    the test part stays unseen.
    """
    raw = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(raw.target))
    train, test = order[:455], order[455:]
    mean, deviation = raw.data[train].mean(axis=0), raw.data[train].std(axis=0)
    x = (raw.data - mean) / deviation
    sign = 2.0 * raw.target - 1.0
    return x[train], sign[train], x[test], sign[test]


def loss_of(weights, intercept, x, sign):
    """Return the mean logistic loss plus the penalty on the weights, not on the intercept."""
    margin = sign * (x @ weights + intercept)
    # log(1 + exp(-margin)) without overflow
    return ad.mean(ad.logaddexp(0.0, -margin)) + 0.5 * PENALTY * (weights @ weights)


def accuracy(weights, intercept, x, sign) -> float:
    """Return the share of rows whose sign is predicted."""
    return float(np.mean(np.sign(x @ weights + intercept) == sign))


def descend(x, sign, steps: int):
    """Train by gradient descent; return the weights, the intercept and the loss of every step."""
    weights = ad.tensor(np.zeros(x.shape[1]), requires_grad=True)
    intercept = ad.tensor(0.0, requires_grad=True)
    # The logistic loss bends by at most 1/4 per unit of margin, hence at most this much along its
    # steepest direction; a step of one over that never overshoots.
    columns = np.column_stack([x, np.ones(len(x))])
    rate = 1.0 / (0.25 * np.linalg.norm(columns, 2) ** 2 / len(x) + PENALTY)
    losses = []
    for _ in progress(range(steps), "gradient descent"):
        loss = loss_of(weights, intercept, x, sign)
        loss.backward()
        with ad.no_grad():
            weights -= rate * weights.grad
            intercept -= rate * intercept.grad
        weights.grad = intercept.grad = None
        losses.append(loss.item())
    return weights.detach().numpy(), intercept.item(), losses


def minimize_with_scipy(x, sign):
    """Train with L-BFGS-B; return the weights, the intercept and the loss of every iteration."""

    def objective(parameters):
        return loss_of(parameters[:-1], parameters[-1], x, sign)

    losses = []
    solution = ad.scipy.minimize(
        objective,
        np.zeros(x.shape[1] + 1),
        method="L-BFGS-B",
        callback=lambda intermediate_result: losses.append(intermediate_result.fun),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    return solution.x[:-1], solution.x[-1], losses


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare, print, draw; return 1 if the results disagree."""
    chosen = parser(__doc__).parse_args(arguments)
    steps = 1000 if chosen.quick else 5000
    x, sign, x_test, sign_test = read_data()
    print(
        f"{len(x)} biopsies to train on, {len(x_test)} to test on, {x.shape[1]} measurements each"
    )

    began = time.perf_counter()
    *by_descent, descent_losses = descend(x, sign, steps)
    descent_time = time.perf_counter() - began
    began = time.perf_counter()
    *by_scipy, scipy_losses = minimize_with_scipy(x, sign)
    scipy_time = time.perf_counter() - began
    began = time.perf_counter()
    reference = LogisticRegression(C=1 / (PENALTY * len(x)), tol=1e-10, max_iter=10000).fit(x, sign)
    by_sklearn = [reference.coef_[0], reference.intercept_[0]]
    sklearn_time = time.perf_counter() - began

    trained = {
        f"gradient descent, {steps} steps": (by_descent, descent_time),
        f"L-BFGS-B, {len(scipy_losses)} iterations": (by_scipy, scipy_time),
        "scikit-learn": (by_sklearn, sklearn_time),
    }
    rows = [
        [
            name,
            f"{float(loss_of(*result, x, sign)):.12f}",
            f"{accuracy(*result, x, sign):.2%}",
            f"{accuracy(*result, x_test, sign_test):.2%}",
            duration(seconds),
        ]
        for name, (result, seconds) in trained.items()
    ]
    print(f"The loss is {descent_losses[0]:.6f} at first, where all weights are 0.\n")
    print(table(["", "loss", "right in training", "right in test", "time"], rows))

    def distance(a, b):
        return max(np.max(np.abs(a[0] - b[0])), abs(a[1] - b[1]))

    to_descent = distance(by_scipy, by_descent)
    to_sklearn = distance(by_scipy, by_sklearn)
    print(
        f"\nLargest difference of a weight: gradient descent to L-BFGS-B {to_descent:.1e}, "
        f"L-BFGS-B to scikit-learn {to_sklearn:.1e}."
    )

    if chosen.plot:
        with picture(chosen.plot, 1, 1, (6, 4)) as (axes,):
            lowest = min(descent_losses + scipy_losses)
            for label, losses in [("gradient descent", descent_losses), ("L-BFGS-B", scipy_losses)]:
                axes.loglog(1 + np.arange(len(losses)), np.array(losses) - lowest, label=label)
            axes.set(xlabel="iteration", ylabel="loss above the lowest")
            axes.legend()

    agree = to_descent < (1e-1 if chosen.quick else 1e-4) and to_sklearn < 1e-4
    print("The three agree." if agree else "The three do not agree.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
