"""Special functions: values are SciPy's, derivatives are mpmath's; the table drives everything."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

import scipy  # noqa: E402
import scipy.special  # noqa: E402
from special_cases import CASES as ALL_CASES  # noqa: E402
from special_cases import COMPLEX, COMPLEX_REFERENCES, mp  # noqa: E402

import fastad as ad  # noqa: E402
from fastad import special, special_values  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
OVER_AXES = {"logsumexp", "softmax", "log_softmax"}
NOT_UFUNCS = ("multigammaln polygamma zeta lambertw softplus sinc "
              "spherical_jn spherical_yn spherical_in spherical_kn").split()
# An older SciPy lacks some functions, and computes some inverses by a search that ends earlier.
CASES = {name: case for name, case in ALL_CASES.items() if hasattr(scipy.special, name)}
OLD = np.lib.NumpyVersion(scipy.__version__) < "1.16.0"
SEARCHED = {"btdtria", "btdtrib", "gdtria", "gdtrib", "gdtrix", "stdtrit"} if OLD else set()
# First derivatives hold this, relative to their size; second ones hold differences of first ones.
TOLERANCE = 1e-12
ROUGH = 2e-5

by_name = pytest.mark.parametrize("name", CASES)


def split(name):
    """A function's references, one for each result, and its points."""
    references, points = CASES[name]
    return (references if isinstance(references, list) else [references]), points


def rows_of(name):
    """The rows of a function, one for each result; none for rows of the op table."""
    name = special.ALIASES.get(name, name)
    own = {"zeta": "_hurwitz", "lambertw": "_lambertw"}
    parts = special.SEVERAL.get(name, (own.get(name, name),))
    return [special.ROWS[part] for part in parts if part in special.ROWS]


def missing(name):
    """The places of arguments without a derivative."""
    if name == "polygamma":
        return {0}
    if name == "multigammaln":
        return {1}
    rows = rows_of(name)
    return set(rows[0].missing) if rows else set()


def results(name, args):
    """The function's results as a tuple; of complex ones the parts."""
    y = getattr(special, name)(*args)
    if isinstance(y, tuple):
        return y
    return (ad.real(y), ad.imag(y)) if y.dtype.kind == "c" else (y,)


def columns(name):
    """The points as one array for each argument, those that are whole numbers as integers."""
    _, points = split(name)
    whole = [all(isinstance(v, int) for v in column) for column in zip(*points)]
    return [np.array(column, int if w else float)
            for column, w in zip(zip(*points), whole)]


def scipys(name, arrays):
    """What SciPy gives, as a tuple."""
    if name == "multigammaln":
        a, d = arrays
        return (np.array([scipy.special.multigammaln(x, int(k)) for x, k in zip(a, d)]),)
    y = getattr(scipy.special, name)(*arrays)
    if name == "lambertw":
        y = np.where(y.imag == 0.0, y.real, np.nan).astype(np.result_type(*arrays))
    elif not isinstance(y, tuple) and y.dtype.kind == "c":
        y = np.real(y), np.imag(y)
    return y if isinstance(y, tuple) else (y,)


# ---- the table -----------------------------------------------------------------------------------


def without_points(names):
    return set(names) - set(ALL_CASES) - OVER_AXES


def test_every_function_has_points_here():
    assert without_points(special.__all__) == set()
    assert set(ALL_CASES) <= set(special.__all__)
    for name in CASES:
        assert all(len(point) == len(columns(name)) for point in split(name)[1])


def test_a_function_without_points_is_found():
    assert without_points([*special.__all__, "a_new_one"]) == {"a_new_one"}


def test_there_are_more_than_a_hundred_and_fifty_functions():
    assert len(special.__all__) > 150


def test_every_partial_is_a_formula_of_known_names():
    for row in special.ROWS.values():
        for k in range(len(row.arguments)):
            if k not in row.missing:
                names = row.partial(k).__code__.co_names
                assert set(names) <= set(special.FORMULA_NAMES), (row.name, names)


# ---- values --------------------------------------------------------------------------------------


def assert_scipys(name, got, want):
    assert got.dtype == want.dtype, name
    if name in special.CORE or name == "multigammaln":
        unit = np.spacing(np.abs(want))
        ulps = special.ULPS.get(name, 16)
        if name in special.ULPS_OF_ONE or name == "multigammaln":
            unit = np.spacing(np.maximum(np.abs(want), want.dtype.type(1)))
            ulps = special.ULPS_OF_ONE.get(name, 16)
        assert (np.abs(got - want) <= ulps * unit).all(), name
    else:
        assert np.array_equal(got, want, equal_nan=True), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_are_scipys(dtype):
    for name in CASES:
        arrays = [a.astype(dtype) if a.dtype == float else a for a in columns(name)]
        if name == "multigammaln":
            for x, d in zip(*arrays):
                got = special.multigammaln(ad.tensor(x), int(d)).numpy()
                assert_scipys(name, got, np.asarray(scipy.special.multigammaln(x, int(d)), dtype))
            continue
        try:
            want = scipys(name, arrays)
        except TypeError:
            with pytest.raises(TypeError, match=name):
                results(name, map(ad.tensor, arrays))
            continue
        for got, y in zip(results(name, [ad.tensor(a) for a in arrays]), want, strict=True):
            assert_scipys(name, got.numpy(), y)


