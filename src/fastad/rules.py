"""The structured primitives: operations on whole arrays that are not elementwise.

Each is declared once, as a class body of plain functions that `primitive` turns into the record
which ``_core.apply`` stores on the tape:

``forward(*arrays, **params)``
    The primal, by NumPy, from read-only arrays.
``vjp(g, y, inputs, needs, **params)``
    The cotangents of the inputs from the cotangent ``g`` of the result ``y``.
``jvp(tangents, y, inputs, **params)``
    The tangent of the result; ``None`` stands for a tangent that is exactly zero.  A linear
    primitive leaves it out: its tangent is ``forward`` of the tangents.
``accumulate(x_bar, g, **params)``
    Optional, for one input: add the cotangent into the array ``x_bar`` in place, where that costs
    less than `vjp`, which has to build a whole array.

VJP and JVP are written in tensor operations alone, so they differentiate again to any order.
Parameters are never changed after they were recorded: whoever records copies what could change.
"""

from __future__ import annotations

from math import prod as _product

import numpy as np

from . import _core
from ._core import array

where = _core.elementwise["where"]
conjugate = _core.conjugate
zmul = _core.elementwise["zmul"]


class Primitive:
    """One structured primitive; see the module's docstring for its functions.

    Attributes
    ----------
    linear : bool
        The result is linear in all inputs jointly.
    reads_inputs, reads_output : bool
        Whether VJP or JVP read the values, beyond shape and dtype, of the inputs or the result.
    definition : callable or None
        The same in other primitives, as a function of the inputs as tensors and the parameters.
    """

    __slots__ = (
        "name",
        "forward",
        "definition",
        "vjp",
        "jvp",
        "accumulate",
        "linear",
        "reads_inputs",
        "reads_output",
    )

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


PRIMITIVES: dict[str, Primitive] = {}


def primitive(name, *, linear=False, reads_inputs=False, reads_output=False):
    """Turn a class body of plain functions into a `Primitive` called `name`."""

    def declare(body) -> Primitive:
        functions = vars(body)
        rule = Primitive()
        rule.name = name
        rule.forward = functions["forward"]
        rule.vjp = functions["vjp"]
        rule.jvp = functions.get("jvp")
        rule.accumulate = functions.get("accumulate")
        rule.definition = functions.get("definition")
        rule.linear = linear
        rule.reads_inputs = reads_inputs
        rule.reads_output = reads_output
        if PRIMITIVES.setdefault(name, rule) is not rule:
            raise ValueError(f"primitive: there is another {name}")
        return rule

    return declare


def record(rule, inputs, params):
    """Compute and record a primitive; what NumPy raises is made to name it."""
    try:
        return _core.apply(rule, inputs, params)
    except (TypeError, ValueError, IndexError) as error:
        raise named(rule.name, error) from None


def named(name, error):
    """Return an error like this one whose text begins with the primitive's name."""
    text = str(error)
    return error if text.startswith(name) else type(error)(f"{name}: {text}")


# Axes and shapes.


def kept_shape(shape, axis):
    """Return `shape` with the axes in the tuple `axis` (None: all) reduced to length 1."""
    if axis is None:
        return (1,) * len(shape)
    return tuple([1 if k in axis else n for k, n in enumerate(shape)])


def spread(g, shape, axis):
    """Broadcast the cotangent `g` of a reduction over `axis` back to the input's `shape`."""
    return _core.broadcast_to(_core.reshape(g, kept_shape(shape, axis)), shape)


def move_to_end(t, axes):
    """Return `t` with `axes` moved behind the others, and the axes' new order."""
    order = tuple([k for k in range(t.ndim) if k not in axes]) + tuple(axes)
    if order == tuple(range(t.ndim)):
        return t, order
    return _core.transpose(t, order), order


def undo_order(t, order):
    """Undo ``transpose(t, order)``."""
    inverse = [0] * len(order)
    for k, axis in enumerate(order):
        inverse[axis] = k
    inverse = tuple(inverse)
    return t if inverse == tuple(range(len(order))) else _core.transpose(t, inverse)


# A zero cotangent meets inf or nan.


