"""The benches refuse wrong answers and judge as they say; no speed is measured here."""

import math

import numpy as np
import pytest

from . import examples, workloads
from .__main__ import spread, verdict
from .cases import CASES, pairs
from .measure import alternate
from .peers import NumPy, Peer, Run, Skip
from .workloads import Answer, WrongAnswer

SMALL = {
    "multiply_add": workloads.multiply_add(20),
    "mixed": workloads.mixed(5),
    "seven_operations": workloads.seven_operations(5),
    "matmul": workloads.matmul(3),
}


def value(workload, first, second):
    y = workload.function(math if workload.scalar else np, first, second)
    return float(np.sum(y if workload.cotangent is None else y * workload.cotangent))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_derived_by_hand_agree_with_differences(name):
    workload = SMALL[name]
    for which, gradient in enumerate(workload.expected()[1:]):
        for index in np.ndindex(np.shape(gradient)):
            ends = []
            for h in (1e-6, -1e-6):
                leaves = [np.array(leaf) for leaf in workload.leaves]
                leaves[which][index] += h
                if workload.scalar:
                    leaves = [float(leaf) for leaf in leaves]
                ends.append(value(workload, *leaves))
            difference = (ends[0] - ends[1]) / 2e-6
            assert np.asarray(gradient)[index] == pytest.approx(difference, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", SMALL)
def test_a_wrong_gradient_is_refused(name):
    workload = SMALL[name]
    right = workload.expected()
    workload.check(right)
    for field in Answer._fields:
        with pytest.raises(WrongAnswer, match=f"{field} is off by"):
            workload.check(right._replace(**{field: getattr(right, field) * (1 + 1e-8)}))


def test_a_gradient_that_is_nan_or_of_another_shape_is_refused():
    workload = SMALL["seven_operations"]
    right = workload.expected()
    with pytest.raises(WrongAnswer, match="first is off by nan"):
        workload.check(right._replace(first=right.first * np.nan))
    with pytest.raises(WrongAnswer, match="second has shape"):
        workload.check(right._replace(second=right.second[:-1]))


def test_a_case_refuses_a_library_whose_second_gradient_is_stale():
    class Accumulates(Peer):
        name, module, package = "accumulates", "math", "python"

        def gradient(self, workload):
            total = [0.0]

            def call():
                total[0] += 1.0
                return total[0]

            return Run(call, lambda n: Answer(*(n * part for part in workload.expected())), "")

    case = CASES["gradient/multiply-add"]
    with pytest.raises(WrongAnswer, match="value is off by"):
        case.run(Accumulates(), SMALL["multiply_add"])


def test_a_case_of_many_rows_refuses_gradients_that_go_to_other_rows():
    class Shifted(Peer):
        name, module, package = "shifted", "math", "python"

        def rows(self, workload):
            answer = workload.expected()
            return Run(lambda: answer._replace(first=np.roll(answer.first, 1)), lambda x: x, "")

    case = CASES["program/map-mixed"]
    workload = workloads.mixed(5, 7)
    assert workload.operations == 7 * workloads.mixed(5).operations
    with pytest.raises(WrongAnswer, match="first is off by"):
        case.run(Shifted(), workload)
    with pytest.raises(Skip, match="not measured on many rows"):
        case.run(NumPy(), workload)


def test_a_library_is_skipped_with_the_reason():
    class Absent(Peer):
        name, module, package = "absent", "a_module_that_is_absent", "absent"

    with pytest.raises(Skip, match="absent is not installed"):
        Absent()
    with pytest.raises(Skip, match="NumPy is measured on arrays only"):
        CASES["gradient/mixed"].run(NumPy(), SMALL["mixed"])


def test_every_target_belongs_to_a_rival_that_runs():
    running = {(case.name, rival.name) for case, rival in pairs()}
    for case in CASES.values():
        for rival in case.targets:
            assert (case.name, rival) in running


def test_verdicts_and_quartiles():
    assert verdict(2.0, 2.0) == "met"
    assert verdict(2.01, 2.0) == "MISSED"
    assert verdict(math.nan, 2.0) == "MISSED"
    assert verdict(5.0, None) == ""
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_rounds_alternate_who_goes_first():
    order = []
    ours, theirs = alternate(lambda: order.append("a"), lambda: order.append("b"),
                             rounds=4, block=0.0)
    assert len(ours) == len(theirs) == 4
    assert "".join(order[-8:]) == "abbaabba"




def test_a_fit_with_exact_derivatives_that_ends_elsewhere_is_refused_and_is_timed_otherwise():
    optimize = pytest.importorskip("scipy.optimize")

    def fit(source):
        return optimize.least_squares(lambda b: b - 1.0, [3.0], jac=lambda b: np.eye(1)).x

    solver = optimize.least_squares
    found = examples.run(
        "least_squares", [fit, fit], lambda k, x: np.isclose(x[0], 1.0), "programs")
    assert found["evaluations"] >= 4
    assert 0.0 < found["first"] < found["seconds"] < found["total"]
    assert found["astray"] == 0
    with pytest.raises(WrongAnswer, match="fit 1 with autograd ends at"):
        examples.run("least_squares", [fit, fit], lambda k, x: k == 0, "autograd")
    assert examples.run("least_squares", [fit], lambda k, x: False, "differences")["astray"] == 1
    assert optimize.least_squares is solver


def test_a_function_of_an_example_runs_on_another_library():
    def function(x):
        return math.sqrt(x)

    class Library:
        sqrt = staticmethod(lambda x: ("sqrt", x))

    assert examples.of(Library, function, "math")(2.0) == ("sqrt", 2.0)
    assert function(4.0) == 2.0
