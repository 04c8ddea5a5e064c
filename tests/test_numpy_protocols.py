"""NumPy's own functions called with tensors, and the tables behind them."""

import inspect
import pickle
import tempfile

import numpy as np
import pytest

import fastad as ad
from fastad import _core, numpy_api, numpy_coverage, numpy_methods

ROWS_WITH_UFUNC = [
    row["name"] for row in _core.table() if isinstance(getattr(np, row["name"], None), np.ufunc)
]
ARITY = {row["name"]: row["arity"] for row in _core.table()}


def operands(name):
    row = next(row for row in _core.table() if row["name"] == name)
    return [np.linspace(lo, hi, 5) for lo, hi in row["intervals"]]


def assert_same_bits(got, want):
    assert isinstance(got, ad.Tensor)
    assert got.dtype == want.dtype
    assert got.detach().numpy().tobytes() == np.asarray(want).tobytes()


@pytest.mark.parametrize("name", ROWS_WITH_UFUNC)
def test_ufunc_of_tensors_is_the_row_of_the_table(name):
    arrays = operands(name)
    x = [ad.tensor(a, requires_grad=True) for a in arrays]
    y = getattr(np, name)(*x)
    assert_same_bits(y, getattr(np, name)(*arrays))
    same = _core.elementwise[name](*x)
    want = ad.autograd.grad(ad.sum(same), x)
    for g, w in zip(ad.autograd.grad(ad.sum(y), x), want, strict=True):
        assert g.tolist() == w.tolist()


@pytest.mark.parametrize("name", [n for n in ROWS_WITH_UFUNC if ARITY[n] == 2])
def test_ufunc_takes_an_array_or_a_number_on_either_side(name):
    a, b = operands(name)
    x, y = ad.tensor(a, requires_grad=True), ad.tensor(b, requires_grad=True)
    ufunc = getattr(np, name)
    for result in (ufunc(x, b), ufunc(a, y)):
        assert_same_bits(result, ufunc(a, b))
        assert result.requires_grad
    assert_same_bits(ufunc(x, float(b[0])), ufunc(a, float(b[0])))
    assert_same_bits(ufunc(np.float64(a[0]), y), ufunc(a[0], b))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("abs", "absolute"),
        ("pow", "power"),
        ("acos", "arccos"),
        ("atan2", "arctan2"),
        ("mod", "remainder"),
        ("true_divide", "divide"),
        ("degrees", "rad2deg"),
    ],
)
def test_numpys_second_names_are_ours_too(alias, name):
    arrays = operands(name if name in ARITY else alias)
    got = getattr(ad, alias)(*map(ad.tensor, arrays))
    assert_same_bits(got, getattr(np, alias)(*arrays))
    assert getattr(ad, alias) is getattr(ad, name)


def test_ndarray_operators_with_a_tensor_give_tensors_with_gradients():
    a = np.array([1.0, 2.0])
    x = ad.tensor([3.0, 4.0], requires_grad=True)
    for y, want in (
        (a + x, [1.0, 1.0]),
        (a - x, [-1.0, -1.0]),
        (a * x, [1.0, 2.0]),
        (a / x, [-1.0 / 9.0, -2.0 / 16.0]),
        (a @ x, [1.0, 2.0]),
        (np.float64(2.0) * x, [2.0, 2.0]),
    ):
        assert isinstance(y, ad.Tensor)
        (g,) = ad.autograd.grad(ad.sum(y), [x])
        np.testing.assert_allclose(g.numpy(), want, 1e-15)


COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]


@pytest.mark.parametrize("name", COMPARISONS + ["logical_and", "logical_or", "logical_xor"])
def test_comparison_gives_a_bool_tensor_or_a_numpy_bool(name):
    a, b = np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 0.0])
    x = ad.tensor(a, requires_grad=True)
    for result in (
        getattr(np, name)(x, b),
        getattr(np, name)(b, x) if name in ("equal", "not_equal") else getattr(np, name)(x, b),
        getattr(ad, name)(x, ad.tensor(b)),
    ):
        assert_same_bits(result, getattr(np, name)(a, b))
        assert not result.requires_grad
    number = getattr(np, name)(ad.tensor(1.0, requires_grad=True), 2.0)
    assert isinstance(number, np.bool_)
    assert number == getattr(np, name)(1.0, 2.0)


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite", "signbit", "logical_not"])
def test_question_about_values_is_answered_without_gradient(name):
    a = np.array([0.0, -1.0, np.nan, np.inf])
    x = ad.tensor(a, requires_grad=True)
    assert_same_bits(getattr(np, name)(x), getattr(np, name)(a))
    assert_same_bits(getattr(ad, name)(a), getattr(np, name)(a))


