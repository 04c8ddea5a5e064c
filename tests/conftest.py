"""What several test files need."""

import gc
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import fastad as ad
from fastad import _core


def pytest_collection_finish():
    """Take what the imports made out of the collector's sight: many tests call it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fresh_python():
    """Run code in a Python of its own, with a tape of its own; give back what it prints."""

    def run(code, timeout=300):
        here = str(pathlib.Path(ad.__file__).parents[1])
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def with_failing_allocations(call, before=lambda: None, after=lambda failures: None):
    """Make the 1st, 2nd, ... allocation of ``call()`` fail until one call goes through.

    Each failure must be a MemoryError.  `before` runs ahead of each call, `after` behind each
    failure.  Returns the result of the call that went through, and the number of failures.
    """
    failures = 0
    while True:
        ad.release_memory()
        before()
        _core._fail_allocation(failures)
        try:
            return call(), failures
        except MemoryError:
            failures += 1
        finally:
            _core._fail_allocation(-1)
        after(failures)


@pytest.fixture
def tape_state():
    """What the tape holds now, after collecting what nobody can reach any more."""

    def state():
        gc.collect()
        _core.compact()
        ad.release_memory()
        stats = _core.tape_stats()
        return {k: stats[k] for k in ("nodes", "array_bytes", "large_bytes", "sweeping")}

    return state


@pytest.fixture
def tape_unchanged(tape_state):
    """Fail the test when it leaves anything on the tape."""
    before = tape_state()
    yield
    assert tape_state() == before
