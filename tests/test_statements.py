"""Functions of NumPy that are one call of a primitive, stated when a sweep needs it."""

import numpy as np
import pytest

import fastad as ad
from fastad import _core, numpy_api, statements

BIG = np.linspace(0.5, 2.0, 3000).reshape(1500, 2)
MASK = np.arange(1500) % 3 == 0
PLACES = np.arange(1500)[::7]


def leaf(value, dtype=float):
    return ad.tensor(np.array(value, dtype), requires_grad=True)


CALLS = {
    "take": lambda xp, x, c: xp.take(x, PLACES, 0),
    "take of the flat": lambda xp, x, c: xp.take(x, [3, -1, 3]),
    "take one": lambda xp, x, c: xp.take(x, 5),
    "compress": lambda xp, x, c: xp.compress(MASK, x, 0),
    "delete": lambda xp, x, c: xp.delete(x, [1, 5], 0),
    "repeat": lambda xp, x, c: xp.repeat(x, 3, 0),
    "repeat each": lambda xp, x, c: xp.repeat(x, np.arange(1500) % 4, axis=0),
    "tile": lambda xp, x, c: xp.tile(x, (2, 1, 3)),
    "concatenate": lambda xp, x, c: xp.concatenate([c, x, x]),
    "concatenate flat": lambda xp, x, c: xp.concatenate([x, c[:3]], None),
    "vstack": lambda xp, x, c: xp.vstack((x, c)),
    "hstack": lambda xp, x, c: xp.hstack((c, x)),
    "dstack": lambda xp, x, c: xp.dstack((x, c)),
    "column_stack": lambda xp, x, c: xp.column_stack((x[:, 0], c)),
    "array": lambda xp, x, c: xp.array([x, x], **({} if xp is ad else {"like": x})),
    "inner": lambda xp, x, c: xp.inner(x[:9], c[:7]),
    "convolve": lambda xp, x, c: xp.convolve(x[:9, 0], c[:4, 1], "same"),
    "correlate": lambda xp, x, c: xp.correlate(x[:9, 0], c[:4, 1]),
    "einsum": lambda xp, x, c: xp.einsum("ij,kj->i", x, c),
    "trace": lambda xp, x, c: xp.trace(x, -1),
    "diagflat": lambda xp, x, c: xp.diagflat(x[:4, 0], 1),
    "cumulative_sum": lambda xp, x, c: xp.cumulative_sum(x, axis=0),
    "accumulate": lambda xp, x, c: np.add.accumulate(x, 1),
    "polyadd": lambda xp, x, c: xp.polyadd(x[:9, 0], c[:4, 0]),
    "polysub": lambda xp, x, c: xp.polysub(c[:4, 0], x[:9, 0]),
    "polyint": lambda xp, x, c: xp.polyint(x[:9, 0], 2),
    "piecewise": lambda xp, x, c: xp.piecewise(
        x, [x < 1.0, x > 0.8], [lambda v: v * v, lambda v: -v, 3.0]),
}
if not hasattr(np, "cumulative_sum"):
    del CALLS["cumulative_sum"]


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_values_are_numpys_and_gradients_those_of_a_trace(dtype):
    """A trace records the primitives themselves; the second operand is long and constant."""
    start, constant = BIG.astype(dtype), BIG[::-1].astype(dtype).copy()
    for name, call in CALLS.items():
        def loss(x, xp=np, call=call):
            y = call(xp, x, constant)
            weights = np.cos(np.arange(y.size, dtype=dtype)).reshape(y.shape)
            return (y * y * weights).sum()

        want = ad.compile(loss).value_and_grad(start)[1]
        for xp in (np, ad):
            x = leaf(start, dtype)
            y = call(xp, x, ad.tensor(constant) if xp is ad else constant)
            if name not in ("array", "piecewise"):
                values = call(np, start, constant)
                assert (y.dtype, y.shape) == (values.dtype, values.shape), name
                np.testing.assert_array_equal(y.detach().numpy(), values, err_msg=name)
            loss(x, xp).backward()
            rtol, atol = (1e-12, 1e-12) if dtype is float else (2e-4, 1e-3)
            np.testing.assert_allclose(x.grad.numpy(), want, rtol, atol, err_msg=name)


