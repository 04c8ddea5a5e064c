"""Programs over rows: a function of one row computed for many, by programs where it has them.

The rows of a call are tried on the recorded programs one after another, as many at once as fit a
cache.  A program says for which rows its guards did not hold.  Where none is left to try, the first
such row is computed by an ordinary call, which records the way that this row takes.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core, numpy_api
from ._core import Replay, Tensor
from .progress import Progress, checked
from .transforms import mapped

__all__ = ["map_rows"]

# A thread comes back from C after about so many elements, some milliseconds, to let others go on,
# to show the progress and to notice an interrupt.
_ELEMENTS = 4_000_000


# Arguments.


def _array(k: int, x: Any, floating: bool) -> np.ndarray:
    """The rows of argument k; C-contiguous, in native byte order."""
    try:
        a = np.asarray(_core.array(x) if isinstance(x, Tensor) else x)
    except ValueError as error:
        raise ValueError(f"map: argument {k} is not an array of rows: {error}") from None
    if a.dtype.kind not in "fciub" or a.dtype.itemsize > 16:
        raise TypeError(
            f"map: argument {k} has dtype {a.dtype}; wanted an array of numbers, a row a call"
        )
    if a.ndim == 0:
        raise ValueError(f"map: argument {k} has no axes; wanted rows on the first axis")
    if floating and a.dtype.kind in "iub":
        a = a.astype(np.float64)
    return np.require(a, a.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED"])


def _axes(count: int, in_axes: Any) -> tuple[bool, ...]:
    """Which arguments have rows."""
    if in_axes is None:
        return (True,) + (False,) * (count - 1)
    axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes,) * count
    if len(axes) != count:
        raise ValueError(f"map: {len(axes)} axes for {count} arguments")
    for axis in axes:
        if axis is not None and (isinstance(axis, bool) or axis != 0):
            raise ValueError(f"map: axis {axis!r}; rows stand on axis 0, None is for all rows")
    if all(axis is None for axis in axes):
        raise ValueError("map: no argument has rows")
    return tuple(axis is not None for axis in axes)


class _Rows:
    """The arguments of one call of `map`."""

    def __init__(self, replay: Replay, args: tuple[Any, ...], in_axes: Any) -> None:
        if not args:
            raise TypeError("map: wanted an array of rows")
        self.mapped = _axes(len(args), in_axes)
        self.tensors = any(isinstance(x, Tensor) for x in args)
        floating = {k % len(args) for k in replay.argnums if -len(args) <= k < len(args)}
        # Rows of tensors that somebody differentiates, or that are being recorded, stay tensors.
        self.traced = _core.is_tracing() or any(
            isinstance(x, Tensor) and x.requires_grad and _core.is_grad_enabled() for x in args
        )
        self.args = [
            x if not mapped or (self.traced and isinstance(x, Tensor) and x.ndim)
            else _array(k, x, k in floating)
            for k, (x, mapped) in enumerate(zip(args, self.mapped))
        ]
        counts = {len(x) for x, mapped in zip(self.args, self.mapped) if mapped}
        if len(counts) > 1:
            raise ValueError(f"map: arguments have {' and '.join(map(str, sorted(counts)))} rows")
        (self.count,) = counts
        if self.count == 0:
            raise ValueError("map: there are no rows, so nothing tells the shapes of the results")

    def row(self, i: int) -> tuple[Any, ...]:
        """The arguments of one call."""
        return tuple(
            _one(x, i) if mapped else x for x, mapped in zip(self.args, self.mapped)
        )

    def fit(self) -> bool:
        """Whether rows are inputs of programs and not part of what a recording is for."""
        return all(
            not mapped or x.dtype in (np.float64, np.float32)
            or (x.dtype.kind in "iub" and x.ndim > 1)
            for x, mapped in zip(self.args, self.mapped)
        )


def _one(x: Any, i: int) -> Any:
    one = x[i]
    return float(one) if type(one) is np.float64 else one


# Results.


def _leaves(tree: Any, out: list[Any]) -> Any:
    """The nesting of a result with numbers for its leaves, which go to `out`."""
    def leaf(x: Any) -> int:
        out.append(x)
        return len(out) - 1

    return mapped(tree, leaf)


def _flat(tree: Any) -> list[Any]:
    found: list[Any] = []
    _leaves(tree, found)
    return found


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, complex, np.ndarray, np.generic))


def _stacked(parts: list[Any]) -> Any:
    """Leaves of single rows on a new first axis; what is no number must be the same for all."""
    if any(isinstance(x, Tensor) for x in parts):
        return numpy_api.stack(parts)
    if all(map(_is_number, parts)):
        return np.stack([np.asarray(x) for x in parts])
    if any(type(x) is not type(parts[0]) or x != parts[0] for x in parts):
        raise ValueError("map: rows give results that are not numbers and differ")
    return parts[0]


class _Results:
    """Results of rows, in arrays with a row for each, in the nesting of a single result."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.tree: Any = None
        self.arrays: list[Any] = []

    def put(self, rows: Any, tree: Any, leaves: list[Any]) -> None:
        """Take over the results of some rows: `leaves` have these rows on their first axis."""
        if self.tree is None:
            self.tree = (tree,)
            self.arrays = [
                x if isinstance(x, np.ndarray) and len(x) == self.count
                else np.empty((self.count, *x.shape[1:]), x.dtype) if isinstance(x, np.ndarray)
                else x
                for x in leaves
            ]
        elif self.tree != (tree,) or any(
            (isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.shape[1:] != y.shape[1:])
            or isinstance(x, np.ndarray) is not isinstance(y, np.ndarray)
            or (not isinstance(x, np.ndarray) and x != y)
            for x, y in zip(self.arrays, leaves)
        ):
            raise ValueError("map: rows give results of different shapes or nesting")
        for k, (have, new) in enumerate(zip(self.arrays, leaves)):
            if have is new or not isinstance(new, np.ndarray):
                continue
            dtype = np.result_type(have.dtype, new.dtype)
            if have.dtype != dtype:
                have = self.arrays[k] = have.astype(dtype)
            have[rows] = new

    def put_one(self, row: int, result: Any) -> None:
        """Take over the result of a single call."""
        leaves: list[Any] = []
        tree = _leaves(result, leaves)
        leaves = [_core.array(x.detach()) if isinstance(x, Tensor) else x for x in leaves]
        self.put(slice(row, row + 1), tree, [
            np.asarray(x)[np.newaxis] if _is_number(x) else x for x in leaves
        ])

    def put_run(self, rows: Any, tree: Any, outputs: list[np.ndarray]) -> None:
        """Take over outputs of a program, whose `tree` names them by number."""
        leaves: list[Any] = []
        tree = _leaves(tree, leaves)
        count = len(outputs[0]) if outputs else len(np.arange(self.count)[rows])
        found = []
        for x in leaves:
            if type(x) is int:
                x = outputs[x]
                x = x.astype(np.float64) if x.ndim == 1 and x.dtype == np.float32 else x
            else:
                x = x.value
                if _is_number(x):
                    x = np.repeat(np.asarray(x)[np.newaxis], count, axis=0)
            found.append(x)
        self.put(rows, tree, found)

    def nested(self, tensors: bool) -> Any:
        """All results."""
        arrays = [
            _core.tensor(x) if tensors and isinstance(x, np.ndarray) else x for x in self.arrays
        ]
        return mapped(self.tree[0], lambda k: arrays[k])


