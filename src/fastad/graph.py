"""Graphs: a function recorded once, with named inputs, outputs and intermediates.

A `Program` runs what it was made for.  A `Graph` is the record itself: it can be listed, any named
value in it can be asked for, and any gradient of one named value by another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _core, arguments, program, recording, storage, transforms
from ._core import GuardError, Nodes, Replay, Tensor, name
from .program import Program

__all__ = ["Graph", "GuardError", "Kind", "Node", "load", "name", "record"]


class Kind(NamedTuple):
    """Shape and dtype of a value in a graph."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Node(NamedTuple):
    """One value in a graph: what computes it, from which nodes, and what it is.

    ``primitive`` is ``"input"`` and ``"constant"`` for values that nothing computes; ``value`` is
    that of a constant, else None; ``name`` the first of its names, or None.
    """

    id: int
    primitive: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    name: str | None
    value: Any


NUMBER = Kind((), np.dtype(np.float64))
_GRADIENT = "grad:"
_MOST_RUNS = 64
_LISTED = 200
_DEEPEST = 16


class Graph:
    """A recorded function with names; made by `record`, or read by `load`.

    Attributes
    ----------
    name : str
        Of the function.
    inputs, outputs : dict of str to Kind
        Shapes and dtypes by name, in the function's order.  Outputs are called ``output``, or,
        where the function gives a dict, by its keys; parts of nested values ``w[0]``, ``w[0][1]``.
    names : dict of str to int
        All names and their nodes: inputs, outputs and what `fastad.name` has named.
    program : Program
        The graph as a function of its inputs in the nesting of the recorded call, with
        ``value_and_grad`` and the other derivatives.
    """

    def __init__(
        self, name: str, nodes: Nodes, outer: list[Tensor], key: Any, result: Any,
        input_names: list[str]
    ) -> None:
        self.name = name
        self._nodes = nodes
        self._outer = outer
        self._key = key
        self._result = result
        self._input_names = input_names
        self._runs: dict[Any, Replay] = {}
        outputs = dict(_named_outputs("output", result, True))
        self.inputs = {k: self._kind(i) for k, i in zip(input_names, nodes.inputs)}
        self.outputs = {k: self._kind(nodes.outputs[i]) for k, i in outputs.items()}
        self.names = {
            **nodes.names,
            **{k: nodes.outputs[i] for k, i in outputs.items()},
            **dict(zip(input_names, nodes.inputs)),
        }
        taken = set(nodes.names) & (set(input_names) | set(outputs))
        for k in sorted(taken):
            if self.names[k] != nodes.names[k]:
                raise ValueError(f"record: {k!r} is the name of an input or an output already; "
                                 "give the value another name")
        recorded = program._Recorded(name, {key: [(nodes, outer, result)]})
        self.program = Program(recorded)
        self.seconds: tuple[float, float] | None = None     # recording and compiling, if known

    def _kind(self, i: int) -> Kind:
        return Kind(*self._nodes.arrays[i]) if i in self._nodes.arrays else NUMBER

    # Looking at it.

    @property
    def nodes(self) -> list[Node]:
        """All nodes, each after those that it is computed from."""
        return list(self._listed(len(self._nodes)))

    def _listed(self, most: int) -> Iterator[Node]:
        named: dict[int, str] = {}
        for k, i in self.names.items():
            named.setdefault(i, k)
        for i in range(min(most, len(self._nodes))):
            what = self._nodes.primitive(i)
            value = None
            if what == "constant":
                constant = self._nodes.constants.get(i)
                value = float(self._nodes.number[i]) if constant is None else _core.array(constant)
            yield Node(i, what, tuple(self._nodes.parents(i)), *self._kind(i), named.get(i), value)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return (f"<Graph of {self.name}: {len(self)} nodes, inputs {', '.join(self.inputs)}; "
                f"outputs {', '.join(self.outputs)}>")

    def __str__(self) -> str:
        """The nodes, a line each; of long graphs the beginning."""
        rows = []
        for node in self._listed(_LISTED):
            if node.primitive == "constant":
                text = np.array2string(np.asarray(node.value), threshold=6, edgeitems=2)
                what = "constant " + " ".join(text.split())
            else:
                what = f"{node.primitive}({', '.join([f'%{p}' for p in node.parents])})"
                what = "input" if node.primitive == "input" else what
            kind = "" if node[3:5] == NUMBER else f"  {node.dtype}{list(node.shape)}"
            name = "" if node.name is None else f"  # {node.name}"
            rows.append(f"%{node.id} = {what}{kind}{name}")
        if len(self) > _LISTED:
            rows.append(f"... and {len(self) - _LISTED} more nodes")
        rows += [f"guard: {self._nodes.described(guard)}" for guard in self._nodes.guards[:_LISTED]]
        return "\n".join([repr(self), *rows])

    def summary(self) -> Any:
        """Return what was recorded, and what its runs and derivatives take.

        Returns
        -------
        Summary
            As of `Program.summary`.

        Examples
        --------
        >>> import fastad as ad
        >>> found = ad.record(lambda x, y: ad.sin(x) * y, 1.0, 2.0).summary()
        >>> found.parts[0].recordings[0].signature, found.parts[0].recordings[0].operations
        ('x: number, y: number', {'multiply': 1, 'sin': 1})
        """
        return program.ABOVE["summary"](self)

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    # Running it.

    def run(self, feed: Mapping[str, Any], fetch: Any) -> Any:
        """Return named values and gradients for these inputs, computing only what they need.

        Parameters
        ----------
        feed : mapping of str to number or array
            Values by name, of the shapes that were recorded.  Inputs that `fetch` does not need
            may be left out.  A named intermediate may be fed too: it is then not computed.
        fetch : str, or list, tuple or dict of str
            Names of values; ``"grad:w"`` is the gradient of the first output, which must be one
            number, by the value called ``w``, and ``"grad:loss/w"`` that of ``loss``.

        Returns
        -------
        float, ndarray, or a list, tuple or dict of these
            In the form of `fetch`; a gradient has the shape of what it is by.

        Raises
        ------
        ValueError
            If a name is unknown, an input that is needed is missing, or a value has another shape
            than was recorded.
        GuardError
            If the function would have gone another way for these values (an ``if``, an index): the
            graph is the record of one way.  `compile` records others as they are met.

        Examples
        --------
        >>> import fastad as ad
        >>> import numpy as np
        >>> def model(w, x, y):
        ...     seen = ad.name(x @ w, "prediction")
        ...     return {"loss": ((seen - y) ** 2).sum()}
        >>> graph = ad.record(model, np.zeros(2), np.ones((3, 2)), np.ones(3))
        >>> feed = {"w": np.array([1.0, 2.0]), "x": np.eye(3, 2), "y": np.zeros(3)}
        >>> graph.run(feed, fetch=["loss", "grad:w"])
        [5.0, array([2., 4.])]
        >>> graph.run({"w": np.ones(2), "x": np.ones((3, 2))}, fetch="prediction")
        array([2., 2., 2.])
        """
        wanted = transforms._leaves(fetch, [])
        for text in wanted:
            if not isinstance(text, str):
                raise TypeError(f"run: fetch has {type(text).__name__}; wanted names")
        names = tuple(sorted(feed))
        for k in names:
            if k not in self.names:
                raise ValueError(f"run: there is nothing called {k!r} to feed; {self._known()}")
        values = [self._fed(k, feed[k]) for k in names]
        key = (names, tuple(wanted))
        replay = self._runs.get(key)
        if replay is None:
            if len(self._runs) >= _MOST_RUNS:
                self._runs.pop(next(iter(self._runs)))
            replay = self._runs[key] = program._new_replay(
                self._fetcher(*key), self, title=f".run, fetch={wanted}")
        return transforms._rebuild(fetch, iter(replay(*values)))

    def _known(self) -> str:
        return "there are " + ", ".join(self.names)

    def _fed(self, k: str, x: Any) -> Any:
        kind = self._kind(self.names[k])
        a = _core.array(x.detach()) if isinstance(x, Tensor) else np.asarray(x)
        if a.shape != kind.shape or not np.can_cast(a.dtype, kind.dtype, "same_kind"):
            raise ValueError(f"run: {k!r} was fed {a.dtype} of shape {a.shape}; wanted "
                             f"{kind.dtype} of shape {kind.shape}")
        a = np.ascontiguousarray(a, kind.dtype).reshape(kind.shape)
        return a.item() if kind == NUMBER else a

    def _node(self, k: str) -> int:
        if k not in self.names:
            raise ValueError(f"run: there is nothing called {k!r} to fetch; {self._known()}")
        return self.names[k]

    def _gradient(self, text: str) -> tuple[int, int]:
        """The nodes of the number and of what it is differentiated by."""
        y, slash, x = text[len(_GRADIENT):].rpartition("/")
        of = self._node(y) if slash else self._nodes.outputs[0] if self._nodes.outputs else -1
        shape, dtype = self._kind(of)
        if of < 0 or int(np.prod(shape)) != 1 or dtype.kind != "f":
            raise ValueError(f"run: {text!r} asks for the gradient of a value of shape {shape}; "
                             "wanted one real number: name it, as in 'grad:loss/w'")
        by = self._node(x)
        if self._kind(by).dtype.kind not in "fc":
            raise ValueError(f"run: {text!r} asks for a gradient by {self._kind(by).dtype} numbers")
        return of, by

    def _fetcher(self, fed: tuple[str, ...], wanted: tuple[str, ...]) -> Callable[..., Any]:
        """The function from fed values to the wanted ones."""
        nodes = self._nodes
        gradients = [self._gradient(k) if k.startswith(_GRADIENT) else None for k in wanted]
        plain = [self._node(k) if g is None else -1 for k, g in zip(wanted, gradients)]
        needed = sorted({*plain, *[i for g in gradients if g for i in g]} - {-1})
        outer = dict(zip(nodes.inputs[nodes.n_given:], self._outer))
        # an intermediate does not mind what Python looked at afterwards
        whole = any(k.removeprefix(_GRADIENT).partition("/")[0] in self.outputs for k in wanted)
        whole = whole or any(g and "/" not in k for k, g in zip(wanted, gradients))

        def run(*values: Any) -> list[Any]:
            with transforms.modes.enable_grad():
                known = {
                    self.names[k]: transforms._fresh("run", x)
                    if self._kind(self.names[k]).dtype.kind in "fc" else _core.as_tensor(x)
                    for k, x in zip(fed, values)
                }
                try:
                    found = dict(zip(needed, nodes.evaluate({**outer, **known}, needed, whole)))
                except KeyError as error:
                    missing = [k for k, i in self.names.items() if i == error.args[0]]
                    raise ValueError(f"run: {missing[0]!r} is needed for {', '.join(wanted)}, and "
                                     "was not fed") from None
                bars: dict[tuple[int, int], Tensor] = {}
                for of in {g[0] for g in gradients if g}:
                    by = sorted({g[1] for g in gradients if g and g[0] == of})
                    # a node that needs no gradient has none: nothing fed flows through it
                    live = [found[i] for i in by if found[i].requires_grad]
                    each = iter(transforms._gradients(
                        [found[of]], [None], live, _core.is_tracing(), True))
                    for i in by:
                        t = found[i]
                        bars[of, i] = next(each) if t.requires_grad else transforms._zeros(t)
            results = [found[i] if g is None else bars[g] for i, g in zip(plain, gradients)]
            return [t if _core.is_tracing() else t.detach() for t in results]

        return run

    def to_sympy(self, *examples: Any, limit: int = 10_000) -> Any:
        """Value and gradient as SymPy expressions; see `fastad.to_sympy`.

        Examples are needed where the recording saw values that do not fit to made-up ones.
        """
        return program.ABOVE["to_sympy"](self, *examples, limit=limit)

    # Keeping it.

    def _stored(self) -> bytes:
        writer = storage.Writer()
        return writer.finish({
            "kind": "graph", "name": self.name, "graph": writer.nodes(self._nodes, self._outer),
            "key": writer.value(self._key), "inputs": self._input_names,
            "result": writer.value(program._storable(self._result)),
        })

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a file, which `load` reads; see `Program.save`.

        Raises
        ------
        TypeError
            If an argument or a result is no data.
        OSError
            If the file cannot be written.
        """
        data = self._stored()
        with open(path, "wb") as file:
            file.write(data)

    def __reduce__(self) -> Any:
        return _unpickled, (self._stored(),)


def _graph(reader: storage.Reader) -> Graph:
    header = reader.header
    with storage.checked():
        nodes, outer = reader.nodes(header["graph"])
        result = program._from_storable(reader.value(header["result"]), len(nodes.outputs))
        names = [str(k) for k in header["inputs"]]
        if len(names) != nodes.n_given:
            raise ValueError("names")
        return Graph(str(header["name"]), nodes, outer, reader.value(header["key"]), result, names)


def _unpickled(data: bytes) -> Graph:
    return _graph(storage.Reader(data))


def load(path: str | os.PathLike[str]) -> Program | Graph:
    """Read a program or a graph that was saved.

    Nothing in the file is run: it holds data, primitives stand in it by name, and shapes, dtypes
    and places are checked before anything is computed from them.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Program or Graph
        What was saved.  A program holds for arguments of the kinds that were recorded; with others,
        or where Python would have gone another way, it raises `GuardError`.

    Raises
    ------
    ValueError
        If the file is not fastad's, is damaged, or is of a newer format.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        reader = storage.Reader(file.read())
    if reader.header.get("kind") == "graph":
        return _graph(reader)
    if reader.header.get("kind") == "program":
        return program.restored(reader)
    raise ValueError(f"load: the file holds {reader.header.get('kind')!r}, which is unknown")


