"""What notebooks show, summaries of programs and graphs, and the progress of long work."""

import fcntl
import html.parser
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import time
import types

import numpy as np
import pytest

import fastad as ad
from fastad import _core, progress, tables

NASTY = '<img src=x onerror="alert(1)">&\x00'


class Page(html.parser.HTMLParser):
    """HTML as its tags, texts and attributes; tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.rows = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def page(thing):
    """What a notebook shows of a thing: plain elements, styles in them, nothing from elsewhere."""
    found = Page(thing._repr_html_())
    assert set(found.tags) <= {"div", "b", "table", "tr", "td", "th", "pre"}
    assert set(found.attributes) <= {"style"}
    return found


def leaf(value, **kwargs):
    return ad.tensor(value, requires_grad=True, **kwargs)


# ---- tensors in notebooks ------------------------------------------------------------------------


@pytest.mark.parametrize("make, about, rows", [
    (lambda: ad.tensor([1.5, 2.0]), "tensor of shape (2,), float64", [["0", "1"], ["1.5", "2."]]),
    (lambda: ad.tensor([[1, 2], [3, 4]]), "tensor of shape (2, 2), int64",
     [["", "0", "1"], ["0", "1", "2"], ["1", "3", "4"]]),
    (lambda: leaf([0.5], dtype=ad.float32), "tensor of shape (1,), float32, requires_grad",
     [["0"], ["0.5"]]),
    (lambda: leaf([1.0]) * 2.0, "tensor of shape (1,), float64, grad_fn: multiply",
     [["0"], ["2."]]),
    (lambda: ad.tensor([1j]), "tensor of shape (1,), complex128", [["0"], ["0.+1.j"]]),
    (lambda: ad.tensor([True, False]), "tensor of shape (2,), bool",
     [["0", "1"], ["True", "False"]]),
    (lambda: ad.tensor(3.0), "tensor, float64", []),
    (lambda: ad.zeros((0, 3)), "tensor of shape (0, 3), float64", []),
    (lambda: ad.ones((2, 2, 2)), "tensor of shape (2, 2, 2), float64", []),
])
def test_a_notebook_shows_kind_and_values_of_a_tensor(make, about, rows):
    found = page(make())
    assert found.texts[0] == about
    assert found.rows == rows


def test_numbers_and_arrays_of_three_axes_stand_there_as_numpy_writes_them():
    assert "3." in page(ad.tensor(3.0)).texts
    assert "[]" in page(ad.zeros((0, 3))).texts
    assert np.array2string(np.ones((2, 2, 2)), separator=", ") in page(ad.ones((2, 2, 2))).texts


def test_of_long_tensors_the_ends_are_shown_quickly():
    began = time.perf_counter()
    found = page(ad.reshape(ad.arange(1_000_000), (1000, 1000)))
    assert time.perf_counter() - began < 1.0
    assert len(found.rows) == 22 and {len(row) for row in found.rows} == {14}
    assert found.rows[0][7] == "…" and found.rows[11] == ["…"] * 14
    assert found.rows[-1][0] == "999" and found.rows[-1][-1] == "999999"
    assert found.rows[1][1] == "0" and found.rows[12][1] == "990000"


def test_values_in_tables_follow_numpys_print_options():
    with np.printoptions(precision=2):
        assert page(ad.tensor([np.pi, 100.0])).rows[1] == ["3.14", "100."]


def test_a_gradient_is_shown_below_the_value():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    found = page(x)
    assert found.rows == [["0", "1"], ["1.", "2."], ["0", "1"], ["2.", "4."]]
    assert "gradient" in found.texts
    assert "gradient" not in page(leaf([1.0])).texts


def test_a_consumed_history_is_shown_as_that():
    y = leaf([2.0]) * 3.0
    y.sum().backward()
    assert page(y).texts[0].endswith("grad_fn: consumed")


def test_names_and_formats_of_the_user_are_escaped_in_notebooks():
    double = type(NASTY.replace("\x00", ""), (ad.autograd.Function,), {
        "forward": staticmethod(lambda ctx, x: x * 2.0),
        "backward": staticmethod(lambda ctx, g: g * 2.0)})
    y = double.apply(leaf([1.0]))
    assert "<img" not in y._repr_html_() and "<img" in page(y).texts[0]
    with np.printoptions(formatter={"float": lambda x: "<script>\x1f"}):
        found = page(ad.tensor([1.0, 2.0]))
    assert [cell.count("<script>") for cell in found.rows[1]] == [1, 1]


def test_showing_a_tensor_leaves_it_alone(tape_unchanged):
    x = leaf(np.ones(3))
    y = (x * x).sum()
    for t in (x, y):
        t._repr_html_()
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]
    del y


def test_tables_and_summaries_are_imported_when_they_are_asked_for(fresh_python):
    assert fresh_python(
        "import sys, fastad as ad\n"
        "ad.compile(lambda x: x)(1.0)\n"
        "print([m for m in ('fastad.tables', 'fastad.summary', 'html') if m in sys.modules])"
    ) == "[]\n"


# ---- summaries -----------------------------------------------------------------------------------


SCALE = 2.0


def scaled(x, n=2):
    y = x
    for _ in range(n):
        y = ad.sin(y) * SCALE
    if y.sum() > 0.0:
        return (y * y).sum()
    return y.sum()


@pytest.fixture
def branching():
    p = ad.compile(scaled)
    x = np.ones(3)
    for _ in range(4):
        p(x)
    p(-x)
    p(x[:2])
    p.value_and_grad(x)
    return p


def test_a_summary_holds_recordings_calls_and_memory_as_data(branching):
    own, gradient = branching.summary().parts
    assert (own.name, gradient.name) == ("scaled", "scaled.value_and_grad")
    assert (own.recorded, own.replays, own.ordinary, own.differentiated) == (3, 3, 0, 0)
    assert [r.signature for r in own.recordings] == [
        "x: float64 (3,)", "x: float64 (3,)", "x: float64 (2,)"]
    negative, positive, _ = own.recordings
    assert positive.operations == {"multiply": 3, "sin": 2, "sum": 2}
    assert negative.operations == {"multiply": 2, "sin": 2, "sum": 2}
    assert positive.missed > 0 and negative.missed == 0
    assert (positive.outside, positive.swept) == (0, 0)
    (plan,) = [p for p in branching.plans[((("<f8", (3,)),),)] if p.misses]
    assert positive.instructions == plan.figures()["instructions"]
    assert positive.memory >= plan.figures()["arena_bytes"] > 0
    swept = gradient.recordings[0]
    assert 0 < swept.swept < sum(swept.operations.values())


def test_guards_stand_there_with_file_and_line(branching):
    guard, = branching.summary().parts[0].recordings[1].guards
    line = scaled.__code__.co_firstlineno + 4
    assert (guard.file, guard.line, guard.function) == (__file__, line, "scaled")
    assert re.fullmatch(r"node \d+ \(sum\) > 0.0 was True", guard.seen) and guard.times == 1
    assert f"test_text.py:{line}" in str(branching.summary())


def test_many_guards_of_one_line_are_one_row():
    def steps(x):
        while x < 1000.0:
            x = x * 1.01
        return x

    p = ad.compile(steps)
    p(1.0)
    (guard,) = p.summary().parts[0].recordings[0].guards
    assert guard.times == 696
    assert "and 695 more" in str(p.summary())


def test_times_of_recording_and_compiling_are_those_that_passed():
    def slow(x):
        time.sleep(0.05)
        return x * 2.0

    p = ad.compile(slow)
    began = time.perf_counter()
    p(1.0)
    passed = time.perf_counter() - began
    (recording,) = p.summary().parts[0].recordings
    assert 0.05 <= recording.recording_seconds <= passed
    assert 0.0 < recording.compiling_seconds < passed - 0.05


def test_dropped_recordings_are_counted_with_the_reason(monkeypatch):
    p = ad.compile(scaled)
    p(np.ones(3)), p(-np.ones(3))
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    p(np.ones(3))
    (part,) = p.summary().parts
    assert part.dropped == {"the variable SCALE changed": 2}
    assert (part.recorded, len(part.recordings)) == (3, 1)
    with pytest.warns(ad.ProgramWarning, match="shapes"):
        for k in range(40):
            p(np.ones(k + 4))
    (part,) = p.summary().parts
    assert part.dropped["too many signatures"] == 41 - 32


class Weights:
    def __init__(self):
        self.w = 2.0
        self.list = [1.0]


@pytest.mark.parametrize("change, why", [
    (lambda o, a, f: setattr(o, "w", 3.0), "a dict changed"),
    (lambda o, a, f: o.list.append(2.0), "a list changed"),
    (lambda o, a, f: a.fill(2.0), "an array changed"),
    (lambda o, a, f: setattr(f, "__defaults__", (5.0,)), "the defaults of helper changed"),
    (lambda o, a, f: setattr(f, "__code__", (lambda x, k=1.0: x).__code__),
     "the code of helper changed"),
])
def test_what_changed_is_named(change, why):
    weights, array = Weights(), np.ones(2)

    def helper(x, k=1.0):
        return x * k

    p = ad.compile(lambda x: helper(x) * weights.w * len(weights.list) * array[0])
    p(1.0)
    change(weights, array, helper)
    p(1.0)
    assert p.summary().parts[0].dropped == {why: 1}


def test_calls_that_are_no_replays_are_counted_by_their_kind():
    rng = np.random.default_rng(0)
    p = ad.compile(lambda x: x * rng.normal())
    with pytest.warns(ad.ProgramWarning, match="random"):
        p(1.0)
    p(1.0)
    (part,) = p.summary().parts
    assert (part.ordinary, part.recorded, part.replays) == (2, 0, 0)
    assert part.given_up == {"x: number": "the function draws random numbers"}
    assert "draws random numbers" in str(p.summary())
    q = ad.compile(lambda x: x * 2.0)
    q(leaf(1.0)), q(leaf(1.0)), q(1.0), q(2.0)
    (part,) = q.summary().parts
    assert (part.differentiated, part.recorded, part.replays, part.ordinary) == (2, 1, 2, 0)


def test_rows_of_a_map_count_as_replays():
    p = ad.compile(lambda x: x * x)
    p.map(np.ones(100))
    (part,) = [part for part in p.summary().parts if part.name.endswith("value_and_grad")]
    assert part.replays + part.recorded >= 100


def test_signatures_name_parameters_and_describe_nested_arguments():
    def f(x, rest, n, scale=1.0, **more):
        return x.sum() * scale + rest[0] + rest[1]["a"][0] + more["z"][0]

    p = ad.compile(f)
    p(np.ones(3, np.float32), [1.0, {"a": np.ones(2)}], 3, scale=2.0, z=(np.ones(2), "text"))
    (recording,) = p.summary().parts[0].recordings
    assert recording.signature == (
        "x: float32 (3,), rest: [number, {'a': float64 (2,)}], n: 3, scale: number, "
        "z: (float64 (2,), 'text')")


@pytest.mark.parametrize("use, name", [
    (lambda p: p.grad(1.0), "cube.grad"),
    (lambda p: p.jacobian(1.0), "cube.jacobian"),
    (lambda p: p.hessian(1.0), "cube.hessian"),
    (lambda p: p.jvp((1.0,), (1.0,)), "cube.jvp"),
    (lambda p: p.vjp((1.0,), 1.0), "cube.vjp"),
    (lambda p: p.hvp(1.0, 1.0), "cube.hvp"),
    (lambda p: p.derived("grad", (0,))(1.0), "cube.derived('grad', (0,))"),
    (lambda p: p.derived("grad", 0, holomorphic=True)(1j),
     "cube.derived('grad', 0, holomorphic=True)"),
])
def test_every_derivative_has_a_part_of_its_own(use, name):
    def cube(x):
        return x**3

    cube.__qualname__ = "cube"
    p = ad.compile(cube)
    use(p)
    own, part = p.summary().parts
    assert own.recordings == [] and part.name == name and len(part.recordings) == 1
    (replay,) = p._derived.values()
    assert replay.summary().parts == [part]
    assert repr(replay) == f"<Program of {name}: 1 recorded>"
    assert str(replay.summary()).startswith(f"Program of {name}\n")


def test_large_hessians_and_programs_in_ordinary_code_show_the_programs_they_are_made_of():
    p = ad.compile(scaled)
    p.hessian(np.ones(700))
    names = [part.name for part in p.summary().parts]
    assert names == ["scaled", "scaled.hessian, one sweep"]
    sweep = p.summary().parts[-1]
    assert sweep.recordings[0].signature == "x0: float64 (700,), x1: float64 (700,)"
    assert sweep.replays >= 699


def test_a_graph_has_a_summary_with_its_runs():
    graph = ad.record(lambda w, x: ((x @ w) ** 2).sum(), np.ones(2), np.ones((3, 2)))
    (own,) = graph.summary().parts
    (recording,) = own.recordings
    assert recording.signature == "w: float64 (2,), x: float64 (3, 2)"
    assert recording.operations == {"matmul": 1, "square": 1, "sum": 1}
    assert recording.memory is None and recording.recording_seconds > 0.0
    graph.run({"w": np.ones(2), "x": np.ones((3, 2))}, fetch="grad:w")
    run = graph.summary().parts[1]
    assert "grad:w" in run.name and run.recordings[0].memory > 0
    assert "Graph of" in str(graph.summary()) and page(graph).rows


def test_programs_and_graphs_that_were_read_from_files_have_summaries(tmp_path):
    p = ad.compile(scaled)
    p(np.ones(3))
    p.save(tmp_path / "p")
    q = ad.load(tmp_path / "p")
    assert repr(q) == "<Program of scaled: 1 recorded>"
    (recording,) = q.summary().parts[0].recordings
    assert recording.recording_seconds is None and recording.operations["sin"] == 2
    assert recording.guards[0].file is None and "?" in str(q.summary())
    graph = ad.record(scaled, np.ones(3))
    graph.save(tmp_path / "g")
    assert "sin 2" in str(ad.load(tmp_path / "g").summary())


def test_every_text_of_a_summary_is_escaped_in_notebooks(branching):
    text = "<img src=x onerror=alert(1)>"

    def f(x, mode):
        return x * 2.0 if x > 0.0 else x

    f.__qualname__ = text
    p = ad.compile(f)
    p(1.0, text)
    p(-1.0, text)
    with pytest.warns(ad.ProgramWarning):
        p(1.0, object())
    found = page(p)
    assert "<img" not in p._repr_html_()
    assert sum(text in cell for row in found.rows for cell in row) > 3
    assert page(branching).texts[0] == "Program of scaled"
    assert page(branching.summary()).rows == page(branching).rows


def test_a_program_that_did_nothing_yet_has_a_summary():
    p = ad.compile(scaled)
    assert str(p.summary()).startswith("Program of scaled\n\ncalls\n")
    assert repr(p.grad) == "<Program of scaled.grad: 0 recorded>"
    assert page(p).rows[1][1:] == ["0"] * 5


def test_tables_of_text_keep_strange_characters_out_of_lines():
    text = tables.Table("t", ["a", "b"], [["x\ny\x1b[31m", "1"]]).text()
    assert text.splitlines() == ["t", "a         b", "x\ufffdy\ufffd[31m  1"]


# ---- progress ------------------------------------------------------------------------------------


def at_a_terminal(code, tqdm=False, timeout=60):
    """What a program writes to a terminal as its stderr, and to stdout."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    code = ("" if tqdm else "import sys; sys.modules['tqdm'] = None\n") + textwrap.dedent(code)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:         # the other end is closed
            break
        if not part:
            break
        written += part
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait(timeout) == 0, written.decode()
    os.close(ours)
    return written.decode().replace("\r\n", "\n"), out


