"""Random programs: what a program gives is what the function gives, bit for bit.

The functions are drawn from the grammar below.  FASTAD_RANDOM_PROGRAMS is the number of calls
that are compared; FASTAD_RANDOM_SEED the first seed.  A failure shows the seed, the function, cut
down as far as it still fails, and the arguments.
"""

import gc
import math
import os
import pathlib
import random
import re
import warnings

import numpy as np
import pytest

import fastad as ad
from fastad import _core

CALLS = int(os.environ.get("FASTAD_RANDOM_PROGRAMS", "3000"))
SEED = int(os.environ.get("FASTAD_RANDOM_SEED", "1"))
NAN, INF = math.nan, math.inf
ROWS = [row for row in _core.table() if row["name"] != "where"]

# ---- the grammar -----------------------------------------------------------------------------

# `name` stands for one of the lines below it.  Terminals are drawn by Writer: `tensor`, `number`
# (one axis less than none), `vector`, `matrix` are what the function has computed so far.
GRAMMAR = {
    "statement": """
        NEW = expr
        NEW = expr
        NEW = expr
        NEW = expr
        NEW = expr
        NEW = expr
        NEW = tensor op expr
        if cond:|    NEW = expr|else:|    NEW = expr
        if cond:|    NEW = expr|elif cond:|    NEW = expr|else:|    NEW = expr
        NEW = scalar|if cond:|    NEW = scalar
        NEW = expr if cond else expr
        NEW, n = scalar, 0|while abs(NEW) > positive and n < 6:|    NEW, n = NEW * 0.5 + small, n + 1
        NEW, n = scalar, 0|while n < 5:|    NEW, n = NEW * small + scalar, n + 1|    if NEW > const:|        break
        NEW = expr|for n in range(int(abs(safe))):|    NEW = NEW * small + n
        NEW = expr|for n in range(len(str(round(float(safe))))):|    NEW = NEW + n
        NEW = 0.0|for e in vector:|    if e > const:|        NEW = NEW + e * scalar|NEW = NEW + number
        NEW = 0.0|for e in vector:|    if not e < const:|        continue|    NEW += ad.sin(e)|NEW = NEW + number
        NEW = const|for n, e in enumerate(vector):|    NEW = e * NEW + n|NEW = NEW + number
        NEW = scalar|for n in range(3):|    NEW = NEW * NEW if cond else NEW - const
        with ad.no_grad():|    NEW = expr
        with ad.no_grad():|    NEW = expr|    NEW = NEW op expr
        with ad.no_grad():|    with ad.enable_grad():|        NEW = expr
        NEW = expr|NEW += const
        NEW = expr|NEW *= expr
        NEW = +tensor|NEW -= expr|NEW /= positive
        NEW = vector * 1.0|NEW[1:] = scalar
        NEW = vector * 1.0|NEW[::-1] *= tensor
        NEW = vector * 1.0|NEW[[0, -1, 0]] = scalar
        NEW = vector * 1.0|NEW[np.array([1, 0])] += number
        NEW = vector * 1.0|NEW[vector > const] = scalar
        NEW = matrix * 1.0|NEW[:, 0] = scalar
        NEW = matrix * 1.0|NEW[0] += vector
        NEW = matrix * 1.0|NEW[..., -1] = NEW[..., 0] * scalar
        NEW = matrix * 1.0|NEW[[0, 0]] = matrix[-1]
        NEW = ad.zeros((2, 3))|NEW[1] = tensor|NEW[:, 1:] -= scalar
        NEW = tensor * 1.0|part = NEW[..., ::2]|part *= scalar
        NEW = ad.grad(lambda t: (expr * t).sum())(tensor)
        NEW = ad.grad(lambda t: ad.sum(ad.sin(t) op tensor))(tensor)
        NEW = ad.grad(lambda t: scalar * t if t > const else t * t)(scalar)
        NEW = ad.value_and_grad(lambda t: (t * t * tensor).sum())(tensor)[0]
        NEW = ad.grad(ad.grad(lambda t: t * t * t * scalar))(scalar)
        NEW = ad.grad(lambda t: (t * ad.grad(lambda q: (q * q * t).sum())(tensor)).sum())(tensor)
        NEW = ad.jvp(lambda t: ad.sin(t) * tensor, (tensor,), (tensor,))[1]
        NEW = ad.vjp(lambda t: ad.cos(t) * scalar, tensor)[1](tensor)[0]
        NEW = ad.jacobian(lambda t: ad.sin(t) * t)(vector).sum()
        t = tensor.detach().requires_grad_()|(NEW,) = ad.autograd.grad((t * t * expr).sum(), [t], retain_graph=True)
        try:|    NEW = tensor @ tensor|except (ValueError, TypeError):|    NEW = tensor
        NEW = helper(scalar)
        NEW = helper(*sorted([scalar, scalar], key=float))
        NEW = sorted([scalar, scalar, scalar])[index]
        NEW = [e * e for e in vector][0]
        NEW = {"p": tensor, "q": [expr, 2.0]}["p"]
        p, q = scalar, scalar|if p > q:|    p, q = q, p|NEW = q - p
    """,
    "expr": """
        tensor
        row
        row
        row
        row
        row
        tensor op tensor
        tensor op tensor
        tensor op const
        const op tensor
        tensor op array
        array op tensor
        -tensor
        abs(tensor)
        tensor ** power
        safe_base ** tensor
        tensor // positive
        tensor % positive
        positive / (1.5 + ad.square(tensor))
        lib.sum(tensor)
        lib.sum(matrix, axis=axis)
        tensor.sum(axis=0)
        tensor.mean()
        lib.mean(matrix, axis=axis, keepdims=True)
        lib.prod(tensor)
        lib.prod(matrix, axis=axis)
        lib.max(tensor)
        lib.min(matrix, axis=axis)
        matrix.max(axis=axis)
        lib.var(tensor)
        lib.std(matrix, axis=axis)
        lib.cumsum(vector)
        lib.cumsum(matrix, axis=axis)
        lib.sort(vector)
        lib.sort(matrix, axis=axis)
        lib.diff(vector)
        lib.flip(tensor)
        lib.roll(vector, index)
        lib.tile(vector, 2)
        lib.repeat(vector, 2)
        lib.pad(vector, 1)
        lib.tril(matrix)
        lib.diag(vector)
        lib.diagonal(matrix)
        lib.trace(matrix)
        lib.outer(vector, vector)
        lib.matmul(matrix, matrix.T)
        matrix.T @ matrix
        matrix @ vector
        vector @ vector
        vector @ vector.astype(float)
        lib.dot(matrix, array)
        lib.tensordot(matrix, matrix, axes=([0], [0]))
        lib.einsum("ij,kj->ik", matrix, matrix)
        ad.linalg.norm(tensor)
        lib.reshape(tensor, (-1,))
        tensor.reshape(-1, 1)
        matrix.T
        lib.transpose(tensor)
        lib.expand_dims(tensor, 0)
        lib.squeeze(tensor)
        lib.broadcast_to(tensor, (2, 3))
        lib.broadcast_to(number, (2, 2))
        lib.stack([tensor, tensor])
        lib.stack([scalar, scalar, scalar])
        lib.concatenate([vector, vector])
        lib.concatenate([vector, array.ravel()])
        lib.concatenate([matrix, matrix], axis=axis)
        lib.hstack([scalar, vector])
        vector[0]
        vector[-1]
        vector[::2]
        vector[::-1]
        vector[1:]
        vector[None, :]
        vector[[0, 1, 0]]
        matrix[0]
        matrix[:, 0]
        matrix[:, ::-1]
        matrix[..., -1]
        matrix[0, 1]
        vector[ad.argmax(vector)]
        vector[int(lib.argmin(vector))]
        vector[np.argsort(vector)]
        vector[lib.argsort(vector)[0]]
        vector[int(safe) % 2]
        tensor[tensor > const]
        tensor[tensor cmp const].sum()
        vector[np.nonzero(vector > const)[0]].sum()
        lib.where(tensor cmp const, tensor, tensor)
        lib.where(tensor cmp tensor, tensor, const)
        lib.where(tensor > 0, ad.sqrt(tensor), 0.0)
        lib.where(array > 0, tensor, const)
        lib.where((tensor cmp const) & (tensor cmp const), tensor, 0.0)
        lib.where(np.bitwise_or(tensor > const, ~(tensor cmp tensor)), const, tensor)
        lib.where(lib.logical_xor(tensor cmp array, tensor), tensor, const)
        lib.where(lib.isfinite(tensor) & lib.logical_not(tensor), const, tensor)
        lib.where(array cmp tensor, tensor, const)
        (lib.isnan(tensor) ^ lib.signbit(tensor)) * tensor
        lib.matmul(lib.stack([matrix, matrix]), matrix.T)
        lib.matmul(matrix, lib.stack([matrix.T, matrix.T]))
        lib.matmul(lib.stack([matrix, matrix]), vector)
        lib.matmul(lib.stack([matrix, matrix])[:, None], lib.stack([matrix.T, matrix.T, matrix.T]))
        (tensor cmp const) * tensor
        (tensor cmp tensor).sum() * scalar
        (tensor > const).astype(float) * tensor
        lib.clip(tensor, -1.0, 1.0)
        lib.maximum(tensor, const)
        lib.minimum(tensor, tensor)
        np.sign(tensor) * tensor
        lib.floor(tensor).astype(int) + tensor
        lib.count_nonzero(tensor > const) * tensor
        lib.argmax(vector) + tensor
        lib.searchsorted(np.array([-1.0, 0.0, 1.0]), tensor) * 0.5
        lib.round(tensor, 1)
        tensor.detach() * tensor
        tensor.detach()
        tensor.copy() + 1
        tensor.astype(np.float32)
        tensor.astype(np.float32).astype(float)
        scalar * float(number > const)
        tensor * float(coarse)
        tensor + int(coarse)
        tensor * bool(number > const)
        tensor * coarse.item()
        tensor + len(tensor[tensor > const])
        tensor * tensor.size + tensor.ndim
        max(scalar, scalar)
        min(scalar, const)
        sum(vector)
        lib.isnan(tensor) + tensor
        lib.isfinite(tensor) * 1.0
        ad.zeros_like(tensor) + tensor
        lib.ones_like(tensor) * const
        ad.zeros((2, 3)) + scalar
        W op tensor
        W * W
        V * tensor
        V - tensor
        tensor * C
        C.sum() * tensor
        C[0] * tensor
        L[0] * tensor
        tensor + P["k"]
        tensor * P["c"]
        tensor * B.rate
        np.asarray(C) * tensor
        ad.tensor(const) * tensor
        ad.tensor(C) * tensor
        lib.linspace(0.0, 1.0, 3) * tensor
    """,
    "cond": """
        number cmp const
        number cmp const
        number cmp const
        number cmp number
        scalar cmp scalar
        number cmp L[0]
        number cmp C[0]
        number cmp W_number
        const cmp number
        number > const and number < number
        number > const or number cmp const
        not number cmp const
        not coarse
        -1 < number < 1
        coarse
        coarse == 1
        coarse != coarse
        bool(number > const)
        bool(coarse)
        (tensor > const).any()
        ((tensor > const) & (tensor cmp tensor)).any()
        lib.all(tensor > const)
        lib.all(tensor cmp const)
        ad.any(tensor > tensor)
        lib.isnan(number)
        np.isnan(tensor).any()
        float(coarse) == 1.0
        int(coarse) > 0
        coarse in (0.0, 1.0)
        math.floor(coarse) == 0
        lib.argmax(vector) == 0
        vector[0] > vector[-1]
        len(tensor[tensor > const]) > 1
        abs(number) < positive
        isinstance(number, float) or number > const
        lib.allclose(coarse, 1.0)
        P["k"] > number
        tensor.shape == (3,)
    """,
    "scalar": """
        number
        number
        number
        tensor.sum()
        lib.mean(tensor)
        tensor.ravel()[0]
        lib.sin(number)
        number op number
        number op const
        number * number + number
        number * const + const
        number - number * number
    """,
    "coarse": """
        lib.sign(number)
        lib.rint(number)
        lib.floor(number)
    """,
    "op": "+\n-\n*\n/\n*\n+",
    "cmp": ">\n<\n>=\n<=\n==\n!=",
    "lib": "ad\nnp",
    "axis": "0\n1\n-1",
    "index": "0\n1\n-1",
    "power": "2\n3\n2.0\n0.5\n-1\n0\n1\n1.5",
    "const": """
        draw
        draw
        draw
        0
        0.0
        -0.0
        1
        1.0
        -1
        2
        0.5
        np.float64(0.25)
        np.float32(0.5)
        True
        math.inf
    """,
    "small": "0.5\n0.1\n-0.3\n0.7\nL[1] * 0.1",
    "positive": "0.5\n1.0\n2\n3.7\n0.25",
    "array": """
        C
        C
        np.array([1.0, -2.0, 0.5])
        np.array([[1.0], [0.0]])
        np.array([1, 2, 3])
        np.array(0.75)
        np.float32([1.5, -0.5, 2.0])
        np.arange(3)
        np.array([True, False, True])
    """,
    "safe": "(1.5 + 1.5 * ad.sin(number))",
    "safe_base": "(1.5 + ad.cos(tensor))",
    "W_number": "W.sum()",
    "result": """
        {"p": tensor, "q": (tensor, [tensor, 3.0])}
        (tensor, tensor, scalar)
        [tensor, {"p": scalar, "q": cond}]
        (tensor, tensor > const, lib.argmax(tensor), "text", None)
        (x, tensor, tensor, x)
        Pair(tensor, (scalar,))
        tensor
        tensor
        lib.argsort(vector)
        (float(coarse), tensor, np.array([1.0, 2.0]))
    """,
    "total": """
        scalar
        scalar + (tensor * tensor).sum()
        tensor.sum() + ad.sin(tensor).sum() * 0.5
        ad.sum(tensor * tensor) - lib.mean(tensor) + number
        (tensor * tensor).sum() if cond else (tensor * tensor).mean()
    """,
}
RULES = {
    name: [line.strip().replace("|", "\n") for line in text.strip().splitlines()]
    for name, text in GRAMMAR.items()
}
WORD = re.compile(r"\b(" + "|".join([*RULES, "tensor", "number", "vector", "matrix", "row", "draw"])
                  + r")\b(?!\(|\s=|=)")

