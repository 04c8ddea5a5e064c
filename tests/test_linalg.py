"""``numpy.linalg`` over tensors: values, derivatives of every order, degenerate matrices, errors.

Every row of CASES is a function of matrices, written once for NumPy and fastad.  Its values must be
NumPy's bits; its gradient, its tangent and its second derivative are compared with central
differences along random directions, real for real matrices and complex for complex ones.
"""

import inspect

import numpy as np
import pytest
from directional import (
    assert_derivatives,
    difference,
    directions,
    gradients,
    inner,
    loss_of,
    moved,
    several,
    slope,
    vector,
)

import fastad as ad


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
    "pinv, cut": (lambda xp, a: xp.linalg.pinv(a, 0.6), general(3, 3)),
    "pinv, cut, tall": (lambda xp, a: xp.linalg.pinv(a, 0.6), general(2, 4, 3)),
    "pinv, cut, wide": (lambda xp, a: xp.linalg.pinv(a, 0.6), general(2, 4)),
    "pinv, cut, hermitian": (lambda xp, a: xp.linalg.pinv(a, 0.6, hermitian=True), hermitian(3, 3)),
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
    "lstsq, cut": (lambda xp, a, b: xp.linalg.lstsq(a, b, 0.6)[0], general(4, 3), vector(4, 2)),
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
    "cross over an axis": (lambda xp, a, b: xp.linalg.cross(a, b, axis=0), vector(3, 2),
                           vector(3, 2)),
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


HOLOMORPHIC = [
    "solve", "solve in batches", "tensorsolve", "inv", "tensorinv", "det", "det in batches",
    "eigvals", *[f"matrix_power {n}" for n in (-3, 2, 7)], "multi_dot of four", "cross", "matmul",
    "trace",
]


def test_first_derivatives_are_those_of_the_complex_step_to_rounding():
    for title in HOLOMORPHIC:
        function, arrays = CASES[title][0], arrays_of(title, "f")
        direction = directions(arrays, 5)
        with_step = function(np, *moved(arrays, 1e-30j, direction))
        tangents = ad.jvp(lambda *xs, f=function: f(ad, *xs), tuple(arrays), tuple(direction))[1]
        for y, y_dot in zip(several(with_step), several(tangents), strict=True):
            if title == "eigvals":
                # several complex ones would have to be brought into one order
                y, y_dot = np.sum(y, -1), ad.sum(y_dot, -1)
            expected = y.imag / 1e-30
            assert np.allclose(np.asarray(y_dot).real, expected, rtol=1e-12, atol=1e-13), title


THIRD_ORDER = ["solve", "inv", "det", "slogdet", "cholesky", "qr, tall", "qr, wide",
               "qr, raw, tall", "svd, tall", "svdvals", "eigh", "eigvalsh", "eig",
               "eigvals", "pinv, tall", "lstsq"]


@pytest.mark.parametrize("kind", "fc")
def test_third_derivatives_are_differences_of_second_ones(kind):
    for title in THIRD_ORDER:
        function, arrays = CASES[title][0], arrays_of(title, kind)
        first, second, third = (directions(arrays, seed) for seed in (1, 2, 3))
        loss = loss_of(function, ad)

        def second_slope(*arrays, loss=loss, first=first, second=second):
            y, xs = slope(loss, arrays, first)
            found = ad.autograd.grad(y, xs, create_graph=True)
            y = sum(ad.sum(ad.real(np.conj(d) * g)) for g, d in zip(found, second, strict=True))
            return y, xs

        y, xs = second_slope(*arrays)
        found = inner([g.numpy() for g in ad.autograd.grad(y, xs)], third)
        expected = difference(
            lambda *xs, f=second_slope: f(*xs)[0].item(), arrays, third, 1e-4)
        assert abs(found - expected) < 1e-5 * (1.0 + abs(expected)), (title, found, expected)


def test_the_check_of_derivatives_finds_wrong_ones():
    arrays = arrays_of("inv", "c")
    right = CASES["inv"][0]
    wrongs = {
        "a factor": lambda xp, a: right(xp, a) * (1.0 if xp is np else 1.00001),
        "a conjugate": lambda xp, a: right(xp, a if xp is np else xp.conjugate(a)),
    }
    for title, wrong in wrongs.items():
        with pytest.raises(AssertionError):
            assert_derivatives(wrong, arrays)
            pytest.fail(title)


