"""What the verbs do to a socket, read back: from the socket, and from the kernel's lists of memberships.

All on the loopback interface. Joining over IPv6 works there, by index, also where sending does not.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import warnings

import pytest
from filters import EXCLUDE, INCLUDE, group_request, source_filter

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

LO = socket.if_nametoindex("lo")
IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29
MCAST_JOIN_GROUP, MCAST_BLOCK_SOURCE, MCAST_LEAVE_GROUP = 42, 43, 45  # RFC 3678, section 5; linux/in.h
MOST = 2**31 - 1


def limit() -> int:
    """net.core.rmem_max; containers don't show it, so by what SO_RCVBUF grants at most."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MOST)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


RMEM_MAX = limit()


class Family:
    """A family of addresses: how its sockets are made and read, and which groups a test may join."""

    def __init__(self, family: socket.AddressFamily, group: str, sources: tuple[str, str]) -> None:
        self.family, self.group, self.sources = family, group, sources
        ipv4 = family == socket.AF_INET
        self.level = socket.IPPROTO_IP if ipv4 else socket.IPPROTO_IPV6
        self.ttl = socket.IP_MULTICAST_TTL if ipv4 else socket.IPV6_MULTICAST_HOPS
        self.loopback = socket.IP_MULTICAST_LOOP if ipv4 else socket.IPV6_MULTICAST_LOOP
        self.all = IP_MULTICAST_ALL if ipv4 else IPV6_MULTICAST_ALL

    def __str__(self) -> str:
        return self.family.name

    def socket(self) -> socket.socket:
        return socket.socket(self.family, socket.SOCK_DGRAM)

    def joined(self) -> int:
        """How many sockets of this host have joined the group on the loopback interface."""
        wanted = ipaddress.ip_address(self.group).packed
        if self.family == socket.AF_INET6:
            lines = pathlib.Path("/proc/net/igmp6").read_text("ascii").splitlines()
            fields = [line.split() for line in lines]
            return sum(int(users) for _, name, group, users, *_ in fields if (name, group) == ("lo", wanted.hex()))
        _, _, rest = pathlib.Path("/proc/net/igmp").read_text("ascii").partition("\tlo ")
        lines = itertools.takewhile(lambda line: line.startswith("\t\t"), rest.splitlines()[1:])
        listed = f"{int.from_bytes(wanted, sys.byteorder):08X}"
        return sum(int(users) for group, users, *_ in map(str.split, lines) if group == listed)

    def filter_of(self, sock: socket.socket) -> tuple[int, set[str]] | None:
        """The mode and the sources of a socket's membership of the group; None if it is no member."""
        return source_filter(sock, self.group, LO)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def family(request, feed) -> Family:
    """A family, with a group that no other test of this run uses."""
    if request.param == socket.AF_INET:
        return Family(socket.AF_INET, feed[0], ("192.0.2.1", "192.0.2.2"))
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"the loopback interface of this machine has no IPv6: {error}")
    return Family(socket.AF_INET6, f"ff15::{feed[1]:x}:{os.getpid() & 0xFFFF:x}", ("2001:db8::1", "2001:db8::2"))


@pytest.fixture
def sock(family):
    with family.socket() as made:
        yield made


def refused(number: int, call, *words: str) -> None:
    """Make a call that has to fail with this errno, and in these words."""
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno == number, caught.value
    for word in words:
        assert word in caught.value.strerror


# Sending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 1, 2, 64, 127, 128, 254, 255])
def test_the_ttl_is_what_was_set(multicast, family, sock, ttl):
    assert multicast.set_multicast_ttl(sock, ttl) is None
    assert sock.getsockopt(family.level, family.ttl) == ttl


@pytest.mark.parametrize("enabled", [False, True, 0, 1])
def test_the_loopback_is_what_was_set(multicast, family, sock, enabled):
    assert multicast.set_multicast_loopback(sock, not enabled) is None
    assert sock.getsockopt(family.level, family.loopback) == (not enabled)
    assert multicast.set_multicast_loopback(sock, enabled) is None
    assert sock.getsockopt(family.level, family.loopback) == enabled


