"""The primitives of linear algebra, which NumPy computes by LAPACK.

Below, ``H`` is the conjugate transpose, ``<A, B>`` the real part of ``trace(A^H B)``, and a VJP is
the adjoint of the JVP under this product; both are written for complex matrices, after

* M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode
  algorithmic differentiation", Oxford 2008;
* C. Boeddeker, P. Hanebrink, L. Drude, J. Heymann, R. Haeb-Umbach, "On the computation of
  complex-valued gradients with application to statistically optimum beamforming", 2017.

A factorization with several results is one primitive: its result holds all of them flat, one
behind the other along the last axis (`packed`), and `parts` takes them out again as tensors.  So a
factorization is computed once, and its derivative of any order starts from all its factors.

Where LAPACK reads one triangle alone, so does the derivative: the other triangle's cotangent is 0.
"""

from __future__ import annotations

import functools
from math import prod as _product

import numpy as np

from . import _core, rules
from .rules import conjugate, primitive, record, where, zmul

matmul = _core.matmul
real = _core.real


# Axes.


def transposed(t):
    """Return `t` with its last two axes exchanged."""
    n = t.ndim
    return _core.transpose(t, (*range(n - 2), n - 1, n - 2))


def adjoint(t):
    """Return the conjugate transpose of matrices."""
    return conjugate(transposed(t))


def adjoint_times(a, b):
    """Return ``a^H b``."""
    return matmul(conjugate(a), b, True)


def times_adjoint(a, b):
    """Return ``a b^H``."""
    return matmul(a, conjugate(b), False, True)


def column(t):
    """Return vectors as matrices of one column."""
    return _core.reshape(t, (*t.shape, 1))


def row(t):
    """Return vectors as matrices of one row."""
    return _core.reshape(t, (*t.shape[:-1], 1, t.shape[-1]))


def columns(t, start, stop):
    """Return some columns of matrices."""
    return rules.take_index(t, (..., slice(start, stop)), True)


def rows(t, start, stop):
    """Return some rows of matrices."""
    return rules.take_index(t, (..., slice(start, stop), slice(None)), True)


def diagonal(t):
    """Return the diagonals of square matrices."""
    n = t.shape[-1]
    flat = _core.reshape(t, (*t.shape[:-2], n * n))
    return rules.take_index(flat, (..., slice(None, None, n + 1)), True)


def times_i(t):
    """Return i times a real tensor."""
    return t * 1j


def is_complex(t):
    return t.dtype.kind == "c"


# Several results in one array.


def packed(lead, *arrays):
    """Return the arrays, whose first `lead` axes are a batch, flat and one behind the other."""
    if not lead:
        return np.concatenate([a.ravel() for a in arrays])
    batch = arrays[0].shape[:lead]
    flat = [a.reshape(*batch, _product(a.shape[lead:])) for a in arrays]
    return np.concatenate(flat, axis=-1)


def parts(t, *shapes):
    """Return the tensors that `packed` joined, by their shapes without batch."""
    found = []
    for params, shape in _places(t.shape[:-1], shapes):
        part = _core.apply(rules.GETITEM, (t,), params)
        found.append(part if shape is None else _core.reshape(part, shape))
    return found


@functools.lru_cache(256)
def _places(batch, shapes):
    """Return where each part stands, as parameters of ``getitem``, and its shape if it has axes."""
    stop, found = 0, []
    for shape in shapes:
        start, stop = stop, stop + _product(shape)
        index = (..., slice(start, stop) if shape else start)
        found.append(({"index": index, "unique": True}, batch + shape if len(shape) > 1 else None))
    return found


def joined(lead, dtype, *tensors):
    """As `packed`, for tensors."""
    flat = []
    for t in tensors:
        if t.dtype != dtype:
            t = _core.astype(t, dtype)
        flat.append(_core.reshape(t, (*t.shape[:lead], _product(t.shape[lead:]))))
    return rules.concatenate(flat, -1)


def zeros(shape, dtype):
    return _core.wrap(np.zeros(shape, dtype), copy=False)


def _no_tangent(y):
    """Return the tangent of a result that is taken as constant."""
    return zeros(y.shape, y.dtype)


# A zero cotangent meets inf or nan.


def factorization(name, axes, **reads):
    """As `primitive`, for a result whose last `axes` axes belong to one item of a batch.

    An item whose cotangent, or tangent, is exactly zero contributes exactly zero, even where the
    matrix holds inf or nan.  A derivative that meets a singular matrix names the primitive.
    """

    def declare(body):
        rule = primitive(name, **reads)(body)

        def named(derivative):
            def call(*args, **params):
                try:
                    return derivative(*args, **params)
                except np.linalg.LinAlgError as error:
                    raise np.linalg.LinAlgError(f"{name}: no derivative here; {error}") from None

            return call

        vjp, jvp = named(rule.vjp), named(rule.jvp)

        def safe_vjp(g, y, inputs, needs, **params):
            bars = vjp(g, y, inputs, needs, **params)
            return tuple([bar if bar is None else _dropped(bar, (g,), axes) for bar in bars])

        def safe_jvp(tangents, y, inputs, **params):
            y_dot = jvp(tangents, y, inputs, **params)
            return _dropped(y_dot, [t for t in tangents if t is not None], 2, axes)

        rule.vjp, rule.jvp = safe_vjp, safe_jvp
        return rule

    return declare


def _dropped(result, given, axes, result_axes=2):
    """Return `result` with zeros for the items of a batch for which all that was given is zero."""
    if not _core.holds_nan(result):
        return result
    batch = result.shape[: result.ndim - result_axes]
    if any(t.shape[: t.ndim - axes] != batch for t in given):
        return result                   # a broadcast batch: its items were added up
    dead = record(ALL_ZERO, tuple(given), {"axes": axes})
    return where(_core.reshape(dead, batch + (1,) * result_axes) != 0.0, 0.0, result)


@primitive("all_zero")
class ALL_ZERO:
    """1.0 for the items of a batch that are zero in all inputs, else 0.0."""

    def forward(*xs, axes):
        last = tuple(range(-axes, 0))
        return np.all([~np.any(x, axis=last) for x in xs], axis=0).astype(float)

    def vjp(g, y, inputs, needs, axes):
        return (None,) * len(inputs)

    def jvp(tangents, y, inputs, axes):
        return _no_tangent(y)


# Triangles.