# Patience of a tenth of a second, so that the tests are quick.
SETUP = """
import time, numpy as np, fastad as ad
from fastad import progress
progress._PATIENCE = 0.1
def slowly(x):
    time.sleep(0.002)
    return (x * x).sum()
"""
WORK = {
    "map": ("ad.compile(lambda x: sum([ad.tanh(k * x).sum() for k in range(50)])).map("
            "np.ones((2000, 500)))", r"map: \d+ of 2000 rows"),
    "map by ordinary calls": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "g = ad.compile(lambda x, o: slowly(x))\n"
        "g.map(np.ones((300, 2)), object(), in_axes=(0, None), gradient=False)",
        r"map: \d+ of 300 rows"),
    "recording": (
        "def f(x):\n"
        "    for _ in range(200000):\n"
        "        x = ad.sin(x) * 1.01\n"
        "        if _ % 50000 == 0: time.sleep(0.1)\n"
        "    return x\n"
        "ad.compile(f)(1.0)",
        r"recording f: \d+ operations[^$]*compiling f: 400\d+ operations"),
    "columns": ("ad.jacobian(lambda x: ad.stack([ad.sin(x).sum()] * 400) * x)(np.ones(400)) "
                "if progress.__dict__.update(_PATIENCE=0.001) is None else 0",
                r"differentiating: \d+ of 400 sweeps"),
    "report": ("ad.report(lambda x: ad.tanh(x).sum() if progress.__dict__.update(_PATIENCE=0.001) "
               "is None else 0, np.ones(300))", r"report: \d+ of 300 entries"),
    "one sweep": ("progress._PATIENCE = 0.01\n"
                  "ad.compile(lambda x: (ad.sin(x) * ad.exp(x) * x).sum()).hessian(np.ones(1500))",
                  r"differentiating: \d+ of 1500 sweeps"),
}


