"""What a refused call leaves behind, which is nothing; and that garbage of any kind is refused."""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import os
import pathlib
import resource
import socket
import sys
import warnings

import pytest
from feeds import further
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from net import open_descriptors
from refusals import ALL_HOSTS, GROUP, HUGE, PORT, refused

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


# Undone ------------------------------------------------------------------------------------------------------------


def sysctl(name: str) -> int:
    return int(pathlib.Path("/proc/sys", *name.split(".")).read_text("ascii"))


def joined() -> set[str]:
    """The IPv4 groups that somebody on this host has joined on the loopback interface."""
    _, _, rest = pathlib.Path("/proc/net/igmp").read_text("ascii").partition("\tlo ")
    lines = itertools.takewhile(lambda line: line.startswith("\t\t"), rest.splitlines()[1:])
    return {socket.inet_ntoa(int(line.split()[0], 16).to_bytes(4, sys.byteorder)) for line in lines}


def too_many_groups(feed: tuple[str, int]) -> list[str]:
    """More groups than a socket may join, which no other test of this run uses."""
    return [further(feed[0], n + 1) for n in range(sysctl("net.ipv4.igmp_max_memberships") + 1)]


def too_many_sources() -> list[str]:
    return [f"198.51.100.{n}" for n in range(1, sysctl("net.ipv4.igmp_max_msf") + 2)]


FAILING_STEPS = {
    "the receive buffer": (ValueError, lambda m, feed: m.open_receiver(*feed, interface="lo", receive_buffer=0)),
    "the port": (errno.EADDRINUSE, lambda m, feed: m.open_receiver(*feed, interface="lo", exclusive=True)),
    "the first join": (errno.ENODEV, lambda m, feed: m.open_receiver(*feed, interface="nosuch0")),
    "a later join": (
        errno.ENOBUFS,
        lambda m, feed: m.open_receiver([*too_many_groups(feed), feed[0]], feed[1], interface="lo"),
    ),
    "a later source": (
        errno.ENOBUFS,
        lambda m, feed: m.open_receiver(*feed, interface="lo", source=too_many_sources()),
    ),
    "the receiver": (ValueError, lambda m, feed: m.open_receiver(*feed, interface="lo", batch_size=0)),
    "the receiver's timeout": (ValueError, lambda m, feed: m.open_receiver(*feed, interface="lo", timeout=-1)),
    "the sender's interface": (errno.ENODEV, lambda m, feed: m.open_sender(*feed, interface="nosuch0")),
    "the sender's TTL": (ValueError, lambda m, feed: m.open_sender(*feed, interface="lo", ttl=256)),
    "the sender's loopback": (TypeError, lambda m, feed: m.open_sender(*feed, interface="lo", ttl=0, loopback=None)),
}


@pytest.mark.parametrize("step", FAILING_STEPS)
def test_everything_is_undone_when_a_step_fails(multicast, feed, step):
    expected, call = FAILING_STEPS[step]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        if step == "the port":
            taken.bind(feed)
        before = open_descriptors()
        refused(expected, lambda: call(multicast, feed))
        assert open_descriptors() == before
        assert joined().isdisjoint([feed[0], *too_many_groups(feed)])


def test_a_limit_reached_is_named(multicast, feed):
    """The sysctl to raise, its value, and the group that was one too many."""
    groups, sources = too_many_groups(feed), too_many_sources()
    call = lambda: multicast.open_receiver(groups, feed[1], interface="lo")  # noqa: E731
    refused(errno.ENOBUFS, call, groups[-1], "net.ipv4.igmp_max_memberships", f"now {len(groups) - 1}")
    call = lambda: multicast.open_receiver(*feed, interface="lo", source=sources)  # noqa: E731
    refused(errno.ENOBUFS, call, feed[0], sources[-1], "net.ipv4.igmp_max_msf", f"now {len(sources) - 1}")


