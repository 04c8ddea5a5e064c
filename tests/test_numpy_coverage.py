"""Every overridable function of NumPy: its class, its value and its derivatives.

`numpy_examples` has calls of each differentiable function.  Their values must be NumPy's, bit for
bit, for all kinds of operands; their first derivatives are compared with central differences, and
with a complex step where the function continues into the complex plane; second derivatives with
differences of the first; programs with ordinary code.
"""

import importlib.util
import io
import warnings
from pathlib import Path

import numpy as np
import numpy_examples
import pytest
from numpy_examples import EXAMPLES, METHODS, Example, function_of, present

import fastad as ad
from fastad import numpy_api, numpy_coverage, numpy_creation
from fastad.numpy_coverage import UNSUPPORTED, classify

ALL = present(EXAMPLES + METHODS)
BY_NAME = {}
for example in ALL:
    BY_NAME.setdefault(example.name, []).append(example)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# ---- classes -------------------------------------------------------------------------------------


def test_every_overridable_function_has_a_class():
    unknown = [key for key, f in numpy_coverage.overridable().items() if classify(f) is None]
    assert unknown == []


def test_a_function_that_no_table_has_is_found():
    assert classify(np.busday_count) == UNSUPPORTED
    assert classify(np.show_config) is None
    assert classify(np.frompyfunc(abs, 1, 1)) is None


def test_every_differentiable_function_has_an_example():
    missing = sorted(set(numpy_examples.unnamed()) - set(BY_NAME))
    assert missing == []


def test_linear_algebra_and_transforms_have_examples_in_their_own_tests():
    test_linalg = pytest.importorskip("test_linalg")
    test_fft = pytest.importorskip("test_fft")
    tested = {title.split(",")[0].split()[0] for title in test_linalg.CASES}
    tested |= {*test_fft.ONE_AXIS, *test_fft.MORE_AXES, "fftshift", "ifftshift"}
    assert {name for (_, module, name), function in numpy_coverage.overridable().items()
            if module in ("numpy.linalg", "numpy.fft")
            and classify(function) == numpy_coverage.DIFFERENTIABLE} <= tested


def test_examples_are_of_differentiable_functions():
    known = set(numpy_examples.unnamed()) | set(numpy_creation.MADE)
    known |= {"linalg.norm", "linalg.matrix_transpose"}
    assert {name for name in BY_NAME if not isinstance(
        function_of(name.rpartition(".")[0] or name), np.ufunc)} <= known


def test_unsupported_functions_say_why_and_what_to_do():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    seen = 0
    for (kind, _, name), function in numpy_coverage.overridable().items():
        if classify(function) != UNSUPPORTED:
            continue
        why, instead = numpy_coverage.refusal(
            name, "numpy" if kind == "ufunc" else numpy_coverage._home(function))
        with pytest.raises(TypeError) as caught:
            if kind == "ufunc":
                numpy_api.array_ufunc(ad.Tensor, function, "__call__", (x,) * function.nin, {})
            else:
                numpy_api.array_function(function, (ad.Tensor,), (x,), {})
        assert why in str(caught.value) and instead in str(caught.value), name
        assert name.removeprefix("_") in str(caught.value)
        seen += 1
    assert seen > 20


def test_what_is_not_supported_computes_with_values_where_it_can():
    x = ad.tensor([1.0, -3.0, 2.0])
    np.savetxt(file := io.StringIO(), x, "%g")
    assert file.getvalue() == "1\n-3\n2\n"
    with pytest.raises(TypeError, match="isnat: it is a function of dates"):
        np.isnat(x)
    with ad.no_grad():
        np.savetxt(file := io.StringIO(), x.detach().requires_grad_(), "%g")
    assert file.getvalue() == "1\n-3\n2\n"


