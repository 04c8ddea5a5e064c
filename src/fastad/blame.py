"""Blame: which line gave the first nan or inf, and which lines take the time.

A program knows for each operation where it was recorded.  A replay does not look at that; when
somebody asks, the recording is run once more, operation by operation, and looked at.
"""

from __future__ import annotations

import linecache
import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import _core, arguments, modes, program, transforms
from ._core import AnomalyError, Nodes, Replay, Tensor
from .program import Program

__all__ = ["Line", "Profile"]


# ---- a recording, operation by operation ---------------------------------------------------------


def recording(
    replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any], who: str
) -> tuple[Any, dict[int, Tensor]]:
    """The Plan of the recording that holds for these arguments, and its inputs by node.

    Raises
    ------
    ValueError
        If there is none, because no program can be made.
    """
    key, leaves, _, _ = program.flatten(replay, args, kwargs)
    for attempt in range(2):
        for plan in replay.current(key):
            known = arguments.by_node(plan.nodes, leaves, plan.outer)
            try:
                plan.nodes.evaluate(known, plan.nodes.outputs)
            except _core.GuardError:
                continue
            return plan, known
        if key in replay.given_up:
            raise ValueError(f"{who}: there is no program of it: {replay.given_up[key]}")
        if not attempt:
            replay(*args, **kwargs)
    raise ValueError(f"{who}: no recording holds for these arguments")


def _all_values(nodes: Nodes, known: dict[int, Tensor], seconds: Any = None) -> list[Tensor]:
    return list(nodes.evaluate(known, list(range(len(nodes))), True, seconds))


class _unwatched:
    """No gradients, no warnings of NumPy's, and nobody who looks for nan meanwhile."""

    def __enter__(self) -> None:
        self._level = _core.watch(0)
        self._modes: list[Any] = [modes.no_grad(), np.errstate(all="ignore")]
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *exc: object) -> None:
        for mode in self._modes[::-1]:
            mode.__exit__(None, None, None)
        _core.watch(self._level)


# ---- the first nan or inf ------------------------------------------------------------------------


def origin(nodes: Nodes, values: list[Tensor], name: str) -> AnomalyError | None:
    """Where the nan or inf of the outputs began: the earliest operation on the way to them that
    gave one from finite operands.  None where the outputs are finite.

    What ``where`` has hidden does not count: it is not on the way.
    """
    pending = [i for i in nodes.outputs if not _core.is_finite(values[i])]
    reached = set(pending)
    first = -1
    while pending:
        i = pending.pop()
        causes = [p for p in nodes.parents(i) if not _core.is_finite(values[p])]
        if not causes and (first < 0 or i < first):
            first = i
        for p in causes:
            if p not in reached:
                reached.add(p)
                pending.append(p)
    if first < 0:
        return None
    what = nodes.primitive(first)
    inputs = tuple([_core.seen_value(values[p]) for p in nodes.parents(first)])
    derived = nodes.is_derived(first)
    about = "in the gradient, the value is" if derived else "the value is"
    return _core.anomaly(f"program of {name}: {what}", _core.seen_value(values[first]), inputs,
                         nodes.place(first), derived, about)


def _is_finite(x: Any) -> bool:
    if isinstance(x, Tensor):
        return bool(_core.is_finite(x))
    if isinstance(x, (float, np.floating)):
        return math.isfinite(x)
    return not (isinstance(x, np.ndarray) and x.dtype.kind == "f") or bool(np.isfinite(x).all())


def found(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AnomalyError | None:
    """Who gave the nan or inf in the result of a program; None where all of it is finite."""
    with _unwatched():
        plan, known = recording(replay, args, kwargs, "blame")
        error = origin(plan.nodes, _all_values(plan.nodes, known), program.name_of(replay))
    if error is not None:
        error.primitive = error.primitive.rpartition(": ")[2]
    return error


def _users_level() -> int:
    """How many frames above the caller the user's own code is."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    return level


_HERE = os.path.dirname(__file__) + os.sep


def tell(
    replay: Replay, plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any,
    how: set[str],
) -> None:
    """Do about nan and inf in the result of a replay what ``np.errstate`` says.

    A recording warns once; what NumPy calls "raise" raises each time.
    """
    if plan.told and how == {"warn"} or all(map(_is_finite, transforms._leaves(result, []))):
        return
    try:
        error = found(replay, args, kwargs)
    except ValueError:
        return                      # no recording holds any more
    if error is None or error.primitive in ("input", "constant"):
        return                      # it was given
    plan.told = True
    if "raise" in how:
        raise error
    if "warn" in how:
        warnings.warn(str(error), RuntimeWarning, stacklevel=_users_level())
    if "print" in how:
        print(f"Warning: {error}", file=sys.stderr)
    handler: Any = np.geterrcall()
    if "log" in how:
        handler.write(f"Warning: {error}\n")
    if "call" in how:
        handler(str(error), 0)


def watched(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a program while `detect_anomaly` is on."""
    leaves = transforms._leaves([*args, *kwargs.values()], [])
    if _core.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in leaves):
        return replay.call(args, kwargs)        # ordinary code, which is watched itself
    level = _core.watch(0)
    try:
        result = replay(*args, **kwargs)
    finally:
        _core.watch(level)
    if all(map(_is_finite, transforms._leaves(result, []))):
        return result
    given = {k: x for k, x in kwargs.items() if k != "out" or replay.takes_out}
    try:
        error = found(replay, args, given)
    except ValueError:
        return program.eager(replay, args, given)       # no program: ordinary code
    if error is not None:
        raise error
    return result