@functools.lru_cache(128)
def _mask(m, n, lower, k):
    return np.tri(m, n, k, dtype=bool) if lower else ~np.tri(m, n, k - 1, dtype=bool)


def _triangle(x, lower, k):
    """As ``np.tril`` and ``np.triu``, several times faster for small matrices."""
    m, n = x.shape[-2:]
    if m * n > 4096:
        return np.tril(x, k) if lower else np.triu(x, k)
    return np.where(_mask(m, n, lower, k), x, x.dtype.type(0))


@primitive("triangle", linear=True)
class TRIANGLE:
    """The matrix from or up to a diagonal `k`, zeros elsewhere."""

    def forward(x, lower, k):
        return _triangle(x, lower, k)

    def vjp(g, y, inputs, needs, lower, k):
        return (triangle(g, lower, k),)


def triangle(t, lower, k=0):
    """Record the lower or the upper triangle."""
    return record(TRIANGLE, (t,), {"lower": lower, "k": k})


def _with_diagonal(x, values):
    n = x.shape[-1]
    x.reshape(*x.shape[:-2], n * n)[..., :: n + 1] = values
    return x


@primitive("hermitian", linear=True)
class HERMITIAN:
    """The Hermitian matrix of which `x` holds one triangle."""

    def forward(x, lower):
        half = _triangle(x, lower, -1 if lower else 1)
        y = half + half.conj().swapaxes(-1, -2)
        return _with_diagonal(y, x.diagonal(0, -2, -1).real)

    def vjp(g, y, inputs, needs, lower):
        return (fold(g, lower),)


@primitive("fold", linear=True)
class FOLD:
    """One triangle of ``x + x^H``, with the real part of the diagonal of `x`."""

    def forward(x, lower):
        y = x + x.conj().swapaxes(-1, -2)
        y = _triangle(y, lower, -1 if lower else 1)
        return _with_diagonal(y, x.diagonal(0, -2, -1).real)

    def vjp(g, y, inputs, needs, lower):
        return (hermitian(g, lower),)


def hermitian(t, lower=True):
    """Record the Hermitian matrix that a triangle of `t` spells: what LAPACK reads."""
    return record(HERMITIAN, (t,), {"lower": lower})


def fold(t, lower=True):
    """Record the transpose of `hermitian`: a cotangent of what is read twice, in one triangle."""
    return record(FOLD, (t,), {"lower": lower})


# Systems of equations.


def _right_bar(z, b):
    """Return the cotangent of a right side from that of its columns."""
    return _core.sum_to(_core.reshape(z, z.shape[:-1]) if b.ndim == 1 else z, b.shape)


def _solution_dot(solved, a_dot, b_dot, y, b):
    """Return the tangent of the solution y of a system that `solved` solves for other columns."""
    vector = b.ndim == 1
    if vector:
        y = column(y)
        b_dot = None if b_dot is None else column(b_dot)
    right = b_dot
    if a_dot is not None:
        right = -matmul(a_dot, y)
        if b_dot is not None:
            right = right + b_dot
    y_dot = _core.broadcast_to(solved(right), y.shape)
    return _core.reshape(y_dot, y_dot.shape[:-1]) if vector else y_dot


@primitive("solve", reads_inputs=True, reads_output=True)
class SOLVE:
    """``a x = b`` (Giles 2.3.1); `b` of one axis is a vector, as in NumPy.

    The reverse solves with ``a^H``; the cotangent of `a` needs a product more, no other solution.
    """

    def forward(a, b):
        return np.linalg.solve(a, b)

    def vjp(g, y, inputs, needs):
        a, b = inputs
        if b.ndim == 1:
            g, y = column(g), column(y)
        z = _dropped(solve(adjoint(a), g), (g,), 2)
        a_bar = b_bar = None
        if needs[0]:
            a_bar = _core.sum_to(-rules.zero_safe(times_adjoint, z, y), a.shape)
        if needs[1]:
            b_bar = _right_bar(z, b)
        return a_bar, b_bar

    def jvp(tangents, y, inputs):
        a, b = inputs
        return _solution_dot(lambda right: solve(a, right), *tangents, y, b)


def solve(a, b):
    """Record the solution of a system of one dtype."""
    return record(SOLVE, (a, b), {})


def scipy_linalg(name):
    """Return ``scipy.linalg``.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    """
    try:
        import scipy.linalg
    except ImportError as error:
        raise ImportError(
            f"{name}: needs SciPy, which is not installed (pip install scipy)"
        ) from error
    return scipy.linalg


def over_batch(function, arrays, axes):
    """Call a function for each item of a batch; the last `axes` axes of each array are an item's.

    Batches broadcast.
    """
    if all(a.ndim == k for a, k in zip(arrays, axes, strict=True)):
        return function(*arrays)
    batch = np.broadcast_shapes(*[a.shape[: a.ndim - k] for a, k in zip(arrays, axes, strict=True)])
    arrays = [
        np.broadcast_to(a, batch + a.shape[a.ndim - k :])
        for a, k in zip(arrays, axes, strict=True)
    ]
    found = [function(*[a[place] for a in arrays]) for place in np.ndindex(*batch)]
    if not found:
        item = function(*[np.ones(a.shape[len(batch) :], a.dtype) for a in arrays])
        return np.zeros(batch + item.shape, item.dtype)
    return np.stack(found).reshape(batch + found[0].shape)