def record(function: Callable[..., Any], *examples: Any, **named: Any) -> Graph:
    """Run a function once and return the `Graph` of what it computed.

    Parameters
    ----------
    function : callable
        As for `compile`.
    *examples, **named
        Arguments to record it with.  Their shapes and dtypes are the graph's for ever; their values
        decide which way the function goes where it branches.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If what the function does cannot be recorded (it draws random numbers, or takes an object
        whose contents cannot be watched), or a name is given twice.
    TypeError
        If `function` cannot be called.

    Examples
    --------
    >>> import fastad as ad
    >>> graph = ad.record(lambda x, y: ad.sin(x) * y, 1.0, 2.0)
    >>> graph.run({"x": 0.0, "y": 3.0}, fetch=["output", "grad:x"])
    [0.0, 3.0]
    >>> print(graph)
    <Graph of <lambda>: 4 nodes, inputs x, y; outputs output>
    %0 = input  # x
    %1 = input  # y
    %2 = sin(%0)
    %3 = multiply(%2, %1)  # output
    """
    source = function.source if isinstance(function, Program) else function
    if not callable(source):
        raise TypeError(f"record: wanted a function, got {type(source).__name__}")
    replay = program._new_replay(
        function.function if isinstance(function, Program) else function, source)
    key, leaves, spec, tensors = arguments.flatten(replay, examples, named)
    if key not in replay.given_up:
        recording.record(replay, key, examples, named, leaves, spec, tensors)
    if key in replay.given_up:
        raise ValueError(f"record: {replay.given_up[key]}; such a function has no graph")
    plan = replay.plans[key][0]
    graph = Graph(getattr(source, "__name__", type(source).__name__), plan.nodes, plan.outer, key,
                  plan.result, _input_names(source, examples, named))
    graph.seconds = plan.seconds
    return graph