def test_a_port_that_somebody_has_is_named(multicast, feed):
    group, port = feed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((group, port))
        call = lambda: multicast.open_receiver(*feed, interface="lo")  # noqa: E731
        refused(errno.EADDRINUSE, call, f"open_receiver {group}: ", f"{group}:{port}", "another socket has this port")


@pytest.mark.parametrize("kind", ["Receiver", "Sender"])
def test_a_socket_that_was_refused_stays_the_callers(multicast, kind):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        refused(ValueError, lambda: getattr(multicast, kind)(stream))
        assert stream.fileno() >= 0


@contextlib.contextmanager
def descriptors_left(n: int):
    """Let this process open n more descriptors, no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = open_descriptors()
    free = (number for number in itertools.count() if str(number) not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, n, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


DESCRIPTOR_CALLS = {
    "open_receiver": lambda m, near, feed: m.open_receiver(*feed, interface="lo"),
    "open_sender": lambda m, near, feed: m.open_sender(*feed, interface="lo", ttl=0),
    "Receiver": lambda m, near, feed: m.Receiver(near),
    "Sender": lambda m, near, feed: m.Sender(near),
}


@pytest.mark.parametrize("operation", DESCRIPTOR_CALLS)
def test_a_process_out_of_descriptors_loses_none(multicast, opened, feed, operation):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.closing(near)
    opened.closing(far)
    before = open_descriptors()
    failures, made = [], None
    while made is None:
        try:
            with descriptors_left(len(failures)):
                made = DESCRIPTOR_CALLS[operation](multicast, near, feed)
        except OSError as error:
            failures.append(error.errno)
            assert open_descriptors() == before
    made.close()
    near.close()
    assert set(failures) == {errno.EMFILE}
    assert len(failures) >= 2  # a receiver or a sender has a duplicate of the socket's, and what wakes it


# Anything ----------------------------------------------------------------------------------------------------------

fuzzed = settings(
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NEVER = (object(), object, NotImplemented, ..., print, os, array.array("I", [1, 2]), range(3), 1 << 31, HUGE)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-1, 2**32),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(st.characters(exclude_categories=())),
    st.text("0123456789abcdef.:%", max_size=20),
    st.binary(max_size=64),
    st.binary(max_size=64).map(bytearray),
    st.binary(max_size=64).map(memoryview),
    st.ip_addresses(),
    st.sampled_from(NEVER),
)
anything = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.lists(scalars, max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=3), scalars, max_size=3),
)


# The all-hosts group is the one to fuzz an interface with: joined on whichever it is, no host reports it.
ANY_CALLS = {
    "join_group sock": lambda m, sock, x: m.join_group(x, GROUP, "lo"),
    "join_group group": lambda m, sock, x: m.join_group(sock, x, "lo"),
    "join_group interface": lambda m, sock, x: m.join_group(sock, ALL_HOSTS, x),
    "join_group source": lambda m, sock, x: m.join_group(sock, GROUP, "lo", x),
    "leave_group sock": lambda m, sock, x: m.leave_group(x, GROUP, "lo"),
    "leave_group group": lambda m, sock, x: m.leave_group(sock, x, "lo"),
    "leave_group interface": lambda m, sock, x: m.leave_group(sock, ALL_HOSTS, x),
    "leave_group source": lambda m, sock, x: m.leave_group(sock, GROUP, "lo", x),
    "block_source source": lambda m, sock, x: m.block_source(sock, GROUP, x, "lo"),
    "unblock_source source": lambda m, sock, x: m.unblock_source(sock, GROUP, x, "lo"),
    "set_source_filter mode": lambda m, sock, x: m.set_source_filter(sock, GROUP, x, [], "lo"),
    "set_source_filter sources": lambda m, sock, x: m.set_source_filter(sock, GROUP, "include", x, "lo"),
    "set_source_filter interface": lambda m, sock, x: m.set_source_filter(sock, ALL_HOSTS, "exclude", [], x),
    "get_source_filter group": lambda m, sock, x: m.get_source_filter(sock, x, "lo"),
    "set_multicast_interface sock": lambda m, sock, x: m.set_multicast_interface(x, "lo"),
    "set_multicast_interface interface": lambda m, sock, x: m.set_multicast_interface(sock, x),
    "set_multicast_ttl sock": lambda m, sock, x: m.set_multicast_ttl(x, 0),
    "set_multicast_ttl ttl": lambda m, sock, x: m.set_multicast_ttl(sock, x),
    "set_multicast_loopback sock": lambda m, sock, x: m.set_multicast_loopback(x, True),
    "set_multicast_loopback enabled": lambda m, sock, x: m.set_multicast_loopback(sock, x),
    "set_receive_buffer sock": lambda m, sock, x: m.set_receive_buffer(x, 4096),
    "set_receive_buffer nbytes": lambda m, sock, x: m.set_receive_buffer(sock, x),
    "open_receiver group": lambda m, sock, x: m.open_receiver(x, PORT, interface="lo"),
    "open_receiver port": lambda m, sock, x: m.open_receiver(GROUP, x, interface="lo"),
    "open_receiver interface": lambda m, sock, x: m.open_receiver(ALL_HOSTS, PORT, interface=x),
    "open_receiver source": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", source=x),
    "open_receiver batch_size": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", batch_size=x),
    "open_receiver datagram_size": lambda m, sock, x: m.open_receiver(
        GROUP, PORT, interface="lo", batch_size=1, datagram_size=x
    ),
    "open_receiver receive_buffer": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", receive_buffer=x),
    "open_receiver timeout": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", timeout=x),
    "open_receiver max_blocks": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", max_blocks=x),
    "open_receiver exclusive": lambda m, sock, x: m.open_receiver(GROUP, PORT, interface="lo", exclusive=x),
    "open_sender group": lambda m, sock, x: m.open_sender(x, PORT, interface="lo", ttl=0),
    "open_sender port": lambda m, sock, x: m.open_sender(GROUP, x, interface="lo", ttl=0),
    "open_sender interface": lambda m, sock, x: m.open_sender(ALL_HOSTS, PORT, interface=x, ttl=0),
    "open_sender ttl": lambda m, sock, x: m.open_sender(GROUP, PORT, interface="lo", ttl=x),
    "open_sender loopback": lambda m, sock, x: m.open_sender(GROUP, PORT, interface="lo", ttl=0, loopback=x),
    "Receiver sock": lambda m, sock, x: m.Receiver(x),
    "Sender sock": lambda m, sock, x: m.Sender(x),
}


@pytest.mark.parametrize("what", ANY_CALLS)
@given(value=anything)
@fuzzed
def test_anything_else_is_a_type_value_or_os_error(multicast, what, value):
    before = open_descriptors()
    with multicast.genSocket() as sock, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a receive buffer that was clamped
        try:
            made = ANY_CALLS[what](multicast, sock, value)
        except (TypeError, ValueError, OSError) as error:
            assert str(error)  # noqa: PT017 - which of them it is, is not known
        else:
            if made is not None and not isinstance(made, int):
                made.close()
    assert open_descriptors() == before


@given(value=anything)
@fuzzed
def test_any_timeout_of_a_call_ends_in_a_batch_or_in_such_an_error(opened, value):
    receiver, far = opened.pipe(batch_size=1)
    far.send(b"x")
    try:
        batch = receiver.recv_batch(value)
    except (TypeError, ValueError) as error:
        assert str(error).startswith("recv_batch: timeout is ")  # noqa: PT017
    else:
        assert bytes(batch[0]) == b"x"
    finally:
        opened.close()


@given(value=anything)
@fuzzed
def test_anything_sent_arrives_whole_or_is_such_an_error(multicast, value):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.setblocking(False)
    with far, multicast.Sender(near) as sender:
        for buffers, send in (([value], sender.send), (value, sender.send_batch)):
            try:
                sent = send(value)
            except (TypeError, ValueError, OSError):
                continue
            for each in list(buffers)[: 1 if send == sender.send else sent]:
                assert far.recv(100_000) == bytes(memoryview(each))
        with pytest.raises(BlockingIOError):
            far.recv(1)
