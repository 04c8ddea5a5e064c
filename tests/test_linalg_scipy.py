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
        return [factor[0], xp.linalg.cho_solve(factor, b)]
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
