"""Pictures of computation graphs: what they say, where it stands, and that tools read it."""

import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import fastad as ad
from fastad import _core, canvas, folding, formulas, layout, pictures

SVG = "{http://www.w3.org/2000/svg}"


KEPT = set()


@pytest.fixture(autouse=True)
def kept_pictures(request, monkeypatch):
    """Keep what the tests draw as Mermaid files, where FASTAD_PICTURES names a folder for them."""
    folder = os.environ.get("FASTAD_PICTURES")
    if not folder:
        yield
        return
    made = []
    init = pictures.Picture.__init__

    def noted(self, *args):
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(pictures.Picture, "__init__", noted)
    yield
    name = re.sub(r"\W+", "_", request.node.name)
    for k, picture in enumerate(made):
        keep(picture, f"{name}_{k}")


def keep(picture, name):
    """Write a Mermaid file into the folder of FASTAD_PICTURES."""
    folder = Path(os.environ["FASTAD_PICTURES"])
    try:
        text = picture.mermaid()
    except ValueError:
        return              # more than Mermaid takes; a test of its own says so
    alike = re.sub(r"\d+", "0", text)
    if alike not in KEPT:   # another one differs in numbers alone
        KEPT.add(alike)
        folder.mkdir(parents=True, exist_ok=True)
        Path(folder, f"{name}.mmd").write_text(text, encoding="utf-8")


def texts(panel):
    """The lines of each box, by the box's name in its first line."""
    return {v.lines[0].text.split(" = ")[0]: [line.text for line in v.lines]
            for v in panel.vertices}


def arrows(panel):
    """Tail, head and label of each arrow, by the names of the boxes."""
    names = {v.id: v.lines[0].text.split(" = ")[0] for v in panel.vertices}
    return {(names[e.tail], names[e.head], e.label.text if e.label else None)
            for e in panel.edges}


def cubic():
    x = ad.tensor(3.0, requires_grad=True)
    y = x**3 + x**2
    return ad.draw(y)


def quotient():
    x = ad.tensor(2.0, requires_grad=True)
    y = np.sin(x) / x
    return ad.draw(y)


def model(w, b, x, seen):
    hidden = np.tanh(x @ w + b)
    residual = ad.name(hidden.sum(axis=1), "prediction") - seen
    return (residual**2).sum() + ad.maximum(b, 0.0).mean() * w[0, 1]


def network():
    rng = np.random.default_rng(1)
    return ad.draw(model, rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(5, 3)),
                   rng.normal(size=5))


def loop(x, n=40):
    y = x
    for k in range(n):
        y = ad.sin(y) * 1.01 + 0.1 * k
    return y