DERIVATIVE = re.compile(r"ad\.(grad|value_and_grad|jvp|vjp|jacobian|autograd)\b")

HEAD = '''
def make(W, V, C, L, P, B, helper):
    def f(x, y):
        y = ad.asarray(y)
'''
OWN = "        x, y = +x, +y\n"           # for statements that change them in place


class Pair(tuple):
    """A subclass of tuple is handed through like any object."""

    def __new__(cls, *items):
        return tuple(items)


class Box:
    """An object with an attribute."""

    def __init__(self, rate):
        self.rate = rate


class State:
    """What functions find outside: tensors, arrays, a list, a dict and an attribute."""

    def __init__(self, r):
        self.r = r
        self.names = {
            "W": ad.tensor([r.uniform(-2, 2) for _ in range(3)], requires_grad=r.random() < 0.1),
            "V": ad.tensor(r.uniform(-2, 2)),
            "C": np.array([r.uniform(-2, 2) for _ in range(3)]),
            "L": [r.uniform(-2, 2), 1.0, 3],
            "P": {"k": r.uniform(-2, 2), "c": np.array([1.0, 0.5, r.uniform(-2, 2)])},
            "B": Box(r.uniform(0.0, 2.0)),
        }

        box = self.names["B"]

        def helper(t, more=self.names["C"], *, bias=self.names["P"]["c"]):
            return ad.sin(t) * more[0] + bias[1] if t > box.rate - 1.0 else t * t

        self.names["helper"] = helper

    def change(self):
        """Change one of them in place."""
        r, names = self.r, self.names
        k = r.randrange(7)
        with ad.no_grad():
            if k == 0:
                names["W"] += r.uniform(-1, 1)
            elif k == 1:
                names["V"] *= r.uniform(-1, 1)
            elif k == 2:
                names["C"][r.randrange(3)] = r.uniform(-2, 2)
            elif k == 3:
                names["L"][r.randrange(2)] = r.uniform(-2, 2)
            elif k == 4:
                names["P"]["k"] = r.uniform(-2, 2)
            elif k == 5:
                names["P"]["c"][r.randrange(3)] = r.uniform(-2, 2)
            else:
                names["B"].rate = r.uniform(0.0, 2.0)


