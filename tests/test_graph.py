"""Graphs: a function recorded once, named values in and out, kept in files."""

import hashlib
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_program_random as generator

import fastad as ad
from fastad import _core, program, storage

X = np.array([0.5, -1.5, 2.0])


def model(w, x, y):
    seen = ad.name(x @ w, "prediction")
    return {"loss": ((seen - y) ** 2).mean(), "largest": abs(w).max()}


@pytest.fixture
def data():
    r = np.random.default_rng(0)
    return {"w": r.normal(size=3), "x": r.normal(size=(5, 3)), "y": r.normal(size=5)}


@pytest.fixture
def graph(data):
    return ad.record(model, *data.values())


def at_the_top(x):
    return (x * x).sum() if x[0] > 0.0 else -x.sum()


# ---- names ---------------------------------------------------------------------------------------


def test_inputs_outputs_and_intermediates_have_names(graph):
    assert graph.inputs == {"w": ((3,), np.float64), "x": ((5, 3), np.float64),
                            "y": ((5,), np.float64)}
    assert graph.outputs == {"loss": ((), np.float64), "largest": ((), np.float64)}
    assert set(graph.names) == {"w", "x", "y", "loss", "largest", "prediction"}


class Pair(NamedTuple):
    a: object
    b: object


@pytest.mark.parametrize(
    ("f", "args", "inputs", "outputs"),
    [
        (lambda x: x * 2.0, (1.0,), ["x"], ["output"]),
        (lambda x, y: (x, [y, x + y]), (1.0, 2.0), ["x", "y"],
         ["output[0]", "output[1][0]", "output[1][1]"]),
        (lambda p: p["a"] * p["b"][1], ({"a": 1.0, "b": [2.0, 3.0]},),
         ["p['a']", "p['b'][0]", "p['b'][1]"], ["output"]),
        (lambda *xs: {"s": xs[0] + xs[1], "t": (xs[0],)}, (1.0, 2.0), ["xs[0]", "xs[1]"],
         ["s", "t[0]"]),
        (lambda p: Pair(p.a * p.b, p.b), (Pair(1.0, 2.0),), ["p.a", "p.b"], ["a", "b"]),
        (ad.sin, (1.0,), None, ["output"]),
        (lambda x, n: x * n, (1.0, 3), ["x"], ["output"]),
    ],
    ids=["number", "tuple", "dict", "starred", "named tuple", "compiled", "static"],
)
def test_names_follow_the_nesting(f, args, inputs, outputs):
    graph = ad.record(f, *args)
    assert inputs is None or list(graph.inputs) == inputs
    assert list(graph.outputs) == outputs


def test_keyword_arguments_are_inputs_by_their_keyword():
    graph = ad.record(lambda x, *, scale: x * scale, 2.0, scale=3.0)
    assert list(graph.inputs) == ["x", "scale"]
    assert graph.run({"x": 5.0, "scale": 7.0}, "output") == 35.0


def test_a_name_that_is_taken_gets_a_number():
    def f(x):
        for _ in range(3):
            x = ad.name(x * 2.0, "step")
        return x

    graph = ad.record(f, 1.0)
    assert graph.run({"x": 1.0}, ["step", "step_1", "step_2"]) == [2.0, 4.0, 8.0]


def test_outside_a_recording_a_name_does_nothing():
    t = ad.tensor(2.0, requires_grad=True)
    assert ad.name(t, "t") is t
    assert ad.name(3.0, "number") == 3.0


def test_an_inputs_name_cannot_be_given_to_another_value():
    with pytest.raises(ValueError, match="'x' is the name of an input"):
        ad.record(lambda x: ad.name(x * 2.0, "x"), 1.0)


@pytest.mark.parametrize("name", ["", "a:b", "a/b"])
def test_names_that_run_would_misread_are_refused(name):
    with pytest.raises(ValueError, match="cannot be a name"):
        ad.name(ad.tensor(1.0), name)


# ---- listing -------------------------------------------------------------------------------------


def test_nodes_are_listed_each_after_its_parents(graph):
    nodes = graph.nodes
    assert len(nodes) == len(graph)
    assert [n.id for n in nodes] == list(range(len(nodes)))
    assert all(p < n.id for n in nodes for p in n.parents)
    assert {n.name for n in nodes} >= {"w", "x", "y", "loss", "prediction"}
    product = next(n for n in nodes if n.name == "prediction")
    assert (product.primitive, product.shape) == ("matmul", (5,))
    assert [nodes[p].name for p in product.parents] == ["x", "w"]