def test_tangents_and_second_derivatives_are_those_of_a_trace():
    start = BIG[:9]
    calls = {name: call for name, call in CALLS.items()
             if name in ("tile", "inner", "convolve", "correlate", "diagflat", "polyint", "polyadd",
                         "concatenate", "einsum", "trace", "take one", "repeat", "vstack")}
    assert len(calls) == 13
    direction = np.sin(np.arange(18.0)).reshape(9, 2)
    for name, call in calls.items():
        def loss(x, call=call):
            y = call(np, x, start)
            return (y * y * y).sum()

        _, slope = ad.jvp(loss, (ad.tensor(start),), (ad.tensor(direction),))
        x = leaf(start)
        (g,) = ad.autograd.grad(loss(x), x, create_graph=True)
        (h,) = ad.autograd.grad((g * direction).sum(), x)
        program = ad.compile(loss)
        np.testing.assert_allclose(slope.item(), (g.detach().numpy() * direction).sum(), rtol=1e-12)
        np.testing.assert_allclose(h.numpy(), program.hvp(start, direction), rtol=1e-10,
                                   err_msg=name)


def test_what_a_call_was_given_may_change_before_the_sweep():
    places, counts, mask = np.array([0, 2]), np.array([1, 2, 0]), np.array([True, False, True])
    listed = [0, 1]
    x = leaf([1.0, 2.0, 3.0])
    y = (np.take(x, places).sum() + 10.0 * np.repeat(x, counts).sum()
         + 100.0 * np.compress(mask, x).sum() + 1000.0 * np.delete(x, listed).sum())
    places[:], counts[:], mask[:], listed[1] = 1, 5, False, 2
    y.backward()
    assert x.grad.tolist() == [111.0, 20.0, 1101.0]


def test_options_that_a_statement_does_not_hold_for_are_looked_at():
    x = leaf(np.eye(3))
    for call in (lambda: np.trace(x, 0, 0, 1, int), lambda: np.trace(x, dtype=int),
                 lambda: np.add.accumulate(x, 0, int)):
        with pytest.raises(TypeError, match="would lose the gradient"):
            call()
    assert np.concatenate([x, x], dtype=np.float32).dtype == np.float32
    assert np.concatenate([x, np.ones((1, 3), np.float32)]).requires_grad
    assert np.inner(x, 2.0).requires_grad and np.inner(x[0], x[1].astype("float32")).requires_grad
    if hasattr(np, "cumulative_sum"):
        assert np.cumulative_sum(x[0], include_initial=True).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert np.polyint(x[0], 1, 5.0).tolist()[-1] == 5.0
    out = ad.zeros(2)
    assert np.take(x[0], [0, 1], 0, out) is out and out.tolist() == [1.0, 0.0]
    out.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 0.0], [0.0] * 3, [0.0] * 3]
    other = ad.zeros((6, 3))
    assert np.concatenate([x, x], out=other) is other and other.requires_grad


def test_functions_that_only_read_leave_the_values_alone():
    start = BIG[:40].copy()
    for x in (ad.tensor(start), leaf(start)):
        for call in CALLS.values():
            if call is not CALLS["compress"] and call is not CALLS["repeat each"] and (
                    call is not CALLS["take"]):
                call(np, x, start)
        np.testing.assert_array_equal(x.detach().numpy(), start)
        assert not x.detach().numpy().flags.writeable


def test_a_statement_that_names_another_primitive_is_found_out():
    @statements.states(np.take, numpy_api.GETITEM)
    def wrong(a, indices, axis=None, out=None, mode="raise"):
        return numpy_api.GETITEM, (a,), {"index": (0,), "unique": True}

    x = leaf([1.0, 2.0, 3.0])
    y = wrong(x, [2])
    assert y.tolist() == [3.0]                  # NumPy's value
    with pytest.raises((ValueError, AssertionError)):
        y.backward(np.ones(1))
        assert x.grad.tolist() == [0.0, 0.0, 1.0]


def test_recorded_calls_name_the_function():
    x = leaf([1.0, 2.0])
    assert repr(np.take(x, [0]).grad_fn) == "<take>"
    assert repr(np.sort(x).grad_fn) == "<sort>"
    assert repr(np.concatenate([x, x]).grad_fn) == "<concatenate>"
    assert isinstance(ad.take, _core.Stated) and repr(ad.take) == "<function take of NumPy>"