class Writer:
    """Draws a function from the grammar, statement by statement; each is tried as it is drawn."""

    def __init__(self, seed):
        self.r = r = random.Random(seed)
        self.state = State(r)
        self.shapes = [r.choice([(), (), (3,), (3,), (2, 3), (2, 2), (4,), (1, 3)]) for _ in "xy"]
        self.in_float32 = r.random() < 0.15
        self.scope = {"ad": ad, "np": np, "math": math, "Pair": Pair, **self.state.names}
        self.dtypes = [np.float32 if self.in_float32 and r.random() < 0.7 else float for _ in "xy"]
        args = self.arguments()
        self.scope["x"], self.scope["y"] = map(ad.tensor, args)
        self.made = ["x", "y"]
        self.body = []
        for _ in range(r.randrange(2, 9)):
            self.add()
        self.is_number = r.random() < 0.6
        result = self.drawn("total" if self.is_number else "result")
        if self.is_number and r.random() < 0.7:
            result += "".join(f" + ({name} * 0.5).sum()" for name in self.made[-2:])
        self.body.append(f"return {result}")

    def draw_array(self, shape, dtype):
        r = self.r
        kind = r.random()
        n = math.prod(shape)
        if kind < 0.75:
            values = [r.gauss(0.0, 1.3) for _ in range(n)]
        elif kind < 0.95:
            values = [r.choice([-2.0, -1.0, -0.5, 0.0, -0.0, 0.5, 1.0, 2.0]) for _ in range(n)]
        else:
            values = [r.choice([NAN, INF, -INF, 0.0, 1e300, 1e-310, 1.0]) for _ in range(n)]
        if not shape and dtype is float and r.random() < 0.9:
            return values[0]
        with np.errstate(all="ignore"):
            return np.array(values, dtype).reshape(shape)

    def arguments(self):
        return [self.draw_array(s, d) for s, d in zip(self.shapes, self.dtypes)]

    def add(self):
        new = f"t{len(self.made)}"
        text = self.drawn("statement").replace("NEW", new)
        if "32" in text and not self.in_float32 or DERIVATIVE.search(text) and self.in_float32:
            return      # a derivative in float32 may lose all of its digits
        try:
            with np.errstate(all="ignore"):
                exec(text, self.scope)
        except Exception:
            if self.r.random() < 0.98:      # a few functions raise
                return
        value = self.scope.get(new)
        if not isinstance(value, ad.Tensor) or value.size > 60 or value.dtype.kind != "f":
            return
        self.made.append(new)
        self.body.append(text)

    def drawn(self, rule, depth=0):
        text = self.r.choice(RULES[rule])
        return WORD.sub(lambda found: self.word(found[1], depth + 1), text)

    def word(self, name, depth):
        r = self.r
        if name == "draw":
            return repr(round(r.uniform(-2.0, 2.0), 2))
        if name == "row":
            return self.row()
        if name in ("tensor", "number", "vector", "matrix"):
            return self.of_axes(name)
        if name in ("expr", "scalar") and depth > 3:
            return self.of_axes("tensor" if name == "expr" else "number")
        text = self.drawn(name, depth)
        return text if name not in ("expr", "scalar") or text.isidentifier() else f"({text})"

    def of_axes(self, name):
        recent = self.made if self.r.random() < 0.6 else self.made[-2:]
        if name == "tensor":
            return self.r.choice(recent)
        wanted = {"number": 0, "vector": 1, "matrix": 2}[name]
        fit = [t for t in recent if self.scope[t].ndim == wanted]
        if fit:
            return self.r.choice(fit)
        one = self.r.choice(recent)
        if wanted == 0:
            return f"{one}.sum()"
        if wanted == 1:
            return f"{one}.ravel()"
        return f"ad.outer({one}, {self.r.choice([one, 'C'])})"

    def row(self):
        """A function of the op table, mostly inside its intervals."""
        r = self.r
        row = r.choice(ROWS)
        args = []
        for lo, hi in row["intervals"]:
            one = self.of_axes(r.choice(["tensor", "tensor", "number"]))
            if lo == hi:
                args.append(repr(lo))
            elif r.random() < 0.1:
                args.append(one)
            elif r.random() < 0.15 and len(row["intervals"]) > 1:
                args.append(repr(round(r.uniform(lo, hi), 2)))
            else:
                args.append(f"({(lo + hi) / 2!r} + {(hi - lo) / 2.001!r} * ad.sin({one}))")
        lib = "np" if row["numpy"] and r.random() < 0.5 else "ad"
        name = row["numpy"] if lib == "np" else row["name"]
        return f"{lib}.{name}({', '.join(args)})"

    def source(self, body=None):
        lines = [f"        {line}" for text in body or self.body for line in text.splitlines()]
        return HEAD + OWN * self.is_number + "\n".join(lines) + "\n    return f\n"


