"""NumPy's functions that write into an array, for tensors: values and gradients follow.

The target is changed as ``t[index] = value`` changes it: its views show it, a leaf that requires
gradients raises while recording is on, and nodes recorded before keep what they saw.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from . import _core
from ._core import Tensor, as_tensor
from ._core import array as _primal
from .rules import named, take_index
from .rules import where as _where


def check_cast(name, value, dtype, casting="same_kind"):
    """Raise NumPy's TypeError unless `value` may be written into a tensor of `dtype`."""
    if type(value) in (int, float, bool):
        return
    have = np.asarray(value).dtype if type(value) is not Tensor else value.dtype
    if not np.can_cast(have, dtype, casting):
        raise TypeError(
            f"{name}: cannot cast from {have} to {dtype} with casting rule {casting!r}; use astype"
        )


def write_whole(target, value, name):
    """Assign to all elements of a tensor, in the name of the function that does it."""
    _core.assign(target, ..., as_tensor(value), symbol=name)


def into(out, result, name, *, broadcasts=False):
    """Put a function's result into its ``out`` argument, a tensor or an array; return that.

    `out` may be a tuple, as ufuncs take it; elements that are None take nothing.

    Raises
    ------
    ValueError
        If the shapes differ; a ufunc's result (`broadcasts`) may be smaller.
    TypeError
        If the dtypes do not allow it, or if an array would lose a gradient.
    """
    if type(out) is tuple:
        if len(out) == 1:
            return into(out[0], result, name, broadcasts=broadcasts)
        return tuple([
            r if o is None else into(o, r, name, broadcasts=broadcasts)
            for o, r in zip(out, result, strict=True)
        ])
    result = as_tensor(result)
    if type(out) is not Tensor and not isinstance(out, np.ndarray):
        raise TypeError(f"{name}: out= must be a tensor or an array, got {type(out).__name__}")
    fits = result.shape == out.shape
    if broadcasts and not fits:
        fits = result.ndim <= out.ndim and all(
            n in (1, m) for n, m in zip(result.shape[::-1], out.shape[::-1], strict=False)
        )
    if not fits:
        raise ValueError(f"{name}: a result of shape {result.shape} does not fit out= of shape "
                         f"{out.shape}")
    check_cast(name, result, out.dtype)
    if type(out) is Tensor:
        _core.assign(out, ..., result, symbol=f"{name}: out=")
        return out
    if _core.is_grad_enabled() and result.requires_grad:
        raise TypeError(
            f"{name}: out= cannot hold the history of a tensor that requires gradients; make it a "
            "tensor, or use the tensor that is returned (`x = x + t` instead of `x += t` on an "
            "array), or pass `.detach()`"
        )
    out[...] = _primal(result)
    return out


def _cycled(values, places):
    """Return the elements of `values` for these places, from the start again behind the last."""
    values = _core.reshape(as_tensor(values), (-1,))
    if values.shape[0] == 1:
        return values
    return take_index(values, places % values.shape[0])


def _write_flat(name, target, places, value):
    """Assign to elements that are named by their places in the flat array."""
    index = np.unravel_index(places, target.shape)
    _core.assign(target, index, value, False, symbol=name)


# Methods of ufuncs.


def at(ufunc, function, target, index, unique, operands):
    """Compute ``ufunc.at(target, index, *operands)``: repeated elements are met one by one.

    Sums and differences are one operation.  Others go in rounds, in which no element is named
    twice, as many as the element named most often needs.
    """
    name = f"{ufunc.__name__}.at"
    if operands:
        check_cast(name, operands[0], target.dtype)
        other = as_tensor(operands[0])
        plain = type(operands[0]) in (int, float) or other.dtype == target.dtype
        if ufunc in (np.add, np.subtract) and plain and target.dtype.kind == "f":
            if ufunc is np.subtract:
                other = -other
            _core.assign(target, index, other, unique, "add", name)
            return
    cells = np.arange(target.size).reshape(target.shape)[index]
    flat = cells.ravel()
    if operands:
        other = _core.reshape(_core.broadcast_to(other, cells.shape), (-1,))
    for chosen in _rounds(flat):
        part = np.unravel_index(flat[chosen], target.shape)
        values = [take_index(target, part, True)]
        if operands:
            values.append(take_index(other, chosen, True))
        result = function(*values)
        check_cast(name, result, target.dtype)
        _core.assign(target, part, as_tensor(result), symbol=name)


