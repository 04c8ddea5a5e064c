"""The measurements.  Each runs in a process of its own: ``python -m benches.measure WHAT ...``.

A measurement prints one line of JSON, which ``python -m benches`` collects.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import examples, workloads
from .cases import CASES
from .peers import ADAPTERS, Skip

ROOT = Path(__file__).resolve().parent.parent


def in_fresh_process(*arguments: object) -> dict[str, Any]:
    """Run one measurement of this module in a new process and return what it printed.

    Raises
    ------
    Skip
        If the rival is absent or does not do the case.
    RuntimeError
        If the process failed; the text is the end of what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benches.measure", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benches.measure {' '.join(map(str, arguments))} failed:\n"
                           + done.stderr[-2000:])
    result = json.loads(done.stdout.splitlines()[-1])
    if "skip" in result:
        raise Skip(result["skip"])
    return result


def one_thread() -> None:
    """Bind this process to one CPU, so that no library computes on a second one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def seconds_per_call(call: Callable[[], object], calls: int) -> float:
    """Return the mean time of `calls` calls, in seconds."""
    times = itertools.repeat(None, calls)
    start = time.perf_counter()
    for _ in times:
        call()
    return (time.perf_counter() - start) / calls


def calls_for(call: Callable[[], object], block: float) -> int:
    """Return how many calls last at least `block` seconds; warms `call` up on the way."""
    calls = 1
    while seconds_per_call(call, calls) * calls < block:
        calls *= 2
    return calls


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, block: float
) -> tuple[list[float], list[float]]:
    """Time two callables in turns, so that a noisy machine disturbs both alike.

    Returns
    -------
    tuple of list
        Seconds per call in each round; the i-th entries were measured side by side.
    """
    calls = calls_for(ours, block), calls_for(theirs, block)
    seconds: tuple[list[float], list[float]] = [], []
    for i in range(rounds):
        for which in ((0, 1), (1, 0))[i % 2]:
            seconds[which].append(seconds_per_call((ours, theirs)[which], calls[which]))
    return seconds


def pair(case_name: str, rival_name: str, rounds: int, block: float) -> dict[str, Any]:
    """Time fastad against one rival on one case; seconds per call in each round."""
    one_thread()
    case = CASES[case_name]
    workload = case.make()
    theirs = case.run(ADAPTERS[rival_name](), workload)
    ours = case.run(ADAPTERS[case.ours](), workload)
    # Collections stay on, as in real use, but need not walk what imports have left.
    gc.collect()
    gc.freeze()
    our_seconds, their_seconds = alternate(ours.call, theirs.call, rounds=rounds, block=block)
    return {"ours": our_seconds, "theirs": their_seconds, "how": theirs.how,
            "operations": workload.operations}


def _resident(field: str) -> int:
    """Return a field of this process's status, such as VmRSS or VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise Skip(f"the kernel does not tell {field}")


