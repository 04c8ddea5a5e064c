"""Packages that ask NumPy for arrays and `math` for numbers, while they are adapted to tensors."""

import math
import sys
import textwrap
import types

import numpy as np
import pytest

import fastad as ad

SOURCE = """
import math
import numpy as np
from math import sin
from numpy import asarray, zeros

CONSTANT = np.pi

def polynomial(v):
    v = np.asarray(v, dtype=float)
    return (v ** 3).sum()

def matrix(a, b):
    return np.array([[a, b], [b, 1.0]])

def filled(x):
    out = zeros(3)
    for i in range(3):
        out[i] = x * i
    return out

def trigonometric(x):
    return sin(x) * math.cos(x) + math.sqrt(x)

def kind(x):
    return isinstance(x, np.ndarray), np.isscalar(x)

def number(x):
    return float(x) ** 2

def into_an_array(a, x):
    a[0] = x
    return a
"""


@pytest.fixture
def package():
    """A package `others` with a module `others.inner`, which are as written above."""
    modules = [types.ModuleType("others"), types.ModuleType("others.inner")]
    for module in modules:
        exec(textwrap.dedent(SOURCE), vars(module))
        sys.modules[module.__name__] = module
    yield modules[0]
    for module in modules:
        del sys.modules[module.__name__]


def names(module):
    return {name: value for name, value in vars(module).items() if name != "__builtins__"}


def test_a_conversion_to_an_array_keeps_the_gradient(package):
    with ad.adapt(package):
        assert ad.grad(package.polynomial)(np.array([1.0, 2.0])).tolist() == [3.0, 12.0]


def test_an_array_of_tensors_keeps_the_gradients(package):
    with ad.adapt(package):
        slope = ad.grad(lambda a: (package.matrix(a, 2.0 * a) ** 2).sum())(3.0)
    assert slope == 2 * 3.0 * (1 + 4 + 4)


def test_functions_of_math_take_tensors_under_any_name(package):
    with ad.adapt(package):
        slope = ad.grad(package.trigonometric)(0.5)
    assert slope == pytest.approx(math.cos(1.0) + 0.5 / math.sqrt(0.5), rel=1e-14)


def test_values_that_are_not_tensors_are_computed_as_before(package):
    with ad.adapt(package):
        assert package.trigonometric(0.5) == math.sin(0.5) * math.cos(0.5) + math.sqrt(0.5)
        assert package.CONSTANT == np.pi and package.np.sin is np.sin
        assert package.np.array(["a"]).dtype.kind == "U"
        assert type(package.np.arange(3)) is np.ndarray


def test_tensors_pass_for_arrays_and_numbers_where_types_are_asked(package):
    with ad.adapt(package):
        assert package.kind(ad.tensor([1.0])) == (True, False)
        assert package.kind(ad.tensor(1.0)) == (True, True)
        assert package.kind(np.ones(2)) == (True, False)
        assert package.kind([1.0]) == (False, False)


def test_modules_below_a_package_are_adapted_and_others_are_not(package):
    inner = sys.modules["others.inner"]
    with ad.adapt("others"):
        assert inner.np is not np and np.asarray([1.0]) is not None
        assert type(np.asarray([1.0])) is np.ndarray and type(np.zeros(2)) is np.ndarray
        assert math.sin is inner.math._module.sin
    with ad.adapt("others.inner"):
        assert package.np is np and inner.np is not np


def test_everything_is_as_before_when_the_context_is_left(package):
    before = names(package)
    with ad.adapt(package):
        assert names(package) != before
    assert names(package) == before
    with pytest.raises(ZeroDivisionError), ad.adapt(package):
        raise ZeroDivisionError
    assert names(package) == before


def test_contexts_nest(package):
    before = names(package)
    with ad.adapt(package):
        inside = names(package)
        with ad.adapt("others.inner", package):
            assert names(package) == inside
        assert names(package) == inside
        assert ad.grad(package.trigonometric)(0.5) != 0.0
    assert names(package) == before


def test_a_number_made_of_a_tensor_is_refused_inside_and_allowed_outside(package):
    x = ad.tensor(2.0, requires_grad=True)
    with ad.adapt(package):
        with pytest.raises(TypeError, match=r"float: inside adapt\(\) .* use \.item\(\)"):
            package.number(x)
        with pytest.raises((TypeError, ValueError)):
            package.into_an_array(np.ones(2), x)
        assert package.number(x.detach()) == 4.0
    assert package.number(x) == 4.0


