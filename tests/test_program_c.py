"""Programs outside of Python: C functions by address, and C source code."""

import copy
import ctypes
import gc
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
from test_program_random import Raised, Writer, built, close, outcome, plain, same_bits

import fastad as ad
from fastad import _core, native

RANDOM = int(os.environ.get("FASTAD_RANDOM_C_FUNCTIONS", "300"))
SEED = int(os.environ.get("FASTAD_RANDOM_SEED", "1"))
X = np.array([0.5, -1.5, 2.0])
M = np.array([[0.25, -1.0, 3.0], [2.0, 0.5, -0.75]])
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]


def flat(*args):
    """Numbers and arrays one behind the other."""
    return np.concatenate([np.ravel(x) for x in args]) if args else np.zeros(0)


def numbers_of(tree):
    """All numbers of a result, in order."""
    if isinstance(tree, (tuple, list)):
        return flat(*[numbers_of(item) for item in tree])
    if isinstance(tree, dict):
        return numbers_of(list(tree.values()))
    return np.ravel(np.asarray(tree, float))


def address(a):
    return a.ctypes.data_as(ctypes.c_void_p)


def run(f, *args):
    """Status, value and gradient of a CFunction."""
    n_in, n_value, n_gradient = f.sizes()
    given, value, gradient = flat(*args), np.full(n_value, 7.0), np.full(n_gradient, 7.0)
    assert given.size == n_in
    status = f.ctypes(address(given), address(value), address(gradient), f.user_data)
    return status, value, gradient


zmul = _core.elementwise["zmul"]

# ---- values --------------------------------------------------------------------------------------

TALL = np.sin(np.arange(2.0 * 150 * 3)).reshape(2, 150, 3)
MARKS = np.arange(6).reshape(2, 3) % 2 == 0


def assigned(m):
    """A copy of a matrix that is written to in all ways."""
    y = m * 1.0
    y[0] = m[1] * 2.0
    y[:, ::-2] *= m[0, 1]
    y[[0, 1], [2, 0]] = m[0, :2]
    y[MARKS] += m[1, 1]
    np.add.at(y, ([0, 0, 1], [1, 1, 1]), m[1])
    y[1:, 1] = 4.0
    return y


FUNCTIONS = {
    "a number": (lambda a, b: a * b + ad.sin(a) / b - 2.0, (0.7, 1.3)),
    "sums and products": (lambda a, b: ((a * b + a) * b + 1.0) * a - b, (0.7, 1.3)),
    "sizes of products": (lambda a, b: b + abs(zmul(a, b)) + abs(zmul(a, a + b)) - abs(zmul(b, b)),
                          (0.7, -1.3)),
    "powers": (lambda a, b: a**b + b**2.0 + a**-1.0 + 2.0**a + a**3, (0.7, 1.3)),
    "special functions": (
        lambda a, b: ad.lgamma(a) + ad.digamma(b) * ad.polygamma(1.0, b) + ad.sinc(a) + ad.erf(b)
        + ad.logaddexp(a, b) + ad.remainder(a, b) + ad.floor_divide(b, a), (0.7, 1.3)),
    "choices": (lambda a, b: ad.clip(a, b, 1.0) + ad.maximum(a, b) + ad.sign(a), (0.7, 0.2)),
    "an array": (lambda x: (ad.tanh(x * 2.0) * x).sum(), (X,)),
    "broadcasting": (lambda x, m: ((x * m + x) / (m * m + 1.0)).sum(), (X, M)),
    "a column": (lambda x, m: (x * m[:1] + ad.reshape(x, (3, 1)) * 2.0).sum(), (X, M)),
    "products": (lambda x, m: (m @ x) @ (m @ x) + (m.T @ m).sum() + x @ x, (X, M)),
    "elements": (lambda x: x[0] * x[2] + x[-2], (X,)),
    "numbers into an array": (lambda a, b: (ad.stack([a, b, a * b]) ** 2).sum(), (2.0, 3.0)),
    "transposing": (lambda m: (m.T @ m @ m.T).sum() + ad.transpose(m).sum(), (M,)),
    "an empty array": (lambda x: x.sum() + 1.5, (np.zeros((0, 3)),)),
    "kinks": (lambda x: ad.sum(ad.abs(x) * ad.maximum(x, 0.25) + ad.clip(x, -1.0, 1.0)), (X,)),
    "large arrays": (lambda x: (ad.tanh(x * x) + x * 0.5).sum() * x[3],
                     (np.linspace(-1.0, 1.0, 9001),)),
    "constant arrays": (lambda x: (x * np.array([1.0, -0.0, np.inf])).sum() + X @ x, (X,)),
    "sums over axes": (lambda m: (ad.sum(m, axis=0) ** 2).sum()
                       + (m.sum(1, keepdims=True) * m).sum() + ad.var(m)
                       + (ad.mean(m, axis=1) ** 3).sum(), (M,)),
    "sums over long axes": (lambda t: (ad.sum(t, axis=(0, 2)) ** 2).sum()
                            + (ad.sum(t, axis=1) ** 2).sum(), (TALL,)),
    "rows by number": (lambda m: (m[[0, 1, 0]] * m[1]).sum()
                       + (m[[1, 0], [2, 2]] ** 2).sum(), (M,)),
    "no rows": (lambda m: (m[[]] ** 2).sum() + m.sum(), (M,)),
    "running sums": (lambda m: (ad.cumsum(m, axis=0) ** 2).sum() + (ad.cumsum(m) ** 3).sum()
                     + (ad.cumsum(m, axis=1) * m).sum(), (M,)),
    "extrema": (lambda t: (ad.max(t, axis=1) ** 2).sum() + ad.min(t) * ad.max(t)
                + (ad.min(t, axis=(1, 2)) ** 2).sum() + ((t == ad.max(t)) * t).sum(), (TALL,)),
    "softmax": (lambda m: (ad.exp(m - ad.max(m, axis=1, keepdims=True)) * m).sum(), (M,)),
    "masks": (lambda m: ad.where((m > 0.5) & (m[0] < m) | ~(m <= 2.0), m * m, -m).sum()
              + ad.where(ad.logical_xor(MARKS, 1.0 >= m), m, 0.0).sum(), (M,)),
    "masks as numbers": (lambda m: ((m > m[0, 0]) * m).sum() + ((m != 1.0) * m[1]).sum()
                         + (ad.isfinite(m) * m).sum()
                         + ad.where(np.signbit(m), m, 3.0).sum(), (M,)),
    "constant masks": (lambda m: ad.where(MARKS, m, m * m).sum() + (m[MARKS] ** 2).sum(), (M,)),
    "assignments": (lambda m: (assigned(m) ** 2).sum(), (M,)),
    "stacks of matrices": (lambda m: ((ad.stack([m, m * m]) @ m.T) ** 2).sum()
                           + (m @ ad.stack([m.T, 2.0 * m.T])[:, None]).sum()
                           + ((ad.stack([m, m * m]) @ m[0]) ** 2).sum()
                           + (m[:, 0] @ ad.stack([m, m * m])).sum(), (M,)),
    "three axes": (lambda t: (t * np.arange(4.0).reshape(1, 2, 2)).sum() + (t + t[:1]).sum(),
                   (np.arange(8.0).reshape(2, 2, 2) - 3.0,)),
}


