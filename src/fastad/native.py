"""Programs outside of Python: C functions by address, and C source code.

A recording of a `Program` needs neither Python nor its lock to run.  `CFunction` is the address of
compiled code in this extension that runs recordings on plain C arrays of doubles, for those who
call C: `ctypes`, `scipy.LowLevelCallable`, Numba, C code of other extensions.  `c_source` writes
recordings as C99 for a compiler.

Both hold what was recorded: values of tensors, globals and closures are those of the moment when
they are made.  What Python looked at while recording is checked in each call; where it comes out
otherwise in all recordings that they hold, the call fails, visibly: never with a wrong number.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, modes
from ._core import NativeFunction, Replay

__all__ = ["CFunction"]

_CALL = "int (const double *, double *, double *, void *)"


# ---- which recordings ----------------------------------------------------------------------------


def recordings(replay: Replay, examples: tuple[Any, ...], who: str) -> list[Any]:
    """Return the programs for arguments like these, or for those of the last call.

    Raises
    ------
    ValueError
        If there are none, because nothing was recorded or because no program can be made.
    TypeError
        If one of them computes something that needs Python, or takes or gives other things than
        float64 numbers and arrays.
    """
    if _core.is_tracing():
        raise ValueError(f"{who}: a program is being recorded; ask for it outside")
    if examples:
        key = replay.hooks.flatten(replay, examples, {})[0]
        if key not in replay.given_up:
            with modes.no_grad():
                replay(*examples)
    else:
        key = _core.last_key(replay)
        if key is None:
            raise ValueError(f"{who}: nothing is recorded yet; give example arguments")
    if key in replay.given_up:
        raise ValueError(f"{who}: there is no program of it: {replay.given_up[key]}")
    plans = _core.recorded_plans(replay, key)
    if not plans:
        raise ValueError(f"{who}: what the recording depends on has changed since; give example "
                         "arguments")
    if who == "to_c":
        plans = [_core.plain_plan(plan) for plan in plans]
    for plan in plans:
        _check(plan, who)
    return list(plans)


def _check(plan: Any, who: str) -> None:
    foreign = sorted(set(_core.foreign_steps(plan)))
    if foreign:
        raise TypeError(f"{who}: {', '.join(foreign)} of arrays is computed by Python here, which "
                        "a C function does without; write it in other operations")
    given, results = _core.plain_places(plan)
    if not all(given):
        raise TypeError(f"{who}: input {given.index(False)} is no float64 array; only these and "
                        "numbers can be handed over")
    if not all(results):
        raise TypeError(f"{who}: a result is no float64 array; convert it with astype(float)")
    if not _holds_outputs_only(plan.result):
        raise TypeError(f"{who}: the result holds a constant; only what is computed from the "
                        "arguments can be handed over")


def _holds_outputs_only(tree: Any) -> bool:
    return all(type(leaf) is int for leaf in _leaves(tree))


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (tuple, list)):
        return [leaf for item in tree for leaf in _leaves(item)]
    if type(tree) is dict:
        return [leaf for item in tree.values() for leaf in _leaves(item)]
    return [tree]


def value_outputs(plan: Any, derivative: str | None) -> int:
    """Return how many outputs are the value; the others are the gradient."""
    tree = plan.result[0] if derivative == "value_and_grad" else plan.result
    return len(_leaves(tree))


# ---- C functions ---------------------------------------------------------------------------------


class CFunction(NativeFunction):
    """A program as a C function, made by ``Program.c_function``.

    ::

        int f(const double *in, double *value, double *gradient, void *user_data);

    `in` holds the arguments one behind the other, arrays in C order; `value` and `gradient` receive
    the results in the same way and must not overlap `in`.  `gradient` is not touched, and may be
    NULL, unless the function was made with ``derivative="value_and_grad"``.  The status is

    ===  ==================================================================================
    0    done
    1    what Python looked at while recording (an ``if``) comes out otherwise in all recordings
    2    no memory for a workspace
    3    the object that owned the function is gone, or an instruction failed
    ===  ==================================================================================

    and where it is not 0 all results are nan.  Any number of threads may call it at the same
    time, with or without Python's lock.

    The object owns the code behind the addresses: keep it for as long as they may be called.
    `ctypes` functions and `low_level_callable` keep it themselves.  Afterwards a form without
    `user_data` fails with status 3 or nan, until another function gets its place; the other forms
    must not be called any more.  It cannot be pickled.

    Attributes
    ----------
    address : int
        Address of the function above.
    user_data : int
        What it wants as its last argument.
    plans : tuple
        The recordings that are tried, the latest successful one first.
    """

    @property
    def address(self) -> int:
        """Address of the function that takes in, value, gradient and user_data."""
        return self.address_of(_CALL)

    @property
    def ctypes(self) -> Any:
        """The function for `ctypes`, which gives up Python's lock while it runs.

        All four arguments are ``void *``: addresses, ctypes arrays or ``array.ctypes``.
        """
        kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)
        function: Any = kind(self.address)
        function.owner = self
        return function

    def low_level_callable(self, signature: str | None = None) -> Any:
        """Return a ``scipy.LowLevelCallable``, for ``scipy.integrate`` and ``scipy.ndimage``.

        Parameters
        ----------
        signature : str, optional
            ``"double (double)"``, ``"double (int, double *)"``, the same with a last ``void *``,
            or one of the signatures that ``scipy.ndimage`` takes.  By default that of a function of
            one number or of several.  Those without ``void *`` are limited to 64 functions at a
            time.

        Raises
        ------
        ValueError
            If there is no such signature, or the function does not fit it: it must give one number
            and no gradient, and take one number for ``double (double)``.
        RuntimeError
            If all functions without ``void *`` are in use.
        ImportError
            If SciPy is missing.
        """
        from scipy import LowLevelCallable

        n_in, n_value, n_gradient = self.sizes()
        if signature is None:
            signature = "double (double, void *)" if n_in == 1 else "double (int, double *, void *)"
        if n_gradient:
            raise ValueError("low_level_callable: the function gives a gradient too; make one "
                             "without, or of the gradient alone")
        if n_value != 1 and signature.startswith("double"):
            raise ValueError(f"low_level_callable: the function gives {n_value} numbers, and "
                             f"{signature} gives one")
        if n_in != 1 and signature.startswith("double (double"):
            raise ValueError(f"low_level_callable: the function takes {n_in} numbers, and "
                             f"{signature} takes one")
        function, user_data = self.capsules(signature)
        return LowLevelCallable(function, user_data)

    def __repr__(self) -> str:
        n_in, n_value, n_gradient = self.sizes()
        return (f"<CFunction of {n_in} numbers: {n_value} in the value, {n_gradient} in the "
                f"gradient, {len(self.plans)} recorded>")


def c_function(replay: Replay, examples: tuple[Any, ...], derivative: str | None) -> CFunction:
    """See ``Program.c_function``."""
    plans = recordings(replay, examples, "c_function")
    counts = {value_outputs(plan, derivative) for plan in plans}
    if len(counts) > 1:
        raise ValueError("c_function: the recordings give results of different sizes")
    return CFunction(plans, counts.pop())


# ---- C source ------------------------------------------------------------------------------------

_WORDS_IN_C = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while main NULL NAN INFINITY memcmp memcpy memset ptrdiff_t "
    "in value gradient work status".split())

# The helpers that are not fastad's own formulas.  NAME stands for the prefix.
_HELPERS = {
    "pow": """\
