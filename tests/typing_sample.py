"""A user's file: `mypy --strict` accepts it, and test_package.py runs it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import fastad as ad


def model(b: ad.Tensor, t: npt.NDArray[np.float64]) -> ad.Tensor:
    return b[0] * (1.0 - ad.exp(-b[1] * t)) + 0.5 * b.sum()


def descend(loss: Callable[[ad.Tensor], ad.Tensor], start: ad.Tensor, rate: float) -> ad.Tensor:
    """Two steps of gradient descent."""
    x = start.detach().requires_grad_()
    for _ in range(2):
        x.grad = None
        loss(x).backward()
        assert x.grad is not None
        with ad.no_grad():
            x -= rate * x.grad
    return x.detach()


def value(x: ad.Tensor) -> float:
    with ad.no_grad():
        return float((x * 1.0).item())


class Cube(ad.autograd.Function):
    @staticmethod
    def forward(ctx: ad.autograd.Context, x: ad.Tensor) -> ad.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: ad.autograd.Context, g: ad.Tensor) -> ad.Tensor:
        (x,) = ctx.saved_tensors
        assert x is not None
        return 3.0 * x * x * g


def main() -> None:
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = ad.sin(x) * x**2 + np.arange(2.0) / (1 + x)
    handle = x.register_hook(lambda g: 2.0 * g)
    y.sum(axis=0, keepdims=True).backward(np.ones(1), retain_graph=True)
    handle.remove()
    y.backward(gradient=[1.0, 1.0], inputs=[x])
    grad: ad.Tensor | None = x.grad
    assert grad is not None and grad.shape == (2,) and grad.dtype == ad.float64
    shape: tuple[int, ...] = ad.stack([x, x]).reshape(4).T.shape
    positive = x > 0.0
    chosen = ad.where(positive, x, 0.0)[positive]
    pair = ad.linspace(0.0, 1.0, 5).tolist(), ad.zeros((2, 3), dtype=ad.float32), shape
    whole: bool = bool((x == x).all()) and bool(ad.all(positive)) and len(pair) == 3
    gradient = ad.grad(lambda v: (v * v).sum())(np.array([1.0, 2.0]))
    jacobian = ad.jacobian(lambda b: model(b, np.arange(3.0)))(np.ones(2))
    (second,) = ad.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    assert second is not None and whole
    graph: ad.Graph = ad.record(lambda v: ad.name(v * v, "square").sum(), np.ones(2))
    low = descend(lambda v: ad.dot(v, v), chosen, rate=0.25)
    print(gradient, np.shape(jacobian), low.tolist(), value(ad.linalg.norm(x)), second.tolist())
    print(graph.run({"v": np.ones(2)}, fetch=["output", "grad:v"]), graph.nodes[0].primitive)


if __name__ == "__main__":
    main()
