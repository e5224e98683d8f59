"""Memberships come back with their interface: deleted, moved, renamed, and whatever the kernel had time to say.

Owns receivers that are stepped: each handles what the kernel has told when a test says so, after it has told. Nothing
here waits for what may come. How receivers do that by themselves is in test_healing_ways.py.
"""

from __future__ import annotations

import errno
import socket
import sys

import pytest
from links import FAR, IPV4, IPV6, OTHER, RX
from rig import AgentError

pytest_plugins = ["rig_fixtures", "healing_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink is Linux's")

SECOND = ("239.195.7.2", IPV4[1])
same_or_other = pytest.mark.parametrize("index", [RX, OTHER], ids=["the same index", "another index"])


def users(hosts, group: str, index: int = RX) -> int:
    """How many sockets the kernel has joined to an IPv4 group on an interface of rx's."""
    wanted, at = socket.inet_aton(group)[::-1].hex().upper(), 0
    for line in hosts.rx.read("/proc/net/igmp").splitlines()[1:]:
        words = line.split()
        if not line[0].isspace():
            at = int(words[0])
        elif at == index and words[0] == wanted:
            return int(words[1])
    return 0


# Gone and back -----------------------------------------------------------------------------------------------------


@same_or_other
@pytest.mark.parametrize("source", [False, True], ids=["any source", "one source"])
@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_a_feed_goes_on_when_its_interface_is_deleted_and_made_again(receiver, link, send, family, source, index):
    feed = receiver(family[0], source=family[1] if source else None)
    before = feed.memberships()
    assert feed.handle()["links_lost"] == 0
    link.delete()
    lost = feed.handle()
    assert (lost["readable"], lost["links_lost"], lost["rejoins"]) == (True, 1, 0)
    assert lost["log"] == [
        f"feed0 (index {RX}) has gone, and with it what was joined there: {family[0]}; "
        "waiting for an interface of that name"
    ]
    assert feed.memberships() == before  # it stays declared
    link.make(index)
    healed = feed.handle()
    assert (healed["rejoins"], healed["joined"]) == (1, [[index, "feed0"]])
    assert healed["log"] == [f"joined again on feed0 (index {index}, was {RX})"]
    assert feed.memberships() == [row | {"index": index} for row in before]
    send(family, "1", "end")
    assert feed.until("end") == ["1", "end"]


def test_without_healing_nothing_of_that_happens(receiver, process, link, send, hosts):
    """The same by hand, and what comes is only what is sent by the link that stayed: a marker, after all else."""
    healed = receiver(IPV4[0])
    receiver([SECOND[0], "239.195.7.3"], self_healing=False).close()
    assert process.call("netlink") == 1  # the first one's
    feed = receiver([SECOND[0], "239.195.7.3"], self_healing=False)
    assert process.call("netlink") == 1
    feed.join(FAR[0], interface="feed1")
    before = feed.memberships()
    link.again()
    assert feed.handle() | {"readable": False} == {
        "readable": False,
        "links_lost": 0,
        "rejoins": 0,
        "silences": [],
        "joined": [[RX, "feed0"], [11, "feed1"]],
        "log": [],
    }
    assert healed.handle()["rejoins"] == 1
    send(SECOND, "lost")
    send(FAR, "marker")
    assert feed.until("marker") == ["marker"]
    assert (users(hosts, SECOND[0]), feed.memberships()) == (0, before)


@same_or_other
def test_what_was_deleted_and_made_again_before_anybody_looked_is_joined_again(receiver, link, send, index):
    feed = receiver(IPV4[0])
    link.again(index)
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (1, 1)
    send(IPV4, "end")
    assert feed.until("end") == ["end"]


def test_an_interface_that_is_not_up_yet_is_joined_on_when_it_is(receiver, link, send):
    feed = receiver(IPV4[0])
    link.delete()
    link.make(31, up=False)
    assert feed.handle()["rejoins"] == 0
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")


def test_an_interface_that_visited_another_namespace_is_joined_on_again(hosts, receiver, link, send):
    feed = receiver(IPV4[0])
    hosts.rx.ip(f"link set feed0 netns {hosts.island.holder.pid}")
    assert feed.handle()["links_lost"] == 1
    hosts.island.ip(f"link set feed0 netns {hosts.rx.holder.pid}")
    assert feed.handle()["rejoins"] == 0  # it comes back down
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")


