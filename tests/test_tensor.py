"""The one tensor type: operators, conversion, printing, copying, in-place updates."""

import copy
import gc
import itertools
import math
import operator
import pickle
import warnings

import numpy as np
import pytest

import fastad as ad
from fastad import _core


def leaf(value, dtype=None):
    return ad.tensor(value, dtype=dtype, requires_grad=True)


# One type.


@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (2.5, (), np.float64),
        (3, (), np.int64),
        (True, (), np.bool_),
        ([1.0, 2.0], (2,), np.float64),
        ([[1, 2], [3, 4]], (2, 2), np.int64),
        ([True, False], (2,), np.bool_),
        ([], (0,), np.float64),
        (np.float32(1.5), (), np.float32),
        (np.zeros((2, 0, 3)), (2, 0, 3), np.float64),
        (np.arange(3, dtype=np.uint8), (3,), np.uint8),
        (range(4), (4,), np.int64),
        ((1, 2.5), (2,), np.float64),
    ],
)
def test_tensor_takes_shape_and_dtype_from_its_data(data, shape, dtype):
    t = ad.tensor(data)
    assert type(t) is ad.Tensor
    assert t.shape == shape
    assert t.ndim == len(shape)
    assert t.size == math.prod(shape)
    assert t.dtype == dtype
    assert t.itemsize == np.dtype(dtype).itemsize
    assert t.nbytes == t.size * t.itemsize
    assert t.tolist() == np.asarray(data).tolist()


@pytest.mark.parametrize("dtype", [float, ad.float32, ad.int64, ad.int8, ad.uint16, ad.bool_, "f4"])
def test_tensor_converts_to_the_dtype_that_is_asked_for(dtype):
    t = ad.tensor([0, 1, 2], dtype=dtype)
    want = np.array([0, 1, 2]).astype(dtype)
    assert t.dtype == want.dtype
    assert t.tolist() == want.tolist()
    assert ad.tensor(t, dtype=float).dtype == np.float64


def test_numbers_and_arrays_meet_on_one_tape():
    a, v = leaf(2.0), leaf([1.0, 3.0])
    y = (v * a).sum() * a + v[1]
    assert type(y) is type(v) is ad.Tensor
    y.backward()
    assert a.grad.item() == 2 * 2.0 * 4.0
    assert v.grad.tolist() == [4.0, 5.0]


def test_integer_and_bool_tensors_have_no_gradients():
    n = ad.tensor([1, 2, 3])
    assert not n.requires_grad
    x = leaf([1.0, 2.0, 3.0])
    y = x * n + ad.tensor([True, False, True])
    y.sum().backward()
    assert y.dtype == np.float64
    assert x.grad.tolist() == [1.0, 2.0, 3.0]
    assert n.grad is None


def test_results_that_are_integers_do_not_require_gradients():
    x = leaf([3.0, 1.0, 2.0])
    for result in (x > 1.0, ad.argmax(x), x.argsort(), x.astype(int), x != x):
        if isinstance(result, ad.Tensor):
            assert not result.requires_grad
            assert result.dtype.kind in "ib"


def test_a_tensor_of_a_tensor_is_a_leaf_with_the_same_value():
    x = leaf([1.0, 2.0])
    y = ad.tensor(x * 2.0)
    assert y.is_leaf
    assert not y.requires_grad
    assert y.tolist() == [2.0, 4.0]


# Aliasing.


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("dtype", [float, np.float32, int, bool])
def test_changing_the_array_that_a_tensor_was_made_from_changes_nothing(size, dtype):
    a = np.ones(size, dtype)
    t = ad.tensor(a)
    u = ad.tensor(a[::-1])
    a[:] = 0
    assert t.tolist() == [1] * size
    assert u.tolist() == [1] * size


@pytest.mark.parametrize("size", [2, 1000])
def test_changing_an_operand_after_the_forward_does_not_change_the_gradient(size):
    a = np.full(size, 3.0)
    x = leaf(np.full(size, 2.0))
    y = (x * a + a * x).sum()
    a[:] = 100.0
    y.backward()
    assert x.grad.tolist() == [6.0] * size


