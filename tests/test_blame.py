"""Blame: the operation and the line of the first nan or inf, of a guard, and of the time."""

import inspect
import itertools
import math
import threading
import types
import warnings

import numpy as np
import pytest

import fastad as ad
from fastad import _core

# What brings nan or inf, for `u`, which is 0.25 there: (expression, primitive, in the gradient)
CULPRITS = [
    ("ad.log(u - 1.0)", "log", False),
    ("ad.sqrt(u - 1.0)", "sqrt", False),
    ("u / (u - 0.25)", "divide", False),
    ("ad.exp(u * 1e5)", "exp", False),
    ("ad.arcsin(u * 8.0)", "arcsin", False),
    ("ad.power(u - 1.0, 0.5)", "power", False),
    ("ad.arctanh(u * 4.0)", "arctanh", False),
    ("ad.log1p(u * -4.0)", "log1p", False),
    ("1.0 / (u - 0.25) ** 2", "divide", False),
    ("ad.sqrt(u - 0.25)", "sqrt", True),
    ("ad.power(u - 0.25, 0.5)", "power", True),
    ("ad.arccos(u * 4.0)", "arccos", True),
    ("ad.cbrt(u - 0.25)", "cbrt", True),
]
BEFORE = ["a = x * 2.0", "b = ad.sin(a) + x", "a = a + b * 0.5", "c = ad.tanh(b)", "u = x + 0.0"]
AFTER = ["w = v * 3.0 + x", "w = w - ad.cos(x)", "w = w + v", "w = ad.sinh(w * 1e-3)"]


def generated():
    """50 functions, each with a culprit in a known line: text, line, primitive, kind."""
    cases = []
    for k in range(50):
        culprit, primitive, gradient = CULPRITS[k % len(CULPRITS)]
        before = [BEFORE[j] for j in range(4) if (k >> j) & 1 or j == 0]
        before = [line for line in before if not ("b" in line and "b =" not in line)
                  or any("b =" in x for x in before)]
        after = ["w = v * 1.0", *AFTER[: 1 + k % 4]]
        body = ["u = x + 0.0", *[x for x in before if "b" not in x], f"v = {culprit}", *after]
        if k % 3 == 1:          # in a helper, called from elsewhere
            lines = ["import fastad as ad", "", "", "def helper(u):",
                     f"    return {culprit}", "", "", "def f(x):",
                     *[f"    {x}" for x in body if not x.startswith("v =")][:1],
                     "    v = helper(u)", *[f"    {x}" for x in after], "    return ad.sum(w)"]
            line = 5
        elif k % 3 == 2:        # in a loop
            lines = ["import fastad as ad", "", "def f(x):", "    u = x + 0.0",
                     "    for k in range(3):", "        y = u * k",
                     "        if k == 1:", f"            v = {culprit}",
                     *[f"    {x}" for x in after], "    return ad.sum(w)"]
            line = 8
        else:
            lines = ["import fastad as ad", "", "def f(x):", *[f"    {x}" for x in body],
                     "    return ad.sum(w)"]
            line = 1 + lines.index(f"    v = {culprit}")
        cases.append(("\n".join(lines) + "\n", line, primitive, gradient))
    return cases


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def loaded(text, path):
    path.write_text(text)
    module = types.ModuleType(path.stem)
    exec(compile(text, str(path), "exec"), vars(module))
    return module.f


def arguments(k):
    return 0.25 if k % 2 else np.array([0.25, 0.25])


def test_the_line_of_an_injected_nan_is_named_in_all_of_50_cases_eager_and_program(tmp_path):
    named = 0
    for k, (text, line, primitive, gradient) in enumerate(generated()):
        f = loaded(text, tmp_path / f"case{k}.py")
        place = (str(tmp_path / f"case{k}.py"), line)
        x = ad.tensor(arguments(k), requires_grad=True)
        with ad.detect_anomaly(), pytest.raises(ad.AnomalyError) as eager:
            f(x).backward()
        assert x.grad is None
        p = ad.compile(f)
        asked = p.blame(arguments(k))
        assert asked is not None, text
        with ad.detect_anomaly(), pytest.raises(ad.AnomalyError) as met:
            p.value_and_grad(arguments(k))
        for error in (eager.value, asked, met.value):
            assert (error.file, error.line) == place, (text, str(error))
            assert f"{place[0]}:{line}" in str(error)
            if gradient:
                assert error.gradient
            else:
                assert (error.primitive, error.gradient) == (primitive, False), str(error)
        named += 1
        if gradient:
            assert eager.value.primitive == primitive
    assert named == 50