def moved(args, r):
    return [a + r.uniform(0.0, 0.1, np.shape(a)) if isinstance(a, np.ndarray)
            else a + r.uniform(0.0, 0.1) for a in args]


@pytest.mark.parametrize("f, args", FUNCTIONS.values(), ids=list(FUNCTIONS))
@pytest.mark.parametrize("derivative", [None, "value_and_grad", "grad", "jacobian", "hessian"])
def test_a_c_function_gives_the_bits_of_the_program(f, args, derivative):
    if derivative == "hessian" and flat(*args).size > 100:
        pytest.skip("a matrix of hundreds of megabytes")
    program = ad.compile(f)
    both = 0 if derivative == "hessian" else tuple(range(len(args)))
    replay = program if derivative is None else program.derived(derivative, both)
    try:
        c = program.c_function(*args, derivative=derivative, argnums=both)
    except TypeError as error:          # only what this tree's programs leave to Python
        assert "is computed by Python" in str(error)
        pytest.skip(str(error))
    r = np.random.default_rng(3)
    for given in [args, *[moved(args, r) for _ in range(4)]]:
        status, value, gradient = run(c, *given)
        want = replay(*given)
        assert status == 0
        assert same_bits(flat(value, gradient), numbers_of(want))
    assert gradient.size == (flat(*args).size if derivative == "value_and_grad" else 0)


def test_arguments_and_results_are_nested_as_the_functions_are():
    program = ad.compile(lambda p, k: {"b": (p["u"] * p["v"][0], p["v"][1]), "a": [p["u"] - 1.0]}
                         if k else p["u"])
    given = {"u": 3.0, "v": [X, 2.0]}
    c = program.c_function(given, True)
    status, value, _ = run(c, 3.0, X, 2.0)
    assert (status, value.tolist()) == (0, [*(3.0 * X), 2.0, 2.0])


def test_an_array_that_is_a_result_twice_and_an_argument_that_is_one_are_copied():
    def f(x):
        y = x * 2.0
        return y, x, y, ad.reshape(y, (3, 1)), x[0]

    status, value, _ = run(ad.compile(f).c_function(X), X)
    assert (status, value.tolist()) == (0, [*(2 * X), *X, *(2 * X), *(2 * X), X[0]])


def test_without_examples_the_last_call_is_meant():
    program = ad.compile(lambda x: (x * x).sum())
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        program.c_function()
    program(X)
    assert run(program.c_function(), X)[1].tolist() == [program(X)]
    program(M)
    assert program.c_function().sizes() == (6, 1, 0)


# ---- guards --------------------------------------------------------------------------------------


def way(x):
    if x > 1.0:
        return x * 2.0
    return x - 5.0 if x > 0.0 else ad.exp(x)


def test_a_way_that_was_not_recorded_gives_nan_and_a_status_and_never_a_number():
    program = ad.compile(way)
    c = program.c_function(2.0, derivative="value_and_grad")
    assert run(c, 3.0) == (0, [6.0], [2.0])
    for x in (0.5, -1.0, math.nan):
        status, value, gradient = run(c, x)
        assert status == 1 and np.isnan(value).all() and np.isnan(gradient).all()
    plain_form = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    c = program.c_function(2.0)
    f = plain_form(c.address_of("double (double)"))
    assert f(3.0) == 6.0 and math.isnan(f(0.5))


