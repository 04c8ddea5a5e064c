"""Recording modes: whether operations are put on the tape.  They hold for the calling thread."""

from __future__ import annotations

import functools

from . import _core
from ._core import is_grad_enabled

__all__ = ["enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]


class _Mode:
    """Sets recording inside ``with``, or around every call of a decorated function."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_core.set_recording(self._on))

    def __exit__(self, *exc: object) -> None:
        _core.set_recording(self._before.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def switched(*args, **kwargs):
            before = _core.set_recording(self._on)
            try:
                return function(*args, **kwargs)
            finally:
                _core.set_recording(before)

        return switched


class no_grad(_Mode):
    """Context manager and decorator: operations inside are not recorded, in this thread.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> with ad.no_grad():
    ...     x -= 0.5
    >>> x
    tensor(1.5, requires_grad=True)
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Mode):
    """Context manager and decorator: operations inside are recorded, even under `no_grad`.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> with ad.no_grad(), ad.enable_grad():
    ...     (x * x).requires_grad
    True
    """

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_Mode):
    """Switch recording on or off in this thread, at once; as a context manager until its end.

    Examples
    --------
    >>> import fastad as ad
    >>> with ad.set_grad_enabled(False):
    ...     ad.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._at_start = _core.set_recording(bool(mode))

    def __enter__(self) -> None:
        self._before.append(self._at_start)
        _core.set_recording(self._on)

    def __call__(self, function):
        _core.set_recording(self._at_start)
        return super().__call__(function)
