"""The array API standard, against the reference implementation, and what is built on it.

``array_api_strict`` has the standard's functions, with the standard's signatures and nothing else.
"""

import inspect
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

import fastad as ad

strict = pytest.importorskip("array_api_strict")
if np.lib.NumpyVersion(np.__version__) < "2.1.0":
    pytest.skip("NumPy 2.0 itself lacks functions of the standard", allow_module_level=True)
if strict.__array_api_version__ != ad.__array_api_version__:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # it says that the version is not its newest
        strict.set_array_api_strict_flags(api_version=ad.__array_api_version__)

DTYPES = ("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 "
          "complex128").split()
# What of the standard does not hold, and why.
SKIPPED = {
    "from_dlpack": "array_api_strict takes only its own arrays; tests of exchange cover it",
    "empty": "its values are arbitrary",
    "empty_like": "its values are arbitrary",
    "__array_namespace_info__": "compared by its own test",
}
NOT_THE_STANDARDS = {
    name for name in vars(strict) if name.endswith("array_api_strict_flags")
} | {"ArrayAPIStrictFlags", "Device"}


def functions(namespace):
    """Names of the functions of the standard in one of array_api_strict's namespaces."""
    return sorted(
        name for name in namespace.__all__
        if inspect.isfunction(getattr(namespace, name)) and name not in NOT_THE_STANDARDS
    )


def in_version(namespace, name):
    """Whether the standard's version that fastad follows has the function."""
    try:
        getattr(namespace, name)()
    except RuntimeError:        # array_api_strict: "not available in ... version"
        return False
    except Exception:
        return True
    return True


NAMESPACES = {"": (strict, ad), "linalg.": (strict.linalg, getattr(ad, "linalg", None)),
              "fft.": (strict.fft, getattr(ad, "fft", None))}
NAMES = [
    (prefix, name) for prefix, (theirs, _) in NAMESPACES.items() for name in functions(theirs)
    if in_version(theirs, name)
]


def test_a_tensor_names_fastad_as_its_namespace():
    x = ad.tensor([1.0])
    assert x.__array_namespace__() is ad
    assert x.__array_namespace__(api_version="2024.12") is ad
    assert ad.__array_api_version__ == "2024.12"


def test_a_version_of_the_standard_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="version '1999.1' of the standard is not known"):
        ad.tensor([1.0]).__array_namespace__(api_version="1999.1")


@pytest.mark.parametrize("name", ["e", "inf", "nan", "newaxis", "pi", *DTYPES])
def test_constants_and_dtypes_are_there(name):
    assert getattr(ad, name) is getattr(np, name)


def binding_errors(theirs, ours):
    """What a call by the standard's signature would be refused for."""
    kinds = inspect.Parameter
    given = inspect.signature(theirs).parameters.values()
    by_place = [p.name for p in given if p.kind is kinds.POSITIONAL_ONLY]
    either = [p.name for p in given if p.kind is kinds.POSITIONAL_OR_KEYWORD]
    by_name = [p.name for p in given if p.kind is kinds.KEYWORD_ONLY]
    several = [1, 2] if any(p.kind is kinds.VAR_POSITIONAL for p in given) else []
    calls = [([*by_place, *either, *several], by_name)]
    if not several:
        calls.append((by_place, either + by_name))
    for places, names in calls:
        try:
            inspect.signature(ours).bind(*places, **dict.fromkeys(names))
        except TypeError as error:
            yield str(error)


@pytest.mark.parametrize("prefix, name", NAMES)
def test_every_function_of_the_standard_takes_what_the_standard_gives_it(prefix, name):
    theirs, ours = NAMESPACES[prefix]
    assert not list(binding_errors(getattr(theirs, name), getattr(ours, name)))


def test_the_check_of_signatures_sees_a_missing_keyword_and_a_missing_place():
    def theirs(x, /, *, axis=None): ...
    def no_axis(x): ...
    def no_place(*, axis=None): ...
    assert list(binding_errors(theirs, no_axis))
    assert list(binding_errors(theirs, no_place))


