"""Every differentiable NumPy function over tensors against NumPy's own call.

``python -m benches.numpy_functions`` prints, for few and for many elements, the time of NumPy's
call, the ratio of the same call on tensors (without gradients, and recorded for one), and the ratio
of value and gradient together.  A forward call misses its target above twice NumPy's time and half
a microsecond.  Names on the command line choose functions; ``--missed`` prints those that miss.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastad as ad

from .measure import alternate, one_thread

SIZES = (4, 100_000)
LIMIT, OVERHEAD = 2.0, 0.5e-6
ROUNDS, BLOCK = 7, 5e-4


class Row(NamedTuple):
    """Seconds of one call: NumPy's, on constant tensors, recorded, and with the gradient."""

    name: str
    size: int
    numpy: float
    constant: float
    recorded: float
    gradient: float

    @property
    def missed(self) -> bool:
        """Whether a forward call, recorded or not, is slower than its target."""
        return max(self.constant, self.recorded) > LIMIT * self.numpy + OVERHEAD


def examples() -> list[Any]:
    """The calls that the tests check, one for each function; see ``tests/numpy_examples.py``."""
    path = Path(__file__).resolve().parent.parent / "tests" / "numpy_examples.py"
    spec = importlib.util.spec_from_file_location("numpy_examples", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first: dict[str, Any] = {}
    for example in module.present(module.EXAMPLES + module.METHODS):
        first.setdefault(example.name, example)
    return list(first.values())


def operands(example: Any, size: int) -> list[np.ndarray]:
    """Operands of `size` elements or about as many, as far as their shapes are free."""
    per_row = max([int(np.prod([k for k in shape if isinstance(k, int)])) for shape in
                   example.shapes if "n" in shape] or [1])
    return example.arrays(n=max(size // per_row, 1), r=max(int(size**0.5), 2))


def gradient_of(example: Any, tensors: list[ad.Tensor]) -> Callable[[], object] | None:
    """A call that computes value and gradient, or None where the value has no derivative."""
    def flat(y: Any) -> list[ad.Tensor]:
        return [t for part in y for t in flat(part)] if isinstance(y, (list, tuple)) else [y]

    seeds: dict[Any, ad.Tensor] = {}

    def seed(y: ad.Tensor) -> ad.Tensor:
        key = y.shape, y.dtype
        if key not in seeds:
            seeds[key] = ad.ones(*key)
        return seeds[key]

    def call() -> object:
        live = [y for y in flat(example.call(*tensors)) if y.requires_grad]
        return ad.autograd.grad(live, tensors, [seed(y) for y in live], allow_unused=True)

    return call


def measure(example: Any, size: int) -> Row:
    """Time one function at one size."""
    arrays = operands(example, size)
    constants = [ad.tensor(a) for a in arrays]
    leaves = [ad.tensor(a, requires_grad=True) for a in arrays]

    def best(call: Callable[[], object]) -> tuple[float, float]:
        ours, theirs = alternate(call, lambda: example.call(*arrays), rounds=ROUNDS,
                                 block=BLOCK)
        return min(ours), min(theirs)

    constant, numpy = best(lambda: example.call(*constants))
    recorded, again = best(lambda: example.call(*leaves))
    gradient, _ = best(gradient_of(example, leaves))
    return Row(example.name, size, min(numpy, again), constant, recorded, gradient)


def rows(names: list[str]) -> Iterator[Row]:
    """Measure all functions, or those that are named, at both sizes."""
    for example in examples():
        if names and example.name not in names:
            continue
        for size in SIZES:
            yield measure(example, size)


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="functions; all by default")
    parser.add_argument("--missed", action="store_true", help="print only what misses the target")
    asked = parser.parse_args()
    one_thread()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    print(f"fastad {ad.__version__}, NumPy {np.__version__}, Python {sys.version.split()[0]}")
    print(f"{'function':36}{'n':>8}{'NumPy us':>11}"
          f"{'constant':>10}{'recorded':>10}{'gradient':>10}")
    missed = total = 0
    for row in rows(asked.names):
        total += 1
        missed += row.missed
        if row.missed or not asked.missed:
            times = (row.constant, row.recorded, row.gradient)
            print(f"{row.name:36}{row.size:8}{row.numpy * 1e6:11.2f}"
                  + "".join(f"{t / row.numpy:10.2f}" for t in times) + "  MISSED" * row.missed)
    print(f"{missed} of {total} miss {LIMIT:g} x NumPy + {OVERHEAD * 1e6:g} us")


if __name__ == "__main__":
    main()
