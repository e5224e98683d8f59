"""Interfaces: that they are listed as the system has them, what an `Interface` is, and how a caller may name one.

Setting the interface that a socket sends through is what shows which one was found: that sends nothing, on any.
"""

from __future__ import annotations

import copy
import errno
import ipaddress
import pathlib
import socket
import subprocess
import sys

import pytest
from net import python_environment

from multicast import _interfaces

LO = socket.if_nametoindex("lo")


@pytest.fixture
def lo(multicast):
    return next(each for each in multicast.interfaces() if each.name == "lo")


# The list ----------------------------------------------------------------------------------------------------------


def test_interfaces_are_those_that_the_system_lists(multicast):
    assert [(each.index, each.name) for each in multicast.interfaces()] == sorted(socket.if_nameindex())


def test_the_loopback_interface_has_its_address_and_flags(lo):
    assert lo.index == LO
    assert "127.0.0.1" in lo.addresses
    assert lo.loopback is True
    assert lo.up is True


@pytest.mark.skipif(sys.platform != "linux", reason="netdevice(7) is Linux's")
def test_a_single_question_about_an_interface_has_the_answer_that_the_list_has(multicast):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for each in multicast.interfaces():
            assert _interfaces.link_name(asking, each.index) == each.name
            assert _interfaces.link_index(asking, each.name) == each.index
            assert bool(_interfaces.link_flags(asking, each.name) & 1) == each.up  # IFF_UP
        assert _interfaces.link_name(asking, 2**31 - 1) is None
        assert _interfaces.link_index(asking, "absent0") == 0
        assert _interfaces.link_flags(asking, "absent0") is None


def test_flags_are_those_that_the_kernel_shows(multicast):
    for each in multicast.interfaces():
        path = pathlib.Path("/sys/class/net", each.name, "flags")
        if not path.exists():
            pytest.skip("sysfs shows the interfaces of another network namespace")
        flags = int(path.read_text("ascii"), 16)
        assert (each.up, each.loopback, each.multicast) == (bool(flags & 1), bool(flags & 8), bool(flags & 0x1000))


def test_addresses_are_texts_of_addresses_without_zones(multicast):
    for each in multicast.interfaces():
        assert type(each.addresses) is tuple
        assert [str(ipaddress.ip_address(address)) for address in each.addresses] == list(each.addresses)


def test_ipv6_addresses_are_those_that_the_kernel_shows(multicast):
    try:
        shown = pathlib.Path("/proc/net/if_inet6").read_text("ascii").splitlines()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    expected = {
        (int(fields[1], 16), ipaddress.ip_address(bytes.fromhex(fields[0]))) for fields in map(str.split, shown)
    }
    assert expected == {
        (each.index, ipaddress.ip_address(address))
        for each in multicast.interfaces()
        for address in each.addresses
        if ":" in address
    }


def test_getifaddrs_lists_the_same(multicast):
    """What other systems are asked by, and rtnetlink, which Linux is."""
    links, addresses = {}, set()
    for name, index, flags, address in multicast._interfaces.getifaddrs_links():
        links[index] = (name, bool(flags & 1), bool(flags & 8), bool(flags & 0x1000))
        addresses |= {(index, address)} - {(index, None)}
    found = multicast.interfaces()
    assert links == {each.index: (each.name, each.up, each.loopback, each.multicast) for each in found}
    assert addresses == {(each.index, address) for each in found for address in each.addresses}


def test_every_call_asks_the_system_anew(multicast):
    first, second = multicast.interfaces(), multicast.interfaces()
    assert first == second
    assert first is not second
    first.clear()
    assert multicast.interfaces() == second


def test_listing_leaves_no_descriptor(multicast, no_leaked_descriptors):
    for _ in range(10):
        multicast.interfaces()


# An Interface ------------------------------------------------------------------------------------------------------

FIELDS = {
    "name": "eth7",
    "index": 7,
    "addresses": ("192.0.2.7", "2001:db8::7"),
    "up": True,
    "multicast": True,
    "loopback": False,
}
OTHERS = {"name": "eth8", "index": 8, "addresses": (), "up": False, "multicast": False, "loopback": True}


@pytest.fixture
def interface(multicast):
    return multicast.Interface(**FIELDS)


def test_an_interface_has_exactly_its_fields(multicast, interface):
    assert interface.as_dict() == FIELDS
    assert list(interface.as_dict()) == list(FIELDS)
    assert {name: getattr(interface, name) for name in FIELDS} == FIELDS
    for fields in ({}, {**FIELDS, "mtu": 1500}, {name: FIELDS[name] for name in list(FIELDS)[1:]}):
        with pytest.raises(TypeError, match="Interface takes exactly the fields name, index, addresses, up"):
            multicast.Interface(**fields)
    with pytest.raises(TypeError):
        multicast.Interface("eth7", 7)


@pytest.mark.parametrize("name", [*FIELDS, "mtu"])
def test_an_interface_is_fixed(interface, name):
    with pytest.raises(AttributeError, match=f"{name} can't be set"):
        setattr(interface, name, 1)
    with pytest.raises(AttributeError, match=f"{name} can't be deleted"):
        delattr(interface, name)
    assert interface.as_dict() == FIELDS


def test_the_dict_of_an_interface_is_the_callers(interface):
    interface.as_dict()["name"] = "eth9"
    assert interface.name == "eth7"


