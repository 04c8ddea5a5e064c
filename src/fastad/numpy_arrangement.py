"""NumPy's functions that select, order, insert, surround and repeat elements, over tensors."""

from __future__ import annotations

import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import _core, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed, register, values_of, whole
from .numpy_api import _tensor
from .rules import GETITEM, take_index
from .statements import states

_where = rules.where
_NOT_GIVEN = np._NoValue


# Order.


@followed
def order_places(x, axis, descending=False):
    """Places in the flat array of the elements in ascending or descending order along an axis."""
    order = numpy_api.descending_order if descending else np.argsort
    return _flat_places(order(x, axis, kind="stable"), axis)


@followed
def partition_places(x, kth, axis):
    """Places in the flat array of the elements of ``np.partition``; equal ones in some order."""
    y = np.partition(x, kth, axis)
    found = np.empty(x.shape, np.intp)
    np.put_along_axis(found, np.argsort(y, axis, kind="stable"),
                      np.argsort(x, axis, kind="stable"), axis)
    return _flat_places(found, axis)


def _flat_places(index, axis):
    """Turn indices along an axis into places in the flat array."""
    places = np.arange(index.size).reshape(index.shape)
    return np.take_along_axis(places, index, axis)


def _sorted(a, axis=-1, kind=None, order=None, *, stable=None, descending=False):
    y = np.sort(a, axis, kind, order, stable=stable)
    return np.flip(y, 0 if axis is None else axis) if descending else y


