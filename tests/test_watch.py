"""How a watch is waited on, what it calls a silence and when, and what is left of it: nothing.

Owns memberships that only note what is asked of them. Nothing here joins or sends: links are taken away in
test_healing.py.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import select
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from net import open_descriptors, python_environment
from rig import DEADLINE

from multicast import _timer, _watch
from multicast._membership import kernel_groups

pytest_plugins = ["rig_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rtnetlink, timerfd and epoll are Linux's")

LO = {1: "lo"}


class Memberships:
    def __init__(self, names=LO) -> None:
        self.names, self.lost, self.rejoined, self.refuses, self.refused = dict(names), [], [], False, 0

    def indexes(self):
        return dict(self.names)

    def list(self):
        return tuple(SimpleNamespace(group="239.255.0.1", index=index) for index in self.names)

    def lose(self, sock, index):
        self.lost.append(index)

    def rejoin(self, sock, old_index, new_index):
        if self.refuses:
            self.refused += 1
            raise OSError(22, "refused")
        self.rejoined.append((old_index, new_index))
        self.names[new_index] = self.names.pop(old_index)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pair():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        yield near, far


@pytest.fixture
def watching(pair):
    """Make watches of the socket at hand, and close them afterwards."""
    made = []

    def watch(memberships=None, **options):
        made.append(_watch.Watch(memberships or Memberships(), fd=pair[0].fileno(), **options))
        return made[-1]

    yield watch
    for each in made:
        each.close()


def readable(fd: int, seconds: float = 0) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


# Waiting -----------------------------------------------------------------------------------------------------------


def test_the_outer_descriptor_wakes_for_data_and_the_inner_does_not(watching, pair):
    near, far = pair
    watch = watching()
    far.send(b"x")
    assert readable(watch.outer_fileno())
    assert not readable(watch.fileno())
    near.recv(1)
    assert not readable(watch.outer_fileno())


def test_the_timer_wakes_both_until_it_is_handled_and_then_again(watching, pair):
    told = []
    watch = watching(silence=0.05, on_silence=told.append)
    for _ in range(12):  # four looks in the time of a silence
        assert readable(watch.fileno(), DEADLINE)
        assert readable(watch.outer_fileno())
        watch.handle(pair[0], 0)
    assert len(told) >= 1
    assert watch.silences == len(told)


def test_without_silence_there_is_no_timer(watching):
    watch = watching()
    assert watch._timer is None


def test_an_event_loop_that_only_asks_for_what_is_there_is_told_of_a_silence(watching, pair):
    async def run():
        told = asyncio.get_running_loop().create_future()
        watch = watching(silence=0.05, on_silence=told.set_result)
        asyncio.get_running_loop().add_reader(watch.outer_fileno(), lambda: told.done() or watch.handle(pair[0], 0))
        return await asyncio.wait_for(told, DEADLINE)

    assert asyncio.run(run()).seconds >= 0.05


# Silence -----------------------------------------------------------------------------------------------------------


def test_a_silence_is_told_when_it_begins_and_each_time_as_long_again(watching, pair):
    clock, told = Clock(), []
    watch = watching(silence=2, on_silence=told.append, clock=clock)

    def after(seconds, delivered=0):
        clock.now += seconds
        watch.handle(pair[0], delivered)
        return [each.seconds for each in told]

    assert after(1.5) == []  # from the beginning on: a feed that never came is as silent as one that ended
    assert after(0.5) == [2]
    assert after(1.5) == [2]
    assert after(0.5) == [2, 4]
    assert after(10) == [2, 4, 14]
    assert after(1, delivered=7) == [2, 4, 14]
    assert after(1.5, delivered=7) == [2, 4, 14]
    assert after(1.5, delivered=8) == [2, 4, 14]
    assert after(1.5, delivered=8) == [2, 4, 14]
    assert after(0.5, delivered=8) == [2, 4, 14, 2]
    assert watch.silences == 4


def test_what_waits_for_a_receiver_that_does_not_come_is_no_silence(watching, pair):
    near, far = pair
    clock, told = Clock(), []
    watch = watching(silence=2, on_silence=told.append, clock=clock)
    far.send(b"x")
    clock.now += 60
    watch.handle(near, 0)
    assert told == []
    near.recv(1)
    watch.handle(near, 1)
    clock.now += 2
    watch.handle(near, 1)
    assert [each.seconds for each in told] == [2]


def test_what_waits_and_is_not_delivered_then_ends_no_silence(watching, pair):
    near, far = pair
    clock, told = Clock(), []
    watch = watching(silence=2, on_silence=told.append, clock=clock)
    far.send(b"for somebody else")
    clock.now += 2
    watch.handle(near, 0)
    assert told == []
    near.recv(20)
    clock.now += 0.5
    watch.handle(near, 0)
    assert [each.seconds for each in told] == [2.5]


def test_what_the_callback_raises_goes_to_the_caller_and_the_next_one_is_told_in_its_time(watching, pair):
    clock, told = Clock(), []

    def on_silence(silence):
        told.append(silence.seconds)
        raise LookupError("the callback's")

    watch = watching(silence=2, on_silence=on_silence, clock=clock)
    for times in (1, 2):
        clock.now += 2
        with pytest.raises(LookupError, match="the callback's"):
            watch.handle(pair[0], 0)
        watch.handle(pair[0], 0)
        assert told == [2, 4][:times]


def test_without_a_callback_a_silence_is_logged_when_it_begins(watching, pair, caplog):
    clock = Clock()
    watch = watching(Memberships({}), silence=2, clock=clock)
    for _ in range(3):
        clock.now += 2
        watch.handle(pair[0], 0)
    assert watch.silences == 3
    said = "nothing was delivered for 2 s: Silence(seconds=2.0, interfaces=(), joined=True, dead=False)"
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("multicast", "WARNING", said)
    ]


def test_a_silence_tells_what_the_kernel_has_not():
    """Of an interface that is up, and a group that nobody joined on it."""
    clock, told = Clock(), []
    memberships = Memberships()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        watch = _watch.Watch(memberships, silence=2, on_silence=told.append, fd=sock.fileno(), clock=clock)
        try:
            clock.now += 2
            watch.handle(sock, 0)
        finally:
            watch.close()
    (found,) = told
    assert (found.joined, found.dead) == (False, True)
    assert found.interfaces == (("lo", "up"),)
    assert memberships.rejoined == [(1, 1)]
    assert watch.links_lost == 0


def test_what_the_kernel_has_is_read_whatever_interfaces_are_called():
    """A name is any bytes but a few: it need be no text, nor free of what Unicode takes for a space."""
    igmp = (
        b"Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
        b"7\tdm\xff\xe2\x80\xa8\x1c1    :     1      V3\n\t\t\t\t%08X     1 0:00000000\t\t0\n"
        % int.from_bytes(bytes([239, 255, 0, 1]), sys.byteorder)
    )
    assert kernel_groups(igmp, socket.AF_INET) == {(bytes([239, 255, 0, 1]), 7)}
    igmp6 = b"7    dm\xff\xe2\x80\xa8\x1c1     ff020000000000000000000000000001     1 0000000C 0\n"
    assert kernel_groups(igmp6, socket.AF_INET6) == {(socket.inet_pton(socket.AF_INET6, "ff02::1"), 7)}


# Interfaces --------------------------------------------------------------------------------------------------------


def test_an_interface_that_went_before_the_watch_began_is_joined_again(watching, pair):
    memberships = Memberships({99_999: "lo"})
    watch = watching(memberships)
    assert watch.links_lost == 1
    assert readable(watch.fileno(), DEADLINE)  # without any message
    watch.handle(pair[0], 0)
    assert (watch.rejoins, memberships.rejoined) == (1, [(99_999, 1)])
    assert not readable(watch.fileno())


def test_one_that_has_the_index_of_another_is_not_joined_on(watching, pair):
    memberships = Memberships({1: "absent0"})
    watch = watching(memberships)
    watch.handle(pair[0], 0)
    assert (watch.links_lost, watch.rejoins) == (1, 0)
    assert (memberships.lost, memberships.rejoined) == ([], [])


def test_a_membership_left_to_the_kernel_s_choice_is_not_waited_for(watching, pair):
    watch = watching(Memberships({0: ""}))
    watch.handle(pair[0], 0)
    assert watch.links_lost == 0


def test_a_refused_join_is_tried_again_ever_more_rarely(watching, pair):
    clock, memberships = Clock(), Memberships({99_999: "lo"})
    watch = watching(memberships, clock=clock)
    memberships.refuses = True
    tried = []
    for turn in range(2000):
        clock.now = 1000 + turn / 100
        before = memberships.refused
        watch.handle(pair[0], 0)
        tried += [turn] * (memberships.refused - before)
    waited = [round((later - sooner) / 10) / 10 for sooner, later in itertools.pairwise(tried)]
    assert waited[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2]
    memberships.refuses = False
    clock.now += 3.2
    watch.handle(pair[0], 0)
    assert watch.rejoins == 1


def test_what_was_left_is_not_joined_again(watching, pair):
    memberships = Memberships({99_999: "lo"})
    watch = watching(memberships)
    memberships.names.clear()
    watch.handle(pair[0], 0)
    assert watch.rejoins == 0


def test_a_socket_that_the_user_closed_is_not_healed(watching, pair):
    memberships = Memberships({99_999: "lo"})
    watch = watching(memberships)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closed:
        pass
    watch.handle(closed, 0)
    assert memberships.rejoined == []


def test_a_socket_of_another_namespace_is_refused(rig):
    """By the number of its interface another one would be watched."""
    code = """if True:
        import socket, sys
        with socket.socket(fileno=int(sys.argv[1])) as to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            socket.send_fds(to, [b"x"], [sock.fileno()])
    """
    near, far = socket.socketpair()
    with near, far:
        command = rig.island.inside(sys.executable, "-P", "-c", code, str(far.fileno()))
        subprocess.run(command, pass_fds=[far.fileno()], timeout=DEADLINE, check=True)
        _, (fd,), *_ = socket.recv_fds(near, 1, 1)
    try:
        before = open_descriptors()
        with pytest.raises(ValueError, match="open_receiver: the socket is of another network namespace"):
            _watch.Watch(Memberships(), fd=fd)
        assert open_descriptors() == before
    finally:
        os.close(fd)


# Arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"silence": "1"}, TypeError, "open_receiver: silence is a number of seconds or None, not '1'"),
        ({"silence": True}, TypeError, "open_receiver: silence is a number of seconds or None, not True"),
        ({"silence": 0}, ValueError, "open_receiver: silence is None or from 0.01 to 1000000000 seconds, not 0"),
        ({"silence": float("nan")}, ValueError, "from 0.01 to 1000000000 seconds, not nan"),
        ({"silence": 1e300}, ValueError, "from 0.01 to 1000000000 seconds, not 1e\\+300"),
        ({"silence": 1, "on_silence": 3}, TypeError, "open_receiver: on_silence is callable or None, not 3"),
        ({"on_silence": print}, ValueError, "open_receiver: on_silence is never called without silence"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_opened(watching, options, kind, said):
    before = open_descriptors()
    with pytest.raises(kind, match=said):
        watching(**options)
    assert open_descriptors() == before


@pytest.mark.parametrize("seconds", [0.01, 1_000_000_000])
def test_the_shortest_and_the_longest_silence(watching, pair, seconds):
    watching(silence=seconds).handle(pair[0], 0)


def test_another_system_is_refused(watching, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match=r"needs Linux: rtnetlink\(7\)") as refused:
        watching()
    assert refused.value.errno == 38  # ENOSYS


# What is left of it ------------------------------------------------------------------------------------------------


def test_closed_it_leaves_no_descriptor_and_does_nothing_more(pair):
    before = open_descriptors()
    for _ in range(3):
        watch = _watch.Watch(Memberships(), silence=0.05, fd=pair[0].fileno())
        opened = [int(each) for each in open_descriptors().keys() - before.keys()]
        assert len(opened) == 5  # two epolls, netlink, the timer, /proc/net/igmp
        assert not any(os.get_inheritable(each) for each in opened)
        watch.close()
        watch.close()
        assert (watch.fileno(), watch.outer_fileno()) == (-1, -1)
        watch.handle(pair[0], 0)
        assert open_descriptors() == before


def test_dropped_it_leaves_no_descriptor_either_and_says_nothing(pair):
    before = open_descriptors()
    _watch.Watch(Memberships(), silence=0.05, fd=pair[0].fileno())  # pytest makes a warning an error
    gc.collect()
    assert open_descriptors() == before


def test_a_step_that_fails_leaves_no_descriptor(pair, monkeypatch):
    before = open_descriptors()
    for name in ("link_name", "Timer"):
        with monkeypatch.context() as patch:
            patch.setattr(_watch, name, lambda *_: (_ for _ in ()).throw(OSError(24, "too many")))
            with pytest.raises(OSError, match="open_receiver: watching the interfaces: Too many open files") as failed:
                _watch.Watch(Memberships(), silence=1, fd=pair[0].fileno())
            assert failed.value.errno == 24
        assert open_descriptors() == before


FORK = """
import os, select, socket
from multicast._watch import Watch