def memory(peer_name: str, nodes: int) -> dict[str, Any]:
    """Record and sweep a chain of `nodes` scalar binary operations.

    Returns
    -------
    dict
        ``added``: bytes of resident memory at the highest point, adjoints included, over those
        before; ``seconds`` for all; ``bytes_per_node``; and for fastad ``stats``, what its tape
        says of itself while the chain is alive.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        raise Skip("resident memory is read from Linux's /proc")
    peer = ADAPTERS[peer_name]()
    small, chain = workloads.multiply_add(500), workloads.multiply_add(nodes // 2)
    # What the first graph ever built allocates for good is not the chain's.
    warm = peer.gradient(small)
    small.check(warm.read(warm.call()))
    run = peer.gradient(chain)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # restarts VmHWM, the highest point
    before = _resident("VmRSS")
    start = time.perf_counter()
    answer = run.call()
    seconds = time.perf_counter() - start
    added = _resident("VmHWM") - before
    chain.check(run.read(answer))
    result = {"added": added, "seconds": seconds, "nodes": nodes, "bytes_per_node": added / nodes}
    if peer_name == "fastad":
        import fastad._core

        del answer
        recorded = peer.record(chain)
        alive = recorded.call()
        result["stats"] = dict(fastad._core.tape_stats())
        chain.check(recorded.read(alive))
    return result


def programs() -> dict[str, float]:
    """Measure what programs cost besides their replays; seconds.

    Returns
    -------
    dict
        ``call``: of a program that returns its one array; ``5000`` and ``1000000``: of the first
        value and gradient of a loop over so many operations, recording included; ``guard``: of one
        comparison in a replay; ``flip``: of a call that takes another recorded way, over one that
        does not; with SciPy ``quad`` and ``quad of Python``: of one value in an integral of a
        program as a C function, and of the same function in Python.
        What `program_memory` gives is there too.
    """
    import fastad as ad

    one_thread()
    found = {}
    x = np.linspace(0.0, 1.0, 3)
    empty = ad.compile(lambda x: x)
    empty(x)
    found["call"] = best(lambda: empty(x))
    for operations in (5000, 1000000):
        chain = workloads.multiply_add(operations // 2)
        times = []
        for _ in range(3):
            program = ad.compile(lambda a, x, chain=chain: chain.function(ad, a, x))
            derived = program.derived("value_and_grad", (0, 1))
            gc.collect()
            start = time.perf_counter()
            value, gradients = derived(*chain.leaves)
            times.append(time.perf_counter() - start)
            chain.check(workloads.Answer(value, *gradients))
        found[str(operations)] = min(times)

    def looks(a, b, times):
        for _ in range(times):
            a = a + b if a < 1e9 else a - b
        return a

    plain = ad.compile(lambda a, b: functools.reduce(lambda y, _: y + b, range(1000), a))
    guarded = ad.compile(lambda a, b: looks(a, b, 1000))
    assert plain(0.5, 1.0) == guarded(0.5, 1.0) == 1000.5
    found["guard"] = (best(lambda: guarded(0.5, 1.0)) - best(lambda: plain(0.5, 1.0))) / 1000
    branch = ad.compile(lambda a: a * 2.0 if a > 0.0 else a * 3.0)
    branch(1.0), branch(-1.0)
    assert (branch(1.0), branch(-1.0)) == (2.0, -3.0)
    found.update(program_memory())
    found["flip"] = best(lambda: (branch(1.0), branch(-1.0))) / 2 - best(lambda: branch(-1.0))
    if importlib.util.find_spec("scipy"):
        found |= integrals()
    return found


def integrals() -> dict[str, float]:
    """Time ``scipy.integrate.quad``, in seconds per value of the integrand."""
    from scipy.integrate import quad

    import fastad as ad

    def f(x):
        return math.exp(-x * x) * math.cos(3.0 * x) + x * x / (1.0 + x)

    program = ad.compile(lambda x: ad.exp(-x * x) * ad.cos(3.0 * x) + x * x / (1.0 + x))
    native = program.c_function(1.0).low_level_callable()
    assert abs(quad(native, 0.0, 50.0, limit=200)[0] - quad(f, 0.0, 50.0, limit=200)[0]) < 1e-9
    values = quad(f, 0.0, 50.0, limit=200, full_output=1)[2]["neval"]
    return {name: best(lambda g=g: quad(g, 0.0, 50.0, limit=200)) / values
            for name, g in (("quad", native), ("quad of Python", f))}


def program_memory() -> dict[str, float]:
    """Compare what programs hold in registers and arena with the least that lifetimes allow.

    Returns
    -------
    dict
        ``memory scalars``: for value and gradient of a loop of 10^6 operations; ``memory arrays``:
        of a function of arrays of mixed sizes.
    """
    import fastad as ad

    chain = workloads.multiply_add(500_000)
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-1.0, 1.0, (300, 70)), rng.uniform(-1.0, 1.0, 70)

    def sizes(x, y):
        total = ad.sum(y)
        for k in range(1, 40):
            part = ad.sin(x[: 7 * k] * y[k]) if k % 3 else x[k::k] * y
            row = ad.tanh(ad.mean(part, axis=0)) * y
            square = ad.outer(row, row[:k])
            total = total + ad.sum(square * square) + ad.sum(ad.exp(row) * y)
            y = row + y
        return total

    found = {}
    for name, function, arguments in (
        ("scalars", lambda a, x: chain.function(ad, a, x), chain.leaves), ("arrays", sizes, (x, y)),
    ):
        derived = ad.compile(function).derived("value_and_grad", (0, 1))
        derived(*arguments)
        ((plan,),) = derived.plans.values()
        figures = plan.describe()
        held = 8 * figures["registers"] + figures["arena_bytes"]
        found[f"memory {name}"] = held / figures["live_bytes"]
    return found


def bounds() -> dict[str, float]:
    """How many times as long value, gradient and the value's rounding bound take as without it."""
    import fastad as ad
    from fastad import trust

    def arrays(a):
        return (ad.tanh(a) * ad.exp(a) * a).sum()

    one_thread()
    found = {}
    chain, mixed = workloads.multiply_add(500), workloads.mixed(100)
    for name, function, args in (
            ("multiply-add", functools.partial(chain.function, ad), chain.leaves),
            ("mixed", functools.partial(mixed.function, ad), mixed.leaves),
            ("arrays-4", arrays, (np.linspace(0.0, 1.0, 4),)),
            ("arrays-100000", arrays, (np.linspace(0.0, 1.0, 100_000),))):
        program = ad.compile(lambda *args, function=function: function(*args))
        plain = program.derived("value_and_grad", tuple(range(len(args))))
        plain(*args)
        bounded, leaves = trust.bounded(program, args)
        ours, theirs = alternate(functools.partial(bounded, *leaves),
                                 functools.partial(plain, *args), rounds=15, block=0.01)
        found[name] = min(ours) / min(theirs)
    return found


