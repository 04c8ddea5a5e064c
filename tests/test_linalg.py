"""``numpy.linalg`` over tensors: values, derivatives of every order, degenerate matrices, errors.

Every row of CASES is a function of matrices, written once for NumPy and fastad.  Its values must be
NumPy's bits; its gradient, its tangent and its second derivative are compared with central
differences along random directions, real for real matrices and complex for complex ones.
"""

import numpy as np
import pytest

import fastad as ad
from directional import assert_derivatives, several, vector
from fastad import linalg_rules

def general(*shape):
    """Matrices whose singular values and eigenvalues lie well apart."""
    def make(rng, kind):
        a = rng.normal(size=shape)
        if kind == "c":
            a = a + 1j * rng.normal(size=shape)
        m, n = shape[-2:]
        return a + np.eye(m, n) * np.linspace(2.0, 2.0 + max(m, n), m)[:, None]
    return make


def definite(*shape):
    def make(rng, kind):
        a = general(*shape)(rng, kind)
        return a @ a.conj().swapaxes(-1, -2)
    return make


def hermitian(*shape):
    def make(rng, kind):
        a = general(*shape)(rng, kind)
        return a + a.conj().swapaxes(-1, -2)
    return make


def thin(*shape):
    """Matrices of rank 2."""
    def make(rng, kind):
        m, n = shape[-2:]
        a, b = [general(*shape[:-2], *ends)(rng, kind) for ends in ((m, 2), (2, n))]
        return a @ b
    return make


def adjoint(xp, a):
    return xp.conjugate(xp.swapaxes(a, -1, -2))


def symmetric(xp, a):
    """A Hermitian matrix: what functions that read one triangle are differentiated through."""
    return a + adjoint(xp, a)


def spread(xp, v):
    """Of vectors with an undetermined phase what does not depend on it: projectors, weighted."""
    n = v.shape[-1]
    return xp.matmul(v * np.linspace(1.0, 2.0, n), adjoint(xp, v))


def eigh_vectors(uplo):
    def function(xp, a):
        w, v = xp.linalg.eigh(a, uplo)
        return [w, spread(xp, v)]
    return function


def svd_vectors(full):
    def function(xp, a):
        u, s, vh = xp.linalg.svd(a, full)
        k = s.shape[-1]
        weights = np.linspace(1.0, 2.0, k)
        parts = [s, spread(xp, u[..., :k]), spread(xp, adjoint(xp, vh)[..., :k]),
                 xp.matmul(u[..., :k] * weights, vh[..., :k, :])]
        for others in (u[..., k:], adjoint(xp, vh)[..., k:]):
            if others.shape[-1]:
                parts.append(xp.matmul(others, adjoint(xp, others)))
        return parts
    return function


def hermitian_svd(xp, a):
    u, s, vh = xp.linalg.svd(a, hermitian=True)
    return [s, spread(xp, u), xp.matmul(u, vh)]


def complete_qr(xp, a):
    q, r = xp.linalg.qr(a, "complete")
    k = min(a.shape[-2:])
    others = q[..., k:]
    return [q[..., :k], r, xp.matmul(others, adjoint(xp, others))]


def least_squares(rcond=None):
    def function(xp, a, b):
        x, squares, _, s = xp.linalg.lstsq(a, b, rcond)
        return [x, squares, s]
    return function


