"""Print how fastad compares, with targets and verdicts: ``python -m benches``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cases import Case, pairs
from .measure import import_time, in_fresh_process
from .peers import ADAPTERS, BASELINES, PEERS, Peer, Skip

MIB = 2**20
CHAIN = 10**7
PEER_CHAIN = 10**5


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return the quartiles: the middle one is the median."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def verdict(figure: float, target: float | None) -> str:
    """Judge `figure`, of which less is better; without a target there is nothing to judge."""
    if target is None:
        return ""
    return "met" if figure <= target else "MISSED"


def compare(case: Case, rival: type[Peer], *, processes: int, rounds: int, block: float) -> dict:
    """Measure one row of the table of ratios; rounds of all processes are pooled."""
    runs = [in_fresh_process("pair", case.name, rival.name, "--rounds", rounds, "--block", block)
            for _ in range(processes)]
    ours = [s for run in runs for s in run["ours"]]
    theirs = [s for run in runs for s in run["theirs"]]
    low, ratio, high = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    target = case.targets.get(rival.name)
    return {
        "case": case.name, "rival": rival.name, "how": runs[0]["how"],
        "operations": runs[0]["operations"],
        "fastad_seconds": spread(ours), "rival_seconds": spread(theirs),
        "ratio": ratio, "ratio_quartiles": [low, high],
        "target": target, "verdict": verdict(ratio, target),
    }


def chain_rows(nodes: int) -> Iterator[dict]:
    """Yield the rows about memory, all from one chain and what the tape says of itself."""
    found = in_fresh_process("memory", "fastad", nodes)
    per_node = found["stats"]["bytes_per_node"]
    yield _figure(f"MiB added by recording and sweeping a chain of {nodes:.0e} nodes",
                  found["added"] / MIB, 512.0 if nodes == CHAIN else None)
    # whole pages and the interpreter's own wanderings are in it: a tenth is what it can tell
    yield _figure("resident bytes per scalar binary node, adjoint included",
                  round(found["bytes_per_node"], 1), 26.0)
    yield _figure("the tape's own count of bytes per node, adjoint included", per_node, 26.0)
    yield _figure("nanoseconds per node of that chain, page faults included",
                  found["seconds"] / nodes * 1e9)


def program_rows() -> Iterator[dict]:
    """Yield the rows about what programs cost besides their replays."""
    found = in_fresh_process("programs")
    for name, key, unit, target in (
        ("call of a program that returns its one array, ns", "call", 1e9, 300.0),
        ("recording, compiling and running value and gradient of 5000 operations, ms", "5000", 1e3,
         5.0),
        ("the same of 10^6 operations, s", "1000000", 1.0, 1.0),
        ("one guard in a replay, ns", "guard", 1e9, 2.0),
        ("taking another recorded way, us", "flip", 1e6, 2.0),
        ("one value of a program of 8 operations in scipy.integrate.quad, from C, ns", "quad", 1e9,
         None),
        ("the same with a function of Python's math, ns", "quad of Python", 1e9, None),
        ("bytes of a replay of 10^6 operations over the least by lifetimes", "memory scalars", 1.0,
         1.2),
        ("the same of arrays of mixed sizes", "memory arrays", 1.0, 1.2),
    ):
        if key in found:
            yield _figure(name, found[key] * unit, target)


def example_rows() -> Iterator[dict]:
    """Yield the rows about the examples' fits: what programs take over what rivals take."""
    for case, found in in_fresh_process("examples").items():
        ours = found["programs"]
        for source, theirs in found.items():
            if source == "programs":
                continue
            target = 1 / 20 if "simulation" in case else 1 / 5
            over = f"programs over {source}"
            yield _figure(f"{case}, evaluations: {over}", ours["seconds"] / theirs["seconds"],
                          None if source == "ordinary code" else target)
            replays, theirs_later = (x["seconds"] - x["first"] for x in (ours, theirs))
            yield _figure(f"{case}, evaluations after the first: {over}", replays / theirs_later)
            yield _figure(f"{case}, time in all: {over}", ours["total"] / theirs["total"], 1.0)
        yield _figure(f"{case}, ms of evaluations with programs", ours["seconds"] * 1e3)
        if found["differences"]["astray"]:
            yield _figure(f"{case}, fits that differences lead astray",
                          found["differences"]["astray"])


def import_rows(module: str, target: float | None, repeats: int) -> Iterator[dict]:
    """Yield the rows about importing `module`, and about NumPy in the same processes if judged."""
    import_time(module)  # writes .pyc files, fills the disk cache
    times = [import_time(module) for _ in range(repeats)]
    low, middle, high = spread([1e3 * t["added"] for t in times])
    yield _figure(f"import {module} after NumPy, ms", middle, target, [low, high])
    if target is not None:
        low, middle, high = spread([1e3 * t["numpy"] for t in times])
        yield _figure("import numpy in the same processes, ms", middle, None, [low, high])


def _figure(name: str, value: float, target: float | None = None,
            quartiles: list[float] | None = None) -> dict:
    return {"figure": name, "value": value, "quartiles": quartiles, "target": target,
            "verdict": verdict(value, target)}