# ---- values --------------------------------------------------------------------------------------


def assert_same_bits(found, expected, title):
    for y, z in zip(several(found), several(expected), strict=True):
        if isinstance(y, int):
            assert y == z, title
            continue
        assert type(y) is ad.Tensor, title
        y, z = y.detach().numpy(), np.asarray(z)
        if title.startswith("cond"):
            z = z.real                  # complex in NumPy 2.0
        assert y.dtype == z.dtype and y.shape == z.shape, (title, y.dtype, z.dtype)
        assert np.array_equal(y, z, equal_nan=True), (title, y - z)
        assert (np.signbit(y.real) == np.signbit(z.real)).all() or np.isnan(z).any(), title


ADD_UP = "norm matrix_norm vector_norm cond multi_dot matmul tensordot vecdot matrix_power".split()


@pytest.mark.parametrize("dtype", "fdFD")
def test_values_are_numpys_bits_in_every_layout_and_by_every_name(dtype):
    for title, (function, *_) in CASES.items():
        arrays = [a.astype(dtype) for a in arrays_of(title, "c" if dtype in "FD" else "f")]
        layouts = [
            arrays,
            [np.asfortranarray(a) for a in arrays],
            [np.repeat(a, 2, -1)[..., ::2] for a in arrays],
            [np.ascontiguousarray(a[::-1])[::-1] for a in arrays],
        ]
        for values in layouts:
            # tensors are in C order, and NumPy adds up in the order of memory
            in_order = title.split()[0].strip(",") in ADD_UP
            expected = function(np, *(map(np.ascontiguousarray, values) if in_order else values))
            if title.startswith("cond") and np.iscomplexobj(expected):
                continue                        # NumPy before 2.1
            for recorded in (False, True):
                xs = [ad.tensor(a, requires_grad=recorded) for a in values]
                assert_same_bits(function(ad, *xs), expected, title)
                assert_same_bits(function(np, *xs), expected, title)


NOTHING = {
    "solve": (lambda xp, a, b: xp.linalg.solve(a, b), (0, 0), (0, 2)),
    "solve, no right side": (lambda xp, a, b: xp.linalg.solve(a, b), (3, 3), (3, 0)),
    "solve, no batch": (lambda xp, a, b: xp.linalg.solve(a, b), (0, 3, 3), (0, 3, 1)),
    "inv": (lambda xp, a: xp.linalg.inv(a), (2, 0, 0)),
    "det": (lambda xp, a: xp.linalg.det(a), (2, 0, 0)),
    "slogdet": (lambda xp, a: xp.linalg.slogdet(a), (0, 2, 2)),
    "cholesky": (lambda xp, a: xp.linalg.cholesky(a), (0, 0)),
    "qr": (lambda xp, a: xp.linalg.qr(a), (3, 0)),
    "qr, wide": (lambda xp, a: xp.linalg.qr(a), (0, 3)),
    "qr, complete": (lambda xp, a: xp.linalg.qr(a, "complete"), (2, 3, 0)),
    "eigh": (lambda xp, a: xp.linalg.eigh(a), (0, 0)),
    "eigvalsh": (lambda xp, a: xp.linalg.eigvalsh(a), (2, 0, 0)),
    "eig": (lambda xp, a: xp.linalg.eig(a), (0, 2, 2)),
    "eigvals": (lambda xp, a: xp.linalg.eigvals(a), (0, 0)),
    "pinv": (lambda xp, a: xp.linalg.pinv(a), (3, 0)),
    "svd, no batch": (lambda xp, a: xp.linalg.svd(a), (0, 3, 2)),
    "svdvals": (lambda xp, a: xp.linalg.svdvals(a), (0, 2, 2)),
    "lstsq, no right side": (lambda xp, a, b: xp.linalg.lstsq(a, b)[:2], (3, 2), (3, 0)),
    "matrix_power": (lambda xp, a: xp.linalg.matrix_power(a, 2), (0, 0)),
    "norm": (lambda xp, a: xp.linalg.norm(a), (0, 2)),
    "multi_dot": (lambda xp, a, b: xp.linalg.multi_dot([a, b, a]), (0, 2), (2, 0)),
    "vecdot": (lambda xp, a: xp.linalg.vecdot(a, a), (3, 0)),
}