@primitive("solve_triangular", reads_inputs=True, reads_output=True)
class SOLVE_TRIANGULAR:
    """``op(a) x = b`` for a triangle, where `trans` 0, 1, 2 says: as it is, transposed, adjoint.

    `exact` says that the bits are SciPy's.
    """

    def forward(a, b, trans, lower, unit, exact):
        if exact:
            solver = scipy_linalg("solve_triangular").solve_triangular
            return over_batch(lambda a, b: solver(
                a, b, trans=trans, lower=lower, unit_diagonal=unit, check_finite=False), (a, b),
                (2, b.ndim if b.ndim == 1 else 2))
        a = _triangle(a, lower, -unit if lower else unit)
        if unit:
            _with_diagonal(a, 1.0)
        if trans:
            a = a.swapaxes(-1, -2)
            if trans == 2:
                a = a.conj()
        return np.linalg.solve(a, b)

    def vjp(g, y, inputs, needs, trans, lower, unit, exact):
        a, b = inputs
        if b.ndim == 1:
            g, y = column(g), column(y)
        z = solve_triangular(*_adjoint_of_triangle(a, trans), g, lower, unit, exact)
        a_bar = b_bar = None
        if needs[0]:
            a_bar = times_adjoint(z, y) if trans == 0 else matmul(
                conjugate(y), transposed(z)) if trans == 1 else times_adjoint(y, z)
            a_bar = _core.sum_to(triangle(-a_bar, lower, -unit if lower else unit), a.shape)
        if needs[1]:
            b_bar = _right_bar(z, b)
        return a_bar, b_bar

    def jvp(tangents, y, inputs, trans, lower, unit, exact):
        a, b = inputs
        a_dot, b_dot = tangents
        if a_dot is not None:
            a_dot = triangle(a_dot, lower, -unit if lower else unit)
            if trans:
                a_dot = transposed(a_dot) if trans == 1 else adjoint(a_dot)
        return _solution_dot(lambda right: solve_triangular(a, trans, right, lower, unit, exact),
                             a_dot, b_dot, y, b)


def _adjoint_of_triangle(a, trans):
    """Return a matrix and a `trans` that stand for the adjoint of ``op(a)``."""
    return (conjugate(a), 0) if trans == 1 else (a, 0 if trans else 2)


def solve_triangular(a, trans, b, lower, unit=False, exact=False):
    """Record the solution of a triangular system of one dtype."""
    params = {"trans": trans, "lower": lower, "unit": unit, "exact": exact}
    return record(SOLVE_TRIANGULAR, (a, b), params)


@factorization("inv", 2, reads_output=True)
class INV:
    """The inverse (Giles 2.2.3); unless `strict`, that of a singular matrix is nan."""

    def forward(a, strict):
        if strict:
            return np.linalg.inv(a)
        try:
            return np.linalg.inv(a)
        except np.linalg.LinAlgError:
            if a.ndim == 2:
                return np.full(a.shape, np.nan, a.dtype)
        flat = a.reshape(-1, *a.shape[-2:])
        return np.stack([INV.forward(m, False) for m in flat]).reshape(a.shape)

    def vjp(g, y, inputs, needs, strict):
        return (-times_adjoint(adjoint_times(y, g), y),)

    def jvp(tangents, y, inputs, strict):
        return -matmul(matmul(y, tangents[0]), y)


def inv(a, strict=True):
    """Record the inverse of matrices."""
    return record(INV, (a,), {"strict": strict})


# Determinants.


@factorization("det", 0, reads_inputs=True, reads_output=True)
class DET:
    """The determinant (Giles 2.2.4); where it is 0 its derivatives are those of the polynomial."""

    def forward(a):
        return np.linalg.det(a)

    def vjp(g, y, inputs, needs):
        return (zmul(_core.reshape(g, (*g.shape, 1, 1)), _slope_of_det(inputs[0], y)),)

    def jvp(tangents, y, inputs):
        slope = conjugate(_slope_of_det(inputs[0], y))
        return _core.sum(tangents[0] * slope, (-2, -1))


def _slope_of_det(a, y):
    """Return the conjugate of the cofactors of `a`, whose determinants are `y`."""
    if not bool(_core.array(_core.by_numpy(np.all, (y,), {}))):
        return _slope_by_polynomial(a)
    return zmul(_core.reshape(conjugate(y), (*y.shape, 1, 1)), adjoint(inv(a)))


@primitive("singular_axes")
class SINGULAR_AXES:
    """Left and right singular vectors with the product of their determinants, as constants."""

    def forward(a):
        u, _, vh = np.linalg.svd(a)
        turn = np.linalg.det(u) * np.linalg.det(vh)
        return packed(a.ndim - 2, u, vh, np.asarray(turn)[..., None])

    def vjp(g, y, inputs, needs):
        return (None,)

    def jvp(tangents, y, inputs):
        return _no_tangent(y)


def _slope_by_polynomial(a):
    """As `_slope_of_det`, without a division: R. S. Bird, "A simple division-free algorithm for
    computing determinants", 2011, and its reverse.

    Bird's products are formed of ``m = U^H a V``, which is diagonal up to rounding and has no
    negative number, so nothing cancels; U and V count as constants.
    """
    n = a.shape[-1]
    axes = record(SINGULAR_AXES, (a,), {})
    u, vh, turn = parts(axes, (n, n), (n, n), (1, 1))
    m = times_adjoint(adjoint_times(u, a), vh)
    steps, x = [], m
    for _ in range(n - 1):
        z = _bird(x)
        steps.append(z)
        x = matmul(z, m)
    first = np.zeros((*a.shape[:-2], n, n), a.dtype)
    first[..., 0, 0] = (-1.0) ** (n - 1)
    x_bar = _core.wrap(first, copy=False)
    m_bar = None
    for z in reversed(steps):
        part = adjoint_times(z, x_bar)
        m_bar = part if m_bar is None else m_bar + part
        x_bar = _bird(times_adjoint(x_bar, m), True)
    m_bar = x_bar if m_bar is None else m_bar + x_bar
    return zmul(conjugate(turn), matmul(matmul(u, m_bar), vh))


@primitive("bird", linear=True)
class BIRD:
    """The strict upper triangle, with minus the sum of the later ones on the diagonal."""

    def forward(x, reverse):
        y = _triangle(x, False, 1)
        d = x.diagonal(0, -2, -1)
        if reverse:
            sums = np.add.accumulate(d, -1) - d
        else:
            sums = np.add.accumulate(d[..., ::-1], -1)[..., ::-1] - d
        return _with_diagonal(y, -sums)

    def vjp(g, y, inputs, needs, reverse):
        return (_bird(g, not reverse),)


def _bird(t, reverse=False):
    return record(BIRD, (t,), {"reverse": reverse})


