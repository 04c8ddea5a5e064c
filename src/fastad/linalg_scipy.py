"""Functions of ``scipy.linalg`` over tensors, which need SciPy; they are `fastad.linalg`'s too.

Values are SciPy's; batches are loops over it.  SciPy is imported when a function is called for the
first time.
"""

from __future__ import annotations

import numpy as np

from . import _core, linalg_rules, numpy_api, rules
from ._core import Tensor
from .linalg_rules import (
    adjoint,
    adjoint_times,
    column,
    columns,
    matmul,
    over_batch,
    parts,
    rows,
    scipy_linalg,
    times_adjoint,
    transposed,
    triangle,
    zeros,
)

__all__ = [
    "cho_factor", "cho_solve", "expm", "lu_factor", "lu_solve", "logm", "solve_triangular", "sqrtm",
]


def _operands(name, *xs):
    """Return tensors of one floating dtype; SciPy has to be there."""
    scipy_linalg(name)
    tensors = [numpy_api._tensor(x) for x in xs]
    return numpy_api._same_dtype([numpy_api._floating(t) for t in tensors])


def _square(name, t):
    if t.ndim < 2 or t.shape[-1] != t.shape[-2]:
        raise ValueError(f"{name}: expected square matrices, got shape {t.shape}")


# Functions of matrices.


def _exponential(a):
    return over_batch(scipy_linalg("expm").expm, (a,), (2,))


def _logarithm(a):
    return over_batch(scipy_linalg("logm").logm, (a,), (2,))


def _root(a):
    return over_batch(scipy_linalg("sqrtm").sqrtm, (a,), (2,))


def _slope_of_exponential(a, e):
    """A. H. Al-Mohy, N. J. Higham, "Computing the Frechet derivative of the matrix exponential",
    2009."""
    frechet = scipy_linalg("expm").expm_frechet
    return over_batch(lambda a, e: frechet(a, e, compute_expm=False, check_finite=False),
                      (a, e), (2, 2))


def _slope_of_logarithm(a, e):
    """The upper right block of the logarithm of ``[[a, e], [0, a]]``."""
    n = a.shape[-1]
    return _logarithm(np.block([[a, e], [np.zeros_like(a), a]]))[..., :n, n:]


def _slope_of_root(a, e):
    """The solution x of ``r x + x r = e``, where r is the root of a."""
    solve = scipy_linalg("sqrtm").solve_sylvester

    def slope(a, e):
        r = _root(a)
        return solve(r, r, e)

    return over_batch(slope, (a, e), (2, 2))


_FUNCTIONS = {
    "expm": (_exponential, _slope_of_exponential),
    "logm": (_logarithm, _slope_of_logarithm),
    "sqrtm": (_root, _slope_of_root),
}


class _ComplexResult(ValueError):
    """A function of real matrices has a complex result where a real one was wanted."""


def _in_dtype(y, dtype, name):
    if np.iscomplexobj(y) and np.dtype(dtype).kind != "c":
        raise _ComplexResult(f"{name}: the result of real matrices is complex")
    return y.astype(dtype, copy=False)


@rules.primitive("matrix_function", reads_inputs=True)
class MATRIX_FUNCTION:
    """``expm``, ``logm`` or ``sqrtm``, in a dtype; its derivative is `FRECHET`."""

    def forward(a, name, dtype):
        return _in_dtype(_FUNCTIONS[name][0](a), dtype, name)

    def vjp(g, y, inputs, needs, name, dtype):
        return (adjoint(_frechet(_as(inputs[0], dtype), adjoint(g), name)),)

    def jvp(tangents, y, inputs, name, dtype):
        return _frechet(_as(inputs[0], dtype), _as(tangents[0], dtype), name)


def _as(t, dtype):
    return t if t.dtype == dtype else _core.astype(t, dtype)


