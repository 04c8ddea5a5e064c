"""What is timed against what, and the targets: fastad's time as a multiple of the rival's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import workloads
from .peers import BASELINES, OURS, PEERS, Fastad, Peer, Run, Skip
from .workloads import Workload


@dataclass(frozen=True)
class Case:
    """A workload, what is done with it, and the limits.

    Attributes
    ----------
    name
        As in the table and on the command line.
    make
        Builds the workload; called in the process that times it.
    mode
        ``"record"``: compute and keep what a sweep needs, then drop it.  ``"gradient"``: value and
        both gradients, reclaiming included.  Baselines compute the function alone in both.
        ``"rows"``: value and both gradients for each of the numbers in the leaves.
    targets
        Rival's name -> the largest ratio (fastad's time / rival's time) that passes.
    ours
        The adapter of this project that is timed.
    """

    name: str
    make: Callable[[], Workload]
    mode: str
    targets: Mapping[str, float] = field(default_factory=dict)
    ours: str = "fastad"

    def run(self, peer: Peer, workload: Workload) -> Run:
        """Return the checked run of `workload` by `peer`.

        Raises
        ------
        Skip
            If the library does not do what the case asks.
        WrongAnswer
            If its value or gradients are wrong.
        """
        reason = peer.refusal(workload, self.mode)
        if reason:
            raise Skip(reason)
        run = getattr(peer, self.mode)(workload)
        # Twice: a second call must not see what the first one left behind.
        for _ in range(2):
            workload.check(run.read(run.call()))
        return run


_SCALAR_RECORD = {"floats": 2.0, "xad": 1 / 15, "PyTorch": 1 / 60}
_MULTIPLY_ADD_STEPS = 500  # 1000 operations
_MIXED_STEPS = 50          # 400; JAX compiles for half a minute at 1000

CASES = {
    case.name: case
    for case in (
        Case("record/multiply-add", lambda: workloads.multiply_add(_MULTIPLY_ADD_STEPS),
             "record", _SCALAR_RECORD),
        Case("record/mixed", lambda: workloads.mixed(_MIXED_STEPS), "record", _SCALAR_RECORD),
        Case("gradient/multiply-add", lambda: workloads.multiply_add(_MULTIPLY_ADD_STEPS),
             "gradient", {"floats": 3.0}),
        Case("gradient/mixed", lambda: workloads.mixed(_MIXED_STEPS), "gradient", {"floats": 3.0}),
        # One step: what a call of backward costs by itself shows here.  No target was set.
        Case("gradient/mixed-one-step", lambda: workloads.mixed(1), "gradient"),
        Case("arrays/3", lambda: workloads.seven_operations(3), "gradient", {"NumPy": 0.7}),
        Case("arrays/30", lambda: workloads.seven_operations(30), "gradient", {"NumPy": 0.7}),
        Case("arrays/1000000", lambda: workloads.seven_operations(10**6), "gradient",
             {"PyTorch": 0.7}),
        # the same ratio at both sizes: the cost is linear
        *(Case(f"assignments/{size}", lambda size=size: workloads.assignments(size), "gradient",
               {"NumPy": 2.0}) for size in (10**4, 10**5)),
        Case("matmul/3", lambda: workloads.matmul(3), "gradient", {"NumPy": 1.0}),
        Case("matmul/100", lambda: workloads.matmul(100), "gradient"),
        Case("matmul/500", lambda: workloads.matmul(500), "gradient"),
        *(Case(f"program/{name}", make, "gradient", targets, "fastad program")
          for name, make, targets in (
              ("multiply-add", lambda: workloads.multiply_add(_MULTIPLY_ADD_STEPS),
               {"JAX": 1.0, "casadi Function": 1.0}),
              ("mixed", lambda: workloads.mixed(_MIXED_STEPS),
               {"JAX": 1.0, "casadi Function": 1.0}),
              ("mixed-one-step", lambda: workloads.mixed(1), {}),
              ("arrays-3", lambda: workloads.seven_operations(3),
               {"JAX": 1 / 12, "PyTorch": 1 / 50}),
              ("arrays-30", lambda: workloads.seven_operations(30), {}),
              ("arrays-1000000", lambda: workloads.seven_operations(10**6),
               {"JAX": 0.9, "PyTorch": 0.3}),
              ("logistic", lambda: workloads.logistic(1000, 20), {}),
              ("softmax", lambda: workloads.softmax(1000, 20), {}),
          )),
        Case("program/map-multiply-add", lambda: workloads.multiply_add(_MULTIPLY_ADD_STEPS, 10**4),
             "rows", {"fastad program": 1 / 3, "JAX": 1.0}, "fastad map"),
        # libm's sin and cos are more than half of its time
        Case("program/map-mixed", lambda: workloads.mixed(_MIXED_STEPS, 10**4), "rows",
             {"fastad program": 1 / 2, "JAX": 1.0}, "fastad map"),
        # What a row costs by itself shows here, and libraries that take long run this one alone.
        Case("program/map-mixed-100", lambda: workloads.mixed(_MIXED_STEPS, 100), "rows",
             {"fastad program": 1.0, "JAX": 1.0, "autograd": 1 / 100}, "fastad map"),
    )
}


def pairs(*, peers: bool = True) -> list[tuple[Case, type[Peer]]]:
    """Return every case with every rival that can run it, installed or not.

    Parameters
    ----------
    peers
        Whether to include other libraries, or floats and NumPy only.
    """
    found = []
    for case in CASES.values():
        workload = case.make()
        own = tuple(peer for peer in OURS if Fastad.name != case.ours != peer.name)
        found += [(case, rival) for rival in own + BASELINES + (PEERS if peers else ())
                  if rival.refusal(workload, case.mode) is None]
    return found
