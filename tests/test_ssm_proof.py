"""Source-specific multicast at volume: of ten sources that were not listed nothing is delivered, of the listed one all.

Owns the addresses that tx has meanwhile, and takes them back. Must not pass where nothing unlisted could have come:
other receivers of the host get all of it.
"""

from __future__ import annotations

import sys

import pytest
from streams import PORT, RECEIVE_BUFFER, complete, of_each_family, send_paced, size

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

COUNT = 10_000  # datagrams of each source, of which ten are not listed


@pytest.fixture
def sources(rig, family):
    """Ten addresses of tx on feed0: those that it has, and more for this test."""
    has = family.sources
    network, bits = has[0].removesuffix("11"), 24 if family.version == 4 else 64
    more = [f"{network}{number}" for number in range(21, 31 - len(has))]
    rig.tx.ip(*(f"address add {each}/{bits} dev feed0{' nodad' * (family.version == 6)}" for each in more))
    yield [*has, *more]
    rig.tx.ip(*(f"address delete {each}/{bits} dev feed0" for each in more))


@of_each_family
@pytest.mark.parametrize("isolation", [True, False], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
def test_of_ten_unlisted_sources_nothing_is_delivered(multicast, rig, agent, family, sources, joined, isolation):
    """100,000 datagrams of unlisted sources, one of them on another interface, where others have joined the group.

    A tenth without isolation, which keeps out just what comes in where the group was joined; and on stdlib.
    """
    count = size(multicast, COUNT if isolation else COUNT // 10)
    listed, *unlisted = sources
    groups, group = family.groups[:joined], family.groups[0]
    options = {"receive_buffer": RECEIVE_BUFFER}
    rx, beside, tx = agent(rig.rx, "numbered"), agent(rig.rx, "numbered"), agent(rig.tx, "numbered")
    feed = rx.receiver(groups, PORT, interface="feed0", source=listed, isolation=isolation, **options)
    from_all = beside.receiver(group, PORT, interface="feed0", **options)
    elsewhere = beside.receiver(group, PORT, interface="feed1", **options)
    streams = [[stream, source, group] for stream, source in enumerate([listed, *unlisted])]
    far, forged = len(streams), len(streams) + 1
    # The second interface's own source, and the listed source's address there.
    streams += [[far, family.far, group], [forged, listed, group, "feed1"]]
    near = list(range(far))
    receivers = {feed: [0], from_all: near, elsewhere: [far, forged]}
    send_paced(tx, streams, count, receivers)
    # The first datagram after all of these shows that what was sent before it has been there, listed or not.
    of_listed, of_all, of_elsewhere = send_paced(tx, streams, 1, receivers, first=count)
    assert of_all["streams"] == {str(stream): complete(count + 1) for stream in near}
    assert of_elsewhere["streams"] == {str(stream): complete(count + 1) for stream in (far, forged)}
    came, stats = of_listed["streams"], feed.stats()
    assert came.pop("0") == complete(count + 1)
    # Not isolated, an IPv4 socket has no filter for what comes in elsewhere; over IPv6 the filter is the group's.
    leaks = [] if isolation else [far, forged] if family.version == 4 else [forged]
    assert sorted(map(int, came)) == leaks
    assert all(each["came"] >= count for each in came.values())
    assert stats["drops"] == 0
