"""Memory: loops run flat, failed allocations change nothing, nothing is leaked."""

import gc
import json
import os
import sys

import numpy as np
import pytest
from conftest import with_failing_allocations

import fastad as ad
from fastad import _core

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# Loops.

LOOP = """
    import json, sys
    import numpy as np
    import fastad as ad

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    kept = []
    x = ad.tensor(1.3, requires_grad=True)
    w = ad.tensor(0.7, requires_grad=True)
    v = ad.tensor([1.0, 2.0, 3.0], requires_grad=True)
    big = ad.tensor(np.ones(20_000), requires_grad=True)

    class Cube(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3.0 * x * x * g

    class Exp(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = ad.exp(x)
            ctx.save_for_backward(y)
            return y
        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y

    def body(k):
        {body}

    def loop(n):
        for k in range(n):
            body(k)
            x.grad = w.grad = v.grad = big.grad = None

    loop({warm})
    before = resident()
    loop({count})
    print(json.dumps([resident() - before, ad._core.tape_stats()["sweeping"]]))
"""

MILLION = {
    "numbers": "y = ad.sin(x * x + 2.0) * x - ad.exp(x * 0.5) / w; y.backward()",
    "small arrays": "(ad.sin(v * v + 2.0) * v).sum().backward()",
}

MANY = {
    "graphs that are never swept": (100_000, "y = ad.sin(x * x + 2.0) * x; z = (v * v).sum()"),
    "an intermediate kept for the next round": (
        100_000,
        "kept[:] = [x * 2.0]; ((kept[0] - 3.0) ** 2).backward()",
    ),
    "graphs that are kept and swept again": (
        100_000,
        "y = ad.sin(x) * w; y.backward(retain_graph=True); y.backward()",
    ),
    "graphs that are retained and dropped": (
        100_000,
        "y = ad.sin(x) * w; y.backward(retain_graph=True)",
    ),
    "losses gathered and summed": (
        5_000,
        "sum([(x * float(j) - w) ** 2 for j in range(20)]).backward()",
    ),
    "sweeps that record themselves": (
        5_000,
        "(g,) = ad.autograd.grad(x * w * x, x, create_graph=True); (g * g).backward()",
    ),
    "large arrays": (3_000, "(ad.exp(big) * big).sum().backward()"),
    "large arrays, never swept": (3_000, "y = ad.exp(big) * big; z = y + 1.0"),
    "large arrays, updated in place": (
        3_000,
        "(big * big).sum().backward(); ad.set_grad_enabled(False); y = big.detach();"
        " y -= 0.1 * big.grad; ad.set_grad_enabled(True)",
    ),
    "structured primitives": (
        5_000,
        "(ad.concatenate([v[1:], v[[0, 0]]]).reshape(2, 2) @ v[:2]).sum().backward()",
    ),
    "hooks": (
        20_000,
        "y = x * x; y.register_hook(lambda g: g * 2.0); y.retain_grad(); (y * w).backward()",
    ),
    "hooks that refer to their own tensor": (
        20_000,
        "y = x * x; y.register_hook(lambda g, y=y: y); (y * w).backward()",
    ),
    "hooks that refer to their own tensor, never swept": (
        20_000,
        "y = x * x; y.register_hook(lambda g, y=y: y); z = y * w",
    ),
    "hooks on leaves": (
        20_000,
        "t = ad.tensor(1.0, requires_grad=True); t.register_hook(lambda g, t=t: t);"
        " (t * x).backward()",
    ),
    "functions": (20_000, "Cube.apply(x).backward(); Cube.apply(w)"),
    "functions that save their result": (
        20_000,
        "y = Exp.apply(x); y.backward(); z = Exp.apply(v) * w",
    ),
    "functions that save their result, swept twice": (
        2_000,
        "(g,) = ad.autograd.grad(Exp.apply(x) * x, x, create_graph=True); g.backward()",
    ),
    "new leaves": (100_000, "t = ad.tensor(float(k), requires_grad=True); (t * x).backward()"),
    "leaves that stop and start": (
        100_000,
        "x.requires_grad_(False); x.requires_grad_(True); (x * w).backward()",
    ),
    "transforms": (
        1_000,
        "ad.hessian(lambda t: (t**3).sum())(np.ones(2)); ad.jvp(ad.sin, (1.0,), (1.0,));"
        " ad.vjp(ad.sin, 1.0)[1](2.0); ad.grad(ad.grad(lambda t: t**3 * x))(2.0)",
    ),
    "errors": (
        20_000,
        "\n        try: x * 2.0 + v[:2] * v\n        except ValueError: pass\n"
        "        try: (v * 2.0).backward()\n        except RuntimeError: pass",
    ),
}


