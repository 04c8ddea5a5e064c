"""Trust: what a number and its gradient are worth.

Rounding errors are bounded by running error analysis weighted with adjoints.  Operation i of a
record gives ``y_i (1 + d_i)`` instead of ``y_i``, with ``|d_i|`` known; to first order the result
is off by the sum of ``y_i_bar * y_i * d_i``, and by no more than the sum of the absolute values.
The same sum over the record of the gradient's computation bounds each entry of the gradient.
(S. Linnainmaa, Taylor expansion of the accumulated rounding error, BIT 16, 1976; N. Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3.)

The bounds are recorded themselves, as programs, so that they replay without Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from . import (
    _core,
    arguments,
    blame,
    graph,
    linalg,
    modes,
    numpy_api,
    program,
    rules,
    transforms,
)
from ._core import Nodes, Replay, Tensor
from .graph import Graph
from .program import Program
from .progress import Progress

__all__ = ["Kink", "Report", "report"]

_np: Any = numpy_api        # names that tables give it at run time
_UNIT = 2.0**-53
_COMPLEX = 4.0

# ---- local errors ----------------------------------------------------------------------------

# Rows that give one of their operands, an integer or a sign: nothing is rounded.
_EXACT = set(
    "negative positive absolute fabs sign rint floor ceil trunc heaviside copysign maximum minimum "
    "fmax fmin relu where clip fmod floor_divide".split()
)
# Their partials are 0, a half or 1.
_CHOOSES = set(
    "absolute fabs heaviside maximum minimum fmax fmin relu where clip".split()
)
_ROUNDED = set("add subtract multiply divide square reciprocal zmul sqrt".split())

# Functions, in units in the last place of the result: the 4 that NumPy states for its vector loops;
# what the GNU C library's manual lists for its functions of one argument is no more.
_FUNCTION = 4.0

# (of the result's absolute value, of the largest operand's, in all), in units of 2^-53: rows whose
# values pass through zero where their parts do not, or that are less accurate.
_ROWS: dict[str, tuple[float, float, float]] = {
    "logaddexp": (12.0, 4.0, 4.0), "logaddexp2": (12.0, 4.0, 4.0),
    "lgamma": (16.0, 0.0, 16.0), "digamma": (64.0, 0.0, 64.0), "polygamma": (512.0, 0.0, 0.0),
    "sinc": (8.0, 0.0, 8.0), "sinc_derivative": (512.0, 0.0, 512.0),
    "one_minus_square": (3.0, 0.0, 0.0), "remainder": (2.0, 1.0, 0.0),
    "deg2rad": (2.0, 0.0, 0.0), "rad2deg": (2.0, 0.0, 0.0),
    "softplus": (24.0, 0.0, 0.0), "sigmoid": (16.0, 0.0, 0.0),
}
# The same of partials that choose; others are exact where their row is, else a few operations.
_PARTIALS: dict[str, tuple[float, float, float]] = {
    "logaddexp": (12.0, 4.0, 0.0), "logaddexp2": (12.0, 4.0, 0.0),
}

# Structured primitives that move elements, or give one of them or a part.
_MOVES = set(
    "broadcast_to reshape transpose getitem concatenate stack pad max min ties assemble gather "
    "view spread setitem where triangle real imag conjugate times_i".split()
)
# Relative to the result; the last two of complex numbers.
_RELATIVE = {"add_at": 1.0, "absolute": 2.0, "sign": 4.0}


class _Unknown(Exception):
    """A primitive whose rounding nobody has bounded; its name is the argument."""


def _constants(name: str) -> tuple[float, float, float]:
    if name in _EXACT:
        return 0.0, 0.0, 0.0
    if name in _ROUNDED:
        return 1.0, 0.0, 0.0
    return _ROWS.get(name, (2.0 * _FUNCTION, 0.0, 0.0))


def _is_power_of_two(nodes: Nodes, i: int) -> bool:
    """Whether all elements of node i are, or zero, in every run."""
    name = nodes.primitive(i)
    if name == "sign" or name.removeprefix("partial of ") in _CHOOSES and name not in _CHOOSES:
        return True
    if nodes.primitive(i) != "constant":
        return False
    v = _core.seen_value(_constant_of(nodes, i))
    v = np.asarray(v)
    return bool(v.dtype.kind == "f" and np.isin(np.abs(np.frexp(v)[0]), (0.0, 0.5)).all())


def _constant_of(nodes: Nodes, i: int) -> Tensor:
    t: Tensor = nodes.constants[i] if i in nodes.constants else _core.as_tensor(nodes.number[i])
    return t


def _is_short(t: Tensor) -> bool:
    """Whether numbers have so few digits that products of a few of them are exact."""
    v = np.asarray(_core.seen_value(t))
    return v.dtype.kind != "f" or bool(((v * 16.0 == np.rint(v * 16.0)) & (abs(v) < 256.0)).all())


def _terms(nodes: Nodes, i: int, values: list[Any]) -> Any:
    """The local error of node i over its unit roundoff: ``c`` for c times its value, a tensor for
    more than that, or 0.0 for an exact operation."""
    parents = nodes.parents(i)
    if i not in nodes.calls or nodes.calls[i][0] is None:
        name = nodes.primitive(i)
        if name in ("multiply", "zmul") and any(_is_power_of_two(nodes, p) for p in parents):
            return 0.0
        if name == "divide" and _is_power_of_two(nodes, parents[1]):
            return 0.0
        return _weighed(_constants(name), [values[p] for p in parents], values[i])
    rule, params = nodes.calls[i][:2]
    name = rule.name
    if isinstance(rule, _core.ByNumpy):
        return 0.0
    if isinstance(rule, _core.ComplexRow):      # each product of complex numbers rounds four times
        c = tuple([_COMPLEX * v for v in _constants(name)])
        return _weighed((c[0], c[1], c[2]), [values[p] for p in parents], values[i])
    if isinstance(rule, _core.Partial):
        row = name.removeprefix("partial of ")
        constants = _PARTIALS.get(row, (0.0 if row in _EXACT else 8.0, 0.0, 0.0))
        return _weighed(constants, [values[p] for p in parents[:3]], values[i])
    if name in _RELATIVE:
        return _RELATIVE[name]
    if name == "setitem" and type(params) is dict and params["how"] == "add":
        return 1.0
    if name in _MOVES or name == "scatter" and params["unique"]:
        return 0.0
    inputs = [values[p] for p in parents]
    if name in _TERMS:
        return _TERMS[name](nodes, i, inputs, values[i])
    if name == "astype":
        return 1.0 if values[i].dtype.itemsize < inputs[0].dtype.itemsize else 0.0
    sizes = [max(t.size, 1) for t in (*inputs, values[i])]
    count = _additions(name, params, sizes, inputs)
    if count is None:
        raise _Unknown(name)
    if name in ("prod", "norm"):
        return count
    if count == 0.0:
        return 0.0
    return count * nodes.again(i, tuple([_absolute(x) for x in inputs]))


def _solved(nodes: Nodes, i: int, inputs: list[Any], y: Any) -> Any:
    """Systems of n equations solved with n times a few units of backward error in the largest
    element of the matrix, as elimination with partial pivoting does but in examples made for it
    (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 9.4)."""
    inverse = _absolute(linalg.inv(inputs[0]))
    n = inputs[0].shape[-1]
    backward = _ELIMINATION * n * _np.max(_absolute(inputs[0]), axis=(-2, -1), keepdims=True)
    rows = _np.sum(inverse, axis=-1, keepdims=True)
    name = nodes.primitive(i)
    if name == "det":
        return _np.absolute(y) * _np.reshape(
            backward * _np.sum(rows, axis=-2, keepdims=True), y.shape)
    if name == "inv":
        return backward * rows * _np.sum(inverse, axis=-2, keepdims=True)
    x = y if y.ndim > 1 else _np.reshape(y, (*y.shape, 1))
    return _np.reshape(
        backward * rows * _np.sum(_np.absolute(x), axis=-2, keepdims=True), y.shape)


def _transformed(nodes: Nodes, i: int, inputs: list[Any], y: Any) -> Any:
    """Each element of a Fourier transform is a sum of all, of depth log n (Higham, chapter 24)."""
    n = max(inputs[0].size, y.size, 2)
    whole = nodes.again(i, (_np.astype(_absolute(inputs[0]), inputs[0].dtype),))
    return (4.0 * math.log2(n) + 8.0) * _np.max(_np.absolute(whole)) * np.ones(y.shape)


def _exponentials(nodes: Nodes, i: int, inputs: list[Any], y: Any) -> Any:
    if len(inputs) > 1:
        raise _Unknown(nodes.primitive(i))
    x = inputs[0]
    sizes = _np.max(_np.absolute(x)) + (x.size + 4.0 * _FUNCTION)
    return sizes * _np.absolute(y) if nodes.primitive(i) == "special.softmax" else (
        sizes + 2.0 * _np.absolute(y))


_ELIMINATION = 8.0
# (nodes, node, inputs, value) -> local error over the unit roundoff
_TERMS: dict[str, Callable[[Nodes, int, list[Any], Any], Any]] = {
    "solve": _solved, "inv": _solved, "det": _solved,
    **dict.fromkeys("fft rfft irfft fftn rfftn irfftn".split(), _transformed),
    "special.logsumexp": _exponentials, "special.softmax": _exponentials,
}


def _weighed(constants: tuple[float, float, float], operands: list[Any], value: Any) -> Any:
    of_value, of_operands, in_all = constants
    if of_operands == 0.0 and in_all == 0.0:
        return of_value
    total = of_value * _absolute(value) + in_all
    for x in operands if of_operands else ():
        total = total + of_operands * _absolute(x)
    return total


def _additions(name: str, params: Any, sizes: list[int], inputs: list[Any]) -> float | None:
    """How many roundings one element passes at most; None where that is not known."""
    *given, out = sizes
    if name in ("sum", "sum_to", "trace"):
        return given[0] / out - 1.0
    if name in ("scatter", "spread out"):
        return float(given[0])
    if name == "linalg.cross":
        return 2.0
    if name == "linalg.vecdot":
        return float(inputs[0].shape[-1])
    if name in ("convolve", "correlate"):
        return float(min(given))
    if name == "cumsum":
        return inputs[0].shape[params["axis"]] - 1.0
    if name == "prod":
        return given[0] / out - 1.0
    if name == "norm":
        return given[0] / out / 2.0 + 2.0
    if name in ("matmul", "dot", "inner", "tensordot"):
        return math.sqrt(given[0] * given[1] / out)
    if name == "einsum":
        lengths = {c: n for term, x in zip(params["terms"], inputs) for c, n in zip(term, x.shape)
                   if n != 1}
        return math.prod(lengths.values()) / out + len(inputs)
    return None


def _absolute(x: Any) -> Any:
    return _np.absolute(x) if isinstance(x, Tensor) and x.dtype.kind in "fc" else x


def _bound(nodes: Nodes, values: list[Any], y: Tensor, seed: Any) -> Any:
    """First-order bound of the rounding error of ``(seed * y).sum()``."""
    rounded: list[tuple[Any, Any]] = []
    for i, t in enumerate(values):
        if not isinstance(t, Tensor) or t.dtype.kind not in "fc" or not t.requires_grad or (
                nodes.primitive(i) in ("input", "constant")):
            continue
        c = _terms(nodes, i, values)
        if type(c) is not float or c != 0.0:
            rounded.append((t, c))
    if not rounded:
        return 0.0
    bars = _core.run_backward([y], [seed], True, True, [t for t, _ in rounded], False, True)
    by_constant: dict[tuple[float, float], list[Any]] = {}
    for (t, c), bar in zip(rounded, bars):
        if bar is None:
            continue
        unit = _UNIT if t.dtype in (np.float64, np.complex128) else 2.0**-24
        what = _np.zmul(bar, t) if type(c) is float else _np.zmul(bar, c)
        size = _np.absolute(what)
        key = (unit, c if type(c) is float else 1.0)
        by_constant.setdefault(key, []).append(size.sum() if size.ndim else size)
    total: Any = 0.0
    for (unit, c), parts in by_constant.items():
        part = parts[0]
        for x in parts[1:]:
            part = part + x
        total = total + part * (unit * c)
    return total


# ---- bounds as programs ------------------------------------------------------------------------


def _evaluated(g: Graph, leaves: tuple[Any, ...]) -> list[Any]:
    """Tensors of all nodes of a graph for these inputs."""
    nodes = g._nodes
    # what is found outside too: products of such values are rounded
    tensors = [_differentiable(x) for x in (*leaves, *g._outer)]
    known = dict(zip(nodes.inputs, tensors))
    return list(nodes.evaluate(known, list(range(len(nodes)))))


def _differentiable(x: Any) -> Tensor:
    t = _core.as_tensor(x)
    return transforms._fresh("report", t) if t.dtype.kind in "fc" else t


def value_bound(g: Graph, active: list[int]) -> Replay:
    """The program of value, gradients and the bound of the value's rounding error."""
    nodes, out = g._nodes, g._nodes.outputs[0]

    def bounded(*leaves: Any) -> Any:
        with modes.enable_grad():
            values = _evaluated(g, leaves)
            y = values[out]
            inputs = [values[nodes.inputs[k]] for k in active]
            bars = transforms._gradients([y], [None], inputs, False, True)
            limit = _bound(nodes, values, y, None)
        return (_plain(y), _plain(limit)), tuple([_plain(t) for t in bars])

    return program._new_replay(bounded, g)


