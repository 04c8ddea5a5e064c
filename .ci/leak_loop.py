"""What .ci/valgrind.py runs: every kind of graph, built and dropped again and again."""

import gc
import os
import sys

import numpy as np

import fastad as ad


def once(k: int) -> None:
    x = ad.tensor(0.5 + k % 3, requires_grad=True)
    y = x
    for _ in range(20):
        y = ad.sin(y) * x + 1.0
    y.backward()

    a = ad.tensor(np.linspace(0.5, 1.5, 300).reshape(3, 100), requires_grad=True)
    w = ad.tensor(np.ones(100), requires_grad=True)
    z = ad.where(a > 1.0, ad.exp(a) / w, a * w)
    handle = z.register_hook(lambda g: 2.0 * g)
    ((z @ w).sum() + z[1, ::2].prod() + ad.stack([z, z]).max()).backward(retain_graph=True)
    handle.remove()
    z.sum().backward()

    big = ad.tensor(np.linspace(0.5, 1.5, 5000), requires_grad=True)
    (ad.sin(big) * big + big / 2.0).sum().backward()

    (first,) = ad.autograd.grad(x**3, x, create_graph=True)
    ad.autograd.grad(first, x)
    ad.jvp(lambda v: ad.tanh(v) * v, (np.ones(4),), (np.ones(4),))
    ad.jacobian(lambda v: v * v)(np.ones(3))
    with ad.no_grad():
        w -= 0.1 * w.grad

    program = ad.compile(
        lambda v: (ad.where(v > 1.0, v, v * v) @ ad.tanh(v) + ad.sort(v)[0]) * (
            1.0 if v[0] > k else 2.0)
    )
    for k in (0.0, 1.0):    # noqa: B007  (the program reads it)
        for v in (np.full(4, 0.5), np.linspace(0.5, 1.5, 5000)):
            program.value_and_grad(v), program(v), program(v)
    program.hvp(np.ones(3), np.ones(3))

    for wrong in (lambda: a + ad.ones(7), lambda: z.backward(), lambda: ad.tensor("text")):
        try:
            wrong()
        except (ValueError, RuntimeError, TypeError):
            pass
        else:
            raise AssertionError("an error was expected")


for step in range(int(sys.argv[1])):
    once(step)
gc.collect()
ad.release_memory()
# Not an ordinary exit: what the interpreter tears down there would look like leaks.
os._exit(0)
