"""Bad sockets, groups, sources, interfaces, zones: refused by the exception of a kind, in words that name the call."""

from __future__ import annotations

import errno
import ipaddress
import socket

import pytest
from refusals import GROUP, GROUP6, HUGE, LO, NO_INDEX, PORT, UNASSIGNED, needs_ipv6, refused, shown

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


@pytest.fixture
def sock(multicast):
    """A socket to be joined."""
    made = multicast.genSocket()
    yield made
    made.close()


@pytest.fixture
def sock6():
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    yield made
    made.close()


# Sockets -----------------------------------------------------------------------------------------------------------

MEMBERSHIP_VERBS = {
    "join_group": lambda m, sock: m.join_group(sock, GROUP, "lo"),
    "leave_group": lambda m, sock: m.leave_group(sock, GROUP, "lo"),
    "block_source": lambda m, sock: m.block_source(sock, GROUP, SOURCE, "lo"),
    "unblock_source": lambda m, sock: m.unblock_source(sock, GROUP, SOURCE, "lo"),
    "set_source_filter": lambda m, sock: m.set_source_filter(sock, GROUP, "include", [], "lo"),
    "get_source_filter": lambda m, sock: m.get_source_filter(sock, GROUP, "lo"),
}
MULTICAST_VERBS = MEMBERSHIP_VERBS | {
    "set_multicast_interface": lambda m, sock: m.set_multicast_interface(sock, "lo"),
    "set_multicast_ttl": lambda m, sock: m.set_multicast_ttl(sock, 0),
    "set_multicast_loopback": lambda m, sock: m.set_multicast_loopback(sock, True),
}
DATAGRAM_CALLS = MULTICAST_VERBS | {
    "Receiver": lambda m, sock: m.Receiver(sock),
    "Sender": lambda m, sock: m.Sender(sock),
}
SOCKET_CALLS = DATAGRAM_CALLS | {"set_receive_buffer": lambda m, sock: m.set_receive_buffer(sock, 4096)}


@pytest.mark.parametrize("value", [None, 3, -1, True, 1.5, float("nan"), "lo", b"", "\ud800", [], object()], ids=shown)
@pytest.mark.parametrize("operation", SOCKET_CALLS)
def test_what_is_no_socket_is_a_type_error(multicast, operation, value):
    refused(TypeError, lambda: SOCKET_CALLS[operation](multicast, value), f"{operation}: sock ", repr(value))


@pytest.mark.parametrize("operation", SOCKET_CALLS)
def test_a_descriptor_is_no_socket(multicast, sock, operation):
    refused(TypeError, lambda: SOCKET_CALLS[operation](multicast, sock.fileno()), f"{operation}: sock ")


@pytest.mark.parametrize("operation", SOCKET_CALLS)
def test_a_closed_socket_is_a_bad_descriptor(multicast, sock, operation):
    sock.close()
    refused(errno.EBADF, lambda: SOCKET_CALLS[operation](multicast, sock), f"{operation}: the socket is closed")


@pytest.mark.parametrize("operation", DATAGRAM_CALLS)
def test_a_stream_socket_is_a_value_error(multicast, operation):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        refused(ValueError, lambda: DATAGRAM_CALLS[operation](multicast, stream), f"{operation}: ", "SOCK_STREAM")


@pytest.mark.parametrize("operation", MULTICAST_VERBS)
def test_a_family_without_multicast_is_a_value_error(multicast, operation):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        refused(ValueError, lambda: MULTICAST_VERBS[operation](multicast, local), f"{operation}: ", "AF_UNIX")


def test_a_sender_needs_a_connected_socket(multicast, sock):
    refused(ValueError, lambda: multicast.Sender(sock), "Sender: the socket is not connected")
    assert sock.fileno() >= 0


@pytest.mark.parametrize("value", [None, 3, -1, True, 1.5, float("nan"), "lo", b"", "\ud800", [], HUGE], ids=shown)
def test_end_socket_takes_anything(multicast, value):
    assert multicast.endSocket(value) is None
    assert multicast.endSocket(sock=value) is None