def test_matrices_without_elements_have_results_and_gradients():
    for title, (function, *shapes) in NOTHING.items():
        arrays = [np.zeros(shape) + np.eye(*shape[-2:]) for shape in shapes]
        xs = [ad.tensor(a, requires_grad=True) for a in arrays]
        found = function(ad, *xs)
        assert_same_bits(found, function(np, *arrays), title)
        loss = sum(ad.sum(ad.real(y)) for y in several(found))
        for x, g in zip(xs, ad.autograd.grad(loss, xs), strict=True):
            assert g.shape == x.shape, title


def test_integers_and_lists_are_taken_as_float64():
    for name in ("inv", "det", "svdvals", "eigvalsh", "cholesky", "pinv", "norm", "cond"):
        values = [[5, 1], [1, 3]]
        expected = getattr(np.linalg, name)(values)
        for x in (values, np.array(values), ad.tensor(values)):
            assert_same_bits(getattr(ad.linalg, name)(x), expected, name)
    x = ad.tensor(2.0, requires_grad=True)
    ad.linalg.det([[x, 1.0], [0, x]]).backward()
    assert x.grad.item() == pytest.approx(4.0)
    assert ad.linalg.matrix_power(ad.tensor([[1, 1], [0, 1]]), 3).tolist() == [[1, 3], [0, 1]]
    assert ad.linalg.cross([1, 0, 0], ad.tensor([0, 1, 0])).dtype == np.int64
    assert ad.linalg.vecdot([1, 2], ad.tensor([3, 4])).item() == 11


def test_real_and_complex_operands_meet():
    a, b = arrays_of("solve", "f")[0], arrays_of("solve", "c")[1]
    x, y = ad.tensor(a, requires_grad=True), ad.tensor(b, requires_grad=True)
    z = ad.linalg.solve(x, y)
    assert_same_bits(z, np.linalg.solve(a, b), "solve")
    ad.sum(ad.abs(z) ** 2).backward()
    assert x.grad.dtype == np.float64 and y.grad.dtype == np.complex128
    assert_derivatives(lambda xp, a, b: xp.linalg.solve(a, b), [a, b])
    assert_derivatives(lambda xp, a, b: xp.linalg.lstsq(a, b)[0], [a, b])
    assert_derivatives(lambda xp, a, b: xp.linalg.vecdot(a, b), [a[0], b[:, 0]])


def test_ranks_are_numpys_and_follow_in_programs():
    a = np.diag([3.0, 1.0, 0.0])
    assert ad.linalg.matrix_rank(ad.tensor(a)).item() == 2
    assert np.linalg.matrix_rank(ad.tensor(a, requires_grad=True), tol=2.0).item() == 1
    assert ad.linalg.matrix_rank(a, rtol=0.5).item() == 1
    assert ad.linalg.matrix_rank([0.0, 1.0]).item() == 1
    program = ad.compile(lambda a: ad.sum(a) * ad.linalg.matrix_rank(a))
    for a in (np.eye(3), np.ones((3, 3)), np.zeros((3, 3))):
        assert float(program(a)) == a.sum() * np.linalg.matrix_rank(a)


def test_every_function_of_numpy_linalg_is_here():
    assert set(np.linalg.__all__) <= set(ad.linalg.__all__)
    functions = set(np.linalg.__all__) - {"LinAlgError"}
    from fastad import numpy_api
    for name in functions:
        assert numpy_api.FUNCTIONS[getattr(np.linalg, name)] is getattr(ad.linalg, name)


# ---- degenerate matrices -------------------------------------------------------------------------