def test_a_number_from_an_array_does_not_follow_the_array():
    a = np.array(3.0)
    x = leaf(2.0)
    y = x * a
    t = ad.tensor(a)
    a[()] = 100.0
    y.backward()
    assert x.grad.item() == 3.0
    assert t.item() == 3.0


@pytest.mark.parametrize("value", [2.0, [1.0, 2.0], np.ones(1000), [1, 2], [True], np.float32(1)])
def test_numpy_gives_a_read_only_snapshot(value):
    t = ad.tensor(value)
    a = t.numpy()
    want = a.copy()
    with pytest.raises(ValueError, match="read-only"):
        a[...] = 0
    if t.dtype.kind == "f":
        t += 1
        assert a.tolist() == want.tolist()
    else:
        assert a.tolist() == t.tolist()


@pytest.mark.parametrize("value", [2.0, [1.0, 2.0], np.ones(1000)])
def test_numpy_array_of_a_tensor_is_a_copy_of_ones_own(value):
    t = ad.tensor(value)
    a = np.array(t)
    a[...] = 7.0
    assert t.tolist() == np.asarray(value).tolist()
    assert np.asarray(t, dtype=np.float32).dtype == np.float32


def test_array_without_copy_refuses_another_dtype():
    with pytest.raises(ValueError, match="[Uu]nable to avoid copy"):
        np.array(ad.tensor([1.0]), dtype=int, copy=False)
    with pytest.raises(ValueError, match="another dtype needs a copy"):
        ad.tensor([1.0]).__array__(int, copy=False)


@pytest.mark.parametrize("t", [leaf([1.0]), leaf([1.0]) * 2.0, leaf(2.0)])
def test_a_tensor_that_requires_gradients_does_not_become_an_array_silently(t):
    with pytest.raises(TypeError, match=r"requires gradients.*\.detach\(\)\.numpy\(\)"):
        np.asarray(t)
    with pytest.raises(TypeError, match=r"requires gradients"):
        np.array(t)
    with pytest.raises(RuntimeError, match=r"numpy: .*\.detach\(\)\.numpy\(\)"):
        t.numpy()
    assert t.detach().numpy().tolist() == t.tolist()


# Operators.

VALUES = {
    "float64 number": np.float64(2.5),
    "float64 array": np.array([1.5, -2.0, 3.0]),
    "float32 number": np.float32(2.5),
    "float32 array": np.array([1.5, -2.0, 3.0], np.float32),
    "int64 number": np.int64(3),
    "int64 array": np.array([1, 2, 3]),
    "int8 array": np.array([1, 2, 3], np.int8),
    "uint8 array": np.array([1, 2, 3], np.uint8),
    "uint64 array": np.array([1, 2, 3], np.uint64),
    "bool number": np.bool_(True),
    "bool array": np.array([True, False, True]),
    "column": np.array([[1.0], [4.0]]),
}
NUMBERS = {"float": 2.5, "int": 3, "negative int": -2, "bool": True}
OPERATORS = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod),
    *(operator.pow, operator.matmul, operator.lshift, operator.rshift, operator.and_),
    *(operator.or_, operator.xor, operator.lt, operator.le, operator.eq, operator.ne),
    *(operator.gt, operator.ge, divmod),
]


def forms(left, right):
    """The operands as tensors, arrays and numbers, one of them a tensor."""
    if left in VALUES:
        a = VALUES[left]
        yield ad.tensor(a), VALUES[right] if right in VALUES else NUMBERS[right]
        if right in VALUES:
            yield ad.tensor(a), ad.tensor(VALUES[right])
            yield ad.tensor(a), np.asarray(VALUES[right])
            yield np.asarray(a), ad.tensor(VALUES[right])
    if right in VALUES:
        yield VALUES[left] if left in VALUES else NUMBERS[left], ad.tensor(VALUES[right])


