"""``numpy.linalg`` over tensors, by NumPy's names and signatures, and a part of ``scipy.linalg``.

Values are NumPy's, bit for bit; all functions take batches where NumPy's do, real and complex.

What was factorized is used again by the derivative: the inverse by that of `inv`, the factors by
those of `cholesky`, `qr`, `svd`, `eigh`, `eig` and `pinv`.  `solve` and `det` keep no
factorization: their reverse solves with the adjoint matrix, or inverts.  `eigvalsh`, `eigvals` and
`svdvals` compute no vectors; their reverse does.

A matrix of which LAPACK reads one triangle (`cholesky`, `eigh`, `eigvalsh`) has its gradient in
that triangle; the other is 0.  Where the result is symmetric in the two, as in ``a + a.T``, this is
the same.  Vectors are differentiable where their values are apart; a function that reads vectors of
*repeated* eigenvalues or singular values has a gradient of inf or nan, and one that does not read
them, such as a function of the values alone, a finite one.
"""

from __future__ import annotations

import functools
import operator
from math import prod as _product
from typing import NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from . import _core, linalg_rules, numpy_api, rules
from ._core import Tensor
from .linalg_rules import column
from .linalg_scipy import (
    cho_factor,
    cho_solve,
    expm,
    logm,
    lu_factor,
    lu_solve,
    solve_triangular,
    sqrtm,
)

__all__ = [
    "EigResult", "EighResult", "LinAlgError", "QRResult", "SVDResult", "SlogdetResult",
    "cho_factor", "cho_solve", "cholesky", "cond", "cross", "det", "diagonal", "eig", "eigh",
    "eigvals", "eigvalsh", "expm", "inv", "logm", "lstsq", "lu_factor", "lu_solve", "matmul",
    "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer",
    "pinv", "qr", "slogdet", "solve", "solve_triangular", "sqrtm", "svd", "svdvals", "tensordot",
    "tensorinv", "tensorsolve", "trace", "vecdot", "vector_norm",
]

_NOT_GIVEN = np._NoValue
_tensor = numpy_api._tensor
matrix_transpose = numpy_api.matrix_transpose
LinAlgError = np.linalg.LinAlgError


class EigResult(NamedTuple):
    """Eigenvalues, and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """A matrix with orthonormal columns and an upper triangular one."""

    Q: Tensor
    R: Tensor


class SVDResult(NamedTuple):
    """Left singular vectors as columns, singular values, right singular vectors as rows."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the modulus of determinants."""

    sign: Tensor
    logabsdet: Tensor


def _inexact(x):
    """Return `x` as a tensor; integers and bools become float64."""
    t = x if type(x) is Tensor else _tensor(x)
    return t if t.dtype.kind in "fc" else _core.astype(t, np.float64)


def _alike(*xs):
    """Return tensors of one dtype, a floating one."""
    return numpy_api._same_dtype([_inexact(x) for x in xs])


def _recorded(t):
    """Whether a factorization of `t` has to keep all its factors."""
    return _core.is_tracing() or (t.requires_grad and _core.is_grad_enabled())


def _by_values(kind, name, function, *args):
    """Return NumPy's results for values as tensors; what it raises names the function."""
    try:
        found = function(*[_core.array(x) if type(x) is Tensor else x for x in args])
    except (TypeError, ValueError) as error:
        raise rules.named(name, error) from None
    return kind(*[_core.wrap(y, copy=False) for y in found])


def _square(name, t):
    """Raise what NumPy raises for `t` unless it holds square matrices."""
    if t.ndim < 2:
        raise np.linalg.LinAlgError(
            f"{name}: {t.ndim}-dimensional array given. Array must be at least two-dimensional")
    if t.shape[-1] != t.shape[-2]:
        raise np.linalg.LinAlgError(
            f"{name}: Last 2 dimensions of the array must be square, got shape {t.shape}")


def _matrices(name, t):
    if t.ndim < 2:
        raise np.linalg.LinAlgError(
            f"{name}: {t.ndim}-dimensional array given. Array must be at least two-dimensional")


# Systems of equations.


