"""Functions whose values are NumPy's own and whose derivatives are those of a definition.

Many of NumPy's functions are long programs (``percentile``, ``interp``, ``cov``) of which every bit
matters to somebody, while their derivatives follow from a few lines of mathematics.  Such a
function is written here as these few lines, over tensors:

    @defines(np.ptp)
    def ptp(a, axis=None, out=None, keepdims=False):
        return max(a, axis, keepdims=keepdims) - min(a, axis, keepdims=keepdims)

`ptp` then computes its value by ``np.ptp``, whatever NumPy does there, warnings and errors
included, and records one node.  A sweep that meets the node runs the definition on the node's
inputs and sweeps through that; in a sweep that records itself both are recorded, so every order
works.  A call that nothing depends on is NumPy's alone.
"""

from __future__ import annotations

import functools

import numpy as np

from . import _core, assignment, numpy_api, rules
from ._core import Tensor
from ._core import array as _primal

_positive = _core.elementwise["positive"]


def defines(function, *, name=None):
    """Declare that the decorated definition says what a NumPy function computes.

    `function` computes the value; `name` is the primitive's, if it is not the function's.  The
    definition gives as many results as the function, in the same nesting; those without a
    derivative may be None.
    """
    name = name or function.__name__

    def declare(definition):
        defined = _core.Defined(function, _declared(name, function, definition))
        return functools.update_wrapper(defined, definition)

    return declare


def _declared(name, value, definition):
    """Declare the primitive of a function with a definition."""

    formula = definition

    @rules.primitive(name, reads_inputs=True)
    class DEFINED:
        def definition(*xs, args, kwargs, places, part):
            return _evaluated(formula, xs, args, kwargs, places, part)

        def forward(*xs, args, kwargs, places, part):
            args, kwargs = _core.filled_in(xs, args, kwargs, places)
            y = value(*args, **kwargs)
            for k in part:
                y = y[k]
            return np.asarray(y)

        def vjp(g, y, inputs, needs, args, kwargs, places, part):
            recorded = _is_recorded(g, *inputs)
            with _Recording():
                xs = [_copy(x, recorded) if need else x for x, need in zip(inputs, needs)]
                again = _core.of_dtype(_evaluated(formula, xs, args, kwargs, places, part), y.dtype)
                live = [x for x, need in zip(xs, needs) if need and x.requires_grad]
                if not live or not again.requires_grad:
                    return (None,) * len(xs)
                bars = iter(_core.run_backward([again], [g], recorded, recorded, live, False, True))
                return tuple([
                    next(bars) if need and x.requires_grad else None for x, need in zip(xs, needs)
                ])

        def jvp(tangents, y, inputs, args, kwargs, places, part):
            given = [t for t in tangents if t is not None]
            recorded = _is_recorded(*given, *inputs)
            with _Recording():
                xs = [x if t is None else _copy(x, recorded) for x, t in zip(inputs, tangents)]
                again = _core.of_dtype(_evaluated(formula, xs, args, kwargs, places, part), y.dtype)
                pairs = [(x, t) for x, t in zip(xs, tangents) if t is not None and x.requires_grad]
                if not pairs or not again.requires_grad:
                    return None
                live, given = zip(*pairs)
                return _core.run_forward([again], list(live), list(given), recorded)[0]

    return DEFINED


class _Recording:
    """Recording on, and the floating-point warnings of what is computed again off."""

    def __enter__(self):
        self.before = _core.set_recording(True)
        self.quiet = np.errstate(all="ignore")
        self.quiet.__enter__()

    def __exit__(self, *exc):
        self.quiet.__exit__(*exc)
        _core.set_recording(self.before)


def _is_recorded(*tensors):
    """Whether the sweep that computes with these tensors records itself."""
    if _core.is_tracing():
        return True
    return _core.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _copy(x, recorded):
    """Return `x` as a tensor of its own that requires gradients, part of the graph if recorded."""
    if recorded and x.requires_grad:
        return _positive(x)
    x = x.detach()
    return x.requires_grad_() if x.dtype.kind in "fc" else x


def _evaluated(definition, xs, args, kwargs, places, part):
    """Return the definition's result, or part of it."""
    args, kwargs = _core.filled_in(xs, args, kwargs, places)
    again = definition(*args, **kwargs)
    for k in part:
        again = again[k]
    return again


# Functions that consist of several others and are recorded as one, except in a trace.
WHOLE: dict = {}


def whole(names):
    """Let calls of these functions by NumPy's names be recorded as one node each."""
    for name in names.split():
        function = getattr(np, name, None)
        if function is not None:        # some came after NumPy 2.0
            WHOLE[function] = defines(function)(numpy_api.FUNCTIONS[function])


_core.register_definitions(rules.named, numpy_api._tensor, assignment.into)


# What definitions are made of.

FOLLOWED: dict = {}


def followed(function):
    """Make a function of arrays one of tensors, without gradient; a replay computes it anew.

    Its name stands for it in stored programs.
    """
    if FOLLOWED.setdefault(function.__name__, function) is not function:
        raise ValueError(f"followed: there is another {function.__name__}")

    @functools.wraps(function)
    def follow(*args, **options):
        return _core.by_numpy(function, args, options)

    return follow


def values_of(t):
    """Return the values of a tensor, array or number; in a recording they are guarded."""
    return _primal(t) if type(t) is Tensor else np.asarray(t)


def register(names, scope):
    """Make functions of a module those that NumPy calls for tensors; return their names."""
    numpy_api.take_out(scope)
    for name in names:
        if hasattr(np, name):           # some came after NumPy 2.0
            numpy_api.FUNCTIONS[getattr(np, name)] = scope[name]
    return sorted(names)
