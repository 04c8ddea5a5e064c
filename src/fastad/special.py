"""Special functions with derivatives: ``ad.special``.

A function takes what SciPy's function of the same name takes, tensors among it, and its value is
SciPy's, computed by SciPy's own function, which is imported in the first call that needs it
(``pip install "fastad[scipy]"``).  The functions in `CORE` are rows of the op table: they need no
SciPy, and differ from it by a few units in the last place.

One row of the table below declares a function: its arguments, and the partial derivative in each
as a formula over tensors, which records its own derivative.  So every function is differentiable
as often as you like, in programs too.  An argument in which there is no derivative, such as the
degree of a polynomial, raises when its tensor requires one.

Some rows are derivatives themselves and stand for themselves in formulas, named with a leading
underscore: their values come from `special_values`.

>>> import fastad as ad
>>> x = ad.tensor([0.5, 1.0], requires_grad=True)
>>> ad.special.jv(1.0, x).sum().backward()
>>> x.grad.numpy().round(6)
array([0.453933, 0.325147])
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from . import _core, rules, special_values
from ._core import Tensor, as_tensor
from .rules import record, where, zmul

# What there is to say of an argument without a derivative.
STEP = "is a whole number"
OPEN = "has no formula here"
NOT_HOLOMORPHIC = "is complex: there the function is not holomorphic"

_FLOAT64 = np.dtype(np.float64)
_exp = _core.elementwise["exp"]
_sign = _core.elementwise["sign"]
_lgamma = _core.elementwise["lgamma"]


class Row:
    """One elementwise function of the table.

    Attributes
    ----------
    arguments, orders : tuple of str
        Names of the operands, and of what else the function takes: Python numbers.
    partials : tuple of str
        The derivative in each argument, with ``y`` the result and the names in `let`.
    missing : dict
        Why the derivative in an argument is missing, by the argument's place.
    let : dict
        Names for parts of formulas.
    of_complex : dict
        Partials that are others for complex operands, by the argument's place.
    source : str
        Sections of the DLMF, or another source.
    values : object
        A function of arrays, or the name of SciPy's, or that and the place of the result.
    rule : Primitive
    """

    def __init__(self, name, arguments, partials, source, let, values, of_complex):
        orders, _, operands = arguments.rpartition(";")
        self.name = name
        self.orders = tuple(orders.split())
        self.arguments = tuple(operands.split())
        self.partials = partials
        self.missing = {k: p for k, p in enumerate(partials) if p in (STEP, OPEN)}
        self.source = source
        self.let = let
        self.values = values
        self.of_complex = of_complex
        self.compiled = [None] * len(partials)
        self.compiled_of_complex = {}
        if len(partials) != len(self.arguments):
            raise ValueError(f"special: {name} has {len(partials)} partials")
        self.rule = _rule(self)

    def partial(self, k, of_complex=False):
        """The k-th partial as a function of orders, operands and result."""
        names = (*self.orders, *self.arguments, "y")
        if of_complex and k in self.of_complex:
            if k not in self.compiled_of_complex:
                self.compiled_of_complex[k] = compiled(names, self.of_complex[k], self.let)
            return self.compiled_of_complex[k]
        if self.compiled[k] is None:
            self.compiled[k] = compiled(names, self.partials[k], self.let)
        return self.compiled[k]

    def refuse(self, k, why):
        """Raise for want of the k-th partial."""
        name, argument = self.name.lstrip("_"), self.arguments[k]
        raise TypeError(
            f"special.{name}: there is no derivative in the argument {argument}, "
            f"which {why}; pass `{argument}.detach()`"
        )


def compiled(arguments, text, let):
    """A formula as a function; the texts are those of the tables below."""
    for name, part in reversed(let.items()):
        text = f"(lambda {name}: {text})({part})"
    return eval(f"lambda {', '.join(arguments)}: {text}", FORMULA_NAMES)


ROWS: dict[str, Row] = {}
FORMULA_NAMES: dict[str, object] = {}


def _row(name, arguments, *partials, source, values=None, of_complex=None, **let):
    """Declare a row; `values` is a function of arrays or names SciPy's, with a result's place."""
    values = values or name
    ROWS[name] = Row(name, arguments, partials, source, let, values, of_complex or {})


def _rule(row):
    """The structured primitive of a row."""

    def forward(*arrays, **orders):
        rule.forward = values = _values_of(row)     # from now on without this function
        return values(*arrays, **orders)

    def partial(k, y, inputs, orders):
        of_complex = any(x.dtype.kind == "c" for x in inputs)
        if k in row.missing:
            row.refuse(k, row.missing[k])
        if of_complex and row.of_complex.get(k) == NOT_HOLOMORPHIC:
            row.refuse(k, NOT_HOLOMORPHIC)
        return row.partial(k, of_complex)(*orders.values(), *inputs, y)

    def vjp(g, y, inputs, needs, **orders):
        bars = []
        for k, (x, need) in enumerate(zip(inputs, needs)):
            if not need or x.dtype.kind not in "fc":
                bars.append(None)
                continue
            p = partial(k, y, inputs, orders)
            bar = zmul(g, _core.conjugate(p) if type(p) is Tensor else p)
            if bar.dtype.kind == "c" and x.dtype.kind == "f":
                bar = _core.real(bar)
            if bar.shape != x.shape:
                bar = _core.sum_to(bar, x.shape)
            bars.append(bar if bar.dtype == x.dtype else _core.astype(bar, x.dtype))
        return tuple(bars)

    def jvp(tangents, y, inputs, **orders):
        y_dot = None
        for k, tangent in enumerate(tangents):
            if tangent is not None:
                part = zmul(tangent, partial(k, y, inputs, orders))
                y_dot = part if y_dot is None else y_dot + part
        if y_dot is not None:
            if y_dot.shape != y.shape:
                y_dot = _core.broadcast_to(y_dot, y.shape)
            if y_dot.dtype != y.dtype:
                y_dot = _core.astype(y_dot, y.dtype)
        return y_dot

    body = SimpleNamespace(forward=forward, vjp=vjp, jvp=jvp)
    rule = rules.primitive(f"special.{row.name}", reads_inputs=True, reads_output=True)(body)
    return rule


def _scipy_special(name):
    """A function of ``scipy.special``; `name` is whose values it computes.

    Raises
    ------
    ImportError
        If SciPy is missing, or too old to have the function.
    """
    try:
        import scipy.special
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "scipy":
            raise
        raise ImportError(
            f'special.{name}: needs SciPy, which is not installed; pip install "fastad[scipy]"'
        ) from error
    found = getattr(scipy.special, name, None)
    if found is None:
        raise ImportError(f"special.{name}: SciPy {scipy.__version__} does not have it; "
                          "install a newer SciPy")
    return found


def _values_of(row):
    """The function of arrays that computes a row."""
    values = row.values
    if callable(values):
        _scipy_special("gamma")         # they need SciPy, and nothing newer than this
        return values
    if isinstance(values, str):
        return _scipy_special(values)
    name, k = values                    # one of several results
    several = _scipy_special(name)
    return lambda *arrays: several(*arrays)[k]


# ---- the table -----------------------------------------------------------------------------------

PI = math.pi
SQRT_PI = math.sqrt(PI)
TWO_SQRTPI = 2.0 / SQRT_PI
SQRT_2 = math.sqrt(2.0)
SQRT_2PI = math.sqrt(2.0 * PI)
LN10 = math.log(10.0)
LOG_2PI = math.log(2.0 * PI)
DEGREE = PI / 180.0

# Gamma functions.

_row("gamma", "x", "y * digamma(x)", source="5.2.2")
_row("loggamma", "x", "digamma(x)", source="5.2.2")
_row("rgamma", "x",
     "where(x < 0.5, gamma(1.0 - x) * (cosdg(180.0 * x) - sindg(180.0 * x) / PI"
     " * digamma(1.0 - x)), -y * digamma(x))", source="5.2.2, 5.5.3",
     of_complex={0: "-y * digamma(x)"})
_row("_psi", "x", "_polygamma(1, x)", source="5.15.1", values="psi")
_row("_polygamma", "n; x", "_polygamma(n + 1, x)", source="5.15.1, 5.15.8",
     values=special_values.polygamma_of_complex)
_row("beta", "a b", "-y * _psi_step(0, a, b)", "-y * _psi_step(0, b, a)", source="5.12.1, 5.2.2")
_row("betaln", "a b", "-_psi_step(0, a, b)", "-_psi_step(0, b, a)", source="5.12.1, 5.2.2")
_row("poch", "z m", "y * _psi_step(0, z, m)", "y * digamma(z + m)", source="5.2.5, 5.2.2")
_row("binom", "n k", "y * _psi_step(0, n - k + 1.0, k)",
     "y * _psi_step(0, k + 1.0, n - 2.0 * k)", source="1.2.6, 5.2.2")
_row("_psi_step", "n; x h", "_psi_step(n + 1, x, h)", "polygamma(n + 1, x + h)",
     source="5.15.1, 5.15.8", values=special_values.psi_step)

_row("gammainc", "a x", "_gammainc_a(1, a, x)", "_gamma_pdf(0, a, x)", source="8.2.4")
_row("gammaincc", "a x", "-_gammainc_a(1, a, x)", "-_gamma_pdf(0, a, x)", source="8.2.4")
_row("gammaincinv", "a p", "-_gammainc_a(1, a, y) / _gamma_pdf(0, a, y)",
     "1.0 / _gamma_pdf(0, a, y)", source="8.2.4")
_row("gammainccinv", "a p", "-_gammainc_a(1, a, y) / _gamma_pdf(0, a, y)",
     "-1.0 / _gamma_pdf(0, a, y)", source="8.2.4")
_row("_gammainc_a", "n; a x", "_gammainc_a(n + 1, a, x)", "_gamma_pdf(n, a, x)",
     source="8.2.1, 8.2.2 differentiated in a", values=special_values.gammainc_a)
_row("_gamma_pdf", "n; a x", "_gamma_pdf(n + 1, a, x)",
     "((a - 1.0) / x - 1.0) * y + n / x * _gamma_pdf(n - 1, a, x)",
     source="8.8.13", values=special_values.gamma_pdf)

_row("betainc", "a b x", "_betainc_ab(1, 0, a, b, x)", "_betainc_ab(0, 1, a, b, x)",
     "_beta_pdf(0, 0, a, b, x)", source="8.17.2")
_row("betaincc", "a b x", "-_betainc_ab(1, 0, a, b, x)", "-_betainc_ab(0, 1, a, b, x)",
     "-_beta_pdf(0, 0, a, b, x)", source="8.17.2")
_row("betaincinv", "a b p", "-_betainc_ab(1, 0, a, b, y) / _beta_pdf(0, 0, a, b, y)",
     "-_betainc_ab(0, 1, a, b, y) / _beta_pdf(0, 0, a, b, y)",
     "1.0 / _beta_pdf(0, 0, a, b, y)", source="8.17.2")
_row("betainccinv", "a b p", "-_betainc_ab(1, 0, a, b, y) / _beta_pdf(0, 0, a, b, y)",
     "-_betainc_ab(0, 1, a, b, y) / _beta_pdf(0, 0, a, b, y)",
     "-1.0 / _beta_pdf(0, 0, a, b, y)", source="8.17.2")
_row("btdtria", "p b x", "1.0 / _betainc_ab(1, 0, y, b, x)",
     "-_betainc_ab(0, 1, y, b, x) / _betainc_ab(1, 0, y, b, x)",
     "-_beta_pdf(0, 0, y, b, x) / _betainc_ab(1, 0, y, b, x)", source="8.17.2")
_row("btdtrib", "a p x", "-_betainc_ab(1, 0, a, y, x) / _betainc_ab(0, 1, a, y, x)",
     "1.0 / _betainc_ab(0, 1, a, y, x)",
     "-_beta_pdf(0, 0, a, y, x) / _betainc_ab(0, 1, a, y, x)", source="8.17.2")
_row("_betainc_ab", "i j; a b x", "_betainc_ab(i + 1, j, a, b, x)",
     "_betainc_ab(i, j + 1, a, b, x)", "_beta_pdf(i, j, a, b, x)",
     source="8.17.1 differentiated in a and b", values=special_values.betainc_ab)
_row("_beta_pdf", "i j; a b x", "_beta_pdf(i + 1, j, a, b, x)", "_beta_pdf(i, j + 1, a, b, x)",
     "((a - 1.0) / x - (b - 1.0) / (1.0 - x)) * y + i / x * _beta_pdf(i - 1, j, a, b, x)"
     " - j / (1.0 - x) * _beta_pdf(i, j - 1, a, b, x)",
     source="8.17.1", values=special_values.beta_pdf)

# Distribution functions, which are these.

_row("chdtr", "v x", "0.5 * _gammainc_a(1, 0.5 * v, 0.5 * x)",
     "0.5 * _gamma_pdf(0, 0.5 * v, 0.5 * x)", source="8.2.4")
_row("chdtrc", "v x", "-0.5 * _gammainc_a(1, 0.5 * v, 0.5 * x)",
     "-0.5 * _gamma_pdf(0, 0.5 * v, 0.5 * x)", source="8.2.4")
_row("chdtri", "v p", "-_gammainc_a(1, 0.5 * v, 0.5 * y) / _gamma_pdf(0, 0.5 * v, 0.5 * y)",
     "-2.0 / _gamma_pdf(0, 0.5 * v, 0.5 * y)", source="8.2.4")
_row("gdtr", "a b x", "x * _gamma_pdf(0, b, a * x)", "_gammainc_a(1, b, a * x)",
     "a * _gamma_pdf(0, b, a * x)", source="8.2.4")
_row("gdtrc", "a b x", "-x * _gamma_pdf(0, b, a * x)", "-_gammainc_a(1, b, a * x)",
     "-a * _gamma_pdf(0, b, a * x)", source="8.2.4")
_row("gdtrix", "a b p", "-y / a", "-_gammainc_a(1, b, a * y) / (a * _gamma_pdf(0, b, a * y))",
     "1.0 / (a * _gamma_pdf(0, b, a * y))", source="8.2.4")
_row("gdtria", "p b x", "1.0 / (x * _gamma_pdf(0, b, y * x))",
     "-_gammainc_a(1, b, y * x) / (x * _gamma_pdf(0, b, y * x))", "-y / x", source="8.2.4")
_row("gdtrib", "a p x", "-x * _gamma_pdf(0, y, a * x) / _gammainc_a(1, y, a * x)",
     "1.0 / _gammainc_a(1, y, a * x)",
     "-a * _gamma_pdf(0, y, a * x) / _gammainc_a(1, y, a * x)", source="8.2.4")
_row("pdtr", "k m", STEP, "-_gamma_pdf(0, floor(k) + 1.0, m)", source="8.4.10")
_row("pdtrc", "k m", STEP, "_gamma_pdf(0, floor(k) + 1.0, m)", source="8.4.10")
_row("pdtri", "k p", STEP, "-1.0 / _gamma_pdf(0, floor(k) + 1.0, y)", source="8.4.10")
_row("bdtr", "k n p", STEP, STEP, "-_beta_pdf(0, 0, floor(k) + 1.0, n - floor(k), p)",
     source="8.17.5")
_row("bdtrc", "k n p", STEP, STEP, "_beta_pdf(0, 0, floor(k) + 1.0, n - floor(k), p)",
     source="8.17.5")
_row("bdtri", "k n p", STEP, STEP, "-1.0 / _beta_pdf(0, 0, floor(k) + 1.0, n - floor(k), y)",
     source="8.17.5")
_row("nbdtr", "k n p", STEP, STEP, "_beta_pdf(0, 0, n, floor(k) + 1.0, p)", source="8.17.5")
_row("nbdtrc", "k n p", STEP, STEP, "-_beta_pdf(0, 0, n, floor(k) + 1.0, p)", source="8.17.5")
_row("nbdtri", "k n p", STEP, STEP, "1.0 / _beta_pdf(0, 0, n, floor(k) + 1.0, y)",
     source="8.17.5")
_row("fdtr", "m n x", "_f_m(m, n, x)", "_f_n(m, n, x)", "_f_x(m, n, x)", source="8.17.2")
_row("fdtrc", "m n x", "-_f_m(m, n, x)", "-_f_n(m, n, x)", "-_f_x(m, n, x)", source="8.17.2")
_row("fdtri", "m n p", "-_f_m(m, n, y) / _f_x(m, n, y)", "-_f_n(m, n, y) / _f_x(m, n, y)",
     "1.0 / _f_x(m, n, y)", source="8.17.2")
_row("stdtr", "v t", "_student_v(v, t)", "_student_t(v, t)", source="8.17.2")
_row("stdtrit", "v p", "-_student_v(v, y) / _student_t(v, y)", "1.0 / _student_t(v, y)",
     source="8.17.2")
_row("ndtr", "x", "exp(-0.5 * x * x) / SQRT_2PI", source="7.2.1")
_row("log_ndtr", "x", "2.0 / (SQRT_2PI * erfcx(-x / SQRT_2))", source="7.2.1")
_row("ndtri", "p", "SQRT_2PI * exp(0.5 * y * y)", source="7.2.1")
_row("ndtri_exp", "x", "0.5 * SQRT_2PI * erfcx(-y / SQRT_2)", source="7.2.1")
_row("nrdtrimn", "p s x", "-s * SQRT_2PI * exp(0.5 * ndtri(p) * ndtri(p))", "-ndtri(p)", "1.0",
     source="7.2.1")
_row("nrdtrisd", "m p x", "-1.0 / ndtri(p)",
     "-y * SQRT_2PI * exp(0.5 * ndtri(p) * ndtri(p)) / ndtri(p)", "1.0 / ndtri(p)",
     source="7.2.1")
_row("tklmbda", "x s", "where(y * (1.0 - y) == 0.0, 0.0, 1.0 / (power(y, s - 1.0)"
     " + power(1.0 - y, s - 1.0)))", OPEN, source="Tukey's lambda distribution, by its quantiles")
_row("owens_t", "h a", "-exp(-0.5 * h * h) * erf(a * h / SQRT_2) / (2.0 * SQRT_2PI)",
     "exp(-0.5 * h * h * (1.0 + a * a)) / (2.0 * PI * (1.0 + a * a))",
     source="Owen, Ann. Math. Statist. 27 (1956)")

# Error functions and Fresnel's integrals.

_row("_erf", "x", "TWO_SQRTPI * exp(-x * x)", source="7.10.1", values="erf")
_row("_erfc", "x", "-TWO_SQRTPI * exp(-x * x)", source="7.10.1", values="erfc")
_row("wofz", "x", "2j / SQRT_PI - 2.0 * x * y", source="7.10.2")
_row("erfcx", "x", "_erfcx_n(1, x)", source="7.10",
     of_complex={0: "2.0 * x * y - TWO_SQRTPI"})
_row("_erfcx_n", "n; x", "_erfcx_n(n + 1, x)", source="7.7.1, 7.18",
     values=special_values.erfcx_n)
_row("erfi", "x", "TWO_SQRTPI * exp(x * x)", source="7.10.1")
_row("dawsn", "x", "_dawsn_n(1, x)", source="7.10.3", of_complex={0: "1.0 - 2.0 * x * y"})
_row("_dawsn_n", "n; x", "_dawsn_n(n + 1, x)", source="7.10.3, 7.12", values=special_values.dawsn_n)
_row("erfinv", "x", "exp(y * y) / TWO_SQRTPI", source="7.17")
_row("erfcinv", "x", "-exp(y * y) / TWO_SQRTPI", source="7.17")
_row("_wofz_re", "a b", "-2.0 * (a * y - b * _wofz_im(a, b))",
     "2.0 * (a * _wofz_im(a, b) + b * y) - TWO_SQRTPI", source="7.10.2",
     values=special_values.wofz_re)
_row("_wofz_im", "a b", "TWO_SQRTPI - 2.0 * (a * y + b * _wofz_re(a, b))",
     "-2.0 * (a * _wofz_re(a, b) - b * y)", source="7.10.2", values=special_values.wofz_im)
_row("voigt_profile", "x s g", "-2.0 * (a * u - b * v) / (SQRT_2 * SQRT_2PI * s * s)",
     "-y / s + (2.0 * (a * a - b * b) * u - 4.0 * a * b * v + TWO_SQRTPI * b)"
     " / (SQRT_2PI * s * s)",
     "(2.0 * (a * v + b * u) - TWO_SQRTPI) / (SQRT_2 * SQRT_2PI * s * s)",
     source="7.19", a="x / (s * SQRT_2)", b="g / (s * SQRT_2)", u="_wofz_re(a, b)",
     v="_wofz_im(a, b)")
_row("_fresnel_s", "x", "sin(0.5 * PI * x * x)", source="7.2.8", values=("fresnel", 0))
_row("_fresnel_c", "x", "cos(0.5 * PI * x * x)", source="7.2.7", values=("fresnel", 1))

# Logarithms, exponentials, entropies and losses.

_row("_xlogy", "a b", "log(b)", "zmul(a, 1.0 / b)", source="its definition", values="xlogy")
_row("_xlog1py", "a b", "log1p(b)", "zmul(a, 1.0 / (1.0 + b))", source="its definition",
     values="xlog1py")
_row("logit", "x", "1.0 / (x * (1.0 - x))", source="its definition")
_row("log_expit", "x", "expit(-x)", source="its definition")
_row("entr", "x", "-1.0 - log(x)", source="its definition")
_row("rel_entr", "a b", "log(a / b) + 1.0", "-a / b", source="its definition")
_row("kl_div", "a b", "log(a / b)", "1.0 - a / b", source="its definition")
_row("huber", "d r", "where(fabs(r) <= d, 0.0, fabs(r) - d)", "clip(r, -d, d)",
     source="its definition")
_row("pseudo_huber", "d r", "square(y / d) / hypot(d, r)",
     "d * r / hypot(d, r)", source="its definition")
_row("exprel", "x", "0.5 * hyp1f1(2.0, 3.0, x)", source="13.6.2")
_row("cosm1", "x", "-sin(x)", source="4.20")
_row("exp10", "x", "LN10 * y", source="4.7")
_row("powm1", "a b", "b * power(a, b - 1.0)", "log(a) * power(a, b)", source="4.7")
_row("boxcox", "x s", "power(x, s - 1.0)",
     "0.5 * square(log(x)) * hyp1f1(2.0, 3.0, s * log(x))", source="its definition, 13.6.2")
_row("boxcox1p", "x s", "power(1.0 + x, s - 1.0)",
     "0.5 * square(log1p(x)) * hyp1f1(2.0, 3.0, s * log1p(x))", source="its definition, 13.6.2")
_row("inv_boxcox", "x s", "y / (1.0 + s * x)",
     "-0.5 * y * x * x * hyp2f1(2.0, 2.0, 3.0, -s * x)", source="its definition, 15.4.1")
_row("inv_boxcox1p", "x s", "(1.0 + y) / (1.0 + s * x)",
     "-0.5 * (1.0 + y) * x * x * hyp2f1(2.0, 2.0, 3.0, -s * x)", source="its definition, 15.4.1")
_row("sindg", "x", "DEGREE * cosdg(x)", source="4.20")
_row("cosdg", "x", "-DEGREE * sindg(x)", source="4.20")
_row("tandg", "x", "DEGREE * (1.0 + y * y)", source="4.20")
_row("cotdg", "x", "-DEGREE * (1.0 + y * y)", source="4.20")
_row("radian", "d m s", "DEGREE", "DEGREE / 60.0", "DEGREE / 3600.0", source="its definition")

# Bessel functions.

_row("jv", "v x", "_jv_v(1, v, x)", "0.5 * (jv(v - 1.0, x) - jv(v + 1.0, x))", source="10.6.1")
_row("jve", "v x", "_jv_v(1, v, x)", "0.5 * (jv(v - 1.0, x) - jv(v + 1.0, x))", source="10.6.1",
     of_complex=dict.fromkeys((0, 1), NOT_HOLOMORPHIC))
_row("j0", "x", "-j1(x)", source="10.6.2")
_row("j1", "x", "0.5 * (j0(x) - jv(2.0, x))", source="10.6.1")
_row("_jv_v", "n; v x", "_jv_v(n + 1, v, x)",
     "0.5 * (_jv_v(n, v - 1.0, x) - _jv_v(n, v + 1.0, x))",
     source="10.9.6, 10.9.17, 10.17.3 and 10.2.2 differentiated in v", values=special_values.jv_v)
_row("yv", "v x", "_yv_v(1, v, x)", "0.5 * (yv(v - 1.0, x) - yv(v + 1.0, x))", source="10.6.1")
_row("yve", "v x", "_yv_v(1, v, x)", "0.5 * (yv(v - 1.0, x) - yv(v + 1.0, x))", source="10.6.1",
     of_complex=dict.fromkeys((0, 1), NOT_HOLOMORPHIC))
_row("yn", "n x", STEP, "0.5 * (yv(n - 1.0, x) - yv(n + 1.0, x))", source="10.6.1")
_row("y0", "x", "-y1(x)", source="10.6.2")
_row("y1", "x", "0.5 * (y0(x) - yv(2.0, x))", source="10.6.1")
_row("_yv_v", "n; v x", "_yv_v(n + 1, v, x)",
     "0.5 * (_yv_v(n, v - 1.0, x) - _yv_v(n, v + 1.0, x))",
     source="10.9.7 and 10.17.4 differentiated in v", values=special_values.yv_v)
for _kind, _sign_of_i, _i in (("1", "+", "-"), ("2", "-", "+")):
    _row(f"hankel{_kind}", "v x", f"_jv_v(1, v, x) {_sign_of_i} 1j * _yv_v(1, v, x)",
         f"0.5 * (hankel{_kind}(v - 1.0, x) - hankel{_kind}(v + 1.0, x))", source="10.6.1, 10.4.3")
    _row(f"hankel{_kind}e", "v x",
         f"exp({_i}1j * x) * (_jv_v(1, v, x) {_sign_of_i} 1j * _yv_v(1, v, x))",
         f"0.5 * (hankel{_kind}e(v - 1.0, x) - hankel{_kind}e(v + 1.0, x)) {_i} 1j * y",
         source="10.6.1, 10.4.3")
_row("iv", "v x", "exp(fabs(x)) * _ive_vx(1, 0, v, x)", "0.5 * (iv(v - 1.0, x) + iv(v + 1.0, x))",
     source="10.29.1")
_row("ive", "v x", "_ive_vx(1, 0, v, x)", "_ive_vx(0, 1, v, x)", source="10.29.1",
     of_complex=dict.fromkeys((0, 1), NOT_HOLOMORPHIC))
_row("i0", "x", "i1(x)", source="10.29.3")
_row("i1", "x", "0.5 * (i0(x) + iv(2.0, x))", source="10.29.1")
_row("i0e", "x", "_ive_vx(0, 1, 0.0, x)", source="10.29.1")
_row("i1e", "x", "_ive_vx(0, 1, 1.0, x)", source="10.29.1")
_row("_ive_vx", "i j; v x", "_ive_vx(i + 1, j, v, x)", "_ive_vx(i, j + 1, v, x)",
     source="10.25.2 and 10.32.4 differentiated", values=special_values.ive_v)
_row("kv", "v x", "exp(-x) * _kve_vx(1, 0, v, x)", "-0.5 * (kv(v - 1.0, x) + kv(v + 1.0, x))",
     source="10.29.1")
_row("kve", "v x", "_kve_vx(1, 0, v, x)", "_kve_vx(0, 1, v, x)", source="10.29.1",
     of_complex={1: "y - 0.5 * (kve(v - 1.0, x) + kve(v + 1.0, x))"})
_row("kn", "n x", STEP, "-0.5 * (kv(n - 1.0, x) + kv(n + 1.0, x))", source="10.29.1")
_row("k0", "x", "-k1(x)", source="10.29.3")
_row("k1", "x", "-0.5 * (k0(x) + kv(2.0, x))", source="10.29.1")
_row("k0e", "x", "_kve_vx(0, 1, 0.0, x)", source="10.29.1")
_row("k1e", "x", "_kve_vx(0, 1, 1.0, x)", source="10.29.1")
_row("_kve_vx", "i j; v x", "_kve_vx(i + 1, j, v, x)", "_kve_vx(i, j + 1, v, x)",
     source="10.32.9 differentiated", values=special_values.kve_v)
_row("spherical_jn", "n x", STEP, "where(n == 0, -spherical_jn(1, x), (n * spherical_jn(n - 1, x)"
     " - (n + 1) * spherical_jn(n + 1, x)) / (2 * n + 1))", source="10.51.1")
_row("spherical_yn", "n x", STEP, "where(n == 0, -spherical_yn(1, x), (n * spherical_yn(n - 1, x)"
     " - (n + 1) * spherical_yn(n + 1, x)) / (2 * n + 1))", source="10.51.1")
_row("spherical_in", "n x", STEP, "where(n == 0, spherical_in(1, x), (n * spherical_in(n - 1, x)"
     " + (n + 1) * spherical_in(n + 1, x)) / (2 * n + 1))", source="10.51.4")
_row("spherical_kn", "n x", STEP, "where(n == 0, -spherical_kn(1, x), -(n * spherical_kn(n - 1, x)"
     " + (n + 1) * spherical_kn(n + 1, x)) / (2 * n + 1))", source="10.51.4")
_row("struve", "v x", OPEN, "0.5 * (struve(v - 1.0, x) - struve(v + 1.0, x)"
     " + power(0.5 * x, v) * rgamma(v + 1.5) / SQRT_PI)", source="11.4.23, 11.4.24")
_row("modstruve", "v x", OPEN, "0.5 * (modstruve(v - 1.0, x) + modstruve(v + 1.0, x)"
     " + power(0.5 * x, v) * rgamma(v + 1.5) / SQRT_PI)", source="11.4.25, 11.4.26")
_row("itstruve0", "x", "struve(0.0, x)", source="its definition")
_row("itmodstruve0", "x", "modstruve(0.0, x)", source="its definition")
_row("it2struve0", "x", "-struve(0.0, x) / x", source="its definition")
_row("_itj0", "x", "j0(x)", source="its definition", values=("itj0y0", 0))
_row("_ity0", "x", "y0(x)", source="its definition", values=("itj0y0", 1))
_row("_iti0", "x", "i0(x)", source="its definition", values=("iti0k0", 0))
_row("_itk0", "x", "k0(x)", source="its definition", values=("iti0k0", 1))
_row("_ai", "x", "_aip(x)", source="9.2.1", values=("airy", 0))
_row("_aip", "x", "x * _ai(x)", source="9.2.1", values=("airy", 1))
_row("_bi", "x", "_bip(x)", source="9.2.1", values=("airy", 2))
_row("_bip", "x", "x * _bi(x)", source="9.2.1", values=("airy", 3))
_row("_aie", "x", "_aipe(x) + sqrt(relu(x)) * y", source="9.2.1", values=("airye", 0),
     of_complex={0: "_aipe(x) + sqrt(x) * y"})
_row("_aipe", "x", "x * _aie(x) + sqrt(relu(x)) * y", source="9.2.1", values=("airye", 1),
     of_complex={0: "x * _aie(x) + sqrt(x) * y"})
_row("_bie", "x", "_bipe(x) - sqrt(relu(x)) * y", source="9.2.1", values=("airye", 2),
     of_complex={0: NOT_HOLOMORPHIC})
_row("_bipe", "x", "x * _bie(x) - sqrt(relu(x)) * y", source="9.2.1", values=("airye", 3),
     of_complex={0: NOT_HOLOMORPHIC})
_row("_itai", "x", "_ai(x)", source="9.10", values=("itairy", 0))
_row("_itbi", "x", "_bi(x)", source="9.10", values=("itairy", 1))
_row("_itai_left", "x", "_ai(-x)", source="9.10", values=("itairy", 2))
_row("_itbi_left", "x", "_bi(-x)", source="9.10", values=("itairy", 3))
_row("ber", "x", "berp(x)", source="10.61.4")
_row("bei", "x", "beip(x)", source="10.61.4")
_row("ker", "x", "kerp(x)", source="10.61.4")
_row("kei", "x", "keip(x)", source="10.61.4")
_row("berp", "x", "where(x == 0.0, 0.0, -bei(x) - y / x)", source="10.61.4")
_row("beip", "x", "where(x == 0.0, 0.5, ber(x) - y / x)", source="10.61.4")
_row("kerp", "x", "-kei(x) - y / x", source="10.61.4")
_row("keip", "x", "ker(x) - y / x", source="10.61.4")
_row("_pbdv", "v x", OPEN, "_pbdv_x(v, x)", source="12.2.4", values=("pbdv", 0))
_row("_pbdv_x", "v x", OPEN, "(0.25 * x * x - v - 0.5) * _pbdv(v, x)", source="12.2.4",
     values=("pbdv", 1))
_row("_pbvv", "v x", OPEN, "_pbvv_x(v, x)", source="12.2.4", values=("pbvv", 0))
_row("_pbvv_x", "v x", OPEN, "(0.25 * x * x - v - 0.5) * _pbvv(v, x)", source="12.2.4",
     values=("pbvv", 1))
_row("_pbwa", "a x", OPEN, "_pbwa_x(a, x)", source="12.2.3", values=("pbwa", 0))
_row("_pbwa_x", "a x", OPEN, "(a - 0.25 * x * x) * _pbwa(a, x)", source="12.2.3",
     values=("pbwa", 1))

# Exponential integrals and their relatives.

_row("exp1", "x", "-exp(-x) / x", source="6.2.1")
_row("expi", "x", "exp(x) / x", source="6.2.5")
_row("expn", "n x", STEP, "where(n == 0, -y * (1.0 + 1.0 / x), -expn(n - 1, x))", source="8.19.13")
_row("_si", "x", "sinc(x / PI)", source="6.2.9", values=("sici", 0))
_row("_ci", "x", "cos(x) / x", source="6.2.11", values=("sici", 1))
_row("_shi", "x", "hyp0f1(1.5, 0.25 * x * x)", source="6.2.15", values=("shichi", 0))
_row("_chi", "x", "cosh(x) / x", source="6.2.16", values=("shichi", 1))
_row("spence", "x", "-_log_ratio(0, x - 1.0)", source="25.12.2",
     of_complex={0: "log(x) / (1.0 - x)"})
_row("_log_ratio", "n; x", "_log_ratio(n + 1, x)", source="4.6.1, 4.10",
     values=special_values.log_ratio)
_row("_hurwitz", "s q", "_zeta_s(1, s, q)", "-s * zeta(s + 1.0, q)", source="25.11.17",
     values="zeta")
_row("_riemann", "s", "_riemann_s(s)", source="25.2.1, 25.4.1", values="zeta")
_row("zetac", "s", "_riemann_s(s)", source="25.2.1, 25.4.1")
_row("_zeta_s", "n; s q", "_zeta_s(n + 1, s, q)",
     "-s * _zeta_s(n, s + 1.0, q) - n * _zeta_s(n - 1, s + 1.0, q)",
     source="25.11.5 differentiated in s", values=special_values.zeta_s)
_row("_lambertw", "k; x", "exp(-y) / (1.0 + y)", source="4.13.4", values=special_values.lambertw)
_row("_lambertw_of_complex", "k; x", "exp(-y) / (1.0 + y)", source="4.13.4",
     values=special_values.lambertw_of_complex)
_row("wrightomega", "x", "y / (1.0 + y)", source="4.13")

# Elliptic integrals and functions.

_row("ellipk", "m", "0.25 * _carlson(0.5, 0.5, 1.5, 0, 0.0, 1.0, 1.0 - m, 1.0)",
     source="19.25.1, 19.18.1")
_row("ellipkm1", "p", "-0.25 * _carlson(0.5, 0.5, 1.5, 0, 0.0, 1.0, p, 1.0)",
     source="19.25.1, 19.18.1")
_row("ellipe", "m", "-0.25 * _carlson(0.5, 0.5, 1.5, 0, 0.0, 1.0 - m, 1.0, 1.0)",
     source="19.25.1, 19.18.1")
_row("ellipkinc", "u m", "1.0 / sqrt(1.0 - m * square(sin(u)))", "_ellipkinc_m(u, m)",
     source="19.25.5, 19.2.10")
_row("ellipeinc", "u m", "sqrt(1.0 - m * square(sin(u)))", "_ellipeinc_m(u, m)",
     source="19.25.9, 19.2.10")
_row("elliprf", "a b c", "-0.25 * _carlson(1.5, 0.5, 0.5, 0, a, b, c, 1.0)",
     "-0.25 * _carlson(0.5, 1.5, 0.5, 0, a, b, c, 1.0)",
     "-0.25 * _carlson(0.5, 0.5, 1.5, 0, a, b, c, 1.0)", source="19.16.1")
_row("elliprd", "a b c", "-0.75 * _carlson(1.5, 0.5, 1.5, 0, a, b, c, 1.0)",
     "-0.75 * _carlson(0.5, 1.5, 1.5, 0, a, b, c, 1.0)",
     "-2.25 * _carlson(0.5, 0.5, 2.5, 0, a, b, c, 1.0)", source="19.16.5")
_row("elliprg", "a b c", "0.125 * _carlson(1.5, 0.5, 0.5, -1, a, b, c, 0.0)",
     "0.125 * _carlson(0.5, 1.5, 0.5, -1, a, b, c, 0.0)",
     "0.125 * _carlson(0.5, 0.5, 1.5, -1, a, b, c, 0.0)", source="19.16.3")
_row("elliprj", "a b c p", "-0.75 * _carlson(1.5, 0.5, 0.5, 1, a, b, c, p)",
     "-0.75 * _carlson(0.5, 1.5, 0.5, 1, a, b, c, p)",
     "-0.75 * _carlson(0.5, 0.5, 1.5, 1, a, b, c, p)",
     "-1.5 * _carlson(0.5, 0.5, 0.5, 2, a, b, c, p)", source="19.16.2")
_row("elliprc", "a b",
     "where(b < 0.0, 0.5 * (y - 1.0 / sqrt(a)) / (b - a),"
     " -0.25 * _carlson(1.5, 0, 0, 1, a, 1.0, 1.0, b))",
     "where(b < 0.0, -(0.5 * y + 0.5 * a * (y - 1.0 / sqrt(a)) / (b - a)) / b,"
     " -0.5 * _carlson(0.5, 0, 0, 2, a, 1.0, 1.0, b))", source="19.16.6, 19.2.17")
_row("_carlson", "i j k l; a b c p", "-i * _carlson(i + 1, j, k, l, a, b, c, p)",
     "-j * _carlson(i, j + 1, k, l, a, b, c, p)", "-k * _carlson(i, j, k + 1, l, a, b, c, p)",
     "-l * _carlson(i, j, k, l + 1, a, b, c, p)", source="19.16.2, 19.16.9",
     values=special_values.carlson)
_row("_sn", "u m", "_cn(u, m) * _dn(u, m)", "_cn(u, m) * _am_m(u, m)", source="22.13, 22.16.1",
     values=("ellipj", 0))
_row("_cn", "u m", "-_sn(u, m) * _dn(u, m)", "-_sn(u, m) * _am_m(u, m)", source="22.13, 22.16.1",
     values=("ellipj", 1))
_row("_dn", "u m", "-m * _sn(u, m) * _cn(u, m)",
     "-0.5 * _sn(u, m) * (_sn(u, m) + 2.0 * m * _cn(u, m) * _am_m(u, m)) / y",
     source="22.13, 22.16.1", values=("ellipj", 2))
_row("_am", "u m", "_dn(u, m)", "-_dn(u, m) * _ellipkinc_m(y, m)", source="22.16.1",
     values=("ellipj", 3))
_row("agm", "a b", "y * y * a / PI * _carlson(0.5, 0.5, 1.5, 0, 0.0, b * b, a * a, 1.0)",
     "y * y * b / PI * _carlson(0.5, 0.5, 1.5, 0, 0.0, a * a, b * b, 1.0)",
     source="19.8.5, 19.16.1")

# Hypergeometric functions and orthogonal polynomials.

_row("hyp0f1", "v x", OPEN, "hyp0f1(v + 1.0, x) / v", source="16.3.1")
_row("hyp1f1", "a b x", OPEN, OPEN, "a / b * hyp1f1(a + 1.0, b + 1.0, x)", source="13.3.15")
_row("hyp2f1", "a b c x", OPEN, OPEN, OPEN, "a * b / c * hyp2f1(a + 1.0, b + 1.0, c + 1.0, x)",
     source="15.5.1")
_row("hyperu", "a b x", OPEN, OPEN, "-a * hyperu(a + 1.0, b + 1.0, x)", source="13.3.22")
_row("wright_bessel", "a b x", OPEN, OPEN, "wright_bessel(a, a + b, x)", source="10.46.1")
_row("log_wright_bessel", "a b x", OPEN, OPEN, "exp(log_wright_bessel(a, a + b, x) - y)",
     source="10.46.1")
_row("lpmv", "m v x", STEP, OPEN, "(v * x * y - (v + m) * lpmv(m, v - 1.0, x)) / (x * x - 1.0)",
     source="14.10.5")
_row("eval_legendre", "n x", OPEN,
     "where(n == 0, 0.0, 0.5 * (n + 1) * eval_jacobi(n - 1, 1.0, 1.0, x))", source="18.9.15")
_row("eval_jacobi", "n a b x", OPEN, OPEN, OPEN, "where(n == 0, 0.0, 0.5 * (n + a + b + 1.0)"
     " * eval_jacobi(n - 1, a + 1.0, b + 1.0, x))", source="18.9.15")
_row("eval_gegenbauer", "n a x", OPEN, OPEN,
     "where(n == 0, 0.0, 2.0 * a * eval_gegenbauer(n - 1, a + 1.0, x))", source="18.9.19")
_row("eval_chebyt", "n x", OPEN, "where(n == 0, 0.0, n * eval_chebyu(n - 1, x))",
     source="18.9.21")
_row("eval_chebyu", "n x", OPEN, "where(n == 0, 0.0, 2.0 * eval_gegenbauer(n - 1, 2.0, x))",
     source="18.9.19")
_row("eval_chebyc", "n x", OPEN, "where(n == 0, 0.0, n * eval_chebys(n - 1, x))",
     source="18.9.21")
_row("eval_chebys", "n x", OPEN, "where(n == 0, 0.0, eval_gegenbauer(n - 1, 2.0, 0.5 * x))",
     source="18.9.19")
_row("eval_hermite", "n x", STEP, "where(n == 0, 0.0, 2 * n * eval_hermite(n - 1, x))",
     source="18.9.25")
_row("eval_hermitenorm", "n x", STEP, "where(n == 0, 0.0, n * eval_hermitenorm(n - 1, x))",
     source="18.9.27")
_row("eval_laguerre", "n x", OPEN, "where(n == 0, 0.0, -eval_genlaguerre(n - 1, 1.0, x))",
     source="18.9.23")
_row("eval_genlaguerre", "n a x", OPEN, OPEN,
     "where(n == 0, 0.0, -eval_genlaguerre(n - 1, a + 1.0, x))", source="18.9.23")
_row("eval_sh_legendre", "n x", OPEN,
     "where(n == 0, 0.0, (n + 1) * eval_jacobi(n - 1, 1.0, 1.0, 2.0 * x - 1.0))",
     source="18.9.15")
_row("eval_sh_chebyt", "n x", OPEN,
     "where(n == 0, 0.0, 2 * n * eval_chebyu(n - 1, 2.0 * x - 1.0))", source="18.9.21")
_row("eval_sh_chebyu", "n x", OPEN,
     "where(n == 0, 0.0, 4.0 * eval_gegenbauer(n - 1, 2.0, 2.0 * x - 1.0))", source="18.9.19")
_row("eval_sh_jacobi", "n p q x", OPEN, OPEN, OPEN, "where(n == 0, 0.0, (n + p)"
     " * eval_jacobi(n - 1, p - q + 1.0, q, 2.0 * x - 1.0) / binom(2 * n + p - 1.0, n))",
     source="18.9.15")

# SciPy's functions of several results, and the rows of these.
SEVERAL = {
    "fresnel": ("_fresnel_s", "_fresnel_c"),
    "sici": ("_si", "_ci"),
    "shichi": ("_shi", "_chi"),
    "airy": ("_ai", "_aip", "_bi", "_bip"),
    "airye": ("_aie", "_aipe", "_bie", "_bipe"),
    "itairy": ("_itai", "_itbi", "_itai_left", "_itbi_left"),
    "itj0y0": ("_itj0", "_ity0"),
    "iti0k0": ("_iti0", "_itk0"),
    "pbdv": ("_pbdv", "_pbdv_x"),
    "pbvv": ("_pbvv", "_pbvv_x"),
    "pbwa": ("_pbwa", "_pbwa_x"),
    "ellipj": ("_sn", "_cn", "_dn", "_am"),
}
# Rows of the op table, by SciPy's names.
CORE = {
    "erf": "erf",
    "erfc": "erfc",
    "gammaln": "lgamma",
    "digamma": "digamma",
    "psi": "digamma",
    "polygamma": "polygamma",
    "expit": "sigmoid",
    "softplus": "softplus",
    "xlogy": "xlogy",
    "xlog1py": "xlog1py",
    "sinc": "sinc",
    "cbrt": "cbrt",
    "exp2": "exp2",
    "expm1": "expm1",
    "log1p": "log1p",
}
# How far their values are from SciPy's at most: in units of the last place of the value, or of 1
# where the function has zeros that SciPy treats apart.  SciPy's erfc loses in its tail.
ULPS = dict.fromkeys(CORE, 4) | {"erfc": 200, "polygamma": 100}
ULPS_OF_ONE = {"gammaln": 8, "digamma": 8, "psi": 8}
ALIASES = {"jn": "jv"}
# Rows here that stand for rows of the op table where an operand is complex.
OF_COMPLEX = {"digamma": "_psi", "erf": "_erf", "erfc": "_erfc", "xlogy": "_xlogy",
              "xlog1py": "_xlog1py"}


# What formulas above call beside functions, by name: arguments, formula, names in it.
FORMULAS = {
    # fdtr(m, n, x) is betainc(m / 2, n / 2, z)
    "_f_m": ("m n x", "0.5 * _betainc_ab(1, 0, 0.5 * m, 0.5 * n, m * x / s)"
             " + _beta_pdf(0, 0, 0.5 * m, 0.5 * n, m * x / s) * x * n / (s * s)",
             {"s": "n + m * x"}),
    "_f_n": ("m n x", "0.5 * _betainc_ab(0, 1, 0.5 * m, 0.5 * n, m * x / s)"
             " - _beta_pdf(0, 0, 0.5 * m, 0.5 * n, m * x / s) * x * m / (s * s)",
             {"s": "n + m * x"}),
    "_f_x": ("m n x", "_beta_pdf(0, 0, 0.5 * m, 0.5 * n, m * x / s) * m * n / (s * s)",
             {"s": "n + m * x"}),
    # of z = v / (v + t * t) and 1 - z the smaller one is used
    "_student_v": ("v t", "-0.25 * sign(t) * where(t * t > v, outside, inside)"
                   " - 0.5 * t * _student_t(v, t) / v",
                   {"outside": "_betainc_ab(1, 0, 0.5 * v, 0.5, v / (v + t * t))",
                    "inside": "-_betainc_ab(0, 1, 0.5, 0.5 * v, t * t / (v + t * t))"}),
    "_student_t": ("v t", "exp(-0.5 * (v + 1.0) * log1p(t * t / v))"
                   " / (sqrt(v) * beta(0.5 * v, 0.5))", {}),
    # below 0 by reflection
    "_riemann_s": ("s", "where(s < 0.0, 2.0 * power(2.0 * PI, s - 1.0) * gamma(r)"
                   " * (0.5 * PI * cosdg(90.0 * s) * _riemann(r) + sindg(90.0 * s)"
                   " * ((LOG_2PI - digamma(r)) * _riemann(r) - _zeta_s(1, r, 1.0))),"
                   " _zeta_s(1, where(s < 0.0, 2.0, s), 1.0))",
                   {"r": "where(s < 0.0, 1.0 - s, 2.0)"}),
    # u is k half turns and t
    "_ellipkinc_m": ("u m", "0.25 * (sin(t) * square(sin(t)) * _carlson(0.5, 0.5, 1.5, 0,"
                     " square(cos(t)), 1.0, 1.0 - m * square(sin(t)), 1.0)"
                     " + 2.0 * zmul(k, _carlson(0.5, 0.5, 1.5, 0, 0.0, 1.0, 1.0 - m, 1.0)))",
                     {"k": "rint(u / PI)", "t": "u - PI * k"}),
    "_ellipeinc_m": ("u m", "-0.25 * (sin(t) * square(sin(t)) * _carlson(0.5, 0.5, 1.5, 0,"
                     " square(cos(t)), 1.0 - m * square(sin(t)), 1.0, 1.0)"
                     " + 2.0 * zmul(k, _carlson(0.5, 0.5, 1.5, 0, 0.0, 1.0 - m, 1.0, 1.0)))",
                     {"k": "rint(u / PI)", "t": "u - PI * k"}),
    "_am_m": ("u m", "-_dn(u, m) * _ellipkinc_m(_am(u, m), m)", {}),
}


# ---- functions -----------------------------------------------------------------------------------


def _tensors(row, args):
    """The operands of a row; a plain number takes the dtype that it takes in SciPy's function."""
    tensors, weak, others = [], [], []
    for k, a in enumerate(args):
        kind = type(a)
        if kind is float or kind is int or kind is bool:
            weak.append(k)
            a = as_tensor(a)
        else:
            if kind is not Tensor:
                a = as_tensor(a)
            if a.dtype is not _FLOAT64:
                others.append(a.dtype)
        tensors.append(a)
    if weak and others:
        dtypes = _weak_dtypes(row, args, tensors, others)
        for k in weak:
            if tensors[k].dtype != dtypes[k]:
                tensors[k] = _core.astype(tensors[k], dtypes[k])
    return tuple(tensors)