def solve(a, b) -> Tensor:
    """Return the solution x of ``a x = b``; `b` is a vector, or matrices of shape (..., M, K).

    Derivatives after Giles 2008, section 2.3.1.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is singular, or not square.

    Examples
    --------
    >>> import fastad as ad
    >>> b = ad.tensor([2.0, 8.0], requires_grad=True)
    >>> x = ad.linalg.solve([[1.0, 0.0], [0.0, 4.0]], b)
    >>> ad.sum(x).backward()
    >>> x.tolist(), b.grad.tolist()
    ([2.0, 2.0], [1.0, 0.25])
    """
    return linalg_rules.solve(*_alike(a, b))


def tensorsolve(a, b, axes=None) -> Tensor:
    """Return the x of ``tensordot(a, x, x.ndim) = b``; `axes` of `a` are moved to its end first.

    Raises
    ------
    numpy.linalg.LinAlgError
        If `a` is singular, or is not square in the sense ``prod(a.shape[b.ndim:]) == b.size``.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.tensorsolve(2.0 * ad.eye(4).reshape(2, 2, 4), ad.ones((2, 2))).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    a, b = _alike(a, b)
    if axes is not None:
        order = list(range(a.ndim))
        for k in axes:
            order.remove(k)
            order.insert(a.ndim, k)
        a = _core.transpose(a, tuple(order))
    shape = a.shape[-(a.ndim - b.ndim) :]
    size = _product(shape)
    if _product(a.shape) != size**2:
        raise np.linalg.LinAlgError(
            "tensorsolve: Input arrays must satisfy the requirement "
            f"prod(a.shape[b.ndim:]) == prod(a.shape[:b.ndim]); got shapes {a.shape} and {b.shape}")
    x = linalg_rules.solve(_core.reshape(a, (size, size)), _core.reshape(b, (-1,)))
    return _core.reshape(x, shape)


def inv(a) -> Tensor:
    """Return the inverse of matrices.

    Derivatives after Giles 2008, section 2.2.3.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is singular, or not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.inv([[2.0, 0.0], [0.0, 4.0]]).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    return linalg_rules.inv(_inexact(a))


def tensorinv(a, ind=2) -> Tensor:
    """Return the inverse of `a` as a map of its last axes to the first `ind`.

    Raises
    ------
    ValueError
        If `ind` is not positive.
    numpy.linalg.LinAlgError
        If `a` is singular, or not square in this sense.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.tensorinv(ad.eye(6).reshape(2, 3, 6), ind=2).shape
    (6, 2, 3)
    """
    t = _inexact(a)
    if ind <= 0:
        raise ValueError(f"tensorinv: Invalid ind argument, wanted a positive number, got {ind}")
    shape = t.shape[ind:] + t.shape[:ind]
    size = _product(t.shape[ind:])
    return _core.reshape(linalg_rules.inv(_core.reshape(t, (size, -1))), shape)