def hessian_along(loss, a, first, second):
    y, xs = slope(loss, [a], [first])
    return inner([g.numpy() for g in ad.autograd.grad(y, xs)], [second])


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", "fc")
def test_det_of_singular_matrices_has_the_derivatives_of_the_polynomial(rank, kind):
    rng = np.random.default_rng(rank)
    n = 4
    a = vector(n, rank)(rng, kind) @ vector(rank, n)(rng, kind)
    if rank == 2:
        a[:, 0] = a[0] = 0.0            # two zero pivots, exactly
    if np.linalg.det(a) != 0.0:
        a[-1] = a[0] * 2.0
        a[0, :] = a[-1, :] = 0.0
    assert np.linalg.det(a) == 0.0
    batch = np.stack([a, a + np.eye(n)])
    for values in (a, batch):
        assert_derivatives(lambda xp, a: xp.linalg.det(a), [values])
    # third order: the derivative along d, thrice, of det(a) is that of a polynomial of degree n
    d = vector(n, n)(rng, kind)
    t = np.linspace(-1.0, 1.0, n + 1)
    coefficients = np.polynomial.polynomial.polyfit(t, [np.linalg.det(a + s * d) for s in t], n)

    def f(s):
        return ad.linalg.det(a + s * ad.tensor(d))

    x = ad.tensor(0.0 if kind == "f" else 0j, requires_grad=True)
    y = f(x)
    for order in range(1, n + 1):
        y = ad.autograd.grad(ad.real(y), x, create_graph=True)[0]
        expected = np.real(coefficients[order]) if kind == "f" else np.conj(coefficients[order])
        expected = expected * float(np.prod(np.arange(1, order + 1)))
        if order % 2 == 0 and kind == "c":
            expected = np.conj(expected)
        if kind == "c" and order > 1:
            break                       # a real part's gradient is not holomorphic
        assert np.allclose(y.item(), expected, atol=1e-8), (order, y.item(), expected)


def test_det_of_a_zero_matrix_of_any_size():
    for n in range(1, 6):
        x = ad.tensor(np.zeros((n, n)), requires_grad=True)
        g = ad.autograd.grad(ad.linalg.det(x), x)[0].numpy()
        assert np.array_equal(g, np.ones((1, 1)) if n == 1 else np.zeros((n, n)))


def test_slogdet_of_a_singular_matrix_is_nan_and_harmless_where_nothing_depends_on_it():
    a = np.stack([np.eye(2), np.ones((2, 2))])
    x = ad.tensor(a, requires_grad=True)
    sign, log = ad.linalg.slogdet(x)
    assert log.tolist() == [0.0, -np.inf] and sign.tolist() == [1.0, 0.0]
    g = ad.autograd.grad(ad.sum(ad.where([True, False], log, 0.0)), x, retain_graph=True)[0].numpy()
    assert np.array_equal(g, [np.eye(2), np.zeros((2, 2))])
    g = ad.autograd.grad(ad.sum(log), x, create_graph=True)[0]
    assert np.isnan(g.detach().numpy()[1]).all()
    second = ad.autograd.grad(ad.sum(g), x)[0].numpy()
    assert np.isnan(second[1]).all() and np.isfinite(second[0]).all()


REPEATED = {
    "eigvalsh": (lambda a: ad.sum(ad.linalg.eigvalsh(a) ** 2), np.eye(3), 2 * np.eye(3)),
    "eigh, values": (lambda a: ad.sum(ad.linalg.eigh(a)[0] ** 3), np.eye(3), 3 * np.eye(3)),
    "eigh, another vector": (lambda a: ad.linalg.eigh(a)[1][2, 2] ** 2, np.diag([1.0, 1.0, 2.0]),
                             np.zeros((3, 3))),
    "svd, values": (lambda a: ad.sum(ad.linalg.svd(a)[1] ** 2), np.eye(3, 2), 2 * np.eye(3, 2)),
    "svdvals": (lambda a: ad.sum(ad.linalg.svdvals(a) ** 2), -2 * np.eye(2, 3), -4 * np.eye(2, 3)),
    "svd of nothing but zeros": (lambda a: ad.sum(ad.linalg.svd(a)[1] ** 2), np.zeros((2, 2)),
                                 np.zeros((2, 2))),
    "the nuclear norm of nothing": (lambda a: ad.linalg.norm(a, "nuc"), np.zeros((2, 3)),
                                    np.zeros((2, 3))),
    "the nuclear norm where one value is 0": (
        lambda a: ad.linalg.norm(a, "nuc"), np.diag([2.0, 0.0]), np.diag([1.0, 0.0])),
    "norm 2 where all values are the largest": (
        lambda a: ad.linalg.norm(a, 2), 2 * np.eye(2), np.eye(2) / 2),
    "eigvals": (lambda a: ad.sum(ad.real(ad.linalg.eigvals(a)) ** 2), np.eye(2), 2 * np.eye(2)),
}