def test_finite_functions_are_not_blamed(tmp_path):
    text = "import fastad as ad\ndef f(x):\n    return ad.sum(ad.sin(x) * x)\n"
    f = loaded(text, tmp_path / "fine.py")
    x = ad.tensor([0.25, 0.5], requires_grad=True)
    with ad.detect_anomaly():
        y = f(x)
        y.backward()
        p = ad.compile(f)
        assert p.value_and_grad(np.ones(2))[0] == p(np.ones(2))
        assert p.blame(np.ones(2)) is None
    z = ad.tensor([0.25, 0.5], requires_grad=True)
    f(z).backward()
    assert x.grad.tolist() == z.grad.tolist()


# What reads elements, writes them, or is complex: (text, primitive, in the gradient)
ELSEWHERE = [
    ("ad.log(x[0] - 1.0)", "log", False),
    ("put(x, ad.log(x[0] - 1.0))", "log", False),
    ("put(x, ad.sqrt(x[0] - 0.25))", "sqrt", True),
    ("np.linalg.inv(np.outer(x, x) * 1e-320)", "inv", False),
    ("ad.special.gamma(x - 1.25)", "special.gamma", False),
    ("abs(np.log(x * (0.0 + 0.0j)))", "log", False),
    ("np.fft.fft(x / (x - 0.25)).real", "divide", False),
    ("np.cumprod(x * 1e300)", "cumprod", False),
    ("np.percentile(ad.log(x - 1.0), 50.0)", "log", False),
    ("np.add.reduce(ad.exp(x * 1e5))", "exp", False),
]


@pytest.mark.parametrize("text, primitive, gradient", ELSEWHERE)
def test_elements_writes_and_complex_numbers_are_blamed_where_they_stand(
        text, primitive, gradient, tmp_path):
    lines = ["import numpy as np", "import fastad as ad", "", "def put(x, v):",
             "    y = x * 1.0", "    y[1] = v", "    y[0] *= 2.0", "    return y", "",
             "def f(x):", "    u = x * 1.0", f"    v = {text}", "    return ad.sum(v * 1.0)"]
    f = loaded("\n".join(lines) + "\n", tmp_path / "case.py")
    x = ad.tensor([0.25, 0.25], requires_grad=True)
    with ad.detect_anomaly(), pytest.raises(ad.AnomalyError) as eager:
        f(x).backward()
    assert x.grad is None
    asked = ad.compile(f).blame(np.array([0.25, 0.25]))
    for error in (eager.value, asked):
        assert (error.line, error.gradient) == (12, gradient)
        assert error.primitive == primitive or gradient and error is asked


def test_what_is_written_names_the_line_that_wrote_it():
    def f(x):
        y = ad.zeros(3)
        y[0] = x
        y[1:] = x * x
        return (y * y).sum()

    nodes = ad.record(f, 2.0)._nodes
    first = f.__code__.co_firstlineno
    lines = {nodes.primitive(i): nodes.place(i)[1] - first for i in range(len(nodes))
             if nodes.place(i) is not None and nodes.primitive(i) == "setitem"}
    assert lines == {"setitem": 3}


# ---- ordinary code -------------------------------------------------------------------------------


def here():
    return inspect.currentframe().f_back.f_lineno


def test_the_error_holds_operation_operands_and_place():
    x = ad.tensor([1.0, -2.0], requires_grad=True)
    with ad.detect_anomaly(), np.errstate(all="ignore"), pytest.raises(
            FloatingPointError, match=r"log: the value is \[ ?0., nan\] from \[ 1., -2.\]") as info:
        line = here() + 1
        ad.log(x)
    error = info.value
    assert (error.primitive, error.file, error.line) == ("log", __file__, line)
    assert error.function.endswith("operands_and_place") and not error.gradient
    assert error.inputs[0].tolist() == [1.0, -2.0]


