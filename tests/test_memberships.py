"""What a receiver joins and leaves by itself while it receives, what it says that it has joined, and whom it tells.

On the loopback interface, by IPv4 where something is sent, with TTL 0.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading

import pytest
from feeds import further
from filters import EXCLUDE, INCLUDE, source_filter
from net import open_descriptors
from refusals import PORT, needs_ipv6, refused

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

LO = socket.if_nametoindex("lo")
SOURCE, ONE, OTHER = "127.0.0.1", "192.0.2.9", "192.0.2.10"
GROUP6, ONE6, OTHER6 = f"ff15::237:{os.getpid() & 0xFFFF:x}", "2001:db8::9", "2001:db8::10"


def another(feed: tuple[str, int], n: int = 1) -> str:
    """A group that no other test of this run uses."""
    return further(feed[0], n)


def local(opened, feed: tuple[str, int]):
    """A sender from 127.0.0.1, not from the address that the route would choose."""
    return opened.closing(opened.package.open_sender(*feed, interface=SOURCE, ttl=0))


def until(receiver, last: bytes) -> list[bytes]:
    """Receive until this payload comes; all that came."""
    came: list[bytes] = []
    while last not in came:
        came += map(bytes, receiver.recv_batch())
    return came


class Receiving(contextlib.AbstractContextManager):
    """A thread that receives all the while, until the receiver is closed."""

    def __init__(self, receiver) -> None:
        self.receiver, self.came, self.arrived = receiver, [], threading.Condition()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for batch in self.receiver:
                with self.arrived:
                    self.came += map(bytes, batch)
                    self.arrived.notify_all()
        except BaseException as error:
            self.error = error

    def until(self, last: bytes) -> list[bytes]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: last in self.came, 20), self.came
            came, self.came = self.came, []
            return came

    def __exit__(self, *_: object) -> None:
        self.receiver.close()
        self.thread.join()
        if self.error is not None:
            raise self.error


# While another thread receives -------------------------------------------------------------------------------------


def test_a_source_is_blocked_and_unblocked_while_a_thread_receives(opened, feed):
    """What is sent to another group of the receiver, of which nothing is blocked, shows that all before it has come."""
    group, marker = feed[0], another(feed)
    receiver = opened.receiver(([group, marker], feed[1]), timeout=None)
    sender, mark = local(opened, feed), opened.sender((marker, feed[1]))
    with Receiving(receiver) as receiving:
        for n in range(20):
            receiver.block(group, SOURCE)
            sender.send(b"blocked")
            mark.send(b"marker %d" % n)
            assert receiving.until(b"marker %d" % n) == [b"marker %d" % n]
            receiver.unblock(group, SOURCE)
            sender.send(b"free %d" % n)
            assert receiving.until(b"free %d" % n) == [b"free %d" % n]


def test_groups_are_left_and_joined_while_a_thread_receives(opened, feed):
    group, marker = feed[0], another(feed)
    receiver = opened.receiver(([group, marker], feed[1]), timeout=None)
    sender, mark = local(opened, feed), opened.sender((marker, feed[1]))
    opened.receiver(feed)  # so that the host takes the group all the while
    with Receiving(receiver) as receiving:
        for n in range(20):
            receiver.leave(group)
            sender.send(b"left")
            mark.send(b"marker %d" % n)
            assert receiving.until(b"marker %d" % n) == [b"marker %d" % n]
            receiver.join(group, "lo", None if n % 2 else SOURCE)
            sender.send(b"joined %d" % n)
            assert receiving.until(b"joined %d" % n) == [b"joined %d" % n]


def test_the_mode_is_switched_while_a_thread_receives(opened, feed):
    group, marker = feed[0], another(feed)
    receiver = opened.receiver(([group, marker], feed[1]), timeout=None)
    sender, mark = local(opened, feed), opened.sender((marker, feed[1]))
    deaf = [("exclude", [SOURCE]), ("include", [ONE]), ("exclude", [ONE, SOURCE])]
    hears = [("include", [SOURCE, ONE]), ("exclude", []), ("exclude", [ONE])]
    with Receiving(receiver) as receiving:
        for n, (closed, open_) in enumerate(zip(deaf, hears, strict=True)):
            receiver.set_source_filter(group, *closed)
            sender.send(b"filtered")
            mark.send(b"marker %d" % n)
            assert receiving.until(b"marker %d" % n) == [b"marker %d" % n]
            receiver.set_source_filter(group, *open_)
            sender.send(b"open %d" % n)
            assert receiving.until(b"open %d" % n) == [b"open %d" % n]


def test_threads_that_join_and_leave_at_once_lose_nothing_of_what_the_others_did(opened, feed):
    receiver = opened.receiver(([another(feed), another(feed, 2)], feed[1]), timeout=None)
    sender = opened.sender((another(feed), feed[1]))
    before = receiver.memberships
    groups = [another(feed, 3 + n) for n in range(4)]
    errors: list[BaseException] = []

    def change(group: str) -> None:
        try:
            for _ in range(50):
                receiver.join(group, "lo")
                receiver.block(group, ONE)
                receiver.leave(group)
                receiver.join(group, "lo", [ONE, OTHER])
                receiver.leave(group, source=ONE)
                receiver.leave(group, source=OTHER)
            receiver.join(group, "lo", ONE)
        except BaseException as error:
            errors.append(error)

    with Receiving(receiver) as receiving:
        threads = [threading.Thread(target=change, args=(group,)) for group in groups]
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            assert {each.index for each in receiver.memberships} == {LO}  # whole at any time
        for each in threads:
            each.join()
        assert errors == []
        assert set(receiver.memberships[:2]) == set(before)
        assert {each.group: each.sources for each in receiver.memberships[2:]} == dict.fromkeys(groups, (ONE,))
        for group in groups:
            assert source_filter(receiver.socket, group, LO) == (INCLUDE, {ONE})
        sender.send(b"end")
        assert receiving.until(b"end") == [b"end"]


def test_a_receiver_closed_meanwhile_ends_in_a_bad_descriptor(opened, feed):
    """Also when the number of the descriptor is given away at once: no other socket is joined by mistake."""
    groups = [another(feed, 1), another(feed, 2)]
    for _ in range(50):
        receiver = opened.receiver((groups, feed[1]))
        begun, ended = threading.Event(), []

        def change(receiver=receiver, begun=begun, ended=ended) -> None:
            try:
                while True:
                    receiver.join(feed[0], "lo")
                    receiver.leave(feed[0], "lo")
                    begun.set()
            except OSError as error:
                ended.append(error)  # noqa: B023

        thread = threading.Thread(target=change)
        thread.start()
        assert begun.wait(20)
        receiver.close()
        with receiver.socket.__class__(socket.AF_INET, socket.SOCK_DGRAM) as decoy:
            thread.join()
            assert source_filter(decoy, feed[0], LO) is None
        assert [(error.errno, "already closed" in str(error)) for error in ended] == [(errno.EBADF, True)]
        assert receiver.memberships == ()


METHODS = {
    "join": lambda receiver, group: receiver.join(group, "lo"),
    "leave": lambda receiver, group: receiver.leave(group),
    "block": lambda receiver, group: receiver.block(group, ONE),
    "unblock": lambda receiver, group: receiver.unblock(group, ONE),
    "set_source_filter": lambda receiver, group: receiver.set_source_filter(group, "exclude", [ONE]),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_receiver_refuses(opened, feed, method):
    receiver = opened.receiver(feed)
    receiver.close()
    refused(errno.EBADF, lambda: METHODS[method](receiver, feed[0]), f"{method}: already closed")
    assert receiver.memberships == ()


@pytest.mark.parametrize("method", METHODS)
def test_closing_the_socket_object_changes_nothing_for_the_receiver(opened, feed, method):
    receiver = opened.receiver(([feed[0], another(feed)], feed[1]))
    receiver.block(feed[0], OTHER)
    if method == "unblock":
        receiver.block(feed[0], ONE)
    if method == "join":
        receiver.leave(feed[0])
    receiver.socket.close()
    METHODS[method](receiver, feed[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_socket_without_multicast_refuses(opened, method):
    receiver, _ = opened.pipe()
    refused(ValueError, lambda: METHODS[method](receiver, "239.255.0.1"), f"{method} ", "the socket is AF_UNIX")
    assert receiver.memberships == ()


@pytest.mark.alone  # a process that forks has one thread
@pytest.mark.parametrize("method", METHODS)
def test_a_forked_child_refuses(opened, feed, method):
    receiver = opened.receiver(feed)
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            METHODS[method](receiver, feed[0])
        except RuntimeError as error:
            os.write(writes, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with open(reads) as said:
        assert said.read().startswith(f"{method}: opened before os.fork()")
    assert [each.group for each in receiver.memberships] == [feed[0]]


def test_changing_memberships_takes_no_descriptor(opened, feed):
    """So it works in a process that has none left, as closing does."""
    receiver = opened.receiver(feed)
    before = open_descriptors()
    receiver.block(feed[0], ONE)
    receiver.set_source_filter(feed[0], "include", [ONE, OTHER])
    receiver.leave(feed[0])
    receiver.join(feed[0], LO)
    assert open_descriptors() == before


# What is said to be joined -----------------------------------------------------------------------------------------


def test_what_was_opened_is_told(multicast, opened, feed):
    group, other = feed[0], another(feed)
    receiver = opened.receiver(([other, group], feed[1]), source=[OTHER, ONE])
    told = [
        multicast.Membership(group=each, interface="lo", index=LO, mode="include", sources=(ONE, OTHER))
        for each in (other, group)
    ]
    assert receiver.memberships == tuple(told)
    assert repr(told[0]) == (
        f"Membership(group={other!r}, interface='lo', index={LO}, mode='include', sources=({ONE!r}, {OTHER!r}))"
    )


def test_only_what_the_receiver_joined_itself_is_told(multicast, opened, feed):
    receiver = opened.receiver(([feed[0], another(feed)], feed[1]))
    multicast.join_group(receiver.socket, another(feed, 2), "lo")
    assert [each.group for each in receiver.memberships] == [feed[0], another(feed)]


def test_a_membership_that_somebody_else_ended_is_forgotten_when_left(multicast, opened, feed):
    receiver = opened.receiver(([feed[0], another(feed)], feed[1]))
    multicast.leave_group(receiver.socket, feed[0], "lo")
    refused(errno.EADDRNOTAVAIL, lambda: receiver.leave(feed[0], "lo"), f"leave {feed[0]} on lo", "has not joined it")
    assert [each.group for each in receiver.memberships] == [another(feed)]


def test_several_sources_are_joined_or_none(opened, feed):
    receiver = opened.receiver(([feed[0], another(feed)], feed[1]), source=[ONE])
    before = receiver.memberships
    call = lambda: receiver.join(feed[0], "lo", [OTHER, ONE])  # noqa: E731
    refused(errno.EADDRNOTAVAIL, call, f"join {feed[0]} from {ONE} on lo", "joined from this source already")
    assert receiver.memberships == before
    assert source_filter(receiver.socket, feed[0], LO) == (INCLUDE, {ONE})
    receiver.leave(feed[0])
    with pytest.raises(ValueError, match="no source was named"):
        receiver.join(feed[0], "lo", [])
    with pytest.raises(ValueError, match="no host's address"):
        receiver.join(feed[0], "lo", [ONE, "0.0.0.0"])
    assert source_filter(receiver.socket, feed[0], LO) is None


def test_sources_are_left_one_or_several_at_a_time(opened, feed):
    receiver = opened.receiver(feed, source=[ONE, OTHER, SOURCE])
    receiver.leave(feed[0], "lo", [ONE, OTHER])
    assert source_filter(receiver.socket, feed[0], LO) == (INCLUDE, {SOURCE})
    assert [each.sources for each in receiver.memberships] == [(SOURCE,)]
    with pytest.raises(ValueError, match="no source was named"):
        receiver.leave(feed[0], "lo", [])
    receiver.leave(feed[0], source=SOURCE)
    assert receiver.memberships == ()


# What a receiver can't be joined to --------------------------------------------------------------------------------


def test_a_receiver_of_one_group_can_not_join_another(opened, feed):
    """It is bound to the one: the other's datagrams would pass it by, without a word."""
    receiver = opened.receiver(feed)
    words = (f"join {another(feed)} on lo", f"bound to {feed[0]}", "a list of groups")
    refused(ValueError, lambda: receiver.join(another(feed), "lo"), *words)
    assert source_filter(receiver.socket, another(feed), LO) is None
    of_a_list = opened.receiver(([feed[0], another(feed)], feed[1]))
    sender = opened.sender((another(feed, 2), feed[1]))
    of_a_list.join(another(feed, 2), "lo")
    sender.send(b"end")
    assert until(of_a_list, b"end") == [b"end"]


