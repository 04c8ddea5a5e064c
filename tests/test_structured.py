"""Structured primitives and the functions composed of them.

Every row of CASES is checked in five ways: its value against NumPy bit for bit (called as
``ad.<name>`` and as ``np.<name>``, in float64 and float32), its gradient, its second derivative
and its tangent against central differences.  Differences in float64 with steps of 1e-6 (1e-5 for
the second derivative, which differences the exact gradient) are good to about 1e-9 relative here;
the tolerance is 1e-6.
"""

import numpy as np
import pytest

import fastad as ad
from fastad import rules

TOLERANCE = 1e-6


class Case:
    """One function of arrays, written once for a namespace `xp` that is `np` or `ad`."""

    def __init__(self, title, function, *shapes, positive=False):
        self.title = title
        self.function = function
        self.shapes = shapes
        self.positive = positive

    def arrays(self, dtype=float):
        """Distinct values away from 0, so that no function here meets a kink."""
        rng = np.random.default_rng(len(self.title))
        arrays = []
        for shape in self.shapes:
            size = int(np.prod(shape))
            values = rng.permutation(np.linspace(0.4, 2.0, size)) if size else np.zeros(0)
            signs = 1 if self.positive else rng.choice([-1.0, 1.0], size)
            arrays.append((values * signs).reshape(shape).astype(dtype))
        return arrays


MASK = np.array([[True, False, True], [False, False, True]])
ROWS = np.array([2, 0, 2])

