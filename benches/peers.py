"""One adapter per library: how its users would write the workloads, in its fastest idiom.

An adapter imports its library when it is made, and not before.  ``record`` and ``gradient`` give a
`Run`: what to time, and how to read the answer of one timed call for the check.  Leaves are made
before timing wherever the library can use them again.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .workloads import Answer, Workload


class Skip(Exception):
    """A library is absent, or does not do what the workload asks; the text says which."""


@dataclass(frozen=True)
class Run:
    """Something to time.

    Attributes
    ----------
    call
        Takes nothing; what is timed.
    read
        Turns what one `call` returned into an `Answer`; not timed.
    how
        The idiom, for the table.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Answer]
    how: str


class Peer:
    """What adapters share; `module` is what to import, `package` what to install."""

    name: str
    module: str
    package: str
    scalars = True
    arrays = True
    records = True
    assigns = False     # runs loops of item assignments, in linear time

    def __init__(self) -> None:
        if not self.installed():
            raise Skip(f"{self.name} is not installed")
        importlib.import_module(self.module)

    @classmethod
    def installed(cls) -> bool:
        """Tell whether the library can be imported, without importing it."""
        return importlib.util.find_spec(cls.module) is not None

    @classmethod
    def version(cls) -> str:
        """Return the installed version."""
        try:
            return importlib.metadata.version(cls.package)
        except importlib.metadata.PackageNotFoundError:
            module = importlib.import_module(cls.module)
            return getattr(module, "__version__", "unknown")

    @classmethod
    def refusal(cls, workload: Workload, mode: str) -> str | None:
        """Say why `workload` cannot be run here in `mode`, or return None."""
        if mode == "rows":
            if cls.rows is Peer.rows:
                return f"{cls.name} is not measured on many rows"
            return None
        if mode == "record" and not cls.records:
            return f"{cls.name} has nothing to record when it is timed"
        if workload.scalar and not cls.scalars:
            return f"{cls.name} is measured on arrays only"
        if not workload.scalar and not cls.arrays:
            return f"{cls.name} has scalars only"
        if workload.assigns and not cls.assigns:
            return f"{cls.name} does not assign to elements in linear time"
        return None

    def record(self, workload: Workload) -> Run:
        """Return the run of `workload` that records for a later sweep and does not sweep."""
        raise NotImplementedError

    def gradient(self, workload: Workload) -> Run:
        """Return the run of `workload` that computes the value and both gradients."""
        raise NotImplementedError

    def rows(self, workload: Workload) -> Run:
        """Return the run that computes value and gradients for each number in the leaves."""
        raise NotImplementedError


class _Plain(Peer):
    """The function alone, without derivatives: what fastad's targets are stated against."""

    xp: Any

    def record(self, workload):
        function, xp, (u, v) = workload.function, self.xp, workload.leaves

        def call():
            return function(xp, u, v)

        return Run(call, Answer, "the function alone")

    gradient = record


class Floats(_Plain):
    """Plain Python floats and ``math``."""

    name, module, package = "floats", "math", "python"
    arrays = False
    xp = math

    @classmethod
    def version(cls):
        return "Python " + sys.version.split()[0]


class NumPy(_Plain):
    """NumPy's functions on ndarrays."""

    name, module, package = "NumPy", "numpy", "numpy"
    assigns = True
    scalars = False
    xp = np


class _Eager(Peer):
    """Libraries where the user calls ``y.backward()`` and finds ``leaf.grad``."""

    xp: Any
    to_numpy: Callable[[Any], Any]

    def leaf(self, value):
        """Return a leaf that collects a gradient."""
        raise NotImplementedError

    def constant(self, value):
        """Return a cotangent as the library wants it."""
        return value

    def record(self, workload):
        function, xp = workload.function, self.xp
        u, v = map(self.leaf, workload.leaves)

        def call():
            return function(xp, u, v)

        return Run(call, lambda y: Answer(self.to_numpy(y)), "eager")

    def gradient(self, workload):
        function, xp = workload.function, self.xp
        u, v = map(self.leaf, workload.leaves)
        cotangent = None if workload.cotangent is None else self.constant(workload.cotangent)

        def call():
            y = function(xp, u, v)
            y.backward(cotangent)
            answer = y, u.grad, v.grad
            u.grad = v.grad = None
            return answer

        return Run(call, lambda answer: Answer(*map(self.to_numpy, answer)), "eager")