def test_printing_shows_nodes_names_and_guards():
    text = str(ad.record(at_the_top, X))
    assert re.search(r"^%0 = input  float64\[3\]  # x$", text, re.M)
    assert re.search(r"^%\d+ = square|multiply", text, re.M)
    assert re.search(r"^guard: node \d+ \(getitem\) > 0.0 was True \(at .*test_graph.py:\d+\)$",
                     text, re.M)


def test_long_graphs_are_printed_in_part():
    def f(x):
        for k in range(500):
            x = ad.sin(x) + k
        return x

    graph = ad.record(f, 1.0)
    assert len(graph) > 1000
    assert f"... and {len(graph) - 200} more nodes" in str(graph)
    assert len(graph.nodes) == len(graph)


def test_what_does_not_depend_on_an_input_is_a_constant():
    a = np.arange(3.0)
    graph = ad.record(lambda x: x * ad.sin(ad.tensor(a)).sum(), 1.0)
    assert [n.primitive for n in graph.nodes] == ["input", "constant", "multiply"]
    assert graph.nodes[1].value == np.sin(a).sum()


# ---- running -------------------------------------------------------------------------------------


def test_run_gives_what_the_function_gives(graph, data):
    other = {k: v * 1.5 for k, v in data.items()}
    want = ad.compile(model)(*other.values())
    assert graph.run(other, {"a": "loss", "b": ("largest",)}) == {
        "a": want["loss"], "b": (want["largest"],)}
    assert graph.run(other, "loss") == want["loss"]


def test_run_gives_gradients_of_a_number_by_any_value(graph, data):
    want = ad.grad(lambda w: model(w, data["x"], data["y"])["loss"])(data["w"])
    got = graph.run(data, ["grad:w", "grad:loss/w", "grad:loss/prediction", "grad:largest/w"])
    np.testing.assert_allclose(got[0], want, rtol=1e-14)
    np.testing.assert_array_equal(got[0], got[1])
    residual = data["x"] @ data["w"] - data["y"]
    np.testing.assert_allclose(got[2], 2 * residual / 5, rtol=1e-14)
    largest = abs(data["w"]).argmax()
    assert got[3].tolist() == [float(np.sign(w)) * (k == largest) for k, w in enumerate(data["w"])]


def test_what_does_not_depend_on_a_value_has_the_gradient_zero(graph, data):
    np.testing.assert_array_equal(graph.run(data, "grad:largest/y"), np.zeros(5))


def test_only_what_is_fetched_is_needed_and_computed(graph, data):
    del data["y"]
    np.testing.assert_array_equal(graph.run(data, "prediction"), data["x"] @ data["w"])
    assert graph.run({"w": data["w"]}, "largest") == abs(data["w"]).max()


def test_an_intermediate_can_be_fed(graph, data):
    feed = {"prediction": np.zeros(5), "y": data["y"]}
    assert graph.run(feed, "loss") == (data["y"] ** 2).mean()
    np.testing.assert_allclose(graph.run(feed, "grad:prediction"), -2 * data["y"] / 5, rtol=1e-15)


def test_an_input_and_nothing_can_be_fetched(graph, data):
    np.testing.assert_array_equal(graph.run(data, "w"), data["w"])
    assert graph.run(data, []) == []


def test_runs_are_replayed(graph, data):
    for k in range(5):
        graph.run({n: v + k for n, v in data.items()}, "loss")
    (replay,) = graph._runs.values()
    assert (replay.recordings, replay.replays) == (1, 4)


def test_many_kinds_of_runs_are_kept_in_bounded_number(graph, data):
    names = sorted(graph.names)
    for seed in range(200):
        graph.run(data, random.Random(seed).choices(names, k=seed % 7 + 3))
    assert len(graph._runs) <= 64


def test_feeds_are_cast_where_nothing_is_lost(graph, data):
    data["y"] = [1, 2, 3, 4, 5]
    assert graph.run(data, "loss") == model(data["w"], data["x"], np.arange(1.0, 6.0))["loss"]


