"""Panels of boxes and arrows as SVG, without another program, and by matplotlib as PNG and PDF.

Texts are set in DejaVu Sans or, where it is missing, in what the viewer has; the widths below are
those of DejaVu Sans, which is wider than most, so that texts stay inside their boxes.
"""

from __future__ import annotations

import math
import os
import unicodedata
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from .layout import Command, Placed, Size, place

# Advance widths of U+0020 to U+007E in thousandths of the size.
_WIDTHS = [int(w) for w in """
318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636
636 337 337 838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787
695 635 611 732 684 989 685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278
579 278 974 634 612 635 635 411 521 392 634 592 818 592 592 525 636 337 636 838""".split()]
_OTHER_WIDTHS = dict.fromkeys("⁰¹²³⁴⁵⁶⁷⁸⁹", 401) | {
    "·": 318, "∂": 517, "⁻": 528, "ᵀ": 385, "√": 637, "∛": 637, "…": 1000, "′": 318, "Σ": 632,
    "\ufffd": 1030}

FAMILY = "DejaVu Sans, Verdana, sans-serif"
_SIZE, _SMALL = 14.0, 11.0
_LEADING = 1.4
_PAD_X, _PAD_Y = 12.0, 8.0
_MARGIN, _TITLE = 16.0, 30.0
_WIDEST = 1500.0        # panels stand side by side up to this width, else one above the other
_LONGEST = 2400.0       # a panel that is wider runs downwards instead
_ARROW = 8.0
_INK, _LINE, _PAPER = "#1f2430", "#5b6473", "#ffffff"

# Fill and stroke of the kinds of boxes.
COLOURS = {
    "input": ("#e6f4ea", "#2f7d4f"), "operation": ("#eaf0fb", "#45619d"),
    "output": ("#fdf0dc", "#b06a00"), "constant": ("#f2f2f2", "#7a7a7a"),
    "folded": ("#f3ecfb", "#7550a3"),
}


class Line(NamedTuple):
    """A line of text, and the same in TeX where it is a formula."""

    text: str
    tex: str | None = None
    small: bool = False


class Vertex(NamedTuple):
    """A box: ``kind`` is input, operation, output, constant or folded."""

    id: str
    kind: str
    lines: tuple[Line, ...]


class Edge(NamedTuple):
    """An arrow between two boxes; ``carried`` where it leads on to another repetition."""

    tail: str
    head: str
    label: Line | None = None
    carried: bool = False


class Panel(NamedTuple):
    """One graph; ``leftward`` where its arrows lead from right to left."""

    name: str
    title: str
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    leftward: bool


class _Text(NamedTuple):
    x: float
    y: float
    size: float
    text: str
    anchor: str


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    vertex: Vertex
    texts: list[_Text]


class _Arrow(NamedTuple):
    edge: Edge
    path: list[Command]
    label: tuple[float, float, float, float] | None
    text: _Text | None


class _Scene(NamedTuple):
    width: float
    height: float
    titles: list[_Text]
    boxes: list[_Box]
    arrows: list[_Arrow]


def text_width(text: str, size: float) -> float:
    """How wide a line of text is, at most by and large, in the unit of `size`.

    Examples
    --------
    >>> from fastad.canvas import text_width
    >>> round(text_width("3x²", 10.0), 2)
    16.29
    """
    total = 0
    for c in text:
        if " " <= c <= "~":
            total += _WIDTHS[ord(c) - 32]
        elif unicodedata.combining(c):
            continue
        elif c in _OTHER_WIDTHS:
            total += _OTHER_WIDTHS[c]
        else:
            total += 1050 if unicodedata.east_asian_width(c) in "WF" else 880
    return 0.001 * size * total


def _size_of(line: Line) -> float:
    return _SMALL if line.small else _SIZE


def _panel(panel: Panel, down: bool) -> _Scene:
    """One panel with its corner at 0, 0; from left to right or downwards."""
    number = {vertex.id: k for k, vertex in enumerate(panel.vertices)}
    sizes = []
    for vertex in panel.vertices:
        wide = max([text_width(line.text, _size_of(line)) for line in vertex.lines])
        high = 0.0
        for line in vertex.lines:       # sum() rounds otherwise from Python 3.12 on
            high += _LEADING * _size_of(line)
        sizes.append((math.ceil(wide) + 2.0 * _PAD_X, math.ceil(high - 0.01) + 2.0 * _PAD_Y))
    ends: list[tuple[int, int]] = []
    labels: list[Size | None] = []
    turned = []
    both = {(edge.tail, edge.head) for edge in panel.edges}
    for edge in panel.edges:
        u, v = number[edge.tail], number[edge.head]
        # places are those of the forward graph, in the order of the record
        turned.append(u > v)
        ends.append((min(u, v), max(u, v)))
        label: Size | None = None
        if edge.label is not None and u != v:
            label = math.ceil(text_width(edge.label.text, _SMALL)) + 10.0, 1.5 * _SMALL + 6.0
        elif edge.carried and u != v and (edge.head, edge.tail) in both:
            label = 1.0, 8.0        # a way of its own, beside that in the other direction
        labels.append(label)
    placed = _placed_down(sizes, ends, labels) if down else place(sizes, ends, labels)
    boxes = []
    for (x, y, w, h), vertex in zip(placed.boxes, panel.vertices):
        texts, at = [], y + _PAD_Y
        for line in vertex.lines:
            size = _size_of(line)
            texts.append(_Text(x + 0.5 * w, at + 1.05 * size, size, line.text, "middle"))
            at += _LEADING * size
        boxes.append(_Box(x, y, w, h, vertex, texts))
    arrows = []
    for edge, path, turn, size_, centre in zip(
            panel.edges, placed.paths, turned, labels, placed.labels):
        place_ = text = None
        if edge.label is not None and size_ is not None and centre is not None:
            w, h = size_
            place_ = centre[0] - 0.5 * w, centre[1] - 0.5 * h, w, h
            text = _Text(centre[0], centre[1] + 0.35 * _SMALL, _SMALL, edge.label.text, "middle")
        arrows.append(_Arrow(edge, _reversed(path) if turn else path, place_, text))
    title = _Text(0.0, 0.0, _SIZE, panel.title, "start")
    wide = max(placed.width, text_width(panel.title, _SIZE))
    return _Scene(wide, placed.height, [title], boxes, arrows)


