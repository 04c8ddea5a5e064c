"""PyTorch's `autograd` names: gradients of given outputs, and primitives of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core, modes
from ._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Function", "grad"]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the sum of `outputs` with respect to `inputs`.

    Nothing is added to ``.grad``.  The sweep passes only what leads to `inputs`: elsewhere no hook
    runs, and the graph can be swept again.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor
    inputs : Tensor or sequence of Tensor
        Leaves or intermediate results that the outputs depend on.
    grad_outputs : Tensor, array or sequence of these, optional
        Cotangent of each output, of its shape; needed where an output is not a single number.
    retain_graph : bool, optional
        Keep the graph for another sweep; by default as `create_graph`.
    create_graph : bool
        Record the sweep, so that the gradients can be differentiated again.
    allow_unused : bool
        Give None for an input that no output depends on, instead of raising.

    Returns
    -------
    tuple of Tensor or None
        One gradient of each input's shape.

    Raises
    ------
    RuntimeError
        If an output has no history or was consumed, or an input was not used.
    ValueError
        If a cotangent has another shape than its output.

    Examples
    --------
    >>> import fastad as ad
    >>> x = ad.tensor(3.0, requires_grad=True)
    >>> (g,) = ad.autograd.grad(x**3, x, create_graph=True)
    >>> ad.autograd.grad(g, x)
    (tensor(18.),)
    """
    outs, ins = _tensors("outputs", outputs), _tensors("inputs", inputs)
    if grad_outputs is None:
        seeds: list[Any] = [None] * len(outs)
    elif isinstance(grad_outputs, (list, tuple)) and (
        not isinstance(outputs, Tensor) or len(grad_outputs) == 1
    ):
        seeds = list(grad_outputs)
    else:
        seeds = [grad_outputs]
    if len(seeds) != len(outs):
        raise ValueError(f"grad: {len(outs)} outputs, but {len(seeds)} grad_outputs")
    keep = create_graph if retain_graph is None else retain_graph
    return tuple(_core.run_backward(outs, seeds, keep, create_graph, ins, False, allow_unused))


def _tensors(name: str, given: Any) -> list[Tensor]:
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    for item in items:
        if not isinstance(item, Tensor):
            raise TypeError(f"grad: {name} must be Tensors, got {type(item).__name__}")
    return items


class Context:
    """What `Function.forward` leaves for `Function.backward`."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple[Tensor | None, ...] = ()
        self._outputs: tuple[int, ...] = ()
        self._current: tuple[int, Tensor] | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors, as they are now, for ``ctx.saved_tensors``."""
        self._saved = tensors

    def _freeze(self, outputs: tuple[Tensor, ...]) -> None:
        """Replace saved tensors by snapshots, and saved outputs by their place.

        An output cannot be kept itself: its node keeps this context.  The sweep hands it in.
        """
        self._outputs = tuple(
            next((k for k, out in enumerate(outputs) if t is out), -1) for t in self._saved
        )
        with modes.enable_grad():
            self._saved = tuple(
                None if t is None else outputs[k].detach() if k >= 0 else t.clone()
                for t, k in zip(self._saved, self._outputs)
            )

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors of `save_for_backward`; in-place changes since then do not show."""
        found = []
        for t, k in zip(self._saved, self._outputs or (-1,) * len(self._saved)):
            if k >= 0 and self._current is not None:
                position, y = self._current
                if k == position:
                    t = y
                elif _core.is_grad_enabled():
                    raise RuntimeError(
                        "saved_tensors: the sweep records itself (create_graph) from output "
                        f"{position}, but output {k} was saved; save inputs instead"
                    )
            found.append(t)
        return tuple(found)


class _CustomRule:
    """A call of a user's Function as a structured primitive of one output."""

    linear = False
    reads_inputs = True
    reads_output = True

    def __init__(self, function, ctx, places, count):
        self.name = function.__name__
        self._function = function
        self._ctx = ctx
        self._places = places
        self._count = count

    def vjp(self, g, y, inputs, needs, position, outputs):
        # The other outputs of the call get their cotangents from their own nodes.
        cotangents = [
            g if k == position else zeros(out.shape, out.dtype)
            for k, out in enumerate(outputs)
        ]
        self._ctx._current = (position, y)
        try:
            bars = self._function.backward(self._ctx, *cotangents)
        finally:
            self._ctx._current = None
        if not isinstance(bars, tuple):
            bars = (bars,)
        if len(bars) != self._count:
            raise RuntimeError(
                f"{self.name}.backward: returned {len(bars)} gradients for {self._count} arguments "
                "of forward; return None for those without one"
            )
        return tuple(
            None if bars[place] is None else _core.as_tensor(bars[place]) for place in self._places
        )

    def jvp(self, tangents, y, inputs, position, outputs):
        # The tangent is the derivative, in the direction u, of the linear map u -> J^T u.
        with modes.enable_grad():
            u = zeros(y.shape, y.dtype).requires_grad_()
            needs = tuple(t is not None for t in tangents)
            bars = self.vjp(u, y, inputs, needs, position, outputs)
            pairs = [(b, t) for b, t in zip(bars, tangents) if b is not None and t is not None]
            live = [(b, t) for b, t in pairs if b.requires_grad]
            if not live:
                return None
            (result,) = _core.run_backward(
                [b for b, _ in live], [t for _, t in live], True, True, [u], False, True
            )
        return result


def zeros(shape, dtype):
    """A tensor of zeros without history."""
    return _core.astype(_core.broadcast_to(0.0, shape), dtype)


class Function:
    """A primitive of one's own: subclass it with `forward` and `backward`, call ``apply``.

    ``forward(ctx, *args)`` computes, without being recorded, a Tensor or a tuple of Tensors;
    ``backward(ctx, *cotangents)`` gives one cotangent per argument of forward (None for those
    that are not tensors).  Written in fastad's operations, backward differentiates again.

    Examples
    --------
    >>> import fastad as ad
    >>> class Cube(ad.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return 3.0 * x * x * g
    >>> x = ad.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """Compute the primal; override this."""
        raise NotImplementedError("Function: define a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """Pull cotangents back; override this."""
        raise NotImplementedError("Function: define a static backward(ctx, *cotangents)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward and record the call."""
        ctx = Context()
        places = [k for k, a in enumerate(args) if isinstance(a, Tensor) and a.dtype.kind in "fc"]
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        with modes.no_grad():
            result = cls.forward(ctx, *args)
        outputs = result if isinstance(result, tuple) else (result,)
        for out in outputs:
            if not isinstance(out, Tensor):
                raise TypeError(
                    f"{cls.__name__}.forward: returned {type(out).__name__}, wanted a Tensor or a "
                    "tuple of Tensors"
                )
        inputs = tuple(args[k] for k in places)
        if not _core.is_grad_enabled() or not any(t.requires_grad for t in inputs):
            return result
        ctx._freeze(outputs)
        rule = _CustomRule(cls, ctx, places, len(args))
        shells = tuple(out.detach() for out in outputs)
        recorded = tuple(
            _core.record_custom(rule, inputs, out, {"position": k, "outputs": shells})
            for k, out in enumerate(shells)
        )
        return recorded if isinstance(result, tuple) else recorded[0]