def zero_safe(product, g, p):
    """Return the bilinear ``product(g, p)`` in which a zero of `g` contributes zero.

    A sum of products cannot tell ``0 * inf`` (to be dropped) from a nan that belongs there.  So
    when a nan appears, the finite part of `p` is multiplied alone, and where inf and nan of `p`
    meet a nonzero `g` is counted by products of masks.
    """
    y = product(g, p)
    if not _core.holds_nan(y):
        return y
    primal = array(p)
    bad = ~np.isfinite(primal)
    if not bad.any():
        return y
    cotangent = array(g)
    if y.dtype.kind == "c":
        return _zero_safe_complex(product, g, p, y, bad)

    def meet(g_mask, p_mask):
        left = _core.wrap(g_mask.astype(cotangent.dtype))
        right = _core.wrap(p_mask.astype(primal.dtype))
        return array(product(left, right)) > 0

    up, down = cotangent > 0, cotangent < 0
    plus, minus = primal == np.inf, primal == -np.inf
    extra = np.zeros(y.shape, y.dtype)
    extra[meet(up, plus) | meet(down, minus)] = np.inf
    # adding -inf turns a sum that also holds inf into nan, as it should
    with np.errstate(invalid="ignore"):
        extra[meet(up, minus) | meet(down, plus)] += -np.inf
    extra[meet(cotangent != 0, np.isnan(primal))] = np.nan
    return product(g, where(_core.wrap(bad), 0.0, p)) + _core.wrap(extra)


def _zero_safe_complex(product, g, p, y, bad):
    """As `zero_safe`: where a nonzero `g` meets inf or nan of a complex `p`, the sum is nan."""
    meets = product(_core.wrap((array(g) != 0).astype(y.dtype)), _core.wrap(bad.astype(y.dtype)))
    extra = np.where(array(meets) != 0, np.nan, 0.0).astype(y.dtype)
    return product(g, where(_core.wrap(bad), 0.0, p)) + _core.wrap(extra)


# Indexing.


@primitive("getitem", linear=True)
class GETITEM:
    """``x[index]``; `unique` promises that the index names no element twice."""

    def forward(x, index, unique):
        return x[index]

    def vjp(g, y, inputs, needs, index, unique):
        return (scatter(g, inputs[0].shape, index, unique),)

    def accumulate(x_bar, g, index, unique):
        if unique:
            x_bar[index] += g
        else:
            x_bar += SCATTER.forward(g, x_bar.shape, index, unique)


@primitive("scatter", linear=True)
class SCATTER:
    """Zeros of `shape` to which `x` is added at `index`: the transpose of ``getitem``."""

    def forward(x, shape, index, unique):
        if unique:
            y = np.zeros(shape, x.dtype)
            y[index] = x
            return y
        # bincount adds repeated cells up, in index order, ten times faster than np.add.at
        size = _product(shape)
        cells = np.arange(size).reshape(shape)[index]
        if x.dtype.kind == "c":
            sums = np.empty(size, np.complex128)
            sums.real = np.bincount(cells.ravel(), x.real.ravel(), size)
            sums.imag = np.bincount(cells.ravel(), x.imag.ravel(), size)
        else:
            sums = np.bincount(cells.ravel(), x.ravel(), size)
        return sums.reshape(shape).astype(x.dtype, copy=False)

    def vjp(g, y, inputs, needs, shape, index, unique):
        return (take_index(g, index, unique),)


def take_index(t, index, unique=False):
    """Record ``t[index]``; the index is kept, so it must not change afterwards."""
    return record(GETITEM, (t,), {"index": index, "unique": unique})


def scatter(t, shape, index, unique=False):
    """Record zeros of `shape` plus `t` at `index`; repeated places add up."""
    return record(SCATTER, (t,), {"shape": shape, "index": index, "unique": unique})


@primitive("gather", reads_inputs=True)
class GATHER:
    """The elements of `x` at places of the flat array, which are an input: replays follow them."""

    def forward(x, places):
        return x.ravel()[places]

    def vjp(g, y, inputs, needs):
        x, places = inputs
        return spread_out(g, places, x.shape), None

    def jvp(tangents, y, inputs):
        return None if tangents[0] is None else gather(tangents[0], inputs[1])


@primitive("spread out", reads_inputs=True)
class SPREAD_OUT:
    """Zeros of `shape` to which `x` is added at places of the flat array: `GATHER` transposed."""

    def forward(x, places, shape):
        size = _product(shape)
        cells = np.arange(size)[places].ravel()
        if x.dtype.kind == "c":
            sums = np.empty(size, np.complex128)
            sums.real = np.bincount(cells, x.real.ravel(), size)
            sums.imag = np.bincount(cells, x.imag.ravel(), size)
        else:
            sums = np.bincount(cells, x.ravel(), size)
        return sums.reshape(shape).astype(x.dtype, copy=False)

    def vjp(g, y, inputs, needs, shape):
        return gather(g, inputs[1]), None

    def jvp(tangents, y, inputs, shape):
        return None if tangents[0] is None else spread_out(tangents[0], inputs[1], shape)