@pytest.mark.parametrize("name", list(WORK))
def test_long_work_shows_its_progress_at_a_terminal(name):
    code, pattern = WORK[name]
    written, _ = at_a_terminal(SETUP + code)
    assert re.search(pattern, written), written
    assert written.endswith("\n")
    assert all(line.startswith("\r") for line in written.split("\n")[:-1])


def test_at_a_terminal_tqdm_draws_the_bar_where_it_is_installed():
    pytest.importorskip("tqdm")
    written, _ = at_a_terminal(SETUP + WORK["map"][0], tqdm=True)
    assert re.search(r"map: .*2000/2000 .* rows", written)


@pytest.mark.parametrize("code", [
    SETUP.replace("_PATIENCE = 0.1", "_PATIENCE = 1.0")
    + "ad.compile(lambda x: x * x).map(np.ones(10000)); ad.compile(lambda x: x)(1.0)\n"
    + "ad.hessian(lambda x: (x * x).sum())(np.ones(50))",
    SETUP + "ad.set_progress(False)\n" + WORK["map"][0],
    SETUP + WORK["map"][0][:-1] + ", progress=False)",
], ids=["short", "switched off", "off for one call"])
def test_nothing_is_shown_for_short_work_or_where_it_is_switched_off(code):
    assert at_a_terminal(code) == ("", "")


