"""Complex tensors: NumPy's values, and derivatives against differences in both directions.

The cotangent of ``z = x + iy`` is ``dL/dx + i dL/dy``.
"""

import copy
import ctypes
import pickle
import warnings

import numpy as np
import pytest
from conftest import with_failing_allocations

import fastad as ad
from fastad import _core

RNG = np.random.default_rng(20)
TABLE = {row["name"]: row for row in _core.table()}
CONSTANT = {"rint", "sign"}                # derivatives that are 0, or not of the formula


def numpys(name):
    """NumPy's function of a row, or None where it has none for complex numbers."""
    if name == "clip":
        return np.clip
    f = getattr(np, TABLE[name]["numpy"] or "_", None)
    if name in ("where", "sinc"):
        return f
    if isinstance(f, np.ufunc) and any("D" in types for types in f.types):
        return f
    return None


ROWS = [name for name in TABLE if numpys(name) is not None]
OTHERS = [name for name in TABLE if numpys(name) is None]


def values(shape, dtype=complex, scale=1.0):
    z = RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    return np.asarray(scale * z).astype(dtype)


def same_bits(got, want):
    got = got.detach().numpy() if isinstance(got, ad.Tensor) else np.asarray(got)
    want = np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype)
    assert got.tobytes() == want.tobytes(), (got, want)


def operands(name, shapes, dtype):
    zs = [values(shape, dtype) for shape in shapes]
    if name == "where":
        zs[0] = zs[0].real > 0
    return zs


# ---- values --------------------------------------------------------------------------------------


SHAPES = {1: [((),), ((3,),), ((0, 2),), ((130,),)],
          2: [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2, 1), (3,)), ((0, 2), (2,)), ((3,), ()),
              ((130,), (130,))],
          3: [((), (), ()), ((3,), (3,), (3,)), ((2, 3), (3,), ()), ((0, 2), (2,), (1,))]}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", ROWS)
def test_rows_have_numpys_bits(name, dtype):
    f = numpys(name)
    for shapes in SHAPES[TABLE[name]["arity"]]:
        zs = operands(name, shapes, dtype)
        with np.errstate(all="ignore"):
            want = f(*zs)
            same_bits(_core.elementwise[name](*map(ad.tensor, zs)), want)
            same_bits(f(*map(ad.tensor, zs)), want)
            program = ad.compile(lambda *args: getattr(ad, name)(*args))
            program(*zs)
            if name != "where":     # masks are no inputs
                same_bits(np.asarray(program(*zs), want.dtype), want)


@pytest.mark.parametrize("name", ROWS)
def test_rows_read_strided_and_foreign_input_as_numpy_does(name):
    zs = operands(name, ((4, 6),) * TABLE[name]["arity"], complex)
    for cut in (lambda z: z[::2, 1::3], lambda z: z.T, lambda z: np.asfortranarray(z),
                lambda z: z.astype(z.dtype.newbyteorder())):
        some = [cut(z) for z in zs]
        with np.errstate(all="ignore"):
            want = numpys(name)(*some).astype(complex if name != "absolute" else float)
            same_bits(_core.elementwise[name](*some), want)
            same_bits(_core.elementwise[name](*map(ad.tensor, some)), want)


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_numpy_has_for_real_numbers_alone_raise(name):
    zs = [ad.tensor(1.0 + 1.0j)] * TABLE[name]["arity"]
    if name in ("zmul", "one_minus_square"):        # parts of formulas
        return
    with pytest.raises(TypeError, match=f"^{name}: not defined for complex numbers"):
        _core.elementwise[name](*zs)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan, 1e-300, 1e300]


@pytest.mark.parametrize("name", ROWS)
def test_rows_have_numpys_bits_at_the_edges(name):
    z = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL])
    zs = [z, z[::-1].copy(), z[::3].repeat(3)[:100]][: TABLE[name]["arity"]]
    if name == "where":
        zs[0] = zs[0].real > 0
    with np.errstate(all="ignore"):
        same_bits(_core.elementwise[name](*map(ad.tensor, zs)), numpys(name)(*zs))


OPERATORS = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b, "power": lambda a, b: a**b,
    "equal": lambda a, b: a == b, "not equal": lambda a, b: a != b, "less": lambda a, b: a < b,
    "greater or equal": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_promote_as_numpy_does(name):
    f = OPERATORS[name]
    arrays = [np.array([1.5, 2.0], np.float32), np.array([0.5, -2.0]), np.array([1, 2]),
              np.array([True, False]), np.array([1 + 2j, 3j], np.complex64),
              np.array([2 - 1j, 1 + 1j]), np.array(1.5 - 2j), np.float32([2.0])]
    scalars = [2, -1.5, 1j, True, 0.5 + 0.25j, np.complex64(1 + 1j), np.float32(2.0),
               np.complex128(2j), np.float64(1.5)]
    for a in arrays:
        for b in [*arrays, *scalars]:
            if not np.iscomplexobj(a) and not np.iscomplexobj(b):
                continue
            with np.errstate(all="ignore"):
                same_bits(f(ad.tensor(a), b), f(a, b))
                same_bits(f(b, ad.tensor(a)), f(b, a))
                both = np.power if name == "power" else f       # ** looks at the exponent
                same_bits(f(ad.tensor(a), ad.tensor(b)), both(a, np.asarray(b)))


def test_some_powers_take_numpys_short_ways():
    z = values(7)
    for p in (2, 2.0, 0.5, -1, -1.0, 1, 0, 3, -2.5, 1j):
        for w in (z, np.array(z[0]), z.astype(np.complex64)):
            same_bits(ad.tensor(w) ** p, w**p)


