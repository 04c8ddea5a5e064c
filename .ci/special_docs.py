"""Write docs/special.md and src/fastad/special.pyi from the table of `fastad.special`.

    python .ci/special_docs.py            print the document
    python .ci/special_docs.py --write    write both files into the source tree

A test compares the files with what this makes.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from fastad import _core, special

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "special.md"
STUB = ROOT / "src" / "fastad" / "special.pyi"

INTRODUCTION = '''
# Special functions

`ad.special` has {count} of SciPy's special functions with derivatives, under SciPy's names and with
SciPy's arguments. Most are elementwise; their values are computed by SciPy's own functions, so they
are SciPy's bit for bit, in float32 as well. SciPy is imported when the first of them is called
(`pip install "fastad[scipy]"`).

```python
>>> import fastad as ad
>>> import numpy as np
>>> import scipy.special
>>> x = ad.tensor([0.5, 2.0], requires_grad=True)
>>> y = ad.special.gammainc(3.0, x)
>>> y.sum().backward()
>>> x.grad.numpy().round(6)
array([0.075816, 0.270671])
```

Those that are ufuncs may be called as SciPy's, too; `logsumexp`, `softmax`, `log_softmax`,
`multigammaln`, `polygamma`, `zeta`, `lambertw`, `softplus`, `sinc` and the four `spherical_`
functions are not, and only those in `ad.special` take tensors:

```python
>>> scipy.special.gammainc(3.0, x).requires_grad
True
```

Parameters have derivatives like arguments, where there is a formula, a series or an integral for
them: the shapes of incomplete gamma and beta functions and of what is made of them, the orders of
Bessel functions, the argument s of the zeta function, the parameter m of elliptic integrals:

```python
>>> order = ad.tensor(1.5, requires_grad=True)
>>> ad.special.kv(order, 2.0).backward()
>>> round(order.grad.item(), 6)
0.107563
```

Complex tensors are taken where SciPy's function takes complex numbers, with the conventions of all
complex tensors. There `jve`, `yve`, `ive` and the last two results of `airye` are not holomorphic,
and Carlson's elliptic integrals and derivatives in parameters are not known: these derivatives
raise. `lambertw` has real values of real tensors and complex ones of complex tensors.

An argument without a derivative raises when its tensor requires one:

```python
>>> n = ad.tensor(2.0, requires_grad=True)
>>> ad.special.eval_legendre(n, 0.5)
Traceback (most recent call last):
...
TypeError: special.eval_legendre: there is no derivative in the argument n, which has no formula here; pass `n.detach()`
```

Derivatives of every order are formulas over these functions again, in programs too:

```python
>>> round(ad.grad(ad.grad(ad.special.j0))(1.0), 6)
-0.325147
```

```python
>>> p = ad.compile(ad.special.log_ndtr)
>>> round(p.grad(-30.0), 6)
30.03326
```

Tests compare first derivatives with mpmath's at several points for each argument of each function:
they agree to 1e-12 relative, most of them to 1e-14. Over wide ranges of random arguments the
derivatives in parameters have median errors of 1e-15 and largest ones of 1e-11, the latter next to
their zeros. A derivative in a parameter is a sum or an integral of some hundred terms for each
element: it costs some microseconds per element, and some hundred for a call.

In a program SciPy's functions are called with Python's lock held, and a program with one of them is
not a C function (`c_function` and `to_c` say so).

## Values without SciPy

These are rows of the op table, which need no SciPy and run without Python in programs. Tests hold
their values to so many units in the last place of SciPy's:
{core}
(`digamma` and `psi` for positive arguments).

`softmax`, `log_softmax`, `logsumexp` and `multigammaln` need no SciPy either.

## The table

Arguments of SciPy's functions have shorter names here; their order is SciPy's. `y` is the result,
`y[0]` the first of several. Names that begin with an underscore are explained below; PI and the
like are numbers, `where(c, a, b)` chooses, and `zmul` is a product in which an exact zero wins over
inf and nan. Sources are sections of the [DLMF](https://dlmf.nist.gov).

| function | derivatives | source |
|---|---|---|
'''  # noqa: E501

HELPERS = '''
## Names in formulas

Derivatives that stand for themselves: the arguments before the semicolon are the orders of the
derivative, in the arguments of the same places.

| name | what it is | derivatives | source |
|---|---|---|---|
'''

PARTS = '''
Single results of functions that have several:

| name | is | derivatives |
|---|---|---|
'''

SHORTHANDS = '''
Abbreviations:

| name | stands for |
|---|---|
'''

OTHERS = {
    "zeta": "those of `_riemann(x)`, and of `_hurwitz(x, q)` where q is given",
    "lambertw": "real values on branches 0 and -1: those of `_lambertw(k, x)`",
}
STUB_HEAD = '''"""Types of special functions, written by .ci/special_docs.py; change that."""

from typing import Any

from ._core import Tensor, TensorLike

__all__: list[str]

'''


def code(lines: list[str]) -> str:
    return "<br>".join([f"`{line}`" for line in lines]).replace("|", "\\|")


def rows_of(name: str) -> list[special.Row]:
    name = special.ALIASES.get(name, name)
    parts = special.SEVERAL.get(name, (name,))
    return [special.ROWS[part] for part in parts if part in special.ROWS]


def arguments(name: str) -> str:
    """The arguments of a function, as its signature has them."""
    if name in special.CORE:
        (row,) = [r for r in _core.table() if r["name"] == special.CORE[name]]
        return "x" if row["arity"] == 1 else "a, b"
    if rows := rows_of(name):
        return ", ".join([*rows[0].orders, *rows[0].arguments])
    return str(inspect.signature(getattr(special, name))).split(")")[0].lstrip("(")


def derivatives(name: str) -> tuple[str, str]:
    """The derivatives of a public function, and where they come from."""
    if name in special.CORE:
        (row,) = [r for r in _core.table() if r["name"] == special.CORE[name]]
        pairs = zip(["x"] if row["arity"] == 1 else "ab", row["partials"])
        lines = [f"{a} is a whole number" if p == "FAD_NAN" else f"dy/d{a} = {p}" for a, p in pairs]
        return code(lines), f"op table, `{row['name']}`"
    if rows := rows_of(name):
        sources = "; ".join(dict.fromkeys([row.source for row in rows]))
        return code(special.formulas(rows)), sources
    if name in OTHERS:
        return OTHERS[name], ""
    return "see its docstring", ""


def units(name: str) -> str:
    """How far a value of the op table is from SciPy's."""
    if name in special.ULPS_OF_ONE:
        return f"`{name}` {special.ULPS_OF_ONE[name]} of the larger of the value and 1"
    return f"`{name}` {special.ULPS[name]}"