def test_all_recordings_of_a_signature_are_tried():
    program = ad.compile(way)
    for x in (2.0, 0.5, -1.0):
        program(x)
    c = program.c_function(2.0)
    assert len(c.plans) == 3
    for x in (3.0, 0.25, -2.0, 1.5, -0.5, 1.0):
        assert run(c, x)[:2] == (0, [program(x)])
    assert program.recordings == 3


def test_recordings_that_give_results_of_other_sizes_are_refused():
    program = ad.compile(lambda x: x * 2.0 if x[0] > 0.0 else x[0])
    program(X)
    with pytest.raises(ValueError, match="different sizes"):
        program.c_function(-X)
    with pytest.raises(ValueError, match="different sizes"):
        program.to_c(-X)


@pytest.mark.parametrize("look, x, other", [
    (lambda x: float(x[0]), X, -X),
    (lambda x: int(x[2]), X, 2 * X),
    (lambda x: x.tolist(), X, 2 * X),
    (lambda x: bool(x[0] == 0.5), X, 2 * X),
    (lambda x: bool(x[0] != 0.5), X, 2 * X),
    (lambda x: bool(x[0] >= 0.5), X, -X),
    (lambda x: bool(x[1] <= 0.5), X, -X),
    (lambda x: bool(x[1] < -2.0), X, 2 * X),
    (lambda x: float(x[0]), X * 0.0, -X * 0.0),
    (lambda x: float(x[0] - x[0]), X, X * np.inf),
    (lambda x: ad.max(x) if x[0] > 0.0 else 0.0, X, -X),
], ids="float trunc bytes == != >= <= < zero nan max".split())
def test_each_guard_is_checked(look, x, other, compiled):
    def f(t):
        look(t)
        return (t * 2.0).sum()

    program = ad.compile(f)
    c = program.c_function(x)
    assert run(c, x)[:2] == (0, [program(x)])
    status, value, _ = run(c, other)
    assert status == 1 and np.isnan(value)
    (made,) = compiled(program.to_c(x), "f")
    value, work = np.zeros(1), np.zeros(64)
    assert made(address(x), address(value), address(work)) == 0 and value == program(x)
    assert made(address(other), address(value), address(work)) > 0 and np.isnan(value)


# ---- what a function is made of ------------------------------------------------------------------


def test_tensors_from_outside_have_the_values_of_the_moment_when_it_is_made(compiled):
    w, s = ad.tensor([1.0, 2.0, 3.0], requires_grad=True), ad.tensor(0.5)
    program = ad.compile(lambda x: (x * w).sum() * s)
    with ad.no_grad():
        want = program(X)
        c, text = program.c_function(X), program.to_c(X)
        w *= 10.0
        s += 1.0
        assert program(X) == want * 30.0
    gc.collect()
    assert run(c, X)[:2] == (0, [want])
    (made,) = compiled(text, "f")
    value, work = np.zeros(1), np.zeros(64)
    assert made(address(X), address(value), address(work)) == 0 and value == want


def test_what_a_recording_depends_on_must_be_what_it_was():
    names = [2.0]
    program = ad.compile(lambda x: x * names[0])
    program(3.0)
    names[0] = 4.0
    with pytest.raises(ValueError, match="has changed since"):
        program.c_function()
    assert run(program.c_function(3.0), 3.0)[1] == [12.0]


REFUSED = [
    (lambda x: ad.sort(x), (X,), TypeError, "sort.* is computed by Python here"),
    (lambda x: (x > 0.0, x), (X,), TypeError, "is computed by Python|no float64 array"),
    (lambda x: x * 2.0, (X.astype(np.float32),), TypeError, "input 0 is no float64 array"),
    (lambda x, k: x[k], (X, np.array([1])), TypeError, "is computed by Python|input 1"),
    (lambda x: x.astype(np.float32), (X,), TypeError, "a result is no float64 array"),
    (lambda x: (x, "text"), (X,), TypeError, "the result holds a constant"),
    (lambda x: x * np.random.rand(), (X,), ValueError, "no program of it: .*random"),
    (lambda x, y: x, (X, [object()]), ValueError, "no program of it: an argument is an object"),
]


@pytest.mark.parametrize("make", ["c_function", "to_c"])
@pytest.mark.parametrize("f, args, error, text", REFUSED, ids=range(len(REFUSED)))
def test_what_needs_python_or_is_no_float64_is_refused(f, args, error, text, make):
    program = ad.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        with pytest.raises(error, match=f"{make}: .*({text})"):
            getattr(program, make)(*args)


def test_float32_inside_is_computed_by_c_functions_and_refused_by_c_source():
    program = ad.compile(lambda x: (x * 3.0).astype(np.float32).astype(float).sum())
    x = X / 7.0
    assert run(program.c_function(x), x)[:2] == (0, [program(x)])
    with pytest.raises(TypeError, match="to_c: .*float32"):
        program.to_c(x)


def test_a_function_cannot_be_made_inside_a_recording():
    program = ad.compile(lambda x: x * 2.0)
    program(1.0)

    @ad.compile
    def outer(x):
        program.c_function(1.0)
        return x

    with pytest.raises(ValueError, match="c_function: a program is being recorded"):
        outer(1.0)