def built(source, state):
    scope = {"ad": ad, "np": np, "math": math, "Pair": Pair}
    exec(source, scope)
    return scope["make"](**state.names)


# ---- the comparison --------------------------------------------------------------------------


def plain(tree):
    """The same nesting with NumPy's arrays, and Python's numbers where there are no axes."""
    if isinstance(tree, ad.Tensor):
        tree = tree.detach().numpy()
    if isinstance(tree, (np.ndarray, np.generic)):
        return np.asarray(tree).item() if np.ndim(tree) == 0 else tree
    if isinstance(tree, (tuple, list)):
        return type(tree)([plain(item) for item in tree])
    if isinstance(tree, dict):
        return {key: plain(item) for key, item in tree.items()}
    return tree


class Raised(str):
    """The class and the text of an exception.

    Equal are those of one class: where no gradient is asked for, the words are NumPy's.
    """

    def __eq__(self, other):
        return isinstance(other, Raised) and self.split(":")[0] == other.split(":")[0]

    def __hash__(self):
        return hash(self.split(":")[0])


def outcome(function, args):
    """What a call gives, or what it raises."""
    try:
        with np.errstate(all="ignore"):
            return plain(function(*args))
    except Exception as error:
        return Raised(f"{type(error).__name__}: {error}")


def same_bits(a, b):
    return bool(np.all((a == b) & (np.signbit(a) == np.signbit(b)) | (a != a) & (b != b)))


