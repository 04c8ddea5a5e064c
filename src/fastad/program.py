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
or Python's random generators, global or found like other variables, is noticed, and such a function
is computed eagerly.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core, modes, native, rules, storage, transforms
from ._core import Replay, Tensor
from .arguments import (  # noqa: F401  (hooks of Replay)
    ProgramWarning,
    _call_key,
    _fill,
    _flat,
    _flatten,
    _Out,
    by_node,
    flatten,
    nested,
    place_buffers,
    poured,
    takes_out,
)
from .progress import Progress
from .recording import _most_keys, eager, record  # noqa: F401
from .rows import map_rows  # noqa: F401  (a hook of Replay)
from .transforms import _is_numbers

__all__ = ["Program", "ProgramWarning", "compile"]


# Calls in ordinary code whose gradient is asked for.

# A call as one node of the tape costs about what recording and sweeping this many numbers does.
_WORTH_A_NODE = 300


@rules.primitive("program", reads_inputs=True)
class PROGRAM:
    """A call of a program; `call` says how, `others` are its inputs that are no tensors."""

    def forward(*inputs, call, others):
        with modes.no_grad():
            y = call.program(*call.arguments([*map(_core.wrap, inputs), *others]))
        if not isinstance(y, Tensor):
            raise _OtherResult
        return _core.array(y)

    def vjp(g, y, inputs, needs, call, others):
        some = tuple([k for k, need in enumerate(needs) if need])
        bars = iter(call.pull(some)(*inputs, *others, g))
        return tuple([next(bars) if need else None for need in needs])

    def jvp(tangents, y, inputs, call, others):
        some = tuple([k for k, dot in enumerate(tangents) if dot is not None])
        return call.push(some)(*inputs, *others, *[tangents[k] for k in some])


class _OtherResult(Exception):
    """Another way through the function gives something else than one number or array."""


class _Call:
    """How a program is called with arguments of one key: tensors first, then other inputs."""

    def __init__(self, program: Program, args: tuple[Any, ...]) -> None:
        leaves: list[Any] = []
        self.program = program
        self.trees = [part[1] for part in _flatten(args, {}, leaves, None)[0]]
        tensors = [k for k, x in enumerate(leaves) if isinstance(x, Tensor)]
        others = [k for k, x in enumerate(leaves) if not isinstance(x, Tensor)]
        self.order = np.argsort(tensors + others).tolist()
        self.floating = all(leaves[k].dtype.kind in "fc" for k in tensors)
        self.derived: dict[Any, Replay] = {}

    def record(self, args: tuple[Any, ...]) -> Tensor:
        """The result of a call, as one node of the tape."""
        leaves: list[Any] = []
        _flatten(args, {}, leaves, None)
        tensors = tuple([x for x in leaves if isinstance(x, Tensor)])
        others = [np.array(x) if isinstance(x, np.ndarray) else x
                  for x in leaves if not isinstance(x, Tensor)]
        return _core.apply(PROGRAM, tensors, {"call": self, "others": tuple(others)})

    def arguments(self, inputs: Any) -> list[Any]:
        """The arguments, nested, from all inputs."""
        leaves = iter([inputs[k] for k in self.order])
        return [_fill(tree, leaves) for tree in self.trees]

    def of(self, inputs: tuple[Any, ...], some: tuple[int, ...]) -> Callable[..., Any]:
        """The function of some of its inputs alone."""
        def function(*changed: Any) -> Any:
            full = list(inputs)
            for k, x in zip(some, changed):
                full[k] = x
            return self.program.function(*self.arguments(full))

        return function

    def pull(self, some: tuple[int, ...]) -> Replay:
        """The program of the VJP to some inputs; its last argument is the cotangent."""
        def function(*given: Any) -> Any:
            *inputs, g = given
            primals = [inputs[k] for k in some]
            return transforms.vjp(self.of(tuple(inputs), some), *primals)[1](g)

        return self._made(("vjp", some), function)

    def push(self, some: tuple[int, ...]) -> Replay:
        """The program of the JVP from some inputs; its last arguments are their tangents."""
        def function(*given: Any) -> Any:
            inputs, dots = given[: -len(some)], given[-len(some) :]
            return transforms.jvp(self.of(inputs, some), [inputs[k] for k in some], dots)[1]

        return self._made(("jvp", some), function)

    def _made(self, key: Any, function: Callable[..., Any]) -> Replay:
        title = f"{self.program.title or ''}.{key[0]}"
        return self.derived.setdefault(
            key, _new_replay(function, self.program.source, title=title))


