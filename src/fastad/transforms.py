"""Functions of functions: gradients, products with Jacobians, Jacobians, Hessians.

A transform calls the function with tensors, so the function must be written with operators,
fastad's functions or NumPy's.  Arguments and results are numbers, arrays or tensors, or nested
tuples, lists and dicts of these.  NumPy in, NumPy out: unless a tensor went in (or the result
depends on one that requires gradients), results are Python numbers and NumPy arrays.

Complex numbers.  The gradient of a real number L to ``z = x + iy`` is ``dL/dx + i dL/dy``, the
direction of steepest ascent, as in PyTorch.  The cotangents of `vjp` are such gradients: a
holomorphic f pulls g back to ``g * conj(f'(z))``.  `jvp` gives the derivative in a direction,
``f'(z) * z_dot`` where f is holomorphic.  With ``holomorphic=True`` `grad`, `value_and_grad`,
`jacobian` and `hessian` give ``f'(z)`` itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core, modes
from ._core import Tensor
from .progress import Progress

__all__ = ["grad", "hessian", "jacobian", "jvp", "value_and_grad", "vjp"]


# Trees of tensors.


def _leaves(tree: Any, out: list[Any]) -> list[Any]:
    """Append the leaves of nested tuples, lists and dicts to `out`, in order."""
    if isinstance(tree, (tuple, list)):
        for item in tree:
            _leaves(item, out)
    elif isinstance(tree, dict):
        for key in tree:
            _leaves(tree[key], out)
    else:
        out.append(tree)
    return out


def _rebuild(tree: Any, leaves: Any) -> Any:
    """The same nesting as `tree` with leaves taken from the iterator `leaves`."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_rebuild(item, leaves) for item in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)([_rebuild(item, leaves) for item in tree])
    if isinstance(tree, dict):
        return {key: _rebuild(tree[key], leaves) for key in tree}
    return next(leaves)