def value_or_error(op, a, b):
    try:
        result = op(a, b)
    except (TypeError, ValueError, OverflowError) as error:
        return error
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
def test_operators_give_numpys_values_and_dtypes_on_either_side(op):
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for left, right in itertools.product([*VALUES, *NUMBERS], repeat=2):
            a = VALUES.get(left, NUMBERS.get(left))
            b = VALUES.get(right, NUMBERS.get(right))
            want = value_or_error(op, a, b)
            for x, y in forms(left, right):
                got = value_or_error(op, x, y)
                about = f"{op.__name__}({left}, {right}): {got} instead of {want}"
                if isinstance(want, Exception) or isinstance(got, Exception):
                    assert isinstance(want, Exception) and isinstance(got, Exception), about
                    continue
                for g, w in zip(got, want, strict=True):
                    g, w = np.asarray(g), np.asarray(w)
                    assert (g.dtype, g.shape) == (w.dtype, w.shape), about
                    assert g.tobytes() == w.tobytes(), about
                    compared += 1
    assert compared > 0


@pytest.mark.parametrize("op", OPERATORS[:8], ids=lambda op: op.__name__)
@pytest.mark.parametrize("other", [2.5, 3, True, np.float64(2.5), np.int8(3), np.bool_(True)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_pass_operators_with_numbers_of_any_kind(op, other, side):
    if op is operator.matmul:
        other = np.array([float(other)] * 2)
    x = leaf([1.7, 2.6])
    y = op(x, other) if side == "left" else op(other, x)
    assert type(y) is ad.Tensor
    assert y.requires_grad
    (g,) = ad.autograd.grad(y.sum(), x)
    step = 1e-6
    value = np.array([1.7, 2.6])

    def at(k, h):
        shifted = value.copy()
        shifted[k] += h
        return np.sum(op(shifted, other) if side == "left" else op(other, shifted))

    want = [(at(k, step) - at(k, -step)) / (2 * step) for k in range(2)]
    np.testing.assert_allclose(g.numpy(), want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("op", [operator.add, operator.mul, operator.pow, operator.truediv])
@pytest.mark.parametrize("number", [2.5, 3, True])
def test_float32_stays_float32_with_python_numbers(op, number):
    for value in (1.5, [1.5, 2.5]):
        x = leaf(value, ad.float32)
        for y in (op(x, number), op(number, x)):
            assert y.dtype == np.float32
            y.sum().backward()
            assert x.grad.dtype == np.float32
            x.grad = None


def test_float32_meets_float64_as_in_numpy_and_each_gets_its_own_gradient():
    a, b = leaf([1.5, 2.0], ad.float32), leaf([0.1, 0.2])
    y = a * b + np.float32(1.0)
    assert y.dtype == np.float64
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)
    assert a.grad.tolist() == np.float32([0.1, 0.2]).tolist()
    assert b.grad.tolist() == [1.5, 2.0]


def test_a_float32_leaf_collects_several_float64_paths_in_float32():
    x = leaf(np.float32(1.1))
    y = x * np.float64(0.1) + ad.sin(x.astype(float)) + x
    y.backward()
    assert x.grad.dtype == np.float32
    want = 0.1 + math.cos(np.float32(1.1)) + 1.0
    assert x.grad.item() == pytest.approx(want, rel=3e-7)
    (x * ad.tensor(2.0)).backward()
    assert x.grad.dtype == np.float32
    assert x.grad.item() == pytest.approx(want + 2.0, rel=3e-7)


@pytest.mark.parametrize("op", [operator.neg, operator.pos, operator.abs])
def test_unary_operators_record(op):
    x = leaf([1.5, -2.0])
    y = op(x)
    assert y.tolist() == op(np.array([1.5, -2.0])).tolist()
    y.sum().backward()
    assert x.grad.tolist() == [op(1.5) / 1.5, op(-2.0) / -2.0]


def test_invert_is_for_integers_and_bools():
    assert (~ad.tensor([True, False])).tolist() == [False, True]
    assert (~ad.tensor([1, -2])).tolist() == [-2, 1]
    with pytest.raises(TypeError, match="invert: ~ needs an integer or bool tensor, got float64"):
        ~ad.tensor([1.0])


def test_reflected_operators_of_lists_work():
    x = leaf([1.0, 2.0])
    assert ([1, 2] + x).tolist() == [2.0, 4.0]
    assert (x * [3.0, 4.0]).tolist() == [3.0, 8.0]
    assert ((1.0, 2.0) - x).tolist() == [0.0, 0.0]


class Other:
    """A type that knows what to do with tensors."""

    def __add__(self, other):
        return "add"

    __radd__ = __mul__ = __rmul__ = __rmatmul__ = __rpow__ = __add__

    def __lt__(self, other):
        return "less"

    __gt__ = __lt__


def test_operators_let_other_types_decide():
    x = leaf([1.0])
    assert x + Other() == Other() + x == x * Other() == x @ Other() == x ** Other() == "add"
    assert (x < Other()) == "less"


# Comparison.


def test_comparison_of_numbers_gives_numpy_bools():
    x = leaf(2.0)
    for result, want in ((x > 1, True), (x < 1.0, False), (x == 2, True), (x != x, False)):
        assert type(result) is np.bool_
        assert result == want
    assert type(1.0 < x) is np.bool_


def test_comparison_of_arrays_gives_bool_tensors():
    x = leaf([1.0, 2.0])
    for result in (x > 1.5, 1.5 < x, x >= np.array([2.0, 2.0]), x == ad.tensor([0.0, 2.0])):
        assert type(result) is ad.Tensor
        assert result.dtype == np.bool_
        assert result.tolist() == [False, True]


def test_comparison_with_nan_follows_numpy():
    x = leaf(math.nan)
    assert [bool(r) for r in (x == x, x != x, x < 1.0, x >= 1.0)] == [False, True, False, False]


def test_equality_with_things_that_are_not_numbers_is_identity():
    x = leaf([1.0, 2.0])
    assert (x == None) is False  # noqa: E711
    assert (x != "a") is True
    with pytest.raises(TypeError, match="'<' not supported"):
        x < None  # noqa: B015


def test_tensors_hash_by_identity():
    x, y = leaf(1.0), leaf(1.0)
    assert hash(x) == hash(x)
    table = {x: "x", y: "y"}
    assert table[x] == "x"
    assert table[y] == "y"
    arrays = {leaf([1.0, 2.0]): k for k in range(10)}
    assert sorted(arrays.values()) == list(range(10))


def test_conditions_on_tensors_choose_branches():
    x = leaf(2.0)
    y = x * x if x > 1.0 else -x
    y.backward()
    assert x.grad.item() == 4.0
    assert max(leaf(1.0), leaf(3.0)).item() == 3.0
    assert sorted([leaf(3.0), leaf(1.0)])[0].item() == 1.0


@pytest.mark.parametrize(
    ("value", "want"),
    [(0.0, False), (2.0, True), (math.nan, True), ([0], False), ([[3]], True), (False, False)],
)
def test_truth_of_one_element_is_that_of_the_number(value, want):
    assert bool(ad.tensor(value)) is want


@pytest.mark.parametrize("value", [[1.0, 2.0], [], [[True], [False]]])
def test_truth_of_several_elements_is_an_error_with_the_remedy(value):
    with pytest.raises(ValueError, match=r"bool: the truth value .* ambiguous; use \.any\(\)"):
        bool(ad.tensor(value))


def test_membership_compares_elements():
    assert 2.0 in ad.tensor([1.0, 2.0])
    assert 3.0 not in ad.tensor([1.0, 2.0])


# Conversion.


@pytest.mark.parametrize("requires", [True, False])
@pytest.mark.parametrize("value", [2.75, [2.75], [[2.75]]])
@pytest.mark.parametrize("dtype", [ad.float64, ad.float32])
def test_one_element_converts_to_python_numbers(value, dtype, requires):
    t = ad.tensor(value, dtype=dtype, requires_grad=requires)
    assert (type(float(t)), float(t)) == (float, 2.75)
    assert (type(int(t)), int(t)) == (int, 2)
    assert complex(t) == 2.75
    assert (type(t.item()), t.item()) == (float, 2.75)
    assert math.sqrt(t) == math.sqrt(2.75)
    assert round(t, 1) == 2.8


def test_item_of_integers_and_bools_keeps_their_kind():
    assert (type(ad.tensor(3).item()), ad.tensor(3).item()) == (int, 3)
    assert ad.tensor([True]).item() is True
    assert ad.tensor([[1, 2]]).tolist() == [[1, 2]]


def test_integer_tensors_are_indices():
    assert [10, 20, 30][ad.tensor(1)] == 20
    assert list(range(ad.tensor(3))) == [0, 1, 2]
    with pytest.raises(TypeError, match="index: only integer tensors can be an index, got float64"):
        [10, 20, 30][ad.tensor(1.0)]


@pytest.mark.parametrize("convert", [float, int, complex, lambda t: t.item()])
def test_several_elements_do_not_become_one_number(convert):
    with pytest.raises(
        ValueError, match=r"item: only a tensor with one element, not of shape \(2,\)"
    ):
        convert(leaf([1.0, 2.0]))


def test_len_and_iteration_go_over_the_first_axis():
    x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert len(x) == 3
    rows = list(x)
    assert [r.tolist() for r in rows] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    a, b, c = x
    (b * 2.0).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
    assert [r.tolist() for r in reversed(x)] == [[5.0, 6.0], [3.0, 4.0], [1.0, 2.0]]
    assert [k for k, _ in enumerate(ad.tensor([]))] == []
    assert sum(leaf([1.0, 2.0])).item() == 3.0


def test_a_number_has_no_len_and_no_elements():
    for t in (leaf(1.0), ad.tensor(3)):
        with pytest.raises(TypeError, match="0-d tensor"):
            len(t)
        with pytest.raises(TypeError, match="0-d tensor"):
            iter(t)


# Text.


def f32(value):
    return ad.tensor(value, dtype=ad.float32, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ad.tensor(28.0), "tensor(28.)"),
        (lambda: leaf(28.0), "tensor(28., requires_grad=True)"),
        (lambda: f32(14.0) * 2, "tensor(28., grad_fn=<multiply>, dtype=float32)"),
        (lambda: ad.sin(leaf(0.0)), "tensor(0., grad_fn=<sin>)"),
        (lambda: leaf([1.0, 2.0]).sum(), "tensor(3., grad_fn=<sum>)"),
        (lambda: ad.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: ad.tensor([1, 2], dtype=ad.int8), "tensor([1, 2], dtype=int8)"),
        (lambda: ad.tensor([True]), "tensor([ True])"),
        (lambda: ad.tensor([[1.0], [2.5]]), "tensor([[1. ],\n        [2.5]])"),
        (lambda: ad.tensor([]), "tensor([])"),
        (lambda: ad.tensor([], dtype=ad.int64), "tensor([], dtype=int64)"),
        (lambda: ad.zeros((2, 0), dtype=bool), "tensor([], shape=(2, 0), dtype=bool)"),
        (lambda: ad.tensor(1j), "tensor(0.+1.j)"),
        (lambda: ad.tensor([1j], dtype=ad.complex64), "tensor([0.+1.j], dtype=complex64)"),
        (lambda: ad.tensor(np.zeros((2, 0))), "tensor([], shape=(2, 0))"),
        (lambda: ad.tensor(math.nan), "tensor(nan)"),
        (lambda: ad.tensor(-math.inf), "tensor(-inf)"),
    ],
)
def test_repr_shows_value_history_and_dtype(make, text):
    t = make()
    assert repr(t) == text
    assert str(t) == text