PARTS = {
    "real": lambda xp, z: xp.real(z), "imag": lambda xp, z: xp.imag(z),
    "conj": lambda xp, z: xp.conj(z), "conjugate": lambda xp, z: xp.conjugate(z),
    "angle": lambda xp, z: xp.angle(z), "angle in degrees": lambda xp, z: xp.angle(z, deg=True),
    "abs": lambda xp, z: xp.abs(z), "absolute": lambda xp, z: xp.absolute(z),
    "attributes": lambda xp, z: z.real * z.imag, "method": lambda xp, z: z.conj(),
    "iscomplex": lambda xp, z: xp.iscomplex(z), "isreal": lambda xp, z: xp.isreal(z),
    "iscomplexobj": lambda xp, z: xp.iscomplexobj(z), "isrealobj": lambda xp, z: xp.isrealobj(z),
    "isnan": lambda xp, z: xp.isnan(z), "isfinite": lambda xp, z: xp.isfinite(z),
    "real_if_close": lambda xp, z: xp.real_if_close(z),
    "real_if_close, wide": lambda xp, z: xp.real_if_close(z, tol=10.0**17),
    "round": lambda xp, z: xp.round(z, 2), "round to tens": lambda xp, z: xp.round(z * 100, -1),
    "abs()": lambda xp, z: abs(z), "unary": lambda xp, z: -z + (+z),
}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float32, float])
@pytest.mark.parametrize("name", PARTS)
def test_parts_are_numpys(name, dtype):
    for shape in ((), (5,), (2, 0)):
        z = values(shape, complex)
        z = z.astype(dtype) if np.dtype(dtype).kind == "c" else z.real.astype(dtype)
        for xp in (ad, np):
            same_bits(PARTS[name](xp, ad.tensor(z)), PARTS[name](np, z))


# ---- derivatives ---------------------------------------------------------------------------------


def difference(f, z, direction, h):
    return (f(z + h * direction) - f(z - h * direction)) / (2 * h)


def gradients_by_differences(f, zs, k, h=1e-6):
    """dL/dx + i dL/dy of a real number L = f(*zs), element by element."""
    z = zs[k]
    g = np.zeros(z.shape, z.dtype)
    for at in np.ndindex(z.shape):
        unit = np.zeros(z.shape, z.dtype)
        unit[at] = 1.0

        def moved(w):
            return float(f(*zs[:k], w, *zs[k + 1:]))

        g[at] = difference(moved, z, unit, h)
        if z.dtype.kind == "c":
            g[at] += 1j * difference(moved, z, 1j * unit, h)
    return g


def weighted(f, *zs):
    """A real function whose gradient shows every element and both parts of f."""
    y = f(*zs)
    if isinstance(y, (list, tuple)):
        total = sum(weighted(lambda p=p: p) for p in y)
        return total
    shape = y.shape
    size = int(np.prod(shape))
    w = np.cos(np.arange(size) + 0.3).reshape(shape)
    v = np.sin(np.arange(size) * 2.0 + 1.0).reshape(shape)
    total = (np.real(y) * w).sum()
    if y.dtype.kind == "c":
        total = total + (np.imag(y) * v).sum()
    return total


def check(f, *zs, second=True, tol=2e-7):
    """First and second derivatives of a function of arrays, by differences, both modes."""
    zs = [np.asarray(z) for z in zs]
    numbers = tuple(k for k, z in enumerate(zs) if z.dtype.kind in "fc")

    def loss(*args):
        return weighted(f, *args)

    found = ad.grad(loss, numbers)(*zs)
    for k, g in zip(numbers, found):
        want = gradients_by_differences(loss, zs, k)
        assert np.asarray(g).dtype == zs[k].dtype
        np.testing.assert_allclose(
            g, want, rtol=tol, atol=tol * (1.0 + np.abs(want).max(initial=0)))
    # the tangent is the real inner product with the gradient
    dots = [values(z.shape, complex) for z in zs]
    dots = tuple(d if z.dtype.kind == "c" else d.real for d, z in zip(dots, zs))
    for k, g in zip(numbers, found):
        tangent = ad.jvp(lambda z: loss(*zs[:k], z, *zs[k + 1:]), (zs[k],), (dots[k],))[1]
        inner = np.real(np.conj(g) * dots[k]).sum()
        np.testing.assert_allclose(tangent, inner, rtol=1e-9, atol=1e-9)
    if not second:
        return

    def slope(*args):
        """Another real function: of the gradients."""
        return sum([weighted(lambda g=g: ad.asarray(g)) for g in ad.grad(loss, numbers)(*args)])

    def slope_value(*args):
        return float(slope(*args))

    for k, g in zip(numbers, ad.grad(slope, numbers)(*zs)):
        want = gradients_by_differences(slope_value, zs, k)
        np.testing.assert_allclose(
            g, want, rtol=10 * tol, atol=10 * tol * (1.0 + np.abs(want).max(initial=0)))


@pytest.mark.parametrize("name", ROWS)
def test_first_and_second_derivatives_of_rows(name):
    f = getattr(ad, name)
    arity = TABLE[name]["arity"]
    zs = [1.5 * values(3) + 0.2 for _ in range(arity)]
    if name == "where":
        condition = np.array([True, False, True])
        check(lambda a, b: ad.where(condition, a, b), *zs[1:])
        return
    if name == "clip":
        zs = [np.array([1 + 2j, 3 - 1j, -2 + 1j]), np.array([-1 + 0j] * 3), np.array([2 - 2j] * 3)]
    check(f, *zs)
    if arity == 2:      # real with complex, and broadcasting
        check(f, np.abs(zs[0]) + 0.1, zs[1])
        check(f, zs[0], np.abs(zs[1]) + 0.1)
        check(f, zs[0][:1], np.vstack([zs[1], zs[1] + 1j]))