def _placed_down(sizes: list[Size], ends: list[tuple[int, int]], labels: list[Any]) -> Placed:
    """As `place`, with rows for columns: everything lies on its side."""
    boxes, paths, centres, width, height = place(
        [s[::-1] for s in sizes], ends, [s and s[::-1] for s in labels])

    def turned(numbers: tuple[float, ...]) -> tuple[float, ...]:
        return tuple([v for p in zip(numbers[1::2], numbers[::2]) for v in p])

    return Placed(
        [(y, x, h, w) for x, y, w, h in boxes],
        [[(c, turned(numbers)) for c, numbers in path] for path in paths],
        [c and (c[1], c[0]) for c in centres], height, width)


def _reversed(path: list[Command]) -> list[Command]:
    """The same path from its end to its start."""
    points = [p for _, numbers in path for p in zip(numbers[::2], numbers[1::2])][::-1]
    new: list[Command] = [("M", points[0])]
    at = 1
    for command, numbers in path[:0:-1]:
        n = len(numbers) // 2
        new.append((command, tuple([c for p in points[at : at + n] for c in p])))
        at += n
    return new


def _moved(scene: _Scene, dx: float, dy: float) -> _Scene:
    def text(t: _Text) -> _Text:
        return t._replace(x=t.x + dx, y=t.y + dy)

    def arrow(a: _Arrow) -> _Arrow:
        path = [(c, tuple([v + (dy if k % 2 else dx) for k, v in enumerate(numbers)]))
                for c, numbers in a.path]
        label = a.label and (a.label[0] + dx, a.label[1] + dy, *a.label[2:])
        return _Arrow(a.edge, path, label, a.text and text(a.text))

    return _Scene(
        scene.width, scene.height, [t._replace(x=t.x + dx, y=dy - 12.0) for t in scene.titles],
        [b._replace(x=b.x + dx, y=b.y + dy, texts=[text(t) for t in b.texts]) for b in scene.boxes],
        [arrow(a) for a in scene.arrows])


def _scene(panels: list[Panel]) -> _Scene:
    """All panels, side by side where that is not too wide."""
    scenes = [_panel(panel, False) for panel in panels]
    if max([s.width for s in scenes]) > _LONGEST:
        down = [_panel(panel, True) for panel in panels]
        if sum([s.width for s in down]) < max([s.width for s in scenes]):
            scenes = down
    beside = sum([s.width for s in scenes]) + 2.0 * _TITLE < max(
        _WIDEST, max([s.height for s in scenes]))
    whole = _Scene(0.0, 0.0, [], [], [])
    x, y = _MARGIN, _MARGIN + _TITLE
    width = height = 0.0
    for s in scenes:
        moved = _moved(s, x, y)
        whole.titles.extend(moved.titles)
        whole.boxes.extend(moved.boxes)
        whole.arrows.extend(moved.arrows)
        width, height = max(width, x + s.width), max(height, y + s.height)
        if beside:
            x += s.width + 2.0 * _TITLE
        else:
            y += s.height + 2.0 * _TITLE
    return whole._replace(width=width + _MARGIN, height=height + _MARGIN)


# ---- SVG -----------------------------------------------------------------------------------------


