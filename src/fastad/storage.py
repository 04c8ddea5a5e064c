"""The file format of programs and graphs: data alone, which can be read without running code.

A file is, all integers little-endian::

    8 bytes     89 66 61 73 74 61 64 0a: the byte 0x89, then "fastad" and a line feed
    4 bytes     version of the format, 1
    4 bytes     0
    8 bytes     length of the header
    header      JSON in UTF-8
    arrays      each at the next multiple of 64 bytes
    32 bytes    SHA-256 of everything before

The header's ``arrays`` lists dtype, shape, offset and bytes of each array.  Its ``graphs`` hold
nodes: ``ops`` names the primitives, ``op``, ``args`` and ``number`` are arrays as in
`fastad._core.Nodes`, and the other entries are tables by node.  Values that JSON does not have
stand as objects of one entry, ``{"tuple": [...]}``, ``{"float": "0x1.8p+1"}``, ``{"array": 3}``;
the numbers of guards stand as the integers with the same 64 bits, since the sign of a nan counts.

Primitives and NumPy's functions are stored by name and looked up in fastad's own tables, so a file
can name nothing else.  A graph that is read is computed once on made-up inputs, and refused where
a node has another shape or dtype than the file says: nothing in it is believed unchecked.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import _core, definitions, numpy_api, rules
from ._core import Nodes

__all__ = ["Reader", "Writer", "checked"]

MAGIC = b"\x89fastad\n"
VERSION = 1
_PREFIX = 24
_ALIGN = 64
_HASH = 32

_KINDS: tuple[Any, ...] = (
    tuple, list, dict, bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range,
    np.dtype, np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
    np.uint64, np.float16, np.float32, np.float64,
)
_TYPES = {kind.__name__: kind for kind in _KINDS}


class Writer:
    """Collects arrays while values become JSON; `finish` gives the bytes of a file.

    Raises
    ------
    TypeError
        If something is met that is not data, such as a function or an object of one's own.
    """

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.known: dict[int, int] = {}

    def array(self, a: np.ndarray) -> int:
        """The number of an array in the file."""
        if id(a) in self.known:
            return self.known[id(a)]
        if a.dtype.kind not in "biufcUS":
            raise TypeError(f"save: an array of dtype {a.dtype} cannot be stored")
        self.known[id(a)] = len(self.arrays)
        self.arrays.append(a)           # kept, so that its id stays its own
        return len(self.arrays) - 1

    def value(self, x: Any) -> Any:
        """`x` as JSON."""
        kind = type(x)
        if x is None or kind in (bool, int, str):
            return x
        if kind is float:
            return {"float": x.hex()}
        if kind is complex:
            return {"complex": [x.real.hex(), x.imag.hex()]}
        if kind is bytes:
            return {"bytes": x.hex()}
        if kind is list:
            return [self.value(item) for item in x]
        if kind is tuple:
            return {"tuple": [self.value(item) for item in x]}
        if kind is dict:
            return {"dict": [[self.value(key), self.value(item)] for key, item in x.items()]}
        if kind is slice:
            return {"slice": [self.value(part) for part in (x.start, x.stop, x.step)]}
        if x is Ellipsis:
            return {"ellipsis": True}
        if kind is range:
            return {"range": [x.start, x.stop, x.step]}
        if kind is np.ndarray:
            return {"array": self.array(x)}
        if isinstance(x, np.generic):
            return {"scalar": self.array(np.asarray(x))}
        if isinstance(x, np.dtype):
            return {"dtype": x.str}
        if isinstance(x, type) and x in _KINDS:
            return {"type": x.__name__}
        if x is np._NoValue:
            return {"no value": True}
        if callable(x) and (name := _function_name(x)):
            return {"function": name}
        raise TypeError(f"save: {kind.__name__} {x!r} cannot be stored: it is not data")

    def nodes(self, nodes: Nodes, outer: list[Any]) -> dict[str, Any]:
        """A graph as JSON, with the present values of the tensors that it reads from outside."""
        used = np.unique(nodes.op)
        place = np.zeros(int(used[-1]) + 1 if len(used) else 1, np.uint16)
        place[used] = np.arange(len(used))
        return {
            "ops": [_core.opcode_name(int(code)) for code in used],
            "op": self.array(place[nodes.op]),
            "args": self.array(nodes.args),
            "number": self.array(nodes.number),
            "arrays": [[i, list(shape), dtype.str] for i, (shape, dtype) in nodes.arrays.items()],
            "constants": [[i, self.array(_core.array(t))] for i, t in nodes.constants.items()],
            "calls": [
                [i, self.rule(rule), self.value(params), list(parents)]
                for i, (rule, params, parents) in nodes.calls.items()
            ],
            "inputs": nodes.inputs,
            "given": nodes.n_given,
            "outer": [self.array(_core.array(t.detach())) for t in outer],
            "outputs": nodes.outputs,
            "guards": [
                [kind, bool(wanted), a, b, at, int(np.float64(number).view(np.int64)),
                 None if array is None else self.array(array)]
                for kind, wanted, a, b, at, number, array in nodes.guards
            ],
            "names": nodes.names,
        }

    def rule(self, rule: Any) -> Any:
        """A structured primitive by name."""
        if rule is None:
            return None
        if isinstance(rule, _core.ByNumpy):
            name = _function_name(rule.function)
            if name is None:
                raise TypeError(f"save: {rule.function!r} cannot be stored: it is not NumPy's")
            return {"numpy": name, "arguments": self.value(rule.template),
                    "places": list(rule.places), "options": self.value(rule.kwargs)}
        if isinstance(rule, _core.Partial):
            return {"partial": _core.opcode_name(rule.op), "side": rule.side}
        if _core.core_rules.get(rule.name) is rule:
            return {"core": rule.name}
        return {"rule": rule.name}

    def finish(self, header: dict[str, Any]) -> bytes:
        """The whole file."""
        import hashlib  # these two cost milliseconds, which `import fastad` does without
        import json

        places, blobs, at = [], [], 0
        for a in self.arrays:
            dtype = a.dtype.newbyteorder("<")
            data = np.ascontiguousarray(a).astype(dtype, copy=False).tobytes()
            at += -at % _ALIGN
            places.append([dtype.str, list(a.shape), at, len(data)])
            blobs.append((at, data))
            at += len(data)
        text = json.dumps({**header, "arrays": places}, separators=(",", ":")).encode()
        out = bytearray(MAGIC)
        out += VERSION.to_bytes(4, "little") + bytes(4) + len(text).to_bytes(8, "little") + text
        start = len(out) + -len(out) % _ALIGN
        for offset, data in blobs:
            out += bytes(start + offset - len(out))
            out += data
        return bytes(out) + hashlib.sha256(out).digest()


class Reader:
    """Reads what a `Writer` has written.

    Raises
    ------
    ValueError
        If the bytes are not a file of fastad's, are damaged or are of a newer format.
    """

    def __init__(self, data: bytes) -> None:
        import hashlib
        import json

        if data[: len(MAGIC)] != MAGIC:
            raise ValueError("load: this is not a file that fastad saved")
        version = int.from_bytes(data[8:12], "little")
        if version > VERSION:
            raise ValueError(f"load: format {version} is newer than this fastad, which reads "
                             f"{VERSION}; install a newer one")
        whole = memoryview(data)[:-_HASH]
        if len(data) < _PREFIX + _HASH or hashlib.sha256(whole).digest() != data[-_HASH:]:
            raise ValueError("load: the file is damaged or cut off; save it again")
        length = int.from_bytes(data[16:24], "little")
        with checked():
            self.header = json.loads(bytes(whole[_PREFIX : _PREFIX + length]))
            start = _PREFIX + length
            start += -start % _ALIGN
            self.arrays = []
            for dtype, shape, offset, size in self.header["arrays"]:
                kind = np.dtype(dtype)
                if kind.hasobject or min([offset, size, *shape], default=0) < 0:
                    raise ValueError
                blob = whole[start + offset : start + offset + size]
                a = np.frombuffer(blob, kind).reshape(shape)
                self.arrays.append(np.array(a, kind.newbyteorder("=")))

    def array(self, k: Any) -> np.ndarray:
        """An array by its number."""
        if type(k) is not int or not 0 <= k < len(self.arrays):
            raise ValueError
        return self.arrays[k]

    def value(self, x: Any) -> Any:
        """The value that stands in the header as `x`."""
        if x is None or type(x) in (bool, int, str):
            return x
        if type(x) is list:
            return [self.value(item) for item in x]
        ((kind, v),) = x.items()
        if kind == "float":
            return float.fromhex(v)
        if kind == "complex":
            return complex(*map(float.fromhex, v))
        if kind == "bytes":
            return bytes.fromhex(v)
        if kind == "tuple":
            return tuple([self.value(item) for item in v])
        if kind == "dict":
            return {self.value(key): self.value(item) for key, item in v}
        if kind == "slice":
            return slice(*map(self.value, v))
        if kind == "ellipsis":
            return Ellipsis
        if kind == "range":
            return range(*v)
        if kind == "array":
            return self.array(v)
        if kind == "scalar":
            return self.array(v)[()]
        if kind == "dtype":
            return np.dtype(v)
        if kind == "type":
            return _TYPES[v]
        if kind == "no value":
            return np._NoValue
        if kind == "function":
            return _functions()[v]
        raise ValueError(kind)

    def nodes(self, x: dict[str, Any]) -> tuple[Nodes, list[Any]]:
        """A graph, checked, and the tensors that it reads from outside.

        Raises
        ------
        ValueError
            If the graph does not fit together.
        """
        with checked():
            codes = np.array([_core.opcode_of(name) for name in x["ops"]], np.uint16)
            op = codes[self.array(x["op"])]
            nodes = Nodes(
                op,
                np.ascontiguousarray(self.array(x["args"]), np.int32),
                np.ascontiguousarray(self.array(x["number"]), np.float64),
                {i: (tuple(shape), np.dtype(dtype)) for i, shape, dtype in x["arrays"]},
                {i: _core.wrap(self.array(k)) for i, k in x["constants"]},
                {i: (self.rule(rule), self.value(params), tuple(parents))
                 for i, rule, params, parents in x["calls"]},
                x["inputs"],
                x["given"],
                x["outputs"],
                [(kind, wanted, a, b, at, float(np.int64(number).view(np.float64)),
                  None if k is None else self.array(k))
                 for kind, wanted, a, b, at, number, k in x["guards"]],
                x["names"],
            )
            outer = [_core.tensor(self.array(k)) for k in x["outer"]]
            nodes.verify([(t.shape, t.dtype) for t in outer])
        return nodes, outer

    def rule(self, x: Any) -> Any:
        """A structured primitive by the name that `Writer.rule` gave it."""
        if x is None:
            return None
        if "numpy" in x:
            return _core.ByNumpy(_functions()[x["numpy"]], self.value(x["arguments"]),
                                 tuple(x["places"]), self.value(x["options"]))
        if "partial" in x:
            return _core.partial_of(_core.opcode_of(x["partial"]), x["side"])
        return _core.core_rules[x["core"]] if "core" in x else rules.PRIMITIVES[x["rule"]]


class checked:
    """Turns whatever goes wrong while a file's contents are taken apart into one error."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, MemoryError):
            if str(error).startswith("load:"):
                return          # said already
            why = f": {error}" if str(error) else ""
            raise ValueError(f"load: the file does not hold together{why}") from None


@functools.cache
def _functions() -> dict[str, Any]:
    """What a file may name: NumPy's ufuncs, and the functions of values that fastad knows."""
    # where names are the same, those of numpy itself stand, and ufuncs before functions
    named = {f.__name__: f for f in numpy_api.FUNCTIONS}
    named |= {f.__name__: f for f in numpy_api.FUNCTIONS if f.__module__ in ("numpy", None)}
    named |= {name: f for name, f in vars(np).items() if isinstance(f, np.ufunc)}
    named |= definitions.FOLLOWED
    named["as_dtype"] = _core.as_dtype
    return named


def _function_name(function: Any) -> str | None:
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and _functions().get(name) is function else None
