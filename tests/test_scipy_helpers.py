"""SciPy's solvers with exact derivatives, against derivatives by hand and differences."""

import array
import functools
import random
import sys
import warnings

import numpy as np
import pytest

import fastad as ad

optimize = pytest.importorskip("scipy.optimize")
integrate = pytest.importorskip("scipy.integrate")

CALLS = array.array("q", [0])      # not among the things that programs watch
START = np.array([-1.2, 1.0, 0.7])
T = np.linspace(0.0, 4.0, 40)
NOISE = np.sin(37.0 * T) * 0.01
FIRST_ORDER = ["CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr"]
SECOND_ORDER = ["Newton-CG", "dogleg", "trust-ncg", "trust-krylov", "trust-exact", "trust-constr"]


def rosenbrock(x):
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()


def bowl(x, centre, scale):
    """Convex, so that dogleg may be used."""
    return (scale * (x - centre) ** 2).sum() + (x**4).sum()


def residuals(b):
    return b[0] * np.exp(-b[1] * T) - 2.5 * np.exp(-1.3 * T) - NOISE


def residuals_jacobian(b):
    return np.stack([np.exp(-b[1] * T), -b[0] * T * np.exp(-b[1] * T)], 1)


def robertson(t, y):
    """Chemical kinetics, stiff; a list of numbers."""
    slow, fast, pair = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [fast - slow, slow - fast - pair, pair]


def robertson_jacobian(t, y):
    return np.array([
        [-0.04, 1e4 * y[2], 1e4 * y[1]],
        [0.04, -1e4 * y[2] - 6e7 * y[1], -1e4 * y[1]],
        [0.0, 6e7 * y[1], 0.0],
    ])


def equations(x):
    return [x[0] * np.cos(x[1]) - 4.0, x[1] * x[0] - x[1] - 5.0]


def counted(f):
    """f, and a function that says how often Python ran it."""
    def g(*args, **kwargs):
        CALLS[0] += 1
        return f(*args, **kwargs)

    before = CALLS[0]
    return g, lambda: CALLS[0] - before


@pytest.fixture
def handed_over(monkeypatch):
    """What a helper gives to a function of SciPy, which is run all the same."""
    def watch(module, name):
        seen = {}
        original = getattr(module, name)

        def call(fun, *args, **kwargs):
            seen.update(kwargs, fun=fun)
            return original(fun, *args, **kwargs)

        monkeypatch.setattr(module, name, call)
        return seen
    return watch


