"""What SciPy lacks for the derivatives of special functions, on NumPy arrays.

Each function here is the derivative of a special function, of orders that keyword arguments give:
in a parameter (the order of a Bessel function, the shape of an incomplete gamma function), or in
the argument where the formula over SciPy's functions would cancel.  They are sums of positive
terms and integrals of one sign, as far as the mathematics allows, so that small results are as
good as large ones.  Sections named in docstrings are those of the DLMF, https://dlmf.nist.gov.
"""

from __future__ import annotations

import functools
from math import comb as _comb
from math import factorial as _factorial

import numpy as np

_NODES, _WEIGHTS = None, None
_AT_ONCE = 256          # elements
_POINTS = 1 << 17       # points of an integral, over all elements
_FAR = 50.0             # what is exp(-50) of the largest is left away
_LONGEST = 1e6          # periods of an integrand, or terms of a series


def pointwise(function, kind=np.float64):
    """Make a function of vectors in double precision one of arrays, in the dtype of these."""

    @functools.wraps(function)
    def broadcast(*arrays, **orders):
        dtype = np.result_type(*arrays)
        if dtype.kind == "c" and kind is np.float64:
            raise TypeError("this derivative is not known for complex numbers")
        if dtype.kind in "iub":
            dtype = np.dtype(kind)
        arrays = [np.asarray(a, kind) for a in arrays]
        shape = arrays[0].shape
        if any(a.shape != shape for a in arrays):
            shape = np.broadcast_shapes(*[a.shape for a in arrays])
            arrays = [np.broadcast_to(a, shape) for a in arrays]
        flat = [a.ravel() for a in arrays]
        y = np.empty(flat[0].size, kind)
        with np.errstate(all="ignore"):
            if 0 < y.size <= _AT_ONCE:
                return function(*flat, **orders).reshape(shape).astype(dtype, copy=False)
            for k in range(0, y.size, _AT_ONCE):
                part = slice(k, k + _AT_ONCE)
                y[part] = function(*[a[part] for a in flat], **orders)
            return y.reshape(shape).astype(dtype, copy=False)

    return broadcast


def _special():
    import scipy.special

    return scipy.special


def _piecewise(shape, *pairs):
    """Return a vector that is ``f(mask)`` where the mask holds, and nan where none does.

    The first mask that holds counts.
    """
    y = np.full(shape, np.nan)
    left = np.ones(shape, bool)
    for mask, f in pairs:
        mask = mask & left
        if mask.any():
            y[mask] = f(mask)
            left &= ~mask
    return y


def _gauss():
    global _NODES, _WEIGHTS
    if _NODES is None:
        x, w = np.polynomial.legendre.leggauss(24)
        _NODES, _WEIGHTS = (x + 1.0) / 2.0, w / 2.0
    return _NODES, _WEIGHTS


def integral(f, a, b, unit):
    """Return the integrals of ``f(points)`` from `a` to `b`, all vectors of one length.

    Gauss and Legendre's rule of 24 points on panels no longer than `unit`.
    """
    nodes, weights = _gauss()
    span = np.max((b - a) / unit)
    panels = max(1, int(np.ceil(span))) if np.isfinite(span) else 1
    width = (b - a) / panels
    step = max(1, _POINTS // (24 * len(a)))
    total = np.zeros(len(a))
    for first in range(0, panels, step):
        k = np.arange(first, min(first + step, panels))
        places = (k[:, None] + nodes).ravel()
        y = f(a[:, None] + width[:, None] * places)
        total += (y * np.tile(weights, len(k))).sum(-1)
    return total * width


def _bell(g):
    """Return ``exp(-g) D exp(g)`` for the highest of the derivatives `g` of g (1st, 2nd, ...)."""
    d = [1.0]
    for m in range(len(g)):
        d.append(sum(_comb(m, k) * g[k] * d[m - k] for k in range(m + 1)))
    return d[-1]


def _bell2(i, j, g):
    """As `_bell` in two variables; ``g(k, l)`` is a mixed derivative."""
    d = {(0, 0): 1.0}
    for total in range(1, i + j + 1):
        for p in range(max(0, total - j), min(i, total) + 1):
            q = total - p
            one = p > 0
            p0, q0 = (p - 1, q) if one else (p, q - 1)
            d[p, q] = sum(
                _comb(p0, k) * _comb(q0, m) * d[p0 - k, q0 - m]
                * (g(k + 1, m) if one else g(k, m + 1))
                for k in range(p0 + 1) for m in range(q0 + 1)
            )
    return d[i, j]


def _sinpi(v, k=0):
    """The k-th derivative of ``sin(pi v)``."""
    r = np.remainder(v, 2.0)
    s, c = _special().sindg(180.0 * r), _special().cosdg(180.0 * r)
    return np.pi**k * (s, c, -s, -c)[k % 4]


def _product(n, f, g):
    """The n-th derivative of a product; ``f(k)`` and ``g(k)`` are the k-th of its factors."""
    return sum(_comb(n, k) * f(k) * g(n - k) for k in range(n + 1))


# Gamma functions.

# The Bernoulli numbers B(2), B(4), ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
              43867 / 798, -174611 / 330, 854513 / 138, -236364091 / 2730)