def grown(fresh_python, body, warm, count):
    out = json.loads(fresh_python(LOOP.format(body=body, warm=warm, count=count)))
    assert out[1] == 0
    return out[0]


@linux
@pytest.mark.parametrize("kind", MILLION)
def test_a_million_rounds_of_build_backward_drop_run_in_flat_memory(kind, fresh_python):
    assert grown(fresh_python, MILLION[kind], 10_000, 10**6) <= 2**20


@linux
@pytest.mark.parametrize("kind", MANY)
def test_memory_stays_flat_in_loops_with(kind, fresh_python):
    count, body = MANY[kind]
    assert grown(fresh_python, body, count // 2, count) <= 2**20


@linux
def test_the_measure_notices_a_loop_that_keeps_its_graphs(fresh_python):
    assert grown(fresh_python, "kept.append(ad.sin(x) * w)", 1_000, 50_000) > 2**20


# Failing allocations.


def number():
    return {"x": ad.tensor(2.0, requires_grad=True)}


def short():
    return {"x": ad.tensor([1.0, 2.0, 3.0], requires_grad=True)}


def long():
    return {"x": ad.tensor(np.linspace(1.0, 2.0, 300), requires_grad=True)}


def accumulated():
    env = long()
    (env["x"] * env["x"]).sum().backward()
    return env


def plain(t):
    return t.tolist()


def backward(f):
    def act(x):
        before = x.grad
        x.grad = None if before is None else before.detach()
        try:
            f(x).backward()
            return plain(x.grad)
        finally:
            x.grad = before

    return act


def recorded(f):
    return lambda x: [plain(g) for g in ad.autograd.grad(f(x), x, create_graph=True)]


def twice(f):
    def act(x):
        (g,) = ad.autograd.grad(f(x), x, create_graph=True)
        return plain(ad.autograd.grad((g * g).sum() + (x * x).sum(), x)[0])

    return act


def tangent(f):
    return lambda x: [plain(t) for t in ad.jvp(f, (x.detach(),), (ad.ones(x.shape),))]


def with_hooks(x):
    z = x * x
    z.register_hook(lambda g: g * 2.0)
    z.retain_grad()
    handle = x.register_hook(lambda g: g * 3.0)
    before, x.grad = x.grad, None
    try:
        (z * z).sum().backward()
        return plain(x.grad), plain(z.grad)
    finally:
        x.grad = before
        handle.remove()


def with_many_hooks(x):
    parts = [x * float(k) for k in range(40)]
    for part in parts:
        part.register_hook(lambda g: g * 2.0)
    return plain(ad.autograd.grad(sum(parts).sum(), x)[0])


def in_place(x):
    y = x.detach()
    y += 1.0
    y *= y
    return plain(y)


def add_in_place_while_recording(x):
    y = x * 2.0
    y += x
    y *= y
    return plain(ad.autograd.grad(y.sum(), x)[0])


class Cube(ad.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3.0 * x * x * g


def square_matrix(x):
    return x[:9].reshape(3, 3) if x.size > 9 else x.reshape(-1, 1)


FUNCTIONS = {
    "product": lambda x: (x * x).sum(),
    "broadcast": lambda x: (x.reshape(-1, 1) * x[:3]).sum(),
    "where": lambda x: ad.where(x > 1.5, x * x, x).sum(),
    "clip": lambda x: ad.clip(x, 1.2, 1.8).sum(),
    "matmul": lambda x: (square_matrix(x).T @ square_matrix(x)).sum(),
    "einsum": lambda x: ad.einsum("ij,kj->ik", square_matrix(x), square_matrix(x)).sum(),
    "slice": lambda x: (x[1:] * x[0]).sum(),
    "index": lambda x: (x[[0, 1, 1]] ** 2).sum(),
    "entries": lambda x: sum(x[k] * x[k + 1] for k in range(2)),
    "transpose": lambda x: (x.reshape(3, -1).T * np.arange(3.0)).sum(),
    "concatenate": lambda x: (ad.concatenate([x, x * 2.0]) ** 2).sum(),
    "cast": lambda x: (x.astype(ad.float32) * 2.0).sum(),
    "std": lambda x: x.std(),
    "max": lambda x: x.max(),
    "norm": lambda x: ad.linalg.norm(x),
    "det": lambda x: ad.linalg.det(square_matrix(x).T @ square_matrix(x)),
    "svd": lambda x: sum(ad.sum(part) for part in ad.linalg.svd(ad.reshape(x, (3, -1)), False)),
    "fft": lambda x: ad.sum(ad.abs(ad.fft.rfft(x)) ** 2),
    "prod": lambda x: x[:3].prod(),
    "cumsum": lambda x: (ad.cumsum(x) ** 2).sum(),
    "sort": lambda x: (ad.sort(x) * np.arange(float(x.size))).sum(),
    "Function": lambda x: Cube.apply(x).sum(),
}

SCENARIOS = {
    "leaf": (dict, lambda: plain(ad.tensor(np.ones(300), requires_grad=True))),
    "array operation": (long, lambda x: plain(x * x + 1.0)),
    "small array operation": (short, lambda x: plain(ad.exp(x * x) + 1.0)),
    "operation with an ndarray": (long, lambda x: plain(x * np.ones(300) + np.ones((2, 300)))),
    "float32": (
        lambda: {"x": ad.tensor(np.ones(300, np.float32), requires_grad=True)},
        lambda x: plain(x * x + 1.0),
    ),
    "hooks": (long, with_hooks),
    "hooks on a number": (number, with_hooks),
    "hooks on a short array": (short, with_hooks),
    "many hooks": (short, with_many_hooks),
    "in place": (long, in_place),
    "in place while recording": (long, add_in_place_while_recording),
    "accumulation": (accumulated, backward(lambda x: (x * 3.0).sum())),
    "grad": (short, lambda x: plain(ad.grad(lambda t: (t**3).sum())(x.detach()))),
    "vjp": (short, lambda x: plain(ad.vjp(lambda t: (t**3).sum(), x.detach())[1](1.0)[0])),
    "hessian": (short, lambda x: plain(ad.hessian(lambda t: (t**3).sum())(x.detach()))),
    "wide jacobian": (short, lambda x: plain(ad.jacobian(lambda t: t[:2] ** 3)(x.detach()))),
    "tall jacobian": (short, lambda x: plain(ad.jacobian(lambda t: t**3)(x.detach()))),
    "jvp of grad": (
        short,
        lambda x: plain(ad.jvp(ad.grad(lambda t: (t**3).sum()), (x.detach(),), (ad.ones(3),))[1]),
    ),
}
for _name, _f in FUNCTIONS.items():
    for _size in (short, long):
        SCENARIOS[f"{_size.__name__} {_name}: backward"] = (_size, backward(_f))
        SCENARIOS[f"{_size.__name__} {_name}: recorded"] = (_size, recorded(_f))
        SCENARIOS[f"{_size.__name__} {_name}: twice"] = (_size, twice(_f))
        SCENARIOS[f"{_size.__name__} {_name}: tangent"] = (_size, tangent(_f))


def fail_every_allocation(make, act, state):
    """Make the 1st, 2nd, ... allocation of act() fail until one run goes through.

    Each failure must be a MemoryError that leaves the tape, the values and the gradients as they
    were; the run that goes through must give what a run without failures gives.
    """
    want = act(**make())
    env = make()
    before = state()
    seen = {k: (plain(t), None if t.grad is None else plain(t.grad)) for k, t in env.items()}

    def unchanged(failures):
        assert state() == before, f"after failure {failures}"
        assert ad.is_grad_enabled()
        for key, (value, grad) in seen.items():
            assert plain(env[key]) == value
            assert (None if env[key].grad is None else plain(env[key].grad)) == grad

    got, failures = with_failing_allocations(lambda: act(**env), after=unchanged)
    assert got == want
    assert state() == before
    assert act(**env) == want
    return failures


@pytest.fixture
def state():
    def look():
        _core.compact()
        ad.release_memory()
        stats = _core.tape_stats()
        return [stats[k] for k in ("nodes", "array_bytes", "large_bytes", "sweeping")]

    gc.collect()
    return look


@pytest.mark.parametrize("name", SCENARIOS)
def test_any_failed_allocation_is_a_memory_error_that_changes_nothing(name, state):
    make, act = SCENARIOS[name]
    assert fail_every_allocation(make, act, state) > 0


def test_the_checker_of_failures_notices_a_gradient_that_changed(state):
    def act(x):
        x.grad = ad.zeros(300)
        return plain(x * x)

    with pytest.raises(AssertionError):
        fail_every_allocation(long, act, state)


def test_the_checker_of_failures_notices_a_node_left_behind(state):
    kept = []

    def act(x):
        kept.append(x * 1.0)
        return plain(x[:2] * 2.0)

    with pytest.raises(AssertionError, match="after failure"):
        fail_every_allocation(long, act, state)


def test_a_tape_that_cannot_grow_is_a_memory_error_and_as_good_as_before(fresh_python):
    code = """
        import fastad as ad
        from fastad import _core

        x = ad.tensor(2.0, requires_grad=True)
        for rounds in (1, 6000, 20_000):        # capacities 0, 4096 and more to begin with
            failed = 0
            while True:
                _core._fail_allocation(failed)
                y, done = x, 0
                try:
                    for done in range(rounds):
                        y = y * 1.0
                    _core._fail_allocation(-1)
                    break
                except MemoryError as error:
                    assert "the tape is as it was" in str(error)
                    failed += 1
                    _core._fail_allocation(-1)
                    with ad.no_grad():
                        y * 1.0
                    y = y.backward() if y is not x else None
                    if done:
                        assert x.grad.item() == 1.0, x.grad
                    x.grad = None
                    assert _core.tape_stats()["nodes"] == 0
            assert failed >= 4, (rounds, failed)
            y.backward()
            assert x.grad.item() == 1.0
            x.grad = None
        leaves = []
        _core._fail_allocation(0)
        try:
            for k in range(1000):
                leaves.append(ad.tensor(float(k), requires_grad=True))
            raise SystemExit("no failure")
        except MemoryError:
            pass
        _core._fail_allocation(-1)
        t = ad.tensor(3.0, requires_grad=True)
        s = sum(leaves) + t * t
        s.backward()
        assert all(leaf.grad.item() == 1.0 for leaf in leaves) and t.grad.item() == 6.0
    """
    fresh_python(code)


def test_an_array_too_large_for_memory_is_a_memory_error():
    x = ad.tensor([1.0], requires_grad=True)
    with pytest.raises(MemoryError, match="broadcast_to: out of memory; the tape is as it was"):
        ad.broadcast_to(x, (2**40, 2**20))
    wide = ad.broadcast_to(x, (2**45,))     # a view, which costs nothing
    with pytest.raises(MemoryError):
        wide * 2.0                          # before it is read
    (x * 2.0).backward()
    assert x.grad.tolist() == [2.0]


# Leaks of objects.


class Witness:
    """Something whose death can be seen."""

    alive = 0

    def __init__(self):
        Witness.alive += 1

    def __del__(self):
        Witness.alive -= 1


@pytest.fixture
def witness():
    gc.collect()
    Witness.alive = 0
    return Witness


def test_a_hook_dies_with_the_graph_that_was_dropped(witness):
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x
    y.register_hook(lambda g, w=witness(): None)
    z = y * 1.0
    del y
    assert witness.alive == 1
    del z
    assert witness.alive == 0


def test_a_hook_dies_with_the_graph_that_was_swept(witness):
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x
    y.register_hook(lambda g, w=witness(): None)
    z = y * 1.0
    del y
    z.backward()
    del z
    assert witness.alive == 0


@pytest.mark.parametrize("swept", [True, False])
def test_a_hook_that_refers_to_its_own_tensor_is_collected(swept, witness):
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x
    y.register_hook(lambda g, y=y, w=witness(): None)
    if swept:
        (y * 1.0).backward()
    del y
    gc.collect()
    assert witness.alive == 0


def test_a_hook_on_a_leaf_that_refers_to_it_is_collected(witness):
    x = ad.tensor(2.0, requires_grad=True)
    x.register_hook(lambda g, x=x, w=witness(): None)
    (x * 1.0).backward()
    del x
    gc.collect()
    assert witness.alive == 0


def test_a_removed_hook_is_released_at_once(witness):
    x = ad.tensor(2.0, requires_grad=True)
    handle = x.register_hook(lambda g, w=witness(): None)
    assert witness.alive == 1
    handle.remove()
    assert witness.alive == 0


@pytest.mark.parametrize("saved", ["argument", "result"])
@pytest.mark.parametrize("how", ["swept", "swept twice", "dropped", "failed"])
def test_what_a_function_saved_is_released(how, saved, witness):
    class Save(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.witness = witness()
            y = x * 2.0
            ctx.save_for_backward(x if saved == "argument" else y)
            if how == "failed":
                raise ZeroDivisionError
            return y

        @staticmethod
        def backward(ctx, g):
            (t,) = ctx.saved_tensors
            return g * 2.0 * t / t

    x = ad.tensor(2.0, requires_grad=True)
    if how == "failed":
        with pytest.raises(ZeroDivisionError):
            Save.apply(x)
    else:
        y = Save.apply(x)
        assert witness.alive == 1
        if how == "swept":
            y.backward()
        if how == "swept twice":
            (g,) = ad.autograd.grad(y * x, x, create_graph=True)
            g.backward()
            del g
        del y
    gc.collect()
    assert witness.alive == 0


def test_a_gradient_that_refers_back_to_its_leaf_is_collected(witness):
    x = ad.tensor(2.0, requires_grad=True)
    (x * x * x).backward(create_graph=True)
    x.register_hook(lambda g, w=witness(): None)
    assert x.grad.requires_grad
    del x
    gc.collect()
    assert witness.alive == 0


def test_views_given_to_numpy_outlive_the_tensor():
    a = ad.tensor(np.arange(1000.0)).numpy()
    b = (ad.tensor(np.arange(1000.0)) * 1.0).numpy()
    small = (ad.tensor([1.0, 2.0]) * 1.0).numpy()
    gc.collect()
    ad.release_memory()
    filler = [ad.zeros(1000) + 1.0 for _ in range(50)]
    assert a.tolist() == b.tolist() == list(range(1000))
    assert small.tolist() == [1.0, 2.0]
    assert len(filler) == 50


# The end of a process, and its children.


def test_a_process_ends_cleanly_with_graphs_hooks_and_cycles_alive(fresh_python):
    code = """
        import builtins
        import numpy as np
        import fastad as ad

        class Cube(ad.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                ctx.me = ctx
                return x * x * x
            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 3.0 * x * x * g

        class Late:
            def __del__(self):
                (x * 2.0).sum().backward()

        x = ad.tensor(np.ones(1000), requires_grad=True)
        y = Cube.apply(x)
        z = (y * x).sum()
        for t in (x, y, z):
            t.register_hook(lambda g, t=t: None)
        z.backward(create_graph=True)
        keep = [x, y, z, y.detach().numpy(), x.grad, Late()]
        keep.append(keep)
        builtins.kept_to_the_end = keep
        print("done")
    """
    assert fresh_python(code) == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_tape_of_its_own(fresh_python):
    code = """
        import os
        import fastad as ad

        x = ad.tensor([1.0, 2.0], requires_grad=True)
        y = (x * x).sum()
        child = os.fork()
        y.backward()
        assert x.grad.tolist() == [2.0, 4.0]
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert fresh_python(code) == "0\n"