def test_an_unknown_derivative_is_refused():
    program = ad.compile(lambda x: x * 2.0)
    for make in (program.c_function, program.to_c):
        with pytest.raises(ValueError, match="derivative='gradient': wanted None, 'value_and_g"):
            make(1.0, derivative="gradient")
    with pytest.raises(ValueError, match="no form 'float"):
        program.c_function(1.0).address_of("float (float)")


# ---- lifetimes -----------------------------------------------------------------------------------


def test_the_ctypes_function_keeps_everything_alive():
    def made():
        program = ad.compile(lambda x: (x * X).sum())
        c = program.c_function(X)
        return c.ctypes, c.user_data, weakref.ref(program)

    f, user_data, program = made()
    gc.collect()
    assert program() is None
    value = np.zeros(1)
    assert f(address(X), address(value), None, user_data) == 0 and value == (X * X).sum()


def test_forms_without_user_data_fail_visibly_when_their_owner_is_gone():
    c = ad.compile(lambda x: x * 2.0).c_function(1.0)
    number = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(c.address_of("double (double)"))
    pointers = [ctypes.c_void_p] * 3
    full = ctypes.CFUNCTYPE(ctypes.c_int, *pointers)(
        c.address_of("int (const double *, double *, double *)"))
    value = np.zeros(1)
    assert number(3.0) == 6.0
    assert full(address(X), address(value), None) == 0 and value == 1.0
    del c
    gc.collect()
    assert math.isnan(number(3.0))
    assert full(address(X), address(value), None) == 3


def test_the_pool_of_forms_without_user_data_ends_with_an_error_and_recovers():
    gc.collect()
    program = ad.compile(lambda x: x * 2.0)
    made = []
    with pytest.raises(RuntimeError, match="all 64 functions without user_data are in use"):
        for _ in range(65):
            made.append(program.c_function(1.0))
            made[-1].address_of("double (double)")
    assert len(made) == 65 and len({c.address_of("double (double)") for c in made[:-1]}) == 64
    assert run(made[-1], 2.0)[1] == [4.0]
    del made
    gc.collect()
    program.c_function(1.0).address_of("double (int, double *)")


def test_it_cannot_be_pickled_or_copied():
    c = ad.compile(lambda x: x * 2.0).c_function(1.0)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="CFunction: .*cannot be pickled"):
            attempt(c)


def test_making_and_dropping_functions_leaves_nothing_behind(fresh_python):
    grown = fresh_python("""
        import gc
        import numpy as np
        import fastad as ad

        program = ad.compile(lambda x: (ad.tanh(x) * x).sum())
        x, value = np.linspace(0.0, 1.0, 20000), np.zeros(1)

        def resident():
            gc.collect()
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * 4096

        def rounds(n):
            for _ in range(n):
                c = program.c_function(x)
                assert c.ctypes(x.ctypes.data, value.ctypes.data, None, c.user_data) == 0
                c.address_of("double (int, double *)")
                try:
                    c.low_level_callable()
                except ImportError:
                    pass
                program.to_c(x[:100])
            return resident()

        rounds(20)
        before = rounds(20)
        print(rounds(60) - before)
    """)
    assert int(grown) < 2 << 20


# ---- threads -------------------------------------------------------------------------------------


def test_threads_call_one_function_at_the_same_time():
    program = ad.compile(lambda x: (ad.tanh(x) * ad.exp(x)).sum() + (x[0] if x[0] > 0.0 else x[1]))
    r = np.random.default_rng(4)
    cases = [r.uniform(-1.0, 1.0, 300) for _ in range(16)]
    for x in cases:
        program.value_and_grad(x)
    c = program.c_function(cases[0], derivative="value_and_grad")
    wants = [program.value_and_grad(x) for x in cases]
    wrong = []

    def work(first):
        f, value, gradient = c.ctypes, np.zeros(1), np.zeros(300)
        for k in range(400):
            x, want = cases[(first + k) % 16], wants[(first + k) % 16]
            status = f(address(x), address(value), address(gradient), c.user_data)
            if status or value[0] != want[0] or not np.array_equal(gradient, want[1]):
                wrong.append((first, k, status))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_more_threads_than_idle_workspaces_are_served(tmp_path):
    """From C threads, without Python's lock, and more of them than workspaces are kept."""
    compiler()
    (tmp_path / "many.c").write_text("""
        #include <pthread.h>
        typedef int call(const double *, double *, double *, void *);
        static call *f; static void *data;
        static void *work(void *arg)
        {
            long wrong = 0;
            double x = (double)(long)arg, y;
            for (int k = 0; k < 200; k++) wrong += f(&x, &y, 0, data) || y != 2.0 * x + 1.0;
            return (void *)wrong;
        }
        long many(void *address, void *user_data)
        {
            pthread_t t[100];
            long wrong = 0;
            f = (call *)address, data = user_data;
            for (long k = 0; k < 100; k++)
                wrong += 1000 * !!pthread_create(t + k, 0, work, (void *)k);
            for (int k = 0; k < 100; k++) { void *w; pthread_join(t[k], &w); wrong += (long)w; }
            return wrong;
        }
    """)
    library = tmp_path / "many.so"
    subprocess.run([compiler(), "-O1", "-shared", "-fPIC", "-pthread", str(tmp_path / "many.c"),
                    "-o", str(library)], check=True)
    c = ad.compile(lambda x: 2.0 * x + 1.0).c_function(1.0)
    many = ctypes.CDLL(str(library)).many
    many.argtypes, many.restype = [ctypes.c_void_p] * 2, ctypes.c_long
    assert many(c.address, c.user_data) == 0


