"""What a receiver is given when several hosts send: memberships, sources and interfaces, on real links.

Owns `tx` and `rx`: an agent in each of these hosts of the rig, for every test. Must not wait to see that something does
not come: what is sent after it does, and all that one agent sends arrives in order.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
from dataclasses import dataclass

import pytest
from rig import LINKS, AgentError

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux")

PORT = 40_000


@dataclass(frozen=True)
class Family:
    name: str
    any: str  # the address that a socket of this family is bound to for all
    own: tuple[str, str]  # rx's addresses on feed0 and on feed1
    sources: tuple[str, str, str]  # tx's addresses on feed0
    far: str  # tx's address on feed1
    groups: tuple[str, str, str, str]

    def __str__(self) -> str:
        return self.name


IPV4 = Family(
    name="IPv4",
    any="0.0.0.0",
    own=("192.0.2.1", "198.51.100.1"),
    sources=("192.0.2.11", "192.0.2.12", "192.0.2.13"),
    far="198.51.100.11",
    groups=("239.195.0.1", "239.195.0.2", "239.195.0.3", "239.195.0.4"),
)
IPV6 = Family(
    name="IPv6",
    any="::",
    own=("2001:db8::1", "2001:db8:0:1::1"),
    sources=("2001:db8::11", "2001:db8::12", "2001:db8::13"),
    far="2001:db8:0:1::11",
    groups=("ff15::195:1", "ff15::195:2", "ff15::195:3", "ff15::195:4"),
)


@pytest.fixture(params=[IPV4, IPV6], ids=str)
def family(request) -> Family:
    return request.param


@pytest.fixture
def rx(rig, agent):
    return agent(rig.rx)


@pytest.fixture
def tx(rig, agent):
    return agent(rig.tx)


# Any source --------------------------------------------------------------------------------------------------------


def test_a_receiver_gets_its_group_from_every_source_and_no_other_group(rx, tx, family):
    group, other, *_ = family.groups
    first, second, third = family.sources
    feed = rx.receiver(group, PORT, interface="feed0")
    tx.send(PORT, (first, group, "1"), (second, group, "2"), (first, other, "other"), (third, group, "end"))
    assert feed.until("end") == ["1", "2", "end"]
    stats = feed.stats()
    assert (stats["datagrams"], stats["bytes"], stats["drops"]) == (3, 5, 0)


@pytest.mark.parametrize("joined", [1, 2], ids=["bound to the group", "bound to any address"])
def test_a_group_that_another_socket_of_the_host_joined_is_not_received(rig, agent, rx, tx, family, joined):
    own, foreign = family.groups[:joined], family.groups[3]
    source = family.sources[0]
    feed = rx.receiver(own if joined > 1 else own[0], PORT, interface="feed0")
    other = rx.receiver(foreign, PORT, interface="feed0")
    other_process = agent(rig.rx).receiver(foreign, PORT, interface="feed0")
    # A socket as the standard library makes it, which joined nothing, gets what any socket of the host joined.
    plain = rx.plain(family.any, PORT)
    tx.send(PORT, (source, own[0], "own"), (source, foreign, "foreign"), (source, own[-1], "end"))
    assert plain.until("end") == ["own", "foreign", "end"]
    assert other.until("foreign") == other_process.until("foreign") == ["foreign"]
    assert feed.until("end") == ["own", "end"]
    assert feed.stats()["datagrams"] == 2


def test_every_receiver_of_a_group_gets_a_copy(rig, agent, rx, tx, family):
    group, source = family.groups[0], family.sources[0]
    receivers = [process.receiver(group, PORT, interface="feed0") for process in (rx, rx, agent(rig.rx))]
    tx.send(PORT, (source, group, "1"), (source, group, "end"))
    assert [each.until("end") for each in receivers] == [["1", "end"]] * 3


def test_several_groups_on_one_receiver(rx, tx, family):
    *groups, other = family.groups
    source = family.sources[0]
    feed = rx.receiver(groups, PORT, interface="feed0")
    tx.send(PORT, *((source, group, group) for group in (*groups, other)), (source, groups[0], "end"))
    assert feed.until("end") == [*groups, "end"]


def test_unicast_to_the_port_does_not_reach_a_receiver_of_one_group(rx, tx, family):
    group, source = family.groups[0], family.sources[0]
    bound_to_any = rx.plain(family.any, PORT)
    feed = rx.receiver(group, PORT, interface="feed0")
    tx.send(PORT, (source, family.own[0], "unicast"))
    assert bound_to_any.until("unicast") == ["unicast"]
    tx.send(PORT, (source, group, "end"))
    assert feed.until("end") == ["end"]


# Named sources -----------------------------------------------------------------------------------------------------


def test_a_source_specific_join_receives_that_source_alone(rx, tx, family):
    group = family.groups[0]
    listed, *unlisted = family.sources
    feed = rx.receiver(group, PORT, interface="feed0", source=listed)
    from_all = rx.receiver(group, PORT, interface="feed0")
    tx.send(
        PORT, (unlisted[0], group, "no"), (listed, group, "yes"), (unlisted[1], group, "no"), (listed, group, "end")
    )
    assert from_all.until("end") == ["no", "yes", "no", "end"]
    assert feed.until("end") == ["yes", "end"]


def test_two_sources_of_several_groups_on_one_receiver(rx, tx, family):
    *groups, other = family.groups
    *listed, unlisted = family.sources
    feed = rx.receiver(groups, PORT, interface="feed0", source=listed)
    from_all = rx.receiver(list(family.groups), PORT, interface="feed0")
    sent = [(source, group) for group in (*groups, other) for source in family.sources]
    tx.send(
        PORT,
        *((source, group, f"{source} {group}") for source, group in sent),
        (listed[0], groups[0], "end"),
    )
    assert from_all.until("end") == [*(f"{source} {group}" for source, group in sent), "end"]
    wanted = [(source, group) for source, group in sent if source != unlisted and group != other]
    assert feed.until("end") == [*(f"{source} {group}" for source, group in wanted), "end"]


# Leaving -----------------------------------------------------------------------------------------------------------


def test_leaving_a_group_ends_its_delivery_though_the_host_still_gets_it(rx, tx, family):
    left, kept, *_ = family.groups
    source = family.sources[0]
    feed = rx.receiver([left, kept], PORT, interface="feed0")
    still = rx.receiver(left, PORT, interface="feed0")
    tx.send(PORT, (source, left, "before"))
    assert feed.until("before") == ["before"]
    feed.leave(left, interface="feed0")
    tx.send(PORT, (source, left, "after"), (source, kept, "end"))
    assert still.until("after") == ["before", "after"]
    assert feed.until("end") == ["end"]


def test_the_only_group_can_be_left_and_joined_again(rx, tx, family):
    group, source = family.groups[0], family.sources[0]
    feed = rx.receiver(group, PORT, interface="feed0")
    still = rx.receiver(group, PORT, interface="feed0")
    feed.leave(group, interface="feed0")
    tx.send(PORT, (source, group, "left"))
    assert still.until("left") == ["left"]
    feed.join(group, interface="feed0")
    tx.send(PORT, (source, group, "end"))
    assert feed.until("end") == ["end"]


def test_leaving_one_of_two_sources_ends_just_that_one(rx, tx, family):
    group = family.groups[0]
    left, kept, _ = family.sources
    feed = rx.receiver(group, PORT, interface="feed0", source=[left, kept])
    from_all = rx.receiver(group, PORT, interface="feed0")
    tx.send(PORT, (left, group, "1"), (kept, group, "2"))
    assert feed.until("2") == ["1", "2"]
    feed.leave(group, interface="feed0", source=left)
    tx.send(PORT, (left, group, "3"), (kept, group, "end"))
    assert from_all.until("end") == ["1", "2", "3", "end"]
    assert feed.until("end") == ["end"]


def test_what_was_not_joined_can_not_be_left(rx, family):
    group, other, *_ = family.groups
    feed = rx.receiver(group, PORT, interface="feed0", source=family.sources[0])
    for wrong in ({"interface": "feed1"}, {"interface": "feed0", "source": family.sources[1]}):
        with pytest.raises(AgentError, match=f"leave {group}.* on {wrong['interface']} ") as refused:
            feed.leave(group, **wrong)
        assert refused.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(AgentError, match=f"leave {other} on feed0 ") as refused:
        feed.leave(other, interface="feed0")
    assert refused.value.errno == errno.EADDRNOTAVAIL


# Interfaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["name", "index", "own address", "Interface"])
def test_the_interface_to_join_on(rig, rx, tx, family, how):
    interface = {
        "name": "feed1",
        "index": LINKS["feed1"]["rx"][0],
        "own address": family.own[1],
        "Interface": {"Interface": "feed1"},
    }[how]
    group = family.groups[0]
    feed = rx.receiver(group, PORT, interface=interface)
    assert memberships(rig.rx, group) == {"feed1"}
    tx.send(PORT, (family.sources[0], group, "not joined here"), (family.far, group, "end"))
    assert feed.until("end") == ["end"]


def test_no_interface_is_the_one_that_the_route_leads_to(rig, rx, tx):
    rig.rx.ip("route add 239.195.1.0/24 dev feed1")
    try:
        feed = rx.receiver("239.195.1.1", PORT)
    finally:
        rig.rx.ip("route delete 239.195.1.0/24 dev feed1")
    assert memberships(rig.rx, "239.195.1.1") == {"feed1"}
    tx.send(PORT, (IPV4.far, "239.195.1.1", "end"))
    assert feed.until("end") == ["end"]


@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
@pytest.mark.parametrize("specific", [False, True], ids=["any source", "named source"])
def test_what_comes_in_elsewhere_is_not_received(rx, tx, family, joined, specific):
    group = family.groups[0]
    groups = family.groups[:joined] if joined > 1 else group
    source = family.sources[0]
    feed = rx.receiver(groups, PORT, interface="feed0", source=source if specific else None)
    elsewhere = rx.receiver(group, PORT, interface="feed1")  # so the host takes the group from there, too
    tx.send(PORT, (source, group, "here"), (family.far, group, "elsewhere"), (source, group, "end"))
    assert elsewhere.until("elsewhere") == ["elsewhere"]
    assert feed.until("end") == ["here", "end"]


@pytest.mark.parametrize("how", ["zone", "interface", "both", "index as zone"])
def test_a_link_local_group_is_of_one_link(rig, rx, tx, how):
    group = "ff12::195"
    zone = {"zone": "%feed0", "both": "%feed0", "index as zone": f"%{LINKS['feed0']['rx'][0]}"}.get(how, "")
    options = {"interface": "feed0"} if how in ("interface", "both") else {}
    feed = rx.receiver(group + zone, PORT, **options)
    elsewhere = rx.receiver(group, PORT, interface="feed1")
    assert memberships(rig.rx, group) == {"feed0", "feed1"}
    tx.send(PORT, (IPV6.sources[0], group, "here"), (IPV6.far, group, "elsewhere"), ("feed0", group, "end"))
    assert feed.until("end") == ["here", "end"]
    assert elsewhere.until("elsewhere") == ["elsewhere"]
    feed.leave(group + zone, **options)
    assert memberships(rig.rx, group) == {"feed1"}


def test_several_link_local_groups_on_one_receiver(rx, tx):
    groups = ["ff12::195", "ff12::196"]
    feed = rx.receiver(groups, PORT, interface="feed0")
    elsewhere = rx.receiver(groups, PORT, interface="feed1")
    tx.send(PORT, *(("feed0", group, group) for group in groups), ("feed1", groups[0], "end"))
    tx.send(PORT, ("feed0", groups[0], "end"))
    assert feed.until("end") == [*groups, "end"]
    assert elsewhere.until("end") == ["end"]


@pytest.mark.parametrize("link", ["feed0", "feed1"])
def test_a_link_local_address_means_the_interface_of_its_zone(rig, rx, link):
    """Each of rx's links has it: the zone tells them apart."""
    rx.receiver("ff15::195:1", PORT, interface=f"fe80::1%{link}")
    assert memberships(rig.rx, "ff15::195:1") == {link}


