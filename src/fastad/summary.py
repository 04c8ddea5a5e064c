"""What was recorded, and what it takes: programs and graphs in tables, and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import _core, arguments, program, tables
from ._core import Nodes, Replay
from .graph import NUMBER, Graph
from .program import Program
from .tables import Table, size_text, time_text

__all__ = ["Guard", "Part", "Recording", "Summary"]

_KINDS = 5              # of operations that a row of a table names
_GUARDS = 40            # rows of guards in a table
_LONG = 60              # characters of a signature in a table


class Guard(NamedTuple):
    """What Python saw in one place while recording, and what a replay therefore checks.

    Attributes
    ----------
    seen : str
        Of the first one there.
    times : int
        How many there are.
    file, line, function
        None where it is not known.
    """

    seen: str
    times: int
    file: str | None
    line: int | None
    function: str | None


class Recording(NamedTuple):
    """One way through a function, for one signature.

    Attributes
    ----------
    signature : str
        Shapes and dtypes of the arguments, and values of those that are no arrays.
    operations : dict of str to int
        How many of each kind, the most frequent first.
    swept : int
        How many of them a sweep made: derivatives.
    instructions : int or None
        Of the compiled program; None of a graph.
    python : int or None
        Instructions that call NumPy or SciPy, and hold Python's lock.
    memory : int or None
        Bytes of a run: constants, registers and arrays.
    outside : int
        Tensors that the function finds outside, which are read anew in each run.
    guards : list of Guard
    missed : int
        How many runs of it a guard has ended.
    recording_seconds, compiling_seconds : float or None
        None where it was read from a file.
    """

    signature: str
    operations: dict[str, int]
    swept: int
    instructions: int | None
    python: int | None
    memory: int | None
    outside: int
    guards: list[Guard]
    missed: int
    recording_seconds: float | None
    compiling_seconds: float | None


class Part(NamedTuple):
    """A program: the function itself or one of its derivatives.

    Attributes
    ----------
    name : str
    recordings : list of Recording
        Those that are held, the most recently used first for each signature.
    replays : int
        Calls, and rows of `map`, that were replayed.
    recorded : int
        Calls that were recorded, in all.
    ordinary : int
        Calls that were computed as ordinary code.
    differentiated : int
        Calls whose gradient could be asked for, which run as ordinary code or as one node.
    dropped : dict of str to int
        Why recordings were dropped, and how many.
    given_up : dict of str to str
        Signatures for which no program can be made, and why.
    """

    name: str
    recordings: list[Recording]
    replays: int
    recorded: int
    ordinary: int
    differentiated: int
    dropped: dict[str, int]
    given_up: dict[str, str]


class Summary(NamedTuple):
    """What `Program.summary` and `Graph.summary` give; printed, and in notebooks, some tables.

    Attributes
    ----------
    title : str
    parts : list of Part
        The function itself first, then what was made of it.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> p = ad.compile(lambda x: (x * x).sum())
    >>> p.value_and_grad(np.ones(3))
    (3.0, array([2., 2., 2.]))
    >>> found = p.summary()
    >>> found.title, [part.name for part in found.parts]
    ('Program of <lambda>', ['<lambda>', '<lambda>.value_and_grad'])
    >>> found.parts[1].recordings[0].signature
    'x: float64 (3,)'
    """

    title: str
    parts: list[Part]

    def tables(self) -> list[Table]:
        """The same as tables of texts."""
        return [t for t in (_calls(self.parts), _recordings(self.parts), _guards(self.parts),
                            _misfortunes(self.parts)) if t.rows]

    def __str__(self) -> str:
        return "\n\n".join([self.title, *[table.text() for table in self.tables()]])

    def _repr_html_(self) -> str:
        return tables.boxed([f"<div><b>{tables.escape(self.title)}</b></div>",
                             *[table.html() for table in self.tables()]])


# ---- tables --------------------------------------------------------------------------------------


def _calls(parts: list[Part]) -> Table:
    head = ["", "replayed", "recorded", "ordinary code", "with history", "dropped"]
    return Table("calls", head, [
        [p.name, str(p.replays), str(p.recorded), str(p.ordinary), str(p.differentiated),
         str(sum(p.dropped.values()))] for p in parts])


def _recordings(parts: list[Part]) -> Table:
    rows = []
    for part in parts:
        for r in part.recordings:
            kinds = [f"{kind} {n}" for kind, n in list(r.operations.items())[:_KINDS]]
            kinds += ["…"] if len(r.operations) > _KINDS else []
            signature = r.signature
            if len(signature) > _LONG:
                signature = signature[: _LONG - 1] + "…"
            rows.append([
                part.name, signature, str(sum(r.operations.values())),
                _or_nothing(r.instructions, str), _or_nothing(r.memory, size_text),
                str(sum([g.times for g in r.guards])), str(r.missed),
                _or_nothing(r.recording_seconds, time_text),
                _or_nothing(r.compiling_seconds, time_text), ", ".join(kinds)])
    return Table(
        "recordings",
        ["", "arguments", "operations", "instructions", "memory", "guards", "missed", "recorded in",
         "compiled in", "operations by kind"], rows, (0, 1, 9))


def _or_nothing(x: Any, text: Any) -> str:
    return "" if x is None else str(text(x))


def _guards(parts: list[Part]) -> Table:
    rows = []
    for part in parts:
        for r in part.recordings:
            for g in r.guards:
                where = f"{g.file.rpartition('/')[2]}:{g.line}" if g.file else "?"
                seen = g.seen + (f", and {g.times - 1} more" if g.times > 1 else "")
                rows.append([part.name, where, seen])
    if len(rows) > _GUARDS:
        rows = [*rows[:_GUARDS], ["…", "", f"{len(rows) - _GUARDS} more"]]
    return Table("guards: what Python saw", ["", "line", "seen"], rows, (0, 1, 2))


def _misfortunes(parts: list[Part]) -> Table:
    rows = [[p.name, f"{n} dropped", why] for p in parts for why, n in p.dropped.items()]
    rows += [[p.name, f"ordinary code for {s}", why] for p in parts
             for s, why in p.given_up.items()]
    return Table("what was not kept", ["", "what", "why"], rows, (0, 1, 2))


# ---- data ----------------------------------------------------------------------------------------


def _operations(nodes: Nodes) -> dict[str, int]:
    """How many operations of each kind there are, constants and inputs left out."""
    found: Counter[str] = Counter()
    for op, n in zip(*[x.tolist() for x in np.unique(nodes.op, return_counts=True)]):
        name = _core.opcode_name(op)
        if name not in ("constant", "call"):
            found[name] += n
    for rule, _, _ in nodes.calls.values():
        if rule is not None:
            found[rule.name] += 1
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _guards_of(nodes: Nodes) -> list[Guard]:
    """The guards by the places where Python looked."""
    spots = nodes.guard_places or [0] * len(nodes.guards)
    places: dict[int, Any] = {}
    groups: dict[Any, list[int]] = {}
    for k, (guard, spot) in enumerate(zip(nodes.guards, spots)):
        if spot not in places:
            places[spot] = nodes.guard_place(k)
        groups.setdefault((places[spot], places[spot] is None and guard[0]), []).append(k)
    return [
        Guard(nodes.guard_seen(members[0]), len(members), *(place or (None, None, None)))
        for (place, _), members in groups.items()
    ]


def _recording(nodes: Nodes, signature: str, plan: Any, seconds: Any) -> Recording:
    figures = None if plan is None else plan.figures()
    recorded, compiled = seconds or (None, None)
    memory = None if figures is None else (
        8 * (figures["constants"] + figures["registers"]) + figures["arena_bytes"])
    return Recording(
        signature, _operations(nodes), nodes.swept(),
        None if figures is None else figures["instructions"],
        None if figures is None else figures["foreign"], memory,
        len(nodes.inputs) - nodes.n_given, _guards_of(nodes),
        0 if plan is None else plan.misses, recorded, compiled)


def _part(replay: Replay, name: str) -> Part:
    names = _parameters(replay)
    recordings = [
        _recording(plan.nodes, _signature(key, names), plan, plan.seconds)
        for key, plans in replay.plans.items() for plan in plans
    ]
    given_up = {_signature(key, names): why for key, why in replay.given_up.items()}
    return Part(name, recordings, replay.replays, replay.recordings, replay.ordinary,
                replay.differentiated, dict(replay.dropped), given_up)


def _parameters(replay: Replay) -> list[str]:
    """Names of the positional parameters; for what is no derivative of the source none."""
    import inspect  # slow to import, and needed here only

    title = replay.title or ""
    if title.endswith("sweep") or title and not title.startswith(
            (".grad", ".value", ".jac", ".hes", ".der")):
        return []
    try:
        parameters = inspect.signature(replay.source).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _signature(key: Any, names: list[str]) -> str:
    """A key of recordings in words."""
    if key is arguments._OPAQUE:
        return "an object"
    positional, *named = key
    labels = [*names[: len(positional)], *[f"x{k}" for k in range(len(names), len(positional))]]
    return ", ".join([f"{k}: {_kind(x)}" for k, x in (*zip(labels, positional), *named)])


def _kind(key: Any) -> str:
    """What an argument is."""
    if key == "f":
        return "number"
    if isinstance(key[0], str):
        return f"{np.dtype(key[0])} {key[1]}"
    kind, *parts = key
    if kind is dict:
        return "{" + ", ".join([f"{k!r}: {_kind(x)}" for k, x in zip(parts[0], parts[1:])]) + "}"
    if kind is list:
        return f"[{', '.join(map(_kind, parts))}]"
    if isinstance(kind, type) and issubclass(kind, tuple):
        name = "" if kind is tuple else kind.__name__
        return f"{name}({', '.join(map(_kind, parts))}{',' * (len(parts) == 1 and not name)})"
    return repr(parts[0])


def _parts(replay: Replay) -> Iterator[Part]:
    name = program.name_of(replay)
    yield _part(replay, name + (replay.title or ""))
    if isinstance(replay, Program):
        for derived in replay._derived.values():
            if isinstance(derived, Replay) and (derived.plans or derived.recordings
                                                or derived.given_up or derived.replays):
                yield _part(derived, name + (derived.title or ""))
        for call in replay._calls.values():
            for derived in call.derived.values() if call else ():
                yield _part(derived, name + (derived.title or ""))


def summary(what: Replay | Graph) -> Summary:
    """See `Program.summary`."""
    if isinstance(what, Graph):
        kinds = {k: "f" if x == NUMBER else (x.dtype.str, x.shape) for k, x in what.inputs.items()}
        inputs = ", ".join([f"{k}: {_kind(x)}" for k, x in kinds.items()])
        own = Part(what.name, [_recording(what._nodes, inputs, None, what.seconds)], 0, 1, 0, 0, {},
                   {})
        runs = [_part(replay, f"{what.name}{replay.title}") for replay in what._runs.values()]
        used = [part for part in _parts(what.program) if part.recordings or part.given_up]
        return Summary(f"Graph of {what.name}", [own, *runs, *used])
    return Summary(f"Program of {program.name_of(what)}{what.title or ''}", list(_parts(what)))

