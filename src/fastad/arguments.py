"""Calls of programs: what in the arguments is an input, what a recording is for, and results."""

from __future__ import annotations

import enum
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import _core
from ._core import Nodes, Replay, Rows, Tensor
from .transforms import _is_numbers, mapped
from .watching import _of_library


class ProgramWarning(UserWarning):
    """A program does not replay, and says why; its results are right all the same."""


def _give_up(replay: Replay, key: Any, why: str) -> None:
    replay.give_up(key, why)
    _warn(replay, f"{why}; from now on it is computed eagerly")


def _warn(replay: Replay, text: str) -> None:
    name = getattr(replay.source, "__qualname__", repr(replay.source))
    warnings.warn(f"program of {name}: {text}", ProgramWarning, stacklevel=4)


# Arguments: what is an input, and what a recording is for.

_NUMBER, _ARRAY, _STATIC = 0, 1, 2
_INPUT_KINDS = "fciub"


# Objects that are what they are worth: equal ones may share a recording.  Whatever else is handed
# over could change inside without a trace, or does not compare.
_VALUES = (bool, int, complex, str, bytes, np.generic, np.dtype, np.ufunc, range, type, enum.Enum,
           types.BuiltinFunctionType)
_OPAQUE = "an argument that a recording cannot be for"


class _Slot:
    """Stands in an argument tree for the next input."""

    __slots__ = ()


_SLOT = _Slot()


def _flat(
    x: Any, leaves: list[Any], tensors: list[Tensor] | None
) -> tuple[Any, Any, tuple[int, Any]]:
    """Return the key of one argument, its tree with slots, and its spec; append its leaves.

    Tensors are noted in `tensors` and their values are the leaves; without that list they are
    leaves themselves, and nobody looks at their values.
    """
    kind = type(x)
    if kind is float or kind is np.float64:
        leaves.append(float(x))
        return "f", _SLOT, (_NUMBER if kind is float else -1, None)
    if kind is Tensor and tensors is None:
        leaves.append(x)
        number = x.ndim == 0 and x.dtype == np.float64
        return "f" if number else (x.dtype.str, x.shape), _SLOT, (-1, None)
    if kind is Tensor and tensors is not None:
        tensors.append(x)
        value = _core.array(x)
        leaves.append(value.item() if value.ndim == 0 and value.dtype == np.float64 else value)
        if type(leaves[-1]) is float:
            return "f", _SLOT, (-1, None)
        return (value.dtype.str, value.shape), _SLOT, (-1, None)
    if kind is complex:
        x = np.array(x)
    if isinstance(x, (np.ndarray, np.inexact)) and x.dtype.kind in _INPUT_KINDS:
        a = np.asarray(x)
        fit = a.flags.c_contiguous and a.flags.aligned and a.dtype.isnative
        plain = kind is np.ndarray and fit
        if not fit:
            a = np.array(a, a.dtype.newbyteorder("="), order="C")
        if a.ndim == 0 and a.dtype == np.float64:
            leaves.append(a.item())
            return "f", _SLOT, (-1, None)
        leaves.append(a)
        return (a.dtype.str, a.shape), _SLOT, (_ARRAY if plain else -1, a.dtype.num)
    if kind is tuple or kind is list or (isinstance(x, tuple) and hasattr(x, "_fields")):
        parts = [_flat(item, leaves, tensors) for item in x]
        tree = [part[1] for part in parts]
        rebuilt = kind(*tree) if hasattr(x, "_fields") else kind(tree)
        return (kind, *[part[0] for part in parts]), rebuilt, (-1, None)
    if kind is dict:
        parts = [_flat(item, leaves, tensors) for item in x.values()]
        named = dict(zip(x, [part[1] for part in parts]))
        return (kind, tuple(x), *[part[0] for part in parts]), named, (-1, None)
    if x is None or x is Ellipsis or isinstance(x, _VALUES) and not _may_change(x):
        return (kind, x), x, (_STATIC, x)
    return _OPAQUE, x, (-1, None)


def _may_change(x: Any) -> bool:
    """Classes have attributes; methods of objects read them."""
    if isinstance(x, type):
        return not _of_library(x.__module__)
    return isinstance(x, types.BuiltinMethodType) and not isinstance(
        x.__self__, (types.ModuleType, type(None))
    )


def _holds_opaque(key: Any) -> bool:
    return key is _OPAQUE or (isinstance(key, tuple) and any(map(_holds_opaque, key)))


def _flatten(
    args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any], tensors: list[Tensor] | None
) -> tuple[list[Any], dict[str, Any]]:
    """What `_flat` gives for each argument, by position and by name."""
    return (
        [_flat(x, leaves, tensors) for x in args],
        {name: _flat(x, leaves, tensors) for name, x in kwargs.items()},
    )


def _filled(parts: list[Any], named: dict[str, Any], leaves: Any) -> tuple[list[Any], Any]:
    """Arguments, nested as those that `_flatten` has seen, from an iterator of leaves."""
    args = [_fill(part[1], leaves) for part in parts]
    return args, {name: _fill(part[1], leaves) for name, part in named.items()}


def _fill(tree: Any, leaves: Any) -> Any:
    """The tree with leaves in place of the slots."""
    return mapped(tree, lambda x: next(leaves) if x is _SLOT else x)


