"""The cases under pytest-benchmark: ``pytest benches/ --benchmark-only``.

Groups are cases; in a group stand fastad and every rival.  All share this process, so for ratios
to quote use ``python -m benches``, which gives each pair a fresh one.
"""

import pytest

from .cases import CASES, pairs
from .measure import import_time, in_fresh_process
from .peers import ADAPTERS, PEERS, Skip

# fastad stands in each group once.
TIMED = [(case, ADAPTERS[case.ours]) for case in CASES.values()] + pairs()


@pytest.mark.parametrize(
    ("case", "peer"), TIMED, ids=[f"{case.name}-{peer.name}" for case, peer in TIMED]
)
def test_time_of_a_call(benchmark, case, peer):
    benchmark.group = case.name
    workload = case.make()
    try:
        run = case.run(peer(), workload)
    except Skip as reason:
        pytest.skip(str(reason))
    benchmark.extra_info.update(how=run.how, operations=workload.operations,
                                version=peer.version(), targets=dict(case.targets))
    benchmark(run.call)


def test_time_and_memory_of_a_chain_of_ten_million_nodes(benchmark):
    benchmark.group = "chain of 10^7 nodes, process start included"
    try:
        found = benchmark.pedantic(in_fresh_process, ("memory", "fastad", 10**7), rounds=1)
    except Skip as reason:
        pytest.skip(str(reason))
    benchmark.extra_info.update(found)


@pytest.mark.parametrize("module", ["fastad", *dict.fromkeys(peer.module for peer in PEERS)])
def test_time_of_an_import(benchmark, module):
    benchmark.group = "import, process start and NumPy included"
    if not any(peer.module == module and peer.installed() for peer in ADAPTERS.values()):
        pytest.skip(f"{module} is not installed")
    found = benchmark.pedantic(import_time, (module,), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(found)