def core_arguments(name):
    rng = np.random.default_rng(5)
    if name in ("xlogy", "xlog1py"):
        return rng.uniform(0.1, 5.0, (2, 1000))
    if name == "polygamma":
        return rng.integers(0, 6, 1000), rng.uniform(-3.0, 20.0, 1000)
    low = {"log1p": -0.9, "digamma": 0.0, "psi": 0.0}.get(name, -5.0)
    return (rng.uniform(low, 15.0, 1000),)


def test_values_of_the_op_table_are_as_close_to_scipys_as_the_documents_say():
    for name in set(special.CORE) & set(CASES):
        args = core_arguments(name)
        assert_scipys(name, getattr(special, name)(*args).numpy(), scipys(name, args)[0])


def test_shapes_and_dtypes_are_scipys():
    rng = np.random.default_rng(3)
    column, row = rng.uniform(0.5, 2.0, (3, 1)), rng.uniform(0.5, 2.0, 4)
    cases = [  # of two arguments
        (column, row), (column[0, 0], row), (np.zeros((0, 4)), row), (np.array(0.7), np.array(1.5)),
        (column.astype(np.float32), row), (row.astype(np.float32), np.arange(1, 5)),
        (np.arange(1, 5), np.arange(2, 6)), (np.arange(1, 5, dtype=np.int8), row),
        (column[::-1], row[::-1]), (np.asfortranarray(rng.uniform(0.5, 2.0, (3, 4))), row),
    ]
    for a, b in cases:
        for name in ("jv", "gammainc", "poch", "ellipj", "agm", "huber"):
            want = scipys(name, (a, b))
            for got, y in zip(results(name, (ad.tensor(a), ad.tensor(b))), want):
                y = np.asarray(y)
                assert got.shape == y.shape and got.dtype == y.dtype
                assert np.array_equal(got.numpy(), y, equal_nan=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("number", [2, 0.5, True])
def test_a_python_number_takes_the_dtype_of_the_tensor(number):
    for dtype in (np.float32, np.float64):
        x = np.array([0.3, 1.5], dtype)
        for name in ("jv", "poch", "expn", "eval_legendre", "struve"):
            try:
                want = getattr(scipy.special, name)(number, x)
            except TypeError:
                continue
            with np.errstate(all="ignore"):
                got = getattr(special, name)(number, ad.tensor(x))
            assert got.dtype == want.dtype and np.array_equal(got.numpy(), want, equal_nan=True)
    y = special.jv(ad.tensor(np.float32(0.5)), 2.0)
    assert y.dtype == np.float32
    assert special.jv(0.5, 2.0).item() == scipy.special.jv(0.5, 2.0)


def test_ufuncs_of_scipy_take_tensors():
    ufuncs = [name for name in CASES
              if isinstance(getattr(scipy.special, name), np.ufunc)]
    assert len(ufuncs) > 140
    assert set(CASES) - set(ufuncs) == set(NOT_UFUNCS) & set(CASES)
    for name in ufuncs:
        args = split(name)[1][0]
        free = [k for k, v in enumerate(args) if isinstance(v, float) and k not in missing(name)]
        tensors = [ad.tensor(v, requires_grad=k in free) for k, v in enumerate(args)]
        theirs, ours = getattr(scipy.special, name)(*tensors), getattr(special, name)(*tensors)
        pairs = zip(theirs, ours) if isinstance(ours, tuple) else [(theirs, ours)]
        for a, b in pairs:
            assert type(a) is ad.Tensor and a.requires_grad
            assert a.item() == b.item()


def test_a_ufunc_that_the_table_does_not_have_refuses_to_lose_a_gradient():
    x = ad.tensor([0.5, 1.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"kolmogorov: .*detach"):
        scipy.special.kolmogorov(x)
    assert scipy.special.kolmogorov(x.detach()).tolist() == scipy.special.kolmogorov(
        [0.5, 1.0]).tolist()


# ---- derivatives ---------------------------------------------------------------------------------


def derivative(name, point, k, result):
    """The derivative of one result in one argument."""
    args = [ad.tensor(v) if isinstance(v, float) else v for v in point]
    args[k] = ad.tensor(point[k], requires_grad=True)
    y = results(name, args)[result]
    (slope,) = ad.autograd.grad(y, [args[k]])
    return y.item(), slope.item()


def reference_derivative(reference, point, k, y):
    start = {"start": mp.mpf(y)} if getattr(reference, "inverse", False) else {}
    exact = [mp.mpf(v) for v in point]

    def along(t):
        return reference(*exact[:k], t, *exact[k + 1:], **start)

    return mp.re(mp.diff(along, exact[k]))


def errors(name):
    """Points with the relative errors of first derivatives."""
    references, points = split(name)
    for point in points:
        for k, v in enumerate(point):
            if not isinstance(v, float) or k in missing(name):
                continue
            for result, reference in enumerate(references):
                y, got = derivative(name, point, k, result)
                want = reference_derivative(reference, point, k, y)
                error = abs(got - want) / abs(want) if want else abs(mp.mpf(got))
                yield (name, point, k, result, got, mp.nstr(want, 17)), float(error)


@by_name
def test_first_derivatives_are_those_of_high_precision(name):
    for where, error in errors(name):
        assert error < (1e-6 if name in SEARCHED else TOLERANCE), where


def test_a_wrong_partial_is_found(monkeypatch):
    row = special.ROWS["gammainc"]
    right = row.partial(0)
    monkeypatch.setattr(row, "compiled", [lambda *a: right(*a) * (1.0 + 1e-10), row.partial(1)])
    assert max(error for _, error in errors("gammainc")) > TOLERANCE


def first_and_second(name, arrays, k, free):
    """The derivative of the sum of each result in argument k, and that one's in all of `free`."""
    args = [ad.tensor(a, requires_grad=j in free) if a.dtype == float else a
            for j, a in enumerate(arrays)]
    inputs = [args[j] for j in free]
    for y in results(name, args):
        (g,) = ad.autograd.grad(y.sum(), [args[k]], create_graph=True)
        if not g.requires_grad:
            yield g.numpy(), [np.zeros(g.shape)] * len(free)
            continue
        second = ad.autograd.grad(g.sum(), inputs, allow_unused=True, retain_graph=True)
        yield g.detach().numpy(), [
            np.zeros(g.shape) if s is None else s.detach().numpy() for s in second]


def second_derivatives(name):
    """Places with second derivatives and by how much differences of first ones may miss them."""
    arrays = columns(name)
    if name in ("i0e", "i1e", "elliprc"):   # further points are too far out for these differences
        arrays = [a[:2] for a in arrays]
    sizes = np.abs(np.array([a for a in arrays if a.dtype == float]))
    keep = ((sizes > 1e-2) & (sizes < 200.0)).all(0)
    arrays = [a[keep] for a in arrays]
    free = [j for j, a in enumerate(arrays) if a.dtype == float and j not in missing(name)]
    for k in free:
        here = list(first_and_second(name, arrays, k, free))
        for place, j in enumerate(free):
            step = 2e-6 * np.abs(arrays[j])
            sides = []
            for sign in (1.0, -1.0):
                moved = list(arrays)
                moved[j] = arrays[j] + sign * step
                sides.append([g for g, _ in first_and_second(name, moved, k, [k])])
            for (g, second), up, down in zip(here, *sides):
                differences = (up - down) / (2.0 * step)
                scale = np.abs(differences) + np.abs(g / arrays[j])
                yield (name, k, j), second[place] - differences, ROUGH * scale


def test_second_derivatives_are_differences_of_first_ones():
    for name in CASES:
        if name == "multigammaln":
            continue
        count = 0
        for place, error, allowed in second_derivatives(name):
            assert (np.abs(error) <= allowed).all(), (place, error, allowed)
            count += error.size
        assert count or name == "ndtri_exp", name


def test_a_wrong_second_derivative_is_found(monkeypatch):
    row = special.ROWS["_gammainc_a"]
    right = row.partial(1)
    monkeypatch.setattr(row, "compiled", [row.partial(0), lambda *a: right(*a) * 1.001])
    assert any((np.abs(error) > allowed).any()
               for _, error, allowed in second_derivatives("gammainc"))


def test_third_derivatives_close_too():
    x = mp.mpf("0.7")
    cases = [
        (lambda t: special.jv(t, 2.0), lambda v: mp.besselj(v, 2)),
        (lambda t: special.yv(t, 2.0), lambda v: mp.bessely(v, 2)),
        (lambda t: special.kv(t, 2.0), lambda v: mp.besselk(v, 2)),
        (lambda t: special.iv(t, 2.0), lambda v: mp.besseli(v, 2)),
        (lambda t: special.gammainc(t, 2.0), lambda a: mp.gammainc(a, 0, 2, regularized=True)),
        (lambda t: special.betainc(t, 2.0 * t, 0.3),
         lambda a: mp.betainc(a, 2 * a, 0, mp.mpf(0.3), regularized=True)),
        (lambda t: special.zeta(t + 1.0, t), lambda s: mp.zeta(s + 1, s)),
        (lambda t: special.ellipk(t), mp.ellipk),
        (lambda t: special.beta(t, t), lambda a: mp.beta(a, a)),
        (lambda t: special.spence(t), lambda z: mp.polylog(2, 1 - z)),
        (lambda t: special.erfcx(t), lambda z: mp.exp(z * z) * mp.erfc(z)),
    ]
    for ours, reference in cases:
        got = ad.grad(ad.grad(ad.grad(ours)))(float(x))
        want = mp.diff(reference, float(x), 3)
        assert abs(got - want) <= 1e-10 * abs(want), (got, want)


def test_forward_mode_agrees_with_reverse_mode():
    for name in CASES:
        if name == "multigammaln":
            continue
        point = split(name)[1][0]
        free = [k for k, v in enumerate(point) if isinstance(v, float) and k not in missing(name)]

        def f(*values, name=name, point=point, free=free):
            args = list(point)
            for k, v in zip(free, values):
                args[k] = v
            return results(name, args)[-1]

        values = [point[k] for k in free]
        _, y_dot = ad.jvp(f, tuple(values), tuple(np.ones(len(free)).tolist()))
        gradient = sum(ad.grad(f, k)(*values) for k in range(len(free)))
        assert float(y_dot) == pytest.approx(float(gradient), rel=1e-12, abs=1e-300), name


# ---- complex numbers ---------------------------------------------------------------------------


def test_derivatives_of_complex_functions_are_those_of_high_precision():
    for name, points in COMPLEX.items():
        references = COMPLEX_REFERENCES.get(name, ALL_CASES[name][0])
        references = references if isinstance(references, list) else [references]
        for *rest, at in points:
            z = ad.tensor(at, requires_grad=True)
            y = getattr(special, name)(*map(ad.tensor, rest), z)
            exact = [mp.mpmathify(v) for v in rest]
            for part, reference in zip(y if isinstance(y, tuple) else (y,), references):
                (g,) = ad.autograd.grad(ad.real(part), [z])
                value = complex(reference(*exact, mp.mpmathify(at)))
                want = complex(mp.diff(lambda t, f=reference: f(*exact, t), mp.mpmathify(at)))
                assert part.item() == pytest.approx(value, rel=1e-11), name
                assert g.item() == pytest.approx(want.conjugate(), rel=1e-12), name


def test_complex_values_and_second_derivatives():
    z = np.array([0.3 + 1j, 2.0 - 0.4j])
    step = 1e-5
    for name, points in COMPLEX.items():
        rest = list(points[0][:-1])
        ours = getattr(special, name)

        def first(z, ours=ours, rest=rest):
            t = ad.tensor(z, requires_grad=True)
            y = ours(*rest, t)
            y = y[0] if isinstance(y, tuple) else y
            (g,) = ad.autograd.grad(ad.real(y).sum(), [t], create_graph=True)
            return t, y, g

        t, y, g = first(z)
        if name not in special.CORE or name in ("erf", "erfc", "psi"):
            want = getattr(scipy.special, name)(*rest, z)
            assert np.array_equal(y.detach().numpy(), want[0] if isinstance(want, tuple) else want)
        assert y.dtype == np.complex128
        (second,) = ad.autograd.grad(ad.real(g).sum(), [t], allow_unused=True)
        second = 0.0 if second is None else second.numpy()
        differences = (first(z + step)[2] - first(z - step)[2]).detach().numpy() / (2 * step)
        assert np.allclose(second, differences, 1e-6, 1e-8), name


def test_functions_that_are_not_holomorphic_refuse_complex_derivatives():
    z = ad.tensor([0.3 + 1j], requires_grad=True)
    for name in ("jve", "yve", "ive"):
        y = getattr(special, name)(0.5, z)
        assert y.item() == getattr(scipy.special, name)(0.5, 0.3 + 1j)
        with pytest.raises(TypeError, match=f"special.{name}: .*not holomorphic"):
            ad.real(y).sum().backward()
    ai, _, bi, _ = special.airye(z)
    ad.real(ai).sum().backward()
    with pytest.raises(TypeError, match="not holomorphic"):
        ad.real(bi).sum().backward()
    v = ad.tensor(0.5, requires_grad=True)
    with pytest.raises(TypeError, match="special._jv_v: .*complex"):
        ad.real(special.jv(v, z)).sum().backward()
    for f in (special.softmax, special.log_softmax, special.logsumexp, special.gammainc):
        with pytest.raises(TypeError, match="special"):
            f(*([1.0] * (f is special.gammainc)), z)


def test_lambertw_has_real_values_of_real_tensors_and_complex_ones_of_complex_tensors():
    assert special.lambertw(ad.tensor([1.0, -1.0])).dtype == np.float64
    z = np.array([1.0 + 0j, -1.0])
    for k in (0, -1, 3):
        y = special.lambertw(ad.tensor(z), k)
        assert np.array_equal(y.numpy(), scipy.special.lambertw(z, k))
    assert special.lambertw(-0.2, -1).item() == scipy.special.lambertw(-0.2, -1).real


# ---- derivatives in parameters, far and wide -----------------------------------------------------


def spread_out(rng, low, high):
    return 10.0 ** rng.uniform(low, high)


def random_cases(rng):
    """A function, its reference, and parameters with the one that is differentiated first."""
    a = spread_out(rng, -2, 3)
    x = a * abs(1.0 + rng.normal() / math.sqrt(a)) + 1e-9
    lower = x < a
    yield (lambda t: special.gammainc(t, x), a,
           lambda t: mp.gammainc(t, 0, x, regularized=True) if lower
           else -mp.gammainc(t, x, mp.inf, regularized=True))
    a, b = spread_out(rng, -2, 2), spread_out(rng, -2, 2)
    p = min(max(rng.beta(a + 0.5, b + 0.5), 1e-3), 0.999)
    left = p < a / (a + b)

    def part(a, b):
        if left:
            return mp.betainc(a, b, 0, p, regularized=True)
        return -mp.betainc(a, b, p, 1, regularized=True)

    yield lambda t: special.betainc(t, b, p), a, lambda t: part(t, b)
    yield lambda t: special.betainc(a, t, p), b, lambda t: part(a, t)
    v, z = rng.choice([-1.0, 1.0]) * spread_out(rng, -2, 1.3), spread_out(rng, -1, 2)
    for name in "jyik":
        ours, exact = getattr(special, f"{name}v"), getattr(mp, f"bessel{name}")
        yield lambda t, f=ours: f(t, z), v, lambda t, f=exact: f(t, z)
    s, q = 1.0 + spread_out(rng, -2, 1), spread_out(rng, -2, 2)
    yield lambda t: special.zeta(t, q), s, lambda t: mp.zeta(t, q)


def test_derivatives_in_parameters_hold_for_random_arguments():
    rng = np.random.default_rng(11)
    found = []
    for _ in range(25):
        for ours, at, reference in random_cases(rng):
            want = mp.re(mp.diff(reference, at))
            if 1e-15 < abs(want) < 1e250:
                found.append(float(abs(ad.grad(ours)(at) - want) / abs(want)))
    assert len(found) > 150
    assert np.median(found) < 1e-14 and max(found) < 1e-9


def test_special_values_give_nan_outside_and_limits_at_the_edge():
    sv, nan, inf = special_values, np.nan, np.inf
    with np.errstate(all="raise"):
        assert sv.gammainc_a(2.0, np.array([0.0, inf, nan, -1.0]), n=1).tolist()[:2] == [0.0, 0.0]
        assert np.isnan(sv.gammainc_a(np.array([-1.0, nan]), 1.0, n=1)).all()
        assert sv.gamma_pdf(np.array([2.0, 1.0, 0.5]), 0.0, n=0).tolist() == [0.0, 1.0, inf]
        assert sv.betainc_ab(2.0, 3.0, np.array([0.0, 1.0]), i=1, j=0).tolist() == [0.0, 0.0]
        assert np.isnan(sv.betainc_ab(2.0, 3.0, np.array([-0.1, 1.1, nan]), i=1, j=0)).all()
        assert sv.beta_pdf(1.0, 3.0, 0.0, i=0, j=0) == 3.0
        assert sv.kve_v(1.0, inf, i=1, j=0) == 0.0
        for f in (sv.jv_v, sv.yv_v):
            assert f(1.0, inf, n=1) == 0.0
            assert np.isnan(f(np.array([1.0, nan, inf]), np.array([-1.0, 1.0, 1.0]), n=1)).all()
        assert sv.carlson(0.0, 1.0, 1.0, 1.0, i=1.5, j=0.5, k=0.5, l=0) == inf
        assert np.isnan(sv.carlson(-1.0, 1.0, 1.0, 1.0, i=1.5, j=0.5, k=0.5, l=0))
        assert sv.dawsn_n(np.zeros((0, 2)), n=1).shape == (0, 2)


# ---- programs and files --------------------------------------------------------------------------


def test_programs_of_all_functions_replay_and_are_saved(tmp_path):
    rng = np.random.default_rng(2)
    for name in CASES:
        if name == "multigammaln":
            continue
        point = split(name)[1][0]
        free = [k for k, v in enumerate(point) if isinstance(v, float) and k not in missing(name)]

        def f(x, name=name, point=point, free=free):
            args = [ad.tensor(v) for v in point]
            for place, k in enumerate(free):
                args[k] = x[place]
            return sum(y.sum() for y in results(name, args))

        program = ad.compile(f)
        x = np.array([[point[k]] * 3 for k in free])
        program.value_and_grad(x)
        program.save(tmp_path / "program")
        loaded = ad.load(tmp_path / "program")
        for _ in range(2):
            x = x * (1.0 + 1e-3 * rng.uniform(size=x.shape))
            value, gradient = ad.value_and_grad(f)(x)
            for p in (program, loaded):
                y, g = p.value_and_grad(x)
                assert y == pytest.approx(value, rel=1e-13), name
                assert np.allclose(g, gradient, 1e-12, 0.0, equal_nan=True), name


def test_a_program_is_loaded_where_special_was_not_used_yet(tmp_path, fresh_python):
    p = ad.compile(lambda x: special.jv(x, 2.0) + special.softmax(x * np.ones(2)).sum())
    p(0.5)
    p.save(tmp_path / "program")
    out = fresh_python(f"""
        import sys, fastad as ad
        p = ad.load({str(tmp_path / "program")!r})
        print(p(0.5), p.grad(0.5))
    """)
    value, slope = map(float, out.split())
    assert value == pytest.approx(scipy.special.jv(0.5, 2.0) + 1.0, rel=1e-14)
    assert slope == pytest.approx(p.grad(0.5), rel=1e-14)


def test_a_program_may_be_the_first_to_import_scipy(fresh_python):
    out = fresh_python("""
        import warnings, fastad as ad
        warnings.simplefilter("error")
        p = ad.compile(lambda x: ad.special.j0(x))
        print(p(1.0), p.recordings, p(1.0), p.replays)
    """)
    y = scipy.special.j0(1.0)
    assert [float(v) for v in out.split()] == [y, 1.0, y, 1.0]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:non-integer:DeprecationWarning")
def test_an_argument_without_a_derivative_refuses_to_lose_one():
    count = 0
    for name in CASES:
        for k in missing(name):
            point = split(name)[1][0]
            if not rows_of(name):
                continue
            args = [ad.tensor(float(v) if j == k else v, requires_grad=j == k)
                    for j, v in enumerate(point)]
            argument = rows_of(name)[0].arguments[k]
            with pytest.raises(TypeError, match=rf"{name}.*argument {argument}, .*detach|"
                                                rf"no derivative in the argument {argument}"):
                results(name, args)
            args[k] = args[k].detach()
            if name not in ("eval_hermite", "eval_hermitenorm", "pdtri"):   # want an integer
                results(name, args)
            count += 1
    assert count > 50
    n = ad.tensor(2.0, requires_grad=True)
    with ad.no_grad():
        assert special.struve(n, 1.0).item() == scipy.special.struve(2.0, 1.0)
    with pytest.raises(TypeError, match="no derivative in the argument v"):
        ad.jvp(lambda v: special.struve(v, 1.0), (2.0,), (1.0,))


def test_bad_operands_raise_as_scipy_does_and_name_the_function():
    with pytest.raises(ValueError, match=r"special.jv: .*broadcast"):
        special.jv(ad.tensor([1.0, 2.0]), ad.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"special.ellipj: .*broadcast"):
        special.ellipj(ad.tensor([1.0, 2.0]), ad.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="special.eval_hermite: "):
        special.eval_hermite(ad.tensor(2.5), ad.tensor(1.0))
    with pytest.raises(TypeError, match="jv"):
        special.jv(1.0)
    with pytest.raises(ValueError, match="lambertw: .*branches"):
        special.lambertw(1.0, 2)
    with pytest.raises(ValueError, match="multigammaln: a must be larger"):
        special.multigammaln(ad.tensor([3.0, 0.4]), 2)
    with pytest.raises(ValueError, match="multigammaln: d is"):
        special.multigammaln(ad.tensor(3.0), 1.5)
    with pytest.raises(np.exceptions.AxisError):
        special.softmax(ad.tensor([1.0, 2.0]), 1)
    with pytest.raises(AttributeError, match="nothing_here"):
        special.nothing_here  # noqa: B018
    with pytest.raises(AttributeError, match="fastad.*nothing_here"):
        ad.nothing_here  # noqa: B018


def test_without_scipy_a_clear_error_and_what_needs_none_works(fresh_python):
    out = fresh_python("""
        import sys
        sys.modules["scipy"] = None
        import fastad as ad
        x = ad.tensor([0.5, 1.5], requires_grad=True)
        for name in ad.special.CORE:
            args = (1, x) if name == "polygamma" else (x,) * (1 + name.startswith("xlog"))
            getattr(ad.special, name)(*args).sum().backward()
        ad.special.softmax(x).sum().backward()
        ad.special.log_softmax(x).sum().backward()
        ad.special.logsumexp(x).backward()
        ad.special.multigammaln(x, 1).sum().backward()
        for f in (ad.special.j0, ad.special.sici, ad.special.lambertw, ad.special.zeta):
            try:
                f(x)
            except ImportError as error:
                print(error)
    """)
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[0] == ('special.j0: needs SciPy, which is not installed; '
                        'pip install "fastad[scipy]"')
    assert all("needs SciPy" in line for line in lines)


def test_an_older_scipy_is_named(monkeypatch):
    monkeypatch.setattr(special.ROWS["agm"], "values", "not_there_yet")
    with pytest.raises(ImportError, match="special.not_there_yet: SciPy .* newer"):
        special._values_of(special.ROWS["agm"])


def test_the_import_of_fastad_brings_in_neither_special_nor_scipy(fresh_python):
    out = fresh_python("""
        import sys, fastad as ad
        print([name for name in sys.modules if "special" in name or name.startswith("scipy")])
        assert ad.special.erf(0.0).item() == 0.0
        print([name for name in sys.modules if name.startswith("scipy")])
    """)
    assert out == "[]\n[]\n"


# ---- edges ---------------------------------------------------------------------------------------


EDGES = [
    # function, arguments, place, derivative
    ("gamma", (-1.0,), 0, math.nan),
    ("rgamma", (-3.0,), 0, -6.0),
    ("gammainc", (2.0, 0.0), 1, 0.0),
    ("gammainc", (1.0, 0.0), 1, 1.0),
    ("gammainc", (0.5, 0.0), 1, math.inf),
    ("gammainc", (2.0, math.inf), 0, 0.0),
    ("betainc", (1.0, 3.0, 0.0), 2, 3.0),
    ("betainc", (2.0, 3.0, 1.0), 0, 0.0),
    ("erfcx", (math.inf,), 0, 0.0),
    ("erfinv", (1.0,), 0, math.inf),
    ("logit", (0.0,), 0, math.inf),
    ("log_expit", (-math.inf,), 0, 1.0),
    ("log_ndtr", (-1e200,), 0, 1e200),
    ("entr", (0.0,), 0, math.inf),
    ("k0", (0.0,), 0, -math.inf),
    ("i0e", (0.0,), 0, 0.0),
    ("i0e", (-0.0,), 0, 0.0),
    ("spence", (0.0,), 0, -math.inf),
    ("spence", (1.0,), 0, -1.0),
    ("exprel", (0.0,), 0, 0.5),
    ("sici", (0.0,), 0, 1.0),
    ("ellipk", (1.0,), 0, math.inf),
    ("ellipk", (0.0,), 0, math.pi / 8),
    ("lambertw", (0.0,), 0, 1.0),
    ("lambertw", (-math.exp(-1.0) - 0.1,), 0, math.nan),
    ("jv", (0.5, math.nan), 0, math.nan),
    ("jv", (math.nan, 0.5), 1, math.nan),
    ("berp", (0.0,), 0, 0.0),
    ("beip", (0.0,), 0, 0.5),
    ("huber", (1.0, 1.0), 1, 1.0),
    ("huber", (1.0, 1.0), 0, 0.0),
    ("stdtr", (3.0, 0.0), 0, 0.0),
    ("boxcox", (2.0, 0.0), 1, math.log(2.0) ** 2 / 2.0),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "args", "k", "want"), EDGES)
def test_derivatives_at_edges(name, args, k, want):
    _, got = derivative(name, args, k, 0)
    assert got == pytest.approx(want, rel=1e-14, nan_ok=True)


def test_a_zero_cotangent_contributes_zero():
    x = ad.tensor([0.0, -1.0, 2.0], requires_grad=True)
    with np.errstate(all="ignore"):
        for name in ("k0", "gamma", "entr", "logit", "erfinv", "exp1", "ellipk"):
            y = ad.where(x > 1.5, x, getattr(special, name)(x))
            (g,) = ad.autograd.grad((y * np.array([0.0, 0.0, 1.0])).sum(), [x])
            assert g.tolist() == [0.0, 0.0, 1.0]


def test_cotangents_have_the_shape_and_dtype_of_their_tensors():
    a = ad.tensor(np.ones((3, 1), np.float32), requires_grad=True)
    b = ad.tensor(np.linspace(0.5, 1.0, 4), requires_grad=True)
    y = special.gammainc(a, b)
    y.sum().backward()
    assert y.dtype == np.float64
    assert a.grad.dtype == np.float32 and a.grad.shape == (3, 1)
    assert b.grad.dtype == np.float64 and b.grad.shape == (4,)


def test_several_results_are_computed_once(monkeypatch):
    calls = []

    def airy(x):
        calls.append(x)
        return scipy.special.airy(x)

    rows = [special.ROWS[name] for name in special.SEVERAL["airy"]]
    monkeypatch.setitem(special._SEVERAL_ROWS, "airy", (rows, airy))
    x = ad.tensor([0.5, 1.0], requires_grad=True)
    results = special.airy(x)
    assert len(calls) == 1
    assert all(y.requires_grad for y in results)
    with ad.no_grad():
        assert not any(y.requires_grad for y in special.airy(x))


# ---- functions over axes -------------------------------------------------------------------------


AXES = [None, 0, 1, -1, (0, 1), (1,)]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", sorted(OVER_AXES))
def test_functions_over_axes_are_scipys(name, axis):
    rng = np.random.default_rng(4)
    for dtype in (np.float64, np.float32):
        x = (10.0 * rng.normal(size=(3, 5))).astype(dtype)
        x[0, 2] = -np.inf
        got = getattr(special, name)(ad.tensor(x), axis).numpy()
        want = np.asarray(getattr(scipy.special, name)(x, axis))
        assert got.dtype == want.dtype and got.shape == want.shape
        eps = np.finfo(dtype).eps
        assert np.allclose(got, want, 4 * eps, 4 * eps)


def test_logsumexp_takes_weights_signs_and_kept_axes():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 3, 4))
    for options in ({}, {"axis": 1}, {"axis": 0, "keepdims": True}, {"return_sign": True},
                    {"axis": 1, "return_sign": True}):
        got = special.logsumexp(ad.tensor(a), b=ad.tensor(b), **options)
        want = scipy.special.logsumexp(a, b=b, **options)
        for g, w in zip(got if isinstance(got, tuple) else (got,),
                        want if isinstance(want, tuple) else (want,)):
            assert np.allclose(g.numpy(), w, 1e-13, 0.0, equal_nan=True)
            assert g.shape == np.shape(w)
    y, sign = special.logsumexp(ad.tensor([1.0, 2.0]), return_sign=True)
    assert sign.item() == 1.0
    assert special.logsumexp([1, 2]).item() == scipy.special.logsumexp([1, 2])
    assert special.logsumexp(ad.tensor([-np.inf, -np.inf])).item() == -np.inf
    assert special.logsumexp(ad.tensor([np.inf, 0.0])).item() == np.inf


