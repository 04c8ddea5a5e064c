"""The functions of ``scipy.linalg`` over tensors."""

import numpy as np
import pytest
from directional import assert_derivatives, vector

import fastad as ad

scipy_linalg = pytest.importorskip("scipy.linalg")


class Both:
    """A namespace of fastad's or of SciPy's functions, with NumPy's beside them."""

    def __init__(self, numpy, linalg):
        self.numpy, self.linalg = numpy, linalg

    def __getattr__(self, name):
        return getattr(self.numpy, name)


FASTAD, SCIPY = Both(ad, ad.linalg), Both(np, scipy_linalg)


def matrices(*shape):
    def make(rng, kind):
        a = vector(*shape)(rng, kind)
        return 0.4 * a + np.eye(shape[-1]) * np.linspace(2.0, 4.0, shape[-1])
    return make


def definite(*shape):
    def make(rng, kind):
        a = matrices(*shape)(rng, kind)
        return a @ a.conj().swapaxes(-1, -2)
    return make


def with_negative_eigenvalues(rng, kind):
    a = matrices(2, 2)(rng, kind)
    a[0] *= -1.0
    return a


def solve_cholesky(lower):
    def function(xp, a, b):
        factor = xp.linalg.cho_factor(a, lower)
        triangle = xp.tril(factor[0]) if lower else xp.triu(factor[0])
        return [triangle, xp.linalg.cho_solve(factor, b)]
    return function


def solve_lu(trans):
    def function(xp, a, b):
        factors = xp.linalg.lu_factor(a)
        return [factors[0], xp.linalg.lu_solve(factors, b, trans)]
    return function


CASES = {
    "expm": (lambda xp, a: xp.linalg.expm(a), vector(3, 3)),
    "expm in batches": (lambda xp, a: xp.linalg.expm(a), vector(2, 3, 3)),
        "logm in batches": (lambda xp, a: xp.linalg.logm(a), matrices(2, 2, 2)),
    "logm, complex": (lambda xp, a: xp.linalg.logm(a), with_negative_eigenvalues),
    "sqrtm": (lambda xp, a: xp.linalg.sqrtm(a), matrices(3, 3)),
    "sqrtm in batches": (lambda xp, a: xp.linalg.sqrtm(a), matrices(2, 2, 2)),
    "sqrtm, complex": (lambda xp, a: xp.linalg.sqrtm(a), with_negative_eigenvalues),
    **{f"solve_triangular, trans {trans}, lower {lower}, unit {unit}": (
        lambda xp, a, b, options={"trans": trans, "lower": lower, "unit_diagonal": unit}:
        xp.linalg.solve_triangular(a, b, **options), matrices(3, 3), vector(3, 2))
       for trans in (0, 1, 2) for lower in (False, True) for unit in (False, True)},
    "solve_triangular of a vector": (lambda xp, a, b: xp.linalg.solve_triangular(a, b),
                                     matrices(3, 3), vector(3)),
    "cho_solve": (solve_cholesky(False), definite(3, 3), vector(3, 2)),
    "cho_solve, lower": (solve_cholesky(True), definite(3, 3), vector(3)),
    **{f"lu_solve, trans {trans}": (solve_lu(trans), vector(4, 4), vector(4, 2))
       for trans in (0, 1, 2)},
    "lu_solve of a vector": (solve_lu(0), vector(3, 3), vector(3)),
}


def arrays_of(title, kind):
    rng = np.random.default_rng(len(title))
    return [make(rng, kind) for make in CASES[title][1:]]


@pytest.mark.parametrize("kind", "fc")
@pytest.mark.parametrize("title", CASES)
def test_derivatives_are_those_of_differences(title, kind):
    assert_derivatives(CASES[title][0], arrays_of(title, kind), xp=SCIPY, ours=FASTAD)


def several(result):
    return [y for y in (result if isinstance(result, (list, tuple)) else [result])
            if not isinstance(y, (bool, int))]


@pytest.mark.filterwarnings("ignore:logm result may be inaccurate")
@pytest.mark.parametrize("dtype", "fdFD")
def test_values_are_scipys_bits(dtype):
    for title, (function, *_) in CASES.items():
        arrays = [a.astype(dtype) for a in arrays_of(title, "c" if dtype in "FD" else "f")]
        expected = several(function(SCIPY, *arrays))
        for recorded in (False, True):
            xs = [ad.tensor(a, requires_grad=recorded) for a in arrays]
            found = several(function(FASTAD, *xs))
            for y, z in zip(found, expected, strict=True):
                y = y.detach().numpy()
                # logm and expm of single precision are double in SciPy, and here single again
                assert np.array_equal(y, z.astype(y.dtype)), (title, y - z)


def test_batches_are_loops_over_scipy():
    rng = np.random.default_rng(0)
    a, b = definite(2, 1, 3, 3)(rng, "f"), vector(4, 3, 2)(rng, "f")
    batch = np.ndindex(2, 4)
    x = ad.tensor(a, requires_grad=True)
    y = ad.tensor(b, requires_grad=True)
    solutions = {
        "triangular": ad.linalg.solve_triangular(x, y),
        "cholesky": ad.linalg.cho_solve(ad.linalg.cho_factor(x), y),
        "lu": ad.linalg.lu_solve(ad.linalg.lu_factor(x), y),
    }
    for place in batch:
        m, r = a[place[0], 0], b[place[1]]
        assert np.array_equal(solutions["triangular"].detach().numpy()[place],
                              scipy_linalg.solve_triangular(m, r))
        for name in ("cholesky", "lu"):
            assert np.allclose(solutions[name].detach().numpy()[place], np.linalg.solve(m, r))
    grads = [ad.autograd.grad(ad.sum(z * z), [x, y], retain_graph=True) for z in solutions.values()]
    assert np.allclose(grads[1][1].numpy(), grads[2][1].numpy())
    assert np.allclose(ad.linalg.expm(np.zeros((0, 2, 2))).numpy(), np.zeros((0, 2, 2)))
    for function in (ad.linalg.expm, ad.linalg.logm, ad.linalg.sqrtm):
        assert function(np.zeros((3, 0, 0))).shape == (3, 0, 0)


