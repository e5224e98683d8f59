"""The fixtures of the tests of healing; a test module has them by its `pytest_plugins`, beside rig_fixtures.

Owns hosts of its own, since tests take their link `feed0` away. Must leave that as it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from links import HEALED, PORT, Feed, Link
from rig import Agent, Rig, joined_hosts


@pytest.fixture(scope="session")
def hosts() -> Iterator[Rig]:
    """Hosts whose links may go."""
    with joined_hosts() as made:
        yield made


@pytest.fixture
def link(hosts: Rig) -> Iterator[Link]:
    """feed0 as the rig makes it; whatever a test leaves behind, it is that for the next one."""
    made = Link(hosts)
    yield made
    hosts.tx.run("ip", "link", "del", "feed0")
    made.make()


@pytest.fixture
def process(hosts: Rig, agent: Callable[..., Agent]) -> Agent:
    """The one that `receiver` opens receivers in."""
    return agent(hosts.rx, script=HEALED)


@pytest.fixture
def receiver(process: Agent) -> Callable[..., Feed]:
    """Open receivers as `open_receiver` does, on PORT, in one process."""

    def open_one(group: str | list[str], interface: object = "feed0", **options: object) -> Feed:
        there = process.receiver(group, PORT, interface=interface, **options)
        return Feed(process, there._name)

    return open_one


@pytest.fixture
def send(hosts: Rig, agent: Callable[..., Agent]) -> Callable[..., None]:
    """Send from tx. A new process for a new link: an address is bound to the link that has it."""

    def send(family: tuple[str, str], *payloads: str) -> None:
        agent(hosts.tx).send(PORT, *((family[1], family[0], payload) for payload in payloads))

    return send