def _weak_dtypes(row, args, tensors, others):
    values = _values_of(row)
    if not isinstance(values, np.ufunc):
        common = np.result_type(*[t.dtype for a, t in zip(args, tensors)
                                  if type(a) not in (int, float, bool)])
        if common.kind != "f":
            common = np.dtype(np.float64)
        return [common] * len(args)
    kinds = [type(a) if type(a) in (int, float) else t.dtype for a, t in zip(args, tensors)]
    try:
        return values.resolve_dtypes((*kinds, *[None] * values.nout))
    except TypeError as error:
        raise TypeError(f"special.{row.name}: {error}") from None


def _refuse_missing(row, tensors):
    """Raise if a tensor requires a derivative that a row does not have."""
    if _core.is_grad_enabled():
        for k in row.missing:
            if tensors[k].requires_grad:
                row.refuse(k, row.missing[k])


# The calls of all rows are generated in one piece; what is called is spelled out, as it is most of
# the cost of a call on small arrays.
_TEMPLATE = """
def {name}({given}, /):
    if {all_tensors}:
        operands = ({operands})
    else:
        operands = _tensors(ROWS["{name}"], ({operands}))
    {refuse_missing}
    try:
        return apply(rule_{name}, operands, {{{orders}}})
    except ERRORS as error:
        raise named(rule_{name}.name, error) from None
"""
_TEMPLATE_OF_SEVERAL = """
def {name}({given}, /):
    return _call_several("{name}", ({given},))
"""


