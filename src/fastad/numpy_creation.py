"""NumPy's functions that make tensors from other things, and the ``like=`` of all that have one."""

from __future__ import annotations

import functools

import numpy as np

from . import _core, numpy_api
from ._core import Tensor
from .definitions import register
from .numpy_api import _tensor


def asanyarray(a, dtype=None, *, copy=None) -> Tensor:
    """Return `a` itself if it is a tensor of that dtype, else a tensor with its values.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.asanyarray([1.0, 2.0]).tolist()
    [1.0, 2.0]
    """
    if type(a) is Tensor and dtype is None and not copy:
        return a
    return numpy_api.array(a, dtype, copy=bool(copy))


def ascontiguousarray(a, dtype=None) -> Tensor:
    """Return `a` as a tensor with an axis or more; all tensors are contiguous.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ascontiguousarray(2.0).shape
    (1,)
    """
    if type(a) is Tensor and dtype is None and a.ndim:
        return a
    return numpy_api.array(a, dtype, copy=False, ndmin=1)


def asfortranarray(a, dtype=None) -> Tensor:
    """Return `a` as a tensor; its elements are stored in C order, as those of all tensors.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.asfortranarray([[1.0, 2.0]]).tolist()
    [[1.0, 2.0]]
    """
    return ascontiguousarray(a, dtype)


def require(a, dtype=None, requirements=None) -> Tensor:
    """Return `a` as a tensor of a dtype; in C order, whatever is required.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.require([1.0, 2.0], "float32").dtype
    dtype('float32')
    """
    return asanyarray(a, dtype)


def fromfunction(function, shape, *, dtype=float, **kwargs):
    """Return a function of tensors that hold, for each axis, the indices along it.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> ad.fromfunction(lambda i, j: x * i + j, (2, 2)).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    return function(*_core.wrap(np.indices(shape, dtype)), **kwargs)


def tri(N, M=None, k=0, dtype=float) -> Tensor:
    """Return a matrix with ones at and below its k-th diagonal and zeros above.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.tri(2).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    return _core.wrap(np.tri(N, M, k, dtype), copy=False)


def vectorize(pyfunc, otypes=None, doc=None, excluded=None, cache=False, signature=None):
    """Return a function that applies `pyfunc` to single elements, with gradients.

    ``numpy.vectorize`` itself puts its results into NumPy arrays, where gradients end.  `otypes`
    and `cache` stand for NumPy's and change nothing; `excluded` names arguments, by place or name,
    that are handed over whole.

    Raises
    ------
    TypeError
        If `signature` is given, or `pyfunc` is none: see ``apply_along_axis``.

    Examples
    --------
    >>> import fastad as ad
    >>> step = ad.vectorize(lambda x: x**2 if x > 0.0 else -x)
    >>> step(ad.tensor([-1.0, 3.0])).tolist()
    [1.0, 9.0]
    """
    if signature is not None or not callable(pyfunc):
        raise TypeError("vectorize: wants a function of single elements and no signature; "
                        "apply_along_axis applies functions of vectors")
    whole = set(excluded or ())

    def vectorized(*args, **kwargs):
        places = [key for key in (*range(len(args)), *kwargs) if key not in whole]
        given = {**dict(enumerate(args)), **kwargs}
        parts = numpy_api.broadcast_arrays(*[given[key] for key in places])
        shape = parts[0].shape
        results = []
        for index in np.ndindex(shape):
            now = {**given, **{key: t[index] for key, t in zip(places, parts)}}
            positional = [now[k] for k in range(len(args))]
            results.append(pyfunc(*positional, **{k: now[k] for k in kwargs}))
        if not results:
            raise ValueError("vectorize: cannot apply a function to no elements")
        if isinstance(results[0], tuple):
            return tuple([_core.reshape(numpy_api.stack([_tensor(t) for t in column]), shape)
                          for column in zip(*results)])
        return _core.reshape(numpy_api.stack([_tensor(t) for t in results]), shape)

    functools.update_wrapper(vectorized, pyfunc)
    if doc is not None:
        vectorized.__doc__ = doc
    return vectorized


# Functions with ``like=``, which NumPy hands over without that argument.


def _like(name, ours):
    """Return what ``numpy.<name>(..., like=tensor)`` calls."""
    theirs = getattr(np, name)

    def like(*args, **kwargs):
        if kwargs.get("device") not in (None, "cpu"):
            raise ValueError(f"{name}: tensors live on the cpu, not on {kwargs['device']!r}")
        for option in ("order", "device", "subok"):         # one place, one order, one type
            kwargs.pop(option, None)
        if ours is not None:
            return ours(*args, **{key: value for key, value in kwargs.items() if value is not None})
        return numpy_api._wrapped(theirs(*numpy_api._values(args), **numpy_api._values(kwargs)))

    like.__name__ = like.__qualname__ = name
    like.inner = ours               # without keywords
    return like


MADE = """
arange array asanyarray asarray ascontiguousarray asfortranarray empty eye frombuffer fromfile
fromfunction fromiter fromstring full genfromtxt identity loadtxt ones require tri zeros
""".split()

__all__ = register(
    "asanyarray ascontiguousarray asfortranarray fromfunction require tri".split(), globals())
__all__ += ["vectorize"]

for _name in MADE:
    _ours = globals()[_name] if _name in __all__ else getattr(numpy_api, _name, None)
    numpy_api.FUNCTIONS[getattr(np, _name)] = _like(_name, _ours)
    numpy_api.OWN_WAY.add(getattr(np, _name))
