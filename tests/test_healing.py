"""Memberships come back with their interface: deleted, moved, renamed, and whatever the kernel had time to say.

Owns the rig it pulls links out of. `handle` is called where a test says so, after the kernel has told: nothing here
waits for what may come.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rig import LINKS, Rig, Unavailable, unavailable

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")

PORT = 41_000
WATCHER = Path(__file__).parent / "agents" / "watcher.py"
# Group, and where it comes from.
IPV4, IPV6 = ("239.195.7.1", "192.0.2.11"), ("ff15::195:7:1", "2001:db8::11")
RX = 10  # the index of rx's feed0


@pytest.fixture(scope="module")
def rig():
    """Hosts of this module's own: it takes their links away."""
    try:
        made = Rig()
    except Unavailable as error:
        unavailable(error)
    with made:
        yield made


class Link:
    """The link `feed0` between tx and rx, which can be deleted and made again."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def delete(self) -> None:
        self.rig.tx.ip("link del feed0")

    def make(self, index: int = RX, name: str = "feed0", *, up: bool = True) -> None:
        """Make it; what is sent on it arrives from then on, unless rx's end is to stay down."""
        holder = self.rig.rx.holder.pid
        self.rig.tx.ip(f"link add feed0 index 20 type veth peer name {name} index {index} netns {holder}")
        for host, link in ((self.rig.tx, "feed0"), (self.rig.rx, name)):
            host.ip(f"link set {link} addrgenmode none")
        self.rig.tx.ip("link set feed0 up")
        if up:
            self.set_up(name)

    def set_up(self, name: str = "feed0") -> None:
        self.rig.rx.ip(f"link set {name} up")
        self.rig.rx.wait_until_up(name)
        self.rig.tx.wait_until_up("feed0")
        for host, link in (("tx", "feed0"), ("rx", name)):
            lines = (
                f"address replace {address} dev {link}{' nodad' if ':' in address else ''}"
                for address in LINKS["feed0"][host][1]
            )
            getattr(self.rig, host).ip(*lines)

    def again(self, index: int = RX) -> None:
        self.delete()
        self.make(index)


@pytest.fixture
def link(rig):
    """feed0 as the rig makes it; whatever a test leaves behind, it is that for the next one."""
    made = Link(rig)
    yield made
    rig.tx.run("ip", "link", "del", "feed0")
    made.make()


class Feed:
    """A watched socket in an agent."""

    def __init__(self, agent, name, **options) -> None:
        self.agent, self.name = agent, name
        self.do("open", port=PORT, **options)

    def do(self, command: str, **arguments):
        return self.agent.call(command, name=self.name, **arguments)

    def handle(self):
        return self.do("handle")


@pytest.fixture
def opened(rig, agent):
    """Open watched sockets, in one process."""
    process = agent(rig.rx, script=WATCHER)
    count = iter(range(100))
    return lambda *joins, **options: Feed(process, next(count), joins=joins, **options)


@pytest.fixture
def send(rig, agent):
    """Send from tx. A new process for a new link: an address is bound to the link that has it."""

    def send(family, *payloads):
        agent(rig.tx).send(PORT, *((family[1], family[0], payload) for payload in payloads))

    return send


def users(rig, group: str, index: int = RX) -> int:
    """How many sockets the kernel has joined to an IPv4 group on an interface of rx's."""
    wanted, at = socket.inet_aton(group)[::-1].hex().upper(), 0
    for line in rig.rx.read("/proc/net/igmp").splitlines()[1:]:
        words = line.split()
        if not line[0].isspace():
            at = int(words[0])
        elif at == index and words[0] == wanted:
            return int(words[1])
    return 0


