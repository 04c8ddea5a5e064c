"""The examples run as a user runs them, and what they claim about numbers is right."""

import doctest
import importlib
import io
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")
pytest.importorskip("sympy")

import fastad as ad

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = ["nist_fits", "logistic_regression", "scalar_network", "pendulum_fit",
           "three_methods"]


def run(script, *options, cwd):
    """Run an example from a directory that is not its own."""
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *map(str, options)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture
def load(monkeypatch):
    """Import an example as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def nist(load):
    return load("nist_fits")


@pytest.fixture
def common(load):
    return load("_common")


# ---- each is one command -------------------------------------------------------------------------


def test_nist_fits_agree_to_seven_digits_from_the_second_start_on_every_problem(tmp_path):
    done = run("nist_fits", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 of 13 problems agree to at least 7 digits from the second start" in done.stdout
    assert done.stderr == ""


def test_nist_fits_print_certified_and_found_values_and_costs_of_both_starts(tmp_path):
    done = run("nist_fits", "Misra1a", "BoxBOD", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = r" +2\.3894212\d{3}e\+02" * 2
    assert re.search(r"b1 +2\.3894212918e\+02" + found, done.stdout)
    for start in (1, 2):
        for source in ("fastad", "2-point", "3-point, relative step"):
            row = rf"start {start}: {source} +\d+\.\d .* \d+ .* [\d.]+ (m|u)?s"
            assert len(re.findall(row, done.stdout)) == 2, (start, source)


def test_nist_fits_leave_with_1_and_name_the_problem_when_digits_are_missing(tmp_path):
    done = run("nist_fits", "--quick", "Misra1a", "--digits", 12, cwd=tmp_path)
    assert done.returncode == 1
    assert "0 of 1 problems agree to at least 12 digits" in done.stdout
    assert "Too few digits: Misra1a." in done.stdout


def test_nist_fits_name_the_problems_when_asked_for_one_that_is_not_there(tmp_path):
    done = run("nist_fits", "Misra1b", cwd=tmp_path)
    assert done.returncode == 2
    assert "no problem 'Misra1b'; there are Misra1a, Misra1c," in done.stderr


def test_the_three_methods_agree_as_far_as_each_can(tmp_path):
    done = run("three_methods", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The automatic derivative is exact, the symbolic one as well." in done.stdout
    (best,) = re.findall(r"differences are best with h = .*: error (\S+)", done.stdout)
    assert 1e-13 < float(best) < 1e-6
    operations = re.findall(r"\d+", done.stdout.split("symbolic derivative: ")[1].split("\n")[0])
    assert all(int(b) > 2 * int(a) for a, b in zip(operations, operations[1:]))
    assert done.stderr == ""


def test_a_cluster_that_loses_a_worker_finds_what_one_process_finds(tmp_path):
    pytest.importorskip("distributed")
    done = run("cluster_fit", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Process \d+ was killed\. Largest difference of a weight: 0\.0e\+00\.",
                     done.stdout)
    assert "The two agree." in done.stdout


def test_logistic_regression_agrees_with_scipy_and_scikit_learn(tmp_path):
    done = run("logistic_regression", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The loss is 0.693147 at first" in done.stdout
    assert "The three agree." in done.stdout
    assert done.stderr == ""


def test_the_scalar_network_learns_and_counts_its_operations(tmp_path):
    done = run("scalar_network", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "One loss is 15361 operations on single numbers." in done.stdout
    for what in ("loss, backward and step", "loss and gradient by a program"):
        assert re.search(rf"{what} +[\d.]+ (m|u)?s +[\d.]+ million +[\d.]+", done.stdout)
    assert "The network learnt." in done.stdout
    assert done.stderr == ""


def test_the_pendulum_fit_finds_the_true_parameters_within_their_errors(tmp_path):
    done = run("pendulum_fit", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every parameter is within 5 standard errors of the true one." in done.stdout
    error = re.search(r"gradient by differences is off by (\S+) of", done.stdout)
    assert float(error.group(1)) < 1e-5
    assert done.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_example_draws_its_result_when_asked(script, tmp_path):
    pytest.importorskip("matplotlib")
    problems = ["DanWood"] if script == "nist_fits" else []
    done = run(script, "--quick", "--plot", tmp_path / "out.png", *problems, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert f"The picture is in {tmp_path / 'out.png'}." in done.stdout


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        ("out.nothing", "names no kind of picture that matplotlib writes"),
        ("missing/out.png", "there is no directory"),
    ],
)
def test_a_picture_that_cannot_be_saved_is_refused_before_the_work(picture, complaint, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("pendulum_fit", "--plot", picture, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("module", ["_common", *SCRIPTS])
def test_the_examples_in_the_docstrings_hold(module, load):
    assert doctest.testmod(load(module)).failed == 0


# ---- the digits that agree -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "certified", "expected"),
    [
        ([1.0 + 1e-7], [1.0], 7.0),
        ([-2.0 - 2e-5], [-2.0], 5.0),
        ([1.0 + 1e-9, 100.0 + 1e-2], [1.0, 100.0], 4.0),
        ([100.0 + 1e-2, 1.0 + 1e-9], [100.0, 1.0], 4.0),
        ([1e-6], [0.0], 6.0),
    ],
)
def test_digits_are_the_log_relative_error_of_the_worst_parameter(nist, found, certified, expected):
    assert nist.digits(found, certified) == pytest.approx(expected, abs=1e-6)


def test_digits_end_at_the_eleven_that_are_certified(nist):
    assert nist.digits([1.0], [1.0]) == 11.0


@pytest.mark.parametrize("wrong", [1.2, 3.0, -1.0, 1e300, math.nan, math.inf, -math.inf])
def test_digits_are_zero_for_a_value_that_does_not_agree(nist, wrong):
    assert nist.digits([wrong], [1.0]) == 0.0
    assert nist.digits([1.0, wrong], [1.0, 1.0]) == 0.0


@pytest.mark.parametrize(("found", "certified"), [([1.0], [1.0, 2.0]), ([], [])])
def test_digits_refuse_values_without_a_counterpart(nist, found, certified):
    with pytest.raises(ValueError, match=r"digits: .* found values beside .* certified"):
        nist.digits(found, certified)


def test_a_wrong_certified_value_is_noticed(nist, tmp_path, monkeypatch, capsys):
    problems = json.loads(nist.DATA.read_text(encoding="utf-8"))
    problems["DanWood"]["certified"][1] *= 1 + 2e-7
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(problems), encoding="utf-8")
    monkeypatch.setattr(nist, "DATA", changed)
    assert nist.main(["--quick", "DanWood", "Rat42"]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 problems agree to at least 7 digits" in printed
    assert "the fewest are 6.7." in printed
    assert "Too few digits: DanWood." in printed


# ---- the reference problems ----------------------------------------------------------------------


def test_every_model_is_its_formula(nist):
    names = {"exp": np.exp, "cos": np.cos, "sin": np.sin, "arctan": np.arctan, "pi": np.pi}
    problems = nist.read_problems()
    assert len(problems) == 13
    for problem in problems.values():
        for b in (*problem.starts, problem.certified):
            parameters = {f"b{i + 1}": value for i, value in enumerate(b)}
            scope = {"__builtins__": {}, "x": problem.x, **names, **parameters}
            expected = eval(problem.formula, scope)
            np.testing.assert_allclose(
                problem.model(b, problem.x), expected, rtol=1e-13, err_msg=problem.name
            )


def test_the_data_reproduce_the_certified_residual_sums(nist):
    for problem in nist.read_problems().values():
        rss = 2 * problem.half_rss(problem.certified)
        # Lanczos3: the residuals are small differences of data given to 5 digits
        tolerance = 1e-5 if problem.name == "Lanczos3" else 1e-9
        assert rss == pytest.approx(problem.certified_rss, rel=tolerance), problem.name


def test_standard_deviations_from_the_jacobian_are_those_that_nist_certifies(nist):
    for problem in nist.read_problems().values():
        b = nist.newton_step(problem, problem.certified)
        linear, _ = nist.deviations(problem, b)
        assert nist.digits(linear, problem.certified_sd) > 8, problem.name


@pytest.mark.parametrize("name", ["Misra1a", "Chwirut2", "Rat42", "BoxBOD", "ENSO"])
def test_standard_deviations_from_the_hessian_agree_with_differences(nist, name):
    problem = nist.read_problems()[name]
    b = problem.certified
    _, curved = nist.deviations(problem, b)
    # Second central differences of the residuals, in steps that suit the size of each parameter.
    steps = np.diag(1e-4 * np.abs(b))
    jacobian = np.stack([(problem.residuals(b + s) - problem.residuals(b - s)) / 2 for s in steps])
    second = np.array(
        [
            [
                problem.residuals(b + s + t)
                - problem.residuals(b + s - t)
                - problem.residuals(b - s + t)
                + problem.residuals(b - s - t)
                for t in steps
            ]
            for s in steps
        ]
    )
    r = problem.residuals(b)
    hessian = jacobian @ jacobian.T + second @ r / 4
    variance = (r @ r) / (r.size - b.size)
    expected = np.sqrt(variance * np.diag(np.linalg.inv(hessian))) * np.diag(steps)
    np.testing.assert_allclose(curved, expected, rtol=1e-4)


def test_a_newton_step_is_not_taken_where_the_sum_of_squares_has_no_minimum(nist):
    x, y = np.array([1.0, 2.0]), np.array([5.0, 10.0])
    problem = nist.Problem("saddle", "b1**2*x", lambda b, x: b[0] ** 2 * x, x, y, (y, y), y, y, 0.0)
    b = np.array([0.1])
    assert nist.newton_step(problem, b) is b
    _, curved = nist.deviations(problem, b)
    assert np.isnan(curved).all()


# ---- the other numbers ---------------------------------------------------------------------------


class Counted:
    """A number that counts the operations on it."""

    count = 0

    def operate(self, *_):
        Counted.count += 1
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = operate
    exp = log = tanh = operate


def test_the_scalar_network_performs_the_operations_it_claims(load, monkeypatch):
    example = load("scalar_network")
    train, _ = example.read_data()
    number = Counted()
    network = [[[number] * 5] * example.HIDDEN, [[number] * (example.HIDDEN + 1)] * 3]
    monkeypatch.setattr(Counted, "count", 0)
    example.loss_of(network, train, Counted)
    assert Counted.count == example.operations(4, 3, len(train))


def test_the_scalar_network_has_the_same_loss_on_tensors_and_on_floats(load):
    example = load("scalar_network")
    train, _ = example.read_data()
    source = random.Random(3)
    network = [example.new_layer(4, example.HIDDEN, source), example.new_layer(8, 3, source)]
    on_tensors = example.loss_of(network, train[:10], ad).item()
    on_floats = example.loss_of(example.floats_of(network), train[:10], math)
    assert on_tensors == pytest.approx(on_floats, rel=1e-14)


def test_the_pendulum_has_the_same_angles_on_tensors_and_on_floats(load):
    example = load("pendulum_fit")
    experiment = example.Experiment(400)
    arguments = example.GUESS, experiment.angles
    on_floats = experiment.residuals(*arguments)
    on_tensors = experiment.recorded_residuals(ad.tensor(example.GUESS), experiment.angles).numpy()
    np.testing.assert_allclose(on_tensors, on_floats, rtol=1e-12)
    replayed = ad.compile(experiment.recorded_residuals)
    for _ in range(2):
        np.testing.assert_array_equal(replayed(*arguments), on_tensors)


def test_the_gradient_of_the_pendulum_agrees_with_differences_although_it_bumps(load):
    example = load("pendulum_fit")
    experiment = example.Experiment(400)
    assert experiment.angles.max() > example.TRUE[2]  # it reaches the stop
    for parameters in (example.GUESS, example.TRUE + 0.01):
        exact = ad.grad(experiment.recorded_loss)(parameters)
        differences = [
            (experiment.loss(parameters + h) - experiment.loss(parameters - h)) / 2e-6
            for h in 1e-6 * np.eye(parameters.size)
        ]
        np.testing.assert_allclose(exact, differences, rtol=1e-6, atol=1e-8)


# ---- what the examples share ---------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_silent_where_nobody_looks(common, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(common.progress(range(5), "working")) == [0, 1, 2, 3, 4]
    assert sys.stderr.getvalue() == ""


def test_progress_is_shown_on_a_terminal_by_tqdm(common, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(common.progress(range(5), "working")) == [0, 1, 2, 3, 4]
    assert "working" in sys.stderr.getvalue()


def test_progress_is_shown_on_a_terminal_without_tqdm(common, monkeypatch):
    monkeypatch.setattr(common, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(common.progress(range(5), "working")) == [0, 1, 2, 3, 4]
    shown = sys.stderr.getvalue()
    assert shown.startswith("\rworking: 0/5")
    assert shown.endswith("\r\x1b[K")  # the line is wiped
