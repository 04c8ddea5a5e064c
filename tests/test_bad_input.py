"""Bad input: a clear error or the documented value, the tape as it was, nothing leaked."""

import decimal
import math
import operator

import numpy as np
import pytest

import fastad as ad


def leaf(value=(1.0, 2.0, 3.0), dtype=None):
    return ad.tensor(value, dtype=dtype, requires_grad=True)


def swept():
    y = ad.exp(leaf()).sum()
    y.backward()
    return y


def part_swept():
    shared = ad.exp(leaf())
    shared.sum().backward()
    return (shared * 2.0).sum()


class Stranger:
    """Nothing that an array could be made of."""

    def __repr__(self):
        return "<stranger>"


def update(t, op, other):
    return op(t, other)


# Every row: what is done, the error, and what its text must say: who complains, what came, what
# was wanted and what to do.
CASES = {
    # shapes
    "add shapes": (
        lambda: leaf() + np.ones(2),
        ValueError,
        r"add: shapes \(3,\) and \(2,\) do not broadcast",
    ),
    "reflected shapes": (
        lambda: np.ones((2, 2)) * leaf(),
        ValueError,
        r"multiply: shapes \(2, 2\) and \(3,\) do not broadcast",
    ),
    "function shapes": (
        lambda: ad.hypot(leaf(), leaf([1.0, 2.0])),
        ValueError,
        r"hypot: shapes \(3,\) and \(2,\) do not broadcast",
    ),
    "three shapes": (
        lambda: ad.where(leaf() > 0, leaf(), np.ones(2)),
        ValueError,
        r"where: shapes \(3,\), \(3,\) and \(2,\) do not broadcast",
    ),
    "comparison shapes": (lambda: leaf() < np.ones(2), ValueError, r"less: .*\(3,\).*\(2,\)"),
    "matmul shapes": (
        lambda: leaf() @ np.ones((2, 2)),
        ValueError,
        r"matmul: shapes \(3,\) and \(2, 2\) do not fit; the last axis",
    ),
    "batched matmul shapes": (
        lambda: leaf(np.ones((2, 3, 4))) @ np.ones((3, 4, 2)),
        ValueError,
        r"matmul: shapes \(2, 3, 4\) and \(3, 4, 2\) do not fit",
    ),
    "matmul with a number": (
        lambda: leaf() @ leaf(2.0),
        ValueError,
        r"matmul: operands of shape \(3,\) and \(\); .*use \*",
    ),
    "reshape": (
        lambda: leaf().reshape(2, 2),
        ValueError,
        r"reshape: 3 elements of shape \(3,\) do not fit \(2, 2\)",
    ),
    "reshape with two holes": (lambda: leaf().reshape(-1, -1), ValueError, "reshape: .* -1"),
    "broadcast": (
        lambda: ad.broadcast_to(leaf(), (2,)),
        ValueError,
        r"broadcast_to: shape \(3,\) does not broadcast to \(2,\)",
    ),
    "negative shape": (lambda: ad.broadcast_to(leaf(), (-1, 3)), ValueError, "negative"),
    "transpose": (
        lambda: ad.transpose(leaf(), (0, 1)),
        ValueError,
        r"transpose: axes \(0, 1\) are not a permutation of 1 axes",
    ),
    "axis": (lambda: leaf().sum(axis=1), ValueError, "axis 1 is out of bounds"),
    "index": (lambda: leaf()[7], IndexError, "getitem: index 7 is out of bounds"),
    "too many indices": (lambda: leaf()[0, 0], IndexError, "getitem: too many indices"),
    "index by a float": (lambda: leaf()[1.0], IndexError, "getitem"),
    "join": (
        lambda: ad.concatenate([leaf(), leaf(np.ones((1, 3)))]),
        ValueError,
        "concatenate: .*dim",
    ),
    "stack": (lambda: ad.stack([leaf(), leaf([1.0])]), ValueError, "stack: .*shape"),
    "join nothing": (lambda: ad.concatenate([]), ValueError, "concatenate: needs? at least one"),
    # dtypes
    "float16 operand": (
        lambda: leaf() * np.float16(1.0),
        TypeError,
        "multiply: .*float16; wanted float64, float32, .* astype",
    ),
    "longdouble operand": (
        lambda: leaf() * np.longdouble(1.0),
        TypeError,
        "multiply: .*wanted float64, float32",
    ),
    "long complex operand": (
        lambda: leaf() * np.clongdouble(1j),
        TypeError,
        "multiply: .*dtype c.*; wanted float64",
    ),
    "object array": (
        lambda: leaf() + np.array([1, None, 2]),
        TypeError,
        "add: .*dtype object; wanted float64",
    ),
    "array of text": (
        lambda: leaf() + np.array(["a", "b", "c"]),
        TypeError,
        "add: .*<U1; wanted float64",
    ),
    "dates": (lambda: leaf() + np.datetime64("2020"), TypeError, "add: .*datetime64"),
    "long complex data": (lambda: ad.tensor(np.clongdouble(1j)), TypeError,
                          "tensor: dtype c.* is not supported"),
    "float16 data": (
        lambda: ad.tensor(np.float16(1)),
        TypeError,
        "tensor: dtype float16 is not supported; use float64, float32",
    ),
    "longdouble data": (
        lambda: ad.tensor(np.longdouble(1)),
        TypeError,
        "tensor: dtype .* is not supported",
    ),
    "float16 asked for": (
        lambda: ad.tensor([1.0], dtype="float16"),
        TypeError,
        "float16 is not supported",
    ),
    "long complex asked for": (
        lambda: ad.tensor([1.0], dtype=np.clongdouble),
        TypeError,
        "dtype c.* is not supported",
    ),
    "no dtype": (lambda: ad.tensor([1.0], dtype="nonsense"), TypeError, "nonsense"),
    "cast to float16": (
        lambda: leaf().astype(np.float16),
        TypeError,
        "astype: float16 is not supp",
    ),
    "cast to long complex": (lambda: leaf().astype(np.clongdouble), TypeError,
                             "astype: c.* is not supported"),
    "bits of floats": (lambda: leaf() & leaf(), TypeError, "bitwise_and: .*float64"),
    "shift of floats": (lambda: leaf() << 1, TypeError, "left_shift: .*float64"),
    "inverted floats": (
        lambda: ~leaf(),
        TypeError,
        "invert: ~ needs an integer or bool tensor, got float64",
    ),
    "integer requires_grad": (
        lambda: ad.tensor([1], requires_grad=True),
        RuntimeError,
        r"requires_grad_: only floating tensors .* has dtype int64; use astype\(float\)",
    ),
    "integer requires_grad_": (
        lambda: ad.tensor([1]).requires_grad_(),
        RuntimeError,
        "only floating tensors",
    ),
    "bool requires_grad": (
        lambda: setattr(ad.tensor(True), "requires_grad", True),
        RuntimeError,
        "only floating tensors .* has dtype bool",
    ),
    "integer creation": (
        lambda: ad.zeros(3, dtype=int, requires_grad=True),
        RuntimeError,
        "only floating tensors",
    ),
    # operands and data of unknown type
    "text operand": (lambda: leaf() + "a", TypeError, r"unsupported operand type\(s\) for \+"),
    "reflected text": (lambda: "a" + leaf(), TypeError, "concatenate str"),
    "None operand": (lambda: leaf() * None, TypeError, r"unsupported operand type\(s\) for \*"),
    "None on the left": (lambda: None - leaf(), TypeError, r"unsupported operand type\(s\) for -"),
    "dict operand": (lambda: leaf() / {}, TypeError, r"unsupported operand type\(s\) for /"),
    "object operand": (lambda: leaf() ** Stranger(), TypeError, r"unsupported operand type"),
    "decimal operand": (lambda: leaf() * decimal.Decimal(1), TypeError, "unsupported operand type"),
    "object in matmul": (lambda: leaf() @ Stranger(), TypeError, "unsupported operand type"),
    "object in place": (
        lambda: update(leaf() * 1.0, operator.iadd, Stranger()),
        TypeError,
        "unsupported operand type",
    ),
    "ragged operand": (lambda: leaf() + [1, [2], 3], ValueError, "add: .*inhomogeneous"),
    "huge operand": (lambda: leaf() * 10**400, OverflowError, "int too large"),
    "text argument": (lambda: ad.sin("a"), TypeError, "sin: .*str.*wanted float64"),
    "None argument": (lambda: ad.sin(None), TypeError, "sin: .*NoneType.*wanted float64"),
    "object argument": (lambda: ad.add(leaf(), Stranger()), TypeError, "add: .*Stranger.*wanted"),
    "long complex argument": (lambda: ad.exp(np.clongdouble(1j)), TypeError,
                              "exp: .*dtype c.*wanted float64"),
    "None in a structured function": (
        lambda: ad.concatenate([leaf(), None]),
        (TypeError, ValueError),
        "concatenate",
    ),
    "text in a structured function": (lambda: ad.sum("abc"), TypeError, "sum|tensor"),
    "too many arguments": (
        lambda: ad.sin(leaf(), leaf()),
        TypeError,
        "sin: takes 1 positional argument, got 2",
    ),
    "too few arguments": (
        lambda: ad.add(leaf()),
        TypeError,
        "add: takes 2 positional arguments, got 1",
    ),
    "unknown keyword": (lambda: ad.sin(x=leaf()), TypeError, "sin: takes 1 positional argument"),
    "modulus": (lambda: pow(leaf(), 2, 3), TypeError, "power: a modulus is not supported"),
    "None as data": (lambda: ad.tensor(None), TypeError, "tensor: cannot make .* from NoneType"),
    "object as data": (
        lambda: ad.tensor(Stranger()),
        TypeError,
        "tensor: cannot make .* from Stranger",
    ),
    "dict as data": (lambda: ad.tensor({}), TypeError, "tensor: cannot make .* from dict"),
    "set as data": (lambda: ad.tensor({1.0}), TypeError, "tensor: cannot make .* from set"),
    "generator as data": (
        lambda: ad.tensor(k for k in range(3)),
        TypeError,
        "tensor: cannot make .* generator",
    ),
    "decimal as data": (
        lambda: ad.tensor([decimal.Decimal(1)]),
        TypeError,
        "tensor: cannot make .* from list",
    ),
    "text as data": (lambda: ad.tensor("1.5"), TypeError, "tensor: dtype <U3 is not supported"),
    "text with dtype": (lambda: ad.tensor("1.5", dtype=float), TypeError, "<U3 is not supported"),
    "ragged data": (lambda: ad.tensor([[1.0], [2.0, 3.0]]), ValueError, "tensor: .*inhomogeneous"),
    "list of tensors": (lambda: ad.tensor([leaf(1.0), leaf(2.0)]), TypeError, "tensor: .*stack"),
    "record array": (lambda: ad.tensor(np.zeros(2, [("a", float)])), TypeError, "not supported"),
    # backward and its relatives
    "vector backward": (
        lambda: (leaf() * 2.0).backward(),
        RuntimeError,
        r"backward: a tensor of shape \(3,\) needs a gradient of that shape; .*\.sum\(\)",
    ),
    "vector grad": (
        lambda: ad.autograd.grad(leaf() * 2.0, leaf()),
        RuntimeError,
        r"shape \(3,\) needs a grad",
    ),
    "empty backward": (lambda: leaf([]).backward(), RuntimeError, r"shape \(0,\) needs a gradient"),
    "gradient shape": (
        lambda: (leaf() * 2.0).backward(np.ones(2)),
        ValueError,
        r"backward: gradient of shape \(2,\) does not fit the tensor's shape \(3,\)",
    ),
    "gradient of a number": (
        lambda: leaf(2.0).backward(np.ones(1)),
        ValueError,
        r"shape \(1,\) does not fit .* \(\)",
    ),
    "gradient type": (
        lambda: (leaf() * 2.0).backward("text"),
        TypeError,
        "dtype <U4 is not supported",
    ),
    "complex gradient": (
        lambda: (leaf() * 2.0).backward(np.ones(3) * 1j),
        TypeError,
        "gradient of complex128 does not fit",
    ),
    "consumed": (
        lambda: swept().backward(),
        RuntimeError,
        "backward: this graph, .* already consumed .*; record the computation again, or pass "
        "retain_graph=True the first time",
    ),
    "partly consumed": (
        lambda: part_swept().backward(),
        RuntimeError,
        "a part of it, was already consumed",
    ),
    "partly consumed, recorded": (
        lambda: part_swept().backward(create_graph=True),
        RuntimeError,
        "already consumed",
    ),
    "consumed hook": (
        lambda: swept().register_hook(print),
        RuntimeError,
        "register_hook: .*consumed",
    ),
    "consumed retain_grad": (
        lambda: swept().retain_grad(),
        RuntimeError,
        "retain_grad: this tensor",
    ),
    "no history": (
        lambda: ad.tensor(1.0).backward(),
        RuntimeError,
        "backward: this tensor has no history and does not require gradients; .*requires_grad=True",
    ),
    "detached": (
        lambda: (leaf(2.0) * 2.0).detach().backward(),
        RuntimeError,
        "backward: .*no history",
    ),
    "integer result": (lambda: leaf().argmax().backward(), RuntimeError, "backward: .*no history"),
    "no inputs": (
        lambda: leaf(2.0).backward(inputs=[]),
        RuntimeError,
        "backward: inputs must not be empty",
    ),
    "inputs that are no tensors": (
        lambda: leaf(2.0).backward(inputs=[3.0]),
        TypeError,
        "inputs must be Tensors, got float",
    ),
    "grad of a float": (
        lambda: ad.autograd.grad(3.0, leaf()),
        TypeError,
        "grad: outputs must be .*Tensor.*float",
    ),
    "grad to a float": (
        lambda: ad.autograd.grad(leaf(2.0), 3.0),
        TypeError,
        "grad: inputs must be .*Tensor.*float",
    ),
    "grad to an array": (
        lambda: ad.autograd.grad(leaf(2.0), [np.ones(2)]),
        TypeError,
        "inputs must be Tensors, got ndarray",
    ),
    "grad to a constant": (
        lambda: ad.autograd.grad(leaf(2.0), ad.tensor(1.0)),
        RuntimeError,
        "one of the inputs does not require gradients",
    ),
    "grad to an unused leaf": (
        lambda: ad.autograd.grad(leaf(2.0) * 1.0, leaf(2.0)),
        RuntimeError,
        "grad: input 0 was not used .*; pass allow_unused=True",
    ),
    "number of cotangents": (
        lambda: ad.autograd.grad([leaf(2.0), leaf(2.0)], leaf(2.0), [1.0]),
        ValueError,
        "grad: 2 outputs, but 1 grad_outputs",
    ),
    "hook on a constant": (
        lambda: ad.tensor(1.0).register_hook(print),
        RuntimeError,
        "register_hook: this tensor does not require gradients",
    ),
    "hook that is no function": (
        lambda: leaf().register_hook(3),
        TypeError,
        "register_hook: wanted a function, got int",
    ),
    "retain_grad on a constant": (
        lambda: ad.tensor(1.0).retain_grad(),
        RuntimeError,
        "retain_grad: .*no history",
    ),
    "result that stops": (
        lambda: (leaf() * 2.0).requires_grad_(False),
        RuntimeError,
        r"requires_grad_: only a leaf can stop .* \.detach\(\)",
    ),
    "grad set to a number": (
        lambda: setattr(leaf(), "grad", 3.0),
        TypeError,
        "grad: wanted a Tensor or None, got float",
    ),
    "grad of another shape": (
        lambda: setattr(leaf(), "grad", ad.tensor(1.0)),
        ValueError,
        r"grad: shape \(\) does not fit \(3,\)",
    ),
    "grad of another dtype": (
        lambda: setattr(leaf(), "grad", ad.tensor([1, 2, 3])),
        TypeError,
        "grad: .*int64.*float64",
    ),
    # in place
    "leaf in place": (
        lambda: update(leaf(), operator.iadd, 1.0),
        RuntimeError,
        r"\+=: a leaf that requires gradients cannot be changed while recording; .*no_grad\(\)",
    ),
    "shape in place": (
        lambda: update(ad.tensor([1.0, 2.0]), operator.imul, np.ones((2, 2))),
        ValueError,
        r"\*=: the result has shape \(2, 2\) and does not fit in place into \(2,\)",
    ),
    "float into integers": (
        lambda: update(ad.tensor([1, 2]), operator.iadd, 1.5),
        TypeError,
        r"\+=: cannot put float64 into a tensor of dtype int64; use astype",
    ),
    "integer division in place": (
        lambda: update(ad.tensor([1, 2]), operator.itruediv, 2),
        TypeError,
        "/=: cannot put float64",
    ),
    "item assignment": (
        lambda: operator.setitem(leaf(), 0, 1.0),
        TypeError,
        r"setitem: tensors take no item assignment; .*where\(\)",
    ),
    "item deletion": (
        lambda: operator.delitem(leaf(), 0),
        (TypeError, NotImplementedError),
        "deletion",
    ),
    "read-only attribute": (lambda: setattr(leaf(), "shape", (3, 1)), AttributeError, "shape"),
    "unknown attribute": (lambda: leaf().nonsense, AttributeError, "nonsense"),
    # conversion
    "truth": (
        lambda: bool(leaf()),
        ValueError,
        r"bool: .*shape \(3,\) is ambiguous; use \.any\(\)",
    ),
    "float of three": (
        lambda: float(leaf()),
        ValueError,
        r"item: .*one element, not of shape \(3,\)",
    ),
    "array of a leaf": (
        lambda: np.asarray(leaf()),
        TypeError,
        r"array: .*requires gradients.*\.detach\(\)\.numpy\(\)",
    ),
    "numpy of a leaf": (
        lambda: leaf().numpy(),
        RuntimeError,
        r"numpy: .*requires gradients.*\.detach\(\)\.numpy\(\)",
    ),
    "len of a number": (lambda: len(leaf(1.0)), TypeError, "len: .*0-d"),
    "iteration over a number": (lambda: list(leaf(1.0)), TypeError, "0-d"),
    # transforms
    "grad of a vector": (
        lambda: ad.grad(lambda x: x * x)(np.ones(3)),
        ValueError,
        r"grad: the function returned shape \(3,\); wanted one number \(use jacobian",
    ),
    "grad of nothing": (
        lambda: ad.grad(lambda x: None)(1.0),
        TypeError,
        "grad: the function returned NoneType",
    ),
    "grad of text": (lambda: ad.grad(lambda x: "y")(1.0), TypeError, "grad: .*returned str"),
    "grad at text": (lambda: ad.grad(lambda x: x)("a"), TypeError, "dtype <U1 is not supported"),
    "grad at None": (lambda: ad.grad(lambda x: x)(None), TypeError, "cannot make .* NoneType"),
    "grad at a complex number": (
        lambda: ad.grad(lambda x: x)(1j),
        TypeError,
        "grad: .*complex number.*holomorphic",
    ),
    "argument that is not there": (
        lambda: ad.grad(lambda x: x, argnums=3)(1.0),
        TypeError,
        "grad: argument 3 of 1 does not",
    ),
    "no argument": (lambda: ad.grad(lambda: 1.0)(), TypeError, "grad: argument 0 of 0 does not"),
    "aux that is not there": (
        lambda: ad.grad(lambda x: x * x, has_aux=True)(1.0),
        TypeError,
        "0-d|aux|pair",
    ),
    "cotangent shape": (
        lambda: ad.vjp(lambda x: x * x, np.ones(3))[1](np.ones(2)),
        ValueError,
        r"vjp: cotangent of shape \(2,\) does not fit the output's shape \(3,\)",
    ),
    "number of vjp cotangents": (
        lambda: ad.vjp(lambda x: (x, x), 1.0)[1]((1.0,)),
        ValueError,
        "vjp: 2 outputs, but 1 cot",
    ),
    "tangent shape": (
        lambda: ad.jvp(lambda x: x * x, (np.ones(3),), (np.ones(2),)),
        ValueError,
        r"jvp: tangent of shape \(2,\) for a primal of shape \(3,\)",
    ),
    "number of tangents": (
        lambda: ad.jvp(lambda x: x, (1.0,), (1.0, 2.0)),
        ValueError,
        "jvp: 1 primals, but 2 tangents",
    ),
    "jacobian of a tree": (
        lambda: ad.jacobian(lambda p: p["a"])({"a": np.ones(2), "b": 1.0}),
        TypeError,
        "jacobian: the differentiated arguments must be arrays or numbers",
    ),
    "hessian of a vector": (
        lambda: ad.hessian(lambda x: x * x)(np.ones(3)),
        ValueError,
        r"returned shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_a_clear_error_that_leaves_nothing_behind(name, tape_state):
    act, error, text = CASES[name]
    before = tape_state()
    with pytest.raises(error, match=text) as caught:
        act()
    caught.value.__traceback__ = None
    del caught
    assert tape_state() == before
    assert ad.is_grad_enabled()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_under_no_grad_is_an_error_too(name):
    act, error, _ = CASES[name]
    recording = {
        "vector backward",
        "vector grad",
        "empty backward",
        "gradient shape",
        "gradient type",
        "complex gradient",
        "leaf in place",
        "array of a leaf",
        "numpy of a leaf",
        "result that stops",
        "number of cotangents",
        "grad to an unused leaf",
        "cast to float16",
        "cast to long complex",
        "consumed hook",
    }
    if name in recording:
        return  # an error of recording alone
    kinds = error if isinstance(error, tuple) else (error,)
    with ad.no_grad(), pytest.raises((*kinds, RuntimeError)):
        act()
    assert ad.is_grad_enabled()


def test_a_failed_operation_leaves_its_operands_usable():
    x = leaf()
    y = x * 2.0
    for bad in (np.ones(2), None, "text", np.float16(1), np.array([None] * 3)):
        with pytest.raises((TypeError, ValueError)):
            y + bad
        with pytest.raises((TypeError, ValueError)):
            y @ np.ones((7, 7))
        with pytest.raises((TypeError, ValueError)):
            update(y, operator.iadd, bad)
    assert y.tolist() == [2.0, 4.0, 6.0]
    y.sum().backward()
    assert x.grad.tolist() == [2.0] * 3


def test_a_failed_sweep_leaves_gradients_and_graph_as_they_were():
    x = leaf()
    x.grad = ad.tensor([1.0, 1.0, 1.0])
    y = x * 2.0
    for bad in (None, np.ones(2), "text", np.ones(3) * 1j):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            y.backward(bad)
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            y.backward(bad, create_graph=True)
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            ad.autograd.grad(y, x, bad)
    assert x.grad.tolist() == [1.0] * 3
    y.backward(np.ones(3))
    assert x.grad.tolist() == [3.0] * 3


def test_a_failed_in_place_change_leaves_the_tensor_as_it_was():
    x = leaf()
    t = x * 1.0
    with pytest.raises(ValueError, match="does not fit in place"):
        t += np.ones((2, 3))
    n = ad.tensor([1, 2])
    with pytest.raises(TypeError, match="cannot put"):
        n *= 0.5
    assert (t.tolist(), n.tolist()) == ([1.0, 2.0, 3.0], [1, 2])
    t.sum().backward()
    assert x.grad.tolist() == [1.0] * 3


def test_an_object_whose_conversion_fails_shows_its_own_error():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise ZeroDivisionError("broken")

    x = leaf()
    for act in (lambda: x + Broken(), lambda: ad.tensor(Broken()), lambda: ad.add(x, Broken())):
        with pytest.raises(ZeroDivisionError, match="broken"):
            act()
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [1.0] * 3


def test_an_operand_that_changes_the_tape_while_it_is_converted_does_no_harm():
    x = leaf()
    y = x * 2.0

    class Busy:
        def __array__(self, dtype=None, copy=None):
            (x * 3.0).sum().backward()
            ad._core.compact()
            return np.array([1.0, 2.0, 3.0])

    z = y * Busy() + ad.add(Busy(), y)
    x.grad = None
    z.sum().backward()
    assert x.grad.tolist() == [4.0, 6.0, 8.0]


# Values that are not finite.


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v, 2.0], lambda v: np.full(2000, v)])
def test_values_that_are_not_finite_flow_through_as_in_numpy(bad, wrap):
    value = np.array(wrap(bad))
    x = leaf(value)
    with np.errstate(all="ignore"):
        y = ad.exp(x) * x + ad.tanh(x)
        want = np.exp(value) * value + np.tanh(value)
        assert np.array_equal(y.detach().numpy(), want, equal_nan=True)
        y.sum().backward()
        slope = np.exp(value) * (1 + value) + 1 - np.tanh(value) ** 2
    got = x.grad.numpy()
    assert np.array_equal(np.isnan(got), np.isnan(slope))
    np.testing.assert_allclose(got[np.isfinite(slope)], slope[np.isfinite(slope)])


