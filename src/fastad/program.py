"""Programs: a function recorded once for each way through it, and replayed without Python.

``compile(f)`` gives a `Program`.  Its first call runs `f` on tensors and takes down every
operation; later calls with arguments of the same nesting, shapes and dtypes replay that in C.  What
Python looked at meanwhile (``if x > 0``, ``while err > tol``, ``float(t)``, an index) became a
guard: where a guard does not hold, another recording is tried or made.  So a program gives what
the function gives, or records it again.

In a recording the inputs are tensors that require gradients, and what transforms inside the
function give are tensors too, where ordinary code would get floats: code that asks for the type of
a number sees that difference.

Floats, floating arrays and integer arrays are inputs.  Integers, truth values, strings and the like
are part of what a recording is for: another value means another recording.  With other objects as
arguments, whose contents could change, a function is computed as ordinary code, after a warning.
Tensors that the function finds outside (weights in a closure) are read anew in every call.

A recording also depends on the function's code, on the variables that the function and the
functions it calls read from closures and globals, and on arrays, lists, dicts and attributes found
there: these are compared at each call, and a change means recording again.  What cannot be seen:
files, clocks, other processes, printing and other side effects (they happen while recording only),
changes inside an array of more than 256 KiB or deep inside nested containers.  A draw from NumPy's
or Python's global random generators is noticed, and such a function is computed eagerly.
"""

from __future__ import annotations

import collections
import ctypes
import dis
import enum
import functools
import gc
import os
import pickle
import sys
import types
import typing
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core, transforms
from ._core import Replay, Rows, Tensor, Trace
from .transforms import _is_numbers

__all__ = ["Program", "ProgramWarning", "compile"]


class ProgramWarning(UserWarning):
    """A program does not replay, and says why; its results are right all the same."""


# Arguments: what is an input, and what a recording is for.

_NUMBER, _ARRAY, _STATIC = 0, 1, 2
_INPUT_KINDS = "fiub"


# Objects that are what they are worth: equal ones may share a recording.  Whatever else is handed
# over could change inside without a trace, or does not compare.
_VALUES = (bool, int, complex, str, bytes, np.generic, np.dtype, np.ufunc, range, type, enum.Enum,
           types.BuiltinFunctionType)
_OPAQUE = "an argument that a recording cannot be for"


class _Slot:
    """Stands in an argument tree for the next input."""

    __slots__ = ()


_SLOT = _Slot()


def _flat(x: Any, leaves: list[Any], tensors: list[Tensor]) -> tuple[Any, Any, tuple[int, Any]]:
    """Return the key of one argument, its tree with slots, and its spec; append its leaves."""
    kind = type(x)
    if kind is float or kind is np.float64:
        leaves.append(float(x))
        return "f", _SLOT, (_NUMBER if kind is float else -1, None)
    if kind is Tensor:
        tensors.append(x)
        value = _core.array(x)
        leaves.append(value.item() if value.ndim == 0 and value.dtype == np.float64 else value)
        if type(leaves[-1]) is float:
            return "f", _SLOT, (-1, None)
        return (value.dtype.num, value.shape), _SLOT, (-1, None)
    if isinstance(x, (np.ndarray, np.floating)) and x.dtype.kind in _INPUT_KINDS:
        a = np.asarray(x)
        plain = kind is np.ndarray and a.flags.c_contiguous and a.dtype.isnative
        if not a.flags.c_contiguous or not a.dtype.isnative:
            a = np.array(a, a.dtype.newbyteorder("="), order="C")
        if a.ndim == 0 and a.dtype == np.float64:
            leaves.append(a.item())
            return "f", _SLOT, (-1, None)
        leaves.append(a)
        return (a.dtype.num, a.shape), _SLOT, (_ARRAY if plain else -1, a.dtype.num)
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


def _fill(tree: Any, leaves: Any) -> Any:
    """The tree with leaves in place of the slots."""
    if tree is _SLOT:
        return next(leaves)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_fill(item, leaves) for item in tree])
    if type(tree) in (tuple, list):
        return type(tree)([_fill(item, leaves) for item in tree])
    if type(tree) is dict:
        return {key: _fill(item, leaves) for key, item in tree.items()}
    return tree


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