@pointwise
def psi_step(x, h, n):
    """``polygamma(n, x + h) - polygamma(n, x)``, term by term of 5.15.1 and 5.15.8.

    Each term is a power of x, whose step has no cancellation where x and x + h are positive.
    """

    def positive(m):
        z, dz, p = x[m], h[m], n + 1

        def step(z, p):         # (z + dz)**-p - z**-p, for p = 0 minus that of log(z)
            up = np.log1p(dz / z)
            return -up if p == 0 else z**-p * np.expm1(-p * up)

        y = np.zeros_like(z)
        for k in range(16):
            y = y + step(z + k, p)
        z = z + 16.0
        y = y + (step(z, n) / n if n else step(z, 0)) + 0.5 * step(z, p)
        rising = float(p)
        for j, b in enumerate(_BERNOULLI, 1):
            y = y + b / _factorial(2 * j) * rising * step(z, p + 2 * j - 1)
            rising *= (p + 2 * j - 1) * (p + 2 * j)
        return y * _factorial(n) * (-1) ** (n + 1)

    def plain(m):
        return _special().polygamma(n, x[m] + h[m]) - _special().polygamma(n, x[m])

    return _piecewise(x.shape, ((x > 0.0) & (x + h > 0.0), positive), (x == x, plain))


# Incomplete gamma functions.


def _stirling_rest(a):
    """``log(gamma(a)) - ((a - 1/2) log(a) - a + log(2 pi) / 2)``, 5.11.1."""
    w = 1.0 / (a * a)
    series = ((((-691.0 / 360360.0 * w + 1.0 / 1188.0) * w - 1.0 / 1680.0) * w + 1.0 / 1260.0)
              * w - 1.0 / 360.0) * w + 1.0 / 12.0
    direct = _special().gammaln(a) - (a - 0.5) * np.log(a) + a - 0.5 * np.log(2.0 * np.pi)
    return np.where(a > 15.0, series / a, direct)


def _log_ratio(u, ratio):
    """``log(1 + u) - u`` where ``ratio`` is 1 + u."""
    return np.where(np.abs(u) < 0.5, np.log1p(u), np.log(ratio)) - u


def _log_gamma_kernel(a, x):
    """``log(x**a exp(-x) / gamma(a))``, without the cancellation of its large terms."""
    u = (x - a) / a
    return a * _log_ratio(u, x / a) - _stirling_rest(a) + 0.5 * np.log(a / (2.0 * np.pi))


def _digamma_rest(a):
    """``log(a) - digamma(a)``, 5.11.2."""
    w = 1.0 / (a * a)
    series = ((((-691.0 / 32760.0 * w + 1.0 / 132.0) * w - 1.0 / 240.0) * w + 1.0 / 252.0)
              * w - 1.0 / 120.0) * w + 1.0 / 12.0
    return np.where(a > 15.0, 0.5 / a + series * w, np.log(a) - _special().psi(a))


def _gamma_bell(n, a):
    """Return the function of log(t / a) that the n-th derivative in `a` multiplies a density by."""
    psi = [-_digamma_rest(a) if k == 0 else _special().polygamma(k, a) for k in range(n)]

    def bell(log_t):
        if not n:
            return 1.0
        rest = [-p.reshape(p.shape + (1,) * (log_t.ndim - 1)) for p in psi]
        return _bell([log_t + rest[0], *rest[1:]])

    return bell


@pointwise
def gamma_pdf(a, x, n):
    """The n-th derivative in `a` of ``x**(a - 1) exp(-x) / gamma(a)``."""
    if n < 0:
        return np.zeros_like(x)

    def inside(m):
        bell = _gamma_bell(n, a[m])(np.log(x[m] / a[m]))
        return np.exp(_log_gamma_kernel(a[m], x[m])) / x[m] * bell

    if ((a > 0.0) & (x > 0.0) & (x < np.inf)).all():
        return inside(slice(None))
    at_zero = x == 0.0
    return _piecewise(
        x.shape,
        (~(a > 0.0) | np.isnan(x) | (x < 0.0), lambda m: np.nan),
        (x == np.inf, lambda m: 0.0),
        (at_zero & (a > 1.0), lambda m: 0.0),
        (at_zero & (a == 1.0) & (n == 0), lambda m: 1.0),
        (at_zero, lambda m: np.inf * (-1) ** n),
        (a > 0.0, inside),
    )


