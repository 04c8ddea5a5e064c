"""Reports: bounds that hold and are not vacuous, kinks, conditions, differences, missing paths.

FASTAD_RANDOM_BOUNDS is the number of random programs whose bounds are compared with the true
errors, by mpmath in 50 digits; FASTAD_RANDOM_SEED the first seed.
"""

import math
import os
import random
import statistics
import types
from types import SimpleNamespace

import numpy as np
import pytest
from test_ops_table import REFERENCE, mp

import fastad as ad
from fastad import rules, trust

PROGRAMS = int(os.environ.get("FASTAD_RANDOM_BOUNDS", "200"))
SEED = int(os.environ.get("FASTAD_RANDOM_SEED", "1"))
# The bounds are of first order, and rounding errors multiply with each other too.
FACTOR, MEDIAN = 2.0, 100.0
DIGITS = 50
REFERENCE_ERROR = 1e-40     # of differences in that many digits

EXACT = SimpleNamespace(**REFERENCE)
LINES = """
sin(E)
cos(E)
tanh(E)
arctan(E)
exp(-square(E))
exp(E * 0.25)
expm1(E * 0.5)
log(1.5 + sin(E))
log1p(square(E))
sqrt(0.5 + square(E))
hypot(E, 0.75)
sigmoid(E)
softplus(E)
erf(E)
erfc(E)
arcsinh(E)
sinh(E * 0.5)
cosh(E * 0.5)
logaddexp(E, E)
arctan2(E, 1.5 + cos(E))
reciprocal(1.25 + tanh(E))
cbrt(2.0 + sin(E))
power(1.5 + cos(E), 1.7)
power(1.25 + sin(E), E * 0.25)
log2(3.0 + E * E)
exp2(sin(E))
log10(2.5 + cos(E))
xlogy(E, 2.0 + sin(E))
negative(E)
maximum(E, 0.3)
minimum(E, E)
absolute(E)
square(E)
E + E
E + E
E - E
E - E
E * E
E * E
E / (1.5 + square(E))
E / (2.5 + sin(E))
E * 1.1
E - 0.7
3.3 - E
E ** 3
""".split("\n")[1:-1]


def drawn(rng):
    """A function of three numbers: its text, in functions of the namespace L."""
    lines, names = [], ["x", "y", "z"]
    for k in range(rng.randint(3, 14)):
        text = rng.choice(LINES)
        parts = text.split("E")
        # mostly what was computed last, so that little of the function is dead
        picked = [rng.choice(names[-3:] if rng.random() < 0.7 else names) for _ in parts[1:]]
        body = parts[0] + "".join([a + b for a, b in zip(picked, parts[1:])])
        lines.append(f"v{k} = {body}")
        names.append(f"v{k}")
    lines.append(f"return {names[-1]} + {names[-2]} * {rng.choice(names)}")
    return "def f(x, y, z):\n    " + "\n    ".join(lines) + "\n"


def compiled(text, functions):
    scope = {name: f for name, f in vars(functions).items() if not name.startswith("_")}
    exec(text, scope)
    return scope["f"]