@pytest.mark.parametrize("group", ["ff12::195", "ff15::195:1"])
def test_a_link_local_address_can_be_sent_from(rx, tx, group):
    feed = rx.receiver(group, PORT, interface="feed1", source="fe80::11")
    tx.send(PORT, (IPV6.far, group, "other source"), ("fe80::11%feed1", group, "end"))
    assert feed.until("end") == ["end"]


def test_one_group_on_two_interfaces(rx, tx, family):
    group, source = family.groups[0], family.sources[0]
    feed = rx.receiver(group, PORT, interface="feed0")
    feed.join(group, interface="feed1")
    tx.send(PORT, (source, group, "feed0"), (family.far, group, "feed1"))
    assert feed.until("feed1") == ["feed0", "feed1"]
    feed.leave(group, interface="feed0")
    tx.send(PORT, (source, group, "left"), (family.far, group, "end"))
    assert feed.until("end") == ["end"]


def test_a_link_local_group_needs_its_link(rx):
    with pytest.raises(AgentError, match=r"open_receiver ff12::195: .* name the interface") as refused:
        rx.receiver("ff12::195", PORT)
    assert refused.value.kind == "ValueError"


def test_an_interface_that_has_gone_is_left_by_its_index(rig, rx, family):
    group, other, *_ = family.groups
    rig.rx.ip("link add gone0 index 30 type veth peer name gone1", "link set gone0 up")
    feed = rx.receiver([group, other], PORT, interface="gone0")
    assert memberships(rig.rx, group) == {"gone0"}
    rig.rx.ip("link delete gone0")
    with pytest.raises(AgentError, match=f"join {group}: no interface 30 ") as refused:
        feed.join(group, interface=30)
    assert refused.value.errno == errno.ENODEV
    feed.leave(group, interface=30)
    with pytest.raises(AgentError, match=f"leave {group} on index 30: ") as refused:
        feed.leave(group, interface=30)  # it was left indeed
    assert refused.value.errno == errno.EADDRNOTAVAIL
    feed.leave(other, interface=30)