CASES = [
    Case("sum of all", lambda xp, x: xp.sum(x), (3, 5)),
    Case("sum of many", lambda xp, x: xp.sum(x), (777,)),
    Case("sum of a number", lambda xp, x: xp.sum(x), ()),
    Case("sum over an axis", lambda xp, x: xp.sum(x, axis=0), (19, 5)),
    Case("sum over the last axis", lambda xp, x: xp.sum(x, axis=-1), (3, 19)),
    Case("sum over two axes, kept", lambda xp, x: xp.sum(x, (0, -1), keepdims=True), (3, 4, 2)),
    Case("sum in float64", lambda xp, x: xp.sum(x, axis=1, dtype=np.float64), (3, 4)),
    Case("sum from a start", lambda xp, x: xp.sum(x, axis=1, initial=3.0), (3, 4)),
    Case("mean of all", lambda xp, x: xp.mean(x), (3, 4)),
    Case("mean over an axis", lambda xp, x: xp.mean(x, axis=-2, keepdims=True), (3, 4)),
    Case("mean over two axes", lambda xp, x: xp.mean(x, axis=(0, 2)), (3, 4, 2)),
    Case("mean in float64", lambda xp, x: xp.mean(x, dtype=np.float64), (7,)),
    Case("var of all", lambda xp, x: xp.var(x), (3, 4)),
    Case("var over an axis", lambda xp, x: xp.var(x, axis=0, ddof=1), (3, 4)),
    Case("var over two axes", lambda xp, x: xp.var(x, axis=(-1, 0), keepdims=True), (3, 2, 2)),
    Case("var with half a degree", lambda xp, x: xp.var(x, ddof=0.5), (5,)),
    Case("std of all", lambda xp, x: xp.std(x), (3, 4)),
    Case("std over an axis", lambda xp, x: xp.std(x, axis=1, ddof=1, keepdims=True), (3, 4)),
    Case("prod of all", lambda xp, x: xp.prod(x), (3, 3)),
    Case("prod of one", lambda xp, x: xp.prod(x), (1,)),
    Case("prod of a number", lambda xp, x: xp.prod(x), ()),
    Case("prod over an axis", lambda xp, x: xp.prod(x, axis=0), (5, 2)),
    Case("prod over the middle", lambda xp, x: xp.prod(x, axis=-2, keepdims=True), (2, 3, 2)),
    Case("prod over two axes", lambda xp, x: xp.prod(x, axis=(0, 2)), (2, 2, 3)),
    Case("prod from a start", lambda xp, x: xp.prod(x, initial=2.0), (3,)),
    Case("max of all", lambda xp, x: xp.max(x), (3, 4)),
    Case("max over an axis", lambda xp, x: xp.max(x, axis=-1, keepdims=True), (3, 4)),
    Case("max from a start", lambda xp, x: xp.max(x, axis=0, initial=0.5), (3, 4)),
    Case("amax over two axes", lambda xp, x: xp.amax(x, axis=(0, 2)), (2, 3, 2)),
    Case("min of all", lambda xp, x: xp.min(x), (3, 4)),
    Case("amin over an axis", lambda xp, x: xp.amin(x, axis=0), (3, 4)),
    Case("cumsum of all", lambda xp, x: xp.cumsum(x), (2, 3)),
    Case("cumsum of a number", lambda xp, x: xp.cumsum(x), ()),
    Case("cumsum over an axis", lambda xp, x: xp.cumsum(x, axis=-2), (4, 2)),
    Case("dot of vectors", lambda xp, a, b: xp.dot(a, b), (4,), (4,)),
    Case("dot of matrices", lambda xp, a, b: xp.dot(a, b), (2, 3), (3, 4)),
    Case("dot matrix vector", lambda xp, a, b: xp.dot(a, b), (2, 3), (3,)),
    Case("dot with a number", lambda xp, a, b: xp.dot(a, b), (2, 3), ()),
    Case("dot of cubes", lambda xp, a, b: xp.dot(a, b), (2, 1, 3), (2, 3, 2)),
    Case("dot cube vector", lambda xp, a, b: xp.dot(a, b), (2, 2, 3), (3,)),
    Case("dot vector cube", lambda xp, a, b: xp.dot(a, b), (3,), (2, 3, 2)),
    Case("vdot", lambda xp, a, b: xp.vdot(a, b), (2, 3), (2, 3)),
    Case("inner of vectors", lambda xp, a, b: xp.inner(a, b), (4,), (4,)),
    Case("inner of matrices", lambda xp, a, b: xp.inner(a, b), (2, 3), (4, 3)),
    Case("inner with a number", lambda xp, a, b: xp.inner(a, b), (), (3,)),
    Case("inner of cubes", lambda xp, a, b: xp.inner(a, b), (2, 1, 3), (2, 3)),
    Case("outer", lambda xp, a, b: xp.outer(a, b), (3,), (2, 2)),
    Case("matmul", lambda xp, a, b: xp.matmul(a, b), (2, 3), (3, 2)),
    Case("matmul of vectors", lambda xp, a, b: xp.matmul(a, b), (3,), (3,)),
    Case("matmul in batches", lambda xp, a, b: xp.matmul(a, b), (2, 2, 3), (3, 2)),
    Case("matmul broadcast", lambda xp, a, b: xp.matmul(a, b), (2, 1, 1, 3), (2, 3, 1)),
    Case("matmul batch vector", lambda xp, a, b: xp.matmul(a, b), (2, 2, 3), (3,)),
    Case("matmul vector batch", lambda xp, a, b: xp.matmul(a, b), (3,), (2, 3, 2)),
    Case("@ on both sides", lambda xp, a, b: a @ (b @ a), (3, 3), (3, 3)),
    Case("tensordot", lambda xp, a, b: xp.tensordot(a, b), (2, 2, 3), (2, 3, 2)),
    Case("tensordot of one axis", lambda xp, a, b: xp.tensordot(a, b, 1), (2, 3), (3, 2, 2)),
    Case("tensordot of no axis", lambda xp, a, b: xp.tensordot(a, b, 0), (2,), (3,)),
    Case(
        "tensordot of pairs",
        lambda xp, a, b: xp.tensordot(a, b, ([0, -1], [2, 0])),
        (2, 2, 3),
        (3, 2, 2),
    ),
    Case("einsum product", lambda xp, a, b: xp.einsum("ij,jk->ik", a, b), (2, 3), (3, 2)),
    Case("einsum implicit", lambda xp, a, b: xp.einsum("ij,jk", a, b), (2, 3), (3, 2)),
    Case("einsum implicit order", lambda xp, a: xp.einsum("ba", a), (2, 3)),
    Case("einsum with spaces", lambda xp, a, b: xp.einsum(" i j, j -> i ", a, b), (2, 3), (3,)),
    Case("einsum trace", lambda xp, a: xp.einsum("ii", a), (3, 3)),
    Case("einsum diagonal", lambda xp, a: xp.einsum("ii->i", a), (3, 3)),
    Case("einsum diagonals", lambda xp, a: xp.einsum("iji->ji", a), (3, 2, 3)),
    Case("einsum thrice", lambda xp, a: xp.einsum("iii->i", a), (2, 2, 2)),
    Case("einsum sums", lambda xp, a: xp.einsum("ij->", a), (2, 3)),
    Case("einsum sums one axis", lambda xp, a, b: xp.einsum("ij,k->k", a, b), (2, 3), (2,)),
    Case("einsum ellipsis", lambda xp, a, b: xp.einsum("...ij,...jk", a, b), (2, 1, 3), (3, 2)),
    Case("einsum ellipsis last", lambda xp, a: xp.einsum("i...->...", a), (2, 3)),
    Case("einsum ellipsis diagonal", lambda xp, a: xp.einsum("...ii->...i", a), (2, 3, 3)),
    Case(
        "einsum broadcast ellipsis",
        lambda xp, a, b: xp.einsum("i...,...i->...", a, b),
        (2, 1, 3),
        (2, 1, 2),
    ),
    Case("einsum unit axes", lambda xp, a, b: xp.einsum("ij,ij->ij", a, b), (1, 3), (2, 3)),
    Case("einsum unit axis summed", lambda xp, a, b: xp.einsum("ij,jk->ik", a, b), (2, 1), (3, 2)),
    Case(
        "einsum of three",
        lambda xp, a, b, c: xp.einsum("ij,jk,kl->il", a, b, c),
        (2, 3),
        (3, 2),
        (2, 2),
    ),
    Case(
        "einsum of three, optimized",
        lambda xp, a, b, c: xp.einsum("ij,jk,k->i", a, b, c, optimize=True),
        (2, 3),
        (3, 2),
        (2,),
    ),
    Case("einsum twice the same", lambda xp, a: xp.einsum("ij,ij->j", a, a), (2, 3)),
    Case("einsum by numbers", lambda xp, a, b: xp.einsum(a, [0, 1], b, [1], [0]), (2, 3), (3,)),
    Case(
        "einsum by numbers, implicit",
        lambda xp, a, b: xp.einsum(a, [Ellipsis, 1], b, [1, 0]),
        (2, 3),
        (3, 2),
    ),
    Case("einsum of numbers", lambda xp, a, b: xp.einsum(",->", a, b), (), ()),
    Case("trace", lambda xp, x: xp.trace(x), (3, 4)),
    Case("trace offset", lambda xp, x: xp.trace(x, offset=-1), (3, 4)),
    Case("trace of a cube", lambda xp, x: xp.trace(x, 1, 0, 2), (3, 2, 3)),
    Case("trace of many", lambda xp, x: xp.trace(x), (11, 11, 2)),
    Case("trace off the end", lambda xp, x: xp.trace(x, 9), (2, 2)),
    Case("norm of all", lambda xp, x: xp.linalg.norm(x), (3, 2)),
    Case("norm of a vector", lambda xp, x: xp.linalg.norm(x, 2, keepdims=True), (4,)),
    Case("norm over an axis", lambda xp, x: xp.linalg.norm(x, axis=-1), (2, 3)),
    Case("norm over rows", lambda xp, x: xp.linalg.norm(x, 2, 0, True), (2, 3)),
    Case("norm of matrices", lambda xp, x: xp.linalg.norm(x, axis=(0, 2)), (2, 3, 2)),
    Case("norm fro", lambda xp, x: xp.linalg.norm(x, "fro", keepdims=True), (2, 3)),
    Case("norm fro axes", lambda xp, x: xp.linalg.norm(x, "fro", axis=(2, 1)), (2, 3, 2)),
    Case("norm 1", lambda xp, x: xp.linalg.norm(x, 1), (4,)),
    Case("norm 3", lambda xp, x: xp.linalg.norm(x, 3, axis=0), (4, 2)),
    Case("norm 2.5", lambda xp, x: xp.linalg.norm(x, 2.5), (4,)),
    Case("norm inf", lambda xp, x: xp.linalg.norm(x, np.inf, axis=1), (2, 3)),
    Case("norm -inf", lambda xp, x: xp.linalg.norm(x, -np.inf), (4,)),
    Case("matrix norm 1", lambda xp, x: xp.linalg.norm(x, 1), (2, 3)),
    Case("matrix norm -1", lambda xp, x: xp.linalg.norm(x, -1, (0, 2), True), (2, 2, 3)),
    Case("matrix norm inf", lambda xp, x: xp.linalg.norm(x, np.inf, axis=(2, 0)), (2, 2, 3)),
    Case("matrix norm -inf", lambda xp, x: xp.linalg.norm(x, -np.inf), (2, 3)),
    Case("reshape", lambda xp, x: xp.reshape(x, (3, -1)), (2, 3)),
    Case("reshape by columns", lambda xp, x: xp.reshape(x, (3, 2), order="F"), (2, 3)),
    Case("ravel", lambda xp, x: xp.ravel(x), (2, 3)),
    Case("ravel by columns", lambda xp, x: xp.ravel(x, "F"), (2, 3)),
    Case("ravel a number", lambda xp, x: xp.ravel(x), ()),
    Case("transpose", lambda xp, x: xp.transpose(x), (2, 3, 2)),
    Case("transpose axes", lambda xp, x: xp.transpose(x, (1, 2, 0)), (2, 3, 2)),
    Case("T", lambda xp, x: x.T, (2, 3)),
    Case("moveaxis", lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), (2, 3, 2)),
    Case("swapaxes", lambda xp, x: xp.swapaxes(x, 0, -1), (2, 3, 2)),
    Case("squeeze", lambda xp, x: xp.squeeze(x), (1, 3, 1)),
    Case("squeeze axis", lambda xp, x: xp.squeeze(x, axis=-1), (1, 3, 1)),
    Case("expand_dims", lambda xp, x: xp.expand_dims(x, (0, -1)), (3,)),
    Case("broadcast_to", lambda xp, x: xp.broadcast_to(x, (2, 3, 2)), (3, 1)),
    Case("broadcast_arrays", lambda xp, a, b: xp.broadcast_arrays(a, b), (3, 1), (2,)),
    Case("broadcasting product", lambda xp, a, b: a * b, (3, 1), (4,)),
    Case("atleast_1d", lambda xp, x: xp.atleast_1d(x), ()),
    Case("atleast_2d", lambda xp, x: xp.atleast_2d(x), (3,)),
    Case("atleast_3d", lambda xp, x, y: xp.atleast_3d(x, y), (3,), (2, 2)),
    Case("concatenate", lambda xp, a, b: xp.concatenate([a, b, a]), (2, 3), (1, 3)),
    Case("concatenate columns", lambda xp, a, b: xp.concatenate((a, b), axis=-1), (2, 2), (2, 1)),
    Case("concatenate flat", lambda xp, a, b: xp.concatenate([a, b], axis=None), (2, 2), (3,)),
    Case("stack", lambda xp, a, b: xp.stack([a, b]), (2, 3), (2, 3)),
    Case("stack last", lambda xp, a, b: xp.stack([a, b, b], axis=-1), (2, 2), (2, 2)),
    Case("stack numbers", lambda xp, a, b: xp.stack([a, b, a]), (), ()),
    Case("vstack", lambda xp, a, b: xp.vstack([a, b]), (3,), (2, 3)),
    Case("hstack", lambda xp, a, b: xp.hstack([a, b]), (3,), (2,)),
    Case("hstack matrices", lambda xp, a, b: xp.hstack([a, b]), (2, 1), (2, 2)),
    Case("dstack", lambda xp, a, b: xp.dstack([a, b]), (2,), (2,)),
    Case("column_stack", lambda xp, a, b: xp.column_stack([a, b]), (2,), (2, 2)),
    Case("split", lambda xp, x: xp.split(x, 2), (4, 2)),
    Case("split at indices", lambda xp, x: xp.split(x, [1, 3], axis=1), (2, 4)),
    Case("array_split", lambda xp, x: xp.array_split(x, 3), (5,)),
    Case("hsplit", lambda xp, x: xp.hsplit(x, 2), (2, 4)),
    Case("vsplit", lambda xp, x: xp.vsplit(x, [1]), (2, 2)),
    Case("dsplit", lambda xp, x: xp.dsplit(x, 2), (1, 2, 2)),
    Case("tile", lambda xp, x: xp.tile(x, 2), (2, 3)),
    Case("tile more axes", lambda xp, x: xp.tile(x, (2, 1, 3)), (2, 2)),
    Case("repeat", lambda xp, x: xp.repeat(x, 2), (2, 2)),
    Case("repeat an axis", lambda xp, x: xp.repeat(x, 3, axis=-1), (2, 2)),
    Case("repeat unevenly", lambda xp, x: xp.repeat(x, [0, 2, 1], axis=0), (3, 2)),
    Case("flip", lambda xp, x: xp.flip(x), (2, 3)),
    Case("flip an axis", lambda xp, x: xp.flip(x, axis=-1), (2, 3)),
    Case("fliplr of flipud", lambda xp, x: xp.fliplr(xp.flipud(x)), (2, 3)),
    Case("roll", lambda xp, x: xp.roll(x, 2), (2, 3)),
    Case("roll an axis", lambda xp, x: xp.roll(x, -1, axis=1), (2, 3)),
    Case("roll two axes", lambda xp, x: xp.roll(x, (1, 2), axis=(0, 1)), (2, 3)),
    Case("pad", lambda xp, x: xp.pad(x, 1), (2, 3)),
    Case("pad with values", lambda xp, x: xp.pad(x, (1, 2), constant_values=(3, 4)), (3,)),
    Case("pad edge", lambda xp, x: xp.pad(x, ((1, 0), (0, 2)), "edge"), (2, 3)),
    Case("pad reflect", lambda xp, x: xp.pad(x, (3, 4), mode="reflect"), (3,)),
    Case("pad symmetric", lambda xp, x: xp.pad(x, 2, "symmetric"), (2, 3)),
    Case("pad wrap", lambda xp, x: xp.pad(x, 2, mode="wrap"), (2, 3)),
    Case("tril", lambda xp, x: xp.tril(x, -1), (2, 3, 3)),
    Case("triu", lambda xp, x: xp.triu(x, k=1), (3, 4)),
    Case("diagonal", lambda xp, x: xp.diagonal(x, 1), (3, 4)),
    Case("diagonal of a cube", lambda xp, x: xp.diagonal(x, -1, 0, 2), (3, 2, 2)),
    Case("diagonal of neighbours", lambda xp, x: xp.diagonal(x, 0, 2, 1), (2, 3, 2)),
    Case("diag of a vector", lambda xp, x: xp.diag(x, -1), (3,)),
    Case("diag of a matrix", lambda xp, x: xp.diag(x, 1), (2, 3)),
    Case("diff", lambda xp, x: xp.diff(x), (2, 4)),
    Case("diff twice", lambda xp, x: xp.diff(x, n=2, axis=0), (4, 2)),
    Case("diff with ends", lambda xp, x: xp.diff(x, prepend=0.0, append=[1.0, 2.0]), (3,)),
    Case("take", lambda xp, x: xp.take(x, ROWS), (2, 3)),
    Case("take an axis", lambda xp, x: xp.take(x, [[0, 1], [1, 1]], axis=1), (2, 3)),
    Case("take one", lambda xp, x: xp.take(x, -1, axis=0), (2, 3)),
    Case("take wrapped", lambda xp, x: xp.take(x, [-7, 9], mode="wrap"), (4,)),
    Case("take clipped", lambda xp, x: xp.take(x, [-7, 9, 1], mode="clip"), (4,)),
    Case(
        "take_along_axis",
        lambda xp, x: xp.take_along_axis(x, np.array([[0, 0], [2, 1]]), axis=1),
        (2, 3),
    ),
    Case("where", lambda xp, a, b: xp.where(MASK, a, b), (2, 3), (3,)),
    Case("clip", lambda xp, x: xp.clip(x, -1.0, 1.0), (7,)),
    Case("clip below", lambda xp, x: xp.clip(x, None, 0.5), (7,)),
    Case("clip above", lambda xp, x: xp.clip(x, -0.5, None), (7,)),
    Case("sort", lambda xp, x: xp.sort(x), (2, 4)),
    Case("sort an axis", lambda xp, x: xp.sort(x, axis=0), (4, 2)),
    Case("sort flat", lambda xp, x: xp.sort(x, axis=None), (2, 3)),
    Case("copy", lambda xp, x: xp.copy(x) * x, (3,)),
    Case("index", lambda xp, x: x[1], (3,)),
    Case("index from the end", lambda xp, x: x[-1], (3, 2)),
    Case("index pair", lambda xp, x: x[1, -1], (2, 3)),
    Case("slice", lambda xp, x: x[1:], (3, 2)),
    Case("slice with steps", lambda xp, x: x[::-2, 1:3], (4, 3)),
    Case("ellipsis", lambda xp, x: x[..., 0], (2, 3)),
    Case("new axes", lambda xp, x: x[None, :, None], (3,)),
    Case("new axis of a number", lambda xp, x: x[None], ()),
    Case("a number itself", lambda xp, x: x[()], ()),
    Case("integer array", lambda xp, x: x[ROWS], (3, 2)),
    Case("integer list", lambda xp, x: x[[0, -1, 0]], (3,)),
    Case("integer matrix", lambda xp, x: x[np.array([[0, 1], [1, 1]])], (3,)),
    Case("two integer arrays", lambda xp, x: x[ROWS, [1, 1, 1]], (3, 2)),
    Case("open mesh", lambda xp, x: x[np.ix_([1, 0], [0, 2, 2])], (2, 3)),
    Case("integers around a slice", lambda xp, x: x[ROWS, :, [0, 1, 0]], (3, 2, 2)),
    Case("integers and a new axis", lambda xp, x: x[ROWS, None, 1], (3, 2)),
    Case("mask", lambda xp, x: x[MASK], (2, 3)),
    Case("mask of rows", lambda xp, x: x[np.array([True, False, True])], (3, 2)),
    Case("mask and slice", lambda xp, x: x[:, np.array([True, False, True])], (2, 3)),
    Case("mask and integer", lambda xp, x: x[MASK[0], 1], (3, 2)),
    Case("mask of nothing", lambda xp, x: x[np.zeros(3, bool)], (3,)),
    Case("mask by comparison", lambda xp, x: x[x > 0.5], (7,)),
    Case("true and false", lambda xp, x: xp.concatenate([x[True], x[False]]), (2,)),
]
CASES_BY_TITLE = {case.title: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])