@pytest.mark.parametrize("family", [socket.AF_INET6], ids=["IPv6"], indirect=True)
def test_the_interface_is_what_was_set_and_none_takes_it_back(multicast, family, sock):
    """An IPv4 socket does not tell the index: test_interfaces.py sees where its datagrams go."""
    multicast.set_multicast_interface(sock, "lo")
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == LO
    multicast.set_multicast_interface(sock, None)
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == 0


def test_one_verb_changes_nothing_else(multicast, family, sock):
    def read():
        names = (family.ttl, family.loopback, family.all)
        return [sock.getsockopt(family.level, name) for name in names] + [
            sock.getsockopt(socket.SOL_SOCKET, name)
            for name in (socket.SO_REUSEADDR, socket.SO_RCVBUF, socket.SO_SNDBUF)
        ]

    before = read()
    for at, verb in enumerate(
        (lambda: multicast.set_multicast_ttl(sock, 9), lambda: multicast.set_multicast_loopback(sock, False))
    ):
        verb()
        after = read()
        assert after[at] != before[at]
        assert after[:at] + after[at + 1 :] == before[:at] + before[at + 1 :]
        before = after
    multicast.set_multicast_interface(sock, "lo")
    multicast.join_group(sock, family.group, "lo")
    assert read() == before


def test_a_sender_is_opened_with_what_was_asked_for(multicast, feed):
    for options, ttl, loopback in (({}, 1, 1), ({"ttl": 0, "loopback": False}, 0, 0), ({"ttl": 255}, 255, 1)):
        with multicast.open_sender(*feed, interface="127.0.0.1", **options) as sender:
            assert sender.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == ttl
            assert sender.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == loopback
            assert sender.socket.getpeername() == feed
            assert sender.socket.getsockname()[0] == "127.0.0.1"
            interface = sender.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
            assert socket.inet_ntoa(interface) in ("0.0.0.0", "127.0.0.1")


# Joining -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["lo", LO, "127.0.0.1", ipaddress.ip_address("127.0.0.1")], ids=str)
def test_a_joined_group_is_listed_until_it_is_left(multicast, family, sock, interface):
    assert family.joined() == 0
    multicast.join_group(sock, family.group, interface)
    assert family.joined() == 1
    multicast.leave_group(sock, family.group, interface)
    assert family.joined() == 0


def test_closing_the_socket_leaves_its_groups(multicast, family, sock):
    multicast.join_group(sock, family.group, "lo")
    multicast.endSocket(sock)
    assert family.joined() == 0


def test_each_socket_joins_for_itself(multicast, family, sock):
    with family.socket() as other:
        for joining in (sock, other):
            multicast.join_group(joining, family.group, "lo")
        assert family.joined() == 2
        multicast.leave_group(sock, family.group, "lo")
        assert family.joined() == 1
        refused(errno.EADDRNOTAVAIL, lambda: multicast.leave_group(sock, family.group, "lo"), "not joined")


def test_a_source_is_listed_until_it_is_left(multicast, family, sock):
    one, other = family.sources
    multicast.join_group(sock, family.group, "lo", one)
    assert family.filter_of(sock) == (INCLUDE, {one})
    multicast.join_group(sock, family.group, "lo", ipaddress.ip_address(other))
    assert family.filter_of(sock) == (INCLUDE, {one, other})
    multicast.leave_group(sock, family.group, "lo", one)
    assert family.filter_of(sock) == (INCLUDE, {other})
    assert family.joined() == 1
    multicast.leave_group(sock, family.group, "lo", other)
    assert family.filter_of(sock) is None
    assert family.joined() == 0


def test_leaving_the_group_leaves_all_its_sources(multicast, family, sock):
    for source in family.sources:
        multicast.join_group(sock, family.group, "lo", source)
    multicast.leave_group(sock, family.group, "lo")
    assert family.filter_of(sock) is None
    assert family.joined() == 0


def test_joining_twice_is_address_in_use(multicast, family, sock):
    join = lambda: multicast.join_group(sock, family.group, "lo")  # noqa: E731
    join()
    refused(errno.EADDRINUSE, join, f"join_group {family.group} on lo (index {LO}): ", "joined it already")
    assert family.joined() == 1