def _call_several(name, args):
    """All results of a function, which is computed once where no program is recorded."""
    rows, values = _SEVERAL_ROWS.get(name) or _rows_of_several(name)
    if _core.is_tracing():
        return tuple([_FUNCTIONS[row.name](*args) for row in rows])
    tensors = _tensors(rows[0], args)
    if rows[0].missing:
        _refuse_missing(rows[0], tensors)
    try:
        results = values(*map(_core.array, tensors))
    except (TypeError, ValueError) as error:
        raise rules.named(f"special.{name}", error) from None
    wrap = _core.wrap
    if not any(t.requires_grad for t in tensors):
        return tuple([wrap(y, copy=False) for y in results])
    record_custom = _core.record_custom
    return tuple([record_custom(row.rule, tensors, wrap(y, copy=False), {})
                  for row, y in zip(rows, results)])


def _rows_of_several(name):
    rows = [ROWS[part] for part in SEVERAL[name]]
    found = _SEVERAL_ROWS[name] = rows, _scipy_special(name)
    return found


_SEVERAL_ROWS: dict[str, tuple] = {}


def _functions():
    """The functions of all rows, by name."""
    source, doc = [], {}
    made = {
        "ERRORS": (TypeError, ValueError, IndexError),
        "ROWS": ROWS,
        "Tensor": Tensor,
        "__name__": __name__,
        "_call_several": _call_several,
        "_refuse_missing": _refuse_missing,
        "_tensors": _tensors,
        "apply": _core.apply,
        "named": rules.named,
    }
    for name, row in ROWS.items():
        given = ", ".join([*row.orders, *row.arguments])
        made[f"rule_{name}"] = row.rule
        source.append(_TEMPLATE.format(
            name=name,
            given=given,
            operands="".join([f"{a}, " for a in row.arguments]),
            all_tensors=" and ".join([f"type({a}) is Tensor" for a in row.arguments]),
            refuse_missing=f'_refuse_missing(ROWS["{name}"], operands)' if row.missing else "",
            orders=", ".join([f"'{a}': {a}" for a in row.orders]),
        ))
        doc[name] = _doc(name, f"{name}({given})", [row])
    for name, parts in SEVERAL.items():
        given = ", ".join(ROWS[parts[0]].arguments)
        source.append(_TEMPLATE_OF_SEVERAL.format(name=name, given=given))
        doc[name] = _doc(name, f"{name}({given})", [ROWS[part] for part in parts])
    exec(compile("".join(source), "<fastad.special>", "exec"), made)
    functions = {name: made[name] for name in doc}
    for name, function in functions.items():
        function.__doc__ = doc[name]
    functions |= {name: functions[of] for name, of in ALIASES.items()}
    return functions | {name: _core.elementwise[of] for name, of in CORE.items()}


