"""The ledger at overload: what was sent was received or is counted as dropped, to the last datagram.

Owns the paths that it is sent on, in one host and from host to host. Must not pass where little was dropped: a batch is
received only when the kernel has dropped twice what was received so far.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from rig import DEADLINE
from streams import IPV4, IPV6, PORT, Family, size

pytest_plugins = ["rig_fixtures"]
pytestmark = [
    pytest.mark.alone,  # as fast as it goes, on CPUs of their own
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux"),
]

COUNT = 1_000_000
AT_ONCE = 100_000  # that a sender is told to send
SMALL = 20_000  # bytes of receive buffer: some fifty datagrams
TRAIN = 50  # datagrams; COUNT and AT_ONCE have no rest


@dataclass(frozen=True)
class Path:
    name: str
    host: str  # that it is sent from
    interface: str  # of rx
    ttl: int

    def __str__(self) -> str:
        return self.name

    def stream(self, number: int, family: Family, group: str) -> list[object]:
        if self.host == "tx":
            return [number, family.sources[0], group]
        return [number, "127.0.0.1" if self.interface == "lo" else family.own, group, self.interface, self.ttl]


of_each_path = pytest.mark.parametrize(
    ("path", "family"),
    [
        (Path("from host to host", "tx", "feed0", 1), IPV4),
        (Path("from host to host", "tx", "feed0", 1), IPV6),
        (Path("loopback interface", "rx", "lo", 0), IPV4),
        (Path("looped back", "rx", "feed0", 0), IPV6),  # Linux sends no IPv6 multicast on the loopback interface
    ],
    ids=str,
)


@pytest.fixture
def rx(rig, agent):
    return agent(rig.rx, "numbered")


@pytest.fixture
def sender(rig, agent):
    """Start an agent that sends on a path."""
    return lambda path: agent(getattr(rig, path.host), "numbered")


def dropped_on(host, interface: str) -> int:
    """What an interface dropped of what came in: the queue between a link's ends, softnet's, was full."""
    rows = [line.replace(":", " ").split() for line in host.read("/proc/net/dev").splitlines()[2:]]
    return next(int(row[4]) for row in rows if row[0] == interface)


# How it is sent, and whether each datagram carries the count of drops.
@pytest.mark.parametrize(("train", "stamped"), [(1, True), (TRAIN, False)], ids=["one by one", "in trains"])
@of_each_path
def test_at_overload_all_is_received_or_counted_as_dropped(multicast, rig, rx, sender, path, family, train, stamped):
    """1,000,000 datagrams, and less than half can be received; a fifth one by one within a host; on stdlib a tenth.

    A train is one system call and one way through the kernel, up to the socket: there its datagrams part.
    """
    count = size(multicast, COUNT // 5 if train == 1 and path.host == "rx" else COUNT)
    group, tx = family.groups[0], sender(path)
    rx.call("move", cpu=None)
    columns = ["drops"] if stamped else []
    feed = rx.receiver(group, PORT, interface=path.interface, receive_buffer=SMALL, columns=columns)
    before = dropped_on(rig.rx, path.interface)
    stream = path.stream(1, family, group)
    received = feed.begin("be_overrun", stamped=stamped)
    for first in range(0, count, AT_ONCE):
        now = min(AT_ONCE, count - first)
        tx.call("send_numbered", port=PORT, streams=[stream], first=first, count=now, train=train)
    rx.enough("be_overrun")
    received()
    # Nothing is queued any more, so this one arrives, and what is missing before it is known.
    tx.call("send_numbered", port=PORT, streams=[stream], first=count, count=1)
    tally = feed.call("tally", last={1: count}, seconds=DEADLINE / 2, stamped=stamped)
    came, stats, sent = tally["streams"]["1"], feed.stats(), count + 1
    elsewhere = train * (dropped_on(rig.rx, path.interface) - before)
    print(f"{sent} sent, {stats['datagrams']} received, {stats['drops']} dropped, {elsewhere} on the way")
    assert stats["datagrams"] + stats["drops"] + elsewhere == sent
    assert came == {"came": stats["datagrams"], "last": count, "missing": sent - stats["datagrams"], "not in order": 0}
    assert stats["drops"] > sent / 2  # which is what makes it an overload
    assert (stats["foreign"], stats["queued"]) == (0, 0)
    if stamped and not elsewhere:
        # One sender on one CPU: of each datagram the column said what had been dropped until then.
        assert (tally["drops"], tally["behind"]) == (stats["drops"], [0, 0])


@of_each_path
def test_at_overload_by_two_senders_at_once_too(multicast, rig, rx, sender, path, family):
    """200,000 datagrams of each, on the stdlib backend 20,000, each sender on a CPU of its own where there are two."""
    count, group = size(multicast, 200_000), family.groups[0]
    senders = [sender(path), sender(path)]
    senders[0].call("move", cpu=0)
    senders[1].call("move", cpu=-1)
    rx.call("move", cpu=None)
    feed = rx.receiver(group, PORT, interface=path.interface, receive_buffer=SMALL, columns="drops")
    before = dropped_on(rig.rx, path.interface)
    streams = [path.stream(number, family, group) for number in (1, 2)]
    received = feed.begin("be_overrun", stamped=True)
    sent = [
        tx.begin("send_numbered", port=PORT, streams=[stream], first=0, count=count)
        for tx, stream in zip(senders, streams, strict=True)
    ]
    for each in sent:
        each()
    rx.enough("be_overrun")
    received()
    senders[0].call("send_numbered", port=PORT, streams=streams, first=count, count=1)
    tally = feed.call("tally", last={1: count, 2: count}, seconds=DEADLINE / 2, stamped=True)
    stats = feed.stats()
    elsewhere = dropped_on(rig.rx, path.interface) - before
    print(
        f"{2 * count + 2} sent, {stats['datagrams']} received, {stats['drops']} dropped, {elsewhere} on the way;", tally
    )
    assert stats["datagrams"] + stats["drops"] + elsewhere == 2 * count + 2
    assert sum(each["came"] for each in tally["streams"].values()) == stats["datagrams"]
    assert sum(each["missing"] for each in tally["streams"].values()) == stats["drops"] + elsewhere
    assert all(each["not in order"] == 0 for each in tally["streams"].values())
    assert tally["drops"] == stats["drops"] > count


@of_each_path
def test_a_loss_at_the_end_shows_though_nothing_comes_after_it(rig, agent, rx, sender, path, family):
    """Twice 5,000 datagrams, and silence: the column of drops can't know of the last ones lost, `stats()` does."""
    count, group, tx = 5_000, family.groups[0], sender(path)
    feed = rx.receiver(group, PORT, interface=path.interface, receive_buffer=SMALL, columns="drops")
    # What reaches this one shows that all that was sent before it is there, or lost.
    witness = agent(rig.rx, "numbered").receiver(family.groups[1], PORT, interface=path.interface)
    stream, end = path.stream(1, family, group), path.stream(2, family, family.groups[1])
    lost = []
    for round_ in range(2):
        assert feed.stats()["queued"] == 0
        tx.call("send_numbered", port=PORT, streams=[stream], first=round_ * count, count=count)
        tx.call("send_numbered", port=PORT, streams=[end], first=round_, count=1)
        witness.call("tally", last={2: round_}, seconds=DEADLINE / 2)
        stats = feed.stats()
        assert stats["queued"] > 0
        lost.append(stats["drops"])
        tally = feed.call("drain", stamped=True)
        drained = feed.stats()
        assert (drained["queued"], drained["drops"]) == (0, lost[-1])
        assert drained["datagrams"] + lost[-1] == (round_ + 1) * count
        assert tally["streams"]["1"]["came"] == drained["datagrams"]
        assert tally["drops"] == [0, *lost][-2]
    assert 0 < lost[0] < lost[1]