def mapped(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same nesting with ``leaf(x)`` for each leaf.

    Only named tuples and plain tuples, lists and dicts are nestings here, not subclasses of these.
    """
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[mapped(item, leaf) for item in tree])
    if type(tree) in (tuple, list):
        return type(tree)([mapped(item, leaf) for item in tree])
    if type(tree) is dict:
        return {key: mapped(item, leaf) for key, item in tree.items()}
    return leaf(tree)


def _is_numbers(x: Any) -> bool:
    """A list of plain numbers is one array, not a tree: SciPy users pass such lists."""
    return isinstance(x, (list, tuple)) and bool(x) and all(type(v) in (int, float) for v in x)


# The derivatives are to be recorded; the graph is to be kept, because somebody holds a part of it.
_RECORD, _KEEP = 1, 2


class _Inputs:
    """The differentiated arguments of one call, as tensors that this call alone can see."""

    def __init__(self, name: str, args: tuple[Any, ...], argnums: tuple[int, ...]) -> None:
        for k in argnums:
            if not -len(args) <= k < len(args):
                raise TypeError(f"{name}: argument {k} of {len(args)} does not exist")
        trees = [np.asarray(args[k]) if _is_numbers(args[k]) else args[k] for k in argnums]
        given = _leaves(trees, [])
        self.trees = trees
        self.plain = not _core.is_tracing() and not any(
            isinstance(x, Tensor) for x in _leaves(list(args), [])
        )
        self.outer = any(isinstance(x, Tensor) and x.requires_grad for x in given)
        self.tensors = [_fresh(name, x) for x in given]
        # the function may change what it is given, where recording lets it: the inputs stay ours
        self.handed = [t if t.is_leaf else +t for t in self.tensors]
        new = iter(self.handed)
        full = list(args)
        for k, tree in zip(argnums, trees):
            full[k] = _rebuild(tree, new)
        self.args = tuple(full)

    def others(self, outputs: list[Tensor]) -> int:
        """Who outside may differentiate what is computed from this call: `_RECORD`, `_KEEP`, 0."""
        if self.outer:
            return _RECORD
        return _core.depends_on_others(outputs, self.tensors, self.handed)

    def must_record(self, outputs: list[Tensor]) -> bool:
        """Whether somebody outside may differentiate what is computed from this call."""
        return self.others(outputs) == _RECORD

    def shaped(self, leaves: list[Any]) -> list[Any]:
        """Results, one per tensor, in the nesting of the arguments."""
        it = iter([self.out(x) for x in leaves])
        return [_rebuild(tree, it) for tree in self.trees]

    def out(self, t: Any) -> Any:
        """A result as the caller wants it."""
        if not isinstance(t, Tensor) or not self.plain or t.requires_grad:
            return t
        return t.item() if t.ndim == 0 else np.array(_core.array(t))

    def out_tree(self, tree: Any, traced: bool) -> Any:
        """A whole result; its history goes unless somebody outside may need it."""
        leaves = [
            x.detach() if isinstance(x, Tensor) and not traced else x for x in _leaves(tree, [])
        ]
        return _rebuild(tree, iter([self.out(x) for x in leaves]))


def _fresh(name: str, x: Any) -> Tensor:
    """A tensor of x's value that the caller's own tensors are not mistaken for."""
    if isinstance(x, Tensor) and x.requires_grad:
        return +x
    t = _core.tensor(x)
    if t.dtype.kind in "iub":
        t = _core.astype(t, float)
    try:
        return t.requires_grad_()
    except RuntimeError as error:
        raise TypeError(f"{name}: {error}") from None


def _scalar(name: str, y: Any, holomorphic: bool) -> Tensor:
    if not isinstance(y, Tensor):
        if np.ndim(y) == 0 and isinstance(y, (int, float, complex, np.number)):
            y = complex(y)
            return _core.as_tensor(y if holomorphic or y.imag else y.real)
        raise TypeError(
            f"{name}: the function returned {type(y).__name__}; wanted a tensor with one element"
        )
    if y.size != 1:
        raise ValueError(
            f"{name}: the function returned shape {y.shape}; wanted one number (use jacobian for "
            "more, or sum)"
        )
    if y.dtype.kind == "c" and not holomorphic:
        raise TypeError(
            f"{name}: the function returned a complex number; wanted a real one (take .real or "
            "abs()), or holomorphic=True for the derivative of a holomorphic function"
        )
    return y


def _check_holomorphic(name: str, inputs: _Inputs, y: Tensor) -> None:
    """Raise unless arguments and result of a holomorphic function are complex."""
    for t in (*inputs.tensors, y):
        if t.dtype.kind != "c":
            what = "returned" if t is y else "was given"
            raise TypeError(
                f"{name}: holomorphic=True is for functions of complex numbers with complex "
                f"results, and this one {what} {t.dtype}; use astype(complex)"
            )


def _gradients(
    outputs: list[Tensor], seeds: list[Any], inputs: list[Tensor], record: bool, keep: bool = False
) -> list[Tensor]:
    """VJP of recorded outputs; zeros where nothing depends on an input.

    Unless somebody else may need the graph it is consumed, which costs least.
    """
    live = [(y, s) for y, s in zip(outputs, seeds) if y.requires_grad]
    found: list[Tensor | None] = [None] * len(inputs)
    if live:
        found = _core.run_backward(
            [y for y, _ in live],
            [s for _, s in live],
            keep or record,
            record,
            inputs,
            False,
            True,
        )
    return [_zeros(x) if g is None else g for g, x in zip(found, inputs)]


def _zeros(x: Tensor) -> Tensor:
    return _core.astype(_core.broadcast_to(0.0, x.shape), x.dtype)


def _numbers(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _compiled(f: Any, name: str, argnums: int | tuple[int, ...], **options: Any) -> Any:
    """The program of a transform of a program, or None for other functions."""
    if not isinstance(f, _core.Replay) or not hasattr(f, "derived"):
        return None
    return f.derived(name, argnums, **options)


# The transforms.


def value_and_grad(
    f: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """Return a function that gives ``f(*args)`` and the gradient of that number.

    Parameters
    ----------
    f : callable
        Gives one number.  If it is a `Program`, so is what is returned, here and in `grad`,
        `jacobian` and `hessian`.
    argnums : int or tuple of int
        Which positional arguments to differentiate; for a tuple the gradient is a tuple.
    has_aux : bool
        `f` returns ``(number, more)``; then the value is that pair, `more` passed through.
    holomorphic : bool
        `f` is a holomorphic function of complex arguments, and what is wanted is ``f'(z)``.

    Returns
    -------
    callable
        ``(value, gradient)``, each gradient of its argument's shape.  For a complex argument
        ``z = x + iy`` it is ``df/dx + i df/dy``.

    Raises
    ------
    ValueError
        If `f` returns more than one number.
    TypeError
        If `f` returns a complex number, or with `holomorphic` a real one.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> ad.value_and_grad(lambda x: (x * x).sum())(np.array([1.0, 2.0]))
    (5.0, array([2., 4.]))
    >>> ad.value_and_grad(lambda z: (z * z.conj()).real)(3.0 + 4.0j)
    (25.0, (6+8j))
    >>> ad.value_and_grad(lambda z: z * z, holomorphic=True)(3.0 + 4.0j)
    ((-7+24j), (6+8j))
    """
    numbers = _numbers(argnums)
    options = {"holomorphic": True} if holomorphic else {}
    program = None if has_aux else _compiled(f, "value_and_grad", argnums, **options)
    if program is not None:
        return program

    @functools.wraps(f, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with modes.enable_grad():
            inputs = _Inputs("grad", args, numbers)
            result = f(*inputs.args, **kwargs)
            y, aux = result if has_aux else (result, None)
            y = _scalar("grad", y, holomorphic)
            seed = None
            if holomorphic:
                _check_holomorphic("grad", inputs, y)
                seed = _core.astype(_core.broadcast_to(1.0, y.shape), y.dtype)
            others = inputs.others([y])
            traced = others == _RECORD
            more = [x for x in _leaves(aux, []) if isinstance(x, Tensor)]
            traced_aux = bool(more) and inputs.must_record(more)
            bars = _gradients([y], [seed], inputs.tensors, traced, traced_aux or others == _KEEP)
            if holomorphic:
                bars = [_core.conjugate(bar) for bar in bars]
        shaped = inputs.shaped(bars)
        value = y if traced and y.requires_grad else inputs.out(y.detach())
        gradient = shaped[0] if isinstance(argnums, int) else tuple(shaped)
        return ((value, inputs.out_tree(aux, traced_aux)) if has_aux else value), gradient

    return wrapped


def _finished(inputs: _Inputs, outputs: list[Tensor], traced: bool) -> list[Any]:
    """Output values: with history only where somebody outside may need it."""
    return [y if traced and y.requires_grad else inputs.out(y.detach()) for y in outputs]


def grad(
    f: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """Return the gradient of `f`, a function that gives one number.

    Parameters and errors are those of `value_and_grad`; with `has_aux` the result is
    ``(gradient, more)``.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.grad(ad.sin)(0.0)
    1.0
    >>> ad.grad(ad.grad(lambda x: x**3))(2.0)
    12.0
    >>> ad.grad(lambda z: z * z, holomorphic=True)(1 + 1j)
    (2+2j)
    """
    options = {"holomorphic": True} if holomorphic else {}
    program = None if has_aux else _compiled(f, "grad", argnums, **options)
    if program is not None:
        return program
    both = value_and_grad(f, argnums, has_aux, holomorphic)

    @functools.wraps(f, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """Return ``f(*primals)`` and a function that pulls a cotangent back.

    The cotangent has the shape (and nesting) of the output, each result that of its primal.  The
    function may be called any number of times.

    Raises
    ------
    ValueError
        If the cotangent and the output differ in shape.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> y, pull = ad.vjp(lambda a, b: a * b, np.array([1.0, 2.0]), 3.0)
    >>> pull(np.array([1.0, 10.0]))
    (array([ 3., 30.]), 21.0)
    """
    with modes.enable_grad():
        inputs = _Inputs("vjp", primals, tuple(range(len(primals))))
        result = f(*inputs.args)
    tree = result
    outputs = [_core.as_tensor(y) for y in _leaves(tree, [])]
    outside = inputs.must_record(outputs)
    value = _rebuild(tree, iter(_finished(inputs, outputs, outside)))

    def pull(cotangent: Any) -> tuple[Any, ...]:
        seeds = _leaves(cotangent, []) if isinstance(tree, (tuple, list, dict)) else [cotangent]
        if len(seeds) != len(outputs):
            raise ValueError(f"vjp: {len(outputs)} outputs, but {len(seeds)} cotangents")
        tensors = [_core.as_tensor(s) for s in seeds]
        for s, y in zip(tensors, outputs):
            if s.shape != y.shape:
                raise ValueError(
                    f"vjp: cotangent of shape {s.shape} does not fit the output's shape {y.shape}"
                )
        traced = any(s.requires_grad for s in tensors)
        with modes.enable_grad():
            bars = _gradients(outputs, tensors, inputs.tensors, traced or outside, True)
        return tuple(inputs.shaped(bars))

    return value, pull


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Return ``f(*primals)`` and its derivative in the direction `tangents`.

    Parameters
    ----------
    f : callable
    primals, tangents : tuple
        As many tangents as primals, each of its primal's shape (and nesting).

    Returns
    -------
    tuple
        Output and output tangent, of one shape.

    Raises
    ------
    ValueError
        If a tangent and its primal differ in shape.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.jvp(lambda x: x**2, (3.0,), (1.0,))
    (9.0, 6.0)
    """
    primals = tuple(primals) if isinstance(primals, (tuple, list)) else (primals,)
    tangents = tuple(tangents) if isinstance(tangents, (tuple, list)) else (tangents,)
    if len(primals) != len(tangents):
        raise ValueError(f"jvp: {len(primals)} primals, but {len(tangents)} tangents")
    with modes.enable_grad():
        inputs = _Inputs("jvp", primals, tuple(range(len(primals))))
        given = [np.asarray(d) if _is_numbers(d) else d for d in tangents]
        directions = [_core.as_tensor(d) for d in _leaves(given, [])]
        if len(directions) != len(inputs.tensors):
            raise ValueError(f"jvp: {len(inputs.tensors)} primals, but {len(directions)} tangents")
        inputs.plain = inputs.plain and not any(
            isinstance(d, Tensor) for d in _leaves(list(tangents), [])
        )
        result = f(*inputs.args)
        outputs = [_core.as_tensor(y) for y in _leaves(result, [])]
        outside = inputs.must_record(outputs)
        record = outside or any(d.requires_grad for d in directions)
        dots = _forward(outputs, inputs, directions, record)
    values = _rebuild(result, iter(_finished(inputs, outputs, outside)))
    return values, _rebuild(result, iter([inputs.out(d) for d in dots]))


def _forward(
    outputs: list[Tensor], inputs: _Inputs, directions: list[Tensor], record: bool
) -> list[Tensor]:
    live = [y for y in outputs if y.requires_grad]
    found = iter(_core.run_forward(live, inputs.tensors, directions, record) if live else ())
    dots = [next(found) if y.requires_grad else None for y in outputs]
    return [_zeros(y) if d is None else d for d, y in zip(dots, outputs)]


def jacobian(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, holomorphic: bool = False
) -> Callable[..., Any]:
    """Return the dense Jacobian of `f`: the output's axes first, then the argument's.

    The function is recorded once and then swept forward once per input element or backward once
    per output element, whichever is less.

    Parameters
    ----------
    f : callable
        Gives one tensor or array.
    argnums : int or tuple of int
        Which positional arguments (arrays or numbers) to differentiate; for a tuple the result is
        a tuple.
    holomorphic : bool
        `f` is a holomorphic function of complex arguments; needed where both these and its results
        are complex.  A real function of complex arguments gives the gradient of each result, a
        complex one of real arguments its derivative.

    Returns
    -------
    callable
        Arrays of shape ``output.shape + argument.shape``.

    Raises
    ------
    TypeError
        If an argument or the output is not a single array, or complex where it must not be.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> ad.jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    numbers = _numbers(argnums)
    options = {"holomorphic": True} if holomorphic else {}
    program = _compiled(f, "jacobian", argnums, **options)
    if program is not None:
        return program

    @functools.wraps(f, updated=())
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with modes.enable_grad():
            inputs = _Inputs("jacobian", args, numbers)
            if len(inputs.tensors) != len(numbers):
                raise TypeError("jacobian: the differentiated arguments must be arrays or numbers")
            y = f(*inputs.args, **kwargs)
            if not isinstance(y, Tensor):
                if isinstance(y, (list, tuple)) and any(isinstance(v, Tensor) for v in y):
                    from . import numpy_api

                    y = numpy_api.stack(y)
                else:
                    y = _core.as_tensor(y)
            blocks = _dense(y, inputs, holomorphic)
        result = [inputs.out(b) for b in blocks]
        return result[0] if isinstance(argnums, int) else tuple(result)

    return wrapped


def _dense(y: Tensor, inputs: _Inputs, holomorphic: bool = False) -> list[Tensor]:
    """Jacobian blocks of y, one per input, by the mode that needs fewer sweeps.

    A real function of complex numbers has gradients, which are rows, and a complex function of real
    numbers derivatives, which are columns.
    """
    record = inputs.must_record([y])
    n_in = sum(x.size for x in inputs.tensors)
    of_complex = any(x.dtype.kind == "c" for x in inputs.tensors)
    if holomorphic:
        _check_holomorphic("jacobian", inputs, y)
    elif of_complex and y.dtype.kind == "c":
        raise TypeError(
            "jacobian: a complex function of complex arguments must be holomorphic to have one; "
            "say so by holomorphic=True, or differentiate real and imaginary part"
        )
    if not y.requires_grad:
        zeros = [_core.broadcast_to(0.0, y.shape + x.shape) for x in inputs.tensors]
        dtypes = [np.result_type(x.dtype, y.dtype) if y.dtype.kind == "c" else x.dtype
                  for x in inputs.tensors]
        return [_core.astype(z, dtype) for z, dtype in zip(zeros, dtypes)]
    if y.dtype.kind == "c" and not of_complex or n_in <= y.size and of_complex == holomorphic:
        return _columns(y, inputs, record)
    rows = _recorded_rows(y, inputs) if record else _rows(y, inputs)
    return [_core.conjugate(block) for block in rows] if holomorphic else rows


def _sweeps(count: int) -> Progress:
    return Progress("differentiating", count, "sweeps")


def _recorded_rows(y: Tensor, inputs: _Inputs) -> list[Tensor]:
    from . import numpy_api

    parts: list[list[Tensor]] = [[] for _ in inputs.tensors]
    flat = _core.reshape(y, (-1,))
    one = _core.astype(1.0, y.dtype)
    with _sweeps(y.size) as shown:
        for k in range(y.size):
            for part, bar in zip(parts, _gradients([flat[k]], [one], inputs.tensors, True, True)):
                part.append(bar)
            shown.add(1)
    return [
        _core.reshape(numpy_api.stack(part), y.shape + x.shape) if part
        else _core.broadcast_to(0.0, y.shape + x.shape)
        for part, x in zip(parts, inputs.tensors)
    ]


def _columns(y: Tensor, inputs: _Inputs, record: bool) -> list[Tensor]:
    """Forward sweeps, a unit tangent each."""
    block = _recorded_block if record else _block
    return [block(y, x, _unit_sweeps(y, x, record)) for x in inputs.tensors]


def _unit_sweeps(y: Tensor, x: Tensor, record: bool) -> list[Tensor | None]:
    """The tangents of y for the unit tangents of x; None for one that is zero."""
    dots = []
    with _sweeps(x.size) as shown:
        for j in range(x.size):
            unit = np.zeros(x.shape, x.dtype)
            unit.flat[j] = 1.0
            dots += _core.run_forward([y], [x], [_core.wrap(unit, copy=False)], record)
            shown.add(1)
    return dots


def _block(y: Tensor, x: Tensor, dots: list[Tensor | None]) -> Tensor:
    """Columns side by side; those that are None are zero."""
    block = np.zeros((x.size, y.size), y.dtype)
    for column, dot in zip(block, dots):
        if dot is not None:
            column[:] = _core.array(dot).ravel()
    return _core.wrap(np.ascontiguousarray(block.T).reshape(y.shape + x.shape), False)


def _recorded_block(y: Tensor, x: Tensor, dots: list[Tensor | None]) -> Tensor:
    from . import numpy_api

    zero = _zeros(y)
    if not dots:
        return _core.astype(_core.broadcast_to(0.0, y.shape + x.shape), y.dtype)
    columns = numpy_api.stack([zero if dot is None else dot for dot in dots], -1)
    return _core.reshape(columns, y.shape + x.shape)


def _rows(y: Tensor, inputs: _Inputs) -> list[Tensor]:
    """Reverse sweeps, a unit cotangent each."""
    blocks = [np.zeros((y.size, x.size), x.dtype) for x in inputs.tensors]
    with _sweeps(y.size) as shown:
        for i in range(y.size):
            unit = np.zeros(y.shape, y.dtype)
            unit.flat[i] = 1.0
            bars = _core.run_backward(
                [y], [_core.wrap(unit, copy=False)], True, False, inputs.tensors, False, True
            )
            for block, bar in zip(blocks, bars):
                if bar is not None:
                    block[i] = _core.array(bar).ravel()
            shown.add(1)
    return [
        _core.wrap(block.reshape(y.shape + x.shape), False)
        for block, x in zip(blocks, inputs.tensors)
    ]


def hessian(
    f: Callable[..., Any], argnums: int = 0, holomorphic: bool = False
) -> Callable[..., Any]:
    """Return the dense Hessian of `f`, a function that gives one number.

    The gradient is recorded once and swept once per element of the argument.  For complex arguments
    it needs `holomorphic`, as `jacobian` does.

    Returns
    -------
    callable
        Array of shape ``argument.shape + argument.shape``.

    Examples
    --------
    >>> import fastad as ad
    >>> import numpy as np
    >>> ad.hessian(lambda x: x[0] * x[1] ** 2)(np.array([1.0, 3.0]))
    array([[0., 6.],
           [6., 2.]])
    """
    options = {"holomorphic": True} if holomorphic else {}
    program = _compiled(f, "hessian", argnums, **options)
    if program is not None:
        return program
    return jacobian(grad(f, argnums, **options), argnums, **options)
