"""``numpy.lib.scimath`` over tensors: functions that are complex outside their real domain."""

from __future__ import annotations

import numpy as np

from . import _core, numpy_api
from ._core import Tensor
from .numpy_api import _floating, _tensor

__all__: list[str] = []         # NumPy has these names in numpy.lib.scimath alone

_elementwise = _core.elementwise


def _complex(t):
    """Return a tensor as complex numbers: short ones if its own numbers are."""
    return _core.astype(t, np.complex64 if t.dtype.char in "fbhBHF" else np.complex128)


def _not_below_zero(x):
    t = _tensor(x)
    return _complex(t) if t.dtype.kind != "c" and bool(numpy_api.any(t < 0)) else t


def _inside_one(x):
    t = _tensor(x)
    outside = t.dtype.kind != "c" and bool(numpy_api.any(abs(_floating(t)) > 1))
    return _complex(t) if outside else t


def sqrt(x) -> Tensor:
    """Return the square roots; complex ones if an element is negative.

    Examples
    --------
    >>> import fastad as ad, numpy as np
    >>> np.lib.scimath.sqrt(ad.tensor([1.0, -4.0])).tolist()
    [(1+0j), 2j]
    """
    return _elementwise["sqrt"](_not_below_zero(x))


def log(x) -> Tensor:
    """Return the logarithms; complex ones if an element is negative."""
    return _elementwise["log"](_not_below_zero(x))


def log2(x) -> Tensor:
    """Return the logarithms to base 2; complex ones if an element is negative."""
    return _elementwise["log2"](_not_below_zero(x))


def log10(x) -> Tensor:
    """Return the logarithms to base 10; complex ones if an element is negative."""
    return _elementwise["log10"](_not_below_zero(x))


def logn(n, x) -> Tensor:
    """Return the logarithms to base `n`; complex ones if an element is negative."""
    return log(x) / log(n)


def power(x, p) -> Tensor:
    """Return powers; complex ones if an element of `x` is negative."""
    p = _tensor(p)
    if p.dtype.kind in "iu" and bool(numpy_api.any(p < 0)):
        p = p * 1.0
    return _elementwise["power"](_not_below_zero(x), p)


def arccos(x) -> Tensor:
    """Return the inverse cosines; complex ones if an element is larger than 1 or less than -1."""
    return _elementwise["arccos"](_inside_one(x))


def arcsin(x) -> Tensor:
    """Return the inverse sines; complex ones if an element is larger than 1 or less than -1."""
    return _elementwise["arcsin"](_inside_one(x))


def arctanh(x) -> Tensor:
    """Return the inverse hyperbolic tangents; complex ones if an element is beyond 1 or -1."""
    return _elementwise["arctanh"](_inside_one(x))


for _function in (sqrt, log, log2, log10, logn, power, arccos, arcsin, arctanh):
    numpy_api.FUNCTIONS[getattr(np.lib.scimath, _function.__name__)] = _function
