"""Gradients as PyTorch gives them: backward, .grad, hooks, grad(), create_graph, Function."""

import copy
import functools
import gc
import math

import numpy as np
import pytest

import fastad as ad


def leaf(value=3.0, dtype=None):
    return ad.tensor(value, dtype=dtype, requires_grad=True)


def value_of(t):
    return None if t is None else t.tolist()


# The worked cases.


def test_two_paths_add_up():
    x = leaf(2.0)
    y = x**3 + x**2
    y.backward()
    assert x.grad.item() == 3 * 2.0**2 + 2 * 2.0


def test_sine_over_x():
    x = leaf(1.3)
    y = ad.sin(x) / x
    y.backward()
    want = math.cos(1.3) / 1.3 - math.sin(1.3) / 1.3**2
    assert x.grad.item() == pytest.approx(want, rel=1e-15)


def test_twice_the_dot_product_of_a_vector_with_itself():
    x = ad.arange(4, dtype=ad.float32)
    x.requires_grad_(True)
    y = 2 * ad.dot(x, x)
    assert repr(y) == "tensor(28., grad_fn=<multiply>, dtype=float32)"
    y.backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [0.0, 4.0, 8.0, 12.0]
    assert (x.grad == 4 * x).all()


# backward and .grad.


def test_grad_is_none_until_a_sweep_reaches_the_leaf():
    x, unused = leaf(), leaf()
    (x * 2.0).backward()
    assert x.grad.item() == 2.0
    assert unused.grad is None


@pytest.mark.parametrize("value", [3.0, [3.0, 1.0], np.ones(1000)])
def test_gradients_accumulate_into_the_same_object(value):
    x = leaf(value)
    (x * 2.0).sum().backward()
    first = x.grad
    (x * 5.0).sum().backward()
    assert x.grad is first
    assert first.tolist() == np.full(np.shape(value), 7.0).tolist()


def test_setting_grad_to_none_starts_again():
    x = leaf()
    for _ in range(3):
        x.grad = None
        (x * x).backward()
        assert x.grad.item() == 6.0


def test_deleting_grad_sets_it_to_none():
    x = leaf()
    (x * x).backward()
    del x.grad
    assert x.grad is None


def test_grad_can_be_set_to_a_tensor_of_its_shape_and_dtype():
    x = leaf([1.0, 2.0])
    mine = ad.tensor([10.0, 20.0])
    x.grad = mine
    assert x.grad is mine
    x.sum().backward()
    assert x.grad.tolist() == [11.0, 21.0]


def test_only_leaves_collect_gradients():
    x = leaf()
    y = x * x
    z = y * 2.0
    z.backward()
    assert x.grad.item() == 12.0
    assert y.grad is None
    assert z.grad is None
    assert (x.is_leaf, y.is_leaf) == (True, False)


def test_a_leaf_may_be_swept_itself():
    x = leaf([1.0, 2.0])
    x.backward(ad.tensor([3.0, 4.0]))
    x.sum().backward()
    assert x.grad.tolist() == [4.0, 5.0]
    s = leaf(2.0)
    s.backward()
    s.backward()
    assert s.grad.item() == 2.0


def test_retained_intermediates_keep_their_gradient():
    for value in (3.0, [3.0], np.full(1000, 3.0)):
        x = leaf(value)
        y = x * x
        y.retain_grad()
        y.retain_grad()
        z = (y * y).sum()
        z.retain_grad()
        z.backward(retain_graph=True)
        z.backward()
        assert y.grad.tolist() == np.full(np.shape(value), 36.0).tolist()
        assert z.grad.item() == 2.0
        assert y.grad is not x.grad
        assert not y.grad.requires_grad


def test_retain_grad_on_a_leaf_changes_nothing():
    x = leaf()
    x.retain_grad()
    (x * 2.0).backward()
    assert x.grad.item() == 2.0


def test_a_cotangent_is_needed_unless_there_is_one_element():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"shape \(2,\) needs a gradient of that shape"):
        (x * 2.0).backward()
    (x * 2.0).backward(ad.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 20.0]
    one = leaf([[2.0]])
    (one * 3.0).backward()
    assert one.grad.tolist() == [[3.0]]


@pytest.mark.parametrize(
    "cotangent",
    [
        [1.0, 10.0],
        (1, 10),
        np.array([1.0, 10.0]),
        np.array([1, 10]),
        np.float32([1, 10]),
        ad.tensor([1.0, 10.0]),
        ad.tensor([1, 10]),
    ],
    ids=["list", "tuple", "float64", "int64", "float32", "tensor", "int tensor"],
)
@pytest.mark.parametrize("options", [{}, {"create_graph": True}, {"inputs": True}])
def test_cotangents_may_be_anything_like_an_array(cotangent, options):
    x = leaf([1.0, 2.0])
    if "inputs" in options:
        options = {"inputs": [x]}
    (x * 2.0).backward(cotangent, **options)
    assert x.grad.dtype == np.float64
    assert x.grad.tolist() == [2.0, 20.0]
    (g,) = ad.autograd.grad(x * 2.0, x, cotangent)
    assert g.tolist() == [2.0, 20.0]