def pinv(a, rcond=None, hermitian=False, *, rtol=_NOT_GIVEN) -> Tensor:
    """Return the pseudoinverse; singular values up to `rcond` times the largest count as 0.

    Derivatives after Golub and Pereyra 1973: they hold while the rank, the number of singular
    values above the cut, stays the same.  With `hermitian` the lower triangle of `a` alone is read.

    Raises
    ------
    ValueError
        If both `rcond` and `rtol`, which mean the same, are given.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.pinv([[2.0, 0.0], [0.0, 0.0]]).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    t = _inexact(a)
    if rtol is not _NOT_GIVEN:
        if rcond is not None:
            raise ValueError("pinv: `rtol` and `rcond` can't be both set.")
        rcond = max(t.shape[-2:]) * np.finfo(t.dtype).eps if rtol is None else rtol
    if rcond is not None:
        rcond = np.array(numpy_api._values(rcond))
    return linalg_rules.pinv(t, rcond, bool(hermitian))


def _least_squares(x, squares, rank, s):
    return x, squares, int(rank.item()), s


def lstsq(a, b, rcond=None) -> tuple:
    """Return the least squares solution of ``a x = b``, residuals, rank and singular values of `a`.

    The shapes are (M, N) for `a`, (M,) or (M, K) for `b`.  The residuals, sums of squares, are
    empty unless ``M > N`` and the rank is N, as in NumPy.  Derivatives after Golub and Pereyra
    1973: they hold while the rank stays the same.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the shapes do not fit.

    Examples
    --------
    >>> import fastad as ad
    >>> x, squares, rank, s = ad.linalg.lstsq([[1.0], [1.0]], [1.0, 3.0])
    >>> round(x.item(), 9), round(squares.item(), 9), rank
    (2.0, 2.0, 1)
    """
    a, b = _alike(a, b)
    vector = b.ndim == 1
    if a.ndim != 2 or b.ndim not in (1, 2) or not (_recorded(a) or _recorded(b)):
        return _by_values(_least_squares, "lstsq", np.linalg.lstsq, a, b, rcond)
    if vector:
        b = column(b)
    rcond = None if rcond is None else float(rcond)
    cutoff = rcond
    if rcond is None:
        cutoff = np.finfo(np.float64).eps * max(a.shape)
    elif rcond < 0:
        cutoff = np.finfo(np.float64).eps / 2
    shapes = linalg_rules.lstsq_shapes(a, b)
    y = rules.record(linalg_rules.LSTSQ, (a, b), {"rcond": rcond, "cutoff": float(cutoff)})
    x, squares, s, rank = linalg_rules.parts(y, *shapes)
    rank = int(_core.real(rank)) if _core.is_tracing() else int(_core.array(y)[-1].real)
    squares = _core.real(squares)
    m, n = a.shape
    if rank != n or m <= n:
        squares = rules.take_index(squares, (slice(0, 0),), True)
    if vector:
        x = _core.reshape(x, (n,))
    return x, squares, rank, _core.real(s)


# Determinants.


def det(a) -> Tensor:
    """Return the determinants of matrices.

    Derivatives after Giles 2008, section 2.2.4, and where the determinant is 0 those of the
    polynomial, by Bird's division-free algorithm of 2011: they are finite to any order.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrices are not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.grad(ad.linalg.det)(ad.tensor([[1.0, 0.0], [0.0, 0.0]])).round(9).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    return rules.record(linalg_rules.DET, (_inexact(a),), {})


def slogdet(a) -> SlogdetResult:
    """Return sign and logarithm of the modulus of determinants.

    Derivatives after Giles 2008, section 2.2.4; for a singular matrix they are nan.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrices are not square.

    Examples
    --------
    >>> import fastad as ad
    >>> sign, log = ad.linalg.slogdet([[0.0, 1.0], [1.0, 0.0]])
    >>> sign.item(), log.item()
    (-1.0, 0.0)
    """
    t = _inexact(a)
    if not _recorded(t):
        return _by_values(SlogdetResult, "slogdet", np.linalg.slogdet, t)
    sign, log = linalg_rules.parts(rules.record(linalg_rules.SLOGDET, (t,), {}), (), ())
    return SlogdetResult(sign, _core.real(log))


# Factorizations.