def test_a_receiver_bound_to_a_host_can_not_join_a_group(multicast, opened):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        receiver = opened.closing(multicast.Receiver(sock))
        refused(ValueError, lambda: receiver.join("239.255.0.1", "lo"), "join 239.255.0.1", "bound to 127.0.0.1")


@needs_ipv6
def test_a_receiver_of_one_ipv6_group_can_not_join_another(opened):
    receiver = opened.receiver((GROUP6, PORT))
    refused(ValueError, lambda: receiver.join("ff15::1:2", "lo"), "join ff15::1:2 on lo", f"bound to {GROUP6}")
    link_local = opened.receiver(("ff12::1:3", PORT))
    refused(ValueError, lambda: link_local.join("ff12::1:4", "lo"), "join ff12::1:4 on lo", "bound to ff12::1:3")


# Who is told -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracked(multicast, feed):
    """A socket, its memberships, and a list: at each call of `changed` what was joined, and what of that really was."""
    with multicast.genSocket() as sock:
        calls = []

        def changed(joined: frozenset[tuple[bytes, int]]) -> None:
            has = {group for group, index in joined if source_filter(sock, socket.inet_ntoa(group), index) is not None}
            calls.append(({socket.inet_ntoa(group) for group, _ in joined}, {socket.inet_ntoa(each) for each in has}))

        backend = multicast.skt._backend
        yield sock, backend._memberships.Memberships(backend, changed), calls


