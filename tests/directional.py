"""Derivatives of functions of real and complex arrays, against differences along directions."""

import numpy as np

import fastad as ad


def vector(*shape):
    def make(rng, kind):
        a = rng.normal(size=shape)
        return a + 1j * rng.normal(size=shape) if kind == "c" else a
    return make


def several(result):
    return list(result) if isinstance(result, (list, tuple)) else [result]


def weights(k, shape):
    rng = np.random.default_rng(k)
    return rng.normal(size=shape), rng.normal(size=shape)


def loss_of(function, xp):
    """A real loss with curvature in every result, in real and imaginary parts."""
    def loss(*xs):
        total = 0.0
        for k, y in enumerate(several(function(xp, *xs))):
            p, q = weights(k, y.shape)
            total = total + xp.sum(p * xp.real(y) + 0.3 * xp.real(y) ** 2)
            if y.dtype.kind == "c":
                total = total + xp.sum(q * xp.imag(y) + 0.2 * xp.imag(y) * xp.real(y))
        return total
    return loss


def directions(arrays, seed):
    rng = np.random.default_rng(seed)
    return [vector(*a.shape)(rng, a.dtype.kind) for a in arrays]


def gradients(loss, arrays):
    xs = [ad.tensor(a, requires_grad=True) for a in arrays]
    found = ad.autograd.grad(loss(*xs), xs, allow_unused=True)
    return [np.zeros(x.shape) if g is None else g.numpy() for g, x in zip(found, xs, strict=True)]


def inner(xs, ys):
    return sum(np.sum(np.conj(x) * y).real for x, y in zip(xs, ys, strict=True) if x is not None)


def moved(arrays, step, direction):
    return [a + step * d for a, d in zip(arrays, direction, strict=True)]


def difference(f, arrays, direction, h):
    """The slope of f along a direction, of fourth order."""
    near = f(*moved(arrays, h, direction)) - f(*moved(arrays, -h, direction))
    far = f(*moved(arrays, 2 * h, direction)) - f(*moved(arrays, -2 * h, direction))
    return (8 * near - far) / (12 * h)


def slope(loss, arrays, direction):
    """The exact slope of a loss along a direction as a function of where it is taken."""
    xs = [ad.tensor(a, requires_grad=True) for a in arrays]
    found = ad.autograd.grad(loss(*xs), xs, create_graph=True)
    y = sum(ad.sum(ad.real(np.conj(d) * g)) for g, d in zip(found, direction, strict=True))
    return y, xs


def assert_derivatives(function, arrays, tolerance=2e-7, xp=np, ours=ad):
    first, second = directions(arrays, 5), directions(arrays, 6)
    loss, values = loss_of(function, ours), loss_of(function, xp)
    expected = difference(lambda *xs: float(np.asarray(values(*xs))), arrays, first, 1e-4)
    found = inner(gradients(loss, arrays), first)
    scale = 1.0 + abs(expected)
    assert abs(found - expected) < tolerance * scale, (found, expected)
    forward = float(ad.jvp(loss, tuple(arrays), tuple(first))[1])
    assert abs(forward - found) < 1e-9 * scale, (forward, found)

    y, xs = slope(loss, arrays, first)
    found = inner([g.numpy() for g in ad.autograd.grad(y, xs)], second) if y.requires_grad else 0.0
    expected = difference(lambda *xs: inner(first, gradients(loss, xs)), arrays, second, 1e-4)
    scale = 1.0 + abs(expected)
    assert abs(found - expected) < 10 * tolerance * scale, (found, expected)
    # forward over reverse
    mixed = float(ad.jvp(lambda *xs: slope_again(loss, xs, first), tuple(arrays), tuple(second))[1])
    assert abs(mixed - expected) < 10 * tolerance * scale, (mixed, expected)


def slope_again(loss, xs, direction):
    found = ad.autograd.grad(loss(*xs), list(xs), create_graph=True)
    return sum(ad.sum(ad.real(np.conj(d) * g)) for g, d in zip(found, direction, strict=True))