def cholesky(a, /, *, upper=False) -> Tensor:
    """Return the lower triangular L of ``a = L L^H``, or with `upper` the U of ``a = U^H U``.

    One triangle of `a` is read and has the gradient.  Derivatives after Murray 2016.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not positive definite, or not square.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.cholesky([[4.0, 2.0], [2.0, 5.0]]).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    return linalg_rules.cholesky(_inexact(a), bool(upper))


def qr(a, mode="reduced"):
    """Return Q and R of ``a = Q R``: shapes (M, K) and (K, N), where K is the smaller of M and N.

    With mode "complete" Q is square, with "r" R alone is returned, and with "raw" LAPACK's
    reflectors, transposed, with their factors.  Derivatives after Walter and Lehmann 2010, for
    matrices with ``M < N`` after Roberts and Roberts 2020.  The columns of a complete Q that
    do not belong to the range of `a` are moved in the range alone: functions of the space that they
    span have the right gradient, others have none.

    Raises
    ------
    ValueError
        If there is no such mode.
    numpy.linalg.LinAlgError
        If there are no matrices; in the reverse, if the first K columns of `a` are dependent.

    Examples
    --------
    >>> import fastad as ad
    >>> q, r = ad.linalg.qr([[2.0, 1.0], [0.0, 3.0]])
    >>> abs(r).tolist()
    [[2.0, 1.0], [0.0, 3.0]]
    """
    t = _inexact(a)
    if mode not in ("reduced", "complete", "r", "raw"):
        if not isinstance(mode, str) or mode not in ("f", "full", "e", "economic"):
            raise ValueError(f"qr: Unrecognized mode {mode!r}")
        return numpy_api.without_gradient(np.linalg.qr, (t, mode), {})
    if not _recorded(t):
        if mode == "r":
            return _by_values(lambda y: y, "qr", lambda x: (np.linalg.qr(x, mode),), t)
        kind = QRResult if mode != "raw" else lambda h, tau: (h, tau)
        return _by_values(kind, "qr", np.linalg.qr, t, mode)
    if mode == "raw":
        return linalg_rules.qr_raw(t)
    q, r = linalg_rules.qr(t, mode == "complete" and t.shape[-2] > t.shape[-1])
    return r if mode == "r" else QRResult(q, r)


def svd(a, full_matrices=True, compute_uv=True, hermitian=False):
    """Return U, the singular values S in descending order, and V^H of ``a = U diag(S) V^H``.

    Without `compute_uv` the singular values alone are returned.  With `hermitian` the lower
    triangle of `a` alone is read.  Derivatives after Townsend 2016 and Wan and Zhang 2019.

    Singular vectors have a gradient where singular values differ; of matrices that are not square,
    where they are not 0 either.  Complex vectors have a phase that is not determined: what depends
    on it has no gradient.  With `full_matrices`, vectors that belong to no singular value are moved
    in the space of the others alone, as for `qr`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If there are no matrices, or the values do not converge.

    Examples
    --------
    >>> import fastad as ad
    >>> u, s, vh = ad.linalg.svd([[3.0, 0.0], [0.0, 2.0]])
    >>> s.round(9).tolist()
    [3.0, 2.0]
    """
    t = _inexact(a)
    if hermitian:
        return _svd_hermitian(t, compute_uv)
    if not compute_uv:
        return linalg_rules.svdvals(t)
    if not _recorded(t):
        return _by_values(SVDResult, "svd", np.linalg.svd, t, bool(full_matrices))
    return SVDResult(*linalg_rules.svd(t, bool(full_matrices)))


def _svd_hermitian(t, compute_uv):
    """As NumPy does it: singular values are the moduli of eigenvalues."""
    if not compute_uv:
        s = numpy_api.FUNCTIONS[np.sort](abs(eigvalsh(t)), axis=-1)
        return rules.take_index(s, (..., slice(None, None, -1)), True)
    w, u = eigh(t)
    s = abs(w)
    order = numpy_api.argsort(s)[..., ::-1]
    sign = _core.by_numpy(np.copysign, (np.ones((), s.dtype), w), {})
    sign = numpy_api.take_along_axis(sign, order, -1)
    s = numpy_api.take_along_axis(s, order, -1)
    u = numpy_api.take_along_axis(u, order[..., None, :], -1)
    return SVDResult(u, s, linalg_rules.adjoint(u * linalg_rules.row(sign)))


def svdvals(x, /) -> Tensor:
    """Return the singular values of matrices in descending order.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.svdvals([[3.0, 0.0], [0.0, 2.0]]).round(9).tolist()
    [3.0, 2.0]
    """
    return linalg_rules.svdvals(_inexact(x))


# Eigenvalues.


def _triangle_name(name, uplo):
    uplo = uplo.upper()
    if uplo not in ("L", "U"):
        raise ValueError(f"{name}: UPLO argument must be 'L' or 'U', got {uplo!r}")
    return uplo


def eigh(a, UPLO="L") -> EighResult:
    """Return eigenvalues and eigenvectors of Hermitian matrices.

    The triangle that `UPLO` names is read and has the gradient.  Derivatives after Giles 2008,
    section 3.1, and Boeddeker et al. 2017.  An eigenvector has a gradient where its eigenvalue is
    not repeated; the phase of a complex one is not determined, and what depends on it has none.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not square, or the values do not converge.

    Examples
    --------
    >>> import fastad as ad
    >>> w, v = ad.linalg.eigh([[2.0, 0.0], [0.0, 1.0]])
    >>> w.tolist()
    [1.0, 2.0]
    """
    t = _inexact(a)
    uplo = _triangle_name("eigh", UPLO)
    if not _recorded(t):
        return _by_values(EighResult, "eigh", np.linalg.eigh, t, uplo)
    return EighResult(*linalg_rules.eigh(t, uplo))


def eigvalsh(a, UPLO="L") -> Tensor:
    """Return the eigenvalues of Hermitian matrices in ascending order; see `eigh`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not square, or the values do not converge.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.eigvalsh([[2.0, 0.0], [0.0, 1.0]]).tolist()
    [1.0, 2.0]
    """
    uplo = _triangle_name("eigvalsh", UPLO)
    return rules.record(linalg_rules.EIGVALSH, (_inexact(a),), {"uplo": uplo})


@functools.cache
def _eigenvalues_can_be_real():
    """Whether NumPy turns complex results for real matrices into real ones: before 2.5."""
    return np.linalg.eigvals(np.ones((1, 1))).dtype.kind == "f"


def _as_numpy_does(t, w):
    """Whether the complex results for `t` become real ones: where all eigenvalues `w` are real."""
    return t.dtype.kind != "c" and _eigenvalues_can_be_real() and are_real(w)


def are_real(w):
    """Whether no element of a complex tensor has an imaginary part; a recording guards it."""
    if not _core.is_tracing():
        return not _core.array(w).imag.any()
    return not bool(_core.array(_core.by_numpy(np.any, (_core.imag(w),), {})))


def eig(a) -> EigResult:
    """Return eigenvalues and eigenvectors of matrices.

    They are complex, before NumPy 2.5 real where all eigenvalues of real matrices are.
    Derivatives after Giles 2008, section 3.1, and Boeddeker et al. 2017; an eigenvector keeps
    length 1 and its largest component stays real, as LAPACK has it.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not square, holds inf or nan, or the values do not converge; in the reverse,
        if there is no basis of eigenvectors.

    Examples
    --------
    >>> import fastad as ad
    >>> w, v = ad.linalg.eig([[2.0, 0.0], [0.0, 1.0]])
    >>> ad.real(w).tolist()
    [2.0, 1.0]
    """
    t = _inexact(a)
    if not _recorded(t):
        return _by_values(EigResult, "eig", np.linalg.eig, t)
    w, v = linalg_rules.eig(t)
    if _as_numpy_does(t, w):
        w, v = _core.real(w), _core.real(v)
    return EigResult(w, v)


def eigvals(a) -> Tensor:
    """Return the eigenvalues of matrices; see `eig`.

    Raises
    ------
    numpy.linalg.LinAlgError
        As `eig`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.real(ad.linalg.eigvals([[2.0, 0.0], [0.0, 1.0]])).tolist()
    [2.0, 1.0]
    """
    t = _inexact(a)
    w = linalg_rules.eigvals(t)
    return _core.real(w) if _as_numpy_does(t, w) else w


# Norms and the like.


def norm(x, ord=None, axis=None, keepdims=False) -> Tensor:
    """Return the norm of vectors, or of matrices when `axis` or `ord` says so.

    The gradient of a norm that is 0 is 0.  Where several singular values are the largest (order 2)
    or the smallest (order -2), they share the gradient; to a singular value 0 it is 0.

    Raises
    ------
    ValueError
        If the order does not fit the number of axes.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor([3.0, 4.0], requires_grad=True)
    >>> y = ad.linalg.norm(x)
    >>> y.backward()
    >>> y.item(), x.grad.tolist()
    (5.0, [0.6, 0.8])
    """
    t = numpy_api.asarray(x)
    if t.dtype.kind not in "fc":
        t = _core.astype(t, np.float64)
    if axis is None and (ord is None or (ord == 2 and t.ndim == 1)):
        return rules.norm(t, None, keepdims)
    axes = tuple(range(t.ndim)) if axis is None else normalize_axis_tuple(axis, t.ndim, "norm")
    if axis is None and t.ndim == 2 and ord in ("fro", "f"):
        return rules.norm(t, None, keepdims)
    if len(axes) == 1:
        return _vector_norm(t, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(t, ord, axes, keepdims)
    raise ValueError(f"norm: wants one or two axes, got {axes}")


def _vector_norm(t, order, axes, keepdims):
    if order is None or order == 2:
        return rules.norm(t, axes, keepdims)
    if isinstance(order, str):
        raise ValueError(f"norm: order {order!r} is not one for vectors")
    if order == 0:
        # nan counts, as in NumPy; the gradient of a count is 0
        ones = numpy_api.where(t == t, numpy_api.sign(abs(t)), 1.0)
        return _core.sum(ones, axes, keepdims)
    sizes = abs(t)
    if order == np.inf:
        return numpy_api.max(sizes, axes, keepdims=keepdims, initial=0)
    if order == -np.inf:
        return numpy_api.min(sizes, axes, keepdims=keepdims)
    if order == 1:
        return _core.sum(sizes, axes, keepdims)
    total = _core.sum(sizes**order, axes, keepdims)
    exponent = np.reciprocal(order, dtype=total.dtype)
    if order < 0:
        return total**exponent
    return numpy_api.root_or_zero(total, lambda s: s**exponent)


def _matrix_norm(t, order, axes, keepdims):
    if order in (None, "fro", "f"):
        return rules.norm(t, axes, keepdims)
    if order in (1, -1, np.inf, -np.inf):
        rows, columns = axes if order in (1, -1) else axes[::-1]
        sums = _core.sum(abs(t), rows, True)
        if order > 0:
            y = numpy_api.max(sums, columns, keepdims=True, initial=0)
        else:
            y = numpy_api.min(sums, columns, keepdims=True)
        return y if keepdims else numpy_api.squeeze(y, axes)
    if order not in (2, -2, "nuc") or not t.size:
        # an error, or a norm of nothing
        try:
            return _core.by_numpy(np.linalg.norm, (t, order, axes, keepdims), {})
        except ValueError as error:
            raise rules.named("norm", error) from None
    s = linalg_rules.svdvals(numpy_api.moveaxis(t, axes, (-2, -1)))
    s = rules.where(s == 0.0, 0.0, s)
    if order == "nuc":
        y = _core.sum(s, -1)
    else:
        y = (numpy_api.max if order == 2 else numpy_api.min)(s, -1)
    return _core.reshape(y, rules.kept_shape(t.shape, axes)) if keepdims else y


def matrix_norm(x, /, *, keepdims=False, ord="fro") -> Tensor:
    """Return the norm of matrices; see `norm`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.matrix_norm([[3.0, 0.0], [0.0, 4.0]], ord="nuc").item()
    7.0
    """
    return norm(_inexact(x), ord, (-2, -1), keepdims)


def vector_norm(x, /, *, axis=None, keepdims=False, ord=2) -> Tensor:
    """Return the norm of vectors, which lie along any number of axes together; see `norm`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.vector_norm([[3.0, 0.0], [0.0, 4.0]]).item()
    5.0
    """
    t = _inexact(x)
    if axis is None:
        y = norm(_core.reshape(t, (-1,)), ord, 0)
        axes = tuple(range(t.ndim))
    elif isinstance(axis, tuple):
        axes = normalize_axis_tuple(axis, t.ndim, "vector_norm")
        others = tuple([k for k in range(t.ndim) if k not in axes])
        flat = _core.transpose(t, axes + others)
        shape = (_product(flat.shape[: len(axes)]), *flat.shape[len(axes) :])
        y = norm(_core.reshape(flat, shape), ord, 0)
    else:
        axes = normalize_axis_tuple(axis, t.ndim, "vector_norm")
        y = norm(t, ord, axis)
    return _core.reshape(y, rules.kept_shape(t.shape, axes)) if keepdims else y


@np.errstate(all="ignore")
def cond(x, p=None) -> Tensor:
    """Return the condition number of matrices by a norm, by default of order 2; inf if singular.

    A singular matrix has the gradient 0, or by the orders 2 and -2 the one that follows from its
    singular values.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is empty, or not square where the norm needs an inverse.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.cond([[4.0, 0.0], [0.0, 2.0]]).item()
    2.0
    """
    t = _inexact(x)
    if t.ndim >= 2 and not _product(t.shape[-2:]) and 0 not in t.shape[:-2]:
        raise np.linalg.LinAlgError("cond: cond is not defined on empty arrays")
    if p is None or p in (2, -2):
        _matrices("cond", t)
        s = linalg_rules.svdvals(t)
        first = rules.take_index(s, (..., 0), True)
        last = rules.take_index(s, (..., -1), True)
        y = last / first if p == -2 else first / last
    else:
        _square("cond", t)
        # NumPy inverts float32 in double precision
        wide = t if t.dtype.itemsize >= 8 * (1 + (t.dtype.kind == "c")) else _core.astype(
            t, np.result_type(t.dtype, np.float64))
        inverse = linalg_rules.inv(wide, False)
        y = norm(t, p, (-2, -1)) * norm(inverse, p, (-2, -1))
        if wide is not t:
            y = _core.astype(y, np.float32)
    if _core.holds_nan(y):
        given = numpy_api.any(t != t, axis=(-2, -1))
        y = rules.where((y != y) & ~given, np.inf, y)
    return y


def matrix_rank(A, tol=None, hermitian=False, *, rtol=None) -> Tensor:
    """Return the ranks of matrices, integers.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.matrix_rank(ad.ones((3, 3))).item()
    1
    """
    tol, rtol = numpy_api._values((tol, rtol))
    return _core.by_numpy(np.linalg.matrix_rank, (_tensor(A), tol, hermitian), {"rtol": rtol})


def trace(x, /, *, offset=0, dtype=None) -> Tensor:
    """Return the sum of a diagonal of matrices.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.trace(ad.ones((2, 3, 3))).tolist()
    [3.0, 3.0]
    """
    return numpy_api.trace(x, offset, -2, -1, dtype)


def diagonal(x, /, *, offset=0) -> Tensor:
    """Return a diagonal of matrices.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.diagonal([[1.0, 2.0], [3.0, 4.0]], offset=1).tolist()
    [2.0]
    """
    return numpy_api.diagonal(x, offset, -2, -1)


# Products.


def matrix_power(a, n) -> Tensor:
    """Return square matrices to an integer power; of a negative one, that of the inverse.

    Raises
    ------
    TypeError
        If the exponent is not an integer.
    numpy.linalg.LinAlgError
        If a matrix is not square, or it is singular and the exponent negative.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.matrix_power(ad.tensor([[1.0, 1.0], [0.0, 1.0]]), 5).tolist()
    [[1.0, 5.0], [0.0, 1.0]]
    """
    t = _tensor(a)
    _square("matrix_power", t)
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(
            f"matrix_power: exponent must be an integer, got {type(n).__name__}") from None
    if n == 0:
        one = _core.wrap(np.eye(t.shape[-1], dtype=t.dtype), copy=False)
        return numpy_api.copy(_core.broadcast_to(one, t.shape))
    if n < 0:
        t, n = inv(t), -n
    if n == 3:
        return _core.matmul(_core.matmul(t, t), t)
    power = None
    while True:
        n, bit = divmod(n, 2)
        if bit:
            power = t if power is None else _core.matmul(power, t)
            if not n:
                return power
        t = _core.matmul(t, t)


def multi_dot(arrays, *, out=None) -> Tensor:
    """Return the product of matrices in the order that multiplies fewest numbers.

    The first and the last may be vectors.  The order is found by dynamic programming (T. H. Cormen
    et al., "Introduction to Algorithms", section 15.2), as in NumPy.

    Raises
    ------
    ValueError
        If there are fewer than two arrays.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.multi_dot([ad.ones(3), ad.ones((3, 2)), ad.ones((2, 2)), ad.ones(2)]).item()
    12.0
    """
    if len(arrays) < 2:
        raise ValueError(f"multi_dot: Expecting at least two arrays, got {len(arrays)}")
    tensors = [_tensor(a) for a in arrays]
    if len(tensors) == 2:
        return numpy_api.dot(*tensors)
    ends = tensors[0].ndim, tensors[-1].ndim
    if ends[0] == 1:
        tensors[0] = _core.reshape(tensors[0], (1, -1))
    if ends[1] == 1:
        tensors[-1] = _core.reshape(tensors[-1], (-1, 1))
    for t in tensors:
        if t.ndim != 2:
            raise np.linalg.LinAlgError(
                f"multi_dot: {t.ndim}-dimensional array given. Array must be two-dimensional")
    cuts = _cheapest_cuts([t.shape[0] for t in tensors] + [tensors[-1].shape[1]])

    def product(i, j):
        if i == j:
            return tensors[i]
        k = cuts[i, j]
        return numpy_api.dot(product(i, k), product(k + 1, j))

    y = product(0, len(tensors) - 1)
    if 1 not in ends:
        return y
    return _core.reshape(y, () if ends == (1, 1) else (-1,))


def _cheapest_cuts(sizes):
    """Return where to cut each chain of matrices i to j of sizes ``sizes[i] x sizes[i + 1]``."""
    n = len(sizes) - 1
    if n == 3:
        # on a tie NumPy multiplies three from the right, more from the left
        a, b, c, d = sizes
        left_first = a * c * (b + d) < b * d * (a + c)
        return {(0, 2): 1 if left_first else 0, (0, 1): 0, (1, 2): 1}
    costs = {(i, i): 0.0 for i in range(n)}
    cuts = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            found = [
                costs[i, k] + costs[k + 1, j] + float(sizes[i] * sizes[k + 1] * sizes[j + 1])
                for k in range(i, j)
            ]
            costs[i, j] = min(found)
            cuts[i, j] = i + found.index(costs[i, j])
    return cuts


def cross(x1, x2, /, *, axis=-1) -> Tensor:
    """Return the cross products of vectors with three components.

    Raises
    ------
    ValueError
        If vectors do not have three components.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.cross(ad.tensor([1.0, 0.0, 0.0]), [0.0, 1.0, 0.0]).tolist()
    [0.0, 0.0, 1.0]
    """
    a, b = map(_tensor, (x1, x2))
    if a.shape[axis] != 3 or b.shape[axis] != 3:
        raise ValueError(
            "linalg.cross: Both input arrays must be (arrays of) 3-dimensional vectors, "
            f"but they are {a.shape[axis]} and {b.shape[axis]} dimensional instead.")
    if a.dtype.kind not in "fc" and b.dtype.kind not in "fc":
        return _core.by_numpy(np.linalg.cross, (a, b), {"axis": axis})
    a, b = numpy_api._same_dtype((a, b))
    return linalg_rules.cross(a, b, axis)


def outer(x1, x2, /) -> Tensor:
    """Return the products of all elements of a vector with all of another.

    Raises
    ------
    ValueError
        If an operand is not a vector.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.outer([1.0, 2.0], [3.0, 4.0]).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    a, b = map(_tensor, (x1, x2))
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError("linalg.outer: Input arrays must be one-dimensional, but they have "
                         f"{a.ndim} and {b.ndim} axes")
    return numpy_api.outer(a, b)