def test_joining_a_source_twice_is_address_not_available(multicast, family, sock):
    source = family.sources[0]
    join = lambda: multicast.join_group(sock, family.group, "lo", source)  # noqa: E731
    join()
    doing = f"join_group {family.group} from {source} on lo (index {LO}): "
    refused(errno.EADDRNOTAVAIL, join, doing, "joined from this source already")
    assert family.filter_of(sock) == (INCLUDE, {source})


def test_leaving_what_was_not_joined_is_address_not_available(multicast, family, sock):
    leave = lambda: multicast.leave_group(sock, family.group, "lo")  # noqa: E731
    doing = f"leave_group {family.group} on lo (index {LO}): "
    refused(errno.EADDRNOTAVAIL, leave, doing, "has not joined it")
    multicast.join_group(sock, family.group, "lo")
    leave()
    refused(errno.EADDRNOTAVAIL, leave, doing, "has not joined it")


def test_leaving_a_source_that_was_not_joined_is_address_not_available(multicast, family, sock):
    one, other = family.sources
    multicast.join_group(sock, family.group, "lo", one)
    doing = f"leave_group {family.group} from {other} on lo (index {LO}): "
    leave = lambda source: multicast.leave_group(sock, family.group, "lo", source)  # noqa: E731
    refused(errno.EADDRNOTAVAIL, lambda: leave(other), doing, "has not joined it from this source")
    assert family.filter_of(sock) == (INCLUDE, {one})


def test_leaving_a_source_of_a_group_that_was_not_joined_is_invalid(multicast, family, sock):
    one, _ = family.sources
    doing = f"leave_group {family.group} from {one} on lo (index {LO}): "
    leave = lambda: multicast.leave_group(sock, family.group, "lo", one)  # noqa: E731
    refused(errno.EINVAL, leave, doing, "has not joined the group")
    multicast.join_group(sock, family.group, "lo", one)
    leave()
    refused(errno.EINVAL, leave, doing, "has not joined the group")


def test_joining_from_any_source_after_one_is_address_in_use_and_changes_nothing(multicast, family, sock):
    one, _ = family.sources
    multicast.join_group(sock, family.group, "lo", one)
    refused(errno.EADDRINUSE, lambda: multicast.join_group(sock, family.group, "lo"), "joined it already")
    assert family.filter_of(sock) == (INCLUDE, {one})


def test_joining_from_one_source_after_any_is_invalid_and_changes_nothing(multicast, family, sock):
    multicast.join_group(sock, family.group, "lo")
    join = lambda: multicast.join_group(sock, family.group, "lo", family.sources[0])  # noqa: E731
    refused(errno.EINVAL, join, family.group, "in the other mode")
    assert family.joined() == 1
    assert family.filter_of(sock) == (EXCLUDE, set())


def test_one_source_after_any_is_invalid_also_where_somebody_else_joined(multicast, family, sock):
    """By another socket object for the same socket, or by setsockopt: it is the kernel that has the membership."""
    request = group_request(LO, family.group)
    join = lambda joining: multicast.join_group(joining, family.group, "lo", family.sources[0])  # noqa: E731
    sock.setsockopt(family.level, MCAST_JOIN_GROUP, request)
    refused(errno.EINVAL, lambda: join(sock), family.group, "in the other mode")
    sock.setsockopt(family.level, MCAST_LEAVE_GROUP, request)
    multicast.join_group(sock, family.group, "lo")
    with sock.dup() as other:
        refused(errno.EINVAL, lambda: join(other), family.group, "in the other mode")
    assert family.filter_of(sock) == (EXCLUDE, set())
    sock.setsockopt(family.level, MCAST_LEAVE_GROUP, request)
    join(sock)
    assert family.filter_of(sock) == (INCLUDE, {family.sources[0]})


def test_leaving_a_source_of_a_group_joined_from_any_changes_nothing(multicast, opened, feed):
    """Also not what is received: the kernel, asked to, would turn the membership into one from no source at all."""
    receiver, sender = opened.pair(feed, timeout=2)
    with pytest.raises(OSError, match="leave_group"):
        multicast.leave_group(receiver.socket, feed[0], "lo", "192.0.2.1")
    sender.send(b"still")
    assert [bytes(view) for view in receiver.recv_batch()] == [b"still"]