def flat(result):
    """Join what a function returned (lists of parts included) into one vector."""
    if isinstance(result, (list, tuple)):
        return ad.concatenate([ad.ravel(part) for part in result])
    return ad.ravel(result)


def loss_of(function, count):
    """Return a smooth scalar function with curvature and a weight for each result."""
    weights = np.linspace(0.5, 1.5, count)

    def loss(*tensors):
        y = flat(function(ad, *tensors))
        return ad.sum(weights * y * y)

    return loss


def leaves(arrays):
    return [ad.tensor(a, requires_grad=True) for a in arrays]


def gradients(f, arrays):
    x = leaves(arrays)
    return [g.numpy() for g in ad.autograd.grad(f(*x), x)]


def differences(f, arrays, step):
    """Central differences of a scalar function of arrays in every element of every array."""
    results = []
    for k, a in enumerate(arrays):
        d = np.zeros(a.shape)
        for place in np.ndindex(a.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(b) for b in arrays]
                moved[k][place] += sign * step
                ends.append(f(*moved))
            d[place] = (ends[0] - ends[1]) / (2 * step)
        results.append(d)
    return results


def assert_gradients(f, arrays):
    """Compare reverse derivatives of a scalar function, first and second order, with differences.

    Second order: the exact gradient's projection on a fixed direction is differenced.
    """
    directions = [np.cos(np.arange(a.size) + 1.0).reshape(a.shape) for a in arrays]

    def value(*point):
        with ad.no_grad():
            return f(*map(ad.tensor, point)).item()

    def slope(*point):
        parts = gradients(f, point)
        return float(sum(np.sum(g * v) for g, v in zip(parts, directions, strict=True)))

    for got, want in zip(gradients(f, arrays), differences(value, arrays, 1e-6), strict=True):
        np.testing.assert_allclose(got, want, TOLERANCE, TOLERANCE)

    x = leaves(arrays)
    first = ad.autograd.grad(f(*x), x, create_graph=True)
    projected = ad.sum(ad.stack([ad.sum(g * v) for g, v in zip(first, directions, strict=True)]))
    second = ad.autograd.grad(projected, x)
    for got, want in zip(second, differences(slope, arrays, 1e-5), strict=True):
        np.testing.assert_allclose(got.numpy(), want, TOLERANCE, TOLERANCE)