def gather(t, places):
    """Record the elements of `t` at `places` of the flat tensor, an integer tensor."""
    return record(GATHER, (t, places), {})


def spread_out(t, places, shape):
    """Record zeros of `shape` plus `t` at `places` of the flat result; repeated ones add up."""
    return record(SPREAD_OUT, (t, places), {"shape": shape})


def diagonal_index(shape, offset, axis1, axis2):
    """Return the index of a diagonal and the axis of the result along which it runs."""
    rows = np.arange(max(0, min(shape[axis1] + min(offset, 0), shape[axis2] - max(offset, 0))))
    index = [slice(None)] * len(shape)
    index[axis1] = rows - min(offset, 0)
    index[axis2] = rows + max(offset, 0)
    # NumPy puts the axis of index arrays first unless the arrays stand side by side
    return tuple(index), min(axis1, axis2) if abs(axis1 - axis2) == 1 else 0


def diagonal(t, offset, axis1, axis2):
    """Record the diagonal of two axes, which becomes the last axis."""
    index, axis = diagonal_index(t.shape, offset, axis1, axis2)
    return move_to_end(take_index(t, index, True), (axis,))[0]


def from_diagonal(t, shape, offset, axis1, axis2):
    """Record zeros of `shape` with the last axis of `t` on a diagonal."""
    index, axis = diagonal_index(shape, offset, axis1, axis2)
    order = [k for k in range(t.ndim) if k != axis] + [axis]
    return scatter(undo_order(t, order), shape, index, True)


# Places in an array, and writing there.


@primitive("view", linear=True)
class WINDOW:
    """The elements at ``place = (first, shape, steps)`` of the flat array, none of them twice.

    What a view shows after the tensor that it is a view of has changed.
    """

    def forward(x, place):
        return np.array(_core.window(x, place))

    def vjp(g, y, inputs, needs, place):
        return (record(SPREAD, (g,), {"shape": inputs[0].shape, "place": place}),)

    def accumulate(x_bar, g, place):
        target = _core.window(x_bar, place)
        target += g


@primitive("spread", linear=True)
class SPREAD:
    """Zeros of `shape` with `x` at a place: the transpose of ``view``."""

    def forward(x, shape, place):
        y = np.zeros(shape, x.dtype)
        _core.window(y, place)[...] = x
        return y

    def vjp(g, y, inputs, needs, shape, place):
        return (record(WINDOW, (g,), {"place": place}),)


def put_values(whole, values, place, index, how):
    """Assign `values` at an index (None: all) of a place in an array, or add them there."""
    target = _core.window(whole, place)
    if how == "add":
        np.add.at(target, ... if index is None else index, values)
    else:
        target[... if index is None else index] = values


def picked(x, place, index, kept, how):
    """Return what stands at an index of a place; zeros where a later value had the element."""
    found = _core.window(x, place)
    if index is not None:
        found = found[index]
    return found if kept is None else np.where(kept, found, found.dtype.type(0))


@primitive("setitem", linear=True)
class PUT:
    """The first input with the second at ``place`` and there at ``index`` (None: everywhere).

    With ``how="add"`` it is added.  Where the index names an element several times, `kept` is true
    for the value that stays.
    """

    def forward(old, value, place, index, kept, how):
        y = old.copy()
        put_values(y, value, place, index, how)
        return y

    def vjp(g, y, inputs, needs, place, index, kept, how):
        params = {"place": place, "index": index, "kept": kept, "how": how}
        old_bar = value_bar = None
        if needs[0]:
            zero = _core.wrap(np.zeros((), g.dtype))
            old_bar = g if how == "add" else record(PUT, (g, zero), params)
        if needs[1]:
            value_bar = record(WINDOW, (g,), {"place": place})
            if index is not None:
                value_bar = take_index(value_bar, index)
            if kept is not None:
                value_bar = where(_core.wrap(kept), value_bar, 0.0)
            value_bar = _core.sum_to(value_bar, inputs[1].shape)
        return old_bar, value_bar