def test_a_thread_that_has_gone_to_another_namespace_heals_what_is_in_the_first(hosts, process, receiver, link, send):
    """There, the indexes are of other interfaces, or of none."""
    feed = receiver(IPV4[0])
    before = feed.memberships()
    process.call("go", to=f"/proc/{hosts.island.holder.pid}/ns/net")
    link.again(OTHER)
    assert feed.handle()["log"][1:] == [f"joined again on feed0 (index {OTHER}, was {RX})"]
    assert feed.memberships() == [row | {"index": OTHER} for row in before]
    send(IPV4, "end")
    feed.until("end")


def test_all_memberships_on_an_interface_come_back_and_those_elsewhere_are_left_alone(hosts, receiver, link, send):
    feed = receiver([IPV4[0], SECOND[0]])
    feed.join(FAR[0], interface="feed1")
    link.delete()
    assert "there: 239.195.7.1, 239.195.7.2; waiting" in feed.handle()["log"][0]
    send(FAR, "elsewhere")
    assert feed.until("elsewhere") == ["elsewhere"]
    link.make()
    assert feed.handle()["joined"] == [[RX, "feed0"], [11, "feed1"]]
    send(SECOND, "2")
    assert feed.until("2") == ["2"]
    send(IPV4, "1")
    assert feed.until("1") == ["1"]
    assert users(hosts, FAR[0], 11) == 1


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_filters_come_back_as_they_were_declared(receiver, link, send, family):
    """A source that was blocked stays so: what it sends is not in the way of what is sent after it."""
    others = [family[0].replace("7:1", "7:2").replace("7.1", "7.2"), family[0].replace("7:1", "7:3")]
    feed = receiver([family[0], others[0]])
    blocked = family[1].replace("11", "12")
    feed.method("block", family[0], blocked)
    link.again(OTHER)
    assert feed.handle()["rejoins"] == 1
    rows = [(row["group"], row["index"], row["mode"], row["sources"]) for row in feed.memberships()]
    assert sorted(rows) == [(family[0], OTHER, "exclude", [blocked]), (others[0], OTHER, "exclude", [])]
    send((family[0], blocked), "blocked")
    send(family, "end")
    assert feed.until("end") == ["end"]


def test_a_group_joined_after_the_receiver_was_opened_comes_back(receiver, link, send):
    feed = receiver([FAR[0], SECOND[0]], "feed1")
    feed.join(IPV4[0], interface="feed0")
    link.again()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")


def test_a_group_of_one_link_comes_back_with_the_socket_bound_to_another_index(receiver, link, send):
    """For a group of the link's own, the socket is bound to the interface as well."""
    feed = receiver("ff12::195:7:1")
    link.again(OTHER)
    assert feed.handle()["rejoins"] == 1
    send(("ff12::195:7:1", "fe80::11%feed0"), "end")
    assert feed.until("end") == ["end"]


def test_receivers_that_share_a_group_do_not_take_it_from_each_other(hosts, receiver, link, send):
    """Leaving by the index of what has gone counts against who joined on what has it now: so that is done early."""
    first, second = receiver(IPV4[0]), receiver(IPV4[0])
    assert users(hosts, IPV4[0]) == 2
    link.delete()
    assert first.handle()["links_lost"] == second.handle()["links_lost"] == 1
    link.make()
    assert first.handle()["rejoins"] == second.handle()["rejoins"] == 1
    assert users(hosts, IPV4[0]) == 2
    first.close()
    send(IPV4, "end")
    second.until("end")


# What a user does meanwhile ----------------------------------------------------------------------------------------


def test_what_waits_for_its_interface_can_be_left(hosts, receiver, link, send):
    """Gone, or there again and not up yet: the kernel has nothing that could be left, and nothing comes back."""
    feed = receiver([IPV4[0], SECOND[0], "239.195.7.3"])
    feed.join(FAR[0], interface="feed1")
    link.delete()
    feed.handle()
    feed.method("leave", IPV4[0])
    link.make(up=False)
    feed.method("leave", SECOND[0], interface="feed0")
    assert [row["group"] for row in feed.memberships()] == ["239.195.7.3", FAR[0]]
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    assert [users(hosts, group) for group in (IPV4[0], SECOND[0], "239.195.7.3")] == [0, 0, 1]


