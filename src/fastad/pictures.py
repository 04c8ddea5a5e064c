"""Pictures of computation graphs: what was computed, and the way back with local derivatives.

`draw` reads a record (of the tape, of a `Graph` or a `Program`), folds it where it is large, and
gives every box its name, formula and numbers.  `Picture` writes that down as Mermaid, DOT and SVG.
"""

from __future__ import annotations

import bisect
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import _core, arguments, canvas, folding, formulas, labels, modes, transforms
from . import graph as graphs
from ._core import Nodes, Tensor
from .canvas import Edge, Line, Panel, Vertex
from .formulas import Formula
from .graph import Graph
from .program import Program

__all__ = ["Picture", "draw"]

MAX_NODES = 80
_LONGEST = 72           # characters of the formula of a partial
_FEW = 4                # elements of an array that are written out, terms of a sum likewise
_DEEPEST = 16           # calls within calls that a picture knows of
_VARIABLES = 10000      # variables that are looked at
_CONSTANTS = 300        # constant arrays that are compared with variables
_LIBRARIES = {"fastad", "numpy", "scipy"}
_PARTS_OF_OTHERS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


# ---- records -------------------------------------------------------------------------------------


class _Record:
    """Nodes in the order in which they were computed, and what is known of each.

    ``values`` and ``gradients`` are None where no values are known at all; in them None stands for
    a value that was not kept, and for a gradient where no path leads.
    """

    def __init__(
        self, nodes: Nodes, values: list[Tensor | None] | None,
        gradients: list[Tensor | None] | None, names: dict[int, str], scopes: list[folding.Scope]
    ) -> None:
        n = len(nodes)
        self.nodes = nodes
        self.inputs = set(nodes.inputs)
        opcodes = nodes.op.tolist()
        known = {op: _core.opcode_name(op) for op in set(opcodes)}
        self.primitives = [known[op] for op in opcodes]
        for i, call in nodes.calls.items():
            if call[0] is not None:
                self.primitives[i] = call[0].name
        for i in self.inputs:
            self.primitives[i] = "input"
        self.parents = [tuple(nodes.parents(i)) for i in range(n)]
        self.values = values
        self.gradients = gradients
        self.scopes = scopes
        # a second handle of a value is drawn as the value
        self.same = list(range(n))
        for i, what in enumerate(self.primitives):
            if what == "positive":
                self.same[i] = self.same[self.parents[i][0]]
        self.outputs = [self.same[i] for i in nodes.outputs]
        self.names: dict[int, str] = {}
        for i, name in names.items():
            self.names.setdefault(self.same[i], name)
        self.active = [False] * n
        for i, what in enumerate(self.primitives):
            floats = self.kind(i)[1].kind in "fc"
            self.active[i] = floats and what != "constant" and not self._by_numpy(i) and (
                what == "input" or any(self.active[p] for p in self.parents[i]))

    def _by_numpy(self, i: int) -> bool:
        call = self.nodes.calls.get(i)
        return call is not None and isinstance(call[0], _core.ByNumpy)

    def kind(self, i: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self.nodes.arrays.get(i, _NUMBER)

    def is_number(self, i: int) -> bool:
        return not self.kind(i)[0]

    def inlined(self, i: int) -> bool:
        """Whether a node stands in the formulas of others and has no box."""
        return self.primitives[i] == "constant" and i not in self.nodes.arrays

    def boxes(self) -> list[int]:
        """The nodes that are drawn, in order."""
        return [i for i in range(len(self.nodes)) if self.same[i] == i and not self.inlined(i)]

    def value(self, i: int) -> Any:
        """The value of a node as NumPy's, None if it is not known."""
        if self.primitives[i] == "constant" and self.inlined(i):
            return float(self.nodes.number[i])
        t = self.nodes.constants.get(i) if self.values is None else self.values[i]
        return None if t is None else _core.array(t)[()]

    def gradient(self, i: int) -> Any:
        """The gradient by a node; 0 where no path leads."""
        if self.gradients is None:
            return None
        t = self.gradients[i]
        return np.zeros(self.kind(i)[0])[()] if t is None else _core.array(t)[()]


_NUMBER: tuple[tuple[int, ...], np.dtype[Any]] = ((), np.dtype(np.float64))


def _of_tensors(
    outputs: list[Tensor], variables: list[tuple[str, Any]], calls: list[folding.Scope],
) -> _Record:
    """The record of what led to these tensors; names by the variables, the first of each first."""
    tensors = [(name, t) for name, t in variables if isinstance(t, Tensor)]
    nodes, values, gradients, places, index = _core.history(outputs, [t for _, t in tensors])
    names: dict[int, str] = {}
    taken: set[str] = set()
    for (name, _), i in zip(tensors, places):
        if i >= 0 and i not in names and name not in taken:
            names[i] = name
            taken.add(name)
    _name_constants(nodes, names, variables)
    scopes = [
        folding.Scope(s.name, bisect.bisect_left(index, s.start), bisect.bisect_left(index, s.stop))
        for s in calls
    ]
    return _Record(nodes, values, gradients, names, scopes)


def _name_constants(nodes: Nodes, names: dict[int, str], variables: list[tuple[str, Any]]) -> None:
    """Constant arrays are known by the variables that are equal to them."""
    taken = set(names.values())
    arrays: list[tuple[str, Any]] = []
    for name, x in variables:
        if isinstance(x, np.ndarray) and x.size:
            arrays.append((name, x))
        elif isinstance(x, Tensor) and not x.requires_grad and x.ndim:
            arrays.append((name, _core.array(x)))
    for i, constant in list(nodes.constants.items())[:_CONSTANTS]:
        if constant is None:
            continue
        value = _core.array(constant)
        for name, x in arrays[:_CONSTANTS]:
            if x.shape == value.shape and name not in taken and np.array_equal(x, value):
                names[i] = name
                taken.add(name)
                break


def _variables(scope: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays in a scope, also those in lists and dicts, by their names."""
    for name, x in list(scope.items())[:_VARIABLES]:
        if name.startswith("_"):
            continue
        if isinstance(x, (Tensor, np.ndarray)):
            yield name, x
        elif type(x) in (list, tuple) and len(x) <= _VARIABLES:
            for k, item in enumerate(x):
                if isinstance(item, (Tensor, np.ndarray)):
                    yield f"{name}[{k}]", item
        elif type(x) is dict and len(x) <= _VARIABLES:
            for key, item in list(x.items()):
                if isinstance(item, (Tensor, np.ndarray)):
                    yield f"{name}[{key!r}]", item


def _of_function(function: Callable[..., Any], examples: tuple[Any, ...]) -> _Record:
    """Run a function on leaves of its own, and see its variables and the calls that it makes."""
    leaves: list[Any] = []
    args: list[Any] = [np.asarray(x) if transforms._is_numbers(x) else x for x in examples]
    if not any(_is_floating(x) for x in transforms._leaves(args, [])):
        args = [_floated(x) for x in args]
    trees = [arguments._flat(x, leaves, None)[1] for x in args]
    tensors = [_input(x) for x in leaves]
    rest = iter(tensors)
    filled = [arguments._fill(tree, rest) for tree in trees]
    named = list(zip(graphs._input_names(function, tuple(args), {}), tensors))
    seen: list[tuple[int, str, Any]] = []
    calls: list[folding.Scope] = []
    given: list[tuple[str, Tensor]] = []
    _core.hold_tape(True)       # what is computed keeps its place
    try:
        with modes.enable_grad():
            result = _watched(function, filled, seen, calls, given)
        outputs, parts = [], []
        for name, t in _parts("", result):
            if isinstance(t, Tensor) and t.requires_grad:
                outputs.append(t)
                parts.append((name, t))
        if not outputs:
            raise ValueError(
                f"draw: the function returned {type(result).__name__} that does not depend on its "
                "arguments by differentiable operations; wanted a tensor that does")
        variables = [(name, x) for _, name, x in sorted(seen, key=lambda found: found[0])]
        variables = named + given + [p for p in parts if p[0]] + variables
        return _of_tensors(outputs, variables, calls)
    finally:
        _core.hold_tape(False)


def _is_floating(x: Any) -> bool:
    return np.asarray(_core.array(x) if isinstance(x, Tensor) else x).dtype.kind in "fc"


def _floated(x: Any) -> Any:
    """Whole numbers as floats, where nothing else could be differentiated."""
    if type(x) is int:
        return float(x)
    return x.astype(float) if isinstance(x, np.ndarray) and x.dtype.kind in "iu" else x


def _input(x: Any) -> Tensor:
    return transforms._fresh("draw", x) if _is_floating(x) else _core.tensor(x)


def _parts(prefix: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a result, by their names where it has names."""
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from _parts(f"{prefix}[{key!r}]" if prefix else str(key), item)
    elif isinstance(tree, (tuple, list)):
        for k, item in enumerate(tree):
            yield from _parts(f"{prefix}[{k}]" if prefix else "", item)
    else:
        yield prefix, tree


def _watched(
    function: Callable[..., Any], args: list[Any], seen: list[tuple[int, str, Any]],
    calls: list[folding.Scope], given: list[tuple[str, Tensor]]
) -> Any:
    """Call a function and note its variables at the end, its calls, and what `name` names."""
    stack: list[tuple[str, int] | None] = []
    depth = 0

    def watch(frame: Any, event: str, _: Any) -> None:
        nonlocal depth
        if event == "call":
            module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            if module in _LIBRARIES:
                stack.append(None)
            else:
                stack.append((frame.f_code.co_name, _core.tape_stats()["nodes"]))
                depth += 1
        elif event == "return" and stack:
            call = stack.pop()
            if call is not None:
                depth -= 1
                if 0 < depth < _DEEPEST and call[0] not in _PARTS_OF_OTHERS:
                    calls.append(folding.Scope(*call, _core.tape_stats()["nodes"]))
                if len(seen) < _VARIABLES:
                    seen.extend([(depth, k, x) for k, x in _variables(frame.f_locals)])

    before, names = sys.getprofile(), _core.collect_names(given)
    sys.setprofile(watch)
    try:
        return function(*args)
    finally:
        sys.setprofile(before)
        _core.collect_names(names)


def _of_graph(graph: Graph, examples: tuple[Any, ...]) -> _Record:
    """The record of a graph, with values where it is given inputs."""
    nodes = graph._nodes
    names: dict[int, str] = {}
    for name, i in graph.names.items():
        names.setdefault(i, name)
    if not examples:
        return _Record(nodes, None, None, names, [])
    if len(examples) == 1 and isinstance(examples[0], Mapping) and set(examples[0]) >= set(
            graph.inputs):
        leaves = [examples[0][k] for k in graph.inputs]
    else:
        leaves = []
        for x in examples:
            arguments._flat(x, leaves, None)
    if len(leaves) != len(graph.inputs):
        raise ValueError(f"draw: the graph has {len(graph.inputs)} inputs "
                         f"({', '.join(graph.inputs)}), got {len(leaves)}")
    with modes.enable_grad():
        outer = [_input(t.detach()) for t in graph._outer]      # without the hooks of the user
        known = dict(zip(nodes.inputs[nodes.n_given :], outer))
        for k, i, x in zip(graph.inputs, nodes.inputs, leaves):
            known[i] = _input(graph._fed(k, x))
        values = nodes.evaluate(known, list(range(len(nodes))))
        gradients: list[Tensor | None] = [None] * len(nodes)
        y = values[nodes.outputs[0]]
        if y.requires_grad:
            live = [i for i, t in enumerate(values) if t.requires_grad]
            seed = _core.astype(_core.broadcast_to(1.0, y.shape), y.dtype)
            found = _core.run_backward(
                [y], [seed], True, False, [values[i] for i in live], False, True)
            for i, g in zip(live, found):
                gradients[i] = g
    return _Record(nodes, [t.detach() for t in values], gradients, names, [])


def _of_program(replay: Any, examples: tuple[Any, ...]) -> _Record:
    """The record that a program has of such arguments, or the latest that it has."""
    if examples:
        source = replay if isinstance(replay, Program) else replay.function
        return _of_graph(graphs.record(source, *examples), examples)
    recorded = [plan for plans in replay.plans.values() for plan in plans]
    if not recorded:
        raise ValueError("draw: the program has recorded nothing yet; call it first, or draw it "
                         "with example inputs")
    nodes = recorded[-1].nodes
    names = {i: name for name, i in nodes.names.items()}
    try:
        parameters = list(inspect.signature(replay.source).parameters)
    except (AttributeError, TypeError, ValueError):
        parameters = []
    if len(parameters) == nodes.n_given:
        for i, name in zip(nodes.inputs, parameters):
            names.setdefault(i, name)
    return _Record(nodes, None, None, names, [])


# ---- what stands in the boxes --------------------------------------------------------------------


def _kind_text(kind: tuple[tuple[int, ...], np.dtype[Any]]) -> str:
    shape, dtype = kind
    return f"{dtype} {shape}"


def _value_text(x: Any, digits: int) -> str:
    """A value in short: all of few elements, the range of many."""
    if np.ndim(x) == 0:
        return str(bool(x)) if isinstance(x, np.bool_) else formulas.number_text(x, digits)
    if x.size <= _FEW:
        def nested(part: Any) -> str:
            if np.ndim(part) == 0:
                return _value_text(part, digits)
            return "[" + ", ".join([nested(item) for item in part]) + "]"
        return nested(x)
    if x.dtype.kind == "b":
        return f"{int(x.sum())} of {x.size} true"
    if x.dtype.kind == "c":
        return f"{x.size} complex numbers"
    if np.isnan(x).any():
        return f"{int(np.isnan(x).sum())} of {x.size} nan"
    low, high = [formulas.number_text(v, digits) for v in (x.min(), x.max())]
    return f"all {low}" if low == high and x.min() == x.max() else f"{low} … {high}"


class _View:
    """A folded record as boxes and arrows."""

    def __init__(
        self, record: _Record, max_nodes: int | None, depth: int | None, digits: int
    ) -> None:
        self.record = record
        self.digits = digits
        self.order = record.boxes()
        groups = self._folded(max_nodes, depth)
        self.groups = groups
        self.owner: dict[int, int] = {}
        for g, group in enumerate(groups):
            for i in group.members:
                self.owner[i] = g
        self.names = self._named()
        self.target = _target(self.names[self.owner[record.outputs[0]]],
                              *record.kind(record.outputs[0]))
        self.pairs = self._pairs()

    def _folded(self, most: int | None, depth: int | None) -> list[folding.Group]:
        record, order = self.record, self.order
        if depth is not None:
            parents = [tuple([record.same[p] for p in ps]) for ps in record.parents]
            near, far = folding.within(order, parents, record.outputs, depth)
            given = [i for i in far if i in record.inputs]
            far = [i for i in far if i not in record.inputs]
            order = sorted(near + given)
            if far:
                deep = folding.Group(far, "")
                rest = self._grouped(order, None if most is None else max(1, most - 1))
                return sorted([deep, *rest], key=lambda g: g.members[0])
        return self._grouped(order, most)

    def _grouped(self, order: list[int], most: int | None) -> list[folding.Group]:
        record = self.record
        signs = [(record.primitives[i], record.kind(i), record.active[i],
                  tuple([record.inlined(p) for p in record.parents[i]])) for i in order]
        return folding.folded(order, signs, record.inputs, most, record.scopes)

    # names

    def _named(self) -> list[str]:
        """A name for each group: the user's, or one of our own."""
        record = self.record
        names: list[str | None] = []
        for group in self.groups:
            found = [record.names[i] for i in group.members if i in record.names]
            bases = {name.partition("[")[0] for name in found}
            if len(found) > 1 and len(bases) == 1:
                found += bases
            name = "" if group.title is not None or not found else found[-1]
            name = "".join([c if c.isprintable() else "\ufffd" for c in name])
            names.append(None if not name or name in names else name)
        taken = {name for name in names if name}

        def free(wanted: list[str]) -> Iterator[str]:
            yield from [name for name in wanted if name not in taken]

        kinds: dict[str, list[int]] = {"output": [], "input": [], "constant": [], "operation": []}
        for g, group in enumerate(self.groups):
            if names[g] is None and group.title is None:
                kinds[self.kind(g)].append(g)
        wanted = {
            "output": ["y", "output"] + _numbered("y", kinds["output"], taken),
            "input": ["x"] * (len(kinds["input"]) == 1) + _numbered("x", kinds["input"], taken),
            "constant": ["c"] * (len(kinds["constant"]) == 1) + _numbered(
                "c", kinds["constant"], taken),
            "operation": ["u", "v", "w"] * (len(kinds["operation"]) <= 3) + _numbered(
                "v", kinds["operation"], taken),
        }
        for kind, members in kinds.items():
            for g, name in zip(members, free(wanted[kind])):
                names[g] = name
                taken.add(name)
        return [name or "…" for name in names]

    def kind(self, g: int) -> str:
        """What a group is."""
        group, record = self.groups[g], self.record
        if any(i in group.members for i in record.outputs) and group.title is None:
            return "output"
        if group.title is not None:
            return "folded"
        what = record.primitives[group.members[0]]
        return what if what in ("input", "constant") else "operation"

    def _symbol(self, p: int, g: int) -> Formula:
        """How a node is called in the formula of a node of group g."""
        p = self.record.same[p]
        if self.record.inlined(p):
            return float(self.record.nodes.number[p])
        q = self.owner[p]
        return self.names[q] + ("′" if q >= g and self.names[q] != "…" else "")

    def _operands(self, i: int, g: int) -> list[Formula]:
        """The operands of a node; a number that other nodes of the group do not share is a c."""
        symbols = [self._symbol(p, g) for p in self.record.parents[i]]
        members = self.groups[g].members
        if len(members) > 1:
            for k, s in enumerate(symbols):
                others = [self.record.parents[j][k] for j in members] if type(s) is float else []
                if any(self._symbol(p, g) != s for p in others):
                    symbols[k] = "c"
        return symbols

    # boxes

    def _formula(self, i: int, g: int) -> tuple[str, str]:
        """What a node computes, as text and TeX."""
        record = self.record
        what, operands = record.primitives[i], self._operands(i, g)
        if what in formulas.ROWS:
            p = formulas.value_formula(what, operands)
            return formulas.text(p), formulas.tex(p)
        rule, params = record.nodes.calls[i][:2]
        few = operands if len(operands) <= _FEW or "places" in (params or ()) else [
            *operands[: _FEW - 1], "…"]
        if what == "getitem" and len(operands) == 1:
            if isinstance(params, int):     # one element, by its place in the flat array
                shape = record.kind(record.parents[i][0])[0]
                place = tuple([int(k) for k in np.unravel_index(params, shape)])
                index = place[0] if len(place) == 1 else place
            else:
                index = params["index"]
            inside = f"[{labels.index_text(index)}]"
            return (formulas.text(operands[0]) + inside,
                    formulas.tex(operands[0]) + formulas.words_tex(inside))
        return labels.computed(what, rule, params, self._parts(i, g, few))

    def _parts(self, i: int, g: int, operands: list[Formula]) -> labels.Parts:
        """What stands in the templates of a structured primitive."""
        record = self.record
        return labels.Parts(operands, self.names[g],
                            [record.kind(p)[1].kind == "c" for p in record.parents[i]],
                            record.kind(i)[1].kind == "c")

    def _title(self, g: int, formula: bool) -> Line:
        """The first line of a box: the name, the formula, and the value of a number."""
        record, group = self.record, self.groups[g]
        i = group.members[-1]
        name = self.names[g]
        text, tex = name, formulas.name_tex(name)
        if formula and record.primitives[i] not in ("input", "constant"):
            right = self._formula(i, g)
            text, tex = f"{text} = {right[0]}", f"{tex} = {right[1]}"
        if len(group.members) == 1 and record.is_number(i):
            value = record.value(i)
            if value is not None:
                text += f" = {_value_text(value, self.digits)}"
                tex += f" = {formulas.number_tex(value, self.digits)}" if (
                    record.kind(i)[1].kind in "fciu") else f" = {formulas.words_tex(str(value))}"
        return Line(text, tex)

    def _many(self, g: int, of: Callable[[int], Any]) -> str | None:
        """The numbers of a group from its first to its last node."""
        first, last = [of(self.groups[g].members[k]) for k in (0, -1)]
        if first is None or last is None or np.ndim(first) or np.ndim(last):
            return None
        a, b = _value_text(first, self.digits), _value_text(last, self.digits)
        return f"{a} … {b}"

    def forward_vertex(self, g: int) -> Vertex:
        record, group = self.record, self.groups[g]
        if group.title is not None:
            return Vertex(f"f{g}", "folded", self._folded_lines(group))
        i = group.members[-1]
        kind = record.kind(i)
        what = record.primitives[i]
        lines = [self._title(g, True)]
        if len(group.members) > 1:
            what += f" × {len(group.members)}"
        what += "" if kind == _NUMBER else f", {_kind_text(kind)}"
        lines.append(Line(what, small=True))
        value = self._many(g, record.value) if len(group.members) > 1 else None
        if len(group.members) == 1 and not record.is_number(i):
            whole = record.value(i)
            value = None if whole is None else _value_text(whole, self.digits)
        if value is not None:
            lines.append(Line(value, small=True))
        return Vertex(f"f{g}", self._look(g), tuple(lines))

    def _look(self, g: int) -> str:
        kind = self.kind(g)
        return "folded" if kind == "operation" and len(self.groups[g].members) > 1 else kind

    def _folded_lines(self, group: folding.Group) -> tuple[Line, ...]:
        n = len(group.members)
        title = f"{n} operations"
        if group.title:
            title = group.title + (f" × {group.times}" if group.times > 1 else "")
        kinds = folding.summary([self.record.primitives[i] for i in group.members])
        small = f"{n} operations: {kinds}" if group.title else kinds
        return Line(title), Line(small, small=True)

    # arrows

    def _pairs(self) -> dict[tuple[int, int], list[int]]:
        """The arrows: groups of operand and result, how many there are, and one result."""
        pairs: dict[tuple[int, int], list[int]] = {}
        record, owner, same = self.record, self.owner, self.record.same
        for i in self.order:
            g = owner[i]
            for p in set(record.parents[i]):
                q = owner.get(same[p])
                if q is None:
                    continue
                found = pairs.get((q, g))
                if found is None:
                    pairs[q, g] = [1, i]
                else:
                    found[0] += 1
        opaque = {g for g, group in enumerate(self.groups) if group.title is not None}
        return {k: v for k, v in sorted(pairs.items()) if not (k[0] == k[1] and k[0] in opaque)}

    def forward(self) -> Panel:
        vertices = tuple([self.forward_vertex(g) for g in range(len(self.groups))])
        edges = tuple([Edge(f"f{q}", f"f{g}", None, q >= g) for q, g in self.pairs])
        return Panel("forward", "forward", vertices, edges, False)

    def backward(self) -> Panel:
        record = self.record
        if not record.active[record.outputs[0]]:
            raise ValueError("draw: no gradient flows to the inputs; draw it with which='forward'")
        reached = self._reached()
        pairs = {(q, g): v for (q, g), v in self.pairs.items() if q in reached and g in reached}
        terms: dict[int, list[complex | None]] = {}
        edges = []
        ways: dict[int, int] = {}
        for (q, g), (count, i) in pairs.items():
            label, term = self._local(q, g, i, count)
            terms.setdefault(q, []).append(term)
            ways[q] = ways.get(q, 0) + count
            edges.append(Edge(f"b{g}", f"b{q}", label, q >= g))
        vertices = tuple([
            self._backward_vertex(g, terms.get(g, []), ways.get(g, 0)) for g in sorted(reached)])
        return Panel("backward", f"backward: the gradient of {self.target[0]}", vertices,
                     tuple(edges), True)

    def _reached(self) -> set[int]:
        """The groups through which the gradient flows."""
        record = self.record
        found = {record.outputs[0]}
        for i in range(record.outputs[0], -1, -1):
            if i in found:
                found.update([
                    record.same[p] for p in record.parents[i] if record.active[record.same[p]]])
        return {self.owner[i] for i in found if i in self.owner}

    def _backward_vertex(self, g: int, terms: list[complex | None], ways: int) -> Vertex:
        record, group = self.record, self.groups[g]
        if group.title is not None:
            return Vertex(f"b{g}", "folded", self._folded_lines(group))
        i = group.members[-1]
        lines = [self._title(g, False)]
        left = _derivative(self.target, self.names[g])
        gradient = record.gradient(i)
        if len(group.members) > 1:
            lines.append(Line(f"× {len(group.members)}", small=True))
            many = self._many(g, record.gradient)
            if many is not None:
                lines.append(Line(f"{left[0]}: {many}", small=True))
        elif gradient is not None:
            lines.append(self._total(left, gradient, terms, ways))
        if not record.is_number(i):
            lines.append(Line(_kind_text(record.kind(i)), small=True))
        return Vertex(f"b{g}", self._look(g), tuple(lines))

    def _total(
        self, left: tuple[str, str], gradient: Any, terms: list[complex | None], ways: int
    ) -> Line:
        """The gradient by a node as the sum of what the paths contribute."""
        total = _value_text(gradient, self.digits)
        if np.ndim(gradient):
            return Line(f"{left[0]}: {total}" + (f" (sum of {ways} paths)" if ways > 1 else ""))
        text, tex = left
        if 1 < len(terms) <= _FEW and None not in terms:
            for number, add in ((formulas.number_text, 0), (formulas.number_tex, 1)):
                parts = [f"({number(t, self.digits)})" if isinstance(t, complex)
                         else number(t, self.digits) for t in terms]
                joined = parts[0] + "".join([
                    f" - {p[1:]}" if p[0] == "-" else f" + {p}" for p in parts[1:]])
                if add:
                    tex += f" = {joined}"
                else:
                    text += f" = {joined}"
        elif ways > 1:
            return Line(f"{text} = {total} (sum of {ways} paths)")
        return Line(f"{text} = {total}", f"{tex} = {formulas.number_tex(gradient, self.digits)}")

    def _local(self, q: int, g: int, i: int, count: int) -> tuple[Line | None, complex | None]:
        """The derivative along an arrow, and what it contributes where that is one number."""
        record, group = self.record, self.groups[g]
        if group.title is not None or self.groups[q].title is not None:
            return (Line(f"× {count}", small=True) if count > 1 else None), None
        parents = record.parents[i]
        sides = [k for k, p in enumerate(parents)
                 if self.owner.get(record.same[p]) == q and record.active[p]]
        what = record.primitives[i]
        single = len(group.members) == 1 and len(self.groups[q].members) == 1
        row = self._row(i)
        if row is not None:
            try:
                return self._of_row(q, g, i, row, sides, single)
            except formulas.NoFormula:
                pass            # it has no formula, or none that is short enough
        left = _derivative(self.target, self.names[q])
        parts = self._parts(i, g, [self._symbol(p, g) for p in parents])
        shapes = [record.kind(p)[0] for p in parents]
        params = record.nodes.calls[i][1]
        right = [labels.pulled_back(what, params, k, shapes, parts) for k in sides]
        text = " + ".join([t for t, _ in right])
        tex = " + ".join([t for _, t in right])
        return Line(f"{left[0]} = {text}", f"{left[1]} = {tex}", True), None

    def _row(self, i: int) -> str | None:
        """The row of a table whose partials the sweep multiplies with; None where it is none."""
        what = self.record.primitives[i]
        if what == "sign" and self.record.kind(i)[1].kind == "c":
            return None         # not holomorphic
        if what == "sinc_of_complex" and not self.record.nodes.calls[i][1]["order"]:
            what = "sinc"
        return what if formulas.row_of(what) is not None else None

    def _orders(self, i: int) -> list[float]:
        """What stands before the operands of a row: the orders of a special function."""
        call = self.record.nodes.calls.get(i)
        if call is None or not self.record.primitives[i].startswith("special."):
            return []
        return [float(x) for x in call[1].values()]

    def _of_row(
        self, q: int, g: int, i: int, row: str, sides: list[int], single: bool
    ) -> tuple[Line, complex | None]:
        """The partial along an arrow, conjugated where it is complex: what the sweep multiplies
        with."""
        record = self.record
        parents = record.parents[i]
        symbols = self._operands(i, g)
        orders = self._orders(i)
        operands = [*orders, *symbols]
        at = [*orders, *[self._number(p) if single else None for p in parents]]
        y = self._number(i) if single else None
        total: Formula = 0.0
        reasons: list[Formula] = []
        no_reasons: list[Formula] = []
        to_complex = record.kind(i)[1].kind == "c"
        modulus = not to_complex and record.kind(parents[0])[1].kind == "c"
        for k in sides:
            if modulus:         # its gradient, which is not the slope of a real function
                p, why = ("/", symbols[k], formulas.value_formula(row, operands)), no_reasons
            else:
                result = self.names[g] if row.startswith("special.") else None
                p, why = formulas.partial_formula(row, len(orders) + k, operands, at, y, result)
            total = formulas.make("+", total, p)
            reasons += [c for c in why if c not in reasons]
        turned = to_complex and not formulas.is_real(total, self._real(parents, symbols))
        symbol = self.names[q] + ("′" if q >= g else "")
        left = _derivative(self.names[g], symbol)
        if turned:
            total = ("call", "conj", total)
            left = f"conj({left[0]})", rf"\overline{{{left[1]}}}"
        right = formulas.text(total), formulas.tex(total)
        number = self._partial(i, row, sides) if single else None
        if number is not None and modulus:
            number = np.asarray(record.value(parents[0]))[()] * number
        elif number is not None and to_complex:
            number = np.conjugate(number) if turned else np.real(number)
        value = ("", "")
        if number is not None and type(total) is not float:
            text = _value_text(number, self.digits)
            value = f" = {text}", " = " + (formulas.number_tex(number, self.digits)
                                           if not np.ndim(number) else formulas.words_tex(text))
        if len(right[0]) > _LONGEST:
            if not value[0]:
                raise formulas.NoFormula(row)
            right = "", ""      # the number says more
        text = left[0] + (right[0] and f" = {right[0]}") + value[0]
        tex = left[1] + (right[1] and f" = {right[1]}") + value[1]
        if reasons:
            text += f" ({', '.join([formulas.text(c) for c in reasons])})"
            tex += rf"\ ({', '.join([formulas.tex(c) for c in reasons])})"
        p = parents[sides[0]]
        more = ", real part" * (to_complex and record.kind(p)[1].kind != "c")
        more += ", summed" * (record.kind(p)[0] != record.kind(i)[0])
        if more:
            text, tex = text + more, tex + formulas.words_tex(more)
        gradient = record.gradient(i)
        term: complex | None = None
        if number is not None and not np.ndim(number) and not np.ndim(gradient):
            term = (gradient * number).item() if gradient != 0.0 and number != 0.0 else 0.0
            term = term.real if record.kind(p)[1].kind != "c" else term
        return Line(text, tex, True), term

    def _real(self, parents: tuple[int, ...], symbols: list[Formula]) -> list[str]:
        """Names of operands of a complex function that are real: constants that were promoted."""
        found = []
        for p, symbol in zip(parents, symbols):
            value = self.record.value(p) if self.record.primitives[p] == "constant" else None
            if value is not None and not np.any(np.imag(value)):
                found.append(str(symbol))
        return found

    def _number(self, p: int) -> float | None:
        value = self.record.value(self.record.same[p]) if self.record.is_number(p) else None
        return float(value) if value is not None and np.isrealobj(value) else None

    def _partial(self, i: int, row: str, sides: list[int]) -> Any:
        """The value of a local derivative where it has few elements; of a modulus 1 / |z|."""
        record = self.record
        values = [record.value(j) for j in (*record.parents[i], i)]
        if any(v is None for v in values) or np.size(values[-1]) > _FEW:
            return None
        *operands, y = [_core.tensor(v) for v in values]
        if np.iscomplexobj(values[0]) and not np.iscomplexobj(values[-1]):
            size = np.asarray(values[-1])
            return np.divide(1.0, size, out=np.zeros_like(size), where=size != 0.0)[()]
        if row.startswith("special."):
            found = self._special_partials(i, sides, operands, y)
        elif row != record.primitives[i]:       # the row's name for complex numbers
            rule, params = record.nodes.calls[i][:2]
            found = [_core.apply(rule, tuple(operands), {"order": params["order"] + 1})]
        else:
            op = formulas.ROWS[row]["opcode"]
            found = [_core.partial_value(op, k, tuple(operands), y) for k in sides]
        total = np.broadcast_to(_core.array(_core.as_tensor(found[0])), np.shape(values[-1]))[()]
        for t in found[1:]:
            total = total + _core.array(_core.as_tensor(t))[()]
        return total

    def _special_partials(
        self, i: int, sides: list[int], operands: list[Tensor], y: Tensor
    ) -> list[Any]:
        from . import special  # has been imported: the record holds a function of it

        found = vars(special)["ROWS"][self.record.primitives[i].removeprefix("special.")]
        orders = self.record.nodes.calls[i][1].values()
        of_complex = any(t.dtype.kind == "c" for t in operands)
        with modes.no_grad():
            return [found.partial(k, of_complex)(*orders, *operands, y) for k in sides]


def _numbered(letter: str, members: list[int], taken: set[str]) -> list[str]:
    return [f"{letter}{k}" for k in range(1, len(members) + len(taken) + 1)]


_Name = str | tuple[str, str]


def _target(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Name:
    """What the gradient is of, in text and TeX: of several elements the sum, and of complex
    numbers the real part."""
    text, tex = name, formulas.name_tex(name)
    if dtype.kind == "c":
        text, tex = f"Re {text}", rf"\operatorname{{Re}} {tex}"
    return (f"Σ{text}", rf"\Sigma {tex}") if shape else (text, tex)


def _derivative(y: _Name, x: str) -> tuple[str, str]:
    """``∂y/∂x`` in text and TeX."""
    text, tex = y if isinstance(y, tuple) else (y, formulas.name_tex(y))
    return f"∂{text}/∂{x}", rf"\frac{{\partial {tex}}}{{\partial {formulas.name_tex(x)}}}"


# ---- pictures ------------------------------------------------------------------------------------


_WHICH = {"forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}


class Picture:
    """A computation graph to look at; made by `draw`, and shown by itself in a notebook.

    Attributes
    ----------
    panels : tuple
        One for the forward and one for the backward graph, each with ``name``, ``title``,
        ``vertices`` (``id``, ``kind``, ``lines``) and ``edges`` (``tail``, ``head``, ``label``);
        a line has ``text`` and, where it is a formula, ``tex``.
    nodes : int
        How many nodes the record has; large records are folded to fewer boxes.
    """

    def __init__(self, panels: tuple[Panel, ...], nodes: int, target: str) -> None:
        self.panels = panels
        self.nodes = nodes
        self._target = target

    def __repr__(self) -> str:
        boxes = len(self.panels[0].vertices)
        shown = f"{self.nodes} nodes" + (f" in {boxes} boxes" if boxes < self.nodes else "")
        return (f"<Picture of {self._target}: {shown}, "
                f"{' and '.join([p.name for p in self.panels])}>")

    def mermaid(self) -> str:
        """Return the picture in Mermaid's language, which GitHub and notebooks render.

        Formulas are in TeX between ``$$``, which Mermaid renders from version 10.9 on.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If the picture is larger than what Mermaid renders: 500 arrows, 50000 characters.

        Examples
        --------
        >>> import fastad as ad
        >>> print(ad.draw(lambda x: x**2, 3.0, which="backward").mermaid())
        flowchart LR
          subgraph backward["backward: the gradient of y"]
            direction RL
            b1["$$\\begin{gathered}y = 9\\cr \\frac{\\partial y}{\\partial y} = 1\\end{gathered}$$"]
            b0["$$\\begin{gathered}x = 3\\cr \\frac{\\partial y}{\\partial x} = 6\\end{gathered}$$"]
            b1 -->|"$$\\frac{\\partial y}{\\partial x} = 2\\, x = 6$$"| b0
          end
          classDef output fill:#fdf0dc,stroke:#b06a00,color:#1f2430
          classDef input fill:#e6f4ea,stroke:#2f7d4f,color:#1f2430
          class b1 output
          class b0 input
        """
        rows = ["flowchart LR"]
        kinds: dict[str, list[str]] = {}
        for panel in self.panels:
            rows.append(f'  subgraph {panel.name}["{_mermaid_text(panel.title)}"]')
            rows.append(f"    direction {'RL' if panel.leftward else 'LR'}")
            # what comes first decides which arrow of a cycle runs backwards
            order = -1 if panel.leftward else 1
            for vertex in panel.vertices[::order]:
                rows.append(f'    {vertex.id}["{_mermaid_label(vertex.lines)}"]')
                kinds.setdefault(vertex.kind, []).append(vertex.id)
            for edge in panel.edges[::order]:
                arrow = "-.->" if edge.carried else "-->"
                label = f'|"{_mermaid_label((edge.label,))}"|' if edge.label is not None else ""
                rows.append(f"    {edge.tail} {arrow}{label} {edge.head}")
            rows.append("  end")
        if len(self.panels) > 1:
            rows.append("  forward ~~~ backward")
        for kind in kinds:
            fill, stroke = canvas.COLOURS[kind]
            dashes = ",stroke-dasharray:4 3" if kind == "constant" else ""
            rows.append(f"  classDef {kind} fill:{fill},stroke:{stroke},color:#1f2430{dashes}")
        rows += [f"  class {','.join(ids)} {kind}" for kind, ids in kinds.items()]
        arrows, size = sum([len(p.edges) for p in self.panels]), len("\n".join(rows))
        if arrows > _MERMAID_ARROWS or size > _MERMAID_SIZE:
            raise ValueError(
                f"draw: Mermaid renders at most {_MERMAID_ARROWS} arrows and {_MERMAID_SIZE} "
                f"characters, this picture has {arrows} and {size}; draw it with a smaller "
                "max_nodes, or only one of its graphs, or save it as .svg or .dot")
        return "\n".join(rows)

    def dot(self) -> str:
        """Return the picture in Graphviz's language.

        Returns
        -------
        str

        Examples
        --------
        >>> import fastad as ad
        >>> print(ad.draw(lambda x: x**2, 3.0, which="forward").dot())
        digraph {
          rankdir=LR
          node [shape=box, style="rounded,filled", fontname="DejaVu Sans", fontsize=12]
          edge [fontname="DejaVu Sans", fontsize=10]
          label="forward"
          f0 [label="x = 3\\ninput", fillcolor="#e6f4ea", color="#2f7d4f"]
          f1 [label="y = x² = 9\\nsquare", fillcolor="#fdf0dc", color="#b06a00"]
          f0 -> f1
        }
        """
        both = len(self.panels) > 1
        rows = ["digraph {", f"  rankdir={'RL' if self.panels[0].leftward else 'LR'}",
                '  node [shape=box, style="rounded,filled", fontname="DejaVu Sans", fontsize=12]',
                '  edge [fontname="DejaVu Sans", fontsize=10]']
        for panel in self.panels:
            pad = "    " if both else "  "
            if both:
                rows.append(f"  subgraph cluster_{panel.name} {{")
            rows.append(f"{pad}label={_dot_text(panel.title)}")
            for vertex in panel.vertices:
                fill, stroke = canvas.COLOURS[vertex.kind]
                label = _dot_text("\n".join([line.text for line in vertex.lines]))
                rows.append(
                    f'{pad}{vertex.id} [label={label}, fillcolor="{fill}", color="{stroke}"]')
            for edge in panel.edges:
                rows.append(pad + _dot_edge(edge, both and panel.leftward))
            if both:
                rows.append("  }")
        return "\n".join([*rows, "}"])

    def svg(self) -> str:
        """Return the picture as an SVG document; no other program is needed.

        Returns
        -------
        str
        """
        return canvas.svg(list(self.panels), f"Computation graph of {self._target}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file, in the format of its name's ending.

        Parameters
        ----------
        path : str or path
            Ends in ``.svg``, ``.mmd`` (Mermaid), ``.dot``, ``.png`` or ``.pdf``; the last two need
            matplotlib.

        Raises
        ------
        ValueError
            If the ending is another one.
        ImportError
            If matplotlib is needed and not installed.
        OSError
            If the file cannot be written.
        """
        kind = Path(path).suffix.lower()
        texts = {".svg": self.svg, ".mmd": self.mermaid, ".dot": self.dot}
        if kind in texts:
            text = texts[kind]()
            Path(path).write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        elif kind in (".png", ".pdf"):
            canvas.write(list(self.panels), path, kind[1:])
        else:
            raise ValueError(f"draw: cannot save as {kind or os.fspath(path)!r}; wanted a name "
                             "that ends in .svg, .png, .pdf, .mmd or .dot")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.svg()}</div>'


_MERMAID_ARROWS, _MERMAID_SIZE = 499, 50000
_MERMAID = {c: f"#{ord(c)};" for c in '#"<>&`*_~\\[]{}|$'} | {"\n": " "}


def _mermaid_text(text: str) -> str:
    """Plain text in Mermaid, with nothing in it that means something there."""
    return "".join([_MERMAID.get(c, c) for c in text])


def _mermaid_label(lines: tuple[Line, ...]) -> str:
    """Lines in Mermaid: one formula, since there is no line break between two.

    Plain text where none is a formula, or something in it would be read otherwise.
    """
    rows = []
    for line in lines:
        tex = formulas.words_tex(line.text) if line.tex is None else line.tex
        rows.append(rf"\scriptsize {tex}" if line.small and len(lines) > 1 else tex)
    whole = rows[0] if len(rows) == 1 else (
        r"\begin{gathered}" + r"\cr ".join(rows) + r"\end{gathered}")
    plain = all(line.tex is None for line in lines) or r"\n" in whole
    if plain or any(c in whole for c in '#"<>`$;\n'):
        return "<br/>".join([_mermaid_text(line.text) for line in lines])
    return f"$${whole}$$"


def _dot_text(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _dot_edge(edge: Edge, turned: bool) -> str:
    """An arrow; turned round where all boxes stand from left to right."""
    tail, head = (edge.head, edge.tail) if turned else (edge.tail, edge.head)
    options = ["dir=back"] if turned else []
    if edge.label is not None:
        options.append(f"label={_dot_text(edge.label.text)}")
    if edge.carried:
        options += ["style=dashed"]
    return f"{tail} -> {head}" + (f" [{', '.join(options)}]" if options else "")


def draw(
    what: Any, /, *examples: Any, which: str = "both", max_nodes: int | None = MAX_NODES,
    depth: int | None = None, digits: int = 4
) -> Picture:
    """Draw the computation graph of a tensor, a function, a program or a graph.

    The forward graph shows what was computed, the backward graph how the gradient of the first
    result comes about: each arrow leads from a result to an operand and carries the local
    derivative as a formula and as a number, each box the gradient, as the sum of what the paths
    contribute.  Of a result with several elements it is the gradient of their sum.  In formulas of
    structured operations G is the gradient by the result.

    Nothing is changed: no ``.grad``, no history; hooks are not run.

    Parameters
    ----------
    what : Tensor, callable, Program or Graph
        Of a tensor its recorded history is drawn, which ``backward()`` must not have consumed yet.
        A function is called with `examples`.  Of a program and a graph what they recorded is
        drawn, without numbers unless there are `examples`.
    *examples : number, array or tensor, or nested
        Arguments; a graph takes also one dict of values by name.
    which : str
        ``"forward"``, ``"backward"`` or ``"both"``.
    max_nodes : int or None
        About how many boxes there may be.  In larger records what repeats is drawn once and
        counted; where that is not enough calls of functions, and at last stretches of the record,
        become one box each.  None draws everything.
    depth : int, optional
        Draw only what is at most so many steps away from the result, and the rest as one box.
    digits : int
        How many digits numbers have.

    Returns
    -------
    Picture
        With ``mermaid()``, ``dot()``, ``svg()`` and ``save(path)``.  Names are those of the
        variables of the caller and of the function, and those given by `fastad.name`.

    Raises
    ------
    TypeError
        If nothing of this kind can be drawn.
    ValueError
        If a tensor has no history, or an option has a value that it cannot have.
    RuntimeError
        If the history was consumed by ``backward()``.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(3.0, requires_grad=True)
    >>> y = x**3 + x**2
    >>> picture = ad.draw(y)
    >>> picture
    <Picture of y: 4 nodes, forward and backward>
    >>> [edge.label.text for edge in picture.panels[1].edges]
    ['∂u/∂x = 3x² = 27', '∂v/∂x = 2x = 6', '∂y/∂u = 1', '∂y/∂v = 1']
    >>> picture.panels[1].vertices[0].lines[1].text
    '∂y/∂x = 27 + 6 = 33'
    """
    if which not in _WHICH:
        raise ValueError(f"draw: which is {which!r}; wanted 'forward', 'backward' or 'both'")
    for name, x, least in (("max_nodes", max_nodes, 8), ("depth", depth, 1), ("digits", digits, 1)):
        if x is None and name != "digits":
            continue
        if not isinstance(x, (int, np.integer)) or isinstance(x, bool) or x < least:
            raise ValueError(f"draw: {name} is {x!r}; wanted an integer of at least {least}")
    _core.refuse_trace("a picture is drawn") if _core.is_tracing() else None
    if isinstance(what, Tensor):
        if examples:
            raise TypeError("draw: a tensor takes no example inputs")
        frame = sys._getframe(1)
        seen = [*_variables(frame.f_locals)]
        if frame.f_globals is not frame.f_locals:
            seen += _variables(frame.f_globals)
        record = _of_tensors([what], seen, [])
    elif isinstance(what, Graph):
        record = _of_graph(what, examples)
    elif isinstance(what, _core.Replay):
        record = _of_program(what, examples)
    elif callable(what):
        record = _of_function(what, examples)
    else:
        raise TypeError(f"draw: wanted a tensor, a function, a program or a graph, got "
                        f"{type(what).__name__}")
    view = _View(record, max_nodes, depth, digits)
    panels = tuple([getattr(view, name)() for name in _WHICH[which]])
    return Picture(panels, len(view.order), view.names[view.owner[record.outputs[0]]])