def _rounds(cells):
    """Split positions into groups so that no group has a cell twice, the first ones first."""
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(cells[order]) != 0]) if cells.size else order
    lengths = np.diff(np.r_[starts, cells.size])
    rank = np.empty(cells.size, np.intp)
    rank[order] = np.arange(cells.size) - np.repeat(starts, lengths)
    return [np.flatnonzero(rank == k) for k in range(lengths.max(initial=0))]


# Functions.


def copyto(dst, src, casting="same_kind", where=True) -> None:
    """Assign `src` to `dst`, where the mask holds.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros(3)
    >>> ad.copyto(x, [1.0, 2.0, 3.0], where=[True, False, True])
    >>> x.tolist()
    [1.0, 0.0, 3.0]
    """
    check_cast("copyto", src, dst.dtype, casting)
    src = as_tensor(src)
    if where is not True:
        src = _masked("copyto", where, src, dst)
    write_whole(dst, src, "copyto")


def _masked(name, mask, new, old):
    """Return `new` where a mask holds and `old` elsewhere, in the dtype of `old`."""
    try:
        np.broadcast_to(np.empty(np.shape(mask)), old.shape)
    except ValueError:
        raise ValueError(f"{name}: a mask of shape {np.shape(mask)} does not fit shape "
                         f"{old.shape}") from None
    if new.dtype != old.dtype:
        new = _core.astype(new, old.dtype)
    return _where(mask, new, old)