def bounds_and_errors(seed):
    rng = random.Random(seed)
    text = drawn(rng)
    at = [rng.uniform(-1.5, 1.5) for _ in range(3)]
    f = compiled(text, ad)
    found = bounds_alone(f, at)
    if not all(math.isfinite(v) for v in (found.value, *found.gradient.values())):
        return text, []
    old, mp.dps = mp.dps, 2 * DIGITS
    try:
        x, h = [mp.mpf(v) for v in at], mp.mpf(10) ** -(DIGITS // 2)
        exact = compiled(text, EXACT)
        errors = [float(abs(exact(*x) - mp.mpf(found.value)))]
        for k, g in enumerate(found.gradient.values()):
            up, down = list(x), list(x)
            up[k] += h
            down[k] -= h
            errors.append(float(abs((exact(*up) - exact(*down)) / (2 * h) - mp.mpf(g))))
    finally:
        mp.dps = old
    return text, list(zip([found.bound, *found.gradient_bound.values()], errors))


def bounds_alone(f, at):
    """The part of a report that is tested here."""
    g = ad.record(f, *at)
    pieces = trust._Pieces(g, list(at))
    with ad.no_grad(), np.errstate(all="ignore"):
        y, bars, limit, limits = pieces.bounds(list(at))
    return SimpleNamespace(value=y, bound=limit, gradient=dict(enumerate(bars)),
                           gradient_bound=dict(enumerate(limits)))


def test_bounds_of_random_programs_hold_and_are_near_the_true_errors():
    ratios, checked = [], 0
    for seed in range(SEED, SEED + PROGRAMS):
        text, pairs = bounds_and_errors(seed)
        for bound, error in pairs:
            assert error <= FACTOR * bound + REFERENCE_ERROR, (seed, bound, error, text)
            checked += 1
            if error > REFERENCE_ERROR:
                ratios.append(bound / error)
    assert checked > 3 * PROGRAMS
    assert statistics.median(ratios) <= MEDIAN
    if PROGRAMS > 1000:
        print(f"\n{checked} bounds of {PROGRAMS} programs: median bound / error "
              f"{statistics.median(ratios):.2f}, least {min(ratios):.3f}")


def test_a_bound_that_forgets_an_operation_is_found_out(monkeypatch):
    monkeypatch.setattr(trust, "_constants", lambda name: (0.01, 0.0, 0.0))
    bad = 0
    for seed in range(SEED, SEED + 60):
        _, pairs = bounds_and_errors(seed)
        bad += any(error > FACTOR * bound + REFERENCE_ERROR for bound, error in pairs)
    assert bad > 20


def test_bounds_of_array_functions_hold():
    rng = np.random.default_rng(3)
    functions = [
        lambda a, b: ((a @ b) ** 2).sum(),
        lambda a, b: ad.log(ad.exp(a).sum(axis=1)).sum() - b.sum(),
        lambda a, b: ad.linalg.norm(a @ b - 0.3) + ad.prod(b),
        lambda a, b: ad.var(a) * ad.mean(b) - ad.std(b),
        lambda a, b: ad.cumsum(b)[-1] * ad.max(a) + ad.einsum("ij,ij->", a, a),
        lambda a, b: (ad.softplus(a.T) * b[:, None]).sum() + ad.dot(b, b),
    ]
    for f in functions:
        a, b = rng.standard_normal((5, 4)), rng.uniform(0.5, 1.5, 4)
        found = bounds_alone(f, [a, b])
        wide = [x.astype(np.longdouble) for x in (a, b)]
        if np.finfo(np.longdouble).eps < 1e-18:
            exact = longdouble_value(f, *wide)
            assert abs(float(exact - np.longdouble(found.value))) <= FACTOR * found.bound
        assert 0.0 < found.bound < 1e-12 * max(1.0, abs(found.value)) * 100
        for g, limit in zip(found.gradient.values(), found.gradient_bound.values()):
            assert np.shape(g) == np.shape(limit) and np.all(limit >= 0.0)
            assert limit.max() < 1e-11


def longdouble_value(f, a, b):
    """The function in 64-bit mantissas, for those that NumPy computes there by the same names."""
    names = {"log": np.log, "exp": np.exp, "prod": np.prod, "var": np.var, "mean": np.mean,
             "std": np.std, "cumsum": np.cumsum, "max": np.max, "einsum": np.einsum,
             "dot": np.dot, "softplus": lambda x: np.logaddexp(x, 0),
             "linalg": SimpleNamespace(norm=lambda x: np.sqrt((x * x).sum()))}
    scope = {"ad": SimpleNamespace(**names), "__builtins__": __builtins__}
    return types.FunctionType(f.__code__, scope)(a, b)


def test_cancellation_shows_in_the_bound():
    f = ad.compile(lambda x: (1.0 - ad.cos(x)) / x**2)
    bad, good = f.report(1e-6), f.report(1.0)
    assert abs(bad.value - 0.5) <= bad.bound < 1e-2 and bad.bound > 1e-6
    assert good.bound < 1e-14
    assert abs(bad.gradient["x"]) < bad.gradient_bound["x"]


def test_operations_that_round_nothing_have_no_bound():
    found = ad.report(lambda x, y: ad.maximum(abs(-x), y) * 2.0, 3.0, 1.0)
    assert (found.bound, found.gradient_bound) == (0.0, {"x": 0.0, "y": 0.0})


def test_numbers_of_float32_have_their_own_unit():
    x = np.float32([0.1, 0.2, 0.3])
    wide = ad.report(lambda x: (x * x).sum(), x.astype(float))
    narrow = ad.report(lambda x: (x * x).sum(), x)
    assert 1e6 < narrow.bound / wide.bound < 1e10


# ---- kinks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("f, at, what, distance", [
    (lambda x, y: abs(x - y), (3.0, 1.0), "absolute", 2.0 / math.sqrt(2.0)),
    (lambda x, y: ad.maximum(2.0 * x, y), (1.0, 1.0), "maximum", 1.0 / math.sqrt(5.0)),
    (lambda x, y: ad.relu(x) * y, (0.25, 1.0), "relu", 0.25),
    (lambda x, y: ad.clip(x, -1.0, 1.0) + y, (0.75, 1.0), "clip", 0.25),
    (lambda x, y: ad.floor(3.0 * x) * y, (0.5, 1.0), "floor", 0.5 / 3.0),
    (lambda x, y: ad.rint(x) * y, (0.25, 1.0), "rint", 0.25),
    (lambda x, y: x * x if x > y else y, (2.0, 1.0), "guard: ", 1.0 / math.sqrt(2.0)),
    (lambda x, y: x * int(10.0 * y), (2.0, 0.52), "guard: ", 0.02),
    (lambda x, y: ad.remainder(x, 1.0) * y, (1.25, 1.0), "remainder", 0.25),
])
def test_the_distance_to_a_kink_is_measured_in_the_inputs(f, at, what, distance):
    found = ad.report(f, *at)
    assert found.kinks[0].what.startswith(what)
    assert found.kinks[0].distance == pytest.approx(distance, rel=1e-12)
    assert found.kinks[0].file == __file__


