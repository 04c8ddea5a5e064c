"""What the examples share: command lines, a progress display, tables and pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    import tqdm
except ImportError:
    tqdm = None


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows the options which every example has.

    >>> parser("Fit something.").parse_args(["--quick"]).quick
    True
    """
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="do less, to see that it works")
    options.add_argument(
        "--plot", type=_picture, metavar="FILE", help="draw the result with matplotlib, say out.png"
    )
    return options


def _picture(name: str) -> Path:
    # Asked before the work is done, so that nobody waits for a fit whose picture cannot be saved.
    path = Path(name)
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise argparse.ArgumentTypeError(
            "a picture needs matplotlib; install the examples' packages with "
            "pip install '.[examples]'"
        ) from None
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in kinds:
        raise argparse.ArgumentTypeError(
            f"{name!r} names no kind of picture that matplotlib writes: {', '.join(sorted(kinds))}"
        )
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {str(path.absolute().parent)!r}")
    return path


@contextmanager
def picture(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[list]:
    """Hand out ``rows * columns`` axes, and write what was drawn on them to ``path``.

    ``size`` is the width and height of the whole picture, in inches.
    """
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    figure = Figure(figsize=size, layout="constrained")
    yield list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.savefig(path, dpi=120)
    print(f"\nThe picture is in {path}.")


def progress(items: Sequence | range, label: str) -> Iterator:
    """Yield the items, showing on standard error how far they are, if that is a terminal.

    >>> [2 * i for i in progress(range(3), "doubling")]
    [0, 2, 4]
    """
    if not sys.stderr.isatty():
        yield from items
    elif tqdm is not None:
        yield from tqdm.tqdm(items, desc=label, leave=False)
    else:
        yield from _counted(items, label)


def _counted(items: Sequence | range, label: str) -> Iterator:
    shown = 0.0
    try:
        for i, item in enumerate(items):
            if time.monotonic() - shown > 0.1:  # seconds; writing each step would slow short ones
                shown = time.monotonic()
                sys.stderr.write(f"\r{label}: {i}/{len(items)}")
                sys.stderr.flush()
            yield item
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows below their header, each column as wide as its longest entry.

    >>> print(table(["name", "n"], [["a", "10"], ["bcdef", "5"]]))
    name    n
    a      10
    bcdef   5
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """Return a duration with three significant digits, in the unit that suits it.

    >>> duration(0.0123456), duration(0.0000123), duration(1.5)
    ('12.3 ms', '12.3 us', '1.50 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:#.3g}".rstrip(".") + " " + unit
    return f"{seconds / 1e-6:#.3g}".rstrip(".") + " us"