@factorization("slogdet", 1, reads_inputs=True, reads_output=True)
class SLOGDET:
    """Packed: sign, logarithm of the modulus.  A singular matrix has no slope: it is nan."""

    def forward(a):
        found = np.linalg.slogdet(a)
        return np.array(found) if a.ndim == 2 else np.stack(found, -1)

    def vjp(g, y, inputs, needs):
        a = inputs[0]
        g_sign, scale = parts(g, (1, 1), (1, 1))
        if is_complex(a):
            sign = parts(y, (1, 1))[0]
            scale = real(scale) + times_i(_core.imag(zmul(g_sign, conjugate(sign))))
        return (zmul(scale, adjoint(inv(a, False))),)

    def jvp(tangents, y, inputs):
        a = inputs[0]
        turn = zmul(tangents[0], transposed(inv(a, False)))
        turn = _core.reshape(_core.sum(turn, (-2, -1)), (*y.shape[:-1], 1))
        if not is_complex(a):
            return rules.concatenate((_no_tangent(turn), turn), -1)
        sign = columns(y, 0, 1)
        sign_dot = zmul(times_i(_core.imag(turn)), sign)
        return joined(y.ndim - 1, y.dtype, sign_dot, real(turn))


# Cholesky.


@factorization("cholesky", 2, reads_output=True)
class CHOLESKY:
    """``a = L L^H``, or ``U^H U`` if `upper`; of `a` one triangle is read.

    I. Murray, "Differentiation of the Cholesky decomposition", 2016.  The factor is inverted once:
    two products with the inverse cost less than two solutions by what NumPy has, general LU.
    """

    def forward(a, upper):
        return np.linalg.cholesky(a, upper=True) if upper else np.linalg.cholesky(a)

    def vjp(g, y, inputs, needs, upper):
        s = times_adjoint(y, g) if upper else adjoint_times(y, g)
        s = hermitian(s) * 0.5
        w = inv(y)
        s = matmul(w, times_adjoint(s, w)) if upper else adjoint_times(w, matmul(s, w))
        return (fold(s, not upper),)

    def jvp(tangents, y, inputs, upper):
        a_dot, w = hermitian(tangents[0], not upper), inv(y)
        if upper:
            return matmul(fold(adjoint_times(w, matmul(a_dot, w)), False) * 0.5, y)
        return matmul(y, fold(matmul(w, times_adjoint(a_dot, w))) * 0.5)


def cholesky(a, upper):
    """Record the Cholesky factor."""
    return record(CHOLESKY, (a,), {"upper": upper})


# QR.


@factorization("qr", 1, reads_inputs=True, reads_output=True)
class QR:
    """Packed: Q, R; `complete` asks for a square Q.

    S. F. Walter, L. Lehmann, "Algorithmic differentiation of linear algebra functions", 2010, for
    tall matrices; D. A. O. Roberts, L. R. Roberts, "QR and LQ decomposition matrix backpropagation
    algorithms for square, wide, and deep matrices", 2020, for wide ones.  Columns of Q that do not
    belong to the range of `a` are moved in the range alone, not among each other.
    """

    def forward(a, complete):
        q, r = np.linalg.qr(a, "complete" if complete else "reduced")
        return packed(a.ndim - 2, q, r)

    def vjp(g, y, inputs, needs, complete):
        a = inputs[0]
        m, n = a.shape[-2:]
        shapes = qr_shapes(a, complete)
        (q, r), (q_bar, r_bar) = parts(y, *shapes), parts(g, *shapes)
        if m < n:
            # a = [a1, a2] = q [r1, q^H a2]
            tail, tail_bar = columns(a, m, n), columns(r_bar, m, n)
            q_bar = q_bar + times_adjoint(tail, tail_bar)
            r, r_bar = columns(r, 0, m), columns(r_bar, 0, m)
            head_bar = _qr_vjp(q, r, q_bar, r_bar, None)
            return (rules.concatenate((head_bar, matmul(q, tail_bar)), -1),)
        if complete and m > n:
            others, others_bar = columns(q, n, m), columns(q_bar, n, m)
            q, q_bar = columns(q, 0, n), columns(q_bar, 0, n)
            r, r_bar = rows(r, 0, n), rows(r_bar, 0, n)
            turned = matmul(others, adjoint_times(others_bar, q))
            return (_qr_vjp(q, r, q_bar, r_bar, turned),)
        return (_qr_vjp(q, r, q_bar, r_bar, None),)

    def jvp(tangents, y, inputs, complete):
        a, a_dot = inputs[0], tangents[0]
        m, n = a.shape[-2:]
        q, r = parts(y, *qr_shapes(a, complete))
        lead = a.ndim - 2
        if m < n:
            q_dot, r_dot = _qr_jvp(q, columns(r, 0, m), columns(a_dot, 0, m))[:2]
            tail_dot = adjoint_times(q_dot, columns(a, m, n))
            tail_dot = tail_dot + adjoint_times(q, columns(a_dot, m, n))
            return joined(lead, y.dtype, q_dot, rules.concatenate((r_dot, tail_dot), -1))
        if complete and m > n:
            first, others = columns(q, 0, n), columns(q, n, m)
            q_dot, r_dot, c = _qr_jvp(first, rows(r, 0, n), a_dot)
            others_dot = -times_adjoint(first, adjoint_times(others, c))
            below = zeros((*a.shape[:-2], m - n, n), y.dtype)
            return joined(lead, y.dtype, rules.concatenate((q_dot, others_dot), -1),
                          rules.concatenate((r_dot, below), -2))
        return joined(lead, y.dtype, *_qr_jvp(q, r, a_dot)[:2])


def qr_shapes(a, complete):
    """Return the shapes of Q and R."""
    m, n = a.shape[-2:]
    k = m if complete else min(m, n)
    return (m, k), (k, n)


def _qr_vjp(q, r, q_bar, r_bar, turned):
    """Return the cotangent of ``q r`` with a square r; `turned` is taken off that of q."""
    middle = times_adjoint(r_bar, r) - adjoint_times(q, q_bar)
    x = q_bar + matmul(q, hermitian(middle, False))
    if turned is not None:
        x = x - turned
    return adjoint(solve_triangular(r, 0, adjoint(x), False))


def _qr_jvp(q, r, a_dot):
    """Return the tangents of q and of a square r, and ``a_dot r^-1``."""
    c = adjoint(solve_triangular(r, 2, adjoint(a_dot), False))
    u = fold(adjoint_times(q, c), False)
    return c - matmul(q, u), matmul(u, r), c


def qr(a, complete):
    """Record Q and R."""
    return parts(record(QR, (a,), {"complete": complete}), *qr_shapes(a, complete))