def with_gradient(replay: Replay, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a call in ordinary code which a gradient may be taken of.

    A program of one number or array that is large enough becomes one node of the tape, whose VJP
    and JVP are programs too, from its second call on; other calls are recorded operation by
    operation.
    """
    if isinstance(replay, Program) and not kwargs and key not in replay.given_up:
        call = replay.call_of(key, args)
        if call is not None:
            try:
                return call.record(args)
            except _OtherResult:
                replay.no_node(key)
    return replay.function(*args, **kwargs)


# Recordings as data.


class _Recorded:
    """The function of a program that was read from a file: what was recorded of it.

    Where no recording fits, the function itself is called, if it came along.
    """

    def __init__(self, name: str, recordings: dict[Any, list[Any]], function: Any = None) -> None:
        self.__qualname__ = self.__name__ = name
        self.recordings = recordings        # key -> [(nodes, outer tensors, result)]
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves: list[Any] = []
        found = self.recordings.get(_call_key(*_flatten(args, kwargs, leaves, None)), ())
        failed = None
        for nodes, outer, result in found:
            try:
                outputs = nodes.evaluate(by_node(nodes, leaves, outer), nodes.outputs)
            except _core.GuardError as error:
                failed = error
                continue
            return nested(result, outputs, None)
        if self.function is not None:
            return self.function(*args, **kwargs)
        if failed is not None:
            raise failed
        raise _core.GuardError(
            f"program of {self.__name__}: it was read from a file without its function, and holds "
            "no recording for these arguments; call it with such arguments before it is saved"
        )


def _fingerprint(code: types.CodeType) -> str:
    """What tells whether a function's code is still the same."""
    import hashlib  # costs milliseconds, which `import fastad` does without

    digest = hashlib.sha256(code.co_code)
    for constant in code.co_consts:
        text = _fingerprint(constant) if isinstance(constant, types.CodeType) else repr(constant)
        digest.update(text.encode())
    digest.update(repr((code.co_names, code.co_varnames)).encode())
    return digest.hexdigest()


def _find(module: str, qualname: str) -> Any:
    """The plain function of that name, or None."""
    found: Any = sys.modules.get(module)
    if found is None:
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found.source if isinstance(found, Program) else found


def _reference(function: Any) -> tuple[str, str, str] | None:
    """Where another process finds this function, and what its code is."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    code = getattr(function, "__code__", None)
    if module is None or name is None or code is None or _find(module, name) is not function:
        return None
    return module, name, _fingerprint(code)


def stored(program: Program) -> bytes:
    """The recordings of a program as the bytes of a file; see storage.py."""
    writer = storage.Writer()
    recordings = []
    for of, replay in program.replays_by_name():
        for key, plans in replay.plans.items():
            for plan in plans:
                recordings.append({
                    "of": writer.value(of), "key": writer.value(key),
                    "result": writer.value(_storable(plan.result)),
                    "graph": writer.nodes(plan.nodes, plan.outer),
                })
    name = getattr(program.source, "__qualname__", type(program.source).__name__)
    return writer.finish({"kind": "program", "name": name, "recordings": recordings})


def restored(reader: storage.Reader, function: Any = None) -> Program:
    """A program from what was stored."""
    header = reader.header
    base: dict[Any, list[Any]] = {}
    found = []
    with storage.checked():
        for x in header["recordings"]:
            nodes, outer = reader.nodes(x["graph"])
            of, key = reader.value(x["of"]), reader.value(x["key"])
            result = _from_storable(reader.value(x["result"]), len(nodes.outputs))
            found.append((of, key, nodes, outer, result))
            if of is None:
                base.setdefault(key, []).append((nodes, outer, result))
        program = Program(_Recorded(str(header["name"]), base, function))
        for of, key, nodes, outer, result in found:
            replay = program if of is None else program.derived(*of)
            replay.adopt(key, nodes.plan(outer, sys.modules[__name__]), result)
    return program


def _storable(tree: Any) -> Any:
    """A result's nesting in plain tuples, lists and dicts, which say what they stand for."""
    if type(tree) is int:
        return tree
    if type(tree) is _Out:
        return ("constant", tree.value)
    if type(tree) in (tuple, list):
        return (type(tree).__name__, [_storable(item) for item in tree])
    if type(tree) is dict:
        return ("dict", {key: _storable(item) for key, item in tree.items()})
    raise TypeError(f"save: a result of type {type(tree).__name__} cannot be stored; return a "
                    "tuple, a list or a dict")


def _from_storable(x: Any, outputs: int) -> Any:
    if type(x) is int and 0 <= x < outputs:
        return x
    kind, what = x
    if kind == "constant":
        return _Out(what)
    if kind == "dict":
        return {key: _from_storable(item, outputs) for key, item in what.items()}
    return {"tuple": tuple, "list": list}[kind]([_from_storable(item, outputs) for item in what])


def _unpickled(data: bytes, reference: tuple[str, str, str] | None) -> Program:
    """A program from a pickle."""
    function = None
    if reference is not None:
        module, name, fingerprint = reference
        function = _find(module, name)
        if function is not None and _fingerprint(function.__code__) != fingerprint:
            warnings.warn(f"program of {name}: its code is another than when it was pickled; only "
                          "what was recorded then is used", ProgramWarning, stacklevel=2)
            function = None
    return restored(storage.Reader(data), function)


# Dense Jacobians and Hessians.

# From so many instructions in all sweeps on, one sweep is recorded and runs for many unit vectors
# at once.  Below, sweeps are recorded one after another: zeros in unit vectors make them shorter.
_LONG_SWEEPS = 12_000
_FEW_SWEEPS = 8


def _by_lanes(
    program: Program, name: str, argnum: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A large Jacobian or Hessian by one sweep over many unit vectors."""
    if kwargs or not -len(args) <= argnum < len(args):
        return NotImplemented
    if any(isinstance(x, Tensor) for x in transforms._leaves(list(args), [])):
        return NotImplemented
    at = argnum % len(args)
    x = np.asarray(args[at]) if _is_numbers(args[at]) else args[at]
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiu" or x.size < _FEW_SWEEPS:
        return NotImplemented
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    args = (*args[:at], x, *args[at + 1:])
    y: Any = x
    function = program.function
    if name == "hessian":
        function = transforms.grad(function, at)
    else:
        y = program(*args)
        if not isinstance(y, np.ndarray) or y.dtype.kind != "f" or y.size < _FEW_SWEEPS:
            return NotImplemented
    columns = x.size <= y.size
    sweep = _sweep(program, name, function, at, len(args), columns)
    found = _over_units(sweep, args, x if columns else y, _LONG_SWEEPS)
    if found is NotImplemented:
        return found
    swept = found[1]
    if columns:
        swept = np.ascontiguousarray(np.moveaxis(swept, 0, -1))
    return swept.reshape(y.shape + x.shape)


def by_lanes(
    program: Program, name: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """Value of a function made of a program's, and its derivatives in the first argument, an array.

    Derivatives by an element of the argument are a row.  NotImplemented where the sweeps for the
    elements cannot run together.
    """
    sweep = _sweep(program, name, function, 0, len(args), True)
    found = _over_units(sweep, args, args[0], 0)
    if found is NotImplemented:
        return found
    return np.array(found[0][0]), found[1]


def _over_units(sweep: Replay, args: tuple[Any, ...], like: np.ndarray, long: int) -> Any:
    """Values and derivatives that a sweep gives for each unit vector like an array.

    NotImplemented where all sweeps hold fewer than `long` instructions, or do not run together.
    """
    units = np.eye(like.size, dtype=like.dtype).reshape(like.size, *like.shape)
    if not sweep.plans:
        sweep(*args, units[0])
    plans = [plan for found in sweep.plans.values() for plan in found]
    if sweep.given_up or not plans:
        return NotImplemented
    if max(plan.figures()["instructions"] for plan in plans) * like.size < long:
        return NotImplemented
    if not long and not plans[0].rows_at_once(bytes(plans[0].n_given - 1) + b"\1"):
        return NotImplemented
    with Progress("differentiating", like.size, "sweeps") as shown:
        found = sweep.map(*args, units, in_axes=(*(None,) * len(args), 0), progress=shown)
    if sweep.given_up or not all(isinstance(x, np.ndarray) for x in found):
        return NotImplemented
    return found


def _sweep(
    program: Program, name: str, function: Callable[..., Any], at: int, count: int, columns: bool
) -> Replay:
    """The program of value and one forward or reverse sweep, whose seed is the last argument."""
    key = ("sweep", name, at, count, columns)
    found = program._derived.get(key)
    if found is not None:
        return found

    def sweep(*given: Any) -> Any:
        *args, seed = given

        def moved(x: Any) -> Any:
            return function(*args[:at], x, *args[at + 1:])

        if columns:
            return transforms.jvp(moved, (args[at],), (seed,))
        value, pull = transforms.vjp(moved, args[at])
        return value, pull(seed)[0]

    found = program._derived[key] = _new_replay(
        sweep, program.function, (at,), f".{name}, one sweep")
    return found


# The public class.


# What the floors above know of programs, by name: methods of `Program` end here.
ABOVE: dict[str, Callable[..., Any]] = {}


def watched(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call while somebody looks for nan and inf; a hook of Replay."""
    return ABOVE["watched"](replay, args, kwargs)


def tell(*args: Any) -> None:
    """A result that is not finite; a hook of Replay."""
    ABOVE["tell"](*args)


def _new_replay(
    function: Callable[..., Any], source: Any, argnums: tuple[int, ...] = (),
    title: str | None = None
) -> Replay:
    replay = Replay(function, sys.modules[__name__], argnums)
    replay.source = source
    replay.title = title
    return replay


def name_of(replay: Replay) -> str:
    """What the user's function is called."""
    source = replay.source
    found = getattr(source, "__qualname__", None) or getattr(source, "name", None)
    return str(found or type(source).__name__)


def in_short(replay: Replay) -> str:
    """A program in one line; a hook of Replay."""
    held = sum([len(plans) for plans in replay.plans.values()])
    return f"<Program of {name_of(replay)}{replay.title or ''}: {held} recorded>"


def summary(replay: Replay) -> Any:
    """A program in tables; a hook of Replay."""
    return ABOVE["summary"](replay)


class Program(Replay):
    """A function that is recorded once and replayed; made by `compile`.

    Calling it gives what the function gives, as Python floats and NumPy arrays, or as tensors where
    tensors went in.  Where a gradient through the call is asked for (an argument or a tensor that
    the function finds outside requires gradients, and recording is on) it runs as ordinary code,
    or, if that saves time, as one node of the tape whose derivatives are programs.

    ``out=`` takes buffers for the results, in the result's nesting, with None for
    what shall be new: ``f.value_and_grad(x, out=(None, g))`` writes the gradient to the array `g`
    and returns it.  (A function that has a parameter ``out`` itself gets it.)

    Attributes
    ----------
    value_and_grad, grad : callable
        As ``fastad.value_and_grad(f)`` and ``fastad.grad(f)``, by programs.
    jacobian, hessian : callable
        As ``fastad.jacobian(f)`` and ``fastad.hessian(f)``, by programs.  Large ones come from one
        recorded sweep that runs for many unit vectors at once.

    Each of these has a `map` of its own that calls it for many rows at once.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"compile: wanted a function, got {type(function).__name__}")
        super().__init__(function, sys.modules[__name__])
        functools.update_wrapper(self, function, updated=())
        self.source = function
        self._derived: dict[Any, Any] = {}
        self._calls: dict[Any, Any] = {}
        self.reports: dict[int, Any] = {}       # what `report` keeps, by recording
        self._long: dict[str, bool] = {}        # fastad.scipy: which Jacobians are, and are tall

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
            given = [repr(name), repr(argnums), *[f"{k}={x!r}" for k, x in options.items()]]
            title = f".{name}" if argnums == 0 and not options else f".derived({', '.join(given)})"
            found = self._derived[key] = _new_replay(function, self.function, numbers, title)
            if name in ("jacobian", "hessian") and isinstance(argnums, int) and not options:
                found.instead = functools.partial(_by_lanes, self, name, argnums)
        return found

    def map(
        self,
        *args: Any,
        in_axes: Any = None,
        threads: int | None = None,
        progress: bool | None = None,
        gradient: bool = True,
    ) -> Any:
        """Return value and gradient for each row of the first argument, many rows at once.

        ``p.map(X)`` is ``p.value_and_grad(x)`` for each ``x`` in ``X``, stacked.  The programs of
        derivatives have a `map` of their own that gives what they compute: ``p.grad.map(X)``,
        ``p.hessian.map(X)``, ``p.derived("grad", (0, 1)).map(X, Y, in_axes=(0, 0))``.

        Rows that take another way through the function are recorded as in single calls.  A row
        has the same result wherever it stands among whichever others, in any number of threads.
        Sums, products, quotients and square roots have the bits of a single call, functions such
        as ``exp`` may differ in the last ones; what the function looks at, and so the way that a
        row takes, is what it is in a single call.

        Parameters
        ----------
        *args : array, shape (rows, ...), and further arguments
            The first argument has a row for each call; the others are the same for all rows.
        in_axes : tuple of 0 and None, optional
            One for each argument: 0 where it has rows, None where it is the same for all.
        threads : int, optional
            How many threads compute; one by default.
        progress : bool, optional
            Show how many rows are done: a bar where tqdm is installed, else a line on stderr.  None
            does so at a terminal and in notebooks when it takes longer than a second, unless
            `fastad.set_progress` says otherwise.
        gradient : bool
            False gives what the function itself gives, without the gradient.

        Returns
        -------
        tuple
            ``(values, gradients)`` of shapes (rows,) and the first argument's; in general the
            nesting of a single result, each array with the rows on its first axis.  Tensors where
            tensors went in.

        Raises
        ------
        ValueError
            If there are no rows, rows are of unequal shapes, arguments have unequal numbers of
            rows, or rows give results of unequal shapes; if `threads` is less than 1.
        TypeError
            If an argument with rows does not hold numbers; if `progress` is none of these.

        Examples
        --------
        >>> import fastad as ad
        >>> import numpy as np
        >>> p = ad.compile(lambda x: x[0] * x[1] if x[0] > 0.0 else -x[1])
        >>> p.map(np.array([[1.0, 2.0], [3.0, 4.0], [-1.0, 5.0]]))
        (array([ 2., 12., -5.]), array([[ 2.,  1.],
               [ 4.,  3.],
               [ 0., -1.]]))
        """
        if gradient:
            return self.value_and_grad.map(
                *args, in_axes=in_axes, threads=threads, progress=progress
            )
        return super().map(*args, in_axes=in_axes, threads=threads, progress=progress)

    def replays_by_name(self) -> list[tuple[Any, Replay]]:
        """This program (None) and its derived ones, by what `derived` takes."""
        named: list[tuple[Any, Replay]] = [(None, self)]
        for key, replay in self._derived.items():
            if len(key) == 3 and not key[2]:
                named.append((key[:2], replay))
        return named

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recordings of this program and its derivatives to a file.

        The file is data: `fastad.load` reads it without running code and without the function,
        which stays behind, and the program that it gives holds for arguments of the kinds that were
        recorded.  Its format stands in ``fastad.storage``.  Tensors that the function finds outside
        are stored with their present values.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        ValueError
            If nothing was recorded yet.
        TypeError
            If an argument or a result is no data (an object of one's own, a named tuple).
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import fastad as ad
        >>> f = ad.compile(lambda x: x * x)
        >>> f(3.0)
        9.0
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     f.save(os.path.join(folder, "square.fastad"))
        ...     g = ad.load(os.path.join(folder, "square.fastad"))
        >>> g(4.0), g.grad(4.0)
        (16.0, 8.0)
        """
        if not any(replay.plans for _, replay in self.replays_by_name()):
            raise ValueError("save: nothing was recorded yet; call the program first")
        data = stored(self)
        with open(path, "wb") as file:
            file.write(data)

    def __reduce__(self) -> Any:
        """Pickles hold the recordings, and the name of the function where it can be imported."""
        source: Any = self.source
        if isinstance(source, _Recorded):
            source = source.function
        reference = _reference(source)
        if reference is None and not any(r.plans for _, r in self.replays_by_name()):
            raise pickle.PicklingError(
                f"{self!r}: its function cannot be found by its name, and nothing was recorded "
                "yet; call the program first, or define the function at the top of a module"
            )
        return _unpickled, (stored(self), reference)

    def call_of(self, key: Any, args: tuple[Any, ...]) -> _Call | None:
        """How calls with such arguments become one node of the tape, or None if they do not."""
        if key not in self._calls:
            if len(self._calls) >= _most_keys:
                self._calls.clear()
            self._calls[key] = None         # a function that is called once is not recorded twice
            return None
        call = self._calls[key]
        if call is None:
            with modes.no_grad():
                self(*args)
            call = _Call(self, args)
            plan = self.plans[key][0] if self.plans.get(key) else None
            if (plan is None or type(plan.result) is not int or plan.outer or not call.floating
                    or plan.figures()["instructions"] <= _WORTH_A_NODE):
                call = False
            self._calls[key] = call
        return call or None

    def no_node(self, key: Any) -> None:
        """Record calls with such arguments operation by operation from now on."""
        self._calls[key] = False

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
            found = _new_replay(function, self.function, tuple(range(count)), f".{name}")
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

    def hvp(self, x: Any, v: Any, *args: Any) -> Any:
        """The product of the Hessian in the first argument with `v`; `args` follow that one."""

        def push(x: Any, v: Any, *args: Any) -> Any:
            gradient = transforms.grad(self.function)
            return transforms.jvp(lambda at: gradient(at, *args), (x,), (v,))[1]

        return self._product("hvp", push, 2)(x, v, *args)

    def vjp(self, primals: Any, cotangent: Any) -> tuple[Any, Any]:
        """``f(*primals)``, and the cotangents of the primals for this cotangent of the result."""
        primals = tuple(primals)
        n = len(primals)

        def pull(*given: Any) -> tuple[Any, Any]:
            value, back = transforms.vjp(self.function, *given[:n])
            return value, back(given[n])

        return self._product("vjp", pull, n)(*primals, cotangent)

    def _way_out(self, derivative: str | None, argnums: int | tuple[int, ...]) -> Replay:
        if derivative is None:
            return self
        if derivative not in ("value_and_grad", "grad", "jacobian", "hessian"):
            raise ValueError(f"derivative={derivative!r}: wanted None, 'value_and_grad', 'grad', "
                             "'jacobian' or 'hessian'")
        found: Replay = self.derived(derivative, argnums)
        return found

    def c_function(
        self, *examples: Any, derivative: str | None = None, argnums: int | tuple[int, ...] = 0
    ) -> native.CFunction:
        """Return a C function that computes what this program does; no compiler is needed.

        ::

            int f(const double *in, double *value, double *gradient, void *user_data);

        It can be called from any thread, several at once, without Python's lock.  It holds all
        recordings for arguments like the examples, with the present values of the tensors that the
        function finds outside.  Where none of them holds, because what Python looked at comes out
        otherwise, it returns 1 and nan: call the program there, which records that way too, and
        ask again.

        Parameters
        ----------
        *examples : float or ndarray
            Arguments whose shapes and ways through the function are meant; without any, those of
            the last call.
        derivative : str, optional
            ``"value_and_grad"``: the gradient goes to `gradient`.  ``"grad"``, ``"jacobian"``,
            ``"hessian"``: that goes to `value`.
        argnums : int or tuple of int
            Which positional arguments to differentiate.

        Returns
        -------
        CFunction
            With ``address``, ``user_data``, ``ctypes`` and ``low_level_callable()``.  Keep it for
            as long as the function may be called.

        Raises
        ------
        ValueError
            If nothing is recorded, no program can be made, or recordings differ in the sizes of
            their results.
        TypeError
            If arguments or results are other than numbers and float64 arrays, or if an operation
            is computed by Python; the message names it.

        Examples
        --------
        >>> import ctypes
        >>> import fastad as ad
        >>> program = ad.compile(lambda x, y: x * y + ad.sin(x))
        >>> f = program.c_function(1.0, 2.0, derivative="value_and_grad")
        >>> given = (ctypes.c_double * 2)(0.0, 3.0)
        >>> value, gradient = ctypes.c_double(), ctypes.c_double()
        >>> f.ctypes(given, ctypes.byref(value), ctypes.byref(gradient), f.user_data)
        0
        >>> value.value, gradient.value
        (0.0, 4.0)

        ``scipy.integrate.quad(program.c_function(1.0).low_level_callable(), 0.0, 1.0)`` integrates
        a function of one number without calling Python.
        """
        replay = self._way_out(derivative, argnums)
        return native.c_function(replay, examples, derivative)

    def to_c(
        self,
        *examples: Any,
        name: str = "f",
        derivative: str | None = None,
        argnums: int | tuple[int, ...] = 0,
        path: Any = None,
    ) -> str:
        """Write the program as a C99 file of its own, which needs libm and nothing else.

        ::

            int f(const double *in, double *value, double *work);
            int f_value_and_grad(const double *in, double *value, double *gradient, double *work);

        The second is there with ``derivative="value_and_grad"``; with another derivative it is
        named after that and has no `gradient`.  The comment at the top of the file says what the
        arguments hold, how large `work` must be, and which results may differ in their last bits.
        Arguments, recordings and the tensors that the function finds outside are as for
        `c_function`.  The status is 0, or the number of the guard in the file that did not hold.

        Parameters
        ----------
        *examples : float or ndarray
            As for `c_function`.
        name : str
            Of the function, and the beginning of every other name in the file.
        derivative, argnums : optional
            As for `c_function`.
        path : str or path, optional
            Where to write the file too.

        Returns
        -------
        str
            The file's contents.

        Raises
        ------
        ValueError, TypeError
            As `c_function`; also where `name` is no name in C, and for float32 arrays.

        Examples
        --------
        >>> import fastad as ad
        >>> text = ad.compile(lambda x: x * x + 1.0).to_c(2.0, name="parabola")
        >>> print(*[line for line in text.splitlines() if "in[0] *" in line])
            const double t0 = in[0] * in[0] + 1.0;
        """
        functions: list[tuple[str, str | None, list[Any]]] = [
            (name, None, native.recordings(self, examples, "to_c"))]
        if derivative is not None:
            replay = self._way_out(derivative, argnums)
            functions.append((f"{name}_{derivative}", derivative,
                              native.recordings(replay, examples, "to_c")))
        what = getattr(self.function, "__qualname__", repr(self.function))
        text = native.c_source(name, what, functions)
        if path is not None:
            with open(path, "w") as file:
                file.write(text)
        return text

    def blame(self, *args: Any) -> Any:
        """Return what the first nan or inf in value or gradient comes from, or None.

        Returns
        -------
        AnomalyError or None
            Not raised; with ``primitive``, ``inputs``, ``file``, ``line``, ``function`` and
            ``gradient``.

        Raises
        ------
        ValueError
            If no program can be made of the function.

        Examples
        --------
        >>> import fastad as ad
        >>> f = ad.compile(lambda x, y: ad.exp(x) * ad.log(y))
        >>> error = f.blame(1.0, -1.0)
        >>> error.primitive, error.inputs, error.gradient
        ('log', (-1.0,), False)
        >>> f.blame(1.0, 1.0) is None
        True
        """
        return ABOVE["blame"](self, *args)

    def profile(self, *args: Any, repeats: int = 5) -> Any:
        """Return time and memory by the lines of the user's code, for these arguments.

        The recording of value and gradient (of the value alone, where it is no single number) is
        computed operation by operation, `repeats` times, of which the fastest counts.  A replay
        fuses operations and is faster: read this as shares.

        Returns
        -------
        Profile
            With ``lines``, the costliest first; printed, it is a table.

        Raises
        ------
        ValueError
            If no program can be made of the function.

        Examples
        --------
        >>> import fastad as ad
        >>> import numpy as np
        >>> f = ad.compile(lambda x: (ad.sin(x) * x).sum())
        >>> found = f.profile(np.ones(1000))
        >>> found.lines[0].operations > 3, found.lines[0].bytes > 16000
        (True, True)
        """
        return ABOVE["profile"](self, *args, repeats=repeats)

    def report(self, *args: Any) -> Any:
        """Return value and gradient with what they are worth; see `fastad.report`."""
        return ABOVE["report"](self, *args)

    def to_sympy(self, *examples: Any, limit: int = 10_000) -> Any:
        """Value and gradient as SymPy expressions; see `fastad.to_sympy`.

        Without example arguments, those of the recording that was used last.
        """
        return ABOVE["to_sympy"](self, *examples, limit=limit)

    def summary(self) -> Any:
        """Return what was recorded of this program and its derivatives, and what it takes.

        The figures were taken while recording; asking costs nothing in a replay.  Programs of
        derivatives have a `summary` of their own: ``p.grad.summary()``.

        Returns
        -------
        Summary
            Printed, and in a notebook, it is some tables; ``parts`` holds the same as data.

        Examples
        --------
        >>> import fastad as ad
        >>> p = ad.compile(lambda x: ad.sin(x) * x if x > 0.0 else x)
        >>> p(1.0), p(2.0) > 1.0, p(-1.0)
        (0.8414709848078965, True, -1.0)
        >>> (part,) = p.summary().parts
        >>> part.replays, [recording.operations for recording in part.recordings]
        (1, [{}, {'multiply': 1, 'sin': 1}])
        >>> [guard.seen for guard in part.recordings[1].guards]
        ['node 0 (input) > 0.0 was True']
        """
        return ABOVE["summary"](self)


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
