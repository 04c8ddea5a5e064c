"""Large records made small: what repeats becomes one, and what is still too much one box.

The nodes stand in the order in which they were recorded, in the nesting of the functions that
recorded them.  What a loop has recorded shows there as one pattern many times in a row: the places
of the pattern become groups of as many nodes as there are repetitions, loops within loops
included.  If this is not enough, the calls of functions become a box each, and at last stretches
of the record.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_LEAST = 3              # repetitions that are folded
_LONGEST = 2000         # a pattern
_STRETCHES, _END = 12, 8        # boxes for stretches of a record, and nodes after them


class Group(NamedTuple):
    """Nodes that are drawn as one.

    ``title`` is None for nodes that are all the same operation; else what the box stands for, a
    function or ``""``, and ``times`` how often.
    """

    members: list[int]
    title: str | None = None
    times: int = 1


class Scope(NamedTuple):
    """A call of a function: its name, and what it recorded: ``start <= node < stop``."""

    name: str
    start: int
    stop: int


class _Item(NamedTuple):
    """A node (``parts`` None), a repeated pattern (``title`` None), or a call of a function."""

    sign: int
    members: list[int]
    parts: list[_Item] | None = None
    title: str | None = None
    times: int = 1


def folded(
    order: list[int], signs: Sequence[Hashable], inputs: set[int], most: int | None,
    scopes: list[Scope]
) -> list[Group]:
    """Groups of the nodes `order`, at most about `most`, each where its first node stands.

    Parameters
    ----------
    order : list of int
        Nodes, ascending.
    signs : list
        For each of them what it must share with another to be the same operation.
    inputs : set of int
        Nodes that stay apart where that is possible.
    most : int or None
        None folds nothing.
    scopes : list of Scope
        Nested, or apart, by node.

    Examples
    --------
    >>> from fastad.folding import folded
    >>> groups = folded(list(range(9)), "xababababy", {0}, 8, [])
    >>> [group.members for group in groups]
    [[0], [1, 3, 5, 7], [2, 4, 6, 8]]
    """
    if most is None or len(order) <= most:
        return [Group([i]) for i in order]
    known: dict[Hashable, int] = {}
    items = _nested(order, [known.setdefault(s, len(known)) for s in signs], inputs, scopes, known)
    items = _compressed(items, known)
    _closed(items, most)
    groups = sorted(_leaves(items), key=_first)
    if len(groups) > most:
        groups = sorted(_stretches(groups, inputs, most), key=_first)
    return groups


def _first(group: Group) -> int:
    return group.members[0]


def _nested(
    order: list[int], signs: list[int], inputs: set[int], scopes: list[Scope],
    known: dict[Hashable, int]
) -> list[_Item]:
    """The nodes as items, calls of functions as items of items; inputs are outside of all."""
    top: list[_Item] = []
    open_: list[tuple[Scope, list[_Item]]] = []
    coming = sorted(scopes, key=lambda s: (s.start, -s.stop))
    at = 0

    def close(upto: int) -> None:
        while open_ and open_[-1][0].stop <= upto:
            scope, parts = open_.pop()
            if parts:
                parts = _compressed(parts, known)
                sign = ("call", scope.name, *[p.sign for p in parts])
                target = open_[-1][1] if open_ else top
                target.append(_Item(known.setdefault(sign, len(known)), [], parts, scope.name))

    for i, sign in zip(order, signs):
        while at < len(coming) and coming[at].start <= i:
            close(coming[at].start)
            open_.append((coming[at], []))
            at += 1
        close(i)
        (open_[-1][1] if open_ and i not in inputs else top).append(_Item(sign, [i]))
    close(max(order) + 1 if order else 0)
    while open_:
        close(open_[-1][0].stop)
    return top


def _compressed(items: list[_Item], known: dict[Hashable, int]) -> list[_Item]:
    """Patterns that follow one another become one, short patterns first."""
    for _ in range(8):
        before = len(items)
        signs = _signs(items)
        period = 1
        while period <= min(len(items) // _LEAST, _LONGEST):
            runs = _runs(signs, period)
            if runs:
                items = _without(items, period, runs, known)
                signs = _signs(items)
            period += 1
        if len(items) == before:
            break
    return items


def _signs(items: list[_Item]) -> np.ndarray[Any, Any]:
    return np.array([item.sign for item in items], np.int64)


def _runs(signs: np.ndarray[Any, Any], p: int) -> list[tuple[int, int]]:
    """Where things with the period p begin, and how often the pattern stands there."""
    least = (_LEAST - 1) * p
    step = max(1, p // 8)       # a look at every eighth of a pattern rejects nearly all periods
    if step > 1 and not _stretched(signs[p::step] == signs[:-p:step], least // step)[0].size:
        return []
    long, ends = _stretched(signs[p:] == signs[:-p], least)
    runs = []
    at = 0
    for k in long.tolist():
        start = max(int(ends[2 * k]), at)
        times = (int(ends[2 * k + 1]) - start) // p + 1
        if times >= _LEAST:
            runs.append((start, times))
            at = start + times * p
    return runs


def _stretched(
    same: np.ndarray[Any, Any], least: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which stretches of true are long, and all starts and stops by turns."""
    padded = np.zeros(len(same) + 2, np.int8)
    padded[1:-1] = same
    ends = np.flatnonzero(np.diff(padded))
    return np.flatnonzero(ends[1::2] - ends[::2] >= least), ends