def formulas(rows):
    """Lines that state the derivatives of rows: of a function, or of its several results."""
    lines = []
    for place, row in enumerate(rows):
        y = "y" if len(rows) == 1 else f"y[{place}]"
        for k, (argument, partial) in enumerate(zip(row.arguments, row.partials)):
            if k in row.missing:
                lines.append(f"{argument} {partial}")
            else:
                lines.append(f"d{y}/d{argument} = {partial}")
            of_complex = row.of_complex.get(k, NOT_HOLOMORPHIC)
            if of_complex != NOT_HOLOMORPHIC:
                lines.append(f"d{y}/d{argument} = {of_complex} for complex numbers")
        lines += [f"{name} = {part}" for name, part in row.let.items()]
    return list(dict.fromkeys(lines))


def _doc(name, call, rows):
    if name.startswith("_"):
        return None
    text = "\n".join([f"    {line}" for line in formulas(rows)])
    sources = "; ".join(dict.fromkeys([row.source for row in rows]))
    return (f"Return ``scipy.special.{call}``, elementwise and with derivatives.\n\n"
            f"With ``y`` the result::\n\n{text}\n\nSource: {sources}.\n")


_FUNCTIONS = _functions()
globals().update(_FUNCTIONS)


def zeta(x, q=None) -> Tensor:
    """Return Hurwitz's zeta function, Riemann's where `q` is not given.

    The derivative in `x` is Euler and Maclaurin's formula differentiated (DLMF 25.11.5), below 0
    by reflection (25.4.1); the one in `q` is ``-x zeta(x + 1, q)`` (25.11.17).

    Examples
    --------
    >>> import fastad as ad
    >>> s = ad.tensor(2.0, requires_grad=True)
    >>> ad.special.zeta(s).backward()
    >>> round(s.grad.item(), 6)
    -0.937548
    """
    return _FUNCTIONS["_riemann"](x) if q is None else _FUNCTIONS["_hurwitz"](x, q)