@pointwise
def gammainc_a(a, x, n):
    """The n-th derivative of ``gammainc(a, x)`` in `a`.

    The integrals 8.2.1 and 8.2.2 under the sign of which `a` is differentiated; of the two the
    one in which the first derivative's integrand does not change its sign.
    """

    def lower(m):               # t = x exp(-u), u = exp(w) - 1
        bell, log_x, al, xl = _gamma_bell(n, a[m]), np.log(x[m] / a[m]), a[m, None], x[m, None]

        def f(w):
            u = np.expm1(w)
            return np.exp(-al * u - xl * np.expm1(-u) + w) * bell(log_x[:, None] - u)

        al1 = a[m]
        slope = np.maximum(al1 - x[m], 1e-300)          # the exponent falls by that at least
        far = np.where(al1 > 3.0 * _FAR, np.sqrt(3.0 * _FAR / al1),
                       _FAR / al1 + np.sqrt(2.0 * _FAR / al1) + 1.0)
        far = np.minimum(far, _FAR / slope)
        unit = np.minimum(np.minimum(1.0, 5.0 / np.sqrt(al1)), 12.0 / slope)
        whole = integral(f, np.zeros_like(al1), np.log1p(far), unit)
        return np.exp(_log_gamma_kernel(al1, x[m])) * whole

    def upper(m):               # t = x exp(u)
        bell, log_x, al, xl = _gamma_bell(n, a[m]), np.log(x[m] / a[m]), a[m, None], x[m, None]

        def f(u):
            return np.exp(al * u - xl * np.expm1(u)) * bell(log_x[:, None] + u)

        c = 1.2 * _FAR / x[m]
        slope = np.maximum(x[m] - a[m], 1e-300)
        far = np.minimum(np.sqrt(2.0 * c), np.log1p(c + np.log1p(c) + 2.0))
        far = np.minimum(far, _FAR / slope)
        unit = np.minimum(np.minimum(1.0, 5.0 / np.sqrt(x[m])), 12.0 / slope)
        whole = integral(f, np.zeros_like(c), far, unit)
        return -np.exp(_log_gamma_kernel(a[m], x[m])) * whole

    good = (a > 0.0) & (x > 0.0) & (a < np.inf)
    return _piecewise(
        x.shape,
        (good & (x == np.inf) | (good | (a > 0.0)) & (x == 0.0), lambda m: 0.0),
        (good & (np.log(x) < _special().psi(a)), lower),
        (good, upper),
    )


# Incomplete beta functions.


def _log_beta_kernel(a, b, x, y):
    """``log(x**a y**b / beta(a, b))`` where ``x + y = 1``."""
    z, s = b * x - a * y, a + b
    main = a * _log_ratio(z / a, s * x / a) + b * _log_ratio(-z / b, s * y / b)
    rest = _stirling_rest(s) - _stirling_rest(a) - _stirling_rest(b)
    return main + rest + 0.5 * np.log(a / s * b / (2.0 * np.pi))


def _beta_bell(i, j, a, b):
    """Return the function of log(t), log(1 - t) that derivatives multiply the density by."""
    psi = _special().polygamma
    high = range(i + j)
    pa, pb, ps = ([psi(k, v) for k in high] for v in (a, b, a + b))
    # digamma(a + b) - digamma(a) and the same with b
    rest = _digamma_rest(a + b)
    to_a = np.log1p(b / a) + _digamma_rest(a) - rest
    to_b = np.log1p(a / b) + _digamma_rest(b) - rest

    def bell(log_t, log_rest):
        def g(k, m):
            both = ps[k + m - 1]
            if m == 0:
                both = both - pa[k - 1] if k > 1 else to_a
            elif k == 0:
                both = both - pb[m - 1] if m > 1 else to_b
            both = both.reshape(both.shape + (1,) * (log_t.ndim - 1))
            return both + (log_t if (k, m) == (1, 0) else log_rest if (k, m) == (0, 1) else 0.0)

        return _bell2(i, j, g)

    return bell


@pointwise
def beta_pdf(a, b, x, i, j):
    """Derivatives in `a` and `b` of ``x**(a - 1) (1 - x)**(b - 1) / beta(a, b)``."""
    if i < 0 or j < 0:
        return np.zeros_like(x)

    def inside(m):
        u, v = a[m], b[m]
        t, rest = x[m], 1.0 - x[m]
        bell = _beta_bell(i, j, u, v)(np.log(t), np.log1p(-t))
        return np.exp(_log_beta_kernel(u, v, t, rest)) / t / rest * bell

    good = (a > 0.0) & (b > 0.0)
    if (good & (x > 0.0) & (x < 1.0)).all():
        return inside(slice(None))
    first, last = good & (x == 0.0), good & (x == 1.0)
    return _piecewise(
        x.shape,
        (first & (a > 1.0) | last & (b > 1.0), lambda m: 0.0),
        (first & (a == 1.0) & (i + j == 0), lambda m: b[m]),
        (last & (b == 1.0) & (i + j == 0), lambda m: a[m]),
        ((first | last) & (i + j == 0), lambda m: np.inf),
        (good & (x > 0.0) & (x < 1.0), inside),
    )


def _beta_lower(i, j, a, b, x, y, log_x, log_y):
    """Integrate from 0 to x: t = x exp(-u), u = d (exp(w) - 1)."""
    bell = _beta_bell(i, j, a, b)
    d = np.minimum(1.0, -log_x)
    al, bl, dl = a[:, None], b[:, None], d[:, None]
    lx, ly = log_x[:, None], log_y[:, None]

    def f(w):
        u = dl * np.expm1(w)
        log_rest = np.log(-np.expm1(lx - u))
        return np.exp(-al * u + (bl - 1.0) * (log_rest - ly) + w) * bell(lx - u, log_rest)

    far = (_FAR - np.maximum(b - 1.0, 0.0) * log_y) / a
    unit = np.minimum(1.0, 5.0 / np.sqrt(a * d + b * np.minimum(1.0, x / y)))
    # for b >= 1 the exponent falls at least by its slope at 0, and by a + b - 1 times the relative
    # entropy of x and t, which is more than (x - t)**2 / (2 x)
    slope = np.where(b >= 1.0, np.maximum(a - (b - 1.0) * x / y, 1e-300), 1e-300)
    far, unit = np.minimum(far, _FAR / slope), np.minimum(unit, 12.0 / (slope * d))
    drop = np.sqrt(np.where(b >= 1.0, np.minimum(2.4 * _FAR / ((a + b - 1.0) * x), 1.0), 1.0))
    far = np.minimum(far, -np.log1p(-drop))
    whole = d * integral(f, np.zeros_like(a), np.log1p(far / d), unit)
    return np.exp(_log_beta_kernel(a, b, x, y)) / y * whole