def test_arrays_have_every_attribute_and_operator_of_the_standard():
    wanted = {name for name in dir(type(strict.asarray(1.0)))
              if name.strip("_") == name or name.startswith("__")}
    wanted -= {"__annotations__", "__slots__", "__weakref__", "__buffer__", "__module__"}
    assert not {name for name in wanted if not hasattr(ad.Tensor, name)}


@pytest.mark.skipif(not hasattr(np, "__array_namespace_info__"), reason="NumPy before 2.1")
def test_the_namespace_describes_itself():
    info = ad.__array_namespace_info__()
    assert info.default_device() == "cpu" and info.devices() == ["cpu"]
    assert info.default_dtypes()["real floating"] == ad.float64
    assert set(info.dtypes(kind="complex floating")) == {"complex64", "complex128"}
    assert info.capabilities()["boolean indexing"]


# ---- values -------------------------------------------------------------------------------------

M23 = [[0.5, -1.25, 2.0], [3.0, 0.25, -0.75]]
SPD = [[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]]
SQUARE = [[2.0, 1.0, 0.5], [-1.0, 3.0, 0.25], [0.5, 0.75, 2.0]]
V3 = [0.5, -1.25, 2.0]
ROW = [3, 1, 2, 1]


def A(values, dtype=None):
    """An argument that becomes an array of the namespace that is called."""
    return ("array", values, dtype)