def gradient_bounds(d: Graph) -> Replay:
    """The program of a bound for ``(seed * gradient).sum()``, one seed for each gradient behind the
    inputs."""
    nodes = d._nodes
    places = [nodes.outputs[k] if type(k) is int else None for k in d._result]

    def bounded(*given: Any) -> Any:
        leaves, seeds = given[: nodes.n_given], given[nodes.n_given:]
        with modes.enable_grad():
            values = _evaluated(d, leaves)
            total: Any = None
            for seed, i in zip(seeds, places):
                if i is None or not values[i].requires_grad:
                    continue
                part = (values[i] * seed).sum()
                total = part if total is None else total + part
            if total is None or not total.requires_grad:
                return 0.0
            return _plain(_bound(nodes, values, total, None))

    return program._new_replay(bounded, d)


def _plain(t: Any) -> Any:
    return t.detach() if isinstance(t, Tensor) and not _core.is_tracing() else t


# ---- kinks ---------------------------------------------------------------------------------------


class Kink(NamedTuple):
    """A place where the function is not smooth, or goes another way.

    Attributes
    ----------
    what : str
        The primitive, or the guard in words.
    distance : float
        How far from it the inputs are, to first order: ``|gap| / |gradient of the gap|``.
    file, line : str, int or None
        Where it was recorded.
    """

    what: str
    distance: float
    file: str | None
    line: int | None