def test_a_cotangent_is_not_changed_by_later_sweeps():
    x, y = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    g = ad.tensor([1.0, 1.0])
    a = np.array([1.0, 1.0])
    for create in (False, True):
        (x + y).backward(g, create_graph=create)
        (x * 2.0).backward(g, create_graph=create)
        (x + y).backward(a, create_graph=create)
    assert g.tolist() == a.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [8.0, 8.0]
    assert y.grad.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("value", [1.0, [1.0, 2.0]])
def test_leaves_do_not_share_a_gradient_object(create, value):
    x, y = leaf(value), leaf(value)
    (x + y).sum().backward(create_graph=create)
    (x * 5.0).sum().backward()
    assert x.grad.tolist() == np.full(np.shape(value), 6.0).tolist()
    assert y.grad.tolist() == np.full(np.shape(value), 1.0).tolist()
    with ad.no_grad():
        x.grad.detach()
        x.grad = x.grad * 0.0
    assert y.grad.tolist() == np.full(np.shape(value), 1.0).tolist()


def test_a_second_sweep_of_a_consumed_graph_is_an_error():
    for value in (3.0, [3.0, 1.0]):
        x = leaf(value)
        y = ad.exp(x * x).sum()
        y.backward()
        before = x.grad.tolist()
        for again in (y.backward, lambda y=y, x=x: ad.autograd.grad(y, x)):
            with pytest.raises(RuntimeError, match="already consumed .* retain_graph=True"):
                again()
        assert x.grad.tolist() == before


def test_a_shared_part_that_was_consumed_is_an_error_too():
    x = leaf(2.0)
    shared = ad.exp(x)
    first, second = shared * 2.0, shared * 3.0
    first.backward()
    before = x.grad.item()
    with pytest.raises(RuntimeError, match="a part of it, was already consumed"):
        second.backward()
    with pytest.raises(RuntimeError, match="a part of it, was already consumed"):
        (shared * 1.0).backward(create_graph=True)
    assert x.grad.item() == before
    assert second.item() == shared.item() * 3.0  # the values are still there


def test_a_retained_graph_is_swept_again():
    x = leaf([2.0, 1.0])
    y = (ad.exp(x) * x[0]).sum()
    want = None
    for k in range(3):
        y.backward(retain_graph=k < 2)
        want = x.grad.tolist() if want is None else want
        assert x.grad.tolist() == [pytest.approx((k + 1) * w, rel=1e-15) for w in want]


def test_graphs_that_share_only_leaves_are_independent():
    x = leaf(2.0)
    first, second = x * x, x * 3.0
    first.backward()
    second.backward()
    assert x.grad.item() == 7.0


def test_backward_collects_into_the_given_inputs_only():
    x, w = leaf(3.0), leaf(2.0)
    z = x * w
    y = z * z + w
    y.backward(inputs=[x, z], retain_graph=True)
    assert w.grad is None
    assert z.grad.item() == 12.0
    assert x.grad.item() == 24.0
    y.backward(inputs=w)
    assert w.grad.item() == 12.0 * 3.0 + 1.0
    assert x.grad.item() == 24.0


SWEEPS = {
    "plain": {}, "recorded": {"create_graph": True}, "kept": {"retain_graph": True},
    "recorded and freed": {"create_graph": True, "retain_graph": False},
}