def test_an_interface_that_has_gone_is_left_by_its_index_and_source(rig, rx, family):
    group, source = family.groups[0], family.sources[0]
    rig.rx.ip("link add gone0 index 30 type veth peer name gone1", "link set gone0 up")
    feed = rx.receiver(group, PORT, interface="gone0", source=source)
    rig.rx.ip("link delete gone0")
    feed.leave(group, interface=30, source=source)


def test_digits_are_a_name_if_an_interface_is_called_so_and_else_an_index(rig, agent, family):
    """As text, also in a zone and in a feed, which ip(8) and getaddrinfo(3) read so, too; a number is an index."""
    group, local = family.groups[0], "ff02::239:7"
    here = agent(rig.island)

    def joined(interface, group=group):
        receiver = here.receiver(group, PORT, **({} if interface is None else {"interface": interface}))
        found = [each["interface"] for each in receiver.memberships()]
        receiver.close()
        return found

    rig.island.ip("link add 31 index 30 type veth peer name 30 index 31", "link set 30 up", "link set 31 up")
    try:
        assert (joined("30"), joined("31"), joined(30), joined(31)) == (["30"], ["31"], ["31"], ["30"])
        rig.island.ip("link set 31 down", "link set 31 name other0", "link set other0 up")
        assert (joined("30"), joined("31"), joined(31)) == (["30"], ["30"], ["30"])
        assert (joined(None, f"{local}%31"), joined("31", f"{local}%30")) == (["30"], ["30"])
        for nowhere in ("99", "0", "2147483648", "9" * 5000):
            with pytest.raises(AgentError, match=r"no interface 99 |an interface's index is an integer from 1 to"):
                joined(nowhere)
    finally:
        rig.island.ip("link delete 30")