@pytest.mark.parametrize("title", REPEATED)
def test_what_depends_on_repeated_values_alone_has_a_finite_gradient(title):
    loss, a, expected = REPEATED[title]
    g = gradients(loss, [a])[0]
    assert np.allclose(g, expected, atol=1e-15), g
    program = ad.compile(loss)
    assert np.allclose(np.asarray(program.value_and_grad(a)[1]), expected, atol=1e-15)


def test_what_reads_vectors_of_repeated_values_has_no_finite_gradient():
    weights = np.array([[1.0, 2.0], [3.0, 5.0]])

    def rebuilt(a):
        w, v = ad.linalg.eigh(a)
        return ad.sum(weights * ((v * ad.sqrt(w)) @ v.T))

    def rebuilt_by_svd(a):
        u, s, vh = ad.linalg.svd(a)
        return ad.sum(weights * ((u * ad.sqrt(s)) @ vh))

    for loss in (rebuilt, rebuilt_by_svd):
        assert not np.isfinite(gradients(loss, [np.eye(2)])[0]).all()
        assert np.isfinite(gradients(loss, [np.diag([1.0, 2.0])])[0]).all()


def test_the_polar_factor_needs_no_distinct_singular_values():
    a = np.diag([2.0, 2.0 + 1e-9, 1.0])
    weights = np.arange(9.0).reshape(3, 3)

    def loss(a):
        u, _, vh = ad.linalg.svd(a)
        return ad.sum(weights * (u @ vh))

    expected = (weights - weights.T) / (np.add.outer(np.diag(a), np.diag(a)))
    assert np.allclose(gradients(loss, [a])[0], expected, atol=1e-5)


def test_pinv_and_lstsq_of_matrices_without_full_rank_hold_along_their_rank():
    for kind in "fc":
        rng = np.random.default_rng(2)
        p, q, b = vector(5, 2)(rng, kind), vector(2, 4)(rng, kind), vector(5, 2)(rng, kind)
        for function in (
            lambda xp, p, q, b: xp.linalg.pinv(p @ q, 1e-10) @ b,
            lambda xp, p, q, b: xp.linalg.lstsq(p @ q, b, 1e-10)[0],
        ):
            assert_derivatives(function, [p, q, b], 1e-6)


def test_a_triangle_that_is_not_read_has_no_gradient():
    a = definite(3, 3)(np.random.default_rng(0), "f")
    readers = {
        "cholesky": (lambda x: ad.linalg.cholesky(x), True),
        "cholesky, upper": (lambda x: ad.linalg.cholesky(x, upper=True), False),
        "eigvalsh": (ad.linalg.eigvalsh, True),
        "eigvalsh, U": (lambda x: ad.linalg.eigvalsh(x, "U"), False),
        "eigh": (lambda x: ad.linalg.eigh(x)[1] ** 2, True),
        "pinv": (lambda x: ad.linalg.pinv(x, hermitian=True), True),
        "svd": (lambda x: ad.linalg.svd(x, hermitian=True)[1], True),
    }
    for title, (function, lower) in readers.items():
        g = gradients(lambda x: ad.sum(function(x) * np.arange(1.0, 4.0)), [a])[0]
        other = np.triu(g, 1) if lower else np.tril(g, -1)
        assert not other.any() and g.any(), title


def test_cond_of_a_singular_matrix_is_inf_and_nan_stays():
    for p in (None, 1, "fro"):
        a = np.stack([np.eye(2), np.ones((2, 2)), np.full((2, 2), np.nan)][: 2 if p is None else 3])
        a[1, 1] = 0.0
        expected = np.linalg.cond(a, p)
        assert_same_bits(ad.linalg.cond(ad.tensor(a, requires_grad=True), p), expected, "cond")
    x = ad.tensor(np.stack([np.diag([1.0, 2.0]), np.ones((2, 2))]), requires_grad=True)
    y = ad.linalg.cond(x, 1)
    ad.sum(ad.where(ad.isfinite(y), y, 0.0)).backward()
    assert np.isfinite(x.grad.numpy()).all() and not x.grad.numpy()[1].any()