def document() -> str:
    text = INTRODUCTION.lstrip().format(
        count=len(special.__all__), core=",\n".join([units(name) for name in special.CORE]))
    for name in special.__all__:
        formulas, source = derivatives(name)
        text += f"| `{name}({arguments(name)})` | {formulas} | {source} |\n"
    text += HELPERS
    single = {part for parts in special.SEVERAL.values() for part in parts}
    for name, row in special.ROWS.items():
        if name.startswith("_") and name not in single:
            doc = row.values.__doc__ if callable(row.values) else f"``scipy.special.{row.values}``"
            what = " ".join(doc.split("\n\n")[0].split()).replace("``", "`")
            given = "; ".join(filter(None, [", ".join(row.orders), ", ".join(row.arguments)]))
            text += (f"| `{name}({given})` | {what} | "
                     f"{code(special.formulas([row]))} | {row.source} |\n")
    text += PARTS
    for name, parts in special.SEVERAL.items():
        for k, part in enumerate(parts):
            row = special.ROWS[part]
            given = ", ".join(row.arguments)
            text += (f"| `{part}({given})` | `{name}({given})[{k}]` | "
                     f"{code(special.formulas([row]))} |\n")
    text += SHORTHANDS
    for name, (names, formula, let) in special.FORMULAS.items():
        lines = [formula, *[f"{part} = {meaning}" for part, meaning in let.items()]]
        text += f"| `{name}({', '.join(names.split())})` | {code(lines)} |\n"
    return text


def stub() -> str:
    """Types of the public functions."""
    lines = []
    for name in special.__all__:
        if rows := rows_of(name):
            operands = ", ".join([f"{a}: TensorLike" for a in rows[0].arguments])
            count = len(special.SEVERAL.get(name, ()))
            result = f"tuple[{', '.join(['Tensor'] * count)}]" if count else "Tensor"
        elif name in special.CORE:
            operands = ", ".join([f"{a}: TensorLike" for a in arguments(name).split(", ")])
            result = "Tensor"
        else:
            lines.append(BY_HAND[name])
            continue
        lines.append(f"def {name}({operands}, /) -> {result}: ...")
    return STUB_HEAD + OF_UFUNC + "\n".join(lines) + "\n"


OF_UFUNC = "def of_ufunc(ufunc: Any) -> Any: ...\n"
BY_HAND = {
    "zeta": "def zeta(x: TensorLike, q: TensorLike | None = None) -> Tensor: ...",
    "lambertw": "def lambertw(z: TensorLike, k: int = 0) -> Tensor: ...",
    "multigammaln": "def multigammaln(a: TensorLike, d: int) -> Tensor: ...",
    "softmax": "def softmax(x: TensorLike, axis: int | tuple[int, ...] | None = None) "
               "-> Tensor: ...",
    "log_softmax": "def log_softmax(x: TensorLike, axis: int | tuple[int, ...] | None = None) "
                   "-> Tensor: ...",
    "logsumexp": "def logsumexp(\n    a: TensorLike,\n    axis: int | tuple[int, ...] | None = "
                 "None,\n    b: TensorLike | None = None,\n    keepdims: bool = False,\n"
                 "    return_sign: bool = False,\n) -> Any: ...",
}


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(document())
        STUB.write_text(stub())
    else:
        print(document(), end="")