def assert_tangent(f, arrays):
    """Compare the tangent of a scalar function along one direction with differences."""
    directions = [np.sin(np.arange(a.size) + 1.0).reshape(a.shape) for a in arrays]
    y, y_dot = ad.jvp(f, arrays, directions)

    def along(step):
        moved = [a + step * v for a, v in zip(arrays, directions, strict=True)]
        with ad.no_grad():
            return f(*map(ad.tensor, moved)).item()

    want = (along(1e-6) - along(-1e-6)) / 2e-6
    np.testing.assert_allclose(float(y_dot), want, TOLERANCE, TOLERANCE)
    np.testing.assert_allclose(float(y), along(0.0), 1e-15)


def assert_same_bits(got, want):
    """Compare a result with NumPy's: type, shape, dtype and every bit."""
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for part, other in zip(got, want, strict=True):
            assert_same_bits(part, other)
        return
    want = np.asarray(want)
    assert isinstance(got, ad.Tensor)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert got.numpy().tobytes() == want.tobytes()


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_value_is_numpys_bit_for_bit(case, dtype):
    arrays = case.arrays(dtype)
    want = case.function(np, *arrays)
    assert_same_bits(case.function(ad, *map(ad.tensor, arrays)), want)


@every_case
def test_numpys_function_of_a_tensor_gives_the_same(case):
    arrays = case.arrays()
    assert_same_bits(case.function(np, *map(ad.tensor, arrays)), case.function(np, *arrays))
    x = leaves(arrays)
    result = case.function(np, *x)
    parts = result if isinstance(result, (list, tuple)) else [result]
    assert all(part.requires_grad for part in parts)


@every_case
def test_gradient_and_second_order_match_differences(case):
    arrays = case.arrays()
    count = flat(case.function(ad, *map(ad.tensor, arrays))).size
    if sum(a.size for a in arrays) > 60:
        pytest.skip("differences of this many elements take long and show nothing new")
    assert_gradients(loss_of(case.function, count), arrays)


@every_case
def test_tangent_matches_differences(case):
    arrays = case.arrays()
    count = flat(case.function(ad, *map(ad.tensor, arrays))).size
    assert_tangent(loss_of(case.function, count), arrays)


@every_case
def test_float32_in_float32_gradients_out(case):
    x = leaves(case.arrays(np.float32))
    y = flat(case.function(ad, *x))
    for g, leaf in zip(ad.autograd.grad(ad.sum(y), x), x, strict=True):
        assert g.dtype == np.float32
        assert g.shape == leaf.shape


def test_gradient_checker_rejects_a_wrong_gradient():
    def half(x):
        return ad.sum(x * x.detach())

    with pytest.raises(AssertionError):
        assert_gradients(half, [np.array([1.0, 2.0])])


def test_gradient_checker_rejects_a_wrong_second_derivative():
    def frozen_slope(x):
        # value and gradient are those of sum(x**3); the gradient's own slope is half of what it is
        return ad.sum(x * x.detach() * x.detach() + x.detach() * x * x - x.detach() ** 3)

    with pytest.raises(AssertionError):
        assert_gradients(frozen_slope, [np.array([1.0, 2.0])])


def test_tangent_checker_rejects_a_wrong_tangent():
    def half(x):
        return ad.sum(x * x.detach())

    with pytest.raises(AssertionError):
        assert_tangent(half, [np.array([1.0, 2.0])])


