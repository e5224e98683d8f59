"""Cross-talk at volume: two groups on one port, and a receiver of one never gets a datagram of the other.

Owns the two feeds and what is mixed in with them. Must not pass where nothing foreign could have come: each proof runs
with isolation=False, too, and then all of it has to come.
"""

from __future__ import annotations

import sys

import pytest
from streams import PORT, RECEIVE_BUFFER, complete, of_each_family, send_paced, size

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

COUNT = 100_000  # datagrams of each stream

isolated_or_not = pytest.mark.parametrize("isolation", [True, False], ids=["isolated", "not isolated"])


@pytest.fixture
def tx(rig, agent):
    return agent(rig.tx, "numbered")


@of_each_family
@isolated_or_not
@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "two processes"])
def test_two_groups_on_one_port_stay_apart(multicast, rig, agent, tx, family, isolation, processes):
    """100,000 datagrams of each group; foreign ones delivered: none. A tenth without isolation, and on stdlib."""
    count = size(multicast, COUNT if isolation else COUNT // 10)
    agents = [agent(rig.rx, "numbered") for _ in range(processes)]
    groups = family.groups[:2]
    receivers = {
        process.receiver(group, PORT, interface="feed0", receive_buffer=RECEIVE_BUFFER, isolation=isolation): [stream]
        for stream, (process, group) in enumerate(zip((agents[0], agents[-1]), groups, strict=True))
    }
    streams = [[stream, family.sources[0], group] for stream, group in enumerate(groups)]
    send_paced(tx, streams, count, receivers)
    # The first datagram after all of these shows that what was sent before it has been there, foreign or not.
    tallies = send_paced(tx, streams, 1, receivers, first=count)
    for own, (receiver, tally) in enumerate(zip(receivers, tallies, strict=True)):
        came, stats = tally["streams"], receiver.stats()
        foreign = came.pop(str(1 - own), {"came": 0})["came"]
        assert came == {str(own): complete(count + 1)}
        assert foreign == 0 if isolation else foreign >= count
        assert (stats["drops"], stats["datagrams"]) == (0, count + 1 + foreign)


@of_each_family
@isolated_or_not
@pytest.mark.parametrize("joined", [1, 2], ids=["bound to its group", "two groups, so bound to any"])
def test_unicast_and_other_groups_stay_out(multicast, rig, agent, tx, family, joined, isolation):
    """100,000 datagrams of a foreign group and 100,000 of unicast, delivered: none. A tenth as above."""
    count = size(multicast, COUNT if isolation else COUNT // 10)
    own, foreign = family.groups[:joined], family.groups[3]
    rx = agent(rig.rx, "numbered")
    feed = rx.receiver(
        list(own) if joined > 1 else own[0], PORT, interface="feed0", receive_buffer=RECEIVE_BUFFER, isolation=isolation
    )
    *mine, group, unicast = range(joined + 2)
    streams = [[stream, family.sources[0], to] for stream, to in enumerate([*own, foreign, family.own])]
    # These have the host take the foreign group, and unicast where the feed's socket is bound to its group.
    beside = agent(rig.rx, "numbered")
    others = {beside.receiver(foreign, PORT, interface="feed0", receive_buffer=RECEIVE_BUFFER): [group]}
    if isolation and joined == 1:
        others[beside.plain(family.own, PORT, receive_buffer=RECEIVE_BUFFER)] = [unicast]
    send_paced(tx, streams, count, {feed: mine, **others})
    tally, *told = send_paced(tx, streams, 1, {feed: mine, **others}, first=count)
    came, stats = tally["streams"], feed.stats()
    assert [each["streams"] for each in told] == [{str(stream): complete(count + 1)} for [stream] in others.values()]
    assert {stream: came.pop(str(stream)) for stream in mine} == dict.fromkeys(mine, complete(count + 1))
    delivered = {int(stream): each["came"] for stream, each in came.items()}
    assert delivered == {} if isolation else min(delivered[group], delivered[unicast]) >= count
    # Unicast comes as far as a socket that is bound to any address, and there it is counted.
    assert stats["foreign"] >= count if isolation and joined == 2 else stats["foreign"] == 0
    assert (stats["drops"], stats["datagrams"]) == (0, joined * (count + 1) + sum(delivered.values()))