def test_the_power_0_is_the_unit_matrix_and_depends_on_nothing():
    x = ad.tensor(np.full((2, 2, 2), np.nan), requires_grad=True)
    y = ad.linalg.matrix_power(x, 0)
    assert not y.requires_grad and y.tolist() == [np.eye(2).tolist()] * 2


BATCHES = {
    name: (CASES[name][0], make) for name, make in {
        "inv": general(3, 3, 3), "det": general(3, 3, 3), "slogdet": general(3, 3, 3),
        "cholesky": definite(3, 3, 3), "eigvalsh": hermitian(3, 3, 3), "eigh": hermitian(3, 3, 3),
        "qr, tall": general(3, 4, 2), "eigvals": general(3, 3, 3),
        "svdvals": general(3, 3, 2), "svd, square": general(3, 3, 3),
        "pinv, tall": general(3, 4, 3),
    }.items()
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("kind", "fc")
def test_an_item_of_a_batch_that_does_not_count_has_the_gradient_0_whatever_it_holds(kind):
    for title, (function, make) in BATCHES.items():
        a = make(np.random.default_rng(3), kind)
        expected = None
        for bad in (None, np.nan, np.inf):
            values = a.copy()
            if bad is not None:
                values[1] = bad
            x = ad.tensor(values, requires_grad=True)
            try:
                ys = several(function(ad, x))
            except np.linalg.LinAlgError:
                continue                # NumPy itself refuses
            weights = np.array([1.0, 0.0, 2.0])
            loss = 0.0
            for y in ys:
                w = weights.reshape((3,) + (1,) * (y.ndim - 1))
                loss = loss + ad.sum(ad.where(w != 0.0, ad.real(y) * w, 0.0))
            g = ad.autograd.grad(loss, x)[0].numpy()
            assert not g[1].any(), (title, bad)
            expected = g if expected is None else expected
            assert np.allclose(g, expected), (title, bad)
            tangent = np.zeros_like(values)
            tangent[0] = 1.0
            dots = ad.jvp(lambda x, function=function: several(function(ad, x))[0], (values,),
                          (tangent,))[1]
            assert not np.asarray(dots)[1].any(), (title, bad)


def test_an_item_of_a_batch_of_systems_that_does_not_count_has_the_gradient_0():
    a, b = general(3, 3, 3)(np.random.default_rng(0), "f"), np.ones((3, 3, 1))
    a[1] = np.nan
    x, y = ad.tensor(a, requires_grad=True), ad.tensor(b, requires_grad=True)
    z = ad.linalg.solve(x, y)
    ad.sum(ad.where(ad.isnan(z), 0.0, z)).backward()
    for g in (x.grad.numpy(), y.grad.numpy()):
        assert not g[1].any() and np.isfinite(g).all() and g[0].any()


def test_gradients_keep_the_dtype_of_their_tensor():
    for kind, narrow in (("f", np.float32), ("c", np.complex64)):
        for title, (function, *_) in CASES.items():
            arrays = arrays_of(title, kind)
            expected = gradients(loss_of(function, ad), arrays)
            found = gradients(loss_of(function, ad), [a.astype(narrow) for a in arrays])
            for g, e in zip(found, expected, strict=True):
                assert g.dtype == narrow, title
                assert np.abs(g - e).max(initial=0) < 2e-3 * (1 + np.abs(e).max(initial=0)), (
                    title, np.abs(g - e).max())


# ---- errors --------------------------------------------------------------------------------------


ERRORS = {
    "solve, singular": (lambda xp, x: xp.linalg.solve(x * 0.0, x), "solve: Singular matrix"),
    "solve, not square": (lambda xp, x: xp.linalg.solve(x[:1], x), "solve: "),
    "solve, shapes": (lambda xp, x: xp.linalg.solve(x, x[:1]), "solve: "),
    "inv, singular": (lambda xp, x: xp.linalg.inv(x * 0.0), "inv: Singular matrix"),
    "inv, a vector": (lambda xp, x: xp.linalg.inv(x[0]), "inv: 1-dimensional array given"),
    "det, not square": (lambda xp, x: xp.linalg.det(x[:1]), "det: "),
    "slogdet, not square": (lambda xp, x: xp.linalg.slogdet(x[:1]), "slogdet: "),
    "cholesky, indefinite": (lambda xp, x: xp.linalg.cholesky(-x), "cholesky: Matrix is not"),
    "qr, a vector": (lambda xp, x: xp.linalg.qr(x[0]), "qr: 1-dimensional array given"),
    "qr, mode": (lambda xp, x: xp.linalg.qr(x, "some"), "qr: Unrecognized mode 'some'"),
    "svd, a number": (lambda xp, x: xp.linalg.svd(x[0, 0]), "svd: 0-dimensional array given"),
    "svdvals, a vector": (lambda xp, x: xp.linalg.svdvals(x[0]), "svdvals: 1-dimensional"),
    "eigh, UPLO": (lambda xp, x: xp.linalg.eigh(x, "X"), "eigh: UPLO argument must be 'L' or 'U'"),
    "eigh, not square": (lambda xp, x: xp.linalg.eigh(x[:1]), "eigh: Last 2 dimensions"),
    "eigvalsh, UPLO": (lambda xp, x: xp.linalg.eigvalsh(x, "X"), "eigvalsh: UPLO"),
    "eig, nan": (lambda xp, x: xp.linalg.eig(x * np.nan), "eig: Array must not contain"),
    "eigvals, not square": (lambda xp, x: xp.linalg.eigvals(x[:1]), "eigvals: Last 2 dimensions"),
    "lstsq, shapes": (lambda xp, x: xp.linalg.lstsq(x, x[:1]), "lstsq: Incompatible dimensions"),
    "lstsq, a batch": (lambda xp, x: xp.linalg.lstsq(x[None], x), "lstsq: "),
    "pinv, both": (lambda xp, x: xp.linalg.pinv(x, 0.1, rtol=0.1), "pinv: `rtol` and `rcond`"),
    "matrix_power, exponent": (lambda xp, x: xp.linalg.matrix_power(x, 0.5), "matrix_power: exp"),
    "matrix_power, not square": (lambda xp, x: xp.linalg.matrix_power(x[:1], 2), "matrix_power: "),
    "tensorsolve, shapes": (lambda xp, x: xp.linalg.tensorsolve(x, x[0, :1]), "solve"),
    "tensorinv, ind": (lambda xp, x: xp.linalg.tensorinv(x, 0), "tensorinv: Invalid ind"),
    "multi_dot, one": (lambda xp, x: xp.linalg.multi_dot([x]), "multi_dot: Expecting at"),
    "multi_dot, a cube": (lambda xp, x: xp.linalg.multi_dot([x, x[None], x]), "multi_dot: 3-dim"),
    "cross, two components": (lambda xp, x: xp.linalg.cross(x, x), "linalg.cross: Both input"),
    "outer, matrices": (lambda xp, x: xp.linalg.outer(x, x), "linalg.outer: Input arrays"),
    "norm, axes": (lambda xp, x: xp.linalg.norm(x, axis=(0, 1, 2)), "norm: "),
    "norm, order": (lambda xp, x: xp.linalg.norm(x, 3), "norm: "),
    "cond, empty": (lambda xp, x: xp.linalg.cond(x[:0, :0]), "cond: cond is not defined on empty"),
    "vector_norm, axis": (lambda xp, x: xp.linalg.vector_norm(x, axis=5), ""),
}


@pytest.mark.parametrize("title", ERRORS)
def test_errors_are_of_numpys_kind_and_name_the_function(title):
    call, text = ERRORS[title]
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    with pytest.raises(Exception) as expected:
        call(np, a)
    for recorded in (False, True):
        with pytest.raises(expected.type) as found:
            call(ad, ad.tensor(a, requires_grad=recorded))
        assert str(found.value).startswith(text), found.value


def test_out_takes_the_product_of_several():
    x, y = ad.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), ad.zeros((2, 2))
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert ad.linalg.multi_dot([x, x], out=y) is y and np.array_equal(y.detach(), values @ values)
    y.sum().backward()
    ones = np.ones((2, 2))
    assert np.array_equal(x.grad, ones @ values.T + values.T @ ones)