def test_repr_of_a_long_tensor_is_short_and_has_its_shape():
    text = repr(ad.zeros(100_000))
    assert "..." in text and text.endswith(", shape=(100000,))") and len(text) < 200
    with np.printoptions(threshold=5):
        assert repr(leaf(np.zeros((2, 3)))).endswith("shape=(2, 3), requires_grad=True)")
    assert "shape" not in repr(ad.zeros(100))


def test_repr_keeps_to_the_width_of_numpys_lines():
    wide = leaf(np.arange(9) + 0.125) * 1.0
    lines = repr(wide).splitlines()
    assert len(lines) == 2 and lines[1] == "       grad_fn=<multiply>)"
    for columns in range(40, 120):
        with np.printoptions(linewidth=columns):
            lines = repr(wide).splitlines()
            assert max(map(len, lines)) <= columns
            # nothing stands alone that had room
            if lines[-1].startswith("       grad_fn"):
                assert len(lines[-2]) + 1 + len(lines[-1].lstrip()) > columns


def test_repr_of_what_a_recording_made_and_of_its_inputs():
    seen = []

    def function(x):
        seen.append(x * 2.0)
        seen.append(repr(x))
        return x.sum()

    ad.compile(function)(np.ones(2))
    assert repr(seen[0]) == "tensor([2., 2.])"      # what outlives it is a constant
    assert seen[1] == "tensor([1., 1.], grad_fn=<input>)"