def test_the_fixed_functions_take_no_more_than_they_say(multicast):
    for call in (lambda: multicast.genSocket(1), lambda: multicast.genSocket(family=socket.AF_INET)):
        refused(TypeError, call, "genSocket()")
    for call in (lambda: multicast.endSocket(None, None), lambda: multicast.endSocket(force=True)):
        refused(TypeError, call, "endSocket()")


# Groups ------------------------------------------------------------------------------------------------------------

SOURCE, SOURCE6 = "192.0.2.1", "2001:db8::1"
GROUP_CALLS = {
    "join_group": lambda m, sock, group: m.join_group(sock, group, "lo"),
    "leave_group": lambda m, sock, group: m.leave_group(sock, group, "lo"),
    "block_source": lambda m, sock, group: m.block_source(sock, group, SOURCE, "lo"),
    "unblock_source": lambda m, sock, group: m.unblock_source(sock, group, SOURCE, "lo"),
    "set_source_filter": lambda m, sock, group: m.set_source_filter(sock, group, "exclude", [], "lo"),
    "get_source_filter": lambda m, sock, group: m.get_source_filter(sock, group, "lo"),
    "open_receiver": lambda m, sock, group: m.open_receiver(group, PORT, interface="lo"),
    "open_sender": lambda m, sock, group: m.open_sender(group, PORT, interface="lo", ttl=0),
}
UNICAST = ["192.0.2.1", "0.0.0.0", "255.255.255.255", "240.0.0.1", "223.255.255.255", "::", "::1", "fe80::1"]
NO_ADDRESS = ["", " ", "lo", "239.255.0", "239.255.0.1 ", " 239.255.0.1", "239.255.0.1\n", "239.255.0.256", "1"]
NO_ADDRESS += ["239.255.0.01", "0xef.255.0.1", "4026466305", "239.255.0.1:5000", "239.255.0.1/32", "[ff15::1]"]
NO_ADDRESS += ["ff15:::1", "ff15::1%", "239.255.0.1%lo", "239.255.0.1\0", "\0", "\ud800", "ff15::\udcff"]


@pytest.mark.parametrize("value", [None, 5, True, 1.5, float("nan"), b"239.255.0.1", object(), int], ids=shown)
@pytest.mark.parametrize("operation", GROUP_CALLS)
def test_a_group_of_a_wrong_type_is_a_type_error(multicast, sock, operation, value):
    refused(TypeError, lambda: GROUP_CALLS[operation](multicast, sock, value), f"{operation}: group ")


@pytest.mark.parametrize("operation", [each for each in GROUP_CALLS if each != "open_receiver"])
def test_several_groups_are_for_open_receiver_alone(multicast, sock, operation):
    refused(TypeError, lambda: GROUP_CALLS[operation](multicast, sock, [GROUP]), f"{operation}: group ", GROUP)


@pytest.mark.parametrize("value", NO_ADDRESS, ids=shown)
@pytest.mark.parametrize("operation", GROUP_CALLS)
def test_a_text_that_is_no_address_is_a_value_error(multicast, sock, operation, value):
    refused(ValueError, lambda: GROUP_CALLS[operation](multicast, sock, value), f"{operation}: ", repr(value), "group")


def test_an_error_about_a_long_text_is_not_as_long(multicast, sock):
    for expected, call in (
        (ValueError, lambda: multicast.join_group(sock, "x" * 100_000, "lo")),
        (errno.ENODEV, lambda: multicast.join_group(sock, GROUP, "x" * 100_000)),
        (TypeError, lambda: multicast.join_group(sock, b"x" * 100_000, "lo")),
        (TypeError, lambda: multicast.set_multicast_ttl(sock, [0] * 100_000)),
    ):
        assert len(str(refused(expected, call, "xxx" if expected is not TypeError else ""))) < 10_000


