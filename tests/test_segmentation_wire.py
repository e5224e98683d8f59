"""Trains between hosts: what is on the link, what a path that is too narrow does, and a device's queue that is full.

Owns a rig of its own, since it changes MTU, offloads and queues. What is changed is put back after each test.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
import socket
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import Agent, Rig, joined_hosts, unavailable
from trains import IP_RECVERR, IPV6_RECVERR, SOL_UDP, UDP_SEGMENT, payloads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000
AGENT = Path(__file__).parent / "agents" / "wire.py"
DISCOVER_DO = 2  # IP_PMTUDISC_DO, IPV6_PMTUDISC_DO: what is longer than the path takes is refused, never fragmented


@dataclass(frozen=True)
class Family:
    name: str
    group: str
    own: str  # the address of lo
    most: int  # bytes in a datagram, and in a train
    header: int
    reports: tuple[int, int]
    discover: tuple[int, int]


FAMILIES = [
    Family("IPv4", "239.195.1.1", "127.0.0.1", 65_507, 28, (socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IP, 10)),
    Family("IPv6", "ff15::195:101", "::1", 65_527, 48, (socket.IPPROTO_IPV6, IPV6_RECVERR), (socket.IPPROTO_IPV6, 23)),
]


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="module")
def own_rig() -> Iterator[Rig]:
    with joined_hosts() as made:
        yield made


class Link:
    """The link feed0 from tx to rx, with an agent at each end, a sender and listeners."""

    def __init__(self, rig: Rig, tx: Agent, rx: Agent, family: Family) -> None:
        self.rig, self.tx, self.rx, self.family = rig, tx, rx, family
        self.opened = 0

    def sender(self, **options: object) -> Outlet:
        options = {"interface": "feed0", "ttl": 1} | options
        self.opened += 1
        self.tx.call("sender", name=self.opened, to=self.family.group, port=PORT, options=options)
        return Outlet(self.tx, self.opened)

    def listen(self, *, uncut: bool) -> Inlet:
        self.opened += 1
        self.rx.call("listen", name=self.opened, address=self.family.group, port=PORT, link="feed0", uncut=uncut)
        return Inlet(self.rx, self.opened)

    def watch(self) -> Inlet:
        self.opened += 1
        self.rx.call("watch", name=self.opened, link="feed0")
        return Inlet(self.rx, self.opened)

    def mtu(self, size: int) -> None:
        for host in (self.rig.tx, self.rig.rx):
            host.ip(f"link set feed0 mtu {size}")

    def software(self) -> None:
        """Have the kernel cut trains before it hands them to the device: so each datagram is on the link as it is."""
        self.rig.tx.ip("link set feed0 gso_max_segs 1")

    def queue(self, *how: str) -> None:
        """Put a queue before tx's device."""
        if shutil.which("tc") is None:
            unavailable("not found in PATH: tc (iproute2)")
        try:
            self.rig.tx.run("tc", "qdisc", "replace", "dev", "feed0", "root", *how)
        except RuntimeError as error:
            unavailable(f"this kernel has no such queue: {error}")

    def no_queue(self) -> None:
        with contextlib.suppress(RuntimeError):  # there is none
            self.rig.tx.run("tc", "qdisc", "del", "dev", "feed0", "root")

    def put_back(self) -> None:
        self.no_queue()
        self.mtu(1_500)
        self.rig.tx.ip("link set feed0 gso_max_segs 65535")


class Outlet:
    """A sender that an agent has opened."""

    def __init__(self, agent: Agent, name: int) -> None:
        self.agent, self.name = agent, name

    def option(self, where: tuple[int, int], value: int) -> None:
        self.agent.call("option", name=self.name, level=where[0], option=where[1], value=value)

    def send(self, lengths: list[int], seed: int = 0) -> tuple[list[int], int | None, str]:
        said = self.agent.call("send", name=self.name, lengths=lengths, seed=seed)
        return said["counts"], said["errno"], said["text"]

    def call(self, do: str) -> object:
        return self.agent.call(do, name=self.name)

    def end(self) -> None:
        self.call("end")