@rules.primitive("frechet", reads_inputs=True)
class FRECHET:
    """The Frechet derivative of a function at `a` in the direction `e`.

    N. J. Higham, "Functions of matrices", 2008, chapter 3: ``trace(x f'(e)) = trace(f'(x) e)``, so
    the adjoint is the derivative once more; and the derivative of the derivative is that of block
    matrices of twice the size, in their upper right block.
    """

    def forward(a, e, name):
        return _in_dtype(_FUNCTIONS[name][1](a, e), a.dtype, name)

    def vjp(g, y, inputs, needs, name):
        a, e = inputs
        gh = adjoint(g)
        return (
            adjoint(_second(a, e, gh, name)) if needs[0] else None,
            adjoint(_frechet(a, gh, name)) if needs[1] else None,
        )

    def jvp(tangents, y, inputs, name):
        (a_dot, e_dot), (a, e) = tangents, inputs
        y_dot = None if a_dot is None else _second(a, e, a_dot, name)
        if e_dot is None:
            return y_dot
        part = _frechet(a, e_dot, name)
        return part if y_dot is None else y_dot + part


def _frechet(a, e, name):
    return rules.record(FRECHET, (a, e), {"name": name})


def _second(a, e, f, name):
    """Return the derivative of a function at `a` in two directions."""
    n = a.shape[-1]
    zero = zeros(a.shape, a.dtype)

    def block(p, q):
        return rules.concatenate(
            (rules.concatenate((p, q), -1), rules.concatenate((zero, p), -1)), -2)

    return columns(rows(_frechet(block(a, e), block(f, zero), name), 0, n), n, 2 * n)


@rules.primitive("is_complex")
class IS_COMPLEX:
    """1.0 where a function of real matrices is complex, else 0.0."""

    def forward(a, name):
        return np.asarray(float(np.iscomplexobj(_FUNCTIONS[name][0](a))))

    def vjp(g, y, inputs, needs, name):
        return (None,)

    def jvp(tangents, y, inputs, name):
        return zeros((), float)


def _matrix_function(name, a):
    (t,) = _operands(name, a)
    _square(name, t)
    if not t.size:
        return numpy_api.copy(t)
    wide = np.result_type(t.dtype, np.complex64)
    if _core.is_tracing() and t.dtype != wide and name != "expm":
        # a guard: a program notices when the result turns complex
        turned = rules.record(IS_COMPLEX, (t,), {"name": name}) > 0.5
        dtype = wide if turned else t.dtype
        return rules.record(MATRIX_FUNCTION, (t,), {"name": name, "dtype": dtype})
    try:
        return rules.record(MATRIX_FUNCTION, (t,), {"name": name, "dtype": t.dtype})
    except _ComplexResult:
        return rules.record(MATRIX_FUNCTION, (t,), {"name": name, "dtype": wide})


def expm(A) -> Tensor:
    """Return the exponential of square matrices.

    Derivatives after Al-Mohy and Higham 2009, of higher order by block matrices (Higham 2008).

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the matrices are not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.expm([[0.0, 1.0], [0.0, 0.0]]).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return _matrix_function("expm", A)


def logm(A) -> Tensor:
    """Return the principal logarithm of square matrices, complex where that of real ones is.

    Derivatives by block matrices (Higham, "Functions of matrices", 2008, theorem 3.6).

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the matrices are not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.logm([[1.0, 1.0], [0.0, 1.0]]).round(9).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    return _matrix_function("logm", A)