def _n(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def _svg_text(t: _Text) -> str:
    anchor = "" if t.anchor == "start" else f' text-anchor="{t.anchor}"'
    return (f'<text x="{_n(t.x)}" y="{_n(t.y)}" font-size="{_n(t.size)}"{anchor}>'
            f"{escape(t.text)}</text>")


def svg(panels: list[Panel], description: str) -> str:
    """The panels as an SVG document."""
    scene = _scene(panels)
    w, h = _n(scene.width), _n(scene.height)
    a = _ARROW
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        f'font-family={quoteattr(FAMILY)} fill="{_INK}" role="img">',
        f"<title>{escape(description)}</title>",
        f'<defs><marker id="fastad-arrow" markerWidth="{a:g}" markerHeight="{a:g}" '
        f'refX="{a - 0.5:g}" refY="{a / 2:g}" orient="auto" markerUnits="userSpaceOnUse">'
        f'<path d="M0 0.5 L{a:g} '
        f'{a / 2:g} L0 {a - 0.5:g} Z" fill="{_LINE}"/></marker></defs>',
        f'<rect width="{w}" height="{h}" fill="{_PAPER}"/>',
    ]
    rows += [_svg_text(t) for t in scene.titles]
    for arrow in scene.arrows:
        d = " ".join([c + " ".join([_n(v) for v in numbers]) for c, numbers in arrow.path])
        dashes = ' stroke-dasharray="5 3"' if arrow.edge.carried else ""
        ends = f"data-tail={quoteattr(arrow.edge.tail)} data-head={quoteattr(arrow.edge.head)}"
        rows.append(f'<path class="edge" {ends} d="{d}" fill="none" stroke="{_LINE}" '
                    f'stroke-width="1.3" marker-end="url(#fastad-arrow)"{dashes}/>')
    for arrow in scene.arrows:
        if arrow.label is not None and arrow.text is not None:
            x, y, wide, high = arrow.label
            rows.append(f'<g class="label"><rect x="{_n(x)}" y="{_n(y)}" width="{_n(wide)}" '
                        f'height="{_n(high)}" rx="3" fill="{_PAPER}"/>{_svg_text(arrow.text)}</g>')
    for box in scene.boxes:
        fill, stroke = COLOURS[box.vertex.kind]
        dashes = ' stroke-dasharray="4 3"' if box.vertex.kind == "constant" else ""
        rect = (f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
                f'height="{_n(box.height)}" rx="6" fill="{fill}" stroke="{stroke}" '
                f'stroke-width="{1.8 if box.vertex.kind == "output" else 1.2:g}"{dashes}')
        group = f'<g class="node {box.vertex.kind}" data-id={quoteattr(box.vertex.id)}>'
        rows.append(f"{group}<rect {rect}/>" + "".join([_svg_text(t) for t in box.texts]) + "</g>")
    return "\n".join([*rows, "</svg>", ""])


# ---- matplotlib ----------------------------------------------------------------------------------


def write(panels: list[Panel], path: str | os.PathLike[str], kind: str) -> None:
    """Write the panels as ``"png"`` or ``"pdf"``."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
        from matplotlib.path import Path
    except ImportError as error:
        raise ImportError(
            f"draw: {kind.upper()} files are made by matplotlib, which is not installed; install "
            "it, or save as .svg") from error
    scene = _scene(panels)
    inch = 72.0 / 0.75
    figure = Figure(figsize=(scene.width / inch, scene.height / inch), facecolor=_PAPER)
    axes: Any = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, scene.width)
    axes.set_ylim(scene.height, 0.0)
    axes.axis("off")

    def write_text(t: _Text, order: float) -> None:
        axes.text(t.x, t.y, t.text, fontsize=0.75 * t.size, color=_INK, zorder=order,
                  ha={"middle": "center"}.get(t.anchor, "left"), va="baseline",
                  fontfamily="DejaVu Sans", parse_math=False)

    for t in scene.titles:
        write_text(t, 1.0)
    codes = {"M": Path.MOVETO, "L": Path.LINETO, "C": Path.CURVE4}
    for arrow in scene.arrows:
        points = [p for _, numbers in arrow.path for p in zip(numbers[::2], numbers[1::2])]
        steps = [codes[c] for c, numbers in arrow.path for _ in range(len(numbers) // 2)]
        axes.add_patch(PathPatch(
            Path(points, steps), facecolor="none", edgecolor=_LINE, linewidth=0.9, zorder=2.0,
            linestyle=(0, (4, 3)) if arrow.edge.carried else "solid"))
        (x0, y0), (x1, y1) = [p for p in points if p != points[-1]][-1], points[-1]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = _ARROW * (x1 - x0) / length, _ARROW * (y1 - y0) / length
        axes.add_patch(Polygon(
            [(x1, y1), (x1 - dx - 0.45 * dy, y1 - dy + 0.45 * dx),
             (x1 - dx + 0.45 * dy, y1 - dy - 0.45 * dx)],
            facecolor=_LINE, edgecolor="none", zorder=2.0))
        if arrow.label is not None and arrow.text is not None:
            x, y, wide, high = arrow.label
            axes.add_patch(FancyBboxPatch((x, y), wide, high, boxstyle="square,pad=0",
                                          facecolor=_PAPER, edgecolor="none", zorder=3.0))
            write_text(arrow.text, 4.0)
    for box in scene.boxes:
        fill, stroke = COLOURS[box.vertex.kind]
        axes.add_patch(FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=6",
            facecolor=fill, edgecolor=stroke, linewidth=0.9, zorder=3.0))
        for t in box.texts:
            write_text(t, 4.0)
    figure.savefig(path, format=kind, dpi=192)
