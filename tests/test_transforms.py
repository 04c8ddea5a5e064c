"""Functions of functions: gradients, products with Jacobians, Jacobians, Hessians."""

import collections
import math

import numpy as np
import pytest

import fastad as ad

Point = collections.namedtuple("Point", "x y")


def rosenbrock(x):
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()


def rosenbrock_gradient(x):
    g = np.zeros_like(x)
    g[:-1] += -400.0 * x[:-1] * (x[1:] - x[:-1] ** 2) - 2.0 * (1.0 - x[:-1])
    g[1:] += 200.0 * (x[1:] - x[:-1] ** 2)
    return g


def rosenbrock_hessian(x):
    n = len(x)
    h = np.zeros((n, n))
    for k in range(n - 1):
        h[k, k] += 1200.0 * x[k] ** 2 - 400.0 * x[k + 1] + 2.0
        h[k, k + 1] = h[k + 1, k] = -400.0 * x[k]
        h[k + 1, k + 1] += 200.0
    return h


def differences(f, x, step=1e-6):
    """Central differences of a function of one array, the output's axes first."""
    columns = []
    for k in range(x.size):
        shift = np.zeros(x.size)
        shift[k] = step
        shift = shift.reshape(x.shape)
        columns.append((np.asarray(f(x + shift)) - np.asarray(f(x - shift))) / (2 * step))
    y = np.asarray(f(x))
    return np.stack(columns, -1).reshape(y.shape + x.shape)


def cubic(x):
    """From (3,) to (2, 2), with structured and elementwise parts."""
    a = ad.stack([x[0] * x[1], ad.sin(x[2])])
    b = ad.concatenate([x[1:] ** 3])
    return ad.outer(a, b) if hasattr(ad, "outer") else a[:, None] * b


X = np.array([0.3, -1.2, 0.8])


# grad and value_and_grad.


def test_value_and_gradient_of_a_function_of_an_array():
    value, gradient = ad.value_and_grad(rosenbrock)(X)
    assert type(value) is float
    assert type(gradient) is np.ndarray
    assert value == rosenbrock(X)
    np.testing.assert_allclose(gradient, rosenbrock_gradient(X), rtol=1e-13)
    np.testing.assert_allclose(ad.grad(rosenbrock)(X), gradient, rtol=0)


def test_gradients_agree_with_differences():
    def f(x):
        m = x.reshape(2, 3)
        return ad.linalg.norm(m @ m.T) + ad.exp(-x).mean() * ad.max(x) + (x[::2] * x[1]).sum()

    x = np.linspace(-1.0, 1.5, 6)
    np.testing.assert_allclose(
        ad.grad(f)(x), differences(lambda v: f(ad.tensor(v)).item(), x), rtol=1e-7
    )


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        (3.0, float, 6.0),
        (3, float, 6.0),
        (True, float, 2.0),
        (np.float64(3.0), float, 6.0),
        (np.float32(3.0), float, 6.0),
        (np.array(3.0), float, 6.0),
        (np.array([3.0, 1.0]), np.ndarray, [6.0, 2.0]),
        (np.array([3, 1]), np.ndarray, [6.0, 2.0]),
        ([3.0, 1.0], np.ndarray, [6.0, 2.0]),
        (ad.tensor(3.0), ad.Tensor, 6.0),
        (ad.tensor([3.0, 1.0]), ad.Tensor, [6.0, 2.0]),
    ],
)
def test_results_are_of_the_kind_that_went_in(given, kind, value):
    gradient = ad.grad(lambda x: (x * x).sum())(given)
    assert type(gradient) is kind
    assert (gradient if kind is float else gradient.tolist()) == value
    for result in ad.jvp(lambda x: x * x, (given,), (given,)):
        assert type(result) is kind
    y, pull = ad.vjp(lambda x: x * x, given)
    assert type(y) is kind
    assert type(pull(y)[0]) is kind


def test_float32_arguments_have_float32_gradients():
    x = np.array([1.0, 2.0], np.float32)
    assert ad.grad(lambda t: (t * t).sum())(x).dtype == np.float32
    assert ad.jacobian(lambda t: t * t)(x).dtype == np.float32
    assert ad.jvp(lambda t: t * t, (x,), (x,))[1].dtype == np.float32
    assert ad.hessian(lambda t: (t * t * t).sum())(x).dtype == np.float32