def sqrtm(A) -> Tensor:
    """Return the principal square root of square matrices, complex where that of real ones is.

    Derivatives by a Sylvester equation (Higham, "Functions of matrices", 2008, section 6.1).

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the matrices are not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.sqrtm([[4.0, 0.0], [0.0, 9.0]]).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    return _matrix_function("sqrtm", A)


# Systems of equations.


def solve_triangular(
    a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False, check_finite=True
) -> Tensor:
    """Return the solution of ``op(a) x = b`` for a triangle of `a`, the upper one by default.

    `trans` says what op is: 0 or "N" nothing, 1 or "T" the transpose, 2 or "C" the adjoint.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the shapes do not fit, or `check_finite` finds inf or nan.
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.solve_triangular([[2.0, 0.0], [2.0, 1.0]], [2.0, 4.0], lower=True).tolist()
    [1.0, 2.0]
    """
    a, b = _operands("solve_triangular", a, b)
    _square("solve_triangular", a)
    _finite("solve_triangular", check_finite, a, b)
    return linalg_rules.solve_triangular(
        a, _trans("solve_triangular", trans), b, bool(lower), bool(unit_diagonal), True)


def _trans(name, trans):
    found = {0: 0, 1: 1, 2: 2, "N": 0, "T": 1, "C": 2}.get(trans)
    if found is None:
        raise ValueError(f'{name}: trans is one of 0, 1, 2, "N", "T", "C", got {trans!r}')
    return found


def _finite(name, check, *tensors):
    """Raise what SciPy raises for inf and nan."""
    for t in tensors:
        if check and not bool(_core.array(
                _core.by_numpy(np.all, (_core.by_numpy(np.isfinite, (t,), {}),), {}))):
            raise ValueError(f"{name}: array must not contain infs or NaNs")


@rules.primitive("cho_factor", reads_output=True)
class CHO_FACTOR:
    """The Cholesky factor, a triangle; see `fastad.linalg_rules.CHOLESKY`."""

    def forward(a, lower):
        factor = scipy_linalg("cho_factor").cho_factor
        y = over_batch(lambda a: factor(a, lower, check_finite=False)[0], (a,), (2,))
        return np.tril(y) if lower else np.triu(y)

    def vjp(g, y, inputs, needs, lower):
        return linalg_rules.CHOLESKY.vjp(g, y, inputs, needs, upper=not lower)

    def jvp(tangents, y, inputs, lower):
        return linalg_rules.CHOLESKY.jvp(tangents, y, inputs, upper=not lower)


def cho_factor(a, lower=False, overwrite_a=False, check_finite=True) -> tuple:
    """Return the Cholesky factor of matrices for `cho_solve`, and `lower`.

    The factor stands in the triangle that `lower` names, in which `a` is read; the other triangle,
    in which SciPy leaves anything, is 0.  Derivatives after Murray 2016.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    numpy.linalg.LinAlgError
        If a matrix is not positive definite.
    ValueError
        If the matrices are not square, or `check_finite` finds inf or nan.

    Examples
    --------
    >>> import fastad as ad
    >>> factor = ad.linalg.cho_factor([[4.0, 0.0], [0.0, 9.0]])
    >>> ad.linalg.cho_solve(factor, [4.0, 9.0]).tolist()
    [1.0, 1.0]
    """
    (t,) = _operands("cho_factor", a)
    _square("cho_factor", t)
    _finite("cho_factor", check_finite, t)
    lower = bool(lower)
    return rules.record(CHO_FACTOR, (t,), {"lower": lower}), lower


@rules.primitive("cho_solve", reads_inputs=True, reads_output=True)
class CHO_SOLVE:
    """``L L^H x = b`` or ``U^H U x = b`` for a triangle of `c`."""

    def forward(c, b, lower):
        solver = scipy_linalg("cho_solve").cho_solve
        return over_batch(lambda c, b: solver((c, lower), b, check_finite=False), (c, b),
                          (2, b.ndim if b.ndim == 1 else 2))

    def vjp(g, y, inputs, needs, lower):
        c, b = inputs
        if b.ndim == 1:
            g, y = column(g), column(y)
        z = _cho_solve(c, g, lower)
        c_bar = b_bar = None
        if needs[0]:
            factor = triangle(c, lower)
            outer = times_adjoint(z, y)
            outer = outer + adjoint(outer)
            c_bar = -(matmul(outer, factor) if lower else matmul(factor, outer))
            c_bar = _core.sum_to(triangle(c_bar, lower), c.shape)
        if needs[1]:
            z = _core.reshape(z, z.shape[:-1]) if b.ndim == 1 else z
            b_bar = _core.sum_to(z, b.shape)
        return c_bar, b_bar

    def jvp(tangents, y, inputs, lower):
        (c_dot, right), (c, b) = tangents, inputs
        if b.ndim == 1:
            y = column(y)
            right = None if right is None else column(right)
        if c_dot is not None:
            c_dot, factor = triangle(c_dot, lower), triangle(c, lower)
            half = times_adjoint(c_dot, factor) if lower else adjoint_times(c_dot, factor)
            change = -matmul(half + adjoint(half), y)
            right = change if right is None else right + change
        y_dot = _core.broadcast_to(_cho_solve(c, right, lower), y.shape)
        return _core.reshape(y_dot, y_dot.shape[:-1]) if b.ndim == 1 else y_dot


def _cho_solve(c, b, lower):
    return rules.record(CHO_SOLVE, (c, b), {"lower": lower})


def cho_solve(c_and_lower, b, overwrite_b=False, check_finite=True) -> Tensor:
    """Return the solution x of ``a x = b`` by what `cho_factor` found for `a`.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the shapes do not fit, or `check_finite` finds inf or nan.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.cho_solve((ad.tensor([[2.0, 0.0], [0.0, 3.0]]), True), [4.0, 9.0]).tolist()
    [1.0, 1.0]
    """
    c, lower = c_and_lower
    c, b = _operands("cho_solve", c, b)
    _square("cho_solve", c)
    _finite("cho_solve", check_finite, c, b)
    return _cho_solve(c, b, bool(lower))


@rules.primitive("permutation")
class PERMUTATION:
    """The permutation matrix p of LAPACK's exchanges of rows, ``a = p L U``."""

    def forward(pivots, n, dtype):
        def matrix(pivots):
            order = np.arange(n)
            for k, other in enumerate(pivots.astype(int).tolist()):
                order[[k, other]] = order[[other, k]]
            p = np.zeros((n, n), dtype)
            p[order, np.arange(n)] = 1.0
            return p

        return over_batch(matrix, (pivots,), (1,))

    def vjp(g, y, inputs, needs, n, dtype):
        return (None,)

    def jvp(tangents, y, inputs, n, dtype):
        return zeros(y.shape, y.dtype)