def _without(
    items: list[_Item], p: int, runs: list[tuple[int, int]], known: dict[Hashable, int]
) -> list[_Item]:
    """The items with each run as one."""
    new: list[_Item] = []
    at = 0
    for start, times in runs:
        new += items[at:start]
        at = start + times * p
        parts = [_merged(items[start + k : at : p]) for k in range(p)]
        if p == 1 and parts[0].parts is None:
            new.append(parts[0])
        else:
            sign = ("repeat", *[part.sign for part in parts])
            new.append(_Item(known.setdefault(sign, len(known)), [], parts))
    return new + items[at:]


def _merged(items: list[_Item]) -> _Item:
    """Items of one sign as one."""
    first = items[0]
    if first.parts is None:
        return first._replace(members=[i for item in items for i in item.members])
    parts = [_merged(list(same)) for same in zip(*[item.parts or [] for item in items])]
    return first._replace(parts=parts, times=sum([item.times for item in items]))


def _size(items: list[_Item]) -> int:
    return sum([1 if item.parts is None else _size(item.parts) for item in items])


def _nodes(items: list[_Item]) -> list[int]:
    return [i for item in items for i in (
        item.members if item.parts is None else _nodes(item.parts))]


def _closed(items: list[_Item], most: int) -> None:
    """Functions become one box each, innermost first and large ones first, while there is need."""
    spare = _size(items) - most
    while spare > 0:
        found: list[tuple[int, list[_Item], int]] = []
        _innermost(items, found)
        if not found:
            break
        for size, among, k in sorted(found, key=lambda f: -f[0]):
            if spare > 0:
                call = among[k]
                among[k] = call._replace(parts=None, members=sorted(_nodes([call])))
                spare -= size - 1


def _innermost(items: list[_Item], found: list[tuple[int, list[_Item], int]]) -> bool:
    """Find calls in which no other call could become a box; whether there are any."""
    some = False
    for k, item in enumerate(items):
        if item.parts is None:
            continue
        inside = _innermost(item.parts, found)
        if not inside and item.title is not None and (size := _size(item.parts)) > 1:
            found.append((size, items, k))
            inside = True
        some = some or inside
    return some


def _leaves(items: list[_Item]) -> Iterator[Group]:
    for item in items:
        if item.parts is None:
            yield Group(sorted(item.members), item.title, item.times)
        else:
            yield from _leaves(item.parts)


def _stretches(groups: list[Group], inputs: set[int], most: int) -> list[Group]:
    """Stretches of the record as one box each; inputs and the end of it stay, if there is room."""
    given = [g for g in groups if g.members[0] in inputs]
    rest = [g for g in groups if g.members[0] not in inputs]
    if len(given) > most // 4:
        given = [Group(sorted([i for g in given for i in g.members]))]
    last = min(most // 4, _END, len(rest))
    room = max(1, min(most - len(given) - last, _STRETCHES))
    many, rest = rest[: len(rest) - last], rest[len(rest) - last :]
    length = -(-len(many) // room) if many else 1
    new: list[Group] = []
    for k in range(0, len(many), length):
        part = many[k : k + length]
        whole = sorted([i for g in part for i in g.members])
        new.append(part[0] if len(part) == 1 else Group(whole, ""))
    return given + new + rest


def within(
    order: list[int], parents: list[tuple[int, ...]], outputs: list[int], depth: int
) -> tuple[list[int], list[int]]:
    """The nodes from which every way to an output has at most `depth` steps, and the others."""
    far: dict[int, int] = dict.fromkeys(outputs, 0)
    for i in reversed(order):
        if i in far:
            for p in parents[i]:
                far[p] = max(far.get(p, 0), far[i] + 1)
    near = [i for i in order if far.get(i, 0) <= depth]
    return near, [i for i in order if far.get(i, 0) > depth]


def summary(names: list[Any]) -> str:
    """What a box of many operations holds: ``sin × 300, add × 200, ...``."""
    kinds, counts = np.unique(np.array(names, dtype=str), return_counts=True)
    most = sorted(zip(counts.tolist(), kinds.tolist()), key=lambda pair: (-pair[0], pair[1]))
    told = [f"{kind} × {count}" if count > 1 else kind for count, kind in most[:3]]
    return ", ".join(told + (["…"] if len(most) > 3 else []))
