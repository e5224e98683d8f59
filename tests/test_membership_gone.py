"""An interface that goes, and one that comes back: what can still be done, and how it is joined again by hand.

Owns the link `gone0` between the hosts of the rig, which every test takes down and makes anew, and receivers that don't
heal by themselves. Must not wait to see that something does not come: what is sent after it does.
"""

from __future__ import annotations

import errno
import sys

import pytest
from rig import AgentError
from test_membership_hosts import refused
from test_namespaces import IPV4, IPV6, PORT, memberships

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

INDEX, ANOTHER = 30, 31
SOURCES = {"IPv4": ("203.0.113.11", "203.0.113.12"), "IPv6": ("2001:db8:0:9::11", "2001:db8:0:9::12")}


@pytest.fixture(params=[IPV4, IPV6], ids=str)
def family(request):
    return request.param


@pytest.fixture
def rx(rig, agent):
    return agent(rig.rx)


class Link:
    """The link gone0, from tx to rx."""

    def __init__(self, rig) -> None:
        self.rig = rig

    def make(self, index: int = INDEX) -> None:
        tx, rx = self.rig.tx, self.rig.rx
        tx.ip(f"link add gone0 index 40 type veth peer name gone0 index {index} netns {rx.holder.pid}")
        for host in (tx, rx):
            host.ip("link set gone0 addrgenmode none up")
        for host in (tx, rx):
            host.wait_until_up("gone0")
        tx.ip(
            *(f"address add {each}/24 dev gone0" for each in SOURCES["IPv4"]),
            *(f"address add {each}/64 dev gone0 nodad" for each in SOURCES["IPv6"]),
            "address add fe80::11/64 dev gone0 nodad",
        )
        rx.ip("address add 203.0.113.1/24 dev gone0", "address add 2001:db8:0:9::1/64 dev gone0 nodad")

    def take_down(self) -> None:
        self.rig.rx.ip("link delete gone0")

    def again(self, index: int = INDEX) -> None:
        self.take_down()
        self.make(index)


@pytest.fixture
def link(rig):
    made = Link(rig)
    made.make()
    yield made
    if "gone0" in rig.rx.run("ip", "-brief", "link"):
        made.take_down()


@pytest.fixture
def tx(rig, agent):
    """Send once, by an agent of its own: what one has opened on a link ends with that."""

    def send(*datagrams: tuple[str, str, str]) -> None:
        agent(rig.tx).send(PORT, *datagrams)

    return send


def listening(rx, family):
    """A receiver of this family that has joined nothing on gone0, and is bound to no group."""
    others = ["239.195.7.1", "239.195.7.2"] if family is IPV4 else ["ff15::195:7:1", "ff15::195:7:2"]
    return rx.receiver(others, PORT, interface="lo", self_healing=False)


# Where it has gone -------------------------------------------------------------------------------------------------


def test_what_is_joined_on_an_interface_that_has_gone_can_be_read_and_left(rx, link, family):
    group, (one, two) = family.groups[0], SOURCES[str(family)]
    feed = rx.receiver(group, PORT, interface="gone0", self_healing=False)
    feed.method("block", group, one)
    link.take_down()
    assert feed.verb("get_source_filter", group, INDEX) == {"mode": "exclude", "sources": [one]}
    for verb, arguments in {
        "block_source": (group, two, INDEX),
        "unblock_source": (group, one, INDEX),
        "join_group": (group, INDEX),
        "set_source_filter": (group, "exclude", [], INDEX),
    }.items():
        refused(errno.ENODEV, lambda: feed.verb(verb, *arguments), f"{verb} {group}", f"no interface {INDEX} ", "feed0")  # noqa: B023
    # Without an interface it is the one where the receiver has joined it: there the kernel refuses.
    hint = f"on index {INDEX}: No such device; there is no such interface (there are: "
    refused(errno.ENODEV, lambda: feed.method("block", group, two), f"block {group} from {two} {hint}", "feed0")
    feed.verb("set_source_filter", group, "include", [], INDEX)
    refused(errno.EADDRNOTAVAIL, lambda: feed.verb("get_source_filter", group, INDEX), "has not joined it")


@pytest.mark.parametrize("how", ["index", "name", "nothing"])
def test_a_receiver_leaves_an_interface_that_has_gone(rx, link, family, how):
    group, (one, two) = family.groups[0], SOURCES[str(family)]
    feed = rx.receiver([group, family.groups[1]], PORT, interface="gone0", source=[one, two], self_healing=False)
    link.take_down()
    feed.method("leave", group, {"index": INDEX, "name": "gone0", "nothing": None}[how])
    assert [row["group"] for row in feed.memberships()] == [family.groups[1]]
    refused(errno.EADDRNOTAVAIL, lambda: feed.verb("leave_group", group, INDEX), "has not joined it")
    feed.method("leave", family.groups[1], "gone0", one)  # with all of its sources: the kernel has them no more
    assert feed.memberships() == []
    refused(errno.EADDRNOTAVAIL, lambda: feed.verb("leave_group", family.groups[1], INDEX), "has not joined it")