# Joining.


@primitive("concatenate", linear=True)
class CONCATENATE:
    def forward(*xs, axis):
        return np.concatenate(xs, axis)

    def vjp(g, y, inputs, needs, axis):
        axis %= g.ndim
        before = (slice(None),) * axis
        parts, stop = [], 0
        for x, need in zip(inputs, needs, strict=True):
            start, stop = stop, stop + x.shape[axis]
            parts.append(take_index(g, (*before, slice(start, stop)), True) if need else None)
        return tuple(parts)


@primitive("stack", linear=True)
class STACK:
    def forward(*xs, axis):
        # np.array joins many 0-d arrays several times faster than np.stack
        return np.stack(xs, axis) if xs[0].ndim else np.array(xs)

    def vjp(g, y, inputs, needs, axis):
        before = (slice(None),) * (axis % g.ndim)
        return tuple(
            [take_index(g, (*before, k), True) if need else None for k, need in enumerate(needs)]
        )


def concatenate(tensors, axis):
    """Record tensors of one dtype joined along an existing axis."""
    return record(CONCATENATE, tuple(tensors), {"axis": axis})


def stack(tensors, axis):
    """Record tensors of one shape and dtype joined along a new axis."""
    return record(STACK, tuple(tensors), {"axis": axis})


@primitive("pad")
class PAD:
    """Constants around `x`; `width` holds a pair (before, after) for each axis."""

    def forward(x, width, values):
        return np.pad(x, width, constant_values=values)

    def vjp(g, y, inputs, needs, width, values):
        inner = [
            slice(before, before + n) for (before, _), n in zip(width, inputs[0].shape, strict=True)
        ]
        return (take_index(g, tuple(inner), True),)

    def jvp(tangents, y, inputs, width, values):
        return pad(tangents[0], width, 0)


def pad(t, width, values):
    """Record constants around `t`."""
    return record(PAD, (t,), {"width": width, "values": values})


# Sums.


@primitive("sum", linear=True)
class SUM:
    """A sum in another dtype than the input's (``_core.sum`` is for the input's own)."""

    def forward(x, axis, dtype, keepdims):
        return np.add.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)

    def vjp(g, y, inputs, needs, axis, dtype, keepdims):
        return (spread(g, inputs[0].shape, axis),)


def sum_as(t, axis, dtype, keepdims):
    """Record a sum whose terms are cast to `dtype` while they are added."""
    return record(SUM, (t,), {"axis": axis, "dtype": dtype, "keepdims": keepdims})


@primitive("cumsum", linear=True)
class CUMSUM:
    """Sums of all elements up to each; with `reverse`, from each to the last."""

    def forward(x, axis, reverse):
        if not reverse:
            return np.add.accumulate(x, axis)
        backwards = (slice(None),) * axis + (slice(None, None, -1),)
        return np.add.accumulate(x[backwards], axis)[backwards]

    def vjp(g, y, inputs, needs, axis, reverse):
        return (cumsum(g, axis, not reverse),)


def cumsum(t, axis, reverse=False):
    """Record cumulative sums along a non-negative axis."""
    return record(CUMSUM, (t,), {"axis": axis, "reverse": reverse})


@primitive("trace", linear=True)
class TRACE:
    def forward(x, offset, axis1, axis2):
        return np.trace(x, offset, axis1, axis2)

    def vjp(g, y, inputs, needs, offset, axis1, axis2):
        shape = inputs[0].shape
        rows = diagonal_index(shape, offset, axis1, axis2)[0][axis1]
        line = _core.broadcast_to(_core.reshape(g, (*g.shape, 1)), (*g.shape, len(rows)))
        return (from_diagonal(line, shape, offset, axis1, axis2),)


def trace(t, offset, axis1, axis2):
    """Record the sum of a diagonal of two non-negative axes."""
    return record(TRACE, (t,), {"offset": offset, "axis1": axis1, "axis2": axis2})


# Products.