def test_results_are_arrays_that_can_be_written():
    x = np.ones(3)
    for a in (
        ad.grad(lambda t: t.sum())(x),
        ad.jacobian(lambda t: t)(x),
        ad.hessian(lambda t: (t**2).sum())(x),
        ad.jvp(lambda t: t, (x,), (x,))[1],
        ad.vjp(lambda t: t, x)[1](x)[0],
        ad.value_and_grad(lambda t: (t.sum(), t * 2.0), has_aux=True)(x)[0][1],
    ):
        a += 1.0
    assert x.tolist() == [1.0] * 3


def test_argnums_choose_the_arguments():
    def f(a, b, c):
        return a * a * b + c

    assert ad.grad(f)(2.0, 3.0, 1.0) == 12.0
    assert ad.grad(f, argnums=1)(2.0, 3.0, 1.0) == 4.0
    assert ad.grad(f, argnums=-2)(2.0, 3.0, 1.0) == 4.0
    assert ad.grad(f, argnums=(1, 0))(2.0, 3.0, 1.0) == (4.0, 12.0)
    assert ad.grad(f, argnums=(2,))(2.0, 3.0, 1.0) == (1.0,)
    assert ad.value_and_grad(f, argnums=(0, 2))(2.0, 3.0, 1.0) == (13.0, (12.0, 1.0))


def test_arguments_that_are_not_differentiated_pass_untouched():
    seen = []

    def f(x, table, *, name):
        seen.extend([table, name])
        return x * table["k"]

    table = {"k": 5.0}
    assert ad.grad(f)(2.0, table, name="n") == 5.0
    assert seen[0] is table
    assert seen[1] == "n"


def test_keyword_arguments_are_passed_on():
    assert ad.grad(lambda x, power=2: x**power)(3.0, power=3) == 27.0


def test_aux_is_passed_through_as_numbers_and_arrays():
    def f(x):
        return (x * x).sum(), {"double": x * 2.0, "text": "t", "n": 3, "sum": x.sum()}

    (value, aux), gradient = ad.value_and_grad(f, has_aux=True)(np.array([1.0, 2.0]))
    assert value == 5.0
    assert gradient.tolist() == [2.0, 4.0]
    assert type(aux["double"]) is np.ndarray
    assert aux["double"].tolist() == [2.0, 4.0]
    assert (aux["text"], aux["n"]) == ("t", 3)
    assert (type(aux["sum"]), aux["sum"]) == (float, 3.0)
    gradient, aux = ad.grad(f, has_aux=True)(np.array([1.0, 2.0]))
    assert gradient.tolist() == [2.0, 4.0]
    assert aux["sum"] == 3.0


TREES = {
    "tuple": (np.array([1.0, 2.0]), 3.0),
    "list": [np.array([1.0, 2.0]), 3.0],
    "dict": {"a": np.array([1.0, 2.0]), "b": 3.0},
    "nested": {"w": [np.array([1.0, 2.0]), (3.0, {"c": 0.5})]},
    "namedtuple": Point(np.array([1.0, 2.0]), 3.0),
    "empty parts": {"a": (), "b": [np.array([1.0, 2.0])]},
}


def flat(tree):
    if isinstance(tree, dict):
        return [x for v in tree.values() for x in flat(v)]
    if isinstance(tree, (list, tuple)):
        return [x for v in tree for x in flat(v)]
    return [tree]


def squares(tree):
    return sum((x * x).sum() if hasattr(x, "sum") else x * x for x in flat(tree))


@pytest.mark.parametrize("name", TREES)
def test_arguments_may_be_nested(name):
    tree = TREES[name]
    value, gradient = ad.value_and_grad(squares)(tree)
    assert value == squares(tree)
    assert type(gradient) is type(tree)
    if isinstance(tree, dict):
        assert list(gradient) == list(tree)
    for g, x in zip(flat(gradient), flat(tree), strict=True):
        assert type(g) is type(x)
        assert np.array_equal(g, 2 * x)