@pytest.mark.parametrize("value", [*UNICAST, ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("::1")], ids=shown)
@pytest.mark.parametrize("operation", GROUP_CALLS)
def test_unicast_is_no_group(multicast, sock, operation, value):
    refused(ValueError, lambda: GROUP_CALLS[operation](multicast, sock, value), f"{operation}: {value} is no multicast")


def test_an_ipaddress_object_that_is_no_address_is_refused(multicast, sock):
    for operation, call in GROUP_CALLS.items():
        value = ipaddress.ip_interface(f"{GROUP}/32")
        refused(ValueError, lambda: call(multicast, sock, value), f"{operation}: ", "group")  # noqa: B023


@needs_ipv6
@pytest.mark.parametrize("operation", MEMBERSHIP_VERBS)
def test_a_group_must_be_of_the_sockets_family(multicast, sock, sock6, operation):
    call = GROUP_CALLS[operation]
    if operation in ("block_source", "unblock_source"):  # whose source is of one family, too
        refused(ValueError, lambda: call(multicast, sock, GROUP6), f"{operation}: ", "different families")
    else:
        refused(ValueError, lambda: call(multicast, sock, GROUP6), f"{operation} {GROUP6}", "AF_INET")
    refused(ValueError, lambda: call(multicast, sock6, GROUP), f"{operation} {GROUP}", "AF_INET6")


@pytest.mark.parametrize("value", [[], (), set(), {}, iter(())], ids=shown)
def test_no_group_at_all_is_a_value_error(multicast, value):
    refused(ValueError, lambda: multicast.open_receiver(value, PORT), "open_receiver: no group")


def test_groups_of_two_families_are_a_value_error(multicast):
    groups = [GROUP, GROUP6]
    refused(ValueError, lambda: multicast.open_receiver(groups, PORT, interface="lo"), "open_receiver: ", *groups)


@pytest.mark.parametrize("value", [None, 5, b"239.255.0.1", "192.0.2.1", "nonsense", [GROUP]], ids=shown)
def test_one_bad_group_among_good_ones_is_refused(multicast, value):
    with pytest.raises((TypeError, ValueError), match=r"^open_receiver: "):
        multicast.open_receiver([GROUP, value], PORT, interface="lo")


def test_an_error_of_the_callers_own_iterable_reaches_the_caller(multicast):
    def groups():
        yield GROUP
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        multicast.open_receiver(groups(), PORT, interface="lo")


# Sources -----------------------------------------------------------------------------------------------------------

SOURCE_CALLS = {
    "join_group": lambda m, sock, source: m.join_group(sock, GROUP, "lo", source),
    "leave_group": lambda m, sock, source: m.leave_group(sock, GROUP, "lo", source),
    "block_source": lambda m, sock, source: m.block_source(sock, GROUP, source, "lo"),
    "unblock_source": lambda m, sock, source: m.unblock_source(sock, GROUP, source, "lo"),
    "set_source_filter": lambda m, sock, source: m.set_source_filter(sock, GROUP, "exclude", source, "lo"),
    "set_source_filter, one of several": lambda m, sock, source: m.set_source_filter(
        sock, GROUP, "include", iter([SOURCE, source]), "lo"
    ),
    "open_receiver": lambda m, sock, source: m.open_receiver(GROUP, PORT, interface="lo", source=source),
}


@pytest.mark.parametrize("value", [5, True, 1.5, float("nan"), b"192.0.2.1", object()], ids=shown)
@pytest.mark.parametrize("operation", SOURCE_CALLS)
def test_a_source_of_a_wrong_type_is_a_type_error(multicast, sock, operation, value):
    doing, _, _ = operation.partition(",")
    refused(TypeError, lambda: SOURCE_CALLS[operation](multicast, sock, value), f"{doing}: source ")


