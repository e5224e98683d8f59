"""Columns between hosts, over IPv4 and IPv6: who sent it, on which of two links it came in, how far and how marked."""

from __future__ import annotations

import sys

import pytest
from rig import LINKS

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_100
COLUMNS = ["source", "destination", "interface", "ttl", "tos", "drops"]
FEED0, FEED1 = (LINKS[link]["rx"][0] for link in ("feed0", "feed1"))

# Of each family: a group, tx's addresses on both links, and the options for TTL and TOS of what is multicast.
CASES = {
    "IPv4": ("239.195.9.1", ("192.0.2.11", "192.0.2.12", "198.51.100.11"), (0, 33), (0, 1)),
    "IPv6": ("ff15::195:9:1", ("2001:db8::11", "2001:db8::12", "2001:db8:0:1::11"), (41, 18), (41, 67)),
}


@pytest.mark.parametrize("family", CASES)
def test_each_datagram_is_told_apart(rig, agent, family):
    group, (first, second, far), hops, mark = CASES[family]
    rx, tx = agent(rig.rx), agent(rig.tx)
    feed = rx.receiver(group, PORT, interface="feed0", columns=COLUMNS, timestamps="software")
    feed.join(group, interface="feed1")
    sent = [(first, FEED0, 1, 0), (second, FEED0, 7, 0xB8), (far, FEED1, 255, 0x03)]
    for source, _, ttl, tos in sent:
        tx.option(PORT, source, group, *hops, ttl)
        tx.option(PORT, source, group, *mark, tos)
    tx.send(PORT, *((source, group, source) for source, *_ in sent))
    told = feed.told(len(sent))
    for (source, index, ttl, tos), datagram in zip(sent, sorted(told, key=lambda each: each["ttl"]), strict=True):
        assert datagram["payload"] == datagram["source"][0] == datagram["source_address"] == source
        assert datagram["source"][1] == datagram["source_port"]
        assert len(datagram["source"]) == (2 if family == "IPv4" else 4)
        assert datagram["destination"] == datagram["destination_address"] == group
        assert (datagram["interface"], datagram["ttl"], datagram["tos"]) == (index, ttl, tos)
        assert datagram["timestamp_kind"] == "software"
        assert 0 <= datagram["age"] < 60e9


def test_a_link_local_source_comes_with_its_interface(rig, agent):
    rx, tx = agent(rig.rx), agent(rig.tx)
    feed = rx.receiver("ff12::195:9", PORT, interface="feed1", columns=COLUMNS, timestamps="software")
    tx.send(PORT, ("fe80::11%feed1", "ff12::195:9", "x"))
    (datagram,) = feed.told(1)
    assert datagram["source"] == ["fe80::11", datagram["source_port"], 0, FEED1]
    assert datagram["destination"] == "ff12::195:9"


def test_the_interface_of_what_a_host_sends_itself_is_the_one_it_is_sent_through(rig, agent):
    """A looped-back copy never was on the link; it is of the link's group all the same (RFC 1112, 6.1)."""
    both = agent(rig.rx)
    for group, own in (("239.195.9.2", "192.0.2.1"), ("ff15::195:9:2", "2001:db8::1")):
        feed = both.receiver(group, PORT, interface="feed0", columns=COLUMNS, timestamps="software")
        both.send(PORT, (own, group, "own"))
        (datagram,) = feed.told(1)
        assert (datagram["interface"], datagram["source_address"]) == (FEED0, own)
