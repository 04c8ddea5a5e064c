"""Find the parameters of a pendulum that bumps against a soft stop, from noisy angles.

The pendulum is simulated by the most ordinary loop: a few thousand time steps on single numbers.
The same loop runs on floats, to invent the observations and for finite differences, and once on
fastad's tensors: that recording, compiled, gives the exact derivatives with respect to all
parameters in every step of every fit. There are many fits, as the parameters' errors are found
twice: from the curvature at the solution, and by fitting again to observations with other noise.

    python examples/pendulum_fit.py
    python examples/pendulum_fit.py --plot pendulum.png

The stop pushes back with a force proportional to ``maximum(angle - stop, 0)``. An ``if`` would say
the same, and has the same derivatives because the force starts at zero. But a program keeps one
recording for each way through all the ``if`` of a function, and here every set of parameters bumps
at instants of its own: a recording would rarely serve twice. The rule: ``if`` for choices that
are few, ``maximum``, ``minimum`` and ``where`` for those that are made thousands of times.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
from _common import duration, parser, picture, progress, table
from scipy.optimize import approx_fprime, least_squares

import fastad as ad

STEP = 0.005  # seconds
EVERY = 20  # steps between observations
NOISE = 0.01  # radians, the standard deviation of one observation

# True value, first guess, and the bounds that keep a trial step from simulating an explosion.
PARAMETERS = {
    "gravity over length, 1/s^2": (9.5, 9.0, 1.0, 30.0),
    "damping, 1/s": (0.12, 0.3, 0.0, 2.0),
    "angle of the stop, rad": (0.55, 0.5, 0.0, 1.5),
    "stiffness of the stop, 1/s^2": (60.0, 40.0, 0.0, 1000.0),
    "first angle, rad": (-0.9, -0.8, -3.0, 3.0),
    "first angular velocity, rad/s": (0.4, 0.0, -5.0, 5.0),
}
TRUE, GUESS, LOWEST, HIGHEST = np.array(list(PARAMETERS.values())).T

# The same for all fits; "jac" because the parameters differ in size.
SETTINGS = {
    "bounds": (LOWEST, HIGHEST),
    "x_scale": "jac",
    "xtol": 1e-12,
    "ftol": 1e-12,
    "gtol": 1e-12,
}


FLOATS = SimpleNamespace(sin=math.sin, maximum=max)


def simulate(parameters, steps: int, functions) -> list:
    """Return the angle (radians) at every 20th time step.

    ``functions`` is ``ad`` where the parameters are tensors and FLOATS where they are floats.
    """
    gravity, damping, stop, stiffness, angle, velocity = parameters
    angles = []
    for i in range(steps):
        push = stiffness * functions.maximum(angle - stop, 0.0)
        acceleration = -gravity * functions.sin(angle) - damping * velocity - push
        # The new velocity moves the angle (symplectic Euler): the energy does not drift.
        velocity = velocity + STEP * acceleration
        angle = angle + STEP * velocity
        if (i + 1) % EVERY == 0:
            angles.append(angle)
    return angles


class Experiment:
    """Observed angles, and how far a set of parameters is from them."""

    def __init__(self, steps: int, seed: int = 0):
        self.steps = steps
        self.times = STEP * EVERY * np.arange(1, steps // EVERY + 1)
        self.noise = np.random.default_rng(seed)
        self.angles = self.observed(TRUE)

    def observed(self, parameters: np.ndarray) -> np.ndarray:
        """Return the angles of these parameters with noise of their own."""
        clean = np.array(simulate(parameters.tolist(), self.steps, FLOATS))
        return clean + NOISE * self.noise.standard_normal(clean.size)

    def residuals(self, parameters: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Return simulated minus observed angles, computed on plain floats."""
        return np.array(simulate(parameters.tolist(), self.steps, FLOATS)) - angles

    def recorded_residuals(self, parameters: ad.Tensor, angles) -> ad.Tensor:
        """Return the same, computed on tensors."""
        return ad.stack(simulate(list(parameters), self.steps, ad)) - angles

    def recorded_loss(self, parameters: ad.Tensor) -> ad.Tensor:
        """Return half the residual sum of squares."""
        r = self.recorded_residuals(parameters, self.angles)
        return 0.5 * (r @ r)

    def loss(self, parameters: np.ndarray) -> float:
        """Return half the residual sum of squares, computed on plain floats."""
        r = self.residuals(parameters, self.angles)
        return 0.5 * float(r @ r)