def blame(p: Program, *args: Any) -> AnomalyError | None:
    """Return what the first nan or inf in the value or gradient of a program comes from.

    Parameters
    ----------
    p : Program
    *args
        Arguments of a call.

    Returns
    -------
    AnomalyError or None
        Not raised: with ``primitive``, ``inputs``, ``file``, ``line``, ``function`` and
        ``gradient``.  None where value and gradient are finite.

    Raises
    ------
    ValueError
        If no program can be made of the function.
    """
    error = found(p, args, {})
    if error is None and _has_gradient(p, args):
        error = found(_with_gradient(p, args), args, {})
    return error


def _with_gradient(p: Program, args: tuple[Any, ...]) -> Replay:
    """Value and gradient in all floating arguments."""
    active = tuple([k for k, x in enumerate(args) if _floats(x)])
    return p.derived("value_and_grad", active if len(active) != 1 else active[0])


def _floats(x: Any) -> bool:
    leaves = transforms._leaves(x, [])
    return bool(leaves) and all(
        isinstance(v, (float, np.floating)) or
        isinstance(v, (np.ndarray, Tensor)) and v.dtype.kind == "f" for v in leaves)


def _has_gradient(p: Program, args: tuple[Any, ...]) -> bool:
    """Whether the result is one floating number, and an argument holds floats."""
    if not any(map(_floats, args)):
        return False
    with _unwatched():
        y = p(*args)
    return isinstance(y, (float, Tensor, np.ndarray)) and np.size(y) == 1 and (
        isinstance(y, float) or y.dtype.kind == "f")


# ---- time and memory by line ---------------------------------------------------------------------


class Line(NamedTuple):
    """What a line of the user's code costs in a program.

    Attributes
    ----------
    file, line, function
        None where it is not known.
    seconds, gradient_seconds : float
        Of its operations, and of those that a sweep made of them.
    bytes : int
        Of the values of all of these.
    operations : int
    text : str
        The line itself, as far as its file can be read.
    """

    file: str | None
    line: int | None
    function: str | None
    seconds: float
    gradient_seconds: float
    bytes: int
    operations: int
    text: str


class Profile(NamedTuple):
    """What `Program.profile` gives; printed, it is a table.

    Attributes
    ----------
    lines : list of Line
        The costliest first.
    seconds : float
        Of all operations, computed one by one.

    Examples
    --------
    >>> import fastad as ad
    >>> found = ad.compile(lambda x: ad.sin(x) * x).profile(1.0)
    >>> found.lines[0].function, found.lines[0].operations
    ('<lambda>', 7)
    """

    lines: list[Line]
    seconds: float

    def __str__(self) -> str:
        from .tables import Table

        rows = []
        for x in self.lines:
            where = "?" if x.file is None else f"{x.file.rpartition('/')[2]}:{x.line}"
            rows.append((f"{100 * x.seconds / self.seconds:.1f} %",
                         f"{100 * x.gradient_seconds / self.seconds:.1f} %", str(x.bytes),
                         str(x.operations), where, x.text))
        head = ("value", "gradient", "bytes", "operations", "line", "")
        return Table("", head, rows, (4, 5)).text()


def profile(p: Program, *args: Any, repeats: int = 5) -> Profile:
    """Return time and memory of a program by the lines of the user's code.

    The recording of value and gradient (of the value alone, where it is no single number) is
    computed operation by operation, `repeats` times, of which the fastest counts.  A replay fuses
    operations and is faster, of small arrays and numbers by far: read this as shares.

    Parameters
    ----------
    p : Program
    *args
        Arguments of a call.
    repeats : int

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        If no program can be made of the function.
    """
    replay: Replay = _with_gradient(p, args) if _has_gradient(p, args) else p
    with _unwatched():
        plan, known = recording(replay, args, {}, "profile")
        nodes = plan.nodes
        best = np.full(len(nodes), np.inf)
        for _ in range(max(1, repeats)):
            seconds = np.zeros(len(nodes))
            values = _all_values(nodes, known, seconds)
            best = np.minimum(best, seconds)
    sums: dict[Any, list[Any]] = {}
    for i, t in enumerate(values):
        if nodes.primitive(i) in ("input", "constant"):
            continue
        entry = sums.setdefault(nodes.place(i), [0.0, 0.0, 0, 0])
        entry[int(nodes.is_derived(i))] += float(best[i])
        entry[2] += t.nbytes
        entry[3] += 1
    lines = []
    for place, (seconds, gradient_seconds, size, operations) in sums.items():
        file, line, function = place or (None, None, None)
        text = linecache.getline(file, line).strip() if file and line else ""
        lines.append(Line(file, line, function, seconds, gradient_seconds, size, operations, text))
    lines.sort(key=lambda x: -(x.seconds + x.gradient_seconds))
    return Profile(lines, sum(x.seconds + x.gradient_seconds for x in lines))


METHODS: dict[str, Callable[..., Any]] = {
    "watched": watched, "tell": tell, "blame": blame, "profile": profile}
program.ABOVE.update(METHODS)