@pointwise
def betainc_ab(a, b, x, i, j):
    """Derivatives of ``betainc(a, b, x)``, i times in `a`, j times in `b`.

    The integral 8.17.1 under which the parameters are differentiated, from 0 to x or, with the
    other sign, from x to 1: so that the first derivative's integrand does not change its sign.
    """
    psi = _special().psi
    log_x, log_y = np.log(x), np.log1p(-x)
    below = log_x < psi(a) - psi(a + b) if i else log_y > psi(b) - psi(a + b)

    def lower(m):
        return _beta_lower(i, j, a[m], b[m], x[m], 1.0 - x[m], log_x[m], log_y[m])

    def upper(m):
        return -_beta_lower(j, i, b[m], a[m], 1.0 - x[m], x[m], log_y[m], log_x[m])

    good = (a > 0.0) & (b > 0.0) & (a < np.inf) & (b < np.inf)
    return _piecewise(
        x.shape,
        (good & ((x == 0.0) | (x == 1.0)), lambda m: 0.0),
        (good & (x > 0.0) & (x < 1.0) & below, lower),
        (good & (x > 0.0) & (x < 1.0), upper),
    )


# Bessel functions: derivatives in the order.


@pointwise
def kve_v(v, x, i, j):
    """Derivatives of ``kve(v, x)``, i times in `v`, j times in `x`, by the integral 10.32.9."""

    def inside(m):
        w, z = np.abs(v[m]), x[m]
        r, peak = np.hypot(w, z), np.arcsinh(w / z)
        left = np.maximum(peak - _FAR / r - np.sqrt(2.0 * _FAR / r), 0.0)
        right = peak + np.arccosh(1.0 + _FAR / r)
        top = (w * peak - z * (np.cosh(peak) - 1.0))[:, None]
        wl, zl = w[:, None], z[:, None]
        sign = -1.0 if i % 2 else 1.0

        def f(t):
            half = 2.0 * np.sinh(0.5 * t) ** 2          # cosh(t) - 1
            y = np.exp(wl * t - zl * half - top) * (1.0 + sign * np.exp(-2.0 * wl * t))
            return 0.5 * t**i * (-half) ** j * y

        unit = np.minimum(1.0, 5.0 / np.sqrt(r))
        y = np.exp(top[:, 0]) * integral(f, left, right, unit)
        return np.where(v[m] < 0.0, sign * y, y)

    def recurrence(m):          # 10.29.1
        return _special().kve(v[m], x[m]) - 0.5 * (
            _special().kve(v[m] - 1.0, x[m]) + _special().kve(v[m] + 1.0, x[m]))

    return _piecewise(
        x.shape,
        (np.isnan(v) | np.isnan(x) | (x < 0.0) | np.isinf(v), lambda m: np.nan),
        (x == np.inf, lambda m: 0.0),
        ((i == 0) & (j == 1) & (x < 20.0), recurrence),
        (x > 0.0, inside),
    )


def _mean_of_series(n, v, x, sign):
    """Derivatives of the series 10.2.2 or 10.25.2 for v >= 0, relative to the function itself."""
    peak = 0.5 * np.max(np.hypot(v, x) - v)
    k = np.arange(int(peak + 12.0 * np.sqrt(peak + 1.0)) + 30, dtype=float)
    half = np.log(0.5 * x)[:, None]
    order = v[:, None] + k
    steps = 2.0 * half - np.log(k[1:]) - np.log(order[:, 1:])
    size = np.concatenate((np.zeros((len(v), 1)), np.cumsum(steps, -1)), -1)
    terms = np.exp(size - size.max(-1, keepdims=True)) * sign**k
    psi = [_special().polygamma(q, order + 1.0) for q in range(n)]
    g = [half - psi[0], *[-p for p in psi[1:]]] if n else []
    return (terms * _bell(g)).sum(-1) / terms.sum(-1)


def _ive_arc(i, j, v, x):
    """Derivatives of ``ive(v, x)`` for x much larger than v, by the integral 10.32.4."""
    vl, xl = v[:, None], x[:, None]

    def f(t):
        fall = 2.0 * np.sin(0.5 * t) ** 2               # 1 - cos(t)
        return np.exp(-xl * fall) * t**i * (-fall) ** j * np.cos(vl * t + 0.5 * np.pi * i)

    far = np.arccos(1.0 - np.minimum(_FAR / x, 2.0))
    unit = np.minimum(5.0 / np.sqrt(x), 6.0 / (np.abs(v) + 1.0))
    return integral(f, np.zeros_like(x), far, unit) / np.pi     # the rest is less than exp(-2 x)