@pytest.mark.parametrize("value", [0.7, [0.7, 0.3], np.linspace(0.1, 0.9, 20_000)])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_into_inputs_passes_only_what_leads_to_them(sweep, value):
    """PyTorch's rule: elsewhere no hook runs, and nothing is consumed."""
    seen = []

    def graph():
        x = leaf(value)
        a = ad.sin(x)
        b = ad.exp(a)
        side = ad.cos(x * 2.0)
        y = (b * b + side).sum()
        seen.clear()
        for name, t in {"x": x, "a": a, "b": b, "side": side}.items():
            t.register_hook(lambda g, name=name: seen.append(name))
        return x, a, b, side, y

    x, a, b, side, y = graph()
    (found,) = ad.autograd.grad(y, a, **SWEEPS[sweep])
    assert seen == ["b", "a"]
    want = 2.0 * np.exp(2.0 * np.sin(np.asarray(value)))
    np.testing.assert_allclose(found.detach().numpy(), want, rtol=1e-14)
    side.backward(np.ones_like(np.asarray(value)))
    assert seen == ["b", "a", "side", "x"]
    np.testing.assert_allclose(x.grad.numpy(), -2.0 * np.sin(2.0 * np.asarray(value)), rtol=1e-14)
    a.backward(np.ones_like(np.asarray(value)))
    if sweep in ("plain", "recorded and freed"):
        with pytest.raises(RuntimeError, match="already consumed"):
            b.backward(np.ones_like(np.asarray(value)))
    # an input that leads to another one
    x, a, b, side, y = graph()
    found, again = ad.autograd.grad(y, [b, x], **SWEEPS[sweep])
    assert sorted(seen) == ["a", "b", "side", "x"]
    np.testing.assert_allclose(found.detach().numpy(), 2.0 * b.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(
        again.detach().numpy(), want * np.cos(np.asarray(value))
        - 2.0 * np.sin(2.0 * np.asarray(value)), rtol=1e-13)


@pytest.mark.parametrize("value", [0.7, [0.7, 0.3]])
def test_backward_into_inputs_consumes_only_what_leads_to_them(value):
    x, w = leaf(value), leaf(value)
    inner = ad.exp(w)
    y = (ad.sin(x) * x + inner).sum()
    y.backward(inputs=[x])
    assert w.grad is None
    inner.backward(np.ones_like(np.asarray(value)))
    np.testing.assert_allclose(w.grad.numpy(), np.exp(np.asarray(value)))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_consumed_part_that_may_lead_to_an_input_is_an_error(sweep):
    x = leaf(2.0)
    z = x * 1.0
    shared = ad.exp(z)
    (shared * 2.0).backward()
    with pytest.raises(RuntimeError, match="already consumed"):
        ad.autograd.grad(shared * 3.0, z, **SWEEPS[sweep])


def test_leaves_with_nodes_from_before_are_found_as_inputs():
    x = leaf(2.0)
    old = x * x
    ad.exp(leaf(0.0)).backward()            # the next use of x makes another node
    new = x * 3.0
    for sweep in SWEEPS.values():
        total = old * new                   # 3 x**3
        assert ad.autograd.grad(total, x, **{"retain_graph": True, **sweep} if "retain_graph"
                                not in sweep else {"retain_graph": True})[0].item() == 36.0


def test_gradients_of_inner_functions_do_not_descend_into_what_is_outside(monkeypatch):
    """The work of an inner gradient does not depend on how the outer value came about."""
    seen = []
    rule = next(rule for rule in ad.rules.PRIMITIVES.values() if rule.name == "cumsum")
    pull = rule.vjp
    monkeypatch.setattr(rule, "vjp", lambda *args, **kw: (seen.append(1), pull(*args, **kw))[1])
    x = leaf([1.0, 2.0, 3.0])
    outside = ad.cumsum(x)
    inner = ad.grad(lambda z: (z * z * outside).sum())(outside)
    assert not seen
    inner.sum().backward()
    assert seen


def test_a_result_computed_without_recording_has_no_gradient():
    x = leaf(2.0)
    with ad.no_grad():
        y = x * x
    assert y.is_leaf
    z = x * y
    z.backward()
    assert x.grad.item() == 4.0


def test_detach_cuts_the_graph():
    x = leaf(3.0)
    y = (x * x).detach()
    assert y.grad_fn is None
    z = y * x
    z.backward()
    assert x.grad.item() == 9.0


def test_requires_grad_can_be_switched_on_and_off_on_a_leaf():
    x = ad.tensor([1.0, 2.0])
    assert x.requires_grad_() is x
    (x * 3.0).sum().backward()
    assert x.requires_grad_(False) is x
    assert not (x * 3.0).requires_grad
    x.requires_grad = True
    (x * 4.0).sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_a_leaf_that_stopped_requiring_gradients_gets_none():
    x, w = leaf(3.0), leaf(2.0)
    y = x * w
    x.requires_grad_(False)
    y.backward()
    assert x.grad is None
    assert w.grad.item() == 3.0


def test_grad_fn_names_the_primitive():
    x = leaf([1.0, 2.0])
    assert x.grad_fn is None
    assert repr((x * 2.0).grad_fn) == "<multiply>"
    assert repr(ad.sin(x).grad_fn) == "<sin>"
    assert repr((x @ x).grad_fn) == "<matmul>"
    assert repr(x[0].grad_fn) == "<getitem>"
    assert repr(ad.where(x > 0, x, 0.0).grad_fn) == "<where>"
    assert ad.tensor(1.0).grad_fn is None


def test_zero_times_infinity_is_zero_in_a_sweep():
    x = leaf([-1.0, 0.0, 4.0])
    y = ad.where(x > 0, ad.sqrt(x), 0.0)
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.25]


# Hooks.

SIZES = [3.0, [3.0, 3.0], np.full(1000, 3.0)]


@pytest.mark.parametrize("value", SIZES)
@pytest.mark.parametrize("on", ["leaf", "result"])
@pytest.mark.parametrize("create", [False, True])
def test_hooks_run_in_order_and_pass_a_new_gradient_on(value, on, create):
    x = leaf(value)
    y = x * 2.0
    seen = []
    target = x if on == "leaf" else y

    def note(name, change):
        def hook(g):
            seen.append((name, np.ravel(g.tolist())[0]))
            return change(g)

        return hook

    target.register_hook(note("a", lambda g: g * 2.0))
    target.register_hook(note("b", lambda g: None))
    target.register_hook(note("c", lambda g: g + 1.0))
    (y * 5.0).sum().backward(create_graph=create)
    start = 10.0 if on == "leaf" else 5.0
    assert seen == [("a", start), ("b", 2 * start), ("c", 2 * start)]
    want = 2 * start + 1 if on == "leaf" else 2 * (2 * start + 1)
    assert np.ravel(x.grad.tolist())[0] == want


@pytest.mark.parametrize("on", ["leaf", "result"])
def test_a_removed_hook_does_not_run(on):
    x = leaf()
    y = x * 2.0
    target = x if on == "leaf" else y
    handles = [target.register_hook(lambda g, f=f: g * f) for f in (2.0, 3.0, 5.0)]
    handles[1].remove()
    handles[1].remove()
    with target.register_hook(lambda g: g * 100.0):
        pass
    y.backward()
    assert x.grad.item() == 2.0 * 10.0


def test_a_hook_sees_the_whole_gradient_once():
    x = leaf()
    y = x * 1.0
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    x.register_hook(lambda g: seen.append(g.item()))
    (y * 2.0 + y * 3.0 + ad.exp(y * 0.0)).backward()
    assert seen == [5.0, 5.0]