@primitive("reflectors", reads_inputs=True, reads_output=True)
class REFLECTORS:
    """Packed: LAPACK's reflectors of `a`, transposed, and their factors, as a function of q and r.

    G. Ballard, J. Demmel, L. Grigori, M. Jacquelin, H. D. Nguyen, E. Solomonik, "Reconstructing
    Householder vectors from tall-skinny QR", 2014: the reflectors are the unit lower triangular V
    in ``q - 1 = V U``, and minus their factors stand on the diagonal of U.  Of a square q the last
    one has length 1; taking 1 off one number less makes its U regular.
    """

    def forward(a, q, r):
        return packed(a.ndim - 2, *np.linalg.qr(a, "raw"))

    def vjp(g, y, inputs, needs):
        a, q, _ = inputs
        (m, n), k = a.shape[-2:], q.shape[-1]
        h_bar, tau_bar = parts(g, (n, m), (k,))
        h_bar = transposed(h_bar)
        v, v2, u = _reflector_factors(a, q, y)
        v_bar = triangle(columns(h_bar, 0, k), True, -1)
        u_bar = zmul(row(-tau_bar), _core.wrap(np.eye(k, dtype=u.dtype), copy=False))
        if v2 is not None:
            below = _over_triangle(rows(v_bar, k, m), u)
            u_bar = u_bar - adjoint_times(v2, below)
        x = triangle(adjoint_times(v, rows(v_bar, 0, k)), True, -1) + triangle(
            times_adjoint(u_bar, u), False)
        q_bar = _over_triangle(solve_triangular(v, 2, x, True, True), u)
        if v2 is not None:
            q_bar = rules.concatenate((q_bar, below), -2)
        return None, q_bar, triangle(rows(h_bar, 0, k), False)

    def jvp(tangents, y, inputs):
        a, q, _ = inputs
        _, q_dot, r_dot = tangents
        (m, n), k = a.shape[-2:], q.shape[-1]
        v, v2, u = _reflector_factors(a, q, y)
        x = solve_triangular(v, 0, rows(q_dot, 0, k), True, True)
        x = adjoint(solve_triangular(u, 2, adjoint(x), False))
        v_dot = matmul(v, triangle(x, True, -1))
        u_dot = matmul(triangle(x, False), u)
        if v2 is not None:
            below = rows(q_dot, k, m) - matmul(v2, u_dot)
            below = adjoint(solve_triangular(u, 2, adjoint(below), False))
            v_dot = rules.concatenate((v_dot, below), -2)
        if n > k:
            v_dot = rules.concatenate((v_dot, zeros((*a.shape[:-2], m, n - k), a.dtype)), -1)
        if m > k:
            r_dot = rules.concatenate((r_dot, zeros((*a.shape[:-2], m - k, n), a.dtype)), -2)
        return joined(a.ndim - 2, y.dtype, transposed(v_dot + r_dot), -diagonal(u_dot))


def _over_triangle(b, u):
    """Return ``b u^-H``."""
    return adjoint(solve_triangular(u, 0, adjoint(b), False))


def _reflector_factors(a, q, y):
    """Return the upper and the lower part of V, and U."""
    (m, n), k = a.shape[-2:], q.shape[-1]
    v = transposed(parts(y, (n, m))[0])
    one = np.eye(k, dtype=q.dtype)
    if m == k:
        one[-1, -1] = 0.0
    first = solve_triangular(rows(columns(v, 0, k), 0, k), 0,
                             rows(q, 0, k) - _core.wrap(one, copy=False), True, True)
    v2 = rows(columns(v, 0, k), k, m) if m > k else None
    v = triangle(rows(columns(v, 0, k), 0, k), True, -1) + _core.wrap(np.eye(k, dtype=q.dtype))
    return v, v2, triangle(first, False)


def qr_raw(a):
    """Record LAPACK's reflectors, transposed, and their factors."""
    (m, n), k = a.shape[-2:], min(a.shape[-2:])
    y = record(REFLECTORS, (a, *qr(a, False)), {})
    return tuple(parts(y, (n, m), (k,)))


# Eigenvalues of Hermitian matrices.


