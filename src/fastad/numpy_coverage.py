"""Which of NumPy's functions take tensors, and how; all of them in one namespace.

Every function and ufunc that NumPy lets other types override is of one of three classes, which
`classify` finds in the tables that calls go by:

differentiable
    It has an entry in `UFUNCS` or `FUNCTIONS`, and its results depend on its operands smoothly,
    almost everywhere.
value only
    It has an entry, and its results are truth values, integers, indices or text.
not supported
    It stands in `NOT_SUPPORTED` with the reason.  Called with a tensor that requires gradients it
    raises a TypeError that gives the reason; with others it computes with the values, unless it
    could do nothing with numbers at all.

What has no entry anywhere is a function of a NumPy that is newer than this table.
"""

from __future__ import annotations

import sys

import numpy as np

from . import (
    numpy_api,
    numpy_arrangement,
    numpy_creation,
    numpy_methods,
    numpy_polynomials,
    numpy_scimath,
    numpy_signal,
    numpy_statistics,
    numpy_ufuncs,
)
from .numpy_api import FUNCTIONS, UFUNCS

MODULES = (numpy_api, numpy_arrangement, numpy_creation, numpy_methods, numpy_polynomials,
           numpy_scimath, numpy_signal, numpy_statistics, numpy_ufuncs)

# ---- not supported -------------------------------------------------------------------------------

_TEXT = "it is a function of text, and tensors hold numbers", "call it with an array of strings"
_DATES = "it is a function of dates, and tensors hold numbers", "call it with NumPy's dates"
_RECORDS = ("it is a function of structured arrays, and tensors hold plain numbers",
            "use a tensor for each field")
_FILES = "a file keeps values, not gradients", "pass `.detach().numpy()`"

# name -> (reason, what to do instead)
NOT_SUPPORTED: dict[str, tuple[str, str]] = {
    **dict.fromkeys("save savetxt savez savez_compressed".split(), _FILES),
    **dict.fromkeys(
        "busday_count busday_offset datetime_as_string is_busday isnat".split(), _DATES),
    **dict.fromkeys("""
        _center _expandtabs _expandtabs_length _ljust _lstrip_chars _lstrip_whitespace _partition
        _partition_index _replace _rjust _rpartition _rpartition_index _rstrip_chars
        _rstrip_whitespace _slice _strip_chars _strip_whitespace _zfill count endswith find index
        isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper rfind rindex
        startswith str_len
        """.split(), _TEXT),
}
_BY_MODULE = {
    "numpy.lib.recfunctions": _RECORDS,
    "numpy.char": _TEXT,
    "numpy.strings": _TEXT,
}
_SERIES = "numpy.polynomial.polynomial"
# They can do nothing with numbers: no value either.
_NEVER = (_TEXT, _DATES, _RECORDS)


def _home(function):
    """Return the public module of one of NumPy's functions."""
    return (function.__module__ or "numpy").replace("_scimath_impl", "scimath")


def refusal(name, module="numpy"):
    """Return why a function of NumPy does not take tensors and what to do, or None."""
    return NOT_SUPPORTED.get(name) if module == "numpy" else _BY_MODULE.get(module)


def _refused(function, reason):
    """Return what stands for a function that is not supported."""
    name = function.__name__.removeprefix("_")

    def refused(*args, **kwargs):
        why, instead = reason
        if reason in _NEVER or numpy_api._recording((args, kwargs)):
            raise TypeError(f"{name}: {why}; {instead}")
        return numpy_api.without_gradient(function, args, kwargs)

    refused.__name__ = refused.__qualname__ = name
    refused.__doc__ = f"Not supported: {reason[0]}; {reason[1]}."
    return refused


def _entry(function):
    """Return what stands for a function; NumPy imports a few modules when they are asked for."""
    ours = FUNCTIONS.get(function)
    if ours is None and getattr(function, "__module__", None) == _SERIES:
        ours = numpy_polynomials.SERIES.get(function.__name__)
        if ours is not None:
            FUNCTIONS[function] = ours
    return ours


def refuse(function):
    """Return what stands for a function without an entry, or None."""
    ours = _entry(function)
    if ours is not None:
        return ours
    reason = refusal(function.__name__, _home(function))
    return None if reason is None else _refused(function, reason)


def refuse_ufunc(ufunc):
    """As `refuse`, for a ufunc."""
    reason = NOT_SUPPORTED.get(ufunc.__name__)
    return None if reason is None else _refused(ufunc, reason)


numpy_api.GENERAL.update(refuse=refuse, refuse_ufunc=refuse_ufunc)

# ---- classes -------------------------------------------------------------------------------------