@pytest.mark.parametrize("retain", [False, True])
def test_hooks_run_once_per_sweep_that_records_itself(retain):
    x = leaf()
    y = x * x
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 3.0).backward(create_graph=True, retain_graph=retain)
    assert seen == [3.0]


def test_a_hook_of_a_dropped_result_still_runs():
    x, seen = leaf(), []

    def build():
        y = x * x
        y.register_hook(lambda g: seen.append(g.item()) or g * 2.0)
        return y * 5.0

    z = build()
    gc.collect()
    z.backward()
    assert seen == [5.0]
    assert x.grad.item() == 60.0


def hook_by_closure(t):
    def hook(g):
        return g * (2.0 if t.shape == () else 1.0)

    return hook


def hook_by_default(t):
    return lambda g, t=t: g * 2.0


def hook_by_partial(t):
    return functools.partial(lambda t, g: g * 2.0, t)


class HookOfObject:
    def __init__(self, t):
        self.t = t

    def __call__(self, g):
        return g * 2.0

    def method(self, g):
        return g * 2.0


REFERRING = {
    "closure": hook_by_closure,
    "default": hook_by_default,
    "partial": hook_by_partial,
    "object": HookOfObject,
    "method": lambda t: HookOfObject(t).method,
}


@pytest.mark.parametrize("kind", REFERRING)
def test_a_hook_may_refer_to_its_own_tensor(kind):
    x = leaf()
    y = x * x
    y.register_hook(REFERRING[kind](y))
    gc.collect()
    (y * 5.0).backward()
    assert x.grad.item() == 60.0


@pytest.mark.parametrize("kind", REFERRING)
@pytest.mark.parametrize(
    "sweep",
    [
        lambda z, x: z.backward(),
        lambda z, x: z.backward(create_graph=True),
        lambda z, x: ad.autograd.grad(z, x),
    ],
    ids=["backward", "create_graph", "grad"],
)
def test_a_hook_that_was_collected_with_its_tensor_is_missed(kind, sweep):
    """It ran or it raises, whenever the collector runs; it is never left out silently."""
    x = leaf()

    def build():
        y = x * x
        y.register_hook(REFERRING[kind](y))
        return y * 5.0

    z = build()
    gc.collect()
    with pytest.raises(RuntimeError, match="hook: .* collected .* keep the tensor"):
        sweep(z, x)
    assert x.grad is None


def test_a_collected_hook_that_was_removed_is_not_missed():
    x = leaf()

    def build():
        y = x * x
        y.register_hook(hook_by_closure(y)).remove()
        return y * 5.0

    z = build()
    gc.collect()
    z.backward()
    assert x.grad.item() == 30.0


def test_the_gradient_given_to_a_hook_is_not_changed_later():
    x, seen = leaf([1.0, 2.0]), []
    y = x * 1.0
    y.register_hook(seen.append)
    x.register_hook(seen.append)
    (y * 3.0).sum().backward(retain_graph=True)
    (y * 4.0).sum().backward()
    assert [g.tolist() for g in seen] == [[3.0, 3.0]] * 2 + [[4.0, 4.0]] * 2
    assert x.grad.tolist() == [7.0, 7.0]


def test_a_gradient_that_a_hook_returned_is_not_changed_later():
    mine = ad.tensor([7.0, 7.0])
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: mine)
    for _ in range(2):
        (x * 3.0).sum().backward()
    assert mine.tolist() == [7.0, 7.0]
    assert x.grad.tolist() == [14.0, 14.0]


def test_a_hook_that_raises_leaves_gradients_and_graph_as_they_were():
    for on in ("leaf", "result", "last"):
        x, w = leaf([3.0, 1.0]), leaf(2.0)
        y = x * w
        z = (y * 5.0).sum()
        x.grad = ad.tensor([1.0, 1.0])

        def hook(g):
            raise KeyError("stop")

        handle = {"leaf": x, "result": y, "last": z}[on].register_hook(hook)
        with pytest.raises(KeyError, match="stop"):
            z.backward()
        assert x.grad.tolist() == [1.0, 1.0]
        assert w.grad is None
        assert ad.is_grad_enabled()
        handle.remove()
        z.backward()
        assert x.grad.tolist() == [11.0, 11.0]
        assert w.grad.item() == 20.0


@pytest.mark.parametrize("wrong", [3.0, "text", np.ones(2), ad.tensor([1.0]), ad.tensor(1.0)])
def test_a_hook_must_return_a_tensor_of_the_same_shape(wrong):
    x = leaf([3.0, 1.0])
    y = x * 2.0
    y.register_hook(lambda g: wrong)
    with pytest.raises(TypeError, match=r"hook: wanted None or a Tensor .* \(2,\)"):
        y.sum().backward()
    assert x.grad is None


def test_a_hook_may_return_another_dtype():
    x = leaf([3.0, 1.0], ad.float32)
    x.register_hook(lambda g: g.astype(float) * 2.0)
    (x * 2.0).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [4.0, 4.0]


def test_hooks_run_in_autograd_grad_too():
    x = leaf()
    y = x * x
    y.register_hook(lambda g: g * 2.0)
    x.register_hook(lambda g: g + 1.0)
    z = y * 5.0
    gx, gy = ad.autograd.grad(z, [x, y])
    assert (gx.item(), gy.item()) == (61.0, 10.0)