def _permutation(pivots, lu):
    return rules.record(PERMUTATION, (pivots,), {"n": lu.shape[-1], "dtype": lu.dtype})


def _unit(lu):
    one = _core.wrap(np.eye(lu.shape[-1], dtype=lu.dtype), copy=False)
    return triangle(lu, True, -1) + one


@rules.primitive("lu_factor", reads_output=True)
class LU_FACTOR:
    """Packed: L without its diagonal of ones and U in one matrix, the exchanges of rows.

    S. F. Walter, L. Lehmann, "Algorithmic differentiation of linear algebra functions", 2010; the
    exchanges are constant.
    """

    def forward(a):
        factor = scipy_linalg("lu_factor").lu_factor

        def packed(a):
            lu, pivots = factor(a, check_finite=False)
            return linalg_rules.packed(0, lu, pivots).astype(a.dtype, copy=False)

        return over_batch(packed, (a,), (2,))

    def vjp(g, y, inputs, needs):
        n = inputs[0].shape[-1]
        lu, pivots = parts(y, (n, n), (n,))
        g = parts(g, (n, n))[0]
        lh, uh = adjoint(_unit(lu)), adjoint(triangle(lu, False))
        x = triangle(matmul(lh, triangle(g, True, -1)), True, -1)
        x = x + triangle(matmul(triangle(g, False), uh), False)
        x = linalg_rules.solve_triangular(lu, 2, x, True, True)
        x = adjoint(linalg_rules.solve_triangular(lu, 0, adjoint(x), False))
        return (matmul(_permutation(_core.real(pivots), lu), x),)

    def jvp(tangents, y, inputs):
        a_dot = tangents[0]
        n = a_dot.shape[-1]
        lu, pivots = parts(y, (n, n), (n,))
        x = matmul(transposed(_permutation(_core.real(pivots), lu)), a_dot)
        x = linalg_rules.solve_triangular(lu, 0, x, True, True)
        x = adjoint(linalg_rules.solve_triangular(lu, 2, adjoint(x), False))
        lower, upper = _unit(lu), triangle(lu, False)
        lu_dot = matmul(lower, triangle(x, True, -1)) + matmul(triangle(x, False), upper)
        return linalg_rules.joined(a_dot.ndim - 2, y.dtype, lu_dot, zeros(pivots.shape, y.dtype))