_MOST_GAPS = 20_000
_KNOWN_AS = {"piece_places": "interp"}


def _gaps(nodes: Nodes, values: list[Any]) -> list[tuple[str, Any, Any]]:
    """(what, gap, place) of each possible kink: tensors that are zero at it."""
    found: list[tuple[str, Any, Any]] = []
    for i in range(len(nodes)):
        name = nodes.primitive(i)
        xs = [values[p] for p in nodes.parents(i)]
        rule = nodes.calls[i][0] if i in nodes.calls else None
        for gap in _gap(name, rule, nodes.calls[i][1] if i in nodes.calls else None, xs):
            found.append((_KNOWN_AS.get(name, name), gap, nodes.place(i)))
    for k, (kind, _, a, b, *_) in enumerate(nodes.guards):
        x = values[a]
        if b >= 0:
            gap = x - values[b]
        elif kind == _core.GUARD_TRUNC:
            gap = _to_integers(x)
        else:
            continue            # any other bits are another way
        places = nodes.guard_places
        found.append((f"guard: {nodes.described(nodes.guards[k])}", gap,
                      None if places is None else nodes.guard_place(k)))
    return [(what, gap, place) for what, gap, place in found
            if isinstance(gap, Tensor) and gap.dtype.kind == "f"]


def _to_integers(x: Any) -> Any:
    return x - _np.rint(x).detach()


