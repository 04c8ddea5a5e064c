"""Programs: recorded once for each way through a function, replayed, never wrong."""

import collections
import functools
import os
import random
import threading
import time
import types
import typing
import warnings

import numpy as np
import pytest
from conftest import with_failing_allocations

import fastad as ad
from fastad import _core

X = np.array([0.5, -1.5, 2.0])


def same(got, want):
    """Whether two results have the same nesting and the same bits."""
    if isinstance(want, (tuple, list)):
        return type(got) is type(want) and len(got) == len(want) and all(map(same, got, want))
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(same(got[k], want[k]) for k in want)
    if isinstance(want, np.ndarray):
        return (isinstance(got, np.ndarray) and got.dtype == want.dtype
                and got.shape == want.shape and got.tobytes() == want.tobytes())
    return type(got) is type(want) and (got == want or (got != got and want != want))


def eager(f, *args):
    """f on tensors, as numbers and arrays."""
    def out(y):
        if isinstance(y, ad.Tensor):
            y = y.detach()
            return y.item() if y.ndim == 0 else np.array(y.numpy())
        if isinstance(y, (tuple, list)):
            return type(y)(map(out, y))
        return {k: out(v) for k, v in y.items()} if isinstance(y, dict) else y
    return out(f(*[ad.tensor(x) if isinstance(x, (float, np.ndarray)) else x for x in args]))


def agree(program, f, *args, times=3):
    """Call a program several times and compare each result with the function's."""
    want = eager(f, *args)
    for _ in range(times):
        assert same(program(*args), want)


# Values.

FUNCTIONS = {
    "a number": (lambda a, b: a * b + ad.sin(a) / b - 2.0, (0.7, 1.3)),
    "a chain of sums and products": (lambda a, b: ((a * b + a) * b + 1.0) * a - b, (0.7, 1.3)),
    "rows of three operands": (lambda a, b: ad.clip(a, b, 1.0) + ad.where(a > 0.5, a, b),
                               (0.7, 0.2)),
    "an array": (lambda x: ad.tanh(x * 2.0) * ad.exp(x) + x, (X,)),
    "broadcasting": (lambda x, y: (x * y + x) / (y * y + 1.0), (X, np.array([[1.0], [2.0]]))),
    "reductions": (lambda x: (x.sum(), x.mean(), x.max(), x.prod(), x.std()), (X,)),
    "products": (lambda x, m: (m @ x, x @ m @ x, ad.outer(x, x), m.T @ m), (X, np.eye(3) + 0.5)),
    "batched products": (lambda m: ad.matmul(m, m), (np.arange(8.0).reshape(2, 2, 2),)),
    "indexing": (lambda x: (x[0] * x[-1], x[1:], x[::-1], x[[2, 2, 0]]), (X,)),
    "shapes": (lambda x: (ad.reshape(x, (3, 1)) + x, ad.stack([x, x], 1), ad.tile(x, 2)), (X,)),
    "numbers into an array": (lambda a, b: ad.stack([a, b, a * b]) ** 2, (2.0, 3.0)),
    "sorting": (lambda x: (ad.sort(x), ad.cumsum(x), ad.argsort(x)), (X,)),
    "truth values": (lambda x: (x > 0.0, ad.where(x > 0.0, x, -x), ad.isnan(x)), (X,)),
    "nesting": (lambda x: {"a": [x, (x + 1.0, 3)], "b": None, "c": "text"}, (X,)),
    "float32": (lambda x: (x * 2.0 + ad.exp(x), x.sum()), (X.astype(np.float32),)),
    "both dtypes": (lambda x, y: x * y, (X.astype(np.float32), X)),
    "a count": (lambda x: x * ad.count_nonzero(x), (X.astype(np.float32),)),
    "a number as an integer": (lambda a: ad.floor(a).astype(int) + a, (2.75,)),
    "integers": (lambda x, k: (x[k], k * 2), (X, np.array([1, 1, 2]))),
    "einsum and norm": (lambda x: (ad.einsum("i,j->ij", x, x), ad.linalg.norm(x)), (X,)),
    "an empty array": (lambda x: (x.sum(), x * 2.0), (np.zeros((0, 3)),)),
    "nothing computed": (lambda x: x, (X,)),
    "a constant": (lambda x: (1.0, np.arange(3)), (X,)),
    "large arrays": (lambda x: (ad.tanh(x * x) + x).sum() * x, (np.linspace(-1.0, 1.0, 9001),)),
}


