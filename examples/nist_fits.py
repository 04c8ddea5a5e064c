"""Fit NIST's reference problems for nonlinear regression with exact derivatives.

The National Institute of Standards and Technology publishes data sets, models, two starting
points each, and the parameters that minimize the residual sum of squares, certified to 11 digits
(Statistical Reference Datasets, nonlinear regression). This example

1. fits 13 of them with ``scipy.optimize.least_squares``, once by ``ad.scipy.least_squares``, which
   hands it exact Jacobians, and twice with SciPy's finite differences, under the same settings,
2. takes one Newton step with fastad's Hessian from where least_squares stopped, and
3. computes the parameters' standard deviations.

Why the Newton step: a solver that compares sums of squares is blind near the minimum, where a
parameter that is off by 1e-8 of its value changes the sum by 1e-16 of its own. The gradient is not
blind: it passes through zero there. One step with the exact gradient and Hessian therefore gives
the digits that least_squares cannot see.

The models below are ordinary NumPy functions. SciPy calls them with NumPy arrays; fastad calls
the same functions with tensors, once per problem, and then replays what they computed.

    python examples/nist_fits.py                    all problems, both starting points
    python examples/nist_fits.py Hahn1 MGH09        these only
    python examples/nist_fits.py --plot fits.png    with a picture

The exit code is 1 if a problem agrees to fewer than 7 digits from its second starting point.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import duration, parser, picture, progress, table
from scipy.optimize import least_squares

import fastad as ad

DATA = Path(__file__).resolve().parent / "data" / "nist_strd.json"

# The same for every source of derivatives: as tight as double precision allows.
SETTINGS = {"method": "trf", "ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 5000}

# SciPy's own choice for two points is a step of 1.5e-8 * max(1, |b|), too long for a parameter
# much smaller than 1. A step relative to the parameter is the better choice here, and three points
# with that step are the best that finite differences offer.
SOURCES = {
    "fastad": {},
    "2-point": {"jac": "2-point"},
    "3-point, relative step": {"jac": "3-point", "diff_step": np.finfo(float).eps ** (1 / 3)},
}


# ---- the models, b: parameters, x: the independent variable --------------------------------------


def misra1a(b, x):
    """Monomolecular adsorption; BoxBOD (biochemical oxygen demand) has the same form."""
    return b[0] * (1 - np.exp(-b[1] * x))


def misra1c(b, x):
    """Monomolecular adsorption, another law."""
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def chwirut(b, x):
    """Ultrasonic response over metal distance."""
    return np.exp(-b[0] * x) / (b[1] + b[2] * x)


def danwood(b, x):
    """Radiated energy over temperature."""
    return b[0] * x ** b[1]


def gauss(b, x):
    """Two overlapping Gaussian peaks on a decaying exponential."""
    first = b[2] * np.exp(-((x - b[3]) ** 2) / b[4] ** 2)
    second = b[5] * np.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    return b[0] * np.exp(-b[1] * x) + first + second


def lanczos(b, x):
    """Three decaying exponentials, hard to tell apart."""
    return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-b[3] * x) + b[4] * np.exp(-b[5] * x)


def kirby2(b, x):
    """Microscope line width, quadratic over quadratic."""
    return (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)


def hahn1(b, x):
    """Thermal expansion of copper, cubic over cubic."""
    above = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
    return above / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def mgh17(b, x):
    """Two decaying exponentials on a constant."""
    return b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4])


def mgh09(b, x):
    """Enzyme reaction (Kowalik and Osborne), with a nearly singular Jacobian at the first start."""
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def rat42(b, x):
    """Sigmoidal growth of pasture."""
    return b[0] / (1 + np.exp(b[1] - b[2] * x))


def enso(b, x):
    """Monthly pressure differences behind El Niño: three cycles, two of unknown length."""
    year, second, third = (2 * np.pi * x / period for period in (12, b[3], b[6]))
    return (
        b[0]
        + b[1] * np.cos(year)
        + b[2] * np.sin(year)
        + b[4] * np.cos(second)
        + b[5] * np.sin(second)
        + b[7] * np.cos(third)
        + b[8] * np.sin(third)
    )


MODELS = {
    "Misra1a": misra1a,
    "Misra1c": misra1c,
    "Chwirut2": chwirut,
    "DanWood": danwood,
    "Gauss1": gauss,
    "Lanczos3": lanczos,
    "Kirby2": kirby2,
    "Hahn1": hahn1,
    "MGH17": mgh17,
    "MGH09": mgh09,
    "Rat42": rat42,
    "BoxBOD": misra1a,
    "ENSO": enso,
}


# ---- the problems --------------------------------------------------------------------------------


class Problem(NamedTuple):
    """One data set with its model and what NIST certifies; ``b`` means the parameters."""

    name: str
    formula: str
    model: Callable
    x: np.ndarray
    y: np.ndarray
    starts: tuple[np.ndarray, np.ndarray]
    certified: np.ndarray
    certified_sd: np.ndarray
    certified_rss: float

    def residuals(self, b):
        """Return model minus observation for each observation."""
        return self.model(b, self.x) - self.y

    def half_rss(self, b):
        """Return half the residual sum of squares, what least_squares minimizes."""
        r = self.residuals(b)
        return 0.5 * (r @ r)


def read_problems() -> dict[str, Problem]:
    """Return the problems by name, in NIST's order of difficulty."""
    raw = json.loads(DATA.read_text(encoding="utf-8"))
    return {
        name: Problem(
            name,
            p["model"],
            MODELS[name],
            np.array(p["x"]),
            np.array(p["y"]),
            (np.array(p["start1"]), np.array(p["start2"])),
            np.array(p["certified"]),
            np.array(p["certified_sd"]),
            p["certified_rss"],
        )
        for name, p in raw.items()
    }


