"""Places for the boxes and arrows of a layered graph, from left to right.

The method is Sugiyama's (Sugiyama, Tagawa, Toda 1981): ranks by longest paths, orders within ranks
by sweeps of medians and barycentres, then heights by least squares under the given order.  A rank
is a column; whatever passes through it, a box, a label or a line, has a slot there of its own, so
that lines never cross boxes.  Between two columns lines are curves, inside a column level:

    | box  |         | label |       | box  |
    |  A  -|--.      |       |    .--|> B   |
    |      |   '-----|-------|---'   |      |
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

Size = tuple[float, float]
Command = tuple[str, tuple[float, ...]]

_SWEEPS = 24
_SETTLE = 16
_LINE = 9.0             # the slot of a line that passes a column
_LOOP = 18.0            # room above a box that points to itself
_GAP_X, _GAP_Y = 30.0, 14.0


class Placed(NamedTuple):
    """Boxes (x, y, width, height), paths from tail to head, and the centres of labels.

    A path is a list of commands as in SVG: ``("M", (x, y))``, ``("L", (x, y))``,
    ``("C", (x1, y1, x2, y2, x, y))``.
    """

    boxes: list[tuple[float, float, float, float]]
    paths: list[list[Command]]
    labels: list[tuple[float, float] | None]
    width: float
    height: float


class _Cells:
    """What stands in the columns: boxes first, then labels and passing lines."""

    def __init__(self, sizes: list[Size], looped: set[int], ranks: list[int]) -> None:
        self.width = [w for w, _ in sizes]
        self.height = [h + (2.0 * _LOOP if k in looped else 0.0) for k, (_, h) in enumerate(sizes)]
        self.rank = list(ranks)
        self.boxes = len(sizes)
        self.before: list[list[int]] = [[] for _ in sizes]
        self.after: list[list[int]] = [[] for _ in sizes]

    def add(self, rank: int, width: float, height: float) -> int:
        self.width.append(width)
        self.height.append(height)
        self.rank.append(rank)
        self.before.append([])
        self.after.append([])
        return len(self.rank) - 1

    def join(self, a: int, b: int) -> None:
        if b not in self.after[a]:
            self.after[a].append(b)
            self.before[b].append(a)


def place(sizes: list[Size], edges: list[tuple[int, int]], labels: list[Size | None]) -> Placed:
    """Place boxes of these sizes.

    Parameters
    ----------
    sizes : list of (width, height)
    edges : list of (tail, head)
        Each tail at most its head: the order of the boxes is one in which arrows go forward, and
        an edge from a box to itself is a loop above it.
    labels : list of (width, height) or None
        Of the edges; loops have none.

    Examples
    --------
    >>> from fastad.layout import place
    >>> place([(10.0, 20.0), (10.0, 20.0)], [(0, 1)], [None]).boxes
    [(0.0, 0.0, 10.0, 20.0), (40.0, 0.0, 10.0, 20.0)]
    """
    looped = {u for u, v in edges if u == v}
    cells = _Cells(sizes, looped, _ranks(len(sizes), edges, 2 if any(labels) else 1))
    routes, marks = _routes(cells, edges, labels)
    columns = _ordered(cells)
    y = _heights(cells, columns)
    left, right = _columns(cells, columns, y)
    boxes = []
    for k, (w, h) in enumerate(sizes):
        r = cells.rank[k]
        boxes.append((0.5 * (left[r] + right[r] - w), y[k] - 0.5 * h, w, h))
    ports = _ports(cells, boxes, y)
    paths = [
        _loop(boxes[u]) if u == v else _path(cells, route, boxes, ports, y, left, right)
        for (u, v), route in zip(edges, routes)
    ]
    centres = [
        None if k < 0 else (0.5 * (left[cells.rank[k]] + right[cells.rank[k]]), y[k]) for k in marks
    ]
    height = max([y[k] + 0.5 * cells.height[k] for k in range(len(y))], default=0.0)
    return Placed(boxes, paths, centres, right[-1] if right else 0.0, height)


def _ranks(n: int, edges: list[tuple[int, int]], step: int) -> list[int]:
    """Columns by the longest way from a start; starts move up to what they lead to."""
    rank = [0] * n
    after: list[list[int]] = [[] for _ in range(n)]
    starts = [True] * n
    for u, v in edges:
        if u != v:
            after[u].append(v)
            starts[v] = False
    for u in range(n):
        for v in after[u]:
            rank[v] = max(rank[v], rank[u] + step)
    for u in range(n):
        if starts[u] and after[u]:
            rank[u] = min([rank[v] for v in after[u]]) - step
    return rank


def _routes(
    cells: _Cells, edges: list[tuple[int, int]], labels: list[Size | None]
) -> tuple[list[list[int]], list[int]]:
    """The cells that each edge passes, and its label's; lines from one box run as one at first."""
    trunks: dict[tuple[int, int], int] = {}
    routes, marks = [], []
    for (u, v), label in zip(edges, labels):
        mark = -1
        route = [u]
        if u != v:
            last = cells.rank[v] - (1 if label is None else 2)
            for r in range(cells.rank[u] + 1, last + 1):
                if (u, r) not in trunks:
                    trunks[u, r] = cells.add(r, 0.0, _LINE)
                route.append(trunks[u, r])
            if label is not None:
                mark = cells.add(cells.rank[v] - 1, *label)
                route.append(mark)
            route.append(v)
            for a, b in zip(route, route[1:]):
                cells.join(a, b)
        routes.append(route)
        marks.append(mark)
    return routes, marks


