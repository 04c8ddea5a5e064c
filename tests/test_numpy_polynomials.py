"""Polynomials: what the examples of test_numpy_coverage do not reach."""

import numpy as np
import numpy.polynomial as series
import pytest

import fastad as ad


def slopes(f, x, step=1e-6):
    """Central differences of a number."""
    x = np.asarray(x, float)
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        e = np.zeros(x.shape)
        e[place] = step
        found[place] = (f(x + e) - f(x - e)) / (2 * step)
    return found


# ---- roots ---------------------------------------------------------------------------------------


def of_roots(weights):
    """A real function of the last roots in NumPy's order, as many as there are weights."""
    def f(p):
        r = np.roots(p)
        return np.real(r[len(r) - len(weights) :] * weights).sum()
    return f


@pytest.mark.parametrize("p, f", [
    ([1.0, -6.0, 11.0, -6.0], of_roots([1.0, 2.0, -1.0])),
    ([2.0, 1.0, 3.0], of_roots([1.0 + 2.0j, 0.5j])),
    ([1.0, -3.0, 2.0, 0.0], of_roots([1.0, 2.0, 5.0])),
], ids=["real", "complex", "one at 0"])
def test_roots_have_the_derivatives_of_the_implicit_function_theorem(p, f):
    g = ad.grad(f)(np.array(p))
    assert np.allclose(g, slopes(f, p), atol=1e-7)
    v = np.linspace(1.0, 2.0, len(p))
    curved = ad.jvp(ad.grad(f), (np.array(p),), (v,))[1]
    want = (ad.grad(f)(p + 1e-5 * v) - ad.grad(f)(p - 1e-5 * v)) / 2e-5
    assert np.allclose(curved, want, rtol=1e-5, atol=1e-6)


def test_a_leading_zero_has_the_slope_of_the_finite_roots():
    p = np.array([0.0, 1.0, -3.0, 2.0])
    g = ad.grad(lambda p: np.roots(p)[0])(p)

    def nearest(h):
        r = np.roots(p + [h, 0, 0, 0])
        return r[np.argmin(abs(r - 2.0))]

    assert np.isclose(g[0], (nearest(1e-6) - nearest(-1e-6)) / 2e-6, atol=1e-5)


def test_a_repeated_root_spoils_only_what_depends_on_it():
    p = ad.tensor([1.0, -2.0, 0.0, 0.0], requires_grad=True)       # 2, 0, 0
    r = ad.roots(p)
    g = ad.autograd.grad(r[0], [p], retain_graph=True)[0]
    assert np.allclose(g.numpy(), [-2.0, -1.0, -0.5, -0.25])
    assert not np.isfinite(ad.autograd.grad(r[1], [p])[0].numpy()).any()


SAME = [[3.0], [0.0, 0.0], [], [0.0, 0.0, 5.0], [4.0, 0.0, 0.0], [1, -3, 2], [1j, 0.0, 2.0],
        [1 + 1j, 0.0], np.float32([1, 2, 3]), np.float32([0, 0]), [1.0, 0.0, -1.0, 0.0]]


@pytest.mark.parametrize("p", SAME, ids=repr)
def test_roots_are_numpys_with_and_without_gradients(p):
    want = np.roots(p)
    x = ad.tensor(p)
    for t in (x, x.requires_grad_()) if x.dtype.kind in "fc" else (x,):
        # NumPy asks the elements, so of none it learns nothing
        for got in (ad.roots(t), np.roots(t))[: 1 + bool(len(p))]:
            assert got.dtype == want.dtype
            assert got.detach().numpy().tobytes() == want.tobytes()