def test_a_derivative_that_does_not_exist_names_the_function():
    x = ad.tensor(np.ones((3, 2)), requires_grad=True)
    q, r = ad.linalg.qr(x * np.array([1.0, 0.0]))
    with pytest.raises(np.linalg.LinAlgError, match="qr: no derivative here; .*[Ss]ingular"):
        ad.sum(q).backward()


def test_a_defective_matrix_has_no_gradient_and_the_error_names_eig():
    x = ad.tensor([[1.0, 1.0], [0.0, 1.0]], requires_grad=True)
    w, v = ad.linalg.eig(x)
    try:
        g = ad.autograd.grad(ad.sum(ad.abs(v)), x)[0].numpy()
        assert not np.isfinite(g).all() or np.abs(g).max() > 1e7
    except np.linalg.LinAlgError as error:
        assert str(error).startswith("eig: no derivative here; solve: Singular")


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", "fc")
def test_programs_give_eager_values_and_gradients_on_new_inputs(kind):
    for title, (function, *makes) in CASES.items():
        loss = loss_of(function, ad)
        program = ad.compile(lambda xs, loss=loss: loss(*xs))
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            arrays = tuple([make(rng, kind) for make in makes])
            assert np.allclose(program(arrays), loss(*arrays).item(), rtol=1e-13), title
            found = program.grad(arrays)
            for g, expected in zip(found, gradients(loss, arrays), strict=True):
                assert np.allclose(np.asarray(g), expected, rtol=1e-9, atol=1e-11), title