def _ive_v(i, v, x):
    """The i-th derivative of ``ive(v, x)`` in v, for x > 0 that is not much larger than v."""
    def series(m):
        return _special().ive(v[m], x[m]) * _mean_of_series(i, v[m], x[m], 1.0)

    def negative(m):            # 10.27.2
        w, z = -v[m], x[m]
        part = _product(i, lambda k: _sinpi(w, k), lambda k: kve_v(w, z, i=k, j=0))
        return (_ive_v(i, w, z) + 2.0 / np.pi * np.exp(-2.0 * z) * part) * (-1) ** i

    if not i:
        return _special().ive(v, x)
    near = np.hypot(v, x) - np.abs(v) < 0.1 * _LONGEST
    return _piecewise(x.shape, (near & (v >= 0.0), series), (near & (v < 0.0), negative))


@pointwise
def ive_v(v, x, i, j):
    """Derivatives of ``ive(v, x)``, i times in `v`, j times in `x`.

    The series 10.25.2 differentiated in v, with the recurrence 10.29.1 for x, or the integral
    10.32.4 where x is large; nan where the series would have more than a hundred thousand terms.
    For x < 0 the order must be an integer and `i` 0.
    """
    size = np.abs(x)

    def recurrence(m):          # (ive(v - 1) + ive(v + 1)) / 2 - ive(v), taken j times
        w, z = v[m], size[m]
        y = np.zeros_like(z)
        for p in range(j + 1):
            for q in range(p + 1):
                c = _comb(j, p) * _comb(p, q) * (-1) ** (j - p) * 0.5**p
                y = y + c * _ive_v(i, w + (p - 2 * q), z)
        return y

    whole = v == np.rint(v)
    y = _piecewise(
        x.shape,
        (np.isnan(x) | ~np.isfinite(v) | (x < 0.0) & ((i > 0) | ~whole), lambda m: np.nan),
        (size == np.inf, lambda m: 0.0),
        ((x == 0.0) & (i > 0), lambda m: np.where(v[m] > j, 0.0, np.nan)),
        ((size >= 40.0) & (v * v <= np.where(size < 1e3, 2.0, 8.0) * size),
         lambda m: _ive_arc(i, j, v[m], size[m])),
        (size >= 0.0, recurrence),
    )
    mirrored = np.where(np.remainder(v + j, 2.0) == 0.0, y, -y)
    # at the kink the middle of the two slopes
    return np.where(x < 0.0, mirrored, np.where((x == 0.0) & whole, 0.5 * (y + mirrored), y))


def _after_peak(n, v, x, rise):
    """The integral over t > 0 of ``t**n exp(rise v t - x sinh(t))``, rise 1 or -1, for v >= 0."""
    w = rise * v
    peak = np.arccosh(np.maximum(w / x, 1.0))
    bend = np.sqrt(np.maximum(w - x, 0.0) * (v + x))        # minus the second derivative there
    top = w * peak - x * np.sinh(peak)
    # right of the peak the exponent falls by bend (cosh(s) - 1) or (x - w) s, and by
    # max(x, w) (sinh(s) - s), which is more than s**3 / 6
    c = _FAR / np.maximum(x, w)
    fall = np.minimum(np.arcsinh(c + np.log1p(2.0 * c) + 1.0), np.cbrt(6.0 * c))
    fall = np.minimum(fall, np.arccosh(1.0 + _FAR / bend))
    fall = np.minimum(fall, _FAR / np.maximum(x - w, 1e-300))
    left = np.maximum(peak - 2.0 * _FAR / bend - np.sqrt(2.0 * _FAR / bend), 0.0)
    wl, xl, topl = w[:, None], x[:, None], top[:, None]

    def f(t):
        return t**n * np.exp(wl * t - xl * np.sinh(t) - topl)

    unit = np.minimum(0.7, fall / 3.0)
    right = peak + np.where(peak > 0.0, fall + 0.3 * np.minimum(fall, 1.0), fall)
    return np.exp(top) * integral(f, left, right, unit)


def _arc(n, v, x, shift):
    """The integral over 0 < t < pi of the n-th v-derivative of ``cos(x sin(t) - v t + shift)``."""
    wl, xl = v[:, None], x[:, None]

    def f(t):
        return (-t) ** n * np.cos(xl * np.sin(t) - wl * t + (shift + 0.5 * np.pi * n))

    return integral(f, np.zeros_like(x), np.full_like(x, np.pi), 8.0 / (x + v + 1.0))


def _hankel(n, v, x, shift):
    """The n-th v-derivative of ``sqrt(2 / pi x) (P cos(w + shift) - Q sin(w + shift))``, 10.17.3.

    Taylor's coefficients in v are carried along.
    """
    def times(p, q):
        return [sum(p[k] * q[m - k] for k in range(m + 1)) for m in range(n + 1)]

    a = [np.ones_like(x)] + [np.zeros_like(x)] * n
    p, q = list(a), [np.zeros_like(x)] * (n + 1)
    for k in range(1, 60):
        scale = 1.0 / (8.0 * k * x)
        factor = [(4.0 * v * v - (2 * k - 1) ** 2) * scale, 8.0 * v * scale, 4.0 * scale]
        a = times(a, (factor + [0.0] * n)[: n + 1])
        into = q if k % 2 else p
        for m in range(n + 1):
            into[m] = into[m] + (a[m] if k % 4 in (0, 1) else -a[m])
    cos_x, sin_x = np.cos(x), np.sin(x)         # of large x these are better than x plus a phase
    phase = shift - 0.25 * np.pi - np.remainder(0.5 * v, 2.0) * np.pi

    def wave(turn):
        return [(-0.5 * np.pi) ** m / _factorial(m)
                * (cos_x * np.cos(phase + turn + 0.5 * np.pi * m)
                   - sin_x * np.sin(phase + turn + 0.5 * np.pi * m))
                for m in range(n + 1)]

    y = times(p, wave(0.0))[n] + times(q, wave(0.5 * np.pi))[n]
    return np.sqrt(2.0 / (np.pi * x)) * y * _factorial(n)