def _gap(name: str, rule: Any, params: Any, xs: list[Any]) -> Iterable[Any]:
    if rule is None or _core.elementwise.get(name) is not None and rule is None:
        if name in ("absolute", "fabs", "sign", "relu", "cbrt"):
            return [xs[0]]
        if name in ("maximum", "minimum", "fmax", "fmin"):
            return [xs[0] - xs[1]]
        if name == "heaviside":
            return [xs[0]]
        if name == "copysign":
            return xs
        if name == "clip":
            return [xs[0] - xs[1], xs[0] - xs[2]]
        if name in ("floor", "ceil", "trunc"):
            return [_to_integers(xs[0])]
        if name == "rint":
            return [_to_integers(xs[0] - 0.5)]
        if name in ("remainder", "fmod", "floor_divide"):
            return [_to_integers(xs[0] / xs[1])]
        if name == "hypot":
            return [_np.hypot(*xs)]
        return ()
    if isinstance(rule, _core.ByNumpy):
        comparing = (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)
        if rule.name == "piece_places":
            given = rule.filled(xs)[:2]
            x, points = [np.asarray(_core.seen_value(_core.as_tensor(v))) for v in given]
            return [given[0] - points[np.abs(x[..., None] - points).argmin(-1)]]
        if rule.function in comparing:
            a, b = rule.filled(xs)
            return [a - b] if isinstance(a, Tensor) else [-(b - a)]
        return ()
    if name in ("max", "min"):
        return [_second(xs[0], params["axis"], name == "max")]
    if name == "norm":
        return [rules.norm(xs[0], params["axis"], params["keepdims"])]
    return ()