@pytest.mark.parametrize("wrong, error, text", [
    (3, TypeError, "adapt: wanted modules or their names, got int"),
    ("no_such_package", ImportError, "adapt: import no_such_package first"),
])
def test_what_is_no_imported_package_is_refused(wrong, error, text):
    with pytest.raises(error, match=text), ad.adapt(wrong):
        pass


UNARY = [name for name in "acos acosh asin asinh atan atanh cbrt cos cosh degrees erf erfc exp "
         "exp2 expm1 fabs lgamma log log10 log1p log2 radians sin sinh sqrt tan tanh".split()
         if hasattr(math, name)]


@pytest.mark.parametrize("name", UNARY)
def test_every_function_of_math_has_its_value_and_its_slope(package, name):
    at = 1.25 if name == "acosh" else 0.4
    with ad.adapt(package):
        y, slope = ad.value_and_grad(lambda x: getattr(package.math, name)(x))(at)
    f = getattr(math, name)
    assert y == pytest.approx(f(at), rel=1e-15)
    assert slope == pytest.approx((f(at + 1e-6) - f(at - 1e-6)) / 2e-6, rel=1e-8)


def test_functions_of_math_with_more_arguments_have_their_slopes(package):
    with ad.adapt(package):
        for f, at in [(lambda m, x: m.atan2(x, 2.0), 0.7), (lambda m, x: m.pow(x, 3.0), 0.7),
                      (lambda m, x: m.hypot(x, 2.0), 0.7), (lambda m, x: m.hypot(x, 2.0, 3.0), 0.7),
                      (lambda m, x: m.log(x, 2.0), 0.7), (lambda m, x: m.log(2.0, x), 0.7),
                      (lambda m, x: m.copysign(x, -1.0), 0.7), (lambda m, x: m.fmod(x, 0.5), 0.7)]:
            y, slope = ad.value_and_grad(lambda x, f=f: f(package.math, x))(at)
            assert y == pytest.approx(f(math, at), rel=1e-15)
            above, below = f(math, at + 1e-6), f(math, at - 1e-6)
            assert slope == pytest.approx((above - below) / 2e-6, rel=1e-8)


def test_integers_and_questions_are_those_of_math(package):
    x = ad.tensor(2.5, requires_grad=True)
    with ad.adapt(package):
        assert package.math.floor(x) == 2 and type(package.math.floor(2.5)) is int
        assert package.math.ceil(x) == 3 and package.math.trunc(-x) == -2
        assert package.math.isnan(x) == False and package.math.isfinite(x)  # noqa: E712
        for other in (2.5, 2.5 + 1e-10, 2.5 + 1e-8, math.inf, math.nan):
            assert package.math.isclose(x, other) is math.isclose(2.5, other)
        assert package.math.isclose(x, 2.6, abs_tol=0.2) is True


@pytest.mark.parametrize("name", ["zeros", "ones", "empty", "full", "eye", "identity", "linspace",
                                  "array", "asarray", "asanyarray", "ascontiguousarray"])
def test_what_makes_arrays_makes_tensors_with_numpys_values(package, name):
    args = {"full": (2, 3.0), "linspace": (0.0, 1.0, 4)}.get(
        name, ([1.0, 2.0],) if "array" in name else (2,))
    with ad.adapt(package):
        made = getattr(package.np, name)(*args)
    assert type(made) is ad.Tensor and made.dtype == np.float64
    if name != "empty":
        assert np.array_equal(made.numpy(), getattr(np, name)(*args))


def test_a_function_that_numpy_defines_otherwise_refuses_tensors(package):
    with ad.adapt(package), pytest.raises(TypeError, match="float: inside adapt"):
        package.math.remainder(ad.tensor(2.5, requires_grad=True), 2.0)


def test_full_keeps_the_gradient_of_its_value(package):
    with ad.adapt(package):
        assert ad.grad(lambda x: package.np.full(3, x).sum())(2.0) == 3.0


def test_programs_record_through_adapted_packages(package):
    with ad.adapt(package):
        p = ad.compile(package.trigonometric)
        assert p.grad(0.5) == ad.grad(package.trigonometric)(0.5)