def test_a_program_follows_the_number_and_the_kind_of_roots():
    program = ad.compile(lambda p: ad.sum(abs(np.roots(p)) ** 2))
    points = [[1.0, -3.0, 2.0], [1.0, 0.0, 4.0], [0.0, 1.0, 4.0], [1.0, -5.0, 6.0], [0.0, 0.0, 1.0]]
    for p in points * 2:
        p = np.array(p)
        value, g = program.value_and_grad(p)
        assert value == float((abs(np.roots(p)) ** 2).sum())
        assert np.allclose(g, ad.grad(lambda p: ad.sum(abs(np.roots(p)) ** 2))(p))


def test_roots_of_a_poly1d_have_gradients():
    p = ad.tensor([1.0, -3.0, 2.0], requires_grad=True)
    np.poly1d(p).roots[0].backward()
    assert np.allclose(p.grad.numpy(), [-4.0, -2.0, -1.0])


# ---- polynomials of matrices ---------------------------------------------------------------------


def test_a_matrix_with_equal_eigenvalues_is_like_any_other():
    a, w = np.eye(3) + np.eye(3, k=1), np.array([0.3, 1.0, -2.0, 0.7])
    g = ad.grad(lambda a: (np.poly(a) * w).sum())(a)
    assert np.allclose(g, slopes(lambda a: ad.poly(ad.tensor(a)).numpy() @ w, a), atol=1e-4)
    h = ad.hessian(lambda a: np.poly(a)[3])(a)
    assert np.allclose(h, ad.hessian(lambda a: -ad.linalg.det(a))(a))


@pytest.mark.parametrize("zeros", [
    [1j, -1j], [1j, 2.0], np.diag([1 + 0j, 2.0]), [[1.0, 2j], [-2j, 3.0]], [], [1, 2],
], ids=repr)
def test_poly_has_numpys_dtype(zeros):
    want = np.poly(zeros)
    t = ad.tensor(zeros, dtype=None if np.size(zeros) else float)
    got = ad.poly(t.requires_grad_() if t.dtype.kind in "fc" else t)
    assert getattr(got, "dtype", float) == getattr(want, "dtype", float)
    assert np.array_equal(ad.array(got).detach().numpy(), want)


def test_a_program_follows_whether_a_polynomial_is_real():
    def f(z):
        return ad.sum(abs(np.poly(z)) ** 2)

    program = ad.compile(f)
    for z in [[1j, -1j], [1j, 2.0], [3j, -3j]] * 2:
        z = np.array(z)
        assert np.isclose(program(z), (abs(np.poly(z)) ** 2).sum())
        assert np.allclose(program.grad(z), ad.grad(f)(z))


# ---- fits ----------------------------------------------------------------------------------------

