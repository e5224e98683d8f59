"""The fixtures of tests/rig.py; a test module has them by `pytest_plugins = ["rig_fixtures"]`.

Owns how long hosts and agents live. Must not skip but through `unavailable`, which is never silent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rig import AGENT, Agent, Host, Rig, joined_hosts


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """The hosts, made once; a skip that says why, or with CI set a failure, where they can't be."""
    with joined_hosts() as made:
        yield made


@pytest.fixture
def agent(multicast: ModuleType) -> Iterator[Callable[..., Agent]]:
    """Start agents in hosts with the backend under test; they have to have ended well after the test."""
    with contextlib.ExitStack() as closing:

        def start(host: Host, *more: str, script: Path = AGENT) -> Agent:
            started = Agent(host, multicast, *more, script=script)
            closing.callback(started.close)
            return started

        yield start
