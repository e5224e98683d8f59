"""What each change of a membership does in each state of it: the filter that the kernel has afterwards, or the error.

All on the loopback interface, where nothing is sent; the filters are read back by tests/filters.py, which is not ours.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import pathlib
import socket
from typing import NamedTuple

import pytest
from filters import EXCLUDE, INCLUDE, group_request, source_filter
from refusals import needs_ipv6, refused

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

LO = socket.if_nametoindex("lo")


class Family:
    """A family of addresses: how its sockets are made, and which group and sources a test may name."""

    def __init__(self, family: socket.AddressFamily, group: str, sources: tuple[str, str]) -> None:
        self.family, self.group, (self.one, self.other) = family, group, sources

    def __str__(self) -> str:
        return self.family.name

    def socket(self) -> socket.socket:
        return socket.socket(self.family, socket.SOCK_DGRAM)

    def filter_of(self, sock: socket.socket) -> tuple[int, set[str]] | None:
        return source_filter(sock, self.group, LO)

    def named(self, *names: str) -> set[str]:
        return {getattr(self, name) for name in names}


@pytest.fixture(params=["IPv4", pytest.param("IPv6", marks=needs_ipv6)])
def family(request, feed) -> Family:
    """A family, with a group that no other test of this run uses."""
    if request.param == "IPv4":
        return Family(socket.AF_INET, feed[0], ("192.0.2.9", "192.0.2.10"))  # as text they sort the other way round
    group = f"ff15::{feed[1]:x}:{os.getpid() & 0xFFFF:x}"
    return Family(socket.AF_INET6, group, ("2001:db8::9", "2001:db8::10"))


@pytest.fixture
def sock(family):
    with family.socket() as made:
        yield made


# Every operation in every state ------------------------------------------------------------------------------------

STATES = {
    "not joined": [],
    "from any": ["join"],
    "but one": ["join", "block one"],
    "from one": ["join one"],
}


class Error(NamedTuple):
    number: int
    words: str


NOT_JOINED = Error(errno.EADDRNOTAVAIL, "has not joined it")
NO_GROUP = Error(errno.EINVAL, "has not joined the group")
FROM_ANY = Error(errno.EINVAL, "in the other mode, from any source")
NAMED = Error(errno.EINVAL, "in the other mode, from named sources")
NOT_BLOCKED = Error(errno.EADDRNOTAVAIL, "is not blocked")
NOTHING = (EXCLUDE,)  # ... is excluded: any source

# In each state, in the order of STATES: the filter that the kernel has then, None for no membership, or the error.
TABLE = {
    "join": [
        NOTHING,
        Error(errno.EADDRINUSE, "joined it already, from any source"),
        Error(errno.EADDRINUSE, "joined it already, from any source"),
        Error(errno.EADDRINUSE, "joined it already, from named sources"),
    ],
    "join one": [(INCLUDE, "one"), FROM_ANY, FROM_ANY, Error(errno.EADDRNOTAVAIL, "joined from this source already")],
    "join other": [(INCLUDE, "other"), FROM_ANY, FROM_ANY, (INCLUDE, "one", "other")],
    "leave": [NOT_JOINED, None, None, None],
    "leave one": [NO_GROUP, FROM_ANY, FROM_ANY, None],
    "leave other": [NO_GROUP, FROM_ANY, FROM_ANY, Error(errno.EADDRNOTAVAIL, "has not joined it from this source")],
    "block one": [NO_GROUP, (EXCLUDE, "one"), Error(errno.EADDRNOTAVAIL, "blocked already"), NAMED],
    "block other": [NO_GROUP, (EXCLUDE, "other"), (EXCLUDE, "one", "other"), NAMED],
    "unblock one": [NO_GROUP, NOT_BLOCKED, NOTHING, NAMED],
    "unblock other": [NO_GROUP, NOT_BLOCKED, NOT_BLOCKED, NAMED],
    "include nothing": [NOT_JOINED, None, None, None],
    "include one": [NO_GROUP, (INCLUDE, "one"), (INCLUDE, "one"), (INCLUDE, "one")],
    "include one other": [NO_GROUP, *[(INCLUDE, "one", "other")] * 3],
    "exclude nothing": [NO_GROUP, NOTHING, NOTHING, NOTHING],
    "exclude other": [NO_GROUP, *[(EXCLUDE, "other")] * 3],
}
ROWS = [
    pytest.param(operation, state, outcome, id=f"{operation}, {state}")
    for operation, outcomes in TABLE.items()
    for state, outcome in zip(STATES, outcomes, strict=True)
]


CALLED = {
    "join": "join_group",
    "leave": "leave_group",
    "block": "block_source",
    "unblock": "unblock_source",
    "include": "set_source_filter",
    "exclude": "set_source_filter",
}


class Verbs:
    """The verbs, on a socket."""

    def __init__(self, package, family, sock) -> None:
        self.package, self.family, self.sock = package, family, sock

    def do(self, operation: str) -> None:
        word, *names = operation.split()
        group, sources = self.family.group, [getattr(self.family, name) for name in names if name != "nothing"]
        if word in ("include", "exclude"):
            self.package.set_source_filter(self.sock, group, word, sources, "lo")
        elif word in ("join", "leave"):
            getattr(self.package, CALLED[word])(self.sock, group, "lo", *sources)
        else:
            getattr(self.package, CALLED[word])(self.sock, group, *sources, "lo")

    def called(self, word: str) -> str:
        return CALLED[word]

    def told(self) -> tuple[int, set[str]] | None:
        """The filter as the package tells it."""
        with contextlib.suppress(OSError):
            told = self.package.get_source_filter(self.sock, self.family.group, "lo")
            return {"exclude": EXCLUDE, "include": INCLUDE}[told.mode], set(told.sources)
        return None


class Methods(Verbs):
    """The methods of a receiver, and what it says that it has joined."""

    def __init__(self, opened, family, sock) -> None:
        super().__init__(opened.package, family, sock)
        self.receiver = opened.closing(opened.package.Receiver(sock))

    def do(self, operation: str) -> None:
        word, *names = operation.split()
        group, sources = self.family.group, [getattr(self.family, name) for name in names if name != "nothing"]
        if word in ("include", "exclude"):
            self.receiver.set_source_filter(group, word, sources, "lo")
        elif word in ("join", "leave"):
            getattr(self.receiver, word)(group, "lo", *sources)
        else:
            getattr(self.receiver, word)(group, *sources, "lo")

    def called(self, word: str) -> str:
        return "set_source_filter" if word in ("include", "exclude") else word

    def told(self) -> tuple[int, set[str]] | None:
        if not self.receiver.memberships:
            return None
        (told,) = self.receiver.memberships
        assert (told.group, told.interface, told.index) == (self.family.group, "lo", LO)
        return {"exclude": EXCLUDE, "include": INCLUDE}[told.mode], set(told.sources)


@pytest.mark.parametrize("how", ["verbs", "methods", "methods, after verbs"])
@pytest.mark.parametrize(("operation", "state", "outcome"), ROWS)
def test_a_change_does_what_the_table_says(multicast, opened, family, sock, how, operation, state, outcome):
    verbs = Verbs(multicast, family, sock)
    calls = verbs if how == "verbs" else Methods(opened, family, sock)
    for step in STATES[state]:
        (calls if how == "methods" else verbs).do(step)
    before = family.filter_of(sock)
    if isinstance(outcome, Error):
        error = refused(outcome.number, lambda: calls.do(operation), outcome.words)
        word, *names = operation.split()
        from_one = f" from {getattr(family, names[0])}" if names and word not in ("include", "exclude") else ""
        doing = f"{calls.called(word)} {family.group}{from_one} on lo (index {LO}): "
        assert error.strerror.startswith(f"{doing}{os.strerror(outcome.number)}; ")
        assert family.filter_of(sock) == before
        if how == "methods":
            assert calls.told() == before
    else:
        calls.do(operation)
        wanted = None if outcome is None else (outcome[0], family.named(*outcome[1:]))
        assert family.filter_of(sock) == wanted
        assert calls.told() == wanted


@pytest.mark.parametrize("state", STATES)
def test_the_filter_told_is_the_one_that_the_kernel_has(multicast, family, sock, state):
    calls = Verbs(multicast, family, sock)
    for step in STATES[state]:
        calls.do(step)
    has = family.filter_of(sock)
    if has is None:
        call = lambda: multicast.get_source_filter(sock, family.group, "lo")  # noqa: E731
        refused(
            errno.EADDRNOTAVAIL, call, f"get_source_filter {family.group} on lo (index {LO}): ", "has not joined it"
        )
    else:
        mode = {EXCLUDE: "exclude", INCLUDE: "include"}[has[0]]
        told = multicast.get_source_filter(sock, family.group, "lo")
        assert told == multicast.SourceFilter(mode=mode, sources=tuple(has[1]))


# Filters -----------------------------------------------------------------------------------------------------------


def test_sources_are_told_by_rising_number_each_once(multicast, family, sock):
    multicast.join_group(sock, family.group, "lo")
    same = (family.other, family.one, ipaddress.ip_address(family.other), ipaddress.ip_address(family.one).exploded)
    multicast.set_source_filter(sock, family.group, "include", same, "lo")
    told = multicast.get_source_filter(sock, family.group, "lo")
    assert told == multicast.SourceFilter(mode="include", sources=(family.one, family.other))
    assert family.filter_of(sock) == (INCLUDE, {family.one, family.other})


def test_one_source_may_be_given_as_it_is(multicast, family, sock):
    multicast.join_group(sock, family.group, "lo")
    for source in (family.one, ipaddress.ip_address(family.one)):
        multicast.set_source_filter(sock, family.group, "exclude", source, "lo")
        assert family.filter_of(sock) == (EXCLUDE, {family.one})


@needs_ipv6
@pytest.mark.parametrize("n", [0, 1, 63, 64])
def test_a_filter_is_read_whole_whatever_the_room(multicast, n):
    """The kernel tells how many there are; both backends first offer room for 64, which is all it takes by default."""
    sources = [f"2001:db8::{i:x}" for i in range(1, n + 1)]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        multicast.join_group(sock, "ff15::1:1", "lo")
        multicast.set_source_filter(sock, "ff15::1:1", "exclude", sources, "lo")
        assert multicast.get_source_filter(sock, "ff15::1:1", "lo").sources == tuple(sources)


@needs_ipv6
def test_more_ipv6_sources_than_a_filter_may_have_are_counted(multicast):
    path = pathlib.Path("/proc/sys/net/ipv6/mld_max_msf")
    try:
        limit = int(path.read_text("ascii"))
    except OSError as error:
        pytest.skip(f"the limit is not shown here: {error}")
    sources = [f"2001:db8::{i:x}" for i in range(1, limit + 2)]
    hint = f"net.ipv6.mld_max_msf (now {limit}); this would be source {limit + 1}"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        multicast.join_group(sock, "ff15::1:1", "lo")
        for change in (
            lambda: multicast.set_source_filter(sock, "ff15::1:1", "include", sources, "lo"),
            lambda: [multicast.block_source(sock, "ff15::1:1", each, "lo") for each in sources],
        ):
            refused(errno.ENOBUFS, change, "a limit was reached: ", hint)
        assert len(multicast.get_source_filter(sock, "ff15::1:1", "lo").sources) == limit


def test_a_filter_is_of_one_socket_group_and_interface(multicast, family, sock):
    with family.socket() as other:
        for each in (sock, other):
            multicast.join_group(each, family.group, "lo")
        multicast.block_source(sock, family.group, family.one, "lo")
        assert family.filter_of(sock) == (EXCLUDE, {family.one})
        assert family.filter_of(other) == (EXCLUDE, set())


def test_what_others_did_is_told(multicast, family, sock):
    """It is the kernel that is asked, not what this package remembers."""
    level = socket.IPPROTO_IP if family.family == socket.AF_INET else socket.IPPROTO_IPV6
    sock.setsockopt(level, 46, group_request(LO, family.group, family.one))  # MCAST_JOIN_SOURCE_GROUP
    assert multicast.get_source_filter(sock, family.group, "lo").sources == (family.one,)