# ---- SciPy and Numba -----------------------------------------------------------------------------

SIGNATURES = ["double (double)", "double (double, void *)", "double (int, double *)",
              "double (int, double *, void *)"]


@pytest.mark.parametrize("signature", [None, *SIGNATURES])
def test_quad_integrates_a_program(signature):
    integrate = pytest.importorskip("scipy.integrate")

    def f(x):
        return ad.exp(-x * x) * ad.cos(3.0 * x)

    program = ad.compile(f)
    c = program.c_function(1.0).low_level_callable(signature)
    gc.collect()
    want = integrate.quad(program, 0.0, 2.0)
    assert integrate.quad(c, 0.0, 2.0) == want
    slope = program.c_function(1.0, derivative="grad").low_level_callable(signature)
    rise = program(2.0) - program(0.0)
    assert integrate.quad(slope, 0.0, 2.0)[0] == pytest.approx(rise, abs=1e-12)


@pytest.mark.parametrize("signature", SIGNATURES[2:])
def test_nquad_integrates_a_program_of_several_numbers(signature):
    integrate = pytest.importorskip("scipy.integrate")
    program = ad.compile(lambda x, y, s: ad.sin(x * y) * s + x)
    c = program.c_function(1.0, 1.0, 1.0).low_level_callable(signature)
    ranges = [(0.0, 1.0), (0.0, 2.0)]
    got = integrate.nquad(c, ranges, args=(0.5,))[0]
    assert got == pytest.approx(integrate.nquad(program, ranges, args=(0.5,))[0], rel=1e-14)


def test_a_way_that_was_not_recorded_makes_an_integral_nan():
    integrate = pytest.importorskip("scipy.integrate")
    program = ad.compile(way)
    c = program.c_function(2.0).low_level_callable()
    with pytest.warns(integrate.IntegrationWarning):
        assert math.isnan(integrate.quad(c, -1.0, 3.0)[0])
    for x in (2.0, 0.5, -1.0):
        program(x)
    c = program.c_function(2.0).low_level_callable()
    assert integrate.quad(c, -1.0, 3.0, points=[0.0, 1.0]) == integrate.quad(
        way, -1.0, 3.0, points=[0.0, 1.0])


def test_a_wrong_count_of_numbers_gives_nan():
    for signature, extra in zip(SIGNATURES[2:], ((), (0,))):
        c = ad.compile(lambda x: x[0] * x[1]).c_function(np.ones(2))
        f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int, ctypes.c_void_p,
                             *[ctypes.c_void_p] * len(extra))(c.address_of(signature))
        extra = [c.user_data for _ in extra]
        assert f(2, address(X), *extra) == X[0] * X[1]
        assert math.isnan(f(3, address(X), *extra)) and math.isnan(f(1, address(X), *extra))


@pytest.mark.parametrize("integer", ["intptr_t", "npy_intp"])
def test_ndimage_filters_with_a_program(integer):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(5).uniform(0.0, 1.0, (6, 7))
    program = ad.compile(lambda w: (w * w).sum() - w[4])
    c = program.c_function(np.ones(9))
    got = ndimage.generic_filter(
        image, c.low_level_callable(f"int (double *, {integer}, double *, void *)"), size=3)
    assert np.array_equal(got, ndimage.generic_filter(image, lambda w: program(w), size=3))

    smooth = ad.compile(lambda line: (line[:-2] + line[1:-1] + line[2:]) / 3.0)
    try:
        c = smooth.c_function(np.ones(9))
    except TypeError:
        smooth = ad.compile(lambda line: ad.stack([line[k] - line[k + 2] for k in range(7)]))
        c = smooth.c_function(np.ones(9))

    def lines(given, out):
        out[...] = smooth(given)

    signature = f"int (double *, {integer}, double *, {integer}, void *)"
    got = ndimage.generic_filter1d(image, c.low_level_callable(signature), 3)
    assert np.array_equal(got, ndimage.generic_filter1d(image, lines, 3))
    shift = ad.compile(lambda i, j: (i - 0.5, j * 0.5))
    c = shift.c_function(1.0, 1.0)
    signature = f"int ({integer} *, double *, int, int, void *)"
    got = ndimage.geometric_transform(image, c.low_level_callable(signature))
    assert np.array_equal(
        got, ndimage.geometric_transform(image, lambda at: shift(float(at[0]), float(at[1]))))


def test_ndimage_raises_where_no_recording_holds():
    ndimage = pytest.importorskip("scipy.ndimage")
    program = ad.compile(lambda w: w[0] if w[0] > 0.0 else w[1])
    c = program.c_function(np.ones(3)).low_level_callable(
        "int (double *, intptr_t, double *, void *)")
    with pytest.raises(RuntimeError, match="unknown error"):
        ndimage.generic_filter(-np.ones(5), c, size=3)


