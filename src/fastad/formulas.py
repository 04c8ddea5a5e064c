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
from collections.abc import Callable, Mapping
from typing import Any

from . import _core

Formula = Any

ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in _core.table()}

# What C calls it, and what it is called here.
_C_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2",
            "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "lgamma_": "lgamma",
            "remainder_": "remainder", "fabs": "absolute", "log": "ln"}
_PI = ("constant", "π", r"\pi")
_CONSTANTS: dict[str, Formula] = {
    "FAD_LN2": ("call", "ln", 2.0), "FAD_1_LN2": ("/", 1.0, ("call", "ln", 2.0)),
    "FAD_1_LN10": ("/", 1.0, ("call", "ln", 10.0)),
    "FAD_2_SQRTPI": ("/", 2.0, ("call", "sqrt", _PI)),
    "FAD_RADIAN": ("/", 180.0, _PI), "FAD_DEGREE": ("/", _PI, 180.0),
    "FAD_NAN": ("constant", "none", r"\text{none}"),
}
_SIGNS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
          "==": operator.eq, "!=": operator.ne}
_NOT = {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="}
_BOTH = {("<=", "!="): "<", (">=", "!="): ">", ("<=", "=="): "==", (">=", "=="): "=="}
_SHOWN = {"<": ("<", r"\lt "), ">": (">", r"\gt "), "<=": ("≤", r"\le "), ">=": ("≥", r"\ge "),
          "==": ("=", "="), "!=": ("≠", "≠")}
_OPERATORS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.Gt: ">",
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
    kind = {"pow": "^", "zmul": "*", "where": "where"}.get(name)
    return make(kind, *parts) if kind else make("call", _C_NAMES.get(name, name), *parts)


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


_OPERANDS = {1: ("x",), 2: ("a", "b"), 3: ("a", "b", "c")}


def value_formula(name: str, operands: list[Formula]) -> Formula:
    """What a row computes of these operands, where that is short; else ``name(operands)``."""
    row = ROWS[name]
    names = _OPERANDS[row["arity"]]
    p = parsed(row["primal"])
    called = _is(p, "call") and p[1] not in ("sqrt", "cbrt", "absolute", "exp")
    if called or type(p) is str or "where" in row["primal"] or "FAD_" in row["primal"]:
        return ("call", _C_NAMES.get(name, name), *operands)
    return replaced(p, dict(zip(names, operands)))


def partial_formula(
    name: str, side: int, operands: list[Formula], at: list[float | None], y: float | None
) -> tuple[Formula, list[Formula]]:
    """The partial of a row to an operand, and the comparisons that made it so.

    `at` and `y` are the values where these are numbers: they decide between the cases of a kink.
    The result of the row is written in terms of its operands.

    Examples
    --------
    >>> from fastad.formulas import partial_formula, text
    >>> text(partial_formula("power", 0, ["x", 3.0], [2.0, 3.0], 8.0)[0])
    '3x²'
    """
    row = ROWS[name]
    names = _OPERANDS[row["arity"]]
    numbers = {k: v for k, v in zip((*names, "y"), (*at, y)) if v is not None and not math.isnan(v)}
    p, why = taken(parsed(row["partials"][side]), numbers)
    by = {**dict(zip(names, operands)), "y": value_formula(name, operands)}
    if type(p) is not float:
        why = []        # the formula tells enough
    reasons = [replaced(c, by) for c in why]
    return replaced(p, by), [c for c in reasons if type(c) is tuple]


# ---- writing them --------------------------------------------------------------------------------


def number_text(x: Any, digits: int = 4) -> str:
    """A number to so many digits; of large whole numbers all."""
    if isinstance(x, complex):
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
    if exponent and not isinstance(x, complex):
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
    if type(p) is float:
        return number_text(p, 6)
    if type(p) is str:
        return p
    kind = p[0]
    if kind in "+-":
        return f"{_text(p[1], _SUM)} {kind} {_text(p[2], _PRODUCT if kind == '-' else _SUM)}"
    if kind == "*":
        left, right = _text(p[1], _PRODUCT), _text(p[2], _POWER if _is(p[2], "neg") else _PRODUCT)
        return left + _between(p[1], p[2], right) + right
    if kind == "/":
        return f"{_text(p[1], _PRODUCT)}/{_text(p[2], _POWER)}"
    if kind == "neg":
        return "-" + _text(p[1], _PRODUCT)
    if kind == "^":
        if type(p[2]) is float and p[2] == int(p[2]):
            return _text(p[1], _ATOM) + str(int(p[2])).translate(_SUPERSCRIPTS)
        return f"{_text(p[1], _ATOM)}^{_text(p[2], _ATOM)}"
    if kind == "where":
        return f"{_text(p[2], _SUM)} if {text(p[1])} else {text(p[3])}"
    if kind == "cmp":
        return f"{_text(p[2], _SUM)} {_SHOWN[p[1]][0]} {_text(p[3], _SUM)}"
    if kind == "constant":
        return str(p[1])
    inside = ", ".join([text(part) for part in p[2:]])
    if p[1] == "absolute":
        return f"|{inside}|"
    if p[1] in ("sqrt", "cbrt"):
        root = "√" if p[1] == "sqrt" else "∛"
        return root + (inside if _level(p[2]) == _ATOM and type(p[2]) is not tuple
                       else f"({inside})")
    return f"{p[1]}({inside})"


def _text(p: Formula, least: int) -> str:
    return text(p) if _level(p) >= least else f"({text(p)})"


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


def tex(p: Formula) -> str:
    """The formula in TeX, of what KaTeX and MathJax know."""
    if type(p) is float:
        return number_tex(p, 6)
    if type(p) is str:
        return name_tex(p)
    kind = p[0]
    if kind in "+-":
        return f"{_tex(p[1], _SUM)} {kind} {_tex(p[2], _PRODUCT if kind == '-' else _SUM)}"
    if kind == "*":
        dot = r" \cdot " if type(p[1]) is not float or type(p[2]) is float else r"\, "
        return _tex(p[1], _PRODUCT) + dot + _tex(p[2], _POWER if _is(p[2], "neg") else _PRODUCT)
    if kind == "/":
        return rf"\frac{{{tex(p[1])}}}{{{tex(p[2])}}}"
    if kind == "neg":
        return "-" + _tex(p[1], _PRODUCT)
    if kind == "^":
        return f"{_tex(p[1], _ATOM)}^{{{tex(p[2])}}}"
    if kind == "where":
        return rf"{_tex(p[2], _SUM)}\ \text{{if}}\ {tex(p[1])}\ \text{{else}}\ {tex(p[3])}"
    if kind == "cmp":
        return f"{_tex(p[2], _SUM)} {_SHOWN[p[1]][1]} {_tex(p[3], _SUM)}"
    if kind == "constant":
        return str(p[2])
    inside = ", ".join([tex(part) for part in p[2:]])
    if p[1] == "absolute":
        return rf"\left|{inside}\right|"
    if p[1] in ("sqrt", "cbrt"):
        return rf"\sqrt{'' if p[1] == 'sqrt' else '[3]'}{{{inside}}}"
    if p[1] in _TEX_FUNCTIONS:
        return rf"\{p[1]}({inside})"
    return rf"\operatorname{{{p[1].replace('_', chr(92) + '_')}}}({inside})"


def _tex(p: Formula, least: int) -> str:
    return tex(p) if _level(p) >= least else f"({tex(p)})"