def test_programs_notice_a_singular_matrix_and_complex_eigenvalues():
    program = ad.compile(lambda a: ad.linalg.det(a))
    for a in (np.eye(2), np.ones((2, 2)), np.diag([2.0, 3.0]), np.zeros((2, 2))):
        value, g = program.value_and_grad(a)
        assert value == np.linalg.det(a)
        assert np.allclose(g, [[a[1, 1], -a[1, 0]], [-a[0, 1], a[0, 0]]], atol=1e-15)
    program = ad.compile(lambda a: ad.sum(ad.real(ad.linalg.eigvals(a)) ** 2))
    for a in (np.diag([1.0, 2.0]), np.array([[1.0, -2.0], [2.0, 1.5]]), np.diag([3.0, 1.0])):
        assert np.allclose(program(a), np.sum(np.linalg.eigvals(a).real ** 2))


def test_programs_notice_that_the_rank_of_a_least_squares_problem_changes():
    program = ad.compile(lambda a, b: ad.sum(ad.linalg.lstsq(a, b)[1]) + ad.sum(a))
    b = np.arange(3.0)
    for a in (np.eye(3, 2), np.ones((3, 2)), np.eye(3, 2) * 2.0):
        assert np.allclose(program(a, b), np.sum(np.linalg.lstsq(a, b)[1]) + a.sum())


def test_programs_with_factorizations_are_stored_in_files(tmp_path):
    def f(a):
        w, v = ad.linalg.eigh(a)
        q, r = ad.linalg.qr(a)
        y = ad.sum(w * v[0] ** 2) + ad.linalg.det(a) + ad.sum(ad.linalg.svd(a)[1]) + r[0, 0] ** 2
        y = y + ad.sum(abs(ad.linalg.eigvals(a))) + ad.sum(ad.linalg.pinv(a) @ ad.linalg.inv(a))
        return y + ad.sum(ad.real(ad.fft.fft(a)))

    a, b = (definite(3, 3)(np.random.default_rng(k), "f") for k in (0, 1))
    program = ad.compile(f)
    program.value_and_grad(a)
    program(a)
    program.save(tmp_path / "f.fad")
    again = ad.load(tmp_path / "f.fad")
    assert float(again(b)) == float(f(b))


def test_arguments_are_named_ordered_and_given_as_numpys():
    for name in set(np.linalg.__all__) - {"LinAlgError"}:
        found = inspect.signature(getattr(ad.linalg, name)).parameters.values()
        expected = inspect.signature(getattr(np.linalg, name)).parameters.values()
        assert [(p.name, p.kind) for p in found] == [(p.name, p.kind) for p in expected], name