def test_a_cotangent_that_is_not_finite_is_passed_on():
    x = leaf([1.0, 2.0])
    (x * 3.0).backward(np.array([math.nan, math.inf]))
    assert np.isnan(x.grad[0].item())
    assert x.grad[1].item() == math.inf


def test_division_by_zero_follows_numpy():
    x = leaf([0.0, 1.0])
    with np.errstate(all="ignore"):
        y = 1.0 / x
        assert y.tolist() == [math.inf, 1.0]
        y.sum().backward()
    assert x.grad.tolist() == [-math.inf, -1.0]
    s = leaf(0.0)
    (1.0 / s).backward()
    assert s.grad.item() == -math.inf


# Empty arrays.

EMPTY = {
    "sum": lambda x: x.sum(),
    "elementwise": lambda x: (ad.exp(x) * x + 1.0).sum(),
    "broadcast": lambda x: (x * np.ones((3, 1, 1))).sum(),
    "where": lambda x: ad.where(x > 0, x, 1.0).sum(),
    "matmul": lambda x: (x.reshape(0, 4) @ np.ones((4, 2))).sum(),
    "inner matmul": lambda x: (x.reshape(4, 0) @ np.ones((0, 2))).sum(),
    "concatenate": lambda x: ad.concatenate([x.ravel(), x.ravel() * 2.0]).sum(),
    "index": lambda x: x.ravel()[[]].sum(),
    "prod": lambda x: x.prod(),
    "reshape": lambda x: x.reshape(0, 3, 2).sum(),
    "cast": lambda x: x.astype(ad.float32).sum(),
}


@pytest.mark.parametrize("dtype", [ad.float64, ad.float32])
@pytest.mark.parametrize("name", EMPTY)
def test_empty_arrays_have_empty_gradients(name, dtype):
    x = ad.tensor(np.zeros((2, 0), dtype), requires_grad=True)
    y = EMPTY[name](x)
    assert y.shape == ()
    y.backward()
    assert x.grad.shape == (2, 0)
    assert x.grad.dtype == dtype
    (g,) = ad.autograd.grad(EMPTY[name](x), x, create_graph=True)
    assert g.shape == (2, 0)


def test_an_empty_tensor_is_swept_with_an_empty_cotangent():
    x = leaf([])
    (x * 2.0).backward([])
    assert x.grad.shape == (0,)
    with pytest.raises(ValueError, match="zero-size|empty|max"):
        ad.max(x)
