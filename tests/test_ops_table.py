"""Every row of the op table against NumPy, high precision and differences; the table drives it.

The only thing stated here about a row is its function at high precision, in `REFERENCE`.
"""

import ast
import functools
import itertools
import math
import re
import zlib

import mpmath
import numpy as np
import pytest

import fastad as ad
from fastad import _core

NAN, INF = math.nan, math.inf
ROWS = _core.table()
ROW = {row["name"]: row for row in ROWS}
READS = {"x": 1, "a": 1, "b": 2, "c": 4, "y": 8}

mp = mpmath.mp.clone()
mp.dps = 50
LN2 = mp.log(2)


def sinc_derivative(n, x):
    """The integral of pi**n t**n cos(pi x t + n pi / 2) over 0 <= t <= 1, as a series in x."""
    n, z, total, k = int(n), mp.pi * x, mp.mpf(0), (int(n) + 1) // 2
    while True:
        term = (-1) ** k * z ** (2 * k - n) / (mp.factorial(2 * k - n) * (2 * k + 1))
        total += term
        if k > abs(z) + n and abs(term) < mp.mpf(10) ** (-mp.dps - 5):
            return mp.pi**n * total
        k += 1


REFERENCE = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda x: -x,
    "positive": lambda x: x,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1 / x,
    "zmul": lambda a, b: a * b,
    "power": mp.power,
    "float_power": mp.power,
    "remainder": lambda a, b: a - b * mp.floor(a / b),
    "fmod": lambda a, b: a - b * mp.sign(a / b) * mp.floor(abs(a / b)),
    "floor_divide": lambda a, b: mp.floor(a / b),
    "absolute": abs,
    "fabs": abs,
    "sign": mp.sign,
    "rint": mp.nint,
    "floor": mp.floor,
    "ceil": mp.ceil,
    "trunc": lambda x: mp.sign(x) * mp.floor(abs(x)),
    "heaviside": lambda a, b: b if a == 0 else (1 + mp.sign(a)) / 2,
    "copysign": lambda a, b: -abs(a) if b < 0 else abs(a),
    "maximum": max,
    "minimum": min,
    "fmax": max,
    "fmin": min,
    "relu": lambda x: max(x, mp.mpf(0)),
    "where": lambda a, b, c: b if a else c,
    "clip": lambda a, b, c: min(max(a, b), c),
    "sqrt": mp.sqrt,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "hypot": lambda a, b: mp.sqrt(a * a + b * b),
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "expm1": mp.expm1,
    "log": mp.log,
    "log2": lambda x: mp.log(x) / LN2,
    "log10": mp.log10,
    "log1p": mp.log1p,
    "logaddexp": lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
    "logaddexp2": lambda a, b: mp.log(mp.power(2, a) + mp.power(2, b)) / LN2,
    "xlogy": lambda a, b: a * mp.log(b),
    "xlog1py": lambda a, b: a * mp.log1p(b),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "one_minus_square": lambda x: 1 - x * x,
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": mp.tan,
    "arcsin": mp.asin,
    "arccos": mp.acos,
    "arctan": mp.atan,
    "arctan2": mp.atan2,
    "sinh": mp.sinh,
    "cosh": mp.cosh,
    "tanh": mp.tanh,
    "arcsinh": mp.asinh,
    "arccosh": mp.acosh,
    "arctanh": mp.atanh,
    "deg2rad": lambda x: x * mp.pi / 180,
    "rad2deg": lambda x: x * 180 / mp.pi,
    "sinc": lambda x: mp.sinc(mp.pi * x),
    "sinc_derivative": sinc_derivative,
    "erf": mp.erf,
    "erfc": mp.erfc,
    "lgamma": lambda x: mp.log(abs(mp.gamma(x))),
    "digamma": mp.digamma,
    "polygamma": lambda n, x: mp.polygamma(int(n), x),
}

over_rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
over_numpy_rows = pytest.mark.parametrize(
    "row", [row for row in ROWS if row["numpy"]], ids=lambda row: row["name"]
)
both_paths = pytest.mark.parametrize("as_array", [False, True], ids=["scalar", "array"])


# ---- helpers ---------------------------------------------------------------------------------


def function(row):
    return getattr(ad, row["name"])


def differentiable(row):
    """The operands with a derivative: not an order, and not what `where` chooses by."""
    return [
        k
        for k, partial in enumerate(row["partials"])
        if partial != "FAD_NAN" and (row["name"], k) != ("where", 0)
    ]


def points(row, count):
    """`count` points of the row's intervals and their two extreme corners."""
    rng = np.random.default_rng(zlib.crc32(row["name"].encode()))
    inside = [tuple(rng.uniform(lo, hi) for lo, hi in row["intervals"]) for _ in range(count)]
    return inside + [
        tuple(lo for lo, _ in row["intervals"]),
        tuple(hi for _, hi in row["intervals"]),
    ]


