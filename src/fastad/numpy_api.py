"""NumPy's functions over tensors, by NumPy's names and signatures, and NumPy's two protocols.

A function takes tensors, arrays, numbers and nested lists of these and returns a `Tensor`; its
value is NumPy's, bit for bit.  Truth values of 0-d operands are ``np.bool_``, and functions that
answer a question about whole arrays (``allclose``, ``shape``) return what NumPy returns.

``np.<name>(tensor)`` comes here through `array_ufunc` and `array_function`, which the tensor's
``__array_ufunc__`` and ``__array_function__`` call.  Where a function takes ``out``, a tensor given
as such becomes the result, history included (`_takes_out`).
"""

from __future__ import annotations

import functools
import operator
import sys
from math import prod as _product

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import _core, assignment, complex_rules, exchange, rules
from ._core import Tensor, as_tensor
from ._core import array as _primal
from .assignment import TARGETS, along, into
from .rules import GETITEM, take_index
from .rules import where as _where
from .statements import states

_FLOAT32 = np.dtype(np.float32)
_maximum = _core.elementwise["maximum"]
_minimum = _core.elementwise["minimum"]
_add = _core.elementwise["add"]
_clip = _core.elementwise["clip"]
_positive = _core.elementwise["positive"]
_multiply = _core.elementwise["multiply"]
_rint = _core.elementwise["rint"]
_sqrt = _core.elementwise["sqrt"]
_square = _core.elementwise["square"]
_absolute = _core.elementwise["absolute"]
_view = _core.view
_shown = _core.shown

_NOT_GIVEN = np._NoValue

# kinds of the dtypes that gradients flow through
_INEXACT = "fc"

# Public functions below have the names of these builtins.
_abs, _all, _any, _divmod, _max, _min = abs, all, any, divmod, max, min


# What comes in, what goes out.


def _tensor(obj):
    """Return `obj` as a tensor; lists may hold tensors, whose gradients then flow."""
    if type(obj) is Tensor:
        return obj
    if isinstance(obj, (list, tuple)) and _holds_tensor(obj):
        return stack(obj)
    return as_tensor(obj)


def _holds_tensor(obj):
    for item in obj:
        kind = type(item)
        if kind is Tensor or (kind in (list, tuple) and _holds_tensor(item)):
            return True
    return False


def _same_dtype(tensors):
    """Cast floating tensors to the dtype that NumPy gives to all of them together."""
    first = tensors[0].dtype
    for t in tensors:
        if t.dtype is not first and t.dtype != first:
            break
    else:
        return tensors
    dtype = np.result_type(*[t.dtype for t in tensors])
    if dtype.kind not in _INEXACT:
        return tensors
    return [t if t.dtype == dtype else _core.astype(t, dtype) for t in tensors]


def _floating(t):
    """Return `t`, or for integers and bools their values as float64."""
    return t if t.dtype.kind in _INEXACT else _core.astype(t, np.float64)


def _by_numpy(function, args, kwargs):
    """Return a NumPy function's result for values: a tensor, or ``np.bool_`` for one truth value.

    While a trace is recorded this follows the values of the tensors among `args`.
    """
    t = _core.by_numpy(function, args, kwargs)
    return t if t.dtype.kind != "b" or t.ndim else _primal(t)[()]


def _values(obj):
    """Return `obj` with arrays in place of the tensors in it, also inside lists and dicts."""
    kind = type(obj)
    if kind is Tensor:
        return _primal(obj)
    if kind is list or kind is tuple:
        return kind([_values(item) for item in obj])
    if kind is dict:
        return {key: _values(item) for key, item in obj.items()}
    return obj


def _wrapped(obj):
    """Return NumPy's result with tensors in place of its arrays and numbers."""
    if isinstance(obj, np.bool_):
        return obj
    if isinstance(obj, (np.ndarray, np.number)):
        return _core.wrap(obj, copy=False) if obj.dtype.kind in "fciub" else obj
    if isinstance(obj, tuple) and type(obj) is not tuple:
        return type(obj)(*[_wrapped(item) for item in obj])
    if isinstance(obj, (list, tuple)):
        return type(obj)([_wrapped(item) for item in obj])
    return obj


def _requires_grad(obj):
    kind = type(obj)
    if kind is Tensor:
        return obj.requires_grad
    if kind is list or kind is tuple:
        return _any(map(_requires_grad, obj))
    return kind is dict and _any(map(_requires_grad, obj.values()))


def _axes(name, axis, ndim):
    """Return a reduction's axis as None or as a tuple of non-negative axes.

    As in NumPy a number has an axis 0, or -1, for those who name it alone.
    """
    if not ndim and isinstance(axis, (int, np.integer)):
        normalize_axis_index(axis, 1, name)
        return None
    return None if axis is None else normalize_axis_tuple(axis, ndim, name)


def _by_dtype(function, t, options):
    """Return NumPy's result in a dtype that no gradient flows through."""
    if t.dtype.kind in _INEXACT and _recording(t):
        raise TypeError(
            f"{function.__name__}: dtype {np.dtype(options['dtype'])} would lose the gradient; "
            "compute first and cast afterwards"
        )
    return _core.by_numpy(function, (t,), options)


def _frozen_indices(indices):
    """Return integer indices as an array of their own."""
    return np.array(_values(indices)).astype(np.intp, casting="same_kind")


# Creation.


def _created(values, requires_grad):
    t = _core.wrap(values, copy=False)
    if requires_grad:
        t.requires_grad_(True)
    return t


def zeros(shape, dtype=float, *, device=None, requires_grad=False) -> Tensor:
    """Return a tensor of zeros.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.zeros(3).tolist()
    [0.0, 0.0, 0.0]
    """
    return _created(np.zeros(shape, dtype, device=device), requires_grad)


def ones(shape, dtype=float, *, device=None, requires_grad=False) -> Tensor:
    """Return a tensor of ones.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ones((1, 2)).tolist()
    [[1.0, 1.0]]
    """
    return _created(np.ones(shape, dtype, device=device), requires_grad)


def full(shape, fill_value, dtype=None, *, device=None, requires_grad=False) -> Tensor:
    """Return a tensor in which every element is `fill_value`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.full(2, 7.0).tolist()
    [7.0, 7.0]
    """
    if type(fill_value) is Tensor and dtype is None and shape != () and (
            not fill_value.ndim and fill_value.dtype.kind in _INEXACT):
        exchange.check_device("full", device)
        y = _core.broadcast_to(fill_value, shape)
        return y.requires_grad_() if requires_grad else y
    if _requires_grad(fill_value):
        exchange.check_device("full", device)
        if dtype is not None:
            fill_value = _core.astype(fill_value, dtype)
        return broadcast_to(fill_value, shape)
    return _created(np.full(shape, _values(fill_value), dtype, device=device), requires_grad)


def empty(shape, dtype=float, *, device=None, requires_grad=False) -> Tensor:
    """Return a tensor whose values are arbitrary.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.empty((2, 0)).shape
    (2, 0)
    """
    return _created(np.empty(shape, dtype, device=device), requires_grad)


def arange(start, stop=None, step=1, dtype=None, *, device=None, requires_grad=False) -> Tensor:
    """Return evenly spaced values of the half-open interval from `start` to `stop`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.arange(4, dtype=ad.float32).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    if stop is None:
        start, stop = 0, start
    bounds = _values((start, stop, step))
    return _created(np.arange(*bounds, dtype=dtype, device=device), requires_grad)


def eye(N, M=None, k=0, dtype=float, *, device=None, requires_grad=False) -> Tensor:
    """Return a matrix with ones on its k-th diagonal and zeros elsewhere.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return _created(np.eye(N, M, k, dtype, device=device), requires_grad)