def test_without_route_and_interface_a_join_says_what_failed(rig, agent, family):
    group = family.groups[0]
    with pytest.raises(AgentError, match=f"^OSError: .*open_receiver {group}: .*no interface was named") as refused:
        agent(rig.island).receiver(group, PORT)
    assert refused.value.errno == errno.ENODEV


# Limits and sharing ------------------------------------------------------------------------------------------------


def test_the_limit_of_memberships_is_named_and_costs_no_group(rig, rx, tx):
    rig.rx.run("sh", "-c", "echo 20 > /proc/sys/net/ipv4/igmp_max_memberships")
    groups = [f"239.195.2.{number}" for number in range(1, 22)]
    feed = rx.receiver(groups[:20], PORT, interface="feed0")
    with pytest.raises(AgentError) as refused:
        feed.join(groups[20], interface="feed0")
    assert refused.value.errno == errno.ENOBUFS
    assert "join 239.195.2.21 on feed0" in refused.value.text
    assert "net.ipv4.igmp_max_memberships (now 20)" in refused.value.text
    source = IPV4.sources[0]
    tx.send(PORT, *((source, group, group) for group in reversed(groups)))
    assert feed.until(groups[0]) == groups[19::-1]


@pytest.mark.parametrize("first", [True, False], ids=["exclusive first", "exclusive last"])
@pytest.mark.parametrize("joined", [1, 2], ids=["one group", "two groups"])
def test_exclusive_refuses_to_share(rig, agent, rx, tx, family, first, joined):
    groups = family.groups[:joined] if joined > 1 else family.groups[0]
    feed = rx.receiver(groups, PORT, interface="feed0", exclusive=first)
    for other in (rx, agent(rig.rx)):
        with pytest.raises(AgentError, match=r"binding to .*:40000: .*exclusive") as refused:
            other.receiver(groups, PORT, interface="feed0", exclusive=not first)
        assert refused.value.errno == errno.EADDRINUSE
    tx.send(PORT, (family.sources[0], family.groups[0], "end"))
    assert feed.until("end") == ["end"]