def exact_derivative(f, point, operands):
    """The derivative of `f` in the listed operands, one after the other, to 30 digits or more."""
    moving = sorted(set(operands))
    orders = tuple(operands.count(k) for k in moving)
    point = [mp.mpf(float(v)) for v in point]

    def restricted(*args):
        full = list(point)
        for k, v in zip(moving, args, strict=True):
            full[k] = v
        return f(*full)

    at = [point[k] for k in moving]
    if len(at) > 1:
        found = mp.diff(restricted, tuple(at), orders)
    else:
        found = mp.diff(restricted, at[0], orders[0])
    noise = mp.mpf(10) ** (12 - mp.dps) * max(abs(restricted(*at)), mp.mpf(10) ** -400)
    return found if abs(found) > noise else mp.mpf(0)


@functools.cache
def exact(name):
    """Points of a row, its first and its second derivatives there: [], {k: []}, {(j, k): []}."""
    row, f = ROW[name], REFERENCE[name]
    at, ks = points(row, 10), differentiable(ROW[name])
    first = {k: [exact_derivative(f, p, [k]) for p in at] for k in ks}
    pairs = list(itertools.combinations_with_replacement(ks, 2))
    second = {(j, k): [exact_derivative(f, p, [j, k]) for p in at] for j, k in pairs}
    return at, first, second


def relative_error(got, want):
    """The largest relative error of the numbers `got`; where `want` is 0, `got` must be 0."""
    worst = 0.0
    for g, w in zip(np.ravel(got).tolist(), np.ravel(np.array(want, dtype=object)), strict=True):
        if not math.isfinite(g):
            return INF
        if w == 0:
            worst = max(worst, 0.0 if g == 0 else INF)
        else:
            worst = max(worst, float(abs((mp.mpf(g) - w) / w)))
    return worst


def leaves(row, point, dtype=np.float64):
    """The operands as tensors, with gradients where they have derivatives."""
    ks = differentiable(row)
    return [
        ad.tensor(np.asarray(v, dtype=dtype), requires_grad=k in ks) for k, v in enumerate(point)
    ]


def numbers(t):
    return np.asarray(t.detach().numpy())


def derivative(y, xs, create_graph=True):
    """Gradients of the sum of `y`, None turned into zeros."""
    if not y.requires_grad:
        return [ad.tensor(np.zeros(x.shape)) for x in xs]
    found = ad.autograd.grad(
        y,
        xs,
        grad_outputs=ad.tensor(np.ones(y.shape, y.dtype)),
        create_graph=create_graph,
        allow_unused=True,
    )
    return [
        ad.tensor(np.zeros(x.shape)) if g is None else g for x, g in zip(xs, found, strict=True)
    ]


def stacked(at, as_array):
    """The points one by one, or all of them as one array per operand."""
    return [tuple(np.array(column) for column in zip(*at, strict=True))] if as_array else at


def same_bits(got, want):
    """Equal dtype, shape and bits; any nan equals any nan."""
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    both_nan = np.isnan(got) & np.isnan(want)
    same = (got == want) & (np.signbit(got) == np.signbit(want))
    return bool(np.all(both_nan | same))


def same_number(got, want):
    if math.isnan(want):
        return math.isnan(got)
    if math.isinf(want) or want == 0:
        return got == want
    return abs(got - want) <= 4e-15 * abs(want)


EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    -3.0,
    7.0,
    0.1,
    -0.7,
    1e-20,
    1e-38,
    -1e-42,
    5e-324,
    -5e-324,
    3e38,
    -1e300,
    1.7976931348623157e308,
    4503599627370497.0,
    709.0,
    -745.0,
    INF,
    -INF,
    NAN,
]


def value_operands(row, dtype):
    """Operands for comparing values: every combination of edges, and random numbers by size."""
    rng = np.random.default_rng(zlib.crc32(row["name"].encode()))
    edges = EDGES if row["arity"] < 3 else EDGES[::3]
    with np.errstate(over="ignore"):
        grid = np.array(list(itertools.product(edges, repeat=row["arity"])))
        yield [column.astype(dtype) for column in grid.T]
        for size in (1, 3, 17, 1000):
            for scale in (1.0, 10.0, 1e4):
                yield [(scale * rng.normal(size=size)).astype(dtype) for _ in range(row["arity"])]
            yield [rng.uniform(lo, hi, size=size).astype(dtype) for lo, hi in row["intervals"]]


# ---- the table is complete and consistent ----------------------------------------------------


def test_rows_opcodes_functions_references_and_docs_are_the_same_number():
    names = [row["name"] for row in ROWS]
    assert len(ROWS) > 60
    assert len(set(names)) == len(names)
    assert len({row["opcode"] for row in ROWS}) == len(names)
    assert sorted(_core.elementwise_functions) == sorted(names)
    public = {name for name in names if callable(getattr(ad, name, None)) and name in ad.__all__}
    assert public == set(names)
    assert sorted(REFERENCE) == sorted(names)
    documented = [
        row["name"]
        for row in ROWS
        if (function(row).__doc__ or "").strip()
        and all(p in _core.elementwise_functions[row["name"]].__doc__ for p in row["partials"])
    ]
    assert documented == names


