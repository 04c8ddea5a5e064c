"""fastad: exact gradients of ordinary numerical Python, fast, on ordinary CPUs.

>>> import fastad as ad
>>> x = ad.tensor(2.0, requires_grad=True)
>>> y = ad.sin(x) * x**2
>>> y.backward()
>>> round(x.grad.item(), 6)
1.972602
"""

from __future__ import annotations

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

import numpy as _np

from . import (
    _core,
    autograd,
    exchange,
    fft,
    linalg,
    modes,
    numpy_api,
    numpy_coverage,
    rules,
    scipy,
    transforms,
)
from . import blame as _blame  # noqa: F401  (programs get methods from it)
from ._core import AnomalyError, Tensor, release_memory, tensor
from .adapt import adapt
from .exchange import *  # noqa: F403
from .exchange import API_VERSION as __array_api_version__  # noqa: F401
from .graph import Graph, GuardError, load, name, record
from .modes import detect_anomaly, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .numpy_coverage import *  # noqa: F403
from .program import Program, ProgramWarning, compile
from .sympy import factorial, from_sympy, gamma, to_sympy
from .transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
from .trust import report

if TYPE_CHECKING:
    from .pictures import Picture as Picture
    from .pictures import draw as draw

__version__ = "0.1.0"

float64, float32 = _np.float64, _np.float32
complex128, complex64 = _np.complex128, _np.complex64
int64, int32, int16, int8 = _np.int64, _np.int32, _np.int16, _np.int8
uint64, uint32, uint16, uint8 = _np.uint64, _np.uint32, _np.uint16, _np.uint8
bool = bool_ = _np.bool_
if hasattr(_np, "__array_namespace_info__"):        # since NumPy 2.1
    __array_namespace_info__ = _np.__array_namespace_info__
pi, e, inf, nan, newaxis = _np.pi, _np.e, _np.inf, _np.nan, _np.newaxis


def get_include() -> str:
    """Return the folder of C headers that Cython code needs to `cimport` from ``fastad._core``."""
    return _os.path.join(_os.path.dirname(__file__), "core")


def __getattr__(name: str) -> _Any:
    """Import what few programs use when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'fastad' has no attribute {name!r}")
    module = _import_module(f"fastad.{_LATER[name]}")
    found = globals()[name] = module if _LATER[name] == name else getattr(module, name)
    return found


_LATER = {"Picture": "pictures", "draw": "pictures", "special": "special"}

_core.library_is((
    _os.path.dirname(__file__) + _os.sep, _os.path.dirname(_np.__file__) + _os.sep,
    "<partial ", "<fastad"))
_core.register_methods(
    {**exchange.METHODS, **numpy_api.METHODS}, numpy_api.getitem, numpy_api.setitem
)
_core.register_rules(
    rules.zero_safe, rules.scatter, rules.STACK, rules.WINDOW, rules.PUT, rules.put_values,
    rules.picked, rules.FORMS,
)
_core.register_protocols(numpy_api.array_ufunc, numpy_api.array_function, numpy_api.UFUNCS,
                         numpy_api.FUNCTIONS, numpy_api.OWN_WAY)

__all__ = [
    "AnomalyError", "Graph", "GuardError", "Program", "ProgramWarning", "Tensor", "adapt",
    "autograd", "bool", "bool_", "compile", "complex128", "complex64", "detect_anomaly", "e",
    "enable_grad", "factorial", "fft", "float32", "float64", "from_sympy", "gamma", "get_include",
    "grad", "hessian", "inf", "int16", "int32", "int64", "int8", "is_grad_enabled", "jacobian",
    "jvp", "linalg", "load", "modes", "name", "nan", "newaxis", "no_grad", "pi", "record",
    "release_memory", "report", "scipy", "set_grad_enabled", "tensor", "to_sympy", "transforms",
    "uint16", "uint32", "uint64", "uint8", "value_and_grad", "vjp",
    *exchange.__all__, *numpy_coverage.__all__, *_LATER,
]