def matmul(x1, x2, /) -> Tensor:
    """Return the matrix product; see `fastad.matmul`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.matmul(ad.eye(2), ad.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return numpy_api.matmul(x1, x2)


def tensordot(x1, x2, /, *, axes=2) -> Tensor:
    """Return sums of products over pairs of axes; see `fastad.tensordot`.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.tensordot(ad.ones((2, 3)), ad.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    return numpy_api.tensordot(x1, x2, axes)


def vecdot(x1, x2, /, *, axis=-1) -> Tensor:
    """Return sums of products of the conjugate of `x1` with `x2` over an axis.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.linalg.vecdot([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).tolist()
    [3.0, 7.0]
    """
    a, b = numpy_api._same_dtype([_tensor(x1), _tensor(x2)])
    if axis != -1:
        a, b = numpy_api.moveaxis(a, axis, -1), numpy_api.moveaxis(b, axis, -1)
    if a.dtype.kind not in "fc":
        return _core.by_numpy(np.vecdot, (a, b), {})
    return linalg_rules.vecdot(a, b)


numpy_api.take_out(globals())
numpy_api.FUNCTIONS.update({
    getattr(np.linalg, name): globals()[name]
    for name in __all__
    if name != "LinAlgError" and hasattr(np.linalg, name)
})
