"""Third-party packages that turn whatever they are given into NumPy arrays."""

from __future__ import annotations

import math
import sys
import types
from contextlib import contextmanager
from threading import Lock

import numpy as np

from . import _core, numpy_api
from ._core import Tensor

__all__ = ["adapt"]


@contextmanager
def adapt(*packages):
    """Let packages keep tensors where they ask NumPy for arrays or `math` for numbers.

    Most functions of NumPy see that an argument is a tensor and come to fastad by themselves.
    ``np.asarray(t)``, ``np.array([t, u])`` and ``math.sin(t)`` cannot: they give arrays and floats,
    and raise or lose the gradient.  And what ``np.zeros`` gives cannot hold a gradient that is
    assigned to an element.  Inside the context the modules of `packages` find, under the names that
    they have for `numpy` and `math` and for functions of these, such as return tensors; NumPy
    itself and all other packages are as before.

    Parameters
    ----------
    *packages : module or str
        Imported packages; all of their modules that are imported when the context is entered change
        until it is left.

    Raises
    ------
    TypeError
        If a package is neither a module nor a name.  Inside the context: by ``float(t)`` of a
        tensor that requires gradients, which ``a[0] = t`` calls for an ndarray `a`, too.
    ImportError
        If a package of that name is not imported.

    Notes
    -----
    Compiled code (C, Cython, Numba) cannot be adapted.  While the context is open other threads
    find the adapted packages changed as well; they compute the same values.

    Examples
    --------
    Python's own module `statistics` calls `math`; the derivative of a distribution function is the
    density:

    >>> import fastad as ad, statistics
    >>> normal = statistics.NormalDist(1.0, 2.0)
    >>> with ad.adapt(statistics):
    ...     slope = ad.grad(normal.cdf)(0.5)
    >>> abs(slope - normal.pdf(0.5)) < 1e-15
    True
    """
    names = [_name_of(package) for package in packages]
    with _lock:
        modules = _modules_of(names)
        for module in modules:
            _enter(module)
        _core.refuse_floats(1)
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                _leave(module)
            _core.refuse_floats(-1)


# How often each adapted module was adapted, and what its names stood for before.
_adapted: dict[types.ModuleType, list] = {}
_lock = Lock()


def _name_of(package):
    if isinstance(package, types.ModuleType):
        return package.__name__
    if not isinstance(package, str):
        raise TypeError(f"adapt: wanted modules or their names, got {type(package).__name__}")
    if package not in sys.modules:
        raise ImportError(f"adapt: import {package} first")
    return package


def _modules_of(names):
    return [
        module for name, module in list(sys.modules.items())
        if isinstance(module, types.ModuleType)
        and any(name == of or name.startswith(of + ".") for of in names)
    ]


def _enter(module):
    if module in _adapted:
        _adapted[module][0] += 1
        return
    before = {}
    for name, value in list(vars(module).items()):
        try:
            ours = _STAND_INS.get(value)
        except TypeError:           # not hashable, so none of those
            continue
        if ours is not None:
            before[name] = value
            setattr(module, name, ours)
    _adapted[module] = [1, before]


def _leave(module):
    record = _adapted[module]
    record[0] -= 1
    if not record[0]:
        del _adapted[module]
        for name, value in record[1].items():
            setattr(module, name, value)


# What stands for NumPy's functions that do not ask their arguments.


def _as_array(function):
    """Return a stand-in for a function that makes an array of its first argument."""

    def made(obj, *args, **kwargs):
        if type(obj) is Tensor or (
            isinstance(obj, (list, tuple)) and numpy_api._holds_tensor(obj)
        ):
            dtype = args[0] if args else kwargs.get("dtype")
            if function is np.array and kwargs.get("copy", True):
                return numpy_api.array(obj, dtype, ndmin=kwargs.get("ndmin", 0))
            return numpy_api.asarray(obj, dtype)
        return _held(function(obj, *args, **kwargs))

    return _named(made, function)


def _creating(function):
    """Return a stand-in for a function that makes an array of nothing but a shape and numbers."""

    def made(*args, **kwargs):
        if function is np.full and numpy_api._requires_grad((args, kwargs)):
            return numpy_api.full(*args, **kwargs)
        args, kwargs = numpy_api._values(args), numpy_api._values(kwargs)
        return _held(function(*args, **kwargs))

    return _named(made, function)


