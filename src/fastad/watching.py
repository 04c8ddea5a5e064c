"""What the recordings of a function depend on besides its arguments: code, names, containers."""

from __future__ import annotations

import collections
import ctypes
import dis
import functools
import gc
import pickle
import sys
import types
import typing
from typing import Any

import numpy as np

from ._core import Replay, Tensor

_NAME, _CELL, _CODE, _DEFAULTS, _ITEMS, _BYTES, _ATTRIBUTES = range(7)
_WATCHED_BYTES = 256 * 1024
_SAMPLE = 1000
_WATCHED_ITEMS = 1024
_WATCHED_IN_ALL = 1000
_VISITED = 20_000
_DEPTH = 10
_LIBRARIES = sys.stdlib_module_names | {"numpy", "fastad", "scipy"}
_CONSTANTS = {
    type(None), type(Ellipsis), bool, int, float, complex, str, bytes, range, Tensor, np.ufunc,
    types.ModuleType, types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.WrapperDescriptorType, types.MethodDescriptorType, types.MethodWrapperType,
    typing.ForwardRef, type(vars(collections.namedtuple("_", "x"))["x"]),
}


def _of_library(module: str | None) -> bool:
    return (module or "").split(".")[0] in _LIBRARIES


class _Watch:
    """Collects what tells whether the things that a function finds outside are still the same.

    Attributes
    ----------
    entries : list
        ``(kind, holder, name, object or contents)``, for `Replay.depends_on`.
    generators : list
        Generators of random numbers.
    iterator : object
        An iterator, or None: reading it changes it, and cannot be undone.
    """

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.generators: list[Any] = []
        self.iterator: Any = None
        self._depth_of: dict[int, int] = {}
        self._visited: list[Any] = []       # keeps the ids taken

    def visit(self, x: Any, depth: int = 0) -> None:
        if (
            type(x) in _CONSTANTS or depth > _DEPTH or self._depth_of.get(id(x), depth + 1) <= depth
            or len(self.entries) > _WATCHED_IN_ALL or len(self._visited) > _VISITED
        ):
            return
        self._depth_of[id(x)] = depth
        self._visited.append(x)
        if isinstance(x, types.FunctionType):
            if not _of_library(x.__module__):
                self._function(x, depth)
        elif isinstance(x, np.ndarray):
            self._array(x)
        elif isinstance(x, types.MethodType):
            self.visit(x.__func__, depth)
            self.visit(x.__self__, depth)
        elif isinstance(x, types.BuiltinMethodType):
            self.visit(x.__self__, depth)
        elif isinstance(x, functools.partial):
            for part in (x.func, x.args, x.keywords):
                self.visit(part, depth)
        elif isinstance(x, Replay):
            self.visit(x.source, depth)
        elif isinstance(x, (staticmethod, classmethod)):
            self.visit(x.__func__, depth)
        elif isinstance(x, property):
            self.visit(x.fget, depth)
        elif isinstance(x, (list, dict, set, tuple, bytearray, collections.deque)):
            self._container(x, depth)
        elif isinstance(x, type):
            self._class(x, depth)
        else:
            self._object(x, depth)

    def _array(self, x: np.ndarray) -> None:
        if x.dtype == object or not x.size:
            return
        if x.nbytes > _WATCHED_BYTES:       # to compare all of it would take too long: some of it
            if not x.flags.c_contiguous:
                return
            x = x.reshape(-1)[:: max(1, x.size // _SAMPLE)]
        self.entries.append((_BYTES, x, None, np.array(x)))

    def _container(self, x: Any, depth: int) -> None:
        if len(x) > _WATCHED_ITEMS:
            return
        items = tuple(x) if not isinstance(x, dict) else tuple([v for kv in x.items() for v in kv])
        if not isinstance(x, tuple):
            self.entries.append((_ITEMS, x, None, items))
        for item in items:
            if type(item) not in _CONSTANTS:
                self.visit(item, depth + 1)
        if type(x).__module__ not in ("builtins", "collections"):
            self._object(x, depth)

    def _class(self, x: type, depth: int) -> None:
        for base in x.__mro__:
            if not _of_library(base.__module__):
                (names,) = gc.get_referents(vars(base))[:1]
                if type(names) is dict:
                    self.visit(names, depth)

    def _object(self, x: Any, depth: int) -> None:
        kind = type(x)
        if _is_generator(x):
            self.generators.append(x)
        elif hasattr(kind, "__next__"):
            self.iterator = x
        elif not _of_library(kind.__module__) or kind.__module__ in ("types", "argparse"):
            attributes = getattr(x, "__dict__", None)
            if type(attributes) is dict:
                self.visit(attributes, depth)
            names = _slots(kind)
            if names:
                values = tuple([getattr(x, name, None) for name in names])
                self.entries.append((_ATTRIBUTES, x, tuple(names), values))
                for value in values:
                    self.visit(value, depth + 1)
            self.visit(kind, depth)

    def _function(self, f: types.FunctionType, depth: int) -> None:
        self.entries.append((_CODE, f, None, f.__code__))
        self.entries.append((_DEFAULTS, f, None, f.__defaults__))
        for default in f.__defaults__ or ():
            self.visit(default, depth + 1)
        if f.__kwdefaults__ is not None:
            self.entries.append((_ATTRIBUTES, f, ("__kwdefaults__",), (f.__kwdefaults__,)))
            self.visit(f.__kwdefaults__, depth)
        for cell in f.__closure__ or ():
            try:
                x = cell.cell_contents
            except ValueError:
                x = None        # the core sees an empty cell so
            self.entries.append((_CELL, cell, None, x))
            self.visit(x, depth + 1)
        codes = [f.__code__]
        while codes:
            code = codes.pop()
            codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
            self._names(f.__globals__, code.co_names, depth)
            for name in _assigned(code):
                if name not in f.__globals__:
                    self.entries.append((_NAME, f.__globals__, name, None))

    def _names(self, scope: dict[str, Any], names: tuple[str, ...], depth: int) -> None:
        """What stands under these names, and under the same names in modules found there."""
        for name in names:
            if name not in scope:
                continue
            x = scope[name]
            self.entries.append((_NAME, scope, name, x))
            if isinstance(x, types.ModuleType):
                if not _of_library(x.__name__) and vars(x) is not scope and depth <= _DEPTH:
                    self._names(vars(x), names, depth + 1)
            else:
                self.visit(x, depth + 1)


def _assigned(code: types.CodeType) -> set[str]:
    """The global names that a function assigns to."""
    if dis.opmap["STORE_GLOBAL"] not in code.co_code[::2]:      # usual, and quick
        return set()
    return {x.argval for x in dis.get_instructions(code) if x.opname == "STORE_GLOBAL"}


def _slots(kind: type) -> list[str]:
    """The names of the attributes that instances hold outside their ``__dict__``."""
    return [
        name
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, x in vars(base).items()
        if isinstance(x, types.MemberDescriptorType)
    ]


def _is_generator(x: Any) -> bool:
    kind = type(x)
    if kind.__module__.startswith("numpy.random"):
        return isinstance(x, (np.random.Generator, np.random.BitGenerator, np.random.RandomState))
    return "random" in sys.modules and isinstance(x, sys.modules["random"].Random)


def _state(generator: Any) -> Any:
    """The state of a generator of random numbers, to compare."""
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state(legacy=False))
    if isinstance(generator, np.random.BitGenerator):
        return pickle.dumps(generator.state)
    return generator.getstate()


def _random_states(generators: list[Any]) -> list[Any]:
    """What a draw from these generators of random numbers, or a global one, would change."""
    states = [_state(generator) for generator in generators]
    if "random" in sys.modules:
        states.append(sys.modules["random"].getstate())
    if "numpy.random" in sys.modules:
        states.append(_numpy_state())
    return states


# The words of NumPy's generator when it was last seen without a spare normal number.
_without_spare: bytes | None = None


def _numpy_state() -> Any:
    """The state of ``np.random``, by its words alone where these tell all: the rest takes long."""
    global _without_spare
    words = None
    generator = np.random.mtrand.get_bit_generator()
    if isinstance(generator, np.random.MT19937):
        words = ctypes.string_at(generator.ctypes.state_address, 625 * 4)
        if words == _without_spare:
            return words
    state = np.random.get_state(legacy=False)
    if words is None:
        return pickle.dumps(state)
    if not state["has_gauss"]:
        _without_spare = words
        return words
    return words, state["gauss"]