def _watson(n, v, x):
    """The n-th derivative of ``jv(v, x)`` in v >= x > 0 along the path of steepest descent.

    Watson, Theory of Bessel Functions, 8.31: of the integral 10.9.17 along
    ``cosh(p) = v q / (x sin(q))``, 0 < q < pi, with q = d sinh(w).
    """
    over = (v - x) / x
    d = np.clip(np.sqrt(6.0 * over), 1e-3, 1.0)
    # beyond: x sinh(p) cos(q) - v p falls at least as v q**2 tanh(p0) / 2, and as v q**3 / 9
    dl, vl, xl, ol = (u[:, None] for u in (d, v, x, over))
    p0 = np.log1p(over + np.sqrt(over * (over + 2.0)))
    top = (x * np.sinh(p0) - v * p0)[:, None]
    odd = [(-1.0) ** k / _factorial(2 * k + 3) for k in range(12)]

    def f(w):
        q = dl * np.sinh(w)
        s, q2 = np.sin(q), q * q
        series = np.zeros_like(q)
        for c in reversed(odd):
            series = series * q2 + c
        lag = np.where(q < 1.5, series * q2 * q, q - s)           # q - sin(q)
        c1 = ol + (1.0 + ol) * lag / s
        root = np.sqrt(c1 * (c1 + 2.0))                         # sinh(p)
        p = np.log1p(c1 + root)
        slope = (1.0 + ol) * (2.0 * q * np.sin(0.5 * q) ** 2 - lag) / (s * s * root)
        h = np.exp(xl * root * np.cos(q) - vl * p - top)
        factor = ((-(p + 1j * q)) ** n * (slope + 1j)).imag
        return np.where(h > 0.0, h * factor, 0.0) * dl * np.cosh(w)

    far = np.minimum(np.pi, np.cbrt(9.0 * _FAR / v))
    unit = np.minimum(1.0, 4.0 / np.cbrt(v))
    y = integral(f, np.zeros_like(x), np.arcsinh(far / d), unit)
    return np.exp(top[:, 0]) * y / np.pi


def _is_far(v, x):
    return x > np.maximum(30.0, v * v * np.where(x < 1e3, 2.0, 0.2))


def _jv_v_positive(n, v, x):
    def integrals(m):           # 10.9.6
        w, z = v[m], x[m]
        tail = _product(n, lambda k: _sinpi(w, k),
                        lambda k: (-1) ** k * _after_peak(k, w, z, -1.0))
        return (_arc(n, w, z, 0.0) - tail) / np.pi

    return _piecewise(
        x.shape,
        (_is_far(v, x), lambda m: _hankel(n, v[m], x[m], 0.0)),
        (x * x < 4.0 * (v + 1.0),
         lambda m: _special().jv(v[m], x[m]) * _mean_of_series(n, v[m], x[m], -1.0)),
        ((x > v) & (x < _LONGEST), integrals),
        (x <= v, lambda m: _watson(n, v[m], x[m])),
    )


def _yv_v_positive(n, v, x):
    def integrals(m):           # 10.9.7
        w, z = v[m], x[m]
        tail = _product(n, lambda k: _sinpi(w + 0.5, k),
                        lambda k: (-1) ** k * _after_peak(k, w, z, -1.0))
        return (_arc(n, w, z, -0.5 * np.pi) - tail - _after_peak(n, w, z, 1.0)) / np.pi

    return _piecewise(
        x.shape,
        (_is_far(v, x), lambda m: _hankel(n, v[m], x[m], -0.5 * np.pi)),
        (x + v < _LONGEST, integrals),
    )


@pointwise
def jv_v(v, x, n):
    """The n-th derivative of ``jv(v, x)`` in `v`, by integrals (10.9.6, 10.9.17) or 10.17.3.

    It is nan where x is more than a million and less than v * v / 5.
    """

    def negative(m):            # 10.2.3
        w, z = -v[m], x[m]
        y = _product(n, lambda k: _sinpi(w + 0.5, k), lambda k: _jv_v_positive(k, w, z))
        y = y - _product(n, lambda k: _sinpi(w, k), lambda k: _yv_v_positive(k, w, z))
        return y * (-1) ** n

    good = (x > 0.0) & np.isfinite(x) & np.isfinite(v)
    return _piecewise(
        x.shape,
        ((x == 0.0) & (v > 0.0) | (x == np.inf), lambda m: 0.0),
        (good & (v >= 0.0), lambda m: _jv_v_positive(n, v[m], x[m])),
        (good, negative),
    )


