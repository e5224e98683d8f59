"""The fixtures of the tests of membership reports; a test module has them by its `pytest_plugins`, beside rig_fixtures.

Owns who joins, rx, and where that is captured, tx. Must not let two tests have the same group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from capture import Capture
from protocols import IGMP, MLD, TO_EXCLUDE, Protocol
from rig import Agent

PORT = 40_000
ROBUSTNESS = 2  # unless a query says otherwise: net.ipv4.igmp_qrv of a new host, and net.ipv6.mld_qrv of the machine


@pytest.fixture(params=[IGMP, MLD], ids=str)
def protocol(request) -> Protocol:
    return request.param


@pytest.fixture
def group(protocol) -> str:
    """A group that no other test uses."""
    return protocol.new_group()


@pytest.fixture
def rx(rig, agent) -> Agent:
    return agent(rig.rx)


@pytest.fixture
def wire(rig) -> Iterator[Capture]:
    """What comes in at tx on feed0, since before the test began."""
    with Capture(rig.tx, "feed0") as capture:
        yield capture


@pytest.fixture
def sysctl(rig) -> Iterator[Callable[[str, object], None]]:
    """Set a sysctl of rx until the test has ended."""
    with contextlib.ExitStack() as undo:

        def put(path: str, value: object) -> None:
            undo.callback(rig.rx.write, path, rig.rx.read(path))
            rig.rx.write(path, str(value))

        yield put


@pytest.fixture
def nothing_more(rx, wire, protocol) -> Callable[..., None]:
    """Check that just this was reported of a group, and that nothing more is due, not even to be repeated.

    It is given the group, what `Capture.expect` takes, and where to look, if that is not `wire`.
    """

    def check(group: str, expected: dict[str, set[str]], where: Capture = wire) -> None:
        # A change goes into the next so many reports that the host sends (RFC 3376, 5.1; RFC 3810, 6.1). So when those
        # have told of this join, they have of all before it.
        marker = protocol.new_group()
        last = protocol.record(TO_EXCLUDE, marker)
        rx.receiver(marker, PORT, interface="feed0")
        where.until(lambda _: where.records.count(last) >= ROBUSTNESS)
        where.expect(group, expected)

    return check