def test_a_hook_registered_in_a_hook_waits_for_the_next_sweep():
    x = leaf()
    y = x * x
    seen = []

    def hook(g):
        seen.append("outer")
        if len(seen) == 1:
            y.register_hook(lambda g: seen.append("inner"))

    y.register_hook(hook)
    y.backward(retain_graph=True)
    assert seen == ["outer"]
    y.backward()
    assert seen == ["outer", "outer", "inner"]


# autograd.grad.


def test_grad_gives_gradients_and_adds_nothing():
    x, w = leaf(3.0), leaf([1.0, 2.0])
    y = (w * x).sum()
    gx, gw = ad.autograd.grad(y, [x, w])
    assert (gx.item(), gw.tolist()) == (3.0, [3.0, 3.0])
    assert x.grad is None
    assert w.grad is None


def test_grad_frees_the_graph_unless_told_otherwise():
    x = leaf()
    y = x * x
    assert ad.autograd.grad(y, x, retain_graph=True)[0].item() == 6.0
    assert ad.autograd.grad(y, x)[0].item() == 6.0
    with pytest.raises(RuntimeError, match="already consumed"):
        ad.autograd.grad(y, x)


@pytest.mark.parametrize("create", [False, True])
def test_grad_takes_intermediates_duplicates_and_outputs_as_inputs(create):
    x = leaf(3.0)
    z = x * x
    y = z * z
    got = ad.autograd.grad(y, [z, x, z, x, y], create_graph=create)
    assert [g.item() for g in got] == [18.0, 108.0, 18.0, 108.0, 1.0]
    assert all(g.requires_grad == create for g in got[:4])


def test_grad_of_a_leaf_with_respect_to_itself_is_one():
    x = leaf([1.0, 2.0])
    (g,) = ad.autograd.grad(x, x, ad.ones(2))
    assert g.tolist() == [1.0, 1.0]


def test_grad_sums_over_outputs_with_their_cotangents():
    x = leaf([1.0, 2.0])
    y, z = x * x, x.sum()
    (g,) = ad.autograd.grad([y, z], [x], [[1.0, 10.0], 100.0], retain_graph=True)
    assert g.tolist() == [102.0, 140.0]
    (g,) = ad.autograd.grad([z, z], x)
    assert g.tolist() == [2.0, 2.0]
    (g,) = ad.autograd.grad((y, x.sum()), x, (ad.ones(2), None))
    assert g.tolist() == [3.0, 5.0]


@pytest.mark.parametrize("create", [False, True])
def test_unused_inputs_are_an_error_or_none(create):
    x, unused = leaf(), leaf()
    z = unused * 2.0
    y = x * x
    with pytest.raises(RuntimeError, match="input 1 was not used .* allow_unused=True"):
        ad.autograd.grad(y, [x, unused], create_graph=create, retain_graph=True)
    got = ad.autograd.grad(y, [x, unused, z], create_graph=create, allow_unused=True)
    assert [value_of(g) for g in got] == [6.0, None, None]


def test_an_unused_input_does_not_cost_the_graph():
    x, unused = leaf(), leaf()
    y = x * x
    with pytest.raises(RuntimeError, match="input 0 was not used"):
        ad.autograd.grad(y, unused)
    assert ad.autograd.grad(y, x)[0].item() == 6.0


def test_an_input_reached_with_zero_is_used():
    x = leaf()
    (g,) = ad.autograd.grad(x * 0.0, x)
    assert g.item() == 0.0
    (g,) = ad.autograd.grad(ad.where(True, 1.0, x), x)
    assert g.item() == 0.0


def test_gradients_do_not_require_gradients_unless_asked():
    x = leaf([1.0, 2.0])
    (g,) = ad.autograd.grad((x * x).sum(), x)
    assert not g.requires_grad
    (x * x).sum().backward()
    assert not x.grad.requires_grad
    (g,) = ad.autograd.grad((x * x).sum(), x, create_graph=True)
    assert g.requires_grad


# Higher orders.


def nth(f, x, n):
    y = f(x)
    for _ in range(n):
        (y,) = ad.autograd.grad(y.sum() if y.ndim else y, x, create_graph=True)
    return y.detach().numpy()


CLOSED = {
    "x**5": (lambda x: x**5, lambda v, n: math.perm(5, n) * v ** (5 - n)),
    "x**2.5": (
        lambda x: x**2.5,
        lambda v, n: math.prod(2.5 - k for k in range(n)) * v ** (2.5 - n),
    ),
    "exp(2x)": (lambda x: ad.exp(2.0 * x), lambda v, n: 2.0**n * np.exp(2.0 * v)),
    "sin": (ad.sin, lambda v, n: np.sin(v + n * np.pi / 2)),
    "log": (ad.log, lambda v, n: (-1.0) ** (n - 1) * math.factorial(n - 1) / v**n),
    "1/x": (lambda x: 1.0 / x, lambda v, n: (-1.0) ** n * math.factorial(n) / v ** (n + 1)),
    "x*sin(x)": (
        lambda x: x * ad.sin(x),
        lambda v, n: v * np.sin(v + n * np.pi / 2) + n * np.sin(v + (n - 1) * np.pi / 2),
    ),
    "x*x*x*x": (lambda x: x * x * x * x, lambda v, n: math.perm(4, n) * v ** (4.0 - n)),
}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("value", [1.3, [0.7, 1.9]])
def test_derivatives_of_higher_order_have_their_closed_form(name, n, value):
    f, want = CLOSED[name]
    got = nth(f, leaf(value), n)
    np.testing.assert_allclose(got, want(np.array(value), n), rtol=1e-12)


