"""Both backends, side by side: the same names, the same words, and for the same call the same result or error.

Tests that run on either backend are elsewhere; these hold one against the other.
"""

# ruff: noqa: PLW0108 - the name of a lambda's parameter says what it is called with

from __future__ import annotations

import contextlib
import copy
import inspect
import ipaddress
import math
import os
import pathlib
import re
import socket
from types import ModuleType

import pytest
from filters import source_filter

CLASSES = ("Receiver", "Sender", "Batch", "Poller")
GROUP = f"239.253.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # no other run of these tests joins it
GROUP6 = f"ff15::239:{os.getpid() & 0xFFFF:x}"
SOURCE = "192.0.2.1"
LO = socket.if_nametoindex("lo")


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


# Names and words ---------------------------------------------------------------------------------------------------


def test_the_package_and_the_door_have_the_same_names(both):
    native, twin = both
    assert native.__all__ == twin.__all__
    assert native.skt.__all__ == twin.skt.__all__
    assert public(native) == public(twin)
    assert public(native.skt) == public(twin.skt)


def test_both_backends_have_what_the_door_asks_of_a_backend(both):
    for package in both:
        assert [
            name for name in package.skt._extension_check.BACKEND_NAMES if not hasattr(package.skt._backend, name)
        ] == []
        assert package.__version__ == package.skt._backend.VERSION


@contextlib.contextmanager
def made(package: ModuleType, **options):
    """A receiver with a batch of three datagrams, and a sender, joined by pairs of sockets."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    to, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    options = {"timeout": 0, "batch_size": 4, "datagram_size": 100} | options
    with far, to, package.Receiver(near, **options) as receiver, package.Sender(out) as sender:
        to.setblocking(False)
        for data in (b"abc", b"", b"d" * 101):
            far.send(data)
        batch = receiver.recv_batch()
        far.send(b"next")
        yield {"package": package, "receiver": receiver, "batch": batch, "sender": sender, "far": far, "to": to}


def test_receivers_and_senders_have_the_same_names(both):
    with made(both[0]) as native, made(both[1]) as twin:
        for name in ("receiver", "sender"):
            assert public(native[name]) == public(twin[name])


def test_batches_have_the_same_names_beside_what_bytes_gives_the_twin(both):
    with made(both[0]) as native, made(both[1]) as twin:
        assert public(native["batch"]) == public(twin["batch"]) - public(bytes)


def words(thing: object) -> str:
    """A docstring, without the signature that Cython may put before it."""
    text = inspect.cleandoc(thing.__doc__ or "")
    first, _, rest = text.partition("\n\n")
    return rest if re.fullmatch(r"[\w.]+\(.*\)( -> .*)?", first) else text


@pytest.mark.parametrize("name", CLASSES)
def test_classes_and_their_methods_have_the_same_docstrings(both, name):
    native, twin = (getattr(package, name) for package in both)
    assert inspect.cleandoc(native.__doc__) == inspect.cleandoc(twin.__doc__)
    shared = public(native) & public(twin)
    assert {each: words(getattr(native, each)) for each in shared} == {
        each: words(getattr(twin, each)) for each in shared
    }
    assert [each for each in shared - {"socket"} if not words(getattr(native, each))] == []


def test_functions_of_the_door_have_the_same_docstrings(both):
    native, twin = both
    for name in set(native.skt.__all__) - set(CLASSES):
        assert getattr(native, name).__doc__ == getattr(twin, name).__doc__, name


def plain(signature: inspect.Signature) -> inspect.Signature:
    """A signature without annotations, which a compiled method does not have."""
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


@pytest.mark.parametrize("name", CLASSES)
def test_methods_have_the_same_signatures(both, name):
    native, twin = (getattr(package, name) for package in both)
    methods = [each for each in public(native) if callable(getattr(native, each))]
    assert {each: plain(inspect.signature(getattr(native, each))) for each in methods} == {
        each: plain(inspect.signature(getattr(twin, each))) for each in methods
    }


def test_functions_of_the_backends_have_the_same_signatures(both):
    native, twin = (package.skt._backend for package in both)
    names = [name for name in twin.__all__ if inspect.isfunction(getattr(twin, name))]
    assert "join_group" in names
    assert {name: plain(inspect.signature(getattr(native, name))) for name in names} == {
        name: plain(inspect.signature(getattr(twin, name))) for name in names
    }


@pytest.mark.parametrize("name", ["Receiver", "Sender"])
def test_classes_are_made_by_the_arguments_that_their_docstring_says(both, name):
    native, twin = both
    stated = re.search(rf"^{name}\((.*?)\)(?::|$)", inspect.getdoc(getattr(native, name)), re.M | re.S).group(1)
    scope = {}
    exec(f"def {name}({stated}): pass", scope)
    expected = inspect.signature(scope[name])
    assert plain(inspect.signature(getattr(twin, name))) == expected
    required = [each.name for each in expected.parameters.values() if each.default is inspect.Parameter.empty]
    assert required == ["sock"]
    for package in both:
        with made(package) as things:
            sock = things["receiver" if name == "Receiver" else "sender"].socket.dup()
            defaults = {each.name: each.default for each in expected.parameters.values() if each.name not in required}
            getattr(package, name)(sock, **defaults).close()


def test_functions_of_the_door_have_the_same_signatures(both):
    native, twin = both
    for name in native.skt.__all__:
        function = getattr(native, name)
        if inspect.isfunction(function):
            assert inspect.signature(function) == inspect.signature(getattr(twin, name)), name


# The same call on both ---------------------------------------------------------------------------------------------


def plainly(value: object) -> object:
    """A value such that two backends' can be compared: no identity, no descriptor."""
    if isinstance(value, memoryview):
        return ("view", value.tolist(), value.format, value.itemsize, value.shape, value.strides, value.readonly)
    if isinstance(value, (list, tuple)):
        return [plainly(each) for each in value]
    if isinstance(value, type):
        return value.__name__
    if hasattr(value, "as_dict"):
        return type(value).__name__, value.as_dict()
    if type(value).__name__ in CLASSES:
        value = repr(value)
    return re.sub(r"\bfd=\d+", "fd=N", value) if isinstance(value, str) else value