# Calls of the functions whose arguments are not one or two arrays of numbers.
CALLS = {
    "arange": [((5,), {}), ((1, 7, 2), {}), ((1.0, 2.0, 0.25), {}), ((4,), {"dtype": "float32"})],
    "asarray": [((M23,), {}), ((3,), {}), ((True,), {}), ((A(V3),), {"copy": True}),
                ((V3,), {"dtype": "float32"})],
    "full": [((3, 2.5), {}), (((2, 2), 7), {}), ((2, True), {})],
    "full_like": [((A(V3), 2.5), {})],
    "eye": [((3,), {}), ((2, 3), {"k": 1, "dtype": "float32"})],
    "linspace": [((0.0, 1.0, 5), {}), ((0, 4, 4), {"endpoint": False})],
    "ones": [((3,), {}), (((2, 2),), {"dtype": "int32"})],
    "zeros": [((3,), {}), (((2, 0),), {"dtype": "bool"})],
    "ones_like": [((A(V3),), {})],
    "zeros_like": [((A(V3, "float32"),), {})],
    "tril": [((A(SQUARE),), {}), ((A(SQUARE),), {"k": 1})],
    "triu": [((A(SQUARE),), {}), ((A(SQUARE),), {"k": -1})],
    "meshgrid": [((A(V3), A(V3[:2])), {}), ((A(V3), A(V3[:2])), {"indexing": "ij"})],
    "astype": [((A(V3), "float32"), {}), ((A(ROW), "float64"), {}), ((A(V3), "bool"), {})],
    "can_cast": [(("int8", "int32"), {}), (("float64", "float32"), {}), ((A(V3), "float32"), {})],
    "finfo": [(("float32",), {}), ((A(V3),), {})],
    "iinfo": [(("int16",), {})],
    "isdtype": [(("float32", "real floating"), {}), (("int8", ("bool", "integral")), {})],
    "result_type": [(("int32", "uint8"), {}), ((A(V3), "float32"), {})],
    "broadcast_arrays": [((A(M23), A(V3)), {})],
    "broadcast_to": [((A(V3), (2, 3)), {})],
    "broadcast_shapes": [(((2, 1), (3,)), {})],
    "concat": [(([A(M23), A(M23)],), {}), (([A(M23), A(M23)],), {"axis": 1}),
               (([A(M23), A(V3)],), {"axis": None})],
    "expand_dims": [((A(M23),), {"axis": 1}), ((A(M23),), {"axis": -1})],
    "flip": [((A(M23),), {}), ((A(M23),), {"axis": 1})],
    "moveaxis": [((A([M23]), 0, 2), {})],
    "permute_dims": [((A([M23]), (2, 0, 1)), {})],
    "repeat": [((A(V3), 2), {}), ((A(M23), A([1, 2, 0])), {"axis": 1})],
    "reshape": [((A(M23), (3, 2)), {}), ((A(M23), (-1,)), {"copy": True})],
    "roll": [((A(M23), 1), {}), ((A(M23), (1, -1)), {"axis": (0, 1)})],
    "squeeze": [((A([M23]), 0), {})],
    "stack": [(([A(V3), A(V3)],), {}), (([A(V3), A(V3)],), {"axis": -1})],
    "tile": [((A(V3), (2, 2)), {})],
    "unstack": [((A(M23),), {}), ((A(M23),), {"axis": 1})],
    "take": [((A(V3), A([2, 0])), {}), ((A(M23), A([1, 1])), {"axis": 1})],
    "take_along_axis": [((A(M23), A([[2, 0], [1, 1]])), {})],
    "matmul": [((A(M23), A(V3)), {}), ((A(M23), A(SQUARE)), {})],
    "matrix_transpose": [((A(M23),), {})],
    "tensordot": [((A(M23), A(SQUARE)), {"axes": 1}), ((A(M23), A(M23)), {"axes": ((0,), (0,))})],
    "vecdot": [((A(M23), A(V3)), {}), ((A(M23), A(M23)), {"axis": -2})],
    "where": [((A([True, False, True]), A(V3), A([1.0, 2.0, 3.0])), {}),
              ((A([True, False, True]), A(V3), 0.0), {})],
    "searchsorted": [((A([1.0, 2.0, 3.0]), A([0.5, 2.0])), {}),
                     ((A([1.0, 2.0, 3.0]), A([0.5, 2.0])), {"side": "right"})],
    "clip": [((A(V3),), {"min": -1.0, "max": 1.0}), ((A(V3), -1.0), {}), ((A(V3),), {"max": 0.0}),
             ((A(ROW), 2, 2), {})],
    "count_nonzero": [((A([[0.0, 1.0], [2.0, 3.0]]),), {}),
                      ((A([[0.0, 1.0], [2.0, 3.0]]),), {"axis": 0})],
    "nonzero": [((A([[0.0, 1.0], [2.0, 0.0]]),), {})],
    "argsort": [((A(V3),), {}), ((A(V3),), {"descending": True}), ((A(ROW),), {"descending": True}),
                ((A(M23),), {"axis": 0})],
    "sort": [((A(V3),), {}), ((A(V3),), {"descending": True}), ((A(M23),), {"axis": 0})],
    "diff": [((A(V3),), {}), ((A(M23),), {"axis": 0}), ((A(V3),), {"n": 2}),
             ((A(V3),), {"prepend": A([0.0]), "append": A([1.0])})],
    "cumulative_sum": [((A(V3),), {}), ((A(M23),), {"axis": 1, "include_initial": True})],
    "cumulative_prod": [((A(V3),), {}), ((A(M23),), {"axis": 1, "include_initial": True})],
    "std": [((A(M23),), {}), ((A(M23),), {"axis": 0, "correction": 1.0, "keepdims": True})],
    "var": [((A(M23),), {}), ((A(M23),), {"axis": 0, "correction": 1.0, "keepdims": True})],
    "nextafter": [((A(V3), A([0.0, 0.0, 0.0])), {})],
    "linalg.cholesky": [((A(SPD),), {}), ((A(SPD),), {"upper": True})],
    "linalg.cross": [((A(V3), A([1.0, 2.0, 3.0])), {})],
    "linalg.diagonal": [((A(SQUARE),), {}), ((A(SQUARE),), {"offset": 1})],
    "linalg.matmul": [((A(M23), A(SQUARE)), {})],
    "linalg.matrix_norm": [((A(M23),), {}), ((A(M23),), {"ord": 2}), ((A(M23),), {"ord": "nuc"})],
    "linalg.matrix_power": [((A(SQUARE), 3), {}), ((A(SQUARE), -1), {})],
    "linalg.matrix_rank": [((A(SQUARE),), {}), ((A(SQUARE),), {"rtol": 0.5})],
    "linalg.matrix_transpose": [((A(M23),), {})],
    "linalg.outer": [((A(V3), A(V3)), {})],
    "linalg.pinv": [((A(M23),), {}), ((A(M23),), {"rtol": 1e-3})],
    "linalg.qr": [((A(M23),), {}), ((A(SQUARE),), {"mode": "complete"})],
    "linalg.solve": [((A(SQUARE), A(V3)), {}), ((A(SQUARE), A(SPD)), {})],
    "linalg.svd": [((A(M23),), {}), ((A(M23),), {"full_matrices": False})],
    "linalg.svdvals": [((A(M23),), {})],
    "linalg.tensordot": [((A(M23), A(SQUARE)), {"axes": 1})],
    "linalg.trace": [((A(SQUARE),), {}), ((A(SQUARE),), {"offset": 1})],
    "linalg.vecdot": [((A(M23), A(V3)), {})],
    "linalg.vector_norm": [((A(M23),), {}), ((A(M23),), {"ord": 3, "axis": 1, "keepdims": True}),
                           ((A(V3),), {"ord": float("inf")})],
    **{f"linalg.{name}": [((A(SPD),), {})] for name in
       ("det", "eigh", "eigvalsh", "inv", "slogdet")},
    **{f"fft.{name}": [((A(SQUARE, "complex128"),), {}), ((A(SQUARE, "complex64"),), {"axis": 0}),
                       ((A(SQUARE, "complex128"),), {"n": 4, "norm": "ortho"})]
       for name in ("fft", "ifft", "irfft", "hfft")},
    **{f"fft.{name}": [((A(SQUARE, "complex128"),), {}),
                       ((A(SQUARE, "complex128"),), {"axes": (0, 1), "norm": "forward"})]
       for name in ("fftn", "ifftn", "irfftn")},
    **{f"fft.{name}": [((A(SQUARE),), {}), ((A(SQUARE, "float32"),), {"axis": 0}),
                       ((A(SQUARE),), {"n": 4, "norm": "ortho"})] for name in ("rfft", "ihfft")},
    "fft.rfftn": [((A(SQUARE),), {}), ((A(SQUARE),), {"axes": (0, 1), "norm": "forward"})],
    **{f"fft.{name}": [((A(SQUARE),), {}), ((A(SQUARE),), {"axes": 1})]
       for name in ("fftshift", "ifftshift")},
    **{f"fft.{name}": [((5,), {}), ((4,), {"d": 0.5})] for name in ("fftfreq", "rfftfreq")},
}
CALLS |= {name: [((A(M23),), {}), ((A(M23),), {"axis": 1}),
                 ((A(M23),), {"axis": 0, "keepdims": True})]
          for name in "all any argmax argmin max mean min prod sum".split()}