def digits(found: Sequence[float], certified: Sequence[float]) -> float:
    """Return how many digits agree: NIST's log relative error of the worst parameter.

    The log relative error is ``-log10(|found - certified| / |certified|)``, or
    ``-log10(|found|)`` where the certified value is 0. It ends at 11, the digits that NIST
    certifies; below 1 it counts as 0, and so do nan and inf.

    Raises
    ------
    ValueError
        If there are not as many found as certified values, or none.

    Examples
    --------
    >>> round(digits([1.0, 200.002], [1.0, 200.0]), 3)
    5.0
    >>> digits([float("nan")], [1.0])
    0.0
    """
    found, certified = np.asarray(found, float), np.asarray(certified, float)
    if found.shape != certified.shape or found.size == 0:
        raise ValueError(f"digits: {found.shape} found values beside {certified.shape} certified")
    scale = np.where(certified == 0, 1.0, np.abs(certified))
    with np.errstate(invalid="ignore"):
        error = np.abs(found - certified) / scale
    error = np.where(np.isfinite(error), error, 1.0)
    agreeing = -np.log10(np.clip(error.max(), 1e-11, 1.0))
    return float(agreeing) if agreeing >= 1 else 0.0


# ---- one fit -------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """Where a solver stopped and what it cost."""

    b: np.ndarray
    evaluations: int  # of the model, those for finite differences included
    jacobians: int  # by fastad
    seconds: float


def fit(problem: Problem, program: ad.Program, start: np.ndarray, source: str) -> Fit:
    """Run least_squares from ``start`` with the derivatives of ``source``, a key of SOURCES.

    ``program`` is ``ad.compile(problem.residuals)``: recorded in the first fit, replayed in others.
    """
    evaluations = 0

    def residuals(b):
        nonlocal evaluations
        evaluations += 1
        return problem.residuals(b)

    began = time.perf_counter()
    with np.errstate(all="ignore"):  # a step may try parameters where exp overflows; it is refused
        if source == "fastad":
            solution = ad.scipy.least_squares(program, start, **SETTINGS)
            cost = solution.nfev, solution.njev
        else:
            solution = least_squares(residuals, start, **SOURCES[source], **SETTINGS)
            cost = evaluations, 0
    return Fit(solution.x, *cost, time.perf_counter() - began)