@pytest.mark.parametrize("name", FIELDS)
def test_interfaces_are_equal_by_all_their_fields(multicast, interface, name):
    same, other = multicast.Interface(**FIELDS), multicast.Interface(**{**FIELDS, name: OTHERS[name]})
    assert interface == same
    assert hash(interface) == hash(same)
    assert interface != other
    assert {interface, same, other} == {interface, other}


def test_an_interface_equals_nothing_but_an_interface(multicast, interface):
    for thing in (FIELDS, tuple(FIELDS.values()), "eth7", 7, None, object()):
        assert interface != thing
    assert interface != multicast.Stats(**dict.fromkeys(multicast.Stats.__slots__, 0))


def test_an_interface_prints_as_what_makes_it(multicast, interface):
    assert repr(interface) == (
        "Interface(name='eth7', index=7, addresses=('192.0.2.7', '2001:db8::7'), "
        "up=True, multicast=True, loopback=False)"
    )
    assert eval(repr(interface), {"Interface": multicast.Interface}) == interface


def test_a_copy_of_an_interface_is_equal(interface):
    assert copy.copy(interface) == interface
    assert copy.deepcopy(interface) == interface


def test_an_interface_survives_pickling_also_to_the_other_backend(multicast):
    """In fresh interpreters: in this one, the package was imported once for each backend."""
    dump = (
        "import multicast, pickle, sys\nsys.stdout.buffer.write(pickle.dumps(multicast.interfaces(), int(sys.argv[1])))"
    )
    load = (
        "import multicast, pickle, sys\n"
        "assert pickle.load(sys.stdin.buffer) == multicast.interfaces()\n"
        "print(multicast.BACKEND)"
    )

    def run(code, protocol, backend, stdin):
        environment = python_environment(multicast, backend)
        command = [sys.executable, "-P", "-c", code, str(protocol)]
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    for protocol in (0, 5):
        pickled = run(dump, protocol, multicast.BACKEND, b"")
        assert run(load, protocol, "stdlib", pickled) == b"stdlib\n"


# Naming one --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sends_through():
    """Which interface a call lets a socket send through: its index, 0 for the one that the route says."""
    try:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 sockets, which tell the index: {error}")

    def ask(multicast, interface):
        multicast.set_multicast_interface(made, interface)
        return made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF)

    with made:
        yield ask


def test_an_interface_is_found_by_name_index_and_itself(multicast, sends_through):
    for each in multicast.interfaces():
        assert sends_through(multicast, each.name) == each.index
        assert sends_through(multicast, None) == 0
        assert sends_through(multicast, each.index) == each.index
        assert sends_through(multicast, None) == 0
        assert sends_through(multicast, each) == each.index


def test_an_interface_is_found_by_each_address_that_is_its_alone(multicast, sends_through):
    found = multicast.interfaces()
    addresses = [address for each in found for address in each.addresses]
    for each in found:
        for address in each.addresses:
            if addresses.count(address) == 1:
                assert sends_through(multicast, address) == each.index
                assert sends_through(multicast, None) == 0
                assert sends_through(multicast, ipaddress.ip_address(address)) == each.index


def test_an_address_is_found_however_it_is_spelled(multicast, lo, sends_through):
    if "::1" not in lo.addresses:
        pytest.skip("the loopback interface of this machine has no IPv6 address")
    for spelling in ("::1", "0:0:0:0:0:0:0:1", "0000::0001", "::0.0.0.1"):
        assert sends_through(multicast, spelling) == LO


def test_an_ipv4_socket_sends_through_the_interface_that_was_found(multicast, opened, lo, feed):
    """An IPv4 socket does not tell the index. The receiver has joined on the loopback interface, and nowhere else."""
    receiver = opened.receiver(feed)
    for number, interface in enumerate(("lo", LO, "127.0.0.1", ipaddress.ip_address("127.0.0.1"), lo)):
        with multicast.genSocket() as sock:
            multicast.set_multicast_ttl(sock, 0)
            multicast.set_multicast_interface(sock, interface)
            sock.sendto(b"%d" % number, feed)
        assert bytes(receiver.recv_batch()[0]) == b"%d" % number


def test_a_zone_names_the_interface_of_an_address(multicast, sends_through):
    """A link-local address can be the address of several: its zone says which is meant (RFC 4007, section 11)."""
    mine = [(each, address) for each in multicast.interfaces() for address in each.addresses]
    link_local = [(each, address) for each, address in mine if address.startswith("fe80:")]
    if not link_local:
        pytest.skip("no interface of this machine has a link-local address")
    for each, address in link_local:
        for zone in (each.name, each.index):
            assert sends_through(multicast, f"{address}%{zone}") == each.index
            assert sends_through(multicast, ipaddress.ip_address(f"{address}%{zone}")) == each.index
        with pytest.raises(OSError) as caught:
            sends_through(multicast, f"{address}%lo")
        assert caught.value.errno in (errno.ENODEV, errno.EADDRNOTAVAIL)


def test_a_sender_opened_by_a_link_local_address_sends_from_it(multicast):
    """Opening one sends nothing."""
    for each in multicast.interfaces():
        for address in each.addresses:
            if address.startswith("fe80:") and each.up:
                for interface in (address, f"{address}%{each.name}"):
                    with multicast.open_sender("ff15::239:3", 9, interface=interface, ttl=0) as sender:
                        assert sender.socket.getsockname()[0].partition("%")[0] == address
                        assert sender.socket.getsockname()[3] == each.index
                return
    pytest.skip("no interface of this machine has a link-local address")