@pytest.mark.parametrize("value", ["", "lo", "192.0.2", "192.0.2.1%lo", "192.0.2.1\0", "\ud800"], ids=shown)
@pytest.mark.parametrize("operation", SOURCE_CALLS)
def test_a_source_that_is_no_address_is_a_value_error(multicast, sock, operation, value):
    doing, _, _ = operation.partition(",")
    refused(ValueError, lambda: SOURCE_CALLS[operation](multicast, sock, value), f"{doing}: ", repr(value), "source")


@pytest.mark.parametrize("value", [GROUP, "224.0.0.1", "0.0.0.0", "255.255.255.255"])
@pytest.mark.parametrize("operation", SOURCE_CALLS)
def test_what_no_host_can_have_is_no_source(multicast, sock, operation, value):
    doing, _, _ = operation.partition(",")
    refused(ValueError, lambda: SOURCE_CALLS[operation](multicast, sock, value), f"{doing}: {value} is no", GROUP)


@pytest.mark.parametrize("operation", SOURCE_CALLS)
def test_a_source_must_be_of_the_groups_family(multicast, sock, operation):
    call, (doing, _, _) = SOURCE_CALLS[operation], operation.partition(",")
    refused(ValueError, lambda: call(multicast, sock, "2001:db8::1"), f"{doing}: ", "2001:db8::1", GROUP)


@pytest.mark.parametrize("value", [[], (), iter(())], ids=shown)
def test_no_source_at_all_is_a_value_error(multicast, value):
    refused(ValueError, lambda: multicast.open_receiver(GROUP, PORT, source=value), "open_receiver: no source")


@needs_ipv6
def test_an_ipv6_group_is_no_source(multicast, sock6):
    for value in (GROUP6, "::"):
        call = lambda: multicast.join_group(sock6, GROUP6, "lo", value)  # noqa: B023, E731
        refused(ValueError, call, f"join_group: {value} is no", GROUP6)


# Interfaces --------------------------------------------------------------------------------------------------------

FROM = f"{GROUP} from {SOURCE}"
INTERFACE_CALLS = {
    "join_group": (GROUP, lambda m, sock, interface: m.join_group(sock, GROUP, interface)),
    "leave_group": (GROUP, lambda m, sock, interface: m.leave_group(sock, GROUP, interface)),
    "block_source": (FROM, lambda m, sock, interface: m.block_source(sock, GROUP, SOURCE, interface)),
    "unblock_source": (FROM, lambda m, sock, interface: m.unblock_source(sock, GROUP, SOURCE, interface)),
    "set_source_filter": (GROUP, lambda m, sock, interface: m.set_source_filter(sock, GROUP, "exclude", [], interface)),
    "get_source_filter": (GROUP, lambda m, sock, interface: m.get_source_filter(sock, GROUP, interface)),
    "set_multicast_interface": ("", lambda m, sock, interface: m.set_multicast_interface(sock, interface)),
    "open_receiver": (GROUP, lambda m, sock, interface: m.open_receiver(GROUP, PORT, interface=interface)),
    "open_sender": (GROUP, lambda m, sock, interface: m.open_sender(GROUP, PORT, interface=interface, ttl=0)),
}
LEFT_AND_READ = ("leave_group", "get_source_filter")  # what still can be done where the interface has gone
UNKNOWN_NAMES = ["", "nosuch0", "LO", " lo", "lo ", "lo\0", "lo\n", "\ud800", "lo/..", "%lo", "1x", "²", "n" * 16]


def interface_call(multicast, sock, operation, value):
    group, call = INTERFACE_CALLS[operation]
    return f"{operation} {group}".rstrip(), lambda: call(multicast, sock, value)


@pytest.mark.parametrize("value", [True, False, 1.0, float("nan"), b"lo", object(), 1j], ids=shown)
@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_an_interface_of_a_wrong_type_is_a_type_error(multicast, sock, operation, value):
    doing, call = interface_call(multicast, sock, operation, value)
    refused(TypeError, call, f"{doing}: interface ", repr(value))