def fits() -> dict[str, Any]:
    """Measure the examples' fits; see `examples.measure`."""
    one_thread()
    return examples.measure()


def best(call: Callable[[], object]) -> float:
    """Return the seconds of a call, the best of some blocks."""
    calls = calls_for(call, 0.01)
    return min(seconds_per_call(call, calls) for _ in range(15))


def import_time(module: str) -> dict[str, float]:
    """Time imports in a fresh interpreter.

    Returns
    -------
    dict
        ``numpy``: seconds of ``import numpy``; ``added``: of ``import module`` right after it.
    """
    code = ("import time; t = [time.perf_counter()]; import numpy; t.append(time.perf_counter()); "
            f"import {module}; t.append(time.perf_counter()); print(t[1] - t[0], t[2] - t[1])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(("numpy", "added"), map(float, done.stdout.split()), strict=True))


def main() -> None:
    """Run the one measurement that the command line names and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benches.measure", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("pair", help="time fastad against a rival")
    command.add_argument("case_name", choices=CASES)
    command.add_argument("rival_name", choices=ADAPTERS)
    command.add_argument("--rounds", type=int, default=15)
    command.add_argument("--block", type=float, default=0.01, help="seconds per block of calls")
    command = commands.add_parser("memory", help="record and sweep a chain")
    command.add_argument("peer_name", choices=ADAPTERS)
    command.add_argument("nodes", type=int)
    commands.add_parser("programs", help="what programs cost besides replays")
    commands.add_parser("bounds", help="what bounds of rounding errors cost")
    commands.add_parser("examples", help="the examples' fits, by source of derivatives")
    arguments = vars(parser.parse_args())
    measurement = {"pair": pair, "memory": memory, "programs": programs,
                   "bounds": bounds, "examples": fits}[arguments.pop("what")]
    try:
        result = measurement(**arguments)
    except Skip as reason:
        result = {"skip": str(reason)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