@over_rows
def test_formulas_keep_to_the_grammar_that_is_both_c_and_python(row):
    known = {"where", "x"} if row["arity"] == 1 else {"where", *"abc"[: row["arity"]]}
    known.add("y")
    callable_names = {
        m[1] for other in ROWS if (m := re.fullmatch(r"(\w+)\((x|a, b|a, b, c)\)", other["primal"]))
    }
    allowed = (
        ast.Expression,
        ast.BinOp,
        ast.Add,
        ast.Sub,
        ast.Mult,
        ast.Div,
        ast.UnaryOp,
        ast.USub,
        ast.Compare,
        ast.Eq,
        ast.Lt,
        ast.Gt,
        ast.LtE,
        ast.GtE,
        ast.Call,
        ast.Name,
        ast.Load,
        ast.Constant,
    )
    for partial in row["partials"]:
        for node in ast.walk(ast.parse(partial, mode="eval")):
            assert isinstance(node, allowed), partial
            if isinstance(node, ast.Constant):
                assert type(node.value) is float, f"{partial}: write {node.value}.0"
            if isinstance(node, ast.Compare):
                assert len(node.ops) == 1, f"{partial}: C does not chain comparisons"
            if isinstance(node, ast.Name):
                assert node.id in known | callable_names or node.id.startswith("FAD_"), partial


@over_rows
def test_reads_says_which_values_the_partials_use(row):
    used = 0
    for partial in row["partials"]:
        for node in ast.walk(ast.parse(partial, mode="eval")):
            used |= READS.get(node.id, 0) if isinstance(node, ast.Name) else 0
    assert row["reads"] == used


@over_rows
def test_every_operand_has_an_interval(row):
    assert len(row["intervals"]) == row["arity"] == len(row["partials"])
    assert all(-INF < lo <= hi < INF for lo, hi in row["intervals"])


# ---- values ----------------------------------------------------------------------------------


@over_numpy_rows
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_array_values_equal_numpy_bit_for_bit(row, dtype):
    reference = getattr(np, row["numpy"])
    for operands in value_operands(row, dtype):
        with np.errstate(all="ignore"):
            want = reference(*operands)
            got = numbers(function(row)(*[ad.tensor(v) for v in operands]))
        if not same_bits(got, want):
            assert got.dtype == want.dtype and got.shape == want.shape
            differ = ~((got == want) & (np.signbit(got) == np.signbit(want)))
            differ &= ~(np.isnan(got) & np.isnan(want))
            i = np.flatnonzero(differ)[0]
            pytest.fail(f"at {[float(v[i]) for v in operands]}: {got[i]!r}, NumPy {want[i]!r}")


@over_rows
def test_scalar_values_agree_with_array_values(row):
    for operands in itertools.islice(value_operands(row, np.float64), 4):
        with np.errstate(all="ignore"):
            arrays = numbers(function(row)(*[ad.tensor(v) for v in operands]))
        for i, together in enumerate(arrays):
            point = [float(v[i]) for v in operands]
            alone = function(row)(*[ad.tensor(v) for v in point]).item()
            # NumPy's vector code and libm may differ in the last bits, never in special values
            assert same_number(alone, together), f"at {point}: {alone!r}, in an array {together!r}"
            if together == 0:
                assert math.copysign(1, alone) == math.copysign(1, together), f"at {point}"


@over_rows
@both_paths
def test_values_hold_at_high_precision(row, as_array):
    at, _, _ = exact(row["name"])
    want = [REFERENCE[row["name"]](*[mp.mpf(v) for v in p]) for p in at]
    got = [numbers(function(row)(*[ad.tensor(v) for v in p])) for p in stacked(at, as_array)]
    # where a value passes through 0 (log(1), sinc(1)), the rounding of its operand is all there is
    got, size = np.ravel(got), max(abs(w) for w in want)
    assert all(
        abs(g - w) <= 4e-15 * max(abs(w), 0.01 * size) for g, w in zip(got, want, strict=True)
    )


# ---- derivatives at high precision -----------------------------------------------------------


@over_rows
@both_paths
def test_first_derivative_holds_1e_13_relative(row, as_array):
    at, first, _ = exact(row["name"])
    got = {k: [] for k in first}
    for point in stacked(at, as_array):
        xs = leaves(row, point)
        y = function(row)(*xs)
        y.backward(ad.tensor(np.ones(y.shape)))
        for k in first:
            got[k].append(numbers(xs[k].grad))
    for k in first:
        assert relative_error(got[k], first[k]) <= 1e-13, f"operand {k}"


@over_rows
@both_paths
def test_second_derivative_by_create_graph_holds_1e_13_relative(row, as_array):
    at, _, second = exact(row["name"])
    got = {pair: [] for pair in itertools.product(differentiable(row), repeat=2)}
    for point in stacked(at, as_array):
        xs = leaves(row, point)
        moving = [xs[k] for k in differentiable(row)]
        for j, g in zip(differentiable(row), derivative(function(row)(*xs), moving), strict=True):
            for k, h in zip(differentiable(row), derivative(g, moving), strict=True):
                got[j, k].append(np.broadcast_to(numbers(h), np.shape(point[0])))
    for (j, k), values in got.items():
        want = second[min(j, k), max(j, k)]
        assert relative_error(values, want) <= 1e-13, f"operands {j}, {k}"