def test_bitwise_functions_work_on_integer_and_bool_tensors():
    a, b = np.array([1, 2, 3]), np.array([3, 2, 1])
    assert_same_bits(np.bitwise_and(ad.tensor(a), b), a & b)
    assert_same_bits(np.left_shift(ad.tensor(a), 1), a << 1)
    assert_same_bits(np.invert(ad.tensor(a > 1)), ~(a > 1))
    assert_same_bits(np.add(ad.tensor(a), ad.tensor(b)), a + b)


VALUE_ONLY = {
    "allclose": lambda xp, x: xp.allclose(x, x),
    "array_equal": lambda xp, x: xp.array_equal(x, x),
    "array_equiv": lambda xp, x: xp.array_equiv(x, x),
    "isclose": lambda xp, x: xp.isclose(x, 2.0),
    "nonzero": lambda xp, x: xp.nonzero(x),
    "where alone": lambda xp, x: xp.where(x > 1),
    "argwhere": lambda xp, x: xp.argwhere(x),
    "flatnonzero": lambda xp, x: xp.flatnonzero(x),
    "count_nonzero": lambda xp, x: xp.count_nonzero(x, axis=0),
    "argmax": lambda xp, x: xp.argmax(x, axis=1),
    "argmin": lambda xp, x: xp.argmin(x),
    "argmin kept": lambda xp, x: xp.argmin(x, axis=0, keepdims=True),
    "argsort": lambda xp, x: xp.argsort(x),
    "any": lambda xp, x: xp.any(x, axis=0),
    "all": lambda xp, x: xp.all(x),
    "searchsorted": lambda xp, x: xp.searchsorted(xp.ravel(x)[1:], 1.5),
    "digitize": lambda xp, x: xp.digitize(x, [0.5, 1.5]),
    "isin": lambda xp, x: xp.isin(x, [1.0, 2.0]),
    "isreal": lambda xp, x: xp.isreal(x),
    "iscomplexobj": lambda xp, x: xp.iscomplexobj(x),
    "result_type": lambda xp, x: xp.result_type(x, np.float32),
    "shape": lambda xp, x: xp.shape(x),
    "ndim": lambda xp, x: xp.ndim(x),
    "size": lambda xp, x: xp.size(x),
    "size of an axis": lambda xp, x: xp.size(x, 1),
    "tril_indices_from": lambda xp, x: xp.tril_indices_from(x),
    "zeros_like": lambda xp, x: xp.zeros_like(x),
    "ones_like": lambda xp, x: xp.ones_like(x, dtype=np.float32),
    "full_like": lambda xp, x: xp.full_like(x, 3.0),
    "array2string": lambda xp, x: xp.array2string(x),
}


@pytest.mark.parametrize("name", VALUE_ONLY)
def test_value_only_function_is_numpys_and_needs_no_detach(name):
    values = np.array([[0.0, 1.0], [2.0, 3.0]])
    want = VALUE_ONLY[name](np, values)
    x = ad.tensor(values, requires_grad=True)
    for xp in (ad, np):
        got = VALUE_ONLY[name](xp, x)
        if isinstance(want, tuple) and name != "shape":
            for part, other in zip(got, want, strict=True):
                assert_same_bits(part, other)
        elif isinstance(want, (np.ndarray, np.number)):
            assert_same_bits(got, want)
        else:
            assert type(got) is type(want)
            assert got == want


# What NumPy's signatures promise.