def seconds_per_call(f, x, label: str, repeats: int) -> float:
    """Return the shortest of several durations of ``f(x)``."""
    f(x)
    times = []
    for _ in progress(range(repeats), label):
        began = time.perf_counter()
        f(x)
        times.append(time.perf_counter() - began)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, fit, print, draw; return 1 if a parameter is off by 5 standard errors or more."""
    chosen = parser(__doc__).parse_args(arguments)
    steps, more = (1000, 5) if chosen.quick else (4000, 40)
    experiment = Experiment(steps)
    print(
        f"{steps} steps of {STEP} s, {experiment.times.size} observed angles, "
        f"noise of {NOISE} rad\n"
    )

    fits = {
        "fastad": partial(ad.scipy.least_squares, ad.compile(experiment.recorded_residuals)),
        "2-point": partial(least_squares, experiment.residuals),
    }
    results, costs = {}, []
    for name, fit in fits.items():
        began = time.perf_counter()
        results[name] = found = fit(GUESS, args=(experiment.angles,), **SETTINGS)
        seconds = time.perf_counter() - began
        more_simulations = TRUE.size * found.njev if name == "2-point" else 0
        costs.append([name, str(found.nfev + more_simulations), str(found.njev), duration(seconds)])
    best = results["fastad"]

    began = time.perf_counter()
    refits = [
        fits["fastad"](best.x, args=(experiment.observed(best.x),), **SETTINGS).x
        for _ in progress(range(more), "fitting again")
    ]
    seconds = (time.perf_counter() - began) / more
    costs.append([f"fastad, each of {more} more fits", "", "", duration(seconds)])
    spread = np.std(refits, axis=0, ddof=1)

    # The Gauss-Newton covariance s^2 (J'J)^-1, from J = QR
    variance = 2 * best.cost / (experiment.times.size - TRUE.size)
    triangle = np.linalg.inv(np.linalg.qr(best.jac, mode="r"))
    errors = np.sqrt(variance * np.sum(triangle**2, axis=1))
    off = (best.x - TRUE) / errors
    rows = [
        [name, f"{true:g}", f"{guess:g}", f"{x:.5f}", f"{s:.5f}", f"{e:.5f}", f"{o:+.1f}"]
        for name, true, guess, x, s, e, o in zip(
            PARAMETERS, TRUE, GUESS, best.x, spread, errors, off, strict=True
        )
    ]
    header = ["", "true", "guess", "found", f"spread of {more}", "standard error", "errors off"]
    print(table(header, rows))
    print(f"\nThe noise is estimated as {math.sqrt(variance):.5f} rad.\n")
    print(table(["least_squares with", "simulations", "Jacobians", "time"], costs))
    apart = np.max(np.abs(best.x - results["2-point"].x) / errors)
    print(f"The first two end {apart:.0e} standard errors apart.")

    repeats = 3 if chosen.quick else 10
    gradient = ad.grad(experiment.recorded_loss)
    program = ad.compile(experiment.recorded_loss)
    measured = {
        "one simulation on floats": experiment.loss,
        f"gradient by differences, {1 + TRUE.size} simulations": lambda p: approx_fprime(
            p, experiment.loss
        ),
        "gradient by fastad, ordinary code": gradient,
        "gradient by fastad, program": program.grad,
    }
    times = {what: seconds_per_call(f, GUESS, what, repeats) for what, f in measured.items()}
    plain = times["one simulation on floats"]
    rows = [[what, duration(t), f"{t / plain:.2f}"] for what, t in times.items()]
    print()
    print(table(["", "time", "times a simulation"], rows))

    exact, approximate = gradient(GUESS), approx_fprime(GUESS, experiment.loss)
    error = np.max(np.abs(approximate - exact)) / np.max(np.abs(exact))
    print(f"\nThe gradient by differences is off by {error:.1e} of its largest entry.")

    if chosen.plot:
        with picture(chosen.plot, 1, 1, (9, 4)) as (axes,):
            axes.plot(experiment.times, experiment.angles, ".", color="0.6", label="observed")
            for label, parameters in [("first guess", GUESS), ("found", best.x)]:
                curve = simulate(parameters.tolist(), steps, FLOATS)
                axes.plot(experiment.times, curve, linewidth=1, label=label)
            axes.axhline(best.x[2], color="0.3", linestyle=":", label="stop, found")
            axes.set(xlabel="time, s", ylabel="angle, rad")
            axes.legend(loc="lower right", ncols=4)

    right = best.success and np.all(np.abs(off) < 5)
    print(
        "\nEvery parameter is within 5 standard errors of the true one."
        if right
        else "\nA parameter is 5 standard errors or more from the true one."
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