@pytest.fixture(autouse=True)
def no_warnings():
    """A helper must not call SciPy with what SciPy warns about, nor lose a program."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # SciPy's own, about solvers that stop early or its internals
        warnings.filterwarnings("ignore", module="scipy")
        warnings.filterwarnings("ignore", message="delta_grad == 0.0")
        yield


# ---- the import ----------------------------------------------------------------------------------


def test_importing_fastad_does_not_import_scipy(fresh_python):
    assert fresh_python("""
        import sys
        import fastad
        print("scipy" in sys.modules, fastad.scipy.__name__)
        fastad.scipy.root(lambda x: x - 1.0, [0.0])
        print("scipy.optimize" in sys.modules)
    """).split() == ["False", "fastad.scipy", "True"]


@pytest.mark.parametrize("call", [
    lambda: ad.scipy.minimize(rosenbrock, START),
    lambda: ad.scipy.least_squares(residuals, [1.0, 1.0]),
    lambda: ad.scipy.root(equations, [1.0, 1.0]),
    lambda: ad.scipy.curve_fit(lambda t, a: a * t, T, T),
    lambda: ad.scipy.solve_ivp(robertson, (0.0, 1.0), [1.0, 0.0, 0.0]),
])
def test_without_scipy_the_error_names_the_extra(monkeypatch, call):
    for name in [name for name in sys.modules if name.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r'pip install "fastad\[scipy\]"'):
        call()


# ---- minimize ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [None, *FIRST_ORDER])
def test_methods_of_first_order_reach_the_optimum_with_fewer_evaluations(method):
    ours = ad.scipy.minimize(bowl, START, (0.5, 3.0), method)
    differences = optimize.minimize(bowl, START, (0.5, 3.0), method)
    assert type(ours) is type(differences)
    np.testing.assert_allclose(ours.x, differences.x, atol=1e-4)
    assert ours.nfev < differences.nfev


@pytest.mark.parametrize("method", FIRST_ORDER)
def test_a_gradient_by_hand_leads_along_the_same_path(method):
    ours = ad.scipy.minimize(bowl, START, (0.5, 3.0), method)
    by_hand = optimize.minimize(
        bowl, START, (0.5, 3.0), method, jac=lambda x, c, s: 2 * s * (x - c) + 4 * x**3,
        hess=(lambda x, c, s: np.diag(2 * s + 12 * x**2)) if method == "trust-constr" else None)
    np.testing.assert_allclose(ours.x, by_hand.x, rtol=1e-9)
    assert (ours.nfev, ours.nit) == (by_hand.nfev, by_hand.nit)


@pytest.mark.parametrize("method", SECOND_ORDER)
def test_a_hessian_by_hand_leads_along_the_same_path(method):
    centre = np.array([0.5, -1.0, 2.0])
    ours = ad.scipy.minimize(bowl, START, (centre, 3.0), method)
    by_hand = optimize.minimize(
        lambda x: bowl(x, centre, 3.0), START, method=method,
        jac=lambda x: 6.0 * (x - centre) + 4 * x**3, hess=lambda x: np.diag(6.0 + 12 * x**2))
    np.testing.assert_allclose(ours.x, by_hand.x, rtol=1e-7)
    assert ours.nit == by_hand.nit
    assert ours.success


@pytest.mark.parametrize("method", SECOND_ORDER)
def test_the_hessian_is_that_of_the_function(method, handed_over):
    seen = handed_over(optimize, "minimize")
    ad.scipy.minimize(bowl, START, (0.5, 3.0), method)
    assert seen["jac"] is True
    assert seen["hessp"] is None
    np.testing.assert_allclose(
        seen["hess"](START, 0.5, 3.0), np.diag(6.0 + 12 * START**2), rtol=1e-14, atol=1e-14)
    value, gradient = seen["fun"](START, 0.5, 3.0)
    assert type(value) is float
    assert value == bowl(START, 0.5, 3.0)
    np.testing.assert_allclose(gradient, 6.0 * (START - 0.5) + 4 * START**3, rtol=1e-14)


def test_the_gradient_passes_scipys_check(handed_over):
    seen = handed_over(optimize, "minimize")
    ad.scipy.minimize(rosenbrock, START)
    error = optimize.check_grad(
        lambda x: seen["fun"](x)[0], lambda x: seen["fun"](x)[1], np.array([0.3, -0.2, 1.1]))
    assert error < 1e-5


@pytest.mark.parametrize("n", [3, 40])
def test_a_dense_hessian_is_exact_at_every_size(n, handed_over):
    seen = handed_over(optimize, "minimize")
    x = np.linspace(-1.0, 1.5, n)
    ad.scipy.minimize(rosenbrock, x, method="trust-exact", options={"maxiter": 2})
    np.testing.assert_allclose(seen["hess"](x), optimize.rosen_hess(x), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "trust-krylov", "trust-constr"])
def test_many_variables_get_products_with_the_hessian(method, handed_over):
    seen = handed_over(optimize, "minimize")
    x = np.linspace(-1.0, 1.5, 20)
    v = np.cos(x)
    found = ad.scipy.minimize(rosenbrock, x, method=method, options={"maxiter": 1000})
    assert seen["hess"] is None
    np.testing.assert_allclose(seen["hessp"](x, v), optimize.rosen_hess_prod(x, v), rtol=1e-12)
    np.testing.assert_allclose(found.x, 1.0, atol=1e-3)


def test_products_with_the_hessian_take_arguments(handed_over):
    seen = handed_over(optimize, "minimize")
    x = np.linspace(-1.0, 1.5, 20)
    ad.scipy.minimize(bowl, x, (0.5, 3.0), "Newton-CG")
    np.testing.assert_allclose(seen["hessp"](x, x, 0.5, 3.0), (6.0 + 12 * x**2) * x, rtol=1e-14)


def test_value_and_gradient_come_from_one_run():
    p = ad.compile(rosenbrock)
    found = ad.scipy.minimize(p, START, method="BFGS")
    (replay,) = p._derived.values()
    assert found.nfev == found.njev
    assert replay.recordings == 1
    assert replay.recordings + replay.replays == found.nfev


def test_python_runs_the_function_only_while_recording():
    f, count = counted(rosenbrock)
    ad.scipy.minimize(f, START, method="BFGS")
    assert count() == 1


def test_a_compiled_function_keeps_its_recordings_between_calls():
    p = ad.compile(rosenbrock)
    first = ad.scipy.minimize(p, START, method="trust-exact")
    recorded = [replay.recordings for replay in p._derived.values()]
    second = ad.scipy.minimize(p, START, method="trust-exact")
    assert [replay.recordings for replay in p._derived.values()] == recorded == [1, 1, 0]
    assert (first.x == second.x).all()


@pytest.mark.parametrize("method", ["Nelder-Mead", "Powell", "COBYLA"])
def test_methods_without_gradients_run_on_the_compiled_function(method):
    ours = ad.scipy.minimize(bowl, START, (0.5, 3.0), method)
    scipys = optimize.minimize(bowl, START, (0.5, 3.0), method)
    assert (ours.x == scipys.x).all()
    assert ours.nfev == scipys.nfev


@pytest.mark.parametrize("x0", [[-1, 2, 0], (-1.2, 1.0, 0.7), START.astype(np.float32),
                                START[::-1], ad.tensor(START)])
def test_starting_points_become_float64(x0):
    found = ad.scipy.minimize(bowl, x0, (0.5, 3.0))
    assert found.x.dtype == np.float64
    reference = optimize.minimize(bowl, START, (0.5, 3.0), tol=1e-9)
    np.testing.assert_allclose(found.x, reference.x, atol=1e-4)


def test_one_variable_may_be_a_number():
    found = ad.scipy.minimize(lambda x: (x[0] - 2.0) ** 2, 0.0)
    assert found.x.shape == (1,)
    assert found.x[0] == pytest.approx(2.0, abs=1e-8)


def test_a_result_of_one_element_counts_as_a_number():
    assert ad.scipy.minimize(lambda x: (x - 2.0) ** 2, 0.0).x[0] == pytest.approx(2.0)


def test_arguments_are_passed_on_as_in_scipy():
    assert ad.scipy.minimize(lambda x, a: (x[0] - a) ** 2, 0.0, 3.0).x[0] == pytest.approx(3.0)
    found = ad.scipy.minimize(
        lambda x, a, name, n: ((x - a) ** n).sum() if name == "power" else x.sum(),
        np.zeros(2), (np.array([1.0, 2.0]), "power", 2))
    np.testing.assert_allclose(found.x, [1.0, 2.0], atol=1e-6)


def test_a_function_may_make_arrays_of_its_arguments():
    def f(x, centre, weight):
        return (np.diag([weight, 2.0]) @ (x - np.array(centre)) ** 2).sum()

    args = ([1.0, 2.0], 3.0)
    for method in (None, "Newton-CG", "trust-exact", "Nelder-Mead"):
        found = ad.scipy.minimize(f, [0.0, 0.0], args, method)
        np.testing.assert_allclose(found.x, [1.0, 2.0], atol=1e-4)
    constraint = {"type": "ineq", "fun": lambda x, a: np.array(a) - x, "args": ([0.5, 9.0],)}
    for method in ("SLSQP", "trust-constr"):
        found = ad.scipy.minimize(f, [0.0, 0.0], args, method, constraints=constraint)
        np.testing.assert_allclose(found.x, [0.5, 2.0], atol=1e-3)
    found = ad.scipy.least_squares(lambda x, a: x - np.array(a), [0.0, 0.0], args=([1.0, 2.0],))
    np.testing.assert_allclose(found.x, [1.0, 2.0])
    found = ad.scipy.root(lambda x, a: x - np.array(a), [0.0, 0.0], ([1.0, 2.0],))
    np.testing.assert_allclose(found.x, [1.0, 2.0])


def test_a_compiled_function_gets_arguments_as_inputs():
    p = ad.compile(bowl)
    for centre in (0.5, 1.0, 2.0):
        found = ad.scipy.minimize(p, START, (centre, 3.0), "trust-exact")
        reference = optimize.minimize(bowl, START, (centre, 3.0), tol=1e-9)
        np.testing.assert_allclose(found.x, reference.x, atol=1e-4)
    assert [replay.recordings for replay in p._derived.values()] == [1, 1, 0]


def test_arguments_that_change_on_the_way_are_noticed():
    target = np.zeros(3)

    def look_twice(fun, x0, args=(), **more):
        before = fun(x0, *args)
        target[:] = 1.0
        return optimize.OptimizeResult(x=x0, before=before, after=fun(x0 + 1.0, *args))

    found = ad.scipy.minimize(
        lambda x, a: ((x - a) ** 2).sum(), np.zeros(3), (target,), look_twice)
    assert (found.before, found.after) == (0.0, 0.0)


@pytest.mark.parametrize("method", [None, "L-BFGS-B", "TNC", "SLSQP", "trust-constr"])
@pytest.mark.parametrize("bounds", [[(None, 0.5), (0.0, None), (-2.0, 2.0)],
                                    optimize.Bounds([-np.inf, 0.0, -2.0], [0.5, np.inf, 2.0])])
def test_bounds_are_kept(method, bounds):
    found = ad.scipy.minimize(rosenbrock, [0.0, 1.0, 0.7], method=method, bounds=bounds)
    reference = optimize.minimize(
        rosenbrock, [0.0, 1.0, 0.7], method="L-BFGS-B", bounds=bounds, tol=1e-12)
    np.testing.assert_allclose(found.x, reference.x, atol=2e-3)


def test_a_branch_in_the_function_is_followed():
    def huber(x):
        total = 0.0
        for k in range(3):
            r = x[k] - k
            total = total + (0.5 * r * r if abs(r) < 0.1 else 0.1 * (abs(r) - 0.05))
        return total

    np.testing.assert_allclose(ad.scipy.minimize(huber, [3.0, 3.0, -3.0]).x, [0, 1, 2], atol=1e-4)


def test_the_callers_own_derivatives_are_used(handed_over):
    seen = handed_over(optimize, "minimize")

    def jac(x, c, s):
        return 2 * s * (x - c) + 4 * x**3

    def hess(x, c, s):
        return np.diag(2 * s + 12 * x**2)

    ad.scipy.minimize(bowl, START, (0.5, 3.0), "trust-exact", jac=jac, hess=hess)
    assert seen["jac"] is jac
    assert seen["hess"] is hess
    ad.scipy.minimize(bowl, START, (0.5, 3.0), "trust-constr", jac="2-point", hess=optimize.BFGS())
    assert seen["jac"] == "2-point"
    ad.scipy.minimize(lambda x: (bowl(x, 0.5, 3.0), jac(x, 0.5, 3.0)), START, jac=True)
    assert seen["jac"] is True


@pytest.mark.parametrize("jac", ["2-point", "3-point", "cs"])
def test_differences_may_be_asked_for(jac):
    f = {"cs": lambda x: ((x - 0.5) ** 2).sum()}.get(jac, lambda x: bowl(x, 0.5, 3.0))
    ours = ad.scipy.minimize(f, START, method="BFGS", jac=jac)
    scipys = optimize.minimize(f, START, method="BFGS", jac=jac)
    assert (ours.x == scipys.x).all()


def test_false_for_jac_means_differences(handed_over):
    seen = handed_over(optimize, "minimize")
    found = ad.scipy.minimize(bowl, START, (0.5, 3.0), "BFGS", jac=False)
    assert seen["jac"] is False
    assert found.nfev > found.njev


def test_a_method_of_the_callers_own_gets_function_and_gradient():
    def descend(fun, x0, args=(), jac=None, **more):
        for _ in range(200):
            x0 = x0 - 0.05 * jac(x0, *args)
        return optimize.OptimizeResult(x=x0, fun=fun(x0, *args))

    found = ad.scipy.minimize(bowl, START, (0.5, 3.0), descend)
    np.testing.assert_allclose(found.x, optimize.minimize(bowl, START, (0.5, 3.0)).x, atol=1e-5)


def test_options_tolerance_and_callback_are_scipys():
    points = []
    options = {"maxiter": 3}
    found = ad.scipy.minimize(
        rosenbrock, START, method="BFGS", tol=1e-3, callback=points.append, options=options)
    assert found.nit == len(points) == 3
    assert options == {"maxiter": 3}


def test_a_function_that_draws_random_numbers_still_works():
    def noisy(x):
        random.random()
        return ((x - 2.0) ** 2).sum()

    with pytest.warns(ad.ProgramWarning, match="random"):
        found = ad.scipy.minimize(noisy, np.zeros(3))
    np.testing.assert_allclose(found.x, 2.0, atol=1e-6)


def test_weights_that_require_gradients_are_constants():
    w = ad.tensor([1.0, 2.0], requires_grad=True)
    found = ad.scipy.minimize(lambda x: ((x - w) ** 2).sum(), np.zeros(2))
    np.testing.assert_allclose(found.x, [1.0, 2.0], atol=1e-6)
    assert w.grad is None


def test_a_gradient_lost_in_a_numpy_array_is_noticed():
    def f(x):
        total = np.zeros(1)
        total[0] = x[0] ** 2
        return total[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        with pytest.warns(RuntimeWarning, match="stack them instead"):
            ad.scipy.minimize(f, [3.0])


def test_results_do_not_change_after_the_solver_is_gone():
    p = ad.compile(rosenbrock)
    found = ad.scipy.minimize(p, START, method="BFGS")
    x, g = found.x.copy(), found.jac.copy()
    ad.scipy.minimize(p, START + 1.0, method="BFGS")
    assert (found.x == x).all()
    assert (found.jac == g).all()
    assert START.tolist() == [-1.2, 1.0, 0.7]


def test_errors_of_minimize_are_scipys():
    with pytest.raises(ValueError, match="Unknown solver nonsense"):
        ad.scipy.minimize(rosenbrock, START, method="nonsense")
    with pytest.raises(ValueError, match="must only have one dimension"):
        ad.scipy.minimize(rosenbrock, np.ones((2, 2)))
    with pytest.raises(ValueError, match="wanted one number"):
        ad.scipy.minimize(lambda x: x * x, START)
    with pytest.raises(TypeError, match="function"):
        ad.scipy.minimize(3.0, START)
    with pytest.raises(ValueError, match="[Uu]nknown constraint type"):
        ad.scipy.minimize(rosenbrock, START, constraints={"type": "nonsense", "fun": rosenbrock})
    with pytest.raises(ValueError, match="[Uu]nknown constraint type"):
        ad.scipy.minimize(rosenbrock, START, method="trust-constr",
                          constraints={"type": "nonsense", "fun": rosenbrock})


def test_errors_in_the_function_come_through():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ad.scipy.minimize(f, START)


# ---- constraints ---------------------------------------------------------------------------------


def on_the_sphere(x):
    return (x**2).sum() - 2.0


def two_limits(x, limit):
    return [limit - x[0] * x[1], x[2] - np.sin(x[0])]


CONSTRAINTS = [{"type": "eq", "fun": on_the_sphere},
               {"type": "ineq", "fun": two_limits, "args": (0.5,)}]


@pytest.mark.parametrize("method", [None, "SLSQP", "trust-constr"])
def test_constraints_as_dicts_get_exact_derivatives(method):
    found = ad.scipy.minimize(rosenbrock, [0.5, 0.4, 1.0], method=method, constraints=CONSTRAINTS)
    reference = optimize.minimize(
        rosenbrock, [0.5, 0.4, 1.0], method="SLSQP", constraints=CONSTRAINTS, tol=1e-12)
    assert found.success
    np.testing.assert_allclose(found.x, reference.x, atol=1e-4)


def test_the_jacobian_of_a_constraint_is_exact(handed_over):
    seen = handed_over(optimize, "minimize")
    ad.scipy.minimize(rosenbrock, [0.5, 0.4, 1.0], constraints=CONSTRAINTS)
    x = np.array([0.3, -0.2, 1.1])
    equal, limits = seen["constraints"]
    np.testing.assert_allclose(equal["jac"](x), [2 * x], rtol=1e-15)
    np.testing.assert_allclose(
        limits["jac"](x, 0.5), [[0.2, -0.3, 0.0], [-np.cos(0.3), 0.0, 1.0]], rtol=1e-15)
    assert "jac" not in CONSTRAINTS[0]


@pytest.mark.parametrize("n", [3, 40])
def test_trust_constr_gets_the_weighted_hessian_of_a_constraint(n, handed_over):
    seen = handed_over(optimize, "minimize")
    x0 = np.linspace(0.2, 0.6, n)
    c = optimize.NonlinearConstraint(
        lambda x: ad.stack([(x**3).sum(), ad.exp(x[0]) * x[1]]), [0.0, 0.0], [9.0, 3.0],
        keep_feasible=True)
    ad.scipy.minimize(rosenbrock, x0, method="trust-constr", constraints=c,
                      options={"maxiter": 3})
    (given,) = seen["constraints"]
    x, v = np.linspace(0.1, 0.9, n), np.array([2.0, -3.0])
    wanted = np.diag(12.0 * x)
    wanted[0, 0] -= 3.0 * np.exp(x[0]) * x[1]
    wanted[0, 1] -= 3.0 * np.exp(x[0])
    wanted[1, 0] -= 3.0 * np.exp(x[0])
    np.testing.assert_allclose(given.hess(x, v) @ np.eye(n), wanted, rtol=1e-13, atol=1e-14)
    jac = given.jac(x)
    np.testing.assert_allclose(jac[0], 3.0 * x**2, rtol=1e-14)
    assert given.keep_feasible is True
    assert c.jac == "2-point"


@pytest.mark.parametrize("method", ["SLSQP", "trust-constr"])
def test_constraint_objects_lead_to_the_optimum(method):
    constraints = [
        optimize.NonlinearConstraint(on_the_sphere, 0.0, 0.0),
        optimize.LinearConstraint([[1.0, 1.0, 0.0]], -np.inf, 1.2),
    ]
    found = ad.scipy.minimize(
        rosenbrock, [0.5, 0.4, 1.0], method=method, constraints=constraints)
    reference = optimize.minimize(rosenbrock, [0.5, 0.4, 1.0], constraints=constraints, tol=1e-12)
    np.testing.assert_allclose(found.x, reference.x, atol=1e-4)


def test_derivatives_of_a_constraint_that_the_caller_gave_stay(handed_over):
    seen = handed_over(optimize, "minimize")
    given = [
        {"type": "eq", "fun": on_the_sphere, "jac": lambda x: 2 * x},
        optimize.NonlinearConstraint(on_the_sphere, -1.0, 1.0, jac=lambda x: 2 * x),
        optimize.NonlinearConstraint(on_the_sphere, -1.0, 1.0, jac="3-point"),
        optimize.LinearConstraint([[1.0, 1.0, 0.0]], -5.0, 5.0),
    ]
    ad.scipy.minimize(rosenbrock, [0.5, 0.4, 1.0], method="trust-constr", constraints=given,
                      options={"maxiter": 2})
    assert all(a is b for a, b in zip(seen["constraints"], given))


def test_a_hessian_of_a_constraint_that_the_caller_gave_stays(handed_over):
    seen = handed_over(optimize, "minimize")
    c = optimize.NonlinearConstraint(on_the_sphere, -1.0, 1.0, hess=optimize.SR1())
    ad.scipy.minimize(rosenbrock, [0.5, 0.4, 1.0], method="trust-constr", constraints=c,
                      options={"maxiter": 2})
    assert seen["constraints"][0].hess is c.hess


def test_cobyla_takes_constraints_without_derivatives():
    found = ad.scipy.minimize(
        bowl, START, (0.5, 3.0), "COBYLA",
        constraints={"type": "ineq", "fun": lambda x: x[0] - 0.7})
    assert found.x[0] == pytest.approx(0.7, abs=1e-3)


# ---- least_squares -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
def test_least_squares_follow_the_path_of_a_jacobian_by_hand(method):
    ours = ad.scipy.least_squares(residuals, [1.0, 1.0], method=method)
    by_hand = optimize.least_squares(residuals, [1.0, 1.0], residuals_jacobian, method=method)
    assert type(ours) is type(by_hand)
    np.testing.assert_allclose(ours.x, by_hand.x, rtol=1e-10)
    np.testing.assert_allclose(ours.jac, by_hand.jac, rtol=1e-9)
    assert (ours.nfev, ours.njev) == (by_hand.nfev, by_hand.njev)


def test_residuals_and_jacobian_come_from_one_run():
    p = ad.compile(residuals)
    found = ad.scipy.least_squares(p, [1.0, 1.0])
    (replay,) = p._derived.values()
    assert replay.recordings == 1
    assert replay.recordings + replay.replays == found.nfev


def test_a_solver_may_write_into_what_it_gets(handed_over):
    seen = handed_over(optimize, "least_squares")
    ad.scipy.least_squares(residuals, [1.0, 1.0], max_nfev=1)
    x = np.array([2.0, 0.7])
    for _ in range(2):
        r, j = seen["fun"](x), seen["jac"](x)
        np.testing.assert_allclose(r, residuals(x), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(j, residuals_jacobian(x), rtol=1e-13, atol=1e-15)
        r *= 7.0
        j *= 7.0


def test_robust_losses_do_not_spoil_what_is_kept():
    ours = ad.scipy.least_squares(residuals, [1.0, 1.0], loss="soft_l1", f_scale=0.01)
    by_hand = optimize.least_squares(
        residuals, [1.0, 1.0], residuals_jacobian, loss="soft_l1", f_scale=0.01)
    np.testing.assert_allclose(ours.x, by_hand.x, rtol=1e-10)
    assert ours.nfev == by_hand.nfev


def test_least_squares_take_arguments_names_and_bounds():
    def f(b, t, *, seen):
        return b[0] * np.exp(-b[1] * t) - seen

    found = ad.scipy.least_squares(
        f, (1.0, 1.0), args=(T,), kwargs={"seen": 2.5 * np.exp(-1.3 * T)},
        bounds=([0.0, 0.0], [2.0, np.inf]))
    assert found.x[0] == pytest.approx(2.0)
    assert found.active_mask.tolist() == [1, 0]


@pytest.mark.parametrize("n", [3, 50, 300])
@pytest.mark.parametrize("m", [2, 60])
def test_jacobians_of_every_form_are_exact(m, n, handed_over):
    seen = handed_over(optimize, "least_squares")
    a = np.cos(np.outer(np.arange(m), np.arange(1.0, n + 1.0)))
    x = np.linspace(-0.5, 0.5, n)
    ad.scipy.least_squares(lambda x: np.sin(a @ x) + x[0] ** 2, x, max_nfev=1)
    wanted = np.cos(a @ x)[:, None] * a
    wanted[:, 0] += 2 * x[0]
    np.testing.assert_allclose(seen["jac"](x), wanted, rtol=1e-12, atol=1e-14)


def test_residuals_may_be_a_list_or_one_number():
    found = ad.scipy.least_squares(lambda x: [x[0] - 1.0, 10.0 * (x[1] - x[0] ** 2)], [0.0, 0.0])
    np.testing.assert_allclose(found.x, [1.0, 1.0], atol=1e-8)
    assert ad.scipy.least_squares(lambda x: x[0] - 3.0, 0.0).x[0] == pytest.approx(3.0)


def test_a_jacobian_of_the_callers_own_is_used(handed_over):
    seen = handed_over(optimize, "least_squares")
    ad.scipy.least_squares(residuals, [1.0, 1.0], jac=residuals_jacobian)
    assert seen["jac"] is residuals_jacobian
    found = ad.scipy.least_squares(residuals, [1.0, 1.0], jac="3-point")
    assert found.x[1] == pytest.approx(1.3, abs=0.1)


def test_sparse_differences_stay_scipys(handed_over):
    seen = handed_over(optimize, "least_squares")
    found = ad.scipy.least_squares(
        lambda x: x**2 - np.arange(1.0, 6.0), np.ones(5), jac_sparsity=np.eye(5))
    assert seen["jac"] == "2-point"
    np.testing.assert_allclose(found.x, np.sqrt(np.arange(1.0, 6.0)), rtol=1e-7)


def test_a_residual_function_that_is_not_replayed_still_works():
    def noisy(b):
        np.random.random()
        return residuals(b)

    with pytest.warns(ad.ProgramWarning, match="random"):
        found = ad.scipy.least_squares(noisy, [1.0, 1.0])
    np.testing.assert_allclose(
        found.x, optimize.least_squares(residuals, [1.0, 1.0], residuals_jacobian).x, rtol=1e-9)


def test_errors_of_least_squares_are_scipys():
    with pytest.raises(ValueError, match="at most 1-d"):
        ad.scipy.least_squares(lambda x: x[:, None] * x, [1.0, 2.0])
    with pytest.raises(ValueError, match="at most 1 dimension"):
        ad.scipy.least_squares(lambda x: x, np.ones((2, 2)))
    with pytest.raises(ValueError, match="not finite"):
        ad.scipy.least_squares(lambda x: x * np.nan, [1.0])
    with pytest.raises(ValueError, match="`x0` must be real"):
        ad.scipy.least_squares(lambda x: x, [1j])
    with pytest.raises(ValueError, match="`method` must be"):
        ad.scipy.least_squares(residuals, [1.0, 1.0], method="nonsense")
    with pytest.raises(ValueError, match="number of residuals is less"):
        ad.scipy.least_squares(lambda x: x[:1], [1.0, 2.0], method="lm")


# ---- root ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_roots_are_found_with_fewer_evaluations(method):
    ours = ad.scipy.root(equations, [1.0, 1.0], method=method)
    differences = optimize.root(equations, [1.0, 1.0], method=method)
    by_hand = optimize.root(
        equations, [1.0, 1.0], method=method,
        jac=lambda x: [[np.cos(x[1]), -x[0] * np.sin(x[1])], [x[1], x[0] - 1.0]])
    assert ours.success
    np.testing.assert_allclose(ours.x, by_hand.x, rtol=1e-12)
    assert ours.nfev == by_hand.nfev
    assert ours.nfev < differences.nfev


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_a_jacobian_by_columns_is_given_where_it_is_asked_for(method):
    plain = ad.scipy.root(equations, [1.0, 1.0], method=method)
    columns = ad.scipy.root(equations, [1.0, 1.0], method=method, options={"col_deriv": True})
    np.testing.assert_allclose(columns.x, plain.x, rtol=1e-12)
    assert columns.nfev == plain.nfev


@pytest.mark.parametrize("method", ["krylov", "broyden1", "df-sane"])
def test_methods_without_a_jacobian_run_on_the_compiled_function(method):
    def f(x, target):
        return x**3 + 0.1 * x - target

    target = np.array([[1.0, 2.0], [0.5, 1.5]])
    ours = ad.scipy.root(f, np.ones((2, 2)), (target,), method)
    scipys = optimize.root(f, np.ones((2, 2)), (target,), method)
    np.testing.assert_allclose(ours.x, scipys.x, rtol=1e-10)
    assert ours.x.shape == (2, 2)


def test_roots_take_arguments_and_a_single_unknown():
    found = ad.scipy.root(lambda x, a: x[0] ** 2 - a, 1.0, 2.0)
    assert found.x[0] == pytest.approx(np.sqrt(2.0))
    assert found.fjac.shape == (1, 1)


def test_complex_unknowns_are_left_to_scipy():
    found = ad.scipy.root(lambda x: x**2 + 1.0, np.array([0.5 + 0.5j]), method="krylov")
    np.testing.assert_allclose(found.x, [1j], atol=1e-5)


def test_errors_of_root_are_scipys():
    with pytest.raises(ValueError, match="Unknown solver nonsense"):
        ad.scipy.root(equations, [1.0, 1.0], method="nonsense")
    with pytest.raises(TypeError, match="mismatch between the input and output shape"):
        ad.scipy.root(lambda x: x[:1], [1.0, 2.0])


# ---- curve_fit -----------------------------------------------------------------------------------


def decay(t, a, rate):
    return a * np.exp(-rate * t)


def decay_jacobian(t, a, rate):
    return np.stack([np.exp(-rate * t), -a * t * np.exp(-rate * t)], 1)


SEEN = 2.5 * np.exp(-1.3 * T) + NOISE


@pytest.mark.parametrize("options", [
    {}, {"p0": [1.0, 2.0]}, {"method": "trf"}, {"method": "dogbox", "p0": [2, 1]},
    {"bounds": ([0.0, 0.0], [2.0, 5.0])}, {"sigma": 0.1 + T, "absolute_sigma": True},
    {"sigma": np.diag(0.1 + T)},
])
def test_fits_agree_with_a_jacobian_by_hand(options):
    ours = ad.scipy.curve_fit(decay, T, SEEN, **options)
    by_hand = optimize.curve_fit(decay, T, SEEN, jac=decay_jacobian, **options)
    for a, b in zip(ours, by_hand):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_a_fit_needs_fewer_evaluations_than_differences():
    *_, ours, _, _ = ad.scipy.curve_fit(decay, T, SEEN, full_output=True)
    *_, differences, _, _ = optimize.curve_fit(decay, T, SEEN, full_output=True)
    assert ours["nfev"] < differences["nfev"]


def test_the_jacobian_of_a_model_is_exact(handed_over):
    seen = handed_over(optimize, "curve_fit")
    ad.scipy.curve_fit(decay, T, SEEN)
    np.testing.assert_allclose(
        seen["jac"](T, 2.0, 0.7), decay_jacobian(T, 2.0, 0.7), rtol=1e-14, atol=1e-15)


def test_python_runs_a_model_only_while_recording():
    def model(t, a, rate):
        CALLS[0] += 1
        return a * np.exp(-rate * t)

    before = CALLS[0]
    ad.scipy.curve_fit(model, T, SEEN)
    assert CALLS[0] - before == 2


def test_a_model_may_be_a_constant_and_may_have_many_arguments():
    (mean,), _ = ad.scipy.curve_fit(lambda t, a: a, T, SEEN)
    assert mean == pytest.approx(SEEN.mean())
    (a, b), _ = ad.scipy.curve_fit(
        lambda x, *p: p[0] * x[0] + p[1] * x[1], [T, T**2], 3.0 * T - T**2, [1.0, 1.0])
    assert (a, b) == pytest.approx((3.0, -1.0))


def test_gaps_in_the_data_may_be_left_out():
    seen = SEEN.copy()
    seen[3] = np.nan
    ours, _ = ad.scipy.curve_fit(decay, T, seen, nan_policy="omit")
    by_hand, _ = optimize.curve_fit(decay, T, seen, jac=decay_jacobian, nan_policy="omit")
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9)


def test_a_model_may_make_an_array_of_its_data():
    def model(t, a, rate):
        return a * np.exp(-rate * np.asarray(t))

    ours, _ = ad.scipy.curve_fit(model, T.tolist(), SEEN)
    by_hand, _ = optimize.curve_fit(decay, T, SEEN, jac=decay_jacobian)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9)


def test_a_compiled_model_is_used_as_it_is():
    p = ad.compile(decay)
    ad.scipy.curve_fit(p, T, SEEN)
    recorded = [replay.recordings for replay in p._derived.values()]
    ad.scipy.curve_fit(p, T, SEEN)
    assert [replay.recordings for replay in p._derived.values()] == recorded == [1, 1]


def test_errors_of_curve_fit_are_scipys():
    with pytest.raises(ValueError, match="Unable to determine number of fit parameters"):
        ad.scipy.curve_fit(lambda *p: p[0], T, SEEN)
    with pytest.raises(ValueError, match="must not be empty"):
        ad.scipy.curve_fit(decay, [], [])
    with pytest.raises(ValueError, match="infs or NaNs"):
        ad.scipy.curve_fit(decay, T, SEEN * np.nan)
    with pytest.raises(TypeError, match="must not exceed the number of data points"):
        ad.scipy.curve_fit(lambda t, a, b, c: a + b * t + c * t**2, [1.0, 2.0], [1.0, 2.0])


# ---- solve_ivp -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Radau", "BDF", "LSODA"])
def test_stiff_equations_are_solved_with_the_exact_jacobian(method):
    y0, span = [1.0, 0.0, 0.0], (0.0, 500.0)
    options = {"method": method, "rtol": 1e-8, "atol": 1e-10}
    ours = ad.scipy.solve_ivp(robertson, span, y0, **options)
    by_hand = integrate.solve_ivp(robertson, span, y0, jac=robertson_jacobian, **options)
    differences = integrate.solve_ivp(robertson, span, y0, **options)
    assert type(ours) is type(by_hand)
    assert ours.success
    np.testing.assert_allclose(ours.y[:, -1], by_hand.y[:, -1], rtol=1e-6)
    assert (ours.nfev, ours.njev) == (by_hand.nfev, by_hand.njev)
    assert method == "LSODA" or ours.nfev <= differences.nfev


def test_the_jacobian_of_an_equation_is_exact(handed_over):
    seen = handed_over(integrate, "solve_ivp")
    ad.scipy.solve_ivp(robertson, (0.0, 1.0), [1.0, 0.0, 0.0], method="BDF")
    y = np.array([0.9, 1e-4, 0.1])
    np.testing.assert_allclose(seen["jac"](0.0, y), robertson_jacobian(0.0, y), rtol=1e-14)


@pytest.mark.parametrize("method", ["RK45", "DOP853", integrate.RK23, "BDF", integrate.Radau])
def test_equations_take_arguments_times_and_events(method):
    def falling(t, y, g):
        return ad.stack([y[1], -g - 0.1 * np.sin(t) * y[1]])

    def ground(t, y, g):
        return y[0]

    ground.terminal = True
    options = {"method": method, "args": (9.81,), "events": ground, "dense_output": True}
    ours = ad.scipy.solve_ivp(falling, (0.0, 10.0), [5.0, 1.0], **options)
    scipys = integrate.solve_ivp(
        lambda t, y, g: [y[1], -g - 0.1 * np.sin(t) * y[1]], (0.0, 10.0), [5.0, 1.0], **options)
    assert ours.status == scipys.status == 1
    assert ours.t_events[0][0] == pytest.approx(scipys.t_events[0][0], rel=1e-2)


@pytest.mark.parametrize("method", ["RK45", "BDF"])
def test_an_equation_may_make_arrays_of_its_arguments(method):
    def f(t, y, k):
        return np.array([[-k, 0.0], [k, -1.0]]) @ y

    ours = ad.scipy.solve_ivp(f, (0.0, 2.0), [1.0, 0.0], method=method, args=[30.0])
    scipys = integrate.solve_ivp(f, (0.0, 2.0), [1.0, 0.0], method=method, args=[30.0])
    np.testing.assert_allclose(ours.y[:, -1], scipys.y[:, -1], rtol=1e-3, atol=1e-6)


def test_explicit_methods_take_the_same_steps():
    ours = ad.scipy.solve_ivp(lambda t, y: [y[1], -y[0]], (0.0, 10.0), [1, 0])
    scipys = integrate.solve_ivp(lambda t, y: [y[1], -y[0]], (0.0, 10.0), [1, 0])
    assert (ours.y == scipys.y).all()
    assert ours.nfev == scipys.nfev


def test_an_equation_that_switches_in_time_is_followed():
    def f(t, y):
        return -y if t < 1.0 else y * 0.0

    run = ad.scipy.solve_ivp(f, (0.0, 3.0), [1.0], method="Radau", max_step=0.1, rtol=1e-6)
    assert run.y[0, -1] == pytest.approx(np.exp(-1.0), rel=1e-3)


def test_python_runs_an_equation_only_while_recording():
    f, count = counted(robertson)
    ad.scipy.solve_ivp(f, (0.0, 10.0), [1.0, 0.0, 0.0], method="BDF")
    assert count() == 2


def test_a_jacobian_of_an_equation_by_the_caller_is_used(handed_over):
    seen = handed_over(integrate, "solve_ivp")
    ad.scipy.solve_ivp(
        robertson, (0.0, 1.0), [1.0, 0.0, 0.0], method="BDF", jac=robertson_jacobian)
    assert seen["jac"] is robertson_jacobian


@pytest.mark.parametrize("options", [
    {"method": "BDF", "jac_sparsity": np.eye(3)}, {"method": "LSODA", "lband": 0, "uband": 0},
    {"method": "RK45"},
])
def test_where_a_dense_jacobian_does_not_fit_none_is_given(options, handed_over):
    seen = handed_over(integrate, "solve_ivp")
    run = ad.scipy.solve_ivp(lambda t, y: -y, (0.0, 1.0), np.ones(3), **options)
    assert "jac" not in seen
    np.testing.assert_allclose(run.y[:, -1], np.exp(-1.0), rtol=1e-2)


def test_complex_states_are_left_to_scipy():
    run = ad.scipy.solve_ivp(lambda t, y: 1j * y, (0.0, 1.0), [1.0 + 0.0j], method="BDF", rtol=1e-6)
    assert run.y[0, -1] == pytest.approx(np.exp(1j), rel=1e-4)


def test_derivatives_lost_in_a_numpy_array_are_noticed():
    def f(t, y):
        dy = np.zeros(2)
        dy[0], dy[1] = y[1], -y[0]
        return dy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        with pytest.warns(RuntimeWarning, match="stack them instead"):
            ad.scipy.solve_ivp(f, (0.0, 1.0), [1.0, 0.0], method="BDF")


def test_errors_of_solve_ivp_are_scipys():
    with pytest.raises(ValueError, match="`method` must be one of"):
        ad.scipy.solve_ivp(robertson, (0.0, 1.0), [1.0, 0.0, 0.0], method="nonsense")
    with pytest.raises(TypeError, match="cannot be unpacked"):
        ad.scipy.solve_ivp(lambda t, y, a: -a * y, (0.0, 1.0), [1.0], args=2.0)
    with pytest.raises(ValueError, match="1-dimensional"):
        ad.scipy.solve_ivp(lambda t, y: -y, (0.0, 1.0), np.ones((2, 2)), method="BDF")
    with pytest.raises(ValueError):
        ad.scipy.solve_ivp(lambda t, y: y[:1], (0.0, 1.0), [1.0, 2.0], method="Radau")


TALL = {
    "equal columns": lambda b: (b[0] + b[1]) * T,
    "constant columns": lambda b: b[0] + 3.0 * b[1] * np.ones(4),
    "a column that is the value": lambda b: ad.exp(b[0]) * T + 0.0 * b[1],
    "a parameter without effect": lambda b: b[0] * T,
    "a square matrix": lambda b: ad.stack([b[0] * b[1], b[0] - 3.0 * b[1]]),
    "two axes": lambda b: b[0] * np.ones((2, 3)) + np.outer(T[:2], T[:3]) * b[1] ** 2,
    "float32": lambda b: ad.astype(b[0] * T + b[1], np.float32),
    "the parameters": lambda b: b,
    "nothing": lambda b: T,
    "a wide matrix": lambda b: b[0] * b[1],
}


@pytest.mark.parametrize("f", TALL.values(), ids=list(TALL))
def test_jacobians_by_programs_are_those_of_ordinary_code(f):
    from fastad.scipy import _value_and_jacobian

    both = _value_and_jacobian(ad.compile(f))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for b in ([1.5, -0.5], [0.5, 2.0], [0.5, 2.0], [3.0, 0.0]):
            y, jacobian = both(np.array(b))
            want = np.reshape(ad.jacobian(f)(np.array(b)), (-1, 2))
            np.testing.assert_allclose(jacobian, want, rtol=1e-14)
            assert jacobian.shape == want.shape and jacobian.dtype == want.dtype
            np.testing.assert_array_equal(y, np.asarray(ad.tensor(f(ad.tensor(b))).numpy()))
            y = jacobian = None


def test_a_jacobian_is_the_callers_own():
    from fastad.scipy import _value_and_jacobian

    both = _value_and_jacobian(ad.compile(lambda b: (b[0] + b[1]) * T))
    kept = [both(np.array([1.0, 2.0]))[1] for _ in range(3)]
    for j in kept[:2]:
        j[:] = 0.0
    np.testing.assert_array_equal(kept[2], np.stack([T, T], axis=1))


def angles(b, steps=400):
    """A pendulum, as a list of numbers."""
    angle, speed = b[0], b[1]
    found = []
    for k in range(steps):
        speed = speed - 0.01 * (b[2] * np.sin(angle) + b[3] * speed)
        if k == steps // 4 and angle > 0.0:
            speed = speed * b[3]
        angle = angle + 0.01 * speed
        if k % 10 == 0:
            found.append(angle)
    return found


LONG = {
    "numbers": (angles, [0.4, 0.2, 1.1, 0.5], [-1.5, 0.2, 1.1, 0.5]),
    "as many results as variables": (
        lambda b: ad.stack(angles(b))[-4:] * b[0], [0.4, 0.2, 1.1, 0.5], [-1.5, 0.2, 1.1, 0.5]),
    "many variables": (
        lambda b: ad.exp(-b) * b[::-1] + b[0], np.linspace(0.0, 2.0, 300), np.ones(300)),
    "large arrays": (
        lambda b: functools.reduce(lambda y, _: y * 0.5 + b[0], range(100), np.outer(b, b)),
        np.linspace(0.0, 2.0, 66), np.ones(66)),
}


@pytest.mark.parametrize("name", LONG)
def test_long_jacobians_by_programs_are_those_of_ordinary_code(name):
    from fastad.scipy import _tensor, _value_and_jacobian

    f, *points = LONG[name]
    p = ad.compile(f)
    both = _value_and_jacobian(p)
    for b in np.array([points[0], points[1], points[0]]):
        y, jacobian = both(b)
        want = ad.jacobian(lambda b: _tensor(f(b)))(b)
        np.testing.assert_array_equal(y, _tensor(f(ad.tensor(b))).numpy())
        np.testing.assert_allclose(jacobian, want.reshape(-1, b.size), rtol=1e-12, atol=1e-14)
        y[...] = jacobian[...] = 0.0
    sweep = p._derived["sweep", "scipy jacobian", 0, 1, True]
    assert not p._derived["scipy", "jacobian"].plans
    if name != "large arrays":
        assert sweep.recordings == 1 + (name != "many variables")
        assert sweep.replays >= 3 * b.size - 1


def test_a_long_jacobian_gets_the_solvers_arguments_and_keywords():
    from fastad.scipy import _value_and_jacobian

    def f(b, factor, *, power=1.0):
        return ad.stack(angles(b)) * factor ** power

    b, factor = np.array(LONG["numbers"][1]), np.array(3.0)
    both = _value_and_jacobian(ad.compile(f))
    for options in ({}, {"power": 2.0}, {}):
        y, jacobian = both(b, factor, **options)
        want = ad.jacobian(lambda b: f(b, factor, **options))(b)
        np.testing.assert_allclose(jacobian, want, rtol=1e-12)
        np.testing.assert_allclose(y, f(b, factor, **options), rtol=1e-15)


def test_hessians_of_many_variables_come_from_one_sweep():
    def f(x):
        return sum([ad.sin(x[k] * x[k + 1]) for k in range(x.size - 1)]) + (x ** 2).sum()

    from fastad.scipy import _second

    p = ad.compile(f)
    hessian, _ = _second(p)
    for x in (np.linspace(0.0, 1.0, 40), np.linspace(1.0, 2.0, 40)):
        np.testing.assert_allclose(hessian(x), ad.hessian(f)(x), rtol=1e-12, atol=1e-14)
    assert p._derived["sweep", "scipy hessian", 0, 1, True].replays >= 40