def test_repr_follows_numpys_print_options():
    with np.printoptions(precision=3):
        assert repr(ad.tensor(math.pi)) == "tensor(3.142)"


def test_repr_tells_of_a_consumed_graph():
    y = leaf(2.0) * 3.0
    y.backward()
    assert repr(y) == "tensor(6., grad_fn=<consumed>)"


@pytest.mark.parametrize(
    ("make", "spec", "text"),
    [
        (lambda: leaf(math.pi), ".3f", "3.142"),
        (lambda: leaf(math.pi) * 1.0, "8.2f", "    3.14"),
        (lambda: f32(2.5), ".3e", "2.500e+00"),
        (lambda: ad.tensor([2.5]), ".1f", "2.5"),
        (lambda: ad.tensor(7), "03d", "007"),
        (lambda: leaf(2.5), "", "2.5"),
        (lambda: f32(2.5), "", "2.5"),
        (lambda: ad.tensor(7), "", "7"),
        (lambda: ad.tensor([1, 2]), "", "tensor([1, 2])"),
        (lambda: ad.tensor([1, 2]), ">16", "  tensor([1, 2])"),
    ],
)
def test_format_of_one_number_is_that_of_the_number(make, spec, text):
    assert format(make(), spec) == text


def test_format_of_several_numbers_as_one_is_refused():
    with pytest.raises(TypeError, match=r"format: '.3f' is for one number, .* shape \(2,\)"):
        format(ad.tensor([1.0, 2.0]), ".3f")


