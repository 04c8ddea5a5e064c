"""Calls that make every primitive: those that other tests differentiate, as (title, f, arrays)."""

import numpy as np
import special_cases
import test_assignment
import test_complex
import test_fft
import test_linalg
import test_structured
from directional import vector
from numpy_examples import EXAMPLES, METHODS

import fastad as ad
from fastad import _core, linalg_scipy, special

try:
    import test_linalg_scipy
except BaseException:       # pytest's Skipped is no Exception: SciPy is not installed
    test_linalg_scipy = None


COMPLEX = [row["name"] for row in _core.table() if test_complex.numpys(row["name"]) is not None]
FIXED = {"polygamma": {0: 1}, "sinc_derivative": {0: 1}, "where": {0: True}}


def of_rows():
    """Each row of the op table, of numbers inside its intervals, and of complex ones."""
    for row in _core.table():
        name = row["name"]
        f = _core.elementwise[name]
        fixed = FIXED.get(name, {})
        at = [0.4 * low + 0.6 * high for low, high in row["intervals"]]
        free = [x for k, x in enumerate(at) if k not in fixed]

        def call(*given, f=f, fixed=fixed, n=len(at)):
            given = iter(given)
            return f(*[fixed[k] if k in fixed else next(given) for k in range(n)])

        yield name, call, free
        if name in COMPLEX:
            yield f"{name} complex", call, [x + 0.25j for x in free]


def of_numpy():
    for example in EXAMPLES + METHODS:
        if not hasattr(np, example.name.partition(".")[0]) and example in EXAMPLES:
            continue
        for dtype in (float, complex):
            if dtype is float or not (example.real or example.bounds or example.zero):
                yield f"{example.name} {dtype.__name__}", example.call, example.arrays(dtype=dtype)


def of_tables():
    for case in test_structured.CASES:
        yield case.title, lambda *a, f=case.function: f(ad, *a), case.arrays()
    for table, xp in ((test_linalg.CASES, ad), (getattr(test_linalg_scipy, "CASES", {}),
                                                getattr(test_linalg_scipy, "FASTAD", None))):
        for title, (function, *makers) in table.items():
            for kind in "fc":
                rng = np.random.default_rng(len(title))
                arrays = [make(rng, kind) for make in makers]
                yield f"{title} {kind}", lambda *a, f=function, xp=xp: f(xp, *a), arrays
    for title, (name, shape, options) in test_fft.CALLS.items():
        for kind in "f" if name in test_fft.REAL_INPUT else "fc":
            x = vector(*shape)(np.random.default_rng(len(title)), kind)
            yield f"{title} {kind}", lambda x, n=name, o=options: getattr(ad.fft, n)(x, **o), [x]
    for title, (function, shape) in test_complex.FUNCTIONS.items():
        yield title, function, [test_complex.values(shape)]
    for title, function in test_assignment.PROGRAMS.items():
        x = np.array([0.3, 0.8, -0.5])
        yield f"assignment of {title}", lambda x, f=function: f(x * 1.0), [x]


def of_special():
    for name, (_, points) in special_cases.CASES.items():
        f = getattr(special, name)
        arrays = [np.array(column[:3], int if all(isinstance(v, int) for v in column) else float)
                  for column in zip(*points)]
        if name == "multigammaln":
            yield name, lambda a, f=f: f(a, 2), [arrays[0] + 1.0]
            continue
        # arguments without a derivative stay as they are
        parts = special.SEVERAL.get(name, (special.ALIASES.get(name, name),))
        held = {k for part in parts if part in special.ROWS for k in special.ROWS[part].missing}
        free = [x for k, x in enumerate(arrays) if k not in held or x.dtype.kind == "i"]

        def call(*given, f=f, arrays=arrays, held=held):
            given = iter(given)
            return f(*[x if k in held and x.dtype.kind == "f" else next(given)
                       for k, x in enumerate(arrays)])

        yield name, call, free
    for name, axes in (("logsumexp", None), ("softmax", 0), ("log_softmax", 0)):
        yield name, lambda x, f=getattr(special, name), a=axes: f(x, axis=a), [np.arange(3.0)]


def of_programs():
    """Calls of programs as one node."""
    program = ad.compile(lambda x: sum([ad.sin(x * k).sum() for k in range(120)]))
    x = np.ones(3)
    for _ in range(2):
        program(ad.tensor(x, requires_grad=True))
    yield "program", lambda x: program(x) * 2.0, [x]


def all_calls():
    yield from of_programs()
    yield from of_rows()
    yield from of_numpy()
    yield from of_tables()
    if linalg_scipy is not None and test_linalg_scipy is not None:
        yield from of_special()
