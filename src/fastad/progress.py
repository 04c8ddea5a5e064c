"""How far long work has come, where somebody looks on: at a terminal or in a notebook."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from typing import Any

__all__ = ["Progress", "set_progress"]

_PATIENCE = 1.0         # seconds of work that nobody is told of
_EVERY = 0.1            # seconds between two lines

_switch: bool | None = None
_shown: Progress | None = None          # one at a time: work within work is not shown
_one = threading.Lock()


class set_progress:
    """Say whether long work shows how far it has come; as a context manager until its end.

    Long work is what takes more than a second: recording and compiling of huge functions,
    `Program.map`, Jacobians and Hessians, `report`.  It shows a bar where tqdm is installed, else a
    line on stderr.

    Parameters
    ----------
    mode : bool or None
        None, as at the beginning: where stderr is a terminal, or in a notebook.  True: always, and
        from the beginning.  False: never.

    Raises
    ------
    TypeError
        If `mode` is something else.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> p = ad.compile(lambda x: x * x)
    >>> with ad.set_progress(False):
    ...     values, gradients = p.map(np.ones(100_000))
    """

    def __init__(self, mode: bool | None) -> None:
        global _switch
        self._before = _switch
        _switch = checked("set_progress", mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        global _switch
        _switch = self._before


def checked(who: str, mode: Any) -> bool | None:
    """The mode, if it is one."""
    if mode is not None and not isinstance(mode, bool):
        raise TypeError(f"{who}: progress={mode!r}; wanted True, False or None")
    return mode


def is_watched() -> bool:
    """Whether stderr is a terminal, or a notebook shows it."""
    try:
        if sys.stderr.isatty():
            return True
    except (AttributeError, ValueError):        # there is none, or it is closed
        return False
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return ask is not None and hasattr(ask(), "kernel")


class Progress:
    """What has been done of some work; `add` and `at` may show it, `close` ends it.

    Parameters
    ----------
    what : str
        The work.
    total : int or None
        How much there is to do, None if nobody knows.
    unit : str
        Of what, many of them.
    wanted : bool or None
        Whether to show it, None for what `set_progress` says.

    Examples
    --------
    >>> from fastad.progress import Progress
    >>> with Progress("adding", 3, "numbers") as shown:
    ...     for k in range(3):
    ...         shown.add(1)
    """

    def __init__(self, what: str, total: int | None, unit: str, wanted: bool | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        wanted = _switch if wanted is None else wanted
        # when to look whether to show it; never, where that is known
        self._next = 0.0 if wanted else time.monotonic() + _PATIENCE if wanted is None else None
        self._wanted = wanted
        self._bar: Any = None
        self._is_open = False
        self._told = self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def may_show(self) -> bool:
        """Whether it is worth it to tell."""
        return bool(self._wanted) or self._next is not None and is_watched()

    def add(self, n: int) -> None:
        """So much more is done."""
        self.done += n
        if self._next is not None and n and self._next <= time.monotonic():
            self._show()

    def at(self, done: int) -> None:
        """So much is done."""
        self.add(done - self.done)

    def turn_to(self, what: str, *, at_once: bool = False) -> None:
        """Another part of the work begins; `at_once` if it is long and tells nothing meanwhile."""
        self.what = what
        if self._bar is not None:
            self._bar.set_description(what)
        if self._is_open:
            self._print()
        elif at_once and self._next is not None:
            self._show()

    def _show(self) -> None:
        global _shown
        if not self._is_open:
            if not self._wanted and not is_watched() or sys.stderr is None:
                self._next = None
                return
            with _one:
                if _shown is not None:
                    return
                _shown = self
            self._is_open = True
            try:
                tqdm = importlib.import_module("tqdm").tqdm
            except ImportError:
                pass
            else:
                self._bar = tqdm(total=self.total, unit=f" {self.unit}", desc=self.what)
        if self._bar is None:
            self._next = time.monotonic() + _EVERY
        self._print()

    def _print(self) -> None:
        if self._bar is not None:
            self._bar.update(self.done - self._told)
            self._told = self.done
            return
        of = "" if self.total is None else f" of {self.total}"
        text = f"{self.what}: {self.done}{of} {self.unit}"
        print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def close(self) -> None:
        """Nothing more is done."""
        global _shown
        self._next = None
        if not self._is_open:
            return
        self._is_open = False
        _shown = None
        self._print()
        if self._bar is not None:
            self._bar.close()
        else:
            print(file=sys.stderr, flush=True)
