"""The examples' fits by SciPy's solvers, with derivatives from four sources.

Every source gets the same solver, start and tolerances.  What the solver calls is wrapped in
clocks, so that what fastad spends around its programs counts, recording included.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fastad as ad

from .peers import Skip
from .workloads import WrongAnswer

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SOURCES = ("programs", "differences", "autograd", "ordinary code")

# A fit: run by a source's name, it gives the parameters found.
Fit = Callable[[str], np.ndarray]
# Whether the k-th fit has ended where it should.
Judge = Callable[[int, np.ndarray], bool]


class Clock:
    """Counts and times the calls of functions that it wraps."""

    def __init__(self) -> None:
        self.calls, self.seconds, self.first = 0, 0.0, 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a clock; its first call counts in ``first`` too."""
        new = True

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal new
            began = time.perf_counter()
            result = function(*args, **kwargs)
            seconds = time.perf_counter() - began
            self.calls += 1
            self.seconds += seconds
            if new:
                self.first += seconds
                new = False
            return result

        return timed


@contextmanager
def clocks(name: str) -> Iterator[Clock]:
    """Let a solver of ``scipy.optimize`` time what it is given to evaluate."""
    from scipy import optimize

    solver, clock = getattr(optimize, name), Clock()

    @functools.wraps(solver)
    def timed(fun: Any, *args: Any, jac: Any = None, **options: Any) -> Any:
        jac = clock.wrap(jac) if callable(jac) else jac
        return solver(clock.wrap(fun), *args, jac=jac, **options)

    setattr(optimize, name, timed)
    try:
        yield clock
    finally:
        setattr(optimize, name, solver)