@pytest.mark.parametrize("f, args", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_a_replay_gives_the_bits_of_the_function(f, args, tape_unchanged):
    program = ad.compile(f)
    agree(program, f, *args)
    assert (program.recordings, program.replays) == (1, 2)
    r = np.random.default_rng(1)
    for _ in range(3):
        moved = [a + r.uniform(0.0, 0.1) if isinstance(a, float) else
                 (a + r.uniform(0.0, 0.1, a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a
                 for a in args]
        assert same(program(*moved), eager(f, *moved))


SPREAD = {
    "power": ad.power, "float_power": ad.float_power, "hypot": ad.hypot, "arctan2": ad.arctan2,
    "remainder": ad.remainder, "logaddexp": ad.logaddexp, "maximum": ad.maximum,
    "multiply": ad.multiply, "exp": lambda x, y: x + ad.exp(y), "tanh": lambda x, y: x * ad.tanh(y),
}


@pytest.mark.parametrize("row", SPREAD.values(), ids=list(SPREAD))
def test_a_number_spread_to_an_array_gives_the_bits_of_that_array(row):
    def f(x):
        return row(x, ad.broadcast_to(x[0] * 0.0 + 2.0, x.shape))

    program = ad.compile(f)
    r = np.random.default_rng(2)
    for n in (17, 1000, 9001):
        for _ in range(3):
            x = r.uniform(0.1, 3.0, n)
            assert same(program(x), eager(f, x))


def test_the_comparison_notices_one_bit_and_another_nesting():
    assert not same(1.0, np.nextafter(1.0, 2.0))
    assert not same(np.array([0.0]), np.array([-0.0]))
    assert not same((1.0,), [1.0])
    assert not same(np.zeros(3), np.zeros(3, np.float32))


def test_results_are_arrays_of_ones_own():
    program = ad.compile(lambda x: (x, x * 2.0))
    program(X)
    x = X.copy()
    y, z = program(x)
    y[:] = z[:] = 0.0
    assert np.array_equal(x, X)
    assert same(program(x), (X, X * 2.0))


def test_constants_in_results_can_be_changed_without_harm():
    program = ad.compile(lambda x: (np.arange(3.0), x))
    program(X)[0][:] = 7.0
    assert program(X)[0].tolist() == [0.0, 1.0, 2.0]


def test_numbers_in_give_numbers_out_and_tensors_give_tensors():
    program = ad.compile(lambda a: a * 2.0)
    assert type(program(1.0)) is float and type(program(1.0)) is float
    assert type(program(np.float64(1.0))) is float
    y = program(ad.tensor(1.0))
    assert type(y) is ad.Tensor and not y.requires_grad and y.item() == 2.0


def test_arrays_of_any_layout_are_read_right():
    f = lambda x: x * 2.0 + x[0]  # noqa: E731
    program = ad.compile(f)
    m = np.arange(12.0).reshape(3, 4)
    for x in (m, m[:, ::-1], m.T.copy().T, m.astype(">f8"), np.asfortranarray(m)):
        assert same(program(x), eager(f, np.ascontiguousarray(x, np.float64)))
    assert len(program.plans) == 1


def test_keyword_arguments_and_other_objects_belong_to_the_signature():
    @ad.compile
    def f(x, power, *, scale=1.0, name="a"):
        return scale * x**power if name == "a" else -x

    assert f(2.0, 3) == 8.0 and f(2.0, 2) == 4.0 and f(2.0, 3, scale=2.0) == 16.0
    assert f(2.0, 3, name="b") == -2.0 and f(3.0, 3) == 27.0
    assert f.recordings == 4


def test_a_decorated_method_sees_its_object():
    class Model:
        def __init__(self, k):
            self.k = k

        def value(self, x):
            return self.k * x

    model = Model(2.0)
    program = ad.compile(model.value)
    assert program(3.0) == 6.0 and program(4.0) == 8.0
    model.k = 5.0
    assert program(3.0) == 15.0


def test_a_method_that_is_decorated_in_its_class_gives_what_it_gives():
    class Model:
        k = 2.0

        @ad.compile
        def value(self, x):
            return self.k * x

        @staticmethod
        @ad.compile
        def twice(x):
            return 2.0 * x

    model, other = Model(), Model()
    other.k = 3.0
    with pytest.warns(ad.ProgramWarning, match="an argument is an object") as told:
        assert [m.value(x) for m in (model, other) for x in (1.0, 2.0)] == [2.0, 4.0, 3.0, 6.0]
    assert len(told) == 1
    assert model.twice(1.0) == Model.twice(1.0) == 2.0 and Model.twice.replays == 1


# Derivatives.


def bowl(x):
    return (ad.exp(x) * x).sum() + x[0] * x[1] ** 2


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "jacobian", "hessian"])
def test_derivatives_are_those_of_the_transforms(name, tape_unchanged):
    program = ad.compile(bowl)
    want = getattr(ad, name)(bowl)(X)
    for _ in range(3):
        got = getattr(program, name)(X)
        for g, w in zip(got if name == "value_and_grad" else [got],
                        want if name == "value_and_grad" else [want]):
            np.testing.assert_allclose(g, w, rtol=1e-14, atol=0.0)


def test_products_with_derivatives_are_those_of_the_transforms(tape_unchanged):
    program = ad.compile(bowl)
    v = np.array([1.0, -2.0, 0.5])
    for _ in range(2):
        assert np.allclose(program.jvp((X,), (v,))[1], ad.jvp(bowl, (X,), (v,))[1], rtol=1e-14)
        assert np.allclose(program.hvp(X, v), ad.hessian(bowl)(X) @ v, rtol=1e-13)
        value, (x_bar,) = program.vjp((X,), 2.0)
        assert value == eager(bowl, X) and np.allclose(x_bar, 2.0 * ad.grad(bowl)(X), rtol=1e-14)


def test_derivatives_in_several_arguments():
    program = ad.compile(lambda a, b: a * b**2)
    both = program.derived("value_and_grad", (0, 1))
    for _ in range(2):
        assert both(3.0, 2.0) == (12.0, (4.0, 12.0))


def test_integers_are_floats_where_a_derivative_is_taken():
    program = ad.compile(lambda x: (x**2).sum() if x.ndim else x**2)
    assert program.grad(3) == 6.0
    assert program.grad([1, 2]).tolist() == [2.0, 4.0]
    assert program.grad(np.array([1, 2])).tolist() == [2.0, 4.0]


def test_a_program_differentiates_to_higher_orders():
    program = ad.compile(ad.grad(ad.grad(ad.grad(ad.sin))))
    for x in (0.3, 0.4):
        assert program(x) == pytest.approx(-np.cos(x), rel=1e-14)


def test_a_zero_cotangent_hides_infinity_in_a_replay():
    program = ad.compile(lambda x: ad.where(x > 0.0, ad.sqrt(x), 0.0).sum())
    for x in ([1.0, 4.0], [-1.0, 0.0], [0.0, 9.0]):
        assert program.grad(np.array(x)).tolist() == ad.grad(program.function)(np.array(x)).tolist()


def test_loops_over_the_elements_of_an_array_are_differentiated_in_linear_size():
    def f(x):
        y = 0.0
        for k in range(len(x)):
            y = y * 0.5 + x[k] * x[k]
        return y

    x = np.linspace(0.0, 1.0, 300)
    program = ad.compile(f)
    assert np.allclose(program.grad(x), ad.grad(f)(x), rtol=1e-13)
    assert np.array_equal(program.grad(x), program.grad(x))
    (plan,) = program.derived("grad").plans[next(iter(program.derived("grad").plans))]
    assert plan.describe()["arena_bytes"] <= 2 * 300 * 8 + 128


# Programs and tensors that require gradients.


def test_a_call_with_a_tensor_that_requires_gradients_is_part_of_the_record():
    program = ad.compile(lambda x: (x * x).sum())
    program(X)
    x = ad.tensor(X, requires_grad=True)
    program(x).backward()
    assert x.grad.tolist() == (2.0 * X).tolist()


def test_weights_in_a_closure_are_read_anew_and_get_gradients():
    w = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    program = ad.compile(lambda x: (w * x).sum())
    with ad.no_grad():
        assert program(X) == program(X) == eager(lambda x: (w * x).sum(), X)
        w *= 2.0
        assert program(X) == eager(lambda x: (w * x).sum(), X)
        assert program.recordings == 1
    program(X).backward()
    assert w.grad.tolist() == X.tolist()


def test_weights_in_a_closure_get_gradients_from_the_first_call_on():
    w = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    program = ad.compile(lambda x: (w * x).sum())
    for times in (1.0, 2.0):
        program(X).backward()
        assert w.grad.tolist() == (times * X).tolist()
    derived = program.value_and_grad
    value, gradient = derived(X)
    assert value.requires_grad and gradient.tolist() == w.tolist()


def test_a_program_inside_a_program_is_part_of_it():
    inner = ad.compile(lambda x: ad.exp(x) * x)
    outer = ad.compile(lambda x: inner(x).sum() + inner(x[0]))
    agree(outer, lambda x: (ad.exp(x) * x).sum() + ad.exp(x[0]) * x[0], X)
    assert inner.recordings == 0
    assert np.allclose(outer.grad(X), ad.grad(outer.function)(X), rtol=1e-14)


def test_a_gradient_inside_the_function_is_replayed():
    f = lambda x: ad.grad(lambda z: (z**3).sum())(x) * x  # noqa: E731
    program = ad.compile(f)
    for x in (X, X + 1.0):
        assert np.allclose(program(x), 3.0 * x**3, rtol=1e-14)
    assert program.recordings == 1


# Guards.


def newton(a):
    """The square root, until it is good enough; a loop whose length depends on the data."""
    x, steps = a, 0
    while abs(x * x - a) > 1e-9 * a:
        x = 0.5 * (x + a / x)
        steps += 1
    return x, steps


GUARDED = {
    "if": (lambda x: x * 2.0 if x > 1.0 else -x, [0.5, 1.5, 0.7, 1.0, -3.0]),
    "while": (newton, [2.0, 900.0, 3.0, 1e-4, 2.5]),
    "and, or, not": (lambda x: x if (x > 0.0 and not x > 2.0) or x == 5.0 else -x,
                     [1.0, 3.0, 5.0, -1.0]),
    "float": (lambda x: x * float(x), [1.0, 2.0, 1.0]),
    "int": (lambda x: sum((x * k for k in range(int(x))), x), [1.2, 3.9, 1.7, 3.1, -0.5]),
    "item": (lambda x: {1.0: x, 2.0: -x}[x.item()], [1.0, 2.0, 1.0]),
    "truth": (lambda x: x + 1.0 if x else x - 1.0, [0.0, 2.0, -0.0, float("nan")]),
    "max by comparison": (lambda x: max(x, 1.0) * min(x, 2.0), [0.0, 1.5, 3.0]),
    "printing": (lambda x: (x, f"{x:.2f}"), [1.0, 2.25, 1.0]),
    "nan": (lambda x: 1.0 if x > 0.0 else 2.0 if x <= 0.0 else x, [1.0, -1.0, float("nan")]),
    "argmax as an index": (lambda x: x[int(ad.argmax(x))] * x[ad.argmin(x)],
                           [np.array(v) for v in ([1.0, 2.0], [5.0, 1.0], [3.0, 4.0])]),
    "sorted": (lambda x: sorted(x)[0] * x[0], [np.array(v) for v in ([1.0, 2.0], [5.0, 1.0])]),
    "a mask": (lambda x: x[x > 0.0].sum(), [np.array(v) for v in ([1.0, -1.0], [1.0, 2.0])]),
    "any and all": (lambda x: x.sum() if (x > 0.0).all() else x.prod(),
                    [np.array(v) for v in ([1.0, 2.0], [1.0, -2.0], [3.0, 4.0])]),
    "an element": (lambda x: x * 2.0 if x[1] > x[0] else x,
                   [np.array(v) for v in ([1.0, 2.0], [1.0, -2.0], [3.0, 4.0])]),
    "values": (lambda x: x * float(np.round(x.detach().numpy()).sum()),
               [np.array(v) for v in ([1.1, 2.2], [1.2, 2.1], [3.0, 4.0])]),
}


@pytest.mark.parametrize("f, values", GUARDED.values(), ids=list(GUARDED))
def test_what_python_looked_at_is_guarded(f, values, tape_unchanged):
    program = ad.compile(f)
    for _ in range(3):
        for x in values:
            assert same(program(x), eager(f, x))
    assert program.replays > 0 and not program.given_up


@pytest.mark.parametrize("f, values", GUARDED.values(), ids=list(GUARDED))
def test_guards_hold_in_gradients_too(f, values):
    def number(x):
        y = f(x)
        y = y[0] if isinstance(y, tuple) else y
        return y if not isinstance(y, ad.Tensor) or y.ndim == 0 else y.sum()

    program = ad.compile(number)
    for x in values + values:
        value, g = program.value_and_grad(x)
        want_value, want = ad.value_and_grad(number)(x)
        assert same(value, want_value)
        np.testing.assert_allclose(g, want, rtol=1e-13)


def test_a_flipped_guard_finds_the_recording_it_had_before():
    program = ad.compile(lambda x: x * 2.0 if x > 0.0 else x)
    for x in [1.0, -1.0] * 10:
        program(x)
    assert (program.recordings, program.replays) == (2, 18)


def test_recordings_are_dropped_when_there_are_too_many(tape_unchanged):
    program = ad.compile(lambda x: x * int(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        for k in range(8):
            for x in [k * 5 + j + 0.5 for j in range(5)] + [k * 5 + 0.25]:
                assert program(x) == x * int(x)
    assert sum(map(len, program.plans.values())) <= 32


def test_a_guard_that_fails_in_every_call_is_told_once_and_the_function_computed_eagerly():
    program = ad.compile(lambda x: x * float(x))
    with pytest.warns(ad.ProgramWarning, match="a guard fails in every call") as told:
        for x in np.linspace(1.0, 2.0, 40):
            assert program(float(x)) == x * x
    assert len(told) == 1 and program.recordings < 20


def test_a_long_recording_that_serves_no_second_call_is_given_up_sooner():
    def f(x):
        y = x
        for _ in range(100_000):
            y = y * x + float(x)
        return y

    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match="choose with where, maximum or clip") as told:
        for x in np.linspace(0.1, 0.2, 5):
            assert program(float(x)) == f(float(x))
    assert len(told) == 1 and program.recordings == 3


def test_shapes_that_keep_changing_are_told_with_the_argument():
    program = ad.compile(lambda x, a: x.sum() * a)
    with pytest.warns(ad.ProgramWarning, match=r"argument 0 was an array of shape") as told:
        for n in range(1, 80):
            assert program(np.ones(n), 2.0) == 2.0 * n
    assert len(told) == 1


# What a recording depends on besides the arguments.

FACTOR = 2.0


def scaled(x):
    return FACTOR * x


def test_a_changed_global_is_noticed(monkeypatch):
    program = ad.compile(scaled)
    assert program(3.0) == program(3.0) == 6.0
    monkeypatch.setattr(f"{__name__}.FACTOR", 5.0)
    assert program(3.0) == 15.0


def test_a_changed_global_of_a_function_that_is_called_is_noticed(monkeypatch):
    program = ad.compile(lambda x: scaled(x) + 1.0)
    assert program(3.0) == program(3.0) == 7.0
    monkeypatch.setattr(f"{__name__}.FACTOR", 5.0)
    assert program(3.0) == 16.0


def test_a_changed_closure_is_noticed():
    k = 2.0
    program = ad.compile(lambda x: k * x)
    assert program(3.0) == program(3.0) == 6.0
    k = 4.0
    assert program(3.0) == 12.0


def test_changed_code_is_noticed():
    def f(x):
        return 2.0 * x

    program = ad.compile(f)
    assert program(3.0) == program(3.0) == 6.0
    f.__code__ = (lambda x: 7.0 * x).__code__
    assert program(3.0) == 21.0


CONTAINERS = {
    "an array": (np.array([1.0, 2.0, 3.0]), lambda c: c.__setitem__(0, 9.0), lambda x, c: x * c),
    "a list": ([1.0, 2.0], lambda c: c.__setitem__(0, 9.0), lambda x, c: x * c[0]),
    "a dict": ({"k": 1.0}, lambda c: c.__setitem__("k", 9.0), lambda x, c: x * c["k"]),
    "an array in a list": ([np.ones(3)], lambda c: c[0].__setitem__(0, 9.0), lambda x, c: x * c[0]),
    "an attribute": (types.SimpleNamespace(k=1.0), lambda c: setattr(c, "k", 9.0),
                     lambda x, c: x * c.k),
}


class Settings:
    shared = 1.0

    @property
    def product(self):
        return self.shared


class Slotted:
    __slots__ = ("k",)


class Numbers(list):
    pass


class Outer(types.SimpleNamespace):
    def times(self, x):
        return x * FACTORS[0]


FACTORS = [1.0]
MODULE = types.ModuleType("settings")
MODULE.k = 1.0
SLOTTED = Slotted()
SLOTTED.k = 1.0
PAIR = typing.NamedTuple("Pair", [("a", object)])(np.ones(3))
CONTAINERS |= {
    "a key": ({"k": 1.0}, lambda c: c.__setitem__("kk", c.pop("k")),
              lambda x, c: x * len(next(iter(c)))),
    "an ordered dict": (collections.OrderedDict(k=1.0), lambda c: c.__setitem__("k", 9.0),
                        lambda x, c: x * c["k"]),
    "a dict with defaults": (collections.defaultdict(float, k=1.0),
                             lambda c: c.__setitem__("k", 9.0), lambda x, c: x * c["k"]),
    "a set": ({1}, lambda c: c.add(5), lambda x, c: x * len(c)),
    "a deque": (collections.deque([1.0]), lambda c: c.appendleft(9.0), lambda x, c: x * c[0]),
    "a list of a class of its own": (Numbers([1.0]), lambda c: c.__setitem__(0, 9.0),
                                     lambda x, c: x * c[0]),
    "a long list": ([1.0] * 200, lambda c: c.__setitem__(150, 9.0), lambda x, c: x * c[150]),
    "a deep dict": ({"a": {"b": {"c": {"d": {"e": [1.0]}}}}},
                    lambda c: c["a"]["b"]["c"]["d"]["e"].__setitem__(0, 9.0),
                    lambda x, c: x * c["a"]["b"]["c"]["d"]["e"][0]),
    "an array in a named tuple": (PAIR, lambda c: c.a.__setitem__(0, 9.0), lambda x, c: x * c.a),
    "a large array": (np.ones((3, 50000)), lambda c: c.__imul__(9.0), lambda x, c: x @ c),
    "a class": (Settings(), lambda c: setattr(Settings, "shared", 9.0),
                lambda x, c: x * c.product),
    "a slot": (SLOTTED, lambda c: setattr(c, "k", 9.0), lambda x, c: x * c.k),
    "a module": (MODULE, lambda c: setattr(c, "k", 9.0), lambda x, c: x * MODULE.k),
    "what a method reads": (Outer(), lambda c: FACTORS.__setitem__(0, 9.0),
                            lambda x, c: c.times(x)),
    "what a program inside reads": (
        ad.compile(lambda x: x * FACTORS[-1]), lambda c: FACTORS.append(7.0),
        lambda x, c: c(x)),
}


@pytest.mark.parametrize("make, change, f", CONTAINERS.values(), ids=list(CONTAINERS))
def test_a_change_inside_something_from_outside_is_noticed(make, change, f):
    c = make
    program = ad.compile(lambda x: f(x, c))
    first = program(X)
    assert same(program(X), first)
    change(c)
    assert same(program(X), eager(lambda x: f(x, c), X))
    assert not same(program(X), first)


OBJECTS = {
    "a set": ({1}, lambda s: s.add(5), lambda x, s: x * len(s)),
    "an object": (types.SimpleNamespace(k=1.0), lambda s: setattr(s, "k", 10.0),
                  lambda x, s: x * s.k),
    "an array of times": (np.array([1], "m8[s]"), lambda s: s.__setitem__(0, 5),
                          lambda x, s: x * float(s.astype(int)[0])),
    "an object in a list": ([types.SimpleNamespace(k=1.0)], lambda s: setattr(s[0], "k", 10.0),
                            lambda x, s: x * s[0].k),
}


@pytest.mark.parametrize("make, change, f", OBJECTS.values(), ids=list(OBJECTS))
def test_an_object_as_an_argument_may_change_between_calls(make, change, f):
    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match="an argument is an object") as told:
        first = program(2.0, make)
        assert program(2.0, make) == first
    change(make)
    assert program(2.0, make) == f(2.0, make) != first
    assert len(told) == 1


def test_temporaries_that_take_each_others_place_are_told_apart():
    program = ad.compile(lambda x: ad.tensor(x.astype(float)).sum() * 1.0)
    with pytest.warns(ad.ProgramWarning, match="an argument is an object"):
        for k in range(1, 6):
            a = np.array([k], "m8[s]")
            assert program(a) == k
            del a


def test_the_attributes_of_a_callable_object_are_watched():
    class Scaled:
        def __init__(self, k):
            self.k = k

        def __call__(self, x):
            return self.k * x

    class Model(Scaled):
        pass

    model = Model(2.0)
    program = ad.compile(model)
    assert program(3.0) == program(3.0) == 6.0
    model.k = 4.0
    assert program(3.0) == 12.0


def test_watching_a_large_collection_ends():
    data = [[[[float(i + j + k + m) for m in range(20)] for k in range(20)] for j in range(20)]
            for i in range(20)]
    program = ad.compile(lambda x: x * data[0][0][0][1])
    start = time.perf_counter()
    assert program(2.0) == program(2.0) == 2.0
    assert time.perf_counter() - start < 5.0 and len(program.seen) < 3000


def test_the_arguments_of_a_partial_are_watched():
    c = [2.0]
    program = ad.compile(functools.partial(lambda c, x: c[0] * x, c))
    assert program(3.0) == program(3.0) == 6.0
    c[0] = 4.0
    assert program(3.0) == 12.0


GENERATOR, OLD_GENERATOR = np.random.default_rng(3), random.Random(3)
REFUSED = {
    "a draw from a generator outside": (lambda x: x * GENERATOR.normal(), "random"),
    "a draw from a Random outside": (lambda x: x * OLD_GENERATOR.random(), "random"),
    "a draw from NumPy": (lambda x: x * np.random.uniform(), "random"),
    "a draw from Python": (lambda x: x * random.random(), "random"),
    "backward": (lambda x: (x * x, ad.tensor(2.0, requires_grad=True).backward())[0], "backward"),
}


@pytest.mark.parametrize("f, why", REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_replayed_is_told_and_computed_eagerly(f, why):
    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match=why) as told:
        results = {program(2.0) for _ in range(5)}
    assert len(told) == 1 and program.replays == 0
    assert len(results) == (5 if why == "random" else 1)


@pytest.mark.parametrize("draw", [random.random, np.random.uniform, np.random.normal])
def test_draws_are_not_made_twice_in_the_first_call(draw):
    def seeded():
        random.seed(1)
        np.random.seed(1)
        np.random.normal()          # leaves a spare one

    program = ad.compile(lambda x: x * draw())
    seeded()
    want = [draw() for _ in range(3)]
    seeded()
    with pytest.warns(ad.ProgramWarning, match="random"):
        assert [program(1.0) for _ in range(3)] == want


def test_a_draw_from_another_global_generator_of_numpy_is_noticed():
    before = np.random.mtrand.get_bit_generator()
    np.random.mtrand.set_bit_generator(np.random.PCG64(1))
    try:
        program = ad.compile(lambda x: x * np.random.uniform())
        with pytest.warns(ad.ProgramWarning, match="random"):
            assert program(1.0) != program(1.0)
    finally:
        np.random.mtrand.set_bit_generator(before)


def test_a_function_that_reads_an_iterator_is_computed_eagerly():
    numbers = iter([2.0, 3.0, 4.0])
    program = ad.compile(lambda x: x * next(numbers))
    with pytest.warns(ad.ProgramWarning, match="may read a list_iterator") as told:
        assert [program(1.0) for _ in range(3)] == [2.0, 3.0, 4.0]
    assert len(told) == 1


def test_what_is_given_up_is_not_done_twice():
    w = ad.tensor(2.0, requires_grad=True)

    def step(x):
        loss = w * w * x
        loss.backward()
        return w.grad

    program = ad.compile(step)
    with pytest.warns(ad.ProgramWarning, match="backward"):
        assert program(3.0) == 12.0
    assert w.grad.item() == 12.0


@pytest.mark.parametrize("wrap, read", [
    (lambda y: types.SimpleNamespace(y=y), lambda r: r.y),
    (lambda y: (v for v in [y]), next),
    (lambda y: {1: y}.values(), lambda r: next(iter(r))),
], ids=["an object", "a generator", "a view"])
def test_an_object_as_a_result_is_made_anew_in_every_call(wrap, read):
    program = ad.compile(lambda x: wrap(x * 2.0))
    with pytest.warns(ad.ProgramWarning, match="returns an object") as told:
        assert [float(read(program(x))) for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert len(told) == 1


def test_a_class_as_an_argument_may_change_between_calls(monkeypatch):
    program = ad.compile(lambda x, c: x * c.shared)
    monkeypatch.setattr(Settings, "shared", 1.0)
    with pytest.warns(ad.ProgramWarning, match="an argument is an object"):
        assert program(2.0, Settings) == 2.0
    monkeypatch.setattr(Settings, "shared", 3.0)
    assert program(2.0, Settings) == 6.0


READERS = {
    "np.asarray": lambda x: np.asarray(x).sum() * 2.0,
    "np.array": lambda x: np.array(x)[0] * x,
    "numpy()": lambda x: x.numpy()[0] * x,
}


@pytest.mark.parametrize("f", READERS.values(), ids=list(READERS))
def test_a_function_whose_values_numpy_reads_is_computed_eagerly(f):
    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match="NumPy reads the values") as told:
        for x in (X, 2.0 * X, 3.0 * X):
            assert same(program(x), eager(f, x))
    assert len(told) == 1
    # where a derivative is asked for, ordinary code says that it would be lost
    with pytest.warns(ad.ProgramWarning), pytest.raises((TypeError, RuntimeError), match="detach"):
        program.grad(X)


def test_a_function_that_updates_a_tensor_from_outside_is_computed_eagerly():
    count = ad.tensor(0.0)

    def f(x):
        nonlocal count
        count += 1.0
        return x * 2.0

    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match="changes a tensor that was there before"):
        program(1.0)
    before = count.item()
    program(1.0)
    assert count.item() == before + 1.0


