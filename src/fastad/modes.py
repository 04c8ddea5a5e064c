"""Recording modes: whether operations are put on the tape.  They hold for the calling thread."""

from __future__ import annotations

import functools

from . import _core
from ._core import is_grad_enabled

__all__ = ["detect_anomaly", "enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]


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


class detect_anomaly:
    """Context manager: the first nan or inf is an error that names the operation and its line.

    Inside, in this thread, each recorded operation takes down where it stands in the user's code.
    A value that is nan or inf raises where it is computed; in a reverse sweep, so does the
    operation whose derivative first makes a finite cotangent nan or inf, and no ``.grad`` has
    changed then.  Calls of programs are checked too; when a result or a derivative is not finite,
    the recording is run again, step by step, and the operation that began it is named.

    Operations outside of any gradient (under `no_grad`, of tensors that do not require one) are not
    looked at.  Record and sweep inside one ``with``: it costs about half a microsecond for each
    operation.

    Parameters
    ----------
    values : bool
        False looks at gradients alone: values may be inf or nan as long as ``where`` hides them.

    Raises
    ------
    AnomalyError
        A FloatingPointError with ``primitive``, ``inputs``, ``file``, ``line``, ``function`` and
        ``gradient``.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(0.0, requires_grad=True)
    >>> with ad.detect_anomaly():
    ...     try:
    ...         ad.sqrt(x).backward()
    ...     except ad.AnomalyError as error:
    ...         print(error.primitive, error.gradient)
    sqrt True
    """

    def __init__(self, values: bool = True) -> None:
        self._level = 3 if values else 1
        self._before: list[int] = []

    def __enter__(self) -> None:
        self._before.append(_core.watch(self._level))

    def __exit__(self, *exc: object) -> None:
        _core.watch(self._before.pop())