def test_third_order_through_structured_primitives():
    v = np.array([[1.0, 2.0], [3.0, 4.0]])
    x = leaf(v)
    y = ((x @ x) * x).sum()  # cubic
    (g,) = ad.autograd.grad(y, x, create_graph=True)
    (h,) = ad.autograd.grad(g.sum(), x, create_graph=True)
    (t,) = ad.autograd.grad(h.sum(), x)

    def along(s):
        m = v + s
        return ((m @ m) * m).sum()

    # the sum of all third derivatives is the third derivative along the all-ones direction
    third = sum(c * along(s) for c, s in ((-1, -3), (3, -1), (-3, 1), (1, 3))) / 8
    assert t.sum().item() == pytest.approx(third, rel=1e-12)
    assert third == 48.0


def test_mixed_second_derivatives_agree_both_ways():
    a, b = leaf(1.2), leaf([0.5, 0.8])
    y = (ad.exp(a * b) * ad.sin(b)).sum()
    ga, gb = ad.autograd.grad(y, [a, b], create_graph=True)
    (ab,) = ad.autograd.grad(ga, b, retain_graph=True)
    ba = [ad.autograd.grad(gb[k], a, retain_graph=True)[0].item() for k in range(2)]
    np.testing.assert_allclose(ab.tolist(), ba, rtol=1e-14)
    v = np.array([0.5, 0.8])
    want = np.exp(1.2 * v) * ((1 + 1.2 * v) * np.sin(v) + v * np.cos(v))
    np.testing.assert_allclose(ab.tolist(), want, rtol=1e-14)


def test_second_order_through_in_place_and_dropped_results():
    x = leaf(2.0)

    def build():
        y = x * x
        y *= x
        z = ad.exp(y * 0.1)
        return z

    (g,) = ad.autograd.grad(build(), x, create_graph=True)
    (h,) = ad.autograd.grad(g, x)
    want = math.exp(0.8) * ((0.3 * 4.0) ** 2 + 0.6 * 2.0)
    assert h.item() == pytest.approx(want, rel=1e-14)


def test_backward_with_create_graph_makes_grad_differentiable():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    (h,) = ad.autograd.grad(x.grad, x)
    assert h.item() == 12.0


def test_a_gradient_penalty_trains():
    """The gradient of a loss that holds a gradient: d/dw of (d/dx (w x^2))^2 = 8 w x^2."""
    x, w = leaf(3.0), leaf(2.0)
    (g,) = ad.autograd.grad(w * x * x, x, create_graph=True)
    (g * g).backward()
    assert w.grad.item() == 8 * 2.0 * 9.0
    assert x.grad.item() == 8 * 4.0 * 3.0


def test_create_graph_without_retaining_frees_the_first_graph():
    x = leaf(3.0)
    y = x * x * x
    (g,) = ad.autograd.grad(y, x, create_graph=True, retain_graph=False)
    assert g.item() == 27.0
    with pytest.raises(RuntimeError, match="already consumed"):
        y.backward()


def test_hessian_vector_products_by_two_sweeps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    a = a + a.T
    v = rng.normal(size=5)
    x = leaf(rng.normal(size=5))
    (g,) = ad.autograd.grad(x @ (a @ x) * 0.5, x, create_graph=True)
    (hv,) = ad.autograd.grad(g, x, v)
    np.testing.assert_allclose(hv.numpy(), a @ v, rtol=1e-13)


# Function.


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
    """The example of PyTorch's documentation, which saves its result."""

    @staticmethod
    def forward(ctx, x):
        y = ad.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class ScaledPair(ad.autograd.Function):
    """(a * b * factor, a + b), with arguments that are not tensors."""

    @staticmethod
    def forward(ctx, a, factor, b, *, _=None):
        ctx.save_for_backward(a, b)
        ctx.factor = factor
        return a * b * factor, a + b

    @staticmethod
    def backward(ctx, g, h):
        a, b = ctx.saved_tensors
        return g * b * ctx.factor + h, None, g * a * ctx.factor + h


@pytest.mark.parametrize("value", SIZES)
def test_a_function_is_recorded_as_one_primitive(value):
    x = leaf(value)
    y = Cube.apply(x)
    assert repr(y.grad_fn) == "<Cube>"
    assert y.tolist() == (np.array(value) ** 3).tolist()
    (y * 2.0).sum().backward()
    assert x.grad.tolist() == (6.0 * np.array(value) ** 2).tolist()


def test_a_function_works_without_gradients_too():
    y = Cube.apply(ad.tensor(2.0))
    assert y.item() == 8.0
    assert not y.requires_grad
    with ad.no_grad():
        assert not Cube.apply(leaf(2.0)).requires_grad