@pytest.mark.parametrize(
    "name",
    [
        "sin",
        "exp",
        "tanh",
        "sqrt",
        "reciprocal",
        "arctanh",
        "arcsinh",
        "log1p",
        "erf",
        "sinc",
        "lgamma",
        "digamma",
        "sigmoid",
        "softplus",
        "tan",
        "cbrt",
    ],
)
def test_third_derivative_by_create_graph(name):
    row = ROW[name]
    for point in points(row, 3)[:3]:
        xs = leaves(row, point)
        g = function(row)(*xs)
        for _ in range(3):
            (g,) = derivative(g, xs)
        want = exact_derivative(REFERENCE[name], point, [0, 0, 0])
        assert relative_error(g.item(), [want]) <= 1e-11


@over_rows
@both_paths
def test_tangents_hold_1e_13_of_their_terms(row, as_array):
    at, first, _ = exact(row["name"])
    ks = differentiable(row)
    weight = {k: 1.0 + 0.5 * k for k in ks}
    got = []
    for point in stacked(at, as_array):

        def moving(*xs, point=point):
            full = [ad.tensor(v) for v in point]
            for k, x in zip(ks, xs, strict=True):
                full[k] = x
            return function(row)(*full)

        _, y_dot = ad.jvp(
            moving,
            tuple(np.asarray(point[k]) for k in ks),
            tuple(np.full(np.shape(point[k]), weight[k]) for k in ks),
        )
        got.append(np.asarray(y_dot, dtype=float))
    for i, y_dot in enumerate(np.ravel(got)):
        terms = [weight[k] * first[k][i] for k in ks]
        assert abs(y_dot - sum(terms)) <= 1e-13 * sum(abs(t) for t in terms), at[i]


@over_rows
def test_float32_gradients_are_float32_and_right_to_its_precision(row):
    at = [tuple(float(np.float32(v)) for v in p) for p in points(row, 6)[:6]]
    xs = leaves(row, stacked(at, True)[0], np.float32)
    y = function(row)(*xs)
    y.backward(ad.tensor(np.ones(y.shape, y.dtype)))
    for k in differentiable(row):
        want = [exact_derivative(REFERENCE[row["name"]], p, [k]) for p in at]
        assert xs[k].grad.dtype == np.float32
        assert relative_error(numbers(xs[k].grad).astype(float), want) <= 1e-4, f"operand {k}"


@pytest.mark.parametrize(
    "row", [r for r in ROWS if "FAD_NAN" in r["partials"]], ids=lambda row: row["name"]
)
def test_an_order_has_no_derivative_and_says_so_by_nan(row):
    a, b = (ad.tensor(v, requires_grad=True) for v in (2.0, 0.5))
    function(row)(a, b).backward()
    assert math.isnan(a.grad.item())
    assert math.isfinite(b.grad.item())


OUTSIDE = [
    ("absolute", (2.0,)), ("fabs", (-2.0,)), ("reciprocal", (-3.0,)), ("cbrt", (8.0,)),
    ("divide", (2.0, -3.0)), ("divide", (-7.0, 1e5)), ("square", (1e10,)), ("exp", (-700.0,)),
    ("expm1", (-40.0,)), ("sigmoid", (3.0,)), ("sigmoid", (-700.0,)), ("softplus", (40.0,)),
    ("softplus", (-700.0,)), ("arccosh", (1e8,)), ("arcsinh", (-1e8,)), ("arcsin", (1 - 1e-12,)),
    ("arctanh", (-1 + 1e-12,)), ("arctan", (1e8,)), ("log1p", (-1 + 1e-12,)), ("log1p", (1e-18,)),
    ("copysign", (-2.0, 3.0)), ("copysign", (-2.0, -3.0)), ("heaviside", (-1.0, 0.5)),
    ("maximum", (2.0, 1.0)), ("minimum", (2.0, 1.0)), ("relu", (-2.0,)), ("power", (-2.0, 3.0)),
    ("power", (10.0, -5.5)), ("arctan2", (-1.0, -2.0)),
    ("logaddexp", (-800.0, 0.0)), ("logaddexp", (800.0, 790.0)),
    ("logaddexp2", (-2000.0, -2001.0)), ("remainder", (7.5, -2.0)), ("fmod", (7.5, -2.0)),
    ("remainder", (1.0, 0.1)), ("xlogy", (-3.0, 1e-9)), ("sinc", (2.3,)), ("sinc", (-1.0,)),
    ("sinc_derivative", (4.0, 3.3)), ("sinc_derivative", (7.0, -0.2)), ("erf", (-9.0,)),
    ("erfc", (20.0,)), ("lgamma", (-1.5,)), ("lgamma", (1e8,)), ("lgamma", (-20.3,)),
    ("digamma", (-0.5,)), ("digamma", (-100.25,)), ("digamma", (1e-5,)), ("polygamma", (1.0, -3.7)),
    ("polygamma", (5.0, -0.1)), ("polygamma", (10.0, 40.0)), ("tanh", (-8.0,)), ("cosh", (-2.0,)),
]  # fmt: skip


