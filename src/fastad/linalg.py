"""``numpy.linalg`` over tensors."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from . import _core, numpy_api, rules
from ._core import Tensor

__all__ = ["norm"]


def norm(x, ord=None, axis=None, keepdims=False) -> Tensor:
    """Return the norm of vectors, or of matrices when `axis` or `ord` says so.

    The gradient of a norm that is 0 is 0.  Matrix norms of order 2, -2 and "nuc" need singular
    values and have no gradient here.

    Raises
    ------
    ValueError
        If the order does not fit the number of axes.
    TypeError
        If the order has no gradient and `x` requires one.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([3.0, 4.0], requires_grad=True)
    >>> y = ad.linalg.norm(x)
    >>> y.backward()
    >>> y.item(), x.grad.tolist()
    (5.0, [0.6, 0.8])
    """
    t = numpy_api.asarray(x)
    if t.dtype.kind not in "fc":
        t = _core.astype(t, np.float64)
    if axis is None and (ord is None or (ord == 2 and t.ndim == 1)):
        return rules.norm(t, None, keepdims)
    axes = tuple(range(t.ndim)) if axis is None else normalize_axis_tuple(axis, t.ndim, "norm")
    if axis is None and t.ndim == 2 and ord in ("fro", "f"):
        return rules.norm(t, None, keepdims)
    if len(axes) == 1:
        return _vector_norm(t, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(t, ord, axes, keepdims)
    raise ValueError(f"norm: wants one or two axes, got {axes}")


def _vector_norm(t, order, axes, keepdims):
    if order is None or order == 2:
        return rules.norm(t, axes, keepdims)
    if isinstance(order, str):
        raise ValueError(f"norm: order {order!r} is not one for vectors")
    if order == 0:
        # nan counts, as in NumPy; the gradient of a count is 0
        ones = numpy_api.where(t == t, numpy_api.sign(abs(t)), 1.0)
        return _core.sum(ones, axes, keepdims)
    sizes = abs(t)
    if order == np.inf:
        return numpy_api.max(sizes, axes, keepdims=keepdims, initial=0)
    if order == -np.inf:
        return numpy_api.min(sizes, axes, keepdims=keepdims)
    if order == 1:
        return _core.sum(sizes, axes, keepdims)
    total = _core.sum(sizes**order, axes, keepdims)
    exponent = np.reciprocal(order, dtype=total.dtype)
    if order < 0:
        return total**exponent
    return numpy_api.root_or_zero(total, lambda s: s**exponent)


def _matrix_norm(t, order, axes, keepdims):
    if order in (None, "fro", "f"):
        return rules.norm(t, axes, keepdims)
    if order in (1, -1, np.inf, -np.inf):
        rows, columns = axes if order in (1, -1) else axes[::-1]
        sums = _core.sum(abs(t), rows, True)
        if order > 0:
            y = numpy_api.max(sums, columns, keepdims=True, initial=0)
        else:
            y = numpy_api.min(sums, columns, keepdims=True)
        return y if keepdims else numpy_api.squeeze(y, axes)
    # NumPy knows the rest: singular values, or an error
    return numpy_api.without_gradient(np.linalg.norm, (t, order, axes, keepdims), {})


numpy_api.FUNCTIONS[np.linalg.norm] = norm
numpy_api.FUNCTIONS[np.linalg.matrix_transpose] = numpy_api.matrix_transpose