def flatten(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key of a call, its inputs, their spec where they are flat, and its tensors."""
    leaves: list[Any] = []
    tensors: list[Tensor] = []
    prepared = _prepared(replay, args)
    parts = [_flat(x, leaves, tensors) for x in prepared]
    named = {name: _flat(x, leaves, tensors) for name, x in kwargs.items()}
    key: Any = (
        tuple([part[0] for part in parts]),
        *[(name, part[0]) for name, part in named.items()],
    )
    if _holds_opaque(key):
        key = _OPAQUE
        if key not in replay.given_up:
            _give_up(replay, key, "an argument is an object whose contents a program cannot watch")
    spec: Any = [part[2] for part in parts]
    same = all(a is b for a, b in zip(prepared, args))
    if not same or kwargs or any(kind < 0 for kind, _ in spec):
        spec = None
    return key, leaves, spec, tensors


# Results.


class _Out:
    """A constant in a recorded result; numbers there are positions of outputs."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _result_tree(x: Any, outputs: list[Tensor]) -> Any:
    """The nesting of a result with positions in place of tensors, which go to `outputs`."""
    if isinstance(x, Tensor):
        outputs.append(x)
        return len(outputs) - 1
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*[_result_tree(item, outputs) for item in x])
    if type(x) in (tuple, list):
        return type(x)([_result_tree(item, outputs) for item in x])
    if type(x) is Rows:
        same = x[0].ndim < 32 and all(t.dtype == np.float64 and t.shape == x[0].shape for t in x)
        return (Rows if same else tuple)([_result_tree(item, outputs) for item in x])
    if type(x) is dict:
        return {key: _result_tree(item, outputs) for key, item in x.items()}
    if isinstance(x, np.ndarray) and x.dtype != object:
        return _Out(np.array(x))
    if x is not None and x is not Ellipsis and not isinstance(x, (float, *_VALUES)):
        _core.refuse_trace(f"the function returns an object, a {type(x).__name__}")
    return _Out(x)


def nested(tree: Any, outputs: list[Any], tensors: Any) -> Any:
    """The result of a run; as tensors where tensors went in."""
    if type(tree) is int:
        return _core.tensor(outputs[tree]) if tensors else outputs[tree]
    if type(tree) is _Out:
        value = tree.value
        return np.array(value) if isinstance(value, np.ndarray) else value
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[nested(item, outputs, tensors) for item in tree])
    if type(tree) in (tuple, list):
        return type(tree)([nested(item, outputs, tensors) for item in tree])
    if type(tree) is Rows:
        rows = tuple([nested(item, outputs, tensors) for item in tree])
        return rows if isinstance(rows[0], Tensor) else np.array(rows)
    return {key: nested(item, outputs, tensors) for key, item in tree.items()}


def _plain(t: Tensor, tensors: Any) -> Any:
    """A result of a recording as the caller wants it."""
    if tensors:
        return t.detach()
    a = _core.array(t.detach())
    return a.item() if a.ndim == 0 else np.array(a)


# What a recording depends on besides its arguments.

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


# Recording.

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.end_traces_of_others)