def close(a, b, within):
    """Relative to the largest element of b and 1; where b has overflowed, anything goes."""
    with np.errstate(all="ignore"):
        size = np.max(np.abs(b), where=np.isfinite(b), initial=1.0)
        far = np.abs(a - b) > within * size
        return bool(np.all((a == b) | ~np.isfinite(b) | np.isfinite(a) & ~far))


def differences(a, b, within, at=""):
    """Texts that say where two outcomes differ; empty where they are the same.

    `within` is a relative tolerance; 0 stands for the same bits.
    """
    if type(a) is not type(b):
        return [f"{at or 'result'}: {type(a).__name__} and {type(b).__name__}: {a!r} and {b!r}"]
    if isinstance(a, (tuple, list)) and len(a) == len(b):
        items = [differences(p, q, within, f"{at}[{k}]") for k, (p, q) in enumerate(zip(a, b))]
        return [text for item in items for text in item]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{at or 'result'}: keys {list(a)} and {list(b)}"]
        return [text for key in a for text in differences(a[key], b[key], within, f"{at}[{key!r}]")]
    if isinstance(a, (np.ndarray, float)):
        x, y = np.asarray(a), np.asarray(b)
        if x.shape == y.shape and x.dtype == y.dtype:
            if x.dtype.kind != "f":
                equal = np.array_equal(x, y)
            else:
                equal = close(x, y, within) if within else same_bits(x, y)
            return [] if equal else [f"{at or 'result'}: {a!r} and {b!r}"]
    elif a == b:
        return []
    return [f"{at or 'result'}: {a!r} and {b!r}"]


def overflowed(values):
    numbers = [np.asarray(x, float) for x in values if isinstance(x, (float, np.ndarray))]
    return any(not np.all(np.abs(x) < 1e100) for x in numbers)