def test_a_group_with_blocked_sources_can_not_be_joined_from_one(multicast, family, sock):
    one, other = family.sources
    multicast.join_group(sock, family.group, "lo")
    sock.setsockopt(family.level, MCAST_BLOCK_SOURCE, group_request(LO, family.group, other))
    for verb in (multicast.join_group, multicast.leave_group):
        doing = f"{verb.__name__} {family.group} from {one} on lo (index {LO}): "
        refused(errno.EINVAL, lambda: verb(sock, family.group, "lo", one), doing, "in the other mode")  # noqa: B023
    assert family.filter_of(sock) == (EXCLUDE, {other})


@pytest.mark.parametrize("family", [socket.AF_INET6], ids=["IPv6"], indirect=True)
def test_a_link_local_group_is_joined_by_its_zone(multicast, family, sock):
    for zone in ("lo", LO):
        multicast.join_group(sock, f"ff02::7:{LO}%{zone}")
        refused(errno.EADDRINUSE, lambda: multicast.join_group(sock, f"ff02::7:{LO}", "lo"), "joined it already")
        multicast.leave_group(sock, f"ff02::7:{LO}%{zone}", "lo")


def test_a_group_is_the_same_however_it_is_spelled(multicast, family, sock):
    address = ipaddress.ip_address(family.group)
    multicast.join_group(sock, address, "lo")
    refused(errno.EADDRINUSE, lambda: multicast.join_group(sock, family.group, "lo"), "joined it already")
    multicast.leave_group(sock, address.exploded.upper(), "lo")
    assert family.joined() == 0


# What opening a receiver sets --------------------------------------------------------------------------------------


def test_an_opened_receiver_is_limited_to_its_groups(multicast, opened, family, feed):
    receiver = opened.receiver((family.group, feed[1]))
    assert receiver.socket.getsockopt(family.level, family.all) == 0
    assert receiver.socket.getsockopt(family.level, family.ttl) == 1
    assert receiver.socket.getsockname()[:2] == (str(ipaddress.ip_address(family.group)), feed[1])
    assert family.joined() == 1
    receiver.close()
    assert family.joined() == 0


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_receiver_shares_its_port_unless_it_is_exclusive(opened, family, feed, exclusive):
    receiver = opened.receiver((family.group, feed[1]), exclusive=exclusive)
    assert receiver.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == (not exclusive)
    if exclusive:
        call = lambda: opened.receiver((family.group, feed[1]))  # noqa: E731
        refused(errno.EADDRINUSE, call, f"open_receiver {family.group}: ", str(feed[1]), "exclusive=True")
    else:
        opened.receiver((family.group, feed[1]))


def test_a_receiver_of_several_groups_joins_each_once(opened, family, feed):
    address = ipaddress.ip_address(family.group)
    same = (family.group, address, address.exploded.upper())
    receiver = opened.receiver((same, feed[1]))
    assert family.joined() == 1
    assert receiver.socket.getsockname()[0] in ("0.0.0.0", "::")


def test_a_receiver_of_several_sources_joins_from_each_once(opened, family, feed):
    one, other = family.sources
    same = (one, other, ipaddress.ip_address(other), ipaddress.ip_address(one).exploded.upper())
    receiver = opened.receiver((family.group, feed[1]), source=same)
    assert family.filter_of(receiver.socket) == (INCLUDE, {one, other})


# The receive buffer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.AF_INET, socket.AF_UNIX], ids=["UDP", "AF_UNIX"])
@pytest.mark.parametrize("nbytes", [1, 4096, 65_536, RMEM_MAX, 4 * RMEM_MAX, MOST], ids=str)
def test_what_was_granted_is_what_the_socket_has(multicast, kind, nbytes):
    """The kernel doubles what it is asked for, for its own use: socket(7)."""
    with socket.socket(kind, socket.SOCK_DGRAM) as sock, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        granted = multicast.set_receive_buffer(sock, nbytes)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * granted
        if 4096 <= nbytes <= RMEM_MAX:
            assert granted == nbytes
        elif nbytes < 4096:
            assert granted >= nbytes


def test_a_receiver_tells_what_was_granted(opened, feed):
    receiver = opened.receiver(feed, receive_buffer=65_536)
    assert receiver.stats().receive_buffer == 65_536
    receiver.close()
    assert receiver.stats().receive_buffer == 65_536


