"""Item assignment, functions that write into tensors, and views that share memory."""


import numpy as np
import pytest

import fastad as ad


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