class Fastad(_Eager):
    """This project."""

    name, module, package = "fastad", "fastad", "fastad"
    assigns = True

    def __init__(self):
        super().__init__()
        import fastad

        self.xp = fastad

    def leaf(self, value):
        return self.xp.tensor(value, requires_grad=True)

    def constant(self, value):
        return self.xp.tensor(value)

    @staticmethod
    def to_numpy(tensor):
        return tensor.detach().numpy()


class FastadProgram(Peer):
    """This project's programs: recorded beforehand, plain numbers and arrays in and out."""

    name, module, package = "fastad program", "fastad", "fastad"
    records = False

    @classmethod
    def refusal(cls, workload, mode):
        if workload.cotangent is not None:
            return f"{cls.name} is measured on functions that give one number"
        return super().refusal(workload, mode)

    def gradient(self, workload):
        import fastad as ad

        function, (u, v) = workload.function, workload.leaves
        program = ad.compile(lambda u, v: function(ad, u, v)).derived("value_and_grad", (0, 1))
        program(u, v)

        def call():
            return program(u, v)

        return Run(call, lambda answer: Answer(answer[0], *answer[1]), "recorded beforehand")

    def rows(self, workload):
        import fastad as ad

        function, (u, v) = workload.function, (leaf.tolist() for leaf in workload.leaves)
        program = ad.compile(lambda u, v: function(ad, u, v)).derived("value_and_grad", (0, 1))
        program(u[0], v[0])

        def call():
            return [program(*row) for row in zip(u, v)]

        return Run(call, _stacked, "a call for each row")


class FastadMap(Peer):
    """This project's programs over many rows at once, one thread."""

    name, module, package = "fastad map", "fastad", "fastad"

    @classmethod
    def refusal(cls, workload, mode):
        if mode != "rows":
            return f"{cls.name} is measured on many rows"
        return super().refusal(workload, mode)

    def rows(self, workload):
        import fastad as ad

        function, (u, v) = workload.function, workload.leaves
        program = ad.compile(lambda u, v: function(ad, u, v)).derived("value_and_grad", (0, 1))

        def call():
            return program.map(u, v, in_axes=(0, 0))

        call()
        return Run(call, lambda answer: Answer(answer[0], *answer[1]), "recorded beforehand")


def _stacked(answers):
    """Values and gradients of single calls as one answer."""
    return Answer(*np.array([(value, *gradients) for value, gradients in answers]).T)


class PyTorch(_Eager):
    """PyTorch's eager mode, float64 as everybody else here."""

    name, module, package = "PyTorch", "torch", "torch"

    def __init__(self):
        super().__init__()
        import torch

        torch.set_num_threads(1)
        self.xp = torch

    def leaf(self, value):
        return self.xp.tensor(value, dtype=self.xp.float64, requires_grad=True)

    def constant(self, value):
        return self.xp.tensor(value, dtype=self.xp.float64)

    @staticmethod
    def to_numpy(tensor):
        return tensor.detach().numpy()


class MyGrad(_Eager):
    """MyGrad; it clears ``.grad`` by itself when a leaf is used again."""

    name, module, package = "mygrad", "mygrad", "mygrad"

    def __init__(self):
        super().__init__()
        import mygrad

        self.xp = mygrad

    def leaf(self, value):
        return self.xp.tensor(value)

    @staticmethod
    def to_numpy(tensor):
        return np.array(tensor)

    def gradient(self, workload):
        function, xp = workload.function, self.xp
        u, v = map(self.leaf, workload.leaves)
        cotangent = workload.cotangent

        def call():
            y = function(xp, u, v)
            y.backward(cotangent)
            return y, u.grad, v.grad

        return Run(call, lambda answer: Answer(*map(self.to_numpy, answer)), "eager")


class Micrograd(_Eager):
    """micrograd: scalars, with sums, products, powers and relu."""

    name, module, package = "micrograd", "micrograd", "micrograd"
    arrays = False
    xp = None

    def __init__(self):
        super().__init__()
        from micrograd.engine import Value

        self.leaf = Value
        sys.setrecursionlimit(10**6)  # its sort of the graph calls itself once per node

    @classmethod
    def refusal(cls, workload, mode):
        if workload.scalar and workload.needs:
            return f"{cls.name} has no {' or '.join(workload.needs)}"
        return super().refusal(workload, mode)

    @staticmethod
    def to_numpy(value):
        return getattr(value, "data", value)

    def gradient(self, workload):
        function = workload.function
        u, v = map(self.leaf, workload.leaves)

        def call():
            y = function(None, u, v)
            y.backward()
            answer = y, u.grad, v.grad
            u.grad = v.grad = 0
            return answer

        return Run(call, lambda answer: Answer(*map(self.to_numpy, answer)), "eager")