@pytest.mark.parametrize("name, point", OUTSIDE)
@both_paths
def test_derivative_is_right_beyond_the_interval_too(name, point, as_array):
    row = ROW[name]
    xs = leaves(row, [np.full(5, v) for v in point] if as_array else point)
    y = function(row)(*xs)
    y.backward(ad.tensor(np.ones(y.shape)))
    for k in differentiable(row):
        want = exact_derivative(REFERENCE[name], point, [k])
        got = float(np.ravel(numbers(xs[k].grad))[0])
        if name == "power" and k == 1 and point[0] < 0:
            assert math.isnan(got)
        elif name == "tanh":  # 1 - y * y cancels: absolutely right, not relatively
            assert abs(got - want) < 1e-15
        else:
            assert relative_error(got, [want]) <= 1e-12, f"operand {k}"


# ---- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [r for r in ROWS if r["arity"] > 1], ids=lambda row: row["name"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((), (4,), ()),
        ((4,), (), ()),
        ((3, 1), (4,), (2, 1, 1)),
        ((1,), (2, 3), (3,)),
        ((2, 0), (1,), ()),
    ],
    ids=str,
)
def test_broadcast_gradients_are_summed_as_differences_say(row, shapes):
    rng = np.random.default_rng(7)
    ks = differentiable(row)
    # a fifth off the ends: no difference may step over a kink
    values = [
        rng.uniform(lo + 0.2 * (hi - lo), hi - 0.2 * (hi - lo), size=shape)
        for (lo, hi), shape in zip(row["intervals"], shapes, strict=False)
    ]
    out_shape = np.broadcast_shapes(*[v.shape for v in values])
    weights = rng.uniform(0.5, 1.5, size=out_shape)

    def loss(vs):
        return float((weights * numbers(function(row)(*[ad.tensor(v) for v in vs]))).sum())

    xs = leaves(row, values)
    y = function(row)(*xs)
    assert y.shape == out_shape
    y.backward(ad.tensor(weights))
    for k in ks:
        assert xs[k].grad.shape == values[k].shape
        want = np.zeros(values[k].shape)
        for i in np.ndindex(values[k].shape):
            h = 1e-6
            up, down = ([v.copy() for v in values] for _ in range(2))
            up[k][i] += h
            down[k][i] -= h
            want[i] = (loss(up) - loss(down)) / (2 * h)
        np.testing.assert_allclose(numbers(xs[k].grad), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if len(differentiable(r)) == 2], ids=lambda row: row["name"]
)
@both_paths
def test_one_tensor_as_both_operands_gets_both_contributions(row, as_array):
    lo = max(lo for lo, _ in (row["intervals"][k] for k in differentiable(row)))
    hi = min(hi for _, hi in (row["intervals"][k] for k in differentiable(row)))
    v = np.full(3, 0.5 * (lo + hi)) if as_array else 0.5 * (lo + hi)
    x, others = ad.tensor(v, requires_grad=True), leaves(row, [v, v, v][: row["arity"]])
    y = function(row)(*[x if k in differentiable(row) else v for k in range(row["arity"])])
    y.backward(ad.tensor(np.ones(y.shape)))
    z = function(row)(*others)
    z.backward(ad.tensor(np.ones(z.shape)))
    apart = sum(numbers(others[k].grad) for k in differentiable(row))
    np.testing.assert_allclose(numbers(x.grad), apart, rtol=1e-14)


# ---- edges -----------------------------------------------------------------------------------

