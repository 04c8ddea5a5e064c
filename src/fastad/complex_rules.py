"""Complex numbers: the elementwise functions whose derivative is not a row's own formula.

Every row of the op table that NumPy computes for complex numbers is a primitive over complex
tensors too, with the row's partials (``_core``).  Here are those that are not holomorphic, or that
NumPy computes by a function of its own, and the parts of a complex number.

The cotangent of ``z = x + iy`` is ``dL/dx + i dL/dy``.  A holomorphic f pulls g back to
``g * conj(f'(z))`` and pushes a tangent to ``f'(z) * z_dot``; a real operand receives the real
part.
"""

from __future__ import annotations

import math

import numpy as np

from . import _core
from .rules import primitive, record, where, zmul

_sign = _core.elementwise["sign"]
_absolute = _core.elementwise["absolute"]
_arctan2 = _core.elementwise["arctan2"]


@primitive("absolute", reads_inputs=True)
class ABSOLUTE:
    """The modulus; its gradient at 0 is 0."""

    def forward(z):
        return np.absolute(z)

    def vjp(g, y, inputs, needs):
        return (zmul(g, _sign(inputs[0])),)

    def jvp(tangents, y, inputs):
        return _core.real(zmul(tangents[0], _core.conjugate(_sign(inputs[0]))))


def _along_the_circle(u, z):
    """Return the change of ``z / |z|`` when z changes by `u`; 0 at 0.  It is its own adjoint."""
    radius = _absolute(z)
    zero = radius == 0.0
    direction = _sign(z)
    turn = _core.imag(zmul(u, _core.conjugate(direction))) / where(zero, 1.0, radius)
    return zmul(where(zero, 0.0, turn), direction * 1j)


@primitive("sign", reads_inputs=True)
class SIGN:
    """The direction ``z / |z|``, and 0 at 0."""

    def forward(z):
        return np.sign(z)

    def vjp(g, y, inputs, needs):
        return (_along_the_circle(g, inputs[0]),)

    def jvp(tangents, y, inputs):
        return _along_the_circle(tangents[0], inputs[0])


@primitive("where", reads_inputs=True)
class WHERE:
    """Of two complex tensors the elements that a condition chooses."""

    def forward(c, a, b):
        return np.where(c, a, b)

    def vjp(g, y, inputs, needs):
        c, a, b = inputs
        return (
            None,
            _core.sum_to(where(c, g, 0.0), a.shape) if needs[1] else None,
            _core.sum_to(where(c, 0.0, g), b.shape) if needs[2] else None,
        )

    def jvp(tangents, y, inputs):
        a_dot, b_dot = [0.0 if t is None else t for t in tangents[1:]]
        if tangents[1] is None and tangents[2] is None:
            return None
        return _core.broadcast_to(where(inputs[0], a_dot, b_dot), y.shape)


@primitive("sinc_of_complex", reads_inputs=True)
class SINC:
    """``np.sinc`` or, without cancellation, its derivative of an order."""

    def forward(z, order):
        if order == 0:
            return np.sinc(z)
        w = np.pi * z.astype(np.complex128)
        near = np.abs(w) < order + 1.0
        y = np.where(near, _sinc_series(np.where(near, w, 0.0), order),
                     _sinc_upwards(np.where(near, 1.0, w), order))
        return (np.pi**order * y).astype(z.dtype)

    def vjp(g, y, inputs, needs, order):
        slope = record(SINC, inputs, {"order": order + 1})
        return (zmul(g, _core.conjugate(slope)),)

    def jvp(tangents, y, inputs, order):
        return zmul(tangents[0], record(SINC, inputs, {"order": order + 1}))


def _sinc_series(w, n):
    """Return the n-th derivative of ``sin(w) / w`` by its power series, for moderate w."""
    y = np.zeros_like(w)
    for k in range((n + 1) // 2, n + 30):
        y += (-1) ** k / (2 * k + 1) / math.factorial(2 * k - n) * w ** (2 * k - n)
    return y


def _sinc_upwards(w, n):
    """Return the same for w that are not small: ``w S^(k) + k S^(k-1) = sin(w + k pi/2)``."""
    turned = (np.sin(w), np.cos(w), -np.sin(w), -np.cos(w))
    y = turned[0] / w
    for k in range(1, n + 1):
        y = (turned[k % 4] - k * y) / w
    return y


@primitive("round_of_complex")
class ROUND:
    """Real and imaginary parts rounded to a number of decimals, each of them constant."""

    def forward(z, decimals):
        return np.round(z, decimals)

    def vjp(g, y, inputs, needs, decimals):
        return (zmul(g, 0.0),)

    def jvp(tangents, y, inputs, decimals):
        return None


def rounded(z, decimals):
    """Record the parts of a complex tensor rounded."""
    return record(ROUND, (z,), {"decimals": decimals})


def angle(z, deg=False):
    """Return the argument of a complex tensor, in radians or with `deg` in degrees."""
    parts = (_core.imag(z), _core.real(z)) if z.dtype.kind == "c" else (0.0, z)
    y = _arctan2(*parts)
    return y * (180.0 / np.pi) if deg else y


_core.register_complex({
    "absolute": lambda z: record(ABSOLUTE, (z,), {}),
    "sign": lambda z: record(SIGN, (z,), {}),
    "where": lambda c, a, b: record(WHERE, (c, a, b), {}),
    "sinc": lambda z: record(SINC, (z,), {"order": 0}),
})