VALUES = [
    lambda x: np.packbits(np.greater(x, 0.0)), lambda x: np.digitize(x, [0.0, 1.0]),
    lambda x: np.bincount(x > 0), lambda x: np.histogram(x, 3)[0],
    lambda x: np.unique_counts(x).counts, lambda x: np.unique_inverse(x).inverse_indices,
    lambda x: np.frexp(x)[1], lambda x: np.argpartition(x, 1), lambda x: np.nanargmax(x),
    lambda x: np.unpackbits(np.packbits(x > 0)), lambda x: np.isnan(x),
    lambda x: np.logical_xor.reduce(x > 0), lambda x: np.bitwise_or.accumulate(x > 0),
    lambda x: np.ones(3, like=x), lambda x: np.arange(3.0, like=x),
    lambda x: np.fromiter([1.0, 2.0], float, like=x), lambda x: np.tri(2, like=x),
    lambda x: np.logical_and(x, x, where=True),
]


def test_value_only_results_are_numpys_and_carry_no_gradient():
    values = np.array([0.5, -1.0, 2.0])
    x = ad.tensor(values, requires_grad=True)
    for k, call in enumerate(VALUES):
        got, want = call(x), call(values)
        if isinstance(got, ad.Tensor):
            assert not got.requires_grad, k
            got = got.numpy()
        assert same_bits(got, want), k


@pytest.fixture
def table_script():
    path = Path(__file__).resolve().parent.parent / ".ci" / "coverage_table.py"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_in_the_docs_is_what_its_script_writes(table_script):
    page = table_script.DOCUMENT.read_text()
    assert table_script.stale(page) == [], "run: python .ci/coverage_table.py --write"


def test_a_stale_table_is_found(table_script):
    page = table_script.DOCUMENT.read_text()
    assert table_script.stale(page.replace("| `sort` | differentiable", "| `sort` | value only"))
    assert table_script.stale(page + "| `sort` | value only | |\n")
    assert table_script.stale(page.replace("Tensors are in C order", "Tensors are in any order"))
    assert not table_script.stale(page + "| `brand_new` | value only |  |\n")


# ---- values --------------------------------------------------------------------------------------


def parts(y):
    """What a call gives, as a list of arrays."""
    if isinstance(y, (list, tuple)):
        return [a for part in y for a in parts(part)]
    return [y.detach().numpy() if isinstance(y, ad.Tensor) else np.asarray(y)]


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.ascontiguousarray(
        a).tobytes() == np.ascontiguousarray(b).tobytes()


def apart(a, b):
    """By how many units in the last place of the larger elements of `b` two arrays differ."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.inf
    if a.dtype.kind not in "fc" or not a.size:
        return 0.0 if same_bits(a, b) else np.inf
    good = np.isfinite(b)
    if not np.array_equal(a[~good], b[~good], equal_nan=True):
        return np.inf
    scale = np.spacing(np.abs(b[good]).max(initial=0.0))
    return float(np.max(np.abs(a[good] - b[good]) / scale, initial=0.0)) if good.any() else 0.0


LAYOUTS = {
    "plain": lambda a: a,
    "by columns": lambda a: np.asfortranarray(a) if a.ndim else a,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "backwards": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape) if a.ndim else a,
}


def outcome(call, operands):
    try:
        return parts(call(*operands)), None
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        return None, error


def value_faults(example, dtypes=(np.float64, np.float32, np.complex128)):
    """Sentences about values of an example that are not NumPy's."""
    faults = []
    for dtype in dtypes[: 2 if example.real else None]:
        kinds = {name: [layout(a) for a in example.arrays(dtype=dtype)]
                 for name, layout in LAYOUTS.items()}
        if example.forms:
            kinds["empty"] = example.arrays(n=0, r=0, dtype=dtype)
            kinds["numbers"] = [np.array(a.ravel()[0]) for a in kinds["plain"]]
        for name, arrays in kinds.items():
            want, refused = outcome(example.call, [np.ascontiguousarray(a) if a.ndim else a
                                                   for a in arrays])
            for requires in (False, True):
                tensors = [ad.tensor(a, requires_grad=requires) for a in arrays]
                got, error = outcome(example.call, tensors)
                where = f"{example.name}, {np.dtype(dtype)}, {name}, gradients {requires}"
                if refused is not None:
                    if error is None:
                        faults.append(f"{where}: NumPy raises {refused!r}")
                elif error is not None:
                    faults.append(f"{where}: raises {error!r}")
                elif len(got) != len(want):
                    faults.append(f"{where}: {len(got)} results, NumPy has {len(want)}")
                else:
                    allowed = example.number_ulps if name == "numbers" else example.ulps
                    if name in LAYOUTS:
                        faults += order_faults(example, arrays, got, where)
                    for g, w in zip(got, want):
                        if not same_bits(g, w) and not 0 < apart(g, w) <= allowed:
                            faults.append(f"{where}: {g.dtype}{g.shape}, {apart(g, w):.3g} ulp")
    return faults