@primitive("gaps", reads_output=True)
class GAPS:
    """``1 / (w_j - w_i)`` in row i and column j, infinite where values repeat, 0 on the diagonal.

    What is multiplied with it is multiplied by `zmul`, so that an infinite one does no harm where
    nothing depends on the vectors of repeated values.
    """

    def forward(w):
        d = w[..., None, :] - w[..., :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.reciprocal(_with_diagonal(d, 1.0))
        return _with_diagonal(y, 0.0)

    def vjp(g, y, inputs, needs):
        d = -zmul(g, conjugate(y * y))
        return (_core.sum(d, -2) - _core.sum(d, -1),)

    def jvp(tangents, y, inputs):
        return -zmul(row(tangents[0]) - column(tangents[0]), y * y)


def gaps(w):
    """Record the reciprocals of the differences of values."""
    return record(GAPS, (w,), {})


@factorization("eigh", 1, reads_output=True)
class EIGH:
    """Packed: eigenvalues, eigenvectors as columns (Giles 3.1, Boeddeker et al. 4.8).

    The tangent of an eigenvector is orthogonal to it, which fixes the phase of complex ones.
    """

    def forward(a, uplo):
        return packed(a.ndim - 2, *np.linalg.eigh(a, uplo))

    def vjp(g, y, inputs, needs, uplo):
        n = inputs[0].shape[-1]
        (w, v), (w_bar, v_bar) = parts(y, (n,), (n, n)), parts(g, (n,), (n, n))
        turn = zmul(adjoint_times(v, v_bar), gaps(real(w)))
        x = zmul(row(real(w_bar)), v) + matmul(v, turn)
        return (fold(times_adjoint(x, v), uplo == "L"),)

    def jvp(tangents, y, inputs, uplo):
        n = inputs[0].shape[-1]
        w, v = parts(y, (n,), (n, n))
        x = adjoint_times(v, matmul(hermitian(tangents[0], uplo == "L"), v))
        v_dot = matmul(v, zmul(x, gaps(real(w))))
        return joined(v.ndim - 2, y.dtype, real(diagonal(x)), v_dot)


def eigh(a, uplo):
    """Record eigenvalues and eigenvectors of Hermitian matrices."""
    y = record(EIGH, (a,), {"uplo": uplo})
    n = a.shape[-1]
    w, v = parts(y, (n,), (n, n))
    return real(w), v


@factorization("eigvalsh", 1, reads_inputs=True)
class EIGVALSH:
    """The eigenvalues alone; the reverse computes the eigenvectors."""

    def forward(a, uplo):
        return np.linalg.eigvalsh(a, uplo)

    def vjp(g, y, inputs, needs, uplo):
        v = eigh(inputs[0], uplo)[1]
        return (fold(times_adjoint(zmul(row(g), v), v), uplo == "L"),)

    def jvp(tangents, y, inputs, uplo):
        v = eigh(inputs[0], uplo)[1]
        x = matmul(hermitian(tangents[0], uplo == "L"), v)
        return real(_core.sum(conjugate(v) * x, -2))


# Singular values.


@factorization("svd", 1, reads_inputs=True, reads_output=True)
class SVD:
    """Packed: U, singular values, V^H; `full` asks for square U and V.

    J. Townsend, "Differentiating the singular value decomposition", 2016; Z.-Q. Wan, S.-X. Zhang,
    "Automatic differentiation for complex valued SVD", 2019.  With ``P = U^H a_dot V``, split into
    its Hermitian half h and the rest k,

        U_dot = U (h E + k D),  V_dot = V (h E - k D),  E = 1 / (s_j - s_i),  D = 1 / (s_i + s_j)

    elementwise, which shares the phase of complex vectors between U and V.  Vectors that belong to
    no singular value are moved in the space of the others alone.
    """

    def forward(a, full):
        return packed(a.ndim - 2, *np.linalg.svd(a, full))

    def vjp(g, y, inputs, needs, full):
        a = inputs[0]
        m, n = a.shape[-2:]
        k = min(m, n)
        u, s, vh = parts(y, *svd_shapes(a, full))
        u_bar, s_bar, v_bar = parts(g, *svd_shapes(a, full))
        s, v, v_bar = real(s), adjoint(vh), adjoint(v_bar)
        (u, u2), (u_bar, u2_bar) = _split(u, k), _split(u_bar, k)
        (v, v2), (v_bar, v2_bar) = _split(v, k), _split(v_bar, k)
        left, right = adjoint_times(u, u_bar), adjoint_times(v, v_bar)
        h = zmul(left + right, gaps(s))
        d = zmul(left - right, 1.0 / (row(s) + column(s)))
        x = (h + adjoint(h) + d - adjoint(d)) * 0.5
        if m >= n:
            x = zmul(row(real(s_bar)), u) + matmul(u, x)
            if m > n:
                x = x + zmul(_outside(u, u2, left, u_bar, u2_bar), row(1.0 / s))
            return (times_adjoint(x, v),)
        x = zmul(row(real(s_bar)), v) + times_adjoint(v, x)
        x = x + zmul(_outside(v, v2, right, v_bar, v2_bar), row(1.0 / s))
        return (times_adjoint(u, x),)

    def jvp(tangents, y, inputs, full):
        a, a_dot = inputs[0], tangents[0]
        m, n = a.shape[-2:]
        k = min(m, n)
        u, s, vh = parts(y, *svd_shapes(a, full))
        s, v = real(s), adjoint(vh)
        (u, u2), (v, v2) = _split(u, k), _split(v, k)
        to_u, to_v = matmul(a_dot, v), adjoint_times(a_dot, u)
        p = adjoint_times(u, to_u)
        ph = adjoint(p)
        h = zmul((p + ph) * 0.5, gaps(s))
        d = zmul((p - ph) * 0.5, 1.0 / (row(s) + column(s)))
        u_dot, v_dot = matmul(u, h + d), matmul(v, h - d)
        if m > n:
            u_dot = _moved(u, u2, u_dot, p, to_u, s)
        elif m < n:
            v_dot = _moved(v, v2, v_dot, ph, to_v, s)
        return joined(a.ndim - 2, y.dtype, u_dot, real(diagonal(p)), adjoint(v_dot))


def svd_shapes(a, full):
    """Return the shapes of U, s and V^H."""
    m, n = a.shape[-2:]
    k = min(m, n)
    return (m, m if full else k), (k,), (n if full else k, n)


def _split(t, k):
    """Return the first k columns and the others, or None where there are none."""
    if t.shape[-1] == k:
        return t, None
    return columns(t, 0, k), columns(t, k, t.shape[-1])


def _outside(u, u2, inside, u_bar, u2_bar):
    """Return the part of a cotangent that pulls u out of the space of its columns."""
    x = u_bar - matmul(u, inside)
    return x if u2 is None else x - matmul(u2, adjoint_times(u2_bar, u))


def _moved(u, u2, u_dot, p, au, s):
    """Complete the tangent of u by the part that leaves its columns' space, and add u2's."""
    c = zmul(au - matmul(u, p), row(1.0 / s))
    u_dot = u_dot + c
    if u2 is None:
        return u_dot
    return rules.concatenate((u_dot, -times_adjoint(u, adjoint_times(u2, c))), -1)


def svd(a, full):
    """Record the singular value decomposition."""
    u, s, vh = parts(record(SVD, (a,), {"full": full}), *svd_shapes(a, full))
    return u, real(s), vh


@factorization("svdvals", 1, reads_inputs=True)
class SVDVALS:
    """The singular values alone; the reverse computes the vectors."""

    def forward(a):
        return np.linalg.svd(a, compute_uv=False)

    def vjp(g, y, inputs, needs):
        u, _, vh = svd(inputs[0], False)
        return (matmul(zmul(row(g), u), vh),)

    def jvp(tangents, y, inputs):
        u, _, vh = svd(inputs[0], False)
        return real(_core.sum(conjugate(u) * times_adjoint(tangents[0], vh), -2))


def svdvals(a):
    """Record singular values."""
    return record(SVDVALS, (a,), {})


# Eigenvalues of any matrix.


@primitive("peak")
class PEAK:
    """One in each column, where LAPACK made an eigenvector real: its largest real component."""

    def forward(v):
        size = np.abs(v) if v.dtype.kind != "c" else np.where(v.imag == 0, np.abs(v.real), -1.0)
        y = np.zeros(v.shape, v.real.dtype)
        np.put_along_axis(y, np.argmax(size, -2)[..., None, :], 1.0, -2)
        return y

    def vjp(g, y, inputs, needs):
        return (None,)

    def jvp(tangents, y, inputs):
        return _no_tangent(y)


@factorization("eig", 1, reads_inputs=True, reads_output=True)
class EIG:
    """Packed, complex: eigenvalues, eigenvectors as columns (Giles 3.1, Boeddeker et al. 4.7).

    As LAPACK's, an eigenvector keeps length 1 and its largest component stays real.
    """

    def forward(a):
        w, v = np.linalg.eig(a)
        return packed(a.ndim - 2, w, v).astype(_complex_of(a.dtype), copy=False)

    def vjp(g, y, inputs, needs):
        n = inputs[0].shape[-1]
        (w, v), (w_bar, v_bar) = parts(y, (n,), (n, n)), parts(g, (n,), (n, n))
        peak = record(PEAK, (v,), {})
        stretch = _core.sum(conjugate(v) * v_bar, -2)
        top = real(_core.sum(peak * v, -2))
        turn = times_i(_core.imag(stretch) / top)
        x = v_bar - zmul(row(real(stretch)), v) - zmul(row(turn), peak)
        x = zmul(adjoint_times(v, x), conjugate(gaps(w)))
        vh = adjoint(v)
        return (solve(vh, matmul(x, vh) + zmul(column(w_bar), vh)),)

    def jvp(tangents, y, inputs):
        n = inputs[0].shape[-1]
        w, v = parts(y, (n,), (n, n))
        x = solve(v, matmul(_complex(tangents[0]), v))
        v_dot = matmul(v, zmul(x, gaps(w)))
        peak = record(PEAK, (v,), {})
        top = real(_core.sum(peak * v, -2))
        stretch = real(_core.sum(conjugate(v) * v_dot, -2))
        turn = times_i(_core.imag(_core.sum(peak * v_dot, -2)) / top)
        v_dot = v_dot - zmul(row(stretch + turn), v)
        return joined(v.ndim - 2, y.dtype, diagonal(x), v_dot)


def _complex_of(dtype):
    return np.result_type(dtype, np.complex64)


def _complex(t):
    return t if is_complex(t) else _core.astype(t, _complex_of(t.dtype))


def eig(a):
    """Record complex eigenvalues and eigenvectors."""
    y = record(EIG, (a,), {})
    n = a.shape[-1]
    return parts(y, (n,), (n, n))


@primitive("match")
class MATCH:
    """The permutation that brings the values `w` into the order of the values `y` close to them."""

    def forward(y, w):
        found = np.zeros((*y.shape, y.shape[-1]), y.real.dtype)
        for place in np.ndindex(*y.shape[:-1]):
            distance = np.abs(y[place][:, None] - w[place][None, :])
            for _ in range(y.shape[-1]):
                i, j = np.unravel_index(np.argmin(distance), distance.shape)
                found[place][i, j] = 1.0
                distance[i, :] = distance[:, j] = np.inf
        return found

    def vjp(g, y, inputs, needs):
        return None, None

    def jvp(tangents, y, inputs):
        return _no_tangent(y)


@factorization("eigvals", 1, reads_inputs=True, reads_output=True)
class EIGVALS:
    """The complex eigenvalues alone; the reverse computes the eigenvectors."""

    def forward(a):
        return np.linalg.eigvals(a).astype(_complex_of(a.dtype), copy=False)

    def vjp(g, y, inputs, needs):
        w, v = eig(inputs[0])
        order = record(MATCH, (y, w), {})
        vh = adjoint(v)
        g = _core.sum(zmul(column(g), order), -2)
        return (solve(vh, zmul(column(g), vh)),)

    def jvp(tangents, y, inputs):
        w, v = eig(inputs[0])
        order = record(MATCH, (y, w), {})
        w_dot = diagonal(solve(v, matmul(_complex(tangents[0]), v)))
        return _core.sum(zmul(row(w_dot), order), -1)


def eigvals(a):
    """Record complex eigenvalues."""
    return record(EIGVALS, (a,), {})


# Least squares.


@primitive("above_cut")
class ABOVE_CUT:
    """1 for the singular values above `cutoff` times the largest, 0 for the others."""

    def forward(s, cutoff):
        return (s > np.expand_dims(cutoff, -1) * s[..., :1]).astype(s.dtype)

    def vjp(g, y, inputs, needs, cutoff):
        return (None,)

    def jvp(tangents, y, inputs, cutoff):
        return _no_tangent(y)


def _through_cut(x, a, cutoff):
    """Return how the part of `a` above the cut changes when `a` changes by `x`; its own adjoint.

    Singular values that are cut off turn the spaces of the others unless they are 0.  With
    ``E = U^H x V`` and a kept s_i and a dropped s_j, the element (j, i) of the change is
    ``s_i (s_i E_ji + s_j conj(E_ij)) / (s_i^2 - s_j^2)``, which follows from the derivatives of U
    and V (Townsend 2016).  A cut by rounding alone leaves `x` as it is.
    """
    limit = 8.0 * max(a.shape[-2:], default=0) * np.finfo(a.dtype).eps
    if cutoff is None or np.all(cutoff <= limit):
        return x
    u, s, vh = svd(a, False)
    s = real(s)
    kept = record(ABOVE_CUT, (s,), {"cutoff": cutoff})
    e = times_adjoint(adjoint_times(u, x), vh)
    i, j = column(kept), row(kept)
    s_i, s_j = column(s), row(s)
    only_i, only_j = i * (1.0 - j), j * (1.0 - i)
    gap = (only_i - only_j) * (s_i * s_i - s_j * s_j) + (1.0 - only_i - only_j)
    same = i * j + (only_i * s_i * s_i + only_j * s_j * s_j) / gap
    other = (only_i + only_j) * s_i * s_j / gap
    y = matmul(matmul(u, zmul(same, e) + zmul(other, adjoint(e))), vh)
    left = matmul(x - matmul(u, adjoint_times(u, x)), adjoint(vh))
    right = adjoint_times(u, x - matmul(times_adjoint(x, vh), vh))
    return y + matmul(zmul(left, j), vh) + matmul(u, zmul(i, right))


@factorization("pinv", 2, reads_inputs=True, reads_output=True)
class PINV:
    """The pseudoinverse, of constant rank.

    G. H. Golub, V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares
    problems whose variables separate", 1973.  Of a `hermitian` matrix one triangle is read.
    """

    def forward(a, cutoff, hermitian):
        return np.linalg.pinv(a, cutoff, hermitian)

    def vjp(g, y, inputs, needs, cutoff, hermitian):
        a = _hermitian_or_same(inputs[0], hermitian)
        yh, gh = adjoint(y), adjoint(g)
        ghy = matmul(gh, y)
        ygh = matmul(y, gh)
        a_bar = matmul(ghy - matmul(a, matmul(y, ghy)), yh)
        a_bar = a_bar + matmul(yh, ygh - matmul(matmul(ygh, y), a))
        a_bar = _through_cut(a_bar - matmul(matmul(yh, g), yh), a, cutoff)
        return (fold(a_bar) if hermitian else a_bar,)

    def jvp(tangents, y, inputs, cutoff, hermitian):
        a = _hermitian_or_same(inputs[0], hermitian)
        d = _through_cut(_hermitian_or_same(tangents[0], hermitian), a, cutoff)
        yh, dh = adjoint(y), adjoint(d)
        left, right = matmul(yh, dh), matmul(dh, yh)
        y_dot = matmul(y, left - matmul(matmul(left, a), y))
        y_dot = y_dot + matmul(right - matmul(y, matmul(a, right)), y)
        return y_dot - matmul(matmul(y, d), y)


def _hermitian_or_same(a, is_hermitian):
    return hermitian(a) if is_hermitian else a


def pinv(a, cutoff, hermitian=False):
    """Record the pseudoinverse; singular values up to `cutoff` times the largest count as 0."""
    return record(PINV, (a,), {"cutoff": cutoff, "hermitian": hermitian})


@primitive("lstsq", reads_inputs=True, reads_output=True)
class LSTSQ:
    """Packed, flat: solution, sums of squares (0 where NumPy has none), singular values, rank.

    Golub and Pereyra 1973, as for `PINV`; the rank is constant.
    """

    def forward(a, b, rcond, cutoff):
        x, squares, rank, s = np.linalg.lstsq(a, b, rcond)
        if not squares.size:
            squares = np.zeros(b.shape[1:])
        return packed(0, x, squares, s, np.asarray(rank)).astype(x.dtype, copy=False)

    def vjp(g, y, inputs, needs, rcond, cutoff):
        a, b = inputs
        x, _, _, _ = parts(y, *lstsq_shapes(a, b))
        x_bar, squares_bar, s_bar, _ = parts(g, *lstsq_shapes(a, b))
        inverse = pinv(a, cutoff)
        adjoint_inverse = adjoint(inverse)
        rest = b - matmul(a, x)
        b_bar = matmul(adjoint_inverse, x_bar)
        pull = zmul(row(real(squares_bar) * 2.0), rest)
        a_bar = None
        if needs[0]:
            back = matmul(inverse, b_bar)
            across = times_adjoint(matmul(adjoint_inverse, x), x_bar)
            a_bar = times_adjoint(rest, back) - times_adjoint(b_bar + pull, x)
            a_bar = a_bar + across - matmul(matmul(across, inverse), a)
            a_bar = _through_cut(a_bar, a, cutoff)
            u, _, vh = svd(a, False)
            a_bar = a_bar + matmul(zmul(row(real(s_bar)), u), vh)
        return a_bar, b_bar + pull

    def jvp(tangents, y, inputs, rcond, cutoff):
        a, b = inputs
        a_dot, b_dot = tangents
        x, squares, s, rank = parts(y, *lstsq_shapes(a, b))
        inverse = pinv(a, cutoff)
        rest = b - matmul(a, x)
        change = b_dot
        s_dot = _no_tangent(s)
        if a_dot is not None:
            change = -matmul(a_dot, x)
            if b_dot is not None:
                change = change + b_dot
            u, _, vh = svd(a, False)
            s_dot = real(_core.sum(conjugate(u) * times_adjoint(a_dot, vh), -2))
            a_dot = _through_cut(a_dot, a, cutoff)
        x_dot = matmul(inverse, change)
        if a_dot is not None:
            ah_dot, adjoint_inverse = adjoint(a_dot), adjoint(inverse)
            bent = matmul(ah_dot, matmul(adjoint_inverse, x))
            x_dot = x_dot + bent - matmul(inverse, matmul(a, bent))
            x_dot = x_dot + matmul(inverse, matmul(adjoint_inverse, matmul(ah_dot, rest)))
        squares_dot = real(_core.sum(zmul(conjugate(rest), change), 0)) * 2.0
        return joined(0, y.dtype, x_dot, squares_dot, s_dot, _no_tangent(rank))


def lstsq_shapes(a, b):
    """Return the shapes of solution, sums of squares, singular values and rank."""
    (m, n), k = a.shape, b.shape[1]
    return (n, k), (k,), (min(m, n),), ()


# Products.


@primitive("linalg.cross", reads_inputs=True)
class CROSS:
    """The product of vectors with three components, which lie along `axis`."""

    def forward(a, b, axis):
        return np.linalg.cross(a, b, axis=axis)

    def vjp(g, y, inputs, needs, axis):
        a, b = map(conjugate, inputs)
        return (
            _core.sum_to(cross(b, g, axis), a.shape) if needs[0] else None,
            _core.sum_to(cross(g, a, axis), b.shape) if needs[1] else None,
        )

    def jvp(tangents, y, inputs, axis):
        (a_dot, b_dot), (a, b) = tangents, inputs
        left = None if a_dot is None else cross(a_dot, b, axis)
        if b_dot is None:
            return left
        right = cross(a, b_dot, axis)
        return right if left is None else left + right


def cross(a, b, axis):
    """Record the product of vectors with three components along an axis from the end."""
    return record(CROSS, (a, b), {"axis": axis})


@primitive("linalg.vecdot", reads_inputs=True)
class VECDOT:
    """``sum(conj(a) * b)`` over the last axis."""

    def forward(a, b):
        return np.vecdot(a, b)

    def vjp(g, y, inputs, needs):
        a, b = inputs
        g = column(g)
        return (
            _core.sum_to(zmul(conjugate(g), b), a.shape) if needs[0] else None,
            _core.sum_to(zmul(g, a), b.shape) if needs[1] else None,
        )

    def jvp(tangents, y, inputs):
        (a_dot, b_dot), (a, b) = tangents, inputs
        left = None if a_dot is None else _core.sum(zmul(conjugate(a_dot), b), -1)
        if b_dot is None:
            return left
        right = _core.sum(zmul(b_dot, conjugate(a)), -1)
        return right if left is None else left + right


def vecdot(a, b):
    """Record sums of products of the conjugate of `a` with `b`."""
    return record(VECDOT, (a, b), {})