# ---- orders --------------------------------------------------------------------------------------


def _ordered(cells: _Cells) -> list[list[int]]:
    """The cells of each column from top to bottom, with few crossings."""
    columns: list[list[int]] = [[] for _ in range(max(cells.rank, default=-1) + 1)]
    for k in _depth_first(cells):
        columns[cells.rank[k]].append(k)
    best, fewest = [list(c) for c in columns], _crossings(cells, columns)
    idle = 0
    for sweep in range(_SWEEPS):
        if fewest == 0 or idle == 6:
            break
        down = sweep % 2 == 0
        near = cells.before if down else cells.after
        place = _positions(cells, columns)
        for c in columns if down else reversed(columns):
            weight = {}
            for at, k in enumerate(c):
                seen = sorted([place[j] for j in near[k]])
                middle = len(seen) // 2
                if not seen:
                    weight[k] = float(at)
                elif sweep % 4 < 2:
                    weight[k] = sum(seen) / len(seen)
                else:
                    weight[k] = 0.5 * (seen[middle] + seen[(len(seen) - 1) // 2])
            c.sort(key=weight.__getitem__)
            for at, k in enumerate(c):
                place[k] = at
        found = _crossings(cells, columns)
        idle += 1
        if found < fewest:
            best, fewest, idle = [list(c) for c in columns], found, 0
    _exchange(cells, best)
    return best


def _depth_first(cells: _Cells) -> list[int]:
    """All cells, those that lead to one another together."""
    seen: set[int] = set()
    order = []
    stack = [k for k in range(len(cells.rank) - 1, -1, -1) if not cells.before[k]]
    while stack:
        k = stack.pop()
        if k not in seen:
            seen.add(k)
            order.append(k)
            stack += reversed(cells.after[k])
    return order


def _positions(cells: _Cells, columns: list[list[int]]) -> list[int]:
    place = [0] * len(cells.rank)
    for c in columns:
        for at, k in enumerate(c):
            place[k] = at
    return place


def _crossings(cells: _Cells, columns: list[list[int]]) -> int:
    place = _positions(cells, columns)
    count = 0
    for c in columns:
        ends: list[int] = []
        for k in c:
            new = sorted([place[j] for j in cells.after[k]])
            for e in new:
                count += len(ends) - bisect.bisect_right(ends, e)
            for e in new:
                bisect.insort(ends, e)
    return count


def _exchange(cells: _Cells, columns: list[list[int]]) -> None:
    """Exchange neighbours in a column while that takes crossings away."""
    place = _positions(cells, columns)
    for _ in range(4):
        better = False
        for c in columns:
            for at in range(len(c) - 1):
                a, b = c[at], c[at + 1]
                gain = 0
                for near in (cells.before, cells.after):
                    p, q = [place[j] for j in near[a]], [place[j] for j in near[b]]
                    if len(p) * len(q) < 400:
                        gain += sum([(i > j) - (i < j) for i in p for j in q])
                if gain > 0:
                    c[at], c[at + 1] = b, a
                    place[a], place[b] = place[b], place[a]
                    better = True
        if not better:
            break


# ---- coordinates ---------------------------------------------------------------------------------


def _heights(cells: _Cells, columns: list[list[int]]) -> list[float]:
    """The middle of each cell: near its neighbours' and without overlap."""
    y = [0.0] * len(cells.rank)
    apart: list[list[float]] = []
    for c in columns:
        at, sums = 0.0, []
        for j, k in enumerate(c):
            if j:
                both = cells.height[c[j - 1]] + cells.height[k]
                at += 0.5 * both + (_GAP_Y if max(c[j - 1], k) < cells.boxes else 0.6 * _GAP_Y)
            sums.append(at)
        apart.append(sums)
        for k, s in zip(c, sums):
            y[k] = s - 0.5 * at
    line = [k >= cells.boxes and cells.width[k] == 0.0 for k in range(len(y))]
    for turn in range(_SETTLE):
        last = turn >= _SETTLE // 2
        sides = [cells.before, cells.after] if last else [(cells.before, cells.after)[turn % 2]]
        forward = turn % 2 == 0
        for r in range(len(columns)) if forward else range(len(columns) - 1, -1, -1):
            wanted, weights = [], []
            for k in columns[r]:
                total = weight = 0.0
                for near in sides:
                    for j in near[k]:
                        w = 8.0 if line[j] and line[k] else 2.0 if line[j] or line[k] else 1.0
                        total += w * y[j]
                        weight += w
                wanted.append(total / weight if weight else y[k])
                weights.append(weight or 0.01)
            for k, v in zip(columns[r], _monotone(wanted, weights, apart[r])):
                y[k] = v
    top = min([y[k] - 0.5 * cells.height[k] for k in range(len(y))], default=0.0)
    return [v - top for v in y]


def _monotone(wanted: list[float], weights: list[float], apart: list[float]) -> list[float]:
    """The heights nearest to the wanted ones that keep the distances: pooled adjacent violators."""
    blocks: list[list[float]] = []      # mean, weight, length
    for v, w, a in zip(wanted, weights, apart):
        blocks.append([v - a, w, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            m, u, n = blocks.pop()
            p = blocks[-1]
            p[0] = (p[0] * p[1] + m * u) / (p[1] + u)
            p[1] += u
            p[2] += n
    flat = [m for m, _, n in blocks for _ in range(int(n))]
    return [m + a for m, a in zip(flat, apart)]


def _columns(
    cells: _Cells, columns: list[list[int]], y: list[float]
) -> tuple[list[float], list[float]]:
    """Left and right ends of the columns; steeper lines get wider gaps."""
    left, right = [], []
    at = 0.0
    for c in columns:
        wide = max([cells.width[k] for k in c], default=0.0)
        left.append(at)
        right.append(at + wide)
        steep = max([abs(y[j] - y[k]) for k in c for j in cells.after[k]], default=0.0)
        at += wide + _GAP_X + min(50.0, 0.15 * steep)
    return left, right


def _ports(
    cells: _Cells, boxes: list[tuple[float, float, float, float]], y: list[float]
) -> dict[tuple[int, int], float]:
    """Where the line between two cells touches the first one."""
    ports = {}
    for k, (_, top, _, h) in enumerate(boxes):
        for near in (cells.before[k], cells.after[k]):
            step = min(12.0, (h - 10.0) / max(1, len(near)))
            for at, j in enumerate(sorted(near, key=y.__getitem__)):
                ports[k, j] = top + 0.5 * h + step * (at - 0.5 * (len(near) - 1))
    return ports


def _path(
    cells: _Cells, route: list[int], boxes: list[tuple[float, float, float, float]],
    ports: dict[tuple[int, int], float], y: list[float], left: list[float], right: list[float]
) -> list[Command]:
    u, v = route[0], route[-1]
    path: list[Command] = [("M", (boxes[u][0] + boxes[u][2], ports[u, route[1]]))]
    for a, b in zip(route, route[1:]):
        x0, y0 = right[cells.rank[a]], ports.get((a, b), y[a])
        x1, y1 = left[cells.rank[b]], ports.get((b, a), y[b])
        _line(path, x0, y0)
        if abs(y1 - y0) < 0.5:
            _line(path, x1, y1)
        else:
            middle = 0.5 * (x0 + x1)
            path.append(("C", (middle, y0, middle, y1, x1, y1)))
    _line(path, boxes[v][0], ports[v, route[-2]])
    return path


def _line(path: list[Command], x: float, y: float) -> None:
    x0, y0 = path[-1][1][-2:]
    if abs(x - x0) + abs(y - y0) > 0.01:        # a segment of no length has no direction
        path.append(("L", (x, y)))


def _loop(box: tuple[float, float, float, float]) -> list[Command]:
    x, y = box[0] + 0.5 * box[2], box[1]
    return [("M", (x + 12.0, y)),
            ("C", (x + 20.0, y - 1.3 * _LOOP, x - 20.0, y - 1.3 * _LOOP, x - 12.0, y))]