@pointwise
def yv_v(v, x, n):
    """The n-th derivative of ``yv(v, x)`` in `v`, by the integral 10.9.7 or 10.17.4.

    It is nan where x + v is more than a million and x less than v * v / 5.
    """

    def negative(m):            # 10.2.3 and its like for Y
        w, z = -v[m], x[m]
        y = _product(n, lambda k: _sinpi(w, k), lambda k: _jv_v_positive(k, w, z))
        y = y + _product(n, lambda k: _sinpi(w + 0.5, k), lambda k: _yv_v_positive(k, w, z))
        return y * (-1) ** n

    good = (x > 0.0) & np.isfinite(x) & np.isfinite(v)
    return _piecewise(
        x.shape,
        (x == np.inf, lambda m: 0.0),
        (good & (v >= 0.0), lambda m: _yv_v_positive(n, v[m], x[m])),
        (good, negative),
    )


# Zeta.


@pointwise
def zeta_s(s, q, n):
    """The n-th derivative of Hurwitz's zeta function in `s`, for s >= 0 and q > 0.

    Euler and Maclaurin's formula 25.11.5 differentiated term by term; Taylor's coefficients in s
    are carried along.
    """
    if n < 0:
        return np.zeros_like(s)
    count = 16
    logs = np.log(q[:, None] + np.arange(count))
    y = (np.exp(-s[:, None] * logs) * (-logs) ** n).sum(-1)
    end = q + count
    log_end = np.log(end)

    def times(p, c):            # by s + c
        return [p[m] * (s + c) + (p[m - 1] if m else 0.0) for m in range(n + 1)]

    last = [np.exp(-s * log_end) * (-log_end) ** m / _factorial(m) for m in range(n + 1)]
    rest = [end * c for c in last]
    for m in range(n + 1):      # divided by s - 1
        rest[m] = (rest[m] - (rest[m - 1] if m else 0.0)) / (s - 1.0)
    rest = [r + 0.5 * c for r, c in zip(rest, last)]
    term = [c / end for c in times(last, 0.0)]
    for j, b in enumerate(_BERNOULLI, 1):
        rest = [r + b / _factorial(2 * j) * c for r, c in zip(rest, term)]
        term = [c / (end * end) for c in times(times(term, 2 * j - 1.0), 2.0 * j)]
    return np.where((q > 0.0) & (s >= 0.0), y + _factorial(n) * rest[n], np.nan)


# Carlson's integrals.


@pointwise
def carlson(x, y, z, p, i, j, k, l):  # noqa: E741
    """The integral over t > 0 of ``(t + x)**-i (t + y)**-j (t + z)**-k (t + p)**-l``.

    For arguments that are not negative: by the trapezoidal rule in log(t), and where the integral
    is RD of 19.16.5 by SciPy.
    """
    orders = (i, j, k, l)
    if sorted(orders) == [0.0, 0.5, 0.5, 1.5]:
        by_order = sorted(zip(orders, range(4)))
        return 2.0 / 3.0 * _special().elliprd(*[(x, y, z, p)[place] for _, place in by_order[1:]])
    with_order = [(v, o) for v, o in zip((x, y, z, p), orders) if o]
    values = np.array([v for v, _ in with_order])
    zeros = values == 0.0
    lost = (zeros * np.array([o for _, o in with_order])[:, None]).sum(0)
    total = sum(orders)
    low = np.log(np.min(np.where(zeros, np.inf, values), 0))
    high = np.log(np.max(values, 0))
    left, right = low - 40.0 / np.maximum(1.0 - lost, 1e-3), high + 40.0 / (total - 1.0)
    good = (values >= 0.0).all(0) & np.isfinite(low) & np.isfinite(high) & (lost < 1.0)
    step, sums = 0.4, np.zeros_like(x)
    count = np.max(np.where(good, (right - left) / step, 1.0))
    for first in range(0, int(count) + 1, 512):
        log_t = left[:, None] + step * np.arange(first, min(first + 512, int(count) + 1))
        t = np.exp(log_t)
        e = log_t
        for v, o in with_order:
            e = e - o * np.log(t + v[:, None])
        sums += np.exp(e).sum(-1)
    return _piecewise(
        x.shape,
        (good, lambda m: step * sums[m]),
        ((values >= 0.0).all(0) & (lost >= 1.0), lambda m: np.inf),
    )


# Error functions: derivatives in the argument, where recurrences cancel.


def _falling(x, n, terms, ratio):
    """The n-th derivative of the sum over k of ``c(k) x**-(2 k + 1)``, c(k + 1) / c(k) given."""
    total, c = np.zeros_like(x), 1.0
    for k in range(terms):
        rising = (-1) ** n * _factorial(2 * k + n) // _factorial(2 * k)
        total += c * rising * x ** -(2 * k + 1 + n)
        c *= ratio(k)
    return total


@pointwise
def erfcx_n(x, n):
    """The n-th derivative of ``erfcx``, by the integral 7.7.1.

    Below 1.5 by ``y' = 2 x y - 2 / sqrt(pi)``, and far out by the series 7.12.1.
    """

    def between(m):
        z = x[m]
        far = _FAR + 10.0 * n
        end = far / (z + np.sqrt(z * z + far))
        zl = z[:, None]
        y = integral(lambda t: (-2.0 * t) ** n * np.exp(-t * t - 2.0 * zl * t),
                     np.zeros_like(z), end, end / 3.0)
        return 2.0 / np.sqrt(np.pi) * y

    def recurrence(m):
        z = x[m]
        before, y = np.zeros_like(z), _special().erfcx(z)
        for k in range(n):
            before, y = y, 2.0 * z * y + (2.0 * k * before if k else -2.0 / np.sqrt(np.pi))
        return y

    return _piecewise(
        x.shape,
        (x == np.inf, lambda m: 0.0),
        (x < (1.5 if n < 2 else 0.0), recurrence),
        (x < 10.0 + n, between),
        (x >= 10.0,
         lambda m: _falling(x[m], n, 24, lambda k: -(k + 0.5)) / np.sqrt(np.pi)),
    )