# Gone and back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [RX, 77], ids=["the same index", "another index"])
@pytest.mark.parametrize("source", [False, True], ids=["any source", "one source"])
@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_a_feed_goes_on_when_its_interface_is_deleted_and_made_again(opened, link, send, family, source, index):
    feed = opened([family[0], "feed0", *family[1:][:source]])
    assert feed.handle()["links_lost"] == 0
    link.delete()
    lost = feed.handle()
    assert (lost["readable"], lost["links_lost"], lost["rejoins"]) == (True, 1, 0)
    assert lost["log"] == [
        f"feed0 (index {RX}) has gone, and with it what was joined there: {family[0]}; "
        "waiting for an interface of that name"
    ]
    link.make(index)
    healed = feed.handle()
    assert (healed["rejoins"], healed["indexes"]) == (1, {str(index): "feed0"})
    assert healed["log"] == [f"joined again on feed0 (index {index}, was {RX})"]
    send(family, "1", "end")
    assert feed.do("until", last="end")["came"] == ["1", "end"]


@pytest.mark.parametrize("index", [RX, 77], ids=["the same index", "another index"])
def test_what_was_deleted_and_made_again_before_anybody_looked_is_joined_again(opened, link, send, index):
    feed = opened([IPV4[0], "feed0"])
    link.again(index)
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (1, 1)
    send(IPV4, "end")
    assert feed.do("until", last="end")["came"] == ["end"]