def test_products_take_nested_arguments_and_results():
    def f(p):
        return {"s": p["a"].sum() * p["b"], "v": (p["a"] * 2.0,)}

    p = {"a": np.array([1.0, 2.0]), "b": 3.0}
    y, pull = ad.vjp(f, p)
    assert y["s"] == 9.0
    assert y["v"][0].tolist() == [2.0, 4.0]
    (bar,) = pull({"s": 10.0, "v": (np.array([1.0, 0.0]),)})
    assert bar["a"].tolist() == [32.0, 30.0]
    assert bar["b"] == 30.0
    y, dot = ad.jvp(f, (p,), ({"a": np.array([1.0, 0.0]), "b": 1.0},))
    assert dot["s"] == 3.0 + 3.0
    assert dot["v"][0].tolist() == [2.0, 0.0]


def test_an_argument_that_is_not_used_has_gradient_zero():
    assert ad.grad(lambda a, b: a * 2.0, argnums=(0, 1))(1.0, np.ones(2))[1].tolist() == [0.0, 0.0]
    assert ad.grad(lambda x: 3.0)(1.0) == 0.0
    assert ad.grad(lambda x: ad.tensor(3.0))(np.ones(2)).tolist() == [0.0, 0.0]
    assert ad.jacobian(lambda x: np.ones(3))(np.ones(2)).tolist() == [[0.0] * 2] * 3
    assert ad.hessian(lambda x: x.sum())(np.ones(2)).tolist() == [[0.0] * 2] * 2
    assert ad.jvp(lambda x: 3.0, (1.0,), (1.0,)) == (3.0, 0.0)
    assert ad.vjp(lambda x: 3.0, 1.0)[1](1.0) == (0.0,)


def test_transforms_leave_grad_of_leaves_alone():
    w = ad.tensor(2.0, requires_grad=True)
    x = ad.tensor(3.0, requires_grad=True)
    w.grad = ad.tensor(100.0)
    for result in (ad.grad(lambda v: w * v * v)(x), ad.hessian(lambda v: w * v * v)(x)):
        assert result.requires_grad
    assert w.grad.item() == 100.0
    assert x.grad is None


def test_transforms_record_even_under_no_grad():
    with ad.no_grad():
        assert ad.grad(lambda x: x * x)(3.0) == 6.0
        assert ad.jvp(lambda x: x * x, (3.0,), (1.0,)) == (9.0, 6.0)
        assert ad.hessian(lambda x: x**3)(2.0) == 12.0
        assert not ad.is_grad_enabled()


def test_a_function_may_stop_gradients_inside():
    def f(x):
        with ad.no_grad():
            c = x * 2.0
        return x * c + x.detach()

    assert ad.grad(f)(3.0) == 6.0


def test_wrapped_functions_keep_their_name():
    assert ad.grad(rosenbrock).__name__ == "rosenbrock"
    assert ad.jacobian(rosenbrock).__wrapped__ is rosenbrock


def test_numpy_functions_and_loops_are_differentiated():
    def f(x):
        total = 0.0
        for k in range(len(x)):
            total = total + np.sin(x[k]) * k if x[k] > 0 else total - x[k]
        return total + np.dot(x, x) + np.where(x > 0, x, 0.0).sum()

    want = 2 * X + (X > 0) + np.where(X > 0, np.arange(3) * np.cos(X), -1.0)
    np.testing.assert_allclose(ad.grad(f)(X), want, rtol=1e-14)


# vjp and jvp.


def test_vjp_pulls_any_number_of_cotangents_back():
    y, pull = ad.vjp(lambda a, b: a * b, np.array([1.0, 2.0]), 3.0)
    assert y.tolist() == [3.0, 6.0]
    for scale in (1.0, 2.0, 0.0):
        ga, gb = pull(np.array([scale, 10.0 * scale]))
        assert ga.tolist() == [3.0 * scale, 30.0 * scale]
        assert gb == 21.0 * scale


def test_jvp_is_the_derivative_in_a_direction():
    rng = np.random.default_rng(0)
    d = rng.normal(size=3)
    y, dot = ad.jvp(cubic, (X,), (d,))
    np.testing.assert_allclose(dot, differences(lambda v: cubic(v).numpy(), X) @ d, rtol=1e-8)


def test_products_are_adjoint_to_each_other():
    rng = np.random.default_rng(0)
    d, g = rng.normal(size=3), rng.normal(size=(2, 2))
    (bar,) = ad.vjp(cubic, X)[1](g)
    dot = ad.jvp(cubic, (X,), (d,))[1]
    assert (g * dot).sum() == pytest.approx(bar @ d, rel=1e-14)