class Xad(Peer):
    """XAD's adjoint tape; its inputs must be registered anew for every recording."""

    name, module, package = "xad", "xad", "xad"
    arrays = False

    def __init__(self):
        super().__init__()
        import xad.adj_1st
        import xad.math

        self.xp, self.real = xad.math, xad.adj_1st.Real
        self.tape = xad.adj_1st.Tape()
        self.tape.activate()

    def _recorder(self, workload):
        function, xp, real, tape = workload.function, self.xp, self.real, self.tape
        first, second = workload.leaves

        def record():
            tape.clearAll()
            u, v = real(first), real(second)
            tape.registerInput(u)
            tape.registerInput(v)
            tape.newRecording()
            return function(xp, u, v), u, v

        return record

    def record(self, workload):
        return Run(self._recorder(workload), lambda answer: Answer(answer[0].getValue()),
                   "one tape, cleared each time")

    def gradient(self, workload):
        tape, record = self.tape, self._recorder(workload)

        def call():
            y, u, v = record()
            tape.registerOutput(y)
            y.derivative = 1.0
            tape.computeAdjoints()
            return y, u.derivative, v.derivative

        return Run(call, lambda answer: Answer(answer[0].getValue(), *answer[1:]),
                   "one tape, cleared each time")


class Autograd(Peer):
    """HIPS autograd: it records inside its transforms only."""

    name, module, package = "autograd", "autograd", "autograd"

    def _vjp(self, workload):
        import autograd

        function, xp = workload.function, autograd.numpy
        return autograd.make_vjp(lambda u, v: function(xp, u, v), argnum=(0, 1))

    def record(self, workload):
        make_vjp, (u, v) = self._vjp(workload), workload.leaves

        def call():
            return make_vjp(u, v)

        return Run(call, lambda answer: Answer(answer[1]), "make_vjp")

    def gradient(self, workload):
        make_vjp, (u, v) = self._vjp(workload), workload.leaves
        cotangent = 1.0 if workload.cotangent is None else workload.cotangent

        def call():
            pull, y = make_vjp(u, v)
            return y, pull(cotangent)

        return Run(call, lambda answer: Answer(answer[0], *answer[1]), "make_vjp, both arguments")


    @classmethod
    def refusal(cls, workload, mode):
        if mode == "rows" and len(workload.leaves[0]) > 1000:
            return f"{cls.name} would take minutes"
        return super().refusal(workload, mode)

    def rows(self, workload):
        import autograd

        function, xp = workload.function, autograd.numpy
        u, v = (leaf.tolist() for leaf in workload.leaves)
        pull = autograd.differential_operators.make_vjp
        both = pull(lambda u, v: function(xp, u, v), argnum=(0, 1))

        def call():
            return [(y, back(1.0)) for back, y in map(both, u, v)]

        return Run(call, _stacked, "make_vjp for each row")


class Jax(Peer):
    """JAX in float64 on one CPU thread."""

    name, module, package = "JAX", "jax", "jax"

    def __init__(self):
        super().__init__()
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax

    def record(self, workload):
        jax, function, jnp = self.jax, workload.function, self.jax.numpy
        u, v = map(jnp.asarray, workload.leaves)

        def call():
            return jax.vjp(lambda u, v: function(jnp, u, v), u, v)

        return Run(call, lambda answer: Answer(np.asarray(answer[0])), "jax.vjp, not compiled")

    def gradient(self, workload):
        jax, function, jnp = self.jax, workload.function, self.jax.numpy
        u, v = map(jnp.asarray, workload.leaves)
        cotangent = jnp.asarray(1.0 if workload.cotangent is None else workload.cotangent)

        @jax.jit
        def value_and_gradients(u, v, cotangent):
            y, pull = jax.vjp(lambda u, v: function(jnp, u, v), u, v)
            return y, *pull(cotangent)

        def call():
            return jax.block_until_ready(value_and_gradients(u, v, cotangent))

        return Run(call, lambda answer: Answer(*map(np.asarray, answer)),
                   "jit, compiled beforehand")

    def rows(self, workload):
        jax, function, jnp = self.jax, workload.function, self.jax.numpy
        u, v = map(jnp.asarray, workload.leaves)
        both = jax.value_and_grad(lambda u, v: function(jnp, u, v), (0, 1))
        mapped = jax.jit(jax.vmap(both))

        def call():
            return jax.block_until_ready(mapped(u, v))

        return Run(call, lambda answer: Answer(np.asarray(answer[0]), *map(np.asarray, answer[1])),
                   "jit of vmap, compiled beforehand")