# Copies.


@pytest.mark.parametrize("value", [2.0, [1.0, 2.0], np.ones((2, 500)), [1, 2], [True, False]])
@pytest.mark.parametrize("via", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
def test_leaves_are_pickled_and_copied_deeply(value, via):
    floating = ad.tensor(value).dtype.kind == "f"
    for requires in {False, floating}:
        t = ad.tensor(value, requires_grad=requires)
        u = via(t)
        assert u is not t
        assert (u.dtype, u.shape, u.requires_grad) == (t.dtype, t.shape, requires)
        assert u.tolist() == t.tolist()
        assert u.is_leaf


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_works(protocol):
    t = pickle.loads(pickle.dumps(leaf([1.0, 2.0], ad.float32), protocol))
    assert t.requires_grad
    assert t.dtype == np.float32
    (t * t).sum().backward()
    assert t.grad.tolist() == [2.0, 4.0]


def test_a_deep_copy_is_independent():
    x = leaf([1.0, 2.0])
    model = {"w": x, "again": x}
    twin = copy.deepcopy(model)
    assert twin["w"] is twin["again"]
    with ad.no_grad():
        twin["w"] += 1.0
    assert x.tolist() == [1.0, 2.0]
    twin["w"].sum().backward()
    assert x.grad is None


def test_results_with_history_are_not_pickled():
    y = leaf(2.0) * 2.0
    with pytest.raises(TypeError, match=r"pickle: only leaves .*\.detach\(\)"):
        pickle.dumps(y)
    with pytest.raises(TypeError, match=r"deepcopy: only leaves .*\.detach\(\)"):
        copy.deepcopy(y)
    assert pickle.loads(pickle.dumps(y.detach())).item() == 4.0


@pytest.mark.parametrize("value", [2.0, [1.0, 2.0], [1, 2], [True, False], np.float32(1)])
def test_clone_and_copy_have_the_value_and_a_buffer_of_their_own(value):
    t = ad.tensor(value)
    for u in (t.clone(), copy.copy(t), t.copy(), t.detach()):
        assert u is not t
        assert (u.dtype, u.shape) == (t.dtype, t.shape)
        if u.dtype.kind == "f":
            u += 1
        elif u.dtype.kind == "i":
            u *= 2
        assert t.tolist() == np.asarray(value).tolist()


def test_clone_passes_gradients_and_detach_does_not():
    x = leaf([1.0, 2.0])
    y = x.clone() * x.detach()
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0]
    assert x.detach().is_leaf
    assert not x.detach().requires_grad


# In-place operators.

