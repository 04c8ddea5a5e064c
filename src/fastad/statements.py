"""Functions of NumPy that are one call of a primitive.

Such a function is written as a statement, over tensors, of the primitive, its inputs and its
parameters:

    @states(np.take, rules.GETITEM)
    def take(a, indices, axis=None, out=None, mode="raise"):
        ...
        return GETITEM, (t,), {"index": index, "unique": False}

Its value is NumPy's own; what it costs to state the primitive, such as arrays of indices, is paid
by the sweep that needs it.  The inputs are the operands in order, reshaped at most where all have
one floating dtype and an axis or more.  A statement may return a tensor instead, the result, where
that is not so or a trace is recorded.
"""

from __future__ import annotations

import functools

import numpy as np

from . import _core, rules

_NOWHERE = 1 << 30


def states(function, rule, *, operands=1, without=()):
    """Declare that the decorated statement says which call of `rule` a NumPy function is.

    `operands` is how many arguments in front are inputs; 0 says that the first one holds them, and
    -1 that all behind the first one, a text, are.  Calls with arguments called `without`, besides
    `out` and `dtype`, are stated at once.
    """

    def declare(statement):
        code = statement.__code__
        names = code.co_varnames[: code.co_argcount]
        plain = {
            name: names.index(name) if name in names else _NOWHERE
            for name in ("out", "dtype", *without)
        }
        node = _node(function.__name__, rule, statement, operands)
        statement.__annotations__ = {"return": "Tensor"}    # what a call returns
        stated = _core.Stated(function, statement, node, operands, plain["out"], plain)
        return functools.update_wrapper(stated, statement)

    return declare


def _node(name, rule, statement, operands):
    """Return what a recorded call is: a primitive that asks the statement for its derivatives."""

    def call_of(inputs, args, kwargs):
        if operands < 0:
            return statement(args[0], *inputs, **kwargs)
        given = inputs if operands else (inputs,)
        return statement(*given, *args[operands or 1 :], **kwargs)

    def forward(*xs, args, kwargs, places, part):
        stated, inputs, params = call_of(tuple(map(_core.wrap, xs)), args, kwargs)
        return stated.forward(*map(_core.array, inputs), **params)

    def definition(*xs, args, kwargs, places, part):
        stated, inputs, params = call_of(xs, args, kwargs)
        return rules.record(stated, tuple(inputs), params)

    def vjp(g, y, inputs, needs, args, kwargs, places, part):
        stated, xs, params = call_of(inputs, args, kwargs)
        bars = stated.vjp(g, y, tuple(xs), needs, **params)
        return tuple([
            bar if bar is None or bar.shape == x.shape else _core.reshape(bar, x.shape)
            for bar, x in zip(bars, inputs, strict=True)
        ])

    def jvp(tangents, y, inputs, args, kwargs, places, part):
        stated, xs, params = call_of(inputs, args, kwargs)
        dots = tuple([
            None if dot is None else _core.reshape(dot, x.shape)
            for dot, x in zip(tangents, xs, strict=True)
        ])
        if stated.jvp is not None:
            return stated.jvp(dots, y, tuple(xs), **params)
        dots = tuple([
            _core.wrap(np.zeros(x.shape, x.dtype)) if dot is None else dot
            for dot, x in zip(dots, xs)
        ])
        return rules.record(stated, dots, params)

    node = rules.Primitive()
    node.name = name
    node.forward, node.vjp, node.jvp, node.accumulate = forward, vjp, jvp, None
    node.definition = definition
    node.linear = rule.linear
    node.reads_inputs, node.reads_output = rule.reads_inputs, rule.reads_output
    return node
