"""Making programs: a function is run once on tensors that a trace watches."""

from __future__ import annotations

import os
import time
from typing import Any

from . import _core
from ._core import Replay, Tensor, Trace
from .arguments import (
    _filled,
    _flatten,
    _give_up,
    _plain,
    _prepared,
    _result_tree,
    _warn,
    by_node,
    nested,
)
from .progress import Progress
from .watching import _random_states, _Watch

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
    parts, named = _flatten(_prepared(replay, args), kwargs, [], [])
    if watch.iterator is not None:
        _give_up(replay, key, f"the function may read a {type(watch.iterator).__name__}")
        return eager(replay, args, kwargs)
    trace = Trace()
    shown = Progress(f"recording {replay.hooks.name_of(replay)}", None, "operations")
    _core.tell_nodes(shown.at if shown.may_show() else None)
    began = time.perf_counter()
    try:
        with trace:
            inputs = iter([trace.input(x) for x in leaves])
            given, given_named = _filled(parts, named, inputs)
            result = replay.function(*given, **given_named)
            outputs: list[Tensor] = []
            tree = _result_tree(result, outputs)
            after = _random_states(watch.generators)
            drawn = after != before
            recorded = time.perf_counter()
            shown.at(_core.traced_nodes())
            shown.turn_to(f"compiling {replay.hooks.name_of(replay)}",
                          at_once=_core.traced_nodes() > _many_nodes)
            plan = None if drawn else _core.finish_trace(trace, outputs, replay.hooks)
            compiled = time.perf_counter()
            wanted = trace.reads_gradients()
    except _core.Refused:
        _give_up(replay, key, trace.refused)
        return eager(replay, args, kwargs)
    finally:
        _core.tell_nodes(None)
        shown.close()
    if plan is None:
        if not trace.refused and len(after) != len(before):
            # a module of generators was imported meanwhile, which tells nothing of draws: again
            return record(replay, key, args, kwargs, leaves, spec, tensors)
        _give_up(replay, key, trace.refused or "the function draws random numbers")
        if wanted:
            return eager(replay, args, kwargs)
        return nested(tree, [_plain(t, tensors) for t in outputs], None)
    plan.seconds = recorded - began, compiled - recorded
    replay.depends_on(watch.entries)
    values = [_plain(t, tensors) for t in outputs]
    in_a_row = replay.keep(key, plan, tree, spec)
    if plan.outer_active() and _core.is_grad_enabled():
        return eager(replay, args, kwargs)      # somebody may differentiate the result
    if in_a_row > _most_recordings or (
        in_a_row >= _long_recordings and in_a_row * plan.figures()["instructions"] > _long
    ):
        flipped = _flipped(replay, key, leaves)
        _give_up(
            replay, key, "a guard fails in every call, or what the function finds outside changes: "
            f"choose with where, maximum or clip instead of if{flipped and f' ({flipped})'}"
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
_many_nodes = 4_000_000         # take about a second to compile


def _flipped(replay: Replay, key: Any, leaves: list[Any]) -> str:
    """What Python saw otherwise in the recording before the newest one, and where."""
    for plan in replay.plans.get(key, [])[1:2]:
        try:
            plan.nodes.evaluate(by_node(plan.nodes, leaves, plan.outer), plan.nodes.outputs)
        except _core.GuardError as error:
            return error.seen
    return ""


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


def eager(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the program gives, by the function itself."""
    if replay.argnums:
        return replay.function(*_prepared(replay, args), **kwargs)
    leaves: list[Any] = []
    tensors: list[Tensor] = []
    parts, named = _flatten(args, kwargs, leaves, tensors)
    if tensors:
        return replay.function(*args, **kwargs)
    given, given_named = _filled(parts, named, iter([_core.tensor(x) for x in leaves]))
    result = replay.function(*given, **given_named)
    outputs: list[Tensor] = []
    tree = _result_tree(result, outputs)
    if any(t.requires_grad for t in outputs):
        return result
    return nested(tree, [_plain(t, None) for t in outputs], None)