IN_PLACE = {
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "/=": operator.itruediv,
    "//=": operator.ifloordiv,
    "%=": operator.imod,
    "**=": operator.ipow,
}


@pytest.mark.parametrize("symbol", IN_PLACE)
@pytest.mark.parametrize("value", [3.5, [3.5, 1.25]])
@pytest.mark.parametrize("other", [2.0, 3, np.float64(1.5), leaf(2.0)])
def test_in_place_operators_keep_the_object_and_give_numpys_value(symbol, value, other):
    t = ad.tensor(value)
    want = np.array(value)
    want = IN_PLACE[symbol](want, other.item() if isinstance(other, ad.Tensor) else other)
    with ad.no_grad():
        same = IN_PLACE[symbol](t, other)
    assert same is t
    assert t.tolist() == want.tolist()


def test_in_place_matrix_product():
    t = ad.tensor([[1.0, 2.0], [3.0, 4.0]])
    u = t
    t @= [[0.0, 1.0], [1.0, 0.0]]
    assert u is t
    assert t.tolist() == [[2.0, 1.0], [4.0, 3.0]]


@pytest.mark.parametrize("value", [3.0, [3.0, 1.0], np.ones(1000)])
@pytest.mark.parametrize("dtype", [ad.float64, ad.float32])
def test_an_update_under_no_grad_keeps_the_leaf(value, dtype):
    x = leaf(value, dtype)
    handle = x
    for _ in range(3):
        start = np.array(x.tolist(), dtype)
        (x * x).sum().backward()
        with ad.no_grad():
            x -= 0.25 * x.grad
        assert x.grad.tolist() == (2 * start).tolist()
        x.grad = None
        assert handle is x
        assert x.is_leaf
        assert x.requires_grad
        assert x.dtype == dtype
        assert x.tolist() == (start / 2).tolist()


def test_gradient_descent_finds_the_minimum():
    x = leaf([3.0, -2.0])
    target = np.array([1.0, 4.0])
    for _ in range(100):
        ((x - target) ** 2).sum().backward()
        with ad.no_grad():
            x -= 0.2 * x.grad
            x.grad *= 0.0
    np.testing.assert_allclose(x.tolist(), target, rtol=1e-9)


def test_in_place_on_a_result_is_part_of_the_graph():
    for value in (3.0, [3.0, 2.0]):
        x = leaf(value)
        y = x * x
        handle = y
        y += x
        y *= 2.0
        assert handle is y
        assert not y.is_leaf
        y.sum().backward()
        assert x.grad.tolist() == (4.0 * np.array(value) + 2.0).tolist()


def test_in_place_on_a_constant_makes_it_a_result():
    x = leaf([1.0, 2.0])
    total = ad.tensor(0.0)
    handle = total
    for k in range(3):
        total += (x * float(k)).sum()
    assert handle is total
    assert total.requires_grad
    total.backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_in_place_with_itself():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    y *= y
    y += y
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]


SAVED = {
    "exp": (ad.exp, np.exp),
    "sqrt": (ad.sqrt, lambda v: 0.5 / np.sqrt(v)),
    "tanh": (ad.tanh, lambda v: 1 - np.tanh(v) ** 2),
    "reciprocal": (ad.reciprocal, lambda v: -1 / v**2),
    "divide": (lambda x: 1.0 / x, lambda v: -1 / v**2),
    "power": (lambda x: x**3.5, lambda v: 3.5 * v**2.5),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("value", [1.5, [1.5, 0.5], np.linspace(0.5, 2, 2000)])
@pytest.mark.parametrize("change", [operator.iadd, operator.imul])
def test_a_saved_result_changed_in_place_is_not_corrupted(name, value, change):
    function, slope = SAVED[name]
    x = leaf(value)
    y = function(x)
    kept = y * 1.0
    y = change(y, 3.0)
    (kept.sum() + y.sum()).backward()
    factor = 2.0 if change is operator.iadd else 4.0
    np.testing.assert_allclose(x.grad.numpy(), factor * slope(np.array(value)), rtol=1e-13)


@pytest.mark.parametrize("value", [1.5, [1.5, 0.5], np.linspace(0.5, 2, 2000)])
def test_a_saved_leaf_updated_in_place_is_not_corrupted(value):
    x = leaf(value)
    y = (x * x).sum()
    with ad.no_grad():
        x += 100.0
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.array(value), rtol=1e-15)