class Casadi(Peer):
    """CasADi as an eager user would: the expression and its Function are built every time."""

    name, module, package = "casadi", "casadi", "casadi"

    @classmethod
    def refusal(cls, workload, mode):
        if {"amax", "matmul"} & set(workload.needs):
            return f"{cls.name} has no NumPy's amax and matmul"
        return super().refusal(workload, mode)

    def __init__(self):
        super().__init__()
        import casadi

        self.casadi = casadi
        # The workloads say .sum(), which CasADi's symbols lack.
        casadi.SX.sum = casadi.MX.sum = casadi.sum1

    def _symbols(self, workload):
        shape = np.shape(workload.leaves[0])
        # Element by element is its faster way for small arrays, whole arrays for the rest.
        symbol = self.casadi.SX if math.prod(shape) < 10 else self.casadi.MX
        return [symbol.sym(name, *shape) for name in "uvg"]

    def _build(self, workload, symbols):
        casadi, (u, v, g) = self.casadi, symbols
        y = workload.function(casadi, u, v)
        if workload.cotangent is None:
            return casadi.Function("f", [u, v], [y, casadi.gradient(y, u), casadi.gradient(y, v)])
        return casadi.Function(
            "f", [u, v, g],
            [y, casadi.jtimes(y, u, g, True), casadi.jtimes(y, v, g, True)],
        )

    def _caller(self, workload, function):
        """Return a closure that runs `function` on buffers, its fastest call, and the results."""
        shapes = [np.shape(workload.leaves[0])] * 2
        outputs = [() if workload.cotangent is None else shapes[0], *shapes]
        arguments = [*workload.leaves, workload.cotangent][: function.n_in()]
        # Column-major, and kept alive here: the buffer holds addresses only.
        arguments = [np.array(a, dtype=np.float64).ravel(order="F") for a in arguments]
        results = [np.zeros(math.prod(shape)) for shape in outputs]
        buffer, evaluate = function.buffer()
        for i, argument in enumerate(arguments):
            buffer.set_arg(i, memoryview(argument))
        for i, result in enumerate(results):
            buffer.set_res(i, memoryview(result))

        def call():
            evaluate()
            return buffer, arguments, results

        def read(answer):
            return Answer(*(r.reshape(shape, order="F")
                            for r, shape in zip(answer[2], outputs, strict=True)))

        return call, read

    def record(self, workload):
        function, casadi = workload.function, self.casadi
        symbols = self._symbols(workload)
        u, v = symbols[:2]

        def call():
            return function(casadi, u, v)

        def read(y):
            values = casadi.Function("f", [u, v], [y])(*workload.leaves)
            return Answer(float(values))

        return Run(call, read, "expression rebuilt")

    def gradient(self, workload):
        symbols = self._symbols(workload)

        def call():
            evaluate, read = self._caller(workload, self._build(workload, symbols))
            return read, evaluate()

        return Run(call, lambda answer: answer[0](answer[1]), "Function rebuilt")


class CasadiPrebuilt(Casadi):
    """CasADi as its users do: the Function built once, beforehand."""

    name = "casadi Function"
    records = False

    def gradient(self, workload):
        call, read = self._caller(workload, self._build(workload, self._symbols(workload)))
        return Run(call, read, "Function built beforehand, on buffers")


BASELINES = (Floats, NumPy)
PEERS = (PyTorch, Autograd, MyGrad, Micrograd, Xad, Casadi, CasadiPrebuilt, Jax)
OURS = (Fastad, FastadProgram, FastadMap)
ADAPTERS = {adapter.name: adapter for adapter in (*OURS, *BASELINES, *PEERS)}
