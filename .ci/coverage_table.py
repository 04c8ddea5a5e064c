"""Write docs/numpy.md: what each of NumPy's functions does with tensors, from the tables in code.

    python .ci/coverage_table.py            print the page
    python .ci/coverage_table.py --write    write it

A test compares the page with what this prints.  Make the page with the newest NumPy, so that all
functions that came after NumPy 2.0 stand in it; the test lets an older one have fewer.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from fastad import numpy_coverage, numpy_methods

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "numpy.md"

HEAD = """\
# NumPy's functions over tensors

Written by `.ci/coverage_table.py` from the tables that calls go by; change those instead.

`np.<name>(tensor)` and `ad.<name>(tensor)` are the same function. Every function and ufunc that
NumPy lets other types override is in one of three classes:

* *differentiable*: {differentiable} of them. Values are NumPy's, bit for bit.
  Derivatives of any order flow, in programs too.
* *value only*: {value_only}. The result has no derivative.
  It holds truth values, integers, indices, text or new arrays; a tensor that requires gradients may
  be passed.
* *not supported*: {not_supported}. A tensor that requires gradients makes it raise.
  The TypeError gives the reason. With other tensors it computes with their values, unless it is a
  function of text, of dates or of structured arrays.

What holds for all:

* Tensors are in C order, whatever the order of the array they were made of. A sum over an array
  in another order adds in another order, so its last bits may differ.
* What NumPy gives as a view of its operand (`transpose`, `flip`, `split`, `broadcast_to`,
  `diagonal`, `reshape` ...) is a view of the tensor, which copies nothing before it is read; then
  it is put into C order once.
* Of equal elements that compete all share a cotangent equally in `max`, `min` and what is made of
  them; in `sort`, `median`, `partition` and `unique` the first one has it.
* `out=` takes tensors and arrays; a tensor becomes part of the graph, an array would lose a
  gradient and is refused then.
* Functions whose results have a shape that depends on values (`unique`, `extract`, `trim_zeros`,
  `bincount`, `roots`) are recorded again by programs when that shape changes.
* `np.errstate` holds for the elementwise functions, sums and products of matrices: they report
  divisions by zero, overflow, underflow and invalid values in NumPy's words, before anything is
  recorded. Of numbers, tensors without axes, an underflow is not seen. Derivatives are computed
  without reports, and so are programs, while they are recorded and when they run.
* `reduce`, `accumulate`, `reduceat` and `outer` of every differentiable ufunc of two operands are
  differentiable, but for `power.reduce`, `arctan2.reduce` and their `reduceat`, which NumPy itself
  computes wrongly on processors with wide registers.
* `where=` of a ufunc without `out=` gives 0 where the mask does not hold; NumPy leaves there what
  was in memory.
* `np.poly1d` keeps tensors as coefficients. `numpy.polynomial` makes arrays of what it gets, which
  nobody can override but for the functions below; inside ``with ad.adapt("numpy.polynomial")`` all
  of it takes tensors, `Polynomial`, `Chebyshev` and their kind included. Outside,
  `polynomial.polynomial.polyval(x, c)` of a tensor `x` and an array `c` takes `x` for one number,
  as NumPy says of what is no array: `c` must have one axis.
* `np.vectorize` puts results into NumPy arrays, where gradients end; `ad.vectorize` does not.
* Numbers, tensors without axes, are computed by libm, whose last bit may differ from that of
  NumPy's loops in `arcsin`, `tanh`, `arccosh` and the like.
"""

METHODS_HEAD = """
## Attributes of `numpy.ndarray` that tensors do not have

| attribute | reason |
|---|---|
"""


def rows(kind):
    """Lines of a table of functions or of ufuncs."""
    lines = []
    for (found, module, name), function in numpy_coverage.overridable().items():
        if found != kind or name in numpy_coverage.REMOVED:
            continue
        prefix = module.removeprefix("numpy").removeprefix(".")
        shown = f"{prefix}.{name}" if prefix else name
        remark = numpy_coverage.remark(function)
        lines.append(f"| `{shown}` | {numpy_coverage.classify(function)} | {remark} |")
    return lines


def document():
    """The page's text."""
    counts = Counter(map(numpy_coverage.classify, numpy_coverage.overridable().values()))
    text = HEAD.format(**{name.replace(" ", "_"): n for name, n in counts.items()})
    for title, kind in (("Functions", "function"), ("Ufuncs", "ufunc")):
        text += f"\n## {title}\n\n| function | class | remarks |\n|---|---|---|\n"
        text += "\n".join(rows(kind)) + "\n"
    text += METHODS_HEAD
    text += "".join(f"| `{name}` | {numpy_methods.MISSING[name]} |\n"
                    for name in sorted(numpy_methods.MISSING))
    return text


def stale(page):
    """Sentences about what is wrong with a page, by this NumPy, which may not be the newest."""
    fresh = document()
    faults = [f"not in the page: {line}" for line in fresh.splitlines()
              if line not in page.splitlines() and not line.startswith(COUNTED)]
    return faults + [f"only in the page: {line}" for line in page.splitlines()
                     if line not in fresh.splitlines() and not line.startswith(COUNTED)
                     and not is_missing(line)]


COUNTED = ("* *differentiable*:", "* *value only*:", "* *not supported*:")


def is_missing(line):
    """Whether a line is about a function that this NumPy does not have."""
    name = line.split("`")[1] if line.startswith("| `") else ""
    return bool(name) and f"| `{name}` |" not in "".join(rows("function") + rows("ufunc"))


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(document())
        print(f"written with NumPy {np.__version__}")
    else:
        print(document(), end="")