def test_a_call_of_a_numpy_function_is_blamed_where_the_user_called_it():
    x = ad.tensor([1.0, -2.0], requires_grad=True)
    with ad.detect_anomaly(), np.errstate(all="ignore"):
        for f in (lambda: np.std(np.sqrt(x)), lambda: ad.var(x / 0.0), lambda: (x * np.inf).mean(),
                  lambda: ad.linalg.norm(x * 1e300)):
            with pytest.raises(ad.AnomalyError) as info:
                f()
            assert (info.value.file, info.value.function[-8:]) == (__file__, "<lambda>")


def test_values_may_be_left_alone():
    x = ad.tensor([1.0, -2.0], requires_grad=True)
    with ad.detect_anomaly(values=False), np.errstate(all="ignore"):
        ad.where(x > 0, ad.log(x), 0.0).sum().backward()
        assert x.grad.tolist() == [1.0, 0.0]
        with pytest.raises(ad.AnomalyError) as info:
            ad.autograd.grad(ad.sqrt(x * 0.0).sum(), x)
    assert info.value.primitive == "sqrt" and info.value.gradient


def test_cotangents_that_overflow_when_they_add_up_are_blamed():
    x = ad.tensor(1e-300, requires_grad=True)
    with ad.detect_anomaly(), pytest.raises(ad.AnomalyError, match="sum of the cotangents") as info:
        y = x * 1.0
        (y * 1e308 + y * 1e308).backward()
    assert info.value.primitive == "multiply"


def test_gradients_of_gradients_are_watched():
    x = ad.tensor(0.0, requires_grad=True)
    with ad.detect_anomaly():
        (g,) = ad.autograd.grad(ad.power(x, 1.5), x, create_graph=True)
        with pytest.raises(ad.AnomalyError):
            g.backward()
        with pytest.raises(ad.AnomalyError):
            ad.grad(ad.grad(lambda t: ad.power(t, 1.5)))(0.0)


def test_sweeps_in_the_context_give_what_they_give_outside():
    def gradients():
        w = ad.tensor([[0.5, -1.0], [2.0, 0.25]], requires_grad=True)
        v = ad.tensor(3.0, requires_grad=True)
        h = []
        y = (ad.tanh(w @ w) * v).sum() + ad.prod(w) + w[0, 1] * v + ad.max(w)
        y.register_hook(lambda g: h.append(g.item()))
        m = w * v
        m.retain_grad()
        (y + m.sum()).backward(retain_graph=True)
        (y * 2.0).backward()
        with pytest.raises(RuntimeError, match="consumed"):
            y.backward()
        return w.grad.tolist(), v.grad.item(), h, m.grad.tolist()

    plain = gradients()
    with ad.detect_anomaly():
        watched = gradients()
    for a, b in zip(plain, watched):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_no_grad_inside_and_around_is_kept():
    x = ad.tensor(-1.0, requires_grad=True)
    with ad.detect_anomaly(), np.errstate(all="ignore"):
        with ad.no_grad():
            assert math.isnan(ad.log(x).item())
            with ad.enable_grad(), pytest.raises(ad.AnomalyError):
                ad.log(x)
        with pytest.raises(ad.AnomalyError):
            ad.log(x)
    assert math.isnan(ad.log(x).item())
    with ad.no_grad():
        with ad.detect_anomaly():
            assert not ad.is_grad_enabled() and math.isnan(ad.log(x).item())
        assert not ad.is_grad_enabled()
    assert (x * x).requires_grad


def test_contexts_nest_and_other_threads_are_not_watched():
    x = ad.tensor(-1.0, requires_grad=True)
    found = []
    with ad.detect_anomaly():
        with ad.detect_anomaly(values=False):
            assert math.isnan(ad.log(x).item())
        with pytest.raises(ad.AnomalyError):
            ad.log(x)
        thread = threading.Thread(target=lambda: found.append(ad.log(x).item()))
        thread.start()
        thread.join()
    assert math.isnan(found[0])


def test_a_long_watched_loop_runs_in_flat_memory(tape_unchanged):
    x = ad.tensor(0.5, requires_grad=True)
    with ad.detect_anomaly():
        sizes = []
        for _ in range(30):
            y = x
            for _ in range(1000):
                y = ad.sin(y)
            y.backward()
            sizes.append(_core.tape_stats()["capacity"])
            with pytest.raises(ad.AnomalyError) as info:
                line = here() + 1
                ad.log(y - 2.0)
            assert info.value.line == line
    assert sizes[-1] == sizes[5]