def identity(n, dtype=float, *, requires_grad=False) -> Tensor:
    """Return the identity matrix.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.identity(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return _created(np.identity(n, dtype), requires_grad)


def zeros_like(a, dtype=None, *, shape=None, device=None, requires_grad=False) -> Tensor:
    """Return zeros of the shape and dtype of `a`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.zeros_like(ad.tensor([1.0, 2.0])).tolist()
    [0.0, 0.0]
    """
    return _created(np.zeros(*_like(a, shape, dtype), device=device), requires_grad)


def ones_like(a, dtype=None, *, shape=None, device=None, requires_grad=False) -> Tensor:
    """Return ones of the shape and dtype of `a`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ones_like(ad.tensor([1.0, 2.0])).tolist()
    [1.0, 1.0]
    """
    return _created(np.ones(*_like(a, shape, dtype), device=device), requires_grad)


def empty_like(prototype, dtype=None, *, shape=None, device=None, requires_grad=False) -> Tensor:
    """Return a tensor of the shape and dtype of `prototype` whose values are arbitrary.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.empty_like(ad.tensor([1.0, 2.0])).shape
    (2,)
    """
    return _created(np.empty(*_like(prototype, shape, dtype), device=device), requires_grad)


def full_like(a, fill_value, dtype=None, *, shape=None, device=None, requires_grad=False) -> Tensor:
    """Return a tensor of the shape and dtype of `a` filled with `fill_value`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.full_like(ad.tensor([1.0, 2.0]), 3.0).tolist()
    [3.0, 3.0]
    """
    shape, dtype = _like(a, shape, dtype)
    return full(shape, fill_value, dtype, device=device, requires_grad=requires_grad)


def _like(a, shape, dtype):
    a = _tensor(a)
    return a.shape if shape is None else shape, a.dtype if dtype is None else dtype


@states(np.array, rules.STACK, operands=0)
def _together(arrays):
    """Tensors as one, along a new first axis."""
    tensors = [_tensor(t) for t in arrays]
    first = tensors[0]
    if _all([t.shape == first.shape and t.dtype == first.dtype for t in tensors]):
        return rules.STACK, tensors, {"axis": 0}
    return stack(tensors)


def array(object, dtype=None, *, copy=True, ndmin=0, requires_grad=False) -> Tensor:
    """Return `object` as a tensor of its own; tensors inside lists keep their gradients.

    With `requires_grad` the result is a new leaf.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> ad.array([x, x * x]).requires_grad
    True
    """
    if type(object) is Tensor or (isinstance(object, (list, tuple)) and _holds_tensor(object)):
        t = object if type(object) is Tensor else _together(object)
        if dtype is not None and t.dtype != np.dtype(dtype):
            t = _core.astype(t, dtype)
        elif copy and t is object:
            t = _copied(t)
    else:
        t = _core.wrap(np.array(object, dtype), copy=False)
    if t.ndim < ndmin:
        t = _core.reshape(t, (1,) * (ndmin - t.ndim) + t.shape)
    if requires_grad:
        t = t.detach()
        t.requires_grad_(True)
    return t


def asarray(
    a, dtype=None, order=None, *, device=None, copy=None, requires_grad=False
) -> Tensor:
    """Return `a` itself if it is a tensor of that dtype, else a tensor with its values.

    An ndarray is copied, as its owner may write to it; ``copy=False`` shares its memory, if it has
    more than 1 KiB: then nobody may write to it as long as the tensor, or what was computed from
    it, is in use.

    Raises
    ------
    ValueError
        If ``copy=False`` and a copy is needed: for lists and numbers, for another dtype, for values
        not contiguous in C order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.asarray([1.0, 2.0]).tolist()
    [1.0, 2.0]
    """
    if type(a) is Tensor and dtype is None and device is None and not copy and not requires_grad:
        return a
    exchange.check_device("asarray", device)
    if copy is False:
        dtype = None if dtype is None else np.dtype(dtype)
        if type(a) is Tensor:
            shared = dtype is None or dtype == a.dtype
        elif shared := isinstance(a, np.ndarray) and dtype in (None, a.dtype):
            a = exchange.shared("asarray", a, False)
        if not shared:
            raise ValueError(
                f"asarray: copy=False, but a {type(a).__name__} needs a copy to become a tensor"
                + ("" if dtype is None else f" of {dtype}")
            )
    return array(a, dtype, copy=bool(copy), requires_grad=requires_grad)


def copy(a, order="K") -> Tensor:
    """Return a copy through which gradients flow.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.copy(ad.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return _copied(_tensor(a))


def _copied(t):
    return _positive(t) if t.dtype.kind in _INEXACT else _core.wrap(_primal(t))


def astype(x, dtype, *, copy=True, device=None) -> Tensor:
    """Return `x` with another dtype; gradients flow between floating dtypes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.astype(ad.tensor([1.5]), ad.float32).dtype
    dtype('float32')
    """
    if device is not None:
        exchange.check_device("astype", device)
    t = _tensor(x)
    if t.dtype == np.dtype(dtype):
        return _copied(t) if copy else t
    return _core.astype(t, dtype)


# Reductions.


def sum(
    a, axis=None, dtype=None, out=None, keepdims=False, initial=_NOT_GIVEN, where=True
) -> Tensor:
    """Return the sum of elements over `axis` (an integer, a tuple, or None for all).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.sum(ad.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).tolist()
    [4.0, 6.0]
    """
    t = a if type(a) is Tensor else _tensor(a)
    if out is not None:
        return into(out, sum(a, axis, dtype, None, keepdims, initial, where), "sum")
    if keepdims is not False or initial is not _NOT_GIVEN or where is not True:
        keepdims, initial, where = _given(keepdims, initial, where)
        if initial is not None or where is not True or _off_tape(t, dtype):
            return _reduced(np.sum, t, axis, dtype, keepdims, initial, where)
    return _sum_in(t, axis, dtype, keepdims)


def _given(keepdims, initial, where):
    """Return the options of a reduction with False, None, True for those that were not given."""
    if initial is None:
        raise TypeError("initial: wanted a number, got None")
    return (
        False if keepdims is _NOT_GIVEN else bool(keepdims),
        None if initial is _NOT_GIVEN else initial,
        True if where is _NOT_GIVEN else _values(where),
    )


def _off_tape(t, dtype):
    """Whether a reduction is NumPy's alone: over integers or bools, or into these."""
    kind = t.dtype.kind if dtype is None else np.dtype(dtype).kind
    return t.dtype.kind not in _INEXACT or kind not in _INEXACT


def _reduced(function, t, axis, dtype, keepdims, initial=None, where=True):
    """Reduce by NumPy's function with an initial value and a mask, or to no float."""
    options = {"axis": axis, "keepdims": keepdims}
    if dtype is not None:
        options["dtype"] = dtype
    if where is not True:
        options["where"] = where
    if initial is not None:
        options["initial"] = initial
    if _off_tape(t, dtype):
        return _by_dtype(function, t, _values(options))
    return GENERAL["reduce"](_REDUCING[function], t, **options)


_REDUCING = {np.sum: np.add, np.prod: np.multiply, np.max: np.maximum, np.min: np.minimum}


def _sum_in(t, axis, dtype, keepdims):
    if dtype is None or (t.dtype == dtype and t.dtype.kind in _INEXACT):
        return _core.sum(t, axis, keepdims)
    if _off_tape(t, dtype):
        return _reduced(np.sum, t, axis, dtype, keepdims)
    if t.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        t = _core.astype(t, dtype)
    return rules.sum_as(t, _axes("sum", axis, t.ndim), np.dtype(dtype), keepdims)


def prod(
    a, axis=None, dtype=None, out=None, keepdims=False, initial=_NOT_GIVEN, where=True
) -> Tensor:
    """Return the product of elements over `axis`; its derivatives are right at zeros too.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([0.0, 2.0, 3.0], requires_grad=True)
    >>> ad.prod(x).backward()
    >>> x.grad.tolist()
    [6.0, 0.0, 0.0]
    """
    t = _tensor(a)
    keepdims, initial, where = _given(keepdims, initial, where)
    if initial is not None or where is not True or _off_tape(t, dtype):
        return _reduced(np.prod, t, axis, dtype, keepdims, initial, where)
    if dtype is not None and t.dtype != dtype:
        t = _core.astype(t, dtype)
    return _prod_over(t, axis, keepdims)


def _prod_over(t, axis, keepdims):
    y = _core.reduction(rules.PROD, np.multiply.reduce, t, axis, keepdims)
    return rules.prod(t, _axes("prod", axis, t.ndim), keepdims) if y is None else y


def max(a, axis=None, out=None, keepdims=False, initial=_NOT_GIVEN, where=True) -> Tensor:
    """Return the maximum over `axis`; tied elements share its cotangent equally.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, 3.0, 3.0], requires_grad=True)
    >>> ad.max(x).backward()
    >>> x.grad.tolist()
    [0.0, 0.5, 0.5]
    """
    return _extremum(np.max, a, axis, out, keepdims, initial, where)


def min(a, axis=None, out=None, keepdims=False, initial=_NOT_GIVEN, where=True) -> Tensor:
    """Return the minimum over `axis`; tied elements share its cotangent equally.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.min(ad.tensor([[1.0, 2.0], [3.0, 0.0]]), axis=1).tolist()
    [1.0, 0.0]
    """
    return _extremum(np.min, a, axis, out, keepdims, initial, where)


def _extremum(function, a, axis, out, keepdims, initial, where):
    name = function.__name__.removeprefix("a")
    t = _tensor(a)
    keepdims, initial, where = _given(keepdims, initial, where)
    if where is not True and initial is None:
        raise ValueError(f"{name}: where= needs initial=, the result where nothing is left")
    if initial is not None:
        return _reduced(function, t, axis, None, keepdims, initial, where)
    return (_max_over if function is np.max else _min_over)(t, axis, keepdims)


def _max_over(t, axis, keepdims):
    y = _core.reduction(rules.MAX, np.maximum.reduce, t, axis, keepdims)
    return rules.amax(t, _axes("max", axis, t.ndim), keepdims) if y is None else y


def _min_over(t, axis, keepdims):
    y = _core.reduction(rules.MIN, np.minimum.reduce, t, axis, keepdims)
    return rules.amin(t, _axes("min", axis, t.ndim), keepdims) if y is None else y


def mean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True) -> Tensor:
    """Return the mean over `axis`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.mean(ad.tensor([1.0, 2.0, 6.0])).item()
    3.0
    """
    t = a if type(a) is Tensor else _tensor(a)
    if out is not None:
        return into(out, mean(a, axis, dtype, None, keepdims, where=where), "mean")
    if keepdims is not False or where is not True:
        keepdims, _, where = _given(keepdims, _NOT_GIVEN, where)
    if dtype is None:
        t = _floating(t)
    elif np.dtype(dtype).kind not in _INEXACT:
        return _by_values(np.mean, t, axis, dtype, keepdims, where)
    if where is True:
        count = _count("mean", t.shape, axis)
        return _divided(_sum_in(t, axis, dtype, keepdims), count)
    return _divided(
        _reduced(np.sum, t, axis, dtype, keepdims, None, where), _counts(t, axis, where, keepdims)
    )


def _by_values(function, t, axis, dtype, keepdims, where):
    """Reduce into a dtype that no gradient flows through, by NumPy."""
    options = {"axis": axis, "dtype": dtype, "keepdims": keepdims}
    if where is not True:
        options["where"] = where
    return _by_dtype(function, t, options)


def _counts(t, axis, where, keepdims):
    """Return how many elements a reduction over `axis` takes where the mask holds."""
    mask = np.broadcast_to(where, t.shape)
    return np.sum(mask, axis=axis, keepdims=keepdims, dtype=np.intp)


def _count(name, shape, axis):
    """Return how many elements a reduction over `axis` puts together."""
    if axis is None:
        return _product(shape)
    if type(axis) is int:
        return shape[normalize_axis_index(axis, len(shape), name)]
    return _product([shape[k] for k in normalize_axis_tuple(axis, len(shape), name)])


