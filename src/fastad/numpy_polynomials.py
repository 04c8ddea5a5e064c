"""NumPy's polynomials over tensors: vectors of coefficients, highest power first."""

from __future__ import annotations

import numpy as np

from . import _core, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed, register
from .numpy_api import _floating, _tensor
from .numpy_signal import convolve, convolved
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


def poly(seq_of_zeros) -> Tensor:
    """Return the polynomial that has these zeros, with 1 as coefficient of the highest power.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.poly(ad.tensor([1.0, -1.0])).tolist()
    [1.0, 0.0, -1.0]
    """
    t = numpy_api.atleast_1d(_tensor(seq_of_zeros))
    if t.ndim != 1 or not t.shape[0]:
        return numpy_api.without_gradient(np.poly, (t,), {})
    if t.dtype.kind not in "fc":
        t = _floating(t)
    return (_poly.__wrapped__ if _core.is_tracing() else _poly)(t)


@defines(np.poly)
def _poly(t):
    p, one = _tensor(np.ones(1, t.dtype)), _tensor(np.ones((), t.dtype))
    for zero in numpy_api.unstack(t):
        p = convolved(p, numpy_api.stack([one, -zero]))
    return p


__all__ = register(
    "poly polyadd polyder polydiv polyint polymul polysub polyval".split(), globals()
)
