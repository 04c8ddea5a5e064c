"""NumPy's polynomials over tensors: vectors of coefficients, highest power first.

Those of ``numpy.polynomial.polynomial`` that NumPy lets others override have the lowest first.
"""

from __future__ import annotations

import numpy as np

from . import _core, linalg, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed, register
from .linalg_rules import column
from .numpy_api import _floating, _tensor
from .numpy_signal import convolve, convolved, vander
from .statements import states


def _coefficients(p):
    return _tensor(p.coeffs if isinstance(p, np.poly1d) else p)


def polyval(p, x) -> Tensor:
    """Return the values at `x` of the polynomial with coefficients `p`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polyval(ad.tensor([1.0, 0.0, 3.0]), 2.0).item()
    7.0
    """
    x = _tensor(x)
    if isinstance(p, np.poly1d) or not isinstance(p, (Tensor, list, tuple)):
        p = np.asarray(p).tolist()
    y = numpy_api.zeros_like(x)
    for coefficient in p:
        y = y * x + coefficient
    return y


def _sum(name, op):
    """Declare the primitive of a sum or difference, in which the last coefficients meet."""
    function = getattr(np, name)

    @rules.primitive(name, linear=True)
    class SUM:
        def forward(a, b):
            return function(a, b)

        def vjp(g, y, inputs, needs):
            def ends(x):
                return rules.take_index(g, (slice(g.shape[0] - x.shape[0], None),), True)

            a, b = inputs
            return (ends(a) if needs[0] else None,
                    op(_ZERO, ends(b)) if needs[1] else None)

    def stated(a1, a2):
        a1, a2 = numpy_api.atleast_1d(_coefficients(a1), _coefficients(a2))
        if not _core.is_tracing() and a1.dtype == a2.dtype and a1.dtype.kind in "fc":
            return SUM, (a1, a2), {}
        longest = max(a1.shape[0], a2.shape[0])
        return op(*[numpy_api.concatenate([np.zeros(longest - a.shape[0], a.dtype), a])
                    if a.shape[0] < longest else a for a in (a1, a2)])

    return SUM, stated


_ZERO = 0.0
_ADD, _added = _sum("polyadd", _core.elementwise["add"])
_SUBTRACT, _subtracted = _sum("polysub", _core.elementwise["subtract"])


@states(np.polyadd, _ADD, operands=2)
def polyadd(a1, a2):
    """Return the sum of two polynomials.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polyadd(ad.tensor([1.0, 2.0]), [5.0]).tolist()
    [1.0, 7.0]
    """
    return _added(a1, a2)


@states(np.polysub, _SUBTRACT, operands=2)
def polysub(a1, a2):
    """Return the difference of two polynomials.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polysub(ad.tensor([1.0, 2.0]), [5.0]).tolist()
    [1.0, -3.0]
    """
    return _subtracted(a1, a2)


def _without_leading_zeros(p):
    """Return a polynomial from its first coefficient on that is not 0, as ``poly1d`` keeps it."""
    p = numpy_api.atleast_1d(_coefficients(p))
    if not p.shape[0]:
        return _tensor(np.zeros(1, p.dtype))
    first = 0
    while first < p.shape[0] - 1 and bool(p[first] == 0):
        first += 1
    return p[first:] if first else p


def polymul(a1, a2) -> Tensor:
    """Return the product of two polynomials.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polymul(ad.tensor([1.0, 2.0]), [1.0, -2.0]).tolist()
    [1.0, 0.0, -4.0]
    """
    return convolve(_without_leading_zeros(a1), _without_leading_zeros(a2))


@followed
def rest_length(u, v):
    """How many coefficients the remainder of a division has."""
    return len(np.polydiv(u, v)[1])


def _divided(u, v):
    """Return the coefficients of the quotient, and the rest with zeros in front."""
    u, v = numpy_api.atleast_1d(_coefficients(u) + 0.0, _coefficients(v) + 0.0)
    u, v = numpy_api._same_dtype((u, v))
    m, n = u.shape[0] - 1, v.shape[0] - 1
    scale, quotient, rest = 1.0 / v[0], [], u
    for k in range(m - n + 1):
        d = scale * rest[k]
        quotient.append(d)
        rest = rest - rules.pad(d * v, ((k, m - n - k),), 0)
    return quotient or [np.zeros((), u.dtype)], rest