def environment() -> dict[str, Any]:
    """Return versions, processor and load, for the heading and the JSON file."""
    adapters = [ADAPTERS["fastad"], *BASELINES, *PEERS]
    return {
        "versions": {a.name: a.version() for a in adapters if a.installed()},
        "absent": [a.name for a in adapters if not a.installed()],
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": 1,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                platform.machine())


def _time(seconds: float) -> str:
    for unit, size in (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _limit(target: float | None) -> str:
    if target is None:
        return ""
    return f"<= {target:g}" if target >= 0.1 else f"<= 1/{1 / target:.0f}"


_SCALAR = ("record", "gradient", "program/m")


def _print_ratio(row: dict) -> None:
    per = row["operations"] if row["case"].startswith(_SCALAR) else 1
    low, high = row["ratio_quartiles"]
    print(f"{row['case']:24}{row['rival']:17}{_time(row['fastad_seconds'][1] / per):>9}"
          f"{_time(row['rival_seconds'][1] / per):>9}{row['ratio']:>9.3g}"
          f"  {f'{low:.3g}..{high:.3g}':18}{_limit(row['target']):8}{row['verdict']:8}{row['how']}",
          flush=True)


def _print_figure(row: dict) -> None:
    low_high = "{:.4g}..{:.4g}".format(*row["quartiles"]) if row["quartiles"] else ""
    print(f"{row['figure']:75}{row['value']:>8.4g}  {low_high:18}{_limit(row['target']):8}"
          f"{row['verdict']}", flush=True)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print the table, write the JSON file; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="floats and NumPy only, one process per row: under a minute")
    parser.add_argument("--json", metavar="PATH", help="write every figure there")
    parser.add_argument("--only", metavar="TEXT", default="",
                        help="only cases whose name contains TEXT, such as record or arrays/3")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args()

    about = environment()
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(f"{about['processor']}, {about['cpus']} CPUs, one thread each; load {about['load']}")
    for name in () if options.quick else about["absent"]:
        print(f"skipped: {name} is not installed")
    print("\nA ratio is fastad's time over the rival's, the median of rounds side by side;"
          "\n.. are its quartiles.  Scalar cases: time per operation.\n")
    print(f"{'case':24}{'rival':17}{'fastad':>9}{'rival':>9}{'ratio':>9}  {'quartiles':18}"
          f"{'target':8}{'verdict':8}rival's idiom")

    ratios: list[dict] = []
    figures: list[dict] = []
    failures: list[str] = []
    chosen = [(case, rival) for case, rival in pairs(peers=not options.quick)
              if options.only in case.name and rival.installed()]
    for done, (case, rival) in enumerate(chosen):
        _progress(f"{done}/{len(chosen)} {case.name} against {rival.name}")
        # A verdict deserves several processes: where things lie in memory differs in each.
        processes = 3 if rival.name in case.targets and not options.quick else 1
        try:
            row = compare(case, rival, processes=processes, rounds=9 if options.quick else 15,
                          block=0.005 if options.quick else 0.01)
        except Skip as reason:
            print(f"skipped: {reason}")
        except RuntimeError as error:
            failures.append(str(error))
        else:
            ratios.append(row)
            _progress("")
            _print_ratio(row)

    print()
    if not options.only:
        figures += _memory_and_import(options.quick, failures)
    for failure in failures:
        print(f"\nFAILED: {failure}")
    if options.json:
        Path(options.json).write_text(json.dumps(
            {"environment": about, "ratios": ratios, "figures": figures, "failures": failures},
            indent=1) + "\n")
    missed = sum(row["verdict"] == "MISSED" for row in ratios + figures)
    judged = sum(bool(row["verdict"]) for row in ratios + figures)
    print(f"\n{judged - missed} of {judged} targets met, {len(failures)} measurements failed")
    return int(bool(failures) or (options.strict and missed > 0))


def _memory_and_import(quick: bool, failures: list[str]) -> list[dict]:
    rows: list[dict] = []

    def add(more: Any) -> None:
        for row in more:
            rows.append(row)
            _progress("")
            _print_figure(row)

    def peers_memory() -> Iterator[dict]:
        for peer in PEERS:
            # CasADi's Function holds no recorded nodes; JAX would need a minute to record these.
            if peer.installed() and peer.name not in ("casadi Function", "JAX"):
                found = in_fresh_process("memory", peer.name, PEER_CHAIN)
                yield _figure(f"resident bytes per node with {peer.name}", found["bytes_per_node"])

    def imports() -> Iterator[dict]:
        yield from import_rows("fastad", 30.0, 7 if quick else 21)
        for peer in () if quick else PEERS:
            if peer.installed() and peer.name != "casadi Function":
                yield from import_rows(peer.module, None, 5)

    measurements = [lambda: chain_rows(CHAIN), program_rows, imports]
    if not quick:
        measurements[2:2] = [example_rows, peers_memory]
    for what in measurements:
        try:
            add(what())
        except Skip as reason:
            print(f"skipped: {reason}")
        except (RuntimeError, OSError) as error:
            failures.append(str(error))
    return rows


if __name__ == "__main__":
    sys.exit(main())