def test_a_saved_operand_updated_in_place_is_not_corrupted():
    w = ad.tensor(np.full(2000, 3.0))
    x = leaf(np.ones(2000))
    y = (x * w).sum()
    w *= 100.0
    w += x.detach()
    y.backward()
    assert x.grad.tolist() == [3.0] * 2000


def test_in_place_does_not_reach_other_handles_of_the_value():
    t = ad.tensor([[1.0, 2.0]])
    copies = [t.detach(), ad.tensor(t), t.astype(float), t.copy(), t.flatten(), t[[0]]]
    before = [v.tolist() for v in copies]
    t += 10.0
    assert [v.tolist() for v in copies] == before


@pytest.mark.parametrize(
    ("view", "slope"),
    [
        (lambda x: x[:, 1:], [[2.0, 30.0], [2.0, 30.0]]),
        (lambda x: x.T, [[30.0, 30.0], [30.0, 30.0]]),
        (lambda x: x.reshape(4), [[30.0, 30.0], [30.0, 30.0]]),
        (lambda x: x[1], [[2.0, 2.0], [30.0, 30.0]]),
    ],
    ids=["slice", "transpose", "reshape", "row"],
)
def test_a_change_of_a_slice_or_transpose_reaches_its_source(view, slope):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y, twin = x * 1.0, x.detach().numpy() * 1.0
    for a in (y, twin):
        part = view(a)
        part *= 10.0
        part += 1.0
    assert y.tolist() == twin.tolist()
    (view(y).sum() + 2.0 * y.sum()).backward()
    assert x.grad.tolist() == slope


def test_a_gradient_kept_aside_does_not_change_when_its_source_is_updated():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    kept = x.grad.detach()
    x.grad += 5.0
    assert kept.tolist() == [2.0, 4.0]
    assert x.grad.tolist() == [7.0, 9.0]


def test_in_place_with_a_result_of_more_precision_keeps_the_dtype():
    t = ad.tensor([1.0, 2.0], dtype=ad.float32)
    t += np.array([0.1, 0.2])
    assert t.dtype == np.float32
    assert t.tolist() == (np.float32([1, 2]) + [0.1, 0.2]).astype(np.float32).tolist()


def test_hooks_of_the_old_value_stay_with_it_after_an_in_place_change():
    x, seen = leaf(3.0), []
    y = x * x
    y.register_hook(lambda g: seen.append(g.item()))
    kept = y * 1.0
    y *= 10.0
    (kept + y).backward()
    assert seen == [11.0]
    assert x.grad.item() == 66.0


# Life and death.


def test_many_tensors_come_and_go_in_any_order():
    rng = np.random.default_rng(1)
    x = leaf(1.0)
    pool = {}
    for k in range(20_000):
        pool[int(rng.integers(500))] = (
            ad.tensor(float(k)) if k % 3 == 0 else x * float(k) if k % 3 == 1 else leaf([k, 1.0])
        )
    for t in pool.values():
        if not t.is_leaf:
            (g,) = ad.autograd.grad(t, x)
            assert g.item() == t.item()
    pool.clear()
    gc.collect()
    (x * 2.0).backward()
    assert x.grad.item() == 2.0


def test_tensors_are_made_by_the_function_only():
    with pytest.raises(TypeError, match=r"Tensor: make tensors with fastad\.tensor\(data\)"):
        ad.Tensor(3.0)
    with pytest.raises(TypeError):
        type("Mine", (ad.Tensor,), {})


@pytest.mark.parametrize("row", [row for row in _core.table() if row["arity"] < 3],
                         ids=lambda row: row["name"])
def test_functions_of_python_numbers_alone_give_numbers(row):
    f = _core.elementwise_functions[row["name"]]
    at = [round(0.5 * (low + high)) for low, high in row["intervals"]]
    y = f(*[float(v) for v in at])
    assert type(y) is ad.Tensor and y.shape == () and y.dtype == np.float64
    np.testing.assert_array_equal(y.item(), f(*[ad.tensor(float(v)) for v in at]).item())