def forms():
    w = np.array([[0.5, -1.5, 2.0], [1.0, 0.0, 3.0]])
    return {
        "logsumexp": lambda x: special.logsumexp(x, 1),
        "logsumexp of all": lambda x: special.logsumexp(x, keepdims=True),
        "weights": lambda x: special.logsumexp(x, 1, b=w, return_sign=True)[0],
        "in the weights": lambda x: special.logsumexp(w, 1, b=x, return_sign=True)[0],
        "both": lambda x: special.logsumexp(x, 0, b=x * x),
        "softmax": lambda x: special.softmax(x, 1) * w,
        "softmax of all": lambda x: special.softmax(x) * w,
        "log_softmax": lambda x: special.log_softmax(x, 0) * w,
        "multigammaln": lambda x: special.multigammaln(x * x + 3.0, 3),
    }


@pytest.mark.parametrize("title", forms())
def test_functions_over_axes_are_differentiable_twice_and_compiled(title):
    f = forms()[title]

    def loss(x):
        y = f(x)
        return (y * y).sum()

    x = np.array([[0.3, 1.2, -0.7], [0.9, -0.2, 0.4]])
    flat = x.ravel()
    step = 1e-5
    gradient = ad.grad(loss)(x).ravel()
    hessian = ad.hessian(loss)(x).reshape(6, 6)
    for k in range(6):
        moved = [(flat + s * step * (np.arange(6) == k)).reshape(2, 3) for s in (1, -1)]
        slope = (float(loss(ad.tensor(moved[0]))) - float(loss(ad.tensor(moved[1])))) / (2 * step)
        assert gradient[k] == pytest.approx(slope, rel=1e-6, abs=1e-8)
        column = (ad.grad(loss)(moved[0]) - ad.grad(loss)(moved[1])).ravel() / (2 * step)
        assert hessian[k] == pytest.approx(column, rel=1e-5, abs=1e-7)
    _, y_dot = ad.jvp(loss, (x,), (np.ones((2, 3)),))
    assert float(y_dot) == pytest.approx(gradient.sum(), rel=1e-12)
    p = ad.compile(loss).value_and_grad
    for point in (x, x + 0.25):
        value, g = ad.value_and_grad(loss)(point)
        assert p(point)[0] == pytest.approx(value, rel=1e-14)
        assert np.allclose(p(point)[1], g, 1e-13)


def test_softmax_of_minus_infinity_has_no_slope_there():
    x = ad.tensor([0.0, -np.inf, 1.0], requires_grad=True)
    for f in (special.softmax, special.logsumexp):
        (g,) = ad.autograd.grad((f(x) * np.array([1.0, 0.0, 2.0])).sum(), [x])
        assert np.isfinite(g.numpy()).all() and g.numpy()[1] == 0.0


# ---- documents -----------------------------------------------------------------------------------


@pytest.fixture
def script():
    path = ROOT / ".ci" / "special_docs.py"
    if not path.exists():
        pytest.skip("the scripts are not here")
    spec = importlib.util.spec_from_file_location("special_docs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_and_the_stub_are_what_their_script_writes(script):
    run = "run: python .ci/special_docs.py --write"
    assert script.document() == script.DOCUMENT.read_text(), run
    assert script.stub() == (Path(special.__file__).parent / "special.pyi").read_text(), run


def test_every_function_has_a_docstring():
    for name in special.__all__:
        doc = getattr(special, name).__doc__
        assert doc and doc.startswith("Return") or name in special.CORE, name
