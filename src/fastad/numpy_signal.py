"""NumPy's functions of sampled curves over tensors: sequences, interpolation, differences, areas,
convolutions, and products of small vectors."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import _core, exchange, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed, register
from .numpy_api import _floating, _tensor
from .rules import take_index
from .statements import states

_where = rules.where
_zmul = rules.zmul


# Sequences.


def _steps(num, endpoint, ndim, dtype):
    """Return where along the way from start to stop the numbers lie, as a column."""
    num = operator.index(num)
    count = num - 1 if endpoint else num
    return np.arange(num, dtype=dtype).reshape((-1,) + (1,) * ndim) / max(count, 1)


@defines(np.linspace)
def _linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0):
    start, stop = _floating(_tensor(start)), _floating(_tensor(stop))
    delta = stop - start
    steps = _steps(num, endpoint, delta.ndim, delta.dtype)
    y = _where(steps == 1.0, stop, start + steps * delta)
    y = y if axis == 0 else numpy_api.moveaxis(y, 0, axis)
    count = num - 1 if endpoint else num
    return (y, delta / float(count) if count > 0 else delta * np.nan) if retstep else y


def linspace(
    start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0, *, device=None,
    requires_grad=False
):
    """Return `num` evenly spaced values from `start` to `stop`, and the step with `retstep`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linspace(0.0, 1.0, 3).tolist()
    [0.0, 0.5, 1.0]
    """
    exchange.check_device("linspace", device)
    dtype = _floating_dtype("linspace", start, stop, dtype)
    y = _linspace(start, stop, num, endpoint, retstep, dtype, axis)
    if requires_grad:
        y, *step = y if retstep else (y,)
        y = y.detach().requires_grad_()
        return (y, *step) if retstep else y
    return y


def _floating_dtype(name, start, stop, dtype):
    """Return `dtype` if it is one through which gradients flow, or none need to."""
    whole = dtype is not None and np.dtype(dtype).kind not in "fc"
    if whole and numpy_api._recording((start, stop)):
        raise TypeError(f"{name}: dtype {np.dtype(dtype)} would lose the gradient; compute first "
                        "and cast afterwards")
    return dtype


@defines(np.logspace)
def _logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0):
    start, stop, base = _tensor(start), _tensor(stop), _tensor(base)
    if base.ndim:
        ndim = max(start.ndim, stop.ndim, base.ndim)
        start, stop, base = [
            _core.reshape(t, (1,) * (ndim - t.ndim) + t.shape) for t in (start, stop, base)
        ]
        base = numpy_api.expand_dims(base, axis)
    return base ** _linspace.__wrapped__(start, stop, num, endpoint, axis=axis)


def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0) -> Tensor:
    """Return powers of `base` whose exponents are evenly spaced from `start` to `stop`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.logspace(0.0, 2.0, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    dtype = _floating_dtype("logspace", start, stop, dtype)
    return _logspace(start, stop, num, endpoint, base, dtype, axis)


@defines(np.geomspace)
def _geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    start, stop = _floating(_tensor(start)), _floating(_tensor(stop))
    ratio = stop / start
    y = start * ratio ** _steps(num, endpoint, ratio.ndim, ratio.dtype)
    return y if axis == 0 else numpy_api.moveaxis(y, 0, axis)


def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0) -> Tensor:
    """Return `num` numbers from `start` to `stop` with the same ratio of neighbours everywhere.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.geomspace(1.0, 4.0, 3).tolist()
    [1.0, 2.0, 4.0]
    """
    dtype = _floating_dtype("geomspace", start, stop, dtype)
    return _geomspace(start, stop, num, endpoint, dtype, axis)


# Interpolation and angles.


@followed
def piece_places(x, xp, side, open_ends):
    """Which of the n + 1 pieces between n ascending points each number lies in.

    At a point itself `side` decides.  Where values for outside are given, the outer points belong
    to the inside.
    """
    n = len(xp)
    found = np.searchsorted(xp, x, side)
    if open_ends[0] and n > 1:
        found = np.where((found == 0) & (x >= xp[0]), 1, found)
    if open_ends[1] and n > 1:
        found = np.where((found == n) & (x <= xp[-1]), n - 1, found)
    return found