def inverse_and_scale(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``C`` and ``d`` such that the inverse of a Hessian is ``C / outer(d, d)``.

    With ones on the diagonal the condition number does not depend on the parameters' units, which
    differ by factors of up to 1e7 here.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the Hessian is not positive definite, that is, not from a minimum.
    """
    diagonal = np.diag(hessian)
    if not np.all(diagonal > 0):
        raise np.linalg.LinAlgError("the Hessian is not positive definite")
    d = np.sqrt(diagonal)
    factor = np.linalg.inv(np.linalg.cholesky(hessian / np.outer(d, d)))
    return factor.T @ factor, d


def newton_step(problem: Problem, b: np.ndarray) -> np.ndarray:
    """Return ``b`` moved to where the gradient of the residual sum of squares is zero."""
    try:
        inverse, d = inverse_and_scale(ad.hessian(problem.half_rss)(b))
    except np.linalg.LinAlgError:
        return b  # least_squares did not reach a minimum; the digits will tell
    return b - inverse @ (ad.grad(problem.half_rss)(b) / d) / d


def deviations(problem: Problem, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters' standard deviations twice: from J'J and from the Hessian.

    Both are the square roots of the diagonal of ``s^2 M^-1`` with ``s^2 = RSS / (n - p)``. For
    ``M = J'J`` the model is taken as linear near the solution, which is what NIST certifies. For
    ``M = H``, the Hessian of half the residual sum of squares, its curvature counts too:
    ``H = J'J + sum_i r_i (Hessian of r_i)``. The two differ where the model bends within the
    uncertainty of its parameters. Not at a minimum: nan.
    """
    variance = 2 * problem.half_rss(b) / (problem.x.size - b.size)
    jacobian = ad.jacobian(problem.residuals)(b)
    length = np.linalg.norm(jacobian, axis=0)
    # From J = QR, not from J'J itself, which would square the condition number.
    triangle = np.linalg.inv(np.linalg.qr(jacobian / length, mode="r"))
    linear = np.sqrt(variance * np.sum(triangle**2, axis=1)) / length
    try:
        inverse, d = inverse_and_scale(ad.hessian(problem.half_rss)(b))
    except np.linalg.LinAlgError:
        return linear, np.full(b.size, np.nan)
    return linear, np.sqrt(variance * np.diag(inverse)) / d


# ---- what is printed -----------------------------------------------------------------------------


def report(problem: Problem, fits: dict, polished: dict) -> str:
    """Return the tables of one problem: its parameters, then what each fit cost."""
    last = max(polished)
    linear, curved = deviations(problem, polished[last])
    columns = [problem.certified, *polished.values()]
    parameters = [
        [
            f"b{i + 1}",
            *(f"{column[i]:.10e}" for column in columns),
            *(f"{sd[i]:.4e}" for sd in (problem.certified_sd, linear, curved)),
        ]
        for i in range(problem.certified.size)
    ]
    rss = [f"{2 * problem.half_rss(b):.10e}" for b in polished.values()]
    parameters.append(["RSS", f"{problem.certified_rss:.10e}", *rss, "", "", ""])
    costs = [
        [
            f"start {start}: {source}",
            f"{digits(result.b, problem.certified):.1f}",
            f"{digits(polished[start], problem.certified):.1f}" if source == "fastad" else "",
            str(result.evaluations),
            str(result.jacobians or ""),
            duration(result.seconds),
        ]
        for (start, source), result in fits.items()
    ]
    found = [f"found, start {start}" for start in polished]
    deviation = ["certified sd", "sd, J'J", "sd, Hessian"]
    return "\n".join(
        [
            f"\n{problem.name}: y = {problem.formula}   ({problem.x.size} observations)\n",
            table(["", "certified", *found, *deviation], parameters),
            "",
            table(["", "digits", "+ Newton", "evaluations", "Jacobians", "time"], costs),
        ]
    )


def summary(results: dict, sources: Sequence[str]) -> str:
    """Return one line per problem and start: the digits from each source of derivatives."""
    rows = []
    for name, (problem, fits, polished) in results.items():
        for start, b in polished.items():
            row = [f"{name}, start {start}"]
            row += [f"{digits(fits[start, s].b, problem.certified):.1f}" for s in sources]
            rows.append([*row, f"{digits(b, problem.certified):.1f}"])
    return table(["digits that agree", *sources, "fastad + Newton"], rows)


def draw(path: Path, results: dict) -> None:
    """Draw observations and fitted curve of every problem."""
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    with picture(path, rows, columns, (3.2 * columns, 2.6 * rows)) as axes:
        for ax in axes[len(results) :]:
            ax.set_axis_off()
        for ax, (name, (problem, _, polished)) in zip(axes, results.items(), strict=False):
            x = np.linspace(problem.x.min(), problem.x.max(), 400)
            ax.plot(problem.x, problem.y, ".", color="0.6", markersize=4)
            ax.plot(x, problem.model(polished[max(polished)], x), color="C3", linewidth=1)
            ax.set_title(name, fontsize=9)
            ax.tick_params(labelsize=7)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print, draw; return the exit code."""
    problems = read_problems()
    options = parser(__doc__)
    options.add_argument("problems", nargs="*", metavar="problem", help="NIST's name of a problem")
    options.add_argument(
        "--digits", type=float, default=7.0, help="fewer from the second start: exit code 1"
    )
    chosen = options.parse_args(arguments)
    for name in chosen.problems:
        if name not in problems:
            options.error(f"no problem {name!r}; there are {', '.join(problems)}")
    names = chosen.problems or list(problems)
    # --quick: the second start only, and no finite differences of three points.
    starts = (2,) if chosen.quick else (1, 2)
    sources = list(SOURCES)[:2] if chosen.quick else list(SOURCES)

    first = next(iter(problems.values()))
    for source in sources:  # the first call pays for imports, which the times are not to contain
        fit(first, ad.compile(first.residuals), first.starts[1], source)

    results = {}
    for name in progress(names, "fitting"):
        problem = problems[name]
        program = ad.compile(problem.residuals)
        fits = {
            (start, source): fit(problem, program, problem.starts[start - 1], source)
            for start in starts
            for source in sources
        }
        polished = {start: newton_step(problem, fits[start, "fastad"].b) for start in starts}
        results[name] = (problem, fits, polished)

    for result in results.values():
        print(report(*result))
    print("\nNIST's standard deviations are those from J'J; see the docstring of deviations().\n")
    print(summary(results, sources))

    last = {name: digits(found[2], p.certified) for name, (p, _, found) in results.items()}
    short = [name for name, agreeing in last.items() if agreeing < chosen.digits]
    print(
        f"\n{len(last) - len(short)} of {len(last)} problems agree to at least {chosen.digits:g} "
        f"digits from the second start; the fewest are {min(last.values()):.1f}."
    )
    if short:
        print(f"Too few digits: {', '.join(short)}.")
    if chosen.plot:
        draw(chosen.plot, results)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