def test_value_checker_rejects_a_result_one_bit_off():
    with pytest.raises(AssertionError):
        assert_same_bits(ad.tensor(np.nextafter(1.0, 2.0)), 1.0)


# Indices.


@pytest.mark.parametrize(
    "index",
    [np.array([2, 0]), [2, 0], np.array([True, False, True])],
    ids=["integer array", "list", "mask"],
)
def test_index_changed_after_the_forward_does_not_change_the_gradient(index):
    x = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[index]
    index[0] = 1 if isinstance(index, list) or index.dtype != bool else False
    ad.sum(y).backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("pick", [ad.take, lambda x, i: ad.take_along_axis(x, i, 0)])
def test_indices_of_take_may_change_after_the_forward(pick):
    x = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    index = np.array([2, 2])
    y = pick(x, index)
    index[:] = 0
    ad.sum(y).backward()
    assert x.grad.tolist() == [0.0, 0.0, 2.0]


def test_tensor_as_index_may_change_after_the_forward():
    x = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    index = ad.tensor([2, 0])
    y = x[index]
    index += 1
    ad.sum(y).backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]


def test_bounds_of_a_slice_may_be_tensors_that_change():
    x = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    stop = ad.tensor(2)
    y = x[:stop]
    stop += 1
    ad.sum(y).backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]


def test_array_that_entered_may_change_after_the_forward():
    values = np.array([1.0, 2.0])
    x = ad.tensor([3.0, 4.0], requires_grad=True)
    y = ad.dot(ad.concatenate([x, values]), ad.concatenate([values, x]))
    values[:] = 100.0
    y.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_repeated_indices_add_up():
    x = ad.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x[[1, 1, 0], [2, -1, 0]]
    (y * ad.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [[100.0, 0.0, 0.0], [0.0, 0.0, 11.0]]


def test_repeated_rows_add_up_in_float32():
    x = ad.tensor(np.ones((3, 2), np.float32), requires_grad=True)
    ad.sum(x[[0, 0, 0, 2]]).backward()
    assert x.grad.tolist() == [[3.0, 3.0], [0.0, 0.0], [1.0, 1.0]]
    assert x.grad.dtype == np.float32


def test_index_may_be_a_tensor_of_integers_or_bools():
    x = ad.tensor([1.0, -2.0, 3.0], requires_grad=True)
    assert x[ad.tensor([2, 0])].tolist() == [3.0, 1.0]
    assert x[x > 0].tolist() == [1.0, 3.0]
    assert x[ad.argmax(x)].item() == 3.0
    assert x[ad.argsort(x)].tolist() == [-2.0, 1.0, 3.0]
    assert x[ad.where(x < 0)].tolist() == [-2.0]


def test_numbers_of_numpy_and_ranges_index():
    x = ad.tensor([1.0, 2.0, 3.0])
    assert x[np.int64(1)].item() == 2.0
    assert x[np.array(2)].item() == 3.0
    assert x[range(2)].tolist() == [1.0, 2.0]
    assert x[[]].shape == (0,)
    assert x[np.int32(1) :].tolist() == [2.0, 3.0]


def test_updates_reach_slices_and_not_what_was_computed_from_them():
    x = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    part = x[1:]
    y = ad.sum(part * part)
    with ad.no_grad():
        x *= 10.0
    assert part.tolist() == [20.0, 30.0]
    y.backward()
    assert x.grad.tolist() == [0.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (5, "getitem: index 5 is out of bounds for axis 0 with size 3"),
        ((0, 0), "getitem: too many indices"),
        ("a", "getitem: an index is .* got str"),
        (1.0, "getitem: an index is .* got float"),
        (np.array([0.5]), "getitem: an index is .* got an array of float64"),
        (np.array([True, False]), "getitem: boolean index did not match"),
        ([7], "getitem: index 7 is out of bounds"),
    ],
)
def test_bad_index_is_an_error_that_names_getitem(index, text):
    with pytest.raises(IndexError, match=text):
        ad.tensor([1.0, 2.0, 3.0])[index]


@pytest.mark.parametrize(
    ("index", "unique"),
    [(1, True), (slice(0, 2), True), (MASK.T[:, 0], True), (ROWS, False), ((ROWS, ROWS), False)],
    ids=["integer", "slice", "mask", "repeated", "repeated pairs"],
)
def test_cotangent_added_in_place_is_the_vjps(index, unique):
    values = np.arange(9.0).reshape(3, 3)
    g = np.cos(values[index])
    bar = values.copy()
    rules.GETITEM.accumulate(bar, g, index, unique)
    want = rules.SCATTER.forward(g, values.shape, index, unique)
    np.testing.assert_array_equal(bar, values + want)


# Sums over batches and broadcast axes.


def test_batched_products_sum_the_gradient_of_a_shared_matrix():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 2, 3)), rng.normal(size=(3, 4))
    x = leaves([a, b])
    ad.sum(ad.matmul(*x)).backward()
    np.testing.assert_allclose(x[0].grad.numpy(), np.broadcast_to(b.sum(1), a.shape), 1e-14)
    want = np.broadcast_to(a.sum((0, 1))[:, None], b.shape)
    np.testing.assert_allclose(x[1].grad.numpy(), want, 1e-13)


def test_broadcasting_sums_over_what_was_repeated():
    a, b = leaves([np.arange(3.0).reshape(3, 1), np.arange(4.0)])
    ad.sum(a * b).backward()
    assert a.grad.tolist() == [[6.0]] * 3
    assert b.grad.tolist() == [3.0] * 4


def test_mean_divides_like_numpy_beyond_what_float32_can_count():
    x = np.full(2**24 + 3, 0.3, np.float32)
    assert_same_bits(ad.mean(x), np.mean(x))


# Norms and standard deviations at zero.


@pytest.mark.parametrize("order", [None, 2, 1, 3, np.inf])
def test_gradient_of_the_norm_at_zero_is_zero(order):
    x = ad.tensor(np.zeros(3), requires_grad=True)
    (g,) = ad.autograd.grad(ad.linalg.norm(x, order), [x], create_graph=True)
    assert g.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"axis": 0}, {"axis": (0, 1)}, {"ord": "fro"}])
def test_norm_at_zero_has_zero_second_derivatives(options):
    x = ad.tensor(np.zeros((3, 2)), requires_grad=True)
    y = ad.sum(ad.linalg.norm(x, **options))
    (g,) = ad.autograd.grad(y, [x], create_graph=True)
    (h,) = ad.autograd.grad(ad.sum(g * g + g), [x])
    assert not h.numpy().any()


def test_norm_of_one_zero_row_leaves_the_others_alone():
    x = ad.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    ad.sum(ad.linalg.norm(x, axis=1)).backward()
    assert x.grad.tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_norm_of_huge_and_tiny_values_follows_numpy_and_stays_finite():
    for scale in (1e-160, 1e150):
        x = ad.tensor(np.array([3.0, 4.0]) * scale, requires_grad=True)
        y = ad.linalg.norm(x)
        y.backward()
        assert y.item() == np.linalg.norm(x.detach().numpy())
        np.testing.assert_allclose(x.grad.numpy(), [0.6, 0.8], 1e-3)


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_std_of_equal_values_has_gradient_zero(axis):
    x = ad.tensor(np.full((3, 2), 1.25), requires_grad=True)
    y = ad.sum(ad.std(x, axis=axis))
    assert y.item() == 0.0
    (g,) = ad.autograd.grad(y, [x], create_graph=True)
    assert g.tolist() == [[0.0, 0.0]] * 3
    (h,) = ad.autograd.grad(ad.sum(g * g + g), [x])
    assert not h.numpy().any()