@defines(np.polydiv)
def _polydiv(u, v):
    quotient, rest = _divided(u, v)
    length = int(rest_length(_tensor(u).detach(), _tensor(v).detach()))
    return numpy_api.stack(quotient), rest[rest.shape[0] - length :]


def polydiv(u, v) -> tuple:
    """Return the quotient and the remainder of two polynomials.

    Examples
    --------
    >>> import fastad as ad
    >>> q, r = ad.polydiv(ad.tensor([3.0, 5.0, 2.0]), [2.0, 1.0])
    >>> q.tolist(), r.tolist()
    ([1.5, 1.75], [0.25])
    """
    u, v = _coefficients(u), _coefficients(v)
    if _core.is_tracing():
        int(rest_length(u.detach(), v.detach()))        # the shape depends on the values
    return _polydiv(u, v)


def polyder(p, m=1) -> Tensor:
    """Return the m-th derivative of a polynomial.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polyder(ad.tensor([1.0, 2.0, 3.0])).tolist()
    [2.0, 2.0]
    """
    if m < 0:
        raise ValueError(f"polyder: the order must not be negative, got {m}")
    p = _coefficients(p)
    for _ in range(int(m)):
        p = p[:-1] * np.arange(p.shape[0] - 1, 0, -1)
    return p


@rules.primitive("polyint", linear=True)
class POLYINT:
    """The m-th integral of coefficients, without constants."""

    def forward(p, m):
        return np.polyint(p, m)

    def vjp(g, y, inputs, needs, m):
        n = inputs[0].shape[0]
        powers = np.arange(n, 0.0, -1.0)
        weights = 1.0 / powers if m else np.ones(n)
        for k in range(1, m):
            weights /= powers + k
        weights = weights.astype(g.dtype, copy=False)
        return (rules.take_index(g, (slice(0, n),), True) * weights,)


@states(np.polyint, POLYINT, without=("k",))
def polyint(p, m=1, k=None):
    """Return the m-th integral of a polynomial, with constants of integration `k`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.polyint(ad.tensor([2.0, 2.0]), k=3.0).tolist()
    [1.0, 2.0, 3.0]
    """
    m = int(m)
    if m < 0:
        raise ValueError(f"polyint: the order must not be negative, got {m}")
    p = _coefficients(p)
    if k is None and p.ndim == 1 and p.dtype.kind in "fc" and not _core.is_tracing():
        return POLYINT, (p,), {"m": m}
    constants = numpy_api.atleast_1d(_tensor(np.zeros(m) if k is None else k))
    if constants.shape[0] == 1 and m > 1:
        constants = _core.broadcast_to(constants, (m,))
    if constants.shape[0] < m:
        raise ValueError(f"polyint: k must be a number or have {m} elements or more, "
                         f"got {constants.shape[0]}")
    for order in range(m):
        powers = np.arange(p.shape[0], 0, -1)
        p = numpy_api.concatenate([p / powers, constants[order : order + 1]])
    return p


# Roots, and polynomials that have given ones.


@followed
def leading_zeros(p):
    """How many coefficients in front are 0, but not the last one."""
    return np.argmax(np.append(p[:-1] != 0, True))


@followed
def is_power(p):
    """Whether only one coefficient is not 0: NumPy's roots are real numbers then."""
    return np.count_nonzero(p) == 1


def _powers(r, count):
    """Return ``r**(count - 1)``, ..., ``r``, 1 along a new last axis."""
    found = [numpy_api.ones_like(r)]
    for _ in range(count - 1):
        found.append(found[-1] * r)
    return numpy_api.stack(found[::-1], -1)