def record(
    replay: Replay,
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    leaves: list[Any],
    spec: Any,
    tensors: list[Tensor],
) -> Any:
    """Run the function once, as a recording, and keep the program that it makes."""
    watch = _Watch()
    watch.visit(replay.source)
    before = _random_states(watch.generators)
    skeleton: list[Any] = []
    trees = [_flat(x, skeleton, [])[1] for x in _prepared(replay, args)]
    named = {name: _flat(x, skeleton, [])[1] for name, x in kwargs.items()}
    if watch.iterator is not None:
        _give_up(replay, key, f"the function may read a {type(watch.iterator).__name__}")
        return eager(replay, args, kwargs)
    trace = Trace()
    try:
        with trace:
            inputs = iter([trace.input(x) for x in leaves])
            given = [_fill(tree, inputs) for tree in trees]
            given_named = {name: _fill(tree, inputs) for name, tree in named.items()}
            result = replay.function(*given, **given_named)
            outputs: list[Tensor] = []
            tree = _result_tree(result, outputs)
            drawn = _random_states(watch.generators) != before
            plan = None if drawn else _core.finish_trace(trace, outputs, sys.modules[__name__])
            wanted = trace.reads_gradients()
    except _core.Refused:
        _give_up(replay, key, trace.refused)
        return eager(replay, args, kwargs)
    if plan is None:
        _give_up(replay, key, trace.refused or "the function draws random numbers")
        if wanted:
            return eager(replay, args, kwargs)
        return nested(tree, [_plain(t, tensors) for t in outputs], None)
    replay.depends_on(watch.entries)
    values = [_plain(t, tensors) for t in outputs]
    in_a_row = replay.keep(key, plan, tree, spec)
    if in_a_row > _most_recordings or (
        in_a_row >= _long_recordings and in_a_row * plan.describe()["instructions"] > _long
    ):
        _give_up(
            replay, key, "a guard fails in every call, or what the function finds outside changes: "
            "choose with where, maximum or clip instead of if"
        )
    elif len(replay.plans) >= _most_keys and not replay.warned:
        replay.warned = True
        _warn(replay, "shapes, dtypes or static arguments keep changing: "
              f"{_difference(list(replay.plans)[-2:])}")
    return eager(replay, args, kwargs) if wanted else nested(tree, values, None)


# So many recordings in a row, without a replay, show that a function goes its own way each time; of
# long ones, which take as long as ten calls of the function, a few that hold so many instructions.
_most_recordings, _most_keys = 12, 32
_long_recordings, _long = 3, 200_000


def _difference(keys: list[Any]) -> str:
    for k, (a, b) in enumerate(zip(keys[0][0], keys[-1][0])):
        if a != b:
            return f"argument {k} was {_describe(a)}, then {_describe(b)}"
    return "the number or the names of the arguments"


def _describe(key: Any) -> str:
    if key == "f":
        return "a number"
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], tuple):
        return f"an array of shape {key[1]}"
    return repr(key[1] if isinstance(key, tuple) and len(key) == 2 else key)


def _give_up(replay: Replay, key: Any, why: str) -> None:
    replay.give_up(key, why)
    _warn(replay, f"{why}; from now on it is computed eagerly")


def _warn(replay: Replay, text: str) -> None:
    name = getattr(replay.source, "__qualname__", repr(replay.source))
    warnings.warn(f"program of {name}: {text}", ProgramWarning, stacklevel=4)