def test_kinks_of_arrays_are_the_nearest_of_their_elements():
    x = np.array([0.5, -0.125, 2.0])
    found = ad.report(lambda x: abs(x).sum(), x)
    assert (found.kinks[0].what, found.kinks[0].distance) == ("absolute", 0.125)
    found = ad.report(lambda x: ad.where(x > 0.25, x, 0.0).sum(), x)
    assert (found.kinks[0].what, found.kinks[0].distance) == ("greater", 0.25)
    found = ad.report(lambda x: ad.max(x) * 3.0, x)
    assert found.kinks[0].distance == pytest.approx(1.5 / math.sqrt(2.0))
    found = ad.report(lambda x: ad.max(x), np.array([1.0, 1.0]))
    assert found.kinks[0].distance == 0.0 and found.agree is None
    found = ad.report(lambda x: ad.linalg.norm(x), np.array([3.0, 4.0]))
    assert found.kinks[0].distance == pytest.approx(5.0)


def test_a_smooth_function_has_no_kinks():
    assert ad.report(lambda x: ad.sin(x) * x, 1.0).kinks == []


# ---- the rest ------------------------------------------------------------------------------------


def test_conditions_are_relative_derivatives():
    found = ad.report(lambda x, y: x**3 * y, 2.0, 5.0)
    assert found.condition == {"x": pytest.approx(3.0), "y": pytest.approx(1.0)}


def test_what_no_path_reaches_is_told_from_a_gradient_that_is_zero():
    found = ad.report(lambda a, b, c: a[0] * a[2] + 0.0 * b, np.ones(4), 1.0, 2.0)
    assert found.unreached["a"].tolist() == [False, True, False, True]
    assert (found.unreached["b"], found.unreached["c"]) == (False, True)
    assert found.gradient["b"] == 0.0 and found.gradient["c"] == 0.0
    found = ad.report(lambda a, b: a[1:].sum() + b.sum(), np.ones(3), np.ones(2))
    assert found.unreached["a"].tolist() == [True, False, False]
    assert found.unreached["b"].tolist() == [False, False]


@pytest.fixture
def primitive(monkeypatch):
    monkeypatch.setattr(rules, "PRIMITIVES", dict(rules.PRIMITIVES))
    return rules.primitive("a rule of this test", reads_inputs=True)


def test_differences_agree_with_right_gradients_and_not_with_wrong_ones(primitive):
    def f(x):
        return ad.sin(x).sum() * x[0]

    assert ad.report(f, np.array([0.5, 1.5])).agree is True

    @primitive
    class WRONG:
        def forward(x):
            return x * x

        def vjp(g, y, inputs, needs):
            return (2.001 * inputs[0] * g,)

    found = ad.report(lambda x: rules.record(WRONG, (x,), {}) * 1.5, 2.0)
    assert found.agree is False and "DO NOT AGREE" in str(found)


