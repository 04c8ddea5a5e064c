"""Item assignment, functions that write into tensors, and views that share memory."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from conftest import with_failing_allocations

import fastad as ad
from fastad import _core


def leaf(value):
    return ad.tensor(value, requires_grad=True)


def numbers(a):
    return a.detach().numpy() if isinstance(a, ad.Tensor) else np.asarray(a)


def assert_same(got, want):
    got, want = numbers(got), np.asarray(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tobytes() == want.tobytes(), f"{got}\n{want}"


def differences(f, x, h=1e-6):
    """Central differences of a function of an array, element by element."""
    slopes = np.empty(x.shape)
    for k in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[k] = h
        slopes[k] = (f(x + step) - f(x - step)) / (2 * h)
    return slopes


# Random programs: the same statements on tensors and on arrays.

INDICES = {
    1: [0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(0, 3, 2), ..., None,
        [0, 1], [0, 0], np.array([1, -1, 1]), (..., slice(1, 2)), slice(2, 2)],
    2: [0, -1, (0, 1), (slice(None), 0), (slice(None), slice(None, None, -1)), (1, slice(None)),
        slice(None, None, 2), (..., 0), [1, 0, 1], ([0, 1], [1, 1]), (slice(None), [0, 0]), None,
        (None, 1), ..., (slice(0, 1), slice(1, None)), (0, [0, -1])],
    3: [0, (0, 1), (1, slice(None), 0), (..., slice(None, None, -1)), (slice(None), 1),
        ([0, 0], slice(None), 1), (0, 0, 0), ([0, 1], [0, 0], [1, 1]), (slice(None), [0, 1, 0])],
}
VIEWS = {
    "T": lambda xp, a: a.T,
    "swapaxes": lambda xp, a: xp.swapaxes(a, 0, -1),
    "ravel": lambda xp, a: xp.ravel(a),
    "reshape": lambda xp, a: a.reshape(a.shape[::-1]),
    "expand_dims": lambda xp, a: xp.expand_dims(a, 1),
    "squeeze": lambda xp, a: xp.squeeze(a) if a.size > 1 else a,
    "flip": lambda xp, a: xp.flip(a, -1),
    "split": lambda xp, a: xp.array_split(a, 2)[0],
    "row": lambda xp, a: next(iter(a)) if a.ndim > 1 and len(a) else a,
    "moveaxis": lambda xp, a: xp.moveaxis(a, -1, 0),
    "reshape F": lambda xp, a: xp.reshape(a, (-1,), order="F"),
    "broadcast_to": lambda xp, a: xp.broadcast_to(a, (2, *a.shape)),
    "diagonal": lambda xp, a: xp.diagonal(a) if a.ndim > 1 else a,
    "atleast_2d": lambda xp, a: xp.atleast_2d(a),
    "copy": lambda xp, a: a.copy(),
}


class Statements:
    """Statements drawn at random, to be run on arrays of either kind."""

    def __init__(self, seed, length):
        self.length, self.seed = length, seed

    def run(self, x, compare=None):
        """Return a number that depends on what `x` was used for.

        `compare` is told all arrays after each statement.
        """
        rng = np.random.default_rng(self.seed)
        xp = ad if isinstance(x, ad.Tensor) else np
        arrays = [xp.zeros((3, 4)), xp.ones(5), xp.arange(12.0).reshape(2, 3, 2) * 1.0, x * 1.0]
        total = 0.0
        for _ in range(self.length):
            total = total + self.statement(rng, xp, arrays, x)
            if compare is not None:
                compare(arrays)
        for a in arrays:
            total = total + (a * np.cos(np.arange(float(a.size))).reshape(a.shape)).sum()
        return total

    def statement(self, rng, xp, arrays, x):
        kind = rng.choice(["view", "assign", "augment", "mask", "read", "out", "at"],
                          p=[0.3, 0.27, 0.14, 0.07, 0.12, 0.05, 0.05])
        a = arrays[rng.integers(len(arrays))]
        number = x[rng.integers(3)] * float(rng.normal())
        choice = INDICES.get(a.ndim, [...])
        index = choice[rng.integers(len(choice))]
        which = rng.choice(list(VIEWS))
        try:
            found = a[index]
        except IndexError:
            return 0.0
        if kind == "view":
            new = VIEWS[which](xp, a) if rng.random() < 0.6 else found
            if xp is np and not np.shares_memory(new, a):
                new = new.copy()        # in C order, as all tensors are that are no views
            if getattr(new, "ndim", 0) and new.ndim < 4 and 0 < new.size < 60:
                arrays.append(new)
                if len(arrays) > 9:
                    del arrays[rng.integers(4, len(arrays))]
        elif not _writable(a):
            pass
        elif kind == "assign":
            shape = np.shape(found)
            value = number
            if rng.random() < 0.6 and shape:
                wide = xp.ones(shape) * number
                value = wide + np.arange(float(wide.size)).reshape(shape)
            elif rng.random() < 0.3:
                value = a[tuple([slice(None, None, -1)] * a.ndim)]
                index = ...
            a[index] = value
        elif kind == "augment":
            if rng.random() < 0.5:
                a[index] += number
            else:
                a *= 0.5
                a += number
        elif kind == "mask":
            a[a > 1.0] = number
        elif kind == "read":
            return (found * found).sum() * 0.1
        elif kind == "out":
            xp.multiply(a, 0.5, out=a) if xp is np else np.multiply(a, 0.5, out=a)
        elif kind == "at":
            np.add.at(a, index, number)
        return 0.0


def _writable(a):
    if isinstance(a, np.ndarray):
        return a.flags.writeable
    try:
        a[tuple([slice(0, 0)] * a.ndim)] = 0.0
    except ValueError as error:
        assert "read-only" in str(error)
        return False
    return True


@pytest.mark.parametrize("seed", range(100))
def test_random_statements_give_numpys_values_in_every_alias_and_right_gradients(seed):
    statements = Statements(seed, 25)
    start = np.array([0.3, -1.2, 0.8])
    want, got = [], []
    value = statements.run(start, lambda arrays: want.append([a.copy() for a in arrays]))
    x = leaf(start)
    y = statements.run(x, lambda arrays: got.append([numbers(a) for a in arrays]))
    for k, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-14, err_msg=f"statement {k}")
    np.testing.assert_allclose(y.item(), value, rtol=1e-12)
    (slope,) = ad.autograd.grad(y, x, create_graph=True)
    np.testing.assert_allclose(numbers(slope), differences(statements.run, start), rtol=1e-5,
                               atol=1e-5)
    direction = np.array([0.5, -0.25, 1.0])
    curve = None
    if slope.requires_grad:         # else the statements are linear in x
        (curve,) = ad.autograd.grad((slope * direction).sum(), x, retain_graph=True,
                                    allow_unused=True)
    y.backward()
    np.testing.assert_allclose(numbers(x.grad), numbers(slope), rtol=1e-12, atol=1e-12)
    h = 1e-4

    def gradient(at):
        at = leaf(at)
        statements.run(at).backward()
        return at.grad.numpy()

    along = (gradient(start + h * direction) - gradient(start - h * direction)) / (2 * h)
    np.testing.assert_allclose(0.0 if curve is None else numbers(curve), along, rtol=1e-4,
                               atol=1e-4)
    tangent = ad.jvp(statements.run, (start,), (direction,))[1]
    np.testing.assert_allclose(numbers(tangent), numbers(slope) @ direction, rtol=1e-10, atol=1e-10)


def test_the_comparison_with_numpy_notices_a_view_that_is_a_copy(monkeypatch):
    monkeypatch.setitem(VIEWS, "T", lambda xp, a: a.T.copy() if xp is ad else a.T)
    monkeypatch.setitem(VIEWS, "flip", lambda xp, a: +xp.flip(a, -1) if xp is ad else a[..., ::-1])
    with pytest.raises(AssertionError):
        for seed in range(40):
            test_random_statements_give_numpys_values_in_every_alias_and_right_gradients(seed)


# Every kind of index through every kind of view.

SOURCES = {
    "itself": lambda xp, a: a,
    "transpose": lambda xp, a: a.T,
    "slice": lambda xp, a: a[1:, ::-1],
    "row": lambda xp, a: a[1],
    "reshaped": lambda xp, a: a.reshape(2, 6),
    "flat": lambda xp, a: xp.ravel(a),
    "of a view": lambda xp, a: a.T[::2].T[:, None],
    "newaxis": lambda xp, a: a[None],
    "column": lambda xp, a: a[:, 1],
}


def targets(part):
    """Indices into an array, basic and not."""
    mask = np.zeros(part.shape, bool)
    mask.ravel()[::2] = True
    return [..., 0, slice(None), slice(None, None, -1), (0,) * part.ndim, mask, [0, -1], [0, 0],
            (..., None), (..., [0, 0]), np.array(0), (slice(0, 1), ...), True, False]


@pytest.mark.parametrize("dtype", [float, np.float32, int, bool])
@pytest.mark.parametrize("source", SOURCES)
def test_assignment_through_a_view_is_numpys(source, dtype):
    values = (np.arange(12.0).reshape(3, 4) % 5).astype(dtype)
    for index in targets(SOURCES[source](np, values)):
        for value in (7, 2.6, np.float32(1.5), np.arange(1.0), "same"):
            a, t = values.copy(), ad.tensor(values)
            part, piece = SOURCES[source](np, a), SOURCES[source](ad, t)
            others = [t[1:], t.T, t.reshape(-1)]
            shape = np.shape(part[index])
            if isinstance(value, str):
                value = np.arange(np.prod(shape)).reshape(shape) * 1.5
            elif np.ndim(value) and not shape:
                continue                # NumPy takes arrays for elements in some releases only
            part[index] = value
            piece[index] = value
            assert_same(t, a)
            assert_same(piece, part)
            for got, want in zip(others, (a[1:], a.T, a.reshape(-1)), strict=True):
                assert_same(got, want)


def weighted(t):
    return (t * np.cos(np.arange(float(t.size))).reshape(t.shape)).sum()


@pytest.mark.parametrize("source", SOURCES)
def test_gradients_of_assignment_through_a_view(source):
    start = np.linspace(-1.0, 1.0, 12).reshape(3, 4)

    for index in targets(SOURCES[source](np, start)):
        shape = np.shape(SOURCES[source](np, start)[index])
        weights = np.arange(1.0, np.prod(shape) + 1).reshape(shape)

        def f(x, index=index, weights=weights):
            xp = ad if isinstance(x, ad.Tensor) else np
            y = x * x
            part = SOURCES[source](xp, y)
            part[index] = x[0, 1] * weights
            part[index] += x[2, 2] * x[0, 0]
            return weighted(y) + weighted(part * part)

        x = leaf(start)
        y = f(x)
        np.testing.assert_allclose(y.item(), f(start), rtol=1e-13)
        (slope,) = ad.autograd.grad(y, x, create_graph=True)
        np.testing.assert_allclose(numbers(slope), differences(f, start), rtol=1e-5, atol=1e-5)
        (twice,) = ad.autograd.grad(weighted(slope), x)
        h = 1e-4
        want = np.empty_like(start)
        for k in np.ndindex(start.shape):
            step = np.zeros_like(start)
            step[k] = h
            ends = [leaf(start + step), leaf(start - step)]
            for end in ends:
                f(end).backward()
            want[k] = weighted(ends[0].grad.numpy() - ends[1].grad.numpy()) / (2 * h)
        np.testing.assert_allclose(numbers(twice), want, rtol=1e-4, atol=1e-4)


def test_the_gradient_goes_to_the_last_of_the_values_for_one_element():
    v = leaf([1.0, 2.0, 3.0, 4.0])
    y = ad.zeros(3)
    y[[0, 2, 0, 2]] = v
    assert y.tolist() == [3.0, 0.0, 4.0]
    y.sum().backward()
    assert v.grad.tolist() == [0.0, 0.0, 1.0, 1.0]


# Functions that write.

WRITERS = {
    "copyto": lambda xp, a, v: np.copyto(a, v[:4]),
    "copyto where": lambda xp, a, v: np.copyto(a, v[0], where=np.eye(3, 4) > 0),
    "put": lambda xp, a, v: np.put(a, [0, -1, 5, 5], v[:3]),
    "put wrap": lambda xp, a, v: np.put(a, [13, -14], v[1], mode="wrap"),
    "put clip": lambda xp, a, v: np.put(a, [-3, 40], v[1:3], mode="clip"),
    "place": lambda xp, a, v: np.place(a, np.arange(12).reshape(3, 4) % 2 == 0, v[:4]),
    "putmask": lambda xp, a, v: np.putmask(a, np.arange(12).reshape(3, 4) % 3 > 0, v[:5]),
    "fill_diagonal": lambda xp, a, v: np.fill_diagonal(a, v[:2]),
    "fill_diagonal wrap": lambda xp, a, v: np.fill_diagonal(a.T, v[0], wrap=True),
    "put_along_axis": lambda xp, a, v: np.put_along_axis(
        a, np.array([[3, 0], [1, 1], [0, 2]]), v[:6].reshape(3, 2), 1),
    "put_along_axis flat": lambda xp, a, v: np.put_along_axis(a, np.array([3, 0]), v[:2], None),
    "fill": lambda xp, a, v: a[1].fill(v[2]),
    "sort": lambda xp, a, v: a.sort(0),
    "sort a view": lambda xp, a, v: a[1:, ::-1].sort(),
    "partition": lambda xp, a, v: a.partition(2, axis=1),
    "put method": lambda xp, a, v: a.put([1, 2], v[0]),
    "add.at": lambda xp, a, v: np.add.at(a, ([0, 0, 1], [1, 1, 2]), v[:3]),
    "subtract.at": lambda xp, a, v: np.subtract.at(a, [1, 1], v[:4]),
    "multiply.at": lambda xp, a, v: np.multiply.at(a, ([0, 0, 1], [1, 1, 2]), v[:3]),
    "divide.at": lambda xp, a, v: np.divide.at(a.T, [0, 2, 0], v[0]),
    "maximum.at": lambda xp, a, v: np.maximum.at(a, [0, 0], v[:4]),
    "negative.at": lambda xp, a, v: np.negative.at(a, [0, 0, 1]),
    "add.at a slice": lambda xp, a, v: np.add.at(a, slice(0, 2), v[:4]),
    "out of a ufunc": lambda xp, a, v: np.multiply(a, v[:4], out=a),
    "out of a view": lambda xp, a, v: np.exp(v[:4], out=a[1]),
    "out broadcast": lambda xp, a, v: np.add(v[:4], 1.0, out=a),
    "out where": lambda xp, a, v: np.add(a, v[0], out=a, where=np.eye(3, 4) > 0),
    "out of divmod": lambda xp, a, v: np.divmod(a + v[0], 0.3, out=(a, a.copy())),
    "out of a sum": lambda xp, a, v: np.sum(v[:12].reshape(3, 4), axis=0, out=a[2]),
    "out by place": lambda xp, a, v: np.cumsum(v[:4], 0, None, a[0]),
    "out of concatenate": lambda xp, a, v: np.concatenate([v[:2], v[:2]], out=a[0]),
    "out of prod": lambda xp, a, v: xp.prod(v[:12].reshape(3, 4), axis=0, out=a[2]),
    "in place": lambda xp, a, v: a[1].__imul__(v[:4]),
    "in place matrix": lambda xp, a, v: a[:, :3].__imatmul__(v[:9].reshape(3, 3)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_functions_that_write_are_numpys_and_differentiable(name):
    start = np.sin(np.arange(24.0)) + 0.1

    def f(v, watch=None):
        xp = ad if isinstance(v, ad.Tensor) else np
        a = v[12:].reshape(3, 4) * 1.0
        other = a.T
        WRITERS[name](xp, a, v)
        if watch is not None:
            watch += [a, other]
        return weighted(a * a) + weighted(other)

    got, want, v = [], [], leaf(start)
    y = f(v, got)
    f(start, want)
    for mine, theirs in zip(got, want, strict=True):
        assert_same(mine, theirs)
    y.backward()
    np.testing.assert_allclose(numbers(v.grad), differences(f, start), rtol=1e-5, atol=1e-5)


def test_arrays_take_the_values_of_tensors_without_gradient():
    a = np.zeros(3)
    for library in (np, ad):
        library.copyto(a, ad.tensor([1.0, 2.0, 3.0]))
        library.put(a, [0], ad.tensor(7.0))
        assert a.tolist() == [7.0, 2.0, 3.0]
        with pytest.raises(TypeError, match="copyto: called with these arguments it has no grad"):
            library.copyto(a, leaf([1.0, 2.0, 3.0]))
    ad.fill_diagonal(b := np.zeros((2, 2)), 1.0)
    assert b.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_function_with_out_returns_that_tensor():
    a, x = ad.zeros(3), leaf([1.0, 2.0, 3.0])
    assert np.add(x, 1.0, out=a) is a
    assert ad.mean(x[None], 0, None, a) is a
    assert x.detach().clip(0.0, 2.0, out=a) is a


WRONG = {
    "out of another shape": (lambda x: np.add(x, 1.0, out=ad.zeros(2)), ValueError,
                             r"add: a result of shape \(3,\) does not fit out= of shape \(2,\)"),
    "out of less precision": (lambda x: np.add(x, 1.0, out=ad.zeros(3, dtype=int)), TypeError,
                              "add: cannot cast from float64 to int64"),
    "out is a leaf": (lambda x: np.add(x, 1.0, out=x), RuntimeError,
                      "add: out=: a leaf that requires gradients cannot be changed"),
    "view of a leaf": (lambda x: x[1:].fill(0.0), RuntimeError, "fill: a view of a leaf"),
    "diagonal": (lambda x: ad.diagonal(ad.eye(2)).fill(0.0), ValueError, "read-only"),
    "put beyond": (lambda x: np.put(ad.zeros(3), [3], 1.0), IndexError, "put: index 3 is out of"),
    "place nothing": (lambda x: np.place(ad.zeros(2), [True, False], []), ValueError,
                      "place: cannot insert from an empty array"),
    "putmask size": (lambda x: np.putmask(ad.zeros(2), [True], 1.0), ValueError, "same size"),
    "copyto": (lambda x: np.copyto(ad.zeros(2, dtype=int), x[:2]), TypeError,
               "copyto: cannot cast"),
    "mask": (lambda x: ad.zeros(3).__setitem__(np.array([True]), 1.0), IndexError,
             "setitem: boolean index did not match"),
    "fill": (lambda x: ad.zeros(3).fill(x), ValueError, "fill: wants one number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written_is_a_clear_error(name, tape_unchanged):
    act, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        act(leaf([1.0, 2.0, 3.0]))


# The rules of recording.


def test_under_no_grad_a_leaf_and_its_views_change_and_gradients_go_to_the_leaf():
    w = leaf([1.0, 2.0, 3.0])
    tail = w[1:]
    with ad.no_grad():
        w[0] = 5.0
        w[1:] *= 2.0
    assert (w.tolist(), tail.tolist()) == ([5.0, 4.0, 6.0], [4.0, 6.0])
    (w * w).sum().backward()
    assert w.grad.tolist() == [10.0, 8.0, 12.0]


def test_a_view_made_under_no_grad_is_not_written_while_recording():
    y = leaf([1.0, 2.0]) * 2.0
    with ad.no_grad():
        part = y[:1]
        part[0] = 7.0
    assert y.tolist() == [7.0, 4.0]
    with pytest.raises(RuntimeError, match="made under no_grad"):
        part[0] = 8.0


@pytest.mark.parametrize("write", [
    lambda y: y.__setitem__(0, 100.0), lambda y: y.__setitem__(slice(None), 100.0),
    lambda y: y.__imul__(3.0), lambda y: y[1:].fill(7.0)])
@pytest.mark.parametrize("needed", [False, True])
def test_a_write_under_no_grad_to_a_result_changes_its_value_and_not_its_gradient(write, needed):
    x = leaf([1.0, 2.0])
    y = x * 3.0
    z = (y * y).sum() if needed else 0.0
    with ad.no_grad():
        write(y)
    (y.sum() + z).backward()
    assert x.grad.tolist() == ([21.0, 39.0] if needed else [3.0, 3.0])


def test_what_was_computed_before_keeps_the_old_values():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 1.0
    kept, snapshot, copies = y * y, y.detach(), y.detach().numpy()
    y[1] = 50.0
    y[:1] = 40.0
    assert snapshot.tolist() == copies.tolist() == [1.0, 2.0, 3.0]
    (kept.sum() + y.sum()).backward()
    assert x.grad.tolist() == [2.0, 4.0, 7.0]


def test_hooks_stay_with_the_version_they_were_registered_on():
    x, seen = leaf([1.0, 2.0]), []
    y = x * 1.0
    y.register_hook(lambda g: seen.append(g.tolist()))
    y[0] = 5.0
    y.sum().backward()
    assert seen == [[0.0, 1.0]]


def test_a_value_with_a_gradient_makes_a_constant_part_of_the_graph():
    x, y = leaf(3.0), ad.zeros((2, 2))
    row = y[1]
    assert not row.requires_grad
    y[1, 0] = x * x
    assert row.requires_grad
    row.sum().backward()
    assert x.grad.item() == 6.0


READERS = {
    "np.sum": np.sum, "np.mean": np.mean, "np.max": np.max, "ad.sum": ad.sum,
    "method": lambda t: t.sum(),
    "list": lambda t: np.concatenate([t, t]).sum(), "tuple": lambda t: np.vstack((t, t)).sum(),
    "items": lambda t: np.stack([t[0, 0], t[1, 0]]).sum(),
    "ufunc": lambda t: np.multiply(t, 2.0)[1, 0],
    "method of a ufunc": lambda t: np.add.reduce(t).sum(), "linalg": np.linalg.norm,
    "keyword": lambda t: np.average([1.0, 2.0], weights=t[:, 0]),
}


@pytest.mark.parametrize("name", READERS)
def test_functions_see_that_a_view_of_constants_was_given_a_value_with_a_gradient(name):
    read = READERS[name]

    def f(x):
        view = ad.asarray(np.array([[3.0, 4.0]])).reshape(-1, 1)
        view *= x
        return read(view)

    def same(x):
        return read(ad.tensor([[3.0], [4.0]]) * ad.reshape(x, (-1, 1)))

    x = np.array([2.0])
    if name == "keyword":       # which does not depend on x
        f, same = (lambda x, g=g: g(x) * x[0] for g in (f, same))
    want = ad.grad(same)(x)
    assert want[0] != 0.0
    np.testing.assert_allclose(ad.grad(f)(x), want, rtol=1e-14)
    for to in (float, memoryview):
        view = ad.asarray(np.array([[3.0]])).reshape(-1)
        view *= ad.tensor([2.0], requires_grad=True)
        if to is float:
            assert float(view) == 6.0
        else:
            with pytest.raises((TypeError, BufferError)):
                to(view)


def test_writing_one_part_into_another_that_overlaps():
    x = leaf(np.arange(5.0))
    y, twin = x * 1.0, np.arange(5.0)
    for a in (y, twin):
        a[1:] = a[:-1]
        a[::-1] = a
    assert_same(y, twin)
    weighted(y).backward()
    c = np.cos(np.arange(5.0))
    assert x.grad.tolist() == pytest.approx([c[4] + c[3], c[2], c[1], c[0], 0.0])


def test_a_view_is_pickled_and_copied_as_an_array_of_its_own():
    t = ad.arange(6.0)
    part = t[::2]
    t[0] = 9.0
    copies = [pickle.loads(pickle.dumps(part)), copy.deepcopy(part), copy.copy(part)]
    t[2] = 8.0
    assert [c.tolist() for c in copies] == [[9.0, 2.0, 4.0]] * 3
    assert part.tolist() == [9.0, 8.0, 4.0]


def test_a_view_keeps_its_tensor_and_cycles_through_views_are_collected(tape_unchanged):
    x = leaf([1.0, 2.0, 3.0])
    part = (x * 2.0)[1:]
    part[0] = x[0]
    assert part.tolist() == [1.0, 6.0]
    del part

    class Mark:
        pass

    mark = Mark()
    gone = weakref.ref(mark)
    y = x * 1.0
    view = y[1:]
    y.register_hook(lambda g, keep=(view, mark): None)
    del y, view, mark, x
    gc.collect()
    assert gone() is None


def test_failing_allocations_leave_every_alias_as_it_was(tape_unchanged):
    x = leaf(2.0)
    values = np.arange(600.0).reshape(20, 30)
    acts = {
        "number": lambda a: a.__setitem__((1, 2), x),
        "row": lambda a: a.__setitem__(1, x * np.ones(30)),
        "mask": lambda a: a.__setitem__(values > 5.0, x),
        "through a view": lambda a: a.T[3:].__imul__(x),
    }
    for act in acts.values():
        def prepare(act=act):
            state[:] = [ad.tensor(values) * 1.0]
            state.extend([state[0][1:], state[0].T])

        def unchanged(failures):
            assert_same(state[0], values)
            assert_same(state[1], values[1:])
            assert_same(state[2], values.T)

        state = []
        prepare()
        _, failures = with_failing_allocations(lambda act=act: act(state[0]), after=unchanged)
        assert failures > 0
        want = values.copy()
        if act is acts["number"]:
            want[1, 2] = 2.0
            assert_same(state[1], want[1:])
    state.clear()
    x = None


# Cost.


def chain(n, x, kind=None):
    y = ad.zeros(n)
    y = y.reshape(-1, 1)[:, 0] if kind == "view" else y
    y[0] = x
    for k in range(1, n):
        y[k] = ad.sin(y[k - 1]) * x
    return y


@pytest.mark.parametrize("kind", [None, "view"])
def test_n_assignments_cost_n_in_nodes_and_bytes(kind, tape_unchanged):
    sizes = []
    for n in (2000, 4000):
        x = leaf(0.9)
        before = _core.tape_stats()
        y = chain(n, x, kind).sum()
        after = _core.tape_stats()
        sizes.append(after["nodes"] - before["nodes"])
        assert after["array_bytes"] - before["array_bytes"] <= 3 * 8 * n
        assert after["large_bytes"] - before["large_bytes"] <= 4 * 8 * n + 20000
        (g,) = ad.autograd.grad(y, x, create_graph=True)
        assert _core.tape_stats()["large_bytes"] - before["large_bytes"] <= 10 * 8 * n + 40000
        (h,) = ad.autograd.grad(g, x)
        step = 1e-5
        ends = [leaf(0.9 + step), leaf(0.9 - step)]
        for end in ends:
            chain(n, end, kind).sum().backward()
        assert h.item() == pytest.approx((ends[0].grad.item() - ends[1].grad.item()) / (2 * step),
                                         rel=1e-5)
        x = y = g = h = ends = end = None
    assert sizes[1] <= 2.01 * sizes[0]


def test_rows_assigned_one_by_one_do_not_copy_the_matrix(tape_unchanged):
    n, x = 200, leaf(np.linspace(0.1, 1.0, 200))
    a = ad.zeros((n, 200))
    a[0] = x
    before = _core.tape_stats()["large_bytes"]
    for k in range(1, n):
        a[k] = a[k - 1] * 0.99 + x
    grown = _core.tape_stats()["large_bytes"] - before
    assert grown < 6 * n * 200 * 8
    a[-1].sum().backward()
    powers = (1 - 0.99**n) / 0.01
    assert x.grad.tolist() == pytest.approx([powers] * 200)


# Programs.

PROGRAMS = {
    "numbers": lambda x: chain(6, x[0]).sum() + x[1],
    "rows": lambda x: rows_of(x).sum(),
    "argument": lambda x: (x.__setitem__(0, x[1] * x[2]), x * x)[1].sum(),
    "mask": lambda x: masked(x).sum(),
    "indices": lambda x: indexed(x).sum(),
    "view": lambda x: through_a_view(x),
    "integers": lambda x: counted(x),
}


def rows_of(x):
    a = ad.zeros((4, 3))
    for k, row in enumerate(a):
        row[:] = x * float(k)
        row[0] += 1.0
    return a * a


def masked(x):
    y = x * 2.0
    y[y > 0.5] = 0.25
    return y * x


def indexed(x):
    y = ad.zeros(4)
    y[[0, 2, 0]] = x
    np.add.at(y, [1, 1, 3], x * x)
    return y * y


def through_a_view(x):
    y = x * 1.0
    part = y[1:]
    part *= x[0]
    y[2] += 3.0
    return (y * y).sum() + part.sum()


def counted(x):
    k = ad.zeros(3, dtype=int)
    k[1] = 2
    return (x * k).sum()


@pytest.mark.parametrize("name", [r["name"] for r in _core.table() if r["name"] != "where"])
def test_programs_differentiate_rows_whose_result_was_changed_in_place(name):
    row = next(r for r in _core.table() if r["name"] == name)
    of = getattr(ad, name)
    at = [np.array([0.3, 0.6]) * (hi - lo) + lo for lo, hi in row["intervals"]]

    def f(*xs):
        y = of(*xs)
        view = y[::-1]
        view += 1.0
        return (view * xs[0]).sum()

    every = tuple(range(len(at)))
    want = ad.grad(f, every)(*at)
    program = ad.compile(f)
    for _ in range(2):
        np.testing.assert_allclose(program.derived("grad", every)(*at), want, rtol=1e-12)



@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_assign_as_the_function_does(name):
    f = PROGRAMS[name]
    program = ad.compile(lambda x: f(x))
    points = [np.array([0.3, 0.8, -0.5]), np.array([0.2, 0.1, 0.7]), np.array([-0.4, 0.9, 0.35])]
    for at in points:
        given = at.copy()
        x = leaf(at)
        y = f(+x)
        y.backward()
        assert program(given) == y.item()
        assert given.tolist() == at.tolist()
        value, slope = program.value_and_grad(given)
        assert value == y.item()
        np.testing.assert_allclose(slope, numbers(x.grad), rtol=1e-12, atol=1e-14)
        u = leaf(at)
        (g,) = ad.autograd.grad(f(+u), u, create_graph=True)
        if g.requires_grad:
            (h,) = ad.autograd.grad(weighted(g), u, allow_unused=True)
            h = np.zeros(3) if h is None else numbers(h)
            np.testing.assert_allclose(program.hvp(given, np.cos(np.arange(3.0))), h, rtol=1e-10,
                                       atol=1e-12)
        np.testing.assert_allclose(program.jvp((given,), (np.ones(3),))[1], slope.sum(), rtol=1e-11)
    assert program.recordings == 1


def test_a_program_of_n_assignments_copies_nothing_n_times():
    n = 400
    program = ad.compile(lambda x: chain(n, x).sum())
    x = leaf(0.8)
    y = chain(n, x).sum()
    y.backward()
    for _ in range(2):
        value, slope = program.value_and_grad(0.8)
        assert value == y.item()
        assert slope == pytest.approx(x.grad.item(), rel=1e-12)
    plan = ad.compile(lambda x: chain(n, x).sum())
    plan(0.5)
    ((found,),) = plan._replay.plans.values() if hasattr(plan, "_replay") else ((None,),)
    if found is not None:
        assert found.describe()["arena_bytes"] < 4 * 8 * n


def test_a_function_may_change_its_argument_where_it_is_no_leaf():
    def f(x):
        x *= 2.0
        x[0] = x[1] * x[1]
        return (x * x).sum()

    at = np.array([1.0, 3.0])
    value, slope = ad.compile(f).value_and_grad(at)
    assert (value, slope.tolist()) == (36.0**2 + 36.0, [0.0, 4 * 16 * 27.0 + 24.0])
    with pytest.raises(RuntimeError, match="leaf"):
        ad.grad(f)(at)
    outer = ad.grad(lambda x: (ad.grad(f)(x * 1.0) * x).sum())(at)
    assert outer.tolist() == pytest.approx([0.0, 4 * 64 * 27.0 + 48.0])


def test_a_program_does_not_change_tensors_from_outside():
    w = ad.zeros(3)

    def f(x):
        w[0] = x
        return w.sum() * x

    program = ad.compile(f)
    with pytest.warns(ad.ProgramWarning, match="changes a tensor that was there before"):
        assert program(2.0) == 4.0
    assert w.tolist() == [2.0, 0.0, 0.0]
    assert program(3.0) == 9.0


def test_a_program_sees_what_an_outside_view_shows_now():
    w = ad.arange(4.0)
    part = w[1:3]
    program = ad.compile(lambda x: (part * x).sum())
    assert [program(2.0), program(2.0)] == [6.0, 6.0]
    w[1] = 10.0
    assert program(2.0) == 24.0
    assert program.recordings == 1


def test_a_tangent_reaches_the_last_of_several_nodes_that_add_to_one():
    # the gradient's own graph holds a sum that nobody needs, before the one that takes the buffer
    def loss(f):
        return (np.interp(np.array([0.5, 1.2]), np.arange(4.0), f, left=f[1] * 1.0) ** 2).sum()

    at, v, h = np.array([0.3, 0.7, 1.1, 2.0]), np.linspace(1.0, 2.0, 4), 1e-5
    slope = ad.grad(loss)
    _, tangent = ad.jvp(slope, (at,), (v,))
    expected = (slope(at + h * v) - slope(at - h * v)) / (2 * h)
    np.testing.assert_allclose(tangent, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.complex64])
def test_the_tapes_count_of_bytes_is_right_when_buffers_change_in_place(dtype):
    gc.collect()
    _core.compact()
    before = _core.tape_stats()["array_bytes"]
    x = ad.tensor(np.ones(1000, dtype), requires_grad=True)
    y = x * 1.0
    for k in range(50):
        y[k] = y[k + 1] * 2.0
    del x, y
    gc.collect()
    _core.compact()
    assert _core.tape_stats()["array_bytes"] == before


def test_the_method_cumprod_puts_its_result_into_out():
    x, y = ad.tensor([2.0, 3.0], requires_grad=True), ad.zeros(2)
    assert x.cumprod(0, None, y) is y and y.tolist() == [2.0, 6.0]
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 2.0]


# ---- views that are taken when they are read -----------------------------------------------------

SHOWN = {
    "transpose": lambda a: np.transpose(a),
    "transpose of three": lambda a: np.transpose(a.reshape(3, 2, 2), (1, 2, 0)),
    "moveaxis": lambda a: np.moveaxis(a, 0, 1),
    "swapaxes": lambda a: np.swapaxes(a, 0, 1),
    "rollaxis": lambda a: np.rollaxis(a, 1),
    "flip": lambda a: np.flip(a, 1),
    "flip both": lambda a: np.flip(a),
    "flipud": lambda a: np.flipud(a),
    "fliplr": lambda a: np.fliplr(a),
    "rot90": lambda a: np.rot90(a),
    "diagonal": lambda a: np.diagonal(a, 1),
    "diag": lambda a: np.diag(a, -1),
    "split": lambda a: np.split(a, 2, 1)[1],
    "array_split": lambda a: np.array_split(a, 2)[0],
    "broadcast_to": lambda a: np.broadcast_to(a, (2, 3, 4)),
    "broadcast_to a column": lambda a: np.broadcast_to(a[:, :1], (3, 2)),
    "broadcast_arrays": lambda a: np.broadcast_arrays(a[0], a)[0],
    "squeeze": lambda a: np.squeeze(a.reshape(3, 1, 4)),
    "expand_dims": lambda a: np.expand_dims(a, 1),
    "reshape": lambda a: np.reshape(a, (2, 6)),
    "reshape in F order": lambda a: np.reshape(a, (6, 2), order="F"),
    "ravel": lambda a: np.ravel(a),
    "atleast_3d": lambda a: np.atleast_3d(a),
    "of a view": lambda a: np.flip(np.transpose(a)),
    "of no elements": lambda a: np.flip(a[:, :0]),
}


@pytest.mark.parametrize("dtype", [float, np.float32, complex, int, bool])
def test_what_numpy_shows_of_a_tensor_follows_it_until_it_is_read_and_after(dtype):
    values = (np.arange(12.0).reshape(3, 4) % 5).astype(dtype)
    for name, show in SHOWN.items():
        a, t = values.copy(), ad.tensor(values)
        want, unread, read = show(a), show(t), show(t)
        assert (unread.shape, unread.dtype) == (want.shape, want.dtype), name
        assert_same(read, want)
        for k, place in enumerate([(0, 0), (2, 1), (1, 2), slice(1, 2)]):
            a[place] = t[place] = k
            assert_same(read, want)
        assert_same(unread, want)


@pytest.mark.parametrize("name", sorted({*SHOWN} - {"sliding windows", "diagonal", "diag"} - {
    name for name in SHOWN if name.startswith("broadcast")} - {"reshape in F order"}))
def test_what_numpy_shows_of_a_tensor_can_be_written_through_before_it_is_read(name):
    values = np.arange(12.0).reshape(3, 4)
    a, t = values.copy(), ad.tensor(values)
    want, shown = SHOWN[name](a), SHOWN[name](t)
    want[...] = shown[...] = -1.0
    want += 2.0
    shown += 2.0
    assert_same(t, a)
    assert_same(shown, want)


def test_what_names_an_element_twice_is_read_only():
    t = ad.zeros((3, 4))
    for name in ("broadcast_to", "broadcast_to a column", "broadcast_arrays", "diagonal", "diag"):
        with pytest.raises(ValueError, match="read-only"):
            SHOWN[name](t)[...] = 1.0


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("name", SHOWN)
def test_gradients_through_what_numpy_shows_of_a_tensor(name, kind):
    show = SHOWN[name]
    start = np.linspace(-1.0, 1.0, 12).reshape(3, 4).astype(kind)

    def loss(x):
        part = show(x * x)
        return (weighted(part * part) if part.size else (part * part).sum()).real

    x = leaf(start)
    (slope,) = ad.autograd.grad(loss(x), x, create_graph=True)
    np.testing.assert_allclose(slope.detach().numpy().real,
                               differences(lambda v: loss(v + 0.0 * start), start.real),
                               rtol=1e-5, atol=1e-5)
    want = ad.grad(lambda v: ad.grad(loss)(v).real.sum())(ad.tensor(start))
    (twice,) = ad.autograd.grad(slope.real.sum(), x)
    np.testing.assert_allclose(twice.numpy(), want.numpy(), rtol=1e-12)


def test_a_view_that_nobody_has_read_has_gradients_of_its_own():
    x = leaf(np.arange(12.0).reshape(3, 4))
    y = x * x
    turned = np.transpose(y)
    rows = [turned[k] for k in range(4)]
    loss = sum([(row * row).sum() for row in rows]) + turned[1, 1] + np.flip(turned).sum()
    (bar,) = ad.autograd.grad(loss, turned)
    want = 2.0 * turned.detach().numpy() + 1.0
    want[1, 1] += 1.0
    assert_same(bar, want)


def test_a_stale_view_is_followed_where_numpy_computes():
    x = leaf([3.0, 1.0, 2.0])
    y = x * x
    rest = y[1:]
    y[0] = 7.0
    assert np.sort(rest).requires_grad          # before anybody has looked at `rest`
    turned = np.flip(x * x)
    assert turned.requires_grad and np.sort(turned).requires_grad
    np.sort(turned)[2].backward()
    assert x.grad.tolist() == [6.0, 0.0, 0.0]
    with ad.no_grad():
        apart = np.flip(x * x)
    assert not apart.requires_grad and not (apart * 1.0).requires_grad


def test_a_view_read_first_in_a_program_is_one_from_outside():
    x = leaf(np.arange(6.0).reshape(2, 3))
    square = x * x
    turned = np.transpose(square)
    program = ad.compile(lambda a: (a * turned).sum())
    a = leaf(np.ones((3, 2)))
    for _ in range(2):
        y = program(a)
        assert y.item() == 55.0
        bars = ad.autograd.grad(y, [a, x, turned], retain_graph=True)
        assert_same(bars[0], np.arange(6.0).reshape(2, 3).T ** 2)
        assert_same(bars[1], 2.0 * np.arange(6.0).reshape(2, 3))
        assert_same(bars[2], np.ones((3, 2)))


def test_views_of_long_tensors_take_no_memory_before_they_are_read():
    t = ad.ones((500, 500)) * 2.0
    before = _core.tape_stats()["large_bytes"]
    views = [np.transpose(t), np.flip(t), *np.split(t, 10, 1), np.broadcast_to(t, (9, 500, 500))]
    assert _core.tape_stats()["large_bytes"] == before
    views[0].tolist()                           # this one is read
    assert _core.tape_stats()["large_bytes"] >= before + 2_000_000


def test_a_view_for_which_memory_is_short_can_be_read_later():
    x = leaf(np.arange(600.0).reshape(20, 30))
    turned = np.flip(np.transpose(x), 0)
    y, failures = with_failing_allocations(lambda: turned * turned)
    assert failures > 1
    y.sum().backward()
    assert_same(turned.detach(), np.arange(600.0).reshape(20, 30).T[::-1])
    assert_same(x.grad, 2.0 * np.arange(600.0).reshape(20, 30))


def test_a_leaf_that_shows_what_became_part_of_a_graph_leaves_recording_on():
    root = ad.zeros(3)
    part = root[1:].requires_grad_()
    root[0] = leaf(1.0)
    with pytest.raises(RuntimeError, match="has become part of a graph"):
        part * 2.0
    assert ad.is_grad_enabled()
