"""Formulas: what was recorded as SymPy expressions, and SymPy expressions as programs.

``to_sympy`` computes a record again on SymPy's objects instead of tensors.  The rows of the op
table say themselves what they are: their primals and partials are Python expressions, evaluated
here in a namespace of SymPy's functions.  Structured primitives run their own `forward` on object
arrays of expressions where that is exact, that is, where it adds, multiplies and moves elements
but does not look at them; the others have a form in `_FORMS`, or none.

SymPy is imported when it is used for the first time.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _core, arguments, graph, numpy_api, program, rules, transforms
from ._core import Nodes, Tensor
from .graph import Graph
from .program import Program

# By names that tables give it at run time
_np: Any = numpy_api

__all__ = ["Formula", "factorial", "from_sympy", "gamma", "to_sympy"]

_LIMIT = 10_000
_DENOMINATORS = (*range(1, 101), 128, 200, 256, 500, 512, 1000, 1024, 10_000)


class Formula(NamedTuple):
    """What `to_sympy` gives.

    Attributes
    ----------
    value : expression
        Or, where the function gives more than a number, arrays of expressions, nested as its
        result.
    gradient : dict of str to expression
        By the name of the input.  Of a number it has the input's shape; of an array the result's
        axes come first, as in `jacobian`.  None where the result is not one number or array.
    symbols : dict of str to Symbol
        By the name of the input: a real symbol, or an array of them.
    conditions : tuple
        What Python saw while recording (an ``if``, an index), as relations between symbols: the
        formulas hold where these do.
    """

    value: Any
    gradient: Any
    symbols: dict[str, Any]
    conditions: tuple[Any, ...]


def _sympy() -> Any:
    try:
        import sympy
    except ImportError:
        raise ImportError("formulas need SymPy: pip install sympy") from None
    return sympy


# ---- the op table's texts as SymPy expressions -------------------------------------------------


def number(v: Any) -> Any:
    """A number as SymPy's: the simple fraction that rounds to it, else its 53 bits.

    So 0.1 in a function becomes 1/10, as whoever wrote it meant.
    """
    sympy = _sympy()
    if isinstance(v, (complex, np.complexfloating)):
        return number(v.real) + sympy.I * number(v.imag) if v.imag else number(v.real)
    v = float(v)
    if v != v:
        return sympy.nan
    if math.isinf(v):
        return sympy.oo if v > 0 else -sympy.oo
    if abs(v) >= 2.0**53:
        return sympy.Float(v)
    for q in _DENOMINATORS:
        p = round(v * q)
        if p / q == v:
            return sympy.Rational(p, q)
    return sympy.Float(v)


@functools.cache
def _namespace() -> dict[str, Any]:
    """SymPy's forms of the names that the formulas of ops.def use."""
    s = _sympy()
    half = s.Rational(1, 2)

    def rint(x: Any) -> Any:
        if x.is_integer:
            return x
        up = s.floor(x + half)
        return up - s.Piecewise((1, s.And(s.Eq(up - x, half), s.Eq(s.Mod(up, 2), 1))), (0, True))

    def truncated(x: Any) -> Any:
        return s.sign(x) * s.floor(s.Abs(x))

    def sinc_derivative(n: Any, x: Any) -> Any:
        t = s.Dummy("t", real=True)
        return s.diff(s.sinc(s.pi * t), t, int(n)).subs(t, x)

    def where(c: Any, p: Any, q: Any) -> Any:
        if not isinstance(c, (bool, s.logic.boolalg.Boolean)):
            c = s.Ne(c, 0)
        if c == True:  # noqa: E712  (SymPy's own true is equal, and not identical)
            return p
        return q if c == False else s.Piecewise((p, c), (q, True))  # noqa: E712

    return {
        "FAD_LN2": s.log(2), "FAD_1_LN2": 1 / s.log(2), "FAD_1_LN10": 1 / s.log(10),
        "FAD_2_SQRTPI": 2 / s.sqrt(s.pi), "FAD_RADIAN": 180 / s.pi, "FAD_DEGREE": s.pi / 180,
        "FAD_NAN": s.nan,
        "zmul": lambda a, b: a * b,
        "pow": lambda a, b: a**b,
        "remainder_": lambda a, b: a - b * s.floor(a / b),
        "fmod": lambda a, b: a - b * truncated(a / b),
        "floor_divide": lambda a, b: s.floor(a / b),
        "fabs": s.Abs, "sign": s.sign, "rint": rint, "floor": s.floor, "ceil": s.ceiling,
        "trunc": truncated,
        "copysign": lambda a, b: s.Abs(a) * where(b >= 0, s.Integer(1), s.Integer(-1)),
        "where": where,
        "clip": lambda a, b, c: s.Min(s.Max(a, b), c),
        "sqrt": s.sqrt,
        "cbrt": lambda x: s.sign(x) * s.Abs(x) ** s.Rational(1, 3),
        "hypot": lambda a, b: s.sqrt(a**2 + b**2),
        "exp": s.exp, "exp2": lambda x: 2**x, "expm1": lambda x: s.exp(x) - 1,
        "log": s.log, "log2": lambda x: s.log(x) / s.log(2),
        "log10": lambda x: s.log(x) / s.log(10), "log1p": lambda x: s.log(1 + x),
        "logaddexp": lambda a, b: s.log(s.exp(a) + s.exp(b)),
        "logaddexp2": lambda a, b: s.log(2**a + 2**b) / s.log(2),
        "sigmoid": lambda x: 1 / (1 + s.exp(-x)),
        "one_minus_square": lambda x: 1 - x**2,
        "sin": s.sin, "cos": s.cos, "tan": s.tan, "asin": s.asin, "acos": s.acos, "atan": s.atan,
        "atan2": s.atan2, "sinh": s.sinh, "cosh": s.cosh, "tanh": s.tanh, "asinh": s.asinh,
        "acosh": s.acosh, "atanh": s.atanh,
        "sinc": lambda x: s.sinc(s.pi * x), "sinc_derivative": sinc_derivative,
        "erf": s.erf, "erfc": s.erfc, "lgamma_": lambda x: s.log(s.Abs(s.gamma(x))),
        "digamma": lambda x: s.polygamma(0, x), "polygamma": lambda n, x: s.polygamma(int(n), x),
        "number_": number, "Lt_": s.Lt, "LtE_": s.Le, "Gt_": s.Gt, "GtE_": s.Ge, "Eq_": s.Eq,
        "NotEq_": s.Ne, "__builtins__": {},
    }