def test_known_derivatives():
    x = ad.tensor(np.zeros((2, 2)), requires_grad=True)
    ad.linalg.expm(x)[0, 1].backward()
    assert np.allclose(x.grad.numpy(), [[0.0, 1.0], [0.0, 0.0]])
    # three orders of exp(t a) along a: trace(a^k exp(a))
    a = np.array([[0.3, -0.2], [0.5, 0.1]])
    t = ad.tensor(1.0, requires_grad=True)
    y = ad.trace(ad.linalg.expm(t * ad.tensor(a)))
    for order in (1, 2, 3):
        y = ad.autograd.grad(y, t, create_graph=True)[0]
        expected = np.trace(np.linalg.matrix_power(a, order) @ scipy_linalg.expm(a))
        assert y.item() == pytest.approx(expected, rel=1e-12), order
    # the second derivative of log(t) times the unit matrix
    t = ad.tensor(2.0, requires_grad=True)
    y = ad.trace(ad.linalg.logm(t * ad.eye(2)))
    g = ad.autograd.grad(y, t, create_graph=True)[0]
    assert g.item() == pytest.approx(1.0)
    assert ad.autograd.grad(g, t)[0].item() == pytest.approx(-0.5)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_result_that_becomes_complex_is_noticed_by_programs():
    for name in ("sqrtm", "logm"):
        def f(a, name=name):
            return ad.sum(abs(getattr(ad.linalg, name)(a)))

        program = ad.compile(f)
        for a in (np.diag([4.0, 9.0]), np.diag([-4.0, 9.0]), np.diag([5.0, 1.0])):
            # (SciPy's logm draws random numbers to estimate norms: such a program gives up)
            assert np.allclose(program(a), np.abs(getattr(scipy_linalg, name)(a)).sum()), name
            assert np.allclose(program.grad(a), ad.grad(f)(ad.tensor(a)).numpy()), name


@pytest.mark.filterwarnings("ignore:Diagonal number")
def test_programs_replay_and_are_stored(tmp_path):
    def f(a, b):
        x = ad.linalg.lu_solve(ad.linalg.lu_factor(a), b)
        y = ad.linalg.cho_solve(ad.linalg.cho_factor(a @ a.T + ad.eye(3)), b)
        return ad.sum(x * y) + ad.trace(ad.linalg.expm(0.1 * a)) + ad.sum(
            ad.linalg.solve_triangular(a, b))

    program = ad.compile(f)
    rng = np.random.default_rng(1)
    for k in range(3):
        a, b = rng.normal(size=(3, 3)), rng.normal(size=3)
        assert program(a, b) == f(a, b).item()
        assert np.allclose(program.grad(a, b), ad.grad(f)(ad.tensor(a), b).numpy()), k
    program.save(tmp_path / "f.fad")
    assert ad.load(tmp_path / "f.fad")(a, b) == f(a, b).item()


ERRORS = {
    "a singular triangle": (np.linalg.LinAlgError, "solve_triangular: ",
                            lambda xp, a: xp.linalg.solve_triangular(a * 0.0, a)),
    "not positive definite": (np.linalg.LinAlgError, "cho_factor: ",
                              lambda xp, a: xp.linalg.cho_factor(-a)),
    "nan": (ValueError, "lu_factor: array must not contain infs or NaNs",
            lambda xp, a: xp.linalg.lu_factor(a * np.nan)),
    "inf": (ValueError, "solve_triangular: array must not contain infs or NaNs",
            lambda xp, a: xp.linalg.solve_triangular(a, a[0] * np.inf)),
    "expm of what is not square": (ValueError, "expm: expected square matrices",
                                   lambda xp, a: xp.linalg.expm(a[:1])),
    "sqrtm of what is not square": (ValueError, "sqrtm: expected square matrices",
                                    lambda xp, a: xp.linalg.sqrtm(a[:1])),
    "shapes": (ValueError, "cho_solve: ", lambda xp, a: xp.linalg.cho_solve((a, True), a[0, :1])),
}


@pytest.mark.parametrize("title", ERRORS)
def test_errors_are_of_scipys_kind_and_name_the_function(title):
    kind, text, call = ERRORS[title]
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    with pytest.raises(kind):
        call(SCIPY, a)
    with pytest.raises(kind) as found:
        call(FASTAD, ad.tensor(a, requires_grad=True))
    assert str(found.value).startswith(text)


def test_a_wrong_trans_is_refused():
    with pytest.raises(ValueError, match="solve_triangular: trans is one of"):
        ad.linalg.solve_triangular(np.eye(2), np.ones(2), trans="X")


def test_scipy_is_imported_when_it_is_needed_and_missed_by_name(fresh_python):
    assert fresh_python("""
        import sys
        import fastad as ad
        assert "scipy" not in sys.modules
        ad.linalg.solve([[2.0]], [1.0])
        assert "scipy" not in sys.modules
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "scipy":
                    raise ImportError(name)
        sys.meta_path.insert(0, Missing())
        for name in ("expm", "logm", "sqrtm", "cho_factor", "lu_factor"):
            try:
                getattr(ad.linalg, name)([[1.0]])
            except ImportError as error:
                assert str(error).startswith(name + ": needs SciPy"), error
            else:
                raise AssertionError(name)
        print("fine")
    """).strip() == "fine"
