"""Fit a model on a local cluster, with data that no process holds whole, and lose a worker.

Logistic regression on 569 biopsies (breast cancer Wisconsin, a file inside scikit-learn), whose
rows are dealt out in shards. A compiled program of value and gradient is sent to the workers of a
``dask.distributed`` cluster: programs pickle as data. Each worker maps it over the rows of its
shards (``p.map``), the sums come back, and L-BFGS-B takes a step. Half-way one worker is
killed. Dask starts another and computes again what was lost, so the fit ends where a fit in one
process ends.

    pip install ".[examples,dask]"
    python examples/cluster_fit.py
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np
from _common import duration, parser, table
from logistic_regression import PENALTY, accuracy, read_data
from scipy.optimize import minimize

import fastad as ad

SHARDS = 6


def row_loss(row, parameters):
    """Return the logistic loss of one biopsy: its measurements, then its sign."""
    margin = row[-1] * (row[:-1] @ parameters[:-1] + parameters[-1])
    return ad.logaddexp(0.0, -margin)


def shard(k: int) -> np.ndarray:
    """Return the rows of a shard, measurements and sign; here they would be read from a disk."""
    x, sign, _, _ = read_data()
    return np.column_stack([x, sign])[k::SHARDS]


def summed(program, rows: np.ndarray, parameters: np.ndarray):
    """Return the sums over all rows of the loss and of its gradient in the parameters."""
    values, gradients = program.derived("value_and_grad", 1).map(
        rows, parameters, in_axes=(0, None)
    )
    return values.sum(), gradients.sum(axis=0)


def objective(sums, parameters: np.ndarray, count: int):
    """Return the penalized mean loss and its gradient from the sums of the shards."""
    value = sum(value for value, _ in sums) / count
    gradient = sum(gradient for _, gradient in sums) / count
    weights = np.append(parameters[:-1], 0.0)
    return value + 0.5 * PENALTY * (weights @ weights), gradient + PENALTY * weights


def fit(evaluate, size: int):
    """Minimize with L-BFGS-B from zero."""
    return minimize(
        evaluate, np.zeros(size), jac=True, method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit in one process and on the cluster; return 1 if the results disagree."""
    parser(__doc__).parse_args(arguments)
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        print("This example needs dask.distributed: pip install '.[examples,dask]'")
        return 1

    x, sign, x_test, sign_test = read_data()
    size = x.shape[1] + 1
    program = ad.compile(row_loss)
    whole = [shard(k) for k in range(SHARDS)]
    began = time.perf_counter()
    alone = fit(
        lambda b: objective([summed(program, rows, b) for rows in whole], b, len(x)), size
    )
    alone_time = time.perf_counter() - began

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        began = time.perf_counter()
        shards = client.map(shard, range(SHARDS), pure=False)
        sent = client.scatter(program, broadcast=True)
        killed: list[int] = []
        calls = 0

        def evaluate(parameters: np.ndarray):
            nonlocal calls
            calls += 1
            parts = client.map(
                summed, [sent] * SHARDS, shards, [parameters] * SHARDS, pure=False, retries=5
            )
            if calls == 10:     # in the middle of an evaluation, like any real crash
                pid = next(iter(client.run(os.getpid).values()))
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return objective(client.gather(parts), parameters, len(x))

        together = fit(evaluate, size)
        together_time = time.perf_counter() - began

    rows = [
        [name, f"{result.fun:.12f}", str(result.nfev),
         f"{accuracy(result.x[:-1], result.x[-1], x_test, sign_test):.2%}", duration(seconds)]
        for name, result, seconds in [
            ("one process", alone, alone_time), ("two workers, one killed", together, together_time)
        ]
    ]
    print(table(["", "loss", "evaluations", "right in test", "time"], rows))
    apart = float(np.max(np.abs(alone.x - together.x)))
    print(f"\nProcess {killed[0]} was killed. Largest difference of a weight: {apart:.1e}.")
    agree = apart < 1e-6
    print("The two agree." if agree else "The two do not agree.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
