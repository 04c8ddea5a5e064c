"""NumPy's ufuncs over tensors beyond the op table: those of several results or of parts of floats,
products of vectors, and what every ufunc does: reduce, accumulate, reduceat, ``where=``."""

from __future__ import annotations

from math import prod as _product

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from . import _core, numpy_api, rules
from ._core import Tensor
from .definitions import defines, followed
from .numpy_api import UFUNCS, _tensor
from .numpy_statistics import _running
from .rules import take_index

_NOT_GIVEN = np._NoValue
_where = rules.where
_elementwise = _core.elementwise


# Parts and neighbours of floats.


@defines(np.modf)
def modf(x, /) -> tuple:
    """Return the fractions and the whole parts, both with the sign of `x`.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.item() for t in ad.modf(ad.tensor(-2.5))]
    [-0.5, -2.0]
    """
    x = _tensor(x)
    whole = _elementwise["trunc"](x)
    return x - whole, whole


@defines(np.ldexp)
def ldexp(x1, x2, /) -> Tensor:
    """Return ``x1 * 2**x2``; differentiable in `x1`, the exponent is an integer.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.ldexp(ad.tensor(3.0), 2).item()
    12.0
    """
    x1 = _tensor(x1)
    return x1 * _core.astype(_elementwise["exp2"](_core.astype(x2, np.float64)), x1.dtype)


@followed
def exponents(x):
    """The exponents of ``np.frexp``."""
    return np.frexp(x)[1]


@defines(np.frexp)
def frexp(x, /) -> tuple:
    """Return mantissas of 1/2 to 1, and integer exponents of 2.

    Examples
    --------
    >>> import fastad as ad
    >>> [t.item() for t in ad.frexp(ad.tensor(12.0))]
    [0.75, 4]
    """
    x = _tensor(x)
    return ldexp.__wrapped__(x, -exponents(x)), None


@defines(np.nextafter)
def nextafter(x1, x2, /) -> Tensor:
    """Return the floats next to `x1` towards `x2`; the slope in `x1` is 1, that in `x2` 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.nextafter(ad.tensor(1.0), 2.0).item()
    1.0000000000000002
    """
    x1, x2 = _tensor(x1), _tensor(x2)
    return _core.broadcast_to(x1, np.broadcast_shapes(x1.shape, x2.shape))


@defines(np.spacing)
def spacing(x, /) -> Tensor:
    """Return the distances to the next floats; the slope is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.spacing(ad.tensor(1.0)).item()
    2.220446049250313e-16
    """
    return _elementwise["floor"](_tensor(x))


def fix(x, out=None) -> Tensor:
    """Return the numbers rounded towards zero; the slope is 0.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.fix(ad.tensor([1.7, -1.7])).tolist()
    [1.0, -1.0]
    """
    return _elementwise["trunc"](_tensor(x))


# Products of stacks of vectors and matrices.


def _operands(x1, x2, cores, axis, axes):
    """Return operands with their vectors or matrices at the end, and the result's axis."""
    x1, x2 = _tensor(x1), _tensor(x2)
    if axis is not None:
        axes = [axis, axis]
    if axes is not None:
        x1, x2 = [
            numpy_api.moveaxis(t, place, tuple(range(-core, 0)))
            for t, place, core in zip((x1, x2), axes, cores)
        ]
    return x1, x2, axes[2] if axes is not None and len(axes) > 2 else None


def _vector_product(name, cores, product):
    """Declare a ufunc that multiplies vectors or matrices at the ends of its operands' axes."""

    @defines(getattr(np, name, None) or _BEFORE[name], name=name)
    def multiplied(x1, x2, /, *, axis=None, axes=None, keepdims=False, dtype=None):
        x1, x2, place = _operands(x1, x2, cores, axis, axes)
        if dtype is not None:
            x1, x2 = _core.astype(x1, dtype), _core.astype(x2, dtype)
        y = product(*numpy_api._same_dtype((x1, x2)))
        if keepdims:
            return numpy_api.expand_dims(y, -1 if axis is None else axis)
        if place is None or place == ():
            return y
        ends = tuple(range(-np.size(place), 0))
        return numpy_api.moveaxis(y, ends, place)

    return multiplied


# Two ufuncs came with NumPy 2.2.
_BEFORE = {
    "matvec": lambda x1, x2: np.matmul(x1, np.asarray(x2)[..., None])[..., 0],
    "vecmat": lambda x1, x2: np.matmul(np.conjugate(x1)[..., None, :], x2)[..., 0, :],
}