# name, operands, derivative in each operand (None: not looked at)
EDGE_SLOPES = [
    ("absolute", (0.0,), (0,)), ("absolute", (-0.0,), (0,)), ("absolute", (NAN,), (NAN,)),
    ("absolute", (-INF,), (-1,)), ("fabs", (0.0,), (0,)), ("sign", (0.0,), (0,)),
    ("relu", (0.0,), (0,)), ("relu", (-1.0,), (0,)), ("relu", (NAN,), (1,)),
    ("maximum", (1.0, 1.0), (0.5, 0.5)), ("minimum", (1.0, 1.0), (0.5, 0.5)),
    ("fmax", (1.0, 1.0), (0.5, 0.5)), ("fmin", (1.0, 1.0), (0.5, 0.5)),
    ("maximum", (0.0, -0.0), (0.5, 0.5)), ("maximum", (INF, INF), (0.5, 0.5)),
    ("maximum", (NAN, 1.0), (1, 0)), ("maximum", (1.0, NAN), (0, 1)),
    ("minimum", (NAN, 1.0), (1, 0)), ("minimum", (1.0, NAN), (0, 1)),
    ("fmax", (NAN, 1.0), (0, 1)), ("fmax", (1.0, NAN), (1, 0)),
    ("fmin", (NAN, 1.0), (0, 1)), ("fmin", (1.0, NAN), (1, 0)),
    ("clip", (0.0, 0.0, 1.0), (1, 0, 0)), ("clip", (1.0, 0.0, 1.0), (1, 0, 0)),
    ("clip", (-1.0, 0.0, 1.0), (0, 1, 0)), ("clip", (2.0, 0.0, 1.0), (0, 0, 1)),
    ("clip", (0.5, 2.0, 1.0), (0, 0, 1)), ("clip", (NAN, 0.0, 1.0), (1, 0, 0)),
    ("sqrt", (0.0,), (INF,)), ("sqrt", (-1.0,), (NAN,)), ("sqrt", (INF,), (0,)),
    ("cbrt", (0.0,), (INF,)), ("log", (0.0,), (INF,)), ("log1p", (-1.0,), (INF,)),
    ("reciprocal", (0.0,), (-INF,)), ("divide", (1.0, 0.0), (INF, -INF)),
    ("divide", (1.0, INF), (0, 0)), ("arcsin", (1.0,), (INF,)), ("arccos", (-1.0,), (-INF,)),
    ("arctanh", (1.0,), (INF,)), ("arccosh", (1.0,), (INF,)), ("arctan", (INF,), (0,)),
    ("power", (0.0, 0.0), (0, 0)), ("power", (2.0, 0.0), (0, math.log(2))),
    ("power", (0.0, 1.0), (1, 0)), ("power", (0.0, 2.0), (0, 0)), ("power", (0.0, 3.0), (0, 0)),
    ("power", (0.0, 0.5), (INF, 0)), ("power", (-2.0, 2.0), (-4, NAN)),
    ("power", (-2.0, 0.0), (0, NAN)), ("power", (NAN, 0.0), (0, NAN)),
    ("float_power", (0.0, 0.0), (0, 0)), ("float_power", (0.0, 2.0), (0, 0)),
    ("xlogy", (0.0, 0.0), (-INF, 0)), ("xlogy", (0.0, 2.0), (math.log(2), 0)),
    ("xlog1py", (0.0, -1.0), (-INF, 0)), ("xlog1py", (0.0, 1.0), (math.log(2), 0)),
    ("hypot", (0.0, 0.0), (0, 0)), ("hypot", (3.0, -4.0), (0.6, -0.8)),
    ("hypot", (0.0, 2.0), (0, 1)),
    ("hypot", (3e-200, 4e-200), (0.6, 0.8)), ("hypot", (1e200, -1e200), (0.5**0.5, -(0.5**0.5))),
    ("logaddexp", (0.0, 0.0), (0.5, 0.5)), ("logaddexp", (-INF, -INF), (0.5, 0.5)),
    ("logaddexp", (INF, INF), (0.5, 0.5)), ("logaddexp", (INF, 0.0), (1, 0)),
    ("logaddexp", (-INF, 0.0), (0, 1)), ("logaddexp", (NAN, 0.0), (NAN, NAN)),
    ("logaddexp2", (-INF, -INF), (0.5, 0.5)), ("logaddexp2", (1e4, 0.0), (1, 0)),
    ("remainder", (7.0, 3.0), (1, -2)), ("remainder", (-7.0, 3.0), (1, 3)),
    ("remainder", (6.0, 3.0), (1, -2)), ("remainder", (7.0, -3.0), (1, 3)),
    ("remainder", (1.0, 0.1), (1, -9)), ("fmod", (-7.0, 3.0), (1, 2)),
    ("fmod", (1.0, 0.1), (1, -9)),
    ("floor_divide", (6.0, 3.0), (0, 0)), ("rint", (0.5,), (0,)), ("floor", (2.0,), (0,)),
    ("copysign", (3.0, -0.0), (-1, 0)), ("copysign", (-3.0, 0.0), (-1, 0)),
    ("copysign", (0.0, 1.0), (0, 0)), ("heaviside", (0.0, 0.5), (0, 1)),
    ("heaviside", (1.0, 0.5), (0, 0)), ("heaviside", (-1.0, 0.5), (0, 0)),
    ("sinc", (0.0,), (0,)), ("exp", (-INF,), (0,)), ("exp", (800.0,), (INF,)),
    ("sigmoid", (-INF,), (0,)), ("sigmoid", (INF,), (0,)), ("softplus", (INF,), (1,)),
    ("softplus", (-INF,), (0,)), ("tanh", (INF,), (0,)), ("erf", (INF,), (0,)),
    ("zmul", (0.0, INF), (0, 0)), ("zmul", (0.0, NAN), (0, 0)), ("zmul", (0.0, 2.0), (2, 0)),
    ("zmul", (INF, 0.0), (0, 0)), ("zmul", (2.0, 0.0), (0, 2)),
    ("lgamma", (INF,), (INF,)), ("digamma", (INF,), (0,)),
]  # fmt: skip


@pytest.mark.parametrize("name, point, want", EDGE_SLOPES)
@both_paths
def test_slope_at_an_edge(name, point, want, as_array):
    row = ROW[name]
    xs = leaves(row, [np.full(3, v) for v in point] if as_array else point)
    y = function(row)(*xs)
    y.backward(ad.tensor(np.ones(y.shape)))
    for k, w in enumerate(want):
        if w is not None:
            got = np.ravel(numbers(xs[k].grad))[0]
            assert same_number(float(got), w), f"operand {k}: {got}, wanted {w}"