def _divided(t, count):
    """Divide by a number of elements as NumPy does: in float64, whatever the dtype."""
    if isinstance(count, np.ndarray):
        return t / count.astype(t.dtype)
    # in float32 the shorter division rounds the same while the divisor is exact
    if t.dtype == _FLOAT32 and np.float32(count) != count:
        return _core.astype(_core.astype(t, np.float64) / float(count), np.float32)
    if t.dtype == np.complex64:         # a complex quotient is rounded twice
        return _core.astype(_core.astype(t, np.complex128) / float(count), np.complex64)
    return t / float(count)


def var(
    a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=_NOT_GIVEN,
    correction=_NOT_GIVEN,
) -> Tensor:
    """Return the variance over `axis`: squares' sum over the count less `ddof`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.var(ad.tensor([1.0, 3.0])).item()
    1.0
    """
    t = _tensor(a)
    if correction is not _NOT_GIVEN:
        if ddof != 0:
            raise ValueError("var: ddof and correction say the same; give one of them")
        ddof = correction
    keepdims, _, where = _given(keepdims, _NOT_GIVEN, where)
    if dtype is None:
        t = _floating(t)
    if where is not True:
        count = _counts(t, axis, where, True)
        middle = _divided(_reduced(np.sum, t, axis, dtype, True, None, where), count)
    else:
        count = _count("var", t.shape, axis)
        middle = None
    if mean is not _NOT_GIVEN:
        middle = mean
    elif middle is None:
        middle = _divided(_sum_in(t, axis, dtype, True), count)
    deviation = t - middle
    if where is not True:
        count = _counts(t, axis, where, keepdims)
    if deviation.dtype.kind == "c":
        squares = _square(_core.real(deviation)) + _square(_core.imag(deviation))
        dtype = None
    else:
        squares = _square(deviation)
    if where is not True:
        squares = _reduced(np.sum, squares, axis, dtype, keepdims, None, where)
        return _divided(squares, np.maximum(count - ddof, 0))
    return _divided(_sum_in(squares, axis, dtype, keepdims), _max(count - ddof, 0))


def std(
    a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=_NOT_GIVEN,
    correction=_NOT_GIVEN,
) -> Tensor:
    """Return the standard deviation over `axis`; its gradient for equal values is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([2.0, 2.0], requires_grad=True)
    >>> ad.std(x).backward()
    >>> x.grad.tolist()
    [0.0, 0.0]
    """
    options = {"where": where, "mean": mean, "correction": correction}
    if axis is not None:
        a = _tensor(a)
        _count("std", a.shape, axis)        # refuses in its own name what is no axis
    return root_or_zero(var(a, axis, dtype, None, ddof, keepdims, **options), _sqrt)


def root_or_zero(t, root) -> Tensor:
    """Return ``root(t)`` whose derivative is 0, not inf, where `t` is 0."""
    zero = t == 0.0
    return _where(zero, 0.0, root(_where(zero, 1.0, t)))


def all(a, axis=None, out=None, keepdims=False, *, where=True):
    """Return whether all elements over `axis` are true: a bool tensor or ``np.bool_``.

    Examples
    --------
    >>> import fastad as ad
    >>> bool(ad.all(ad.tensor([1.0, 0.0])))
    False
    """
    return _truth_of(np.all, a, axis, keepdims, where)


def _truth_of(function, a, axis, keepdims, where):
    keepdims, _, where = _given(keepdims, _NOT_GIVEN, where)
    options = {"axis": axis, "keepdims": keepdims}
    if where is not True:
        options["where"] = where
    return _by_numpy(function, (_tensor(a),), options)


def any(a, axis=None, out=None, keepdims=False, *, where=True):
    """Return whether an element over `axis` is true: a bool tensor or ``np.bool_``.

    Examples
    --------
    >>> import fastad as ad
    >>> bool(ad.any(ad.tensor([1.0, 0.0])))
    True
    """
    return _truth_of(np.any, a, axis, keepdims, where)


def argmax(a, axis=None, out=None, *, keepdims=False) -> Tensor:
    """Return the index of the first maximum over `axis`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.argmax(ad.tensor([1.0, 3.0, 2.0])).item()
    1
    """
    return _by_numpy(np.argmax, (_tensor(a),), {"axis": axis, "keepdims": keepdims})


def argmin(a, axis=None, out=None, *, keepdims=False) -> Tensor:
    """Return the index of the first minimum over `axis`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.argmin(ad.tensor([1.0, 3.0, 0.0])).item()
    2
    """
    return _by_numpy(np.argmin, (_tensor(a),), {"axis": axis, "keepdims": keepdims})


def cumsum(a, axis=None, dtype=None, out=None) -> Tensor:
    """Return the sums of all elements up to each along `axis` (None: of the flat tensor).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.cumsum(ad.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 3.0, 6.0]
    """
    t = _tensor(a)
    if dtype is not None and _off_tape(t, dtype):
        return _by_dtype(np.cumsum, t, {"axis": axis, "dtype": dtype})
    if dtype is not None and t.dtype != dtype:
        t = _core.astype(t, dtype)
    if axis is None or not t.ndim:
        t, axis = _core.reshape(t, (-1,)), 0 if axis is None else normalize_axis_index(axis, 1)
    return rules.cumsum(t, normalize_axis_index(axis, t.ndim, "cumsum"))


# Products.


def matmul(x1, x2) -> Tensor:
    """Return the matrix product, batched over leading axes, as ``x1 @ x2`` does.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.matmul(ad.eye(2), ad.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return _core.matmul(x1, x2)


def dot(a, b, out=None) -> Tensor:
    """Return the dot product: of vectors, of matrices, or over one axis of each.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.arange(4, dtype=ad.float32, requires_grad=True)
    >>> y = 2 * ad.dot(x, x)
    >>> y.backward()
    >>> x.grad.tolist()
    [0.0, 4.0, 8.0, 12.0]
    """
    if out is not None:
        return into(out, dot(a, b), "dot")
    a = a if type(a) is Tensor else _tensor(a)
    b = b if type(b) is Tensor else _tensor(b)
    if not a.ndim or not b.ndim:
        return _multiply(a, b)
    # both are BLAS underneath: for up to two axes matmul's bits are dot's
    if a.ndim <= 2 and b.ndim <= 2 and a.shape[-1] == b.shape[0]:
        return _core.matmul(a, b)
    return rules.dot(*_same_dtype((a, b)))


def vdot(a, b) -> Tensor:
    """Return the dot product of `a`, conjugated if it is complex, and `b` taken as vectors.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.vdot(ad.ones((2, 2)), ad.ones((2, 2))).item()
    4.0
    """
    a, b = _same_dtype((_core.reshape(_tensor(a), (-1,)), _core.reshape(_tensor(b), (-1,))))
    return dot(_core.conjugate(a), b)


@states(np.inner, rules.INNER, operands=2)
def inner(a, b):
    """Return the sums of products over the last axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.inner(ad.tensor([1.0, 2.0]), ad.tensor([3.0, 4.0])).item()
    11.0
    """
    a, b = _tensor(a), _tensor(b)
    if not a.ndim or not b.ndim:
        return _multiply(a, b)
    return rules.INNER, _same_dtype((a, b)), {"axes": ((a.ndim - 1,), (b.ndim - 1,))}


def outer(a, b, out=None) -> Tensor:
    """Return the products of all elements of `a` (rows) with all of `b` (columns).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.outer(ad.tensor([1.0, 2.0]), ad.tensor([3.0, 4.0])).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    return _core.reshape(_tensor(a), (-1, 1)) * _core.reshape(_tensor(b), (1, -1))