def test_sources_of_what_waits_for_its_interface_can_be_left(receiver, link, send):
    one, two, nobody = "192.0.2.11", "192.0.2.12", "192.0.2.99"
    feed = receiver([IPV4[0], SECOND[0]], source=[one, two])
    feed.method("leave", SECOND[0])
    feed.join(SECOND[0], interface="feed0")
    link.delete()
    feed.handle()
    link.make(up=False)
    feed.method("leave", IPV4[0], source=one)
    for group, source, number, said in (
        (IPV4[0], nobody, errno.EADDRNOTAVAIL, "has not joined it from this source"),
        (SECOND[0], one, errno.EINVAL, "joined the group in the other mode, from any source"),
    ):
        with pytest.raises(AgentError, match=said) as refused:
            feed.method("leave", group, source=source)
        assert refused.value.errno == number
    link.set_up()
    assert feed.handle()["rejoins"] == 1
    assert [(row["group"], row["sources"]) for row in feed.memberships()] == [(IPV4[0], [two]), (SECOND[0], [])]
    send((IPV4[0], one), "left")
    send((IPV4[0], two), "end")
    assert feed.until("end") == ["end"]


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_what_could_not_be_joined_again_can_be_left(receiver, link, hosts, seen):
    """The interface was made anew; or it never went, and is joined on again since messages were lost."""
    feed = receiver([IPV4[0], SECOND[0]])
    if not seen:
        feed.do("small_buffer")
    limit = "/proc/sys/net/ipv4/igmp_max_memberships"
    before = hosts.rx.read(limit)
    hosts.rx.write(limit, "1")
    try:
        link.again() if seen else overrun(hosts)
        found = feed.handle()
        assert found["rejoins"] == 0
        assert "joining again on it fails: [Errno 105]" in found["log"][1]
        assert "net.ipv4.igmp_max_memberships (now 1)" in found["log"][1]
        # What was joined again is the first; or, as the second still took the place, nothing but that is joined.
        kept, refused = (IPV4[0], SECOND[0]) if seen else (SECOND[0], IPV4[0])
        assert (users(hosts, kept), users(hosts, refused)) == (1, 0)
        feed.method("leave", refused)
        assert feed.count("rejoins", 1)["joined"] == [[RX, "feed0"]]  # what is left has room
    finally:
        hosts.rx.write(limit, before)
    assert (users(hosts, kept), users(hosts, refused)) == (1, 0)


# What is no loss, and what is not ours -----------------------------------------------------------------------------


def test_another_interface_with_the_old_index_is_not_taken_for_ours(hosts, receiver, link, send):
    feed = receiver(IPV4[0])
    link.delete()
    hosts.rx.ip(f"link add other0 index {RX} type veth peer name other1", "link set other0 up", "link set other1 up")
    try:
        found = feed.handle()
        assert (found["links_lost"], found["rejoins"]) == (1, 0)
        assert users(hosts, IPV4[0]) == 0
        link.make(32)
        found = feed.handle()
        assert (found["rejoins"], found["joined"]) == (1, [[32, "feed0"]])
        assert users(hosts, IPV4[0]) == 0
        send(IPV4, "end")
        feed.until("end")
    finally:
        hosts.rx.ip("link del other0")


def test_a_renamed_interface_is_still_ours_and_waited_for_by_its_new_name(hosts, receiver, link, send):
    feed = receiver(IPV4[0])
    hosts.rx.ip("link set feed0 down", "link set feed0 name market0", "link set market0 up")
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"], found["log"]) == (0, 0, [])
    link.set_up("market0")
    send(IPV4, "renamed")
    feed.until("renamed")
    link.delete()
    assert feed.handle()["log"][0].startswith(f"market0 (index {RX}) has gone")
    link.make(33, "market0")
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_down_and_up_at_either_end_is_left_to_the_kernel(hosts, receiver, link, send, family):
    """The other end down is no carrier at this one, as with a cable that is pulled."""
    feed = receiver(family[0])
    hosts.rx.ip("link set feed0 down")
    hosts.tx.ip("link set feed0 down", "link set feed0 up")
    link.set_up()
    hosts.tx.ip("link set feed0 down", "link set feed0 up")
    link.set_up()
    found = feed.handle()
    assert (found["readable"], found["links_lost"], found["rejoins"], found["log"]) == (True, 0, 0, [])
    send(family, "end")
    feed.until("end")