def _held(values):
    """Return an array in which gradients may be kept as a tensor, any other as it is."""
    if type(values) is np.ndarray and values.dtype in _DIFFERENTIABLE:
        return _core.wrap(values)
    return values


def _isscalar(element):
    """Return whether NumPy takes an object for a number; a tensor without axes is one."""
    return element.ndim == 0 if type(element) is Tensor else np.isscalar(element)


class _ArrayType(type):
    """The type of the stand-in for `numpy.ndarray`, of which tensors are instances."""

    def __instancecheck__(cls, obj):
        return isinstance(obj, (np.ndarray, Tensor))

    def __subclasscheck__(cls, other):
        return issubclass(other, (np.ndarray, Tensor))

    def __call__(cls, *args, **kwargs):
        return np.ndarray(*args, **kwargs)

    def __getattr__(cls, name):
        return getattr(np.ndarray, name)


class _Array(metaclass=_ArrayType):
    pass


def _named(stand_in, function):
    stand_in.__name__ = stand_in.__qualname__ = function.__name__
    stand_in.__doc__ = f"``{function.__name__}``, keeping tensors."
    return stand_in


_DIFFERENTIABLE = (np.float64, np.float32, np.complex128, np.complex64)
_ARRAY_MAKERS = "array asarray asanyarray ascontiguousarray asfortranarray asarray_chkfinite"
_CREATORS = "zeros ones empty full eye identity tri arange linspace logspace geomspace fromiter"
_NUMPY = {name: _as_array(getattr(np, name)) for name in _ARRAY_MAKERS.split()}
_NUMPY |= {name: _creating(getattr(np, name)) for name in _CREATORS.split()}
_NUMPY |= {"isscalar": _isscalar, "ndarray": _Array}


# What stands for the functions of `math`, which ask for a float.

# Those that have another name in NumPy; the rest have NumPy's.
_NUMPYS_NAMES = {
    "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
    "atan2": "arctan2", "atanh": "arctanh", "degrees": "rad2deg", "radians": "deg2rad",
    "pow": "power",
}


def _of_numbers(function, ours):
    """Return a stand-in for a function of `math` that takes tensors too."""

    def made(*args, **kwargs):
        for arg in args:
            if type(arg) is Tensor:
                return ours(*args, **kwargs)
        return function(*args, **kwargs)

    return _named(made, function)


def _log(x, base=None):
    y = numpy_api.log(x)
    return y if base is None else y / numpy_api.log(base)


def _hypot(*coordinates):
    return numpy_api.hypot(*coordinates) if len(coordinates) == 2 else _core.sum(
        numpy_api.stack(coordinates) ** 2) ** 0.5


def _isclose(a, b, *, rel_tol=1e-09, abs_tol=0.0):
    if a == b:
        return True
    apart, largest = abs(a - b), max(abs(a), abs(b))
    return bool(apart < math.inf and apart <= max(rel_tol * largest, abs_tol))


# Those whose arguments or results are not NumPy's.
_OWN_MATH = {
    "log": _log,
    "hypot": _hypot,
    "isclose": _isclose,
    "floor": lambda x: int(_core.elementwise["floor"](x)),
    "ceil": lambda x: int(_core.elementwise["ceil"](x)),
    "trunc": int,
}
# Of integers or sequences, and one that NumPy defines otherwise.
_LEFT_OUT = "comb dist factorial fsum gcd isqrt lcm perm prod sumprod remainder".split()


def _math_table():
    table = {}
    for name, function in vars(math).items():
        theirs = _NUMPYS_NAMES.get(name, name)
        ours = (_OWN_MATH.get(name) or _core.elementwise.get(theirs)
                or getattr(numpy_api, theirs, None))
        if callable(function) and ours is not None and name not in _LEFT_OUT:
            table[name] = _of_numbers(function, ours)
    return table


_MATH = _math_table()


class _StandIn(types.ModuleType):
    """A module with some names of its own and otherwise those of another one."""

    def __init__(self, module, table):
        super().__init__(module.__name__, module.__doc__)
        vars(self).update(table)
        vars(self)["_module"] = module

    def __getattr__(self, name):
        return getattr(self._module, name)

    def __dir__(self):
        return dir(self._module)


_STAND_INS = {np: _StandIn(np, _NUMPY), math: _StandIn(math, _MATH)}
_STAND_INS |= {getattr(np, name): ours for name, ours in _NUMPY.items()}
_STAND_INS |= {getattr(math, name): ours for name, ours in _MATH.items()}
