"""The fixtures of the tests of waiting in event loops; a test module has them by its `pytest_plugins`."""

from __future__ import annotations

import pytest
from loops import ASYNCIO, LOOPS, runner


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest):
    """Run a coroutine function in each of the loops, one after the other."""
    return runner(request.param)


@pytest.fixture(params=ASYNCIO)
def run_asyncio(request: pytest.FixtureRequest):
    """Run a coroutine function in each of the loops of asyncio's kind."""
    return runner(request.param)