# ---- programs ------------------------------------------------------------------------------------


def test_what_where_hides_is_not_blamed_in_a_program():
    p = ad.compile(lambda x: ad.where(x > 0, ad.sqrt(x), 0.0).sum())
    assert p.blame(np.array([1.0, -1.0])) is None
    with ad.detect_anomaly():
        assert p.value_and_grad(np.array([1.0, -1.0]))[1].tolist() == [0.5, 0.0]


def test_an_input_that_is_nan_is_blamed_itself():
    error = ad.compile(lambda x: x * x)  .blame(math.nan)
    assert error.primitive == "input"


def test_a_function_that_is_no_program_is_watched_as_ordinary_code():
    def f(x):
        return ad.log(x - np.random.random() - 5.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = ad.compile(f)
        with ad.detect_anomaly(), pytest.raises(ad.AnomalyError) as info:
            p.value_and_grad(1.0)
        assert info.value.function.endswith("f")
        with pytest.raises(ValueError, match="no program"):
            p.blame(1.0)


def test_second_derivatives_are_blamed_on_the_line_that_they_are_of():
    def f(x):
        y = x * 1.0
        return ad.power(y, 1.5) + y

    p = ad.compile(f)
    line = f.__code__.co_firstlineno + 2
    with ad.detect_anomaly(), pytest.raises(ad.AnomalyError) as info:
        p.hessian(0.0)
    assert info.value.line == line and info.value.gradient


def test_a_guard_names_its_line():
    def f(x):
        y = x * 2.0
        if y > 1.0:
            return y
        return -y

    graph = ad.record(f, 1.0)
    line = f.__code__.co_firstlineno + 2
    with pytest.raises(ad.GuardError, match=rf"multiply\) > 1.0 was True \(at .*:{line}\)") as info:
        graph.run({"x": 0.0}, "output")
    assert f":{line}" in info.value.seen
    assert f":{line}" in str(graph)
    p = ad.compile(lambda x: x * float(x))
    p.blame(1.0)
    with pytest.warns(ad.ProgramWarning, match=rf"was \d+.* \(at .*test_blame.py:{here() - 2}\)"):
        for k in itertools.count():
            p(float(k))
            if k == 40:
                break


def test_a_recording_that_came_from_a_file_knows_no_lines(tmp_path):
    p = ad.compile(lambda x: ad.log(x))
    p(1.0)
    p.save(tmp_path / "p.fastad")
    error = ad.load(tmp_path / "p.fastad").blame(-1.0)
    assert (error.primitive, error.file, error.line) == ("log", None, None)


def test_a_profile_names_the_line_that_takes_the_time():
    def f(x):
        a = x[0] + 1.0
        b = ad.exp(ad.sin(x)) * ad.tanh(x)
        return b.sum() * a

    first = f.__code__.co_firstlineno
    found = ad.compile(f).profile(np.linspace(0.0, 1.0, 50_000))
    assert [x.line - first for x in found.lines][0] == 2
    assert found.lines[0].text == "b = ad.exp(ad.sin(x)) * ad.tanh(x)"
    assert found.lines[0].bytes >= 4 * 50_000 * 8
    assert found.lines[0].seconds > 0.0 and found.lines[0].gradient_seconds > 0.0
    assert {x.line - first for x in found.lines} == {1, 2, 3}
    assert math.isclose(sum(x.seconds + x.gradient_seconds for x in found.lines), found.seconds)
    shares = [float(row.split("%")[0]) for row in str(found).splitlines()[1:]]
    assert len(shares) == 3 and max(shares) == shares[0]
    assert ad.compile(lambda x: x * 2.0).profile(np.ones(3)).lines[0].gradient_seconds == 0.0


def test_every_operation_of_a_recording_has_a_place():
    def f(x):
        y = (ad.sin(x) @ ad.cos(x)) * ad.mean(x)
        return y if y > 0.0 else -y

    graph = ad.record(ad.value_and_grad(f), np.ones(4))
    nodes = graph._nodes
    for i in range(len(nodes)):
        if nodes.primitive(i) not in ("input", "constant"):
            assert nodes.place(i)[0] == __file__, nodes.primitive(i)
    derived = [nodes.is_derived(i) for i in range(len(nodes))
               if nodes.primitive(i) not in ("input", "constant")]
    assert True in derived and False in derived
