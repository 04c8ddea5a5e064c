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

import numpy as _np

from . import _core, autograd, linalg, modes, numpy_api, rules, scipy, transforms
from . import blame as _blame  # noqa: F401  (programs get methods from it)
from ._core import AnomalyError, Tensor, release_memory, tensor
from .graph import Graph, GuardError, load, name, record
from .modes import detect_anomaly, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .numpy_api import *  # noqa: F403
from .program import Program, ProgramWarning, compile
from .sympy import factorial, from_sympy, gamma, to_sympy
from .transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
from .trust import report

__version__ = "0.1.0"

float64, float32 = _np.float64, _np.float32
int64, int32, int16, int8 = _np.int64, _np.int32, _np.int16, _np.int8
uint64, uint32, uint16, uint8 = _np.uint64, _np.uint32, _np.uint16, _np.uint8
bool_ = _np.bool_
pi, e, inf, nan, newaxis = _np.pi, _np.e, _np.inf, _np.nan, _np.newaxis


def get_include() -> str:
    """Return the folder of C headers that Cython code needs to `cimport` from ``fastad._core``."""
    return _os.path.join(_os.path.dirname(__file__), "core")


_core.library_is((
    _os.path.dirname(__file__) + _os.sep, _os.path.dirname(_np.__file__) + _os.sep, "<partial "))
_core.register_methods(numpy_api.METHODS, numpy_api.getitem)
_core.register_rules(rules.zero_safe, rules.scatter, rules.STACK, rules.FORMS)
_core.register_protocols(numpy_api.array_ufunc, numpy_api.array_function)

__all__ = [
    "AnomalyError", "Graph", "GuardError", "Program", "ProgramWarning", "Tensor", "autograd",
    "bool_", "compile", "detect_anomaly", "e", "enable_grad", "factorial", "float32", "float64",
    "from_sympy", "gamma", "get_include", "grad", "hessian", "inf", "int16", "int32", "int64",
    "int8", "is_grad_enabled", "jacobian", "jvp", "linalg", "load", "modes", "name", "nan",
    "newaxis", "no_grad", "pi", "record", "release_memory", "report", "scipy", "set_grad_enabled",
    "tensor", "to_sympy", "transforms", "uint16", "uint32", "uint64", "uint8", "value_and_grad",
    "vjp",
    *numpy_api.__all__,
]