@functools.cache
def _compiled(text: str) -> Any:
    """The code of a formula in which numbers are SymPy's, and ``a == b`` is a relation: SymPy's own
    compares how things are written."""
    import ast  # slow to import

    def called(name: str, args: list[Any]) -> Any:
        return ast.Call(ast.Name(name, ast.Load()), args, [])

    class Exact(ast.NodeTransformer):
        def visit_Constant(self, node: Any) -> Any:
            return called("number_", [node])

        def visit_Compare(self, node: Any) -> Any:
            self.generic_visit(node)
            return called(f"{type(node.ops[0]).__name__}_", [node.left, node.comparators[0]])

    tree = ast.fix_missing_locations(Exact().visit(ast.parse(text, mode="eval")))
    return compile(tree, f"<formula {text}>", "eval")


def formula(text: str, scope: Mapping[str, Any]) -> Any:
    """A formula of ops.def as a SymPy expression of the operands in `scope`.

    Raises
    ------
    ValueError
        If it uses a function that SymPy has no form for here.
    """
    try:
        return _sympy().sympify(eval(_compiled(text), _namespace(), dict(scope)))
    except NameError as error:
        raise ValueError(f"to_sympy: {error.name} of ops.def has no form in SymPy yet") from None


@functools.cache
def _table() -> dict[int, dict[str, Any]]:
    return {row["opcode"]: row for row in _core.table()}


def _row(opcode: int, side: int | None, operands: Iterable[Any]) -> Any:
    """A row, or with `side` its partial (whose last operand is the result), element by element."""
    row = _table()[opcode]
    names = [*("x" if row["arity"] == 1 else "abc"[: row["arity"]])]
    text = row["primal"] if side is None else row["partials"][side]
    parts = list(operands)
    if side is not None:
        parts, names = [*parts[: row["arity"]], parts[3]], [*names, "y"]

    def one(*values: Any) -> Any:
        return formula(text, dict(zip(names, values)))

    return np.frompyfunc(one, len(parts), 1)(*parts)


# ---- structured primitives on object arrays ----------------------------------------------------


def _added(x: np.ndarray, axes: Any, keepdims: bool = False) -> Any:
    axes = tuple(range(x.ndim)) if axes is None else tuple(np.atleast_1d(axes) % x.ndim)
    rest = [k for k in range(x.ndim) if k not in axes]
    rows = x.transpose([*rest, *axes]).reshape(*[x.shape[k] for k in rest], -1)
    out = np.empty(rows.shape[:-1], object)
    for k in np.ndindex(out.shape):
        out[k] = _sympy().Add(*rows[k])
    return out.reshape(rules.kept_shape(x.shape, axes)) if keepdims else out