def lambertw(z, k=0) -> Tensor:
    """Return Lambert's W on branch `k`: of complex tensors as SciPy does, of real ones real values.

    Real values are on branches 0 and -1, and nan where there are none; SciPy's results are complex
    also then.  With ``y`` the result the derivative is ``exp(-y) / (1 + y)`` (DLMF 4.13.4).

    Raises
    ------
    ValueError
        If `z` is real and `k` neither 0 nor -1.

    Examples
    --------
    >>> import fastad as ad
    >>> round(ad.special.lambertw(1.0).item(), 6)
    0.567143
    """
    z = as_tensor(z)
    if z.dtype.kind == "c":
        return _FUNCTIONS["_lambertw_of_complex"](int(k), z)
    if k not in (0, -1):
        raise ValueError(f"special.lambertw: real values are on the branches 0 and -1, got {k}")
    return _FUNCTIONS["_lambertw"](int(k), z)


def multigammaln(a, d) -> Tensor:
    """Return the logarithm of the multivariate gamma function of dimension `d`.

    It is ``d (d - 1) / 4 log(pi)`` plus the sum of ``gammaln(a - j / 2)`` for j from 0 to d - 1
    (DLMF 35.3.4), and so is its derivative.

    Raises
    ------
    ValueError
        If `d` is not a positive integer or an element of `a` is not larger than (d - 1) / 2.

    Examples
    --------
    >>> import fastad as ad
    >>> round(ad.special.multigammaln(3.0, 2).item(), 6)
    1.550195
    """
    if d != int(d) or d < 1:
        raise ValueError(f"special.multigammaln: d is a positive integer, got {d}")
    a = as_tensor(a)
    low = a <= 0.5 * (d - 1)
    if bool(low if not a.ndim else _core.array(low).any()):
        raise ValueError(f"special.multigammaln: a must be larger than (d - 1) / 2 = {(d - 1) / 2}")
    y = 0.25 * d * (d - 1) * math.log(PI)
    for j in range(int(d)):
        y = y + _lgamma(a - 0.5 * j)
    return y


