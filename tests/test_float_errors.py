"""What `np.errstate` says about floating-point exceptions holds for tensors too."""

import itertools
import threading
import warnings

import numpy as np
import pytest

import fastad as ad
from fastad import _core

NUMBERS = [0.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e308, -1e-200, 1e-310, 750.0, 3.0]
KINDS = {
    "number": float,
    "array": lambda v: np.full(5, v),
    "long array": lambda v: np.full(300, v),
    "single": lambda v: np.full(5, v, np.float32),
    "complex": lambda v: np.full(5, v, complex),
}
# libm's pow takes 0 to the power of -inf without a word, and comparing nan says nothing of nan
SILENT = {("power", "number"), ("logaddexp", "number"), ("logaddexp2", "number")}


def told(call, *operands, under="call"):
    """What a call reports, in order."""
    seen = []
    with np.errstate(all="call", under=under, call=lambda text, flags: seen.append((text, flags))):
        call(*operands)
    return seen


def differences(row, kind, function):
    """Operands for which a row reports something else than NumPy."""
    ufunc, found = getattr(np, row["name"]), []
    under = "ignore" if kind == "number" else "call"
    numbers = NUMBERS if row["arity"] < 3 else NUMBERS[::3]
    for point in itertools.product(numbers, repeat=row["arity"]):
        with np.errstate(all="ignore"):
            arrays = [KINDS[kind](v) for v in point]
        try:
            want = told(ufunc, *arrays, under=under)
        except TypeError:           # no such function of complex numbers
            continue
        if told(function, *[ad.tensor(a) for a in arrays], under=under) != want:
            found.append(point)
    return found


ROWS = [row for row in _core.table() if isinstance(getattr(np, row["name"], None), np.ufunc)]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_report_what_numpy_reports(kind):
    different = {row["name"]: points for row in ROWS
                 if (points := differences(row, kind, _core.elementwise[row["name"]]))}
    allowed = {name for name, of in SILENT if of == kind}
    assert set(different) <= allowed, different


def test_the_comparison_sees_a_report_that_is_missing_and_one_too_many():
    row = next(row for row in ROWS if row["name"] == "log")
    assert differences(row, "array", lambda x: x)
    assert differences(row, "array", lambda x: ad.log(x) / 0.0)


CALLS = {
    "1 / x": lambda x: 1.0 / x,
    "ad.log": ad.log,
    "np.log": np.log,
    "x ** -1.0": lambda x: x**-1.0,
    "x / 0": lambda x: x / 0,
    "sum": lambda x: ad.sum(ad.stack([x + np.inf, x - np.inf])),
    "matmul": lambda x: ad.matmul(ad.full((2, 2), 1e300) + x, np.full((2, 2), 1e300)),
    "complex": lambda x: 1.0 / x.astype(complex),
}


@pytest.mark.parametrize("shape", [(), (2,)], ids=["number", "array"])
@pytest.mark.parametrize("name", CALLS)
def test_an_error_leaves_the_tape_as_it_was(name, shape):
    x = ad.tensor(np.zeros(shape), requires_grad=True)
    y = ad.sum(3.0 * x)
    with np.errstate(all="ignore"):
        CALLS[name](x)
        ad.release_memory()
        before = _core.tape_stats()["nodes"]
    with np.errstate(all="raise", under="ignore"), pytest.raises(FloatingPointError):
        CALLS[name](x)
    ad.release_memory()
    assert _core.tape_stats()["nodes"] == before
    y.backward()
    assert np.all(x.grad.numpy() == 3.0)


@pytest.mark.parametrize("name", ["1 / x", "ad.log", "np.log"])
@pytest.mark.parametrize("shape", [(), (2,)], ids=["number", "array"])
def test_by_default_a_warning_names_the_line_of_the_caller(name, shape):
    x = ad.tensor(np.zeros(shape), requires_grad=True)
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in ") as caught:
        CALLS[name](x)
    assert [w.filename for w in caught] == [__file__]


def test_a_warning_made_an_error_leaves_no_result():
    x = ad.tensor([0.0, 1.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="encountered in log"):
            ad.log(x)
    with np.errstate(divide="ignore"):
        ad.sum(ad.log(x)).backward()
    assert x.grad.tolist() == [np.inf, 1.0]


def test_print_and_log_write_numpys_line(capsys):
    x, lines = ad.tensor([0.0]), []

    class Log:
        def write(self, line):
            lines.append(line)

    with np.errstate(divide="print"):
        1.0 / x
    assert capsys.readouterr().err == "Warning: divide by zero encountered in divide\n"
    with np.errstate(divide="log", call=Log()):
        1.0 / x
    assert lines == ["Warning: divide by zero encountered in divide\n"]


def test_what_was_computed_before_is_not_reported():
    zero, ones = ad.tensor(0.0), [ad.ones(k) for k in (2, 1000)]
    for one in [*ones, *[t.astype(np.float32) for t in ones]]:
        with np.errstate(all="ignore"):
            ad.log(zero), 1.0 / zero, ad.exp(ad.tensor(-1e5))
            ad.exp(np.full(4, 1e5, np.float32) + ad.zeros(4, np.float32))
        assert told(lambda x: x + x, one) == []
        assert told(ad.exp, one) == []


def test_settings_belong_to_a_thread():
    x, seen = ad.tensor([0.0]), []

    def other():
        with np.errstate(divide="call", call=lambda *given: seen.append(given)):
            1.0 / x

    with np.errstate(divide="raise"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with pytest.raises(FloatingPointError):
            1.0 / x
    assert seen == [("divide by zero", 1)]
    with np.errstate(divide="ignore"):
        1.0 / x
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        1.0 / x


def test_settings_may_change_without_a_context():
    before = np.seterr(all="ignore")
    try:
        1.0 / ad.tensor([0.0])
        np.seterr(divide="raise")
        with pytest.raises(FloatingPointError):
            1.0 / ad.tensor([0.0])
    finally:
        np.seterr(**before)


def test_derivatives_are_quiet():
    def f(x):
        return ad.sum(ad.sqrt(x)) + ad.prod(x)

    x = np.array([0.0, 4.0])
    with np.errstate(all="raise"):
        assert ad.grad(f)(x).tolist() == [np.inf, 0.25]
        assert ad.hessian(f)(x)[0][0] == -np.inf
        assert ad.jvp(f, (x,), (np.ones(2),))[1] == np.inf
        t = ad.tensor(x, requires_grad=True)
        f(t).backward(create_graph=True)
    assert t.grad.tolist() == [np.inf, 0.25]


def test_programs_raise_what_their_results_show_and_no_more():
    program = ad.compile(lambda x: ad.sum(1.0 / x))
    hidden = ad.compile(lambda x: ad.sum(1.0 / (1.0 / x)))
    with np.errstate(all="raise"):
        for _ in range(3):
            with pytest.raises(FloatingPointError, match="divide"):
                program(np.zeros(2))
            assert hidden(np.zeros(2)) == 0.0


def test_a_callback_may_use_tensors():
    x, seen = ad.tensor([0.0, 1.0], requires_grad=True), []
    with np.errstate(divide="call", call=lambda text, flags: seen.append(ad.sum(x * 2.0))):
        y = ad.sum(1.0 / (x + 0.0))
    y.backward()
    seen[0].backward()
    assert x.grad.tolist() == [-np.inf, 1.0]