CALLS |= {name: [*CALLS[name], ((A(ROW, "int16"),), {})]
          for name in "all any argmax argmin max min prod sum".split()}
CALLS |= {name: [((A(ROW),), {}), ((A(M23),), {})] for name in functions(strict)
          if name.startswith("unique_")}
# Gauges and orders that are the library's own, as the standard allows.
UP_TO_SIGNS = {"linalg.svd", "linalg.qr", "linalg.eigh"}
IN_ANY_ORDER = {"unique_values"}


def elementwise_calls(function):
    """Calls with one or two arrays of every dtype that the function of array_api_strict takes."""
    arity = len([p for p in inspect.signature(function).parameters.values()
                 if p.default is inspect.Parameter.empty])
    samples = {
        "b": [[False, True, True], [True, True, False]],
        "i": [[1, 2, 3], [2, 1, 5]], "u": [[1, 2, 3], [2, 1, 5]],
        "f": [[0.25, 0.5, 0.75], [0.5, 0.25, 1.0]],
        "c": [[0.25 + 0.5j, 0.5 - 1j, 0.75j], [0.5, 0.25j, 1 + 1j]],
    }
    calls = []
    for dtype in DTYPES:
        arrays = [A(values, dtype) for values in samples[np.dtype(dtype).kind][:arity]]
        try:
            with np.errstate(all="ignore"):
                function(*[made(strict, a) for a in arrays])
        except TypeError:
            continue
        calls.append((tuple(arrays), {}))
    return calls