def amplifies(function, args, have, want):
    """Whether rounding alone explains a difference: arguments that are off by 1e-14 or so move
    the function's own outcome about as far, or to another branch."""
    for step in (2.0**-46, -(2.0**-47), 3.0 * 2.0**-46):
        nearby = outcome(function, [x * type(x)(1.0 + step) if type(x) is float
                                    else x * x.dtype.type(1.0 + step) for x in args])
        if differences(have, want, 1e-12) and differences(nearby, want, 1e-12):
            far = [k for k in range(-12, 0) if differences(have, want, 10.0**k)]
            near = [k for k in range(-12, 0) if differences(nearby, want, 10.0**k)]
            if len(far) <= len(near) + 1:
                return True
    return False


def on_tensors(f):
    return lambda *args: f(*map(ad.tensor, args))


def hvp(f):
    return lambda x, v, y: ad.jvp(ad.grad(lambda t: f(t, y)), (x,), (v,))[1]


def derivatives(program, f, args, dots, which):
    """Pairs of a program's derivative and the function's, and their arguments."""
    x, y = args
    yield "value_and_grad", program.value_and_grad, ad.value_and_grad(f), args
    both = program.derived("value_and_grad", (0, 1))
    if which == 0:
        yield "value_and_grad of both", both, ad.value_and_grad(f, (0, 1)), args
    elif which == 1:
        yield "grad", program.grad, ad.grad(f), args
    elif which == 2:
        yield "hessian", program.hessian, ad.hessian(f), args
    elif which == 3:
        yield ("jvp", lambda *both: program.jvp(both[:2], both[2:]),
               lambda *both: ad.jvp(f, both[:2], both[2:]), [*args, *dots])
    elif which == 4:
        yield ("vjp", lambda x, y: program.vjp((x, y), 0.75),
               lambda x, y: (lambda value, back: (value, back(0.75)))(*ad.vjp(f, x, y)), args)


def stats():
    found = _core.tape_stats()
    return {name: found[name] for name in ("nodes", "sweeping", "array_bytes")}


# What functions raise on the numbers and consumed graphs that they meet, and a recording, where
# all that transforms give is a tensor and nothing is consumed, does not.
LENIENT = ("AttributeError: 'float'", "AttributeError: 'bool'", "AttributeError: 'numpy.float", "TypeError: 'float'",
           "RuntimeError: backward: this")


class Tally:
    """How many calls were compared, and how many of them had other bits in a derivative."""

    calls = raised = derived = other_bits = replays = recordings = warned = lenient = amplified = 0

    def text(self):
        return ", ".join(f"{name} {getattr(self, name)}" for name in (
            "calls", "raised", "derived", "other_bits", "replays", "recordings", "warned",
            "lenient", "amplified"))


def compared(writer, source, tally):
    """Compare a function with its program over calls; texts that say what differs."""
    r = random.Random(writer.r.random())
    writer.r = writer.state.r = r
    f = built(source, writer.state)
    program = ad.compile(f)
    within = 1e-3 if np.float32 in writer.dtypes or "32" in source else 1e-12
    within_value = within if DERIVATIVE.search(source) else 0.0
    which = r.randrange(12)
    args = writer.arguments()
    for call in range(30 if r.random() < 0.02 else 5):
        if call and r.random() < 0.8:
            args = writer.arguments()
        if call and r.random() < 0.3:
            writer.state.change()
        want = outcome(on_tensors(f), args)
        if type(want) is Raised and want.startswith(("NameError", "UnboundLocalError")):
            return []                   # a statement is missing
        have = outcome(program, args)
        found = differences(have, want, within_value)
        tally.calls += 1
        if type(want) is Raised and want.startswith(LENIENT):
            tally.lenient += 1
            continue
        tally.raised += type(want) is Raised
        if found and within_value and amplifies(on_tensors(f), args, have, want):
            tally.amplified += 1
            break
        if found:
            return [f"call {call} with {args!r}: program and function", *found]
        if not writer.is_number or (call and r.random() < 0.3):
            if which == 0 and not found:
                tensors = [ad.tensor(x) for x in args]
                found = differences(outcome(program, tensors), want, within_value)
                tally.calls += 1
                if found:
                    return [f"call {call} with tensors {args!r}: program and function", *found]
            continue
        value = want
        dots = [writer.draw_array(s, d) for s, d in zip(writer.shapes, writer.dtypes)]
        for name, replayed, function, given in derivatives(program, f, args, dots, which):
            want, have = outcome(function, given), outcome(replayed, given)
            if type(want) is Raised and want.startswith("NameError"):
                return []                   # a statement is missing
            if type(want) is Raised and want.startswith(LENIENT):
                tally.lenient += 1
                continue
            if name == "hessian" and overflowed([value, want, *args]):
                continue                    # forward and reverse sweeps meet inf in other orders
            tally.calls += 1
            tally.derived += 1
            found = differences(have, want, within)
            if found and amplifies(function, given, have, want):
                tally.amplified += 1
                continue
            if found:
                return [f"call {call}, {name} with {given!r}: program and function", *found]
            tally.other_bits += bool(differences(have, want, 0.0))
    for made in (program, program.value_and_grad):
        tally.replays += made.replays
        tally.recordings += made.recordings
    tally.warned += bool(program.given_up)
    return []


