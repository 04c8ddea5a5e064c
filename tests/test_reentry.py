"""Hooks, conversions and destructors run the user's code in the middle of ours: nothing breaks."""

import numpy as np
import pytest

import fastad as ad
from fastad import _core


def once(function):
    """`function` at its first call, nothing afterwards."""
    left = [function]

    def call(*args):
        return left.pop()(*args) if left else None

    return call


OPERATIONS = {
    "a row over an array": ad.exp,
    "a row over a number": lambda x: ad.exp(x[0]),
    "a primitive of rules.py": ad.cumsum,
    "a primitive of the core": ad.sum,
    "a row of three operands": lambda x: ad.clip(x, 0.0, 2.0),
}


@pytest.mark.parametrize("create_graph", [False, True], ids=["plain", "create_graph"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_a_hook_that_consumes_the_node_it_is_called_for_is_a_clear_error(
    operation, create_graph, tape_unchanged
):
    x = ad.tensor(np.arange(1.0, 6.0), requires_grad=True)
    y = operation(x)
    z, w = ad.sum(y) * 2.0, ad.sum(3.0 * y)
    y.register_hook(once(lambda g: z.backward()))
    with pytest.raises(RuntimeError, match="already consumed"):
        w.backward(create_graph=create_graph)
    assert x.grad is not None


class Consumes(ad.autograd.Function):
    """A function whose backward runs other code first."""

    before = None

    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, g):
        Consumes.before()
        return 2.0 * g


@pytest.mark.parametrize("create_graph", [False, True], ids=["plain", "create_graph"])
def test_a_function_whose_backward_consumes_its_own_node_gives_the_gradient_or_an_error(
    create_graph, tape_unchanged
):
    x = ad.tensor(np.arange(5.0), requires_grad=True)
    y = Consumes.apply(x)
    z, w = y.sum(), (3.0 * y).sum()
    kept = []

    def consume():
        z.backward()
        kept.extend(ad.tensor(np.ones(3), requires_grad=True).sum() for _ in range(100))

    Consumes.before = once(consume)
    try:
        (g,) = ad.autograd.grad(w, x, create_graph=create_graph)
    except RuntimeError as error:
        assert "consumed" in str(error)
    else:
        assert g.tolist() == [6.0] * 5
    Consumes.before = None
    x.grad = None


class Converts:
    """An operand that runs other code each time it is made an array."""

    def __init__(self, value, action):
        self.value, self.action = value, action

    def __array__(self, dtype=None, copy=None):
        self.action()
        return self.value


@pytest.mark.parametrize(
    "operation",
    [ad.add, lambda t, o: ad.where(np.ones(100000, bool), t, o) + 1.0],
    ids=["add", "where"],
)
def test_an_operand_changed_by_the_conversion_of_another_is_read_as_it_was_or_is(operation):
    t = ad.tensor(np.full(100000, 7.0))
    junk = []

    def change():
        nonlocal t
        t += 1.0
        junk[:] = [ad.tensor(np.full(100000, -1.0)) * 1.0 for _ in range(3)]

    found = set(np.unique(operation(t, Converts(np.ones(100000), change)).numpy()))
    assert found <= {float(k) for k in range(8, 20)}
    assert len(found) == 1


def test_a_destructor_that_records_while_room_is_made_does_not_overflow_the_tape(fresh_python):
    fresh_python(
        """
        import fastad as ad, numpy as np
        stats = ad._core.tape_stats

        class Bomb:
            def __del__(self):
                fired.append(True)
                while stats()["nodes"] < stats()["capacity"] - 1:
                    keep.append(+leaf)

        class F(ad.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.bomb = Bomb()
                return x * 1.0

        fired, keep, leaf = [], [], ad.tensor(1.0, requires_grad=True)
        t = F.apply(leaf)
        u = [+leaf]
        del t
        while not fired:
            a = ad.tensor(np.ones(2), requires_grad=True)
            b = ad.tensor(np.ones(2), requires_grad=True)
            u.append(a @ b)
        assert stats()["nodes"] <= stats()["capacity"]
        """
    )


def test_a_hook_registered_during_a_sweep_belongs_to_its_own_node_ever_after():
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x
    z = y * 3.0
    q = x * 5.0
    r = q * 7.0
    seen, hooked = [], [y]

    def register(g):
        hooked[0].register_hook(lambda g: seen.append(("y", g.item())))

    z.register_hook(register)
    q.register_hook(lambda g: seen.append(("q", g.item())))
    ad.autograd.grad(z, y, retain_graph=True)
    y.backward(retain_graph=True)
    assert seen == [("y", 3.0), ("y", 1.0)]
    del z, y
    hooked.clear()
    _core.compact()
    r.backward()
    assert seen[2:] == [("q", 7.0)]


@pytest.mark.parametrize("create_graph", [False, True], ids=["plain", "create_graph"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: _core.compact(),
        lambda x: [ad.tensor(1.0, requires_grad=True) * 2.0 for _ in range(20000)],
        lambda x: x.requires_grad_(False),
    ],
    ids=["compact", "record", "requires_grad_"],
)
def test_gradients_of_inputs_do_not_mind_what_a_hook_does_to_the_tape(change, create_graph):
    x = ad.tensor(2.0, requires_grad=True)
    junk = [x * float(k) for k in range(3)]
    y = x * x
    z = y * 3.0 + x
    del junk
    x.register_hook(once(lambda g: (change(x), None)[1]))
    gx, gy = ad.autograd.grad(z, [x, y], create_graph=create_graph)
    assert (gx.item(), gy.item()) == (13.0, 3.0)


def test_a_hook_that_changes_an_input_in_place_does_not_lose_its_gradient():
    x = ad.tensor(2.0, requires_grad=True)
    y = x * 3.0
    z = y * y

    def change(g):
        nonlocal y
        with ad.no_grad():
            y *= 1.0

    y.register_hook(once(change))
    (g,) = ad.autograd.grad(z, y)
    assert g.item() == 12.0


def test_a_long_chain_of_gradients_of_gradients_is_dropped_without_recursion(fresh_python):
    fresh_python(
        """
        import fastad as ad
        t = None
        for _ in range(1_000_000):
            u = ad.tensor(1.0)
            u.grad = t
            t = u
        del u, t
        """
    )


def test_a_sweep_that_records_itself_can_be_interrupted(fresh_python):
    fresh_python(
        """
        import signal, time
        import fastad as ad
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        x = ad.tensor(1.0, requires_grad=True)
        y = x
        for _ in range(1_000_000):
            y = y + x
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            y.backward(create_graph=True, retain_graph=True)
            raise SystemExit("not interrupted")
        except KeyboardInterrupt:
            pass
        assert x.grad is None and ad._core.tape_stats()["sweeping"] == 0
        """
    )


class Triple(ad.autograd.Function):
    """Its backward gives a cotangent of a shape that the test sets."""

    shape = (3,)

    @staticmethod
    def forward(ctx, x):
        return 3.0 * x

    @staticmethod
    def backward(ctx, g):
        return ad.ones(Triple.shape)


@pytest.mark.parametrize("create_graph", [False, True], ids=["plain", "create_graph"])
def test_a_cotangent_of_the_wrong_shape_is_an_error_in_every_sweep(create_graph):
    x = ad.tensor(np.ones(3), requires_grad=True)
    Triple.shape = (2, 3)
    y = Triple.apply(x).sum()
    with pytest.raises(ValueError, match=r"cotangent of shape \(2, 3\) for a value of shape"):
        y.backward(create_graph=create_graph)
    Triple.shape = (3,)
    assert x.grad is None


def test_tangents_of_functions_run_in_flat_memory(tape_state):
    Consumes.before = lambda: None

    def push():
        ad.jvp(Consumes.apply, (np.ones(3),), (np.ones(3),))

    for _ in range(10):
        push()
    before = tape_state()
    for _ in range(3000):
        push()
    assert _core.tape_stats()["nodes"] <= before["nodes"] + 10


def test_what_sweeps_left_behind_is_reclaimed_although_no_room_is_wanted_outside(fresh_python):
    fresh_python(
        """
        import fastad as ad
        x = ad.tensor(2.0, requires_grad=True)
        holds = []

        def record(g):
            for _ in range(2000):
                x * 2.0 + 1.0
            holds[:] = [x * 3.0]            # keeps what is below from being popped

        x.register_hook(record)
        for _ in range(300):
            (x * x).backward(create_graph=True)
            x.grad = None
        assert ad._core.tape_stats()["capacity"] <= 1 << 16
        """
    )


@pytest.mark.parametrize("create_graph", [False, True], ids=["plain", "create_graph"])
def test_one_tensor_as_grad_of_two_leaves_does_not_mix_their_gradients(create_graph):
    x = ad.tensor(1.0, requires_grad=True)
    y = ad.tensor(1.0, requires_grad=True)
    x.grad = y.grad = ad.tensor(10.0)
    (2.0 * x + 3.0 * y).backward(create_graph=create_graph)
    assert (x.grad.item(), y.grad.item()) == (12.0, 13.0)


def test_a_thread_that_reads_an_operand_which_another_changes_sees_old_or_new(fresh_python):
    fresh_python(
        """
        import threading, time
        import numpy as np, fastad as ad
        t = ad.tensor(np.full(400000, 7.0))
        big = np.full(400000, 2.0)
        stop = time.monotonic() + 1.5
        wrong = []

        def change():
            global t
            while time.monotonic() < stop:
                t += 0.0

        def read():
            while time.monotonic() < stop:
                found = np.unique(ad.multiply(t, big).numpy())
                if found.tolist() != [14.0]:
                    wrong.append(found)

        threads = [threading.Thread(target=f) for f in (change, read)]
        [th.start() for th in threads]
        [th.join() for th in threads]
        assert not wrong, wrong[0]
        """
    )
