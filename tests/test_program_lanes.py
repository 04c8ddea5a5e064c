"""Programs over many rows at once: `map`, and Jacobians and Hessians by many unit vectors."""

import random
import sys
import warnings

import numpy as np
import pytest
import test_program_random as drawn
from conftest import with_failing_allocations

import fastad as ad
from fastad import _core, program
from fastad import rows as rows_module

RNG = np.random.default_rng(11)
zmul = _core.elementwise["zmul"]


def mixed(x):
    y = x[1]
    for _ in range(6):
        y = ad.sin(y) * ad.exp(-y) / (x[1] + 2.0) + x[0] * y
    return y


def rational(x):
    y = x[0]
    for k in range(8):
        y = ad.sqrt(y * y + 1.0) / (x[1] - 3.0) - x[2] * y + float(k)
    return y * y


def sizes(x):
    """Sums with sizes of products, as bounds of rounding errors are made of."""
    y, total = x[0] + 1.0, x[1] * 0.5
    for k in range(6):
        y = y * x[k % 3] + 0.25
        total = total + abs(zmul(y, x[1]))
    return abs(zmul(total, y)) + total


def branching(x):
    if x[0] > 0.5:
        return x[0] * x[1]
    if x[1] * x[0] > -0.25:
        return ad.exp(x[1]) - x[0]
    return x[1] * 3.0


def arrays(x):
    w = np.linspace(-1.0, 1.0, x.size).reshape(x.shape)
    return (ad.tanh(x * w) * ad.exp(x) + w * x).sum() + (x * x).mean() * x.sum()


def each_row(p, *rows):
    """Single calls, stacked."""
    found = [p(*args) for args in zip(*rows)]
    return stacked(found)


def stacked(parts):
    if isinstance(parts[0], (tuple, list)):
        return type(parts[0])([stacked(list(items)) for items in zip(*parts)])
    if isinstance(parts[0], dict):
        return {key: stacked([part[key] for part in parts]) for key in parts[0]}
    return np.stack([np.asarray(part) for part in parts])


def same(a, b):
    return not drawn.differences(a, b, 0.0)


def ulps(a, b):
    return np.max(np.abs(a - b) / np.spacing(np.abs(b)))


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 255, 256, 257, 1000])
def test_arithmetic_has_the_bits_of_single_calls_for_any_number_of_rows(count):
    p = ad.compile(rational)
    x = RNG.normal(size=(count, 3))
    assert same(p.map(x), each_row(p.value_and_grad, x))
    assert p.value_and_grad.recordings == 1


def test_functions_of_libm_agree_to_two_units_in_the_last_place():
    x = np.concatenate([RNG.uniform(-700.0, 700.0, 3000), RNG.normal(size=3000), [0.0, -0.0]])
    for f in (ad.exp, ad.sin, ad.cos, ad.tanh, ad.arctan, ad.expm1, ad.cbrt, ad.arcsinh):
        p = ad.compile(f)
        have = p.map(x, gradient=False)
        assert ulps(have, each_row(p, x)) <= 4.0, f
    x = np.abs(x) + 1e-300
    for f in (ad.log, ad.log2, ad.log10, ad.log1p, lambda x: x**1.7):
        p = ad.compile(f)
        assert ulps(p.map(x, gradient=False), each_row(p, x)) <= 4.0, f


@pytest.mark.parametrize("f", [mixed, arrays, branching, rational, sizes])
def test_a_row_has_one_result_wherever_it_stands_among_whichever_others(f):
    p = ad.compile(f)
    x = RNG.normal(size=(700, 5))
    x[::50] *= 1e3          # neighbours for which vector code takes another way
    values, gradients = p.map(x)
    order = RNG.permutation(len(x))
    assert same(p.map(x[order]), (values[order], gradients[order]))
    for k in (0, 1, 50, 333, 699):
        assert same(p.map(x[k:k + 1]), (values[k:k + 1], gradients[k:k + 1]))
    assert same(p.map(x[5:300]), (values[5:300], gradients[5:300]))


@pytest.mark.parametrize("f", [mixed, arrays, branching])
def test_results_do_not_depend_on_the_number_of_threads(f):
    p = ad.compile(f)
    x = RNG.normal(size=(3001, 4))
    want = p.map(x)
    for threads in (1, 2, 3, 7):
        assert same(p.map(x, threads=threads), want)


