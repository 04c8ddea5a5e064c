"""What is computed: functions of two leaves, each with its derivatives by hand.

A workload's function is written once, over a namespace ``xp`` (``math``, ``numpy``, ``fastad``,
``torch`` ...), and every library runs that very text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Answer(NamedTuple):
    """A value and its two gradients; those of a run that only computed the value are None."""

    value: Any
    first: Any = None
    second: Any = None


class WrongAnswer(AssertionError):
    """A library's value or gradient is not the one derived by hand."""


@dataclass(frozen=True)
class Workload:
    """A function of two leaves.

    Attributes
    ----------
    function
        ``function(xp, first, second)`` gives the output.
    leaves
        Two floats or two float64 arrays; gradients are taken in both.
    expected
        Computes the hand-derived `Answer`; called only by checks.
    operations
        How many primitives one call records.
    cotangent
        What ``backward`` starts from; None for an output that is one number.
    needs
        Names that ``xp`` must have.
    assigns
        Whether the function assigns to elements of an array.
    """

    name: str
    function: Callable[..., Any]
    leaves: tuple[Any, Any]
    expected: Callable[[], Answer]
    operations: int
    cotangent: np.ndarray | None = None
    needs: tuple[str, ...] = ()
    assigns: bool = False

    @property
    def scalar(self) -> bool:
        """Whether the leaves are Python floats."""
        return isinstance(self.leaves[0], float)

    def check(self, answer: Answer) -> None:
        """Compare `answer` with the hand-derived one to 1e-10 of its largest entry.

        Raises
        ------
        WrongAnswer
            If the value, or a gradient that is present, differs in shape or by more than that.
        """
        for what, found, wanted in zip(Answer._fields, answer, self.expected(), strict=True):
            if found is None:
                continue
            found, wanted = np.asarray(found), np.asarray(wanted)
            if found.shape != wanted.shape:
                raise WrongAnswer(f"{self.name}: {what} has shape {found.shape}, "
                                  f"wanted {wanted.shape}")
            error = np.max(np.abs(found - wanted))
            if not error <= 1e-10 * np.max(np.abs(wanted)):
                raise WrongAnswer(f"{self.name}: {what} is off by {error:.3g}")


def _leaves(a: float, x: float, rows: int | None) -> tuple[Any, Any]:
    """Return these numbers, or `rows` numbers near each."""
    if rows is None:
        return a, x
    rng = np.random.default_rng(5)
    return a * rng.uniform(0.9, 1.0, rows), x * rng.uniform(0.9, 1.1, rows)


def _named(name: str, operations: int, rows: int | None) -> str:
    return f"{name}, {operations} operations" + ("" if rows is None else f" on each of {rows} rows")


def multiply_add(steps: int, rows: int | None = None) -> Workload:
    """Return ``y = a*y + x`` repeated: nothing but binary operations on scalars.

    With `rows` the leaves are arrays of so many numbers, each the leaf of one call.
    """

    def function(xp, a, x):
        y = x
        for _ in range(steps):
            y = a * y + x
        return y

    a, x = _leaves(0.999, 0.5, rows)

    def expected():
        y, y_a, y_x = x, 0.0, 1.0
        for _ in range(steps):
            y, y_a, y_x = a * y + x, y + a * y_a, a * y_x + 1.0
        return Answer(y, y_a, y_x)

    return Workload(_named("a*y + x", 2 * steps, rows), function, (a, x), expected,
                    2 * steps * (rows or 1))


def mixed(steps: int, rows: int | None = None) -> Workload:
    """Return a recurrence of eight operations per step: sin, exp, quotient, negation, constant.

    With `rows` the leaves are arrays of so many numbers, each the leaf of one call.
    """

    def function(xp, a, x):
        sin, exp = xp.sin, xp.exp
        y = x
        for _ in range(steps):
            y = sin(y) * exp(-y) / (x + 2.0) + a * y
        return y

    a, x = _leaves(0.7, 0.5, rows)

    def expected():
        y, y_a, y_x = x, 0.0, 1.0
        for _ in range(steps):
            wave = np.sin(y) * np.exp(-y) / (x + 2.0)
            slope = (np.cos(y) - np.sin(y)) * np.exp(-y) / (x + 2.0) + a
            y, y_a, y_x = wave + a * y, y + slope * y_a, slope * y_x - wave / (x + 2.0)
        return Answer(y, y_a, y_x)

    return Workload(_named("sin(y)*exp(-y)/(x + 2) + a*y", 8 * steps, rows), function, (a, x),
                    expected, 8 * steps * (rows or 1), needs=("sin", "exp"))