def _products_of_others(z):
    """Return, for each element of the last axis, the product of the others.

    Products of pairs are formed up a tree; on the way down each element receives its partner
    times what its parent received.  Nothing is divided by, so zeros need no care, in derivatives
    of any order either:

        a   b   c   d          b(cd)  a(cd)  (ab)d  (ab)c
         ab      cd     and        cd           ab
            root                        1
    """
    lead = z.shape[:-1]
    levels = []
    while z.shape[-1] > 1:
        n = z.shape[-1]
        if n % 2:
            z = concatenate((z, _core.wrap(np.ones((*lead, 1), z.dtype))), -1)
        pairs = _core.reshape(z, (*lead, (n + 1) // 2, 2))
        levels.append((n, pairs))
        z = take_index(pairs, (..., 0), True) * take_index(pairs, (..., 1), True)
    others = _core.wrap(np.ones(z.shape, z.dtype))
    for n, pairs in reversed(levels):
        partners = take_index(pairs, (..., slice(None, None, -1)), True)
        others = _core.reshape(others, (*others.shape, 1)) * partners
        others = _core.reshape(others, (*lead, n + n % 2))
        if n % 2:
            others = take_index(others, (..., slice(0, n)), True)
    return others


def products_of_others(x, axis):
    """Return for each element the product of those that ``prod`` multiplies it with."""
    axes = tuple(range(x.ndim)) if axis is None else axis
    z, order = move_to_end(x, axes)
    free = z.shape[: z.ndim - len(axes)]
    others = _products_of_others(_core.reshape(z, (*free, _product(z.shape[len(free) :]))))
    return undo_order(_core.reshape(others, z.shape), order)


@primitive("prod", reads_inputs=True)
class PROD:
    def forward(x, axis, keepdims):
        return np.multiply.reduce(x, axis=axis, keepdims=keepdims)

    def vjp(g, y, inputs, needs, axis, keepdims):
        x = inputs[0]
        others = conjugate(products_of_others(x, axis))
        return (zmul(spread(g, x.shape, axis), others),)

    def jvp(tangents, y, inputs, axis, keepdims):
        terms = zmul(tangents[0], products_of_others(inputs[0], axis))
        return _core.sum(terms, axis, keepdims)


def prod(t, axis, keepdims):
    """Record a product over a tuple of non-negative axes (None: all)."""
    return record(PROD, (t,), {"axis": axis, "keepdims": keepdims})


# Maximum and minimum.


@primitive("ties")
class TIES:
    """Where `x` attains its extremum `y`: weights that sum to 1, equal for tied elements.

    They are constant wherever they are differentiable, but recorded like everything else, so
    that a graph which is run again on other values finds its extrema again.
    """

    def forward(x, y, axis):
        y = y.reshape(kept_shape(x.shape, axis))
        hits = (x == y) | ((x != x) & (y != y))
        hits = hits.astype(x.dtype)
        return hits / np.add.reduce(hits, axis=axis, keepdims=True)

    def vjp(g, y, inputs, needs, axis):
        return None, None

    def jvp(tangents, y, inputs, axis):
        return _core.wrap(np.zeros(y.shape, y.dtype))


def _extremum(name, reduce):
    """Declare the primitive of a ufunc's `reduce` that picks one of its elements."""

    @primitive(name, reads_inputs=True, reads_output=True)
    class EXTREMUM:
        def forward(x, axis, keepdims):
            return reduce(x, axis=axis, keepdims=keepdims)

        def vjp(g, y, inputs, needs, axis, keepdims):
            x = inputs[0]
            weights = record(TIES, (x, y), {"axis": axis})
            return (zmul(spread(g, x.shape, axis), weights),)

        def jvp(tangents, y, inputs, axis, keepdims):
            weights = record(TIES, (inputs[0], y), {"axis": axis})
            return _core.sum(zmul(tangents[0], weights), axis, keepdims)

    return EXTREMUM


MAX = _extremum("max", np.maximum.reduce)
MIN = _extremum("min", np.minimum.reduce)


def amax(t, axis, keepdims):
    """Record the maximum over a tuple of non-negative axes (None: all)."""
    return record(MAX, (t,), {"axis": axis, "keepdims": keepdims})


def amin(t, axis, keepdims):
    """Record the minimum over a tuple of non-negative axes (None: all)."""
    return record(MIN, (t,), {"axis": axis, "keepdims": keepdims})


# The Euclidean norm.


def _direction(x, y, axis):
    """Return ``x / y`` for the norm `y` of `x`, and 0 where the norm is 0."""
    y = _core.reshape(y, kept_shape(x.shape, axis))
    zero = y == 0.0
    return where(zero, 0.0, x / where(zero, 1.0, y))


@primitive("norm", reads_inputs=True, reads_output=True)
class NORM:
    """Root of the sum of squares, of complex numbers of their moduli; its gradient at 0 is 0."""

    def forward(x, axis, keepdims):
        if axis is None:
            flat = x.ravel()
            if x.dtype.kind == "c":
                y = np.sqrt(flat.real.dot(flat.real) + flat.imag.dot(flat.imag))
            else:
                y = np.sqrt(flat.dot(flat))
            return y.reshape((1,) * x.ndim) if keepdims else y
        squares = (x.conj() * x).real if x.dtype.kind == "c" else x * x
        return np.sqrt(np.add.reduce(squares, axis=axis, keepdims=keepdims))

    def vjp(g, y, inputs, needs, axis, keepdims):
        x = inputs[0]
        return (zmul(spread(g, x.shape, axis), _direction(x, y, axis)),)

    def jvp(tangents, y, inputs, axis, keepdims):
        terms = zmul(tangents[0], conjugate(_direction(inputs[0], y, axis)))
        return _core.sum(_core.real(terms), axis, keepdims)


def norm(t, axis, keepdims):
    """Record the Euclidean norm over a tuple of non-negative axes (None: all)."""
    return record(NORM, (t,), {"axis": axis, "keepdims": keepdims})


# Sums of products: dot, inner, tensordot.


def _as_matrix(t, axes):
    """Fold `t` into a matrix whose columns run over `axes`; also return how to unfold."""
    moved, order = move_to_end(t, axes)
    split = t.ndim - len(axes)
    rows, columns = _product(moved.shape[:split]), _product(moved.shape[split:])
    return _core.reshape(moved, (rows, columns)), (moved.shape, order)


def _unfold(matrix, folding):
    shape, order = folding
    return undo_order(_core.reshape(matrix, shape), order)


def _contraction(name, function):
    """Declare a primitive that sums products over ``axes = (axes of a, axes of b)``.

    The result's axes are the others of `a`, then those of `b`; the VJP is two matrix products.
    """

    @primitive(name, reads_inputs=True)
    class CONTRACTION:
        def forward(a, b, axes):
            return function(a, b, axes)

        def vjp(g, y, inputs, needs, axes):
            (a, fold_a), (b, fold_b) = map(_as_matrix, map(conjugate, inputs), axes)
            g = _core.reshape(g, (a.shape[0], b.shape[0]))
            a_bar = b_bar = None
            if needs[0]:
                a_bar = _unfold(zero_safe(_core.matmul, g, b), fold_a)
            if needs[1]:
                b_bar = _unfold(zero_safe(_core.matmul, _core.transpose(g), a), fold_b)
            return a_bar, b_bar

        def jvp(tangents, y, inputs, axes):
            def contract(a, b):
                return record(CONTRACTION, (a, b), {"axes": axes})

            (a_dot, b_dot), (a, b) = tangents, inputs
            left = None if a_dot is None else zero_safe(contract, a_dot, b)
            if b_dot is None:
                return left
            right = zero_safe(lambda v, u: contract(u, v), b_dot, a)
            return right if left is None else left + right

    return CONTRACTION


DOT = _contraction("dot", lambda a, b, axes: np.dot(a, b))
INNER = _contraction("inner", lambda a, b, axes: np.inner(a, b))
TENSORDOT = _contraction("tensordot", np.tensordot)


def dot(a, b):
    """Record ``np.dot`` of tensors of one dtype with an axis or more each."""
    return record(DOT, (a, b), {"axes": ((a.ndim - 1,), (max(b.ndim - 2, 0),))})


def inner(a, b):
    """Record ``np.inner`` of tensors of one dtype with an axis each."""
    return record(INNER, (a, b), {"axes": ((a.ndim - 1,), (b.ndim - 1,))})


def tensordot(a, b, axes):
    """Record ``np.tensordot`` of tensors of one dtype over two tuples of non-negative axes."""
    return record(TENSORDOT, (a, b), {"axes": axes})


# Einsum.

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# above this many products in the worst case a VJP looks for a good order of contraction itself
_ORDER_PAYS = 1 << 14


def einsum_terms(subscripts, ndims):
    """Return each operand's and the result's labels, an ellipsis spelled out.

    What NumPy would reject is not looked for here: the primal meets it first.
    """
    compact = subscripts.replace(" ", "")
    left, arrow, out = compact.partition("->")
    terms = left.split(",")
    spare = ""
    if "..." in compact:
        extra = [
            ndim - len(term) + 3 if "..." in term else 0
            for term, ndim in zip(terms, ndims, strict=False)
        ]
        widest = max(extra, default=0)
        spare = "".join([c for c in LETTERS if c not in compact][: max(widest, 0)])
        terms = [
            term.replace("...", spare[len(spare) - k :] if k > 0 else "")
            for term, k in zip(terms, extra, strict=False)
        ]
    if arrow:
        out = out.replace("...", spare)
    else:
        letters = "".join(terms)
        single = [c for c in sorted(set(letters)) if letters.count(c) == 1 and c not in spare]
        out = spare + "".join(single)
    return tuple(terms), out


@primitive("einsum", reads_inputs=True)
class EINSUM:
    """``np.einsum(subscripts, ...)``; `terms` and `out` are the labels that it means."""

    def forward(*xs, subscripts, terms, out, optimize):
        return np.einsum(subscripts, *xs, optimize=optimize)

    def vjp(g, y, inputs, needs, subscripts, terms, out, optimize):
        return tuple(
            [
                _einsum_vjp(g, k, inputs, terms, out, optimize) if need else None
                for k, need in enumerate(needs)
            ]
        )

    def jvp(tangents, y, inputs, subscripts, terms, out, optimize):
        y_dot = None
        for k, tangent in enumerate(tangents):
            if tangent is not None:
                part = _times_others(tangent, terms[k], k, inputs, terms, out, optimize)
                y_dot = part if y_dot is None else y_dot + part
        return y_dot


def einsum(tensors, subscripts, terms, out, optimize):
    """Record ``np.einsum`` of tensors of one dtype."""
    params = {"subscripts": subscripts, "terms": terms, "out": out, "optimize": optimize}
    return record(EINSUM, tuple(tensors), params)


def _einsum(tensors, terms, out, optimize):
    return einsum(tensors, ",".join(terms) + "->" + out, terms, out, optimize)


def _times_others(v, labels, k, inputs, terms, out, optimize):
    """Contract `v` with all inputs but the k-th; a zero of `v` contributes zero."""
    others = inputs[:k] + inputs[k + 1 :]
    other_terms = terms[:k] + terms[k + 1 :]
    y = _einsum((v, *others), (labels, *other_terms), out, optimize)
    if not others or not _core.holds_nan(y):
        return y
    # rare: multiply the others out first, so that only one product is left to take care of
    if len(others) > 1:
        joint = "".join(dict.fromkeys("".join(other_terms)))
        others, other_terms = (_einsum(others, other_terms, joint, False),), (joint,)

    def contract(v, p):
        return _einsum((v, p), (labels, other_terms[0]), out, False)

    return zero_safe(contract, v, others[0])


def _einsum_vjp(g, k, inputs, terms, out, optimize):
    x = inputs[k]
    sizes = dict(zip(terms[k], x.shape, strict=True))
    known = set(out).union(*terms[:k], *terms[k + 1 :])
    if not optimize and len(inputs) > 1:
        optimize = g.size * x.size > _ORDER_PAYS
    labels = "".join([label for label in sizes if label in known])
    others = [t if j == k else conjugate(t) for j, t in enumerate(inputs)]
    x_bar = _times_others(g, out, k, tuple(others), terms, labels, optimize)
    # Labels that only x has were summed: broadcast.  Axes of length 1 that met longer ones: sum.
    lengths = dict(zip(labels, x_bar.shape, strict=True))
    x_bar = _core.reshape(x_bar, tuple([lengths.get(label, 1) for label in sizes]))
    x_bar = _core.sum_to(
        x_bar, tuple([1 if n == 1 else lengths.get(label, 1) for label, n in sizes.items()])
    )
    x_bar = _core.broadcast_to(x_bar, tuple(sizes.values()))
    if len(sizes) == x.ndim:
        return x_bar
    # a label that x has twice walks a diagonal; everything off it is 0
    places = list(sizes)
    index = []
    for label in terms[k]:
        shape = [1] * len(places)
        shape[places.index(label)] = sizes[label]
        index.append(np.arange(sizes[label]).reshape(shape))
    return scatter(x_bar, x.shape, tuple(index), True)


# What a program computes in the core, where index and shapes allow it.
FORMS = {
    GETITEM: "slice", SCATTER: "scatter", CONCATENATE: "join", STACK: "join", CUMSUM: "cumsum",
    MAX: "max", MIN: "min", TIES: "ties", PUT: "put", WINDOW: "window", SPREAD: "spread",
}