@pytest.mark.parametrize("name, point, want", [
    ("zmul", (0.0, INF), 0.0), ("zmul", (-0.0, NAN), 0.0), ("zmul", (INF, 0.0), 0.0),
    ("xlogy", (0.0, 0.0), 0.0), ("xlogy", (0.0, NAN), NAN), ("xlog1py", (0.0, -1.0), 0.0),
    ("relu", (NAN,), NAN), ("relu", (-0.0,), 0.0), ("softplus", (1000.0,), 1000.0),
    ("softplus", (-1000.0,), 0.0), ("softplus", (NAN,), NAN), ("sigmoid", (-1000.0,), 0.0),
    ("sigmoid", (1000.0,), 1.0), ("lgamma", (-1.0,), INF), ("lgamma", (0.0,), INF),
    ("digamma", (0.0,), -INF), ("digamma", (-0.0,), INF), ("digamma", (-2.0,), NAN),
    ("digamma", (INF,), INF), ("digamma", (-INF,), NAN), ("polygamma", (1.0, 0.0), INF),
    ("polygamma", (2.0, 0.0), -INF), ("polygamma", (1.0, -3.0), INF),
    ("polygamma", (1.0, INF), 0.0),
    ("polygamma", (1.5, 2.0), NAN), ("polygamma", (-1.0, 2.0), NAN),
    ("polygamma", (0.0, 1.0), -0.57721566490153286), ("sinc_derivative", (0.0, 0.0), 1.0),
    ("sinc_derivative", (2.0, 0.0), -math.pi**2 / 3), ("sinc_derivative", (0.5, 1.0), NAN),
    ("sinc_derivative", (1.0, NAN), NAN), ("erf", (INF,), 1.0), ("erfc", (-INF,), 2.0),
    ("one_minus_square", (1.0,), 0.0), ("one_minus_square", (INF,), -INF),
])  # fmt: skip
@both_paths
def test_value_at_an_edge(name, point, want, as_array):
    operands = [ad.tensor(np.full(3, v) if as_array else v) for v in point]
    assert same_number(float(np.ravel(numbers(function(ROW[name])(*operands)))[0]), want)


# function, x, first, second derivative
EDGE_CURVATURES = [
    (lambda x: x**2, 0.0, 0.0, 2.0), (lambda x: x**1, 0.0, 1.0, 0.0),
    (lambda x: x**0, 0.0, 0.0, 0.0), (lambda x: x**3, 0.0, 0.0, 0.0),
    (lambda x: x**2.0, 0.0, 0.0, 2.0), (lambda x: ad.power(x, 2.0), 0.0, 0.0, 2.0),
    (lambda x: ad.power(x, 1.0), 0.0, 1.0, 0.0), (lambda x: ad.power(x, 0.0), 0.0, 0.0, 0.0),
    (lambda x: ad.power(x, 2.0) * x, 0.0, 0.0, 0.0), (lambda x: ad.power(0.0, x), 2.0, 0.0, 0.0),
    (lambda x: x * x, 3.0, 6.0, 2.0), (lambda x: x * x, 0.0, 0.0, 2.0),
    (lambda x: x / x, 2.0, 0.0, 0.0), (lambda x: x - x, 2.0, 0.0, 0.0),
    (lambda x: ad.maximum(x, x), 2.0, 1.0, 0.0), (lambda x: ad.minimum(x, x), 2.0, 1.0, 0.0),
    (lambda x: ad.hypot(x, x), 1.0, math.sqrt(2), 0.0), (lambda x: ad.arctan2(x, x), 2.0, 0.0, 0.0),
    (lambda x: ad.logaddexp(x, x), 1.0, 1.0, 0.0), (lambda x: ad.logaddexp(x, 0.0), 0.0, 0.5, 0.25),
    (lambda x: ad.logaddexp2(x, 0.0), 0.0, 0.5, 0.25 * math.log(2)),
    (lambda x: ad.absolute(x), 0.0, 0.0, 0.0), (lambda x: ad.relu(x), 0.0, 0.0, 0.0),
    (lambda x: ad.sinc(x), 0.0, 0.0, -math.pi**2 / 3), (lambda x: ad.arcsin(x), 0.0, 1.0, 0.0),
    (lambda x: ad.sqrt(x), 0.0, INF, -INF), (lambda x: ad.xlogy(x, x), 1.0, 1.0, 1.0),
    (lambda x: ad.copysign(x, -1.0), 2.0, -1.0, 0.0), (lambda x: ad.sign(x) * x, -2.0, -1.0, 0.0),
    (lambda x: ad.zmul(x, x), 3.0, 6.0, 2.0),
]  # fmt: skip
GUARDED = [
    lambda x: ad.where(x > 0, ad.sqrt(x), 0.0),
    lambda x: ad.where(x <= 0, 0.0, ad.log(x)),
    lambda x: ad.where(x > 0, ad.power(x, 0.5), x * 0.0),
    lambda x: ad.exp(ad.where(x > 0, ad.sqrt(x), 0.0)),
    lambda x: ad.where(x > 0, ad.sqrt(ad.where(x > 0, x, 0.0)), 0.0) ** 2,
    lambda x: ad.maximum(ad.where(x > 0, 1.0 / ad.sqrt(x), -1.0), -2.0),
]


@pytest.mark.parametrize("f, at, first, second", EDGE_CURVATURES)
@both_paths
def test_first_and_second_derivative_at_an_edge(f, at, first, second, as_array):
    x = ad.tensor(np.full(3, at) if as_array else at, requires_grad=True)
    (g,) = derivative(f(x), [x])
    (h,) = derivative(g, [x])
    for got, want in ((g, first), (h, second)):
        got = float(np.ravel(numbers(got))[0])
        assert same_number(got, want) or abs(got - want) < 1e-15, f"{got}, wanted {want}"