# Running.


def _in_shards(
    work: Callable[[int, int], int], count: int, step: int, threads: int, progress: Progress
) -> None:
    """Call ``work(start, stop)``, which tells how many rows are done, over all rows.

    This thread takes part.  There are no locks: an interrupt that comes while one is held could
    leave it so, for ever.
    """
    todo = deque([(k, min(k + step, count)) for k in range(0, count, step)])
    others = min(threads, len(todo)) - 1
    done: deque[int] = deque()
    ended: list[BaseException | None] = []
    started = 0

    def take() -> None:
        while todo:
            try:
                shard = todo.popleft()
            except IndexError:      # another thread had the last one
                return
            done.append(work(*shard))
            if threading.get_ident() == own:
                tell()

    def tell() -> None:
        while done:
            progress.add(done.popleft())

    def help_out() -> None:
        error = None
        try:
            take()
        except BaseException as e:
            todo.clear()
            error = e
        ended.append(error)

    own = threading.get_ident()
    try:
        for _ in range(others):
            _thread.start_new_thread(help_out, ())
            started += 1
        take()
    finally:
        todo.clear()                # an error or an interrupt ends the others too
        pause = 2e-5
        while len(ended) < started:
            time.sleep(pause)
            pause = min(2.0 * pause, 2e-3)
    tell()
    for error in ended:
        if error is not None:
            raise error


