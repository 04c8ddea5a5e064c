"""Keeps pytest's own process on one thread; the variables are set by ``benches/__init__``."""

import pytest

from .measure import one_thread


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    one_thread()