def test_the_call_that_records_gives_the_bits_of_later_ones():
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(9, 4))
        for f in (mixed, branching):
            p = ad.compile(f)
            first = p.map(x)
            assert same(p.map(x), first)
            assert same(p.map(x[:1]), (first[0][:1], first[1][:1]))


def test_rows_that_go_one_by_one_may_go_in_threads_too():
    p = ad.compile(lambda x: (ad.exp(x) * x).sum())
    x = RNG.normal(size=(9, 6000))
    assert p.value_and_grad(x[0])[0] and p.value_and_grad.plans
    (plan,) = next(iter(p.value_and_grad.plans.values()))
    assert plan.rows_at_once(b"\1") == 0
    want = each_row(p.value_and_grad, x)
    assert same(p.map(x), want) and same(p.map(x, threads=3), want)


def test_what_a_branch_sees_is_what_it_sees_in_a_single_call():
    """Truncation and floor turn a last bit into a whole number."""
    def f(x):
        y = ad.exp(x)
        return y * int(y) + ad.floor(ad.exp(x * 2.0)) * x

    x = np.log(np.repeat(np.arange(1.0, 6.0), 40)) + RNG.choice([0.0, 1e-16, -1e-16], 200)
    p = ad.compile(f)
    have, want = p.map(x, gradient=False), each_row(p, x)
    assert np.allclose(have, want, rtol=1e-14)


def test_numbers_that_are_seen_have_the_bits_of_libm():
    p = ad.compile(lambda x: ad.floor(ad.exp(x) * 1e15))
    x = RNG.uniform(0.0, 1.0, 2000)
    assert same(p.map(x, gradient=False), each_row(p, x))


# ---- ways through the function -------------------------------------------------------------------


def test_rows_that_take_different_ways_are_recorded_once_for_each_way():
    p = ad.compile(branching)
    x = RNG.normal(size=(2000, 2))
    have = p.map(x)
    assert p.value_and_grad.recordings == 3
    want = each_row(p.value_and_grad, x)
    assert np.allclose(have[0], want[0], rtol=1e-14) and np.allclose(have[1], want[1], rtol=1e-14)
    assert p.value_and_grad.recordings == 3
    before = p.value_and_grad.replays
    p.map(x)
    assert p.value_and_grad.recordings == 3 and p.value_and_grad.replays == before + 2000


def test_more_ways_than_recordings_in_a_row_are_no_reason_to_give_up():
    def f(x):
        for k in range(20):
            if x < k:
                return x * float(k)
        return x

    p = ad.compile(f)
    x = RNG.uniform(-1.0, 21.0, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(p.map(x, gradient=False), each_row(f, x))


def test_a_value_that_python_sees_of_every_row_ends_in_eager_calls_with_a_warning():
    p = ad.compile(lambda x: x * float(x))
    x = RNG.normal(size=50)
    with pytest.warns(ad.ProgramWarning, match="a guard fails in every call"):
        have = p.map(x, gradient=False)
    assert same(have, x * x)


def test_a_function_that_cannot_be_replayed_is_called_for_each_row_with_a_warning():
    def f(x):
        return x * np.random.default_rng(0).random() + 0.0 * np.random.random()

    p = ad.compile(f)
    x = RNG.normal(size=5)
    with pytest.warns(ad.ProgramWarning, match="random"):
        have = p.map(x, gradient=False)
    assert np.allclose(have, x * np.random.default_rng(0).random())


def test_an_exception_of_one_row_is_the_calls():
    def f(x):
        if x < 0.0:
            raise ArithmeticError("below zero")
        return x * x

    p = ad.compile(f)
    with pytest.raises(ArithmeticError, match="below zero"):
        p.map(np.array([1.0, 2.0, -1.0]))
    assert same(p.map(np.array([3.0]))[0], np.array([9.0]))


def test_a_changed_global_is_seen():
    scale = {"by": 2.0}
    p = ad.compile(lambda x: x * scale["by"])
    x = np.arange(3.0)
    assert same(p.map(x, gradient=False), 2.0 * x)
    scale["by"] = 3.0
    assert same(p.map(x, gradient=False), 3.0 * x)


def test_tensors_from_outside_are_read_anew():
    w = ad.tensor([1.0, 2.0])
    p = ad.compile(lambda x: (x * w).sum())
    x = RNG.normal(size=(20, 2))
    assert np.allclose(p.map(x)[0], x @ [1.0, 2.0])
    with ad.no_grad():
        w += 1.0
    assert np.allclose(p.map(x)[0], x @ [2.0, 3.0])
    assert np.allclose(p.map(x)[1], [2.0, 3.0])


def test_foreign_functions_run_for_each_row_and_once_for_what_all_rows_share():
    def f(x, y):
        return ad.prod(x[:3]) * ad.exp(x[1]) * ad.prod(y[:2])

    p = ad.compile(f)
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=3)
    have = p.map(x, y)
    want = stacked([p.value_and_grad(row, y) for row in x])
    assert np.allclose(have[0], want[0], rtol=1e-14) and np.allclose(have[1], want[1], rtol=1e-14)
    (plan,) = next(iter(p.value_and_grad.plans.values()))
    assert plan.rows_at_once(b"\1\0") and plan.describe()["foreign"]