def order_faults(example, arrays, got, where):
    """Values may differ from NumPy's of the same layout by the order in which sums are added up."""
    return [f"{where}: {apart(g, w):.3g} ulp from NumPy's for this layout"
            for g, w in zip(got, parts(example.call(*arrays))) if not apart(g, w) <= 4]


def test_values_are_numpys_bit_for_bit_for_all_kinds_of_operands():
    faults = [fault for example in ALL for fault in value_faults(example)]
    assert faults == [], "\n".join(faults)


def test_the_check_of_values_sees_a_wrong_bit():
    more = np.nextafter(1.0, 2.0)
    wrong = Example("wrong", lambda x: x * more if isinstance(x, ad.Tensor) else x, ("n", 4))
    assert any("ulp" in fault for fault in value_faults(wrong))
    missing = Example("missing", lambda x: np.sum(x, axis=5) if isinstance(x, np.ndarray) else x,
                      ("n", 4))
    assert any("NumPy raises" in fault for fault in value_faults(missing))


# ---- derivatives ---------------------------------------------------------------------------------


class Loss:
    """A weighted sum of an example's results, as a function of all operands in one vector."""

    def __init__(self, example, dtype=float):
        self.example = example
        self.arrays = example.arrays(dtype=dtype)
        self.dtype = dtype
        self.cuts = np.cumsum([0, *[a.size for a in self.arrays]]).tolist()
        self.start = np.concatenate([a.ravel() for a in self.arrays])
        rng = np.random.default_rng(1)
        self.weights = []
        for part in parts(example.call(*self.arrays)):
            w = rng.normal(size=part.shape)
            if part.dtype.kind == "c":
                w = w + 1j * rng.normal(size=part.shape)
            self.weights.append(w)

    def operands(self, z):
        return [z[a:b].reshape(x.shape) for a, b, x in zip(self.cuts, self.cuts[1:], self.arrays)]

    def results(self, z):
        found = self.example.call(*self.operands(z))
        return self.flat(found)

    def flat(self, y):
        return [a for part in y for a in self.flat(part)] if isinstance(y, (list, tuple)) else [y]

    def __call__(self, z):
        total = 0.0
        for y, w in zip(self.results(z), self.weights, strict=True):
            if y.dtype.kind not in "fc":
                continue
            total = total + (np.real(np.multiply(y, np.conjugate(w))).sum())
        return total

    def holomorphic(self, z):
        """The same without taking real parts, for a complex step."""
        total = 0.0
        for y, w in zip(self.results(z), self.weights, strict=True):
            if y.dtype.kind in "fc":
                total = total + (y * w).sum()
        return total


def differences(f, x, step):
    """Central differences of `f` in each component of `x`."""
    columns = []
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = step
        columns.append((np.asarray(f(x + e)) - np.asarray(f(x - e))) / (2 * step))
    return np.array(columns)


def close(a, b, tolerance):
    size = max(1.0, np.max(np.abs(b), initial=0.0))
    return np.max(np.abs(a - b), initial=0.0) <= tolerance * size