@rules.primitive("roots", reads_inputs=True, reads_output=True)
class ROOTS:
    """The complex roots r of p: ``dr = -dp(r) / p'(r)`` by the implicit function theorem.

    Coefficients in front that are 0 have a derivative as well: that of the finite roots.
    """

    def forward(p):
        r = np.roots(p)
        return r.astype(np.result_type(r.dtype, np.complex64), copy=False)

    def vjp(g, y, inputs, needs):
        (p,) = inputs
        powers, inverse = _powers_and_inverse(p, y)
        bar = rules.zmul(g, rules.conjugate(inverse))
        bar = _core.matmul(_core.reshape(bar, (1, -1)), rules.conjugate(powers))
        return (-_core.reshape(bar, (-1,)),)

    def jvp(tangents, y, inputs):
        powers, inverse = _powers_and_inverse(inputs[0], y)
        change = _core.matmul(powers, column(numpy_api.astype(tangents[0], y.dtype, copy=False)))
        return -rules.zmul(_core.reshape(change, (-1,)), inverse)


def _powers_and_inverse(p, r):
    """Return the powers of the roots r of p, and ``1 / p'(r)``."""
    powers = _powers(r, p.shape[0])
    slopes = p[:-1] * np.arange(p.shape[0] - 1, 0, -1)
    slopes = column(numpy_api.astype(slopes, r.dtype, copy=False))
    return powers, 1.0 / _core.reshape(_core.matmul(powers[:, 1:], slopes), (-1,))


def roots(p) -> Tensor:
    """Return the roots of the polynomial with coefficients `p`, complex unless all are real.

    Derivatives by the implicit function theorem.  A root that is there twice has none: gradients
    that depend on it are inf or nan, or very large where rounding has moved the two apart.

    Raises
    ------
    ValueError
        If `p` has more than one axis.

    Examples
    --------
    >>> import fastad as ad
    >>> p = ad.tensor([1.0, -5.0, 6.0], requires_grad=True)
    >>> r = ad.roots(p)
    >>> ad.max(r).backward()
    >>> r.round(9).tolist(), p.grad.round(9).tolist()
    ([3.0, 2.0], [-9.0, -3.0, -1.0])
    """
    t = _floating(numpy_api.atleast_1d(_coefficients(p)))
    if t.ndim != 1:
        raise ValueError(f"roots: Input must be a rank-1 array, got {t.ndim} axes")
    if t.shape[0] < 2 or int(leading_zeros(t.detach())) == t.shape[0] - 1:
        return _tensor(np.zeros(0))
    r = rules.record(ROOTS, (t,), {})
    real = linalg.are_real(r) if t.dtype.kind == "f" else bool(is_power(t.detach()))
    return _core.real(r) if real else r


@followed
def has_real_polynomial(zeros):
    """Whether NumPy gives real coefficients for these complex zeros, or for those of a matrix."""
    return np.poly(zeros).dtype.kind == "f"


@defines(np.poly)
def _poly(seq_of_zeros):
    t = numpy_api.atleast_1d(_floating(_tensor(seq_of_zeros)))
    if t.ndim == 2:
        return _characteristic(t)
    p, one = _tensor(np.ones(1, t.dtype)), _tensor(np.ones((), t.dtype))
    for zero in numpy_api.unstack(t):
        p = convolved(p, numpy_api.stack([one, -zero]))
    return p


def _characteristic(a):
    """Return the coefficients of ``det(x - a)`` by the recursion of Leverrier and Faddeev.

    D. K. Faddeev and V. N. Faddeeva, "Computational methods of linear algebra", 1963, section 47:
    nothing but products, so that repeated eigenvalues are like others.
    """
    one = _tensor(np.eye(a.shape[0], dtype=a.dtype))
    found, m = [_tensor(np.ones((), a.dtype))], one
    for k in range(1, a.shape[0] + 1):
        m = _core.matmul(a, m)
        found.append(numpy_api.trace(m) / -float(k))
        m = m + found[-1] * one
    return numpy_api.stack(found)


def poly(seq_of_zeros) -> Tensor:
    """Return the polynomial that has these zeros, with 1 as coefficient of the highest power.

    Of a square matrix it is the characteristic polynomial.

    Raises
    ------
    ValueError
        If the argument is neither a vector nor a square matrix.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.poly(ad.tensor([1.0, -1.0])).tolist()
    [1.0, 0.0, -1.0]
    """
    t = _tensor(seq_of_zeros)
    if _core.is_tracing() and t.dtype.kind == "c":
        bool(_core.array(has_real_polynomial(t.detach())))      # the dtype depends on the values
    return _poly(t)