# Functions over axes.


def _over(t, axis):
    """A reduction's axis as a tuple of axes that are not negative, or None."""
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    for k in axes:
        if not -t.ndim <= k < t.ndim:
            raise np.exceptions.AxisError(k, t.ndim)
    return tuple([k % t.ndim for k in axes])


@rules.primitive("special.softmax", reads_output=True)
class SOFTMAX:
    def forward(x, axis):
        y = np.exp(x - np.max(x, axis, keepdims=True))
        return y / np.sum(y, axis, keepdims=True)

    def vjp(g, y, inputs, needs, axis):
        part = zmul(g, y)
        return (part - y * _core.sum(part, axis, True),)

    def jvp(tangents, y, inputs, axis):
        return SOFTMAX.vjp(tangents[0], y, inputs, None, axis)[0]


@rules.primitive("special.log_softmax", reads_output=True)
class LOG_SOFTMAX:
    def forward(x, axis):
        top = np.max(x, axis, keepdims=True)
        x = x - np.where(np.isfinite(top), top, 0.0)
        return x - np.log(np.sum(np.exp(x), axis, keepdims=True))

    def vjp(g, y, inputs, needs, axis):
        return (g - _exp(y) * _core.sum(g, axis, True),)

    def jvp(tangents, y, inputs, axis):
        v = tangents[0]
        return v - _core.sum(zmul(v, _exp(y)), axis, True)