def test_std_of_one_row_of_equal_values_leaves_the_others_alone():
    x = ad.tensor([[1.0, 3.0], [2.0, 2.0]], requires_grad=True)
    ad.sum(ad.std(x, axis=1)).backward()
    assert x.grad.tolist() == [[-0.5, 0.5], [0.0, 0.0]]


def test_std_of_nan_is_nan():
    assert np.isnan(ad.std(ad.tensor([1.0, np.nan])).item())


# Products with zeros.


def product_derivatives(values):
    """Gradient and Hessian of the product of all values, without a division."""
    n = len(values)
    g = [np.prod([values[k] for k in range(n) if k != i]) for i in range(n)]
    h = [
        [np.prod([values[k] for k in range(n) if k not in (i, j)]) * (i != j) for j in range(n)]
        for i in range(n)
    ]
    return np.array(g), np.array(h)


@pytest.mark.parametrize("length", [2, 3, 5, 6, 8])
@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_product_with_zeros_is_right_to_second_order(length, zeros):
    values = np.arange(2.0, 2.0 + length)
    values[:zeros] = 0.0
    values[: zeros + 1] = values[: zeros + 1][::-1]
    x = ad.tensor(values, requires_grad=True)
    (g,) = ad.autograd.grad(ad.prod(x), [x], create_graph=True)
    want_g, want_h = product_derivatives(values)
    np.testing.assert_array_equal(g.detach().numpy(), want_g)
    for i in range(length):
        (row,) = ad.autograd.grad(g[i], [x], retain_graph=True)
        np.testing.assert_array_equal(row.numpy(), want_h[i])
    y, y_dot = ad.jvp(lambda x: ad.prod(x), [values], [np.ones(length)])
    assert float(y_dot) == want_g.sum()


def test_product_over_an_axis_with_zeros_matches_differences():
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]])
    weights = np.array([1.0, 2.0, 3.0])
    for axis in (0, 1):
        assert_gradients(lambda x, axis=axis: ad.sum(weights * ad.prod(x, axis=axis)), [x])


def test_product_that_underflows_still_has_its_gradient():
    x = ad.tensor([1e-200, 1e-200, 1e200], requires_grad=True)
    ad.prod(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), [1.0, 1.0, 0.0], 1e-12)


# Ties.


def test_tied_maxima_share_the_cotangent_equally():
    x = ad.tensor([[1.0, 3.0, 3.0], [3.0, 0.0, 3.0]], requires_grad=True)
    ad.max(x).backward()
    assert x.grad.tolist() == [[0.0, 0.25, 0.25], [0.25, 0.0, 0.25]]


def test_tied_minima_along_an_axis_share_equally_and_have_no_curvature():
    x = ad.tensor([[1.0, 1.0, 3.0], [2.0, 0.0, 3.0]], requires_grad=True)
    (g,) = ad.autograd.grad(ad.sum(ad.min(x, axis=1) ** 2), [x], create_graph=True)
    assert g.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    (h,) = ad.autograd.grad(ad.sum(g), [x])
    assert h.tolist() == [[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]]


def test_maximum_that_is_nan_sends_its_cotangent_to_the_nan():
    x = ad.tensor([1.0, np.nan, 3.0], requires_grad=True)
    y = ad.max(x)
    y.backward()
    assert np.isnan(y.item())
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_sorting_equal_values_gives_each_its_own_cotangent():
    x = ad.tensor([2.0, 1.0, 2.0, 1.0], requires_grad=True)
    ad.dot(ad.sort(x), ad.tensor([1.0, 10.0, 100.0, 1000.0])).backward()
    assert x.grad.tolist() == [100.0, 1.0, 1000.0, 10.0]


# A cotangent or tangent that is exactly zero contributes exactly zero.


ZERO_TIMES_INF = {
    "matmul": (lambda a, b: ad.matmul(a, b), (2, 2), (2, 2)),
    "dot of cubes": (lambda a, b: ad.dot(a, b), (2, 2), (2, 2, 2)),
    "tensordot": (lambda a, b: ad.tensordot(a, b, 1), (2, 2), (2, 2)),
    "inner": (lambda a, b: ad.inner(a, b), (2, 2), (2, 2)),
    "einsum": (lambda a, b: ad.einsum("ij,jk->ik", a, b), (2, 2), (2, 2)),
    "einsum of three": (lambda a, b: ad.einsum("ij,jk,k->ik", a, b, ad.ones(2)), (2, 2), (2, 2)),
}


@pytest.mark.parametrize("name", ZERO_TIMES_INF)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_zero_cotangent_of_a_product_sum_hides_inf_and_nan(name, bad):
    function, shape_a, shape_b = ZERO_TIMES_INF[name]
    b = np.arange(1.0, 1.0 + np.prod(shape_b)).reshape(shape_b)
    if name == "inner":
        b[1] = bad
    else:
        b[..., 1] = bad
    x = ad.tensor(np.ones(shape_a), requires_grad=True)
    y = function(x, ad.tensor(b))
    # only results that do not see the bad column count
    ad.sum(y[..., 0]).backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_bad_values_that_do_count_arrive_as_their_sums_say():
    b = ad.tensor([[np.inf, 1.0], [np.inf, -np.inf], [np.nan, 0.0], [-np.inf, 2.0]])
    x = ad.tensor(np.ones((1, 4)), requires_grad=True)
    y = ad.einsum("ij,jk->ik", x, b)
    y.backward(ad.tensor([[0.0, 2.0]]))
    assert x.grad.tolist() == [[2.0, -np.inf, 0.0, 4.0]]
    (g,) = ad.autograd.grad(ad.einsum("ij,jk->ik", x, b), [x], ad.tensor([[1.0, 1.0]]))
    np.testing.assert_array_equal(g.numpy(), [[np.inf, np.nan, np.nan, -np.inf]])


def test_hidden_inf_stays_hidden_in_the_second_order():
    b = np.array([[2.0, np.inf], [3.0, 1.0]])
    x = ad.tensor(np.ones((1, 2)), requires_grad=True)
    y = ad.einsum("ij,jk->ik", x, b)[0, 0]
    (g,) = ad.autograd.grad(y * y, [x], create_graph=True)
    assert g.tolist() == [[20.0, 30.0]]
    (h,) = ad.autograd.grad(g[0, 0], [x])
    assert h.tolist() == [[8.0, 12.0]]