def _prepared(replay: Replay, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Integers and lists of numbers become floats and arrays where a derivative is taken."""
    if not replay.argnums:
        return args
    new = list(args)
    for k in replay.argnums:
        if not -len(args) <= k < len(args):
            continue
        x = new[k]
        if _is_numbers(x):
            x = np.asarray(x)
        if type(x) is int:
            x = float(x)
        elif isinstance(x, (np.ndarray, np.integer)) and x.dtype.kind in "iub":
            x = x.astype(np.float64)
        new[k] = x
    return tuple(new)


def by_node(nodes: Nodes, inputs: Iterable[Any], outer: Iterable[Tensor]) -> dict[int, Tensor]:
    """Tensors for the inputs of a recording, by node; `outer` are those that it finds outside."""
    return dict(zip(nodes.inputs, [_core.as_tensor(x) for x in (*inputs, *outer)]))


def flatten(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key of a call, its inputs, their spec where they are flat, and its tensors."""
    leaves: list[Any] = []
    tensors: list[Tensor] = []
    prepared = _prepared(replay, args)
    parts, named = _flatten(prepared, kwargs, leaves, tensors)
    key = _call_key(parts, named)
    if _holds_opaque(key):
        key = _OPAQUE
        if key not in replay.given_up:
            _give_up(replay, key, "an argument is an object whose contents a program cannot watch")
    spec: Any = [part[2] for part in parts]
    same = all(a is b for a, b in zip(prepared, args))
    if not same or kwargs or any(kind < 0 for kind, _ in spec):
        spec = None
    return key, leaves, spec, tensors


def _call_key(parts: list[Any], named: dict[str, Any]) -> Any:
    """The key of a call from what `_flat` gave for its arguments."""
    return (tuple([part[0] for part in parts]), *[(k, part[0]) for k, part in named.items()])


# Results.


class _Out:
    """A constant in a recorded result; numbers there are positions of outputs."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _result_tree(x: Any, outputs: list[Tensor]) -> Any:
    """The nesting of a result with positions in place of tensors, which go to `outputs`."""
    def leaf(x: Any) -> Any:
        if isinstance(x, Tensor):
            outputs.append(x)
            return len(outputs) - 1
        if type(x) is Rows:
            same = x[0].ndim < 32 and all(
                t.dtype == np.float64 and t.shape == x[0].shape for t in x)
            return (Rows if same else tuple)([leaf(item) for item in x])
        if isinstance(x, np.ndarray) and x.dtype != object:
            return _Out(np.array(x))
        if x is not None and x is not Ellipsis and not isinstance(x, (float, *_VALUES)):
            _core.refuse_trace(f"the function returns an object, a {type(x).__name__}")
        return _Out(x)

    return mapped(x, leaf)


def nested(tree: Any, outputs: list[Any], tensors: Any) -> Any:
    """The result of a run; as tensors where tensors went in."""
    def leaf(x: Any) -> Any:
        if type(x) is int:
            return _core.tensor(outputs[x]) if tensors else outputs[x]
        if type(x) is Rows:
            rows = tuple([leaf(item) for item in x])
            return rows if tensors else np.array(rows)
        return np.array(x.value) if isinstance(x.value, np.ndarray) else x.value

    return mapped(tree, leaf)


def takes_out(function: Any) -> bool:
    """Whether a function has a parameter ``out``, which then is not the program's."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if code is None:
        return False
    return "out" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def place_buffers(tree: Any, out: Any, buffers: list[Any]) -> None:
    """Put the caller's buffers where the outputs of a recorded result stand."""
    if type(tree) is int:
        buffers[tree] = out
    elif type(tree) is not _Out and out is not None:
        for item, buffer in _both(tree, out):
            place_buffers(item, buffer, buffers)


def poured(result: Any, out: Any) -> Any:
    """The result of a call with `out`, in the caller's buffers; all are checked before any is
    written."""
    _check_buffers(result, out)
    return _pour(result, out)


def _both(result: Any, out: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a nested result and the buffers for them."""
    if not isinstance(out, (dict, tuple, list)):
        raise TypeError(f"out: wanted the nesting of the result, with None for what has no buffer; "
                        f"got {type(out).__name__}")
    for key, item in result.items() if isinstance(result, dict) else enumerate(result):
        try:
            yield item, out[key]
        except (KeyError, IndexError):
            raise ValueError(f"out: there is no {key!r} in it, but in the result") from None
    if len(out) > len(result):
        raise ValueError(f"out: {len(out)} entries for a result of {len(result)}")


def _check_buffers(result: Any, out: Any) -> None:
    if out is None:
        return
    if isinstance(result, (dict, tuple, list)):
        for item, buffer in _both(result, out):
            _check_buffers(item, buffer)
        return
    if isinstance(result, Tensor):
        raise TypeError("out: tensors went in, so that tensors come out; call it with arrays")
    value = np.asarray(result)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: wanted an ndarray for a result of shape {value.shape}, got "
                        f"{type(out).__name__}")
    if out.shape != value.shape or out.dtype != value.dtype:
        raise ValueError(f"out: the buffer is {out.dtype} of shape {out.shape}; the result is "
                         f"{value.dtype} of shape {value.shape}")
    if not out.flags.writeable:
        raise ValueError("out: the buffer is read-only")


def _pour(result: Any, out: Any) -> Any:
    if out is None:
        return result
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*[_pour(x, out[k]) for k, x in enumerate(result)])
    if isinstance(result, (tuple, list)):
        return type(result)([_pour(x, out[k]) for k, x in enumerate(result)])
    if isinstance(result, dict):
        return {key: _pour(x, out[key]) for key, x in result.items()}
    if out is not result:
        out[...] = result
    return out


def _plain(t: Tensor, tensors: Any) -> Any:
    """A result of a recording as the caller wants it."""
    if tensors:
        return t.detach()
    a = _core.array(t.detach())
    return a.item() if a.ndim == 0 else np.array(a)