def tensordot(a, b, axes=2) -> Tensor:
    """Return the sums of products over pairs of axes, or the last and first `axes` of them.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.tensordot(ad.ones((2, 3)), ad.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    a, b = _same_dtype((_tensor(a), _tensor(b)))
    if isinstance(axes, (int, np.integer)):
        count = operator.index(axes)
        if not 0 <= count <= _min(a.ndim, b.ndim):
            raise ValueError(
                f"tensordot: shapes {a.shape} and {b.shape} do not have {count} axes to sum over"
            )
        axes = range(a.ndim - count, a.ndim), range(count)
    over_a, over_b = axes
    over_a = normalize_axis_tuple(over_a, a.ndim, "tensordot")
    over_b = normalize_axis_tuple(over_b, b.ndim, "tensordot")
    return rules.tensordot(a, b, (over_a, over_b))


@states(np.einsum, rules.EINSUM, operands=-1)
def einsum(*operands, out=None, optimize=False):
    """Return Einstein's sum of products, in NumPy's notation.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.einsum("ij,j->i", ad.eye(2), ad.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    if not operands:
        raise ValueError("einsum: wants a subscripts string and operands, got nothing")
    if isinstance(operands[0], str):
        subscripts, tensors = operands[0], operands[1:]
    else:
        subscripts, tensors = _spelled_out(operands)
    tensors = _same_dtype([_tensor(t) for t in tensors])
    terms, labels = rules.einsum_terms(subscripts, [t.ndim for t in tensors])
    return rules.EINSUM, tensors, {
        "subscripts": subscripts, "terms": terms, "out": labels, "optimize": optimize}


def _spelled_out(operands):
    """Turn einsum's ``(a, [0, 1], b, [1, 2], [0, 2])`` into subscripts and operands."""

    def letters(labels):
        return "".join(["..." if k is Ellipsis else rules.LETTERS[k] for k in labels])

    pairs = len(operands) // 2
    subscripts = ",".join([letters(labels) for labels in operands[1 : 2 * pairs : 2]])
    if len(operands) % 2:
        subscripts += "->" + letters(operands[-1])
    return subscripts, operands[: 2 * pairs : 2]


@states(np.trace, rules.TRACE)
def trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    """Return the sum of a diagonal.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.trace(ad.tensor([[1.0, 2.0], [3.0, 4.0]])).item()
    5.0
    """
    t = _tensor(a)
    if dtype is not None and _off_tape(t, dtype):
        options = {"offset": offset, "axis1": axis1, "axis2": axis2, "dtype": dtype}
        return _by_dtype(np.trace, t, options)
    if dtype is not None and t.dtype != dtype:
        t = _core.astype(t, dtype)
    axis1, axis2 = _two_axes("trace", t, axis1, axis2)
    return rules.TRACE, (t,), {"offset": operator.index(offset), "axis1": axis1, "axis2": axis2}


def _two_axes(name, t, axis1, axis2):
    if t.ndim < 2:
        raise ValueError(f"{name}: needs at least two axes, got shape {t.shape}")
    axis1 = normalize_axis_index(axis1, t.ndim, name)
    axis2 = normalize_axis_index(axis2, t.ndim, name)
    if axis1 == axis2:
        raise ValueError(f"{name}: axis1 and axis2 are both {axis1}; they have to differ")
    return axis1, axis2


# Shapes.


def reshape(a, shape, order="C", *, copy=None) -> Tensor:
    """Return the same elements in another shape; one length may be -1.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.reshape(ad.arange(4), (2, -1)).tolist()
    [[0, 1], [2, 3]]
    """
    t = a if type(a) is Tensor else _tensor(a)
    if order == "C":
        y = _core.reshape(t, shape)
        return _copied(y) if copy else _reshaped_view(y, t)
    if order not in ("F", "A", "K"):
        raise ValueError(f"reshape: order must be one of 'C', 'F', 'A', got {order!r}")
    if order == "K":
        raise ValueError("reshape: order 'K' is not permitted for reshaping")
    if order == "A":                # tensors are in C order
        return _reshaped_view(_core.reshape(t, shape), t)
    shape = tuple(shape) if np.ndim(shape) else (shape,)
    y = _core.transpose(_core.reshape(_core.transpose(t), shape[::-1]))
    return _view(y, t, np.reshape, y.shape, "F", sure=False)


def _reshaped_view(y, t):
    return _view(y, t, np.reshape, y.shape)


def ravel(a, order="C") -> Tensor:
    """Return the elements in one axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ravel(ad.eye(2)).tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    t = _tensor(a)
    if order == "F":
        return reshape(t, (-1,), order)
    if order not in ("C", "A", "K"):
        raise ValueError(f"ravel: order must be one of 'C', 'F', 'A', 'K', got {order!r}")
    # unlike reshape, it copies what does not lie side by side
    return _view(_core.reshape(t, (-1,)), t, np.ravel)


def transpose(a, axes=None) -> Tensor:
    """Return the tensor with its axes permuted, reversed by default.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.transpose(ad.zeros((2, 3))).shape
    (3, 2)
    """
    t = a if type(a) is Tensor else _tensor(a)
    y = _shown(np.transpose, (t, axes), {})
    return y if y is not NotImplemented else _view(
        _core.transpose(t, axes), t, np.transpose, axes)


def matrix_transpose(x, /) -> Tensor:
    """Return the tensor with its last two axes exchanged.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.matrix_transpose(ad.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    t = _tensor(x)
    _two_axes("matrix_transpose", t, -1, -2)
    return swapaxes(t, -1, -2)


def moveaxis(a, source, destination) -> Tensor:
    """Return the tensor with axes moved to new places, the others in their old order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.moveaxis(ad.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    t = _tensor(a)
    source = normalize_axis_tuple(source, t.ndim, "moveaxis: source")
    destination = normalize_axis_tuple(destination, t.ndim, "moveaxis: destination")
    if len(source) != len(destination):
        raise ValueError(
            f"moveaxis: source and destination must have as many axes, "
            f"got {len(source)} and {len(destination)}"
        )
    order = [k for k in range(t.ndim) if k not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return transpose(t, tuple(order))


def swapaxes(a, axis1, axis2) -> Tensor:
    """Return the tensor with two axes exchanged.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.swapaxes(ad.zeros((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    t = _tensor(a)
    order = list(range(t.ndim))
    axis1 = normalize_axis_index(axis1, t.ndim, "swapaxes")
    axis2 = normalize_axis_index(axis2, t.ndim, "swapaxes")
    order[axis1], order[axis2] = axis2, axis1
    return transpose(t, tuple(order))


def squeeze(a, axis=None) -> Tensor:
    """Return the tensor without axes of length 1 (those in `axis`, or all of them).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.squeeze(ad.zeros((1, 3, 1))).shape
    (3,)
    """
    t = _tensor(a)
    if axis is None:
        return reshape(t, tuple([n for n in t.shape if n != 1]))
    axes = _axes("squeeze", axis, t.ndim)
    if axes is None:                # a number has no axis to lose
        return t
    if _any([t.shape[k] != 1 for k in axes]):
        raise ValueError(f"squeeze: axis {axis} of shape {t.shape} must have length 1")
    return reshape(t, tuple([n for k, n in enumerate(t.shape) if k not in axes]))


def expand_dims(a, axis) -> Tensor:
    """Return the tensor with axes of length 1 inserted, at these places of the result.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.expand_dims(ad.zeros(3), (0, 2)).shape
    (1, 3, 1)
    """
    t = _tensor(a)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    ndim = t.ndim + len(axes)
    axes = normalize_axis_tuple(axes, ndim, "expand_dims")
    lengths = iter(t.shape)
    return reshape(t, tuple([1 if k in axes else next(lengths) for k in range(ndim)]))


def broadcast_to(array, shape) -> Tensor:
    """Return the tensor repeated to a new shape by the rules of broadcasting.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.broadcast_to(ad.tensor([1.0, 2.0]), (2, 2)).tolist()
    [[1.0, 2.0], [1.0, 2.0]]
    """
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    t = array if type(array) is Tensor else _tensor(array)
    y = _shown(np.broadcast_to, (t, shape), {})
    return y if y is not NotImplemented else _view(
        _core.broadcast_to(t, shape), t, np.broadcast_to, shape, readonly=True)


def broadcast_arrays(*args) -> tuple:
    """Return tensors that all have the shape to which they broadcast.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.shape for t in ad.broadcast_arrays(ad.zeros((3, 1)), ad.zeros(4))]
    [(3, 4), (3, 4)]
    """
    tensors = [_tensor(t) for t in args]
    shape = np.broadcast_shapes(*[t.shape for t in tensors])
    return tuple([broadcast_to(t, shape) for t in tensors])


def atleast_1d(*arys):
    """Return tensors with at least one axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.atleast_1d(3.0).shape
    (1,)
    """
    return _each(arys, lambda t: t if t.ndim else reshape(t, (1,)))


def atleast_2d(*arys):
    """Return tensors with at least two axes, new ones in front.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.atleast_2d(ad.zeros(3)).shape
    (1, 3)
    """
    return _each(
        arys, lambda t: t if t.ndim > 1 else reshape(t, (1,) * (2 - t.ndim) + t.shape)
    )


def atleast_3d(*arys):
    """Return tensors with at least three axes, as NumPy places them.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.atleast_3d(ad.zeros((2, 3))).shape
    (2, 3, 1)
    """
    return _each(arys, _with_three_axes)


def _with_three_axes(t):
    return t if t.ndim > 2 else reshape(t, _three_axes(t.shape))


def _three_axes(shape):
    """Return the shape that NumPy gives an array of this one to make it three axes at least."""
    if len(shape) > 2:
        return shape
    return {0: (1, 1, 1), 1: (1, *shape, 1), 2: (*shape, 1)}[len(shape)]


def _each(arys, function):
    tensors = [function(_tensor(t)) for t in arys]
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


# Joining and splitting.


def _sequence(name, arrays):
    """Return the operands of a joining function as tensors of one dtype."""
    if type(arrays) is Tensor and not arrays.ndim:
        raise TypeError(f"{name}: wants a sequence of arrays, got a 0-d tensor")
    tensors = [a if type(a) is Tensor else _tensor(a) for a in arrays]
    if not tensors:
        raise ValueError(f"{name}: needs at least one array")
    return _same_dtype(tensors)


@states(np.concatenate, rules.CONCATENATE, operands=0)
def concatenate(arrays, axis=0, out=None, *, dtype=None):
    """Return arrays joined along an axis that they have (None: flattened first).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.concatenate([ad.zeros(1), [1.0, 2.0]]).tolist()
    [0.0, 1.0, 2.0]
    """
    tensors = _sequence("concatenate", arrays)
    if axis is None:
        tensors, axis = [_core.reshape(t, (-1,)) for t in tensors], 0
    if dtype is not None:
        tensors = [_cast("concatenate", t, dtype) for t in tensors]
    return rules.CONCATENATE, tensors, {"axis": axis}


def _at_least_2d(t):
    return t if t.ndim > 1 else _core.reshape(t, (1,) * (2 - t.ndim) + t.shape)


def _stacked(name, tensors, axis, dtype=None):
    """State how tensors are joined in the name of another function."""
    if dtype is not None:
        tensors = [_cast(name, t, dtype) for t in tensors]
    return rules.CONCATENATE, _same_dtype(tensors), {"axis": axis}


def stack(arrays, axis=0, out=None, *, dtype=None) -> Tensor:
    """Return arrays of one shape joined along a new axis.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(3.0, requires_grad=True)
    >>> ad.stack([x, 2 * x]).tolist()
    [3.0, 6.0]
    """
    if out is not None:
        return into(out, stack(arrays, axis, dtype=dtype), "stack")
    tensors = _sequence("stack", arrays)
    shape = tensors[0].shape
    for t in tensors:
        if t.shape != shape:
            raise ValueError(f"stack: shapes must all be the same, got {shape} and {t.shape}")
    if dtype is not None:
        tensors = [_cast("stack", t, dtype) for t in tensors]
    return rules.stack(tensors, normalize_axis_index(axis, tensors[0].ndim + 1, "stack"))


@states(np.vstack, rules.CONCATENATE, operands=0)
def vstack(tup, *, dtype=None):
    """Return arrays joined as rows.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.vstack([ad.zeros(2), ad.ones(2)]).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return _stacked("vstack", [_at_least_2d(t) for t in _sequence("vstack", tup)], 0, dtype)


@states(np.hstack, rules.CONCATENATE, operands=0)
def hstack(tup, *, dtype=None):
    """Return arrays joined along the second axis, or the first if there is one only.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.hstack([ad.zeros(2), ad.ones(1)]).tolist()
    [0.0, 0.0, 1.0]
    """
    tensors = [t if t.ndim else _core.reshape(t, (1,)) for t in _sequence("hstack", tup)]
    return _stacked("hstack", tensors, 0 if tensors[0].ndim == 1 else 1, dtype)


@states(np.dstack, rules.CONCATENATE, operands=0)
def dstack(tup):
    """Return arrays joined along the third axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.dstack([ad.zeros(2), ad.ones(2)]).shape
    (1, 2, 2)
    """
    tensors = [_core.reshape(t, _three_axes(t.shape)) for t in _sequence("dstack", tup)]
    return _stacked("dstack", tensors, 2)


@states(np.column_stack, rules.CONCATENATE, operands=0)
def column_stack(tup):
    """Return vectors joined as the columns of a matrix.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.column_stack([ad.zeros(2), ad.ones(2)]).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    tensors = [t if t.ndim > 1 else _core.reshape(t, (-1, 1))
               for t in _sequence("column_stack", tup)]
    return _stacked("column_stack", tensors, 1)


def split(ary, indices_or_sections, axis=0) -> list:
    """Return a list of equal parts, or of the parts between indices.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.tolist() for t in ad.split(ad.arange(4), 2)]
    [[0, 1], [2, 3]]
    """
    t = _tensor(ary)
    axis = normalize_axis_index(axis, t.ndim, "split")
    if np.ndim(indices_or_sections) == 0 and t.shape[axis] % indices_or_sections:
        raise ValueError(
            f"split: axis {axis} of shape {t.shape} does not divide into "
            f"{indices_or_sections} equal parts; use array_split"
        )
    return array_split(t, indices_or_sections, axis)


def array_split(ary, indices_or_sections, axis=0) -> list:
    """Return a list of parts as equal as possible, or of the parts between indices.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.tolist() for t in ad.array_split(ad.arange(3), 2)]
    [[0, 1], [2]]
    """
    t = _tensor(ary)
    axis = normalize_axis_index(axis, t.ndim, "array_split")
    n = t.shape[axis]
    if np.ndim(indices_or_sections) == 0:
        parts = operator.index(indices_or_sections)
        if parts <= 0:
            raise ValueError(f"array_split: the number of parts must be positive, got {parts}")
        size, longer = _divmod(n, parts)
        cuts = [k * size + _min(k, longer) for k in range(parts + 1)]
    else:
        cuts = [0, *[operator.index(k) for k in indices_or_sections], n]
    before = (slice(None),) * axis
    return [
        _core.getitem(GETITEM, t, (*before, slice(start, stop)), True)
        for start, stop in zip(cuts, cuts[1:], strict=False)
    ]


def vsplit(ary, indices_or_sections) -> list:
    """Return parts of the first axis.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.shape for t in ad.vsplit(ad.zeros((4, 3)), 2)]
    [(2, 3), (2, 3)]
    """
    return split(ary, indices_or_sections, 0)


def hsplit(ary, indices_or_sections) -> list:
    """Return parts of the second axis, or of the first if there is one only.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.shape for t in ad.hsplit(ad.zeros((3, 4)), 2)]
    [(3, 2), (3, 2)]
    """
    t = _tensor(ary)
    return split(t, indices_or_sections, 1 if t.ndim > 1 else 0)


def dsplit(ary, indices_or_sections) -> list:
    """Return parts of the third axis.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.shape for t in ad.dsplit(ad.zeros((1, 2, 4)), 2)]
    [(1, 2, 2), (1, 2, 2)]
    """
    return split(ary, indices_or_sections, 2)


def unstack(x, /, *, axis=0) -> tuple:
    """Return the tensors of which `x` is the stack.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.tolist() for t in ad.unstack(ad.eye(2))]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    t = _tensor(x)
    axis = normalize_axis_index(axis, t.ndim, "unstack")
    before = (slice(None),) * axis
    return tuple([_core.getitem(GETITEM, t, (*before, k), True) for k in range(t.shape[axis])])


# Repeating and rearranging.


@states(np.tile, rules.TILE)
def tile(A, reps):
    """Return the tensor laid side by side `reps` times along each axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.tile(ad.tensor([1.0, 2.0]), 2).tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    t = _tensor(A)
    reps = tuple([operator.index(r) for r in reps]) if np.ndim(reps) else (operator.index(reps),)
    if not _core.is_tracing():
        return rules.TILE, (t,), {"reps": reps}
    ndim = _max(t.ndim, len(reps))
    shape = (1,) * (ndim - t.ndim) + t.shape
    reps = (1,) * (ndim - len(reps)) + reps
    apart = [length for n in shape for length in (1, n)]
    repeated = [length for r, n in zip(reps, shape, strict=True) for length in (r, n)]
    y = _core.broadcast_to(_core.reshape(t, tuple(apart)), tuple(repeated))
    return _core.reshape(y, tuple([r * n for r, n in zip(reps, shape, strict=True)]))


@states(np.repeat, rules.REPEAT)
def repeat(a, repeats, axis=None):
    """Return each element (None) or slice along `axis` repeated, a number of times of its own.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.repeat(ad.tensor([1.0, 2.0]), [1, 2]).tolist()
    [1.0, 2.0, 2.0]
    """
    t = _tensor(a)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    if not t.ndim:
        t = _core.reshape(t, (1,))
    axis = normalize_axis_index(axis, t.ndim, "repeat")
    if np.ndim(repeats):
        return rules.REPEAT, (t,), {"repeats": np.array(_values(repeats)), "axis": axis}
    count, shape = operator.index(repeats), t.shape
    if count < 0:
        raise ValueError(f"repeat: repeats must not be negative, got {count}")
    if not _core.is_tracing():
        return rules.REPEAT, (t,), {"repeats": count, "axis": axis}
    behind = shape[axis + 1 :]
    y = _core.reshape(t, (*shape[: axis + 1], 1, *behind))
    y = _core.broadcast_to(y, (*shape[: axis + 1], count, *behind))
    return _core.reshape(y, (*shape[:axis], shape[axis] * count, *behind))


def flip(m, axis=None) -> Tensor:
    """Return the tensor with its elements along `axis` (None: along all) reversed.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.flip(ad.tensor([1.0, 2.0])).tolist()
    [2.0, 1.0]
    """
    t = m if type(m) is Tensor else _tensor(m)
    y = _shown(np.flip, (t, axis), {})
    if y is not NotImplemented:
        return y
    axes = range(t.ndim) if axis is None else normalize_axis_tuple(axis, t.ndim, "flip")
    backwards = slice(None, None, -1)
    index = tuple([backwards if k in axes else slice(None) for k in range(t.ndim)])
    return _core.getitem(GETITEM, t, index, True)


def flipud(m) -> Tensor:
    """Return the tensor with its rows reversed.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.flipud(ad.eye(2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return flip(m, 0)


def fliplr(m) -> Tensor:
    """Return the tensor with its columns reversed.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fliplr(ad.eye(2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return flip(m, 1)


def roll(a, shift, axis=None) -> Tensor:
    """Return the tensor with its elements moved along; what leaves one end enters the other.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.roll(ad.tensor([1.0, 2.0, 3.0]), 1).tolist()
    [3.0, 1.0, 2.0]
    """
    t = _tensor(a)
    if axis is None:
        return _core.reshape(roll(_core.reshape(t, (-1,)), shift, 0), t.shape)
    shifts, axes = np.broadcast_arrays(shift, axis)
    moves = {}
    for s, k in zip(shifts.ravel().tolist(), axes.ravel().tolist(), strict=True):
        k = normalize_axis_index(k, t.ndim, "roll")
        moves[k] = moves.get(k, 0) + s
    for k, s in moves.items():
        n = t.shape[k]
        if n and s % n:
            index = (np.arange(n) - s) % n
            t = take_index(t, (slice(None),) * k + (index,), True)
    return t


def tril(m, k=0) -> Tensor:
    """Return the tensor with zeros above the k-th diagonal.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.tril(ad.ones((2, 2))).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    t = _tensor(m)
    return _masked(t, np.tri(*t.shape[-2:], k=k, dtype=bool))


def triu(m, k=0) -> Tensor:
    """Return the tensor with zeros below the k-th diagonal.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.triu(ad.ones((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    t = _tensor(m)
    return _masked(t, ~np.tri(*t.shape[-2:], k=k - 1, dtype=bool))


def _masked(t, mask):
    if t.dtype.kind in _INEXACT:
        return _where(mask, t, 0.0)
    return _core.wrap(np.where(mask, _primal(t), t.dtype.type(0)), copy=False)


def diagonal(a, offset=0, axis1=0, axis2=1) -> Tensor:
    """Return a diagonal of two axes as the last axis of the result.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.diagonal(ad.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [1.0, 4.0]
    """
    t = a if type(a) is Tensor else _tensor(a)
    y = _shown(np.diagonal, (t, offset, axis1, axis2), {})
    if y is not NotImplemented:
        return y
    which = operator.index(offset), *_two_axes("diagonal", t, axis1, axis2)
    return _view(rules.diagonal(t, *which), t, np.diagonal, *which, readonly=True)


def diag(v, k=0) -> Tensor:
    """Return the k-th diagonal of a matrix, or the matrix that has a vector as diagonal.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.diag(ad.tensor([1.0, 2.0])).tolist()
    [[1.0, 0.0], [0.0, 2.0]]
    """
    t = _tensor(v)
    if t.ndim == 1:
        n = t.shape[0] + _abs(k)
        return rules.from_diagonal(t, (n, n), operator.index(k), 0, 1)
    if t.ndim != 2:
        raise ValueError(f"diag: wants one or two axes, got shape {t.shape}")
    return diagonal(t, k)


def diff(a, n=1, axis=-1, prepend=None, append=None) -> Tensor:
    """Return the differences of neighbours along `axis`, taken `n` times.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.diff(ad.tensor([1.0, 4.0, 9.0])).tolist()
    [3.0, 5.0]
    """
    t = _tensor(a)
    if n < 0:
        raise ValueError(f"diff: the order must not be negative, got {n}")
    if n == 0:
        return t
    if not t.ndim:
        raise ValueError("diff: wants at least one axis, got a 0-d tensor")
    axis = normalize_axis_index(axis, t.ndim, "diff")
    edge = (*t.shape[:axis], 1, *t.shape[axis + 1 :])
    ends = [
        None if end is None else end if end.ndim else _core.broadcast_to(end, edge)
        for end in (None if end is None else _tensor(end) for end in (prepend, append))
    ]
    parts = [part for part in (ends[0], t, ends[1]) if part is not None]
    if len(parts) > 1:
        t = concatenate(parts, axis)
    if t.dtype.kind not in _INEXACT:
        return _core.wrap(np.diff(_primal(t), n, axis), copy=False)
    before = (slice(None),) * axis
    later, earlier = (*before, slice(1, None)), (*before, slice(None, -1))
    for _ in range(n):
        t = take_index(t, later, True) - take_index(t, earlier, True)
    return t


# Selecting and sorting.


@states(np.take, GETITEM)
def take(a, indices, axis=None, out=None, mode="raise"):
    """Return the elements at integer `indices` along `axis` (None: of the flat tensor).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.take(ad.tensor([5.0, 6.0, 7.0]), [2, 0]).tolist()
    [7.0, 5.0]
    """
    t = _tensor(a)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    if not t.ndim:
        t = _core.reshape(t, (1,))
    axis = normalize_axis_index(axis, t.ndim, "take")
    index, n = _frozen_indices(indices), t.shape[axis]
    if mode == "wrap":
        index %= n
    elif mode == "clip":
        index = np.clip(index, 0, n - 1)
    elif mode != "raise":
        raise ValueError(f"take: mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
    single = not index.ndim
    index = (*(slice(None),) * axis, index.item() if single else index)
    return GETITEM, (t,), {"index": index, "unique": single}


def take_along_axis(arr, indices, axis=-1) -> Tensor:
    """Return elements picked along `axis` by an array of indices that matches the other axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.take_along_axis(ad.tensor([[3.0, 4.0]]), ad.tensor([[1]]), axis=1).tolist()
    [[4.0]]
    """
    t = _tensor(arr)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    index = _frozen_indices(indices)
    if index.ndim != t.ndim:
        raise ValueError(
            f"take_along_axis: indices and array must have as many axes, "
            f"got {index.ndim} and {t.ndim}"
        )
    axis = normalize_axis_index(axis, t.ndim, "take_along_axis")
    return take_index(t, along(index, axis, t.shape))


def where(condition, x=None, y=None):
    """Return elements of `x` where the condition holds and of `y` elsewhere.

    With the condition alone, return the indices where it holds, as `nonzero` does.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, -1.0])
    >>> ad.where(x > 0, x, 0.0).tolist()
    [1.0, 0.0]
    """
    if x is None and y is None:
        return _wrapped(np.nonzero(_values(condition)))
    if x is None or y is None:
        raise ValueError("where: give both x and y, or neither")
    return _where(condition, x, y)


def clip(a, a_min=None, a_max=None, out=None, *, min=None, max=None) -> Tensor:
    """Return the tensor with values held between two bounds, either of which may be None.

    At two bounds the slope is 1; at a single one it is that of ``maximum`` or ``minimum``, 1/2.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.clip(ad.tensor([-1.0, 0.5, 2.0]), 0.0, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    low = a_min if min is None else min
    high = a_max if max is None else max
    if _all(x is None or _is_whole(x) for x in (a, low, high)):
        return _core.by_numpy(np.clip, (_tensor(a), _values(low), _values(high)), {})
    if low is None:
        return _copied(_tensor(a)) if high is None else _minimum(a, high)
    return _maximum(a, low) if high is None else _clip(a, low, high)


def _is_whole(x):
    return type(x) is int or _tensor(x).dtype.kind in "iub"


def round(a, decimals=0, out=None) -> Tensor:
    """Return the values rounded to a number of decimals; the gradient is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.round(ad.tensor([1.26, 2.5]), 1).tolist()
    [1.3, 2.5]
    """
    t = _tensor(a)
    if t.dtype.kind == "c":
        return complex_rules.rounded(t, decimals)
    if t.dtype.kind != "f":
        return _wrapped(np.round(_primal(t), decimals))
    if decimals == 0:
        return _rint(t)
    factor = 10.0 ** _abs(decimals)
    return _rint(t * factor) / factor if decimals > 0 else _rint(t / factor) * factor


def divmod(x1, x2, /) -> tuple:
    """Return the quotients rounded down and the remainders.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.item() for t in ad.divmod(ad.tensor(7.5), 2.0)]
    [3.0, 1.5]
    """
    return _core.elementwise["floor_divide"](x1, x2), _core.elementwise["remainder"](x1, x2)


def descending_order(a, axis=-1, kind=None, order=None, *, stable=None):
    """Return the indices that sort in descending order; equal elements stay in theirs."""
    if axis is None:
        a, axis = a.ravel(), 0
    index = np.argsort(np.flip(a, axis), axis, kind or "stable", order)
    return np.flip(a.shape[axis] - 1 - index, axis)


def argsort(a, axis=-1, kind=None, order=None, *, stable=None, descending=False) -> Tensor:
    """Return the indices that sort along `axis`, in ascending or descending order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.argsort(ad.tensor([3.0, 1.0, 2.0])).tolist()
    [1, 2, 0]
    """
    if descending:
        return _by_numpy(descending_order, (_tensor(a), axis, kind, order), {})
    return _by_numpy(np.argsort, (_tensor(a), axis, kind, order), {"stable": stable})


# Indexing.


def getitem(t, index) -> Tensor:
    """Return ``t[index]`` with NumPy's rules: basic, integer-array and boolean indices.

    Tensors serve as indices; arrays and lists are copied, so they may change afterwards.

    Raises
    ------
    IndexError
        If an index is out of bounds or of no kind that indexes.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, -2.0, 3.0])
    >>> x[x > 0].tolist()
    [1.0, 3.0]
    """
    unique = True
    kind = type(index)
    if kind is tuple:
        index, unique = _index_parts(index)
    elif kind is not int:
        index, unique = _index_part(index, kind)
    # spelled out, not rules.record: a call less counts where single elements are read in loops
    try:
        return _core.getitem(GETITEM, t, index, unique)
    except (IndexError, ValueError) as error:
        raise rules.named("getitem", error) from None


def _index_parts(index):
    """Return a tuple of indices as `_index_part` does each."""
    unique = True
    parts = []
    for part in index:
        kind = type(part)
        if kind is not int and part is not None and part is not Ellipsis:
            part, once = _index_part(part, kind)
            unique = unique and once
        parts.append(part)
    return tuple(parts), unique


def _frozen_index(index):
    """Return an index in a form that cannot change, and whether it names nothing twice."""
    kind = type(index)
    if kind is tuple:
        return _index_parts(index)
    return (index, True) if kind is int else _index_part(index, kind)


def _index_part(part, kind):
    """Return one index in a form that cannot change, and whether it names nothing twice."""
    if kind is slice:
        start, stop, step = part.start, part.stop, part.step
        if _all([bound is None or type(bound) is int for bound in (start, stop, step)]):
            return part, True
        bounds = [None if bound is None else operator.index(bound) for bound in (start, stop, step)]
        return slice(*bounds), True
    if part is None or part is Ellipsis or kind is bool or kind is int:
        return part, True
    if kind is Tensor:
        # a tensor's buffer never changes: writers take another one
        values = _primal(part)
    elif isinstance(part, np.ndarray):
        values = part.copy()
    elif isinstance(part, (list, tuple, range)):
        values = np.array(_values(part))
        if not values.size and values.dtype.kind == "f":
            values = values.astype(np.intp)
    elif isinstance(part, np.bool_):
        return part, True
    else:
        try:
            return operator.index(part), True
        except TypeError:
            raise _not_an_index(f"{kind.__name__}") from None
    if values.dtype.kind == "b":
        return values, True
    if values.dtype.kind not in "iu":
        raise _not_an_index(f"an array of {values.dtype}")
    return (values, False) if values.ndim else (values.item(), True)


def _not_an_index(what):
    return IndexError(
        "getitem: an index is an integer, a slice, None, ... or an array of integers or bools; "
        f"got {what}"
    )


def setitem(t, index, value):
    """Assign ``t[index] = value`` with NumPy's rules; the views of `t` show it, and gradients flow.

    Where an index names an element several times, the last value stays and receives the gradient.

    Raises
    ------
    IndexError
        If an index is out of bounds or of no kind that indexes.
    ValueError
        If the value does not broadcast to the shape of the indexed part, or `t` is read-only.
    RuntimeError
        If `t` is a leaf that requires gradients, or a view of one, while recording is on.
    TypeError
        If `t` holds integers and the value requires gradients.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(3.0, requires_grad=True)
    >>> y = ad.zeros(3)
    >>> row = y[1:]
    >>> y[2] = x * x
    >>> row.tolist()
    [0.0, 9.0]
    """
    value = value if type(value) is Tensor else _tensor(value)
    if _core.is_tracing() and type(index) is Tensor and index.dtype == bool and (
            index.shape == t.shape and value.size == 1):
        assignment.copyto(t, value, "unsafe", index)    # the mask may differ in the next run
        return
    try:
        index, unique = _frozen_index(index)
        _core.assign(t, index, value, unique)
    except IndexError as error:
        text = str(error).replace("getitem:", "setitem:", 1)
        raise rules.named("setitem", IndexError(text)) from None


# Functions of values alone.


def _on_values(function):
    """Return a NumPy function that takes tensors by value: its result has no gradient."""

    def on_values(*args, **kwargs):
        if "out" in kwargs:
            return without_gradient(function, args, kwargs)
        if _core.is_tracing() and function.__name__ in _ONE_ARRAY and not _holds_tensor(
            kwargs.values()
        ):
            return _by_numpy(function, tuple(map(_flat_operand, args)), kwargs)
        return _wrapped(function(*_values(args), **_values(kwargs)))

    on_values.__name__ = on_values.__qualname__ = function.__name__
    on_values.__doc__ = f"Return ``numpy.{function.__name__}`` of the values, without gradient."
    return on_values


def _flat_operand(obj):
    """Return a list that holds tensors as one tensor, anything else as it is."""
    return _tensor(obj) if isinstance(obj, (list, tuple)) and _holds_tensor(obj) else obj


# Their results are truth values, integers, indices, dtypes or text: nothing that has a derivative.
_VALUE_UFUNCS = (
    "equal not_equal less less_equal greater greater_equal "
    "logical_and logical_or logical_xor logical_not isnan isinf isfinite signbit "
    "bitwise_and bitwise_or bitwise_xor bitwise_count invert left_shift right_shift gcd lcm"
).split()
_VALUE_FUNCTIONS = (
    "allclose isclose array_equal array_equiv nonzero flatnonzero argwhere count_nonzero "
    "searchsorted digitize isin isposinf isneginf isreal iscomplex isrealobj iscomplexobj "
    "argpartition lexsort nanargmax nanargmin result_type can_cast "
    "min_scalar_type common_type shares_memory may_share_memory array_repr array_str "
    "array2string ravel_multi_index unravel_index tril_indices_from triu_indices_from "
    "diag_indices_from ix_ packbits unpackbits einsum_path"
).split()


# Those of them whose result is one array, of a shape that follows from the operands' shapes.
# (count_nonzero gives Python's int in some releases of NumPy, which promotes in another way.)
_ONE_ARRAY = frozenset(
    [*_VALUE_UFUNCS, *"isclose isin isposinf isneginf iscomplex searchsorted digitize "
     "argpartition lexsort nanargmax nanargmin ravel_multi_index".split()]
)


def shape(a) -> tuple:
    """Return the lengths of the axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.shape([[1.0, 2.0]])
    (1, 2)
    """
    return _tensor(a).shape


def ndim(a) -> int:
    """Return the number of axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ndim([[1.0, 2.0]])
    2
    """
    return _tensor(a).ndim


def size(a, axis=None) -> int:
    """Return the number of elements, in all or along `axis`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.size(ad.zeros((2, 3))), ad.size(ad.zeros((2, 3)), 1)
    (6, 3)
    """
    return _count("size", _tensor(a).shape, axis)


def real(val) -> Tensor:
    """Return the real part; of a real tensor the tensor itself.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.real(ad.tensor(2.0 + 1j)).item()
    2.0
    """
    return _core.real(_tensor(val))


def real_if_close(a, tol=100) -> Tensor:
    """Return the real part if all imaginary parts are close to 0, else `a` itself as a tensor.

    `tol` counts roundings of the dtype if it is larger than 1, and is absolute otherwise.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.real_if_close(ad.tensor(2.0 + 1e-15j)).item()
    2.0
    """
    t = _tensor(a)
    if t.dtype.kind != "c":
        return t
    if tol > 1:
        tol = tol * np.finfo(t.dtype).eps
    return _core.real(t) if all(_absolute(_core.imag(t)) < tol) else t


def imag(val) -> Tensor:
    """Return the imaginary part; zeros for a real tensor.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.imag(ad.tensor(2.0 + 1j)).item()
    1.0
    """
    return _tensor(val).imag


def conjugate(x, /) -> Tensor:
    """Return the complex conjugate; of a real tensor a copy.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.conjugate(ad.tensor(2.0 + 1j)).item()
    (2-1j)
    """
    t = _tensor(x)
    return _core.conjugate(t) if t.dtype.kind == "c" else _copied(t)


def angle(z, deg=False) -> Tensor:
    """Return the argument of complex numbers, from -pi to pi, or with `deg` in degrees.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.angle(ad.tensor(2j), deg=True).item()
    90.0
    """
    return complex_rules.angle(_tensor(z), deg)


# The protocols.

amax, amin, around, concat, permute_dims = max, min, round, concatenate, transpose


def _ufunc_table():
    """Return NumPy's ufuncs with the functions that stand for them, by identity."""
    table = {}
    for name, function in _core.elementwise.items():
        ufunc = getattr(np, name, None)
        if isinstance(ufunc, np.ufunc):
            table[ufunc] = function
    for name in _VALUE_UFUNCS:
        table[getattr(np, name)] = _on_values(getattr(np, name))
    table[np.matmul] = matmul
    table[np.divmod] = divmod
    table[np.conjugate] = conjugate
    table[np.degrees] = table[np.rad2deg]
    table[np.radians] = table[np.deg2rad]
    return table

UFUNCS = _ufunc_table()


def _scipy_special(ufunc):
    """Return the function that stands for a ufunc of ``scipy.special``, or None."""
    scipy_special = sys.modules.get("scipy.special")
    if getattr(scipy_special, ufunc.__name__, None) is not ufunc:
        return None
    from . import special  # takes a while, which `import fastad` does without

    function = special.of_ufunc(ufunc)
    if function is not None:
        UFUNCS[ufunc] = function
    return function


def _special_of_complex(name):
    """Return the function of complex tensors that stands for a special function of the table."""

    def function(*operands):
        from . import special

        return special.of_complex(name)(*operands)

    return function


_core.register_complex({name: _special_of_complex(name)
                        for name in "digamma erf erfc xlogy xlog1py".split()})


def _recording(obj):
    return _core.is_grad_enabled() and _requires_grad(obj)


def without_gradient(function, args, kwargs):
    """Return a NumPy function's result for the values, unless a gradient would be lost.

    Raises
    ------
    TypeError
        If an operand requires gradients while recording is on.
    """
    name = function.__name__
    if _recording((args, kwargs)):
        if kwargs.get("out") is not None:
            raise TypeError(
                f"{name}: out= cannot hold the history of a tensor that requires gradients; "
                "use the tensor that is returned (`x = x + t` instead of `x += t` on an array), "
                "or pass `.detach()`"
            )
        raise TypeError(
            f"{name}: called with these arguments it has no gradient, and a tensor among them "
            "requires one; pass `.detach().numpy()` to compute with the values alone"
        )
    out = kwargs.get("out")
    if _holds_tensor(out if type(out) is tuple else (out,)):
        rest = {key: value for key, value in kwargs.items() if key != "out"}
        return into(out, without_gradient(function, args, rest), name)
    result = function(*_values(args), **_values(kwargs))
    return result if out is not None else _wrapped(result)


def _cast(name, x, dtype):
    """Return an operand in `dtype`, as long as NumPy would cast it without being told to."""
    t = _tensor(x)
    weak = type(x) in (int, float, bool)
    if not weak and not np.can_cast(t.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: cannot cast an operand from {t.dtype} to {np.dtype(dtype)} with "
                        "casting rule 'same_kind'; use astype")
    return astype(t, dtype, copy=False)


def array_ufunc(tensor_type, ufunc, method, inputs, kwargs):
    """Compute a NumPy ufunc of tensors: what ``Tensor.__array_ufunc__`` returns.

    Raises
    ------
    TypeError
        If a gradient is required and the ufunc, its method or an option of the call has none.

    Examples
    --------
    >>> import fastad as ad, numpy as np
    >>> np.multiply.outer(ad.tensor([1.0, 2.0]), [3.0]).tolist()
    [[3.0], [6.0]]
    """
    function = UFUNCS.get(ufunc) or _scipy_special(ufunc)
    if "out" in kwargs and _holds_tensor(kwargs["out"]):
        return _ufunc_into(tensor_type, ufunc, method, inputs, **kwargs)
    if method == "at" and type(inputs[0]) is Tensor and function is not None:
        index, unique = _frozen_index(inputs[1])
        return assignment.at(ufunc, function, inputs[0], index, unique, inputs[2:])
    if method == "__call__":
        if function is not None:
            if not kwargs:
                return function(*inputs)
            y = GENERAL["call"](ufunc, inputs, kwargs)
            if y is not NotImplemented:
                return y
        elif (refused := GENERAL["refuse_ufunc"](ufunc)) is not None:
            return refused(*inputs, **kwargs)
        return without_gradient(ufunc, inputs, kwargs)
    standard = _METHODS_OF_UFUNCS.get((ufunc, method))
    if standard is not None and kwargs.get("out") is None:
        return standard(*inputs, **{"axis": 0, **kwargs})
    if function is not None:
        y = GENERAL["method"](ufunc, method, inputs, kwargs)
        if y is not NotImplemented:
            return y
    elif (refused := GENERAL["refuse_ufunc"](ufunc)) is not None:
        return refused(*inputs, **kwargs)
    named = getattr(ufunc, method)
    return without_gradient(_Named(f"{ufunc.__name__}.{method}", named), inputs, kwargs)


# What floors above do: calls of any ufunc with options, its methods, and what is not supported.
GENERAL: dict = {}


def _ufunc_into(tensor_type, ufunc, method, inputs, out, where=True, **kwargs):
    """Compute a ufunc whose result goes into tensors, as far as the mask holds."""
    called = method == "__call__"
    result = array_ufunc(tensor_type, ufunc, method, inputs,
                         kwargs if called else {**kwargs, "where": where})
    if where is not True and called:
        out = out if len(out) > 1 else out[0]
        if type(out) is tuple:
            raise TypeError(f"{ufunc.__name__}: where= with several results is not supported")
        result = _where(_values(where), result, out)
    return into(out, result, ufunc.__name__, broadcasts=called)


class _Named:
    """A ufunc's method together with the name that messages use."""

    def __init__(self, name, function):
        self.__name__ = name
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@states(np.add.accumulate, rules.CUMSUM)
def _accumulated_sum(array, axis=0, dtype=None, out=None):
    """``np.add.accumulate``, which does not flatten."""
    t = _tensor(array)
    if not t.ndim:
        raise TypeError("add.accumulate: cannot accumulate on a scalar")
    if t.dtype.kind not in _INEXACT or dtype is not None:
        return cumsum(t, axis, dtype)
    axis = normalize_axis_index(axis, t.ndim, "cumsum")
    return rules.CUMSUM, (t,), {"axis": axis, "reverse": False}


_METHODS_OF_UFUNCS = {
    (np.add, "reduce"): sum,
    (np.multiply, "reduce"): prod,
    (np.maximum, "reduce"): max,
    (np.minimum, "reduce"): min,
    (np.logical_and, "reduce"): all,
    (np.logical_or, "reduce"): any,
    (np.add, "accumulate"): _accumulated_sum,
}


def array_function(function, types, args, kwargs):
    """Compute a NumPy function of tensors: what ``Tensor.__array_function__`` returns.

    Raises
    ------
    TypeError
        If a gradient is required and the function, called like this, has none.

    Examples
    --------
    >>> import fastad as ad, numpy as np
    >>> np.sum(ad.tensor([1.0, 2.0])).item()
    3.0
    """
    for kind in types:
        if kind is not Tensor and not issubclass(kind, np.ndarray):
            return NotImplemented
    ours = FUNCTIONS.get(function) or GENERAL["refuse"](function)
    if ours is None or (function.__name__ in TARGETS and type(args[0]) is not Tensor):
        return without_gradient(function, args, kwargs)
    if kwargs:
        code = getattr(getattr(ours, "__wrapped__", ours), "__code__", None)
        if code is not None and not code.co_flags & _TAKES_ANY_KEYWORD:
            known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            for name in kwargs:
                if name not in known:
                    return without_gradient(function, args, kwargs)
    return ours(*args, **kwargs)


# Results that go into tensors.


def _takes_out(function):
    """Return a function whose ``out`` argument, wherever it stands, becomes the result."""
    code = function.__code__
    place = code.co_varnames.index("out")
    positional = place < code.co_argcount

    @functools.wraps(function)
    def with_out(*args, **kwargs):
        out = None
        if "out" in kwargs:
            out = kwargs.pop("out")
        elif positional and len(args) > place:
            out = args[place]
            args = (*args[:place], None, *args[place + 1 :])
        result = function(*args, **kwargs)
        return result if out is None else into(out, result, function.__name__)

    with_out.inner = function
    return with_out


def straight(function):
    """Return what stands for a function of NumPy, with how many positional arguments and with which
    keywords at most it can be called without a look at them, and those that can be left out; None
    for no call."""
    ours = FUNCTIONS.get(function)
    if ours is None or function.__name__ in TARGETS:
        return None
    inner = getattr(ours, "inner", None)
    code = getattr(getattr(ours, "__wrapped__", ours), "__code__", None)
    if inner is not None and code.co_flags & _TAKES_ANY_KEYWORD:
        ours, code = inner, inner.__code__      # made for `like`, of which inner takes most options
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        # there is one place, one order and one type
        dropped = frozenset(["device", "order", "subok"])
        return ours, code.co_argcount, frozenset(names) - dropped, dropped
    if code is None or code.co_flags & _TAKES_ANY_KEYWORD:
        return ours, sys.maxsize, frozenset(), frozenset()
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    most = sys.maxsize
    if inner is not None and names.index("out") < code.co_argcount:
        most = names.index("out")
    return inner or ours, most, frozenset(names) - {"out"}, frozenset()


_core.register_straight(straight)


def take_out(scope):
    """Let a module's public functions put their results into ``out``, where they have it."""
    for name, function in list(scope.items()):
        code = getattr(function, "__code__", None)
        if code is not None and not name.startswith("_") and (
                function.__module__ == scope["__name__"]
                and "out" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
                and "into" not in code.co_names):
            scope[name] = _takes_out(function)


take_out(globals())
amax, amin, around = max, min, round


def _writer(function):
    """Return a function that writes into its first argument, for arrays too."""

    @functools.wraps(function)
    def write(*args, **kwargs):
        target = args[0] if args else next(iter(kwargs.values()), None)
        if type(target) is Tensor:
            return function(*args, **kwargs)
        return without_gradient(getattr(np, function.__name__), args, kwargs)

    return write


# Functions that are not NumPy's own even where no gradient is needed.
OWN_WAY: set = {getattr(np, name) for name in [*TARGETS, "diag", "real", "imag", "real_if_close"]}


# Functions whose results show their operands: the first argument, or all of them.
SHOWING = {
    getattr(np, name): name in ("broadcast_arrays", "atleast_1d", "atleast_2d", "atleast_3d")
    for name in """
        array_split atleast_1d atleast_2d atleast_3d broadcast_arrays broadcast_to diagonal dsplit
        expand_dims flip fliplr flipud hsplit matrix_transpose moveaxis ravel reshape rollaxis rot90
        split squeeze swapaxes transpose unstack vsplit""".split()
    if hasattr(np, name)                # some came after NumPy 2.0
}
SHOWING[np.linalg.matrix_transpose] = SHOWING[np.linalg.diagonal] = False
_core.register_showing(SHOWING)
_core.register_keeping([np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray])


# Methods of Tensor.


def _method_sort(t, axis=-1, kind=None, order=None, *, stable=None):
    """Sort the elements along an axis, in place."""
    axis = normalize_axis_index(axis, t.ndim, "sort")
    assignment.write_whole(t, FUNCTIONS[np.sort](t, axis), "sort")


def _method_reshape(t, *shape, order="C"):
    """Return the same elements in another shape; one length may be -1."""
    return reshape(t, shape[0] if len(shape) == 1 else shape, order)


def _method_transpose(t, *axes):
    """Return the tensor with its axes permuted, reversed by default."""
    if not axes or (len(axes) == 1 and axes[0] is None):
        return transpose(t)
    return transpose(t, tuple(axes[0]) if np.ndim(axes[0]) else axes)


def _method_clip(t, min=None, max=None, out=None):
    """Return the tensor with values held between two bounds, either of which may be None."""
    return clip(t, min, max, out)


def _method_astype(t, dtype, order="K", casting="unsafe", subok=True, copy=True):
    """Return the tensor with another dtype; gradients flow between floating dtypes."""
    return astype(t, dtype, copy=copy)


def _method_flatten(t, order="C"):
    """Return a copy of the elements in one axis."""
    return _copied(ravel(t, order))


def _method_copy(t, order="C"):
    """Return a copy through which gradients flow."""
    return _copied(t)


METHODS = {
    "all": all,
    "any": any,
    "argmax": argmax,
    "argmin": argmin,
    "argsort": argsort,
    "astype": _method_astype,
    "clip": _method_clip,
    "conj": conjugate,
    "conjugate": conjugate,
    "copy": _method_copy,
    "cumsum": cumsum,
    "diagonal": diagonal,
    "dot": dot,
    "fill": assignment.fill,
    "flatten": _method_flatten,
    "max": max,
    "mean": mean,
    "min": min,
    "nonzero": _on_values(np.nonzero),
    "partition": assignment.partition,
    "prod": prod,
    "put": assignment.put,
    "ravel": ravel,
    "repeat": repeat,
    "reshape": _method_reshape,
    "round": round,
    "sort": _method_sort,
    "squeeze": squeeze,
    "std": std,
    "sum": sum,
    "swapaxes": swapaxes,
    "take": take,
    "trace": trace,
    "transpose": _method_transpose,
    "var": var,
}

# Tables by name.

_TAKES_ANY_KEYWORD = 0x08  # CO_VARKEYWORDS; the module `inspect` is too slow to import for it

_OWN_NAMES = """
all amax amin any arange argmax argmin argsort around array array_split asarray astype atleast_1d
atleast_2d atleast_3d broadcast_arrays broadcast_to clip column_stack concat concatenate copy
cumsum diag diagonal diff divmod dot dsplit dstack einsum empty empty_like expand_dims eye flip
fliplr flipud full full_like hsplit hstack identity imag inner matmul matrix_transpose
max mean min moveaxis ndim ones ones_like outer permute_dims prod ravel real real_if_close
repeat reshape roll round shape size split squeeze stack std sum swapaxes take
take_along_axis tensordot tile trace transpose tril triu unstack var vdot vsplit vstack where
zeros zeros_like angle conjugate
""".split()


def _named_by_tables():
    """Return all functions that tables declare, under every name that NumPy has for them."""
    named = {name: _on_values(getattr(np, name)) for name in _VALUE_FUNCTIONS}
    for name, candidate in vars(np).items():
        if isinstance(candidate, np.ufunc) and candidate in UFUNCS:
            named[name] = UFUNCS[candidate]
    named.update(_core.elementwise)
    named.update({name: _writer(f) for name, f in TARGETS.items()})
    # `where` and `clip` above take what NumPy's take
    for name in _OWN_NAMES:
        named.pop(name, None)
    return named


_TABLE_NAMES = _named_by_tables()
globals().update(_TABLE_NAMES)
__all__ = sorted([*_OWN_NAMES, *_TABLE_NAMES])

FUNCTIONS = {
    getattr(np, name): globals()[name]
    for name in __all__
    if callable(getattr(np, name, None)) and not isinstance(getattr(np, name), np.ufunc)
}
