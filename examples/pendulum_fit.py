"""Find the parameters of a pendulum that bumps against a soft stop, from noisy angles.

The pendulum is simulated by the most ordinary loop: a few thousand time steps on single numbers,
with an ``if`` for the stop. The same loop runs on floats, to invent the observations and for finite
differences, and on fastad's tensors, to get exact derivatives with respect to all parameters.

    python examples/pendulum_fit.py
    python examples/pendulum_fit.py --plot pendulum.png

What the ``if`` asks of the reader: the derivative of a loop is that of the branches which it took,
and the instant of a switch moves with the parameters. That is the whole derivative as long as both
branches agree where they meet. They do here: the stop pushes back with a force that starts at zero.
With a force that jumps (dry friction, a rigid wall), the moving instant would add a term that no
differentiation of the loop's statements can see.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

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

# The same for both sources of derivatives; "jac" because the parameters differ in size.
SETTINGS = {
    "bounds": (LOWEST, HIGHEST),
    "x_scale": "jac",
    "xtol": 1e-12,
    "ftol": 1e-12,
    "gtol": 1e-12,
}


def simulate(parameters, steps: int, functions) -> list:
    """Return the angle (radians) at every 20th time step.

    ``functions`` is ``ad`` where the parameters are tensors and ``math`` where they are floats.
    """
    gravity, damping, stop, stiffness, angle, velocity = parameters
    angles = []
    for i in range(steps):
        acceleration = -gravity * functions.sin(angle) - damping * velocity
        if angle > stop:
            acceleration = acceleration - stiffness * (angle - stop)
        # The new velocity moves the angle (symplectic Euler): the energy does not drift.
        velocity = velocity + STEP * acceleration
        angle = angle + STEP * velocity
        if (i + 1) % EVERY == 0:
            angles.append(angle)
    return angles


class Experiment:
    """Observed angles, and how far a set of parameters is from them.

    ``simulations`` counts the simulations on plain floats.
    """

    def __init__(self, steps: int, seed: int = 0):
        self.steps = steps
        self.times = STEP * EVERY * np.arange(1, steps // EVERY + 1)
        clean = np.array(simulate(TRUE.tolist(), steps, math))
        self.angles = clean + NOISE * np.random.default_rng(seed).standard_normal(clean.size)
        self.simulations = 0

    def residuals(self, parameters: np.ndarray) -> np.ndarray:
        """Return simulated minus observed angles, computed on plain floats."""
        self.simulations += 1
        return np.array(simulate(parameters.tolist(), self.steps, math)) - self.angles

    def recorded_residuals(self, parameters: ad.Tensor) -> ad.Tensor:
        """Return the same, computed on tensors."""
        return ad.stack(simulate(list(parameters), self.steps, ad)) - self.angles

    def recorded_loss(self, parameters: ad.Tensor) -> ad.Tensor:
        """Return half the residual sum of squares."""
        r = self.recorded_residuals(parameters)
        return 0.5 * (r @ r)

    def loss(self, parameters: np.ndarray) -> float:
        """Return half the residual sum of squares, computed on plain floats."""
        r = self.residuals(parameters)
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
    steps = 1000 if chosen.quick else 4000
    experiment = Experiment(steps)
    print(
        f"{steps} steps of {STEP} s, {experiment.times.size} observed angles, "
        f"noise of {NOISE} rad\n"
    )

    jacobian = ad.jacobian(experiment.recorded_residuals)
    fits = {}
    for name, jac in progress([("fastad", jacobian), ("2-point", "2-point")], "fitting"):
        experiment.simulations = 0
        began = time.perf_counter()
        found = least_squares(experiment.residuals, GUESS, jac=jac, **SETTINGS)
        seconds = time.perf_counter() - began
        fits[name] = (found, [str(experiment.simulations), str(found.njev), duration(seconds)])
    best, _ = fits["fastad"]

    # The Gauss-Newton covariance s^2 (J'J)^-1, from J = QR
    variance = 2 * best.cost / (experiment.times.size - TRUE.size)
    triangle = np.linalg.inv(np.linalg.qr(best.jac, mode="r"))
    errors = np.sqrt(variance * np.sum(triangle**2, axis=1))
    off = (best.x - TRUE) / errors
    rows = [
        [name, f"{true:g}", f"{guess:g}", f"{x:.5f}", f"{e:.5f}", f"{o:+.1f}"]
        for name, true, guess, x, e, o in zip(
            PARAMETERS, TRUE, GUESS, best.x, errors, off, strict=True
        )
    ]
    print(table(["", "true", "guess", "found", "standard error", "errors off"], rows))
    print(f"\nThe noise is estimated as {math.sqrt(variance):.5f} rad.\n")
    rows = [[name, *cost, f"{2 * found.cost:.12e}"] for name, (found, cost) in fits.items()]
    print(table(["least_squares with", "simulations", "Jacobians", "time", "RSS"], rows))

    repeats = 3 if chosen.quick else 10
    gradient = ad.grad(experiment.recorded_loss)
    measured = {
        "one simulation on floats": experiment.loss,
        "gradient by fastad": gradient,
        f"gradient by differences, {1 + TRUE.size} simulations": lambda p: approx_fprime(
            p, experiment.loss
        ),
        "Jacobian by fastad": jacobian,
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
                curve = simulate(parameters.tolist(), steps, math)
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