def test_recording_is_off_in_forward_and_its_state_comes_back():
    seen = []

    class Look(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(ad.is_grad_enabled())
            seen.append(ctx.needs_input_grad)
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            return g

    Look.apply(leaf())
    Look.apply(ad.tensor(1.0))
    assert seen == [False, (True,), False, (False,)]
    assert ad.is_grad_enabled()


def test_a_function_with_several_outputs_and_plain_arguments():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 5.0])
    product, total = ScaledPair.apply(a, 10.0, b)
    assert product.tolist() == [30.0, 100.0]
    assert total.tolist() == [4.0, 7.0]
    (product * 2.0 + total * [1.0, 100.0]).sum().backward()
    assert a.grad.tolist() == [61.0, 200.0]
    assert b.grad.tolist() == [21.0, 140.0]


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_is_not_used_contributes_nothing(used):
    a, b = leaf(2.0), leaf(3.0)
    ScaledPair.apply(a, 10.0, b)[used].backward()
    assert (a.grad.item(), b.grad.item()) == [(30.0, 20.0), (1.0, 1.0)][used]


def test_one_tensor_as_two_arguments_of_a_function_gets_both_contributions():
    a = leaf(2.0)
    ScaledPair.apply(a, 10.0, a)[0].backward()
    assert a.grad.item() == 40.0


@pytest.mark.parametrize("value", [0.7, [0.7, 0.2]])
@pytest.mark.parametrize("function", [Cube, Exp])
def test_functions_differentiate_to_higher_orders(function, value):
    v = np.array(value)
    want = {
        Cube: [v**3, 3 * v**2, 6 * v, np.full_like(v, 6.0)],
        Exp: [np.exp(v)] * 4,
    }[function]
    for n in range(4):
        np.testing.assert_allclose(nth(function.apply, leaf(value), n), want[n], rtol=1e-14)


def test_a_function_that_saves_its_result_meets_other_paths_in_second_order():
    x = leaf(0.7)
    (g,) = ad.autograd.grad(Exp.apply(x) * x, x, create_graph=True)
    (h,) = ad.autograd.grad(g, x)
    assert h.item() == pytest.approx((2 + 0.7) * math.exp(0.7), rel=1e-14)


def test_several_outputs_differentiate_twice():
    def f(a, b):
        p, s = ScaledPair.apply(a, 10.0, b)
        return p * s

    a, b = leaf(2.0), leaf(3.0)  # 10 (a^2 b + a b^2)
    ga, gb = ad.autograd.grad(f(a, b), [a, b], create_graph=True)
    assert (ga.item(), gb.item()) == (10 * (12 + 9), 10 * (4 + 12))
    aa, ab = ad.autograd.grad(ga, [a, b], retain_graph=True)
    (bb,) = ad.autograd.grad(gb, b)
    assert (aa.item(), ab.item(), bb.item()) == (60.0, 100.0, 40.0)


@pytest.mark.parametrize("function", [Cube, Exp])
def test_tangents_pass_through_functions(function):
    v = np.array([0.7, 1.2])
    d = np.array([1.0, -2.0])
    slope = {Cube: 3 * v**2, Exp: np.exp(v)}[function]
    y, dot = ad.jvp(lambda x: function.apply(x) * 2.0, (v,), (d,))
    np.testing.assert_allclose(dot, 2 * slope * d, rtol=1e-14)


def test_tangents_pass_through_functions_of_several_outputs():
    def f(a, b):
        p, s = ScaledPair.apply(a, 10.0, b)
        return p + 100.0 * s

    assert ad.jvp(f, (2.0, 3.0), (1.0, 0.0))[1] == 130.0
    assert ad.jvp(f, (2.0, 3.0), (0.0, 1.0))[1] == 120.0
    hess = ad.hessian(lambda v: f(v[0], v[1]) * v[0])(np.array([2.0, 3.0]))
    np.testing.assert_allclose(hess, [[260.0, 140.0], [140.0, 0.0]], rtol=1e-14)


@pytest.mark.parametrize("value", [2.0, [2.0, 1.0], np.full(2000, 2.0)])
@pytest.mark.parametrize("function", [Cube, Exp])
def test_what_a_function_saved_is_not_corrupted_by_later_updates(value, function):
    x = leaf(value)
    y = function.apply(x)
    kept = y * 1.0
    y += 50.0
    with ad.no_grad():
        x += 1.0
        x *= 3.0
    kept.sum().backward()
    v = np.array(value)
    want = {Cube: 3 * v**2, Exp: np.exp(v)}[function]
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-15)