def test_a_receiver_leaves_by_name_what_it_joined_by_another_index(rig, rx, link, family):
    group = family.groups[0]
    feed = rx.receiver(group, PORT, interface="gone0", self_healing=False)
    link.again(ANOTHER)
    feed.method("leave", group, "gone0")
    assert feed.memberships() == []
    refused(errno.EADDRNOTAVAIL, lambda: feed.verb("leave_group", group, INDEX), "has not joined it")
    feed.method("join", group, "gone0")
    assert [row["index"] for row in feed.memberships()] == [ANOTHER]
    assert memberships(rig.rx, group) == {"gone0"}


def test_the_filter_of_an_interface_made_anew_can_not_be_set(rx, link, family):
    """The socket has the entry of the old one, by the same index; the new one knows nothing of it."""
    group = family.groups[0]
    feed = rx.receiver(group, PORT, interface="gone0", self_healing=False)
    link.again()
    change = lambda: feed.method("set_source_filter", group, "include", [SOURCES[str(family)][0]])  # noqa: E731
    refused(errno.ESRCH, change, f"set_source_filter {group} on gone0 (index 30)", "made anew", "leave it, and join")
    for again in (lambda: feed.method("join", group, "gone0"), lambda: feed.verb("join_group", group, "gone0")):
        refused(errno.EADDRINUSE, again, f" {group} on gone0 (index 30)", "made anew", "leave it, and join")
    feed.method("leave", group, "gone0")
    feed.method("join", group, "gone0")
    refused(errno.EADDRINUSE, lambda: feed.method("join", group, "gone0"), "joined it already, from any source")
    change()


def test_an_interface_without_the_family_says_so(rig, rx, link):
    feed, feed6 = (listening(rx, family) for family in (IPV4, IPV6))
    rig.rx.ip("link set gone0 mtu 1279")
    change = lambda: feed6.verb("join_group", IPV6.groups[0], "gone0")  # noqa: E731
    refused(errno.EINVAL, change, "join_group ff15::195:1 on gone0 (index 30)", "no IPv6", "MTU of 1280")
    feed.verb("join_group", IPV4.groups[0], "gone0")
    rig.rx.ip("link set lo mtu 67")
    try:
        change = lambda: feed.verb("join_group", IPV4.groups[0], "lo")  # noqa: E731
        refused(errno.ENODEV, change, "join_group 239.195.0.1 on lo (index 1)", "this interface has no IPv4")
    finally:
        rig.rx.ip("link set lo mtu 65536", "link set lo down", "link set lo up")


# Where it came back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [INDEX, ANOTHER], ids=["same index", "new index"])
def test_what_was_joined_is_received_again(rig, rx, tx, link, family, index):
    any_source, specific, but_one, _ = family.groups
    one, two = SOURCES[str(family)]
    feed = listening(rx, family)
    feed.tracked("join", any_source, "gone0")
    feed.tracked("join", specific, "gone0", [two, "192.0.2.77" if family is IPV4 else "2001:db8::77"])
    feed.tracked("join", but_one, "gone0")
    feed.tracked("block", but_one, one, "gone0")
    feed.tracked("join", any_source, "feed0")  # which stays as it is
    before = feed.tracked("list")
    groups = (any_source, specific, but_one)
    tx(*((source, group, f"{source} {group}") for source in (one, two) for group in groups))
    wanted = [f"{one} {any_source}", *(f"{two} {group}" for group in groups)]
    assert feed.until(wanted[-1]) == wanted
    link.again(index)
    assert memberships(rig.rx, specific) == memberships(rig.rx, but_one) - {"lo"} == set()
    feed.tracked("rejoin", INDEX, index)
    assert memberships(rig.rx, any_source) == {"feed0", "gone0"}
    moved = [row | {"index": index if row["index"] == INDEX else row["index"]} for row in before]
    assert sorted(feed.tracked("list"), key=str) == sorted(moved, key=str)
    tx(*((source, group, f"{source} {group}") for source in (one, two) for group in groups))
    assert feed.until(wanted[-1]) == wanted
    assert feed.tracked("indexes") == {str(index): "gone0", "10": "feed0"}


def test_a_group_of_one_link_is_received_again(rx, tx, link):
    """The socket that is bound to such a group is bound to the interface, too: to one that is no more."""
    feed = rx.receiver("ff12::195", PORT, interface="gone0", self_healing=False)
    feed.verb("leave_group", "ff12::195", "gone0")
    feed.tracked("join", "ff12::195", "gone0")
    tx(("fe80::11%gone0", "ff12::195", "1"))
    assert feed.until("1") == ["1"]
    link.again(ANOTHER)
    feed.tracked("rejoin", INDEX, ANOTHER)
    tx(("fe80::11%gone0", "ff12::195", "end"))
    assert feed.until("end") == ["end"]