/* Compilers turn pow(x, 2.0) into x * x, whose last bit may differ: hide the exponent. */
static inline double NAME_pow(double a, double b)
{
    volatile double hidden = b;
    return pow(a, hidden);
}
""",
    "sum": """\
/* Pairwise, as NumPy sums. */
static double NAME_sum(const double *x, ptrdiff_t n)
{
    if (n > 128) {
        const ptrdiff_t half = n / 2 - n / 2 % 8;
        return NAME_sum(x, half) + NAME_sum(x + half, n - half);
    }
    double s[8] = {-0.0, -0.0, -0.0, -0.0, -0.0, -0.0, -0.0, -0.0}, total = -0.0;
    ptrdiff_t i = 0;
    if (n >= 8) {
        for (; i + 8 <= n; i += 8)
            for (int k = 0; k < 8; k++) s[k] += x[i + k];
        total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
    for (; i < n; i++) total += x[i];
    return total;
}
""",
    "largest": """\
/* nan where there is one. */
static double NAME_largest(const double *x, ptrdiff_t step, ptrdiff_t n)
{
    double best = x[0];
    for (ptrdiff_t k = 1; k < n; k++)
        if (!(best >= x[k * step]) && best == best) best = x[k * step];
    return best;
}
""",
    "smallest": """\
/* nan where there is one. */
static double NAME_smallest(const double *x, ptrdiff_t step, ptrdiff_t n)
{
    double best = x[0];
    for (ptrdiff_t k = 1; k < n; k++)
        if (!(best <= x[k * step]) && best == best) best = x[k * step];
    return best;
}
""",
    "ties": """\
static void NAME_ties(const double *x, double best, ptrdiff_t step, ptrdiff_t n, double *out)
{
    double ties = 0.0;
    for (ptrdiff_t k = 0; k < n; k++) {
        const double v = x[k * step];
        out[k * step] = v == best || (v != v && best != best);
        ties += out[k * step];
    }
    for (ptrdiff_t k = 0; k < n; k++) out[k * step] /= ties;
}
""",
    "dot": """\
static inline double NAME_dot(const double *a, ptrdiff_t a_step, const double *b, ptrdiff_t b_step,
                       ptrdiff_t n)
{
    double s = 0.0;
    for (ptrdiff_t k = 0; k < n; k++) s += a[k * a_step] * b[k * b_step];
    return s;
}
""",
    "has_nan": """\
static inline int NAME_has_nan(const double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (x[i] != x[i]) return 1;
    return 0;
}
""",
    "bits": """\
static inline uint64_t NAME_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
""",
}


def _formula_helpers() -> dict[str, str]:
    """The functions and constants that formulas of the op table call, as C, from core/special.h."""
    text = ""
    for name in ("special.h", "kernels.h"):
        with open(os.path.join(os.path.dirname(__file__), "core", name)) as file:
            text += file.read()
    found = {}
    comment = r"(?:/\*(?:[^*]|\*(?!/))*\*/\n)?"
    guarded = rf"{comment}#if [^\n]*\n(?:extern [^\n]*\n)static inline double (\w+)\(.*?\n#endif\n"
    for block in re.finditer(guarded, text, re.DOTALL):
        found[block[1]] = block[0]
    function = rf"{comment}static inline \w+ (\w+)\([^)]*\)(?:\n{{.*?\n}}\n| {{.*?}}\n)"
    for block in re.finditer(function, text, re.DOTALL):
        found.setdefault(block[1], block[0])
    for block in re.finditer(r"#define (FAD_\w+) [^\n]+\n", text):
        found[block[1]] = block[0]
    for name, value in _core.constants().items():
        found[name] = f"static const double {name} = {_literal(value)};\n"
    return found


def _literal(v: float) -> str:
    """A number as C; negative ones in parentheses."""
    if v != v:
        return "NAN"
    text = "INFINITY" if math.isinf(v) else repr(abs(v))
    return f"(-{text})" if math.copysign(1.0, v) < 0 else text


_NAME = re.compile(r"/\*.*?\*/|\b[A-Za-z_]\w*\b", re.DOTALL)      # comments stay as they are


class _Source:
    """What the functions of one file share: the prefix, the helpers in use, constant arrays."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = {row["opcode"]: row for row in _core.table()}
        self.words = _core.instruction_names()[2]
        self.formulas = _formula_helpers()
        self.used: dict[str, str] = {}
        self.tables: list[str] = []
        self.cases: dict[str, int] = {}     # what the words of tables do
        self.guards = 0

    def helper(self, name: str) -> str:
        """The name of a helper in this file, which is taken into it."""
        if name not in self.used:
            text = _HELPERS.get(name)
            self.used[name] = ""            # a helper may call itself
            if text is not None:
                done = text.replace("NAME", self.name)
            else:
                done = self.translated(self.formulas[name], {})
            del self.used[name]             # behind those that it calls
            self.used[name] = done
        return f"{self.name}_{name}"

    def translated(self, text: str, operands: dict[str, str]) -> str:
        """A formula with operands put in, and helpers under their names in this file."""
        def word(found: re.Match[str]) -> str:
            name = found[0]
            if name in operands:
                return operands[name]
            return self.helper(name) if name in self.formulas or name == "pow" else name

        return _NAME.sub(word, text)

    def table(self, numbers: Iterable[str], kind: str) -> str:
        """A constant array; returns its name."""
        name = f"{self.name}_table{len(self.tables)}"
        rows = ["   "]
        for item in numbers:
            if len(rows[-1]) + len(item) > 96:
                rows.append("   ")
            rows[-1] += f" {item},"
        body = "\n".join(rows)
        self.tables.append(f"static const {kind} {name}[] = {{\n{body}\n}};\n")
        return name


    def word(self, text: str, *places: int) -> str:
        """A word of a table."""
        text = _OPERAND.sub(r"r[w->\1]", text)
        case = self.cases.setdefault(text, len(self.cases))
        return "{" + ", ".join(map(str, (case, *places))) + "}"

    def machine(self) -> list[str]:
        """What runs the words of tables."""
        if not self.cases:
            return []
        cases = "".join(f"        case {k}: {text} break;\n" for text, k in self.cases.items())
        return [
            f"typedef struct {{ int op, d, a, b, c; }} {self.name}_word;\n",
            f"static int {self.name}_run(const {self.name}_word *w, ptrdiff_t n, double *r)\n{{\n"
            f"    for (const {self.name}_word *end = w + n; w < end; w++)\n"
            f"        switch (w->op) {{\n{cases}        }}\n    return 0;\n}}\n"]


class _Piece(NamedTuple):
    """A number that is put into a register, or statements.

    In the text @12 is register 12, and a3 the elements of array 3.  `word` is the same for a table,
    where a table can hold it: what to do with d, @a, @b and @c, and these four.
    """

    target: int | None
    text: str
    word: tuple[str, int, int, int, int] | None = None


_REGISTER = re.compile(r"@(\d+)")
_OPERAND = re.compile(r"@([abc])")
_ARRAY = re.compile(r"\ba(\d+)\b")
# Compilers take a quarter of a millisecond for a statement, more in functions of many, and next to
# nothing for a word of a table.
_LINES_IN_A_PART = 400
_PIECES_AS_STATEMENTS = 5000
_SHORTEST_TABLE = 16


class _Recording:
    """Writes one recording as C functions."""

    def __init__(self, source: _Source, plan: Any, name: str, derivative: str | None) -> None:
        self.source = source
        self.results = ["value", "gradient"] if derivative == "value_and_grad" else ["value"]
        self.name = name
        self.plan = plan
        self.code = _core.describe_code(plan)
        self.arrays = self.code["arrays"]
        self.home: dict[int, str] = {}      # where a number is that an earlier part has made
        self.pointers: dict[int, str] = {}  # elements of arrays that stay where they are
        self.contents: dict[int, Any] = {}  # of arrays that become tables, where they are read
        self.outputs: list[str] = []
        for k, array in enumerate(self.arrays):
            if array["type"] is None:
                raise TypeError("to_c: the program computes with float32 or complex arrays, "
                                "which C source cannot hold; convert its inputs to float64")
            if array["from"] == "arena":
                self.pointers[k] = f"work + {array['offset'] // 8}"
                if array["type"] != "double":
                    self.pointers[k] = f"({array['type']} *)({self.pointers[k]})"
            elif array["from"] == "constant":
                self.contents[k] = array["contents"]
        self.tabled = len(self.code["code"]) > _PIECES_AS_STATEMENTS
        self.known: dict[int, tuple[str, str]] = {}
        self.extra: dict[float, int] = {}
        self.place_inputs()
        self.home_at_first = dict(self.home)
        self.place_outputs(value_outputs(plan, derivative))

    # -- where things are

    def place_inputs(self) -> None:
        for k, v in enumerate(self.code["constants"]):
            self.home[k] = _literal(v)
        offset = 0
        outer = iter(self.code["outer"])
        for k, (is_array, where) in enumerate(self.code["in"]):
            if k >= self.code["given"]:
                v = next(outer)
                if is_array:
                    self.contents[where] = v
                else:
                    self.home[where] = _literal(float(v))
            elif is_array:
                self.pointers[where] = f"in + {offset}"
                offset += self.size(where)
            else:
                self.home[where] = f"in[{offset}]"
                offset += 1
        self.n_in = offset

    def place_outputs(self, n_value: int) -> None:
        at = {"value": 0, "gradient": 0}
        for k, (is_array, where) in enumerate(self.code["out"]):
            to = "value" if k < n_value else "gradient"
            if not is_array:
                self.outputs.append(f"{to}[{at[to]}] = @{where};")
                at[to] += 1
                continue
            size = self.size(where)
            if self.arrays[where]["from"] == "output" and where not in self.pointers:
                self.pointers[where] = f"{to} + {at[to]}"
            elif size:
                self.outputs.append(f"memcpy({to} + {at[to]}, a{where}, {size} * sizeof(double));")
            at[to] += size
        self.n_value, self.n_gradient = at["value"], at["gradient"]

    def numbers(self, v: Any) -> str:
        if isinstance(v, np.ndarray) and v.dtype == bool:
            return self.source.table([str(int(x)) for x in v.flat] or ["0"], "unsigned char")
        return self.source.table([_literal(x) for x in np.ravel(v).tolist()] or ["0.0"], "double")

    def size(self, array: int) -> int:
        return math.prod(self.arrays[array]["shape"])

    def pointer(self, array: int) -> str:
        """Where the elements of an array are."""
        if self.arrays[array]["from"] == "alias":
            return self.pointer(self.arrays[array]["root"])
        if array not in self.pointers:
            self.pointers[array] = self.numbers(self.contents[array])
        return self.pointers[array]

    def is_constant(self, array: int) -> bool:
        if self.arrays[array]["from"] == "alias":
            return self.is_constant(self.arrays[array]["root"])
        return self.arrays[array]["from"] in ("constant", "input")

    # -- instructions

    def pieces(self) -> list[_Piece]:
        code, made = self.code, []
        latest = -1
        for op, d, a, b, c in code["code"]:
            if op == code["guard"]:
                made.append(self.guard(code["guards"][a]))
            elif op == code["loop"]:
                made.append(_Piece(None, self.tiles(a, 1, c)))
            elif op == code["array"]:
                step = code["steps"][a]
                target = None if step["out"][0] or step["name"] == "tiles" else step["out"][1]
                made.append(_Piece(target, _INSTRUCTIONS[step["name"]](self, step)))
            else:
                made.append(self.word(op, d, (a, b, c), latest))
                latest = d
        made += [_Piece(None, text) for text in self.outputs]
        return made

    def word(self, op: int, d: int, registers: tuple[int, int, int], latest: int) -> _Piece:
        given = dict(zip("abc", registers))
        if op not in self.known:
            self.known[op] = self.formula(op)
        text, before = self.known[op]
        if before:
            given[before] = latest
        return _Piece(d, _OPERAND.sub(lambda found: f"@{given[found[1]]}", text),
                      (f"r[w->d] = {text};", d, given["a"], given["b"], given["c"]))

    def constant(self, v: float) -> int:
        """A register that holds a number for the words of tables."""
        if v not in self.extra:
            self.extra[v] = self.code["registers"] + len(self.extra)
        return self.extra[v]

    def formula(self, op: int) -> tuple[str, str]:
        """What a word computes of @a, @b and @c, and which of them is the result before, or ""."""
        row = self.source.rows.get(op)
        if row is not None:
            return self.row(row, ["@a", "@b", "@c"]), ""
        text = self.source.words.get(op, "").removeprefix("value = ")
        if not text:
            raise RuntimeError(f"internal: to_c knows no instruction {op}")
        free = next((name for name in "abc" if f"reg[ip->{name}]" not in text), "")
        for name in "abc":
            text = text.replace(f"reg[ip->{name}]", f"@{name}")
        uses_value = "value" in text
        return self.source.translated(text, {"value": f"@{free}"}), free if uses_value else ""

    def row(self, row: dict[str, Any], operands: Sequence[str], side: int | None = None) -> str:
        names = "x" if row["arity"] == 1 else "abc"
        text = row["primal"] if side is None else row["partials"][side]
        given = dict(zip(names, operands))
        if side is not None:
            given["y"] = operands[3]
        return self.source.translated(text, given)

    def guard(self, guard: dict[str, Any]) -> _Piece:
        name, wanted, number = guard["name"], guard["wanted"], guard["number"]
        (is_array, a), (_, b) = guard["a"], guard["b"]
        helper = self.source.helper
        self.source.guards += 1
        status = self.source.guards
        if is_array:
            if name == "no_nan":
                fails = f"{helper('has_nan')}(a{a}, {self.size(a)})"
            elif name == "bytes":
                n = len(guard["bytes"])
                if self.arrays[a]["type"] == "double":
                    bits = np.frombuffer(guard["bytes"], np.uint64)
                    table = self.source.table([f"UINT64_C({w:#x})" for w in bits] or ["0"],
                                              "uint64_t")
                else:
                    table = self.numbers(np.frombuffer(guard["bytes"], bool))
                fails = f"memcmp(a{a}, {table}, {n})"
            else:
                raise RuntimeError(f"internal: to_c knows no guard {name} of arrays")
            return _Piece(None, f"if ({fails}) return {status};")
        if name == "bits":
            fails, b = f"{helper('bits')}(@a) != {helper('bits')}(@b)", -1
        elif name == "trunc":
            fails, b = "!(trunc(@a) == @b)", -1
        elif name == "no_nan":
            fails = "@a != @a"
        elif name in ("<", "<=", "==", "!=", ">", ">="):
            fails = f"!(@a {name} @b)" if wanted else f"@a {name} @b"
        else:
            raise RuntimeError(f"internal: to_c knows no guard {name} of numbers")
        if name == "bits" and (number != number or not number):
            # of a nan and of a zero the bits tell more than a literal
            fails = f"{helper('bits')}(@{a}) != UINT64_C({np.float64(number).view(np.uint64):#x})"
            return _Piece(None, f"if ({fails}) return {status};")
        text = fails.replace("@a", f"@{a}").replace("@b", _literal(number) if b < 0 else f"@{b}")
        if b < 0 and self.tabled:
            b = self.constant(number)
        return _Piece(None, f"if ({text}) return {status};",
                      (f"if ({fails}) return w->d;", status, a, b, 0))

    def tiles(self, first: int, count: int, size: int) -> str:
        """Elementwise steps over arrays of one shape, as one loop."""
        lines = []
        for op, operands, (kind, where) in self.code["tiles"][first:first + count]:
            given = [f"@{w}" if k == "register" else f"s{w}" if k == "scratch" else f"a{w}[i]"
                     for k, w in operands]
            text = self.row(self.source.rows[op], given)
            lines.append(f"    s{where} = {text};" if kind == "scratch"
                         else f"    a{where}[i] = {text};")
        scratch = sorted({w for _, _, (kind, w) in self.code["tiles"][first:first + count]
                          if kind == "scratch"})
        if scratch:
            lines.insert(0, f"    double {', '.join(f's{w}' for w in scratch)};")
        if len(lines) == 1:
            return f"for (ptrdiff_t i = 0; i < {size}; i++) {lines[0].strip()}"
        return "\n".join([f"for (ptrdiff_t i = 0; i < {size}; i++) {{", *lines, "}"])

    def operand(self, place: tuple[bool, int], shape: tuple[int, ...]) -> tuple[str, list[int]]:
        """What stands for an element, up to the index, and strides in the given shape."""
        is_array, where = place
        if not is_array:
            return f"@{where}", []
        own = self.arrays[where]["shape"]
        strides, step = [], 1
        for k in range(len(shape) - 1, -1, -1):
            j = k - len(shape) + len(own)
            strides.append(step if j >= 0 and own[j] != 1 else 0)
            step *= own[j] if j >= 0 else 1
        return f"a{where}", strides[::-1]

    def elementwise(self, step: dict[str, Any], side: int | None = None) -> str:
        """A row or a partial, with broadcasting."""
        row = self.source.rows[step["op"]]
        is_array, out = step["out"]

        def element(operands: list[str]) -> str:
            text = self.row(row, operands, side)
            # an exact 0 of a partial has no sign
            return text if side is None else f"{self.source.helper('zmul')}(1.0, {text})"

        if not is_array:
            if any(is_array for is_array, _ in step["args"]):
                raise RuntimeError(f"internal: to_c: a number is {row['name']} of an array")
            return element([f"@{r}" for _, r in step["args"]])
        shape = self.arrays[out]["shape"]
        operands = [self.operand(place, shape) for place in (step["out"], *step["args"])]
        return _loops(shape, operands, lambda e: f"{e[0]} = {element(e[1:])};")

    def partial(self, step: dict[str, Any]) -> str:
        return self.elementwise(step, step["side"])

    def sum_all(self, step: dict[str, Any]) -> str:
        x = step["args"][0][1]
        return f"0.0 + {self.source.helper('sum')}(a{x}, {self.size(x)})" if self.size(x) else "0.0"

    def broadcast(self, step: dict[str, Any]) -> str:
        shape = self.arrays[step["out"][1]]["shape"]
        operands = [self.operand(place, shape) for place in (step["out"], step["args"][0])]
        return _loops(shape, operands, lambda e: f"{e[0]} = {e[1]};")

    def sum_to(self, step: dict[str, Any]) -> str:
        """A sum over the axes in which the result is shorter."""
        shape = self.arrays[step["args"][0][1]]["shape"]
        is_array, out = step["out"]
        kept = self.arrays[out]["shape"] if is_array else ()
        kept = (None,) * (len(shape) - len(kept)) + tuple(kept)
        return self.summed(step, [n != m for n, m in zip(shape, kept)])

    def sum_axes(self, step: dict[str, Any]) -> str:
        return self.summed(step, step["axes"])

    def summed(self, step: dict[str, Any], over: Sequence[Any]) -> str:
        """Sums in the order of the core's (core/array.c)."""
        (is_array, out), (_, x) = step["out"], step["args"][0]
        shape = self.arrays[x]["shape"]
        pairwise = self.source.helper("sum") if self.size(x) else ""
        if not is_array:
            return f"0.0 + {pairwise}(a{x}, {self.size(x)})" if pairwise else "0.0"
        clear = f"memset(a{out}, 0, {self.size(out)} * sizeof(double));"
        if not pairwise:
            return clear if self.size(out) else ""
        to, at = [0] * len(shape), 1
        for k in range(len(shape) - 1, -1, -1):
            if not over[k]:
                to[k] = at
                at *= shape[k]
        lengths, strides = _merged(shape, [self.operand(step["args"][0], shape)[1], to])
        if strides[1][-1]:
            return clear + "\n" + _nest(lengths, strides, [f"a{x}", f"a{out}"],
                                        lambda e: f"{e[1]} += {e[0]};")
        # whole runs at a time
        n = lengths.pop()
        for s in strides:
            s.pop()
        return clear + "\n" + _nest(lengths, strides, [f"a{x}", f"a{out}"],
                                    lambda e: f"{e[1]} += {pairwise}(&{e[0]}, {n});")

    def transpose(self, step: dict[str, Any]) -> str:
        (_, out), (_, x) = step["out"], step["args"][0]
        own, shape = self.arrays[x]["shape"], self.arrays[out]["shape"]
        strides = [math.prod(own[k + 1:]) for k in range(len(own))]
        moved = [strides[k] if own[k] != 1 else 0 for k in step["axes"]]
        return _loops(shape, [self.operand(step["out"], shape), (f"a{x}", moved)],
                      lambda e: f"{e[0]} = {e[1]};")

    def cast(self, step: dict[str, Any]) -> str:
        """Bools as numbers."""
        (is_array, out), (from_array, x) = step["out"], step["args"][0]
        if not from_array or self.arrays[x]["type"] != "unsigned char":
            raise TypeError("to_c: the program converts between float64 and float32, which C "
                            "source cannot hold; leave the conversion out")
        if not is_array:
            return f"a{x}[0]"
        return f"for (ptrdiff_t i = 0; i < {self.size(out)}; i++) a{out}[i] = a{x}[i];"

    def matmul(self, step: dict[str, Any]) -> str:
        (_, a), (_, b) = step["args"]
        *stack_a, _, _ = left = (1, 1, *self.arrays[a]["shape"])
        *stack_b, _, _ = right = (1, 1, *self.arrays[b]["shape"])
        vector_a, vector_b = len(left) == 3, len(right) == 3
        rows, n = (1, left[-1]) if vector_a else left[:-3:-1] if step["ta"] else left[-2:]
        a_row, a_step = (1, rows) if step["ta"] and not vector_a else (n, 1)
        columns = 1 if vector_b else right[-2] if step["tb"] else right[-1]
        b_column, b_step = (n, 1) if step["tb"] and not vector_b else (1, columns)
        dot = self.source.helper("dot")
        is_array, out = step["out"]
        if not is_array:
            return f"{dot}(a{a}, {a_step}, a{b}, {b_step}, {n})"

        def product(e: list[str]) -> str:
            return (f"for (ptrdiff_t row = 0; row < {rows}; row++)\n"
                    f"    for (ptrdiff_t column = 0; column < {columns}; column++)\n"
                    f"        (&{e[2]})[row * {columns} + column] =\n"
                    f"            {dot}(&{e[0]} + row * {a_row}, {a_step}, "
                    f"&{e[1]} + column * {b_column}, {b_step}, {n});")

        if not self.size(out):
            return ""
        own = self.arrays[out]["shape"]
        stack = own[:len(own) - (not vector_a) - (not vector_b)]
        lengths, strides = _merged(stack, [
            _steps((1,) if vector_a else stack_a[2:], stack, rows * n),
            _steps((1,) if vector_b else stack_b[2:], stack, n * columns),
            _steps(stack, stack, rows * columns)])
        if lengths == [1]:
            lengths, strides = [], [[], [], []]
        return _nest(lengths, strides, [f"a{a}", f"a{b}", f"a{out}"], product)

    def get(self, step: dict[str, Any]) -> str:
        return f"a{step['args'][0][1]}[{step['offset']}]"

    def assemble(self, step: dict[str, Any]) -> str:
        out = step["out"][1]
        lines = []
        if len(step["args"]) < self.size(out):
            lines.append(f"memset(a{out}, 0, {self.size(out)} * sizeof(double));")
        lines += [f"a{out}[{at}] = @{r};" for at, (_, r) in zip(step["places"], step["args"])]
        return "\n".join(lines)

    def put(self, step: dict[str, Any]) -> str:
        """An array with a number at a place, or added there; the result may have its bytes."""
        out, ((_, x), (_, r)) = step["out"][1], step["args"]
        sign = "+=" if step["side"] else "="
        return (f"if (a{out} != a{x}) memcpy(a{out}, a{x}, {self.size(out)} * sizeof(double));\n"
                f"a{out}[{step['offset']}] {sign} @{r};")

    def write(self, step: dict[str, Any]) -> str:
        """An array with values at places, or added there; the result may have its bytes."""
        out, ((_, x), value) = step["out"][1], step["args"]
        sign = "+=" if step["side"] else "="
        copy = f"if (a{out} != a{x}) memcpy(a{out}, a{x}, {self.size(out)} * sizeof(double));\n"
        _, one_by_one, first, n, *rest = step["places"]
        if one_by_one:
            cells = step["places"][3:]
            if not first:
                return copy
            to = self.places(cells[:first])
            given = f"a{value[1]}[{self.places(cells[first:])}[i]]" if value[0] else f"@{value[1]}"
            return copy + f"for (int i = 0; i < {first}; i++) a{out}[{to}[i]] {sign} {given};"
        shape, steps, of_value = rest[:n], rest[n:2 * n], rest[2 * n:]
        operands = [(f"(a{out} + {first})", steps),
                    (f"a{value[1]}", of_value) if value[0] else (f"@{value[1]}", [])]
        return copy + _loops(shape, operands, lambda e: f"{e[0]} {sign} {e[1]};")

    def places(self, numbers: Sequence[int]) -> str:
        return self.source.table([str(k) for k in numbers] or ["0"], "ptrdiff_t")

    def take(self, step: dict[str, Any]) -> str:
        """Elements one by one."""
        out, x, n = step["out"][1], step["args"][0][1], len(step["places"])
        if not n:
            return ""
        return (f"for (ptrdiff_t i = 0; i < {n}; i++) "
                f"a{out}[i] = a{x}[{self.places(step['places'])}[i]];")

    def give(self, step: dict[str, Any]) -> str:
        """Zeros, with the operand's elements at places or added up there."""
        out, x, n = step["out"][1], step["args"][0][1], len(step["places"])
        clear = f"memset(a{out}, 0, {self.size(out)} * sizeof(double));\n"
        if not n:
            return clear
        return clear + (f"for (ptrdiff_t i = 0; i < {n}; i++) a{out}[{self.places(step['places'])}"
                        f"[i]] {'=' if step['exact'] else '+='} a{x}[i];")

    def folded(self, x: int, first: int, end: int) -> tuple[int, int, int]:
        """How many elements lie before, along and behind these axes, as in core/picks.c."""
        shape = self.arrays[x]["shape"]
        return math.prod(shape[:first]), math.prod(shape[first:end]), math.prod(shape[end:])

    def cumsum(self, step: dict[str, Any]) -> str:
        out, x = step["out"][1], step["args"][0][1]
        outer, n, inner = self.folded(x, step["ta"], step["ta"] + 1)
        if not self.size(x):
            return ""
        if step["side"]:
            of = f"(outer * {n} + {n - 1} - k) * {inner} + i"
        else:
            of = f"(outer * {n} + k) * {inner} + i"
        return (f"for (ptrdiff_t outer = 0; outer < {outer}; outer++)\n"
                f"    for (ptrdiff_t i = 0; i < {inner}; i++) {{\n"
                "        double total = -0.0;\n"
                f"        for (ptrdiff_t k = 0; k < {n}; k++)\n"
                f"            a{out}[{of}] = total = total + a{x}[{of}];\n"
                "    }")

    def extremum(self, step: dict[str, Any]) -> str:
        (is_array, out), (_, x) = step["out"], step["args"][0]
        outer, n, inner = self.folded(x, step["ta"], step["tb"])
        row = self.source.rows[step["op"]]["name"]
        best = self.source.helper({"maximum": "largest", "minimum": "smallest"}[row])
        if not is_array:
            return f"{best}(a{x}, 1, {n})"
        if not self.size(out):
            return ""
        return (f"for (ptrdiff_t outer = 0; outer < {outer}; outer++)\n"
                f"    for (ptrdiff_t i = 0; i < {inner}; i++)\n"
                f"        a{out}[outer * {inner} + i] =\n"
                f"            {best}(a{x} + outer * {n * inner} + i, {inner}, {n});")

    def ties(self, step: dict[str, Any]) -> str:
        """Where elements are the extremum: weights with the sum 1."""
        out, ((_, x), (is_array, y)) = step["out"][1], step["args"]
        outer, n, inner = self.folded(x, step["ta"], step["tb"])
        if not self.size(x):
            return ""
        best = f"a{y}[outer * {inner} + i]" if is_array else f"@{y}"
        return (f"for (ptrdiff_t outer = 0; outer < {outer}; outer++)\n"
                f"    for (ptrdiff_t i = 0; i < {inner}; i++)\n"
                f"        {self.source.helper('ties')}(a{x} + outer * {n * inner} + i, {best}, "
                f"{inner}, {n},\n            a{out} + outer * {n * inner} + i);")

    def mask(self, step: dict[str, Any]) -> str:
        """Bools for elements, of comparisons and logical operations."""
        out, args = step["out"][1], step["args"]
        text = _MASKS[step["op"]]
        if not self.size(out):
            return ""
        if text in ("any", "all"):
            is_array, x = args[0]
            n, found = (self.size(x), f"a{x}[i]") if is_array else (1, f"@{x}")
            return (f"a{out}[0] = {int(text == 'all')};\n"
                    f"for (ptrdiff_t i = 0; i < {n}; i++) if ({found} "
                    f"{'==' if text == 'all' else '!='} 0) a{out}[0] = {int(text == 'any')};")
        shape = self.arrays[out]["shape"]
        literal = _literal(float(np.int64(step["offset"]).view(np.float64)))

        def statement(e: list[str]) -> str:
            given = [*e[1:], literal] if step["side"] == 1 else [literal, *e[1:]] \
                if step["side"] == 2 else e[1:]
            return f"{e[0]} = (unsigned char)({text.format(*given)});"

        return _loops(shape, [self.operand(p, shape) for p in (step["out"], *args)], statement)

    def slice(self, step: dict[str, Any]) -> str:
        """Elements at regular steps."""
        out, x = step["out"][1], step["args"][0][1]
        first, *steps = step["places"]
        shape = self.arrays[out]["shape"]
        operands = [self.operand(step["out"], shape), (f"(a{x} + {first})", steps)]
        return _loops(shape, operands, lambda e: f"{e[0]} = {e[1]};")

    def scatter(self, step: dict[str, Any]) -> str:
        """Zeros, with the operand at regular steps."""
        out, x = step["out"][1], step["args"][0][1]
        first, *steps = step["places"]
        shape = self.arrays[x]["shape"]
        operands = [(f"(a{out} + {first})", steps), self.operand(step["args"][0], shape)]
        return f"memset(a{out}, 0, {self.size(out)} * sizeof(double));\n" + _loops(
            shape, operands, lambda e: f"{e[0]} = {e[1]};")

    def join(self, step: dict[str, Any]) -> str:
        """Arrays one behind the other along an axis, which may be new."""
        out = step["out"][1]
        outer = math.prod(self.arrays[out]["shape"][: step["offset"]])
        lines, at = [], 0
        row = self.size(out) // outer if outer else 0
        for _, x in step["args"]:
            n = self.size(x) // outer if outer else 0
            if n:
                lines.append(f"for (ptrdiff_t i = 0; i < {outer}; i++) "
                             f"memcpy(a{out} + i * {row} + {at}, a{x} + i * {n}, "
                             f"{n} * sizeof(double));")
            at += n
        return "\n".join(lines)

    def missing(self, step: dict[str, Any]) -> str:
        raise RuntimeError(f"internal: to_c: {step['name']} in a plain program")

    def alias(self, step: dict[str, Any]) -> str:
        """Between a number and an array of one element."""
        (is_array, out), (_, x) = step["out"], step["args"][0]
        return f"a{out}[0] = @{x};" if is_array else f"a{x}[0]"

    def foreign(self, step: dict[str, Any]) -> str:
        raise RuntimeError("internal: to_c: a foreign step in a program without any")

    # -- functions

    def parts(self) -> list[list[_Piece]]:
        """The pieces, in stretches that compilers take in a short time: statements or tables."""
        parts: list[list[_Piece]] = [[]]
        lines = 0
        pieces = self.pieces()
        k = 0
        while k < len(pieces):
            end = k
            while self.tabled and end < len(pieces) and pieces[end].word is not None:
                end += 1
            if end - k >= _SHORTEST_TABLE:
                parts += [pieces[k:end], []]
                lines = 0
                k = end
                continue
            if lines > _LINES_IN_A_PART:
                parts.append([])
                lines = 0
            # no table begins inside a run that is too short for one
            for piece in pieces[k:max(end, k + 1)]:
                parts[-1].append(piece if piece.word is None else piece._replace(word=None))
                lines += piece.text.count("\n") + 1
            k = max(end, k + 1)
        return [part for part in parts if part] or [[]]

    def text(self) -> str:
        """The recording as functions, the last of which runs all."""
        parts = self.parts()
        # which registers each part must leave behind for the later ones
        left: list[set[int]] = []
        needed: set[int] = set()
        for part in reversed(parts):
            left.append(set(needed))
            for piece in reversed(part):
                if piece.target is not None:
                    needed.discard(piece.target)
                needed |= set(map(int, _REGISTER.findall(piece.text)))
        left.reverse()
        base = self.code["arena"] // 8
        split = len(parts) > 1 or self.tabled
        self.work = base + (self.code["registers"] + len(self.extra) if split else 0)
        parameters = self.parameters()
        if not split:
            return self.part(self.name, parts[0], left[0], parameters, base)
        texts, calls = [], self.filled(base) if self.tabled else []
        given = ", ".join(["in", *self.results, "work"])
        for k, (part, keep) in enumerate(zip(parts, left)):
            if part and part[0].word is not None:
                words = self.source.table((self.source.word(*piece.word) for piece in part
                                           if piece.word), f"{self.source.name}_word")
                calls.append(f"if (!status) status = {self.source.name}_run("
                             f"{words}, {len(part)}, work + {base});")
                for piece in part:
                    if piece.target is not None:
                        self.home[piece.target] = f"work[{base + piece.target}]"
            else:
                texts.append(self.part(f"{self.name}_part{k}", part, keep, parameters, base))
                calls.append(f"if (!status) status = {self.name}_part{k}({given});")
        body = "".join(f"    {line}\n" for line in ["int status = 0;", *calls, "return status;"])
        texts.append(f"static int {self.name}({parameters})\n{{\n{body}}}\n")
        return "\n".join(texts)

    def filled(self, base: int) -> list[str]:
        """Statements that put into registers what the words of tables find there."""
        lines = []
        for first, numbers in ((0, self.code["constants"]),
                               (self.code["registers"], list(self.extra))):
            if numbers:
                lines.append(f"memcpy(work + {base + first}, {self.numbers(numbers)}, "
                             f"{len(numbers)} * sizeof(double));")
        for is_array, where in self.code["in"]:
            if not is_array:
                lines.append(f"work[{base + where}] = {self.home_at_first[where]};")
        return lines

    def parameters(self) -> str:
        return ", ".join(["const double *in", *[f"double *{x}" for x in (*self.results, "work")]])

    def part(self, name: str, part: list[_Piece], keep: set[int], parameters: str,
             base: int) -> str:
        # what nobody reads is left out
        wanted = set(keep)
        pieces: list[tuple[int | None, str]] = []
        for target, text, _ in reversed(part):
            if target is not None:
                if target not in wanted:
                    continue
                wanted.discard(target)
            wanted |= set(map(int, _REGISTER.findall(text)))
            pieces.append((target, text))
        pieces.reverse()
        now: dict[int, str] = {}
        lines: list[str] = []

        def number(found: re.Match[str]) -> str:
            r = int(found[1])
            return now.get(r) or self.home[r]

        for target, text in pieces:
            text = _REGISTER.sub(number, text)
            if target is None:
                lines += text.splitlines()
                continue
            now[target] = f"t{len(lines)}"
            lines.append(f"const double t{len(lines)} = {text};")
        for r in sorted(keep & now.keys()):
            lines.append(f"work[{base + r}] = {now[r]};")
            self.home[r] = f"work[{base + r}]"
        arrays = sorted({int(k) for line in lines for k in _ARRAY.findall(line)})
        head = [f"{'const ' if self.is_constant(k) else ''}{self.arrays[k]['type']} *const a{k} = "
                f"{self.pointer(k)};" for k in arrays]
        lines = head + lines
        body = "\n".join(lines)
        lines += [f"(void){parameter};" for parameter in ("in", *self.results, "work")
                  if not re.search(rf"\b{parameter}\b", body)]
        lines.append("return 0;")
        body = "".join(f"    {line}\n" for line in lines)
        return f"static int {name}({parameters})\n{{\n{body}}}\n"


# The array instructions; a test compares them with those that programs have.
_INSTRUCTIONS: dict[str, Callable[[_Recording, dict[str, Any]], str]] = {
    "row": _Recording.elementwise, "partial": _Recording.partial, "sum_all": _Recording.sum_all,
    "broadcast": _Recording.broadcast, "sum_to": _Recording.sum_to,
    "transpose": _Recording.transpose, "cast": _Recording.cast, "matmul": _Recording.matmul,
    "get": _Recording.get, "put": _Recording.put, "assemble": _Recording.assemble,
    "alias": _Recording.alias,
    "foreign": _Recording.foreign, "slice": _Recording.slice, "scatter": _Recording.scatter,
    "join": _Recording.join, "sum_axes": _Recording.sum_axes, "mask": _Recording.mask,
    "write": _Recording.write, "take": _Recording.take, "give": _Recording.give,
    "cumsum": _Recording.cumsum, "extremum": _Recording.extremum, "ties": _Recording.ties,
    "complex_row": _Recording.missing, "part": _Recording.missing,
    "tiles": lambda self, step: self.tiles(step["first"], step["count"], step["offset"]),
}


# In the order of the core's enumeration; a test compares what they give.
_MASKS = (
    "{} < {}", "{} <= {}", "{} == {}", "{} != {}", "{} > {}", "{} >= {}",
    "({} != 0) & ({} != 0)", "({} != 0) | ({} != 0)", "({} != 0) ^ ({} != 0)", "{} == 0",
    "{0} != {0}", "fabs((double){}) == INFINITY", "fabs((double){}) < INFINITY",
    "signbit((double){}) != 0", "any", "all",
)


def _steps(own: Sequence[int], shape: Sequence[int], step: int) -> list[int]:
    """Steps along the axes of a stack that is seen as another; 0 where it is broadcast."""
    steps = [0] * len(shape)
    for k in range(1, min(len(own), len(shape)) + 1):
        steps[-k] = step if own[-k] != 1 else 0
        step *= own[-k]
    return steps


def _merged(shape: Sequence[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes where all strides allow it; at least one axis is left.

    It joins what the core joins (core/array.c), so that sums are taken in the same order.
    """
    lengths: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for k, n in enumerate(shape):
        if n == 1:
            continue
        if lengths and all(m[-1] == s[k] * n for m, s in zip(merged, strides)):
            lengths[-1] *= n
            for m, s in zip(merged, strides):
                m[-1] = s[k]
            continue
        lengths.append(n)
        for m, s in zip(merged, strides):
            m.append(s[k])
    if not lengths:
        return [1], [[0] for _ in strides]
    return lengths, merged


def _loops(shape: Sequence[int], operands: list[tuple[str, list[int]]],
           statement: Callable[[list[str]], str]) -> str:
    """Nested loops over a shape; an operand without strides is a number."""
    if 0 in shape:
        return ""
    strides = [s for x, s in operands if not x.startswith("@")]
    lengths, merged = _merged(shape, strides)
    arrays = [x for x, _ in operands if not x.startswith("@")]

    def all_of(elements: list[str]) -> str:
        found = iter(elements)
        return statement([x if x.startswith("@") else next(found) for x, _ in operands])

    return _nest(lengths, merged, arrays, all_of)


def _nest(lengths: Sequence[int], strides: list[list[int]], arrays: list[str],
          statement: Callable[[list[str]], str]) -> str:
    """Loops of these lengths around a statement about the elements of arrays."""
    index = "ijklmnpqruvw"
    names = [index[k] if len(lengths) <= len(index) else f"i{k}_" for k in range(len(lengths))]
    lines = [f"{'    ' * k}for (ptrdiff_t {i} = 0; {i} < {n}; {i}++)"
             for k, (i, n) in enumerate(zip(names, lengths))]
    elements = []
    for array, steps in zip(arrays, strides):
        terms = [i if s == 1 else f"{s} * {i}" for i, s in zip(names, steps) if s]
        elements.append(f"{array}[{' + '.join(terms) or '0'}]")
    return "\n".join([*lines, "    " * len(lengths) + statement(elements)])


def _shapes(recording: _Recording) -> str:
    lines, at = [], 0
    for k, (is_array, where) in enumerate(recording.code["in"][:recording.code["given"]]):
        shape = recording.arrays[where]["shape"] if is_array else ()
        size = math.prod(shape)
        what = f"an array of shape {shape} in C order" if is_array else "a number"
        there = f"in[{at}]" if size else "nothing"
        if size > 1:
            there += f" to in[{at + size - 1}]"
        lines.append(f" *     {there}: argument {k}, {what}")
        at += size
    return "\n".join(lines)


_NOTES = """\
 * Each function gives 0, or else the number of the guard that did not hold: what the original
 * looked at (an `if`) came out otherwise than in any recording.  Then all results are nan, and
 * `return` with that number shows the place; of several recordings it is the first one's.  Results
 * must not overlap inputs or work.  The functions keep nothing between calls: threads may call them
 * at once, each with a `work` of its own.
 *
 * Numbers have the bits that fastad computes, as long as the compiler keeps to IEEE (with GCC: no
 * -ffast-math, and -std=c99 or -ffp-contract=off where there are fused multiply-adds).  In arrays,
 * last bits of functions like exp may differ from NumPy's vector code, and those of products from
 * BLAS, which adds in another order, and so may the sign of a zero that is the maximum or minimum
 * of zeros of both signs; so a guard that wants every bit of such a number may fail.
"""


def c_source(name: str, what: str, functions: list[tuple[str, str | None, list[Any]]]) -> str:
    """Return C99 source of some functions.

    Parameters
    ----------
    name : str
        Prefix of everything in the file.
    what : str
        What the programs were made of.
    functions : list of (str, str or None, list)
        Name, derivative, and programs of each function.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"to_c: {name!r} is no name for a C function")
    if name in _WORDS_IN_C or name in dir(math):
        raise ValueError(f"to_c: {name!r} means something in C already; take another name")
    source = _Source(name)
    bodies, about = [], []
    for function, derivative, plans in functions:
        first = source.guards
        made = [_Recording(source, plan, f"{function}_way{k}", derivative)
                for k, plan in enumerate(plans)]
        if len({(r.n_in, r.n_value, r.n_gradient) for r in made}) > 1:
            raise ValueError("to_c: the recordings give results of different sizes")
        texts = [r.text() for r in made]
        one = made[0]
        given = ", ".join(["in", *one.results, "work"])
        calls = "".join(f"    if (status && !{r.name}({given})) status = 0;\n" for r in made[1:])
        fills = "".join(
            f"    for (ptrdiff_t i = 0; status && i < {n}; i++) {to}[i] = NAN;\n"
            for to, n in (("value", one.n_value), ("gradient", one.n_gradient)) if n)
        work = max(r.work for r in made)
        parameters = one.parameters()
        bodies += [f"enum {{ {function}_work = {work} }};\n", *texts,
                   f"int {function}({parameters})\n{{\n    int status = {one.name}({given});\n"
                   f"{calls}{fills}    return status;\n}}\n"]
        about.append(
            f" * int {function}({parameters})\n *\n{_shapes(one)}\n"
            f" *     value: {one.n_value} numbers"
            + (f"; gradient: {one.n_gradient} numbers" if "gradient" in one.results else "")
            + f"\n *     work: room for {work} doubles ({function}_work), NULL where that is 0\n"
            f" *     recordings: {len(made)}, with guards {first + 1} to {source.guards}"
            + ("" if source.guards > first else " (none)") + "\n *\n")
    title = what.replace("*/", "* /")
    version = sys.modules[__package__].__version__
    head = (
        f"/* {title}, as recorded by fastad {version}.\n *\n" + "".join(about) +
        f"{_NOTES}"
        " */\n"
        "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <string.h>\n\n"
        "#if defined(__clang__)\n#pragma STDC FP_CONTRACT OFF\n#endif\n"
        "#ifdef __cplusplus\nextern \"C\" {\n#endif\n")
    shared = [*source.used.values(), *source.machine(), *source.tables]
    return "\n".join([head, *shared, *bodies, "#ifdef __cplusplus\n}\n#endif\n"])
