"""The fixtures of the tests of waiting in event loops; a test module has them by its `pytest_plugins`."""

from __future__ import annotations

import functools

import anyio
import pytest
from loops import ASYNCIO, LOOPS, runner


@pytest.fixture(scope="session", autouse=True)
def used_loops() -> None:
    """Use each once: what a library opens for good, as uvloop does a pipe for signals, no test has leaked then."""
    for name in LOOPS:
        runner(name)(functools.partial(anyio.sleep, 0))


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest):
    """Run a coroutine function in each of the loops, one after the other."""
    return runner(request.param)


@pytest.fixture(params=ASYNCIO)
def run_asyncio(request: pytest.FixtureRequest):
    """Run a coroutine function in each of the loops of asyncio's kind."""
    return runner(request.param)