@pytest.mark.parametrize("value", [[], ["lo"], ("lo",)], ids=shown)
@pytest.mark.parametrize("operation", [each for each in INTERFACE_CALLS if each != "open_receiver"])
def test_several_interfaces_are_for_open_receiver_alone(multicast, sock, operation, value):
    doing, call = interface_call(multicast, sock, operation, value)
    refused(TypeError, call, f"{doing}: interface ", repr(value))


@pytest.mark.parametrize("value", [True, 1.0, b"lo", ["lo"], object()], ids=shown)
def test_one_bad_interface_among_good_ones_is_a_type_error(multicast, value):
    call = lambda: multicast.open_receiver(GROUP, PORT, interface=["lo", value])  # noqa: E731
    refused(TypeError, call, f"open_receiver {GROUP}: interface ", repr(value))


@pytest.mark.parametrize("value", [[], (), set(), iter(())], ids=shown)
def test_no_interface_at_all_is_a_value_error(multicast, value):
    call = lambda: multicast.open_receiver(GROUP, PORT, interface=value)  # noqa: E731
    refused(ValueError, call, "open_receiver: no interface was named")


@pytest.mark.parametrize("value", [0, -1, -(2**31), 2**31, 2**32 + LO, 2**64], ids=shown)
@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_an_index_out_of_range_is_a_value_error(multicast, sock, operation, value):
    doing, call = interface_call(multicast, sock, operation, value)
    refused(ValueError, call, f"{doing}: ", "index", str(value))


@pytest.mark.parametrize("operation", [each for each in INTERFACE_CALLS if each not in LEFT_AND_READ])
def test_an_index_that_no_interface_has_is_no_device(multicast, sock, operation):
    doing, call = interface_call(multicast, sock, operation, NO_INDEX)
    refused(errno.ENODEV, call, f"{doing}: no interface {NO_INDEX}", "there are: ", "lo")


@pytest.mark.parametrize("operation", LEFT_AND_READ)
def test_an_index_that_no_interface_has_was_not_joined(multicast, sock, operation):
    doing, call = interface_call(multicast, sock, operation, NO_INDEX)
    refused(errno.EADDRNOTAVAIL, call, f"{doing} on index {NO_INDEX}: ", "has not joined it")


@pytest.mark.parametrize("value", UNKNOWN_NAMES, ids=shown)
@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_a_name_that_no_interface_has_is_no_device(multicast, sock, operation, value):
    doing, call = interface_call(multicast, sock, operation, value)
    refused(errno.ENODEV, call, f"{doing}: no interface {value!r}", "there are: ", "lo")


@pytest.mark.parametrize(
    "value", [UNASSIGNED, GROUP, "0.0.0.0", "2001:db8::dead", ipaddress.ip_address(UNASSIGNED)], ids=shown
)
@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_an_address_that_no_interface_has_is_not_available(multicast, sock, operation, value):
    doing, call = interface_call(multicast, sock, operation, value)
    refused(errno.EADDRNOTAVAIL, call, f"{doing}: no interface has the address ", str(value))


@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_an_ipaddress_interface_is_no_address(multicast, sock, operation):
    value = ipaddress.ip_interface("127.0.0.1/8")
    doing, call = interface_call(multicast, sock, operation, value)
    refused(ValueError, call, f"{doing}: ", repr(value), "interface")


@pytest.mark.parametrize("name_and_index", [("lo", NO_INDEX), ("renamed0", LO)], ids=["index", "name"])
@pytest.mark.parametrize("operation", INTERFACE_CALLS)
def test_an_interface_out_of_date_is_no_device(multicast, sock, operation, name_and_index):
    name, index = name_and_index
    old = multicast.Interface(name=name, index=index, addresses=(), up=True, multicast=True, loopback=True)
    doing, call = interface_call(multicast, sock, operation, old)
    refused(errno.ENODEV, call, f"{doing}: no interface {name!r}")


