"""Source-specific multicast at volume: of ten sources that were not listed nothing is delivered, of the listed one all.

Owns the addresses that tx has meanwhile, and takes them back. Must not pass where nothing unlisted could have come:
other receivers of the host get all of it.
"""

from __future__ import annotations

import sys

import pytest
from rig import RemoteReceiver
from streams import IPV4, PORT, RECEIVE_BUFFER, Family, complete, of_each_family, send_paced, size

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

COUNT = 10_000  # datagrams of each source, of which ten are not listed


def bound_to(family, joined: int) -> str | tuple[str, ...]:
    """One group, to which the receiver is bound, or several: then to any address."""
    return family.groups[:joined] if joined > 1 else family.groups[0]


@pytest.fixture
def addresses(rig, family):
    """Ten addresses of tx on feed0: those that it has, and more for this test."""
    has = family.sources
    network, bits = has[0].removesuffix("11"), 24 if family.version == 4 else 64
    more = [f"{network}{number}" for number in range(21, 31 - len(has))]
    rig.tx.ip(*(f"address add {each}/{bits} dev feed0{' nodad' * (family.version == 6)}" for each in more))
    yield [*has, *more]
    rig.tx.ip(*(f"address delete {each}/{bits} dev feed0" for each in more))


class Sources:
    """All that tx sends to a group: of a listed source and of ten others, two of these streams on another interface."""

    LISTED = 0

    def __init__(self, family: Family, listed: str, *unlisted: str) -> None:
        group = family.groups[0]
        self.streams = [[stream, source, group] for stream, source in enumerate([listed, *unlisted])]
        self.near = list(range(len(self.streams)))
        # The other interface's own source, and there the address of the listed one.
        self.far, self.forged = len(self.near), len(self.near) + 1
        self.streams += [[self.far, family.far, group], [self.forged, listed, group, "feed1"]]


def send_all(rig, agent, family, sources: Sources, count: int, feed: RemoteReceiver, own: list[int]) -> dict[int, dict]:
    """Send this many datagrams of each stream, and one: what came to the feed, which has to get its own streams.

    Receivers of another process get all of it: so all comes to this host.
    """
    beside, tx = agent(rig.rx, "numbered"), agent(rig.tx, "numbered")
    from_all, elsewhere = (
        beside.receiver(family.groups[0], PORT, interface=link, receive_buffer=RECEIVE_BUFFER)
        for link in ("feed0", "feed1")
    )
    receivers = {feed: own, from_all: sources.near, elsewhere: [sources.far, sources.forged]}
    send_paced(tx, sources.streams, count, receivers)
    # The first datagram after all of these shows that what was sent before it has been there, listed or not.
    to_feed, *told = send_paced(tx, sources.streams, 1, receivers, first=count)
    assert [each["streams"] for each in told] == [
        {str(stream): complete(count + 1) for stream in streams} for streams in list(receivers.values())[1:]
    ]
    assert feed.stats()["drops"] == 0
    return {int(stream): came for stream, came in to_feed["streams"].items()}


@of_each_family
@pytest.mark.parametrize("isolation", [True, False], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
def test_of_ten_unlisted_sources_nothing_is_delivered(multicast, rig, agent, family, addresses, joined, isolation):
    """100,000 datagrams of unlisted sources, one of them on another interface, where others have joined the group.

    A tenth without isolation, which keeps out just what comes in where the group was joined; and on stdlib.
    """
    count = size(multicast, COUNT if isolation else COUNT // 10)
    sources = Sources(family, *addresses)
    feed = agent(rig.rx, "numbered").receiver(
        bound_to(family, joined),
        PORT,
        interface="feed0",
        source=addresses[0],
        receive_buffer=RECEIVE_BUFFER,
        isolation=isolation,
    )
    came = send_all(rig, agent, family, sources, count, feed, [Sources.LISTED])
    assert came.pop(Sources.LISTED) == complete(count + 1)
    # Not isolated, an IPv4 socket has no filter for what comes in elsewhere; over IPv6 the filter is the group's.
    leaks = [] if isolation else [sources.far, sources.forged] if family.version == 4 else [sources.forged]
    assert sorted(came) == leaks
    assert all(each["came"] >= count for each in came.values())


@of_each_family
@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
def test_nor_where_the_receiver_itself_has_joined_the_group(multicast, rig, agent, family, addresses, joined):
    """As above, and the receiver has joined the group on the other interface, too: from the listed source."""
    count, listed = size(multicast, COUNT), addresses[0]
    sources = Sources(family, *addresses)
    feed = agent(rig.rx, "numbered").receiver(
        bound_to(family, joined),
        PORT,
        interface="feed0",
        source=listed,
        receive_buffer=RECEIVE_BUFFER,
    )
    feed.join(family.groups[0], interface="feed1", source=listed)
    own = [Sources.LISTED, sources.forged]
    came = send_all(rig, agent, family, sources, count, feed, own)
    assert came == dict.fromkeys(own, complete(count + 1))


@pytest.mark.parametrize("family", [IPV4], ids=str)  # over IPv6 a socket has one list for all interfaces
@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
def test_each_interface_has_its_own_list(multicast, rig, agent, family, addresses, joined):
    """As above, and the source that is listed there is another: each is none on the other's interface."""
    count, listed = size(multicast, COUNT), addresses[0]
    sources = Sources(family, *addresses)
    feed = agent(rig.rx, "numbered").receiver(
        bound_to(family, joined),
        PORT,
        interface="feed0",
        source=listed,
        receive_buffer=RECEIVE_BUFFER,
    )
    feed.join(family.groups[0], interface="feed1", source=family.far)
    own = [Sources.LISTED, sources.far]
    came = send_all(rig, agent, family, sources, count, feed, own)
    assert came == dict.fromkeys(own, complete(count + 1))