CASES = {
    "solve": (lambda xp, a, b: xp.linalg.solve(a, b), general(3, 3), vector(3, 2)),
    "solve a vector": (lambda xp, a, b: xp.linalg.solve(a, b), general(3, 3), vector(3)),
    "solve in batches": (lambda xp, a, b: xp.linalg.solve(a, b), general(2, 3, 3), vector(2, 3, 2)),
    "solve broadcast": (lambda xp, a, b: xp.linalg.solve(a, b), general(3, 3), vector(2, 3, 1)),
    "solve many, one vector": (lambda xp, a, b: xp.linalg.solve(a, b), general(2, 3, 3), vector(3)),
    "tensorsolve": (lambda xp, a, b: xp.linalg.tensorsolve(xp.reshape(a, (2, 3, 3, 2)), b),
                    general(6, 6), vector(2, 3)),
    "tensorsolve with axes": (
        lambda xp, a, b: xp.linalg.tensorsolve(xp.reshape(a, (6, 2, 3)), b, (0,)),
        general(6, 6), vector(2, 3)),
    "inv": (lambda xp, a: xp.linalg.inv(a), general(3, 3)),
    "inv in batches": (lambda xp, a: xp.linalg.inv(a), general(2, 2, 3, 3)),
    "tensorinv": (lambda xp, a: xp.linalg.tensorinv(xp.reshape(a, (2, 3, 6))), general(6, 6)),
    "tensorinv of one axis": (lambda xp, a: xp.linalg.tensorinv(xp.reshape(a, (6, 3, 2)), 1),
                              general(6, 6)),
    "pinv, tall": (lambda xp, a: xp.linalg.pinv(a), general(4, 3)),
    "pinv, wide": (lambda xp, a: xp.linalg.pinv(a), general(2, 2, 4)),
    "pinv, hermitian": (lambda xp, a: xp.linalg.pinv(a, hermitian=True), hermitian(3, 3)),
    "pinv, rtol": (lambda xp, a: xp.linalg.pinv(a, rtol=1e-10), general(3, 3)),
    "det": (lambda xp, a: xp.linalg.det(a), general(3, 3)),
    "det in batches": (lambda xp, a: xp.linalg.det(a), general(2, 3, 3)),
    "slogdet": (lambda xp, a: xp.linalg.slogdet(a), general(3, 3)),
    "slogdet in batches": (lambda xp, a: xp.linalg.slogdet(a), general(2, 3, 3)),
    "cholesky": (lambda xp, a: xp.linalg.cholesky(a), definite(3, 3)),
    "cholesky, upper": (lambda xp, a: xp.linalg.cholesky(a, upper=True), definite(2, 3, 3)),
    "qr, square": (lambda xp, a: xp.linalg.qr(a), general(3, 3)),
    "qr, tall": (lambda xp, a: xp.linalg.qr(a), general(2, 4, 2)),
    "qr, wide": (lambda xp, a: xp.linalg.qr(a), general(2, 2, 4)),
    "qr, r": (lambda xp, a: xp.linalg.qr(a, "r"), general(4, 3)),
    "qr, complete": (complete_qr, general(4, 2)),
    "qr, complete, wide": (complete_qr, general(2, 4)),
    "qr, raw, tall": (lambda xp, a: xp.linalg.qr(a, "raw"), general(4, 2)),
    "qr, raw, square": (lambda xp, a: xp.linalg.qr(a, "raw"), general(2, 3, 3)),
    "qr, raw, wide": (lambda xp, a: xp.linalg.qr(a, "raw"), general(2, 4)),
    "svd, square": (svd_vectors(True), general(3, 3)),
    "svd, tall": (svd_vectors(False), general(2, 4, 2)),
    "svd, wide": (svd_vectors(False), general(2, 4)),
    "svd, full, tall": (svd_vectors(True), general(4, 2)),
    "svd, full, wide": (svd_vectors(True), general(2, 2, 4)),
    "svd, hermitian": (hermitian_svd, hermitian(3, 3)),
    "svd, values alone": (lambda xp, a: xp.linalg.svd(a, compute_uv=False), general(2, 3, 4)),
    "svd, values, hermitian": (
        lambda xp, a: xp.linalg.svd(a, compute_uv=False, hermitian=True), hermitian(3, 3)),
    "svdvals": (lambda xp, a: xp.linalg.svdvals(a), general(4, 3)),
    "eigh": (eigh_vectors("L"), hermitian(3, 3)),
    "eigh, upper": (eigh_vectors("U"), hermitian(2, 3, 3)),
    "eigvalsh": (lambda xp, a: xp.linalg.eigvalsh(a), hermitian(3, 3)),
    "eigvalsh, upper": (lambda xp, a: xp.linalg.eigvalsh(a, "u"), hermitian(2, 3, 3)),
    "eig": (lambda xp, a: xp.linalg.eig(a), general(3, 3)),
    "eig in batches": (lambda xp, a: xp.linalg.eig(a), general(2, 3, 3)),
    "eigvals": (lambda xp, a: xp.linalg.eigvals(a), general(2, 4, 4)),
    "lstsq": (least_squares(), general(5, 3), vector(5, 2)),
    "lstsq of a vector": (least_squares(), general(4, 2), vector(4)),
    "lstsq, wide": (least_squares(), general(2, 4), vector(2)),
    "lstsq, rcond": (least_squares(-1), general(3, 3), vector(3, 2)),
    **{f"matrix_power {n}": (lambda xp, a, n=n: xp.linalg.matrix_power(a, n), general(2, 3, 3))
       for n in (-3, -1, 1, 2, 3, 4, 7)},
    **{f"norm {order}": (lambda xp, a, order=order: xp.linalg.norm(a, order), general(3, 4))
       for order in (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)},
    **{f"norm {order} over axes": (
        lambda xp, a, order=order: xp.linalg.norm(a, order, (2, 0), keepdims=True),
        general(3, 2, 4)) for order in ("nuc", 2, -2)},
    **{f"vector_norm {order}": (
        lambda xp, a, order=order: xp.linalg.vector_norm(a, ord=order, axis=(2, 0), keepdims=True),
        general(3, 2, 4)) for order in (0, 1, 2, 3, np.inf, -np.inf)},
    "vector_norm of all": (lambda xp, a: xp.linalg.vector_norm(a, keepdims=True), general(3, 2)),
    "vector_norm over an axis": (lambda xp, a: xp.linalg.vector_norm(a, axis=-1), general(3, 2)),
    "matrix_norm": (lambda xp, a: xp.linalg.matrix_norm(a, keepdims=True), general(2, 3, 2)),
    "matrix_norm 2": (lambda xp, a: xp.linalg.matrix_norm(a, ord=2), general(2, 3, 2)),
    **{f"cond {p}": (lambda xp, a, p=p: xp.linalg.cond(a, p), general(2, 3, 3))
       for p in (None, 2, -2, "fro", "nuc", 1, -1, np.inf, -np.inf)},
    "cond, wide": (lambda xp, a: xp.linalg.cond(a), general(2, 3)),
    "multi_dot of two": (lambda xp, a, b: xp.linalg.multi_dot([a, b]), vector(2, 3), vector(3, 4)),
    "multi_dot of three": (lambda xp, a, b, c: xp.linalg.multi_dot([a, b, c]),
                           vector(2, 3), vector(3, 4), vector(4, 2)),
    "multi_dot of three, left": (lambda xp, a, b, c: xp.linalg.multi_dot([a, b, c]),
                                 vector(2, 5), vector(5, 2), vector(2, 4)),
    "multi_dot of four": (lambda xp, a, b, c: xp.linalg.multi_dot([a, b, c, b]),
                          vector(3), vector(3, 4), vector(4, 3)),
    "multi_dot, vectors": (lambda xp, a, b: xp.linalg.multi_dot([a, b, b, a]),
                           vector(3), vector(3, 3)),
    "cross": (lambda xp, a, b: xp.linalg.cross(a, b), vector(2, 3), vector(3)),
    "cross over an axis": (lambda xp, a, b: xp.linalg.cross(a, b, axis=0), vector(3, 2), vector(3, 2)),
    "outer": (lambda xp, a, b: xp.linalg.outer(a, b), vector(3), vector(2)),
    "vecdot": (lambda xp, a, b: xp.linalg.vecdot(a, b), vector(2, 3), vector(3)),
    "vecdot over an axis": (lambda xp, a, b: xp.linalg.vecdot(a, b, axis=0), vector(3, 2),
                            vector(3, 2)),
    "matmul": (lambda xp, a, b: xp.linalg.matmul(a, b), vector(2, 3), vector(3, 2)),
    "tensordot": (lambda xp, a, b: xp.linalg.tensordot(a, b, axes=1), vector(2, 3), vector(3, 2)),
    "diagonal": (lambda xp, a: xp.linalg.diagonal(a, offset=1), vector(2, 3, 4)),
    "trace": (lambda xp, a: xp.linalg.trace(a, offset=-1), vector(2, 4, 3)),
    "matrix_transpose": (lambda xp, a: xp.linalg.matrix_transpose(a), vector(2, 4, 3)),
}
every_case = pytest.mark.parametrize("title", CASES)


def arrays_of(title, kind):
    rng = np.random.default_rng(len(title) + 100 * (kind == "c"))
    return [make(rng, kind) for make in CASES[title][1:]]


@every_case
@pytest.mark.parametrize("kind", "fc")
def test_derivatives_are_those_of_differences(title, kind):
    assert_derivatives(CASES[title][0], arrays_of(title, kind))