def made(xp, argument):
    """An argument of CALLS for a namespace."""
    if isinstance(argument, tuple) and argument[:1] == ("array",):
        _, values, dtype = argument
        return xp.asarray(values, dtype=None if dtype is None else getattr(xp, dtype))
    if isinstance(argument, str) and argument in DTYPES:
        return getattr(xp, argument)
    if isinstance(argument, list):
        return [made(xp, item) for item in argument]
    return argument


def called(xp, function, call):
    args, kwargs = call
    with np.errstate(all="ignore"):
        return function(*[made(xp, a) for a in args],
                        **{key: made(xp, value) for key, value in kwargs.items()})


def plain(result):
    """A result as nested tuples of ndarrays and numbers."""
    if isinstance(result, (tuple, list)):
        return tuple([plain(item) for item in result])
    if isinstance(result, ad.Tensor):
        return result.detach().numpy()
    if hasattr(result, "_array"):
        return result._array
    if hasattr(result, "_np_dtype"):
        return result._np_dtype
    if hasattr(result, "bits"):
        return (result.bits, float(result.min), float(result.max))
    return result


def disagreement(name, ours, theirs):
    """A sentence on how two plain results differ, or None."""
    if isinstance(theirs, tuple):
        if len(ours) != len(theirs):
            return f"{len(ours)} results, wanted {len(theirs)}"
        return next(filter(None, map(disagreement, [name] * len(ours), ours, theirs)), None)
    if not isinstance(theirs, np.ndarray):
        return None if ours == theirs else f"{ours}, wanted {theirs}"
    ours = np.asarray(ours)
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"{ours.dtype}{ours.shape}, wanted {theirs.dtype}{theirs.shape}"
    if name in UP_TO_SIGNS:
        ours, theirs = abs(ours), abs(theirs)
    if name in IN_ANY_ORDER:
        ours, theirs = np.sort(ours), np.sort(theirs)
    tolerance = 1e-6 if theirs.dtype.char in "fF" else 1e-13
    if not np.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True):
        return f"{ours}, wanted {theirs}"
    return None


@pytest.mark.parametrize("prefix, name", [n for n in NAMES if n[1] not in SKIPPED])
def test_every_function_gives_the_values_and_dtypes_of_the_reference(prefix, name):
    theirs, ours = [getattr(space, name) for space in NAMESPACES[prefix]]
    calls = CALLS.get(prefix + name) or elementwise_calls(theirs)
    assert calls, "no example"
    for call in calls:
        expected = plain(called(strict, theirs, call))
        said = disagreement(prefix + name, plain(called(ad, ours, call)), expected)
        assert said is None, f"{call}: {said}"


def test_the_comparison_sees_values_dtypes_shapes_and_counts():
    x = np.array([1.0, 2.0])
    for wrong in (x + 1e-3, x.astype(np.float32), x[:1], x[None]):
        assert disagreement("sin", wrong, x)
    assert disagreement("svd", (x,), (x, x))
    assert disagreement("isdtype", True, False)
    assert disagreement("sin", x.copy(), x) is None


def test_a_device_that_is_not_the_cpu_is_refused():
    for make in (lambda d: ad.zeros(2, device=d), lambda d: ad.asarray([1.0], device=d),
                 lambda d: ad.tensor([1.0]).to_device(d), lambda d: ad.ones_like([1.0], device=d),
                 lambda d: ad.astype(ad.tensor([1.0]), ad.float32, device=d),
                 lambda d: ad.from_dlpack(np.ones(2), device=d)):
        make("cpu")
        with pytest.raises(ValueError, match="cpu"):
            make("gpu")


# ---- libraries that follow the standard ----------------------------------------------------------