def test_a_join_is_told_before_and_a_leave_after_it_has_its_effect(tracked, feed):
    sock, memberships, calls = tracked
    one, two = feed[0], another(feed)
    memberships.join(sock, one, "lo")
    memberships.join(sock, two, "lo", ONE)
    assert calls == [({one}, set()), ({one, two}, {one})]
    calls.clear()
    memberships.join(sock, two, "lo", OTHER)
    memberships.leave(sock, two, "lo", ONE)
    memberships.block(sock, one, ONE, "lo")
    memberships.set_source_filter(sock, one, "include", ONE, "lo")
    assert calls == []  # the groups are the same
    memberships.leave(sock, one)
    memberships.set_source_filter(sock, two, "include", [])
    assert calls == [({two}, {two}), (set(), set())]
    assert memberships.list() == ()


def test_a_join_that_failed_is_taken_back(tracked, feed):
    sock, memberships, calls = tracked
    memberships.join(sock, feed[0], "lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        pass
    refused(errno.EBADF, lambda: memberships.join(closed, another(feed), "lo"))
    with pytest.raises(OSError, match="joined it already"):
        memberships.join(sock, feed[0], "lo")
    assert calls == [({feed[0]}, set())]  # neither came as far as the kernel, or changed what is joined
    call = lambda: memberships.join(sock, another(feed), "lo", [f"192.0.2.{n}" for n in range(1, 255)])  # noqa: E731
    refused(errno.ENOBUFS, call, f"join {another(feed)} from 192.0.2.", "net.ipv4.igmp_max_msf")
    assert calls[1:] == [({feed[0], another(feed)}, {feed[0]}), ({feed[0]}, {feed[0]})]
    assert [each.group for each in memberships.list()] == [feed[0]]
    assert source_filter(sock, another(feed), LO) is None


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_an_error_of_the_one_told_is_raised_and_nothing_is_joined(tracked, feed, kind):
    sock, memberships, calls = tracked

    def changed(joined: object) -> None:
        calls.append(joined)
        if len(calls) == 1:
            raise kind("mine")

    memberships.changed = changed
    with pytest.raises(kind, match="mine"):
        memberships.join(sock, feed[0], "lo")
    assert memberships.list() == ()
    assert calls[1:] == [frozenset()]
    assert source_filter(sock, feed[0], LO) is None


def test_the_one_told_may_ask(tracked, feed):
    sock, memberships, _ = tracked
    seen = []
    memberships.changed = lambda joined: seen.append((memberships.list(), memberships.indexes()))
    memberships.join(sock, feed[0], "lo")
    ((told, indexes),) = seen
    assert [each.group for each in told] == [feed[0]]
    assert indexes == {LO: "lo"}


# Joining again on the same interface -------------------------------------------------------------------------------

FILTERS = {
    "any source": (EXCLUDE, []),
    "one blocked": (EXCLUDE, [ONE]),
    "this host blocked": (EXCLUDE, ["127.0.0.1", "127.0.0.2", ONE]),
    "one source": (INCLUDE, [ONE]),
    "ten sources": (INCLUDE, [f"192.0.2.{n}" for n in range(1, 11)]),
}


@pytest.mark.parametrize("what", FILTERS)
def test_what_was_joined_is_joined_again_with_its_filter(tracked, feed, what):
    sock, memberships, calls = tracked
    mode, sources = FILTERS[what]
    memberships.join(sock, feed[0], "lo")
    memberships.set_source_filter(sock, feed[0], "include" if mode == INCLUDE else "exclude", sources)
    memberships.join(sock, another(feed), "lo", OTHER)
    before = memberships.list()
    memberships.rejoin(sock, LO, LO)
    assert source_filter(sock, feed[0], LO) == (mode, set(sources))
    assert source_filter(sock, another(feed), LO) == (INCLUDE, {OTHER})
    assert set(memberships.list()) == set(before)
    assert all(joined == {feed[0], another(feed)} for joined, _ in calls[2:])


class Watched:
    """A backend, and after each of its calls the filter that the kernel has then."""

    def __init__(self, backend, look) -> None:
        self._backend, self._look, self.seen = backend, look, []

    def __getattr__(self, name: str):
        call = getattr(self._backend, name)

        def watched(*arguments):
            try:
                return call(*arguments)
            finally:
                self.seen.append(self._look())

        return watched


@pytest.mark.parametrize("what", FILTERS)
def test_on_the_way_to_its_filter_nothing_is_let_in_that_is_not_wanted(multicast, feed, what):
    mode, sources = FILTERS[what]
    with multicast.genSocket() as sock:
        backend = Watched(multicast.skt._backend, lambda: source_filter(sock, feed[0], LO))
        memberships = multicast.skt._backend._memberships.Memberships(backend)
        memberships.join(sock, feed[0], "lo")
        memberships.set_source_filter(sock, feed[0], "include" if mode == INCLUDE else "exclude", sources)
        backend.seen.clear()
        memberships.rejoin(sock, LO, LO)
        steps = [each for each in backend.seen if each is not None]
        assert steps[-1] == (mode, set(sources))
        for way, listed in steps:
            if mode == INCLUDE:
                assert (way, listed <= set(sources)) == (INCLUDE, True)
            elif way == INCLUDE:
                assert listed.isdisjoint(sources)
            else:
                assert listed >= set(sources)


def test_what_the_kernel_had_no_more_is_joined_again_and_what_it_had_too_much_is_not(multicast, tracked, feed):
    sock, memberships, _ = tracked
    memberships.join(sock, feed[0], "lo", ONE)
    memberships.join(sock, another(feed), "lo")
    multicast.leave_group(sock, feed[0], "lo")
    multicast.block_source(sock, another(feed), ONE, "lo")
    memberships.rejoin(sock, LO, LO)
    assert source_filter(sock, feed[0], LO) == (INCLUDE, {ONE})
    assert source_filter(sock, another(feed), LO) == (EXCLUDE, set())


def test_where_nothing_is_joined_there_is_nothing_to_join_again(tracked, feed):
    sock, memberships, calls = tracked
    memberships.join(sock, feed[0], "lo")
    memberships.rejoin(sock, LO + 1000, LO)
    assert len(calls) == 1
    call = lambda: memberships.rejoin(sock, LO, 2**31 - 1)  # noqa: E731
    refused(errno.ENODEV, call, f"rejoin: no interface {2**31 - 1}", "there are: ", "lo")
    assert source_filter(sock, feed[0], LO) == (EXCLUDE, set())


def test_a_list_of_one_group_leaves_room_for_more_and_a_group_alone_does_not(opened, feed):
    group, port = feed
    more = another(feed)
    alone, listed = opened.receiver((group, port)), opened.receiver(([group], port))
    with pytest.raises(ValueError, match=rf"^join {more} on lo .*bound to {group}, .* with a list of groups is not$"):
        alone.join(more, "lo")
    listed.join(more, "lo")
    opened.sender((more, port)).send(b"more")
    opened.sender(feed).send(b"end")
    assert until(listed, b"end") == [b"more", b"end"]
    assert until(alone, b"end") == [b"end"]


def test_of_several_sources_all_are_left_or_none(opened, feed):
    receiver = opened.receiver(feed, source=["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    with pytest.raises(OSError, match=r"leave .* from 192\.0\.2\.9") as refused:
        receiver.leave(feed[0], source=["192.0.2.1", "192.0.2.9", "192.0.2.2"])
    assert refused.value.errno == errno.EADDRNOTAVAIL
    assert receiver.memberships[0].sources == ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    receiver.leave(feed[0], source=["192.0.2.1", "192.0.2.3"])
    assert receiver.memberships[0].sources == ("192.0.2.2",)