def test_functions_that_do_not_fit_a_signature_are_refused():
    pytest.importorskip("scipy")
    program = ad.compile(lambda x: (x * x).sum())
    for c, signature, text in [
        (program.c_function(X), "double (double)", "takes 3 numbers"),
        (program.c_function(X), "double (double, void *)", "takes 3 numbers"),
        (program.c_function(X, derivative="value_and_grad"), None, "a gradient too"),
        (program.c_function(X, derivative="grad"), None, "gives 3 numbers"),
        (program.c_function(X), "double (float)", "no form 'double \\(float\\)'"),
    ]:
        with pytest.raises(ValueError, match=text):
            c.low_level_callable(signature)


def test_numba_calls_a_program():
    numba = pytest.importorskip("numba")
    program = ad.compile(lambda x: (ad.tanh(x) * x).sum())
    c = program.c_function(X, derivative="value_and_grad")
    f, user_data = c.ctypes, c.user_data

    @numba.njit
    def descend(x, steps):
        value, gradient = np.zeros(1), np.zeros(x.size)
        for _ in range(steps):
            if f(x.ctypes, value.ctypes, gradient.ctypes, user_data) != 0:
                return np.nan
            x -= 0.1 * gradient
        return value[0]

    x, y = X.copy(), X.copy()
    for _ in range(5):
        value, gradient = program.value_and_grad(y)
        y -= 0.1 * gradient
    assert descend(x, 5) == value and np.allclose(x, y, rtol=1e-14)


# ---- C source ------------------------------------------------------------------------------------


def compiler():
    found = shutil.which(os.environ.get("CC", "gcc"))
    if found is None:
        pytest.skip("there is no C compiler")
    return found