def _second(x: Any, axis: Any, largest: bool) -> Any:
    """The difference of the extremum and the one after it."""
    moved, _ = rules.move_to_end(x, tuple(range(x.ndim)) if axis is None else axis)
    free = moved.ndim - (x.ndim if axis is None else len(axis))
    rows = _core.reshape(moved, (math.prod(moved.shape[:free]), -1)) if x.size else x
    if not x.size or rows.shape[1] < 2:
        return None
    order = np.argsort(_core.array(rows.detach()), axis=1)
    order = order[:, ::-1] if largest else order
    first, second = [rules.take_index(rows, (np.arange(len(order)), order[:, k]), True)
                     for k in (0, 1)]
    return first - second


def _kinks(g: Graph, leaves: list[Any], active: list[int]) -> tuple[list[Kink], bool]:
    """All kinks, the nearest first; whether some were too many to look at."""
    nodes = g._nodes
    described: list[tuple[str, Any, int]] = []

    def gaps(*some: Any) -> Any:
        full: list[Any] = list(leaves)
        for k, x in zip(active, some):
            full[k] = x
        known = arguments.by_node(nodes, full, g._outer)
        values = nodes.evaluate(known, list(range(len(nodes))))
        parts = []
        described.clear()
        for what, gap, place in _gaps(nodes, values):
            if gap.requires_grad and sum(n for _, _, n in described) + gap.size <= _MOST_GAPS:
                described.append((what, place, gap.size))
                parts.append(_core.astype(_core.reshape(gap, (-1,)), float))
        return rules.concatenate(parts, 0) if parts else None

    tensors = [_core.tensor(leaves[k]).requires_grad_() for k in active]
    with modes.enable_grad(), np.errstate(all="ignore"):
        h = gaps(*tensors)
        if h is None:
            return [], False
        jacobians = transforms.jacobian(gaps, tuple(range(len(active))))(
            *[leaves[k] for k in active])
    gap = np.abs(_core.array(h.detach()))
    slope = np.sqrt(sum(np.square(np.reshape(j, (gap.size, -1))).sum(1) for j in jacobians))
    with np.errstate(all="ignore"):
        distance = np.where(slope > 0.0, gap / slope, np.inf)
    found, at = [], 0
    for what, place, size in described:
        nearest = float(distance[at:at + size].min())
        at += size
        file, line, _ = place or (None, None, None)
        if math.isfinite(nearest):
            found.append(Kink(what, nearest, file, line))
    return sorted(found, key=lambda x: x.distance), at >= _MOST_GAPS


