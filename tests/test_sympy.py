"""Formulas: fastad's derivatives written out, SymPy's own, and differences agree."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest

import fastad as ad
from fastad import _core

sympy = pytest.importorskip("sympy")

ROWS = {row["name"]: row for row in _core.table()}
# The order of a derivative must be a number; the condition of where is not differentiated.
FIXED = {"polygamma": (0,), "sinc_derivative": (0,), "where": (0,)}


def exactly(expr, values):
    """The value of an expression at floats, in 40 digits."""
    return float(sympy.sympify(expr).subs({s: sympy.Float(v, 40) for s, v in values.items()})
                 .doit().evalf(30))


def symbols_of(formula):
    return [x for s in formula.symbols.values() for x in np.ravel(np.asarray(s, object))]


def points(row, rng, count=3):
    return [[round(rng.uniform(lo, hi), 3) for lo, hi in row["intervals"]] for _ in range(count)]


def differences(f, at, k, h=1e-5):
    up, down = list(at), list(at)
    up[k], down[k] = at[k] + h, at[k] - h
    return (float(f(*up)) - float(f(*down))) / (2 * h)


def as_function(name, at):
    """A row as a function of the operands that it is differentiated by, and where."""
    f, fixed = getattr(ad, name), FIXED.get(name, ())
    free = [k for k in range(len(at)) if k not in fixed]

    def function(*args):
        full = list(at)
        for k, x in zip(free, args):
            full[k] = x
        return f(*full)

    return function, [at[k] for k in free]


@pytest.mark.parametrize("name", ROWS)
def test_symbolic_recorded_and_approximate_derivatives_of_a_row_agree(name):
    rng = random.Random(name)
    for at in points(ROWS[name], rng):
        if name == "where":
            at[0] = float(at[0] > 0.5)
        f, at = as_function(name, at)
        formula = ad.to_sympy(lambda *args: f(*args), *at)
        symbols = symbols_of(formula)
        values = dict(zip(symbols, at))
        assert exactly(formula.value, values) == pytest.approx(float(f(*at)), rel=1e-12, abs=1e-14)
        bars = ad.grad(f, tuple(range(len(at))))(*at)
        for k, (s, written) in enumerate(zip(symbols, formula.gradient.values())):
            found = exactly(written, values)
            assert found == pytest.approx(bars[k], rel=1e-12, abs=1e-13)
            assert found == pytest.approx(differences(f, at, k), rel=1e-5, abs=1e-7)
            own = sympy.diff(formula.value, s).doit()
            if not own.has(sympy.Derivative):        # SymPy has no derivative of floor
                assert found == pytest.approx(exactly(own, values), rel=1e-12, abs=1e-13)
            else:
                assert found == 0.0 or name in ("remainder", "fmod")


UNARY = "sin cos tanh exp arctan square negative sigmoid softplus erf sinh arcsinh expm1".split()
SAFE = ["ad.log(1.5 + ad.sin(E))", "ad.sqrt(1.0 + ad.square(E))", "1.0 / (2.0 + ad.cos(E))",
        "ad.power(1.25 + ad.square(E), 0.7)", "ad.hypot(1.0, E)", "E ** 3", "0.1 * E",
        "ad.maximum(E, 0.125)", "abs(E + 0.0625)"]
BINARY = ["E + E", "E - E", "E * E", "E / (2.5 + ad.tanh(E))", "ad.arctan2(E, 2.0 + ad.sin(E))",
          "ad.logaddexp(E, E)"]


def drawn(rng, depth):
    if depth == 0:
        return rng.choice(["x", "y", "z", "0.75", "3.0"])
    kind = rng.random()
    if kind < 0.3:
        return f"ad.{rng.choice(UNARY)}({drawn(rng, depth - 1)})"
    text = rng.choice(SAFE if kind < 0.5 else BINARY)
    parts = text.split("E")
    out = parts[0]
    for part in parts[1:]:
        out += f"({drawn(rng, depth - 1)})" + part
    return out


def test_symbolic_recorded_and_approximate_derivatives_of_100_expressions_agree():
    rng = random.Random(5)
    names = ("x", "y", "z")
    at = [0.375, -0.6875, 1.125]
    done = 0
    while done < 100:
        text = drawn(rng, rng.randint(1, 3))
        f = eval(f"lambda x, y, z: {text} + 0.0 * x", {"ad": ad})
        if not any(n in text for n in names):
            continue
        formula = ad.to_sympy(f, *at)
        values = dict(zip(symbols_of(formula), at))
        bars = ad.grad(f, (0, 1, 2))(*at)
        assert exactly(formula.value, values) == pytest.approx(float(f(*at)), rel=1e-10)
        back = ad.from_sympy(formula.value, *values)
        for k, s in enumerate(values):
            found = exactly(formula.gradient[names[k]], values)
            assert found == pytest.approx(bars[k], rel=1e-9, abs=1e-11), text
            own = exactly(sympy.diff(formula.value, s), values)
            assert found == pytest.approx(own, rel=1e-9, abs=1e-11), text
            assert found == pytest.approx(differences(f, at, k), rel=2e-4, abs=1e-6), text
        assert back.derived("grad", (0, 1, 2))(*at) == pytest.approx(bars, rel=1e-8, abs=1e-10)
        done += 1


def test_a_wrong_derivative_would_be_found(monkeypatch):
    from fastad import sympy as module
    table = {k: dict(row) for k, row in module._table().items()}
    table[ROWS["cos"]["opcode"]]["primal"] = "sin(x)"
    monkeypatch.setattr(module, "_table", lambda: table)
    formula = ad.to_sympy(lambda x: ad.sin(x) * x, 1.5)
    (x,) = symbols_of(formula)
    assert exactly(formula.gradient["x"], {x: 1.5}) != pytest.approx(
        ad.grad(lambda x: ad.sin(x) * x)(1.5), rel=1e-3)


# ---- the two worked examples, and what is written ------------------------------------------------


def test_the_formulas_read_as_one_would_write_them():
    x, y = sympy.symbols("x y", real=True)
    found = ad.to_sympy(lambda x: x**3 + x**2, 2.0)
    assert found.gradient == {"x": 3 * x**2 + 2 * x}
    found = ad.to_sympy(lambda x: ad.sin(x) / x, 2.0)
    assert found.gradient == {"x": sympy.cos(x) / x - sympy.sin(x) / x**2}
    assert ad.to_sympy(lambda x, y: 0.1 * x + y / 3.0, 1.0, 1.0).gradient == {
        "x": sympy.Rational(1, 10), "y": sympy.Rational(1, 3)}


@pytest.mark.parametrize("v, text", [
    (0.1, "1/10"), (1 / 3, "1/3"), (2.0, "2"), (-0.5, "-1/2"), (math.inf, "oo"), (math.nan, "nan"),
    (1e300, "1.00000000000000e+300"), (math.pi, "3.14159265358979")])
def test_numbers_become_the_simple_fractions_that_they_are(v, text):
    from fastad import sympy as module
    found = module.number(v)
    assert str(found) == text
    assert v != v or float(found) == v


ARRAYS = [
    lambda a, b: (a * b).sum(),
    lambda a, b: ((a @ a.T) * 0.5).sum() + (b * b).mean(),
    lambda a, b: ad.prod(a) + ad.sum(a.T[0] * b[:2]),
    lambda a, b: ad.max(a * b) + ad.min(b),
    lambda a, b: ad.linalg.norm(a) * ad.cumsum(b)[-1],
    lambda a, b: ad.dot(a, b).sum() + ad.trace(a @ a.T),
    lambda a, b: ad.einsum("ij,kj->ik", a, a).sum() * b[1],
    lambda a, b: ad.concatenate([b, b[::-1]])[1:4].sum() * a[0, 1],
    lambda a, b: ad.where(a > 0.5, a * a, -a).sum() * ad.stack([b[0], b[1]]).sum(),
    lambda a, b: ad.var(a) + ad.std(b) + ((a > 0.5).astype(float) * a).sum(),
    lambda a, b: (b[[0, 1, 0]] * b).sum() + ad.tensordot(a, a, 2) + ad.diff(b).sum(),
    lambda a, b: (ad.pad(b, 1) ** 2).sum() + ad.inner(b, b) + ad.outer(b, b).sum() + a[1][2],
    lambda a, b: a * b,
    lambda a, b: ad.where(b > 0.5, a * b, a).sum(),
    lambda a, b: np.kron(a, b).sum() + np.convolve(b, b)[2] + np.correlate(b, a[0])[0],
    lambda a, b: np.ptp(b) * 0.0 + np.trapezoid(a[1], b) + np.gradient(b)[1],
    lambda a, b: np.vander(b).sum() + np.linspace(b[0], b[1], 3).sum() + np.cross(a, b).sum(),
    lambda a, b: np.average(b, weights=a[0]),
    lambda a, b: np.cov(a).sum() + np.cumprod(b)[2] + np.multiply.outer(b, b)[0, 2],
    lambda a, b: np.linalg.solve(SHIFT + a[:, :2], b[:2]) + np.linalg.det(SHIFT + a[:, 1:]),
    lambda a, b: np.linalg.inv(SHIFT + a[:, :2])[0, 1] + np.linalg.cholesky(a @ a.T + SHIFT).sum(),
    lambda a, b: ad.special.logsumexp(a) + ad.special.softmax(b)[1],
    lambda a, b: put(a, b[0]).sum() + np.roll(b, 1)[0] * np.flip(b)[0],
]
SHIFT = 3.0 * np.eye(2)


def put(a, v):
    y = a * 1.0
    y[0] = v
    y[1, 2] += v * v
    return y * y


@pytest.mark.parametrize("k", range(len(ARRAYS)))
def test_array_functions_become_expressions_element_by_element(k):
    rng = np.random.default_rng(k)
    a, b = rng.uniform(0.2, 0.9, (2, 3)).round(3), rng.uniform(0.2, 0.9, 3).round(3)
    formula = ad.to_sympy(ARRAYS[k], a, b)
    values = dict(zip(symbols_of(formula), [*a.ravel(), *b]))
    value = ARRAYS[k](ad.tensor(a), ad.tensor(b)).numpy()
    written = np.asarray(formula.value, object)
    assert written.shape == value.shape
    numbers = [exactly(e, values) for e in written.ravel()]
    np.testing.assert_allclose(numbers, value.ravel(), rtol=1e-12)
    exact = ad.jacobian(ARRAYS[k], (0, 1))(a, b)
    for e, bar in zip(formula.gradient.values(), exact):
        assert e.shape == bar.shape
        np.testing.assert_allclose([exactly(x, values) for x in e.ravel()], bar.ravel(),
                                   rtol=1e-11, atol=1e-13)
    back = ad.from_sympy(formula.value, *formula.symbols.values())
    np.testing.assert_allclose(back(a, b), value, rtol=1e-12)


SPECIAL = {
    "gamma": (1.7,), "rgamma": (1.7,), "loggamma": (2.3,), "beta": (1.2, 2.5), "betaln": (1.2, 2.5),
    "digamma": (1.3,), "gammainc": (1.5, 0.7), "gammaincc": (1.5, 0.7), "poch": (1.5, 0.7),
    "jv": (1.5, 0.7), "yv": (1.5, 0.7), "iv": (1.5, 0.7), "kv": (1.5, 0.7), "j0": (0.7,),
    "j1": (0.7,), "k0": (0.7,), "i1": (0.7,), "expi": (0.7,), "exp1": (0.7,), "expn": (2, 0.7),
    "erfi": (0.3,), "erfinv": (0.3,), "erfcx": (0.3,), "dawsn": (0.3,),
    "xlogy": (0.3, 0.7), "xlog1py": (0.3, 0.7),
    "ndtr": (0.3,), "log_ndtr": (0.3,), "ndtri": (0.3,), "logit": (0.3,), "log_expit": (0.3,),
    "entr": (0.3,), "rel_entr": (0.3, 0.7), "kl_div": (0.3, 0.7), "pseudo_huber": (0.3, 0.7),
    "cosm1": (0.3,), "exp10": (0.3,), "powm1": (1.3, 0.7), "boxcox": (1.3, 0.7),
    "boxcox1p": (1.3, 0.7), "lambertw": (0.7,), "zeta": (2.5, 0.7),
    "eval_legendre": (2, 0.7), "eval_chebyt": (3, 0.7), "eval_hermite": (3, 0.7),
    "eval_laguerre": (2, 0.7), "radian": (1.0, 2.0, 3.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_become_those_of_sympy_with_the_same_value_and_derivative(name):
    pytest.importorskip("scipy")
    at = SPECIAL[name]
    f, at = as_special(name, at)
    formula = ad.to_sympy(f, *at)
    values = dict(zip(symbols_of(formula), at))
    assert exactly(formula.value, values) == pytest.approx(float(f(*at)), rel=1e-12)
    assert ad.from_sympy(formula.value, *values)(*at) == pytest.approx(float(f(*at)), rel=1e-12)
    for s, k in zip(values, range(len(at))):
        own = exactly(sympy.diff(formula.value, s), values)
        try:
            bar = ad.grad(f, k)(*at)
        except TypeError:
            continue
        assert bar == pytest.approx(own, rel=1e-9)


def as_special(name, at):
    """A special function of the operands that it has a derivative in, and where."""
    f = getattr(ad.special, name)
    first = 1 if type(at[0]) is int or name in ("jv", "yv", "iv", "kv", "gammainc", "gammaincc",
                                                "poch", "zeta") else 0
    return (lambda *args: f(*at[:first], *args)), at[first:]


def test_complex_numbers_become_complex_expressions():
    z = sympy.Symbol("z")
    formula = ad.to_sympy(lambda z: ad.real(ad.sin(z) * ad.conj(z)), 1.0 + 2.0j)
    assert formula.value == sympy.re(sympy.sin(z) * sympy.conjugate(z))
    at = 0.3 - 0.7j
    bar = ad.grad(lambda z: ad.real(ad.sin(z) * ad.conj(z)))(at)
    found = complex(formula.gradient["z"].subs(z, sympy.sympify(at)).evalf(20))
    assert found == pytest.approx(complex(bar), rel=1e-12)


# ---- the ways to ask -----------------------------------------------------------------------------


def test_a_tensor_is_written_in_the_names_of_the_variables_that_hold_its_leaves():
    weight = ad.tensor([1.0, 2.0], requires_grad=True)
    bias = ad.tensor(0.5, requires_grad=True)
    y = (weight * weight).sum() * ad.exp(bias)
    formula = ad.to_sympy(y)
    w0, w1, b = sympy.symbols("weight_0 weight_1 bias", real=True)
    assert formula.value == (w0**2 + w1**2) * sympy.exp(b)
    assert list(formula.gradient["weight"]) == [2 * w0 * sympy.exp(b), 2 * w1 * sympy.exp(b)]
    y.backward()                # the history is still there
    assert weight.grad.tolist() == pytest.approx([2 * math.exp(0.5), 4 * math.exp(0.5)])


def test_a_tensor_without_history_and_a_consumed_one_are_refused():
    with pytest.raises(ValueError, match="does not require gradients"):
        ad.to_sympy(ad.tensor(1.0))
    x = ad.tensor(1.0, requires_grad=True)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="consumed"):
        ad.to_sympy(y)


def test_a_constant_array_that_no_gradient_reads_is_asked_for():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = x + ad.tensor(np.zeros(2)) * 1.0
    try:
        assert ad.to_sympy(y).value.shape == (2,)
    except ValueError as error:
        assert "give the function" in str(error)


def test_symbols_in_place_of_examples_are_the_ones_that_are_used():
    a, b = sympy.symbols("a b")
    formula = ad.to_sympy(lambda x, y: x * ad.sin(y), a, b)
    assert formula.value == a * sympy.sin(b)
    vector = np.array([a, b])
    formula = ad.to_sympy(lambda v: v[0] * v[1], vector)
    assert list(formula.gradient["v"]) == [b, a]


def test_a_program_and_a_graph_are_written_out_of_what_they_recorded():
    p = ad.compile(lambda x, y: ad.sin(x) * y)
    with pytest.raises(ValueError, match="nothing is recorded"):
        p.to_sympy()
    p(1.0, 2.0)
    x, y = sympy.symbols("x y", real=True)
    for formula in (p.to_sympy(), p.to_sympy(1.0, 2.0), ad.to_sympy(p),
                    ad.record(p, 1.0, 2.0).to_sympy()):
        assert formula.value == sympy.sin(x) * y
        assert formula.gradient == {"x": sympy.cos(x) * y, "y": sympy.sin(x)}


def test_what_python_saw_is_a_condition():
    def f(x):
        return x * x if x > 10.0 else -x

    (x,) = sympy.symbols("x,", real=True)
    formula = ad.to_sympy(f, 11.0)
    assert (formula.value, formula.conditions) == (x**2, (x > 10,))
    formula = ad.to_sympy(f, 1.0)
    assert (formula.value, formula.conditions) == (-x, (x <= 10,))
    graph = ad.record(f, 11.0)
    with pytest.raises(ValueError, match="give examples"):
        graph.to_sympy()
    assert graph.to_sympy(12.0).gradient == {"x": 2 * x}


def test_nested_results_have_values_and_no_gradient():
    formula = ad.to_sympy(lambda x: {"a": x * 2.0, "b": (x, 3.0)}, 1.0)
    x = formula.symbols["x"]
    assert formula.value == {"a": 2 * x, "b": (x, 3.0)} and formula.gradient is None


def test_weights_found_outside_are_numbers():
    w = ad.tensor(3.0, requires_grad=True)
    formula = ad.to_sympy(lambda x: w * x, 1.0)
    assert formula.value == 3 * formula.symbols["x"]


def test_what_cannot_be_written_is_named():
    with pytest.raises(ValueError, match="argmax looks at values"):
        ad.to_sympy(lambda x: ad.argmax(x) * x[0], np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="limit="):
        ad.to_sympy(lambda x: (x * x).sum(), np.ones(20_000))
    with pytest.raises(TypeError, match="wanted a tensor or a function"):
        ad.to_sympy(3.0)
    with pytest.raises(TypeError, match="no example"):
        ad.to_sympy(ad.tensor(1.0, requires_grad=True) * 2.0, 1.0)


def test_every_row_of_the_table_has_a_form_or_says_that_it_has_none(monkeypatch):
    from fastad import sympy as module
    names = dict(module._namespace())
    del names["sin"]
    monkeypatch.setattr(module, "_namespace", lambda: names)
    with pytest.raises(ValueError, match="sin of ops.def has no form"):
        ad.to_sympy(lambda x: ad.sin(x), 1.0)


# ---- from SymPy ----------------------------------------------------------------------------------

a, b = sympy.symbols("a b", real=True)
EXPRESSIONS = [
    a * b + a / b - 3, a**3 - b**-2 + sympy.sqrt(a) / sympy.sqrt(b), sympy.exp(-a) * sympy.log(b),
    sympy.sin(a) + sympy.cos(b) * sympy.tan(a / 3), sympy.asin(a / 3) + sympy.acos(b / 5),
    sympy.atan(a) + sympy.atan2(a, b), sympy.sinh(a) + sympy.cosh(b) + sympy.tanh(a),
    sympy.asinh(a) + sympy.acosh(b + 2) + sympy.atanh(a / 9), sympy.Abs(a - b) + sympy.sign(b),
    sympy.erf(a) + sympy.erfc(b), sympy.loggamma(a) + sympy.gamma(b), sympy.factorial(a) * b,
    sympy.Max(a, b, 1) - sympy.Min(a, b), sympy.Piecewise((a * b, a > b), (b**2, True)),
    sympy.pi * a + sympy.E**b + sympy.Rational(1, 3) * a, 2**a,
]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_lambdify_takes_fastad_as_its_module(expr):
    at, values = (1.3, 2.1), {a: 1.3, b: 2.1}
    exact = [exactly(sympy.diff(expr, s), values) for s in (a, b)]
    with_numpy = [ad, "numpy"]
    for modules in ([with_numpy] if expr.has(sympy.Max) else [ad, with_numpy]):
        f = sympy.lambdify((a, b), expr, modules=modules)
        assert float(f(*at)) == pytest.approx(exactly(expr, values), rel=1e-12)
        assert ad.grad(f, (0, 1))(*at) == pytest.approx(exact, rel=1e-11, abs=1e-13)


MORE = [
    sympy.sec(a) + sympy.csc(b) + sympy.cot(a), sympy.sech(a) + sympy.csch(b) + sympy.coth(a),
    sympy.sinc(a) * b, sympy.Heaviside(a, sympy.Rational(1, 2)) * b, sympy.Mod(b, a),
    sympy.polygamma(0, a) + sympy.polygamma(2, b), sympy.floor(b) * a + sympy.ceiling(a) * b,
    sympy.Piecewise((a, (a > 1) & (b < 3)), (b, sympy.Not(a > b) | (b > 4)), (0, True)),
    sympy.Piecewise((a, a > b)), (a + b) ** (a * b),
]


@pytest.mark.parametrize("expr", EXPRESSIONS + MORE, ids=str)
def test_from_sympy_gives_programs_of_expressions(expr):
    f = ad.from_sympy(expr, a, b)
    at, values = (1.3, 2.1), {a: 1.3, b: 2.1}
    if expr == MORE[-2]:
        assert math.isnan(f(*at))
        at, values = (2.3, 2.1), {a: 2.3, b: 2.1}
    assert f(*at) == pytest.approx(exactly(expr, values), rel=1e-12)
    exact = [exactly(sympy.diff(expr, s), values) for s in (a, b)] if not expr.has(
        sympy.floor, sympy.Mod, sympy.Heaviside) else None
    bars = f.derived("grad", (0, 1))(*at)
    if exact is not None:
        assert bars == pytest.approx(exact, rel=1e-11, abs=1e-13)
    again = f(np.array([at[0], at[0] + 0.25]), at[1])
    assert again == pytest.approx([f(*at), f(at[0] + 0.25, at[1])], rel=1e-12, nan_ok=True)


def test_from_sympy_takes_matrices_nestings_arrays_of_symbols_and_functions_of_ones_own():
    f = ad.from_sympy({"m": sympy.Matrix([[a, b], [b, a * b]]), "t": (a, sympy.true)}, a, b)
    found = f(1.0, 2.0)
    assert found["m"].tolist() == [[1.0, 2.0], [2.0, 2.0]] and found["t"] == (1.0, True)
    f = ad.from_sympy(a * b, np.array([a, b]))
    assert f.grad(np.array([2.0, 3.0])).tolist() == [3.0, 2.0]
    own = sympy.Function("own")
    f = ad.from_sympy(own(a) * b, functions={"own": ad.square})
    assert f(3.0, 2.0) == 18.0


def test_from_sympy_computes_once_what_occurs_twice():
    inner = sympy.sin(a + b)
    f = ad.from_sympy(inner**2 + sympy.exp(inner), a, b)
    graph = ad.record(f, 1.0, 2.0)
    assert [node.primitive for node in graph.nodes].count("sin") == 1


@pytest.mark.parametrize("expr, symbols, message", [
    (a * b, (a,), "symbol b is not among"), (a, (a, a), "there twice"),
    (sympy.polylog(2, a), (a,), "no function for polylog"),
    (sympy.Derivative(sympy.Function("g")(a), a), (a,), "not carried out"),
])
def test_from_sympy_says_what_it_cannot_do(expr, symbols, message):
    with pytest.raises(ValueError, match=message):
        ad.from_sympy(expr, *symbols)


def test_from_sympy_checks_its_arguments():
    with pytest.raises(TypeError, match="1 arguments"):
        ad.from_sympy(a * b, a, b)(1.0)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ad.from_sympy(a * b, np.array([a, b]))(np.ones(3))


def test_sympy_is_imported_when_it_is_used_and_its_absence_is_explained():
    code = ("import sys; import fastad as ad; assert 'sympy' not in sys.modules;"
            "sys.modules['sympy'] = None\n"
            "try: ad.to_sympy(lambda x: x, 1.0)\nexcept ImportError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install sympy" in done.stdout, done.stderr
