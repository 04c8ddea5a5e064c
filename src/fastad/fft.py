"""``numpy.fft`` over tensors, by NumPy's names and signatures.

Values are NumPy's, bit for bit.  Every transform is linear, so its tangent is the transform of the
tangent, and its cotangent that of its adjoint: of a DFT of n points scaled by c, the inverse DFT
without its 1/n, scaled by c, which is NumPy's inverse by the opposite ``norm``.  An input that was
cut to n points has zeros beyond them, one that was padded loses what was added.  Where a real
transform leaves out the half that follows by symmetry, the other half counts twice in its adjoint
(J. O. Smith, "Mathematics of the discrete Fourier transform", 2007, for the symmetries).
"""

from __future__ import annotations

import operator
import warnings

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from . import _core, exchange, numpy_api, rules
from ._core import Tensor

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]

_OPPOSITE = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


# The primitives.


def _resized(t, n, axis):
    """Return `t` with the first n elements of an axis, or with zeros behind them."""
    have = t.shape[axis]
    if have == n:
        return t
    before = (slice(None),) * axis
    if have > n:
        return rules.take_index(t, (*before, slice(0, n)), True)
    return rules.pad(t, tuple([(0, n - have if k == axis else 0) for k in range(t.ndim)]), 0)


def _halved(t, n, axis, weight):
    """Multiply what stands for two of n points, in half a spectrum, by `weight`."""
    factors = np.full(t.shape[axis], weight, t.dtype.char.lower())      # the real dtype
    factors[0] = 1.0
    if n % 2 == 0 and len(factors) > n // 2:
        factors[n // 2] = 1.0
    shape = [1] * t.ndim
    shape[axis] = len(factors)
    return t * _core.wrap(factors.reshape(shape), copy=False)


@rules.primitive("fft", linear=True)
class FFT:
    """``np.fft.fft`` of n points along a non-negative axis, or with `inverse` ``np.fft.ifft``."""

    def forward(x, n, axis, norm, inverse):
        return (np.fft.ifft if inverse else np.fft.fft)(x, n, axis, norm)

    def vjp(g, y, inputs, needs, n, axis, norm, inverse):
        x = inputs[0]
        x_bar = _transform(g, n, axis, _OPPOSITE[norm], not inverse)
        if x.dtype.kind != "c":
            x_bar = _core.real(x_bar)
        return (_resized(x_bar, x.shape[axis], axis),)


@rules.primitive("rfft", linear=True)
class RFFT:
    """``np.fft.rfft`` of n points along a non-negative axis."""

    def forward(x, n, axis, norm):
        return np.fft.rfft(x, n, axis, norm)

    def vjp(g, y, inputs, needs, n, axis, norm):
        x_bar = _half_inverse(_halved(g, n, axis, 0.5), n, axis, _OPPOSITE[norm])
        return (_resized(x_bar, inputs[0].shape[axis], axis),)


@rules.primitive("irfft", linear=True)
class IRFFT:
    """``np.fft.irfft`` to n points along a non-negative axis."""

    def forward(x, n, axis, norm):
        return np.fft.irfft(x, n, axis, norm)

    def vjp(g, y, inputs, needs, n, axis, norm):
        x_bar = _halved(_half_transform(g, n, axis, _OPPOSITE[norm]), n, axis, 2.0)
        return (_resized(x_bar, inputs[0].shape[axis], axis),)


@rules.primitive("fftn", linear=True)
class FFTN:
    """``np.fft.fftn`` of `s` points along different non-negative axes; `inverse` as for `FFT`."""

    def forward(x, s, axes, norm, inverse):
        return (np.fft.ifftn if inverse else np.fft.fftn)(x, s, axes, norm)

    def vjp(g, y, inputs, needs, s, axes, norm, inverse):
        x = inputs[0]
        return (_back_through(g, x, s, axes, norm, inverse, x.dtype),)


@rules.primitive("rfftn", linear=True)
class RFFTN:
    """``np.fft.rfftn`` of `s` points along different non-negative axes."""

    def forward(x, s, axes, norm):
        return np.fft.rfftn(x, s, axes, norm)

    def vjp(g, y, inputs, needs, s, axes, norm):
        x = inputs[0]
        g = _back_through(g, x, s[:-1], axes[:-1], norm, False, g.dtype)
        params = {"n": s[-1], "axis": axes[-1], "norm": norm}
        return RFFT.vjp(g, y, inputs, needs, **params)


@rules.primitive("irfftn", linear=True)
class IRFFTN:
    """``np.fft.irfftn`` to `s` points along different non-negative axes."""

    def forward(x, s, axes, norm):
        return np.fft.irfftn(x, s, axes, norm)

    def vjp(g, y, inputs, needs, s, axes, norm):
        x = inputs[0]
        g = IRFFT.vjp(g, y, inputs, needs, n=s[-1], axis=axes[-1], norm=norm)[0]
        return (_back_through(g, x, s[:-1], axes[:-1], norm, True, x.dtype),)


def _back_through(g, x, s, axes, norm, inverse, dtype):
    """Return the adjoint of a transform, for an input of `dtype` and the lengths of `x`."""
    if axes:
        g = _transforms(g, s, axes, _OPPOSITE[norm], not inverse)
    if dtype.kind != "c":
        g = _core.real(g)
    for axis in axes:
        g = _resized(g, x.shape[axis], axis)
    return g


def _transforms(t, s, axes, norm, inverse):
    params = {"s": s, "axes": axes, "norm": norm, "inverse": inverse}
    return rules.record(FFTN, (t,), params)


def _transform(t, n, axis, norm, inverse=False):
    params = {"n": n, "axis": axis, "norm": norm, "inverse": inverse}
    return rules.record(FFT, (t,), params)


def _half_transform(t, n, axis, norm):
    return rules.record(RFFT, (t,), {"n": n, "axis": axis, "norm": norm})


def _half_inverse(t, n, axis, norm):
    return rules.record(IRFFT, (t,), {"n": n, "axis": axis, "norm": norm})


# What comes in.


def _operand(a):
    t = a if type(a) is Tensor else numpy_api._tensor(a)
    return t if t.dtype.kind in "fc" else _core.astype(t, np.float64)


def _known(name, norm):
    if norm not in _OPPOSITE:
        raise ValueError(f"{name}: Invalid norm value {norm!r}; should be \"backward\", \"ortho\" "
                         "or \"forward\".")
    return norm


def _one_axis(name, a, n, axis, norm, complete=lambda n: n):
    """Return operand, length, non-negative axis and norm of a transform along one axis."""
    t = _operand(a)
    axis = normalize_axis_index(operator.index(axis), t.ndim, name)
    n = complete(t.shape[axis]) if n is None else operator.index(n)
    return t, n, axis, _known(name, norm)


def _lengths_and_axes(name, t, s, axes, to_real=False):
    """Return the lengths and axes of a transform of several axes, as NumPy completes them."""
    by_shape = s is None
    if axes is not None:
        axes = [normalize_axis_index(operator.index(k), t.ndim, name) for k in axes]
    if by_shape:
        s = t.shape if axes is None else [t.shape[k] for k in axes]
    s = list(s)
    if axes is None:
        if not by_shape:
            warnings.warn(
                f"{name}: `axes` should not be `None` if `s` is not `None`; "
                "deprecated in NumPy 2.0",
                DeprecationWarning, stacklevel=3)
        axes = [normalize_axis_index(k, t.ndim, name) for k in range(-len(s), 0)]
    if len(s) != len(axes):
        raise ValueError(
            f"{name}: Shape and axes have different lengths, {len(s)} and {len(axes)}.")
    if to_real and by_shape:
        s[-1] = (t.shape[axes[-1]] - 1) * 2
    if None in s:
        warnings.warn(f"{name}: None in `s` is deprecated in NumPy 2.0", DeprecationWarning,
                      stacklevel=3)
        if to_real and s[-1] is None:
            s[-1] = (t.shape[axes[-1]] - 1) * 2
        s = [-1 if n is None else n for n in s]
    s = tuple([t.shape[k] if n == -1 else n for n, k in zip(s, axes, strict=True)])
    return s, tuple(axes)


# One axis.


def fft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the discrete Fourier transform of `n` points along an axis.

    The input is cut, or padded with zeros, to n points, by default as many as it has.

    Raises
    ------
    ValueError
        If `n` is not positive, or there is no such norm.
    numpy.exceptions.AxisError
        If there is no such axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.fft([1.0, 0.0, 0.0, 0.0]).tolist()
    [(1+0j), (1+0j), (1+0j), (1+0j)]
    """
    return _transform(*_one_axis("fft", a, n, axis, norm))


def ifft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the inverse of `fft`, which takes and raises the same.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.ifft([4.0, 0.0, 0.0, 0.0]).tolist()
    [(1+0j), (1+0j), (1+0j), (1+0j)]
    """
    t, n, axis, norm = _one_axis("ifft", a, n, axis, norm)
    return _transform(t, n, axis, norm, True)


def rfft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the first ``n // 2 + 1`` points of the transform of real numbers.

    Raises
    ------
    TypeError
        If the input is complex.
    ValueError, numpy.exceptions.AxisError
        As `fft`.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    >>> y = ad.sum(ad.abs(ad.fft.rfft(x)) ** 2)
    >>> y.backward()
    >>> x.grad.tolist()
    [12.0, 20.0, 20.0, 28.0]
    """
    return _half_transform(*_one_axis("rfft", a, n, axis, norm))


def irfft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the `n` real numbers whose `rfft` is `a`; n is even by default.

    Raises
    ------
    ValueError, numpy.exceptions.AxisError
        As `fft`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.irfft([4.0, 0.0, 0.0]).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return _half_inverse(*_one_axis("irfft", a, n, axis, norm, _to_real))


def _to_real(n):
    """The default length of a real result, for half a spectrum of n points."""
    return (n - 1) * 2


def hfft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the real transform of `n` points of a signal with Hermitian symmetry, given by half.

    Raises
    ------
    ValueError, numpy.exceptions.AxisError
        As `fft`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.hfft([1.0, 0.0, 0.0]).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    t, n, axis, norm = _one_axis("hfft", a, n, axis, norm, _to_real)
    return _half_inverse(_core.conjugate(t), n, axis, _OPPOSITE[norm])


def ihfft(a, n=None, axis=-1, norm=None, out=None) -> Tensor:
    """Return the inverse of `hfft`: half of a signal whose transform are the real numbers `a`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `rfft`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.ihfft([1.0, 1.0, 1.0, 1.0]).tolist()
    [(1-0j), -0j, -0j]
    """
    t, n, axis, norm = _one_axis("ihfft", a, n, axis, norm)
    return _core.conjugate(_half_transform(t, n, axis, _OPPOSITE[norm]))


# Several axes.  An axis that is given twice is transformed twice, in NumPy's order.


def fftn(a, s=None, axes=None, norm=None, out=None) -> Tensor:
    """Return the transform along `axes` (by default all) of `s` points along each.

    Raises
    ------
    ValueError
        If `s` and `axes` differ in length, a length is not positive, or there is no such norm.
    numpy.exceptions.AxisError
        If there is no such axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.fftn(ad.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    return _all_axes("fftn", fft, a, s, axes, norm)


def ifftn(a, s=None, axes=None, norm=None, out=None) -> Tensor:
    """Return the inverse of `fftn`, which takes and raises the same.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.ifftn([[4.0, 0.0], [0.0, 0.0]]).tolist()
    [[(1+0j), (1+0j)], [(1+0j), (1+0j)]]
    """
    return _all_axes("ifftn", ifft, a, s, axes, norm)


def _all_axes(name, function, a, s, axes, norm):
    t = _operand(a)
    _known(name, norm)
    s, axes = _lengths_and_axes(name, t, s, axes)
    if axes and len(set(axes)) == len(axes):
        return _transforms(t, s, axes, norm, function is ifft)
    for n, axis in zip(reversed(s), reversed(axes), strict=True):
        t = function(t, n, axis, norm)
    return t


def rfftn(a, s=None, axes=None, norm=None, out=None) -> Tensor:
    """Return the transform of real numbers along `axes`, half of it along the last.

    Raises
    ------
    TypeError
        If the input is complex.
    ValueError, numpy.exceptions.AxisError
        As `fftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.rfftn(ad.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    return _real_axes("rfftn", a, s, axes, norm)


def _real_axes(name, a, s, axes, norm):
    t = _operand(a)
    _known(name, norm)
    s, axes = _lengths_and_axes(name, t, s, axes)
    if axes and len(set(axes)) == len(axes):
        return rules.record(RFFTN, (t,), {"s": s, "axes": axes, "norm": norm})
    t = rfft(t, s[-1], axes[-1], norm)
    for n, axis in zip(s[-2::-1], axes[-2::-1], strict=True):
        t = fft(t, n, axis, norm)
    return t


def irfftn(a, s=None, axes=None, norm=None, out=None) -> Tensor:
    """Return the real numbers whose `rfftn` is `a`.

    Raises
    ------
    ValueError, numpy.exceptions.AxisError
        As `fftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.irfftn([[4.0, 0.0], [0.0, 0.0]]).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return _to_real_axes("irfftn", a, s, axes, norm)


def _to_real_axes(name, a, s, axes, norm):
    t = _operand(a)
    _known(name, norm)
    s, axes = _lengths_and_axes(name, t, s, axes, True)
    if axes and len(set(axes)) == len(axes):
        return rules.record(IRFFTN, (t,), {"s": s, "axes": axes, "norm": norm})
    for n, axis in zip(s[:-1], axes[:-1], strict=True):
        t = ifft(t, n, axis, norm)
    return irfft(t, s[-1], axes[-1], norm)


def fft2(a, s=None, axes=(-2, -1), norm=None, out=None) -> Tensor:
    """Return the transform along two axes; see `fftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.fft2(ad.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    return _all_axes("fft2", fft, a, s, axes, norm)


def ifft2(a, s=None, axes=(-2, -1), norm=None, out=None) -> Tensor:
    """Return the inverse of `fft2`; see `ifftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.ifft2([[4.0, 0.0], [0.0, 0.0]]).tolist()
    [[(1+0j), (1+0j)], [(1+0j), (1+0j)]]
    """
    return _all_axes("ifft2", ifft, a, s, axes, norm)


def rfft2(a, s=None, axes=(-2, -1), norm=None, out=None) -> Tensor:
    """Return the transform of real numbers along two axes, half of it along the last; see `rfftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.rfft2(ad.ones((2, 2))).tolist()
    [[(4+0j), 0j], [0j, 0j]]
    """
    return _real_axes("rfft2", a, s, axes, norm)


def irfft2(a, s=None, axes=(-2, -1), norm=None, out=None) -> Tensor:
    """Return the inverse of `rfft2`; see `irfftn`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.irfft2([[4.0, 0.0], [0.0, 0.0]]).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return _to_real_axes("irfft2", a, s, axes, norm)


# Shifts and frequencies.


def fftshift(x, axes=None) -> Tensor:
    """Return the tensor with frequency 0 moved to the middle of `axes` (by default all).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.fftshift([0.0, 1.0, 2.0, -2.0, -1.0]).tolist()
    [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    return _shifted(x, axes, 1)


def ifftshift(x, axes=None) -> Tensor:
    """Return the inverse of `fftshift`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.ifftshift([-2.0, -1.0, 0.0, 1.0, 2.0]).tolist()
    [0.0, 1.0, 2.0, -2.0, -1.0]
    """
    return _shifted(x, axes, -1)


def _shifted(x, axes, sign):
    t = numpy_api._tensor(x)
    if axes is None:
        axes = tuple(range(t.ndim))
    elif isinstance(axes, (int, np.integer)):
        axes = (int(axes),)
    return numpy_api.roll(t, [sign * (t.shape[k] // 2) for k in axes], axes) if axes else t


def fftfreq(n, d=1.0, device=None, *, dtype=None) -> Tensor:
    """Return the frequencies of the points of an `fft` of n samples that lie `d` apart.

    Raises
    ------
    ValueError
        If `n` is not an integer.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.fftfreq(4, 0.5).tolist()
    [0.0, 0.5, -1.0, -0.5]
    """
    return _frequencies("fftfreq", n, d, device, dtype, lambda n: np.fft.ifftshift(
        np.arange(-(n // 2), (n - 1) // 2 + 1)))


def rfftfreq(n, d=1.0, device=None, *, dtype=None) -> Tensor:
    """Return the frequencies of the points of an `rfft` of n samples that lie `d` apart.

    Raises
    ------
    ValueError
        If `n` is not an integer.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fft.rfftfreq(4, 0.5).tolist()
    [0.0, 0.5, 1.0]
    """
    return _frequencies("rfftfreq", n, d, device, dtype, lambda n: np.arange(n // 2 + 1))


def _frequencies(name, n, d, device, dtype, numbers):
    if not isinstance(n, (int, np.integer)):
        raise ValueError(f"{name}: n should be an integer, got {type(n).__name__}")
    exchange.check_device(name, device)
    found = numpy_api._tensor(numbers(int(n)) * (1.0 / (n * d)))
    return found if dtype is None else numpy_api.astype(found, dtype, copy=False)


numpy_api.take_out(globals())
numpy_api.FUNCTIONS.update({
    getattr(np.fft, name): globals()[name] for name in __all__ if not name.endswith("freq")
})