@pointwise
def dawsn_n(x, n):
    """The n-th derivative of ``dawsn``: ``D' = 1 - 2 x D``, far out the series 7.12."""

    def near(m):
        z = x[m]
        before, y = np.zeros_like(z), _special().dawsn(z)
        for k in range(n):
            before, y = y, -2.0 * z * y - (2.0 * k * before if k else -1.0)
        return y

    def between(m):             # 7.5.13's kind: the integral of exp(-t**2) sin(2 x t)
        zl, end = 2.0 * x[m][:, None], np.full(m.sum(), 7.5 + 0.5 * np.sqrt(n))

        def f(t):
            return (2.0 * t) ** n * np.exp(-t * t) * np.sin(zl * t + 0.5 * np.pi * n)

        return integral(f, np.zeros_like(end), end, 0.7)

    size = np.abs(x)
    return _piecewise(x.shape, (size < 1.0, near), (size < 7.0, between),
                      (size >= 7.0, lambda m: 0.5 * _falling(x[m], n, 26, lambda k: k + 0.5)))


@pointwise
def wofz_re(a, b):
    """The real part of Faddeeva's function at ``a + b i``."""
    return _special().wofz(a + 1j * b).real


@pointwise
def wofz_im(a, b):
    """The imaginary part of Faddeeva's function at ``a + b i``."""
    return _special().wofz(a + 1j * b).imag


# Logarithms.


@pointwise
def log_ratio(x, n):
    """The n-th derivative of ``log(1 + x) / x``: an integral over ``log(1 + x t)``, 0 < t < 1."""

    def inside(m):
        z, end = x[m, None], np.log1p(x[m])

        def f(u):
            return (np.expm1(-u) / z) ** n

        unit = np.where(end < 0.0, -1.0, 1.0)
        return _factorial(n) * integral(f, np.zeros_like(end), end, unit) / x[m]

    return _piecewise(
        x.shape,
        (x == 0.0, lambda m: (-1.0) ** n * _factorial(n) / (n + 1)),
        (x == np.inf, lambda m: 0.0),
        (x == -1.0, lambda m: np.inf * (-1.0) ** n),
        (x > -1.0, inside),
    )


@pointwise
def lambertw(x, k):
    """The real values of Lambert's W on branch 0 or -1, and nan."""
    w = _special().lambertw(x, k)
    return np.where(w.imag == 0.0, w.real, np.nan)


def logsumexp(a, b, axis, keepdims, sign=False):
    """Return ``log(abs(sum(b exp(a))))``: the largest terms alone, and the rest by log1p.

    With `sign` the sign of the sum instead.
    """
    if not a.size:
        y = np.sum(np.exp(a), axis, keepdims=keepdims)
        with np.errstate(divide="ignore"):
            return np.sign(y) if sign else np.log(y)
    with np.errstate(all="ignore"):
        seen = a if b is None else np.where(b == 0.0, -np.inf, a)
        top = np.max(seen, axis, keepdims=True)
        shift = np.where(np.isfinite(top), top, 0.0).astype(a.dtype)
        terms = np.exp(seen - shift)
        if b is not None:
            terms = np.where(b == 0.0, 0.0, b * terms)
        first = seen == shift
        large = np.sum(np.where(first, terms, 0.0), axis, keepdims=True, dtype=a.dtype)
        small = np.sum(np.where(first, 0.0, terms), axis, keepdims=True, dtype=a.dtype)
        ratio = small / large
        y = np.where(np.abs(ratio) < 0.5, np.log1p(ratio) + np.log(np.abs(large)),
                     np.log(np.abs(large + small))) + shift
        if sign:
            y = np.sign(large + small)
    return y if keepdims else np.squeeze(y, axis)


# Complex numbers.

pointwise_of_complex = functools.partial(pointwise, kind=np.complex128)


@pointwise_of_complex
def polygamma_of_complex(x, n):
    """The n-th derivative of ``psi``, n > 0: the recurrence 5.15.5 and the series 5.15.8.

    It is nan where the real part is below -10000.
    """
    y, p = np.zeros_like(x), n + 1
    x = np.where(x.real < -1e4, np.nan, x)      # the recurrence would take too long
    while (small := x.real < 16.0).any():
        y = y + np.where(small, x**-p, 0.0)
        x = x + small
    y = y + x**-n / n + 0.5 * x**-p
    rising = float(p)
    for j, b in enumerate(_BERNOULLI, 1):
        y = y + b / _factorial(2 * j) * rising * x ** -(p + 2 * j - 1)
        rising *= (p + 2 * j - 1) * (p + 2 * j)
    return y * _factorial(n) * (-1) ** (n + 1)


@pointwise_of_complex
def lambertw_of_complex(x, k):
    """Lambert's W on branch k."""
    return _special().lambertw(x, k)