class Inlet:
    """What an agent listens to."""

    def __init__(self, agent: Agent, name: int) -> None:
        self.agent, self.name = agent, name

    def trains(self) -> list[list[list[int]]]:
        return self.agent.call("came", name=self.name)

    def datagrams(self) -> list[list[int]]:
        trains = self.trains()
        assert all(len(train) == 1 for train in trains)
        return list(itertools.chain(*trains))

    def seen(self) -> list[list[int]]:
        return self.agent.call("seen", name=self.name, port=PORT)


@pytest.fixture(scope="module")
def ends(own_rig, multicast) -> Iterator[list[Agent]]:
    with contextlib.ExitStack() as closing:
        agents = []
        for host in (own_rig.tx, own_rig.rx):
            agents.append(Agent(host, multicast, script=AGENT))
            closing.callback(agents[-1].close)
        yield agents


@pytest.fixture
def link(own_rig, ends, family) -> Iterator[Link]:
    made = Link(own_rig, *ends, family)
    yield made
    made.put_back()
    for agent in ends:
        agent.call("close")


def told(lengths: list[int], seed: int = 0) -> list[list[int]]:
    """What an agent tells of these datagrams."""
    return [[len(data), zlib.crc32(data)] for data in payloads(lengths, seed)]


def by_length(trains: list[list[list[int]]]) -> list[list[int]]:
    return [[length for length, _ in train] for train in trains]


# On the link -------------------------------------------------------------------------------------------------------


def test_every_datagram_is_on_the_link_by_itself_and_arrives_by_itself(link):
    link.software()
    watch, listen, tx = link.watch(), link.listen(uncut=False), link.sender()
    lengths = [200] * 70 + [100] + [0, 1, 1] + [1_400] * 50 + [37]
    assert tx.send(lengths) == ([len(lengths)], None, "")
    tx.end()
    assert watch.seen() == [[length, 0] for length in lengths]
    assert listen.datagrams() == told(lengths)


def test_a_device_that_can_gets_the_train_and_receivers_get_datagrams_all_the_same(link):
    watch, listen, tx = link.watch(), link.listen(uncut=False), link.sender()
    lengths = [200] * 70 + [100] + [0, 1, 1] + [1_400] * 50 + [37]
    assert tx.send(lengths) == ([len(lengths)], None, "")
    tx.end()
    seen = watch.seen()
    assert [200 * 64, 200] in seen
    assert sum(length for length, _ in seen) == sum(lengths)
    assert listen.datagrams() == told(lengths)


def test_switched_off_no_train_is_on_the_link(link):
    watch, tx = link.watch(), link.sender(segmentation=False)
    assert tx.send([200] * 70) == ([70], None, "")
    tx.end()
    assert watch.seen() == [[200, 0]] * 70


def test_a_device_without_checksums_gets_datagrams_or_the_kernel_makes_the_checksums(link):
    """Before Linux 6.11 the kernel refuses the train (EIO): everything arrives either way."""
    watch, listen, tx = link.watch(), link.listen(uncut=False), link.sender()
    link.tx.call("checksums", link="feed0", enabled=0)
    try:
        lengths = [200] * 70 + [1_000] * 3
        assert tx.send(lengths) == ([73], None, "")
        tx.end()
        assert watch.seen() == [[length, 0] for length in lengths]
        assert listen.datagrams() == told(lengths)
    finally:
        link.tx.call("checksums", link="feed0", enabled=1)


def test_the_limit_of_a_train_is_the_kernels(link, family):
    """On tx's own loopback interface, whose MTU is as large."""
    link.tx.call("listen", name="own", address=family.own, port=PORT, link="lo", uncut=True)
    for name in ("ours", "theirs"):
        link.tx.call("sender", name=name, to=family.own, port=PORT, options={})
    ours, theirs, own = Outlet(link.tx, "ours"), Outlet(link.tx, "theirs"), Inlet(link.tx, "own")
    third = (family.most + 2) // 3
    longest = [third, third, family.most - 2 * third]
    # The kernel's: of one buffer that it is to cut (the socket's own option, which the package leaves alone).
    theirs.option((SOL_UDP, UDP_SEGMENT), third)
    assert theirs.send([family.most]) == ([1], None, "")
    assert theirs.send([family.most + 1])[:2] == ([], errno.EMSGSIZE)
    ours.end()
    assert list(itertools.chain(*by_length(own.trains()))) == longest
    # Ours is the same: a byte more is not tried, or this length would be remembered as too long.
    assert ours.send(longest) == ([3], None, "")
    ours.end()
    assert list(itertools.chain(*own.trains())) == told(longest)
    longer = [third, third, longest[-1] + 1]
    for _ in range(2):
        assert ours.send(longer) == ([3], None, "")
        ours.end()
        assert by_length(own.trains()) == [longer[:2], longer[2:]]