class Memberships:
    def indexes(self): return {1: "lo"}
    def list(self): return ()

near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
told = []
watch = Watch(Memberships(), silence=0.05, on_silence=told.append, fd=near.fileno())
child = os.fork()
if child == 0:
    watch.close()
    near.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for _ in range(8):
    assert select.select([watch.outer_fileno()], [], [], 20)[0]
    watch.handle(near, 0)
assert told
far.send(b"x")
assert select.select([watch.outer_fileno()], [], [], 20)[0]
print("the child's close took nothing from the parent")
"""


def test_a_forked_child_closes_its_own(multicast):
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORK],
        env=python_environment(multicast),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "the child's close took nothing from the parent\n"), done.stderr


# The timer ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["os", "ctypes"])
def timer(request, monkeypatch):
    """A timer by either way to one; before Python 3.13 there is one alone."""
    if request.param == "ctypes":
        for name in ("timerfd_create", "timerfd_settime_ns"):
            monkeypatch.delattr(os, name, raising=False)
    made = _timer.Timer()
    yield made
    made.close()


def test_a_timer_fires_again_and_again_until_it_is_told_not_to(timer):
    assert not readable(timer.fileno())
    timer.clear()  # nothing to clear
    timer.every(0.01)
    for _ in range(3):
        assert readable(timer.fileno(), DEADLINE)
        timer.clear()
    timer.every(0)
    assert not readable(timer.fileno())
    timer.every(10_000_000)  # seconds, more than 32 bits of nanoseconds
    assert not readable(timer.fileno())


@pytest.fixture
def no_timer(monkeypatch):
    """Neither the os module nor ctypes has one."""
    for name in ("timerfd_create", "timerfd_settime_ns"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "ctypes", None)


def test_without_a_timer_a_silence_can_t_be_told_and_the_error_says_what_is_missing(pair, no_timer):
    with pytest.raises(OSError, match=r"silence needs Python 3\.13 or ctypes") as refused:
        _watch.Watch(Memberships(), silence=1, fd=pair[0].fileno())
    assert refused.value.errno == 38  # ENOSYS


def test_without_a_timer_a_lost_interface_is_joined_again_all_the_same(pair, no_timer, caplog):
    memberships = Memberships({99_999: "lo"})
    watch = _watch.Watch(memberships, fd=pair[0].fileno())
    try:
        assert "no timer to try again with" in caplog.records[-1].getMessage()
        watch.handle(pair[0], 0)
        assert memberships.rejoined == [(99_999, 1)]
    finally:
        watch.close()