@pytest.fixture
def patience(monkeypatch):
    """Work is long at once, and no bar is drawn."""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setitem(sys.modules, "tqdm", None)


def count(**options):
    with progress.Progress("counting", 3, "sheep", **options) as shown:
        for _ in range(3):
            shown.add(1)


def test_nothing_is_shown_where_nobody_looks(patience, capsys):
    count()
    assert capsys.readouterr() == ("", "")


def test_a_notebook_is_someone_who_looks(patience, capsys, monkeypatch):
    shell = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    count()
    assert capsys.readouterr().err == ""        # IPython without a terminal
    shell.kernel = object()
    count()
    assert capsys.readouterr().err.endswith("\rcounting: 3 of 3 sheep\n")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_a_stream_for_errors_nothing_is_shown(patience, monkeypatch, capsys, stream):
    if stream:
        stream = open(os.devnull, "w")      # noqa: SIM115
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    count()
    if stream is None:
        count(wanted=True)
    monkeypatch.undo()
    assert capsys.readouterr().out == ""


def test_the_switch_holds_until_the_end_of_its_block(patience, capsys):
    with ad.set_progress(True):
        count()
        assert capsys.readouterr().err.count("sheep") == 2      # the first and the last
        with ad.set_progress(False):
            count()
        count(wanted=False)
        assert capsys.readouterr().err == ""
    count()
    assert capsys.readouterr().err == ""
    ad.set_progress(True)
    try:
        count()
        assert capsys.readouterr().err != ""
    finally:
        ad.set_progress(None)


