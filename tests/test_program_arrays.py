"""Programs over arrays: groups of rows tile by tile, and structured operations in the core."""

import itertools

import numpy as np
import pytest

import fastad as ad

TILED = 4096            # elements from which rows run tile by tile
TILE = 512


def described(program):
    """The figures of the only program."""
    (plans,) = program.plans.values()
    (plan,) = plans
    return plan.describe()


def same_bits(have, want):
    have, want = np.asarray(have), np.asarray(want)
    assert have.shape == want.shape and have.dtype == want.dtype
    assert have.tobytes() == want.tobytes()


def replayed(f, *args):
    """What a program gives in a replay, with its figures; the recording saw other values."""
    program = ad.compile(f)
    program(*[a * 0.5 + 1.0 for a in args])
    value = program(*args)
    assert program.replays == 1
    return value, described(program)


def draw(shape, seed=0):
    """Numbers of very different sizes, so that every order of adding shows."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 8, shape)


# ---- sums ------------------------------------------------------------------------------------


def test_a_sum_has_numpys_bits_at_every_length():
    x = draw(5001)
    for n in range(5001):
        assert ad.sum(ad.tensor(x[:n])).item() == np.add.reduce(x[:n].copy()), n
    x = np.float32(x)
    for n in range(0, 5001, 7):
        part = ad.tensor(x[:n])
        assert ad.sum(ad.broadcast_to(part, (1, n)), axis=1).numpy()[0] == np.add.reduce(x[:n]), n


LENGTHS = [*range(TILED, TILED + 140), *range(2 * TILED - 9, 2 * TILED + 9), 10 * TILE - 1, 12345,
           99999, 123457, 1000003, 3000001]


def test_a_sum_in_a_group_of_tiles_has_numpys_bits_at_every_length():
    for n in LENGTHS:
        x = draw(n)
        (value, square), figures = replayed(lambda x: (ad.sum(x * x + x), ad.sum(x * x)), x)
        assert value == np.add.reduce(x * x + x), n
        assert square == np.add.reduce(x * x), n
        assert figures["arena_bytes"] == 0, n


@pytest.mark.parametrize("special", [np.nan, np.inf, -0.0])
def test_a_sum_in_a_group_of_tiles_passes_on_what_is_special(special):
    x = np.full(TILED + 3, special)
    value, _ = replayed(lambda x: ad.sum(ad.negative(ad.negative(x))), x)
    same_bits(abs(value), abs(np.add.reduce(x)))
    assert np.signbit(value) == np.signbit(np.add.reduce(x)) or np.isnan(special)


def test_what_reads_the_sum_of_a_group_comes_after_it():
    x = draw(3 * TILED + 5)

    def f(x):
        total = ad.sum(x * 2.0)
        return x / total + ad.sum(x * x), ad.sum(x / total)

    value, _ = replayed(f, x)
    total = np.add.reduce(x * 2.0)
    same_bits(value[0], x / total + np.add.reduce(x * x))
    same_bits(value[1], np.add.reduce(x / total))


def test_more_sums_than_a_group_takes_are_right():
    x = draw(TILED + 77)
    value, _ = replayed(lambda x: tuple([ad.sum(x * float(k)) for k in range(20)]), x)
    assert value == tuple([np.add.reduce(x * float(k)) for k in range(20)])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_over_axes_have_numpys_bits(dtype):
    shapes = [(7,), (300,), (3, 4), (1, 5), (5, 1), (130, 9), (9, 130), (2, 3, 4), (1, 17, 1),
              (4, 1, 300), (5, 8, 9), (0, 3), (3, 0), (2, 3, 2, 5), (17, 2, 1, 3), (260, 3, 1)]
    for shape in shapes:
        x = draw(shape).astype(dtype)
        for k in range(1, len(shape) + 1):
            for axis in itertools.combinations(range(len(shape)), k):
                for keep in (False, True):
                    value, figures = replayed(
                        lambda x, axis=axis, keep=keep: ad.sum(x, axis=axis, keepdims=keep), x)
                    want = np.sum(x, axis=axis, keepdims=keep)
                    same_bits(value, want if want.ndim else want.item())
                    assert figures["foreign"] == 0


# ---- pairs of rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 30, TILED + 1])
@pytest.mark.parametrize(
    "f",
    [lambda a, b, c: a * b + c, lambda a, b, c: c + a * b, lambda a, b, c: a * b - c,
     lambda a, b, c: c - a * b, lambda a, b, c: a * b + b * c, lambda a, b, c: 1.0 - a * a,
     lambda a, b, c: (a * b + c) * (c - b * b) - a * (2.0 * b),
     lambda a, b, c: a * b + (b * c - (a * b + 0.0))],
)
def test_two_rows_in_one_pass_are_rounded_one_by_one(f, n):
    args = [draw(n, seed) for seed in range(3)]
    args[0][:3], args[1][:3], args[2][:3] = [0.0, -0.0, 1e-200], [-1.0, 1.0, -1e-200], [-0.0] * 3
    same_bits(replayed(f, *args)[0], f(*args))


@pytest.mark.parametrize("n", [3, TILED + 1])
def test_gradients_of_programs_have_the_bits_of_ordinary_code_where_zeros_have_signs(n):
    def f(x, w):
        return (ad.tanh(x * w) * ad.exp(x) + w * x).sum()

    x, w = np.minimum(draw(n, 1), 30.0), draw(n, 2)
    x[:3], w[:3] = [-0.0, 0.0, -1e-300], [1.0, -0.0, 1e-300]
    program = ad.compile(f).derived("value_and_grad", (0, 1))
    program(x + 1.0, w)
    (value, bars), (want, want_bars) = program(x, w), ad.value_and_grad(f, argnums=(0, 1))(x, w)
    assert value == want
    for have, bar in zip(bars, want_bars, strict=True):
        np.testing.assert_array_equal(have, bar)
        assert (np.signbit(have) == np.signbit(bar)).all()


def test_value_and_gradient_of_an_elementwise_sum_is_one_instruction():
    def f(x, w):
        return (ad.tanh(x * w) * ad.exp(x) + w * x).sum()

    program = ad.compile(f).derived("value_and_grad", (0, 1))
    program(draw(TILED), draw(TILED))
    figures = described(program)
    assert figures["instructions"] == 1 and figures["arena_bytes"] == 0


def test_results_that_go_past_the_caches_are_complete():
    n = (16 << 20) // 8 + 4097
    x = draw(n)
    y, z = replayed(lambda x: (x * x + 1.0, ad.sum(x * 0.5)), x)[0]
    same_bits(y, x * x + 1.0)
    assert z == np.add.reduce(x * 0.5)


def test_a_result_that_its_group_reads_again_is_right_beyond_the_caches():
    n = (16 << 20) // 8 + 5
    x = draw(n)
    y, z = replayed(lambda x: (y := x * x, y + x), x)[0]
    same_bits(y, x * x)
    same_bits(z, x * x + x)


# ---- structured operations -------------------------------------------------------------------

STRUCTURED = {
    "row": lambda x: x[1],
    "column": lambda x: x[:, 2],
    "negative steps": lambda x: x[::-2, ::-1],
    "ellipsis and a new axis": lambda x: x[..., None, 1:3],
    "empty slice": lambda x: x[2:2],
    "all of it": lambda x: x[...],
    "concatenate": lambda x: ad.concatenate([x, x[1:], x * 2.0], axis=0),
    "concatenate columns": lambda x: ad.concatenate([x, x[:, :1]], axis=1),
    "concatenate an empty part": lambda x: ad.concatenate([x[:, 1:1], x], axis=-1),
    "stack": lambda x: ad.stack([x[0], x[1], x[0] * x[1]]),
    "stack along the last axis": lambda x: ad.stack([x, x * x], axis=-1),
    "differences": lambda x: ad.diff(x, axis=1),
    "mean over an axis": lambda x: ad.mean(x, axis=0),
    "variance over an axis": lambda x: ad.var(x, axis=1),
    "where greater": lambda x: ad.where(x > 0.25, x, 0.0),
    "where less or equal": lambda x: ad.where(0 <= x, x * x, -x),
    "where two arrays": lambda x: ad.where(x != x[::-1], x, 2.0 * x),
    "masks that are results": lambda x: (x < x * x, x == 1.0, 1 >= x),
    "comparison with a number": lambda x: ad.where(x > x[0, 0], x, 1.0),
    "comparison with a row": lambda x: ad.where(x > x[1], x, 1.0),
    "comparison with constants": lambda x: ad.where(WEIGHTS < x, x, 1.0),
    "and": lambda x: ad.where((x > 0.0) & (x < x[1:2]), x, 1.0),
    "or, not": lambda x: ad.where((x > 1e6) | ~(x[:, :1] < x), x, 1.0),
    "exclusive or": lambda x: ad.where((x > 0.0) ^ (MARKS == (x < 1e5)), x, 1.0),
    "logic of numbers": lambda x: ad.where(np.logical_and(x, np.logical_not(x[0])), x, 1.0),
    "logic of a mask and a number": lambda x: ad.where(np.logical_xor(x > 0.0, x[1, 1]), x, 1.0),
    "nan": lambda x: ad.where(np.isnan(x), 0.0, x) + ad.where(np.isfinite(x), x, 0.0),
    "infinities and signs": lambda x: ad.where(np.isinf(x) | np.signbit(x), 2.0, x),
    "masks that are logic": lambda x: (~(x > 0), np.logical_or(x, x > 0), np.isnan(x), x[0] > x),
    "a mask times": lambda x: (x > 0.0) * x[::-1],
    "a mask as numbers": lambda x: (x > x[::-1]).astype(float) + x,
    "any": lambda x: x * 2.0 if np.any((x > 1e9) & (x < 2e9)) else x * 3.0,
    "all": lambda x: x * 2.0 if np.all((x < 1e6) | ~(x < 1e6)) else x * 3.0,
    "matrices times": lambda x: np.stack([x, -x]) @ x.T,
    "times matrices": lambda x: np.matmul(x, np.stack([x.T, 2.0 * x.T])[:, None]),
    "matrices times a vector": lambda x: np.stack([x, x * x]) @ x[0],
    "a vector times matrices": lambda x: x[:, 0] @ np.stack([x, x * x]),
    "matrices of one": lambda x: np.matmul(x[:, :, None], x[:, None, :]),
    "no matrices": lambda x: np.reshape(x[:0], (0, 5, 2)) @ x[:2],
    "rows assigned": lambda x: changed(x, np.s_[1:], x[0] * 2.0),
    "columns assigned": lambda x: changed(x, np.s_[:, ::-2], x[:, 1:4]),
    "an axis assigned": lambda x: changed(x, np.s_[2], x[0, :1]),
    "a number assigned": lambda x: changed(x, np.s_[..., 1], x[3, 3]),
    "a constant assigned": lambda x: changed(x, np.s_[:2, :2], 3.0),
    "all assigned backwards": lambda x: changed(x, np.s_[::-1, ::-1], x),
    "picks assigned": lambda x: changed(x, ([0, 3, 1], [4, 4, 0]), x[0, :3]),
    "picks assigned twice": lambda x: changed(x, ([0, 3, 0, 0], [4, 4, 4, 0]), x[1, :4]),
    "a mask assigned": lambda x: changed(x, MARKS, x[2, 2]),
    "no rows assigned": lambda x: changed(x, np.s_[:0], x[:0]),
    "a part multiplied": lambda x: changed(x, np.s_[1:3], x[1:3] * x[0]),
    "two views changed": lambda x: changed(changed(x, np.s_[:, 1], x[:, 2]), np.s_[1], x[0]),
    "picks added": lambda x: added(x, ([0, 3, 0], [4, 4, 4]), x[1, :3]),
}
WEIGHTS = np.linspace(-1e6, 1e6, 5)
MARKS = np.arange(20).reshape(4, 5) % 3 == 1


def changed(x, index, value):
    """A copy of x with a value at an index."""
    y = x * 1.0
    y[index] = value
    return y


def added(x, index, value):
    """A copy of x to which values are added one by one."""
    y = x * 1.0
    np.add.at(y, index, value)
    return y


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_operations_have_numpys_bits(name, dtype):
    f = STRUCTURED[name]
    x = draw((4, 5)).astype(dtype)
    x[0, :3] = [np.nan, -0.0, np.inf]
    with np.errstate(all="ignore"):
        value, figures = replayed(f, x)
        want = f(ad.tensor(x))
    if not isinstance(want, tuple):
        value, want = (value,), (want,)
    for have, one in zip(value, want, strict=True):
        same_bits(have, one.detach().numpy())
    if dtype is np.float64:
        assert figures["foreign"] == 0


@pytest.mark.parametrize("name", [n for n in STRUCTURED if "masks" not in n])
def test_gradients_of_structured_operations_stay_in_the_core(name):
    f = STRUCTURED[name]

    def loss(x):
        return (f(x) * f(x)).sum() + ad.sin(f(x)).sum()

    x = draw((4, 5), 3) / 1e6
    program = ad.compile(loss).derived("value_and_grad", 0)
    program(x + 0.5)
    have, want = program(x), ad.value_and_grad(loss)(x)
    assert described(program)["foreign"] == 0
    assert have[0] == want[0]
    np.testing.assert_allclose(have[1], want[1], rtol=1e-13, atol=0.0)


def test_what_the_core_has_no_form_for_is_left_to_numpy():
    x = draw((4, 5))
    value, figures = replayed(lambda x: np.sort(x, axis=0), x)
    same_bits(value, np.sort(x, axis=0))
    assert figures["foreign"] > 0


def test_groups_write_their_results_over_what_they_read_last():
    def f(x):
        y = x
        for k in range(4):
            z = y[::-1]
            y = ad.sin(z * 1.5) + ad.cos(z) * float(k)
        return ad.sum(y[::-1] * y, axis=0)

    x = draw((TILED, 3)) / 1e6
    value, figures = replayed(f, x)
    same_bits(value, f(ad.tensor(x)).numpy())
    assert figures["arena_bytes"] <= 1.2 * figures["live_bytes"]


# ---- memory ----------------------------------------------------------------------------------


def test_live_bytes_are_those_of_the_largest_crossing_of_two_instructions():
    """Between the matrix product and the sum a matrix lives; elsewhere a vector and numbers."""
    def f(x):
        y = ad.sin(x)                           # 20 elements, read again at the end
        return ad.sum(ad.cos(ad.outer(y, y) @ y) * y)

    _, figures = replayed(f, draw(20))
    assert figures["live_bytes"] == 8 * (400 + 20) + 8 * figures["constants"]
    assert figures["live_bytes"] <= 8 * figures["registers"] + figures["arena_bytes"]


def test_live_bytes_of_numbers_count_those_that_are_read_again():
    def f(x):
        parts = [ad.sin(x * float(k + 2)) for k in range(10)]
        return sum(parts[::-1], 0.0) * parts[0]

    program = ad.compile(f)
    program(0.5)
    figures = described(program)
    assert figures["live_bytes"] == 8 * (figures["constants"] + 10)
    assert figures["registers"] <= figures["constants"] + 11


def test_programs_hold_little_more_than_lifetimes_demand():
    def loss(x):
        y = x
        for _ in range(30):
            y = ad.tanh(y * y[::-1] + ad.sum(y, axis=0)) @ np.eye(7) * 0.5
        return ad.sum(y)

    program = ad.compile(loss).derived("value_and_grad", 0)
    program(draw((50, 7)) / 1e8)
    figures = described(program)
    assert 8 * figures["registers"] + figures["arena_bytes"] <= 1.2 * figures["live_bytes"]


# ---- what is equal ---------------------------------------------------------------------------


def test_equal_steps_are_one_however_many_read_a_number():
    """Partners of one number, from the first ones to those that a full neighbourhood sends away."""
    def f(a, b):
        parts = [x * float(k + 2) for _ in range(2) for k in range(300) for x in (a, b)]
        return tuple(a * y for y in parts[:600]) + tuple(y * a for y in parts[600:])

    program = ad.compile(f)
    assert program(0.5, 0.25) == f(0.5, 0.25)
    assert described(program)["instructions"] == 1200
    assert program(0.75, 3.0) == f(0.75, 3.0)


def test_numbers_that_the_builder_computes_are_held_once():
    def f(a):
        return sum(a * ad.sqrt(k + 2.0) for _ in range(2) for k in range(60))

    program = ad.compile(f)
    assert program(0.5) == program(0.5) == float(f(ad.tensor(0.5)))
    assert described(program)["constants"] <= 61


def test_a_number_out_of_an_array_is_read_once():
    def f(x):
        y = ad.reshape(x, (4,))
        return sum(ad.sqrt(x[0, 1] + y[1] * float(k)) for k in range(50)) * y[2] * x[1, 0]

    x = np.array([[0.5, 0.75], [2.0, 3.0]])
    program = ad.compile(f)
    assert program(x) == program(x) == float(f(ad.tensor(x)))
    # two numbers; a product and sum, a root and a sum 50 times, less what 0.0 and 1.0 spare
    assert described(program)["instructions"] <= 2 + 150 + 2
    np.testing.assert_array_equal(program.grad(x), ad.grad(f)(x))


# ---- elements and axes -----------------------------------------------------------------------

ROWS = np.array([3, 0, 3, 1, 0, 3])
GRID = np.array([[0, 2], [5, 5]])
PICKS = {
    "rows": lambda x: x[ROWS],
    "columns twice": lambda x: x[:, ROWS],
    "pairs": lambda x: x[ROWS, ROWS[::-1]],
    "a grid of rows": lambda x: x[GRID[:, :1] - 1, 1:4],
    "a mask": lambda x: x[np.arange(42).reshape(6, 7) % 3 == 1],
    "no rows": lambda x: x[ROWS[:0]],
    "take": lambda x: np.take(x, GRID, axis=1),
    "a diagonal": lambda x: np.diagonal(x, 1),
    "sums down": lambda x: np.cumsum(x, axis=0),
    "sums along": lambda x: np.cumsum(x, axis=1),
    "sums of all": lambda x: np.cumsum(x),
    "maxima down": lambda x: np.max(x, axis=0),
    "maxima along": lambda x: np.max(x, axis=1, keepdims=True),
    "minima along": lambda x: np.min(x, axis=-1),
    "maximum": lambda x: np.max(x),
    "minimum": lambda x: np.min(x),
    "maxima of blocks": lambda x: np.max(np.reshape(x, (3, 2, 7)), axis=(1, 2)),
    "maxima between": lambda x: np.max(np.reshape(x, (3, 2, 7)), axis=1),
    "softmax": lambda x: np.exp(x - np.max(x, axis=1, keepdims=True)),
}
SOMETIMES = {
    "numbers": lambda: draw((6, 7)),
    "ties": lambda: np.random.default_rng(1).integers(-2, 3, (6, 7)).astype(float),
    "zeros of both signs": lambda: np.copysign(0.0, draw((6, 7), 2)),
    "infinities": lambda: np.where(draw((6, 7), 3) > 0.0, np.inf, draw((6, 7), 4)),
    "nan": lambda: np.where(draw((6, 7), 5) > 1.0, np.nan, draw((6, 7), 6)),
}


@pytest.mark.parametrize("name", PICKS)
def test_picks_and_their_adjoints_are_computed_in_the_core(name):
    f = PICKS[name]
    weights = draw(np.shape(f(np.zeros((6, 7)))), 7)
    program = ad.compile(f)
    derived = ad.compile(lambda x: ad.sum(f(x) * weights)).derived("value_and_grad", 0)
    with np.errstate(all="ignore"):
        for make in SOMETIMES.values():
            x = make()
            for _ in range(2):
                same_bits(program(x), f(x))
                value, gradient = derived(x)
                want = ad.value_and_grad(lambda x: ad.sum(f(x) * weights))(x)
                np.testing.assert_allclose(value, want[0], rtol=1e-12)
                np.testing.assert_allclose(gradient, want[1], rtol=1e-12)
    for p in (program, derived):
        assert described(p)["foreign"] == 0 and p.recordings == 1


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 31, 64, 65, 129, 1000])
def test_extrema_of_long_axes_have_the_bits_of_numpys(n):
    """Which of equal zeros comes out hangs on how NumPy's loops are called."""
    for seed in range(20):
        x = np.random.default_rng(seed).choice([-0.0, 0.0], (3, n))
        for f in (lambda x: np.max(x, axis=1), lambda x: np.min(x, axis=1), np.max, np.min,
                  lambda x: np.max(x, axis=0), lambda x: np.min(x.T, axis=1)):
            value, figures = replayed(f, x)
            same_bits(value, f(x))
            assert figures["foreign"] == 0


