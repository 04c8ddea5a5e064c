"""Differentiate one function in three ways: by symbols, by differences, automatically.

    python examples/three_methods.py
    python examples/three_methods.py --plot methods.png

The function is a loop: x is mapped again and again by x -> 3.6 x (1 - x) and the angles met on the
way are added up. By symbols, SymPy multiplies the loop out and derives the formula: exact, but the
formula doubles with every turn. By differences, the function is called at x + h and x - h: cheap
and easy, but a large h cuts off the curve and a small one drowns in rounding, so that half of the
digits are the most one gets. Automatically, each operation's derivative is multiplied in as it is
computed: as exact as the first and as cheap as the second.

Accuracy is measured against 60 digits.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
import sympy
from _common import duration, parser, picture, progress, table

import fastad as ad

AT = 0.3


def function(turns: int, sin: Callable[[Any], Any] = ad.sin) -> Callable[[Any], Any]:
    """Return the loop of so many turns; ``sin`` is that of the numbers it shall run on."""

    def f(x):
        total = 0.0
        for _ in range(turns):
            x = 3.6 * x * (1.0 - x)
            total = total + sin(x) * x
        return total

    return f


def reference(turns: int) -> float:
    """Return the derivative at AT to 17 digits, from a difference with 60."""
    with mpmath.workdps(60):
        f, h = function(turns, mpmath.sin), mpmath.mpf(10) ** -20
        return float((f(mpmath.mpf(AT) + h) - f(mpmath.mpf(AT) - h)) / (2 * h))


def central(f: Callable[[float], float], x: float, h: float) -> float:
    """Return the central difference."""
    return (f(x + h) - f(x - h)) / (2 * h)


def symbolic(turns: int) -> tuple[Callable[[float], float], int]:
    """Return SymPy's derivative as a function of floats, and how many operations it has."""
    x = sympy.Symbol("x", real=True)
    derivative = sympy.diff(function(turns, sympy.sin)(x), x)
    return sympy.lambdify(x, derivative, "math"), int(sympy.count_ops(derivative))


def seconds(f: Callable[[], Any]) -> float:
    """Return the shortest of several durations of a call."""
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - began)
    return best


def compared(turns: int) -> dict[str, Any]:
    """Return errors and times of the three methods for so many turns."""
    exact = reference(turns)

    def error(found: float) -> float:
        return max(abs(found - exact) / abs(exact), 2.0**-53)

    floats = function(turns, math.sin)
    began = time.perf_counter()
    derivative, operations = symbolic(turns)
    derived = time.perf_counter() - began
    program = ad.compile(function(turns)).grad
    began = time.perf_counter()
    program(AT)
    recorded = time.perf_counter() - began
    return {
        "turns": turns,
        "operations": operations,
        "preparation": (derived, 0.0, recorded),
        "error": (error(derivative(AT)), error(central(floats, AT, 6e-6)), error(program(AT))),
        "time": (seconds(lambda: derivative(AT)), seconds(lambda: central(floats, AT, 6e-6)),
                 seconds(lambda: program(AT))),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, draw; return 1 if the automatic derivative is not exact to 12 digits."""
    chosen = parser(__doc__).parse_args(arguments)
    longest = 4 if chosen.quick else 7
    few = ad.to_sympy(function(1), AT)
    print("One turn, written out by fastad from what it recorded:\n")
    print(f"    f(x)  = {few.value}")
    print(f"    f'(x) = {few.gradient['x']}\n")

    found = [compared(turns) for turns in progress(range(1, longest + 1), "deriving")]
    names = ["symbolic", "differences", "automatic"]
    for what, show in [("error", lambda v: f"{v:.1e}"), ("time", duration),
                       ("preparation", duration)]:
        header = [f"{what} of", *[f"{row['turns']} turns" for row in found]]
        rows = [[name, *[show(row[what][k]) for row in found]] for k, name in enumerate(names)]
        print(table(header, rows))
        print()
    print("operations in the symbolic derivative: "
          + ", ".join([str(row["operations"]) for row in found]))

    steps = 10.0 ** np.arange(-14.0, -1.0, 0.25)
    floats, exact = function(longest, math.sin), reference(longest)
    off = [abs(central(floats, AT, h) - exact) / abs(exact) for h in steps]
    print(f"differences are best with h = {steps[np.argmin(off)]:.0e}: error {min(off):.1e}")

    if chosen.plot:
        with picture(chosen.plot, 1, 3, (13, 4)) as (left, middle, right):
            turns = [row["turns"] for row in found]
            for k, name in enumerate(names):
                left.semilogy(turns, [row["error"][k] for row in found], "o-", label=name)
                middle.semilogy(turns, [row["time"][k] for row in found], "o-", label=name)
            left.set(xlabel="turns", ylabel="relative error", title="accuracy")
            middle.set(xlabel="turns", ylabel="seconds a derivative", title="time")
            right.loglog(steps, off, ".-", label="differences")
            right.axhline(max(found[-1]["error"][2], 2.0**-53), color="C2", label="automatic")
            right.set(xlabel="step h", ylabel="relative error", title=f"{longest} turns")
            left.legend()
            right.legend()

    right_one = found[-1]["error"][2] < 1e-12 and found[-1]["error"][0] < 1e-9
    print("\nThe automatic derivative is exact, the symbolic one as well." if right_one
          else "\nA derivative is wrong.")
    return 0 if right_one else 1


if __name__ == "__main__":
    sys.exit(main())