# ---- what no path reaches ------------------------------------------------------------------------


def _unreached(nodes: Nodes, i: int, shape: tuple[int, ...]) -> Any:
    """True where no path leads from an element of input i to the result; a bool or an array."""
    reached = {nodes.outputs[0]}
    for j in range(len(nodes) - 1, -1, -1):
        if j in reached and not isinstance((nodes.calls.get(j) or (None,))[0], _core.ByNumpy):
            reached.update(nodes.parents(j))
    if i not in reached:
        return np.ones(shape, bool) if shape else True
    unread = np.ones(shape, bool)
    for j in reached:
        if i not in nodes.parents(j):
            continue
        rule: Any
        params: Any
        rule, params = nodes.calls[j][:2] if j in nodes.calls else (None, None)
        if rule is None or rule.name != "getitem":
            return np.zeros(shape, bool) if shape else False
        if type(params) is int:
            unread.flat[params] = False
        else:
            unread[params["index"]] = False
    return unread if shape else bool(unread)


# ---- the report ------------------------------------------------------------------------------


class Report(NamedTuple):
    """What `report` gives; printed, it is a table.

    Gradients and what belongs to them are dicts by the names of the inputs.

    Attributes
    ----------
    value : float
    bound : float
        Of the value's rounding error, to first order; nan where it is not known.
    gradient, gradient_bound : dict of str to float or ndarray
    differences, agree : dict, bool or None
        Central differences, and whether the gradient is what they are, as far as they can tell;
        None where a kink is too near to say.
    kinks : list of Kink
        The nearest first.
    condition : dict
        ``|x g / value|`` for each entry: how many relative changes of the value one of the input
        makes.
    unreached : dict
        True for entries that no path leads from to the value.
    unknown : tuple of str
        Primitives whose rounding is not known, so that there are no bounds.
    """

    value: float
    bound: float
    gradient: dict[str, Any]
    gradient_bound: dict[str, Any]
    differences: dict[str, Any]
    agree: bool | None
    kinks: list[Kink]
    condition: dict[str, Any]
    unreached: dict[str, Any]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        from .tables import Table

        rows = [("result", f"{self.value:.17g}", f"{self.bound:.1e}", "", "", "")]
        for name, g in self.gradient.items():
            for k in np.ndindex(np.shape(g)):
                entry = [np.asarray(x[name])[k] for x in (
                    self.gradient, self.gradient_bound, self.differences, self.condition)]
                text = name if not k else f"{name}[{', '.join(map(str, k))}]"
                note = "no path" if np.asarray(self.unreached[name])[k] else ""
                rows.append((f"d/d{text}", f"{entry[0]:.17g}", f"{entry[1]:.1e}",
                             f"{entry[2]:.8g}", f"{entry[3]:.2g}", note))
                if len(rows) >= 40:
                    break
        head = ("", "value", "rounding", "difference", "condition", "")
        lines = [Table("", head, rows, (0, 5)).text()]
        agree = {True: "agree with the gradient", False: "DO NOT AGREE with the gradient",
                 None: "cannot tell: a kink is too near"}[self.agree]
        lines.append(f"differences {agree}")
        for kink in self.kinks[:5]:
            where = f" at {kink.file}:{kink.line}" if kink.file else ""
            what = kink.what.partition(" (at ")[0]
            lines.append(f"kink {kink.distance:.2g} away: {what}{where}")
        if self.unknown:
            lines.append(f"no bounds, since the rounding of {', '.join(self.unknown)} is not known")
        return "\n".join(lines)