def test_a_primitive_without_a_bound_is_named_and_the_rest_is_there(primitive):
    @primitive
    class OWN:
        def forward(x):
            return x * 3.0

        def vjp(g, y, inputs, needs):
            return (g * 3.0,)

    found = ad.report(lambda x: rules.record(OWN, (x,), {}), 2.0)
    assert found.unknown == ("a rule of this test",)
    assert math.isnan(found.bound) and math.isnan(found.gradient_bound["x"])
    assert found.value == 6.0 and found.gradient["x"] == 3.0 and found.agree
    assert "is not known" in str(found)


def test_a_program_keeps_what_its_reports_are_made_of():
    p = ad.compile(lambda x: x * x if x > 0.0 else -x)
    first = p.report(2.0)
    recordings = p.recordings
    again = p.report(3.0)
    assert (p.recordings, len(p.reports)) == (recordings, 1)
    assert (first.value, again.value, again.gradient) == (4.0, 9.0, {"x": 6.0})
    assert p.report(-1.0).gradient == {"x": -1.0}


def test_a_report_follows_what_the_function_finds_outside():
    scale = [2.0]
    p = ad.compile(lambda x: x * scale[0])
    assert p.report(1.0).gradient["x"] == 2.0
    scale[0] = 3.0
    assert p.report(1.0).gradient["x"] == 3.0


def test_what_is_not_one_number_is_refused():
    for f in (lambda x: x * np.ones(2), lambda x: (x, x), lambda x: x > 0.0):
        with pytest.raises(ValueError, match="one floating number"):
            ad.report(f, 1.0)


def test_the_report_reads_well():
    text = str(ad.report(lambda w, b: (ad.tanh(w) * b).sum(), np.array([0.5, 1.0]), 2.0))
    assert [line.split()[0] for line in text.splitlines()] == [
        "value", "result", "d/dw[0]", "d/dw[1]", "d/db", "differences"]


# ---- functions of arrays -------------------------------------------------------------------------


def written(a, v):
    y = a * 1.1
    y[0] = v
    y[1, 2] += v * v
    return y * y


# Functions of a (3, 4) and b (4), in NumPy's functions alone: each in extended precision too.
OF_ARRAYS = {
    "ptp": lambda a, b: np.ptp(b) * 1.1,
    "median": lambda a, b: np.median(a * b),
    "quantile": lambda a, b: np.quantile(b, 0.25) * b[0],
    "cov": lambda a, b: np.cov(a).sum() + np.corrcoef(a)[0, 1],
    "var": lambda a, b: np.var(a) + np.nanvar(b) + np.std(b),
    "products": lambda a, b: np.kron(a, b).sum() + np.vecdot(a, b)[0],
    "cross": lambda a, b: (np.cross(a[:, :3], b[1:]) * b[0]).sum(),
    "convolve": lambda a, b: (np.convolve(b, b) * np.correlate(b, b, "full")).sum(),
    "trapezoid": lambda a, b: np.trapezoid(a, b * 1.0, axis=1).sum() + np.gradient(b)[1] * b[0],
    "cumprod": lambda a, b: (np.cumprod(b) * np.cumsum(b)).sum() + np.prod(a),
    "written": lambda a, b: written(a, b[0]).sum(),
    "fft": lambda a, b: abs(np.fft.fft(b)).sum() + (np.fft.rfft(a, axis=1).real ** 2).sum(),
    "complex": lambda a, b: abs(np.exp(1j * b) * b / (b + 1j)).sum(),
    "sort": lambda a, b: (np.sort(b) * b).sum() + np.average(b, weights=b * b),
    "ufuncs": lambda a, b: np.multiply.accumulate(b)[-1] + np.add.reduceat(b, [0, 2])[1] * b[0],
    "poly": lambda a, b: np.polyval(b, b[0]) + np.geomspace(b[0], b[1], 5).sum(),
    "vander": lambda a, b: np.vander(b).sum() + np.linspace(b[0], b[1], 3)[1] * b[2],
    "einsum": lambda a, b: np.einsum("ij,kj,j->ik", a, a, b).sum() * np.linalg.norm(b),
    "where": lambda a, b: np.where(b > 0.5, b * b, b / 3.0).sum() + np.clip(b, 0.4, 0.6)[0],
    "max": lambda a, b: np.max(a, axis=0) @ b + np.min(b * b),
}
# of a function's slope by differences of order 8
STENCIL = [(1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280)]