@rules.primitive("special.logsumexp", reads_inputs=True, reads_output=True)
class LOGSUMEXP:
    """``log(abs(sum(b exp(a))))``; `b` may be left away."""

    def forward(a, b=None, *, axis, keepdims):
        return special_values.logsumexp(a, b, axis, keepdims)

    def vjp(g, y, inputs, needs, axis, keepdims):
        a, b = inputs if len(inputs) == 2 else (inputs[0], None)
        g = rules.spread(g, a.shape, axis)
        weights, each = _parts(y, a, b, axis)
        bars = [zmul(g, weights)]
        if b is not None:
            bars.append(_core.sum_to(zmul(g, each), b.shape))
        return tuple(bars)

    def jvp(tangents, y, inputs, axis, keepdims):
        a, b = inputs if len(inputs) == 2 else (inputs[0], None)
        terms = None
        for tangent, part in zip(tangents, _parts(y, a, b, axis)):
            if tangent is not None:
                term = zmul(tangent, part)
                terms = term if terms is None else terms + term
        return None if terms is None else _core.sum(_core.broadcast_to(terms, a.shape), axis,
                                                    keepdims)


@rules.primitive("special.sign_of_sum")
class SIGN_OF_SUM:
    """``sign(sum(b exp(a)))``, a step."""

    def forward(a, b=None, *, axis, keepdims):
        return special_values.logsumexp(a, b, axis, keepdims, sign=True)

    def vjp(g, y, inputs, needs, axis, keepdims):
        return (None,) * len(inputs)

    def jvp(tangents, y, inputs, axis, keepdims):
        return None