# What the kernel has ------------------------------------------------------------------------------------------------


def memberships(host, group: str) -> set[str]:
    """The interfaces on which a host is a member of the group (/proc/net/igmp, igmp6)."""
    address = ipaddress.ip_address(group)
    if address.version == 6:
        rows = [line.split() for line in host.read("/proc/net/igmp6").splitlines()]
        return {name for _, name, member, *_ in rows if member == address.packed.hex()}
    # A line with an interface, then one for each of its groups: as the number that the bytes are on this machine.
    wanted = f"{int.from_bytes(address.packed, sys.byteorder):08X}"
    found, name = set(), ""
    for line in host.read("/proc/net/igmp").splitlines()[1:]:
        if not line[0].isspace():
            name = line.split()[1]
        elif line.split()[0] == wanted:
            found.add(name)
    return found


def filters(host, group: str) -> set[tuple[str, str]]:
    """The interfaces and sources from which a host wants the group (/proc/net/mcfilter, mcfilter6)."""
    address = ipaddress.ip_address(group)
    rows = [line.split() for line in host.read("/proc/net/mcfilter" + "6" * (address.version == 6)).splitlines()[1:]]
    wanted = address.packed.hex()
    return {
        (name, str(ipaddress.ip_address(bytes.fromhex(source.removeprefix("0x")))))
        for _, name, member, source, included, _ in rows
        if member.removeprefix("0x") == wanted and included != "0"
    }


def test_memberships_are_there_while_joined_and_gone_after_close(rig, rx, family):
    any_source, specific, *_ = family.groups
    *listed, _ = family.sources
    receivers = [
        rx.receiver(any_source, PORT, interface="feed0"),
        rx.receiver(any_source, PORT, interface="feed1"),
        rx.receiver(specific, PORT, interface="feed0", source=listed),
    ]
    assert memberships(rig.rx, any_source) == {"feed0", "feed1"}
    assert memberships(rig.rx, specific) == {"feed0"}
    assert filters(rig.rx, any_source) == set()
    assert filters(rig.rx, specific) == {("feed0", source) for source in listed}
    receivers[2].leave(specific, interface="feed0", source=listed[0])
    assert filters(rig.rx, specific) == {("feed0", listed[1])}
    receivers.pop(0).close()
    assert memberships(rig.rx, any_source) == {"feed1"}
    for each in receivers:
        each.close()
    assert memberships(rig.rx, any_source) == memberships(rig.rx, specific) == set()
    assert filters(rig.rx, specific) == set()


def test_a_refused_receiver_leaves_no_membership(rig, rx, family):
    group, other, *_ = family.groups
    with pytest.raises(AgentError) as refused:
        rx.receiver([group, other], PORT, interface="feed0", source=[family.sources[0], family.any])
    assert refused.value.kind == "ValueError"
    assert memberships(rig.rx, group) == set()