def test_the_checker_fails_for_a_wrong_convention():
    class Square(ad.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z * z

        @staticmethod
        def backward(ctx, g):
            return g * (2.0 * ctx.saved_tensors[0])         # not conjugated

    with pytest.raises(AssertionError):
        check(lambda z: Square.apply(z) if isinstance(z, ad.Tensor) else z * z, values(3),
              second=False)


FUNCTIONS = {
    "real": (lambda z: ad.real(z), (3,)),
    "imag": (lambda z: ad.imag(z), (3,)),
    "conj": (lambda z: ad.conj(z) * z * z, (3,)),
    "angle": (lambda z: ad.angle(z), (3,)),
    "abs squared": (lambda z: ad.abs(z) ** 2, (3,)),
    "sum": (lambda z: (z * z).sum(0), (2, 3)),
    "sum of all": (lambda z: (z * z).sum(), (2, 3)),
    "sum in another dtype": (lambda z: ad.sum(z * z, dtype=np.complex128), (2, 3)),
    "mean": (lambda z: ad.mean(z * z, axis=1), (2, 3)),
    "prod": (lambda z: ad.prod(z, axis=1), (2, 3)),
    "cumsum": (lambda z: ad.cumsum(z * z, axis=1), (2, 3)),
    "var": (lambda z: ad.var(z, axis=0), (4, 2)),
    "std": (lambda z: ad.std(z), (4, 2)),
    "var with a mask": (
        lambda z: ad.var(z, axis=0, where=np.arange(8).reshape(4, 2) % 3 < 2), (4, 2)),
    "max": (lambda z: ad.max(z * z, axis=1), (2, 3)),
    "min": (lambda z: ad.min(z * z), (2, 3)),
    "norm": (lambda z: ad.linalg.norm(z), (2, 3)),
    "norms of rows": (lambda z: ad.linalg.norm(z, axis=1), (2, 3)),
    "index": (lambda z: z[1] * z[0, ::-1], (2, 3)),
    "indices": (lambda z: (z * z)[np.array([0, 1, 1, 0]), np.array([2, 1, 1, 0])], (2, 3)),
    "mask": (lambda z: (z * z)[np.array([[True, False, True], [False, True, False]])], (2, 3)),
    "take": (lambda z: ad.take(z * z, [2, 0, 2], axis=1), (2, 3)),
    "concatenate": (lambda z: ad.concatenate([z * z, z[:1]], 0), (2, 3)),
    "stack": (lambda z: ad.stack([z[0] * z[1], z[1]], 1), (2, 3)),
    "stack of numbers": (lambda z: ad.stack([z[0, 0], z[1, 1] ** 2]), (2, 3)),
    "stack of real and complex": (lambda z: ad.stack([ad.real(z), z * z]), (3,)),
    "pad": (lambda z: ad.pad(z * z, 1, constant_values=2j), (2, 3)),
    "trace": (lambda z: ad.trace(z @ z), (3, 3)),
    "diagonal": (lambda z: ad.diagonal(z @ z, 1), (3, 3)),
    "diag": (lambda z: ad.diag(z * z), (3,)),
    "tril": (lambda z: ad.tril(z * z), (3, 3)),
    "diff": (lambda z: ad.diff(z * z), (5,)),
    "roll": (lambda z: ad.roll(z * z, 2), (5,)),
    "sort": (lambda z: ad.sort(z * z), (5,)),
    "flip and transpose": (lambda z: ad.flip(z * z, 0).T, (2, 3)),
    "repeat": (lambda z: ad.repeat(z * z, 2, axis=0), (2, 3)),
    "broadcast": (lambda z: ad.broadcast_to(z * z, (4, 3)), (3,)),
    "outer": (lambda z: ad.outer(z, z[:2]), (3,)),
    "inner": (lambda z: ad.inner(z, z * z), (2, 3)),
    "dot of many axes": (lambda z: ad.dot(z, ad.transpose(z, (0, 2, 1))), (2, 2, 3)),
    "vdot": (lambda z: ad.vdot(z, z * z), (2, 3)),
    "tensordot": (lambda z: ad.tensordot(z, z * z, ((0, 1), (0, 1))), (2, 3)),
    "einsum": (lambda z: ad.einsum("ij,kj,ik->i", z, z * z, z[:, :2]), (2, 3)),
    "einsum of a diagonal": (lambda z: ad.einsum("ii->i", z * z), (3, 3)),
    "to complex64 and back": (lambda z: (z * z).astype(np.complex128), (3,)),
    "sigmoid by hand": (lambda z: 1.0 / (1.0 + ad.exp(-z)), (3,)),
    "direction": (lambda z: z / ad.abs(z), (3,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives_of_functions(name):
    f, shape = FUNCTIONS[name]
    check(f, values(shape))


PRODUCTS = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 2)), ((2, 2, 3), (3, 2)),
            ((3,), (2, 3, 2)), ((2, 2, 3), (3,)), ((1, 2, 3), (2, 3, 2))]


@pytest.mark.parametrize("shapes", PRODUCTS)
def test_matrix_products(shapes):
    a, b = map(values, shapes)
    for dtype in (complex, np.complex64):
        x, y = a.astype(dtype), b.astype(dtype)
        same_bits(ad.tensor(x) @ ad.tensor(y), x @ y)
        same_bits(ad.tensor(x) @ y.real, x @ y.real)
    check(lambda a, b: a @ b, a, b)
    check(lambda a, b: a @ b, a.real.copy(), b)
    check(lambda a, b: a @ b, a, b.real.copy())


def test_two_real_operands_of_a_complex_function_get_real_gradients():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    w = ad.tensor(np.float32([1.0, -1.0]), requires_grad=True)
    y = x * 1j + w
    assert y.dtype == np.complex128
    (ad.abs(y) ** 2).sum().backward()
    assert x.grad.dtype == np.float64 and w.grad.dtype == np.float32
    np.testing.assert_allclose(x.grad.numpy(), [2.0, 4.0])
    np.testing.assert_allclose(w.grad.numpy(), [2.0, -2.0])


CONVENTION = {
    "|z|^2 is 2z": (lambda z: (z * ad.conj(z)).real, lambda z: 2 * z),
    "|z| is z/|z|": (lambda z: ad.abs(z), lambda z: z / abs(z)),
    "re z is 1": (lambda z: ad.real(z), lambda z: 1.0),
    "im z is i": (lambda z: ad.imag(z), lambda z: 1j),
    "arg z is i z/|z|^2": (lambda z: ad.angle(z), lambda z: 1j * z / abs(z) ** 2),
    "re z^2 is 2 conj z": (lambda z: (z * z).real, lambda z: 2 * np.conj(z)),
}


@pytest.mark.parametrize("name", CONVENTION)
def test_the_gradient_of(name):
    f, want = CONVENTION[name]
    z = 0.6 - 1.7j
    np.testing.assert_allclose(ad.grad(f)(z), want(z), rtol=1e-14)
    leaf = ad.tensor(z, requires_grad=True)
    f(leaf).backward()
    assert leaf.grad.dtype == np.complex128 and leaf.grad.shape == ()
    np.testing.assert_allclose(leaf.grad.item(), want(z), rtol=1e-14)


def test_the_modulus_and_the_direction_have_slope_0_at_0():
    z = np.array([0j, 1 + 1j])
    assert ad.grad(lambda z: ad.abs(z).sum())(z)[0] == 0
    assert ad.grad(lambda z: ad.sign(z).real.sum())(z)[0] == 0
    second = ad.grad(lambda z: ad.grad(lambda w: ad.abs(w).sum())(z).real.sum())(z)
    assert second[0] == 0 and np.isfinite(second).all()
    assert ad.grad(lambda z: ad.linalg.norm(z))(np.zeros(2, complex)).tolist() == [0, 0]


def test_a_zero_cotangent_contributes_zero():
    z = ad.tensor([0j, 4.0 + 0j], requires_grad=True)
    y = ad.where(ad.abs(z) > 0, ad.log(z) * ad.sqrt(z), 0.0)
    y.real.sum().backward()
    assert z.grad[0].item() == 0 and np.isfinite(z.grad.numpy()).all()
    p = np.array([[np.inf, 1.0], [2.0, 1j]])
    a = ad.tensor(np.ones((2, 2), complex), requires_grad=True)
    (a @ p)[:, 1].real.sum().backward()
    assert a.grad.tolist() == [[1, -1j], [1, -1j]]


def test_holomorphic_derivatives():
    for f, df in ((ad.sin, np.cos), (ad.exp, np.exp), (lambda z: z**3, lambda z: 3 * z**2),
                  (lambda z: 1j * z, lambda z: 1j)):
        z = 0.3 + 0.8j
        np.testing.assert_allclose(ad.grad(f, holomorphic=True)(z), df(z), rtol=1e-14)
        value, slope = ad.value_and_grad(f, holomorphic=True)(z)
        np.testing.assert_allclose(value, f(ad.tensor(z)).item(), rtol=1e-14)
        np.testing.assert_allclose(slope, df(z), rtol=1e-14)
        y, pull = ad.vjp(f, z)
        np.testing.assert_allclose(pull(2j)[0], 2j * np.conj(df(z)), rtol=1e-14)
        np.testing.assert_allclose(ad.jvp(f, (z,), (2j,))[1], 2j * df(z), rtol=1e-14)
    third = ad.grad(ad.grad(ad.grad(ad.exp, holomorphic=True), holomorphic=True), holomorphic=True)
    np.testing.assert_allclose(third(1j), np.exp(1j), rtol=1e-14)
    h = ad.hessian(lambda z: z[0] * z[1] ** 2, holomorphic=True)(np.array([1j, 2.0]))
    np.testing.assert_allclose(h, [[0, 4], [4, 2j]])


def test_jacobians():
    z, x = values(3), RNG.normal(size=3)
    a = values((2, 3))
    for f, rows in ((lambda z: a @ z, a), (lambda z: a.T @ (a @ z), a.T @ a)):
        np.testing.assert_allclose(ad.jacobian(f, holomorphic=True)(z), rows, rtol=1e-12)
        np.testing.assert_allclose(ad.jacobian(f)(x), rows, rtol=1e-12)
    both = ad.jacobian(lambda z, w: z * w, (0, 1), holomorphic=True)(z, z + 1)
    np.testing.assert_allclose(both[0], np.diag(z + 1))
    real = ad.jacobian(lambda z: ad.abs(z) ** 2)(z)
    np.testing.assert_allclose(real, np.diag(2 * z))
    for f in (ad.compile(lambda z: a @ z), ad.compile(lambda z: a.T @ (a @ z))):
        np.testing.assert_allclose(
            f.derived("jacobian", 0, holomorphic=True)(z),
            ad.jacobian(f.function, holomorphic=True)(z), rtol=1e-12)
        np.testing.assert_allclose(ad.jacobian(f, holomorphic=True)(z),
                                   ad.jacobian(f.function, holomorphic=True)(z), rtol=1e-12)
        np.testing.assert_allclose(f.jacobian(x), ad.jacobian(f.function)(x), rtol=1e-12)
    t = ad.tensor(z, requires_grad=True)        # recorded Jacobians
    j = ad.jacobian(lambda z: z[:1] * z.sum(), holomorphic=True)(t)
    ad.abs(j).sum().backward()
    assert t.grad is not None and j.shape == (1, 3)


# ---- tensors -------------------------------------------------------------------------------------


def test_a_complex_tensor_is_a_leaf_like_others():
    z = ad.tensor(1 + 2j, requires_grad=True)
    assert z.dtype == np.complex128 and z.shape == () and z.item() == 1 + 2j
    assert complex(z) == 1 + 2j and z.itemsize == 16 and z.is_leaf
    assert repr(z) == "tensor(1.+2.j, requires_grad=True)"
    assert repr(ad.tensor(np.complex64([1j]))) == "tensor([0.+1.j], dtype=complex64)"
    assert repr(z.real) == "tensor(1., grad_fn=<real>)"
    assert repr(z * z) == "tensor(-3.+4.j, grad_fn=<multiply>)"
    for again in (pickle.loads(pickle.dumps(z)), copy.deepcopy(z)):
        assert again.requires_grad and again.item() == z.item() and again.dtype == z.dtype
    assert copy.copy(z).item() == z.item()
    assert ad.tensor([1.0, 2.0], dtype=np.complex64).dtype == np.complex64
    assert ad.tensor([1, 1j]).tolist() == [1, 1j]
    np.testing.assert_array_equal(z.detach().numpy(), np.array(1 + 2j))
    assert ad.zeros(2, dtype=complex).dtype == ad.complex128
    assert ad.full(2, 1j).tolist() == [1j, 1j]
    assert f"{z:.1f}" == "1.0+2.0j"


def test_graphs_of_complex_tensors_behave_as_others():
    z = ad.tensor([1 + 2j, 3j], requires_grad=True)
    seen = []
    z.register_hook(lambda g: seen.append(g) or g * 2)
    y = z * z
    y.retain_grad()
    y.backward(gradient=np.array([1.0, 1j]), retain_graph=True)
    assert seen[0].tolist() == [2 - 4j, 2j * -3j]
    assert z.grad.tolist() == [4 - 8j, 12]
    assert y.grad.tolist() == [1, 1j]
    y.backward(gradient=np.array([1.0, 1j]))
    assert z.grad.tolist() == [8 - 16j, 24]
    with pytest.raises(RuntimeError, match="consumed"):
        y.backward(gradient=np.ones(2))
    z.grad = None
    (g,) = ad.autograd.grad(ad.abs(z).sum(), z, create_graph=True)
    ad.real(g * g.conj()).sum().backward()      # |z/|z||^2 is constant
    np.testing.assert_allclose(z.grad.numpy(), 0.0, atol=1e-15)
    with ad.no_grad():
        z -= 0.5j
    assert z.tolist() == [1 + 1.5j, 2.5j]
    x = ad.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="cannot put complex128 into a tensor of dtype float64"):
        x += 1j