@followed
def period_order(xp):
    """The order of points on a circle."""
    return np.argsort(xp)


@defines(np.interp)
def interp(x, xp, fp, left=None, right=None, period=None) -> Tensor:
    """Return the values at `x` of the curve that joins the points (`xp`, `fp`) by straight lines.

    Differentiable in `x`, `xp`, `fp`, `left` and `right`.  At a point the slope is the mean of the
    slopes on both sides.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(1.5, requires_grad=True)
    >>> y = ad.interp(x, [0.0, 1.0, 2.0], [0.0, 1.0, 5.0])
    >>> y.backward()
    >>> y.item(), x.grad.item()
    (3.0, 4.0)
    """
    x, xp, fp = _floating(_tensor(x)), _floating(_tensor(xp)), _floating(_tensor(fp))
    if period is not None:
        period, left, right = abs(period), None, None
        x, xp = x % period, xp % period
        order = period_order(xp)
        xp, fp = rules.gather(xp, order), rules.gather(fp, order)
        xp = numpy_api.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = numpy_api.concatenate([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    given = (left is not None, right is not None)
    left, right = fp[0] if left is None else left, fp[-1] if right is None else right
    if n == 1:
        inside = _core.broadcast_to(fp[0], x.shape)
        return _where(x < xp[0], left, _where(x > xp[0], right, inside))

    def piece(side):
        k = piece_places(x, xp, side, given)
        low = numpy_api.clip(k - 1, 0, n - 2)
        x0, x1 = rules.gather(xp, low), rules.gather(xp, low + 1)
        y0, y1 = rules.gather(fp, low), rules.gather(fp, low + 1)
        line = y0 + (y1 - y0) / (x1 - x0) * (x - x0)
        return _where(k == 0, left, _where(k == n, right, line))

    return 0.5 * (piece("left") + piece("right"))


@followed
def turns(p, discont, axis, period):
    """How many periods ``unwrap`` adds to each element."""
    return np.rint((np.unwrap(p, discont, axis, period=period) - p) / period)


@defines(np.unwrap)
def unwrap(p, discont=None, axis=-1, *, period=6.283185307179586) -> Tensor:
    """Return angles with whole periods added, so that neighbours differ by half a period at most.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.unwrap(ad.tensor([0.0, 3.0, 6.0]), period=4.0).tolist()
    [0.0, -1.0, -2.0]
    """
    p = _tensor(p)
    period = _tensor(period)
    return p + turns(p, numpy_api._values(discont), axis, period) * period


# Differences and areas.


def _differences(f, spacing, axis, edge_order):
    return np.gradient(f, spacing, axis=axis, edge_order=edge_order)


@defines(_differences, name="gradient")
def _gradient(f, spacing, axis, edge_order):
    f, h = _floating(_tensor(f)), _floating(_tensor(spacing))
    axis = normalize_axis_index(axis, f.ndim)
    before = (slice(None),) * axis

    def part(start, stop):
        return take_index(f, (*before, slice(start, stop)), True)

    def along(t):
        return _core.reshape(t, (-1,) + (1,) * (f.ndim - axis - 1)) if t.ndim else t

    if h.ndim:
        h = h[1:] - h[:-1]
        first, second, last, last_but_one = h[:1], h[1:2], h[-1:], h[-2:-1]
        h0, h1 = along(h[:-1]), along(h[1:])
    else:
        first = second = last = last_but_one = h0 = h1 = h
    inner = (
        -h1 / (h0 * (h0 + h1)) * part(None, -2) + (h1 - h0) / (h0 * h1) * part(1, -1)
        + h0 / (h1 * (h0 + h1)) * part(2, None)
    )
    first, second, last, last_but_one = map(along, (first, second, last, last_but_one))
    if edge_order == 1:
        start = (part(1, 2) - part(0, 1)) / first
        end = (part(-1, None) - part(-2, -1)) / last
    else:
        d1, d2 = first, second
        start = (
            -(2.0 * d1 + d2) / (d1 * (d1 + d2)) * part(0, 1) + (d1 + d2) / (d1 * d2) * part(1, 2)
            - d1 / (d2 * (d1 + d2)) * part(2, 3)
        )
        d1, d2 = last_but_one, last
        end = (
            d2 / (d1 * (d1 + d2)) * part(-3, -2) - (d2 + d1) / (d1 * d2) * part(-2, -1)
            + (2.0 * d2 + d1) / (d2 * (d1 + d2)) * part(-1, None)
        )
    return numpy_api.concatenate([start, inner, end], axis)


def gradient(f, *varargs, axis=None, edge_order=1):
    """Return the slopes of sampled values along an axis, or a tuple of them along several.

    Spacings are numbers or coordinates; the result is differentiable in these as well.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.gradient(ad.tensor([1.0, 2.0, 4.0]), 0.5).tolist()
    [2.0, 3.0, 4.0]
    """
    t = _tensor(f)
    axes = tuple(range(t.ndim)) if axis is None else normalize_axis_tuple(axis, t.ndim, "gradient")
    if not varargs:
        spacings = (1.0,) * len(axes)
    elif len(varargs) == 1 and _tensor(varargs[0]).ndim == 0:
        spacings = varargs * len(axes)
    elif len(varargs) == len(axes):
        spacings = varargs
    else:
        raise TypeError(f"gradient: {len(varargs)} spacings do not fit {len(axes)} axes")
    slopes = [_gradient(t, h, k, edge_order) for h, k in zip(spacings, axes)]
    return slopes[0] if len(slopes) == 1 else tuple(slopes)


@defines(np.trapezoid)
def trapezoid(y, x=None, dx=1.0, axis=-1) -> Tensor:
    """Return the area under sampled values by the trapezoidal rule.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.trapezoid(ad.tensor([1.0, 2.0, 4.0]), [0.0, 1.0, 3.0]).item()
    7.5
    """
    y = _tensor(y)
    axis = normalize_axis_index(axis, y.ndim)
    before = (slice(None),) * axis
    width = _tensor(dx)
    if x is not None:
        x = _tensor(x)
        width = numpy_api.diff(x, axis=0 if x.ndim == 1 else axis)
        if x.ndim == 1:
            width = _core.reshape(width, (-1,) + (1,) * (y.ndim - axis - 1))
    later, earlier = (*before, slice(1, None)), (*before, slice(None, -1))
    pairs = take_index(y, later, True) + take_index(y, earlier, True)
    return numpy_api.sum(width * pairs / 2.0, axis)


@defines(np.ediff1d)
def ediff1d(ary, to_end=None, to_begin=None) -> Tensor:
    """Return the differences of neighbours of the flat tensor, between given numbers.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ediff1d(ad.tensor([1.0, 2.0, 4.0]), to_end=9.0).tolist()
    [1.0, 2.0, 9.0]
    """
    t = _core.reshape(_tensor(ary), (-1,))
    parts = [numpy_api.diff(t)]
    for end, place in ((to_begin, 0), (to_end, len(parts) + 1)):
        if end is not None:
            parts.insert(place, _core.reshape(_tensor(end), (-1,)))
    return numpy_api.concatenate(parts)


# Convolutions.


def _first_of_full(n, m, mode, reverses):
    """Return where in the full convolution, of length n + m - 1, that of another mode begins.

    A correlation of a shorter with a longer array is computed with both exchanged, and reversed.
    """
    shorter = min(n, m)
    if mode in ("full", 2):
        return 0
    if mode in ("valid", 0):
        return shorter - 1
    return shorter // 2 if reverses and n < m else shorter - 1 - shorter // 2


def _products(name, function, correlates):
    """Declare the primitive of ``np.convolve`` or ``np.correlate``."""

    @rules.primitive(name, reads_inputs=True)
    class SLIDING:
        def forward(a, v, mode):
            return function(a, v, mode)

        def vjp(g, y, inputs, needs, mode):
            a, v = inputs
            n, m = a.shape[0], v.shape[0]
            first = _first_of_full(n, m, mode, correlates)
            full = rules.pad(g, ((first, n + m - 1 - first - g.shape[0]),), 0)
            a_bar = v_bar = None
            if needs[0]:
                a_bar = rules.zero_safe(_valid, full, v if correlates else _turned(v))
            if needs[1]:
                v_bar = rules.zero_safe(_valid, full, _turned(a))
                v_bar = _turned(v_bar) if correlates else v_bar
            return a_bar, v_bar

        def jvp(tangents, y, inputs, mode):
            def slide(a, v):
                return rules.record(SLIDING, (a, v), {"mode": mode})

            (a_dot, v_dot), (a, v) = tangents, inputs
            left = None if a_dot is None else rules.zero_safe(slide, a_dot, v)
            if v_dot is None:
                return left
            right = rules.zero_safe(lambda v, a: slide(a, v), v_dot, a)
            return right if left is None else left + right

    return SLIDING


_CONVOLVE = _products("convolve", np.convolve, False)
_CORRELATE = _products("correlate", np.correlate, True)


def _turned(t):
    return np.conjugate(take_index(t, (slice(None, None, -1),), True))


def _valid(a, v):
    return rules.record(_CONVOLVE, (a, v), {"mode": "valid"})


def _slide(rule, a, v, mode):
    a, v = _tensor(a), _tensor(v)
    if rule is _CONVOLVE:
        a, v = numpy_api.atleast_1d(a, v)
    elif not a.ndim or not v.ndim:
        raise ValueError("correlate: wants vectors, got a number")
    if a.ndim > 1 or v.ndim > 1:
        raise ValueError(f"{rule.name}: wants vectors, got shapes {a.shape} and {v.shape}")
    return rule, numpy_api._same_dtype((a, v)), {"mode": mode}


def convolved(a, v):
    """Record ``np.convolve`` of two vectors of one dtype."""
    return rules.record(_CONVOLVE, (a, v), {"mode": "full"})


@states(np.convolve, _CONVOLVE, operands=2)
def convolve(a, v, mode="full"):
    """Return the sums of products of `a` and the reversed `v` at all offsets.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.convolve(ad.tensor([1.0, 2.0]), [1.0, 0.0, 3.0]).tolist()
    [1.0, 2.0, 3.0, 6.0]
    """
    return _slide(_CONVOLVE, a, v, mode)


@states(np.correlate, _CORRELATE, operands=2)
def correlate(a, v, mode="valid"):
    """Return the sums of products of `a` and the conjugate of `v` at all offsets.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.correlate(ad.tensor([1.0, 2.0, 4.0]), [1.0, 3.0]).tolist()
    [7.0, 14.0]
    """
    return _slide(_CORRELATE, a, v, mode)


# Products.


@defines(np.cross)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None) -> Tensor:
    """Return the vectors perpendicular to those in `a` and `b`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.cross(ad.tensor([1.0, 0.0, 0.0]), [0.0, 2.0, 0.0]).tolist()
    [0.0, 0.0, 2.0]
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = numpy_api.moveaxis(a, axisa, -1), numpy_api.moveaxis(b, axisb, -1)

    def at(t, k):
        return take_index(t, (..., k), True)

    def minor(i, j):
        """One component; vectors in the plane have no third one."""
        left = at(a, i) * at(b, j) if i < a.shape[-1] and j < b.shape[-1] else None
        right = at(a, j) * at(b, i) if j < a.shape[-1] and i < b.shape[-1] else None
        return left - right if left is not None and right is not None else (
            left if right is None else -right)

    if a.shape[-1] == b.shape[-1] == 2:
        return minor(0, 1)
    parts = [minor(1, 2), minor(2, 0), minor(0, 1)]
    return numpy_api.moveaxis(numpy_api.stack(parts, -1), -1, axisc)


@defines(np.kron)
def kron(a, b) -> Tensor:
    """Return the Kronecker product: every element of `a` times all of `b`, as blocks.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.kron(ad.tensor([1.0, 10.0]), [2.0, 3.0]).tolist()
    [2.0, 3.0, 20.0, 30.0]
    """
    a, b = _tensor(a), _tensor(b)
    ndim = max(a.ndim, b.ndim)
    rows = (1,) * (ndim - a.ndim) + a.shape
    columns = (1,) * (ndim - b.ndim) + b.shape
    a = _core.reshape(a, tuple([length for n in rows for length in (n, 1)]))
    b = _core.reshape(b, tuple([length for n in columns for length in (1, n)]))
    return _core.reshape(a * b, tuple([n * m for n, m in zip(rows, columns)]))


@defines(np.vander)
def vander(x, N=None, increasing=False) -> Tensor:
    """Return the matrix of the powers of a vector's elements.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.vander(ad.tensor([2.0, 3.0]), 3).tolist()
    [[4.0, 2.0, 1.0], [9.0, 3.0, 1.0]]
    """
    t = _tensor(x)
    count = t.shape[0] if N is None else operator.index(N)
    powers = np.arange(count) if increasing else np.arange(count)[::-1]
    return _core.reshape(t, (-1, 1)) ** powers.astype(t.dtype)


# The modified Bessel function of the first kind.


@rules.primitive("i0 and its derivatives", reads_inputs=True)
class BESSEL:
    """I of integer order n; its slope is (I of n - 1 plus I of n + 1) / 2, DLMF 10.29.2."""

    def forward(x, order):
        return np.i0(x) if order == 0 else _bessel(order, x)

    def vjp(g, y, inputs, needs, order):
        return (_zmul(g, _slope(inputs[0], order)),)

    def jvp(tangents, y, inputs, order):
        return _zmul(tangents[0], _slope(inputs[0], order))


def _slope(x, order):
    return 0.5 * (_i(x, abs(order - 1)) + _i(x, order + 1))


def _i(x, order):
    return rules.record(BESSEL, (x,), {"order": order})


def _bessel(n, x):
    """Return I of order n at an array: by its series up to 20, by its integral beyond.

    DLMF 10.25.2 and 10.32.3.  The trapezoidal rule for the integral of a smooth periodic function
    converges faster than any power; 256 nodes suffice up to where exp overflows.
    """
    size = np.abs(x).astype(float)
    small = np.where(size <= 20.0, size, 0.0)
    quarter = small * small / 4.0
    term = (small / 2.0) ** n / math.factorial(n)
    series = term.copy()
    for k in range(1, 60):
        term = term * quarter / (k * (k + n))
        series += term
    large = np.where(size > 20.0, size, 20.0)
    angles = 2.0 * np.pi * np.arange(256) / 256
    shrunk = np.zeros_like(large)
    for cosine, weight in zip(np.cos(angles), np.cos(n * angles)):
        shrunk += weight * np.exp(large * (cosine - 1.0))
    y = np.where(size <= 20.0, series, shrunk / 256 * np.exp(large))
    return (np.where(x < 0, (-1.0) ** n * y, y)).astype(x.dtype)


def i0(x) -> Tensor:
    """Return the modified Bessel function of the first kind and order 0.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(1.0, requires_grad=True)
    >>> y = ad.i0(x)
    >>> y.backward()
    >>> round(y.item(), 6), round(x.grad.item(), 6)
    (1.266066, 0.565159)
    """
    return _i(_floating(_tensor(x)), 0)


__all__ = register("""
convolve correlate cross ediff1d geomspace gradient i0 interp kron linspace logspace trapezoid
unwrap vander
""".split(), globals())