# A path that is too narrow -----------------------------------------------------------------------------------------


def test_what_is_too_long_for_the_path_goes_alone_in_fragments_and_the_rest_in_trains(link, family):
    listen, tx = link.listen(uncut=True), link.sender()
    fits = 1_500 - family.header
    lengths = [fits] * 5 + [fits + 1] * 5 + [100] * 5 + [3_000] * 20 + [100] * 5
    assert tx.send(lengths) == ([len(lengths)], None, "")
    tx.end()
    trains = listen.trains()
    assert list(itertools.chain(*trains)) == told(lengths)
    assert by_length(trains)[:8] == [[fits] * 5, *[[fits + 1]] * 5, [100] * 5, [3_000]]
    # The path gets wider: but what was refused is not tried again, only what is shorter.
    link.mtu(9_000)
    lengths = [3_000] * 3 + [fits + 1] * 3 + [fits] * 3
    assert tx.send(lengths) == ([9], None, "")
    tx.end()
    assert by_length(listen.trains()) == [[3_000]] * 3 + [[fits + 1]] * 3 + [[fits] * 3]


def test_fragments_are_on_the_link_once(link, family):
    """A train that is refused leaves nothing behind."""
    watch, tx = link.watch(), link.sender()
    assert tx.send([100] * 3 + [2_000] * 3) == ([6], None, "")
    tx.end()
    seen = watch.seen()
    assert seen[0] == [300, 100]
    if family.name == "IPv4":
        assert len(seen) == 1 + 2 * 3
        assert sum(length for length, _ in seen[1:]) == 3 * (8 + 2_000)


def test_a_train_that_fails_amid_a_batch_is_counted_exactly_and_its_error_raised_by_the_next_call(link, family):
    listen, tx = link.listen(uncut=True), link.sender()
    tx.option(family.discover, DISCOVER_DO)
    lengths = [100] * 70 + [2_000] * 3
    counts, number, text = tx.send(lengths)
    assert (counts, number) == ([70], errno.EMSGSIZE)
    assert text.startswith(f"[Errno {errno.EMSGSIZE}] send_batch: ")
    assert tx.send([100] * 3, seed=70) == ([3], None, "")
    tx.end()
    trains = listen.trains()
    assert by_length(trains) == [[100] * 64, [100] * 6, [100] * 3]
    assert list(itertools.chain(*trains)) == told([100] * 73)


def test_an_error_that_is_none_of_the_train_is_raised_and_trains_go_on(link, family):
    """ECONNREFUSED: nobody was there for the datagram before."""
    link.tx.call("sender", name="ours", to=family.own, port=PORT, options={})
    ours = Outlet(link.tx, "ours")
    assert ours.send([100]) == ([1], None, "")
    assert ours.send([100] * 5)[:2] == ([], errno.ECONNREFUSED)
    link.tx.call("listen", name="own", address=family.own, port=PORT, link="lo", uncut=True)
    assert ours.send([100] * 5) == ([5], None, "")
    ours.end()
    assert by_length(Inlet(link.tx, "own").trains()) == [[100] * 5]


def test_trains_wait_for_room_in_a_small_send_buffer(link, family):
    """One train fills it: the kernel takes a part of the batch, and the rest when there is room again."""
    listen, tx = link.listen(uncut=False), link.sender()
    link.queue("tbf", "rate", "20mbit", "burst", "3000", "limit", "1000000")
    tx.option((socket.SOL_SOCKET, socket.SO_SNDBUF), 1)
    lengths = [1_000] * 40 + [500, 300] * 20 + [1_000] * 40
    assert tx.send(lengths) == ([len(lengths)], None, "")
    tx.end()
    assert listen.datagrams() == told(lengths)


