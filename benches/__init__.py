"""Benchmarks of fastad against Python floats, NumPy and other libraries.

``python -m benches`` prints the table of ratios; ``pytest benches/ --benchmark-only`` times the
same cases with pytest-benchmark.
"""

import os

# BLAS, OpenMP and XLA read these once, when they load: so before anything imports NumPy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
              "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