def outcome(call, *arguments: object) -> tuple:
    """What a call did: what it returned, or what it raised and said."""
    try:
        return "returned", plainly(call(*arguments))
    except Exception as error:
        text = str(error)
        return "raised", type(error), getattr(error, "errno", None), text.replace("multicast._skt.", "")


def read(sock: socket.socket) -> dict:
    """The options of a socket that the verbs set."""
    if sock.fileno() < 0:
        return {}
    ip, ipv6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
    names = {"buffer": (socket.SOL_SOCKET, socket.SO_RCVBUF)}
    if sock.family == socket.AF_INET:
        names |= {"ttl": (ip, socket.IP_MULTICAST_TTL), "loopback": (ip, socket.IP_MULTICAST_LOOP), "all": (ip, 49)}
    elif sock.family == socket.AF_INET6:
        names |= {"ttl": (ipv6, socket.IPV6_MULTICAST_HOPS), "loopback": (ipv6, socket.IPV6_MULTICAST_LOOP)}
        names |= {"interface": (ipv6, socket.IPV6_MULTICAST_IF), "all": (ipv6, 29)}
    return {name: sock.getsockopt(*where) for name, where in names.items()}


def joined_twice(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.join_group(sock, GROUP, "lo")


def joined_and_left_twice(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.leave_group(sock, GROUP, "lo")
    m.leave_group(sock, GROUP, "lo")


def source_joined_twice(m, sock):
    m.join_group(sock, GROUP, "lo", SOURCE)
    m.join_group(sock, GROUP, "lo", SOURCE)


def source_left_twice(m, sock):
    m.join_group(sock, GROUP, "lo", SOURCE)
    m.leave_group(sock, GROUP, "lo", SOURCE)
    m.leave_group(sock, GROUP, "lo", SOURCE)


def any_source_after_one(m, sock):
    m.join_group(sock, GROUP, "lo", SOURCE)
    m.join_group(sock, GROUP, "lo")


def one_source_after_any(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.join_group(sock, GROUP, "lo", SOURCE)


def blocked_twice(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.block_source(sock, GROUP, SOURCE, "lo")
    m.block_source(sock, GROUP, SOURCE, "lo")


def unblocked_twice(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.block_source(sock, GROUP, SOURCE, "lo")
    m.unblock_source(sock, GROUP, SOURCE, "lo")
    m.unblock_source(sock, GROUP, SOURCE, "lo")


def included(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.set_source_filter(sock, GROUP, "include", ["192.0.2.10", "192.0.2.9"], "lo")
    return m.get_source_filter(sock, GROUP, "lo")


def included_too_many(m, sock):
    m.join_group(sock, GROUP, "lo")
    m.set_source_filter(sock, GROUP, "include", [f"192.0.2.{number}" for number in range(1, 255)], "lo")


def too_many_groups(m, sock):
    for number in range(1, int(pathlib.Path("/proc/sys/net/ipv4/igmp_max_memberships").read_text("ascii")) + 2):
        m.join_group(sock, f"239.254.0.{number}", "lo")


def too_many_sources(m, sock):
    for number in range(1, int(pathlib.Path("/proc/sys/net/ipv4/igmp_max_msf").read_text("ascii")) + 2):
        m.join_group(sock, GROUP, "lo", f"198.51.100.{number}")


def closed(sock):
    sock.close()
    return sock


SOCKET_CALLS = {
    "join by name": lambda m, sock: m.join_group(sock, GROUP, "lo"),
    "join by index": lambda m, sock: m.join_group(sock, GROUP, LO),
    "join by address": lambda m, sock: m.join_group(sock, GROUP, "127.0.0.1"),
    "join by ipaddress": lambda m, sock: m.join_group(sock, ipaddress.ip_address(GROUP), "lo"),
    "join by keywords": lambda m, sock: m.join_group(sock=sock, group=GROUP, interface="lo", source=SOURCE),
    "join a source": lambda m, sock: m.join_group(sock, GROUP, "lo", ipaddress.ip_address(SOURCE)),
    "join twice": joined_twice,
    "join a source twice": source_joined_twice,
    "join any source after one": any_source_after_one,
    "join one source after any": one_source_after_any,
    "join too many groups": too_many_groups,
    "join too many sources": too_many_sources,
    "join by an unknown name": lambda m, sock: m.join_group(sock, GROUP, "nosuch0"),
    "join by an unknown index": lambda m, sock: m.join_group(sock, GROUP, 2**31 - 1),
    "join by an unknown address": lambda m, sock: m.join_group(sock, GROUP, "203.0.113.9"),
    "join unicast": lambda m, sock: m.join_group(sock, SOURCE, "lo"),
    "join the other family": lambda m, sock: m.join_group(sock, GROUP6, "lo"),
    "join a source of the other family": lambda m, sock: m.join_group(sock, GROUP, "lo", "::1"),
    "join a closed socket": lambda m, sock: m.join_group(closed(sock), GROUP, "lo"),
    "join no socket": lambda m, sock: m.join_group(None, GROUP, "lo"),
    "join no group": lambda m, sock: m.join_group(sock, None, "lo"),
    "leave what was not joined": lambda m, sock: m.leave_group(sock, GROUP, "lo"),
    "leave a source that was not joined": lambda m, sock: m.leave_group(sock, GROUP, "lo", SOURCE),
    "leave twice": joined_and_left_twice,
    "leave a source twice": source_left_twice,
    "block": lambda m, sock: m.block_source(sock, GROUP, SOURCE, "lo"),
    "unblock": lambda m, sock: m.unblock_source(sock, GROUP, SOURCE, "lo"),
    "block twice": blocked_twice,
    "unblock twice": unblocked_twice,
    "block no source": lambda m, sock: m.block_source(sock, GROUP, None, "lo"),
    "include": included,
    "include too many": included_too_many,
    "include what was not joined": lambda m, sock: m.set_source_filter(sock, GROUP, "include", SOURCE, "lo"),
    "include nothing": lambda m, sock: m.set_source_filter(sock, GROUP, "include", (), "lo"),
    "filter by no mode": lambda m, sock: m.set_source_filter(sock, GROUP, "both", (), "lo"),
    "filter what was not joined": lambda m, sock: m.get_source_filter(sock, GROUP, "lo"),
    "filter on nothing": lambda m, sock: m.get_source_filter(sock, GROUP, "nosuch0"),
    "ttl 0": lambda m, sock: m.set_multicast_ttl(sock, 0),
    "ttl 255": lambda m, sock: m.set_multicast_ttl(sock, 255),
    "ttl 256": lambda m, sock: m.set_multicast_ttl(sock, 256),
    "ttl 1.0": lambda m, sock: m.set_multicast_ttl(sock, 1.0),
    "loopback off": lambda m, sock: m.set_multicast_loopback(sock, False),
    "loopback on": lambda m, sock: m.set_multicast_loopback(sock, 1),
    "loopback no": lambda m, sock: m.set_multicast_loopback(sock, "no"),
    "send through lo": lambda m, sock: m.set_multicast_interface(sock, "lo"),
    "send through what the route says": lambda m, sock: m.set_multicast_interface(sock, None),
    "send through nothing": lambda m, sock: m.set_multicast_interface(sock, "nosuch0"),
    "buffer 1": lambda m, sock: m.set_receive_buffer(sock, 1),
    "buffer 65536": lambda m, sock: m.set_receive_buffer(sock, 65_536),
    "buffer 0": lambda m, sock: m.set_receive_buffer(sock, 0),
    "a receiver of a socket that is closed": lambda m, sock: m.Receiver(closed(sock)),
    "a receiver of no socket": lambda m, sock: m.Receiver(5),
    "a receiver of too large batches": lambda m, sock: m.Receiver(sock, batch_size=1025),
    "a receiver of too large datagrams": lambda m, sock: m.Receiver(sock, datagram_size=65_536),
    "a receiver without blocks": lambda m, sock: m.Receiver(sock, max_blocks=0),
    "a receiver with a bad timeout": lambda m, sock: m.Receiver(sock, timeout=math.nan),
    "a sender that is not connected": lambda m, sock: m.Sender(sock),
    "a sender of no socket": lambda m, sock: m.Sender(None),
    "open no group": lambda m, sock: m.open_receiver([], 5000),
    "open unicast": lambda m, sock: m.open_receiver(SOURCE, 5000),
    "open port 0": lambda m, sock: m.open_receiver(GROUP, 0),
    "open through nothing": lambda m, sock: m.open_receiver(GROUP, 5000, interface="nosuch0"),
    "open two families": lambda m, sock: m.open_receiver([GROUP, GROUP6], 5000, interface="lo"),
    "send to unicast": lambda m, sock: m.open_sender(SOURCE, 5000),
    "send too far": lambda m, sock: m.open_sender(GROUP, 5000, interface="lo", ttl=256),
    "interfaces": lambda m, sock: m.interfaces(),
}


@pytest.mark.parametrize("what", SOCKET_CALLS)
def test_the_same_call_on_a_socket_does_the_same(both, what):
    outcomes = []
    for package in both:
        with package.genSocket() as sock:
            did = outcome(SOCKET_CALLS[what], package, sock)
            outcomes.append((did, read(sock), source_filter(sock, GROUP, LO) if sock.fileno() >= 0 else None))
    assert outcomes[0] == outcomes[1]


# What a receiver is asked, one after the other, of a group that it was not opened with.
RECEIVER_CALLS = {
    "join": lambda rx: rx.join(GROUP, "lo"),
    "join twice": lambda rx: (rx.join(GROUP, "lo"), rx.join(GROUP, "lo")),
    "join a source": lambda rx: rx.join(GROUP, LO, SOURCE),
    "join sources": lambda rx: rx.join(GROUP, LO, [ipaddress.ip_address(SOURCE), "192.0.2.2"]),
    "join a source twice": lambda rx: (rx.join(GROUP, LO, SOURCE), rx.join(GROUP, LO, ["192.0.2.2", SOURCE])),
    "join too many sources": lambda rx: rx.join(GROUP, LO, [f"192.0.2.{n}" for n in range(1, 255)]),
    "join one source after any": lambda rx: (rx.join(GROUP, "lo"), rx.join(GROUP, "lo", SOURCE)),
    "join the other family": lambda rx: rx.join(GROUP6, "lo"),
    "leave": lambda rx: (rx.join(GROUP, "lo"), rx.leave(GROUP)),
    "leave what was not joined": lambda rx: rx.leave(GROUP, "lo"),
    "leave a source": lambda rx: (rx.join(GROUP, LO, [SOURCE, "192.0.2.2"]), rx.leave(GROUP, source=SOURCE)),
    "leave a wrong source": lambda rx: (rx.join(GROUP, LO, "192.0.2.2"), rx.leave(GROUP, source=SOURCE)),
    "block": lambda rx: (rx.join(GROUP, "lo"), rx.block(GROUP, SOURCE)),
    "block what was not joined": lambda rx: rx.block(GROUP, SOURCE, "lo"),
    "block of named ones": lambda rx: (rx.join(GROUP, "lo", SOURCE), rx.block(GROUP, SOURCE)),
    "unblock": lambda rx: (rx.join(GROUP, "lo"), rx.block(GROUP, SOURCE), rx.unblock(GROUP, SOURCE)),
    "unblock what was not blocked": lambda rx: (rx.join(GROUP, "lo"), rx.unblock(GROUP, SOURCE)),
    "include": lambda rx: (rx.join(GROUP, "lo"), rx.set_source_filter(GROUP, "include", [SOURCE, "192.0.2.0"])),
    "include nothing": lambda rx: (rx.join(GROUP, "lo"), rx.set_source_filter(GROUP, "include", [])),
    "exclude": lambda rx: (rx.join(GROUP, "lo", SOURCE), rx.set_source_filter(GROUP, "exclude", SOURCE)),
    "exclude too many": lambda rx: (
        rx.join(GROUP, "lo"),
        rx.set_source_filter(GROUP, "exclude", [f"192.0.2.{n}" for n in range(1, 255)]),
    ),
}


@pytest.mark.parametrize("what", RECEIVER_CALLS)
def test_the_same_call_on_a_receiver_joins_the_same(both, feed, what):
    outcomes = []
    for package in both:
        with package.open_receiver([feed[0], "239.254.1.1"], feed[1], interface="lo") as receiver:
            did = outcome(RECEIVER_CALLS[what], receiver)
            filter_ = source_filter(receiver.socket, GROUP, LO)
            outcomes.append((did, [each.as_dict() for each in receiver.memberships], filter_))
    assert outcomes[0] == outcomes[1]


SOCKET6_CALLS = {
    "join by name": lambda m, sock: m.join_group(sock, GROUP6, "lo"),
    "join by a zone": lambda m, sock: m.join_group(sock, "ff02::1:3%lo"),
    "join by a zone's index": lambda m, sock: m.join_group(sock, f"ff02::1:3%{LO}"),
    "join without an interface": lambda m, sock: m.join_group(sock, "ff02::1:3"),
    "join a source": lambda m, sock: m.join_group(sock, GROUP6, "lo", "2001:db8::1"),
    "join a source twice": lambda m, sock: [m.join_group(sock, GROUP6, "lo", "2001:db8::1") for _ in range(2)],
    "join twice": lambda m, sock: [m.join_group(sock, GROUP6, "lo") for _ in range(2)],
    "join the other family": lambda m, sock: m.join_group(sock, GROUP, "lo"),
    "leave what was not joined": lambda m, sock: m.leave_group(sock, GROUP6, "lo"),
    "block": lambda m, sock: [m.join_group(sock, GROUP6, LO), m.block_source(sock, GROUP6, "2001:db8::1", "lo")],
    "include": lambda m, sock: [
        m.join_group(sock, GROUP6, LO),
        m.set_source_filter(sock, GROUP6, "include", ["2001:db8::10", "2001:db8::9"], LO),
        m.get_source_filter(sock, GROUP6, LO),
    ],
    "hops 7": lambda m, sock: m.set_multicast_ttl(sock, 7),
    "loopback off": lambda m, sock: m.set_multicast_loopback(sock, False),
    "send through lo": lambda m, sock: m.set_multicast_interface(sock, "lo"),
    "send through what the route says": lambda m, sock: m.set_multicast_interface(sock, None),
    "only what was joined": lambda m, sock: m.skt._backend.limit_to_joined(sock),
}


@pytest.mark.parametrize("what", SOCKET6_CALLS)
def test_the_same_call_on_an_ipv6_socket_does_the_same(both, what):
    outcomes = []
    for package in both:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        except OSError as error:
            pytest.skip(f"this machine has no IPv6 sockets: {error}")
        with sock:
            did = outcome(SOCKET6_CALLS[what], package, sock)
            outcomes.append((did, read(sock), source_filter(sock, GROUP6, LO)))
    assert outcomes[0] == outcomes[1]


def received(receiver, far, *, n=1):
    for number in range(n):
        far.send(b"more" * number)
    return receiver.recv_batch()


# Each with the names, out of `made`, that it needs.
CALLS = {
    "a batch": lambda batch: batch,
    "its length": lambda batch: (len(batch), bool(batch)),
    "its first datagram": lambda batch: batch[0],
    "its empty datagram": lambda batch: batch[1],
    "its last datagram": lambda batch: batch[-1],
    "its datagram True": lambda batch: batch[True],
    "past its end": lambda batch: batch[3],
    "before its begin": lambda batch: batch[-4],
    "its datagram None": lambda batch: batch[None],
    "its datagram 1.0": lambda batch: batch[1.0],
    "its datagram by text": lambda batch: batch["0"],
    "a slice": lambda batch: batch[1:],
    "a slice backwards": lambda batch: batch[::-1],
    "a slice past its end": lambda batch: batch[5 : 2**70],
    "a slice of step 0": lambda batch: batch[::0],
    "its views": lambda batch: [*batch],
    "its views by a second iterator": lambda batch: [(next(each), [*each]) for each in [iter(batch)]],
    "its views backwards": lambda batch: [*reversed(batch)],
    "what it contains": lambda batch: [each in batch for each in (b"abc", b"", b"d", b"d" * 100, 5, None)],
    "its block": lambda batch: memoryview(batch),
    "its bytes": lambda batch: bytes(batch),
    "its offsets": lambda batch: batch.offsets,
    "its lengths": lambda batch: batch.lengths,
    "its real lengths": lambda batch: batch.real_lengths,
    "what was truncated": lambda batch: batch.truncated,
    "its equals": lambda batch: (batch == batch, batch != batch, batch == [], batch == bytes(batch)),  # noqa: PLR0124
    "another batch": lambda package: package.Batch(),
    "another batch of bytes": lambda package: package.Batch(b"abc"),
    "a receiver": lambda receiver: receiver,
    "a sender": lambda sender: sender,
    "its sizes": lambda receiver: (receiver.batch_size, receiver.datagram_size, receiver.closed),
    "itself": lambda receiver: (iter(receiver) is receiver, receiver.__enter__() is receiver),
    "what is there": lambda receiver: [*receiver.recv_batch()],
    "more": lambda receiver, far: [*received(receiver, far, n=3)],
    "the next": lambda receiver: [*next(receiver)],
    "nothing": lambda receiver: (receiver.recv_batch(), receiver.recv_batch()),
    "nothing at once": lambda receiver: (receiver.recv_batch(), receiver.recv_batch(timeout=0)),
    "nothing in time": lambda receiver: (receiver.recv_batch(), receiver.recv_batch(timeout=0.001)),
    "nothing by the next": lambda receiver: (next(receiver), next(receiver)),
    "a timeout of nothing": lambda receiver: receiver.recv_batch(timeout=math.nan),
    "a negative timeout": lambda receiver: receiver.recv_batch(timeout=-1),
    "a timeout in text": lambda receiver: receiver.recv_batch(timeout="1"),
    "a timeout too long": lambda receiver: receiver.recv_batch(timeout=1e10),
    "a long timeout": lambda receiver: [*receiver.recv_batch(timeout=1e9)],
    "closing": lambda receiver: (receiver.close(), receiver.close(), receiver.closed, receiver.fileno(), receiver),
    "closing a sender": lambda sender: (sender.close(), sender.close(), sender.closed, sender.fileno(), sender),
    "receiving when closed": lambda receiver: (receiver.close(), receiver.recv_batch()),
    "a bad timeout when closed": lambda receiver: (receiver.close(), receiver.recv_batch(timeout="1")),
    "iterating when closed": lambda receiver: (receiver.close(), [*receiver]),
    "the next when closed": lambda receiver: (receiver.close(), next(receiver)),
    "a batch when closed": lambda receiver, batch: (receiver.close(), [*batch], batch.lengths),
    "what was joined": lambda receiver: receiver.memberships,
    "joining without multicast": lambda receiver: receiver.join("239.255.0.1", "lo"),
    "joining no group": lambda receiver: receiver.join(None, "lo"),
    "blocking by no source": lambda receiver: receiver.block("239.255.0.1", None, "lo"),
    "filtering by no mode": lambda receiver: receiver.set_source_filter("239.255.0.1", 1, ()),
    "joining when closed": lambda receiver: (receiver.close(), receiver.join("239.255.0.1")),
    "leaving when closed": lambda receiver: (receiver.close(), receiver.leave(None)),
    "what was joined when closed": lambda receiver: (receiver.close(), receiver.memberships),
    "sending": lambda sender, to: (sender.send(b"abc"), to.recv(9)),
    "sending nothing": lambda sender, to: (sender.send(b""), to.recv(9)),
    "sending an array": lambda sender, to: (sender.send(memoryview(b"abcd").cast("I")), to.recv(9)),
    "sending several": lambda sender, to: (sender.send_batch(iter([b"a", bytearray(b"b")])), to.recv(9), to.recv(9)),
    "sending none": lambda sender: sender.send_batch([]),
    "sending text": lambda sender: sender.send("abc"),
    "sending several texts": lambda sender: sender.send_batch(["abc"]),
    "sending one as several": lambda sender: sender.send_batch(b"abc"),
    "sending no several": lambda sender: sender.send_batch(5),
    "sending gaps": lambda sender: sender.send(memoryview(b"abcd")[::2]),
    "sending too much": lambda sender: sender.send(bytes(10**7)),
    "sending too much first": lambda sender: sender.send_batch([bytes(10**7), b"a"]),
    "sending too much last": lambda sender: sender.send_batch([b"a", bytes(10**7)]),
    "sending when closed": lambda sender: (sender.close(), sender.send(b"abc")),
    "sending several when closed": lambda sender: (sender.close(), sender.send_batch([])),
    "sending text when closed": lambda sender: (sender.close(), sender.send("abc")),
}


@pytest.mark.parametrize("what", CALLS)
def test_the_same_call_does_the_same(both, what):
    names = inspect.signature(CALLS[what]).parameters
    outcomes = []
    for package in both:
        with made(package) as things:
            outcomes.append(outcome(CALLS[what], *(things[name] for name in names)))
    assert outcomes[0] == outcomes[1]


COUNTED = ("datagrams", "bytes", "batches", "truncated", "drops", "receive_buffer", "blocks_in_use")


def test_the_same_datagrams_are_counted_the_same(both):
    counted = []
    for package in both:
        with made(package) as things:
            receiver = things["receiver"]
            before = receiver.stats()
            batch = receiver.recv_batch()
            during = receiver.stats()
            del batch
            receiver.close()
            stages = (before, during, receiver.stats())
            counted.append([[getattr(stats, name) for name in COUNTED] for stats in stages])
    assert counted[0] == counted[1]
    assert counted[0][0] == [3, 103, 1, 1, 0, counted[0][0][5], 1]


# What the interpreter words itself: the type of the exception is ours, its text is not.
UNSUPPORTED = {
    "a datagram far past the end": lambda batch: batch[2**63],
    "a datagram far before the begin": lambda batch: batch[-(2**64)],
    "changing a datagram": lambda batch: batch[0].__setitem__(0, 1),
    "changing the batch": lambda batch: batch.__setitem__(0, b""),
    "changing a length": lambda batch: batch.lengths.__setitem__(0, 1),
    "setting the lengths": lambda batch: setattr(batch, "lengths", []),
    "setting the receiver's closed": lambda receiver: setattr(receiver, "closed", True),
    "setting the receiver's memberships": lambda receiver: setattr(receiver, "memberships", ()),
    "setting the receiver's socket": lambda receiver: setattr(receiver, "socket", None),
    "setting the receiver's batch_size": lambda receiver: setattr(receiver, "batch_size", 1),
    "setting the receiver's datagram_size": lambda receiver: setattr(receiver, "datagram_size", 1),
    "setting the sender's socket": lambda sender: setattr(sender, "socket", None),
    "adding batches": lambda batch: batch + batch,
    "repeating a batch": lambda batch: batch * 2,
    "ordering batches": lambda batch: batch < batch,  # noqa: PLR0124
    "pickling a batch": lambda batch: batch.__reduce_ex__(5),
    "copying a batch": lambda batch: copy.copy(batch),
    "copying a batch deeply": lambda batch: copy.deepcopy(batch),
    "pickling a receiver": lambda receiver: receiver.__reduce_ex__(5),
    "pickling a sender": lambda sender: sender.__reduce_ex__(5),
    "copying a receiver": lambda receiver: copy.copy(receiver),
    "copying a receiver deeply": lambda receiver: copy.deepcopy(receiver),
    "copying a sender": lambda sender: copy.copy(sender),
    "making a receiver without a socket": lambda package: package.Receiver(),
    "making a receiver of an unknown option": lambda package, receiver: package.Receiver(receiver.socket, size=1),
    "making a receiver by position": lambda package, receiver: package.Receiver(receiver.socket, 64),
    "making a receiver twice": lambda receiver: receiver.__init__(receiver.socket),
    "making a sender twice": lambda sender: sender.__init__(sender.socket),
    "receiving with too many arguments": lambda receiver: receiver.recv_batch(0, 0),
    "joining without an argument": lambda receiver: receiver.join(),
    "joining with too many arguments": lambda receiver: receiver.join("239.255.0.1", "lo", None, "join"),
    "blocking with an unknown one": lambda receiver: receiver.block("239.255.0.1", "192.0.2.1", mode="lo"),
    "receiving with an unknown one": lambda receiver: receiver.recv_batch(n=1),
    "sending no argument": lambda sender: sender.send(),
    "subclassing the batch": lambda package: type("Mine", (package.Batch,), {}),
    "subclassing the receiver": lambda package: type("Mine", (package.Receiver,), {}),
    "subclassing the sender": lambda package: type("Mine", (package.Sender,), {}),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_one_backend_refuses_the_other_refuses_by_the_same_type(both, what):
    names = inspect.signature(UNSUPPORTED[what]).parameters
    outcomes = []
    for package in both:
        with made(package) as things:
            did = outcome(UNSUPPORTED[what], *(things[name] for name in names))
            outcomes.append(did[1] if did[0] == "raised" else did[0])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != "returned"