def of(namespace: Any, function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same function with another module under this global name."""
    assert isinstance(function, types.FunctionType)
    names = {**function.__globals__, name: namespace}
    return types.FunctionType(function.__code__, names)


def nist() -> tuple[str, list[Fit], Judge]:
    """13 problems from two starts each; the program of a problem serves both."""
    from scipy import optimize

    example = importlib.import_module("nist_fits")
    problems = list(example.read_problems().values())

    def fits(problem: Any) -> list[Fit]:
        kept: dict[str, Any] = {}

        def run(k: int, source: str) -> np.ndarray:
            start, model, f = problem.starts[k], problem.model, problem.residuals
            if source == "programs":
                if k == 0:
                    kept["program"] = ad.compile(f)
                return ad.scipy.least_squares(kept["program"], start, **example.SETTINGS).x
            if source == "autograd":
                import autograd

                model = of(autograd.numpy, model, "np")
                jac = autograd.jacobian(lambda b: model(b, problem.x) - problem.y)
            else:
                jac = "2-point" if source == "differences" else ad.jacobian(f)
            return optimize.least_squares(f, start, jac=jac, **example.SETTINGS).x

        return [functools.partial(run, k) for k in range(2)]

    def agrees(k: int, found: np.ndarray) -> bool:
        return example.digits(found, problems[k // 2].certified) >= 5

    return "least_squares", [fit for p in problems for fit in fits(p)], agrees


def logistic() -> tuple[str, list[Fit], Judge]:
    """Logistic regression with 31 parameters, by L-BFGS-B."""
    from scipy import optimize

    example = importlib.import_module("logistic_regression")
    x, sign, *_ = example.read_data()
    options = {"method": "L-BFGS-B",
               "options": {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000, "maxfun": 100000}}
    start = np.zeros(x.shape[1] + 1)

    def loss(namespace: Any) -> Callable[..., Any]:
        function = of(namespace, example.loss_of, "ad")
        return lambda p: function(p[:-1], p[-1], x, sign)

    def run(source: str) -> np.ndarray:
        if source == "programs":
            return ad.scipy.minimize(loss(ad), start, **options).x
        if source == "differences":
            return optimize.minimize(loss(np), start, **options).x
        if source == "autograd":
            import autograd

            f = autograd.value_and_grad(loss(autograd.numpy))
        else:
            f = ad.value_and_grad(loss(ad))
        return optimize.minimize(f, start, jac=True, **options).x

    best = run("ordinary code")

    def agrees(k: int, found: np.ndarray) -> bool:
        return bool(np.allclose(found, best, rtol=1e-3, atol=1e-4))

    return "minimize", [run], agrees


def pendulum(refits: int) -> tuple[str, list[Fit], Judge]:
    """A simulation of 1000 steps with six parameters, fitted once or to more observations."""
    from scipy import optimize

    example = importlib.import_module("pendulum_fit")
    experiment = example.Experiment(1000)
    observed = [experiment.angles] + [experiment.observed(example.TRUE) for _ in range(refits)]

    def simulate(parameters: Any, sin: Callable[[Any], Any]) -> list:
        # What one would write without programs: on floats an `if` takes half the time of max().
        gravity, damping, stop, stiffness, angle, velocity = parameters
        angles = []
        for i in range(experiment.steps):
            acceleration = -gravity * sin(angle) - damping * velocity
            if angle > stop:
                acceleration = acceleration - stiffness * (angle - stop)
            velocity = velocity + example.STEP * acceleration
            angle = angle + example.STEP * velocity
            if (i + 1) % example.EVERY == 0:
                angles.append(angle)
        return angles

    def plain(parameters: np.ndarray, angles: np.ndarray) -> np.ndarray:
        return np.array(simulate(parameters.tolist(), example.math.sin)) - angles

    guess = (example.GUESS, observed[0])
    if not np.allclose(plain(*guess), experiment.residuals(*guess), rtol=0.0, atol=1e-12):
        raise WrongAnswer("the pendulum with `if` differs from that with maximum")
    kept: dict[str, Any] = {}

    def run(k: int, source: str) -> np.ndarray:
        options = {"args": (observed[k],), **example.SETTINGS}
        if source == "programs":
            if k == 0:
                kept["program"] = ad.compile(experiment.recorded_residuals)
            return ad.scipy.least_squares(kept["program"], example.GUESS, **options).x
        if source == "autograd":
            from autograd import make_jvp, numpy

            def jac(parameters: np.ndarray, angles: np.ndarray) -> np.ndarray:
                push = make_jvp(lambda p: numpy.array(simulate(p, numpy.sin)))(parameters)
                return np.stack([push(unit)[1] for unit in np.eye(parameters.size)], axis=1)
        elif source == "differences":
            jac = "2-point"
        else:
            jac = ad.jacobian(lambda p, angles: ad.stack(simulate(list(p), ad.sin)) - angles)
        return optimize.least_squares(plain, example.GUESS, jac=jac, **options).x

    best = [run(k, "ordinary code") for k in range(1 + refits)]

    def agrees(k: int, found: np.ndarray) -> bool:
        return bool(np.allclose(found, best[k], rtol=1e-4, atol=1e-6))

    return "least_squares", [functools.partial(run, k) for k in range(1 + refits)], agrees


CASES = {
    "NIST's problems": (nist, SOURCES),
    "logistic regression": (logistic, SOURCES),
    "simulation, one fit": (functools.partial(pendulum, 0), SOURCES),
    # autograd would take minutes, and has nothing to gain from more fits
    "simulation, 20 more fits": (functools.partial(pendulum, 20), SOURCES[:2] + SOURCES[3:]),
}


def run(solver: str, fits: list[Fit], agrees: Judge, source: str) -> dict[str, Any]:
    """Run all fits with one source.

    Returns
    -------
    dict
        ``evaluations``, ``seconds`` spent in them, ``first``: the part of the first calls, which
        record; ``total``: seconds in all; ``astray``: how many fits have ended elsewhere.

    Raises
    ------
    WrongAnswer
        If a fit with exact derivatives ends elsewhere; differences may see no way further down.
    """
    gc.collect()
    with clocks(solver) as clock, np.errstate(all="ignore"):
        began = time.perf_counter()
        found = [fit(source) for fit in fits]
        total = time.perf_counter() - began
    astray = [k for k, x in enumerate(found) if not agrees(k, x)]
    if astray and source != "differences":
        raise WrongAnswer(f"fit {astray[0]} with {source} ends at {found[astray[0]]}")
    return {"evaluations": clock.calls, "seconds": clock.seconds, "first": clock.first,
            "total": total, "astray": len(astray)}


def measure(rounds: int = 3) -> dict[str, Any]:
    """Return, by case and source, the round in which evaluations took least.

    Raises
    ------
    Skip
        If SciPy or scikit-learn is not installed.
    """
    for package in ("scipy", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise Skip(f"{package} is not installed")
    sys.path.insert(0, str(EXAMPLES))
    found: dict[str, Any] = {}
    for name, (make, sources) in CASES.items():
        case = make()
        found[name] = {}
        for source in sources:
            if source == "autograd" and importlib.util.find_spec("autograd") is None:
                continue
            runs = [run(*case, source) for _ in range(1 if source == "autograd" else 1 + rounds)]
            found[name][source] = min(runs[-rounds:], key=lambda r: r["seconds"])
    return found