def test_zero_tangent_hides_inf():
    b = np.array([[np.inf, 1.0], [2.0, 3.0]])
    _, y_dot = ad.jvp(
        lambda x: ad.einsum("ij,jk->ik", x, b), [np.ones((1, 2))], [np.array([[0.0, 1.0]])]
    )
    assert np.asarray(y_dot).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ad.prod(x, axis=1),
        lambda x: ad.linalg.norm(x, axis=1),
        lambda x: ad.max(x, axis=1),
        lambda x: ad.std(x, axis=1),
    ],
    ids=["prod", "norm", "max", "std"],
)
def test_row_that_where_does_not_take_cannot_leak(function):
    x = ad.tensor([[1.0, 2.0], [np.inf, -1.0]], requires_grad=True)
    y = ad.where(np.array([True, False]), function(x), 0.0)
    ad.sum(y).backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert x.grad.tolist()[1] == [0.0, 0.0]


# Empty arrays, integers, mixed dtypes.


EMPTY = {
    "sum": lambda xp, x: xp.sum(x),
    "sum over an axis": lambda xp, x: xp.sum(x, axis=1),
    "prod": lambda xp, x: xp.prod(x),
    "prod over an axis": lambda xp, x: xp.prod(x, axis=1),
    "prod over nothing's axis": lambda xp, x: xp.prod(x, axis=0),
    "cumsum": lambda xp, x: xp.cumsum(x),
    "max over the other axis": lambda xp, x: xp.max(x, axis=0),
    "max from a start": lambda xp, x: xp.max(x, axis=1, initial=1.0),
    "norm": lambda xp, x: xp.linalg.norm(x),
    "std of nothing": lambda xp, x: xp.std(x, axis=0),
    "concatenate": lambda xp, x: xp.concatenate([x, x]),
    "stack": lambda xp, x: xp.stack([x, x]),
    "matmul": lambda xp, x: xp.matmul(x, xp.transpose(x)),
    "inner": lambda xp, x: xp.inner(x, x),
    "tensordot": lambda xp, x: xp.tensordot(x, x, 0),
    "einsum": lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    "trace": lambda xp, x: xp.trace(x),
    "sort": lambda xp, x: xp.sort(x),
    "flip": lambda xp, x: xp.flip(x),
    "roll": lambda xp, x: xp.roll(x, 1, axis=1),
    "tile": lambda xp, x: xp.tile(x, (2, 2)),
    "repeat": lambda xp, x: xp.repeat(x, 2, axis=1),
    "repeat no times": lambda xp, x: xp.repeat(x, 0, axis=0),
    "pad": lambda xp, x: xp.pad(x, 1),
    "diff": lambda xp, x: xp.diff(x, axis=0),
    "split": lambda xp, x: xp.split(x, 2),
    "mask": lambda xp, x: x[x > 0],
    "slice": lambda xp, x: x[:, 0:0],
    "take": lambda xp, x: xp.take(x, np.zeros(0, int), axis=0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_arrays_work_where_numpys_do(name):
    values = np.zeros((2, 0))
    want = EMPTY[name](np, values)
    x = ad.tensor(values, requires_grad=True)
    y = EMPTY[name](ad, x)
    parts, wants = (y, want) if isinstance(want, list) else ([y], [want])
    for part, other in zip(parts, wants, strict=True):
        assert_same_bits(part.detach(), other)
    (g,) = ad.autograd.grad(ad.sum(flat(y)), [x])
    assert g.shape == (2, 0)


def test_maximum_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="max: zero-size array"):
        ad.max(ad.zeros((2, 0)))


def test_mean_of_nothing_is_nan():
    assert np.isnan(ad.mean(ad.zeros(0)).item())


INTEGER = {
    "sum": lambda xp, x: xp.sum(x, axis=0),
    "mean": lambda xp, x: xp.mean(x),
    "var": lambda xp, x: xp.var(x, axis=1),
    "prod": lambda xp, x: xp.prod(x),
    "max": lambda xp, x: xp.max(x),
    "cumsum": lambda xp, x: xp.cumsum(x),
    "dot": lambda xp, x: xp.dot(x, x),
    "inner": lambda xp, x: xp.inner(x, x),
    "tensordot": lambda xp, x: xp.tensordot(x, x, 1),
    "einsum": lambda xp, x: xp.einsum("ij->j", x),
    "outer": lambda xp, x: xp.outer(x, x),
    "trace": lambda xp, x: xp.trace(x),
    "concatenate": lambda xp, x: xp.concatenate([x, x]),
    "stack": lambda xp, x: xp.stack([x, x], axis=1),
    "tril": lambda xp, x: xp.tril(x),
    "diag": lambda xp, x: xp.diag(x),
    "diff": lambda xp, x: xp.diff(x),
    "sort": lambda xp, x: xp.sort(x),
    "pad": lambda xp, x: xp.pad(x, 1),
    "roll": lambda xp, x: xp.roll(x, 1),
    "tile": lambda xp, x: xp.tile(x, 2),
    "repeat": lambda xp, x: xp.repeat(x, 2),
    "take": lambda xp, x: xp.take(x, [1]),
    "index": lambda xp, x: x[0],
    "clip": lambda xp, x: xp.clip(x, 1, 2),
    "round": lambda xp, x: xp.round(x),
    "norm": lambda xp, x: xp.linalg.norm(x),
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_])
@pytest.mark.parametrize("name", INTEGER)
def test_integers_and_bools_are_computed_as_numpy_does(name, dtype):
    values = np.array([[3, 1], [0, 2]]).astype(dtype)
    if dtype is np.bool_ and name in ("clip", "round"):
        pytest.skip("NumPy has none for bools")
    assert_same_bits(INTEGER[name](ad, ad.tensor(values)), INTEGER[name](np, values))


def test_joining_float32_with_float64_gives_each_its_own_gradient():
    a = ad.tensor(np.ones(2, np.float32), requires_grad=True)
    b = ad.tensor(np.ones(2), requires_grad=True)
    for y in (
        ad.concatenate([a, b]),
        ad.stack([a, b]),
        ad.tensordot(a, b, 0),
        ad.einsum("i,i->i", a, b),
    ):
        assert y.dtype == np.float64
        g = ad.autograd.grad(ad.sum(y), [a, b])
        assert [t.dtype for t in g] == [np.float32, np.float64]


def test_joining_integers_with_floats_lets_gradients_through():
    a = ad.tensor(np.ones(2, np.float32), requires_grad=True)
    y = ad.concatenate([a, [1, 2], ad.tensor([3])])
    assert y.dtype == np.float64
    ad.sum(y).backward()
    assert a.grad.tolist() == [1.0, 1.0]


def test_lists_may_hold_tensors_at_any_depth():
    x = ad.tensor(2.0, requires_grad=True)
    y = ad.array([[x, 1.0], [3.0, x * x]])
    assert y.tolist() == [[2.0, 1.0], [3.0, 4.0]]
    ad.sum(y).backward()
    assert x.grad.item() == 5.0
    assert ad.sum([x, x]).requires_grad


# Creation.


