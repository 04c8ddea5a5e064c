"""Formulas of the op table to read: simplified, with the names of one's own, as text and as TeX.

A formula is a float, a name (str), or a tuple of a kind and its parts: ``("+", p, q)`` and so on
for ``- * / ^``, ``("neg", p)``, ``("call", f, p, ...)``, ``("where", condition, p, q)``,
``("cmp", sign, p, q)`` and ``("constant", text, tex)``.  `make` builds one from simplified parts
and simplifies; what it does holds for all finite values.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _core

Formula = Any

ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in _core.table()}

# What C calls it, and what it is called here.
_C_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2",
            "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "lgamma_": "lgamma",
            "remainder_": "remainder", "fabs": "absolute", "log": "ln"}
_PI, _I = ("constant", "π", r"\pi"), ("constant", "i", "i")
_CONSTANTS: dict[str, Formula] = {
    "FAD_LN2": ("call", "ln", 2.0), "FAD_1_LN2": ("/", 1.0, ("call", "ln", 2.0)),
    "FAD_1_LN10": ("/", 1.0, ("call", "ln", 10.0)),
    "FAD_2_SQRTPI": ("/", 2.0, ("call", "sqrt", _PI)),
    "FAD_RADIAN": ("/", 180.0, _PI), "FAD_DEGREE": ("/", _PI, 180.0),
    "FAD_NAN": ("constant", "none", r"\text{none}"),
    # of the special functions
    "PI": _PI, "SQRT_PI": ("call", "sqrt", _PI), "TWO_SQRTPI": ("/", 2.0, ("call", "sqrt", _PI)),
    "SQRT_2": ("call", "sqrt", 2.0), "SQRT_2PI": ("call", "sqrt", ("*", 2.0, _PI)),
    "LN10": ("call", "ln", 10.0), "LOG_2PI": ("call", "ln", ("*", 2.0, _PI)),
    "DEGREE": ("/", _PI, 180.0),
}
_SIGNS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
          "==": operator.eq, "!=": operator.ne}
_NOT = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
_BOTH = {("<=", "!="): "<", (">=", "!="): ">", ("<=", "=="): "==", (">=", "=="): "=="}
_SHOWN = {"<": ("<", r"\lt "), ">": (">", r"\gt "), "<=": ("≤", r"\le "), ">=": ("≥", r"\ge "),
          "==": ("=", "="), "!=": ("≠", "≠")}
_OPERATORS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "^", ast.Lt: "<", ast.Gt: ">",
    ast.LtE: "<=", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}
_VALUES: dict[str, Callable[..., float]] = {"+": operator.add, "-": operator.sub,
                                            "*": operator.mul, "/": operator.truediv}


# ---- making them ---------------------------------------------------------------------------------


@functools.cache
def parsed(text: str) -> Formula:
    """The formula of an expression of the op table."""
    return _read(ast.parse(text, mode="eval").body)


def _read(node: Any) -> Formula:
    if isinstance(node, ast.Constant) and isinstance(node.value, complex):
        return make("*", float(node.value.imag), _I)
    if isinstance(node, ast.Constant):
        return float(str(node.value))
    if isinstance(node, ast.Name):
        return _CONSTANTS.get(node.id, node.id)
    if isinstance(node, ast.BinOp):
        return make(_OPERATORS[type(node.op)], _read(node.left), _read(node.right))
    if isinstance(node, ast.UnaryOp):
        return make("neg", _read(node.operand))
    if isinstance(node, ast.Compare):
        return make("cmp", _OPERATORS[type(node.ops[0])], _read(node.left),
                    _read(node.comparators[0]))
    name, parts = node.func.id, [_read(p) for p in node.args]
    if name == "one_minus_square":
        return make("-", 1.0, make("^", parts[0], 2.0))
    if name == "square":
        return make("^", parts[0], 2.0)
    kind = {"pow": "^", "power": "^", "zmul": "*", "where": "where"}.get(name)
    return make(kind, *parts) if kind else make(
        "call", _C_NAMES.get(name, name.lstrip("_")), *parts)


def make(kind: str, *parts: Any) -> Formula:
    """A formula of these parts, simplified."""
    return _MAKERS.get(kind, lambda *p: (kind, *p))(*parts)


def _is(p: Formula, kind: str) -> bool:
    return type(p) is tuple and p[0] == kind


def _sum(p: Formula, q: Formula) -> Formula:
    if type(p) is float and type(q) is float:
        return p + q
    if p == 0.0 or q == 0.0:
        return q if p == 0.0 else p
    if _is(q, "neg"):
        return _difference(p, q[1])
    return _product(2.0, p) if p == q else ("+", p, q)


def _difference(p: Formula, q: Formula) -> Formula:
    if type(p) is float and type(q) is float:
        return p - q
    if q == 0.0 or p == 0.0:
        return p if q == 0.0 else _negative(q)
    return _sum(p, q[1]) if _is(q, "neg") else ("-", p, q)


def _negative(p: Formula) -> Formula:
    if type(p) is float:
        return -p
    if _is(p, "neg"):
        return p[1]
    if _is(p, "*") and type(p[1]) is float:
        return _product(-p[1], p[2])
    return ("neg", p)


def _product(p: Formula, q: Formula) -> Formula:
    if type(p) is float and type(q) is float:
        return p * q
    if type(q) is float:
        p, q = q, p
    if p == 0.0:
        return 0.0
    if p == 1.0 or p == -1.0:
        return q if p == 1.0 else _negative(q)
    if _is(p, "neg") or _is(q, "neg"):
        return _negative(_product(p[1] if _is(p, "neg") else p, q[1] if _is(q, "neg") else q))
    if _is(q, "*") and type(q[1]) is float:
        return _product(_product(p, q[1]), q[2])
    if _is(q, "/"):
        return _quotient(_product(p, q[1]), q[2])
    if _is(p, "*") and _base(p[2]) == _base(q):
        return _product(p[1], _product(p[2], q))
    if type(p) is not float and _base(p) == _base(q):
        return _power(_base(p), _sum(_exponent(p), _exponent(q)))
    return ("*", p, q)


def _base(p: Formula) -> Formula:
    return p[1] if _is(p, "^") else p


def _exponent(p: Formula) -> Formula:
    return p[2] if _is(p, "^") else 1.0


def _quotient(p: Formula, q: Formula) -> Formula:
    if q == 1.0 or p == 0.0:
        return p
    if _is(p, "neg") or (type(p) is float and p < 0.0):
        return _negative(_quotient(_negative(p), q))
    if p == 0.5 and type(q) is not float:
        return _quotient(1.0, _product(2.0, q))
    if _is(p, "/"):
        return _quotient(p[1], _product(p[2], q))
    if _is(q, "/"):
        return _quotient(_product(p, q[2]), q[1])
    return ("/", p, q)


def _power(p: Formula, q: Formula) -> Formula:
    if type(p) is float and type(q) is float and q == int(q) and abs(q) < 10.0 and p != 0.0:
        return p**q
    if q == 1.0 or q == 0.0:
        return p if q == 1.0 else 1.0
    if q == -1.0:
        return _quotient(1.0, p)
    if _is(p, "/") and p[1] == 1.0:
        return _quotient(1.0, _power(p[2], q))
    return make("call", "sqrt", p) if q == 0.5 else ("^", p, q)


def _choice(condition: Formula, p: Formula, q: Formula) -> Formula:
    if condition is True or p == q:
        return p
    if condition is False:
        return q
    return ("where", condition, p, q)


def _comparison(sign: str, p: Formula, q: Formula) -> Formula:
    if p == q:      # of nan too the formulas of the table speak; a picture does not
        return sign in ("==", "<=", ">=")
    if type(p) is float and type(q) is float:
        return _SIGNS[sign](p, q)
    if _is(p, "-") and p[1] == p[2]:
        return _comparison(sign, 0.0, q)
    return ("cmp", sign, p, q)


_MAKERS: dict[str, Callable[..., Formula]] = {
    "+": _sum, "-": _difference, "*": _product, "/": _quotient, "^": _power, "neg": _negative,
    "where": _choice, "cmp": _comparison,
}


def replaced(p: Formula, by: Mapping[str, Formula]) -> Formula:
    """The formula with other names, numbers or formulas for its names."""
    if type(p) is str:
        return by.get(p, p)
    if type(p) is not tuple or p[0] == "constant":
        return p
    first = 2 if p[0] in ("call", "cmp") else 1
    return make(*p[:first], *[replaced(part, by) for part in p[first:]])


def _number(p: Formula, at: Mapping[str, float]) -> float:
    """The value of a formula without functions; KeyError where that is not to be had."""
    if type(p) is float:
        return p
    if type(p) is str:
        return at[p]
    if p[0] == "neg":
        return -_number(p[1], at)
    return _VALUES[p[0]](_number(p[1], at), _number(p[2], at))


def taken(p: Formula, at: Mapping[str, float]) -> tuple[Formula, list[Formula]]:
    """The formula without the choices that the numbers `at` decide, and why they are so."""
    if type(p) is not tuple or p[0] == "constant":
        return p, []
    if p[0] == "where":
        condition = p[1]
        if not _is(condition, "cmp"):
            condition = ("cmp", "!=", condition, 0.0)
        _, sign, left, right = condition
        try:
            holds = _SIGNS[sign](_number(left, at), _number(right, at))
        except (KeyError, ZeroDivisionError):
            return p, []
        rest, why = taken(p[2] if holds else p[3], at)
        why = [("cmp", sign if holds else _NOT[sign], left, right), *why]
        if len(why) > 1 and why[0][2:] == why[1][2:] and (why[0][1], why[1][1]) in _BOTH:
            why[:2] = [("cmp", _BOTH[why[0][1], why[1][1]], left, right)]
        return rest, why
    first = 2 if p[0] in ("call", "cmp") else 1
    parts, why = [], []
    for part in p[first:]:
        rest, more = taken(part, at)
        parts.append(rest)
        why += more
    return make(*p[:first], *parts), why


# ---- what the table says -------------------------------------------------------------------------


OPERANDS = {1: ("x",), 2: ("a", "b"), 3: ("a", "b", "c")}


class NoFormula(LookupError):
    """A table has no formula that could be read."""


class Row(NamedTuple):
    """What a table says of an elementwise function: ``partials`` are formulas of ``operands`` and
    of the result ``y``; one is None that has no formula which could be read."""

    name: str
    operands: tuple[str, ...]
    partials: tuple[Formula | None, ...]


@functools.cache
def row_of(primitive: str) -> Row | None:
    """The row of a primitive in the op table or in that of the special functions, if it has one.

    The operands of special functions begin with their orders.
    """
    if primitive in ROWS:
        row = ROWS[primitive]
        return Row(primitive, OPERANDS[row["arity"]], tuple(map(parsed, row["partials"])))
    if not primitive.startswith("special."):
        return None
    from . import special  # it costs milliseconds to import; a record with it has done so

    found = vars(special)["ROWS"].get(primitive.removeprefix("special."))
    if found is None:
        return None
    partials = tuple([_read_with(text, found.let) for text in found.partials])
    return Row(found.name.lstrip("_"), (*found.orders, *found.arguments), partials)


def _read_with(text: str, let: dict[str, str]) -> Formula | None:
    """A formula with those that stand for names in it."""
    try:
        p = parsed(text)
        for name in reversed(let):
            p = replaced(p, {name: parsed(let[name])})
        return p
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError):
        return None         # no arithmetic, or words


def value_formula(name: str, operands: list[Formula]) -> Formula:
    """What a row computes of these operands, where that is short; else ``name(operands)``."""
    row = ROWS.get(name)
    if row is None:
        return ("call", row_of(name).name, *operands)       # type: ignore[union-attr]
    names = OPERANDS[row["arity"]]
    p = parsed(row["primal"])
    called = _is(p, "call") and p[1] not in ("sqrt", "cbrt", "absolute", "exp")
    if called or type(p) is str or "where" in row["primal"] or "FAD_" in row["primal"]:
        return ("call", _C_NAMES.get(name, name), *operands)
    return replaced(p, dict(zip(names, operands)))


def partial_formula(
    name: str, side: int, operands: list[Formula], at: list[float | None], y: float | None,
    result: Formula = None
) -> tuple[Formula, list[Formula]]:
    """The partial of a row to an operand, and the comparisons that made it so.

    `at` and `y` are the values where these are numbers: they decide between the cases of a kink.
    Where the partial contains the result, that is called `result`, or, with None, written in terms
    of its operands.

    Raises
    ------
    NoFormula
        If there is none.

    Examples
    --------
    >>> from fastad.formulas import partial_formula, text
    >>> text(partial_formula("power", 0, ["x", 3.0], [2.0, 3.0], 8.0)[0])
    '3x²'
    """
    row = row_of(name)
    if row is None:
        raise NoFormula(name)
    # orders stand before the operands and have no partials
    partial = row.partials[side - (len(row.operands) - len(row.partials))]
    if partial is None:
        raise NoFormula(name)
    numbers = {k: v for k, v in zip((*row.operands, "y"), (*at, y))
               if v is not None and not math.isnan(v)}
    p, why = taken(partial, numbers)
    result = value_formula(name, operands) if result is None else result
    by = {**dict(zip(row.operands, operands)), "y": result}
    if type(p) is not float:
        why = []        # the formula tells enough
    reasons = [replaced(c, by) for c in why]
    return replaced(p, by), [c for c in reasons if type(c) is tuple]


def is_real(p: Formula, real: Container[str]) -> bool:
    """Whether a formula has real values where the names `real` have such, as far as one sees."""
    if type(p) is str:
        return p in real
    if type(p) is not tuple:
        return True
    if p[0] == "constant":
        return p != _I
    if p[0] == "where":
        return is_real(p[2], real) and is_real(p[3], real)
    if p[0] == "call" and p[1] in ("absolute", "fabs"):
        return True
    first = 2 if p[0] in ("call", "cmp") else 1
    return all(is_real(part, real) for part in p[first:])


# ---- writing them --------------------------------------------------------------------------------


def number_text(x: Any, digits: int = 4) -> str:
    """A number to so many digits; of large whole numbers all."""
    if np.iscomplexobj(x):
        imaginary = number_text(x.imag, digits)
        return f"{number_text(x.real, digits)}{'' if imaginary[0] == '-' else '+'}{imaginary}i"
    x = float(x)
    if not math.isfinite(x):
        return "nan" if x != x else "inf" if x > 0.0 else "-inf"
    if abs(x) < 1e6:
        if x == int(x):
            return str(int(x))
        if abs(x) >= 1.0:
            digits = max(digits, len(str(int(abs(x)))))
    return f"{x:.{digits}g}"


def number_tex(x: Any, digits: int = 4) -> str:
    """The same in TeX."""
    text = number_text(x, digits)
    mantissa, exponent, power = text.partition("e")
    if exponent and not np.iscomplexobj(x):
        return rf"{mantissa} \cdot 10^{{{int(power)}}}"
    return {"nan": r"\text{nan}", "inf": r"\infty", "-inf": r"-\infty"}.get(text, text)


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_SUM, _PRODUCT, _NEGATIVE, _POWER, _ATOM = range(5)


def _level(p: Formula) -> int:
    if type(p) is float:
        return _ATOM if p >= 0.0 else _NEGATIVE
    if type(p) is str:
        return _ATOM
    kind = p[0]
    return {"+": _SUM, "-": _SUM, "where": _SUM - 1, "cmp": _SUM - 1, "*": _PRODUCT,
            "/": _PRODUCT, "neg": _NEGATIVE, "^": _POWER}.get(kind, _ATOM)


def text(p: Formula) -> str:
    """The formula in one line of Unicode."""
    return _written(p, False)


def tex(p: Formula) -> str:
    """The formula in TeX, of what KaTeX and MathJax know."""
    return _written(p, True)


def _written(p: Formula, in_tex: bool) -> str:
    """The formula in TeX or as text."""
    def part(q: Formula, least: int) -> str:
        inside = _written(q, in_tex)
        return inside if _level(q) >= least else f"({inside})"

    if type(p) is float:
        return number_tex(p, 6) if in_tex else number_text(p, 6)
    if type(p) is str:
        return name_tex(p) if in_tex else p
    kind = p[0]
    if kind in "+-":
        return f"{part(p[1], _SUM)} {kind} {part(p[2], _PRODUCT if kind == '-' else _SUM)}"
    if kind == "neg":
        return "-" + part(p[1], _PRODUCT)
    if kind == "*":
        right = part(p[2], _POWER if _is(p[2], "neg") else _PRODUCT)
        between = r"\, " if type(p[1]) is float and type(p[2]) is not float else r" \cdot "
        return part(p[1], _PRODUCT) + (between if in_tex else _between(p[1], p[2], right)) + right
    if kind == "/":
        if in_tex:
            return rf"\frac{{{tex(p[1])}}}{{{tex(p[2])}}}"
        return f"{part(p[1], _PRODUCT)}/{part(p[2], _POWER)}"
    if kind == "^":
        base = part(p[1], _ATOM)
        if in_tex:
            return f"{base}^{{{tex(p[2])}}}"
        if type(p[2]) is float and p[2] == int(p[2]):
            return base + str(int(p[2])).translate(_SUPERSCRIPTS)
        return f"{base}^{part(p[2], _ATOM)}"
    if kind == "where":
        if_, else_ = (r"\ \text{if}\ ", r"\ \text{else}\ ") if in_tex else (" if ", " else ")
        return f"{part(p[2], _SUM)}{if_}{part(p[1], _SUM - 1)}{else_}{part(p[3], _SUM - 1)}"
    if kind == "cmp":
        return f"{part(p[2], _SUM)} {_SHOWN[p[1]][in_tex]} {part(p[3], _SUM)}"
    if kind == "constant":
        return str(p[1 + in_tex])
    return _call_written(p[1], p[2:], ", ".join([_written(q, in_tex) for q in p[2:]]), in_tex)


def _call_written(name: str, operands: tuple[Formula, ...], inside: str, in_tex: bool) -> str:
    """A function of operands that are written already."""
    if name in ("absolute", "fabs"):
        return rf"\left|{inside}\right|" if in_tex else f"|{inside}|"
    if name in ("sqrt", "cbrt") and in_tex:
        return rf"\sqrt{'' if name == 'sqrt' else '[3]'}{{{inside}}}"
    if name in ("sqrt", "cbrt"):
        root = "√" if name == "sqrt" else "∛"
        bare = _level(operands[0]) == _ATOM and type(operands[0]) is not tuple
        return root + (inside if bare else f"({inside})")
    if not in_tex:
        return f"{name}({inside})"
    if name == "conj":
        return rf"\overline{{{inside}}}"
    if name in _TEX_FUNCTIONS:
        return rf"\{name}({inside})"
    if not re.fullmatch(r"[\w.]+", name):
        return f"{words_tex(name)}({inside})"
    return rf"\operatorname{{{name.replace('_', chr(92) + '_')}}}({inside})"


def _between(p: Formula, q: Formula, right: str) -> str:
    """What stands between two factors."""
    if type(p) is not float:
        return "·"
    base = _base(q)
    if right[0] in "(√∛" or (type(base) is str and re.fullmatch(r"[^\W\d](_?\d+)?", base)):
        return ""
    return " " if _is(q, "call") or _is(q, "^") and type(base) is not str else "·"


_GREEK = set("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu xi pi rho sigma "
             "tau upsilon phi chi psi omega".split())
_TEX_FUNCTIONS = set("sin cos tan sinh cosh tanh arcsin arccos arctan exp ln".split())
_TEX_SPECIAL = {"\\": r'\char"5C ', "{": r"\{", "}": r"\}", "_": r"\_", "^": r"\^{}", "#": r"\#",
                "$": r"\$", "%": r"\%", "&": r"\&", "~": r"\~{}"}


def words_tex(words: str) -> str:
    """Words in TeX."""
    return r"\text{" + "".join([_TEX_SPECIAL.get(c, c) for c in words]) + "}"


def name_tex(name: str) -> str:
    """A name in TeX: one letter in italics, digits at its end as an index."""
    if name.endswith("′"):
        return name_tex(name[:-1]) + "'"
    found = re.fullmatch(r"([a-zA-Z]+)_?(\d*)", name)
    if found is None:
        return words_tex(name)
    letters, index = found.groups()
    if letters in _GREEK:
        letters = "\\" + letters
    elif len(letters) > 1:
        letters = rf"\mathrm{{{letters}}}"
    return f"{letters}_{{{index}}}" if index else letters