def test_work_within_work_is_not_shown(patience, capsys):
    with ad.set_progress(True), progress.Progress("outer", 1, "steps") as shown:
        shown.add(1)
        count()
    assert "sheep" not in capsys.readouterr().err
    with ad.set_progress(True):
        count()
    assert "sheep" in capsys.readouterr().err


def test_progress_ends_with_the_error_that_ends_the_work(patience, capsys):
    def fails(x):
        for _ in range(_core.TELL_EVERY):
            x = ad.sin(x) * 1.5
        raise KeyError("out of sheep")

    with ad.set_progress(True):
        with pytest.raises(KeyError):
            ad.compile(fails)(1.0)
        assert re.search(r"recording .*fails: \d+ operations\n$", capsys.readouterr().err)
        count()
    assert "sheep" in capsys.readouterr().err
    ad.compile(lambda x: sum([ad.sin(x)] * 200_000))(1.0)       # and nobody is told any more
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("call", [
    lambda: ad.set_progress("yes"),
    lambda: ad.compile(ad.sin).map(np.ones(3), progress=1),
])
def test_only_true_false_and_none_switch(call):
    with pytest.raises(TypeError, match="wanted True, False or None"):
        call()


def test_asking_for_the_progress_takes_next_to_no_time():
    n = 20_000
    with progress.Progress("counting", n, "sheep") as shown:
        began = time.perf_counter()
        for _ in range(n):
            shown.add(1)
        assert (time.perf_counter() - began) / n < 5e-6