def test_jvp_of_several_arguments_adds_up():
    f = lambda a, b: a * ad.exp(b)  # noqa: E731
    y, dot = ad.jvp(f, (2.0, 0.5), (1.0, -1.0))
    assert dot == pytest.approx(math.exp(0.5) - 2.0 * math.exp(0.5), rel=1e-15)
    assert ad.jvp(f, (2.0, 0.5), (0.0, 0.0))[1] == 0.0


def test_a_number_instead_of_a_tuple_is_one_primal():
    assert ad.jvp(lambda x: x**2, 3.0, 1.0) == (9.0, 6.0)


def test_a_zero_tangent_hides_infinity():
    assert ad.jvp(ad.sqrt, (0.0,), (0.0,)) == (0.0, 0.0)
    x = np.array([-1.0, 0.0, 4.0])
    dot = ad.jvp(lambda t: ad.where(t > 0, ad.sqrt(t), 0.0), (x,), (np.ones(3),))[1]
    assert dot.tolist() == [0.0, 0.0, 0.25]


# Jacobians and Hessians.


@pytest.mark.parametrize(
    "f",
    [
        cubic,
        lambda x: ad.sin(x),
        lambda x: x[:1] * x[1],
        lambda x: x @ x,
        lambda x: ad.outer(x, x).reshape(3, 3, 1),
        lambda x: [x[0] * x[1], x[2] ** 2],
        lambda x: (x.sum(), x[0]),
        lambda x: x,
        lambda x: ad.cumsum(x * x)[::-1],
    ],
)
def test_jacobians_agree_with_differences(f):
    def value(v):
        y = f(ad.tensor(v))
        return np.stack([t.numpy() for t in y]) if isinstance(y, (list, tuple)) else y.numpy()

    got = ad.jacobian(f)(X)
    want = differences(value, X)
    assert got.shape == want.shape == value(X).shape + (3,)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_wide_and_tall_jacobians_are_the_same_matrix(rows):
    rng = np.random.default_rng(rows)
    a = rng.normal(size=(rows, 4))
    x = rng.normal(size=4)
    got = ad.jacobian(lambda t: ad.tanh(ad.tensor(a) @ t))(x)
    np.testing.assert_allclose(got, (1 - np.tanh(a @ x) ** 2)[:, None] * a, rtol=1e-12)


def test_jacobian_records_the_function_once():
    calls = []

    def f(x):
        calls.append(1)
        return x * x[0]

    ad.jacobian(f)(np.ones(4))
    ad.hessian(lambda x: f(x).sum())(np.ones(4))
    assert len(calls) == 2


def test_jacobian_of_several_arguments_is_a_tuple_of_blocks():
    ja, jb = ad.jacobian(lambda a, b: a * b, argnums=(0, 1))(np.array([1.0, 2.0]), 3.0)
    assert ja.tolist() == [[3.0, 0.0], [0.0, 3.0]]
    assert jb.tolist() == [1.0, 2.0]
    j = ad.jacobian(lambda a, b: a * b, argnums=1)(np.array([[1.0], [2.0]]), np.ones(3))
    assert j.shape == (2, 3, 3)


def test_jacobian_of_numbers_is_a_number():
    assert ad.jacobian(ad.sin)(0.0) == 1.0
    assert type(ad.jacobian(ad.sin)(0.0)) is float
    assert ad.hessian(lambda x: x**3)(2.0) == 12.0


def test_jacobian_with_empty_sides():
    assert ad.jacobian(lambda x: x * 2.0)(np.zeros(0)).shape == (0, 0)
    assert ad.jacobian(lambda x: x[:0])(np.ones(3)).shape == (0, 3)
    assert ad.grad(lambda x: x.sum())(np.zeros(0)).shape == (0,)
    assert ad.hessian(lambda x: (x * x).sum())(np.zeros(0)).shape == (0, 0)


