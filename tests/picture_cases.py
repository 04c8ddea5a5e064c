"""Calls that make every primitive: those that other tests differentiate, as (title, f, arrays)."""

import numpy as np
import special_cases
import test_assignment
import test_complex
import test_fft
import test_linalg
import test_linalg_scipy
import test_structured
from directional import vector
from numpy_examples import EXAMPLES, METHODS, present

import fastad as ad
from fastad import _core, special

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
    for example in present(EXAMPLES) + METHODS:
        for dtype in (float, complex):
            if dtype is float or not (example.real or example.bounds or example.zero):
                yield f"{example.name} {dtype.__name__}", example.call, example.arrays(dtype=dtype)


def of_tables():
    for case in test_structured.CASES:
        yield case.title, lambda *a, f=case.function: f(ad, *a), case.arrays()
    for table, xp in ((test_linalg.CASES, ad), (test_linalg_scipy.CASES, test_linalg_scipy.FASTAD)):
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
    for name, points in special_cases.COMPLEX.items():
        def call(*given, f=getattr(special, name), point=points[0]):
            given = iter(given)
            return f(*[next(given) if isinstance(x, complex) else x for x in point])

        yield f"{name} complex", call, [np.array(x) for x in points[0] if isinstance(x, complex)]
    for name, axes in (("logsumexp", None), ("softmax", 0), ("log_softmax", 0)):
        yield name, lambda x, f=getattr(special, name), a=axes: f(x, axis=a), [np.arange(3.0)]


def of_programs():
    """Calls of programs as one node."""
    program = ad.compile(lambda x: sum([ad.sin(x * k).sum() for k in range(120)]))
    x = np.ones(3)
    for _ in range(2):
        program(ad.tensor(x, requires_grad=True))
    yield "program", lambda x: program(x) * 2.0, [x]


def of_odd_ones():
    x, z = np.array([0.5, -1.5, 2.0]), np.array([0.5 + 1j, 2.0 - 0.3j])
    mask = np.array([True, False, True])
    yield "round", lambda z: ad.round(z, 1) + z, [z]
    yield "where", lambda x: np.multiply(x, x, where=mask, out=ad.zeros(3)), [x]
    yield "where of itself", lambda x: np.add(x, 1.0, where=mask), [x]
    yield "median", lambda x: np.median(x) * x, [x]
    yield "sort", lambda x: np.sort(x) * x, [x]
    yield "logsumexp with signs", lambda x: special.logsumexp(x, b=x, return_sign=True)[0], [x]


def first_order():
    """Calls whose second derivatives are made of what others are made of."""
    yield from of_programs()
    yield from of_rows()
    yield from of_numpy()


def second_order():
    yield from of_odd_ones()
    yield from of_tables()
    yield from of_special()