def defined(g: Graph, leaves: list[Any]) -> Graph:
    """The graph with its primitives written in others, where they have definitions.

    It is recorded again with inputs like `leaves`; lines are those of `g`.
    """
    for _ in range(_DEEPEST):
        if not g._nodes.has_definitions():
            break
        g = _defined_once(g, leaves)
    return g


def _defined_once(g: Graph, leaves: list[Any]) -> Graph:
    def function(*inputs: Any) -> Any:
        nodes = g._nodes
        known = arguments.by_node(nodes, inputs, g._outer)
        return nodes.evaluate(known, nodes.outputs, define=True)

    again = record(function, *leaves)
    result = transforms.mapped(g._result, lambda x: again._result[x] if type(x) is int else x)
    return Graph(g.name, again._nodes, again._outer, None, result, g._input_names)


def _input_names(function: Any, examples: tuple[Any, ...], named: dict[str, Any]) -> list[str]:
    """Names of the inputs, in the order in which `flatten` finds them."""
    import inspect  # slow to import, and needed here only

    names = [f"x{k}" for k in range(len(examples))]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    for k, parameter in enumerate(parameters[: len(examples)]):
        if parameter.kind is parameter.VAR_POSITIONAL:
            names[k:] = [f"{parameter.name}[{j}]" for j in range(len(examples) - k)]
            break
        names[k] = parameter.name
    found: list[str] = []
    for prefix, x in [*zip(names, examples), *named.items()]:
        found += _named_slots(prefix, arguments._flat(x, [], None)[1])
    if len(set(found)) < len(found):
        raise ValueError("record: two inputs have one name; rename the function's parameters")
    return found


def _named_slots(prefix: str, tree: Any) -> Iterator[str]:
    if tree is arguments._SLOT:
        yield prefix
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for k, item in zip(tree._fields, tree):
            yield from _named_slots(f"{prefix}.{k}", item)
    elif type(tree) in (tuple, list):
        for k, item in enumerate(tree):
            yield from _named_slots(f"{prefix}[{k}]", item)
    elif type(tree) is dict:
        for key, item in tree.items():
            yield from _named_slots(f"{prefix}[{key!r}]", item)


def _named_outputs(prefix: str, tree: Any, top: bool) -> Iterator[tuple[str, int]]:
    """Names of a result's parts, and the outputs that they are."""
    if type(tree) is int:
        yield prefix, tree
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for k, item in zip(tree._fields, tree):
            yield from _named_outputs(k if top else f"{prefix}.{k}", item, False)
    elif type(tree) in (tuple, list):
        for j, item in enumerate(tree):
            yield from _named_outputs(f"{prefix}[{j}]", item, False)
    elif type(tree) is dict:
        for key, item in tree.items():
            yield from _named_outputs(str(key) if top else f"{prefix}[{key!r}]", item, False)