def compared_seed(seed, tally, body=None):
    """Compare the function of a seed (or another body of it); check what it leaves on the tape."""
    before = stats()
    writer = Writer(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ProgramWarning)
        found = compared(writer, writer.source(body), tally)
    body = writer.body if body is None else body
    del writer
    if not found:
        _core.compact()
        if stats() != before:
            gc.collect()
            _core.compact()
            if stats() != before:
                found = [f"the tape held {before}, and holds {stats()}"]
    return found, body


def shrunk(seed, body):
    """The function without the statements that do not matter for its failing."""
    k = 0
    while k < len(body) - 1:
        shorter = body[:k] + body[k + 1:]
        found = compared_seed(seed, Tally(), shorter)[0]
        body, k = (shorter, k) if found else (body, k + 1)
    return body


def report(seed, body):
    body = shrunk(seed, body)
    found = compared_seed(seed, Tally(), body)[0]
    return "\n".join([f"seed {seed}", *body, *found])


# ---- the tests -------------------------------------------------------------------------------


def test_programs_of_random_functions_give_what_the_functions_give():
    tally, seed, failures = Tally(), SEED, []
    while tally.calls < CALLS and len(failures) < 5:
        found, body = compared_seed(seed, tally)
        if found:
            failures.append(report(seed, body))
        seed += 1
    print(tally.text(), f"seeds {SEED} to {seed - 1}")
    assert not failures, "\n\n".join(failures)
    assert tally.replays > tally.calls / 5
    assert tally.other_bits < max(tally.derived / 10, 10)
    assert tally.amplified < max(tally.calls / 1000, 10)


class Counter:
    """A clock that no program can see."""

    __slots__ = ("n",)

    def __init__(self):
        self.n = 0.0

    def tick(self):
        self.n += 1.0
        return self.n


def impostor(text):
    """A writer of two functions of numbers: what is compared, and what its program computes."""
    writer = Writer(1)
    writer.is_number, writer.shapes, writer.dtypes = True, [(), ()], [float, float]
    writer.state.names["helper"] = eval(text, {"ad": ad, "np": np, "clock": Counter().tick})
    return writer


@pytest.mark.parametrize(
    "text",
    [
        "lambda t: t * clock()",
        "lambda t: t + 1e-15 * clock() * abs(t)",
        "lambda t: t * 0.0 * (1.0 if int(clock()) % 2 else -1.0)",
    ],
)
def test_the_comparison_fails_where_a_function_reads_a_hidden_clock(text):
    writer = impostor(text)
    source = writer.source(["return helper(x)"])
    assert compared(writer, source, Tally())


@pytest.mark.parametrize(
    ("have", "want", "within"),
    [
        (1.0, 1.0 + 2.0**-52, 0.0),
        (1.0, 1.0 + 1e-11, 1e-12),
        (0.0, -0.0, 0.0),
        (math.nan, 1.0, 0.0),
        (math.nan, 1.0, 1e-12),
        (math.inf, 1.0, 1e-12),
        (1, 1.0, 0.0),
        (True, 1, 0.0),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0 + 2.0**-51]), 0.0),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-11]), 1e-12),
        (np.array([1.0, 2.0]), np.array([[1.0, 2.0]]), 0.0),
        (np.float32([1.0]), np.array([1.0]), 1e-12),
        (np.array([1]), np.array([2]), 0.0),
        ((1.0, 2.0), [1.0, 2.0], 0.0),
        ((1.0, 2.0), (1.0, 2.0, 3.0), 0.0),
        ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}, 0.0),
        ({"a": (1.0, [2.0])}, {"a": (1.0, [3.0])}, 0.0),
        (Raised("ValueError: a"), Raised("TypeError: a"), 0.0),
        (Raised("ValueError: a"), "ValueError: a", 0.0),
        (None, "None", 0.0),
    ],
)
def test_the_comparison_tells_outcomes_apart(have, want, within):
    assert differences(have, want, within)
    assert not differences(have, have, within)
    assert not differences(want, want, within)


def test_the_comparison_notices_a_program_of_another_function():
    writer = impostor("abs")
    source = writer.source(["return x * y"])
    other = ad.compile(lambda x, y: y * x + 1e-15)
    assert not compared(writer, source, Tally())
    f = built(source, writer.state)
    assert differences(outcome(other, (1.5, 2.0)), outcome(on_tensors(f), (1.5, 2.0)), 0.0)