def test_leaving_a_bridge_is_no_loss(hosts, receiver, link):
    """The kernel tells of it as of a deleted link, in the family AF_BRIDGE."""
    feed = receiver(IPV4[0])
    hosts.rx.ip("link add bridge0 type bridge", "link set feed0 master bridge0", "link set feed0 nomaster")
    try:
        found = feed.handle()
        assert (found["readable"], found["links_lost"], found["rejoins"]) == (True, 0, 0)
    finally:
        hosts.rx.ip("link del bridge0")


# What may come between ---------------------------------------------------------------------------------------------


def test_a_refused_join_is_tried_again_by_the_timer_and_logged_once(receiver, link, send):
    feed = receiver(IPV4[0])
    feed.do("refuse", times=3)
    link.again()
    refused = feed.handle()
    assert (refused["links_lost"], refused["rejoins"]) == (1, 0)
    assert refused["log"][1:] == [
        f"feed0 (index {RX}) is there, but joining again on it fails: [Errno 99] refused, for the test"
    ]
    healed = feed.count("rejoins", 1)  # no link changes any more: the timer alone wakes it
    assert healed["log"] == [f"joined again on feed0 (index {RX}, was {RX})"]
    assert feed.handle()["readable"] is False
    send(IPV4, "end")
    feed.until("end")


def test_a_refused_join_is_tried_again_at_once_when_the_kernel_tells_of_the_interface(hosts, receiver, link):
    feed = receiver(IPV4[0])
    feed.do("refuse", times=1)
    link.again()
    assert feed.handle()["rejoins"] == 0
    hosts.rx.ip("link set feed0 alias later")
    assert feed.handle()["rejoins"] == 1


def test_what_was_being_handled_when_a_signal_came_is_not_forgotten(process, receiver, link, send):
    feed = receiver(IPV4[0])
    link.again()
    process.call("interrupt")
    with pytest.raises(AgentError, match="as a signal's handler may"):
        feed.handle()
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")


def change(hosts, times: int) -> None:
    """Have the kernel send so many messages that are about nothing of ours."""
    hosts.rx.ip(*(f"link set lo alias turn{turn}" for turn in range(times)))


def overrun(hosts) -> None:
    """Change a link until a small buffer of messages is full."""
    change(hosts, 300)


def test_more_messages_than_are_read_in_one_go_are_all_read_before_anything_is_joined(
    hosts, process, receiver, link, send
):
    feed = receiver(IPV4[0])
    process.call("read_few")
    link.delete()
    change(hosts, 100)
    link.make()
    assert feed.handle()["rejoins"] == 0
    for _ in range(10):
        found = feed.handle()
        assert found["readable"]
        if found["rejoins"]:
            break
    assert (found["links_lost"], found["rejoins"]) == (1, 1)
    assert feed.handle()["readable"] is False
    send(IPV4, "end")
    feed.until("end")


def test_after_lost_messages_what_may_have_been_lost_is_joined_again(hosts, receiver, link, send):
    feed = receiver(IPV4[0])
    feed.do("small_buffer")
    overrun(hosts)
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (0, 1)  # so they were lost, and nothing else was
    assert users(hosts, IPV4[0]) == 1
    overrun(hosts)
    link.again()
    assert feed.handle()["rejoins"] == 2
    send(IPV4, "end")
    feed.until("end")


@same_or_other
def test_an_interface_that_went_unseen_is_found_gone(hosts, receiver, link, send, index):
    feed = receiver(IPV4[0])
    feed.do("small_buffer")
    overrun(hosts)
    link.delete()
    found = feed.handle()
    assert (found["links_lost"], found["rejoins"]) == (1, 0)
    overrun(hosts)
    link.make(index)
    assert feed.handle()["rejoins"] == 1
    send(IPV4, "end")
    feed.until("end")