def test_a_rejoin_that_failed_can_be_made_again(rig, rx, tx, link):
    (group, other), (one, two) = IPV4.groups[:2], SOURCES["IPv4"]
    feed = listening(rx, IPV4)
    feed.tracked("join", group, "gone0", one)
    feed.tracked("join", other, "gone0", ["192.0.2.1", one, two])
    before = feed.tracked("list")
    link.take_down()
    refused(errno.ENODEV, lambda: feed.tracked("rejoin", INDEX, ANOTHER), f"rejoin: no interface {ANOTHER} ")
    assert feed.tracked("list") == before
    link.make(ANOTHER)
    limit = "/proc/sys/net/ipv4/igmp_max_msf"
    rig.rx.run("sh", "-c", f"echo 2 > {limit}")
    try:
        for _ in range(2):
            words = (f"rejoin {other} from {two} on gone0 (index {ANOTHER})", "this would be source 3")
            refused(errno.ENOBUFS, lambda: feed.tracked("rejoin", INDEX, ANOTHER), *words)
            # The one has moved, the other is declared as it was, and joined nowhere.
            assert [(row["group"], row["index"]) for row in feed.tracked("list")] == [(other, INDEX), (group, ANOTHER)]
            assert memberships(rig.rx, group) == {"gone0"}
            assert memberships(rig.rx, other) == set()
    finally:
        rig.rx.run("sh", "-c", f"echo 10 > {limit}")
    feed.tracked("rejoin", INDEX, ANOTHER)
    rows = {row["group"]: (row["index"], row["sources"]) for row in feed.tracked("list")}
    assert rows == {group: (ANOTHER, [one]), other: (ANOTHER, ["192.0.2.1", one, two])}
    tx((two, group, "no"), (one, group, "1"), (two, other, "2"))
    assert feed.until("2") == ["1", "2"]


CYCLES = 100


def anew(rig, cycle: int, *, same: bool) -> int:
    """Take down and make anew an interface of rx, of which nothing is sent; its index."""
    index = 50 if same else 50 + cycle % 7
    down = ["link delete cycle0"] if cycle else []
    rig.rx.ip(*down, f"link add cycle0 index {index} type veth peer name cycle1 index 90", "link set cycle0 up")
    return index


@pytest.fixture
def cycled(rig):
    yield
    if "cycle0" in rig.rx.run("ip", "-brief", "link"):
        rig.rx.ip("link delete cycle0")


@pytest.mark.usefixtures("cycled")
@pytest.mark.parametrize("same", [True, False], ids=["same index", "other indexes"])
def test_an_interface_that_goes_and_comes_back_eats_no_place_for_memberships(rig, rx, same):
    """Of the 20 that a socket has, 20 are in use all the while."""
    rig.rx.run("sh", "-c", "echo 20 > /proc/sys/net/ipv4/igmp_max_memberships")
    feed = rx.receiver(["239.195.4.1", "239.195.4.2"], PORT, interface="lo", self_healing=False)
    feed.method("leave", "239.195.4.1")
    index = anew(rig, 0, same=same)
    groups = [f"239.195.4.{n}" for n in range(2, 21)]
    for group in groups:
        feed.tracked("join", group, index, "203.0.113.1" if group.endswith("9") else None)
    full = lambda: feed.tracked("join", "239.195.4.99", "lo")  # noqa: E731
    refused(errno.ENOBUFS, full, "net.ipv4.igmp_max_memberships (now 20)")
    for cycle in range(1, CYCLES + 1):
        old, index = index, anew(rig, cycle, same=same)
        feed.tracked("rejoin", old, index)
    assert [(row["group"], row["index"]) for row in feed.tracked("list")] == [(group, index) for group in groups]
    assert all(memberships(rig.rx, group) >= {"cycle0"} for group in (groups[0], groups[-1]))
    refused(errno.ENOBUFS, full, "net.ipv4.igmp_max_memberships (now 20)")


@pytest.mark.usefixtures("cycled")
def test_without_leaving_the_old_index_the_places_run_out(rig, rx):
    """What the above is a guard against: it has to be there to be guarded against."""
    rig.rx.run("sh", "-c", "echo 20 > /proc/sys/net/ipv4/igmp_max_memberships")
    feed = rx.receiver(["239.195.4.1", "239.195.4.2"], PORT, interface="lo", self_healing=False)
    with pytest.raises(AgentError) as caught:
        for cycle in range(CYCLES):
            rig.rx.ip(
                *(["link delete cycle0"] if cycle else []),
                f"link add cycle0 index {50 + cycle} type veth peer name cycle1 index 90",
            )
            feed.verb("join_group", "239.195.4.3", 50 + cycle)
    assert caught.value.errno == errno.ENOBUFS
    assert cycle == 18
