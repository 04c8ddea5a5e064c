"""Write src/fastad/__init__.pyi: the types of fastad's public names.

Most public functions come from tables at run time (a row of ops.def, NumPy's names for it), where
no type checker can see them.  This reads them from the installed package:

    python .ci/stubs.py            print the stub
    python .ci/stubs.py --write    write it into the source tree

A test compares the stub with what this prints.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path

import fastad as ad
from fastad import _core, numpy_api

STUB = Path(__file__).resolve().parent.parent / "src" / "fastad" / "__init__.pyi"

HEAD = '''
"""Types of fastad's public names, written by .ci/stubs.py; change that file instead."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
'''

AXIS = "_Axis"
DTYPE = "npt.DTypeLike | None"
LIKE = "TensorLike"
TYPES = {
    **dict.fromkeys("a A ary arr array b m v val x x1 x2 y arys start stop step object "
                    "fill_value prototype".split(), LIKE),
    **dict.fromkeys("keepdims requires_grad endpoint retstep".split(), "bool"),
    **dict.fromkeys("N n k ndmin num offset axis1 axis2 decimals".split(), "int"),
    **dict.fromkeys("order kind".split(), "str | None"),
    **dict.fromkeys("arrays tup".split(), "Tensor | Sequence[TensorLike]"),
    "M": "int | None",
    "axes": "Any",
    "axis": AXIS,
    "copy": "bool | None",
    "ddof": "float",
    "dtype": DTYPE,
    "initial": "TensorLike",
    "correction": "float",
    "mode": "str",
    "out": "None",
    "shape": "_Shape",
    "stable": "bool | None",
    "tol": "float",
}
RETURNS = {
    "Tensor": "Tensor",
    "int": "int",
    "list": "list[Tensor]",
    "tuple": "tuple[Tensor, ...]",
}
# What a signature at run time does not tell.
BY_HAND = {
    "all": "def all(a: TensorLike, axis: _Axis = None, out: None = None, keepdims: bool = False, "
           "*, where: npt.ArrayLike = True) -> Tensor | np.bool_: ...",
    "any": "def any(a: TensorLike, axis: _Axis = None, out: None = None, keepdims: bool = False, "
           "*, where: npt.ArrayLike = True) -> Tensor | np.bool_: ...",
    "arange": "def arange(start: float, stop: float | None = None, step: float = 1, "
              "dtype: npt.DTypeLike | None = None, *, requires_grad: bool = False) -> Tensor: ...",
    "clip": "def clip(a: TensorLike, a_min: TensorLike | None = None, "
            "a_max: TensorLike | None = None, out: None = None, *, min: TensorLike | None = None, "
            "max: TensorLike | None = None) -> Tensor: ...",
    "divmod": "def divmod(x1: TensorLike, x2: TensorLike, /) -> tuple[Tensor, Tensor]: ...",
    "shape": "def shape(a: TensorLike) -> tuple[int, ...]: ...",
    "linspace": """
        @overload
        def linspace(start: TensorLike, stop: TensorLike, num: int = 50, endpoint: bool = True,
                     retstep: Literal[False] = False, dtype: npt.DTypeLike | None = None,
                     axis: int = 0, *, requires_grad: bool = False) -> Tensor: ...
        @overload
        def linspace(start: TensorLike, stop: TensorLike, num: int = 50, endpoint: bool = True,
                     *, retstep: Literal[True], dtype: npt.DTypeLike | None = None,
                     axis: int = 0, requires_grad: bool = False) -> tuple[Tensor, Any]: ...
        """,
    "where": """
        @overload
        def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor: ...
        @overload
        def where(condition: TensorLike) -> tuple[Any, ...]: ...
        """,
}


def from_row(name: str, row: dict) -> str:
    operands = ", ".join(f"{x}: TensorLike" for x in (["x"] if row["arity"] == 1 else "abc")
                         [: row["arity"]])
    return f"def {name}({operands}, /) -> Tensor: ..."


def default(value: object) -> str:
    if value is numpy_api._NOT_GIVEN:
        return "..."
    return value.__name__ if isinstance(value, type) else repr(value)


def parameter(p: inspect.Parameter) -> str:
    if p.kind is p.VAR_POSITIONAL:
        return f"*{p.name}: {TYPES.get(p.name, 'Any')}"
    if p.kind is p.VAR_KEYWORD:
        return f"**{p.name}: Any"
    kind = TYPES.get(p.name, "Any")
    if p.default is None and kind in (LIKE, "_Shape", "Tensor | Sequence[TensorLike]"):
        kind += " | None"
    if p.default is p.empty:
        return f"{p.name}: {kind}"
    return f"{p.name}: {kind} = {default(p.default)}"


def from_signature(name: str, function: object) -> str:
    signature = inspect.signature(function)
    parts, before = [], None
    for p in signature.parameters.values():
        if before is inspect.Parameter.POSITIONAL_ONLY and p.kind is not before:
            parts.append("/")
        if p.kind is p.KEYWORD_ONLY and before not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL):
            parts.append("*")
        parts.append(parameter(p))
        before = p.kind
    if before is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    returned = RETURNS.get(str(signature.return_annotation), "Any")
    return f"def {name}({', '.join(parts)}) -> {returned}: ..."


def on_values(function: object) -> bool:
    """Whether NumPy computes this on plain values, with a signature of its own."""
    return getattr(function, "__name__", "") == "on_values" or hasattr(function, "__wrapped__")


def wrapped(line: str) -> str:
    """Break a long one-line definition as it would be by hand."""
    if len(line) <= 100:
        return line
    head, rest = line.split("(", 1)
    inside, tail = rest.rsplit(")", 1)
    if len(inside) + 4 <= 100:
        return f"{head}(\n    {inside}\n){tail}"
    return f"{head}(\n" + "".join(
        f"    {part},\n" for part in split_outside_brackets(inside)) + f"){tail}"


def split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "[(") - (char in "])")
        if char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def imports() -> list[str]:
    """Names that other modules declare, as they are."""
    own = set(numpy_api.__all__)
    lines = []
    for name in sorted(set(ad.__all__) - own):
        value = getattr(ad, name)
        if inspect.ismodule(value):
            lines.append(f"from . import {name} as {name}")
        elif name == "get_include":
            continue
        elif isinstance(value, (float, type(None))) or getattr(value, "__module__", "") == "numpy":
            lines.append(f"from numpy import {name} as {name}")
        else:
            home = value.__module__.removeprefix("fastad.")
            lines.append(f"from .{home} import {name} as {name}")
    lines.append("from ._core import TensorLike")
    return sorted(
        lines, key=lambda s: (not s.startswith("from numpy"), not s.startswith("from . "), s))


def stub() -> str:
    rows = {row["name"]: row for row in _core.table()}
    by_function = {id(_core.elementwise[name]): row for name, row in rows.items()}
    lines = [HEAD.strip(), *imports(), ""]
    lines += ["_Axis: TypeAlias = int | tuple[int, ...] | None",
              "_Shape: TypeAlias = int | Sequence[int]", "", "__version__: str",
              "__all__: list[str]", "", "def get_include() -> str: ..."]
    groups: dict[str, list[str]] = {
        "Elementwise functions, one for each row of the op table.": [],
        "NumPy's other names for them.": [],
        "Functions of whole arrays.": [],
        "Functions that NumPy computes from the values; they have no gradient.": [],
    }
    table, aliases, structured, values = groups.values()
    for name in sorted(numpy_api.__all__):
        function = getattr(ad, name)
        if name in BY_HAND:
            structured.append(textwrap.dedent(BY_HAND[name]).strip())
        elif name in rows:
            table.append(from_row(name, rows[name]))
        elif id(function) in by_function:
            aliases.append(from_row(name, by_function[id(function)]))
        elif on_values(function):
            values.append(f"def {name}(*args: Any, **kwargs: Any) -> Any: ...")
        else:
            structured.append(from_signature(name, function))
    for title, group in groups.items():
        lines += ["", f"# {title}", ""] + [
            text if "\n" in text else wrapped(text) for text in group]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        STUB.write_text(stub())
    else:
        print(stub(), end="")