CLAMPED = """
import json, os, socket, sys, warnings
import multicast
if sys.argv[1] == "unprivileged" and os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)  # and with it CAP_NET_ADMIN
rows = []
for requested in map(int, sys.argv[2:]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        granted = multicast.set_receive_buffer(sock, requested)
        held = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        texts = [[each.category.__name__, str(each.message), each.filename] for each in said]
        rows.append([granted, held, texts])
print(json.dumps(rows))
"""


def package_parent(multicast) -> str:
    return str(pathlib.Path(multicast.__file__).parent.parent)


def set_in_turn(multicast, who: str, *requested: int) -> list[list]:
    """Set these buffers in a fresh interpreter, as this user or as one without privileges: what came of each."""
    environment = os.environ | {"PYTHONPATH": package_parent(multicast), "MULTICAST_BACKEND": multicast.BACKEND}
    command = [sys.executable, "-P", "-c", CLAMPED, who, *map(str, requested)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_ordinary_user_gets_what_the_limit_allows(multicast):
    values = [1, 4096, RMEM_MAX, RMEM_MAX + 1, 4 * RMEM_MAX, MOST]
    rows = set_in_turn(multicast, "unprivileged", *values)
    assert [granted for granted, _, _ in rows] == [held for _, held, _ in rows]
    assert [granted for granted, _, _ in rows[1:]] == [min(value, RMEM_MAX) for value in values[1:]]


def test_a_clamped_buffer_is_warned_of_once_a_process(multicast):
    rows = set_in_turn(multicast, "unprivileged", RMEM_MAX, 2 * RMEM_MAX, 4 * RMEM_MAX, 2 * RMEM_MAX)
    texts = [said for _, _, said in rows]
    assert [len(each) for each in texts] == [0, 1, 0, 0]
    category, text, _ = texts[1][0]
    assert category == "RuntimeWarning"
    assert text.startswith(f"set_receive_buffer: asked for {2 * RMEM_MAX} bytes, granted {RMEM_MAX}: net.core.rmem_max")
    shown = pathlib.Path("/proc/sys/net/core/rmem_max").exists()
    assert (f"(now {RMEM_MAX})" if shown else "(not readable here)") in text
    assert f"'net.core.rmem_max = {2 * RMEM_MAX}' into sysctl.conf" in text
    assert f"sysctl -w net.core.rmem_max={2 * RMEM_MAX}" in text


def test_a_clamped_buffer_is_warned_of_also_where_nothing_can_be_imported_any_more(multicast):
    """As after chroot(2), or once a daemon has become a user who can't read the standard library."""
    code = f"""
import socket, sys, warnings
import multicast
multicast.skt._backend.set_receive_buffer = lambda sock, nbytes: nbytes - 1
sys.meta_path.clear()
with socket.socket() as sock, warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert multicast.set_receive_buffer(sock, {RMEM_MAX}) == {RMEM_MAX - 1}
assert len(said) == 1
"""
    environment = os.environ | {"PYTHONPATH": package_parent(multicast), "MULTICAST_BACKEND": multicast.BACKEND}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_clamped_buffer_is_warned_of_where_it_was_set(multicast):
    ((_, _, said),) = set_in_turn(multicast, "unprivileged", 2 * RMEM_MAX)
    assert [filename for _, _, filename in said] == ["<string>"]


@pytest.mark.parametrize("who", ["this user", "unprivileged"])
def test_there_is_a_warning_exactly_if_less_was_granted(multicast, who):
    for value in (1, 4096, RMEM_MAX, 4 * RMEM_MAX, MOST):
        ((granted, _, said),) = set_in_turn(multicast, who, value)
        assert len(said) == (granted < value)


def test_a_warning_does_not_blame_a_limit_that_was_passed(multicast):
    """Where SO_RCVBUFFORCE passes net.core.rmem_max, raising that would not help."""
    ((granted, _, said),) = set_in_turn(multicast, "this user", MOST)
    if granted > RMEM_MAX:
        assert not re.search(r"net\.core\.rmem_max limits|sysctl -w", "".join(text for _, text, _ in said))
    else:
        assert len(said) == 1