def derivative_faults(example):
    """Sentences about derivatives of an example that are wrong."""
    faults = []
    loss = Loss(example)
    x = loss.start
    if not x.size:
        return [f"{example.name}: no operands"]
    slope = ad.grad(loss)
    g = slope(x)
    if not close(g, differences(loss, x, 1e-6), 2e-6):
        faults.append(f"{example.name}: gradient {g} is not {differences(loss, x, 1e-6)}")
    if bool(np.any(g)) == example.zero and loss.weights:
        faults.append(f"{example.name}: zero is {example.zero}, and the gradient is {g}")
    if all(w.dtype.kind == "f" for w in loss.weights):
        faults += complex_step_faults(loss, g)
    v = np.random.default_rng(2).normal(size=x.size)
    _, curved = ad.jvp(slope, (x,), (v,))
    h = 1e-5
    want = (slope(x + h * v) - slope(x - h * v)) / (2 * h)
    if not close(curved, want, 2e-5):
        faults.append(f"{example.name}: second derivative {curved} is not {want}")
    reverse = ad.grad(lambda z: (ad.grad(loss)(z) * v).sum())(x)
    if not close(reverse, want, 2e-5):
        faults.append(f"{example.name}: second derivative in reverse {reverse} is not {want}")
    value, tangent = ad.jvp(loss, (x,), (v,))
    if not close(tangent, g @ v, 1e-12 * x.size):
        faults.append(f"{example.name}: tangent {tangent} is not {g @ v}")
    return faults


def complex_step_faults(loss, g):
    """Compare with a complex step where the function's continuation has the same slopes."""
    try:
        steps = []
        for k in range(loss.start.size):
            z = loss.start.astype(complex)
            z[k] += 1e-30j
            steps.append(np.imag(loss.holomorphic(z)) / 1e-30)
    except (TypeError, ValueError):
        return []
    steps = np.array(steps)
    if not close(steps, g, 1e-5):       # not continued: absolute values, comparisons
        return []
    loss.example.stepped = True
    if close(g, steps, 1e-11):
        return []
    return [f"{loss.example.name}: gradient {g} is not the complex step's {steps}"]


def program_faults(example):
    """Sentences about values and derivatives of an example that differ in a program."""
    loss = Loss(example)
    program = ad.compile(loss.__call__)
    faults = []
    for seed in (0, 1):
        x = np.concatenate([a.ravel() for a in example.arrays(seed=seed)])
        value, g = program.value_and_grad(x)
        if value != float(loss(x)) or not close(g, ad.grad(loss)(x), 1e-12):
            faults.append(f"{example.name}: a program gives {value}, {g}; "
                          f"not {loss(x)}, {ad.grad(loss)(x)}")
    v = np.linspace(1.0, 2.0, x.size)
    want = ad.jvp(ad.grad(loss), (x,), (v,))[1]
    if not close(program.hvp(x, v), want, 1e-11):
        faults.append(f"{example.name}: a program's second derivative is wrong")
    return faults


def test_first_and_second_derivatives_agree_with_differences():
    faults = [fault for example in ALL for fault in derivative_faults(example)]
    assert faults == [], "\n".join(faults)
    assert sum(hasattr(example, "stepped") for example in ALL) > 100


def test_programs_give_what_ordinary_code_gives():
    faults = [fault for example in ALL for fault in program_faults(example)]
    assert faults == [], "\n".join(faults)


def test_the_check_of_derivatives_sees_a_wrong_one():
    def without(x):
        return x**2 + (x.detach() if isinstance(x, ad.Tensor) else x)

    cut = Example("cut", without, ("n",))
    assert any("gradient" in fault for fault in derivative_faults(cut))


def test_gradients_of_complex_operands_are_those_of_their_parts():
    faults, seen = [], 0
    for example in ALL:
        if example.real:
            continue
        try:
            loss = Loss(example, complex)
            value = loss(loss.start)
        except (TypeError, ValueError, IndexError):
            continue
        if not any(w.dtype.kind == "c" for w in loss.weights) or not np.isfinite(value):
            continue
        z = loss.start
        g = ad.grad(loss)(z)
        want = differences(loss, z, 1e-6) + 1j * differences(lambda y: loss(1j * y), -1j * z, 1e-6)
        seen += 1
        if not close(g, want, 1e-5):
            faults.append(f"{example.name}: {g} is not {want}")
    assert faults == [], "\n".join(faults)
    assert seen > 100