def test_picks_of_other_dtypes_keep_their_bits():
    x = draw((6, 7)).astype(np.float32)
    for made in (x, x + 1j * x[::-1], draw((6, 7)) * 1j):
        for name in ("rows", "pairs", "a mask", "a diagonal"):
            value, figures = replayed(PICKS[name], made)
            same_bits(value, PICKS[name](made))
            assert figures["foreign"] == 0
    f = ad.compile(lambda x: ad.sum(x[ROWS] * x[ROWS]))
    np.testing.assert_array_equal(f.grad(x), ad.grad(lambda x: ad.sum(x[ROWS] * x[ROWS]))(x))
    np.testing.assert_array_equal(f.grad(x), ad.grad(lambda x: ad.sum(x[ROWS] * x[ROWS]))(x))


def test_picks_run_for_many_rows_and_from_files(tmp_path):
    def f(x):
        return ad.sum(np.max(x[ROWS] * 2.0, axis=0) + np.cumsum(x, axis=1)[ROWS[:1], ROWS[1:2]])

    stack = np.stack([draw((6, 7), seed) for seed in range(11)])
    program = ad.compile(f)
    values, gradients = program.map(stack)
    for x, value, gradient in zip(stack, values, gradients):
        want = ad.value_and_grad(f)(x)
        np.testing.assert_allclose(value, want[0], rtol=1e-14)
        np.testing.assert_allclose(gradient, want[1], rtol=1e-14)
    program(stack[0])
    program.save(tmp_path / "picks.fastad")
    loaded = ad.load(tmp_path / "picks.fastad")
    same_bits(loaded(stack[1]), f(stack[1]))


def test_a_product_with_a_constant_matrix_has_no_cotangent_of_it_in_programs():
    m = np.arange(12.0).reshape(4, 3)
    for f in (lambda x: ((m @ x) ** 2).sum(), lambda x: ((x @ m.T) ** 2).sum(),
              lambda x: (((m * 2.0) @ x) ** 2).sum(),
              lambda x: ((m @ ad.stack([x, x], 1)) ** 2).sum()):
        p = ad.compile(f)
        value, slope = p.value_and_grad(np.ones(3))
        assert np.array_equal(slope, ad.grad(f)(np.ones(3)))
        (plan,) = next(iter(p.value_and_grad.plans.values()))
        nodes = plan.nodes
        assert [nodes.primitive(i) for i in range(len(nodes))].count("matmul") == 2
        assert len(nodes.guards) == 1