def test_third_derivative_of_a_cube_at_zero():
    for f in (lambda x: x**3, lambda x: ad.power(x, 3.0), lambda x: ad.power(x, 2.0) * x):
        x = ad.tensor(0.0, requires_grad=True)
        g = f(x)
        for _ in range(3):
            (g,) = derivative(g, [x])
        assert g.item() == 6.0


@pytest.mark.parametrize("b", [2.0, 0.5])
def test_mixed_derivative_survives_where_one_slope_is_zero(b):
    # d2/dadb of a**b at b = 0 is 1 / a; of xlogy at a = 0 it is 1 / b
    x, n = ad.tensor(b, requires_grad=True), ad.tensor(0.0, requires_grad=True)
    (g,) = derivative(ad.power(x, n), [x])
    assert g.item() == 0.0
    assert derivative(g, [n])[0].item() == 1.0 / b
    (g,) = derivative(ad.xlogy(n, x), [x])
    assert g.item() == 0.0
    assert derivative(g, [n])[0].item() == 1.0 / b


@pytest.mark.parametrize("f", GUARDED)
@pytest.mark.parametrize("at", [-1.0, 0.0])
@both_paths
def test_where_never_leaks_nan_from_the_branch_not_taken(f, at, as_array):
    value = np.array([at, at, at]) if as_array else at
    x = ad.tensor(value, requires_grad=True)
    f(x).backward(ad.tensor(np.ones(np.shape(value))))
    assert np.all(numbers(x.grad) == 0.0)

    (g,) = derivative(f(x), [x])
    assert np.all(numbers(g) == 0.0)
    (h,) = derivative(g, [x])
    assert np.all(numbers(h) == 0.0)

    # and so in forward mode, and in each mode over each
    one = np.ones_like(value) if as_array else 1.0

    def total(x):
        return f(x).sum() if as_array else f(x)

    def tangent(x):
        return ad.jvp(f, (x,), (one,))[1]

    def total_tangent(x):
        return tangent(x).sum() if as_array else tangent(x)

    assert np.all(np.asarray(tangent(value)) == 0.0)
    assert np.all(np.asarray(ad.jvp(tangent, (value,), (one,))[1]) == 0.0)
    assert np.all(np.asarray(ad.jvp(ad.grad(total), (value,), (one,))[1]) == 0.0)
    assert np.all(np.asarray(ad.grad(total_tangent)(value)) == 0.0)
    assert np.all(np.asarray(ad.hessian(total)(value)) == 0.0)


def test_where_follows_the_branch_taken_in_a_mixed_array():
    x = ad.tensor([-1.0, 0.0, 4.0], requires_grad=True)
    (g,) = derivative(GUARDED[0](x), [x])
    assert numbers(g).tolist() == [0.0, 0.0, 0.25]
    assert numbers(derivative(g, [x])[0]).tolist() == [0.0, 0.0, -1 / 32]


# ---- the checks can fail ---------------------------------------------------------------------


@pytest.fixture
def fresh_references():
    exact.cache_clear()
    yield
    exact.cache_clear()


@both_paths
def test_a_slightly_wrong_reference_fails_every_check(as_array, monkeypatch, fresh_references):
    monkeypatch.setitem(REFERENCE, "sin", lambda x: mp.sin(x) * (1 + mp.mpf("3e-13")))
    for check in (
        test_first_derivative_holds_1e_13_relative,
        test_second_derivative_by_create_graph_holds_1e_13_relative,
        test_tangents_hold_1e_13_of_their_terms,
        test_values_hold_at_high_precision,
    ):
        with pytest.raises(AssertionError):
            check(ROW["sin"], as_array)


def test_values_other_than_numpys_fail_the_check(monkeypatch):
    # the right function to a few units in the last place
    monkeypatch.setattr(np, "sin", lambda x: np.cos(x - np.pi / 2))
    with pytest.raises(pytest.fail.Exception, match="NumPy"):
        test_array_values_equal_numpy_bit_for_bit(ROW["sin"], np.float64)


def test_a_wrong_partial_is_detected():
    at, first, _ = exact("tanh")
    assert relative_error([1 - math.tanh(*p) ** 2 for p in at], first[0]) <= 1e-13
    assert relative_error([1 - math.tanh(*p) for p in at], first[0]) > 1e-13
    assert relative_error([NAN for _ in at], first[0]) == INF
    assert relative_error([1e-300], [mp.mpf(0)]) == INF


def test_values_that_differ_in_sign_bit_or_dtype_are_detected():
    assert same_bits([0.0, NAN], [0.0, -NAN])
    assert not same_bits([0.0], [-0.0])
    assert not same_bits([1.0], [np.nextafter(1.0, 2.0)])
    assert not same_bits(np.float32([1.0]), np.float64([1.0]))
    assert not same_bits([1.0, 1.0], [1.0])
    assert not same_number(NAN, 0.0) and not same_number(0.0, NAN) and not same_number(1.0, INF)