def lu_factor(a, overwrite_a=False, check_finite=True) -> tuple:
    """Return L and U of square matrices in one, and the exchanges of rows, for `lu_solve`.

    Derivatives after Walter and Lehmann 2010.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the matrices are not square, or `check_finite` finds inf or nan.

    Examples
    --------
    >>> import fastad as ad
    >>> lu, exchanges = ad.linalg.lu_factor([[1.0, 2.0], [4.0, 4.0]])
    >>> lu.tolist(), exchanges.tolist()
    ([[4.0, 4.0], [0.25, 1.0]], [1, 1])
    """
    (t,) = _operands("lu_factor", a)
    _square("lu_factor", t)
    _finite("lu_factor", check_finite, t)
    n = t.shape[-1]
    lu, pivots = parts(rules.record(LU_FACTOR, (t,), {}), (n, n), (n,))
    return lu, _core.by_numpy(_core.as_dtype, (_core.real(pivots), np.dtype(np.int32)), {})


@rules.primitive("lu_solve", reads_inputs=True, reads_output=True)
class LU_SOLVE:
    """``op(a) x = b`` by the factors of `a`; `trans` as for ``solve_triangular``."""

    def forward(lu, pivots, b, trans):
        solver = scipy_linalg("lu_solve").lu_solve

        def solve(lu, pivots, b):
            return solver((lu, pivots.astype(np.int32)), b, trans, check_finite=False)

        return over_batch(solve, (lu, pivots, b), (2, 1, b.ndim if b.ndim == 1 else 2))

    def vjp(g, y, inputs, needs, trans):
        lu, pivots, b = inputs
        if b.ndim == 1:
            g, y = column(g), column(y)
        other, kind = (_core.conjugate(lu), 0) if trans == 1 else (lu, 0 if trans else 2)
        z = _lu_solve(other, pivots, g, kind)
        lu_bar = b_bar = None
        if needs[0]:
            # the cotangent of a = p L U
            a_bar = times_adjoint(z, y) if trans == 0 else matmul(
                _core.conjugate(y), transposed(z)) if trans == 1 else times_adjoint(y, z)
            x = -matmul(transposed(_permutation(pivots, lu)), a_bar)
            lu_bar = triangle(times_adjoint(x, triangle(lu, False)), True, -1)
            lu_bar = lu_bar + triangle(adjoint_times(_unit(lu), x), False)
            lu_bar = _core.sum_to(lu_bar, lu.shape)
        if needs[2]:
            z = _core.reshape(z, z.shape[:-1]) if b.ndim == 1 else z
            b_bar = _core.sum_to(z, b.shape)
        return lu_bar, None, b_bar

    def jvp(tangents, y, inputs, trans):
        (lu_dot, _, right), (lu, pivots, b) = tangents, inputs
        if b.ndim == 1:
            y = column(y)
            right = None if right is None else column(right)
        if lu_dot is not None:
            lower_dot, upper_dot = triangle(lu_dot, True, -1), triangle(lu_dot, False)
            change = matmul(lower_dot, triangle(lu, False)) + matmul(_unit(lu), upper_dot)
            change = matmul(_permutation(pivots, lu), change)
            if trans:
                change = transposed(change) if trans == 1 else adjoint(change)
            change = -matmul(change, y)
            right = change if right is None else right + change
        y_dot = _core.broadcast_to(_lu_solve(lu, pivots, right, trans), y.shape)
        return _core.reshape(y_dot, y_dot.shape[:-1]) if b.ndim == 1 else y_dot


def _lu_solve(lu, pivots, b, trans):
    return rules.record(LU_SOLVE, (lu, pivots, b), {"trans": trans})


def lu_solve(lu_and_piv, b, trans=0, overwrite_b=False, check_finite=True) -> Tensor:
    """Return the solution x of ``op(a) x = b`` by what `lu_factor` found for `a`.

    `trans` says what op is: 0 nothing, 1 the transpose, 2 the adjoint.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If the shapes do not fit, or `check_finite` finds inf or nan.

    Examples
    --------
    >>> import fastad as ad
    >>> factors = ad.linalg.lu_factor([[1.0, 2.0], [4.0, 4.0]])
    >>> ad.linalg.lu_solve(factors, [3.0, 8.0]).tolist()
    [1.0, 1.0]
    """
    lu, pivots = lu_and_piv
    lu, b = _operands("lu_solve", lu, b)
    _square("lu_solve", lu)
    _finite("lu_solve", check_finite, lu, b)
    return _lu_solve(lu, numpy_api._tensor(pivots), b, _trans("lu_solve", trans))
