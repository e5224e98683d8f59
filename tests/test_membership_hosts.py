"""Source filters, several interfaces, limits, and interfaces that go and come back: between hosts on real links.

Owns `tx` and `rx`: an agent in each of these hosts of the rig, for every test, and what it changes in a host, which it
puts back. Must not wait to see that something does not come: what is sent after it does.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import sys

import pytest
from rig import LINKS, AgentError
from test_namespaces import IPV4, IPV6, PORT, memberships

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

INDEXES = {link: ends["rx"][0] for link, ends in LINKS.items()}


@pytest.fixture(params=[IPV4, IPV6], ids=str)
def family(request):
    return request.param


@pytest.fixture
def rx(rig, agent):
    return agent(rig.rx)


@pytest.fixture
def tx(rig, agent):
    return agent(rig.tx)


@pytest.fixture
def sysctl(rig):
    """Set a sysctl of a host, which is put back after the test."""
    with contextlib.ExitStack() as undo:

        def put(host, name: str, value: object) -> None:
            path = f"/proc/sys/{name.replace('.', '/')}"
            try:
                before = host.read(path).strip()
            except RuntimeError as error:
                pytest.skip(f"{name} is not one of a network namespace in this kernel: {error}")
            host.run("sh", "-c", f"echo {value} > {path}")
            undo.callback(host.run, "sh", "-c", f"echo {before} > {path}")

        yield put


def refused(number: int | None, call, *words: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        call()
    assert caught.value.errno == number, caught.value
    for word in words:
        assert word in caught.value.text
    return caught.value


def told(receiver) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """What a receiver says that it has joined: mode and sources, by group and interface."""
    rows = receiver.memberships()
    assert [row["index"] for row in rows] == [INDEXES.get(row["interface"], row["index"]) for row in rows]
    return {(row["group"], row["interface"]): (row["mode"], row["sources"]) for row in rows}


# Sources -----------------------------------------------------------------------------------------------------------


def call(receiver, how: str, what: str, *arguments: object, **options: object) -> None:
    """Change a membership of a receiver by its method, or by the verb on its socket."""
    if how == "method":
        receiver.method(what, *arguments, **options)
    else:
        receiver.verb({"block": "block_source", "unblock": "unblock_source"}.get(what, what), *arguments, **options)


@pytest.mark.parametrize("how", ["verb", "method"])
def test_a_blocked_source_is_not_received_until_it_is_unblocked(rx, tx, family, how):
    group, (one, two, three) = family.groups[0], family.sources
    feed = rx.receiver(group, PORT, interface="feed0")
    from_all = rx.receiver(group, PORT, interface="feed0")
    tx.send(PORT, (one, group, "1"), (two, group, "2"))
    assert feed.until("2") == ["1", "2"]
    call(feed, how, "block", group, one, interface="feed0")
    call(feed, how, "block", group, two, interface="feed0")
    tx.send(PORT, (one, group, "3"), (two, group, "4"), (three, group, "5"))
    assert feed.until("5") == ["5"]
    call(feed, how, "unblock", group, one, interface="feed0")
    tx.send(PORT, (two, group, "6"), (one, group, "7"), (three, group, "end"))
    assert feed.until("end") == ["7", "end"]
    assert from_all.until("end") == ["1", "2", "3", "4", "5", "6", "7", "end"]


@pytest.mark.parametrize("how", ["verb", "method"])
def test_the_filter_that_was_set_decides_what_is_received(rx, tx, family, how):
    group, (one, two, three) = family.groups[0], family.sources
    feed = rx.receiver([group, family.groups[1]], PORT, interface="feed0")
    steps = [
        ("include", [one, two], ["1", "2"]),
        ("exclude", [one], ["2", "3"]),
        ("include", [three], ["3"]),
        ("exclude", [], ["1", "2", "3"]),
        ("exclude", [three, one], ["2"]),
        ("include", [one], ["1"]),
    ]
    for n, (mode, sources, wanted) in enumerate(steps):
        call(feed, how, "set_source_filter", group, mode, sources, interface="feed0")
        filter_ = feed.verb("get_source_filter", group, interface="feed0")
        assert filter_ == {"mode": mode, "sources": sorted(sources)}
        if how == "method":
            assert told(feed)[group, "feed0"] == (mode, sorted(sources))
        end = f"end {n}"
        tx.send(PORT, (one, group, "1"), (two, group, "2"), (three, group, "3"), (one, family.groups[1], end))
        assert feed.until(end) == [*wanted, end]
    call(feed, how, "set_source_filter", group, "include", [], interface="feed0")
    tx.send(PORT, (one, group, "1"), (one, family.groups[1], "left"))
    assert feed.until("left") == ["left"]
    if how == "method":
        assert list(told(feed)) == [(family.groups[1], "feed0")]


def test_sources_are_joined_and_left_by_the_receiver(rx, tx, family):
    group, (one, two, three) = family.groups[0], family.sources
    feed = rx.receiver(group, PORT, interface="feed0", source=one)
    everything = rx.receiver(group, PORT, interface="feed0")
    feed.method("join", group, "feed0", [two, three])
    feed.method("leave", group, source=one)
    assert told(feed) == {(group, "feed0"): ("include", [two, three])}
    tx.send(PORT, (one, group, "1"), (two, group, "2"), (three, group, "3"))
    assert feed.until("3") == ["2", "3"]
    feed.method("leave", group, source=[two, three])
    assert told(feed) == {}
    feed.method("join", group, "feed0")
    tx.send(PORT, (one, group, "end"))
    assert feed.until("end") == ["end"]
    assert everything.until("end") == ["1", "2", "3", "end"]


# Several interfaces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("specific", [False, True], ids=["any source", "named sources"])
def test_a_receiver_on_several_interfaces(rig, rx, tx, family, specific):
    group, other, foreign, _ = family.groups
    listed, unlisted, _ = family.sources
    sources = [listed, family.far] if specific else None
    feed = rx.receiver([group, other], PORT, interface=["feed1", INDEXES["feed0"], "feed0"], source=sources)
    everything = rx.receiver([group, other, foreign], PORT, interface=["feed0", "feed1"])
    assert memberships(rig.rx, group) == memberships(rig.rx, other) == {"feed0", "feed1"}
    filter_ = ("include", sorted(sources, key=ipaddress.ip_address)) if specific else ("exclude", [])
    wanted = {(each, link): filter_ for link in ("feed1", "feed0") for each in (group, other)}
    assert told(feed) == wanted
    tx.send(PORT, (listed, group, "1"), (unlisted, group, "2"), (listed, foreign, "3"), (listed, other, "4"))
    assert everything.until("4") == ["1", "2", "3", "4"]
    assert feed.until("4") == (["1", "4"] if specific else ["1", "2", "4"])
    tx.send(PORT, (family.far, group, "5"), (family.far, other, "end"))
    assert feed.until("end") == ["5", "end"]


def test_one_link_local_group_on_both_links(rx, tx):
    """Bound to the group it would be bound to one of the links, too."""
    feed = rx.receiver("ff12::195", PORT, interface=["feed0", "feed1"])
    tx.send(PORT, ("feed0", "ff12::195", "feed0"))
    assert feed.until("feed0") == ["feed0"]
    tx.send(PORT, ("feed1", "ff12::195", "feed1"))
    assert feed.until("feed1") == ["feed1"]


def test_where_one_of_several_interfaces_fails_nothing_is_joined(rig, rx, family):
    group = family.groups[0]
    call = lambda: rx.receiver(group, PORT, interface=["feed0", "nosuch0"])  # noqa: E731
    refused(errno.ENODEV, call, f"open_receiver {group}: no interface 'nosuch0'", "feed0, feed1")
    assert memberships(rig.rx, group) == set()


def test_over_ipv4_each_interface_has_a_filter_of_its_own(rx, tx):
    group, (one, two, _), far = IPV4.groups[0], IPV4.sources, IPV4.far
    feed = rx.receiver(group, PORT, interface=["feed0", "feed1"])
    feed.method("block", group, one, interface="feed0")
    feed.method("set_source_filter", group, "include", [far], interface="feed1")
    assert told(feed) == {(group, "feed0"): ("exclude", [one]), (group, "feed1"): ("include", [far])}
    tx.send(PORT, (one, group, "blocked"), (two, group, "2"))
    assert feed.until("2") == ["2"]
    tx.send(PORT, (far, group, "end"))
    assert feed.until("end") == ["end"]


def test_over_ipv6_linux_judges_all_interfaces_by_one_filter(rx, tx):
    """Why a receiver refuses two: the latest join is the one that counts. If a kernel cures that, let it show."""
    group, (one, two, _) = IPV6.groups[0], IPV6.sources
    feed = rx.receiver(group, PORT, interface=["feed0", "feed1"])
    feed.verb("block_source", group, one, interface="feed1")
    tx.send(PORT, (one, group, "blocked on the other interface"), (two, group, "end"))
    assert feed.until("end") == ["end"]


def test_over_ipv6_a_receiver_refuses_another_filter_on_another_interface(rx, tx):
    group, (one, two, _), far = IPV6.groups[0], IPV6.sources, IPV6.far
    feed = rx.receiver(group, PORT, interface=["feed0", "feed1"])
    words = (f"{group}", "feed0 (index 10)", "feed1 (index 11)", "open a receiver for each interface")
    for change in (
        lambda: feed.method("block", group, one, interface="feed0"),
        lambda: feed.method("set_source_filter", group, "include", [far], interface="feed1"),
    ):
        assert refused(None, change, *words).kind == "ValueError"
    assert set(map(str, told(feed).values())) == {"('exclude', [])"}
    assert feed.verb("get_source_filter", group, interface="feed0") == {"mode": "exclude", "sources": []}
    feed.method("leave", group, interface="feed1")
    feed.method("block", group, one)
    assert refused(None, lambda: feed.method("join", group, "feed1"), *words).kind == "ValueError"
    tx.send(PORT, (one, group, "blocked"), (two, group, "end"))
    assert feed.until("end") == ["end"]
    named = rx.receiver(group, PORT, interface=["feed0", "feed1"], source=[one, two])
    for change in (
        lambda: named.method("join", group, "feed0", far),
        lambda: named.method("leave", group, "feed1", one),
    ):
        assert refused(None, change, *words).kind == "ValueError"
    named.method("leave", group, "feed0")
    named.method("leave", group, source=one)
    assert told(named) == {(group, "feed1"): ("include", [two])}


def test_without_an_interface_it_is_the_one_on_which_the_group_is_joined(rig, rx, tx, family):
    group, other, *_ = family.groups
    one = family.sources[0]
    feed = rx.receiver([group, other], PORT, interface="feed1")
    feed.method("block", group, one)
    assert feed.verb("get_source_filter", group, interface="feed1")["sources"] == [one]
    feed.method("unblock", group, one)
    feed.method("set_source_filter", group, "include", [family.far])
    tx.send(PORT, (family.far, group, "here"))
    assert feed.until("here") == ["here"]
    feed.method("leave", group, source=family.far)
    assert memberships(rig.rx, group) == set()
    feed.method("join", other, "feed0")
    change = lambda: feed.method("leave", other)  # noqa: E731
    error = refused(None, change, f"leave {other}: it is joined on feed1 (index 11), feed0 (index 10): name the interf")
    assert error.kind == "ValueError"


ROUTES = {
    "IPv4": ("239.195.1.0/24", "239.195.1.1", "239.195.1.2"),
    "IPv6": ("ff15::195:100/120", "ff15::195:101", "ff15::195:102"),
}


@pytest.fixture
def route(rig, family):
    """Groups, and how to lead them to a link: at first to feed1."""
    prefix, *groups = ROUTES[str(family)]
    # Over IPv6 each interface has a route for all of multicast, in the table that is asked first.
    where = ["-6", "route"] if family is IPV6 else ["route"]
    what = ["multicast", prefix, "table", "local"] if family is IPV6 else [prefix]

    def lead(link: str | None) -> None:
        for each in INDEXES:
            with contextlib.suppress(RuntimeError):  # where there is none
                rig.rx.run("ip", *where, "delete", *what, "dev", each)
        if link is not None:
            rig.rx.run("ip", *where, "add", *what, "dev", link)

    lead("feed1")
    yield groups, lead
    lead(None)


def test_the_interface_that_the_route_led_to_is_remembered(rig, rx, tx, family, route):
    (group, other), lead = route
    feed = rx.receiver([group, other], PORT)
    assert memberships(rig.rx, group) == {"feed1"}
    assert told(feed) == dict.fromkeys([(group, "feed1"), (other, "feed1")], ("exclude", []))
    lead("feed0")
    feed.method("block", group, family.far)
    tx.send(PORT, (family.far, group, "blocked"), (family.far, other, "end"))
    assert feed.until("end") == ["end"]
    feed.method("leave", group)
    assert memberships(rig.rx, group) == set()


def test_the_verbs_go_where_the_route_leads(rig, rx, family, route):
    (group, _), _ = route
    feed = rx.receiver(group, PORT, interface="feed0")
    feed.verb("join_group", group)
    assert memberships(rig.rx, group) == {"feed0", "feed1"}
    feed.verb("block_source", group, family.far)
    assert feed.verb("get_source_filter", group) == {"mode": "exclude", "sources": [family.far]}
    assert feed.verb("get_source_filter", group, interface="feed1")["sources"] == [family.far]
    assert feed.verb("get_source_filter", group, interface="feed0")["sources"] == []
    feed.verb("unblock_source", group, family.far)
    feed.verb("set_source_filter", group, "include", [family.far])
    assert feed.verb("get_source_filter", group)["mode"] == "include"
    feed.verb("leave_group", group, source=family.far)
    assert memberships(rig.rx, group) == {"feed0"}


# Limits ------------------------------------------------------------------------------------------------------------


def test_more_groups_than_a_socket_may_join_are_counted_and_undone(rig, rx, tx, sysctl):
    sysctl(rig.rx, "net.ipv4.igmp_max_memberships", 3)
    groups = [f"239.195.3.{n}" for n in range(1, 6)]
    hint = "a limit was reached: net.ipv4.igmp_max_memberships (now 3); this would be group 4"
    call = lambda: rx.receiver(groups, PORT, interface="feed0")  # noqa: E731
    refused(errno.ENOBUFS, call, "open_receiver 239.195.3.4 on feed0", f"{hint} of 5")
    call = lambda: rx.receiver(groups[:2], PORT, interface=["feed0", "feed1"])  # noqa: E731
    refused(errno.ENOBUFS, call, "open_receiver 239.195.3.2 on feed1", f"{hint} of 4")
    assert all(memberships(rig.rx, group) == set() for group in groups)
    feed = rx.receiver(groups[:3], PORT, interface="feed0")
    error = refused(errno.ENOBUFS, lambda: feed.method("join", groups[3], "feed0"), "join 239.195.3.4 on feed0", hint)
    assert error.text.endswith("this would be group 4")
    verb = lambda: feed.verb("join_group", groups[3], "feed0")  # noqa: E731 - it does not know how many there are
    refused(errno.ENOBUFS, verb, "net.ipv4.igmp_max_memberships (now 3) or net.core.optmem_max (now ")
    feed.method("leave", groups[0])
    feed.method("join", groups[3], "feed0")
    tx.send(PORT, *((IPV4.sources[0], group, group) for group in groups))
    assert feed.until(groups[3]) == groups[1:4]


def test_more_sources_than_a_group_may_have_are_counted_and_change_nothing(rig, rx, sysctl):
    sysctl(rig.rx, "net.ipv4.igmp_max_msf", 2)
    group, sources = IPV4.groups[0], [f"192.0.2.{n}" for n in range(1, 5)]
    hint = "a limit was reached: net.ipv4.igmp_max_msf (now 2); this would be source 3"
    call = lambda: rx.receiver(group, PORT, interface="feed0", source=sources)  # noqa: E731
    refused(errno.ENOBUFS, call, f"open_receiver {group} from {sources[2]} on feed0", hint)
    assert memberships(rig.rx, group) == set()
    feed = rx.receiver(group, PORT, interface="feed0")
    for source in sources[:2]:
        feed.method("block", group, source)
    refused(errno.ENOBUFS, lambda: feed.method("block", group, sources[2]), hint)
    call = lambda: feed.verb("set_source_filter", group, "include", sources, "feed0")  # noqa: E731
    refused(errno.ENOBUFS, call, "set_source_filter", "igmp_max_msf (now 2); this would be source 4")
    assert told(feed) == {(group, "feed0"): ("exclude", sources[:2])}
    assert feed.verb("get_source_filter", group, "feed0") == {"mode": "exclude", "sources": sources[:2]}


def test_a_filter_larger_than_the_first_buffer_is_read_whole(rig, rx, sysctl):
    sysctl(rig.rx, "net.ipv4.igmp_max_msf", 200)
    group, sources = IPV4.groups[0], [f"198.51.100.{n}" for n in range(1, 201)]
    feed = rx.receiver(group, PORT, interface="feed0")
    for n in (63, 64, 65, 129, 200):
        feed.method("set_source_filter", group, "exclude", sources[:n])
        assert feed.verb("get_source_filter", group, "feed0") == {"mode": "exclude", "sources": sources[:n]}


@pytest.mark.parametrize("how", ["verb", "method"])
def test_a_join_refused_for_lack_of_memory_leaves_nothing_behind(rig, rx, sysctl, family, how):
    """Linux makes the entry, has no memory for its source, and keeps it: letting nothing in, but counted."""
    *groups, group = family.groups[:3]
    source = family.sources[0]
    feed = rx.receiver(groups, PORT, interface="feed0")
    sysctl(rig.rx, "net.core.optmem_max", {"IPv4": 160, "IPv6": 200}[str(family)])  # room for a third entry alone
    for _ in range(3):
        with pytest.raises(AgentError) as caught:
            if how == "verb":
                feed.verb("join_group", group, "feed0", source)
            else:
                feed.method("join", group, "feed0", source)
        assert caught.value.errno == errno.ENOBUFS
        assert "net.core.optmem_max (now " in caught.value.text
        assert caught.value.text.endswith("; this would be source 1")
        assert memberships(rig.rx, group) == set()
        get = lambda: feed.verb("get_source_filter", group, "feed0")  # noqa: E731
        refused(errno.EADDRNOTAVAIL, get, "has not joined it")
    assert list(told(feed)) == [(each, "feed0") for each in groups]
    feed.verb("join_group", group, "feed0")  # for which there is room


def test_too_little_memory_for_a_group_is_named(rig, rx, sysctl, family):
    sysctl(rig.rx, "net.core.optmem_max", 100)
    call = lambda: rx.receiver(list(family.groups), PORT, interface="feed0")  # noqa: E731
    number = errno.ENOBUFS if family is IPV4 else errno.ENOMEM
    refused(number, call, "open_receiver", "net.core.optmem_max (now 100)")
    assert all(memberships(rig.rx, group) == set() for group in family.groups)