def _column(t):
    return _core.reshape(t, (*t.shape, 1))


def _row(t):
    return _core.reshape(t, (*t.shape[:-1], 1, t.shape[-1]))


def _inner(a, b):
    return _core.sum(np.conjugate(a) * b, -1, False)


vecdot = _vector_product("vecdot", (1, 1), _inner)
matvec = _vector_product(
    "matvec", (2, 1), lambda a, b: take_index(_core.matmul(a, _column(b)), (..., 0), True))
vecmat = _vector_product(
    "vecmat", (1, 2),
    lambda a, b: take_index(_core.matmul(np.conjugate(_row(a)), b), (..., 0, slice(None)), True))
_matmul = _vector_product("matmul", (2, 2), _core.matmul)

for _name, _text in {
    "vecdot": """Return the dot products of vectors, the first conjugated, along the last axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.vecdot(ad.tensor([[1.0, 2.0], [3.0, 4.0]]), [1.0, 1.0]).tolist()
    [3.0, 7.0]
    """,
    "matvec": """Return the products of matrices and vectors at the ends of the axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.matvec(ad.tensor([[1.0, 2.0], [3.0, 4.0]]), [1.0, 1.0]).tolist()
    [3.0, 7.0]
    """,
    "vecmat": """Return the products of vectors, conjugated, and matrices at the ends of the axes.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.vecmat([1.0, 1.0], ad.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [4.0, 6.0]
    """,
}.items():
    globals()[_name].__doc__ = _text
    globals()[_name].__name__ = globals()[_name].__qualname__ = _name


# Reductions.

# What changes nothing when it comes later than the first element.
_NEUTRAL = {
    np.add: 0.0, np.multiply: 1.0, np.maximum: -np.inf, np.minimum: np.inf,
    np.subtract: 0.0, np.divide: 1.0, np.logaddexp: -np.inf, np.logaddexp2: -np.inf,
    np.hypot: 0.0, np.fmax: np.nan, np.fmin: np.nan,
    np.float_power: 1.0,
}


def _parts(t, axis):
    """Return the first slice along an axis and the others."""
    before = (slice(None),) * axis
    return (take_index(t, (*before, 0), True), take_index(t, (*before, slice(1, None)), True))


def _log_sum(base_log, exp, log):
    def reduced(t, axis):
        top = numpy_api.max(t.detach(), axis, keepdims=True)
        top = _where(top - top == 0.0, top, 0.0)
        y = log(_core.sum(exp(t - top), axis, False))
        return y + _core.reshape(top, y.shape)

    return reduced


def _subtracted(t, axis):
    first, rest = _parts(t, axis)
    return first - _core.sum(rest, axis, False)


def _divided(t, axis):
    first, rest = _parts(t, axis)
    return first / numpy_api.prod(rest, axis)


_REDUCED = {
    np.add: lambda t, axis: _core.sum(t, axis, False),
    np.multiply: numpy_api.prod,
    np.maximum: numpy_api.max,
    np.minimum: numpy_api.min,
    np.subtract: _subtracted,
    np.divide: _divided,
    np.logaddexp: _log_sum(1.0, _elementwise["exp"], _elementwise["log"]),
    np.logaddexp2: _log_sum(np.log(2.0), _elementwise["exp2"], _elementwise["log2"]),
    np.hypot: lambda t, axis: rules.norm(t, (axis,), False),
    np.fmax: lambda t, axis: numpy_api.max(_where(t == t, t, -np.inf), axis),
    np.fmin: lambda t, axis: numpy_api.min(_where(t == t, t, np.inf), axis),
}


def _reduced_along(ufunc, t, axis):
    """Return what is left when the elements along an axis are put together, from the first on."""
    known = _REDUCED.get(ufunc)
    if known is not None:
        return known(t, axis)
    parts = numpy_api.unstack(t, axis=axis)
    y = parts[0]
    for part in parts[1:]:
        y = UFUNCS[ufunc](y, part)
    return y


def _reduce(ufunc, *args, **kwargs):
    return ufunc.reduce(*args, **kwargs)