# A device's queue that is full -------------------------------------------------------------------------------------

NARROW = ("tbf", "rate", "20mbit", "burst", "3000", "limit", "6000")
STUCK = ("tbf", "rate", "100bit", "burst", "1600", "limit", "4000")  # one datagram goes, the next one after 40 s


@pytest.mark.parametrize("queued_errors", [False, True], ids=["", "with a message on the error queue"])
def test_all_that_counts_as_sent_arrives_once_and_in_order_where_the_kernel_tells_of_a_full_queue(
    link, family, queued_errors
):
    listen, tx = link.listen(uncut=False), link.sender()
    tx.option(family.reports, 1)
    if queued_errors:  # poll then says at any time that there is an error: it must not be taken for that of a send
        tx.option(family.discover, DISCOVER_DO)
        assert tx.send([3_000])[:2] == ([], errno.EMSGSIZE)
    link.queue(*NARROW)
    before = link.tx.call("refusals")
    lengths = [1_000] * 70 + [500, 0, 1_200] * 15 + ([] if queued_errors else [3_000] * 5)  # the last in fragments
    counts, number, _ = tx.send(lengths)
    assert (sum(counts), number) == (len(lengths), None)
    tx.end()
    assert listen.datagrams() == told(lengths)
    assert link.tx.call("refusals") > before  # else this test has tested nothing


def test_what_is_sent_again_reaches_receivers_on_this_host_again(link, family):
    """They are given their copy before the queue is asked. No promise: a cure has to show."""
    link.tx.call("listen", name="own", address=family.group, port=PORT, link="feed0", uncut=False)
    listen, tx = link.listen(uncut=False), link.sender()
    tx.option(family.reports, 1)
    link.queue(*NARROW)
    before = link.tx.call("refusals")
    assert tx.send([1_000] * 50) == ([50], None, "")
    again = link.tx.call("refusals") - before
    link.no_queue()
    tx.end()
    assert len(Inlet(link.tx, "own").datagrams()) == 50 + again > 50
    assert len(listen.datagrams()) <= 50


def test_where_the_kernel_does_not_tell_what_the_queue_drops_counts_as_sent(link, family):
    listen, tx = link.listen(uncut=False), link.sender()
    link.queue(*NARROW)
    assert tx.send([1_000] * 100) == ([100], None, "")
    link.no_queue()
    tx.end()
    assert len(listen.datagrams()) < 100


def test_a_queue_that_takes_nothing_for_a_second_is_given_up_and_named(link, family):
    tx = link.sender()
    tx.option(family.reports, 1)
    link.queue(*STUCK)
    counts, number, text = tx.send([1_000] * 10)
    assert 0 < sum(counts) < 10
    assert number == errno.ENOBUFS
    assert text.startswith(f"[Errno {errno.ENOBUFS}] send_batch: ")
    assert "the device's queue took nothing for a second" in text
    waits, waited_ns = tx.call("waited")
    assert 1 <= waits <= 2  # one for each call that a full queue stopped
    assert waited_ns >= 10**9
    link.no_queue()
    assert tx.send([1_000] * 10) == ([10], None, "")


@pytest.mark.timeout(60, method="thread")
def test_close_ends_the_wait_for_a_queue(link, family):
    link.tx.call("patience", seconds=50)
    tx = link.sender()
    tx.option(family.reports, 1)
    link.queue(*STUCK)
    assert tx.call("closed") == [errno.EBADF]


@pytest.mark.timeout(60, method="thread")
def test_what_a_handler_raises_ends_the_wait_for_a_queue(link, family):
    link.tx.call("patience", seconds=50)
    tx = link.sender()
    tx.option(family.reports, 1)
    link.queue(*STUCK)
    assert tx.call("interrupted") == ["interrupted"]
    link.no_queue()
    assert tx.send([1_000] * 10) == ([10], None, "")


def test_other_threads_run_during_the_wait_for_a_queue(link, family):
    link.tx.call("patience", seconds=0.2)
    tx = link.sender()
    tx.option(family.reports, 1)
    link.queue(*STUCK)
    said = tx.call("counted")
    assert said["ended"] == [errno.ENOBUFS]
    assert said["turns"] > 100