def exact_slope(f, a, b, j, h=0.005):
    """The derivative by b[j], and how far the stencil may be off."""
    def at(step):
        c = b.copy()
        c[j] += np.longdouble(step)
        return f(a, c)

    slopes = [sum(np.longdouble(w) * (at(k * x) - at(-k * x)) / x for k, w in STENCIL)
              for x in (np.longdouble(h), np.longdouble(h) / 2)]
    rounding = np.finfo(np.longdouble).eps * abs(f(a, b)) / h
    return slopes[1], 2.0 * abs(slopes[0] - slopes[1]) + 4.0 * rounding


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="no extended precision here")
@pytest.mark.parametrize("name", OF_ARRAYS)
def test_bounds_of_functions_of_arrays_hold_in_extended_precision(name):
    f, rng = OF_ARRAYS[name], np.random.default_rng(len(name))
    loose = []
    for _ in range(5):
        a = rng.uniform(0.3, 0.9, (3, 4))
        # far enough from each other for the stencil
        b = rng.permutation(np.array([0.32, 0.45, 0.57, 0.71])) + rng.uniform(0.0, 0.02, 4)
        found = ad.report(f, a, b)
        assert found.unknown == () and found.agree
        A, B = a.astype(np.longdouble), b.astype(np.longdouble)
        error = abs(f(A, B) - np.longdouble(found.value))
        assert error <= FACTOR * found.bound
        loose.append(found.bound / max(float(error), 2.0**-53 * abs(found.value)))
        for j in range(4):
            slope, doubt = exact_slope(f, A, B, j)
            error = abs(slope - np.longdouble(found.gradient["b"][j]))
            assert error <= FACTOR * found.gradient_bound["b"][j] + doubt
    assert statistics.median(loose) < MEDIAN


@pytest.mark.parametrize("n", [2, 3, 4])
def test_bounds_of_solved_systems_hold_against_mpmath(n):
    def f(a, b):
        return (np.linalg.solve(a, b) * b).sum() + np.linalg.det(a) + np.linalg.inv(a)[0, 1]

    def exact(a, b):
        x = mp.lu_solve(a, b)
        return mp.fsum(x[k] * b[k] for k in range(n)) + mp.det(a) + (a**-1)[0, 1]

    rng = np.random.default_rng(n)
    hilbert = 1.0 / (1.0 + np.add.outer(np.arange(n), np.arange(n)))
    old, mp.dps = mp.dps, DIGITS
    try:
        for a in [rng.normal(size=(n, n)), hilbert, np.eye(n) + 1e-9 * rng.normal(size=(n, n))]:
            b = rng.normal(size=n)
            found = ad.report(f, a, b)
            A, B, h = mp.matrix(a.tolist()), mp.matrix(b.tolist()), mp.mpf(10) ** -20
            assert abs(exact(A, B) - mp.mpf(found.value)) <= FACTOR * found.bound
            for i in range(n):
                up, down = A.copy(), A.copy()
                up[i, 0] += h
                down[i, 0] -= h
                slope = (exact(up, B) - exact(down, B)) / (2 * h)
                error = abs(slope - mp.mpf(found.gradient["a"][i, 0]))
                assert error <= FACTOR * found.gradient_bound["a"][i, 0]
    finally:
        mp.dps = old


def test_the_points_of_an_interpolation_are_kinks_and_lines_are_those_of_the_user():
    def f(x):
        y = x * 1.0
        return np.interp(y, np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 1.0]))

    kink = ad.report(f, 1.25).kinks[0]
    assert (kink.what, kink.distance) == ("interp", 0.25)
    assert kink.line == f.__code__.co_firstlineno + 2


def test_a_definition_whose_value_numpy_makes_real_is_bounded():
    def f(a):
        return np.poly(np.stack([a * (1 + 1j), a * (1 - 1j)]))[1]

    found = ad.report(f, 2.0)
    assert (found.value, found.gradient, found.agree) == (-4.0, {"a": -2.0}, True)


def test_what_nobody_has_bounded_is_named_and_nothing_is_claimed():
    found = ad.report(lambda a: np.linalg.svd(a, compute_uv=False).sum(), np.eye(2) + 0.25)
    assert found.unknown == ("svdvals",) and math.isnan(found.bound)
    assert found.agree is not False