BAD = {
    "degree": lambda x, y: np.polyfit(x, y, -1),
    "two axes": lambda x, y: np.polyfit(y, y, 1),
    "lengths": lambda x, y: np.polyfit(x[1:], y, 1),
    "weights": lambda x, y: np.polyfit(x, y, 1, w=x[1:]),
    "no points": lambda x, y: np.polyfit(x[:0], y[:0], 1),
    "too few for cov": lambda x, y: np.polyfit(x, y, 3, cov=True),
    "poly": lambda x, y: np.poly(y),
    "roots": lambda x, y: np.roots(y),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises_as_numpy_does(name):
    x, y = np.array([0.5, 1.0, 3.0, 4.0]), np.arange(8.0).reshape(4, 2)
    with pytest.raises((TypeError, ValueError)) as want:
        BAD[name](x, y)
    with pytest.raises(want.type) as got:
        BAD[name](ad.tensor(x, requires_grad=True), ad.tensor(y, requires_grad=True))
    assert str(want.value).rstrip(".").lower() in str(got.value).lower()


def test_a_fit_of_low_rank_warns_as_numpy_does():
    x = ad.tensor([1.0, 1.0, 1.0], requires_grad=True)
    with pytest.warns(np.exceptions.RankWarning):
        np.polyfit(x, [1.0, 2.0, 3.0], 1)


def test_results_of_a_fit_are_numpys():
    x, y = np.array([0.5, 1.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 2.5])
    for dtype in (np.float64, np.float32):
        want = np.polyfit(x.astype(dtype), y.astype(dtype), 1, full=True)
        t = ad.tensor(x.astype(dtype), requires_grad=True)
        got = np.polyfit(t, y.astype(dtype), 1, full=True)
        assert [np.asarray(g.detach()).dtype for g in got] == [np.asarray(w).dtype for w in want]
        assert all(np.array_equal(g.detach().numpy(), w) for g, w in zip(got, want))
        got[0][0].backward()
        assert t.grad.dtype == dtype


def test_a_program_follows_the_rank_of_a_fit():
    def f(x, y):
        c, squares, rank, s, rcond = np.polyfit(x, y, 1, full=True)
        return ad.sum(c) + ad.sum(squares) + s[0]

    program, y = ad.compile(f), np.array([1.0, 3.0, 2.0])
    for x in ([0.0, 1.0, 3.0], [1.0, 1.0, 1.0], [2.0, 1.0, 0.0]) * 2:
        x = np.array(x)
        assert np.isclose(program(x, y), float(f(x, y)))
        assert np.allclose(program.grad(x, y), ad.grad(f)(x, y))


# ---- numpy.polynomial ----------------------------------------------------------------------------

POLYNOMIAL = series.polynomial
OF_SERIES = {
    "values": lambda c, x: series.Polynomial(c)(x),
    "product": lambda c, x: (series.Polynomial(c) * series.Polynomial(c))(x),
    "slope and integral": lambda c, x: series.Polynomial(c).deriv()(x) * series.Polynomial(
        c).integ()(x),
    "roots": lambda c, x: abs(series.Polynomial(c).roots() - x[:2]),
    "fit": lambda c, x: series.Polynomial.fit(x, x**3 + c[0], 2)(c),
    "Chebyshev": lambda c, x: series.Chebyshev(c)(x),
    "Legendre": lambda c, x: series.Legendre(c)(x),
    "constants": lambda c, x: series.Polynomial([1.0, 2.0, 3.0])(x * c),
    "three variables": lambda c, x: POLYNOMIAL.polyval3d(x, x, x, c * np.ones((2, 2, 1))),
}


@pytest.mark.parametrize("name", OF_SERIES)
def test_series_of_numpy_take_tensors_inside_adapt(name):
    call = OF_SERIES[name]
    c, x = np.array([0.7, -0.4, 1.3]), np.array([0.2, 0.9, -0.6])

    def f(z):
        y = call(z[:3], z[3:])
        return (y * np.array([1.0, 0.7, -1.2])[: len(y)]).sum()

    z = np.concatenate([c, x])
    with ad.adapt("numpy.polynomial"):
        value, g = ad.value_and_grad(f)(z)
    assert np.isclose(value, f(z), rtol=1e-14)
    assert np.allclose(g, slopes(f, z), atol=1e-7)


def test_series_of_numpy_refuse_tensors_that_require_gradients_elsewhere():
    c = ad.tensor([1.0, 2.0], requires_grad=True)
    for call in (series.Polynomial, lambda c: POLYNOMIAL.polyval(0.5, c)):
        with pytest.raises(TypeError, match="would drop"):
            call(c)


overridable = pytest.mark.skipif(
    not hasattr(POLYNOMIAL.polyval2d, "__wrapped__"), reason="NumPy does not let it be overridden")


@overridable
def test_polynomials_of_two_variables_take_lists_and_raise_as_numpy_does():
    c = ad.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = POLYNOMIAL.polyval2d([0.5, 1.0], [2.0, 3.0], c)
    assert y.tolist() == POLYNOMIAL.polyval2d([0.5, 1.0], [2.0, 3.0], c.detach().numpy()).tolist()
    y[0].backward()
    assert c.grad.tolist() == [[1.0, 2.0], [0.5, 1.0]]
    with pytest.raises(ValueError, match="polyval2d: .*incompatible"):
        POLYNOMIAL.polyval2d([0.5], [2.0, 3.0], c)