def test_a_function_may_return_its_argument():
    class Same(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7.0

    x = leaf([1.0, 2.0])
    y = Same.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


def test_a_function_may_have_integer_outputs():
    class Split(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0, (x > 1.5).astype(int)

        @staticmethod
        def backward(ctx, g, _):
            return g * 2.0

    x = leaf([1.0, 2.0])
    y, n = Split.apply(x)
    assert (n.dtype.kind, n.requires_grad) == ("i", False)
    (y * n).sum().backward()
    assert x.grad.tolist() == [0.0, 2.0]


def test_a_function_may_be_used_many_times_with_its_own_contexts():
    x = leaf(1.1)
    y = x
    for _ in range(3):
        y = Cube.apply(y)
    y.backward()
    assert x.grad.item() == pytest.approx(27 * 1.1**26, rel=1e-13)


def test_cotangents_of_another_dtype_are_cast():
    class Mix(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.astype(float) * 2.0

        @staticmethod
        def backward(ctx, g):
            return g * 2.0

    x = leaf([1.0, 2.0], ad.float32)
    y = Mix.apply(x)
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2.0, 2.0]


def bad_function(forward=lambda ctx, x: x * 2.0, backward=lambda ctx, g: g * 2.0):
    return type(
        "Bad",
        (ad.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )


def stop(*args):
    raise ZeroDivisionError("half-way")


@pytest.mark.parametrize(
    ("backward", "error", "text"),
    [
        (stop, ZeroDivisionError, "half-way"),
        (lambda ctx, g: (g, g), RuntimeError, "Bad.backward: returned 2 gradients for 1 arg"),
        (lambda ctx, g: (), RuntimeError, "Bad.backward: returned 0 gradients for 1 arg"),
        (lambda ctx, g: "text", TypeError, "dtype <U4"),
        (lambda ctx, g: ad.ones(5), ValueError, r"shape \(5,\)"),
    ],
)
@pytest.mark.parametrize("create", [False, True])
def test_a_function_whose_backward_is_wrong_leaves_everything_as_it_was(
    backward, error, text, create, tape_state
):
    x, w = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    y = (bad_function(backward=backward).apply(x * w) * w).sum()
    before = tape_state()
    with pytest.raises(error, match=text):
        y.backward(create_graph=create)
    assert x.grad is None
    assert w.grad is None
    assert ad.is_grad_enabled()
    assert tape_state() == before
    (x * w).sum().backward()
    assert w.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("forward", "error", "text"),
    [
        (stop, ZeroDivisionError, "half-way"),
        (lambda ctx, x: 3.0, TypeError, "Bad.forward: returned float, wanted a Tensor"),
        (lambda ctx, x: (x, None), TypeError, "Bad.forward: returned NoneType"),
        (lambda ctx, x: x + ad.ones(7), ValueError, r"\(2,\) and \(7,\) do not broadcast"),
    ],
)
def test_a_function_whose_forward_is_wrong_leaves_everything_as_it_was(
    forward, error, text, tape_state
):
    x = leaf([1.0, 2.0])
    z = x * 2.0
    before = tape_state()
    with pytest.raises(error, match=text):
        bad_function(forward=forward).apply(z)
    assert ad.is_grad_enabled()
    assert tape_state() == before
    z.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_function_that_gives_none_for_a_tensor_sends_it_nothing():
    class First(ad.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, g):
            return g, None

    a, b = leaf(1.0), leaf(2.0)
    First.apply(a, b).backward()
    assert a.grad.item() == 1.0
    assert b.grad is None or b.grad.item() == 0.0


def test_a_function_must_define_its_halves():
    class Nothing(ad.autograd.Function):
        pass

    with pytest.raises(NotImplementedError, match="define a static forward"):
        Nothing.apply(leaf())

    class Half(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

    y = Half.apply(leaf())
    with pytest.raises(NotImplementedError, match="define a static backward"):
        y.backward()


# Modes.


def test_no_grad_holds_inside_with_and_ends_with_it():
    x = leaf()
    with ad.no_grad():
        assert not ad.is_grad_enabled()
        assert not (x * 2.0).requires_grad
        with ad.enable_grad():
            assert (x * 2.0).requires_grad
        assert not ad.is_grad_enabled()
    assert ad.is_grad_enabled()


def test_modes_end_when_an_exception_passes():
    with pytest.raises(KeyError), ad.no_grad():
        raise KeyError
    assert ad.is_grad_enabled()
    with pytest.raises(KeyError), ad.no_grad(), ad.enable_grad():
        raise KeyError
    assert ad.is_grad_enabled()


def test_one_mode_object_can_be_entered_again_inside_itself():
    mode = ad.no_grad()
    with mode:
        with ad.enable_grad(), mode:
            assert not ad.is_grad_enabled()
        assert not ad.is_grad_enabled()
    assert ad.is_grad_enabled()


def test_modes_decorate_functions():
    @ad.no_grad()
    def quiet(x):
        """Twice."""
        return x * 2.0

    @ad.enable_grad()
    def loud(x):
        return x * 2.0

    x = leaf()
    assert not quiet(x).requires_grad
    assert quiet.__doc__ == "Twice."
    assert ad.is_grad_enabled()
    with ad.no_grad():
        assert loud(x).requires_grad
        assert not ad.is_grad_enabled()

    @ad.no_grad()
    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert ad.is_grad_enabled()


def test_set_grad_enabled_is_a_switch_and_a_context():
    x = leaf()
    for flag in (True, False):
        with ad.set_grad_enabled(flag):
            assert (x * 2.0).requires_grad == flag
        assert ad.is_grad_enabled()
    try:
        ad.set_grad_enabled(False)
        assert not ad.is_grad_enabled()
    finally:
        ad.set_grad_enabled(True)

    @ad.set_grad_enabled(False)
    def quiet(x):
        return x * 2.0

    assert ad.is_grad_enabled()
    assert not quiet(x).requires_grad
    assert ad.is_grad_enabled()


def test_backward_works_under_no_grad():
    x = leaf()
    y = x * x
    with ad.no_grad():
        y.backward()
        assert not ad.is_grad_enabled()
    assert x.grad.item() == 6.0


def test_create_graph_records_even_under_no_grad():
    x = leaf()
    y = x * x * x
    with ad.no_grad():
        (g,) = ad.autograd.grad(y, x, create_graph=True)
    assert ad.autograd.grad(g, x)[0].item() == 18.0


# Copies of trained state.


def test_a_deep_copy_keeps_its_gradient():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.grad.tolist() == [2.0, 4.0]
    (twin * 1.0).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
    assert twin.grad.tolist() == [3.0, 5.0]