def put(a, ind, v, mode="raise") -> None:
    """Assign to the elements at places of the flat tensor, with `v` repeated as needed.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros(3)
    >>> ad.put(x, [0, -1], [1.0, 2.0])
    >>> x.tolist()
    [1.0, 0.0, 2.0]
    """
    places = np.array(_primal(ind) if type(ind) is Tensor else ind).ravel()
    places = places.astype(np.intp, casting="same_kind")
    v = as_tensor(v)
    if not places.size or not v.size:
        return
    if mode == "wrap":
        places %= a.size
    elif mode == "clip":
        places = np.clip(places, 0, a.size - 1)
    elif mode != "raise":
        raise ValueError(f"put: mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
    else:
        bad = (places < -a.size) | (places >= a.size)
        if bad.any():
            raise IndexError(f"put: index {places[bad][0]} is out of bounds for size {a.size}")
        places %= a.size
    _write_flat("put", a, places, _cycled(v, np.arange(places.size)))


def place(arr, mask, vals) -> None:
    """Assign to the elements where the mask holds, with `vals` used in order and repeated.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros(4)
    >>> ad.place(x, [True, False, True, True], [1.0, 2.0])
    >>> x.tolist()
    [1.0, 0.0, 2.0, 1.0]
    """
    places = _masked_places("place", arr, mask)
    vals = as_tensor(vals)
    if not places.size:
        return
    if not vals.size:
        raise ValueError("place: cannot insert from an empty array")
    _write_flat("place", arr, places, _cycled(vals, np.arange(places.size)))


def putmask(a, mask, values) -> None:
    """Assign to the elements where the mask holds those of `values` at the same places, repeated.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros(4)
    >>> ad.putmask(x, [False, False, True, True], [1.0, 2.0, 3.0])
    >>> x.tolist()
    [0.0, 0.0, 3.0, 1.0]
    """
    places = _masked_places("putmask", a, mask)
    values = as_tensor(values)
    if places.size and values.size:
        _write_flat("putmask", a, places, _cycled(values, places))


def _masked_places(name, target, mask):
    mask = np.asarray(_primal(mask) if type(mask) is Tensor else mask)
    if mask.size != target.size:
        raise ValueError(f"{name}: mask and data must be the same size, got {mask.size} and "
                         f"{target.size}")
    return np.flatnonzero(mask)


def fill_diagonal(a, val, wrap=False) -> None:
    """Assign to the main diagonal; with `wrap` a tall matrix has it again below.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros((2, 2))
    >>> ad.fill_diagonal(x, 5.0)
    >>> x.tolist()
    [[5.0, 0.0], [0.0, 5.0]]
    """
    if a.ndim < 2:
        raise ValueError("fill_diagonal: array must be at least 2-d")
    end = None
    if a.ndim == 2:
        step = a.shape[1] + 1
        if not wrap:
            end = a.shape[1] * a.shape[1]
    else:
        if len(set(a.shape)) > 1:
            raise ValueError(f"fill_diagonal: all axes must be of equal length, got {a.shape}")
        step = 1 + int(np.cumprod(a.shape[:-1]).sum())
    places = np.arange(a.size)[:end:step]
    if places.size:
        _write_flat("fill_diagonal", a, places, _cycled(val, np.arange(places.size)))


def put_along_axis(arr, indices, values, axis) -> None:
    """Assign to elements picked along `axis` by indices that match the other axes.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.zeros((1, 3))
    >>> ad.put_along_axis(x, [[2]], 4.0, axis=1)
    >>> x.tolist()
    [[0.0, 0.0, 4.0]]
    """
    index = np.array(_primal(indices) if type(indices) is Tensor else indices)
    index = index.astype(np.intp, casting="same_kind")
    if axis is None:
        if index.ndim != 1:
            raise ValueError("put_along_axis: when axis=None, indices must have one axis")
        _write_flat("put_along_axis", arr, index % arr.size, as_tensor(values))
        return
    if index.ndim != arr.ndim:
        raise ValueError(f"put_along_axis: indices and array must have as many axes, got "
                         f"{index.ndim} and {arr.ndim}")
    axis = normalize_axis_index(axis, arr.ndim, "put_along_axis")
    try:
        _core.assign(arr, along(index, axis, arr.shape), as_tensor(values), False,
                     symbol="put_along_axis")
    except IndexError as error:
        raise named("put_along_axis", error) from None


def along(index, axis, shape):
    """Complete an array of indices along `axis` to an index of a tensor of that shape."""
    full_index = []
    for k, n in enumerate(shape):
        ones = [1] * len(shape)
        ones[k] = n
        full_index.append(index if k == axis else np.arange(n).reshape(ones))
    return tuple(full_index)


# Methods of Tensor.


def fill(t, value) -> None:
    """Assign one number to all elements."""
    value = as_tensor(value)
    if value.size != 1:
        raise ValueError(f"fill: wants one number, got shape {value.shape}")
    write_whole(t, _core.reshape(value, ()) if value.ndim else value, "fill")


def partition(t, kth, axis=-1, kind="introselect", order=None) -> None:
    """Reorder the elements along `axis` as ``numpy.partition`` does."""
    if not t.ndim:
        raise ValueError("partition: a number has no axis")
    axis = normalize_axis_index(axis, t.ndim, "partition")
    index = _primal(_core.by_numpy(_partitioned, (t, kth, axis), {}))
    write_whole(t, take_index(t, along(index, axis, t.shape), True), "partition")


def _partitioned(a, kth, axis):
    """Return where each element of ``np.partition(a, kth, axis)`` comes from."""
    before = np.argsort(a, axis, kind="stable")
    after = np.argsort(np.partition(a, kth, axis), axis, kind="stable")
    index = np.empty_like(before)
    np.put_along_axis(index, after, before, axis)
    return index


TARGETS = {f.__name__: f for f in (copyto, put, place, putmask, fill_diagonal, put_along_axis)}