def seven_operations(size: int) -> Workload:
    """Return ``(tanh(x*w)*exp(x) + w*x).sum()`` on arrays of `size` elements."""

    def function(xp, x, w):
        return (xp.tanh(x * w) * xp.exp(x) + w * x).sum()

    rng = np.random.default_rng(7)
    x, w = rng.uniform(-1.0, 1.0, (2, size))

    def expected():
        t, e = np.tanh(x * w), np.exp(x)
        slope = (1.0 - t * t) * e
        return Answer((t * e + w * x).sum(), slope * w + t * e + w, slope * x + x)

    return Workload(f"7 operations on {size} elements", function, (x, w), expected, 7,
                    needs=("tanh", "exp"))


def assignments(size: int) -> Workload:
    """Return the sum of a vector that is filled one element after the other."""

    def function(xp, x, a):
        y = xp.zeros_like(x)
        y[0] = x[0]
        a = a[0]
        for k in range(1, size):
            y[k] = a * y[k - 1] + x[k]
        return y.sum()

    rng = np.random.default_rng(13)
    x, a = rng.uniform(0.1, 1.0, size), np.array([0.9])

    def expected():
        y, y_a = np.zeros(size), np.zeros(size)
        y[0] = x[0]
        for k in range(1, size):
            y[k] = a[0] * y[k - 1] + x[k]
            y_a[k] = a[0] * y_a[k - 1] + y[k - 1]
        return Answer(y.sum(), (1.0 - a ** np.arange(size, 0, -1.0)) / (1.0 - a),
                      np.array([y_a.sum()]))

    return Workload(f"{size} scalar assignments", function, (x, a), expected, 5 * size,
                    assigns=True)


def matmul(size: int) -> Workload:
    """Return ``a @ b`` on square matrices, pulled back from a dense cotangent."""

    def function(xp, a, b):
        return a @ b

    rng = np.random.default_rng(3)
    a, b, cotangent = rng.uniform(-1.0, 1.0, (3, size, size))

    def expected():
        return Answer(a @ b, cotangent @ b.T, a.T @ cotangent)

    return Workload(f"{size}x{size} a @ b", function, (a, b), expected, 1, cotangent)


def logistic(rows: int, columns: int) -> Workload:
    """Return the mean logistic loss of `rows` margins ``X @ w``."""

    def function(xp, X, w):
        return xp.log1p(xp.exp(-xp.matmul(X, w))).sum() / rows

    rng = np.random.default_rng(11)
    X = rng.uniform(-1.0, 1.0, (rows, columns))
    w = rng.uniform(-1.0, 1.0, columns)

    def expected():
        slope = -1.0 / (1.0 + np.exp(X @ w)) / rows
        return Answer(np.log1p(np.exp(-(X @ w))).mean(), np.outer(slope, w), slope @ X)

    return Workload(f"logistic loss, {rows}x{columns}", function, (X, w), expected, 6,
                    needs=("log1p", "exp", "matmul"))


def softmax(rows: int, columns: int) -> Workload:
    """Return the cross entropy of `rows` softmax distributions with given weights."""

    def function(xp, x, t):
        y = x - xp.amax(x, 1)[:, None]
        return ((xp.log(xp.exp(y).sum(1))[:, None] - y) * t).sum()

    rng = np.random.default_rng(12)
    x, t = rng.uniform(-2.0, 2.0, (2, rows, columns))

    def expected():
        y = x - x.max(1, keepdims=True)
        e = np.exp(y)
        loss = np.log(e.sum(1, keepdims=True)) - y
        return Answer((loss * t).sum(), e / e.sum(1, keepdims=True) * t.sum(1, keepdims=True) - t,
                      loss)

    return Workload(f"softmax cross entropy, {rows}x{columns}", function, (x, t), expected, 9,
                    needs=("amax", "exp", "log"))