def _sum_to(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    lead = x.ndim - len(shape)
    axes = tuple(k for k in range(x.ndim) if k < lead or shape[k - lead] != x.shape[k])
    return _added(x, axes).reshape(shape) if axes else x


def _assembled(numbers: list[Any], shape: tuple[int, ...], offsets: Iterable[int]) -> Any:
    y = np.full(shape, _sympy().Integer(0), object)
    for k, v in zip(offsets, numbers):
        y.flat[k] = v[()]
    return y


def _product(a: Any, b: Any, ta: bool, tb: bool, exact: bool) -> Any:
    a = a.swapaxes(-1, -2) if ta and a.ndim > 1 else a
    b = b.swapaxes(-1, -2) if tb and b.ndim > 1 else b
    return np.matmul(a, b)


def _cast(x: np.ndarray, dtype: Any) -> Any:
    s = _sympy()
    if dtype.kind not in "fc":
        raise ValueError(f"to_sympy: a conversion to {dtype} has no form in SymPy")

    def one(v: Any) -> Any:
        return s.Piecewise((1, v), (0, True)) if isinstance(v, s.logic.boolalg.Boolean) else v

    return np.frompyfunc(one, 1, 1)(x)


def _each(name: str) -> Callable[..., Any]:
    """SymPy's function of this name, element by element."""
    return lambda x: np.frompyfunc(getattr(_sympy(), name), 1, 1)(x)


def _with(old: np.ndarray, at: Any, value: Any) -> Any:
    y = old.copy()
    y.flat[at] = value
    return y


# (inputs, params, shape, dtype) -> result, by the name of a primitive of the core
_CORE: dict[str, Callable[..., Any]] = {
    "sum_to": lambda xs, p, shape, dtype: _sum_to(xs[0], shape),
    "broadcast_to": lambda xs, p, shape, dtype: np.broadcast_to(xs[0], shape),
    "sum": lambda xs, p, shape, dtype: _added(xs[0], p and p[0]).reshape(shape),
    "reshape": lambda xs, p, shape, dtype: xs[0].reshape(shape),
    "transpose": lambda xs, p, shape, dtype: xs[0].transpose(p[0]),
    "astype": lambda xs, p, shape, dtype: _cast(xs[0], dtype),
    "getitem": lambda xs, p, shape, dtype: xs[0].flat[p],
    "setitem": lambda xs, p, shape, dtype: _with(xs[0], p, xs[1][()]),
    "add_at": lambda xs, p, shape, dtype: _with(xs[0], p, xs[0].flat[p] + xs[1][()]),
    "real": lambda xs, p, shape, dtype: _each("re")(xs[0]),
    "imag": lambda xs, p, shape, dtype: _each("im")(xs[0]),
    "conjugate": lambda xs, p, shape, dtype: _each("conjugate")(xs[0]),
    "times_i": lambda xs, p, shape, dtype: xs[0] * _sympy().I,
    "matmul": lambda xs, p, shape, dtype: _product(*xs, *p),
    "assemble": lambda xs, p, shape, dtype: _assembled(xs, *p),
}


def _scattered(x: Any, shape: tuple[int, ...], index: Any, unique: bool) -> Any:
    y = np.full(shape, _sympy().Integer(0), object)
    np.add.at(y, index, x)
    return y


def _extremum(name: str) -> Callable[..., Any]:
    def reduced(x: Any, axis: Any, keepdims: bool) -> Any:
        f = getattr(_sympy(), name)
        axes = tuple(range(x.ndim)) if axis is None else axis
        rest = [k for k in range(x.ndim) if k not in axes]
        rows = x.transpose([*rest, *axes]).reshape(*[x.shape[k] for k in rest], -1)
        out = np.empty(rows.shape[:-1], object)
        for k in np.ndindex(out.shape):
            out[k] = f(*rows[k])
        return out.reshape(rules.kept_shape(x.shape, axis)) if keepdims else out

    return reduced


def _ties(x: Any, y: Any, axis: Any) -> Any:
    s = _sympy()
    y = np.asarray(y, object).reshape(rules.kept_shape(x.shape, axis))
    hits = np.frompyfunc(lambda a, b: s.Piecewise((1, s.Eq(a, b)), (0, True)), 2, 1)(x, y)
    return hits / _added(hits, axis, True)


def _norm(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.frompyfunc(_sympy().sqrt, 1, 1)(_added(x * x, axis, keepdims))


def _by_matrix(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of SymPy's matrices over the last two axes of arrays."""

    def stacked(*xs: Any, **params: Any) -> Any:
        s = _sympy()
        lead = np.broadcast_shapes(*[x.shape[:-2] for x in xs])
        xs = tuple([np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in xs])
        found = [np.asarray(f(*[s.Matrix(x[k]) for x in xs], **params), object)
                 for k in np.ndindex(lead)]
        shape = found[0].shape if found else (0,) * (xs[0].ndim - len(lead))
        return np.array([x.ravel() for x in found], object).reshape((*lead, *shape))

    return stacked


def _solved(a: Any, b: Any) -> Any:
    solve = _by_matrix(lambda m, r: m.LUsolve(r))
    return solve(a, b[..., None])[..., 0] if b.ndim == 1 else solve(a, b)


def _cholesky(a: Any, upper: bool) -> Any:
    factor = a.cholesky(hermitian=False)
    return factor.T if upper else factor


def _softmax(x: Any, axis: Any, logarithm: bool = False) -> Any:
    e = np.frompyfunc(_sympy().exp, 1, 1)(x)
    total = _added(e, axis, True)
    return x - np.frompyfunc(_sympy().log, 1, 1)(total) if logarithm else e / total


def _logsumexp(x: Any, b: Any = None, *, axis: Any, keepdims: bool) -> Any:
    e = np.frompyfunc(_sympy().exp, 1, 1)(x)
    total = _added(e if b is None else b * e, axis, keepdims)
    return np.frompyfunc(_sympy().log, 1, 1)(total)


# What primitives compute by looking at elements or at dtypes, in forms of SymPy's.
_FORMS: dict[str, Callable[..., Any]] = {
    "scatter": _scattered, "max": _extremum("Max"), "min": _extremum("Min"), "ties": _ties,
    "norm": _norm,
    "sum": lambda x, axis, dtype, keepdims: _added(x, axis, keepdims),
    "einsum": lambda *xs, subscripts, terms, out, optimize: np.einsum(
        subscripts, *xs, optimize=False),
    "absolute": _each("Abs"),       # of complex operands
    "where": lambda c, a, b: np.frompyfunc(_namespace()["where"], 3, 1)(c, a, b),
    "solve": _solved,
    "inv": _by_matrix(lambda a, strict: a.inv()),
    "det": _by_matrix(lambda a: a.det(method="berkowitz")),
    "cholesky": _by_matrix(_cholesky),
    "special.logsumexp": _logsumexp, "special.softmax": _softmax,
    "special.log_softmax": functools.partial(_softmax, logarithm=True),
}
# Not linear, but their `forward` multiplies and moves elements and nothing else.
_AS_THEY_ARE = {"pad", "prod", "dot", "inner", "tensordot", "convolve", "correlate",
                "linalg.vecdot", "linalg.cross"}

# SymPy's classes and our special functions of the same operands: in formulas, and called.
_SPECIAL = {
    "gamma": "gamma", "loggamma": "loggamma", "beta": "beta",
    "besselj": "jv", "bessely": "yv", "besseli": "iv", "besselk": "kv", "hankel1": "hankel1",
    "hankel2": "hankel2", "jn": "spherical_jn", "yn": "spherical_yn",
    "Ei": "expi", "expint": "expn", "Si": "_si", "Ci": "_ci", "Shi": "_shi", "Chi": "_chi",
    "erf": "_erf", "erfc": "_erfc", "erfi": "erfi", "erfinv": "erfinv", "erfcinv": "erfcinv",
    "fresnels": "_fresnel_s", "fresnelc": "_fresnel_c",
    "airyai": "_ai", "airyaiprime": "_aip", "airybi": "_bi", "airybiprime": "_bip",
    "elliptic_k": "ellipk", "elliptic_e": "ellipe", "elliptic_f": "ellipkinc",
    "RisingFactorial": "poch", "binomial": "binom",
    "legendre": "eval_legendre", "chebyshevt": "eval_chebyt", "chebyshevu": "eval_chebyu",
    "hermite": "eval_hermite", "laguerre": "eval_laguerre", "gegenbauer": "eval_gegenbauer",
    "jacobi": "eval_jacobi",
}


@functools.cache
def _special() -> dict[str, Callable[..., Any]]:
    """Special functions as expressions, by the names of their rows."""
    s = _sympy()
    half = s.Rational(1, 2)

    def derivative(f: Callable[..., Any]) -> Callable[..., Any]:
        def nth(n: Any, x: Any, *rest: Any) -> Any:
            t = s.Dummy("t", positive=True)
            return s.diff(f(t, *rest), t, int(n)).subs(t, x)

        return nth

    def erfcx(x: Any) -> Any:
        return s.exp(x**2) * s.erfc(x)

    def dawsn(x: Any) -> Any:
        return s.sqrt(s.pi) / 2 * s.exp(-(x**2)) * s.erfi(x)

    return {
        **{row: getattr(s, name) for name, row in _SPECIAL.items()},
        "rgamma": lambda x: 1 / s.gamma(x), "betaln": lambda a, b: s.log(s.beta(a, b)),
        "_psi": lambda x: s.polygamma(0, x), "_polygamma": s.polygamma,
        "gammainc": lambda a, x: s.lowergamma(a, x) / s.gamma(a),
        "gammaincc": lambda a, x: s.uppergamma(a, x) / s.gamma(a),
        "_gamma_pdf": derivative(lambda a, x: x ** (a - 1) * s.exp(-x) / s.gamma(a)),
        "_psi_step": lambda n, x, h: s.polygamma(n, x + h) - s.polygamma(n, x),
        "poch": lambda x, m: s.gamma(x + m) / s.gamma(x),
        "_xlogy": lambda x, y: x * s.log(y), "_xlog1py": lambda x, y: x * s.log(1 + y),
        "ndtr": lambda x: s.erfc(-x / s.sqrt(2)) / 2,
        "log_ndtr": lambda x: s.log(s.erfc(-x / s.sqrt(2)) / 2),
        "ndtri": lambda p: s.sqrt(2) * s.erfinv(2 * p - 1),
        "logit": lambda p: s.log(p / (1 - p)), "log_expit": lambda x: -s.log(1 + s.exp(-x)),
        "entr": lambda x: -x * s.log(x), "rel_entr": lambda x, y: x * s.log(x / y),
        "kl_div": lambda x, y: x * s.log(x / y) - x + y,
        "pseudo_huber": lambda d, r: d**2 * (s.sqrt(1 + (r / d) ** 2) - 1),
        "exprel": lambda x: (s.exp(x) - 1) / x, "cosm1": lambda x: s.cos(x) - 1,
        "exp10": lambda x: 10**x, "powm1": lambda x, y: x**y - 1,
        "boxcox": lambda x, k: (x**k - 1) / k, "boxcox1p": lambda x, k: ((1 + x) ** k - 1) / k,
        "erfcx": erfcx, "_erfcx_n": derivative(erfcx), "dawsn": dawsn,
        "_dawsn_n": derivative(dawsn), "_log_ratio": derivative(lambda x: s.log(1 + x) / x),
        "hyp0f1": lambda b, x: s.hyper([], [b], x), "hyp1f1": lambda a, b, x: s.hyper([a], [b], x),
        "hyp2f1": lambda a, b, c, x: s.hyper([a, b], [c], x),
        "sindg": lambda x: s.sin(x * s.pi / 180), "cosdg": lambda x: s.cos(x * s.pi / 180),
        "tandg": lambda x: s.tan(x * s.pi / 180), "cotdg": lambda x: s.cot(x * s.pi / 180),
        "j0": lambda x: s.besselj(0, x), "j1": lambda x: s.besselj(1, x),
        "y0": lambda x: s.bessely(0, x), "y1": lambda x: s.bessely(1, x),
        "i0": lambda x: s.besseli(0, x), "i1": lambda x: s.besseli(1, x),
        "k0": lambda x: s.besselk(0, x), "k1": lambda x: s.besselk(1, x),
        "exp1": lambda x: s.expint(1, x),
        "_lambertw": lambda k, x: s.LambertW(x, k) if k else s.LambertW(x),
        "_riemann": s.zeta, "_hurwitz": s.zeta,
        "agm": lambda a, b: s.pi * (a + b) / (4 * s.elliptic_k(((a - b) / (a + b)) ** 2)),
        "radian": lambda d, m, x: (d + m / 60 + x / 3600) * s.pi / 180,
        "eval_hermitenorm": lambda n, x: 2 ** (-n * half) * s.hermite(n, x / s.sqrt(2)),
        "eval_genlaguerre": lambda n, a, x: s.assoc_laguerre(n, a, x),
    }


def _of_special(name: str, xs: list[Any], orders: Mapping[str, Any]) -> Any:
    f = _special().get(name)
    if f is None:
        raise ValueError(f"to_sympy: special.{name.lstrip('_')} has no form in SymPy")
    given = [number(v) for v in orders.values()]
    return np.frompyfunc(lambda *v: f(*given, *v), len(xs), 1)(*xs)


_COMPARISONS = {
    np.less: "Lt", np.less_equal: "Le", np.greater: "Gt", np.greater_equal: "Ge",
    np.equal: "Eq", np.not_equal: "Ne", np.logical_and: "And", np.logical_or: "Or",
    np.logical_not: "Not",
}


def _structured(
    rule: Any, params: Any, xs: list[Any], shape: Any, dtype: Any, kinds: list[Any]
) -> Any:
    if isinstance(rule, _core.ByNumpy):
        if all(e.is_number for x in xs for e in x.ravel()):
            numbers = [x.astype(kind) for x, kind in zip(xs, kinds)]
            return _constant(rule.function(*rule.filled(numbers), **rule.kwargs))
        if rule.function is _core.as_dtype:
            return _cast(xs[0], dtype)
        name = _COMPARISONS.get(rule.function)
        if name is None or rule.kwargs:
            raise ValueError(f"to_sympy: {rule.name} looks at values, and has no form in SymPy")
        f = getattr(_sympy(), name)
        args = [x if isinstance(x, np.ndarray) and x.dtype == object else _constant(x)
                for x in rule.filled(xs)]
        return np.frompyfunc(f, len(args), 1)(*args)
    if isinstance(rule, _core.Partial):
        return np.broadcast_to(_row(rule.op, rule.side, xs), shape)
    if isinstance(rule, _core.ComplexRow):
        return _row(rule.op, None, xs)
    if _core.core_rules.get(rule.name) is rule:
        return _CORE[rule.name](xs, params, shape, dtype)
    known: Any = rules.PRIMITIVES
    if known.get(rule.name) is rule:
        if rule.name in _FORMS:
            return _FORMS[rule.name](*xs, **params)
        if rule.name.startswith("special."):
            return _of_special(rule.name.removeprefix("special."), xs, params)
        if (rule.linear and rule.jvp is None) or rule.name in _AS_THEY_ARE:
            return rule.forward(*xs, **params)
    raise ValueError(f"to_sympy: {rule.name} has no form in SymPy")


def _constant(x: Any) -> Any:
    s = _sympy()

    def one(v: Any) -> Any:
        return s.true if v is True else s.false if v is False else number(v)

    return np.frompyfunc(one, 1, 1)(np.asarray(x).astype(object))


# ---- a record, computed again on expressions ---------------------------------------------------


def expressions(nodes: Nodes, known: Mapping[int, Any], wanted: list[int]) -> list[Any]:
    """Expressions of nodes, from those of the inputs: numbers, or arrays of expressions."""
    values: dict[int, Any] = {}
    need = set(wanted)
    for i in range(len(nodes) - 1, -1, -1):
        if i in need and i not in known:
            need.update(nodes.parents(i))
    for i in sorted(need):
        if i in known:
            values[i] = np.asarray(known[i], object)
            continue
        shape, dtype = nodes.arrays.get(i, ((), np.dtype(np.float64)))
        if nodes.primitive(i) == "constant":
            t = nodes.constants.get(i)
            v = _constant(nodes.number[i] if t is None else _core.array(t))
        else:
            xs = [values[p] for p in nodes.parents(i)]
            rule, params = nodes.calls[i][:2] if i in nodes.calls else (None, None)
            if rule is None:
                v = _row(int(nodes.op[i]), None, xs)
            else:
                kinds = [nodes.arrays[p][1] if p in nodes.arrays else np.dtype(np.float64)
                         for p in nodes.parents(i)]
                v = _structured(rule, params, xs, shape, dtype, kinds)
        v = np.asarray(v, object)
        if v.shape != shape:
            raise RuntimeError(f"internal: node {i} ({nodes.primitive(i)}) has the shape {v.shape} "
                               f"in SymPy, and {shape} in the record")
        values[i] = v
    return [_unwrapped(values[i]) for i in wanted]


def _unwrapped(v: np.ndarray) -> Any:
    return v[()] if v.ndim == 0 else v


def _conditions(nodes: Nodes, known: Mapping[int, Any]) -> tuple[Any, ...]:
    """What Python saw, as relations."""
    s = _sympy()
    found = []
    for kind, wanted, a, b, _, seen, array in nodes.guards:
        some = expressions(nodes, known, [a] if b < 0 else [a, b])
        if b >= 0:
            f = (s.Lt, s.Le, s.Eq, s.Ne, s.Gt, s.Ge)[kind]
            c = f(*some)
            found.append(c if wanted else s.Not(c))
        elif kind == _core.GUARD_TRUNC:
            found.append(s.Eq(_namespace()["trunc"](some[0]), number(seen)))
        elif kind != _core.GUARD_NO_NAN:
            pairs = zip(np.ravel(some[0]), np.ravel(seen if array is None else array))
            for e, v in pairs:
                if isinstance(e, s.logic.boolalg.Boolean):
                    found.append(e if v else s.Not(e))
                else:
                    found.append(s.Eq(e, number(v)))
    return tuple(dict.fromkeys([c for c in found if c != True]))  # noqa: E712


def _check_size(nodes: Nodes, limit: int) -> None:
    size = 0
    for i in range(len(nodes)):
        size += math.prod(nodes.arrays[i][0]) if i in nodes.arrays else 1
    if size > limit:
        raise ValueError(f"to_sympy: {size} elements in {len(nodes)} operations; SymPy takes "
                         f"long and gives formulas that nobody can read.  limit={size} asks for "
                         "them all the same")


def _symbols(name: str, kind: graph.Kind) -> Any:
    s = _sympy()
    real = True if kind.dtype.kind != "c" else None
    text = "".join([c if c.isalnum() or c == "_" else "_" for c in name])
    text = "_".join(filter(None, text.split("_"))) or "x"
    if kind.shape == ():
        return s.Symbol(text, real=real)
    out = np.empty(kind.shape, object)
    for k in np.ndindex(kind.shape):
        out[k] = s.Symbol("_".join([text, *map(str, k)]), real=real)
    return out


def _formulas(g: Graph, leaves: list[Any], given: list[Any], limit: int) -> Formula:
    """Value and gradient of a graph at inputs like `leaves`; `given` are symbols, or None each."""
    g = graph.defined(g, leaves)
    nodes, n = g._nodes, g._nodes.n_given
    names = g._input_names
    kinds = [g.inputs[k] for k in names]
    symbols = {k: _symbols(k, kind) if x is None else x
               for k, kind, x in zip(names, kinds, given)}
    known: dict[int, Any] = dict(zip(nodes.inputs, symbols.values()))
    for i, t in zip(nodes.inputs[n:], g._outer):
        known[i] = _constant(_core.array(t.detach()))
    _check_size(nodes, limit)
    value = transforms.mapped(
        g._result,
        lambda x: expressions(nodes, known, [nodes.outputs[x]])[0] if type(x) is int else x.value)
    active = [k for k, kind in enumerate(kinds) if kind.dtype.kind in "fc"]
    gradient = None
    if type(g._result) is int and active:
        gradient = _gradient(g, leaves, active, list(symbols.values()), limit)
    return Formula(value, gradient, symbols, _conditions(nodes, known))


def _gradient(
    g: Graph, leaves: list[Any], active: list[int], symbols: list[Any], limit: int
) -> Any:
    """Derivatives by the inputs `active`, from the record of their computation."""
    nodes = g._nodes
    out = nodes.outputs[g._result]
    shape = g._kind(out).shape

    def function(*inputs: Any) -> Any:
        return nodes.evaluate(arguments.by_node(nodes, inputs, g._outer), [out])[0]

    if g._kind(out).dtype.kind != "f":
        return None
    transform = transforms.grad if math.prod(shape) == 1 else transforms.jacobian
    d = graph.defined(graph.record(transform(function, tuple(active)), *leaves), leaves)
    _check_size(d._nodes, limit)
    known: dict[int, Any] = dict(zip(d._nodes.inputs, symbols))
    for i, t in zip(d._nodes.inputs[d._nodes.n_given:], d._outer):
        known[i] = _constant(_core.array(t.detach()))
    found = {}
    for k, place in zip(active, d._result):
        if type(place) is int:
            v = expressions(d._nodes, known, [d._nodes.outputs[place]])[0]
        else:
            v = _unwrapped(np.asarray(_constant(place.value), object))
        found[g._input_names[k]] = v
    return found


def _example(kind: graph.Kind, k: int) -> Any:
    """A made-up value: positive and below 1, where most functions are smooth."""
    at = 0.3 + 0.6 * ((0.618034 * (k + np.arange(math.prod(kind.shape)))) % 1.0)
    a = at.astype(kind.dtype).reshape(kind.shape)
    return a.item() if kind.shape == () and kind.dtype == np.float64 else a


def _of_function(function: Any, args: tuple[Any, ...], limit: int) -> Formula:
    s = _sympy()
    given: list[Any] = []
    count = 0

    def leaf(x: Any) -> Any:
        nonlocal count
        whole = isinstance(x, np.ndarray) and x.dtype == object
        if not whole and not isinstance(x, s.Symbol):
            if type(x) is float or isinstance(x, (np.floating, np.ndarray, Tensor)):
                given.append(None)
            return x
        given.append(x)
        count += 1
        return _example(graph.Kind(np.shape(x), np.dtype(np.float64)), count)

    args = transforms.mapped(
        tuple([np.asarray(x) if transforms._is_numbers(x) else x for x in args]), leaf)
    args = tuple([float(x) if type(x) is int and count == 0 and len(args) == 1 else x
                  for x in args])
    with np.errstate(all="ignore"):
        g = graph.record(function, *args)
        leaves: list[Any] = []
        program._flatten(args, {}, leaves, [])
        if len(leaves) != len(given):
            given = [None] * len(leaves)
        return _formulas(g, leaves, given, limit)


def _of_graph(g: Graph, examples: tuple[Any, ...], limit: int) -> Formula:
    """A graph's formulas; without examples its gradient is recorded at made-up values."""
    leaves: list[Any] = []
    if examples:
        program._flatten(examples, {}, leaves, [])
        if len(leaves) != len(g._input_names):
            raise ValueError(f"to_sympy: {len(leaves)} inputs in the examples; the graph has "
                             f"{len(g._input_names)}: {', '.join(g.inputs)}")
    else:
        leaves = [_example(kind, k) for k, kind in enumerate(g.inputs.values())]
    try:
        with np.errstate(all="ignore"):
            return _formulas(g, leaves, [None] * len(leaves), limit)
    except _core.GuardError:
        raise ValueError("to_sympy: what Python looked at while recording is otherwise for "
                         + ("these examples" if examples else "made-up inputs; give examples")
                         ) from None


def _of_tensor(y: Tensor, scope: Mapping[str, Any], limit: int) -> Formula:
    """The formulas of a tensor's recorded history."""
    variables = [(k, t) for k, t in scope.items() if isinstance(t, Tensor)]
    nodes, values, _, places, _ = _core.history([y], [t for _, t in variables], "to_sympy", False)
    if None in nodes.constants.values():
        raise ValueError("to_sympy: the value of a constant array is gone, since no gradient reads "
                         "it; give the function and example arguments instead")
    named = {place: k for (k, _), place in [*zip(variables, places)][::-1]}
    names: list[str] = []
    for k, i in enumerate(nodes.inputs):
        name = named.get(i, f"x{k}")
        while name in names:
            name += "_"
        names.append(name)
    g = Graph("tensor", nodes, [], None, 0, names)
    leaves = [_leaf_value(values[i]) for i in nodes.inputs]
    return _formulas(g, leaves, [None] * len(leaves), limit)


def _leaf_value(t: Tensor) -> Any:
    a = np.array(_core.array(t.detach()))
    return a.item() if a.ndim == 0 and a.dtype == np.float64 else a


def to_sympy(y: Any, *args: Any, limit: int = _LIMIT) -> Formula:
    """Return value and gradient of what was recorded, as SymPy expressions.

    The gradient is fastad's own, recorded and written out: not SymPy's derivative of the value.
    Arrays become arrays of expressions, element by element, so keep them small.

    Parameters
    ----------
    y : Tensor, callable, Program or Graph
        A tensor stands for what it was computed from; its leaves are named after the caller's
        variables that hold them.
    *args
        For a function: example arguments, which decide its shapes and the way that it goes, or
        SymPy's symbols (also arrays of symbols) in their place.
    limit : int
        Raise above so many elements in all operations.

    Returns
    -------
    Formula
        With ``value``, ``gradient``, ``symbols`` and ``conditions``.

    Raises
    ------
    ValueError
        If something that was recorded has no form in SymPy, there is too much of it, a recorded
        guard does not hold for the examples, or a tensor has no history.
    RuntimeError
        If it was consumed.
    ImportError
        If SymPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.to_sympy(lambda x: x**3 + ad.sin(x), 2.0).gradient["x"]
    3*x**2 + cos(x)
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> formula = ad.to_sympy(ad.sin(x) / x)
    >>> formula.value, formula.gradient["x"]
    (sin(x)/x, cos(x)/x - sin(x)/x**2)
    """
    _sympy()
    if isinstance(y, Tensor):
        if args:
            raise TypeError("to_sympy: a tensor takes no example arguments")
        frame = sys._getframe(1)
        return _of_tensor(y, {**frame.f_globals, **frame.f_locals}, limit)
    if isinstance(y, Graph):
        return _of_graph(y, args, limit)
    if isinstance(y, Program) and not args:
        return _of_graph(_last_graph(y), (), limit)
    if not callable(y):
        raise TypeError(f"to_sympy: wanted a tensor or a function, got {type(y).__name__}")
    return _of_function(y, args, limit)


def _last_graph(p: Program) -> Graph:
    """The graph of the recording that was used last."""
    key = _core.last_key(p)
    plans = p.plans.get(key, ())
    if not plans:
        raise ValueError("to_sympy: nothing is recorded yet; give example arguments")
    plan = plans[0]
    names = _argument_names(p, len(plan.nodes.inputs[: plan.nodes.n_given]), key)
    return Graph(p.__name__, plan.nodes, plan.outer, key, plan.result, names)


def _argument_names(p: Program, count: int, key: Any) -> list[str]:
    """Names of the inputs where each argument is one; else numbered."""
    import inspect

    try:
        names = list(inspect.signature(p.source).parameters)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == count == len(key[0]) else [f"x{k}" for k in range(count)]


# ---- expressions as programs -------------------------------------------------------------------


def _folded(name: str) -> Callable[..., Any]:
    f = getattr(_np, name)
    return lambda *xs: functools.reduce(f, xs)


def _power(x: Any, n: Any) -> Any:
    if type(n) is float:
        if n == 0.5:
            return _np.sqrt(x)
        if n == -0.5:
            return 1.0 / _np.sqrt(x)
        if n == -1.0:
            return 1.0 / x
        return x ** (int(n) if n == int(n) else n)
    return x**n


def gamma(x: Any) -> Any:
    """``special.gamma(x)``: a name for `sympy.lambdify`, which would take ``math.gamma``.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.gamma(5.0).item()
    24.0
    """
    from . import special  # large

    return special.gamma(x)


def factorial(x: Any) -> Any:
    """``gamma(x + 1)``, elementwise.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.factorial(4.0).item()
    24.0
    """
    return gamma(_core.as_tensor(x) + 1.0)


def _polygamma(n: Any, x: Any) -> Any:
    return _np.digamma(x) if n == 0.0 else _np.polygamma(n, x)


def _piecewise(*parts: Any) -> Any:
    """Values and conditions by turns; nan where none holds."""
    y: Any = math.nan
    for value, condition in zip(parts[-2::-2], parts[::-2]):
        if condition is True:
            y = value
        elif condition is not False:
            y = _np.where(condition, value, y)
    return y


_SAME = "sin cos tan sinh cosh tanh exp log erf erfc sign floor digamma"


def _special_function(row: str) -> Callable[..., Any]:
    def function(*args: Any) -> Any:
        from . import special  # large

        named: Any = special
        return named.FORMULA_NAMES[row](*args)

    return function


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    """fastad's functions by the names of SymPy's classes."""
    n = _np

    def zeta(x: Any, a: Any = 1.0) -> Any:
        return _special_function("zeta")(x, a)

    def lambertw(x: Any, k: float = 0.0) -> Any:
        return _special_function("_lambertw")(int(k), x)

    return {
        **{name: _special_function(row) for name, row in _SPECIAL.items()},
        **{name: getattr(n, name) for name in _SAME.split()},
        "asin": n.arcsin, "acos": n.arccos, "atan": n.arctan, "atan2": n.arctan2,
        "asinh": n.arcsinh, "acosh": n.arccosh, "atanh": n.arctanh, "ceiling": n.ceil,
        "Abs": n.absolute, "loggamma": n.lgamma, "factorial": factorial,
        "conjugate": n.conjugate, "re": n.real, "im": n.imag, "arg": n.angle,
        "polygamma": _polygamma,
        "sec": lambda x: 1.0 / n.cos(x), "csc": lambda x: 1.0 / n.sin(x),
        "cot": lambda x: 1.0 / n.tan(x), "sech": lambda x: 1.0 / n.cosh(x),
        "csch": lambda x: 1.0 / n.sinh(x), "coth": lambda x: 1.0 / n.tanh(x),
        "sinc": lambda x: n.sinc(x * (1.0 / math.pi)), "Heaviside": n.heaviside,
        "Max": _folded("maximum"), "Min": _folded("minimum"), "Mod": n.remainder,
        "Add": _folded("add"), "Mul": _folded("multiply"), "Pow": _power,
        "StrictLessThan": n.less, "LessThan": n.less_equal, "StrictGreaterThan": n.greater,
        "GreaterThan": n.greater_equal, "Equality": n.equal, "Unequality": n.not_equal,
        "And": _folded("logical_and"), "Or": _folded("logical_or"), "Not": n.logical_not,
        "zeta": zeta, "LambertW": lambertw, "ITE": n.where, "Piecewise": _piecewise,
    }


class _Result:
    """Where the elements of a result stand; shape None for a single one."""

    __slots__ = ("places", "shape")

    def __init__(self, shape: tuple[int, ...] | None, places: list[int]) -> None:
        self.shape = shape
        self.places = places


class _Evaluator:
    """A function of numbers and arrays that computes SymPy expressions, step by step.

    An expression that occurs twice is computed once.
    """

    def __init__(self, expr: Any, symbols: tuple[Any, ...], functions: Mapping[str, Any]) -> None:
        import inspect

        self._own = dict(functions)
        self._steps: list[tuple[Any, tuple[int, ...]]] = []      # (function, places), or constant
        self._place: dict[Any, int] = {}
        self._tree = [np.asarray(x, object) if isinstance(x, (list, np.ndarray)) else x
                      for x in symbols]
        names = []
        for k, x in enumerate(self._tree):
            for e in np.ravel(np.asarray(x, object)):
                if e in self._place:
                    raise ValueError(f"from_sympy: the symbol {e} is there twice")
                self._place[e] = len(self._place)
            text = str(x) if not isinstance(x, np.ndarray) else f"x{k}"
            names.append(text if text.isidentifier() and text not in names else f"x{k}")
        self._first = len(self._place)
        self._result = transforms.mapped(_plain(expr), self._leaf)
        self.__name__ = self.__qualname__ = "from_sympy"
        kind = inspect.Parameter.POSITIONAL_ONLY
        self.__signature__ = inspect.Signature([inspect.Parameter(k, kind) for k in names])

    def _leaf(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return _Result(x.shape, [self._visit(e) for e in x.ravel()])
        return _Result(None, [self._visit(x)])

    def _visit(self, expr: Any) -> int:
        """Where the value of an expression stands; sweeps depth first without recursion."""
        s = _sympy()
        pending = [s.sympify(expr)]
        while pending:
            e = pending[-1]
            if e in self._place:
                pending.pop()
                continue
            parts = self._parts(e)
            missing = [p for p in parts if p not in self._place]
            if missing:
                pending += missing
                continue
            pending.pop()
            step = (self._function(e), tuple([self._place[p] for p in parts]))
            self._place[e] = self._first + len(self._steps)
            self._steps.append(step)
        return self._place[s.sympify(expr)]

    def _parts(self, e: Any) -> tuple[Any, ...]:
        s = _sympy()
        if isinstance(e, (s.Derivative, s.Integral)):
            raise ValueError(f"from_sympy: {e} is not carried out; call doit() before")
        if e.is_number and not e.is_Boolean and e.is_real or e in (s.true, s.false, s.nan):
            return ()
        if isinstance(e, s.Piecewise):
            return tuple([p for pair in e.args for p in (pair.expr, pair.cond)])
        return tuple(e.args)

    def _function(self, e: Any) -> Any:
        s = _sympy()
        if e in (s.true, s.false):
            return e is s.true
        if e.is_Symbol:
            raise ValueError(f"from_sympy: the symbol {e} is not among the arguments")
        if e is s.nan or (e.is_number and e.is_real):
            return float(e)
        name = type(e).__name__
        f = self._own.get(name, _functions().get(name))
        if f is None:
            raise ValueError(f"from_sympy: there is no function for {name}; give one: "
                             f"functions={{{name!r}: ...}}")
        return f

    def __call__(self, *args: Any) -> Any:
        values: list[Any] = []
        if len(args) != len(self._tree):
            raise TypeError(f"from_sympy: {len(args)} arguments; the symbols are "
                            f"{', '.join([str(x) for x in self._tree])}")
        for x, t in zip(args, self._tree):
            if not isinstance(t, np.ndarray):
                values.append(x)
                continue
            if np.shape(x) != t.shape:
                raise ValueError(f"from_sympy: an argument of shape {np.shape(x)} for symbols of "
                                 f"shape {t.shape}")
            values += [x[k] for k in np.ndindex(t.shape)]
        for f, places in self._steps:
            if not callable(f):
                values.append(f)
            else:
                values.append(f(*[values[k] for k in places]))

        def leaf(x: _Result) -> Any:
            if x.shape is None:
                return values[x.places[0]]
            return _np.reshape(_np.stack([values[k] for k in x.places]), x.shape)

        return transforms.mapped(self._result, leaf)


def _plain(expr: Any) -> Any:
    """Matrices as object arrays, expressions as they are, in nested tuples, lists and dicts."""
    s = _sympy()

    def leaf(x: Any) -> Any:
        if isinstance(x, s.MatrixBase):
            return np.array(x.tolist(), object).reshape(x.shape)
        return x

    return transforms.mapped(expr, leaf)


def from_sympy(
    expr: Any, *symbols: Any, functions: Mapping[str, Callable[..., Any]] | None = None
) -> Program:
    """Return a program that computes a SymPy expression, with gradients like every other.

    ``sympy.lambdify(symbols, expr, modules=fastad)`` gives a function of numbers too (with
    ``modules=[fastad, "numpy"]`` also of arrays, and with ``Max`` and ``Min``); this one computes
    once what occurs twice, and is recorded already.

    Parameters
    ----------
    expr : expression, Matrix, or nested tuples, lists and dicts of these
        Also arrays of expressions.
    *symbols : Symbol, or array of Symbol
        The arguments; by default the expression's symbols by the alphabet.  An array of symbols
        stands for an array argument of that shape.
    functions : dict of str to callable, optional
        What computes SymPy functions that are not known here, by the name of their class.

    Returns
    -------
    Program

    Raises
    ------
    ValueError
        If a function is unknown, a symbol is missing or there twice.
    ImportError
        If SymPy is not installed.

    Examples
    --------
    >>> import fastad as ad
    >>> import sympy
    >>> x, a = sympy.symbols("x a")
    >>> f = ad.from_sympy(sympy.exp(-a * x) * x, x, a)
    >>> f.value_and_grad(0.0, 2.0)
    (0.0, 1.0)
    """
    s = _sympy()
    if not symbols:
        free: set[Any] = set()
        for x in transforms._leaves(_plain(expr), []):
            for e in np.ravel(np.asarray(x, object)):
                free |= s.sympify(e).free_symbols
        symbols = tuple(sorted(free, key=str))
    return program.compile(_Evaluator(expr, symbols, functions or {}))


program.ABOVE["to_sympy"] = to_sympy
