"""What pictures say of structured primitives: what they compute, and what becomes of G on the way
back, the cotangent of their result.

In the templates ``{0}`` and ``{1}`` are operands, ``{y}`` is the result and ``{G}`` its cotangent.
With ``~`` they are conjugated where they are complex, with ``'`` transposed and conjugated, with
``^`` besides inverted.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

from . import formulas
from .formulas import Formula

_LONGEST = 60           # characters of a call with all its arguments
_SHOWN = 16             # and of one that is no operand


class Parts(NamedTuple):
    """What stands in the places of a template, and which of these are complex."""

    operands: list[Formula]
    result: Formula
    is_complex: list[bool]
    result_is_complex: bool


_PLACE = re.compile(r"\{([0-9yG])([~'^]?)\}")
_TEX = {"ᵀ": r"^{\top}", "⁻¹": "^{-1}", "ᴴ": "^{H}", " @ ": r"\,", " ": r"\,", "×": r"\times ",
        "conj(G)": r"\overline{G}", "Re(": r"\operatorname{Re}(", "Im(": r"\operatorname{Im}(",
        "diag(": r"\operatorname{diag}("}
_TEX_PARTS = re.compile("|".join(map(re.escape, sorted(_TEX, key=len, reverse=True))))


def _filled(template: str, parts: Parts, tex: bool) -> str:
    def one(found: re.Match[str]) -> str:
        what, how = found.groups()
        if what == "G":
            p, is_complex = "G", parts.result_is_complex
        elif what == "y":
            p, is_complex = parts.result, parts.result_is_complex
        else:
            p, is_complex = parts.operands[int(what)], parts.is_complex[int(what)]
        name = formulas.tex(p) if tex else formulas.text(p)
        if how in ("'", "^"):
            mark = "-" * (how == "^") + ("H" if is_complex else r"\top")
            if tex:
                return f"{name}^{{{mark}}}"
            return name + "⁻" * (how == "^") + ("ᴴ" if is_complex else "ᵀ")
        if how == "~" and is_complex:
            return rf"\overline{{{name}}}" if tex else f"conj({name})"
        return name

    if not tex:
        return _PLACE.sub(one, template)
    pieces, at = [], 0
    for found in _PLACE.finditer(template):
        pieces += [_in_tex(template[at : found.start()]), one(found)]
        at = found.end()
    return "".join([*pieces, _in_tex(template[at:])])


def _in_tex(text: str) -> str:
    return _TEX_PARTS.sub(lambda found: _TEX[found.group()], text)


# ---- what they compute ---------------------------------------------------------------------------


_COMPUTED = {
    "conjugate": "conj({0})", "real": "Re({0})", "imag": "Im({0})", "times_i": "i {0}",
    "transpose": "{0}ᵀ", "inv": "{0}⁻¹", "solve": "{0}⁻¹ @ {1}",
}


def computed(what: str, rule: Any, params: Any, parts: Parts) -> tuple[str, str]:
    """What a structured primitive computes, in text and TeX."""
    names = [formulas.text(p) for p in parts.operands]
    if what == "matmul" and not isinstance(params, dict):
        template = " @ ".join([f"{{{k}}}" + "ᵀ" * bool(turned and len(names) > k)
                               for k, turned in enumerate(params[:2])])
        return _filled(template, parts, False), _filled(template, parts, True)
    if what == "conjugate":
        return _filled("{0~}", parts, False), _filled("{0~}", parts, True)
    if what in _COMPUTED:
        return _filled(_COMPUTED[what], parts, False), _filled(_COMPUTED[what], parts, True)
    if what in ("setitem", "add_at"):
        added = " added" if "add" in (what[:3], _how(params)) else ""
        text = f"{names[0]} with {names[1]}{added} at {_place_text(params)}"
        return text, formulas.words_tex(text)
    if what == "view" and _turns(params):
        return _filled("{0}ᵀ", parts, False), _filled("{0}ᵀ", parts, True)
    if what == "view":
        text = f"a view of {names[0]}"
        return text, formulas.words_tex(text)
    if what.startswith("partial of "):
        row = formulas.ROWS[what.removeprefix("partial of ")]
        by = dict(zip(formulas.OPERANDS[row["arity"]], parts.operands))
        p = formulas.replaced(formulas.parsed(row["partials"][rule.side]),
                              {**by, "y": parts.operands[-1]})
        return formulas.text(p), formulas.tex(p)
    p, part = _call(what, params, parts.operands)
    return formulas.text(p) + part, formulas.tex(p) + (formulas.words_tex(part) if part else "")


def _turns(params: Any) -> bool:
    """Whether a view shows a whole array with its axes reversed."""
    place = params.get("place") if isinstance(params, dict) else None
    if not place or len(place[1]) < 2:
        return False
    shape, step, steps = place[1], 1, []
    for n in shape:             # as they lie in memory
        steps.append(step)
        step *= n
    return bool(place[0] == 0 and tuple(place[2]) == tuple(steps))


def _how(params: Any) -> str:
    return str(params.get("how", "")) if isinstance(params, dict) else ""


def _place_text(params: Any) -> str:
    if not isinstance(params, dict):
        return f"[{params}]"
    index = params.get("index")
    return "its place" if index is None else f"[{index_text(index)}]"


def _call(what: str, params: Any, operands: list[Formula]) -> tuple[Formula, str]:
    """A call of a function, and which part of its results is meant, as ``[0]``."""
    name = what.partition(":")[0]
    if not isinstance(params, dict):
        return formulas.make("call", name, *operands), ""
    if name.startswith("special."):
        orders = [float(x) for x in params.values() if isinstance(x, (int, float))]
        return formulas.make("call", _bare(name), *orders, *operands), ""
    if "inverse" in params:
        name = "i" * bool(params["inverse"]) + name
    elif what == "matrix_function":
        name = params["name"]
    elif what == "i0 and its derivatives":
        name = "i0" + "′" * params["order"]
    elif what == "sinc_of_complex":
        name = "sinc" + "′" * params["order"]
    elif what == "program":
        source = params["call"].program.source
        name = str(getattr(source, "__name__", type(source).__name__))
    if "places" not in params or name == "choose":      # whose arguments stand in another order
        return formulas.make("call", _bare(name), *operands), ""
    given, named = list(params["args"]), dict(params["kwargs"])
    of_ufunc = bool(given) and isinstance(given[0], np.ufunc)
    name = given[0].__name__ + name.removeprefix("ufunc").partition(" ")[0] if of_ufunc else (
        _bare(name))
    found = dict(zip(params["places"], operands))
    for k in named:
        found.setdefault(k, _static(named[k]))
    shown: list[Formula] = [found.get(k, _static(x)) for k, x in enumerate(given)]
    shown = shown[of_ufunc:]
    while shown and shown[-1] in ("None", "False"):
        shown.pop()
    shown += [f"{k}={formulas.text(found[k])}" for k in named]
    call = formulas.make("call", name, *shown)
    if len(formulas.text(call)) > _LONGEST:
        call = formulas.make("call", name, *operands)
    part = params["part"]
    return call, f"[{', '.join(map(str, part))}]" if part else ""


def _bare(name: str) -> str:
    return name.rpartition(".")[2].lstrip("_")


def _static(x: Any) -> Formula:
    """An argument that is no operand."""
    if isinstance(x, np.ndarray) and x.ndim:
        return "array"
    text = str(x) if isinstance(x, (np.ndarray, np.generic)) else repr(x)
    return text if len(text) <= _SHOWN and text.isprintable() else "…"


def index_text(index: Any) -> str:
    """An index as it is written."""
    def one(k: Any) -> str:
        if isinstance(k, slice):
            a, b, step = ["" if v is None else str(v) for v in (k.start, k.stop, k.step)]
            return f"{a}:{b}" + (f":{step}" if step else "")
        if k is Ellipsis:
            return "..."
        if k is None:
            return "None"
        return str(k) if np.ndim(k) == 0 else "array"
    return ", ".join([one(k) for k in index]) if isinstance(index, tuple) else one(index)


# ---- what becomes of the cotangent ---------------------------------------------------------------


# By operand; the last one is that of all that follow.
FORMULAS: dict[str, tuple[str, ...]] = {
    "astype": ("G",), "real": ("G",), "conjugate": ("{G~}",), "imag": ("i G",),
    "times_i": ("Im(G)",), "transpose": ("Gᵀ",), "trace": ("G I",),
    "prod": ("G {y~}/{0~}",), "norm": ("G {0}/{y}",),
    "det": ("G {y~} {0^}",), "inv": ("-{y'} G {y'}",),
    "solve": ("-{0^} G {y'}", "{0^} G"),
    "matvec": ("G {1'}", "{0'} G"), "vecmat": ("{1} {G~}", "{0} Gᵀ"),
    "vecdot": ("{G~} {1}", "G {0}"), "linalg.vecdot": ("{G~} {1}", "G {0}"),
    "cross": ("{1~} × G", "G × {0~}"), "linalg.cross": ("{1~} × G", "G × {0~}"),
}
_OF_A_TRANSFORM = ("the adjoint transform of G",)
_IN_ORDER = ("G in the old order",)
WORDS: dict[str, tuple[str, ...]] = {
    "sum": ("G for every element",), "sum_to": ("G for every element",),
    "broadcast_to": ("G summed",), "reshape": ("G reshaped",),
    "getitem": ("G there, 0 elsewhere",), "view": ("G there, 0 elsewhere",),
    "setitem": ("G, 0 where it is replaced", "G there"), "add_at": ("G", "G there"),
    "scatter": ("the entries of G",), "stack": ("its part of G",),
    "concatenate": ("its part of G",), "assemble": ("its entry of G",),
    "pad": ("the inside of G",), "cumsum": ("G summed from the end",),
    "max": ("G at the largest, shared by ties",), "min": ("G at the smallest, shared by ties",),
    "eigvalsh": ("V diag(G) {V'}, V: the eigenvectors",),
    "svdvals": ("U diag(G) {V'}, U and V: the singular vectors",),
    "sign": ("the part of G across {0}, by |{0}|",),
    **dict.fromkeys(("fft", "fftn", "rfft", "rfftn", "irfft", "irfftn"), _OF_A_TRANSFORM),
    "sort": _IN_ORDER, "partition": _IN_ORDER,
    "delete": ("G where it was kept, 0 elsewhere",),
    "sliding_window_view": ("G summed over the windows",),
    **dict.fromkeys(("tensordot", "dot", "inner", "einsum", "kron"),
                    ("G times the others, summed",)),
}


def matrix_sides(params: Any, shapes: list[tuple[int, ...]]) -> tuple[str, str]:
    """The cotangents of a product of two matrices, read as they are or transposed."""
    ta, tb = bool(params[0]), bool(params[1])
    na, nb = len(shapes[0]), len(shapes[1])
    if na == 1 and nb == 1:
        return "G {1~}", "G {0~}"
    if nb == 1:
        return ("{1~} Gᵀ" if ta else "G {1'}"), ("{0~} G" if ta else "{0'} G")
    if na == 1:
        return ("{1~} G" if not tb else "{1'} G"), ("{0~} Gᵀ" if not tb else "G {0'}")
    left = ("{1'} Gᵀ" if tb else "{1~} Gᵀ") if ta else ("G {1~}" if tb else "G {1'}")
    right = ("Gᵀ {0'}" if ta else "Gᵀ {0~}") if tb else ("{0~} G" if ta else "{0'} G")
    return left, right


def template(what: str, params: Any, side: int, shapes: list[tuple[int, ...]]) -> str | None:
    """The formula of an operand's cotangent, None where there are only words.

    Examples
    --------
    >>> from fastad.labels import template
    >>> template("solve", {}, 1, [(3, 3), (3,)])
    '{0^} G'
    """
    if what == "matmul" and not isinstance(params, dict):
        return matrix_sides(params, shapes)[side]
    if what in ("dot", "inner") and max([len(s) for s in shapes]) <= 2:
        return matrix_sides((False, what == "inner"), shapes)[side]
    if what == "view" and _turns(params):
        return "Gᵀ" if math.prod(shapes[side]) == math.prod(params["place"][1]) else None
    found = FORMULAS.get(what)
    return None if found is None else found[min(side, len(found) - 1)]


def pulled_back(
    what: str, params: Any, side: int, shapes: list[tuple[int, ...]], parts: Parts
) -> tuple[str, str]:
    """What becomes of G on its way to an operand, in text and TeX."""
    formula = template(what, params, side, shapes)
    if formula is not None:
        if parts.result_is_complex and not parts.is_complex[side] and what != "times_i":
            formula = f"Re({formula})"
        return _filled(formula, parts, False), _filled(formula, parts, True)
    what = "add_at" if what == "setitem" and _how(params) == "add" else what
    words = WORDS.get(what, (f"G through {_call(what, params, [])[0][1]}",))
    chosen = words[min(side, len(words) - 1)]
    chosen = chosen.replace("{V'}", "Vᴴ" if any(parts.is_complex) else "Vᵀ")
    text = chosen.replace("{0}", formulas.text(parts.operands[side])) if "{0}" in chosen else chosen
    return text, formulas.words_tex(text)