def _run(
    plan: Any, varies: bytes, leaves: list[Any], count: int, threads: int, progress: Progress
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run a program over rows; which of them it does not hold for, and its outputs."""
    failed = np.zeros(count, np.uint8)
    width = plan.rows_at_once(varies)
    figures = plan.figures()
    each = figures["work"] + 1 + 4000 * figures["foreign"]
    if not width:
        found: list[Any] = [None] * count

        def one_by_one(start: int, stop: int) -> int:
            for i in range(start, stop):
                found[i] = plan.run_row([
                    x if not moves else float(x[i]) if x.ndim == 1 and x.dtype == np.float64
                    else np.asarray(x[i]) for x, moves in zip(leaves, varies)
                ])
                failed[i] = found[i] is None
            return stop - start - int(np.count_nonzero(failed[start:stop]))

        _in_shards(one_by_one, count, max(1, _ELEMENTS // (each + 100)), threads, progress)
        good = [row for row in found if row is not None]
        outputs = [np.stack([np.asarray(x) for x in parts]) for parts in zip(*good)]
        return failed.astype(bool), outputs
    outputs = [np.empty((count, *shape), dtype) for shape, dtype in plan.outputs()]

    def at_once(start: int, stop: int) -> int:
        plan.run_rows(varies, leaves, outputs, failed, start, stop)
        return stop - start - int(np.count_nonzero(failed[start:stop]))

    blocks = max(1, min(_ELEMENTS // (each * width), -(-count // (4 * threads * width))))
    _in_shards(at_once, count, blocks * width, threads, progress)
    bad = failed.astype(bool)
    return bad, outputs if not bad.any() else [x[~bad] for x in outputs]


def _threads(threads: Any) -> int:
    if threads is None:
        return 1
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)):
        raise TypeError(f"map: threads={threads!r}; wanted a positive integer")
    if threads < 1:
        raise ValueError(f"map: threads={threads}; wanted at least 1")
    return int(threads)


def map_rows(
    replay: Replay, args: tuple[Any, ...], in_axes: Any, threads: Any, progress: Any
) -> Any:
    """Return the results of a replay for each row, stacked; `Program.map` says of what.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> ad.compile(ad.square).grad.map(np.array([1.0, 2.0]))
    array([2., 4.])
    """
    hooks = replay.hooks
    workers = _threads(threads)
    rows = _Rows(replay, args, in_axes)
    shown = progress if isinstance(progress, Progress) else Progress(
        "map", rows.count, "rows", checked("map", progress))
    try:
        if rows.traced or not rows.fit():
            return _one_by_one(replay, rows, shown)
        return _by_programs(replay, rows, workers, shown, hooks)
    finally:
        shown.close()


def _one_by_one(replay: Replay, rows: _Rows, progress: Progress) -> Any:
    """Ordinary calls, with results that may have a history."""
    trees, parts = [], []
    for i in range(rows.count):
        leaves: list[Any] = []
        trees.append(_leaves(replay(*rows.row(i)), leaves))
        parts.append(leaves)
        progress.add(1)
    if any(tree != trees[0] for tree in trees):
        raise ValueError("map: rows give results of different shapes or nesting")
    try:
        stacks = [_stacked(list(leaves)) for leaves in zip(*parts)]
        return mapped(trees[0], lambda k: stacks[k])
    except ValueError as error:
        if "map" in str(error):
            raise
        raise ValueError("map: rows give results of different shapes or nesting") from None


def _by_programs(
    replay: Replay, rows: _Rows, threads: int, progress: Progress, hooks: Any
) -> Any:
    key, inputs, _, tensors = hooks.flatten(replay, rows.row(0), {})
    # Which inputs have rows: an argument that has is one input, others may be nested.
    varies: list[bool] = []
    leaves: list[Any] = []
    for x, has_rows in zip(rows.args, rows.mapped):
        own: list[Any] = []
        if not has_rows:
            hooks._flat(x, own, [])
        varies += [True] if has_rows else [False] * len(own)
        leaves += [x] if has_rows else inputs[len(leaves):len(leaves) + len(own)]
    flags = bytes(varies)
    results = _Results(rows.count)
    pending = np.arange(rows.count)
    tried: list[Any] = []
    computed: dict[int, Any] = {}       # by an ordinary call
    # Where tensors from outside are differentiated too, results have a history.
    if _core.is_grad_enabled() and any(plan.outer_active() for plan in replay.current(key)):
        return _one_by_one(replay, rows, progress)
    while pending.size:
        for plan in replay.current(key):
            if any(plan is other for other in tried):
                continue
            tried.append(plan)
            everything = pending.size == rows.count
            some = leaves if everything else [
                np.ascontiguousarray(x[pending]) if moves else x for x, moves in zip(leaves, varies)
            ]
            bad, outputs = _run(plan, flags, some, len(pending), threads, progress)
            if not bad.all():
                done = slice(None) if everything and not bad.any() else pending[~bad]
                results.put_run(done, plan.result, outputs)
                others = ~bad & ~np.isin(pending, list(computed))
                if others.any():        # than the one that it was recorded from
                    replay.served(key, plan, int(np.count_nonzero(others)))
            pending = pending[bad]
            if not pending.size:
                break
        else:
            row = int(pending[0])
            if row not in computed:
                result = replay(*rows.row(row))
                if any(isinstance(x, Tensor) and x.requires_grad for x in _flat(result)):
                    return _one_by_one(replay, rows, progress)
                computed = {row: result}
                if any(all(plan is not other for other in tried) for plan in replay.current(key)):
                    continue    # it gets the bits that it has when the program is there already
            pending = pending[1:]
            results.put_one(row, computed.pop(row))
            progress.add(1)
    _tell(replay, key, rows, results)
    return results.nested(bool(tensors) or rows.tensors)


def _tell(replay: Replay, key: Any, rows: _Rows, results: _Results) -> None:
    """Do about a row whose result is not finite what ``np.errstate`` says."""
    plans, how = replay.current(key), _core.how_told()
    if not plans or not how or (plans[0].told and how == {"warn"}):
        return
    for x in results.arrays:
        if isinstance(x, np.ndarray) and x.dtype.kind in "fc":
            fine = np.isfinite(x).reshape(results.count, -1).all(axis=1)
            if not fine.all():
                row = int(fine.argmin())
                replay.hooks.tell(replay, plans[0], rows.row(row), {}, x[row], how)
                return