@defines(_sorted, name="sort")
def sort(a, axis=-1, kind=None, order=None, *, stable=None, descending=False):
    """Return the elements in ascending order along `axis` (None: of the flat tensor).

    With `descending` they are in descending order, nan first.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.sort(ad.tensor([3.0, 1.0, 2.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    t = _tensor(a)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    return rules.gather(t, order_places(t, axis, bool(descending)))


@defines(np.partition)
def partition(a, kth, axis=-1, kind="introselect", order=None) -> Tensor:
    """Return the elements with the k-th smallest in its place and smaller ones before it.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.partition(ad.tensor([3.0, 1.0, 2.0]), 1)[1].item()
    2.0
    """
    t = _tensor(a)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    return rules.gather(t, partition_places(t, numpy_api._values(kth), axis))


def sort_complex(a) -> Tensor:
    """Return the elements in ascending order along the last axis, as complex numbers.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.sort_complex(ad.tensor([3.0, 1.0])).tolist()
    [(1+0j), (3+0j)]
    """
    t = sort(a)
    if t.dtype.kind == "c":
        return t
    return _core.astype(t, np.complex64 if t.dtype.char in "bhBH" else np.complex128)


# Choices.


@followed
def choice_places(index, count, shape, mode):
    """Places in a stack of `count` arrays of a shape of the elements that an index array picks."""
    if mode == "raise":
        if ((index < 0) | (index >= count)).any():
            raise ValueError("choose: invalid entry in choice array")
    elif mode == "wrap":
        index = index % count
    elif mode == "clip":
        index = np.clip(index, 0, count - 1)
    else:
        raise ValueError(f"choose: mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
    size = int(np.prod(shape))
    return index * size + np.arange(size).reshape(shape)


def _chosen(mode, index, *choices):
    return np.choose(index, choices, mode=mode)


@defines(_chosen, name="choose")
def _choose(mode, index, *choices):
    index, *tensors = numpy_api.broadcast_arrays(_tensor(index), *choices)
    places = choice_places(index, len(tensors), index.shape, mode)
    return rules.gather(numpy_api.stack(tensors), places)


def choose(a, choices, out=None, mode="raise") -> Tensor:
    """Return elements that an array of indices picks from several arrays.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.choose([1, 0], [ad.tensor([1.0, 2.0]), [5.0, 6.0]]).tolist()
    [5.0, 2.0]
    """
    return _choose(mode, a, *choices)


def select(condlist, choicelist, default=0) -> Tensor:
    """Return elements from the first of several arrays whose condition holds.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, 2.0, 3.0])
    >>> ad.select([x < 2.0, x > 2.0], [x, 10.0 * x], 5.0).tolist()
    [1.0, 5.0, 30.0]
    """
    if len(condlist) != len(choicelist):
        raise ValueError(f"select: {len(condlist)} conditions do not fit {len(choicelist)} choices")
    if not len(condlist):
        raise ValueError("select: without a condition nothing can be selected")
    shapes = []
    for condition in condlist:
        t = _tensor(condition)
        if t.dtype.kind != "b":
            raise TypeError(f"select: conditions must be bools, got {t.dtype}")
        shapes.append(t.shape)
    y = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        y = _where(condition, choice, y)
        shapes.append(_tensor(choice).shape)
    shape = np.broadcast_shapes(*shapes)
    return y if y.shape == shape else _core.broadcast_to(y, shape)


def piecewise(x, condlist, funclist, *args, **kw) -> Tensor:
    """Return functions of those elements for which conditions hold; 0 where none does.

    Of several conditions that hold the last counts.  One more function is for the rest.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([-1.0, 2.0])
    >>> ad.piecewise(x, [x < 0.0, x >= 0.0], [lambda v: -v, lambda v: v**2]).tolist()
    [1.0, 4.0]
    """
    t = _tensor(x)
    one = isinstance(condlist, (bool, np.bool_)) or np.ndim(condlist[0]) == 0 and t.ndim
    masks = [np.asarray(values_of(c), bool) for c in ([condlist] if one else condlist)]
    masks = [m if m.shape == t.shape else np.broadcast_to(m, t.shape) for m in masks]
    if len(funclist) == len(masks) + 1:
        masks.append(~np.logical_or.reduce(masks))
    if len(funclist) != len(masks):
        raise ValueError(f"piecewise: {len(masks)} conditions do not fit {len(funclist)} functions")
    flat = _core.reshape(t, (-1,))
    places, parts, later = [], [], None
    for mask, function in zip(reversed(masks), reversed(list(funclist)), strict=True):
        mask = mask.ravel()
        mine = index = np.flatnonzero(mask)
        free = np.ones(0, bool) if later is None else ~later[index]
        if not free.all():
            mine = index[free]
        later = mask if later is None else later | mask
        if callable(function):
            if not len(index):
                continue
            part = _tensor(function(take_index(flat, (index,), True), *args, **kw))
        else:
            part = _tensor(function)
        if part.dtype != t.dtype:
            part = _core.astype(part, t.dtype)
        if not part.ndim or part.shape != index.shape:
            part = _core.broadcast_to(part, index.shape)
        places.append(mine)
        parts.append(part if mine is index else take_index(part, (free,), True))
    if not parts:
        return numpy_api.zeros_like(t)
    joined = parts[0] if len(parts) == 1 else rules.concatenate(parts, 0)
    index = places[0] if len(places) == 1 else np.concatenate(places)
    y = rules.scatter(joined, flat.shape, (index,), True)
    return _core.reshape(y, t.shape)


def _kept_where(a, condition, axis=None):
    """``np.compress`` with the operand in front."""
    return np.compress(condition, a, axis)


@states(_kept_where, GETITEM)
def _compress(a, condition, axis=None):
    t = _tensor(a)
    if axis is None:
        t, axis = _core.reshape(t, (-1,)), 0
    mask = values_of(_tensor(condition))
    if mask.ndim != 1:
        raise ValueError("compress: condition must be a 1-d array")
    axis = normalize_axis_index(axis, t.ndim, "compress")
    index = (slice(None),) * axis + (np.flatnonzero(mask),)
    return GETITEM, (t,), {"index": index, "unique": True}


def compress(condition, a, axis=None, out=None) -> Tensor:
    """Return the slices along `axis` (None: elements of the flat tensor) where a condition holds.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.compress([True, False, True], ad.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    return _compress(a, condition, axis)


def extract(condition, arr) -> Tensor:
    """Return the elements of the flat tensor where a condition holds.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([1.0, -2.0, 3.0])
    >>> ad.extract(x > 0.0, x).tolist()
    [1.0, 3.0]
    """
    t = _core.reshape(_tensor(arr), (-1,))
    return take_index(t, (np.flatnonzero(values_of(_tensor(condition))),), True)


def trim_zeros(filt, trim="fb", axis=None) -> Tensor:
    """Return the tensor without the zeros at its front, its back or both.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.trim_zeros(ad.tensor([0.0, 1.0, 0.0, 2.0, 0.0])).tolist()
    [1.0, 0.0, 2.0]
    """
    t = _tensor(filt)
    trim = trim.lower()
    if trim not in ("fb", "bf", "f", "b"):
        raise ValueError(f"trim_zeros: unexpected character(s) in `trim`: {trim!r}")
    axes = range(t.ndim) if axis is None else normalize_axis_tuple(axis, t.ndim, "trim_zeros")
    held = np.argwhere(values_of(t != 0))
    index = []
    for k in range(t.ndim):
        start, stop = (int(held[:, k].min()), int(held[:, k].max()) + 1) if len(held) else (0, 0)
        index.append(slice(None) if k not in axes else slice(
            start if "f" in trim or not len(held) else None,
            stop if "b" in trim or not len(held) else None))
    return t[tuple(index)]


# Sets.


@followed
def first_places(x, axis, equal_nan):
    """Where each of the different elements, in ascending order, stands first."""
    return np.unique(x, return_index=True, axis=axis, equal_nan=equal_nan)[1]


def _guard(places):
    """Let a program look at where elements stand: the shape of a result depends on it."""
    if _core.is_tracing():
        values_of(places())


def _unique_by_index(t, axis=None, equal_nan=True):
    """Return the different elements, each from its first place."""
    places = values_of(first_places(t.detach(), axis, equal_nan))
    if axis is None:
        return take_index(_core.reshape(t, (-1,)), (places,), True)
    axis = normalize_axis_index(axis, t.ndim, "unique")
    return take_index(t, (slice(None),) * axis + (places,), True)


@defines(np.unique)
def _unique(
    ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *,
    equal_nan=True, sorted=True,
):
    y = _unique_by_index(_tensor(ar), axis, equal_nan)
    return (y,) if return_index or return_inverse or return_counts else y


def unique(
    ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *,
    equal_nan=True, sorted=True,
):
    """Return the different elements in ascending order; of equal ones the first has the gradient.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.unique(ad.tensor([3.0, 1.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    _guard(lambda: first_places(_tensor(ar).detach(), axis, equal_nan))
    return _unique(ar, return_index, return_inverse, return_counts, axis, equal_nan=equal_nan)


def _unique_tuple(name):
    """Declare one of NumPy's functions of that name that return several facts about a set."""
    theirs = getattr(np, name)

    @defines(theirs)
    def defined(x, /):
        return (_unique_by_index(_tensor(x), None, False),)

    def facts(x, /):
        _guard(lambda: first_places(_tensor(x).detach(), None, False))
        return defined(x)

    facts.__name__ = facts.__qualname__ = name
    return facts


@defines(np.unique_values)
def _unique_values(x, /):
    # NumPy need not sort them
    t = _tensor(x)
    flat = _core.reshape(t, (-1,))
    return take_index(flat, (values_of(set_places("unique_values", flat.detach())),), True)


def unique_values(x, /) -> Tensor:
    """Return the different elements; every nan counts as another.

    Examples
    --------
    >>> import fastad as ad
    >>> sorted(ad.unique_values(ad.tensor([3.0, 1.0, 3.0])).tolist())
    [1.0, 3.0]
    """
    _guard(lambda: set_places("unique_values", _core.reshape(_tensor(x), (-1,)).detach()))
    return _unique_values(x)


unique_counts = _unique_tuple("unique_counts")
unique_counts.__doc__ = """Return the different elements, ascending, and how often each is there.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.unique_counts(ad.tensor([3.0, 1.0, 3.0])).counts.tolist()
    [1, 2]
    """
unique_inverse = _unique_tuple("unique_inverse")
unique_inverse.__doc__ = """Return the different elements, ascending, and which of them each one is.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.unique_inverse(ad.tensor([3.0, 1.0, 3.0])).inverse_indices.tolist()
    [1, 0, 1]
    """
unique_all = _unique_tuple("unique_all")
unique_all.__doc__ = """Return the different elements, first places, inverse and counts.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.unique_all(ad.tensor([3.0, 1.0, 3.0])).indices.tolist()
    [1, 0]
    """


def union1d(ar1, ar2) -> Tensor:
    """Return the different elements of two tensors in ascending order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.union1d(ad.tensor([3.0, 1.0]), [2.0, 3.0]).tolist()
    [1.0, 2.0, 3.0]
    """
    return unique(numpy_api.concatenate([ar1, ar2], None))


@followed
def set_places(function, *operands):
    """Where the elements of a function of one or two sets stand first in all operands together."""
    sets = [x for x in operands if not isinstance(x, bool)]
    wanted = getattr(np, function)(*operands)
    pool = np.concatenate(sets)
    order = np.argsort(pool, kind="stable")
    return order[np.searchsorted(pool, wanted, sorter=order)]


def _flat_pair(ar1, ar2):
    return numpy_api._same_dtype([_core.reshape(_tensor(t), (-1,)) for t in (ar1, ar2)])


def _set_function(name):
    """Declare one of NumPy's functions of two sets."""

    @defines(getattr(np, name))
    def defined(ar1, ar2, assume_unique=False, **several):
        a, b = _flat_pair(ar1, ar2)
        places = values_of(set_places(name, a.detach(), b.detach(), assume_unique))
        y = take_index(numpy_api.concatenate([a, b]), (places,), False)
        return (y,) if several.get("return_indices") else y

    def guarded(ar1, ar2, assume_unique, **several):
        if _core.is_tracing():
            a, b = _flat_pair(ar1, ar2)
            values_of(set_places(name, a.detach(), b.detach(), assume_unique))
        return defined(ar1, ar2, assume_unique, **several)

    return guarded


_difference, _either, _both = [
    _set_function(name) for name in ("setdiff1d", "setxor1d", "intersect1d")
]


def setdiff1d(ar1, ar2, assume_unique=False) -> Tensor:
    """Return the elements of `ar1` that are not in `ar2`, in ascending order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.setdiff1d(ad.tensor([3.0, 1.0]), [2.0, 3.0]).tolist()
    [1.0]
    """
    return _difference(ar1, ar2, assume_unique)


def setxor1d(ar1, ar2, assume_unique=False) -> Tensor:
    """Return the elements that are in one of two tensors alone, in ascending order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.setxor1d(ad.tensor([3.0, 1.0]), [2.0, 3.0]).tolist()
    [1.0, 2.0]
    """
    return _either(ar1, ar2, assume_unique)


def intersect1d(ar1, ar2, assume_unique=False, return_indices=False):
    """Return the elements that are in both tensors, in ascending order; `ar1` has the gradient.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.intersect1d(ad.tensor([3.0, 1.0]), [2.0, 3.0]).tolist()
    [3.0]
    """
    return _both(ar1, ar2, assume_unique, **{"return_indices": True} if return_indices else {})


# Elements inserted and taken out.


def append(arr, values, axis=None) -> Tensor:
    """Return `arr` with values appended along `axis` (None: both flattened).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.append(ad.tensor([1.0, 2.0]), 3.0).tolist()
    [1.0, 2.0, 3.0]
    """
    if axis is None:
        arr, values, axis = numpy_api.ravel(arr), numpy_api.ravel(values), 0
    return numpy_api.concatenate([arr, values], axis)


def _layout(function, *shapes, options):
    """Apply a function that moves elements to the numbers of the elements instead.

    What comes out says where each element of the result stood in all operands, flat and joined.
    """
    numbers, stop = [], 0
    for shape in shapes:
        start, stop = stop, stop + int(np.prod(shape))
        numbers.append(np.arange(start, stop).reshape(shape))
    return function(*numbers, **options)


@states(np.delete, GETITEM)
def delete(arr, obj, axis=None):
    """Return the tensor without some slices along `axis` (None: elements of the flat tensor).

    Examples
    --------
    >>> import fastad as ad
    >>> ad.delete(ad.tensor([1.0, 2.0, 3.0]), 1).tolist()
    [1.0, 3.0]
    """
    t = _tensor(arr)
    layout = _layout(np.delete, t.shape, options={"obj": numpy_api._values(obj), "axis": axis})
    return GETITEM, (_core.reshape(t, (-1,)),), {"index": (layout,), "unique": True}


@defines(np.insert)
def insert(arr, obj, values, axis=None) -> Tensor:
    """Return the tensor with values inserted before some indices along `axis`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.insert(ad.tensor([1.0, 2.0]), 1, 9.0).tolist()
    [1.0, 9.0, 2.0]
    """
    t, v = _tensor(arr), _tensor(values)

    def inserted(t, v, obj):
        return np.insert(t, obj, v, axis)

    layout = _layout(inserted, t.shape, v.shape, options={"obj": numpy_api._values(obj)})
    v = v if v.dtype == t.dtype else _core.astype(v, t.dtype)
    flat = rules.concatenate([_core.reshape(t, (-1,)), _core.reshape(v, (-1,))], 0)
    return take_index(flat, (layout,), False)


@defines(np.resize)
def resize(a, new_shape) -> Tensor:
    """Return the elements, repeated as often as needed, in another shape.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.resize(ad.tensor([1.0, 2.0]), 3).tolist()
    [1.0, 2.0, 1.0]
    """
    t = _tensor(a)
    layout = _layout(np.resize, t.shape, options={"new_shape": new_shape})
    return take_index(_core.reshape(t, (-1,)), (layout,), False)


@defines(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x, window_shape, axis=None, *, subok=False, writeable=False
) -> Tensor:
    """Return all windows of a shape over a tensor, as a copy: windows share no memory.

    Examples
    --------
    >>> import fastad as ad, numpy as np
    >>> np.lib.stride_tricks.sliding_window_view(ad.tensor([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    t = _tensor(x)
    layout = _layout(np.lib.stride_tricks.sliding_window_view, t.shape,
                     options={"window_shape": window_shape, "axis": axis})
    return take_index(_core.reshape(t, (-1,)), (layout,), False)


# Blocks, grids and turns.


def block(arrays) -> Tensor:
    """Return nested lists of blocks joined: the innermost along the last axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.block([[ad.eye(2), ad.ones((2, 1))]]).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    depth = _block_depth(arrays)
    ndim = max(depth, _block_ndim(arrays))

    def joined(item, level):
        if type(item) is list:
            return numpy_api.concatenate([joined(part, level + 1) for part in item],
                                         -(depth - level))
        t = _tensor(item)
        return t if t.ndim == ndim else _core.reshape(t, (1,) * (ndim - t.ndim) + t.shape)

    y = joined(arrays, 0)
    return numpy_api._copied(y) if y is arrays else y


def _block_depth(item):
    if type(item) is tuple:
        raise TypeError("block: wants nested lists, got a tuple")
    if type(item) is not list:
        return 0
    if not item:
        raise ValueError("block: lists must not be empty")
    depths = {_block_depth(part) for part in item}
    if len(depths) > 1:
        raise ValueError("block: lists are nested to different depths")
    return 1 + depths.pop()


def _block_ndim(item):
    return max(map(_block_ndim, item)) if type(item) is list else _tensor(item).ndim


def meshgrid(*xi, copy=True, sparse=False, indexing="xy") -> tuple:
    """Return the coordinates of a grid's points, one tensor for each axis.

    Examples
    --------
    >>> import fastad as ad
    >>> x, y = ad.meshgrid(ad.tensor([1.0, 2.0]), [5.0, 6.0])
    >>> x.tolist(), y.tolist()
    ([[1.0, 2.0], [1.0, 2.0]], [[5.0, 5.0], [6.0, 6.0]])
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    tensors = [_core.reshape(_tensor(x), (-1,)) for x in xi]
    places = list(range(len(tensors)))
    if indexing == "xy" and len(tensors) > 1:
        places[:2] = 1, 0
    thin = [
        _core.reshape(t, tuple([-1 if k == place else 1 for k in range(len(tensors))]))
        for t, place in zip(tensors, places)
    ]
    return tuple(thin) if sparse or not thin else numpy_api.broadcast_arrays(*thin)


def rollaxis(a, axis, start=0) -> Tensor:
    """Return the tensor with an axis moved before the one at `start`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.rollaxis(ad.zeros((2, 3, 4)), 2).shape
    (4, 2, 3)
    """
    t = _tensor(a)
    axis = normalize_axis_index(axis, t.ndim, "rollaxis")
    start = operator.index(start)
    if not -t.ndim <= start <= t.ndim:
        raise np.exceptions.AxisError(
            f"rollaxis: start {start} is out of bounds for {t.ndim} axes")
    start += t.ndim if start < 0 else 0
    return numpy_api.moveaxis(t, axis, start - 1 if axis < start else start)


def rot90(m, k=1, axes=(0, 1)) -> Tensor:
    """Return the tensor turned by a quarter `k` times, from the first of two axes to the second.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.rot90(ad.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """
    t = _tensor(m)
    if len(axes) != 2:
        raise ValueError(f"rot90: wants two axes, got {axes}")
    first, second = normalize_axis_tuple(axes, t.ndim, "rot90")
    k %= 4
    if k == 0:
        return numpy_api._copied(t)
    if k == 2:
        return numpy_api.flip(t, (first, second))
    if k == 1:
        return numpy_api.swapaxes(numpy_api.flip(t, second), first, second)
    return numpy_api.flip(numpy_api.swapaxes(t, first, second), second)


@states(np.diagflat, rules.SCATTER)
def diagflat(v, k=0):
    """Return the matrix that has the elements of a tensor on its k-th diagonal.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.diagflat(ad.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 0.0], [0.0, 2.0]]
    """
    t = _core.reshape(_tensor(v), (-1,))
    n = t.shape[0] + abs(k)
    index, _ = rules.diagonal_index((n, n), operator.index(k), 0, 1)
    return rules.SCATTER, (t,), {"shape": (n, n), "index": index, "unique": True}


# Borders.


@defines(np.pad, name="pad: other modes")
def _pad(array, pad_width, mode="constant", **kwargs):
    t = _tensor(array)
    width = _widths(pad_width, t.ndim)
    if mode == "empty":
        return rules.pad(t, width, 0)
    for axis, (before, after) in enumerate(width):
        if before or after or mode == "constant":
            t = _padded(t, axis, (before, after), mode, kwargs)
    return t


def _widths(pad_width, ndim):
    """Return a pair of widths for each axis."""
    if isinstance(pad_width, dict):
        given = {normalize_axis_index(k, ndim, "pad"): w for k, w in pad_width.items()}
        pad_width = [given.get(k, 0) for k in range(ndim)]
        pad_width = [(w, w) if np.ndim(w) == 0 else w for w in pad_width]
    if np.asarray(pad_width).dtype.kind not in "iu":
        raise TypeError("pad: `pad_width` must be of integral type.")
    pairs = np.broadcast_to(np.asarray(pad_width), (ndim, 2)).tolist()
    return tuple(map(tuple, pairs))


def _padded(t, axis, width, mode, options):
    """Return the tensor with borders along one axis that depend on its elements linearly."""
    before, n = (slice(None),) * axis, t.shape[axis]

    def border(part, count):
        return _core.broadcast_to(part, (*t.shape[:axis], count, *t.shape[axis + 1 :]))

    def of_pair(name, side, default):
        """An option's value for this axis and side, in the dtype of the tensor."""
        pairs = _tensor(options.get(name, default))
        return _core.astype(_core.broadcast_to(pairs, (t.ndim, 2))[axis, side], t.dtype)

    if mode in ("reflect", "symmetric"):
        return _mirrored(t, axis, width, mode)
    parts = []
    for side, count in enumerate(width):
        edge = take_index(t, (*before, slice(0, 1) if side == 0 else slice(n - 1, n)), True)
        if mode == "constant":
            part = border(of_pair("constant_values", side, 0), count)
        elif mode == "linear_ramp":
            end = of_pair("end_values", side, 0)
            way = np.arange(count, dtype=t.dtype) / max(count, 1)
            way = (way if side == 0 else way[::-1]).reshape((-1,) + (1,) * (t.ndim - axis - 1))
            part = end + (edge - end) * way
        else:
            length = options.get("stat_length")
            length = n if length is None else np.broadcast_to(length, (t.ndim, 2))[axis, side]
            length = min(int(length), n)
            some = take_index(
                t, (*before, slice(0, length) if side == 0 else slice(n - length, n)), True)
            part = border(_STATISTICS[mode](some, axis, keepdims=True), count)
        parts.append(part)
    return rules.concatenate([parts[0], t, parts[1]], axis)


def _median(t, axis, keepdims):
    from_small = rules.gather(t, order_places(t, axis))
    before, n = (slice(None),) * axis, t.shape[axis]
    middle = take_index(from_small, (*before, slice((n - 1) // 2, n // 2 + 1)), True)
    return numpy_api.mean(middle, axis, keepdims=keepdims)


_STATISTICS = {
    "maximum": numpy_api.max, "minimum": numpy_api.min, "mean": numpy_api.mean, "median": _median,
}


def _mirrored(t, axis, width, mode):
    """Return the tensor with its odd mirror images along an axis: 2 x[edge] - x, again and again.

    Each element is a multiple of the first, of the last and of one other element of the axis.
    NumPy's results for unit vectors say which multiples.
    """
    n = t.shape[axis]
    if n == 1:
        return take_index(
            t, (slice(None),) * axis + (np.zeros(width[0] + 1 + width[1], np.intp),))

    def mirrored(vector, kind):
        return np.pad(vector, width, mode, reflect_type=kind)

    index = mirrored(np.arange(n), "even")
    first = mirrored(np.eye(1, n, 0, dtype=t.dtype)[0], "odd")
    last = mirrored(np.eye(1, n, n - 1, dtype=t.dtype)[0], "odd")
    column = (-1,) + (1,) * (t.ndim - axis - 1)
    before = (slice(None),) * axis
    inner = 1.0 - first - last
    return (
        take_index(t, (*before, index)) * inner.reshape(column)
        + take_index(t, (*before, slice(0, 1)), True) * first.reshape(column)
        + take_index(t, (*before, slice(n - 1, n)), True) * last.reshape(column)
    )


def pad(array, pad_width, mode="constant", **kwargs) -> Tensor:
    """Return the tensor with borders: constants, its own elements, or statistics of them.

    A mode that is a function gets each vector along each axis, a view into the result, the widths
    of its borders, the axis and the other options; it assigns to the borders.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.pad(ad.tensor([1.0, 2.0]), 1, mode="edge").tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    t = _tensor(array)
    if callable(mode):
        width = _widths(pad_width, t.ndim)
        y = rules.pad(t, width, 0) if t.ndim else numpy_api._copied(t)
        for axis in range(t.ndim):
            moved = numpy_api.moveaxis(y, axis, -1)
            for place in np.ndindex(moved.shape[:-1]):
                mode(moved[(*place, ...)], width[axis], axis, kwargs)
        return y
    if mode == "constant" and not numpy_api._requires_grad(kwargs) and not (
            kwargs.keys() - {"constant_values"}):
        values = numpy_api._values(kwargs.get("constant_values", 0))
        values = np.array(values) if np.ndim(values) else values
        width = _widths(pad_width, t.ndim)
        return rules.pad(t, width, values) if t.ndim else numpy_api._copied(t)
    if mode in ("edge", "wrap") or (
            mode in ("reflect", "symmetric") and kwargs.get("reflect_type", "even") == "even"):
        for k, w in enumerate(_widths(pad_width, t.ndim)):
            if w[0] or w[1]:
                index = np.pad(np.arange(t.shape[k]), w, mode, **kwargs)
                t = take_index(t, (slice(None),) * k + (index,))
        return t
    return _pad(t, pad_width, mode, **kwargs)


# Functions applied to parts.


def apply_along_axis(func1d, axis, arr, *args, **kwargs) -> Tensor:
    """Return a function of vectors of each vector along an axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.apply_along_axis(ad.sum, 1, ad.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [3.0, 7.0]
    """
    t = _tensor(arr)
    axis = normalize_axis_index(axis, t.ndim, "apply_along_axis")
    moved = numpy_api.moveaxis(t, axis, -1)
    free = moved.shape[:-1]
    if not all(free):
        raise ValueError("apply_along_axis: cannot apply a function where an axis has length 0")
    results = [_tensor(func1d(take_index(moved, index, True), *args, **kwargs))
               for index in np.ndindex(free)]
    y = numpy_api.stack(results) if results else moved
    ndim = results[0].ndim
    y = _core.reshape(y, (*free, *results[0].shape))
    order = (*range(axis), *range(len(free), len(free) + ndim), *range(axis, len(free)))
    return _core.transpose(y, order)


def apply_over_axes(func, a, axes) -> Tensor:
    """Return ``func(a, axis)`` for one axis after the other, with the axes kept.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.apply_over_axes(ad.sum, ad.ones((2, 3)), [0, 1]).tolist()
    [[6.0]]
    """
    t = _tensor(a)
    for axis in np.atleast_1d(axes).tolist():
        axis = normalize_axis_index(axis, t.ndim, "apply_over_axes")
        result = _tensor(func(t, axis))
        if result.ndim != t.ndim:
            result = numpy_api.expand_dims(result, axis)
            if result.ndim != t.ndim:
                raise ValueError("apply_over_axes: the function returned a tensor of a wrong shape")
        t = result
    return t


# Sums and products up to each element.


def _cumulative(name, function, x, axis, dtype, include_initial, start):
    t = numpy_api.atleast_1d(x)
    if axis is None:
        if t.ndim != 1:
            raise ValueError(f"{name}: say along which axis; the tensor has {t.ndim}")
        axis = 0
    axis = normalize_axis_index(axis, t.ndim, name)
    y = function(t, axis, dtype)
    if include_initial:
        first = np.full((*t.shape[:axis], 1, *t.shape[axis + 1 :]), start, y.dtype)
        y = numpy_api.concatenate([first, y], axis)
    return y


@states(getattr(np, "cumulative_sum", np.cumsum), rules.CUMSUM, without=("include_initial",))
def cumulative_sum(x, /, *, axis=None, dtype=None, out=None, include_initial=False):
    """Return the sums of all elements up to each along `axis`, from 0 on with `include_initial`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.cumulative_sum(ad.tensor([1.0, 2.0]), include_initial=True).tolist()
    [0.0, 1.0, 3.0]
    """
    t = _tensor(x)
    if t.ndim and t.dtype.kind in "fc" and dtype is None and not include_initial:
        if axis is None and t.ndim == 1:
            axis = 0
        if axis is not None:
            axis = normalize_axis_index(axis, t.ndim, "cumulative_sum")
            return rules.CUMSUM, (t,), {"axis": axis, "reverse": False}
    return _cumulative("cumulative_sum", numpy_api.cumsum, t, axis, dtype, include_initial, 0)


def cumulative_prod(x, /, *, axis=None, dtype=None, out=None, include_initial=False) -> Tensor:
    """Return the products of all elements up to each, from 1 on with `include_initial`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.cumulative_prod(ad.tensor([2.0, 3.0]), include_initial=True).tolist()
    [1.0, 2.0, 6.0]
    """
    products = numpy_api.FUNCTIONS[np.cumprod]
    return _cumulative("cumulative_prod", products, x, axis, dtype, include_initial, 1)


__all__ = register("""
append apply_along_axis apply_over_axes block choose compress cumulative_prod cumulative_sum delete
diagflat extract insert intersect1d meshgrid pad partition piecewise resize rollaxis rot90 select
setdiff1d setxor1d sort sort_complex trim_zeros union1d unique unique_all unique_counts
unique_inverse unique_values
""".split(), globals())
numpy_api.FUNCTIONS[np.lib.stride_tricks.sliding_window_view] = sliding_window_view
whole("cumulative_prod")