def tangled(x, w):
    """No pattern in it repeats for long."""
    values = [x, w]
    for k in range(300):
        a, b = values[-1 - k % 7 % len(values)], values[(k * k * 7 + 3) % len(values)]
        values.append([a * b, a + b, ad.sin(a), ad.tanh(b), a - 0.5 * b][(k * k + k // 3) % 5])
    return sum(values[::3])


def all_kinds():
    return {
        "cubic": cubic(), "quotient": quotient(), "network": network(),
        "loop": ad.draw(loop, 1.0, max_nodes=20), "tangled": ad.draw(tangled, 0.5, 0.7),
        "depth": ad.draw(tangled, 0.5, 0.7, depth=4),
        "record": ad.draw(ad.record(model, np.zeros((3, 2)), np.zeros(2), np.ones((5, 3)),
                                    np.ones(5))),
    }


# ---- the two worked examples ---------------------------------------------------------------------


def test_the_forward_graph_of_the_cubic_has_operations_names_values_and_arrows():
    forward, _ = cubic().panels
    assert texts(forward) == {
        "x": ["x = 3", "input"], "u": ["u = x³ = 27", "power"], "v": ["v = x² = 9", "square"],
        "y": ["y = u + v = 36", "add"]}
    assert arrows(forward) == {
        ("x", "u", None), ("x", "v", None), ("u", "y", None), ("v", "y", None)}


def test_the_backward_graph_of_the_cubic_adds_up_its_two_paths():
    _, backward = cubic().panels
    assert texts(backward) == {
        "x": ["x = 3", "∂y/∂x = 27 + 6 = 33"], "u": ["u = 27", "∂y/∂u = 1"],
        "v": ["v = 9", "∂y/∂v = 1"], "y": ["y = 36", "∂y/∂y = 1"]}
    assert arrows(backward) == {
        ("u", "x", "∂u/∂x = 3x² = 27"), ("v", "x", "∂v/∂x = 2x = 6"),
        ("y", "u", "∂y/∂u = 1"), ("y", "v", "∂y/∂v = 1")}


def test_the_quotient_has_the_formulas_of_the_quotient_rule():
    forward, backward = quotient().panels
    assert texts(forward)["y"] == ["y = u/x = 0.4546", "divide"]
    assert texts(backward)["x"] == ["x = 2", "∂y/∂x = -0.2081 - 0.2273 = -0.4354"]
    assert arrows(backward) == {
        ("u", "x", "∂u/∂x = cos(x) = -0.4161"), ("y", "u", "∂y/∂u = 1/x = 0.5"),
        ("y", "x", "∂y/∂x = -u/x² = -0.2273")}


def test_the_same_formulas_stand_in_mermaid_in_tex():
    text = cubic().mermaid()
    assert text.startswith("flowchart LR\n")
    assert r'b1 -->|"$$\frac{\partial u}{\partial x} = 3\, x^{2} = 27$$"| b0' in text
    assert r'\frac{\partial y}{\partial x} = 27 + 6 = 33' in text
    assert "f0 --> f1" in text and "direction RL" in text
    assert r'\frac{\partial y}{\partial x} = -\frac{u}{x^{2}} = -0.2273' in quotient().mermaid()


def test_the_same_formulas_stand_in_svg():
    root = ElementTree.fromstring(cubic().svg())
    found = [t.text for t in root.iter(f"{SVG}text")]
    for text in ("u = x³ = 27", "∂y/∂x = 27 + 6 = 33", "∂u/∂x = 3x² = 27", "∂v/∂x = 2x = 6"):
        assert text in found


def test_shown_numbers_are_those_of_the_record():
    x = ad.tensor(1.7, requires_grad=True)
    y = ad.exp(x) * ad.log(x)
    text = ad.draw(y, digits=17).mermaid()
    y.backward()
    for number in (y.item(), x.grad.item(), math.exp(1.7), math.log(1.7)):
        assert f"{number:.17g}" in text


def test_what_the_arrows_contribute_adds_up_to_the_gradients(tape_unchanged):
    def f(x, w):
        values = [x, w]
        for k in range(40):
            a, b = values[-1 - k % 3 % len(values)], values[(k * 7 + 3) % len(values)]
            values.append([a * b, a + b, ad.sin(a), a / (b * b + 1.0), ad.hypot(a, b),
                           ad.maximum(a, b)][k % 6])
        return values[-1] * values[-2] + values[-3]
    record = pictures._of_function(f, (0.7, -0.4))
    view = pictures._View(record, None, None, 4)
    terms = {}
    for (q, g), (count, i) in view.pairs.items():
        assert count == 1
        terms.setdefault(q, []).append(view._local(q, g, i, count)[1])
    assert sum([len(t) > 1 for t in terms.values()]) > 5
    for q, found in terms.items():
        (i,) = view.groups[q].members
        np.testing.assert_allclose(sum(found), record.gradient(i), rtol=1e-12)
    record = view = None


# ---- nothing changes -----------------------------------------------------------------------------


def test_drawing_leaves_gradients_hooks_and_history_alone(tape_unchanged):
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    u = ad.exp(x)
    seen = []
    u.register_hook(lambda g: seen.append(g) or g * 2.0)
    u.retain_grad()
    y = (u * x).sum()
    before = _core.tape_stats()
    ad.draw(y)
    assert (x.grad, u.grad, seen) == (None, None, [])
    assert {**_core.tape_stats(), "pool_bytes": before["pool_bytes"]} == before
    y.backward()
    assert len(seen) == 1
    np.testing.assert_array_equal(
        x.grad.numpy(), np.exp([1.0, 2.0]) + 2.0 * np.array([1.0, 2.0]) * np.exp([1.0, 2.0]))
    x = u = y = seen = None


def test_an_interrupted_function_leaves_profiling_and_the_tape_as_they_were(tape_unchanged):
    def fails(x):
        y = x * x
        raise ZeroDivisionError(y)

    def profile(*_):
        pass

    sys.setprofile(profile)
    try:
        with pytest.raises(ZeroDivisionError):
            ad.draw(fails, 1.0)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert _core.tape_stats()["sweeping"] == 0


def test_no_memory_is_lost_when_allocations_fail(tape_unchanged):
    from conftest import with_failing_allocations

    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = ad.exp(x).sum() * x[0]
    _, failures = with_failing_allocations(lambda: _core.history([y], [x, y]))
    assert failures > 0
    ends = _core.history([y], [x])[2]
    np.testing.assert_allclose(ends[0].numpy(), (y.detach() / x.detach()[0]).item() * np.eye(2)[0]
                               + np.exp([1.0, 2.0]))
    x = y = ends = None


def test_hooks_of_what_a_graph_found_outside_are_not_run():
    w = ad.tensor(2.0, requires_grad=True)
    seen = []
    w.register_hook(seen.append)
    graph = ad.record(lambda x: x * w, 3.0)
    found = texts(ad.draw(graph, 3.0).panels[1])
    assert found["x"] == ["x = 3", "∂output/∂x = 2"]
    assert found["x1"] == ["x1 = 2", "∂output/∂x1 = 3"]
    assert not seen and w.grad is None


def test_a_consumed_history_is_refused():
    x = ad.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="draw: this graph.*consumed"):
        ad.draw(y)


def test_the_import_of_fastad_does_not_bring_in_the_pictures(fresh_python):
    told = fresh_python("import sys, fastad as ad; print('fastad.pictures' in sys.modules); "
                        "ad.draw; print('fastad.pictures' in sys.modules, 'draw' in dir(ad))")
    assert told.split() == ["False", "True", "True"]


# ---- what is drawn -------------------------------------------------------------------------------


def test_names_are_those_of_the_callers_variables():
    weights = [ad.tensor(1.0, requires_grad=True), ad.tensor(2.0, requires_grad=True)]
    data = {"scale": ad.tensor(3.0, requires_grad=True)}
    step = weights[0] * weights[1]
    loss = step + data["scale"]
    assert set(texts(ad.draw(loss).panels[0])) == {
        "weights[0]", "weights[1]", "data['scale']", "step", "loss"}


def test_names_in_a_function_are_its_variables_and_given_names():
    found = texts(network().panels[0])
    assert {"w", "b", "x", "seen", "hidden", "prediction", "residual"} <= set(found)
    assert found["hidden"][1:] == [f"tanh, float64 {(5, 2)}", found["hidden"][2]]


def test_constant_arrays_are_known_by_the_variable_that_they_equal():
    data = np.array([1.0, 2.0, 4.0])
    x = ad.tensor([1.0, 1.0, 1.0], requires_grad=True)
    y = (x * data).sum()
    forward, backward = ad.draw(y).panels
    assert texts(forward)["data"] == ["data", "constant, float64 (3,)", "[1, 2, 4]"]
    assert "data" not in texts(backward)
    assert ("u", "x", "∂u/∂x = data = [1, 2, 4]") in arrows(backward)


def test_a_shared_node_is_drawn_once_and_both_uses_add_up():
    def f(x):
        s = ad.sin(x)
        return s * s + s
    forward, backward = ad.draw(f, 0.5).panels
    assert len(forward.vertices) == 4
    assert ("u", "s", "∂u/∂s = 2s = 0.9589") in arrows(backward)
    assert texts(backward)["s"][1] == "∂y/∂s = 0.9589 + 1 = 1.959"


def test_an_operand_that_stands_twice_has_one_arrow_with_the_sum():
    _, backward = ad.draw(lambda x: ad.hypot(x, x), 3.0).panels
    (arrow,) = arrows(backward)
    assert arrow[2].endswith(" = 1.414")


def test_kinks_say_on_which_side_they_are():
    for a, b, slope, why in (
        (2.0, 1.0, 1, "p > q"), (1.0, 2.0, 0, "p < q"), (2.0, 2.0, 0.5, "p = q"),
    ):
        _, backward = ad.draw(lambda p, q: ad.maximum(p, q), a, b).panels
        assert ("y", "p", f"∂y/∂p = {slope} ({why})") in arrows(backward)
    _, backward = ad.draw(lambda x: ad.relu(x), -1.0).panels
    assert ("y", "x", "∂y/∂x = 0 (x ≤ 0)") in arrows(backward)


def test_structured_primitives_have_labels_of_matrices():
    w, b = np.ones((3, 2)), np.ones(2)
    for f, args, labels in (
        (lambda a, b: (a @ b).sum(), (w, w.T), {"∂y/∂a = G bᵀ", "∂y/∂b = aᵀ G"}),
        (lambda a, x: (a @ x).sum(), (w, b), {"∂y/∂a = G xᵀ", "∂y/∂x = aᵀ G"}),
        (lambda x, a: (x @ a).sum(), (b, w.T), {"∂y/∂a = x Gᵀ", "∂y/∂x = a G"}),
        (lambda a, b: a @ b, (b, b), {"∂y/∂a = G b", "∂y/∂b = G a"}),
    ):
        _, backward = ad.draw(f, *args).panels
        assert labels <= {label for _, _, label in arrows(backward)}
    _, backward = ad.draw(lambda ray: np.linalg.norm(ray) + np.prod(ray), [3.0, 4.0]).panels
    assert {"∂y/∂ray = G ray/u", "∂y/∂ray = G v/ray"} <= {label for _, _, label in arrows(backward)}
    assert r"= G\,v/\mathrm{ray}" in str([e.label.tex for e in backward.edges]).replace(r"\\", "\\")
    _, backward = ad.draw(lambda a: a.sum() + a[0, 1], w).panels
    assert {("u", "a", "∂y/∂a = G for every element"),
            ("v", "a", "∂y/∂a = G there, 0 elsewhere")} <= arrows(backward)


def test_a_program_and_a_graph_are_drawn_with_and_without_numbers():
    def f(x, y):
        return ad.sin(ad.name(x * y, "product"))
    program = ad.compile(f)
    with pytest.raises(ValueError, match="recorded nothing yet"):
        ad.draw(program)
    program(1.0, 2.0)
    graph = ad.record(f, 1.0, 2.0)
    for bare in (ad.draw(program), ad.draw(graph)):
        forward, backward = bare.panels
        assert texts(forward)["product"] == ["product = x·y", "multiply"]
        assert any(label.endswith("/∂product = cos(product)") for _, _, label in arrows(backward))
    for full in (ad.draw(program, 1.0, 2.0), ad.draw(graph, 1.0, 2.0),
                 ad.draw(graph, {"x": 1.0, "y": 2.0})):
        forward, backward = full.panels
        assert texts(forward)["product"] == ["product = x·y = 2", "multiply"]
        label = "∂output/∂product = cos(product) = -0.4161"
        assert ("output", "product", label) in arrows(backward)
        assert texts(backward)["x"][1] == "∂output/∂x = -0.8323"
    with pytest.raises(ad.GuardError):
        ad.draw(ad.record(lambda x: x if x > 0.0 else -x, 1.0), -1.0)


def test_derivatives_of_programs_can_be_drawn():
    program = ad.compile(lambda x: ad.sin(x) * x)
    assert "cos" in str(texts(ad.draw(program.grad, 1.0, which="forward").panels[0]))


def test_functions_of_ones_own_are_boxes_with_their_names():
    class Cube(ad.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3.0 * x**2

    _, backward = ad.draw(lambda x: ad.sin(Cube.apply(x)), 2.0).panels
    assert ("u", "x", "∂y/∂x = G through Cube") in arrows(backward)
    assert texts(backward)["x"][1] == f"∂y/∂x = {12.0 * math.cos(8.0):.4g}"


def test_a_vector_is_differentiated_as_its_sum_and_a_leaf_alone_is_a_box():
    x = ad.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    _, backward = ad.draw(y).panels
    assert texts(backward)["x"][1] == "∂Σy/∂x: [2, 4]"
    assert len(ad.draw(x).panels[0].vertices) == 1


def test_several_results_are_drawn_and_the_first_is_differentiated():
    picture = ad.draw(lambda x: {"a": ad.sin(x), "b": ad.cos(x)}, 1.0)
    forward, backward = picture.panels
    assert set(texts(forward)) == {"x", "a", "b"}
    assert set(texts(backward)) == {"x", "a"}
    assert texts(backward)["x"][1] == "∂a/∂x = 0.5403"


def test_integers_are_inputs_where_nothing_else_could_be():
    assert texts(ad.draw(lambda x: x**2, 3).panels[1])["x"][1] == "∂y/∂x = 6"
    assert texts(ad.draw(lambda x: (x**2).sum(), [1, 2]).panels[1])["x"][1] == "∂y/∂x: [2, 4]"
    forward, _ = ad.draw(lambda x, n: x**n, 3.0, 4).panels
    assert texts(forward)["y"] == ["y = x⁴ = 81", "power"]


def test_values_that_the_tape_does_not_keep_are_left_out():
    x = ad.tensor(np.ones(5000), requires_grad=True)
    y = (x + np.arange(5000.0)).sum()
    forward, backward = ad.draw(y).panels
    found = texts(forward)
    assert found["x"] == ["x", "input, float64 (5000,)", "all 1"]
    assert [lines[2:] for lines in found.values() if lines[1].startswith("constant")] == [[]]
    assert texts(backward)["x"][1] == "∂y/∂x: all 1"


# ---- formulas ------------------------------------------------------------------------------------


def number(p, at):
    """The value of a formula."""
    if type(p) in (float, str):
        return at[p] if type(p) is str else p
    kind, *parts = p
    if kind == "constant":
        return {"π": math.pi, "none": math.nan}[parts[0]]
    if kind == "call":
        f = _core.elementwise[{"ln": "log"}.get(parts[0], parts[0])]
        return f(*[number(q, at) for q in parts[1:]]).item()
    if kind == "cmp":
        return formulas._SIGNS[parts[0]](*[number(q, at) for q in parts[1:]])
    if kind == "where":
        return number(parts[1] if number(parts[0], at) else parts[2], at)
    values = [number(q, at) for q in parts]
    if kind == "neg":
        return -values[0]
    return {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
            "/": lambda a, b: a / b, "^": lambda a, b: a**b}[kind](*values)


@pytest.mark.parametrize("name", list(formulas.ROWS))
def test_formulas_have_the_values_of_the_table(name):
    row = formulas.ROWS[name]
    names = ["p", "q", "r"][: row["arity"]]
    for share in (0.2, 0.55, 0.9):
        at = [lo + share * (hi - lo) for lo, hi in row["intervals"]]
        if name == "where":
            at[0] = float(share > 0.5)
        known = dict(zip(names, at))
        y = _core.elementwise[name](*at)
        value = formulas.value_formula(name, names)
        np.testing.assert_allclose(number(value, known), y.item(), rtol=1e-12)
        for side in range(row["arity"]):
            want = _core.partial_value(
                row["opcode"], side, tuple([_core.tensor(v) for v in at]), y.detach()).item()
            decided = formulas.partial_formula(name, side, names, at, y.item())[0]
            general = formulas.partial_formula(name, side, names, [None] * len(at), None)[0]
            with_numbers = formulas.partial_formula(name, side, at, at, y.item())[0]
            for p in (decided, general, with_numbers):
                np.testing.assert_allclose(number(p, known), want, rtol=1e-9, atol=1e-12)
                tex = formulas.tex(p)
                assert tex.count("{") == tex.count("}") and formulas.text(p)


def test_formulas_are_written_as_in_a_textbook():
    for name, operands, side, text, tex in (
        ("power", ["x", 3.0], 0, "3x²", r"3\, x^{2}"),
        ("power", ["x", -1.0], 0, "-x⁻²", "-x^{-2}"),
        ("power", [2.0, "x"], 1, "2^x·ln(2)", r"2^{x} \cdot \ln(2)"),
        ("divide", ["u", "width"], 1, "-u/width²", r"-\frac{u}{\mathrm{width}^{2}}"),
        ("divide", ["u", "v + w"], 0, "1/v + w", r"\frac{1}{\text{v + w}}"),
        ("sqrt", ["x1"], 0, "1/(2√x1)", r"\frac{1}{2\, \sqrt{x_{1}}}"),
        ("tanh", ["theta"], 0, "1 - tanh(theta)²", r"1 - \tanh(\theta)^{2}"),
        ("arcsin", ["x"], 0, "1/√(1 - x²)", r"\frac{1}{\sqrt{1 - x^{2}}}"),
        ("multiply", ["x", 1e-9], 0, "1e-09", r"1 \cdot 10^{-9}"),
        ("exp2", ["x"], 0, "exp2(x)·ln(2)", r"\operatorname{exp2}(x) \cdot \ln(2)"),
        ("maximum", ["a", "b"], 0, "1 if a > b else 0.5 if a = b else 0",
         r"1\ \text{if}\ a \gt  b\ \text{else}\ 0.5\ \text{if}\ a = b\ \text{else}\ 0"),
    ):
        p, _ = formulas.partial_formula(name, side, operands, [None] * len(operands), None)
        assert (formulas.text(p), formulas.tex(p)) == (text, tex)


def test_numbers_are_short_and_right():
    for x, text in ((33.0, "33"), (-0.0, "0"), (1234567.0, "1.235e+06"), (123456.0, "123456"),
                    (1234.56, "1235"), (2 / 3, "0.6667"), (math.nan, "nan"), (-math.inf, "-inf"),
                    (1.5e-300, "1.5e-300"), (1 + 2j, "1+2i")):
        assert formulas.number_text(x) == text
    assert formulas.number_tex(-1.5e-7) == r"-1.5 \cdot 10^{-7}"


# ---- folding -------------------------------------------------------------------------------------


def test_what_a_loop_repeats_is_drawn_once_and_counted():
    forward, backward = ad.draw(lambda x: loop(x, 1000), 1.0).panels
    found = texts(forward)
    assert found["u"][0] == "u = sin(y′)" and found["u"][1] == "sin × 1000"
    assert found["v"][:2] == ["v = 1.01u", "multiply × 1000"]
    assert found["y"][:2] == ["y = v + c", "add × 1000"]
    assert ("y", "u", None) in arrows(forward) and ("v", "u", "∂v/∂u = 1.01") in arrows(backward)
    assert [e.carried for e in forward.edges] == [False, False, False, True]


def test_first_and_last_values_of_a_fold_are_those_of_the_record():
    x = ad.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(200):
        y = ad.sin(y)
    (_, vertex) = ad.draw(y).panels[0].vertices
    assert vertex.lines[1].text == "sin × 200"
    assert vertex.lines[2].text == f"{math.sin(1.0):.4g} … {y.item():.4g}"


def test_operations_of_one_name_fold_only_if_the_same_operands_are_constant():
    def f(x):
        for k in range(40):
            x = 1.5 ** x if k % 2 else x**1.5
            x = x - 0.7
        return x
    forward, _ = ad.draw(f, 1.0, max_nodes=8).panels
    assert [v.lines[0].text for v in forward.vertices] == [
        "x = 1", "u = y′^1.5", "v = u - 0.7", "w = 1.5^v", "y = w - 0.7"]
    assert {v.lines[1].text for v in forward.vertices} == {"input", "power × 20", "subtract × 20"}


def test_loops_in_loops_fold_though_their_lengths_differ():
    def f(x):
        for k in range(30):
            for _ in range(3 + k % 4):
                x = ad.sin(x)
            x = ad.cos(x) * 2.0
        return x
    picture = ad.draw(f, 1.0)
    kinds = sorted([v.lines[1].text for v in picture.panels[0].vertices])
    sines = sum([3 + k % 4 for k in range(30)])
    assert kinds == ["cos × 30", "input", "multiply × 30", f"sin × {sines}"]


def test_calls_of_functions_become_boxes():
    def block(x, k):
        for j in range(k % 5 + 1):
            x = [ad.sin, ad.cos, ad.tanh, ad.arctan][(j * k) % 4](x) + [0.5, x][(k + j) % 2]
        return x

    def f(x):
        for k in range(60):
            x = block(x, k)
            x = x * 2.0 if k % 3 else ad.exp(-x)
        return x
    picture = ad.draw(f, 1.0, max_nodes=130)
    titles = [v.lines[0].text for v in picture.panels[0].vertices if v.kind == "folded"]
    assert any(t == "block" or t.startswith("block × ") for t in titles)
    assert len(picture.panels[0].vertices) <= 130


@pytest.mark.parametrize("most", [8, 20, 50, 80])
def test_no_picture_has_many_more_boxes_than_asked_for(most):
    for f, args in ((tangled, (0.5, 0.7)), (loop, (1.0, 500))):
        picture = ad.draw(f, *args, max_nodes=most)
        assert len(picture.panels[0].vertices) <= most
        held = sum([1 if "×" not in v.lines[1].text and "operations" not in v.lines[0].text
                    else int(re.search(r"\d+", v.lines[0].text if "operations" in v.lines[0].text
                                       else v.lines[1].text.split("×")[-1]).group())
                    for v in picture.panels[0].vertices])
        assert held == picture.nodes


def test_small_graphs_are_not_folded_and_large_ones_only_if_wanted():
    assert len(ad.draw(loop, 1.0, 20).panels[0].vertices) == 61
    assert len(ad.draw(loop, 1.0, 200, max_nodes=None).panels[0].vertices) == 601


def test_depth_leaves_what_is_far_away_to_one_box():
    picture = ad.draw(lambda x: loop(x, 20), 1.0, depth=3)
    assert sorted([v.lines[0].text.split(" = ")[0] for v in picture.panels[0].vertices])[:1] == [
        "56 operations"]
    assert len(picture.panels[0].vertices) == 6
    assert picture.nodes == 61


def test_a_hundred_thousand_nodes_become_a_readable_picture():
    x = ad.tensor(0.5, requires_grad=True)
    y = x
    for _ in range(33333):
        y = ad.sin(y) * 1.0001 + x
    picture = ad.draw(y)
    assert picture.nodes == 100000 and len(picture.panels[0].vertices) == 4
    rng = np.random.default_rng(0)
    values = [ad.tensor(0.1 * k, requires_grad=True) for k in range(500)]
    inputs = values[:]
    which = rng.integers(0, 4, 120000).tolist()
    far = rng.random(120000).tolist()
    for k, r in zip(which, far):
        a, b = values[int(r * 50) - 50], values[int(r * len(values))]
        values.append([a + b, a - b, ad.sin(a), ad.tanh(b)][k])
    total = values[-1]
    for a in values[500:-1:7] + inputs:
        total = total + 0.1 * a
    picture = ad.draw(total)
    assert picture.nodes > 100000 and len(picture.panels[0].vertices) <= 30
    check_svg(picture.svg())


def test_folding_keeps_every_node_once():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(1, 200))
        signs = rng.integers(0, int(rng.integers(1, 4)), n).tolist()
        scopes = [folding.Scope("f", a, int(rng.integers(a, n + 1))) for a in
                  sorted(rng.integers(0, n, 3).tolist())[:1]]
        most = int(rng.integers(8, 60))
        groups = folding.folded(list(range(n)), signs, {0, 1}, most, scopes)
        assert sorted([i for g in groups for i in g.members]) == list(range(n))
        assert len(groups) <= most
        for g in groups:
            assert g.members == sorted(g.members)
            assert g.title is not None or len({signs[i] for i in g.members}) == 1


def test_patterns_of_any_length_are_found_wherever_they_begin():
    for length in (1, 2, 7, 8, 15, 16, 17, 63, 100, 500):
        for before in (0, 1, 5):
            for times in (3, 4):
                signs = [*[f"before {k}" for k in range(before)], *[*range(length)] * times, "end"]
                groups = folding.folded(list(range(len(signs))), signs, set(), None, [])
                assert len(groups) == len(signs)
                known = {}
                items = folding._nested(list(range(len(signs))), [
                    known.setdefault(s, len(known)) for s in signs], set(), [], known)
                found = list(folding._leaves(folding._compressed(items, known)))
                assert [len(g.members) for g in found] == (
                    [1] * before + [times] * length + [1])


# ---- the layout ----------------------------------------------------------------------------------


def curve(d):
    """Points along a path of SVG."""
    points, at = [], None
    for command, numbers in re.findall(r"([MLC])([^MLC]*)", d):
        v = [float(x) for x in numbers.split()]
        if command == "C":
            p = np.array([at, v[:2], v[2:4], v[4:]])
            t = np.linspace(0.0, 1.0, 33)[:, None]
            points += ((1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1]
                       + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]).tolist()
        elif command == "L":
            points += np.linspace(at, v, 17).tolist()
        at = v[-2:]
    return np.array(points)


def faults(text):
    """What is wrong with a drawing: boxes, labels and lines on top of one another."""
    root = ElementTree.fromstring(text)
    found = []
    rects = {}
    for group in root.iter(f"{SVG}g"):
        r = group.find(f"{SVG}rect")
        key = group.get("data-id") or f"label {len(rects)}"
        rects[key] = tuple([float(r.get(k)) for k in ("x", "y", "width", "height")])
        for t in group.findall(f"{SVG}text"):
            wide = measured(t.text, float(t.get("font-size")))
            x, y, w, h = rects[key]
            if wide > w - 4.0 or not y < float(t.get("y")) < y + h:
                found.append(f"{t.text!r} is not inside its box")
    keys = list(rects)
    for k, a in enumerate(keys):
        for b in keys[k + 1:]:
            (x, y, w, h), (p, q, u, v) = rects[a], rects[b]
            if x < p + u - 0.2 and p < x + w - 0.2 and y < q + v - 0.2 and q < y + h - 0.2:
                found.append(f"{a} and {b} overlap")
    width, height = float(root.get("width")), float(root.get("height"))
    for path in root.iter(f"{SVG}path"):
        if path.get("class") != "edge":
            continue
        points = curve(path.get("d"))
        if (points < 0.0).any() or (points > [width, height]).any():
            found.append("a line leaves the picture")
        for key, (x, y, w, h) in rects.items():
            if not key.startswith("label"):
                inside = ((points > [x + 0.3, y + 0.3]) & (points < [x + w - 0.3, y + h - 0.3]))
                if inside.all(axis=1).any():
                    ends = path.get("data-tail"), path.get("data-head")
                    found.append(f"the line of {ends} crosses {key}")
        for end, p in (("data-tail", points[0]), ("data-head", points[-1])):
            x, y, w, h = rects[path.get(end)]
            if not (x - 0.3 <= p[0] <= x + w + 0.3 and y - 0.3 <= p[1] <= y + h + 0.3):
                found.append(f"a line does not end at {path.get(end)}")
    return found


def measured(text, size):
    """The width of a text in the font itself."""
    font_manager = pytest.importorskip("matplotlib.font_manager")
    ft2font = pytest.importorskip("matplotlib.ft2font")
    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(200.0, 72)        # where whole pixels do not matter
    font.set_text("".join([c for c in text if ord(c) < 0x2e80]), 0.0)
    return font.get_width_height()[0] / 64.0 / 200.0 * size


def check_svg(text):
    assert faults(text) == []


@pytest.mark.parametrize("kind", list(all_kinds()))
def test_boxes_labels_and_lines_keep_out_of_each_others_way(kind):
    check_svg(all_kinds()[kind].svg())


def test_random_graphs_are_laid_out_without_faults():
    rng = np.random.default_rng(5)
    for _ in range(25):
        n = int(rng.integers(1, 40))
        vertices = tuple([canvas.Vertex(f"n{k}", "operation", (
            canvas.Line("x" * int(rng.integers(1, 20))),)) for k in range(n)])
        pairs = sorted({tuple(rng.integers(0, n, 2).tolist()) for _ in range(int(1.6 * n))})
        labels = [canvas.Line("∂y/∂x = cos(x)"), None]
        edges = tuple([canvas.Edge(f"n{a}", f"n{b}", labels[int(rng.integers(0, 2))], a >= b)
                       for a, b in pairs])
        check_svg(canvas.svg([canvas.Panel("forward", "random", vertices, edges, False)], "random"))


def test_the_check_of_drawings_finds_what_is_wrong():
    good = cubic().svg()
    assert faults(good) == []
    first = re.search(r'data-id="f1"><rect x="([\d.]+)" y="([\d.]+)"', good)
    moved = re.sub(r'(data-id="f2"><rect) x="[\d.]+" y="[\d.]+"',
                   rf'\1 x="{first[1]}" y="{first[2]}"', good)
    assert any("overlap" in f for f in faults(moved))
    assert any("does not end" in f for f in faults(moved))
    assert any("crosses" in f for f in faults(re.sub(
        r'(data-tail="f0" data-head="f1" d=")[^"]*', r"\1M0 0 L900 150", good)))
    assert any("inside" in f for f in faults(good.replace(">power<", f">{'power' * 30}<")))


def test_crossings_that_can_be_avoided_are_avoided():
    sizes = [(40.0, 20.0)] * 8
    edges = [(0, 7), (1, 6), (2, 5), (3, 4)]
    placed = layout.place(sizes, edges, [None] * 4)
    tops = {v: placed.boxes[v][1] for v in range(8)}
    assert sorted(range(4), key=tops.get) == [7 - v for v in sorted(range(4, 8), key=tops.get)]


def test_long_graphs_run_downwards():
    picture = ad.draw(loop, 1.0, 20)
    root = ElementTree.fromstring(picture.svg())
    assert float(root.get("height")) > float(root.get("width"))
    check_svg(picture.svg())


def test_widths_of_texts_are_those_of_the_font():
    for text in ("∂y/∂x = 27 + 6 = 33", "u = sin(x)·x² = -0.45", "Wᵀ G", "add, float64 (3, 4)"):
        assert measured(text, 14.0) <= canvas.text_width(text, 14.0) + 2.0
        assert canvas.text_width(text, 14.0) < 1.15 * measured(text, 14.0)


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize("which", ["forward", "backward", "both"])
def test_graphviz_reads_the_dot_text(which):
    x = ad.tensor(3.0, requires_grad=True)
    y = x**3 + x**2
    for picture in (ad.draw(y, which=which), network()):
        done = subprocess.run(["dot", "-Tplain"], input=picture.dot(), capture_output=True,
                              text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        nodes = sum([len(p.vertices) for p in picture.panels])
        edges = sum([len(p.edges) for p in picture.panels])
        assert sum([line.startswith("node ") for line in lines]) == nodes
        assert sum([line.startswith("edge ") for line in lines]) == edges


def test_pictures_larger_than_mermaid_takes_are_refused_there():
    picture = ad.draw(loop, 1.0, 100, max_nodes=None)
    assert "v298" in picture.dot()
    with pytest.raises(ValueError, match="at most 499 arrows and 50000 characters, this picture"):
        picture.mermaid()


def test_arrows_of_dot_point_from_the_result_to_its_inputs():
    assert "  b3 -> b1 [label" in ad.draw(lambda x: x**3 + x**2, 3.0, which="backward").dot()
    assert "    b1 -> b3 [dir=back, label" in cubic().dot()


def test_names_that_mean_something_elsewhere_are_escaped():
    nasty = ['a"b', "<script>&amp;", "x\\y]", "a|b{c}", "%% $$ #quot;", "1. *it*", "end", "größe",
             "变量", "a\nb\x00", "_", "`k`", "subgraph", "n_1_x", "a^b~c%&$"]

    def f(x):
        for name in nasty:
            x = ad.name(ad.sin(x), name)
        return x
    picture = ad.draw(f, 1.0)
    names = {v.lines[0].text.split(" = ")[0] for v in picture.panels[0].vertices}
    assert {n for n in nasty if n.isprintable()} <= names
    check_svg(picture.svg())
    for line in picture.mermaid().splitlines():
        label = re.search(r'\["(.*)"\]$', line)
        if label and "$$" in label[1]:
            assert not set('"#<>`') & set(label[1])
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tplain"], input=picture.dot().encode(), check=True,
                       capture_output=True)


def test_pictures_are_saved_in_the_format_of_the_name(tmp_path):
    picture = cubic()
    for ending, start in ((".svg", b"<svg"), (".mmd", b"flowchart LR"), (".dot", b"digraph"),
                          (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        if ending in (".png", ".pdf"):
            pytest.importorskip("matplotlib")
        path = tmp_path / f"picture{ending}"
        picture.save(path)
        assert path.read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"cannot save as '.gif'; wanted a name that ends in .svg"):
        picture.save("picture.gif")


def test_png_without_matplotlib_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="PNG files are made by matplotlib, which is not"):
        cubic().save(tmp_path / "picture.png")


def test_notebooks_show_the_svg():
    picture = cubic()
    bundle = picture._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<svg") and "Picture of y" in bundle["text/plain"]
    assert "<svg" in picture._repr_html_()


def test_pictures_are_the_same_each_time():
    assert network().svg() == network().svg()
    assert network().mermaid() == network().mermaid()


# ---- the documents -------------------------------------------------------------------------------


def test_the_pictures_in_the_documents_are_what_is_drawn_now():
    root = Path(__file__).resolve().parent.parent
    script = root / ".ci" / "doc_pictures.py"
    if not script.exists():
        pytest.skip(f"{script.name} is not here")
    names = runpy.run_path(str(script))["PICTURES"]
    for name, picture in names.items():
        made = picture()
        assert (root / "docs" / "pictures" / f"{name}.svg").read_text("utf-8") == made.svg()
        assert (root / "docs" / "pictures" / f"{name}.mmd").read_text("utf-8") == (
            made.mermaid() + "\n")
    text = (root / "docs" / "pictures.md").read_text("utf-8")
    assert f"```mermaid\n{names['cubic']().mermaid()}\n```" in text
    for name in re.findall(r"\]\((pictures/.*?)\)", text):
        assert (root / "docs" / name).exists()


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call, error, text", [
    (lambda: ad.draw(3.0), TypeError, "draw: wanted a tensor, a function, a program or a graph"),
    (lambda: ad.draw(ad.tensor(1.0)), ValueError, "draw: this tensor has no history"),
    (lambda: ad.draw(lambda x: 1.0, 2.0), ValueError, "draw: the function returned float"),
    (lambda: ad.draw(lambda x: x.detach(), 2.0), ValueError, "does not depend on its arguments"),
    (lambda: ad.draw(lambda x: x, 2.0, which="sideways"), ValueError, "which is 'sideways'"),
    (lambda: ad.draw(lambda x: x, 2.0, max_nodes=3), ValueError, "max_nodes is 3; wanted"),
    (lambda: ad.draw(lambda x: x, 2.0, max_nodes=9.5), ValueError, "max_nodes is 9.5"),
    (lambda: ad.draw(lambda x: x, 2.0, depth=0), ValueError, "depth is 0"),
    (lambda: ad.draw(lambda x: x, 2.0, digits=None), ValueError, "digits is None"),
    (lambda: ad.draw(ad.tensor(1.0, requires_grad=True), 1.0), TypeError, "takes no example"),
    (lambda: ad.draw(ad.record(lambda x: x * x, 1.0), 1.0, 2.0), ValueError, "has 1 inputs"),
    (lambda: ad.draw(ad.record(lambda x: x * x, 1.0), [1.0, 2.0]), ValueError, "inputs"),
    (lambda: ad.draw(lambda x: x[5], np.ones(2)), IndexError, "out of bounds"),
])
def test_bad_input_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_drawing_while_a_program_is_recorded_makes_no_program():
    @ad.compile
    def f(x):
        y = x * x
        assert ad.draw(y).nodes == 2
        return y
    with pytest.warns(ad.ProgramWarning, match="a picture is drawn"):
        assert ad.value_and_grad(f)(3.0) == (9.0, 6.0)