# Functions of older releases of NumPy, with what stands for them.
REMOVED = {name: numpy_api._on_values(getattr(np, name)) for name in ("in1d",) if hasattr(np, name)}
FUNCTIONS.update({getattr(np, name): ours for name, ours in REMOVED.items()})

DIFFERENTIABLE, VALUE_ONLY, UNSUPPORTED = "differentiable", "value only", "not supported"

# Those of the functions with an entry whose results have no derivative, besides the value functions
# that numpy_api lists.
_VALUES_OF_OWN = frozenset("""
all any argmax argmin argsort ndim shape size ones_like zeros_like empty_like
arange empty eye frombuffer fromfile fromiter fromstring genfromtxt identity in1d loadtxt ones
tri zeros _ones_like matrix_rank fftfreq rfftfreq
""".split())
_VALUE_NAMES = (
    _VALUES_OF_OWN | frozenset(numpy_api._VALUE_UFUNCS) | frozenset(numpy_api._VALUE_FUNCTIONS))

# What a user should know about single functions.
REMARKS = {
    "angle": "slope 0 for real numbers",
    "average": "in the weights too",
    "bincount": "in the weights",
    "choose": "in the choices",
    "cov": "in the observations and in `aweights`",
    "divmod": "the quotient has slope 0",
    "frexp": "the mantissa",
    "full": "in the value",
    "full_like": "in the value",
    "gradient": "in the spacings too",
    "histogram": "in the weights, and as a density in the bins' width",
    "histogram2d": "as `histogram`",
    "histogramdd": "as `histogram`",
    "i0": "slope: the Bessel function of order 1, and so on",
    "interp": "in `x`, `xp`, `fp`, `left` and `right`",
    "ldexp": "in the mantissa",
    "nan_to_num": "slope 0 where a number was put in place",
    "nextafter": "slope 1 in the first operand, 0 in the second",
    "percentile": "in `q` too where the method interpolates; slope 0 in `weights`",
    "polyfit": "in `x`, `y` and `w`; of constant rank",
    "quantile": "in `q` too where the method interpolates; slope 0 in `weights`",
    "nanpercentile": "as `percentile`",
    "nanquantile": "as `quantile`",
    "roots": "of simple roots; a repeated one has no derivative",
    "setdiff1d": "of equal elements the first has the gradient",
    "sliding_window_view": "a copy: windows share no memory",
    "unique": "of equal elements the first has the gradient",
    "unwrap": "in `period` too",
}
REMARKS.update(dict.fromkeys(
    "ceil floor trunc rint round around fix sign floor_divide spacing".split(), "slope 0"))


def overridable():
    """Return NumPy's overridable functions and ufuncs by module and name, each once.

    Raises
    ------
    ImportError
        If ``numpy.testing`` is not there.
    """
    from importlib import import_module

    for module in (*_BY_MODULE, _SERIES):           # what has not been imported has not been listed
        import_module(module)
    from numpy.testing.overrides import (
        get_overridable_numpy_array_functions,
        get_overridable_numpy_ufuncs,
    )

    found = {}
    for ufunc in get_overridable_numpy_ufuncs():
        found["ufunc", "numpy", ufunc.__name__] = ufunc
    for function in get_overridable_numpy_array_functions():
        module = _home(function)
        owner = sys.modules.get(module, np)
        found["function", module, function.__name__] = getattr(owner, function.__name__, function)
    return dict(sorted(found.items()))


def classify(function):
    """Return the class of one of NumPy's functions or ufuncs, or None if no table has it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastad.numpy_coverage import classify
    >>> classify(np.sin), classify(np.argsort), classify(np.savez)
    ('differentiable', 'value only', 'not supported')
    """
    name, ours = function.__name__, _entry(function)
    if isinstance(function, np.ufunc):
        if function in UFUNCS:
            return VALUE_ONLY if name in _VALUE_NAMES else DIFFERENTIABLE
        return UNSUPPORTED if name in NOT_SUPPORTED else None
    if ours is not None:
        return VALUE_ONLY if name in _VALUE_NAMES else DIFFERENTIABLE
    module = _home(function)
    return None if refusal(name, module) is None else UNSUPPORTED


def remark(function):
    """Return what to know about a function: a restriction, or why it is not supported."""
    if classify(function) == UNSUPPORTED:
        module = "numpy" if isinstance(function, np.ufunc) else _home(function)
        return "; ".join(refusal(function.__name__, module))
    return REMARKS.get(function.__name__, "")


__all__ = []
for _module in MODULES:
    __all__ += _module.__all__
    globals().update({_name: getattr(_module, _name) for _name in _module.__all__})
__all__ = sorted(set(__all__))