class _Pieces:
    """What reports of one recording share."""

    def __init__(self, g: Graph, leaves: list[Any]) -> None:
        g = graph.defined(g, leaves)
        nodes = g._nodes
        if type(g._result) is not int or math.prod(g._kind(nodes.outputs[0]).shape) != 1 or (
                g._kind(nodes.outputs[0]).dtype.kind != "f"):
            raise ValueError("report: the function gives other things than one floating number")
        self.g = g
        self.active = [k for k, name in enumerate(g._input_names)
                       if g.inputs[name].dtype.kind == "f"]
        self.unknown: tuple[str, ...] = ()
        self.value = value_bound(g, self.active)

        # As values from outside: else a product of two would be folded, and its rounding forgotten.
        constants = {i: _constant_of(nodes, i) for i in range(len(nodes))
                     if nodes.primitive(i) == "constant"}
        constants = {i: t for i, t in constants.items() if not _is_short(t)}

        def function(*inputs: Any) -> Any:
            known = {**constants, **arguments.by_node(nodes, inputs, g._outer)}
            return nodes.evaluate(known, nodes.outputs)[0]

        self.function = program._new_replay(function, g)
        self.d = None
        if self.active:
            d = graph.record(transforms.grad(function, tuple(self.active)), *leaves)
            self.d = graph.defined(d, leaves)
            self.gradient = gradient_bounds(self.d)

    def bounds(self, leaves: list[Any]) -> tuple[float, list[Any], float, list[Any]]:
        """Value, gradients, and their bounds."""
        shapes = [np.shape(leaves[k]) for k in self.active]
        try:
            (y, limit), bars = self.value(*leaves)
            limits = [self._entries(leaves, at) for at in range(len(self.active))]
        except _Unknown as error:
            self.unknown = (str(error.args[0]),)
            y = self.function(*leaves)
            bars = [_plainly(x) for x in self.exact_gradients(leaves)]
            return float(y), bars, math.nan, [_plainly(np.full(s, np.nan)) for s in shapes]
        return float(y), list(bars), float(limit), limits

    def exact_gradients(self, leaves: list[Any]) -> list[Any]:
        found = transforms.grad(self.function.function, tuple(self.active))(*leaves)
        return list(found)

    def _entries(self, leaves: list[Any], at: int) -> Any:
        """Bounds of the entries of one gradient: many unit vectors at once."""
        shapes = [np.shape(leaves[k]) for k in self.active]
        zeros = [np.zeros(s) if s else 0.0 for s in shapes]
        if not shapes[at]:
            return float(self.gradient(*leaves, *zeros[:at], 1.0, *zeros[at + 1:]))
        size = math.prod(shapes[at])
        units = np.eye(size).reshape(size, *shapes[at])
        before, after = [*leaves, *zeros[:at]], zeros[at + 1:]
        if size < 4:
            found = [self.gradient(*before, u, *after) for u in units]
        else:
            axes = (*[None] * len(before), 0, *[None] * len(after))
            found = self.gradient.map(*before, units, *after, in_axes=axes)
        return np.reshape(np.asarray(found, float), shapes[at])


def _plainly(x: Any) -> Any:
    """A float where it is one number."""
    return float(x) if np.ndim(x) == 0 else x


def _differences(
    f: Callable[..., Any], leaves: list[Any], k: int, g: Any, limit: float, scale: float,
    reach: float, shown: Progress,
) -> tuple[Any, Any]:
    """Central differences by leaf k, and how far they may be off the gradient g."""
    x = np.array(leaves[k], float)
    found, doubt = np.zeros(x.shape), np.zeros(x.shape)
    for j in np.ndindex(x.shape):
        h = min(6e-6 * max(1.0, abs(float(x[j]))), reach / 4.0)
        slopes = []
        for step in (h, h / 2.0):
            up, down = x.copy(), x.copy()
            up[j] += step
            down[j] -= step
            with np.errstate(all="ignore"):
                ends = [float(f(*leaves[:k], v.astype(np.asarray(leaves[k]).dtype) if v.ndim
                                else float(v), *leaves[k + 1:])) for v in (up, down)]
            slopes.append((ends[0] - ends[1]) / float(up[j] - down[j]))
        noise = (2.0 * limit + 4.0 * _UNIT * scale) / h
        found[j] = slopes[0]
        doubt[j] = 8.0 * abs(slopes[0] - slopes[1]) + 8.0 * noise + 1e-7 * abs(slopes[0])
        shown.add(1)
    return _plainly(found), _plainly(doubt)