def test_failing_functions_are_cut_down_to_what_fails(monkeypatch):
    body = ["t1 = x * 2.0", "t2 = x + helper(y)", "t3 = t1 * y", "return t2.sum()"]

    def failing(seed, tally, body):
        return (["differs"] if any("helper" in text for text in body) else []), body

    monkeypatch.setattr("test_program_random.compared_seed", failing)
    assert shrunk(1, body) == ["t2 = x + helper(y)", "return t2.sum()"]


def test_random_programs_run_in_flat_memory(fresh_python):
    here = str(pathlib.Path(__file__).parent)
    grown = fresh_python(f"""
        import gc, sys
        sys.path.insert(0, {here!r})
        import test_program_random as t

        def resident():
            gc.collect()
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * 4096

        sizes = []
        for _ in range(6):
            for seed in range(60):
                t.compared_seed(seed, t.Tally())
            sizes.append(resident())
        print(sizes[-1] - sizes[1])
    """)
    assert int(grown) < 3 << 20


# What random functions have found.


def passed(f, *calls):
    """Compare a function's program with the function, in these calls."""
    program = ad.compile(f)
    for args in calls:
        assert not differences(outcome(program, args), outcome(on_tensors(f), args), 0.0)


def test_a_function_may_change_its_argument_in_place():
    def f(x, k):
        x += 1.0
        k += 1
        return x * k, x, k

    passed(f, *[(s * np.ones(3), np.array([1, 2, 3])) for s in (1.0, 2.0, 3.0)])
    passed(f, *[(s, np.array([1, 2, 3])) for s in (1.0, 2.0, 3.0)])


def test_the_sum_of_a_number_over_its_axis_0_is_the_number():
    passed(lambda x: x.sum(axis=0) * 2.0, (1.0,), (2.0,))
    assert ad.jvp(lambda x: ad.sum(x, axis=0), (3.0,), (2.0,)) == (3.0, 2.0)
    assert ad.compile(lambda x: ad.sum(x, axis=-1)).jvp((3.0,), (2.0,)) == (3.0, 2.0)
    hessian = ad.hessian(lambda x: x[0].sum(axis=0) * x[0])(np.ones(2))
    assert hessian.tolist() == [[2.0, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="axis 1"):
        ad.sum(ad.tensor(1.0), axis=1)


@pytest.mark.parametrize(
    "join",
    [lambda c, y: c @ y, lambda c, y: (c * y).sum(), lambda c, y: ad.stack([c, y]).sum(),
     lambda c, y: ad.concatenate([c, y]).mean(), lambda c, y: c.sum() * y.sum()],
    ids=["matmul", "multiply", "stack", "concatenate", "numbers"],
)
def test_no_tangent_passes_what_was_computed_under_no_grad(join):
    def f(y):
        with ad.no_grad():
            c = y * np.array([1.0, 2.0, 3.0])
        return join(c, y)

    y, dot = np.array([-0.5, 2.0, 1.0]), np.array([0.5, 3.0, 2.0])
    assert ad.compile(f).jvp((y,), (dot,)) == pytest.approx(ad.jvp(f, (y,), (dot,)), rel=1e-14)


def test_a_number_spread_to_a_shape_meets_an_array_that_is_smaller():
    def f(x, y):
        return ad.broadcast_to(x, (2, 3)) - (y * 1.5).reshape(1, 1)

    passed(f, *[(x, np.array([x + 1.0])) for x in (1.0, 2.0, 3.0)])
    x = np.arange(6.0).reshape(2, 3)
    for c in (np.ones((1, 3)), np.ones(3), np.ones((2, 1)), np.ones((1, 1))):
        def g(x, c=c):
            return (ad.value_and_grad(lambda t: (t * t * c).sum())(x)[0]) ** 2

        program = ad.compile(g).value_and_grad
        for k in (1.0, 2.0, 3.0):
            have, want = program(k * x), ad.value_and_grad(g)(k * x)
            np.testing.assert_allclose(have[1], want[1], rtol=1e-14)


def test_arrays_in_keyword_defaults_are_watched():
    bias = np.ones(2)

    def helper(x, *, bias=bias):
        return x + bias[0]

    program = ad.compile(lambda x: helper(x))
    assert program(1.0) == 2.0
    bias[0] = 5.0
    assert program(1.0) == 6.0


def test_what_is_found_deep_down_first_is_watched_where_it_is_found_again():
    items = [np.ones(1)]
    deep = [[items]]

    def helper(x):
        return x * deep[0][0][0]

    program = ad.compile(lambda x: (helper(x) + items[0]).sum())
    assert program(1.0) == 2.0
    items[0][0] = 3.0
    assert program(1.0) == 6.0


def test_sinc_in_float32_is_numpys():
    with pytest.warns(ad.ProgramWarning, match="sinc of float32"):
        passed(lambda x: ad.sinc(x), *[(np.float32([0.3, 0.77, k]),) for k in (1.1, 2.3)])


def test_the_jacobian_of_a_constant_has_the_arguments_dtype():
    assert ad.jacobian(lambda x: ad.zeros(2))(np.float32([1.0])).dtype == np.float32