CREATION = {
    "zeros": lambda xp: xp.zeros((2, 3)),
    "zeros of integers": lambda xp: xp.zeros(3, dtype=np.int64),
    "ones": lambda xp: xp.ones(2, np.float32),
    "full": lambda xp: xp.full((2,), 7.0),
    "full of integers": lambda xp: xp.full(2, 7),
    "arange": lambda xp: xp.arange(4),
    "arange of floats": lambda xp: xp.arange(4, dtype=np.float32),
    "arange with steps": lambda xp: xp.arange(1.0, 2.0, 0.3),
    "arange by name": lambda xp: xp.arange(0, 5, step=2),
    "linspace": lambda xp: xp.linspace(0.0, 1.0, 7),
    "linspace without end": lambda xp: xp.linspace(0, 1, 5, endpoint=False),
    "eye": lambda xp: xp.eye(2, 3, k=1),
    "identity": lambda xp: xp.identity(3),
    "array": lambda xp: xp.array([[1, 2], [3, 4]]),
    "array with dtype": lambda xp: xp.array([1, 2], dtype=np.float32),
    "array with axes": lambda xp: xp.array([1.0], ndmin=3),
    "asarray": lambda xp: xp.asarray([1.5, 2.5]),
    "zeros_like": lambda xp: xp.zeros_like(xp.arange(3)),
    "ones_like": lambda xp: xp.ones_like(xp.arange(3), dtype=np.float32),
    "full_like": lambda xp: xp.full_like(xp.zeros(2), 3),
}


@pytest.mark.parametrize("name", CREATION)
def test_creation_is_numpys(name):
    assert_same_bits(CREATION[name](ad), CREATION[name](np))


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: ad.zeros(2, **k),
        lambda **k: ad.ones(2, **k),
        lambda **k: ad.empty(2, **k),
        lambda **k: ad.full(2, 1.0, **k),
        lambda **k: ad.arange(2.0, **k),
        lambda **k: ad.linspace(0, 1, 3, **k),
        lambda **k: ad.eye(2, **k),
        lambda **k: ad.array([1.0, 2.0], **k),
        lambda **k: ad.asarray([1.0, 2.0], **k),
        lambda **k: ad.ones_like(ad.zeros(2), **k),
    ],
)
def test_creation_makes_leaves_when_asked(make):
    x = make(requires_grad=True)
    ad.sum(x * 3.0).backward()
    assert x.grad.numpy().ravel().tolist() == [3.0] * x.size
    assert not make().requires_grad


def test_copies_of_a_tensor_are_its_own_and_carry_gradients():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    assert ad.asarray(x) is x
    for y in (ad.copy(x), ad.array(x), x.copy(), ad.astype(x, float)):
        assert y is not x
        (g,) = ad.autograd.grad(ad.sum(y), [x])
        assert g.tolist() == [1.0, 1.0]


def test_full_of_a_tensor_carries_its_gradient():
    x = ad.tensor(2.0, requires_grad=True)
    ad.sum(ad.full((2, 3), x)).backward()
    assert x.grad.item() == 6.0


# Errors say which function, what came and what to do.


ERRORS = {
    "concatenate shapes": (lambda: ad.concatenate([ad.zeros((1, 2)), ad.zeros(2)]), "concatenate:"),
    "concatenate nothing": (lambda: ad.concatenate([]), "concatenate: needs at least one array"),
    "concatenate a number": (lambda: ad.concatenate(ad.tensor(1.0)), "concatenate: .* 0-d tensor"),
    "stack shapes": (
        lambda: ad.stack([ad.zeros(1), ad.zeros(2)]),
        r"stack: shapes .* \(1,\) and \(2,\)",
    ),
    "dot": (lambda: ad.dot(ad.zeros(3), ad.zeros(4)), r"dot: shapes \(3,\) and \(4,\)"),
    "matmul": (lambda: ad.matmul(ad.zeros((2, 3)), ad.zeros((2, 3))), "matmul"),
    "inner": (lambda: ad.inner(ad.zeros(3), ad.zeros(4)), "inner: shapes"),
    "tensordot": (lambda: ad.tensordot(ad.zeros((2, 3)), ad.zeros((2, 3)), 1), "tensordot:"),
    "tensordot axes": (
        lambda: ad.tensordot(ad.zeros(2), ad.zeros(2), 3),
        r"tensordot: shapes \(2,\) and \(2,\) do not have 3 axes",
    ),
    "einsum": (lambda: ad.einsum("ij->i", ad.zeros(3)), "einsum:"),
    "einsum output": (lambda: ad.einsum("i->j", ad.zeros(3)), "einsum:"),
    "einsum operands": (lambda: ad.einsum("i,i", ad.zeros(3)), "einsum:"),
    "split": (lambda: ad.split(ad.zeros(3), 2), "split: .* use array_split"),
    "squeeze": (lambda: ad.squeeze(ad.zeros(3), 0), "squeeze: axis 0 of shape"),
    "reshape": (lambda: ad.reshape(ad.zeros(3), (2, 2)), "reshape"),
    "broadcast_to": (lambda: ad.broadcast_to(ad.zeros(3), (2,)), "broadcast_to"),
    "moveaxis": (lambda: ad.moveaxis(ad.zeros((2, 2)), (0, 1), 0), "moveaxis: .* got 2 and 1"),
    "trace": (lambda: ad.trace(ad.zeros(3)), r"trace: needs at least two axes, got shape \(3,\)"),
    "diagonal axes": (lambda: ad.diagonal(ad.zeros((2, 2)), 0, 1, -1), "diagonal: .* have to diff"),
    "diag": (lambda: ad.diag(ad.zeros((2, 2, 2))), "diag: wants one or two axes"),
    "prod axis": (lambda: ad.prod(ad.zeros(3), axis=1), "prod: axis 1 is out of bounds"),
    "max axis": (lambda: ad.max(ad.zeros(3), axis=1), "max: axis 1 is out of bounds"),
    "mean axis": (lambda: ad.mean(ad.zeros(3), axis=1), "mean: axis 1 is out of bounds"),
    "norm axes": (lambda: ad.linalg.norm(ad.zeros((2, 2, 2)), 2), "norm: wants one or two axes"),
    "norm order": (lambda: ad.linalg.norm(ad.zeros(2), "fro"), "norm: order 'fro'"),
    "diff order": (lambda: ad.diff(ad.zeros(3), -1), "diff: the order must not be negative"),
    "take mode": (lambda: ad.take(ad.zeros(3), 0, mode="x"), "take: mode must be"),
    "repeat": (lambda: ad.repeat(ad.zeros(3), -1), "repeat: repeats must not be negative"),
    "where": (lambda: ad.where(True, 1.0), "where: give both x and y, or neither"),
    "max with where": (lambda: ad.max(ad.zeros(3), where=[True] * 3), "max: where= needs initial="),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_names_the_function_and_the_trouble(name):
    function, text = ERRORS[name]
    with pytest.raises((ValueError, TypeError, IndexError), match=text):
        function()


def test_failed_call_leaves_nothing_behind():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    with pytest.raises(ValueError, match="concatenate"):
        ad.concatenate([y, ad.zeros((2, 2))])
    ad.sum(y).backward()
    assert x.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("function", [np.sum, np.mean])
def test_the_sum_of_one_negative_zero_has_numpys_sign(function):
    for requires_grad in (False, True):
        for value in (-0.0, [-0.0]):
            y = function(ad.tensor(value, requires_grad=requires_grad)).detach().item()
            assert np.signbit(y) == np.signbit(function(np.array(value)))
    assert ad.grad(function)(-0.0) == 1.0