def test_an_interface_by_an_address_of_the_other_family_is_refused_or_found(multicast, feed):
    """It names the interface for a join, and can't be the address that datagrams are sent from."""
    with multicast.open_receiver(*feed, interface="127.0.0.1") as receiver:
        assert receiver.fileno() >= 0
    with pytest.raises(OSError, match=f"open_sender {GROUP6}") as caught:
        multicast.open_sender(GROUP6, PORT, interface="127.0.0.1", ttl=0)
    assert caught.value.errno in errno.errorcode, caught.value
    assert not isinstance(caught.value, socket.gaierror)


# Zones and scopes --------------------------------------------------------------------------------------------------

ZONED_CALLS = {
    "join_group": lambda m, sock6, group, interface: m.join_group(sock6, group, interface),
    "leave_group": lambda m, sock6, group, interface: m.leave_group(sock6, group, interface),
    "block_source": lambda m, sock6, group, interface: m.block_source(sock6, group, SOURCE6, interface),
    "unblock_source": lambda m, sock6, group, interface: m.unblock_source(sock6, group, SOURCE6, interface),
    "set_source_filter": lambda m, sock6, group, interface: m.set_source_filter(sock6, group, "exclude", [], interface),
    "get_source_filter": lambda m, sock6, group, interface: m.get_source_filter(sock6, group, interface),
    "open_receiver": lambda m, sock6, group, interface: m.open_receiver(group, PORT, interface=interface),
    "open_sender": lambda m, sock6, group, interface: m.open_sender(group, PORT, interface=interface, ttl=0),
}


@needs_ipv6
@pytest.mark.parametrize("group", ["ff02::1:3", "ff01::1:3", "ff12::1", "ff31::1"])
@pytest.mark.parametrize("operation", ZONED_CALLS)
def test_a_link_local_group_needs_an_interface(multicast, sock6, operation, group):
    call = ZONED_CALLS[operation]
    refused(ValueError, lambda: call(multicast, sock6, group, None), f"{operation} {group}", "name the interface")


@needs_ipv6
@pytest.mark.parametrize("operation", ZONED_CALLS)
def test_a_zone_and_an_interface_must_be_the_same(multicast, sock6, operation):
    other = next((index for index, name in socket.if_nameindex() if name != "lo"), None)
    if other is None:
        pytest.skip("this machine has no interface but lo")
    call = ZONED_CALLS[operation]
    for group in ("ff02::1:3%lo", f"ff02::1:3%{LO}"):
        refused(ValueError, lambda: call(multicast, sock6, group, other), f"{operation} {group}", "zone")  # noqa: B023


@needs_ipv6
@pytest.mark.parametrize("zone", ["nosuch0", "lo\0", "\ud800", "lo%lo", str(NO_INDEX)], ids=shown)
@pytest.mark.parametrize("operation", ["join_group", "open_receiver", "open_sender"])
def test_a_zone_that_is_no_interface_is_no_device(multicast, sock6, operation, zone):
    call = ZONED_CALLS[operation]
    group = f"ff02::1:3%{zone}"
    wanted = int(zone) if zone.isdecimal() else zone
    refused(errno.ENODEV, lambda: call(multicast, sock6, group, None), f"{operation} ff02::1:3%", repr(wanted))


@needs_ipv6
@pytest.mark.parametrize("zone", ["0", str(2**31), str(2**64)], ids=shown)
@pytest.mark.parametrize("operation", ZONED_CALLS)
def test_a_zone_out_of_range_is_a_value_error(multicast, sock6, operation, zone):
    call = ZONED_CALLS[operation]
    refused(ValueError, lambda: call(multicast, sock6, f"ff02::1:3%{zone}", None), f"{operation} ff02::1:3%", "index")


@needs_ipv6
def test_a_zone_too_long_to_be_an_integer_is_a_value_error(multicast, sock6):
    group = f"ff02::1:3%{'9' * 5000}"
    refused(ValueError, lambda: multicast.join_group(sock6, group), "join_group ff02::1:3%", "index")