def _parts(y, a, b, axis):
    """The derivatives of ``logsumexp`` in `a` and in `b`, of the shape of `a`."""
    if b is None:
        return softmax(a, axis), None       # better than exp(a - y) where y is large
    each = _exp(a - rules.spread(y, a.shape, axis))
    weights = where(b == 0.0, 0.0, b * each)
    s = _sign(_core.sum(weights, axis, True))
    return s * weights, s * each


def _floating(name, a):
    t = as_tensor(a)
    if t.dtype.kind == "c":
        raise TypeError(f"special.{name}: not defined for complex numbers here")
    return _core.astype(t, np.float64) if t.dtype.kind in "iub" else t


def softmax(x, axis=None) -> Tensor:
    """Return ``exp(x) / sum(exp(x))`` over an axis, a tuple of axes, or all of them.

    With ``y`` the result, a cotangent g is pulled back to ``y (g - sum(g y))``.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.special.softmax(ad.tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    t = _floating("softmax", x)
    return record(SOFTMAX, (t,), {"axis": _over(t, axis)})


def log_softmax(x, axis=None) -> Tensor:
    """Return the logarithm of ``softmax(x, axis)``, without its underflow.

    With ``y`` the result, a cotangent g is pulled back to ``g - exp(y) sum(g)``.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.special.log_softmax(ad.tensor([0.0, 1000.0])).tolist()
    [-1000.0, 0.0]
    """
    t = _floating("log_softmax", x)
    return record(LOG_SOFTMAX, (t,), {"axis": _over(t, axis)})


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    """Return ``log(sum(b exp(a)))`` over an axis, a tuple of axes, or all of them.

    With `return_sign`, also the sign of the sum, which has no derivative; the first result is
    then the logarithm of its absolute value.  Without it a negative sum gives nan.

    With ``y`` the result and s the sign, the derivatives in a and b are ``s b exp(a - y)`` and
    ``s exp(a - y)``.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1000.0, 1000.0], requires_grad=True)
    >>> ad.special.logsumexp(x).backward()
    >>> x.grad.tolist()
    [0.5, 0.5]
    """
    a = _floating("logsumexp", a)
    inputs = [a]
    if b is not None:
        inputs.append(_floating("logsumexp", b))
        dtype = np.result_type(*[t.dtype for t in inputs])
        inputs = [t if t.dtype == dtype else _core.astype(t, dtype) for t in inputs]
        shape = np.broadcast_shapes(*[t.shape for t in inputs])
        if a.shape != shape:
            inputs[0] = _core.broadcast_to(inputs[0], shape)
    a = inputs[0]
    axes = _over(a, axis)
    y = record(LOGSUMEXP, tuple(inputs), {"axis": axes, "keepdims": bool(keepdims)})
    if b is None and not return_sign:
        return y
    s = record(SIGN_OF_SUM, tuple(inputs), {"axis": axes, "keepdims": bool(keepdims)})
    return (y, s) if return_sign else where(s < 0.0, np.nan, y)


_OWN = "zeta lambertw multigammaln softmax log_softmax logsumexp".split()
__all__ = sorted([*[name for name in _FUNCTIONS if not name.startswith("_")], *_OWN])

_IN_FORMULAS = (
    "clip cos cosh exp fabs floor hypot log log1p power relu rint sign sin sqrt square where zmul"
).split()
FORMULA_NAMES |= {name: _core.elementwise[name] for name in _IN_FORMULAS}
FORMULA_NAMES |= {name: v for name, v in globals().items() if isinstance(v, float)}
FORMULA_NAMES |= _FUNCTIONS | {"zeta": zeta}
FORMULA_NAMES |= {name: compiled(names.split(), text, let)
                  for name, (names, text, let) in FORMULAS.items()}


def of_complex(name):
    """The function that stands for a row of the op table over complex operands."""
    return _FUNCTIONS[OF_COMPLEX[name]]


def of_ufunc(ufunc):
    """The function here that stands for a ufunc of ``scipy.special``, or None."""
    return _FUNCTIONS.get(ufunc.__name__)