@pytest.mark.parametrize(
    ("change", "fetch", "text"),
    [
        ({"z": 1.0}, "loss", "nothing called 'z' to feed; there are prediction, loss"),
        ({"w": np.ones(4)}, "loss", r"'w' was fed float64 of shape \(4,\); wanted float64 of"),
        ({"w": np.ones(3, complex)}, "loss", "'w' was fed complex128"),
        ({"w": None}, "loss", "'w' is needed for loss, and was not fed"),
        ({}, "lost", "nothing called 'lost' to fetch"),
        ({}, "grad:lost", "nothing called 'lost' to fetch"),
        ({}, "grad:prediction/w", "asks for the gradient of a value of shape"),
    ],
)
def test_feeds_and_fetches_that_do_not_fit_are_named(graph, data, change, fetch, text):
    feed = {k: v for k, v in {**data, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=text):
        graph.run(feed, fetch)
    assert graph.run(data, "largest") == abs(data["w"]).max()


def test_fetches_are_names(graph, data):
    with pytest.raises(TypeError, match="fetch has int; wanted names"):
        graph.run(data, ["loss", 3])


def test_gradients_by_integers_are_refused():
    graph = ad.record(lambda x, n: (x * n).sum(), X, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="gradient by int64 numbers"):
        graph.run({"x": X, "n": np.array([1, 2, 3])}, "grad:n")


def test_a_graph_refuses_values_that_go_another_way():
    graph = ad.record(at_the_top, X)
    assert graph.run({"x": 2 * X}, "output") == (4 * X * X).sum()
    with pytest.raises(ad.GuardError, match=r"> 0.0 was True \(at .*\) when it was recorded"):
        graph.run({"x": -X}, "output")
    assert graph.run({"x": 3 * X}, "output") == (9 * X * X).sum()


@pytest.mark.parametrize(
    ("look", "other", "text"),
    [
        (lambda x: float(x[0]), -X, r"was 0\.5"),
        (lambda x: int(x[2]), -X, r"int\(\) of node \d+ \(getitem\) was 2"),
        (lambda x: x[np.argmax(x)], -X, r"was 2"),
        (lambda x: len(x[x > 0]), -X, "was "),
        (lambda x: 1.0 if x[0] == x[1] else 2.0, np.zeros(3), r"== node \d+ was False"),
        (lambda x: 1.0 if 3.0 >= x[0] else 2.0, X + 9, r"was True"),
    ],
)
def test_every_kind_of_guard_is_refused_with_its_name(look, other, text):
    graph = ad.record(lambda x: x.sum() * look(x), X)
    assert graph.run({"x": X}, "output") == ad.compile(lambda x: x.sum() * look(x))(X)
    with pytest.raises(ad.GuardError, match=text):
        graph.run({"x": other}, "output")


def test_what_was_looked_at_later_does_not_matter_to_a_value():
    def f(x):
        y = ad.name(x * 2.0, "early")
        return y if x > 0.0 else -y

    graph = ad.record(f, 1.0)
    assert graph.run({"x": -1.0}, "early") == -2.0
    with pytest.raises(ad.GuardError):
        graph.run({"x": -1.0}, "output")


def test_tensors_from_outside_are_read_anew():
    w = ad.tensor(X.copy(), requires_grad=True)
    graph = ad.record(lambda x: (w * x).sum(), X)
    with ad.no_grad():
        w += 1.0
    assert graph.run({"x": X}, "output") == ((X + 1.0) * X).sum()


def test_a_graph_is_a_program_as_well():
    graph = ad.record(at_the_top, X)
    assert graph.program(3 * X) == at_the_top(3 * X)
    assert generator.differences(
        graph.program.value_and_grad(X), ad.value_and_grad(at_the_top)(X), 0.0) == []
    assert generator.differences(graph.program.hessian(X), np.eye(3) * 2.0, 0.0) == []
    with pytest.raises(ad.GuardError):
        graph.program.grad(-X)


def test_functions_that_cannot_be_recorded_are_refused():
    with pytest.warns(ad.ProgramWarning), pytest.raises(ValueError, match="draws random numbers"):
        ad.record(lambda x: x * np.random.rand(), 1.0)
    with pytest.raises(TypeError, match="wanted a function, got int"):
        ad.record(3, 1.0)


def test_an_exception_while_recording_is_the_functions_own():
    with pytest.raises(ZeroDivisionError):
        ad.record(lambda x: x * (1 // 0), 1.0)
    assert ad.record(lambda x: x + 1.0, 1.0).run({"x": 2.0}, "output") == 3.0


# ---- files ---------------------------------------------------------------------------------------


def test_a_graph_comes_back_from_a_file(graph, data, tmp_path):
    graph.save(tmp_path / "graph")
    again = ad.load(tmp_path / "graph")
    assert str(again) == str(graph)
    for fetch in ("loss", "grad:w", "grad:loss/prediction"):
        np.testing.assert_array_equal(again.run(data, fetch), graph.run(data, fetch))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(graph)).run(data, "grad:w"),
                                  graph.run(data, "grad:w"))


def test_a_program_comes_back_with_all_ways_and_derivatives(tmp_path):
    f = ad.compile(at_the_top)
    for x in (X, -X):
        f(x)
        f.value_and_grad(x)
    f.save(tmp_path / "program")
    g = ad.load(tmp_path / "program")
    for x in (3.0 * X, -2.0 * X, X, -X):
        assert generator.differences(g(x), f(x), 0.0) == []
        assert generator.differences(g.value_and_grad(x), f.value_and_grad(x), 0.0) == []
        assert generator.differences(g.hessian(x), f.hessian(x), 0.0) == []
        assert generator.differences(ad.grad(g)(x), ad.grad(at_the_top)(x), 0.0) == []
    assert g.recordings == 0
    assert g.value_and_grad.recordings == 0


def test_a_program_from_a_file_does_not_know_other_arguments(tmp_path):
    f = ad.compile(at_the_top)
    f(X)
    f.save(tmp_path / "program")
    g = ad.load(tmp_path / "program")
    with pytest.raises(ad.GuardError, match="no recording for these arguments"):
        g(np.ones(4))
    with pytest.raises(ad.GuardError, match="> 0.0 was True when it was recorded"):
        g(-X)
    assert g(X) == f(X)


def test_a_pickled_program_finds_its_function_again():
    f = ad.compile(at_the_top)
    f(X)
    g = pickle.loads(pickle.dumps(f))
    assert g(-X) == at_the_top(-X)
    assert g(np.ones(7)) == 7.0
    assert pickle.loads(pickle.dumps(g))(np.ones(8)) == 8.0


def test_a_program_that_was_never_called_can_be_pickled_by_name_alone():
    assert pickle.loads(pickle.dumps(ad.compile(at_the_top)))(X) == at_the_top(X)
    with pytest.raises(pickle.PicklingError, match="nothing was recorded yet"):
        pickle.dumps(ad.compile(lambda x: x))
    with pytest.raises(ValueError, match="nothing was recorded yet"):
        ad.compile(at_the_top).save(os.devnull)


def test_a_lambda_is_pickled_as_its_recordings():
    f = ad.compile(lambda x: ad.tanh(x).sum())
    f(X)
    g = pickle.loads(pickle.dumps(f))
    assert g(2.0 * X) == f(2.0 * X)
    with pytest.raises(ad.GuardError):
        g(np.ones(4))


def test_a_program_whose_code_has_changed_uses_what_was_recorded(monkeypatch):
    f = ad.compile(at_the_top)
    f(X)
    data = pickle.dumps(f)

    def at_the_top_(x):
        return x.sum()

    monkeypatch.setattr(at_the_top, "__code__", at_the_top_.__code__)
    with pytest.warns(ad.ProgramWarning, match="its code is another"):
        g = pickle.loads(data)
    assert g(X) == (X * X).sum()
    with pytest.raises(ad.GuardError):
        g(np.ones(4))


def test_another_process_runs_a_saved_program(tmp_path):
    f = ad.compile(lambda x: (ad.exp(x) * np.arange(3.0)).sum() if x[0] < 5.0 else x[1])
    f.value_and_grad(X)
    f(X)
    f.save(tmp_path / "p")
    text = ("import numpy as np, fastad as ad; "
            f"p = ad.load({str(tmp_path / 'p')!r}); "
            "print(p.value_and_grad(np.array([0.5, -1.5, 2.0])))")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(f.value_and_grad(X))


def test_weights_from_outside_are_saved_with_their_values(tmp_path):
    w = ad.tensor(X.copy(), requires_grad=True)
    f = ad.compile(lambda x: (w * x).sum())
    with ad.no_grad():
        f(X)
        f.save(tmp_path / "p")
        w += 1.0
    assert ad.load(tmp_path / "p")(X) == (X * X).sum()


def test_results_and_arguments_keep_their_nesting(tmp_path):
    f = ad.compile(lambda p, n=2, mode="a": {
        "y": (p["a"] * n, [p["b"][0], 7, None]), "z": np.arange(3), "mode": mode})
    args = ({"a": X, "b": (2.0, 3.0)},)
    f(*args)
    f(*args, 3, mode="b")
    f.save(tmp_path / "p")
    g = ad.load(tmp_path / "p")
    assert generator.differences(g(*args), f(*args), 0.0) == []
    assert generator.differences(g(*args, 3, mode="b"), f(*args, 3, mode="b"), 0.0) == []


def test_what_is_not_data_cannot_be_saved(tmp_path):
    f = ad.compile(lambda x: Pair(x, x))
    f(1.0)
    with pytest.raises(TypeError, match="a result of type Pair cannot be stored"):
        f.save(tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_random_programs_come_back_as_they_were():
    stored = kept = 0
    for seed in range(1, 500):
        writer = generator.Writer(seed)
        f = generator.built(writer.source(), writer.state)
        p = ad.compile(f)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ad.ProgramWarning)
            calls = []
            for _ in range(3):
                args = [writer.draw_array(s, d) for s, d in zip(writer.shapes, writer.dtypes)]
                calls.append((args, generator.outcome(p, args)))
                generator.outcome(p.value_and_grad, args)
            if p.given_up or not p.plans or any(    # or dropped, since something has changed
                    r.recordings != sum(map(len, r.plans.values()))
                    for r in (p, p.value_and_grad)):
                continue
            if any(t.requires_grad for plans in p.plans.values() for t in plans[0].outer):
                continue                            # such calls are ordinary code
            try:
                data = program.stored(p)
            except TypeError:
                continue
            stored += 1
            q = program.restored(storage.Reader(data))
            for args, want in calls:
                if isinstance(want, generator.Raised):
                    continue
                kept += 1
                assert generator.differences(generator.outcome(q, args), want, 0.0) == [], (
                    seed, writer.source())
                want = generator.outcome(p.value_and_grad, args)
                if not isinstance(want, generator.Raised):
                    assert generator.differences(
                        generator.outcome(q.value_and_grad, args), want, 0.0) == [], seed
    assert stored > 100
    assert kept > 200


# ---- damaged files -------------------------------------------------------------------------------


@pytest.fixture
def saved(graph):
    return graph._stored()


def sealed(data):
    """The bytes with a hash that is right again."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def load_bytes(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    return ad.load(tmp_path / "f")


def test_every_flipped_byte_is_noticed(saved, tmp_path):
    for k in range(0, len(saved), 7):
        data = bytearray(saved)
        data[k] ^= 0x10
        with pytest.raises(ValueError, match="^load: "):
            load_bytes(tmp_path, bytes(data))


def test_cut_files_are_noticed(saved, tmp_path):
    for k in (0, 5, 20, 40, len(saved) // 2, len(saved) - 1):
        with pytest.raises(ValueError, match="^load: "):
            load_bytes(tmp_path, saved[:k])


def test_a_newer_format_is_named(saved, tmp_path):
    data = bytearray(saved)
    data[8] = 99
    with pytest.raises(ValueError, match="format 99 is newer"):
        load_bytes(tmp_path, bytes(data))


def test_forged_files_are_refused_or_mean_something(saved, data, tmp_path):
    """With the hash right again: whatever stands there, no crash and no wrong memory."""
    r = random.Random(5)
    refused = 0
    for _ in range(400):
        forged = bytearray(saved)
        for _ in range(r.choice([1, 1, 2, 5])):
            forged[r.randrange(24, len(forged) - 32)] = r.choice(b"0123456789,[]{}\"a\x00\xff")
        try:
            graph = load_bytes(tmp_path, sealed(bytes(forged)))
            graph.run({k: np.ones(v.shape, v.dtype) for k, v in graph.inputs.items()},
                      list(graph.outputs))
        except ValueError:
            refused += 1
        except (ad.GuardError, TypeError, KeyError):
            pass
    assert refused > 100


@pytest.mark.parametrize("promised, x", [
    (b'"<f4",{"tuple":[1000]}', np.ones(1000, np.float32)),
    (b'"<f8",{"tuple":[ 910]}', np.ones(910)),
    (b'"<c8",{"tuple":[   9]}', np.ones(9, np.complex64)),
])
def test_a_program_whose_key_promises_other_arrays_than_it_reads_does_not_read_them(
        tmp_path, promised, x):
    p = ad.compile(lambda x: (x[::-1] * x).sum())
    p(np.ones(1000))
    p.save(tmp_path / "p")
    data = (tmp_path / "p").read_bytes()
    assert data.count(b'"<f8",{"tuple":[1000]}') == 1
    q = load_bytes(tmp_path, sealed(data.replace(b'"<f8",{"tuple":[1000]}', promised)))
    for _ in range(3):
        assert q(x) == x.size       # of the graph, not of the program made for 1000 numbers


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.op.__setitem__(slice(None), 60000),
        lambda n: n.args.__setitem__((slice(None), 0), -1),
        lambda n: n.args.__setitem__((slice(None), 0), len(n)),
        lambda n: n.arrays.update({k: ((1000000,), v[1]) for k, v in n.arrays.items()
                                   if k not in n.inputs and k not in n.constants}),
        lambda n: n.outputs.append(len(n)),
        lambda n: n.outputs.append(-1),
        lambda n: n.inputs.append(n.inputs[0]),
        lambda n: n.calls.clear(),
        lambda n: n.guards.append((0, True, 0, -1, 1, 0.0, None)),
        lambda n: n.guards.append((8, True, 0, -1, 1, 0.0, np.ones(1000))),
        lambda n: n.names.update(a=10**6),
        lambda n: n.calls.update({
            i: (rule, (10**6, 10**6) if rule.name == "getitem" else params, parents)
            for i, (rule, params, parents) in n.calls.items()}),
    ],
)
def test_graphs_that_do_not_fit_together_are_refused(change):
    graph = ad.record(lambda x: ad.sin(x[2]) * (x * x).sum() + x[0], X)
    nodes = graph._nodes
    nodes.verify([])
    change(nodes)
    with pytest.raises((ValueError, KeyError, IndexError, TypeError)):
        nodes.verify([])


def test_the_format_is_the_one_that_is_documented(saved):
    assert saved[:8] == b"\x89fastad\n"
    assert int.from_bytes(saved[8:12], "little") == 1
    reader = storage.Reader(saved)
    assert reader.header["kind"] == "graph"
    assert set(reader.header["graph"]) == {
        "ops", "op", "args", "number", "arrays", "constants", "calls", "inputs", "given", "outer",
        "outputs", "guards", "names"}


def test_a_file_of_the_first_format_is_read_for_ever():
    here = Path(__file__).parent / "data" / "program_format_1.fastad"
    p = ad.load(here)
    x = np.array([1.0, 2.0, 3.0])
    assert p(x) == pytest.approx(float(np.tanh(x).sum() * 2.0), rel=1e-14)
    value, gradient = p.value_and_grad(-x)
    assert value == pytest.approx(float((x**2)[1:].sum()), rel=1e-14)
    np.testing.assert_allclose(gradient, [0.0, -4.0, -6.0], rtol=1e-14)


# ---- programs and transforms ---------------------------------------------------------------------


def test_nodes_can_be_differentiated_again():
    nodes = ad.record(lambda x: ad.exp(x) * x, 1.0)._nodes
    x = ad.tensor(2.0, requires_grad=True)
    (y,) = nodes.evaluate({nodes.inputs[0]: x}, nodes.outputs)
    y.backward()
    assert x.grad.item() == pytest.approx(3.0 * np.exp(2.0), rel=1e-15)


def test_a_graph_leaves_nothing_on_the_tape():
    graph = ad.record(at_the_top, X)
    _core.compact()
    before = _core.tape_stats()["nodes"]
    graph.run({"x": X}, ["output", "grad:x"])
    data = graph._stored()
    for _ in range(3):
        storage.Reader(data).nodes(storage.Reader(data).header["graph"])
    _core.compact()
    assert _core.tape_stats()["nodes"] == before