def test_hessian_has_its_closed_form():
    x = np.array([0.3, -1.2, 0.8, 1.1, 0.9])
    h = ad.hessian(rosenbrock)(x)
    np.testing.assert_allclose(h, rosenbrock_hessian(x), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(h, h.T, rtol=1e-14, atol=1e-12)


def test_hessian_agrees_with_differences_of_the_gradient():
    def f(x):
        m = x.reshape(2, 2)
        return ad.sin(m @ m).sum() * ad.log(ad.linalg.norm(x)) + ad.prod(x)

    x = np.array([0.4, -0.3, 1.2, 0.9])
    want = differences(ad.grad(f), x, 1e-5)
    np.testing.assert_allclose(ad.hessian(f)(x), want, rtol=1e-7, atol=1e-8)


def test_hessian_of_a_matrix_has_four_axes():
    h = ad.hessian(lambda m: (m * m * m).sum())(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert h.shape == (2, 2, 2, 2)
    assert h[1, 0, 1, 0] == 18.0
    assert h[1, 0, 0, 1] == 0.0


def test_hessian_of_another_argument():
    h = ad.hessian(lambda a, b: a * (b**2).sum(), argnums=1)(5.0, np.ones(2))
    assert h.tolist() == [[10.0, 0.0], [0.0, 10.0]]


# Nesting.


def power(x):
    return x**4


NESTED = {
    "grad of grad": (lambda x: ad.grad(ad.grad(power))(x), 48.0),
    "grad of grad of grad": (lambda x: ad.grad(ad.grad(ad.grad(power)))(x), 48.0),
    "jvp of grad": (lambda x: ad.jvp(ad.grad(power), (x,), (1.0,))[1], 48.0),
    "grad of jvp": (lambda x: ad.grad(lambda t: ad.jvp(power, (t,), (1.0,))[1])(x), 48.0),
    "jvp of jvp": (
        lambda x: ad.jvp(lambda t: ad.jvp(power, (t,), (1.0,))[1], (x,), (1.0,))[1],
        48.0,
    ),
    "vjp of vjp": (lambda x: ad.vjp(lambda t: ad.vjp(power, t)[1](1.0)[0], x)[1](1.0)[0], 48.0),
    "vjp of jvp": (lambda x: ad.vjp(lambda t: ad.jvp(power, (t,), (1.0,))[1], x)[1](1.0)[0], 48.0),
    "jvp of vjp": (lambda x: ad.jvp(lambda t: ad.vjp(power, t)[1](1.0)[0], (x,), (1.0,))[1], 48.0),
    "grad of vjp": (lambda x: ad.grad(lambda t: ad.vjp(power, t)[1](1.0)[0])(x), 48.0),
    "jacobian of grad": (lambda x: ad.jacobian(ad.grad(power))(x), 48.0),
    "grad of jacobian": (lambda x: ad.grad(ad.jacobian(power))(x), 48.0),
    "jacobian of jvp": (lambda x: ad.jacobian(lambda t: ad.jvp(power, (t,), (1.0,))[1])(x), 48.0),
    "jvp of jacobian": (lambda x: ad.jvp(ad.jacobian(power), (x,), (1.0,))[1], 48.0),
    "hessian": (lambda x: ad.hessian(power)(x), 48.0),
    "grad of hessian": (lambda x: ad.grad(ad.hessian(power))(x), 48.0),
    "jvp of hessian": (lambda x: ad.jvp(ad.hessian(power), (x,), (1.0,))[1], 48.0),
    "hessian of grad": (lambda x: ad.hessian(ad.grad(power))(x), 48.0),
    "hessian of hessian": (lambda x: ad.hessian(ad.hessian(power))(x), 24.0),
    "grad of value of value_and_grad": (
        lambda x: ad.grad(lambda t: ad.value_and_grad(power)(t)[0])(x),
        32.0,
    ),
    "grad of gradient of value_and_grad": (
        lambda x: ad.grad(lambda t: ad.value_and_grad(power)(t)[1])(x),
        48.0,
    ),
    "grad of value of jvp": (lambda x: ad.grad(lambda t: ad.jvp(power, (t,), (1.0,))[0])(x), 32.0),
    "grad of value of vjp": (lambda x: ad.grad(lambda t: ad.vjp(power, t)[0])(x), 32.0),
    "grad with respect to a tangent": (
        lambda x: ad.grad(lambda d: ad.jvp(power, (x,), (d,))[1])(1.0),
        32.0,
    ),
    "grad with respect to a cotangent": (
        lambda x: ad.grad(lambda g: ad.vjp(power, x)[1](g)[0])(1.0),
        32.0,
    ),
    "jvp with respect to a tangent": (
        lambda x: ad.jvp(lambda d: ad.jvp(power, (x,), (d,))[1], (1.0,), (1.0,))[1],
        32.0,
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_transforms_nest(name, tape_unchanged):
    f, want = NESTED[name]
    got = f(2.0)
    assert type(got) is float
    assert got == want


def total(x):
    return power(x).sum()


ONES = np.ones(3)
NESTED_OVER_ARRAYS = {
    "jvp of grad": lambda x: ad.jvp(ad.grad(total), (x,), (ONES,))[1],
    "grad of grad": lambda x: ad.grad(lambda t: ad.grad(total)(t).sum())(x),
    "grad of jvp": lambda x: ad.grad(lambda t: ad.jvp(power, (t,), (ONES,))[1].sum())(x),
    "grad of vjp": lambda x: ad.grad(lambda t: ad.vjp(power, t)[1](ONES)[0].sum())(x),
    "vjp of grad": lambda x: ad.vjp(ad.grad(total), x)[1](ONES)[0],
    "jacobian of grad": lambda x: ad.jacobian(ad.grad(total))(x).sum(0),
    "grad of jacobian": lambda x: ad.grad(lambda t: ad.jacobian(power)(t).sum())(x),
    "jacobian of jvp": lambda x: ad.jacobian(lambda t: ad.jvp(power, (t,), (ONES,))[1])(x).sum(0),
    "jvp of jacobian": lambda x: ad.jvp(ad.jacobian(power), (x,), (ONES,))[1].sum(0),
    "hessian": lambda x: ad.hessian(total)(x).sum(0),
}


@pytest.mark.parametrize("name", NESTED_OVER_ARRAYS)
def test_transforms_nest_over_arrays(name, tape_unchanged):
    got = NESTED_OVER_ARRAYS[name](X)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, 12 * X**2, rtol=1e-14)


def test_derivatives_of_order_six():
    f = ad.sin
    for _ in range(6):
        f = ad.grad(f)
    assert f(0.7) == pytest.approx(-math.sin(0.7), rel=1e-14)


def test_inner_and_outer_derivatives_are_not_confused():
    assert ad.grad(lambda x: x * ad.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    assert (
        ad.jvp(lambda x: x * ad.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))[1] == 1.0
    )
    assert ad.grad(lambda x: x * ad.jvp(lambda y: x + y, (1.0,), (1.0,))[1])(1.0) == 1.0
    assert ad.jvp(lambda x: x * ad.grad(lambda y: x + y)(1.0), (1.0,), (1.0,))[1] == 1.0
    assert ad.grad(lambda x: ad.grad(lambda y: x * y * y)(x))(3.0) == 12.0
    assert ad.grad(lambda x: x * ad.grad(lambda x: x * x)(x))(3.0) == 12.0
    assert ad.jacobian(lambda x: x * ad.jacobian(lambda y: x * y)(2.0))(3.0) == 6.0
    assert ad.hessian(lambda x: x * ad.grad(lambda y: x * x * y)(1.0))(2.0) == 12.0


def test_the_same_tensor_inside_and_outside_is_two_variables():
    x = ad.tensor(3.0, requires_grad=True)
    g = ad.grad(lambda y: y * x)(x)  # d/dy (y x) = x, and nothing of x itself
    assert g.item() == 3.0
    g.backward()
    assert x.grad.item() == 1.0


# Closures.

CLOSURES = {
    "grad": (lambda w: ad.grad(lambda x: w * x**2)(3.0), 6.0),
    "value_and_grad": (lambda w: sum(ad.value_and_grad(lambda x: w * x**2)(3.0)), 15.0),
    "jvp": (lambda w: ad.jvp(lambda x: w * x**2, (3.0,), (1.0,))[1], 6.0),
    "jvp value": (lambda w: ad.jvp(lambda x: w * x**2, (3.0,), (1.0,))[0], 9.0),
    "vjp": (lambda w: ad.vjp(lambda x: w * x**2, 3.0)[1](1.0)[0], 6.0),
    "vjp value": (lambda w: ad.vjp(lambda x: w * x**2, 3.0)[0], 9.0),
    "jacobian": (lambda w: ad.jacobian(lambda x: w * x**2)(3.0), 6.0),
    "hessian": (lambda w: ad.hessian(lambda x: w * x**2)(3.0), 2.0),
    "value only": (lambda w: ad.value_and_grad(lambda x: x**2 + w)(3.0)[0], 1.0),
    "wide jacobian": (lambda w: ad.jacobian(lambda x: (w * x**2).sum())(np.ones(2)).sum(), 4.0),
    "tall jacobian": (lambda w: ad.jacobian(lambda x: w * x * np.ones(3))(2.0).sum(), 3.0),
    "argument": (lambda w: ad.grad(lambda x, k: k * x**2)(3.0, w), 6.0),
    "tree argument": (lambda w: ad.grad(lambda x, p: p["k"][0] * x**2)(3.0, {"k": [w]}), 6.0),
    "aux": (lambda w: ad.grad(lambda x: (x * x, w * x), has_aux=True)(3.0)[1], 3.0),
}


@pytest.mark.parametrize("as_result", [False, True], ids=["leaf", "result"])
@pytest.mark.parametrize("name", CLOSURES)
def test_gradients_flow_to_a_tensor_that_the_function_captures(name, as_result):
    f, want = CLOSURES[name]
    leaf = ad.tensor(2.0, requires_grad=True)
    w = leaf * 10.0 if as_result else leaf
    y = f(w)
    assert isinstance(y, ad.Tensor)
    y.backward()
    assert leaf.grad.item() == want * (10.0 if as_result else 1.0)


@pytest.mark.parametrize("name", CLOSURES)
def test_a_captured_tensor_keeps_its_gradient_through_reclamation(name):
    """The tape is compacted while the function runs, which renumbers all nodes."""
    f, want = CLOSURES[name]
    leaf = ad.tensor(2.0, requires_grad=True)
    junk = [leaf * float(k) for k in range(50)]
    w = leaf * 10.0
    used = []

    class Reclaiming:
        """Stands for w; drops the junk before w is used, and compacts after."""

        def __mul__(self, other):
            junk.clear()
            used.append(1)
            y = w * other
            ad._core.compact()
            return y

        def __radd__(self, other):
            junk.clear()
            used.append(1)
            y = other + w
            ad._core.compact()
            return y

    y = f(Reclaiming())
    assert used
    assert isinstance(y, ad.Tensor)
    y.backward()
    assert leaf.grad.item() == want * 10.0


def test_a_captured_tensor_does_not_keep_other_results_on_the_tape(tape_state):
    w = ad.tensor(2.0, requires_grad=True)
    before = tape_state()
    y = ad.grad(lambda x: w * x**2)(3.0)
    del y
    assert tape_state() == before


def test_a_captured_tensor_that_needs_no_gradient_gives_plain_results():
    c = ad.tensor([2.0, 3.0])
    got = ad.grad(lambda x: (c * x**2).sum())(np.ones(2))
    assert type(got) is np.ndarray
    assert got.tolist() == [4.0, 6.0]


def test_gradients_flow_to_an_argument_that_requires_them():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    g = ad.grad(lambda t: (t**3).sum())(x)
    assert g.tolist() == [3.0, 12.0]
    g.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    h = ad.hessian(lambda t: (t**3).sum())(x * 2.0)
    (third,) = ad.autograd.grad(h.sum(), x)
    assert third.tolist() == [12.0, 12.0]


# Errors inside.

TRANSFORMS = {
    "grad": lambda f, x: ad.grad(f)(x),
    "value_and_grad": lambda f, x: ad.value_and_grad(f)(x),
    "jacobian": lambda f, x: ad.jacobian(f)(x),
    "hessian": lambda f, x: ad.hessian(f)(x),
    "vjp": lambda f, x: ad.vjp(f, x),
    "jvp": lambda f, x: ad.jvp(f, (x,), (x,)),
}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("x", [2.0, np.ones(1000)], ids=["number", "array"])
def test_an_exception_inside_the_function_leaves_the_tape_as_it_was(name, error, x, tape_state):
    def f(t):
        y = t * t + ad.exp(t)
        if y.size:
            raise error("stop")

    before = tape_state()
    with pytest.raises(error, match="stop"):
        TRANSFORMS[name](f, x)
    assert tape_state() == before
    assert ad.is_grad_enabled()
    assert ad.grad(lambda t: t**3)(2.0) == 12.0
    w = ad.tensor(2.0, requires_grad=True)
    assert type(ad.grad(lambda t: t**3)(2.0)) is float
    assert not w.grad


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_leave_nothing_on_the_tape(name, tape_unchanged):
    TRANSFORMS[name](lambda t: (t * t * ad.exp(t)).sum(), np.ones(500))
    TRANSFORMS[name](lambda t: t * t * ad.exp(t), 2.0)


def test_a_transform_inside_a_failing_hook_leaves_the_tape_as_it_was(tape_state):
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x

    def hook(g):
        assert ad.grad(ad.sin)(0.0) == 1.0
        raise KeyError("stop")

    y.register_hook(hook)
    before = tape_state()
    with pytest.raises(KeyError):
        y.backward()
    assert tape_state() == before


# SciPy.


def test_scipy_minimizes_with_value_and_grad():
    optimize = pytest.importorskip("scipy.optimize")
    x0 = np.array([-1.2, 1.0, -0.5, 0.8])
    for method in ("BFGS", "L-BFGS-B", "CG"):
        found = optimize.minimize(ad.value_and_grad(rosenbrock), x0, jac=True, method=method)
        np.testing.assert_allclose(found.x, np.ones(4), atol=1e-4)
    for method in ("trust-exact", "Newton-CG"):
        found = optimize.minimize(
            ad.value_and_grad(rosenbrock),
            [-1.2, 1.0],
            jac=True,
            hess=ad.hessian(rosenbrock),
            method=method,
        )
        np.testing.assert_allclose(found.x, np.ones(2), atol=1e-4)


def test_scipy_fits_with_the_jacobian():
    optimize = pytest.importorskip("scipy.optimize")
    t = np.linspace(0.0, 3.0, 30)
    y = 2.5 * np.exp(-1.3 * t) + 0.5

    def residuals(p):
        return p[0] * np.exp(-p[1] * t) + p[2] - y

    found = optimize.least_squares(residuals, [1.0, 1.0, 0.0], jac=ad.jacobian(residuals))
    np.testing.assert_allclose(found.x, [2.5, 1.3, 0.5], rtol=1e-8)
    p, _ = optimize.curve_fit(
        lambda t, a, b: a * np.exp(-b * t),
        t,
        y - 0.5,
        p0=[1.0, 1.0],
        jac=lambda t, a, b: ad.jacobian(lambda p: p[0] * np.exp(-p[1] * t))(np.array([a, b])),
    )
    np.testing.assert_allclose(p, [2.5, 1.3], rtol=1e-8)


def test_scipy_finds_roots_with_jacobian_and_newton():
    optimize = pytest.importorskip("scipy.optimize")

    def f(x):
        return (
            np.stack([x[0] ** 2 + x[1] ** 2 - 4.0, x[0] * x[1] - 1.0])
            if isinstance(x, np.ndarray)
            else ad.stack([x[0] ** 2 + x[1] ** 2 - 4.0, x[0] * x[1] - 1.0])
        )

    root = optimize.root(f, [2.0, 0.3], jac=ad.jacobian(f))
    np.testing.assert_allclose(f(root.x), [0.0, 0.0], atol=1e-10)
    x = optimize.newton(lambda x: x**3 - 2.0, 1.0, fprime=ad.grad(lambda x: x**3 - 2.0))
    assert x == pytest.approx(2 ** (1 / 3), rel=1e-12)


def test_a_captured_result_whose_leaves_are_gone_serves_again():
    x = ad.tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = np.array([0.5, 0.25])
    # x requires gradients, so t2 is recorded; but it does not depend on x
    t2 = ad.grad(lambda t: ad.sum(ad.sin(t) - x))(y)
    for _ in range(3):
        value, gradient = ad.value_and_grad(lambda z: ad.sum(z * t2))(y)
        assert value == pytest.approx(np.sum(y * np.cos(y)))
        np.testing.assert_allclose(gradient, np.cos(y), rtol=1e-15)
    ad.sum(t2 * x).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(y), rtol=1e-15)


def test_a_part_of_the_graph_that_somebody_holds_is_kept(tape_unchanged):
    held = []

    def f(x):
        held.append(ad.exp(x))
        return held[-1] * x

    assert ad.grad(f)(2.0) == pytest.approx(3.0 * np.exp(2.0))
    held.append(held[0] * 2.0)
    assert held[1].requires_grad
    held[1].backward()
    held.clear()