# A name, and an expression in x (4, 2) whose value is one number.
SCIPY = {
    "special.logsumexp": "scipy.special.logsumexp(x)",
    "special.softmax": "(scipy.special.softmax(x, axis=1)**3).sum()",
    "optimize.rosen": "scipy.optimize.rosen(x[:, 0])",
    "integrate.trapezoid": "scipy.integrate.trapezoid(x[:, 0]**3)",
    "integrate.cumulative_trapezoid": "(scipy.integrate.cumulative_trapezoid(x[:, 0])**2).sum()",
    "stats.skew": "scipy.stats.skew(x[:, 0])",
    "stats.kurtosis": "scipy.stats.kurtosis(x[:, 0])",
    "stats.gmean": "scipy.stats.gmean(x[:, 0])",
    "stats.hmean": "scipy.stats.hmean(x[:, 0])",
    "stats.pmean": "scipy.stats.pmean(x[:, 0], 3)",
    "stats.moment": "scipy.stats.moment(x[:, 0], 3)",
    "stats.circmean": "scipy.stats.circmean(x[:, 0])",
    "stats.sem": "scipy.stats.sem(x[:, 0])",
    "stats.zscore": "(scipy.stats.zscore(x)**3).sum()",
}
SKLEARN = {
    "euclidean_distances": "sklearn.metrics.pairwise.euclidean_distances(x, x[:2] + 1.0).sum()",
    "rbf_kernel": "sklearn.metrics.pairwise.rbf_kernel(x, x[:2] + 1.0).sum()",
    "polynomial_kernel": "sklearn.metrics.pairwise.polynomial_kernel(x).sum()",
    "additive_chi2_kernel": "sklearn.metrics.pairwise.additive_chi2_kernel(x).sum()",
    "cosine_similarity": "(sklearn.metrics.pairwise.cosine_similarity(x)[0]**3).sum()",
    "StandardScaler": "(sklearn.preprocessing.StandardScaler().fit_transform(x)**3).sum()",
    "normalize": "(sklearn.preprocessing.normalize(x)**3).sum()",
    "PCA": "sklearn.decomposition.PCA(1, svd_solver='full').fit(x).explained_variance_.sum()",
    "Ridge": "sklearn.linear_model.Ridge(solver='svd').fit(x, x[:, 0]**2).coef_.sum()",
}
SCRIPT = """
import numpy as np
import fastad as ad

VALUES = np.array([[0.3, 1.2], [0.7, 2.1], [1.6, 0.2], [2.2, 1.0]])


def differences(f):
    slopes = np.empty_like(VALUES)
    for place in np.ndindex(VALUES.shape):
        step = np.zeros_like(VALUES)
        step[place] = 1e-5
        above, below = [f(ad.tensor(VALUES + sign * step)).item() for sign in (1, -1)]
        slopes[place] = (above - below) / 2e-5
    return slopes


for name, expression in EXPRESSIONS.items():
    def f(x):
        return eval(expression)
    try:
        x = ad.tensor(VALUES, requires_grad=True)
        f(x).backward()
        error = abs(x.grad.numpy() - differences(f)).max()
        print(f"{name}: {'right' if error < 1e-6 else f'off by {error}'}")
    except Exception as error:
        print(f"{name}: {type(error).__name__} {error}")
"""


def gradients_through(expressions, imports):
    """What a process with SciPy's array API switched on says about expressions in x."""
    script = imports + f"\nEXPRESSIONS = {expressions!r}\n" + SCRIPT
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                         timeout=300, env={**os.environ, "SCIPY_ARRAY_API": "1"})
    assert run.returncode == 0, run.stderr
    return dict(line.split(": ", 1) for line in run.stdout.splitlines())


def test_gradients_flow_through_functions_of_scipy():
    said = gradients_through(SCIPY, textwrap.dedent("""
        import scipy.integrate, scipy.optimize, scipy.special, scipy.stats
    """))
    assert said == dict.fromkeys(SCIPY, "right")


def test_gradients_flow_through_functions_of_scikit_learn():
    said = gradients_through(SKLEARN, textwrap.dedent("""
        import sklearn, sklearn.decomposition, sklearn.linear_model, sklearn.metrics.pairwise
        import sklearn.preprocessing
        sklearn.set_config(array_api_dispatch=True)
    """))
    assert said == dict.fromkeys(SKLEARN, "right")


def test_the_check_of_gradients_sees_a_wrong_one_and_an_error():
    wrong = {"step": "(x**2).sum() + ad.tensor(np.exp(x.detach().numpy())).sum()",
             "raises": "x.no_such_method()"}
    said = gradients_through(wrong, "")
    assert said["step"].startswith("off by") and said["raises"].startswith("AttributeError")