def report(f: Callable[..., Any], *args: Any) -> Report:
    """Return value and gradient of a function with what they are worth.

    The function is recorded as by `compile`; it must give one floating number.  Bounds of rounding
    errors are of first order: they count each operation's own rounding (half a unit in the last
    place of ``+ - * /`` and square roots, 4 units of other functions), carried to the result by the
    adjoints; inputs count as exact.  Differences are taken for each entry of each input, so keep
    these few.

    Parameters
    ----------
    f : callable or Program
    *args
        Its arguments; the gradient is by all floating ones.

    Returns
    -------
    Report
        Printed, it is a table.

    Raises
    ------
    ValueError
        If the function gives other things than one number, or cannot be recorded.

    Examples
    --------
    >>> import fastad as ad
    >>> found = ad.report(lambda x, y: abs(x - y) * x, 3.0, 1.0)
    >>> found.value, found.gradient, found.agree
    (6.0, {'x': 5.0, 'y': -3.0}, True)
    >>> found.kinks[0].what, round(found.kinks[0].distance, 4)
    ('absolute', 1.4142)
    """
    p = program.compile(f)
    key, leaves = _leaves(args)
    with modes.no_grad(), np.errstate(all="ignore"):
        pieces = _pieces(p, key, args, leaves)
        try:
            found = pieces.bounds(leaves)
        except _core.GuardError:        # the gradient goes another way
            p.reports.clear()
            pieces = _pieces(p, key, args, leaves)
            found = pieces.bounds(leaves)
        return _filled(pieces, leaves, *found)


def _leaves(args: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """The key of a call, and copies of its numbers and arrays."""
    leaves: list[Any] = []
    key = program._call_key(*program._flatten(args, {}, leaves, []))
    return key, [x if isinstance(x, float) else np.array(x) for x in leaves]


def bounded(p: Program, args: tuple[Any, ...]) -> tuple[Replay, list[Any]]:
    """The program of value, bound and gradients, and what it takes for these arguments."""
    key, leaves = _leaves(args)
    with modes.no_grad(), np.errstate(all="ignore"):
        return _pieces(p, key, args, leaves).value, leaves


def _pieces(p: Program, key: Any, args: tuple[Any, ...], leaves: list[Any]) -> _Pieces:
    """Those of the recording that holds for these inputs, kept with the program."""
    plan, _ = blame.recording(p, args, {}, "report")
    if id(plan) not in p.reports:
        if len(p.reports) > 32:
            p.reports.clear()
        names = graph._input_names(p.source, args, {})
        g = Graph(p.__name__, plan.nodes, plan.outer, key, plan.result, names)
        p.reports[id(plan)] = plan, _Pieces(g, leaves)
    return p.reports[id(plan)][1]


def _filled(
    pieces: _Pieces, leaves: list[Any], y: float, bars: list[Any], limit: float, limits: list[Any]
) -> Report:
    g, active = pieces.g, pieces.active
    names = [g._input_names[k] for k in active]
    kinks, _ = _kinks(g, leaves, active)
    nearest = kinks[0].distance if kinks else math.inf
    differences, agree = {}, True
    scale = abs(y)
    with Progress("report", sum([np.size(leaves[k]) for k in active]), "entries") as shown:
        for name, k, bar in zip(names, active, bars):
            reach = nearest if nearest > 0.0 else math.inf
            known = limit if limit == limit else 64.0 * _UNIT * scale
            found, doubt = _differences(
                pieces.function, leaves, k, bar, known, scale, reach, shown)
            differences[name] = found
            agree = agree and bool(np.all(np.abs(found - bar) <= doubt))
    too_near = nearest < 1e-7
    with np.errstate(all="ignore"):
        condition = {name: _plainly(np.abs(np.asarray(leaves[k]) * bar / y))
                     for name, k, bar in zip(names, active, bars)}
    return Report(
        y, limit, dict(zip(names, bars)), dict(zip(names, limits)), differences,
        None if too_near else agree, kinks, condition,
        {name: _unreached(g._nodes, g._nodes.inputs[k], np.shape(leaves[k]))
         for name, k in zip(names, active)},
        pieces.unknown)


program.ABOVE["report"] = report