# Fits.


@followed
def rank_of_fit(x, y, deg, rcond, w):
    """The rank of the matrix of a fit, on which shapes of its results depend."""
    return np.polyfit(x, y, deg, rcond, True, w)[2]


@defines(np.polyfit)
def _polyfit(x, y, deg, rcond=None, full=False, w=None, cov=False):
    order = int(deg) + 1
    x, y = _tensor(x) + 0.0, _tensor(y) + 0.0
    if rcond is None:
        rcond = x.shape[0] * np.finfo(x.dtype).eps
    a = vander.__wrapped__(x, order)
    if w is not None:
        w = _tensor(w) + 0.0
        a, y = a * column(w), y * (w if y.ndim == 1 else column(w))
    scale = _core.elementwise["sqrt"](_core.sum(a * a, 0))
    a = a / scale
    c, squares, _, s = linalg.lstsq(a, y, rcond)
    c = c / (scale if y.ndim == 1 else column(scale))
    if full:
        return c, squares, None, s, _tensor(rcond)
    if not cov:
        return c
    v = linalg.inv(_core.matmul(_core.transpose(a), a)) / numpy_api.outer(scale, scale)
    factor = 1.0 if cov == "unscaled" else squares / (x.shape[0] - order)
    return c, (v if y.ndim == 1 else _core.reshape(v, (*v.shape, 1))) * factor


def polyfit(x, y, deg, rcond=None, full=False, w=None, cov=False):
    """Return the coefficients of the polynomial of degree `deg` that fits `y` at `x` best.

    As in NumPy residuals, rank, singular values and `rcond` come with `full`, and the covariances
    of the coefficients with `cov`.  Differentiable in `x`, `y` and `w`, as long as the rank stays
    the same; see `linalg.lstsq`.

    Raises
    ------
    TypeError
        If the shapes do not fit.
    ValueError
        If `deg` is negative, or there are too few points for `cov`.

    Examples
    --------
    >>> import fastad as ad
    >>> y = ad.tensor([1.0, 3.0, 5.0], requires_grad=True)
    >>> slope, intercept = ad.polyfit([0.0, 1.0, 2.0], y, 1)
    >>> slope.backward()
    >>> y.grad.round(9).tolist()
    [-0.5, 0.0, 0.5]
    """
    if (full or cov) and _core.is_tracing():
        x, y, w = [v if v is None else _tensor(v) for v in (x, y, w)]
        values = [v if v is None else v.detach() for v in (x, y, w)]
        int(rank_of_fit(*values[:2], deg, rcond, values[2]))
    return _polyfit(x, y, deg, rcond, full, w, cov)


# Polynomials of several variables, lowest powers first.


def _horner(x, c, tensor=True):
    """Return the values at `x`; with `tensor` each column of `c` at each element of it."""
    c = numpy_api.atleast_1d(c)
    if tensor:
        c = _core.reshape(c, (*c.shape, *(1,) * x.ndim))
    y = c[-1] + x * 0.0
    for k in range(2, c.shape[0] + 1):
        y = c[-k] + y * x
    return y


def _at_points(c, *points):
    for k, x in enumerate(points):
        c = _horner(_tensor(x), _tensor(c), not k)
    return c


def _on_grid(c, *axes):
    for x in axes:
        c = _horner(_tensor(x), _tensor(c))
    return c


def _of_series(name, definition):
    """Return what stands for a function of a module that NumPy imports when it is asked for."""

    def value(*args, **kwargs):
        return getattr(np.polynomial.polynomial, name)(*args, **kwargs)

    value.__name__ = name
    return defines(value)(definition)


# functions of numpy.polynomial.polynomial by name
SERIES = {
    "polyval2d": _of_series("polyval2d", lambda x, y, c: _at_points(c, x, y)),
    "polygrid2d": _of_series("polygrid2d", lambda x, y, c: _on_grid(c, x, y)),
    "polyvalnd": _of_series("polyvalnd", lambda pts, c: _at_points(c, *pts)),
}


__all__ = register(
    "poly polyadd polyder polydiv polyfit polyint polymul polysub polyval roots".split(), globals()
)