def test_an_interface_that_is_not_up_yet_is_joined_on_when_it_is(opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    link.delete()
    link.make(31, up=False)
    assert feed.handle()["rejoins"] == 0
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


def test_an_interface_that_visited_another_namespace_is_joined_on_again(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    rig.rx.ip(f"link set feed0 netns {rig.island.holder.pid}")
    assert feed.handle()["links_lost"] == 1
    rig.island.ip(f"link set feed0 netns {rig.rx.holder.pid}")
    assert feed.handle()["rejoins"] == 0  # it comes back down
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


def test_all_memberships_on_an_interface_come_back_and_those_elsewhere_are_left_alone(rig, opened, link, send):
    far = ("239.195.7.9", "198.51.100.11")
    feed = opened([IPV4[0], "feed0"], ["239.195.7.2", "feed0"], [far[0], "feed1"])
    link.delete()
    assert "there: 239.195.7.1, 239.195.7.2; waiting" in feed.handle()["log"][0]
    send(far, "elsewhere")
    assert feed.do("until", last="elsewhere")["came"] == ["elsewhere"]
    link.make()
    assert feed.handle()["indexes"] == {str(RX): "feed0", "11": "feed1"}
    send(("239.195.7.2", IPV4[1]), "2")
    assert feed.do("until", last="2")["came"] == ["2"]
    send(IPV4, "1")
    assert feed.do("until", last="1")["came"] == ["1"]
    assert users(rig, far[0], 11) == 1


def test_a_group_joined_after_the_watch_began_comes_back_and_one_that_was_left_does_not_matter(opened, link, send):
    feed = opened(["239.195.7.9", "feed1"])
    feed.do("join", group=IPV4[0], interface="feed0")
    link.again()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


def test_receivers_that_share_a_group_do_not_take_it_from_each_other(rig, opened, link, send):
    """Leaving by the index of what has gone counts against who joined on what has it now: so that is done early."""
    first, second = opened([IPV4[0], "feed0"]), opened([IPV4[0], "feed0"])
    assert users(rig, IPV4[0]) == 2
    link.delete()
    assert first.handle()["links_lost"] == second.handle()["links_lost"] == 1
    link.make()
    assert first.handle()["rejoins"] == second.handle()["rejoins"] == 1
    assert users(rig, IPV4[0]) == 2
    first.do("close")
    send(IPV4, "end")
    second.do("until", last="end")


def test_fifty_times_under_load_with_the_same_and_with_new_indexes(rig, opened, link, agent):
    """More often than net.ipv4.igmp_max_memberships allows, were anything left behind."""
    far = ("239.195.7.9", "198.51.100.11")
    feed, sender = opened([IPV4[0], "feed0"], [far[0], "feed1"]), agent(rig.tx)
    load = subprocess.Popen(
        rig.tx.inside(sys.executable, "-P", "-c", LOAD, *far, str(PORT)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        with load:
            assert load.stdout.readline() == b"sending\n"
            for turn in range(50):
                index = RX if turn % 3 else 1000 + turn
                feed.agent.ask("until", name=feed.name, last=f"turn {turn}")
                link.again(index)
                # It is joined on again some time after it is there: say so until it is heard.
                for _ in range(2000):
                    sender.send(PORT, (IPV4[1], IPV4[0], f"turn {turn}"))
                    if feed.agent.answered(0.01):
                        break
                found = feed.agent.answer()
                assert found["indexes"] == {str(index): "feed0", "11": "feed1"}
                assert "load" in found["came"]
                assert found["links_lost"] == found["rejoins"] == turn + 1
            load.stdin.close()
            assert load.wait(20) == 0
    finally:
        load.kill()
    assert (users(rig, IPV4[0], index), users(rig, far[0], 11)) == (1, 1)


LOAD = """
import select, socket, sys, time
group, source, port = sys.argv[1:]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
sock.connect((group, int(port)))
print("sending", flush=True)
end = time.monotonic() + 100
while not select.select([sys.stdin], [], [], 0.002)[0] and time.monotonic() < end:
    for _ in range(20):
        sock.send(b"load")
"""


# What is no loss, and what is not ours -----------------------------------------------------------------------------


def test_another_interface_with_the_old_index_is_not_taken_for_ours(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    link.delete()
    rig.rx.ip(f"link add other0 index {RX} type veth peer name other1", "link set other0 up", "link set other1 up")
    try:
        found = feed.handle()
        assert (found["links_lost"], found["rejoins"]) == (1, 0)
        assert users(rig, IPV4[0]) == 0
        link.make(32)
        found = feed.handle()
        assert (found["rejoins"], found["indexes"]) == (1, {"32": "feed0"})
        assert users(rig, IPV4[0]) == 0
        send(IPV4, "end")
        feed.do("until", last="end")
    finally:
        rig.rx.ip("link del other0")


def test_a_renamed_interface_is_still_ours_and_waited_for_by_its_new_name(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    rig.rx.ip("link set feed0 down", "link set feed0 name market0", "link set market0 up")
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"], found["log"]) == (0, 0, [])
    link.set_up("market0")
    send(IPV4, "renamed")
    feed.do("until", last="renamed")
    link.delete()
    assert feed.handle()["log"][0].startswith(f"market0 (index {RX}) has gone")
    link.make(33, "market0")
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


def test_down_and_up_is_left_to_the_kernel(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    rig.rx.ip("link set feed0 down")
    rig.tx.ip("link set feed0 down", "link set feed0 up")
    link.set_up()
    found = feed.handle()
    assert (found["readable"], found["links_lost"], found["rejoins"], found["log"]) == (True, 0, 0, [])
    send(IPV4, "end")
    feed.do("until", last="end")


def test_leaving_a_bridge_is_no_loss(rig, opened, link):
    """The kernel tells of it as of a deleted link, in the family AF_BRIDGE."""
    feed = opened([IPV4[0], "feed0"])
    rig.rx.ip("link add bridge0 type bridge", "link set feed0 master bridge0", "link set feed0 nomaster")
    try:
        found = feed.handle()
        assert (found["readable"], found["links_lost"], found["rejoins"]) == (True, 0, 0)
    finally:
        rig.rx.ip("link del bridge0")


# What may come between ---------------------------------------------------------------------------------------------


def test_a_refused_join_is_tried_again_by_the_timer_and_logged_once(opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    feed.do("refuse", times=3)
    link.again()
    refused = feed.handle()
    assert (refused["links_lost"], refused["rejoins"]) == (1, 0)
    assert refused["log"][1:] == [
        f"feed0 (index {RX}) is there, but joining again on it fails: [Errno 99] refused, for the test"
    ]
    healed = feed.do("count", what="rejoins", number=1)  # no link changes any more: the timer alone wakes it
    assert healed["log"] == [f"joined again on feed0 (index {RX}, was {RX})"]
    assert feed.handle()["readable"] is False
    send(IPV4, "end")
    feed.do("until", last="end")


def test_a_refused_join_is_tried_again_at_once_when_the_kernel_tells_of_the_interface(rig, opened, link):
    feed = opened([IPV4[0], "feed0"])
    feed.do("refuse", times=1)
    link.again()
    assert feed.handle()["rejoins"] == 0
    rig.rx.ip("link set feed0 alias later")
    assert feed.handle()["rejoins"] == 1


def test_what_was_being_handled_when_a_signal_came_is_not_forgotten(opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    link.again()
    feed.do("interrupt")
    with pytest.raises(Exception, match="as a signal's handler may"):
        feed.handle()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


def change(rig, times: int) -> None:
    """Have the kernel send so many messages that are about nothing of ours."""
    rig.rx.ip(*(f"link set lo alias turn{turn}" for turn in range(times)))


def overrun(rig) -> None:
    """Change a link until a small buffer of messages is full."""
    change(rig, 300)


def test_more_messages_than_are_read_in_one_go_are_all_read_before_anything_is_joined(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    feed.do("read_few")
    link.delete()
    change(rig, 25)
    link.make()
    assert feed.handle()["rejoins"] == 0
    found = feed.handle()
    assert (found["readable"], found["links_lost"], found["rejoins"]) == (True, 1, 1)
    assert feed.handle()["readable"] is False
    send(IPV4, "end")
    feed.do("until", last="end")


def test_after_lost_messages_what_may_have_been_lost_is_joined_again(rig, opened, link, send):
    feed = opened([IPV4[0], "feed0"])
    feed.do("small_buffer")
    overrun(rig)
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (0, 1)  # so they were lost, and nothing else was
    assert users(rig, IPV4[0]) == 1
    overrun(rig)
    link.again()
    assert feed.handle()["rejoins"] == 2
    send(IPV4, "end")
    feed.do("until", last="end")


@pytest.mark.parametrize("index", [RX, 77], ids=["the same index", "another index"])
def test_an_interface_that_went_unseen_is_found_gone(rig, opened, link, send, index):
    feed = opened([IPV4[0], "feed0"])
    feed.do("small_buffer")
    overrun(rig)
    link.delete()
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (1, 0)
    overrun(rig)
    link.make(index)
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.do("until", last="end")


# Silence -----------------------------------------------------------------------------------------------------------


def silence_found(feed, number):
    return feed.do("count", what="silences", number=number)["silences"][-1]


def test_a_silence_says_whether_the_interface_is_there_up_and_joined(rig, opened, link):
    feed = opened([IPV4[0], "feed0"], ["239.195.7.9", "feed1"], silence=0.05)

    def found():
        nonlocal seen
        told = silence_found(feed, seen + 1)
        seen = len(feed.handle()["silences"])
        return dict(told["interfaces"])["feed0"], told["joined"], told["dead"]

    seen = 0
    assert found() == ("up", True, False)
    rig.tx.ip("link set feed0 down")
    while (now := found())[0] == "up":  # the kernel finds it a moment later
        assert now == ("up", True, False)
    assert now == ("no carrier", True, True)
    rig.rx.ip("link set feed0 down")
    assert found() == ("down", True, True)
    link.delete()
    assert found() == ("gone", False, True)
    link.make()
    feed.do("count", what="rejoins", number=1)
    seen = len(feed.handle()["silences"])
    assert found() == ("up", True, False)


def test_a_membership_that_the_kernel_lost_with_the_interface_in_place_is_found_by_the_silence(rig, opened, link, send):
    """An MTU below 1280 takes IPv6 from an interface, and its groups with it (addrconf_notify of addrconf.c)."""
    feed = opened([IPV6[0], "feed0"], silence=0.2)
    rig.rx.ip("link set feed0 mtu 1000")
    rig.rx.ip("link set feed0 mtu 1500", "address add 2001:db8::1/64 dev feed0 nodad")
    found = feed.do("count", what="rejoins", number=1)
    assert found["silences"][-1]["interfaces"] == [["feed0", "up"]]
    assert (found["silences"][-1]["joined"], found["silences"][-1]["dead"], found["links_lost"]) == (False, True, 0)
    assert found["log"][0] == f"feed0 (index {RX}) is there, but the kernel has not all that was joined"
    send(IPV6, "end")
    feed.do("until", last="end")