def test_a_function_of_ones_own_is_computed_eagerly():
    class Double(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0

        @staticmethod
        def backward(ctx, g):
            return g * 2.0

    program = ad.compile(lambda x: Double.apply(x) * x)
    with pytest.warns(ad.ProgramWarning, match="Double"):
        assert program.grad(3.0) == 12.0
    assert program.grad(3.0) == 12.0


# Errors.


def test_an_exception_inside_the_function_passes_and_nothing_is_kept(tape_unchanged):
    def f(x):
        if x > 1.0:
            raise KeyError("mine")
        return x

    program = ad.compile(f)
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            program(2.0)
    assert program.recordings == 0 and not _core.is_tracing() and ad.is_grad_enabled()
    assert program(0.5) == 0.5


def test_an_exception_in_a_later_call_is_raised_there():
    def f(x):
        if x > 1.0:
            raise ValueError("too large")
        return x * 2.0

    program = ad.compile(f)
    assert program(0.5) == program(0.5) == 1.0
    with pytest.raises(ValueError, match="too large"):
        program(2.0)
    assert program(0.25) == 0.5


def test_only_functions_are_compiled():
    with pytest.raises(TypeError, match="wanted a function, got int"):
        ad.compile(3)


def test_compiling_twice_changes_nothing():
    program = ad.compile(scaled)
    assert ad.compile(program) is program


def test_a_wrong_number_of_arguments_is_the_functions_own_error():
    program = ad.compile(lambda x: x)
    program(1.0)
    with pytest.raises(TypeError, match="positional argument"):
        program(1.0, 2.0)


def test_a_failed_allocation_is_a_memory_error_and_the_program_usable(tape_unchanged):
    program = ad.compile(lambda x: (ad.exp(x) * x).sum() + x[0])

    def usable(failures):
        assert not _core.is_tracing() and ad.is_grad_enabled()

    got, failures = with_failing_allocations(lambda: program.value_and_grad(X), after=usable)
    assert failures > 5
    assert np.allclose(got[1], ad.grad(program.function)(X), rtol=1e-14)


def test_a_recording_can_be_interrupted(fresh_python):
    fresh_python(
        """
        import signal
        import fastad as ad

        def f(x):
            y = x
            while True:
                y = y * 0.5 + x

        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            ad.compile(f)(1.0)
        except KeyboardInterrupt:
            pass
        assert not ad._core.is_tracing()
        x = ad.tensor(2.0, requires_grad=True)
        (x * x).backward()
        assert x.grad.item() == 4.0 and ad._core.tape_stats()["nodes"] == 0
        """
    )


# Threads and memory.


def test_threads_share_a_program():
    program = ad.compile(lambda x: (ad.exp(x) * x).sum() if x[0] > 0.5 else x.sum())
    inputs = [np.random.default_rng(k).uniform(0.0, 1.0, 5000) for k in range(8)]
    want = [program.value_and_grad(x) for x in inputs]
    wrong = []

    def work(k):
        for _ in range(50):
            got = program.value_and_grad(inputs[k])
            if got[0] != want[k][0] or not np.array_equal(got[1], want[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_threads_record_programs_at_once():
    weights = [ad.tensor(float(k + 1)) for k in range(4)]
    wrong = []

    def work(k):
        def f(x):
            y = x * weights[k]
            for _ in range(20):
                time.sleep(0.0005)          # lets the others in
                with ad.no_grad():
                    z = y * 0.0 + x
                y = y + z if y > -1e9 else y
            return y

        program = ad.compile(f)
        for x in (1.0, 2.0, 3.0):
            if program(x) != x * (k + 21.0) or program.grad(x) != k + 1.0:
                wrong.append((k, x, program(x), program.grad(x)))
        weights[k] += 1.0
        if program(2.0) != 2.0 * (k + 22.0) or program.recordings != 1:
            wrong.append((k, "changed"))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_one_thread_records_a_program_while_others_work_with_tensors():
    stop = time.monotonic() + 0.5
    wrong = []

    def record():
        while time.monotonic() < stop:
            if ad.compile(lambda x: x**3 + x).grad(2.0) != 13.0:
                wrong.append("program")

    def eager_work():
        while time.monotonic() < stop:
            x = ad.tensor(2.0, requires_grad=True)
            (x**3 + x).backward()
            if x.grad.item() != 13.0:
                wrong.append("eager")

    threads = [threading.Thread(target=f) for f in (record, eager_work, eager_work)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_uses_programs_whatever_other_threads_did(fresh_python):
    fresh_python(
        """
        import multiprocessing, threading, time, warnings
        import numpy as np
        import fastad as ad

        warnings.simplefilter("ignore", DeprecationWarning)     # fork beside threads
        small = ad.compile(lambda x: (ad.exp(x) * x).sum() if x[0] > 0.0 else x.sum())
        large = ad.compile(lambda x: (ad.exp(x) * ad.sin(x) * x).sum())
        a, b = np.linspace(0.1, 1.0, 5), np.linspace(0.1, 1.0, 200_000)
        want = small.value_and_grad(a)[0], large.value_and_grad(b)[0]
        forks = threading.Event()

        def run():
            while not forks.is_set():
                large.value_and_grad(b)

        def record():
            def f(x):
                for _ in range(50):
                    time.sleep(0.0002)          # the fork finds a recording under way
                    x = x * 1.01
                return x.sum()

            while not forks.is_set():
                ad.compile(f).grad(a)

        def child(results):
            x = ad.tensor(2.0, requires_grad=True)
            for _ in range(1000):
                (x**3).backward()
            results.put((
                small.value_and_grad(a)[0], large.value_and_grad(b)[0],
                small.value_and_grad(-a)[0], ad.compile(lambda x: x**3).grad(2.0),
                x.grad.item(), ad._core.tape_stats()["nodes"],
            ))

        threads = [threading.Thread(target=f, daemon=True) for f in (run, record)]
        [t.start() for t in threads]
        fork = multiprocessing.get_context("fork")
        for _ in range(5):
            time.sleep(0.01)
            results = fork.Queue()
            process = fork.Process(target=child, args=(results,))
            process.start()
            found = results.get(timeout=60)
            process.join(60)
            assert process.exitcode == 0
            assert found[:2] == want and found[2:5] == (-a.sum(), 12.0, 12000.0), found
            assert found[5] < 100, found
        forks.set()
        [t.join() for t in threads]
        """
    )


def test_replays_run_in_flat_memory():
    program = ad.compile(lambda x: (ad.exp(x) * x).sum() + ad.sort(x)[0])
    x = np.linspace(0.0, 1.0, 20000)
    program.value_and_grad(x)
    before = _core.tape_stats()
    for _ in range(200):
        program.value_and_grad(x)
    after = _core.tape_stats()
    assert after["nodes"] == before["nodes"]
    assert after["large_bytes"] <= before["large_bytes"] + 4 * x.nbytes


def test_a_dropped_program_gives_its_memory_back(tape_state):
    def use():
        program = ad.compile(lambda x: ad.exp(x * np.ones(5000)) * x)
        for _ in range(2):
            program(np.ones(5000))

    use()
    before = tape_state()
    for _ in range(20):
        use()
    assert tape_state() == before


def test_tensors_that_leave_a_recording_are_ordinary_ones_afterwards():
    kept = []

    def f(x):
        kept.append(x * 2.0)
        with ad.no_grad():
            kept.append(x * 3.0)
        return x

    ad.compile(f)(1.0)
    assert [y.requires_grad for y in kept] == [False, False] and kept[1].item() == 3.0
    y = kept[1] * ad.tensor(2.0, requires_grad=True)
    y.backward()
    assert kept[0].item() == 2.0


def test_a_function_with_a_state_of_its_own_gives_what_it_gives():
    def make():
        state = {"y": 0.0}

        def f(x):
            state["y"] = state["y"] * 0.5 + x
            return state["y"] * 1.0
        return f

    f, program = make(), ad.compile(make())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        for _ in range(20):
            assert program(1.0) == f(1.0)


def test_a_global_that_the_function_makes_is_noticed():
    def f(x):
        global COUNT
        COUNT = globals().get("COUNT", 0) + 1
        return x * COUNT

    program = ad.compile(f)
    try:
        assert [program(1.0) for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]
    finally:
        del globals()["COUNT"]


def test_a_closure_that_the_function_fills_is_noticed():
    def f(x):
        nonlocal count
        try:
            count += 1
        except NameError:
            count = 1
        return x * count

    program = ad.compile(f)
    assert [program(1.0) for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]
    count = 10
    assert program(1.0) == 11.0


def test_defaults_of_keywords_are_noticed():
    def f(x, *, k=2.0):
        return x * k

    program = ad.compile(f)
    assert program(3.0) == program(3.0) == 6.0
    f.__kwdefaults__ = {"k": 5.0}
    assert program(3.0) == 15.0


def test_a_program_shows_itself_and_keeps_the_name():
    program = ad.compile(scaled)
    program(1.0)
    assert program.__name__ == "scaled"
    assert repr(program) == "<Program of scaled: 1 recorded>"


# ---- buffers of the caller -----------------------------------------------------------------------


def test_out_takes_the_results():
    f = ad.compile(lambda x: (ad.tanh(x) * x).sum())
    g, h = np.full(3, np.nan), np.full((3, 3), np.nan)
    for k in range(3):
        x = X + k
        value, got = f.value_and_grad(x, out=(None, g))
        assert got is g
        assert same((value, g), f.value_and_grad(x))
        assert f.hessian(x, out=h) is h
        assert same(h, f.hessian(x))


def test_out_follows_the_nesting_of_the_result():
    f = ad.compile(lambda x: {"a": x * 2.0, "b": (x + 1.0, x.sum(), 7)})
    for x in (X, X + 1.0, X + 2.0):
        a, b, s = np.zeros(3), np.zeros(3), np.zeros(())
        got = f(x, out={"a": a, "b": (b, s, None)})
        assert got["a"] is a
        assert got["b"][0] is b
        assert got["b"][1] is s
        assert same([a, b, float(s), got["b"][2]], [x * 2.0, x + 1.0, float(x.sum()), 7])
        assert same(f(x, out={"a": None, "b": None}), f(x))


@pytest.mark.parametrize("out", ["the input", "part of the input", "both", "strided", "reversed"])
def test_buffers_that_share_memory_get_the_right_result(out):
    f = ad.compile(lambda x: (x[::-1] * 2.0 + x, x + x[::-1]))
    for k in range(3):
        memory = np.arange(8.0) + k
        x = memory[:4]
        want = f(x.copy())
        buffers = {
            "the input": (x, np.zeros(4)), "part of the input": (memory[2:6], np.zeros(4)),
            "both": (memory[4:], None), "strided": (np.zeros(8)[::2], np.zeros((4, 2))[:, 1]),
            "reversed": (x[::-1], np.zeros(4)),
        }[out]
        got = f(x, out=buffers)
        assert same([np.array(y) for y in got], list(want))


def test_two_results_do_not_fit_into_one_buffer_but_are_not_mixed_up():
    f = ad.compile(lambda x: (x + 1.0, x * 2.0))
    a = np.zeros(3)
    for _ in range(3):
        f(X, out=(a, a))
        assert same(a, X * 2.0)


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.zeros(4), ValueError, r"buffer is float64 of shape \(4,\); the result is float64 of"),
        (np.zeros(3, np.float32), ValueError, "buffer is float32"),
        (np.zeros(3, int), ValueError, "buffer is int64"),
        ([0.0, 0.0, 0.0], TypeError, "wanted an ndarray for a result of shape"),
        (ad.zeros(3), TypeError, "wanted an ndarray"),
        (np.broadcast_to(0.0, 3), ValueError, "read-only"),
    ],
)
def test_buffers_that_do_not_fit_are_refused_and_left_alone(out, error, text):
    f = ad.compile(lambda x: x * 2.0)
    before = np.array(out.numpy() if isinstance(out, ad.Tensor) else out)
    for _ in range(3):
        with pytest.raises(error, match=text):
            f(X, out=out)
        assert same(np.array(out.numpy() if isinstance(out, ad.Tensor) else out), before)
    assert same(f(X), X * 2.0)


def test_a_buffer_that_is_refused_spares_the_others():
    f = ad.compile(lambda x: (x * 2.0, x + 1.0))
    good = np.zeros(3)
    for _ in range(3):
        with pytest.raises(ValueError, match="buffer is float64 of shape"):
            f(X, out=(good, np.zeros(2)))
        assert same(good, np.zeros(3))


def test_buffers_in_another_nesting_are_refused():
    f = ad.compile(lambda x: (x * 2.0, x))
    for _ in range(2):
        with pytest.raises(TypeError, match="wanted the nesting of the result"):
            f(X, out=np.zeros(3))
        with pytest.raises(ValueError, match="there is no 1 in it"):
            f(X, out=(np.zeros(3),))
        with pytest.raises(ValueError, match="3 entries for a result of 2"):
            f(X, out=(None, None, None))


def test_out_of_a_call_with_tensors_is_refused():
    with pytest.raises(TypeError, match="call it with arrays"):
        ad.compile(lambda x: x * 2.0)(ad.tensor(X), out=np.zeros(3))


def test_a_parameter_called_out_is_the_functions_own():
    f = ad.compile(lambda x, out: x * out)
    assert f(2.0, out=3.0) == 6.0
    assert f.grad(2.0, out=3.0) == 3.0


def test_out_where_another_way_is_taken():
    f = ad.compile(lambda x: x * 2.0 if x[0] > 0.0 else -x)
    out = np.zeros(3)
    for x in (X, -X, X, -X):
        f(x, out=out)
        assert same(out, x * 2.0 if x[0] > 0.0 else -x)


# ---- transforms of programs ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["value_and_grad", "grad", "jacobian", "hessian"])
def test_transforms_of_programs_are_programs(name):
    f = ad.compile(lambda x: (ad.sin(x) * x).sum())
    made = getattr(ad, name)(f)
    assert made is getattr(f, name)
    for k in range(3):
        assert same(made(X + k), getattr(ad, name)(f.function)(X + k))
    assert made.replays == 2


def test_transforms_of_programs_differentiate_what_they_are_told():
    f = ad.compile(lambda x, y: (x * y * y).sum())
    y = np.array([1.0, 2.0, 3.0])
    assert same(ad.grad(f, 1)(X, y), 2 * X * y)
    assert same(ad.grad(f, (0, 1))(X, y), (y * y, 2 * X * y))
    assert same(ad.grad(ad.grad(lambda t: f(t * X, y)))(1.0), 0.0)


def test_gradients_through_programs_in_ordinary_code():
    f = ad.compile(lambda x: (x * x).sum())
    x = ad.tensor(X, requires_grad=True)
    (ad.grad(f)(x) ** 2).sum().backward()
    assert same(x.grad.numpy(), 8 * X)


def test_arrays_at_odd_addresses_are_inputs_like_others():
    odd = np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(np.float64)
    assert not odd.flags.aligned
    f = ad.compile(lambda x: ad.exp(x) * x)
    for _ in range(3):
        assert same(f(odd), f(X))
        assert same(f.map(X[None] * 2.0, gradient=False)[0], f(X * 2.0))
    g = ad.compile(lambda x, y: (x * y).sum())
    assert same(g.map(np.ones((4, 3)), odd)[0], np.full(4, X.sum()))
    assert same(g.map(odd[None], X)[0], np.array([(X * X).sum()]))


def test_tensors_keep_their_dtype_through_a_program():
    f = ad.compile(lambda x: (x.sum(), x * 2.0))
    for _ in range(3):
        assert [y.dtype for y in f(ad.tensor(np.float32([1.0, 2.0])))] == [np.float32] * 2
        assert [y.dtype for y in f(ad.tensor([1.0, 2.0]))] == [np.float64] * 2


# ---- programs as one node in ordinary code -------------------------------------------------------


def long(x, scale=1.0):
    y = x * scale
    for k in range(200):
        y = ad.sin(y) * 1.01 + x * (0.01 * k)
    return y.sum() if isinstance(y, ad.Tensor) else y


def nodes_of(y):
    return y.grad_fn.name


@pytest.mark.parametrize("x", [0.3, X, np.float32([0.5, 0.25])], ids=["number", "f64", "f32"])
def test_a_long_program_is_one_node_from_its_second_call_on(x):
    f = ad.compile(long)
    t = ad.tensor(x, requires_grad=True)
    for _ in range(4):
        t.grad = None
        y = f(t) * 2.0
        y.backward()
        u = ad.tensor(x, requires_grad=True)
        want = long(u) * 2.0
        want.backward()
        assert y.dtype == want.dtype
        assert y.item() == want.item()
        rtol = 1e-3 if t.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(t.grad.numpy(), u.grad.numpy(), rtol=rtol)
        assert "program" in nodes_of(f(t))
    assert f.replays >= 3
    assert f.recordings == 1


def test_the_node_differentiates_twice_and_forward():
    f = ad.compile(long)
    x = ad.tensor(X, requires_grad=True)
    f(x)
    f(x)
    assert "program" in nodes_of(f(x))
    (g,) = ad.autograd.grad(f(x), [x], create_graph=True)
    (h,) = ad.autograd.grad((g * g).sum(), [x])
    u = ad.tensor(X, requires_grad=True)
    (g2,) = ad.autograd.grad(long(u), [u], create_graph=True)
    (h2,) = ad.autograd.grad((g2 * g2).sum(), [u])
    np.testing.assert_allclose(g.detach().numpy(), g2.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(h.numpy(), h2.numpy(), rtol=1e-12)
    dot = ad.jvp(lambda t: f(t) * t[0], (X,), (X,))[1]
    np.testing.assert_allclose(dot, ad.jvp(lambda t: long(t) * t[0], (X,), (X,))[1], rtol=1e-12)


def test_the_node_keeps_the_values_that_it_was_called_with():
    f = ad.compile(lambda x, c: long(x * c[0]) * c[1])
    x = ad.tensor(X, requires_grad=True)
    c = np.array([0.5, 2.0])
    for _ in range(3):
        y = f(x, c)
    want = ad.grad(lambda t: long(t * 0.5) * 2.0)(X)
    c[:] = 7.0
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-13)


def test_the_node_asks_for_the_cotangents_that_are_needed_alone():
    f = ad.compile(lambda p, y: long(p["a"]) * y + p["b"][0])
    a, b = ad.tensor(X, requires_grad=True), ad.tensor(2.0)
    y = ad.tensor(3.0, requires_grad=True)
    for _ in range(3):
        z = f({"a": a, "b": (b,)}, y)
    z.backward()
    np.testing.assert_allclose(a.grad.numpy(), 3.0 * ad.grad(long)(X), rtol=1e-13)
    assert y.grad.item() == pytest.approx(long(ad.tensor(X)).item(), rel=1e-14)
    assert b.grad is None


def test_a_node_whose_guard_flips_between_calls_is_right():
    f = ad.compile(lambda x: long(x) if x[0] > 0.0 else long(-x, 2.0))
    for sign in (1, 1, 1, -1, 1, -1):
        x = ad.tensor(sign * X, requires_grad=True)
        f(x).backward()
        want = ad.grad(lambda t, sign=sign: long(t) if sign > 0 else long(-t, 2.0))(sign * X)
        np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-13)


