"""What notebooks show of tensors, and tables as text and as HTML.

Everything that may come from a user goes through `escape`; styles stand in the elements, and
nothing is loaded from elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from . import _core
from ._core import Tensor

_ROWS, _COLUMNS = 20, 12        # of a table; of longer axes the ends are shown
_CELL = "padding: 0.15em 0.6em; border: 1px solid #8884; white-space: pre"
_TABLE = "border-collapse: collapse; margin: 0.3em 0; font-size: 90%"
_BOX = '<div style="overflow-x: auto; text-align: left">'
_GAP = "…"


class Table(NamedTuple):
    """Rows of texts below a head.

    ``left`` are the columns that begin at the left; ``title`` stands above, and is "" for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)

    def text(self) -> str:
        """The table in lines.

        Examples
        --------
        >>> from fastad.tables import Table
        >>> print(Table("", ["name", "n"], [["a", "10"], ["bcd", "5"]]).text())
        name   n
        a     10
        bcd    5
        """
        rows = [[_line(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [self.title] if self.title else []
        for row in rows:
            cells = [cell.ljust(w) if k in self.left else cell.rjust(w)
                     for k, (cell, w) in enumerate(zip(row, widths))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """The table in HTML."""
        title = f"<div><b>{escape(self.title)}</b></div>" if self.title else ""
        return title + _html([("th", self.head)], self.rows, self.left)


def _line(text: str) -> str:
    """A text in one line, as far as it can be printed."""
    return "".join([c if c.isprintable() else "\ufffd" for c in text])


def _html(
    heads: Iterable[tuple[str, Sequence[str]]], rows: Iterable[Sequence[str]], left: Sequence[int]
) -> str:
    """A table of texts; the kind of the cells of a head is given with it."""
    lines = []
    for kind, row in (*heads, *[("td", row) for row in rows]):
        cells = []
        for k, cell in enumerate(row):
            side = "left" if k in left else "right"
            cells.append(f'<{kind} style="{_CELL}; text-align: {side}">{escape(cell)}</{kind}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table style="{_TABLE}">{"".join(lines)}</table>'


def boxed(parts: Iterable[str]) -> str:
    """Parts in HTML, one below the other."""
    return f"{_BOX}{''.join(parts)}</div>"


def size_text(n: int) -> str:
    """Bytes, in a unit that makes them short.

    Examples
    --------
    >>> from fastad.tables import size_text
    >>> size_text(640), size_text(1536), size_text(3 * 2**20)
    ('640 B', '1.5 KiB', '3 MiB')
    """
    x = float(n)
    for unit in ("B", "KiB", "MiB"):
        if x < 1024.0:
            return f"{x:.4g} {unit}"
        x /= 1024.0
    return f"{x:.4g} GiB"


def time_text(seconds: float) -> str:
    """A time, in a unit that makes it short.

    Examples
    --------
    >>> from fastad.tables import time_text
    >>> time_text(0.00123), time_text(2.0)
    ('1.23 ms', '2 s')
    """
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


# ---- tensors -------------------------------------------------------------------------------------


def _ends(n: int, most: int) -> list[int | None]:
    """Places on an axis that are shown; None stands for what is left out."""
    if n <= most:
        return list(range(n))
    half = most // 2
    return [*range(half), None, *range(n - half, n)]


def _texts(a: np.ndarray) -> list[str]:
    """Elements as NumPy prints them side by side."""
    mark = "\x1f"
    text = np.array2string(a.ravel(), separator=mark, threshold=sys.maxsize,
                           max_line_width=sys.maxsize)
    found = [part.strip() for part in text[1:-1].split(mark)]
    if len(found) == a.size:
        return found
    return [np.array2string(x).strip() for x in a.ravel()]      # a formatter of the user's


def value_html(a: np.ndarray) -> str:
    """The values of an array: a table of one or two axes, of long ones the ends."""
    if a.ndim not in (1, 2) or not a.size:
        return f'<pre style="margin: 0.3em 0">{escape(np.array2string(a, separator=", "))}</pre>'
    plane = a.reshape(1, -1) if a.ndim == 1 else a
    down, across = _ends(plane.shape[0], _ROWS), _ends(plane.shape[1], _COLUMNS)
    seen = plane[np.ix_([i for i in down if i is not None], [j for j in across if j is not None])]
    texts = iter(_texts(seen))
    rows = []
    for i in down:
        cells = [_GAP if None in (i, j) else next(texts) for j in across]
        rows.append(([] if a.ndim == 1 else [_GAP if i is None else str(i)]) + cells)
    head = ([] if a.ndim == 1 else [""]) + [_GAP if j is None else str(j) for j in across]
    return _html([("th", head)], rows, ())


def tensor_html(t: Tensor) -> str:
    """What a notebook shows of a tensor: what it is, its value, and its gradient if it has one."""
    a = _core.array(t)
    about = ["tensor" + (f" of shape {t.shape}" if t.ndim else ""), str(t.dtype)]
    if t.is_leaf:
        about += ["requires_grad"] if t.requires_grad else []
    elif t.grad_fn is not None:
        about.append(f"grad_fn: {t.grad_fn.name}")
    parts = [f"<div><b>{escape(', '.join(about))}</b></div>", value_html(a)]
    if t.grad is not None:
        parts += ["<div><b>gradient</b></div>", value_html(_core.array(t.grad))]
    return boxed(parts)