def declared(function):
    """Parameters of a function; None where it does not say them by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return None
    return None if any(p.kind is p.VAR_POSITIONAL for p in parameters) else parameters


NAMED = {
    function.__name__: (function, ours)
    for function, ours in numpy_api.FUNCTIONS.items()
    # those of linalg and fft have tests of their own; NumPy renamed the arguments of arange
    if declared(function) and declared(ours) and function.__name__ != "arange"
    and function.__module__ == "numpy"
}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_arguments_are_named_and_ordered_as_numpys(name):
    theirs, ours = map(declared, NAMED[name])
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ours = [p.name for p in ours if p.kind in positional]
    theirs = [p.name for p in theirs if p.kind in positional]
    # NumPy 2.0 still calls reshape's second argument so
    theirs = ["shape" if name == "newshape" else name for name in theirs]
    # what came after NumPy 2.0 stands at the end
    assert ours[: len(theirs)] == theirs[: len(ours)]


def test_every_function_is_public_under_its_numpy_name():
    for name in numpy_coverage.__all__:
        assert getattr(ad, name) is getattr(numpy_coverage, name)
        assert getattr(ad, name).__doc__, name


def test_mixed_lists_of_tensors_arrays_and_numbers_join():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    number = ad.tensor(3.0, requires_grad=True)
    for y in (
        np.concatenate([x, np.ones(2)]),
        np.stack([x, 2.0 * x]),
        np.hstack((x, [1.0])),
        np.vstack([np.zeros(2), x]),
        np.stack([number, 1.0 * number]),
        np.concatenate([x, [4.0, 5.0]]),
    ):
        assert isinstance(y, ad.Tensor)
        assert y.requires_grad
    y = np.concatenate([x, np.array([5.0]), x[:1]])
    assert y.tolist() == [1.0, 2.0, 5.0, 1.0]
    ad.sum(y).backward()
    assert x.grad.tolist() == [2.0, 1.0]


# Methods of ufuncs.


def test_reductions_of_ufuncs_are_the_functions_of_that_name():
    values = np.array([[1.0, 2.0], [4.0, 3.0]])
    x = ad.tensor(values, requires_grad=True)
    for ufunc in (np.add, np.multiply, np.maximum, np.minimum):
        assert_same_bits(ufunc.reduce(x), ufunc.reduce(values))
        assert_same_bits(ufunc.reduce(x, axis=1), ufunc.reduce(values, axis=1))
        assert_same_bits(ufunc.reduce(x, None), ufunc.reduce(values, None))
        assert_same_bits(
            ufunc.reduce(x, (0, 1), keepdims=True), ufunc.reduce(values, (0, 1), keepdims=True)
        )
        assert ufunc.reduce(x).requires_grad
    assert_same_bits(np.add.accumulate(x), np.add.accumulate(values))
    assert_same_bits(np.logical_and.reduce(x), np.logical_and.reduce(values))


def test_outer_of_any_binary_ufunc():
    a, b = np.array([1.0, 2.0]), np.array([[3.0, 4.0]])
    x = ad.tensor(a, requires_grad=True)
    assert_same_bits(np.subtract.outer(x, b), np.subtract.outer(a, b))
    assert np.multiply.outer(b, x).requires_grad


def test_ufunc_with_a_dtype_computes_in_it():
    a = np.array([1.0, 2.0], np.float32)
    x = ad.tensor(a, requires_grad=True)
    y = np.exp(x, dtype=np.float64)
    assert_same_bits(y, np.exp(a, dtype=np.float64))
    assert y.requires_grad


# What cannot be done says what to do instead.


def test_out_argument_is_refused_where_it_would_lose_a_gradient():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    target = np.zeros(2)
    with pytest.raises(TypeError, match=r"add: out= .*`x = x \+ t`"):
        np.add(x, 1.0, out=target)
    with pytest.raises(TypeError, match="add: out="):
        target += x
    with pytest.raises(TypeError, match="sum: out="):
        np.sum(x, out=np.zeros(()))
    with pytest.raises(TypeError, match="prod: out="):
        np.prod(x, out=np.zeros(()))
    assert target.tolist() == [0.0, 0.0]


def test_out_argument_takes_values_of_constants():
    x = ad.tensor([1.0, 2.0])
    target = np.ones(2)
    target += x
    assert target.tolist() == [2.0, 3.0]
    assert type(target) is np.ndarray
    assert np.multiply(x, 3.0, out=target) is target
    assert target.tolist() == [3.0, 6.0]


UNSUPPORTED = {
    "power.reduce": lambda x: np.power.reduce(x),
    "divmod": lambda x: np.divmod(x, 2.0, where=[True, False]),
    "save": lambda x: np.save("never-written", x),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_function_without_gradient_refuses_tensors_that_require_one(name):
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=rf"{name}: .*\.detach\(\)\.numpy\(\)"):
        UNSUPPORTED[name](x)


def test_function_without_gradient_computes_with_constants():
    x = ad.tensor([3.0, 1.0, 2.0])
    assert_same_bits(np.median(x), np.median([3.0, 1.0, 2.0]))
    fraction, whole = np.modf(ad.tensor([1.5]))
    assert (fraction.tolist(), whole.tolist()) == ([0.5], [1.0])
    values, counts = np.unique(ad.tensor([1, 2, 2]), return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([1, 2], [1, 2])
    assert np.mean(x, where=[True, False, True]).item() == 2.5


def test_function_without_gradient_computes_under_no_grad():
    x = ad.tensor([3.0, 1.0, 2.0], requires_grad=True)
    with ad.no_grad():
        assert np.median(x).item() == 2.0


def test_type_that_knows_better_is_asked_itself():
    class Other:
        def __array_function__(self, function, types, args, kwargs):
            return "other"

    assert np.concatenate([ad.zeros(2), Other()]) == "other"


def test_divmod_is_the_quotient_and_the_remainder():
    x = ad.tensor([7.5, -7.5], requires_grad=True)
    for q, r in (np.divmod(x, 2.0), divmod(x, 2.0)):
        assert q.tolist() == [3.0, -4.0]
        assert r.tolist() == [1.5, 0.5]
        (g,) = ad.autograd.grad(ad.sum(r), [x])
        assert g.tolist() == [1.0, 1.0]


def test_special_functions_of_scipy_are_rows_of_the_table():
    special = pytest.importorskip("scipy.special")
    x = ad.tensor([0.5, 1.5], requires_grad=True)
    for name, ours in (("erf", "erf"), ("gammaln", "lgamma"), ("expit", "sigmoid")):
        y = getattr(special, name)(x)
        assert y.tolist() == _core.elementwise[ours](x).tolist()
        assert y.requires_grad
    assert special.xlogy(x, 2.0).requires_grad
    with pytest.raises(TypeError, match="kolmogorov: .*detach"):
        special.kolmogorov(x)


# Options of ufuncs, and functions of functions.


def test_a_ufunc_with_a_mask_gives_zero_and_no_gradient_where_it_does_not_hold():
    a = np.array([0.0, 4.0, -1.0])
    x = ad.tensor(a, requires_grad=True)
    y = np.log(x, where=a > 0.0)
    want = np.log(a, where=a > 0.0, out=np.zeros(3))
    assert_same_bits(y, want)
    (g,) = ad.autograd.grad(ad.sum(y), [x])
    assert g.tolist() == [0.0, 0.25, 0.0]
    assert_same_bits(np.divide(1.0, x.detach(), where=a > 0.0), np.array([0.0, 0.25, 0.0]))


def test_maximum_reduce_and_accumulate_share_a_tie():
    x = ad.tensor([1.0, 1.0], requires_grad=True)
    for y in (np.maximum.reduce(x), np.maximum.accumulate(x)[1], np.maximum.reduceat(x, [0])):
        (g,) = ad.autograd.grad(ad.sum(y), [x])
        assert g.tolist() == [0.5, 0.5]


def test_vectorize_keeps_gradients_where_numpys_refuses_them():
    x = ad.tensor([[-1.0, 3.0]], requires_grad=True)
    with pytest.raises(TypeError, match="requires gradients"):
        np.vectorize(lambda v: v * v)(x)
    y = ad.vectorize(lambda v, k: (v**k if v > 0.0 else -v, v), excluded=["k"])(x, k=2)
    assert [t.tolist() for t in y] == [[[1.0, 9.0]], [[-1.0, 3.0]]]
    (g,) = ad.autograd.grad(ad.sum(y[0]), [x])
    assert g.tolist() == [[-1.0, 6.0]]
    with pytest.raises(TypeError, match="vectorize: .*signature"):
        ad.vectorize(np.sum, signature="(n)->()")


def test_functions_of_functions_keep_what_they_close_over():
    w = ad.tensor(2.0, requires_grad=True)
    for y in (
        np.apply_along_axis(lambda row: w * row, 0, ad.ones((2, 2))),
        np.piecewise(ad.ones(3), [ad.ones(3) > 0.0], [lambda v: w * v]),
        np.fromfunction(lambda i: w * i, (3,), like=w),
    ):
        assert y.requires_grad


def test_programs_follow_results_whose_shape_depends_on_values():
    program = ad.compile(lambda x: np.unique(x).sum() + np.bincount(x > 1.5).sum())
    for values in ([1.0, 2.0, 2.0], [1.0, 2.0, 3.0], [4.0, 4.0, 4.0], [1.0, 2.0, 2.0]):
        assert program(np.array(values)) == np.unique(values).sum() + 3.0


def test_arrays_that_a_call_was_given_may_change_afterwards():
    points, values = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])
    x = ad.tensor(1.5, requires_grad=True)
    y = np.interp(x, points, values)
    points[:], values[:] = 0.0, 0.0
    (g,) = ad.autograd.grad(y, [x])
    assert g.item() == 3.0


def test_an_array_that_comes_back_from_a_call_stays_its_owners():
    kept = np.arange(200.0)
    whole = np.broadcast_arrays(ad.tensor(1.0), kept)[1]
    stacked = np.require(kept, like=ad.tensor(1.0))
    kept[:] = -1.0
    assert whole.tolist() == stacked.tolist() == list(range(200))


def test_functions_with_definitions_are_stored_with_their_program(tmp_path):
    program = ad.compile(lambda x: np.median(x) + np.logaddexp.reduce(x) + np.sort(x)[0])
    x = np.array([3.0, 1.0, 2.0])
    want, slope = program.value_and_grad(x)
    curved = program.hessian(x)
    program.save(tmp_path / "program")
    loaded = ad.load(tmp_path / "program")
    value, g = loaded.value_and_grad(x)
    assert value == want and g.tolist() == slope.tolist()
    assert loaded.hessian(x).tolist() == curved.tolist()


# Methods.


def changed(x, *changes):
    """Copies of `x`, each changed in place."""
    copies = [x.copy() for _ in changes]
    for t, change in zip(copies, changes, strict=True):
        assert change(t) is None
    return copies


METHOD_CALLS = {
    "conj": lambda x: (x.conj(), x.conjugate()),
    "sum": lambda x: (x.sum(axis=0), x.sum(), x.sum(1, keepdims=True)),
    "mean": lambda x: (x.mean(axis=0), x.mean()),
    "prod": lambda x: (x.prod(), x.prod(axis=1, keepdims=True)),
    "max": lambda x: (x.max(), x.max(axis=0), x.max(1, keepdims=True)),
    "min": lambda x: (x.min(), x.min(axis=0)),
    "var": lambda x: (x.var(), x.var(axis=1, ddof=1)),
    "std": lambda x: (x.std(), x.std(axis=0, keepdims=True)),
    "cumsum": lambda x: (x.cumsum(), x.cumsum(axis=1)),
    "argmax": lambda x: (x.argmax(), x.argmax(axis=1)),
    "argmin": lambda x: (x.argmin(), x.argmin(axis=0)),
    "argsort": lambda x: (x.argsort(), x.argsort(axis=0)),
    "any": lambda x: (x.any(axis=0),),
    "all": lambda x: (x.all(axis=0),),
    "dot": lambda x: (x.dot(x.T),),
    "reshape": lambda x: (x.reshape(3, 2), x.reshape((6,)), x.reshape(-1), x.reshape(3, -1)),
    "reshape by columns": lambda x: (x.reshape((3, 2), order="F"),),
    "ravel": lambda x: (x.ravel(), x.flatten(), x.ravel("F")),
    "transpose": lambda x: (x.transpose(), x.transpose(1, 0), x.transpose((0, 1))),
    "swapaxes": lambda x: (x.swapaxes(0, 1),),
    "squeeze": lambda x: (x[None].squeeze(), x[None].squeeze(0)),
    "repeat": lambda x: (x.repeat(2), x.repeat(2, axis=0)),
    "take": lambda x: (x.take([0, 5]), x.take([1], axis=1)),
    "diagonal": lambda x: (x.diagonal(), x.diagonal(1)),
    "trace": lambda x: (x.trace(),),
    "clip": lambda x: (x.clip(1.0, 2.0), x.clip(min=1.0), x.clip(None, 2.0)),
    "round": lambda x: (x.round(), x.round(1)),
    "astype": lambda x: (x.astype(np.float32), x.astype(int)),
    "copy": lambda x: (x.copy(),),
    "fill": lambda x: changed(x, lambda t: t.fill(7.0)),
    "partition": lambda x: changed(x, lambda t: t.partition(1)),
    "put": lambda x: changed(x, lambda t: t.put([0, -1], [5.0, 6.0])),
    "sort": lambda x: changed(x, lambda t: t.sort(), lambda t: t.sort(0)),
    "nonzero": lambda x: x.nonzero(),
    "argpartition": lambda x: (x.argpartition(1),),
    "choose": lambda x: (x[0].astype(int).choose([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]], mode="wrap"),),
    "compress": lambda x: (x.compress([True, False, True], axis=1),),
    "cumprod": lambda x: (x.cumprod(), x.cumprod(axis=1)),
    "searchsorted": lambda x: (x[0].searchsorted([0.5, 2.0]),),
    "tobytes": lambda x: (np.frombuffer(x.tobytes()),),
    "flat": lambda x: (x.flat[3], x.flat[1:]),
    "mT": lambda x: (x.mT,),
    "strides": lambda x: (np.array(x.strides),),
    "dumps": lambda x: (pickle.loads(x.dumps()),),
    "dump": lambda x: (dumped(x),),
    "tofile": lambda x: (filed(x),),
    "item": lambda x: (np.array([x.item(1), x.item(1, 2), x.item((0, 2))]),),
}


def dumped(x):
    with tempfile.TemporaryFile() as file:
        x.dump(file)
        file.seek(0)
        return pickle.load(file)


def filed(x):
    with tempfile.TemporaryDirectory() as folder:
        x.tofile(f"{folder}/x")
        return np.fromfile(f"{folder}/x")


@pytest.mark.parametrize("name", METHOD_CALLS)
def test_method_is_numpys(name):
    values = np.array([[0.25, 3.0, 1.5], [2.0, 0.0, 4.0]])
    for got, want in zip(
        METHOD_CALLS[name](ad.tensor(values)), METHOD_CALLS[name](values), strict=True
    ):
        if isinstance(got, ad.Tensor):
            assert_same_bits(got, want)
        else:
            assert got.tobytes() == want.tobytes()


def test_every_method_in_the_table_is_called_above():
    called = {name.split()[0] for name in METHOD_CALLS} | {"flatten", "conjugate"}
    assert set(numpy_api.METHODS) <= called


def test_tensors_have_ndarrays_attributes_or_a_reason_why_not():
    theirs = {name for name in dir(np.ndarray) if not name.startswith("_set_")}
    assert theirs - set(dir(ad.Tensor)) <= set(numpy_methods.MISSING)
    assert not set(numpy_methods.MISSING) & set(dir(ad.Tensor))
    known = {*theirs, *numpy_methods.OLD, "__buffer__"}         # of all releases
    assert set(numpy_methods.MISSING) <= known
    assert all(numpy_methods.MISSING.values())


def test_bytes_of_a_tensor_that_requires_gradients_are_refused():
    x = ad.tensor([1.0], requires_grad=True)
    for call in (x.tobytes, lambda: x.tofile("never-written")):
        with pytest.raises(RuntimeError, match=r"requires gradients.*\.detach\(\)"):
            call()


@pytest.mark.parametrize("decimals", [0, 1, 2, -1])
def test_round_gives_numpys_bits(decimals):
    values = np.random.default_rng(3).normal(size=50) * 30.0
    assert_same_bits(ad.round(ad.tensor(values), decimals), np.round(values, decimals))
    assert_same_bits(np.around(ad.tensor(values), decimals), np.round(values, decimals))