def eager(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the program gives, by the function itself."""
    if replay.argnums:
        return replay.function(*_prepared(replay, args), **kwargs)
    leaves: list[Any] = []
    tensors: list[Tensor] = []
    trees = [_flat(x, leaves, tensors)[1] for x in args]
    named = {name: _flat(x, leaves, tensors)[1] for name, x in kwargs.items()}
    if tensors:
        return replay.function(*args, **kwargs)
    inputs = iter([_core.tensor(x) for x in leaves])
    given = [_fill(tree, inputs) for tree in trees]
    result = replay.function(*given, **{k: _fill(tree, inputs) for k, tree in named.items()})
    outputs: list[Tensor] = []
    tree = _result_tree(result, outputs)
    if any(t.requires_grad for t in outputs):
        return result
    return nested(tree, [_plain(t, None) for t in outputs], None)


# The public class.


def _new_replay(
    function: Callable[..., Any], source: Any, argnums: tuple[int, ...] = ()
) -> Replay:
    replay = Replay(function, sys.modules[__name__], argnums)
    replay.source = source
    return replay


class Program(Replay):
    """A function that is recorded once and replayed; made by `compile`.

    Calling it gives what the function gives, as Python floats and NumPy arrays, or as tensors where
    tensors went in.  Where a gradient through the call is asked for (an argument or a tensor that
    the function finds outside requires gradients, and recording is on) it runs as ordinary code.

    Attributes
    ----------
    value_and_grad, grad : callable
        As ``fastad.value_and_grad(f)`` and ``fastad.grad(f)``, by programs.
    jacobian, hessian : callable
        As ``fastad.jacobian(f)`` and ``fastad.hessian(f)``, by programs.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"compile: wanted a function, got {type(function).__name__}")
        super().__init__(function, sys.modules[__name__])
        functools.update_wrapper(self, function, updated=())
        self.source = function
        self._derived: dict[Any, Any] = {}

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As functions do: in a class, a program is a method, which gets its object first."""
        return self if instance is None else types.MethodType(self, instance)

    def derived(self, name: str, argnums: int | tuple[int, ...] = 0, **options: Any) -> Any:
        """Return the program of a transform of this function.

        Parameters
        ----------
        name : str
            ``"value_and_grad"``, ``"grad"``, ``"jacobian"`` or ``"hessian"``.
        argnums : int or tuple of int
            Which positional arguments to differentiate.
        """
        key = (name, argnums, tuple(options.items()))
        found = self._derived.get(key)
        if found is None:
            transform = getattr(transforms, name)
            numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
            function = transform(self.function, argnums, **options)
            found = self._derived[key] = _new_replay(function, self.function, numbers)
        return found

    @property
    def value_and_grad(self) -> Any:
        """``f(*args)`` and its gradient in the first argument, from one run."""
        return self.derived("value_and_grad")

    @property
    def grad(self) -> Any:
        """The gradient in the first argument."""
        return self.derived("grad")

    @property
    def jacobian(self) -> Any:
        """The dense Jacobian in the first argument."""
        return self.derived("jacobian")

    @property
    def hessian(self) -> Any:
        """The dense Hessian in the first argument."""
        return self.derived("hessian")

    def _product(self, name: str, function: Callable[..., Any], count: int) -> Any:
        found = self._derived.get((name, count))
        if found is None:
            found = _new_replay(function, self.function, tuple(range(count)))
            self._derived[(name, count)] = found
        return found

    def jvp(self, primals: Any, tangents: Any) -> tuple[Any, Any]:
        """As ``fastad.jvp(f, primals, tangents)``."""
        primals, tangents = tuple(primals), tuple(tangents)
        if len(primals) != len(tangents):
            raise ValueError(f"jvp: {len(primals)} primals, but {len(tangents)} tangents")
        n = len(primals)

        def push(*both: Any) -> tuple[Any, Any]:
            return transforms.jvp(self.function, both[:n], both[n:])

        return self._product("jvp", push, 2 * n)(*primals, *tangents)

    def hvp(self, x: Any, v: Any) -> Any:
        """The product of the Hessian in the first argument with `v`."""

        def push(x: Any, v: Any) -> Any:
            return transforms.jvp(transforms.grad(self.function), (x,), (v,))[1]

        return self._product("hvp", push, 2)(x, v)

    def vjp(self, primals: Any, cotangent: Any) -> tuple[Any, Any]:
        """``f(*primals)``, and the cotangents of the primals for this cotangent of the result."""
        primals = tuple(primals)
        n = len(primals)

        def pull(*given: Any) -> tuple[Any, Any]:
            value, back = transforms.vjp(self.function, *given[:n])
            return value, back(given[n])

        return self._product("vjp", pull, n)(*primals, cotangent)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"<Program of {name}: {self.recordings} recorded>"


def compile(function: Callable[..., Any]) -> Program:
    """Return a `Program`: the function recorded once for each way through it, and replayed.

    Parameters
    ----------
    function : callable
        Of numbers, arrays and nested tuples, lists and dicts of these, written with operators,
        fastad's or NumPy's functions.

    Returns
    -------
    Program

    Raises
    ------
    TypeError
        If `function` cannot be called.

    Warns
    -----
    ProgramWarning
        If a program cannot be made (the function draws random numbers, or calls ``backward``), or
        if what Python looks at changes in every call.  The result is right, by the function itself.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> @ad.compile
    ... def f(x):
    ...     return (x * x).sum() if x[0] > 0.0 else -x[1]
    >>> f.value_and_grad(np.array([1.0, 2.0]))
    (5.0, array([2., 4.]))
    >>> f.value_and_grad(np.array([-1.0, 2.0]))
    (-2.0, array([ 0., -1.]))
    """
    return function if isinstance(function, Program) else Program(function)