def test_the_same_leaf_may_reach_a_result_along_many_ways():
    z = ad.tensor(values(4), requires_grad=True)
    parts = [z[k] for k in range(4)]
    y = sum([p * p.conj() for p in parts]) + (z.conj() * z).sum()
    y.real.backward()
    np.testing.assert_allclose(z.grad.numpy(), 4 * z.detach().numpy(), rtol=1e-14)


def test_casts():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    z = x.astype(complex)
    assert z.dtype == np.complex128
    (z * 1j * z).imag.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
    for dtype in (float, np.float32, int):
        with pytest.raises(TypeError, match=r"would lose the imaginary part.*\.real"):
            (x * 1j).astype(dtype)
        with pytest.warns(np.exceptions.ComplexWarning):
            kept = ad.tensor([1 + 1j]).astype(dtype)
        assert kept.dtype == dtype and kept.tolist() == [1]
    assert (x * 1j).astype(bool).tolist() == [True, True]
    small = (x * 1j).astype(np.complex64)
    assert small.dtype == np.complex64 and small.requires_grad
    with pytest.warns(np.exceptions.ComplexWarning):
        assert ad.array(ad.tensor(1 + 1j), dtype=float).item() == 1.0


BAD = {
    "a complex loss": (lambda z: (z * z).sum().backward(), RuntimeError,
                       "backward: a tensor of complex128 needs a gradient"),
    "a complex loss of grad": (lambda z: ad.grad(lambda z: z.sum())(z), TypeError,
                               "grad: the function returned a complex number.*holomorphic"),
    "a real one that should be holomorphic": (
        lambda z: ad.grad(lambda z: ad.abs(z).sum(), holomorphic=True)(z), TypeError,
        "holomorphic=True is for functions of complex numbers.*returned float64"),
    "a real argument of a holomorphic function": (
        lambda z: ad.grad(lambda x: x * 1j, holomorphic=True)(1.0), TypeError,
        "was given float64"),
    "a Jacobian that is none": (lambda z: ad.jacobian(lambda z: z * z)(z), TypeError,
                                "jacobian: a complex function of complex arguments"),
    "a complex gradient of a real tensor": (
        lambda z: ad.abs(z).backward(np.array([1j, 1.0])), TypeError,
        "gradient of complex128 does not fit"),
    "a complex tangent of a real argument": (
        lambda z: ad.jvp(lambda x: x * 2, (1.0,), (1j,)), TypeError,
        "tangent of complex128 does not fit"),
    "a complex index": (lambda z: z[ad.tensor(1j)], IndexError, "array of complex128"),
    "floor": (lambda z: np.floor(z), TypeError, "floor: not defined for complex"),
    "remainder": (lambda z: z % 2, TypeError, "remainder: not defined for complex"),
    "float()": (lambda z: float(z[0]), TypeError, "float|real"),
    "real grad": (lambda z: setattr(z, "grad", ad.tensor([1.0, 2.0])), TypeError, "dtype float64"),
    "shapes": (lambda z: z * ad.tensor([1j, 2, 3]), ValueError, "multiply: shapes .2,. and .3,."),
    "matrix shapes": (lambda z: z @ ad.tensor([1j, 2, 3]), ValueError, "matmul: shapes"),
    "arctan2": (lambda z: ad.arctan2(z, z), TypeError, "arctan2: not defined for complex"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, tape_unchanged):
    act, error, text = BAD[name]
    z = ad.tensor([1 + 1j, 2.0], requires_grad=True)
    with pytest.raises(error, match=text):
        act(z)


def test_sums_have_numpys_bits():
    for dtype in (np.complex64, np.complex128):
        for n in (1, 3, 4, 5, 17, 63, 64, 65, 130, 1000, 4097):
            z = values(n, dtype)
            same_bits(ad.sum(ad.tensor(z)), z.sum())
            program = ad.compile(lambda z: z.sum())
            program(z)
            same_bits(np.asarray(program(z), dtype), z.sum())
            m = values((min(n, 1000), 3), dtype)    # old NumPy adds 8192 at a time
            for axis in (0, 1, (0, 1)):
                program = ad.compile(lambda z: ad.sum(z, axis))
                program(m)
                same_bits(np.asarray(program(m), dtype), m.sum(axis))
                same_bits(ad.sum(ad.tensor(m), axis), m.sum(axis))


REDUCTIONS = {
    "mean": lambda xp, z: xp.mean(z), "mean of rows": lambda xp, z: xp.mean(z, axis=1),
    "var": lambda xp, z: xp.var(z, axis=0), "std": lambda xp, z: xp.std(z),
    "prod": lambda xp, z: xp.prod(z, axis=1), "cumsum": lambda xp, z: xp.cumsum(z),
    "max": lambda xp, z: xp.max(z, axis=0), "min": lambda xp, z: xp.min(z),
    "argmax": lambda xp, z: xp.argmax(z), "sort": lambda xp, z: xp.sort(z, axis=1),
    "argsort": lambda xp, z: xp.argsort(z), "vdot": lambda xp, z: xp.vdot(z, z * 2),
    "dot": lambda xp, z: xp.dot(z, z.reshape(7, 5)), "inner": lambda xp, z: xp.inner(z, z),
    "tensordot": lambda xp, z: xp.tensordot(z, z, ((0,), (0,))),
    "einsum": lambda xp, z: xp.einsum("ij,kj->ik", z, z), "trace": lambda xp, z: xp.trace(z),
    "outer": lambda xp, z: xp.outer(z, z), "norm": lambda xp, z: xp.linalg.norm(z),
    "norms": lambda xp, z: xp.linalg.norm(z, axis=1), "diff": lambda xp, z: xp.diff(z),
    "pad": lambda xp, z: xp.pad(z, 1), "tril": lambda xp, z: xp.tril(z),
    "sum with an initial value": lambda xp, z: xp.sum(z, initial=2j),
    "masked sum": lambda xp, z: xp.sum(z, axis=0, where=np.abs(np.arange(7.0)) > 2),
    "take": lambda xp, z: xp.take(z, [0, 2, 2]), "allclose": lambda xp, z: xp.allclose(z, z),
    "any": lambda xp, z: xp.any(z, axis=0), "logical_not": lambda xp, z: xp.logical_not(z),
    "column_stack": lambda xp, z: xp.column_stack([z[0], z[1]]),
    "concatenate of mixed": lambda xp, z: xp.concatenate([z, [[1.0] * 7]]),
}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_functions_have_numpys_bits(name, dtype):
    z = values((5, 7), dtype)
    same_bits(REDUCTIONS[name](ad, ad.tensor(z)), REDUCTIONS[name](np, z))
    same_bits(REDUCTIONS[name](np, ad.tensor(z)), REDUCTIONS[name](np, z))


# ---- programs ------------------------------------------------------------------------------------


PROGRAMS = {
    "a loss": lambda z: ad.abs(ad.exp(z * 2j) / z).sum(),
    "parts": lambda z: (z.real * z.imag + ad.angle(z)).sum(),
    "products": lambda z: ad.real(ad.vdot(z, ad.outer(z, z.conj()) @ z)),
    "rows of the table": lambda z: (ad.tanh(z) * ad.sqrt(z) ** (1 + 2j) - ad.arctan(z)).imag.sum(),
    "slices": lambda z: ad.abs(ad.concatenate([z[1:], z[:1] * 1j])[::2]).sum(),
    "stacks": lambda z: ad.abs(ad.stack([z, z.conj()]).sum(0)).sum(),
    "choices": lambda z: ad.real(ad.where(ad.abs(z) > 1.0, z * z, 1j * z)).sum(),
    "gathers": lambda z: ad.real(z[np.array([0, 0, 2])] ** 2).sum(),
    "a norm": lambda z: ad.linalg.norm(z * z),
    "directions": lambda z: ad.sign(z).imag.sum(),
    "extrema": lambda z: ad.real(ad.maximum(z, 1j) * ad.max(z)).sum(),
    "products of elements": lambda z: ad.real(ad.prod(z)),
    "transposes": lambda z: ad.abs((z.reshape(1, -1) * z.reshape(-1, 1)).T[0]).sum(),
    "a branch": lambda z: ad.abs(z).sum() if z[0].real > 0 else ad.real(z * z).sum(),
    "an integral": lambda z: ad.real(ad.cumsum(z)).sum(),
}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_compute_what_the_function_does(name, dtype):
    f = PROGRAMS[name]
    p = ad.compile(f)
    tol = 1e-12 if dtype == np.complex128 else 2e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error", ad.ProgramWarning)
        for k in range(4):
            z = values(3, dtype) + (1.0 if k % 2 else -1.0)
            z = z.astype(dtype)
            np.testing.assert_allclose(p(z), f(ad.tensor(z)).item(), rtol=tol)
            value, gradient = p.value_and_grad(z)
            want = ad.grad(f)(z)
            assert gradient.dtype == want.dtype == dtype
            np.testing.assert_allclose(gradient, want, rtol=tol, atol=tol)
            slope = ad.compile(lambda z: ad.real(ad.grad(f)(z) * (1 + 2j)).sum())
            for _ in range(2):
                np.testing.assert_allclose(
                    slope.grad(z), ad.grad(slope.function)(z), rtol=10 * tol, atol=10 * tol)
    assert p.recordings <= 2


def test_programs_give_complex_results():
    p = ad.compile(lambda z, x: (z * x, z[0] * 2, (z.real, ad.conj(z))))
    for _ in range(3):
        z, x = values(3), RNG.normal(size=3)
        a, b, (c, d) = p(z, x)
        same_bits(a, z * x)
        assert type(b) is complex and b == z[0] * 2
        same_bits(c, z.real)
        same_bits(d, z.conj())
    q = ad.compile(lambda z: z * z)
    assert q(2j) == q(2j) == -4 and type(q(2j)) is complex
    assert q.recordings == 1
    got = q(np.complex64([1j]))
    assert got.dtype == np.complex64
    assert isinstance(q(ad.tensor(1j)), ad.Tensor)
    out = np.empty(2, complex)
    assert q(np.array([1j, 2.0]), out=out) is out and out.tolist() == [-1, 4]
    out = np.empty(2, complex)
    assert q(np.array([2j, 2.0]), out=out) is out and out.tolist() == [-4, 4]


def test_gradients_flow_through_programs():
    p = ad.compile(lambda z: ad.exp(z) * z.conj())
    z = values(50)
    want = ad.grad(lambda z: ad.abs(p.function(z)).sum())(z)
    for _ in range(3):
        np.testing.assert_allclose(ad.grad(lambda z: ad.abs(p(z)).sum())(z), want, rtol=1e-12)
    w = ad.tensor(2j, requires_grad=True)
    q = ad.compile(lambda z: ad.abs(z * w).sum())
    q(z).backward()
    np.testing.assert_allclose(w.grad.item(), 1j * np.abs(z).sum())
    v = ad.tensor(2j)
    r = ad.compile(lambda z: z * v)
    assert r(1j) == -2
    v = ad.tensor(3j)
    assert r(1j) == -3


def test_many_rows_of_complex_input_are_mapped():
    p = ad.compile(PROGRAMS["a loss"])
    rows = values((40, 3))
    found, gradients = p.map(rows)
    for z, y, g in zip(rows, found, gradients):
        np.testing.assert_allclose(y, p.function(ad.tensor(z)).item(), rtol=1e-12)
        np.testing.assert_allclose(g, ad.grad(p.function)(z), rtol=1e-11)


def test_programs_of_complex_numbers_are_stored(tmp_path):
    for name in ("a loss", "choices", "directions", "products", "slices"):
        p = ad.compile(PROGRAMS[name])
        z = values(3) + 2.0
        want = p.value_and_grad(z)
        p(z)
        p.save(tmp_path / "p")
        again = ad.load(tmp_path / "p")
        np.testing.assert_array_equal(again(z), p(z))
        np.testing.assert_allclose(again.value_and_grad(z)[1], want[1], rtol=1e-14)


def test_c_source_refuses_complex_numbers():
    p = ad.compile(lambda z: ad.abs(z).sum())
    with pytest.raises(TypeError, match="absolute of arrays is computed by Python"):
        p.to_c(np.array([1j]))
    p = ad.compile(lambda z: z.real.sum())
    with pytest.raises(TypeError, match="input 0 is no float64 array"):
        p.to_c(np.array([1j]))
    with pytest.raises(TypeError, match="input 0 is no float64 array"):
        p.c_function(np.array([1j]))
    q = ad.compile(lambda x: (x * (x + 1j)).real.sum())
    with pytest.raises(TypeError, match="float32 or complex arrays"):
        q.to_c(np.array([1.0]))


def test_c_functions_compute_with_complex_numbers_inside():
    program = ad.compile(lambda x: (ad.exp(x * 1j) * (x + 2j)).imag.sum())
    x, value, gradient = np.array([0.5, -1.0, 2.0]), np.zeros(1), np.zeros(3)
    function = program.c_function(x, derivative="value_and_grad")
    status = function.ctypes(*[
        a.ctypes.data_as(ctypes.c_void_p) for a in (x, value, gradient)], function.user_data)
    assert status == 0 and value[0] == program(x)
    np.testing.assert_array_equal(gradient, program.grad(x))
    np.testing.assert_allclose(value[0], (np.exp(x * 1j) * (x + 2j)).imag.sum(), rtol=1e-14)


# ---- corners -------------------------------------------------------------------------------------


def test_rounding_keeps_the_sign_of_zeros_and_has_slope_0():
    z = np.array([-0.04 + 0.004j, 1.26 - 0.0j, -2.5 - 3.5j])
    for decimals in (0, 1, 2, -1):
        same_bits(ad.round(ad.tensor(z), decimals), np.round(z, decimals))
        assert ad.grad(lambda z: ad.round(z, decimals).real.sum())(z).tolist() == [0, 0, 0]


def test_real_input_summed_as_complex_and_the_other_way_round():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = ad.sum(x, dtype=complex) * (1 + 1j)
    assert y.dtype == np.complex128
    y.imag.backward()
    assert x.grad.dtype == np.float64 and x.grad.tolist() == [1.0, 1.0]
    z = ad.tensor([1j, 2.0], requires_grad=True)
    for f in (ad.sum, ad.mean, ad.prod, ad.cumsum):
        with pytest.raises(TypeError, match="would lose the imaginary part"):
            f(z, dtype=float)


UFUNC_METHODS = {
    "add.reduce": lambda z: np.add.reduce(z, axis=1),
    "multiply.reduce": lambda z: np.multiply.reduce(z, axis=0),
    "maximum.reduce": lambda z: np.maximum.reduce(z, axis=0),
    "add.accumulate": lambda z: np.add.accumulate(z, axis=1),
    "multiply.outer": lambda z: np.multiply.outer(z, np.array([1.0, 1j])),
    "with a dtype": lambda z: np.add(z, 1.0, dtype=np.complex128),
    "of an array and a real tensor": lambda z: np.multiply(np.array([1j, 2.0]), z.real) * z,
}


@pytest.mark.parametrize("name", UFUNC_METHODS)
def test_methods_of_ufuncs(name):
    f = UFUNC_METHODS[name]
    z = values((3, 2))
    same_bits(f(ad.tensor(z)), f(z))
    check(f, z)


def test_a_long_program_of_complex_numbers_is_one_node():
    def f(z, x):
        for _ in range(200):
            z = ad.exp(z * 1j) * x + z.conj() / 3.0
        return z

    p = ad.compile(f)
    z, x = values(4) * 0.1, np.array([0.1, 0.2, 0.3, 0.1])
    want = ad.grad(lambda z, x: ad.abs(f(z, x)).sum(), (0, 1))(z, x)
    for _ in range(3):
        a, b = ad.tensor(z, requires_grad=True), ad.tensor(x, requires_grad=True)
        y = p(a, b)
        ad.abs(y).sum().backward()
        np.testing.assert_allclose(a.grad.numpy(), want[0], rtol=1e-12)
        np.testing.assert_allclose(b.grad.numpy(), want[1], rtol=1e-12)
        assert b.grad.dtype == np.float64
    assert p(ad.tensor(z, requires_grad=True), ad.tensor(x)).grad_fn.name == "program"
    dots = (values(4), np.ones(4))
    np.testing.assert_allclose(ad.jvp(p, (z, x), dots)[1], ad.jvp(f, (z, x), dots)[1], rtol=1e-12)
    p(z, x)
    calls = ad.compile(lambda z, x, d, e: ad.jvp(f, (z, x), (d, e))[1])
    for _ in range(2):
        np.testing.assert_allclose(calls(z, x, *dots), ad.jvp(f, (z, x), dots)[1], rtol=1e-12)
    pulls = ad.compile(lambda z, x, g: ad.vjp(f, z, x)[1](g))
    for _ in range(2):
        for got, bar in zip(pulls(z, x, dots[0]), ad.vjp(f, z, x)[1](dots[0])):
            np.testing.assert_allclose(got, bar, rtol=1e-12)
            assert got.dtype == bar.dtype


def test_a_recorded_graph_has_complex_nodes():
    graph = ad.record(lambda z, w: ad.abs(ad.name(z * w, "product") ** 2).sum(),
                      np.zeros(2, complex), np.zeros(2))
    z, w = values(2), np.array([1.0, -2.0])
    product, loss, g, h = graph.run({"z": z, "w": w},
                                    fetch=["product", "output", "grad:z", "grad:w"])
    np.testing.assert_allclose(product, z * w)
    np.testing.assert_allclose(loss, (np.abs(z * w) ** 2).sum())
    np.testing.assert_allclose(g, 2 * z * w**2)
    np.testing.assert_allclose(h, 2 * np.abs(z) ** 2 * w)
    assert "complex128" in str(graph)
    with pytest.raises(ValueError, match="wanted one real number"):
        graph.run({"z": z, "w": w}, fetch="grad:product/z")


def test_any_allocation_of_complex_operations_may_fail(tape_unchanged):
    z = ad.tensor(values((2, 300)), requires_grad=True)
    want = None

    def step():
        z.grad = None
        y = ad.exp(z * 2j).conj() * z.real + ad.where(z.imag > 0, z, 1j)
        (ad.abs(y @ y.T).sum() + y.imag.sum()).backward()
        return z.grad

    want = step().tolist()
    got, failures = with_failing_allocations(step)
    assert got.tolist() == want and failures > 10
    z.grad = None


def test_results_do_not_share_memory_with_what_may_change():
    a = np.array([1j, 2.0])
    z = ad.tensor(a)
    y = z.conj()
    a[:] = 0
    assert z.tolist() == [1j, 2] and y.tolist() == [-1j, 2]
    x = ad.tensor([1 + 1j, 2.0])
    y = x * 1.0
    x += 1j
    assert y.tolist() == [1 + 1j, 2] and x.tolist() == [1 + 2j, 2 + 1j]


def test_tape_memory_is_given_back(tape_unchanged):
    z = ad.tensor(values(1000), requires_grad=True)
    for _ in range(20):
        z.grad = None
        ad.abs(ad.exp(z * 1j) * z.conj()).sum().backward()
    z.grad = None