def test_a_foreign_function_that_raises_for_a_row_raises():
    class Strict(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            if x.item() > 2.0:
                raise FloatingPointError("too large")
            return x * 2.0

        @staticmethod
        def backward(ctx, g):
            return g * 2.0

    p = ad.compile(lambda x: Strict.apply(x) + 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        assert same(p.map(np.array([1.0, 2.0]), gradient=False), np.array([3.0, 5.0]))
        with pytest.raises(FloatingPointError, match="too large"):
            p.map(np.array([1.0, 3.0]), gradient=False)


def test_random_functions_give_row_by_row_what_single_calls_give():
    """Seeds of tests/test_program_random.py; FASTAD_RANDOM_PROGRAMS is the number of calls."""
    compared = at_once = 0
    seed = drawn.SEED + 500_000
    while compared < max(200, drawn.CALLS // 10):
        seed += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ad.ProgramWarning)
            found = compared_map(seed)
        assert not found[0], "\n".join(found[0])
        compared += found[1]
        at_once += found[2]
    assert at_once > compared / 2


def compared_map(seed):
    """What differs, whether something was compared, and whether rows ran at once."""
    writer = drawn.Writer(seed)
    r = random.Random(seed)
    source = writer.source()
    f = drawn.built(source, writer.state)
    p = ad.compile(f)
    derived = p if not writer.is_number else r.choice([p, p.value_and_grad, p.grad])
    count = r.choice([1, 3, 9, 40])
    rows = [[writer.draw_array(s, d) for s, d in zip(writer.shapes, writer.dtypes)]
            for _ in range(count)]
    x, y = (np.stack([np.asarray(row[k]) for row in rows]) for k in range(2))

    def mapped():
        options = {"gradient": False} if derived is p else {}
        return derived.map(x, y, in_axes=(0, 0), threads=r.choice([1, 2]), **options)

    have = drawn.outcome(mapped, [])
    again = ad.compile(f)
    single = again if derived is p else again.value_and_grad if derived is p.value_and_grad \
        else again.grad
    wants = [drawn.outcome(single, [rows_module._one(x, k), rows_module._one(y, k)])
             for k in range(count)]
    if any(type(want) is drawn.Raised for want in wants):
        return [] if type(have) is drawn.Raised else [source, "a row raises, map does not"], 0, 0
    if type(have) is drawn.Raised and have.startswith("ValueError: map: rows give results of diff"):
        shapes = {repr(shape_tree(want)) for want in wants}
        return [] if len(shapes) > 1 else [source, have], 0, 0
    if type(have) is drawn.Raised:
        return [source, have], 0, 0
    plans = [plan for found in derived.plans.values() for plan in found]
    at_once = any(plan.rows_at_once(b"\1\1") for plan in plans)
    within = 1e-3 if np.float32 in writer.dtypes or "32" in source else 1e-12
    for k, want in enumerate(wants):
        found = drawn.differences(row_of(have, k), want, within)
        args = [rows_module._one(x, k), rows_module._one(y, k)]
        function = f if derived is p else ad.value_and_grad(f)
        if found and not drawn.amplifies(drawn.on_tensors(function), args, row_of(have, k), want):
            return [f"seed {seed}, row {k}", source, *found], 1, at_once
    return [], 1, at_once


def shape_tree(tree):
    if isinstance(tree, (tuple, list)):
        return [type(tree).__name__, *map(shape_tree, tree)]
    if isinstance(tree, dict):
        return [(key, shape_tree(item)) for key, item in tree.items()]
    return np.shape(tree) if isinstance(tree, (int, float, np.ndarray)) else repr(tree)


def row_of(tree, k):
    if isinstance(tree, (tuple, list)):
        return type(tree)([row_of(item, k) for item in tree])
    if isinstance(tree, dict):
        return {key: row_of(item, k) for key, item in tree.items()}
    return drawn.plain(tree[k]) if isinstance(tree, np.ndarray) else tree


# ---- what goes in and comes out ------------------------------------------------------------------


def test_results_keep_the_nesting_and_have_the_rows_first():
    p = ad.compile(lambda x: {"a": (x, x.sum()), "b": [2.0, "text", np.arange(2)]})
    x = RNG.normal(size=(3, 2))
    have = p.map(x, gradient=False)
    assert same(have["a"][0], x) and have["a"][1].shape == (3,)
    assert same(have["b"][0], np.full(3, 2.0)) and have["b"][1] == "text"
    assert np.array_equal(have["b"][2], [[0, 1]] * 3)


def test_shapes_of_values_and_derivatives():
    x = RNG.normal(size=(6, 2, 3))
    p = ad.compile(lambda x: (x * x).sum())
    values, gradients = p.map(x)
    assert values.shape == (6,) and gradients.shape == (6, 2, 3)
    assert p.grad.map(x).shape == (6, 2, 3)
    assert p.hessian.map(x).shape == (6, 2, 3, 2, 3)
    assert ad.compile(lambda x: x[0]).jacobian.map(x).shape == (6, 3, 2, 3)
    assert p.map(x[:, 0, 0])[1].shape == (6,)


def test_further_arguments_are_shared_or_have_rows_of_their_own():
    p = ad.compile(lambda x, y, k: (x * y["w"]).sum() * k)
    x, y = RNG.normal(size=(5, 3)), {"w": RNG.normal(size=3)}
    want = stacked([p.value_and_grad(row, y, 2.0) for row in x])
    assert same(p.map(x, y, 2.0), want)
    q = ad.compile(lambda a, b: a * b)
    a, b = RNG.normal(size=(2, 40))
    assert same(q.map(a, b, in_axes=(0, 0), gradient=False), a * b)
    assert same(q.map(2.0, b, in_axes=(None, 0), gradient=False), 2.0 * b)
    both = q.derived("value_and_grad", (0, 1)).map(a, b, in_axes=0)
    assert same(both, (a * b, (b, a)))


def test_shared_numbers_hold_for_all_of_many_rows():
    def f(x, k, c):
        y = x * k
        for _ in range(30):
            y = y * 0.5 + k * 0.25
            k = k * 1.01 - c
        return y

    p = ad.compile(f)
    x = RNG.normal(size=3000)
    have, want = p.map(x, 2.0, 0.125), each_row(p.value_and_grad, x, [2.0] * 3000, [0.125] * 3000)
    assert same(have, want)


def test_integer_rows_become_floats_where_they_are_differentiated():
    p = ad.compile(lambda x: (x * x).sum())
    assert same(p.map(np.array([[1, 2], [3, 4]])), (np.array([5.0, 25.0]),
                                                    np.array([[2.0, 4.0], [6.0, 8.0]])))
    assert same(p.map([[1.0, 2.0]])[0], np.array([5.0]))
    whole = ad.compile(lambda k: k * 2).map(np.array([1, 2, 3]), gradient=False)
    assert whole.dtype == np.int64 and np.array_equal(whole, [2, 4, 6])


def test_float32_rows_give_what_single_calls_give():
    p = ad.compile(lambda x: (ad.exp(x) * x).sum())
    x = RNG.normal(size=(20, 3)).astype(np.float32)
    have, want = p.map(x), each_row(p.value_and_grad, x)
    assert have[0].dtype == want[0].dtype and have[1].dtype == np.float32
    assert np.allclose(have[0], want[0], rtol=1e-6) and np.allclose(have[1], want[1], rtol=1e-6)


def test_rows_in_any_memory_order_and_byte_order():
    p = ad.compile(rational)
    x = RNG.normal(size=(30, 3))
    want = p.map(x)
    for other in (np.asfortranarray(x), x.astype(">f8"), np.repeat(x, 2, axis=0)[::2], x.tolist()):
        assert same(p.map(other), want)


def test_tensors_in_tensors_out():
    p = ad.compile(lambda x: (x * x).sum())
    values, gradients = p.map(ad.tensor([[1.0, 2.0]]))
    assert isinstance(values, ad.Tensor) and gradients.tolist() == [[2.0, 4.0]]


def test_maps_over_tensors_outside_that_require_gradients_have_a_history():
    w = ad.tensor(2.0, requires_grad=True)
    p = ad.compile(lambda x: x * x * w)
    x = np.array([1.0, 2.0])
    for _ in range(2):
        p.map(x, gradient=False).sum().backward()
        assert w.grad.item() == 5.0
        w.grad = None
        with ad.no_grad():
            assert same(p.map(x, gradient=False), 2.0 * x * x)
    q = ad.compile(lambda x: x * w)
    for _ in range(2):          # the call that records, and one that replays
        q(3.0).backward()
        assert w.grad.item() == 3.0
        w.grad = None


def test_rows_of_a_tensor_that_is_differentiated_are_recorded():
    p = ad.compile(lambda x: (x * x).sum())
    x = ad.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    p.map(x, gradient=False).sum().backward()
    assert x.grad.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    outer = ad.compile(lambda x: p.map(x, gradient=False).sum())
    assert same(outer.grad(np.ones((2, 2))), np.full((2, 2), 2.0))


@pytest.mark.parametrize(("args", "options", "error", "text"), [
    ((), {}, TypeError, "wanted an array of rows"),
    ((3.0,), {}, ValueError, "has no axes"),
    ((np.zeros((0, 2)),), {}, ValueError, "there are no rows"),
    (([[1.0], [1.0, 2.0]],), {}, ValueError, "argument 0 is not an array of rows"),
    ((np.array(["a"]),), {}, TypeError, "argument 0 has dtype <U1"),
    ((np.array([1j], np.clongdouble),), {}, TypeError, "dtype c"),
    ((np.zeros((2, 2)),), {"threads": 0}, ValueError, "threads=0; wanted at least 1"),
    ((np.zeros((2, 2)),), {"threads": 1.5}, TypeError, "wanted a positive integer"),
    ((np.zeros((2, 2)),), {"threads": True}, TypeError, "wanted a positive integer"),
    ((np.zeros((2, 2)), np.zeros(3)), {"in_axes": (0, 0)}, ValueError, "have 2 and 3 rows"),
    ((np.zeros((2, 2)),), {"in_axes": (0, 0)}, ValueError, "2 axes for 1 arguments"),
    ((np.zeros((2, 2)),), {"in_axes": (1,)}, ValueError, "axis 1; rows stand on axis 0"),
    ((np.zeros((2, 2)),), {"in_axes": (None,)}, ValueError, "no argument has rows"),
])
def test_bad_input_is_named(args, options, error, text):
    with pytest.raises(error, match=text):
        ad.compile(lambda x, *more: (x * x).sum()).map(*args, **options)


def test_results_of_unequal_shapes_are_an_error():
    p = ad.compile(lambda x: x[:1] if x[0] > 0.0 else x)
    with pytest.raises(ValueError, match="different shapes"):
        p.map(np.array([[1.0, 2.0], [-1.0, 2.0]]), gradient=False)


def test_values_that_are_constant_on_one_way_are_stacked_with_those_that_are_not():
    p = ad.compile(lambda x: x * 2.0 if x > 0.0 else 0.0)
    x = np.array([1.0, -1.0, 2.0])
    assert same(p.map(x, gradient=False), np.array([2.0, 0.0, 4.0]))


# ---- progress, interrupts, memory ----------------------------------------------------------------


def test_progress_is_a_line_on_stderr_without_tqdm_and_only_when_asked(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    p = ad.compile(branching)
    x = RNG.normal(size=(5000, 2))
    p.map(x)
    assert capsys.readouterr().err == ""
    p.map(x, progress=True, threads=2)
    assert capsys.readouterr().err.endswith("\rmap: 5000 of 5000 rows\n")


def test_progress_is_a_bar_where_tqdm_is_installed(monkeypatch):
    class Bar:
        def __init__(self, total, unit, desc):
            self.total, self.done = total, 0
            bars.append(self)

        def update(self, n):
            self.done += n

        def close(self):
            self.closed = True

    bars = []
    monkeypatch.setitem(sys.modules, "tqdm", type("module", (), {"tqdm": Bar}))
    ad.compile(branching).map(RNG.normal(size=(500, 2)), progress=True)
    (bar,) = bars
    assert bar.total == bar.done == 500 and bar.closed


@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_map_can_be_interrupted(fresh_python, threads):
    fresh_python(
        f"""
        import signal, time
        import numpy as np
        import fastad as ad

        def f(x):
            y = x
            for _ in range(2000):
                y = ad.sin(y) + x
            return y

        p = ad.compile(f)
        x = np.linspace(0.0, 1.0, 5_000_000)
        p.map(x[:10])
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        start = time.perf_counter()
        try:
            p.map(x, threads={threads})
            raise SystemExit("it went through")
        except KeyboardInterrupt:
            pass
        assert time.perf_counter() - start < 3.0
        assert p.map(x[:10])[0].shape == (10,)
        """
    )


def test_interrupts_at_any_moment_leave_no_thread_waiting(fresh_python):
    fresh_python(
        """
        import random, signal
        import numpy as np
        import fastad as ad

        def f(x):
            y = x
            for _ in range(200):
                y = ad.sin(y) + x
            return y

        p = ad.compile(f)
        x = np.linspace(0.0, 1.0, 20_000)
        want = p.map(x)
        met = 0
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for k in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 0.015))
                p.map(x, threads=2 + k % 2)
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            except KeyboardInterrupt:
                met += 1
        assert met > 10
        assert np.array_equal(p.map(x, threads=2)[0], want[0])
        """
    )


def test_a_failed_allocation_is_a_memory_error_and_the_program_usable(tape_unchanged):
    x = RNG.normal(size=(20, 3))
    p = want = None

    def recorded():
        nonlocal p
        p = ad.compile(lambda x: arrays(x) + rational(x))
        p.value_and_grad(x[0])

    def usable(failures):
        nonlocal want
        want = p.map(x)

    got, failures = with_failing_allocations(lambda: p.map(x), recorded, usable)
    assert failures > 10
    assert same(got, want)


def test_maps_run_in_flat_memory(fresh_python):
    fresh_python(
        """
        import gc, resource
        import numpy as np
        import fastad as ad

        w = ad.tensor(np.arange(3))
        p = ad.compile(lambda x, k: ad.sort(x * w)[0] * k.sum() if x[0] > 0.0 else x[1])
        x, k = np.random.default_rng(0).normal(size=(300, 3)), np.arange(4)

        def peak():
            gc.collect()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        for _ in range(50):
            p.map(x, k, threads=2)
        before = peak()
        for _ in range(1000):
            p.map(x, k, threads=2)
        assert peak() - before < 2000, peak() - before
        """
    )


# ---- Jacobians and Hessians ----------------------------------------------------------------------


def chain(x):
    s = 0.0
    for i in range(len(x) - 1):
        s = s + 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + ad.sin(x[i] * x[0])
    return s


@pytest.fixture
def always_at_once(monkeypatch):
    monkeypatch.setattr(program, "_LONG_SWEEPS", 1)
    monkeypatch.setattr(program, "_FEW_SWEEPS", 1)


def test_a_hessian_of_50_variables_is_one_recorded_sweep():
    p = ad.compile(chain)
    for _ in range(2):
        x = RNG.uniform(0.5, 1.5, 50)
        assert np.allclose(p.hessian(x), ad.hessian(chain)(x), rtol=1e-12, atol=1e-11)
    assert p.hessian.recordings == 0 and not p.hessian.plans
    assert p.hessian(x[:4]).shape == (4, 4) and p.hessian.recordings == 1


@pytest.mark.parametrize("f", [
    lambda x: ad.stack([x[0] * x[1], x[2] / x[0], ad.exp(x[1]), x[2] * 1.0, x[0] ** 3]),
    lambda x: ad.sin(x) * x.sum(),
    lambda x: (x * x)[:2] * x[2],
    lambda x: ad.outer(x, x),
    lambda x: ad.sqrt(x) * ad.where(x > 0.0, ad.log(ad.abs(x)), 0.0),
])
def test_jacobians_are_those_of_ordinary_code_nan_and_inf_included(f, always_at_once):
    p = ad.compile(f)
    for x in ([1.0, 2.0, 3.0], [0.0, -1.0, 2.0], [np.inf, 1.0, 0.0], [np.nan, 0.0, 2.0]):
        with np.errstate(all="ignore"):
            have, want = p.jacobian(np.array(x)), ad.jacobian(f)(np.array(x))
        assert have.shape == want.shape
        assert not drawn.differences(have, want, 1e-14), (x, have, want)
    assert p.jacobian.recordings == 0


def test_tall_jacobians_go_by_columns_and_wide_ones_by_rows(always_at_once):
    tall, wide = ad.compile(lambda x: ad.outer(x, x)), ad.compile(lambda x: x[:2] * x.sum())
    x = np.arange(1.0, 6.0)
    assert np.allclose(tall.jacobian(x), ad.jacobian(tall.function)(x))
    assert np.allclose(wide.jacobian(x), ad.jacobian(wide.function)(x))
    assert [key[-1] for key in tall._derived if key[0] == "sweep"] == [True]
    assert [key[-1] for key in wide._derived if key[0] == "sweep"] == [False]


def test_jacobians_and_hessians_in_later_arguments(always_at_once):
    p = ad.compile(lambda k, x: ad.sin(x) * k)
    x = np.arange(1.0, 5.0)
    assert np.allclose(p.derived("jacobian", 1)(2.0, x), np.diag(2.0 * np.cos(x)))
    q = ad.compile(lambda k, x: (x**3).sum() * k)
    assert np.allclose(q.derived("hessian", 1)(2.0, x), np.diag(12.0 * x))
    assert np.allclose(q.derived("hessian", -1)(2.0, np.array([1, 2])), np.diag([12.0, 24.0]))


def test_branches_inside_a_hessian(always_at_once):
    f = lambda x: (x**3).sum() if x[0] > 0.0 else (x[0] * x[1]) ** 2  # noqa: E731
    p = ad.compile(f)
    for x in ([1.0, 2.0], [-1.0, 2.0], [2.0, 1.0]):
        assert np.allclose(p.hessian(np.array(x)), ad.hessian(f)(np.array(x)))


def test_a_hessian_with_a_tensor_outside_that_requires_gradients_has_a_history(always_at_once):
    w = ad.tensor(2.0, requires_grad=True)
    p = ad.compile(lambda x: (x**3).sum() * w)
    h = p.hessian(np.array([1.0, 2.0]))
    h.sum().backward()
    assert w.grad.item() == 18.0


def test_a_recorded_tall_jacobian_goes_by_forward_sweeps():
    jacobian = ad.compile(lambda x: ad.jacobian(lambda x: ad.outer(x, x).ravel() * x[0])(x))
    x = np.arange(1.0, 4.0)
    assert np.allclose(jacobian(x), ad.jacobian(lambda x: ad.outer(x, x).ravel() * x[0])(x))
    (plan,) = next(iter(jacobian.plans.values()))
    rows = ad.compile(lambda x: ad.stack([
        ad.grad(lambda x: (ad.outer(x, x).ravel() * x[0])[k])(x) for k in range(9)]))
    rows(x)
    (other,) = next(iter(rows.plans.values()))
    assert plan.describe()["work"] < other.describe()["work"]


def test_products_with_the_hessian_take_further_arguments():
    p = ad.compile(lambda x, k: (x**3).sum() * k)
    x, v = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    assert same(p.hvp(x, v, 2.0), 12.0 * x * v)
    assert same(p.hvp(x, v, 3.0), 18.0 * x * v)


def test_programs_refuse_rows_that_are_not_theirs():
    p = ad.compile(lambda x: (x * x).sum())
    p(np.ones(3))
    (plan,) = next(iter(p.plans.values()))
    good, out, failed = np.ones((4, 3)), [np.zeros(4)], np.zeros(4, np.uint8)
    plan.run_rows(b"\1", [good], out, failed, 0, 4)
    assert out[0].tolist() == [3.0] * 4
    for leaves, results, mask, start, stop in (
        ([good[:, :2]], out, failed, 0, 4), ([good], [np.zeros(3)], failed, 0, 4),
        ([good], out, np.zeros(4), 0, 4), ([good], out, failed, 1, 4), ([good], out, failed, 0, 5),
        ([], out, failed, 0, 4), ([good], [np.zeros((4, 1))], failed, 0, 4),
        ([good.astype(np.float32)], out, failed, 0, 4),
    ):
        with pytest.raises(ValueError, match="program: "):
            plan.run_rows(b"\1", leaves, results, mask, start, stop)
    with pytest.raises(ValueError, match="1 inputs, but 2 flags"):
        plan.rows_at_once(b"\1\0")
    with pytest.raises(ValueError, match="wanted a C-contiguous array"):
        plan.run_row([np.ones(4)])