def test_a_way_that_gives_something_else_is_recorded_operation_by_operation():
    f = ad.compile(lambda x: long(x) if x[0] > 0.0 else (long(x), 1.0))
    for sign in (1, 1, 1, -1, -1, 1, -1):
        x = ad.tensor(sign * X, requires_grad=True)
        y = f(x)
        assert isinstance(y, tuple) == (sign < 0)
        (y[0] if sign < 0 else y).backward()
        np.testing.assert_allclose(x.grad.numpy(), ad.grad(long)(sign * X), rtol=1e-12)


@pytest.mark.parametrize("what", ["short", "tuple", "weights", "keywords"])
def test_other_calls_are_recorded_operation_by_operation(what):
    w = ad.tensor(2.0, requires_grad=True)
    f = ad.compile({
        "short": lambda x: (x * x).sum(), "tuple": lambda x: (long(x), x),
        "weights": lambda x: long(x) * w, "keywords": lambda x, k=1.0: long(x) * k}[what])
    for _ in range(4):
        x = ad.tensor(X, requires_grad=True)
        y = f(x, k=2.0) if what == "keywords" else f(x)
        y = y[0] if what == "tuple" else y
        assert "program" not in nodes_of(y)
        y.backward()
    assert w.grad is None or w.grad.item() == pytest.approx(4 * long(ad.tensor(X)).item())


# ---- processes -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_program_works_in_a_child_that_was_forked_in_the_middle_of_a_run(fresh_python):
    told = fresh_python("""
        import os, threading, time
        import numpy as np
        import fastad as ad

        @ad.compile
        def f(x):
            for k in range(20):
                x = ad.tanh(x) * 1.01 + k
            return (x * x).sum() if x[0] > 0.0 else -x.sum()

        x = np.linspace(0.0, 1.0, 200_000)
        want = f.value_and_grad(x)
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                f.value_and_grad(x)

        threads = [threading.Thread(target=busy) for _ in range(2)]
        for t in threads:
            t.start()
        status = []
        for _ in range(10):
            time.sleep(0.005)
            pid = os.fork()
            if pid == 0:
                try:
                    got = f.value_and_grad(x)
                    right = got[0] == want[0] and (got[1] == want[1]).all()
                    small = f.grad(x[:7]).shape == (7,) and f(-x[:5]) is not None
                    os._exit(0 if right and small else 1)
                except BaseException:
                    os._exit(2)
            status.append(os.waitpid(pid, 0)[1])
        stop.set()
        for t in threads:
            t.join()
        print(status == [0] * 10)
    """)
    assert told.strip() == "True"
