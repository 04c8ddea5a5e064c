"""The methods and attributes of ``numpy.ndarray`` that tensors have beyond the most common ones."""

from __future__ import annotations

import numpy as np

from . import _core, numpy_api, numpy_arrangement, numpy_statistics
from .numpy_api import METHODS
from .rules import array

__all__: list[str] = []         # all of it is attributes of Tensor


def _argpartition(t, kth, axis=-1, kind="introselect", order=None):
    """Return the indices that partition along an axis; see ``numpy.argpartition``."""
    return numpy_api._by_numpy(np.argpartition, (t, numpy_api._values(kth), axis, kind, order), {})


def _searchsorted(t, v, side="left", sorter=None):
    """Return where numbers would have to be inserted into this ascending tensor."""
    return np.searchsorted(t, v, side, sorter)


def _compress(t, condition, axis=None, out=None):
    """Return the slices along an axis where a condition holds."""
    return numpy_arrangement.compress(condition, t, axis, out)


def _choose(t, choices, out=None, mode="raise"):
    """Return elements that this tensor of indices picks from several arrays."""
    return numpy_arrangement.choose(t, choices, out, mode)


def _cumprod(t, axis=None, dtype=None, out=None):
    """Return the products of all elements up to each along an axis."""
    return numpy_statistics.cumprod(t, axis, dtype, out=out)


def _plain(t, name):
    """Return the values of a tensor, which leave the graph."""
    if t.requires_grad:
        raise RuntimeError(f"{name}: this tensor requires gradients, which bytes would drop; use "
                           ".detach() first")
    return array(t)


def _tobytes(t, order="C"):
    """Return the bytes of the elements."""
    return _plain(t, "tobytes").tobytes(order)


def _tofile(t, fid, sep="", format="%s"):
    """Write the elements to a file; see ``numpy.ndarray.tofile``."""
    _plain(t, "tofile").tofile(fid, sep, format)


def _dumps(t):
    """Return the tensor as a pickle."""
    import pickle  # only here: it takes milliseconds to import

    return pickle.dumps(t)


def _dump(t, file):
    """Pickle the tensor into an open file or one of that name."""
    if hasattr(file, "write"):
        file.write(_dumps(t))
    else:
        with open(file, "wb") as stream:
            stream.write(_dumps(t))


def _flat(t):
    """The elements in one axis, as a tensor."""
    return _core.reshape(t, (-1,))


def _mT(t):
    """The tensor with its last two axes exchanged."""
    return numpy_api.matrix_transpose(t)


def _strides(t):
    """Bytes from an element to the next along each axis; tensors are in C order."""
    return array(t).strides


METHODS.update(
    argpartition=_argpartition, choose=_choose, compress=_compress,
    cumprod=_cumprod, dump=_dump, dumps=_dumps, searchsorted=_searchsorted,
    tobytes=_tobytes, tofile=_tofile,
    flat=property(_flat), mT=property(_mT), strides=property(_strides),
)

OLD = ("itemset", "newbyteorder", "ptp", "tostring")
# Attributes of ndarray that tensors do not have, and why.
MISSING = {
    **dict.fromkeys(("__array_finalize__", "__array_wrap__", "__array_interface__",
                     "__array_struct__"),
                    "for subclasses and for memory of arrays: a tensor is neither"),
    # NumPy 2 has them no more, though they stand in its dir()
    **dict.fromkeys(OLD, "not in NumPy 2"),
    "__class_getitem__": "for annotations: a tensor's type has no parameters",
    "__setstate__": "pickles of tensors are made by __reduce__",
    **dict.fromkeys("base ctypes data flags setflags".split(),
                    "about memory; `.detach().numpy()` gives an array that has it"),
    **dict.fromkeys("byteswap getfield setfield view".split(),
                    "they look at the bytes of numbers, which has no derivative"),
    "resize": "a tensor keeps its shape; `np.resize(t, shape)` makes a new one",
}