@defines(_reduce, name="ufunc.reduce")
def reduce(
    ufunc, array, axis=0, dtype=None, out=None, keepdims=False, initial=_NOT_GIVEN, where=True
):
    t = _tensor(array)
    if dtype is not None:
        t = _core.astype(t, dtype)
    axes = range(t.ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple([normalize_axis_index(k, t.ndim) for k in axes]) if t.ndim else ()
    if where is not True:
        t = _where(where, t, _NEUTRAL[ufunc])
    free = [n for k, n in enumerate(t.shape) if k not in axes]
    rows = rules.move_to_end(t, axes)[0]
    rows = _core.reshape(rows, (*free, _product([t.shape[k] for k in axes])))
    if initial is not _NOT_GIVEN and initial is not None:
        first = _core.broadcast_to(_core.astype(initial, t.dtype), (*free, 1))
        rows = rules.concatenate([first, rows], len(free))
    y = _reduced_along(ufunc, rows, len(free))
    return _core.reshape(y, rules.kept_shape(t.shape, axes)) if keepdims else y


def _accumulate(ufunc, *args, **kwargs):
    return ufunc.accumulate(*args, **kwargs)


_ASSOCIATIVE = frozenset([
    np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.logaddexp, np.logaddexp2, np.hypot,
])


@defines(_accumulate, name="ufunc.accumulate")
def accumulate(ufunc, array, axis=0, dtype=None, out=None):
    t = _tensor(array)
    if dtype is not None:
        t = _core.astype(t, dtype)
    axis = normalize_axis_index(axis, t.ndim)
    if ufunc is np.add:
        return numpy_api.cumsum(t, axis)
    if ufunc in _ASSOCIATIVE:
        return _running(UFUNCS[ufunc], t, axis)
    if ufunc in (np.subtract, np.divide) and t.shape[axis] > 1:
        before = (slice(None),) * axis
        first = take_index(t, (*before, slice(0, 1)), True)
        rest = take_index(t, (*before, slice(1, None)), True)
        if ufunc is np.subtract:
            rest = first - numpy_api.cumsum(rest, axis)
        else:
            rest = first / _running(_elementwise["multiply"], rest, axis)
        return rules.concatenate([first, rest], axis)
    parts = list(numpy_api.unstack(t, axis=axis))
    for k in range(1, len(parts)):
        parts[k] = UFUNCS[ufunc](parts[k - 1], parts[k])
    return numpy_api.stack(parts, axis) if parts else t


def _reduceat(ufunc, *args, **kwargs):
    return ufunc.reduceat(*args, **kwargs)


@defines(_reduceat, name="ufunc.reduceat")
def reduceat(ufunc, array, indices, axis=0, dtype=None, out=None):
    t = _tensor(array)
    if dtype is not None:
        t = _core.astype(t, dtype)
    axis = normalize_axis_index(axis, t.ndim)
    starts = np.asarray(numpy_api._values(indices), np.intp)
    stops = np.append(starts[1:], t.shape[axis])
    stops = np.where(stops > starts, stops, starts + 1)
    before = (slice(None),) * axis
    if ufunc is not np.add:
        spans = [take_index(t, (*before, slice(a, b)), True)
                 for a, b in zip(starts.tolist(), stops.tolist())]
        return numpy_api.stack([_reduced_along(ufunc, span, axis) for span in spans], axis)
    lengths = stops - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    places = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    shape = (*t.shape[:axis], len(starts), *t.shape[axis + 1 :])
    return rules.scatter(take_index(t, (*before, places)), shape, (*before, owner))


# Calls with options.


def _masked(ufunc, *inputs, where, **options):
    """A ufunc where a mask holds, and 0 elsewhere, where NumPy leaves what was in memory."""
    with np.errstate(all="ignore"):
        kind = ufunc(*[x.ravel()[:0] if np.ndim(x) else x for x in inputs], **options).dtype
    shape = np.broadcast_shapes(np.shape(where), *map(np.shape, inputs))
    out = np.zeros(shape, kind)
    ufunc(*inputs, where=where, out=out, **options)
    return out


@defines(_masked, name="ufunc where")
def masked(ufunc, *inputs, where, **options):
    if options.get("dtype") is not None:
        inputs = [_core.astype(x, options["dtype"]) for x in inputs]
    return _where(where, UFUNCS[ufunc](*inputs), 0.0)


@followed
def of_ufunc(ufunc, method, *args, **options):
    """A method of a ufunc whose results have no derivative."""
    return getattr(ufunc, method)(*args, **options)


def _options(kwargs):
    """Return options without those that are as if they were not given."""
    plain = {"dtype": None, "out": None, "where": True, "order": "K", "subok": True,
             "casting": "same_kind", "initial": _NOT_GIVEN, "keepdims": False}
    return {
        key: value for key, value in kwargs.items()
        if key not in plain or not (value is plain[key] or (
            key in ("order", "casting", "subok", "keepdims") and value == plain[key]))
    }


def with_options(ufunc, inputs, kwargs):
    """Call a ufunc with options, or return NotImplemented where NumPy alone can do that."""
    options = _options(kwargs)
    options.pop("order", None)          # tensors are in C order
    options.pop("subok", None)
    if "out" in options or ufunc.nout > 1:
        return NotImplemented
    if ufunc in _GENERALIZED and options.keys() <= {"axis", "axes", "keepdims", "dtype"}:
        return _GENERALIZED[ufunc](*inputs, **options)
    if ufunc.signature is not None:
        return NotImplemented
    if ufunc.__name__ in numpy_api._VALUE_UFUNCS:
        return numpy_api._wrapped(ufunc(*numpy_api._values(inputs), **numpy_api._values(options)))
    if not options:
        return UFUNCS[ufunc](*inputs)
    if "where" in options and options.keys() <= {"where", "dtype", "casting"}:
        return masked(ufunc, *inputs, **options)
    if options.keys() == {"dtype"}:
        cast = [numpy_api._cast(ufunc.__name__, x, options["dtype"]) for x in inputs]
        return UFUNCS[ufunc](*cast)
    return NotImplemented


def method_of(ufunc, method, inputs, kwargs):
    """Call a method of a ufunc, or return NotImplemented where NumPy alone can do that."""
    if ufunc.nin != 2 or ufunc.nout != 1 or ufunc.signature is not None:
        return NotImplemented
    options = {**kwargs}
    if options.get("out") is not None:
        return NotImplemented
    options.pop("out", None)
    if method == "outer":
        a, b = map(_tensor, inputs)
        a = _core.reshape(a, a.shape + (1,) * b.ndim)
        y = with_options(ufunc, (a, b), options) if options else UFUNCS[ufunc](a, b)
        return y
    if method not in _METHODS or (ufunc in _BROKEN and method != "accumulate"):
        return NotImplemented
    if ufunc.__name__ in numpy_api._VALUE_UFUNCS:
        if _core.is_tracing():
            y = of_ufunc(ufunc, method, *inputs, **numpy_api._values(options))
            return y if y.ndim or y.dtype.kind != "b" else rules.array(y)[()]
        return numpy_api._wrapped(
            getattr(ufunc, method)(*numpy_api._values(inputs), **numpy_api._values(options)))
    if options.get("where", True) is not True and ufunc not in _NEUTRAL:
        return NotImplemented
    return _METHODS[method](ufunc, *inputs, **options)


# Where NumPy computes with wide registers, up to 2.5 at least, it folds these wrongly: it raises
# the first element to the power of the last alone.
_BROKEN = (np.power, np.arctan2)
_METHODS = {"reduce": reduce, "accumulate": accumulate, "reduceat": reduceat}
numpy_api.GENERAL.update(call=with_options, method=method_of, reduce=reduce)

UFUNCS[np.modf] = modf
UFUNCS[np.ldexp] = ldexp
UFUNCS[np.frexp] = frexp
UFUNCS[np.nextafter] = nextafter
UFUNCS[np.spacing] = spacing
_GENERALIZED = {np.matmul: _matmul}
for _name in ("vecdot", "matvec", "vecmat"):
    if hasattr(np, _name):
        UFUNCS[getattr(np, _name)] = _GENERALIZED[getattr(np, _name)] = globals()[_name]
_umath = np._core.umath  # type: ignore[attr-defined]
for _name in ("real", "imag"):          # functions before NumPy 2.5
    if isinstance(getattr(_umath, _name, None), np.ufunc):
        UFUNCS[getattr(_umath, _name)] = getattr(numpy_api, _name)
UFUNCS[_umath._ones_like] = numpy_api.ones_like
UFUNCS[_umath.clip] = _elementwise["clip"]
_core.register_ufunc_methods(
    {
        method: {
            ufunc: numpy_api._accumulated_sum if (ufunc, method) == (np.add, "accumulate")
            else definition for ufunc in UFUNCS
            if ufunc.nin == 2 and ufunc.nout == 1 and ufunc.signature is None
            and ufunc.__name__ not in numpy_api._VALUE_UFUNCS
            and (ufunc not in _BROKEN or method == "accumulate")
        }
        for method, definition in _METHODS.items()
    },
    {np.add: None, np.multiply: rules.PROD, np.maximum: rules.MAX, np.minimum: rules.MIN},
)
numpy_api.take_out(globals())
numpy_api.FUNCTIONS[np.fix] = fix
numpy_api.OWN_WAY.add(np.fix)           # deprecated in NumPy 2.5: it would warn

__all__ = "fix frexp ldexp matvec modf nextafter spacing vecdot vecmat".split()