@pytest.fixture
def compiled(tmp_path):
    """Compile C source with all warnings as errors; give the functions of these names."""

    def build(text, *names, level="-O2"):
        source, library = tmp_path / "made.c", tmp_path / f"made{len(list(tmp_path.iterdir()))}.so"
        source.write_text(text)
        done = subprocess.run([compiler(), *STRICT, level, "-shared", "-fPIC", str(source), "-lm",
                               "-o", str(library)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = [getattr(ctypes.CDLL(str(library)), name) for name in names]
        for f in found:
            f.argtypes = [ctypes.c_void_p] * (4 if f.__name__.endswith("value_and_grad") else 3)
        return found

    return build


def work_of(text, name):
    return int(re.search(rf"enum {{ {name}_work = (\d+) }};", text)[1])


def run_source(f, text, sizes, given):
    """Status, value and gradient of a compiled function."""
    given, (_, n_value, n_gradient) = flat(*given), sizes
    value, gradient = np.full(n_value, 7.0), np.full(n_gradient, 7.0)
    work = np.full(work_of(text, f.__name__), math.nan)
    results = [value, gradient] if f.__name__.endswith("value_and_grad") else [value]
    status = f(*map(address, [given, *results, work]))
    return status, value, gradient


@pytest.mark.parametrize("tabled", [False, True], ids=["statements", "table"])
@pytest.mark.parametrize("f, args", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_c_source_computes_what_the_program_does(f, args, tabled, compiled, monkeypatch):
    if tabled:
        monkeypatch.setattr(native, "_PIECES_AS_STATEMENTS", 0)
        monkeypatch.setattr(native, "_SHORTEST_TABLE", 2)
        monkeypatch.setattr(native, "_LINES_IN_A_PART", 3)
    program = ad.compile(f)
    both = tuple(range(len(args)))
    replay = program.derived("value_and_grad", both)
    try:
        text = program.to_c(*args, derivative="value_and_grad", argnums=both)
        c = program.c_function(*args, derivative="value_and_grad", argnums=both)
    except TypeError as error:
        assert "is computed by Python" in str(error)
        pytest.skip(str(error))
    value_only, with_gradient = compiled(text, "f", "f_value_and_grad")
    r = np.random.default_rng(6)
    of_numbers = all(isinstance(a, float) for a in args)
    for given in [args, *[moved(args, r) for _ in range(4)]]:
        want = numbers_of(replay(*given))
        status, value, gradient = run_source(with_gradient, text, c.sizes(), given)
        assert status == 0
        got = flat(value, gradient)
        assert same_bits(got, want) if of_numbers else close(got, want, 1e-14), got - want
        assert run_source(value_only, text, c.sizes(), given)[:2] == (0, value)


@pytest.mark.parametrize("row", [r for r in _core.table() if r["name"] != "where"],
                         ids=lambda row: row["name"])
def test_every_row_comes_out_the_same(row, compiled):
    """Value and derivatives to second order of a row of the table, over numbers."""
    f = getattr(ad, row["name"])
    r = np.random.default_rng(7)

    def g(*args):
        return f(*args) * 1.5

    args = [float(np.nextafter(lo, hi) + r.uniform() * (hi - lo)) if lo != hi else lo
            for lo, hi in row["intervals"]]
    free = tuple(k for k, (lo, hi) in enumerate(row["intervals"]) if lo != hi)
    with np.errstate(all="ignore"):
        program = ad.compile(g)
        text = program.to_c(*args, derivative="hessian", argnums=free)
        values, hessians = compiled(text, "f", "f_hessian")
        for _ in range(3):
            want = numbers_of(program(*args))
            assert same_bits(run_source(values, text, (0, 1, 0), args)[1], want)
            want = numbers_of(program.derived("hessian", free)(*args))
            assert same_bits(run_source(hessians, text, (0, want.size, 0), args)[1], want)
            args = [float(a + 1e-3 * (hi - lo) * r.uniform(-1, 1)) if lo != hi else a
                    for a, (lo, hi) in zip(args, row["intervals"])]


def test_the_sum_is_numpys_of_any_length(compiled):
    program = ad.compile(lambda x: x.sum())
    lengths = [0, 1, 2, 7, 8, 9, 15, 16, 127, 128, 129, 130, 255, 256, 257, 1000, 1025, 9001]
    texts = [program.to_c(np.ones(n), name=f"sum{n}") for n in lengths]
    made = compiled("\n".join(texts), *[f"sum{n}" for n in lengths])
    r = np.random.default_rng(8)
    for n, f in zip(lengths, made):
        x, value, work = r.normal(size=n) * 10.0 ** r.integers(-9, 9, n), np.zeros(1), np.zeros(64)
        assert f(address(x), address(value), address(work)) == 0
        assert value[0] == np.add.reduce(x) == program(x)


def test_no_nan_guards_and_reductions_over_axes_are_those_of_the_core(compiled):
    @ad.compile
    def f(x, m):
        t = ad.broadcast_to(x, (4, 2, 3)) * m
        return (t * t).sum() + ad.max(x) * 0.0 if x[0] > -1.0 else x[1]

    try:
        text = f.to_c(X, M, derivative="value_and_grad", argnums=(0, 1))
    except TypeError as error:
        pytest.skip(str(error))
    (made,) = compiled(text, "f_value_and_grad")
    want = numbers_of(f.derived("value_and_grad", (0, 1))(X, M))
    assert same_bits(flat(*run_source(made, text, (9, 1, 9), (X, M))[1:]), want)


def test_all_array_instructions_and_guards_are_known():
    kinds, guards, words = _core.instruction_names()
    assert set(native._INSTRUCTIONS) == set(kinds)
    assert set(guards) == {"<", "<=", "==", "!=", ">", ">=", "bits", "trunc", "bytes", "no_nan"}
    for text in filter(None, words.values()):
        assert re.fullmatch(r"value = (reg\[ip->[abc]\]|value|zmul|fabs|[ ,()*+])+", text)


def test_a_long_program_of_numbers_compiles_in_a_short_time(compiled):
    def f(a, x):
        y = a
        for k in range(12000):
            y = y * x + a if k % 3 else ad.sin(y) * x - y
            if k % 500 == 0 and y > 10.0:
                y = y - 1.0
            if k % 1000 == 0:
                int(y)
        return y

    program = ad.compile(f)
    text = program.to_c(0.5, 0.7, derivative="value_and_grad", argnums=(0, 1))
    assert "f_run(" in text
    value_only, made = compiled(text, "f", "f_value_and_grad", level="-O1")
    for given in ((0.5, 0.7), (0.5, 0.7000001)):
        status, value, gradient = run_source(made, text, (2, 1, 2), given)
        want, slopes = program.derived("value_and_grad", (0, 1))(*given)
        assert (status, value[0], tuple(gradient)) == (0, want, slopes)
        assert run_source(value_only, text, (2, 1, 0), given)[:2] == (0, want)
    status, value, gradient = run_source(made, text, (2, 1, 2), (0.5, 40.0))
    assert status > 0 and np.isnan(value) and np.isnan(gradient).all()


def test_all_recordings_are_in_the_file_and_the_status_names_a_guard(compiled):
    program = ad.compile(way)
    for x in (2.0, 0.5):
        program(x)
    text = program.to_c(2.0)
    (f,) = compiled(text, "f")
    for x in (3.0, 0.25):
        assert run_source(f, text, (1, 1, 0), (x,))[:2] == (0, program(x))
    status, value, _ = run_source(f, text, (1, 1, 0), (-1.0,))
    assert np.isnan(value)
    assert f"return {status};" in text


def test_the_file_says_what_it_holds_and_can_be_written(tmp_path, compiled):
    def area(radius, heights):
        return (heights * radius).sum()

    path = tmp_path / "area.c"
    text = ad.compile(area).to_c(1.0, X, name="area", derivative="grad", path=path)
    assert path.read_text() == text
    head = text.split("*/")[0]
    assert f"area, as recorded by fastad {ad.__version__}" in head
    assert "in[0]: argument 0, a number" in head
    assert "in[1] to in[3]: argument 1, an array of shape (3,)" in head
    assert "int area_grad(const double *in, double *value, double *work)" in head
    assert "BLAS" in head
    compiled(text + ad.compile(area).to_c(1.0, X, name="other"), "area", "area_grad", "other")
    with pytest.raises(OSError):
        ad.compile(area).to_c(1.0, X, path=tmp_path / "missing" / "area.c")


@pytest.mark.parametrize("name, text", [
    ("2f", "is no name"), ("a b", "is no name"), ("", "is no name"), ("f;", "is no name"),
    ("é", "is no name"), ("double", "means something in C"), ("exp", "means something in C"),
    ("main", "means something in C"),
])
def test_names_that_c_does_not_take_are_refused(name, text):
    with pytest.raises(ValueError, match=f"to_c: .*{text}"):
        ad.compile(lambda x: x).to_c(1.0, name=name)


@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are Linux's")
def test_c_source_runs_without_a_finding_of_the_sanitizers(tmp_path):
    texts, calls = [], []
    for k, (f, args) in enumerate(FUNCTIONS.values()):
        program = ad.compile(f)
        both = tuple(range(len(args)))
        try:
            text = program.to_c(*args, name=f"f{k}", derivative="value_and_grad", argnums=both)
        except TypeError:
            continue
        texts.append(text)
        n = flat(*args).size
        numbers = ", ".join(repr(float(x)) for x in flat(*args)) or "0.0"
        calls.append(f"""{{
            const double in[] = {{{numbers}}};
            double *value = malloc(8), *gradient = malloc({8 * n});
            double *work = malloc(sizeof(double) * f{k}_value_and_grad_work);
            bad += !!f{k}_value_and_grad(in, value, gradient, work);
            free(work);
            work = malloc(sizeof(double) * f{k}_work);
            bad += !!f{k}(in, value, work);
            free(value), free(gradient), free(work);
        }}""")
    assert len(texts) > 10
    source = tmp_path / "all.c"
    source.write_text("#include <stdlib.h>\n" + "\n".join(texts)
                      + "int main(void)\n{\nint bad = 0;\n" + "\n".join(calls) + "return bad;\n}\n")
    built_to = tmp_path / "all"
    done = subprocess.run(
        [compiler(), *STRICT, "-g", "-O1", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=undefined", str(source), "-lm", "-o", str(built_to)],
        capture_output=True, text=True)
    if "cannot find" in done.stderr:
        pytest.skip("there are no sanitizers")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([built_to], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- random programs -----------------------------------------------------------------------------


def random_functions(count):
    """Programs of random functions with their arguments; (seed, program, derivative, calls)."""
    seed = SEED
    while count:
        writer = Writer(seed)
        seed += 1
        if count % 2 and writer.shapes != [(), ()]:
            continue
        f = built(writer.source(), writer.state)
        calls = [writer.arguments() for _ in range(5)]
        if writer.in_float32 or any(np.shape(a) != np.shape(b) or type(a) is not type(b)
                                    for call in calls for a, b in zip(call, calls[0])):
            continue
        program = ad.compile(f)
        derivatives = [None, "value_and_grad"] if writer.is_number else [None]
        for derivative in derivatives:
            replay = program if derivative is None else program.value_and_grad
            if any(type(outcome(replay, args)) is Raised for args in calls[:3]):
                continue
            count -= 1
            yield seed - 1, program, replay, derivative, calls
            if not count:
                return


def test_random_programs_are_the_same_from_c():
    made = refused = compared = missed = 0
    with warnings.catch_warnings(), ad.no_grad():
        warnings.simplefilter("ignore")
        for seed, program, replay, derivative, calls in random_functions(RANDOM):
            try:
                c = program.c_function(*calls[0], derivative=derivative)
            except (TypeError, ValueError):
                refused += 1
                continue
            made += 1
            for args in calls:
                status, value, gradient = run(c, *args)
                want = outcome(replay, args)
                compared += 1
                if type(want) is Raised:
                    assert status == 1
                    break
                if status == 1 and not replay.given_up:     # the program has recorded that way now
                    assert np.isnan(value).all() and np.isnan(gradient).all()
                    missed += 1
                    try:
                        c = program.c_function(*args, derivative=derivative)
                    except (TypeError, ValueError):
                        break
                    status, value, gradient = run(c, *args)
                if status:
                    assert replay.given_up
                    break
                assert same_bits(flat(value, gradient), numbers_of(plain(want))), (seed, args)
    print(f"{made} made, {refused} refused, {compared} compared, {missed} with other guards")
    assert made > RANDOM / 10
    assert missed < compared / 2


def test_random_programs_are_the_same_from_c_source(compiled):
    texts, cases = [], []
    with warnings.catch_warnings(), ad.no_grad():
        warnings.simplefilter("ignore")
        for seed, program, _, derivative, calls in random_functions(RANDOM):
            try:
                c = program.c_function(*calls[0], derivative=derivative)
                name = f"p{len(texts)}"
                text = program.to_c(*calls[0], name=name, derivative=derivative)
            except (TypeError, ValueError):
                continue
            codes = [_core.describe_code(p) for p in c.plans]
            of_numbers = not any(code["steps"] or code["tiles"] for code in codes)
            texts.append(text)
            cases.append((seed, c, name if derivative is None else f"{name}_{derivative}", calls,
                          of_numbers))
    made = compiled("\n".join(texts), *[name for _, _, name, _, _ in cases], level="-O1")
    compared = exact = other_bits = 0
    for f, text, (seed, c, _, calls, of_numbers) in zip(made, texts, cases):
        for args in calls:
            want = run(c, *args)
            got = run_source(f, text, c.sizes(), args)
            if not of_numbers and got[0] and not want[0]:
                other_bits += 1         # a guard wants bits that BLAS or NumPy's vector code gives
                assert np.isnan(got[1]).all()
                continue
            assert (got[0] == 0) == (want[0] == 0), (seed, args)
            got, want = flat(*got[1:]), flat(*want[1:])
            compared += 1
            exact += of_numbers
            assert same_bits(got, want) if of_numbers else close(got, want, 1e-10), (seed, args)
    print(f"{len(texts)} compiled, {compared} compared, {exact} bit for bit")
    assert len(texts) > RANDOM / 10 and exact > compared / 20
    assert other_bits <= compared / 50
